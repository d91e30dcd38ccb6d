// SPDX-License-Identifier: Apache-2.0
// How ops without array inputs (but perhaps a random key) are recorded.
#ifndef MICA_ENGINE_SOURCE_H
#define MICA_ENGINE_SOURCE_H

#include "engine/node.h"

/** arange, random_uniform, random_normal: params.arange, size and dtype in parameters; key NULL for arange. */
mica_array *mica_record_source(mica_scope *s, mica_op op, mica_array *key, double start, double step, int ndim, const int64_t *shape,
                               mica_dtype dtype);
#endif
