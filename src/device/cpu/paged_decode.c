// SPDX-License-Identifier: Apache-2.0
// Attention of few tokens over pages (see paged.h). A task takes some neighbouring KV heads over a chunk of positions,
// page by page in the order of memory, every query head of a group (and every token) against a row while it is there;
// it leaves (maximum, sum, values), and the last chunk of a head to finish merges them in order of position.
// A token's bits depend on its own position alone, however many tokens it comes with: chunks and steps lie at absolute
// positions, and what a token does not see weighs exactly zero. Speculation relies on it.
#include "device/cpu/paged.h"
#include <math.h>
#include <string.h>

enum {
    CHUNK = 128,  // least positions in a chunk: some 5–10 µs of reading
    STEP = 32,    // positions whose scores are held at once; a page of the models' caches
    SLICE = 2048, // bytes of keys or values handed to a kernel at once, between prefetches (best of 1 … 8 KiB)
};

typedef struct work {
    unsigned char *row, *q; // one row; packed [heads, n * G, Dp]
    float *s;               // [n * G, STEP] scores, then weights
    float *m, *l, *acc;     // [heads, n * G], the same, [heads, n * G, Dh]
} work;

size_t mica_paged_chunk(size_t span) {
    size_t chunk = CHUNK;
    while (span > chunk * (MICA_PAGED_CHUNKS - 1)) chunk *= 2;
    return chunk;
}

static unsigned char *carve(unsigned char *base, size_t *at, size_t bytes) {
    unsigned char *p = base ? base + *at : NULL;
    *at += mica_walk_round(bytes);
    return p;
}

static size_t place(const mica_paged *k, unsigned char *base, size_t n, work *w) {
    size_t R = n * k->G, rows = k->heads * R, at = 0;
    w->row = carve(base, &at, 2 * k->Dh * sizeof(float));
    w->q = carve(base, &at, rows * mica_cpu_head_pad(k->Dh) * sizeof(float));
    w->s = (float *)(void *)carve(base, &at, R * STEP * sizeof(float));
    w->m = (float *)(void *)carve(base, &at, rows * sizeof(float));
    w->l = (float *)(void *)carve(base, &at, rows * sizeof(float));
    w->acc = (float *)(void *)carve(base, &at, rows * k->Dh * sizeof(float));
    return at;
}

size_t mica_paged_decode_bytes(const mica_paged *k) {
    work w;
    return place(k, NULL, MICA_PAGED_FEW, &w);
}

// One head of a step: R rows of its queries and sums.
typedef struct head {
    const mica_paged *k;
    const mica_paged_part *s;
    size_t R, p0, p1;
    const unsigned char *q;
    float *scores, *m, *l, *acc;
} head;

// While a slice is worked on, the same slice of the half that comes next in memory is fetched: runs are too short for
// the processor to foresee.
static void fetch(const unsigned char *next, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(next + i, 0, 2);
}

// The scales of a head's keys and values are wanted all at once.
static void fetch_scales(const mica_paged *k, unsigned char *keys) {
    fetch((unsigned char *)mica_paged_scales(k, keys), k->P * sizeof(float));
    fetch((unsigned char *)mica_paged_scales(k, keys + k->half), k->P * sizeof(float));
}

static size_t slice_rows(const mica_paged *k) { return MICA_MAX(SLICE / k->row, (size_t)(k->codes ? 16 : 4)); }

// s[r, j] *= scales[j]: what the codes of a run have been multiplied with, or will be.
static void rescale(const mica_cpu_rows_isa *isa, float *s, const float *scales, size_t R, size_t n) {
    for (size_t r = 0; r < R; r++) isa->binary[MICA_CPU_MUL][MICA_F32](s + r * STEP, s + r * STEP, scales, n);
}

// Scores with the n positions from p on, all of one page; `next` is what will be read afterwards, or NULL.
static void score_run(const head *d, size_t p, size_t n, unsigned char *keys, const unsigned char *next) {
    const mica_paged *k = d->k;
    size_t row = k->row, slice = slice_rows(k), slot = p % k->P;
    float *s = d->scores + (p - d->p0);
    if (k->codes) fetch_scales(k, keys);
    for (size_t j = 0, m; j < n; j += m) {
        m = MICA_MIN(slice, n - j);
        if (next) fetch(next + (slot + j) * row, m * row);
        if (k->codes)
            k->isa->scores_codes[k->dtype](s + j, STEP, d->q, keys + (slot + j) * row, d->R, m, k->Dh, k->scale);
        else
            k->isa->scores[k->dtype](s + j, STEP, d->q, keys + (slot + j) * row, d->R, m, k->Dh, k->scale);
    }
    if (k->codes) rescale(k->isa, s, mica_paged_scales(k, keys) + slot, d->R, n);
}

