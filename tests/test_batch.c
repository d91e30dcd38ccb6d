// SPDX-License-Identifier: Apache-2.0
// labels: threads
// Batches: rows of any length and options give what they give alone, to rounding, or bit for bit where that is asked; they enter, end, fail and
// are cancelled without touching each other; steps allocate nothing.
#include "faults_testing.h"
#include "infer/internal.h"
#include "mica/backend.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/models/"
#define QUANT MICA_SOURCE_DIR "/tests/golden/quant/"

static mica_model *load(const char *path, int32_t threads) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.threads = threads, .context = 2048}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static uint32_t noise(uint32_t *x) { return (*x = *x * 1664525 + 1013904223) >> 8; }

// ---- rows and what they give ----------------------------------------------------------------------------------
enum { ROWS = 64, MOST_TOKENS = 40, TOP = 3 };
static const size_t lengths[] = {1, 7, 33, 64, 129, 2, 500, 17, 1, 250, 31, 3, 1500, 90, 12, 700};

typedef struct request {
    int32_t ids[1500];
    size_t count;
    int32_t stop_id;
    mica_logit_bias bias;
    mica_generate_options options;
} request;

typedef struct answer {
    int32_t ids[MOST_TOKENS];
    float logprobs[MOST_TOKENS];
    mica_logprob top[MOST_TOKENS][TOP];
    size_t count, text;
    char bytes[2000];
    mica_finish finish;
} answer;

// Prompts of all lengths, with the kinds of options in turn.
static void make_request(request *r, size_t i, int32_t vocab, bool greedy) {
    uint32_t x = (uint32_t)i * 77 + 5;
    *r = (request){.count = lengths[i % MICA_COUNT(lengths)]};
    for (size_t k = 0; k < r->count; k++) r->ids[k] = (int32_t)(noise(&x) % (uint32_t)vocab);
    mica_generate_options *o = &r->options;
    o->max_tokens = 1 + (int32_t)(i * 7 % MOST_TOKENS);
    o->logprobs = TOP;
    o->ignore_eos = i % 5 != 0;
    r->stop_id = 5, r->bias = (mica_logit_bias){9, 1.5f};
    if (i % 4 == 1) o->stop_ids = &r->stop_id, o->stop_id_count = 1;
    if (i % 4 == 2) o->logit_bias = &r->bias, o->logit_bias_count = 1, o->repeat_penalty = 1.2f;
    if (i % 3 == 0 && !greedy) o->temperature = 0.9f, o->seed = i, o->top_p = 0.95f;
}

static void keep(answer *a, const mica_token *t, mica_finish finish) {
    if (t->id >= 0) {
        assert_true(a->count < MOST_TOKENS);
        a->ids[a->count] = t->id;
        a->logprobs[a->count] = t->logprob;
        assert_int_equal(t->top_count, TOP);
        memcpy(a->top[a->count++], t->top, sizeof a->top[0]);
    }
    assert_true(a->text + t->length < sizeof a->bytes);
    memcpy(a->bytes + a->text, t->text, t->length);
    a->text += t->length;
    if (finish) a->finish = finish;
}

static void run_alone(mica_model *m, const request *r, answer *a) {
    mica_error err = {0};
    *a = (answer){0};
    mica_stream *s = mica_generate_ids(m, r->ids, r->count, &r->options, &err);
    if (!s) fail_msg("%s", err.msg);
    for (mica_token t; mica_stream_next(s, &t);) keep(a, &t, MICA_FINISH_NONE);
    if (mica_stream_error(s, &err)) fail_msg("%s", err.msg);
    a->finish = mica_stream_finish(s);
    mica_stream_free(s);
}

