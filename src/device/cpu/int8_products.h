// SPDX-License-Identifier: Apache-2.0
// Products with activations in 8 bits (isa_int8.h), written once over v16 and v16i and included by each level that defines
// these, v16i_dot4 and v16i_narrow among them, together with
//   INT8_DIRECT  rows whose sums fit the registers.
// A quad is what one dot product of bytes takes: for sixteen outputs each, the codes of four inputs, 0 4 1 5 or 2 6 3 7 of
// eight: a mask over a dword of nibbles, or over it shifted by four. The other planes' fields are brought into that order.
#include "device/cpu/tiles.h"

enum { INT8_QUADS = MICA_TILE_CHUNK / 4, INT8_AHEAD = 4096 };

// ---- rounding --------------------------------------------------------------------------------------------
V16_INLINE void round_type(const mica_dtype type, const unsigned char *x, size_t n, size_t k, size_t group, size_t h, int8_t *codes,
                           float *scales, float *sums) {
    const size_t size = type == MICA_F32 ? 4 : 2;
    for (size_t g = 0; g < k / group; g++, codes += group * h, scales += h, sums += h) {
        v16 v[8];
        v16i most = v16i_zero(), sum = v16i_zero(); // bits of |x| as integers: of the same order, and NaN is the greatest
        for (size_t i = 0; i < group / 16; i++) {
            size_t at = g * group + i * 16, left = at < n ? n - at : 0;
            v[i] = left >= 16 ? v16_load_as(type, x + at * size) : left ? v16_load_part(type, x + at * size, left) : v16_zero();
            most = v16i_max(most, v16_abs_bits(v[i]));
        }
        float max = v16_greatest(most);
        bool none = max < MICA_INT8_LEAST;
        v16 inverse = v16_set1(none ? 0 : 127.0f / max);
        for (size_t i = 0; i < group / 16; i++) {
            int8_t sixteen[16];
            v16i q = v16_to_int(v16_mul(v[i], inverse));
            sum = v16i_add(sum, q);
            v16i_narrow(q, sixteen);
            for (size_t d = 0; d < 4; d++) memcpy(codes + (4 * i + d) * 4 * h, sixteen + 4 * d, 4);
        }
        *scales = none ? 0 : max * (1.0f / 127);
        *sums = *scales * (float)v16i_sum(sum);
    }
}

static void round_row(mica_dtype type, const void *x, size_t n, size_t k, size_t group, size_t h, int8_t *codes, float *scales, float *sums) {
    if (type == MICA_BF16) round_type(MICA_BF16, x, n, k, group, h, codes, scales, sums);
    else if (type == MICA_F16) round_type(MICA_F16, x, n, k, group, h, codes, scales, sums);
    else round_type(MICA_F32, x, n, k, group, h, codes, scales, sums);
}

// ---- codes -----------------------------------------------------------------------------------------------
// Quad q of a chunk's plane of p bits: inputs i, i+4, i+1, i+5.
V16_INLINE v16i plane_quad(const int p, const unsigned char *plane, const int q) {
    const int i = q / 2 * 8 + q % 2 * 2, per = 32 / p, shift = p * (i % per / 2), mask = ((1 << p) - 1) * 0x10001;
    v16i v = v16i_load(plane + i / per * 64);
    if (p == 4) return v16i_field(v, shift, 0x0F0F0F0F);
    return v16i_join(v16i_field(v, shift, mask), v16i_field(v, shift + 2 * p, mask), 8);
}

V16_INLINE v16i quad_codes(const int bits, const unsigned char *chunk, const int q) {
    const int low = bits == 3 ? 2 : bits >= 4 ? 4 : bits;
    v16i codes = plane_quad(low, chunk, q);
    return bits == low ? codes : v16i_join(codes, plane_quad(bits - low, chunk + low * 64, q), low);
}

V16_INLINE v16 tile_scale(const mica_cpu_tiles *t, const unsigned char *tile, size_t group) {
    return v16_load_as(t->scale_dtype, tile + t->codes + group * t->scales);
}

V16_INLINE v16i four_codes(const int8_t *x) {
    int32_t v;
    memcpy(&v, x, 4);
    return v16i_set1(v);
}

/** y + scale_x·scale_w·sum + bias_w·sum_x. */
V16_INLINE v16 add_group(v16 y, v16i sum, v16 scale_w, v16 bias_w, float scale_x, float sum_x) {
    y = v16_fma(v16_from_int(sum), v16_mul(scale_w, v16_set1(scale_x)), y);
    return v16_fma(bias_w, v16_set1(sum_x), y);
}

