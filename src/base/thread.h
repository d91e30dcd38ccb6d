// SPDX-License-Identifier: Apache-2.0
// Thread pool for kernels. One job at a time: `tasks` calls of fn, handed out in order through one counter, so
// that a slow or descheduled thread costs its own task only. How work is cut into tasks must depend on shapes
// alone, never on the number of threads: then results do not either.
#ifndef MICA_BASE_THREAD_H
#define MICA_BASE_THREAD_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mica_pool mica_pool;
/** thread: 0 … mica_pool_threads-1, for per-thread scratch. */
typedef void mica_task_fn(void *ctx, size_t task, size_t thread);

/** threads: 0 = the CPUs this process may run on. The caller counts as one. NULL when out of memory. */
mica_pool *mica_pool_new(size_t threads);
void mica_pool_free(mica_pool *pool);
size_t mica_pool_threads(const mica_pool *pool);
/** Runs fn(ctx, 0…tasks-1, thread) and returns when all are done. Calls from several threads take turns; a call
 * from inside a task runs its tasks on the calling thread. */
void mica_pool_run(mica_pool *pool, size_t tasks, mica_task_fn *fn, void *ctx);
/** CPUs this process may run on (affinity mask and cgroup quota). */
size_t mica_cpu_count(void);
#endif