static void run_together(mica_model *m, const request *r, size_t count, mica_batch_options options, answer *a) {
    mica_error err = {0};
    mica_batch *b = mica_batch_new(m, &options, &err);
    if (!b) fail_msg("%s", err.msg);
    size_t added = 0, ended = 0;
    for (; added < count / 2; added++) {
        a[added] = (answer){0};
        if (mica_batch_add(b, &(mica_prompt){.ids = r[added].ids, .count = r[added].count}, &r[added].options, &err) != (int64_t)added)
            fail_msg("%s", err.msg);
    }
    for (mica_batch_event e; mica_batch_next(b, &e);) {
        assert_in_range(e.row, 0, added - 1);
        assert_int_equal(a[e.row].finish, MICA_FINISH_NONE);
        keep(&a[e.row], &e.token, e.finish);
        ended += e.finish != MICA_FINISH_NONE;
        if (e.finish) {
            mica_metrics k = mica_batch_metrics(b, e.row);
            assert_int_equal(k.prompt_tokens, r[e.row].count);
            assert_int_equal(k.generated_tokens, a[e.row].count);
            assert_true(k.prefill_seconds > 0 && k.total_seconds > 0);
        }
        if (added < count) { // the other half enters while rows answer
            a[added] = (answer){0};
            assert_int_equal(mica_batch_add(b, &(mica_prompt){.ids = r[added].ids, .count = r[added].count}, &r[added].options, &err), added);
            added++;
        }
    }
    assert_int_equal(ended, count);
    mica_batch_free(b);
}

static void expect_same(const char *what, size_t i, const answer *got, const answer *want, bool bits) {
    if (got->count != want->count || memcmp(got->ids, want->ids, sizeof want->ids)) fail_msg("%s: row %zu has other tokens than alone", what, i);
    if (got->finish != want->finish) fail_msg("%s: row %zu ends with %d, alone with %d", what, i, (int)got->finish, (int)want->finish);
    if (got->text != want->text || memcmp(got->bytes, want->bytes, want->text)) fail_msg("%s: row %zu has another text than alone", what, i);
    if (!bits) return;
    if (memcmp(got->logprobs, want->logprobs, want->count * sizeof want->logprobs[0]) || memcmp(got->top, want->top, want->count * sizeof want->top[0]))
        fail_msg("%s: row %zu has other log-probabilities than alone", what, i);
}

static void compare(const char *path, size_t count, mica_batch_options options, bool greedy) {
    mica_model *m = load(path, 2);
    request *r = malloc(count * sizeof *r);
    answer *alone = malloc(count * sizeof *alone), *together = malloc(count * sizeof *together);
    for (size_t i = 0; i < count; i++) {
        make_request(&r[i], i, m->info.vocab_size, greedy);
        run_alone(m, &r[i], &alone[i]);
    }
    run_together(m, r, count, options, together);
    for (size_t i = 0; i < count; i++) expect_same(path, i, &together[i], &alone[i], options.invariant);
    free(r);
    free(alone);
    free(together);
    mica_model_free(m);
}

static void ragged_rows_equal_single_runs(void **state) {
    (void)state;
    static const char *const models[] = {GOLDEN "llama-f32", GOLDEN "gemma3-text-f32", GOLDEN "qwen3-f32"};
    for (size_t k = 0; k < MICA_COUNT(models); k++) compare(models[k], ROWS, (mica_batch_options){.rows = k ? 24 : 0}, true);
}

// Frequencies that depend on the length of a row are its own.
static void rows_keep_their_frequencies(void **state) {
    (void)state;
    compare(GOLDEN "llama-longrope", 24, (mica_batch_options){0}, true);
    compare(GOLDEN "llama-dynamic", 24, (mica_batch_options){0}, true);
}

static void invariant_rows_are_bit_equal(void **state) {
    (void)state;
    static const char *const models[] = {GOLDEN "llama-f32", GOLDEN "gemma3-text-bf16", GOLDEN "qwen3-bf16", GOLDEN "llama-longrope",
                                         GOLDEN "llama-dynamic", QUANT "llama-4bit-g64", QUANT "gemma3-4bit", QUANT "qwen3-4bit"};
    for (size_t k = 0; k < MICA_COUNT(models); k++) compare(models[k], k < 3 ? ROWS : 16, (mica_batch_options){.rows = 11, .invariant = true}, false);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    static request r[12];
    static answer first[12], other[12];
    for (int32_t threads = 1; threads <= 4; threads++) {
        mica_model *m = load(QUANT "gemma3-4bit", threads);
        for (size_t i = 0; i < 12; i++) make_request(&r[i], i, m->info.vocab_size, false);
        run_together(m, r, 12, (mica_batch_options){.rows = 5}, threads == 1 ? first : other);
        for (size_t i = 0; threads > 1 && i < 12; i++) expect_same("threads", i, &other[i], &first[i], true);
        mica_model_free(m);
    }
}

