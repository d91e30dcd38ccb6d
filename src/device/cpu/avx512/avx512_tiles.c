// SPDX-License-Identifier: Apache-2.0
// Packed weights with AVX512-BF16. Codes become bf16 pairs (codes.h) that vdpbf16ps multiplies with the activations as they are.
// In direct products scale and bias are applied to the sums of a group in f32; panels hold scale*code + bias rounded to
// bf16.
#if defined(__x86_64__)
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512/codes.h"
#include <stdbool.h>

enum { AHEAD = 4096 }; // prefetch distance where rows leave time for it; a single one reads faster without (8 bits 12 %, 5 bits 11 %)

// ---- few rows --------------------------------------------------------------------------------------------
V16_INLINE __m512bh pair(const uint16_t *x) {
    int v;
    memcpy(&v, x, 4);
    return (__m512bh)_mm512_set1_epi32(v);
}

// Half a chunk for `rows` rows into two chains of sums a row.
V16_INLINE void half_chunk(const int bits, const int rows, const unsigned char *chunk, const int half, const uint16_t *x,
                           ptrdiff_t ldx, tables t, __m512 sum[][2]) {
#pragma GCC unroll 8
    for (int p = TILE_PAIRS / 2 * half; p < TILE_PAIRS / 2 * (half + 1); p++) {
        __m512bh q = (__m512bh)pair_codes(bits, chunk, p, t), u = bits == 8 ? (__m512bh)pair_upper(chunk, p, t) : q;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512bh v = pair(x + r * ldx + 2 * p);
            if (bits == 8) {
                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], q, v);
                sum[r][1] = _mm512_dpbf16_ps(sum[r][1], u, v);
            } else sum[r][p & 1] = _mm512_dpbf16_ps(sum[r][p & 1], q, v);
        }
    }
}

// sum of x·q over a group joins y: y += scale * sum + bias * (sum of x).
V16_INLINE void end_group(const mica_cpu_tiles *t, const int rows, const unsigned char *tile, size_t g, const float *sums, size_t lds,
                          __m512 sum[][2], __m512 *y) {
    v16 s = tile_scale(t, tile, g), b = tile_scale(t, tile, t->groups + g);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        y[r] = _mm512_fmadd_ps(_mm512_add_ps(sum[r][0], sum[r][1]), s, y[r]);
        y[r] = _mm512_fmadd_ps(_mm512_set1_ps(sums[(size_t)r * lds + g]), b, y[r]);
        sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    }
}

// `chunks` of a tile as a constant, or 0: as t says; `split`: two groups in a chunk.
V16_INLINE void tile_columns(const int bits, const int rows, const size_t chunks, const bool split, const mica_cpu_tiles *t,
                             const mica_cpu_direct *d) {
    const tables table = tables_of(bits);
    const size_t bytes = t->bytes, codes = t->codes, lds = d->lds, per_tile = chunks ? chunks : t->depth / MICA_TILE_CHUNK;
    const ptrdiff_t ldx = d->ldx;
    const unsigned char *tile = d->w;
    for (size_t n = 0; n < d->n; n += MICA_TILE_OUTPUTS) {
        const uint16_t *x = d->x;
        const float *sums = d->sums;
        __m512 y[8], sum[8][2];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) y[r] = sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (size_t i = 0; i < t->per_column; i++, tile += bytes, sums += 1 + split) {
            if (rows > 1) _mm_prefetch((const char *)tile + AHEAD + codes, _MM_HINT_T0);
#pragma GCC unroll 2
            for (size_t c = 0; c < per_tile; c++, x += MICA_TILE_CHUNK) {
                const unsigned char *chunk = tile + c * (size_t)bits * 64;
#pragma GCC unroll 8
                for (int l = 0; l < bits && rows > 1; l++) _mm_prefetch((const char *)chunk + AHEAD + l * 64, _MM_HINT_T0);
                half_chunk(bits, rows, chunk, 0, x, ldx, table, sum);
                if (split) end_group(t, rows, tile, 0, sums, lds, sum, y);
                half_chunk(bits, rows, chunk, 1, x, ldx, table, sum);
            }
            end_group(t, rows, tile, split, sums, lds, sum, y);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) _mm512_storeu_ps(d->y + (size_t)r * d->ldy + n, y[r]);
    }
}

