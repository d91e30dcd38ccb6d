// SPDX-License-Identifier: Apache-2.0
// Cases of the ops that gradients are made of: fused ones, products of mixed types, the rotation back.
#ifndef MICA_TESTS_OPS_BACKWARD_H
#define MICA_TESTS_OPS_BACKWARD_H

#include "ops/products.h"

static const shape rows_shapes[] = {{1, {1}}, {1, {7}}, {2, {0, 5}}, {2, {3, 65}}, {3, {2, 5, 576}}, {2, {2, 5003}}, {2, {700, 33}}};

static void case_rms_norm_grad(rig *r) {
    EACH_DTYPE(t, FLOATS) EACH(k, rows_shapes) for (int weighted = 0; weighted < 2; weighted++) {
        value x = randoms(r, t, rows_shapes[k].ndim, rows_shapes[k].n, -3, 4), g = randoms(r, t, x.ndim, x.shape, -1, 1);
        value w = randoms(r, MICA_F32, 1, &x.shape[x.ndim - 1], 0.5, 2), want = blank(r, t, x.ndim, x.shape);
        size_t D = (size_t)x.shape[x.ndim - 1];
        mica_array *a = put(r, &x, (layout)((k + t) % REPEATED)), *b = put(r, &g, (layout)(k % REPEATED)), *c = put(r, &w, (layout)(t % REPEATED));
        for (size_t row = 0; wants_oracle(r) && D && row < x.size / D; row++) {
            const double *p = x.x + row * D, *q = g.x + row * D;
            double squares = 0, dot = 0;
            for (size_t i = 0; i < D; i++) squares += p[i] * p[i], dot += q[i] * (weighted ? w.x[i] : 1) * p[i];
            double scale = 1 / sqrt(squares / (double)D + (double)1e-5f);
            for (size_t i = 0; i < D; i++)
                want.x[row * D + i] = scale * (q[i] * (weighted ? w.x[i] : 1) - p[i] * scale * scale * dot / (double)D);
        }
        expect_near(r, mica_rms_norm_grad(r->s, a, b, weighted ? c : NULL, 1e-5f), &want, t == MICA_F64 ? 1e-13 : 1e-5);
    }
    value x = randoms(r, MICA_F32, 2, (int64_t[]){2, 4}, -3, 4), g = randoms(r, MICA_BF16, 2, (int64_t[]){2, 4}, -3, 4);
    expect_refusal(r, mica_rms_norm_grad(r->s, put(r, &x, DENSE), put(r, &g, DENSE), NULL, 1e-5f), "rms_norm_grad");
}

// f(x) and f'(x).
static double activation_of(mica_gate gate, double x, double *slope) {
    const double c = 0.79788456080286535588;
    double u = gate == MICA_GATE_SWIGLU ? x : 2 * c * (x + 0.044715 * x * x * x), e = exp(-fabs(u)), s = u >= 0 ? 1 / (1 + e) : e / (1 + e);
    double inner = gate == MICA_GATE_SWIGLU ? 1 : 2 * c * (1 + 3 * 0.044715 * x * x);
    *slope = s + x * s * (e / (1 + e) / (u >= 0 ? 1 : e)) * inner;
    return x * s;
}

static void case_gated_grad(rig *r) {
    EACH_DTYPE(t, FLOATS) EACH(k, rows_shapes) for (int kind = MICA_GATE_SWIGLU; kind <= MICA_GATE_GEGLU; kind++) {
        value a = randoms(r, t, rows_shapes[k].ndim, rows_shapes[k].n, -6, 6), b = randoms(r, t, a.ndim, a.shape, -2, 2), g = randoms(r, t, a.ndim, a.shape, -2, 2);
        int64_t n[MICA_MAX_DIMS] = {2};
        memcpy(n + 1, a.shape, sizeof n - sizeof *n);
        value want = blank(r, t, a.ndim + 1, n);
        mica_array *x = put(r, &a, (layout)((k + t) % REPEATED)), *y = put(r, &b, DENSE), *z = put(r, &g, (layout)(k % REPEATED));
        for (size_t i = 0; i < a.size; i++) {
            double slope, f = activation_of((mica_gate)kind, a.x[i], &slope);
            want.x[i] = g.x[i] * b.x[i] * slope, want.x[a.size + i] = g.x[i] * f;
        }
        expect_near(r, mica_gated_grad(r->s, x, y, z, (mica_gate)kind), &want, t == MICA_F64 ? 1e-12 : 2e-5);
    }
    value far = blank(r, MICA_F32, 1, (int64_t[]){6}), ones = blank(r, MICA_F32, 1, far.shape), want = blank(r, MICA_F32, 2, (int64_t[]){2, 6});
    static const double ends[] = {-(double)INFINITY, -1e30, -200, 200, 1e30, (double)INFINITY};
    for (int i = 0; i < 6; i++) far.x[i] = ends[i], ones.x[i] = 1, want.x[i] = i >= 3, want.x[6 + i] = i >= 3 ? ends[i] : 0;
    mica_array *x = put(r, &far, DENSE), *y = put(r, &ones, DENSE);
    expect_near(r, mica_gated_grad(r->s, x, y, y, MICA_GATE_SWIGLU), &want, 1e-30);
    value other = randoms(r, MICA_F32, 1, (int64_t[]){5}, 0, 1);
    x = put(r, &other, DENSE);
    expect_refusal(r, mica_gated_grad(r->s, x, x, mica_scalar(r->s, 1, MICA_F32), MICA_GATE_GEGLU), "gated_grad");
}

