// SPDX-License-Identifier: Apache-2.0
// Sampling by known answers and by frequencies; stop texts across token borders.
#include "infer/sampler.h"
#include "infer/stop.h"
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static mica_sampler make(mica_generate_options o, size_t vocab) {
    mica_sampler s;
    mica_error err = {0};
    if (!mica_sampler_init(&s, &o, vocab, NULL, &err)) fail_msg("%s", err.msg);
    return s;
}

static void repeat_penalty_vector(void **state) {
    (void)state;
    const float logits[4] = {5, -3, 1, 0};
    mica_sampler s = make((mica_generate_options){.repeat_penalty = 2}, 4);
    mica_sampler_observe_prompt(&s, (int32_t[]){0, 1, 0, 99, -1}, 5);
    assert_int_equal(mica_sampler_next(&s, logits, NULL, 0), 0);
    const float want[4] = {2.5f, -6, 1, 0};
    assert_memory_equal(s.scratch.logits, want, sizeof want);
    mica_sampler_free(&s);
}

static void presence_frequency_and_bias(void **state) {
    (void)state;
    const float logits[3] = {1, 1, 0};
    mica_sampler s = make((mica_generate_options){.presence_penalty = 0.5f, .frequency_penalty = 0.25f,
                                                  .logit_bias = &(mica_logit_bias){2, 0.5f}, .logit_bias_count = 1}, 3);
    assert_int_equal(mica_sampler_next(&s, logits, NULL, 0), 0); // 1 1 .5
    assert_int_equal(mica_sampler_next(&s, logits, NULL, 0), 1); // .25 1 .5
    assert_int_equal(mica_sampler_next(&s, logits, NULL, 0), 2); // .25 .25 .5
    assert_int_equal(mica_sampler_next(&s, logits, NULL, 0), 0); // .25 .25 -.25
    assert_int_equal(mica_sampler_next(&s, logits, (int32_t[]){0, 1}, 2), 2);
    mica_sampler_free(&s);
}

// Frequencies of 20000 draws against wanted probabilities.
static void expect(mica_generate_options o, const float *logits, size_t n, const double *want) {
    enum { DRAWS = 20000 };
    mica_sampler s = make(o, n);
    double seen[8] = {0};
    for (int i = 0; i < DRAWS; i++) {
        seen[mica_sampler_next(&s, logits, NULL, 0)] += 1.0 / DRAWS;
        if (!s.seen) continue; // no penalty: nothing is counted
        memset(s.seen, 0, n);
        memset(s.counts, 0, n * sizeof *s.counts);
    }
    for (size_t i = 0; i < n; i++)
        if (fabs(seen[i] - want[i]) > 4 * sqrt(want[i] * (1 - want[i]) / DRAWS) + 1e-9)
            fail_msg("token %zu: drawn with frequency %g, wanted %g", i, seen[i], want[i]);
    mica_sampler_free(&s);
}

static void filters_and_temperature(void **state) {
    (void)state;
    // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
    float l[5];
    const double p[5] = {0.5, 0.25, 0.125, 0.0625, 0.0625};
    for (int i = 0; i < 5; i++) l[i] = (float)log(p[i]);
    expect((mica_generate_options){.temperature = 1}, l, 5, p);
    expect((mica_generate_options){.temperature = 1, .top_k = 2}, l, 5, (double[]){2. / 3, 1. / 3, 0, 0, 0});
    expect((mica_generate_options){.temperature = 1, .top_p = 0.7f}, l, 5, (double[]){2. / 3, 1. / 3, 0, 0, 0});
    expect((mica_generate_options){.temperature = 1, .top_p = 0.76f}, l, 5, (double[]){4. / 7, 2. / 7, 1. / 7, 0, 0});
    expect((mica_generate_options){.temperature = 1, .min_p = 0.2f}, l, 5, (double[]){4. / 7, 2. / 7, 1. / 7, 0, 0});
    expect((mica_generate_options){.temperature = 0.5f, .top_k = 2}, l, 5, (double[]){0.8, 0.2, 0, 0, 0});
    // Temperature first sharpens what top_p sees: 0.25 : 0.0625 : … normalised to 0.727, 0.182, …
    expect((mica_generate_options){.temperature = 0.5f, .top_p = 0.7f, .order = "temperature,top_p"}, l, 5, (double[]){1, 0, 0, 0, 0});
    // Equal logits: top_k keeps the lower ids.
    expect((mica_generate_options){.temperature = 1, .top_k = 2}, (float[]){0, 0, 0, 0}, 4, (double[]){0.5, 0.5, 0, 0});
}

