// SPDX-License-Identifier: Apache-2.0
// Sessions: a turn computes only what is new and gives what a fresh run gives, windows included; forks, cutting back, files, failures.
#include "faults_testing.h"
#include "infer/past.h"
#include "mica/session.h"
#include "model_testing.h"
#include "base/file.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
static const char *const models[] = {GOLDEN "models/gemma3-text-f32", GOLDEN "models/llama-f32", GOLDEN "quant/gemma3-4bit", GOLDEN "models/qwen3-bf16"};
enum { F32_MODELS = 2, TOKENS = 24 };

static mica_model *load_kv(const char *path, int32_t kv_bits) {
    return load(path, &(mica_load_options){.threads = 2, .context = 8192, .prefix_cache = -1, .kv_bits = kv_bits});
}

// ---- turns ----------------------------------------------------------------------------------------------------
typedef struct turn {
    int32_t ids[TOKENS];
    float logprobs[TOKENS];
    int64_t cached;
} turn;

// One answer on a session, or on the model alone.
static turn ask(mica_model *m, mica_session *session, const int32_t *ids, size_t n) {
    mica_error err = {0};
    turn t = {0};
    mica_prompt prompt = {.ids = ids, .count = n};
    mica_generate_options o = {.max_tokens = TOKENS, .ignore_eos = true, .logprobs = -1};
    mica_stream *s = session ? mica_session_start(session, &prompt, &o, &err) : mica_start(m, &prompt, &o, &err);
    if (!s) fail_msg("%s", err.msg);
    mica_token token;
    for (int i = 0; i < TOKENS && mica_stream_next(s, &token); i++) t.ids[i] = token.id, t.logprobs[i] = token.logprob;
    if (mica_stream_error(s, &err)) fail_msg("%s", err.msg);
    t.cached = mica_stream_metrics(s).cached_tokens;
    mica_stream_free(s);
    return t;
}

// Tokens are the same; log-probabilities as far apart as rounding of chunks allows.
static void assert_near(const turn *a, const turn *b, float tolerance) {
    assert_memory_equal(a->ids, b->ids, sizeof a->ids);
    for (int i = 0; i < TOKENS; i++)
        if (!(fabsf(a->logprobs[i] - b->logprobs[i]) <= tolerance)) fail_msg("token %d: %g and %g", i, (double)a->logprobs[i], (double)b->logprobs[i]);
}

static void assert_same(const turn *a, const turn *b) {
    assert_memory_equal(a->ids, b->ids, sizeof a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, sizeof a->logprobs);
}

static size_t held(const mica_session *s) {
    size_t n;
    mica_session_ids(s, &n);
    return n;
}

// text [n] gets the answer and `more` new tokens; its new length.
static size_t go_on(const mica_model *m, int32_t *text, size_t n, const turn *t, size_t more, uint32_t seed) {
    memcpy(text + n, t->ids, sizeof t->ids);
    make_ids(m, text + n + TOKENS, more, seed);
    return n + TOKENS + more;
}

static void later_turns_compute_only_what_is_new(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        mica_model *m = load_kv(models[k], 0);
        mica_error err = {0};
        int32_t text[4000];
        size_t n = 2000;
        make_ids(m, text, n, 1);
        mica_session *s = mica_session_new(m, &err);
        assert_non_null(s);
        for (int i = 0; i < 5; i++) {
            turn got = ask(m, s, text, n), fresh = ask(m, NULL, text, n);
            assert_int_equal(got.cached, i ? n - (i == 1 ? 3 : i == 2 ? 30 : 300) - 1 : 0); // all but the last token of the answer
            if (k < F32_MODELS) assert_near(&got, &fresh, 1e-3f);
            else if (!i) assert_same(&got, &fresh);
            assert_int_equal(held(s), n + TOKENS - 1);
            size_t ids_count;
            assert_memory_equal(mica_session_ids(s, &ids_count), text, n * sizeof *text);
            n = go_on(m, text, n, &got, i == 0 ? 3 : i == 1 ? 30 : 300, (uint32_t)i + 7);
        }
        mica_session_free(s);
        assert_int_equal(mica_cache_bytes(&m->lm->cache), 0);
        mica_model_free(m);
    }
}

