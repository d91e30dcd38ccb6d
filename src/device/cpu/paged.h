// SPDX-License-Identifier: Apache-2.0
// Attention over a paged cache: what its parts share. pool [n_pages, L, Hkv, 2, P, Dh] holds keys (0) and values (1), so
// that all a page has of a few neighbouring heads of a layer is one stretch of memory; a sequence is a row of `table`
// [B, max_pages] (position p lives in page table[p / P], slot p % P; -1 = released or absent) and of `meta` [B, 4] =
// {first row of its tokens among the N packed ones, tokens, positions in the cache after this append, 0}.
// An i8 pool [n_pages, L, Hkv, 2, P, Dh + 4] holds, in place of P rows, their 8-bit codes [P, Dh] and then their scales,
// f32 [P]: keys and values are scale * code.
//   paged_append.c   writes keys and values of new tokens
//   paged_decode.c   few tokens of a sequence: chunks of positions, merged in order
//   paged_prefill.c  many: blocks of queries against packed blocks of keys (flash.h)
//   op_paged.c       the ops: cutting into tasks
#ifndef MICA_DEVICE_CPU_PAGED_H
#define MICA_DEVICE_CPU_PAGED_H

#include "device/cpu/walk.h"
#include <stdatomic.h>

enum {
    MICA_PAGED_FEW = 8,     // tokens of a sequence up to which the decode way is faster
    MICA_PAGED_CHUNKS = 16, // most chunks of positions (one more where they start in the middle of one)
};

/** A tensor [N, heads, Dh], or none (data NULL), with what turns its rows into what attention sees. */
typedef struct mica_paged_rows {
    mica_tensor x;
    const float *norm; // [Dh]; NULL = not normed
    bool rotated;
} mica_paged_rows;

/** A run of a sequence's tokens that is handled in one way. */
typedef struct mica_paged_part {
    size_t b;                 // row of meta and table
    size_t start, n, kv_len;  // rows of q; positions up to the last of its tokens
    size_t first_task, tasks; // tasks of one group of heads: chunks (decode) or blocks of queries (prefill)
    size_t chunk, first_chunk; // decode: positions of a chunk, number of the first one that is seen
    size_t token;             // decode: its first row in `partial`
    bool few;
} mica_paged_part;

typedef struct mica_paged {
    const mica_call *c;
    const mica_cpu_rows_isa *isa;
    mica_paged_rows q, k, v;
    const mica_tensor *pool, *meta, *table, *rope;
    unsigned char *out;
    size_t N, H, Hkv, G, Dh, B, P, pages, max_pages, size; // size: bytes of an element of q
    size_t layer, layers, window, dims;
    bool codes;    // the pool is i8
    size_t row;    // bytes of a row in the pool, without its scale
    size_t half;   // bytes of the keys, and of the values, of one head of a page
    size_t heads;  // KV heads of a decode task
    size_t tokens; // queries of a prefill task
    float scale, eps;
    mica_dtype dtype;          // of q
    bool append;               // tasks of decoding write the new keys and values that they come across
    mica_paged_part *parts;    // [2 * B]
    size_t part_count;
    float *partial;            // [min(N, FEW * B), H, CHUNKS + 1, Dh + 2]: m, l, acc
    _Atomic uint32_t *left;    // [2 * B, Hkv] chunks not yet done
    size_t thread_bytes;
    unsigned char *thread_scratch;
} mica_paged;

static inline const int32_t *mica_paged_meta(const mica_paged *k, size_t b) {
    return (const int32_t *)(const void *)k->meta->data + (int64_t)b * k->meta->stride[0];
}

/** Page of a position; -1 if there is none. */
static inline int32_t mica_paged_page(const mica_paged *k, size_t b, size_t position) {
    size_t i = position / k->P;
    const mica_tensor *t = k->table;
    if (i >= k->max_pages) return -1;
    int32_t page = ((const int32_t *)(const void *)t->data)[(int64_t)b * t->stride[0] + (int64_t)i * t->stride[1]];
    return page >= 0 && (size_t)page < k->pages ? page : -1;
}

/** The keys (kv 0) or values (1) of head h in a page. */
static inline unsigned char *mica_paged_half(const mica_paged *k, int32_t page, size_t h, size_t kv) {
    return k->pool->data + ((((size_t)page * k->layers + k->layer) * k->Hkv + h) * 2 + kv) * k->half;
}

/** The P scales at the end of a half of codes. */
static inline float *mica_paged_scales(const mica_paged *k, unsigned char *half) {
    return (float *)(void *)(half + k->P * k->Dh);
}

/** Positions of one run: from p up to `end`, but not past the end of p's page. */
static inline size_t mica_paged_run(const mica_paged *k, size_t p, size_t end) {
    return MICA_MIN(k->P - p % k->P, end - p);
}

static inline size_t mica_paged_position(const mica_paged_part *s, size_t token) { return s->kv_len - s->n + token; }

static inline size_t mica_paged_first_seen(const mica_paged *k, size_t position) {
    return k->window && position + 1 > k->window ? position + 1 - k->window : 0;
}

typedef void mica_paged_pack_fn(const mica_paged *k, void *packed, const void *x);
/** The G queries of KV head kv of token i, packed `step` bytes apart; returns where the next may go. `row`, here and below: memory of
 * 2 * Dh floats. */
unsigned char *mica_paged_pack_queries(const mica_paged *k, mica_paged_pack_fn *pack, size_t step, size_t i, size_t kv,
                                       unsigned char *packed, void *row);
/** Writes keys and values of row i of sequence b for heads [h, end) at a position; nothing if its page is absent. */
void mica_paged_write(const mica_paged *k, size_t b, size_t i, size_t position, size_t h, size_t end, void *row);
/** All rows of all sequences. */
void mica_paged_append_all(const mica_paged *k);

/** Chunk size for a token that sees `span` positions: a function of this alone, so that a token's chunks do not depend
 * on the tokens beside it. */
size_t mica_paged_chunk(size_t span);
size_t mica_paged_decode_bytes(const mica_paged *k);
void mica_paged_decode(const mica_paged *k, const mica_paged_part *s, size_t group, size_t chunk, unsigned char *scratch);
size_t mica_paged_prefill_bytes(const mica_paged *k);
void mica_paged_prefill(const mica_paged *k, const mica_paged_part *s, size_t kv, size_t block, unsigned char *scratch);
#endif
