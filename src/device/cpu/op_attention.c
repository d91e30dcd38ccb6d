// SPDX-License-Identifier: Apache-2.0
// sdpa: softmax(scale * q·kᵀ + mask)·v without the matrix of scores, for strided q [B,H,Tq,Dh], k and v [B,Hkv,Tk,Dh].
// Query i stands at key position Tk - Tq + i; causal hides later keys, window > 0 hides keys more than window - 1
// positions before it. A query that sees no key gives zeros. A task is one KV head and a block of queries.
#include "base/half.h"
#include "device/cpu/flash.h"
#include "device/cpu/rows_kernels.h"
#include <assert.h>
#include <math.h>
#include <string.h>

typedef struct sdpa {
    const mica_call *c;
    const mica_cpu_rows_isa *isa;
    size_t B, H, Hkv, G, Tq, Tk, Dh, tokens, blocks, size; // tokens of a task, tasks of a head, bytes of an element
    size_t scratch_bytes;                                  // of one thread
    mica_dtype dtype;
    const mica_tensor *mask; // NULL = none
    int64_t mask_stride[4];
    float scale;
} sdpa;

// Keys that query i sees, masks aside: [first, end).
static void visible(const sdpa *k, size_t i, int64_t *first, int64_t *end) {
    int64_t position = (int64_t)k->Tk - (int64_t)k->Tq + (int64_t)i, window = k->c->params->sdpa.window;
    *first = window > 0 ? MICA_MAX(position - window + 1, (int64_t)0) : 0;
    *end = k->c->params->sdpa.causal ? MICA_MIN(position + 1, (int64_t)k->Tk) : (int64_t)k->Tk;
}

static const unsigned char *row_at(const sdpa *k, const mica_tensor *t, size_t b, size_t h, size_t i) {
    return t->data +
           ((int64_t)b * t->stride[0] + (int64_t)h * t->stride[1] + (int64_t)i * t->stride[2]) * (int64_t)k->size;
}

static bool has_gaps(const mica_tensor *t) { return t->shape[3] > 1 && t->stride[3] != 1; }

// The bias that the mask gives to key j of query i.
static float mask_value(const sdpa *k, size_t b, size_t h, size_t i, size_t j) {
    const int64_t *s = k->mask_stride;
    int64_t at = (int64_t)b * s[0] + (int64_t)h * s[1] + (int64_t)i * s[2] + (int64_t)j * s[3];
    const void *p = k->mask->data + at * (int64_t)mica_dtype_size(k->mask->dtype);
    switch (k->mask->dtype) {
    case MICA_BOOL: return *(const uint8_t *)p ? 0.0f : -INFINITY;
    case MICA_F16: return mica_f16_to_f32(*(const uint16_t *)p);
    case MICA_BF16: return mica_bf16_to_f32(*(const uint16_t *)p);
    case MICA_F64: return (float)*(const double *)p;
    default: return *(const float *)p;
    }
}

// ---- f64: three plain passes over the keys ----
static double score_f64(const sdpa *k, size_t b, size_t h, size_t i, size_t j) {
    const mica_tensor *q = &k->c->in[0], *key = &k->c->in[1];
    const double *x = (const double *)(const void *)row_at(k, q, b, h, i);
    const double *y = (const double *)(const void *)row_at(k, key, b, h / k->G, j);
    double dot = 0, bias = 0;
    for (size_t d = 0; d < k->Dh; d++) dot += x[(int64_t)d * q->stride[3]] * y[(int64_t)d * key->stride[3]];
    if (k->mask && k->mask->dtype == MICA_F64) {
        const int64_t *s = k->mask_stride;
        bias = ((const double *)(const void *)
                    k->mask->data)[(int64_t)b * s[0] + (int64_t)h * s[1] + (int64_t)i * s[2] + (int64_t)j * s[3]];
    } else if (k->mask)
        bias = (double)mask_value(k, b, h, i, j);
    return dot * (double)k->scale + bias;
}

