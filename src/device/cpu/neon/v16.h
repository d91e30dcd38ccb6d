// SPDX-License-Identifier: Apache-2.0
// Sixteen f32 lanes in four NEON registers: the vocabulary of f32_products.h (avx2/v16.h is another dialect). Codes of
// packed weights are decoded without shifting them down: the conversion to f32 takes a binary point anywhere in the word.
#ifndef MICA_DEVICE_CPU_NEON_V16_H
#define MICA_DEVICE_CPU_NEON_V16_H

#include "mica/dtype.h"
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define V16_INLINE static inline __attribute__((always_inline))

typedef struct v16 { float32x4_t q[4]; } v16;

V16_INLINE v16 v16_set1(float f) {
    float32x4_t v = vdupq_n_f32(f);
    return (v16){{v, v, v, v}};
}
V16_INLINE v16 v16_zero(void) { return v16_set1(0.0f); }
V16_INLINE v16 v16_load(const float *p) { return (v16){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
V16_INLINE void v16_store(float *p, v16 v) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, v.q[i]);
}
V16_INLINE v16 v16_add(v16 a, v16 b) {
    for (int i = 0; i < 4; i++) a.q[i] = vaddq_f32(a.q[i], b.q[i]);
    return a;
}
V16_INLINE v16 v16_mul(v16 a, v16 b) {
    for (int i = 0; i < 4; i++) a.q[i] = vmulq_f32(a.q[i], b.q[i]);
    return a;
}
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c) { // a * b + c
    for (int i = 0; i < 4; i++) c.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
    return c;
}
V16_INLINE float v16_sum(v16 v) { return vaddvq_f32(vaddq_f32(vaddq_f32(v.q[0], v.q[1]), vaddq_f32(v.q[2], v.q[3]))); }

/** Sixteen elements of a float type, any alignment. */
V16_INLINE v16 v16_load_as(mica_dtype type, const void *p) {
    v16 v;
    memcpy(&v, p, type == MICA_F32 ? 64 : 32);
    if (type == MICA_F32) return v;
    uint16x8_t h[2];
    memcpy(h, &v, 32);
    for (int i = 0; i < 2; i++) {
        if (type == MICA_BF16) {
            v.q[2 * i] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h[i]), 16));
            v.q[2 * i + 1] = vreinterpretq_f32_u32(vshll_high_n_u16(h[i], 16));
        } else {
            v.q[2 * i] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(h[i])));
            v.q[2 * i + 1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(h[i]));
        }
    }
    return v;
}

/** The first n < 16 elements, then zeros; reads no further. */
V16_INLINE v16 v16_load_part(mica_dtype type, const void *p, size_t n) {
    unsigned char part[64] = {0};
    memcpy(part, p, n * (type == MICA_F32 ? 4 : 2));
    return v16_load_as(type, part);
}

/** r[i] lane j <-> r[j] lane i. */
V16_INLINE void v16_transpose(v16 r[16]) {
    v16 t[16];
    for (int i = 0; i < 16; i += 4) // block of rows i…i+3, register j: lanes 4j…4j+3
        for (int j = 0; j < 4; j++) {
            float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[i].q[j], r[i + 1].q[j]));
            float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[i].q[j], r[i + 1].q[j]));
            float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[i + 2].q[j], r[i + 3].q[j]));
            float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[i + 2].q[j], r[i + 3].q[j]));
            t[4 * j].q[i / 4] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
            t[4 * j + 1].q[i / 4] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
            t[4 * j + 2].q[i / 4] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
            t[4 * j + 3].q[i / 4] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
        }
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

// ---- codes of tiles (layout: isa_matmul.h) ----
V16_INLINE uint32x4_t words(const unsigned char *p) { return vreinterpretq_u32_u8(vld1q_u8(p)); }
/** v >> by, or v << -by. */
V16_INLINE uint32x4_t shifted(uint32x4_t v, const int by) { return by >= 0 ? v >> by : v << -by; }

/** The field of `bits` bits at bit `at` of each dword, as f32. at + bits <= 32. */
V16_INLINE float32x4_t field(uint32x4_t v, const int bits, const int at) {
    if (at + bits == 32) return vcvtq_f32_u32(v >> at);
    v &= vdupq_n_u32(((1u << bits) - 1) << at);
    switch (at) { // the count is part of the instruction
#define AT(n) case n: return vcvtq_n_f32_u32(v, n);
        AT(1) AT(2) AT(3) AT(4) AT(5) AT(6) AT(7) AT(8) AT(9) AT(10) AT(11) AT(12) AT(13) AT(14) AT(15) AT(16)
        AT(17) AT(18) AT(19) AT(20) AT(21) AT(22) AT(23) AT(24) AT(25) AT(26) AT(27) AT(28) AT(29) AT(30)
#undef AT
    default: return vcvtq_f32_u32(v);
    }
}

/** Codes of 8 bits: bytes put together from two nibble planes, all eight inputs of a dword by two instructions. */
V16_INLINE float32x4_t code_byte(const unsigned char *low, const unsigned char *high, const int at) {
    uint8x16_t l = vld1q_u8(low), h = vld1q_u8(high);
    uint8x16_t both = at % 8 ? vsriq_n_u8(h, l, 4) : vsliq_n_u8(l, h, 4);
    return field(vreinterpretq_u32_u8(both), 8, at / 8 * 8);
}

/** Input i of a chunk for sixteen outputs. */
#define V16_TILE_CODES
V16_INLINE v16 tile_codes(const int bits, const unsigned char *chunk, const int i) {
    const int low = bits == 3 ? 2 : bits >= 4 ? 4 : bits, high = bits - low, per = 32 / low, per2 = high ? 32 / high : 1;
    const int at = low * (i % per / 2) + 16 * (i & 1), at2 = high * (i % per2 / 2) + 16 * (i & 1);
    const unsigned char *p = chunk + i / per * 64, *p2 = chunk + low * 64 + i / per2 * 64;
    v16 v;
    for (int j = 0; j < 4; j++, p += 16, p2 += 16) {
        if (!high) v.q[j] = field(words(p), bits, at);
        else if (bits == 8) v.q[j] = code_byte(p, p2, at);
        else {
            const int up = at + bits > 32 ? 32 - bits : at; // where the joined field fits in a dword
            uint32x4_t l = shifted(words(p), at - up), h = shifted(words(p2), at2 - up - low);
            v.q[j] = field(vbslq_u32(vdupq_n_u32(((1u << low) - 1) << up), l, h), bits, up);
        }
    }
    return v;
}
#endif
