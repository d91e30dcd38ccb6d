// SPDX-License-Identifier: Apache-2.0
// Sixteen f32 lanes in one AVX-512 register: the vocabulary of f32_products.h (avx2/v16.h is the other dialect).
#ifndef MICA_DEVICE_CPU_AVX512VNNI_V16_H
#define MICA_DEVICE_CPU_AVX512VNNI_V16_H

#include "mica/dtype.h"
#include <immintrin.h>
#include <stdint.h>

#define V16_INLINE static inline __attribute__((always_inline))

typedef __m512 v16;
typedef __m512i v16i;

V16_INLINE v16 v16_zero(void) { return _mm512_setzero_ps(); }
V16_INLINE v16 v16_set1(float f) { return _mm512_set1_ps(f); }
V16_INLINE v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
V16_INLINE void v16_store(float *p, v16 v) { _mm512_storeu_ps(p, v); }
V16_INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
V16_INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
V16_INLINE float v16_sum(v16 v) { return _mm512_reduce_add_ps(v); }

V16_INLINE v16 v16_from_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }

/** Sixteen elements of a float type, any alignment. */
V16_INLINE v16 v16_load_as(mica_dtype type, const void *p) {
    if (type == MICA_F32) return _mm512_loadu_ps(p);
    __m256i h = _mm256_loadu_si256(p);
    return type == MICA_BF16 ? v16_from_bf16(h) : _mm512_cvtph_ps(h);
}

/** The first n < 16 elements, then zeros; reads no further. */
V16_INLINE v16 v16_load_part(mica_dtype type, const void *p, size_t n) {
    __mmask16 mask = (__mmask16)((1u << n) - 1);
    if (type == MICA_F32) return _mm512_maskz_loadu_ps(mask, p);
    __m256i h = _mm256_maskz_loadu_epi16(mask, p);
    return type == MICA_BF16 ? v16_from_bf16(h) : _mm512_cvtph_ps(h);
}

V16_INLINE v16i v16i_load(const void *p) { return _mm512_loadu_si512(p); }
/** (v >> shift) & mask. */
V16_INLINE v16i v16i_field(v16i v, int shift, int mask) {
    return _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)shift), _mm512_set1_epi32(mask));
}
/** a | b << low. */
V16_INLINE v16i v16i_join(v16i a, v16i b, int low) { return _mm512_or_si512(a, _mm512_slli_epi32(b, (unsigned)low)); }
V16_INLINE v16 v16_from_int(v16i v) { return _mm512_cvtepi32_ps(v); }

/** r[i] lane j <-> r[j] lane i, lanes of 32 bits. */
V16_INLINE void v16i_transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) { // r[4g+i]: rows 4g…, columns i, i+4, i+8, i+12
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xDD);
    }
}

V16_INLINE void v16_transpose(v16 r[16]) {
    v16i t[16];
    for (int i = 0; i < 16; i++) t[i] = _mm512_castps_si512(r[i]);
    v16i_transpose(t);
    for (int i = 0; i < 16; i++) r[i] = _mm512_castsi512_ps(t[i]);
}

V16_INLINE v16i v16i_zero(void) { return _mm512_setzero_si512(); }
V16_INLINE v16i v16i_set1(int32_t v) { return _mm512_set1_epi32(v); }
V16_INLINE v16i v16i_add(v16i a, v16i b) { return _mm512_add_epi32(a, b); }
V16_INLINE v16i v16i_max(v16i a, v16i b) { return _mm512_max_epi32(a, b); }
V16_INLINE int32_t v16i_sum(v16i v) { // wraps where the reducing intrinsic overflows: what comes of a NaN has any sum
    __m256i s = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    __m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(h, _mm_shuffle_epi32(h, 0xB1)));
}
V16_INLINE v16i v16_abs_bits(v16 v) { return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7FFFFFFF)); }
V16_INLINE float v16_greatest(v16i bits) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(bits)))); }
V16_INLINE v16i v16_to_int(v16 v) { return _mm512_cvtps_epi32(v); }
V16_INLINE v16 v16_abs(v16 v) { return _mm512_castsi512_ps(v16_abs_bits(v)); }
#endif
