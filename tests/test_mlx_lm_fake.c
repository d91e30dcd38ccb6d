// SPDX-License-Identifier: Apache-2.0
// labels: threads
// The backend mlx_lm against a process that misbehaves in every way that could be thought of (fake_mlx_lm.c): each call must return, say what
// happened, and leave nothing behind; the next call must work.
#include "backend/mlx_lm/server.h"
#include "base/base.h"
#include <stdatomic.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static const char model_path[] = MICA_SOURCE_DIR "/tests/golden/models/llama-f32";
static char folder[] = "/tmp/mica-fake-XXXXXX";
static mica_mlx_limits limits = {.silence = 20, .patience = 20, .load = 20, .probe = 20};

// ---- helpers ------------------------------------------------------------------------------------------------
// A link to the fake whose name asks for a way to start.
static const char *fake(const char *start) {
    static char path[256];
    snprintf(path, sizeof path, "%s/python-%s", folder, start);
    if (access(path, F_OK)) assert_int_equal(symlink(MICA_BINARY_DIR "/tests/fake_mlx_lm", path), 0);
    return path;
}

static mica_model *load_as(const char *start, mica_error *err) {
    return mica_model_load(model_path, &(mica_load_options){.backend = "mlx_lm", .python = fake(start)}, err);
}

static mica_model *load(void) {
    mica_error err = {0};
    mica_model *m = load_as("plain", &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static mica_stream *begin(mica_model *m, const char *scenario, int most) {
    mica_error err = {0};
    mica_stream *s = mica_generate(m, scenario, strlen(scenario), &(mica_generate_options){.max_tokens = most}, &err);
    if (!s) fail_msg("%s: %s", scenario, err.msg);
    return s;
}

static int count_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void assert_no_children(void) {
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

// Takes all tokens and gives their number; the reason and the error of the end.
static int take_all(mica_stream *s, mica_finish *finish, mica_error *err) {
    int n = 0;
    *err = (mica_error){0};
    for (mica_token t; mica_stream_next(s, &t);) n += t.id >= 0;
    *finish = mica_stream_finish(s);
    assert_int_equal(mica_stream_error(s, err), *finish == MICA_FINISH_ERROR);
    mica_stream_free(s);
    return n;
}

static void assert_works(mica_model *m) {
    mica_finish finish;
    mica_error err;
    int n = take_all(begin(m, "plain", 5), &finish, &err);
    if (n != 5 || finish != MICA_FINISH_LENGTH) fail_msg("%d tokens, %s: %s", n, mica_finish_name(finish), err.msg);
}

// ---- the check, and loading ---------------------------------------------------------------------------------
static void test_interpreters(void **state) {
    (void)state;
    static const struct { const char *start, *said[2]; } cases[] = {
        {"old", {"0.10.0", "pip install -U mlx-lm"}}, {"none", {"No module named 'mlx_lm'", "-m pip install mlx-lm"}}, {"odd", {"does not answer", ""}},
        {"probe_hang", {"did not end within 1 seconds", ""}}, {"probe_exit", {"status 3", "no such thing as -c"}},
        {"start_hang", {"no sign of life", ""}}, {"start_exit", {"status 4", "cannot be"}}, {"start_error", {"mlx is broken", ""}},
        {"start_mute", {"gone", ""}}, {"version", {"version 2", ""}}, {"load_exit", {"status 5", "MemoryError"}}, {"load_error", {"Model type odd", ""}},
        {"load_odd", {"vocab_size", ""}}, {"load_hang", {"no progress", ""}}};
    mica_mlx_limits before = limits;
    uint64_t live = mica_alloc_get_stats().live;
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        mica_error err = {0};
        limits = (mica_mlx_limits){.silence = 0.5, .patience = 1, .load = 1, .probe = strcmp(cases[i].start, "probe_hang") ? 20 : 1};
        if (load_as(cases[i].start, &err)) fail_msg("%s: loaded", cases[i].start);
        for (int k = 0; k < 2; k++)
            if (!strstr(err.msg, cases[i].said[k])) fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].start, err.msg, cases[i].said[k]);
        assert_no_children();
    }
    limits = before;
    assert_int_equal(mica_alloc_get_stats().live, live);
    mica_error err = {0};
    assert_null(mica_model_load(model_path, &(mica_load_options){.backend = "mlx_lm", .python = "/no/such/python"}, &err));
    assert_non_null(strstr(err.msg, "/no/such/python"));
    assert_null(mica_model_load("/no/such/folder", &(mica_load_options){.backend = "mlx_lm", .python = fake("plain")}, &err));
    assert_non_null(strstr(err.msg, "/no/such/folder"));
}

