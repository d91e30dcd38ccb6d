// SPDX-License-Identifier: Apache-2.0
// Cases of elementwise ops: one, two or three inputs, comparisons, conversions.
#ifndef MICA_TESTS_OPS_ELEMENTWISE_H
#define MICA_TESTS_OPS_ELEMENTWISE_H

#include "ops/testing.h"

// Integers wrap; floats are left for the comparison to round.
static inline double oracle_value(mica_dtype t, double x) { return mica_dtype_is_float(t) ? x : round_to(t, x); }

// ---- one input ----
typedef mica_array *unary_op(mica_scope *s, mica_array *a);
typedef struct unary_case {
    const char *name;
    unary_op *op;
    double (*oracle)(double);
    double low, high;
    int kinds;
} unary_case;

static void check_unary(rig *r, const unary_case *c) {
    EACH_DTYPE(t, c->kinds) EACH(k, shapes) EACH_LAYOUT(how) if (is_worth(t, &shapes[k])) {
        value a = randoms(r, t, shapes[k].ndim, shapes[k].n, c->low, c->high);
        if (a.size == 11) put_specials(&a);
        mica_array *x = put(r, &a, how);
        value want = blank(r, t, a.ndim, a.shape);
        for (size_t i = 0; wants_oracle(r) && i < a.size; i++) want.x[i] = oracle_value(t, c->oracle(a.x[i]));
        expect(r, c->op(r->s, x), &want);
    }
    EACH_DTYPE(t, ~c->kinds) {
        value a = randoms(r, t, 1, (int64_t[]){3}, 0, 5);
        expect_refusal(r, c->op(r->s, put(r, &a, DENSE)), c->name);
    }
}

