// SPDX-License-Identifier: Apache-2.0
// Building the flat tables. All hash tables are open addressing with linear probing, at most half full, and grow by
// rehashing; "joins" is collected from the merges as they pass, while their strings are at hand.
#include "text/tables.h"
#include "base/utf8.h"

mica_tables mica_tables_view(const mica_tables_builder *b) {
    return (mica_tables){.strings = b->strings.data, .tokens = b->tokens, .vocab = b->vocab,
                         .vocab_size = (uint32_t)b->vocab_size, .token_count = (uint32_t)b->token_count};
}

static size_t power_of_two(size_t least) {
    size_t n = 16;
    while (n < least) n *= 2;
    return n;
}

/** Inserts id; returns the id of an equal string inserted before, or -1. */
static int32_t index_token(mica_tables_builder *b, uint32_t id) {
    const mica_token_entry *e = &b->tokens[id];
    const char *s = b->strings.data + e->offset;
    mica_tables t = mica_tables_view(b);
    int32_t found = mica_tables_find(&t, s, e->size1 - 1);
    if (found >= 0) return found;
    uint32_t hash = mica_text_hash(s, e->size1 - 1), i = hash & (uint32_t)(b->vocab_size - 1);
    while (b->vocab[i].id1) i = (i + 1) & (uint32_t)(b->vocab_size - 1);
    b->vocab[i] = (mica_vocab_slot){hash, id + 1};
    return -1;
}

/** Doubles the index when it is half full, so that equal strings are noticed as they come. */
static bool reserve_index(mica_tables_builder *b, mica_error *err) {
    if ((b->entry_count + 1) * 2 <= b->vocab_size) return true;
    size_t size = power_of_two((b->entry_count + 1) * 4);
    mica_vocab_slot *old = b->vocab, *slots = mica_calloc(size, sizeof *slots);
    if (!slots) return mica_fail_memory(err, size * sizeof *slots, "token index");
    size_t old_size = b->vocab_size;
    b->vocab = slots, b->vocab_size = size;
    for (size_t i = 0; i < old_size; i++) {
        if (!old[i].id1) continue;
        size_t at = old[i].hash & (size - 1);
        while (slots[at].id1) at = (at + 1) & (size - 1);
        slots[at] = old[i];
    }
    mica_free(old);
    return true;
}

static bool reserve_ids(mica_tables_builder *b, size_t id, mica_error *err) {
    size_t before = b->token_capacity;
    if (!mica_grow(&b->tokens, &b->token_capacity, id + 1, sizeof *b->tokens))
        return mica_fail_memory(err, (id + 1) * sizeof *b->tokens, "tokens");
    if (b->token_capacity > before)
        memset(b->tokens + before, 0, (b->token_capacity - before) * sizeof *b->tokens);
    b->token_count = MICA_MAX(b->token_count, id + 1);
    return true;
}

/** A string that came before with another id: the new id takes over its slot. */
static void move_token(mica_tables_builder *b, uint32_t from, uint32_t to) {
    uint32_t mask = (uint32_t)(b->vocab_size - 1);
    const mica_token_entry *e = &b->tokens[to];
    uint32_t i = mica_text_hash(b->strings.data + e->offset, e->size1 - 1) & mask;
    while (b->vocab[i].id1 != from + 1) i = (i + 1) & mask;
    b->vocab[i].id1 = to + 1;
    b->tokens[from] = (mica_token_entry){0, 0};
}

