// SPDX-License-Identifier: Apache-2.0
// The checks of matrix-product kernels at one level: each returns how many results were wrong and prints the first. Every
// buffer touches an unmapped page, at its end in even cases and at its start in odd ones.
#ifndef MICA_TESTS_MATMUL_CHECKS_H
#define MICA_TESTS_MATMUL_CHECKS_H

#include "matmul/fixture.h"

// Errors allowed, relative to sum |x||w| of an output, and of the rounding of the output itself relative to it.
typedef struct tolerance { double sum, out; } tolerance;
static inline tolerance tolerance_of(mica_dtype type, bool rounded_weights) {
    static const tolerance table[] = {
        [MICA_F32] = {1e-6, 0x1p-24},
        [MICA_F16] = {1e-6, 0x1p-11},
        [MICA_BF16] = {1e-6, 0x1p-8},
        [MICA_F64] = {1e-14, 0x1p-53},
    };
    tolerance t = table[type];
    // bf16 products of many rows round the dequantised weight to bf16, as a bf16 checkpoint of it would.
    if (rounded_weights && type == MICA_BF16) t.sum += 0x1p-8;
    return t;
}

typedef struct check { // what every check needs
    const mica_cpu_isa *isa;
    mica_cpu_device device;
    guarded x, w, scales, biases, out, scratch;
    stream random;
    unsigned cases;
    int wrong;
} check;

static inline check check_new(const mica_cpu_isa *isa, size_t threads) {
    check c = {.isa = isa, .random = {.seed = 17}};
    c.device.pool = mica_pool_new(threads), c.device.isa = isa;
    c.x = guarded_new(4 << 20), c.w = guarded_new(8 << 20), c.scales = guarded_new(1 << 20), c.biases = guarded_new(1 << 20);
    c.out = guarded_new(4 << 20), c.scratch = guarded_new(32 << 20);
    return c;
}
static inline int check_free(check *c) {
    guarded *all[] = {&c->x, &c->w, &c->scales, &c->biases, &c->out, &c->scratch};
    for (size_t i = 0; i < MICA_COUNT(all); i++) guarded_free(all[i]);
    mica_pool_free(c->device.pool);
    return c->wrong;
}

static inline void compare(check *c, const char *what, mica_dtype type, const void *out, size_t i, double want, double size,
                           tolerance t) {
    double got = get(type, out, i), bound = t.sum * size + t.out * fabs(want) + (type == MICA_F16 ? 0x1p-25 : 0);
    if (fabs(got - want) <= bound * 1.001) return;
    if (c->wrong++ < 10)
        printf("  %s: %s, result %zu: got %.9g, want %.9g, off by %.3g, allowed %.3g\n", c->isa->name, what, i, got, want,
               fabs(got - want), bound);
}

// ---- matmul ------------------------------------------------------------------------------------------
typedef enum layout { ROWS, COLUMNS, APART, LAYOUTS } layout; // w as [N,K] transposed, [K,N], neither stride 1

static inline void matmul_case(check *c, mica_dtype type, size_t batch, bool shared, size_t m, size_t n, size_t k, layout lw,
                               bool x_transposed) {
    bool end = ++c->cases % 2;
    size_t size = mica_dtype_size(type), gap = lw == APART ? 2 : 1, wn = (shared ? 1 : batch) * n * k * gap;
    unsigned char *x = guarded_place(&c->x, batch * m * k * size, end), *w = guarded_place(&c->w, wn * size, end);
    unsigned char *out = guarded_place(&c->out, batch * m * n * size, end);
    fill_random(&c->random, type, x, batch * m * k), fill_random(&c->random, type, w, wn);
    mica_params params = {.words = {0}};
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = 2};
    int64_t B = (int64_t)batch, M = (int64_t)m, N = (int64_t)n, K = (int64_t)k, G = (int64_t)gap;
    mica_tensor *tx = &call.in[0], *tw = &call.in[1];
    *tx = TENSOR(type, x, B, M, K), *tw = TENSOR(type, w, B, K, N), call.out = TENSOR(type, out, B, M, N);
    if (x_transposed) tx->stride[1] = 1, tx->stride[2] = M, tx->contiguous = false;
    if (lw != COLUMNS) tw->stride[1] = G, tw->stride[2] = K * G, tw->contiguous = false;
    tw->stride[0] = shared ? 0 : N * K * G;
    memset(out, 0xFF, batch * m * n * size);
    run_call("matmul", &call, &c->scratch);
    char what[160];
    snprintf(what, sizeof what, "matmul %s batch %zu%s, %zux%zux%zu, layout %d%s", mica_dtype_name(type), batch,
             shared ? " shared" : "", m, n, k, (int)lw, x_transposed ? ", x transposed" : "");
    for (size_t i = 0; i < batch * m * n; i++) {
        size_t b = i / (m * n), row = i / n % m, col = i % n;
        double want = 0, norm = 0;
        for (size_t p = 0; p < k; p++) {
            double v = get(type, x, b * m * k + (x_transposed ? p * m + row : row * k + p)) *
                       get(type, w, (size_t)((int64_t)b * tw->stride[0] + (int64_t)p * tw->stride[1] + (int64_t)col * tw->stride[2]));
            want += v, norm += fabs(v);
        }
        compare(c, what, type, out, i, want, norm, tolerance_of(type, false));
    }
}

