// SPDX-License-Identifier: Apache-2.0
// Ops that move elements: concatenate, slice_update, tril, triu; and by index: take_along_axis, put_along_axis and
// scatter_add_along_axis along the last axis, scatter_add of whole rows. Indices: view.h; one out of range reads NaN (0 for
// integers) and writes nothing. Writers work on disjoint lines or rows, in the order of the indices, so that repeated
// indices give the same result on any number of threads: the last one wins, or the sum is taken in order and rounded once.
#include "device/cpu/convert.h"
#include "device/cpu/map.h"
#include <assert.h>
#include <string.h>

// ---- whole regions ----
// The part of the output that starts at start[d] and takes every step[d]-th element, in the shape of `part`.
static mica_cpu_view region(const mica_tensor *out, const mica_tensor *part, const int64_t *start, const int32_t *step) {
    mica_tensor t = *out;
    for (int d = 0; d < t.ndim; d++) {
        t.data += start[d] * t.stride[d] * (int64_t)mica_dtype_size(t.dtype);
        t.stride[d] *= step ? step[d] : 1;
        t.shape[d] = part->shape[d];
    }
    return mica_cpu_view_of(&t);
}

static void copy_to(const mica_call *c, mica_cpu_view to, const mica_tensor *from) {
    mica_cpu_view v = mica_cpu_view_of(from);
    mica_cpu_copy(mica_cpu_pool(c), &to, &v);
}

// params.axis.axis
static void run_concatenate(const mica_call *c) {
    int axis = c->params->axis.axis;
    int64_t start[MICA_MAX_DIMS] = {0};
    for (int i = 0; i < c->inputs; i++) {
        copy_to(c, region(&c->out, &c->in[i], start, NULL), &c->in[i]);
        start[axis] += c->in[i].shape[axis];
    }
    assert(start[axis] == c->out.shape[axis]);
}

// params.slice
static void run_slice_update(const mica_call *c) {
    int64_t start[MICA_MAX_DIMS];
    for (int d = 0; d < c->out.ndim; d++) start[d] = c->params->slice.start[d];
    copy_to(c, mica_cpu_view_of(&c->out), &c->in[0]);
    copy_to(c, region(&c->out, &c->in[1], start, c->params->slice.step), &c->in[1]);
}

// ---- triangles; params.axis.flags: the diagonal ----
typedef struct line_job {
    const mica_call *c;
    mica_cpu_view lines, line, indices, values; // of in[0]: leading dimensions, last one; in[1]; in[2]
    int64_t count, n, k; // lines; elements of a line of in[0]; of indices
    int64_t per_task;
    bool upper;
    unsigned char *scratch; // n f64 for each thread
} line_job;

static int64_t clamp(int64_t x, int64_t high) { return x < 0 ? 0 : MICA_MIN(x, high); }

static void triangle_line(const line_job *job, int64_t line, unsigned char *buffer) {
    const mica_tensor *out = &job->c->out;
    size_t item = job->line.item;
    int64_t n = job->n, row = line % out->shape[out->ndim - 2];
    int64_t edge = clamp(row + job->c->params->axis.flags + !job->upper, n); // triu keeps [edge, n), tril [0, edge)
    int64_t first = job->upper ? edge : 0, end = job->upper ? n : edge;
    unsigned char *y = out->data + (size_t)(line * n) * item;
    memset(y, 0, (size_t)n * item);
    int64_t shift = mica_cpu_offset(&job->lines, line);
    for (int64_t at = first; at < end; at += MICA_CPU_BLOCK) {
        size_t some = (size_t)MICA_MIN(end - at, (int64_t)MICA_CPU_BLOCK);
        memcpy(y + (size_t)at * item, mica_cpu_read(&job->line, shift, at, some, buffer), some * item);
    }
}

