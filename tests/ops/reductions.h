// SPDX-License-Identifier: Apache-2.0
// Cases of reductions and of ops along one axis.
#ifndef MICA_TESTS_OPS_REDUCTIONS_H
#define MICA_TESTS_OPS_REDUCTIONS_H

#include "ops/testing.h"

// ---- over several axes ----
typedef mica_array *reduce_op(mica_scope *s, mica_array *a, const int *axes, int count, bool keepdims);
typedef enum fold { SUM, MEAN, MAX, MIN } fold;

static double folded(fold f, double total, double x) {
    if (f == SUM || f == MEAN) return total + x;
    if (isnan(total) || isnan(x)) return (double)NAN;
    return f == MAX ? fmax(total, x) : fmin(total, x);
}

// The result's shape with every axis kept (1 where reduced), and without those.
static void reduced_shapes(const value *a, unsigned set, shape *kept, shape *dropped) {
    *kept = (shape){.ndim = a->ndim}, *dropped = (shape){0};
    for (int i = 0; i < a->ndim; i++) {
        kept->n[i] = set >> i & 1 ? 1 : a->shape[i];
        if (!(set >> i & 1)) dropped->n[dropped->ndim++] = a->shape[i];
    }
}

static value fold_oracle(rig *r, const value *a, fold f, unsigned set, double *slack) {
    shape kept, dropped;
    reduced_shapes(a, set, &kept, &dropped);
    value want = blank(r, a->dtype, kept.ndim, kept.n), sizes = blank(r, MICA_F64, kept.ndim, kept.n);
    for (size_t i = 0; i < want.size; i++) want.x[i] = f == MAX ? -(double)INFINITY : f == MIN ? (double)INFINITY : 0;
    int64_t index[MICA_MAX_DIMS] = {0};
    for (size_t i = 0; wants_oracle(r) && i < a->size; i++, next_index(a, index)) {
        double *w = &want.x[at(&want, a->ndim, index)];
        *w = folded(f, *w, a->x[i]);
        sizes.x[at(&want, a->ndim, index)] += fabs(a->x[i]);
    }
    double n = want.size ? (double)a->size / (double)want.size : 1, most = 0;
    for (size_t i = 0; i < want.size; i++) {
        if (f == MEAN) want.x[i] /= n, sizes.x[i] /= n;
        if (!mica_dtype_is_float(a->dtype)) want.x[i] = round_to(a->dtype, want.x[i]);
        if (isfinite(sizes.x[i])) most = fmax(most, sizes.x[i]);
    }
    *slack = f == SUM || f == MEAN ? most * (a->dtype == MICA_F64 ? 1e-15 : 2e-7) : 0;
    return want;
}

static void check_fold(rig *r, reduce_op *op, fold f, value *a, layout how, unsigned set, bool keepdims) {
    mica_array *x = put(r, a, how);
    int axes[MICA_MAX_DIMS], count = 0;
    for (int i = 0; i < a->ndim; i++)
        if (set >> i & 1) axes[count++] = i % 2 ? i - a->ndim : i; // some counted from the end
    double slack;
    value want = fold_oracle(r, a, f, set, &slack);
    shape kept, dropped;
    reduced_shapes(a, set, &kept, &dropped);
    if (!keepdims) {
        want.ndim = dropped.ndim;
        memcpy(want.shape, dropped.n, sizeof want.shape);
    }
    expect_near(r, op(r->s, x, axes, count, keepdims), &want, slack);
}

static bool is_empty_fold(const value *a, unsigned set) {
    shape kept, dropped;
    reduced_shapes(a, set, &kept, &dropped);
    int64_t left = 1;
    for (int i = 0; i < dropped.ndim; i++) left *= dropped.n[i];
    return a->size == 0 && left > 0;
}

