// SPDX-License-Identifier: Apache-2.0
// The patterns of tokenizer.json, written for Oniguruma (Ruby syntax, Unicode 16), run by PCRE2.
#ifndef MICA_TEXT_REGEX_H
#define MICA_TEXT_REGEX_H

#include "base/base.h"

typedef struct mica_regex mica_regex;
typedef struct mica_regex_run mica_regex_run;

/** what: where the pattern stands, for messages. A construct that PCRE2 reads differently is refused by name. */
mica_regex *mica_regex_new(const char *pattern, size_t n, const char *what, mica_error *err);
void mica_regex_free(mica_regex *regex);

/** Called for each match, in order, with its offsets; false stops. */
typedef bool mica_regex_fn(void *ctx, size_t start, size_t end);
/** All matches in s (valid UTF-8) as Oniguruma's find_iter gives them. False: out of memory, the pattern gave up, or fn stopped. */
bool mica_regex_each(const mica_regex *regex, const char *s, size_t n, mica_regex_fn *fn, void *ctx, mica_error *err);
#endif
