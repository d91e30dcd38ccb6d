// SPDX-License-Identifier: Apache-2.0
// JSON to stdout as it comes (no tree), and the one kind of JSON that is read: a string on a line. Numbers are written
// with the fewest digits that read back equal; the C locale is never left, so the decimal point is a point.
#include "cli/cli.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put_string(FILE *out, const char *s, size_t n) {
    putc('"', out);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *escape = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : NULL;
        if (escape) fputs(escape, out);
        else if (c < 0x20 || c == 0x7F) fprintf(out, "\\u%04x", c);
        else putc(c, out);
    }
    putc('"', out);
}

/** What comes before a value: a comma if it is not the first, and its key. */
static void start(mica_cli_json *j, const char *key) {
    if (j->comma) putc(',', j->out);
    j->comma = true;
    if (!key) return;
    put_string(j->out, key, strlen(key));
    putc(':', j->out);
}

void mica_cli_json_open(mica_cli_json *j, const char *key, char bracket) {
    start(j, key);
    putc(bracket, j->out);
    j->comma = false;
}

void mica_cli_json_close(mica_cli_json *j, char bracket) {
    putc(bracket, j->out);
    j->comma = true;
}

void mica_cli_json_text(mica_cli_json *j, const char *key, const char *s, size_t n) { start(j, key), put_string(j->out, s, n); }
void mica_cli_json_string(mica_cli_json *j, const char *key, const char *s) { mica_cli_json_text(j, key, s, strlen(s)); }
void mica_cli_json_int(mica_cli_json *j, const char *key, int64_t v) { start(j, key), fprintf(j->out, "%" PRId64, v); }
void mica_cli_json_bool(mica_cli_json *j, const char *key, bool v) { start(j, key), fputs(v ? "true" : "false", j->out); }
void mica_cli_json_null(mica_cli_json *j, const char *key) { start(j, key), fputs("null", j->out); }

void mica_cli_json_float(mica_cli_json *j, const char *key, float v) {
    char digits[32] = "null";
    for (int n = 6; isfinite(v) && n <= 9; n++) {
        snprintf(digits, sizeof digits, "%.*g", n, (double)v);
        if (strtof(digits, NULL) == v) break;
    }
    start(j, key), fputs(digits, j->out);
}

void mica_cli_json_double(mica_cli_json *j, const char *key, double v) {
    char digits[32] = "null";
    for (int n = 6; isfinite(v) && n <= 17; n++) {
        snprintf(digits, sizeof digits, "%.*g", n, v);
        if (strtod(digits, NULL) == v) break;
    }
    start(j, key), fputs(digits, j->out);
}

void mica_cli_json_ints(mica_cli_json *j, const char *key, const int32_t *v, size_t n) {
    mica_cli_json_open(j, key, '[');
    for (size_t i = 0; i < n; i++) mica_cli_json_int(j, NULL, v[i]);
    mica_cli_json_close(j, ']');
}

void mica_cli_json_end(mica_cli_json *j) {
    putc('\n', j->out);
    j->comma = false;
}

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

bool mica_cli_read_json_string(const char *line, mica_cli_text *text, const char **why) {
    text->size = 0;
    mica_cli_append(text, "", 0);
    const char *s = line + strspn(line, " \t\r");
    if (*s++ != '"') return *why = "expected a JSON string", false;
    while (*s != '"') {
        size_t plain = strcspn(s, "\"\\");
        mica_cli_append(text, s, plain);
        s += plain;
        if (*s == '\\') {
            size_t n = read_escape(s + 1, text);
            if (!n) return *why = "bad escape in the JSON string", false;
            s += n + 1;
        } else if (!*s) return *why = "the JSON string has no end", false;
    }
    s += 1 + strspn(s + 1, " \t\r");
    return *s ? (*why = "something follows the JSON string", false) : true;
}
