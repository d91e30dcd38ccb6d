// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary of vec_math.h and vec_rows.h for AVX-512: 16 lanes of f32. avx2/vec256.h has the same names.
#ifndef MICA_DEVICE_CPU_VEC512_H
#define MICA_DEVICE_CPU_VEC512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef __m512 vf;
typedef __mmask16 vmask;
enum { LANES = 16 };

static inline vf v_set(float x) { return _mm512_set1_ps(x); }
static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }   // a * b + c
static inline vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } // c - a * b
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }              // b if either is NaN
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }              // b if either is NaN
static inline vf v_abs(vf a) { return _mm512_abs_ps(a); }
static inline vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/** a * 2^n for whole n, underflow and overflow included. */
static inline vf v_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }

static inline vmask v_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vmask v_equal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vmask v_is_nan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vmask v_or(vmask a, vmask b) { return (vmask)(a | b); }
static inline vf v_select(vmask m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); } // m ? a : b
/** Bit i of the result = lane i. */
static inline unsigned v_bits(vmask m) { return m; }

static inline float v_sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float v_greatest(vf a) { return _mm512_reduce_max_ps(a); }

/** Sign changed in the even lanes; neighbours swapped; each of the LANES / 2 floats at p (n of them there) twice. */
static inline vf v_negate_even(vf a) {
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi64(0x80000000)));
}
static inline vf v_swap_pairs(vf a) { return _mm512_permute_ps(a, 0xB1); }
static inline vf v_load_twice(const float *p, size_t n) {
    __m512i index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(index, _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p));
}

/** 0, 1, 2, …; the first lane. */
static inline vf v_count(void) { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
static inline float v_lane0(vf a) { return _mm512_cvtss_f32(a); }

/** Lane i of the result = sum of the lanes of x[i]; every sum is taken in the same order. */
static inline vf v_sums(const vf x[LANES]) {
    vf a[8], b[4], c[2];
    for (int i = 0; i < 8; i++) { // lanes 0 and 2, 1 and 3 of each quarter, for vectors 2i and 2i + 1
        vf u = x[2 * i], v = x[2 * i + 1];
        a[i] = v_add(_mm512_unpacklo_ps(u, v), _mm512_unpackhi_ps(u, v));
    }
    for (int i = 0; i < 4; i++) { // quarter sums of vectors 4i … 4i + 3
        __m512d u = _mm512_castps_pd(a[2 * i]), v = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = v_add(_mm512_castpd_ps(_mm512_unpacklo_pd(u, v)), _mm512_castpd_ps(_mm512_unpackhi_pd(u, v)));
    }
    for (int i = 0; i < 2; i++)
        c[i] = v_add(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                     _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xDD));
    return v_add(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xDD));
}

/** Lane i of vector j <-> lane j of vector i. */
static inline void v_transpose(vf x[LANES]) {
    vf t[LANES];
    for (int i = 0; i < 16; i += 2)
        t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]), t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d u = _mm512_castps_pd(t[i + j]), v = _mm512_castps_pd(t[i + j + 2]);
            x[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(u, v)),
                      x[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(u, v));
        }
    for (int i = 0; i < 4; i++) { // quarters: a 4 x 4 transpose of 128-bit pieces
        vf a = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x44), b = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xEE);
        vf c = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x44), d = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xEE);
        t[i] = _mm512_shuffle_f32x4(a, c, 0x88), t[i + 4] = _mm512_shuffle_f32x4(a, c, 0xDD);
        t[i + 8] = _mm512_shuffle_f32x4(b, d, 0x88), t[i + 12] = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
    for (int i = 0; i < 16; i++) x[i] = t[i];
}

static inline __mmask16 v_first(size_t n) { return (__mmask16)((1u << n) - 1); }

// ---- memory: whole vectors, and the first n < LANES elements (the other lanes get `fill`) ----
static inline vf load_f32(const float *p) { return _mm512_loadu_ps(p); }
static inline vf loadn_f32(const float *p, size_t n, vf fill) { return _mm512_mask_loadu_ps(fill, v_first(n), p); }
static inline void store_f32(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline void storen_f32(float *p, vf a, size_t n) { _mm512_mask_storeu_ps(p, v_first(n), a); }

static inline vf load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline vf loadn_f16(const uint16_t *p, size_t n, vf fill) {
    return _mm512_mask_cvtph_ps(fill, v_first(n), _mm256_maskz_loadu_epi16(v_first(n), p));
}
static inline __m256i to_f16(vf a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline void store_f16(uint16_t *p, vf a) { _mm256_storeu_si256((void *)p, to_f16(a)); }
static inline void storen_f16(uint16_t *p, vf a, size_t n) { _mm256_mask_storeu_epi16(p, v_first(n), to_f16(a)); }

static inline vf load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
static inline vf loadn_i8(const int8_t *p, size_t n, vf fill) {
    return _mm512_mask_cvtepi32_ps(fill, v_first(n), _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(v_first(n), p)));
}

static inline vf from_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
static inline vf load_bf16(const uint16_t *p) { return from_bf16(_mm256_loadu_si256((const void *)p)); }
static inline vf loadn_bf16(const uint16_t *p, size_t n, vf fill) {
    return _mm512_mask_mov_ps(fill, v_first(n), from_bf16(_mm256_maskz_loadu_epi16(v_first(n), p)));
}
// By integers: vcvtneps2bf16 would flush subnormal numbers.
static inline __m256i to_bf16(vf a) {
    __m512i u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    r = _mm512_mask_or_epi32(r, v_is_nan(a), u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}
static inline void store_bf16(uint16_t *p, vf a) { _mm256_storeu_si256((void *)p, to_bf16(a)); }
static inline void storen_bf16(uint16_t *p, vf a, size_t n) { _mm256_mask_storeu_epi16(p, v_first(n), to_bf16(a)); }
#endif
