// SPDX-License-Identifier: Apache-2.0
// The transforms beyond single rules: how gradients add up along a graph, kept arrays as parameters, what cuts the flow, ties,
// half precision, value_and_grad, and checkpoints, whose results must be those without a checkpoint to the bit.
#include "engine/state.h"
#include "grad_testing.h"

static mica_scope *s;

static mica_array *from(const double *v, int ndim, const int64_t *shape) { return mica_from_data(s, v, ndim, shape, MICA_F64); }
#define VECTOR(...) from((double[]){__VA_ARGS__}, MICA_SHAPE(sizeof((double[]){__VA_ARGS__}) / sizeof(double)))

static void expect(mica_array *a, const double *want, size_t n, const char *what) {
    check_scope(s, what);
    assert_int_equal(mica_size(a), n);
    double *got = read_new(a, what);
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-12 * (1 + fabs(want[i])))) fail_msg("%s at %zu: %.17g, not %.17g", what, i, got[i], want[i]);
    free(got);
}
#define EXPECT(a, ...) expect(a, (double[]){__VA_ARGS__}, sizeof((double[]){__VA_ARGS__}) / sizeof(double), #a)

static mica_array *total(mica_array *a) { return mica_sum(s, a, NULL, 0, false); }

// ---- flow ----
static void paths_add_up(void **state) {
    (void)state;
    mica_array *x = VECTOR(1, 2, 3), *y = mica_square(s, x), *g[2];
    mica_array *loss = total(mica_mul(s, mica_add(s, y, x), x)); // x³ + x²
    assert_true(mica_grad(s, loss, (mica_array *[]){x, y}, 2, g));
    EXPECT(g[0], 5, 16, 33);
    EXPECT(g[1], 1, 2, 3); // an inner node, as a variable of its own
}

static void several_outputs(void **state) {
    (void)state;
    mica_array *x = VECTOR(1, 2), *z = VECTOR(5, 6), *outputs[] = {mica_square(s, x), mica_mul_scalar(s, x, 3), x}, *g[2];
    mica_array *cotangents[] = {VECTOR(1, 10), VECTOR(2, 20), VECTOR(100, 200)};
    assert_true(mica_vjp(s, outputs, cotangents, 3, (mica_array *[]){x, z}, 2, g));
    EXPECT(g[0], 2 + 6 + 100, 40 + 60 + 200);
    EXPECT(g[1], 0, 0); // nothing depends on it
}

static void wanted_twice(void **state) {
    (void)state;
    mica_array *x = VECTOR(3), *g[2];
    assert_true(mica_grad(s, mica_square(s, x), (mica_array *[]){x, x}, 2, g));
    EXPECT(g[0], 6);
    EXPECT(g[1], 6);
}

static void the_flow_is_cut(void **state) {
    (void)state;
    mica_array *x = VECTOR(1, 2, 3), *g;
    mica_array *copy = mica_stop_gradient(s, x), *integer = mica_astype(s, mica_astype(s, x, MICA_I32), MICA_F64);
    mica_array *chosen = mica_take(s, x, mica_argmax(s, x, 0, false), 0);
    mica_array *loss = total(mica_mul(s, mica_add(s, copy, integer), x));
    assert_true(mica_grad(s, mica_add(s, loss, chosen), &x, 1, &g));
    EXPECT(g, 2, 4, 7);
}

static void kept_arrays_are_parameters(void **state) {
    (void)state;
    mica_error e = {0};
    mica_array *kept = mica_keep(s, VECTOR(2, 3), &e), *g[2];
    assert_non_null(kept);
    mica_scope_reset(s);
    mica_array *x = VECTOR(10, 20), *loss = total(mica_mul(s, mica_square(s, kept), x));
    assert_true(mica_grad(s, loss, (mica_array *[]){kept, x}, 2, g));
    EXPECT(g[0], 40, 120);
    EXPECT(g[1], 4, 9);
    mica_scope_reset(s);
    assert_true(mica_grad(s, mica_scalar(s, 1, MICA_F64), &kept, 1, g)); // not used at all
    EXPECT(g[0], 0, 0);
    mica_array_free(kept);
}