// Rows with a common beginning share its pages, also when they enter together, and give what they give alone.
static void rows_share_beginnings(void **state) {
    (void)state;
    static request r[10];
    static answer alone[10], together[10];
    for (int invariant = 0; invariant < 2; invariant++) {
        mica_model *m = load(GOLDEN "gemma3-text-f32", 2);
        for (size_t i = 0; i < 10; i++) {
            make_request(&r[i], i, m->info.vocab_size, true);
            uint32_t x = 99;
            r[i].count = 700 + 40 * i;
            for (size_t k = 0; k < r[i].count; k++) r[i].ids[k] = k == 690 ? (int32_t)i : (int32_t)(noise(&x) % (uint32_t)m->info.vocab_size);
        }
        mica_error err = {0};
        mica_batch *b = mica_batch_new(m, &(mica_batch_options){.invariant = invariant != 0}, &err);
        for (size_t i = 0; i < 10; i++)
            assert_int_equal(mica_batch_add(b, &(mica_prompt){.ids = r[i].ids, .count = r[i].count}, &r[i].options, &err), i), together[i] = (answer){0};
        int64_t cached = 0;
        for (mica_batch_event e; mica_batch_next(b, &e);) {
            keep(&together[e.row], &e.token, e.finish);
            if (e.finish) cached += mica_batch_metrics(b, e.row).cached_tokens;
        }
        print_message("  %lld tokens of prompts shared\n", (long long)cached);
        assert_true(cached >= 9 * 640);
        mica_batch_free(b);
        mica_model_free(m);
        m = load(GOLDEN "gemma3-text-f32", 2);
        for (size_t i = 0; i < 10; i++) {
            run_alone(m, &r[i], &alone[i]);
            expect_same("shared", i, &together[i], &alone[i], invariant != 0);
        }
        mica_model_free(m);
    }
}

// ---- life of rows ---------------------------------------------------------------------------------------------
static int64_t add(mica_batch *b, size_t count, int32_t tokens) {
    mica_error err = {0};
    int32_t ids[600];
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)(i * 7 % 200);
    int64_t row = mica_batch_add(b, &(mica_prompt){.ids = ids, .count = count}, &(mica_generate_options){.max_tokens = tokens, .ignore_eos = true}, &err);
    if (row < 0) fail_msg("%s", err.msg);
    return row;
}

static void bad_rows_are_refused(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load(GOLDEN "llama-f32", 1);
    assert_null(mica_batch_new(m, &(mica_batch_options){.rows = -1}, &err));
    assert_non_null(strstr(err.msg, "rows"));
    mica_batch *b = mica_batch_new(m, NULL, &err);
    mica_batch_event e;
    assert_false(mica_batch_next(b, &e)); // empty
    assert_int_equal(mica_batch_add(b, &(mica_prompt){.ids = (int32_t[]){1 << 20}, .count = 1}, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "1048576"));
    assert_int_equal(mica_batch_add(b, &(mica_prompt){.ids = (int32_t[]){1}, .count = 1}, &(mica_generate_options){.top_p = 3}, &err), -1);
    assert_non_null(strstr(err.msg, "top_p"));
    assert_int_equal(add(b, 4, 3), 0);
    int tokens = 0;
    while (mica_batch_next(b, &e)) tokens += e.token.id >= 0;
    assert_int_equal(tokens, 3);
    assert_int_equal(add(b, 4, 2), 1); // it may go on after it was empty
    assert_true(mica_batch_next(b, &e));
    assert_false(mica_batch_error(b, 0, &err));
    assert_false(mica_batch_error(b, 77, &err));
    mica_batch_free(b);
    mica_model_free(m);
}

