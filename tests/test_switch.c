// SPDX-License-Identifier: Apache-2.0
// labels: threads
// Adapters that requests choose: each gives what a model loaded with it gives, alone, in one batch with others, on sessions and in classes; nothing that
// was computed with one is used with another; loading and unloading while requests run; refusals.
#include "adapter_testing.h"
#include "faults_testing.h"
#include "mica/adapter.h"
#include "mica/backend.h"
#include "mica/session.h"
#include "model_testing.h"
#include <math.h>
#include <pthread.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
enum { ANSWER = 12, MOST_IDS = 700, ADAPTERS = 3 }; // two adapters, and none

static const char *const names[ADAPTERS] = {"one", "two", ""};
static char folders[ADAPTERS][1200];

static mica_model *open_model(const char *path, const mica_load_options *options) {
    mica_load_options o = options ? *options : (mica_load_options){0};
    if (!o.threads) o.threads = 2;
    if (!o.context) o.context = 1024;
    return load(path, &o);
}

// Folders of two adapters for the model: one of q and v, one of everything (with DoRA or of the embedding too, where asked).
static void make_two(const char *model, bool dora, bool embed) {
    for (int i = 0; i < 2; i++) snprintf(folders[i], sizeof folders[i], "%s", scratch_folder());
    make_adapter(model, folders[0], &(adapter_spec){.seed = 1, .rank = 3, .modules = qv_modules});
    make_adapter(model, folders[1], &(adapter_spec){.seed = 2, .rank = 8, .modules = all_modules, .dora = dora, .embed = embed && !dora, .bf16 = !dora});
}

static void drop_two(void) {
    for (int i = 0; i < 2; i++) mica_remove_flat_dir(folders[i]);
}

static mica_model *load_with_two(const char *path, const mica_load_options *options) {
    mica_error err = {0};
    mica_model *m = open_model(path, options);
    for (int i = 0; i < 2; i++)
        if (!mica_adapter_load(m, names[i], folders[i], &err)) fail_msg("%s", err.msg);
    return m;
}

// ---- answers ----------------------------------------------------------------------------------------------
typedef struct answer {
    int32_t ids[ANSWER];
    float logprobs[ANSWER];
    size_t count;
    int64_t cached;
} answer;

static mica_generate_options options_for(const char *adapter) {
    return (mica_generate_options){.max_tokens = ANSWER, .ignore_eos = true, .logprobs = -1, .adapter = adapter};
}

static void keep(answer *a, const mica_token *t) {
    if (t->id < 0) return;
    assert_true(a->count < ANSWER);
    a->ids[a->count] = t->id;
    a->logprobs[a->count++] = t->logprob;
}

static answer finish(mica_stream *s) {
    mica_error err = {0};
    answer a = {0};
    for (mica_token t; mica_stream_next(s, &t);) keep(&a, &t);
    if (mica_stream_error(s, &err)) fail_msg("%s", err.msg);
    a.cached = mica_stream_metrics(s).cached_tokens;
    mica_stream_free(s);
    return a;
}

static answer ask(mica_model *m, const char *adapter, const int32_t *ids, size_t n) {
    mica_error err = {0};
    mica_generate_options o = options_for(adapter);
    mica_stream *s = mica_generate_ids(m, ids, n, &o, &err);
    if (!s) fail_msg("%s", err.msg);
    return finish(s);
}

static void assert_same(const char *what, const answer *a, const answer *b) {
    assert_int_equal(a->count, b->count);
    if (memcmp(a->ids, b->ids, sizeof a->ids)) fail_msg("%s: other tokens", what);
    if (memcmp(a->logprobs, b->logprobs, sizeof a->logprobs)) fail_msg("%s: other log-probabilities", what);
}

