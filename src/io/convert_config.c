// SPDX-License-Identifier: Apache-2.0
// config.json of a converted model: the source's fields as they are, plus what readers of either generation need.
// mlx-lm knows only the older spellings (rope_theta, rope_scaling, sliding_window_pattern) for most architectures and
// has defaults of its own for absent fields, so every field that matters is written out.
#include "io/convert_parts.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct out {
    mica_json_writer w;
    const mica_conversion *v;
    const mica_json *object; // the source object being extended; NULL for GGUF
} out;

bool mica_conversion_nested(const mica_config *c) {
    const mica_json *text = mica_json_get(c->json, "text_config");
    return c->arch == MICA_ARCH_GEMMA3 && text && text->type == MICA_JSON_OBJECT;
}

static bool stated(const mica_json *object, const char *key) {
    const mica_json *v = mica_json_get(object, key);
    return v && v->type != MICA_JSON_NULL;
}

// ---- fields, each only where the source has none -------------------------------------------------------
static void put_int(out *o, const char *key, int64_t v) {
    if (stated(o->object, key)) return;
    mica_json_key(&o->w, key);
    mica_json_put_int(&o->w, v);
}

static void put_float(out *o, const char *key, double v) {
    if (stated(o->object, key)) return;
    mica_json_key(&o->w, key);
    mica_json_put_float(&o->w, v);
}

static void put_bool(out *o, const char *key, bool v) {
    if (stated(o->object, key)) return;
    mica_json_key(&o->w, key);
    mica_json_put_bool(&o->w, v);
}

static void put_untied(out *o) {
    mica_json_key(&o->w, "tie_word_embeddings");
    mica_json_put_bool(&o->w, false);
}

static void put_string(out *o, const char *key, const char *v) {
    if (stated(o->object, key)) return;
    mica_json_key(&o->w, key);
    mica_json_put_cstring(&o->w, v);
}

static void put_factors(out *o, const char *key, const float *values, size_t n) {
    mica_json_key(&o->w, key);
    mica_json_begin_array(&o->w);
    for (size_t i = 0; i < n; i++) mica_json_put_float(&o->w, (double)values[i]);
    mica_json_end_array(&o->w);
}

static void put_rope_scaling(out *o, const mica_rope_config *r, size_t factors) {
    if (stated(o->object, "rope_scaling") || r->type == MICA_ROPE_NONE) return;
    bool yarn = r->type == MICA_ROPE_YARN, llama3 = r->type == MICA_ROPE_LLAMA3, longrope = r->type == MICA_ROPE_LONGROPE;
    mica_json_key(&o->w, "rope_scaling");
    mica_json_begin_object(&o->w);
    out inner = {o->w, o->v, NULL};
    put_string(&inner, "rope_type", mica_rope_type_name(r->type));
    put_float(&inner, "factor", r->factor);
    if (yarn || llama3 || longrope) put_int(&inner, "original_max_position_embeddings", r->original_max_position);
    if (llama3) put_float(&inner, "low_freq_factor", r->low_freq_factor), put_float(&inner, "high_freq_factor", r->high_freq_factor);
    if (yarn) put_float(&inner, "beta_fast", r->beta_fast), put_float(&inner, "beta_slow", r->beta_slow);
    if (yarn && r->mscale != 0) put_float(&inner, "mscale", r->mscale);
    if (yarn && r->mscale_all_dim != 0) put_float(&inner, "mscale_all_dim", r->mscale_all_dim);
    if (yarn && r->no_truncate) put_bool(&inner, "truncate", false);
    if (yarn || longrope) put_float(&inner, "attention_factor", r->attention_factor);
    if (longrope) put_factors(&inner, "short_factor", r->short_factor, factors), put_factors(&inner, "long_factor", r->long_factor, factors);
    mica_json_end_object(&inner.w);
    o->w = inner.w;
}

// The period of full-attention layers, if the layers follow one; 0 otherwise.
static int64_t window_pattern(const mica_config *c) {
    int64_t pattern = 1;
    while (pattern <= c->num_layers && c->is_sliding[pattern - 1]) pattern++;
    for (int64_t i = 0; i < c->num_layers; i++)
        if (c->is_sliding[i] != ((i + 1) % pattern != 0)) return 0;
    return pattern;
}

