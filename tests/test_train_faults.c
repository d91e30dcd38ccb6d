// SPDX-License-Identifier: Apache-2.0
// What goes wrong in training and what is left then: losses that are not finite, a disk that is full, refused memory, files and adapters that
// do not fit. And that memory stays flat.
#include "base/file.h"
#include "folder_testing.h"
#include "faults_testing.h"
#include "mica/model.h"
#include "mica/train.h"
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
#define MODEL GOLDEN "models/llama-f32"

static void put_lines(const char *name, const char *text) {
    char path[100];
    snprintf(path, sizeof path, "%s/train.jsonl", name);
    mica_mkdirs(in_folder(name), NULL);
    write_file(path, text);
}

static mica_train_options options(int iters) {
    static const char *const targets[] = {"q_proj", "v_proj"};
    return (mica_train_options){.iters = iters, .batch_size = 2, .rank = 4, .targets = targets, .target_count = 2, .layers = -1, .report_every = 1,
                                .save_every = 1, .seed = 3, .schedule = {.rate = 1e-2}, .threads = 1};
}

static mica_buf contents(const char *name) {
    mica_buf b = {0};
    if (!mica_file_read(in_folder(name), 1 << 24, &b, NULL)) fail_msg("%s: cannot be read", name);
    return b;
}

static void assert_same(const char *a, const char *b) {
    mica_buf x = contents(a), y = contents(b);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    mica_buf_free(&x), mica_buf_free(&y);
}

// Nothing but what a run leaves.
static void assert_no_torn_files(const char *name) {
    char command[300], line[300];
    snprintf(command, sizeof command, "ls -a %s", in_folder(name));
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strstr(line, ".tmp")) fail_msg("left behind: %s", line);
    pclose(f);
}

// ---- losses -----------------------------------------------------------------------------------------------------
// The rate grows until the run diverges: its last checkpoint is of the step before, loads, and goes on with a lower rate.
static void diverging_runs_stop(void **state) {
    (void)state;
    mica_error err = {0};
    mica_train_summary sum;
    mica_train_options o = options(40);
    o.optimizer.name = "sgd", o.schedule = (mica_schedule){.name = "exponential", .rate = 1e-3, .decay = 50}; // "decay" makes it grow
    for (int every = 1; every <= 3; every += 2) {
        o.save_every = every;
        assert_false(mica_train(MODEL, in_folder("data"), in_folder("diverged"), &o, &sum, &err));
        int step = 0, stays = 0;
        const char *tail = strstr(err.msg, "the checkpoint of step ");
        print_message("  %s\n", err.msg);
        assert_int_equal(sscanf(err.msg, "step %d: ", &step), 1);
        assert_non_null(strstr(err.msg, "diverged"));
        assert_non_null(tail);
        assert_int_equal(sscanf(tail, "the checkpoint of step %d stays", &stays), 1);
        assert_true(stays > 0 && stays < step && stays % every == 0 && step - stays <= every);
        mica_model *m = mica_model_load(MODEL, &(mica_load_options){.adapter = in_folder("diverged")}, &err);
        if (!m) fail_msg("%s", err.msg);
        mica_model_free(m);
        mica_train_options again = options(2);
        again.init_adapter = in_folder("diverged"), again.schedule.rate = 1e-6;
        if (!mica_train(MODEL, in_folder("data"), in_folder("again"), &again, &sum, &err)) fail_msg("%s", err.msg);
        assert_true(isfinite(sum.loss));
        mica_remove_flat_dir(in_folder("diverged")), mica_remove_flat_dir(in_folder("again"));
    }
}

// ---- disk ---------------------------------------------------------------------------------------------------------
// Runs in a process that may write no file larger than `most` bytes; the message comes back.
static bool run_limited(const char *out, const mica_train_options *o, rlim_t most, char message[512]) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        mica_error err = {0};
        signal(SIGXFSZ, SIG_IGN); // write fails instead
        if (most) setrlimit(RLIMIT_FSIZE, &(struct rlimit){most, most});
        bool ok = mica_train(MODEL, in_folder("data"), in_folder(out), o, NULL, &err);
        _exit(write(ends[1], err.msg, strlen(err.msg)) < 0 ? 2 : !ok);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], message, 511);
    message[n < 0 ? 0 : n] = 0;
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    return WEXITSTATUS(status) == 0;
}

