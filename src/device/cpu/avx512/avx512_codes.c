// SPDX-License-Identifier: Apache-2.0
// Decode attention over 8-bit codes for bf16 models, level avx512, in integers. Queries and weights become 16-bit fixed
// point, of one unit each a row: 2^-16 of the greatest element off at most, where bf16 would round every weight to
// 2^-9. Codes are widened to words for queries; for weights they stay bytes, and the weights are cut into two of them.
// The sums are exact until they are made floats.
#if defined(__x86_64__)
#include "device/cpu/avx512vnni/vec512.h"
#include "device/cpu/isa.h"
#include <math.h>
#include <string.h>

enum { DIMS = 32, MOST_KEYS = 64, MOST_ROWS = 4 };
static const float LEAST = 1e-30f; // what is no greater counts as zeros

// ---- queries: words [Dp], then the value of one unit ----
// The greatest word: 15 bits and a sign, or as much as Dh products with codes may add up to in 32 bits.
static float most_units(size_t Dh) {
    size_t most = 0x7FFFFFFF / (127 * Dh);
    return (float)(most < 32767 ? most : 32767);
}

static void pack_query_words(void *packed, const void *q, size_t Dh) {
    const uint16_t *a = q;
    size_t Dp = mica_cpu_head_pad(Dh);
    int16_t *words = packed;
    vf most = v_zero();
    __mmask16 odd = 0; // NaN
    for (size_t d = 0; d < Dh; d += LANES) {
        vf x = Dh - d >= LANES ? load_bf16(a + d) : loadn_bf16(a + d, Dh - d, v_zero());
        most = v_max(_mm512_abs_ps(x), most);
        odd |= v_is_nan(x);
    }
    float greatest = v_greatest(most), units = most_units(Dh);
    bool none = !(greatest > LEAST);
    vf inverse = v_set(none ? 0.0f : units / greatest);
    for (size_t d = 0; d < Dp; d += LANES) {
        vf x = d >= Dh ? v_zero() : Dh - d >= LANES ? load_bf16(a + d) : loadn_bf16(a + d, Dh - d, v_zero());
        _mm256_storeu_si256((void *)(words + d), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v_mul(x, inverse))));
    }
    float unit = odd ? NAN : none ? 0.0f : greatest / units;
    memcpy(words + Dp, &unit, sizeof unit);
}

// Lane i of the result: the sum of all lanes of vector i.
static inline __m512i sums(const __m512i x[LANES]) {
    __m512i a[8], b[4], c[2];
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]),
                                _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                                _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    for (int i = 0; i < 2; i++)
        c[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0x88),
                                _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0xDD));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(c[0], c[1], 0x88), _mm512_shuffle_i32x4(c[0], c[1], 0xDD));
}

// s[g * ss + j] for `rows` queries, `step` words apart, and all n keys.
static inline __attribute__((always_inline)) void dots(float *s, size_t ss, const int16_t *q, size_t step,
                                                       const int8_t *k, size_t n, size_t Dh, float scale, int rows) {
    const int keys = LANES / rows;
    float units[LANES], out[LANES];
    for (int i = 0; i < LANES; i++)
        memcpy(&units[i], q + (size_t)(i / keys) * step + mica_cpu_head_pad(Dh), sizeof units[i]);
    vf unit = v_mul(load_f32(units), v_set(scale));
    for (size_t at = 0; at < n; at += (size_t)keys) {
        const int8_t *row[LANES];
        __m512i sum[LANES];
        size_t left = n - at;
        for (int j = 0; j < keys; j++) row[j] = k + (at + ((size_t)j < left ? (size_t)j : left - 1)) * Dh;
        for (int i = 0; i < LANES; i++) sum[i] = _mm512_setzero_si512();
        for (size_t d = 0; d < Dh; d += DIMS) {
            __mmask32 part = Dh - d >= DIMS ? 0xFFFFFFFF : (__mmask32)((1ull << (Dh - d)) - 1);
            for (int j = 0; j < keys; j++) {
                __m512i x = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(part, row[j] + d));
                for (int g = 0; g < rows; g++)
                    sum[g * keys + j] =
                        _mm512_dpwssd_epi32(sum[g * keys + j], x, _mm512_loadu_si512(q + (size_t)g * step + d));
            }
        }
        store_f32(out, v_mul(_mm512_cvtepi32_ps(sums(sum)), unit));
        for (int g = 0; g < rows; g++) {
            if (left >= (size_t)keys)
                memcpy(s + (size_t)g * ss + at, out + g * keys, (size_t)keys * sizeof(float));
            else
                memcpy(s + (size_t)g * ss + at, out + g * keys, left * sizeof(float));
        }
    }
}

