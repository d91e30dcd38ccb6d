// SPDX-License-Identifier: Apache-2.0
// Attention kernels, level avx512: bf16 stays bf16 (avx512vnni_attention.c packs it to f32). Queries, keys and values are exact
// in vdpbf16ps, and weights are rounded to bf16 (their sum is taken after rounding, so that the average keeps weights
// that add up to one). Register blocks of 6 rows x 4 vectors: 24 sums, 4 keys, 1 query.
#if defined(__x86_64__)
#include "device/cpu/avx512vnni/vec512.h"
#include "device/cpu/isa.h"
#include "device/cpu/vec_math.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "device/cpu/avx512/pairs.h"

enum { FLASH_ROWS = 6, FLASH_COLUMNS = 4, FLASH_GROUP = 48, FLASH_UNITS = 1, DECODE_ROWS = 4, DECODE_COLUMNS = 4 };
#define FLASH(f) f##_pairs
#define FLASH_PER 2
#define FLASH_ADD(c, a, b) add_pairs(c, a, b)
#define FLASH_STORE(s, p) store_weights_bf16(s, p)
#define FLASH_EXP(x) exp_pairs(x)
#define FLASH_STORE_ROW(s, x, n) store_row_bf16(s, x, n)
#define FLASH_STORE_TURNED(s, x, y, n) store_turned_bf16(s, x, y, n)
#include "device/cpu/vec_product.h"
#include "device/cpu/vec_flash.h"
#include "device/cpu/vec_flash_grad.h"

// ---- bf16 packing ----
enum { WORDS = 32 }; // bf16 values in a vector

static inline __m512i load_words(const uint16_t *p, size_t n) {
    return n >= WORDS ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
}

static void pack_query_pairs(void *packed, const void *q, size_t Dh) {
    for (size_t d = 0; d < Dh; d += WORDS)
        _mm512_storeu_si512((uint16_t *)packed + d, load_words((const uint16_t *)q + d, Dh - d));
}

// A pair of dimensions of one key is a unit; units are transposed, 16 keys at a time.
static void pack_keys_pairs(void *packed, const void *k, ptrdiff_t stride, size_t at, size_t n, size_t Dh) {
    for (size_t j = 0; j < n; j += LANES) {
        size_t keys = n - j < LANES ? n - j : LANES;
        const uint16_t *a = (const uint16_t *)k + (ptrdiff_t)j * stride;
        for (size_t d = 0; d < Dh; d += WORDS) {
            float *o = (float *)packed + d / 2 * MICA_CPU_KEYS + at + j;
            vf x[LANES];
            for (size_t i = 0; i < LANES; i++)
                x[i] = i < keys ? _mm512_castsi512_ps(load_words(a + (ptrdiff_t)i * stride + d, Dh - d)) : v_zero();
            v_transpose(x);
            for (size_t i = 0; i < LANES; i++)
                _mm512_mask_storeu_ps(o + i * MICA_CPU_KEYS, (__mmask16)((1u << keys) - 1), x[i]);
        }
    }
}

// Values of keys 2i and 2i + 1 side by side. A key without its neighbour (a run of odd length or start) fills its half.
static void pack_one_value(uint16_t *o, const uint16_t *a, size_t Dh) {
    for (size_t d = 0; d < Dh; d++) o[2 * d] = a[d];
}

static void pack_values_pairs(void *packed, const void *v, ptrdiff_t stride, size_t at, size_t n, size_t Dh) {
    size_t Dp = mica_cpu_head_pad(Dh), j = 0;
    const uint16_t *a = v;
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    if (at % 2 && n) pack_one_value((uint16_t *)packed + at / 2 * Dp * 2 + 1, a, Dh), j = 1;
    for (; j + 2 <= n; j += 2) {
        uint16_t *o = (uint16_t *)packed + (at + j) / 2 * Dp * 2;
        for (size_t d = 0; d < Dh; d += WORDS) {
            __m512i x = load_words(a + (ptrdiff_t)j * stride + d, Dh - d),
                    y = load_words(a + (ptrdiff_t)(j + 1) * stride + d, Dh - d);
            _mm512_storeu_si512(o + 2 * d, _mm512_permutex2var_epi16(x, low, y));
            _mm512_storeu_si512(o + 2 * d + WORDS, _mm512_permutex2var_epi16(x, high, y));
        }
    }
    if (j < n) pack_one_value((uint16_t *)packed + (at + j) / 2 * Dp * 2, a + (ptrdiff_t)j * stride, Dh);
}

