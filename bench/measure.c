// SPDX-License-Identifier: Apache-2.0
// Runs a command and says on stderr, in its last line, how long the process lived, when it first wrote to stdout and how
// much memory it held at most:  measure: {"seconds":…,"first_output":…,"peak_rss":…,"status":…}
//   measure [--busy N] COMMAND [ARG…]     N: that many processes compute beside it meanwhile
// What the command writes is passed on. Small and in C, so that its own start is not part of what it measures.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BUSY = 64 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static pid_t start_busy(void) {
    pid_t parent = getpid(), child = fork();
    if (child) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    for (volatile unsigned n = 0;; n++) {}
}

static pid_t start(char **command, int out) {
    pid_t child = fork();
    if (child) return child;
    dup2(out, STDOUT_FILENO);
    execvp(command[0], command);
    fprintf(stderr, "measure: %s: %s\n", command[0], strerror(errno));
    _exit(127);
}

// Passes on what arrives; when the first byte did.
static double pass_on(int in) {
    char buffer[1 << 16];
    double first = 0;
    for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;) {
        if (!(first > 0)) first = now();
        for (ssize_t done = 0, k; done < n; done += k)
            if ((k = write(STDOUT_FILENO, buffer + done, (size_t)(n - done))) < 0) return first;
    }
    return first;
}

int main(int argc, char **argv) {
    int at = 1, busy = 0, ends[2], status = 0;
    if (argc > 2 && !strcmp(argv[1], "--busy")) busy = atoi(argv[2]), at = 3;
    if (at >= argc || busy < 0 || busy > MOST_BUSY) return fprintf(stderr, "usage: measure [--busy N] COMMAND [ARG…]\n"), 2;
    pid_t others[MOST_BUSY];
    for (int i = 0; i < busy; i++) others[i] = start_busy();
    if (pipe(ends)) return perror("measure"), 1;
    double started = now();
    pid_t child = start(argv + at, ends[1]);
    close(ends[1]);
    double first = pass_on(ends[0]);
    struct rusage used = {0};
    if (child < 0 || wait4(child, &status, 0, &used) < 0) return perror("measure"), 1;
    double seconds = now() - started;
    for (int i = 0; i < busy; i++)
        if (others[i] > 0) kill(others[i], SIGKILL), waitpid(others[i], NULL, 0);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    fprintf(stderr, "measure: {\"seconds\":%.6f,\"first_output\":%.6f,\"peak_rss\":%lld,\"status\":%d}\n", seconds,
            first > 0 ? first - started : -1.0, (long long)used.ru_maxrss * 1024, code);
    return code;
}
