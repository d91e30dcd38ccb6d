// SPDX-License-Identifier: Apache-2.0
// The ops on a paged cache (layout: paged.h), and how they are cut into tasks: by shapes and lengths alone.
//   kv_append        writes k, v [N, Hkv, Dh] in place; a write to an absent page is skipped
//   paged_attention  q [N, H, Dh] -> [N, H, Dh]; a token sees positions max(0, pos - window + 1) … pos of its sequence
//                    (window 0 = all); absent pages count as hidden; rows of no sequence, and queries that see nothing,
//                    give zeros
// Sequences with few new tokens go the way of decoding, unless the call asks for rows as if they were many.
//   cache_attention  Q/K norm and rotation (each if given), kv_append and paged_attention in one: the same bits
// A row depends on its own sequence alone.
#include "device/cpu/paged.h"
#include "device/cpu/flash.h"
#include "device/cpu/rows_kernels.h"
#include <assert.h>
#include <string.h>

static void set_pool(mica_paged *k, const mica_tensor *pool, const mica_tensor *meta, const mica_tensor *table) {
    const mica_call *c = k->c;
    k->isa = &mica_cpu_isa_of(c)->rows;
    k->pool = pool, k->meta = meta, k->table = table;
    k->pages = (size_t)pool->shape[0], k->layers = (size_t)pool->shape[1], k->Hkv = (size_t)pool->shape[2];
    k->codes = pool->dtype == MICA_I8;
    k->P = (size_t)pool->shape[4], k->Dh = (size_t)pool->shape[5] - (k->codes ? sizeof(float) : 0);
    k->row = k->Dh * mica_dtype_size(pool->dtype);
    k->half = k->P * (k->row + (k->codes ? sizeof(float) : 0));
    k->B = (size_t)meta->shape[0], k->max_pages = (size_t)table->shape[1];
    k->layer = (size_t)c->params->paged.layer;
    assert(pool->ndim == 6 && pool->shape[3] == 2 && k->layer < k->layers && k->P);
    assert(mica_cpu_is_short(pool->dtype) || (k->codes && k->P * k->Dh % sizeof(float) == 0));
}

static void set_queries(mica_paged *k, const mica_tensor *q) {
    enum { RUN = 32768 }; // bytes that a task reads in one stretch, or one head's
    const mica_call *c = k->c;
    k->q = (mica_paged_rows){.x = *q};
    k->dtype = q->dtype, k->size = mica_dtype_size(q->dtype);
    k->N = (size_t)q->shape[0], k->H = (size_t)q->shape[1], k->out = c->out.data;
    k->scale = c->params->paged.scale, k->window = (size_t)MICA_MAX(c->params->paged.window, 0);
    assert(q->ndim == 3 && mica_cpu_is_short(q->dtype) && (size_t)q->shape[2] == k->Dh && k->Hkv && k->H % k->Hkv == 0);
    k->G = k->H / k->Hkv;
    k->tokens = mica_flash_tokens(k->G);
    size_t most = MICA_MAX(RUN / MICA_MAX(2 * k->half, (size_t)1), (size_t)1), runs = (k->Hkv + most - 1) / most;
    k->heads = (k->Hkv + runs - 1) / runs;
}

// ---- kv_append ----
static mica_paged append_of(const mica_call *c) {
    mica_paged k = {.c = c, .k = {.x = c->in[1]}, .v = {.x = c->in[2]}};
    set_pool(&k, &c->in[0], &c->in[3], &c->in[4]);
    k.dtype = c->in[1].dtype, k.size = mica_dtype_size(k.dtype), k.N = (size_t)c->in[1].shape[0];
    k.thread_bytes = mica_walk_round(2 * k.Dh * sizeof(float));
    k.thread_scratch = c->scratch;
    return k;
}

void mica_cpu_kv_append(const mica_call *c) {
    mica_paged k = append_of(c);
    assert(c->out.data == k.pool->data);
    mica_paged_append_all(&k);
}

size_t mica_cpu_append_scratch(const mica_call *c) {
    return append_of(c).thread_bytes * mica_pool_threads(mica_cpu_pool(c));
}

// ---- attention ----
// Places the parts of the scratch memory; returns its size. base NULL: only the size.
static size_t place(mica_paged *k, unsigned char *base) {
    size_t parts = mica_walk_round(2 * k->B * sizeof(mica_paged_part));
    size_t left = mica_walk_round(2 * k->B * k->Hkv * sizeof(uint32_t));
    size_t rows = MICA_MIN(k->N, MICA_PAGED_FEW * k->B) * k->H;
    size_t partial = mica_walk_round(rows * (MICA_PAGED_CHUNKS + 1) * (k->Dh + 2) * sizeof(float));
    k->thread_bytes = MICA_MAX(mica_paged_prefill_bytes(k), mica_paged_decode_bytes(k));
    if (base) {
        k->parts = (mica_paged_part *)(void *)base;
        k->left = (_Atomic uint32_t *)(void *)(base + parts);
        k->partial = (float *)(void *)(base + parts + left);
        k->thread_scratch = base + parts + left + partial;
    }
    return parts + left + partial + k->thread_bytes * mica_pool_threads(mica_cpu_pool(k->c));
}

static size_t chunk_of(const mica_paged *k, size_t position) {
    return mica_paged_chunk(position + 1 - mica_paged_first_seen(k, position));
}

static size_t groups(const mica_paged *k, const mica_paged_part *s) {
    return s->few ? (k->Hkv + k->heads - 1) / k->heads : k->Hkv;
}

