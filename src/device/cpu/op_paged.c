// SPDX-License-Identifier: Apache-2.0
// Attention over a paged cache. pool [n_pages, L, 2, Hkv, P, Dh] holds keys (0) and values (1); a sequence is a row of
// `table` [B, max_pages] (position p lives in page table[p / P], slot p % P; -1 = released or absent) and of `meta` [B,
// 4] = {first row of its tokens among the N packed ones, tokens, positions in the cache after this append, 0}.
//   kv_append writes k, v [N, Hkv, Dh] in place; a write to an absent page is skipped.
//   paged_attention: q [N, H, Dh] -> [N, H, Dh]; a token sees positions max(0, pos - window + 1) … pos of its sequence
//   (window 0 = all); absent pages count as hidden; rows of no sequence, and queries that see nothing, give zeros.
// Two ways through it. Up to FEW tokens (decode): work is split along positions into chunks, each chunk leaves
// (maximum, sum, values), and the last chunk of a head to finish merges them in order of position. More (prefill):
// blocks of queries against packed blocks of keys (flash.h). Either way a row depends on its own sequence alone.
#include "device/cpu/flash.h"
#include "device/cpu/rows_kernels.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    FEW = 8, // tokens of a sequence up to which the decode way is faster
    MOST_CHUNKS = 16,
    CHUNK = 256,  // least positions in a chunk: about 10 µs of reading
    STEP = 64,    // positions whose scores are held at once
    SLICE = 2048, // bytes of keys or values handed to a kernel at once, between prefetches (best of 1 … 8 KiB)
};

typedef struct paged {
    const mica_call *c;
    const mica_cpu_rows_isa *isa;
    const mica_tensor *q, *pool, *table;
    size_t N, H, Hkv, G, Dh, B, P, pages, max_pages, size;
    size_t tokens; // queries of a prefill task
    size_t layer, layers, window;
    float scale;
    mica_dtype dtype;
    struct sequence *sequences; // [B]
    float *partial;             // [min(N, FEW * B), H, MOST_CHUNKS + 1, Dh + 2]: m, l, acc
    _Atomic uint32_t *left;     // [B, Hkv] chunks not yet done
    size_t thread_bytes;
    unsigned char *thread_scratch;
} paged;

typedef struct sequence {
    size_t b;                  // row of meta and table
    size_t start, n, kv_len;   // rows of q; positions
    size_t first_task, tasks;  // tasks of one KV head: chunks (decode) or blocks of queries (prefill)
    size_t chunk, first_chunk; // decode: positions of a chunk, number of the first one that is seen
    size_t token;              // decode: its first row in `partial`
} sequence;

static const int32_t *meta_row(const mica_tensor *meta, size_t b) {
    return (const int32_t *)(const void *)meta->data + (int64_t)b * meta->stride[0];
}

// Page of a position; -1 if there is none.
static int32_t page_of(const mica_tensor *table, size_t pages, size_t P, size_t b, size_t position) {
    size_t i = position / P;
    if (i >= (size_t)table->shape[1]) return -1;
    int32_t page =
        ((const int32_t *)(const void *)table->data)[(int64_t)b * table->stride[0] + (int64_t)i * table->stride[1]];
    return page >= 0 && (size_t)page < pages ? page : -1;
}

// ---- kv_append ----
typedef struct append {
    const mica_call *c;
    size_t Hkv, Dh, P, pages, layers, layer, N;
} append;

// The sequence that row `i` belongs to and its position there; false if none.
static bool find_token(const append *k, size_t i, size_t *b, size_t *position) {
    const mica_tensor *meta = &k->c->in[3];
    for (*b = 0; *b < (size_t)meta->shape[0]; ++*b) {
        const int32_t *m = meta_row(meta, *b);
        if ((int64_t)i < m[0] || (int64_t)i >= (int64_t)m[0] + m[1]) continue;
        *position = (size_t)(m[2] - m[1]) + i - (size_t)m[0];
        return m[2] >= m[1];
    }
    return false;
}

