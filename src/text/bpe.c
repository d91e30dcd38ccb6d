// SPDX-License-Identifier: Apache-2.0
// BPE over flat tables. Three things make it fast and keep it O(n log n): a cache of words; cutting words, before
// merging, wherever no merge of the vocabulary joins the two characters (Gemma's words are whole texts); and, for
// what is still long, a heap of candidate merges instead of repeated scans (Sennrich et al. 2016 gives the algorithm).
#include "text/bpe.h"
#include "base/utf8.h"
#include "text/pretok.h"

enum {
    SMALL = 40,          // symbols up to which scanning beats the heap (measured)
    CACHE_SLOTS = 32768, // 2 MB of words
    KEY_SIZE = 30,
    SLOT_IDS = 8
};

typedef struct mica_word_slot {
    unsigned char size, count;
    char key[KEY_SIZE];
    int32_t ids[SLOT_IDS];
} mica_word_slot;

bool mica_ids_reserve(mica_ids *ids, size_t extra) {
    return extra <= SIZE_MAX - ids->len && mica_grow(&ids->data, &ids->capacity, ids->len + extra, sizeof *ids->data);
}

static inline bool put_id(mica_ids *ids, int32_t id) {
    if (ids->len == ids->capacity && !mica_ids_reserve(ids, 1)) return false;
    return ids->data[ids->len++] = id, true;
}

// ---- merging ---------------------------------------------------------------------------------------
static inline void look_up(const mica_tables *t, const uint32_t *symbols, size_t i, size_t j, uint32_t *rank, uint32_t *result) {
    const mica_merge_slot *m = mica_tables_merge(t, symbols[i], symbols[j]);
    *rank = m ? m->rank : UINT32_MAX;
    *result = m ? m->result : 0;
}

/** Merges a short word in place; returns how many symbols are left. */
static size_t merge_small(const mica_tables *t, uint32_t *s, size_t n) {
    uint32_t rank[SMALL], result[SMALL];
    for (size_t i = 0; i + 1 < n; i++) look_up(t, s, i, i + 1, &rank[i], &result[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        s[best] = result[best];
        for (size_t i = best + 1; i + 1 < n; i++) s[i] = s[i + 1], rank[i - 1] = rank[i], result[i - 1] = result[i];
        n--;
        if (best + 1 < n) look_up(t, s, best, best + 1, &rank[best], &result[best]);
        if (best > 0) look_up(t, s, best - 1, best, &rank[best - 1], &result[best - 1]);
    }
    return n;
}

/** A heap of rank << 32 | position, smallest on top. */
static void sift_down(uint64_t *heap, size_t n, size_t i) {
    uint64_t v = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= v) break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}

static void heap_pop(mica_bpe_work *w) {
    w->heap[0] = w->heap[--w->heap_count];
    if (w->heap_count) sift_down(w->heap, w->heap_count, 0);
}

static void heap_push(mica_bpe_work *w, uint64_t v) {
    size_t i = w->heap_count++;
    for (size_t parent; i && w->heap[parent = (i - 1) / 2] > v; i = parent) w->heap[i] = w->heap[parent];
    w->heap[i] = v;
}

static bool reserve_links(mica_bpe_work *w, size_t n) {
    // Every merge pops one candidate and adds at most two, so 2n entries are enough.
    if (!mica_grow(&w->heap, &w->heap_capacity, 2 * n, sizeof *w->heap)) return false;
    if (n <= w->link_capacity) return true;
    uint32_t **lists[] = {&w->ranks, &w->results, &w->next, &w->previous};
    size_t bytes;
    if (!mica_size_mul(n, sizeof(uint32_t), &bytes)) return false;
    for (size_t i = 0; i < MICA_COUNT(lists); i++) {
        uint32_t *list = mica_realloc(*lists[i], bytes);
        if (!list) return w->link_capacity = 0, false;
        *lists[i] = list;
    }
    return w->link_capacity = n, true;
}

static void candidate(const mica_tables *t, mica_bpe_work *w, uint32_t i, size_t n) {
    w->ranks[i] = UINT32_MAX;
    if (w->next[i] == n) return;
    look_up(t, w->symbols, i, w->next[i], &w->ranks[i], &w->results[i]);
    if (w->ranks[i] != UINT32_MAX) heap_push(w, (uint64_t)w->ranks[i] << 32 | i);
}

