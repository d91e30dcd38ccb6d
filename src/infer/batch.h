// SPDX-License-Identifier: Apache-2.0
// What a native backend's batch is: functions as in mica/batch.h, with prompts as ids.
#ifndef MICA_INFER_BATCH_H
#define MICA_INFER_BATCH_H

#include "infer/internal.h"
#include "mica/batch.h"

typedef struct mica_rows mica_rows;
mica_rows *mica_rows_new(mica_lm *lm, const mica_batch_options *options, mica_error *err);
mica_lm *mica_rows_model(const mica_rows *b);
int64_t mica_rows_add(mica_rows *b, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err);
bool mica_rows_next(mica_rows *b, mica_batch_event *event);
void mica_rows_cancel(mica_rows *b, int64_t row);
bool mica_rows_error(const mica_rows *b, int64_t row, mica_error *err);
mica_metrics mica_rows_metrics(const mica_rows *b, int64_t row);
void mica_rows_free(mica_rows *b);
#endif
