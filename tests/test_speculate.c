// SPDX-License-Identifier: Apache-2.0
// Speculative decoding changes nothing but time: rows verified together equal tokens run one by one bit for bit, streams with and without it
// give the same tokens, log-probabilities and endings, the distribution of samples stays, and guesses that fail stop being made.
#include "base/file.h"
#include "faults_testing.h"
#include "device/cpu/isa.h"
#include "infer/draft.h"
#include "infer/internal.h"
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
enum { PERIOD = 9, PROMPT = 40 }; // prompts that repeat themselves: nine ids over and over

static mica_model *load(const char *path, const char *level, int32_t context) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.cpu_level = level, .threads = 2, .context = context}, &err);
    if (!m) fail_msg("%s: %s", path, err.msg);
    return m;
}

static void make_ids(const mica_model *m, int32_t *ids, size_t n, size_t period, uint32_t seed) {
    for (size_t i = 0; i < n; i++) {
        if (i < period) ids[i] = (int32_t)((seed = seed * 1664525 + 1013904223) >> 8) % m->info.vocab_size;
        else ids[i] = ids[i - period];
    }
}

// Calls check for every model folder in the golden folders and every level.
static void each_model(void (*check)(const char *path, const char *level)) {
    static const char *const parents[] = {GOLDEN "models", GOLDEN "quant"};
    for (size_t p = 0; p < MICA_COUNT(parents); p++) {
        DIR *d = opendir(parents[p]);
        assert_non_null(d);
        for (struct dirent *f; (f = readdir(d));) {
            char *path = mica_strf("%s/%s", parents[p], f->d_name), *config = mica_strf("%s/config.json", path);
            if (f->d_name[0] != '.' && mica_is_file(config))
                for (size_t l = 0; mica_cpu_isa_at(l); l++) check(path, mica_cpu_isa_at(l)->name);
            mica_free(path);
            mica_free(config);
        }
        closedir(d);
    }
}

// ---- rows together = tokens alone ---------------------------------------------------------------------------
static void check_rows_after(mica_model *m, const char *what, const int32_t *ids, size_t at, float *want) {
    static const size_t counts[] = {2, 3, 4, 5, 6, 7, 8};
    mica_error err = {0};
    size_t V = (size_t)m->info.vocab_size;
    const float *logits;
    mica_runner alone, together;
    assert_true(mica_runner_init(&alone, m->lm, (int64_t)at + 8, &err) && mica_runner_init(&together, m->lm, (int64_t)at + 8, &err));
    alone.sequence.rope_length = together.sequence.rope_length = (int64_t)at;
    assert_true(mica_runner_forward(&alone, ids, at, NULL, 0, NULL, &err));
    assert_true(mica_runner_forward(&together, ids, at, NULL, 0, NULL, &err));
    for (size_t i = 0; i < 8 && at + i < (size_t)m->lm->context; i++) {
        assert_true(mica_runner_verify(&alone, ids + at + i, 1, &logits, &err));
        memcpy(want + i * V, logits, V * sizeof *want);
    }
    for (size_t c = 0; c < MICA_COUNT(counts); c++) {
        size_t n = mica_runner_reach(&together, counts[c]);
        assert_true(mica_runner_verify(&together, ids + at, n, &logits, &err));
        for (size_t i = 0; i < n; i++)
            if (memcmp(logits + i * V, want + i * V, V * sizeof *want))
                fail_msg("%s: row %zu of %zu after %zu tokens is not what it is alone", what, i, n, at);
        assert_true(mica_sequence_truncate(&together.sequence, (int64_t)at));
    }
    mica_runner_free(&alone);
    mica_runner_free(&together);
}

static void check_rows(const char *path, const char *level) {
    mica_model *m = load(path, level, 0);
    int32_t ids[96];
    make_ids(m, ids, 96, 96, 5);
    float *want = malloc((size_t)m->info.vocab_size * 8 * sizeof *want);
    char *what = mica_strf("%s at level %s", path, level);
    check_rows_after(m, what, ids, 3, want);
    check_rows_after(m, what, ids, MICA_MIN((size_t)75, (size_t)m->lm->context / 2), want);
    mica_free(what);
    free(want);
    mica_model_free(m);
}

