// SPDX-License-Identifier: Apache-2.0
// Lines of stdin for commands that compute meanwhile, and how far they are.
#ifndef MICA_CLI_LINES_H
#define MICA_CLI_LINES_H

#include "cli/cli.h"

typedef struct mica_cli_lines {
    char *buffer;
    size_t size, at, capacity;
    size_t number;     // of the line read last, from 1
    int64_t read, all; // bytes; all 0: unknown
    bool ended, failed;
} mica_cli_lines;

typedef enum mica_cli_got { MICA_CLI_LINE, MICA_CLI_NOTHING_YET, MICA_CLI_END } mica_cli_got;

void mica_cli_lines_open(mica_cli_lines *l);
/** The next line, without its end and NUL-terminated; *line lives until the next call. wait: until there is one or Ctrl-C was pressed. */
mica_cli_got mica_cli_lines_next(mica_cli_lines *l, bool wait, char **line, size_t *size);
void mica_cli_lines_free(mica_cli_lines *l);

typedef struct mica_cli_progress {
    bool shown; // on a terminal only
    double started, last;
} mica_cli_progress;

void mica_cli_progress_start(mica_cli_progress *p, const mica_cli_args *args);
/** Shows, a few times a second, a bar (where the input's size is known), how many are done, and a rate. */
void mica_cli_progress_show(mica_cli_progress *p, const mica_cli_lines *l, size_t done, const char *things, double rate, const char *unit);
void mica_cli_progress_end(mica_cli_progress *p);
double mica_cli_seconds(void);
#endif
