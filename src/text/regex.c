// SPDX-License-Identifier: Apache-2.0
// PCRE2 in Oniguruma's place. The pattern is translated: what both read alike is copied, \h, \w, \S and the like are
// spelled out, what differs and is rare is refused. PCRE2's Unicode tables are older (14; 16 wanted), so text is
// matched with each newer character replaced by an older one of its category and length, unless it has none.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"
#include "base/utf8.h"
#include "text/unicode.h"
#include <pcre2.h>
#include <string.h>

struct mica_regex {
    pcre2_general_context *context;
    pcre2_code *code;
    const char *what;
    char *pattern;
};

// ---- translation -----------------------------------------------------------------------------------
typedef struct translator {
    const char *p, *end;
    mica_buf out;
    const char *refused;
    bool in_class;
    const char *excluded; // in brackets: the set that \W, \H or \S excludes
} translator;

static bool refuse(translator *t, const char *construct) {
    t->refused = construct;
    return false;
}

// \w is Alphabetic, marks, Nd, Nl and Pc; in Oniguruma, outside of brackets, Latin-1's superscripts and fractions too.
#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"
#define WORD_ALONE WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
#define HEX "0-9a-fA-F"
#define SPACE "\\t-\\r\\x{85}\\p{Z}"

/** A set of characters, inside or outside of a bracket expression; there a negated set is noted, to be joined behind. */
static bool put_set(translator *t, const char *set, bool negated) {
    if (!t->in_class) return mica_buf_printf(&t->out, "[%s%s]", negated ? "^" : "", set);
    if (!negated) return mica_buf_puts(&t->out, set);
    if (t->excluded && strcmp(t->excluded, set)) return refuse(t, "two of \\W, \\H and \\S in one [...]");
    return t->excluded = set, true;
}

static bool property(translator *t, char letter) {
    if (t->p == t->end || *t->p != '{') return refuse(t, "\\p without {…}");
    const char *close = memchr(t->p, '}', (size_t)(t->end - t->p));
    if (!close) return refuse(t, "\\p{ without }");
    const char *name = t->p + 1;
    if (*name == '^') name++, letter = letter == 'p' ? 'P' : 'p';
    t->p = close + 1;
    return mica_buf_printf(&t->out, "\\%c{%.*s}", letter, (int)(close - name), name);
}

static bool escape(translator *t) {
    if (t->p == t->end) return refuse(t, "a \\ at the end");
    char c = *t->p++;
    switch (c) {
    case 'p': case 'P': return property(t, c);
    case 's': return put_set(t, SPACE, false);
    case 'S': return put_set(t, SPACE, true);
    case 'w': case 'W': return put_set(t, t->in_class ? WORD : WORD_ALONE, c == 'W');
    case 'h': return put_set(t, HEX, false);
    case 'H': return put_set(t, HEX, true);
    case 'b': if (t->in_class) return mica_buf_puts(&t->out, "\\b"); return refuse(t, "\\b, a word boundary");
    case 'u': // \uHHHH
        if (t->end - t->p < 4) return refuse(t, "\\u without four digits");
        t->p += 4;
        return mica_buf_printf(&t->out, "\\x{%.4s}", t->p - 4);
    default:
        // Of the letters, these mean the same to both.
        if (((c | 32) >= 'a' && (c | 32) <= 'z') && !strchr("aefnrtvxdDAZz", c)) return refuse(t, "an escape like \\b, \\G, \\R or \\X");
        return mica_buf_printf(&t->out, "\\%c", c);
    }
}

static bool starts(const translator *t, const char *s) {
    size_t n = strlen(s);
    return (size_t)(t->end - t->p) >= n && !memcmp(t->p, s, n);
}

/** [items\W] is (?:[items]|[^w]), and [^items\W] is (?:(?=[w])[^items]), where w are the characters of \w. */
static bool close_bracket(translator *t, size_t start, bool negated) {
    if (!t->excluded) return mica_buf_putc(&t->out, ']');
    bool empty = t->out.len == start + (negated ? 2 : 1);
    char *items = mica_strndup(t->out.data + start, t->out.len - start);
    if (!items) return false;
    t->out.len = start;
    bool ok = empty     ? mica_buf_printf(&t->out, "[%s%s]", negated ? "" : "^", t->excluded)
              : negated ? mica_buf_printf(&t->out, "(?:(?=[%s])%s])", t->excluded, items)
                        : mica_buf_printf(&t->out, "(?:%s]|[^%s])", items, t->excluded);
    mica_free(items);
    return ok;
}

