// SPDX-License-Identifier: Apache-2.0
// Element types of arrays and stored tensors.
#ifndef MICA_DTYPE_H
#define MICA_DTYPE_H

#include "mica/error.h"
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mica_dtype {
    MICA_F32 = 0,
    MICA_F16,
    MICA_BF16,
    MICA_F64,
    MICA_BOOL, // one byte, 0 or 1
    MICA_U8,
    MICA_U16,
    MICA_U32,
    MICA_U64,
    MICA_I8,
    MICA_I16,
    MICA_I32,
    MICA_I64,
    MICA_DTYPE_COUNT
} mica_dtype;

/** Bytes of one element. */
MICA_API size_t mica_dtype_size(mica_dtype dtype);
/** "f32", "bf16", …, as safetensors spells them but in lower case. */
MICA_API const char *mica_dtype_name(mica_dtype dtype);
/** Reads a name in either case ("F32", "bf16"); false if there is no such type. */
MICA_API bool mica_dtype_parse(const char *name, mica_dtype *dtype);
/** f16, bf16, f32, f64. */
MICA_API bool mica_dtype_is_float(mica_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif
