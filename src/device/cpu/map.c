// SPDX-License-Identifier: Apache-2.0
// Elementwise op kernels over any layout: see map.h.
#include "device/cpu/map.h"
#include <assert.h>

enum { MOST_INPUTS = 3 };

typedef struct map_job {
    const mica_call *c;
    const mica_cpu_map *map;
    const mica_cpu_rows_isa *isa;
    mica_cpu_view in[MOST_INPUTS];
    int inputs;
    int64_t size, chunk;
} map_job;

typedef struct map_buffers {
    _Alignas(64) unsigned char in[MOST_INPUTS][MICA_CPU_BLOCK_BYTES];
    _Alignas(64) unsigned char half[MICA_CPU_BLOCK * 2];
    _Alignas(64) float out[MICA_CPU_BLOCK];
} map_buffers;

static const void *block_of(const map_job *job, int i, int64_t at, size_t n, map_buffers *b) {
    mica_dtype dtype = job->c->in[i].dtype;
    if (!job->map->widen || !mica_cpu_is_half(dtype)) return mica_cpu_read(&job->in[i], 0, at, n, b->in[i]);
    const void *x = mica_cpu_read(&job->in[i], 0, at, n, b->half);
    job->isa->to_f32[dtype]((float *)(void *)b->in[i], x, n);
    return b->in[i];
}

static void apply(const mica_cpu_map *map, void *y, const void *const *x, size_t n) {
    if (map->unary) map->unary(y, x[0], n);
    else if (map->binary) map->binary(y, x[0], x[1], n);
    else map->ternary(y, x[0], x[1], x[2], n);
}

static void map_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const map_job *job = ctx;
    const mica_tensor *out = &job->c->out;
    bool narrow = job->map->widen && mica_cpu_is_half(out->dtype);
    size_t item = mica_dtype_size(out->dtype);
    map_buffers b;
    int64_t at = (int64_t)task * job->chunk, end = MICA_MIN(at + job->chunk, job->size);
    for (int64_t n; at < end; at += n) {
        n = MICA_MIN(end - at, (int64_t)MICA_CPU_BLOCK);
        const void *x[MOST_INPUTS];
        for (int i = 0; i < job->inputs; i++) x[i] = block_of(job, i, at, (size_t)n, &b);
        unsigned char *y = out->data + (size_t)at * item;
        apply(job->map, narrow ? (void *)b.out : (void *)y, x, (size_t)n);
        if (narrow) job->isa->from_f32[out->dtype](y, b.out, (size_t)n);
    }
}

void mica_cpu_map_run(const mica_call *c, const mica_cpu_map *map) {
    map_job job = {.c = c, .map = map, .isa = &mica_cpu_isa_of(c)->rows, .size = mica_tensor_size(&c->out)};
    job.inputs = map->unary ? 1 : map->binary ? 2 : 3;
    job.chunk = map->costly ? MICA_CPU_CHUNK_COSTLY : MICA_CPU_CHUNK;
    assert(c->inputs >= job.inputs && c->out.contiguous);
    for (int i = 0; i < job.inputs; i++) {
        job.in[i] = mica_cpu_view_of(&c->in[i]);
        assert(job.in[i].size == job.size);
    }
    mica_pool_run(mica_cpu_pool(c), mica_chunks(job.size, job.chunk), map_task, &job);
}
