// SPDX-License-Identifier: Apache-2.0
// Attention kernels, level avx512vnni: everything packed to f32. Register blocks of 6 rows x 4 vectors: 24 sums, 4 keys,
// 1 query.
#if defined(__x86_64__)
#include "device/cpu/avx512vnni/vec512.h"
#include "device/cpu/isa.h"
#include "device/cpu/vec_math.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "device/cpu/vec_weights.h"

enum { FLASH_ROWS = 6, FLASH_COLUMNS = 4, FLASH_GROUP = 48, FLASH_UNITS = 1, DECODE_ROWS = 4, DECODE_COLUMNS = 4 };
#define FLASH(f) f##_f32
#define FLASH_PER 1
#define FLASH_ADD(c, a, b) v_fma(a, b, c)
#define FLASH_STORE(s, p) store_weights_f32(s, p)
#define FLASH_EXP(x) v_exp_weight(x)
#define FLASH_STORE_ROW(s, x, n) store_row_f32(s, x, n)
#include "device/cpu/vec_product.h"
#include "device/cpu/vec_flash.h"
#include "device/cpu/vec_flash_grad.h"

#define VEC_TEMPLATE "device/cpu/vec_attention.h"
#include "device/cpu/vec_types.h"
#include "device/cpu/vec_codes.h"

void mica_cpu_avx512vnni_attention(mica_cpu_rows_isa *isa) {
    fill_attention_f32(isa);
    fill_attention_f16(isa);
    fill_attention_bf16(isa);
    fill_attention_codes(isa);
}
#endif
