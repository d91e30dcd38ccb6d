// SPDX-License-Identifier: Apache-2.0
// labels: slow no_sanitizer
// The memory that training takes, as the system counts it, against what was predicted before the first step: on real checkpoints, where they
// are at hand ($MICA_TEST_MODELS or the cache's models), each run in a process of its own.
#include "base/base.h"
#include "base/file.h"
#include "folder_testing.h"
#include "real_testing.h"
#include "mica/train.h"
#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int64_t status_bytes(const char *key) {
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0) sscanf(line + strlen(key), ": %lld", &kib);
    if (f) fclose(f);
    return kib * 1024;
}

typedef struct result {
    bool ok;
    int64_t predicted, measured;
    char message[512];
} result;

static result run(const char *model, mica_train_options o) {
    int pipe_ends[2];
    result r = {0};
    assert_int_equal(pipe(pipe_ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        mica_error err = {0};
        mica_train_summary sum = {0};
        int64_t before = status_bytes("VmRSS");
        o.threads = 2;
        r.ok = mica_train(model, in_folder("data"), in_folder("out"), &o, &sum, &err);
        r.predicted = sum.predicted_memory_bytes;
        r.measured = status_bytes("VmHWM") - before;
        snprintf(r.message, sizeof r.message, "%s", err.msg);
        _exit(write(pipe_ends[1], &r, sizeof r) != (ssize_t)sizeof r);
    }
    close(pipe_ends[1]);
    ssize_t got = read(pipe_ends[0], &r, sizeof r);
    close(pipe_ends[0]);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(got, sizeof r);
    return r;
}

// Lines of 60 to 400 words.
static void write_data(void) {
    static const char *const words[] = {"the", "river", "was", "slow", "and", "under", "bridge", "of", "stone", "seven", "boats", "lay", "waiting", "for", "rain"};
    mica_mkdirs(in_folder("data"), NULL);
    FILE *f = fopen(in_folder("data/train.jsonl"), "w");
    assert_non_null(f);
    unsigned long at = 1;
    for (int i = 0; i < 60; i++) {
        fputs("{\"text\":\"", f);
        for (int n = 60 + i * 37 % 340; n--;) at = (at * 1103515245 + 12345) % 2147483648UL, fprintf(f, "%s ", words[at / 1000 % MICA_COUNT(words)]);
        fputs("\"}\n", f);
    }
    fclose(f);
}

typedef struct trial {
    const char *name, *model;
    mica_train_options o;
} trial;

static void the_peak_is_predicted(void **state) {
    (void)state;
    static const char *const qv[] = {"q_proj", "v_proj"};
    mica_train_options o = {.iters = 3, .batch_size = 2, .max_seq = 256, .layers = -1, .schedule = {.rate = 1e-5}};
    mica_train_options lora = o, all = o, full = o, sgd = o, narrow = o, dora = o;
    lora.targets = qv, lora.target_count = 2;
    dora.kind = "dora", dora.targets = qv, dora.target_count = 2;
    full.kind = narrow.kind = sgd.kind = "full";
    sgd.optimizer.name = "sgd", sgd.dtype = "f32", narrow.dtype = "bf16";
    const trial trials[] = {
        {"LoRA, q and v", "smollm2-135m-bf16", lora}, {"QLoRA, q and v", "smollm2-135m-4bit", lora}, {"LoRA", "smollm2-135m-bf16", all},
        {"QLoRA", "smollm2-135m-4bit", all}, {"DoRA, q and v", "smollm2-135m-bf16", dora}, {"LoRA", "gemma3-270m-bf16", all},
        {"QLoRA", "gemma3-270m-4bit", all}, {"full, f32, SGD", "smollm2-135m-bf16", sgd}, {"full", "smollm2-135m-bf16", full},
        {"full, bf16", "smollm2-135m-bf16", narrow}, {"full", "gemma3-270m-bf16", full}};
    int bad = 0, done = 0;
    const char *only = getenv("MICA_TEST_ONLY"); // part of a model's name
    for (size_t i = 0; i < MICA_COUNT(trials) * 2; i++) {
        if (only && !strstr(trials[i / 2].model, only)) continue;
        const trial *t = &trials[i / 2];
        char *model = find_model(t->model);
        if (!model) continue;
        mica_train_options with = t->o;
        with.grad_checkpoint = i % 2 ? "on" : "off";
        result r = run(model, with);
        mica_free(model);
        if (!r.ok) fail_msg("%s: %s", t->name, r.message);
        double error = (double)r.predicted / (double)r.measured - 1;
        print_message("  %-18s %-14s checkpointing %-3s: predicted %6.1f MB, measured %6.1f MB (%+.1f%%)\n", t->model, t->name, with.grad_checkpoint, (double)r.predicted * 1e-6,
                      (double)r.measured * 1e-6, error * 100);
        bad += fabs(error) > 0.1;
        done++;
    }
    if (!done) print_message("  no models: set MICA_TEST_MODELS to a folder of them\n");
    assert_int_equal(bad, 0);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return 1;
    write_data();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    mica_remove_flat_dir(in_folder("data"));
    mica_remove_flat_dir(in_folder("out"));
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_peak_is_predicted)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
