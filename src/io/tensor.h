// SPDX-License-Identifier: Apache-2.0
// A stored tensor: name, element type, shape and bytes that belong to someone else (a mapped file or a weight).
#ifndef MICA_IO_TENSOR_H
#define MICA_IO_TENSOR_H

#include "base/base.h"
#include "mica/dtype.h"

enum { MICA_TENSOR_DIMS = 8 };

typedef struct mica_stored {
    const char *name;
    mica_dtype dtype;
    int ndim;
    int64_t shape[MICA_TENSOR_DIMS]; // outermost first
    const void *data; // row-major, little-endian, of ANY alignment (MLX does not pad its headers): use memcpy or
                      // unaligned loads. NULL only when bytes is 0.
    size_t bytes;
} mica_stored;

/** Number of elements. */
size_t mica_stored_count(const mica_stored *t);
/** Writes "[4,2048]" into text (at most size bytes, always terminated); returns text. */
char *mica_stored_shape(const mica_stored *t, char *text, size_t size);
#endif
