// SPDX-License-Identifier: Apache-2.0
// Walking rows (see walk.h). A row whose elements lie apart is first gathered into the thread's scratch; contiguous
// tensors of an elementwise op are cut into equal runs instead of rows, so that a long or a short last axis costs the
// same.
#include "device/cpu/walk.h"
#include <assert.h>
#include <string.h>

// Elements in a task: about 2 µs of the fastest kernels, well above the cost of handing a task to a thread; and in
// a flat run, small enough for the first-level cache. At most so many tasks: more would only add hand-overs.
enum { TASK_ELEMENTS = 16384, RUN = 8192, MOST_TASKS = 256 };

typedef struct walk {
    const mica_call *c;
    int inputs;
    bool flat;                    // rows are runs of RUN elements, the last one shorter
    size_t count, n;              // elements of an input; elements of a row
    size_t y_bytes;               // from row to row of the output
    size_t gap[MICA_WALK_INPUTS]; // scratch offset of the input's gathered row + 1; 0 = rows are contiguous
    size_t scratch_bytes;         // of one thread
    unsigned char *scratch;
    mica_walk_fn *fn;
    void *ctx;
} walk;

size_t mica_walk_count(const mica_tensor *t) {
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->shape[i];
    return n;
}

ptrdiff_t mica_walk_offset(const mica_tensor *t, int inner, size_t row) {
    int64_t offset = 0;
    for (int i = t->ndim - inner - 1; i >= 0 && row; i--) {
        size_t n = (size_t)t->shape[i];
        offset += (int64_t)(row % n) * t->stride[i];
        row /= n;
    }
    return (ptrdiff_t)offset * (ptrdiff_t)mica_dtype_size(t->dtype);
}

#define GATHER(T)                                                                                                      \
    do {                                                                                                               \
        const T *a = from;                                                                                             \
        T *o = to;                                                                                                     \
        for (size_t i = 0; i < n; i++) o[i] = a[(ptrdiff_t)i * stride];                                                \
    } while (0)

void mica_walk_gather(void *to, const void *from, ptrdiff_t stride, size_t n, size_t size) {
    if (stride == 1)
        memcpy(to, from, n * size);
    else if (size == 1)
        GATHER(uint8_t);
    else if (size == 2)
        GATHER(uint16_t);
    else if (size == 4)
        GATHER(uint32_t);
    else
        GATHER(uint64_t);
}

static size_t last_axis(const mica_tensor *t) { return t->ndim ? (size_t)t->shape[t->ndim - 1] : 1; }

static bool has_gaps(const mica_tensor *t) {
    return t->ndim && t->shape[t->ndim - 1] > 1 && t->stride[t->ndim - 1] != 1;
}

static size_t row_scratch(const mica_tensor *t) {
    return has_gaps(t) ? mica_walk_round(last_axis(t) * mica_dtype_size(t->dtype)) : 0;
}

size_t mica_walk_scratch(const mica_call *c, int inputs) {
    size_t bytes = 0;
    for (int i = 0; i < inputs; i++) bytes += row_scratch(&c->in[i]);
    return bytes * mica_pool_threads(mica_cpu_pool(c));
}

typedef struct range {
    mica_range_fn *fn;
    void *ctx;
    size_t count, step;
} range;

static void range_task(void *ctx, size_t task, size_t thread) {
    const range *r = ctx;
    size_t first = task * r->step;
    r->fn(r->ctx, first, MICA_MIN(first + r->step, r->count), thread);
}

void mica_walk_range(const mica_call *c, size_t count, size_t grain, mica_range_fn *fn, void *ctx) {
    size_t step = MICA_MAX(MICA_MAX(grain, (size_t)1), (count + MOST_TASKS - 1) / MOST_TASKS);
    range r = {.fn = fn, .ctx = ctx, .count = count, .step = step};
    mica_pool_run(mica_cpu_pool(c), (count + step - 1) / step, range_task, &r);
}

static const void *row_of(const walk *w, int input, size_t row, unsigned char *scratch) {
    const mica_tensor *t = &w->c->in[input];
    size_t size = mica_dtype_size(t->dtype);
    if (w->flat) return t->data + row * w->n * size;
    const unsigned char *x = t->data + mica_walk_offset(t, MICA_MIN(t->ndim, 1), row);
    if (!w->gap[input]) return x;
    unsigned char *to = scratch + w->gap[input] - 1;
    mica_walk_gather(to, x, (ptrdiff_t)t->stride[t->ndim - 1], w->n, size);
    return to;
}

static void walk_some(void *ctx, size_t first, size_t end, size_t thread) {
    const walk *w = ctx;
    unsigned char *scratch = w->scratch_bytes ? w->scratch + thread * w->scratch_bytes : NULL;
    for (size_t row = first; row < end; row++) {
        const void *x[MICA_WALK_INPUTS];
        for (int i = 0; i < w->inputs; i++) x[i] = row_of(w, i, row, scratch);
        w->fn(w->ctx, w->c->out.data + row * w->y_bytes, x, MICA_MIN(w->n, w->count - row * w->n), row);
    }
}

static void run_walk(walk *w) {
    size_t rows = w->n ? (w->count + w->n - 1) / w->n : 0;
    mica_walk_range(w->c, rows, TASK_ELEMENTS / MICA_MAX(w->n, (size_t)1), walk_some, w);
}

void mica_walk_rows(const mica_call *c, int inputs, unsigned char *scratch, mica_walk_fn *fn, void *ctx) {
    assert(inputs <= MICA_WALK_INPUTS);
    walk w = {.c = c,
              .inputs = inputs,
              .count = mica_walk_count(&c->in[0]),
              .n = last_axis(&c->in[0]),
              .scratch = scratch,
              .fn = fn,
              .ctx = ctx};
    if (!w.count) { // rows of no elements may still have a result
        size_t rows = mica_walk_count(&c->out), size = mica_dtype_size(c->out.dtype);
        const void *x[MICA_WALK_INPUTS] = {0};
        for (size_t row = 0; row < rows; row++) fn(ctx, c->out.data + row * size, x, 0, row);
        return;
    }
    w.y_bytes = mica_walk_count(&c->out) / (w.count / w.n) * mica_dtype_size(c->out.dtype);
    for (int i = 0; i < inputs; i++) {
        if (has_gaps(&c->in[i])) w.gap[i] = w.scratch_bytes + 1;
        w.scratch_bytes += row_scratch(&c->in[i]);
    }
    run_walk(&w);
}

void mica_walk_elements(const mica_call *c, int inputs, unsigned char *scratch, mica_walk_fn *fn, void *ctx) {
    bool flat = true;
    for (int i = 0; i < inputs; i++) flat = flat && c->in[i].contiguous;
    if (!flat) {
        mica_walk_rows(c, inputs, scratch, fn, ctx);
        return;
    }
    walk w = {
        .c = c, .inputs = inputs, .flat = true, .count = mica_walk_count(&c->out), .n = RUN, .fn = fn, .ctx = ctx};
    w.y_bytes = w.n * mica_dtype_size(c->out.dtype);
    run_walk(&w);
}
