// SPDX-License-Identifier: Apache-2.0
// Tokens of a template. The rules are those of Jinja's lexer: text up to the next {{, {% or {#, with whitespace taken off as the
// signs at the tags, lstrip_blocks and trim_blocks ask for; inside a tag, an end sign counts only outside of brackets.
#include "base/utf8.h"
#include "text/template_parse.h"
#include "text/template_unicode.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BRACKETS = 200 };

typedef struct lexer {
    mica_trun *r;
    mica_ttokens *tokens;
    const char *s; // with \n as the only line end
    size_t n, at;
    uint32_t line;
    size_t counted;      // line is that of this place
    bool line_starting;  // the last thing read ended in a newline, or nothing was read yet
    char brackets[MOST_BRACKETS];
    size_t depth;
} lexer;

static void set_line(lexer *x, size_t at) {
    for (; x->counted < at; x->counted++) x->line += x->s[x->counted] == '\n';
    x->r->line = x->line;
}

static mica_ttoken *put(lexer *x, mica_ttoken_kind kind, size_t at) {
    mica_ttokens *t = x->tokens;
    set_line(x, at);
    if (!mica_grow(&t->items, &t->capacity, t->count + 1, sizeof *t->items)) {
        mica_t_fail_code(x->r, MICA_ERR_NO_MEMORY, "out of memory: %zu bytes for tokens", t->count * sizeof *t->items);
        return NULL;
    }
    mica_ttoken *token = &t->items[t->count++];
    *token = (mica_ttoken){.kind = kind, .line = x->line};
    return token;
}

static bool put_text(lexer *x, mica_ttoken_kind kind, size_t at, const char *s, size_t n) {
    const mica_tstr *text = mica_t_text(x->r, s, n, false);
    mica_ttoken *token = text ? put(x, kind, at) : NULL;
    if (token) token->value = mica_t_string(text);
    return token != NULL;
}

static bool starts(const lexer *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return n <= x->n - at && !memcmp(x->s + at, what, n);
}

static size_t skip_space(const lexer *x, size_t at) {
    uint32_t cp;
    for (size_t len; at < x->n && (len = mica_utf8_decode(x->s + at, x->n - at, &cp)) && mica_py_space(cp);) at += len;
    return at;
}

/** Where s[from…to) ends without the whitespace behind it. */
static size_t trim_end(const lexer *x, size_t from, size_t to) {
    while (to > from) {
        size_t start = to - 1;
        uint32_t cp;
        while (start > from && ((unsigned char)x->s[start] & 0xC0) == 0x80) start--;
        if (!mica_utf8_decode(x->s + start, to - start, &cp) || !mica_py_space(cp)) break;
        to = start;
    }
    return to;
}

/** The text before a tag: what of s[from…to) stays. sign: the one at the tag; lstrip: whether the tag is no variable. */
static size_t strip_text(const lexer *x, size_t from, size_t to, char sign, bool lstrip) {
    if (sign == '-') return trim_end(x, from, to);
    if (sign == '+' || !lstrip) return to;
    size_t line = to;
    while (line > from && x->s[line - 1] != '\n') line--;
    if (line == from && !x->line_starting) return to;
    return skip_space(x, line) >= to ? line : to;
}

/** The end sign of a tag ("%}" or "#}"), with its own sign and what it takes with it: 0, or the place behind it. */
static size_t end_of_tag(const lexer *x, size_t at, const char *end, bool trims, bool plus) {
    if (starts(x, at, end)) {
        at += 2;
        return trims && at < x->n && x->s[at] == '\n' ? at + 1 : at;
    }
    if (at >= x->n || !starts(x, at + 1, end)) return 0;
    if (x->s[at] == '+' && plus) return at + 3;
    return x->s[at] == '-' ? skip_space(x, at + 3) : 0;
}

static char sign_at(const lexer *x, size_t at) { return at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0; }

/** "{% NAME %}" at a place: the place behind it, or 0. */
static size_t simple_block(const lexer *x, size_t at, const char *name, bool begins_raw) {
    at += sign_at(x, at + 2) ? 3 : 2;
    at = skip_space(x, at);
    if (!starts(x, at, name)) return 0;
    at = skip_space(x, at + strlen(name));
    return end_of_tag(x, at, "%}", !begins_raw, !begins_raw);
}

static bool put_data(lexer *x, size_t from, size_t to) { return from >= to || put_text(x, MICA_TOK_DATA, from, x->s + from, to - from); }