/** Merges any word; a heap entry is stale if its position's pair has another rank by now. */
static size_t merge_large(const mica_tables *t, mica_bpe_work *w, size_t n) {
    w->heap_count = 0;
    for (uint32_t i = 0; i < n; i++) w->next[i] = i + 1, w->previous[i] = i - 1;
    for (uint32_t i = 0; i < n; i++) {
        w->ranks[i] = UINT32_MAX;
        if (i + 1 < n) look_up(t, w->symbols, i, i + 1, &w->ranks[i], &w->results[i]);
        if (w->ranks[i] != UINT32_MAX) w->heap[w->heap_count++] = (uint64_t)w->ranks[i] << 32 | i;
    }
    for (size_t i = w->heap_count / 2; i-- > 0;) sift_down(w->heap, w->heap_count, i);
    while (w->heap_count) {
        uint32_t rank = (uint32_t)(w->heap[0] >> 32), i = (uint32_t)w->heap[0];
        heap_pop(w);
        if (w->ranks[i] != rank) continue;
        uint32_t gone = w->next[i], after = w->next[gone];
        w->symbols[i] = w->results[i];
        w->ranks[gone] = UINT32_MAX;
        w->next[i] = after;
        if (after < n) w->previous[after] = i;
        candidate(t, w, i, n);
        if (i) candidate(t, w, w->previous[i], n);
    }
    size_t left = 0;
    for (uint32_t i = 0; i < n; i = w->next[i]) w->symbols[left++] = w->symbols[i];
    return left;
}

// ---- first symbols ---------------------------------------------------------------------------------
static int32_t char_id(const mica_bpe *b, uint32_t cp, const char *s, size_t n) {
    return cp < 0x10000 && b->char_ids ? b->char_ids[cp] : mica_tables_find(b->tables, s, n);
}

typedef struct symbol_sink {
    const mica_bpe *b;
    mica_bpe_work *w;
    size_t n;
    bool unk_pending;
} symbol_sink;

static void put_symbol(symbol_sink *k, int32_t id) { k->w->symbols[k->n++] = (uint32_t)id; }

static void flush_unk(symbol_sink *k) {
    if (k->unk_pending) put_symbol(k, k->b->unk);
    k->unk_pending = false;
}

/** A unit that is no token: its bytes' tokens, all or none of them; else the unknown token. */
static bool put_unknown(symbol_sink *k, const char *s, size_t n, mica_error *err) {
    const mica_bpe *b = k->b;
    size_t have = 0;
    while (b->byte_fallback && have < n && b->fallback_ids[(unsigned char)s[have]] >= 0) have++;
    if (b->byte_fallback && have == n) {
        for (size_t i = 0; i < n; i++) put_symbol(k, b->fallback_ids[(unsigned char)s[i]]);
        return true; // an unknown token that waits goes behind these, as in the reference
    }
    if (b->unk_missing)
        return mica_fail(err, MICA_ERR_FORMAT, "a character is no token, nor is the tokenizer's unk_token \"%s\"", b->unk_name);
    if (b->unk < 0) return true;
    if (!b->fuse_unk) flush_unk(k);
    k->unk_pending = true;
    return true;
}

/** Spells a unit with the affixes it gets in this place. */
static bool affixed(const mica_bpe *b, mica_bpe_work *w, const char *s, size_t n, bool first, bool last) {
    w->spelled.len = 0;
    return (first || !b->prefix || mica_buf_puts(&w->spelled, b->prefix)) && mica_buf_append(&w->spelled, s, n) &&
           (!last || !b->suffix || mica_buf_puts(&w->spelled, b->suffix));
}

static bool put_unit(symbol_sink *k, uint32_t cp, const char *s, size_t n, bool first, bool last, mica_error *err) {
    const mica_bpe *b = k->b;
    int32_t id;
    if (b->prefix || b->suffix) {
        if (!affixed(b, k->w, s, n, first, last)) return mica_fail_memory(err, n, "word");
        s = k->w->spelled.data, n = k->w->spelled.len;
        id = mica_tables_find(b->tables, s, n);
        // The affixes can outgrow the room that the word's bytes need.
        size_t need = k->n + n + 2;
        if (!mica_grow(&k->w->symbols, &k->w->symbol_capacity, need, sizeof *k->w->symbols)) return mica_fail_memory(err, need, "word");
    } else {
        id = char_id(b, cp, s, n);
    }
    if (id < 0) return put_unknown(k, s, n, err);
    flush_unk(k);
    put_symbol(k, id);
    return true;
}