static const size_t check_m[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33};
static const size_t check_n[] = {1, 15, 16, 17, 100};
static const size_t check_k[] = {1, 2, 31, 32, 33, 64, 96, 130, 256};

static inline int check_matmul(const mica_cpu_isa *isa) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16, MICA_F64};
    check c = check_new(isa, 2);
    for (size_t t = 0; t < MICA_COUNT(types); t++) {
        for (size_t i = 0; i < 180; i++) // every m with every n, the k's in turn
            matmul_case(&c, types[t], 1, true, check_m[i % 18], check_n[i % 5], check_k[i % 18 / 2], (layout)(i % LAYOUTS), i % 7 == 0);
        for (int l = 0; l < LAYOUTS; l++) {
            matmul_case(&c, types[t], 3, true, 5, 20, 40, (layout)l, false);
            matmul_case(&c, types[t], 3, true, 5, 20, 41, (layout)l, true);
            matmul_case(&c, types[t], 3, false, 1, 20, 40, (layout)l, false);
            matmul_case(&c, types[t], 2, false, 19, 35, 67, (layout)l, l == 0);
            matmul_case(&c, types[t], 1, true, 3, 18, 2311, (layout)l, false); // several panels along k
            matmul_case(&c, types[t], 1, true, 140, 49, 1100, (layout)l, false);
            matmul_case(&c, types[t], 1, true, 9, 64, 1030, (layout)l, false); // panels of several widths, results written by the kernel
            matmul_case(&c, types[t], 2, false, 13, 112, 70, (layout)l, l == 1);
            matmul_case(&c, types[t], 2, l == 1, 4, 5, 0, (layout)l, false);
            matmul_case(&c, types[t], 1, true, 0, 5, 3, (layout)l, false);
            matmul_case(&c, types[t], 1, true, 3, 0, 3, (layout)l, false);
        }
    }
    return check_free(&c);
}

// ---- quantised weights -----------------------------------------------------------------------------------
static inline weight weight_random(check *c, mica_quant_spec spec, mica_dtype scale_dtype, size_t rows, size_t in) {
    bool end = c->cases % 2;
    weight w = {.spec = spec, .scale_dtype = scale_dtype, .rows = rows, .in = in};
    w.words = guarded_place(&c->w, weight_words(&w), end);
    w.scales = guarded_place(&c->scales, weight_scales(&w), end), w.biases = guarded_place(&c->biases, weight_scales(&w), end);
    w.value = mica_alloc(rows * in * sizeof *w.value), w.size = mica_alloc(rows * in * sizeof *w.size);
    weight_fill(&w, &c->random);
    return w;
}
static inline void weight_free(weight *w) { mica_free(w->value), mica_free(w->size); }

static inline void compare_product(check *c, const char *what, const weight *w, bool by_row, mica_dtype type, size_t m,
                                   const void *x, const int64_t stride, const void *out, bool rounded) {
    size_t n = by_row ? w->rows : w->in, k = by_row ? w->in : w->rows;
    for (size_t i = 0; i < m * n; i++) {
        double want = 0, norm = 0;
        for (size_t p = 0; p < k; p++) {
            size_t at = by_row ? i % n * k + p : p * n + i % n;
            double v = get(type, x, i / n * (size_t)stride + p);
            want += v * w->value[at], norm += fabs(v) * w->size[at];
        }
        compare(c, what, type, out, i, want, norm, tolerance_of(type, rounded));
    }
}

