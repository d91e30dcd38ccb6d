// SPDX-License-Identifier: Apache-2.0
// `mica train`: fine-tuning. A line for each report, or with --json an object for each; Ctrl-C stops after the step at hand, with a checkpoint
// that --resume goes on from.
#include "cli/config.h"
#include "cli/lines.h"
#include "cli/report.h"
#include "cli/train_view.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- the run ----------------------------------------------------------------------------------------------
typedef struct watch {
    const mica_cli_args *args; // with all defaults filled in
    const char *model;
    mica_cli_train_view view;
    mica_cli_train_log log;
    mica_cli_samples samples;
    bool failed; // to write the log
    mica_train_event done; // the last event, shown after the test
} watch;

/** Before the first step: the log, and what the model says before it is trained. */
static bool begin(watch *w, const mica_train_event *e) {
    if (!w->args->train.log) return true;
    if (!mica_cli_train_log_open(&w->log, w->args, e)) return false;
    if (e->step == 0) mica_cli_samples_run(w->args, &w->samples, w->model, w->args->train.init_adapter, 0, &w->log);
    return true;
}

static bool on_event(void *context, const mica_train_event *e) {
    watch *w = context;
    if (e->kind == MICA_TRAIN_DONE && w->args->train.test) w->done = *e;
    else mica_cli_train_show(&w->view, e);
    if (e->kind == MICA_TRAIN_START) w->failed = !begin(w, e), w->view.started = mica_cli_seconds();
    w->failed |= !mica_cli_train_log_event(&w->log, e);
    return !w->failed && !mica_cli_stopped() && !mica_cli_output_lost();
}

static void remarks(const mica_cli_args *args, const mica_train_summary *sum) {
    mica_cli_note_unused(args, sum->bad_lines, sum->long_examples, sum->unscored_examples);
    if (sum->stopped) mica_cli_note(args, "stopped at step %lld; --resume goes on from there", (long long)sum->steps);
}

static bool go_on(void *context, int64_t done, int64_t examples) {
    (void)context, (void)done, (void)examples;
    return !mica_cli_stopped();
}

/** --test: the loss on test.jsonl of what has been trained, then the run's last event. */
static bool test(watch *w, const char *model, const char *adapter) {
    const mica_cli_args *args = w->args;
    const mica_cli_train_args *t = &args->train;
    int64_t batches = t->test_batches ? t->test_batches : 500;
    const mica_evaluate_options o = {.adapter = adapter, .mask_prompt = t->mask_prompt, .too_long = t->too_long, .max_seq = t->max_seq, .skip_bad = t->skip_bad,
                                     .f32 = args->dtype && strcmp(args->dtype, "f32") == 0, .threads = args->threads, .progress = go_on,
                                     .examples = batches > 0 ? batches * t->batch_size : 0};
    mica_evaluation e;
    mica_error err = {0};
    char *file = mica_cli_join(args->data, "/", "test.jsonl");
    bool ok = mica_evaluate(model, file, &o, &e, &err);
    free(file);
    if (ok) mica_cli_train_show_test(&w->view, w->done.step, &e);
    else mica_cli_fail_error("train: test", &err);
    mica_cli_train_show(&w->view, &w->done);
    return ok;
}

static int train_watched(watch *w, mica_train_options *o) {
    const mica_cli_args *args = w->args;
    mica_error err = {0};
    mica_train_summary sum;
    o->report = on_event, o->context = w;
    mica_cli_train_view_init(&w->view, args);
    mica_cli_watch_flag();
    bool ok = mica_train(w->model, args->data, args->adapter, o, &sum, &err);
    mica_cli_train_view_clear(&w->view);
    if (ok && !sum.stopped) {
        bool full = strcmp(o->kind, "full") == 0;
        mica_cli_samples_run(args, &w->samples, full ? args->adapter : w->model, full ? NULL : args->adapter, sum.steps, &w->log);
        if (args->train.test) w->failed |= !test(w, full ? args->adapter : w->model, full ? NULL : args->adapter);
    }
    mica_cli_watch(NULL);
    bool begun = w->log.file != NULL;
    w->failed |= !mica_cli_train_log_close(&w->log);
    if (!ok) mica_cli_fail_error("train", &err);
    else remarks(args, &sum);
    if (begun && args->train.report && !mica_cli_report_write(args, args->train.log, args->train.report)) w->failed = true;
    return !ok || w->failed ? MICA_EXIT_FAILED : sum.stopped ? MICA_EXIT_STOPPED : MICA_EXIT_DONE;
}

static int train_with(const mica_cli_args *args, mica_train_options *o) {
    watch w = {.args = args};
    char *path = mica_cli_model_path(args->words[0]);
    if (!path) return MICA_EXIT_FAILED;
    w.model = path;
    if (args->train.log) mica_cli_samples_read(args, &w.samples);
    int status = train_watched(&w, o);
    mica_cli_samples_free(&w.samples);
    free(path);
    return status;
}

