// SPDX-License-Identifier: Apache-2.0
// Attention in double precision, and paged caches of known contents: what the tests of attention kernels compare with and work on.
#ifndef PAGED_TESTING_H
#define PAGED_TESTING_H

#include "rows_testing.h"

// Error of a weight that a level rounds to bf16, times the values it weighs (|v| < 4 or so): only for bf16.
static inline double attention_scale(mica_dtype t) { return t == MICA_BF16 ? 0x1p-9 * 2 / tolerance[t].sums : 2; }

/** out[Dh] = attention of one query over n keys; rows `step` apart; bias NULL = 0. */
static inline void want_row(double *out, const double *q, const double *k, const double *v, size_t step, size_t n, size_t Dh,
                     double scale, const double *bias) {
    double max = -(double)INFINITY, sum = 0, *s = calloc(n + 1, sizeof *s);
    for (size_t j = 0; j < n; j++) {
        for (size_t d = 0; d < Dh; d++) s[j] += q[d] * k[j * step + d];
        s[j] = s[j] * scale + (bias ? bias[j] : 0);
        if (s[j] > max) max = s[j];
    }
    for (size_t d = 0; d < Dh; d++) out[d] = 0;
    for (size_t j = 0; j < n && max > -(double)INFINITY; j++) {
        double p = exp(s[j] - max);
        sum += p;
        for (size_t d = 0; d < Dh; d++) out[d] += p * v[j * step + d];
    }
    for (size_t d = 0; d < Dh && sum > 0; d++) out[d] /= sum;
    free(s);
}

enum { MOST_SEQUENCES = 6 };
typedef struct paged_case {
    int B;
    int64_t H, Hkv, Dh, P, L, layer, window;
    int lengths[MOST_SEQUENCES], appended[MOST_SEQUENCES]; // positions after the append; tokens of the append
    bool release;                                          // pages that every query's window has left are given up
    bool codes;                                            // an i8 pool
} paged_case;

// The cache and, per sequence, what was put into it.
typedef struct cache {
    const paged_case *s;
    mica_dtype t;
    int64_t pages, max_pages, N;
    array pool, meta, table, q;
    array k[MOST_SEQUENCES], v[MOST_SEQUENCES]; // [length, Hkv, Dh], contiguous
    size_t start[MOST_SEQUENCES];
} cache;

// Appends tokens [from, to) of every sequence.
static inline void append(cache *c, const mica_cpu_isa *isa, const int *from, const int *to) {
    const paged_case *s = c->s;
    int64_t N = 0;
    for (int b = 0; b < s->B; b++) N += to[b] - from[b];
    array k = array_new(c->t, PADDED, SHAPE(N + 2, s->Hkv, s->Dh)),
          v = array_new(c->t, REVERSED, SHAPE(N + 2, s->Hkv, s->Dh));
    size_t row = (size_t)(s->Hkv * s->Dh), at = 1; // rows 0 and N + 1 belong to no sequence
    for (size_t i = 0; i < k.count; i++) array_put(&k, i, 1e30), array_put(&v, i, 1e30);
    for (int b = 0; b < s->B; b++) {
        const double meta[4] = {(double)at, to[b] - from[b], to[b], 0};
        for (size_t i = 0; i < 4; i++) array_put(&c->meta, (size_t)b * 4 + i, meta[i]);
        c->start[b] = at;
        for (int j = from[b]; j < to[b]; j++, at++)
            for (size_t i = 0; i < row; i++) {
                array_put(&k, at * row + i, c->k[b].values[(size_t)j * row + i]);
                array_put(&v, at * row + i, c->v[b].values[(size_t)j * row + i]);
            }
    }
    device_use(isa, 2);
    mica_params params = {.paged = {.layer = (int32_t)s->layer}};
    kernel_run("kv_append", &params, &c->pool, 5, (array *[]){&c->pool, &k, &v, &c->meta, &c->table});
    c->N = N + 2;
    array_free(&k), array_free(&v);
}