// ---- bf16 scores of few queries: as dots in vec_attention.h, two dimensions a lane ----
static inline __attribute__((always_inline)) void dots_pairs(float *s, size_t ss, const uint16_t *q, const uint16_t *k,
                                                             size_t n, size_t Dh, float scale, int rows) {
    const int keys = LANES / rows;
    size_t Dp = mica_cpu_head_pad(Dh);
    const uint16_t *row[LANES];
    vf sum[LANES];
    for (int j = 0; j < keys; j++) row[j] = k + ((size_t)j < n ? (size_t)j : n - 1) * Dh;
    for (int i = 0; i < LANES; i++) sum[i] = v_zero();
    for (size_t d = 0; d < Dh; d += WORDS) {
        __mmask32 part = Dh - d >= WORDS ? 0xFFFFFFFF : (__mmask32)((1ull << (Dh - d)) - 1);
        for (int j = 0; j < keys; j++) {
            vf x = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(part, row[j] + d));
            for (int g = 0; g < rows; g++)
                sum[g * keys + j] =
                    add_pairs(sum[g * keys + j], _mm512_castsi512_ps(_mm512_loadu_si512(q + (size_t)g * Dp + d)), x);
        }
    }
    float out[LANES];
    store_f32(out, v_mul(v_sums(sum), v_set(scale)));
    for (int g = 0; g < rows; g++) {
        if (n >= (size_t)keys)
            memcpy(s + (size_t)g * ss, out + g * keys, (size_t)keys * sizeof(float));
        else
            memcpy(s + (size_t)g * ss, out + g * keys, n * sizeof(float));
    }
}

static void scores_pairs(float *s, size_t ss, const void *q, const void *k, size_t G, size_t n, size_t Dh,
                         float scale) {
    size_t g = 0, Dp = mica_cpu_head_pad(Dh);
    const uint16_t *a = q, *b = k;
    for (; g + 4 <= G; g += 4)
        for (size_t j = 0; j < n; j += 4) dots_pairs(s + g * ss + j, ss, a + g * Dp, b + j * Dh, n - j, Dh, scale, 4);
    for (; g + 2 <= G; g += 2)
        for (size_t j = 0; j < n; j += 8) dots_pairs(s + g * ss + j, ss, a + g * Dp, b + j * Dh, n - j, Dh, scale, 2);
    for (size_t j = 0; g < G && j < n; j += 16)
        dots_pairs(s + g * ss + j, ss, a + g * Dp, b + j * Dh, n - j, Dh, scale, 1);
}

// ---- bf16 weights and values: the weights of two keys are a unit, their values are interleaved on the way ----
static inline vf round_pairs(vf p) { return from_bf16((__m256i)_mm512_cvtneps_pbh(p)); }

static float weights_pairs(float *s, size_t n, float *max) {
    vf low = v_set(-INFINITY), most = low, sum = v_zero();
    for (size_t i = 0; i < n; i += LANES)
        most = v_max(n - i >= LANES ? load_f32(s + i) : loadn_f32(s + i, n - i, low), most);
    float greatest = v_greatest(most);
    if (greatest > *max) *max = greatest;
    vf m = v_set(*max == -INFINITY ? 0.0f : *max);
    for (size_t i = 0; i < n; i += LANES) {
        __mmask16 part = n - i >= LANES ? 0xFFFF : v_first(n - i);
        vf p = round_pairs(exp_pairs(v_sub(_mm512_mask_loadu_ps(low, part, s + i), m)));
        _mm512_mask_storeu_ps(s + i, part, p);
        sum = v_add(sum, p);
    }
    return v_sum(sum);
}

