// SPDX-License-Identifier: Apache-2.0
// labels: threads
// Closing a model while other threads use it: each kind of call runs in a thread of its own, again and again, until it is told that the model is
// closed. Calls under way end, with a result or as cancelled; the last one gives the memory back. MICA_TEST_SECONDS says for how long.
#include "base/base.h"
#include "mica/adapter.h"
#include "mica/attention.h"
#include "mica/batch.h"
#include "mica/chat.h"
#include "mica/classify.h"
#include "mica/session.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define MODEL MICA_BINARY_DIR "/chat-model"
#define ADAPTER MICA_SOURCE_DIR "/tests/golden/adapters/mlx-lora"
enum { IDS = 96 };
static int32_t ids[IDS];
static char saved[64]; // a session's file

// ---- one call of each kind: true if it ended well or was cancelled ------------------------------------------
static bool end_stream(mica_stream *s, mica_error *err) {
    if (!s) return false;
    for (mica_token t; mica_stream_next(s, &t);) {}
    bool ok = !mica_stream_error(s, err);
    mica_stream_free(s);
    return ok;
}

static bool generate(mica_model *m, mica_error *err) {
    return end_stream(mica_generate(m, "one two", 7, &(mica_generate_options){.max_tokens = 6}, err), err);
}

static bool chat(mica_model *m, mica_error *err) {
    return end_stream(mica_chat_start(m, &(mica_message){"user", "why?", NULL}, 1, &(mica_generate_options){.max_tokens = 6}, err), err);
}

static bool render(mica_model *m, mica_error *err) {
    mica_text text = {0};
    mica_ids out = {0};
    bool ok = mica_chat_render(m, &(mica_chat){.messages = &(mica_message){"user", "why?", NULL}, .count = 1}, &text, &out, err);
    mica_text_free(&text);
    mica_ids_free(&out);
    return ok;
}

static bool score(mica_model *m, mica_error *err) {
    mica_scores scores;
    bool ok = mica_score(m, ids, IDS, 2, &scores, err);
    mica_scores_free(&scores);
    return ok;
}

static bool perplexity(mica_model *m, mica_error *err) {
    mica_perplexity p;
    return mica_perplexity_of(m, ids, IDS, &(mica_perplexity_options){.window = 32, .reference = m}, &p, err);
}

static bool attention(mica_model *m, mica_error *err) {
    mica_attention a;
    bool ok = mica_attention_read(m, ids, IDS, &a, err);
    mica_attention_free(&a);
    return ok;
}

static bool measure(mica_model *m, mica_error *err) {
    mica_op_time ops[3];
    mica_bench_times times;
    return mica_bench(m, &(mica_bench_case){.tokens = 24, .depth = 8, .batch = 2, .ops = ops, .most_ops = 3}, &times, err);
}

static bool classify(mica_model *m, mica_error *err) {
    const char *texts[] = {"a text", "another", "a third one"}, *labels[] = {"yes", "no"};
    mica_classes classes;
    bool ok = mica_classify(m, texts, 3, &(mica_classify_options){.labels = labels, .label_count = 2, .batch = 1}, &classes, err);
    mica_classes_free(&classes);
    return ok;
}

static bool batch(mica_model *m, mica_error *err) {
    mica_request requests[3];
    for (size_t i = 0; i < 3; i++) requests[i] = (mica_request){{.ids = ids + i, .count = 40}, {.max_tokens = 5, .ignore_eos = true}};
    mica_result results[3] = {0};
    bool ok = mica_batch_generate(m, requests, 3, NULL, NULL, results, err);
    for (size_t i = 0; i < 3; i++) {
        if (ok && results[i].finish == MICA_FINISH_ERROR) ok = false, *err = results[i].error;
        mica_result_free(&results[i]);
    }
    return ok;
}

static bool session(mica_model *m, mica_error *err) {
    mica_session *s = mica_session_new(m, err), *fork = NULL, *loaded = NULL;
    mica_prompt prompt = {.ids = ids, .count = 30};
    bool ok = s && end_stream(mica_session_start(s, &prompt, &(mica_generate_options){.max_tokens = 3}, err), err) &&
              mica_session_truncate(s, 0, err) && (fork = mica_session_fork(s, err)) && (loaded = mica_session_load(m, saved, err));
    mica_session_free(s);
    mica_session_free(fork);
    mica_session_free(loaded);
    return ok;
}

static bool adapters(mica_model *m, mica_error *err) {
    mica_adapter_info info[2];
    bool ok = mica_adapter_load(m, "one", ADAPTER, err);
    mica_adapter_list(m, info, 2);
    return ok && mica_adapter_unload(m, "one", err);
}

