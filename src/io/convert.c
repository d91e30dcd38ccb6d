// SPDX-License-Identifier: Apache-2.0
// The conversion itself: walk the modules that the architecture has, in model order; dequantise, merge an adapter if there is one, cast and
// quantise slabs of rows on all CPUs; stream them out. Rules are mlx_lm.convert's: weights are cast to the dtype first and quantised
// from there; embeddings and linear layers whose rows are whole groups are quantised, norms and biases are not.
#include "io/convert_parts.h"
#include "base/file.h"
#include "base/half.h"
#include "base/quant.h"
#include "base/thread.h"
#include "io/safetensors.h"
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MODULE = 128, SLAB_WEIGHTS = 1 << 21, TASK_ROWS = 16 };

typedef struct module {
    char name[MODULE];
    bool linear;
    bool head;  // the embedding once more, as the head
    // Known when it is declared:
    const mica_adapter_part *part; // to be merged, or NULL
    bool quantize, verbatim;       // verbatim: the source's bytes
    mica_quant_spec spec;
} module;

typedef struct job {
    mica_conversion v;
    const mica_convert_options *options;
    mica_st_writer *out;
    mica_pool *pool;
    mica_adapter adapter;
    bool dequantize;
    module *modules;
    size_t count, capacity;
    uint64_t done, total;
} job;

// ---- the list of modules -----------------------------------------------------------------------------
static bool add_module(job *j, bool linear, const char *name, mica_error *err) {
    if (!mica_grow(&j->modules, &j->capacity, j->count + 1, sizeof *j->modules))
        return mica_fail_memory(err, j->count * sizeof *j->modules, "module list");
    module *m = &j->modules[j->count++];
    *m = (module){.linear = linear};
    snprintf(m->name, sizeof m->name, "%s", name);
    return true;
}

static bool add_layer(job *j, int64_t layer, mica_error *err) {
    static const struct { const char *name; bool linear; int archs; } parts[] = {
        {"self_attn.q_proj", true, 15}, {"self_attn.k_proj", true, 15}, {"self_attn.v_proj", true, 15}, {"self_attn.o_proj", true, 15},
        {"self_attn.q_norm", false, 1 << MICA_ARCH_QWEN3 | 1 << MICA_ARCH_GEMMA3},
        {"self_attn.k_norm", false, 1 << MICA_ARCH_QWEN3 | 1 << MICA_ARCH_GEMMA3},
        {"mlp.gate_proj", true, 15}, {"mlp.up_proj", true, 15}, {"mlp.down_proj", true, 15}, {"input_layernorm", false, 15},
        {"post_attention_layernorm", false, 15}, {"pre_feedforward_layernorm", false, 1 << MICA_ARCH_GEMMA3},
        {"post_feedforward_layernorm", false, 1 << MICA_ARCH_GEMMA3}};
    for (size_t i = 0; i < MICA_COUNT(parts); i++) {
        char name[MODULE];
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, parts[i].name);
        if (parts[i].archs >> j->v.config->arch & 1 && !add_module(j, parts[i].linear, name, err)) return false;
    }
    return true;
}

static bool list_modules(job *j, mica_error *err) {
    const mica_config *c = j->v.config;
    bool ok = add_module(j, true, "model.embed_tokens", err);
    for (int64_t i = 0; ok && i < c->num_layers; i++) ok = add_layer(j, i, err);
    ok = ok && add_module(j, false, "model.norm", err);
    // mlx-lm drops a stored head that config.json calls tied, except for gemma3, which it unties then.
    bool head = mica_checkpoint_has(j->v.source, "lm_head") && (!c->tie_word_embeddings || c->arch == MICA_ARCH_GEMMA3);
    if (!ok || head) return ok && add_module(j, true, "lm_head", err);
    const mica_adapter_part *embed = mica_adapter_find(&j->adapter, "model.embed_tokens");
    j->v.untied = embed && embed->input_only;
    if (!j->v.untied) return true;
    return add_module(j, true, "lm_head", err) && (j->modules[j->count - 1].head = true);
}

