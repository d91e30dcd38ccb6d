// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level amx: bf16 gemm on AMX tiles over the panels of the avx512 level, 32 columns wide. A block of
// 16 × 32 sums fills two tile registers, one more holds rows of x, one a half of the panel. More registers would save loads, but a tile
// that holds something also holds a physical register, and a core whose other hyperthread is busy has only a few more than eight
// of them: with eight tiles in use every tile instruction then waits for the one before (2 × 2 tiles of sums: 68 cycles for
// four products alone on the core, 330 beside another thread; 1 × 2 tiles: 72 and 130). Rows of x are packed as tiles first: each
// is read once for every panel, and a tile of rows a power of two apart would fall into one set of the first-level cache. Direct
// products of packed weights are in amx_tiles.c; everything else is the avx512 level's.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/amx/tile.h"
#include "device/cpu/amx/packed.h"
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512/codes.h"
#include <immintrin.h>

enum {
    COLUMNS = 32,
    ROWS = 16,   // of a tile
    STEP = 32,   // inputs that one tile instruction multiplies
    TILE_BYTES = 1024,
    STEP_BYTES = 2 * TILE_BYTES, // of 32 packed rows
    PANEL_BYTES = COLUMNS * 4,
    C_BYTES = COLUMNS * 4,
};

// Tiles 0, 1: sums, left and right; 2: rows of x; 3: columns of the panel.
static void shape_tiles(size_t rows) {
    tile_config c = {.palette = 1};
    for (int t = 0; t < 3; t++) tile_shape(&c, t, rows, 64);
    tile_shape(&c, 3, ROWS, 64);
    tile_configure(&c);
}

// ---- the next panel of 4-bit tiles, decoded a few vectors at each step of products --------------------
typedef struct ahead {
    const mica_cpu_ahead *next;
    __m512i table;
    size_t per_tile, columns;  // chunks of a tile; tile columns that exist
    size_t done, jobs;         // of a vector of codes each, four of weights
    ptrdiff_t soon;            // from a tile to the same one of the panel after the next
    size_t due, steps;         // after every step `jobs` of `steps` parts of a job more are due
} ahead;

static ahead plan_ahead(const mica_cpu_ahead *next, size_t steps) {
    ahead d = {.next = next, .steps = steps};
    if (!next->t) return d;
    d.table = tables_of(4).low;
    d.per_tile = next->t->depth / MICA_TILE_CHUNK;
    d.columns = next->t->columns - next->first;
    d.jobs = next->k / MICA_TILE_CHUNK * 8;
    d.soon = (((ptrdiff_t)next->soon_first - (ptrdiff_t)next->first) * (ptrdiff_t)next->t->per_column +
              ((ptrdiff_t)next->soon_k0 - (ptrdiff_t)next->k0) / (ptrdiff_t)next->t->depth) * (ptrdiff_t)next->t->bytes;
    return d;
}

V16_INLINE void decode_job(ahead *d) {
    const mica_cpu_tiles *t = d->next->t;
    size_t quarter = d->done % 4, column = d->done / 4 % 2, chunk = d->done / 8, at = d->next->k0 / MICA_TILE_CHUNK + chunk;
    unsigned char *to = (unsigned char *)d->next->panel + (chunk * ROWS + quarter * 4) * PANEL_BYTES + column * 64;
    d->done++;
    if (column >= d->columns) {
        for (int p = 0; p < 4; p++) _mm512_store_si512(to + p * PANEL_BYTES, _mm512_setzero_si512());
        return;
    }
    const unsigned char *tile = d->next->packed + ((d->next->first + column) * t->per_column + at / d->per_tile) * t->bytes;
    const char *soon = (const char *)tile + d->soon;
    _mm_prefetch(soon + at % d->per_tile * 256 + quarter * 64, _MM_HINT_T1);
    if (at % d->per_tile == 0 && quarter == 0) _mm_prefetch(soon + t->codes, _MM_HINT_T1);
    __m512i codes = _mm512_loadu_si512(tile + at % d->per_tile * 256 + quarter * 64);
    v16 s = tile_scale(t, tile, 0), b = tile_scale(t, tile, 1);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        __m512i q = _mm512_permutexvar_epi16(shifted(codes, 4 * p), d->table);
        _mm512_store_si512(to + p * PANEL_BYTES, pair_weights(even(q), odd(q), s, b));
    }
}

V16_INLINE void decode_due(ahead *d) {
    for (d->due += d->jobs; d->due >= d->steps; d->due -= d->steps) decode_job(d);
}