static bool bracket(translator *t) {
    size_t start = t->out.len;
    bool negated = t->p < t->end && *t->p == '^';
    t->in_class = true, t->excluded = NULL;
    mica_buf_putc(&t->out, '[');
    if (negated) mica_buf_putc(&t->out, *t->p++);
    if (t->p < t->end && *t->p == ']') return refuse(t, "[] or [^]");
    while (t->p < t->end && *t->p != ']') {
        if (*t->p == '[') return refuse(t, starts(t, "[:") ? "[[:…:]]" : "a [ inside [...]");
        if (starts(t, "&&")) return refuse(t, "&& inside [...]");
        char c = *t->p++;
        if (!(c == '\\' ? escape(t) : mica_buf_putc(&t->out, c))) return false;
    }
    if (t->p == t->end) return refuse(t, "[ without ]");
    t->p++;
    t->in_class = false;
    return close_bracket(t, start, negated);
}

static bool group(translator *t) {
    static const char *const known[] = {"?:", "?=", "?!", "?>", "?<=", "?<!", "?i:", "?i)", "?-i:", "?-i)"};
    if (t->p == t->end || *t->p != '?') return mica_buf_puts(&t->out, "(");
    for (size_t i = 0; i < MICA_COUNT(known); i++) {
        if (!starts(t, known[i])) continue;
        t->p += strlen(known[i]);
        return mica_buf_printf(&t->out, "(%s", known[i]);
    }
    return refuse(t, "this kind of (?…)");
}

/** {n,m} copied; {,m} is {0,m}; {n,m}+ repeats in Ruby's syntax but is possessive in PCRE2. */
static bool braces(translator *t) {
    const char *close = memchr(t->p, '}', (size_t)(t->end - t->p));
    if (!close || strspn(t->p, "0123456789,") != (size_t)(close - t->p) || close == t->p) return mica_buf_puts(&t->out, "\\{");
    if (close + 1 < t->end && close[1] == '+') return refuse(t, "{n,m}+");
    mica_buf_puts(&t->out, *t->p == ',' ? "{0" : "{");
    mica_buf_append(&t->out, t->p, (size_t)(close + 1 - t->p));
    t->p = close + 1;
    return !t->out.failed;
}

static bool translate(translator *t) {
    while (t->p < t->end) {
        char c = *t->p++;
        bool ok = c == '\\' ? escape(t) : c == '[' ? bracket(t) : c == '(' ? group(t) : c == '{' ? braces(t) : mica_buf_putc(&t->out, c);
        if (!ok) return false;
    }
    return !t->out.failed;
}

// ---- PCRE2 -----------------------------------------------------------------------------------------
static void *allocate(size_t n, void *ctx) { return (void)ctx, mica_alloc(n); }
static void release(void *p, void *ctx) { (void)ctx, mica_free(p); }

static bool compile(mica_regex *r, const mica_buf *pattern, mica_error *err) {
    int code;
    PCRE2_SIZE at;
    char why[200];
    pcre2_compile_context *options = pcre2_compile_context_create(r->context);
    if (!options) return mica_fail_memory(err, 0, "regular expression");
    pcre2_set_newline(options, PCRE2_NEWLINE_LF);
    // ^ and $ always match at lines in Ruby's syntax.
    r->code = pcre2_compile((PCRE2_SPTR)pattern->data, pattern->len, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &code, &at, options);
    pcre2_compile_context_free(options);
    if (r->code) return pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE), true; // without JIT it is slower, not wrong
    if (code == PCRE2_ERROR_HEAP_FAILED || code == PCRE2_ERROR_NOMEMORY) return mica_fail_memory(err, pattern->len, "regular expression");
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: regular expression \"%.120s\": %s", r->what, r->pattern, why);
}

mica_regex *mica_regex_new(const char *pattern, size_t n, const char *what, mica_error *err) {
    mica_uc_init();
    mica_regex *r = mica_calloc(1, sizeof *r);
    if (!r) return mica_fail_memory(err, sizeof *r, "regular expression"), NULL;
    translator t = {.p = pattern, .end = pattern + n};
    r->what = what;
    r->pattern = mica_strndup(pattern, n);
    r->context = pcre2_general_context_create(allocate, release, NULL);
    bool ok = r->pattern && r->context && mica_buf_reserve(&t.out, n) && translate(&t) && !t.out.failed;
    if (t.refused)
        mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: regular expression \"%.120s\" uses %s, which is not supported", what, r->pattern, t.refused);
    else if (!ok) mica_fail_memory(err, n, "regular expression");
    if (ok) t.out.data[t.out.len] = 0, ok = compile(r, &t.out, err);
    mica_buf_free(&t.out);
    r->what = NULL; // borrowed for the messages above only
    if (ok) return r;
    mica_regex_free(r);
    return NULL;
}

void mica_regex_free(mica_regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    pcre2_general_context_free(r->context);
    mica_free(r->pattern);
    mica_free(r);
}

