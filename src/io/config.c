// SPDX-License-Identifier: Apache-2.0
// config.json into mica_config. The defaults of absent fields are those of transformers' configuration classes
// (LlamaConfig, Qwen2Config, Qwen3Config, Gemma3TextConfig), one column each in the table below. Limits are far
// beyond any real model: they exist so that products of sizes cannot overflow and allocations stay sane.
#include "io/config_internal.h"
#include "base/file.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_MAX = 64 * 1000 * 1000 };

static const struct arch_defaults {
    const char *name;
    int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, positions; // kv_heads, head_dim: 0 = derived
    int64_t eos, bos, pad;
    bool tied;
} arch_defaults[] = {
    [MICA_ARCH_LLAMA] = {"llama", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 2, 1, -1, false},
    [MICA_ARCH_QWEN2] = {"qwen2", 151936, 4096, 22016, 32, 32, 32, 0, 32768, -1, -1, -1, false},
    [MICA_ARCH_QWEN3] = {"qwen3", 151936, 4096, 22016, 32, 32, 32, 128, 32768, -1, -1, -1, false},
    [MICA_ARCH_GEMMA3] = {"gemma3", 262208, 2304, 9216, 26, 8, 4, 256, 131072, 1, 2, 0, true},
};

// ---- reading fields ----------------------------------------------------------------------------------
static bool present(const mica_json *v) { return v && v->type != MICA_JSON_NULL; }

/** The object that holds key: text, else root, else text again (where it is absent). A null counts as absent. */
static const mica_json *holder(const mica_config_reader *r, const char *key) {
    if (present(mica_json_get(r->text, key)) || !present(mica_json_get(r->root, key))) return r->text;
    return r->root;
}

/** A whole number in [low, high]; absent: otherwise. */
static bool read_int(const mica_config_reader *r, const char *key, int64_t otherwise, int64_t low, int64_t high, int64_t *out) {
    if (!mica_json_int(holder(r, key), key, otherwise, out, r->what, r->err)) return false;
    if (!present(mica_json_get(holder(r, key), key)) || (*out >= low && *out <= high)) return true;
    return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"%s\" is %lld, outside %lld … %lld", r->what, key, (long long)*out,
                     (long long)low, (long long)high);
}

bool mica_config_number(const mica_config_reader *r, const mica_json *object, const char *key, double otherwise, double low,
                        double high, double *out) {
    if (!mica_json_float(object, key, otherwise, out, r->what, r->err)) return false;
    if (!present(mica_json_get(object, key)) || (*out >= low && *out <= high)) return true; // false for NaN
    return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"%s\" is %g, outside %g … %g", r->what, key, *out, low, high);
}

static bool read_bool(const mica_config_reader *r, const char *key, bool otherwise, bool *out) {
    return mica_json_bool(holder(r, key), key, otherwise, out, r->what, r->err);
}

// ---- parts -------------------------------------------------------------------------------------------
static bool read_arch(mica_config *c, const char *what, mica_error *err) {
    static const struct { const char *name; mica_arch arch; } names[] = {
        {"llama", MICA_ARCH_LLAMA}, {"qwen2", MICA_ARCH_QWEN2}, {"qwen3", MICA_ARCH_QWEN3},
        {"gemma3", MICA_ARCH_GEMMA3}, {"gemma3_text", MICA_ARCH_GEMMA3}};
    for (size_t i = 0; i < MICA_COUNT(names); i++)
        if (!strcmp(c->model_type, names[i].name)) return c->arch = names[i].arch, true;
    return mica_fail(err, MICA_ERR_UNSUPPORTED,
                     "%s: \"model_type\": unsupported architecture \"%s\" (mica runs llama, qwen2, qwen3, gemma3, gemma3_text)",
                     what, c->model_type);
}