static void value_run(const head *d, size_t p, size_t n, unsigned char *values, const unsigned char *next) {
    const mica_paged *k = d->k;
    size_t row = k->row, slice = slice_rows(k), slot = p % k->P;
    float *s = d->scores + (p - d->p0);
    if (k->codes) rescale(k->isa, s, mica_paged_scales(k, values) + slot, d->R, n);
    for (size_t j = 0, m; j < n; j += m) {
        m = MICA_MIN(slice, n - j);
        if (next) fetch(next + (slot + j) * row, m * row);
        if (k->codes)
            k->isa->values_codes[k->dtype](d->acc, s + j, STEP, values + (slot + j) * row, d->R, m, k->Dh);
        else
            k->isa->values[k->dtype](d->acc, s + j, STEP, values + (slot + j) * row, d->R, m, k->Dh);
    }
}

static void hide(const head *d, size_t r, size_t from, size_t to) {
    for (size_t p = MICA_MAX(from, d->p0); p < MICA_MIN(to, d->p1); p++) d->scores[r * STEP + p - d->p0] = -INFINITY;
}

// Hides from each token what lies after it or before its window.
static void hide_unseen(const head *d) {
    for (size_t r = 0; r < d->R; r++) {
        size_t position = mica_paged_position(d->s, r / d->k->G);
        hide(d, r, 0, mica_paged_first_seen(d->k, position));
        hide(d, r, position + 1, SIZE_MAX);
    }
}

// Scores to weights; what the rows have summed so far is scaled down where the maximum rose.
static void weigh(const head *d) {
    const mica_paged *k = d->k;
    for (size_t r = 0; r < d->R; r++) {
        float old = d->m[r], sum = k->isa->weights[k->codes ? MICA_F32 : k->dtype](d->scores + r * STEP, d->p1 - d->p0, &d->m[r]);
        if (old == d->m[r] || old == -INFINITY) { // nothing to scale: no values yet, or the maximum stands
            d->l[r] += sum;
            continue;
        }
        float scale = expf(old - d->m[r]);
        d->l[r] = d->l[r] * scale + sum;
        k->isa->scale[MICA_F32](d->acc + r * k->Dh, d->acc + r * k->Dh, scale, k->Dh);
    }
}

// Positions [p0, p1) of one head; `after` is the first thing that is read after its values.
static void step(const head *d, size_t h, const unsigned char *after) {
    const mica_paged *k = d->k;
    bool whole = d->R == k->G && d->p0 >= mica_paged_first_seen(k, d->s->kv_len - 1); // a lone token that sees it all
    for (size_t p = d->p0, n; p < d->p1; p += n) {
        n = mica_paged_run(k, p, d->p1);
        int32_t page = mica_paged_page(k, d->s->b, p);
        if (page >= 0)
            score_run(d, p, n, mica_paged_half(k, page, h, 0), mica_paged_half(k, page, h, 1));
        else
            for (size_t r = 0; r < d->R; r++) hide(d, r, p, p + n);
    }
    if (!whole) hide_unseen(d);
    weigh(d);
    for (size_t p = d->p0, n; p < d->p1; p += n) {
        n = mica_paged_run(k, p, d->p1);
        int32_t page = mica_paged_page(k, d->s->b, p);
        if (page >= 0) value_run(d, p, n, mica_paged_half(k, page, h, 1), after);
    }
}

// ---- results ----
static float *partial_of(const mica_paged *k, const mica_paged_part *s, size_t token, size_t h, size_t chunk) {
    return k->partial + (((s->token + token) * k->H + h) * (MICA_PAGED_CHUNKS + 1) + chunk) * (k->Dh + 2);
}

static void write_output(const mica_paged *k, const mica_paged_part *s, size_t token, size_t h, float *acc, float m,
                         float l) {
    k->isa->scale[MICA_F32](acc, acc, m == -INFINITY ? 0.0f : 1.0f / l, k->Dh);
    size_t row = (s->start + token) * k->H + h;
    k->isa->from_f32[k->dtype](k->out + row * k->Dh * k->size, acc, k->Dh);
}