// ---- matching --------------------------------------------------------------------------------------
/** An older character of the same category and UTF-8 length, or cp. */
static uint32_t stand_in(uint32_t cp, size_t len) {
    static const struct { uint8_t category; uint32_t two, three, four; } stand_ins[] = {
        {MICA_LU, 0x18E, 0x1E9E, 0x1D400}, {MICA_LL, 0x18D, 0x1E96, 0x1D41A}, {MICA_LM, 0x2B0, 0x1D2C, 0x16B40},
        {MICA_LO, 0x1BB, 0x904, 0x10280}, {MICA_MN, 0x300, 0x20D0, 0x101FD}, {MICA_MC, 0, 0x903, 0x11000},
        {MICA_ND, 0x660, 0x966, 0x104A0}, {MICA_NL, 0, 0x2160, 0x10140}, {MICA_NO, 0xB2, 0x2460, 0x10107},
        {MICA_PO, 0xA1, 0x2020, 0x10100}, {MICA_PD, 0x58A, 0x2013, 0x10EAD}, {MICA_PS, 0, 0x2045, 0}, {MICA_PE, 0, 0x2046, 0},
        {MICA_SO, 0xA6, 0x2100, 0x1F600}, {MICA_SM, 0xAC, 0x2044, 0x1D6C1}, {MICA_SC, 0xA2, 0x20A0, 0x1E2FF},
        {MICA_SK, 0xA8, 0x1FBD, 0x1F3FB}, {MICA_CF, 0xAD, 0x200B, 0x110BD}, {MICA_CN, 0x378, 0x2065, 0xE0000},
    };
    if (cp == 0x180E) return 0x200B; // PCRE2 counts it as white space
    if (!(mica_uc(cp) & MICA_UC_NEW)) return cp;
    if (cp >= 0x2A6DE && cp < 0x40000 && mica_uc_category(cp) == MICA_LO) return 0x20000; // Han
    uint32_t category = mica_uc_category(cp);
    for (size_t i = 0; i < MICA_COUNT(stand_ins); i++) {
        if (stand_ins[i].category != category) continue;
        uint32_t other = len == 2 ? stand_ins[i].two : len == 3 ? stand_ins[i].three : stand_ins[i].four;
        return other ? other : cp;
    }
    return cp;
}

/** Copies s with stand-ins if it needs any: *copy stays NULL if not. */
static bool replace_new(const char *s, size_t n, char **copy) {
    *copy = NULL;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp = (unsigned char)s[i];
        len = 1;
        if (cp < 0x80 || !(len = mica_utf8_decode(s + i, n - i, &cp))) {
            len = len ? len : 1;
            continue;
        }
        uint32_t other = stand_in(cp, len);
        if (other == cp) continue;
        if (!*copy && !(*copy = mica_strndup(s, n))) return false;
        mica_utf8_encode(other, *copy + i);
    }
    return true;
}

typedef struct search {
    const mica_regex *regex;
    pcre2_match_data *data;
    const char *text;
    size_t n;
} search;

/** 1: found, 0: no match, -1: error in *err. */
static int find(search *s, size_t from, size_t *start, size_t *end, mica_error *err) {
    const uint32_t options = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(s->regex->code, (PCRE2_SPTR)s->text, s->n, from, options, s->data, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter keeps its stack on the heap
        rc = pcre2_match(s->regex->code, (PCRE2_SPTR)s->text, s->n, from, options | PCRE2_NO_JIT, s->data, NULL);
    if (rc >= 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->data);
        return *start = at[0], *end = at[1], 1;
    }
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT) return mica_fail_memory(err, s->n, "regular expression"), -1;
    char why[200];
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
    return mica_fail(err, MICA_ERR_FORMAT, "regular expression \"%.120s\" gave up: %s", s->regex->pattern, why), -1;
}

static size_t next_char(const char *s, size_t n, size_t at) {
    for (at++; at < n && ((unsigned char)s[at] & 0xC0) == 0x80;) at++;
    return at;
}

/** An empty match right behind the last one is passed over, one character on. */
static bool each(search *s, mica_regex_fn *fn, void *ctx, mica_error *err) {
    size_t from = 0, last = SIZE_MAX, start, end;
    while (from <= s->n) {
        int found = find(s, from, &start, &end, err);
        if (found <= 0) return found == 0;
        if (start == end && end == last) {
            from = next_char(s->text, s->n, from);
            continue;
        }
        if (!fn(ctx, start, end)) return false;
        from = last = end;
    }
    return true;
}

bool mica_regex_each(const mica_regex *r, const char *text, size_t n, mica_regex_fn *fn, void *ctx, mica_error *err) {
    char *copy = NULL;
    search s = {.regex = r, .n = n, .text = text, .data = pcre2_match_data_create(1, r->context)};
    bool ok = s.data && replace_new(text, n, &copy);
    if (!ok) mica_fail_memory(err, n, "regular expression");
    if (copy) s.text = copy;
    ok = ok && each(&s, fn, ctx, err);
    pcre2_match_data_free(s.data);
    mica_free(copy);
    return ok;
}