static void append_head(const append *k, const mica_tensor *x, size_t i, size_t h, void *to) {
    mica_dtype from = x->dtype, pool = k->c->in[0].dtype;
    size_t size = mica_dtype_size(from);
    const mica_cpu_rows_isa *isa = &mica_cpu_isa_of(k->c)->rows;
    const unsigned char *a = x->data + ((int64_t)i * x->stride[0] + (int64_t)h * x->stride[1]) * (int64_t)size;
    if (from == pool) {
        mica_walk_gather(to, a, (ptrdiff_t)x->stride[2], k->Dh, size);
        return;
    }
    for (size_t d = 0; d < k->Dh; d++) { // a cache of another type: rare, element by element
        float f;
        isa->to_f32[from](&f, a + (int64_t)d * x->stride[2] * (int64_t)size, 1);
        isa->from_f32[pool]((unsigned char *)to + d * mica_dtype_size(pool), &f, 1);
    }
}

static void append_some(void *ctx, size_t first, size_t end, size_t thread) {
    (void)thread;
    const append *k = ctx;
    size_t size = mica_dtype_size(k->c->in[0].dtype);
    for (size_t i = first; i < end; i++) {
        size_t b, position;
        if (!find_token(k, i, &b, &position)) continue;
        int32_t page = page_of(&k->c->in[4], k->pages, k->P, b, position);
        if (page < 0) continue;
        for (size_t kv = 0; kv < 2; kv++)
            for (size_t h = 0; h < k->Hkv; h++) {
                size_t row = ((((size_t)page * k->layers + k->layer) * 2 + kv) * k->Hkv + h) * k->P + position % k->P;
                append_head(k, &k->c->in[1 + kv], i, h, k->c->out.data + row * k->Dh * size);
            }
    }
}

void mica_cpu_kv_append(const mica_call *c) {
    enum { TASK_ELEMENTS = 16384 };
    const mica_tensor *pool = &c->in[0];
    assert(c->out.data == pool->data && pool->ndim == 6 && mica_cpu_is_short(pool->dtype));
    append k = {.c = c,
                .pages = (size_t)pool->shape[0],
                .layers = (size_t)pool->shape[1],
                .Hkv = (size_t)pool->shape[3],
                .P = (size_t)pool->shape[4],
                .Dh = (size_t)pool->shape[5],
                .layer = (size_t)c->params->paged.layer,
                .N = (size_t)c->in[1].shape[0]};
    assert(k.layer < k.layers && k.P);
    mica_walk_range(c, k.N, TASK_ELEMENTS / MICA_MAX(k.Hkv * k.Dh, (size_t)1), append_some, &k);
}

// ---- paged_attention: reading the cache ----
static const unsigned char *cache_row(const paged *k, int32_t page, size_t kv, size_t h, size_t slot) {
    size_t row = ((((size_t)page * k->layers + k->layer) * 2 + kv) * k->Hkv + h) * k->P + slot;
    return k->pool->data + row * k->Dh * k->size;
}

static const unsigned char *query_row(const paged *k, size_t i, size_t h) {
    return k->q->data + ((int64_t)i * k->q->stride[0] + (int64_t)h * k->q->stride[1]) * (int64_t)k->size;
}

static size_t position_of(const sequence *s, size_t token) { return s->kv_len - s->n + token; }

static size_t first_seen(const paged *k, size_t position) {
    return k->window && position + 1 > k->window ? position + 1 - k->window : 0;
}

// Positions of one run: from p up to `end`, but not past the end of p's page.
static size_t run_length(const paged *k, size_t p, size_t end) { return MICA_MIN(k->P - p % k->P, end - p); }

static void pack_token(const paged *k, size_t i, size_t kv, unsigned char *packed, unsigned char *row) {
    size_t step = mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype];
    for (size_t g = 0; g < k->G; g++) {
        const unsigned char *x = query_row(k, i, kv * k->G + g);
        if (k->q->stride[2] != 1) {
            mica_walk_gather(row, x, (ptrdiff_t)k->q->stride[2], k->Dh, k->size);
            x = row;
        }
        k->isa->pack_query[k->dtype](packed + g * step, x, k->Dh);
    }
}

// ---- decode ----
typedef struct decode_work {
    unsigned char *q, *row; // packed [FEW * G, Dp]; one query
    float *s;               // [FEW * G, STEP] scores, then weights
    float *m, *l, *acc;     // [FEW * G], [FEW * G], [FEW * G, Dh]
} decode_work;

