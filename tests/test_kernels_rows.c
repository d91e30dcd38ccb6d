// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Row kernels of the CPU device at every level this CPU has, against oracles in double: conversions, activations over
// the whole range of inputs, norms, softmax and its kin, rope, take. Odd lengths, strided views, empty arrays,
// guard pages around all memory, 1 to 4 threads bit for bit.
#include "rows_testing.h"

static const mica_dtype float_types[] = {MICA_F32, MICA_F16, MICA_BF16, MICA_F64};
static const int64_t lengths[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 96, 129, 640, 1152, 2051};

// ---- conversions ----
static double saturate(double v, double lo, double hi) { return isnan(v) ? 0 : v < lo ? lo : v > hi ? hi : trunc(v); }

// Oracle of astype for sources whose values a double holds exactly.
static double converted(mica_dtype from, mica_dtype to, double v) {
    bool is_float = mica_dtype_is_float(from);
    switch (to) {
    case MICA_BOOL: return v != 0;
    case MICA_U8: return is_float ? saturate(v, 0, 255) : (double)(uint8_t)(int64_t)v;
    case MICA_U16: return is_float ? saturate(v, 0, 65535) : (double)(uint16_t)(int64_t)v;
    case MICA_U32: return is_float ? saturate(v, 0, 4294967295.0) : (double)(uint32_t)(int64_t)v;
    case MICA_U64: return is_float ? saturate(v, 0, 0x1p64) : (double)(uint64_t)(int64_t)v;
    case MICA_I8: return is_float ? saturate(v, -128, 127) : (double)(int8_t)(int64_t)v;
    case MICA_I16: return is_float ? saturate(v, -32768, 32767) : (double)(int16_t)(int64_t)v;
    case MICA_I32: return is_float ? saturate(v, INT32_MIN, INT32_MAX) : (double)(int32_t)(int64_t)v;
    case MICA_I64: return is_float ? saturate(v, -0x1p63, 0x1p63) : v;
    default: {
        unsigned char bytes[8];
        value_set(to, bytes, v);
        return value_get(to, bytes);
    }
    }
}

static void astype_all_pairs(void **state) {
    (void)state;
    static const double special[] = {
        0,   1,  -1, 2.5, -2.5, 300, -300, 70000, -70000, 1e10, -1e10, (double)NAN, (double)INFINITY, -(double)INFINITY,
        0.5, 127};
    EACH_LEVEL
    for (int from = 0; from < MICA_DTYPE_COUNT; from++)
        for (int to = 0; to < MICA_DTYPE_COUNT; to++)
            for (int64_t n = 0; n < 40; n = n * 2 + 1) {
                array x = array_new((mica_dtype)from, (layout)(n % LAYOUTS), SHAPE(3, n));
                array y = array_new((mica_dtype)to, CONTIGUOUS, SHAPE(3, n));
                for (size_t i = 0; i < x.count; i++) {
                    double v = i < 16 ? special[i] : 90 * random_normal(3, i);
                    if (!mica_dtype_is_float((mica_dtype)from))
                        v = isnan(v) || isinf(v) ? 5 : fabs(trunc(fmod(v, 100)));
                    array_put(&x, i, v);
                }
                kernel_run_all_threads(isa, "astype", NULL, &y, 1, (array *[]){&x});
                for (size_t i = 0; i < x.count; i++) {
                    double want = converted((mica_dtype)from, (mica_dtype)to, x.values[i]);
                    if (y.values[i] != want && !(isnan(want) && isnan(y.values[i])))
                        fail_msg("astype %s -> %s, level %s: %g gives %g, not %g", mica_dtype_name((mica_dtype)from),
                                 mica_dtype_name((mica_dtype)to), isa->name, x.values[i], y.values[i], want);
                }
                array_free(&x), array_free(&y);
            }
}