static inline void packed_case(check *c, mica_quant_spec spec, mica_dtype scales, mica_dtype type, size_t m, size_t n, size_t k,
                               size_t gap) {
    bool end = ++c->cases % 2;
    weight w = weight_random(c, spec, scales, n, k);
    mica_params params = {.packed = {.out = (int32_t)n, .in = (int32_t)k, .bits = spec.bits, .group_size = spec.group_size,
                                     .mode = (int32_t)spec.mode, .scale_dtype = (int32_t)scales}};
    size_t bytes = mica_cpu_packed_size(&c->device.device, &params), size = mica_dtype_size(type), rows = m * (k + gap);
    guarded g = guarded_new(bytes);
    unsigned char *packed = guarded_place(&g, bytes, true), *x = guarded_place(&c->x, rows * size, end);
    memset(packed, 0xFF, bytes);
    mica_cpu_pack(&c->device.device, &params, w.words, w.scales, w.biases, packed);
    unsigned char *out = guarded_place(&c->out, m * n * size, end);
    fill_random(&c->random, type, x, rows);
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = 2};
    call.in[0] = TENSOR(type, x, (int64_t)m, (int64_t)k), call.in[1] = TENSOR(MICA_U8, packed, (int64_t)bytes);
    call.in[0].stride[0] = (int64_t)(k + gap), call.in[0].contiguous = !gap;
    call.out = TENSOR(type, out, (int64_t)m, (int64_t)n);
    memset(out, 0xFF, m * n * size);
    run_call("linear_packed", &call, &c->scratch);
    char what[160];
    snprintf(what, sizeof what, "linear_packed %s, %d bits, group %d, scales %s, %zux%zux%zu", mica_dtype_name(type), spec.bits,
             spec.group_size, mica_dtype_name(scales), m, n, k);
    bool rounded = c->isa->matmul.bf16.columns && (m > c->isa->matmul.bf16.direct_tiles[spec.bits] || (spec.group_size == 16 && m > 4));
    compare_product(c, what, &w, true, type, m, x, (int64_t)(k + gap), out, rounded);
    guarded_free(&g);
    weight_free(&w);
}

static const int check_bits[] = {2, 3, 4, 5, 6, 8}, check_groups[] = {16, 32, 64, 128};
static const mica_dtype check_floats[] = {MICA_BF16, MICA_F16, MICA_F32};

static inline int check_packed(const mica_cpu_isa *isa) {
    check c = check_new(isa, 2);
    size_t i = 0;
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++)
        for (size_t g = 0; g < MICA_COUNT(check_groups); g++)
            for (size_t s = 0; s < 3; s++)
                for (size_t t = 0; t < 3; t++)
                    for (size_t r = 0; r < 6; r++, i++) {
                        mica_quant_spec spec = {MICA_AFFINE, check_bits[b], check_groups[g]};
                        size_t group = (size_t)check_groups[g], k = group * (1 + next_below(&c.random, 5));
                        if (k * (size_t)spec.bits % 32) k += group;
                        packed_case(&c, spec, check_floats[s], check_floats[t], check_m[i % 18], check_n[i % 5], k, i % 4 ? 0 : 3);
                    }
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++) { // several panels, many rows
        mica_quant_spec spec = {MICA_AFFINE, check_bits[b], 64};
        packed_case(&c, spec, MICA_BF16, MICA_BF16, 70, 49, 1152, 0);
        packed_case(&c, spec, MICA_BF16, MICA_F32, 50, 49, 1152, 0);
        packed_case(&c, spec, MICA_F16, MICA_BF16, 1, 300, 1152, 0);
    }
    packed_case(&c, (mica_quant_spec){MICA_AFFINE, 4, 64}, MICA_BF16, MICA_BF16, 600, 33, 128, 0); // two blocks of rows
    packed_case(&c, (mica_quant_spec){MICA_AFFINE, 4, 64}, MICA_BF16, MICA_BF16, 131, 2100, 320, 3); // several panels a task
    return check_free(&c);
}

// Gated products, bit for bit: the activation of what the plain product gives in f32.
static inline void gated_case(check *c, int bits, mica_gate gate, mica_dtype type, size_t m, size_t n, size_t k) {
    mica_quant_spec spec = {MICA_AFFINE, bits, 64};
    weight w = weight_random(c, spec, MICA_BF16, n, k);
    mica_params params = {.packed = {.out = (int32_t)n, .in = (int32_t)k, .bits = bits, .group_size = 64, .scale_dtype = MICA_BF16}};
    size_t bytes = mica_cpu_packed_size(&c->device.device, &params), size = mica_dtype_size(type), half = n / 2;
    unsigned char *packed = mica_alloc(bytes), *x = guarded_place(&c->x, m * k * size, true);
    mica_cpu_pack(&c->device.device, &params, w.words, w.scales, w.biases, packed);
    fill_random(&c->random, type, x, m * k);
    float *plain = mica_alloc(m * n * 4), *out = (float *)guarded_place(&c->out, m * half * 4, true);
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = 2};
    call.in[0] = TENSOR(type, x, (int64_t)m, (int64_t)k), call.in[1] = TENSOR(MICA_U8, packed, (int64_t)bytes);
    call.out = TENSOR(MICA_F32, plain, (int64_t)m, (int64_t)n);
    run_call("linear_packed", &call, &c->scratch);
    params.packed.gate = (int32_t)gate;
    call.out = TENSOR(MICA_F32, out, (int64_t)m, (int64_t)half);
    memset(out, 0xFF, m * half * 4);
    run_call("linear_packed", &call, &c->scratch);
    mica_cpu_binary f = gate == MICA_GATE_SWIGLU ? MICA_CPU_SWIGLU : MICA_CPU_GEGLU;
    for (size_t i = 0; i < m * half; i += 16) {
        float want[16], *from = plain + i / half * n + i % half * 2;
        c->isa->rows.binary[f][MICA_F32](want, from, from + 16, 16);
        if (memcmp(want, out + i, sizeof want) && c->wrong++ < 10)
            printf("  %s: gated %s, %d bits, %zux%zux%zu: results from %zu on differ\n", c->isa->name, mica_dtype_name(type), bits, m, n, k, i);
    }
    mica_free(plain);
    mica_free(packed);
    weight_free(&w);
}

