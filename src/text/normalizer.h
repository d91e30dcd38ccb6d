// SPDX-License-Identifier: Apache-2.0
// Normalizers: a chain of steps that rewrite text before it is cut into words.
#ifndef MICA_TEXT_NORMALIZER_H
#define MICA_TEXT_NORMALIZER_H

#include "base/json.h"
#include "text/regex.h"

typedef enum { MICA_NORM_FORM, MICA_NORM_REPLACE, MICA_NORM_PREPEND, MICA_NORM_LOWERCASE, MICA_NORM_STRIP,
               MICA_NORM_STRIP_ACCENTS, MICA_NORM_BYTE_LEVEL, MICA_NORM_NMT } mica_norm_type;

typedef struct mica_norm_step {
    mica_norm_type type;
    int form;                  // mica_normal_form
    char *pattern, *content;   // Replace; Prepend has content only
    size_t pattern_size, content_size;
    mica_regex *regex;         // Replace with a regular expression
    bool left, right;          // Strip
} mica_norm_step;

typedef struct mica_normalizer {
    mica_norm_step *steps;
    size_t count, capacity;
} mica_normalizer;

bool mica_normalizer_read(mica_normalizer *n, const mica_json *v, const char *what, mica_error *err);
void mica_normalizer_free(mica_normalizer *n);
/** Normalises s[0…n); *out (borrowed: s itself or one of the buffers) receives the result. *at_start (may be NULL) turns
 * false if characters were stripped off the beginning. */
bool mica_normalizer_run(const mica_normalizer *n, const char *s, size_t size, mica_buf buffers[2], const char **out,
                         size_t *out_size, bool *at_start, mica_error *err);
/** Appends s with every match of the pattern replaced by content. Also what the Replace decoder does. */
bool mica_replace_all(const mica_norm_step *step, const char *s, size_t n, mica_buf *out, mica_error *err);
/** Reads {"pattern":…,"content":…}. */
bool mica_replace_read(mica_norm_step *step, const mica_json *v, const char *what, mica_error *err);
void mica_norm_step_free(mica_norm_step *step);
#endif
