// SPDX-License-Identifier: Apache-2.0
// One answer of the Python process; functions as in mica/model.h.
#ifndef MICA_BACKEND_MLX_LM_STREAM_H
#define MICA_BACKEND_MLX_LM_STREAM_H

#include "backend/mlx_lm/protocol.h"
#include "backend/mlx_lm/server.h"

typedef struct mica_mlx_stream mica_mlx_stream;
mica_mlx_stream *mica_mlx_stream_new(mica_mlx *m, const mica_prompt *prompt, const mica_generate_options *options, int64_t together,
                                     mica_error *err); // together: the batch that it is a row of (mica_mlx_number), or 0
/** Lets it be computed, without waiting for its first token. */
void mica_mlx_stream_run(mica_mlx_stream *s);
mica_mlx_request *mica_mlx_stream_request(const mica_mlx_stream *s);
bool mica_mlx_stream_next(mica_mlx_stream *s, mica_token *token);
void mica_mlx_stream_cancel(mica_mlx_stream *s);
mica_finish mica_mlx_stream_finish(const mica_mlx_stream *s);
bool mica_mlx_stream_error(const mica_mlx_stream *s, mica_error *err);
mica_metrics mica_mlx_stream_metrics(const mica_mlx_stream *s);
const int32_t *mica_mlx_stream_prompt(const mica_mlx_stream *s, size_t *count);
void mica_mlx_stream_free(mica_mlx_stream *s);
#endif
