// SPDX-License-Identifier: Apache-2.0
// Rows that the Python process computes together; functions as in mica/batch.h.
#ifndef MICA_BACKEND_MLX_LM_BATCH_H
#define MICA_BACKEND_MLX_LM_BATCH_H

#include "backend/mlx_lm/server.h"

typedef struct mica_mlx_batch mica_mlx_batch;
mica_mlx_batch *mica_mlx_batch_new(mica_mlx *m, const mica_batch_options *options, mica_error *err);
int64_t mica_mlx_batch_add(mica_mlx_batch *b, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err);
bool mica_mlx_batch_next(mica_mlx_batch *b, mica_batch_event *event);
void mica_mlx_batch_cancel(mica_mlx_batch *b, int64_t row);
bool mica_mlx_batch_error(const mica_mlx_batch *b, int64_t row, mica_error *err);
mica_metrics mica_mlx_batch_metrics(const mica_mlx_batch *b, int64_t row);
void mica_mlx_batch_free(mica_mlx_batch *b);
#endif
