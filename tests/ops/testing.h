// SPDX-License-Identifier: Apache-2.0
// For the tests of ops: arrays as doubles for the oracles, the same arrays as mica sees them in any type and layout, and
// the comparison of results by one table of tolerances. Each case runs on every level of this CPU with one thread,
// where results are compared with the oracle, and with two to four threads, where they must be equal bit for bit.
#ifndef MICA_TESTS_OPS_TESTING_H
#define MICA_TESTS_OPS_TESTING_H

#include "base/base.h"
#include "base/half.h"
#include "base/rng.h"
#include "engine/node.h"
#include "mica/fast.h"
#include "mica/ops.h"
#include "mica/random.h"
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct value {
    mica_dtype dtype;
    int ndim;
    int64_t shape[MICA_MAX_DIMS];
    size_t size;
    double *x; // logical order, rounded to the type
} value;

/** A device of one level and thread count, and what the cases need on it. */
typedef struct rig {
    mica_device *device;
    mica_scope *s;
    mica_arena arena;
    uint64_t counter;  // of random numbers: equal on every rig at the same point of a case
    int threads;
    uint64_t *log;     // hash of every result of the case
    size_t logged, capacity;
    size_t checks;
} rig;

// ---- types ----
enum { FLOATS = 1, INTS = 2, BOOLS = 4, NUMBERS = FLOATS | INTS, ANYTHING = 7 };

static const struct tolerance { double relative, absolute; } tolerances[MICA_DTYPE_COUNT] = {
    [MICA_F32] = {3e-6, 1e-7}, [MICA_F16] = {5.2e-4, 1e-7}, [MICA_BF16] = {4.1e-3, 1e-9}, [MICA_F64] = {1e-13, 1e-15}, // others exact
};

static inline bool is_kind(mica_dtype t, int kinds) {
    return mica_dtype_is_float(t) ? kinds & FLOATS : t == MICA_BOOL ? kinds & BOOLS : (kinds & INTS) != 0;
}
static inline bool is_unsigned(mica_dtype t) { return t >= MICA_U8 && t <= MICA_U64; }

static inline double round_to(mica_dtype t, double x) {
    int bits = 8 * (int)mica_dtype_size(t);
    switch (t) {
    case MICA_F64: return x;
    case MICA_F32: return (double)(float)x;
    case MICA_F16: return (double)mica_f16_to_f32(mica_f32_to_f16((float)x));
    case MICA_BF16: return (double)mica_bf16_to_f32(mica_f32_to_bf16((float)x));
    case MICA_BOOL: return x != 0;
    default: break;
    }
    if (bits == 64) return is_unsigned(t) && x < 0 ? x + 0x1p64 : x;
    double span = ldexp(1, bits), low = is_unsigned(t) ? 0 : -span / 2;
    return x - span * floor((x - low) / span); // wraps
}

static inline void store(mica_dtype t, void *p, size_t i, double x) {
    switch (t) {
    case MICA_F64: ((double *)p)[i] = x; break;
    case MICA_F32: ((float *)p)[i] = (float)x; break;
    case MICA_F16: ((uint16_t *)p)[i] = mica_f32_to_f16((float)x); break;
    case MICA_BF16: ((uint16_t *)p)[i] = mica_f32_to_bf16((float)x); break;
    case MICA_BOOL:
    case MICA_U8: ((uint8_t *)p)[i] = (uint8_t)x; break;
    case MICA_U16: ((uint16_t *)p)[i] = (uint16_t)x; break;
    case MICA_U32: ((uint32_t *)p)[i] = (uint32_t)x; break;
    case MICA_U64: ((uint64_t *)p)[i] = (uint64_t)x; break;
    case MICA_I8: ((int8_t *)p)[i] = (int8_t)x; break;
    case MICA_I16: ((int16_t *)p)[i] = (int16_t)x; break;
    case MICA_I32: ((int32_t *)p)[i] = (int32_t)x; break;
    default: ((int64_t *)p)[i] = (int64_t)x; break;
    }
}

// ---- values ----
typedef struct shape { int ndim; int64_t n[MICA_MAX_DIMS]; } shape;

static inline void *take_memory(rig *r, size_t bytes) {
    void *p = mica_arena_calloc(&r->arena, bytes);
    assert_non_null(p);
    return p;
}

static inline value blank(rig *r, mica_dtype t, int ndim, const int64_t *n) {
    value v = {.dtype = t, .ndim = ndim, .size = 1};
    for (int i = 0; i < ndim; i++) v.shape[i] = n[i], v.size *= (size_t)n[i];
    v.x = take_memory(r, (v.size + 1) * sizeof *v.x);
    return v;
}

