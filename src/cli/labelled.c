// SPDX-License-Identifier: Apache-2.0
// Accuracy: every text of a file is classified as `mica classify` would, and the answer compared with the text's label.
#include "cli/labelled.h"
#include "cli/cmd.h"
#include "cli/json_read.h"
#include "cli/lines.h"
#include "mica/classify.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, MOST_LABELS = 1000 };

typedef struct labelled {
    char *text, *label;
    size_t line;
} labelled;

typedef struct tally { // of a label
    size_t texts, correct, predicted;
} tally;

typedef struct job {
    const mica_cli_args *args;
    const char *file;
    labelled *items;
    size_t count, done, correct, failed;
    const char *labels[MOST_LABELS];
    tally tallies[MOST_LABELS];
    size_t label_count;
    char *names; // of --labels
    mica_cli_progress progress;
    mica_cli_lines none;
    int64_t tokens;
    double seconds;
} job;

// ---- input -----------------------------------------------------------------------------------------------------
static const char *text_field(const mica_cli_args *args) { return args->text_field ? args->text_field : "text"; }
static const char *label_field(const mica_cli_args *args) { return args->label_field ? args->label_field : "label"; }

/** A line's text and label; false and *why. Labels may be numbers or truth values too. */
static bool read_item(const mica_cli_args *args, const char *line, labelled *item, const char **why) {
    mica_cli_value object, v;
    *item = (labelled){0};
    if (!mica_cli_json_read(line, &object, why)) return false;
    item->text = mica_cli_json_string_member(&object, text_field(args));
    item->label = mica_cli_json_string_member(&object, label_field(args));
    if (!item->label && mica_cli_json_member(&object, label_field(args), &v) && !strchr("{[n\"", *v.text)) item->label = strndup(v.text, v.size);
    if (item->text && item->label) return true;
    *why = item->text ? "there is no label" : "there is no text";
    free(item->text), free(item->label);
    return false;
}

bool mica_cli_labelled(const mica_cli_args *args, const char *file) {
    FILE *f = fopen(file, "r");
    char *line = NULL;
    size_t capacity = 0;
    labelled item;
    const char *why;
    bool found = false, ok = f != NULL;
    while (ok && getline(&line, &capacity, f) >= 0)
        if (line[strspn(line, " \t\r\n")]) {
            found = read_item(args, line, &item, &why);
            if (found) free(item.text), free(item.label);
            break;
        }
    if (f) fclose(f);
    free(line);
    return found;
}

static bool read_items(job *t) {
    mica_cli_text file = {0};
    bool ok = mica_cli_read_file(t->file, &file);
    size_t number = 0;
    for (char *line = file.data, *next; ok && line && *line; line = next) {
        labelled item;
        const char *why;
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        number++;
        if (!line[strspn(line, " \t\r")]) continue;
        if (!read_item(t->args, line, &item, &why)) {
            ok = !mica_cli_fail("eval: %s:%zu: %s (wanted: {\"%s\":…,\"%s\":…})", t->file, number, why, text_field(t->args), label_field(t->args));
            break;
        }
        item.line = number;
        if ((t->count & (t->count - 1)) == 0) t->items = mica_cli_realloc(t->items, (t->count ? 2 * t->count : 1) * sizeof item);
        t->items[t->count++] = item;
    }
    free(file.data);
    if (ok && !t->count) ok = !mica_cli_fail("eval: %s: there are no lines in it", t->file);
    return ok;
}

/** The place of a label; label_count if it is none of them. */
static size_t place_of(const job *t, const char *label) {
    size_t i = 0;
    while (i < t->label_count && strcmp(t->labels[i], label) != 0) i++;
    return i;
}

static bool choose_labels(job *t) {
    if (t->args->labels) t->label_count = mica_cli_labels("eval", t->args->labels, MOST_LABELS, t->labels, &t->names);
    if (t->args->labels && !t->label_count) return false;
    for (size_t i = 0; i < t->count; i++) {
        const labelled *item = &t->items[i];
        size_t at = place_of(t, item->label);
        bool fresh = at == t->label_count;
        if (fresh && t->args->labels) return !mica_cli_fail("eval: %s:%zu: the label \"%s\" is none of --labels", t->file, item->line, item->label);
        if (fresh && at == MOST_LABELS) return !mica_cli_fail("eval: %s:%zu: more than %d labels", t->file, item->line, (int)MOST_LABELS);
        if (fresh) t->labels[t->label_count++] = item->label;
        t->tallies[at].texts++;
    }
    return true;
}

// ---- answers ---------------------------------------------------------------------------------------------------
static bool on_step(void *context, size_t done, size_t count) {
    job *t = context;
    double seconds = mica_cli_seconds() - t->progress.started;
    (void)count;
    mica_cli_progress_show(&t->progress, &t->none, t->done + done, "texts", (double)(t->done + done) / fmax(seconds, 1e-9), "texts/s");
    return !mica_cli_stopped();
}

