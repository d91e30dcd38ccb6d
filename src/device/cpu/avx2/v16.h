// SPDX-License-Identifier: Apache-2.0
// Sixteen f32 lanes in two AVX2 registers: the vocabulary of f32_products.h (avx512/v16.h is the other dialect).
#ifndef MICA_DEVICE_CPU_AVX2_V16_H
#define MICA_DEVICE_CPU_AVX2_V16_H

#include "mica/dtype.h"
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define V16_INLINE static inline __attribute__((always_inline))

typedef struct v16 { __m256 lo, hi; } v16;
typedef struct v16i { __m256i lo, hi; } v16i;

V16_INLINE v16 v16_zero(void) { return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
V16_INLINE v16 v16_set1(float f) { return (v16){_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
V16_INLINE v16 v16_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
V16_INLINE void v16_store(float *p, v16 v) { _mm256_storeu_ps(p, v.lo), _mm256_storeu_ps(p + 8, v.hi); }
V16_INLINE v16 v16_add(v16 a, v16 b) { return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
V16_INLINE v16 v16_mul(v16 a, v16 b) { return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c) {
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
V16_INLINE float v16_sum(v16 v) {
    __m256 s = _mm256_add_ps(v.lo, v.hi);
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}

V16_INLINE __m256 v8_from_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }

/** Sixteen elements of a float type, any alignment. */
V16_INLINE v16 v16_load_as(mica_dtype type, const void *p) {
    if (type == MICA_F32) return v16_load(p);
    __m128i lo = _mm_loadu_si128(p), hi = _mm_loadu_si128((const __m128i *)p + 1);
    if (type == MICA_BF16) return (v16){v8_from_bf16(lo), v8_from_bf16(hi)};
    return (v16){_mm256_cvtph_ps(lo), _mm256_cvtph_ps(hi)};
}

/** The first n < 16 elements, then zeros; reads no further. */
V16_INLINE v16 v16_load_part(mica_dtype type, const void *p, size_t n) {
    unsigned char part[64] = {0};
    memcpy(part, p, n * (type == MICA_F32 ? 4 : 2));
    return v16_load_as(type, part);
}

V16_INLINE v16i v16i_load(const void *p) {
    return (v16i){_mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
/** (v >> shift) & mask. */
V16_INLINE v16i v16i_field(v16i v, int shift, int mask) {
    __m256i m = _mm256_set1_epi32(mask);
    return (v16i){_mm256_and_si256(_mm256_srli_epi32(v.lo, shift), m), _mm256_and_si256(_mm256_srli_epi32(v.hi, shift), m)};
}
/** a | b << low. */
V16_INLINE v16i v16i_join(v16i a, v16i b, int low) {
    return (v16i){_mm256_or_si256(a.lo, _mm256_slli_epi32(b.lo, low)), _mm256_or_si256(a.hi, _mm256_slli_epi32(b.hi, low))};
}
V16_INLINE v16 v16_from_int(v16i v) { return (v16){_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }

V16_INLINE void v8_transpose(__m256 r[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
            r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xEE);
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

/** r[i] lane j <-> r[j] lane i. */
V16_INLINE void v16_transpose(v16 r[16]) {
    for (int i = 0; i < 16; i += 8) { // quarters: rows i…i+7, first the low lanes, then the high ones
        __m256 lo[8], hi[8];
        for (int j = 0; j < 8; j++) lo[j] = r[i + j].lo, hi[j] = r[i + j].hi;
        v8_transpose(lo), v8_transpose(hi);
        for (int j = 0; j < 8; j++) r[i + j].lo = lo[j], r[i + j].hi = hi[j];
    }
    for (int j = 0; j < 8; j++) {
        __m256 t = r[j].hi;
        r[j].hi = r[8 + j].lo, r[8 + j].lo = t;
    }
}

V16_INLINE v16i v16i_zero(void) { return (v16i){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
V16_INLINE v16i v16i_set1(int32_t v) { return (v16i){_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
V16_INLINE v16i v16i_add(v16i a, v16i b) { return (v16i){_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
V16_INLINE v16i v16i_max(v16i a, v16i b) { return (v16i){_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)}; }
V16_INLINE int32_t v16i_sum(v16i v) {
    __m256i s = _mm256_add_epi32(v.lo, v.hi);
    __m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(h, _mm_shuffle_epi32(h, 0xB1)));
}
V16_INLINE v16i v16_abs_bits(v16 v) {
    const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
    return (v16i){_mm256_and_si256(_mm256_castps_si256(v.lo), mask), _mm256_and_si256(_mm256_castps_si256(v.hi), mask)};
}
V16_INLINE float v16_greatest(v16i bits) {
    __m256i s = _mm256_max_epi32(bits.lo, bits.hi);
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4E));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(h, _mm_shuffle_epi32(h, 0xB1))));
}
V16_INLINE v16i v16_to_int(v16 v) { return (v16i){_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)}; }
V16_INLINE v16 v16_abs(v16 v) {
    v16i bits = v16_abs_bits(v);
    return (v16){_mm256_castsi256_ps(bits.lo), _mm256_castsi256_ps(bits.hi)};
}
#endif
