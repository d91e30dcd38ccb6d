// SPDX-License-Identifier: Apache-2.0
// Ops without array inputs: full, arange, and the random ones, whose only input is a key u64 [2] = {seed, stream}. Element i
// of a random array is a function of the key and i alone: counter-based numbers (base/rng.h), four words a counter. f64
// elements take two words, the others one; a pair of normal numbers takes two uniform ones (Box and Muller 1958). And rounding at random, whose
// elements take half a word.
#include "base/rng.h"
#include "device/cpu/convert.h"
#include "device/cpu/cpu.h"
#include "device/cpu/view.h"
#include <assert.h>

typedef struct source_job {
    const mica_tensor *out;
    double start, step; // full: value, 0; random_uniform: low, width
    uint64_t seed;
    bool normal;
    int64_t size;
} source_job;

static void linear_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const source_job *job = ctx;
    int64_t at = (int64_t)task * MICA_CPU_CHUNK_COSTLY, end = MICA_MIN(at + MICA_CPU_CHUNK_COSTLY, job->size);
    for (; at < end; at++) mica_cpu_store(job->out->dtype, job->out->data, (size_t)at, job->start + (double)at * job->step);
}

static void run_linear(const mica_call *c, double start, double step) {
    source_job job = {.out = &c->out, .start = start, .step = step, .size = mica_tensor_size(&c->out)};
    mica_pool_run(mica_cpu_pool(c), mica_chunks(job.size, MICA_CPU_CHUNK_COSTLY), linear_task, &job);
}

// Not through run_linear: infinity * 0 is no number.
static void run_full(const mica_call *c) {
    mica_tensor one = c->out;
    unsigned char element[8] = {0};
    mica_cpu_store(one.dtype, element, 0, c->params->scalar.value);
    for (int d = 0; d < one.ndim; d++) one.stride[d] = 0;
    one.data = element;
    mica_cpu_view from = mica_cpu_view_of(&one), to = mica_cpu_view_of(&c->out);
    mica_cpu_copy(mica_cpu_pool(c), &to, &from);
}

static void run_arange(const mica_call *c) { run_linear(c, c->params->arange.start, c->params->arange.step); }

// ---- random ----
// Both words of the key in one seed: the stream number is a counter under the seed.
static uint64_t seed_of(const mica_tensor *key) {
    mica_cpu_view v = mica_cpu_view_of(key);
    uint64_t buffer[2];
    assert(v.size == 2 && key->dtype == MICA_U64);
    const uint64_t *k = mica_cpu_read(&v, 0, 0, 2, buffer);
    mica_philox p = mica_philox_at(k[0], k[1]);
    return (uint64_t)p.v[1] << 32 | p.v[0];
}

// The greatest element below one that was rounded up to the (excluded) upper end.
static void step_down(mica_dtype t, void *y, size_t i) {
    double x = mica_cpu_load(t, y, i);
    if (t == MICA_F64) ((double *)y)[i] = nextafter(x, (double)-INFINITY);
    else if (t == MICA_F32) ((float *)y)[i] = nextafterf((float)x, -INFINITY);
    else if (x > 0) ((uint16_t *)y)[i]--;
    else ((uint16_t *)y)[i] = x < 0 ? (uint16_t)(((uint16_t *)y)[i] + 1) : 0x8001;
}

static void store_uniform(const source_job *job, size_t i, double u) {
    const mica_tensor *out = job->out;
    double high = job->start + job->step;
    mica_cpu_store(out->dtype, out->data, i, job->start + u * job->step);
    if (job->step > 0 && mica_cpu_load(out->dtype, out->data, i) >= high) step_down(out->dtype, out->data, i);
}

// Two uniform numbers in [0, 1) to two normal ones; 1 - u is never 0.
static void box_muller(double u[2]) {
    double r = sqrt(-2 * log(1 - u[0])), angle = 6.28318530717958647692 * u[1];
    u[0] = r * cos(angle), u[1] = r * sin(angle);
}

