// SPDX-License-Identifier: Apache-2.0
// Scanners for the patterns of GPT-2, Qwen, Llama 3 and o200k. Each follows its alternatives in order; where an
// alternative backtracks, the comment says what the backtracking comes to. Checked against PCRE2 in the tests.
#include "text/scanner.h"
#include "base/utf8.h"
#include "text/unicode.h"
#include <string.h>

typedef enum { END, LETTER, NUMBER, SPACE, OTHER } char_class;

static const uint8_t ascii[128] = {
    4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, //
    3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, //
    4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, //
    4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4,
};

static char_class wide_class(const char *s, size_t n, size_t *len) {
    uint32_t cp;
    if (!(*len = mica_utf8_decode(s, n, &cp))) return *len = 1, OTHER;
    if (mica_uc_in(cp, MICA_UC_L)) return LETTER;
    if (mica_uc_in(cp, MICA_UC_N)) return NUMBER;
    return mica_uc_space(cp) ? SPACE : OTHER;
}

static inline char_class class_at(const char *s, size_t n, size_t i, size_t *len) {
    if (i >= n) return *len = 0, END;
    unsigned char c = (unsigned char)s[i];
    if (c < 0x80) return *len = 1, (char_class)ascii[c];
    return wide_class(s + i, n - i, len);
}

static bool newline(const char *s, size_t n, size_t i) { return i < n && (s[i] == '\r' || s[i] == '\n'); }

/** End of the run of class c that begins at i, at most `most` characters. */
static inline size_t run(const char *s, size_t n, size_t i, char_class c, size_t most) {
    for (size_t len; most && class_at(s, n, i, &len) == c; i += len) most--;
    return i;
}

/** `\s*[\r\n]+|\s+(?!\S)|\s+`: up to the last newline of the run; else all but its last character, which goes to the
 * word behind it, unless the run ends the text or is one character long. */
static size_t white_space(const char *s, size_t n, bool newlines) {
    size_t i = 0, last = 0, after_newline = 0, len;
    for (; class_at(s, n, i, &len) == SPACE; i += len) {
        last = i;
        if (newline(s, n, i)) after_newline = i + 1;
    }
    if (newlines && after_newline) return after_newline;
    return i == n || !last ? i : last;
}

/** `(?i:'s|'t|'re|'ve|'m|'ll|'d)`; U+017F (ſ) folds to s. 0: none. */
static size_t contraction(const char *s, size_t n, bool fold) {
    if (n < 2 || s[0] != '\'') return 0;
    if (fold && n > 2 && s[1] == '\xC5' && s[2] == '\xBF') return 3;
    char a = fold ? (char)(s[1] | 32) : s[1], b = n > 2 ? (fold ? (char)(s[2] | 32) : s[2]) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/** ` ?[^\s\p{L}\p{N}]+`: 0: none. */
static size_t others(const char *s, size_t n) {
    size_t from = s[0] == ' ' ? 1 : 0, end = run(s, n, from, OTHER, SIZE_MAX);
    return end > from ? end : 0;
}

size_t mica_scan_gpt2(const char *s, size_t n) {
    size_t len = contraction(s, n, false), first;
    if (len) return len;
    size_t from = s[0] == ' ' ? 1 : 0;
    char_class c = class_at(s, n, from, &first);
    if (c == LETTER || c == NUMBER || c == OTHER) return run(s, n, from + first, c, SIZE_MAX);
    return white_space(s, n, false);
}

/** `(?i:…)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` */
static inline size_t scan_r(const char *s, size_t n, size_t digits) {
    size_t first, second, len;
    char_class c = class_at(s, n, 0, &first);
    if (c == LETTER) return run(s, n, first, LETTER, SIZE_MAX);
    if ((len = contraction(s, n, true))) return len;
    if (c == NUMBER) return run(s, n, first, NUMBER, digits - 1);
    if (!newline(s, n, 0) && class_at(s, n, first, &second) == LETTER) return run(s, n, first + second, LETTER, SIZE_MAX);
    if (!(len = others(s, n))) return white_space(s, n, true);
    while (newline(s, n, len)) len++;
    return len;
}

static size_t scan_qwen(const char *s, size_t n) { return scan_r(s, n, 1); }
static size_t scan_llama3(const char *s, size_t n) { return scan_r(s, n, 3); }

// ---- o200k -----------------------------------------------------------------------------------------
#define UPPER (1u << MICA_LU | 1u << MICA_LT | 1u << MICA_LM | 1u << MICA_LO | MICA_UC_M)
#define LOWER (1u << MICA_LL | 1u << MICA_LM | 1u << MICA_LO | MICA_UC_M)

static bool in_at(const char *s, size_t n, size_t i, uint32_t set, size_t *len) {
    uint32_t cp;
    return i < n && (*len = mica_utf8_decode(s + i, n - i, &cp)) && mica_uc_in(cp, set);
}

/** `UPPER*LOWER+`, 0: none. Where nothing lower follows, UPPER* gives back up to the last character that is LOWER too. */
static size_t upper_lower(const char *s, size_t n, size_t i) {
    size_t len, both = 0;
    for (; in_at(s, n, i, UPPER, &len); i += len)
        if (in_at(s, n, i, LOWER, &len)) both = i + len;
    size_t end = i;
    while (in_at(s, n, end, LOWER, &len)) end += len;
    return end > i ? end : both;
}

/** `UPPER+LOWER*`, 0: none. */
static size_t upper_run(const char *s, size_t n, size_t i) {
    size_t len, end = i;
    while (in_at(s, n, end, UPPER, &len)) end += len;
    if (end == i) return 0;
    while (in_at(s, n, end, LOWER, &len)) end += len;
    return end;
}

/** One of the two word alternatives: with the optional character in front if that works, else without. */
static size_t o200k_word(const char *s, size_t n, size_t (*word)(const char *, size_t, size_t)) {
    size_t first, end = 0;
    char_class c = class_at(s, n, 0, &first);
    if (c != LETTER && c != NUMBER && !newline(s, n, 0)) end = word(s, n, first);
    if (!end) end = word(s, n, 0);
    return end ? end + contraction(s + end, n - end, true) : 0;
}

static size_t scan_o200k(const char *s, size_t n) {
    size_t first, len;
    if ((len = o200k_word(s, n, upper_lower)) || (len = o200k_word(s, n, upper_run))) return len;
    if (class_at(s, n, 0, &first) == NUMBER) return run(s, n, first, NUMBER, 2);
    if (!(len = others(s, n))) return white_space(s, n, true);
    while (len < n && (s[len] == '\r' || s[len] == '\n' || s[len] == '/')) len++;
    return len;
}

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

mica_scan_fn *mica_scanner_find(const char *pattern, size_t n) {
    static const struct { const char *pattern; mica_scan_fn *scan; } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", mica_scan_gpt2},
        {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL, scan_qwen},
        {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL, scan_llama3},
        {"[^\\r\\n\\p{L}\\p{N}]?" O200K_UPPER "*" O200K_LOWER "+" CONTRACTION "?|[^\\r\\n\\p{L}\\p{N}]?" O200K_UPPER
         "+" O200K_LOWER "*" CONTRACTION "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL, scan_o200k},
    };
    for (size_t i = 0; i < MICA_COUNT(known); i++)
        if (strlen(known[i].pattern) == n && !memcmp(known[i].pattern, pattern, n)) return known[i].scan;
    return NULL;
}
