// SPDX-License-Identifier: Apache-2.0
// Cases of matrix products, dense and quantised, and of the ops that make and undo quantised weights. What a quantised
// weight means is taken from base/quant.h, which test_quant compares with MLX.
#ifndef MICA_TESTS_OPS_PRODUCTS_H
#define MICA_TESTS_OPS_PRODUCTS_H

#include "base/quant.h"
#include "ops/testing.h"

// Accumulation in f32 over K terms of size up to `most`.
static double product_slack(mica_dtype t, double K, double most) { return K * most * (t == MICA_F64 ? 1e-15 : 3e-7); }
// Dequantised weights may be rounded to the type of x first: K random errors of half a unit in the last place.
static double codes_slack(mica_dtype t, double K) { // t: of x
    double ulp = t == MICA_BF16 ? 0x1p-8 : t == MICA_F16 ? 0x1p-11 : 0;
    return product_slack(t, K, 1) + sqrt(K) * ulp / 2;
}

// a [..., M, K] b [..., K, N] with leading dimensions broadcast; neither is 1-d.
static value matmul_oracle(rig *r, const value *a, const value *b) {
    int64_t n[MICA_MAX_DIMS], index[MICA_MAX_DIMS] = {0}, K = a->shape[a->ndim - 1];
    int ndim = MICA_MAX(a->ndim, b->ndim);
    for (int d = 0; d < ndim - 2; d++) {
        int p = d - ndim + a->ndim, q = d - ndim + b->ndim;
        int64_t m = p < 0 ? 1 : a->shape[p];
        n[d] = m == 1 && q >= 0 ? b->shape[q] : m;
    }
    n[ndim - 2] = a->shape[a->ndim - 2], n[ndim - 1] = b->shape[b->ndim - 1];
    value y = blank(r, a->dtype, ndim, n);
    for (size_t i = 0; wants_oracle(r) && i < y.size; i++, next_index(&y, index)) {
        int64_t row = index[ndim - 2], column = index[ndim - 1];
        for (int64_t k = 0; k < K; k++) {
            index[ndim - 1] = k;
            double x = a->x[at(a, ndim, index)];
            index[ndim - 2] = k, index[ndim - 1] = column;
            y.x[i] += x * b->x[at(b, ndim, index)];
            index[ndim - 2] = row;
        }
    }
    return y;
}

static const struct { shape a, b; } products[] = {
    {{2, {1, 1}}, {2, {1, 1}}},       {{2, {3, 5}}, {2, {5, 7}}},          {{2, {33, 70}}, {2, {70, 45}}},
    {{2, {1, 300}}, {2, {300, 129}}}, {{2, {0, 4}}, {2, {4, 3}}},          {{2, {4, 0}}, {2, {0, 3}}},
    {{3, {2, 3, 8}}, {2, {8, 4}}},    {{4, {2, 1, 3, 6}}, {3, {5, 6, 4}}}, {{3, {1, 3, 6}}, {3, {4, 6, 2}}},
};

static void check_matmul(rig *r, mica_dtype t, const shape *sa, const shape *sb, layout how) {
    value a = randoms(r, t, sa->ndim, sa->n, -2, 2), b = randoms(r, t, sb->ndim, sb->n, -2, 2);
    mica_array *x = put(r, &a, how), *y = put(r, &b, (layout)((how + 1) % LAYOUTS));
    value want = matmul_oracle(r, &a, &b);
    expect_near(r, mica_matmul(r->s, x, y), &want, product_slack(t, (double)sa->n[sa->ndim - 1], 4));
}