// These have no error to give: what they say of a closed model is that it can do nothing.
static bool questions(mica_model *m, mica_error *err) {
    bool tokenizer = mica_model_tokenizer(m), level = mica_model_cpu_level(m)[0], adapter = mica_adapter_works(m), works = mica_session_works(m);
    if (mica_model_info(m)->vocab_size > 0 && strcmp(mica_model_backend(m), "cpu") == 0 && tokenizer && level && adapter && works) return true;
    return mica_fail(err, MICA_ERR_ARGUMENT, "not there: the model is closed, it seems");
}

typedef bool call(mica_model *m, mica_error *err);
static call *const calls[] = {generate, chat, render, score, perplexity, attention, measure, classify, batch, session, adapters, questions};

// ---- threads ----------------------------------------------------------------------------------------------------
typedef struct worker {
    mica_model *model;
    call *call;
    atomic_int *done; // calls that ended well, of all threads
    mica_error err;
} worker;

static void *work(void *context) {
    worker *w = context;
    while (w->call(w->model, &w->err)) atomic_fetch_add(w->done, 1);
    return NULL;
}

static mica_model *load(void) {
    mica_error err = {0};
    mica_model *m = mica_model_load(MODEL, &(mica_load_options){.threads = 2, .context = 512}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

// The first of a thread's errors is that of the closed model.
static int close_among_calls(useconds_t after) {
    mica_model *m = load();
    worker workers[MICA_COUNT(calls)];
    pthread_t threads[MICA_COUNT(calls)];
    atomic_int done = 0;
    for (size_t i = 0; i < MICA_COUNT(calls); i++) {
        workers[i] = (worker){.model = m, .call = calls[i], .done = &done};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    usleep(after);
    mica_model_close(m);
    for (size_t i = 0; i < MICA_COUNT(calls); i++) {
        pthread_join(threads[i], NULL);
        if (!strstr(workers[i].err.msg, "closed") && workers[i].err.code != MICA_ERR_CANCELLED)
            fail_msg("call %d: \"%s\" instead of an error that says that the model is closed", (int)i, workers[i].err.msg);
    }
    mica_model_close(m);
    mica_model_free(m);
    return done;
}

static double seconds(void) {
    const char *s = getenv("MICA_TEST_SECONDS");
    return s ? atof(s) : 3;
}

static void save_a_session(void) {
    mica_error err = {0};
    mica_model *m = load();
    mica_session *s = mica_session_new(m, &err);
    assert_non_null(s);
    snprintf(saved, sizeof saved, "/tmp/mica-close-%ld", (long)getpid());
    assert_true(end_stream(mica_session_start(s, &(mica_prompt){.ids = ids, .count = 30}, &(mica_generate_options){.max_tokens = 3}, &err), &err));
    assert_true(mica_session_save(s, saved, &err));
    mica_session_free(s);
    mica_model_free(m);
}

static void every_call_ends_when_the_model_is_closed(void **state) {
    (void)state;
    for (int32_t i = 0; i < IDS; i++) ids[i] = 3 + i % 50;
    mica_alloc_stats before = mica_alloc_get_stats();
    save_a_session();
    int rounds = 0, done = 0;
    for (double until = mica_now() + seconds(); mica_now() < until; rounds++) done += close_among_calls((useconds_t)(rounds * 7919 % 40 * 1000));
    unlink(saved);
    print_message("  %d calls while %d models were closed\n", done, rounds);
    assert_true(done > 0);
    assert_int_equal(mica_alloc_get_stats().live, before.live);
    assert_int_equal(mica_alloc_get_stats().bytes, before.bytes);
}

static void *free_stream(void *s) {
    mica_stream_free(s);
    return NULL;
}

// The model's own end and its last stream's at once.
static void handle_and_last_stream_are_freed_together(void **state) {
    (void)state;
    mica_alloc_stats before = mica_alloc_get_stats();
    double until = mica_now() + seconds() / 3;
    for (int i = 0; i < 200 && mica_now() < until; i++) {
        mica_error err = {0};
        mica_model *m = load();
        mica_stream *s = mica_generate_ids(m, ids, 4, NULL, &err);
        assert_non_null(s);
        pthread_t thread;
        if (i % 2) mica_model_close(m);
        assert_int_equal(pthread_create(&thread, NULL, free_stream, s), 0);
        if (i % 3) usleep((useconds_t)(i * 37 % 400));
        mica_model_free(m);
        pthread_join(thread, NULL);
    }
    assert_int_equal(mica_alloc_get_stats().live, before.live);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_call_ends_when_the_model_is_closed),
                                       cmocka_unit_test(handle_and_last_stream_are_freed_together)};
    return cmocka_run_group_tests_name("close", tests, NULL, NULL);
}