static void random_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const source_job *job = ctx;
    bool wide = job->out->dtype == MICA_F64;
    int64_t at = (int64_t)task * MICA_CPU_CHUNK_COSTLY, end = MICA_MIN(at + MICA_CPU_CHUNK_COSTLY, job->size);
    for (int per = wide ? 2 : 4; at < end; at += per) { // the chunk is a multiple of 4
        mica_philox p = mica_philox_at(job->seed, (uint64_t)at / (uint64_t)per);
        double u[4] = {0};
        for (int i = 0; i < per; i++)
            u[i] = wide ? mica_uniform_f64(p.v[2 * i], p.v[2 * i + 1]) : (double)mica_uniform_f32(p.v[i]);
        if (job->normal) box_muller(u), box_muller(u + 2);
        for (int i = 0; i < per && at + i < end; i++) {
            if (job->normal) mica_cpu_store(job->out->dtype, job->out->data, (size_t)(at + i), u[i]);
            else store_uniform(job, (size_t)(at + i), u[i]);
        }
    }
}

static void run_random(const mica_call *c, bool normal) {
    source_job job = {.out = &c->out, .start = c->params->arange.start, .step = c->params->arange.step, .normal = normal,
                      .size = mica_tensor_size(&c->out), .seed = seed_of(&c->in[0])};
    assert(mica_dtype_is_float(c->out.dtype));
    mica_pool_run(mica_cpu_pool(c), mica_chunks(job.size, MICA_CPU_CHUNK_COSTLY), random_task, &job);
}

// ---- rounding at random: sixteen bits below those that stay are added to them, so that what is cut off carries over as often as it is large ----
typedef struct round_job {
    mica_cpu_view from;
    uint16_t *to;
    uint64_t seed;
} round_job;

static uint16_t round_up_or_down(float x, uint32_t bits) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7f800000u) == 0x7f800000u) return mica_f32_to_bf16(x);
    return (uint16_t)((u + (bits & 0xffff)) >> 16);
}

static void round_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    enum { PIECE = 256, PER = 8 }; // two numbers a word, four words a counter
    const round_job *job = ctx;
    float buffer[PIECE];
    int64_t at = (int64_t)task * MICA_CPU_CHUNK_COSTLY, end = MICA_MIN(at + MICA_CPU_CHUNK_COSTLY, job->from.size);
    for (; at < end; at += PIECE) {
        int64_t n = MICA_MIN(end - at, (int64_t)PIECE);
        const float *x = mica_cpu_read(&job->from, 0, at, (size_t)n, buffer);
        mica_philox p = {{0}};
        for (int64_t i = 0; i < n; i++) { // the piece is a multiple of 8
            if (i % PER == 0) p = mica_philox_at(job->seed, (uint64_t)(at + i) / PER);
            job->to[at + i] = round_up_or_down(x[i], p.v[i % PER / 2] >> (i % 2 ? 16 : 0));
        }
    }
}

static void run_random_round(const mica_call *c) {
    round_job job = {.from = mica_cpu_view_of(&c->in[1]), .to = (uint16_t *)(void *)c->out.data, .seed = seed_of(&c->in[0])};
    assert(c->in[1].dtype == MICA_F32 && c->out.dtype == MICA_BF16);
    mica_pool_run(mica_cpu_pool(c), mica_chunks(job.from.size, MICA_CPU_CHUNK_COSTLY), round_task, &job);
}

static void run_random_uniform(const mica_call *c) { run_random(c, false); }
static void run_random_normal(const mica_call *c) { run_random(c, true); }

const mica_kernel mica_cpu_source_kernels[] = {
    {"full", run_full, NULL}, {"arange", run_arange, NULL},
    {"random_uniform", run_random_uniform, NULL}, {"random_normal", run_random_normal, NULL},
    {"random_round", run_random_round, NULL},
};
const size_t mica_cpu_source_kernel_count = MICA_COUNT(mica_cpu_source_kernels);
