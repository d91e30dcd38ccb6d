// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level avx2: in f32 with FMA, bf16 and f16 are widened as they are loaded; single rows of 4-bit weights in integers,
// avx2_fixed.c.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx2/pack.h"
#include "device/cpu/avx2/v16.h"

#define F32_ROWS 6
#define F32_VECTORS 1
#include "device/cpu/f32_products.h"

void mica_cpu_avx2_matmul(mica_cpu_matmul_isa *isa) {
    fill_f32(isa);
    isa->pack_codes = mica_cpu_avx2_pack_codes;
    isa->pack_nibbles = mica_cpu_avx2_pack_nibbles;
    mica_cpu_avx2_fixed(isa);
}
#endif
