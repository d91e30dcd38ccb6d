// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizers, as Hugging Face tokenizers defines them. A step finds the matches and gaps of a piece ("spans"),
// then its behaviour says which spans stand alone, merge or vanish; empty pieces are dropped.
#include "text/pretok.h"
#include "base/utf8.h"
#include "text/unicode.h"
#include <string.h>

// ---- GPT-2's byte map ------------------------------------------------------------------------------
static bool byte_stays(uint32_t b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE; }

uint32_t mica_byte_to_char(unsigned char byte) {
    if (byte_stays(byte)) return byte;
    return byte <= 0x20 ? 0x100u + byte : byte <= 0xA0 ? 0x121u + (byte - 0x7Fu) : 0x143u; // the rest, in order, from U+0100
}

int mica_char_to_byte(uint32_t cp) {
    if (cp < 0x100) return byte_stays(cp) ? (int)cp : -1;
    if (cp <= 0x120) return (int)cp - 0x100;
    return cp <= 0x142 ? (int)cp - 0x121 + 0x7F : cp == 0x143 ? 0xAD : -1;
}

// ---- output ----------------------------------------------------------------------------------------
static bool push(mica_pieces *w, size_t start, size_t end) {
    if (start == end) return true;
    if (w->next_count == w->next_capacity && !mica_grow(&w->next, &w->next_capacity, w->next_count + 1, sizeof *w->next)) return false;
    w->next[w->next_count++] = (mica_piece){start, end};
    return true;
}

static bool push_span(mica_pieces *w, size_t start, size_t end, bool is_match) {
    if (!mica_grow(&w->spans, &w->span_capacity, w->span_count + 1, sizeof *w->spans)) return false;
    w->spans[w->span_count++] = (mica_span){start, end, is_match};
    return true;
}

static bool push_contiguous(mica_pieces *w) {
    for (size_t i = 0, end; i < w->span_count; i = end) {
        for (end = i + 1; end < w->span_count && w->spans[end].is_match == w->spans[i].is_match;) end++;
        if (!push(w, w->spans[i].start, w->spans[end - 1].end)) return false;
    }
    return true;
}

/** A match joins the span before it, unless that is a match too. */
static bool push_with_previous(mica_pieces *w) {
    for (size_t i = 0, end; i < w->span_count; i = end) {
        end = i + 1;
        if (!w->spans[i].is_match && end < w->span_count && w->spans[end].is_match) end++;
        if (!push(w, w->spans[i].start, w->spans[end - 1].end)) return false;
    }
    return true;
}

/** A match joins the span behind it, unless that is a match too. */
static bool push_with_next(mica_pieces *w) {
    for (size_t i = 0, end; i < w->span_count; i = end) {
        end = i + 1;
        if (w->spans[i].is_match && end < w->span_count && !w->spans[end].is_match) end++;
        if (!push(w, w->spans[i].start, w->spans[end - 1].end)) return false;
    }
    return true;
}

static bool push_spans(mica_pieces *w, mica_split_behavior behavior) {
    if (behavior == MICA_SPLIT_CONTIGUOUS) return push_contiguous(w);
    if (behavior == MICA_SPLIT_WITH_PREVIOUS) return push_with_previous(w);
    if (behavior == MICA_SPLIT_WITH_NEXT) return push_with_next(w);
    for (size_t i = 0; i < w->span_count; i++) {
        if (behavior == MICA_SPLIT_REMOVED && w->spans[i].is_match) continue;
        if (!push(w, w->spans[i].start, w->spans[i].end)) return false;
    }
    return true;
}

// ---- finding spans ---------------------------------------------------------------------------------
typedef struct match_sink {
    mica_pieces *pieces;
    size_t base, last; // where the piece starts; end of the last match, from there
    bool invert, no_memory;
} match_sink;

static bool on_match(void *ctx, size_t start, size_t end) {
    match_sink *m = ctx;
    bool ok = start == m->last || push_span(m->pieces, m->base + m->last, m->base + start, m->invert);
    ok = ok && push_span(m->pieces, m->base + start, m->base + end, !m->invert);
    m->last = end;
    m->no_memory = !ok;
    return ok;
}

static bool split_regex(const mica_pretok_step *s, mica_pieces *w, mica_piece piece, mica_error *err) {
    match_sink m = {.pieces = w, .base = piece.start, .invert = s->invert};
    size_t n = piece.end - piece.start;
    if (!mica_regex_each(s->regex, w->base + piece.start, n, on_match, &m, err))
        return m.no_memory ? mica_fail_memory(err, n, "text") : false;
    return m.last == n || push_span(w, piece.start + m.last, piece.end, s->invert) || mica_fail_memory(err, n, "text");
}

