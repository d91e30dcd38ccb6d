// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Attention by segments and its gradient at every level this CPU has, in guarded memory: as the reference level computes them, as sdpa does, and
// each segment as if it were alone, whatever lies in the others. The reference itself is compared with double precision in test_op_table.c.
#include "rows_testing.h"

// Under an emulator, a hundred times slower: two cases, and two types of three.
#ifdef __aarch64__
enum { CASE_STEP = 5, TYPE_STEP = 2 };
#else
enum { CASE_STEP = 1, TYPE_STEP = 1 };
#endif

enum { MOST_SEGMENTS = 6 };
typedef struct segment_case {
    int64_t H, Hkv, Dh;
    int window, segments;
    int32_t lengths[MOST_SEGMENTS];
} segment_case;

static const segment_case cases[] = {
    {1, 1, 64, 0, 1, {1}},          {3, 1, 64, 0, 4, {64, 1, 65, 70}}, {2, 2, 80, 33, 2, {95, 130}},  {4, 1, 256, 0, 2, {70, 31}},
    {4, 2, 128, 64, 3, {97, 5, 66}}, {2, 1, 10, 3, 6, {1, 2, 33, 0, 1, 97}}, {16, 8, 32, 0, 2, {40, 33}}, {5, 5, 33, 500, 1, {131}},
};

typedef struct run {
    int64_t N, longest;
    array q, k, v, g, lengths, out, grads;
    mica_params params;
} run;

static run run_new(const segment_case *c, mica_dtype t, layout how, double sigma) {
    run r = {0};
    for (int i = 0; i < c->segments; i++) r.N += c->lengths[i], r.longest = MICA_MAX(r.longest, (int64_t)c->lengths[i]);
    r.q = array_random(t, how, SHAPE(r.N, c->H, c->Dh), 1, sigma), r.k = array_random(t, how, SHAPE(r.N, c->Hkv, c->Dh), 2, 1);
    r.v = array_random(t, how, SHAPE(r.N, c->Hkv, c->Dh), 3, 1), r.g = array_random(t, how, SHAPE(r.N, c->H, c->Dh), 4, 1);
    r.lengths = array_new(MICA_I32, CONTIGUOUS, SHAPE(c->segments));
    for (int i = 0; i < c->segments; i++) array_put(&r.lengths, (size_t)i, c->lengths[i]);
    r.out = array_new(t, CONTIGUOUS, SHAPE(r.N, c->H, c->Dh)), r.grads = array_new(t, CONTIGUOUS, SHAPE(r.N, c->H + 2 * c->Hkv, c->Dh));
    r.params.segments.scale = (float)(1 / sqrt((double)c->Dh)), r.params.segments.causal = 1, r.params.segments.window = c->window;
    r.params.segments.longest = (int32_t)r.longest;
    return r;
}

static void run_free(run *r) {
    array *all[] = {&r->q, &r->k, &r->v, &r->g, &r->lengths, &r->out, &r->grads};
    for (size_t i = 0; i < MICA_COUNT(all); i++) array_free(all[i]);
}

static void run_ops(const mica_cpu_isa *isa, run *r) {
    kernel_run_all_threads(isa, "segment_attention", &r->params, &r->out, 4, (array *[]){&r->q, &r->k, &r->v, &r->lengths});
    kernel_run_all_threads(isa, "segment_attention_grad", &r->params, &r->grads, 5, (array *[]){&r->q, &r->k, &r->v, &r->lengths, &r->g});
}

static double *copy_of(const array *a) {
    double *v = malloc((a->count + 1) * sizeof *v);
    memcpy(v, a->values, a->count * sizeof *v);
    return v;
}

// Both are rounded to the type once, and sums in f32; a level may round weights to bf16, which costs in proportion to the greatest element.
static bool is_near(mica_dtype t, double got, double want, double most) {
    return fabs(got - want) <= 2.01 * tolerance[t].rounding * fabs(want) + most * (t == MICA_BF16 ? 0x1p-7 : 2 * tolerance[t].sums) + tolerance[t].tiny;
}

static void near_reference(const char *what, const mica_cpu_isa *isa, const array *got, const double *want) {
    double most = 0;
    for (size_t i = 0; i < got->count; i++) most = fmax(most, fabs(want[i]));
    for (size_t i = 0; i < got->count; i++)
        if (!is_near(got->t.dtype, got->values[i], want[i], most))
            fail_msg("%s, %s, level %s: element %zu is %g, at level ref %g", what, mica_dtype_name(got->t.dtype), isa->name, i, got->values[i], want[i]);
}

static void check_levels(const segment_case *c, mica_dtype t, layout how, double sigma) {
    run r = run_new(c, t, how, sigma);
    double *out = NULL, *grads = NULL;
    EACH_LEVEL { // first the reference
        run_ops(isa, &r);
        if (!out) out = copy_of(&r.out), grads = copy_of(&r.grads);
        near_reference("segment_attention", isa, &r.out, out);
        near_reference("segment_attention_grad", isa, &r.grads, grads);
    }
    free(out), free(grads), run_free(&r);
}