static void assert_near(const char *what, const answer *a, const answer *b, float tolerance) {
    assert_int_equal(a->count, b->count);
    if (memcmp(a->ids, b->ids, sizeof a->ids)) fail_msg("%s: other tokens", what);
    for (size_t i = 0; i < a->count; i++)
        if (!(fabsf(a->logprobs[i] - b->logprobs[i]) <= tolerance)) fail_msg("%s: token %zu: %g and %g", what, i, (double)a->logprobs[i], (double)b->logprobs[i]);
}

static bool differ(const answer *a, const answer *b) { return memcmp(a->logprobs, b->logprobs, sizeof a->logprobs) != 0; }

// ---- one at a time ------------------------------------------------------------------------------------------
static const struct { const char *path; bool dora, embed; } models[] = {
    {GOLDEN "models/llama-f32", false, true}, {GOLDEN "models/qwen2-f32", true, false}, {GOLDEN "quant/llama-4bit-float32", false, true},
    {GOLDEN "quant/gemma3-4bit", true, false}, {GOLDEN "quant/qwen3-4bit", false, true}, {GOLDEN "models/gemma3-text-bf16", false, false}};

// What the whole adapted model is, whichever way the adapter came.
static void as_a_model_loaded_with_it(void **state) {
    (void)state;
    int32_t ids[150];
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        make_two(models[k].path, models[k].dora, models[k].embed);
        mica_model *plain = open_model(models[k].path, NULL), *both = load_with_two(models[k].path, &(mica_load_options){.adapter = folders[1]});
        make_ids(plain, ids, 150, 3);
        answer none = ask(plain, NULL, ids, 150), got = ask(both, "", ids, 150), own = ask(both, NULL, ids, 150);
        assert_same("none", &got, &none);
        for (int i = 0; i < 2; i++) {
            mica_model *m = open_model(models[k].path, &(mica_load_options){.adapter = folders[i]});
            answer want = ask(m, NULL, ids, 150);
            got = ask(both, names[i], ids, 150);
            assert_same(names[i], &got, &want);
            assert_true(differ(&got, &none));
            if (i == 1) assert_same("the model's own", &own, &want);
            mica_model_free(m);
        }
        mica_model_free(plain);
        mica_model_free(both);
        drop_two();
    }
}

// ---- batches --------------------------------------------------------------------------------------------------
enum { ROWS = 14 };
static const size_t lengths[ROWS] = {5, 40, 129, 1, 300, 17, 64, 33, 2, 520, 90, 250, 12, 7};

static void together(mica_model *m, const int32_t *ids, bool invariant, answer *a) {
    mica_error err = {0};
    mica_batch *b = mica_batch_new(m, &(mica_batch_options){.rows = 6, .invariant = invariant}, &err);
    if (!b) fail_msg("%s", err.msg);
    for (int64_t i = 0; i < ROWS; i++) {
        mica_generate_options o = options_for(names[i % ADAPTERS]);
        a[i] = (answer){0};
        if (mica_batch_add(b, &(mica_prompt){.ids = ids + i, .count = lengths[i]}, &o, &err) != i) fail_msg("%s", err.msg);
    }
    for (mica_batch_event e; mica_batch_next(b, &e);) {
        keep(&a[e.row], &e.token);
        if (e.finish && mica_batch_error(b, e.row, &err)) fail_msg("%s", err.msg);
    }
    mica_batch_free(b);
}

static void rows_of_one_batch_have_their_own(void **state) {
    (void)state;
    int32_t ids[MOST_IDS];
    answer alone[ROWS], got[ROWS];
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        bool f32 = strstr(models[k].path, "f32") || strstr(models[k].path, "float32");
        make_two(models[k].path, models[k].dora, models[k].embed);
        mica_model *m = load_with_two(models[k].path, &(mica_load_options){.prefix_cache = -1});
        make_ids(m, ids, MOST_IDS, 7);
        for (int i = 0; i < ROWS; i++) alone[i] = ask(m, names[i % ADAPTERS], ids + i, lengths[i]);
        together(m, ids, true, got);
        for (int i = 0; i < ROWS; i++) assert_same("invariant", &got[i], &alone[i]);
        if (f32) together(m, ids, false, got);
        for (int i = 0; f32 && i < ROWS; i++) assert_near("together", &got[i], &alone[i], 1e-3f);
        mica_model_free(m);
        drop_two();
    }
}