static inline int check_gated(const mica_cpu_isa *isa) {
    static const size_t rows[] = {1, 3, 17, 130};
    check c = check_new(isa, 2);
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++)
        for (size_t r = 0; r < MICA_COUNT(rows); r++) {
            mica_gate gate = (b + r) % 2 ? MICA_GATE_SWIGLU : MICA_GATE_GEGLU;
            gated_case(&c, check_bits[b], gate, r == 2 ? MICA_F32 : MICA_BF16, rows[r], r % 2 ? 160 : 32, 192);
        }
    return check_free(&c);
}

static inline void codes_case(check *c, mica_quant_spec spec, mica_dtype scales, mica_dtype type, size_t m, size_t rows, size_t in,
                              bool transpose) {
    bool end = ++c->cases % 2;
    size_t k = transpose ? in : rows, n = transpose ? rows : in, size = mica_dtype_size(type);
    weight w = weight_random(c, spec, scales, rows, in);
    unsigned char *x = guarded_place(&c->x, m * k * size, end), *out = guarded_place(&c->out, m * n * size, end);
    fill_random(&c->random, type, x, m * k);
    mica_params params = {.quant = {.bits = spec.bits, .group_size = spec.group_size, .mode = (int32_t)spec.mode, .transpose = transpose}};
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = spec.mode == MICA_AFFINE ? 4 : 3};
    int64_t R = (int64_t)rows, G = (int64_t)mica_quant_groups(spec, in);
    mica_dtype st = mica_quant_scale_dtype(spec, scales);
    call.in[0] = TENSOR(type, x, (int64_t)m, (int64_t)k), call.in[1] = TENSOR(MICA_U32, w.words, R, (int64_t)mica_quant_words(spec, in));
    call.in[2] = TENSOR(st, w.scales, R, G);
    if (spec.mode == MICA_AFFINE) call.in[3] = TENSOR(st, w.biases, R, G);
    call.out = TENSOR(type, out, (int64_t)m, (int64_t)n);
    memset(out, 0xFF, m * n * size);
    run_call("quantized_matmul", &call, &c->scratch);
    char what[160];
    snprintf(what, sizeof what, "quantized_matmul %s, %s, %d bits, group %d, scales %s, %zux%zux%zu%s", mica_dtype_name(type),
             mica_quant_mode_name(spec.mode), spec.bits, spec.group_size, mica_dtype_name(scales), m, n, k, transpose ? "" : ", plain");
    compare_product(c, what, &w, transpose, type, m, x, (int64_t)k, out, c->isa->matmul.bf16.columns);
    weight_free(&w);
}

static inline int check_codes(const mica_cpu_isa *isa) {
    check c = check_new(isa, 2);
    size_t i = 0;
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++)
        for (size_t g = 0; g < MICA_COUNT(check_groups); g++)
            for (size_t s = 0; s < 3; s++)
                for (size_t t = 0; t < 3; t++, i++) {
                    mica_quant_spec spec = {MICA_AFFINE, check_bits[b], check_groups[g]};
                    size_t in = (size_t)check_groups[g] * 2 * (1 + i % 3);
                    codes_case(&c, spec, check_floats[s], check_floats[t], check_m[i % 18], check_n[i % 5], in, true);
                    codes_case(&c, spec, check_floats[s], check_floats[t], check_m[(i + 7) % 18], check_n[i % 5], in, false);
                }
    for (int mode = MICA_MXFP4; mode < MICA_QUANT_MODE_COUNT; mode++)
        for (size_t t = 0; t < 3; t++)
            for (int transpose = 0; transpose < 2; transpose++)
                codes_case(&c, mica_quant_default((mica_quant_mode)mode), MICA_F32, check_floats[t], 3, 17, 96, transpose);
    codes_case(&c, (mica_quant_spec){MICA_AFFINE, 4, 64}, MICA_BF16, MICA_BF16, 20, 50, 1152, true);
    codes_case(&c, (mica_quant_spec){MICA_AFFINE, 4, 64}, MICA_BF16, MICA_F32, 20, 1150, 128, false);
    return check_free(&c);
}