static bool byte_symbols(symbol_sink *k, const char *word, size_t n, mica_error *err) {
    const mica_bpe *b = k->b;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)word[i];
        int32_t id = b->byte_ids[byte];
        if (id >= 0 && !b->prefix && !b->suffix && !k->unk_pending) {
            put_symbol(k, id);
            continue;
        }
        char s[4];
        uint32_t cp = mica_byte_to_char(byte);
        if (!put_unit(k, cp, s, mica_utf8_encode(cp, s), i == 0, i + 1 == n, err)) return false;
    }
    return true;
}

static bool char_symbols(symbol_sink *k, const char *word, size_t n, mica_error *err) {
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp = 0;
        if (!(len = mica_utf8_decode(word + i, n - i, &cp))) return mica_fail(err, MICA_ERR_INTERNAL, "tokenizer: a word is not UTF-8");
        if (!put_unit(k, cp, word + i, len, i == 0, i + len == n, err)) return false;
    }
    return true;
}

static bool first_symbols(const mica_bpe *b, mica_bpe_work *w, const char *word, size_t n, size_t *count, mica_error *err) {
    symbol_sink k = {.b = b, .w = w};
    if (n > UINT32_MAX / 4) return mica_fail(err, MICA_ERR_ARGUMENT, "tokenizer: a word of %zu bytes is too long", n);
    // Byte fallback of a byte-level character takes two symbols.
    if (!mica_grow(&w->symbols, &w->symbol_capacity, 2 * n + 2, sizeof *w->symbols)) return mica_fail_memory(err, n, "word");
    if (!(b->byte_level ? byte_symbols(&k, word, n, err) : char_symbols(&k, word, n, err))) return false;
    flush_unk(&k);
    return *count = k.n, true;
}

/** ignore_merges: a word that is a token as a whole. -1: it is not. */
static int32_t whole_word(const mica_bpe *b, mica_bpe_work *w, const char *word, size_t n) {
    char bytes[4];
    if (!b->byte_level) return mica_tables_find(b->tables, word, n);
    w->spelled.len = 0;
    for (size_t i = 0; i < n; i++)
        mica_buf_append(&w->spelled, bytes, mica_utf8_encode(mica_byte_to_char((unsigned char)word[i]), bytes));
    return w->spelled.failed ? -1 : mica_tables_find(b->tables, w->spelled.data, w->spelled.len);
}

static bool encode_uncached(const mica_bpe *b, mica_bpe_work *w, const char *word, size_t n, mica_ids *ids, mica_error *err) {
    size_t count = 0;
    if (b->ignore_merges) {
        int32_t id = whole_word(b, w, word, n);
        if (w->spelled.failed) return mica_buf_free(&w->spelled), mica_fail_memory(err, n, "word");
        if (id >= 0) return put_id(ids, id) || mica_fail_memory(err, 4, "ids");
    }
    if (!first_symbols(b, w, word, n, &count, err)) return false;
    if (count <= SMALL) count = merge_small(b->tables, w->symbols, count);
    else if (!reserve_links(w, count)) return mica_fail_memory(err, count * 32, "word");
    else count = merge_large(b->tables, w, count);
    if (!mica_ids_reserve(ids, count)) return mica_fail_memory(err, count * 4, "ids");
    for (size_t i = 0; i < count; i++) ids->data[ids->len++] = (int32_t)w->symbols[i];
    return true;
}

/** Encodes a word or a part of one that is independent of its neighbours. */
static bool encode_part(const mica_bpe *b, mica_bpe_work *w, const char *word, size_t n, mica_ids *ids, mica_error *err) {
    if (n > KEY_SIZE || !w->cache) return encode_uncached(b, w, word, n, ids, err);
    mica_word_slot *slot = &w->cache[mica_text_hash(word, n) & (CACHE_SLOTS - 1)];
    if (slot->size == n && !memcmp(slot->key, word, n)) {
        if (ids->capacity - ids->len < SLOT_IDS && !mica_ids_reserve(ids, SLOT_IDS)) return mica_fail_memory(err, 4, "ids");
        memcpy(ids->data + ids->len, slot->ids, sizeof slot->ids); // all of them: a fixed size is faster
        ids->len += slot->count;
        return true;
    }
    size_t before = ids->len;
    if (!encode_uncached(b, w, word, n, ids, err)) return false;
    size_t count = ids->len - before;
    if (count > SLOT_IDS) return true;
    slot->size = (unsigned char)n, slot->count = (unsigned char)count;
    memcpy(slot->key, word, n);
    if (count) memcpy(slot->ids, ids->data + before, count * sizeof *slot->ids);
    return true;
}

