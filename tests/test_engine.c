// SPDX-License-Identifier: Apache-2.0
// The engine itself: laziness, sticky errors, plans and their cache, views as results, kept arrays, workspace and memory limits,
// in-place ops, several scopes at work at once.
// labels: threads
#include "engine/plan.h"
#include "engine/state.h"
#include "mica/fast.h"
#include "mica/ops.h"
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static mica_device *device;
static mica_scope *s;

static int open_scope(void **state) {
    (void)state;
    mica_error err = {0};
    device = mica_device_open("cpu", &(mica_device_options){.threads = 2}, &err);
    s = device ? mica_scope_new(device, &err) : NULL;
    if (!s) print_error("%s\n", err.msg);
    return s ? 0 : 1;
}

static int close_scope(void **state) {
    (void)state;
    mica_scope_free(s);
    mica_device_close(device);
    return mica_alloc_get_stats().live == 0 ? 0 : 1; // nothing leaked
}

static mica_array *numbers(mica_scope *scope, int64_t n, double first) {
    return mica_arange(scope, first, first + (double)n, 1, MICA_F32);
}

// A leaf [n, n] of first, first + 1, …
static mica_array *square_leaf(mica_scope *scope, int64_t n, float first) {
    float *x = malloc((size_t)(n * n) * sizeof *x);
    for (int64_t i = 0; i < n * n; i++) x[i] = first + (float)i;
    mica_array *a = mica_from_data(scope, x, MICA_SHAPE(n, n), MICA_F32);
    free(x);
    return a;
}

static bool run(mica_array *a) {
    mica_error err = {0};
    bool ok = mica_eval(s, &a, 1, &err);
    if (!ok) print_error("%s\n", err.msg);
    return ok;
}

static void expect_values(mica_array *a, size_t n, const double *want) {
    double *got = malloc((n + 1) * sizeof *got);
    mica_error err = {0};
    if (!mica_read_f64(a, got, n, &err)) fail_msg("%s", err.msg);
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-5 * (1 + fabs(want[i])))) fail_msg("element %zu is %g, not %g", i, got[i], want[i]);
    free(got);
}
#define EXPECT(a, ...) expect_values(a, sizeof((double[]){__VA_ARGS__}) / sizeof(double), (double[]){__VA_ARGS__})

static uint64_t plans_built(void) { return device->state->plans_built; }
static uint64_t plans_reused(void) { return device->state->plans_reused; }

static const mica_plan *latest_plan(void) {
    const mica_device_state *st = device->state;
    size_t latest = 0;
    for (size_t i = 0; i < MICA_MOST_PLANS; i++)
        if (st->plan_used[i] > st->plan_used[latest]) latest = i;
    return st->plans[latest];
}

// ---- laziness -----------------------------------------------------------------------------------------------
static void nothing_runs_before_eval(void **state) {
    (void)state;
    mica_array *a = numbers(s, 4, 1), *b = mica_exp(s, a), *unused = mica_sin(s, a);
    assert_int_equal(plans_built(), 0);
    assert_null(mica_data(b));
    assert_true(run(b));
    assert_int_equal(plans_built(), 1);
    assert_non_null(mica_data(b));
    assert_null(mica_data(unused)); // nobody asked for it
    assert_int_equal(latest_plan()->step_count, 2);
    EXPECT(b, exp(1), exp(2), exp(3), exp(4));
    assert_int_equal(plans_built() + plans_reused(), 1); // reading what is evaluated runs nothing
    EXPECT(mica_add(s, b, b), 2 * exp(1), 2 * exp(2), 2 * exp(3), 2 * exp(4));
    assert_int_equal(latest_plan()->step_count, 1); // b is a leaf by now
}

static void odd_evaluations(void **state) {
    (void)state;
    mica_error err = {0};
    mica_array *a = numbers(s, 3, 1), *b = mica_neg(s, a), *both[] = {b, b, a};
    assert_true(mica_eval(s, NULL, 0, &err));
    assert_true(mica_eval(s, both, 3, &err)); // the same twice, and its own input
    EXPECT(b, -1, -2, -3);
    EXPECT(a, 1, 2, 3);
    assert_false(mica_eval(s, (mica_array *[]){NULL}, 1, &err));
    assert_string_equal(err.msg, "eval: array 0 is NULL");
    mica_scope *other = mica_scope_new(device, &err);
    mica_array *foreign = numbers(other, 3, 1);
    assert_false(mica_eval(s, &foreign, 1, &err));
    assert_null(mica_add(s, a, foreign));
    assert_true(mica_scope_error(s, &err));
    assert_non_null(strstr(err.msg, "another scope"));
    mica_scope_free(other);
}