static void threads_do_not_matter(void **state) {
    (void)state;
    int32_t ids[MOST_IDS];
    answer first[ROWS], got[ROWS];
    make_two(GOLDEN "quant/gemma3-4bit", false, true);
    for (int32_t threads = 1; threads <= 4; threads++) {
        mica_model *m = load_with_two(GOLDEN "quant/gemma3-4bit", &(mica_load_options){.threads = threads});
        make_ids(m, ids, MOST_IDS, 7);
        together(m, ids, false, threads == 1 ? first : got);
        for (int i = 0; threads > 1 && i < ROWS; i++) assert_same("threads", &got[i], &first[i]);
        mica_model_free(m);
    }
    drop_two();
}

// ---- what is kept ---------------------------------------------------------------------------------------------
static void prefixes_are_not_shared(void **state) {
    (void)state;
    const char *path = GOLDEN "models/llama-f32";
    int32_t ids[MOST_IDS];
    make_two(path, false, false);
    mica_model *keeping = load_with_two(path, NULL), *fresh = load_with_two(path, &(mica_load_options){.prefix_cache = -1});
    make_ids(keeping, ids, MOST_IDS, 5);
    for (int turn = 0; turn < 2; turn++)
        for (int i = 0; i < ADAPTERS; i++) {
            answer a = ask(keeping, names[i], ids, 600), b = ask(fresh, names[i], ids, 600);
            assert_same(names[i], &a, &b);
            assert_int_equal(a.cached, turn ? 512 : 0);
        }
    // Another adapter under the old name has nothing to do with it.
    mica_error err = {0};
    assert_true(mica_adapter_unload(keeping, "one", &err) && mica_adapter_load(keeping, "one", folders[1], &err));
    answer a = ask(keeping, "one", ids, 600), b = ask(fresh, "two", ids, 600);
    assert_same("another one", &a, &b);
    assert_int_equal(a.cached, 0);
    mica_model_free(keeping);
    mica_model_free(fresh);
    drop_two();
}

static answer ask_session(mica_session *session, const char *adapter, const int32_t *ids, size_t n) {
    mica_error err = {0};
    mica_generate_options o = options_for(adapter);
    mica_stream *s = mica_session_start(session, &(mica_prompt){.ids = ids, .count = n}, &o, &err);
    if (!s) fail_msg("%s", err.msg);
    return finish(s);
}

static void sessions_keep_what_is_of_one(const char *path) {
    int32_t ids[MOST_IDS];
    mica_error err = {0};
    char file[1300];
    make_two(path, false, false);
    snprintf(file, sizeof file, "%s/session", folders[0]);
    mica_model *m = load_with_two(path, &(mica_load_options){.prefix_cache = -1});
    make_ids(m, ids, MOST_IDS, 11);
    mica_session *s = mica_session_new(m, &err);
    answer a = ask_session(s, "one", ids, 200), b = ask(m, "one", ids, 200);
    assert_same("first turn", &a, &b);
    a = ask_session(s, "one", ids, 240);
    assert_true(a.cached >= 190);
    a = ask_session(s, "two", ids, 300), b = ask(m, "two", ids, 300);
    assert_int_equal(a.cached, 0);
    assert_same("other adapter", &a, &b);
    a = ask_session(s, "", ids, 320), b = ask(m, "", ids, 320);
    assert_int_equal(a.cached, 0);
    assert_same("none", &a, &b);
    a = ask_session(s, "two", ids, 300);
    assert_true(mica_session_save(s, file, &err));
    answer want = ask_session(s, "two", ids, 360);
    // It is read again where that adapter is, under any name.
    assert_true(mica_adapter_load(m, "again", folders[1], &err) && mica_adapter_unload(m, "two", &err));
    mica_session *t = mica_session_load(m, file, &err);
    if (!t) fail_msg("%s", err.msg);
    a = ask_session(t, "again", ids, 360);
    assert_true(a.cached >= 290);
    assert_same("restored", &a, &want);
    mica_session_free(t);
    assert_true(mica_adapter_unload(m, "again", &err));
    assert_null(mica_session_load(m, file, &err));
    assert_non_null(strstr(err.msg, "adapter"));
    mica_session_free(s);
    mica_model_free(m);
    remove(file);
    drop_two();
}