static void case_matmul(rig *r) {
    EACH_DTYPE(t, FLOATS) EACH(k, products) EACH_LAYOUT(how) check_matmul(r, t, &products[k].a, &products[k].b, how);
    EACH_DTYPE(t, FLOATS) { // vectors
        value a = randoms(r, t, 2, (int64_t[]){4, 6}, -2, 2), v = randoms(r, t, 2, (int64_t[]){6, 1}, -2, 2);
        mica_array *x = put(r, &a, DENSE), *y = mica_squeeze(r->s, put(r, &v, DENSE), 1);
        value want = matmul_oracle(r, &a, &v);
        want.ndim = 1;
        expect_near(r, mica_matmul(r->s, x, y), &want, 1e-5);
        a = randoms(r, t, 2, (int64_t[]){1, 6}, -2, 2), v = randoms(r, t, 2, (int64_t[]){6, 5}, -2, 2);
        x = mica_squeeze(r->s, put(r, &a, DENSE), 0), y = put(r, &v, TRANSPOSED);
        want = matmul_oracle(r, &a, &v);
        want.ndim = 1, want.shape[0] = 5;
        expect_near(r, mica_matmul(r->s, x, y), &want, 1e-5);
    }
    EACH_DTYPE(t, FLOATS) { // sums given out as they are
        if (t == MICA_F64) continue;
        value a = randoms(r, t, 2, (int64_t[]){9, 70}, -2, 2), b = randoms(r, t, 2, (int64_t[]){70, 33}, -2, 2);
        mica_array *x = put(r, &a, DENSE), *y = put(r, &b, TRANSPOSED);
        value want = matmul_oracle(r, &a, &b);
        want.dtype = MICA_F32;
        expect_near(r, mica_matmul_wide(r->s, x, y), &want, product_slack(t, 70, 4));
    }
    EACH_DTYPE(t, INTS | BOOLS) {
        value a = randoms(r, t, 2, (int64_t[]){3, 3}, 0, 5);
        expect_refusal(r, mica_matmul(r->s, put(r, &a, DENSE), put(r, &a, DENSE)), "matmul");
    }
    value a = randoms(r, MICA_F32, 2, (int64_t[]){3, 4}, 0, 5);
    expect_refusal(r, mica_matmul(r->s, put(r, &a, DENSE), put(r, &a, DENSE)), "matmul");
}

// ---- quantised weights ----
static const mica_quant_spec specs[] = {
    {MICA_AFFINE, 2, 32}, {MICA_AFFINE, 3, 64}, {MICA_AFFINE, 4, 32}, {MICA_AFFINE, 4, 64}, {MICA_AFFINE, 5, 128}, {MICA_AFFINE, 6, 64},
    {MICA_AFFINE, 8, 128}, {MICA_MXFP4, 4, 32}, {MICA_NVFP4, 4, 16}, {MICA_MXFP8, 8, 32},
};

typedef struct codes { // a matrix [rows, in] quantised by the reference, and what it means
    mica_quant_spec spec;
    mica_dtype type; // of scales and biases
    int64_t rows, in, words, groups;
    void *w, *scales, *biases;
    value weights; // f64, exact
} codes;

static codes make_codes(rig *r, mica_quant_spec spec, mica_dtype t, int64_t rows, int64_t in) {
    codes c = {.spec = spec, .type = mica_quant_scale_dtype(spec, t), .rows = rows, .in = in};
    c.words = (int64_t)mica_quant_words(spec, (size_t)in), c.groups = (int64_t)mica_quant_groups(spec, (size_t)in);
    float *f = take_memory(r, (size_t)(rows * in) * sizeof *f);
    for (int64_t i = 0; i < rows * in; i++) f[i] = (float)(uniform(r) * 2 - 1);
    c.w = take_memory(r, (size_t)(rows * c.words) * 4);
    c.scales = take_memory(r, (size_t)(rows * c.groups) * 4), c.biases = take_memory(r, (size_t)(rows * c.groups) * 4);
    mica_quantize_rows(spec, c.type, f, (size_t)rows, (size_t)in, c.w, c.scales, c.biases);
    mica_quant_rows q = {.spec = spec, .scale_dtype = c.type, .words = c.w, .scales = c.scales,
                         .biases = spec.mode == MICA_AFFINE ? c.biases : NULL};
    mica_dequantize_rows(&q, (size_t)in, 0, (size_t)rows, f);
    c.weights = blank(r, MICA_F64, 2, (int64_t[]){rows, in});
    for (int64_t i = 0; i < rows * in; i++) c.weights.x[i] = (double)f[i];
    return c;
}

static mica_array *codes_w(rig *r, const codes *c) { return mica_from_data(r->s, c->w, MICA_SHAPE(c->rows, c->words), MICA_U32); }
static mica_array *codes_scales(rig *r, const codes *c) { return mica_from_data(r->s, c->scales, MICA_SHAPE(c->rows, c->groups), c->type); }
static mica_array *codes_biases(rig *r, const codes *c) {
    return c->spec.mode == MICA_AFFINE ? mica_from_data(r->s, c->biases, MICA_SHAPE(c->rows, c->groups), c->type) : NULL;
}