static void astype_rounds_once(void **state) {
    (void)state;
    device_use(mica_cpu_isa_at(0), 1);
    static const struct {
        mica_dtype from, to;
        double v, want;
    } cases[] = {{MICA_F64, MICA_F16, 1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-10},
                 {MICA_F64, MICA_BF16, 1 + 0x1p-8 + 0x1p-40, 1 + 0x1p-7},
                 {MICA_F64, MICA_BF16, -1 - 0x1p-8 - 0x1p-40, -1 - 0x1p-7},
                 {MICA_F64, MICA_F16, 1 + 0x1p-11 - 0x1p-40, 1},
                 {MICA_I64, MICA_BF16, 0x1p40 + 0x1p32 + 1, 0x1p40 + 0x1p33},
                 {MICA_I64, MICA_BF16, -0x1p40 - 0x1p32 - 1, -0x1p40 - 0x1p33},
                 {MICA_U64, MICA_F32, 0x1p63 + 0x1p39 + 0x1p12, 0x1p63 + 0x1p40},
                 {MICA_F64, MICA_BF16, 1e300, (double)INFINITY}};
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        array x = array_new(cases[i].from, CONTIGUOUS, SHAPE(1)), y = array_new(cases[i].to, CONTIGUOUS, SHAPE(1));
        array_put(&x, 0, cases[i].v);
        kernel_run("astype", NULL, &y, 1, (array *[]){&x});
        if (y.values[0] != cases[i].want) fail_msg("case %zu: %.17g", i, y.values[0]);
        array_free(&x), array_free(&y);
    }
}

// Raw conversions: every 16-bit pattern, and f32 patterns all over the range, as half.h does them.
static void halves_are_exact(void **state) {
    (void)state;
    enum { N = 65536 };
    guarded wide = guarded_new(N * sizeof(float), false), half = guarded_new(N * sizeof(uint16_t), false);
    float *f = (float *)(void *)wide.data;
    uint16_t *h = (uint16_t *)(void *)half.data;
    EACH_LEVEL
    for (mica_dtype t = MICA_F16; t <= MICA_BF16; t++) {
        for (uint32_t i = 0; i < N; i++) h[i] = (uint16_t)i;
        isa->rows.to_f32[t](f, h, N);
        for (uint32_t i = 0; i < N; i++) {
            float want = t == MICA_F16 ? mica_f16_to_f32((uint16_t)i) : mica_bf16_to_f32((uint16_t)i);
            assert_true(isnan(want) ? isnan(f[i]) : mica_f32_bits(want) == mica_f32_bits(f[i]));
        }
        for (uint32_t round = 0; round < 32; round++) {
            for (uint32_t i = 0; i < N; i++) // all exponents, the bits that decide about rounding
                f[i] = mica_f32_from_bits(
                    i << 16 | (round < 8 ? (round & 1) + (round >> 1 & 3) * 0x4000 : (uint32_t)rand() & 0xFFFF));
            isa->rows.from_f32[t](h, f, N);
            for (uint32_t i = 0; i < N; i++) {
                uint16_t want = t == MICA_F16 ? mica_f32_to_f16(f[i]) : mica_f32_to_bf16(f[i]);
                if (h[i] != want && !isnan(f[i]))
                    fail_msg("%s from %a, level %s: %04x, not %04x", mica_dtype_name(t), (double)f[i], isa->name, h[i],
                             want);
                if (isnan(f[i])) assert_true(isnan(t == MICA_F16 ? mica_f16_to_f32(h[i]) : mica_bf16_to_f32(h[i])));
            }
        }
    }
    guarded_free(&wide), guarded_free(&half);
}

static void contiguous_copies_views(void **state) {
    (void)state;
    for (int t = 0; t < MICA_DTYPE_COUNT; t++)
        for (layout how = 0; how < LAYOUTS; how++)
            for (int64_t n = 0; n < 70; n = n * 3 + 1) {
                array x = array_new((mica_dtype)t, how, SHAPE(2, 3, n)),
                      y = array_new((mica_dtype)t, CONTIGUOUS, SHAPE(2, 3, n));
                for (size_t i = 0; i < x.count; i++) array_put(&x, i, (double)(i % 100));
                kernel_run_all_threads(mica_cpu_isa_at(0), "contiguous", NULL, &y, 1, (array *[]){&x});
                assert_memory_equal(x.values, y.values, x.count * sizeof(double));
                array_free(&x), array_free(&y);
            }
}