static void check_reduce(rig *r, const char *name, reduce_op *op, fold f, int kinds) {
    static const shape more[] = {{1, {200001}}, {2, {2, 66000}}, {2, {66000, 2}}, {2, {700, 40}}, {3, {2, 600, 17}}};
    EACH_DTYPE(t, kinds) {
        EACH(k, shapes) EACH_LAYOUT(how) if (is_worth(t, &shapes[k])) for (unsigned set = 1; set < 1u << shapes[k].ndim; set++) {
            value a = randoms(r, t, shapes[k].ndim, shapes[k].n, -30, 30);
            if (a.size == 11 && set == 1) put_specials(&a);
            if ((f == MAX || f == MIN) && is_empty_fold(&a, set)) {
                int first = __builtin_ctz(set);
                if (set == 1u << first) expect_refusal(r, op(r->s, put(r, &a, DENSE), &first, 1, false), name);
                continue;
            }
            check_fold(r, op, f, &a, how, set, (set + how) % 2 == 0);
        }
        EACH(k, more) if (mica_dtype_is_float(t) || t == MICA_I32 || t == MICA_U8) for (unsigned set = 1; set < 1u << more[k].ndim; set++) {
            value a = randoms(r, t, more[k].ndim, more[k].n, -30, 30);
            check_fold(r, op, f, &a, set % 2 ? DENSE : TRANSPOSED, set, true);
        }
        value a = randoms(r, t, 0, NULL, 1, 30); // a scalar is its own sum
        double slack;
        value want = fold_oracle(r, &a, f, 0, &slack);
        expect(r, op(r->s, put(r, &a, DENSE), NULL, 0, false), &want);
    }
    EACH_DTYPE(t, ~kinds) {
        value a = randoms(r, t, 1, (int64_t[]){3}, 0, 5);
        expect_refusal(r, op(r->s, put(r, &a, DENSE), NULL, 0, false), name);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    expect_refusal(r, op(r->s, put(r, &a, DENSE), (int[]){1}, 1, false), name);
}

static void case_sum(rig *r) { check_reduce(r, "sum", mica_sum, SUM, NUMBERS); }
static void case_mean(rig *r) { check_reduce(r, "mean", mica_mean, MEAN, FLOATS); }
static void case_max(rig *r) { check_reduce(r, "max", mica_max, MAX, NUMBERS); }
static void case_min(rig *r) { check_reduce(r, "min", mica_min, MIN, NUMBERS); }

// ---- along one axis: the oracle sees one line of n elements at a time ----
typedef struct line {
    double *x, *y; // y [n], or [1] if the axis goes
    size_t n;
} line;
typedef void line_oracle(line l, mica_dtype t);
typedef struct axis_case {
    const char *name;
    mica_array *(*along)(mica_scope *s, mica_array *a, int axis); // exactly one of these two
    mica_array *(*away)(mica_scope *s, mica_array *a, int axis, bool keepdims);
    line_oracle *oracle;
    int kinds;
    mica_dtype result; // MICA_DTYPE_COUNT: as the input
    double slack;      // relative to the largest result, in f32 arithmetic
} axis_case;

static value axis_oracle(rig *r, const axis_case *c, const value *a, int axis) {
    int64_t n[MICA_MAX_DIMS];
    memcpy(n, a->shape, sizeof n);
    if (c->away) n[axis] = 1;
    value want = blank(r, c->result == MICA_DTYPE_COUNT ? a->dtype : c->result, a->ndim, n);
    size_t inner = 1, length = (size_t)a->shape[axis];
    for (int i = axis + 1; i < a->ndim; i++) inner *= (size_t)a->shape[i];
    line l = {.n = length};
    for (size_t k = 0; wants_oracle(r) && length && k < a->size / length; k++) {
        size_t outer = k / inner, in = k % inner, m = c->away ? 1 : length;
        l.x = take_memory(r, length * 8), l.y = take_memory(r, length * 8);
        for (size_t i = 0; i < length; i++) l.x[i] = a->x[(outer * length + i) * inner + in];
        c->oracle(l, a->dtype);
        for (size_t i = 0; i < m; i++) want.x[(outer * m + i) * inner + in] = l.y[i];
    }
    return want;
}

static void check_axis(rig *r, const axis_case *c, value *a, layout how, int axis) {
    mica_array *x = put(r, a, how);
    value want = axis_oracle(r, c, a, axis);
    double most = 1;
    for (size_t i = 0; i < want.size; i++)
        if (isfinite(want.x[i])) most = fmax(most, fabs(want.x[i]));
    int named = axis % 2 ? axis - a->ndim : axis;
    double slack = mica_dtype_is_float(want.dtype) && want.dtype != MICA_F64 ? most * c->slack : most * c->slack * 1e-8;
    if (c->along) expect_near(r, c->along(r->s, x, named), &want, slack);
    else expect_near(r, c->away(r->s, x, named, true), &want, slack);
}

static const shape axis_shapes[] = {{1, {1}}, {1, {0}}, {1, {11}}, {3, {3, 0, 2}}, {3, {2, 3, 5}}, {4, {5, 1, 4, 3}}, {2, {130, 257}}, {2, {3, 700}}};

static void check_axes(rig *r, const axis_case *c) {
    EACH_DTYPE(t, c->kinds) EACH(k, axis_shapes) EACH_LAYOUT(how) if (is_worth(t, &axis_shapes[k])) for (int axis = 0; axis < axis_shapes[k].ndim; axis++) {
        const shape *s = &axis_shapes[k];
        value a = randoms(r, t, s->ndim, s->n, -9, 9);
        if (a.size == 11 && how != REPEATED) put_specials(&a);
        if (c->away && s->n[axis] == 0) continue;
        check_axis(r, c, &a, how, axis);
    }
    EACH_DTYPE(t, ~c->kinds) {
        value a = randoms(r, t, 1, (int64_t[]){3}, 0, 5);
        mica_array *x = put(r, &a, DENSE);
        expect_refusal(r, c->along ? c->along(r->s, x, 0) : c->away(r->s, x, 0, false), c->name);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    mica_array *x = put(r, &a, DENSE);
    expect_refusal(r, c->along ? c->along(r->s, x, 1) : c->away(r->s, x, 1, false), c->name);
}

static double line_max(line l) {
    double m = -(double)INFINITY;
    for (size_t i = 0; i < l.n; i++)
        if (!(l.x[i] <= m)) m = l.x[i];
    for (size_t i = 0; i < l.n; i++)
        if (isnan(l.x[i])) m = (double)NAN;
    return m;
}

static void line_softmax(line l, mica_dtype t) {
    (void)t;
    double m = line_max(l), sum = 0;
    for (size_t i = 0; i < l.n; i++) sum += l.y[i] = exp(l.x[i] - m);
    for (size_t i = 0; i < l.n; i++) l.y[i] /= sum;
}

static void line_logsumexp(line l, mica_dtype t) {
    (void)t;
    double m = line_max(l), sum = 0;
    for (size_t i = 0; i < l.n; i++) sum += exp(l.x[i] - m);
    l.y[0] = isfinite(m) ? m + log(sum) : m;
}

static void line_argmax(line l, mica_dtype t) {
    (void)t;
    size_t best = 0;
    for (size_t i = 1; i < l.n && !isnan(l.x[best]); i++)
        if (isnan(l.x[i]) || l.x[i] > l.x[best]) best = i;
    l.y[0] = (double)best;
}

static void line_cumsum(line l, mica_dtype t) {
    double sum = 0;
    for (size_t i = 0; i < l.n; i++) l.y[i] = (sum += l.x[i]);
    for (size_t i = 0; i < l.n && !mica_dtype_is_float(t); i++) l.y[i] = round_to(t, l.y[i]);
}

// Ascending, stable, NaN last: insertion.
static void line_argsort(line l, mica_dtype t) {
    (void)t;
    for (size_t i = 0; i < l.n; i++) {
        double x = l.x[i];
        size_t j = i;
        for (; j; j--) {
            double before = l.x[(size_t)l.y[j - 1]];
            if (isnan(before) ? isnan(x) : !(x < before)) break;
            l.y[j] = l.y[j - 1];
        }
        l.y[j] = (double)i;
    }
}

static void line_sort(line l, mica_dtype t) {
    line_argsort(l, t);
    for (size_t i = 0; i < l.n; i++) l.y[i] = l.x[(size_t)l.y[i]];
}

static void case_softmax(rig *r) { check_axes(r, &(axis_case){"softmax", mica_softmax, NULL, line_softmax, FLOATS, MICA_DTYPE_COUNT, 1e-7}); }
static void case_logsumexp(rig *r) { check_axes(r, &(axis_case){"logsumexp", NULL, mica_logsumexp, line_logsumexp, FLOATS, MICA_DTYPE_COUNT, 1e-6}); }
static void case_argmax(rig *r) { check_axes(r, &(axis_case){"argmax", NULL, mica_argmax, line_argmax, FLOATS, MICA_U32, 0}); }
static void case_cumsum(rig *r) { check_axes(r, &(axis_case){"cumsum", mica_cumsum, NULL, line_cumsum, NUMBERS, MICA_DTYPE_COUNT, 1e-7}); }
static void case_sort(rig *r) { check_axes(r, &(axis_case){"sort", mica_sort, NULL, line_sort, NUMBERS, MICA_DTYPE_COUNT, 0}); }
static void case_argsort(rig *r) { check_axes(r, &(axis_case){"argsort", mica_argsort, NULL, line_argsort, NUMBERS, MICA_U32, 0}); }

// Any order within the parts: a permutation whose first k elements are no greater than the rest.
static void check_partition(rig *r, const value *a, mica_array *got, size_t k) {
    recorded(r, got);
    log_result(r, got);
    int64_t *p = take_memory(r, (a->size + 1) * sizeof *p);
    bool *seen = take_memory(r, a->size + 1);
    assert_true(mica_read_i64(got, p, a->size, NULL));
    double low = -(double)INFINITY;
    for (size_t i = 0; i < a->size; i++) {
        assert_in_range(p[i], 0, a->size - 1);
        assert_false(seen[p[i]]);
        seen[p[i]] = true;
        if (i < k) low = fmax(low, a->x[p[i]]);
        else assert_true(a->x[p[i]] >= low);
    }
    mica_scope_reset(r->s);
    mica_arena_reset(&r->arena);
}

static void case_argpartition(rig *r) {
    static const int64_t sizes[] = {1, 2, 7, 60, 3001};
    EACH_DTYPE(t, NUMBERS) EACH(i, sizes) EACH_LAYOUT(how) {
        value a = randoms(r, t, 1, &sizes[i], -90, 90);
        mica_array *x = put(r, &a, how);
        size_t k = a.size * (size_t)how / LAYOUTS;
        check_partition(r, &a, mica_argpartition(r->s, x, (int)k, 0), k);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    expect_refusal(r, mica_argpartition(r->s, put(r, &a, DENSE), 4, 0), "argpartition");
}
#endif