// ---- options --------------------------------------------------------------------------------------------
/** "q_proj,v_proj" cut at the commas; the pieces point into `text`. */
static size_t split_targets(char *text, const char **out, size_t room) {
    size_t n = 0;
    for (char *save, *t = strtok_r(text, ", ", &save); t && n < room; t = strtok_r(NULL, ", ", &save)) out[n++] = t;
    return n;
}

/** What a file said of the optimiser that was chosen, where no option says it. */
static void settle_optimizer(const mica_cli_train_args *t, mica_optimizer_options *o) {
    const char *name = o->name ? o->name : "adam";
    for (int i = 0; i < MICA_CLI_OPTIMIZERS; i++) {
        const mica_cli_optimizer *s = &t->optimizers[i];
        if (strcmp(name, mica_cli_optimizer_names[i]) != 0) continue;
        o->beta1 = s->beta1, o->beta2 = s->beta2, o->eps = s->eps, o->dampening = s->dampening, o->nesterov = s->nesterov > 0;
        if (t->weight_decay >= 0 && t->weight_decay <= 0) o->weight_decay = s->weight_decay;
        if (t->momentum <= 0) o->momentum = s->momentum;
        o->no_bias_correction |= s->bias_correction < 0;
    }
}

static mica_train_options options_of(const mica_cli_args *args) {
    const mica_cli_train_args *t = &args->train;
    mica_train_options o = {
        .kind = t->kind, .rank = t->rank, .scale = t->scale, .alpha = t->alpha, .rslora = t->rslora, .layers = t->layers, .iters = t->iters, .epochs = t->epochs,
        .batch_size = t->batch_size, .grad_accumulation = t->grad_accum, .max_seq = t->max_seq, .too_long = t->too_long, .batch_tokens = t->batch_tokens, .mask_prompt = t->mask_prompt,
        .grad_checkpoint = t->grad_checkpoint, .memory_budget = args->memory_budget, .dropout = t->dropout, .no_shuffle = t->no_shuffle, .skip_bad = t->skip_bad, .clip = t->clip, .report_every = t->report_every,
        .val_every = t->val_every, .val_batches = t->val_batches, .save_every = t->save_every, .seed = (uint64_t)args->seed, .dtype = args->dtype,
        .threads = args->threads, .resume = t->resume, .init_adapter = t->init_adapter, .adapter_format = t->adapter_format,
        .optimizer = {.name = t->optimizer, .weight_decay = t->weight_decay, .momentum = t->momentum, .no_bias_correction = t->no_bias_correction},
        .schedule = {.name = t->schedule, .rate = t->lr, .end = t->lr_end, .decay = t->lr_decay, .steps = t->lr_steps, .warmup = t->warmup,
                     .warmup_start = t->warmup_init, .hold = t->hold}};
    settle_optimizer(t, &o.optimizer);
    if (o.mask_prompt && (!*o.mask_prompt || strcmp(o.mask_prompt, "true") == 0)) o.mask_prompt = "last"; // as mlx-lm's flag
    mica_train_defaults(&o);
    return o;
}

/** The arguments with the defaults that a run has, as the log and the report tell them. */
static mica_cli_args settled(const mica_cli_args *args, const mica_train_options *o) {
    mica_cli_args s = *args;
    mica_cli_train_args *t = &s.train;
    bool full = strcmp(o->kind, "full") == 0;
    t->kind = o->kind, t->iters = o->iters, t->batch_size = o->batch_size, t->grad_accum = o->grad_accumulation, t->max_seq = o->max_seq;
    if (!full) t->rank = o->rank, t->layers = o->layers, t->scale = t->alpha > 0 ? 0 : o->scale;
    t->too_long = o->too_long, t->mask_prompt = o->mask_prompt, t->report_every = o->report_every, t->val_every = o->val_every;
    t->val_batches = o->val_batches, t->save_every = o->save_every, t->adapter_format = full ? NULL : o->adapter_format;
    t->optimizer = o->optimizer.name, t->lr = o->schedule.rate, t->schedule = o->schedule.name ? o->schedule.name : "constant";
    t->weight_decay = o->optimizer.weight_decay, t->momentum = o->optimizer.momentum, t->no_bias_correction = o->optimizer.no_bias_correction;
    t->grad_checkpoint = o->grad_checkpoint, s.dtype = o->dtype;
    return s;
}

/** The folder of the file that mlx-lm's --resume-adapter-file names; NULL for what is a folder. */
static char *folder_of(const char *adapter) {
    static const char end[] = "/adapters.safetensors";
    size_t n = adapter ? strlen(adapter) : 0, m = sizeof end - 1;
    if (n && strcmp(adapter, end + 1) == 0) return mica_cli_copy(".", 1);
    if (n <= m || strcmp(adapter + n - m, end) != 0) return NULL;
    return mica_cli_copy(adapter, n - m);
}

