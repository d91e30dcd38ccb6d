// SPDX-License-Identifier: Apache-2.0
// mica_config from GGUF metadata. Keys carry the architecture's name in front ("qwen2.block_count"). What llama.cpp
// knows by heart and does not store is filled in here: gemma3's window pattern and query scale, Llama 3's rope (which
// the file holds only as a tensor of frequency divisors), turn-ending tokens beside the one eos id.
#include "io/gguf_model.h"
#include "base/half.h"
#include "io/config_internal.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct reader {
    const mica_gguf *g;
    mica_config *c;
    const char *arch; // prefix of the keys
    mica_error *err;
} reader;

static const char *full_key(const reader *r, const char *key, char out[96]) {
    snprintf(out, 96, "%s.%s", r->arch, key);
    return out;
}

// otherwise < 0: the key is required.
static bool get_int(const reader *r, const char *key, int64_t otherwise, int64_t low, int64_t high, int64_t *out) {
    char name[96];
    bool found = mica_gguf_int(r->g, full_key(r, key, name), out);
    if (!found) *out = otherwise;
    if (!found && otherwise >= 0) return true;
    if (!found) return mica_fail(r->err, MICA_ERR_FORMAT, "%s: no integer \"%s\"", r->c->source, name);
    if (*out >= low && *out <= high) return true;
    return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"%s\" is %" PRId64 ", outside %" PRId64 " … %" PRId64, r->c->source, name, *out, low, high);
}

static bool get_float(const reader *r, const char *key, double otherwise, double low, double high, double *out) {
    char name[96];
    bool found = mica_gguf_float(r->g, full_key(r, key, name), out);
    if (!found) *out = otherwise;
    if (!found || (*out >= low && *out <= high)) return true;
    return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"%s\" is %g, outside %g … %g", r->c->source, name, *out, low, high);
}

static bool has_tensor(const reader *r, const char *name) { return mica_gguf_find(r->g, name) != NULL; }

// ---- shapes ------------------------------------------------------------------------------------------
static bool read_arch(reader *r) {
    static const struct { const char *name, *model_type; mica_arch arch; } archs[] = {
        {"llama", "llama", MICA_ARCH_LLAMA}, {"qwen2", "qwen2", MICA_ARCH_QWEN2}, {"qwen3", "qwen3", MICA_ARCH_QWEN3},
        {"gemma3", "gemma3_text", MICA_ARCH_GEMMA3}};
    mica_gguf_string s;
    if (!mica_gguf_str(r->g, "general.architecture", &s))
        return mica_fail(r->err, MICA_ERR_FORMAT, "%s: no \"general.architecture\"", r->c->source);
    for (size_t i = 0; i < MICA_COUNT(archs); i++)
        if (s.size == strlen(archs[i].name) && !memcmp(s.data, archs[i].name, s.size)) {
            r->arch = archs[i].name, r->c->arch = archs[i].arch, r->c->model_type = archs[i].model_type;
            return true;
        }
    return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: unsupported architecture \"%.*s\" (mica runs llama, qwen2, qwen3, gemma3)",
                     r->c->source, (int)MICA_MIN(s.size, (size_t)64), s.data);
}

static bool read_sizes(const reader *r) {
    mica_config *c = r->c;
    const mica_gguf_tensor *embedding = mica_gguf_find(r->g, "token_embd.weight");
    int64_t rotary, experts;
    if (!embedding || embedding->ndim != 2) return mica_fail(r->err, MICA_ERR_FORMAT, "%s: no tensor \"token_embd.weight\"", c->source);
    c->vocab_size = embedding->shape[0];
    if (c->vocab_size > 1 << 24) return mica_fail(r->err, MICA_ERR_FORMAT, "%s: a vocabulary of %" PRId64, c->source, c->vocab_size);
    if (!get_int(r, "embedding_length", -1, 1, 1 << 20, &c->hidden_size) || !get_int(r, "block_count", -1, 1, 4096, &c->num_layers) ||
        !get_int(r, "feed_forward_length", -1, 1, 1 << 22, &c->intermediate_size) ||
        !get_int(r, "attention.head_count", -1, 1, 1 << 14, &c->num_heads) ||
        !get_int(r, "attention.head_count_kv", 0, 1, 1 << 14, &c->num_kv_heads) ||
        !get_int(r, "attention.key_length", 0, 1, 1 << 14, &c->head_dim) ||
        !get_int(r, "rope.dimension_count", 0, 1, 1 << 14, &rotary) || !get_int(r, "expert_count", 0, 0, 1 << 14, &experts) ||
        !get_int(r, "context_length", 2048, 1, (int64_t)1 << 40, &c->max_position_embeddings) ||
        !get_float(r, "attention.layer_norm_rms_epsilon", 1e-6, 0, 1, &c->rms_norm_eps))
        return false;
    if (experts) return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: mixture of experts (%s.expert_count %" PRId64 ") is not supported", c->source, r->arch, experts);
    if (!mica_config_finish(c, r->err)) return false;
    if (!rotary || rotary == c->head_dim) return true;
    return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: partial rotary embedding (%" PRId64 " of %" PRId64 ") is not supported", c->source, rotary, c->head_dim);
}