static void errors_stick(void **state) {
    (void)state;
    mica_error err = {0};
    mica_array *a = mica_name(mica_zeros(s, MICA_SHAPE(4, 2048), MICA_F32), "hidden");
    mica_array *w = mica_name(mica_zeros(s, MICA_SHAPE(1024, 512), MICA_F32), "layers.3.mlp.up");
    mica_array *good = mica_exp(s, a), *bad = mica_matmul(s, a, w);
    assert_null(bad);
    assert_null(mica_exp(s, bad));
    assert_null(mica_exp(s, a)); // the scope has failed
    assert_null(mica_add(s, a, w));
    assert_false(mica_eval(s, &good, 1, &err));
    assert_non_null(strstr(err.msg, "matmul: "));
    assert_non_null(strstr(err.msg, "f32[4,2048] (hidden) x f32[1024,512] (layers.3.mlp.up)"));
    assert_int_equal(err.code, MICA_ERR_ARGUMENT);
    mica_scope_reset(s);
    assert_false(mica_scope_error(s, NULL));
    EXPECT(mica_neg(s, numbers(s, 2, 1)), -1, -2);
}

// ---- plans --------------------------------------------------------------------------------------------------
// Softmax attention in small ops: matmul, scale, softmax, matmul, add.
static mica_array *little_model(mica_scope *scope, float first, int64_t n) {
    mica_array *x = square_leaf(scope, n, first), *w = square_leaf(scope, n, -3);
    mica_array *y = mica_mul_scalar(scope, mica_matmul(scope, x, mica_transpose(scope, w, NULL)), 1e-3);
    y = mica_matmul(scope, mica_softmax(scope, y, -1), w);
    return mica_add(scope, mica_silu(scope, y), mica_rms_norm(scope, x, NULL, 1e-5f));
}

static void equal_structure_shares_a_plan(void **state) {
    (void)state;
    double first[64], second[64], alone[64];
    assert_true(mica_read_f64(little_model(s, 0, 8), first, 64, NULL));
    mica_scope_reset(s);
    assert_true(mica_read_f64(little_model(s, 5, 8), second, 64, NULL));
    assert_int_equal(plans_built(), 1);
    assert_int_equal(plans_reused(), 1);
    assert_memory_not_equal(first, second, sizeof first); // other data: leaves are bound by position
    mica_device *fresh = mica_device_open("cpu", &(mica_device_options){.threads = 1}, NULL);
    mica_scope *other = mica_scope_new(fresh, NULL);
    assert_true(mica_read_f64(little_model(other, 5, 8), alone, 64, NULL));
    assert_memory_equal(second, alone, sizeof alone);
    mica_scope_free(other);
    mica_device_close(fresh);
    mica_scope_reset(s);
    assert_true(run(little_model(s, 0, 9))); // another shape
    assert_int_equal(plans_built(), 2);
    assert_true(run(mica_rms_norm(s, square_leaf(s, 8, 0), NULL, 1e-5f)));
    assert_true(run(mica_rms_norm(s, square_leaf(s, 8, 0), NULL, 1e-6f))); // another parameter
    assert_int_equal(plans_built(), 4);
}

// Which leaf is which matters: a - b and b - a, x and its own copy.
static void leaves_are_bound_by_position(void **state) {
    (void)state;
    for (int swap = 0; swap < 2; swap++) {
        mica_array *a = mica_from_data(s, (float[]){1, 2}, MICA_SHAPE(2), MICA_F32);
        mica_array *b = mica_from_data(s, (float[]){10, 20}, MICA_SHAPE(2), MICA_F32);
        EXPECT(swap ? mica_sub(s, b, a) : mica_sub(s, a, b), swap ? 9 : -9, swap ? 18 : -18);
        mica_scope_reset(s);
    }
    uint64_t built = plans_built();
    mica_array *a = mica_from_data(s, (float[]){1, 2}, MICA_SHAPE(2), MICA_F32);
    EXPECT(mica_sub(s, a, a), 0, 0); // one leaf, not two
    assert_int_equal(plans_built(), built + 1);
}

