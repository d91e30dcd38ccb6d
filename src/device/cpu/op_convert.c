// SPDX-License-Identifier: Apache-2.0
// astype (any type to any other) and contiguous (a strided view copied into row-major order).
// Rules of astype: to a float, one rounding to nearest even; float to integer, towards zero, saturated, NaN = 0;
// integer to integer, modulo 2^bits; to bool, x != 0 (NaN is true). Rows of f32, f16 and bf16 use the raw
// kernels; the rest passes through a small buffer of f64 or 64-bit integers, which hold every source value exactly.
#include "base/half.h"
#include "device/cpu/rows_kernels.h"
#include "device/cpu/walk.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum { CHUNK = 128 };

typedef struct conversion {
    const mica_cpu_rows_isa *isa;
    mica_dtype from, to;
} conversion;

// Nearest f32 that still rounds correctly to a shorter type: inexact results get an odd last bit ("round to odd").
static float narrow(double x) {
    float f = (float)x;
    if ((double)f == x || isnan(f) || isinf(x)) return f;
    uint32_t u = mica_f32_bits(f);
    if (fabs((double)f) > fabs(x)) u--; // towards zero
    return mica_f32_from_bits(u | 1u);
}

static int64_t to_i64(double x) {
    if (isnan(x)) return 0;
    return x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : (int64_t)x;
}
static uint64_t to_u64(double x) { return !(x > 0) ? 0 : x >= 0x1p64 ? UINT64_MAX : (uint64_t)x; }
static double clamp(double x, double lo, double hi) { return isnan(x) ? 0 : x < lo ? lo : x > hi ? hi : x; }

#define EACH(expression)                                                                                               \
    for (size_t i = 0; i < n; i++) (expression)
#define AT(T, p) (((T *)(p))[i])
#define IN(T) (((const T *)x)[i])

// Widens n elements into b: f64 for floats (true), else 64-bit integers, sign- or zero-extended (false).
static bool widen(mica_dtype from, const void *x, size_t n, void *b) {
    switch (from) {
    case MICA_F32: EACH(AT(double, b) = (double)IN(float)); return true;
    case MICA_F16: EACH(AT(double, b) = (double)mica_f16_to_f32(IN(uint16_t))); return true;
    case MICA_BF16: EACH(AT(double, b) = (double)mica_bf16_to_f32(IN(uint16_t))); return true;
    case MICA_F64: EACH(AT(double, b) = IN(double)); return true;
    case MICA_BOOL: EACH(AT(uint64_t, b) = IN(uint8_t) != 0); return false;
    case MICA_U8: EACH(AT(uint64_t, b) = IN(uint8_t)); return false;
    case MICA_U16: EACH(AT(uint64_t, b) = IN(uint16_t)); return false;
    case MICA_U32: EACH(AT(uint64_t, b) = IN(uint32_t)); return false;
    case MICA_U64: EACH(AT(uint64_t, b) = IN(uint64_t)); return false;
    case MICA_I8: EACH(AT(int64_t, b) = IN(int8_t)); return false;
    case MICA_I16: EACH(AT(int64_t, b) = IN(int16_t)); return false;
    case MICA_I32: EACH(AT(int64_t, b) = IN(int32_t)); return false;
    default: EACH(AT(int64_t, b) = IN(int64_t)); return false;
    }
}

static void from_f64(mica_dtype to, void *y, const double *x, size_t n) {
    switch (to) {
    case MICA_F32: EACH(AT(float, y) = (float)x[i]); break;
    case MICA_F16: EACH(AT(uint16_t, y) = mica_f32_to_f16(narrow(x[i]))); break;
    case MICA_BF16: EACH(AT(uint16_t, y) = mica_f32_to_bf16(narrow(x[i]))); break;
    case MICA_F64: EACH(AT(double, y) = x[i]); break;
    case MICA_BOOL: EACH(AT(uint8_t, y) = x[i] != 0); break;
    case MICA_U8: EACH(AT(uint8_t, y) = (uint8_t)clamp(x[i], 0, UINT8_MAX)); break;
    case MICA_U16: EACH(AT(uint16_t, y) = (uint16_t)clamp(x[i], 0, UINT16_MAX)); break;
    case MICA_U32: EACH(AT(uint32_t, y) = (uint32_t)clamp(x[i], 0, UINT32_MAX)); break;
    case MICA_U64: EACH(AT(uint64_t, y) = to_u64(x[i])); break;
    case MICA_I8: EACH(AT(int8_t, y) = (int8_t)clamp(x[i], INT8_MIN, INT8_MAX)); break;
    case MICA_I16: EACH(AT(int16_t, y) = (int16_t)clamp(x[i], INT16_MIN, INT16_MAX)); break;
    case MICA_I32: EACH(AT(int32_t, y) = (int32_t)clamp(x[i], INT32_MIN, INT32_MAX)); break;
    default: EACH(AT(int64_t, y) = to_i64(x[i])); break;
    }
}