static size_t decode_place(const paged *k, unsigned char *base, decode_work *w) {
    size_t R = FEW * k->G, q = mica_walk_round(R * mica_cpu_head_pad(k->Dh) * sizeof(float));
    size_t row = mica_walk_round(k->Dh * sizeof(float)), s = R * STEP * sizeof(float),
           m = mica_walk_round(R * sizeof(float));
    *w = (decode_work){0};
    if (base) {
        *w = (decode_work){.q = base, .row = base + q, .s = (float *)(void *)(base + q + row)};
        w->m = (float *)(void *)(base + q + row + s);
        w->l = (float *)(void *)(base + q + row + s + m);
        w->acc = (float *)(void *)(base + q + row + s + 2 * m);
    }
    return q + row + s + 2 * m + mica_walk_round(R * k->Dh * sizeof(float));
}

static size_t slice_length(const paged *k, size_t p, size_t end) {
    return MICA_MIN(run_length(k, p, end), MICA_MAX(SLICE / (k->Dh * k->size), (size_t)4));
}

// Keys and values lie in short runs (one head of one page), too short for the processor to foresee: while it works on
// the keys of some positions their values are fetched, and while it works on values, the keys one step ahead.
static void fetch_ahead(const paged *k, const unsigned char *rows, size_t n) {
    for (size_t i = 0; i < n * k->Dh * k->size; i += 64) __builtin_prefetch(rows + i, 0, 2);
}

// Scores of R packed queries with positions [p0, p1); absent pages score -inf.
static void decode_scores(const paged *k, const sequence *s, size_t kv, size_t p0, size_t p1, size_t R,
                          const decode_work *w) {
    for (size_t p = p0, n; p < p1; p += n) {
        n = slice_length(k, p, p1);
        int32_t page = page_of(k->table, k->pages, k->P, s->b, p);
        if (page < 0) {
            for (size_t r = 0; r < R; r++)
                for (size_t j = 0; j < n; j++) w->s[r * STEP + p - p0 + j] = -INFINITY;
            continue;
        }
        fetch_ahead(k, cache_row(k, page, 1, kv, p % k->P), n);
        k->isa->scores[k->dtype](w->s + (p - p0), STEP, w->q, cache_row(k, page, 0, kv, p % k->P), R, n, k->Dh,
                                 k->scale);
    }
}

// Adds the values of positions [p0, p1) by their weights; `end` is where the chunk ends.
static void decode_values(const paged *k, const sequence *s, size_t kv, size_t p0, size_t p1, size_t end,
                          const decode_work *w) {
    for (size_t p = p0, n; p < p1; p += n) {
        n = slice_length(k, p, p1);
        int32_t page = page_of(k->table, k->pages, k->P, s->b, p), next = -1;
        if (p + STEP < end) next = page_of(k->table, k->pages, k->P, s->b, p + STEP);
        if (next >= 0) fetch_ahead(k, cache_row(k, next, 0, kv, (p + STEP) % k->P), slice_length(k, p + STEP, end));
        if (page >= 0)
            k->isa->values[k->dtype](w->acc, w->s + (p - p0), STEP, cache_row(k, page, 1, kv, p % k->P), s->n * k->G, n,
                                     k->Dh);
    }
}

// Hides from each token what lies after it or before its window. A single token sees all of [p0, p1).
static void decode_mask(const paged *k, const sequence *s, size_t p0, size_t p1, const decode_work *w) {
    for (size_t r = 0; s->n > 1 && r < s->n * k->G; r++) {
        size_t position = position_of(s, r / k->G), first = first_seen(k, position);
        for (size_t p = p0; p < p1; p++)
            if (p < first || p > position) w->s[r * STEP + p - p0] = -INFINITY;
    }
}

