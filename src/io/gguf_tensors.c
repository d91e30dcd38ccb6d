// SPDX-License-Identifier: Apache-2.0
// GGUF tensors as MLX weights, without loss: blocks are read as affine rows, or become triples (codes packed as MLX packs them,
// scales and biases in f16 where that is exact, else f32); dense tensors stay where they are mapped. Two things are undone that
// the exporter did: the interleaved row order of llama's q and k, and the 1 added to gemma's norms.
#include "io/gguf_model.h"
#include "io/gguf_blocks.h"
#include "base/half.h"
#include "base/quant.h"
#include <stdio.h>
#include <string.h>

// Which stored row holds row `row` of the Hugging Face matrix. heads: 0 = rows are in order. The exporter turned
// [head][half][i] into [head][i][half].
static int64_t stored_row(int64_t row, int64_t heads, int64_t rows) {
    if (!heads) return row;
    int64_t dim = rows / heads, half = dim / 2, head = row / dim, in_head = row % dim;
    return head * dim + in_head % half * 2 + in_head / half;
}

static int64_t permuted_heads(const mica_config *c, const char *module) {
    size_t n = strlen(module);
    if (c->arch != MICA_ARCH_LLAMA || n < 16) return 0;
    if (!strcmp(module + n - 16, "self_attn.q_proj")) return c->num_heads;
    return strcmp(module + n - 16, "self_attn.k_proj") ? 0 : c->num_kv_heads;
}

// ---- affine weights ----------------------------------------------------------------------------------
static bool read_blocks(const mica_quant_blocks *b, mica_dtype scale_dtype, size_t row, size_t first, size_t n, uint8_t *codes, void *scales,
                        void *biases) {
    mica_ggml_type type = (mica_ggml_type)b->type;
    size_t from = (size_t)stored_row((int64_t)row, b->heads, b->rows);
    const unsigned char *src = b->data + from * b->row_bytes + mica_ggml_row_bytes(type, first);
    return mica_ggml_unpack_run(type, scale_dtype, src, n, codes, scales, biases);
}

static void describe(mica_stored *t, mica_dtype dtype, int64_t rows, int64_t columns, void *data) {
    t->dtype = dtype, t->ndim = 2, t->data = data;
    t->shape[0] = rows, t->shape[1] = columns;
    t->bytes = data ? (size_t)rows * (size_t)columns * mica_dtype_size(dtype) : 0;
}

static void describe_triple(mica_weight *w, mica_dtype dtype, void *codes, void *scales, void *biases) {
    int64_t words = (int64_t)mica_quant_words(w->spec, (size_t)w->in), groups = (int64_t)mica_quant_groups(w->spec, (size_t)w->in);
    describe(&w->weight, MICA_U32, w->out, words, codes);
    describe(&w->scales, dtype, w->out, groups, scales);
    describe(&w->biases, dtype, w->out, groups, biases);
}

static void view_blocks(const mica_gguf_tensor *t, int64_t heads, mica_weight *w) {
    w->blocks = (mica_quant_blocks){.read = read_blocks, .data = t->data, .row_bytes = mica_ggml_row_bytes(t->type, (size_t)w->in),
                                    .rows = w->out, .heads = heads, .type = (int)t->type};
    describe_triple(w, mica_ggml_half_scales(t->type) ? MICA_F16 : MICA_F32, NULL, NULL, NULL);
}

// All rows as a triple with scales of the given type. 1: done, 0: that type does not hold the scales, -1: out of memory.
static int unpack(mica_weight *w, mica_dtype dtype) {
    size_t rows = (size_t)w->out, in = (size_t)w->in, words = mica_quant_words(w->spec, in) * 4, group = (size_t)w->spec.group_size;
    size_t size = mica_dtype_size(dtype), scale_row = in / group * size;
    unsigned char *p = mica_alloc_aligned(rows * words + 2 * rows * scale_row, 64);
    if (!p) return -1;
    unsigned char *scales = p + rows * words, *biases = scales + rows * scale_row;
    bool exact = true;
    for (size_t r = 0; exact && r < rows; r++)
        for (size_t i = 0; i < in; i += MICA_QUANT_RUN) {
            uint8_t codes[MICA_QUANT_RUN];
            size_t n = MICA_MIN(in - i, (size_t)MICA_QUANT_RUN), at = r * scale_row + i / group * size;
            exact &= w->blocks.read(&w->blocks, dtype, r, i, n, codes, scales + at, biases + at);
            mica_pack_codes(w->spec.bits, codes, n, p + r * words + i * (size_t)w->spec.bits / 8);
        }
    if (!exact) return mica_free(p), 0;
    describe_triple(w, dtype, p, scales, biases);
    w->owned = p;
    return 1;
}

bool mica_weight_unpack(mica_weight *w, mica_error *err) {
    if (!w->blocks.read || w->weight.data) return true;
    int done = w->scales.dtype == MICA_F16 ? unpack(w, MICA_F16) : 0;
    if (!done) done = unpack(w, MICA_F32);
    return done > 0 || mica_fail_memory(err, (size_t)(w->in * w->out), w->weight.name);
}

