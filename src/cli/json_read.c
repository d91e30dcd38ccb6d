// SPDX-License-Identifier: Apache-2.0
// Reading JSON that comes a line at a time. A value is a stretch of the line; members of an object and elements of an array are found by
// walking over it, which checks its form, and only those that are wanted are turned into texts and numbers.
#include "cli/json_read.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 };

// ---- reading a string ------------------------------------------------------------------------------------
/** Four hexadecimal digits at s, or -1. */
static int32_t read_hex4(const char *s) {
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        const char c = s[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        v = v << 4 | digit;
    }
    return v;
}

static void append_utf8(mica_cli_text *text, uint32_t c) {
    char out[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(lead[n] | c);
    mica_cli_append(text, out, n);
}

/** The \uXXXX at s (past the u), with its second half if it is a surrogate; a lone surrogate becomes U+FFFD.
 * Returns the bytes read, 0 if malformed. */
static size_t read_unicode(const char *s, mica_cli_text *text) {
    int32_t c = read_hex4(s);
    if (c < 0) return 0;
    if (c < 0xD800 || c > 0xDFFF) return append_utf8(text, (uint32_t)c), 4;
    int32_t low = c < 0xDC00 && s[4] == '\\' && s[5] == 'u' ? read_hex4(s + 6) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return append_utf8(text, 0xFFFD), 4;
    append_utf8(text, 0x10000 + (((uint32_t)c & 0x3FF) << 10 | ((uint32_t)low & 0x3FF)));
    return 10;
}

/** The escape at s (past the backslash). Returns the bytes read, 0 if malformed. */
static size_t read_escape(const char *s, mica_cli_text *text) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (*s == 'u') {
        size_t n = read_unicode(s + 1, text);
        return n ? n + 1 : 0;
    }
    const char *at = *s ? strchr(from, *s) : NULL;
    if (!at) return 0;
    mica_cli_append(text, &to[at - from], 1);
    return 1;
}

/** The string at s (past its first quote), unescaped into text if that is not NULL; returns what follows it, NULL after *why. */
static const char *read_string(const char *s, mica_cli_text *text, const char **why) {
    mica_cli_text ignored = {0}, *to = text ? text : &ignored;
    const char *end = NULL;
    for (;;) {
        size_t plain = strcspn(s, "\"\\");
        mica_cli_append(to, s, plain);
        s += plain;
        if (*s == '"') {
            end = s + 1;
            break;
        }
        size_t n = *s ? read_escape(s + 1, to) : 0;
        if (!n) {
            *why = *s ? "bad escape in the JSON string" : "the JSON string has no end";
            break;
        }
        s += n + 1;
    }
    free(ignored.data);
    return end;
}

static const char *skip_blanks(const char *s) { return s + strspn(s, " \t\r\n"); }

bool mica_cli_read_json_string(const char *line, mica_cli_text *text, const char **why) {
    text->size = 0;
    mica_cli_append(text, "", 0);
    const char *s = skip_blanks(line);
    if (*s != '"') return *why = "expected a JSON string", false;
    if (!(s = read_string(s + 1, text, why))) return false;
    return *skip_blanks(s) ? (*why = "something follows the JSON string", false) : true;
}

// ---- values ----------------------------------------------------------------------------------------------
static const char *skip_digits(const char *s) { return s + strspn(s, "0123456789"); }

static const char *skip_number(const char *s) {
    const char *start = s + (*s == '-');
    s = skip_digits(start);
    if (s == start || (*start == '0' && s > start + 1)) return NULL;
    if (*s == '.') {
        const char *fraction = s + 1;
        if ((s = skip_digits(fraction)) == fraction) return NULL;
    }
    if (*s == 'e' || *s == 'E') {
        const char *exponent = s + 1 + (s[1] == '+' || s[1] == '-');
        if ((s = skip_digits(exponent)) == exponent) return NULL;
    }
    return s;
}

static const char *skip_value(const char *s, int depth, const char **why);