static bool find(const job *j, const module *m, mica_weight *w, mica_error *err) {
    return mica_checkpoint_find(j->v.source, m->head ? "model.embed_tokens" : m->name, -1, -1, w, err);
}

// ---- declaring ---------------------------------------------------------------------------------------
static mica_dtype out_dtype(const job *j, const mica_weight *w) {
    if (j->v.cast) return j->v.dtype;
    if (!w->quantized) return w->weight.dtype;
    return w->scales.dtype == MICA_U8 ? MICA_BF16 : w->scales.dtype;
}

// What becomes of a module.
static bool decide(job *j, module *m, const mica_weight *w, mica_error *err) {
    bool own = j->v.own_quant;
    mica_adapter_part *part = m->linear && !m->head ? mica_adapter_find(&j->adapter, m->name) : NULL;
    if (part) part->used = true;
    m->part = part;
    m->spec = own ? w->spec : j->v.spec;
    m->quantize = (own ? w->quantized : j->v.quantize) && m->linear && w->weight.ndim == 2 && mica_quant_fits(m->spec, (size_t)w->in);
    m->verbatim = own && m->quantize && !part && (!j->v.cast || w->scales.dtype == j->v.dtype || m->spec.mode != MICA_AFFINE);
    return !own || w->global_scale == 0 ||
           mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: %s has a scale of the whole tensor, which cannot be written: ask for another quantisation or for none",
                     mica_checkpoint_path(j->v.source), m->name);
}

static bool declare(job *j, const char *name, const char *leaf, mica_dtype dtype, int64_t rows, int64_t columns, mica_error *err) {
    char full[MODULE + 64];
    int64_t shape[2] = {rows, columns};
    snprintf(full, sizeof full, "%s%s.%s", mica_conversion_nested(j->v.config) ? "language_model." : "", name, leaf);
    return mica_st_writer_declare(j->out, full, dtype, rows ? 2 : 1, rows ? shape : shape + 1, err);
}

static bool declare_weight(job *j, const module *m, const mica_weight *w, mica_error *err) {
    mica_dtype dtype = out_dtype(j, w), scale = mica_quant_scale_dtype(m->spec, dtype);
    int64_t rows = w->weight.ndim == 2 ? w->out : 0;
    if (!m->quantize) return declare(j, m->name, "weight", dtype, rows, w->in, err);
    int64_t groups = (int64_t)mica_quant_groups(m->spec, (size_t)w->in);
    return declare(j, m->name, "weight", MICA_U32, rows, (int64_t)mica_quant_words(m->spec, (size_t)w->in), err) &&
           declare(j, m->name, "scales", scale, rows, groups, err) &&
           (m->spec.mode != MICA_AFFINE || declare(j, m->name, "biases", scale, rows, groups, err));
}

static bool declare_module(job *j, module *m, mica_error *err) {
    mica_weight w;
    if (!find(j, m, &w, err)) return false;
    bool ok = decide(j, m, &w, err) && (!m->part || mica_adapter_fits(m->part, &w, err)) && declare_weight(j, m, &w, err);
    if (ok && w.has_bias) ok = declare(j, m->name, "bias", j->v.cast ? j->v.dtype : w.bias.dtype, 0, w.out, err);
    j->total += w.weight.bytes + w.scales.bytes + w.biases.bytes;
    mica_weight_release(&w);
    return ok;
}

// ---- one weight --------------------------------------------------------------------------------------
typedef struct slab {
    const module *m;
    const mica_weight *w;
    mica_merge merge;
    mica_dtype dtype;
    size_t first, rows;     // rows of the weight in this slab
    float *values;          // [rows, in]
    unsigned char *out;     // [rows, in*bits/32] u32, or [rows, in] of dtype
    unsigned char *scales, *biases; // of the whole weight
    bool *bad;              // [tasks] a value that is not finite
} slab;