static bool read_sizes(const mica_config_reader *r) {
    mica_config *c = r->config;
    const struct arch_defaults *d = &arch_defaults[c->arch];
    return read_int(r, "vocab_size", d->vocab, 1, 1 << 24, &c->vocab_size) &&
           read_int(r, "hidden_size", d->hidden, 1, 1 << 20, &c->hidden_size) &&
           read_int(r, "intermediate_size", d->intermediate, 1, 1 << 22, &c->intermediate_size) &&
           read_int(r, "num_hidden_layers", d->layers, 1, 4096, &c->num_layers) &&
           read_int(r, "num_attention_heads", d->heads, 1, 1 << 14, &c->num_heads) &&
           read_int(r, "num_key_value_heads", d->kv_heads, 1, 1 << 14, &c->num_kv_heads) &&
           read_int(r, "head_dim", d->head_dim, 1, 1 << 14, &c->head_dim) &&
           read_int(r, "max_position_embeddings", d->positions, 1, (int64_t)1 << 40, &c->max_position_embeddings) &&
           mica_config_number(r, holder(r, "rms_norm_eps"), "rms_norm_eps", 1e-6, 0, 1, &c->rms_norm_eps);
}

static bool read_act(const mica_config_reader *r) {
    static const struct { const char *name; mica_act act; } acts[] = {
        {"silu", MICA_ACT_SILU}, {"swish", MICA_ACT_SILU}, {"gelu_pytorch_tanh", MICA_ACT_GELU_TANH},
        {"gelu_new", MICA_ACT_GELU_TANH}, {"gelu", MICA_ACT_GELU_ERF}, {"relu", MICA_ACT_RELU}};
    bool gemma = r->config->arch == MICA_ARCH_GEMMA3;
    const char *key = gemma ? "hidden_activation" : "hidden_act", *name;
    if (!mica_json_string(holder(r, key), key, gemma ? "gelu_pytorch_tanh" : "silu", &name, r->what, r->err)) return false;
    for (size_t i = 0; i < MICA_COUNT(acts); i++)
        if (!strcmp(name, acts[i].name)) return r->config->hidden_act = acts[i].act, true;
    return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: \"%s\": unknown activation \"%s\"", r->what, key, name);
}

static bool read_biases(const mica_config_reader *r) {
    mica_config *c = r->config;
    bool qwen2 = c->arch == MICA_ARCH_QWEN2;
    if (!qwen2 && !read_bool(r, "attention_bias", false, &c->attention_bias)) return false;
    c->attention_o_bias = c->attention_bias;
    if (qwen2) c->attention_bias = true;
    return c->arch != MICA_ARCH_LLAMA || read_bool(r, "mlp_bias", false, &c->mlp_bias);
}

static bool read_gemma_extras(const mica_config_reader *r) {
    mica_config *c = r->config;
    double scalar = 0;
    bool bidirectional;
    if (c->arch != MICA_ARCH_GEMMA3) return true;
    if (!mica_config_number(r, holder(r, "query_pre_attn_scalar"), "query_pre_attn_scalar", 256, 1e-6, 1e9, &scalar) ||
        !mica_config_number(r, r->text, "attn_logit_softcapping", 0, 1e-6, 1e9, &c->attn_softcap) ||
        !mica_config_number(r, r->text, "final_logit_softcapping", 0, 1e-6, 1e9, &c->final_softcap) ||
        !read_bool(r, "use_bidirectional_attention", false, &bidirectional))
        return false;
    c->query_scale = 1 / sqrt(scalar);
    return !bidirectional || mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: \"use_bidirectional_attention\" is not supported", r->what);
}

static bool read_dtype(const mica_config_reader *r) {
    static const struct { const char *name; mica_dtype dtype; } names[] = {
        {"float32", MICA_F32}, {"float16", MICA_F16}, {"bfloat16", MICA_BF16}};
    const char *key = present(mica_json_get(holder(r, "dtype"), "dtype")) ? "dtype" : "torch_dtype", *name;
    if (!mica_json_string(holder(r, key), key, "", &name, r->what, r->err)) return false;
    if (!strncmp(name, "torch.", 6)) name += 6;
    for (size_t i = 0; i < MICA_COUNT(names); i++)
        if (!strcmp(name, names[i].name)) r->config->dtype = names[i].dtype, r->config->has_dtype = true;
    return true; // "auto" and the like say nothing
}

