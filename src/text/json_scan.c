// SPDX-License-Identifier: Apache-2.0
// The pull reader. RFC 8259; lone surrogates, control characters in strings and malformed UTF-8 are refused.
#include "text/json_scan.h"
#include "base/utf8.h"
#include <string.h>

enum { MAX_DEPTH = 128 };

bool mica_scan_fail(const mica_scan *s, const char *why) {
    size_t line = 1;
    for (const char *p = s->start; p < s->p && p < s->end; p++) line += *p == '\n';
    return mica_fail(s->err, MICA_ERR_FORMAT, "%s: line %zu: %s", s->what, line, why);
}

char mica_scan_peek(mica_scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
    return s->p < s->end ? *s->p : 0;
}

bool mica_scan_take(mica_scan *s, char c) {
    if (mica_scan_peek(s) != c || s->p == s->end) {
        char why[] = "'?' expected";
        why[1] = c;
        return mica_scan_fail(s, why);
    }
    s->p++;
    return true;
}

bool mica_scan_more(mica_scan *s, bool first, char close, bool *more) {
    char c = mica_scan_peek(s);
    *more = true;
    if (c == close) return s->p++, *more = false, true;
    return first || mica_scan_take(s, ',');
}

static bool hex4(mica_scan *s, uint32_t *value) {
    *value = 0;
    if (s->end - s->p < 4) return mica_scan_fail(s, "string does not end");
    for (int i = 0; i < 4; i++) {
        char c = *s->p++;
        uint32_t digit = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10) : 16;
        if (digit == 16) return mica_scan_fail(s, "\\u needs four hexadecimal digits");
        *value = *value << 4 | digit;
    }
    return true;
}

static bool unicode_escape(mica_scan *s, mica_buf *out) {
    uint32_t cp, low;
    char bytes[4];
    if (!hex4(s, &cp)) return false;
    if (cp >= 0xDC00 && cp < 0xE000) return mica_scan_fail(s, "lone surrogate");
    if (cp >= 0xD800 && cp < 0xDC00) {
        if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u') return mica_scan_fail(s, "lone surrogate");
        s->p += 2;
        if (!hex4(s, &low)) return false;
        if (low < 0xDC00 || low > 0xDFFF) return mica_scan_fail(s, "lone surrogate");
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
    }
    return mica_buf_append(out, bytes, mica_utf8_encode(cp, bytes)) || mica_fail_memory(s->err, out->len, s->what);
}

static bool escape(mica_scan *s, mica_buf *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->p == s->end) return mica_scan_fail(s, "string does not end");
    char c = *s->p++;
    if (c == 'u') return unicode_escape(s, out);
    const char *at = c ? strchr(from, c) : NULL;
    if (!at) return mica_scan_fail(s, "unknown escape in a string");
    return mica_buf_putc(out, to[at - from]) || mica_fail_memory(s->err, out->len, s->what);
}

/** Advances over plain characters; stops at a quote, a backslash or the end. */
static bool plain(mica_scan *s) {
    while (s->p < s->end) {
        unsigned char c = (unsigned char)*s->p;
        uint32_t cp;
        if (c == '"' || c == '\\') return true;
        if (c < 0x20) return mica_scan_fail(s, "control character in a string");
        size_t len = c < 0x80 ? 1 : mica_utf8_decode(s->p, (size_t)(s->end - s->p), &cp);
        if (!len) return mica_scan_fail(s, "string is not UTF-8");
        s->p += len;
    }
    return mica_scan_fail(s, "string does not end");
}

bool mica_scan_string(mica_scan *s, mica_buf *buffer, const char **text, size_t *n) {
    if (mica_scan_peek(s) != '"') return mica_scan_fail(s, "string expected");
    const char *from = ++s->p;
    if (!plain(s)) return false;
    if (*s->p == '"') return *text = from, *n = (size_t)(s->p++ - from), true;
    buffer->len = 0;
    while (true) {
        if (!mica_buf_append(buffer, from, (size_t)(s->p - from))) return mica_fail_memory(s->err, buffer->len, s->what);
        if (*s->p++ == '"') break;
        if (!escape(s, buffer)) return false;
        from = s->p;
        if (!plain(s)) return false;
    }
    return *text = buffer->data, *n = buffer->len, true;
}

bool mica_scan_int(mica_scan *s, int64_t *value) {
    bool negative = mica_scan_peek(s) == '-';
    s->p += negative;
    const char *from = s->p;
    int64_t v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
        if (s->p - from >= 18) return mica_scan_fail(s, "integer too large");
        v = v * 10 + (*s->p - '0');
    }
    if (s->p == from || (*from == '0' && s->p - from > 1)) return mica_scan_fail(s, "integer expected");
    if (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E')) return mica_scan_fail(s, "integer expected");
    return *value = negative ? -v : v, true;
}

static bool skip_string(mica_scan *s) {
    for (s->p++; s->p < s->end; s->p++) {
        const char *quote = memchr(s->p, '"', (size_t)(s->end - s->p));
        if (!quote) break;
        size_t backslashes = 0;
        while (quote[-1 - (ptrdiff_t)backslashes] == '\\') backslashes++; // stops at the opening quote at the latest
        s->p = quote;
        if (backslashes % 2 == 0) return s->p++, true;
    }
    return mica_scan_fail(s, "string does not end");
}

static bool skip_scalar(mica_scan *s) {
    const char *from = s->p;
    while (s->p < s->end && !strchr(",]} \n\t\r", *s->p)) s->p++;
    return s->p > from || mica_scan_fail(s, "value expected");
}

bool mica_scan_skip(mica_scan *s) {
    char open[MAX_DEPTH];
    size_t depth = 0;
    do {
        char c = mica_scan_peek(s);
        if (c == '"') {
            if (!skip_string(s)) return false;
        } else if (c == '{' || c == '[') {
            if (depth == MAX_DEPTH) return mica_scan_fail(s, "nested too deeply");
            open[depth++] = c == '{' ? '}' : ']';
            s->p++;
        } else if (c == '}' || c == ']') {
            if (!depth || open[depth - 1] != c) return mica_scan_fail(s, "brackets do not pair");
            depth--, s->p++;
        } else if (depth && (c == ',' || c == ':')) {
            s->p++;
        } else if (!skip_scalar(s)) {
            return false;
        }
    } while (depth);
    return true;
}
