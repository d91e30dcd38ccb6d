// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Matrix products at every level this CPU has, against sums in double (matmul/checks.h), and the quantising ops against
// the scalar quantiser.
#include "matmul/checks.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void every_level(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; mica_cpu_isa_at(i); i++) {
        const mica_cpu_isa *isa = mica_cpu_isa_at(i);
        for (size_t j = 0; j < MICA_COUNT(matmul_checks); j++) {
            double start = mica_now();
            int n = matmul_checks[j].run(isa);
            printf("level %s: %s: %s (%.1f s)\n", isa->name, matmul_checks[j].name, n ? "WRONG" : "ok", mica_now() - start);
            wrong += n;
        }
    }
    assert_int_equal(wrong, 0);
}

// The three ops together give what the scalar quantiser gives; in[0] is a transposed view.
static void quantizing_ops(void **state) {
    (void)state;
    enum { R = 5, K = 128, G = K / 64 };
    check c = check_new(mica_cpu_isa_at(0), 2);
    mica_quant_spec spec = {MICA_AFFINE, 4, 64};
    float view[K * R], dense[R * K];
    fill_random(&c.random, MICA_F32, view, K * R);
    for (size_t i = 0; i < R * K; i++) dense[i] = view[i % K * R + i / K];
    uint32_t words[R * K / 8], got_words[R * K / 8];
    uint16_t scales[R * G], biases[R * G], got[R * G];
    mica_quantize_rows(spec, MICA_BF16, dense, R, K, words, scales, biases);
    mica_params params = {.quant = {.bits = 4, .group_size = 64}};
    mica_call call = {.device = &c.device.device, .params = &params, .inputs = 1};
    call.in[0] = TENSOR(MICA_F32, view, R, K);
    call.in[0].stride[0] = 1, call.in[0].stride[1] = R, call.in[0].contiguous = false;
    call.out = TENSOR(MICA_U32, got_words, R, K / 8);
    run_call("quantize_weights", &call, &c.scratch);
    assert_memory_equal(words, got_words, sizeof words);
    call.out = TENSOR(MICA_BF16, got, R, G);
    run_call("quantize_scales", &call, &c.scratch);
    assert_memory_equal(scales, got, sizeof scales);
    run_call("quantize_biases", &call, &c.scratch);
    assert_memory_equal(biases, got, sizeof biases);
    assert_int_equal(check_free(&c), 0);
}

static void packed_size(void **state) {
    (void)state;
    mica_cpu_device d = {0};
    mica_params p = {.packed = {.out = 17, .in = 128, .bits = 4, .group_size = 64, .mode = MICA_AFFINE, .scale_dtype = MICA_BF16}};
    assert_int_equal(mica_cpu_packed_size(&d.device, &p), 2 * 2 * (512 + 64)); // outputs padded to 32
    p.packed.mode = MICA_MXFP4;
    assert_int_equal(mica_cpu_packed_size(&d.device, &p), 0);
}

// Outputs first … first + n of a product with w [k][all].
static void some_outputs(check *c, size_t m, size_t k, size_t all, size_t first, size_t n, uint16_t *x, uint16_t *w, uint16_t *out) {
    mica_params params = {.words = {0}};
    mica_call call = {.device = &c->device.device, .params = &params, .inputs = 2};
    call.in[0] = TENSOR(MICA_BF16, x, (int64_t)m, (int64_t)k), call.in[1] = TENSOR(MICA_BF16, w + first, (int64_t)k, (int64_t)n);
    call.in[1].stride[0] = (int64_t)all, call.in[1].contiguous = n == all;
    call.out = TENSOR(MICA_BF16, out, (int64_t)m, (int64_t)n);
    run_call("matmul", &call, &c->scratch);
}

// Rows too long for the cache: tasks have several panels. Bits are those of outputs computed apart.
static void long_rows(void **state) {
    (void)state;
    enum { M = 512, K = 16400, N = 400, APIECE = 80 };
    uint16_t *x = malloc(M * K * sizeof *x), *w = malloc((size_t)K * N * sizeof *w), *whole = malloc(M * N * sizeof *whole), *part = malloc(M * APIECE * sizeof *part);
    stream random = {.seed = 5};
    assert_true(x && w && whole && part);
    fill_random(&random, MICA_BF16, x, (size_t)M * K), fill_random(&random, MICA_BF16, w, (size_t)K * N);
    for (size_t i = 0; mica_cpu_isa_at(i); i++) {
        if (!mica_cpu_isa_at(i)->matmul.bf16.part) continue; // the others' tasks do not depend on it
        check c = check_new(mica_cpu_isa_at(i), 2);
        some_outputs(&c, M, K, N, 0, N, x, w, whole);
        for (size_t n = 0; n < N; n += APIECE) {
            some_outputs(&c, M, K, N, n, APIECE, x, w, part);
            for (size_t r = 0; r < M; r++) assert_memory_equal(part + r * APIECE, whole + r * N + n, APIECE * sizeof *part);
        }
        assert_int_equal(check_free(&c), 0);
    }
    free(x), free(w), free(whole), free(part);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_rows), cmocka_unit_test(quantizing_ops), cmocka_unit_test(packed_size), cmocka_unit_test(every_level)};
    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
