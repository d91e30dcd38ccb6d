// SPDX-License-Identifier: Apache-2.0
// Rows one by one against packed 4-bit weights, in integers: in floats every code must become a number first, while bytes can be
// multiplied as the nibbles are. The activations of a group become 16-bit fixed point with a common unit, a power of two that takes the
// greatest of them to 15 bits: bf16 numbers down to 1/128 of it are exact, smaller ones off by 2^-16 of it at most. The two bytes
// of an activation are multiplied apart; the sums of a group are exact until they are made floats. Where an outlier makes the
// unit so coarse that the group is off by 2^-14 of the sum of its magnitudes (a sixteenth of what rounding to bf16 costs), what is
// left of the group follows as a second term with a unit of its own: 0.2 to 4 % of the groups of real models.
// Written once over v16 (v16.h), and included by each level, which defines
//   fixed_sums             the sums of a row over a group, zeros at first
//   FIXED_TOGETHER         rows that a pass over the weights takes at most
//   fixed_bytes(to, a, b)  words of 32 inputs as bytes in the order of fixed_rows.h
//   fixed_chunk(rows, chunk, x, ldx, sums)   adds the products with 32 inputs
//   fixed_total(rows, sums), FIXED_UNIT(rows)   the sum, in units times that
// All levels add the same integers, so their results are the same bits.
#include "device/cpu/ref/ref_matmul.h"
#include "device/cpu/fixed_rows.h"
#include "device/cpu/tiles.h"
#include <math.h>
#include <stdbool.h>

enum {
    FIXED_CHUNK = MICA_TILE_CHUNK,
    FIXED_BITS = 14, // of the greatest activation, in units, before its sign and leading digit
};
static const float FIXED_COARSE = 0x1p-14f;

// ---- a row in fixed point -----------------------------------------------------------------------------------
// The unit for numbers up to `most`, and 1 / unit. Numbers near the next power of two count as that; tiny ones have no smaller unit.
static inline float unit_of(float most, float *inverse) {
    uint32_t bits = (mica_f32_bits(most) + 0x10000u) >> 23;
    bits = bits < 20 ? 20 : bits;
    *inverse = mica_f32_from_bits((254 + FIXED_BITS - bits) << 23);
    return mica_f32_from_bits((bits - FIXED_BITS) << 23);
}

// A group x [n] (a multiple of 32) as one term: returns the sum of its words; what is left of x replaces it.
V16_INLINE int32_t split_term(v16 *x, size_t n, float inverse, float unit, int8_t *to) {
    v16i sum = v16i_zero();
    for (size_t i = 0; i < n / 16; i += 2, to += 64) {
        v16i a = v16_to_int(v16_mul(x[i], v16_set1(inverse))), b = v16_to_int(v16_mul(x[i + 1], v16_set1(inverse)));
        fixed_bytes(to, a, b);
        sum = v16i_add(sum, v16i_add(a, b));
        x[i] = v16_fma(v16_from_int(a), v16_set1(-unit), x[i]);
        x[i + 1] = v16_fma(v16_from_int(b), v16_set1(-unit), x[i + 1]);
    }
    return v16i_sum(sum);
}

// The greatest magnitude; NaN and infinities are above all others.
V16_INLINE float most_of(const v16 *x, size_t n) {
    v16i most = v16_abs_bits(x[0]);
    for (size_t i = 1; i < n / 16; i++) most = v16i_max(most, v16_abs_bits(x[i]));
    return v16_greatest(most);
}

V16_INLINE v16 size_of(const v16 *x, size_t n) {
    v16 sum = v16_abs(x[0]);
    for (size_t i = 1; i < n / 16; i++) sum = v16_add(sum, v16_abs(x[i]));
    return sum;
}

V16_INLINE void split_group(const uint16_t *from, size_t group, size_t g, fixed_row r) {
    v16 x[MICA_FIXED_GROUP / 16] = {v16_zero()};
    for (size_t i = 0; i < group / 16; i++) x[i] = v16_load_as(MICA_BF16, from + g * group + 16 * i);
    v16 size = size_of(x, group);
    float inverse, most = most_of(x, group), unit = unit_of(most, &inverse);
    r.units[1][g] = 0;
    if (!(most < INFINITY)) { // what they meet is no number
        r.units[0][g] = r.sums[g] = NAN;
        return;
    }
    r.units[0][g] = unit;
    r.sums[g] = unit * (float)split_term(x, group, inverse, unit, r.terms[0] + 2 * g * group);
    if (v16_sum(v16_fma(size, v16_set1(-FIXED_COARSE), size_of(x, group))) <= 0) return;
    unit = r.units[1][g] = unit_of(most_of(x, group), &inverse);
    r.sums[g] += unit * (float)split_term(x, group, inverse, unit, r.terms[1] + 2 * g * group);
}

