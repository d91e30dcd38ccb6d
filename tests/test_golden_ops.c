// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Ops and their gradients against PyTorch's in f64 (tests/golden/ops, made by tests/oracle/make_ops.py): inputs by their letter,
// result y, cotangent dy, gradient dx of input x. In f64 graphs agree to rounding; the rotary table is f32 inside. The
// same graphs in f32 must come as close as f32 allows.
#include "grad_testing.h"
#include "io/safetensors.h"
#include <stdio.h>

static mica_scope *s;
static mica_safetensors *file;
static const char *file_name;
static mica_dtype precision; // of the graphs

static void golden_open(const char *name) {
    char path[500];
    mica_error e = {0};
    snprintf(path, sizeof path, MICA_SOURCE_DIR "/tests/golden/ops/%s.safetensors", name);
    if (!(file = mica_safetensors_open(path, &e))) fail_msg("%s", e.msg);
    file_name = name;
    mica_scope_reset(s);
}

static void golden_close(void) {
    mica_safetensors_free(file);
    file = NULL;
}

static const mica_stored *find(const char *name) {
    const mica_stored *t = mica_safetensors_find(file, name);
    if (!t) fail_msg("%s: no tensor %s", file_name, name);
    return t;
}

// As stored; f64 in the precision asked for.
static mica_array *golden(const char *name) {
    const mica_stored *t = find(name);
    mica_array *a = mica_from_data(s, t->data, t->ndim, t->shape, t->dtype);
    return t->dtype == MICA_F64 ? mica_astype(s, a, precision) : a;
}

static double golden_number(const char *name) {
    double v;
    memcpy(&v, find(name)->data, sizeof v);
    return v;
}

static void compare(mica_array *got, const char *name, double tolerance) {
    check_scope(s, file_name);
    const mica_stored *t = find(name);
    mica_array *want = mica_from_data(s, t->data, t->ndim, t->shape, t->dtype);
    assert_int_equal(mica_size(got), mica_size(want));
    double *g = read_new(got, name), *w = read_new(want, name), largest = 0;
    for (int64_t i = 0; i < mica_size(want); i++) largest = isfinite(w[i]) ? fmax(largest, fabs(w[i])) : largest;
    for (int64_t i = 0; i < mica_size(want); i++) {
        bool same = g[i] == w[i] || (isnan(g[i]) && isnan(w[i])) || fabs(g[i] - w[i]) <= tolerance * fmin(fmax(largest, 1e-300), fabs(w[i]) + 1);
        if (!same) fail_msg("%s.%s in %s at %d: %.17g, not %.17g", file_name, name, mica_dtype_name(precision), (int)i, g[i], w[i]);
    }
    free(g);
    free(w);
}

static double tolerance(double f64, double f32) { return precision == MICA_F64 ? f64 : f32; }

// y, and the gradients of the named inputs (letters) against "d" + letter.
static void compare_with_gradients(mica_array *y, const char *letters, mica_array *const *inputs, double f64, double f32) {
    mica_array *g[10], *dy = golden("dy");
    char name[20];
    size_t n = strlen(letters);
    check_scope(s, file_name);
    if (!mica_vjp(s, &y, &dy, 1, inputs, n, g)) check_scope(s, file_name);
    compare(y, "y", tolerance(f64, f32));
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "d%c", letters[i]);
        compare(g[i], name, tolerance(f64, f32) * 4);
    }
    golden_close();
}

#define IN(...) (mica_array *[]){__VA_ARGS__}

static void run_activations(void) {
    static const struct {
        const char *name;
        mica_array *(*f)(mica_scope *, mica_array *);
    } table[] = {{"gelu_tanh", mica_gelu_tanh}, {"gelu_erf", mica_gelu}, {"silu", mica_silu},
                 {"sigmoid", mica_sigmoid},     {"tanh", mica_tanh},     {"relu", mica_relu}};
    golden_open("activations");
    for (size_t i = 0; i < MICA_COUNT(table); i++) {
        char name[30];
        mica_array *x = golden("x"), *dy = golden("dy"), *y = table[i].f(s, x), *g;
        assert_true(mica_vjp(s, &y, &dy, 1, &x, 1, &g));
        compare(y, table[i].name, tolerance(1e-12, 2e-6));
        snprintf(name, sizeof name, "d_%s", table[i].name);
        compare(g, name, tolerance(1e-12, 2e-5));
    }
    golden_close();
}

