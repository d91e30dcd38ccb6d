// SPDX-License-Identifier: Apache-2.0
// Single numbers stored as elements of any type: floats rounded once, to nearest even; integers saturated, NaN = 0.
#ifndef MICA_DEVICE_CPU_CONVERT_H
#define MICA_DEVICE_CPU_CONVERT_H

#include "base/half.h"
#include "mica/dtype.h"
#include <math.h>

/** An f32 that rounds to a shorter type as the f64 would: inexact results get an odd last bit. */
static inline float mica_cpu_to_odd(double x) {
    float f = (float)x;
    if ((double)f == x || isnan(f) || isinf(x)) return f;
    uint32_t u = mica_f32_bits(f);
    if (fabs((double)f) > fabs(x)) u--; // towards zero
    return mica_f32_from_bits(u | 1u);
}

static inline int64_t mica_cpu_to_i64(double x, int64_t low, int64_t high) {
    if (isnan(x)) return 0;
    return x <= (double)low ? low : x >= (double)high ? high : (int64_t)x;
}

/** x as an unsigned number of 64 bits; negative ones are 0. */
static inline uint64_t mica_cpu_to_u64(double x) { return !(x > 0) ? 0 : x >= 0x1p64 ? UINT64_MAX : (uint64_t)x; }

/** y[i] = x. */
static inline void mica_cpu_store(mica_dtype t, void *y, size_t i, double x) {
    switch (t) {
    case MICA_F32: ((float *)y)[i] = (float)x; break;
    case MICA_F16: ((uint16_t *)y)[i] = mica_f32_to_f16(mica_cpu_to_odd(x)); break;
    case MICA_BF16: ((uint16_t *)y)[i] = mica_f32_to_bf16(mica_cpu_to_odd(x)); break;
    case MICA_F64: ((double *)y)[i] = x; break;
    case MICA_BOOL: ((uint8_t *)y)[i] = x != 0; break;
    case MICA_U8: ((uint8_t *)y)[i] = (uint8_t)mica_cpu_to_i64(x, 0, UINT8_MAX); break;
    case MICA_U16: ((uint16_t *)y)[i] = (uint16_t)mica_cpu_to_i64(x, 0, UINT16_MAX); break;
    case MICA_U32: ((uint32_t *)y)[i] = (uint32_t)mica_cpu_to_i64(x, 0, UINT32_MAX); break;
    case MICA_U64: ((uint64_t *)y)[i] = mica_cpu_to_u64(x); break;
    case MICA_I8: ((int8_t *)y)[i] = (int8_t)mica_cpu_to_i64(x, INT8_MIN, INT8_MAX); break;
    case MICA_I16: ((int16_t *)y)[i] = (int16_t)mica_cpu_to_i64(x, INT16_MIN, INT16_MAX); break;
    case MICA_I32: ((int32_t *)y)[i] = (int32_t)mica_cpu_to_i64(x, INT32_MIN, INT32_MAX); break;
    default: ((int64_t *)y)[i] = mica_cpu_to_i64(x, INT64_MIN, INT64_MAX); break;
    }
}

/** x[i] as f64 (64-bit integers rounded). */
static inline double mica_cpu_load(mica_dtype t, const void *x, size_t i) {
    switch (t) {
    case MICA_F32: return (double)((const float *)x)[i];
    case MICA_F16: return (double)mica_f16_to_f32(((const uint16_t *)x)[i]);
    case MICA_BF16: return (double)mica_bf16_to_f32(((const uint16_t *)x)[i]);
    case MICA_F64: return ((const double *)x)[i];
    case MICA_BOOL:
    case MICA_U8: return ((const uint8_t *)x)[i];
    case MICA_U16: return ((const uint16_t *)x)[i];
    case MICA_U32: return ((const uint32_t *)x)[i];
    case MICA_U64: return (double)((const uint64_t *)x)[i];
    case MICA_I8: return ((const int8_t *)x)[i];
    case MICA_I16: return ((const int16_t *)x)[i];
    case MICA_I32: return ((const int32_t *)x)[i];
    default: return (double)((const int64_t *)x)[i];
    }
}

/** An integer of any type as 64 bits, sign- or zero-extended. */
static inline uint64_t mica_cpu_load_bits(mica_dtype t, const void *x, size_t i) {
    switch (t) {
    case MICA_BOOL:
    case MICA_U8: return ((const uint8_t *)x)[i];
    case MICA_F16:
    case MICA_BF16:
    case MICA_U16: return ((const uint16_t *)x)[i];
    case MICA_F32:
    case MICA_U32: return ((const uint32_t *)x)[i];
    case MICA_I8: return (uint64_t)((const int8_t *)x)[i];
    case MICA_I16: return (uint64_t)((const int16_t *)x)[i];
    case MICA_I32: return (uint64_t)((const int32_t *)x)[i];
    default: return ((const uint64_t *)x)[i];
    }
}

/** The low bits of v as an element of an integer type (or of bool: v != 0). */
static inline void mica_cpu_store_bits(mica_dtype t, void *y, size_t i, uint64_t v) {
    switch (mica_dtype_size(t)) {
    case 1: ((uint8_t *)y)[i] = t == MICA_BOOL ? v != 0 : (uint8_t)v; break;
    case 2: ((uint16_t *)y)[i] = (uint16_t)v; break;
    case 4: ((uint32_t *)y)[i] = (uint32_t)v; break;
    default: ((uint64_t *)y)[i] = v; break;
    }
}
#endif
