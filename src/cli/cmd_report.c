// SPDX-License-Identifier: Apache-2.0
// `mica report`: the page that `mica train --report` makes, from a log, also while the run is under way or after it was killed.
#include "cli/report.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/** LOG, or log.jsonl in the folder LOG. */
static char *log_of(const char *given) {
    struct stat st;
    bool folder = stat(given, &st) == 0 && S_ISDIR(st.st_mode);
    return mica_cli_join(given, folder ? "/log.jsonl" : "", "");
}

/** log.html for log.jsonl. */
static char *page_of(const char *log) {
    const char *dot = strrchr(log, '.'), *slash = strrchr(log, '/');
    bool has_end = dot && (!slash || dot > slash);
    char *stem = mica_cli_copy(log, has_end ? (size_t)(dot - log) : strlen(log)), *page = mica_cli_join(stem, ".html", "");
    free(stem);
    return page;
}

static int run(const mica_cli_args *args) {
    char *log = log_of(args->words[0]), *page = page_of(log);
    const char *path = args->output ? args->output : page;
    bool ok = mica_cli_report_write(args, log, path);
    if (ok && args->json) {
        mica_cli_json j = {.out = stdout};
        mica_cli_json_open(&j, NULL, '{');
        mica_cli_json_string(&j, "path", path);
        mica_cli_json_close(&j, '}');
        mica_cli_json_end(&j);
    }
    free(log), free(page);
    return ok ? MICA_EXIT_DONE : MICA_EXIT_FAILED;
}

static const mica_cli_option options[] = {
    {"output", 'o', MICA_CLI_STRING, offsetof(mica_cli_args, output), 0, 0, "FILE", "the page (default: the log's name, with .html)"},
    {.name = NULL},
};

const mica_cli_command mica_cli_report = {
    .name = "report",
    .synopsis = "LOG",
    .summary = "a page with the curves of a training run",
    .description = "Makes one HTML page of the log that `mica train --log` or `--report` writes (LOG may be the adapter's folder, where log.jsonl is):\n"
                   "training and validation loss, learning rate, gradient norm, tokens per second, memory, answers of the model before and after,\n"
                   "and the configuration. Needs gnuplot. Works while the run is under way, too.",
    .example = "mica report out/log.jsonl --output report.html",
    .min_words = 1,
    .max_words = 1,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