// ---- sliding windows ---------------------------------------------------------------------------------
static bool read_layer_types(const mica_config_reader *r, const mica_json *types, bool *sliding) {
    mica_config *c = r->config;
    if (types->type != MICA_JSON_ARRAY || types->length != (size_t)c->num_layers)
        return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"layer_types\" must list %lld layers", r->what, (long long)c->num_layers);
    int64_t i = 0;
    for (const mica_json *t = types->child; t; t = t->next, i++) {
        const char *name = t->type == MICA_JSON_STRING ? t->string : "";
        sliding[i] = !strcmp(name, "sliding_attention");
        if (!sliding[i] && strcmp(name, "full_attention"))
            return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: \"layer_types\"[%lld]: unknown type \"%s\"", r->what, (long long)i, name);
    }
    return true;
}

static bool read_pattern(const mica_config_reader *r, bool *sliding) {
    int64_t pattern, first;
    mica_config *c = r->config;
    if (c->arch == MICA_ARCH_GEMMA3) {
        if (!read_int(r, "_sliding_window_pattern", 6, 1, 1 << 20, &pattern) ||
            !read_int(r, "sliding_window_pattern", pattern, 1, 1 << 20, &pattern))
            return false;
        for (int64_t i = 0; i < c->num_layers; i++) sliding[i] = (i + 1) % pattern != 0;
        return true;
    }
    if (!read_int(r, "max_window_layers", 28, 0, 1 << 20, &first)) return false;
    for (int64_t i = 0; i < c->num_layers; i++) sliding[i] = i >= first;
    return true;
}

static bool read_windows(const mica_config_reader *r) {
    mica_config *c = r->config;
    bool *sliding = mica_arena_calloc(&c->arena, (size_t)c->num_layers * sizeof *sliding), used = c->arch == MICA_ARCH_GEMMA3;
    c->is_sliding = sliding;
    if (!sliding) return mica_fail_memory(r->err, (size_t)c->num_layers, "layer types");
    if (c->arch == MICA_ARCH_LLAMA) return true; // LlamaConfig knows no window
    if (!used && !read_bool(r, "use_sliding_window", false, &used)) return false;
    if (!used) return true;
    const mica_json *types = mica_json_get(holder(r, "layer_types"), "layer_types");
    const mica_json *window = mica_json_get(r->text, "sliding_window"); // null says "none", absence the default
    if (!read_int(r, "sliding_window", window ? 0 : 4096, 1, (int64_t)1 << 40, &c->sliding_window)) return false;
    if (!c->sliding_window && c->arch != MICA_ARCH_GEMMA3) return true;
    if (!(present(types) ? read_layer_types(r, types, sliding) : read_pattern(r, sliding))) return false;
    for (int64_t i = 0; i < c->num_layers; i++)
        if (sliding[i]) return true;
    c->sliding_window = 0;
    return true;
}

// ---- derived values and checks -----------------------------------------------------------------------
bool mica_config_finish(mica_config *c, mica_error *err) {
    const char *what = c->source;
    if (!c->num_kv_heads) c->num_kv_heads = c->num_heads;
    if (!c->head_dim) {
        if (c->hidden_size % c->num_heads)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: \"hidden_size\" %lld is no multiple of \"num_attention_heads\" %lld", what,
                             (long long)c->hidden_size, (long long)c->num_heads);
        c->head_dim = c->hidden_size / c->num_heads;
    }
    if (c->num_heads % c->num_kv_heads)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: \"num_attention_heads\" %lld is no multiple of \"num_key_value_heads\" %lld",
                         what, (long long)c->num_heads, (long long)c->num_kv_heads);
    if (c->head_dim % 2)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: \"head_dim\" %lld is odd", what, (long long)c->head_dim);
    if (c->num_heads * c->head_dim > 1 << 22)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: %lld heads of %lld are absurd", what, (long long)c->num_heads, (long long)c->head_dim);
    if (!(c->query_scale > 0)) c->query_scale = 1 / sqrt((double)c->head_dim);
    return true;
}

static bool read_special_ids(const mica_config_reader *r) {
    mica_config *c = r->config;
    const struct arch_defaults *d = &arch_defaults[c->arch];
    return read_int(r, "bos_token_id", d->bos, -1, 1 << 24, &c->bos_id) &&
           read_int(r, "pad_token_id", d->pad, -1, 1 << 24, &c->pad_id);
}