// Through the dtype and back, so that codes are chosen for the rounded weights as MLX does. False: not all finite.
static bool round_through(mica_dtype dtype, float *values, size_t n) {
    unsigned finite = 1;
    for (size_t i = 0; i < n; i++) {
        if (dtype == MICA_BF16) values[i] = mica_bf16_to_f32(mica_f32_to_bf16(values[i]));
        if (dtype == MICA_F16) values[i] = mica_f16_to_f32(mica_f32_to_f16(values[i]));
        finite &= isfinite(values[i]) != 0;
    }
    return finite;
}

static void convert_rows(void *ctx, size_t task, size_t thread) {
    (void)thread;
    slab *s = ctx;
    mica_quant_spec spec = s->m->spec;
    size_t in = (size_t)s->w->in, from = task * TASK_ROWS, rows = MICA_MIN((size_t)TASK_ROWS, s->rows - from);
    float *values = s->values + from * in;
    for (size_t r = 0; r < rows; r++) mica_weight_row(s->w, (int64_t)(s->first + from + r), values + r * in);
    mica_merge_rows(&s->merge, s->first + from, rows, values);
    s->bad[task] = !round_through(s->dtype, values, rows * in);
    if (s->m->quantize) {
        size_t scale_row = mica_quant_groups(spec, in) * mica_dtype_size(mica_quant_scale_dtype(spec, s->dtype));
        size_t at = (s->first + from) * scale_row;
        mica_quantize_rows(spec, s->dtype, values, rows, in, s->out + from * mica_quant_words(spec, in) * 4, s->scales + at, s->biases + at);
    } else {
        mica_store_f32_run(s->dtype, values, rows * in, s->out + from * in * mica_dtype_size(s->dtype));
    }
}

static bool not_finite(const job *j, const char *name, mica_dtype dtype, mica_error *err) {
    return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s.weight\" has weights that are not finite in %s",
                     mica_checkpoint_path(j->v.source), name, mica_dtype_name(dtype));
}

static bool write_slabs(job *j, const module *m, slab *s, size_t slab_rows, mica_error *err) {
    size_t in = (size_t)s->w->in, rows = (size_t)s->w->out;
    size_t row_bytes = m->quantize ? mica_quant_words(m->spec, in) * 4 : in * mica_dtype_size(s->dtype);
    for (s->first = 0; s->first < rows; s->first += s->rows) {
        s->rows = MICA_MIN(slab_rows, rows - s->first);
        size_t tasks = (s->rows + TASK_ROWS - 1) / TASK_ROWS;
        mica_pool_run(j->pool, tasks, convert_rows, s);
        for (size_t t = 0; t < tasks; t++)
            if (s->bad[t]) return not_finite(j, m->name, s->dtype, err);
        if (!mica_st_writer_put(j->out, s->out, s->rows * row_bytes, err)) return false;
    }
    size_t scale_bytes = m->quantize ? rows * mica_quant_groups(m->spec, in) * mica_dtype_size(mica_quant_scale_dtype(m->spec, s->dtype)) : 0;
    return mica_st_writer_put(j->out, s->scales, scale_bytes, err) &&
           (m->spec.mode != MICA_AFFINE || mica_st_writer_put(j->out, s->biases, scale_bytes, err));
}

static bool copy_weight(job *j, const mica_weight *w, mica_error *err) {
    return mica_st_writer_put(j->out, w->weight.data, w->weight.bytes, err) && mica_st_writer_put(j->out, w->scales.data, w->scales.bytes, err) &&
           (w->spec.mode != MICA_AFFINE || mica_st_writer_put(j->out, w->biases.data, w->biases.bytes, err));
}