static void case_cross_entropy_grad(rig *r) {
    static const struct { int64_t R, V; } list[] = {{0, 5}, {1, 1}, {3, 37}, {9, 1000}};
    EACH_DTYPE(t, FLOATS) EACH(k, list) {
        if (t == MICA_F64) continue;
        int64_t R = list[k].R, V = list[k].V;
        value x = randoms(r, MICA_F32, 2, (int64_t[]){R, V}, -5, 5), lse = blank(r, MICA_F32, 1, &R), w = randoms(r, MICA_F32, 1, &R, 0, 2);
        value target = blank(r, MICA_I32, 1, &R), want = blank(r, t, 2, x.shape);
        for (int64_t i = 0; i < R; i++) {
            double sum = 0;
            for (int64_t j = 0; j < V; j++) sum += exp(x.x[i * V + j]);
            lse.x[i] = (double)(float)log(sum), target.x[i] = (double)(i * 7 % V);
            for (int64_t j = 0; j < V; j++) want.x[i * V + j] = w.x[i] * (exp(x.x[i * V + j] - lse.x[i]) - (j == i * 7 % V));
        }
        mica_array *in[] = {put(r, &x, (layout)(k % REPEATED)), put(r, &lse, DENSE), put(r, &target, STEPPED), put(r, &w, REVERSED)};
        expect_near(r, mica_cross_entropy_grad(r->s, in[0], in[1], in[2], in[3], t), &want, 1e-6);
    }
    value x = randoms(r, MICA_BF16, 2, (int64_t[]){2, 4}, 0, 1), v = randoms(r, MICA_F32, 1, (int64_t[]){2}, 0, 1), i = randoms(r, MICA_I32, 1, v.shape, 0, 1);
    mica_array *in[] = {put(r, &x, DENSE), put(r, &v, DENSE), put(r, &i, DENSE)};
    expect_refusal(r, mica_cross_entropy_grad(r->s, in[0], in[1], in[2], in[1], MICA_BF16), "cross_entropy_grad");
}

static void case_sum_squares(rig *r) {
    EACH(k, rows_shapes) EACH_LAYOUT(how) {
        value x = randoms(r, MICA_F32, rows_shapes[k].ndim, rows_shapes[k].n, -2, 2);
        mica_array *a = put(r, &x, how), *got = mica_sum_squares(r->s, a), *want = mica_sum(r->s, mica_square(r->s, a), NULL, 0, false);
        recorded(r, got);
        float both[2];
        assert_true(mica_read_f32(got, &both[0], 1, NULL) && mica_read_f32(want, &both[1], 1, NULL));
        assert_memory_equal(&both[0], &both[1], sizeof both[0]);
        log_result(r, got);
    }
    value x = randoms(r, MICA_BF16, 1, (int64_t[]){4}, 0, 1);
    expect_refusal(r, mica_sum_squares(r->s, put(r, &x, DENSE)), "sum_squares");
}

