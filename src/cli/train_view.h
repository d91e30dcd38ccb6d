// SPDX-License-Identifier: Apache-2.0
// What a training run shows of itself: lines, a bar on a terminal, JSON (train_view.c); and the log that outlives it (train_log.c).
#ifndef MICA_CLI_TRAIN_VIEW_H
#define MICA_CLI_TRAIN_VIEW_H

#include "cli/cmd.h"
#include "mica/train.h"

// ---- lines and bar -------------------------------------------------------------------------------------------
typedef struct mica_cli_train_view {
    const mica_cli_args *args; // with all defaults filled in
    bool bar;                  // stderr is a terminal
    bool drawn;                // a bar is there now
    double started, last;      // when training began; when the bar was drawn
    int64_t first;             // the step before this run's first
} mica_cli_train_view;

void mica_cli_train_view_init(mica_cli_train_view *view, const mica_cli_args *args);
void mica_cli_train_show(mica_cli_train_view *view, const mica_train_event *e);
/** Takes the bar away. */
void mica_cli_train_view_clear(mica_cli_train_view *view);
/** What --test found. */
void mica_cli_train_show_test(mica_cli_train_view *view, int64_t step, const mica_evaluation *e);
/** STEP, VALIDATION, CHECKPOINT and DONE as one line of JSON. */
void mica_cli_train_json(FILE *out, const mica_train_event *e);

// ---- log -----------------------------------------------------------------------------------------------------
// A line of JSON for each event: "start" (model, data, configuration), "step", "validation", "checkpoint", "sample", "done", "resume". Of a resumed run
// what came after the checkpoint is taken out again, so that no step is there twice.
typedef struct mica_cli_train_log {
    FILE *file; // NULL: there is none
    const char *path;
} mica_cli_train_log;

/** Begins a log, or goes on with one that is there if e->step > 0. e: START. False after a complaint. */
bool mica_cli_train_log_open(mica_cli_train_log *log, const mica_cli_args *args, const mica_train_event *e);
/** A JSON object without its closing brace, to be ended by mica_cli_train_log_end. */
mica_cli_json mica_cli_train_log_begin(mica_cli_train_log *log, const char *event, int64_t step);
/** False after a complaint: the line could not be written. */
bool mica_cli_train_log_end(mica_cli_train_log *log, mica_cli_json *j);
bool mica_cli_train_log_event(mica_cli_train_log *log, const mica_train_event *e);
bool mica_cli_train_log_close(mica_cli_train_log *log);

// ---- samples -------------------------------------------------------------------------------------------------
typedef struct mica_cli_sample {
    char *prompt, *expected; // as shown; expected "" if the data do not say
    char *history, *last;    // a conversation: the messages before the last one, as JSON or NULL, and the last one; NULL: `prompt` is raw text
} mica_cli_sample;
typedef struct mica_cli_samples {
    mica_cli_sample *items;
    size_t count;
} mica_cli_samples;

/** The prompts: --sample-prompt, else the first examples of the validation (or training) data. */
void mica_cli_samples_read(const mica_cli_args *args, mica_cli_samples *samples);
/** Lets the model (with an adapter unless that is NULL) answer them, and logs that. What goes wrong is only noted. */
void mica_cli_samples_run(const mica_cli_args *args, const mica_cli_samples *samples, const char *model, const char *adapter, int64_t step,
                          mica_cli_train_log *log);
void mica_cli_samples_free(mica_cli_samples *samples);
#endif