// An answer is dropped and asked for again, a text goes on in two ways, an earlier turn changes.
static void texts_fork_and_are_cut_back(void **state) {
    (void)state;
    for (size_t k = 0; k < F32_MODELS; k++) {
        mica_model *m = load_kv(models[k], 0);
        mica_error err = {0};
        int32_t text[2000], other[2000];
        size_t n = 300;
        make_ids(m, text, n, 1);
        mica_session *s = mica_session_new(m, &err);
        turn first = ask(m, s, text, n), again = ask(m, s, text, n);
        assert_int_equal(again.cached, 299);
        assert_near(&first, &again, 1e-3f);
        size_t n2 = go_on(m, text, n, &first, 20, 2);
        turn second = ask(m, s, text, n2);
        mica_session *fork = mica_session_fork(s, &err);
        assert_non_null(fork);
        assert_int_equal(held(fork), held(s));
        int32_t pages = m->lm->cache.pool[0].used;
        memcpy(other, text, sizeof text);
        size_t n3 = go_on(m, text, n2, &second, 10, 3), o3 = go_on(m, other, n2, &second, 10, 4);
        turn a = ask(m, s, text, n3), b = ask(m, fork, other, o3), fresh_a = ask(m, NULL, text, n3), fresh_b = ask(m, NULL, other, o3);
        assert_near(&a, &fresh_a, 1e-3f);
        assert_near(&b, &fresh_b, 1e-3f);
        assert_int_equal(b.cached, n2 + TOKENS - 1);
        assert_true(m->lm->cache.pool[0].used <= pages + 8); // the rest is shared
        // Another question in place of the second: what comes before it is there.
        memcpy(other, text, (n + TOKENS) * sizeof *text);
        make_ids(m, other + n + TOKENS, 20, 5);
        turn c = ask(m, s, other, n2), fresh_c = ask(m, NULL, other, n2);
        assert_near(&c, &fresh_c, 1e-3f);
        assert_true(c.cached >= 299);
        assert_true(mica_session_truncate(s, 310, &err));
        assert_true(held(s) >= 299 && held(s) <= 310);
        assert_true(mica_session_truncate(s, 1, &err));
        assert_true(held(s) <= 1);
        turn d = ask(m, s, other, n2);
        assert_same(&d, &fresh_c); // nothing was there: a fresh run
        mica_session_free(fork);
        mica_session_free(s);
        assert_int_equal(mica_cache_bytes(&m->lm->cache), 0);
        mica_model_free(m);
    }
}

static void kept_prefixes_serve_sessions(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = mica_model_load(models[0], &(mica_load_options){.threads = 2, .context = 8192}, &err);
    assert_non_null(m);
    int32_t text[1000];
    make_ids(m, text, 1000, 1);
    turn fresh = ask(m, NULL, text, 1000);
    mica_session *s = mica_session_new(m, &err);
    turn got = ask(m, s, text, 1000);
    assert_int_equal(got.cached, 992);
    assert_same(&got, &fresh);
    mica_session_free(s);
    mica_model_free(m);
}

static void one_call_at_a_time(void **state) {
    (void)state;
    mica_model *m = load_kv(models[0], 0);
    mica_error err = {0};
    int32_t ids[40];
    mica_token t;
    make_ids(m, ids, 40, 1);
    mica_session *s = mica_session_new(m, &err);
    mica_prompt prompt = {.ids = ids, .count = 40};
    mica_stream *a = mica_session_start(s, &prompt, NULL, &err);
    assert_true(mica_stream_next(a, &t));
    assert_null(mica_session_start(s, &prompt, NULL, &err));
    assert_string_equal(err.msg, "the session is in use: free the stream of its earlier call first");
    assert_null(mica_session_fork(s, &err));
    assert_false(mica_session_truncate(s, 0, &err));
    assert_int_equal(held(s), 0);
    mica_stream_cancel(a);
    while (mica_stream_next(a, &t)) {}
    mica_stream_free(a);
    assert_int_equal(held(s), 40);
    a = mica_session_start(s, &prompt, NULL, &err); // one that computes nothing
    mica_stream_free(a);
    assert_int_equal(held(s), 40);
    assert_null(mica_session_start(s, &(mica_prompt){.ids = ids}, NULL, &err));
    assert_int_equal(held(s), 40);
    a = mica_session_start(s, &prompt, NULL, &err); // outlives session and model
    mica_session_free(s);
    mica_model_close(m);
    while (mica_stream_next(a, &t)) {}
    assert_int_equal(mica_stream_finish(a), MICA_FINISH_CANCELLED);
    mica_stream_free(a);
    assert_null(mica_session_new(m, &err));
    mica_model_free(m);
}