static void decode_step(const paged *k, const sequence *s, size_t kv, size_t p0, size_t p1, size_t end,
                        const decode_work *w) {
    size_t R = s->n * k->G;
    decode_scores(k, s, kv, p0, p1, R, w);
    decode_mask(k, s, p0, p1, w);
    for (size_t r = 0; r < R; r++) {
        float old = w->m[r], sum = k->isa->weights[k->dtype](w->s + r * STEP, p1 - p0, &w->m[r]);
        if (old == w->m[r] || old == -INFINITY) { // nothing to scale: no values yet, or the maximum stands
            w->l[r] += sum;
            continue;
        }
        float scale = expf(old - w->m[r]);
        w->l[r] = w->l[r] * scale + sum;
        k->isa->scale[MICA_F32](w->acc + r * k->Dh, w->acc + r * k->Dh, scale, k->Dh);
    }
    decode_values(k, s, kv, p0, p1, end, w);
}

static float *partial_of(const paged *k, const sequence *s, size_t token, size_t h, size_t chunk) {
    return k->partial + (((s->token + token) * k->H + h) * (MOST_CHUNKS + 1) + chunk) * (k->Dh + 2);
}

static void write_output(const paged *k, const sequence *s, size_t token, size_t h, float *acc, float m, float l) {
    k->isa->scale[MICA_F32](acc, acc, m == -INFINITY ? 0.0f : 1.0f / l, k->Dh);
    size_t row = (s->start + token) * k->H + h;
    k->isa->from_f32[k->dtype](k->c->out.data + row * k->Dh * k->size, acc, k->Dh);
}

// All chunks of one token and head into the first, in order of position; then out.
static void merge_chunks(const paged *k, const sequence *s, size_t token, size_t h) {
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

static void finish_chunk(const paged *k, const sequence *s, size_t kv, size_t chunk, const decode_work *w) {
    for (size_t r = 0; r < s->n * k->G; r++) {
        size_t token = r / k->G, h = kv * k->G + r % k->G;
        if (s->tasks == 1) {
            write_output(k, s, token, h, w->acc + r * k->Dh, w->m[r], w->l[r]);
            continue;
        }
        float *to = partial_of(k, s, token, h, chunk);
        to[0] = w->m[r], to[1] = w->l[r];
        memcpy(to + 2, w->acc + r * k->Dh, k->Dh * sizeof(float));
    }
    if (s->tasks == 1 || atomic_fetch_sub(&k->left[s->b * k->Hkv + kv], 1) != 1) return;
    for (size_t r = 0; r < s->n * k->G; r++) merge_chunks(k, s, r / k->G, kv * k->G + r % k->G);
}

static void decode_task(const paged *k, const sequence *s, size_t kv, size_t chunk, unsigned char *scratch) {
    decode_work w;
    decode_place(k, scratch, &w);
    size_t R = s->n * k->G, packed = k->G * mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype];
    size_t begin = (s->first_chunk + chunk) * s->chunk, end = MICA_MIN(begin + s->chunk, s->kv_len);
    for (size_t t = 0; t < s->n; t++) pack_token(k, s->start + t, kv, w.q + t * packed, w.row);
    for (size_t r = 0; r < R; r++) w.m[r] = -INFINITY, w.l[r] = 0;
    memset(w.acc, 0, R * k->Dh * sizeof(float));
    begin = MICA_MAX(begin, first_seen(k, position_of(s, 0)));
    for (size_t p = begin; p < end; p += STEP) decode_step(k, s, kv, p, MICA_MIN(p + STEP, end), end, &w);
    finish_chunk(k, s, kv, chunk, &w);
}

// ---- prefill ----
// Packs keys and values at positions [from, end) of the block that begins at `first` and marks absent pages in the
// bias; returns whether there are any.
static bool pack_block(const paged *k, const sequence *s, size_t kv, size_t first, size_t from, size_t end, size_t R,
                       const mica_flash_work *w) {
    bool holes = false;
    size_t bytes = MICA_CPU_KEYS * mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype];
    for (size_t p = from; p < end; p += run_length(k, p, end))
        holes = holes || page_of(k->table, k->pages, k->P, s->b, p) < 0;
    if (holes || end - from < MICA_CPU_KEYS) memset(w->k, 0, bytes), memset(w->v, 0, bytes);
    if (holes) memset(w->bias, 0, R * MICA_CPU_KEYS * sizeof(float));
    for (size_t p = from, n; p < end; p += n) {
        n = run_length(k, p, end);
        int32_t page = page_of(k->table, k->pages, k->P, s->b, p);
        if (page < 0) {
            for (size_t r = 0; r < R; r++)
                for (size_t j = 0; j < n; j++) w->bias[r * MICA_CPU_KEYS + p - first + j] = -INFINITY;
            continue;
        }
        size_t slot = p % k->P;
        k->isa->pack_keys[k->dtype](w->k, cache_row(k, page, 0, kv, slot), (ptrdiff_t)k->Dh, p - first, n, k->Dh);
        k->isa->pack_values[k->dtype](w->v, cache_row(k, page, 1, kv, slot), (ptrdiff_t)k->Dh, p - first, n, k->Dh);
    }
    return holes;
}

