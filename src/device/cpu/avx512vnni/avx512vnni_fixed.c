// SPDX-License-Identifier: Apache-2.0
// Rows one by one against packed 4-bit weights, in integers: vdpbf16ps needs every code made a bf16 number first, vpdpbusd takes
// the nibbles as they are. The activations of a group become 16-bit fixed point with a common unit, a power of two that takes the
// greatest of them to 15 bits: bf16 numbers down to 1/128 of it are exact, smaller ones off by 2^-16 of it at most. The two bytes
// of an activation are multiplied apart; the sums of a group are exact until they are made floats. Where an outlier makes the
// unit so coarse that the group is off by 2^-14 of the sum of its magnitudes (a sixteenth of what rounding to bf16 costs), what is
// left of the group follows as a second term with a unit of its own: 0.2 to 4 % of the groups of real models.
#if defined(__x86_64__)
#include "device/cpu/avx512vnni/fixed.h"
#include <math.h>
#include <stdbool.h>

enum {
    CHUNK = MICA_TILE_CHUNK,
    QUARTER = 8,        // inputs of a vector of codes
    BITS = 14,          // of the greatest activation, in units, before its sign and leading digit
    APART = 2,          // rows up to which low and high nibbles have sums of their own
};
static const float COARSE = 0x1p-14f;

// ---- a row in fixed point -----------------------------------------------------------------------------------
// The unit for numbers up to `most`, and 1 / unit. Numbers near the next power of two count as that; tiny ones have no smaller unit.
static inline float unit_of(float most, float *inverse) {
    uint32_t bits = (mica_f32_bits(most) + 0x10000u) >> 23;
    bits = bits < 20 ? 20 : bits;
    *inverse = mica_f32_from_bits((254 + BITS - bits) << 23);
    return mica_f32_from_bits((bits - BITS) << 23);
}

// Eight words w, a quarter of a vector: upper bytes, of w + 128, whose upper byte goes with the lower one of w as a signed number, then lower ones.
V16_INLINE void store_bytes(int8_t *to, __m512i first, __m512i second) {
    const __m512i upper_bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 9, 3, 11, 5, 13, 7, 15, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m512i lower_bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 0, 8, 2, 10, 4, 12, 6, 14));
    __m512i words = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(first)), _mm512_cvtepi32_epi16(second), 1);
    __m512i upper = _mm512_shuffle_epi8(_mm512_add_epi16(words, _mm512_set1_epi16(128)), upper_bytes);
    _mm512_storeu_si512(to, _mm512_or_si512(upper, _mm512_shuffle_epi8(words, lower_bytes)));
}

// A group x [n] (a multiple of 32) as one term: returns the sum of its words; what is left of x replaces it.
V16_INLINE int32_t split_term(v16 *x, size_t n, float inverse, float unit, int8_t *to) {
    v16i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n / 16; i += 2, to += 64) {
        v16i a = _mm512_cvtps_epi32(_mm512_mul_ps(x[i], v16_set1(inverse))), b = _mm512_cvtps_epi32(_mm512_mul_ps(x[i + 1], v16_set1(inverse)));
        store_bytes(to, a, b);
        sum = _mm512_add_epi32(sum, _mm512_add_epi32(a, b));
        x[i] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(a), v16_set1(unit), x[i]);
        x[i + 1] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(b), v16_set1(unit), x[i + 1]);
    }
    return _mm512_reduce_add_epi32(sum);
}

V16_INLINE v16 most_of(const v16 *x, size_t n) {
    v16 most = _mm512_abs_ps(x[0]);
    for (size_t i = 1; i < n / 16; i++) most = _mm512_max_ps(most, _mm512_abs_ps(x[i]));
    return most;
}

V16_INLINE v16 size_of(const v16 *x, size_t n) {
    v16 sum = _mm512_abs_ps(x[0]);
    for (size_t i = 1; i < n / 16; i++) sum = v16_add(sum, _mm512_abs_ps(x[i]));
    return sum;
}

V16_INLINE void split_group(const uint16_t *from, size_t group, size_t g, fixed_row r) {
    v16 x[MICA_FIXED_GROUP / 16] = {v16_zero()};
    for (size_t i = 0; i < group / 16; i++) x[i] = v16_load_as(MICA_BF16, from + g * group + 16 * i);
    v16 size = size_of(x, group);
    r.units[1][g] = 0;
    if (_mm512_cmp_ps_mask(size, v16_set1(INFINITY), _CMP_NLT_UQ)) { // NaN and infinities: what they meet is no number
        r.units[0][g] = r.sums[g] = NAN;
        return;
    }
    float inverse, unit = unit_of(_mm512_reduce_max_ps(most_of(x, group)), &inverse);
    r.units[0][g] = unit;
    r.sums[g] = unit * (float)split_term(x, group, inverse, unit, r.terms[0] + 2 * g * group);
    v16 excess = _mm512_fnmadd_ps(size, v16_set1(COARSE), size_of(x, group));
    if (_mm512_reduce_add_ps(excess) <= 0) return;
    unit = r.units[1][g] = unit_of(_mm512_reduce_max_ps(most_of(x, group)), &inverse);
    r.sums[g] += unit * (float)split_term(x, group, inverse, unit, r.terms[1] + 2 * g * group);
}

size_t mica_cpu_avx512vnni_fixed_size(size_t k, size_t group) { return MICA_DIRECT_ROWS * fixed_row_size(k, group); }