// ---- take_packed, dequantize: exact ------------------------------------------------------------------------
static inline void decode_case(check *c, mica_quant_spec spec, mica_dtype scales, mica_dtype type) {
    enum { ROWS_OF = 35, IDS = 9 };
    size_t in = (size_t)spec.group_size * 2, size = mica_dtype_size(type);
    weight w = weight_random(c, spec, scales, ROWS_OF, in);
    mica_params params = {.packed = {.out = ROWS_OF, .in = (int32_t)in, .bits = spec.bits, .group_size = spec.group_size,
                                     .mode = (int32_t)spec.mode, .scale_dtype = (int32_t)scales}};
    size_t bytes = mica_cpu_packed_size(&c->device.device, &params);
    guarded g = guarded_new(bytes);
    unsigned char *packed = guarded_place(&g, bytes, true);
    mica_cpu_pack(&c->device.device, &params, w.words, w.scales, w.biases, packed);
    int32_t ids[IDS] = {0, 34, 15, 16, 1, 17, 33, -1, 5};
    mica_quant_rows rows = {.spec = spec, .scale_dtype = scales, .words = w.words, .scales = w.scales, .biases = w.biases};
    float *want = mica_alloc(ROWS_OF * in * sizeof *want);
    unsigned char *expected = mica_alloc(ROWS_OF * in * size), *out = guarded_place(&c->out, IDS * in * size, true);
    mica_dequantize_rows(&rows, in, 0, ROWS_OF, want);
    mica_store_f32_run(type, want, ROWS_OF * in, expected);
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = 2};
    call.in[0] = TENSOR(MICA_U8, packed, (int64_t)bytes), call.in[1] = TENSOR(MICA_I32, ids, 3, 3);
    call.out = TENSOR(type, out, 3, 3, (int64_t)in);
    run_call("take_packed", &call, &c->scratch);
    for (size_t i = 0; i < IDS; i++) {
        size_t row = (size_t)(ids[i] < 0 ? ids[i] + ROWS_OF : ids[i]);
        if (memcmp(out + i * in * size, expected + row * in * size, in * size) && c->wrong++ < 10)
            printf("  take_packed: %d bits, group %d: row %zu differs\n", spec.bits, spec.group_size, row);
    }
    mica_params quant = {.quant = {.bits = spec.bits, .group_size = spec.group_size, .mode = (int32_t)spec.mode}};
    call = (mica_call){.device = &c->device.device, .params = &quant, .inputs = 3};
    int64_t G = (int64_t)mica_quant_groups(spec, in);
    call.in[0] = TENSOR(MICA_U32, w.words, ROWS_OF, (int64_t)mica_quant_words(spec, in));
    call.in[1] = TENSOR(scales, w.scales, ROWS_OF, G), call.in[2] = TENSOR(scales, w.biases, ROWS_OF, G);
    out = guarded_place(&c->out, ROWS_OF * in * size, true), call.out = TENSOR(type, out, ROWS_OF, (int64_t)in);
    run_call("dequantize", &call, &c->scratch);
    if (memcmp(out, expected, ROWS_OF * in * size) && c->wrong++ < 10)
        printf("  dequantize: %d bits, group %d differs\n", spec.bits, spec.group_size);
    mica_free(want), mica_free(expected), guarded_free(&g), weight_free(&w);
}

static inline int check_decode(const mica_cpu_isa *isa) {
    check c = check_new(isa, 2);
    for (size_t b = 0; b < MICA_COUNT(check_bits); b++)
        for (size_t g = 0; g < MICA_COUNT(check_groups); g++)
            for (size_t t = 0; t < 3; t++, c.cases++)
                decode_case(&c, (mica_quant_spec){MICA_AFFINE, check_bits[b], check_groups[g]}, check_floats[(t + g) % 3], check_floats[t]);
    return check_free(&c);
}

