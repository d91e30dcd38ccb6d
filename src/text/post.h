// SPDX-License-Identifier: Apache-2.0
// Post-processors: the ids put in front of and behind a text.
#ifndef MICA_TEXT_POST_H
#define MICA_TEXT_POST_H

#include "base/json.h"
#include "mica/tokenizer.h"

typedef struct mica_post {
    mica_ids before, after;
} mica_post;

bool mica_post_read(mica_post *p, const mica_json *v, const char *what, mica_error *err);
void mica_post_free(mica_post *p);
#endif