static bool split_literal(const mica_pretok_step *s, mica_pieces *w, mica_piece piece) {
    match_sink m = {.pieces = w, .base = piece.start, .invert = s->invert};
    const char *text = w->base + piece.start;
    size_t n = piece.end - piece.start;
    while (s->literal_size) {
        const char *at = memmem(text + m.last, n - m.last, s->literal, s->literal_size);
        if (!at) break;
        size_t start = (size_t)(at - text);
        if (!on_match(&m, start, start + s->literal_size)) return false;
    }
    return m.last == n || push_span(w, piece.start + m.last, piece.end, s->invert);
}

/** What each character is to a step that looks at single characters. */
static bool char_matches(const mica_pretok_step *s, uint32_t cp) {
    switch (s->type) {
    case MICA_PRE_DIGITS: return mica_uc(cp) & MICA_UC_DIGIT;
    case MICA_PRE_PUNCTUATION: return mica_uc(cp) & MICA_UC_PUNCTUATION;
    case MICA_PRE_WHITESPACE_SPLIT: return mica_uc_space(cp);
    default: return cp == s->character;
    }
}

/** Every matching character is a span of its own. */
static bool split_chars(const mica_pretok_step *s, mica_pieces *w, mica_piece piece) {
    size_t gap = piece.start;
    for (size_t i = piece.start, len; i < piece.end; i += len) {
        uint32_t cp;
        if (!(len = mica_utf8_decode(w->base + i, piece.end - i, &cp))) return false;
        if (!char_matches(s, cp)) continue;
        if (gap < i && !push_span(w, gap, i, false)) return false;
        if (!push_span(w, i, i + len, true)) return false;
        gap = i + len;
    }
    return gap == piece.end || push_span(w, gap, piece.end, false);
}

/** `\w+|[^\w\s]+`, white space removed. */
static bool split_words(mica_pieces *w, mica_piece piece) {
    size_t start = piece.start;
    int previous = 0;
    for (size_t i = piece.start, len; i <= piece.end; i += len) {
        uint32_t cp;
        int kind = 0; // 0: space, 1: word, 2: other
        len = 1;
        if (i < piece.end) {
            if (!(len = mica_utf8_decode(w->base + i, piece.end - i, &cp))) return false;
            kind = mica_uc_space(cp) ? 0 : mica_uc(cp) & MICA_UC_WORD ? 1 : 2;
        }
        if (kind == previous) continue;
        if (previous && !push(w, start, i)) return false;
        start = i, previous = kind;
    }
    return true;
}

static bool split_length(const mica_pretok_step *s, mica_pieces *w, mica_piece piece) {
    size_t start = piece.start, chars = 0;
    for (size_t i = piece.start; i < piece.end;) {
        for (i++; i < piece.end && ((unsigned char)w->base[i] & 0xC0) == 0x80;) i++;
        if (++chars < s->length && i < piece.end) continue;
        if (!push(w, start, i)) return false;
        start = i, chars = 0;
    }
    return true;
}

static bool split_scanner(mica_scan_fn *scan, mica_pieces *w, mica_piece piece) {
    for (size_t i = piece.start, len; i < piece.end; i += len) {
        len = scan(w->base + i, piece.end - i);
        if (!push(w, i, i + len)) return false;
    }
    return true;
}

static bool split_piece(const mica_pretok_step *s, mica_pieces *w, mica_piece piece, mica_error *err) {
    bool ok;
    w->span_count = 0;
    if (s->scanner) ok = split_scanner(s->scanner, w, piece);
    else if (s->type == MICA_PRE_WHITESPACE) ok = split_words(w, piece);
    else if (s->type == MICA_PRE_FIXED_LENGTH) ok = split_length(s, w, piece);
    else if (s->regex) return split_regex(s, w, piece, err) && (push_spans(w, s->behavior) || mica_fail_memory(err, 0, "text"));
    else ok = (s->type == MICA_PRE_SPLIT ? split_literal(s, w, piece) : split_chars(s, w, piece)) && push_spans(w, s->behavior);
    return ok || mica_fail_memory(err, piece.end - piece.start, "text");
}

// ---- steps -----------------------------------------------------------------------------------------
static void swap_pieces(mica_pieces *w) {
    mica_piece *items = w->items;
    size_t capacity = w->capacity;
    w->items = w->next, w->capacity = w->next_capacity, w->count = w->next_count;
    w->next = items, w->next_capacity = capacity, w->next_count = 0;
}

static bool split_all(const mica_pretok_step *s, mica_pieces *w, mica_error *err) {
    w->next_count = 0;
    for (size_t i = 0; i < w->count; i++)
        if (!split_piece(s, w, w->items[i], err)) return false;
    swap_pieces(w);
    return true;
}

