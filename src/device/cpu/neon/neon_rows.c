// SPDX-License-Identifier: Apache-2.0
// Row kernels, level neon: the templates of vec_rows.h on 8 lanes of f32. Attention is in neon_attention.c.
#if defined(__aarch64__)
#include "device/cpu/neon/vec128.h"
#include "device/cpu/isa.h"
#include "device/cpu/vec_math.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define VEC_TEMPLATE "device/cpu/vec_rows.h"
#include "device/cpu/vec_types.h"
#include "device/cpu/vec_update.h"

void mica_cpu_neon_rows(mica_cpu_rows_isa *isa) {
    fill_rows_f32(isa);
    fill_rows_f16(isa);
    fill_rows_bf16(isa);
    isa->adam_step = adam_step;
    mica_cpu_neon_attention(isa);
}
#endif
