// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level avx2: in f32 with FMA, bf16 and f16 are widened as they are loaded; single rows of 4-bit weights in integers,
// avx2_fixed.c.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx2/fixed.h"
#include "device/cpu/avx2/pack.h"
#include "device/cpu/avx2/v16.h"

#define F32_ROWS 6
#define F32_VECTORS 1
#include "device/cpu/f32_products.h"

void mica_cpu_avx2_matmul(mica_cpu_matmul_isa *isa) {
    isa->f32 = f32_panels;
    isa->dot_f32 = dot_f32;
    isa->tiles_f32 = tiles_f32;
    isa->pack_codes = mica_cpu_avx2_pack_codes;
    isa->pack_nibbles = mica_cpu_avx2_pack_nibbles;
    isa->group_sums = group_sums;
    isa->fixed_size = mica_cpu_avx2_fixed_size, isa->fixed_row = mica_cpu_avx2_fixed_row;
    isa->tiles_fixed = mica_cpu_avx2_tiles_fixed, isa->fixed_rows = MICA_DIRECT_ROWS;
}
#endif