// The value of an evaluated graph may be differentiated later.
static void after_evaluation(void **state) {
    (void)state;
    mica_array *x = VECTOR(1, 2), *y = mica_exp(s, x), *loss = total(y), *g;
    assert_true(mica_eval(s, (mica_array *[]){y, loss}, 2, NULL));
    assert_true(mica_grad(s, loss, &x, 1, &g));
    EXPECT(g, exp(1), exp(2));
}

static void ties_and_corners(void **state) {
    (void)state;
    mica_array *x = VECTOR(1, 3, 3, 2), *y = VECTOR(1, 4, 3, 0), *zero = VECTOR(0, 0, -1, 0), *g[2];
    assert_true(mica_grad(s, mica_max(s, x, NULL, 0, false), &x, 1, g));
    EXPECT(g[0], 0, 0.5, 0.5, 0);
    assert_true(mica_grad(s, total(mica_maximum(s, x, y)), (mica_array *[]){x, y}, 2, g));
    EXPECT(g[0], 0.5, 0, 0.5, 1);
    EXPECT(g[1], 0.5, 1, 0.5, 0);
    assert_true(mica_grad(s, total(mica_add(s, mica_abs(s, zero), mica_relu(s, zero))), &zero, 1, g));
    EXPECT(g[0], 0, 0, -1, 0);
    mica_array *base = VECTOR(0, 0, 0, 2), *power = VECTOR(0, 1, 3, 0);
    assert_true(mica_grad(s, total(mica_power(s, base, power)), (mica_array *[]){base, power}, 2, g));
    EXPECT(g[0], 0, 1, 0, 0);
    EXPECT(g[1], 0, 0, 0, log(2));
    assert_true(mica_grad(s, total(g[0]), &base, 1, g)); // 0 * inf must not appear
    EXPECT(g[0], 0, 0, 0, 0);
}

// A row that may attend to nothing gives zeros, and no NaN flows from it, nor from the second derivative.
static void unseeing_rows(void **state) {
    (void)state;
    mica_array *q = mica_random_normal(s, mica_random_key(s, 1, 1), MICA_SHAPE(1, 1, 2, 4), MICA_F64);
    mica_array *hidden = mica_from_data(s, (unsigned char[]){0, 0, 1, 1}, MICA_SHAPE(2, 2), MICA_BOOL), *g, *g2 = NULL;
    mica_array *y = mica_sdpa(s, q, q, q, hidden, NULL);
    assert_true(mica_grad(s, total(mica_square(s, y)), &q, 1, &g) && mica_grad(s, total(mica_square(s, g)), &q, 1, &g2));
    double *v = read_new(y, "y"), *first = read_new(g, "g"), *second = read_new(g2, "g2");
    for (int i = 0; i < 4; i++) assert_true(v[i] == 0);
    for (int i = 0; i < 8; i++) assert_true(isfinite(first[i]) && isfinite(second[i]));
    free(v);
    free(first);
    free(second);
}

// Gradients of half-precision graphs have the dtype of their array and come close to those in f64.
static mica_array *half_graph(mica_scope *scope, mica_array *const *x) {
    mica_array *h = mica_rms_norm(scope, x[0], x[1], 1e-5f);
    h = mica_softmax(scope, mica_swiglu(scope, h, mica_gelu(scope, mica_layer_norm(scope, h, NULL, NULL, 1e-5f))), -1);
    return mica_logsumexp(scope, mica_mul_scalar(scope, h, 4), -1, false);
}

