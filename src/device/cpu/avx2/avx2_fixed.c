// SPDX-License-Identifier: Apache-2.0
// Products in 16-bit fixed point, level avx2: fixed_products.h with vpmaddubsw, which adds two products of a nibble and a byte in 16 bits. A chunk
// adds eight of those sums, 30720 at most; only then they become 32 bits wide.
#if defined(__x86_64__)
#include "device/cpu/isa.h"
#include "device/cpu/avx2/v16.h"

enum { QUARTER = 8 }; // inputs of a vector of codes
#define FIXED_TOGETHER 2
#define FIXED_UNIT(rows) ((void)(rows), 1.0f)

typedef struct fixed_sums {
    v16i sum;
} fixed_sums;

// Of eight words w, half a register: upper bytes, of w + 128, whose upper byte goes with the lower one of w as a signed number, then lower ones.
V16_INLINE void half_bytes(int8_t *to, v16i v) {
    const __m256i upper_bytes = _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 9, 3, 11, 5, 13, 7, 15, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m256i lower_bytes = _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 0, 8, 2, 10, 4, 12, 6, 14));
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.lo, v.hi), 0xD8); // packs: 0…3 8…11 | 4…7 12…15
    __m256i upper = _mm256_shuffle_epi8(_mm256_add_epi16(words, _mm256_set1_epi16(128)), upper_bytes);
    _mm256_storeu_si256((void *)to, _mm256_or_si256(upper, _mm256_shuffle_epi8(words, lower_bytes)));
}
V16_INLINE void fixed_bytes(int8_t *to, v16i first, v16i second) { half_bytes(to, first), half_bytes(to + 32, second); }

V16_INLINE __m256i four(const int8_t *x) {
    int32_t v;
    memcpy(&v, x, 4);
    return _mm256_set1_epi32(v);
}

V16_INLINE v16i add_nibbles(v16i sum, v16i w, __m256i x) {
    return (v16i){_mm256_add_epi16(sum.lo, _mm256_maddubs_epi16(w.lo, x)), _mm256_add_epi16(sum.hi, _mm256_maddubs_epi16(w.hi, x))};
}

V16_INLINE __m256i widen(__m256i sum, __m256i upper, __m256i lower) {
    upper = _mm256_madd_epi16(upper, _mm256_set1_epi16(256)), lower = _mm256_madd_epi16(lower, _mm256_set1_epi16(1));
    return _mm256_add_epi32(sum, _mm256_add_epi32(upper, lower));
}

V16_INLINE void fixed_chunk(const int rows, const unsigned char *chunk, const int8_t *x, size_t ldx, fixed_sums *sums) {
    v16i upper[FIXED_TOGETHER], lower[FIXED_TOGETHER];
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) upper[r] = lower[r] = v16i_zero();
#pragma GCC unroll 4
    for (int v = 0; v < MICA_TILE_CHUNK / QUARTER; v++, x += 2 * QUARTER) {
        v16i w = v16i_load(chunk + v * 64), a = v16i_field(w, 0, 0x0F0F0F0F), b = v16i_field(w, 4, 0x0F0F0F0F);
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            const int8_t *y = x + (size_t)r * ldx;
            upper[r] = add_nibbles(upper[r], a, four(y)), lower[r] = add_nibbles(lower[r], a, four(y + 8));
            upper[r] = add_nibbles(upper[r], b, four(y + 4)), lower[r] = add_nibbles(lower[r], b, four(y + 12));
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        v16i *s = &sums[r].sum;
        *s = (v16i){widen(s->lo, upper[r].lo, lower[r].lo), widen(s->hi, upper[r].hi, lower[r].hi)};
    }
}

V16_INLINE v16i fixed_total(const int rows, const fixed_sums *s) {
    (void)rows;
    return s->sum;
}

#include "device/cpu/fixed_products.h"

void mica_cpu_avx2_fixed(mica_cpu_matmul_isa *isa) {
    isa->fixed_size = fixed_size, isa->fixed_row = fixed_row_to;
    isa->tiles_fixed = tiles_fixed, isa->fixed_rows = MICA_DIRECT_ROWS;
}
#endif