static inline double uniform(rig *r) {
    mica_philox p = mica_philox_at(42, r->counter++);
    return mica_uniform_f64(p.v[0], p.v[1]);
}

/** Random elements: floats in [low, high), integers in [low, high], unsigned ones without the sign. */
static inline value randoms(rig *r, mica_dtype t, int ndim, const int64_t *n, double low, double high) {
    value v = blank(r, t, ndim, n);
    for (size_t i = 0; i < v.size; i++) {
        double u = low + uniform(r) * (high - low);
        if (t == MICA_BOOL) u = uniform(r) < 0.5;
        else if (!mica_dtype_is_float(t)) u = fmin(floor(is_unsigned(t) ? fabs(u) : u), 120);
        v.x[i] = round_to(t, u);
    }
    return v;
}

/** The start of a float array becomes what is special about floats. */
static inline void put_specials(value *v) {
    static const double special[] = {0, -0.0, (double)INFINITY, -(double)INFINITY, (double)NAN, 1, -1, 0.5, 1e-30, -1e-5};
    for (size_t i = 0; mica_dtype_is_float(v->dtype) && i < MICA_COUNT(special) && i < v->size; i++)
        v->x[i] = round_to(v->dtype, special[i]);
}

/** Position in v of the element at index[0 … ndim-1]; a size of 1 stands for any index; leading dimensions may be missing. */
static inline size_t at(const value *v, int ndim, const int64_t *index) {
    size_t p = 0;
    for (int i = 0; i < v->ndim; i++) p = p * (size_t)v->shape[i] + (v->shape[i] == 1 ? 0 : (size_t)index[ndim - v->ndim + i]);
    return p;
}

/** Next index in row-major order; false after the last. */
static inline bool next_index(const value *v, int64_t *index) {
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (++index[i] < v->shape[i]) return true;
        index[i] = 0;
    }
    return false;
}

// ---- layouts ----
typedef enum layout { DENSE, TRANSPOSED, STEPPED, REVERSED, REPEATED, LAYOUTS } layout;

static inline mica_array *from_doubles(rig *r, mica_dtype t, const double *x, size_t size, int ndim, const int64_t *n) {
    unsigned char *data = take_memory(r, (size + 1) * 8);
    for (size_t i = 0; i < size; i++) store(t, data, i, x[i]);
    return mica_from_data(r->s, data, ndim, n, t);
}

static inline mica_array *put_dense(rig *r, const value *v) { return from_doubles(r, v->dtype, v->x, v->size, v->ndim, v->shape); }

// The elements lie in the order of reversed axes.
static inline mica_array *put_transposed(rig *r, const value *v) {
    value t = blank(r, v->dtype, v->ndim, v->shape);
    for (int i = 0; i < v->ndim; i++) t.shape[i] = v->shape[v->ndim - 1 - i];
    int64_t index[MICA_MAX_DIMS] = {0}, swapped[MICA_MAX_DIMS] = {0};
    for (size_t i = 0; i < v->size; i++, next_index(v, index)) {
        for (int d = 0; d < v->ndim; d++) swapped[d] = index[v->ndim - 1 - d];
        t.x[at(&t, t.ndim, swapped)] = v->x[i];
    }
    return mica_transpose(r->s, put_dense(r, &t), NULL);
}

// Every other element of a larger array of other values; or, backwards, every element.
static inline mica_array *put_stepped(rig *r, const value *v, int64_t step) {
    int64_t big[MICA_MAX_DIMS], start[MICA_MAX_DIMS], stop[MICA_MAX_DIMS], steps[MICA_MAX_DIMS];
    for (int d = 0; d < v->ndim; d++) {
        big[d] = step > 0 ? 2 * v->shape[d] + 1 : v->shape[d];
        start[d] = step > 0 ? 1 : v->shape[d] - 1;
        stop[d] = step > 0 ? big[d] : -v->shape[d] - 1;
        steps[d] = step;
    }
    value b = blank(r, v->dtype, v->ndim, big);
    for (size_t i = 0; i < b.size; i++) b.x[i] = round_to(v->dtype, 77);
    int64_t index[MICA_MAX_DIMS] = {0}, there[MICA_MAX_DIMS] = {0};
    for (size_t i = 0; i < v->size; i++, next_index(v, index)) {
        for (int d = 0; d < v->ndim; d++) there[d] = start[d] + index[d] * step;
        b.x[at(&b, b.ndim, there)] = v->x[i];
    }
    return mica_slice(r->s, put_dense(r, &b), start, stop, steps);
}

