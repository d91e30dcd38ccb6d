// SPDX-License-Identifier: Apache-2.0
// Codes of packed weights to bf16 with AVX-512 VBMI, for the avx512 and amx levels. A 64-byte vector of a plane holds pairs of
// neighbouring inputs sixteen bits apart, so a shift and one vpermw turn it into bf16 pairs: the codes index a table of
// their values in bf16 (exact), repeated where a plane leaves bits above the code in the index.
#ifndef MICA_DEVICE_CPU_AVX512_CODES_H
#define MICA_DEVICE_CPU_AVX512_CODES_H

#include "device/cpu/avx512vnni/v16.h"
#include "device/cpu/tiles.h"

enum { TILE_PAIRS = MICA_TILE_CHUNK / 2 };

// Tables of vpermw: codes in bf16. `low` has the value of the index's lowest bits only; `high` those of a second nibble.
typedef struct tables { __m512i low, high; } tables;

V16_INLINE tables tables_of(const int bits) {
    uint16_t low[32], high[32];
    for (unsigned i = 0; i < 32; i++) {
        unsigned code = bits == 8 ? i & 15 : bits == 6 ? i : i & ((1u << bits) - 1);
        low[i] = mica_f32_to_bf16((float)code);
        high[i] = mica_f32_to_bf16((float)(bits == 8 ? 16 * (i & 15) : i + 32)); // 8 bits: upper nibble; 6: codes 32…63
    }
    return (tables){_mm512_loadu_si512(low), _mm512_loadu_si512(high)};
}

// v >> by, or v << -by. Vector operators: compilers disagree on the type of the intrinsic's count.
typedef uint16_t u16x32 __attribute__((vector_size(64)));
V16_INLINE __m512i shifted(__m512i v, const int by) {
    return by >= 0 ? (__m512i)((u16x32)v >> by) : (__m512i)((u16x32)v << -by);
}

// Index of pair p of a chunk: the low plane's field, and above it the high plane's where there is one.
V16_INLINE __m512i pair_index(const int bits, const unsigned char *chunk, const int p) {
    const int low = bits == 3 ? 2 : bits >= 4 ? 4 : bits, high = bits == 8 ? 0 : bits - low, per = 16 / low;
    __m512i v = shifted(_mm512_loadu_si512(chunk + p / per * 64), low * (p % per));
    if (!high) return v;
    const int per2 = 16 / high;
    __m512i h = shifted(_mm512_loadu_si512(chunk + low * 64 + p / per2 * 64), high * (p % per2) - low);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi16((short)((1 << low) - 1)), v, h, 0xCA); // mask ? v : h
}

V16_INLINE __m512i pair_codes(const int bits, const unsigned char *chunk, const int p, tables t) {
    __m512i index = pair_index(bits, chunk, p);
    return bits == 6 ? _mm512_permutex2var_epi16(t.low, index, t.high) : _mm512_permutexvar_epi16(index, t.low);
}

// 8 bits: the upper nibbles, times 16.
V16_INLINE __m512i pair_upper(const unsigned char *chunk, const int p, tables t) {
    return _mm512_permutexvar_epi16(shifted(_mm512_loadu_si512(chunk + 256 + p / 4 * 64), 4 * (p % 4)), t.high);
}

V16_INLINE v16 even(__m512i q) { return _mm512_castsi512_ps(_mm512_slli_epi32(q, 16)); }
V16_INLINE v16 odd(__m512i q) { return _mm512_castsi512_ps(_mm512_and_si512(q, _mm512_set1_epi32((int)0xFFFF0000u))); }

// Weights of a pair from its codes in f32: scale*code + bias, rounded to bf16, side by side again.
V16_INLINE __m512i pair_weights(v16 e, v16 o, v16 s, v16 b) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                           19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_fmadd_ps(o, s, b), _mm512_fmadd_ps(e, s, b));
    return _mm512_permutexvar_epi16(order, both);
}

V16_INLINE v16 tile_scale(const mica_cpu_tiles *t, const unsigned char *tile, size_t group) {
    return v16_load_as(t->scale_dtype, tile + t->codes + group * t->scales);
}

#endif
