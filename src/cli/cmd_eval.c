// SPDX-License-Identifier: Apache-2.0
// `mica eval`: how good a model is at some data, by what the data are: of training data the loss that its validation would have, of labelled texts
// how many get their label, of any other text the perplexity.
#include "cli/cmd.h"
#include "cli/json_read.h"
#include "cli/labelled.h"
#include "cli/lines.h"
#include "mica/train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- results ---------------------------------------------------------------------------------------------------
static void print_evaluation(const mica_evaluation *e, bool examples) {
    printf("perplexity   %.4f ± %.4f\nloss         %.5f ± %.5f\n", e->perplexity, e->perplexity_error, e->loss, e->loss_error);
    if (examples) printf("examples     %lld\n", (long long)e->examples);
    printf("tokens       %lld, ", (long long)e->tokens);
    if (examples) printf("%lld of them scored, ", (long long)e->scored);
    printf("%.1f/s\n", (double)e->tokens / e->seconds);
}

static void put_evaluation(const char *file, const mica_evaluation *e, bool examples) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "kind", examples ? "examples" : "text");
    mica_cli_json_string(&j, "file", file);
    mica_cli_json_double(&j, "perplexity", e->perplexity);
    mica_cli_json_double(&j, "perplexity_standard_error", e->perplexity_error);
    mica_cli_json_double(&j, "loss", e->loss);
    mica_cli_json_double(&j, "loss_standard_error", e->loss_error);
    if (examples) mica_cli_json_int(&j, "examples", e->examples);
    mica_cli_json_int(&j, "tokens", e->tokens);
    if (examples) mica_cli_json_int(&j, "scored_tokens", e->scored);
    mica_cli_json_double(&j, "tokens_per_second", (double)e->tokens / e->seconds);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static int show(const mica_cli_args *args, const char *file, const mica_evaluation *e, bool examples) {
    if (args->json) put_evaluation(file, e, examples);
    else print_evaluation(e, examples);
    return MICA_EXIT_DONE;
}

// ---- a text ----------------------------------------------------------------------------------------------------
static int evaluate_text(const mica_cli_args *args, const char *file) {
    mica_cli_text text = {0};
    mica_perplexity p;
    bool ok = mica_cli_read_file(file, &text);
    mica_model *model = ok ? mica_cli_load_once(args) : NULL;
    double started = mica_cli_seconds();
    ok = model && mica_cli_measure_text(args, model, NULL, &text, &p);
    double seconds = mica_cli_seconds() - started;
    mica_model_free(model);
    free(text.data);
    if (!ok) return MICA_EXIT_FAILED;
    const mica_evaluation e = {.loss = log(p.perplexity), .loss_error = p.standard_error / p.perplexity, .perplexity = p.perplexity,
                               .perplexity_error = p.standard_error, .tokens = (int64_t)p.predicted, .seconds = seconds};
    return show(args, file, &e, false);
}

// ---- training data ---------------------------------------------------------------------------------------------
typedef struct shown {
    mica_cli_progress progress;
    mica_cli_lines none; // no bar: bytes are not what is counted
} shown;

static bool on_example(void *context, int64_t done, int64_t examples) {
    shown *s = context;
    double seconds = mica_cli_seconds() - s->progress.started;
    (void)examples;
    mica_cli_progress_show(&s->progress, &s->none, (size_t)done, "examples", seconds > 0 ? (double)done / seconds : 0, "examples/s");
    return !mica_cli_stopped();
}

static int evaluate_examples(const mica_cli_args *args, const char *file) {
    const mica_cli_train_args *t = &args->train;
    const char *mask = t->mask_prompt && !*t->mask_prompt ? "last" : t->mask_prompt;
    shown s = {.none = {0}};
    const mica_evaluate_options options = {.adapter = mica_cli_own_adapter(args), .mask_prompt = mask, .too_long = t->too_long, .max_seq = t->max_seq, .skip_bad = t->skip_bad,
                                           .threads = args->threads, .progress = on_example, .context = &s};
    mica_evaluation e;
    mica_error err = {0};
    if (mica_cli_approximate(args)) return mica_cli_usage("eval", "--activations and --kv-bits apply to plain text and labels, not to training data");
    if (!mica_cli_here(args, "eval")) return MICA_EXIT_USAGE;
    char *model = mica_cli_model_path(args->words[0]);
    if (!model) return MICA_EXIT_FAILED;
    mica_cli_watch_flag();
    mica_cli_progress_start(&s.progress, args);
    bool ok = mica_evaluate(model, file, &options, &e, &err);
    mica_cli_progress_end(&s.progress);
    free(model);
    if (!ok && err.code == MICA_ERR_CANCELLED) return MICA_EXIT_STOPPED;
    if (!ok) return mica_cli_fail_error("eval", &err);
    mica_cli_note_unused(args, e.bad_lines, e.long_examples, e.unscored_examples);
    return show(args, file, &e, true);
}