// ---- products --------------------------------------------------------------------------------------------
// What the body of a product is made for: constants, so that everything unrolls and sums stay in registers. `chunks` of a tile or 0:
// as t says; split: two groups in a chunk; h: height of the block.
typedef struct shape {
    int bits, rows, columns; // columns: one of tiles, or two for whole blocks: then every load of x serves two products
    size_t h, chunks;
    bool split;
} shape;

// Half a chunk. A sum of one column has a second index for chains, where there are few rows, of two columns for the column.
V16_INLINE void half_chunk(const shape s, const unsigned char *chunk, size_t column, const int half, const int8_t *x, v16i sum[][2]) {
    const int chains = s.rows <= 2;
#pragma GCC unroll 8
    for (int q = INT8_QUADS / 2 * half; q < INT8_QUADS / 2 * (half + 1); q++) {
        v16i w = quad_codes(s.bits, chunk, q), w2 = s.columns == 2 ? quad_codes(s.bits, chunk + column, q) : w;
#pragma GCC unroll 8
        for (int r = 0; r < s.rows; r++) {
            v16i four = four_codes(x + ((size_t)q * s.h + (size_t)r) * 4);
            sum[r][q & chains] = v16i_dot4(s.bits, sum[r][q & chains], w, four);
            if (s.columns == 2) sum[r][1] = v16i_dot4(s.bits, sum[r][1], w2, four);
        }
    }
}