static void rows_equal_tokens_alone(void **state) {
    (void)state;
    each_model(check_rows);
}

static void rounded_rows_equal_tokens_alone(void **state) {
    (void)state;
    for (size_t l = 0; mica_cpu_isa_at(l); l++) {
        mica_error err = {0};
        const char *level = mica_cpu_isa_at(l)->name;
        mica_model *m = mica_model_load(GOLDEN "quant/llama-4bit-g64", &(mica_load_options){.cpu_level = level, .threads = 2, .activations = "int8"}, &err);
        if (!m) fail_msg("%s", err.msg);
        int32_t ids[64];
        float *want = malloc((size_t)m->info.vocab_size * 8 * sizeof *want);
        make_ids(m, ids, 64, 64, 5);
        check_rows_after(m, level, ids, 40, want);
        free(want);
        mica_model_free(m);
    }
}

// Where attention begins to cut its work otherwise (4096 positions), beyond windows, and with keys and values cached in 8 bits.
static void rows_equal_tokens_alone_at_depth(void **state) {
    (void)state;
    static const char *const paths[] = {GOLDEN "models/gemma3-text-bf16", GOLDEN "models/llama-f32"};
    enum { DEPTH = 4090 };
    for (size_t k = 0; k < 2 * MICA_COUNT(paths); k++) {
        mica_error err = {0};
        mica_model *m = mica_model_load(paths[k / 2], &(mica_load_options){.threads = 2, .context = DEPTH + 16, .kv_bits = k % 2 ? 8 : 0}, &err);
        if (!m) fail_msg("%s", err.msg);
        int32_t *ids = malloc((DEPTH + 16) * sizeof *ids);
        float *want = malloc((size_t)m->info.vocab_size * 8 * sizeof *want);
        make_ids(m, ids, DEPTH + 16, DEPTH + 16, 5);
        check_rows_after(m, paths[k / 2], ids, DEPTH, want);
        free(ids);
        free(want);
        mica_model_free(m);
    }
}

// ---- streams --------------------------------------------------------------------------------------------------
enum { MOST = 400 };
typedef struct answer {
    int32_t ids[MOST];
    float logprobs[MOST];
    size_t count, text;
    mica_finish finish;
    mica_metrics metrics;
} answer;

static void generate(mica_model *m, const int32_t *ids, size_t n, mica_generate_options o, int32_t speculate, answer *a) {
    mica_error err = {0};
    o.speculate = speculate;
    mica_stream *s = mica_generate_ids(m, ids, n, &o, &err);
    if (!s) fail_msg("%s", err.msg);
    *a = (answer){0};
    for (mica_token t; mica_stream_next(s, &t);) {
        assert_true(a->count < MOST);
        a->text += t.length;
        a->logprobs[a->count] = t.logprob;
        a->ids[a->count++] = t.id;
    }
    if (mica_stream_error(s, &err)) fail_msg("%s", err.msg);
    a->finish = mica_stream_finish(s);
    a->metrics = mica_stream_metrics(s);
    assert_true(a->metrics.accepted_tokens <= a->metrics.drafted_tokens);
    mica_stream_free(s);
}