static void sdpa_f64(void *ctx, size_t first_row, size_t end_row, size_t thread) {
    (void)thread;
    const sdpa *k = ctx;
    const mica_tensor *value = &k->c->in[2];
    for (size_t row = first_row; row < end_row; row++) {
        size_t i = row % k->Tq, h = row / k->Tq % k->H, b = row / k->Tq / k->H;
        double *out = (double *)(void *)k->c->out.data + row * k->Dh, max = -(double)INFINITY, sum = 0;
        int64_t first, end;
        visible(k, i, &first, &end);
        for (int64_t j = first; j < end; j++) {
            double s = score_f64(k, b, h, i, (size_t)j);
            if (!(s <= max)) max = s;
        }
        memset(out, 0, k->Dh * sizeof *out);
        for (int64_t j = first; j < end && max != (double)-INFINITY; j++) {
            const double *v = (const double *)(const void *)row_at(k, value, b, h / k->G, (size_t)j);
            double p = exp(score_f64(k, b, h, i, (size_t)j) - max);
            sum += p;
            for (size_t d = 0; d < k->Dh; d++) out[d] += p * v[(int64_t)d * value->stride[3]];
        }
        for (size_t d = 0; d < k->Dh && sum != 0; d++) out[d] /= sum;
    }
}

// ---- f32, f16, bf16 ----
typedef struct task {
    size_t b, kv, first, tokens; // batch row, KV head, first query, queries
    mica_flash_work w;
} task;

static void pack_queries(const sdpa *k, const task *t) {
    const mica_tensor *q = &k->c->in[0];
    size_t packed = mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype];
    for (size_t r = 0; r < t->tokens * k->G; r++) {
        const unsigned char *x = row_at(k, q, t->b, t->kv * k->G + r % k->G, t->first + r / k->G);
        if (has_gaps(q)) {
            mica_walk_gather(t->w.row, x, (ptrdiff_t)q->stride[3], k->Dh, k->size);
            x = t->w.row;
        }
        k->isa->pack_query[k->dtype](t->w.q + r * packed, x, k->Dh);
    }
}

typedef void pack_fn(void *packed, const void *x, ptrdiff_t stride, size_t at, size_t n, size_t Dh);

// Keys or values at positions [first, first + n) into a packed block.
static void pack_block(const sdpa *k, const task *t, const mica_tensor *x, pack_fn *pack, void *packed, size_t first,
                       size_t n) {
    if (n < MICA_CPU_KEYS) memset(packed, 0, MICA_CPU_KEYS * mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype]);
    if (!has_gaps(x)) {
        pack(packed, row_at(k, x, t->b, t->kv, first), (ptrdiff_t)x->stride[2], 0, n, k->Dh);
        return;
    }
    for (size_t j = 0; j < n; j++) {
        mica_walk_gather(t->w.row, row_at(k, x, t->b, t->kv, first + j), (ptrdiff_t)x->stride[3], k->Dh, k->size);
        pack(packed, t->w.row, (ptrdiff_t)k->Dh, j, 1, k->Dh);
    }
}

// The mask of query i for keys [first, first + n) as a bias; other slots of the block are hidden anyway.
static void mask_row(const sdpa *k, size_t b, size_t h, size_t i, size_t first, size_t n, float *bias) {
    const int64_t *s = k->mask_stride;
    int64_t at = (int64_t)b * s[0] + (int64_t)h * s[1] + (int64_t)i * s[2] + (int64_t)first * s[3];
    memset(bias + n, 0, (MICA_CPU_KEYS - n) * sizeof(float));
    if (s[3] == 1 && k->mask->dtype == MICA_BOOL)
        for (size_t j = 0; j < n; j++) bias[j] = k->mask->data[at + (int64_t)j] ? 0.0f : -INFINITY;
    else if (s[3] == 1 && mica_cpu_is_short(k->mask->dtype))
        k->isa->to_f32[k->mask->dtype](bias, k->mask->data + at * (int64_t)mica_dtype_size(k->mask->dtype), n);
    else
        for (size_t j = 0; j < n; j++) bias[j] = mask_value(k, b, h, i, first + j);
}

static int32_t within(int64_t x, size_t n) { return (int32_t)MICA_MAX(MICA_MIN(x, (int64_t)n), (int64_t)0); }

// Sets each row's visible part of the block [first, first + n) and its mask; false if no row sees any of it.
static bool mask_block(const sdpa *k, const task *t, size_t first, size_t n) {
    bool any = false;
    for (size_t r = 0; r < t->tokens * k->G; r++) {
        int64_t lo, hi;
        visible(k, t->first + r / k->G, &lo, &hi);
        t->w.lo[r] = within(lo - (int64_t)first, n);
        t->w.hi[r] = within(hi - (int64_t)first, n);
        any = any || t->w.lo[r] < t->w.hi[r];
    }
    if (!any || !k->mask) return any;
    for (size_t r = 0; r < t->tokens * k->G; r++) {
        float *bias = t->w.bias + r * MICA_CPU_KEYS;
        if (r % k->G && !k->mask_stride[1])
            memcpy(bias, bias - MICA_CPU_KEYS, MICA_CPU_KEYS * sizeof(float)); // same query
        else
            mask_row(k, t->b, t->kv * k->G + r % k->G, t->first + r / k->G, first, n, bias);
    }
    return true;
}

