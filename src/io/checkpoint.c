// SPDX-License-Identifier: Apache-2.0
// One face for model folders and GGUF files. A folder's naming style (the prefixes that multi-modal files put in front)
// is recognised once by where its embedding table is; how a module is quantised follows from config.json's overrides
// and, without one, from the shapes of its triple, as mlx-lm infers it.
#include "io/checkpoint.h"
#include "base/file.h"
#include "base/quant.h"
#include "io/gguf_model.h"
#include "io/safetensors.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { NAME = 512 };

static const struct style { const char *model, *head; } styles[] = {
    {"model.", ""}, {"language_model.model.", "language_model."}, {"model.language_model.", ""},
    {"model.language_model.model.", "model.language_model."}, {"", ""}};

struct mica_model_files {
    char *path;
    mica_config config;
    mica_safetensors *st;
    mica_gguf *gguf;
    const struct style *style;
};

// ---- names -------------------------------------------------------------------------------------------
static bool styled(const struct style *s, const char *module, char *out) {
    bool inner = !strncmp(module, "model.", 6);
    int n = snprintf(out, NAME, "%s%s", inner ? s->model : s->head, inner ? module + 6 : module);
    return n > 0 && n < NAME - 32; // room for ".global_scale"
}

static const mica_stored *part(const mica_model_files *c, const char *name, const char *leaf) {
    char full[NAME];
    int n = snprintf(full, sizeof full, "%s.%s", name, leaf);
    return n > 0 && n < NAME ? mica_safetensors_find(c->st, full) : NULL;
}

static void find_style(mica_model_files *c) {
    char name[NAME];
    c->style = styles;
    for (size_t i = 0; i < MICA_COUNT(styles); i++)
        if (styled(&styles[i], "model.embed_tokens", name) && part(c, name, "weight")) {
            c->style = &styles[i];
            return;
        }
}

// The module's name in the files: with their prefix, or bare (some exports prefix everything but lm_head).
static bool locate(const mica_model_files *c, const char *module, char *name) {
    if (!styled(c->style, module, name)) return false;
    if (part(c, name, "weight")) return true;
    if (strlen(module) >= NAME - 32 || !part(c, module, "weight")) return false;
    snprintf(name, NAME, "%s", module);
    return true;
}

// ---- folder: one weight ------------------------------------------------------------------------------
static const char *file_of(const mica_model_files *c, const mica_stored *t) {
    const char *file = mica_safetensors_file(c->st, t);
    return file ? file : c->path;
}

static bool is_model_float(mica_dtype d) { return d == MICA_F32 || d == MICA_F16 || d == MICA_BF16; }

static bool wrong_shape(const mica_model_files *c, const mica_stored *t, int64_t out, int64_t in, mica_error *err) {
    char have[160], want[64];
    if (out) snprintf(want, sizeof want, "[%lld,%lld]", (long long)out, (long long)in);
    else snprintf(want, sizeof want, "[%lld]", (long long)in);
    return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": shape %s, the config asks for %s", c->path, t->name,
                     mica_stored_shape(t, have, sizeof have), want);
}

// Bits and group size that the shapes imply, as mlx-lm infers them; in may be unknown (-1): then by the global spec.
static bool infer_spec(const mica_model_files *c, const mica_weight *w, int64_t in, mica_quant_spec *spec, mica_error *err) {
    uint64_t words = (uint64_t)w->weight.shape[1], groups = (uint64_t)w->scales.shape[1];
    if (in <= 0 && c->config.quantized) return *spec = c->config.quant, true;
    if (in <= 0 || !groups) return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": no \"quantization\" in config.json", c->path, w->weight.name);
    mica_quant_spec s = {MICA_AFFINE, (int)(words * 32 / (uint64_t)in), (int)((uint64_t)in / groups)};
    if (w->scales.dtype == MICA_U8) s.mode = s.bits == 8 ? MICA_MXFP8 : s.group_size == 16 ? MICA_NVFP4 : MICA_MXFP4;
    *spec = s;
    return mica_quant_check(s, err) || mica_error_prefix(err, "%s: tensor \"%s\"", c->path, w->weight.name);
}

