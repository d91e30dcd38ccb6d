// SPDX-License-Identifier: Apache-2.0
// Products with activations in 8 bits (isa_int8.h): the reference level against the formula in double, every other level against
// it, bit for bit, on odd shapes; and results that depend neither on threads nor on how many rows there are.
#include "device/cpu/product.h"
#include "matmul/checks.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

typedef struct problem {
    mica_gate gate;
    mica_quant_spec spec;
    mica_dtype scales, type, out;
    size_t m, n, k, gap, step; // elements between rows beyond k·step; between the elements of a row
} problem;

static mica_params params_of(const problem *p) {
    return (mica_params){.packed = {.out = (int32_t)p->n, .in = (int32_t)p->k, .bits = p->spec.bits, .group_size = p->spec.group_size,
                                    .mode = MICA_AFFINE, .scale_dtype = (int32_t)p->scales, .gate = (int32_t)p->gate, .int8 = 1}};
}

// What one problem is made of; the operands touch unmapped pages.
typedef struct operands {
    weight w;
    guarded place;
    unsigned char *packed, *x;
    size_t bytes;
} operands;

static operands operands_new(check *c, const problem *p) {
    bool end = ++c->cases % 2;
    mica_params params = params_of(p);
    operands o = {.w = weight_random(c, p->spec, p->scales, p->n, p->k)};
    o.bytes = mica_cpu_packed_size(&c->device.device, &params);
    o.place = guarded_new(o.bytes), o.packed = guarded_place(&o.place, o.bytes, true);
    mica_cpu_pack(&c->device.device, &params, o.w.words, o.w.scales, o.w.biases, o.packed);
    size_t elements = p->m * (p->k * p->step + p->gap) - p->gap - (p->step - 1), size = mica_dtype_size(p->type);
    o.x = guarded_place(&c->x, elements * size, end);
    fill_random(&c->random, p->type, o.x, elements);
    for (size_t i = 0; i < elements; i += 37) put(p->type, o.x, i, 20 * (double)next_float(&c->random)); // outliers
    return o;
}

static void operands_free(operands *o) {
    weight_free(&o->w);
    guarded_free(&o->place);
}

static void run(check *c, const mica_cpu_isa *isa, const problem *p, const operands *o, size_t m, unsigned char *out) {
    mica_params params = params_of(p);
    mica_cpu_device device = {.pool = c->device.pool, .isa = isa};
    mica_call call = {.device = &device.device, .params = &params, .inputs = 2};
    call.in[0] = TENSOR(p->type, o->x, (int64_t)m, (int64_t)p->k);
    call.in[0].stride[0] = (int64_t)(p->k * p->step + p->gap), call.in[0].stride[1] = (int64_t)p->step;
    call.in[0].contiguous = p->gap == 0 && p->step == 1;
    size_t n = p->gate ? p->n / 2 : p->n;
    call.in[1] = TENSOR(MICA_U8, o->packed, (int64_t)o->bytes), call.out = TENSOR(p->out, out, (int64_t)m, (int64_t)n);
    memset(out, 0xFF, m * n * mica_dtype_size(p->out));
    run_call("linear_packed", &call, &c->scratch);
}

// ---- the formula --------------------------------------------------------------------------------------------
// One output, and in *size what its rounding errors are relative to.
static double formula(const problem *p, const operands *o, size_t row, size_t col, double *size) {
    size_t group = (size_t)p->spec.group_size, groups = p->k / group;
    double y = 0;
    *size = 0;
    for (size_t g = 0; g < groups; g++) {
        float most = 0;
        double sum = 0, dot = 0, dot_size = 0;
        for (int pass = 0; pass < 2; pass++)
            for (size_t i = g * group; i < (g + 1) * group; i++) {
                float v = (float)get(p->type, o->x, row * (p->k * p->step + p->gap) + i * p->step);
                if (pass == 0) {
                    most = fmaxf(most, fabsf(v));
                    continue;
                }
                double code = (double)rintf(v * (127.0f / most)), w = (double)weight_code(&o->w, col, i);
                sum += code, dot += code * w, dot_size += fabs(code * w);
            }
        double s = get(p->scales, o->w.scales, col * groups + g), b = get(p->scales, o->w.biases, col * groups + g);
        double unit = (double)most / 127;
        y += unit * (s * dot + b * sum), *size += unit * (fabs(s) * dot_size + fabs(b * sum));
    }
    return y;
}

