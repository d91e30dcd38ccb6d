// SPDX-License-Identifier: Apache-2.0
// Several rows together against packed 4-bit weights, with vdpbf16ps: codes become bf16 (exact), scale and bias meet the sums of a group in
// f32. Zen 4 runs one such product a cycle, and also one load: so eight rows meet two tile columns at once, which halves the loads of
// x, and the decoding of codes runs beside on other ports. There is no room left for the sums over groups in registers: they wait in
// the first-level cache, 32 rows of them, so that a tile is read once for all of them. What remains above the products themselves is two
// FMAs a group, 6 % for groups of 64.
#if defined(__x86_64__)
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512/codes.h"
#include <assert.h>

enum {
    EIGHT = MICA_DIRECT_ROWS, // rows of a block
    MOST = MICA_SHARED_ROWS,  // rows of a call
    WIDE = 4,                 // tile columns at once for up to as many rows
    AHEAD = 6,                // tiles of each column
};

// ---- rows ------------------------------------------------------------------------------------------------
// A block of eight rows, group after group: pairs of inputs [group/2][8 rows], then the sums of the group [8 rows], and a gap up to a line.
static size_t group_floats(size_t group) { return (group / 2 + 2) * EIGHT; }
size_t mica_cpu_avx512_shared_size(size_t k, size_t group) { return k / group * group_floats(group) * sizeof(float); }

// Sixteen pairs of eight rows, [16][8] at `to`; returns the sums of rows in both halves.
V16_INLINE v16 turn_pairs(const __m512i r[EIGHT], float *to, v16 sum) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3F80);
    __m512i t[EIGHT], u[EIGHT];
#pragma GCC unroll 2
    for (int i = 0; i < EIGHT; i += 4) { // u[i+j]: in quarter q, pair 4q+j of rows i…i+3
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        t[i + 2] = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), t[i + 3] = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]), u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]), u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 2
    for (int j = 0; j < 4; j += 2) { // quarters of four vectors, transposed
        __m512i a = _mm512_shuffle_i32x4(u[j], u[4 + j], 0x44), b = _mm512_shuffle_i32x4(u[j], u[4 + j], 0xEE);
        __m512i c = _mm512_shuffle_i32x4(u[j + 1], u[5 + j], 0x44), d = _mm512_shuffle_i32x4(u[j + 1], u[5 + j], 0xEE);
        const __m512i q[4] = {_mm512_shuffle_i32x4(a, c, 0x88), _mm512_shuffle_i32x4(a, c, 0xDD), _mm512_shuffle_i32x4(b, d, 0x88),
                              _mm512_shuffle_i32x4(b, d, 0xDD)};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            _mm512_storeu_si512(to + (4 * i + j) * EIGHT, q[i]);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)q[i], ones);
        }
    }
    return sum;
}

void mica_cpu_avx512_shared_pack(size_t rows, const uint16_t *x, ptrdiff_t ldx, size_t group, size_t first, size_t last, void *block) {
    float *to = (float *)block + first * group_floats(group);
    for (size_t g = first; g < last; g++, to += 2 * EIGHT) {
        v16 sum = v16_zero();
        for (size_t i = g * group; i < (g + 1) * group; i += MICA_TILE_CHUNK, to += MICA_TILE_CHUNK / 2 * EIGHT) {
            __m512i r[EIGHT];
            for (size_t j = 0; j < EIGHT; j++) r[j] = j < rows ? _mm512_loadu_si512(x + (ptrdiff_t)j * ldx + (ptrdiff_t)i) : _mm512_setzero_si512();
            sum = turn_pairs(r, to, sum);
        }
        _mm256_storeu_ps(to, _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1)));
    }
}

// ---- products ----------------------------------------------------------------------------------------------
V16_INLINE __m512bh pair(const float *x) {
    int v;
    memcpy(&v, x, 4);
    return (__m512bh)_mm512_set1_epi32(v);
}

// What all blocks of rows of a few tile columns share.
typedef struct tile_group {
    const unsigned char *tile; // the first column's
    size_t column;             // bytes from one column to the next
    size_t vectors;            // of codes, 8 inputs each
    __m512i table;
    v16 scale[WIDE], bias[WIDE];
} tile_group;