static void put_gemma_fields(out *o, const mica_config *c) {
    int64_t pattern = window_pattern(c);
    double scalar = 1 / (c->query_scale * c->query_scale);
    if (fabs(scalar - round(scalar)) < 1e-6 * scalar) put_int(o, "query_pre_attn_scalar", (int64_t)round(scalar)); // readers want an int
    else put_float(o, "query_pre_attn_scalar", scalar);
    put_float(o, "rope_local_base_freq", c->rope_sliding.theta);
    if (c->sliding_window) put_int(o, "sliding_window", c->sliding_window);
    if (!pattern) return;
    mica_json_key(&o->w, "sliding_window_pattern"); // always: a stated one may contradict layer_types
    mica_json_put_int(&o->w, pattern);
}

static const char *act_name(mica_act act) {
    static const char *const names[] = {"silu", "gelu_pytorch_tanh", "gelu", "relu"};
    return names[act];
}

static void put_text_fields(out *o) {
    const mica_config *c = o->v->config;
    bool gemma = c->arch == MICA_ARCH_GEMMA3;
    put_int(o, "vocab_size", c->vocab_size);
    put_int(o, "hidden_size", c->hidden_size);
    put_int(o, "intermediate_size", c->intermediate_size);
    put_int(o, "num_hidden_layers", c->num_layers);
    put_int(o, "num_attention_heads", c->num_heads);
    put_int(o, "num_key_value_heads", c->num_kv_heads);
    put_int(o, "head_dim", c->head_dim);
    put_int(o, "max_position_embeddings", c->max_position_embeddings);
    put_float(o, "rms_norm_eps", c->rms_norm_eps);
    put_float(o, "rope_theta", c->rope.theta);
    put_rope_scaling(o, &c->rope, (size_t)c->head_dim / 2);
    put_string(o, gemma ? "hidden_activation" : "hidden_act", act_name(c->hidden_act));
    if (c->arch != MICA_ARCH_QWEN2) put_bool(o, "attention_bias", c->attention_bias);
    if (c->arch == MICA_ARCH_LLAMA) put_bool(o, "mlp_bias", c->mlp_bias);
    if (!o->v->untied) put_bool(o, "tie_word_embeddings", c->tie_word_embeddings);
    else put_untied(o);
    if (gemma) put_gemma_fields(o, c);
    if (c->final_softcap > 0) put_float(o, "final_logit_softcapping", c->final_softcap);
    if (c->attn_softcap > 0) put_float(o, "attn_logit_softcapping", c->attn_softcap);
}

// ---- copying -------------------------------------------------------------------------------------------
static bool is_token_id(const mica_json *m) {
    return m->key_length > 9 && !memcmp(m->key + m->key_length - 9, "_token_id", 9);
}

// Nulls go too: they mean "absent", and some of them are written with a value below. Only a null token id says something.
static void copy_members(out *o, const char *const *except) {
    for (const mica_json *m = o->object ? o->object->child : NULL; m; m = m->next) {
        bool skip = (o->v->untied && strcmp(m->key, "tie_word_embeddings") == 0) || (m->type == MICA_JSON_NULL && !is_token_id(m)) || strlen(m->key) != m->key_length || mica_json_get(o->object, m->key) != m;
        for (const char *const *e = except; *e && !skip; e++) skip = !strcmp(m->key, *e);
        if (skip) continue;
        mica_json_key(&o->w, m->key);
        mica_json_put_tree(&o->w, m);
    }
}

static const char *dtype_name(mica_dtype d) { return d == MICA_F16 ? "float16" : d == MICA_BF16 ? "bfloat16" : "float32"; }

static void put_quantization(out *o, const char *key) {
    mica_quant_spec s = o->v->spec;
    mica_json_key(&o->w, key);
    mica_json_begin_object(&o->w);
    out inner = {o->w, o->v, NULL};
    put_int(&inner, "group_size", s.group_size);
    put_int(&inner, "bits", s.bits);
    put_string(&inner, "mode", mica_quant_mode_name(s.mode));
    mica_json_end_object(&inner.w);
    o->w = inner.w;
}

