// SPDX-License-Identifier: Apache-2.0
// What the engine keeps per device: kernels by op number, freed buffers kept for reuse, cached plans, the workspace.
#ifndef MICA_ENGINE_STATE_H
#define MICA_ENGINE_STATE_H

#include "engine/node.h"
#include <pthread.h>

enum { MICA_SIZE_CLASSES = 256, MICA_MOST_PLANS = 64, MICA_MOST_PLAN_BYTES = 32 << 20 };
typedef struct mica_plan mica_plan;

typedef struct mica_op_clock {
    uint64_t runs;
    double seconds;
} mica_op_clock;

typedef struct mica_device_state {
    _Atomic uint32_t refs;
    mica_kernel kernels[MICA_OP_COUNT];
    pthread_mutex_t memory_lock; // the fields of this block
    mica_buffer *free_list[MICA_SIZE_CLASSES];
    size_t active, peak, cached, cache_limit, memory_limit;
    size_t cache_more; // beyond the limit, for those who know that they will take so much again
    struct mica_device *next; // among the open devices
    pthread_mutex_t run_lock; // plans and workspace: one plan runs at a time
    mica_plan *plans[MICA_MOST_PLANS];
    uint64_t plan_hash[MICA_MOST_PLANS], plan_used[MICA_MOST_PLANS], plan_clock;
    uint64_t plans_built, plans_reused;
    size_t plan_bytes; // of all plans
    mica_buffer *workspace;
    mica_op_clock *clocks; // [MICA_OP_COUNT] while somebody measures, else NULL
} mica_device_state;

/** Memory of the device with one reference, contents undefined; NULL when out of memory or over the limit. */
mica_buffer *mica_buffer_new(mica_device *d, size_t size);
/** The caller's memory as a buffer; release(owner) when the last reference goes. NULL when out of memory (release not called). */
mica_buffer *mica_buffer_borrow(mica_device *d, const void *data, size_t size, void (*release)(void *), void *owner);
/** Address space of the device with one reference; NULL if there is not so much. Whoever makes parts of it memory, and uncommits them before
 * the last reference goes, has them counted by mica_device_take and mica_device_give. */
mica_buffer *mica_buffer_reserve(mica_device *d, size_t size);
/** Counts `size` bytes more; false if a limit forbids it. */
bool mica_device_take(mica_device *d, size_t size);
void mica_device_give(mica_device *d, size_t size);
mica_buffer *mica_buffer_retain(mica_buffer *b);
void mica_buffer_release(mica_buffer *b);
/** So much more (less) may be kept for reuse beyond the cache limit, unless that is 0. */
void mica_device_cache_more(mica_device *d, size_t more, size_t less);
/** Releases the only reference to memory of mica_buffer_new, which is not kept for reuse. */
void mica_buffer_discard(mica_buffer *b);
mica_device *mica_device_retain(mica_device *d);
/** From now on evaluations add the time of each op to clocks [MICA_OP_COUNT]; NULL: no longer. */
void mica_device_measure(mica_device *d, mica_op_clock *clocks);
#endif