// ---- cutting ---------------------------------------------------------------------------------------
/** Whether BPE gives the same on both sides of a|b as it gives for the whole. */
static bool may_cut(const mica_bpe *b, uint32_t a, bool known_a, uint32_t c, bool known_c) {
    // With all byte tokens there, nothing is unknown. Else unknown neighbours may fuse, or all of them vanish.
    if (!known_a && !known_c && !b->fallback_all) return false;
    if (!(known_a && known_c) && !b->fallback_all && b->unk < 0) return false;
    return !mica_tables_join(b->tables, a, c);
}

static bool may_cut_wide(const mica_bpe *b, uint32_t a, const char *sa, uint32_t c, const char *sc) {
    char s[4];
    bool known_a = char_id(b, a, sa, mica_utf8_encode(a, s)) >= 0, known_c = char_id(b, c, sc, mica_utf8_encode(c, s)) >= 0;
    return may_cut(b, a, known_a, c, known_c);
}

static inline uint32_t cut_index(uint32_t cp) { return cp < 0x80 ? cp : cp == 0x2581 ? 0x80 : UINT32_MAX; }

static inline size_t decode(const char *s, size_t n, uint32_t *cp) {
    if ((unsigned char)*s < 0x80) return *cp = (unsigned char)*s, 1;
    return mica_utf8_decode(s, n, cp);
}

static bool encode_cut(const mica_bpe *b, mica_bpe_work *w, const char *word, size_t n, mica_ids *ids, mica_error *err) {
    uint32_t a, c;
    size_t start = 0, at = 0, len = decode(word, n, &a);
    for (size_t i = len; len && i < n; at = i, a = c, i += len) {
        if (!(len = decode(word + i, n - i, &c))) break;
        uint32_t ia = cut_index(a), ic = cut_index(c);
        bool cut = (ia | ic) != UINT32_MAX ? b->cut[ia * MICA_CUT_CHARS + ic] : may_cut_wide(b, a, word + at, c, word + i);
        if (!cut) continue;
        if (!encode_part(b, w, word + start, i - start, ids, err)) return false;
        start = i;
    }
    return encode_part(b, w, word + start, n - start, ids, err);
}

bool mica_bpe_word(const mica_bpe *b, mica_bpe_work *w, const char *word, size_t n, mica_ids *ids, mica_error *err) {
    if (!n) return true;
    if (!w->cache && !(w->cache = mica_calloc(CACHE_SLOTS, sizeof *w->cache))) return mica_fail_memory(err, CACHE_SLOTS * sizeof *w->cache, "words");
    return b->can_cut ? encode_cut(b, w, word, n, ids, err) : encode_part(b, w, word, n, ids, err);
}

void mica_bpe_work_free(mica_bpe_work *w) {
    mica_free(w->symbols);
    mica_free(w->ranks);
    mica_free(w->results);
    mica_free(w->next);
    mica_free(w->previous);
    mica_free(w->heap);
    mica_free(w->cache);
    mica_buf_free(&w->spelled);
    memset(w, 0, sizeof *w);
}

// ---- reading ---------------------------------------------------------------------------------------
static bool find_byte_tokens(mica_bpe *b) {
    size_t have = 0;
    for (int i = 0; i < 256; i++) {
        char name[8] = "<0x00>";
        name[3] = "0123456789ABCDEF"[i / 16], name[4] = "0123456789ABCDEF"[i % 16];
        b->fallback_ids[i] = mica_tables_find(b->tables, name, 6);
        have += b->fallback_ids[i] >= 0;
        char s[4];
        b->byte_ids[i] = mica_tables_find(b->tables, s, mica_utf8_encode(mica_byte_to_char((unsigned char)i), s));
    }
    b->fallback_all = b->byte_fallback && have == 256;
    return have == 0 || have == 256 || !b->byte_fallback;
}