// x [T, K] times weights, transposed or not.
static value codes_product(rig *r, const value *x, const codes *c, bool transpose) {
    int64_t T = x->shape[0], N = transpose ? c->rows : c->in, K = transpose ? c->in : c->rows;
    value y = blank(r, x->dtype, 2, (int64_t[]){T, N});
    for (int64_t t = 0; wants_oracle(r) && t < T; t++)
        for (int64_t n = 0; n < N; n++)
            for (int64_t k = 0; k < K; k++)
                y.x[t * N + n] += x->x[t * K + k] * c->weights.x[transpose ? n * c->in + k : k * c->in + n];
    return y;
}

static void case_quantized_matmul(rig *r) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    static const int64_t tokens[] = {1, 3, 0, 20};
    EACH(k, specs) EACH(d, types) EACH(m, tokens) for (int transpose = 0; transpose < 2; transpose++) {
        codes c = make_codes(r, specs[k], types[(d + k) % 3], 37, 256);
        value x = randoms(r, types[d], 2, (int64_t[]){tokens[m], transpose ? c.in : c.rows}, -1, 1);
        mica_array *a = put(r, &x, (layout)((k + m) % LAYOUTS));
        value want = codes_product(r, &x, &c, transpose);
        mica_array *w = codes_w(r, &c), *scales = codes_scales(r, &c), *biases = codes_biases(r, &c), *y;
        if (transpose && m % 2) { // sums given out as they are
            want.dtype = MICA_F32;
            y = mica_quantized_matmul_wide(r->s, a, w, scales, biases, c.spec);
        } else y = mica_quantized_matmul(r->s, a, w, scales, biases, transpose, c.spec);
        expect_near(r, y, &want, codes_slack(x.dtype, 256));
    }
    codes c = make_codes(r, specs[3], MICA_F32, 8, 64);
    value x = randoms(r, MICA_F32, 2, (int64_t[]){2, 65}, -1, 1);
    expect_refusal(r, mica_quantized_matmul(r->s, put(r, &x, DENSE), codes_w(r, &c), codes_scales(r, &c), codes_biases(r, &c), true, c.spec),
                   "quantized_matmul");
}

// One of the three results of quantising, bit for bit.
static void check_quantize(rig *r, int part) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    static const shape list[] = {{1, {128}}, {2, {3, 256}}, {3, {2, 2, 128}}, {2, {0, 128}}};
    EACH(k, specs) EACH(d, types) EACH(i, list) {
        if (part == 2 && specs[k].mode != MICA_AFFINE) continue;
        value a = randoms(r, types[d], list[i].ndim, list[i].n, -3, 3);
        mica_array *x = put(r, &a, (layout)((k + d + i) % LAYOUTS)), *got[3];
        assert_true(mica_quantize(r->s, x, specs[k], &got[0], &got[1], &got[2]));
        size_t in = (size_t)a.shape[a.ndim - 1], rows = a.size / in;
        float *f = take_memory(r, (a.size + 1) * sizeof *f);
        for (size_t j = 0; j < a.size; j++) f[j] = (float)a.x[j];
        void *want[3];
        for (int j = 0; j < 3; j++) want[j] = take_memory(r, a.size * 4 + 8);
        mica_quantize_rows(specs[k], mica_quant_scale_dtype(specs[k], types[d]), f, rows, in, want[0], want[1], want[2]);
        log_result(r, got[part]);
        size_t bytes = mica_nbytes(got[part]);
        void *have = take_memory(r, bytes + 1);
        assert_true(mica_read_bytes(got[part], have, bytes, NULL));
        assert_memory_equal(have, want[part], bytes);
        mica_scope_reset(r->s);
        mica_arena_reset(&r->arena);
    }
    value a = randoms(r, MICA_F32, 2, (int64_t[]){2, 33}, -3, 3);
    mica_array *got[3];
    assert_false(mica_quantize(r->s, put(r, &a, DENSE), specs[3], &got[0], &got[1], &got[2]));
    expect_refusal(r, got[0], "quantize");
}
static void case_quantize_weights(rig *r) { check_quantize(r, 0); }
static void case_quantize_scales(rig *r) { check_quantize(r, 1); }
static void case_quantize_biases(rig *r) { check_quantize(r, 2); }