// y [rows][columns] vectors += x · w over a group. Each sum is one chain over the group whatever the number of rows and columns.
V16_INLINE void group_block(const int rows, const int columns, const tile_group *w, const float *x, float *y) {
    const unsigned char *codes = w->tile;
    v16 sum[EIGHT][WIDE];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < columns; j++) sum[r][j] = v16_zero();
    for (size_t v = 0; v < w->vectors; v++, codes += 64)
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++, x += EIGHT) {
            __m512bh q[WIDE];
#pragma GCC unroll 4
            for (int j = 0; j < columns; j++)
                q[j] = (__m512bh)_mm512_permutexvar_epi16(shifted(_mm512_loadu_si512(codes + (size_t)j * w->column), 4 * p), w->table);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                __m512bh a = pair(x + r);
#pragma GCC unroll 4
                for (int j = 0; j < columns; j++) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], q[j], a);
            }
        }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < columns; j++, y += 16) {
            v16 s = v16_fma(v16_set1(x[r]), w->bias[j], v16_load(y));
            v16_store(y, v16_fma(sum[r][j], w->scale[j], s));
        }
}

// The tiles that come, in the order of reading: the next columns begin where the last of these ends.
V16_INLINE void fetch_ahead(const int columns, const unsigned char *tile, size_t bytes, size_t column, bool next) {
    tile += AHEAD * bytes + (next ? (size_t)(columns - 1) * column : 0);
#pragma GCC unroll 4
    for (int j = 0; j < columns; j++)
        for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)tile + (size_t)j * column + i, _MM_HINT_T0);
}

// Blocks of `rows` rows, the last one with rows of zeros where there are fewer.
V16_INLINE void tile_columns(const int rows, const int columns, const mica_cpu_tiles *t, const mica_cpu_direct *d, size_t n) {
    _Alignas(64) float y[MOST * WIDE / 2 * 16]; // four columns at once meet four rows at most
    const size_t block = mica_cpu_avx512_shared_size(d->k, t->depth) / sizeof(float), column = t->per_column * t->bytes;
    const size_t blocks = (d->m + (size_t)rows - 1) / (size_t)rows, each = (size_t)(rows * columns) * 16;
    tile_group w = {.tile = d->w + n / MICA_TILE_OUTPUTS * column, .column = column, .vectors = t->depth / 8, .table = tables_of(4).low};
    const float *x = d->x;
    for (size_t i = 0; i < blocks * each; i += 16) v16_store(y + i, v16_zero());
    for (size_t g = 0; g < t->per_column; g++, w.tile += t->bytes, x += group_floats(t->depth)) {
        fetch_ahead(columns, w.tile, t->bytes, column, g + AHEAD >= t->per_column);
#pragma GCC unroll 4
        for (int j = 0; j < columns; j++)
            w.scale[j] = tile_scale(t, w.tile + (size_t)j * column, 0), w.bias[j] = tile_scale(t, w.tile + (size_t)j * column, 1);
        for (size_t b = 0; b < blocks; b++) group_block(rows, columns, &w, x + b * block, y + b * each);
    }
    for (size_t r = 0; r < d->m; r++)
        for (size_t j = 0; j < (size_t)columns; j++) v16_store(d->y + r * d->ldy + n + 16 * j, v16_load(y + (r * (size_t)columns + j) * 16));
}

V16_INLINE void all_columns(const int rows, const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    size_t n = 0;
    if (rows <= WIDE && d->m <= WIDE)
        for (; n + WIDE * MICA_TILE_OUTPUTS <= d->n; n += WIDE * MICA_TILE_OUTPUTS) tile_columns(rows, WIDE, t, d, n);
    for (; n + 2 * MICA_TILE_OUTPUTS <= d->n; n += 2 * MICA_TILE_OUTPUTS) tile_columns(rows, 2, t, d, n);
    if (n < d->n) tile_columns(rows, 1, t, d, n);
}

#define ROWS(rows)                                                                                                                       \
    static void rows_##rows(const mica_cpu_tiles *t, const mica_cpu_direct *d) { all_columns(rows, t, d); }
ROWS(1)
ROWS(2)
ROWS(3)
ROWS(4)
ROWS(5)
ROWS(6)
ROWS(7)
ROWS(8)

void mica_cpu_avx512_tiles_shared(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    static void (*const run[])(const mica_cpu_tiles *, const mica_cpu_direct *) = {rows_1, rows_2, rows_3, rows_4, rows_5, rows_6, rows_7, rows_8};
    assert(d->m <= MOST && d->ldx >= 1 && d->ldx <= EIGHT);
    run[d->ldx - 1](t, d);
}
#endif
