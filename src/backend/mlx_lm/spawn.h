// SPDX-License-Identifier: Apache-2.0
// Starting a program with pipes, without disturbing the program that asks for it.
#ifndef MICA_BACKEND_MLX_LM_SPAWN_H
#define MICA_BACKEND_MLX_LM_SPAWN_H

#include "base/base.h"
#include <sys/types.h>

typedef struct mica_spawned {
    pid_t pid;
    int in;       // a socket to its stdin: writing to it raises no SIGPIPE with MSG_NOSIGNAL
    int out, err; // from its stdout and stderr; do not block
    int pidfd;    // readable once it has ended; -1 where the kernel has none
} mica_spawned;

/** The child leads a session of its own, has no descriptor but these, and gets SIGKILL when the calling thread ends. */
bool mica_spawn(const char *const *argv, mica_spawned *out, mica_error *err);
/** Ends the child and all of its session. */
void mica_spawn_kill(const mica_spawned *s);
/** Waits for it (blocking), ends what is left of its session and closes the descriptors. Gives waitpid's status. */
int mica_spawn_reap(mica_spawned *s);
#endif