static void test_starts(void **state) {
    (void)state;
    static const char *const starts[] = {"slow", "banner"};
    for (size_t i = 0; i < MICA_COUNT(starts); i++) {
        mica_error err = {0};
        mica_model *m = load_as(starts[i], &err);
        if (!m) fail_msg("%s: %s", starts[i], err.msg);
        assert_works(m);
        mica_model_free(m);
    }
}

static void test_choice_of_interpreter(void **state) {
    (void)state;
    mica_error err = {0};
    mica_load_options o = {.backend = "mlx_lm"};
    setenv("MICA_PYTHON", fake("none"), 1);
    assert_null(mica_model_load(model_path, &o, &err));
    assert_non_null(strstr(err.msg, "backend \"mlx_lm\" not available on this hardware"));
    assert_non_null(strstr(err.msg, "python-none"));
    setenv("MICA_PYTHON", fake("plain"), 1);
    mica_model *m = mica_model_load(model_path, &o, &err);
    assert_non_null(m);
    mica_model_free(m);
    unsetenv("MICA_PYTHON");
    char path[300];
    snprintf(path, sizeof path, "%s/bin", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/bin/python", folder);
    assert_int_equal(symlink(MICA_BINARY_DIR "/tests/fake_mlx_lm", path), 0);
    setenv("VIRTUAL_ENV", folder, 1);
    m = mica_model_load(model_path, &o, &err);
    if (!m) fail_msg("%s", err.msg);
    mica_model_free(m);
    unsetenv("VIRTUAL_ENV");
    unlink(path);
    snprintf(path, sizeof path, "%s/bin", folder);
    rmdir(path);
    char *before = strdup(getenv("PATH"));
    setenv("PATH", "/no/such/bin", 1);
    assert_null(mica_model_load(model_path, &o, &err));
    assert_non_null(strstr(err.msg, "no python3 in PATH"));
    setenv("PATH", before, 1);
    free(before);
}

static void test_options(void **state) {
    (void)state;
    static const struct { mica_load_options options; const char *name; } loads[] = {
        {{.threads = 2}, "threads"}, {{.kv_bits = 8}, "kv_bits"}, {{.activations = "int8"}, "activations"}, {{.cpu_level = "ref"}, "cpu_level"},
        {{.device = "tpu"}, "device"}, {{.context = -1}, "context"}};
    static const mica_logit_bias outside = {100000, 1};
    static const struct { mica_generate_options options; const char *name; } calls[] = {
        {{.speculate = 3}, "speculate"}, {{.order = "top_k,temperature"}, "order"}, {{.top_p = 3}, "top_p"}, {{.max_tokens = -1}, "max_tokens"},
        {{.logit_bias = &outside, .logit_bias_count = 1}, "logit_bias"}};
    mica_error err = {0};
    for (size_t i = 0; i < MICA_COUNT(loads); i++) {
        mica_load_options o = loads[i].options;
        o.backend = "mlx_lm", o.python = fake("plain");
        assert_null(mica_model_load(model_path, &o, &err));
        if (!strstr(err.msg, loads[i].name)) fail_msg("%s: %s", loads[i].name, err.msg);
    }
    mica_model *m = load();
    for (size_t i = 0; i < MICA_COUNT(calls); i++) {
        assert_null(mica_generate(m, "plain", 5, &calls[i].options, &err));
        if (!strstr(err.msg, calls[i].name)) fail_msg("%s: %s", calls[i].name, err.msg);
    }
    mica_model_free(m);
}

// ---- answers ------------------------------------------------------------------------------------------------
static void test_tokens(void **state) {
    (void)state;
    mica_model *m = load();
    mica_error err = {0};
    char text[256] = "";
    mica_stream *s = mica_generate(m, "plain", 5, &(mica_generate_options){.max_tokens = 4, .logprobs = 2}, &err);
    mica_token t;
    for (int n = 1; n <= 4; n++) {
        assert_true(mica_stream_next(s, &t));
        assert_int_equal(t.id, n);
        assert_true(t.logprob == -0.5f && t.top_count == 2 && t.top[0].id == n && t.top[1].id == 7);
        strcat(text, t.text);
    }
    assert_true(mica_stream_next(s, &t));
    assert_int_equal(t.id, -1);
    strcat(text, t.text);
    assert_string_equal(text, "t1 t2 t3 t4 end");
    assert_false(mica_stream_next(s, &t));
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_LENGTH);
    mica_metrics k = mica_stream_metrics(s);
    assert_int_equal(k.generated_tokens, 4);
    assert_int_equal(k.prompt_tokens, 1);
    assert_int_equal(k.peak_memory_bytes, 20);
    assert_true(k.prefill_seconds > 0 && k.decode_tokens_per_second > 999 && k.decode_tokens_per_second < 1001);
    mica_stream_free(s);
    static const char *const stops[] = {"3 t", "never"};
    s = mica_generate(m, "plain", 5, &(mica_generate_options){.stop = stops, .stop_count = 2}, &err);
    for (text[0] = 0; mica_stream_next(s, &t);) strcat(text, t.text);
    assert_string_equal(text, "t1 t2 t");
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_STOP);
    mica_stream_free(s);
    assert_works(m);
    mica_model_free(m);
}

