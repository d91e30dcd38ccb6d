// SPDX-License-Identifier: Apache-2.0
// segment_attention_grad: from q, k, v, lengths (segments.h) and the gradient g [N,H,Dh] of the result the gradients of q, k and v side by side,
// [N,H+2Hkv,Dh]. Probabilities are computed again, a block of queries of one head at a time with all the keys that it sees: memory is linear in
// the length of a segment. Three passes: keys and values are packed; each task sums what its blocks of queries add to dk and dv of a segment and
// KV head, long ones in several parts; parts are added up in order.
#include "device/cpu/rows_kernels.h"
#include "device/cpu/segments.h"
#include <string.h>

enum {
    TASKS = 16,            // parts are made to get as many of about equal work
    PARTS_BYTES = 64 << 20 // at most for the sums of all parts
};

typedef struct gradient {
    mica_segments s;
    size_t parts, rows, span; // most parts; rows of all segments, each an even number; most keys that a block sees
    size_t item;              // bytes of a packed element
    double work;              // of all segments
    unsigned char *k, *v, *k_rows; // packed [Hkv, rows, Dp]
    float *sums;                   // [parts, Hkv, 2, rows, Dp]: dk, dv
    unsigned char *threads;
    size_t thread_bytes;
} gradient;

typedef struct work { // of one thread
    unsigned char *q, *g, *q_rows, *g_rows;
    float *p, *w, *turned, *dq;
    int32_t *lo, *hi;
} work;

static unsigned char *carve(unsigned char *base, size_t *at, size_t bytes) {
    unsigned char *p = base ? base + *at : NULL;
    *at += mica_walk_round(bytes);
    return p;
}
static float *carve_floats(unsigned char *base, size_t *at, size_t n) { return (float *)(void *)carve(base, at, n * sizeof(float)); }

static size_t place_work(const gradient *k, work *w, unsigned char *base) {
    size_t at = 0, block = MICA_CPU_KEYS * k->s.Dp * k->item, scores = k->span * MICA_CPU_KEYS;
    w->q = carve(base, &at, block), w->g = carve(base, &at, block);
    w->q_rows = carve(base, &at, block), w->g_rows = carve(base, &at, block);
    w->p = carve_floats(base, &at, scores), w->w = carve_floats(base, &at, scores);
    w->turned = carve_floats(base, &at, k->item == sizeof(float) ? 0 : scores / 2);
    w->dq = carve_floats(base, &at, MICA_CPU_KEYS * k->s.Dp);
    w->lo = (int32_t *)(void *)carve(base, &at, MICA_CPU_KEYS * sizeof(int32_t));
    w->hi = (int32_t *)(void *)carve(base, &at, MICA_CPU_KEYS * sizeof(int32_t));
    return at;
}

static size_t place_all(gradient *k, unsigned char *base) {
    size_t at = mica_segments_bytes(&k->s), packed = k->s.Hkv * k->rows * k->s.Dp;
    work unused;
    k->k = carve(base, &at, packed * k->item), k->v = carve(base, &at, packed * k->item), k->k_rows = carve(base, &at, packed * k->item);
    k->sums = carve_floats(base, &at, 2 * k->parts * packed);
    k->threads = base ? base + at : NULL;
    k->thread_bytes = place_work(k, &unused, NULL);
    return at + k->thread_bytes * mica_pool_threads(mica_cpu_pool(k->s.c));
}

static gradient gradient_of(const mica_call *c) {
    gradient k = {.s = mica_segments_of(c, MICA_CPU_KEYS)};
    k.item = k.s.isa->pack_size[k.s.dtype];
    k.rows = (k.s.N + k.s.S + 1) & ~(size_t)1;
    size_t bytes = MICA_MAX(2 * k.s.Hkv * k.rows * k.s.Dp * sizeof(float), (size_t)1);
    k.parts = MICA_MAX(MICA_MIN(TASKS / MICA_MAX(k.s.Hkv, (size_t)1), PARTS_BYTES / bytes), (size_t)1);
    k.span = k.s.longest + MICA_CPU_KEYS;
    if (k.s.window) k.span = MICA_MIN(k.span, k.s.window + 2 * MICA_CPU_KEYS);
    k.span = (k.span + 1) & ~(size_t)1;
    return k;
}

