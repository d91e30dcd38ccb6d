// SPDX-License-Identifier: Apache-2.0
// bf16 pairs in 32-bit lanes: dot products by vdpbf16ps, and attention weights rounded to pairs. After vec512.h.
#ifndef MICA_DEVICE_CPU_PAIRS_H
#define MICA_DEVICE_CPU_PAIRS_H

static inline vf add_pairs(vf c, vf a, vf b) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

// e^x for weights that will be rounded to bf16: 2^t = 2^floor(t) * 2^r, 0 <= r < 1, of half the operations of v_exp; |relative error| < 2^-18.5
// beside the rounding of t (minimax fit as in vec_math.h). 0 where v_exp_weight is, NaN stays.
static inline vf exp_pairs(vf x) {
    vf t = v_mul(x, v_set(0x1.715476p+0f)), r = _mm512_reduce_ps(t, 0x09); // t - floor(t)
    vf p = v_fma(v_set(0x1.bb7cd2p-7f), r, v_set(0x1.aa13fp-5f));
    p = v_fma(p, r, v_set(0x1.ee798ap-3f));
    p = v_fma(p, r, v_set(0x1.62d166p-1f));
    __mmask16 normal = _mm512_cmp_ps_mask(t, v_set(-126.0f), _CMP_NLT_UQ); // or NaN
    return _mm512_maskz_scalef_ps(normal, v_fma(p, r, v_set(0x1.00002cp+0f)), t);
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
