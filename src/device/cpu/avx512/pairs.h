// SPDX-License-Identifier: Apache-2.0
// bf16 pairs in 32-bit lanes: dot products by vdpbf16ps, and attention weights rounded to pairs. After vec512.h.
#ifndef MICA_DEVICE_CPU_PAIRS_H
#define MICA_DEVICE_CPU_PAIRS_H

static inline vf add_pairs(vf c, vf a, vf b) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

// MICA_CPU_KEYS weights to pairs at s; the sum of the rounded ones.
static inline float store_weights_bf16(float *s, const vf *p) {
    vf sum = v_zero(), one = _mm512_castsi512_ps(_mm512_set1_epi32(0x3F803F80));
    for (int i = 0; i < MICA_CPU_KEYS / LANES; i += 2) {
        vf pair = _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(p[i + 1], p[i]));
        store_f32(s + i * LANES / 2, pair);
        sum = add_pairs(sum, pair, one);
    }
    return v_sum(sum);
}

// n vectors, an even number, as neighbouring pairs; lane i of x and y as pair i.
static inline void store_row_bf16(float *s, const vf *x, size_t n) {
    for (size_t i = 0; i < n; i += 2) store_f32(s + i * LANES / 2, _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(x[i + 1], x[i])));
}

static inline void store_turned_bf16(float *s, const vf *x, const vf *y, size_t n) {
    for (size_t i = 0; i < n; i++) {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x[i])), high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(y[i]));
        store_f32(s + i * LANES, _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16))));
    }
}
#endif
