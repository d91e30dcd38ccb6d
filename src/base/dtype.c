// SPDX-License-Identifier: Apache-2.0
// Names and sizes of the element types.
#include "mica/dtype.h"
#include <strings.h>

static const struct {
    const char *name;
    size_t size;
} types[MICA_DTYPE_COUNT] = {
    [MICA_F32] = {"f32", 4}, [MICA_F16] = {"f16", 2}, [MICA_BF16] = {"bf16", 2}, [MICA_F64] = {"f64", 8},
    [MICA_BOOL] = {"bool", 1}, [MICA_U8] = {"u8", 1}, [MICA_U16] = {"u16", 2}, [MICA_U32] = {"u32", 4},
    [MICA_U64] = {"u64", 8}, [MICA_I8] = {"i8", 1}, [MICA_I16] = {"i16", 2}, [MICA_I32] = {"i32", 4},
    [MICA_I64] = {"i64", 8},
};

size_t mica_dtype_size(mica_dtype dtype) { return types[dtype].size; }
const char *mica_dtype_name(mica_dtype dtype) { return types[dtype].name; }
bool mica_dtype_is_float(mica_dtype dtype) { return dtype <= MICA_F64; }

bool mica_dtype_parse(const char *name, mica_dtype *dtype) {
    for (int i = 0; i < MICA_DTYPE_COUNT; i++)
        if (!strcasecmp(name, types[i].name)) return *dtype = (mica_dtype)i, true;
    return false;
}
