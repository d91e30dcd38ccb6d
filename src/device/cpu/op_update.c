// SPDX-License-Identifier: Apache-2.0
// Op "adam_step": parameter and moments are read and written once, in runs of elements. Every element is by itself: the same bits for any
// number of threads.
#include "device/cpu/rows_kernels.h"
#include "device/cpu/walk.h"
#include <assert.h>

enum { RUN = 8192 }; // elements of a task: 128 KiB of the four arrays

static void adam_some(void *ctx, size_t first, size_t end, size_t thread) {
    (void)thread;
    const mica_call *c = ctx;
    size_t count = mica_walk_count(&c->out), at = first * RUN, n = MICA_MIN(end * RUN, count) - at;
    float *p = (float *)(void *)c->out.data + at, *m = (float *)(void *)c->in[2].data + at, *v = (float *)(void *)c->in[3].data + at;
    mica_cpu_isa_of(c)->rows.adam_step(p, (const float *)(const void *)c->in[1].data + at, m, v, (const float *)(const void *)c->in[4].data, n);
}

void mica_cpu_adam_step(const mica_call *c) {
    mica_call call = *c;
    for (int i = 0; i < 5; i++) assert(c->in[i].contiguous && c->in[i].dtype == MICA_F32);
    mica_walk_range(c, (mica_walk_count(&c->out) + RUN - 1) / RUN, 1, adam_some, &call);
}
