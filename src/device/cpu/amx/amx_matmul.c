// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level amx: bf16 gemm on AMX tiles over the panels of the avx512 level, 32 columns wide. A block of
// 32 × 32 sums fills four tile registers, two more hold rows of x, two the panel. Direct products of packed weights are in
// amx_tiles.c; everything else is the avx512 level's.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/amx/tile.h"
#include "device/cpu/amx/packed.h"
#include "device/cpu/avx512/bf16.h"

enum { COLUMNS = 32, ROWS = 16, STEP = 32 }; // STEP: inputs that one tile instruction multiplies

// Tiles 0–3: sums (upper left, upper right, lower left, lower right); 4, 5: rows of x; 6, 7: columns of the panel.
static void shape_tiles(size_t upper, size_t lower, size_t k) {
    tile_config c = {.palette = 1};
    const size_t rows[4] = {upper, upper, lower, lower};
    for (int t = 0; t < 4; t++) tile_shape(&c, t, rows[t], 64);
    tile_shape(&c, 4, upper, k * 2);
    tile_shape(&c, 5, lower, k * 2);
    tile_shape(&c, 6, k / 2, 64);
    tile_shape(&c, 7, k / 2, 64);
    tile_configure(&c);
}

// ---- gemm ------------------------------------------------------------------------------------------
typedef struct block {
    const unsigned char *a;     // bf16 [32][k], rows a_bytes apart
    ptrdiff_t a_bytes;
    const unsigned char *panel; // bf16 [k/2][32][2]
    float *c;                   // [32][32]
} block;

enum { PANEL_BYTES = COLUMNS * 4, C_BYTES = COLUMNS * 4 };

static inline void sums_load(const block *b, int halves, bool first) {
    if (first) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        if (halves < 2) return;
        TILE_ZERO(2);
        TILE_ZERO(3);
        return;
    }
    TILE_LOAD(0, b->c, C_BYTES);
    TILE_LOAD(1, b->c + 16, C_BYTES);
    if (halves < 2) return;
    TILE_LOAD(2, b->c + ROWS * COLUMNS, C_BYTES);
    TILE_LOAD(3, b->c + ROWS * COLUMNS + 16, C_BYTES);
}

static inline void sums_store(const block *b, int halves) {
    TILE_STORE(0, b->c, C_BYTES);
    TILE_STORE(1, b->c + 16, C_BYTES);
    if (halves < 2) return;
    TILE_STORE(2, b->c + ROWS * COLUMNS, C_BYTES);
    TILE_STORE(3, b->c + ROWS * COLUMNS + 16, C_BYTES);
}

// sums += x · panel over `steps` steps, for 32 rows (halves 2) or up to 16.
static inline void multiply(const block *b, int halves, size_t steps, size_t from) {
    const unsigned char *a = b->a + from * 2, *w = b->panel + from / 2 * PANEL_BYTES, *lower = a + ROWS * b->a_bytes;
    for (; steps; steps--, a += STEP * 2, lower += STEP * 2, w += STEP / 2 * PANEL_BYTES) {
        TILE_LOAD(6, w, PANEL_BYTES);
        TILE_LOAD(4, a, b->a_bytes);
        TILE_MULTIPLY(0, 4, 6);
        TILE_LOAD(7, w + 64, PANEL_BYTES);
        TILE_MULTIPLY(1, 4, 7);
        if (halves < 2) continue;
        TILE_LOAD(5, lower, b->a_bytes);
        TILE_MULTIPLY(2, 5, 6);
        TILE_MULTIPLY(3, 5, 7);
    }
}

static void gemm_bf16(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first) {
    block b = {.a_bytes = lda * 2, .panel = panel};
    size_t steps = k / STEP, tail = k % STEP, shape = 0;
    for (size_t i = 0; i < m; i += 2 * ROWS) {
        size_t left = m - i < 2 * ROWS ? m - i : 2 * ROWS, upper = left < ROWS ? left : ROWS, lower = left - upper;
        int halves = lower ? 2 : 1;
        b.a = (const unsigned char *)x + (ptrdiff_t)i * b.a_bytes, b.c = c + i * COLUMNS;
        if (steps) {
            if (shape != left || tail) shape_tiles(upper, lower, STEP);
            shape = left;
            sums_load(&b, halves, first);
            if (halves == 2) multiply(&b, 2, steps, 0);
            else multiply(&b, 1, steps, 0);
            sums_store(&b, halves);
        }
        if (tail) { // tiles of fewer inputs; loading their shape clears the sums, so those go through memory
            shape_tiles(upper, lower, tail);
            sums_load(&b, halves, first && !steps);
            multiply(&b, halves, 1, steps * STEP);
            sums_store(&b, halves);
        }
    }
    tile_release();
}

void mica_cpu_amx_matmul(mica_cpu_matmul_isa *isa) {
    isa->bf16 = (mica_cpu_panels){
        .columns = COLUMNS,
        .depth = 512, // 32 KiB: the panel stays in the first-level cache while rows of x stream past it
        .direct = 4,
        // 6144 × 2048 in 4 bits, one Sapphire Rapids core: 32 rows 1.6 ms against 2.2 by panels, 128 rows 7.0 against 4.2.
        .direct_tiles = {[2] = 32, [3] = 32, [4] = 32, [5] = 32, [6] = 32, [8] = 32},
        .tiles_rows = 32,
        .gemm = gemm_bf16,
        .from_dense = mica_cpu_avx512_panel_dense_bf16,
        .from_tiles = mica_cpu_avx512_panel_tiles_bf16,
    };
    isa->tiles_bf16 = mica_cpu_amx_tiles_bf16;
}
#endif