static void test_misbehaviour(void **state) {
    (void)state;
    static const struct { const char *scenario; int tokens; const char *said[2]; } cases[] = {
        {"garbage", 8, {0}}, {"pieces", 8, {0}}, {"stderr", 8, {0}}, {"plain", 8, {0}},
        {"exit", 2, {"status 3", "I am leaving"}}, {"done", 2, {"it ended", ""}}, {"kill", 2, {"signal 9", ""}}, {"mute", 2, {"gone", ""}},
        {"huge", 2, {"64 MiB", ""}}, {"broken", 2, {"mlx_lm answer", ""}}, {"types", 2, {"token", "integer"}}, {"range", 2, {"123456789", ""}},
        {"version", 2, {"version 3", ""}}, {"late", 2, {"out of memory", ""}}, {"stderr_exit", 1, {"status 6", "the last words"}},
        {"silent", 2, {"no progress for 3 seconds", ""}}, {"freeze", 2, {"no sign of life for 1.5 seconds", ""}}, {"deaf", 2, {"no sign of life", ""}}};
    mica_mlx_limits before = limits;
    limits.silence = 1.5, limits.patience = 3;
    mica_model *m = load();
    limits = before;
    int fds = count_fds();
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        const char *scenario = cases[i].scenario;
        mica_finish finish;
        mica_error err;
        int n = take_all(begin(m, scenario, 8), &finish, &err);
        if (n != cases[i].tokens) fail_msg("%s: %d tokens, %s", scenario, n, err.msg);
        if ((finish == MICA_FINISH_ERROR) != (cases[i].said[0] != NULL)) fail_msg("%s: %s %s", scenario, mica_finish_name(finish), err.msg);
        for (int k = 0; k < 2 && cases[i].said[0]; k++)
            if (!strstr(err.msg, cases[i].said[k])) fail_msg("%s: \"%s\" does not say \"%s\"", scenario, err.msg, cases[i].said[k]);
        assert_works(m);
        assert_int_equal(count_fds(), fds);
    }
    mica_error err = {0};
    assert_null(mica_generate(m, "refuse", 6, NULL, &err));
    assert_int_equal(err.code, MICA_ERR_ARGUMENT);
    assert_non_null(strstr(err.msg, "TemplateError"));
    assert_works(m);
    mica_model_free(m);
    assert_no_children();
}

