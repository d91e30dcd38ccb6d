// SPDX-License-Identifier: Apache-2.0
// The batch of the native backend (infer/batch.c): functions as in mica/batch.h, with prompts as ids. Backends without a batch of their own
// take turns (backend/turns.h); mlx_lm's is in backend/mlx_lm/batch.h. One row of it: infer/row.h.
#ifndef MICA_INFER_BATCH_H
#define MICA_INFER_BATCH_H

#include "infer/internal.h"
#include "mica/batch.h"

typedef struct mica_lm_batch mica_lm_batch;
mica_lm_batch *mica_lm_batch_new(mica_lm *lm, const mica_batch_options *options, mica_error *err);
mica_lm *mica_lm_batch_model(const mica_lm_batch *b);
int64_t mica_lm_batch_add(mica_lm_batch *b, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err);
bool mica_lm_batch_next(mica_lm_batch *b, mica_batch_event *event);
void mica_lm_batch_cancel(mica_lm_batch *b, int64_t row);
bool mica_lm_batch_error(const mica_lm_batch *b, int64_t row, mica_error *err);
mica_metrics mica_lm_batch_metrics(const mica_lm_batch *b, int64_t row);
void mica_lm_batch_free(mica_lm_batch *b);
#endif