static void triangle_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const line_job *job = ctx;
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    int64_t line = (int64_t)task * job->per_task, end = MICA_MIN(line + job->per_task, job->count);
    for (; line < end; line++) triangle_line(job, line, buffer);
}

static line_job describe(const mica_call *c) {
    const mica_tensor *x = &c->in[0];
    line_job job = {.c = c, .scratch = c->scratch};
    job.lines = mica_cpu_view_dims(x, 0, x->ndim - 1), job.line = mica_cpu_view_dims(x, x->ndim - 1, x->ndim);
    job.count = job.lines.size, job.n = job.line.size;
    if (c->inputs > 1) job.indices = mica_cpu_view_of(&c->in[1]), job.k = c->in[1].shape[c->in[1].ndim - 1];
    if (c->inputs > 2) job.values = mica_cpu_view_of(&c->in[2]);
    job.per_task = MICA_MAX(MICA_CPU_CHUNK_COSTLY / MICA_MAX(job.n + job.k, (int64_t)1), (int64_t)1);
    return job;
}

static void run_lines(const line_job *job, mica_task_fn *fn) {
    mica_pool_run(mica_cpu_pool(job->c), mica_chunks(job->count, job->per_task), fn, (void *)(uintptr_t)job);
}

static void run_tril(const mica_call *c) {
    line_job job = describe(c);
    if (job.n) run_lines(&job, triangle_task);
}

static void run_triu(const mica_call *c) {
    line_job job = describe(c);
    job.upper = true;
    if (job.n) run_lines(&job, triangle_task);
}

// ---- along the last axis ----
static void take_line(const line_job *job, int64_t line) {
    const mica_tensor *out = &job->c->out;
    size_t item = job->line.item;
    unsigned char none[8] = {0};
    if (mica_dtype_is_float(out->dtype)) mica_cpu_store(out->dtype, none, 0, (double)NAN);
    int64_t index[MICA_CPU_BLOCK], shift = mica_cpu_offset(&job->lines, line), stride = job->line.stride[0];
    for (int64_t at = 0, some; at < job->k; at += some) {
        some = MICA_MIN(job->k - at, (int64_t)MICA_CPU_BLOCK);
        mica_cpu_read_indices(&job->indices, job->c->in[1].dtype, line * job->k + at, (size_t)some, job->n, index);
        unsigned char *y = out->data + (size_t)(line * job->k + at) * item;
        for (int64_t i = 0; i < some; i++, y += item)
            memcpy(y, index[i] < 0 ? none : job->line.data + shift + index[i] * stride, item);
    }
}

static void take_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const line_job *job = ctx;
    int64_t line = (int64_t)task * job->per_task, end = MICA_MIN(line + job->per_task, job->count);
    for (; line < end; line++) take_line(job, line);
}

static void run_take_along_axis(const mica_call *c) {
    line_job job = describe(c);
    if (!job.k) return;
    run_lines(&job, take_task);
}

static void put_line(const line_job *job, int64_t line, unsigned char *buffer) {
    size_t item = job->line.item;
    int64_t index[MICA_CPU_BLOCK];
    unsigned char *y = job->c->out.data + (size_t)(line * job->n) * item;
    for (int64_t at = 0, some; at < job->k; at += some) {
        some = MICA_MIN(job->k - at, (int64_t)MICA_CPU_BLOCK);
        mica_cpu_read_indices(&job->indices, job->c->in[1].dtype, line * job->k + at, (size_t)some, job->n, index);
        const unsigned char *v = mica_cpu_read(&job->values, 0, line * job->k + at, (size_t)some, buffer);
        for (int64_t i = 0; i < some; i++)
            if (index[i] >= 0) memcpy(y + (size_t)index[i] * item, v + (size_t)i * item, item);
    }
}

static void put_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const line_job *job = ctx;
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    int64_t line = (int64_t)task * job->per_task, end = MICA_MIN(line + job->per_task, job->count);
    for (; line < end; line++) put_line(job, line, buffer);
}