static bool read_windows(const reader *r) {
    mica_config *c = r->c;
    bool *sliding = mica_arena_calloc(&c->arena, (size_t)c->num_layers * sizeof *sliding);
    int64_t pattern;
    if (!sliding) return mica_fail_memory(r->err, (size_t)c->num_layers, "layer types");
    c->is_sliding = sliding;
    if (c->arch != MICA_ARCH_GEMMA3) return true;
    if (!get_int(r, "attention.sliding_window", 0, 0, (int64_t)1 << 40, &c->sliding_window) ||
        !get_int(r, "attention.sliding_window_pattern", 6, 1, 1 << 20, &pattern))
        return false;
    for (int64_t i = 0; i < c->num_layers; i++) sliding[i] = (i + 1) % pattern != 0;
    return true;
}

static bool read_flavour(const reader *r) {
    mica_config *c = r->c;
    bool gemma = c->arch == MICA_ARCH_GEMMA3;
    c->hidden_act = gemma ? MICA_ACT_GELU_TANH : MICA_ACT_SILU;
    c->tie_word_embeddings = !has_tensor(r, "output.weight");
    c->attention_bias = has_tensor(r, "blk.0.attn_q.bias");
    c->attention_o_bias = has_tensor(r, "blk.0.attn_output.bias");
    c->mlp_bias = has_tensor(r, "blk.0.ffn_up.bias");
    if (!gemma) return true;
    // Of Google's sizes only 27B (62 layers) scales queries by something else than the head size.
    if (c->num_layers == 62) c->query_scale = 1 / sqrt((double)c->hidden_size / (double)c->num_heads);
    return get_float(r, "attn_logit_softcapping", 0, 1e-6, 1e9, &c->attn_softcap) &&
           get_float(r, "final_logit_softcapping", 0, 1e-6, 1e9, &c->final_softcap);
}

// ---- rope --------------------------------------------------------------------------------------------
static double llama3_divisor(const mica_rope_config *rope, double inv_freq) {
    double wavelength = 2 * 3.14159265358979323846 / inv_freq, trained = (double)rope->original_max_position;
    if (wavelength < trained / rope->high_freq_factor) return 1;
    if (wavelength > trained / rope->low_freq_factor) return rope->factor;
    double smooth = (trained / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return 1 / ((1 - smooth) / rope->factor + smooth);
}

static bool is_llama3(const mica_config *c, const mica_rope_config *rope, const float *divisors) {
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double want = llama3_divisor(rope, pow(rope->theta, -2.0 * (double)i / (double)c->head_dim));
        if (!(fabs((double)divisors[i] - want) <= 1e-4 * want)) return false;
    }
    return true;
}

static bool read_divisors(const reader *r, const char *name, const float **out) {
    const mica_gguf_tensor *t = mica_gguf_find(r->g, name);
    size_t n = (size_t)r->c->head_dim / 2;
    if (!t || t->type != MICA_GGML_F32 || t->ndim != 1 || (size_t)t->shape[0] != n)
        return mica_fail(r->err, MICA_ERR_FORMAT, "%s: tensor \"%s\" must hold %zu f32 values", r->c->source, name, n);
    float *values = mica_arena_alloc(&r->c->arena, n * sizeof *values);
    if (!values) return mica_fail_memory(r->err, n * sizeof *values, name);
    memcpy(values, t->data, n * sizeof *values);
    for (size_t i = 0; i < n; i++)
        if (!(values[i] > 1e-6f && values[i] < 1e9f))
            return mica_fail(r->err, MICA_ERR_FORMAT, "%s: tensor \"%s\"[%zu] is no sane factor", r->c->source, name, i);
    *out = values;
    return true;
}

// Divisors without a scaling type: Llama 3.1 and later. Their source parameters are recovered when they explain the
// values; otherwise they serve as they are, which is what longrope with equal short and long factors means.
static bool read_rope_freqs(const reader *r, mica_rope_config *rope) {
    const float *divisors = NULL;
    if (!read_divisors(r, "rope_freqs.weight", &divisors)) return false;
    float most = 1;
    for (int64_t i = 0; i < r->c->head_dim / 2; i++) most = divisors[i] > most ? divisors[i] : most;
    rope->type = MICA_ROPE_LLAMA3, rope->factor = (double)most, rope->original_max_position = 8192;
    if (is_llama3(r->c, rope, divisors)) return true;
    rope->type = MICA_ROPE_LONGROPE, rope->factor = 1, rope->original_max_position = r->c->max_position_embeddings;
    rope->short_factor = rope->long_factor = divisors;
    return true;
}