static void cancelling_one_and_all(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load(GOLDEN "gemma3-text-f32", 2);
    mica_batch *b = mica_batch_new(m, &(mica_batch_options){.rows = 3}, &err);
    for (int i = 0; i < 6; i++) add(b, (size_t)(10 + 100 * i), 1000);
    int tokens[6] = {0}, events = 0;
    mica_finish finish[6] = {MICA_FINISH_NONE};
    for (mica_batch_event e; mica_batch_next(b, &e); events++) {
        tokens[e.row] += e.token.id >= 0;
        if (e.finish) finish[e.row] = e.finish;
        if (tokens[0] == 4 && !finish[0]) mica_batch_cancel(b, 0), mica_batch_cancel(b, 5); // one that answers, one that waits
        if (tokens[3] == 5) mica_batch_cancel(b, -1);
        assert_true(events < 1000);
    }
    for (int i = 0; i < 6; i++) assert_int_equal(finish[i], MICA_FINISH_CANCELLED);
    assert_in_range(tokens[0], 4, 5);
    assert_int_equal(tokens[5], 0);
    assert_int_equal(tokens[3], 5);
    assert_int_equal(mica_batch_metrics(b, 3).generated_tokens, 5);
    mica_batch_free(b);
    mica_model_free(m);
}

static void closing_the_model_ends_batches(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load(GOLDEN "llama-f32", 1);
    mica_batch *b = mica_batch_new(m, NULL, &err);
    add(b, 5, 1000), add(b, 9, 1000);
    mica_batch_event e;
    for (int i = 0; i < 6; i++) assert_true(mica_batch_next(b, &e));
    mica_model_close(m);
    int ended = 0, events = 0;
    for (; mica_batch_next(b, &e); events++) ended += e.finish == MICA_FINISH_CANCELLED;
    assert_int_equal(ended, 2);
    assert_true(events <= 3);
    assert_int_equal(mica_batch_add(b, &(mica_prompt){.ids = (int32_t[]){1}, .count = 1}, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "closed"));
    assert_null(mica_batch_new(m, NULL, &err));
    mica_model_free(m);
    mica_batch_free(b);
}

static void steps_allocate_nothing(void **state) {
    (void)state;
    mica_error err = {0};
    for (int invariant = 0; invariant < 2; invariant++) {
        mica_model *m = load(QUANT "gemma3-4bit", 2);
        mica_batch *b = mica_batch_new(m, &(mica_batch_options){.invariant = invariant != 0}, &err);
        for (int i = 0; i < 6; i++) add(b, (size_t)(3 + 5 * i), 200);
        mica_batch_event e;
        for (int i = 0; i < 6 * 35; i++) assert_true(mica_batch_next(b, &e));
        uint64_t before = mica_alloc_get_stats().calls;
        for (int i = 0; i < 6 * 20; i++) assert_true(mica_batch_next(b, &e));
        assert_int_equal(mica_alloc_get_stats().calls - before, 0);
        mica_batch_free(b);
        mica_model_free(m);
    }
}

// Ends of all rows, and a hash of each row's tokens.
static void run_to_the_end(mica_model *m, bool invariant, size_t limit, mica_finish *finish, uint64_t *hash) {
    mica_error err = {0};
    mica_batch *b = mica_batch_new(m, &(mica_batch_options){.rows = 16, .invariant = invariant}, &err);
    for (int i = 0; i < 20; i++) add(b, (size_t)(400 + i), 300), hash[i] = 0;
    mica_device_set_memory_limit(m->lm->device, limit ? mica_device_memory(m->lm->device).active + limit : 0);
    for (mica_batch_event e; mica_batch_next(b, &e);) {
        if (e.token.id >= 0) hash[e.row] = mica_hash_mix(hash[e.row], (uint64_t)e.token.id);
        if (e.finish) finish[e.row] = e.finish;
        if (e.finish == MICA_FINISH_ERROR && mica_batch_error(b, e.row, &err)) assert_non_null(strstr(err.msg, "out of memory"));
    }
    mica_device_set_memory_limit(m->lm->device, 0);
    mica_batch_free(b);
}