static void half_precision(void **state) {
    (void)state;
    for (int type = 0; type < 2; type++) {
        mica_dtype dtype = type ? MICA_BF16 : MICA_F16;
        mica_scope_reset(s);
        mica_array *key = mica_random_key(s, 3, 4), *g[2], *g64[2];
        mica_array *x[] = {mica_random_normal(s, key, MICA_SHAPE(4, 32), dtype), mica_random_uniform(s, key, 0.5, 1.5, MICA_SHAPE(32), dtype)};
        mica_array *x64[] = {mica_astype(s, x[0], MICA_F64), mica_astype(s, x[1], MICA_F64)};
        mica_array *y = half_graph(s, x), *y64 = half_graph(s, x64);
        mica_array *c = mica_ones(s, MICA_SHAPE(4), dtype), *c64 = mica_ones(s, MICA_SHAPE(4), MICA_F64);
        assert_true(mica_vjp(s, &y, &c, 1, x, 2, g) && mica_vjp(s, &y64, &c64, 1, x64, 2, g64));
        for (int i = 0; i < 2; i++) {
            assert_int_equal(mica_array_dtype(g[i]), dtype);
            double *got = read_new(g[i], "half"), *want = read_new(g64[i], "wide"), norm = 0, error = 0;
            for (int64_t k = 0; k < mica_size(g[i]); k++) norm += want[k] * want[k], error += (got[k] - want[k]) * (got[k] - want[k]);
            if (!(sqrt(error / norm) < (type ? 0.04 : 0.005))) fail_msg("%s, input %d: relative error %g", mica_dtype_name(dtype), i, sqrt(error / norm));
            free(got);
            free(want);
        }
    }
}

// ---- value_and_grad ----
static bool product_and_sum(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    assert_true(n_in == 3 && n_out == 2);
    ++*(int *)ctx;
    out[0] = mica_sum(scope, mica_mul(scope, mica_mul(scope, in[0], in[1]), in[2]), NULL, 0, true);
    out[1] = mica_add(scope, in[0], in[1]);
    return out[0] && out[1];
}

static void value_and_grad(void **state) {
    (void)state;
    int calls = 0;
    mica_array *in[] = {VECTOR(1, 2), VECTOR(3, 4), VECTOR(5, 6)}, *out[2], *g[2];
    assert_true(mica_value_and_grad(s, product_and_sum, &calls, in, 3, out, 2, NULL, 2, g));
    EXPECT(out[0], 15 + 48);
    EXPECT(out[1], 4, 6);
    EXPECT(g[0], 15, 24);
    EXPECT(g[1], 5, 12);
    assert_true(mica_value_and_grad(s, product_and_sum, &calls, in, 3, out, 2, (size_t[]){2, 0}, 2, g));
    EXPECT(g[0], 3, 8);
    EXPECT(g[1], 15, 24);
    assert_int_equal(calls, 2);
}

// ---- checkpoint ----
typedef struct layer {
    mica_array *w[3]; // closed over
    int calls, depth;
    bool checkpoint;
} layer;

// Two outputs; the second is not differentiable in part; the inner half is a checkpoint of its own when depth says so.
static bool run_layer(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    layer *l = ctx;
    assert_true(n_in == 2 && n_out == 2);
    l->calls++;
    mica_array *h = mica_rms_norm(scope, in[0], l->w[0], 1e-5f), *inner[2];
    if (l->depth > 0) {
        layer *below = l + 1;
        mica_array *x[] = {h, in[1]};
        if (l->checkpoint ? !mica_checkpoint(scope, run_layer, below, x, 2, inner, 2) : !run_layer(scope, below, x, 2, inner, 2)) return false;
        h = mica_add(scope, inner[0], mica_mul_scalar(scope, inner[1], 0.5));
    }
    h = mica_swiglu(scope, mica_matmul(scope, h, l->w[1]), mica_matmul(scope, h, l->w[2]));
    out[0] = mica_add(scope, in[0], h);
    out[1] = mica_mul(scope, mica_sin(scope, h), in[1]);
    return out[0] && out[1];
}

enum { WIDTH = 8, LAYERS = 3, DEPTH = 2, RESULTS = 3 + 3 * LAYERS * (DEPTH + 1) };