// Groups of 64, the usual size, have a body of their own for a single row.
#define TILE_ROWS(bits, rows)                                                                                          \
    static void tiles_##bits##_##rows(const mica_cpu_tiles *t, const mica_cpu_direct *d) {                             \
        if (rows == 1 && t->depth == 64) tile_columns(bits, rows, 2, false, t, d);                                                  \
        else tile_columns(bits, rows, 0, false, t, d);                                                                 \
    }
#define TILE_BITS(bits)                                                                                                \
    TILE_ROWS(bits, 1) TILE_ROWS(bits, 2) TILE_ROWS(bits, 3) TILE_ROWS(bits, 4)                                        \
    TILE_ROWS(bits, 5) TILE_ROWS(bits, 6) TILE_ROWS(bits, 7) TILE_ROWS(bits, 8)                                        \
    static void split_##bits(const mica_cpu_tiles *t, const mica_cpu_direct *d) {                                      \
        if (d->m == 1) tile_columns(bits, 1, 1, true, t, d);                                                           \
        else tile_columns(bits, 2, 1, true, t, d);                                                                     \
    }
#define TILE_ENTRY(bits)                                                                                               \
    [bits] = {split_##bits,     tiles_##bits##_1, tiles_##bits##_2, tiles_##bits##_3, tiles_##bits##_4,                \
              tiles_##bits##_5, tiles_##bits##_6, tiles_##bits##_7, tiles_##bits##_8}
TILE_BITS(2)
TILE_BITS(3)
TILE_BITS(4)
TILE_BITS(5)
TILE_BITS(6)
TILE_BITS(8)

void mica_cpu_avx512_tiles_bf16(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    static void (*const run[9][9])(const mica_cpu_tiles *, const mica_cpu_direct *) = {
        TILE_ENTRY(2), TILE_ENTRY(3), TILE_ENTRY(4), TILE_ENTRY(5), TILE_ENTRY(6), TILE_ENTRY(8)};
    if (t->groups == 1) {
        run[t->bits][d->m](t, d);
        return;
    }
    for (size_t i = 0; i < d->m; i += 2) { // groups of 16 are rare: two rows at a time
        mica_cpu_direct part = *d;
        part.m = d->m - i < 2 ? 1 : 2;
        part.x = (const uint16_t *)d->x + (ptrdiff_t)i * d->ldx, part.sums = d->sums + i * d->lds, part.y = d->y + i * d->ldy;
        run[t->bits][0](t, &part);
    }
}

// ---- panels ----------------------------------------------------------------------------------------------
V16_INLINE void panel_half(const int bits, const unsigned char *chunk, const int half, tables t, v16 s, v16 b, size_t columns,
                           uint16_t *panel) {
#pragma GCC unroll 8
    for (int p = TILE_PAIRS / 2 * half; p < TILE_PAIRS / 2 * (half + 1); p++) {
        __m512i q = pair_codes(bits, chunk, p, t);
        v16 e = even(q), o = odd(q);
        if (bits == 8) {
            __m512i u = pair_upper(chunk, p, t);
            e = _mm512_add_ps(e, even(u)), o = _mm512_add_ps(o, odd(u));
        }
        _mm512_storeu_si512(panel + (size_t)p * columns * 2, pair_weights(e, o, s, b));
    }
}

V16_INLINE void panel_bits(const int bits, const mica_cpu_tiles *t, const unsigned char *tile, size_t tiles, size_t columns,
                           uint16_t *panel) {
    const size_t groups = t->groups;
    const tables table = tables_of(bits);
    for (size_t g = 0; g < tiles; g++, tile += t->bytes)
        for (size_t c = 0; c < t->depth / MICA_TILE_CHUNK; c++, panel += MICA_TILE_CHUNK * columns) {
            const unsigned char *chunk = tile + c * (size_t)bits * 64;
            panel_half(bits, chunk, 0, table, tile_scale(t, tile, 0), tile_scale(t, tile, groups), columns, panel);
            panel_half(bits, chunk, 1, table, tile_scale(t, tile, groups - 1), tile_scale(t, tile, 2 * groups - 1), columns, panel);
        }
}

void mica_cpu_avx512_panel_tiles_bf16(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t k0, size_t k,
                                      size_t columns, void *panel) {
    for (size_t j = 0; j < columns / MICA_TILE_OUTPUTS; j++) {
        uint16_t *to = (uint16_t *)panel + j * 2 * MICA_TILE_OUTPUTS;
        if (first + j >= t->columns) {
            for (size_t p = 0; p < k / 2; p++) _mm512_storeu_si512(to + p * 2 * columns, _mm512_setzero_si512());
            continue;
        }
        const unsigned char *tile = packed + ((first + j) * t->per_column + k0 / t->depth) * t->bytes;
        size_t tiles = k / t->depth;
        switch (t->bits) {
        case 2: panel_bits(2, t, tile, tiles, columns, to); break;
        case 3: panel_bits(3, t, tile, tiles, columns, to); break;
        case 4: panel_bits(4, t, tile, tiles, columns, to); break;
        case 5: panel_bits(5, t, tile, tiles, columns, to); break;
        case 6: panel_bits(6, t, tile, tiles, columns, to); break;
        default: panel_bits(8, t, tile, tiles, columns, to); break;
        }
    }
}

// ---- panels of the transpose -------------------------------------------------------------------------------
// A chunk of 16 outputs in pairs of inputs becomes, by a transposition, sixteen rows of 32 inputs; two rows interleave to pairs of outputs.
V16_INLINE void back_chunk(const int bits, const mica_cpu_tiles *t, const unsigned char *tile, size_t chunk, tables table, __m512i rows[16]) {
    uint16_t pairs[TILE_PAIRS * 2 * MICA_TILE_OUTPUTS];
    const unsigned char *codes = tile + chunk * (size_t)bits * 64;
    panel_half(bits, codes, 0, table, tile_scale(t, tile, 0), tile_scale(t, tile, t->groups), MICA_TILE_OUTPUTS, pairs);
    panel_half(bits, codes, 1, table, tile_scale(t, tile, t->groups - 1), tile_scale(t, tile, 2 * t->groups - 1), MICA_TILE_OUTPUTS, pairs);
    for (int p = 0; p < TILE_PAIRS; p++) rows[p] = _mm512_loadu_si512(pairs + p * 2 * MICA_TILE_OUTPUTS);
    v16i_transpose(rows);
}

// Outputs o … o+15 (of which `outs` are wanted), inputs first … first+n.
V16_INLINE void back_bits(const int bits, const mica_cpu_tiles *t, const unsigned char *column, size_t first, size_t n, size_t outs, size_t columns,
                          uint16_t *panel) {
    const tables table = tables_of(bits);
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2,
                                         33, 1, 32, 0);
    for (size_t i = first / MICA_TILE_CHUNK * MICA_TILE_CHUNK; i < first + n; i += MICA_TILE_CHUNK) {
        __m512i rows[16];
        back_chunk(bits, t, column + i / t->depth * t->bytes, i % t->depth / MICA_TILE_CHUNK, table, rows);
        for (size_t half = 0; half < 2; half++) {
            size_t at = i + half * 16;
            const __m512i order = _mm512_add_epi16(low, _mm512_set1_epi16((short)(16 * half)));
            if (at < first || at >= first + n) continue;
            for (size_t p = 0; 2 * p < outs; p++)
                _mm512_storeu_si512(panel + (p * columns + at - first) * 2, _mm512_permutex2var_epi16(rows[2 * p], order, rows[2 * p + 1]));
        }
    }
}