// The answers with guesses of up to 7 (all: 1, 3 and 7) tokens equal the one without. Returns how many guessed tokens were right.
static int64_t compare(mica_model *m, const char *what, const int32_t *ids, size_t n, mica_generate_options o, bool all) {
    static const int32_t guesses[] = {7, 1, 3};
    answer plain, with;
    int64_t right = 0;
    generate(m, ids, n, o, 0, &plain);
    assert_int_equal(plain.metrics.drafted_tokens, 0);
    for (size_t g = 0; g < (all ? MICA_COUNT(guesses) : 1); g++) {
        generate(m, ids, n, o, guesses[g], &with);
        for (size_t i = 0; i < MICA_MIN(plain.count, with.count); i++)
            if (plain.ids[i] != with.ids[i] || memcmp(&plain.logprobs[i], &with.logprobs[i], sizeof(float)))
                fail_msg("%s: token %zu is %d (%.9g) with speculate %d, %d (%.9g) without", what, i, (int)with.ids[i], (double)with.logprobs[i],
                         (int)guesses[g], (int)plain.ids[i], (double)plain.logprobs[i]);
        if (plain.count != with.count || plain.finish != with.finish || plain.text != with.text)
            fail_msg("%s: with speculate %d %zu tokens (%s), without %zu (%s)", what, (int)guesses[g], with.count, mica_finish_name(with.finish),
                     plain.count, mica_finish_name(plain.finish));
        assert_int_equal(with.metrics.generated_tokens, plain.metrics.generated_tokens);
        right += with.metrics.accepted_tokens;
    }
    return right;
}

static int64_t greedy_right;
static void check_greedy(const char *path, const char *level) {
    if (!strcmp(level, "ref")) return; // slow, and its rows are compared above
    mica_model *m = load(path, level, 256);
    int32_t ids[PROMPT];
    make_ids(m, ids, PROMPT, PERIOD, 7);
    char *what = mica_strf("%s at level %s", path, level);
    // The penalty keeps tiny random models from saying one token for ever.
    mica_generate_options o = {.max_tokens = 40, .ignore_eos = true, .logprobs = -1, .frequency_penalty = greedy_right % 2 ? 0.3f : 0};
    greedy_right += compare(m, what, ids, PROMPT, o, false);
    mica_free(what);
    mica_model_free(m);
}

static void greedy_answers_are_equal(void **state) {
    (void)state;
    each_model(check_greedy);
    print_message("  %lld guessed tokens were right\n", (long long)greedy_right);
    assert_true(greedy_right > 200);
}

// A bias towards the prompt's ids makes tiny random models say again what was said.
static size_t repeat_bias(const int32_t *ids, mica_logit_bias *bias) {
    for (size_t i = 0; i < PERIOD; i++) bias[i] = (mica_logit_bias){ids[i], 1000};
    return PERIOD;
}

static void sampled_answers_are_equal(void **state) {
    (void)state;
    static const char *const paths[] = {GOLDEN "models/gemma3-text-bf16", GOLDEN "models/llama-f32", GOLDEN "quant/llama-4bit-g64",
                                        GOLDEN "models/llama-dynamic", GOLDEN "models/llama-longrope"};
    int64_t right = 0;
    for (size_t k = 0; k < MICA_COUNT(paths); k++) {
        mica_model *m = load(paths[k], NULL, 0);
        int32_t ids[PROMPT];
        make_ids(m, ids, PROMPT, PERIOD, 7);
        mica_logit_bias bias[PERIOD];
        size_t biased = repeat_bias(ids, bias);
        const mica_generate_options cases[] = {
            {.max_tokens = 60, .temperature = 1, .ignore_eos = true, .logprobs = 3, .logit_bias = bias, .logit_bias_count = biased},
            {.max_tokens = 60, .temperature = 0.7f, .top_p = 0.9f, .top_k = 5, .repeat_penalty = 1.1f, .seed = 5, .min_tokens = 30,
             .logit_bias = bias, .logit_bias_count = biased},
            {.max_tokens = 60, .temperature = 2, .min_p = 0.05f, .presence_penalty = 0.3f, .seed = 9, .logit_bias = bias, .logit_bias_count = biased},
            {.max_tokens = 60, .temperature = 1, .seed = 3, .stop_ids = &ids[2], .stop_id_count = 1, .min_tokens = 20, .logit_bias = bias,
             .logit_bias_count = biased},
            {.max_tokens = 1000, .temperature = 1, .seed = 4, .ignore_eos = true, .logit_bias = bias, .logit_bias_count = biased}, // to the context's end
        };
        size_t n = m->lm->context > 300 ? 4 : 5;
        for (size_t c = 0; c < n; c++) right += compare(m, paths[k], ids, MICA_MIN((size_t)PROMPT, (size_t)m->lm->context / 2), cases[c], true);
        mica_model_free(m);
    }
    print_message("  %lld guessed tokens were right\n", (long long)right);
    assert_true(right > 100);
}