// A stack of layers, each over the output of the one before; outputs are used more than once. Fills `results` with the
// loss and all gradients.
static void run_stack(bool checkpoint, int depth, double *results[RESULTS], int *calls) {
    layer layers[LAYERS][DEPTH + 1];
    mica_array *wanted[RESULTS], *all[RESULTS];
    size_t n = 0;
    mica_scope_reset(s);
    mica_array *key = mica_random_key(s, 9, 9);
    mica_array *x = mica_random_normal(s, key, MICA_SHAPE(5, WIDTH), MICA_F32), *y = mica_random_normal(s, mica_random_key(s, 1, 9), MICA_SHAPE(5, WIDTH), MICA_F32);
    wanted[n++] = x, wanted[n++] = y;
    for (int i = 0; i < LAYERS; i++)
        for (int d = 0; d <= DEPTH; d++) {
            layers[i][d] = (layer){.depth = depth - d, .checkpoint = checkpoint};
            for (int w = 0; w < 3; w++) {
                mica_array *k = mica_random_key(s, (uint64_t)(i * 10 + w), (uint64_t)d);
                layers[i][d].w[w] = w ? mica_random_normal(s, k, MICA_SHAPE(WIDTH, WIDTH), MICA_F32) : mica_random_uniform(s, k, 0, 1, MICA_SHAPE(WIDTH), MICA_F32);
                wanted[n++] = layers[i][d].w[w];
            }
        }
    mica_array *in[] = {x, y}, *out[2];
    for (int i = 0; i < LAYERS; i++) {
        bool ok = checkpoint ? mica_checkpoint(s, run_layer, layers[i], in, 2, out, 2) : run_layer(s, layers[i], in, 2, out, 2);
        assert_true(ok);
        in[0] = out[0], in[1] = mica_add(s, out[1], in[0]);
    }
    mica_array *loss = mica_mean(s, mica_square(s, mica_mul(s, in[0], in[1])), NULL, 0, false);
    all[0] = loss;
    if (!mica_grad(s, loss, wanted, n, all + 1)) check_scope(s, "stack");
    assert_true(mica_eval(s, all, n + 1, NULL));
    for (size_t i = 0; i <= n; i++) results[i] = read_new(all[i], "stack");
    *calls = 0;
    for (int i = 0; i < LAYERS; i++)
        for (int d = 0; d <= DEPTH; d++) *calls += layers[i][d].calls;
}

static void checkpoint_changes_nothing(void **state) {
    (void)state;
    for (int depth = 0; depth <= DEPTH; depth++) {
        double *plain[RESULTS], *again[RESULTS];
        int plain_calls, calls;
        run_stack(false, depth, plain, &plain_calls);
        run_stack(true, depth, again, &calls);
        assert_int_equal(plain_calls, LAYERS * (depth + 1));
        assert_int_equal(calls, LAYERS * (depth + 1) * (depth + 4) / 2); // the d-th level inside runs d + 2 times
        bool moved = false;
        for (size_t i = 0; i < RESULTS; i++) {
            size_t elements = i == 0 ? 1 : i < 3 ? 5 * WIDTH : (i - 3) % 3 ? WIDTH * WIDTH : WIDTH;
            if (memcmp(plain[i], again[i], elements * sizeof(double))) fail_msg("depth %d: gradient %zu differs", depth, i);
            for (size_t k = 0; k < elements; k++) moved |= i > 0 && plain[i][k] != 0;
            free(plain[i]);
            free(again[i]);
        }
        assert_true(moved);
    }
}

// Memory of the intermediates of a deep stack's gradient.
static bool wide_layer(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)n_in, (void)n_out;
    mica_array *wide = mica_matmul(scope, in[0], ctx), *h = mica_silu(scope, mica_sin(scope, mica_exp(scope, wide)));
    out[0] = mica_add(scope, in[0], mica_matmul(scope, h, mica_transpose(scope, ctx, NULL)));
    return out[0] != NULL;
}