static size_t fixed_size(size_t k, size_t group) { return MICA_DIRECT_ROWS * fixed_row_size(k, group); }

static void fixed_row_to(const uint16_t *x, size_t k, size_t group, size_t at, void *block) {
    fixed_row r = fixed_row_at((char *)block + at * fixed_row_size(k, group), k, k / group);
    if (group == 64)
        for (size_t g = 0; g < k / 64; g++) split_group(x, 64, g, r);
    else
        for (size_t g = 0; g < k / group; g++) split_group(x, group, g, r);
}

// ---- products ------------------------------------------------------------------------------------------------
V16_INLINE v16 add_units(const int rows, v16 y, const fixed_sums *sums, v16 scale, float unit) {
    return v16_fma(v16_from_int(fixed_total(rows, sums)), v16_mul(scale, v16_set1(FIXED_UNIT(rows) * unit)), y);
}

// y and the second term of group g, which is rare.
static __attribute__((noinline)) v16 fixed_second(const mica_cpu_tiles *t, const unsigned char *tile, fixed_row r, size_t g, v16 scale, v16 y) {
    fixed_sums sums = {0};
    for (size_t c = 0; c < t->depth / FIXED_CHUNK; c++) fixed_chunk(1, tile + c * 256, r.terms[1] + 2 * (g * t->depth + c * FIXED_CHUNK), 0, &sums);
    return add_units(1, y, &sums, scale, r.units[1][g]);
}

V16_INLINE void fetch(const unsigned char *p, size_t lines) {
#pragma GCC unroll 4
    for (size_t l = 0; l < lines; l++) __builtin_prefetch(p + 64 * l, 0, 2);
}

// `chunks` of a tile as a constant, or 0: as t says.
V16_INLINE void tile_columns(const int rows, const size_t chunks, const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    const size_t per_tile = chunks ? chunks : t->depth / FIXED_CHUNK, bytes = t->bytes, codes = t->codes;
    const size_t ldx = fixed_row_size(d->k, t->depth);
    const unsigned char *tile = d->w;
    const fixed_row first = fixed_row_at(d->x, d->k, t->per_column);
    for (size_t n = 0; n < d->n; n += MICA_TILE_OUTPUTS) {
        const int8_t *x = first.terms[0];
        v16 y[FIXED_TOGETHER];
        fixed_sums sums[FIXED_TOGETHER];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) y[r] = v16_zero(), sums[r] = (fixed_sums){0};
        for (size_t g = 0; g < t->per_column; g++, tile += bytes) {
#pragma GCC unroll 2
            for (size_t c = 0; c < per_tile; c++, x += 2 * FIXED_CHUNK) {
                if (d->ahead) fetch(tile + c * 256 + d->ahead, 4);
                fixed_chunk(rows, tile + c * 256, x, ldx, sums);
            }
            if (d->ahead) fetch(tile + codes + d->ahead, 1);
            v16 scale = v16_load_as(t->scale_dtype, tile + codes), bias = v16_load_as(t->scale_dtype, tile + codes + t->scales);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const float *units = (const float *)(const void *)((const char *)first.units[0] + (size_t)r * ldx) + g;
                y[r] = add_units(rows, y[r], &sums[r], scale, units[0]);
                y[r] = v16_fma(bias, v16_set1(units[2 * t->per_column]), y[r]);
                sums[r] = (fixed_sums){0};
                if (__builtin_expect(units[t->per_column] != 0, false))
                    y[r] = fixed_second(t, tile, fixed_row_at((const char *)d->x + (size_t)r * ldx, d->k, t->per_column), g, scale, y[r]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) v16_store(d->y + (size_t)r * d->ldy + n, y[r]);
    }
}

#define ROWS(rows)                                                                                                                       \
    static void rows_##rows(const mica_cpu_tiles *t, const mica_cpu_direct *d) {                                                         \
        if (t->depth == 64) tile_columns(rows, 2, t, d);                                                                                 \
        else tile_columns(rows, 0, t, d);                                                                                                \
    }
ROWS(1)
ROWS(2)
#if FIXED_TOGETHER == 8
ROWS(3)
ROWS(4)
ROWS(5)
ROWS(6)
ROWS(7)
ROWS(8)
#endif

static void tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    static void (*const run[])(const mica_cpu_tiles *, const mica_cpu_direct *) = {
        rows_1, rows_2,
#if FIXED_TOGETHER == 8
        rows_3, rows_4, rows_5, rows_6, rows_7, rows_8,
#endif
    };
    mica_cpu_direct part = *d;
    for (size_t i = 0; i < d->m; i += part.m) {
        part.m = d->m - i < FIXED_TOGETHER ? d->m - i : FIXED_TOGETHER;
        part.x = (const char *)d->x + i * fixed_row_size(d->k, t->depth), part.y = d->y + i * d->ldy;
        run[part.m - 1](t, &part);
    }
}