static void answers_end_at_the_same_place(void **state) {
    (void)state;
    mica_model *m = load(GOLDEN "models/gemma3-text-f32", NULL, 100);
    int32_t ids[PROMPT];
    make_ids(m, ids, PROMPT, PERIOD, 7);
    mica_logit_bias bias[PERIOD];
    mica_generate_options o = {.ignore_eos = true, .logit_bias = bias, .logit_bias_count = repeat_bias(ids, bias)};
    for (o.max_tokens = 1; o.max_tokens < 20; o.max_tokens++) compare(m, "max_tokens", ids, PROMPT, o, true);
    o.max_tokens = 300;
    compare(m, "context", ids, PROMPT, o, true);
    mica_model_free(m);
    // Cancelled in the middle of a guess.
    m = load(GOLDEN "models/llama-f32", NULL, 0);
    mica_error err = {0};
    o.speculate = 7;
    mica_stream *s = mica_generate_ids(m, ids, PROMPT, &o, &err);
    mica_token t;
    for (int i = 0; i < 20; i++) assert_true(mica_stream_next(s, &t));
    mica_stream_cancel(s);
    while (mica_stream_next(s, &t)) assert_int_equal(t.id, -1);
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_CANCELLED);
    mica_stream_free(s);
    assert_null(mica_generate_ids(m, ids, PROMPT, &(mica_generate_options){.speculate = 8}, &err));
    assert_non_null(strstr(err.msg, "speculate"));
    mica_model_free(m);
}

// ---- the distribution -----------------------------------------------------------------------------------------
// Continuations of four tokens, each one of three, counted under other seeds with and without guesses: chi-square of the two samples. The 1e-4
// quantile of chi-square with 80 degrees of freedom is 134.
static void distribution_is_unchanged(void **state) {
    (void)state;
    enum { CELLS = 81, SAMPLES = 4000, TOKENS = 4 };
    // Every triple of the three tokens occurs: there always is a guess.
    static const char *const prompt = "00010020110120210220111211222000";
    mica_error err = {0};
    mica_model *m = load(GOLDEN "models/llama-f32", NULL, 0);
    int32_t kinds[3], ids[PROMPT];
    make_ids(m, kinds, 3, 3, 7);
    mica_logit_bias bias[3] = {{kinds[0], 1000}, {kinds[1], 1000}, {kinds[2], 1000}};
    for (size_t i = 0; prompt[i]; i++) ids[i] = kinds[prompt[i] - '0'];
    double counts[2][CELLS] = {{0}};
    int64_t drafted = 0, accepted = 0;
    for (uint64_t seed = 0; seed < 2 * SAMPLES; seed++) {
        mica_generate_options o = {.max_tokens = TOKENS, .temperature = 4, .seed = seed, .ignore_eos = true, .logit_bias = bias, .logit_bias_count = 3,
                                   .speculate = seed % 2 ? 3 : 0};
        mica_stream *s = mica_generate_ids(m, ids, strlen(prompt), &o, &err);
        int cell = 0;
        for (mica_token t; mica_stream_next(s, &t);) cell = cell * 3 + (t.id == kinds[0] ? 0 : t.id == kinds[1] ? 1 : 2);
        counts[seed % 2][cell]++;
        drafted += mica_stream_metrics(s).drafted_tokens, accepted += mica_stream_metrics(s).accepted_tokens;
        mica_stream_free(s);
    }
    double chi2 = 0;
    int cells = 0;
    for (int i = 0; i < CELLS; i++) {
        double a = counts[0][i], b = counts[1][i];
        if (a + b == 0) continue;
        chi2 += (a - b) * (a - b) / (a + b);
        cells++;
    }
    print_message("  chi-square %.1f over %d cells; %lld tokens guessed, %lld right\n", chi2, cells, (long long)drafted, (long long)accepted);
    assert_true(cells > 60 && drafted > SAMPLES && accepted > drafted / 10 && accepted < drafted);
    assert_true(chi2 < 134);
    mica_model_free(m);
}

