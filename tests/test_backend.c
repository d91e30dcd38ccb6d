// SPDX-License-Identifier: Apache-2.0
// labels: threads
// The registry of backends and the handles of models, with backends made up for the purpose: names, order, replacing, the default, the three errors;
// that closing may be repeated, makes later calls fail, and ends open streams; that nothing is unloaded while it is in use.
#include "base/base.h"
#include "mica/backend.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

// A backend that counts. Its tokens are 0, 1, 2, … until max_tokens.
typedef struct counter {
    bool missing; // not available here
    atomic_int loaded, unloaded, streams;
} counter;

typedef struct counting {
    counter *c;
    int32_t n, most;
    atomic_bool cancelled;
    mica_finish finish;
} counting;

static bool available(void *context, mica_error *why) { return !((counter *)context)->missing || mica_fail(why, MICA_ERR_UNSUPPORTED, "no such luck"); }

static void *load(void *context, const char *path, const mica_load_options *options, mica_info *info, mica_error *err) {
    (void)options;
    if (!strcmp(path, "bad")) return mica_fail(err, MICA_ERR_IO, "bad: no model"), NULL;
    atomic_fetch_add(&((counter *)context)->loaded, 1);
    info->vocab_size = 7;
    return context;
}

static void unload(void *model) {
    counter *c = model;
    assert_int_equal(atomic_load(&c->streams), 0);
    atomic_fetch_add(&c->unloaded, 1);
}

static void *start(void *model, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    if (prompt->text && !strcmp(prompt->text, "bad")) return mica_fail(err, MICA_ERR_ARGUMENT, "bad prompt"), NULL;
    counting *s = mica_calloc(1, sizeof *s);
    *s = (counting){.c = model, .most = options && options->max_tokens ? options->max_tokens : 256};
    atomic_fetch_add(&s->c->streams, 1);
    return s;
}

static bool next(void *stream, mica_token *t) {
    counting *s = stream;
    if (s->finish) return false;
    if (atomic_load(&s->cancelled)) return s->finish = MICA_FINISH_CANCELLED, false;
    if (s->n == s->most) return s->finish = MICA_FINISH_LENGTH, false;
    t->id = s->n++;
    t->text = "x", t->length = 1;
    return true;
}

static void cancel(void *stream) { atomic_store(&((counting *)stream)->cancelled, true); }
static mica_finish finish_of(const void *stream) { return ((const counting *)stream)->finish; }
static bool error_of(const void *stream, mica_error *err) { return (void)stream, (void)err, false; }
static mica_metrics metrics(const void *stream) { return (mica_metrics){.generated_tokens = ((const counting *)stream)->n}; }

static void end(void *stream) {
    atomic_fetch_sub(&((counting *)stream)->c->streams, 1);
    mica_free(stream);
}

static mica_backend backend(const char *name, counter *c) {
    return (mica_backend){.name = name, .context = c, .available = available, .load = load, .unload = unload, .start = start, .next = next,
                          .cancel = cancel, .finish = finish_of, .error = error_of, .metrics = metrics, .end = end};
}

static counter one, two, missing = {.missing = true};

