// SPDX-License-Identifier: Apache-2.0
// `mica train`: fine-tuning. A line for each report, or with --json an object for each; Ctrl-C stops after the step at hand, with a checkpoint
// that --resume goes on from.
#include "cli/cmd.h"
#include "mica/train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- reports --------------------------------------------------------------------------------------------
static void json_event(const mica_train_event *e) {
    static const char *const names[] = {"step", "validation", "checkpoint", "done"};
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "event", names[e->kind]);
    mica_cli_json_int(&j, "step", e->step);
    if (e->kind != MICA_TRAIN_CHECKPOINT) mica_cli_json_double(&j, "loss", e->loss);
    if (e->path) mica_cli_json_string(&j, "path", e->path);
    if (e->kind == MICA_TRAIN_STEP || e->kind == MICA_TRAIN_DONE) mica_cli_json_int(&j, "tokens", e->tokens);
    if (e->kind == MICA_TRAIN_STEP) {
        mica_cli_json_double(&j, "learning_rate", e->learning_rate);
        mica_cli_json_double(&j, "grad_norm", e->grad_norm);
        mica_cli_json_double(&j, "tokens_per_second", e->tokens_per_second);
    }
    if (e->kind != MICA_TRAIN_CHECKPOINT) mica_cli_json_int(&j, "peak_memory_bytes", e->peak_memory_bytes);
    if (e->kind == MICA_TRAIN_DONE) mica_cli_json_double(&j, "seconds", e->seconds);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
    fflush(stdout);
}

static void print_event(const mica_train_event *e) {
    char memory[32];
    double left = e->step ? e->seconds / (double)e->step * (double)(e->steps - e->step) : 0;
    switch (e->kind) {
    case MICA_TRAIN_STEP:
        printf("step %lld/%lld  loss %.4f  rate %.2e  norm %.3f  %.1f tokens/s  %s  %d:%02d left\n", (long long)e->step, (long long)e->steps, e->loss,
               e->learning_rate, e->grad_norm, e->tokens_per_second, mica_cli_bytes(e->peak_memory_bytes, memory, sizeof memory), (int)(left / 60),
               (int)fmod(left, 60));
        break;
    case MICA_TRAIN_VALIDATION: printf("step %lld/%lld  validation loss %.4f\n", (long long)e->step, (long long)e->steps, e->loss); break;
    case MICA_TRAIN_CHECKPOINT: printf("step %lld/%lld  saved to %s\n", (long long)e->step, (long long)e->steps, e->path); break;
    case MICA_TRAIN_START:
    case MICA_TRAIN_PROGRESS: return;
    case MICA_TRAIN_DONE: printf("done: %lld steps, %lld tokens scored, %.1f s\n", (long long)e->step, (long long)e->tokens, e->seconds); break;
    }
    fflush(stdout);
}

static bool on_event(void *context, const mica_train_event *e) {
    const mica_cli_args *args = context;
    if (e->kind == MICA_TRAIN_START || e->kind == MICA_TRAIN_PROGRESS) return !mica_cli_stopped() && !mica_cli_output_lost();
    if (args->json) json_event(e);
    else if (!args->quiet || e->kind == MICA_TRAIN_DONE) print_event(e);
    return !mica_cli_stopped() && !mica_cli_output_lost();
}

// ---- options --------------------------------------------------------------------------------------------
/** "q_proj,v_proj" cut at the commas; the pieces point into `text`. */
static size_t split_targets(char *text, const char **out, size_t room) {
    size_t n = 0;
    for (char *save, *t = strtok_r(text, ", ", &save); t && n < room; t = strtok_r(NULL, ", ", &save)) out[n++] = t;
    return n;
}

static int train_with(const mica_cli_args *args, mica_train_options *o) {
    mica_error err = {0};
    mica_train_summary sum;
    char *path = mica_cli_model_path(args->words[0]);
    if (!path) return MICA_EXIT_FAILED;
    mica_cli_watch_flag();
    bool ok = mica_train(path, args->data, args->adapter, o, &sum, &err);
    mica_cli_watch(NULL);
    free(path);
    if (!ok) return mica_cli_fail_error("train", &err);
    if (sum.bad_lines) mica_cli_note(args, "%lld bad lines were left out", (long long)sum.bad_lines);
    if (sum.long_examples) mica_cli_note(args, "%lld examples were longer than --max-seq", (long long)sum.long_examples);
    if (sum.unscored_examples) mica_cli_note(args, "%lld examples had nothing to score", (long long)sum.unscored_examples);
    if (sum.stopped) mica_cli_note(args, "stopped at step %lld; --resume goes on from there", (long long)sum.steps);
    return sum.stopped ? MICA_EXIT_STOPPED : MICA_EXIT_DONE;
}