// An integer as f32 with the same result as through f64 and `narrow`: above 2^53 f64 itself must not round to nearest.
static float narrow_int(int64_t v, bool is_unsigned) {
    uint64_t u = (uint64_t)v, magnitude = !is_unsigned && v < 0 ? 0 - u : u;
    if (magnitude >> 53) magnitude = (magnitude & ~(uint64_t)0x7FF) | ((magnitude & 0x7FF) != 0 ? 0x800 : 0);
    double d = (double)magnitude;
    return narrow(!is_unsigned && v < 0 ? -d : d);
}

static void from_ints(mica_dtype to, void *y, const int64_t *x, size_t n, bool is_unsigned) {
    switch (to) {
    case MICA_F32: EACH(AT(float, y) = is_unsigned ? (float)(uint64_t)x[i] : (float)x[i]); break;
    case MICA_F16: EACH(AT(uint16_t, y) = mica_f32_to_f16(narrow_int(x[i], is_unsigned))); break;
    case MICA_BF16: EACH(AT(uint16_t, y) = mica_f32_to_bf16(narrow_int(x[i], is_unsigned))); break;
    case MICA_F64: EACH(AT(double, y) = is_unsigned ? (double)(uint64_t)x[i] : (double)x[i]); break;
    case MICA_BOOL: EACH(AT(uint8_t, y) = x[i] != 0); break;
    case MICA_U8:
    case MICA_I8: EACH(AT(uint8_t, y) = (uint8_t)x[i]); break;
    case MICA_U16:
    case MICA_I16: EACH(AT(uint16_t, y) = (uint16_t)x[i]); break;
    case MICA_U32:
    case MICA_I32: EACH(AT(uint32_t, y) = (uint32_t)x[i]); break;
    default: EACH(AT(uint64_t, y) = (uint64_t)x[i]); break;
    }
}

static void convert_chunk(const conversion *k, void *y, const void *x, size_t n) {
    union {
        double f[CHUNK];
        int64_t i[CHUNK];
        float s[CHUNK];
    } b;
    if (mica_cpu_is_short(k->from) && mica_cpu_is_short(k->to)) {
        k->isa->to_f32[k->from](b.s, x, n);
        k->isa->from_f32[k->to](y, b.s, n);
    } else if (widen(k->from, x, n, &b))
        from_f64(k->to, y, b.f, n);
    else
        from_ints(k->to, y, b.i, n, k->from >= MICA_BOOL && k->from <= MICA_U64);
}

static void convert_row(void *ctx, void *y, const void *const *x, size_t n, size_t row) {
    (void)row;
    const conversion *k = ctx;
    size_t from = mica_dtype_size(k->from), to = mica_dtype_size(k->to);
    if (k->from == k->to)
        memcpy(y, x[0], n * to);
    else if (k->from == MICA_F32 && mica_cpu_is_short(k->to))
        k->isa->from_f32[k->to](y, x[0], n);
    else if (k->to == MICA_F32 && mica_cpu_is_short(k->from))
        k->isa->to_f32[k->from](y, x[0], n);
    else
        for (size_t i = 0; i < n; i += CHUNK)
            convert_chunk(k, (unsigned char *)y + i * to, (const unsigned char *)x[0] + i * from,
                          MICA_MIN(n - i, (size_t)CHUNK));
}

void mica_cpu_astype(const mica_call *c) {
    conversion k = {.isa = &mica_cpu_isa_of(c)->rows, .from = c->in[0].dtype, .to = c->out.dtype};
    mica_walk_elements(c, 1, c->scratch, convert_row, &k);
}

size_t mica_cpu_astype_scratch(const mica_call *c) { return mica_walk_scratch(c, 1); }

// ---- contiguous ----
static void copy_row(void *ctx, void *y, const void *const *x, size_t n, size_t row) {
    (void)row;
    memcpy(y, x[0], n * *(const size_t *)ctx);
}

// Rows whose elements lie apart go straight to their place.
static void copy_gaps(void *ctx, size_t first, size_t end, size_t thread) {
    (void)thread;
    const mica_call *c = ctx;
    const mica_tensor *t = &c->in[0];
    size_t n = (size_t)t->shape[t->ndim - 1], size = mica_dtype_size(t->dtype);
    for (size_t row = first; row < end; row++)
        mica_walk_gather(c->out.data + row * n * size, t->data + mica_walk_offset(t, 1, row),
                         (ptrdiff_t)t->stride[t->ndim - 1], n, size);
}

void mica_cpu_contiguous(const mica_call *c) {
    const mica_tensor *t = &c->in[0];
    assert(t->dtype == c->out.dtype);
    size_t size = mica_dtype_size(t->dtype), count = mica_walk_count(t);
    if (!count) return;
    if (!mica_walk_scratch(c, 1)) {
        mica_walk_elements(c, 1, NULL, copy_row, &size);
        return;
    }
    enum { TASK = 16384 };
    size_t n = (size_t)t->shape[t->ndim - 1];
    mica_call call = *c;
    mica_walk_range(c, count / n, TASK / n, copy_gaps, &call);
}