static void plans_are_bounded(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 3 * MICA_MOST_PLANS; n++) {
        mica_array *sum = mica_sum(s, numbers(s, n, 1), NULL, 0, false);
        EXPECT(sum, (double)(n * (n + 1) / 2));
        EXPECT(mica_exp(s, numbers(s, 1, 0)), 1); // used all the time: never dropped
        mica_scope_reset(s);
    }
    size_t count = 0;
    for (size_t i = 0; i < MICA_MOST_PLANS; i++) count += device->state->plans[i] != NULL;
    assert_int_equal(count, MICA_MOST_PLANS);
    assert_int_equal(plans_built(), 3 * MICA_MOST_PLANS + 1);
}

static void workspace_is_shared(void **state) {
    (void)state;
    mica_array *x = square_leaf(s, 64, 0), *y = x;
    for (int i = 0; i < 40; i++) y = mica_softmax(s, mica_cumsum(s, y, -1), 0); // no overlay; two alive at a time
    assert_true(run(y));
    const mica_plan *p = latest_plan();
    assert_true(p->unpacked >= 60 * 64 * 64 * sizeof(float));
    assert_true(p->workspace <= 4 * 64 * 64 * sizeof(float));
    y = x;
    for (int i = 0; i < 40; i++) y = mica_sin(s, mica_add(s, y, x)); // each writes over what it read
    assert_true(run(mica_sum(s, y, NULL, 0, false)));
    assert_true(latest_plan()->workspace <= 2 * 64 * 64 * sizeof(float));
}

static void steady_state_allocates_nothing(void **state) {
    (void)state;
    uint64_t calls = 0;
    mica_memory memory = {0};
    mica_array *weight = mica_keep(s, square_leaf(s, 32, 0.5f), NULL);
    for (int step = 0; step < 40; step++) {
        mica_scope_reset(s);
        mica_array *y = little_model(s, (float)step, 32);
        for (int i = 0; i < 30; i++) y = mica_tanh(s, mica_matmul(s, mica_swap_axes(s, y, 0, 1), weight));
        float out[32 * 32];
        assert_true(mica_read_f32(y, out, 32 * 32, NULL));
        if (step == 4) calls = mica_alloc_get_stats().calls, memory = mica_device_memory(device);
    }
    assert_int_equal(mica_alloc_get_stats().calls, calls);
    assert_int_equal(mica_device_memory(device).active, memory.active);
    assert_int_equal(mica_device_memory(device).cache, memory.cache);
    mica_array_free(weight);
}

// ---- views --------------------------------------------------------------------------------------------------
static void views_are_results(void **state) {
    (void)state;
    mica_array *x = mica_reshape(s, mica_add_scalar(s, numbers(s, 6, 0), 1), MICA_SHAPE(2, 3)), *t = mica_transpose(s, x, NULL);
    mica_array *row = mica_slice_axis(s, t, 0, 1, 3), *wide = mica_broadcast_to(s, mica_slice_axis(s, x, 0, 1, 2), MICA_SHAPE(2, 3));
    mica_array *roots[] = {t, row, wide};
    assert_true(mica_eval(s, roots, 3, NULL));
    assert_int_equal(latest_plan()->result_count, 1); // one piece of memory under all three
    EXPECT(t, 1, 4, 2, 5, 3, 6);
    EXPECT(row, 2, 5, 3, 6);
    EXPECT(wide, 4, 5, 6, 4, 5, 6);
    EXPECT(mica_mul(s, t, row = mica_slice_axis(s, mica_concatenate(s, (mica_array *[]){t, t}, 2, 0), 0, 2, 5)), 3, 24, 2, 20, 6, 30);
    assert_true(plans_built() >= 2);
}

// An elementwise op may write over an input that dies with it, but not while another view of it is still to be read.
static void overlays_spare_what_is_read(void **state) {
    (void)state;
    for (int how = 0; how < 4; how++) {
        mica_array *x = mica_exp(s, mica_mul_scalar(s, square_leaf(s, 40, 0), 1e-3)), *y;
        mica_array *t = mica_transpose(s, x, NULL), *flipped = mica_slice(s, x, (int64_t[]){39, 0}, (int64_t[]){-41, 40}, (int64_t[]){-1, 1});
        if (how == 0) y = mica_add(s, x, t);
        else if (how == 1) y = mica_sub(s, flipped, x);
        else if (how == 2) y = mica_mul(s, x, x);
        else y = mica_add(s, x, mica_broadcast_to(s, mica_slice_axis(s, x, 0, 3, 4), MICA_SHAPE(40, 40)));
        double *want = malloc(1600 * sizeof *want);
        for (int i = 0; i < 40; i++)
            for (int j = 0; j < 40; j++) {
                double a = exp(1e-3 * (40 * i + j)), b = exp(1e-3 * (40 * j + i)), c = exp(1e-3 * (40 * (39 - i) + j));
                want[40 * i + j] = how == 0 ? a + b : how == 1 ? c - a : how == 2 ? a * a : a + exp(1e-3 * (120 + j));
            }
        expect_values(y, 1600, want);
        free(want);
        mica_scope_reset(s);
    }
}

