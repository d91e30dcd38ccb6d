// SPDX-License-Identifier: Apache-2.0
// Added tokens: strings that are tokens of their own wherever they stand in a text, found before anything else
// (or after normalising, if so marked); leftmost match first, longest of those.
#ifndef MICA_TEXT_ADDED_H
#define MICA_TEXT_ADDED_H

#include "mica/tokenizer.h"
#include "text/normalizer.h"
#include "text/tables.h"

typedef struct mica_added_token {
    char *content;    // as written
    char *normalized; // as matched and decoded, if normalising changes it; else NULL
    size_t size, normalized_size;
    uint32_t id;
    bool special, single_word, lstrip, rstrip, is_normalized;
} mica_added_token;

typedef struct mica_trie_node {
    uint32_t child, sibling; // 0: none
    uint32_t token1;         // index of the token that ends here + 1
    unsigned char byte;
} mica_trie_node;

typedef struct mica_trie {
    mica_trie_node *nodes; // nodes[0] is unused
    size_t count, capacity;
    uint32_t root[256];
} mica_trie;

typedef struct mica_added {
    mica_added_token *tokens;
    size_t count, capacity;
    mica_strmap by_content; // content -> index + 1
    uint32_t *by_id;        // id -> index + 1, for ids below limit
    uint32_t limit;
    mica_trie raw, normalized; // matched before and after normalising
    bool special_normalized;   // there are special ones among the latter
} mica_added;

/** Reads "added_tokens". Ids are those of the vocabulary; others are numbered on from its end, as the reference does. */
bool mica_added_read(mica_added *a, const mica_json *v, const mica_tables *t, const mica_normalizer *n, const char *what, mica_error *err);
void mica_added_free(mica_added *a);
/** NULL if id is no added token. */
const mica_added_token *mica_added_get(const mica_added *a, uint32_t id);

/** Where special tokens are not looked for. */
typedef struct mica_added_limits {
    bool plain;             // nowhere
    const mica_mark *marks; // where a token would touch one of these, which are in order and apart
    size_t mark_count;
} mica_added_limits;

/** The next added token in s[*from…n): its span is *start, *end. NULL: none; *from moves behind the match otherwise.
 * `taken`: end of the text that an earlier match has used. */
const mica_added_token *mica_added_next(const mica_added *a, const mica_trie *trie, const char *s, size_t n, const mica_added_limits *limits, size_t taken,
                                        size_t *from, size_t *start, size_t *end);
#endif