// ---- guesses ----------------------------------------------------------------------------------------------------
static void push_all(mica_draft *d, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) mica_draft_push(d, ids[i]);
}

static void guesses_follow_the_longest_match(void **state) {
    (void)state;
    mica_error err = {0};
    mica_draft d;
    int32_t g[MICA_DRAFT_MOST];
    assert_true(mica_draft_init(&d, 4, 100, &err));
    for (size_t r = 2; r <= 5; r++) // rows for nothing: guesses are as long as they may
        for (int k = 0; k < 2; k++) mica_draft_time(&d, 1, 1), mica_draft_time(&d, r, 1);
    assert_int_equal(mica_draft_guess(&d, 4, g), 0);
    // 1 2 3 goes on with 4, the newer 9 2 3 with 7.
    push_all(&d, (int32_t[]){1, 2, 3, 4, 5, 6, 9, 2, 3, 7, 8, 8, 1, 2, 3}, 15);
    assert_int_equal(mica_draft_guess(&d, 4, g), 4);
    assert_memory_equal(g, ((int32_t[]){4, 5, 6, 9}), 4 * sizeof *g);
    assert_int_equal(mica_draft_guess(&d, 2, g), 2);
    assert_int_equal(mica_draft_guess(&d, 0, g), 0);
    // Among equals the newest.
    push_all(&d, (int32_t[]){50, 2, 3}, 3);
    assert_int_equal(mica_draft_guess(&d, 1, g), 1);
    assert_int_equal(g[0], 50);
    // A loop is followed beyond what there is.
    push_all(&d, (int32_t[]){70, 71, 70, 71}, 4);
    assert_int_equal(mica_draft_guess(&d, 4, g), 4);
    assert_memory_equal(g, ((int32_t[]){70, 71, 70, 71}), 4 * sizeof *g);
    for (int i = 0; i < 200; i++) mica_draft_push(&d, i); // more than fits: forgotten, no harm
    assert_int_equal(d.count, 100);
    mica_draft_free(&d);
    assert_true(mica_draft_init(&d, 0, 100, &err)); // off
    push_all(&d, (int32_t[]){1, 1, 1, 1}, 4);
    assert_int_equal(mica_draft_guess(&d, 4, g), 0);
    mica_draft_free(&d);
}

// Share of steps that carry a guess when all fail or all hold, and its length in the end.
static double guessing(double row_cost, bool hold, size_t *length) {
    mica_error err = {0};
    mica_draft d;
    int32_t g[MICA_DRAFT_MOST];
    size_t guesses = 0;
    enum { STEPS = 1000 };
    assert_true(mica_draft_init(&d, 7, 2 * STEPS, &err));
    mica_draft_time(&d, 1, 1), mica_draft_time(&d, 1, 1);
    for (size_t i = 0; i < STEPS; i++) {
        push_all(&d, (int32_t[]){1, 2}, 2);
        size_t n = mica_draft_guess(&d, 7, g);
        if (!n) continue;
        guesses++;
        *length = n;
        mica_draft_time(&d, 1 + n, 1 + row_cost * (double)n);
        mica_draft_learn(&d, n, hold ? n : 0);
    }
    mica_draft_free(&d);
    return (double)guesses / STEPS;
}

static void guesses_that_do_not_pay_stop(void **state) {
    (void)state;
    size_t length = 0;
    double share = guessing(0.1, false, &length);
    print_message("  all fail: a guess in %.1f %% of the steps, of %zu\n", 100 * share, length);
    assert_true(share < 0.08 && length == 1);
    share = guessing(1, true, &length); // rows cost as much as steps
    print_message("  rows cost as much as steps: %.1f %%, of %zu\n", 100 * share, length);
    assert_true(share < 0.08);
    share = guessing(0.1, true, &length);
    print_message("  all hold: %.1f %%, of %zu\n", 100 * share, length);
    assert_true(share > 0.95 && length == 7);
}

