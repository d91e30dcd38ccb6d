// SPDX-License-Identifier: Apache-2.0
// Products with activations in 8 bits, level avx2: int8_products.h with vpmaddubsw and vpmaddwd. The former adds two products
// of bytes in 16 bits and saturates: codes of up to 6 bits stay below 2·63·127 = 16002; those of 8 bits go as two nibbles.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx2/v16.h"

V16_INLINE __m256i v8i_dot4(const int bits, __m256i sum, __m256i w, __m256i x) {
    if (bits < 8) return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(w, nibble), x);
    __m256i high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(w, 4), nibble), x);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(high, _mm256_set1_epi16(16)));
}
V16_INLINE v16i v16i_dot4(const int bits, v16i sum, v16i w, v16i x) {
    return (v16i){v8i_dot4(bits, sum.lo, w.lo, x.lo), v8i_dot4(bits, sum.hi, w.hi, x.hi)};
}


/** Sixteen integers as bytes, in the order of the codes of x. */
V16_INLINE void v16i_narrow(v16i v, int8_t *to) {
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.lo, v.hi), 0xD8); // packs: 0…3 8…11 | 4…7 12…15
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)to, _mm_shuffle_epi8(bytes, order));
}

#define INT8_DIRECT 4
#include "device/cpu/int8_products.h"

void mica_cpu_avx2_int8(mica_cpu_int8_isa *isa) { *isa = (mica_cpu_int8_isa){.round_row = round_row, .tiles = tiles}; }
#endif