// With memory for a few rows only, the younger ones give theirs back and go on when others have ended. Where not even one fits, it fails.
static void rows_wait_for_memory(void **state) {
    (void)state;
    static const char *const models[] = {GOLDEN "llama-f32", GOLDEN "qwen3-bf16"};
    for (int k = 0; k < 2; k++) {
        mica_model *m = load(models[k], 1);
        mica_finish finish[20];
        uint64_t free[20], tight[20];
        run_to_the_end(m, k == 1, 0, finish, free);
        run_to_the_end(m, k == 1, k ? 2500000 : 3 << 20, finish, tight);
        for (int i = 0; i < 20; i++) assert_int_equal(finish[i], MICA_FINISH_LENGTH);
        assert_memory_equal(tight, free, sizeof free);
        run_to_the_end(m, k == 1, 30000, finish, tight);
        for (int i = 0; i < 20; i++) assert_int_equal(finish[i], MICA_FINISH_ERROR);
        mica_model_free(m);
    }
}

// ---- all together -----------------------------------------------------------------------------------------------
typedef struct seen {
    size_t order[8], count, stop_after;
} seen;

static bool done(void *context, size_t index, const mica_result *r) {
    seen *s = context;
    assert_true(r->finish != MICA_FINISH_NONE);
    s->order[s->count++] = index;
    return s->count != s->stop_after;
}

static void expect_generate(mica_model *m) {
    mica_error err = {0};
    int32_t ids[4] = {1, 2, 3, 4}, bad = -5;
    mica_request r[5] = {{{.ids = ids, .count = 4}, {.max_tokens = 30, .ignore_eos = true}},
                         {{.ids = ids, .count = 2}, {.max_tokens = 2, .ignore_eos = true}},
                         {{.ids = &bad, .count = 1}, {0}},
                         {{.text = "Hello", .length = 5}, {.max_tokens = 4, .ignore_eos = true}},
                         {{.ids = ids, .count = 3}, {.max_tokens = 9, .ignore_eos = true, .stop = (const char *[]){"no such text"}, .stop_count = 1}}};
    mica_result out[5];
    seen s = {{0}, 0, 0};
    assert_true(mica_batch_generate(m, r, 5, NULL, &(mica_batch_each){done, &s}, out, &err));
    assert_int_equal(s.count, 5);
    static const size_t tokens[5] = {30, 2, 0, 4, 9};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(out[i].count, tokens[i]);
        assert_int_equal(out[i].finish, i == 2 ? MICA_FINISH_ERROR : MICA_FINISH_LENGTH);
        assert_int_equal(strlen(out[i].text), out[i].length);
        if (i == 2) continue;
        mica_stream *one = r[i].prompt.ids ? mica_generate_ids(m, r[i].prompt.ids, r[i].prompt.count, &r[i].options, &err)
                                           : mica_generate(m, "Hello", 5, &r[i].options, &err);
        char text[400] = "";
        for (mica_token t; mica_stream_next(one, &t);) strncat(text, t.text, t.length);
        assert_string_equal(out[i].text, text);
        mica_stream_free(one);
    }
    assert_non_null(strstr(out[2].error.msg, "-5"));
    for (size_t i = 0; i < 5; i++) mica_result_free(&out[i]);
    // Stopping after two leaves what the others have.
    s = (seen){{0}, 0, 2};
    assert_true(mica_batch_generate(m, r, 5, NULL, &(mica_batch_each){done, &s}, out, &err));
    assert_int_equal(s.count, 2);
    int cancelled = 0;
    for (size_t i = 0; i < 5; i++) cancelled += out[i].finish == MICA_FINISH_CANCELLED;
    assert_int_equal(cancelled, 3);
    for (size_t i = 0; i < 5; i++) mica_result_free(&out[i]);
}

static void generating_all_together(void **state) {
    (void)state;
    mica_model *m = load(GOLDEN "llama-f32", 2);
    expect_generate(m);
    mica_model_free(m);
}