static void count_answer(job *t, const labelled *item, const mica_class *c) {
    t->done++;
    if (c->error.code) {
        if (!t->failed++) mica_cli_note(t->args, "eval: %s:%zu: %s (counted as wrong, as are others like it)", t->file, item->line, c->error.msg);
        return;
    }
    bool right = strcmp(t->labels[c->label], item->label) == 0;
    t->tallies[c->label].predicted++;
    t->tallies[c->label].correct += right;
    t->correct += right;
}

static bool classify(job *t, mica_model *model) {
    const mica_classify_options options = {.labels = t->labels, .label_count = t->label_count, .prompt = t->args->prompt, .chat = t->args->chat,
                                           .calibrate = t->args->calibrate, .progress = on_step, .context = t};
    double started = mica_cli_seconds();
    for (size_t at = 0, n; at < t->count && !mica_cli_stopped(); at += n) {
        const char *texts[BLOCK];
        mica_classes out = {0};
        mica_error err = {0};
        n = t->count - at < BLOCK ? t->count - at : BLOCK;
        for (size_t i = 0; i < n; i++) texts[i] = t->items[at + i].text;
        if (!mica_classify(model, texts, n, &options, &out, &err)) return !mica_cli_fail_error("eval", &err);
        for (size_t i = 0; i < n && !mica_cli_stopped(); i++) count_answer(t, &t->items[at + i], &out.items[i]);
        t->tokens += out.metrics.prompt_tokens;
        mica_classes_free(&out);
    }
    t->seconds = mica_cli_seconds() - started;
    return true;
}

// ---- output ----------------------------------------------------------------------------------------------------
static double accuracy(const job *t) { return (double)t->correct / (double)t->done; }
static double error_of(const job *t) { return sqrt(accuracy(t) * (1 - accuracy(t)) / (double)t->done); }

static void print_result(const job *t) {
    size_t width = 8;
    for (size_t i = 0; i < t->label_count; i++) width = strlen(t->labels[i]) > width ? strlen(t->labels[i]) : width;
    printf("accuracy     %.2f %% ± %.2f %%: %zu of %zu texts, %.1f texts/s, %.1f tokens/s\n", 100 * accuracy(t), 100 * error_of(t), t->correct, t->done,
           (double)t->done / t->seconds, (double)t->tokens / t->seconds);
    printf("%-*s    texts  correct    given\n", (int)width, "label");
    for (size_t i = 0; i < t->label_count; i++)
        printf("%-*s %8zu %8zu %8zu\n", (int)width, t->labels[i], t->tallies[i].texts, t->tallies[i].correct, t->tallies[i].predicted);
}

static void put_result(const job *t) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "kind", "labels");
    mica_cli_json_string(&j, "file", t->file);
    mica_cli_json_double(&j, "accuracy", accuracy(t));
    mica_cli_json_double(&j, "accuracy_standard_error", error_of(t));
    mica_cli_json_int(&j, "texts", (int64_t)t->done);
    mica_cli_json_int(&j, "correct", (int64_t)t->correct);
    mica_cli_json_int(&j, "failed", (int64_t)t->failed);
    mica_cli_json_open(&j, "labels", '{');
    for (size_t i = 0; i < t->label_count; i++) {
        mica_cli_json_open(&j, t->labels[i], '{');
        mica_cli_json_int(&j, "texts", (int64_t)t->tallies[i].texts);
        mica_cli_json_int(&j, "correct", (int64_t)t->tallies[i].correct);
        mica_cli_json_int(&j, "given", (int64_t)t->tallies[i].predicted);
        mica_cli_json_close(&j, '}');
    }
    mica_cli_json_close(&j, '}');
    mica_cli_json_double(&j, "texts_per_second", (double)t->done / t->seconds);
    mica_cli_json_double(&j, "tokens_per_second", (double)t->tokens / t->seconds);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static int run(job *t) {
    if (!read_items(t)) return MICA_EXIT_FAILED;
    if (!choose_labels(t)) return t->args->labels && !t->label_count ? MICA_EXIT_USAGE : MICA_EXIT_FAILED;
    mica_model *model = mica_cli_load(t->args);
    if (!model) return MICA_EXIT_FAILED;
    mica_cli_watch_flag();
    mica_cli_progress_start(&t->progress, t->args);
    bool ok = classify(t, model);
    mica_cli_progress_end(&t->progress);
    mica_model_free(model);
    if (!ok) return MICA_EXIT_FAILED;
    if (mica_cli_stopped()) return MICA_EXIT_STOPPED;
    if (t->args->json) put_result(t);
    else print_result(t);
    return MICA_EXIT_DONE;
}

int mica_cli_accuracy(const mica_cli_args *args, const char *file) {
    job *t = mica_cli_realloc(NULL, sizeof *t);
    memset(t, 0, sizeof *t);
    t->args = args, t->file = file;
    int status = run(t);
    for (size_t i = 0; i < t->count; i++) free(t->items[i].text), free(t->items[i].label);
    free(t->items), free(t->names), free(t);
    return status;
}