// acc[rows, columns * WORDS] += the units p [rows, PAIRS] times n rows of v; `last` of the final column's dimensions
// exist.
enum { PAIRS = 32, MIX_COLUMNS = 4 };
static inline __attribute__((always_inline)) void mix_pairs(float *acc, size_t lda, float p[][PAIRS], const uint16_t *v,
                                                            size_t n, size_t Dh, size_t last, int rows, int columns) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                         5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    const __mmask32 part = last >= WORDS ? 0xFFFFFFFF : (__mmask32)((1ull << last) - 1);
    vf t[DECODE_ROWS][2 * MIX_COLUMNS];
    for (int g = 0; g < rows; g++)
        for (int c = 0; c < 2 * columns; c++) {
            __mmask16 m = c < 2 * (columns - 1) ? 0xFFFF : (__mmask16)(c % 2 ? part >> 16 : part);
            t[g][c] = _mm512_maskz_loadu_ps(m, acc + (size_t)g * lda + (size_t)c * LANES);
        }
    for (size_t j = 0; j < n; j += 2)
        for (int c = 0; c < columns; c++) {
            const uint16_t *a = v + j * Dh + (size_t)c * WORDS;
            __mmask32 m = c < columns - 1 ? 0xFFFFFFFF : part;
            __m512i x = _mm512_maskz_loadu_epi16(m, a),
                    y = _mm512_maskz_loadu_epi16(j + 1 < n ? m : 0, j + 1 < n ? a + Dh : a);
            vf u = _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, low, y)),
               w = _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, high, y));
            for (int g = 0; g < rows; g++) {
                vf weight = v_set(p[g][j / 2]);
                t[g][2 * c] = add_pairs(t[g][2 * c], weight, u),
                         t[g][2 * c + 1] = add_pairs(t[g][2 * c + 1], weight, w);
            }
        }
    for (int g = 0; g < rows; g++)
        for (int c = 0; c < 2 * columns; c++) {
            __mmask16 m = c < 2 * (columns - 1) ? 0xFFFF : (__mmask16)(c % 2 ? part >> 16 : part);
            _mm512_mask_storeu_ps(acc + (size_t)g * lda + (size_t)c * LANES, m, t[g][c]);
        }
}

static inline __attribute__((always_inline)) void
mix_rows_pairs(float *acc, const float *p, size_t ps, const uint16_t *v, size_t n, size_t Dh, int rows, int columns) {
    float units[DECODE_ROWS][PAIRS];
    size_t d = 0, step = (size_t)columns * WORDS;
    for (int g = 0; g < rows; g++)
        for (size_t j = 0; j < n; j += LANES) {
            vf w = _mm512_maskz_loadu_ps(n - j >= LANES ? 0xFFFF : v_first(n - j), p + (size_t)g * ps + j);
            _mm256_storeu_si256((void *)(units[g] + j / 2), (__m256i)_mm512_cvtneps_pbh(w));
        }
    for (; d + step <= Dh; d += step) mix_pairs(acc + d, Dh, units, v + d, n, Dh, WORDS, rows, columns);
    for (; d < Dh; d += WORDS) mix_pairs(acc + d, Dh, units, v + d, n, Dh, Dh - d, rows, 1);
}

static void values_pairs(float *acc, const float *p, size_t ps, const void *v, size_t G, size_t n, size_t Dh) {
    const uint16_t *b = v;
    for (size_t j = 0; j < n; j += 2 * PAIRS) {
        size_t g = 0, m = n - j < 2 * PAIRS ? n - j : 2 * PAIRS;
        for (; g + 4 <= G; g += 4) mix_rows_pairs(acc + g * Dh, p + g * ps + j, ps, b + j * Dh, m, Dh, 4, 2);
        if (G - g == 3)
            mix_rows_pairs(acc + g * Dh, p + g * ps + j, ps, b + j * Dh, m, Dh, 3, 2);
        else if (G - g == 2)
            mix_rows_pairs(acc + g * Dh, p + g * ps + j, ps, b + j * Dh, m, Dh, 2, 4);
        else if (G - g == 1)
            mix_rows_pairs(acc + g * Dh, p + g * ps + j, ps, b + j * Dh, m, Dh, 1, 4);
    }
}

void mica_cpu_avx512_rows(mica_cpu_rows_isa *isa) {
    mica_cpu_avx512_codes(isa);
    isa->pack_query[MICA_BF16] = pack_query_pairs, isa->pack_size[MICA_BF16] = sizeof(uint16_t);
    isa->pack_keys[MICA_BF16] = pack_keys_pairs, isa->pack_values[MICA_BF16] = pack_values_pairs;
    isa->flash[MICA_BF16] = flash_pairs, isa->flash_grad[MICA_BF16] = grad_pairs;
    isa->scores[MICA_BF16] = scores_pairs;
    isa->weights[MICA_BF16] = weights_pairs, isa->values[MICA_BF16] = values_pairs;
}
#endif