static void against_formula(void **state) {
    (void)state;
    check c = check_new(mica_cpu_isa_at(0), 2);
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++)
        for (size_t g = 0; g < MICA_COUNT(check_groups); g++)
            for (size_t m = 3; m <= 11; m += 8) {
                problem p = {MICA_GATE_NONE, {MICA_AFFINE, check_bits[b], check_groups[g]}, check_floats[(b + g) % 3], check_floats[g % 3], MICA_F32,
                             m, 35, (size_t)check_groups[g] * 6, 0, 1};
                operands o = operands_new(&c, &p);
                run(&c, c.isa, &p, &o, m, c.out.base);
                for (size_t i = 0; i < m * p.n; i++) {
                    double size, want = formula(&p, &o, i / p.n, i % p.n, &size);
                    compare(&c, "int8", MICA_F32, c.out.base, i, want, size, tolerance_of(MICA_F32, false));
                }
                operands_free(&o);
            }
    assert_int_equal(check_free(&c), 0);
}

// ---- levels -------------------------------------------------------------------------------------------------
static void one_problem(check *c, unsigned char *want, const problem *p) {
    operands o = operands_new(c, p);
    size_t bytes = p->m * p->n * mica_dtype_size(p->out);
    run(c, mica_cpu_isa_at(0), p, &o, p->m, want);
    for (size_t level = 1; mica_cpu_isa_at(level); level++) {
        unsigned char *out = guarded_place(&c->out, bytes, c->cases % 2);
        run(c, mica_cpu_isa_at(level), p, &o, p->m, out);
        if (!memcmp(out, want, bytes)) continue;
        size_t i = 0;
        while (out[i] == want[i]) i++;
        i /= mica_dtype_size(p->out);
        if (c->wrong++ < 10)
            printf("  %s: %d bits, group %d, scales %s, x %s, %zux%zux%zu: result %zu is %.9g, in plain C %.9g\n", mica_cpu_isa_at(level)->name,
                   p->spec.bits, p->spec.group_size, mica_dtype_name(p->scales), mica_dtype_name(p->type), p->m, p->n, p->k, i,
                   get(p->out, out, i), get(p->out, want, i));
    }
    operands_free(&o);
}

static void levels_agree(void **state) {
    (void)state;
    check c = check_new(mica_cpu_isa_at(0), 2);
    unsigned char *want = mica_alloc(4 << 20);
    size_t i = 0;
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++)
        for (size_t g = 0; g < MICA_COUNT(check_groups); g++)
            for (size_t t = 0; t < 9; t++, i++) {
                size_t group = (size_t)check_groups[g], k = group * (1 + next_below(&c.random, 5));
                if (k * (size_t)check_bits[b] % 32) k += group;
                problem p = {MICA_GATE_NONE, {MICA_AFFINE, check_bits[b], check_groups[g]}, check_floats[t / 3], check_floats[t % 3], check_floats[i % 3],
                             check_m[i % 18], check_n[i % 5], k, i % 4 ? 0 : 3, 1 + (i % 11 == 0)};
                one_problem(&c, want, &p);
            }
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++) { // many rows
        problem p = {MICA_GATE_NONE, {MICA_AFFINE, check_bits[b], 64}, MICA_BF16, MICA_BF16, MICA_BF16, 70, 49, 1152, 0, 1};
        one_problem(&c, want, &p);
    }
    one_problem(&c, want, &(problem){MICA_GATE_NONE, {MICA_AFFINE, 4, 64}, MICA_BF16, MICA_BF16, MICA_BF16, 530, 33, 128, 0, 1}); // still more
    one_problem(&c, want, &(problem){MICA_GATE_NONE, {MICA_AFFINE, 4, 64}, MICA_F16, MICA_BF16, MICA_F32, 1, 800, 1152, 0, 1});
    mica_free(want);
    assert_int_equal(check_free(&c), 0);
}

