// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level amx: bf16 gemm on AMX tiles over the panels of the avx512 level, 32 columns wide. A block of
// 32 × 32 sums fills four tile registers, two more hold rows of x, two the panel. Rows of x are packed as tiles first: each is
// read once for every panel, and a tile of rows a power of two apart would fall into one set of the first-level cache. Direct
// products of packed weights are in amx_tiles.c; everything else is the avx512 level's.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/amx/tile.h"
#include "device/cpu/amx/packed.h"
#include "device/cpu/avx512/bf16.h"
#include <immintrin.h>

enum {
    COLUMNS = 32,
    ROWS = 16,              // of a tile
    STEP = 32,              // inputs that one tile instruction multiplies
    TILE_BYTES = 1024,
    STEP_BYTES = 2 * TILE_BYTES, // of 32 packed rows
    PANEL_BYTES = COLUMNS * 4,
    C_BYTES = COLUMNS * 4,
    AHEAD = 4,              // steps that rows of x are fetched ahead: 256 cycles of multiplying
};

// Tiles 0–3: sums (upper left, upper right, lower left, lower right); 4, 5: rows of x; 6, 7: columns of the panel.
static void shape_tiles(size_t rows) {
    tile_config c = {.palette = 1};
    size_t upper = rows < ROWS ? rows : ROWS, lower = rows - upper;
    for (int t = 0; t < 6; t++) tile_shape(&c, t, t == 2 || t == 3 || t == 5 ? lower : upper, 64);
    tile_shape(&c, 6, ROWS, 64);
    tile_shape(&c, 7, ROWS, 64);
    tile_configure(&c);
}

// ---- gemm ------------------------------------------------------------------------------------------
typedef struct block {
    const unsigned char *a, *next; // bf16 [k/32][32][32]: these rows, and those whose turn is next
    const unsigned char *panel;    // bf16 [k/2][32][2]
    float *c;                      // [32][32]
} block;

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

// The rows of one step, a few steps before they are multiplied; past the end of this block they are the next one's.
static inline void fetch(const block *b, size_t step, size_t steps) {
    const unsigned char *p = step < steps ? b->a + step * STEP_BYTES : b->next + (step - steps) % steps * STEP_BYTES;
#pragma GCC unroll 32
    for (int i = 0; i < STEP_BYTES; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

// sums += x · panel for 32 rows (halves 2) or up to 16.
static inline void multiply(const block *b, int halves, size_t steps) {
    const unsigned char *a = b->a, *w = b->panel;
    for (size_t s = 0; s < steps; s++, a += STEP_BYTES, w += STEP / 2 * PANEL_BYTES) {
        TILE_LOAD(6, w, PANEL_BYTES);
        TILE_LOAD(4, a, 64);
        TILE_MULTIPLY(0, 4, 6);
        TILE_LOAD(7, w + 64, PANEL_BYTES);
        TILE_MULTIPLY(1, 4, 7);
        fetch(b, s + AHEAD, steps);
        if (halves < 2) continue;
        TILE_LOAD(5, a + TILE_BYTES, 64);
        TILE_MULTIPLY(2, 5, 6);
        TILE_MULTIPLY(3, 5, 7);
    }
}

static void gemm_bf16(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first) {
    block b = {.a = x, .panel = panel, .c = c};
    size_t shape = 0;
    for (size_t i = 0; i < m; i += 2 * ROWS, b.a = b.next, b.c += 2 * ROWS * COLUMNS) {
        size_t left = m - i < 2 * ROWS ? m - i : 2 * ROWS;
        int halves = left > ROWS ? 2 : 1;
        b.next = i + 2 * ROWS < m ? b.a + 2 * ROWS * lda * 2 : (const unsigned char *)x;
        if (shape != left) shape_tiles(left);
        shape = left;
        sums_load(&b, halves, first);
        if (halves == 2) multiply(&b, 2, k / STEP);
        else multiply(&b, 1, k / STEP);
        sums_store(&b, halves);
    }
    tile_release();
}

// Up to 16 rows of x, k inputs, as one half of a block: tiles [16][32], two tiles apart, zeros up to kp inputs. Two lines of a row
// at a time, as the second-level cache fetches them.
static void pack_rows(size_t rows, size_t k, const void *x, ptrdiff_t ldx, size_t kp, void *packed) {
    unsigned char *to = packed;
    size_t p = 0;
    for (; p + 2 * STEP <= k; p += 2 * STEP, to += 2 * STEP_BYTES)
        for (size_t r = 0; r < rows; r++) {
            const uint16_t *from = (const uint16_t *)x + (ptrdiff_t)r * ldx + (ptrdiff_t)p;
            _mm512_store_si512(to + r * 64, _mm512_loadu_si512(from));
            _mm512_store_si512(to + r * 64 + STEP_BYTES, _mm512_loadu_si512(from + STEP));
        }
    for (; p < kp; p += STEP, to += STEP_BYTES) {
        __mmask32 mask = k >= p + STEP ? ~(__mmask32)0 : k > p ? (1u << (k - p)) - 1 : 0;
        for (size_t r = 0; r < rows; r++)
            _mm512_store_si512(to + r * 64, _mm512_maskz_loadu_epi16(mask, (const uint16_t *)x + (ptrdiff_t)r * ldx + (ptrdiff_t)p));
    }
}

void mica_cpu_amx_matmul(mica_cpu_matmul_isa *isa) {
    isa->bf16 = (mica_cpu_panels){
        .columns = COLUMNS,
        .step = STEP,
        // 16 KiB of panel, as much of 32 rows of x and their sums share the first-level cache (48 KiB), so that a step takes only
        // one operand's tiles from the second level.
        .depth = 256,
        .across = 4, // 128 outputs: rows of x that do not fit the second-level cache are read from the third a quarter as often
        .direct = 4,
        // 6144 × 2048 in 4 bits, one Sapphire Rapids core: 32 rows 1.6 ms against 2.2 by panels, 128 rows 7.0 against 4.2.
        .direct_tiles = {[2] = 32, [3] = 32, [4] = 32, [5] = 32, [6] = 32, [8] = 32},
        .tiles_rows = 32,
        .gemm = gemm_bf16,
        .pack = pack_rows,
        .from_dense = mica_cpu_avx512_panel_dense_bf16,
        .from_tiles = mica_cpu_avx512_panel_tiles_bf16,
    };
    isa->tiles_bf16 = mica_cpu_amx_tiles_bf16;
}
#endif