// ---- files ------------------------------------------------------------------------------------------------------
static char *temporary(const char *name) { return mica_strf("%s/mica-session-%d-%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid(), name); }

static mica_session *talk(mica_model *m, int32_t *text, size_t *n) {
    mica_error err = {0};
    mica_session *s = mica_session_new(m, &err);
    assert_non_null(s);
    turn t = ask(m, s, text, *n);
    *n = go_on(m, text, *n, &t, 11, 9);
    return s;
}

static void check_file(const char *model, int32_t kv_bits) {
    mica_model *m = load_kv(model, kv_bits), *other = load_kv(model, kv_bits);
    mica_error err = {0};
    int32_t text[1000];
    size_t n = 520;
    make_ids(m, text, n, 1);
    mica_session *s = talk(m, text, &n);
    char *path = temporary("file");
    if (!mica_session_save(s, path, &err)) fail_msg("%s", err.msg);
    mica_session *restored = mica_session_load(other, path, &err);
    if (!restored) fail_msg("%s", err.msg);
    assert_int_equal(held(restored), held(s));
    size_t count;
    assert_memory_equal(mica_session_ids(restored, &count), text, held(s) * sizeof *text);
    turn a = ask(m, s, text, n), b = ask(other, restored, text, n);
    assert_int_equal(a.cached, n - 12);
    assert_int_equal(b.cached, a.cached);
    assert_same(&a, &b);
    mica_session_free(s), mica_session_free(restored);
    assert_int_equal(mica_cache_bytes(&other->lm->cache), 0);
    mica_model_free(m), mica_model_free(other);
    unlink(path);
    mica_free(path);
}

static void a_saved_session_goes_on_identically(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) check_file(models[k], k == 2 ? 8 : 0);
}

// What a process that restored the session prints: the bits of its next answer.
static void print_turn(FILE *f, const turn *t) {
    for (int i = 0; i < TOKENS; i++) fprintf(f, "%d %a\n", (int)t->ids[i], (double)t->logprobs[i]);
}

static int restore_and_print(const char *path) {
    mica_error err = {0};
    mica_model *m = load_kv(models[0], 0);
    mica_session *s = mica_session_load(m, path, &err);
    if (!s) return 1;
    int32_t text[1000];
    size_t n;
    const int32_t *ids = mica_session_ids(s, &n);
    memcpy(text, ids, n * sizeof *text);
    make_ids(m, text + n, 20, 77);
    turn t = ask(m, s, text, n + 20);
    print_turn(stdout, &t);
    mica_session_free(s);
    mica_model_free(m);
    return 0;
}

static void another_process_goes_on_identically(void **state) {
    (void)state;
    mica_model *m = load_kv(models[0], 0);
    mica_error err = {0};
    int32_t text[1000];
    size_t n = 520, count;
    make_ids(m, text, n, 1);
    mica_session *s = talk(m, text, &n);
    char *path = temporary("process"), self[500] = "";
    assert_true(mica_session_save(s, path, &err));
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    char *command = mica_strf("'%s' restore '%s'", self, path), got[4000] = "", want[4000] = "";
    mica_session_ids(s, &count);
    make_ids(m, text + count, 20, 77);
    turn t = ask(m, s, text, count + 20);
    FILE *f = fmemopen(want, sizeof want, "w");
    print_turn(f, &t);
    fclose(f);
    f = popen(command, "r");
    assert_non_null(f);
    got[fread(got, 1, sizeof got - 1, f)] = 0;
    assert_int_equal(pclose(f), 0);
    assert_string_equal(got, want);
    mica_session_free(s);
    mica_model_free(m);
    unlink(path);
    mica_free(command), mica_free(path);
}

static void *file_bytes(const char *path, size_t *size) {
    mica_buf b = {0};
    mica_error err = {0};
    if (!mica_file_read(path, 1 << 26, &b, &err)) fail_msg("%s", err.msg);
    *size = b.len;
    void *copy = memcpy(malloc(b.len), b.data, b.len);
    mica_buf_free(&b);
    return copy;
}

static void refuse(mica_model *m, const unsigned char *bytes, size_t size, const char *why) {
    mica_error err = {0};
    unsigned char *exact = memcpy(malloc(size ? size : 1), bytes, size); // so that a sanitizer sees a read past the end
    mica_past *p = mica_past_parse(m->lm, exact, size, "FILE", &err);
    if (p || !strstr(err.msg, why)) fail_msg("%zu bytes: \"%s\" instead of \"%s\"", size, p ? "accepted" : err.msg, why);
    free(exact);
}

static void other_files_are_refused(void **state) {
    (void)state;
    mica_model *m = load_kv(models[0], 0), *bf16 = load_kv(GOLDEN "models/gemma3-text-bf16", 0), *codes = load_kv(models[0], 8), *llama = load_kv(models[1], 0);
    mica_error err = {0};
    int32_t text[400];
    size_t n = 100, size;
    make_ids(m, text, n, 1);
    mica_session *s = talk(m, text, &n);
    char *path = temporary("refused");
    assert_true(mica_session_save(s, path, &err));
    unsigned char *bytes = file_bytes(path, &size);
    refuse(llama, bytes, size, "FILE: a session of another model");
    refuse(bf16, bytes, size, "another model");
    refuse(codes, bytes, size, "kv_bits");
    mica_model *small = mica_model_load(models[0], &(mica_load_options){.threads = 2, .context = 64}, &err);
    refuse(small, bytes, size, "123 tokens, the context is 64");
    for (size_t cut = 0; cut < size; cut += cut < 300 ? 1 : 997) refuse(m, bytes, cut, cut < 8 ? "not a session" : "");
    for (size_t at = 0; at < size; at += at < 300 ? 1 : 101) {
        bytes[at] ^= 0x41;
        refuse(m, bytes, size, at < 8 ? "not a session file" : at < 12 ? "version" : "");
        bytes[at] ^= 0x41;
    }
    const size_t ids_at = 112; // after the header; with a right checksum
    assert_memory_equal(bytes + ids_at, text, 100 * sizeof *text);
    bytes[ids_at + 3] = 1;
    mica_past_seal(bytes, size);
    refuse(m, bytes, size, "FILE: token id 16777");
    assert_false(mica_session_save(s, "/nowhere/at/all", &err));
    assert_non_null(strstr(err.msg, "/nowhere/at/all"));
    assert_null(mica_session_load(m, "/nowhere/at/all", &err));
    mica_session_free(s);
    mica_session *empty = mica_session_new(m, &err);
    assert_true(mica_session_save(empty, path, &err));
    mica_session *back = mica_session_load(m, path, &err);
    if (!back) fail_msg("%s", err.msg);
    assert_int_equal(held(back), 0);
    mica_session_free(empty), mica_session_free(back);
    mica_model_free(m), mica_model_free(bf16), mica_model_free(codes), mica_model_free(llama), mica_model_free(small);
    unlink(path);
    mica_free(path);
    free(bytes);
}

// ---- failures -----------------------------------------------------------------------------------------------------
static mica_model *faulty;
static char *fault_path;

static bool talk_and_save(mica_error *err) {
    int32_t ids[70];
    make_ids(faulty, ids, 70, 1);
    mica_session *s = mica_session_new(faulty, err), *fork = NULL, *back = NULL;
    bool ok = s != NULL;
    for (int i = 0; ok && i < 2; i++) {
        mica_stream *a = mica_session_start(s, &(mica_prompt){.ids = ids, .count = 60 + (size_t)i * 5}, &(mica_generate_options){.max_tokens = 3, .ignore_eos = true}, err);
        mica_token t;
        while (a && mica_stream_next(a, &t)) {}
        ok = a && !mica_stream_error(a, err);
        mica_stream_free(a);
    }
    ok = ok && (fork = mica_session_fork(s, err)) && mica_session_save(fork, fault_path, err) && (back = mica_session_load(faulty, fault_path, err));
    mica_session_free(s), mica_session_free(fork), mica_session_free(back);
    mica_device_clear_cache(faulty->lm->device);
    return ok;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    mica_error err = {0};
    faulty = load_kv(models[0], 0);
    fault_path = temporary("faults");
    if (!talk_and_save(&err)) fail_msg("%s", err.msg);
    uint64_t live = mica_alloc_get_stats().live, n = 1;
    for (bool ok = false; !ok; n++) ok = run_refused(talk_and_save, n, live);
    print_message("  %d allocations\n", (int)n);
    assert_int_equal(mica_cache_bytes(&faulty->lm->cache), 0);
    unlink(fault_path);
    mica_free(fault_path);
    mica_model_free(faulty);
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "restore")) return restore_and_print(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(later_turns_compute_only_what_is_new), cmocka_unit_test(texts_fork_and_are_cut_back),
        cmocka_unit_test(kept_prefixes_serve_sessions), cmocka_unit_test(one_call_at_a_time),
        cmocka_unit_test(a_saved_session_goes_on_identically), cmocka_unit_test(another_process_goes_on_identically), cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
