// SPDX-License-Identifier: Apache-2.0
// Requests and answers. The child's thread only sorts lines to the requests they belong to; who waits for an answer reads it. Waiting is also what
// watches over the process: after a while of silence the waiter asks for a sign of life, and ends a process that gives none.
#include "backend/mlx_lm/server.h"
#include "backend/mlx_lm/child.h"
#include "backend/mlx_lm/protocol.h"
#include "base/file.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

// The worker's text, and its size; made of worker.py when the library is built.
extern const char mica_mlx_worker[];

typedef struct line {
    struct line *next;
    size_t n;
    char text[];
} line;

struct mica_mlx_request {
    struct mica_mlx_request *next;
    int64_t id;
    line *first, **last;
    atomic_bool cancelled;
    bool told;   // the process, that it is cancelled
    bool failed; // nothing more comes, because of:
    mica_error error;
};

struct mica_mlx {
    char *python, *path, *adapter, *device;
    mica_load_options options;
    mica_mlx_limits limits;
    mica_info info;
    int wake;
    pthread_mutex_t lock; // of what follows
    pthread_cond_t changed;
    mica_child *child;
    bool starting, alive; // alive: the model is loaded, and the process not known to have ended
    mica_mlx_request *requests;
    int64_t last_id;
    double clock, ticked; // seconds of waiting; when they were last counted
    double heard, progressed, asked; // by that clock: when any line came, one for a request; when a sign of life was asked for
    double load_seconds;
};

const mica_info *mica_mlx_info(const mica_mlx *m) { return &m->info; }

double mica_mlx_load_seconds(mica_mlx *m) {
    pthread_mutex_lock(&m->lock);
    double seconds = m->load_seconds;
    pthread_mutex_unlock(&m->lock);
    return seconds;
}

// ---- the child's thread -------------------------------------------------------------------------------------
static void fail_request(mica_mlx_request *r, const mica_error *why) {
    if (!r->failed) r->error = *why;
    r->failed = true;
}

static void add_line(mica_mlx_request *r, const char *text, size_t n) {
    line *l = mica_alloc(sizeof *l + n + 1);
    if (!l) {
        mica_error err = {0};
        mica_fail_memory(&err, n, "an answer of mlx_lm");
        fail_request(r, &err);
        return;
    }
    l->next = NULL, l->n = n;
    memcpy(l->text, text, n);
    l->text[n] = 0;
    *r->last = l;
    r->last = &l->next;
}

static void fail_all(mica_mlx *m, const mica_error *why) {
    m->alive = false;
    for (mica_mlx_request *r = m->requests; r; r = r->next) fail_request(r, why);
}

static void give_answer(mica_mlx *m, int64_t id, const char *text, size_t n) {
    for (mica_mlx_request *r = m->requests; r; r = r->next)
        if (r->id == id) {
            m->progressed = m->heard;
            add_line(r, text, n);
        }
}

