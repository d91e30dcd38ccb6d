// SPDX-License-Identifier: Apache-2.0
// The thread of a child process: one poll loop over its pipes, its end, and a wake-up. Whoever wants something of the child leaves it here under a
// lock and wakes the loop. The thread starts the child itself because the kernel ties "die with your parent" to the thread that forked.
#include "backend/mlx_lm/child.h"
#include "backend/mlx_lm/spawn.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TAIL = 4096, QUOTED = 300, CHUNK = 1 << 16 };
static const double grace = 2;    // seconds that a child has to end after its stdin was closed
static const double parting = 0.5; // and after it closed its stdout

struct mica_child {
    const char *const *argv; // until it has started
    mica_child_events events;
    int wake;
    pthread_t thread;
    mica_spawned process;
    mica_buf in;       // of a line that is not complete
    char tail[TAIL];   // what it said last on stderr
    size_t tail_len;
    double deadline;   // it is ended then; 0 = none
    bool deaf, mute;   // its stdin is closed; its stdout has ended
    pthread_mutex_t lock; // of what follows
    pthread_cond_t changed;
    mica_buf out;      // for its stdin
    size_t sent;       // of these
    char reason[200];  // of ending it; "" = none
    bool started, leaving, killed;
    mica_error error;
};

// ---- what it says -------------------------------------------------------------------------------------------
static void keep_tail(mica_child *c, const char *text, size_t n) {
    if (n > TAIL) text += n - TAIL, n = TAIL;
    size_t drop = c->tail_len + n > TAIL ? c->tail_len + n - TAIL : 0;
    memmove(c->tail, c->tail + drop, c->tail_len - drop);
    memcpy(c->tail + c->tail_len - drop, text, n);
    c->tail_len += n - drop;
}

// The last lines of stderr as one, whole characters only: text[0…QUOTED].
static void quote_tail(const mica_child *c, char *text) {
    size_t end = c->tail_len, n = 0;
    while (end && (unsigned char)c->tail[end - 1] <= ' ') end--;
    size_t from = end > QUOTED ? end - QUOTED : 0;
    while (from && from < end && ((unsigned char)c->tail[from] & 0xC0) == 0x80) from++;
    for (size_t i = from; i < end; i++) {
        unsigned char byte = (unsigned char)c->tail[i];
        if (byte >= ' ' && byte != 0x7F) text[n++] = (char)byte;
        else if (n && text[n - 1] != ' ') text[n++] = ' ';
    }
    text[n] = 0;
}