// The source's own, overrides for single modules included.
static void put_own_quantization(out *o) {
    static const char *const keys[] = {"quantization", "quantization_config"};
    const mica_json *root = o->object, *own = stated(root, keys[0]) ? mica_json_get(root, keys[0]) : mica_json_get(root, keys[1]);
    if (!own || own->type == MICA_JSON_NULL) own = mica_json_get(mica_json_get(root, "text_config"), keys[1]);
    for (size_t i = 0; own && i < MICA_COUNT(keys); i++) {
        mica_json_key(&o->w, keys[i]);
        mica_json_put_tree(&o->w, own);
    }
}

static void put_ids(out *o) {
    const mica_config *c = o->v->config;
    if (c->bos_id >= 0) put_int(o, "bos_token_id", c->bos_id);
    if (c->pad_id >= 0) put_int(o, "pad_token_id", c->pad_id);
    if (c->eos_count == 1) put_int(o, "eos_token_id", c->eos_ids[0]);
    if (c->eos_count == 1) return;
    mica_json_key(&o->w, "eos_token_id"); // none is said as null: absence would mean the architecture's default
    if (!c->eos_count) {
        mica_json_put_null(&o->w);
        return;
    }
    mica_json_begin_array(&o->w);
    for (size_t i = 0; i < c->eos_count; i++) mica_json_put_int(&o->w, c->eos_ids[i]);
    mica_json_end_array(&o->w);
}

static void put_new_model(out *o) {
    static const char *const classes[] = {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM"};
    mica_json_key(&o->w, "architectures");
    mica_json_begin_array(&o->w);
    mica_json_put_cstring(&o->w, classes[o->v->config->arch]);
    mica_json_end_array(&o->w);
    put_ids(o);
}

static const char *const replaced[] = {"_name_or_path", "vision_config", "quantization", "quantization_config", "text_config",
                                       "model_type", "sliding_window_pattern", "_sliding_window_pattern", NULL};
static const char *const replaced_with_dtype[] = {"_name_or_path", "vision_config", "quantization", "quantization_config", "text_config",
                                                  "model_type", "sliding_window_pattern", "_sliding_window_pattern", "dtype",
                                                  "torch_dtype", NULL};

// An irregular window pattern is in layer_types alone; a regular one is written anew.
static void put_text_object(out *o, bool nested) {
    const mica_conversion *v = o->v;
    copy_members(o, v->cast ? replaced_with_dtype : replaced);
    bool gemma_text = v->config->arch == MICA_ARCH_GEMMA3;
    mica_json_key(&o->w, "model_type");
    mica_json_put_cstring(&o->w, gemma_text ? "gemma3_text" : v->config->model_type);
    put_text_fields(o);
    if (v->cast && !nested) {
        mica_json_key(&o->w, "torch_dtype");
        mica_json_put_cstring(&o->w, dtype_name(v->dtype));
    }
}

static void put_nested(out *o) {
    const mica_json *root = o->object;
    copy_members(o, o->v->cast ? replaced_with_dtype : replaced);
    mica_json_key(&o->w, "model_type");
    mica_json_put_cstring(&o->w, "gemma3");
    put_int(o, "vocab_size", o->v->config->vocab_size); // mlx-lm takes it from here
    if (o->v->untied) put_untied(o);
    if (o->v->cast) {
        mica_json_key(&o->w, "torch_dtype");
        mica_json_put_cstring(&o->w, dtype_name(o->v->dtype));
    }
    mica_json_key(&o->w, "text_config");
    mica_json_begin_object(&o->w);
    o->object = mica_json_get(root, "text_config");
    put_text_object(o, true);
    mica_json_end_object(&o->w);
    o->object = root;
}

bool mica_convert_config(const mica_conversion *v, mica_error *err) {
    mica_buf text = {0};
    out o = {{.out = &text}, v, v->config->json};
    mica_json_begin_object(&o.w);
    if (!v->config->json) put_new_model(&o);
    if (mica_conversion_nested(v->config)) put_nested(&o);
    else put_text_object(&o, false);
    if (v->own_quant) put_own_quantization(&o);
    else if (v->quantize) put_quantization(&o, "quantization"), put_quantization(&o, "quantization_config");
    mica_json_end_object(&o.w);
    mica_buf_putc(&text, '\n');
    bool ok = !text.failed ? mica_convert_write(v->folder, "config.json", text.data, text.len, err)
                           : mica_fail_memory(err, text.len, "config.json");
    mica_buf_free(&text);
    return ok;
}
