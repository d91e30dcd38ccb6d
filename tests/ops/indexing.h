// SPDX-License-Identifier: Apache-2.0
// Cases of ops that move elements, by position or by index, and of the ops that make arrays from nothing.
#ifndef MICA_TESTS_OPS_INDEXING_H
#define MICA_TESTS_OPS_INDEXING_H

#include "ops/testing.h"

// ---- by position ----
static void case_slice_update(rig *r) {
    static const struct { shape a, update; int64_t start[4], step[4]; } list[] = {
        {{1, {9}}, {1, {3}}, {1}, {3}}, {{1, {9}}, {1, {4}}, {8}, {-2}}, {{2, {5, 7}}, {2, {2, 3}}, {1, 2}, {2, 1}},
        {{2, {5, 7}}, {2, {0, 3}}, {1, 2}, {1, 1}}, {{3, {40, 30, 31}}, {3, {20, 30, 15}}, {39, 0, 30}, {-2, 1, -2}},
    };
    EACH_DTYPE(t, ANYTHING) EACH(k, list) EACH_LAYOUT(how) {
        value a = randoms(r, t, list[k].a.ndim, list[k].a.n, 0, 9), u = randoms(r, t, list[k].update.ndim, list[k].update.n, -9, 0);
        mica_array *x = put(r, &a, how), *y = put(r, &u, (layout)((how + 2) % LAYOUTS));
        value want = blank(r, t, a.ndim, a.shape);
        memcpy(want.x, a.x, a.size * sizeof *a.x);
        int64_t index[MICA_MAX_DIMS] = {0}, there[MICA_MAX_DIMS] = {0};
        for (size_t i = 0; i < u.size; i++, next_index(&u, index)) {
            for (int d = 0; d < u.ndim; d++) there[d] = list[k].start[d] + index[d] * list[k].step[d];
            want.x[at(&want, want.ndim, there)] = u.x[i];
        }
        expect(r, mica_slice_update(r->s, x, y, list[k].start, list[k].step), &want);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    expect_refusal(r, mica_slice_update(r->s, put(r, &a, DENSE), put(r, &a, DENSE), (int64_t[]){1}, NULL), "slice_update");
}

static void check_concatenate(rig *r, mica_dtype t, int count, const shape *base, int axis, const int64_t *sizes) {
    value parts[24], want;
    mica_array *x[24];
    int64_t n[MICA_MAX_DIMS], total = 0, index[MICA_MAX_DIMS], from = 0;
    memcpy(n, base->n, sizeof n);
    for (int i = 0; i < count; i++) {
        n[axis] = sizes[i % 5], total += n[axis];
        parts[i] = randoms(r, t, base->ndim, n, -50, 50);
        x[i] = put(r, &parts[i], (layout)(i % LAYOUTS));
    }
    n[axis] = total;
    want = blank(r, t, base->ndim, n);
    for (int i = 0; i < count; from += parts[i++].shape[axis]) {
        memset(index, 0, sizeof index);
        for (size_t k = 0; k < parts[i].size; k++, next_index(&parts[i], index)) {
            index[axis] += from;
            want.x[at(&want, want.ndim, index)] = parts[i].x[k];
            index[axis] -= from;
        }
    }
    expect(r, mica_concatenate(r->s, x, (size_t)count, axis % 2 ? axis - base->ndim : axis), &want);
}

static void case_concatenate(rig *r) {
    static const shape bases[] = {{1, {0}}, {2, {4, 3}}, {3, {2, 5, 3}}, {2, {200, 210}}};
    EACH_DTYPE(t, ANYTHING) EACH(k, bases) for (int axis = 0; axis < bases[k].ndim; axis++) for (int count = 1; count <= 23; count += 11)
        check_concatenate(r, t, count, &bases[k], axis, (int64_t[]){3, 1, 0, 7, 2});
    value a = randoms(r, MICA_F32, 2, (int64_t[]){2, 3}, 0, 5), b = randoms(r, MICA_F32, 2, (int64_t[]){3, 3}, 0, 5);
    expect_refusal(r, mica_concatenate(r->s, (mica_array *[]){put(r, &a, DENSE), put(r, &b, DENSE)}, 2, 1), "concatenate");
}

static void check_triangle(rig *r, bool upper) {
    static const shape list[] = {{2, {1, 1}}, {2, {5, 3}}, {2, {3, 6}}, {4, {2, 3, 4, 4}}, {3, {0, 3, 3}}, {2, {3, 0}}, {2, {130, 700}}};
    EACH_DTYPE(t, ANYTHING) EACH(k, list) EACH_LAYOUT(how) for (int diagonal = -3; diagonal <= 4; diagonal++) if (is_worth(t, &list[k])) {
        value a = randoms(r, t, list[k].ndim, list[k].n, -50, 50);
        mica_array *x = put(r, &a, how);
        value want = blank(r, t, a.ndim, a.shape);
        int64_t index[MICA_MAX_DIMS] = {0};
        for (size_t i = 0; wants_oracle(r) && i < a.size; i++, next_index(&a, index)) {
            int64_t above = index[a.ndim - 1] - index[a.ndim - 2];
            if (upper ? above >= diagonal : above <= diagonal) want.x[i] = a.x[i];
        }
        expect(r, upper ? mica_triu(r->s, x, diagonal) : mica_tril(r->s, x, diagonal), &want);
        if (k == 6 && diagonal == -2) break;
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    mica_array *x = put(r, &a, DENSE);
    expect_refusal(r, upper ? mica_triu(r->s, x, 0) : mica_tril(r->s, x, 0), upper ? "triu" : "tril");
}
static void case_tril(rig *r) { check_triangle(r, false); }
static void case_triu(rig *r) { check_triangle(r, true); }

// ---- by index ----
// Indices of an axis of n: mostly inside, some negative (of signed types), some outside.
static value index_values(rig *r, mica_dtype t, int ndim, const int64_t *n, int64_t axis) {
    value v = blank(r, t, ndim, n);
    for (size_t i = 0; i < v.size; i++) {
        double u = floor(uniform(r) * (double)(axis + 2));
        if (!is_unsigned(t) && uniform(r) < 0.3) u -= (double)axis + 1;
        v.x[i] = fmin(fmax(u, -128), 127);
    }
    return v;
}

// -1: outside.
static int64_t resolved(double index, int64_t axis) {
    int64_t i = (int64_t)index + (index < 0 ? axis : 0);
    return i < 0 || i >= axis ? -1 : i;
}
static double outside(mica_dtype t) { return mica_dtype_is_float(t) ? (double)NAN : 0; }

static void case_take(rig *r) {
    static const struct { shape a, ids; int axis; } list[] = {
        {{1, {7}}, {0, {0}}, 0}, {{2, {7, 5}}, {1, {9}}, 0}, {{2, {7, 5}}, {2, {3, 4}}, 1}, {{3, {4, 6, 3}}, {2, {2, 5}}, 1},
        {{3, {4, 6, 3}}, {1, {0}}, 2}, {{2, {0, 5}}, {1, {3}}, 0}, {{2, {100, 300}}, {1, {200}}, 0},
    };
    EACH_DTYPE(t, ANYTHING) EACH_DTYPE(id, INTS) EACH(k, list) {
        if (t != MICA_F32 && t != MICA_BF16 && id != MICA_I32) continue; // types of a and of ids are independent
        layout how = (layout)((k + t + id) % LAYOUTS);
        value a = randoms(r, t, list[k].a.ndim, list[k].a.n, -50, 50);
        int axis = list[k].axis;
        value ids = index_values(r, id, list[k].ids.ndim, list[k].ids.n, a.shape[axis]);
        mica_array *x = put(r, &a, how), *y = put(r, &ids, (layout)((how + 1) % LAYOUTS));
        int64_t n[MICA_MAX_DIMS], index[MICA_MAX_DIMS] = {0}, there[MICA_MAX_DIMS] = {0};
        int ndim = a.ndim - 1 + ids.ndim;
        for (int d = 0; d < ndim; d++)
            n[d] = d < axis ? a.shape[d] : d < axis + ids.ndim ? ids.shape[d - axis] : a.shape[d - ids.ndim + 1];
        value want = blank(r, t, ndim, n);
        for (size_t i = 0; i < want.size; i++, next_index(&want, index)) {
            for (int d = 0; d < a.ndim; d++) there[d] = d < axis ? index[d] : d > axis ? index[d + ids.ndim - 1] : 0;
            there[axis] = resolved(ids.x[at(&ids, ids.ndim, index + axis)], a.shape[axis]);
            want.x[i] = there[axis] < 0 ? outside(t) : a.x[at(&a, a.ndim, there)];
        }
        expect(r, mica_take(r->s, x, y, axis ? axis - a.ndim : 0), &want);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    expect_refusal(r, mica_take(r->s, put(r, &a, DENSE), put(r, &a, DENSE), 0), "take");
}

typedef enum along { TAKE_ALONG, PUT_ALONG, ADD_ALONG } along;

static mica_array *along_op(rig *r, along op, mica_array *a, mica_array *ids, mica_array *values, int axis) {
    if (op == TAKE_ALONG) return mica_take_along_axis(r->s, a, ids, axis);
    if (op == PUT_ALONG) return mica_put_along_axis(r->s, a, ids, values, axis);
    return mica_record(r->s, MICA_OP_scatter_add_along_axis, (mica_array *[]){a, ids, values}, 3, 0, NULL); // last axis
}

static void check_along(rig *r, along op, mica_dtype t, mica_dtype id, const shape *s, int axis, int64_t count, layout how) {
    value a = randoms(r, t, s->ndim, s->n, -9, 9);
    int64_t n[MICA_MAX_DIMS], index[MICA_MAX_DIMS] = {0};
    memcpy(n, s->n, sizeof n);
    n[axis] = count;
    value ids = index_values(r, id, s->ndim, n, s->n[axis]), v = randoms(r, t, s->ndim, n, -9, 9);
    mica_array *x[] = {put(r, &a, how), put(r, &ids, (layout)((how + 1) % LAYOUTS)), put(r, &v, (layout)((how + 2) % LAYOUTS))};
    value want = op == TAKE_ALONG ? blank(r, t, s->ndim, n) : blank(r, t, s->ndim, s->n);
    if (op != TAKE_ALONG) memcpy(want.x, a.x, a.size * sizeof *a.x);
    for (size_t i = 0; i < ids.size; i++, next_index(&ids, index)) {
        int64_t was = index[axis], to = resolved(ids.x[i], s->n[axis]);
        index[axis] = to;
        double *there = to < 0 ? NULL : op == TAKE_ALONG ? &a.x[at(&a, a.ndim, index)] : &want.x[at(&want, a.ndim, index)];
        if (op == TAKE_ALONG) want.x[i] = there ? *there : outside(t);
        else if (there) *there = op == PUT_ALONG ? v.x[i] : *there + v.x[i];
        index[axis] = was;
    }
    for (size_t i = 0; op == ADD_ALONG && i < want.size; i++)
        if (!mica_dtype_is_float(t)) want.x[i] = round_to(t, want.x[i]);
    double slack = op == ADD_ALONG && t != MICA_F64 ? 1e-5 : 0;
    expect_near(r, along_op(r, op, x[0], x[1], x[2], axis), &want, mica_dtype_is_float(t) ? slack : 0);
}

static void check_all_along(rig *r, along op, const char *name) {
    static const shape list[] = {{1, {1}}, {1, {0}}, {1, {9}}, {3, {2, 4, 5}}, {3, {3, 0, 2}}, {2, {3, 1200}}, {2, {300, 7}}};
    static const int64_t counts[] = {4, 0, 9, 30};
    EACH_DTYPE(t, op == ADD_ALONG ? NUMBERS : ANYTHING) EACH_DTYPE(id, INTS) EACH(k, list) for (int axis = 0; axis < list[k].ndim; axis++) {
        if (op == ADD_ALONG && axis != list[k].ndim - 1) continue;
        if (t != MICA_F32 && t != MICA_BF16 && id != MICA_I32 && id != MICA_U32) continue; // types of a and of ids are independent
        check_along(r, op, t, id, &list[k], axis, counts[(k + (size_t)axis) % 4], (layout)((k + t + id) % LAYOUTS));
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    mica_array *x = put(r, &a, DENSE);
    expect_refusal(r, along_op(r, op, x, x, x, 0), name); // float indices
}

static void case_take_along_axis(rig *r) { check_all_along(r, TAKE_ALONG, "take_along_axis"); }
static void case_put_along_axis(rig *r) { check_all_along(r, PUT_ALONG, "put_along_axis"); }
static void case_scatter_add_along_axis(rig *r) { check_all_along(r, ADD_ALONG, "scatter_add_along_axis"); }

static void case_scatter_add(rig *r) {
    static const struct { shape a, ids; } list[] = {
        {{1, {5}}, {0, {0}}}, {{1, {5}}, {1, {12}}}, {{2, {6, 3}}, {2, {4, 5}}}, {{3, {4, 3, 2}}, {1, {0}}}, {{2, {0, 3}}, {1, {4}}},
        {{2, {7, 0}}, {1, {4}}}, {{2, {50, 600}}, {1, {130}}},
    };
    EACH_DTYPE(t, NUMBERS) EACH_DTYPE(id, INTS) EACH(k, list) {
        if (t != MICA_F32 && t != MICA_BF16 && id != MICA_I32 && id != MICA_U32) continue;
        layout how = (layout)((k + t + id) % LAYOUTS);
        value a = randoms(r, t, list[k].a.ndim, list[k].a.n, -9, 9);
        value ids = index_values(r, id, list[k].ids.ndim, list[k].ids.n, a.shape[0]);
        int64_t n[MICA_MAX_DIMS];
        int ndim = ids.ndim + a.ndim - 1;
        for (int d = 0; d < ndim; d++) n[d] = d < ids.ndim ? ids.shape[d] : a.shape[d - ids.ndim + 1];
        value v = randoms(r, t, ndim, n, -9, 9);
        mica_array *x[] = {put(r, &a, how), put(r, &ids, (layout)((how + 1) % LAYOUTS)), put(r, &v, (layout)((how + 2) % LAYOUTS))};
        value want = blank(r, t, a.ndim, a.shape);
        memcpy(want.x, a.x, a.size * sizeof *a.x);
        size_t width = ids.size ? v.size / ids.size : 0;
        for (size_t i = 0; i < ids.size; i++) {
            int64_t to = resolved(ids.x[i], a.shape[0]);
            for (size_t j = 0; to >= 0 && j < width; j++) want.x[(size_t)to * width + j] += v.x[i * width + j];
        }
        for (size_t i = 0; i < want.size && !mica_dtype_is_float(t); i++) want.x[i] = round_to(t, want.x[i]);
        expect_near(r, mica_scatter_add(r->s, x[0], x[1], x[2]), &want, mica_dtype_is_float(t) && t != MICA_F64 ? 1e-5 : 0);
    }
    value a = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 5);
    mica_array *x = put(r, &a, DENSE);
    expect_refusal(r, mica_scatter_add(r->s, x, x, x), "scatter_add");
}

// ---- sources ----
static void case_full(rig *r) {
    EACH_DTYPE(t, ANYTHING) EACH(k, shapes) {
        value want = blank(r, t, shapes[k].ndim, shapes[k].n);
        double v = mica_dtype_is_float(t) && k == 3 ? (double)INFINITY : t == MICA_BOOL ? 1 : 7;
        for (size_t i = 0; i < want.size; i++) want.x[i] = v;
        expect(r, mica_full(r->s, want.ndim, want.shape, v, t), &want);
    }
    expect_refusal(r, mica_full(r->s, 1, (int64_t[]){-1}, 0, MICA_F32), "full");
}

static void case_arange(rig *r) {
    static const struct { double start, stop, step; } list[] = {{0, 5, 1}, {3, 3, 1}, {10, 0, -3}, {1, 2, 0.25}, {0, 120, 1}};
    EACH_DTYPE(t, NUMBERS) EACH(k, list) {
        if (!mica_dtype_is_float(t) && list[k].step != floor(list[k].step)) continue;
        int64_t n = (int64_t)fmax(0, ceil((list[k].stop - list[k].start) / list[k].step));
        value want = blank(r, t, 1, &n);
        for (size_t i = 0; i < want.size; i++) want.x[i] = list[k].start + (double)i * list[k].step;
        expect(r, mica_arange(r->s, list[k].start, list[k].stop, list[k].step, t), &want);
    }
    expect_refusal(r, mica_arange(r->s, 0, 1, 0, MICA_F32), "arange");
}

// Range, first two moments, and that an element depends on key and position only.
static void check_random(rig *r, mica_dtype t, bool normal) {
    enum { N = 40000 };
    double *x = malloc(N * sizeof *x), *part = malloc(N * sizeof *part), sum = 0, squares = 0, low = normal ? -6 : -2, high = normal ? 6 : 3;
    mica_array *key = mica_random_key(r->s, 7, (uint64_t)t), *other = mica_random_key(r->s, 7, 100);
    mica_array *a = normal ? mica_random_normal(r->s, key, MICA_SHAPE(N), t) : mica_random_uniform(r->s, key, -2, 3, MICA_SHAPE(N), t);
    mica_array *b = normal ? mica_random_normal(r->s, key, MICA_SHAPE(3, 7), t) : mica_random_uniform(r->s, key, -2, 3, MICA_SHAPE(3, 7), t);
    mica_array *c = normal ? mica_random_normal(r->s, other, MICA_SHAPE(21), t) : mica_random_uniform(r->s, other, -2, 3, MICA_SHAPE(21), t);
    recorded(r, a);
    assert_int_equal(mica_array_dtype(a), t);
    log_result(r, a);
    assert_true(mica_read_f64(a, x, N, NULL) && mica_read_f64(b, part, 21, NULL));
    assert_memory_equal(x, part, 21 * sizeof *x);
    assert_true(mica_read_f64(c, part, 21, NULL));
    assert_memory_not_equal(x, part, 21 * sizeof *x);
    for (size_t i = 0; i < N; i++) {
        assert_true(x[i] >= low && x[i] < high);
        sum += x[i], squares += x[i] * x[i];
    }
    double mean = sum / N, variance = squares / N - mean * mean; // standard errors: about 0.007 and 0.01
    assert_true(fabs(mean - (normal ? 0 : 0.5)) < 0.03 && fabs(variance - (normal ? 1 : 25.0 / 12)) < 0.05);
    free(x), free(part);
    mica_scope_reset(r->s);
}

static void case_random_uniform(rig *r) {
    EACH_DTYPE(t, FLOATS) check_random(r, t, false);
    expect_refusal(r, mica_random_uniform(r->s, mica_random_key(r->s, 1, 2), 0, 1, MICA_SHAPE(3), MICA_I32), "random_uniform");
    value no_key = randoms(r, MICA_F32, 1, (int64_t[]){2}, 0, 1);
    expect_refusal(r, mica_random_uniform(r->s, put(r, &no_key, DENSE), 0, 1, MICA_SHAPE(3), MICA_F32), "random_uniform");
}
// One of the two neighbours, the nearer one more often: on average the number itself. A function of key and place alone, through views too.
static void case_random_round(rig *r) {
    enum { N = 40000 };
    static float x[N], y[N], z[N];
    double sum = 0, wanted = 0;
    for (int i = 0; i < N; i++) x[i] = (i % 2 ? -1.0f : 1.0f) * (1 + (float)(i % 1000) / 128000);
    x[N - 1] = INFINITY, x[N - 2] = -INFINITY, x[N - 3] = NAN, x[N - 4] = 0, x[N - 5] = 1.5f;
    mica_array *key = mica_random_key(r->s, 7, 3), *a = mica_from_data(r->s, x, MICA_SHAPE(N), MICA_F32), *b = mica_random_round(r->s, key, a);
    mica_array *turned = mica_contiguous(r->s, mica_transpose(r->s, mica_reshape(r->s, a, MICA_SHAPE(N / 8, 8)), NULL));
    mica_array *c = mica_random_round(r->s, key, mica_transpose(r->s, turned, NULL));
    recorded(r, b);
    assert_int_equal(mica_array_dtype(b), MICA_BF16);
    log_result(r, b);
    assert_true(mica_read_f32(b, y, N, NULL) && mica_read_f32(c, z, N, NULL));
    assert_memory_equal(y, z, (N - 5) * sizeof *y);
    for (int i = 0; i < N - 5; i++) {
        assert_true(fabsf(y[i] - x[i]) < 1.0f / 128);
        sum += (double)fabsf(y[i]), wanted += (double)fabsf(x[i]);
    }
    assert_true(fabs(sum - wanted) / N < 5 * 0.004 / 200); // of an error of at most 1/128
    assert_true(y[N - 1] > 3e38f && y[N - 2] < -3e38f && y[N - 3] != y[N - 3] && y[N - 4] == 0 && y[N - 5] == 1.5f);
    mica_scope_reset(r->s);
    key = mica_random_key(r->s, 1, 2);
    expect_refusal(r, mica_random_round(r->s, key, key), "random_round");
    a = mica_from_data(r->s, x, MICA_SHAPE(2), MICA_F32);
    expect_refusal(r, mica_random_round(r->s, a, a), "random_round");
}
static void case_random_normal(rig *r) {
    EACH_DTYPE(t, FLOATS) check_random(r, t, true);
    expect_refusal(r, mica_random_normal(r->s, mica_random_key(r->s, 1, 2), MICA_SHAPE(3), MICA_I32), "random_normal");
}
#endif
