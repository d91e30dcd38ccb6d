// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level avx512, which multiplies bf16 pairs (avx512_bf16.c, avx512_tiles.c).
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx512/bf16.h"

void mica_cpu_avx512_matmul(mica_cpu_matmul_isa *isa) {
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
        .part = 16,
        .from_dense = mica_cpu_avx512_panel_dense_bf16,
        .from_tiles = mica_cpu_avx512_panel_tiles_bf16,
        .from_tiles_back = mica_cpu_avx512_panel_tiles_back_bf16,
    };
    isa->dot_bf16 = mica_cpu_avx512_dot_bf16;
    isa->tiles_bf16 = mica_cpu_avx512_tiles_bf16;
    isa->fixed_rows = 1;
    isa->tiles_shared = mica_cpu_avx512_tiles_shared, isa->shared_pack = mica_cpu_avx512_shared_pack, isa->shared_size = mica_cpu_avx512_shared_size;
    isa->shared_inputs = 2048; // 8 rows of 1024 inputs lose 2 to 4 % in a model
}
#endif