static bool starts_with(const mica_pieces *w, mica_piece piece, const char *s, size_t n) {
    return piece.end - piece.start >= n && !memcmp(w->base + piece.start, s, n);
}

/** Writes one piece to next_text as the step spells it. */
static bool rewrite_metaspace(const mica_pretok_step *s, mica_pieces *w, mica_piece piece, bool first) {
    char mark[4];
    size_t n = mica_utf8_encode(s->character, mark);
    bool begins = starts_with(w, piece, mark, n) || starts_with(w, piece, " ", 1);
    if (!begins && (s->scheme == MICA_PREPEND_ALWAYS || (s->scheme == MICA_PREPEND_FIRST && first)))
        mica_buf_append(&w->next_text, mark, n);
    for (size_t i = piece.start; i < piece.end;) {
        const char *space = memchr(w->base + i, ' ', piece.end - i);
        size_t end = space ? (size_t)(space - w->base) : piece.end;
        mica_buf_append(&w->next_text, w->base + i, end - i);
        if (space) mica_buf_append(&w->next_text, mark, n);
        i = end + (space != NULL);
    }
    return !w->next_text.failed;
}

static bool rewrite_prefix(mica_pieces *w, mica_piece piece) {
    if (!starts_with(w, piece, " ", 1)) mica_buf_putc(&w->next_text, ' ');
    return mica_buf_append(&w->next_text, w->base + piece.start, piece.end - piece.start);
}

static bool rewrite_bytes(mica_pieces *w, mica_piece piece) {
    char bytes[4];
    for (size_t i = piece.start; i < piece.end; i++)
        if (!mica_buf_append(&w->next_text, bytes, mica_utf8_encode(mica_byte_to_char((unsigned char)w->base[i]), bytes))) return false;
    return true;
}

typedef enum { TO_METASPACE, TO_PREFIXED, TO_BYTE_CHARS } rewrite_kind;

static bool rewrite_all(const mica_pretok_step *s, mica_pieces *w, rewrite_kind kind, bool at_start, mica_error *err) {
    w->next_text.len = 0;
    bool ok = mica_buf_reserve(&w->next_text, 1);
    for (size_t i = 0; ok && i < w->count; i++) {
        mica_piece piece = w->items[i];
        size_t start = w->next_text.len;
        ok = kind == TO_METASPACE ? rewrite_metaspace(s, w, piece, at_start && piece.start == 0)
           : kind == TO_PREFIXED ? rewrite_prefix(w, piece) : rewrite_bytes(w, piece);
        w->items[i] = (mica_piece){start, w->next_text.len};
    }
    if (!ok) {
        mica_buf_free(&w->next_text); // a failed buffer stays failed
        return mica_fail_memory(err, 0, "text");
    }
    mica_buf text = w->text;
    w->text = w->next_text, w->next_text = text;
    w->base = w->text.data;
    return true;
}

static bool run_step(const mica_pretok_step *s, bool last_raw, bool at_start, mica_pieces *w, mica_error *err) {
    if (s->type == MICA_PRE_METASPACE)
        return rewrite_all(s, w, TO_METASPACE, at_start, err) && (!s->split || split_all(s, w, err));
    if (s->type != MICA_PRE_BYTE_LEVEL) return split_all(s, w, err);
    if (s->add_prefix_space && !rewrite_all(s, w, TO_PREFIXED, at_start, err)) return false;
    if (s->use_regex && !split_all(s, w, err)) return false;
    return last_raw || rewrite_all(s, w, TO_BYTE_CHARS, at_start, err);
}

bool mica_pretok_run(const mica_pretok *p, const char *text, size_t n, bool at_start, mica_pieces *w, mica_error *err) {
    enum { MAX_GROWTH = 64 }; // as in the normaliser
    size_t most = n > SIZE_MAX / MAX_GROWTH - 65536 ? SIZE_MAX : (n + 65536) * MAX_GROWTH;
    w->base = text;
    w->next_count = 0;
    if (!push(w, 0, n)) return mica_fail_memory(err, sizeof(mica_piece), "text");
    swap_pieces(w);
    for (size_t i = 0; i < p->count; i++) {
        if (!run_step(&p->steps[i], p->raw_bytes && i + 1 == p->count, at_start, w, err)) return false;
        if (w->text.len > most) return mica_fail(err, MICA_ERR_UNSUPPORTED, "tokenizer: cutting makes the text more than %d times as long", MAX_GROWTH);
    }
    return true;
}

void mica_pieces_free(mica_pieces *w) {
    mica_free(w->items);
    mica_free(w->next);
    mica_free(w->spans);
    mica_buf_free(&w->text);
    mica_buf_free(&w->next_text);
    *w = (mica_pieces){0};
}
