// SPDX-License-Identifier: Apache-2.0
// Added tokens: numbering as in the reference, two tries, and the search with its lstrip, rstrip and single_word rules.
#include "text/added.h"
#include "base/utf8.h"
#include "text/component.h"
#include "text/unicode.h"

// ---- trie ------------------------------------------------------------------------------------------
static uint32_t find_child(const mica_trie *t, uint32_t node, unsigned char byte) {
    uint32_t child = t->nodes[node].child;
    while (child && t->nodes[child].byte != byte) child = t->nodes[child].sibling;
    return child;
}

static uint32_t new_node(mica_trie *t, unsigned char byte) {
    size_t need = t->count ? t->count + 1 : 2;
    if (!mica_grow(&t->nodes, &t->capacity, need, sizeof *t->nodes)) return 0;
    t->count = need;
    t->nodes[need - 1] = (mica_trie_node){.byte = byte};
    return (uint32_t)(need - 1);
}

/** The node that the string ends at; 0 when out of memory. */
static uint32_t insert(mica_trie *t, const char *s, size_t n) {
    unsigned char byte = (unsigned char)s[0];
    uint32_t node = t->root[byte];
    if (!node && !(node = t->root[byte] = new_node(t, byte))) return 0;
    for (size_t i = 1; i < n; i++) {
        byte = (unsigned char)s[i];
        uint32_t child = find_child(t, node, byte);
        if (!child) {
            if (!(child = new_node(t, byte))) return 0;
            t->nodes[child].sibling = t->nodes[node].child;
            t->nodes[node].child = child;
        }
        node = child;
    }
    return node;
}

/** Index + 1 of the longest token at s, and its length; 0: none. */
static uint32_t longest(const mica_trie *t, const char *s, size_t n, size_t *len) {
    uint32_t node = t->root[(unsigned char)s[0]], found = 0;
    for (size_t i = 1; node; i++) {
        if (t->nodes[node].token1) found = t->nodes[node].token1, *len = i;
        if (i == n) break;
        node = find_child(t, node, (unsigned char)s[i]);
    }
    return found;
}

// ---- search ----------------------------------------------------------------------------------------
static bool word_before(const char *s, size_t at) {
    uint32_t cp;
    size_t start = at;
    while (start && ((unsigned char)s[--start] & 0xC0) == 0x80) {}
    return at && mica_utf8_decode(s + start, at - start, &cp) && mica_uc(cp) & MICA_UC_WORD;
}

static bool word_after(const char *s, size_t n, size_t at) {
    uint32_t cp;
    return at < n && mica_utf8_decode(s + at, n - at, &cp) && mica_uc(cp) & MICA_UC_WORD;
}

static size_t spaces_before(const char *s, size_t at) {
    uint32_t cp;
    for (size_t start = at; at; at = start) {
        for (start = at - 1; start && ((unsigned char)s[start] & 0xC0) == 0x80;) start--;
        if (!mica_utf8_decode(s + start, at - start, &cp) || !mica_uc_space(cp)) break;
    }
    return at;
}

static size_t spaces_after(const char *s, size_t n, size_t at) {
    uint32_t cp;
    for (size_t len; at < n && (len = mica_utf8_decode(s + at, n - at, &cp)) && mica_uc_space(cp);) at += len;
    return at;
}

/** The first mark that ends behind `at`, or NULL. */
static const mica_mark *mark_behind(const mica_added_limits *l, size_t at) {
    size_t low = 0, high = l->mark_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (l->marks[middle].to > at) high = middle;
        else low = middle + 1;
    }
    return low < l->mark_count ? &l->marks[low] : NULL;
}

/** As longest, at s[i…n), but a special token must keep clear of the marks; a shorter one may do. */
static uint32_t longest_allowed(const mica_added *a, const mica_trie *t, const char *s, size_t i, size_t n, const mica_added_limits *limits, size_t *len) {
    uint32_t token1 = longest(t, s + i, n - i, len);
    if (!token1 || !limits->mark_count || !a->tokens[token1 - 1].special) return token1;
    const mica_mark *m = mark_behind(limits, i);
    if (!m || m->from >= i + *len) return token1;
    if (m->from > i) return longest(t, s + i, m->from - i, len);
    for (size_t most = *len; most > 1;) { // inside of a mark: one that is not special
        if (!(token1 = longest(t, s + i, --most, len))) return 0;
        if (!a->tokens[token1 - 1].special) return token1;
        most = *len;
    }
    return 0;
}

const mica_added_token *mica_added_next(const mica_added *a, const mica_trie *trie, const char *s, size_t n, const mica_added_limits *limits, size_t taken,
                                        size_t *from, size_t *start, size_t *end) {
    for (size_t i = *from, len = 0; i < n;) {
        uint32_t token1 = trie->root[(unsigned char)s[i]] ? longest_allowed(a, trie, s, i, n, limits, &len) : 0;
        if (!token1) {
            i++;
            continue;
        }
        const mica_added_token *t = &a->tokens[token1 - 1];
        *start = i, *end = i + len;
        i = *from = *end; // what is refused below is passed over as a whole, as the reference does
        if (limits->plain && t->special) continue;
        if (t->single_word && (word_before(s, *start) || word_after(s, n, *end))) continue;
        if (t->lstrip) *start = MICA_MAX(spaces_before(s, *start), taken);
        if (t->rstrip) *end = spaces_after(s, n, *end);
        return t;
    }
    return NULL;
}

// ---- reading ---------------------------------------------------------------------------------------
static bool read_flags(mica_added_token *t, const mica_json *v, const char *what, mica_error *err) {
    return mica_json_bool(v, "special", false, &t->special, what, err) &&
           mica_json_bool(v, "single_word", false, &t->single_word, what, err) &&
           mica_json_bool(v, "lstrip", false, &t->lstrip, what, err) && mica_json_bool(v, "rstrip", false, &t->rstrip, what, err) &&
           mica_json_bool(v, "normalized", !t->special, &t->is_normalized, what, err);
}

