// SPDX-License-Identifier: Apache-2.0
// The pool. A job is published by bumping `epoch`; workers spin on it for some microseconds, then park on a
// futex. Tasks are claimed from one counter whose high half carries the epoch, so a late worker can never claim a task
// of a job it has not seen. The caller works too, and waits only for tasks that others still hold.
#include "base/thread.h"
#include "base/base.h"
#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

// About 10 µs: most gaps between kernels of one step. Beside a busy neighbour, longer spinning uses up the time that is left to us.
enum { SPIN = 1000, CACHE_LINE = 64 };
// Whoever is preempted with a task in hand keeps the others waiting for it, for milliseconds. So a worker offers its processor now and then
// between two jobs, and comes back with a fresh slice.
static const double YIELD_SECONDS = 3e-4;

typedef struct worker {
    mica_pool *pool;
    pthread_t thread;
    size_t index;
} worker;

struct mica_pool {
    _Alignas(CACHE_LINE) _Atomic uint32_t epoch; // futex word: job number
    _Atomic uint32_t parked;
    _Alignas(CACHE_LINE) _Atomic uint64_t next;  // epoch << 32 | next task
    _Alignas(CACHE_LINE) _Atomic uint32_t done;  // tasks finished; futex word of the waiting caller
    _Alignas(CACHE_LINE) mica_task_fn *fn;
    void *ctx;
    uint32_t tasks;
    _Atomic bool waiting; // the caller sleeps until all are done
    _Atomic bool quit;
    pthread_mutex_t turn; // one job at a time
    size_t threads;
    worker workers[];
};

static _Thread_local const mica_pool *inside; // the pool whose task this thread is running: nested calls run inline

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}
static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0); }

// Claims and runs tasks of job `epoch` until none is left. fn, ctx and tasks are read only after a successful claim:
// the claim proves that the job is still the current one.
static void work(mica_pool *p, uint32_t epoch, size_t thread) {
    uint64_t next = atomic_load(&p->next);
    while ((uint32_t)(next >> 32) == epoch && (uint32_t)next > 0) {
        if (!atomic_compare_exchange_weak(&p->next, &next, next - 1)) continue;
        uint32_t tasks = p->tasks;
        p->fn(p->ctx, tasks - (uint32_t)next, thread);
        if (atomic_fetch_add(&p->done, 1) + 1 == tasks && atomic_load(&p->waiting)) futex_wake(&p->done);
        next = atomic_load(&p->next);
    }
}

static uint32_t wait_epoch(mica_pool *p, uint32_t seen) {
    for (int i = 0; i < SPIN; i++) {
        uint32_t e = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (e != seen) return e;
        cpu_relax();
    }
    atomic_fetch_add(&p->parked, 1);
    uint32_t e;
    while ((e = atomic_load(&p->epoch)) == seen) futex_wait(&p->epoch, seen);
    atomic_fetch_sub(&p->parked, 1);
    return e;
}

static void *worker_main(void *arg) {
    worker *w = arg;
    mica_pool *p = w->pool;
    double yielded = 0;
    inside = p;
    for (uint32_t epoch = 0;;) {
        epoch = wait_epoch(p, epoch);
        if (atomic_load(&p->quit)) return NULL;
        work(p, epoch, w->index);
        double now = mica_now();
        if (now - yielded < YIELD_SECONDS) continue;
        sched_yield();
        yielded = now;
    }
}

void mica_pool_run(mica_pool *p, size_t tasks, mica_task_fn *fn, void *ctx) {
    if (!tasks) return;
    if (inside == p || p->threads == 1 || tasks == 1) {
        for (size_t t = 0; t < tasks; t++) fn(ctx, t, 0);
        return;
    }
    pthread_mutex_lock(&p->turn);
    inside = p;
    p->fn = fn, p->ctx = ctx, p->tasks = (uint32_t)tasks;
    atomic_store(&p->done, 0);
    uint32_t epoch = atomic_load(&p->epoch) + 1;
    atomic_store(&p->next, (uint64_t)epoch << 32 | (uint32_t)tasks);
    atomic_store(&p->epoch, epoch);
    if (atomic_load(&p->parked)) futex_wake(&p->epoch);
    work(p, epoch, 0);
    for (uint32_t i = 0, done; (done = atomic_load(&p->done)) != (uint32_t)tasks; i++) {
        if (i < SPIN) cpu_relax();
        else if (i == SPIN) atomic_store(&p->waiting, true);
        else futex_wait(&p->done, done);
    }
    atomic_store_explicit(&p->waiting, false, memory_order_relaxed);
    inside = NULL;
    pthread_mutex_unlock(&p->turn);
}

// CPU quota of the cgroup (v2), in CPUs rounded up; 0 if none is set.
static size_t cgroup_cpus(void) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return 0;
    long long quota = 0, period = 0;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    return n == 2 && quota > 0 && period > 0 ? (size_t)((quota + period - 1) / period) : 0;
}

size_t mica_cpu_count(void) {
    cpu_set_t set;
    size_t n = sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1, quota = cgroup_cpus();
    return quota && quota < n ? quota : MICA_MAX(n, (size_t)1);
}

mica_pool *mica_pool_new(size_t threads) {
    enum { MOST = 1024 };
    if (!threads) threads = mica_cpu_count();
    threads = MICA_MIN(threads, (size_t)MOST);
    mica_pool *p = mica_alloc_aligned(sizeof *p + threads * sizeof(worker), CACHE_LINE);
    if (!p) return NULL;
    *p = (mica_pool){.threads = 1};
    pthread_mutex_init(&p->turn, NULL);
    for (size_t i = 1; i < threads; i++) {
        p->workers[i] = (worker){.pool = p, .index = i};
        if (pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i])) break;
        p->threads = i + 1; // fewer threads than asked for is slower, not wrong
    }
    return p;
}

void mica_pool_free(mica_pool *p) {
    if (!p) return;
    atomic_store(&p->quit, true);
    atomic_fetch_add(&p->epoch, 1);
    futex_wake(&p->epoch);
    for (size_t i = 1; i < p->threads; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->turn);
    mica_free(p);
}

size_t mica_pool_threads(const mica_pool *p) { return p->threads; }