static void run_rope(void) {
    static const char *names[] = {"half_plain", "half_offset", "half_partial", "traditional_plain", "traditional_offset", "traditional_partial"};
    for (size_t i = 0; i < MICA_COUNT(names); i++) {
        char path[60];
        snprintf(path, sizeof path, "rope_%s", names[i]);
        golden_open(path);
        mica_rope_options o = {.dims = (int)golden_number("dims"), .traditional = names[i][0] == 't', .base = (float)golden_number("base"),
                               .scale = (float)golden_number("scale")};
        mica_array *x = golden("x"), *offset = mica_from_data(s, (int32_t[]){(int32_t)golden_number("offset")}, MICA_SHAPE(1), MICA_I32);
        // The table's angles are f32: off by the rounding of inv_freq times the position.
        double angle = 2e-7 * (4 + golden_number("offset") * golden_number("scale"));
        compare_with_gradients(mica_rope(s, x, offset, NULL, &o), "x", IN(x), angle, angle + 1e-6);
    }
    golden_open("rope_freqs_offsets");
    mica_array *x = golden("x"), *y = mica_rope(s, x, golden("offsets"), mica_astype(s, golden("freqs"), MICA_F32), NULL);
    compare_with_gradients(y, "x", IN(x), 4e-4, 4e-4);
}

static void run_attention(void) {
    static const char *names[] = {"none", "causal", "window", "bool", "additive", "large"};
    for (size_t i = 0; i < MICA_COUNT(names); i++) {
        char path[60];
        snprintf(path, sizeof path, "sdpa_%s", names[i]);
        golden_open(path);
        mica_array *q = golden("q"), *k = golden("k"), *v = golden("v"), *mask = NULL;
        mica_sdpa_options o = {.scale = (float)golden_number("scale"), .causal = i == 1 || i == 2, .window = i == 2 ? 3 : 0};
        if (i == 3) mask = mica_astype(s, golden("mask"), MICA_BOOL);
        if (i == 4) mask = golden("mask");
        // The scale is f32, and the scores of "large" go into the thousands: their exponentials magnify its rounding.
        double scale = i == 5 ? 1e-4 : 1e-7;
        compare_with_gradients(mica_sdpa(s, q, k, v, mask, &o), "qkv", IN(q, k, v), scale, i == 5 ? 1e-2 : 1e-5);
    }
}

static void run_rows(void) {
    golden_open("logsumexp");
    mica_array *x = golden("x");
    compare(mica_logsumexp(s, golden("edge"), -1, false), "y_edge", 1e-6);
    compare_with_gradients(mica_logsumexp(s, x, -1, false), "x", IN(x), 1e-12, 1e-3); // inputs near -10000
    golden_open("softmax");
    x = golden("x");
    compare(mica_softmax(s, mica_slice_axis(s, x, 0, 0, 5), 0), "y_axis0", tolerance(1e-12, 1e-3)); // inputs near -10000
    compare_with_gradients(mica_softmax(s, x, -1), "x", IN(x), 1e-12, 1e-3);
    golden_open("rms_norm");
    x = golden("x");
    mica_array *w = golden("w");
    compare_with_gradients(mica_rms_norm(s, x, w, (float)golden_number("eps")), "xw", IN(x, w), 1e-9, 2e-6);
    golden_open("rms_norm_edge");
    compare(mica_rms_norm(s, golden("x"), golden("w"), (float)golden_number("eps")), "y", tolerance(1e-7, 1e-6));
    golden_close();
    golden_open("layer_norm");
    x = golden("x"), w = golden("w");
    mica_array *b = golden("b");
    compare_with_gradients(mica_layer_norm(s, x, w, b, (float)golden_number("eps")), "xwb", IN(x, w, b), 1e-9, 2e-6);
}

static void run_losses(void) {
    golden_open("cross_entropy");
    mica_array *x = golden("x");
    compare_with_gradients(mica_cross_entropy(s, x, golden("targets")), "x", IN(x), 1e-12, 1e-6);
    golden_open("cross_entropy_masked");
    x = golden("x");
    compare_with_gradients(mica_masked_cross_entropy(s, x, golden("targets"), golden("mask")), "x", IN(x), 1e-12, 1e-6);
    golden_open("mse");
    x = golden("x");
    compare_with_gradients(mica_mse_loss(s, x, golden("t")), "x", IN(x), 1e-12, 1e-6);
}