// ---- bit for bit ---------------------------------------------------------------------------------------------
/** linear_packed (bits > 0) or matmul of rows [first, first + used) of m with `threads` threads into out, inputs from the same stream. */
static inline void product_of(const mica_cpu_isa *isa, size_t threads, int bits, int group, mica_dtype type, size_t m, size_t n, size_t k,
                              size_t first, size_t used, bool alone, unsigned char *out) {
    check c = check_new(isa, threads);
    size_t size = mica_dtype_size(type);
    unsigned char *x = c.x.base, *packed = NULL;
    fill_random(&c.random, type, x, m * k);
    mica_params params = {.words = {0}};
    mica_call call = {.device = &c.device.device, .params = &params, .inputs = 2};
    call.in[0] = TENSOR(type, x + first * k * size, (int64_t)used, (int64_t)k), call.out = TENSOR(type, out, (int64_t)used, (int64_t)n);
    call.rows_alone = alone;
    if (bits) {
        weight w = weight_random(&c, (mica_quant_spec){MICA_AFFINE, bits, group}, MICA_BF16, n, k);
        params.packed.out = (int32_t)n, params.packed.in = (int32_t)k, params.packed.bits = bits, params.packed.group_size = group;
        params.packed.scale_dtype = MICA_BF16;
        size_t bytes = mica_cpu_packed_size(&c.device.device, &params);
        packed = mica_alloc_aligned(bytes, 64);
        mica_cpu_pack(&c.device.device, &params, w.words, w.scales, w.biases, packed);
        call.in[1] = TENSOR(MICA_U8, packed, (int64_t)bytes);
        weight_free(&w);
    } else {
        fill_random(&c.random, type, c.w.base, n * k);
        call.in[1] = TENSOR(type, c.w.base, (int64_t)k, (int64_t)n);
        call.in[1].stride[0] = 1, call.in[1].stride[1] = (int64_t)k;
    }
    memset(out, 0, used * n * size);
    run_call(bits ? "linear_packed" : "matmul", &call, &c.scratch);
    mica_free(packed);
    check_free(&c);
}

static inline void product_with(const mica_cpu_isa *isa, size_t threads, int bits, mica_dtype type, size_t m, size_t n, size_t k, size_t used,
                                unsigned char *out) {
    product_of(isa, threads, bits, 32, type, m, n, k, 0, used, false, out);
}

static inline int check_threads(const mica_cpu_isa *isa) {
    enum { N = 300, K = 320, MOST = 1 << 20 };
    static const size_t rows[] = {1, 3, 17, 150};
    unsigned char *one = mica_alloc(MOST), *many = mica_alloc(MOST);
    int wrong = 0;
    for (size_t t = 0; t < 3; t++)
        for (int bits = 0; bits <= 8; bits += 4)
            for (size_t r = 0; r < MICA_COUNT(rows); r++) {
                product_with(isa, 1, bits, check_floats[t], rows[r], N, K, rows[r], one);
                for (size_t threads = 1; threads <= 4; threads++) {
                    product_with(isa, threads, bits, check_floats[t], rows[r], N, K, rows[r], many);
                    if (!memcmp(one, many, rows[r] * N * mica_dtype_size(check_floats[t]))) continue;
                    printf("  %s: %s, %d bits, %zu rows: %zu threads give other bits\n", isa->name, mica_dtype_name(check_floats[t]),
                           bits, rows[r], threads);
                    wrong++;
                }
            }
    mica_free(one), mica_free(many);
    return wrong;
}

/** Within the direct kernels, and within the panels, a row's result does not depend on how many rows there are. */
static inline int check_rows_alone(const mica_cpu_isa *isa) {
    enum { N = 100, K = 160, MOST = 1 << 18, ALL = 40 };
    unsigned char *all = mica_alloc(MOST), *few = mica_alloc(MOST);
    int wrong = 0;
    for (size_t t = 0; t < 3; t++)
        for (int bits = 0; bits <= 8; bits += 4) {
            mica_dtype type = check_floats[t];
            bool bf16 = type == MICA_BF16 && isa->matmul.bf16.columns;
            const mica_cpu_panels *panels = bf16 ? &isa->matmul.bf16 : &isa->matmul.f32;
            size_t direct = MICA_MIN(bits ? panels->direct_tiles[bits] : panels->direct, (size_t)ALL), whole = 0;
            size_t fixed = type == MICA_BF16 && bits == 4 && isa->matmul.tiles_fixed ? isa->matmul.fixed_rows : 0; // so many have a way of their own
            for (size_t m = 1; m <= ALL; m++) {
                if (m == 1 || m == fixed + 1 || m == direct + 1) {
                    whole = m <= fixed ? fixed : m <= direct ? direct : ALL;
                    product_with(isa, 2, bits, type, ALL, N, K, whole, all);
                }
                product_with(isa, 2, bits, type, ALL, N, K, m, few);
                if (!memcmp(all, few, m * N * mica_dtype_size(type))) continue;
                printf("  %s: %s, %d bits: %zu rows differ from the same rows of %zu\n", isa->name, mica_dtype_name(type), bits, m, whole);
                wrong++;
            }
        }
    mica_free(all), mica_free(few);
    return wrong;
}