V16_INLINE void end_group(const shape s, const mica_cpu_tiles *t, const unsigned char *tile, size_t column, size_t part,
                          const float *scales, const float *sums, v16i sum[][2], v16 y[][2]) {
#pragma GCC unroll 2
    for (int c = 0; c < s.columns; c++, tile += column) {
        v16 scale = tile_scale(t, tile, part), bias = tile_scale(t, tile, t->groups + part);
#pragma GCC unroll 8
        for (int r = 0; r < s.rows; r++)
            y[r][c] = add_group(y[r][c], s.rows <= 2 ? v16i_add(sum[r][0], sum[r][1]) : sum[r][c], scale, bias, scales[r], sums[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < s.rows; r++) sum[r][0] = sum[r][1] = v16i_zero();
}

V16_INLINE void prefetch(const shape s, const unsigned char *chunk) {
#pragma GCC unroll 8
    for (int l = 0; l < s.bits; l++) _mm_prefetch((const char *)chunk + INT8_AHEAD + l * 64, _MM_HINT_T0);
}

// Rows r0 … of the tile columns at `tile`.
V16_INLINE void tile_columns(const shape s, const mica_cpu_tiles *t, const mica_cpu_int8_block *x, size_t r0, const unsigned char *tile,
                             float *to, size_t ldy) {
    const size_t bytes = t->bytes, codes = t->codes, per_tile = s.chunks ? s.chunks : t->depth / MICA_TILE_CHUNK;
    const size_t column = t->per_column * bytes;
    const int8_t *from = x->codes + r0 * 4;
    const float *scales = x->scales + r0, *sums = x->sums + r0;
    v16 y[INT8_DIRECT][2];
    v16i sum[INT8_DIRECT][2];
#pragma GCC unroll 8
    for (int r = 0; r < s.rows; r++) y[r][0] = y[r][1] = v16_zero(), sum[r][0] = sum[r][1] = v16i_zero();
    for (size_t i = 0; i < t->per_column; i++, tile += bytes, scales += s.h, sums += s.h) {
        _mm_prefetch((const char *)tile + INT8_AHEAD + codes, _MM_HINT_T0);
#pragma GCC unroll 2
        for (size_t c = 0; c < per_tile; c++, from += MICA_TILE_CHUNK * s.h) {
            const unsigned char *chunk = tile + c * (size_t)s.bits * 64;
            prefetch(s, chunk);
            if (s.columns == 2) prefetch(s, chunk + column);
            half_chunk(s, chunk, column, 0, from, sum);
            if (s.split) end_group(s, t, tile, column, 0, scales, sums, sum, y), scales += s.h, sums += s.h;
            half_chunk(s, chunk, column, 1, from, sum);
        }
        end_group(s, t, tile, column, s.split, scales, sums, sum, y);
    }
#pragma GCC unroll 8
    for (int r = 0; r < s.rows; r++)
#pragma GCC unroll 2
        for (int c = 0; c < s.columns; c++) v16_store(to + (r0 + (size_t)r) * ldy + 16 * c, y[r][c]);
}

// Groups of 64, the usual size, have bodies of their own for single rows and whole blocks.
V16_INLINE void tile_rows(const int bits, const int rows, const size_t h, const int columns, const mica_cpu_tiles *t,
                          const mica_cpu_int8_block *x, size_t r0, const unsigned char *tile, float *to, size_t ldy) {
    bool special = rows == 1 || rows == INT8_DIRECT;
    if (t->groups > 1) tile_columns((shape){bits, rows, columns, h, 1, true}, t, x, r0, tile, to, ldy);
    else if (special && t->depth == 64) tile_columns((shape){bits, rows, columns, h, 2, false}, t, x, r0, tile, to, ldy);
    else tile_columns((shape){bits, rows, columns, h, 0, false}, t, x, r0, tile, to, ldy);
}

// One tile column: a block whose height is known while compiling, or parts of it.
V16_INLINE void tile_block(const int bits, const mica_cpu_tiles *t, const mica_cpu_int8_block *x, const unsigned char *tile, float *to, size_t ldy) {
    if (INT8_DIRECT == MICA_INT8_ROWS) {
        switch (x->rows) {
        case 1: tile_rows(bits, 1, 1, 1, t, x, 0, tile, to, ldy); return;
        case 2: tile_rows(bits, 2, 2, 1, t, x, 0, tile, to, ldy); return;
        case 3: tile_rows(bits, 3, 3, 1, t, x, 0, tile, to, ldy); return;
        case 4: tile_rows(bits, 4, 4, 1, t, x, 0, tile, to, ldy); return;
        case 5: tile_rows(bits, 5, 5, 1, t, x, 0, tile, to, ldy); return;
        case 6: tile_rows(bits, 6, 6, 1, t, x, 0, tile, to, ldy); return;
        case 7: tile_rows(bits, 7, 7, 1, t, x, 0, tile, to, ldy); return;
        default: tile_rows(bits, INT8_DIRECT, MICA_INT8_ROWS, 1, t, x, 0, tile, to, ldy); return;
        }
    }
    size_t r = 0, h = x->rows;
    if (h == MICA_INT8_ROWS)
        for (; r < h; r += INT8_DIRECT) tile_rows(bits, INT8_DIRECT, MICA_INT8_ROWS, 1, t, x, r, tile, to, ldy);
    for (; r + INT8_DIRECT <= h; r += INT8_DIRECT) tile_rows(bits, INT8_DIRECT, h, 1, t, x, r, tile, to, ldy);
    for (; r < h; r++) tile_rows(bits, 1, h, 1, t, x, r, tile, to, ldy);
}

#define INT8_TILES(bits)                                                                                               \
    static void tiles_##bits(const mica_cpu_tiles *t, const mica_cpu_int8_block *x, const unsigned char *w, size_t n, float *y, size_t ldy) { \
        const size_t column = t->per_column * t->bytes;                                                                \
        size_t j = 0;                                                                                                  \
        if (INT8_DIRECT == MICA_INT8_ROWS && x->rows == MICA_INT8_ROWS)                                                 \
            for (; j + 32 <= n; j += 32, w += 2 * column)                                                              \
                tile_rows(bits, INT8_DIRECT, MICA_INT8_ROWS, 2, t, x, 0, w, y + j, ldy);                               \
        for (; j < n; j += 16, w += column) tile_block(bits, t, x, w, y + j, ldy);                                     \
    }
INT8_TILES(2)
INT8_TILES(3)
INT8_TILES(4)
INT8_TILES(5)
INT8_TILES(6)
INT8_TILES(8)

static void tiles(const mica_cpu_tiles *t, const mica_cpu_int8_block *x, const unsigned char *w, size_t n, float *y, size_t ldy) {
    switch (t->bits) {
    case 2: tiles_2(t, x, w, n, y, ldy); break;
    case 3: tiles_3(t, x, w, n, y, ldy); break;
    case 4: tiles_4(t, x, w, n, y, ldy); break;
    case 5: tiles_5(t, x, w, n, y, ldy); break;
    case 6: tiles_6(t, x, w, n, y, ldy); break;
    default: tiles_8(t, x, w, n, y, ldy); break;
    }
}
