// SPDX-License-Identifier: Apache-2.0
// Batches for backends that have none: rows are answered one after another.
#ifndef MICA_BACKEND_TURNS_H
#define MICA_BACKEND_TURNS_H

#include "mica/backend.h"

typedef struct mica_turns mica_turns;
/** `model` is what the backend's load gave. */
mica_turns *mica_turns_new(const mica_backend *backend, void *model, mica_error *err);
int64_t mica_turns_add(mica_turns *b, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err);
bool mica_turns_next(mica_turns *b, mica_batch_event *event);
void mica_turns_cancel(mica_turns *b, int64_t row);
bool mica_turns_error(const mica_turns *b, int64_t row, mica_error *err);
mica_metrics mica_turns_metrics(const mica_turns *b, int64_t row);
void mica_turns_free(mica_turns *b);
#endif