// A reader that takes its time gets everything; one that leaves does not disturb the others.
static void test_several(void **state) {
    (void)state;
    mica_model *m = load(), *other = load();
    mica_stream *s[40];
    for (int i = 0; i < 40; i++) s[i] = begin(i % 2 ? m : other, "plain", 300);
    mica_token t;
    for (int i = 0; i < 40; i++) assert_true(mica_stream_next(s[i], &t));
    for (int i = 0; i < 40; i += 3) mica_stream_cancel(s[i]);
    for (int i = 0; i < 40; i++) {
        mica_finish finish;
        mica_error err;
        int n = take_all(s[i], &finish, &err) + 1;
        if (i % 3 == 0) assert_int_equal(finish, MICA_FINISH_CANCELLED);
        else assert_int_equal(n, 300);
    }
    mica_stream *open = begin(m, "slow", 1000);
    assert_true(mica_stream_next(open, &t));
    mica_model_close(m);
    assert_false(mica_stream_next(open, &t));
    assert_int_equal(mica_stream_finish(open), MICA_FINISH_CANCELLED);
    mica_model_free(m);
    mica_stream_free(open);
    mica_model_free(other);
    assert_no_children();
}

// Rows of a batch: more than are computed together, one that is refused, one that breaks all that are under way; those that wait are answered by the next
// process.
static void test_batch(void **state) {
    (void)state;
    enum { ROWS = 12, REFUSED = 3, BREAKS = 7 };
    mica_model *m = load();
    mica_error err = {0};
    for (int breaks = 0; breaks < 2; breaks++) {
        mica_batch *b = mica_batch_new(m, &(mica_batch_options){.rows = 2}, &err);
        assert_non_null(b);
        int tokens[ROWS] = {0}, ends[ROWS] = {0}, ok = 0;
        for (int i = 0; i < ROWS; i++) {
            const char *text = i == REFUSED ? "refuse" : i == BREAKS && breaks ? "exit" : "plain";
            assert_int_equal(mica_batch_add(b, &(mica_prompt){.text = text, .length = strlen(text)}, &(mica_generate_options){.max_tokens = 10 + i}, &err), i);
        }
        mica_batch_cancel(b, ROWS - 1);
        for (mica_batch_event e; mica_batch_next(b, &e);) {
            assert_int_equal(ends[e.row], 0);
            tokens[e.row] += e.token.id >= 0;
            ends[e.row] = (int)e.finish;
        }
        for (int i = 0; i < ROWS; i++) {
            ok += ends[i] == MICA_FINISH_LENGTH && tokens[i] == 10 + i && mica_batch_metrics(b, i).generated_tokens == 10 + i;
            assert_int_equal(mica_batch_error(b, i, &err), ends[i] == MICA_FINISH_ERROR);
        }
        assert_int_equal(ends[REFUSED], MICA_FINISH_ERROR);
        assert_int_equal(ends[ROWS - 1], MICA_FINISH_CANCELLED);
        assert_true(breaks ? ok >= ROWS - 4 : ok == ROWS - 2);
        mica_batch_free(b);
    }
    assert_null(mica_batch_new(m, &(mica_batch_options){.invariant = true}, &err));
    assert_non_null(strstr(err.msg, "invariant"));
    mica_model_free(m);
}

static void test_classify(void **state) {
    (void)state;
    static const char *const texts[] = {"one", "two", "bad", "three"}, *const labels[] = {"no", "yes"};
    mica_model *m = load();
    mica_error err = {0};
    mica_classes c;
    assert_true(mica_classify(m, texts, 4, &(mica_classify_options){.labels = labels, .label_count = 2, .calibrate = true}, &c, &err));
    assert_int_equal(c.items[0].label, 1);
    assert_string_equal(c.items[0].text, "yes");
    assert_true(c.items[0].logprobs[0] == -1 && c.items[0].probabilities[1] > 0.98); // -2 + 6 against -1 + 1
    assert_int_equal(c.items[2].label, -1);
    assert_non_null(strstr(c.items[2].error.msg, "no good"));
    assert_int_equal(c.items[3].error.code, 0);
    mica_classes_free(&c);
    static const char *const dies[] = {"one", "die", "two"};
    assert_true(mica_classify(m, dies, 3, &(mica_classify_options){.labels = labels, .label_count = 2}, &c, &err));
    assert_int_equal(c.items[0].label, 1);
    assert_non_null(strstr(c.items[1].error.msg, "gone"));
    assert_int_equal(c.items[2].label, -1);
    mica_classes_free(&c);
    assert_works(m);
    mica_model_free(m);
}