static bool index_chars(mica_bpe *b, mica_error *err) {
    if (!(b->char_ids = mica_alloc(0x10000 * sizeof *b->char_ids))) return mica_fail_memory(err, 0x10000 * sizeof *b->char_ids, "characters");
    memset(b->char_ids, 0xFF, 0x10000 * sizeof *b->char_ids);
    for (uint32_t id = 0; id < b->tables->token_count; id++) {
        size_t n;
        uint32_t cp;
        const char *s = mica_tables_token(b->tables, id, &n);
        if (s && n && n <= 3 && mica_utf8_decode(s, n, &cp) == n) b->char_ids[cp] = (int32_t)id;
    }
    return true;
}

/** Whether byte tokens or the unknown token take part in merges: then what they stand for tells nothing about joins. */
static bool stand_ins_merge(const mica_bpe *b) {
    const mica_tables *t = b->tables;
    uint8_t *is_stand_in = mica_calloc(t->token_count + 1, 1);
    if (!is_stand_in) return true; // safe, only slower
    for (int i = 0; i < 256; i++)
        if (b->byte_fallback && b->fallback_ids[i] >= 0) is_stand_in[b->fallback_ids[i]] = 1;
    if (b->unk >= 0) is_stand_in[b->unk] = 1;
    bool found = false;
    for (uint32_t i = 0; i < t->merge_size && !found; i++) {
        const mica_merge_slot *m = &t->merges[i];
        found = m->left != UINT32_MAX && (is_stand_in[m->left] || is_stand_in[m->right]);
    }
    mica_free(is_stand_in);
    return found;
}

static void fill_cuts(mica_bpe *b) {
    for (uint32_t i = 0; i < MICA_CUT_CHARS * MICA_CUT_CHARS; i++) {
        uint32_t a = i / MICA_CUT_CHARS, c = i % MICA_CUT_CHARS;
        if (a == 0x80) a = 0x2581;
        if (c == 0x80) c = 0x2581;
        b->cut[i] = may_cut(b, a, b->char_ids[a] >= 0, c, b->char_ids[c] >= 0);
    }
}

static bool keep_affix(const mica_json *model, const char *key, char **out, const char *what, mica_error *err) {
    const char *s;
    if (!mica_json_string(model, key, NULL, &s, what, err)) return false;
    if (!s || !*s) return true;
    return (*out = mica_strdup(s)) || mica_fail_memory(err, strlen(s), key);
}

static bool read_unk(mica_bpe *b, const mica_json *model, const char *what, mica_error *err) {
    b->unk = -1;
    const mica_json *v = mica_json_get(model, "unk_token");
    if (!keep_affix(model, "unk_token", &b->unk_name, what, err)) return false;
    if (!v || v->type != MICA_JSON_STRING) return true;
    b->unk = mica_tables_find(b->tables, v->string, v->length);
    b->unk_missing = b->unk < 0;
    if (!b->unk_name) b->unk_name = mica_strdup("");
    return b->unk_name || mica_fail_memory(err, 1, "unk_token");
}

bool mica_bpe_read(mica_bpe *b, const mica_tables *t, const mica_json *model, bool byte_level, const char *what, mica_error *err) {
    const char *type;
    b->tables = t, b->byte_level = byte_level;
    if (!mica_json_string(model, "type", "BPE", &type, what, err)) return false;
    if (strcmp(type, "BPE")) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: model type \"%s\" is not supported (BPE is)", what, type);
    bool ok = mica_json_bool(model, "byte_fallback", false, &b->byte_fallback, what, err) &&
              mica_json_bool(model, "fuse_unk", false, &b->fuse_unk, what, err) &&
              mica_json_bool(model, "ignore_merges", false, &b->ignore_merges, what, err) &&
              keep_affix(model, "continuing_subword_prefix", &b->prefix, what, err) &&
              keep_affix(model, "end_of_word_suffix", &b->suffix, what, err) && read_unk(b, model, what, err);
    if (!ok) return false;
    bool fallback_whole = find_byte_tokens(b);
    if (byte_level) return true;
    if (!index_chars(b, err)) return false;
    b->can_cut = fallback_whole && !b->ignore_merges && !b->prefix && !b->suffix && !b->unk_missing && !stand_ins_merge(b);
    if (b->can_cut) fill_cuts(b);
    return true;
}

void mica_bpe_free(mica_bpe *b) {
    mica_free(b->unk_name);
    mica_free(b->prefix);
    mica_free(b->suffix);
    mica_free(b->char_ids);
    memset(b, 0, sizeof *b);
}