static void seeds_repeat(void **state) {
    (void)state;
    const float l[4] = {0, 0, 0, 0};
    int32_t first[50], same = 0;
    for (int run = 0; run < 3; run++) {
        mica_sampler s = make((mica_generate_options){.temperature = 1, .seed = run == 2 ? 8 : 7}, 4);
        for (int i = 0; i < 50; i++) {
            int32_t id = mica_sampler_next(&s, l, NULL, 0);
            if (run == 0) first[i] = id;
            else if (run == 1) assert_int_equal(id, first[i]);
            else same += id == first[i];
        }
        mica_sampler_free(&s);
    }
    assert_in_range(same, 0, 30);
}

static void bad_options(void **state) {
    (void)state;
    const struct { mica_generate_options o; const char *word; } bad[] = {
        {{.temperature = -1}, "temperature"}, {{.temperature = NAN}, "temperature"}, {{.top_p = 1.5f}, "top_p"}, {{.min_p = -0.1f}, "min_p"},
        {{.top_k = -1}, "top_k"}, {{.repeat_penalty = -2}, "repeat_penalty"}, {{.order = "top_p,nucleus"}, "nucleus"},
        {{.order = "top_k,top_k"}, "twice"}, {{.max_tokens = -5}, "max_tokens"},
        {{.logit_bias = &(mica_logit_bias){10, 1}, .logit_bias_count = 1}, "logit_bias"}};
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        mica_sampler s;
        mica_error err = {0};
        assert_false(mica_sampler_init(&s, &bad[i].o, 10, NULL, &err));
        if (!strstr(err.msg, bad[i].word)) fail_msg("\"%s\" does not name %s", err.msg, bad[i].word);
    }
}

static void top_logprobs(void **state) {
    (void)state;
    const float l[5] = {1, 3, 2, 3, -1};
    mica_candidate scratch[5];
    mica_logprob out[5];
    double total = mica_logsumexp_f32(l, 5);
    mica_top_logprobs(l, 5, total, 5, scratch, out);
    const int32_t order[5] = {1, 3, 2, 0, 4};
    double sum = 0;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(out[i].id, order[i]);
        sum += exp((double)out[i].logprob);
    }
    assert_true(fabs(sum - 1) < 1e-6);
}

// Feeds the text in pieces of every size; the output must be the same.
static void expect_stop(const char *const *stops, size_t n, const char *text, const char *want, bool matched) {
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        mica_stop m;
        mica_buf got = {0};
        assert_true(mica_stop_init(&m, stops, n, NULL));
        for (size_t at = 0; at <= strlen(text); at += piece) {
            const char *out;
            size_t len, take = MICA_MIN(piece, strlen(text) - at);
            assert_true(mica_stop_push(&m, text + at, take, at + piece > strlen(text), &out, &len));
            mica_buf_append(&got, out, len);
        }
        mica_buf_puts(&got, "");
        assert_string_equal(got.data, want);
        assert_int_equal(m.matched, matched);
        mica_buf_free(&got);
        mica_stop_free(&m);
    }
}

static void stop_texts(void **state) {
    (void)state;
    expect_stop((const char *[]){"STOP"}, 1, "one STO two STOP three", "one STO two ", true);
    expect_stop((const char *[]){"abcX", "bc"}, 2, "zabcY", "za", true);
    expect_stop((const char *[]){"abab"}, 1, "aababab", "a", true);
    expect_stop((const char *[]){"\n\n"}, 1, "line\nline\n", "line\nline\n", false);
    expect_stop(NULL, 0, "anything", "anything", false);
    mica_stop m;
    assert_false(mica_stop_init(&m, (const char *[]){"ok", ""}, 2, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeat_penalty_vector), cmocka_unit_test(presence_frequency_and_bias), cmocka_unit_test(filters_and_temperature),
        cmocka_unit_test(seeds_repeat), cmocka_unit_test(bad_options), cmocka_unit_test(top_logprobs), cmocka_unit_test(stop_texts),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
