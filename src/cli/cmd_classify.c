// SPDX-License-Identifier: Apache-2.0
// `mica classify`: a text a line in, its class a line out. Lines that are there already are computed together, up to a block; nobody waits for a
// block to fill.
#include "cli/classify_line.h"
#include "cli/cmd.h"
#include "cli/lines.h"
#include "mica/classify.h"
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, MOST_LABELS = 1000 };

typedef struct job {
    const mica_cli_args *args;
    mica_model *model;
    mica_classify_options options;
    const char *labels[MOST_LABELS];
    size_t tallies[MOST_LABELS];
    char *names; // the list of labels, cut apart
    mica_cli_lines lines;
    mica_cli_progress progress;
    mica_cli_text_line entries[BLOCK];
    size_t count, done, failed;
    int64_t tokens, shared;
} job;

// ---- input -----------------------------------------------------------------------------------------------------
/** Fills the block with what is there; waits for the first line only. */
static void read_block(job *t) {
    char *line;
    size_t size;
    const mica_cli_text_form form = {.json = t->args->jsonl, .field = t->args->csv};
    for (size_t i = 0; i < t->count; i++) mica_cli_text_line_clear(&t->entries[i]);
    t->count = 0;
    while (t->count < BLOCK && mica_cli_lines_next(&t->lines, t->count == 0, &line, &size) == MICA_CLI_LINE)
        if (!form.json || strspn(line, " \t\r") != size) mica_cli_text_line_read(&t->entries[t->count++], line, size, t->lines.number, form);
}

// ---- output ----------------------------------------------------------------------------------------------------
static void json_labels(const job *t, mica_cli_json *j, const char *key, const double *values) {
    mica_cli_json_open(j, key, '{');
    for (size_t l = 0; l < t->options.label_count; l++) mica_cli_json_double(j, t->labels[l], values[l]);
    mica_cli_json_close(j, '}');
}

static void put_json(const job *t, const mica_cli_text_line *e, const mica_class *c, const char *why) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    if (e->id) mica_cli_json_raw(&j, "id", e->id);
    if (why) mica_cli_json_int(&j, "line", (int64_t)e->number), mica_cli_json_string(&j, "error", why);
    else if (c->label >= 0) {
        mica_cli_json_string(&j, "label", c->text);
        json_labels(t, &j, "probabilities", c->probabilities);
        json_labels(t, &j, "logprobs", c->logprobs);
    } else {
        mica_cli_json_int(&j, "token", c->token);
        mica_cli_json_string(&j, "text", c->text);
    }
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static void put_class(job *t, const mica_cli_text_line *e, const mica_class *c) {
    const char *why = !e->text ? e->why : c->error.code ? c->error.msg : NULL;
    t->done++;
    t->failed += why != NULL;
    if (!why && c->label >= 0) t->tallies[c->label]++;
    if (t->args->json || t->args->jsonl) put_json(t, e, c, why);
    else if (why) printf("error\t%s\n", why);
    else if (c->label >= 0) printf("%s\t%.4f\n", c->text, c->probabilities[c->label]);
    else {
        mica_cli_json j = {.out = stdout}; // a token may be a new line
        mica_cli_json_string(&j, NULL, c->text);
        mica_cli_json_end(&j);
    }
}

static double rate(const job *t) {
    double seconds = mica_cli_seconds() - t->progress.started;
    return seconds > 0 ? (double)t->done / seconds : 0;
}

static bool on_step(void *context, size_t done, size_t count) {
    job *t = context;
    (void)count;
    mica_cli_progress_show(&t->progress, &t->lines, t->done + done, "texts", rate(t), "texts/s");
    return !mica_cli_stopped() && !mica_cli_output_lost();
}

static bool classify_block(job *t) {
    const char *texts[BLOCK];
    size_t places[BLOCK], count = 0;
    mica_error err = {0};
    mica_classes out = {0};
    for (size_t i = 0; i < t->count; i++)
        if (t->entries[i].text) texts[count] = t->entries[i].text, places[i] = count++;
    if (count && !mica_classify(t->model, texts, count, &t->options, &out, &err)) return mica_cli_fail_error("classify", &err), false;
    for (size_t i = 0; i < t->count; i++) {
        const mica_class *c = t->entries[i].text ? &out.items[places[i]] : NULL;
        if (c && c->error.code == MICA_ERR_CANCELLED) break;
        put_class(t, &t->entries[i], c);
    }
    fflush(stdout);
    t->tokens += out.metrics.prompt_tokens, t->shared += out.metrics.cached_tokens;
    mica_classes_free(&out);
    return true;
}

/** How many texts of each class, on stderr. */
static void summarise(job *t) {
    mica_cli_progress_end(&t->progress);
    if (t->args->quiet) return;
    size_t width = 5;
    for (size_t l = 0; l < t->options.label_count; l++) width = strlen(t->labels[l]) > width ? strlen(t->labels[l]) : width;
    fflush(stdout);
    for (size_t l = 0; l < t->options.label_count; l++)
        fprintf(stderr, "%-*s %8zu  %5.1f %%\n", (int)width, t->labels[l], t->tallies[l], t->done ? 100.0 * (double)t->tallies[l] / (double)t->done : 0.0);
    if (t->failed) fprintf(stderr, "%-*s %8zu\n", (int)width, "error", t->failed);
    mica_cli_note(t->args, "%zu texts, %lld tokens (%lld of them shared) in %.2f s: %.1f texts/s", t->done, (long long)t->tokens,
                  (long long)t->shared, mica_cli_seconds() - t->progress.started, rate(t));
}