#define UNARY(name, low, high, kinds, expression)                                                             \
    static double one_##name(double a) { return expression; }                                                 \
    static void case_##name(rig *r) {                                                                         \
        check_unary(r, &(unary_case){#name, mica_##name, one_##name, low, high, kinds});                      \
    }
UNARY(neg, -100, 100, NUMBERS, -a)
UNARY(exp, -8, 8, FLOATS, exp(a))
UNARY(log, 0.01, 100, FLOATS, log(a))
UNARY(sigmoid, -9, 9, FLOATS, 1 / (1 + exp(-a)))
UNARY(silu, -9, 9, FLOATS, a == -(double)INFINITY ? 0 : a / (1 + exp(-a)))
UNARY(tanh, -4, 4, FLOATS, tanh(a))
UNARY(gelu, -4, 4, FLOATS, a == -(double)INFINITY ? 0 : 0.5 * a * erfc(-a * 0.70710678118654752440))
UNARY(gelu_tanh, -4, 4, FLOATS, a == -(double)INFINITY ? 0 : a / (1 + exp(-2 * 0.79788456080286535588 * (a + 0.044715 * a * a * a))))
UNARY(relu, -5, 5, FLOATS, a <= 0 ? 0 : a)
UNARY(sqrt, 0, 100, FLOATS, sqrt(a))
UNARY(rsqrt, 0.01, 100, FLOATS, 1 / sqrt(a))
UNARY(reciprocal, 0.1, 50, FLOATS, 1 / a)
UNARY(square, -11, 11, NUMBERS, a * a)
UNARY(abs, -100, 100, NUMBERS, fabs(a))
UNARY(sin, -20, 20, FLOATS, sin(a))
UNARY(cos, -20, 20, FLOATS, cos(a))
UNARY(erf, -3, 3, FLOATS, erf(a))
UNARY(logical_not, 0, 1, BOOLS, a == 0)

// ---- two inputs ----
typedef mica_array *binary_op(mica_scope *s, mica_array *a, mica_array *b);
typedef struct binary_case {
    const char *name;
    binary_op *op;
    double (*oracle)(double, double);
    double low[2], high[2];
    int kinds;
    bool compares;
} binary_case;

// The broadcast result's shape; sizes agree or are 1.
static inline shape broadcast(const value *a, const value *b) {
    shape s = {.ndim = MICA_MAX(a->ndim, b->ndim)};
    for (int i = 0; i < s.ndim; i++) {
        int p = i - s.ndim + a->ndim, q = i - s.ndim + b->ndim;
        int64_t m = p < 0 ? 1 : a->shape[p], n = q < 0 ? 1 : b->shape[q];
        s.n[i] = m == 1 ? n : m;
    }
    return s;
}

static void check_pair(rig *r, const binary_case *c, value *a, value *b, layout how_a, layout how_b) {
    mica_array *x = put(r, a, how_a), *y = put(r, b, how_b);
    shape s = broadcast(a, b);
    value want = blank(r, c->compares ? MICA_BOOL : a->dtype, s.ndim, s.n);
    int64_t index[MICA_MAX_DIMS] = {0};
    for (size_t i = 0; wants_oracle(r) && i < want.size; i++, next_index(&want, index))
        want.x[i] = oracle_value(want.dtype, c->oracle(a->x[at(a, s.ndim, index)], b->x[at(b, s.ndim, index)]));
    expect(r, c->op(r->s, x, y), &want);
}

static const struct { shape a, b; } pairs[] = {
    {{3, {2, 3, 5}}, {1, {5}}}, {{2, {4, 1}}, {2, {1, 3}}}, {{0, {0}}, {1, {3}}}, {{3, {2, 1, 3}}, {2, {5, 1}}}, {{1, {0}}, {1, {1}}},
};

static void check_binary(rig *r, const binary_case *c) {
    EACH_DTYPE(t, c->kinds) {
        EACH(k, shapes) EACH_LAYOUT(how) if (is_worth(t, &shapes[k])) {
            value a = randoms(r, t, shapes[k].ndim, shapes[k].n, c->low[0], c->high[0]);
            value b = randoms(r, t, shapes[k].ndim, shapes[k].n, c->low[1], c->high[1]);
            if (a.size == 11) put_specials(&a);
            if (b.size == 11) for (size_t i = 0; i < 6; i++) b.x[i + 3] = a.x[i];
            check_pair(r, c, &a, &b, how, (layout)((how * 2 + 1) % LAYOUTS));
        }
        EACH(k, pairs) {
            value a = randoms(r, t, pairs[k].a.ndim, pairs[k].a.n, c->low[0], c->high[0]);
            value b = randoms(r, t, pairs[k].b.ndim, pairs[k].b.n, c->low[1], c->high[1]);
            check_pair(r, c, &a, &b, DENSE, TRANSPOSED);
        }
    }
    EACH_DTYPE(t, ~c->kinds) {
        value a = randoms(r, t, 1, (int64_t[]){3}, 0, 5);
        expect_refusal(r, c->op(r->s, put(r, &a, DENSE), put(r, &a, DENSE)), c->name);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5), b = randoms(r, MICA_F32, 1, (int64_t[]){4}, 0, 5);
    expect_refusal(r, c->op(r->s, put(r, &a, DENSE), put(r, &b, DENSE)), c->name); // shapes
    a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5), b = randoms(r, MICA_F16, 1, (int64_t[]){3}, 0, 5);
    expect_refusal(r, c->op(r->s, put(r, &a, DENSE), put(r, &b, DENSE)), c->name); // types
}