void mica_cpu_avx512_panel_tiles_back_bf16(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t n, size_t k0, size_t k,
                                           size_t columns, void *panel) {
    for (size_t o = 0; o < k; o += MICA_TILE_OUTPUTS) {
        const unsigned char *column = packed + (k0 + o) / MICA_TILE_OUTPUTS * t->per_column * t->bytes;
        uint16_t *to = (uint16_t *)panel + o * columns;
        size_t outs = k - o < MICA_TILE_OUTPUTS ? k - o : MICA_TILE_OUTPUTS;
        for (size_t p = 0; n < columns && 2 * p < outs; p++)
            for (size_t j = n / 16 * 16; j < columns; j += 16) _mm512_storeu_si512(to + (p * columns + j) * 2, _mm512_setzero_si512());
        switch (t->bits) {
        case 2: back_bits(2, t, column, first, n, outs, columns, to); break;
        case 3: back_bits(3, t, column, first, n, outs, columns, to); break;
        case 4: back_bits(4, t, column, first, n, outs, columns, to); break;
        case 5: back_bits(5, t, column, first, n, outs, columns, to); break;
        case 6: back_bits(6, t, column, first, n, outs, columns, to); break;
        default: back_bits(8, t, column, first, n, outs, columns, to); break;
        }
    }
}
#endif
