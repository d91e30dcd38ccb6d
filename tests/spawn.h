// SPDX-License-Identifier: Apache-2.0
// Runs the built command for tests: arguments and stdin in, stdout, stderr and status out. Both outputs are drained
// together, so neither can block the child; a child that outlives its time is killed and the test fails.
#ifndef MICA_TEST_SPAWN_H
#define MICA_TEST_SPAWN_H

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { SPAWN_WORDS = 40, SPAWN_SECONDS = 120 };

typedef struct spawned {
    pid_t pid;
    int in, out, err; // our ends; -1 once closed
    char *text[2];    // what came from stdout and stderr, NUL-terminated
    size_t size[2];
    int status; // exit status, or 1000 + signal
} spawned;

/** Starts build/mica with these words (ended by NULL). env: "NAME=value" to set, or NULL. */
static inline spawned spawn_start(const char *const *words, const char *env) {
    int in[2], out[2], err[2];
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), 0);
    spawned s = {.pid = fork(), .in = in[1], .out = out[0], .err = err[0]};
    assert_true(s.pid >= 0);
    if (s.pid == 0) {
        char *argv[SPAWN_WORDS + 2] = {(char *)(uintptr_t) "mica"};
        for (size_t i = 0; words[i]; i++) argv[i + 1] = (char *)(uintptr_t)words[i];
        dup2(in[0], 0), dup2(out[1], 1), dup2(err[1], 2);
        signal(SIGPIPE, SIG_DFL);
        if (env) putenv((char *)(uintptr_t)env);
        execv(MICA_BINARY_DIR "/mica", argv);
        _exit(127);
    }
    close(in[0]), close(out[1]), close(err[1]);
    for (int i = 0; i < 2; i++) s.text[i] = calloc(1, 1);
    return s;
}

/** Takes what one of the pipes has to give; false at its end. */
static inline bool spawn_read(spawned *s, int which) {
    char chunk[1 << 14];
    int *fd = which ? &s->err : &s->out;
    ssize_t n = read(*fd, chunk, sizeof chunk);
    if (n <= 0) return close(*fd), *fd = -1, false;
    s->text[which] = realloc(s->text[which], s->size[which] + (size_t)n + 1);
    memcpy(s->text[which] + s->size[which], chunk, (size_t)n);
    s->size[which] += (size_t)n;
    s->text[which][s->size[which]] = 0;
    return true;
}

/** Waits until stdout has at least `want` bytes (or ends). */
static inline void spawn_await(spawned *s, size_t want) {
    while (s->out >= 0 && s->size[0] < want && spawn_read(s, 0)) {}
}

/** Feeds stdin, drains both outputs and collects the status. */
static inline void spawn_finish(spawned *s, const char *input, size_t n) {
    signal(SIGPIPE, SIG_IGN);
    fcntl(s->in, F_SETFL, O_NONBLOCK);
    for (size_t at = 0; s->in >= 0 || s->out >= 0 || s->err >= 0;) {
        struct pollfd p[3] = {{s->in, POLLOUT, 0}, {s->out, POLLIN, 0}, {s->err, POLLIN, 0}};
        if (at == n && s->in >= 0) {
            close(s->in), s->in = -1;
            continue;
        }
        if (poll(p, 3, SPAWN_SECONDS * 1000) <= 0) {
            kill(s->pid, SIGKILL);
            fail_msg("mica did not end within %d seconds", SPAWN_SECONDS);
        }
        if (p[0].revents) {
            ssize_t k = write(s->in, input + at, n - at);
            at = k < 0 ? n : at + (size_t)k; // the child may not want to read it
        }
        if (p[1].revents) spawn_read(s, 0);
        if (p[2].revents) spawn_read(s, 1);
    }
    int status;
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    s->status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline void spawn_free(spawned *s) {
    for (int i = 0; i < 2; i++) free(s->text[i]), s->text[i] = NULL;
}

/** Runs to the end: RUN("generate", model, "-n", "4") with no stdin. */
#define RUN(...) spawn_run("", 0, (const char *const[]){__VA_ARGS__, NULL})
#define RUN_INPUT(input, size, ...) spawn_run(input, size, (const char *const[]){__VA_ARGS__, NULL})
static inline spawned spawn_run(const char *input, size_t n, const char *const *words) {
    spawned s = spawn_start(words, NULL);
    spawn_finish(&s, input, n);
    return s;
}

/** Asserts a failure: the status, nothing on stdout, one line "mica: …" that holds `what`. */
static inline void assert_failed(spawned s, int status, const char *what) {
    if (s.status != status || !strstr(s.text[1], what)) fail_msg("status %d, stderr: %s (wanted %d, \"%s\")", s.status, s.text[1], status, what);
    assert_string_equal(s.text[0], "");
    assert_memory_equal(s.text[1], "mica: ", 6);
    assert_ptr_equal(strchr(s.text[1], '\n'), s.text[1] + s.size[1] - 1);
    spawn_free(&s);
}

static inline void assert_done(const spawned *s) {
    if (s->status != 0) fail_msg("status %d, stderr: %s", s->status, s->text[1]);
}
#endif