static bool read_scaling(const reader *r, mica_rope_config *rope) {
    char key[96];
    mica_gguf_string type = {"", 0};
    mica_config *c = r->c;
    mica_gguf_str(r->g, full_key(r, "rope.scaling.type", key), &type);
    bool linear = type.size == 6 && !memcmp(type.data, "linear", 6), yarn = type.size == 4 && !memcmp(type.data, "yarn", 4);
    bool longrope = type.size == 8 && !memcmp(type.data, "longrope", 8), none = !type.size || (type.size == 4 && !memcmp(type.data, "none", 4));
    if (!linear && !yarn && !longrope && !none)
        return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: \"%s\": unknown scaling \"%.*s\"", c->source, key, (int)MICA_MIN(type.size, (size_t)64), type.data);
    if (none) return !has_tensor(r, "rope_freqs.weight") || read_rope_freqs(r, rope);
    if (!get_float(r, "rope.scaling.factor", 1, 1e-3, 1e6, &rope->factor) ||
        !get_int(r, "rope.scaling.original_context_length", c->max_position_embeddings, 2, (int64_t)1 << 40, &rope->original_max_position))
        return false;
    rope->type = linear ? MICA_ROPE_LINEAR : yarn ? MICA_ROPE_YARN : MICA_ROPE_LONGROPE;
    if (linear) return true;
    if (longrope && (!read_divisors(r, "rope_factors_short.weight", &rope->short_factor) ||
                     !read_divisors(r, "rope_factors_long.weight", &rope->long_factor)))
        return false;
    if (longrope) rope->factor = (double)c->max_position_embeddings / (double)rope->original_max_position;
    return get_float(r, "rope.scaling.yarn_beta_fast", 32, 1e-3, 1e6, &rope->beta_fast) &&
           get_float(r, "rope.scaling.yarn_beta_slow", 1, 1e-3, 1e6, &rope->beta_slow) &&
           get_float(r, "rope.scaling.attn_factor", mica_rope_attention_factor(rope), 1e-3, 1e3, &rope->attention_factor);
}

static bool read_rope(const reader *r) {
    mica_config *c = r->c;
    mica_rope_config rope = {.factor = 1, .attention_factor = 1, .low_freq_factor = 1, .high_freq_factor = 4, .beta_fast = 32,
                             .beta_slow = 1, .original_max_position = c->max_position_embeddings};
    c->rope_sliding = rope;
    bool gemma = c->arch == MICA_ARCH_GEMMA3;
    if (!get_float(r, "rope.freq_base", gemma ? 1e6 : 1e4, 1.0001, 1e12, &rope.theta) ||
        !get_float(r, "rope.freq_base_swa", 1e4, 1.0001, 1e12, &c->rope_sliding.theta) || !read_scaling(r, &rope))
        return false;
    c->rope = rope;
    if (!gemma) c->rope_sliding = rope;
    return true;
}

// ---- ends of text ------------------------------------------------------------------------------------
static bool template_uses(const mica_gguf_vocab *v, mica_gguf_string token) {
    char text[40];
    if (!v->chat_template || token.size >= sizeof text) return false;
    memcpy(text, token.data, token.size);
    text[token.size] = 0;
    return strstr(v->chat_template, text) != NULL;
}

// The file names one eos; a chat model also stops at the control token with which its template ends a turn.
static bool ends_turn(const mica_gguf_vocab *v, size_t id) {
    static const char *const names[] = {"<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|eom_id|>", "<|end_of_text|>"};
    mica_gguf_string t = v->tokens[id];
    for (size_t i = 0; i < MICA_COUNT(names); i++)
        if (t.size == strlen(names[i]) && !memcmp(t.data, names[i], t.size)) return template_uses(v, t);
    return false;
}

static bool read_ids(const reader *r) {
    const mica_gguf_vocab *v = mica_gguf_get_vocab(r->g);
    enum { MOST = 8 };
    int64_t *ids = mica_arena_alloc(&r->c->arena, MOST * sizeof *ids);
    if (!ids) return mica_fail_memory(r->err, MOST * sizeof *ids, "eos ids");
    size_t n = 0;
    if (v->eos_id >= 0) ids[n++] = v->eos_id;
    if (v->eot_id >= 0 && v->eot_id != v->eos_id) ids[n++] = v->eot_id;
    for (size_t i = 0; v->types && i < v->count && n < MOST; i++)
        if ((int64_t)i != v->eos_id && (int64_t)i != v->eot_id && v->types[i] == 3 && ends_turn(v, i)) ids[n++] = (int64_t)i;
    r->c->eos_ids = ids, r->c->eos_count = n;
    r->c->bos_id = v->bos_id, r->c->pad_id = v->pad_id;
    return true;
}

bool mica_gguf_config(const mica_gguf *g, mica_config *c, mica_error *err) {
    *c = (mica_config){0};
    const char *path = mica_gguf_path(g);
    c->source = mica_arena_strndup(&c->arena, path, strlen(path));
    reader r = {g, c, "", err};
    bool ok = c->source || mica_fail_memory(err, strlen(path), "config");
    ok = ok && read_arch(&r) && read_sizes(&r) && read_windows(&r) && read_flavour(&r) && read_rope(&r) && read_ids(&r);
    if (!ok) mica_config_free(c);
    return ok;
}
