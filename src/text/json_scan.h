// SPDX-License-Identifier: Apache-2.0
// A pull reader for large JSON files: strings come straight from the mapped file unless they hold escapes. It is
// strict about what it reads; what it only skips is to be checked by whoever parses it later.
#ifndef MICA_TEXT_JSON_SCAN_H
#define MICA_TEXT_JSON_SCAN_H

#include "base/base.h"

typedef struct mica_scan {
    const char *start, *p, *end;
    const char *what; // file name, for messages
    mica_error *err;
} mica_scan;

/** Fails naming the file and the line. */
bool mica_scan_fail(const mica_scan *s, const char *why);
/** The next character that is no white space, 0 at the end. */
char mica_scan_peek(mica_scan *s);
/** Takes the character c (after white space), or fails. */
bool mica_scan_take(mica_scan *s, char c);
/** Before an element: *more says whether there is one. first: nothing was read since the opening bracket. */
bool mica_scan_more(mica_scan *s, bool first, char close, bool *more);
/** A string, decoded into buffer if it holds escapes; valid until buffer changes. Refuses invalid UTF-8. */
bool mica_scan_string(mica_scan *s, mica_buf *buffer, const char **text, size_t *n);
bool mica_scan_int(mica_scan *s, int64_t *value);
/** Passes over any value: brackets must pair, strings must end; nothing else is checked. */
bool mica_scan_skip(mica_scan *s);
#endif