static bool same_shape(const mica_stored *a, const mica_stored *b) {
    return a->ndim == 2 && b->ndim == 2 && a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1];
}

static bool check_triple(const mica_model_files *c, mica_weight *w, mica_error *err) {
    char a[160], b[160];
    int64_t out = w->weight.shape[0], words = w->weight.shape[1];
    bool affine = w->spec.mode == MICA_AFFINE, fits = w->scales.shape[0] == out;
    w->in = words * 32 / w->spec.bits, w->out = out;
    fits = fits && mica_quant_fits(w->spec, (size_t)w->in) && (int64_t)mica_quant_words(w->spec, (size_t)w->in) == words &&
           (int64_t)mica_quant_groups(w->spec, (size_t)w->in) == w->scales.shape[1];
    if (!fits)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": codes %s and scales %s are no %s weight of %d bits by %d", c->path,
                         w->weight.name, mica_stored_shape(&w->weight, a, sizeof a), mica_stored_shape(&w->scales, b, sizeof b),
                         mica_quant_mode_name(w->spec.mode), w->spec.bits, w->spec.group_size);
    if (affine ? !is_model_float(w->scales.dtype) : w->scales.dtype != MICA_U8)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": %s scales for %s quantisation", c->path, w->scales.name,
                         mica_dtype_name(w->scales.dtype), mica_quant_mode_name(w->spec.mode));
    if (affine && (!same_shape(&w->scales, &w->biases) || w->biases.dtype != w->scales.dtype))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": biases do not match the scales", c->path, w->weight.name);
    return true;
}

static bool find_triple(const mica_model_files *c, const char *name, int stated, int64_t in, mica_weight *w, mica_error *err) {
    const mica_stored *scales = part(c, name, "scales"), *biases = part(c, name, "biases"), *global = part(c, name, "global_scale");
    if (!scales) return mica_fail(err, MICA_ERR_FORMAT, "%s: no tensor \"%s.scales\"", c->path, name);
    w->scales = *scales;
    if (w->weight.dtype != MICA_U32 || w->weight.ndim != 2 || scales->ndim != 2)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": codes must be u32 with two dimensions, not %s", file_of(c, scales),
                         w->weight.name, mica_dtype_name(w->weight.dtype));
    if (stated < 0 && !infer_spec(c, w, in, &w->spec, err)) return false;
    if (w->spec.mode == MICA_AFFINE && !biases) return mica_fail(err, MICA_ERR_FORMAT, "%s: no tensor \"%s.biases\"", c->path, name);
    if (w->spec.mode == MICA_AFFINE) w->biases = *biases;
    if (global && (!is_model_float(global->dtype) || mica_stored_count(global) != 1))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\" must be one number", c->path, global->name);
    if (global) w->global_scale = mica_load_f32(global->dtype, global->data, 0);
    w->quantized = true;
    return check_triple(c, w, err);
}

static bool widen_f64(mica_stored *t, void **owned, mica_error *err) {
    size_t n = mica_stored_count(t);
    float *p = mica_alloc_aligned(n * sizeof *p, 64);
    if (!p) return mica_fail_memory(err, n * sizeof *p, t->name);
    mica_load_f32_run(MICA_F64, t->data, 0, n, p);
    t->dtype = MICA_F32, t->bytes = n * sizeof *p;
    t->data = *owned = p;
    return true;
}

static bool use_dense(const mica_model_files *c, mica_stored *t, void **owned, mica_error *err) {
    if (t->dtype == MICA_F64) return widen_f64(t, owned, err);
    return is_model_float(t->dtype) || mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: tensor \"%s\": weights of type %s are not supported",
                                                 file_of(c, t), t->name, mica_dtype_name(t->dtype));
}