static void prefill_task(const paged *k, const sequence *s, size_t kv, size_t block, unsigned char *scratch) {
    size_t first = block * k->tokens, tokens = MICA_MIN(k->tokens, s->n - first), R = tokens * k->G;
    mica_flash_work w = mica_flash_place(scratch, k->tokens * k->G, k->Dh);
    size_t packed = k->G * mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype];
    for (size_t t = 0; t < tokens; t++) pack_token(k, s->start + first + t, kv, w.q + t * packed, w.row);
    mica_flash_start(&w, R, k->Dh);
    size_t seen = first_seen(k, position_of(s, first)), end = position_of(s, first + tokens - 1) + 1;
    for (size_t p = seen / MICA_CPU_KEYS * MICA_CPU_KEYS; p < end; p += MICA_CPU_KEYS) {
        size_t n = MICA_MIN(end - p, (size_t)MICA_CPU_KEYS);
        for (size_t r = 0; r < R; r++) {
            size_t position = position_of(s, first + r / k->G), lo = first_seen(k, position);
            w.lo[r] = (int32_t)MICA_MIN(lo > p ? lo - p : 0, n);
            w.hi[r] = (int32_t)MICA_MIN(position + 1 > p ? position + 1 - p : 0, n);
        }
        // Positions before the first query's window may be gone from the cache, and nobody looks at them.
        size_t from = MICA_MAX(p, seen);
        bool holes = pack_block(k, s, kv, p, from, p + n, R, &w);
        mica_flash_add(k->isa, k->dtype, &w, R, k->Dh, k->scale, holes);
    }
    for (size_t r = 0; r < R; r++) {
        size_t row = (s->start + first + r / k->G) * k->H + kv * k->G + r % k->G;
        mica_flash_finish(k->isa, k->dtype, &w, r, k->Dh, k->c->out.data + row * k->Dh * k->size);
    }
}

// ---- the call ----
static paged paged_of(const mica_call *c) {
    const mica_tensor *q = &c->in[0], *pool = &c->in[1];
    assert(q->ndim == 3 && pool->ndim == 6 && pool->dtype == q->dtype && mica_cpu_is_short(q->dtype));
    paged k = {.c = c,
               .isa = &mica_cpu_isa_of(c)->rows,
               .q = q,
               .pool = pool,
               .table = &c->in[3],
               .dtype = q->dtype,
               .size = mica_dtype_size(q->dtype),
               .N = (size_t)q->shape[0],
               .H = (size_t)q->shape[1],
               .Dh = (size_t)q->shape[2],
               .pages = (size_t)pool->shape[0],
               .layers = (size_t)pool->shape[1],
               .Hkv = (size_t)pool->shape[3],
               .P = (size_t)pool->shape[4],
               .B = (size_t)c->in[2].shape[0],
               .max_pages = (size_t)c->in[3].shape[1],
               .scale = c->params->paged.scale,
               .layer = (size_t)c->params->paged.layer,
               .window = (size_t)MICA_MAX(c->params->paged.window, 0)};
    assert(k.Hkv && k.H % k.Hkv == 0 && k.layer < k.layers && pool->shape[5] == q->shape[2] && k.P);
    k.G = k.H / k.Hkv;
    k.tokens = mica_flash_tokens(k.G);
    return k;
}