static void levels_agree(void **state) {
    (void)state;
    for (mica_dtype t = MICA_F32; t <= MICA_BF16; t += TYPE_STEP)
        for (size_t i = 0; i < (t == MICA_F16 ? 3 : MICA_COUNT(cases)); i += CASE_STEP) check_levels(&cases[i], t, (i + t) % 2 ? PADDED : CONTIGUOUS, 1);
}

static void large_scores(void **state) { // weights of one key are all but one, and sums over others underflow
    (void)state;
    static const segment_case c = {2, 1, 32, 0, 2, {100, 20}};
    check_levels(&c, MICA_F32, CONTIGUOUS, 60);
}

// One segment is causal sdpa.
static void forward_equals_sdpa(void **state) {
    (void)state;
    EACH_LEVEL
    for (mica_dtype t = MICA_F32; t <= MICA_BF16; t += TYPE_STEP) {
        static const segment_case c = {4, 2, 40, 50, 1, {110}};
        enum { T = 110, H = 4, Dh = 40 };
        run r = run_new(&c, t, CONTIGUOUS, 1);
        run_ops(isa, &r);
        array view[3] = {r.q, r.k, r.v}, want = array_new(t, CONTIGUOUS, SHAPE(1, H, T, Dh));
        for (int i = 0; i < 3; i++) {
            mica_tensor x = view[i].t;
            view[i].t = (mica_tensor){.data = x.data, .dtype = t, .ndim = 4, .shape = {1, x.shape[1], T, Dh}, .stride = {0, x.stride[1], x.stride[0], 1}};
        }
        mica_params p = {.sdpa = {.scale = r.params.segments.scale, .causal = 1, .window = c.window}};
        kernel_run_all_threads(isa, "sdpa", &p, &want, 3, (array *[]){&view[0], &view[1], &view[2]});
        for (size_t i = 0; i < want.count; i++) {
            size_t d = i % Dh, token = i / Dh % T, h = i / Dh / T;
            assert_true(r.out.values[(token * H + h) * Dh + d] == want.values[i]);
        }
        array_free(&want), run_free(&r);
    }
}

// Rows [from, from + n) of a as a contiguous array.
static void take_rows(array *to, const array *a, size_t from) {
    size_t row = a->count / (size_t)a->t.shape[0];
    for (size_t i = 0; i < to->count; i++) array_put(to, i, a->values[from * row + i]);
}

// A segment beside others, of which one is nothing but NaN, gives what it gives alone: results and dq to the bit, dk and dv but for the order of
// sums.
static void segments_are_alone(void **state) {
    (void)state;
    static const segment_case c = {4, 2, 32, 0, 3, {67, 31, 70}};
    EACH_LEVEL
    for (mica_dtype t = MICA_F32; t <= MICA_BF16; t += TYPE_STEP) {
        run all = run_new(&c, t, CONTIGUOUS, 1);
        array *inputs[] = {&all.q, &all.k, &all.v, &all.g};
        for (int i = 0; i < 4; i++)
            for (size_t e = 0, row = inputs[i]->count / (size_t)all.N; e < 31 * row; e++) array_put(inputs[i], 67 * row + e, (double)NAN);
        run_ops(isa, &all);
        for (int s = 0, start = 0; s < c.segments; start += c.lengths[s++]) {
            if (s == 1) continue;
            segment_case one = c;
            one.segments = 1, one.lengths[0] = c.lengths[s];
            run alone = run_new(&one, t, CONTIGUOUS, 1);
            array *to[] = {&alone.q, &alone.k, &alone.v, &alone.g};
            for (int i = 0; i < 4; i++) take_rows(to[i], inputs[i], (size_t)start);
            run_ops(isa, &alone);
            size_t row = alone.out.count / (size_t)alone.N, grad = alone.grads.count / (size_t)alone.N;
            for (size_t i = 0; i < alone.out.count; i++) assert_true(alone.out.values[i] == all.out.values[(size_t)start * row + i]);
            for (size_t i = 0; i < alone.grads.count; i++) {
                double x = alone.grads.values[i], y = all.grads.values[(size_t)start * grad + i];
                if (i % grad < row ? x != y : !is_near(t, y, x, 1)) fail_msg("%s: gradient %zu is %g, alone %g", isa->name, i, y, x);
            }
            run_free(&alone);
        }
        run_free(&all);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_agree),
        cmocka_unit_test(large_scores),
        cmocka_unit_test(forward_equals_sdpa),
        cmocka_unit_test(segments_are_alone),
    };
    return cmocka_run_group_tests_name("attention by segments", tests, levels_print, NULL);
}
