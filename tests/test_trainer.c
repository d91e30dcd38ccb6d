// SPDX-License-Identifier: Apache-2.0
// The trainer: trajectories against PyTorch (tests/oracle/make_trajectories.py), accumulation, checkpoints saved and restored to the bit,
// losses that are not finite.
// labels: threads
#include "base/base.h"
#include "base/file.h"
#include "io/adapter.h"
#include "io/safetensors.h"
#include "mica/ops.h"
#include "train/trainer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"
enum { STEPS = 10, ROWS = 2, T = 16 };

static mica_device *device;

static mica_net *load(const char *folder) {
    mica_error err = {0};
    mica_model_files *files = mica_checkpoint_open(folder, &err);
    mica_net *net = files ? mica_net_load(files, &(mica_net_options){.separate = true}, device, &err) : NULL;
    if (!net) fail_msg("%s", err.msg);
    return net;
}

typedef struct trial { // one golden run
    mica_safetensors *golden;
    mica_net *net;
    mica_trainer t;
} trial;

static const mica_stored *find(const mica_safetensors *t, const char *key) {
    const mica_stored *v = mica_safetensors_find(t, key);
    if (!v) fail_msg("no %s", key);
    return v;
}

// The golden run's own initial adapters.
static void set_adapters(trial *r) {
    mica_error err = {0};
    mica_scope *s = mica_scope_new(device, &err);
    for (size_t i = 0; i < r->t.params.count; i++) {
        char key[200];
        snprintf(key, sizeof key, "init.%s", r->t.params.items[i].name);
        const mica_stored *v = mica_safetensors_find(r->golden, key);
        if (!v) continue;
        mica_array *a = mica_keep(s, mica_from_data(s, v->data, v->ndim, v->shape, v->dtype), &err), **place = r->t.params.items[i].place;
        assert_memory_equal(mica_shape(a), mica_shape(*place), (size_t)mica_ndim(a) * sizeof(int64_t));
        mica_array_free(*place);
        *place = a;
        mica_scope_reset(s);
    }
    mica_scope_free(s);
}

static const mica_train_options adamw = {.optimizer = {.name = "adamw", .weight_decay = 0.01}, .clip = 1,
                                         .schedule = {.name = "cosine", .rate = 5e-3, .steps = 10, .warmup = 2}};

static void start(trial *r, const char *name, const char *base, bool full, const mica_train_options *o) {
    bool dora = strncmp(name, "dora", 4) == 0;
    static const char *const targets[] = {"q_proj", "v_proj"};
    char path[300];
    mica_error err = {0};
    mica_parameters p = {0};
    snprintf(path, sizeof path, GOLDEN "trajectories/%s.safetensors", name);
    r->golden = mica_safetensors_open(path, &err);
    if (!r->golden) fail_msg("%s", err.msg);
    snprintf(path, sizeof path, GOLDEN "%s", base);
    r->net = load(path);
    if (!full && !mica_lora_attach(r->net, &(mica_lora_spec){.rank = 4, .scale = 2, .targets = targets, .target_count = 2, .layers = -1, .dora = dora}, &err))
        fail_msg("%s", err.msg);
    if (!(full ? mica_parameters_add_weights : mica_parameters_add_adapters)(r->net, &p, &err)) fail_msg("%s", err.msg);
    if (!mica_trainer_init(&r->t, r->net, p, o, &err)) fail_msg("%s", err.msg);
    set_adapters(r);
}

static void finish(trial *r) {
    mica_trainer_free(&r->t);
    mica_net_free(r->net);
    mica_safetensors_free(r->golden);
}

// Batch of a step: ROWS segments of T tokens; the last token of each predicts nothing.
static mica_text_batch batch_of(const trial *r, int step, int first, int rows) {
    static int32_t ids[ROWS * T], targets[ROWS * T], lengths[ROWS];
    static float weights[ROWS * T];
    const int32_t *all = find(r->golden, "ids")->data; // [STEPS, ROWS, T + 1]
    for (int k = 0; k < rows; k++) {
        const int32_t *row = all + (step * ROWS + first + k) * (T + 1);
        memcpy(ids + k * T, row, sizeof(int32_t) * T);
        memcpy(targets + k * T, row + 1, sizeof(int32_t) * T);
        lengths[k] = T;
    }
    for (int i = 0; i < rows * T; i++) weights[i] = 1;
    return (mica_text_batch){.ids = ids, .targets = targets, .weights = weights, .lengths = lengths, .n = (size_t)(rows * T), .segments = (size_t)rows};
}

static double step(trial *r, int i, int pieces) {
    mica_error err = {0};
    mica_update done;
    for (int k = 0; k < pieces; k++) {
        mica_text_batch b = batch_of(r, i, k * ROWS / pieces, ROWS / pieces);
        if (!mica_trainer_add(&r->t, &b, &err)) fail_msg("%s", err.msg);
    }
    if (!mica_trainer_update(&r->t, &done, &err)) fail_msg("%s", err.msg);
    return done.loss / done.weight;
}