static void describe_end(mica_child *c, int status, mica_error *why) {
    char said[QUOTED + 1], how[80] = "";
    quote_tail(c, said);
    if (WIFSIGNALED(status)) snprintf(how, sizeof how, "it was ended by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status)) snprintf(how, sizeof how, "it ended with status %d", WEXITSTATUS(status));
    else snprintf(how, sizeof how, "it ended");
    *why = (mica_error){0};
    pthread_mutex_lock(&c->lock);
    bool fine = !c->reason[0] && (c->leaving || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    mica_fail(why, fine ? MICA_OK : MICA_ERR_IO, "%s%s%s", c->reason[0] ? c->reason : how, said[0] ? "; it said: " : "", said);
    pthread_mutex_unlock(&c->lock);
}

static void give_line(mica_child *c, const char *line, size_t n) {
    if (n && line[n - 1] == '\r') n--;
    c->events.line(c->events.context, line, n);
}

static void take_stdout(mica_child *c, const char *chunk, size_t n) {
    for (const char *end; n && (end = memchr(chunk, '\n', n));) {
        size_t len = (size_t)(end - chunk);
        if (!c->in.len) give_line(c, chunk, len);
        else if (mica_buf_append(&c->in, chunk, len)) give_line(c, c->in.data, c->in.len);
        c->in.len = 0;
        chunk += len + 1, n -= len + 1;
    }
    if (n) mica_buf_append(&c->in, chunk, n), c->events.line(c->events.context, "", 0); // a long line is a sign of life before its end
    if (c->in.failed) mica_child_kill(c, "there is no memory for what it answers");
    if (c->in.len > MICA_CHILD_LINE_MOST) mica_child_kill(c, "it wrote a line of more than 64 MiB");
}

// Takes what there is; false at the end of the pipe.
static bool drain(mica_child *c, int fd, bool out) {
    char chunk[CHUNK];
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n > 0 && out) take_stdout(c, chunk, (size_t)n);
    else if (n > 0) keep_tail(c, chunk, (size_t)n);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

// ---- the loop -----------------------------------------------------------------------------------------------
static void feed(mica_child *c) {
    pthread_mutex_lock(&c->lock);
    size_t left = c->out.len - c->sent;
    ssize_t n = left ? send(c->process.in, c->out.data + c->sent, left, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (n > 0) c->sent += (size_t)n;
    if (c->sent == c->out.len || (n < 0 && errno != EAGAIN && errno != EINTR)) c->sent = c->out.len = 0;
    pthread_mutex_unlock(&c->lock);
}

static bool has_ended(const mica_child *c, short pidfd_events) {
    if (c->process.pidfd >= 0) return pidfd_events;
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)c->process.pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid;
}

// Milliseconds to wait at most. A kernel without pidfd is asked now and then whether the child is there.
static int patience(const mica_child *c) {
    double left = c->deadline > 0 ? c->deadline - mica_now() : 1e6;
    if (c->process.pidfd < 0) left = MICA_MIN(left, 0.1);
    return left >= 1e6 ? -1 : left <= 0 ? 0 : (int)(left * 1000) + 1;
}

// Orders that came meanwhile; true if something is to be written.
static bool take_orders(mica_child *c) {
    pthread_mutex_lock(&c->lock);
    bool more = c->out.len > c->sent, killed = c->killed, leaving = c->leaving;
    pthread_mutex_unlock(&c->lock);
    if (leaving && !more && !c->deaf) {
        shutdown(c->process.in, SHUT_WR);
        c->deaf = true;
    }
    if (leaving && c->deadline <= 0) c->deadline = mica_now() + grace;
    if (killed) c->deadline = mica_now();
    return more;
}

// Stays readable to poll until it is read.
static void take_wake(mica_child *c) {
    uint64_t n;
    if (read(c->wake, &n, sizeof n) > 0) c->events.woken(c->events.context);
}

static void supervise(mica_child *c) {
    mica_spawned *p = &c->process;
    bool quiet = false; // stderr has ended
    for (;;) {
        bool more = take_orders(c);
        if (c->deadline > 0 && mica_now() >= c->deadline) mica_spawn_kill(p);
        struct pollfd fds[] = {{c->wake, POLLIN, 0}, {c->mute ? -1 : p->out, POLLIN, 0}, {quiet ? -1 : p->err, POLLIN, 0},
                               {p->pidfd, POLLIN, 0}, {more ? p->in : -1, POLLOUT, 0}};
        if (poll(fds, MICA_COUNT(fds), c->deadline > 0 && mica_now() >= c->deadline ? 10 : patience(c)) < 0 && errno != EINTR) break;
        if (fds[0].revents) take_wake(c);
        if (fds[4].revents) feed(c);
        if (fds[2].revents) quiet = !drain(c, p->err, false);
        if (fds[1].revents && !drain(c, p->out, true)) {
            c->mute = true;
            if (c->deadline <= 0) c->deadline = mica_now() + parting;
        }
        if (has_ended(c, fds[3].revents)) break;
    }
    mica_spawn_kill(p);
}

// What it wrote before its end is still in the pipes; others who hold their other ends (children of it) may go on writing: that is not waited for.
static void drain_rest(mica_child *c) {
    double until = mica_now() + 1;
    for (int i = 0; i < 2; i++) {
        int fd = i ? c->process.err : c->process.out;
        for (struct pollfd p = {fd, POLLIN, 0}; !(i == 0 && c->mute) && mica_now() < until;)
            if (poll(&p, 1, 0) <= 0 || !drain(c, fd, i == 0)) break;
    }
}

static void *run(void *context) {
    mica_child *c = context;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL); // handlers of the program run on its own threads
    mica_error err = {0}, why;
    bool ok = mica_spawn(c->argv, &c->process, &err);
    pthread_mutex_lock(&c->lock);
    c->started = true, c->error = err;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (!ok) return NULL;
    supervise(c);
    drain_rest(c);
    describe_end(c, mica_spawn_reap(&c->process), &why);
    c->events.ended(c->events.context, &why);
    return NULL;
}

// ---- what others ask of it ----------------------------------------------------------------------------------
static void wake(const mica_child *c) {
    uint64_t one = 1;
    if (write(c->wake, &one, sizeof one) < 0) return; // full: it is awake already
}

static void destroy(mica_child *c) {
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    mica_buf_free(&c->in);
    mica_buf_free(&c->out);
    mica_free(c);
}

mica_child *mica_child_start(const char *const *argv, int wake_fd, const mica_child_events *events, mica_error *err) {
    mica_child *c = mica_calloc(1, sizeof *c);
    if (!c) return mica_fail_memory(err, sizeof *c, "a child process"), NULL;
    c->argv = argv, c->events = *events, c->wake = wake_fd;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    int failed = pthread_create(&c->thread, NULL, run, c);
    if (failed) {
        errno = failed;
        return mica_fail_errno(err, "start a thread for", argv[0]), destroy(c), NULL;
    }
    pthread_mutex_lock(&c->lock);
    while (!c->started) pthread_cond_wait(&c->changed, &c->lock);
    bool ok = !c->error.code;
    pthread_mutex_unlock(&c->lock);
    if (ok) return c;
    if (err) *err = c->error;
    pthread_join(c->thread, NULL);
    destroy(c);
    return NULL;
}

bool mica_child_send(mica_child *c, const char *bytes, size_t n) {
    pthread_mutex_lock(&c->lock);
    size_t before = c->out.len;
    bool ok = mica_buf_append(&c->out, bytes, n);
    if (!ok) c->out.failed = false, c->out.len = before;
    pthread_mutex_unlock(&c->lock);
    wake(c);
    return ok;
}

void mica_child_kill(mica_child *c, const char *why) {
    pthread_mutex_lock(&c->lock);
    if (!c->killed) snprintf(c->reason, sizeof c->reason, "%s", why);
    c->killed = true;
    pthread_mutex_unlock(&c->lock);
    wake(c);
}

void mica_child_free(mica_child *c) {
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->leaving = true;
    pthread_mutex_unlock(&c->lock);
    wake(c);
    pthread_join(c->thread, NULL);
    destroy(c);
}

// ---- a program that is run to its end -----------------------------------------------------------------------
typedef struct errand {
    mica_buf *out;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ended;
    mica_error why;
} errand;

static void errand_line(void *context, const char *line, size_t n) {
    errand *e = context;
    if (e->out->len + n < 1 << 16) mica_buf_append(e->out, line, n), mica_buf_putc(e->out, '\n');
}

static void errand_woken(void *context) { (void)context; }

static void errand_ended(void *context, const mica_error *why) {
    errand *e = context;
    pthread_mutex_lock(&e->lock);
    e->ended = true, e->why = *why;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void await_errand(errand *e, mica_child *c, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&e->lock);
    while (!e->ended)
        if (pthread_cond_timedwait(&e->changed, &e->lock, &until) == ETIMEDOUT) break;
    bool late = !e->ended;
    pthread_mutex_unlock(&e->lock);
    char why[80];
    snprintf(why, sizeof why, "it did not end within %d seconds", (int)seconds);
    if (late) mica_child_kill(c, why);
}

bool mica_child_run(const char *const *argv, double seconds, mica_buf *out, mica_error *err) {
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0) return mica_fail_errno(err, "wait for", argv[0]);
    errand e = {.out = out};
    pthread_mutex_init(&e.lock, NULL);
    pthread_cond_init(&e.changed, NULL);
    mica_child *c = mica_child_start(argv, wake_fd, &(mica_child_events){&e, errand_line, errand_woken, errand_ended}, err);
    if (c) {
        await_errand(&e, c, seconds);
        mica_child_free(c);
        if (e.why.code && err) *err = e.why;
    }
    pthread_mutex_destroy(&e.lock);
    pthread_cond_destroy(&e.changed);
    close(wake_fd);
    return c && !e.why.code;
}