// All chunks of one token and head into the first, in order of position; then out. Chunks that it does not see have
// maximum -inf and add exact zeros.
static void merge_chunks(const mica_paged *k, const mica_paged_part *s, size_t token, size_t h) {
    float *to = partial_of(k, s, token, h, 0), m = -INFINITY, l = 0;
    for (size_t i = 0; i < s->tasks; i++) m = fmaxf(m, partial_of(k, s, token, h, i)[0]);
    for (size_t i = 0; i < s->tasks; i++) {
        const float *from = partial_of(k, s, token, h, i);
        float scale = m == -INFINITY ? 0.0f : expf(from[0] - m);
        l += from[1] * scale;
        for (size_t d = 2; d < k->Dh + 2; d++) to[d] = (i ? to[d] : 0.0f) + from[d] * scale;
    }
    write_output(k, s, token, h, to + 2, m, l);
}

static void finish(const mica_paged *k, const mica_paged_part *s, size_t group, size_t first, size_t end, size_t chunk,
                   const work *w) {
    size_t R = s->n * k->G;
    for (size_t i = 0; i < (end - first) * R; i++) {
        size_t token = i % R / k->G, h = (first + i / R) * k->G + i % k->G;
        if (s->tasks == 1) {
            write_output(k, s, token, h, w->acc + i * k->Dh, w->m[i], w->l[i]);
            continue;
        }
        float *to = partial_of(k, s, token, h, chunk);
        to[0] = w->m[i], to[1] = w->l[i];
        memcpy(to + 2, w->acc + i * k->Dh, k->Dh * sizeof(float));
    }
    size_t part = (size_t)(s - k->parts);
    if (s->tasks == 1 || atomic_fetch_sub(&k->left[part * k->Hkv + group], 1) != 1) return;
    for (size_t i = 0; i < (end - first) * R; i++)
        merge_chunks(k, s, i % R / k->G, (first + i / R) * k->G + i % k->G);
}

// ---- the task ----
static void pack_query(const mica_paged *k, void *packed, const void *x) { k->isa->pack_query[k->dtype](packed, x, k->Dh); }

static void pack_for_codes(const mica_paged *k, void *packed, const void *x) {
    k->isa->pack_query_codes[k->dtype](packed, x, k->Dh);
}

// Its own new tokens enter the cache before anything is read; no other task reads them.
static void append_own(const mica_paged *k, const mica_paged_part *s, size_t h, size_t last, size_t begin, size_t end,
                       void *row) {
    for (size_t t = 0; t < s->n; t++) {
        size_t position = mica_paged_position(s, t);
        if (position >= begin && position < end) mica_paged_write(k, s->b, s->start + t, position, h, last, row);
    }
}

static const unsigned char *next_half(const head *d, size_t h, size_t last, size_t first, size_t end) {
    const mica_paged *k = d->k;
    bool turn = h + 1 == last; // on to the next step
    if (turn && d->p1 >= end) return NULL;
    int32_t page = mica_paged_page(k, d->s->b, turn ? d->p1 : d->p0);
    return page < 0 ? NULL : mica_paged_half(k, page, turn ? first : h + 1, 0);
}

void mica_paged_decode(const mica_paged *k, const mica_paged_part *s, size_t group, size_t chunk,
                       unsigned char *scratch) {
    work w;
    place(k, scratch, s->n, &w);
    size_t first = group * k->heads, last = MICA_MIN(first + k->heads, k->Hkv), R = s->n * k->G;
    size_t packed = mica_cpu_head_pad(k->Dh) * (k->codes ? sizeof(float) : k->isa->pack_size[k->dtype]);
    size_t begin = (s->first_chunk + chunk) * s->chunk, end = MICA_MIN(begin + s->chunk, s->kv_len);
    size_t seen = mica_paged_first_seen(k, mica_paged_position(s, 0));
    if (k->append) append_own(k, s, first, last, begin, end, w.row);
    unsigned char *q = w.q;
    for (size_t h = first; h < last; h++)
        for (size_t t = 0; t < s->n; t++) 
            q = mica_paged_pack_queries(k, k->codes ? pack_for_codes : pack_query, packed, s->start + t, h, q, w.row);
    for (size_t i = 0; i < (last - first) * R; i++) w.m[i] = -INFINITY, w.l[i] = 0;
    memset(w.acc, 0, (last - first) * R * k->Dh * sizeof(float));
    for (size_t p = MICA_MAX(begin, seen / STEP * STEP); p < end; p += STEP)
        for (size_t h = first; h < last; h++) {
            size_t at = (h - first) * R;
            head d = {.k = k, .s = s, .R = R, .p0 = p, .p1 = MICA_MIN(p + STEP, end), .q = w.q + at * packed,
                      .scores = w.s, .m = w.m + at, .l = w.l + at, .acc = w.acc + at * k->Dh};
            step(&d, h, next_half(&d, h, last, first, end));
        }
    finish(k, s, group, first, last, chunk, &w);
}
