// SPDX-License-Identifier: Apache-2.0
// labels: threads kernels
// One model shared by threads: every stream gives what it gives alone; cancelling from outside ends a stream within a step.
#include "mica/model.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { THREADS = 4, TOKENS = 24 };

typedef struct job {
    mica_model *model;
    int32_t prompt[12];
    int32_t answer[TOKENS];
    bool failed;
} job;

static mica_model *load(void) {
    mica_error err = {0};
    mica_model *m = mica_model_load(MICA_SOURCE_DIR "/tests/golden/quant/gemma3-4bit", &(mica_load_options){.threads = 3, .context = 1 << 20}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static void *generate(void *ctx) {
    job *j = ctx;
    mica_error err = {0};
    mica_stream *s = mica_generate_ids(j->model, j->prompt, 12, &(mica_generate_options){.max_tokens = TOKENS, .ignore_eos = true,
                                       .temperature = 0.8f, .seed = (uint64_t)j->prompt[0]}, &err);
    mica_token t;
    int n = 0;
    while (s && mica_stream_next(s, &t))
        if (t.id >= 0 && n < TOKENS) j->answer[n++] = t.id;
    j->failed = !s || mica_stream_error(s, &err) || n != TOKENS;
    mica_stream_free(s);
    return NULL;
}

static void streams_of_one_model_do_not_disturb_each_other(void **state) {
    (void)state;
    mica_model *m = load();
    job alone[THREADS] = {0}, together[THREADS];
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++) {
        alone[i].model = m;
        for (int k = 0; k < 12; k++) alone[i].prompt[k] = (i * 37 + k * 11) % mica_model_info(m)->vocab_size;
        together[i] = alone[i];
        generate(&alone[i]);
        assert_false(alone[i].failed);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, generate, &together[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_false(together[i].failed);
        assert_memory_equal(together[i].answer, alone[i].answer, sizeof alone[i].answer);
    }
    mica_model_free(m);
}

static atomic_int delivered;

static void *cancel_after_some(void *stream) {
    while (atomic_load(&delivered) < 5) {}
    mica_stream_cancel(stream);
    return NULL;
}

static void cancel_from_another_thread(void **state) {
    (void)state;
    mica_model *m = load();
    mica_error err = {0};
    mica_stream *s = mica_generate_ids(m, (int32_t[]){1, 2, 3}, 3, &(mica_generate_options){.max_tokens = 100000, .ignore_eos = true}, &err);
    assert_non_null(s);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_after_some, s), 0);
    mica_token t;
    while (mica_stream_next(s, &t)) atomic_fetch_add(&delivered, 1);
    pthread_join(thread, NULL);
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_CANCELLED);
    mica_stream_free(s);
    mica_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_of_one_model_do_not_disturb_each_other), cmocka_unit_test(cancel_from_another_thread)};
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
