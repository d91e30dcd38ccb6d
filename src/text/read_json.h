// SPDX-License-Identifier: Apache-2.0
// tokenizer.json -> tables.
#ifndef MICA_TEXT_READ_JSON_H
#define MICA_TEXT_READ_JSON_H

#include "text/tables.h"

/** Fills t from the text of a tokenizer.json; what: its name for messages. t->config gets all but vocab and merges. */
bool mica_read_tokenizer_json(mica_tables *t, const char *json, size_t size, const char *what, mica_error *err);
#endif