bool mica_tables_add_token(mica_tables_builder *b, const char *s, size_t n, int64_t id, mica_error *err) {
    if (id < 0 || id > MICA_MAX_TOKEN_ID)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: token \"%.*s\" has id %lld, outside 0…%d", b->what, (int)MICA_MIN(n, 60), s,
                         (long long)id, MICA_MAX_TOKEN_ID);
    if (b->strings.len + n > UINT32_MAX - 1) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: more than 4 GB of tokens", b->what);
    if (!reserve_ids(b, (size_t)id, err) || !reserve_index(b, err)) return false;
    mica_tables t = mica_tables_view(b);
    if (b->tokens[id].size1) {
        if (mica_tables_find(&t, s, n) == id) return true;
        return mica_fail(err, MICA_ERR_FORMAT, "%s: two tokens have id %lld, the second is \"%.*s\"", b->what, (long long)id,
                         (int)MICA_MIN(n, 60), s);
    }
    uint32_t offset = (uint32_t)b->strings.len;
    if (!mica_buf_append(&b->strings, s, n) || !mica_buf_reserve(&b->strings, 8))
        return mica_fail_memory(err, b->strings.len + n, "token strings");
    b->tokens[id] = (mica_token_entry){offset, (uint32_t)n + 1};
    int32_t earlier = index_token(b, (uint32_t)id);
    if (earlier >= 0) move_token(b, (uint32_t)earlier, (uint32_t)id);
    else b->entry_count++;
    return true;
}

bool mica_tables_index(mica_tables_builder *b, mica_error *err) {
    // An empty vocabulary still needs a table to look into.
    if (!reserve_index(b, err)) return false;
    if (!b->strings.data && !mica_buf_reserve(&b->strings, 8)) return mica_fail_memory(err, 8, "token strings");
    return b->tokens || reserve_ids(b, 0, err);
}

// ---- joins -----------------------------------------------------------------------------------------
static bool add_join(mica_tables_builder *b, uint64_t key, mica_error *err);

static bool grow_joins(mica_tables_builder *b, mica_error *err) {
    size_t old_size = b->join_size, size = power_of_two(old_size ? old_size * 4 : 64);
    uint64_t *old = b->joins, *slots = mica_calloc(size, sizeof *slots);
    if (!slots) return mica_fail_memory(err, size * sizeof *slots, "merge joins");
    b->joins = slots, b->join_size = size, b->join_count = 0;
    for (size_t i = 0; i < old_size; i++)
        if (old[i]) add_join(b, old[i], err);
    mica_free(old);
    return true;
}

static bool add_join(mica_tables_builder *b, uint64_t key, mica_error *err) {
    if ((b->join_count + 1) * 2 > b->join_size && !grow_joins(b, err)) return false;
    size_t mask = b->join_size - 1, i = mica_pair_hash((uint32_t)(key >> 32), (uint32_t)key) & mask;
    for (; b->joins[i]; i = (i + 1) & mask)
        if (b->joins[i] == key) return true;
    b->joins[i] = key;
    b->join_count++;
    return true;
}

static uint32_t first_char(const char *s, size_t n) {
    uint32_t cp = 0;
    return n && mica_utf8_decode(s, n, &cp) ? cp : 0;
}

static uint32_t last_char(const char *s, size_t n) {
    size_t at = n;
    while (at && ((unsigned char)s[--at] & 0xC0) == 0x80) {}
    return n ? first_char(s + at, n - at) : 0;
}

// ---- merges ----------------------------------------------------------------------------------------
static void place_merge(mica_merge_slot *slots, size_t size, mica_merge_slot m, size_t *count) {
    size_t i = mica_pair_hash(m.left, m.right) & (size - 1);
    for (; slots[i].left != UINT32_MAX; i = (i + 1) & (size - 1))
        if (slots[i].left == m.left && slots[i].right == m.right) break; // a repeated merge: the last one counts
    *count += slots[i].left == UINT32_MAX;
    slots[i] = m;
}

static bool reserve_merges(mica_tables_builder *b, mica_error *err) {
    if ((b->merge_count + 1) * 2 <= b->merge_size) return true;
    size_t size = power_of_two(b->merge_size ? b->merge_size * 4 : 64);
    mica_merge_slot *slots = mica_alloc(size * sizeof *slots);
    if (!slots) return mica_fail_memory(err, size * sizeof *slots, "merges");
    memset(slots, 0xFF, size * sizeof *slots);
    b->merge_count = 0;
    for (size_t i = 0; i < b->merge_size; i++)
        if (b->merges[i].left != UINT32_MAX) place_merge(slots, size, b->merges[i], &b->merge_count);
    mica_free(b->merges);
    b->merges = slots, b->merge_size = size;
    return true;
}