static void advance(lexer *x, size_t to) {
    x->line_starting = to > x->at ? x->s[to - 1] == '\n' : x->line_starting;
    x->at = to;
}

static bool lex_raw(lexer *x, size_t body) {
    advance(x, body);
    for (size_t i = body; i + 1 < x->n; i++) {
        size_t end = starts(x, i, "{%") ? simple_block(x, i, "endraw", false) : 0;
        if (!end) continue;
        if (!put_data(x, body, strip_text(x, body, i, sign_at(x, i + 2), true))) return false;
        advance(x, end);
        return true;
    }
    return mica_t_fail(x->r, "Missing end of raw directive");
}

static bool lex_comment(lexer *x, size_t at) {
    set_line(x, at);
    for (size_t i = at; i < x->n; i++) {
        size_t end = end_of_tag(x, i, "#}", true, true);
        if (!end) continue;
        advance(x, end);
        return true;
    }
    return mica_t_fail(x->r, "Missing end of comment tag");
}

// ---- inside a tag ------------------------------------------------------------------------------------------
static bool is_name_char(uint32_t cp) { return cp == '_' || mica_py_alnum(cp) || mica_py_mark(cp); }

static bool lex_name(lexer *x) {
    size_t start = x->at, end = start, len;
    uint32_t cp;
    while (end < x->n && (len = mica_utf8_decode(x->s + end, x->n - end, &cp)) && is_name_char(cp)) end += len;
    if (!put_text(x, MICA_TOK_NAME, start, x->s + start, end - start)) return false;
    return advance(x, end), true;
}

/** Digits with single underscores between them: the place behind. */
static size_t digits(const lexer *x, size_t at, int base) {
    bool any = false;
    for (; at < x->n; at++) {
        unsigned char c = (unsigned char)x->s[at] | 0x20, d = x->s[at] == '_' ? '_' : c;
        int value = d >= '0' && d <= '9' ? d - '0' : d >= 'a' && d <= 'f' ? d - 'a' + 10 : 99;
        if (value < base) any = true;
        else if (d != '_' || !any || x->s[at - 1] == '_') break;
    }
    return at && x->s[at - 1] == '_' ? at - 1 : at;
}

/** The place behind a float at the current place, or 0. */
static size_t float_end(const lexer *x) {
    size_t at = digits(x, x->at, 10), whole = at;
    if (x->at && x->s[x->at - 1] == '.') return 0;
    if (at + 1 < x->n && x->s[at] == '.' && x->s[at + 1] >= '0' && x->s[at + 1] <= '9') at = digits(x, at + 1, 10);
    if (at < x->n && (x->s[at] | 0x20) == 'e') {
        size_t e = at + 1 + (at + 1 < x->n && (x->s[at + 1] == '+' || x->s[at + 1] == '-'));
        if (e < x->n && x->s[e] >= '0' && x->s[e] <= '9') at = digits(x, e, 10);
    }
    return at > whole ? at : 0;
}

/** The number spelled s[from…to), without its underscores. */
static bool put_number(lexer *x, size_t from, size_t to, bool real, int base) {
    char text[400];
    size_t n = 0;
    for (size_t i = from; i < to && n + 1 < sizeof text; i++)
        if (x->s[i] != '_') text[n++] = x->s[i];
    text[n] = 0;
    set_line(x, from);
    errno = 0;
    long long whole = real ? 0 : strtoll(text, NULL, base);
    if (to - from >= sizeof text || (!real && errno)) return mica_t_fail_code(x->r, MICA_ERR_UNSUPPORTED, "integers beyond 64 bits are not supported");
    mica_ttoken *token = put(x, MICA_TOK_NUMBER, from);
    if (token) token->value = real ? mica_t_float(strtod(text, NULL)) : mica_t_int(whole);
    return token != NULL;
}

