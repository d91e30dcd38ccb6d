// SPDX-License-Identifier: Apache-2.0
// vfork and exec. A process that has mapped gigabytes of weights must not be copied, page tables included, to start another program; vfork
// does not. Between vfork and exec the child runs in our memory: only system calls there, handlers of signals reset before any is let through.
#include "backend/mlx_lm/spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IN, OUT, ERR, STATUS, PIPES }; // STATUS: closed by exec, or carries the errno of what failed before

typedef struct ends {
    int ours[PIPES], theirs[PIPES];
} ends;

static void close_one(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void close_ends(ends *e) {
    for (int i = 0; i < PIPES; i++) close_one(&e->ours[i]), close_one(&e->theirs[i]);
}

// A program that runs without stdin, stdout or stderr would be given their numbers, which the child overwrites.
static bool above_stdio(int *fd) {
    if (*fd > 2) return true;
    int moved = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
    close(*fd);
    *fd = moved;
    return moved >= 0;
}

static bool make_ends(ends *e) {
    for (int i = 0; i < PIPES; i++) e->ours[i] = e->theirs[i] = -1;
    for (int i = 0; i < PIPES; i++) {
        int pair[2];
        if (i == IN ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) : pipe2(pair, O_CLOEXEC)) return false;
        e->ours[i] = pair[0], e->theirs[i] = pair[1];
        if (!above_stdio(&e->ours[i]) || !above_stdio(&e->theirs[i])) return false;
        if (i != STATUS && fcntl(e->ours[i], F_SETFL, O_NONBLOCK)) return false;
    }
    return true;
}

// ---- in the child -------------------------------------------------------------------------------------------
static void reset_signals(void) {
    struct sigaction action;
    for (int sig = 1; sig < NSIG; sig++)
        if (sigaction(sig, NULL, &action) == 0 && action.sa_handler != SIG_DFL) {
            memset(&action, 0, sizeof action);
            action.sa_handler = SIG_DFL;
            sigaction(sig, &action, NULL);
        }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool become(const char *const *argv, char **environment, const ends *e, pid_t parent) {
    setsid(); // keys of a terminal (Ctrl-C, Ctrl-Z) are the program's to handle
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent) return false;
    for (int i = 0; i <= ERR; i++)
        if (dup2(e->theirs[i], i) < 0) return false;
#ifdef SYS_close_range
    syscall(SYS_close_range, 3u, ~0u, 4u); // 4: close on exec; descriptors that the program forgot to mark
#endif
    reset_signals();
    execve(argv[0], (char *const *)(uintptr_t)argv, environment);
    return false;
}

static pid_t start(const char *const *argv, char **environment, const ends *e, pid_t parent) {
    pid_t pid = vfork();
    if (pid == 0) {
        become(argv, environment, e, parent);
        int why = errno;
        ssize_t told = write(e->theirs[STATUS], &why, sizeof why);
        _exit(told == (ssize_t)sizeof why ? 127 : 126);
    }
    return pid;
}

// ---- in the parent ------------------------------------------------------------------------------------------
// The errno of a failed exec; 0 if the program runs.
static int read_status(int fd) {
    int why = 0;
    ssize_t n;
    do n = read(fd, &why, sizeof why);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof why ? why : 0;
}

bool mica_spawn(const char *const *argv, mica_spawned *s, mica_error *err) {
    ends e;
    sigset_t all, before;
    if (!make_ends(&e)) return mica_fail_errno(err, "make pipes for", argv[0]), close_ends(&e), false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = start(argv, environ, &e, getpid());
    int failed = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (int i = 0; i < PIPES; i++) close_one(&e.theirs[i]);
    if (pid > 0 && (failed = read_status(e.ours[STATUS]))) waitpid(pid, NULL, 0);
    if (pid < 0 || failed) {
        close_ends(&e);
        errno = failed;
        return mica_fail_errno(err, "run", argv[0]);
    }
    close_one(&e.ours[STATUS]);
    *s = (mica_spawned){.pid = pid, .in = e.ours[IN], .out = e.ours[OUT], .err = e.ours[ERR], .pidfd = -1};
#ifdef SYS_pidfd_open
    s->pidfd = (int)syscall(SYS_pidfd_open, pid, 0u); // closed on exec by itself
#endif
    return true;
}

void mica_spawn_kill(const mica_spawned *s) {
    kill(-s->pid, SIGKILL);
    kill(s->pid, SIGKILL);
}

// The pid is not given to another process before it has been reaped: so the session is ended in between.
int mica_spawn_reap(mica_spawned *s) {
    siginfo_t info;
    while (waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {}
    kill(-s->pid, SIGKILL);
    int status = 0;
    while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR) {}
    close_one(&s->in), close_one(&s->out), close_one(&s->err), close_one(&s->pidfd);
    return status;
}
