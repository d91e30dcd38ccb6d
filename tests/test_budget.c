// SPDX-License-Identifier: Apache-2.0
// Memory: what a model will take is known before it is loaded; a budget refuses what cannot fit, lets go of kept prefixes first, fails one call
// and not the others; long chats stay within it.
#include "backend/info.h"
#include "model_testing.h"
#include "mica/session.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
static const char *const gemma = GOLDEN "models/gemma3-text-f32", *const llama = GOLDEN "models/llama-f32";

// Tokens that come of `most`; *err says why not all.
static int32_t ask(mica_model *m, const int32_t *ids, size_t n, int32_t most, mica_error *err) {
    mica_token t;
    int32_t tokens = 0;
    *err = (mica_error){0};
    mica_stream *s = mica_generate_ids(m, ids, n, &(mica_generate_options){.max_tokens = most, .ignore_eos = true}, err);
    while (s && mica_stream_next(s, &t)) tokens++;
    if (s) mica_stream_error(s, err);
    mica_stream_free(s);
    return tokens;
}

// ---- before loading ---------------------------------------------------------------------------------------------
static void check_predicted(mica_model *m, const mica_info *info, int32_t n, bool whole) {
    mica_error err = {0};
    mica_token t;
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    make_ids(m, ids, (size_t)n, 1);
    mica_stream *s = mica_generate_ids(m, ids, (size_t)n, &(mica_generate_options){.max_tokens = 1, .ignore_eos = true}, &err);
    if (!s || !mica_stream_next(s, &t)) fail_msg("%s", err.msg);
    int64_t measured = m->lm->net->weight_bytes + mica_cache_bytes(&m->lm->cache), predicted = (whole ? mica_info_memory : mica_info_kept_memory)(info, n);
    if (whole) measured = mica_stream_metrics(s).peak_memory_bytes;
    print_message("  %s, %d tokens: predicted %lld, measured %lld\n", info->architecture, (int)n, (long long)predicted, (long long)measured);
    assert_true(llabs(measured - predicted) * 20 <= measured);
    mica_stream_free(s);
    free(ids);
}

static void memory_is_known_before_loading(void **state) {
    (void)state;
    static const char *const paths[] = {GOLDEN "models/llama-f32", GOLDEN "models/qwen3-bf16", GOLDEN "quant/llama-4bit-g64", GOLDEN "gguf/qwen2.gguf"};
    mica_error err = {0};
    for (size_t k = 0; k < MICA_COUNT(paths); k++) {
        mica_info info;
        assert_true(mica_info_read(paths[k], &info, &err));
        mica_model *m = load(paths[k], &(mica_load_options){.threads = 2, .context = 4096, .prefix_cache = -1});
        check_predicted(m, &info, 1500, false);
        mica_model_free(m);
    }
    // A real shape, with everything that is allocated; each thread more has working memory of its own.
    mica_model *m = mica_model_random("smollm2-135m", 4, &(mica_load_options){.threads = 2, .prefix_cache = -1}, &err);
    if (!m) fail_msg("%s", err.msg);
    check_predicted(m, mica_model_info(m), 600, true);
    mica_model_free(m);
}

static void what_cannot_fit_is_refused(void **state) {
    (void)state;
    mica_error err = {0};
    mica_info info;
    assert_true(mica_info_read(llama, &info, &err));
    char want[300];
    int64_t need = mica_info_kept_memory(&info, 2000);
    assert_null(mica_model_load(llama, &(mica_load_options){.memory_budget = info.weight_bytes - 1}, &err));
    snprintf(want, sizeof want, "%s: the weights take %lld bytes, the memory budget is %lld", llama, (long long)info.weight_bytes, (long long)info.weight_bytes - 1);
    assert_string_equal(err.msg, want);
    assert_int_equal(err.code, MICA_ERR_NO_MEMORY);
    assert_null(mica_model_load(llama, &(mica_load_options){.memory_budget = need - 1, .context = 2000}, &err));
    snprintf(want, sizeof want, "%s: weights and the keys and values of 2000 tokens take %lld bytes (the weights %lld), the memory budget is %lld", llama,
             (long long)need, (long long)info.weight_bytes, (long long)need - 1);
    assert_string_equal(err.msg, want);
    mica_model_free(load(llama, &(mica_load_options){.memory_budget = need, .context = 2000}));
    assert_null(mica_model_load(llama, &(mica_load_options){.memory_budget = -1}, &err));
    assert_null(mica_model_random("smollm2-135m", 4, &(mica_load_options){.memory_budget = 1000}, &err));
    assert_non_null(strstr(err.msg, "the memory budget is 1000"));
}

// ---- at run time ------------------------------------------------------------------------------------------------
// A budget for weights and so many positions, whatever the context is.
static mica_model *load_for(const char *path, int32_t positions, int64_t prefix_cache) {
    mica_model *m = load(path, &(mica_load_options){.threads = 2, .context = 1 << 16, .prefix_cache = prefix_cache});
    m->lm->cache.budget = mica_info_kept_memory(&m->lm->info, positions) - m->lm->info.weight_bytes;
    return m;
}

