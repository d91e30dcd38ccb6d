// SPDX-License-Identifier: Apache-2.0
// A supervised child process that speaks lines. One thread of ours starts it, feeds its stdin, drains its stdout and stderr, and reaps it: callers never
// block on a pipe, the child dies with that thread or with this process, and no signal is ever raised in the program.
#ifndef MICA_BACKEND_MLX_LM_CHILD_H
#define MICA_BACKEND_MLX_LM_CHILD_H

#include "base/base.h"

typedef struct mica_child mica_child;

/** Called by the child's thread. */
typedef struct mica_child_events {
    void *context;
    void (*line)(void *context, const char *line, size_t n); // one line of stdout, without its end; not NUL-terminated. Empty: a part of one
    void (*woken)(void *context);                            // after something was written to the wake descriptor
    void (*ended)(void *context, const mica_error *why);     // once, as the last call: it is gone, and what it last said on stderr
} mica_child_events;

/** argv[0] is the path of a program. wake: an eventfd that the caller owns. NULL if the program cannot be started. */
mica_child *mica_child_start(const char *const *argv, int wake, const mica_child_events *events, mica_error *err);
/** Queues bytes for stdin; never blocks. False when out of memory. */
bool mica_child_send(mica_child *child, const char *bytes, size_t n);
/** Ends it at once; `why` is what the error says first. Later reasons are ignored. */
void mica_child_kill(mica_child *child, const char *why);
/** Closes its stdin, waits a little for it to end by itself, ends it, and frees everything. NULL is fine. */
void mica_child_free(mica_child *child);

/** Runs a program to its end, at most `seconds`; its stdout goes to *out, and if it fails the error quotes its stderr. */
bool mica_child_run(const char *const *argv, double seconds, mica_buf *out, mica_error *err);

enum { MICA_CHILD_LINE_MOST = 64 << 20 }; // bytes of one line; a child that writes a longer one is ended
#endif