// ---- which of them ---------------------------------------------------------------------------------------------
/** The file that DATA means: of a folder its test.jsonl, else its valid.jsonl. NULL after a complaint. */
static char *file_of(const char *data) {
    static const char *const names[] = {"test.jsonl", "valid.jsonl"};
    struct stat st;
    if (stat(data, &st) != 0 || !S_ISDIR(st.st_mode)) return mica_cli_copy(data, strlen(data));
    for (size_t i = 0; i < 2; i++) {
        char *file = mica_cli_join(data, "/", names[i]);
        if (access(file, R_OK) == 0) return file;
        free(file);
    }
    mica_cli_fail("eval: %s: neither test.jsonl nor valid.jsonl is in it", data);
    return NULL;
}

static bool is_jsonl(const char *file) {
    size_t n = strlen(file);
    return n > 6 && strcmp(file + n - 6, ".jsonl") == 0;
}

static int run(const mica_cli_args *args) {
    if (!args->data) return mica_cli_usage("eval", "--data FILE is needed: a text, JSON lines, or a folder with test.jsonl");
    if (args->prompt && !strstr(args->prompt, "{text}")) return mica_cli_usage("eval", "--prompt has no {text}");
    char *file = file_of(args->data);
    if (!file) return MICA_EXIT_FAILED;
    int status;
    if (!is_jsonl(file)) status = evaluate_text(args, file);
    else if (args->labels || mica_cli_labelled(args, file)) status = mica_cli_accuracy(args, file);
    else status = evaluate_examples(args, file);
    free(file);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"data", 0, MICA_CLI_STRING, AT(data), 0, 0, "FILE", "a text; a .jsonl file of training data or of labelled texts; or a folder with test.jsonl (else valid.jsonl)"},
    {"window", 0, MICA_CLI_INT, AT(window), 2, 1e9, "N", "of a text: cut it into pieces of N tokens (default 1024)"},
    {"mask-prompt", 0, MICA_CLI_MAYBE, AT(train.mask_prompt), 0, 0, "WHAT", "of training data, what is scored: none (default): every token; last (or no WHAT): the last answer; assistant: all answers"},
    {"max-seq", 0, MICA_CLI_INT, AT(train.max_seq), 2, 1e9, "N", "of training data: most tokens of an example (default 2048)"},
    {"too-long", 0, MICA_CLI_STRING, AT(train.too_long), 0, 0, "HOW", "of training data, what becomes of longer ones: truncate (default), split, skip"},
    {"skip-bad", 0, MICA_CLI_FLAG, AT(train.skip_bad), 0, 0, NULL, "of training data: leave out lines that cannot be used"},
    {"labels", 0, MICA_CLI_STRING, AT(labels), 0, 0, "A,B,C", "of labelled texts: the classes (default: all labels in the file)"},
    {"prompt", 0, MICA_CLI_STRING, AT(prompt), 0, 0, "TEMPLATE", "of labelled texts: the prompt; {text} stands for the text (default: {text})"},
    {"chat", 0, MICA_CLI_FLAG, AT(chat), 0, 0, NULL, "of labelled texts: the prompt is a user's message, put through the chat template"},
    {"calibrate", 0, MICA_CLI_FLAG, AT(calibrate), 0, 0, NULL, "of labelled texts: reduce each label by what it has after an empty text"},
    {"text-field", 0, MICA_CLI_STRING, AT(text_field), 0, 0, "NAME", "of labelled texts: the member with the text (default text)"},
    {"label-field", 0, MICA_CLI_STRING, AT(label_field), 0, 0, "NAME", "of labelled texts: the member with the label (default label)"},
    {"context", 0, MICA_CLI_INT, AT(context), 1, 1e9, "N", "most positions (default: the model's own)"},
    {.name = NULL},
};

const mica_cli_command mica_cli_eval = {
    .name = "eval",
    .synopsis = "MODEL --data FILE",
    .summary = "measure a model, and maybe an adapter, on data",
    .description =
        "Of a text, the perplexity, its standard error and the speed. Of training data ({\"messages\"}, {\"prompt\",\"completion\"} or {\"text\"} lines) the same over\n"
        "the examples, read and scored as `mica train` does for its validation. Of labelled texts ({\"text\",\"label\"} lines) the share that `mica classify`\n"
        "gives its label, with its standard error, and the same label by label.\n"
        "With --json: {\"kind\":\"text\"|\"examples\"|\"labels\",…}: \"perplexity\", \"perplexity_standard_error\", \"loss\", \"loss_standard_error\", \"tokens\",\n"
        "\"tokens_per_second\"; or \"accuracy\", \"accuracy_standard_error\", \"texts\", \"correct\", \"labels\".",
    .example = "mica eval smollm2-135m --adapter out --data data\n"
               "mica eval smollm2-135m --data reviews.jsonl --prompt 'Review: {text} Sentiment:'",
    .min_words = 1,
    .max_words = 1,
    .groups = MICA_CLI_LOADING | MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