static mica_model *open_model(void) {
    mica_error err = {0};
    mica_model *m = mica_model_load("", &(mica_load_options){.backend = "one"}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

// ---- the registry -------------------------------------------------------------------------------------------
static void test_built_in(void **state) {
    (void)state;
    const char *names[4] = {0};
    assert_int_equal(mica_backend_list(names, 4), 2);
    assert_string_equal(names[0], "cpu");
    assert_string_equal(names[1], "mlx_lm");
    names[1] = NULL;
    assert_int_equal(mica_backend_list(names, 1), 2);
    assert_null(names[1]);
    assert_int_equal(mica_backend_list(NULL, 0), 2);
    for (int i = 0; i < 2; i++) {
        const mica_backend *b = mica_backend_get(i ? "" : NULL, NULL);
        assert_non_null(b);
        assert_string_equal(b->name, "cpu");
    }
}

static void test_registering(void **state) {
    (void)state;
    mica_error err = {0};
    mica_backend b = backend("one", &one);
    assert_true(mica_backend_register(&b, &err));
    b = backend("missing", &missing);
    assert_true(mica_backend_register(&b, &err));
    const char *names[8];
    assert_int_equal(mica_backend_list(names, 8), 4);
    assert_string_equal(names[2], "one");
    assert_string_equal(names[3], "missing");
    b = backend("one", &two); // replaces, in its place
    assert_true(mica_backend_register(&b, &err));
    assert_int_equal(mica_backend_list(names, 8), 4);
    assert_string_equal(names[2], "one");
    assert_ptr_equal(mica_backend_get("one", &err)->context, &two);
    b = backend("one", &one);
    assert_true(mica_backend_register(&b, &err));
}

static void test_refusals(void **state) {
    (void)state;
    mica_error err = {0};
    mica_backend b = backend("", &one);
    assert_false(mica_backend_register(&b, &err));
    assert_non_null(strstr(err.msg, "name"));
    b = backend("lacking", &one);
    b.metrics = NULL;
    assert_false(mica_backend_register(&b, &err));
    assert_string_equal(err.msg, "backend \"lacking\" has no function \"metrics\"");
    assert_null(mica_backend_get("lacking", &err));
    assert_string_equal(err.msg, "backend \"lacking\" not registered");
    assert_null(mica_backend_get("missing", &err));
    assert_string_equal(err.msg, "backend \"missing\" not available on this hardware: no such luck");
    assert_null(mica_model_load("", &(mica_load_options){.backend = "missing"}, &err));
    assert_non_null(strstr(err.msg, "not available"));
    assert_null(mica_model_load("bad", &(mica_load_options){.backend = "one"}, &err));
    assert_string_equal(err.msg, "bad: no model");
}

// With the preferred ones gone, the default is the first that can run here, in the order of registration.
static void test_default(void **state) {
    (void)state;
    mica_error err = {0};
    mica_backend cpu = *mica_backend_get("cpu", &err), b = backend("cpu", &missing);
    assert_true(mica_backend_register(&b, &err));
    b = backend("mlx_lm", &missing);
    assert_true(mica_backend_register(&b, &err));
    assert_string_equal(mica_backend_get(NULL, &err)->name, "one");
    one.missing = true;
    assert_null(mica_backend_get(NULL, &err));
    assert_non_null(strstr(err.msg, "not available"));
    one.missing = false;
    b = backend("mlx_lm", &two);
    assert_true(mica_backend_register(&b, &err));
    assert_string_equal(mica_backend_get(NULL, &err)->name, "mlx_lm");
    assert_true(mica_backend_register(&cpu, &err));
    assert_string_equal(mica_backend_get(NULL, &err)->name, "cpu");
}

static void test_room(void **state) {
    (void)state;
    static char names[64][16];
    mica_error err = {0};
    bool ok = true;
    for (int i = 0; i < 64 && ok; i++) {
        snprintf(names[i], sizeof names[i], "n%d", i);
        mica_backend b = backend(names[i], &one);
        ok = mica_backend_register(&b, &err);
    }
    assert_false(ok);
    assert_non_null(strstr(err.msg, "registered already"));
}

// ---- handles ------------------------------------------------------------------------------------------------
static void test_stream(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = open_model();
    assert_string_equal(mica_model_backend(m), "one");
    assert_int_equal(mica_model_info(m)->vocab_size, 7);
    assert_string_equal(mica_model_cpu_level(m), "");
    assert_null(mica_model_tokenizer(m));
    assert_null(mica_generate(m, "bad", 3, NULL, &err));
    assert_string_equal(err.msg, "bad prompt");
    mica_stream *s = mica_generate(m, "", 0, &(mica_generate_options){.max_tokens = 3}, &err);
    mica_token t;
    for (int i = 0; i < 3; i++) assert_true(mica_stream_next(s, &t) && t.id == i);
    assert_false(mica_stream_next(s, &t));
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_LENGTH);
    assert_int_equal(mica_stream_metrics(s).generated_tokens, 3);
    size_t count = 5;
    assert_null(mica_stream_prompt(s, &count));
    assert_int_equal(count, 0);
    mica_stream_free(s);
    mica_model_free(m);
}

static void test_native_only(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = open_model();
    mica_scores scores;
    assert_false(mica_score(m, &(int32_t){1}, 1, 1, &scores, &err));
    assert_non_null(strstr(err.msg, "backend \"one\" cannot do this"));
    mica_model_free(m);
}

static void test_close(void **state) {
    (void)state;
    mica_error err = {0};
    mica_token t;
    mica_model *m = open_model();
    int unloaded = atomic_load(&one.unloaded);
    mica_stream *s = mica_generate(m, "", 0, NULL, &err), *later = mica_generate(m, "", 0, NULL, &err);
    assert_true(mica_stream_next(s, &t));
    mica_model_close(m);
    mica_model_close(m);
    assert_int_equal(atomic_load(&one.unloaded), unloaded); // streams still need it
    assert_null(mica_generate(m, "", 0, NULL, &err));
    assert_string_equal(err.msg, "the model is closed");
    assert_int_equal(mica_model_info(m)->vocab_size, 7);
    assert_false(mica_stream_next(s, &t));
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_CANCELLED);
    assert_int_equal(mica_stream_metrics(s).generated_tokens, 1);
    mica_stream_free(s);
    mica_model_free(m); // before its last stream
    assert_false(mica_stream_next(later, &t));
    mica_stream_free(later);
    assert_int_equal(atomic_load(&one.unloaded), unloaded + 1);
    mica_stream_free(NULL);
    mica_model_close(NULL);
    mica_model_free(NULL);
}

static void *stream_all(void *context) {
    mica_token t;
    for (int i = 0; i < 200; i++) {
        mica_error err = {0};
        mica_stream *s = mica_generate(context, "", 0, &(mica_generate_options){.max_tokens = 50}, &err);
        if (!s) {
            assert_string_equal(err.msg, "the model is closed");
            break;
        }
        while (mica_stream_next(s, &t)) {}
        mica_finish f = mica_stream_finish(s);
        assert_true(f == MICA_FINISH_LENGTH || f == MICA_FINISH_CANCELLED);
        mica_stream_free(s);
    }
    return NULL;
}

static void test_close_while_busy(void **state) {
    (void)state;
    uint64_t live = mica_alloc_get_stats().live;
    int loaded = atomic_load(&one.loaded), unloaded = atomic_load(&one.unloaded);
    for (int round = 0; round < 20; round++) {
        mica_model *m = open_model();
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, stream_all, m), 0);
        mica_model_close(m);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        mica_model_free(m);
    }
    assert_int_equal(atomic_load(&one.loaded) - loaded, 20);
    assert_int_equal(atomic_load(&one.unloaded) - unloaded, 20);
    assert_int_equal(mica_alloc_get_stats().live, live);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_built_in), cmocka_unit_test(test_registering), cmocka_unit_test(test_refusals), cmocka_unit_test(test_default),
        cmocka_unit_test(test_stream), cmocka_unit_test(test_native_only), cmocka_unit_test(test_close), cmocka_unit_test(test_close_while_busy),
        cmocka_unit_test(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