// ---- activations ----
static double want_sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static double want_silu(double x) { return x == -(double)INFINITY ? 0 : x * want_sigmoid(x); }
static double want_gelu(double x) { return x == -(double)INFINITY ? 0 : 0.5 * x * erfc(-x * M_SQRT1_2); }
static double want_gelu_tanh(double x) {
    return x == -(double)INFINITY ? 0 : x * want_sigmoid(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
}

static const struct {
    const char *op;
    double (*want)(double);
    // Relative error in units of 2^-24: `flat`, and what the exponent's own rounding is magnified to, `linear` *
    // |argument of exp|; gelu's argument is x²/2, gelu_tanh's 2u.
    double flat, linear;
} unary[MICA_CPU_UNARIES] = {[MICA_CPU_EXP] = {"exp", exp, 3, 0},
                             [MICA_CPU_SIGMOID] = {"sigmoid", want_sigmoid, 5, 0},
                             [MICA_CPU_SILU] = {"silu", want_silu, 6, 0},
                             [MICA_CPU_GELU] = {"gelu", want_gelu, 8, 4},
                             [MICA_CPU_GELU_TANH] = {"gelu_tanh", want_gelu_tanh, 8, 5},
                             [MICA_CPU_TANH] = {"tanh", tanh, 5, 0}};

static double unary_bound(int f, double x, double want) {
    double argument = f == MICA_CPU_GELU        ? x * x / 2
                      : f == MICA_CPU_GELU_TANH ? 1.6 * fabs(x + 0.044715 * x * x * x)
                                                : 0;
    return 0x1p-24 * (unary[f].flat + unary[f].linear * fmin(argument, 110)) * fabs(want);
}

static void unary_whole_range_f32(void **state) {
    (void)state;
    enum { N = 4096, STEP = 9973 };
    guarded in = guarded_new(N * sizeof(float), false), out = guarded_new(N * sizeof(float), false);
    float *x = (float *)(void *)in.data, *y = (float *)(void *)out.data;
    EACH_LEVEL
    for (int f = 0; f < MICA_CPU_UNARIES; f++) {
        double worst = 0;
        for (uint64_t u = 0; u < 1ull << 32; u += (uint64_t)N * STEP) {
            for (uint64_t i = 0; i < N; i++) x[i] = mica_f32_from_bits((uint32_t)(u + i * STEP));
            isa->rows.unary[f][MICA_F32](y, x, N);
            for (uint64_t i = 0; i < N; i++) {
                double want = unary[f].want((double)x[i]), got = (double)y[i];
                if (isnan(want) || fabs(want) > 3.4028235e38) {
                    if (isnan(want) ? !isnan(got) : !(got >= 3.4028e38))
                        fail_msg("%s(%a), level %s: %a", unary[f].op, (double)x[i], isa->name, got);
                    continue;
                }
                double bound = unary_bound(f, (double)x[i], want), error = fabs(got - want);
                if (!(error <= bound + 1.2e-38))
                    fail_msg("%s(%a), level %s: %a, not %a", unary[f].op, (double)x[i], isa->name, got, want);
                if (fabs(want) > 1e-37 && error / fabs(want) > worst) worst = error / fabs(want);
            }
        }
        printf("  %-9s %-6s worst relative error %.2f * 2^-24\n", unary[f].op, isa->name, worst * 0x1p24);
    }
    guarded_free(&in), guarded_free(&out);
}

static void unary_every_half(void **state) {
    (void)state;
    static uint16_t x[65536], y[65536];
    for (uint32_t i = 0; i < 65536; i++) x[i] = (uint16_t)i;
    EACH_LEVEL
    for (mica_dtype t = MICA_F16; t <= MICA_BF16; t++)
        for (int f = 0; f < MICA_CPU_UNARIES; f++) {
            isa->rows.unary[f][t](y, x, 65536);
            for (size_t i = 0; i < 65536; i++) {
                double v = value_get(t, &x[i]), want = unary[f].want(v), got = value_get(t, &y[i]);
                if (!value_close(t, got, want, unary_bound(f, v, want) / tolerance[t].sums))
                    fail_msg("%s(%g), %s, level %s: %g, not %g", unary[f].op, v, mica_dtype_name(t), isa->name, got,
                             want);
            }
        }
}

static void unary_views(void **state) {
    (void)state;
    EACH_LEVEL
    for (size_t t = 0; t < MICA_COUNT(float_types); t++)
        for (size_t l = 0; l < MICA_COUNT(lengths); l++)
            for (int f = 0; f < MICA_CPU_UNARIES; f++) {
                layout how = (layout)((l + (size_t)f) % LAYOUTS);
                array x = array_random(float_types[t], how, SHAPE(2, 5, lengths[l]), l, 3),
                      y = array_new(x.t.dtype, CONTIGUOUS, SHAPE(2, 5, lengths[l]));
                kernel_run_all_threads(isa, unary[f].op, NULL, &y, 1, (array *[]){&x});
                for (size_t i = 0; i < x.count; i++) x.values[i] = unary[f].want(x.values[i]);
                values_equal(unary[f].op, isa->name, x.t.dtype, y.values, x.values, x.count,
                             f == MICA_CPU_EXP ? 100 : 1);
                array_free(&x), array_free(&y);
            }
}

static void gated_views(void **state) {
    (void)state;
    EACH_LEVEL
    for (size_t t = 0; t < MICA_COUNT(float_types); t++)
        for (size_t l = 0; l < MICA_COUNT(lengths); l++)
            for (int which = 0; which < 2; which++) {
                const char *op = which ? "geglu" : "swiglu";
                array a = array_random(float_types[t], (layout)(l % LAYOUTS), SHAPE(7, lengths[l]), l, 3);
                array b = array_random(float_types[t], (layout)(l / 2 % LAYOUTS), SHAPE(7, lengths[l]), l + 50, 2);
                array y = array_new(float_types[t], CONTIGUOUS, SHAPE(7, lengths[l]));
                kernel_run_all_threads(isa, op, NULL, &y, 2, (array *[]){&a, &b});
                for (size_t i = 0; i < a.count; i++)
                    a.values[i] = (which ? want_gelu_tanh : want_silu)(a.values[i]) * b.values[i];
                values_equal(op, isa->name, float_types[t], y.values, a.values, a.count, 3);
                array_free(&a), array_free(&b), array_free(&y);
            }
}

static double want_binary(int f, double a, double b) {
    return f == MICA_CPU_ADD ? a + b : f == MICA_CPU_SUB ? a - b : f == MICA_CPU_MUL ? a * b : a / b;
}

static void raw_binary_rows(void **state) {
    (void)state;
    EACH_LEVEL
    for (mica_dtype t = MICA_F32; t <= MICA_BF16; t++)
        for (size_t l = 0; l < MICA_COUNT(lengths); l++) {
            size_t n = (size_t)lengths[l];
            array a = array_random(t, CONTIGUOUS, SHAPE(lengths[l]), 1, 4),
                  b = array_random(t, CONTIGUOUS, SHAPE(lengths[l]), 2, 4);
            array y = array_new(t, CONTIGUOUS, SHAPE(lengths[l]));
            double *want = calloc(n + 1, sizeof *want);
            for (int f = MICA_CPU_ADD; f <= MICA_CPU_DIV; f++) {
                isa->rows.binary[f][t](y.t.data, a.t.data, b.t.data, n);
                array_read(&y);
                for (size_t i = 0; i < n; i++) want[i] = want_binary(f, a.values[i], b.values[i]);
                values_equal("binary", isa->name, t, y.values, want, n, 1e-7);
            }
            isa->rows.scale[t](y.t.data, a.t.data, 0.3f, n);
            array_read(&y);
            for (size_t i = 0; i < n; i++) want[i] = a.values[i] * (double)0.3f;
            values_equal("scale", isa->name, t, y.values, want, n, 1e-7);
            free(want), array_free(&a), array_free(&b), array_free(&y);
        }
}

// ---- norms ----
static void want_norm(double *y, const double *x, const double *w, const double *b, size_t D, double eps, bool center) {
    double mean = 0, squares = 0;
    for (size_t i = 0; center && i < D; i++) mean += x[i] / (double)D;
    for (size_t i = 0; i < D; i++) squares += (x[i] - mean) * (x[i] - mean);
    for (size_t i = 0; i < D; i++)
        y[i] = (x[i] - mean) / sqrt(squares / (double)D + eps) * (w ? w[i] : 1) + (b ? b[i] : 0);
}

static void norms(void **state) {
    (void)state;
    mica_params params = {.norm.eps = 1e-6f};
    EACH_LEVEL
    for (size_t t = 0; t < MICA_COUNT(float_types); t++)
        for (size_t l = 0; l < MICA_COUNT(lengths); l++)
            for (int variant = 0; variant < 6;
                 variant++) { // bit 0: layer_norm; variant / 2: how many weights are absent
                bool center = variant & 1;
                mica_dtype wt = float_types[(t + l) % MICA_COUNT(float_types)];
                int64_t D = lengths[l];
                array x =
                    array_random(float_types[t], (layout)(l % LAYOUTS), SHAPE(2, 3, D), l, variant == 3 ? 1e-3 : 2);
                if (variant == 4 && D)
                    for (size_t i = 0; i < x.count; i++) array_put(&x, i, 0);
                array w = array_random(wt, l % 5 == 4 ? PADDED : CONTIGUOUS, SHAPE(D), l + 1, 1),
                      b = array_random(wt, CONTIGUOUS, SHAPE(D), l + 2, 1);
                array y = array_new(float_types[t], CONTIGUOUS, SHAPE(2, 3, D));
                array *in[3] = {&x, variant / 2 < 2 ? &w : NULL, variant / 2 < 1 ? &b : NULL};
                kernel_run_all_threads(isa, center ? "layer_norm" : "rms_norm", &params, &y,
                                       center            ? 3
                                       : variant / 2 < 2 ? 2
                                                         : 1,
                                       in);
                double *want = calloc(x.count + 1, sizeof *want);
                for (size_t r = 0; r < 6; r++)
                    want_norm(want + r * (size_t)D, x.values + r * (size_t)D, in[1] ? w.values : NULL,
                              in[2] && center ? b.values : NULL, (size_t)D, (double)params.norm.eps, center);
                values_equal(center ? "layer_norm" : "rms_norm", isa->name, float_types[t], y.values, want, x.count, 4);
                free(want), array_free(&x), array_free(&w), array_free(&b), array_free(&y);
            }
}

// ---- softmax, logsumexp, argmax ----
static void fill_extremes(array *x, size_t D, int variant) {
    for (size_t r = 0; D && r < x->count / D; r++) {
        size_t i = r * D + (r * 7 + 3) % D;
        if (variant == 1) array_put(x, i, -(double)INFINITY);
        if (variant == 2)
            for (size_t j = 0; j < D; j++) array_put(x, r * D + j, -(double)INFINITY);
        if (variant == 3) array_put(x, i, (double)NAN);
        if (variant == 4) array_put(x, i, (double)INFINITY);
        if (variant == 5)
            for (size_t j = 0; j < D; j++) array_put(x, r * D + j, 20000 + (double)(j % 3));
        if (variant == 6)
            for (size_t j = 0; j < D; j++) array_put(x, r * D + j, j % 2 ? 0 : -120);
    }
}

static void want_softmax(double *y, double *lse, double *argmax, const double *x, size_t D) {
    double max = -(double)INFINITY, sum = 0;
    size_t best = 0;
    bool nan = false;
    for (size_t i = 0; i < D; i++) {
        if (!nan && (isnan(x[i]) || x[i] > x[best])) best = i, nan = isnan(x[i]);
        if (!isnan(max) && !(x[i] <= max)) max = x[i];
    }
    for (size_t i = 0; i < D; i++) sum += exp(x[i] - max);
    for (size_t i = 0; i < D; i++) y[i] = exp(x[i] - max) / sum;
    *lse = isfinite(max) ? max + log(sum) : max;
    *argmax = (double)best;
}

static void softmax_family(void **state) {
    (void)state;
    EACH_LEVEL
    for (size_t t = 0; t < MICA_COUNT(float_types); t++)
        for (size_t l = 1; l < MICA_COUNT(lengths); l++)
            for (int variant = 0; variant < 7; variant++) {
                int64_t D = lengths[l];
                array x = array_random(float_types[t], (layout)((l + (size_t)variant) % LAYOUTS), SHAPE(5, D), l, 5);
                fill_extremes(&x, (size_t)D, variant);
                array y = array_new(float_types[t], CONTIGUOUS, SHAPE(5, D)),
                      e = array_new(float_types[t], CONTIGUOUS, SHAPE(5));
                array a = array_new(MICA_U32, CONTIGUOUS, SHAPE(5));
                kernel_run_all_threads(isa, "softmax", NULL, &y, 1, (array *[]){&x});
                kernel_run_all_threads(isa, "logsumexp", NULL, &e, 1, (array *[]){&x});
                kernel_run_all_threads(isa, "argmax", NULL, &a, 1, (array *[]){&x});
                double *want = calloc(x.count, sizeof *want), lse[5], arg[5];
                for (size_t r = 0; r < 5; r++)
                    want_softmax(want + r * (size_t)D, &lse[r], &arg[r], x.values + r * (size_t)D, (size_t)D);
                values_equal("softmax", isa->name, float_types[t], y.values, want, x.count, 1);
                values_equal("logsumexp", isa->name, float_types[t], e.values, lse, 5, variant == 5 ? 20000 : 10);
                values_equal("argmax", isa->name, MICA_F64, a.values, arg, 5, 0);
                free(want), array_free(&x), array_free(&y), array_free(&e), array_free(&a);
            }
}

static void logsumexp_of_nothing(void **state) {
    (void)state;
    EACH_LEVEL
    for (size_t t = 0; t < MICA_COUNT(float_types); t++) {
        array x = array_new(float_types[t], CONTIGUOUS, SHAPE(3, 0)),
              y = array_new(float_types[t], CONTIGUOUS, SHAPE(3));
        kernel_run_all_threads(isa, "logsumexp", NULL, &y, 1, (array *[]){&x});
        for (size_t i = 0; i < 3; i++) assert_true(y.values[i] == -(double)INFINITY);
        array_free(&x), array_free(&y);
    }
}

static void argmax_lowest_index_wins(void **state) {
    (void)state;
    enum { N = 300 };
    EACH_LEVEL
    for (mica_dtype t = MICA_F32; t <= MICA_BF16; t++)
        for (size_t first = 0; first < N; first++) {
            array x = array_new(t, CONTIGUOUS, SHAPE(N));
            for (size_t i = 0; i < N; i++) array_put(&x, i, i >= first && (i - first) % 3 == 0 ? 2 : -3);
            assert_int_equal(isa->rows.argmax[t](x.t.data, N), first);
            for (size_t i = 0; i < N; i++) array_put(&x, i, -(double)INFINITY);
            assert_int_equal(isa->rows.argmax[t](x.t.data, N), 0);
            array_put(&x, first, (double)NAN);
            if (first + 5 < N) array_put(&x, first + 5, (double)NAN);
            assert_int_equal(isa->rows.argmax[t](x.t.data, N), first);
            array_free(&x);
        }
}

// ---- rope ----
static void rope_table_is_accurate(void **state) {
    (void)state;
    static const int positions[] = {0, 1, 2, 511, 5000, 131071, 999999, 1000000};
    mica_params params = {.rope = {.scale = 1.25f}};
    for (int64_t d = 0; d <= 80; d += 16)
        for (layout how = 0; how < LAYOUTS; how++) {
            array p = array_new(MICA_I32, how, SHAPE(2, 4)),
                  f = array_new(MICA_F32, how == PADDED ? CONTIGUOUS : how, SHAPE(d / 2));
            array y = array_new(MICA_F32, CONTIGUOUS, SHAPE(2, 4, d));
            for (size_t i = 0; i < 8; i++) array_put(&p, i, positions[i]);
            for (size_t i = 0; i < f.count; i++) array_put(&f, i, pow(10000, -2 * (double)i / (double)d));
            kernel_run_all_threads(mica_cpu_isa_best(), "rope_table", &params, &y, 2, (array *[]){&p, &f});
            for (size_t t = 0; t < 8; t++)
                for (size_t i = 0; i < f.count; i++) {
                    double angle = (double)((float)positions[t] * (float)f.values[i]);
                    assert_true(fabs(y.values[t * (size_t)d + i] - 1.25 * cos(angle)) < 2e-7);
                    assert_true(fabs(y.values[t * (size_t)d + f.count + i] - 1.25 * sin(angle)) < 2e-7);
                }
            array_free(&p), array_free(&f), array_free(&y);
        }
}

static void want_rope(double *y, const double *x, const double *table, size_t Dh, size_t dims, bool traditional) {
    for (size_t i = 0; i < Dh; i++) y[i] = x[i];
    for (size_t i = 0; i < dims / 2; i++) {
        size_t p = traditional ? 2 * i : i, q = traditional ? 2 * i + 1 : i + dims / 2;
        double c = table[i], s = table[dims / 2 + i];
        y[p] = x[p] * c - x[q] * s;
        y[q] = x[p] * s + x[q] * c;
    }
}

static void rope_rotates(void **state) {
    (void)state;
    static const int64_t sizes[][2] = {{64, 64}, {80, 80}, {96, 32}, {128, 128}, {256, 256},
                                       {10, 6},  {33, 2},  {48, 0},  {72, 70}};
    enum { B = 2, T = 3, H = 3 };
    EACH_LEVEL
    for (size_t t = 0; t < MICA_COUNT(float_types); t++)
        for (size_t s = 0; s < MICA_COUNT(sizes); s++)
            for (int variant = 0; variant < 12; variant++) {
                int64_t Dh = sizes[s][0], dims = sizes[s][1], tables = variant & 2 ? B : 1;
                array x = array_random(float_types[t], (layout)(variant / 4), SHAPE(B, T, H, Dh), s, 2);
                array f = array_random(MICA_F32, variant & 1 ? PADDED : CONTIGUOUS, SHAPE(tables, T, dims), s + 9, 1);
                array y = array_new(float_types[t], CONTIGUOUS, SHAPE(B, T, H, Dh));
                mica_params params = {.rope = {.dims = (int32_t)dims, .traditional = variant & 1, .scale = 1}};
                kernel_run_all_threads(isa, "rope", &params, &y, 2, (array *[]){&x, &f});
                double *want = calloc(x.count, sizeof *want);
                for (size_t r = 0; r < B * T * H; r++) {
                    size_t row = (tables > 1 ? r / (T * H) : 0) * T + r / H % T;
                    want_rope(want + r * (size_t)Dh, x.values + r * (size_t)Dh, f.values + row * (size_t)dims,
                              (size_t)Dh, (size_t)dims, variant & 1);
                }
                values_equal("rope", isa->name, float_types[t], y.values, want, x.count, 1);
                free(want), array_free(&x), array_free(&f), array_free(&y);
            }
}

// ---- take ----
static void take_rows(void **state) {
    (void)state;
    static const mica_dtype id_types[] = {MICA_I32, MICA_U32, MICA_I64, MICA_I8, MICA_U16};
    enum { V = 11, IDS = 6 };
    static const int64_t ids[IDS] = {3, 0, V - 1, V, -1, -V - 1}; // unsigned: the last two wrap around, far outside
    for (int t = 0; t < MICA_DTYPE_COUNT; t++)
        for (size_t it = 0; it < 5; it++)
            for (layout how = 0; how < LAYOUTS; how++)
                for (int64_t D = 0; D < 40; D = D * 3 + 1) {
                    array table = array_new((mica_dtype)t, how, SHAPE(V, 2, D)),
                          id = array_new(id_types[it], how, SHAPE(2, 3));
                    array y = array_new((mica_dtype)t, CONTIGUOUS, SHAPE(2, 3, 2, D));
                    for (size_t i = 0; i < table.count; i++) array_put(&table, i, (double)(i % 101));
                    for (size_t i = 0; i < IDS; i++)
                        array_put(&id, i, (double)(id_types[it] < MICA_I8 && ids[i] < 0 ? 65536 + ids[i] : ids[i]));
                    kernel_run_all_threads(mica_cpu_isa_at(0), "take", NULL, &y, 2, (array *[]){&table, &id});
                    for (size_t i = 0; i < y.count; i++) {
                        size_t row = i / (2 * (size_t)D), at = i % (2 * (size_t)D);
                        bool valid = ids[row] >= (id_types[it] < MICA_I8 ? 0 : -V) && ids[row] < V;
                        double want =
                            valid ? table.values[(size_t)(ids[row] < 0 ? ids[row] + V : ids[row]) * 2 * (size_t)D + at]
                            : mica_dtype_is_float((mica_dtype)t) ? (double)NAN
                                                                 : 0;
                        assert_true(isnan(want) ? isnan(y.values[i]) : y.values[i] == want);
                    }
                    array_free(&table), array_free(&id), array_free(&y);
                }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(astype_all_pairs),
        cmocka_unit_test(astype_rounds_once),
        cmocka_unit_test(halves_are_exact),
        cmocka_unit_test(contiguous_copies_views),
        cmocka_unit_test(unary_whole_range_f32),
        cmocka_unit_test(unary_every_half),
        cmocka_unit_test(unary_views),
        cmocka_unit_test(gated_views),
        cmocka_unit_test(raw_binary_rows),
        cmocka_unit_test(norms),
        cmocka_unit_test(softmax_family),
        cmocka_unit_test(logsumexp_of_nothing),
        cmocka_unit_test(argmax_lowest_index_wins),
        cmocka_unit_test(rope_table_is_accurate),
        cmocka_unit_test(rope_rotates),
        cmocka_unit_test(take_rows),
    };
    return cmocka_run_group_tests_name("row kernels", tests, levels_print, NULL);
}
