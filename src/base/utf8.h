// SPDX-License-Identifier: Apache-2.0
// UTF-8 by the book: overlong forms, surrogates and values past U+10FFFF are invalid.
#ifndef MICA_BASE_UTF8_H
#define MICA_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Decodes one code point at s (n > 0 bytes left) into *cp. Returns its length, or 0 if the bytes are invalid or cut. */
static inline size_t mica_utf8_decode(const char *s, size_t n, uint32_t *cp) {
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return *cp = p[0], 1;
    size_t len = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || n < len) return 0;
    uint32_t v = p[0] & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        v = v << 6 | (p[i] & 0x3Fu);
    }
    if ((len == 3 && v < 0x800) || (len == 4 && v < 0x10000) || v > 0x10FFFF || (v >= 0xD800 && v < 0xE000)) return 0;
    return *cp = v, len;
}

/** Encodes cp (a scalar value) into out[4]; returns its length. */
static inline size_t mica_utf8_encode(uint32_t cp, char *out) {
    if (cp < 0x80) return out[0] = (char)cp, 1;
    if (cp < 0x800) return out[0] = (char)(0xC0 | cp >> 6), out[1] = (char)(0x80 | (cp & 0x3F)), 2;
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12), out[1] = (char)(0x80 | (cp >> 6 & 0x3F)), out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18), out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F)), out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

static inline bool mica_utf8_valid(const char *s, size_t n) {
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp;
        if (!(len = mica_utf8_decode(s + i, n - i, &cp))) return false;
    }
    return true;
}
#endif