static bool write_weight(job *j, const module *m, const mica_weight *w, mica_error *err) {
    size_t in = (size_t)w->in, slab_rows = MICA_MIN((size_t)w->out, (SLAB_WEIGHTS / in + TASK_ROWS) / TASK_ROWS * TASK_ROWS);
    slab s = {.m = m, .w = w, .dtype = out_dtype(j, w)};
    size_t scale_bytes = m->quantize ? (size_t)w->out * mica_quant_groups(m->spec, in) * 4 : 0;
    if (m->verbatim) return copy_weight(j, w, err);
    if (!mica_merge_init(&s.merge, m->part, w, err)) return false;
    s.values = mica_alloc_aligned(slab_rows * in * 4, 64);
    s.out = mica_alloc_aligned(slab_rows * in * 4, 64);
    s.scales = mica_alloc(scale_bytes);
    s.biases = mica_alloc(scale_bytes);
    s.bad = mica_calloc(slab_rows / TASK_ROWS + 1, sizeof *s.bad);
    bool ok = s.values && s.out && s.scales && s.biases && s.bad;
    ok = ok ? write_slabs(j, m, &s, slab_rows, err) : mica_fail_memory(err, slab_rows * in * 8 + scale_bytes * 2, m->name);
    mica_merge_free(&s.merge);
    mica_free(s.values), mica_free(s.out), mica_free(s.scales), mica_free(s.biases), mica_free(s.bad);
    return ok;
}

static bool write_bias(job *j, const module *m, const mica_weight *w, mica_error *err) {
    mica_dtype dtype = j->v.cast ? j->v.dtype : w->bias.dtype;
    size_t n = (size_t)w->out;
    float *values = mica_alloc(n * 4);
    unsigned char *out = mica_alloc(n * mica_dtype_size(dtype));
    bool ok = (values && out) || mica_fail_memory(err, n * 4, m->name);
    if (ok) {
        mica_load_f32_run(w->bias.dtype, w->bias.data, 0, n, values);
        mica_store_f32_run(dtype, values, n, out);
        for (size_t i = 0; ok && i < n; i++)
            if (!isfinite(mica_load_f32(dtype, out, i))) ok = not_finite(j, m->name, dtype, err);
        ok = ok && mica_st_writer_put(j->out, out, n * mica_dtype_size(dtype), err);
    }
    mica_free(values), mica_free(out);
    return ok;
}

static bool write_module(job *j, const module *m, mica_error *err) {
    mica_weight w;
    if (!find(j, m, &w, err)) return false;
    bool ok = write_weight(j, m, &w, err) && (!w.has_bias || write_bias(j, m, &w, err));
    j->done += w.weight.bytes + w.scales.bytes + w.biases.bytes;
    mica_checkpoint_forget(j->v.source, &w);
    mica_weight_release(&w);
    if (ok && j->options->progress && !j->options->progress(j->options->progress_ctx, m->name, j->done, j->total))
        ok = mica_fail(err, MICA_ERR_CANCELLED, "conversion cancelled");
    return ok;
}

static bool all_used(const job *j, mica_error *err) {
    for (size_t i = 0; i < j->adapter.count; i++)
        if (!j->adapter.parts[i].used) return mica_fail(err, MICA_ERR_FORMAT, "adapter: the model has no layer %s", j->adapter.parts[i].module);
    return true;
}

static bool write_weights(job *j, mica_error *err) {
    bool ok = list_modules(j, err) && (j->out = mica_st_writer_new(j->v.folder, NULL, err));
    for (size_t i = 0; ok && i < j->count; i++) ok = declare_module(j, &j->modules[i], err);
    ok = ok && all_used(j, err);
    ok = ok && mica_st_writer_begin(j->out, err);
    for (size_t i = 0; ok && i < j->count; i++) ok = write_module(j, &j->modules[i], err);
    return ok && mica_st_writer_commit(j->out, err);
}

// ---- files beside the weights ------------------------------------------------------------------------
bool mica_convert_write(const char *folder, const char *name, const void *bytes, size_t size, mica_error *err) {
    char *path = mica_path_join(folder, name);
    mica_writer w = {0};
    bool ok = path ? mica_writer_open(&w, path, err) : mica_fail_memory(err, strlen(folder), "a file name");
    if (ok && !mica_writer_write(&w, bytes, size, err)) ok = (mica_writer_abandon(&w), false);
    ok = ok && mica_writer_commit(&w, err);
    mica_free(path);
    return ok;
}

