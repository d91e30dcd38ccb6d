// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary of vec_math.h and vec_rows.h for NEON (ARMv8-A): 8 lanes of f32 in two registers, so that two
// chains of operations are always under way. avx2/vec256.h has the same names and the same results for NaN. Parts of a
// vector pass through a small buffer on the stack, so that nothing is read beyond the end.
#ifndef MICA_DEVICE_CPU_VEC128_H
#define MICA_DEVICE_CPU_VEC128_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct vf { float32x4_t lo, hi; } vf;
typedef struct vmask { uint32x4_t lo, hi; } vmask; // all bits of a lane
enum { LANES = 8 };

#define V_INLINE static inline __attribute__((always_inline))
#define V_UNARY(f, a) ((vf){f((a).lo), f((a).hi)})
#define V_BINARY(f, a, b) ((vf){f((a).lo, (b).lo), f((a).hi, (b).hi)})
#define V_COMPARE(f, a, b) ((vmask){f((a).lo, (b).lo), f((a).hi, (b).hi)})

V_INLINE vf v_set(float x) { return (vf){vdupq_n_f32(x), vdupq_n_f32(x)}; }
V_INLINE vf v_zero(void) { return v_set(0.0f); }
V_INLINE vf v_add(vf a, vf b) { return V_BINARY(vaddq_f32, a, b); }
V_INLINE vf v_sub(vf a, vf b) { return V_BINARY(vsubq_f32, a, b); }
V_INLINE vf v_mul(vf a, vf b) { return V_BINARY(vmulq_f32, a, b); }
V_INLINE vf v_sqrt(vf a) { return V_UNARY(vsqrtq_f32, a); }
V_INLINE vf v_div(vf a, vf b) { return V_BINARY(vdivq_f32, a, b); }
V_INLINE vf v_fma(vf a, vf b, vf c) { return (vf){vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi)}; }  // a * b + c
V_INLINE vf v_fnma(vf a, vf b, vf c) { return (vf){vfmsq_f32(c.lo, a.lo, b.lo), vfmsq_f32(c.hi, a.hi, b.hi)}; } // c - a * b
V_INLINE vf v_abs(vf a) { return V_UNARY(vabsq_f32, a); }
V_INLINE vf v_round(vf a) { return V_UNARY(vrndnq_f32, a); }

V_INLINE vmask v_less(vf a, vf b) { return V_COMPARE(vcltq_f32, a, b); }
V_INLINE vmask v_equal(vf a, vf b) { return V_COMPARE(vceqq_f32, a, b); }
V_INLINE vmask v_is_nan(vf a) { return (vmask){vmvnq_u32(vceqq_f32(a.lo, a.lo)), vmvnq_u32(vceqq_f32(a.hi, a.hi))}; }
V_INLINE vmask v_or(vmask a, vmask b) { return V_COMPARE(vorrq_u32, a, b); }
V_INLINE vf v_select(vmask m, vf a, vf b) { return (vf){vbslq_f32(m.lo, a.lo, b.lo), vbslq_f32(m.hi, a.hi, b.hi)}; } // m ? a : b
V_INLINE vf v_max(vf a, vf b) { return v_select(v_less(b, a), a, b); } // b if either is NaN; fmax would give NaN
V_INLINE vf v_min(vf a, vf b) { return v_select(v_less(a, b), a, b); } // b if either is NaN
/** Bit i of the result = lane i. */
V_INLINE unsigned v_bits(vmask m) {
    const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
    return vaddvq_u16(vandq_u16(vcombine_u16(vmovn_u32(m.lo), vmovn_u32(m.hi)), bit));
}

V_INLINE float32x4_t power2(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
V_INLINE float32x4_t scale2(float32x4_t a, float32x4_t n) {
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(a, power2(half)), power2(vsubq_s32(whole, half)));
}
/** a * 2^n for whole n in -250 … 250: in two steps, so that neither factor leaves the normal numbers. */
V_INLINE vf v_scale2(vf a, vf n) { return V_BINARY(scale2, a, n); }

V_INLINE float v_sum(vf a) { return vaddvq_f32(vaddq_f32(a.lo, a.hi)); }
V_INLINE float v_greatest(vf a) { return vmaxvq_f32(vmaxq_f32(a.lo, a.hi)); }

/** Sign changed in the even lanes; neighbours swapped; each of the LANES / 2 floats at p (n of them there) twice. */
V_INLINE float32x4_t negate_even(float32x4_t a) {
    return vreinterpretq_f32_u64(veorq_u64(vreinterpretq_u64_f32(a), vdupq_n_u64(0x80000000)));
}
V_INLINE vf v_negate_even(vf a) { return V_UNARY(negate_even, a); }
V_INLINE vf v_swap_pairs(vf a) { return V_UNARY(vrev64q_f32, a); }
V_INLINE vf v_load_twice(const float *p, size_t n) {
    float b[4] = {0};
    memcpy(b, p, n * sizeof *p);
    float32x4_t v = vld1q_f32(b);
    return (vf){vzip1q_f32(v, v), vzip2q_f32(v, v)};
}

/** 0, 1, 2, …; the first lane. */
V_INLINE vf v_count(void) { return (vf){{0, 1, 2, 3}, {4, 5, 6, 7}}; }
V_INLINE float v_lane0(vf a) { return vgetq_lane_f32(a.lo, 0); }

