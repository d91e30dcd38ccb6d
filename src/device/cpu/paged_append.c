// SPDX-License-Identifier: Apache-2.0
// New keys and values into their pages (see paged.h), and the rows of q, k and v on their way: Q/K norm and rotation are
// done here row by row where the op is the fused one, with the kernels and the roundings of the separate ops.
#include "device/cpu/paged.h"
#include <string.h>

/** Head h of token i as attention sees it, contiguous: in place, or made in `row`. */
static const unsigned char *row_of(const mica_paged *k, const mica_paged_rows *x, size_t i, size_t h, void *row) {
    const mica_tensor *t = &x->x;
    const unsigned char *a = t->data + ((int64_t)i * t->stride[0] + (int64_t)h * t->stride[1]) * (int64_t)k->size;
    if (k->Dh > 1 && t->stride[2] != 1) {
        mica_walk_gather(row, a, (ptrdiff_t)t->stride[2], k->Dh, k->size);
        a = row;
    }
    if (x->norm) {
        k->isa->rms_norm[k->dtype](row, a, x->norm, k->Dh, k->eps);
        a = row;
    }
    if (x->rotated) {
        const float *table = (const float *)(const void *)k->rope->data + i * k->dims;
        k->isa->rope[k->dtype](row, a, table, 1, (ptrdiff_t)k->Dh, k->Dh, k->dims, 0);
        a = row;
    }
    return a;
}

unsigned char *mica_paged_pack_queries(const mica_paged *k, mica_paged_pack_fn *pack, size_t step, size_t i, size_t kv,
                                       unsigned char *packed, void *row) {
    for (size_t g = 0; g < k->G; g++, packed += step)
        pack(k, packed, row_of(k, &k->q, i, kv * k->G + g, row));
    return packed;
}

// A row of the model's type into a slot of a page; `floats` is memory for Dh of them.
static void store_row(const mica_paged *k, unsigned char *half, size_t slot, const unsigned char *x, float *floats) {
    mica_dtype pool = k->pool->dtype;
    size_t size = mica_dtype_size(pool);
    unsigned char *to = half + slot * k->row;
    if (pool == k->dtype) {
        memcpy(to, x, k->row);
        return;
    }
    if (k->codes) {
        k->isa->to_f32[k->dtype](floats, x, k->Dh);
        mica_paged_scales(k, half)[slot] = k->isa->to_codes((int8_t *)to, floats, k->Dh);
        return;
    }
    for (size_t d = 0; d < k->Dh; d++) { // a cache of another type: rare, element by element
        float f;
        k->isa->to_f32[k->dtype](&f, x + d * k->size, 1);
        k->isa->from_f32[pool](to + d * size, &f, 1);
    }
}

void mica_paged_write(const mica_paged *k, size_t b, size_t i, size_t position, size_t h, size_t end, void *row) {
    int32_t page = mica_paged_page(k, b, position);
    float *floats = (float *)row + k->Dh;
    for (; page >= 0 && h < end; h++) {
        store_row(k, mica_paged_half(k, page, h, 0), position % k->P, row_of(k, &k->k, i, h, row), floats);
        store_row(k, mica_paged_half(k, page, h, 1), position % k->P, row_of(k, &k->v, i, h, row), floats);
    }
}

// The sequence that row `i` belongs to and its position there; false if none.
static bool find_token(const mica_paged *k, size_t i, size_t *b, size_t *position) {
    for (*b = 0; *b < k->B; ++*b) {
        const int32_t *m = mica_paged_meta(k, *b);
        if ((int64_t)i < m[0] || (int64_t)i >= (int64_t)m[0] + m[1]) continue;
        *position = (size_t)(m[2] - m[1]) + i - (size_t)m[0];
        return m[2] >= m[1];
    }
    return false;
}

static void append_some(void *ctx, size_t first, size_t end, size_t thread) {
    const mica_paged *k = ctx;
    for (size_t i = first; i < end; i++) {
        size_t b, position;
        if (find_token(k, i, &b, &position))
            mica_paged_write(k, b, i, position, 0, k->Hkv, k->thread_scratch + thread * k->thread_bytes);
    }
}

void mica_paged_append_all(const mica_paged *k) {
    enum { TASK_ELEMENTS = 16384 };
    mica_paged copy = *k;
    mica_walk_range(k->c, k->N, TASK_ELEMENTS / MICA_MAX(k->Hkv * k->Dh, (size_t)1), append_some, &copy);
}
