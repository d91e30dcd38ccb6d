// SPDX-License-Identifier: Apache-2.0
// Whole training runs on a tiny model: reports, files, runs that are stopped, killed and resumed and end with the same bits, bad input.
#include "base/base.h"
#include "base/file.h"
#include "folder_testing.h"
#include "mica/model.h"
#include "mica/train.h"
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL MICA_SOURCE_DIR "/tests/golden/models/llama-f32"
enum { ITERS = 12 };

static void write_lines(const char *name, int lines, int from) {
    mica_mkdirs(in_folder("data"), NULL);
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    for (int i = 0; i < lines; i++) fprintf(f, "{\"text\":\"the %d brown fox jumps over the %d lazy dogs\"}\n", from + i, i * 7 % 5);
    fclose(f);
}

typedef struct heard {
    int steps, validations, checkpoints, done, starts, progress;
    int64_t stop_after; // 0: never
    double loss[ITERS + 1];
} heard;

static bool listen(void *context, const mica_train_event *e) {
    heard *h = context;
    if (e->kind == MICA_TRAIN_STEP) h->steps++, h->loss[e->step] = e->loss;
    h->validations += e->kind == MICA_TRAIN_VALIDATION;
    h->checkpoints += e->kind == MICA_TRAIN_CHECKPOINT;
    h->done += e->kind == MICA_TRAIN_DONE;
    if (e->kind == MICA_TRAIN_START) h->starts++, assert_true(e->trained > 0 && e->parameters >= e->trained);
    if (e->kind == MICA_TRAIN_PROGRESS) h->progress++, assert_true(isfinite(e->loss) && e->tokens_per_second > 0);
    return !h->stop_after || e->step < h->stop_after;
}

static mica_train_options options(heard *h) {
    static const char *const targets[] = {"q_proj", "v_proj"};
    return (mica_train_options){.iters = ITERS, .batch_size = 2, .rank = 4, .targets = targets, .target_count = 2, .layers = -1, .report_every = 1,
                                .val_every = 5, .save_every = 1, .seed = 3, .optimizer = {.name = "adamw"}, .clip = 1,
                                .schedule = {.name = "cosine", .rate = 1e-2, .steps = ITERS, .warmup = 2}, .threads = 1, .report = listen, .context = h};
}

static mica_train_summary run(const char *out, mica_train_options o) {
    mica_error err = {0};
    mica_train_summary sum;
    if (!mica_train(MODEL, in_folder("data"), in_folder(out), &o, &sum, &err)) fail_msg("%s", err.msg);
    return sum;
}

static void assert_same_file(const char *a, const char *b) {
    mica_buf x = {0}, y = {0};
    assert_true(mica_file_read(in_folder(a), 1 << 24, &x, NULL) && mica_file_read(in_folder(b), 1 << 24, &y, NULL));
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    mica_buf_free(&x), mica_buf_free(&y);
}

static void a_run(void **state) {
    (void)state;
    heard h = {0};
    mica_train_summary sum = run("whole", options(&h));
    assert_int_equal(h.steps, ITERS);
    assert_int_equal(h.checkpoints, ITERS);
    assert_int_equal(h.validations, 4); // before, at 5, 10 and 12
    assert_int_equal(h.done, 1);
    assert_int_equal(h.starts, 1);
    assert_int_equal(h.progress, ITERS);
    assert_int_equal(sum.steps, ITERS);
    assert_true(sum.trained > 0 && sum.parameters > sum.trained && sum.tokens > 0);
    print_message("  loss %.3f → %.3f, validation %.3f\n", h.loss[1], h.loss[ITERS], sum.validation_loss);
    assert_true(h.loss[ITERS] < h.loss[1]);
    mica_error err = {0};
    mica_model *m = mica_model_load(MODEL, &(mica_load_options){.adapter = in_folder("whole")}, &err);
    if (!m) fail_msg("%s", err.msg);
    mica_model_free(m);
}