static void scores_words(float *s, size_t ss, const void *q, const void *k, size_t G, size_t n, size_t Dh,
                         float scale) {
    size_t g = 0, step = mica_cpu_head_pad(Dh) * 2;
    const int16_t *a = q;
    for (; g + 4 <= G; g += 4) dots(s + g * ss, ss, a + g * step, step, k, n, Dh, scale, 4);
    for (; g + 2 <= G; g += 2) dots(s + g * ss, ss, a + g * step, step, k, n, Dh, scale, 2);
    if (g < G) dots(s + g * ss, ss, a + g * step, step, k, n, Dh, scale, 1);
}

// ---- values: four keys are a unit, their codes are brought together on the way ----
typedef struct weights {
    uint8_t upper[MOST_ROWS][MOST_KEYS], lower[MOST_ROWS][MOST_KEYS];
    float scale[MOST_ROWS];
} weights;

static void split_weights(weights *w, int g, const float *p, size_t n) {
    vf most = v_zero();
    __mmask16 odd = 0;
    for (size_t j = 0; j < n; j += LANES) {
        vf x = n - j >= LANES ? load_f32(p + j) : loadn_f32(p + j, n - j, v_zero());
        most = v_max(x, most);
        odd |= v_is_nan(x);
    }
    float greatest = v_greatest(most);
    bool none = !(greatest > LEAST);
    vf inverse = v_set(none ? 0.0f : 65535.0f / greatest);
    for (size_t j = 0; j < n; j += LANES) {
        vf x = n - j >= LANES ? load_f32(p + j) : loadn_f32(p + j, n - j, v_zero());
        __m512i v = _mm512_cvtps_epi32(v_mul(x, inverse));
        _mm_storeu_si128((void *)(w->upper[g] + j), _mm512_cvtepi32_epi8(_mm512_srli_epi32(v, 8)));
        _mm_storeu_si128((void *)(w->lower[g] + j), _mm512_cvtepi32_epi8(v));
    }
    w->scale[g] = odd ? NAN : none ? 0.0f : greatest / 65535.0f;
}