// A backend that has no batches answers one after another.
static void one_after_another(void **state) {
    (void)state;
    mica_error err = {0};
    mica_backend b = *mica_backend_get("cpu", &err);
    b.name = "single", b.batch_new = NULL;
    assert_true(mica_backend_register(&b, &err));
    mica_model *m = mica_model_load(GOLDEN "llama-f32", &(mica_load_options){.backend = "single", .threads = 1, .context = 2048}, &err);
    expect_generate(m);
    assert_null(mica_batch_new(m, &(mica_batch_options){.invariant = true}, &err));
    static request r[10];
    static answer alone[10], turns[10];
    for (size_t i = 0; i < 10; i++) {
        make_request(&r[i], i, m->info.vocab_size, false);
        run_alone(m, &r[i], &alone[i]);
    }
    run_together(m, r, 10, (mica_batch_options){0}, turns);
    for (size_t i = 0; i < 10; i++) expect_same("turns", i, &turns[i], &alone[i], true);
    mica_batch *batch = mica_batch_new(m, NULL, &err);
    add(batch, 5, 100), add(batch, 5, 100);
    mica_batch_cancel(batch, 1);
    mica_batch_event e;
    assert_true(mica_batch_next(batch, &e) && e.row == 0 && e.token.id >= 0);
    mica_batch_cancel(batch, 0);
    while (mica_batch_next(batch, &e)) assert_true(!e.finish || e.finish == MICA_FINISH_CANCELLED);
    mica_batch_free(batch);
    mica_model_free(m);
}

static void *cancel_all(void *batch) {
    for (int i = 0; i < 50; i++) mica_batch_cancel(batch, i % 4 - 1);
    return NULL;
}

static void cancelling_from_another_thread(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load(GOLDEN "llama-f32", 2);
    mica_batch *b = mica_batch_new(m, NULL, &err);
    for (int i = 0; i < 5; i++) add(b, 5, 1000);
    pthread_t thread;
    mica_batch_event e;
    assert_true(mica_batch_next(b, &e));
    assert_int_equal(pthread_create(&thread, NULL, cancel_all, b), 0);
    int ended = 0;
    while (mica_batch_next(b, &e)) ended += e.finish != MICA_FINISH_NONE;
    pthread_join(thread, NULL);
    assert_int_equal(ended, 5);
    mica_batch_free(b);
    mica_model_free(m);
}

// ---- failures -----------------------------------------------------------------------------------------------------
static const char *faulty; // backend

static bool generate_three(mica_error *err) {
    mica_model *m = mica_model_load(QUANT "llama-4bit-g64", &(mica_load_options){.threads = 1, .backend = faulty}, err);
    mica_request r[3] = {{{.ids = (int32_t[]){1, 2, 3}, .count = 3}, {.max_tokens = 3, .ignore_eos = true, .logprobs = 2}},
                         {{.ids = (int32_t[]){7}, .count = 1}, {.max_tokens = 40, .ignore_eos = true, .stop = (const char *[]){"x"}, .stop_count = 1}},
                         {{.text = "Hello there", .length = 11}, {.max_tokens = 2, .ignore_eos = true, .temperature = 1}}};
    mica_result out[3];
    bool ok = m && mica_batch_generate(m, r, 3, &(mica_batch_options){.rows = 2}, NULL, out, err), all = ok;
    mica_model_free(m);
    for (int i = 0; all && i < 3; i++) {
        if (out[i].finish == MICA_FINISH_ERROR) *err = out[i].error, ok = false;
        mica_result_free(&out[i]);
    }
    return ok;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    static const char *const names[] = {"cpu", "single"};
    for (int k = 0; k < 2; k++) {
        mica_error err = {0};
        faulty = names[k];
        assert_true(generate_three(&err)); // caches that live as long as the process are made here
        uint64_t live = mica_alloc_get_stats().live;
        bool ok = false;
        for (uint64_t n = 1; !ok; n += n < 100 ? 3 : n < 500 ? 1 : 7) ok = run_refused(generate_three, n, live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ragged_rows_equal_single_runs), cmocka_unit_test(rows_keep_their_frequencies),
        cmocka_unit_test(invariant_rows_are_bit_equal), cmocka_unit_test(rows_share_beginnings), cmocka_unit_test(threads_do_not_matter), cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(cancelling_one_and_all), cmocka_unit_test(closing_the_model_ends_batches), cmocka_unit_test(steps_allocate_nothing), cmocka_unit_test(rows_wait_for_memory),
        cmocka_unit_test(generating_all_together), cmocka_unit_test(one_after_another), cmocka_unit_test(cancelling_from_another_thread),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
