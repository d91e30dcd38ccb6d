// SPDX-License-Identifier: Apache-2.0
// Attention kernels, level amx: prefill in bf16 as at level avx512, its two products on tiles of 16 x 16 sums, two at
// a time (few tiles in use: see amx_matmul.c). The packed form of that level is already the one that tiles want: a tile of b is 16
// units of 16 columns.
#if defined(__x86_64__)
#include "device/cpu/amx/tile.h"
#include "device/cpu/avx512vnni/vec512.h"
#include "device/cpu/isa.h"
#include "device/cpu/vec_math.h"
#include <math.h>
#include <stdbool.h>
#include "device/cpu/avx512/pairs.h"

enum { FLASH_GROUP = 32, FLASH_UNITS = 16, TILE = 16 };

// Tiles 0, 1: sums, left and right; 2: rows of a; 3: columns of b.
static void configure(size_t rows) {
    tile_config c = {.palette = 1};
    for (int t = 0; t < 3; t++) tile_shape(&c, t, rows, 64);
    tile_shape(&c, 3, TILE, 64);
    tile_configure(&c);
}

// Two columns of tiles: c [up to 16 rows, 32] = c * keep + a · b over `units` units, a multiple of 16. Distances in
// f32.
static void tile_columns(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t units, bool keep) {
    TILE_ZERO(0);
    TILE_ZERO(1);
    if (keep) {
        TILE_LOAD(0, c, ldc * 4);
        TILE_LOAD(1, c + TILE, ldc * 4);
    }
    for (size_t u = 0; u < units; u += TILE) {
        TILE_LOAD(2, a + u, lda * 4);
        TILE_LOAD(3, b + u * ldb, ldb * 4);
        TILE_MULTIPLY(0, 2, 3);
        TILE_ZERO(3);
        TILE_LOAD(3, b + u * ldb + TILE, ldb * 4);
        TILE_MULTIPLY(1, 2, 3);
        TILE_ZERO(2);
        TILE_ZERO(3);
    }
    TILE_STORE(0, c, ldc * 4);
    TILE_STORE(1, c + TILE, ldc * 4);
}

static void product_tiles(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t units,
                          const float *rescale, size_t rows, size_t vectors) {
    for (size_t r = 0; rescale && r < rows; r++)
        for (size_t v = 0; rescale[r] < 1.0f && v < vectors; v++)
            store_f32(c + r * ldc + v * LANES, v_mul(load_f32(c + r * ldc + v * LANES), v_set(rescale[r])));
    for (size_t r = 0; r < rows; r += TILE) {
        if (rows - r < TILE) configure(rows - r);
        for (size_t v = 0; v < vectors; v += 2)
            tile_columns(c + r * ldc + v * LANES, ldc, a + r * lda, lda, b + v * LANES, ldb, units, rescale != NULL);
        if (rows - r < TILE) configure(TILE);
    }
}

#define FLASH(f) f##_tiles
#define FLASH_PER 2
#define FLASH_STORE(s, p) store_weights_bf16(s, p)
#define FLASH_EXP(x) exp_pairs(x)
#include "device/cpu/vec_flash.h"

// What underflows becomes 0: denormal numbers cost Intel's cores a hundred cycles each.
static void flash_released(const mica_cpu_flash *b) {
    enum { FLUSH_TO_ZERO = 0x8000 };
    unsigned state = _mm_getcsr();
    _mm_setcsr(state | FLUSH_TO_ZERO);
    configure(TILE);
    flash_tiles(b);
    tile_release();
    _mm_setcsr(state);
}

void mica_cpu_amx_attention(mica_cpu_rows_isa *isa) { isa->flash[MICA_BF16] = flash_released; }
#endif
