// SPDX-License-Identifier: Apache-2.0
// stdin by lines without waiting for them: a slow or endless writer must not keep what it has sent from being computed, and no more is read
// than is asked for.
#include "cli/lines.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void mica_cli_lines_open(mica_cli_lines *l) {
    struct stat st;
    *l = (mica_cli_lines){0};
    if (fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode)) l->all = (int64_t)st.st_size;
}

void mica_cli_lines_free(mica_cli_lines *l) { free(l->buffer); }

/** Reads a piece more; false if there is none now. */
static bool read_more(mica_cli_lines *l, bool wait) {
    enum { PIECE = 1 << 16 };
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&ready, 1, wait ? -1 : 0) <= 0) return false;
    if (l->at) {
        memmove(l->buffer, l->buffer + l->at, l->size - l->at);
        l->size -= l->at, l->at = 0;
    }
    if (l->capacity < l->size + PIECE + 1) l->buffer = mica_cli_realloc(l->buffer, l->capacity = 2 * l->size + PIECE + 1);
    ssize_t n = read(STDIN_FILENO, l->buffer + l->size, PIECE);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return false;
    if (n <= 0) {
        l->ended = true, l->failed = n < 0;
        return true;
    }
    l->size += (size_t)n, l->read += n;
    return true;
}

mica_cli_got mica_cli_lines_next(mica_cli_lines *l, bool wait, char **line, size_t *size) {
    size_t looked = 0; // bytes known to hold no end of a line
    for (;;) {
        size_t left = l->size - l->at;
        char *start = left ? l->buffer + l->at : NULL, *end = left > looked ? memchr(start + looked, '\n', left - looked) : NULL;
        if (!end && l->ended && left) end = start + left; // the last line needs none
        if (end) {
            *line = start, *size = (size_t)(end - start);
            l->at += *size + ((size_t)(end - start) < left);
            *end = 0;
            if (*size && end[-1] == '\r') start[--*size] = 0;
            l->number++;
            return MICA_CLI_LINE;
        }
        if (l->ended) return MICA_CLI_END;
        looked = left;
        if (!read_more(l, wait) && (!wait || mica_cli_stopped())) return MICA_CLI_NOTHING_YET;
    }
}

// ---- progress ----------------------------------------------------------------------------------------------
double mica_cli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void mica_cli_progress_start(mica_cli_progress *p, const mica_cli_args *args) {
    *p = (mica_cli_progress){.shown = !args->quiet && isatty(STDERR_FILENO), .started = mica_cli_seconds()};
}

void mica_cli_progress_show(mica_cli_progress *p, const mica_cli_lines *l, size_t done, const char *things, double rate, const char *unit) {
    enum { WIDTH = 24 };
    double now = mica_cli_seconds();
    if (!p->shown || now - p->last < 0.1) return;
    p->last = now;
    fputs("\r\033[K", stderr);
    if (l->all > 0) {
        double share = (double)(l->read - (int64_t)(l->size - l->at)) / (double)l->all;
        for (int i = 0; i < WIDTH; i++) fputs(i < (int)(share * WIDTH) ? "█" : "░", stderr);
        fprintf(stderr, " %3.0f %%  ", 100 * share);
    }
    fprintf(stderr, "%zu %s  %.1f %s", done, things, rate, unit);
    fflush(stderr);
}

void mica_cli_progress_end(mica_cli_progress *p) {
    if (p->shown && p->last > 0) fputs("\r\033[K", stderr);
    p->last = 0;
}