static bool folder_weight(const mica_model_files *c, const char *module, int64_t in, mica_weight *w, mica_error *err) {
    char name[NAME];
    if (!locate(c, module, name)) return mica_fail(err, MICA_ERR_FORMAT, "%s: no tensor \"%s.weight\"", c->path, module);
    w->weight = *part(c, name, "weight");
    const mica_stored *bias = part(c, name, "bias");
    int stated = mica_config_quant(&c->config, name, &w->spec);
    if (stated < 0) stated = mica_config_quant(&c->config, module, &w->spec);
    if (stated > 0 || (stated < 0 && part(c, name, "scales"))) {
        if (!find_triple(c, name, stated, in, w, err)) return false;
    } else {
        const mica_stored *t = &w->weight;
        if (t->ndim < 1 || t->ndim > 2)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\" has %d dimensions", c->path, t->name, t->ndim);
        if (!use_dense(c, &w->weight, &w->owned, err)) return false;
        w->in = t->shape[t->ndim - 1], w->out = t->ndim == 2 ? t->shape[0] : 1;
    }
    if (!bias) return true;
    w->has_bias = true, w->bias = *bias;
    return use_dense(c, &w->bias, &w->owned_bias, err);
}

// ---- finding -----------------------------------------------------------------------------------------
static bool check_shape(const mica_model_files *c, const mica_weight *w, int64_t out, int64_t in, mica_error *err) {
    if (w->in < 1 || w->out < 1) return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\" is empty", c->path, w->weight.name);
    bool vector = w->weight.ndim == 1, ok = (in < 0 || w->in == in) && (out < 0 || (out ? !vector && w->out == out : vector));
    if (!ok) {
        mica_stored logical = {.name = w->weight.name, .ndim = w->weight.ndim, .shape = {w->out, w->in}};
        if (vector) logical.shape[0] = w->in;
        return wrong_shape(c, &logical, out, in, err);
    }
    if (!w->has_bias || (w->bias.ndim == 1 && w->bias.shape[0] == w->out)) return true;
    return wrong_shape(c, &w->bias, 0, w->out, err);
}

bool mica_checkpoint_view(const mica_model_files *c, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err) {
    *w = (mica_weight){0};
    bool ok = c->gguf ? mica_gguf_weight(c->gguf, &c->config, module, w, err) : folder_weight(c, module, in, w, err);
    if (ok && check_shape(c, w, out, in, err)) return true;
    mica_weight_release(w);
    return false;
}

bool mica_checkpoint_find(const mica_model_files *c, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err) {
    if (!mica_checkpoint_view(c, module, out, in, w, err)) return false;
    if (mica_weight_unpack(w, err)) return true;
    mica_weight_release(w);
    return false;
}

bool mica_checkpoint_has(const mica_model_files *c, const char *module) {
    char name[NAME], full[NAME];
    if (!c->gguf) return locate(c, module, name);
    if (!mica_gguf_module_name(c->config.arch, module, name, sizeof name - 8)) return false;
    int n = snprintf(full, sizeof full, "%s.weight", name);
    return n > 0 && n < NAME && mica_gguf_find(c->gguf, full);
}

void mica_weight_release(mica_weight *w) {
    mica_free(w->owned);
    mica_free(w->owned_bias);
    *w = (mica_weight){0};
}

void mica_checkpoint_forget(const mica_model_files *c, const mica_weight *w) {
    const mica_stored *parts[] = {&w->weight, &w->scales, &w->biases, &w->bias};
    for (size_t i = 0; i < MICA_COUNT(parts); i++) {
        if (!parts[i]->name || !parts[i]->bytes) continue;
        const mica_stored *st = c->st ? mica_safetensors_find(c->st, parts[i]->name) : NULL;
        const mica_gguf_tensor *t = c->gguf ? mica_gguf_find(c->gguf, parts[i]->name) : NULL;
        if (st) mica_safetensors_forget(c->st, st);
        if (t) mica_gguf_forget(c->gguf, t);
    }
}

void mica_checkpoint_rest(const mica_model_files *c) {
    if (c->gguf) mica_gguf_rest(c->gguf);
    if (c->st) mica_safetensors_rest(c->st);
}

void mica_weight_row(const mica_weight *w, int64_t row, float *out) {
    if (!w->quantized) {
        mica_load_f32_run(w->weight.dtype, w->weight.data, (size_t)(row * w->in), (size_t)w->in, out);
        return;
    }
    mica_quant_rows q = {w->spec, w->scales.dtype, w->weight.data, w->scales.data, w->biases.data, w->global_scale};
    mica_dequantize_rows(&q, (size_t)w->in, (size_t)row, 1, out);
}