static void full_disks_lose_nothing(void **state) {
    (void)state;
    char message[512];
    mica_train_options o = options(8), part = options(8);
    assert_true(run_limited("whole", &o, 0, message));
    part.iters = 4;
    assert_true(run_limited("full", &part, 0, message));
    mica_buf saved = contents("full/training-state.safetensors"), adapter = contents("full/adapters.safetensors");
    o.resume = true;
    const rlim_t limits[] = {1, 100, (rlim_t)saved.len / 2, (rlim_t)saved.len - 1};
    for (size_t i = 0; i < MICA_COUNT(limits); i++) {
        assert_false(run_limited("full", &o, limits[i], message));
        if (!strstr(message, "full/training-state.safetensors: ")) fail_msg("%d bytes: %s", (int)limits[i], message);
        mica_buf now = contents("full/training-state.safetensors"), same = contents("full/adapters.safetensors");
        assert_true(now.len == saved.len && !memcmp(now.data, saved.data, saved.len) && same.len == adapter.len && !memcmp(same.data, adapter.data, same.len));
        mica_buf_free(&now), mica_buf_free(&same);
        assert_no_torn_files("full");
    }
    print_message("  %s\n", message);
    assert_true(run_limited("full", &o, 0, message)); // there is room again
    assert_same("full/adapters.safetensors", "whole/adapters.safetensors");
    mica_buf_free(&saved), mica_buf_free(&adapter);
}

// ---- memory ---------------------------------------------------------------------------------------------------------
static bool short_run(mica_error *err) {
    mica_train_options o = options(2);
    o.save_every = -1, o.grad_checkpoint = "auto", o.grad_accumulation = 2;
    return mica_train(MODEL, in_folder("data"), in_folder("refused"), &o, NULL, err);
}

static void any_allocation_may_fail(void **state) {
    (void)state;
    mica_error err = {0};
    if (!short_run(&err)) fail_msg("%s", err.msg);
    uint64_t live = mica_alloc_get_stats().live, n = 1, runs = 0;
    for (bool done = false; !done; n += 1 + n / 24, runs++) done = run_refused(short_run, n, live);
    print_message("  %d of the first %d allocations refused\n", (int)runs, (int)n);
    assert_true(runs > 100);
    mica_train_options o = options(2);
    if (!mica_train(MODEL, in_folder("data"), in_folder("refused"), &o, NULL, &err)) fail_msg("%s", err.msg); // nothing is broken
    assert_no_torn_files("refused");
}

typedef struct flat {
    uint64_t early, late, live;
} flat;

static bool note_memory(void *context, const mica_train_event *e) {
    flat *f = context;
    mica_alloc_stats s = mica_alloc_get_stats();
    if (e->kind == MICA_TRAIN_PROGRESS && e->step == 100) f->early = s.bytes, f->live = s.live;
    if (e->kind == MICA_TRAIN_PROGRESS && e->step == 1000) f->late = s.bytes, f->live = s.live - f->live;
    return true;
}

// A thousand steps over batches of many lengths, with checkpoints and validations.
static void memory_stays_flat(void **state) {
    (void)state;
    mica_error err = {0};
    flat f = {0};
    mica_train_options o = options(1000);
    o.save_every = 250, o.report_every = 100, o.report = note_memory, o.context = &f, o.schedule.rate = 1e-4, o.dropout = 0.1;
    if (!mica_train(MODEL, in_folder("data"), in_folder("flat"), &o, NULL, &err)) fail_msg("%s", err.msg);
    print_message("  %lld bytes after 100 steps, %lld after 1000\n", (long long)f.early, (long long)f.late);
    assert_true(f.late <= f.early + f.early / 50);
}

// ---- what does not fit ------------------------------------------------------------------------------------------------
static void refused(const char *data, const mica_train_options *o, const char *want) {
    mica_error err = {0};
    assert_false(mica_train(MODEL, in_folder(data), in_folder("bad"), o, NULL, &err));
    if (!strstr(err.msg, want)) fail_msg("got \"%s\", want \"%s\"", err.msg, want);
}

static void data_that_cannot_be_used(void **state) {
    (void)state;
    mica_train_options o = options(3);
    put_lines("lines", "");
    refused("lines", &o, "train.jsonl: ");
    put_lines("lines", "\n \n");
    refused("lines", &o, "train.jsonl: ");
    put_lines("lines", "{\"text\":\"one\"}\n{\"text\":\"two\"\n");
    refused("lines", &o, "train.jsonl:2: ");
    put_lines("lines", "{\"text\":\"one\"}\n[1, 2]\n");
    refused("lines", &o, "train.jsonl:2: ");
    put_lines("lines", "{\"text\":5}\n");
    refused("lines", &o, "train.jsonl:1: ");
    put_lines("lines", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}\n"); // this model has no template
    refused("lines", &o, "train.jsonl:1: ");
    put_lines("lines", "{\"text\":\"\"}\n{\"text\":\"\"}\n"); // nothing follows the first token
    refused("lines", &o, "has anything to score");
    o.mask_prompt = "last";
    refused("data", &o, "a text has no prompt");
    o = options(3), o.too_long = "skip", o.max_seq = 2;
    refused("data", &o, "has anything to score");
    assert_false(mica_is_file(in_folder("bad/adapters.safetensors")));
}