static void add_part(mica_paged *k, mica_paged_part s, size_t *tasks, size_t *token) {
    mica_paged_part *to = &k->parts[k->part_count];
    s.first_task = *tasks;
    if (s.few) {
        size_t position = mica_paged_position(&s, 0);
        s.chunk = chunk_of(k, position), s.first_chunk = mica_paged_first_seen(k, position) / s.chunk;
        s.tasks = (s.kv_len + s.chunk - 1) / s.chunk - s.first_chunk;
        s.token = *token, *token += s.n;
        for (size_t g = 0; g < groups(k, &s); g++)
            atomic_init(&k->left[k->part_count * k->Hkv + g], (uint32_t)s.tasks);
    } else
        s.tasks = (s.n + k->tokens - 1) / k->tokens;
    *to = s;
    k->part_count++;
    *tasks += s.tasks * groups(k, &s);
}

// How a sequence is cut depends on its own lengths alone; few tokens, on the position of each: where the size of chunks
// changes between two of them, they become two parts.
static void add_sequence(mica_paged *k, mica_paged_part s, size_t *tasks, size_t *token) {
    s.few = s.n <= MICA_PAGED_FEW && !k->c->rows_many;
    if (s.few) {
        size_t t = 1, chunk = chunk_of(k, mica_paged_position(&s, 0));
        while (t < s.n && chunk_of(k, mica_paged_position(&s, t)) == chunk) t++;
        if (t < s.n) {
            mica_paged_part early = s;
            early.n = t, early.kv_len = s.kv_len - (s.n - t);
            add_part(k, early, tasks, token);
            s.start += t, s.n -= t;
        }
    }
    add_part(k, s, tasks, token);
}

// Fills k->parts; returns the number of tasks. Rows of q that no sequence has are cleared.
static size_t plan(mica_paged *k) {
    size_t tasks = 0, token = 0, covered = 0, row = k->H * k->Dh * k->size;
    bool packed = true;
    for (size_t b = 0; b < k->B; b++) {
        const int32_t *m = mica_paged_meta(k, b);
        if (m[1] <= 0 || m[2] < m[1] || m[0] < 0) continue;
        mica_paged_part s = {.b = b, .start = (size_t)m[0], .n = (size_t)m[1], .kv_len = (size_t)m[2]};
        assert(s.start + s.n <= k->N && s.kv_len <= k->max_pages * k->P);
        packed = packed && s.start == covered;
        covered += s.n;
        add_sequence(k, s, &tasks, &token);
    }
    if (packed)
        memset(k->out + covered * row, 0, (k->N - covered) * row);
    else
        memset(k->out, 0, k->N * row);
    return tasks;
}

static void paged_task(void *ctx, size_t task, size_t thread) {
    const mica_paged *k = ctx;
    size_t lo = 0, hi = k->part_count; // the last part whose first task is not after this one
    while (hi - lo > 1) {
        size_t middle = (lo + hi) / 2;
        if (k->parts[middle].first_task <= task)
            lo = middle;
        else
            hi = middle;
    }
    const mica_paged_part *s = &k->parts[lo];
    size_t index = task - s->first_task;
    unsigned char *scratch = k->thread_scratch + thread * k->thread_bytes;
    if (s->few)
        mica_paged_decode(k, s, index / s->tasks, index % s->tasks, scratch);
    else
        mica_paged_prefill(k, s, index / s->tasks, index % s->tasks, scratch);
}

// New tokens enter the cache on the way where every part reads its own only; else all of them first.
static bool appends_on_the_way(const mica_paged *k) {
    for (size_t i = 0; i < k->part_count; i++)
        if (!k->parts[i].few || (i && k->parts[i].b == k->parts[i - 1].b)) return false;
    return true;
}

static void run(mica_paged *k) {
    if (!k->N || !k->H || !k->Dh) return;
    place(k, k->c->scratch);
    size_t tasks = plan(k);
    if (k->k.x.data) {
        k->append = appends_on_the_way(k);
        if (!k->append) mica_paged_append_all(k);
    }
    mica_pool_run(mica_cpu_pool(k->c), tasks, paged_task, k);
}

static mica_paged paged_of(const mica_call *c) {
    mica_paged k = {.c = c};
    set_pool(&k, &c->in[1], &c->in[2], &c->in[3]);
    set_queries(&k, &c->in[0]);
    assert(k.codes || k.pool->dtype == k.dtype);
    return k;
}

void mica_cpu_paged_attention(const mica_call *c) {
    mica_paged k = paged_of(c);
    run(&k);
}

size_t mica_cpu_paged_scratch(const mica_call *c) {
    mica_paged k = paged_of(c);
    return place(&k, NULL);
}

// ---- cache_attention: q, pool, meta, table, k, v, rope?, q_norm?, k_norm? ----
static const mica_tensor *given(const mica_call *c, int i) { return i < c->inputs && c->in[i].data ? &c->in[i] : NULL; }

static mica_paged fused_of(const mica_call *c) {
    mica_paged k = paged_of(c);
    const mica_tensor *rope = given(c, 6), *q_norm = given(c, 7), *k_norm = given(c, 8);
    k.k.x = c->in[4], k.v.x = c->in[5];
    k.rope = rope, k.dims = rope ? (size_t)rope->shape[2] : 0;
    k.q.rotated = k.k.rotated = rope != NULL;
    k.q.norm = q_norm ? (const float *)(const void *)q_norm->data : NULL;
    k.k.norm = k_norm ? (const float *)(const void *)k_norm->data : NULL;
    k.eps = c->params->paged.eps;
    return k;
}

void mica_cpu_cache_attention(const mica_call *c) {
    mica_paged k = fused_of(c);
    run(&k);
}

size_t mica_cpu_cache_scratch(const mica_call *c) {
    mica_paged k = fused_of(c);
    return place(&k, NULL);
}
