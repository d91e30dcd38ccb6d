// SPDX-License-Identifier: Apache-2.0
// Elementwise ops without a row kernel of their own: arithmetic, comparisons, logic and where, for every type.
// The functions are plain loops over contiguous elements, instantiated per type from the three templates map_*.h; f16
// and bf16 compute in f32. add, sub, mul and div of floats use the raw kernels of the CPU's level.
#include "device/cpu/map.h"
#include <assert.h>
#include <math.h>

// Element i of the output depends on element i of the inputs only, even where they share memory.
#if defined(__clang__)
#define MICA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define MICA_INDEPENDENT _Pragma("GCC ivdep")
#endif

#define T float
#define F(g) g##f
#define NAME(f) f##_f32
#include "device/cpu/map_floats.h"
#define T double
#define F(g) g
#define ARITHMETIC
#define NAME(f) f##_f64
#include "device/cpu/map_floats.h"

#define T uint8_t
#define IS_SIGNED 0
#define NAME(f) f##_u8
#include "device/cpu/map_ints.h"
#define T uint16_t
#define IS_SIGNED 0
#define NAME(f) f##_u16
#include "device/cpu/map_ints.h"
#define T uint32_t
#define IS_SIGNED 0
#define NAME(f) f##_u32
#include "device/cpu/map_ints.h"
#define T uint64_t
#define IS_SIGNED 0
#define NAME(f) f##_u64
#include "device/cpu/map_ints.h"
#define T int8_t
#define IS_SIGNED 1
#define NAME(f) f##_i8
#include "device/cpu/map_ints.h"
#define T int16_t
#define IS_SIGNED 1
#define NAME(f) f##_i16
#include "device/cpu/map_ints.h"
#define T int32_t
#define IS_SIGNED 1
#define NAME(f) f##_i32
#include "device/cpu/map_ints.h"
#define T int64_t
#define IS_SIGNED 1
#define NAME(f) f##_i64
#include "device/cpu/map_ints.h"

#define T float
#define NAME(f) f##_f32
#include "device/cpu/map_any.h"
#define T double
#define NAME(f) f##_f64
#include "device/cpu/map_any.h"
#define T uint8_t
#define NAME(f) f##_u8
#include "device/cpu/map_any.h"
#define T uint16_t
#define NAME(f) f##_u16
#include "device/cpu/map_any.h"
#define T uint32_t
#define NAME(f) f##_u32
#include "device/cpu/map_any.h"
#define T uint64_t
#define NAME(f) f##_u64
#include "device/cpu/map_any.h"
#define T int8_t
#define NAME(f) f##_i8
#include "device/cpu/map_any.h"
#define T int16_t
#define NAME(f) f##_i16
#include "device/cpu/map_any.h"
#define T int32_t
#define NAME(f) f##_i32
#include "device/cpu/map_any.h"
#define T int64_t
#define NAME(f) f##_i64
#include "device/cpu/map_any.h"

// ---- tables by type: halves use the f32 instance; bool that of u8 where the op has one ----
#define FLOATS(f) [MICA_F32] = f##_f32, [MICA_F16] = f##_f32, [MICA_BF16] = f##_f32, [MICA_F64] = f##_f64
#define INTS(f)                                                                                            \
    [MICA_U8] = f##_u8, [MICA_U16] = f##_u16, [MICA_U32] = f##_u32, [MICA_U64] = f##_u64, [MICA_I8] = f##_i8, \
    [MICA_I16] = f##_i16, [MICA_I32] = f##_i32, [MICA_I64] = f##_i64
#define BOOLEAN(f) [MICA_BOOL] = f##_u8

static void logical_not_u8(void *y, const void *x, size_t n) {
    const uint8_t *a = x;
    uint8_t *o = y;
    for (size_t i = 0; i < n; i++) o[i] = !a[i];
}
static void logical_and_u8(void *y, const void *x, const void *z, size_t n) {
    const uint8_t *a = x, *b = z;
    uint8_t *o = y;
    for (size_t i = 0; i < n; i++) o[i] = a[i] && b[i];
}
static void logical_or_u8(void *y, const void *x, const void *z, size_t n) {
    const uint8_t *a = x, *b = z;
    uint8_t *o = y;
    for (size_t i = 0; i < n; i++) o[i] = a[i] || b[i];
}

static void run_unary(const mica_call *c, mica_cpu_unary_fn *const *table, bool costly) {
    mica_cpu_unary_fn *f = table[c->in[0].dtype];
    assert(f);
    mica_cpu_map_run(c, &(mica_cpu_map){.unary = f, .widen = true, .costly = costly});
}

static void run_binary(const mica_call *c, mica_cpu_binary_fn *const *table, bool costly) {
    mica_cpu_binary_fn *f = table[c->in[0].dtype];
    assert(f && c->in[0].dtype == c->in[1].dtype);
    mica_cpu_map_run(c, &(mica_cpu_map){.binary = f, .widen = true, .costly = costly});
}

// f32, f16 and bf16 straight through the level's own kernel.
static void run_arithmetic(const mica_call *c, mica_cpu_binary_fn *const *table, mica_cpu_binary op) {
    mica_dtype t = c->in[0].dtype;
    if (t == MICA_F64 || !mica_dtype_is_float(t)) run_binary(c, table, false);
    else mica_cpu_map_run(c, &(mica_cpu_map){.binary = mica_cpu_isa_of(c)->rows.binary[op][t]});
}