// One row seen many times; the value is changed to be that.
static inline mica_array *put_repeated(rig *r, value *v) {
    if (!v->ndim || !v->size) return put_dense(r, v);
    size_t row = v->size / (size_t)v->shape[0];
    for (size_t i = row; i < v->size; i++) v->x[i] = v->x[i - row];
    int64_t one[MICA_MAX_DIMS];
    memcpy(one, v->shape, sizeof one);
    one[0] = 1;
    return mica_broadcast_to(r->s, from_doubles(r, v->dtype, v->x, row, v->ndim, one), v->ndim, v->shape);
}

static inline mica_array *put(rig *r, value *v, layout how) {
    switch (how) {
    case TRANSPOSED: return put_transposed(r, v);
    case STEPPED: return put_stepped(r, v, 2);
    case REVERSED: return put_stepped(r, v, -1);
    case REPEATED: return put_repeated(r, v);
    default: return put_dense(r, v);
    }
}

// ---- results ----
static inline void log_result(rig *r, mica_array *a) {
    size_t bytes = mica_nbytes(a);
    void *data = take_memory(r, bytes + 1);
    mica_error err = {0};
    if (!mica_read_bytes(a, data, bytes, &err)) fail_msg("%s", err.msg);
    assert_true(mica_grow(&r->log, &r->capacity, r->logged + 1, sizeof *r->log));
    r->log[r->logged++] = mica_hash(data, bytes, (uint64_t)mica_array_dtype(a));
}

static inline void recorded(rig *r, const mica_array *a) {
    mica_error err = {0};
    if (!a) mica_scope_error(r->s, &err);
    if (!a) fail_msg("no array: %s", err.msg);
}

static inline bool is_near(double got, double want, mica_dtype t, double slack) {
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
    if (got == want || got == round_to(t, want)) return true;
    if (isinf(want) || isinf(got)) return false;
    return fabs(got - want) <= tolerances[t].relative * fabs(want) + tolerances[t].absolute + slack;
}

static inline void check_shape(const mica_array *a, const value *want) {
    assert_int_equal(mica_array_dtype(a), want->dtype);
    assert_int_equal(mica_ndim(a), want->ndim);
    for (int i = 0; i < want->ndim; i++) assert_int_equal(mica_dim(a, i), want->shape[i]);
}

/** The array must be `want`, within the type's tolerance and `slack` (absolute; for sums, of their terms). The scope is reset. */
static inline void expect_near(rig *r, mica_array *a, const value *want, double slack) {
    recorded(r, a);
    check_shape(a, want);
    log_result(r, a);
    if (r->threads == 1) {
        double *got = take_memory(r, (want->size + 1) * sizeof *got);
        assert_true(mica_read_f64(a, got, want->size, NULL));
        for (size_t i = 0; i < want->size; i++)
            if (!is_near(got[i], want->x[i], want->dtype, slack))
                fail_msg("%s, level %s: element %zu of %zu is %.17g, not %.17g", mica_dtype_name(want->dtype),
                         mica_device_level(r->device), i, want->size, got[i], want->x[i]);
        r->checks++;
    }
    mica_scope_reset(r->s);
    mica_arena_reset(&r->arena);
}
static inline void expect(rig *r, mica_array *a, const value *want) { expect_near(r, a, want, 0); }

/** The op must have been refused, with an error that names it. The scope is reset. */
static inline void expect_refusal(rig *r, const mica_array *a, const char *op) {
    mica_error err = {0};
    assert_null(a);
    assert_true(mica_scope_error(r->s, &err));
    if (!strstr(err.msg, op)) fail_msg("the error does not name %s: %s", op, err.msg);
    mica_scope_reset(r->s);
    mica_arena_reset(&r->arena);
}

/** Results of more threads are compared with those of one: no need to compute what they should be. */
static inline bool wants_oracle(const rig *r) { return r->threads == 1; }
/** The one large shape is not worth its time for every integer type. */
static inline bool is_worth(mica_dtype t, const shape *s) {
    return mica_dtype_is_float(t) || t == MICA_I32 || t == MICA_U8 || s->ndim == 0 || s->n[0] < 100;
}

#define EACH_DTYPE(t, kinds) \
    for (mica_dtype t = 0; t < MICA_DTYPE_COUNT; t++) \
        if (is_kind(t, kinds))
#define EACH_LAYOUT(how) for (layout how = 0; how < LAYOUTS; how++)
#define EACH(item, list) for (size_t item = 0; item < MICA_COUNT(list); item++)

static const shape shapes[] = {{0, {0}},       {1, {1}},       {1, {0}},          {1, {11}},
                               {3, {3, 0, 2}}, {3, {2, 3, 5}}, {4, {5, 1, 4, 3}}, {2, {131, 257}}};
#endif