static size_t stack_workspace(bool checkpoint) {
    mica_device *d = mica_device_open("cpu", &(mica_device_options){.threads = 1}, NULL);
    mica_scope *scope = mica_scope_new(d, NULL);
    mica_array *w = mica_random_uniform(scope, mica_random_key(scope, 1, 1), -0.1, 0.1, MICA_SHAPE(8, 64), MICA_F32);
    mica_array *x = mica_random_normal(scope, mica_random_key(scope, 1, 2), MICA_SHAPE(32, 8), MICA_F32), *h = x, *g[2];
    for (int i = 0; i < 16; i++)
        assert_true(checkpoint ? mica_checkpoint(scope, wide_layer, w, &h, 1, &h, 1) : wide_layer(scope, w, &h, 1, &h, 1));
    assert_true(mica_grad(scope, mica_sum(scope, h, NULL, 0, false), (mica_array *[]){x, w}, 2, g));
    assert_true(mica_eval(scope, g, 2, NULL));
    size_t bytes = d->state->workspace->size;
    mica_scope_free(scope);
    mica_device_close(d);
    return bytes;
}

static void checkpoints_save_memory(void **state) {
    (void)state;
    size_t plain = stack_workspace(false), saved = stack_workspace(true);
    if (saved > plain / 3) fail_msg("%zu bytes of intermediates with checkpoints, %zu without", saved, plain);
}

// Outputs of a checkpoint that are its inputs, or not used, or used without a gradient.
static bool pass_through(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)ctx, (void)n_in, (void)n_out;
    out[0] = in[0];
    out[1] = mica_exp(scope, in[0]);
    out[2] = mica_argmax(scope, in[0], 0, false);
    return out[2] != NULL;
}

static void odd_outputs_of_a_checkpoint(void **state) {
    (void)state;
    mica_array *x = VECTOR(1, 3, 2), *out[3], *g;
    assert_true(mica_checkpoint(s, pass_through, NULL, &x, 1, out, 3));
    assert_true(mica_grad(s, total(mica_mul(s, out[0], x)), &x, 1, &g));
    EXPECT(g, 2, 6, 4);
    EXPECT(mica_astype(s, out[2], MICA_F64), 1);
    assert_true(mica_grad(s, total(mica_mul(s, out[0], mica_stop_gradient(s, out[1]))), &x, 1, &g));
    EXPECT(g, exp(1), exp(3), exp(2));
    assert_true(mica_grad(s, total(mica_square(s, out[1])), (mica_array *[]){out[1]}, 1, &g)); // an output as variable
    EXPECT(g, 2 * exp(1), 2 * exp(3), 2 * exp(2));
}

// Second derivatives and forward mode pass through checkpoints.
static bool cube(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)ctx, (void)n_in, (void)n_out;
    out[0] = mica_mul(scope, in[0], mica_square(scope, in[0]));
    return out[0] != NULL;
}

static void derivatives_of_a_checkpoint(void **state) {
    (void)state;
    mica_array *x = VECTOR(1, 2, 3), *y, *g, *g2 = NULL, *t = VECTOR(1, 0, -2), *along;
    assert_true(mica_checkpoint(s, cube, NULL, &x, 1, &y, 1));
    assert_true(mica_grad(s, total(y), &x, 1, &g) && mica_grad(s, total(g), &x, 1, &g2));
    EXPECT(g, 3, 12, 27);
    EXPECT(g2, 6, 12, 18);
    assert_true(mica_jvp(s, &y, 1, &x, &t, 1, &along));
    EXPECT(along, 3, 0, -54);
}

// A gradient inside a checkpoint: the function itself differentiates.
static bool slope(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)ctx, (void)n_in, (void)n_out;
    mica_array *y = mica_sum(scope, mica_exp(scope, mica_square(scope, in[0])), NULL, 0, false);
    return mica_grad(scope, y, in, 1, out);
}