static void stopped_and_resumed(void **state) {
    (void)state;
    heard h = {.stop_after = 5};
    mica_train_options o = options(&h);
    mica_train_summary sum = run("stopped", o);
    assert_true(sum.stopped);
    assert_int_equal(sum.steps, 5);
    h.stop_after = 0;
    o.resume = true, o.threads = 2; // any number of threads
    sum = run("stopped", o);
    assert_int_equal(sum.steps, ITERS);
    assert_same_file("stopped/adapters.safetensors", "whole/adapters.safetensors");
    assert_same_file("stopped/training-state.safetensors", "whole/training-state.safetensors");
    mica_error err = {0};
    o.seed = 4;
    assert_false(mica_train(MODEL, in_folder("data"), in_folder("stopped"), &o, NULL, &err));
    assert_non_null(strstr(err.msg, "the checkpoint of a run with seed=3, not with seed=4"));
}

static void killed_and_resumed(void **state) {
    (void)state;
    heard h = {0};
    mica_train_options o = options(&h);
    int kills = 0;
    unsigned long at = 9000;
    for (bool done = false; !done;) {
        char *saved = mica_path_join(in_folder("killed"), "training-state.safetensors");
        o.resume = mica_is_file(saved);
        mica_free(saved);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (!child) _exit(!mica_train(MODEL, in_folder("data"), in_folder("killed"), &o, NULL, NULL));
        int status = 0;
        if (kills < 20) {
            usleep((unsigned)(at = (at * 1103515245 + 12345) % 40000) + 2000);
            kill(child, SIGKILL);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        done = WIFEXITED(status);
        if (done) assert_int_equal(WEXITSTATUS(status), 0);
        kills += !done;
        // Whatever is there under its name is whole.
        mica_error err = {0};
        char *adapter = mica_path_join(in_folder("killed"), "adapters.safetensors");
        if (mica_is_file(adapter)) {
            mica_model *m = mica_model_load(MODEL, &(mica_load_options){.adapter = in_folder("killed")}, &err);
            if (!m) fail_msg("after a kill: %s", err.msg);
            mica_model_free(m);
        }
        mica_free(adapter);
    }
    print_message("  killed %d times\n", kills);
    assert_same_file("killed/adapters.safetensors", "whole/adapters.safetensors");
}

static void all_weights(void **state) {
    (void)state;
    heard h = {0};
    mica_train_options o = options(&h);
    o.kind = "full", o.targets = NULL, o.target_count = 0, o.schedule.rate = 1e-3, o.grad_accumulation = 2, o.grad_checkpoint = "on";
    mica_train_summary sum = run("full", o);
    assert_true(sum.trained > sum.parameters / 2);
    assert_true(h.loss[ITERS] < h.loss[1]);
    mica_error err = {0};
    mica_model *m = mica_model_load(in_folder("full"), NULL, &err); // a model of its own
    if (!m || !mica_model_tokenizer(m)) fail_msg("%s", err.msg);
    mica_model_free(m);
    assert_false(mica_train(MICA_SOURCE_DIR "/tests/golden/quant/llama-4bit-g64", in_folder("data"), in_folder("x"), &o, NULL, &err));
}

static void in_pefts_form(void **state) {
    (void)state;
    heard h = {0};
    mica_error err = {0};
    mica_train_options o = options(&h);
    o.adapter_format = "peft";
    run("peft", o);
    assert_true(mica_is_file(in_folder("peft/adapter_model.safetensors")) && !mica_is_file(in_folder("peft/adapters.safetensors")));
    const int32_t ids[] = {5, 17, 90, 33, 8};
    mica_scores scores[2];
    for (int i = 0; i < 2; i++) {
        mica_model *m = mica_model_load(MODEL, &(mica_load_options){.adapter = in_folder(i ? "peft" : "whole")}, &err);
        if (!m || !mica_score(m, ids, 5, 0, &scores[i], &err)) fail_msg("%s", err.msg);
        mica_model_free(m);
    }
    assert_true(fabs(scores[0].perplexity / scores[1].perplexity - 1) < 1e-6); // the same run
    for (int i = 0; i < 2; i++) mica_scores_free(&scores[i]);
    o.adapter_format = "torch";
    assert_false(mica_train(MODEL, in_folder("data"), in_folder("x"), &o, NULL, &err));
    assert_non_null(strstr(err.msg, "torch"));
}

// Everything in bf16: half the memory of what changes, about the same losses, the same bits on resuming.
static void all_in_bf16(void **state) {
    (void)state;
    static const char *const kinds[] = {"lora", "dora", "full"};
    heard h = {0}, wide = {0};
    for (size_t i = 0; i < MICA_COUNT(kinds); i++) {
        mica_train_options o = options(&h);
        o.kind = kinds[i], o.schedule.rate = 1e-3;
        if (i == 2) o.targets = NULL, o.target_count = 0;
        o.context = &wide;
        run("wide", o);
        o.context = &h, o.dtype = "bf16";
        run("narrow", o);
        double worst = 0;
        for (int k = 1; k <= ITERS; k++) worst = fmax(worst, fabs(h.loss[k] - wide.loss[k]) / wide.loss[k]);
        print_message("  %s: loss %.3f → %.3f, in bf16 %.3f → %.3f\n", kinds[i], wide.loss[1], wide.loss[ITERS], h.loss[1], h.loss[ITERS]);
        assert_true(worst < 0.03 && h.loss[ITERS] < h.loss[1]);
        mica_buf x = {0}, y = {0};
        assert_true(mica_file_read(in_folder("wide/training-state.safetensors"), 1 << 24, &x, NULL));
        assert_true(mica_file_read(in_folder("narrow/training-state.safetensors"), 1 << 24, &y, NULL));
        if (y.len * 10 > x.len * 7) fail_msg("%zu bytes against %zu", y.len, x.len);
        mica_buf_free(&x), mica_buf_free(&y);
        h.stop_after = 5, run("stopped", o);
        h.stop_after = 0, o.resume = true, o.threads = 2, run("stopped", o);
        assert_same_file("stopped/training-state.safetensors", "narrow/training-state.safetensors");
        mica_remove_flat_dir(in_folder("stopped")), mica_remove_flat_dir(in_folder("wide")), mica_remove_flat_dir(in_folder("narrow"));
    }
}

static void with_dropout(void **state) {
    (void)state;
    heard h = {0};
    mica_error err = {0};
    mica_train_options o = options(&h);
    o.dropout = 0.3, o.grad_accumulation = 2;
    run("dropout", o);
    assert_true(h.loss[ITERS] < h.loss[1]);
    mica_buf config = {0};
    assert_true(mica_file_read(in_folder("dropout/adapter_config.json"), 1 << 16, &config, &err));
    assert_non_null(strstr(config.data, "\"dropout\":0.3"));
    mica_buf_free(&config);
    h.stop_after = 4; // what is dropped is a function of the step: also of a run that was stopped, on two threads, with blocks computed again
    run("dropped", o);
    h.stop_after = 0, o.resume = true, o.threads = 2, o.grad_checkpoint = "on";
    assert_int_equal(run("dropped", o).steps, ITERS);
    assert_same_file("dropout/adapters.safetensors", "dropped/adapters.safetensors");
    o.dropout = 0.2;
    assert_false(mica_train(MODEL, in_folder("data"), in_folder("dropped"), &o, NULL, &err));
    o.dropout = 0.3, o.kind = "full", o.resume = false;
    assert_false(mica_train(MODEL, in_folder("data"), in_folder("bad"), &o, NULL, &err));
    assert_non_null(strstr(err.msg, "dropout"));
}

// As many blocks are computed again as the budget asks for, no more; the results are the same.
static void kept_within_memory(void **state) {
    (void)state;
    heard h = {0};
    mica_error err = {0};
    mica_train_options o = options(&h);
    o.grad_checkpoint = "on", o.batch_size = 60, o.iters = 2;
    mica_train_summary on = run("memory", o), all, few;
    assert_true(on.trained_blocks > 1 && on.recomputed_blocks == on.trained_blocks);
    o.grad_checkpoint = NULL;
    all = run("more", o);
    assert_same_file("memory/adapters.safetensors", "more/adapters.safetensors");
    assert_int_equal(all.recomputed_blocks, 0);
    print_message("  predicted %lld bytes, with checkpointing %lld\n", (long long)all.predicted_memory_bytes, (long long)on.predicted_memory_bytes);
    assert_true(on.predicted_memory_bytes < all.predicted_memory_bytes);
    o.memory_budget = (all.predicted_memory_bytes + on.predicted_memory_bytes) / 2;
    few = run("memory", o);
    assert_same_file("memory/adapters.safetensors", "more/adapters.safetensors");
    assert_true(few.recomputed_blocks > 0 && few.predicted_memory_bytes <= o.memory_budget);
    o.memory_budget = 2 * all.predicted_memory_bytes;
    assert_int_equal(run("memory", o).recomputed_blocks, 0);
    o.memory_budget = 0, o.grad_checkpoint = "auto"; // what the machine has is enough
    assert_int_equal(run("memory", o).recomputed_blocks, 0);
    o.memory_budget = on.predicted_memory_bytes / 2;
    assert_false(mica_train(MODEL, in_folder("data"), in_folder("bad"), &o, NULL, &err));
    assert_int_equal(err.code, MICA_ERR_NO_MEMORY);
    assert_non_null(strstr(err.msg, "the memory budget is"));
    o.grad_checkpoint = "off", o.memory_budget = all.predicted_memory_bytes / 2;
    assert_false(mica_train(MODEL, in_folder("data"), in_folder("bad"), &o, NULL, &err));
    assert_non_null(strstr(err.msg, "checkpointing of gradients takes less"));
}

static void bad_input(void **state) {
    (void)state;
    mica_error err = {0};
    heard h = {0};
    mica_train_options o = options(&h);
#define REFUSED(text) (assert_false(mica_train(MODEL, in_folder("data"), in_folder("bad"), &o, NULL, &err)), assert_non_null(strstr(err.msg, text)))
    o.kind = "qlora";
    REFUSED("qlora");
    o = options(&h), o.optimizer.name = "newton";
    REFUSED("newton");
    o = options(&h), o.schedule.name = "square";
    REFUSED("square");
    o = options(&h), o.targets = &(const char *){"nothing_proj"}, o.target_count = 1;
    REFUSED("nothing_proj");
    o = options(&h), o.mask_prompt = "some";
    REFUSED("some");
    o = options(&h), o.too_long = "fold";
    REFUSED("fold");
    o = options(&h), o.grad_checkpoint = "maybe";
    REFUSED("maybe");
    o = options(&h), o.dtype = "f8";
    REFUSED("f8");
    o = options(&h), o.dropout = 1;
    REFUSED("dropout");
    o = options(&h), o.memory_budget = -1;
    REFUSED("memory_budget");
    o = options(&h), o.iters = -1;
    REFUSED("iters");
    o = options(&h), o.resume = true;
    REFUSED("training-state");
    o = options(&h), o.schedule = (mica_schedule){.rate = 1e30}, o.optimizer.name = "sgd", o.clip = 0, o.kind = "full", o.targets = NULL, o.target_count = 0;
    REFUSED("step 1: the run has diverged");
    o.save_every = -1;
    REFUSED("step 2: the loss is ");
    o = options(&h);
    assert_false(mica_train(MODEL, "/nowhere", in_folder("bad"), &o, NULL, &err));
    assert_non_null(strstr(err.msg, "/nowhere"));
    assert_false(mica_train("/nowhere", in_folder("data"), in_folder("bad"), &o, NULL, &err));
    FILE *f = fopen(in_folder("data/train.jsonl"), "a");
    fputs("{\"text\":\n", f);
    fclose(f);
    REFUSED("train.jsonl:31");
    o.skip_bad = true, o.batch_size = 0, o.batch_tokens = 40, o.max_seq = 20, o.too_long = "split";
    mica_train_summary sum = run("bad", o);
    assert_int_equal(sum.bad_lines, 1);
    assert_true(sum.long_examples > 0);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return 1;
    write_lines("data/train.jsonl", 30, 0);
    write_lines("data/valid.jsonl", 5, 100);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    static const char *const names[] = {"data", "whole", "stopped", "killed", "full", "memory", "more", "dropout", "dropped", "wide", "narrow", "bad", "x", "peft"};
    for (size_t i = 0; i < MICA_COUNT(names); i++) mica_remove_flat_dir(in_folder(names[i]));
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run), cmocka_unit_test(stopped_and_resumed), cmocka_unit_test(killed_and_resumed), cmocka_unit_test(all_weights),
        cmocka_unit_test(in_pefts_form), cmocka_unit_test(with_dropout), cmocka_unit_test(all_in_bf16), cmocka_unit_test(kept_within_memory), cmocka_unit_test(bad_input),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