static void sessions_are_of_one_adapter(void **state) {
    (void)state;
    sessions_keep_what_is_of_one(GOLDEN "models/llama-f32");
    sessions_keep_what_is_of_one(GOLDEN "models/gemma3-text-f32");
}

// ---- coming and going -------------------------------------------------------------------------------------------
static void loading_is_counted_and_refused(void **state) {
    (void)state;
    const char *path = GOLDEN "models/llama-f32";
    mica_error err = {0};
    mica_adapter_info list[4];
    make_two(path, false, false);
    mica_model *m = open_model(path, NULL);
    assert_true(mica_adapter_works(m));
    assert_int_equal(mica_model_info(m)->adapter_bytes, 0);
    assert_int_equal(mica_adapter_list(m, list, 4), 0);
    assert_true(mica_adapter_load(m, "one", folders[0], &err) && mica_adapter_load(m, "two", folders[1], &err));
    assert_int_equal(mica_adapter_list(m, list, 1), 2);
    assert_int_equal(mica_adapter_list(m, list, 4), 2);
    assert_true(!strcmp(list[0].name, "one") && !strcmp(list[1].name, "two") && list[0].bytes > 0 && list[1].bytes > list[0].bytes);
    assert_int_equal(mica_model_info(m)->adapter_bytes, list[0].bytes + list[1].bytes);
    assert_false(mica_adapter_load(m, "one", folders[1], &err));
    assert_non_null(strstr(err.msg, "\"one\""));
    assert_false(mica_adapter_load(m, "", folders[1], &err));
    assert_false(mica_adapter_load(m, "three", GOLDEN, &err));
    assert_non_null(strstr(err.msg, "no adapter here"));
    assert_false(mica_adapter_load(m, "three", GOLDEN "adapters/peft-lora", &err)); // another model's
    assert_non_null(strstr(err.msg, "peft-lora"));
    assert_non_null(strstr(err.msg, "self_attn"));
    mica_generate_options o = options_for("three");
    assert_null(mica_generate_ids(m, &(int32_t){1}, 1, &o, &err));
    assert_non_null(strstr(err.msg, "\"three\""));
    assert_false(mica_adapter_unload(m, "three", &err));
    assert_true(mica_adapter_unload(m, "one", &err));
    assert_int_equal(mica_model_info(m)->adapter_bytes, list[1].bytes);
    mica_model_free(m);
    drop_two();
}

static void unloading_waits_for_those_that_run(void **state) {
    (void)state;
    const char *path = GOLDEN "models/llama-f32";
    int32_t ids[100];
    mica_error err = {0};
    make_two(path, false, false);
    mica_model *m = load_with_two(path, NULL);
    make_ids(m, ids, 100, 4);
    answer want = ask(m, "one", ids, 100), got = {0};
    int64_t bytes = mica_model_info(m)->adapter_bytes;
    mica_generate_options o = options_for("one");
    mica_stream *s = mica_generate_ids(m, ids, 100, &o, &err);
    mica_token t;
    for (int i = 0; i < 3; i++) assert_true(mica_stream_next(s, &t)), keep(&got, &t);
    assert_true(mica_adapter_unload(m, "one", &err));
    assert_null(mica_generate_ids(m, ids, 100, &o, &err));
    assert_int_equal(mica_adapter_list(m, NULL, 0), 1);
    assert_int_equal(mica_model_info(m)->adapter_bytes, bytes);
    assert_true(mica_adapter_load(m, "one", folders[1], &err)); // the name is free
    while (mica_stream_next(s, &t)) keep(&got, &t);
    assert_same("while it is unloaded", &got, &want);
    bytes = mica_model_info(m)->adapter_bytes;
    mica_stream_free(s);
    assert_true(mica_model_info(m)->adapter_bytes < bytes);
    mica_model_free(m);
    drop_two();
}