static void one_call_fails_and_others_go_on(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load_for(llama, 640, -1);
    int64_t budget = m->lm->cache.budget;
    int32_t ids[700];
    mica_token t;
    make_ids(m, ids, 700, 1);
    assert_int_equal(ask(m, ids, 700, 5, &err), 0); // cannot fit, and is told so at once
    assert_non_null(strstr(err.msg, "keys and values of 700 tokens take"));
    assert_null(mica_generate_ids(m, ids, 700, NULL, &err));
    assert_int_equal(ask(m, ids, 300, 1000, &err), 640 - 300 + 1);
    assert_non_null(strstr(err.msg, "that the memory budget leaves"));
    assert_int_equal(err.code, MICA_ERR_NO_MEMORY);
    mica_stream *first = mica_generate_ids(m, ids, 300, &(mica_generate_options){.max_tokens = 200, .ignore_eos = true}, &err);
    assert_true(mica_stream_next(first, &t));
    assert_int_equal(ask(m, ids, 600, 5, &err), 0); // no room beside the first
    assert_non_null(strstr(err.msg, "memory budget"));
    int32_t n = 1;
    while (mica_stream_next(first, &t)) n++;
    assert_int_equal(n, 200);
    assert_false(mica_stream_error(first, &err));
    assert_true(mica_cache_bytes(&m->lm->cache) <= budget);
    mica_stream_free(first);
    assert_int_equal(mica_cache_bytes(&m->lm->cache), 0);
    mica_model_free(m);
}

static void kept_prefixes_make_room(void **state) {
    (void)state;
    mica_error err = {0};
    for (int k = 0; k < 2; k++) {
        mica_model *m = load_for(k ? gemma : llama, 800, 0);
        int32_t ids[640];
        for (uint32_t i = 0; i < 12; i++) {
            make_ids(m, ids, 640, i);
            assert_int_equal(ask(m, ids, 600 + i, 100, &err), 100);
            assert_int_equal(err.msg[0], 0);
            assert_true(mica_cache_bytes(&m->lm->cache) <= m->lm->cache.budget);
            assert_true(m->lm->cache.prefixes.count > 0);
        }
        mica_model_free(m);
    }
}

// 200 turns: within the budget, and no memory but that of new positions.
static void a_long_chat_stays_within_the_budget(void **state) {
    (void)state;
    enum { TURNS = 200, NEW = 11, SAID = 6, LENGTH = TURNS * (NEW + SAID) };
    mica_error err = {0};
    mica_model *m = load_for(gemma, LENGTH + MICA_PAGE, 0);
    mica_cache *c = &m->lm->cache;
    int32_t text[LENGTH], window = 0;
    size_t n = 0, bytes = 0;
    mica_session *s = mica_session_new(m, &err);
    for (int i = 0; i < TURNS; i++) {
        mica_token t;
        make_ids(m, text + n, NEW, (uint32_t)i);
        n += NEW;
        mica_stream *a = mica_session_start(s, &(mica_prompt){.ids = text, .count = n}, &(mica_generate_options){.max_tokens = SAID, .ignore_eos = true}, &err);
        if (!a) fail_msg("%s", err.msg);
        while (mica_stream_next(a, &t)) text[n++] = t.id;
        if (mica_stream_error(a, &err)) fail_msg("turn %d: %s", i, err.msg);
        assert_int_equal(mica_stream_metrics(a).cached_tokens, i ? (int64_t)n - NEW - SAID - 1 : 0);
        mica_stream_free(a);
        assert_true(mica_cache_bytes(c) <= c->budget);
        if (i == TURNS / 2) window = c->pool[1].used, bytes = mica_alloc_get_stats().bytes;
    }
    assert_int_equal(n, LENGTH);
    assert_true(c->pool[1].used <= window + 2); // the window's pages are as many as before
    size_t grown = mica_alloc_get_stats().bytes - bytes;
    print_message("  the second hundred turns took %zu bytes, %zu of them pages\n", grown, (size_t)(LENGTH / 2 / MICA_PAGE + 1) * c->pool[0].page_bytes);
    assert_true(grown <= (size_t)(LENGTH / 2 / MICA_PAGE + 1) * c->pool[0].page_bytes + 2 * MICA_HUGE_PAGE);
    mica_session_free(s);
    mica_model_free(m);
}

// Sessions let go of the marks that they could cut back to before a call fails.
static void marks_make_room(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load_for(gemma, 700, -1);
    m->lm->cache.budget = 22 * (int64_t)m->lm->cache.pool[0].page_bytes + 19 * (int64_t)m->lm->cache.pool[1].page_bytes;
    int32_t text[800];
    make_ids(m, text, 800, 1);
    mica_session *s = mica_session_new(m, &err);
    for (size_t n = 100; n <= 600; n += 100) {
        mica_token t;
        mica_stream *a = mica_session_start(s, &(mica_prompt){.ids = text, .count = n}, &(mica_generate_options){.max_tokens = 40, .ignore_eos = true}, &err);
        if (!a) fail_msg("%s", err.msg);
        while (mica_stream_next(a, &t)) {}
        if (mica_stream_error(a, &err)) fail_msg("%zu: %s", n, err.msg);
        mica_stream_free(a);
    }
    mica_session_free(s);
    assert_int_equal(mica_cache_bytes(&m->lm->cache), 0);
    mica_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_known_before_loading), cmocka_unit_test(what_cannot_fit_is_refused),
        cmocka_unit_test(one_call_fails_and_others_go_on), cmocka_unit_test(kept_prefixes_make_room),
        cmocka_unit_test(a_long_chat_stays_within_the_budget), cmocka_unit_test(marks_make_room),
    };
    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
