// SPDX-License-Identifier: Apache-2.0
// The large part of a BPE tokenizer as flat tables without pointers: token strings, string -> id, merges, and which
// characters some merge can join. They are filled while a file is read, or point into the mapped cache file.
#ifndef MICA_TEXT_TABLES_H
#define MICA_TEXT_TABLES_H

#include "base/base.h"
#include "base/file.h"
#include <string.h>

typedef struct mica_token_entry {
    uint32_t offset, size1; // in strings; bytes + 1, 0: no such id
} mica_token_entry;

typedef struct mica_vocab_slot {
    uint32_t hash, id1; // id + 1, 0: empty
} mica_vocab_slot;

typedef struct mica_merge_slot {
    uint32_t left, right, rank, result; // left UINT32_MAX: empty
} mica_merge_slot;

enum { MICA_MAX_TOKEN_ID = (1 << 24) - 1 }; // bounds what a hostile file can make mica allocate

typedef struct mica_tables {
    const char *strings;
    const mica_token_entry *tokens; // [token_count]
    const mica_vocab_slot *vocab;   // [vocab_size], a power of two with empty slots
    const mica_merge_slot *merges;  // [merge_size], likewise
    const uint64_t *joins;          // [join_size], likewise: last char << 32 | first char, 0: empty
    const char *config;             // the tokenizer.json without vocab and merges
    size_t strings_size, config_size;
    uint32_t token_count, vocab_size, merge_size, join_size;
    uint32_t entry_count; // strings in the vocabulary
    mica_map map;         // the cache file, if they live there; else each array is owned,
    bool borrowed;        // unless they belong to somebody else
} mica_tables;

static inline uint64_t mica_mul_mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 32);
}

/** Hash of a short string: words of 8 bytes, the last one overlapping. */
static inline uint32_t mica_text_hash(const char *s, size_t n) {
    uint64_t h = n * 0xD6E8FEB86659FD93u, word = 0;
    for (; n > 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = mica_mul_mix(h, word);
    }
    uint32_t low, high;
    if (n == 8) {
        memcpy(&word, s, 8);
    } else if (n >= 4) {
        memcpy(&low, s, 4), memcpy(&high, s + n - 4, 4);
        word = (uint64_t)high << 32 | low;
    } else {
        word = n ? (uint64_t)(unsigned char)s[0] | (uint64_t)(unsigned char)s[n / 2] << 8 | (uint64_t)(unsigned char)s[n - 1] << 16 : 0;
    }
    h = mica_mul_mix(h, word);
    return (uint32_t)(h ^ (h >> 29));
}

/** -1 if there is no such token. */
static inline int32_t mica_tables_find(const mica_tables *t, const char *s, size_t n) {
    uint32_t hash = mica_text_hash(s, n), mask = t->vocab_size - 1;
    for (uint32_t i = hash & mask; t->vocab[i].id1; i = (i + 1) & mask) {
        if (t->vocab[i].hash != hash) continue;
        const mica_token_entry *e = &t->tokens[t->vocab[i].id1 - 1];
        if (e->size1 == n + 1 && !memcmp(t->strings + e->offset, s, n)) return (int32_t)t->vocab[i].id1 - 1;
    }
    return -1;
}

static inline uint32_t mica_pair_hash(uint32_t left, uint32_t right) {
    return (uint32_t)(((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u >> 32);
}

/** NULL if the pair does not merge. */
static inline const mica_merge_slot *mica_tables_merge(const mica_tables *t, uint32_t left, uint32_t right) {
    uint32_t mask = t->merge_size - 1;
    for (uint32_t i = mica_pair_hash(left, right) & mask; t->merges[i].left != UINT32_MAX; i = (i + 1) & mask)
        if (t->merges[i].left == left && t->merges[i].right == right) return &t->merges[i];
    return NULL;
}

/** Whether some merge has a left part ending in a and a right part beginning with b. */
static inline bool mica_tables_join(const mica_tables *t, uint32_t a, uint32_t b) {
    uint64_t key = (uint64_t)a << 32 | b;
    uint32_t mask = t->join_size - 1;
    for (uint32_t i = mica_pair_hash(a, b) & mask; t->joins[i]; i = (i + 1) & mask)
        if (t->joins[i] == key) return true;
    return false;
}

// Building. Tokens first; then mica_tables_index; then merges, in rank order; then mica_tables_finish.
typedef struct mica_tables_builder {
    mica_buf strings, config;
    mica_token_entry *tokens;
    size_t token_capacity, token_count, entry_count;
    mica_vocab_slot *vocab;
    size_t vocab_size;
    mica_merge_slot *merges;
    size_t merge_size, merge_count;
    uint64_t *joins;
    size_t join_size, join_count;
    uint32_t rank;
    mica_buf scratch;
    const char *what; // file name, for messages
} mica_tables_builder;

/** A token that repeats an earlier string takes its place; two strings with one id are refused. */
bool mica_tables_add_token(mica_tables_builder *b, const char *s, size_t n, int64_t id, mica_error *err);
bool mica_tables_index(mica_tables_builder *b, mica_error *err);
/** The tokens so far, to look things up in; borrowed until the next change. */
mica_tables mica_tables_view(const mica_tables_builder *b);
/** left + right without the first prefix_size bytes of right must be a token. */
bool mica_tables_add_merge(mica_tables_builder *b, const char *left, size_t nl, const char *right, size_t nr,
                           size_t prefix_size, mica_error *err);
/** The same with ids of tokens that are there. */
bool mica_tables_add_merge_ids(mica_tables_builder *b, uint32_t left, uint32_t right, uint32_t result, mica_error *err);
/** Moves everything into *t; the builder is empty afterwards. */
bool mica_tables_finish(mica_tables_builder *b, mica_tables *t, mica_error *err);
void mica_tables_builder_free(mica_tables_builder *b);
void mica_tables_free(mica_tables *t);
/** A token's bytes, or NULL. */
const char *mica_tables_token(const mica_tables *t, uint32_t id, size_t *n);
#endif
