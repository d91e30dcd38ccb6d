// SPDX-License-Identifier: Apache-2.0
// Attention over 8-bit codes for a level of vectors: vec_decode.h once more, for int8 rows, and conversion of rows.
// Included after the level's vectors and vec_attention.h, which name DECODE_ROWS and DECODE_COLUMNS.
#ifndef MICA_DEVICE_CPU_VEC_CODES_H
#define MICA_DEVICE_CPU_VEC_CODES_H

#include "device/cpu/codes_rows.h"

#define T int8_t
#define NAME(f) f##_i8
#define LOAD load_i8
#define LOADN loadn_i8
#include "device/cpu/vec_decode.h"
#undef T
#undef NAME
#undef LOAD
#undef LOADN

static void fill_attention_codes(mica_cpu_rows_isa *isa) {
    isa->to_codes = row_to_codes, isa->from_codes = row_from_codes;
    for (int t = 0; t < MICA_CPU_FLOATS; t++) isa->scores_codes[t] = scores_i8, isa->values_codes[t] = values_i8;
}
#endif
