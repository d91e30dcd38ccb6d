// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizers: a chain of steps that cut a piece of normalised text into words, the units of BPE.
#ifndef MICA_TEXT_PRETOK_H
#define MICA_TEXT_PRETOK_H

#include "base/json.h"
#include "text/regex.h"
#include "text/scanner.h"

typedef struct mica_piece {
    size_t start, end; // bytes in the text
} mica_piece;

typedef enum { MICA_SPLIT_ISOLATED, MICA_SPLIT_REMOVED, MICA_SPLIT_CONTIGUOUS, MICA_SPLIT_WITH_PREVIOUS,
               MICA_SPLIT_WITH_NEXT } mica_split_behavior;

typedef enum { MICA_PRE_SPLIT, MICA_PRE_BYTE_LEVEL, MICA_PRE_METASPACE, MICA_PRE_DIGITS, MICA_PRE_PUNCTUATION,
               MICA_PRE_WHITESPACE, MICA_PRE_WHITESPACE_SPLIT, MICA_PRE_DELIMITER, MICA_PRE_FIXED_LENGTH } mica_pretok_type;

typedef enum { MICA_PREPEND_ALWAYS, MICA_PREPEND_FIRST, MICA_PREPEND_NEVER } mica_prepend_scheme;

typedef struct mica_pretok_step {
    mica_pretok_type type;
    mica_split_behavior behavior;
    bool invert, split, use_regex, add_prefix_space;
    mica_prepend_scheme scheme;
    mica_scan_fn *scanner; // Split: a pattern with a scanner of its own
    mica_regex *regex;     // Split: any other pattern
    char *literal;         // Split: a plain string
    size_t literal_size;
    uint32_t character; // Metaspace, CharDelimiterSplit
    size_t length;      // FixedLength
} mica_pretok_step;

typedef struct mica_pretok {
    mica_pretok_step *steps;
    size_t count, capacity;
    bool raw_bytes; // the last step is ByteLevel: words stay bytes, the model maps them to characters
} mica_pretok;

typedef struct mica_span {
    size_t start, end;
    bool is_match;
} mica_span;

/** Working space of one encode call, reused by later ones. */
typedef struct mica_pieces {
    mica_piece *items, *next; // the pieces; those that the running step makes
    size_t count, capacity, next_count, next_capacity;
    mica_span *spans; // matches and gaps of one piece
    size_t span_count, span_capacity;
    const char *base; // what the pieces index
    mica_buf text, next_text;
} mica_pieces;

bool mica_pretok_read(mica_pretok *p, const mica_json *v, const char *what, mica_error *err);
void mica_pretok_free(mica_pretok *p);
/** Cuts text[0…n) into pieces->items, which index pieces->base. at_start: the text begins the whole input. */
bool mica_pretok_run(const mica_pretok *p, const char *text, size_t n, bool at_start, mica_pieces *pieces, mica_error *err);
void mica_pieces_free(mica_pieces *pieces);

/** GPT-2's byte <-> character map. */
uint32_t mica_byte_to_char(unsigned char byte);
/** The byte of a character of that map, or -1. */
int mica_char_to_byte(uint32_t cp);
#endif