// Beyond the context a line is cut, split or left out, and counted.
static void lines_longer_than_the_context(void **state) {
    (void)state;
    static const char *const ways[] = {"truncate", "split", "skip"};
    mica_error err = {0};
    mica_train_summary sum;
    mica_buf text = {0};
    mica_buf_puts(&text, "{\"text\":\"the quick brown fox\"}\n{\"text\":\"");
    for (int i = 0; i < 3000; i++) mica_buf_puts(&text, "lazy dogs ");
    mica_buf_puts(&text, "\"}\n");
    put_lines("lines", text.data);
    mica_buf_free(&text);
    for (size_t i = 0; i < MICA_COUNT(ways); i++) {
        mica_train_options o = options(2);
        o.too_long = ways[i], o.max_seq = 1 << 20, o.batch_size = 1, o.save_every = -1;
        if (!mica_train(MODEL, in_folder("lines"), in_folder("bad"), &o, &sum, &err)) fail_msg("%s: %s", ways[i], err.msg);
        assert_int_equal(sum.long_examples, 1);
        assert_true(isfinite(sum.loss));
    }
}

static void adapters_of_other_models(void **state) {
    (void)state;
    mica_error err = {0};
    mica_train_options o = options(2);
    o.init_adapter = GOLDEN "adapters/peft-embedding"; // Gemma's
    assert_false(mica_train(MODEL, in_folder("data"), in_folder("bad"), &o, NULL, &err));
    print_message("  %s\n", err.msg);
    assert_non_null(strstr(err.msg, "embed_tokens"));
    o.init_adapter = in_folder("nowhere");
    refused("data", &o, "nowhere");
    o = options(2);
    if (!mica_train(MODEL, in_folder("data"), in_folder("resumed"), &o, NULL, &err)) fail_msg("%s", err.msg);
    o.resume = true, o.iters = 4;
    static const char *const want[] = {"with rank=4, not with rank=8", "with dropout=0, not with dropout=0.5", "with dtype=model, not with dtype=f32",
                                       "with kind=lora, not with kind=dora", "other targets", "with clip=0, not with clip=1"};
    mica_train_options changed[] = {o, o, o, o, o, o};
    changed[0].rank = 8, changed[1].dropout = 0.5, changed[2].dtype = "f32", changed[3].kind = "dora", changed[4].layers = 1, changed[5].clip = 1;
    for (size_t i = 0; i < MICA_COUNT(changed); i++) {
        assert_false(mica_train(MODEL, in_folder("data"), in_folder("resumed"), &changed[i], NULL, &err));
        if (!strstr(err.msg, want[i])) fail_msg("got \"%s\", want \"%s\"", err.msg, want[i]);
    }
    assert_false(mica_train(GOLDEN "models/qwen2-f32", in_folder("data"), in_folder("resumed"), &o, NULL, &err));
    assert_non_null(strstr(err.msg, "with other model"));
    put_lines("lines", "{\"text\":\"other data\"}\n");
    assert_false(mica_train(MODEL, in_folder("lines"), in_folder("resumed"), &o, NULL, &err));
    assert_non_null(strstr(err.msg, "with other data"));
    if (!mica_train(MODEL, in_folder("data"), in_folder("resumed"), &o, NULL, &err)) fail_msg("%s", err.msg); // more steps are no other run
}

static int set_up(void **state) {
    (void)state;
    mica_buf text = {0};
    if (!mkdtemp(folder)) return 1;
    for (int i = 0; i < 40; i++) {
        mica_buf_puts(&text, "{\"text\":\"the");
        for (int k = 0; k < 4 + i * 7 % 5; k++) mica_buf_printf(&text, " %d dogs", k);
        mica_buf_puts(&text, "\"}\n");
    }
    put_lines("data", text.data);
    mica_buf_free(&text);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    static const char *const names[] = {"data", "lines", "diverged", "again", "whole", "full", "refused", "flat", "bad", "resumed"};
    for (size_t i = 0; i < MICA_COUNT(names); i++) mica_remove_flat_dir(in_folder(names[i]));
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diverging_runs_stop), cmocka_unit_test(full_disks_lose_nothing), cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(memory_stays_flat), cmocka_unit_test(data_that_cannot_be_used), cmocka_unit_test(lines_longer_than_the_context),
        cmocka_unit_test(adapters_of_other_models),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