// ---- kill -9 ------------------------------------------------------------------------------------------------
static mica_model *victim;
static atomic_long victim_pid;
static atomic_bool stopping;
static atomic_int answered, failed;

static void *keep_asking(void *unused) {
    while (!atomic_load(&stopping)) {
        mica_error err = {0};
        mica_stream *s = mica_generate(victim, "slow", 4, &(mica_generate_options){.max_tokens = 20}, &err);
        if (!s) {
            atomic_fetch_add(&failed, 1);
            continue;
        }
        mica_finish finish;
        size_t count;
        atomic_store(&victim_pid, mica_stream_prompt(s, &count)[0]);
        take_all(s, &finish, &err);
        if (finish == MICA_FINISH_ERROR && !err.msg[0]) fail_msg("an error without a message");
        atomic_fetch_add(finish == MICA_FINISH_LENGTH ? &answered : &failed, 1);
    }
    return unused;
}


static void test_kills(void **state) {
    (void)state;
    enum { THREADS = 4, KILLS = 100 };
    pthread_t threads[THREADS];
    signal(SIGPIPE, SIG_DFL); // would end this test
    int fds = count_fds();
    uint64_t live = mica_alloc_get_stats().live;
    victim = load();
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, keep_asking, NULL), 0);
    unsigned random = 12345;
    for (int i = 0; i < KILLS; i++) {
        random = random * 1103515245u + 12345u;
        nanosleep(&(struct timespec){.tv_nsec = (long)(random >> 16) % 30 * 1000 * 1000}, NULL);
        long pid = atomic_load(&victim_pid);
        char path[64], name[32] = "";
        snprintf(path, sizeof path, "/proc/%ld/comm", pid); // it must still be what it was
        FILE *f = pid ? fopen(path, "r") : NULL;
        if (f && fgets(name, sizeof name, f) && !strncmp(name, "python-plain", 12)) kill((pid_t)pid, SIGKILL);
        if (f) fclose(f);
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_works(victim);
    mica_model_free(victim);
    assert_no_children();
    assert_int_equal(count_fds(), fds);
    assert_int_equal(mica_alloc_get_stats().live, live);
    assert_true(atomic_load(&failed) > 10);
}

// The child has only its own three descriptors, its own session, and ordinary signals.
static void test_child_is_clean(void **state) {
    (void)state;
    int leaked = open("/dev/null", 0);
    signal(SIGUSR1, SIG_IGN);
    mica_model *m = load();
    mica_stream *s = begin(m, "plain", 1);
    size_t count;
    long pid = mica_stream_prompt(s, &count)[0];
    char path[64], line[256];
    int fds = 0;
    snprintf(path, sizeof path, "/proc/%ld/fd", pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) fds += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(fds, 3);
    assert_int_equal(getsid((pid_t)pid), pid);
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *f = fopen(path, "r");
    const unsigned long long own = 3ull << 31; // 32 and 33 are the C library's; threads that a sanitizer starts have one of them blocked
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "SigIgn:", 7) || !strncmp(line, "SigBlk:", 7)) assert_int_equal(strtoull(line + 7, NULL, 16) & ~own, 0);
    if (f) fclose(f);
    mica_stream_free(s);
    mica_model_free(m);
    close(leaked);
}

static int set_up(void **state) {
    (void)state;
    unsetenv("MICA_PYTHON");
    unsetenv("VIRTUAL_ENV");
    mica_backend b = mica_backend_mlx_lm;
    b.context = &limits;
    return !mkdtemp(folder) || !mica_backend_register(&b, NULL);
}

static int tear_down(void **state) {
    (void)state;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
    }
    if (d) closedir(d);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interpreters), cmocka_unit_test(test_starts), cmocka_unit_test(test_choice_of_interpreter), cmocka_unit_test(test_options),
        cmocka_unit_test(test_tokens), cmocka_unit_test(test_misbehaviour), cmocka_unit_test(test_several), cmocka_unit_test(test_batch), cmocka_unit_test(test_classify),
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_child_is_clean),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
