// SPDX-License-Identifier: Apache-2.0
// Products with activations in 8 bits, level avx512: int8_products.h with vpdpbusd, which adds four products of unsigned
// and signed bytes to each 32-bit lane.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx512/v16.h"

V16_INLINE v16i v16i_zero(void) { return _mm512_setzero_si512(); }
V16_INLINE v16i v16i_set1(int32_t v) { return _mm512_set1_epi32(v); }
V16_INLINE v16i v16i_add(v16i a, v16i b) { return _mm512_add_epi32(a, b); }
V16_INLINE v16i v16i_dot4(const int bits, v16i sum, v16i w, v16i x) {
    (void)bits;
    return _mm512_dpbusd_epi32(sum, w, x);
}
V16_INLINE v16 v16_abs(v16 v) { return _mm512_abs_ps(v); }
V16_INLINE v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
V16_INLINE float v16_greatest(v16 v) { return _mm512_reduce_max_ps(v); }

/** Sixteen values to the nearest integers, in the order of the codes of x. */
V16_INLINE void v16_round(v16 v, int8_t *to) {
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_shuffle_epi8(_mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)), order));
}

#define INT8_DIRECT 8
#include "device/cpu/int8_products.h"

void mica_cpu_avx512_int8(mica_cpu_int8_isa *isa) { *isa = (mica_cpu_int8_isa){.round_row = round_row, .tiles = tiles}; }
#endif