static const char *skip_word(const char *s) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++)
        if (strncmp(s, words[i], strlen(words[i])) == 0) return s + strlen(words[i]);
    return skip_number(s);
}

/** Past an array or object; s is at its bracket. */
static const char *skip_list(const char *s, int depth, const char **why) {
    char close = *s == '{' ? '}' : ']';
    bool object = *s == '{';
    s = skip_blanks(s + 1);
    if (*s == close) return s + 1;
    for (;; s = skip_blanks(s + 1)) {
        if (object) {
            if (*s != '"') return *why = "expected a member's name in the JSON object", NULL;
            if (!(s = read_string(s + 1, NULL, why))) return NULL;
            s = skip_blanks(s);
            if (*s++ != ':') return *why = "expected a colon in the JSON object", NULL;
        }
        if (!(s = skip_value(skip_blanks(s), depth, why))) return NULL;
        s = skip_blanks(s);
        if (*s == close) return s + 1;
        if (*s != ',') return *why = *s ? "expected a comma in the JSON value" : "the JSON value has no end", NULL;
    }
}

static const char *skip_value(const char *s, int depth, const char **why) {
    if (depth > DEEPEST) return *why = "the JSON value is too deep", NULL;
    if (*s == '"') return read_string(s + 1, NULL, why);
    if (*s == '{' || *s == '[') return skip_list(s, depth + 1, why);
    const char *end = skip_word(s);
    if (!end) *why = *s ? "expected a JSON value" : "the JSON value has no end";
    return end;
}

bool mica_cli_json_read(const char *text, mica_cli_value *value, const char **why) {
    const char *s = skip_blanks(text), *end = skip_value(s, 0, why);
    if (!end) return false;
    *value = (mica_cli_value){s, (size_t)(end - s)};
    return *skip_blanks(end) ? (*why = "something follows the JSON value", false) : true;
}

bool mica_cli_json_next(const mica_cli_value *list, const char **at, mica_cli_text *key, mica_cli_value *value) {
    const char *why, *end = list->text + list->size - 1, *s = skip_blanks(*at ? *at : list->text + 1);
    if (*at && s < end && *s == ',') s = skip_blanks(s + 1);
    if (s >= end) return false;
    if (*list->text == '{') {
        key->size = 0;
        mica_cli_append(key, "", 0);
        s = skip_blanks(read_string(s + 1, key, &why));
        s = skip_blanks(s + 1);
    }
    *value = (mica_cli_value){s, 0};
    *at = skip_value(s, 0, &why);
    value->size = (size_t)(*at - s);
    return true;
}

bool mica_cli_json_is(const mica_cli_value *v, char kind) {
    if (kind == '0') return *v->text == '-' || isdigit((unsigned char)*v->text);
    return *v->text == kind;
}

bool mica_cli_json_string_of(const mica_cli_value *v, mica_cli_text *text) {
    const char *why;
    text->size = 0;
    mica_cli_append(text, "", 0);
    return *v->text == '"' && read_string(v->text + 1, text, &why);
}

bool mica_cli_json_number_of(const mica_cli_value *v, double *number) {
    *number = mica_cli_json_is(v, '0') ? strtod(v->text, NULL) : (double)NAN;
    return isfinite(*number);
}

bool mica_cli_json_member(const mica_cli_value *object, const char *name, mica_cli_value *value) {
    mica_cli_text key = {0};
    mica_cli_value v;
    bool found = false;
    for (const char *at = NULL; mica_cli_json_is(object, '{') && mica_cli_json_next(object, &at, &key, &v);)
        if (strcmp(key.data, name) == 0) *value = v, found = true;
    free(key.data);
    return found;
}

char *mica_cli_json_string_member(const mica_cli_value *object, const char *name) {
    mica_cli_text text = {0};
    mica_cli_value v;
    if (mica_cli_json_member(object, name, &v) && mica_cli_json_string_of(&v, &text)) return text.data;
    free(text.data);
    return NULL;
}