/** The vocabulary's id, else the next free number at or above the number of entries. */
static uint32_t number(const mica_tables *tables, const char *s, size_t n, uint32_t *next) {
    int32_t id = mica_tables_find(tables, s, n);
    return id >= 0 ? (uint32_t)id : (*next)++;
}

/** The slot for a token: that of an earlier one with the same content, else a new one. */
static mica_added_token *slot_for(mica_added *a, const char *s, size_t n, bool *is_new, mica_error *err) {
    uintptr_t found;
    *is_new = !mica_strmap_get(&a->by_content, s, n, &found);
    if (!*is_new) return &a->tokens[found - 1];
    if (!mica_grow(&a->tokens, &a->capacity, a->count + 1, sizeof *a->tokens)) return mica_fail_memory(err, sizeof *a->tokens, "added token"), NULL;
    mica_added_token *t = &a->tokens[a->count];
    *t = (mica_added_token){.size = n, .content = mica_strndup(s, n)};
    if (!t->content) return mica_fail_memory(err, n, "added token"), NULL;
    a->count++;
    if (!mica_strmap_put(&a->by_content, t->content, n, a->count)) return mica_fail_memory(err, n, "added token"), NULL;
    return t;
}

static bool add_token(mica_added *a, const mica_json *v, const mica_tables *tables, uint32_t *next, const char *what, mica_error *err) {
    const char *s;
    size_t n;
    bool is_new;
    mica_added_token flags = {0};
    if (v->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: \"added_tokens\" must hold objects", what);
    if (!mica_component_string(v, "content", &s, &n, what, err) || !read_flags(&flags, v, what, err)) return false;
    if (!n) return true;
    mica_added_token *t = slot_for(a, s, n, &is_new, err);
    if (!t) return false;
    // Once special, always special: the reference keeps a set of contents.
    t->special |= flags.special;
    t->single_word = flags.single_word, t->lstrip = flags.lstrip, t->rstrip = flags.rstrip, t->is_normalized = flags.is_normalized;
    if (is_new) t->id = number(tables, s, n, next);
    if (t->id > MICA_MAX_TOKEN_ID) return mica_fail(err, MICA_ERR_FORMAT, "%s: too many added tokens", what);
    return true;
}

static bool normalize_token(mica_added_token *t, const mica_normalizer *norm, mica_buf buffers[2], mica_error *err) {
    const char *s;
    size_t n;
    if (!t->is_normalized) return true;
    if (!mica_normalizer_run(norm, t->content, t->size, buffers, &s, &n, NULL, err)) return false;
    if (n == t->size && !memcmp(s, t->content, n)) return true;
    t->normalized_size = n;
    return (t->normalized = mica_strndup(s, n)) || mica_fail_memory(err, n, "added token");
}

static bool build_tries(mica_added *a, const char *what, mica_error *err) {
    for (size_t i = 0; i < a->count; i++) {
        mica_added_token *t = &a->tokens[i];
        const char *s = t->normalized ? t->normalized : t->content;
        size_t n = t->normalized ? t->normalized_size : t->size;
        mica_trie *trie = t->is_normalized ? &a->normalized : &a->raw;
        if (!n) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: added token \"%.60s\" is empty once normalised", what, t->content);
        uint32_t node = insert(trie, s, n);
        a->special_normalized |= t->is_normalized && t->special;
        if (!node) return mica_fail_memory(err, n, "added tokens");
        if (!trie->nodes[node].token1) trie->nodes[node].token1 = (uint32_t)i + 1; // of equals, the first in the file
    }
    return true;
}

static bool index_ids(mica_added *a, mica_error *err) {
    for (size_t i = 0; i < a->count; i++) a->limit = MICA_MAX(a->limit, a->tokens[i].id + 1);
    if (!(a->by_id = mica_calloc(a->limit, sizeof *a->by_id))) return mica_fail_memory(err, a->limit * sizeof *a->by_id, "added tokens");
    for (size_t i = 0; i < a->count; i++) a->by_id[a->tokens[i].id] = (uint32_t)i + 1;
    return true;
}

bool mica_added_read(mica_added *a, const mica_json *v, const mica_tables *t, const mica_normalizer *norm, const char *what, mica_error *err) {
    mica_buf buffers[2] = {{0}, {0}};
    uint32_t next = t->entry_count;
    mica_uc_init();
    if (v && v->type != MICA_JSON_ARRAY && v->type != MICA_JSON_NULL)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: \"added_tokens\" must be an array", what);
    for (const mica_json *m = v ? v->child : NULL; m; m = m->next)
        if (!add_token(a, m, t, &next, what, err)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < a->count; i++) ok = normalize_token(&a->tokens[i], norm, buffers, err);
    mica_buf_free(&buffers[0]);
    mica_buf_free(&buffers[1]);
    return ok && build_tries(a, what, err) && index_ids(a, err);
}

void mica_added_free(mica_added *a) {
    for (size_t i = 0; i < a->count; i++) {
        mica_free(a->tokens[i].content);
        mica_free(a->tokens[i].normalized);
    }
    mica_free(a->tokens);
    mica_free(a->by_id);
    mica_free(a->raw.nodes);
    mica_free(a->normalized.nodes);
    mica_strmap_free(&a->by_content);
    memset(a, 0, sizeof *a);
}

const mica_added_token *mica_added_get(const mica_added *a, uint32_t id) {
    return id < a->limit && a->by_id[id] ? &a->tokens[a->by_id[id] - 1] : NULL;
}