static bool copy_file(const char *from_folder, const char *name, const char *folder, mica_error *err) {
    char *path = mica_path_join(from_folder, name);
    mica_map map;
    if (!path) return mica_fail_memory(err, strlen(from_folder), "a file name");
    bool ok = !mica_is_file(path);
    if (!ok && mica_map_open(&map, path, err)) {
        ok = mica_convert_write(folder, name, map.data, map.size, err);
        mica_map_close(&map);
    }
    mica_free(path);
    return ok;
}

static bool copy_tokenizer(const job *j, mica_error *err) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                        "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json",
                                        "generation_config.json"};
    for (size_t i = 0; i < MICA_COUNT(names); i++)
        if (!copy_file(mica_checkpoint_path(j->v.source), names[i], j->v.folder, err)) return false;
    return true;
}

static bool is_weight_file(const char *name) {
    static const char *const ends[] = {".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".npz"};
    size_t n = strlen(name);
    for (size_t i = 0; i < MICA_COUNT(ends); i++) {
        size_t m = strlen(ends[i]);
        if (n >= m && strcmp(name + n - m, ends[i]) == 0) return true;
    }
    return false;
}

// Everything beside weights and config.json: tokenizer, templates, licence.
static bool copy_others(const job *j, mica_error *err) {
    const char *from = mica_checkpoint_path(j->v.source);
    DIR *d = opendir(from);
    if (!d) return mica_fail_errno(err, "read", from);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, "config.json") != 0 && !is_weight_file(e->d_name)) ok = copy_file(from, e->d_name, j->v.folder, err);
    closedir(d);
    return ok;
}

// ---- options and destination -------------------------------------------------------------------------
static bool read_options(job *j, mica_error *err) {
    const mica_convert_options *o = j->options;
    j->v.quantize = o->bits || o->group_size || o->mode != MICA_AFFINE;
    if ((unsigned)o->mode >= MICA_QUANT_MODE_COUNT) return mica_fail(err, MICA_ERR_ARGUMENT, "unknown quantisation mode %d", (int)o->mode);
    j->v.spec = mica_quant_default(o->mode);
    if (o->bits) j->v.spec.bits = o->bits;
    if (o->group_size) j->v.spec.group_size = o->group_size;
    if (!mica_quant_check(j->v.spec, err)) return false;
    if (o->mode == MICA_AFFINE && j->v.spec.group_size == 16)
        return mica_fail(err, MICA_ERR_ARGUMENT, "affine quantisation has groups of 32, 64 or 128, not 16");
    return true;
}

static bool pick_dtype(job *j, mica_error *err) {
    static const struct { const char *name; mica_dtype dtype; } names[] = {
        {"float32", MICA_F32}, {"float16", MICA_F16}, {"bfloat16", MICA_BF16},
        {"f32", MICA_F32}, {"f16", MICA_F16}, {"bf16", MICA_BF16}};
    const char *name = j->options->dtype;
    const mica_json *root = j->v.config->json;
    bool asked = name != NULL;
    if (!asked && root && j->adapter.count) return true; // a model that is fused stays as it is
    // mlx_lm.convert casts to torch_dtype, or else to text_config's dtype; a plain "dtype" leaves weights alone.
    if (!asked && !root) name = "bf16";
    if (!name && (!mica_json_string(root, "torch_dtype", NULL, &name, j->v.config->source, err) ||
                  (!name && !mica_json_string(mica_json_get(root, "text_config"), "dtype", NULL, &name, j->v.config->source, err))))
        return false;
    for (size_t i = 0; name && i < MICA_COUNT(names); i++)
        if (!strcmp(name, names[i].name)) j->v.cast = true, j->v.dtype = names[i].dtype;
    return j->v.cast || !asked || mica_fail(err, MICA_ERR_ARGUMENT, "dtype \"%s\" is none of f32, f16, bf16", name);
}

