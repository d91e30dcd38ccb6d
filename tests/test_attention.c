// SPDX-License-Identifier: Apache-2.0
// Queries and keys of a prompt against transformers', in pieces against whole, refusals, allocation failures.
#include "faults_testing.h"
#include "infer/internal.h"
#include "io/safetensors.h"
#include "mica/attention.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"

static mica_model *load(const char *name) {
    char path[400];
    mica_error err = {0};
    snprintf(path, sizeof path, GOLDEN "models/%s", name);
    mica_model *m = mica_model_load(path, &(mica_load_options){.threads = 2, .context = 2048}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static const float *floats(const mica_safetensors *file, const char *name, size_t count) {
    const mica_stored *t = mica_safetensors_find(file, name);
    if (!t) return NULL;
    assert_int_equal(t->bytes, count * sizeof(float));
    float *copy = malloc(count * sizeof *copy);
    memcpy(copy, t->data, count * sizeof *copy);
    return copy;
}

static double mean_distance(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += fabs((double)a[i] - (double)b[i]);
    return sum / (double)n;
}

// f32: equal to rounding. bf16: no further from f32 than transformers' bf16.
static void compare(const char *model, const char *what, const mica_safetensors *file, const float *got, size_t n) {
    char exact_name[8];
    snprintf(exact_name, sizeof exact_name, "%s32", what);
    const float *want = floats(file, what, n), *exact = floats(file, exact_name, n);
    double error = mean_distance(got, exact ? exact : want, n), allowed = exact ? 1.25 * mean_distance(want, exact, n) : 1e-5;
    print_message("  %s %s: mean distance %.2e, allowed %.2e\n", model, what, error, allowed);
    assert_true(error <= allowed);
    free((void *)(uintptr_t)want);
    free((void *)(uintptr_t)exact);
}

static void equal_to_transformers(void **state) {
    (void)state;
    static const char *const models[] = {"llama-f32", "gemma3-text-f32", "qwen2-f32", "qwen3-bf16"};
    for (size_t i = 0; i < MICA_COUNT(models); i++) {
        char path[400];
        mica_error err = {0};
        snprintf(path, sizeof path, GOLDEN "attention/%s.safetensors", models[i]);
        mica_safetensors *file = mica_safetensors_open(path, &err);
        if (!file) fail_msg("%s", err.msg);
        const mica_stored *ids = mica_safetensors_find(file, "input_ids");
        int32_t copy[64];
        size_t count = ids->bytes / sizeof *copy;
        memcpy(copy, ids->data, ids->bytes);
        mica_model *m = load(models[i]);
        mica_attention a;
        if (!mica_attention_read(m, copy, count, &a, &err)) fail_msg("%s", err.msg);
        assert_int_equal(a.count, count);
        assert_int_equal(a.window[0], m->info.sliding_window);
        assert_true(a.scale > 0);
        size_t each = (size_t)(a.layers * a.head_dim) * count;
        compare(models[i], "q", file, a.q, each * (size_t)a.heads);
        compare(models[i], "k", file, a.k, each * (size_t)a.kv_heads);
        mica_attention_free(&a);
        mica_model_free(m);
        mica_safetensors_free(file);
    }
}

// Longer than a chunk: positions keep their places, and the beginning is that of a shorter prompt.
static void long_prompts(void **state) {
    (void)state;
    enum { LONG = 700, SHORT = 90 };
    mica_error err = {0};
    mica_model *m = load("gemma3-text-f32");
    int32_t ids[LONG];
    for (int i = 0; i < LONG; i++) ids[i] = (i * 37 + i / 9) % m->info.vocab_size;
    mica_attention a, b;
    assert_true(mica_attention_read(m, ids, LONG, &a, &err));
    assert_true(mica_attention_read(m, ids, SHORT, &b, &err));
    size_t dim = (size_t)a.head_dim;
    for (size_t h = 0; h < (size_t)(a.layers * a.heads); h++)
        assert_true(mean_distance(a.q + h * LONG * dim, b.q + h * SHORT * dim, SHORT * dim) < 1e-4);
    for (size_t i = 0; i < (size_t)(a.layers * a.kv_heads) * LONG * dim; i++) assert_true(isfinite(a.k[i]));
    mica_attention_free(&a);
    mica_attention_free(&b);
    assert_false(mica_attention_read(m, ids, 0, &a, &err));
    ids[3] = -1;
    assert_false(mica_attention_read(m, ids, 5, &a, &err));
    assert_non_null(strstr(err.msg, "-1"));
    mica_attention_free(&a); // nothing in it
    mica_model_close(m);
    assert_false(mica_attention_read(m, ids, 2, &a, &err));
    mica_model_free(m);
}

static bool read_some(mica_error *err) {
    mica_model *m = mica_model_load(GOLDEN "quant/llama-4bit-g64", &(mica_load_options){.threads = 1}, err);
    mica_attention a;
    bool ok = m && mica_attention_read(m, (int32_t[]){1, 2, 3, 4}, 4, &a, err);
    if (ok) mica_attention_free(&a);
    mica_model_free(m);
    return ok;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    mica_error err = {0};
    assert_true(read_some(&err));
    uint64_t live = mica_alloc_get_stats().live;
    bool ok = false;
    for (uint64_t n = 1; !ok; n += n < 100 ? 3 : 1) ok = run_refused(read_some, n, live);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equal_to_transformers), cmocka_unit_test(long_prompts),
                                       cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
