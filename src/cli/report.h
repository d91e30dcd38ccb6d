// SPDX-License-Identifier: Apache-2.0
// The report of a training run: a page made from its log (run_log.c reads it, plot.c has gnuplot draw, report.c writes the page).
#ifndef MICA_CLI_REPORT_H
#define MICA_CLI_REPORT_H

#include "cli/cli.h"

// ---- a log, read ---------------------------------------------------------------------------------------------
typedef struct mica_cli_report_step { // NAN: not in the log
    double step, loss, learning_rate, grad_norm, tokens_per_second, peak_memory_bytes, tokens;
} mica_cli_report_step;

typedef struct mica_cli_report_loss {
    double step, loss;
} mica_cli_report_loss;

typedef struct mica_cli_report_sample {
    double step, number;
    char *prompt, *expected, *text;
} mica_cli_report_sample;

typedef struct mica_cli_report_entry { // of the configuration
    char *name, *value;
} mica_cli_report_entry;

typedef struct mica_cli_run_log { // of the last run in the file
    mica_cli_report_step *steps;
    mica_cli_report_loss *validations;
    mica_cli_report_sample *samples;
    mica_cli_report_entry *config;
    size_t step_count, validation_count, sample_count, config_count;
    char *model, *time, *mica;
    double planned, parameters, trained, seconds; // seconds: NAN if the run has not ended
} mica_cli_run_log;

/** Lines that are no JSON objects or of no known event are passed over. False after a complaint: no file, or no training log. */
bool mica_cli_run_log_read(const char *path, mica_cli_run_log *log);
void mica_cli_run_log_free(mica_cli_run_log *log);

// ---- drawing -------------------------------------------------------------------------------------------------
typedef struct mica_cli_curve {
    const char *title, *colour; // title NULL: not in the key
    double *x, *y;              // [count]; points with NAN are left out
    size_t count;
    bool marked, thin;          // with points; as a background to others
} mica_cli_curve;

typedef struct mica_cli_plot {
    const char *format; // of the numbers at the left axis
    bool from_zero;
    double last;        // right end of the axis of steps
    int width, height;
    const mica_cli_curve *curves;
    size_t count;
} mica_cli_plot;

/** An <svg> element; false after a complaint. */
bool mica_cli_plot_draw(const mica_cli_plot *plot, mica_cli_text *svg);

// ---- the page ------------------------------------------------------------------------------------------------
/** Is there a gnuplot? False after a complaint that says what to install. */
bool mica_cli_report_possible(void);
/** Makes the page `path` from a log; false after a complaint. */
bool mica_cli_report_write(const mica_cli_args *args, const char *log, const char *path);
#endif
