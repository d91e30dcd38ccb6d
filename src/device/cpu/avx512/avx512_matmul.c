// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level avx512: f32 from the common template, bf16 from avx512_bf16.c.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512/v16.h"

#define F32_ROWS 8
#define F32_VECTORS 3
#include "device/cpu/f32_products.h"

void mica_cpu_avx512_matmul(mica_cpu_matmul_isa *isa) {
    isa->f32 = f32_panels;
    isa->dot_f32 = dot_f32;
    isa->tiles_f32 = tiles_f32;
    isa->group_sums = group_sums;
    isa->bf16 = (mica_cpu_panels){
        .columns = 48,
        .depth = 1024, // 96 KiB of panel in the second-level cache
        .direct = 4, // from there on panels win, their packing included
        // Codes up to 5 bits decode so cheaply that direct products, which leave the weights unrounded, win up to about a
        // hundred rows (Zen 4, two threads, 4 bits, GFLOP/s direct and panels: 32 rows 408 and 365, 128: 398 and 415, 512:
        // 396 and 440 of a peak of 455). 6 bits cost more, 8 bits take two products.
        .direct_tiles = {[2] = 96, [3] = 96, [4] = 96, [5] = 96, [6] = 48, [8] = 16},
        .tiles_rows = 8,
        .gemm = mica_cpu_avx512_gemm_bf16,
        .gemm_out = mica_cpu_avx512_gemm_out_bf16,
        .from_dense = mica_cpu_avx512_panel_dense_bf16,
        .from_tiles = mica_cpu_avx512_panel_tiles_bf16,
        .from_tiles_back = mica_cpu_avx512_panel_tiles_back_bf16,
    };
    isa->dot_bf16 = mica_cpu_avx512_dot_bf16;
    isa->tiles_bf16 = mica_cpu_avx512_tiles_bf16;
    isa->fixed_size = mica_cpu_avx512_fixed_size, isa->fixed_row = mica_cpu_avx512_fixed_row;
    isa->tiles_fixed = mica_cpu_avx512_tiles_fixed, isa->fixed_rows = 1;
}
#endif