#define PAIR(name, low_a, high_a, low_b, high_b, kinds, compares, expression)                                          \
    static double two_##name(double a, double b) { return expression; }                                                \
    static void case_##name(rig *r) {                                                                                  \
        check_binary(r, &(binary_case){#name, mica_##name, two_##name, {low_a, low_b}, {high_a, high_b}, kinds, compares}); \
    }
#define BINARY(name, low, high, kinds, expression) PAIR(name, low, high, low, high, kinds, false, expression)
#define COMPARE(name, kinds, expression) PAIR(name, -3, 3, -3, 3, kinds, true, expression)
#define IS_NAN(a, b) (isnan(a) || isnan(b))
BINARY(add, -100, 100, NUMBERS, a + b)
BINARY(sub, -100, 100, NUMBERS, a - b)
BINARY(mul, -100, 100, NUMBERS, a * b)
PAIR(div, -100, 100, 1, 20, FLOATS, false, a / b)
PAIR(power, 0.1, 4, -3, 3, FLOATS, false, pow(a, b))
BINARY(maximum, -100, 100, NUMBERS, IS_NAN(a, b) ? (double)NAN : fmax(a, b))
BINARY(minimum, -100, 100, NUMBERS, IS_NAN(a, b) ? (double)NAN : fmin(a, b))
BINARY(swiglu, -5, 5, FLOATS, one_silu(a) * b)
BINARY(geglu, -5, 5, FLOATS, one_gelu_tanh(a) * b)
COMPARE(equal, ANYTHING, a == b)
COMPARE(not_equal, ANYTHING, a != b)
COMPARE(less, ANYTHING, a < b)
COMPARE(less_equal, ANYTHING, a <= b)
COMPARE(greater, ANYTHING, a > b)
COMPARE(greater_equal, ANYTHING, a >= b)
COMPARE(logical_and, BOOLS, a != 0 && b != 0)
COMPARE(logical_or, BOOLS, a != 0 || b != 0)
#undef UNARY
#undef PAIR
#undef BINARY
#undef COMPARE

// ---- three ----
static void case_where(rig *r) {
    EACH_DTYPE(t, ANYTHING) EACH(k, shapes) EACH_LAYOUT(how) if (is_worth(t, &shapes[k])) {
        const shape *s = &shapes[k];
        value c = randoms(r, MICA_BOOL, s->ndim, s->n, 0, 1), a = randoms(r, t, s->ndim, s->n, -9, 9), b = randoms(r, t, 0, NULL, 1, 9);
        mica_array *x[] = {put(r, &c, how), put(r, &a, (layout)((how + 1) % LAYOUTS)), put(r, &b, DENSE)};
        value want = blank(r, t, s->ndim, s->n);
        for (size_t i = 0; wants_oracle(r) && i < want.size; i++) want.x[i] = c.x[i] != 0 ? a.x[i] : b.x[0];
        expect(r, mica_where(r->s, x[0], x[1], x[2]), &want);
    }
    value c = randoms(r, MICA_I32, 1, (int64_t[]){3}, 0, 1);
    expect_refusal(r, mica_where(r->s, put(r, &c, DENSE), put(r, &c, DENSE), put(r, &c, DENSE)), "where");
}

// ---- layout and type ----
static void case_contiguous(rig *r) {
    EACH_DTYPE(t, ANYTHING) EACH(k, shapes) EACH_LAYOUT(how) if (is_worth(t, &shapes[k])) {
        value a = randoms(r, t, shapes[k].ndim, shapes[k].n, -50, 50);
        mica_array *x = mica_contiguous(r->s, put(r, &a, how));
        recorded(r, x);
        assert_true(mica_is_contiguous(x));
        expect(r, x, &a);
    }
}

// Floats to integers: towards zero, saturated, NaN = 0. Integers: modulo. To bool: not zero.
static double converted(mica_dtype from, mica_dtype to, double x) {
    if (mica_dtype_is_float(to)) return x;
    if (to == MICA_BOOL || !mica_dtype_is_float(from)) return round_to(to, x);
    if (isnan(x)) return 0;
    double span = ldexp(1, 8 * (int)mica_dtype_size(to)), low = is_unsigned(to) ? 0 : -span / 2, high = low + span - 1;
    return fmin(fmax(trunc(x), low), high);
}

static void case_astype(rig *r) {
    EACH_DTYPE(from, ANYTHING) EACH_DTYPE(to, ANYTHING) EACH(k, shapes) if (is_worth(from, &shapes[k]) && is_worth(to, &shapes[k])) {
        value a = randoms(r, from, shapes[k].ndim, shapes[k].n, -300, 300);
        if (a.size == 11) put_specials(&a);
        mica_array *x = put(r, &a, (layout)((k + from + to) % LAYOUTS));
        value want = blank(r, to, a.ndim, a.shape);
        for (size_t i = 0; wants_oracle(r) && i < a.size; i++) want.x[i] = converted(from, to, a.x[i]);
        expect(r, mica_astype(r->s, x, to), &want);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    expect_refusal(r, mica_astype(r->s, put(r, &a, DENSE), (mica_dtype)99), "astype");
}
#endif