static int check(const mica_cli_args *args) {
    if (!args->data) return mica_cli_usage("train", "--data DIR is needed: a folder with train.jsonl");
    if (!args->adapter) return mica_cli_usage("train", "--adapter OUT is needed: the folder to write");
    if (args->train.iters && args->train.epochs) return mica_cli_usage("train", "--iters and --epochs exclude each other");
    if (args->train.test) {
        char *file = mica_cli_join(args->data, "/", "test.jsonl");
        bool there = access(file, R_OK) == 0;
        free(file);
        if (!there) return mica_cli_fail("train: --test: no test.jsonl in %s", args->data);
    }
    if (args->train.scale > 0 && args->train.alpha > 0) return mica_cli_usage("train", "--scale and --alpha exclude each other");
    if (!mica_cli_here(args, "train")) return MICA_EXIT_USAGE;
    return args->train.report && !mica_cli_report_possible() ? MICA_EXIT_FAILED : MICA_EXIT_DONE;
}

static int run(const mica_cli_args *args) {
    enum { MOST_TARGETS = 64 };
    const char *targets[MOST_TARGETS];
    int status = check(args);
    if (status != MICA_EXIT_DONE) return status;
    const char *list = args->train.targets;
    char *names = list ? mica_cli_copy(list, strlen(list)) : NULL, *own_log = NULL;
    char *from = folder_of(args->train.init_adapter);
    mica_train_options o = options_of(args);
    if (from) o.init_adapter = from;
    mica_cli_args all = settled(args, &o);
    all.train.init_adapter = o.init_adapter;
    if (names) o.targets = targets, o.target_count = split_targets(names, targets, MOST_TARGETS);
    if (all.train.report && !all.train.log) all.train.log = own_log = mica_cli_join(args->adapter, "/log.jsonl", ""); // made when the run begins
    status = train_with(&all, &o);
    free(names), free(own_log), free(from);
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
    {"epochs", 0, MICA_CLI_INT, AT(train.epochs), 1, MANY, "N", "instead of --iters: times that each example is seen"},
    {"batch-size", 0, MICA_CLI_INT, AT(train.batch_size), 1, MANY, "N", "examples of one forward (default 4)"},
    {"grad-accum", 0, MICA_CLI_INT, AT(train.grad_accum), 1, MANY, "N", "forwards of one update (default 1)"},
    {"max-seq", 0, MICA_CLI_INT, AT(train.max_seq), 2, MANY, "N", "most tokens of an example (default 2048)"},
    {"too-long", 0, MICA_CLI_STRING, AT(train.too_long), 0, 0, "HOW", "what becomes of longer ones: truncate (default), split, skip"},
    {"batch-tokens", 0, MICA_CLI_INT, AT(train.batch_tokens), 2, MANY, "N", "instead of --batch-size: examples packed up to N tokens"},
    {"mask-prompt", 0, MICA_CLI_MAYBE, AT(train.mask_prompt), 0, 0, "WHAT", "what is scored: none: every token (default); last (or no WHAT): the last answer; assistant: all answers"},
    {"lr", 0, MICA_CLI_NUMBER, AT(train.lr), 0, 100, "X", "learning rate (default 1e-5)"},
    {"schedule", 0, MICA_CLI_STRING, AT(train.schedule), 0, 0, "NAME", "constant (default), linear, cosine, exponential, step"},
    {"lr-end", 0, MICA_CLI_NUMBER, AT(train.lr_end), 0, 100, "X", "linear, cosine: the rate at the end (default 0)"},
    {"lr-decay", 0, MICA_CLI_NUMBER, AT(train.lr_decay), 0, 1, "X", "exponential, step: the factor (default 0.999, 0.5)"},
    {"lr-steps", 0, MICA_CLI_INT, AT(train.lr_steps), 1, MANY, "N", "linear, cosine: over N steps (default: all); step: every N"},
    {"warmup", 0, MICA_CLI_INT, AT(train.warmup), 0, MANY, "N", "steps in which the rate rises from 0"},
    {"warmup-init", 0, MICA_CLI_NUMBER, AT(train.warmup_init), 0, 100, "X", "the rate that the warm-up begins with (default 0)"},
    {"optimizer", 0, MICA_CLI_STRING, AT(train.optimizer), 0, 0, "NAME", "adam (default), adamw, sgd, adafactor, muon"},
    {"weight-decay", 0, MICA_CLI_NUMBER, AT(train.weight_decay), -1, 100, "X", "default 0.01 for adamw and muon, else 0; -1: none"},
    {"momentum", 0, MICA_CLI_NUMBER, AT(train.momentum), 0, 1, "X", "sgd (default 0), muon (default 0.95)"},
    {"no-bias-correction", 0, MICA_CLI_FLAG, AT(train.no_bias_correction), 0, 0, NULL, "adam, adamw: without it, as mlx-lm"},
    {"clip", 0, MICA_CLI_NUMBER, AT(train.clip), 0, 1e9, "X", "most global norm of the gradients (default: no limit)"},
    {"grad-checkpoint", 0, MICA_CLI_CHOICE, AT(train.grad_checkpoint), 0, 0, "on|off|auto",
     "less memory, more time, the same results; auto: as little of it as the memory budget asks for (default: off; auto with --memory-budget)"},
    {"memory-budget", 0, MICA_CLI_SIZE, AT(memory_budget), 1, 9e15, "SIZE", "most memory, as in 4G; a run that cannot fit is refused (default: no limit)"},
    {"dropout", 0, MICA_CLI_NUMBER, AT(train.dropout), 0, 0.999, "P", "of what goes into the adapters, while training (default 0)"},
    {"dtype", 0, MICA_CLI_STRING, AT(dtype), 0, 0, "TYPE",
     "model (default): compute as the model does, adapters and optimiser in f32; f32: everything; bf16: adapters and optimiser, too"},
    {"report-every", 0, MICA_CLI_INT, AT(train.report_every), -1, MANY, "N", "a line every N steps (default 10)"},
    {"val-every", 0, MICA_CLI_INT, AT(train.val_every), -1, MANY, "N", "validate every N steps; -1: never (default 200)"},
    {"val-batches", 0, MICA_CLI_INT, AT(train.val_batches), -1, MANY, "N", "batches of a validation; -1: all (default 25)"},
    {"save-every", 0, MICA_CLI_INT, AT(train.save_every), -1, MANY, "N", "save every N steps, and at the end (default 100)"},
    {"test", 0, MICA_CLI_FLAG, AT(train.test), 0, 0, NULL, "at the end, measure the loss on test.jsonl"},
    {"test-batches", 0, MICA_CLI_INT, AT(train.test_batches), -1, MANY, "N", "batches of that; -1: all (default 500)"},
    {"resume", 0, MICA_CLI_FLAG, AT(train.resume), 0, 0, NULL, "go on from the checkpoint in OUT"},
    {"init-adapter", 0, MICA_CLI_STRING, AT(train.init_adapter), 0, 0, "DIR", "start from this adapter's weights"},
    {"no-shuffle", 0, MICA_CLI_FLAG, AT(train.no_shuffle), 0, 0, NULL, "examples in file order"},
    {"skip-bad", 0, MICA_CLI_FLAG, AT(train.skip_bad), 0, 0, NULL, "leave out lines that cannot be used"},
    {"seed", 0, MICA_CLI_LONG, AT(seed), 0, 9e15, "N", "of the adapters' first values and of the order (default 0)"},
    {"adapter-format", 0, MICA_CLI_STRING, AT(train.adapter_format), 0, 0, "FORM", "of the adapter written: mlx-lm (default) or peft"},
    // what is seen of it
    {"config", 'c', MICA_CLI_STRING, AT(config), 0, 0, "FILE", "options from a JSON object: {\"model\": …, \"batch-size\": 2, …}, or from YAML; mlx-lm's files, too; those given here as well win"},
    {"log", 0, MICA_CLI_STRING, AT(train.log), 0, 0, "FILE", "write configuration, reports, validations, checkpoints and samples as JSON lines"},
    {"report", 0, MICA_CLI_STRING, AT(train.report), 0, 0, "FILE", "write a page (HTML) with curves, samples and configuration; needs gnuplot; logs to OUT/log.jsonl without --log"},
    {"sample-prompt", 0, MICA_CLI_LIST, AT(train.sample_prompts), 0, 0, "TEXT", "answered before and after, for log and report; may be repeated (default: from the data)"},
    {"samples", 0, MICA_CLI_INT, AT(train.samples), -1, 100, "N", "take N prompts from the validation data; -1: no samples (default 3)"},
    {"sample-tokens", 0, MICA_CLI_INT, AT(train.sample_tokens), 1, MANY, "N", "most tokens of a sample (default 100)"},
    // mlx-lm's names
    {"resume-adapter-file", 0, MICA_CLI_STRING, AT(train.init_adapter), 0, 0, "FILE", "as --init-adapter, with the folder of FILE"},
    {"model", 0, MICA_CLI_STRING, AT(model), 0, 0, "MODEL", "as the argument MODEL"},
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
        "With --json: one object a line: step, validation, checkpoint, done. The log has these lines too; `mica report` draws it.",
    .example = "mica train smollm2-135m --data data --adapter out --targets q_proj,v_proj --iters 200 --lr 1e-4\n"
               "mica chat smollm2-135m --adapter out",
    .min_words = 1,
    .max_words = 1,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
