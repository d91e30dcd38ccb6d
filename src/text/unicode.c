// SPDX-License-Identifier: Apache-2.0
// Code point properties and normal forms. Normalising looks for stretches that can change at all: most text is copied.
// A stretch begins at the last inert character before the first one that is not, since that one may compose with it.
// utf8proc does the stretches; characters that the reference's older tables do not know are barriers, copied as they are.
#include "text/unicode.h"
#include "base/utf8.h"
#include <pthread.h>
#include <string.h>
#include <utf8proc.h>

#include "text/unicode_data.inc"

uint16_t mica_uc_low[0x20000];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void expand(void) {
    for (size_t i = 0; i < MICA_COUNT(run_start); i++) {
        uint32_t end = i + 1 < MICA_COUNT(run_start) ? run_start[i + 1] : 0x20000;
        for (uint32_t cp = run_start[i]; cp < end && cp < 0x20000; cp++) mica_uc_low[cp] = run_kind[i];
    }
}

void mica_uc_init(void) { pthread_once(&once, expand); }

uint16_t mica_uc_high(uint32_t cp) {
    size_t low = 0, high = MICA_COUNT(run_start);
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (run_start[middle] <= cp) low = middle;
        else high = middle;
    }
    return run_kind[low];
}

size_t mica_uc_lower(uint32_t cp, uint32_t out[2]) {
    if (cp == 0x130) return out[0] = 'i', out[1] = 0x307, 2;
    for (size_t i = 0; i < MICA_COUNT(lower_run); i += 3)
        if ((int32_t)cp >= lower_run[i] && (int32_t)cp <= lower_run[i + 1])
            return out[0] = (uint32_t)((int32_t)cp + lower_run[i + 2]), 1;
    return out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), 1;
}

typedef enum { INERT, CHANGES, BARRIER } kind_of;

/** Whether p may be the second character of a composition (newer utf8proc mark that otherwise: then any that takes part). */
static bool may_compose_back(const utf8proc_property_t *p) {
#if UTF8PROC_VERSION_MAJOR == 2 && UTF8PROC_VERSION_MINOR < 10
    return p->comb_index >= 0x8000 && p->comb_index != UINT16_MAX;
#else
    return p->comb_index != UINT16_MAX;
#endif
}

/** Inert: stays itself and never joins or swaps with what stands before it. */
static kind_of kind(uint32_t cp, mica_normal_form form) {
    bool compat = form == MICA_NFKC || form == MICA_NFKD, composes = form == MICA_NFC || form == MICA_NFKC;
    if (cp < 0xC0) return compat && cp >= 0xA0 ? CHANGES : INERT;
    uint32_t info = mica_uc(cp);
    if (info & (MICA_UC_BARRIER | MICA_UC_NEW)) return BARRIER;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    if (p->combining_class) return CHANGES;
    bool decomposes = p->decomp_seqindex != UINT16_MAX && (compat || p->decomp_type == 0);
    if (!composes) return decomposes || (cp >= 0xAC00 && cp < 0xD7A4) ? CHANGES : INERT;
    if (info & MICA_UC_RECOMPOSES || (decomposes && compat)) return CHANGES;
    bool vowel_or_tail = cp >= 0x1160 && cp < 0x1200; // Hangul jamo that join a syllable before them
    return vowel_or_tail || may_compose_back(p) ? CHANGES : INERT;
}

static bool put_code_points(const utf8proc_int32_t *cp, size_t n, mica_buf *out) {
    char bytes[4];
    for (size_t i = 0; i < n; i++)
        if (!mica_buf_append(out, bytes, mica_utf8_encode((uint32_t)cp[i], bytes))) return false;
    return true;
}

/** Decomposes s in full, puts marks in order, composes where the form asks for it. */
static bool normalize_stretch(const char *s, size_t n, mica_normal_form form, mica_buf *out) {
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == MICA_NFKC || form == MICA_NFKD) options |= UTF8PROC_COMPAT;
    const utf8proc_uint8_t *text = (const utf8proc_uint8_t *)s;
    utf8proc_ssize_t count = utf8proc_decompose(text, (utf8proc_ssize_t)n, NULL, 0, options);
    if (count < 0) return mica_buf_append(out, s, n); // cannot happen: the text is valid UTF-8
    utf8proc_int32_t *cp = mica_alloc(((size_t)count + 1) * sizeof *cp);
    if (!cp) return false;
    utf8proc_decompose(text, (utf8proc_ssize_t)n, cp, count, options);
    if (form == MICA_NFC || form == MICA_NFKC) options |= UTF8PROC_COMPOSE;
    count = utf8proc_normalize_utf32(cp, count, options);
    bool ok = put_code_points(cp, (size_t)count, out);
    mica_free(cp);
    return ok;
}

bool mica_uc_normalize(const char *s, size_t n, mica_normal_form form, mica_buf *out) {
    size_t copied = 0, last_inert = 0; // everything before `copied` is out; last_inert starts the character before i
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp = (unsigned char)s[i];
        len = 1;
        if (cp >= 0x80 && !(len = mica_utf8_decode(s + i, n - i, &cp))) return false;
        kind_of k = cp < 0x80 ? INERT : kind(cp, form);
        if (k == INERT) {
            last_inert = i;
            continue;
        }
        if (k == BARRIER) {
            last_inert = i + len;
            continue;
        }
        size_t end = i + len;
        for (size_t step; end < n; end += step) {
            if (!(step = mica_utf8_decode(s + end, n - end, &cp))) return false;
            if (kind(cp, form) != CHANGES) break;
        }
        if (!mica_buf_append(out, s + copied, last_inert - copied)) return false;
        if (!normalize_stretch(s + last_inert, end - last_inert, form, out)) return false;
        copied = last_inert = end;
        len = end - i;
    }
    return mica_buf_append(out, s + copied, n - copied);
}