// ---- kept arrays ----------------------------------------------------------------------------------------------
static void kept_arrays_outlive_their_scope(void **state) {
    (void)state;
    mica_error err = {0};
    mica_scope *maker = mica_scope_new(device, &err);
    mica_array *kept = mica_keep(maker, mica_transpose(maker, mica_reshape(maker, numbers(maker, 6, 0), MICA_SHAPE(2, 3)), NULL), &err);
    assert_non_null(mica_name(kept, "kept"));
    mica_scope_reset(maker);
    EXPECT(kept, 0, 3, 1, 4, 2, 5);
    EXPECT(mica_neg(s, kept), 0, -3, -1, -4, -2, -5);
    EXPECT(mica_neg(maker, kept), 0, -3, -1, -4, -2, -5);
    assert_true(mica_eval(s, &kept, 1, &err));
    mica_array *again = mica_keep(s, kept, &err), *mixed[] = {again, mica_exp(s, kept)};
    assert_true(mica_eval(s, mixed, 2, &err));
    mica_scope_free(maker);
    mica_array_free(kept);
    EXPECT(again, 0, 3, 1, 4, 2, 5);
    mica_array_free(again);
    mica_array_free(NULL);
    assert_null(mica_keep(s, NULL, &err));
    mica_device *other = mica_device_open("cpu", &(mica_device_options){.threads = 1}, &err);
    mica_scope *there = mica_scope_new(other, &err);
    mica_array *far = mica_keep(there, numbers(there, 2, 0), &err);
    mica_scope_free(there);
    mica_device_close(other); // the array holds the device
    assert_null(mica_neg(s, far));
    assert_true(mica_scope_error(s, &err));
    assert_non_null(strstr(err.msg, "another device"));
    EXPECT(far, 0, 1);
    mica_array_free(far);
}

// ---- memory -------------------------------------------------------------------------------------------------
static void limits_are_kept(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    mica_error err = {0};
    mica_array *big = mica_exp(s, mica_zeros(s, MICA_SHAPE(N), MICA_F32));
    size_t active = mica_device_memory(device).active;
    assert_int_equal(mica_device_set_memory_limit(device, active + N), 0);
    assert_false(mica_eval(s, &big, 1, &err));
    assert_int_equal(err.code, MICA_ERR_NO_MEMORY);
    assert_int_equal(mica_device_memory(device).active, active);
    assert_null(mica_from_data(s, big, MICA_SHAPE(N), MICA_F32)); // refused before anything is read
    assert_true(mica_scope_error(s, &err));
    mica_scope_reset(s);
    assert_int_equal(mica_device_set_memory_limit(device, 0), active + N);
    mica_array *sum = mica_sum(s, mica_exp(s, mica_zeros(s, MICA_SHAPE(N), MICA_F32)), NULL, 0, false);
    EXPECT(sum, N);
    assert_true(mica_device_memory(device).peak >= N * sizeof(float));
    mica_scope_reset(s);
    assert_true(run(mica_exp(s, mica_zeros(s, MICA_SHAPE(N), MICA_F32)))); // a result of 4 MiB
    mica_scope_reset(s);
    assert_true(mica_device_memory(device).cache >= N * sizeof(float));
    size_t before = mica_device_set_cache_limit(device, 0);
    assert_int_equal(mica_device_memory(device).cache, 0);
    assert_int_equal(mica_device_set_cache_limit(device, before), 0);
    mica_device_clear_cache(device);
    mica_device_reset_peak(device);
    assert_int_equal(mica_device_memory(device).peak, mica_device_memory(device).active);
}