static inline __m512i unit_of(const uint8_t *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

// Dimensions 16 v … 16 v + 15 of four keys, those of a dimension side by side; keys from n on are zero.
static inline __attribute__((always_inline)) void load_units(__m512i x[2], const int8_t *v, size_t n, size_t Dh,
                                                             __mmask32 part) {
    const __m512i low =
        _mm512_set_epi8(111, 79, 47, 15, 110, 78, 46, 14, 109, 77, 45, 13, 108, 76, 44, 12, 107, 75, 43, 11, 106, 74,
                        42, 10, 105, 73, 41, 9, 104, 72, 40, 8, 103, 71, 39, 7, 102, 70, 38, 6, 101, 69, 37, 5, 100, 68,
                        36, 4, 99, 67, 35, 3, 98, 66, 34, 2, 97, 65, 33, 1, 96, 64, 32, 0);
    const __m512i high = _mm512_add_epi8(low, _mm512_set1_epi8(16));
    __m256i r[4];
    for (size_t j = 0; j < 4; j++) r[j] = _mm256_maskz_loadu_epi8(j < n ? part : 0, j < n ? v + j * Dh : v);
    __m512i a = _mm512_inserti64x4(_mm512_castsi256_si512(r[0]), r[1], 1),
            b = _mm512_inserti64x4(_mm512_castsi256_si512(r[2]), r[3], 1);
    x[0] = _mm512_permutex2var_epi8(a, low, b), x[1] = _mm512_permutex2var_epi8(a, high, b);
}

// acc[rows, columns * DIMS] += weights · n rows of v; `last` of the final column's dimensions exist.
static inline __attribute__((always_inline)) void mix(float *acc, size_t lda, const weights *w, const int8_t *v,
                                                      size_t n, size_t Dh, size_t last, int rows, int columns) {
    __m512i upper[MOST_ROWS][4], lower[MOST_ROWS][4];
    const __mmask32 part = last >= DIMS ? 0xFFFFFFFF : (__mmask32)((1ull << last) - 1);
    for (int g = 0; g < rows; g++)
        for (int c = 0; c < 2 * columns; c++) upper[g][c] = lower[g][c] = _mm512_setzero_si512();
    for (size_t j = 0; j < n; j += 4)
        for (int c = 0; c < columns; c++) {
            __m512i x[2];
            load_units(x, v + j * Dh + (size_t)c * DIMS, n - j, Dh, c < columns - 1 ? 0xFFFFFFFF : part);
            for (int g = 0; g < rows; g++) {
                __m512i a = unit_of(w->upper[g] + j), b = unit_of(w->lower[g] + j);
                for (int i = 0; i < 2; i++) {
                    upper[g][2 * c + i] = _mm512_dpbusd_epi32(upper[g][2 * c + i], a, x[i]);
                    lower[g][2 * c + i] = _mm512_dpbusd_epi32(lower[g][2 * c + i], b, x[i]);
                }
            }
        }
    for (int g = 0; g < rows; g++)
        for (int c = 0; c < 2 * columns; c++) {
            __mmask16 m = c < 2 * (columns - 1) ? 0xFFFF : (__mmask16)(c % 2 ? part >> 16 : part);
            float *to = acc + (size_t)g * lda + (size_t)c * LANES;
            vf sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(upper[g][c], 8), lower[g][c]));
            _mm512_mask_storeu_ps(to, m, v_fma(sum, v_set(w->scale[g]), _mm512_maskz_loadu_ps(m, to)));
        }
}

static inline __attribute__((always_inline)) void mix_rows(float *acc, const weights *w, const int8_t *v, size_t n,
                                                           size_t Dh, int rows, int columns) {
    size_t d = 0, step = (size_t)columns * DIMS;
    for (; d + step <= Dh; d += step) mix(acc + d, Dh, w, v + d, n, Dh, DIMS, rows, columns);
    for (; d < Dh; d += DIMS) mix(acc + d, Dh, w, v + d, n, Dh, Dh - d, rows, 1);
}

static void values_bytes(float *acc, const float *p, size_t ps, const void *v, size_t G, size_t n, size_t Dh) {
    for (size_t j = 0; j < n; j += MOST_KEYS) {
        size_t m = n - j < MOST_KEYS ? n - j : MOST_KEYS;
        const int8_t *b = (const int8_t *)v + j * Dh;
        for (size_t g = 0, rows; g < G; g += rows) {
            weights w;
            rows = G - g < MOST_ROWS ? G - g : MOST_ROWS;
            for (size_t r = 0; r < rows; r++) split_weights(&w, (int)r, p + (g + r) * ps + j, m);
            float *to = acc + g * Dh;
            if (rows == 4)
                mix_rows(to, &w, b, m, Dh, 4, 1);
            else if (rows == 3)
                mix_rows(to, &w, b, m, Dh, 3, 1);
            else if (rows == 2)
                mix_rows(to, &w, b, m, Dh, 2, 2);
            else
                mix_rows(to, &w, b, m, Dh, 1, 2);
        }
    }
}

void mica_cpu_avx512_codes(mica_cpu_rows_isa *isa) {
    isa->pack_query_codes[MICA_BF16] = pack_query_words;
    isa->scores_codes[MICA_BF16] = scores_words, isa->values_codes[MICA_BF16] = values_bytes;
}
#endif