// ---- dense -------------------------------------------------------------------------------------------
static mica_dtype dense_dtype(mica_ggml_type type) {
    return type == MICA_GGML_F16 ? MICA_F16 : type == MICA_GGML_BF16 ? MICA_BF16 : MICA_F32;
}

static void describe_dense(const mica_gguf_tensor *t, mica_stored *out) {
    out->dtype = dense_dtype(t->type), out->ndim = t->ndim, out->data = t->data, out->bytes = t->bytes;
    for (int i = 0; i < t->ndim; i++) out->shape[i] = t->shape[i];
}

static bool permute_rows(mica_stored *t, int64_t heads, void **owned, mica_error *err) {
    size_t rows = (size_t)t->shape[0], row = t->bytes / rows;
    unsigned char *p = mica_alloc_aligned(t->bytes, 64);
    if (!p) return mica_fail_memory(err, t->bytes, t->name);
    for (size_t r = 0; r < rows; r++)
        memcpy(p + r * row, (const unsigned char *)t->data + (size_t)stored_row((int64_t)r, heads, (int64_t)rows) * row, row);
    t->data = *owned = p;
    return true;
}

// 1 + (v - 1) gives v back exactly for every v that f32's 1 + w can have produced.
static bool take_one_off(mica_stored *t, void **owned, mica_error *err) {
    size_t n = mica_stored_count(t);
    float *p = mica_alloc_aligned(n * sizeof *p, 64);
    if (!p) return mica_fail_memory(err, n * sizeof *p, t->name);
    mica_load_f32_run(t->dtype, t->data, 0, n, p);
    for (size_t i = 0; i < n; i++) p[i] -= 1;
    t->dtype = MICA_F32, t->bytes = n * sizeof *p;
    t->data = *owned = p;
    return true;
}

static bool find_bias(const mica_gguf *g, const char *name, int64_t heads, mica_weight *w, mica_error *err) {
    char full[160];
    snprintf(full, sizeof full, "%s.bias", name);
    const mica_gguf_tensor *t = mica_gguf_find(g, full);
    mica_quant_spec unused;
    if (!t) return true;
    w->has_bias = true;
    if (t->ndim != 1 || mica_ggml_affine(t->type, &unused))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": a bias must be one dense row", mica_gguf_path(g), t->name);
    w->bias.name = t->name;
    describe_dense(t, &w->bias);
    if (!heads) return true;
    if (t->shape[0] % (2 * heads)) return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": %lld rows in %lld heads", mica_gguf_path(g),
                                                    t->name, (long long)t->shape[0], (long long)heads);
    return permute_rows(&w->bias, heads, &w->owned_bias, err);
}

static bool find_weight(const mica_gguf *g, const mica_config *c, const char *module, const char *name, mica_weight *w, mica_error *err) {
    char full[160];
    snprintf(full, sizeof full, "%s.weight", name);
    const mica_gguf_tensor *t = mica_gguf_find(g, full);
    if (!t) return mica_fail(err, MICA_ERR_FORMAT, "%s: no tensor \"%s\" (%s.weight)", mica_gguf_path(g), full, module);
    if (t->ndim > 2) return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\" has %d dimensions", mica_gguf_path(g), t->name, t->ndim);
    int64_t heads = permuted_heads(c, module);
    w->in = t->shape[t->ndim - 1], w->out = t->ndim == 2 ? t->shape[0] : 1;
    w->weight.name = w->scales.name = w->biases.name = t->name;
    if (heads && w->out % (2 * heads))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": %lld rows in %lld heads", mica_gguf_path(g), t->name,
                         (long long)w->out, (long long)heads);
    w->quantized = mica_ggml_affine(t->type, &w->spec);
    if (w->quantized) {
        if (t->ndim != 2 || !mica_quant_fits(w->spec, (size_t)w->in))
            return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": shape does not suit %s", mica_gguf_path(g), t->name, mica_ggml_type_name(t->type));
        view_blocks(t, heads, w);
        return find_bias(g, name, heads, w, err);
    }
    describe_dense(t, &w->weight);
    if (heads && !permute_rows(&w->weight, heads, &w->owned, err)) return false;
    size_t n = strlen(name);
    bool norm = n > 5 && !strcmp(name + n - 5, "_norm");
    if (norm && c->arch == MICA_ARCH_GEMMA3 && !take_one_off(&w->weight, &w->owned, err)) return false;
    return find_bias(g, name, heads, w, err);
}

bool mica_gguf_weight(const mica_gguf *g, const mica_config *c, const char *module, mica_weight *w, mica_error *err) {
    char name[128];
    *w = (mica_weight){0};
    if (!mica_gguf_module_name(c->arch, module, name, sizeof name))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: no tensor for %s", mica_gguf_path(g), module);
    if (find_weight(g, c, module, name, w, err)) return true;
    mica_weight_release(w);
    return false;
}
