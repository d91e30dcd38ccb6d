// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021). rope_table turns positions into cos | sin rows, once for all layers that
// share frequencies; rope rotates the first `dims` elements of every head, as halves (i, i + dims/2) or, traditional,
// as neighbours (2i, 2i + 1). Angles are f32 products position * inv_freq, as in transformers.
#include "device/cpu/rows_kernels.h"
#include "device/cpu/walk.h"
#include <assert.h>
#include <math.h>

// ---- rope_table: positions i32 [..., T], inv_freq f32 [d/2] -> f32 [..., T, d] ----
static void table_some(void *ctx, size_t first, size_t end, size_t thread) {
    (void)thread;
    const mica_call *c = ctx;
    const mica_tensor *positions = &c->in[0], *freq = &c->in[1];
    size_t half = (size_t)freq->shape[0];
    for (size_t t = first; t < end; t++) {
        const void *p = positions->data + mica_walk_offset(positions, 0, t);
        float position = (float)*(const int32_t *)p, scale = c->params->rope.scale;
        float *cosine = (float *)(void *)c->out.data + t * 2 * half, *sine = cosine + half;
        for (size_t i = 0; i < half; i++) {
            float angle = position * ((const float *)(const void *)freq->data)[(ptrdiff_t)i * freq->stride[0]];
            cosine[i] = cosf(angle) * scale;
            sine[i] = sinf(angle) * scale;
        }
    }
}

void mica_cpu_rope_table(const mica_call *c) {
    enum { TASK_ANGLES = 512 };
    assert(c->in[0].dtype == MICA_I32 && c->in[1].dtype == MICA_F32 && c->out.dtype == MICA_F32);
    size_t half = (size_t)c->in[1].shape[0];
    mica_call call = *c;
    if (half) mica_walk_range(c, mica_walk_count(&c->in[0]), TASK_ANGLES / half, table_some, &call);
}

// ---- rope: x [B, T, H, Dh], table [B or 1, T, dims] ----
typedef struct roping {
    const mica_call *c;
    size_t T, H, Dh, dims, size;
    bool gather;          // elements of a head lie apart
    bool back;
    size_t scratch_bytes; // of one thread: a gathered token, then a table row with its sines negated
} roping;

static size_t row_bytes(const roping *k) { return k->back ? mica_walk_round(k->dims * sizeof(float)) : 0; }

// The row of token t of sequence b; `own` takes it where the rotation goes back.
static const float *table_row(const roping *k, size_t b, size_t t, float *own) {
    const mica_tensor *table = &k->c->in[1];
    int64_t row = (table->shape[0] == 1 ? 0 : (int64_t)b) * table->stride[0] + (int64_t)t * table->stride[1];
    const float *from = (const float *)(const void *)table->data + row;
    if (!k->back) return from;
    for (size_t i = 0; i < k->dims; i++) own[i] = i < k->dims / 2 ? from[i] : -from[i];
    return own;
}

static void rope_f64(double *y, const double *x, const float *table, const roping *k, ptrdiff_t xs, bool traditional) {
    size_t half = k->dims / 2;
    for (size_t h = 0; h < k->H; h++, y += k->Dh, x += xs) {
        for (size_t i = 0; i < half; i++) {
            size_t p = traditional ? 2 * i : i, q = traditional ? 2 * i + 1 : i + half;
            double c = (double)table[i], s = (double)table[half + i], u = x[p], v = x[q];
            y[p] = u * c - v * s;
            y[q] = u * s + v * c;
        }
        for (size_t i = 2 * half; i < k->Dh; i++) y[i] = x[i];
    }
}

static void rope_some(void *ctx, size_t first, size_t end, size_t thread) {
    const roping *k = ctx;
    const mica_tensor *x = &k->c->in[0];
    bool traditional = k->c->params->rope.traditional != 0;
    for (size_t i = first; i < end; i++) {
        const unsigned char *a = x->data + mica_walk_offset(x, 2, i);
        ptrdiff_t xs = (ptrdiff_t)x->stride[2];
        unsigned char *to = k->c->scratch + thread * k->scratch_bytes;
        if (k->gather) {
            for (size_t h = 0; h < k->H; h++)
                mica_walk_gather(to + h * k->Dh * k->size, a + (ptrdiff_t)h * xs * (ptrdiff_t)k->size,
                                 (ptrdiff_t)x->stride[3], k->Dh, k->size);
            a = to, xs = (ptrdiff_t)k->Dh;
        }
        void *y = k->c->out.data + i * k->H * k->Dh * k->size;
        const float *table = table_row(k, i / k->T, i % k->T, (float *)(void *)(to + k->scratch_bytes - row_bytes(k)));
        if (x->dtype == MICA_F64)
            rope_f64(y, (const double *)(const void *)a, table, k, xs, traditional);
        else
            mica_cpu_isa_of(k->c)->rows.rope[x->dtype](y, a, table, k->H, xs, k->Dh, k->dims, traditional);
    }
}

static roping roping_of(const mica_call *c) {
    const mica_tensor *x = &c->in[0], *table = &c->in[1];
    assert(x->ndim == 4 && table->ndim == 3 && table->dtype == MICA_F32);
    roping k = {.c = c,
                .T = (size_t)x->shape[1],
                .H = (size_t)x->shape[2],
                .Dh = (size_t)x->shape[3],
                .dims = (size_t)table->shape[2],
                .size = mica_dtype_size(x->dtype)};
    assert(k.dims <= k.Dh && k.dims % 2 == 0 && (k.dims <= 1 || table->stride[2] == 1));
    k.gather = k.Dh > 1 && x->stride[3] != 1;
    k.back = c->params->rope.back != 0;
    k.scratch_bytes = (k.gather ? mica_walk_round(k.H * k.Dh * k.size) : 0) + row_bytes(&k);
    return k;
}

void mica_cpu_rope(const mica_call *c) {
    enum { TASK_ELEMENTS = 8192 };
    roping k = roping_of(c);
    size_t tokens = (size_t)c->in[0].shape[0] * k.T;
    if (k.H && k.Dh) mica_walk_range(c, tokens, TASK_ELEMENTS / (k.H * k.Dh), rope_some, &k);
}

size_t mica_cpu_rope_scratch(const mica_call *c) {
    return roping_of(c).scratch_bytes * mica_pool_threads(mica_cpu_pool(c));
}
