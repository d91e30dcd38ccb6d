// SPDX-License-Identifier: Apache-2.0
// Everything that goes to stderr, and the state of stdout. A message is always one line, whatever is in it.
#include "cli/cli.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** Writes "mica: " and the message, with control characters made visible as '?'. */
static void MICA_PRINTF(1, 0) say(const char *fmt, va_list args) {
    char line[2000];
    vsnprintf(line, sizeof line, fmt, args);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = '?';
    fflush(stdout); // what was printed so far comes first, also when both go to one file
    fprintf(stderr, "mica: %s\n", line);
}

int mica_cli_fail(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say(fmt, args);
    va_end(args);
    return MICA_EXIT_FAILED;
}

int mica_cli_fail_error(const char *what, const mica_error *err) {
    if (strncmp(err->msg, what, strlen(what)) == 0) return mica_cli_fail("%s", err->msg);
    return mica_cli_fail("%s: %s", what, err->msg);
}

int mica_cli_usage(const char *command, const char *fmt, ...) {
    char message[1000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (command) mica_cli_fail("%s: %s; see `mica help %s`", command, message, command);
    else mica_cli_fail("%s; see `mica help`", message);
    return MICA_EXIT_USAGE;
}

void mica_cli_note(const mica_cli_args *args, const char *fmt, ...) {
    if (args->quiet) return;
    va_list list;
    va_start(list, fmt);
    say(fmt, list);
    va_end(list);
}

bool mica_cli_colour(FILE *stream) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return !(no && *no) && !(term && strcmp(term, "dumb") == 0) && isatty(fileno(stream));
}

static int lost_because; // errno of the first write to stdout that failed

bool mica_cli_output_lost(void) {
    if (ferror(stdout) && !lost_because) lost_because = errno ? errno : EIO;
    return lost_because != 0;
}

int mica_cli_finish(int status) {
    errno = 0;
    fflush(stdout);
    if (!mica_cli_output_lost()) return status;
    mica_cli_fail("stdout: %s", strerror(lost_because));
    return status == MICA_EXIT_DONE ? MICA_EXIT_FAILED : status;
}