// ---- gemm: x packed [blocks][k/32][2][16][32], panel [k/2][32][2], c [rows][32] ----------------------
// Rows of x: as they come, or past the first-level cache, where they would drive out the panel. From the third level such a load
// does not bring them into the second, so the first panel that meets them takes plain ones. Operands are zeroed after their last use:
// that costs nothing and gives their physical registers back.
static inline __attribute__((always_inline)) void sum_block(size_t k, const unsigned char *a, const unsigned char *w, float *c, bool first,
                                                            const bool stream, ahead *d) {
    TILE_ZERO(0);
    TILE_ZERO(1);
    if (!first) {
        TILE_LOAD(0, c, C_BYTES);
        TILE_LOAD(1, c + ROWS, C_BYTES);
    }
    for (size_t i = 0; i < k; i += STEP, a += STEP_BYTES, w += STEP / 2 * PANEL_BYTES) {
        if (stream) TILE_STREAM(2, a, 64);
        else TILE_LOAD(2, a, 64);
        TILE_LOAD(3, w, PANEL_BYTES);
        TILE_MULTIPLY(0, 2, 3);
        TILE_ZERO(3);
        TILE_LOAD(3, w + 64, PANEL_BYTES);
        TILE_MULTIPLY(1, 2, 3);
        TILE_ZERO(2);
        TILE_ZERO(3);
        decode_due(d);
    }
    TILE_STORE(0, c, C_BYTES);
    TILE_STORE(1, c + ROWS, C_BYTES);
}

// Packed rows lie in blocks of twice 16.
static inline __attribute__((always_inline)) void sum_blocks(size_t from, size_t end, size_t k, const unsigned char *a, ptrdiff_t lda,
                                                             const void *panel, float *c, bool first, const bool stream, ahead *d) {
    for (size_t i = from; i < end; i += ROWS)
        sum_block(k, a + (ptrdiff_t)(i / (2 * ROWS)) * lda * (2 * ROWS * 2) + i % (2 * ROWS) / ROWS * TILE_BYTES, panel, c + i * COLUMNS, first,
                  stream, d);
}

static void multiply(size_t m, size_t k, const unsigned char *a, ptrdiff_t lda, const void *panel, float *c, bool first, bool again, ahead *d) {
    size_t whole = m / ROWS * ROWS;
    if (whole) {
        shape_tiles(ROWS);
        if (again) sum_blocks(0, whole, k, a, lda, panel, c, first, true, d);
        else sum_blocks(0, whole, k, a, lda, panel, c, first, false, d);
    }
    if (whole < m) {
        shape_tiles(m - whole);
        sum_blocks(whole, m, k, a, lda, panel, c, first, false, d);
    }
    tile_release();
}

static void gemm_bf16(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first, bool again) {
    ahead none = {.steps = 1};
    multiply(m, k, x, lda, panel, c, first, again, &none);
}

static void gemm_ahead(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first, bool again,
                       const mica_cpu_ahead *next) {
    const mica_cpu_ahead none = {0};
    bool between = next->t && next->t->bits == 4 && next->t->groups == 1;
    size_t steps = (m + ROWS - 1) / ROWS * (k / STEP);
    ahead d = plan_ahead(between ? next : &none, MICA_MAX(steps, (size_t)1));
    multiply(m, k, x, lda, panel, c, first, again, &d);
    while (d.done < d.jobs) decode_job(&d);
    if (next->t && !between) mica_cpu_avx512_panel_tiles_bf16(next->t, next->packed, next->first, next->k0, next->k, COLUMNS, next->panel);
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
        // 32 KiB: the panel stays in the first-level cache, past which rows of x stream from the second (with plain loads a panel of
        // 16 KiB is the most, and sums are loaded and stored twice as often).
        .depth = 512,
        .across = 8, // 256 outputs: rows of x beyond the second-level cache are read from the third an eighth as often
        .direct = 4,
        // 6144 × 2048 in 4 bits, two cores, best of 120: 32 rows 0.98 ms.
        .direct_tiles = {[2] = 32, [3] = 32, [4] = 32, [5] = 32, [6] = 32, [8] = 32},
        .tiles_rows = 32,
        .gemm = gemm_bf16,
        .gemm_ahead = gemm_ahead,
        .pack = pack_rows,
        .from_dense = mica_cpu_avx512_panel_dense_bf16,
        .from_tiles = mica_cpu_avx512_panel_tiles_bf16,
        .from_tiles_back = mica_cpu_avx512_panel_tiles_back_bf16,
    };
    isa->tiles_bf16 = mica_cpu_amx_tiles_bf16;
    isa->fixed_size = mica_cpu_amx_fixed_size, isa->fixed_row = mica_cpu_amx_fixed_row;
    isa->tiles_fixed = mica_cpu_amx_tiles_fixed, isa->fixed_rows = MICA_DIRECT_ROWS;
}
#endif