static void run_put_along_axis(const mica_call *c) {
    line_job job = describe(c);
    copy_to(c, mica_cpu_view_of(&c->out), &c->in[0]);
    if (job.n) run_lines(&job, put_task);
}

// Adds to a line of n numbers of 64 bits: f64 for floats, integers modulo 2^64 for the others.
static void add_number(mica_dtype t, void *sums, size_t to, const void *x, size_t i) {
    if (mica_dtype_is_float(t)) ((double *)sums)[to] += mica_cpu_load(t, x, i);
    else ((uint64_t *)sums)[to] += mica_cpu_load_bits(t, x, i);
}
static void set_number(mica_dtype t, void *sums, size_t to, const void *x, size_t i) {
    if (mica_dtype_is_float(t)) ((double *)sums)[to] = mica_cpu_load(t, x, i);
    else ((uint64_t *)sums)[to] = mica_cpu_load_bits(t, x, i);
}
static void store_number(mica_dtype t, void *y, size_t i, const void *sums, size_t from) {
    if (mica_dtype_is_float(t)) mica_cpu_store(t, y, i, ((const double *)sums)[from]);
    else mica_cpu_store_bits(t, y, i, ((const uint64_t *)sums)[from]);
}

static void add_line(const line_job *job, int64_t line, void *sums, unsigned char *buffer) {
    mica_dtype t = job->c->out.dtype;
    int64_t index[MICA_CPU_BLOCK];
    unsigned char *y = job->c->out.data + (size_t)(line * job->n) * job->line.item; // holds a copy of in[0]
    for (int64_t i = 0; i < job->n; i++) set_number(t, sums, (size_t)i, y, (size_t)i);
    for (int64_t at = 0, some; at < job->k; at += some) {
        some = MICA_MIN(job->k - at, (int64_t)MICA_CPU_BLOCK);
        mica_cpu_read_indices(&job->indices, job->c->in[1].dtype, line * job->k + at, (size_t)some, job->n, index);
        const void *v = mica_cpu_read(&job->values, 0, line * job->k + at, (size_t)some, buffer);
        for (int64_t i = 0; i < some; i++)
            if (index[i] >= 0) add_number(t, sums, (size_t)index[i], v, (size_t)i);
    }
    for (int64_t i = 0; i < job->n; i++) store_number(t, y, (size_t)i, sums, (size_t)i);
}

static void add_task(void *ctx, size_t task, size_t thread) {
    const line_job *job = ctx;
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    void *sums = job->scratch + thread * (size_t)job->n * 8;
    int64_t line = (int64_t)task * job->per_task, end = MICA_MIN(line + job->per_task, job->count);
    for (; line < end; line++) add_line(job, line, sums, buffer);
}

static void run_scatter_add_along_axis(const mica_call *c) {
    line_job job = describe(c);
    copy_to(c, mica_cpu_view_of(&c->out), &c->in[0]);
    if (job.n && job.k) run_lines(&job, add_task);
}

static size_t add_scratch(const mica_call *c) {
    return mica_pool_threads(mica_cpu_pool(c)) * (size_t)c->in[0].shape[c->in[0].ndim - 1] * 8;
}

// ---- scatter_add: rows ----
// Positions are sorted by their row; a run of equal rows is added up by one task, over a block of columns.
typedef struct scatter_job {
    const mica_call *c;
    mica_cpu_view values;
    int64_t n, width;      // indices; elements of a row
    int64_t *rows, *order; // [n] row of each position (-1 none); positions sorted by row, then position
    int64_t blocks;        // of columns
} scatter_job;

enum { POSITIONS = 64 }; // of a task