// ---- statistics --------------------------------------------------------------------------------------
static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

// Weights that t stands for: packed codes unfold by group count x group size, scales and biases stand for none.
static uint64_t logical_count(const mica_model_files *c, const mica_stored *t) {
    char module[NAME];
    size_t n = strlen(t->name);
    mica_quant_spec spec = mica_quant_default(MICA_AFFINE);
    const char *dot = strrchr(t->name, '.');
    if (!dot || n >= NAME - 32) return mica_stored_count(t);
    snprintf(module, sizeof module, "%.*s", (int)(dot - t->name), t->name);
    const mica_stored *scales = part(c, module, "scales");
    if (!scales) return mica_stored_count(t);
    if (!strcmp(dot, ".bias")) return mica_stored_count(t);
    if (strcmp(dot, ".weight")) return 0;
    if (mica_config_quant(&c->config, module, &spec) < 0 && c->config.quantized) spec = c->config.quant;
    return (uint64_t)mica_stored_count(scales) * (uint64_t)spec.group_size;
}

static mica_checkpoint_stats gguf_stats(const mica_model_files *c) {
    mica_checkpoint_stats s = {.files = 1, .tensors = mica_gguf_tensor_count(c->gguf)};
    for (size_t i = 0; i < s.tensors; i++) {
        const mica_gguf_tensor *t = mica_gguf_tensor_at(c->gguf, i);
        uint64_t n = 1;
        for (int d = 0; d < t->ndim; d++) n *= (uint64_t)t->shape[d];
        s.bytes += t->bytes, s.parameters += n;
    }
    return s;
}

mica_checkpoint_stats mica_checkpoint_get_stats(const mica_model_files *c) {
    if (c->gguf) return gguf_stats(c);
    mica_checkpoint_stats s = {.files = mica_safetensors_files(c->st)};
    for (size_t i = 0; i < mica_safetensors_count(c->st); i++) {
        const mica_stored *t = mica_safetensors_at(c->st, i);
        if (strstr(t->name, "vision_tower.") || strstr(t->name, "multi_modal_projector.")) continue;
        s.tensors++, s.bytes += t->bytes, s.parameters += logical_count(c, t);
    }
    return s;
}

// ---- opening -----------------------------------------------------------------------------------------
static bool open_folder(mica_model_files *c, mica_error *err) {
    if (!mica_config_load(&c->config, c->path, err) || !(c->st = mica_safetensors_open(c->path, err))) return false;
    find_style(c);
    return true;
}

static bool open_path(mica_model_files *c, mica_error *err) {
    if (mica_is_dir(c->path)) return open_folder(c, err);
    if (!mica_is_file(c->path)) return mica_fail(err, MICA_ERR_IO, "%s: no such file or folder", c->path);
    if (ends_with(c->path, ".safetensors") || ends_with(c->path, ".json"))
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: give the model's folder, not a file of it", c->path);
    return (c->gguf = mica_gguf_open(c->path, err)) && mica_gguf_config(c->gguf, &c->config, err);
}

mica_model_files *mica_checkpoint_open(const char *path, mica_error *err) {
    mica_model_files *c = mica_calloc(1, sizeof *c);
    if (!c || !(c->path = mica_strdup(path))) mica_fail_memory(err, sizeof *c, "checkpoint");
    else if (open_path(c, err)) return c;
    mica_checkpoint_free(c);
    return NULL;
}

void mica_checkpoint_free(mica_model_files *c) {
    if (!c) return;
    mica_safetensors_free(c->st);
    mica_gguf_free(c->gguf);
    mica_config_free(&c->config);
    mica_free(c->path);
    mica_free(c);
}

const mica_config *mica_checkpoint_config(const mica_model_files *c) { return &c->config; }
const char *mica_checkpoint_path(const mica_model_files *c) { return c->path; }
const struct mica_gguf *mica_checkpoint_gguf(const mica_model_files *c) { return c->gguf; }