// Places the parts of the scratch memory; returns its size. base NULL: only the size.
static size_t place(paged *k, unsigned char *base) {
    size_t sequences = mica_walk_round(k->B * sizeof(sequence)),
           left = mica_walk_round(k->B * k->Hkv * sizeof(uint32_t));
    size_t rows = MICA_MIN(k->N, FEW * k->B) * k->H;
    size_t partial = mica_walk_round(rows * (MOST_CHUNKS + 1) * (k->Dh + 2) * sizeof(float));
    decode_work w;
    k->thread_bytes = MICA_MAX(mica_flash_bytes(k->tokens * k->G, k->Dh), decode_place(k, NULL, &w));
    if (base) {
        k->sequences = (sequence *)(void *)base;
        k->left = (_Atomic uint32_t *)(void *)(base + sequences);
        k->partial = (float *)(void *)(base + sequences + left);
        k->thread_scratch = base + sequences + left + partial;
    }
    return sequences + left + partial + k->thread_bytes * mica_pool_threads(mica_cpu_pool(k->c));
}

// How a sequence is cut depends on its own lengths alone.
static void plan_sequence(const paged *k, sequence *s, size_t *token) {
    if (s->n > FEW) {
        s->tasks = (s->n + k->tokens - 1) / k->tokens;
        return;
    }
    size_t seen = first_seen(k, position_of(s, 0)), share = (s->kv_len - seen + MOST_CHUNKS - 1) / MOST_CHUNKS;
    s->chunk = MICA_MAX((share + 63) / 64 * 64, (size_t)CHUNK);
    s->first_chunk = seen / s->chunk;
    s->tasks = (s->kv_len + s->chunk - 1) / s->chunk - s->first_chunk;
    s->token = *token;
    *token += s->n;
    for (size_t kv = 0; kv < k->Hkv; kv++) atomic_init(&k->left[s->b * k->Hkv + kv], (uint32_t)s->tasks);
}

// Fills k->sequences; returns the number of tasks. Rows of q that no sequence has are cleared.
static size_t plan(const paged *k) {
    size_t tasks = 0, token = 0, covered = 0, row = k->H * k->Dh * k->size;
    bool packed = true;
    for (size_t b = 0; b < k->B; b++) {
        const int32_t *m = meta_row(&k->c->in[2], b);
        bool empty = m[1] <= 0 || m[2] < m[1] || m[0] < 0;
        sequence *s = &k->sequences[b];
        *s = (sequence){.b = b, .first_task = tasks};
        if (empty) continue;
        s->start = (size_t)m[0], s->n = (size_t)m[1], s->kv_len = (size_t)m[2];
        assert(s->start + s->n <= k->N && s->kv_len <= k->max_pages * k->P);
        packed = packed && s->start == covered;
        covered += s->n;
        plan_sequence(k, s, &token);
        tasks += s->tasks * k->Hkv;
    }
    if (packed)
        memset(k->c->out.data + covered * row, 0, (k->N - covered) * row);
    else
        memset(k->c->out.data, 0, k->N * row);
    return tasks;
}

static void paged_task(void *ctx, size_t task, size_t thread) {
    const paged *k = ctx;
    size_t lo = 0, hi = k->B; // the last sequence whose first task is not after this one
    while (hi - lo > 1) {
        size_t middle = (lo + hi) / 2;
        if (k->sequences[middle].first_task <= task)
            lo = middle;
        else
            hi = middle;
    }
    const sequence *s = &k->sequences[lo];
    size_t index = task - s->first_task;
    unsigned char *scratch = k->thread_scratch + thread * k->thread_bytes;
    if (s->n > FEW)
        prefill_task(k, s, index / s->tasks, index % s->tasks, scratch);
    else
        decode_task(k, s, index / s->tasks, index % s->tasks, scratch);
}

void mica_cpu_paged_attention(const mica_call *c) {
    paged k = paged_of(c);
    if (!k.N || !k.H || !k.Dh) return;
    place(&k, c->scratch);
    size_t tasks = k.B ? plan(&k) : 0;
    if (!k.B) memset(c->out.data, 0, k.N * k.H * k.Dh * k.size);
    mica_pool_run(mica_cpu_pool(c), tasks, paged_task, &k);
}

size_t mica_cpu_paged_scratch(const mica_call *c) {
    paged k = paged_of(c);
    return place(&k, NULL);
}
