// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level avx512vnni: AVX-512 without products of bf16 pairs (Intel from Cascade Lake to Rocket Lake), or with such as are
// slower than f32 (Intel's later ones). f32 from the common template; single rows of 4-bit weights in integers, avx512vnni_fixed.c.
#if defined(__x86_64__)
#include "device/cpu/avx512vnni/fixed.h"
#include "device/cpu/avx512vnni/v16.h"
#include "device/cpu/isa.h"

#define F32_ROWS 8
#define F32_VECTORS 3
#include "device/cpu/f32_products.h"

void mica_cpu_avx512vnni_matmul(mica_cpu_matmul_isa *isa) {
    fill_f32(isa);
    isa->fixed_size = mica_cpu_avx512vnni_fixed_size, isa->fixed_row = mica_cpu_avx512vnni_fixed_row;
    isa->tiles_fixed = mica_cpu_avx512vnni_tiles_fixed, isa->fixed_rows = MICA_DIRECT_ROWS;
}
#endif
