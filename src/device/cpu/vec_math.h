// SPDX-License-Identifier: Apache-2.0
// exp, tanh, sigmoid and the activations on vectors, over the vocabulary of vec512.h or vec256.h, whichever the
// including file took first. Polynomials are our own minimax fits (iteratively reweighted least squares on Chebyshev
// nodes, in double, then rounded); worst errors over all of f32 are printed by test_kernels_rows.
#ifndef MICA_DEVICE_CPU_VEC_MATH_H
#define MICA_DEVICE_CPU_VEC_MATH_H

// e^x = 2^n * e^r with n = round(x / ln 2), |r| <= ln 2 / 2; ln 2 in two parts, the first with trailing zeros so that
// n * part is exact. e^r = 1 + r + r² * p(r), |relative error| < 0.06 * 2^-24. Clamped where the result is 0 or inf.
static inline vf v_exp(vf x) {
    x = v_max(v_set(-105.0f), v_min(v_set(89.0f), x));
    vf n = v_round(v_mul(x, v_set(0x1.715476p+0f)));
    vf r = v_fnma(n, v_set(0x1.62e4p-1f), x);
    r = v_fnma(n, v_set(0x1.7f7d1cp-20f), r);
    vf p = v_fma(v_set(0x1.6db5bap-10f), r, v_set(0x1.123c78p-7f));
    p = v_fma(p, r, v_set(0x1.55545cp-5f));
    p = v_fma(p, r, v_set(0x1.55548ep-3f));
    p = v_fma(p, r, v_set(0.5f));
    return v_scale2(v_add(v_fma(p, v_mul(r, r), r), v_set(1.0f)), n);
}

// e^x where it is a weight among others: 0 where it would be denormal, since such a result, and each use of it, costs Intel's cores
// 150 to 270 cycles. Hidden keys are the common case: x = -inf.
static inline vf v_exp_weight(vf x) {
    const vf least = v_set(-87.3f);
    return v_select(v_less(x, least), v_zero(), v_exp(v_max(least, x)));
}

// 1 / (1 + e^-|x|), mirrored for negative x: nothing overflows or cancels.
static inline vf v_sigmoid(vf x) {
    vf e = v_exp(v_sub(v_zero(), v_abs(x)));
    return v_div(v_select(v_less(x, v_zero()), e, v_set(1.0f)), v_add(v_set(1.0f), e));
}

// x * s for a weight s that is 0 at x = -inf, where the product shall be 0 too.
static inline vf v_gate(vf x, vf s) { return v_mul(v_max(v_set(-0x1.fffffep127f), x), s); }

static inline vf v_silu(vf x) { return v_gate(x, v_sigmoid(x)); }

// x * (1 + tanh u) / 2 = x * sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x³).
static inline vf v_gelu_tanh(vf x) {
    vf u = v_mul(x, v_fma(v_mul(x, x), v_set(0.071354816f), v_set(1.5957691216f)));
    return v_gate(x, v_sigmoid(u));
}

// x * Phi(x). Phi(-t) = e^(-t²/2) * R(t), R a polynomial in 1 / (1 + 0.3 t) fitted to t = 14, |relative error| < 2^-24;
// what rounding t² loses is put back, since the exponent magnifies it.
static inline vf v_gelu(vf x) {
    vf t = v_min(v_set(16.0f), v_abs(x)), s = v_div(v_set(1.0f), v_fma(v_set(0.3f), t, v_set(1.0f)));
    vf p = v_fma(v_set(0x1.3a653ap-5f), s, v_set(-0x1.5a73e8p-3f));
    p = v_fma(p, s, v_set(0x1.d44c04p-3f));
    p = v_fma(p, s, v_set(-0x1.395f72p-4f));
    p = v_fma(p, s, v_set(0x1.23e9dap-3f));
    p = v_fma(p, s, v_set(0x1.83d2bap-4f));
    p = v_fma(p, s, v_set(0x1.f362c8p-4f));
    p = v_fma(p, s, v_set(0x1.e96becp-4f));
    p = v_fma(p, s, v_set(0x1.e11bb4p-18f));
    vf square = v_mul(t, t), lost = v_sub(v_zero(), v_fnma(t, t, square)); // t² = square + lost
    vf q = v_mul(v_mul(v_exp(v_mul(square, v_set(-0.5f))), p), v_fnma(lost, v_set(0.5f), v_set(1.0f)));
    return v_gate(x, v_select(v_less(x, v_zero()), q, v_sub(v_set(1.0f), q)));
}

// Small |x|: x + x³ * p(x²), fitted to 0.63; else 1 - 2 / (e^2|x| + 1) with the sign of x.
static inline vf v_tanh(vf x) {
    vf z = v_mul(x, x), a = v_abs(x);
    vf p = v_fma(v_set(0x1.163b6cp-9f), z, v_set(-0x1.0b43cep-7f));
    p = v_fma(p, z, v_set(0x1.636962p-6f));
    p = v_fma(p, z, v_set(-0x1.b9eba8p-5f));
    p = v_fma(p, z, v_set(0x1.111058p-3f));
    p = v_fma(p, z, v_set(-0x1.555554p-2f));
    vf near = v_fma(v_mul(p, z), x, x);
    vf far = v_sub(v_set(1.0f), v_div(v_set(2.0f), v_add(v_exp(v_add(a, a)), v_set(1.0f))));
    far = v_select(v_less(x, v_zero()), v_sub(v_zero(), far), far);
    return v_select(v_less(a, v_set(0.625f)), near, far);
}

// The gates' activations with their slopes. Beyond the clamp the latter are 0 or 1 to the last bit, and nothing infinite is multiplied by 0.
static inline vf v_clamp(vf x, float most) { return v_max(v_set(-most), v_min(v_set(most), x)); } // NaN stays
static inline void v_both_swiglu(vf x, vf *y, vf *slope) {
    vf s = v_sigmoid(x);
    *y = v_gate(x, s), *slope = v_fma(v_mul(v_clamp(x, 104.0f), s), v_sub(v_set(1.0f), s), s);
}
static inline void v_both_geglu(vf x, vf *y, vf *slope) {
    vf c = v_clamp(x, 30.0f), z = v_mul(c, c), s = v_sigmoid(v_mul(c, v_fma(z, v_set(0.071354816f), v_set(1.5957691216f))));
    vf inner = v_mul(v_mul(c, s), v_fma(z, v_set(3 * 0.071354816f), v_set(1.5957691216f)));
    *y = v_gate(x, s), *slope = v_fma(inner, v_sub(v_set(1.0f), s), s);
}

static inline vf v_swiglu(vf a, vf b) { return v_mul(v_silu(a), b); }
static inline vf v_geglu(vf a, vf b) { return v_mul(v_gelu_tanh(a), b); }
#endif
