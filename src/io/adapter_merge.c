// SPDX-License-Identifier: Apache-2.0
// Adapters and the weights they were made for: do they fit, and what is the weight with the adapter in it. Rows are merged one by one from f32
// copies of the small matrices, so that a weight never has to be in memory as a whole.
#include "io/adapter.h"
#include "base/quant.h"
#include "io/checkpoint.h"
#include <math.h>
#include <string.h>

// ---- fitting --------------------------------------------------------------------------------------------
static bool is_embedding(const mica_adapter_part *p) { return strcmp(p->module, "model.embed_tokens") == 0; }

// Sizes that a, as [first, r], and b, as [r, last], must have.
bool mica_adapter_sizes_fit(const mica_adapter_part *p, int64_t out, int64_t in, mica_error *err) {
    bool embedding = is_embedding(p);
    int64_t first = embedding ? out : in, last = embedding ? in : out;
    const int64_t *a = p->a->shape, *b = p->b->shape;
    char text_a[64], text_b[64];
    bool fits = p->transposed ? a[1] == first && b[0] == last : a[0] == first && b[1] == last;
    if (fits && embedding && p->magnitude) return mica_fail(err, MICA_ERR_UNSUPPORTED, "adapter: %s: DoRA of an embedding is not supported", p->module);
    if (fits && (!p->magnitude || p->magnitude->shape[0] == out)) return true;
    return mica_fail(err, MICA_ERR_FORMAT, "adapter: %s: matrices of %s and %s do not fit a layer of %lld inputs and %lld outputs", p->module,
                     mica_stored_shape(p->a, text_a, sizeof text_a), mica_stored_shape(p->b, text_b, sizeof text_b), (long long)first, (long long)last);
}

// An adapter that brings the weight it was made for must have been made for this one. (A quantised weight differs by its rounding: not compared.)
static bool check_base(const mica_adapter_part *p, const mica_weight *w, mica_error *err) {
    if (!p->base) return true;
    char text[64];
    if (p->base->shape[0] != w->out || p->base->shape[1] != w->in)
        return mica_fail(err, MICA_ERR_FORMAT, "adapter: %s was made for a weight of %s, the model's is [%lld,%lld]", p->module,
                         mica_stored_shape(p->base, text, sizeof text), (long long)w->out, (long long)w->in);
    float *rows = w->quantized ? NULL : mica_alloc(2 * (size_t)w->in * sizeof *rows);
    if (!rows) return w->quantized || mica_fail_memory(err, (size_t)w->in, "an adapter");
    mica_weight base = {.out = w->out, .in = w->in, .weight = *p->base};
    bool same = true;
    for (int64_t o = 0; same && o < w->out; o++) {
        mica_weight_row(w, o, rows);
        mica_weight_row(&base, o, rows + w->in);
        for (int64_t i = 0; i < w->in; i++) same &= fabsf(rows[i] - rows[w->in + i]) <= 0x1p-7f * fabsf(rows[i]); // one may be rounded to bf16
    }
    mica_free(rows);
    return same || mica_fail(err, MICA_ERR_FORMAT, "adapter: %s comes with another weight than the model's", p->module);
}

bool mica_adapter_fits(const mica_adapter_part *p, const mica_weight *w, mica_error *err) {
    return mica_adapter_sizes_fit(p, w->out, w->in, err) && check_base(p, w, err);
}

// ---- merging --------------------------------------------------------------------------------------------
// t [rows, columns] in f32, turned over if asked: then [columns, rows].
static float *copy_matrix(const mica_stored *t, bool turn, mica_error *err) {
    size_t rows = (size_t)t->shape[0], columns = t->ndim == 2 ? (size_t)t->shape[1] : 1;
    float *to = mica_alloc(rows * columns * sizeof *to);
    if (!to) return mica_fail_memory(err, rows * columns * sizeof *to, t->name), NULL;
    if (!turn) mica_load_f32_run(t->dtype, t->data, 0, rows * columns, to);
    else
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < columns; c++) to[c * rows + r] = mica_load_f32(t->dtype, t->data, r * columns + c);
    return to;
}

bool mica_merge_init(mica_merge *m, const mica_adapter_part *p, const mica_weight *w, mica_error *err) {
    *m = (mica_merge){0};
    if (!p) return true;
    if (!mica_adapter_fits(p, w, err)) return false;
    // Of a linear layer left is bᵀ and right aᵀ; of an embedding they are a and b.
    bool embedding = is_embedding(p);
    m->in = w->in, m->scale = p->scale, m->rank = p->transposed ? p->a->shape[0] : p->a->shape[1];
    m->left = copy_matrix(embedding ? p->a : p->b, embedding == p->transposed, err);
    m->right = m->left ? copy_matrix(embedding ? p->b : p->a, embedding == p->transposed, err) : NULL;
    bool ok = m->right && (!p->magnitude || (m->magnitude = copy_matrix(p->magnitude, false, err)));
    if (!ok) mica_merge_free(m);
    return ok;
}

static void merge_row(const mica_merge *m, size_t o, float *restrict row) {
    size_t in = (size_t)m->in;
    for (int64_t k = 0; k < m->rank; k++) {
        const float *restrict right = m->right + (size_t)k * in;
        float factor = m->scale * m->left[(int64_t)o * m->rank + k];
        for (size_t i = 0; i < in; i++) row[i] += factor * right[i];
    }
    if (!m->magnitude) return;
    double sum = 0;
    for (size_t i = 0; i < in; i++) sum += (double)row[i] * (double)row[i];
    float factor = (float)((double)m->magnitude[o] / sqrt(sum));
    for (size_t i = 0; i < in; i++) row[i] *= factor;
}

void mica_merge_rows(const mica_merge *m, size_t first, size_t rows, float *values) {
    for (size_t r = 0; m->left && r < rows; r++) merge_row(m, first + r, values + r * (size_t)m->in);
}

void mica_merge_free(mica_merge *m) {
    mica_free(m->left), mica_free(m->right), mica_free(m->magnitude);
    *m = (mica_merge){0};
}