static double work_of(const gradient *k, const mica_segment *s) {
    return (double)s->length * (double)(k->s.window ? MICA_MIN(s->length, k->s.window) : s->length);
}

// Parts of a segment and KV head; each has a block of queries at least.
static size_t parts_of(const gradient *k, const mica_segment *s) {
    size_t blocks = k->s.G * ((s->length + MICA_CPU_KEYS - 1) / MICA_CPU_KEYS);
    size_t wanted = s->length ? (size_t)(work_of(k, s) / k->work * (double)(TASKS / k->s.Hkv) + 0.5) : 0;
    return MICA_MIN(MICA_MIN(MICA_MAX(wanted, (size_t)1), k->parts), blocks);
}

static float *sums_of(const gradient *k, size_t part, size_t kv, size_t which, const mica_segment *s) {
    return k->sums + ((((part * k->s.Hkv + kv) * 2 + which) * k->rows) + s->packed) * k->s.Dp;
}

static size_t packed_at(const gradient *k, size_t kv, const mica_segment *s, size_t row) {
    return (kv * k->rows + s->packed + row) * k->s.Dp * k->item;
}

// ---- first pass ----
static void pack_keys(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const gradient *k = ctx;
    const mica_segments *s = &k->s;
    mica_segment_block b = mica_segments_block(s, task);
    size_t row = b.segment->start + b.first, step = s->Dp * k->item, at = packed_at(k, b.kv, b.segment, b.first);
    for (size_t i = 0; i < b.n; i++) {
        s->isa->pack_query[s->dtype](k->k + at + i * step, mica_segments_row(s, s->k, row + i, b.kv), s->Dh);
        s->isa->pack_query[s->dtype](k->v + at + i * step, mica_segments_row(s, s->v, row + i, b.kv), s->Dh);
    }
    if (b.n % 2) memset(k->k_rows + at + (b.n - 1) * step, 0, 2 * step);
    s->isa->pack_values[s->dtype](k->k_rows + at, mica_segments_row(s, s->k, row, b.kv), (ptrdiff_t)s->k->stride[0], 0, b.n, s->Dh);
}

// ---- second pass ----
static void pack_twice(const gradient *k, const mica_tensor *x, size_t row, size_t head, size_t n, unsigned char *columns, unsigned char *rows) {
    const mica_segments *s = &k->s;
    const void *from = mica_segments_row(s, x, row, head);
    if (n < MICA_CPU_KEYS) {
        memset(columns, 0, MICA_CPU_KEYS * s->Dp * k->item);
        memset(rows, 0, MICA_CPU_KEYS * s->Dp * k->item);
    }
    s->isa->pack_keys[s->dtype](columns, from, (ptrdiff_t)x->stride[0], 0, n, s->Dh);
    s->isa->pack_values[s->dtype](rows, from, (ptrdiff_t)x->stride[0], 0, n, s->Dh);
}

// What each query sees of the keys from *from on, an even one; returns how many there are.
static size_t set_seen(const gradient *k, const mica_segment_block *b, const work *w, size_t *from) {
    size_t first, end = 0;
    mica_segments_seen(&k->s, b->segment, b->first, from, &end);
    *from &= ~(size_t)1;
    for (size_t i = 0; i < MICA_CPU_KEYS; i++) {
        bool there = i < b->n;
        if (there) mica_segments_seen(&k->s, b->segment, b->first + i, &first, &end);
        w->lo[i] = (int32_t)((there ? first : end) - *from), w->hi[i] = (int32_t)(end - *from);
    }
    return end - *from;
}

