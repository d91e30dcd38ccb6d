// SPDX-License-Identifier: Apache-2.0
// Values of the public ops: axes, broadcasting, orders of elements, dtypes, empty arrays. Kernels have tests of their own; this is
// about what the public functions make of their arguments. Each result is compared with an expression of its indices
// i, j, k, l; the usual input is x[i,j,k] = 100i + 10j + k of shape [2,3,4].
#include "grad_testing.h"

static mica_scope *s;

static mica_array *numbers(mica_dtype dtype) {
    double v[24];
    for (int n = 0; n < 24; n++) v[n] = 100.0 * (n / 12) + 10 * (n / 4 % 3) + n % 4;
    return mica_astype(s, mica_from_data(s, v, MICA_SHAPE(2, 3, 4), MICA_F64), dtype);
}
static double x_at(int64_t i, int64_t j, int64_t k) { return (double)(100 * i + 10 * j + k); }

static mica_array *floats(size_t n, const double *v) { return mica_from_data(s, v, MICA_SHAPE((int64_t)n), MICA_F64); }
#define F(...) floats(sizeof((double[]){__VA_ARGS__}) / sizeof(double), (double[]){__VA_ARGS__})
#define I(...) mica_astype(s, F(__VA_ARGS__), MICA_I32)
#define AXES(...) (const int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))
#define AT(...) ((const int64_t[]){__VA_ARGS__})

static double *check_shape(mica_array *a, mica_dtype dtype, int ndim, const int64_t *shape, const char *what) {
    check_scope(s, what);
    bool same = mica_ndim(a) == ndim && mica_array_dtype(a) == dtype;
    for (int d = 0; same && d < ndim; d++) same = mica_dim(a, d) == shape[d];
    if (!same) fail_msg("%s: wrong shape or dtype", what);
    return read_new(a, what);
}

static double close_enough = 0;