static void check_losses(const char *name, const char *base, bool full, double tolerance) {
    trial r;
    start(&r, name, base, full, &adamw);
    const float *want = find(r.golden, "losses")->data;
    double worst = 0;
    for (int i = 0; i < STEPS; i++) {
        double loss = step(&r, i, 1 + i % 2); // with and without accumulation
        worst = fmax(worst, fabs(loss - (double)want[i]));
    }
    print_message("  %-16s %d steps, losses differ by at most %.1e\n", name, STEPS, worst);
    if (!(worst < tolerance)) fail_msg("%s: losses differ by %g", name, worst);
    finish(&r);
}

static void losses_are_pytorchs(void **state) {
    (void)state;
    check_losses("lora-llama", "models/llama-f32", false, 1e-4);
    check_losses("lora-gemma3", "models/gemma3-text-f32", false, 1e-4);
    check_losses("qlora-llama", "quant/llama-4bit-float32", false, 1e-4);
    check_losses("dora-qwen2", "models/qwen2-f32", false, 1e-4);
    check_losses("full-qwen2", "models/qwen2-f32", true, 1e-4);
}

static void restored_to_the_bit(void **state) {
    (void)state;
    char path[] = "/tmp/mica-trainer-XXXXXX.safetensors";
    close(mkstemps(path, 12));
    mica_error err = {0};
    trial a, b;
    start(&a, "lora-llama", "models/llama-f32", false, &adamw);
    for (int i = 0; i < 5; i++) step(&a, i, 1);
    mica_train_state saved = {.epoch = 1, .index = 7, .piece = 2, .tokens = 160, .identity = 42}, read = {.identity = 42};
    if (!mica_trainer_save(&a.t, &saved, path, &err)) fail_msg("%s", err.msg);
    start(&b, "lora-llama", "models/llama-f32", false, &adamw);
    if (!mica_trainer_restore(&b.t, &read, path, &err)) fail_msg("%s", err.msg);
    assert_memory_equal(&read, &saved, sizeof read);
    assert_int_equal(b.t.step, 5);
    for (int i = 5; i < STEPS; i++) assert_true(step(&a, i, 1) == step(&b, i, 1));
    for (size_t i = 0; i < a.t.params.count; i++)
        assert_memory_equal(mica_data(*a.t.params.items[i].place), mica_data(*b.t.params.items[i].place), mica_nbytes(*a.t.params.items[i].place));
    read.identity = 41;
    assert_false(mica_trainer_restore(&b.t, &read, path, &err));
    assert_non_null(strstr(err.msg, "another"));
    finish(&b);
    start(&b, "lora-gemma3", "models/gemma3-text-f32", false, &adamw);
    read.identity = 42;
    assert_false(mica_trainer_restore(&b.t, &read, path, &err));
    finish(&a), finish(&b);
    unlink(path);
}

// On two threads, with blocks computed again: the same bits each time.
static void dropped_and_rounded_alike(void **state) {
    (void)state;
    mica_train_options o = adamw;
    o.dropout = 0.2, o.seed = 5, o.optimizer.stochastic = o.optimizer.bf16_state = true, o.optimizer.seed = 5;
    double losses[2][3];
    for (int k = 0; k < 2; k++) {
        trial r;
        start(&r, "lora-llama", "models/llama-f32", false, &o);
        r.t.recompute = k;
        for (int i = 0; i < 3; i++) losses[k][i] = step(&r, i, 1 + i % 2);
        finish(&r);
    }
    assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    o.seed = 6;
    trial r;
    start(&r, "lora-llama", "models/llama-f32", false, &o);
    assert_true(step(&r, 0, 1) != losses[0][0]);
    finish(&r);
}

static void nothing_scored_and_not_finite(void **state) {
    (void)state;
    mica_error err = {0};
    mica_update done;
    trial r;
    mica_train_options wild = {.optimizer = {.name = "sgd"}, .schedule = {.rate = 1e30}};
    start(&r, "lora-llama", "models/llama-f32", false, &wild);
    mica_text_batch b = batch_of(&r, 0, 0, ROWS);
    for (size_t i = 0; i < b.n; i++) ((float *)(uintptr_t)b.weights)[i] = 0;
    assert_true(mica_trainer_add(&r.t, &b, &err));
    assert_false(mica_trainer_update(&r.t, &done, &err));
    assert_non_null(strstr(err.msg, "step 1"));
    step(&r, 0, 1);
    b = batch_of(&r, 1, 0, ROWS);
    assert_true(mica_trainer_add(&r.t, &b, &err));
    assert_false(mica_trainer_update(&r.t, &done, &err));
    assert_non_null(strstr(err.msg, "step 2"));
    assert_int_equal(r.t.step, 1);
    finish(&r);
}

static int set_up(void **state) {
    (void)state;
    mica_error err = {0};
    device = mica_device_open("cpu", &(mica_device_options){.threads = 2}, &err);
    return !device;
}

static int tear_down(void **state) {
    (void)state;
    mica_device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_pytorchs), cmocka_unit_test(restored_to_the_bit), cmocka_unit_test(dropped_and_rounded_alike), cmocka_unit_test(nothing_scored_and_not_finite),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