void mica_cpu_avx512vnni_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block) {
    fixed_row r = fixed_row_at((char *)block + at * fixed_row_size(k, group), k, k / group);
    if (group == 64)
        for (size_t g = 0; g < k / 64; g++) split_group(x, 64, g, r);
    else
        for (size_t g = 0; g < k / group; g++) split_group(x, group, g, r);
}

// ---- products ------------------------------------------------------------------------------------------------
V16_INLINE v16i four(const int8_t *x) {
    int32_t v;
    memcpy(&v, x, 4);
    return _mm512_set1_epi32(v);
}

// sum[r]: upper and lower bytes, for up to APART rows with low nibbles, then with 16 times the high ones.
V16_INLINE void chunk_sums(const int rows, const unsigned char *chunk, const int8_t *x, size_t ldx, v16i sum[][4]) {
    const __m512i low = _mm512_set1_epi8(0x0F), high = _mm512_set1_epi8((char)0xF0);
#pragma GCC unroll 4
    for (int v = 0; v < CHUNK / QUARTER; v++, x += 2 * QUARTER) {
        __m512i w = _mm512_loadu_si512(chunk + v * 64), a = _mm512_and_si512(w, low);
        __m512i b = rows <= APART ? _mm512_and_si512(w, high) : _mm512_and_si512(_mm512_srli_epi16(w, 4), low);
        const int j = rows <= APART ? 2 : 0;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const int8_t *y = x + (size_t)r * ldx;
            sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], a, four(y));
            sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], a, four(y + 8));
            sum[r][j] = _mm512_dpbusd_epi32(sum[r][j], b, four(y + 4));
            sum[r][j + 1] = _mm512_dpbusd_epi32(sum[r][j + 1], b, four(y + 12));
        }
    }
}

V16_INLINE v16 add_units(const int rows, v16 y, const v16i s[4], v16 scale, float unit) {
    v16i upper = s[0], lower = s[1];
    if (rows <= APART) {
        upper = _mm512_add_epi32(_mm512_slli_epi32(upper, 4), s[2]), lower = _mm512_add_epi32(_mm512_slli_epi32(lower, 4), s[3]);
        unit *= 0x1p-4f;
    }
    v16 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(upper, 8), lower));
    return v16_fma(sum, v16_mul(scale, v16_set1(unit)), y);
}

__attribute__((noinline)) v16 mica_cpu_avx512vnni_fixed_second(const mica_cpu_tiles *t, const unsigned char *tile, fixed_row r, size_t g, v16 scale, v16 y) {
    v16i sum[1][4] = {{_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()}};
    for (size_t c = 0; c < t->depth / CHUNK; c++)
        chunk_sums(1, tile + c * 256, r.terms[1] + 2 * (g * t->depth + c * CHUNK), 0, sum);
    return add_units(1, y, sum[0], scale, r.units[1][g]);
}

// `chunks` of a tile as a constant, or 0: as t says. Nothing is fetched ahead: Zen 4 foresees one stream a thread better by itself (decode of
// Qwen3-0.6B 9.2 ms, with prefetches of any kind and distance 9.8 to 10.1).
V16_INLINE void tile_columns(const int rows, const size_t chunks, const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    const size_t per_tile = chunks ? chunks : t->depth / CHUNK, bytes = t->bytes, codes = t->codes;
    const size_t ldx = fixed_row_size(d->k, t->depth);
    const unsigned char *tile = d->w;
    const fixed_row first = fixed_row_at(d->x, d->k, t->per_column);
    for (size_t n = 0; n < d->n; n += MICA_TILE_OUTPUTS) {
        const int8_t *x = first.terms[0];
        v16 y[8];
        v16i sum[8][4];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) y[r] = v16_zero(), sum[r][0] = sum[r][1] = sum[r][2] = sum[r][3] = _mm512_setzero_si512();
        for (size_t g = 0; g < t->per_column; g++, tile += bytes) {
#pragma GCC unroll 2
            for (size_t c = 0; c < per_tile; c++, x += 2 * CHUNK) chunk_sums(rows, tile + c * 256, x, ldx, sum);
            v16 scale = v16_load_as(t->scale_dtype, tile + codes), bias = v16_load_as(t->scale_dtype, tile + codes + t->scales);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const float *units = (const float *)(const void *)((const char *)first.units[0] + (size_t)r * ldx) + g;
                y[r] = add_units(rows, y[r], sum[r], scale, units[0]);
                y[r] = v16_fma(bias, v16_set1(units[2 * t->per_column]), y[r]);
                sum[r][0] = sum[r][1] = sum[r][2] = sum[r][3] = _mm512_setzero_si512();
                if (__builtin_expect(units[t->per_column] != 0, false))
                    y[r] = mica_cpu_avx512vnni_fixed_second(t, tile, fixed_row_at((const char *)d->x + (size_t)r * ldx, d->k, t->per_column), g, scale, y[r]);
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
ROWS(3)
ROWS(4)
ROWS(5)
ROWS(6)
ROWS(7)
ROWS(8)

void mica_cpu_avx512vnni_tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    static void (*const run[])(const mica_cpu_tiles *, const mica_cpu_direct *) = {rows_1, rows_2, rows_3, rows_4, rows_5, rows_6, rows_7, rows_8};
    run[d->m - 1](t, d);
}
#endif
