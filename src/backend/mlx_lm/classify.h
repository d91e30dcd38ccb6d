// SPDX-License-Identifier: Apache-2.0
// Classification by the Python process; as in mica/backend.h.
#ifndef MICA_BACKEND_MLX_LM_CLASSIFY_H
#define MICA_BACKEND_MLX_LM_CLASSIFY_H

#include "backend/mlx_lm/server.h"

bool mica_mlx_classify(mica_mlx *m, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *out, mica_error *err);
#endif