static void the_budget_counts_them(void **state) {
    (void)state;
    const char *path = GOLDEN "models/llama-f32";
    mica_error err = {0};
    mica_adapter_info info;
    make_two(path, false, true);
    mica_model *m = load_with_two(path, NULL);
    int64_t weights = mica_model_info(m)->weight_bytes, page = 64 * mica_model_info(m)->kv_bytes_per_token;
    assert_int_equal(mica_adapter_list(m, &info, 1), 2);
    mica_model_free(m);
    m = open_model(path, &(mica_load_options){.memory_budget = weights + page + info.bytes, .context = 32});
    assert_true(mica_adapter_load(m, "one", folders[0], &err));
    assert_false(mica_adapter_load(m, "two", folders[1], &err));
    assert_int_equal(err.code, MICA_ERR_NO_MEMORY);
    int32_t ids[40];
    make_ids(m, ids, 40, 1);
    ask(m, "one", ids, 16);
    mica_model_free(m);
    drop_two();
}

// ---- at once ----------------------------------------------------------------------------------------------------
typedef struct worker {
    mica_model *m;
    const int32_t *ids;
    const answer *want; // [ADAPTERS]
    int number;
    bool ok;
} worker;

static void *work(void *context) {
    worker *w = context;
    w->ok = true;
    for (int i = 0; i < 6; i++) {
        int k = (w->number + i) % ADAPTERS;
        mica_generate_options o = options_for(names[k]);
        answer a = {0};
        mica_stream *s = mica_generate_ids(w->m, w->ids, 90, &o, NULL);
        for (mica_token t; s && mica_stream_next(s, &t);) a.ids[a.count] = t.id, a.logprobs[a.count++] = t.logprob;
        mica_stream_free(s);
        w->ok &= !memcmp(a.logprobs, w->want[k].logprobs, sizeof a.logprobs);
    }
    return NULL;
}

// Comes, is used and goes, over and over.
static void *come_and_go(void *context) {
    worker *w = context;
    w->ok = true;
    for (int i = 0; i < 6; i++) {
        mica_generate_options o = options_for("guest");
        w->ok &= mica_adapter_load(w->m, "guest", folders[i % 2], NULL);
        mica_stream *s = mica_generate_ids(w->m, w->ids, 20, &o, NULL);
        mica_token t;
        w->ok &= s && mica_stream_next(s, &t) && mica_adapter_unload(w->m, "guest", NULL);
        mica_stream_free(s);
    }
    return NULL;
}

static void many_threads_choose(void **state) {
    (void)state;
    const char *path = GOLDEN "quant/qwen3-4bit";
    enum { WORKERS = 4 };
    int32_t ids[90];
    answer want[ADAPTERS];
    pthread_t threads[WORKERS + 1];
    worker w[WORKERS + 1];
    make_two(path, false, true);
    mica_model *m = load_with_two(path, NULL);
    make_ids(m, ids, 90, 8);
    for (int i = 0; i < ADAPTERS; i++) want[i] = ask(m, names[i], ids, 90);
    for (int i = 0; i <= WORKERS; i++) {
        w[i] = (worker){.m = m, .ids = ids, .want = want, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, i < WORKERS ? work : come_and_go, &w[i]), 0);
    }
    for (int i = 0; i <= WORKERS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i <= WORKERS; i++) assert_true(w[i].ok);
    mica_model_free(m);
    drop_two();
}