/** Weights fetched ahead, as on other processors, give the same bits. */
static inline int check_fetched(const mica_cpu_isa *isa) {
    enum { N = 100, K = 384, MOST = 1 << 14 };
    static const int groups[] = {32, 64, 128};
    mica_cpu_isa other = *isa;
    other.matmul.fixed_ahead = isa->matmul.fixed_ahead ? 0 : 4096;
    unsigned char *here = mica_alloc(MOST), *there = mica_alloc(MOST);
    int wrong = 0;
    for (size_t g = 0; g < MICA_COUNT(groups); g++)
        for (size_t m = 1; m <= MICA_DIRECT_ROWS; m++) {
            product_of(isa, 2, 4, groups[g], MICA_BF16, m, N, K, 0, m, false, here);
            product_of(&other, 2, 4, groups[g], MICA_BF16, m, N, K, 0, m, false, there);
            if (!memcmp(here, there, m * N * mica_dtype_size(MICA_BF16))) continue;
            printf("  %s: %zu rows, groups of %d: fetching weights ahead gives other bits\n", isa->name, m, groups[g]);
            wrong++;
        }
    mica_free(here), mica_free(there);
    return wrong;
}

/** Rows that are asked to be as if alone are, whatever way a single one takes. */
static inline int check_rows_as_alone(const mica_cpu_isa *isa) {
    enum { N = 36, K = 384, MOST = 1 << 14, ALL = 16 };
    static const struct { int bits, group; } formats[] = {{0, 0}, {2, 64}, {3, 32}, {4, 16}, {4, 32}, {4, 64}, {4, 128}, {5, 64}, {6, 64}, {8, 16}, {8, 64}};
    unsigned char *one = mica_alloc(MOST), *together = mica_alloc(MOST);
    int wrong = 0;
    for (size_t t = 0; t < 3; t++)
        for (size_t f = 0; f < MICA_COUNT(formats); f++) {
            mica_dtype type = check_floats[t];
            size_t row = N * mica_dtype_size(type);
            for (size_t i = 0; i < ALL; i++)
                product_of(isa, 2, formats[f].bits, formats[f].group, type, ALL, N, K, i, 1, false, one + i * row);
            static const size_t counts[] = {2, 3, 5, 6, 7, 8, 9, 16};
            for (size_t c = 0; c < MICA_COUNT(counts); c++) {
                product_of(isa, 2, formats[f].bits, formats[f].group, type, ALL, N, K, 0, counts[c], true, together);
                if (!memcmp(one, together, counts[c] * row)) continue;
                printf("  %s: %s, %d bits, groups of %d: %zu rows together are not what they are alone\n", isa->name, mica_dtype_name(type),
                       formats[f].bits, formats[f].group, counts[c]);
                wrong++;
            }
        }
    mica_free(one), mica_free(together);
    return wrong;
}

// ---- activations as they arrive ------------------------------------------------------------------------------
/** A row of x against an identity in 4 bits gives x as the kernel sees it. Kinds of groups: 0 as usual, 1 one great outlier, 2 tiny, 3 zeros,
 * 4 powers of two of all sizes. */
static inline void fill_groups(check *c, void *x, size_t k, size_t group) {
    for (size_t i = 0; i < k; i++) {
        double v = (double)next_float(&c->random), kinds[] = {v, i % group == 7 ? 3000 : v, v * 0x1p-100, 0, ldexp(v < 0 ? -1 : 1, (int)(i % 40) - 20)};
        put(MICA_BF16, x, i, kinds[i / group % 5]);
    }
}

static inline void identity_case(check *c, size_t group, size_t m, bool spoiled) {
    enum { GROUPS = 5 };
    size_t k = GROUPS * group;
    weight w = weight_random(c, (mica_quant_spec){MICA_AFFINE, 4, (int)group}, MICA_BF16, k, k);
    memset(w.words, 0, weight_words(&w));
    for (size_t i = 0; i < k; i++) w.words[(i * k + i) / 2] = (unsigned char)(i % 2 ? 0x10 : 1);
    for (size_t i = 0; i < k * GROUPS; i++) put(MICA_BF16, w.scales, i, 1), put(MICA_BF16, w.biases, i, 0);
    mica_params params = {.packed = {.out = (int32_t)k, .in = (int32_t)k, .bits = 4, .group_size = (int32_t)group, .scale_dtype = MICA_BF16}};
    size_t bytes = mica_cpu_packed_size(&c->device.device, &params);
    unsigned char *packed = mica_alloc_aligned(bytes, 64), *x = guarded_place(&c->x, m * k * 2, true);
    mica_cpu_pack(&c->device.device, &params, w.words, w.scales, w.biases, packed);
    fill_groups(c, x, m * k, group);
    if (spoiled) put(MICA_BF16, x, k + 3, m % 2 ? (double)INFINITY : (double)NAN); // in the second row
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = 2, .rows_alone = true};
    call.in[0] = TENSOR(MICA_BF16, x, (int64_t)m, (int64_t)k), call.in[1] = TENSOR(MICA_U8, packed, (int64_t)bytes);
    float *out = (float *)guarded_place(&c->out, m * k * 4, true);
    call.out = TENSOR(MICA_F32, out, (int64_t)m, (int64_t)k);
    run_call("linear_packed", &call, &c->scratch);
    for (size_t g = 0; g < m * GROUPS; g++) {
        bool lost = spoiled && g / GROUPS == 1; // all its outputs are no numbers
        double off = 0, size = 0;
        for (size_t i = g * group; i < (g + 1) * group; i++) {
            double v = get(MICA_BF16, x, i);
            off += lost ? (isfinite(out[i]) ? 1 : 0) : fabs((double)out[i] - v), size += lost ? 0 : fabs(v);
        }
        if (off <= size * 0x1p-14 || c->wrong++ >= 10) continue;
        printf("  %s: groups of %zu, row %zu of %zu, group %zu: off by %.3g of %.3g\n", c->isa->name, group, g / GROUPS, m, g % GROUPS, off, size);
    }
    mica_free(packed), weight_free(&w);
}

