// SPDX-License-Identifier: Apache-2.0
// Along the last axis: sort, argsort, argpartition (a full argsort) and cumsum. Elements of any type become unsigned
// keys of 64 bits in the same order (NaN above everything, -0 equal to 0), sorted with their positions by a radix
// sort from the low byte up, which is stable; bytes that all keys share cost one look.
#include "device/cpu/convert.h"
#include "device/cpu/cpu.h"
#include "device/cpu/view.h"
#include <assert.h>
#include <string.h>

enum { FEW = 48 }; // below it insertion beats counting

typedef struct pair {
    uint64_t key;
    uint64_t at;
} pair;

static uint64_t key_f32(float f) {
    uint32_t u = mica_f32_bits(f + 0.0f); // -0 + 0 = 0
    if (isnan(f)) return UINT32_MAX;
    return u >> 31 ? ~u : u | 0x80000000u;
}

static uint64_t key_f64(double d) {
    uint64_t u;
    d += 0.0;
    memcpy(&u, &d, 8);
    if (isnan(d)) return UINT64_MAX;
    return u >> 63 ? ~u : u | 1ull << 63;
}

static void make_keys(mica_dtype t, const void *x, size_t n, size_t at, pair *p) {
    uint64_t flip = t >= MICA_I8 ? 1ull << 63 : 0; // signed order as unsigned order
    for (size_t i = 0; i < n; i++) {
        p[i].at = at + i;
        if (t == MICA_F64) p[i].key = key_f64(((const double *)x)[i]);
        else if (mica_dtype_is_float(t)) p[i].key = key_f32((float)mica_cpu_load(t, x, i));
        else p[i].key = mica_cpu_load_bits(t, x, i) ^ flip;
    }
}

static void insertion_sort(pair *p, size_t n) {
    for (size_t i = 1; i < n; i++) {
        pair x = p[i];
        size_t j = i;
        for (; j && p[j - 1].key > x.key; j--) p[j] = p[j - 1];
        p[j] = x;
    }
}

// Sorts p by key; returns where the result is: p or other.
static pair *sort_pairs(pair *p, pair *other, size_t n) {
    if (n <= FEW) {
        insertion_sort(p, n);
        return p;
    }
    size_t count[8][256];
    memset(count, 0, sizeof count);
    for (size_t i = 0; i < n; i++)
        for (int b = 0; b < 8; b++) count[b][p[i].key >> (8 * b) & 255]++;
    for (int b = 0; b < 8; b++) {
        size_t *start = count[b], sum = 0;
        if (start[p[0].key >> (8 * b) & 255] == n) continue; // all alike
        for (int v = 0; v < 256; v++) {
            size_t k = start[v];
            start[v] = sum;
            sum += k;
        }
        for (size_t i = 0; i < n; i++) other[start[p[i].key >> (8 * b) & 255]++] = p[i];
        pair *swap = p;
        p = other, other = swap;
    }
    return p;
}

// ---- rows ----
typedef struct row_job {
    const mica_call *c;
    mica_cpu_view rows, row; // the leading dimensions; the last one
    int64_t per_task;
    bool indices;            // argsort
} row_job;

static row_job describe(const mica_call *c) {
    const mica_tensor *x = &c->in[0];
    int lead = x->ndim ? x->ndim - 1 : 0;
    row_job job = {.c = c, .rows = mica_cpu_view_dims(x, 0, lead), .row = mica_cpu_view_dims(x, lead, x->ndim)};
    job.per_task = MICA_MAX(MICA_CPU_CHUNK_COSTLY / MICA_MAX(job.row.size, (int64_t)1), (int64_t)1);
    return job;
}

static void run_rows(const row_job *job, mica_task_fn *fn) {
    if (!job->row.size) return;
    mica_pool_run(mica_cpu_pool(job->c), mica_chunks(job->rows.size, job->per_task), fn, (void *)(uintptr_t)job);
}

static void sort_row(const row_job *job, int64_t row, pair *p, pair *other) {
    const mica_tensor *out = &job->c->out;
    mica_dtype t = job->c->in[0].dtype;
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    int64_t n = job->row.size, shift = mica_cpu_offset(&job->rows, row);
    for (int64_t at = 0; at < n; at += MICA_CPU_BLOCK) {
        size_t k = (size_t)MICA_MIN(n - at, (int64_t)MICA_CPU_BLOCK);
        make_keys(t, mica_cpu_read(&job->row, shift, at, k, buffer), k, (size_t)at, p + at);
    }
    p = sort_pairs(p, other, (size_t)n);
    size_t item = job->row.item;
    int64_t stride = job->row.stride[0]; // one dimension
    for (int64_t i = 0; i < n; i++) {
        size_t at = (size_t)(row * n + i);
        if (job->indices) mica_cpu_store_bits(out->dtype, out->data, at, p[i].at);
        else memcpy(out->data + at * item, job->row.data + shift + (int64_t)p[i].at * stride, item);
    }
}

static void sort_task(void *ctx, size_t task, size_t thread) {
    const row_job *job = ctx;
    size_t n = (size_t)job->row.size;
    pair *p = (pair *)(void *)job->c->scratch + thread * 2 * n;
    int64_t row = (int64_t)task * job->per_task, end = MICA_MIN(row + job->per_task, job->rows.size);
    for (; row < end; row++) sort_row(job, row, p, p + n);
}

static size_t sort_scratch(const mica_call *c) {
    return mica_pool_threads(mica_cpu_pool(c)) * 2 * (size_t)describe(c).row.size * sizeof(pair);
}

static void run_sort(const mica_call *c) {
    row_job job = describe(c);
    run_rows(&job, sort_task);
}

static void run_argsort(const mica_call *c) {
    row_job job = describe(c);
    job.indices = true;
    run_rows(&job, sort_task);
}

// ---- cumsum: f64 or 64-bit integer running total, each element rounded once ----
static void cumsum_row(const row_job *job, int64_t row) {
    const mica_tensor *out = &job->c->out;
    mica_dtype t = job->c->in[0].dtype;
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    int64_t n = job->row.size, shift = mica_cpu_offset(&job->rows, row);
    double sum = 0;
    uint64_t count = 0;
    for (int64_t at = 0; at < n; at += MICA_CPU_BLOCK) {
        size_t k = (size_t)MICA_MIN(n - at, (int64_t)MICA_CPU_BLOCK), to = (size_t)(row * n + at);
        const void *x = mica_cpu_read(&job->row, shift, at, k, buffer);
        for (size_t i = 0; i < k; i++)
            if (mica_dtype_is_float(t)) mica_cpu_store(out->dtype, out->data, to + i, sum += mica_cpu_load(t, x, i));
            else mica_cpu_store_bits(out->dtype, out->data, to + i, count += mica_cpu_load_bits(t, x, i));
    }
}

static void cumsum_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const row_job *job = ctx;
    int64_t row = (int64_t)task * job->per_task, end = MICA_MIN(row + job->per_task, job->rows.size);
    for (; row < end; row++) cumsum_row(job, row);
}

static void run_cumsum(const mica_call *c) {
    row_job job = describe(c);
    run_rows(&job, cumsum_task);
}

const mica_kernel mica_cpu_sort_kernels[] = {
    {"sort", run_sort, sort_scratch}, {"argsort", run_argsort, sort_scratch},
    {"argpartition", run_argsort, sort_scratch}, {"cumsum", run_cumsum, NULL},
};
const size_t mica_cpu_sort_kernel_count = MICA_COUNT(mica_cpu_sort_kernels);