static void sdpa_task(void *ctx, size_t index, size_t thread) {
    const sdpa *k = ctx;
    size_t R = k->tokens * k->G, block = index % k->blocks;
    task t = {.kv = index / k->blocks % k->Hkv, .b = index / k->blocks / k->Hkv, .first = block * k->tokens};
    t.tokens = MICA_MIN(k->tokens, k->Tq - t.first);
    t.w = mica_flash_place(k->c->scratch + thread * k->scratch_bytes, R, k->Dh);
    R = t.tokens * k->G;
    pack_queries(k, &t);
    mica_flash_start(&t.w, R, k->Dh);
    int64_t first, end, unused;
    visible(k, t.first, &first, &unused);
    visible(k, t.first + t.tokens - 1, &unused, &end);
    for (size_t j = (size_t)first / MICA_CPU_KEYS * MICA_CPU_KEYS; (int64_t)j < end; j += MICA_CPU_KEYS) {
        size_t n = MICA_MIN(k->Tk - j, (size_t)MICA_CPU_KEYS);
        if (!mask_block(k, &t, j, n)) continue;
        pack_block(k, &t, &k->c->in[1], k->isa->pack_keys[k->dtype], t.w.k, j, n);
        pack_block(k, &t, &k->c->in[2], k->isa->pack_values[k->dtype], t.w.v, j, n);
        mica_flash_add(k->isa, k->dtype, &t.w, R, k->Dh, k->scale, k->mask != NULL);
    }
    for (size_t r = 0; r < R; r++) {
        size_t row = (t.b * k->H + t.kv * k->G + r % k->G) * k->Tq + t.first + r / k->G;
        mica_flash_finish(k->isa, k->dtype, &t.w, r, k->Dh, k->c->out.data + row * k->Dh * k->size);
    }
}

// Strides of a mask of up to four axes, aligned at the last; an axis of one element is broadcast.
static void set_mask(sdpa *k) {
    if (k->c->inputs < 4 || !k->c->in[3].data) return;
    k->mask = &k->c->in[3];
    for (int i = 0; i < k->mask->ndim; i++)
        k->mask_stride[4 - k->mask->ndim + i] = k->mask->shape[i] == 1 ? 0 : k->mask->stride[i];
}

static sdpa sdpa_of(const mica_call *c) {
    const mica_tensor *q = &c->in[0], *key = &c->in[1];
    assert(q->ndim == 4 && key->ndim == 4 && key->dtype == q->dtype && c->in[2].dtype == q->dtype &&
           c->out.dtype == q->dtype);
    sdpa k = {.c = c,
              .isa = &mica_cpu_isa_of(c)->rows,
              .B = (size_t)q->shape[0],
              .H = (size_t)q->shape[1],
              .Hkv = (size_t)key->shape[1],
              .Tq = (size_t)q->shape[2],
              .Tk = (size_t)key->shape[2],
              .Dh = (size_t)q->shape[3],
              .dtype = q->dtype,
              .size = mica_dtype_size(q->dtype),
              .scale = c->params->sdpa.scale};
    assert(!k.H || (k.Hkv && k.H % k.Hkv == 0));
    k.G = k.H ? k.H / k.Hkv : 1;
    k.tokens = MICA_MAX(MICA_MIN(mica_flash_tokens(k.G), k.Tq), (size_t)1);
    k.blocks = (k.Tq + k.tokens - 1) / k.tokens;
    k.scratch_bytes = k.dtype == MICA_F64 ? 0 : mica_flash_bytes(k.tokens * k.G, k.Dh);
    return k;
}

void mica_cpu_sdpa(const mica_call *c) {
    sdpa k = sdpa_of(c);
    if (!k.B || !k.H || !k.Tq || !k.Dh) return;
    set_mask(&k);
    if (k.dtype == MICA_F64)
        mica_walk_range(c, k.B * k.H * k.Tq, 1, sdpa_f64, &k);
    else
        mica_pool_run(mica_cpu_pool(c), k.B * k.Hkv * k.blocks, sdpa_task, &k);
}

size_t mica_cpu_sdpa_scratch(const mica_call *c) {
    return sdpa_of(c).scratch_bytes * mica_pool_threads(mica_cpu_pool(c));
}