// NULL: all devices of the process together.
static void limits_of_the_process(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    mica_error err = {0};
    mica_device_clear_cache(NULL);
    assert_int_equal(mica_device_memory(NULL).cache, 0);
    mica_device *other = mica_device_open("cpu", &(mica_device_options){.threads = 1}, &err);
    assert_non_null(other);
    assert_int_equal(mica_device_memory(NULL).active, mica_device_memory(device).active + mica_device_memory(other).active);
    mica_array *big = mica_exp(s, mica_zeros(s, MICA_SHAPE(N), MICA_F32));
    assert_int_equal(mica_device_set_memory_limit(NULL, mica_device_memory(NULL).active + N), 0);
    assert_false(mica_eval(s, &big, 1, &err));
    assert_int_equal(err.code, MICA_ERR_NO_MEMORY);
    mica_device_set_memory_limit(NULL, 0);
    assert_true(mica_eval(s, &big, 1, &err));
    assert_true(mica_device_memory(NULL).peak >= N * sizeof(float));
    mica_scope_reset(s);
    size_t before = mica_device_set_cache_limit(NULL, 0);
    assert_int_equal(mica_device_memory(NULL).cache, 0);
    mica_device *third = mica_device_open("cpu", &(mica_device_options){.threads = 1}, &err);
    assert_int_equal(mica_device_set_cache_limit(third, 5), 0); // what was set for all holds for those opened later
    assert_int_equal(mica_device_set_cache_limit(NULL, before), 0);
    mica_device_reset_peak(NULL);
    assert_int_equal(mica_device_memory(NULL).peak, mica_device_memory(NULL).active);
    mica_device_close(third);
    mica_device_close(other);
}

static void a_failed_evaluation_can_be_repeated(void **state) {
    (void)state;
    mica_error err = {0};
    mica_array *y = mica_sum(s, mica_cumsum(s, mica_exp(s, mica_zeros(s, MICA_SHAPE(1 << 18), MICA_F64)), 0), NULL, 0, false);
    mica_device_set_memory_limit(device, mica_device_memory(device).active + 4096);
    assert_false(mica_eval(s, &y, 1, &err));
    assert_int_equal(err.code, MICA_ERR_NO_MEMORY);
    mica_device_set_memory_limit(device, 0);
    EXPECT(y, 0.5 * (1 << 18) * ((1 << 18) + 1.0));
}

static unsigned released;
static void count_release(void *owner) { released += owner == &released; }

static void borrowed_memory_is_given_back_once(void **state) {
    (void)state;
    static const float x[] = {1, 2, 3};
    released = 0;
    mica_array *a = mica_from_borrowed(s, x, MICA_SHAPE(3), MICA_F32, count_release, &released);
    assert_ptr_equal(mica_data(a), x);
    EXPECT(mica_neg(s, a), -1, -2, -3);
    mica_array *kept = mica_keep(s, a, NULL);
    mica_scope_reset(s);
    assert_int_equal(released, 0);
    mica_array_free(kept);
    assert_int_equal(released, 1);
    assert_null(mica_from_borrowed(s, x, 1, (int64_t[]){-3}, MICA_F32, count_release, &released));
    assert_int_equal(released, 2); // a call that fails gives it back, too
}

// ---- in place -----------------------------------------------------------------------------------------------
// Two appends to a cache and attention after each: every reader sees what was written before it, and no more.
static void in_place_ops_keep_their_order(void **state) {
    (void)state;
    enum { PAGES = 2, P = 4, DH = 8 };
    float ones[PAGES * 2 * P * DH] = {0}, k[2][DH], v[2][DH], q[DH];
    for (int i = 0; i < DH; i++) k[0][i] = 0, k[1][i] = 0, v[0][i] = 1, v[1][i] = 3, q[i] = 1;
    mica_array *pool = mica_from_data(s, ones, MICA_SHAPE(PAGES, 1, 1, 2, P, DH), MICA_F32), *seen[2], *now = pool;
    for (int t = 0; t < 2; t++) {
        mica_array *meta = mica_from_data(s, (int32_t[]){0, 1, t + 1, 0}, MICA_SHAPE(1, 4), MICA_I32);
        mica_array *table = mica_from_data(s, (int32_t[]){1, 0}, MICA_SHAPE(1, 2), MICA_I32);
        now = mica_kv_append(s, now, mica_from_data(s, k[t], MICA_SHAPE(1, 1, DH), MICA_F32),
                             mica_from_data(s, v[t], MICA_SHAPE(1, 1, DH), MICA_F32), meta, table, 0);
        seen[t] = mica_paged_attention(s, mica_from_data(s, q, MICA_SHAPE(1, 1, DH), MICA_F32), now, meta, table, 0, 1, 0);
    }
    assert_true(mica_eval(s, (mica_array *[]){seen[1], seen[0], now}, 3, NULL));
    EXPECT(seen[0], 1, 1, 1, 1, 1, 1, 1, 1);
    EXPECT(seen[1], 2, 2, 2, 2, 2, 2, 2, 2); // the mean of 1 and 3
    assert_ptr_equal(mica_data(now), mica_data(pool));
    EXPECT(mica_slice_axis(s, mica_reshape(s, now, MICA_SHAPE(-1, DH)), 0, 2 * P + P, 2 * P + P + 2), 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3);
    mica_array *unmade = mica_zeros(s, MICA_SHAPE(PAGES, 1, 1, 2, P, DH), MICA_F32); // nothing to write into yet
    mica_array *kv = mica_zeros(s, MICA_SHAPE(1, 1, DH), MICA_F32), *ints = mica_zeros(s, MICA_SHAPE(1, 4), MICA_I32);
    assert_null(mica_kv_append(s, unmade, kv, kv, ints, ints, 0));
    mica_error err = {0};
    assert_true(mica_scope_error(s, &err));
    assert_non_null(strstr(err.msg, "kv_append: the pool must be evaluated"));
}