static inline cache cache_new(const paged_case *s, mica_dtype t, const mica_cpu_isa *isa) {
    cache c = {.s = s, .t = t};
    int64_t used = 0;
    for (int b = 0; b < s->B; b++) {
        c.max_pages = MICA_MAX(c.max_pages, (s->lengths[b] + s->P - 1) / s->P + 1);
        c.pages += (s->lengths[b] + s->P - 1) / s->P;
    }
    c.pages += 3;
    c.pool = array_new(s->codes ? MICA_I8 : t, CONTIGUOUS,
                       SHAPE(c.pages, s->L, s->Hkv, 2, s->P, s->Dh + (s->codes ? 4 : 0))); // NaN wherever nothing was written
    c.meta = array_new(MICA_I32, CONTIGUOUS, SHAPE(s->B, 4));
    c.table = array_new(MICA_I32, CONTIGUOUS, SHAPE(s->B, c.max_pages));
    for (size_t i = 0; i < c.table.count; i++) array_put(&c.table, i, -1);
    for (int b = 0; b < s->B; b++) {
        c.k[b] = array_random(t, CONTIGUOUS, SHAPE(s->lengths[b], s->Hkv, s->Dh), 10 + (uint64_t)b, 1);
        c.v[b] = array_random(t, CONTIGUOUS, SHAPE(s->lengths[b], s->Hkv, s->Dh), 20 + (uint64_t)b, 1);
        for (int64_t i = 0; i < (s->lengths[b] + s->P - 1) / s->P; i++, used++) // pages in backward order
            array_put(&c.table, (size_t)(b * c.max_pages + i), (double)(c.pages - 2 - used));
    }
    int from[MOST_SEQUENCES] = {0}, middle[MOST_SEQUENCES], to[MOST_SEQUENCES];
    for (int b = 0; b < s->B; b++) to[b] = s->lengths[b], middle[b] = s->lengths[b] - s->appended[b];
    append(&c, isa, from, middle);
    if (s->release)
        for (int b = 0; b < s->B; b++)
            for (int64_t i = 0; (i + 1) * s->P <= middle[b] + 1 - s->window; i++)
                array_put(&c.table, (size_t)(b * c.max_pages + i), -1);
    append(&c, isa, middle, to);
    c.q = array_random(t, PADDED, SHAPE(c.N, s->H, s->Dh), 5, 1);
    return c;
}

static inline void cache_free(cache *c) {
    for (int b = 0; b < c->s->B; b++) array_free(&c->k[b]), array_free(&c->v[b]);
    array_free(&c->pool), array_free(&c->meta), array_free(&c->table), array_free(&c->q);
}

static inline mica_params paged_params(const paged_case *s) {
    return (mica_params){
        .paged = {.scale = (float)(1 / sqrt((double)s->Dh)), .layer = (int32_t)s->layer, .window = (int32_t)s->window}};
}

static inline void want_paged(double *want, const cache *c) {
    const paged_case *s = c->s;
    size_t Dh = (size_t)s->Dh, row = (size_t)s->Hkv * Dh, G = (size_t)(s->H / s->Hkv);
    double scale = (double)paged_params(s).paged.scale;
    for (int b = 0; b < s->B; b++)
        for (int i = 0; i < s->appended[b]; i++)
            for (size_t h = 0; h < (size_t)s->H; h++) {
                size_t position = (size_t)(s->lengths[b] - s->appended[b] + i), n = position + 1, first = 0;
                if (s->window && n > (size_t)s->window) first = n - (size_t)s->window;
                size_t at = ((c->start[b] + (size_t)i) * (size_t)s->H + h) * Dh, kv = first * row + h / G * Dh;
                want_row(want + at, c->q.values + at, c->k[b].values + kv, c->v[b].values + kv, row, n - first, Dh,
                         scale, NULL);
            }
}

/** Attention over the cache, [N, H, Dh], at every number of threads; to be freed. */
static inline array paged_attention(const mica_cpu_isa *isa, cache *c) {
    mica_params params = paged_params(c->s);
    array out = array_new(c->t, CONTIGUOUS, SHAPE(c->N, c->s->H, c->s->Dh));
    kernel_run_all_threads(isa, "paged_attention", &params, &out, 4, (array *[]){&c->q, &c->pool, &c->meta, &c->table});
    return out;
}

/** Checks every case with every type at every level; `check` gets a fresh cache. */
static inline void each_cache(const paged_case *cases, size_t count, void (*check)(const mica_cpu_isa *isa, cache *c, size_t number)) {
    EACH_LEVEL
    for (mica_dtype t = MICA_F32; t <= MICA_BF16; t++)
        for (size_t i = 0; i < count; i++) {
            cache c = cache_new(&cases[i], t, isa);
            check(isa, &c, i);
            cache_free(&c);
        }
}
#endif