static bool lex_number(lexer *x) {
    size_t start = x->at, end = float_end(x);
    int base = 10;
    bool real = end != 0, ok;
    if (real) {
        ok = put_number(x, start, end, true, 10);
    } else {
        char kind = x->s[start] == '0' && start + 1 < x->n ? (char)(x->s[start + 1] | 0x20) : 0;
        base = kind == 'b' ? 2 : kind == 'o' ? 8 : kind == 'x' ? 16 : 10;
        if (base != 10) {
            size_t from = start + 2 + (start + 2 < x->n && x->s[start + 2] == '_');
            end = digits(x, from, base);
            if (end == from) end = start + 1, base = 10; // a zero, and a name behind it
            ok = put_number(x, base == 10 ? start : from, end, false, base);
        } else {
            end = digits(x, start, 10);
            if (x->s[start] == '0') // only zeros may follow
                for (end = start + 1; end < x->n && (x->s[end] == '0' || (x->s[end] == '_' && end + 1 < x->n && x->s[end + 1] == '0'));) end++;
            ok = put_number(x, start, end, false, 10);
        }
    }
    return advance(x, end), ok;
}

static bool hex_digits(const char *s, size_t n, size_t want, uint32_t *value) {
    *value = 0;
    for (size_t i = 0; i < want; i++) {
        int c = i < n ? s[i] | 0x20 : 0;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')) || s[i] < '0') return false;
        *value = *value * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

/** \xhh, \uhhhh, \Uhhhhhhhh; two halves of a pair in a row are one character. */
static bool unescape_hex(lexer *x, const char *s, size_t n, size_t *i, mica_tbuf *out) {
    uint32_t cp, low;
    size_t want = s[*i] == 'x' ? 2 : s[*i] == 'u' ? 4 : 8;
    if (!hex_digits(s + *i + 1, n - *i - 1, want, &cp)) return mica_t_fail(x->r, "truncated \\%c escape", s[*i]);
    *i += 1 + want;
    if (cp >= 0xD800 && cp < 0xDC00 && n - *i >= 6 && s[*i] == '\\' && s[*i + 1] == 'u' && hex_digits(s + *i + 2, n - *i - 2, 4, &low) &&
        low >= 0xDC00 && low < 0xE000) {
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
        *i += 6;
    }
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000)) return mica_t_fail(x->r, "\\%c escape is no character", want == 2 ? 'x' : 'u');
    return mica_tbuf_char(out, cp, false);
}

/** One escape sequence, i at the character behind the backslash. */
static bool unescape(lexer *x, const char *s, size_t n, size_t *i, mica_tbuf *out) {
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = s[*i];
    for (size_t k = 0; k + 1 < sizeof plain; k += 2)
        if (plain[k] == c) return ++*i, mica_tbuf_add(out, &plain[k + 1], 1, false);
    if (c == '\n') return ++*i, true;
    if (c == 'x' || c == 'u' || c == 'U') return unescape_hex(x, s, n, i, out);
    if (c == 'N') return mica_t_fail_code(x->r, MICA_ERR_UNSUPPORTED, "\\N{…} escapes are not supported");
    if (c >= '0' && c <= '7') {
        uint32_t cp = 0;
        for (size_t k = 0; k < 3 && *i < n && s[*i] >= '0' && s[*i] <= '7'; k++) cp = cp * 8 + (uint32_t)(s[(*i)++] - '0');
        return mica_tbuf_char(out, cp, false);
    }
    return mica_tbuf_add(out, "\\", 1, false); // not an escape: the backslash stays
}

static bool lex_string(lexer *x) {
    size_t start = x->at + 1, end = start;
    char quote = x->s[x->at];
    while (end < x->n && x->s[end] != quote) end += x->s[end] == '\\' ? 2 : 1;
    set_line(x, x->at);
    if (end >= x->n) return mica_t_fail(x->r, "unexpected char %s at %zu", quote == '"' ? "'\"'" : "\"'\"", x->at);
    mica_tbuf b = {.r = x->r};
    const char *s = x->s + start;
    for (size_t i = 0, n = end - start; i < n;) {
        size_t run = i;
        while (run < n && s[run] != '\\') run++;
        if (!mica_tbuf_add(&b, s + i, run - i, false)) return false;
        i = run + 1;
        if (run < n && !unescape(x, s, n, &i, &b)) return false;
    }
    const mica_tstr *text = mica_tbuf_take(&b);
    mica_ttoken *token = text ? put(x, MICA_TOK_STRING, x->at) : NULL;
    if (!token) return false;
    token->value = mica_t_string(text);
    return advance(x, end + 1), true;
}