// In place, and the same bits as the graph of the formula: at every level elementary operations are rounded one by one.
static void case_adam_step(rig *r) {
    static const shape lists[] = {{1, {0}}, {1, {1}}, {2, {3, 5}}, {1, {31}}, {2, {129, 65}}, {1, {20011}}};
    const float n[MICA_ADAM_NUMBERS] = {0.7f, 0.9f, 0.1f, 0.999f, 0.001f, 0.02f, 3.1f, 1e-8f, 0.998f};
    EACH(k, lists) {
        value p = randoms(r, MICA_F32, lists[k].ndim, lists[k].n, -2, 2), g = randoms(r, MICA_F32, p.ndim, p.shape, -1, 1);
        value m = randoms(r, MICA_F32, p.ndim, p.shape, -1, 1), v = randoms(r, MICA_F32, p.ndim, p.shape, 0, 1);
        mica_array *in[] = {put(r, &p, DENSE), put(r, &g, (layout)(k % REPEATED)), put(r, &m, DENSE), put(r, &v, DENSE)}, *a[MICA_ADAM_NUMBERS], *want[3];
        for (int i = 0; i < MICA_ADAM_NUMBERS; i++) a[i] = mica_from_data(r->s, &n[i], 0, NULL, MICA_F32);
        mica_scope *s = r->s;
        mica_array *d = mica_mul(s, in[1], a[MICA_ADAM_SCALE]);
        want[1] = mica_add(s, mica_mul(s, in[2], a[MICA_ADAM_BETA1]), mica_mul(s, d, a[MICA_ADAM_NEW1]));
        want[2] = mica_add(s, mica_mul(s, in[3], a[MICA_ADAM_BETA2]), mica_mul(s, mica_square(s, d), a[MICA_ADAM_NEW2]));
        mica_array *root = mica_add(s, mica_mul(s, mica_sqrt(s, want[2]), a[MICA_ADAM_ROOT]), a[MICA_ADAM_EPS]);
        want[0] = mica_sub(s, mica_mul(s, in[0], a[MICA_ADAM_KEEP]), mica_div(s, mica_mul(s, want[1], a[MICA_ADAM_RATE]), root));
        assert_true(mica_eval(s, want, 3, NULL)); // before its inputs are written over
        mica_array *after = mica_adam_step(s, in[0], in[1], in[2], in[3], mica_from_data(s, n, MICA_SHAPE(MICA_ADAM_NUMBERS), MICA_F32));
        recorded(r, after);
        assert_true(mica_eval(s, &after, 1, NULL));
        assert_ptr_equal(mica_data(after), mica_data(in[0]));
        for (int i = 0; i < 3; i++) {
            mica_array *got = i ? in[i + 1] : after;
            assert_memory_equal(mica_data(got), mica_data(want[i]), mica_nbytes(want[i]));
            log_result(r, got);
        }
    }
    value x = randoms(r, MICA_F32, 2, (int64_t[]){2, 4}, 0, 1);
    mica_array *in[] = {put(r, &x, DENSE), put(r, &x, DENSE), put(r, &x, DENSE)};
    expect_refusal(r, mica_adam_step(r->s, in[0], in[1], in[2], mica_square(r->s, in[0]), mica_zeros(r->s, MICA_SHAPE(MICA_ADAM_NUMBERS), MICA_F32)), "adam_step");
}

// ---- products of mixed types: the three thin shapes, and others ----
static const struct { int64_t m, k, n; } mixed_products[] = {{33, 70, 8}, {5, 300, 3}, {70, 8, 129}, {3, 16, 45}, {8, 90, 67}, {65, 130, 16}, {70, 33, 45}, {0, 4, 3}, {1, 64, 1}};

static void check_mixed_products(rig *r) {
    EACH(k, mixed_products) EACH_LAYOUT(how) for (int types = 0; types < 27; types += how == DENSE ? 1 : 5) {
        mica_dtype t[] = {(mica_dtype)(types % 3), (mica_dtype)(types / 3 % 3), (mica_dtype)(types / 9)};
        value a = randoms(r, t[0], 2, (int64_t[]){mixed_products[k].m, mixed_products[k].k}, -2, 2);
        value b = randoms(r, t[1], 2, (int64_t[]){mixed_products[k].k, mixed_products[k].n}, -2, 2);
        mica_array *x = put(r, &a, how), *y = put(r, &b, (layout)((how + (layout)(types % 2)) % LAYOUTS));
        value want = matmul_oracle(r, &a, &b);
        want.dtype = t[2];
        expect_near(r, mica_matmul_as(r->s, x, y, t[2]), &want, product_slack(MICA_F32, (double)mixed_products[k].k, 4));
    }
    value a = randoms(r, MICA_F64, 2, (int64_t[]){3, 3}, 0, 5);
    expect_refusal(r, mica_matmul_as(r->s, put(r, &a, DENSE), put(r, &a, DENSE), MICA_F32), "matmul");
}

static void check_rope_back(rig *r) {
    EACH_DTYPE(t, FLOATS) for (int traditional = 0; traditional < 2; traditional++) {
        value x = randoms(r, t, 4, (int64_t[]){2, 3, 5, 8}, -3, 3), angle = randoms(r, MICA_F32, 3, (int64_t[]){1, 3, 6}, -1, 1);
        for (size_t i = 0; i < angle.size; i++) angle.x[i] = round_to(MICA_F32, i % 6 < 3 ? cos((double)(i / 6 * 3 + i % 3)) : sin((double)(i / 6 * 3 + i % 3)));
        mica_array *a = put(r, &x, STEPPED), *table = put(r, &angle, DENSE);
        mica_array *there = mica_rope_apply(r->s, a, table, traditional != 0);
        expect_near(r, mica_rope_turn(r->s, there, table, traditional != 0, true), &x, t == MICA_F64 ? 1e-6 : t == MICA_F32 ? 1e-5 : t == MICA_F16 ? 4e-3 : 3e-2);
    }
}
#endif