// Gates are what the same product without them gives, activated: blocks of 16 gates and 16 ups.
static void gated(void **state) {
    (void)state;
    float *plain = mica_alloc(1 << 20);
    for (size_t level = 0; mica_cpu_isa_at(level); level++)
        for (size_t m = 1; m <= 9; m += 4) {
            check c = check_new(mica_cpu_isa_at(level), 2);
            problem p = {MICA_GATE_NONE, {MICA_AFFINE, 4, 64}, MICA_BF16, MICA_BF16, MICA_F32, m, 320, 128, 0, 1};
            operands o = operands_new(&c, &p);
            run(&c, c.isa, &p, &o, m, (unsigned char *)plain);
            for (p.gate = MICA_GATE_SWIGLU; p.gate <= MICA_GATE_GEGLU; p.gate++) {
                run(&c, c.isa, &p, &o, m, c.out.base);
                for (size_t i = 0; i < m * 160; i++) {
                    const float *at = plain + i / 160 * 320 + i % 160 / 16 * 32 + i % 16;
                    double g = (double)at[0], up = (double)at[16], inner = sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
                    double want = up * (p.gate == MICA_GATE_SWIGLU ? g / (1 + exp(-g)) : g / 2 * (1 + tanh(inner)));
                    compare(&c, "gated", MICA_F32, c.out.base, i, want, fabs(g * up), tolerance_of(MICA_F32, false));
                }
            }
            operands_free(&o);
            assert_int_equal(check_free(&c), 0);
        }
    mica_free(plain);
}

// ---- threads, rows ------------------------------------------------------------------------------------------
static void same_alone_and_with_any_threads(void **state) {
    (void)state;
    unsigned char *all = mica_alloc(4 << 20);
    for (size_t level = 0; mica_cpu_isa_at(level); level++)
        for (size_t threads = 1; threads <= 4; threads++) {
            check c = check_new(mica_cpu_isa_at(level), threads);
            problem p = {MICA_GATE_NONE, {MICA_AFFINE, 4, 64}, MICA_BF16, MICA_BF16, MICA_BF16, 60, 300, 320, 0, 1};
            operands o = operands_new(&c, &p);
            if (threads == 1) run(&c, c.isa, &p, &o, p.m, all);
            for (size_t m = 1; m <= p.m; m += m < 20 ? 1 : 20) {
                run(&c, c.isa, &p, &o, m, c.out.base);
                assert_memory_equal(c.out.base, all, m * p.n * 2);
            }
            operands_free(&o);
            assert_int_equal(check_free(&c), 0);
        }
    mica_free(all);
}

// ---- rows that hold what cannot be scaled ---------------------------------------------------------------------
static void special_values(void **state) {
    (void)state;
    enum { K = 128 };
    static const struct { float value; bool finite; } cases[] = {
        {0, true}, {-0.0f, true}, {1e-38f, true}, {1e-45f, true}, {3e38f, true}, {INFINITY, false}, {-INFINITY, false}, {NAN, false}};
    for (size_t level = 0; mica_cpu_isa_at(level); level++)
        for (size_t i = 0; i < MICA_COUNT(cases); i++) {
            const mica_cpu_int8_isa *isa = &mica_cpu_isa_at(level)->int8;
            float x[K] = {0}, scales[2], sums[2];
            int8_t codes[K];
            x[70] = cases[i].value, x[3] = 2, x[4] = -1, x[5] = 0.5f;
            isa->round_row(MICA_F32, x, K, K, 64, 1, codes, scales, sums);
            assert_int_equal(codes[mica_cpu_int8_place(3)], 127);
            assert_int_equal(codes[mica_cpu_int8_place(4)], -64); // -63.5 to even
            assert_int_equal(codes[mica_cpu_int8_place(5)], 32);
            assert_true(scales[0] == 2 * (1.0f / 127) && sums[0] == scales[0] * 95);
            assert_int_equal(isfinite(sums[1]) != 0, cases[i].finite);
            if (cases[i].finite) assert_true(sums[1] == (cases[i].value > 1 ? scales[1] * 127 : 0));
            if (cases[i].finite) assert_int_equal(codes[mica_cpu_int8_place(70)], cases[i].value > 1 ? 127 : 0);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(special_values), cmocka_unit_test(against_formula), cmocka_unit_test(levels_agree), cmocka_unit_test(gated),
                                       cmocka_unit_test(same_alone_and_with_any_threads)};
    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