static void case_dequantize(rig *r) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    EACH(k, specs) EACH(d, types) EACH(u, types) {
        mica_dtype t = types[u];
        codes c = make_codes(r, specs[k], types[d], 5, 256);
        value want = blank(r, t, 2, c.weights.shape);
        memcpy(want.x, c.weights.x, want.size * sizeof *want.x);
        expect(r, mica_dequantize(r->s, codes_w(r, &c), codes_scales(r, &c), codes_biases(r, &c), c.spec, t), &want);
    }
    codes c = make_codes(r, specs[3], MICA_F32, 8, 64);
    expect_refusal(r, mica_dequantize(r->s, codes_w(r, &c), codes_scales(r, &c), NULL, c.spec, MICA_F32), "dequantize");
}

// ---- packed by the device ----
static mica_array *pack(rig *r, const codes *c, mica_params *p) {
    *p = (mica_params){.packed = {.out = (int32_t)c->rows, .in = (int32_t)c->in, .bits = c->spec.bits, .group_size = c->spec.group_size,
                                  .mode = (int32_t)c->spec.mode, .scale_dtype = (int32_t)c->type}};
    size_t bytes = r->device->packed_size(r->device, p);
    if (!bytes) return NULL;
    unsigned char *raw = take_memory(r, bytes + 64), *packed = raw + (-(uintptr_t)raw & 63);
    r->device->pack(r->device, p, c->w, c->scales, c->biases, packed);
    return mica_from_data(r->s, packed, MICA_SHAPE((int64_t)bytes), MICA_U8);
}

static void case_linear_packed(rig *r) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    static const int64_t tokens[] = {1, 3, 40};
    size_t packable = 0;
    EACH(k, specs) EACH(d, types) EACH(m, tokens) {
        codes c = make_codes(r, specs[k], types[(d + k) % 3], 53, 256);
        value x = randoms(r, types[d], 2, (int64_t[]){tokens[m], c.in}, -1, 1);
        mica_params p;
        mica_array *a = put(r, &x, (layout)((k + m) % LAYOUTS)), *packed = pack(r, &c, &p);
        value want = codes_product(r, &x, &c, true);
        packable += packed != NULL;
        if (m % 2) want.dtype = MICA_F32; // sums given out as they are
        if (packed) expect_near(r, mica_linear_packed(r->s, a, packed, &p, want.dtype), &want, codes_slack(x.dtype, 256));
        mica_scope_reset(r->s);
        mica_arena_reset(&r->arena);
    }
    assert_true(packable);
    EACH(k, specs) EACH(d, types) EACH(m, tokens) { // back: an odd number of outputs, inputs in parts of panels and in several
        codes c = make_codes(r, specs[k], types[(d + k) % 3], 53, m == 1 ? 128 : 384);
        value x = randoms(r, types[d], 2, (int64_t[]){tokens[m], 53}, -1, 1);
        mica_params p;
        mica_array *a = put(r, &x, (layout)((k + m) % LAYOUTS)), *packed = pack(r, &c, &p);
        value want = codes_product(r, &x, &c, false);
        if (m % 2) want.dtype = MICA_F32;
        if (packed) expect_near(r, mica_linear_packed_back(r->s, a, packed, &p, want.dtype), &want, 2 * codes_slack(x.dtype, 53)); // three deviations, of 10^5 results the worst has five
        mica_scope_reset(r->s);
        mica_arena_reset(&r->arena);
    }
}

static void case_take_packed(rig *r) {
    EACH(k, specs) EACH_DTYPE(t, FLOATS) EACH_DTYPE(id, INTS) {
        if (t == MICA_F64 || (t != MICA_F32 && id != MICA_I32)) continue;
        codes c = make_codes(r, specs[k], MICA_BF16, 21, 128);
        value ids = blank(r, id, 2, (int64_t[]){2, 3});
        for (size_t i = 0; i < 6; i++) ids.x[i] = (double)(i * 5 % 21);
        ids.x[4] = 90; // outside
        mica_params p;
        mica_array *y = put(r, &ids, (layout)(k % LAYOUTS)), *packed = pack(r, &c, &p);
        value want = blank(r, t, 3, (int64_t[]){2, 3, c.in});
        for (size_t i = 0; i < want.size; i++) {
            size_t row = (size_t)ids.x[i / (size_t)c.in];
            want.x[i] = row < 21 ? c.weights.x[row * (size_t)c.in + i % (size_t)c.in] : (double)NAN;
        }
        if (packed) expect(r, mica_take_packed(r->s, packed, y, &p, t), &want);
        mica_scope_reset(r->s);
        mica_arena_reset(&r->arena);
    }
}
#endif