static void sort_by_row(const int64_t *rows, int64_t *order, int64_t *other, int64_t n) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    for (int64_t width = 1; width < n; width *= 2) { // bottom-up merges
        for (int64_t a = 0; a < n; a += 2 * width) {
            int64_t middle = MICA_MIN(a + width, n), end = MICA_MIN(a + 2 * width, n), i = a, j = middle;
            for (int64_t to = a; to < end; to++)
                other[to] = j == end || (i < middle && rows[order[i]] <= rows[order[j]]) ? order[i++] : order[j++];
        }
        memcpy(order, other, (size_t)n * sizeof *order);
    }
}

static void add_run(const scatter_job *job, int64_t first, int64_t end, int64_t column, size_t n) {
    mica_dtype t = job->c->out.dtype;
    double sums[MICA_CPU_BLOCK];
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    unsigned char *y = job->c->out.data + (size_t)(job->rows[job->order[first]] * job->width + column) * job->values.item;
    for (size_t i = 0; i < n; i++) set_number(t, sums, i, y, i);
    for (int64_t p = first; p < end; p++) {
        const void *v = mica_cpu_read(&job->values, 0, job->order[p] * job->width + column, n, buffer);
        for (size_t i = 0; i < n; i++) add_number(t, sums, i, v, i);
    }
    for (size_t i = 0; i < n; i++) store_number(t, y, i, sums, i);
}

// The runs that start among these positions.
static void scatter_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const scatter_job *job = ctx;
    int64_t block = (int64_t)task % job->blocks, p = (int64_t)task / job->blocks * POSITIONS;
    int64_t last = MICA_MIN(p + POSITIONS, job->n), column = block * MICA_CPU_BLOCK;
    size_t width = (size_t)MICA_MIN(job->width - column, (int64_t)MICA_CPU_BLOCK);
    while (p < last) {
        int64_t row = job->rows[job->order[p]], end = p + 1;
        while (end < job->n && job->rows[job->order[end]] == row) end++;
        bool starts = p == 0 || job->rows[job->order[p - 1]] != row;
        if (starts && row >= 0) add_run(job, p, end, column, width);
        p = end;
    }
}

static void run_scatter_add(const mica_call *c) {
    copy_to(c, mica_cpu_view_of(&c->out), &c->in[0]);
    mica_cpu_view indices = mica_cpu_view_of(&c->in[1]);
    scatter_job job = {.c = c, .values = mica_cpu_view_of(&c->in[2]), .n = indices.size};
    if (!job.values.size || !c->out.shape[0]) return;
    job.width = job.values.size / job.n;
    job.blocks = (job.width + MICA_CPU_BLOCK - 1) / MICA_CPU_BLOCK;
    job.rows = (int64_t *)(void *)c->scratch, job.order = job.rows + job.n;
    for (int64_t at = 0; at < job.n; at += MICA_CPU_BLOCK) {
        size_t some = (size_t)MICA_MIN(job.n - at, (int64_t)MICA_CPU_BLOCK);
        mica_cpu_read_indices(&indices, c->in[1].dtype, at, some, c->out.shape[0], job.rows + at);
    }
    sort_by_row(job.rows, job.order, job.order + job.n, job.n);
    mica_pool_run(mica_cpu_pool(c), mica_chunks(job.n, POSITIONS) * (size_t)job.blocks, scatter_task, &job);
}

static size_t scatter_scratch(const mica_call *c) { return 3 * (size_t)mica_tensor_size(&c->in[1]) * sizeof(int64_t); }

const mica_kernel mica_cpu_index_kernels[] = {
    {"concatenate", run_concatenate, NULL}, {"slice_update", run_slice_update, NULL},
    {"tril", run_tril, NULL}, {"triu", run_triu, NULL},
    {"take_along_axis", run_take_along_axis, NULL}, {"put_along_axis", run_put_along_axis, NULL},
    {"scatter_add", run_scatter_add, scatter_scratch},
    {"scatter_add_along_axis", run_scatter_add_along_axis, add_scratch},
};
const size_t mica_cpu_index_kernel_count = MICA_COUNT(mica_cpu_index_kernels);