static bool bracket(lexer *x, char c) {
    if (strchr("([{", c)) {
        if (x->depth == MOST_BRACKETS) return mica_t_fail(x->r, "brackets are nested too deeply");
        x->brackets[x->depth++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (!x->depth) return mica_t_fail(x->r, "unexpected '%c'", c);
        if (x->brackets[--x->depth] != c) return mica_t_fail(x->r, "unexpected '%c', expected '%c'", c, x->brackets[x->depth]);
    }
    return true;
}

static bool lex_operator(lexer *x) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    char op[3] = {x->s[x->at], 0, 0};
    set_line(x, x->at);
    for (size_t i = 0; i < MICA_COUNT(two); i++)
        if (starts(x, x->at, two[i])) op[1] = two[i][1];
    if (!op[1] && (!op[0] || !strchr("+-/*%~[](){}><=.:|,;", op[0]))) {
        uint32_t cp = 0;
        size_t len = mica_utf8_decode(x->s + x->at, x->n - x->at, &cp);
        return mica_t_fail(x->r, "unexpected char '%.*s' at %zu", (int)len, x->s + x->at, x->at);
    }
    if (!op[1] && !bracket(x, op[0])) return false;
    mica_ttoken *token = put(x, MICA_TOK_OPERATOR, x->at);
    if (!token) return false;
    memcpy(token->op, op, sizeof op);
    return advance(x, x->at + 1 + (op[1] != 0)), true;
}

/** The tokens of a tag up to its end. */
static bool lex_tag(lexer *x, bool block) {
    x->depth = 0;
    for (;;) {
        size_t end = 0;
        if (!x->depth) end = block ? end_of_tag(x, x->at, "%}", true, true) : end_of_tag(x, x->at, "}}", false, false);
        if (end) {
            bool ok = put(x, block ? MICA_TOK_BLOCK_END : MICA_TOK_VARIABLE_END, x->at) != NULL;
            return advance(x, end), ok;
        }
        advance(x, skip_space(x, x->at));
        if (x->at >= x->n) return true; // the parser complains
        if (!x->depth && (block ? end_of_tag(x, x->at, "%}", true, true) : end_of_tag(x, x->at, "}}", false, false))) continue;
        char c = x->s[x->at];
        uint32_t cp = 0;
        mica_utf8_decode(x->s + x->at, x->n - x->at, &cp);
        bool ok = c >= '0' && c <= '9' ? lex_number(x) : is_name_char(cp) ? lex_name(x) : c == '\'' || c == '"' ? lex_string(x) : lex_operator(x);
        if (!ok) return false;
    }
}

static bool lex_one(lexer *x) {
    size_t from = x->at, at = from;
    while (at < x->n && !(x->s[at] == '{' && at + 1 < x->n && memchr("{%#", x->s[at + 1], 3))) at++;
    if (at >= x->n) return put_data(x, from, x->n) && (advance(x, x->n), true);
    char kind = x->s[at + 1], sign = sign_at(x, at + 2);
    size_t raw = kind == '%' ? simple_block(x, at, "raw", true) : 0;
    if (!put_data(x, from, strip_text(x, from, at, sign, kind != '{'))) return false;
    if (raw) return lex_raw(x, raw);
    size_t body = at + (sign ? 3 : 2);
    if (kind == '#') return advance(x, body), lex_comment(x, body);
    if (!put(x, kind == '%' ? MICA_TOK_BLOCK_BEGIN : MICA_TOK_VARIABLE_BEGIN, at)) return false;
    advance(x, body);
    return lex_tag(x, kind == '%');
}

/** A copy with \n for every line end, and one less at the end. */
static bool normalize(mica_trun *r, const char *source, size_t size, char **out, size_t *n) {
    char *s = mica_t_alloc(r, size + 1);
    if (!s) return false;
    *n = 0;
    for (size_t i = 0; i < size; i++) {
        s[(*n)++] = source[i] == '\r' ? '\n' : source[i];
        if (source[i] == '\r' && i + 1 < size && source[i + 1] == '\n') i++;
    }
    if (*n && s[*n - 1] == '\n') --*n;
    s[*n] = 0;
    return *out = s, true;
}

bool mica_t_tokenize(mica_trun *r, const char *source, size_t size, mica_ttokens *tokens) {
    lexer x = {.r = r, .tokens = tokens, .line = 1, .line_starting = true};
    char *s;
    r->line = 1;
    if (!mica_utf8_valid(source, size)) return mica_t_fail(r, "the template is not UTF-8");
    if (!normalize(r, source, size, &s, &x.n)) return false;
    x.s = s;
    while (x.at < x.n)
        if (!lex_one(&x)) return false;
    return put(&x, MICA_TOK_END, x.n) != NULL;
}