// ---- other backends -----------------------------------------------------------------------------------------------
static bool fake_available(void *context, mica_error *why) { return (void)context, (void)why, true; }
static void *fake_load(void *context, const char *path, const mica_load_options *options, mica_info *info, mica_error *err) {
    (void)path, (void)options, (void)err;
    *info = (mica_info){0};
    return context;
}
static void fake_unload(void *model) { (void)model; }
static void *fake_start(void *model, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    (void)prompt, (void)options, (void)err;
    return model;
}
static bool fake_next(void *stream, mica_token *token) { return (void)stream, (void)token, false; }
static void fake_cancel(void *stream) { (void)stream; }
static mica_finish fake_finish(const void *stream) { return (void)stream, MICA_FINISH_STOP; }
static bool fake_error(const void *stream, mica_error *err) { return (void)stream, (void)err, false; }
static mica_metrics fake_metrics(const void *stream) { return (void)stream, (mica_metrics){0}; }

static void others_refuse(void **state) {
    (void)state;
    static int something;
    mica_error err = {0};
    const mica_backend fake = {.name = "fake-switch", .context = &something, .available = fake_available, .load = fake_load, .unload = fake_unload,
                               .start = fake_start, .next = fake_next, .cancel = fake_cancel, .finish = fake_finish, .error = fake_error,
                               .metrics = fake_metrics, .end = fake_cancel};
    assert_true(mica_backend_register(&fake, &err));
    mica_model *m = open_model("anything", &(mica_load_options){.backend = "fake-switch"});
    assert_false(mica_adapter_works(m));
    assert_false(mica_adapter_load(m, "one", GOLDEN, &err));
    assert_non_null(strstr(err.msg, "fake-switch"));
    mica_generate_options o = options_for("one");
    assert_null(mica_generate_ids(m, &(int32_t){1}, 1, &o, &err));
    assert_non_null(strstr(err.msg, "fake-switch"));
    mica_batch *b = mica_batch_new(m, NULL, &err);
    assert_int_equal(mica_batch_add(b, &(mica_prompt){.text = "x", .length = 1}, &o, &err), -1);
    mica_batch_free(b);
    mica_model_free(m);
}

// ---- allocations that fail ----------------------------------------------------------------------------------------
static mica_model *shared;

static bool load_ask_unload(mica_error *err) {
    int32_t ids[20];
    make_ids(shared, ids, 20, 2);
    if (!mica_adapter_load(shared, "guest", folders[1], err)) return false;
    mica_generate_options o = options_for("guest");
    o.max_tokens = 2;
    mica_stream *s = mica_generate_ids(shared, ids, 20, &o, err);
    for (mica_token t; s && mica_stream_next(s, &t);) {}
    bool ok = s && !mica_stream_error(s, err);
    mica_stream_free(s);
    return mica_adapter_unload(shared, "guest", NULL) && ok;
}

static void any_allocation_may_fail(void **state) {
    (void)state;
    const char *path = GOLDEN "models/qwen2-f32";
    mica_error err = {0};
    make_two(path, true, false);
    shared = open_model(path, &(mica_load_options){.threads = 1, .prefix_cache = -1});
    for (int i = 0; i < 2; i++)
        if (!load_ask_unload(&err)) fail_msg("%s", err.msg);
    uint64_t live = mica_alloc_get_stats().live, n = 1;
    while (!run_refused(load_ask_unload, n, live)) n += 1 + n / 20;
    print_message("  %d allocations\n", (int)n);
    mica_model_free(shared);
    drop_two();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_a_model_loaded_with_it),
        cmocka_unit_test(rows_of_one_batch_have_their_own),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(prefixes_are_not_shared),
        cmocka_unit_test(sessions_are_of_one_adapter),
        cmocka_unit_test(loading_is_counted_and_refused),
        cmocka_unit_test(unloading_waits_for_those_that_run),
        cmocka_unit_test(the_budget_counts_them),
        cmocka_unit_test(many_threads_choose),
        cmocka_unit_test(others_refuse),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