// ---- the command -----------------------------------------------------------------------------------------------
size_t mica_cli_labels(const char *command, const char *list, size_t most, const char **labels, char **names) {
    size_t count = 0;
    *names = mica_cli_copy(list, strlen(list));
    for (char *s = *names; s;) {
        char *end = strchr(s, ',');
        if (end) *end++ = 0;
        if (!*s) return mica_cli_usage(command, "--labels: a label is empty"), 0;
        if (count == most) return mica_cli_usage(command, "--labels: more than %zu", most), 0;
        labels[count++] = s;
        s = end;
    }
    return count;
}

static bool read_labels(job *t) {
    if (!t->args->labels) return true;
    t->options.label_count = mica_cli_labels("classify", t->args->labels, MOST_LABELS, t->labels, &t->names);
    return t->options.label_count > 0;
}

static int run_job(job *t) {
    bool ok = true;
    mica_cli_lines_open(&t->lines);
    mica_cli_watch_flag();
    mica_cli_progress_start(&t->progress, t->args);
    do {
        read_block(t);
        ok = classify_block(t);
    } while (ok && t->count && !mica_cli_stopped() && !mica_cli_output_lost());
    if (ok) summarise(t);
    if (ok && t->lines.failed) ok = !mica_cli_fail("stdin: cannot read");
    return !ok ? MICA_EXIT_FAILED : mica_cli_stopped() ? MICA_EXIT_STOPPED : MICA_EXIT_DONE;
}

static void release(job *t) {
    for (size_t i = 0; i < t->count; i++) mica_cli_text_line_clear(&t->entries[i]);
    mica_cli_lines_free(&t->lines);
    mica_model_free(t->model);
    free(t->names);
    free(t);
}

static int run(const mica_cli_args *args) {
    if (args->calibrate && !args->labels) return mica_cli_usage("classify", "--calibrate needs --labels");
    if (args->jsonl && args->csv) return mica_cli_usage("classify", "--jsonl and --csv exclude each other");
    if (args->prompt && !strstr(args->prompt, "{text}")) return mica_cli_usage("classify", "--prompt has no {text}");
    job *t = mica_cli_realloc(NULL, sizeof *t);
    memset(t, 0, sizeof *t);
    t->args = args;
    t->options = (mica_classify_options){.labels = t->labels, .prompt = args->prompt, .chat = args->chat, .calibrate = args->calibrate, .adapter = args->use_adapter,
                                         .progress = on_step, .context = t};
    int status = MICA_EXIT_USAGE;
    if (read_labels(t)) status = (t->model = mica_cli_load(args)) ? run_job(t) : MICA_EXIT_FAILED;
    release(t);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"labels", 0, MICA_CLI_STRING, AT(labels), 0, 0, "A,B,C", "the classes; without them the answer is the likeliest next token"},
    {"prompt", 0, MICA_CLI_STRING, AT(prompt), 0, 0, "TEMPLATE", "what is put before the model, with {text} for the text (default: the text itself)"},
    {"chat", 0, MICA_CLI_FLAG, AT(chat), 0, 0, NULL, "put the prompt through the chat template, as a user's message"},
    {"calibrate", 0, MICA_CLI_FLAG, AT(calibrate), 0, 0, NULL, "divide each label's probability by the one it has after an empty text"},
    {"jsonl", 0, MICA_CLI_FLAG, AT(jsonl), 0, 0, NULL, "lines are {\"text\":…}, with an \"id\" if they like, or JSON strings"},
    {"csv", 0, MICA_CLI_INT, AT(csv), 1, 10000, "N", "the text is the N-th field of lines separated by commas"},
    {"use-adapter", 0, MICA_CLI_STRING, AT(use_adapter), 0, 0, "NAME", "classify with the adapter of that NAME; \"\": without any"},
    {"context", 0, MICA_CLI_INT, AT(context), 1, 1e9, "N", "most positions of a prompt (default: the model's own)"},
    {.name = NULL},
};

const mica_cli_command mica_cli_classify = {
    .name = "classify",
    .synopsis = "MODEL",
    .summary = "put each line of stdin into one of several classes",
    .description =
        "Scores each label as the model's continuation of the prompt: the exact log-probability of all its tokens. A space is put before a label\n"
        "where the prompt ends with a word or closing punctuation. Each line gives one line: the label and its probability among the labels;\n"
        "with --json or --jsonl {\"label\",\"probabilities\",\"logprobs\"}. A line that is wrong gives an error line. A table of the classes and the\n"
        "speed follow on stderr.",
    .example = "mica classify qwen2.5-0.5b --labels sport,politics --prompt \"Text: {text} Topic:\" < lines.txt\n"
               "mica classify model.gguf --labels yes,no --calibrate --jsonl --prompt \"{text} Is that good?\" < reviews.jsonl",
    .min_words = 1,
    .max_words = 1,
    .groups = MICA_CLI_LOADING | MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
