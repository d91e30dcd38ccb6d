// SPDX-License-Identifier: Apache-2.0
// Models whose activations are rounded to 8 bits: near the exact ones, the same bits with any number of threads and however the prompt
// is cut; and the command's measure, perplexity and divergence.
#include "infer/internal.h"
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define QUANT MICA_SOURCE_DIR "/tests/golden/quant/"
static const char *const models[] = {QUANT "llama-4bit-g64", QUANT "llama-8bit-g32"};
enum { N = 60 };

static mica_model *load(const char *path, int32_t threads, const char *activations) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.threads = threads, .activations = activations}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static void make_ids(const mica_model *m, int32_t *ids) {
    uint32_t x = 12345;
    for (size_t i = 0; i < N; i++) ids[i] = (int32_t)((x = x * 1664525 + 1013904223) >> 8) % m->info.vocab_size;
}

static mica_perplexity measure(mica_model *m, mica_model *reference, int32_t window) {
    int32_t ids[N];
    mica_error err = {0};
    mica_perplexity p;
    make_ids(m, ids);
    if (!mica_perplexity_of(m, ids, N, &(mica_perplexity_options){.reference = reference, .window = window}, &p, &err)) fail_msg("%s", err.msg);
    return p;
}

// Random weights are harder to round for than trained ones: their logits are flat. The bound is four times what was measured.
static void near_the_exact_model(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        mica_model *exact = load(models[k], 2, "exact"), *rounded = load(models[k], 2, "int8");
        mica_perplexity p = measure(rounded, exact, 0);
        printf("  %s: perplexity %.4f, exact %.4f; divergence %.3g, at most %.3g; same top %.3f\n", models[k] + strlen(QUANT), p.perplexity,
               p.reference_perplexity, p.kl_mean, p.kl_max, p.same_top);
        assert_int_equal(p.predicted, N - 1);
        assert_true(p.kl_mean > 0 && p.kl_mean < 1e-2 && p.kl_max >= p.kl_mean);
        assert_true(fabs(p.perplexity / p.reference_perplexity - 1) < 0.1);
        assert_true(p.same_top > 0.8 && p.same_top <= 1);
        mica_model_free(exact), mica_model_free(rounded);
    }
}

// Logits of all of ids[N], computed in pieces of `chunk`, to out[N][V].
static void run(mica_model *m, size_t chunk, float *out) {
    int32_t ids[N], rows[N];
    mica_error err = {0};
    mica_runner r;
    size_t vocab = (size_t)m->info.vocab_size;
    make_ids(m, ids);
    for (int32_t i = 0; i < N; i++) rows[i] = i;
    assert_true(mica_runner_init(&r, m->lm, N, &err));
    r.sequence.rope_length = N;
    for (size_t at = 0, n; at < N; at += n) {
        const float *logits = NULL;
        n = MICA_MIN(chunk, N - at);
        if (!mica_runner_forward(&r, ids + at, n, rows, n, &logits, &err)) fail_msg("%s", err.msg);
        memcpy(out + at * vocab, logits, n * vocab * sizeof *out);
    }
    mica_runner_free(&r);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        float *first = NULL, *out = NULL;
        size_t bytes = 0;
        for (int32_t threads = 1; threads <= 4; threads++) {
            mica_model *m = load(models[k], threads, "int8");
            bytes = N * (size_t)m->info.vocab_size * sizeof *out;
            if (!out) out = mica_alloc(bytes);
            run(m, 25, out);
            if (first) assert_memory_equal(out, first, bytes);
            else first = memcpy(mica_alloc(bytes), out, bytes);
            mica_model_free(m);
        }
        mica_free(first), mica_free(out);
    }
}

// ---- the measure --------------------------------------------------------------------------------------------
static void a_model_against_itself(void **state) {
    (void)state;
    mica_model *m = load(models[0], 2, NULL);
    int32_t ids[N];
    mica_error err = {0};
    mica_scores s;
    make_ids(m, ids);
    assert_true(mica_score(m, ids, N, 0, &s, &err));
    mica_perplexity alone = measure(m, NULL, 0), same = measure(m, m, 0);
    assert_true(fabs(alone.perplexity / s.perplexity - 1) < 1e-6 && alone.perplexity == same.perplexity);
    assert_true(isnan(alone.reference_perplexity) && isnan(alone.kl_mean) && isnan(alone.kl_max) && isnan(alone.same_top));
    assert_true(same.reference_perplexity == same.perplexity && same.kl_mean == 0 && same.kl_max == 0 && same.same_top == 1);
    mica_scores_free(&s);
    mica_model_free(m);
}

// Windows start from nothing: 60 tokens in windows of 25 are three texts.
static void windows(void **state) {
    (void)state;
    mica_model *m = load(models[0], 2, NULL);
    int32_t ids[N];
    mica_error err = {0};
    make_ids(m, ids);
    double sum = 0;
    size_t predicted = 0;
    for (size_t at = 0; at < N; at += 25) {
        mica_scores s;
        size_t n = MICA_MIN((size_t)25, N - at);
        assert_true(mica_score(m, ids + at, n, 0, &s, &err));
        sum += log(s.perplexity) * (double)(n - 1), predicted += n - 1;
        mica_scores_free(&s);
    }
    mica_perplexity p = measure(m, NULL, 25);
    assert_int_equal(p.predicted, predicted);
    assert_true(fabs(p.perplexity / exp(sum / (double)predicted) - 1) < 1e-6);
    mica_model_free(m);
}

static void refusals(void **state) {
    (void)state;
    mica_error err = {0};
    assert_null(mica_model_load(models[0], &(mica_load_options){.activations = "int4"}, &err));
    assert_non_null(strstr(err.msg, "int4"));
    assert_non_null(strstr(err.msg, "exact and int8"));
    mica_model *m = load(models[0], 1, NULL), *other = load(MICA_SOURCE_DIR "/tests/golden/models/gemma3-text-f32", 1, NULL);
    mica_perplexity p;
    int32_t ids[3] = {1, 2, m->info.vocab_size};
    assert_false(mica_perplexity_of(m, ids, 1, NULL, &p, &err));
    assert_non_null(strstr(err.msg, "nothing to predict"));
    assert_false(mica_perplexity_of(m, ids, 3, NULL, &p, &err));
    assert_non_null(strstr(err.msg, "outside the vocabulary"));
    assert_false(mica_perplexity_of(m, ids, 2, &(mica_perplexity_options){.window = 1}, &p, &err));
    assert_non_null(strstr(err.msg, "window"));
    if (other->info.vocab_size != m->info.vocab_size) {
        assert_false(mica_perplexity_of(m, ids, 2, &(mica_perplexity_options){.reference = other}, &p, &err));
        assert_non_null(strstr(err.msg, "vocabulary"));
    }
    mica_model_free(m), mica_model_free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(near_the_exact_model), cmocka_unit_test(threads_do_not_matter),
                                       cmocka_unit_test(a_model_against_itself), cmocka_unit_test(windows), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
