// SPDX-License-Identifier: Apache-2.0
// Products with activations in 8 bits, level avx512vnni: int8_products.h with vpdpbusd, which adds four products of unsigned
// and signed bytes to each 32-bit lane.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx512vnni/v16.h"

V16_INLINE v16i v16i_dot4(const int bits, v16i sum, v16i w, v16i x) {
    (void)bits;
    return _mm512_dpbusd_epi32(sum, w, x);
}

/** Sixteen integers as bytes, in the order of the codes of x. */
V16_INLINE void v16i_narrow(v16i v, int8_t *to) {
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_shuffle_epi8(_mm512_cvtsepi32_epi8(v), order));
}

#define INT8_DIRECT 8
#include "device/cpu/int8_products.h"

void mica_cpu_avx512vnni_int8(mica_cpu_int8_isa *isa) { *isa = (mica_cpu_int8_isa){.round_row = round_row, .tiles = tiles}; }
#endif