static void run_indexing(void) {
    golden_open("take");
    mica_array *x = golden("x");
    compare_with_gradients(mica_take(s, x, golden("idx"), 0), "x", IN(x), 1e-15, 1e-6);
    golden_open("cumsum");
    x = golden("x");
    compare_with_gradients(mica_cumsum(s, x, 1), "x", IN(x), 1e-13, 1e-6);
    golden_open("take_along_axis");
    x = golden("x");
    compare_with_gradients(mica_take_along_axis(s, x, golden("idx"), 1), "x", IN(x), 1e-15, 1e-6);
    golden_open("sort");
    x = golden("x");
    compare(mica_sort(s, x, 1), "sorted", 0);
    compare(mica_argsort(s, x, 1), "argsort_stable", 0);
    compare(mica_argmax(s, x, 1, false), "argmax_first", 0);
    golden_close();
}

static mica_array *linear(mica_array *x, mica_array *w) { return mica_matmul(s, x, mica_transpose(s, w, NULL)); }

// [T, n*Dh] -> [1, n, T, Dh]
static mica_array *heads(mica_array *x, int n, bool rotate) {
    x = mica_reshape(s, x, MICA_SHAPE(1, mica_dim(x, 0), n, mica_dim(x, 1) / n));
    x = mica_swap_axes(s, x, 1, 2);
    return rotate ? mica_rope(s, x, NULL, NULL, &(mica_rope_options){.base = 100}) : x;
}

// A transformer block with its loss: embedding, norms, attention, gated feed-forward, tied head.
static void run_block(void) {
    static const char *names[] = {"e", "w1", "wq", "wk", "wv", "wo", "w2", "wg", "wu", "wd"};
    enum { E, W1, WQ, WK, WV, WO, W2, WG, WU, WD, WEIGHTS };
    golden_open("block");
    mica_array *w[WEIGHTS], *g[WEIGHTS];
    for (int i = 0; i < WEIGHTS; i++) w[i] = golden(names[i]);
    float eps = (float)golden_number("eps");
    mica_array *x = mica_take(s, w[E], golden("tokens"), 0), *h = mica_rms_norm(s, x, w[W1], eps);
    mica_array *a = mica_sdpa(s, heads(linear(h, w[WQ]), 2, true), heads(linear(h, w[WK]), 1, true), heads(linear(h, w[WV]), 1, false), NULL,
                              &(mica_sdpa_options){.causal = true});
    a = mica_reshape(s, mica_swap_axes(s, a, 1, 2), MICA_SHAPE(mica_dim(x, 0), -1));
    x = mica_add(s, x, linear(a, w[WO]));
    h = mica_rms_norm(s, x, w[W2], eps);
    x = mica_add(s, x, linear(mica_swiglu(s, linear(h, w[WG]), linear(h, w[WU])), w[WD]));
    mica_array *loss = mica_cross_entropy(s, linear(x, w[E]), golden("targets"));
    if (!mica_grad(s, loss, w, WEIGHTS, g)) check_scope(s, "block");
    double bound = tolerance(1e-6, 1e-5); // the rotary table is f32 in both
    compare(loss, "y", bound);
    mica_array *dy = golden("dy");
    for (int i = 0; i < WEIGHTS; i++) {
        char name[10];
        snprintf(name, sizeof name, "d%s", names[i]);
        compare(mica_mul(s, g[i], mica_reshape(s, dy, 0, NULL)), name, 4 * bound);
    }
    golden_close();
}

static void in_both(void (*run)(void)) {
    precision = MICA_F64;
    run();
    precision = MICA_F32;
    run();
}

static void activations(void **state) { (void)state, in_both(run_activations); }
static void rope(void **state) { (void)state, in_both(run_rope); }
static void attention(void **state) { (void)state, in_both(run_attention); }
static void rows(void **state) { (void)state, in_both(run_rows); }
static void losses(void **state) { (void)state, in_both(run_losses); }
static void indexing(void **state) { (void)state, in_both(run_indexing); }
static void block(void **state) { (void)state, in_both(run_block); }

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
        cmocka_unit_test(activations), cmocka_unit_test(rope),     cmocka_unit_test(attention), cmocka_unit_test(rows),
        cmocka_unit_test(losses),      cmocka_unit_test(indexing), cmocka_unit_test(block),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
