// SPDX-License-Identifier: Apache-2.0
// Attention of a level that packs everything to f32: the templates of vec_flash.h, vec_attention.h and vec_codes.h, and what fills a table with them.
// Included after the level's vectors, which come with the block sizes FLASH_* and DECODE_*.
#ifndef MICA_DEVICE_CPU_VEC_ATTENTION_F32_H
#define MICA_DEVICE_CPU_VEC_ATTENTION_F32_H

#include "device/cpu/vec_weights.h"

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

static void fill_attention(mica_cpu_rows_isa *isa) {
    fill_attention_f32(isa);
    fill_attention_f16(isa);
    fill_attention_bf16(isa);
    fill_attention_codes(isa);
}
#endif