static void gradient_inside_a_checkpoint(void **state) {
    (void)state;
    mica_array *x = VECTOR(0.5, 1), *y, *g;
    assert_true(mica_checkpoint(s, slope, NULL, &x, 1, &y, 1));
    assert_true(mica_grad(s, total(y), &x, 1, &g)); // of 2x exp(x²): (2 + 4x²) exp(x²)
    EXPECT(g, 3 * exp(0.25), 6 * exp(1));
}

// ---- attention ----
// Without a mask the gradient is one op; with one that hides nothing, a graph.
static void compare_attention(mica_dtype t, int64_t H, int64_t T, const mica_sdpa_options *o) {
    enum { B = 2, HKV = 2, DH = 24 };
    mica_array *x[3], *g[2][3], *mask = mica_astype(s, mica_full(s, 2, (int64_t[]){T, T}, 1, MICA_I32), MICA_BOOL);
    for (int i = 0; i < 3; i++) {
        mica_array *like = mica_full(s, 4, (int64_t[]){B, i ? HKV : H, T, DH}, 0, MICA_F64);
        x[i] = mica_astype(s, random_like(s, like, 7 + (uint64_t)i), t);
    }
    size_t ops = 0;
    for (int i = 0; i < 2; i++) {
        mica_array *y = mica_sdpa(s, x[0], x[1], x[2], i ? mask : NULL, o);
        mica_array *loss = total(mica_mul(s, mica_astype(s, y, MICA_F32), mica_astype(s, random_like(s, y, 3), MICA_F32)));
        if (!mica_grad(s, loss, x, 3, g[i])) check_scope(s, "attention");
    }
    for (uint32_t i = 0; i < mica_scope_count(s); i++) ops += mica_scope_node(s, i)->op == MICA_OP_segment_attention_grad;
    assert_int_equal(ops, 1);
    for (int i = 0; i < 3; i++) {
        double *got = read_new(g[0][i], "one op"), *want = read_new(g[1][i], "a graph");
        for (int64_t k = 0; k < mica_size(x[i]); k++)
            if (!(fabs(got[k] - want[k]) <= (t == MICA_F32 ? 1e-5 : 2e-2) * (1 + fabs(want[k]))))
                fail_msg("gradient of input %d at %d: %g, not %g", i, (int)k, got[k], want[k]);
        free(got), free(want);
    }
    mica_scope_reset(s);
}

static void attention_by_one_op(void **state) {
    (void)state;
    const mica_sdpa_options options[] = {{.scale = 0.3f}, {.causal = true}, {.causal = true, .window = 7}};
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 3; i++) {
            compare_attention(t ? MICA_BF16 : MICA_F32, 6, 70, &options[i]);
            compare_attention(t ? MICA_BF16 : MICA_F32, 2, 1, &options[i]);
        }
}

static int set_up(void **state) {
    (void)state;
    mica_device *d = mica_device_open("cpu", &(mica_device_options){.threads = 2}, NULL);
    s = mica_scope_new(d, NULL);
    mica_device_close(d);
    return !s;
}

static int tear_down(void **state) {
    (void)state;
    mica_scope_free(s);
    return 0;
}

static int reset(void **state) {
    (void)state;
    mica_scope_reset(s);
    return 0;
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup(name, reset)
    const struct CMUnitTest tests[] = {
        TEST(paths_add_up), TEST(several_outputs), TEST(wanted_twice), TEST(the_flow_is_cut), TEST(kept_arrays_are_parameters),
        TEST(after_evaluation), TEST(ties_and_corners), TEST(unseeing_rows), TEST(half_precision), TEST(value_and_grad),
        TEST(checkpoint_changes_nothing), TEST(checkpoints_save_memory), TEST(odd_outputs_of_a_checkpoint), TEST(derivatives_of_a_checkpoint),
        TEST(gradient_inside_a_checkpoint), TEST(attention_by_one_op),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
