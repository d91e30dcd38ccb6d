// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary of vec_math.h and vec_rows.h for AVX2 + FMA + F16C: 8 lanes of f32. avx512/vec512.h has the
// same names. Parts of a vector pass through a small buffer on the stack, so that nothing is read beyond the end.
#ifndef MICA_DEVICE_CPU_VEC256_H
#define MICA_DEVICE_CPU_VEC256_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef __m256 vf;
typedef __m256 vmask; // all bits of a lane
enum { LANES = 8 };

static inline vf v_set(float x) { return _mm256_set1_ps(x); }
static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }   // a * b + c
static inline vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } // c - a * b
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }              // b if either is NaN
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }              // b if either is NaN
static inline vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline __m256 power2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
/** a * 2^n for whole n in -250 … 250: in two steps, so that neither factor leaves the normal numbers. */
static inline vf v_scale2(vf a, vf n) {
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(a, power2(half)), power2(_mm256_sub_epi32(whole, half)));
}

static inline vmask v_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vmask v_equal(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vmask v_is_nan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline vmask v_or(vmask a, vmask b) { return _mm256_or_ps(a, b); }
static inline vf v_select(vmask m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); } // m ? a : b
/** Bit i of the result = lane i. */
static inline unsigned v_bits(vmask m) { return (unsigned)_mm256_movemask_ps(m); }

static inline float v_sum(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float v_greatest(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/** Sign changed in the even lanes; neighbours swapped; each of the LANES / 2 floats at p (n of them there) twice. */
static inline vf v_negate_even(vf a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000))); }
static inline vf v_swap_pairs(vf a) { return _mm256_permute_ps(a, 0xB1); }
static inline vf v_load_twice(const float *p, size_t n) {
    float b[4] = {0};
    memcpy(b, p, n * sizeof *p);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(b)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

/** 0, 1, 2, …; the first lane. */
static inline vf v_count(void) { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
static inline float v_lane0(vf a) { return _mm256_cvtss_f32(a); }

/** Lane i of the result = sum of the lanes of x[i]; every sum is taken in the same order. */
static inline vf v_sums(const vf x[LANES]) {
    vf a = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    vf b = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return v_add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/** Lane i of vector j <-> lane j of vector i. */
static inline void v_transpose(vf x[LANES]) {
    vf t[LANES];
    for (int i = 0; i < 8; i += 2)
        t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]), t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            __m256d u = _mm256_castps_pd(t[i + j]), v = _mm256_castps_pd(t[i + j + 2]);
            x[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(u, v)),
                      x[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(u, v));
        }
    for (int i = 0; i < 4; i++)
        t[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20), t[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    for (int i = 0; i < 8; i++) x[i] = t[i];
}

// ---- memory: whole vectors, and the first n < LANES elements (the other lanes get `fill`) ----
static inline __m256i v_first(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf load_f32(const float *p) { return _mm256_loadu_ps(p); }
static inline vf loadn_f32(const float *p, size_t n, vf fill) {
    __m256i m = v_first(n);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
static inline void store_f32(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline void storen_f32(float *p, vf a, size_t n) { _mm256_maskstore_ps(p, v_first(n), a); }

static inline __m128i load_part(const uint16_t *p, size_t n) {
    uint16_t b[8] = {0};
    memcpy(b, p, n * sizeof *p);
    return _mm_loadu_si128((const void *)b);
}
static inline void store_part(uint16_t *p, __m128i a, size_t n) {
    uint16_t b[8];
    _mm_storeu_si128((void *)b, a);
    memcpy(p, b, n * sizeof *p);
}
static inline vf fill_rest(vf a, size_t n, vf fill) {
    return _mm256_blendv_ps(fill, a, _mm256_castsi256_ps(v_first(n)));
}

static inline __m128i to_f16(vf a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
static inline vf loadn_f16(const uint16_t *p, size_t n, vf fill) {
    return fill_rest(_mm256_cvtph_ps(load_part(p, n)), n, fill);
}
static inline void store_f16(uint16_t *p, vf a) { _mm_storeu_si128((void *)p, to_f16(a)); }
static inline void storen_f16(uint16_t *p, vf a, size_t n) { store_part(p, to_f16(a), n); }

static inline vf load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
static inline vf loadn_i8(const int8_t *p, size_t n, vf fill) {
    int8_t b[8] = {0};
    memcpy(b, p, n);
    return fill_rest(load_i8(b), n, fill);
}

static inline vf from_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
static inline __m128i to_bf16(vf a) {
    __m256i u = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    __m256i nan = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    r = _mm256_srli_epi32(_mm256_blendv_epi8(r, nan, _mm256_castps_si256(v_is_nan(a))), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
static inline vf load_bf16(const uint16_t *p) { return from_bf16(_mm_loadu_si128((const void *)p)); }
static inline vf loadn_bf16(const uint16_t *p, size_t n, vf fill) {
    return fill_rest(from_bf16(load_part(p, n)), n, fill);
}
static inline void store_bf16(uint16_t *p, vf a) { _mm_storeu_si128((void *)p, to_bf16(a)); }
static inline void storen_bf16(uint16_t *p, vf a, size_t n) { store_part(p, to_bf16(a), n); }
#endif