static inline int check_identity(const mica_cpu_isa *isa) {
    check c = check_new(isa, 2);
    for (size_t group = 32; group <= 128; group *= 2)
        for (size_t m = 1; m <= 8; m += group == 64 ? 1 : 3) identity_case(&c, group, m, m == 4 || m == 7);
    return check_free(&c);
}

// ---- precision -----------------------------------------------------------------------------------------------
/** Error of packed products of bf16 activations, as a share of the error that rounding the dequantised weights to bf16 alone
 * makes (what a bf16 checkpoint of the same weights computes): root mean squares over many outputs, sums in f32. */
static inline double precision_of(check *c, int bits, size_t m) {
    enum { N = 64, K = 1024 };
    weight w = weight_random(c, (mica_quant_spec){MICA_AFFINE, bits, 64}, MICA_BF16, N, K);
    mica_params params = {.packed = {.out = N, .in = K, .bits = bits, .group_size = 64, .mode = MICA_AFFINE, .scale_dtype = MICA_BF16}};
    size_t bytes = mica_cpu_packed_size(&c->device.device, &params);
    unsigned char *packed = mica_alloc_aligned(bytes, 64), *x = c->x.base;
    mica_cpu_pack(&c->device.device, &params, w.words, w.scales, w.biases, packed);
    fill_random(&c->random, MICA_BF16, x, m * K);
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = 2};
    call.in[0] = TENSOR(MICA_BF16, x, (int64_t)m, K), call.in[1] = TENSOR(MICA_U8, packed, (int64_t)bytes);
    call.out = TENSOR(MICA_F32, c->out.base, (int64_t)m, N);
    run_call("linear_packed", &call, &c->scratch);
    double ours = 0, rounded = 0;
    for (size_t i = 0; i < m * N; i++) {
        double exact = 0, theirs = 0;
        for (size_t k = 0; k < K; k++) {
            double v = get(MICA_BF16, x, i / N * K + k), f = w.value[i % N * K + k];
            exact += v * f, theirs += v * (double)mica_bf16_to_f32(mica_f32_to_bf16((float)f));
        }
        double off = get(MICA_F32, c->out.base, i) - exact;
        ours += off * off, rounded += (theirs - exact) * (theirs - exact);
    }
    mica_free(packed), weight_free(&w);
    return sqrt(ours / rounded);
}

static inline int check_precision(const mica_cpu_isa *isa) {
    static const size_t rows[] = {1, 8, 200};
    check c = check_new(isa, 2);
    for (size_t r = 0; r < MICA_COUNT(rows); r++) {
        printf("  error over that of bf16 weights, %zu rows:", rows[r]);
        for (size_t b = 0; b < MICA_COUNT(check_bits); b++) {
            double share = precision_of(&c, check_bits[b], rows[r]);
            printf("  %d bits %.2g", check_bits[b], share);
            if (!(share < 1.05)) c.wrong++;
        }
        printf("\n");
    }
    return check_free(&c);
}

/** Rows that share tiles, however few inputs they have. */
static inline int check_shared(const mica_cpu_isa *isa) {
    mica_cpu_isa all = *isa;
    if (!isa->matmul.tiles_shared) return printf("  %s: rows do not share tiles\n", isa->name), 0;
    all.matmul.shared_inputs = 0;
    return check_packed(&all) + check_gated(&all) + check_threads(&all) + check_rows_alone(&all) + check_precision(&all);
}

typedef struct named_check { const char *name; int (*run)(const mica_cpu_isa *isa); } named_check;
static const named_check matmul_checks[] = {
    {"matmul", check_matmul}, {"linear_packed", check_packed}, {"gated", check_gated}, {"quantized_matmul", check_codes}, {"decode", check_decode},
    {"threads", check_threads}, {"rows alone", check_rows_alone}, {"rows as alone", check_rows_as_alone},
    {"identity", check_identity}, {"precision", check_precision}, {"shared tiles", check_shared}, {"fetched ahead", check_fetched},
};
#endif
