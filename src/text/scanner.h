// SPDX-License-Identifier: Apache-2.0
// Hand-written matchers for the split patterns that most models use, chosen by equality of the pattern's text. Each of
// those patterns matches at every position, so a scanner only says how long the match is.
#ifndef MICA_TEXT_SCANNER_H
#define MICA_TEXT_SCANNER_H

#include <stddef.h>

/** Length of the match at s (n > 0 bytes of valid UTF-8 are left). */
typedef size_t mica_scan_fn(const char *s, size_t n);

/** The scanner of a pattern, or NULL if it has none. */
mica_scan_fn *mica_scanner_find(const char *pattern, size_t n);
/** The pattern of ByteLevel(use_regex), that is GPT-2's. */
size_t mica_scan_gpt2(const char *s, size_t n);
#endif