static bool unknown(const mica_tables_builder *b, const char *s, size_t n, mica_error *err) {
    return mica_fail(err, MICA_ERR_FORMAT, "%s: merge %u: \"%.*s\" is no token", b->what, b->rank, (int)MICA_MIN(n, 60), s);
}

/** last, first: the characters that it joins. */
static bool put_merge(mica_tables_builder *b, uint32_t left, uint32_t right, uint32_t result, uint32_t last, uint32_t first, mica_error *err) {
    mica_merge_slot m = {left, right, b->rank++, result};
    place_merge(b->merges, b->merge_size, m, &b->merge_count);
    uint64_t key = (uint64_t)last << 32 | first;
    return !key || add_join(b, key, err);
}

bool mica_tables_add_merge(mica_tables_builder *b, const char *left, size_t nl, const char *right, size_t nr,
                           size_t prefix_size, mica_error *err) {
    mica_tables t = mica_tables_view(b);
    if (!reserve_merges(b, err)) return false;
    int32_t l = mica_tables_find(&t, left, nl), r = mica_tables_find(&t, right, nr);
    if (l < 0) return unknown(b, left, nl, err);
    if (r < 0) return unknown(b, right, nr, err);
    size_t skip = MICA_MIN(prefix_size, nr);
    b->scratch.len = 0;
    if (!mica_buf_append(&b->scratch, left, nl) || !mica_buf_append(&b->scratch, right + skip, nr - skip))
        return mica_fail_memory(err, nl + nr, "merge");
    int32_t result = mica_tables_find(&t, b->scratch.data, b->scratch.len);
    if (result < 0) return unknown(b, b->scratch.data, b->scratch.len, err);
    return put_merge(b, (uint32_t)l, (uint32_t)r, (uint32_t)result, last_char(left, nl), first_char(right, nr), err);
}

bool mica_tables_add_merge_ids(mica_tables_builder *b, uint32_t left, uint32_t right, uint32_t result, mica_error *err) {
    const mica_token_entry *l = &b->tokens[left], *r = &b->tokens[right];
    if (!reserve_merges(b, err)) return false;
    uint32_t last = last_char(b->strings.data + l->offset, l->size1 - 1), first = first_char(b->strings.data + r->offset, r->size1 - 1);
    return put_merge(b, left, right, result, last, first, err);
}

bool mica_tables_finish(mica_tables_builder *b, mica_tables *t, mica_error *err) {
    if (!mica_tables_index(b, err) || !reserve_merges(b, err)) return false;
    if (!b->join_size && !grow_joins(b, err)) return false;
    *t = (mica_tables){.strings = b->strings.data, .strings_size = b->strings.len, .tokens = b->tokens,
                       .token_count = (uint32_t)b->token_count, .vocab = b->vocab, .vocab_size = (uint32_t)b->vocab_size,
                       .merges = b->merges, .merge_size = (uint32_t)b->merge_size, .joins = b->joins,
                       .join_size = (uint32_t)b->join_size, .entry_count = (uint32_t)b->entry_count,
                       .config = b->config.data, .config_size = b->config.len};
    mica_buf_free(&b->scratch);
    memset(b, 0, sizeof *b);
    return true;
}

void mica_tables_builder_free(mica_tables_builder *b) {
    mica_buf_free(&b->strings);
    mica_buf_free(&b->config);
    mica_buf_free(&b->scratch);
    mica_free(b->tokens);
    mica_free(b->vocab);
    mica_free(b->merges);
    mica_free(b->joins);
    memset(b, 0, sizeof *b);
}

static void drop(const void *p) { mica_free((void *)(uintptr_t)p); }

void mica_tables_free(mica_tables *t) {
    if (t->map.data) {
        mica_map_close(&t->map);
    } else if (!t->borrowed) {
        drop(t->strings), drop(t->tokens), drop(t->vocab), drop(t->merges), drop(t->joins), drop(t->config);
    }
    memset(t, 0, sizeof *t);
}

const char *mica_tables_token(const mica_tables *t, uint32_t id, size_t *n) {
    if (id >= t->token_count || !t->tokens[id].size1) return *n = 0, NULL;
    *n = t->tokens[id].size1 - 1;
    return t->strings + t->tokens[id].offset;
}
