// SPDX-License-Identifier: Apache-2.0
// labels: threads
// Threads that share a model: calls and sessions with common beginnings, dropped and cancelled at any time, all get what they ask for and leave
// nothing behind. MICA_TEST_SECONDS says for how long.
#include "base/base.h"
#include "infer/internal.h"
#include "mica/session.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void make_ids(const mica_model *m, int32_t *ids, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((seed = seed * 1664525 + 1013904223) >> 8) % m->info.vocab_size;
}

enum { THREADS = 8 };
typedef struct worker {
    mica_model *model;
    int32_t number, calls;
    double until;
    char *problem;
} worker;

// One call of some kind; false, with err, where it failed.
static bool call(worker *w, mica_session *session, uint32_t dice, mica_error *err) {
    int32_t ids[400];
    mica_token t;
    size_t n = 150 + dice % 7 * 32 + dice % 5;
    make_ids(w->model, ids, 300, dice % 3 + 1); // three beginnings, shared
    make_ids(w->model, ids + 140 + dice % 50, 400 - 190, dice);
    mica_generate_options o = {.max_tokens = (int32_t)(dice % 13), .ignore_eos = true, .temperature = 0.7f, .seed = dice};
    o.max_tokens += 1;
    mica_prompt prompt = {.ids = ids, .count = n};
    mica_stream *s = dice % 4 == 0 && session ? mica_session_start(session, &prompt, &o, err) : mica_start(w->model, &prompt, &o, err);
    if (!s) return false;
    int32_t tokens = 0, stop = dice % 3 == 0 ? (int32_t)(dice % 5) : -1;
    while (tokens != stop && mica_stream_next(s, &t)) tokens++;
    if (tokens == stop && dice % 2) mica_stream_cancel(s);
    if (tokens == stop && dice % 2)
        while (mica_stream_next(s, &t)) {}
    bool ok = !mica_stream_error(s, err) && (stop >= 0 || tokens == o.max_tokens);
    mica_stream_free(s);
    return ok;
}

static void *work(void *ctx) {
    worker *w = ctx;
    mica_error err = {0};
    mica_session *session = mica_session_new(w->model, &err);
    uint32_t x = (uint32_t)w->number * 977 + 5;
    while (!w->problem && mica_now() < w->until) {
        x = x * 1664525 + 1013904223;
        if (!call(w, session, x >> 9, &err)) w->problem = mica_strf("call %d: %s", (int)w->calls, err.msg);
        w->calls++;
        if (x >> 28 == 3) {
            mica_session *fork = mica_session_fork(session, &err);
            mica_session_free(session);
            session = fork;
        }
    }
    mica_session_free(session);
    return NULL;
}

static void threads_share_a_model(void **state) {
    (void)state;
    const char *seconds = getenv("MICA_TEST_SECONDS");
    mica_alloc_stats before = mica_alloc_get_stats();
    mica_error err = {0};
    mica_model *m = mica_model_load(MICA_SOURCE_DIR "/tests/golden/models/gemma3-text-f32",
                                    &(mica_load_options){.threads = 2, .context = 4096, .prefix_cache = 3 << 20}, &err);
    if (!m) fail_msg("%s", err.msg);
    worker workers[THREADS] = {0};
    pthread_t threads[THREADS];
    int32_t calls = 0;
    double until = mica_now() + (seconds ? atof(seconds) : 2);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.model = m, .number = i, .until = until};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (workers[i].problem) fail_msg("thread %d, %s", i, workers[i].problem);
        calls += workers[i].calls;
    }
    print_message("  %d calls\n", (int)calls);
    assert_int_equal(mica_cache_bytes(&m->lm->cache), m->lm->cache.prefixes.bytes); // nothing but what is kept
    mica_model_free(m);
    assert_int_equal(mica_alloc_get_stats().live, before.live);
    assert_int_equal(mica_alloc_get_stats().bytes, before.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_share_a_model)};
    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
