// SPDX-License-Identifier: Apache-2.0
// Products in 16-bit fixed point, level avx512vnni: fixed_products.h with vpdpbusd. Low nibbles are masked; of one or two rows, for which there
// are registers enough, high ones stay where they are, 16 times as large, and have sums of their own.
#if defined(__x86_64__)
#include "device/cpu/avx512vnni/fixed.h"
#include <string.h>

enum { APART = 2, QUARTER = 8 }; // rows with such sums; inputs of a vector of codes
#define FIXED_TOGETHER 8
#define FIXED_UNIT(rows) ((rows) <= APART ? 0x1p-4f : 1.0f)

typedef struct fixed_sums {
    v16i upper[2], lower[2]; // bytes of the activations, with low nibbles and with high ones
} fixed_sums;

// Of eight words w, a quarter of a vector: upper bytes, of w + 128, whose upper byte goes with the lower one of w as a signed number, then lower ones.
V16_INLINE void fixed_bytes(int8_t *to, v16i first, v16i second) {
    const __m512i upper_bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 9, 3, 11, 5, 13, 7, 15, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m512i lower_bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 0, 8, 2, 10, 4, 12, 6, 14));
    __m512i words = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(first)), _mm512_cvtepi32_epi16(second), 1);
    __m512i upper = _mm512_shuffle_epi8(_mm512_add_epi16(words, _mm512_set1_epi16(128)), upper_bytes);
    _mm512_storeu_si512(to, _mm512_or_si512(upper, _mm512_shuffle_epi8(words, lower_bytes)));
}

V16_INLINE v16i four(const int8_t *x) {
    int32_t v;
    memcpy(&v, x, 4);
    return _mm512_set1_epi32(v);
}

V16_INLINE void fixed_chunk(const int rows, const unsigned char *chunk, const int8_t *x, size_t ldx, fixed_sums *sums) {
    const __m512i low = _mm512_set1_epi8(0x0F), high = _mm512_set1_epi8((char)0xF0);
#pragma GCC unroll 4
    for (int v = 0; v < MICA_TILE_CHUNK / QUARTER; v++, x += 2 * QUARTER) {
        __m512i w = _mm512_loadu_si512(chunk + v * 64), a = _mm512_and_si512(w, low);
        __m512i b = rows <= APART ? _mm512_and_si512(w, high) : _mm512_and_si512(_mm512_srli_epi16(w, 4), low);
        const int j = rows <= APART ? 1 : 0;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const int8_t *y = x + (size_t)r * ldx;
            fixed_sums *s = &sums[r];
            s->upper[0] = _mm512_dpbusd_epi32(s->upper[0], a, four(y));
            s->lower[0] = _mm512_dpbusd_epi32(s->lower[0], a, four(y + 8));
            s->upper[j] = _mm512_dpbusd_epi32(s->upper[j], b, four(y + 4));
            s->lower[j] = _mm512_dpbusd_epi32(s->lower[j], b, four(y + 12));
        }
    }
}

V16_INLINE v16i fixed_total(const int rows, const fixed_sums *s) {
    v16i upper = s->upper[0], lower = s->lower[0];
    if (rows <= APART) {
        upper = _mm512_add_epi32(_mm512_slli_epi32(upper, 4), s->upper[1]);
        lower = _mm512_add_epi32(_mm512_slli_epi32(lower, 4), s->lower[1]);
    }
    return _mm512_add_epi32(_mm512_slli_epi32(upper, 8), lower);
}

#include "device/cpu/fixed_products.h"

size_t mica_cpu_avx512vnni_fixed_size(size_t k, size_t group) { return fixed_size(k, group); }
void mica_cpu_avx512vnni_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block) { fixed_row_to(x, k, group, at, block); }
void mica_cpu_avx512vnni_tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d) { tiles_fixed(t, d); }
v16 mica_cpu_avx512vnni_fixed_second(const mica_cpu_tiles *t, const unsigned char *tile, fixed_row r, size_t g, v16 scale, v16 y) {
    return fixed_second(t, tile, r, g, scale, y);
}
#endif