static int run(const mica_cli_args *args) {
    enum { MOST_TARGETS = 64 };
    const char *targets[MOST_TARGETS];
    const mica_cli_train_args *t = &args->train;
    if (!args->data) return mica_cli_usage("train", "--data DIR is needed: a folder with train.jsonl");
    if (!args->adapter) return mica_cli_usage("train", "--adapter OUT is needed: the folder to write");
    if (args->dtype && strcmp(args->dtype, "f32") != 0 && strcmp(args->dtype, "model") != 0)
        return mica_cli_usage("train", "--dtype takes f32 or model, not \"%s\"", args->dtype);
    char *names = t->targets ? strcpy(mica_cli_realloc(NULL, strlen(t->targets) + 1), t->targets) : NULL;
    mica_train_options o = {
        .kind = t->kind, .rank = t->rank, .scale = t->scale, .alpha = t->alpha, .rslora = t->rslora, .layers = t->layers, .iters = t->iters,
        .batch_size = t->batch_size, .grad_accumulation = t->grad_accum, .max_seq = t->max_seq, .too_long = t->too_long, .batch_tokens = t->batch_tokens, .mask_prompt = t->mask_prompt,
        .grad_checkpoint = t->grad_checkpoint, .no_shuffle = t->no_shuffle, .skip_bad = t->skip_bad, .clip = t->clip, .report_every = t->report_every,
        .val_every = t->val_every, .val_batches = t->val_batches, .save_every = t->save_every, .seed = (uint64_t)args->seed,
        .f32 = args->dtype && strcmp(args->dtype, "f32") == 0, .threads = args->threads, .resume = t->resume, .init_adapter = t->init_adapter,
        .optimizer = {.name = t->optimizer, .weight_decay = t->weight_decay, .momentum = t->momentum, .no_bias_correction = t->no_bias_correction},
        .schedule = {.name = t->schedule, .rate = t->lr, .end = t->lr_end, .decay = t->lr_decay, .steps = t->lr_steps, .warmup = t->warmup},
        .report = on_event, .context = (void *)(uintptr_t)args};
    if (o.schedule.name && !o.schedule.steps) o.schedule.steps = (o.iters ? o.iters : 1000) - o.schedule.warmup;
    if (names) o.targets = targets, o.target_count = split_targets(names, targets, MOST_TARGETS);
    int status = train_with(args, &o);
    free(names);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
#define MANY 1e9
static const mica_cli_option options[] = {
    {"data", 0, MICA_CLI_STRING, AT(data), 0, 0, "DIR", "folder with train.jsonl and maybe valid.jsonl: {\"messages\"}, {\"prompt\",\"completion\"} or {\"text\"} lines"},
    {"adapter", 0, MICA_CLI_STRING, AT(adapter), 0, 0, "OUT", "folder to write: the adapter and the checkpoint"},
    {"kind", 0, MICA_CLI_STRING, AT(train.kind), 0, 0, "KIND", "lora (default), dora or full"},
    {"rank", 0, MICA_CLI_INT, AT(train.rank), 1, 4096, "R", "of the adapters (default 8)"},
    {"scale", 0, MICA_CLI_NUMBER, AT(train.scale), 0, 1e6, "X", "what the adapters' product is multiplied by (default 20)"},
    {"alpha", 0, MICA_CLI_NUMBER, AT(train.alpha), 0, 1e6, "X", "instead of --scale: alpha / rank"},
    {"rslora", 0, MICA_CLI_FLAG, AT(train.rslora), 0, 0, NULL, "with --alpha: alpha / √rank"},
    {"targets", 0, MICA_CLI_STRING, AT(train.targets), 0, 0, "LIST", "linear layers to adapt, as in q_proj,v_proj or '*_proj' (default: all of the blocks)"},
    {"layers", 0, MICA_CLI_INT, AT(train.layers), -1, MANY, "N", "adapt the last N blocks; -1: all (default 16)"},
    {"iters", 0, MICA_CLI_INT, AT(train.iters), 1, MANY, "N", "updates (default 1000)"},
    {"batch-size", 0, MICA_CLI_INT, AT(train.batch_size), 1, MANY, "N", "examples of one forward (default 4)"},
    {"grad-accum", 0, MICA_CLI_INT, AT(train.grad_accum), 1, MANY, "N", "forwards of one update (default 1)"},
    {"max-seq", 0, MICA_CLI_INT, AT(train.max_seq), 2, MANY, "N", "most tokens of an example (default 2048)"},
    {"too-long", 0, MICA_CLI_STRING, AT(train.too_long), 0, 0, "HOW", "what becomes of longer ones: truncate (default), split, skip"},
    {"batch-tokens", 0, MICA_CLI_INT, AT(train.batch_tokens), 2, MANY, "N", "instead of --batch-size: examples packed up to N tokens"},
    {"mask-prompt", 0, MICA_CLI_STRING, AT(train.mask_prompt), 0, 0, "WHAT", "what is scored: none: every token (default); last: the last answer; assistant: all answers"},
    {"lr", 0, MICA_CLI_NUMBER, AT(train.lr), 0, 100, "X", "learning rate (default 1e-5)"},
    {"schedule", 0, MICA_CLI_STRING, AT(train.schedule), 0, 0, "NAME", "constant (default), linear, cosine, exponential, step"},
    {"lr-end", 0, MICA_CLI_NUMBER, AT(train.lr_end), 0, 100, "X", "linear, cosine: the rate at the end (default 0)"},
    {"lr-decay", 0, MICA_CLI_NUMBER, AT(train.lr_decay), 0, 1, "X", "exponential, step: the factor (default 0.999, 0.5)"},
    {"lr-steps", 0, MICA_CLI_INT, AT(train.lr_steps), 1, MANY, "N", "linear, cosine: over N steps (default: all); step: every N"},
    {"warmup", 0, MICA_CLI_INT, AT(train.warmup), 0, MANY, "N", "steps in which the rate rises from 0"},
    {"optimizer", 0, MICA_CLI_STRING, AT(train.optimizer), 0, 0, "NAME", "adam (default), adamw, sgd, adafactor, muon"},
    {"weight-decay", 0, MICA_CLI_NUMBER, AT(train.weight_decay), -1, 100, "X", "default 0.01 for adamw and muon, else 0; -1: none"},
    {"momentum", 0, MICA_CLI_NUMBER, AT(train.momentum), 0, 1, "X", "sgd (default 0), muon (default 0.95)"},
    {"no-bias-correction", 0, MICA_CLI_FLAG, AT(train.no_bias_correction), 0, 0, NULL, "adam, adamw: without it, as mlx-lm"},
    {"clip", 0, MICA_CLI_NUMBER, AT(train.clip), 0, 1e9, "X", "most global norm of the gradients (default: no limit)"},
    {"grad-checkpoint", 0, MICA_CLI_FLAG, AT(train.grad_checkpoint), 0, 0, NULL, "less memory, more time; the same results"},
    {"dtype", 0, MICA_CLI_STRING, AT(dtype), 0, 0, "TYPE", "compute in f32, or as the model does (default: model)"},
    {"report-every", 0, MICA_CLI_INT, AT(train.report_every), -1, MANY, "N", "a line every N steps (default 10)"},
    {"val-every", 0, MICA_CLI_INT, AT(train.val_every), -1, MANY, "N", "validate every N steps; -1: never (default 200)"},
    {"val-batches", 0, MICA_CLI_INT, AT(train.val_batches), -1, MANY, "N", "batches of a validation; -1: all (default 25)"},
    {"save-every", 0, MICA_CLI_INT, AT(train.save_every), -1, MANY, "N", "save every N steps, and at the end (default 100)"},
    {"resume", 0, MICA_CLI_FLAG, AT(train.resume), 0, 0, NULL, "go on from the checkpoint in OUT"},
    {"init-adapter", 0, MICA_CLI_STRING, AT(train.init_adapter), 0, 0, "DIR", "start from this adapter's weights"},
    {"no-shuffle", 0, MICA_CLI_FLAG, AT(train.no_shuffle), 0, 0, NULL, "examples in file order"},
    {"skip-bad", 0, MICA_CLI_FLAG, AT(train.skip_bad), 0, 0, NULL, "leave out lines that cannot be used"},
    {"seed", 0, MICA_CLI_LONG, AT(seed), 0, 9e15, "N", "of the adapters' first values and of the order (default 0)"},
    // mlx-lm's names
    {"adapter-path", 0, MICA_CLI_STRING, AT(adapter), 0, 0, "OUT", "as --adapter"},
    {"fine-tune-type", 0, MICA_CLI_STRING, AT(train.kind), 0, 0, "KIND", "as --kind"},
    {"num-layers", 0, MICA_CLI_INT, AT(train.layers), -1, MANY, "N", "as --layers"},
    {"learning-rate", 0, MICA_CLI_NUMBER, AT(train.lr), 0, 100, "X", "as --lr"},
    {"max-seq-length", 0, MICA_CLI_INT, AT(train.max_seq), 2, MANY, "N", "as --max-seq"},
    {"grad-accumulation-steps", 0, MICA_CLI_INT, AT(train.grad_accum), 1, MANY, "N", "as --grad-accum"},
    {"steps-per-report", 0, MICA_CLI_INT, AT(train.report_every), -1, MANY, "N", "as --report-every"},
    {"steps-per-eval", 0, MICA_CLI_INT, AT(train.val_every), -1, MANY, "N", "as --val-every"},
    {.name = NULL},
};

const mica_cli_command mica_cli_train = {
    .name = "train",
    .synopsis = "MODEL --data DIR --adapter OUT",
    .summary = "fine-tune a model",
    .description =
        "Trains LoRA adapters on MODEL, dense or quantised, or with --kind full all weights of a dense one, on the data folder that mlx-lm takes, and\n"
        "writes mlx-lm's form of adapter. A run that was stopped or killed goes on with --resume as if it never had been.\n"
        "With --json: one object a line: step, validation, checkpoint, done.",
    .example = "mica train smollm2-135m --data data --adapter out --targets q_proj,v_proj --iters 200 --lr 1e-4\n"
               "mica chat smollm2-135m --adapter out",
    .min_words = 1,
    .max_words = 1,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