#define UNARY_OP(name, costly, ...)                                            \
    static void run_##name(const mica_call *c) {                               \
        static mica_cpu_unary_fn *const table[MICA_DTYPE_COUNT] = {__VA_ARGS__}; \
        run_unary(c, table, costly);                                           \
    }
#define BINARY_OP(name, costly, ...)                                            \
    static void run_##name(const mica_call *c) {                                \
        static mica_cpu_binary_fn *const table[MICA_DTYPE_COUNT] = {__VA_ARGS__}; \
        run_binary(c, table, costly);                                           \
    }
#define ARITHMETIC_OP(name, op, ...)                                                                     \
    static void run_##name(const mica_call *c) {                                                         \
        static mica_cpu_binary_fn *const table[MICA_DTYPE_COUNT] = {[MICA_F64] = name##_f64, __VA_ARGS__}; \
        run_arithmetic(c, table, op);                                                                    \
    }

UNARY_OP(neg, false, FLOATS(neg), INTS(neg))
UNARY_OP(square, false, FLOATS(square), INTS(square))
UNARY_OP(abs, false, FLOATS(abs), INTS(abs))
UNARY_OP(relu, false, FLOATS(relu))
UNARY_OP(sqrt, false, FLOATS(sqrt))
UNARY_OP(rsqrt, false, FLOATS(rsqrt))
UNARY_OP(reciprocal, false, FLOATS(reciprocal))
UNARY_OP(log, true, FLOATS(log))
UNARY_OP(sin, true, FLOATS(sin))
UNARY_OP(cos, true, FLOATS(cos))
UNARY_OP(erf, true, FLOATS(erf))
UNARY_OP(logical_not, false, BOOLEAN(logical_not))
ARITHMETIC_OP(add, MICA_CPU_ADD, INTS(add))
ARITHMETIC_OP(sub, MICA_CPU_SUB, INTS(sub))
ARITHMETIC_OP(mul, MICA_CPU_MUL, INTS(mul))
ARITHMETIC_OP(div, MICA_CPU_DIV, [MICA_BOOL] = NULL)
BINARY_OP(power, true, FLOATS(power))
BINARY_OP(maximum, false, FLOATS(maximum), INTS(maximum), BOOLEAN(maximum))
BINARY_OP(minimum, false, FLOATS(minimum), INTS(minimum), BOOLEAN(minimum))
BINARY_OP(equal, false, FLOATS(equal), INTS(equal), BOOLEAN(equal))
BINARY_OP(not_equal, false, FLOATS(not_equal), INTS(not_equal), BOOLEAN(not_equal))
BINARY_OP(less, false, FLOATS(less), INTS(less), BOOLEAN(less))
BINARY_OP(less_equal, false, FLOATS(less_equal), INTS(less_equal), BOOLEAN(less_equal))
BINARY_OP(greater, false, FLOATS(greater), INTS(greater), BOOLEAN(greater))
BINARY_OP(greater_equal, false, FLOATS(greater_equal), INTS(greater_equal), BOOLEAN(greater_equal))
BINARY_OP(logical_and, false, BOOLEAN(logical_and))
BINARY_OP(logical_or, false, BOOLEAN(logical_or))

// ---- where: moves elements, whatever they mean ----
#define CHOOSE(T)                                                                              \
    static void choose_##T(void *y, const void *condition, const void *x, const void *z, size_t n) { \
        const uint8_t *k = condition;                                                          \
        const T *a = x, *b = z;                                                                \
        T *o = y;                                                                              \
        for (size_t i = 0; i < n; i++) o[i] = k[i] ? a[i] : b[i];                              \
    }
CHOOSE(uint8_t)
CHOOSE(uint16_t)
CHOOSE(uint32_t)
CHOOSE(uint64_t)

static void run_where(const mica_call *c) {
    size_t item = mica_dtype_size(c->out.dtype);
    mica_cpu_ternary_fn *f = item == 1 ? choose_uint8_t : item == 2 ? choose_uint16_t : item == 4 ? choose_uint32_t : choose_uint64_t;
    assert(c->in[0].dtype == MICA_BOOL && c->in[1].dtype == c->out.dtype && c->in[2].dtype == c->out.dtype);
    mica_cpu_map_run(c, &(mica_cpu_map){.ternary = f});
}

const mica_kernel mica_cpu_map_kernels[] = {
    {"neg", run_neg, NULL}, {"log", run_log, NULL}, {"relu", run_relu, NULL}, {"sqrt", run_sqrt, NULL},
    {"rsqrt", run_rsqrt, NULL}, {"reciprocal", run_reciprocal, NULL}, {"square", run_square, NULL}, {"abs", run_abs, NULL},
    {"sin", run_sin, NULL}, {"cos", run_cos, NULL}, {"erf", run_erf, NULL}, {"logical_not", run_logical_not, NULL},
    {"add", run_add, NULL}, {"sub", run_sub, NULL}, {"mul", run_mul, NULL}, {"div", run_div, NULL},
    {"power", run_power, NULL}, {"maximum", run_maximum, NULL}, {"minimum", run_minimum, NULL},
    {"equal", run_equal, NULL}, {"not_equal", run_not_equal, NULL}, {"less", run_less, NULL},
    {"less_equal", run_less_equal, NULL}, {"greater", run_greater, NULL}, {"greater_equal", run_greater_equal, NULL},
    {"logical_and", run_logical_and, NULL}, {"logical_or", run_logical_or, NULL}, {"where", run_where, NULL},
};
const size_t mica_cpu_map_kernel_count = MICA_COUNT(mica_cpu_map_kernels);