// ---- memory -------------------------------------------------------------------------------------------------------
static void steady_guessing_allocates_nothing(void **state) {
    (void)state;
    mica_model *m = load(GOLDEN "models/gemma3-text-bf16", NULL, 4096);
    mica_error err = {0};
    int32_t ids[PROMPT];
    make_ids(m, ids, PROMPT, PERIOD, 7);
    mica_logit_bias bias[3] = {{ids[0], 1000}, {ids[1], 1000}, {ids[2], 1000}};
    mica_stream *s = mica_generate_ids(m, ids, PROMPT, &(mica_generate_options){.max_tokens = 4000, .ignore_eos = true, .temperature = 1, .speculate = 1,
                                       .logit_bias = bias, .logit_bias_count = 3}, &err);
    // A shape of step that comes for the first time, or with a longer page table, builds a plan; from then on nothing is allocated. When that is
    // depends on the time that forwards take.
    int guessing = 0, allocating = 0;
    for (int run = 0; run < 40; run++) {
        int64_t drafted = mica_stream_metrics(s).drafted_tokens;
        uint64_t calls = mica_alloc_get_stats().calls;
        mica_token t;
        for (int i = 0; i < 50; i++) assert_true(mica_stream_next(s, &t));
        if (mica_alloc_get_stats().calls != calls) allocating++;
        else if (mica_stream_metrics(s).drafted_tokens > drafted) guessing++;
    }
    print_message("  of 40 runs of 50 tokens, %d allocated something, %d guessed and did not\n", allocating, guessing);
    assert_true(guessing >= 5 && allocating <= 15);
    mica_stream_free(s);
    mica_model_free(m);
}

static bool load_and_generate(mica_error *err) {
    mica_model *m = mica_model_load(GOLDEN "quant/llama-4bit-g64", &(mica_load_options){.threads = 1}, err);
    if (!m) return false;
    mica_stream *s = mica_generate_ids(m, (int32_t[]){1, 2, 3, 1, 2, 3, 1, 2}, 8,
                                       &(mica_generate_options){.max_tokens = 6, .ignore_eos = true, .speculate = 3,
                                       .logit_bias = (mica_logit_bias[]){{3, 100}, {1, 99}}, .logit_bias_count = 2}, err);
    mica_token t;
    while (s && mica_stream_next(s, &t)) {}
    bool ok = s && !mica_stream_error(s, err);
    if (ok) ok = mica_stream_metrics(s).drafted_tokens > 0 || mica_fail(err, MICA_ERR_ARGUMENT, "nothing was guessed");
    mica_stream_free(s);
    mica_model_free(m);
    return ok;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    mica_error err = {0};
    if (!load_and_generate(&err)) fail_msg("%s", err.msg); // caches that live as long as the process are made here
    mica_alloc_stats before = mica_alloc_get_stats();
    assert_true(load_and_generate(&err));
    uint64_t all = mica_alloc_get_stats().calls - before.calls, live = mica_alloc_get_stats().live;
    // those of loading are swept elsewhere
    for (uint64_t n = all > 250 ? all - 250 : 1; n <= all; n++) run_refused(load_and_generate, n, live);
    print_message("  %d allocations\n", (int)all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_follow_the_longest_match), cmocka_unit_test(guesses_that_do_not_pay_stop), cmocka_unit_test(rows_equal_tokens_alone),
        cmocka_unit_test(rows_equal_tokens_alone_at_depth),
        cmocka_unit_test(rounded_rows_equal_tokens_alone),
        cmocka_unit_test(greedy_answers_are_equal), cmocka_unit_test(sampled_answers_are_equal), cmocka_unit_test(answers_end_at_the_same_place),
        cmocka_unit_test(distribution_is_unchanged), cmocka_unit_test(steady_guessing_allocates_nothing), cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("speculate", tests, NULL, NULL);
}
