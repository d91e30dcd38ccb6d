// SPDX-License-Identifier: Apache-2.0
// Products with activations in 8 bits, level avx512vnni: int8_products.h with vpdpbusd, which adds four products of unsigned
// and signed bytes to each 32-bit lane.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx512vnni/v16.h"

V16_INLINE v16i v16i_zero(void) { return _mm512_setzero_si512(); }
V16_INLINE v16i v16i_set1(int32_t v) { return _mm512_set1_epi32(v); }
V16_INLINE v16i v16i_add(v16i a, v16i b) { return _mm512_add_epi32(a, b); }
V16_INLINE v16i v16i_dot4(const int bits, v16i sum, v16i w, v16i x) {
    (void)bits;
    return _mm512_dpbusd_epi32(sum, w, x);
}
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

/** Sixteen integers as bytes, in the order of the codes of x. */
V16_INLINE void v16i_narrow(v16i v, int8_t *to) {
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_shuffle_epi8(_mm512_cvtsepi32_epi8(v), order));
}

#define INT8_DIRECT 8
#include "device/cpu/int8_products.h"

void mica_cpu_avx512vnni_int8(mica_cpu_int8_isa *isa) { *isa = (mica_cpu_int8_isa){.round_row = round_row, .tiles = tiles}; }
#endif