#define CHECK(array, type, shape, value) \
    do { \
        mica_array *checked = (array); \
        double *got = check_shape(checked, type, shape, #array); \
        int64_t size[4] = {1, 1, 1, 1}, n = 0; \
        for (int d = 0, nd = mica_ndim(checked); d < nd; d++) size[d] = mica_dim(checked, d); \
        for (int64_t i = 0; i < size[0]; i++) \
            for (int64_t j = 0; j < size[1]; j++) \
                for (int64_t k = 0; k < size[2]; k++) \
                    for (int64_t l = 0; l < size[3]; l++, n++) { \
                        (void)j, (void)k, (void)l; \
                        double want = (value); \
                        if (!(fabs(got[n] - want) <= close_enough) && !(isnan(want) && isnan(got[n])) && got[n] != want) \
                            fail_msg("%s at %d,%d,%d,%d: %g, not %g", #array, (int)i, (int)j, (int)k, (int)l, got[n], want); \
                    } \
        free(got); \
    } while (0)
#define S MICA_SHAPE
#define SCALAR 0, NULL

static void elementwise(void **state) {
    (void)state;
    mica_array *x = numbers(MICA_F64), *row = F(1, 2, 3, 4), *column = mica_reshape(s, F(5, 6, 7), S(3, 1)), *ints = numbers(MICA_I16);
    CHECK(mica_add(s, x, row), MICA_F64, S(2, 3, 4), x_at(i, j, k) + (double)k + 1);
    CHECK(mica_sub(s, column, row), MICA_F64, S(3, 4), (double)(5 + i - j - 1));
    CHECK(mica_mul(s, row, mica_scalar(s, 2, MICA_F64)), MICA_F64, S(4), 2 * (double)(i + 1));
    CHECK(mica_add(s, mica_zeros(s, S(0, 1), MICA_F32), mica_zeros(s, S(4), MICA_F32)), MICA_F32, S(0, 4), 0);
    CHECK(mica_sub(s, ints, mica_mul_scalar(s, ints, 3)), MICA_I16, S(2, 3, 4), -2 * x_at(i, j, k));
    CHECK(mica_add_scalar(s, numbers(MICA_BF16), 1), MICA_BF16, S(2, 3, 4), x_at(i, j, k) + 1);
    CHECK(mica_clip(s, x, 2, 110), MICA_F64, S(2, 3, 4), fmin(fmax(x_at(i, j, k), 2), 110));
    CHECK(mica_clip(s, ints, -1, 12.9), MICA_I16, S(2, 3, 4), fmin(x_at(i, j, k), 12));
    CHECK(mica_less(s, x, column), MICA_BOOL, S(2, 3, 4), x_at(i, j, k) < (double)(5 + j));
    CHECK(mica_where(s, mica_greater(s, row, mica_scalar(s, 2, MICA_F64)), x, column), MICA_F64, S(2, 3, 4), k > 1 ? x_at(i, j, k) : (double)(5 + j));
    CHECK(mica_logical_or(s, mica_equal(s, I(1, 2, 3), I(1, 0, 0)), mica_logical_not(s, mica_less(s, I(1, 2, 3), I(9, 9, 0)))), MICA_BOOL, S(3), i != 1);
    CHECK(mica_power(s, row, mica_scalar(s, 2, MICA_F64)), MICA_F64, S(4), (double)((i + 1) * (i + 1)));
    CHECK(mica_maximum(s, F(1, (double)NAN, 3), F(2, 0, (double)NAN)), MICA_F64, S(3), i ? (double)NAN : 2);
    CHECK(mica_astype(s, F(1.9, -1.9, 0), MICA_BOOL), MICA_BOOL, S(3), i < 2);
    CHECK(mica_neg(s, I(1, -2)), MICA_I32, S(2), i ? 2 : -1);
    CHECK(mica_exp(s, mica_zeros(s, S(3, 0, 2), MICA_F16)), MICA_F16, S(3, 0, 2), 0);
}

static void products(void **state) {
    (void)state;
    mica_array *x = numbers(MICA_F64), *v = F(1, 2, 3, 4), *w = mica_reshape(s, F(1, 0, 0, 1, 1, 1, 0, -1), S(4, 2));
    double weights[4][2] = {{1, 0}, {0, 1}, {1, 1}, {0, -1}};
#define ROW(i, j, c) (weights[0][c] * x_at(i, j, 0) + weights[1][c] * x_at(i, j, 1) + weights[2][c] * x_at(i, j, 2) + weights[3][c] * x_at(i, j, 3))
    CHECK(mica_matmul(s, x, w), MICA_F64, S(2, 3, 2), ROW(i, j, k));
    CHECK(mica_matmul(s, mica_astype(s, x, MICA_F32), mica_astype(s, w, MICA_F32)), MICA_F32, S(2, 3, 2), ROW(i, j, k));
    CHECK(mica_matmul(s, x, v), MICA_F64, S(2, 3), 10 * (double)(100 * i + 10 * j) + 20);
    CHECK(mica_matmul(s, v, w), MICA_F64, S(2), i ? 1 : 4);
    CHECK(mica_matmul(s, v, v), MICA_F64, SCALAR, 30);
    CHECK(mica_matmul(s, v, mica_swap_axes(s, x, 1, 2)), MICA_F64, S(2, 3), 10 * (double)(100 * i + 10 * j) + 20);
    CHECK(mica_matmul(s, mica_expand_dims(s, x, 1), mica_reshape(s, w, S(1, 4, 2))), MICA_F64, S(2, 1, 3, 2), ROW(i, k, l));
    CHECK(mica_matmul(s, mica_zeros(s, S(3, 0), MICA_F32), mica_zeros(s, S(0, 2), MICA_F32)), MICA_F32, S(3, 2), 0);
    CHECK(mica_matmul(s, mica_zeros(s, S(0, 2, 3), MICA_F32), mica_zeros(s, S(3, 5), MICA_F32)), MICA_F32, S(0, 2, 5), 0);
}

// x Wᵀ and x W with the dequantised weights give the same.
static void quantised(void **state) {
    (void)state;
    mica_array *key = mica_random_key(s, 1, 1), *w = mica_random_normal(s, key, S(6, 128), MICA_F32);
    for (int mode = 0; mode < MICA_QUANT_MODE_COUNT; mode++) {
        mica_quant_spec spec = mica_quant_default((mica_quant_mode)mode);
        mica_array *codes, *scales, *biases;
        assert_true(mica_quantize(s, w, spec, &codes, &scales, &biases));
        mica_array *dense = mica_dequantize(s, codes, scales, biases, spec, MICA_F32);
        mica_array *x = mica_random_normal(s, key, S(2, 3, 128), MICA_F32), *z = mica_random_normal(s, key, S(5, 6), MICA_F32);
        double *a = read_new(mica_quantized_matmul(s, x, codes, scales, biases, true, spec), "transposed");
        double *b = read_new(mica_quantized_matmul(s, z, codes, scales, biases, false, spec), "plain");
        close_enough = 1e-4;
        CHECK(mica_matmul(s, x, mica_transpose(s, dense, NULL)), MICA_F32, S(2, 3, 6), a[(i * 3 + j) * 6 + k]);
        CHECK(mica_matmul(s, z, dense), MICA_F32, S(5, 128), b[i * 128 + j]);
        close_enough = 0;
        free(a);
        free(b);
    }
}

static void reductions(void **state) {
    (void)state;
    mica_array *x = numbers(MICA_F64), *ints = numbers(MICA_U16);
    CHECK(mica_sum(s, x, NULL, 0, false), MICA_F64, SCALAR, 24 * 50 + 24 * 10 + 24 * 1.5);
    CHECK(mica_sum(s, x, AXES(1), false), MICA_F64, S(2, 4), 3 * (double)(100 * i + j) + 30);
    CHECK(mica_sum(s, x, AXES(-1, 0), true), MICA_F64, S(1, 3, 1), 8 * 10 * (double)j + 400 + 12);
    CHECK(mica_sum(s, ints, AXES(0), false), MICA_U16, S(3, 4), (double)(100 + 20 * i + 2 * j));
    CHECK(mica_sum(s, mica_zeros(s, S(2, 0), MICA_F32), AXES(1), true), MICA_F32, S(2, 1), 0);
    CHECK(mica_sum(s, mica_scalar(s, 7, MICA_F64), NULL, 0, true), MICA_F64, SCALAR, 7);
    CHECK(mica_mean(s, x, AXES(0, 2), false), MICA_F64, S(3), 51.5 + 10 * (double)i);
    CHECK(mica_mean(s, mica_zeros(s, S(0), MICA_F32), NULL, 0, false), MICA_F32, SCALAR, (double)NAN);
    CHECK(mica_max(s, x, AXES(1), true), MICA_F64, S(2, 1, 4), x_at(i, 2, k));
    CHECK(mica_max(s, mica_zeros(s, S(0, 3), MICA_F32), AXES(1), false), MICA_F32, S(0), 0);
    CHECK(mica_min(s, ints, AXES(0, 1, 2), false), MICA_U16, SCALAR, 0);
    CHECK(mica_argmax(s, mica_neg(s, x), 1, true), MICA_U32, S(2, 1, 4), 0);
    CHECK(mica_argmax(s, F(1, 5, 5, 2), -1, false), MICA_U32, SCALAR, 1);
    CHECK(mica_argmax(s, x, 2, false), MICA_U32, S(2, 3), 3);
    CHECK(mica_cumsum(s, x, 1), MICA_F64, S(2, 3, 4), (double)((j + 1) * (100 * i + k) + 5 * j * (j + 1)));
    CHECK(mica_cumsum(s, I(1, 2, 3), 0), MICA_I32, S(3), (double)((i + 1) * (i + 2) / 2));
    close_enough = 1e-12;
    CHECK(mica_logsumexp(s, mica_mul_scalar(s, x, 0), 1, true), MICA_F64, S(2, 1, 4), log(3));
    CHECK(mica_logsumexp(s, x, 0, false), MICA_F64, S(3, 4), 100 + 10 * (double)i + (double)j);
    CHECK(mica_softmax(s, x, 1), MICA_F64, S(2, 3, 4), exp(10 * (double)j) / (1 + exp(10) + exp(20)));
    close_enough = 0;
}

static void ordering(void **state) {
    (void)state;
    mica_array *v = F(3, 1, (double)NAN, 2, 1), *x = numbers(MICA_F64);
    static const double sorted[] = {1, 1, 2, 3}, order[] = {1, 4, 3, 0, 2};
    CHECK(mica_sort(s, v, 0), MICA_F64, S(5), i == 4 ? (double)NAN : sorted[i]);
    CHECK(mica_argsort(s, v, -1), MICA_U32, S(5), order[i]);
    CHECK(mica_sort(s, mica_neg(s, x), 1), MICA_F64, S(2, 3, 4), -x_at(i, 2 - j, k));
    CHECK(mica_topk(s, x, 2, 1), MICA_F64, S(2, 2, 4), x_at(i, 2 - j, k));
    CHECK(mica_topk(s, x, 3, 1), MICA_F64, S(2, 3, 4), x_at(i, 2 - j, k));
    CHECK(mica_topk(s, x, 0, 1), MICA_F64, S(2, 0, 4), 0);
    mica_array *first = mica_slice_axis(s, mica_argpartition(s, F(9, 2, 7, 1, 8), 2, 0), 0, 0, 2);
    CHECK(mica_sort(s, first, 0), MICA_U32, S(2), i ? 3 : 1);
}

static void shapes(void **state) {
    (void)state;
    mica_array *x = numbers(MICA_F64), *y = mica_neg(s, x), *half[2], *many[20];
    CHECK(mica_concatenate(s, (mica_array *[]){x, y}, 2, 1), MICA_F64, S(2, 6, 4), j < 3 ? x_at(i, j, k) : -x_at(i, j - 3, k));
    for (int n = 0; n < 20; n++) many[n] = mica_full(s, S(1, 2), n, MICA_I8);
    CHECK(mica_concatenate(s, many, 20, 0), MICA_I8, S(20, 2), (double)i);
    CHECK(mica_stack(s, many, 20, -1), MICA_I8, S(1, 2, 20), (double)k);
    CHECK(mica_stack(s, (mica_array *[]){x, y}, 2, 1), MICA_F64, S(2, 2, 3, 4), (j ? -1 : 1) * x_at(i, k, l));
    assert_true(mica_split(s, x, 2, 2, half));
    CHECK(half[1], MICA_F64, S(2, 3, 2), x_at(i, j, k + 2));
    CHECK(mica_pad(s, x, AT(0, 1, 0), AT(0, 0, 2), -1), MICA_F64, S(2, 4, 6), j < 1 || k > 3 ? -1 : x_at(i, j - 1, k));
    CHECK(mica_repeat(s, x, 3, 1), MICA_F64, S(2, 9, 4), x_at(i, j / 3, k));
    CHECK(mica_repeat(s, x, 0, 1), MICA_F64, S(2, 0, 4), 0);
    CHECK(mica_tril(s, x, 1), MICA_F64, S(2, 3, 4), k <= j + 1 ? x_at(i, j, k) : 0);
    CHECK(mica_triu(s, x, -1), MICA_F64, S(2, 3, 4), k >= j - 1 ? x_at(i, j, k) : 0);
    CHECK(mica_slice_update(s, x, mica_zeros(s, S(1, 2, 2), MICA_F64), AT(1, 0, -1), AT(1, 2, -3)), MICA_F64, S(2, 3, 4),
          i == 1 && j != 1 && k % 3 == 0 ? 0 : x_at(i, j, k));
    CHECK(mica_slice(s, x, AT(-1, 0, 3), AT(9, 3, -9), AT(1, 2, -2)), MICA_F64, S(1, 2, 2), x_at(1, 2 * j, 3 - 2 * k));
    CHECK(mica_transpose(s, x, NULL), MICA_F64, S(4, 3, 2), x_at(k, j, i));
    CHECK(mica_reshape(s, mica_transpose(s, x, (int[]){1, 0, 2}), S(6, -1)), MICA_F64, S(6, 4), x_at(i % 2, i / 2, j));
    CHECK(mica_as_strided(s, x, S(3, 4), AT(-4, 1), 8), MICA_F64, S(3, 4), x_at(0, 2 - i, j));
    CHECK(mica_arange(s, 5, 1, -1.5, MICA_F32), MICA_F32, S(3), 5 - 1.5 * (double)i);
    CHECK(mica_arange(s, 3, 3, 1, MICA_I64), MICA_I64, S(0), 0);
    CHECK(mica_full(s, S(2, 2), 7.9, MICA_U8), MICA_U8, S(2, 2), 7);
}

static void indexing(void **state) {
    (void)state;
    mica_array *x = numbers(MICA_F64), *ids = mica_reshape(s, I(2, 0, -1, 3, 1, -4), S(2, 3));
    static const int64_t at[2][3] = {{2, 0, 2}, {-1, 1, -1}}; // along axis 1; -1: outside
#define OR_NAN(ok, value) ((ok) ? (value) : (double)NAN)
    CHECK(mica_take(s, x, ids, 1), MICA_F64, S(2, 2, 3, 4), OR_NAN(at[j][k] >= 0, x_at(i, at[j][k], l)));
    CHECK(mica_take(s, x, mica_scalar(s, 1, MICA_U8), -1), MICA_F64, S(2, 3), x_at(i, j, 1));
    CHECK(mica_take(s, numbers(MICA_I32), I(5, -2), 0), MICA_I32, S(2, 3, 4), i ? x_at(0, j, k) : 0);
    CHECK(mica_take(s, x, mica_zeros(s, S(0), MICA_I64), 0), MICA_F64, S(0, 3, 4), 0);
    CHECK(mica_take_along_axis(s, x, mica_reshape(s, I(1, 0, 2, 2), S(1, 1, 4)), 1), MICA_F64, S(2, 1, 4), x_at(i, k == 0 ? 1 : k == 1 ? 0 : 2, k));
    CHECK(mica_take_along_axis(s, mica_slice_axis(s, x, 0, 0, 1), mica_reshape(s, I(0, 1), S(2, 1, 1)), 2), MICA_F64, S(2, 3, 1), x_at(0, j, i));
    CHECK(mica_put_along_axis(s, x, mica_reshape(s, I(2), S(1, 1, 1)), mica_scalar(s, -5, MICA_F64), 1), MICA_F64, S(2, 3, 4), j == 2 ? -5 : x_at(i, j, k));
    CHECK(mica_scatter_add(s, F(0, 0, 0), I(2, 0, 2, 9), F(1, 2, 4, 8)), MICA_F64, S(3), i == 0 ? 2 : i == 2 ? 5 : 0);
}

static void attention_masks(void **state) {
    (void)state;
    mica_array *zero = mica_zeros(s, S(1, 2, 3, 4), MICA_F32), *keys = mica_zeros(s, S(1, 1, 5, 4), MICA_F32);
    mica_array *v = mica_broadcast_to(s, mica_reshape(s, mica_arange(s, 0, 5, 1, MICA_F32), S(1, 1, 5, 1)), S(1, 1, 5, 4));
    close_enough = 1e-6; // the mean of the keys' numbers that a query sees
    CHECK(mica_sdpa(s, zero, keys, v, NULL, NULL), MICA_F32, S(1, 2, 3, 4), 2);
    CHECK(mica_sdpa(s, zero, keys, v, NULL, &(mica_sdpa_options){.causal = true}), MICA_F32, S(1, 2, 3, 4), (double)(k + 2) / 2);
    CHECK(mica_sdpa(s, zero, keys, v, NULL, &(mica_sdpa_options){.causal = true, .window = 2}), MICA_F32, S(1, 2, 3, 4), (double)k + 1.5);
    mica_array *mask = mica_astype(s, I(0, 1, 0, 0, 1), MICA_BOOL);
    CHECK(mica_sdpa(s, zero, keys, v, mask, NULL), MICA_F32, S(1, 2, 3, 4), 2.5);
    close_enough = 0;
}

// ---- random: the right dtype, range and frequencies; a key gives the same numbers each time ----
static void random_arrays(void **state) {
    (void)state;
    enum { N = 40000 };
    mica_array *key = mica_random_key(s, 42, 7), *other = mica_random_key(s, 42, 8);
    double *u = read_new(mica_random_uniform(s, key, -2, 4, S(N), MICA_F32), "uniform");
    double *again = read_new(mica_random_uniform(s, mica_random_key(s, 42, 7), -2, 4, S(N / 4, 4), MICA_F32), "uniform");
    double *normal = read_new(mica_random_normal(s, other, S(N), MICA_F64), "normal");
    double *coin = read_new(mica_random_bernoulli(s, other, 0.3, S(N)), "bernoulli");
    mica_array *logits = mica_broadcast_to(s, mica_log(s, F(0.1, 0.6, 0, 0.3)), S(N, 4));
    double *drawn = read_new(mica_random_categorical(s, key, logits), "categorical"), mean = 0, square = 0, heads = 0, counts[4] = {0}, m = 0;
    for (int i = 0; i < N; i++) {
        assert_true(u[i] >= -2 && u[i] < 4 && u[i] == again[i]);
        mean += u[i] / N, m += normal[i] / N, square += normal[i] * normal[i] / N, heads += coin[i] / N;
        counts[(int)drawn[i]] += 1.0 / N;
    }
    assert_true(fabs(mean - 1) < 0.05 && fabs(m) < 0.03 && fabs(square - 1) < 0.05 && fabs(heads - 0.3) < 0.02);
    assert_true(fabs(counts[0] - 0.1) < 0.02 && fabs(counts[1] - 0.6) < 0.02 && counts[2] == 0 && fabs(counts[3] - 0.3) < 0.02);
    free(u);
    free(again);
    free(normal);
    free(coin);
    free(drawn);
}

static int set_up(void **state) {
    (void)state;
    s = mica_scope_new(NULL, NULL);
    return !s;
}

static int tear_down(void **state) {
    (void)state;
    mica_scope_free(s);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise), cmocka_unit_test(products), cmocka_unit_test(quantised), cmocka_unit_test(reductions),
        cmocka_unit_test(ordering),    cmocka_unit_test(shapes),   cmocka_unit_test(indexing),  cmocka_unit_test(attention_masks),
        cmocka_unit_test(random_arrays),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
