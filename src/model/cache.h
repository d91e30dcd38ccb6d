// SPDX-License-Identifier: Apache-2.0
// The KV cache: a pool of pages per layer group, reference counted; a sequence is a table of pages. A page holds MICA_PAGE positions of every
// layer of its group (group 0: unbounded layers, group 1: layers with a sliding window). Pages that fall out of the window return to the pool;
// forks share pages and copy the last, partly filled one on write. One cache serves all sequences of a model, from any thread: what pages are
// used is under its lock, what is in them is written by evaluations, of which there is one at a time.
#ifndef MICA_MODEL_CACHE_H
#define MICA_MODEL_CACHE_H

#include "engine/node.h"
#include "io/config.h"
#include <pthread.h>

enum {
    MICA_GROUPS = 2,
    MICA_PAGE = 32,
    MICA_CHUNK = 512, // tokens of one step over a prompt: enough to saturate the matrix kernels, small enough to cancel within
    MICA_ROWS_ALONE = 8,
    MICA_MANY = 128,
};

/** A stretch of MICA_HUGE_PAGE bytes of a pool's address space. */
typedef struct mica_page_block {
    uint32_t used; // pages in use that lie in it, wholly or partly
    bool backed;   // it is memory
} mica_page_block;

typedef struct mica_page_pool {
    mica_array *array;      // kept [most, L, Hkv, 2, P, Dh] (i8: Dh + 4): address space, which neither moves nor changes its shape
    mica_buffer *buffer;    // of the array
    int64_t layers, window; // window 0 = unbounded
    size_t page_bytes;
    int32_t most, pages;    // pages in the address space, and those that `refs` knows
    int32_t used, first_free; // pages in use; none below first_free is free
    uint32_t *refs;         // [pages]
    mica_page_block *blocks; // [blocks of all pages]
    size_t block_count, idle; // idle: backed blocks without a page in use
} mica_page_pool;

typedef struct mica_prefix mica_prefix; // a page of a kept prefix (prefix.h)
typedef struct mica_prefix_pool {
    mica_prefix **buckets, *newest, *oldest;
    size_t bucket_count, count;
    int64_t bytes, most; // of the pages; most: that are kept, 0 = nothing is
} mica_prefix_pool;

typedef struct mica_cache {
    mica_device *device;
    const mica_config *config;
    int64_t kv_heads, head_dim;
    mica_dtype dtype;
    pthread_mutex_t lock;   // of everything below
    mica_page_pool pool[MICA_GROUPS];
    mica_prefix_pool prefixes;
    int64_t budget;         // bytes that pages in use may take; 0 = no limit
} mica_cache;

typedef struct mica_sequence {
    mica_cache *cache;
    int64_t length;              // positions computed
    int64_t rope_length;         // length that dynamic and longrope frequencies are chosen for
    int32_t *pages[MICA_GROUPS]; // page of positions [i*P, (i+1)*P), -1 once released
    size_t count[MICA_GROUPS], capacity[MICA_GROUPS];
    size_t released[MICA_GROUPS]; // leading pages already returned
    // While a prompt is computed (prefix.h):
    const int32_t *prompt;       // NULL: nothing is kept
    size_t prompt_count;
    int64_t exact;               // leading positions that are, bit for bit, those of any prompt that begins so
    struct mica_sequence *spare; // [*spare_count] that are freed before the sequence goes without a page, or NULL
    size_t *spare_count;
    const struct mica_lora_set *adapter; // that its tokens are computed with (lora_set.h), while some are; NULL: none
    uint64_t adapter_number;     // of what is computed: the adapter's number, which stays when it is gone; 0: none
    bool many;                   // what mica_sequence_advance is told of next was computed with rows_many
} mica_sequence;

/** dtype: that of the activations, or MICA_I8: 8-bit codes with one scale for each position and head (device/cpu/paged.h). */
bool mica_cache_init(mica_cache *c, mica_device *d, const mica_config *config, mica_dtype dtype, mica_error *err);
void mica_cache_free(mica_cache *c);
/** Bytes of the pages in use. */
int64_t mica_cache_bytes(mica_cache *c);
/** Whether a sequence of `length` positions can fit the budget at all. */
bool mica_cache_fits(mica_cache *c, int64_t length, mica_error *err);
/** Takes bytes for something else off what the budget leaves; kept prefixes make room for it. The error names `what`. */
bool mica_cache_set_aside(mica_cache *c, int64_t bytes, const char *what, mica_error *err);
void mica_cache_give_back(mica_cache *c, int64_t bytes);
/** Makes room to keep count of one sequence of `length` positions beyond what is in use: taking its pages allocates nothing then. */
bool mica_cache_reserve(mica_cache *c, int64_t length, mica_error *err);

void mica_sequence_init(mica_sequence *q, mica_cache *c);
void mica_sequence_free(mica_sequence *q);
/** An empty sequence is to be computed with an adapter of this network, which outlives its use here; NULL: without. */
void mica_sequence_adapt(mica_sequence *q, const struct mica_lora_set *adapter);
/** Makes room for `tokens` more positions; shared pages that will be written are copied. On failure the sequence is still consistent. */
bool mica_sequence_reserve(mica_sequence *q, int64_t tokens, mica_error *err);
/** An empty sequence gets pages, their contents undefined, as if `length` positions had been computed. On failure it is still to be freed. */
bool mica_sequence_place(mica_sequence *q, int64_t length, mica_error *err);
/** `tokens` reserved positions have been computed: returns the pages that no later token can see. */
void mica_sequence_advance(mica_sequence *q, int64_t tokens);
/** *to (uninitialised) becomes a copy that shares all pages. */
bool mica_sequence_fork(const mica_sequence *from, mica_sequence *to, mica_error *err);
/** Shortens to `length`. False if pages that a window needs there are gone (then unchanged). */
bool mica_sequence_truncate(mica_sequence *q, int64_t length);

/** One forward: packed tokens of several sequences, at the positions after what each has cached. */
typedef struct mica_packed {
    mica_sequence **sequences;
    const int32_t *counts; // tokens of each sequence
    size_t n_sequences;
    const int32_t *ids;    // [N], sequence after sequence
    size_t n;
    const int32_t *rows;   // tokens whose logits are wanted, as indices into ids
    size_t n_rows;
    bool rows_alone;       // each token's result is, bit for bit, what it is if tokens are run one by one: for up to MICA_ROWS_ALONE of a sequence,
                           // and as far as mica_rope_same reaches
    bool rows_many;        // each token's result is, bit for bit, what it is among MICA_MANY tokens or more, of a run that begins anywhere before it
    mica_array **q, **k;   // [layers] each, or NULL: receive what attention sees, after norms and rotation: [1, H, N, Dh] and [1, Hkv, N, Dh]
} mica_packed;
#endif