static bool is_empty_dir(const char *path) {
    DIR *d = opendir(path);
    size_t entries = 0;
    while (d && readdir(d)) entries++;
    if (d) closedir(d);
    return d && entries <= 2; // . and ..
}

static char *temporary_folder(const char *dst, mica_error *err) {
    size_t n = strlen(dst);
    while (n > 1 && dst[n - 1] == '/') n--;
    if (access(dst, F_OK) == 0 && !is_empty_dir(dst))
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: exists already%s", dst, mica_is_dir(dst) ? " and is not empty" : ""), NULL;
    char *path = mica_strf("%.*s.%ld.tmp", (int)n, dst, (long)getpid());
    if (!path) mica_fail_memory(err, n, "a folder name");
    else if (mica_mkdirs(path, err)) return path;
    mica_free(path);
    return NULL;
}

static bool convert_into(job *j, mica_error *err) {
    const mica_gguf *gguf = mica_checkpoint_gguf(j->v.source);
    if (!write_weights(j, err) || !mica_convert_config(&j->v, err)) return false;
    if (gguf) return mica_convert_gguf_tokenizer(gguf, j->v.config, j->v.folder, err);
    return j->adapter.count ? copy_others(j, err) : copy_tokenizer(j, err);
}

bool mica_convert_beside(const mica_model_files *source, mica_dtype dtype, const char *folder, mica_error *err) {
    job j = {.v = {.source = source, .config = mica_checkpoint_config(source), .cast = true, .dtype = dtype, .folder = folder}};
    const mica_gguf *gguf = mica_checkpoint_gguf(source);
    if (!mica_convert_config(&j.v, err)) return false;
    return gguf ? mica_convert_gguf_tokenizer(gguf, j.v.config, folder, err) : copy_tokenizer(&j, err);
}

static bool run(job *j, const char *src, const char *dst, mica_error *err) {
    mica_model_files *source = mica_checkpoint_open(src, err);
    char *folder = NULL;
    bool ok = source != NULL;
    if (ok) j->v.source = source, j->v.config = mica_checkpoint_config(source);
    j->v.own_quant = ok && j->adapter.count && !j->v.quantize && !j->dequantize && j->v.config->quantized && !mica_checkpoint_gguf(source);
    ok = ok && pick_dtype(j, err) && (folder = temporary_folder(dst, err));
    j->v.folder = folder;
    if (ok) {
        j->pool = mica_pool_new((size_t)MICA_MAX(0, j->options->threads));
        ok = j->pool ? convert_into(j, err) : mica_fail_memory(err, 0, "threads");
        mica_st_writer_free(j->out);
        if (ok && rename(folder, dst)) ok = mica_fail_errno(err, "rename into place", dst);
        if (!ok) mica_remove_flat_dir(folder);
    }
    mica_pool_free(j->pool);
    mica_free(j->modules);
    mica_free(folder);
    mica_checkpoint_free(source);
    return ok;
}

bool mica_convert(const char *src, const char *dst, const mica_convert_options *options, mica_error *err) {
    job j = {.options = options ? options : &(mica_convert_options){0}};
    return read_options(&j, err) && run(&j, src, dst, err);
}

bool mica_fuse(const char *src, const char *adapter, const char *dst, const mica_fuse_options *options, mica_error *err) {
    mica_fuse_options o = options ? *options : (mica_fuse_options){0};
    job j = {.options = &o.convert, .dequantize = o.dequantize};
    if (!read_options(&j, err)) return false;
    if (o.dequantize && j.v.quantize) return mica_fail(err, MICA_ERR_ARGUMENT, "fuse: to quantise and to dequantise exclude each other");
    if (!mica_adapter_open(&j.adapter, adapter, err)) return false;
    bool ok = run(&j, src, dst, err);
    mica_adapter_close(&j.adapter);
    return ok;
}