// ---- threads ------------------------------------------------------------------------------------------------
typedef struct worker {
    pthread_t thread;
    mica_array *shared;
    int number;
    bool ok;
} worker;

static void *work(void *ctx) {
    worker *w = ctx;
    mica_scope *own = mica_scope_new(device, NULL);
    w->ok = own != NULL;
    for (int i = 0; w->ok && i < 40; i++) {
        mica_scope_reset(own);
        mica_array *x = numbers(own, 64 + i % 5, w->number), *y = mica_add(own, mica_sum(own, mica_mul(own, x, x), NULL, 0, false), w->shared);
        double got[2], sum = 0;
        for (int k = 0; k < 64 + i % 5; k++) sum += (double)(w->number + k) * (w->number + k);
        w->ok = mica_read_f64(y, got, 2, NULL) && got[0] == sum + 1 && got[1] == sum + 2;
        if (i % 10 == 9) { // kept here, read and freed by the same thread
            mica_array *kept = mica_keep(own, y, NULL);
            w->ok = w->ok && mica_read_f64(kept, got, 2, NULL) && got[1] == sum + 2;
            mica_array_free(kept);
        }
    }
    mica_scope_free(own);
    return NULL;
}

static void scopes_work_side_by_side(void **state) {
    (void)state;
    enum { WORKERS = 4 };
    worker workers[WORKERS];
    mica_array *shared = mica_keep(s, mica_from_data(s, (float[]){1, 2}, MICA_SHAPE(2), MICA_F32), NULL);
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (worker){.shared = shared, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < WORKERS; i++) assert_true(workers[i].ok);
    mica_array_free(shared);
}

// ---- the rest of array.h ------------------------------------------------------------------------------------
static void devices_say_what_they_are(void **state) {
    (void)state;
    mica_error err = {0};
    assert_string_equal(mica_device_name(device), "cpu");
    mica_device *ref = mica_device_open("cpu", &(mica_device_options){.level = "ref"}, &err);
    assert_string_equal(mica_device_level(ref), "ref");
    mica_device_close(ref);
    assert_null(mica_device_open("cpu", &(mica_device_options){.level = "sse9"}, &err));
    assert_non_null(strstr(err.msg, "sse9"));
    assert_non_null(strstr(err.msg, "ref"));
    assert_null(mica_device_open("tpu", NULL, &err));
    assert_non_null(strstr(err.msg, "tpu"));
    for (size_t i = 0; i < MICA_OP_COUNT; i++) // every op that computes has a kernel
        if (!(mica_op_table[i].flags & (MICA_FLAG_VIEW | MICA_FLAG_LEAF)) && !device->state->kernels[i].run)
            fail_msg("no kernel for %s", mica_op_table[i].name);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_scope, close_scope)
    const struct CMUnitTest tests[] = {
        TEST(nothing_runs_before_eval), TEST(odd_evaluations), TEST(errors_stick), TEST(equal_structure_shares_a_plan),
        TEST(leaves_are_bound_by_position), TEST(plans_are_bounded), TEST(workspace_is_shared), TEST(steady_state_allocates_nothing),
        TEST(views_are_results), TEST(overlays_spare_what_is_read), TEST(kept_arrays_outlive_their_scope), TEST(limits_are_kept), TEST(limits_of_the_process),
        TEST(a_failed_evaluation_can_be_repeated), TEST(borrowed_memory_is_given_back_once), TEST(in_place_ops_keep_their_order),
        TEST(scopes_work_side_by_side), TEST(devices_say_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