// Queries of one head: their dq, and what they add to dk and dv.
static void add_queries(const gradient *k, const mica_segment_block *b, size_t head, float *dk, float *dv, const work *w) {
    const mica_segments *s = &k->s;
    size_t from, row = b->segment->start + b->first, keys = set_seen(k, b, w, &from), at = packed_at(k, b->kv, b->segment, from);
    pack_twice(k, s->q, row, head, b->n, w->q, w->q_rows);
    pack_twice(k, &s->c->in[4], row, head, b->n, w->g, w->g_rows);
    s->isa->flash_grad[s->dtype](&(mica_cpu_flash_grad){.Dp = s->Dp, .keys = keys, .q = w->q, .g = w->g, .q_rows = w->q_rows, .g_rows = w->g_rows,
                                                        .k = k->k + at, .v = k->v + at, .k_rows = k->k_rows + at, .lo = w->lo, .hi = w->hi,
                                                        .scale = s->scale, .p = w->p, .w = w->w, .turned = w->turned, .dq = w->dq,
                                                        .dk = dk + from * s->Dp, .dv = dv + from * s->Dp});
    for (size_t i = 0; i < b->n; i++) {
        size_t to = (row + i) * (s->H + 2 * s->Hkv) + head;
        s->isa->from_f32[s->dtype](s->c->out.data + to * s->Dh * s->size, w->dq + i * s->Dp, s->Dh);
    }
}

static void add_part(void *ctx, size_t task, size_t thread) {
    const gradient *k = ctx;
    size_t part = task % k->parts, kv = task / k->parts % k->s.Hkv, G = k->s.G;
    const mica_segment *s = &k->s.segments[task / k->parts / k->s.Hkv];
    size_t parts = parts_of(k, s), blocks = (s->length + MICA_CPU_KEYS - 1) / MICA_CPU_KEYS, bytes = s->length * k->s.Dp * sizeof(float);
    if (part >= parts) return;
    float *dk = sums_of(k, part, kv, 0, s), *dv = sums_of(k, part, kv, 1, s);
    work w;
    place_work(k, &w, k->threads + thread * k->thread_bytes);
    memset(dk, 0, bytes), memset(dv, 0, bytes);
    for (size_t i = part; i < blocks * G; i += parts) {
        mica_segment_block b = {.segment = s, .kv = kv, .first = i / G * MICA_CPU_KEYS};
        b.n = MICA_MIN(s->length - b.first, (size_t)MICA_CPU_KEYS);
        add_queries(k, &b, kv * G + i % G, dk, dv, &w);
    }
}

// ---- third pass ----
static void add_up(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const gradient *k = ctx;
    const mica_segments *s = &k->s;
    mica_segment_block b = mica_segments_block(s, task);
    size_t parts = parts_of(k, b.segment), heads = s->H + 2 * s->Hkv;
    for (size_t which = 0; which < 2; which++)
        for (size_t i = b.first; i < b.first + b.n; i++) {
            float *sum = sums_of(k, 0, b.kv, which, b.segment) + i * s->Dp;
            for (size_t p = 1; p < parts; p++)
                s->isa->binary[MICA_CPU_ADD][MICA_F32](sum, sum, sums_of(k, p, b.kv, which, b.segment) + i * s->Dp, s->Dh);
            size_t to = (b.segment->start + i) * heads + s->H + which * s->Hkv + b.kv;
            s->isa->from_f32[s->dtype](s->c->out.data + to * s->Dh * s->size, sum, s->Dh);
        }
}

void mica_cpu_segment_attention_grad(const mica_call *c) {
    gradient k = gradient_of(c);
    if (!k.s.N || !k.s.H || !k.s.Dh) return;
    place_all(&k, c->scratch);
    size_t blocks = mica_segments_read(&k.s, c->scratch), used = k.s.segments[k.s.S].start, row = (k.s.H + 2 * k.s.Hkv) * k.s.Dh * k.s.size;
    memset(c->out.data + used * row, 0, (k.s.N - used) * row);
    for (size_t i = 0; i < k.s.S; i++) k.work += work_of(&k, &k.s.segments[i]);
    mica_pool_run(mica_cpu_pool(c), blocks, pack_keys, &k);
    mica_pool_run(mica_cpu_pool(c), k.s.S * k.s.Hkv * k.parts, add_part, &k);
    mica_pool_run(mica_cpu_pool(c), blocks, add_up, &k);
}

size_t mica_cpu_segment_attention_grad_scratch(const mica_call *c) {
    gradient k = gradient_of(c);
    return place_all(&k, NULL);
}
