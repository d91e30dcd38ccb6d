// SPDX-License-Identifier: Apache-2.0
// Packing of weights into tiles, level avx2 (the layout is described in isa_matmul.h). A chunk of one output is 32 bytes, a code
// each: a shuffle brings the even codes of a dword before the odd ones, multiply-adds join neighbours, and what is left are the
// dwords of a plane. A plane of single bits is the sign mask of the bytes.
#if defined(__x86_64__)
#include "device/cpu/avx2/pack.h"
#include <immintrin.h>
#include <string.h>

enum { VECTOR = 64, CHUNK = MICA_TILE_CHUNK, AHEAD = 6144 }; // hardware prefetching stops at the page's end

static inline void put(unsigned char *to, int dword) { memcpy(to, &dword, 4); }

static inline void put_four(unsigned char *to, __m128i v) {
    put(to, _mm_cvtsi128_si32(v));
    put(to + VECTOR, _mm_extract_epi32(v, 1));
    put(to + 2 * VECTOR, _mm_extract_epi32(v, 2));
    put(to + 3 * VECTOR, _mm_extract_epi32(v, 3));
}

// Four bits of each: a dword of eight codes, even ones first.
static inline unsigned char *plane_4(__m256i codes, unsigned char *to) {
    const __m256i order = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    __m256i low = _mm256_shuffle_epi8(_mm256_and_si256(codes, _mm256_set1_epi8(15)), order);
    __m256i pairs = _mm256_maddubs_epi16(low, _mm256_set1_epi16(0x1001)); // even + 16 * the next even; likewise odd
    put_four(to, _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
    return to + 4 * VECTOR;
}

// In each half, eight even codes, then eight odd ones.
static inline __m256i evens_first(__m256i codes) {
    const __m256i order = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    return _mm256_shuffle_epi8(codes, order);
}

// Two bits of each: a dword of sixteen codes.
static inline unsigned char *plane_2(__m256i codes, unsigned char *to) {
    __m256i low = evens_first(_mm256_and_si256(codes, _mm256_set1_epi8(3)));
    __m256i pairs = _mm256_maddubs_epi16(low, _mm256_set1_epi16(0x0401)), fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00100001));
    __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(fours, fours), fours);
    put(to, _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes)));
    put(to + VECTOR, _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1)));
    return to + 2 * VECTOR;
}

// The bit at the top of each byte.
static inline void plane_1(__m256i codes, unsigned char *to) {
    put(to, _mm256_movemask_epi8(_mm256_permute4x64_epi64(evens_first(codes), 0xD8)));
}

static inline void pack_chunk(__m256i codes, int bits, unsigned char *to) {
    switch (bits) {
    case 2: plane_2(codes, to); break;
    case 3: plane_1(_mm256_slli_epi16(codes, 5), plane_2(codes, to)); break;
    case 4: plane_4(codes, to); break;
    case 5: plane_1(_mm256_slli_epi16(codes, 3), plane_4(codes, to)); break;
    case 6: plane_2(_mm256_srli_epi16(codes, 4), plane_4(codes, to)); break;
    case 8: plane_4(_mm256_srli_epi16(codes, 4), plane_4(codes, to)); break;
    }
}

static inline void pack_rows(const mica_cpu_packing *p, int bits) {
    for (size_t o = 0; o < p->rows; o++) {
        const unsigned char *from = p->from + o * p->row_bytes;
        unsigned char *tile = p->tile + 4 * o;
        for (size_t c = 0; c < p->chunks; tile += p->tile_bytes)
            for (size_t i = 0; i < p->per_tile && c < p->chunks; i++, c++, from += CHUNK)
                pack_chunk(_mm256_loadu_si256((const __m256i *)(const void *)from), bits, tile + i * (size_t)bits * VECTOR);
    }
}

void mica_cpu_avx2_pack_codes(int bits, const mica_cpu_packing *p) {
    switch (bits) {
    case 2: pack_rows(p, 2); break;
    case 3: pack_rows(p, 3); break;
    case 4: pack_rows(p, 4); break;
    case 5: pack_rows(p, 5); break;
    case 6: pack_rows(p, 6); break;
    case 8: pack_rows(p, 8); break;
    }
}

void mica_cpu_avx2_pack_nibbles(const mica_cpu_packing *p) {
    const __m128i mask = _mm_set1_epi8(15), join = _mm_set1_epi16(0x1001), order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    for (size_t o = 0; o < p->rows; o++) {
        const unsigned char *from = p->from + o * p->row_bytes;
        unsigned char *tile = p->tile + 4 * o;
        for (size_t c = 0; c < p->chunks; tile += p->tile_bytes)
            for (size_t i = 0; i < p->per_tile && c < p->chunks; i++, c++, from += CHUNK / 2) {
                __m128i w = _mm_loadu_si128((const __m128i *)(const void *)from);
                _mm_prefetch((const char *)from + AHEAD, _MM_HINT_T0);
                __m128i even = _mm_maddubs_epi16(_mm_and_si128(w, mask), join), odd = _mm_maddubs_epi16(_mm_and_si128(_mm_srli_epi16(w, 4), mask), join);
                put_four(tile + i * 4 * VECTOR, _mm_shuffle_epi8(_mm_packus_epi16(even, odd), order));
            }
    }
}
#endif
