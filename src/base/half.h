// SPDX-License-Identifier: Apache-2.0
// bf16 and f16 <-> f32, round to nearest even, NaN kept a NaN. Plain C: kernels have vector forms of their own.
#ifndef MICA_BASE_HALF_H
#define MICA_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float mica_f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t mica_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float mica_bf16_to_f32(uint16_t h) { return mica_f32_from_bits((uint32_t)h << 16); }

static inline uint16_t mica_f32_to_bf16(float f) {
    uint32_t u = mica_f32_bits(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

static inline float mica_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3FFu;
    if (exponent == 31) return mica_f32_from_bits(sign | 0x7F800000u | (mantissa << 13));
    if (exponent) return mica_f32_from_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
    // Subnormal: mantissa * 2^-24 is exact in f32.
    float f = (float)mantissa * 0x1p-24f;
    return sign ? -f : f;
}

static inline uint16_t mica_f32_to_f16(float f) {
    uint32_t u = mica_f32_bits(f), sign = (u >> 16) & 0x8000u;
    u &= 0x7FFFFFFFu;
    if (u > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((u >> 13) & 0x3FFu));
    if (u >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); // rounds to infinity
    if (u < 0x38800000u) { // subnormal: the addition rounds to nearest even at 2^-24
        float g = mica_f32_from_bits(u) + 0.5f;
        return (uint16_t)(sign | (mica_f32_bits(g) - 0x3F000000u));
    }
    return (uint16_t)(sign | ((u - 0x38000000u + 0xFFFu + ((u >> 13) & 1u)) >> 13));
}
#endif