static bool read_eos(const mica_config_reader *r, const mica_json *generation, const char *generation_what) {
    bool in_text = false, in_root = false, in_generation = false;
    if (!mica_config_eos(r->config, r->text, r->what, &in_text, r->err)) return false;
    if (r->root != r->text && !mica_config_eos(r->config, r->root, r->what, &in_root, r->err)) return false;
    if (generation && !mica_config_eos(r->config, generation, generation_what, &in_generation, r->err)) return false;
    if (in_text || in_root || in_generation || arch_defaults[r->config->arch].eos < 0) return true;
    int64_t *id = mica_arena_alloc(&r->config->arena, sizeof *id);
    if (!id) return mica_fail_memory(r->err, sizeof *id, "eos ids");
    *id = arch_defaults[r->config->arch].eos;
    r->config->eos_ids = id, r->config->eos_count = 1;
    return true;
}

static bool read_all(mica_config *c, const mica_json *root, const mica_json *generation, const char *what,
                     const char *generation_what, mica_error *err) {
    if (root->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: not a JSON object", what);
    c->json = root;
    c->query_scale = 0;
    if (!mica_json_string(root, "model_type", NULL, &c->model_type, what, err)) return false;
    if (!c->model_type) return mica_fail(err, MICA_ERR_FORMAT, "%s: no \"model_type\"", what);
    const mica_json *text = mica_json_get(root, "text_config");
    mica_config_reader r = {c, root, root, what, err};
    if (!read_arch(c, what, err)) return false;
    if (text && text->type == MICA_JSON_OBJECT && c->arch == MICA_ARCH_GEMMA3) r.text = text;
    return read_sizes(&r) && read_act(&r) && read_biases(&r) && read_gemma_extras(&r) && read_dtype(&r) && read_windows(&r) &&
           read_bool(&r, "tie_word_embeddings", arch_defaults[c->arch].tied, &c->tie_word_embeddings) &&
           read_special_ids(&r) && mica_config_finish(c, err) && mica_config_rope(&r) && mica_config_quantization(&r) &&
           read_eos(&r, generation, generation_what) && (!generation || mica_config_generation(c, generation, generation_what, err));
}

bool mica_config_parse(mica_config *c, const char *text, size_t size, const char *generation, size_t generation_size,
                       const char *what, mica_error *err) {
    *c = (mica_config){0};
    const char *generation_what = generation ? "generation_config.json" : NULL;
    c->source = mica_arena_strndup(&c->arena, what, strlen(what));
    bool ok = c->source || mica_fail_memory(err, strlen(what), "config");
    const mica_json *root = ok ? mica_json_parse(&c->arena, text, size, what, err) : NULL, *more = NULL;
    ok = root != NULL;
    if (ok && generation) ok = (more = mica_json_parse(&c->arena, generation, generation_size, generation_what, err)) != NULL;
    ok = ok && read_all(c, root, more, c->source, generation_what, err);
    if (!ok) mica_config_free(c);
    return ok;
}

bool mica_config_load(mica_config *c, const char *folder, mica_error *err) {
    *c = (mica_config){0};
    char *path = mica_path_join(folder, "config.json"), *more_path = mica_path_join(folder, "generation_config.json");
    mica_buf text = {0}, more = {0};
    bool ok = (path && more_path) || mica_fail_memory(err, strlen(folder), "a file name");
    if (ok && !mica_is_file(path)) ok = mica_fail(err, MICA_ERR_IO, "%s: no config.json", folder);
    ok = ok && mica_file_read(path, CONFIG_MAX, &text, err);
    bool generation = ok && mica_is_file(more_path);
    if (generation) ok = mica_file_read(more_path, CONFIG_MAX, &more, err);
    if (ok) ok = mica_config_parse(c, text.data ? text.data : "", text.len, generation ? (more.data ? more.data : "") : NULL, more.len, path, err);
    mica_buf_free(&text);
    mica_buf_free(&more);
    mica_free(path);
    mica_free(more_path);
    return ok;
}

void mica_config_free(mica_config *c) {
    mica_arena_free(&c->arena);
    *c = (mica_config){0};
}