// What some library prints is a sign of life, no more.
static void on_line(void *context, const char *text, size_t n) {
    mica_mlx *m = context;
    int64_t version, id;
    bool ours = mica_mlx_read_line(text, n, &version, &id);
    mica_error err = {0};
    pthread_mutex_lock(&m->lock);
    m->heard = m->clock;
    if (ours && version == MICA_MLX_PROTOCOL) give_answer(m, id, text, n);
    if (ours && version != MICA_MLX_PROTOCOL) {
        mica_fail(&err, MICA_ERR_UNSUPPORTED, "mlx_lm: the process speaks version %lld of the protocol, this library %d", (long long)version,
                  MICA_MLX_PROTOCOL);
        fail_all(m, &err);
    }
    if (ours) pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

static void tell_cancelled(mica_mlx *m, mica_mlx_request *r) {
    mica_buf out = {0};
    mica_mlx_write_command(&out, r->id, "cancel");
    mica_buf_putc(&out, '\n');
    r->told = !out.failed && mica_child_send(m->child, out.data, out.len);
    mica_buf_free(&out);
}

static void on_woken(void *context) {
    mica_mlx *m = context;
    pthread_mutex_lock(&m->lock);
    bool any = false;
    for (mica_mlx_request *r = m->requests; r; r = r->next)
        if (m->child && !r->told && atomic_load(&r->cancelled)) tell_cancelled(m, r), any = true;
    if (any) pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

static void on_ended(void *context, const mica_error *why) {
    mica_mlx *m = context;
    mica_error err = {0};
    mica_fail(&err, MICA_ERR_IO, "mlx_lm: the Python process is gone: %s", why->msg);
    pthread_mutex_lock(&m->lock);
    fail_all(m, &err);
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

// ---- requests -----------------------------------------------------------------------------------------------
static mica_mlx_request *add_request(mica_mlx *m, int64_t id, mica_error *err) {
    mica_mlx_request *r = mica_calloc(1, sizeof *r);
    if (!r) return mica_fail_memory(err, sizeof *r, "a request"), NULL;
    r->id = id;
    r->last = &r->first;
    r->next = m->requests;
    m->requests = r;
    return r;
}

void mica_mlx_end(mica_mlx *m, mica_mlx_request *r) {
    if (!r) return;
    pthread_mutex_lock(&m->lock);
    for (mica_mlx_request **at = &m->requests; *at; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            break;
        }
    if (m->child && !r->told && !r->failed && r->id != MICA_MLX_HELLO) tell_cancelled(m, r);
    pthread_mutex_unlock(&m->lock);
    for (line *l = r->first, *next; l; l = next) {
        next = l->next;
        mica_free(l);
    }
    mica_free(r);
}

int64_t mica_mlx_number(mica_mlx *m) {
    pthread_mutex_lock(&m->lock);
    int64_t number = ++m->last_id;
    pthread_mutex_unlock(&m->lock);
    return number;
}

int64_t mica_mlx_id(const mica_mlx_request *r) { return r->id; }

bool mica_mlx_say(mica_mlx *m, mica_mlx_request *r, mica_buf *out, mica_error *err) {
    mica_buf_putc(out, '\n');
    if (out->failed) return mica_fail_memory(err, out->len, "a request");
    pthread_mutex_lock(&m->lock);
    bool failed = r->failed, sent = !failed && mica_child_send(m->child, out->data, out->len);
    if (failed && err) *err = r->error;
    pthread_mutex_unlock(&m->lock);
    return sent || failed ? sent : mica_fail_memory(err, out->len, "a request");
}

void mica_mlx_cancel(mica_mlx *m, mica_mlx_request *r) {
    uint64_t one = 1;
    int saved = errno; // a signal handler leaves it alone
    atomic_store(&r->cancelled, true);
    if (write(m->wake, &one, sizeof one) < 0) errno = 0; // full: the thread is awake already
    errno = saved;
}

// ---- waiting ------------------------------------------------------------------------------------------------
static void kill_hung(mica_mlx *m, const char *lacking, double seconds) {
    char why[120];
    snprintf(why, sizeof why, "it hung: no %s for %.3g seconds", lacking, seconds);
    m->alive = false;
    mica_child_kill(m->child, why);
}

static double slice_of(const mica_mlx *m) {
    return MICA_MIN(MICA_MAX(MICA_MIN(m->limits.silence, m->limits.patience) / 10, 0.01), 1.0);
}

// Time in which this program did not run either (it was stopped, or the machine slept) does not count: a slice of waiting never counts for much
// more than it was meant to last.
static double tick(mica_mlx *m) {
    double now = mica_now();
    m->clock += MICA_MIN(now - m->ticked, 2 * slice_of(m));
    m->ticked = now;
    return m->clock;
}

static void ask_for_life(mica_mlx *m, double now) {
    mica_buf out = {0};
    mica_mlx_write_command(&out, MICA_MLX_PING, "ping");
    mica_buf_putc(&out, '\n');
    if (!out.failed) mica_child_send(m->child, out.data, out.len);
    mica_buf_free(&out);
    m->asked = now;
}

// Called now and then while waiting since `since`.
static void watch(mica_mlx *m, double since, double patience) {
    double now = tick(m), heard = MICA_MAX(m->heard, since), progressed = MICA_MAX(m->progressed, since);
    if (now - heard > m->limits.silence) kill_hung(m, "sign of life", m->limits.silence);
    else if (now - progressed > patience) kill_hung(m, "progress", patience);
    else if (now - heard > m->limits.silence / 4 && now - m->asked > m->limits.silence / 4) ask_for_life(m, now);
}

static void sleep_a_little(mica_mlx *m) {
    long nanoseconds = (long)(slice_of(m) * 999999999.0);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += nanoseconds;
    if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
    pthread_cond_timedwait(&m->changed, &m->lock, &until);
}

static bool has_news(const mica_mlx_request *r) { return atomic_load(&r->cancelled) || r->first || r->failed; }

// The next line of the request; NULL if there will be none.
static line *take_line(mica_mlx *m, mica_mlx_request *r, double patience, mica_error *err) {
    line *l = NULL;
    pthread_mutex_lock(&m->lock);
    double since = tick(m);
    while (!has_news(r)) sleep_a_little(m), watch(m, since, patience);
    if (atomic_load(&r->cancelled)) {
        mica_fail(err, MICA_ERR_CANCELLED, "cancelled");
    } else if (r->first) {
        l = r->first;
        r->first = l->next;
        if (!r->first) r->last = &r->first;
    } else if (err) {
        *err = r->error;
    }
    pthread_mutex_unlock(&m->lock);
    return l;
}

size_t mica_mlx_wait_any(mica_mlx *m, mica_mlx_request *const *requests, size_t count, size_t from) {
    pthread_mutex_lock(&m->lock);
    double since = tick(m);
    size_t found = count;
    while (found == count) {
        for (size_t i = 0; i < count && found == count; i++)
            if (has_news(requests[(from + i) % count])) found = (from + i) % count;
        if (found == count) sleep_a_little(m), watch(m, since, m->limits.patience);
    }
    pthread_mutex_unlock(&m->lock);
    return found;
}

// A process that speaks nonsense is not asked again.
static void distrust(mica_mlx *m, mica_mlx_request *r) {
    pthread_mutex_lock(&m->lock);
    if (!r->failed) {
        m->alive = false;
        mica_child_kill(m->child, "it sent an answer that cannot be read");
    }
    pthread_mutex_unlock(&m->lock);
}

static const mica_json *await_answer(mica_mlx *m, mica_mlx_request *r, double patience, mica_arena *arena, mica_error *err) {
    mica_arena_reset(arena);
    line *l = take_line(m, r, patience, err);
    if (!l) return NULL;
    mica_error local = {0};
    const mica_json *answer = mica_json_parse(arena, l->text, l->n, "mlx_lm answer", &local);
    mica_free(l);
    if (!answer && local.code != MICA_ERR_NO_MEMORY) distrust(m, r);
    if (answer && mica_mlx_read_error(answer, &local)) answer = NULL;
    if (!answer && err) *err = local;
    return answer;
}

const mica_json *mica_mlx_wait(mica_mlx *m, mica_mlx_request *r, mica_arena *arena, mica_error *err) {
    return await_answer(m, r, m->limits.patience, arena, err);
}

// ---- starting -----------------------------------------------------------------------------------------------
static bool await_hello(mica_mlx *m, mica_mlx_request *hello, mica_error *err) {
    mica_arena arena = {0};
    bool ok = await_answer(m, hello, m->limits.load, &arena, err);
    mica_arena_free(&arena);
    return ok;
}

static bool start_process(mica_mlx *m, mica_error *err) {
    const char *argv[] = {m->python, "-u", "-c", mica_mlx_worker, NULL};
    pthread_mutex_lock(&m->lock);
    mica_child *old = m->child;
    m->child = NULL;
    pthread_mutex_unlock(&m->lock);
    mica_child_free(old); // which fails the requests that it had
    pthread_mutex_lock(&m->lock);
    m->heard = m->progressed = m->asked = tick(m);
    mica_mlx_request *hello = add_request(m, MICA_MLX_HELLO, err);
    pthread_mutex_unlock(&m->lock);
    mica_child *child = hello ? mica_child_start(argv, m->wake, &(mica_child_events){m, on_line, on_woken, on_ended}, err) : NULL;
    pthread_mutex_lock(&m->lock);
    m->child = child;
    pthread_mutex_unlock(&m->lock);
    bool ok = child && await_hello(m, hello, err);
    mica_mlx_end(m, hello);
    return ok;
}

static bool load_model(mica_mlx *m, mica_error *err) {
    double from = mica_now();
    mica_arena arena = {0};
    mica_buf out = {0};
    mica_info info;
    pthread_mutex_lock(&m->lock);
    mica_mlx_request *r = add_request(m, ++m->last_id, err);
    pthread_mutex_unlock(&m->lock);
    if (r) mica_mlx_write_load(&out, r->id, m->path, &m->options);
    bool ok = r && mica_mlx_say(m, r, &out, err);
    const mica_json *answer = ok ? await_answer(m, r, m->limits.load, &arena, err) : NULL;
    ok = answer && mica_mlx_read_info(answer, &info, err);
    pthread_mutex_lock(&m->lock);
    if (ok && r->failed) {
        if (err) *err = r->error;
        ok = false;
    }
    if (ok) {
        if (!m->info.vocab_size) m->info = info; // the first one's; the model is the same
        m->load_seconds = mica_now() - from;
        r->told = true; // it is over
    }
    m->alive = ok;
    pthread_mutex_unlock(&m->lock);
    mica_mlx_end(m, r);
    mica_arena_free(&arena);
    mica_buf_free(&out);
    return ok;
}

// One thread starts the process, the others wait for it.
static bool make_ready(mica_mlx *m, mica_error *err) {
    pthread_mutex_lock(&m->lock);
    while (m->starting) pthread_cond_wait(&m->changed, &m->lock);
    bool ok = m->alive;
    m->starting = !ok;
    pthread_mutex_unlock(&m->lock);
    if (ok) return true;
    ok = start_process(m, err) && load_model(m, err);
    pthread_mutex_lock(&m->lock);
    m->starting = false;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    return ok;
}

mica_mlx_request *mica_mlx_begin(mica_mlx *m, mica_error *err) {
    if (!make_ready(m, err)) return NULL;
    pthread_mutex_lock(&m->lock);
    mica_mlx_request *r = NULL;
    if (m->alive) r = add_request(m, ++m->last_id, err);
    else mica_fail(err, MICA_ERR_IO, "mlx_lm: the Python process is gone as soon as it has started");
    pthread_mutex_unlock(&m->lock);
    return r;
}

// ---- models -------------------------------------------------------------------------------------------------
static double limit(double given, double otherwise) { return given > 0 ? given : otherwise; }

static bool copy_text(char **out, const char *text, mica_error *err) {
    return !text || (*out = mica_strdup(text)) || mica_fail_memory(err, strlen(text), "a path");
}

static bool set_up(mica_mlx *m, const char *path, const mica_load_options *o, mica_error *err) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->wake < 0) return mica_fail_errno(err, "wait for", path);
    if (!copy_text(&m->path, path, err) || !copy_text(&m->adapter, o->adapter, err) || !copy_text(&m->device, o->device, err)) return false;
    m->options.adapter = m->adapter, m->options.device = m->device;
    if (!mica_is_dir(path)) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: mlx_lm loads model folders, and this is none", path);
    m->python = mica_mlx_python(o->python, err);
    return m->python && mica_mlx_probe(m->python, m->limits.probe, err);
}

void mica_mlx_close(mica_mlx *m) {
    if (!m) return;
    mica_child_free(m->child);
    if (m->wake >= 0) close(m->wake);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->changed);
    mica_free(m->python);
    mica_free(m->path);
    mica_free(m->adapter);
    mica_free(m->device);
    mica_free(m);
}

mica_mlx *mica_mlx_open(const char *path, const mica_load_options *options, const mica_mlx_limits *limits, mica_info *info, mica_error *err) {
    mica_mlx_limits l = limits ? *limits : (mica_mlx_limits){0};
    mica_mlx *m = mica_calloc(1, sizeof *m);
    if (!m) return mica_fail_memory(err, sizeof *m, "a model"), NULL;
    m->limits = (mica_mlx_limits){limit(l.silence, 60), limit(l.patience, 600), limit(l.load, 3600), limit(l.probe, 60)};
    m->options = (mica_load_options){.context = options->context, .memory_budget = options->memory_budget};
    if (set_up(m, path, options, err) && make_ready(m, err)) {
        *info = m->info;
        return m;
    }
    mica_mlx_close(m);
    return NULL;
}