V_INLINE float32x4_t four_sums(const vf x[4]) {
    float32x4_t a = vpaddq_f32(vaddq_f32(x[0].lo, x[0].hi), vaddq_f32(x[1].lo, x[1].hi));
    return vpaddq_f32(a, vpaddq_f32(vaddq_f32(x[2].lo, x[2].hi), vaddq_f32(x[3].lo, x[3].hi)));
}
/** Lane i of the result = sum of the lanes of x[i]; every sum is taken in the same order. */
V_INLINE vf v_sums(const vf x[LANES]) { return (vf){four_sums(x), four_sums(x + 4)}; }

/** Four by four: lane i of vector j <-> lane j of vector i. */
V_INLINE void v4_transpose(float32x4_t *a, float32x4_t *b, float32x4_t *c, float32x4_t *d) {
    float64x2_t s = vreinterpretq_f64_f32(vtrn1q_f32(*a, *b)), t = vreinterpretq_f64_f32(vtrn2q_f32(*a, *b));
    float64x2_t u = vreinterpretq_f64_f32(vtrn1q_f32(*c, *d)), v = vreinterpretq_f64_f32(vtrn2q_f32(*c, *d));
    *a = vreinterpretq_f32_f64(vtrn1q_f64(s, u)), *b = vreinterpretq_f32_f64(vtrn1q_f64(t, v));
    *c = vreinterpretq_f32_f64(vtrn2q_f64(s, u)), *d = vreinterpretq_f32_f64(vtrn2q_f64(t, v));
}
/** Lane i of vector j <-> lane j of vector i. */
V_INLINE void v_transpose(vf x[LANES]) {
    for (int i = 0; i < 8; i += 4) {
        v4_transpose(&x[i].lo, &x[i + 1].lo, &x[i + 2].lo, &x[i + 3].lo);
        v4_transpose(&x[i].hi, &x[i + 1].hi, &x[i + 2].hi, &x[i + 3].hi);
    }
    for (int i = 0; i < 4; i++) {
        float32x4_t t = x[i].hi;
        x[i].hi = x[4 + i].lo, x[4 + i].lo = t;
    }
}

// ---- memory: whole vectors, and the first n < LANES elements (the other lanes get `fill`) ----
V_INLINE vf load_f32(const float *p) { return (vf){vld1q_f32(p), vld1q_f32(p + 4)}; }
V_INLINE void store_f32(float *p, vf a) { vst1q_f32(p, a.lo), vst1q_f32(p + 4, a.hi); }
V_INLINE vf loadn_f32(const float *p, size_t n, vf fill) {
    float b[LANES];
    store_f32(b, fill);
    memcpy(b, p, n * sizeof *p);
    return load_f32(b);
}
V_INLINE void storen_f32(float *p, vf a, size_t n) {
    float b[LANES];
    store_f32(b, a);
    memcpy(p, b, n * sizeof *p);
}

V_INLINE uint16x8_t load_part(const uint16_t *p, size_t n) {
    uint16_t b[LANES] = {0};
    memcpy(b, p, n * sizeof *p);
    return vld1q_u16(b);
}
V_INLINE void store_part(uint16_t *p, uint16x8_t a, size_t n) {
    uint16_t b[LANES];
    vst1q_u16(b, a);
    memcpy(p, b, n * sizeof *p);
}
V_INLINE vf fill_rest(vf a, size_t n, vf fill) { return v_select(v_less(v_count(), v_set((float)n)), a, fill); }

V_INLINE vf from_f16(uint16x8_t h) {
    float16x8_t f = vreinterpretq_f16_u16(h);
    return (vf){vcvt_f32_f16(vget_low_f16(f)), vcvt_high_f32_f16(f)};
}
V_INLINE uint16x8_t to_f16(vf a) { return vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(a.lo), a.hi)); }
V_INLINE vf load_f16(const uint16_t *p) { return from_f16(vld1q_u16(p)); }
V_INLINE vf loadn_f16(const uint16_t *p, size_t n, vf fill) { return fill_rest(from_f16(load_part(p, n)), n, fill); }
V_INLINE void store_f16(uint16_t *p, vf a) { vst1q_u16(p, to_f16(a)); }
V_INLINE void storen_f16(uint16_t *p, vf a, size_t n) { store_part(p, to_f16(a), n); }

V_INLINE vf load_i8(const int8_t *p) {
    int16x8_t h = vmovl_s8(vld1_s8(p));
    return (vf){vcvtq_f32_s32(vmovl_s16(vget_low_s16(h))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(h)))};
}
V_INLINE vf loadn_i8(const int8_t *p, size_t n, vf fill) {
    int8_t b[LANES] = {0};
    memcpy(b, p, n);
    return fill_rest(load_i8(b), n, fill);
}

V_INLINE vf from_bf16(uint16x8_t h) {
    return (vf){vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(h, 16))};
}
V_INLINE uint32x4_t round_bf16(float32x4_t a) { // in the upper half
    uint32x4_t u = vreinterpretq_u32_f32(a), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t r = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7FFF))), nan = vorrq_u32(u, vdupq_n_u32(0x400000));
    return vbslq_u32(vceqq_f32(a, a), r, nan);
}
V_INLINE uint16x8_t to_bf16(vf a) { return vshrn_high_n_u32(vshrn_n_u32(round_bf16(a.lo), 16), round_bf16(a.hi), 16); }
V_INLINE vf load_bf16(const uint16_t *p) { return from_bf16(vld1q_u16(p)); }
V_INLINE vf loadn_bf16(const uint16_t *p, size_t n, vf fill) { return fill_rest(from_bf16(load_part(p, n)), n, fill); }
V_INLINE void store_bf16(uint16_t *p, vf a) { vst1q_u16(p, to_bf16(a)); }
V_INLINE void storen_bf16(uint16_t *p, vf a, size_t n) { store_part(p, to_bf16(a), n); }
#endif
