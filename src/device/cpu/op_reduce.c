// SPDX-License-Identifier: Apache-2.0
// sum, mean, max and min over the trailing dimensions that the output lacks. A row that is to be
// reduced is read in blocks; each block is summed in 16 lanes of its own type and added to an f64 (or 64-bit integer) total.
// Long rows are cut into segments whose totals are added in order, so no result depends on threads. Where the
// reduced axis is the strided one (a sum over columns), whole runs of outputs are accumulated side by side instead.
#include "device/cpu/convert.h"
#include "device/cpu/map.h"
#include <assert.h>

typedef union total {
    double f;
    int64_t i;
    uint64_t u;
} total;

/** t = t combined with n elements; and t[i] = t[i] combined with x[i]. */
typedef void block_fn(total *t, const void *x, size_t n);
typedef struct reduction {
    block_fn *block, *columns;
    total start;
} reduction;

enum { LANES = 16, SEGMENT = 65536, LEAST_COLUMNS = 16 };

// T element, A lanes, S member and type of a sum's total, M member and type of an extreme's.
#define SUM(name, T, A, S, D)                                                             \
    static void sum_##name(total *t, const void *x, size_t n) {                           \
        const T *p = x;                                                                   \
        A lane[LANES] = {0};                                                              \
        size_t i = 0;                                                                     \
        for (; i + LANES <= n; i += LANES)                                                \
            for (size_t j = 0; j < LANES; j++) lane[j] += (A)p[i + j];                    \
        for (size_t j = 0; i < n; i++, j++) lane[j] += (A)p[i];                           \
        for (size_t j = 0; j < LANES; j++) t->S += (D)lane[j];                            \
    }                                                                                     \
    static void sum_columns_##name(total *t, const void *x, size_t n) {                   \
        for (size_t i = 0; i < n; i++) t[i].S += (D)((const T *)x)[i];                    \
    }
// A NaN, once met, stays: no number is greater or less.
#define EXTREME(name, T, M, D, best, wins)                                                \
    static void best##_##name(total *t, const void *x, size_t n) {                        \
        const T *p = x;                                                                   \
        T b = p[0];                                                                       \
        for (size_t i = 1; i < n; i++) b = p[i] wins b || p[i] != p[i] ? p[i] : b;        \
        if ((D)b wins t->M || b != b) t->M = (D)b;                                        \
    }                                                                                     \
    static void best##_columns_##name(total *t, const void *x, size_t n) {                \
        const T *p = x;                                                                   \
        for (size_t i = 0; i < n; i++)                                                    \
            if ((D)p[i] wins t[i].M || p[i] != p[i]) t[i].M = (D)p[i];                    \
    }
#define REDUCTIONS(name, T, A, S, SD, M, MD) \
    SUM(name, T, A, S, SD) EXTREME(name, T, M, MD, max, >) EXTREME(name, T, M, MD, min, <)

REDUCTIONS(f32, float, float, f, double, f, double)
REDUCTIONS(f64, double, double, f, double, f, double)
REDUCTIONS(u8, uint8_t, uint64_t, u, uint64_t, u, uint64_t)
REDUCTIONS(u16, uint16_t, uint64_t, u, uint64_t, u, uint64_t)
REDUCTIONS(u32, uint32_t, uint64_t, u, uint64_t, u, uint64_t)
REDUCTIONS(u64, uint64_t, uint64_t, u, uint64_t, u, uint64_t)
REDUCTIONS(i8, int8_t, uint64_t, u, uint64_t, i, int64_t) // sums wrap modulo 2^64
REDUCTIONS(i16, int16_t, uint64_t, u, uint64_t, i, int64_t)
REDUCTIONS(i32, int32_t, uint64_t, u, uint64_t, i, int64_t)
REDUCTIONS(i64, int64_t, uint64_t, u, uint64_t, i, int64_t)

static void sum_squares_f32(total *t, const void *x, size_t n) {
    const float *p = x;
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] += p[i + j] * p[i + j];
    for (size_t j = 0; i < n; i++, j++) lane[j] += p[i] * p[i];
    for (size_t j = 0; j < LANES; j++) t->f += (double)lane[j];
}

#define TABLE(op, LOW_F, LOW_U, LOW_I)                                                                             \
    {                                                                                                              \
        [MICA_F32] = {op##_f32, op##_columns_f32, {.f = LOW_F}}, [MICA_F16] = {op##_f32, op##_columns_f32, {.f = LOW_F}}, \
        [MICA_BF16] = {op##_f32, op##_columns_f32, {.f = LOW_F}}, [MICA_F64] = {op##_f64, op##_columns_f64, {.f = LOW_F}}, \
        [MICA_BOOL] = {op##_u8, op##_columns_u8, {.u = LOW_U}}, [MICA_U8] = {op##_u8, op##_columns_u8, {.u = LOW_U}}, \
        [MICA_U16] = {op##_u16, op##_columns_u16, {.u = LOW_U}}, [MICA_U32] = {op##_u32, op##_columns_u32, {.u = LOW_U}}, \
        [MICA_U64] = {op##_u64, op##_columns_u64, {.u = LOW_U}}, [MICA_I8] = {op##_i8, op##_columns_i8, {.i = LOW_I}}, \
        [MICA_I16] = {op##_i16, op##_columns_i16, {.i = LOW_I}}, [MICA_I32] = {op##_i32, op##_columns_i32, {.i = LOW_I}}, \
        [MICA_I64] = {op##_i64, op##_columns_i64, {.i = LOW_I}},                                                   \
    }
static const reduction sums[MICA_DTYPE_COUNT] = TABLE(sum, 0, 0, 0);
static const reduction maxima[MICA_DTYPE_COUNT] = TABLE(max, (double)-INFINITY, 0, INT64_MIN);
static const reduction minima[MICA_DTYPE_COUNT] = TABLE(min, (double)INFINITY, UINT64_MAX, INT64_MAX);

static const reduction squares[MICA_DTYPE_COUNT] = {[MICA_F32] = {.block = sum_squares_f32}, [MICA_F64] = {.columns = sum_columns_f64}}; // that joins totals

// ---- running over a tensor ----
typedef struct reduce_job {
    const mica_call *c;
    const reduction *r;       // of the op and type
    const mica_cpu_rows_isa *isa;
    mica_cpu_view kept, gone; // the dimensions that stay, those that are reduced
    int64_t segments;         // of a row
    int64_t per_task;         // rows, or segments of one row
    bool columns;
    bool mean;
    total *totals;            // [rows, segments]
} reduce_job;

typedef struct block {
    _Alignas(64) unsigned char raw[MICA_CPU_BLOCK_BYTES];
    _Alignas(64) float wide[MICA_CPU_BLOCK];
} block;

static const void *widened(const reduce_job *job, const void *x, size_t n, block *b) {
    mica_dtype dtype = job->c->in[0].dtype;
    if (!mica_cpu_is_half(dtype)) return x;
    job->isa->to_f32[dtype](b->wide, x, n);
    return b->wide;
}

static void reduce_segment(const reduce_job *job, int64_t row, int64_t segment, block *b) {
    total t = job->r->start;
    int64_t shift = mica_cpu_offset(&job->kept, row);
    int64_t at = segment * SEGMENT, end = MICA_MIN(at + SEGMENT, job->gone.size);
    for (int64_t n; at < end; at += n) {
        n = MICA_MIN(end - at, (int64_t)MICA_CPU_BLOCK);
        const void *x = mica_cpu_read(&job->gone, shift, at, (size_t)n, b->raw);
        job->r->block(&t, widened(job, x, (size_t)n, b), (size_t)n);
    }
    job->totals[row * job->segments + segment] = t;
}

static void reduce_rows(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const reduce_job *job = ctx;
    block b;
    int64_t i = (int64_t)task * job->per_task, end = MICA_MIN(i + job->per_task, job->kept.size * job->segments);
    for (; i < end; i++) reduce_segment(job, i / job->segments, i % job->segments, &b);
}

// One run of neighbouring outputs, one segment of what is reduced.
static void reduce_columns(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const reduce_job *job = ctx;
    const mica_cpu_view *kept = &job->kept;
    int64_t width = kept->shape[kept->ndim - 1], runs = (width + MICA_CPU_BLOCK - 1) / MICA_CPU_BLOCK;
    int64_t segment = (int64_t)task % job->segments, run = (int64_t)task / job->segments;
    int64_t column = run % runs * MICA_CPU_BLOCK, row = run / runs * width + column;
    size_t n = (size_t)MICA_MIN(width - column, (int64_t)MICA_CPU_BLOCK);
    const unsigned char *data = kept->data + mica_cpu_offset(kept, row);
    total t[MICA_CPU_BLOCK];
    int64_t offsets[MICA_CPU_BLOCK];
    block b;
    for (size_t i = 0; i < n; i++) t[i] = job->r->start;
    int64_t at = segment * SEGMENT, end = MICA_MIN(at + SEGMENT, job->gone.size);
    for (int64_t k; at < end; at += k) {
        k = MICA_MIN(end - at, (int64_t)MICA_CPU_BLOCK);
        mica_cpu_offsets(&job->gone, at, (size_t)k, offsets);
        for (int64_t i = 0; i < k; i++) job->r->columns(t, widened(job, data + offsets[i], n, &b), n);
    }
    for (size_t i = 0; i < n; i++) job->totals[(row + (int64_t)i) * job->segments + segment] = t[i];
}

static total joined(const reduce_job *job, int64_t row) {
    const total *part = job->totals + row * job->segments;
    total t = part[0];
    mica_dtype dtype = job->c->in[0].dtype;
    // A total has one of three types, whose 64-bit instances know how to combine two of them.
    mica_dtype wide = mica_dtype_is_float(dtype) ? MICA_F64 : dtype >= MICA_I8 ? MICA_I64 : MICA_U64;
    const reduction *join = job->r - dtype + wide;
    for (int64_t s = 1; s < job->segments; s++) join->columns(&t, &part[s], 1);
    return t;
}

static void store(const reduce_job *job, int64_t row) {
    const mica_tensor *out = &job->c->out;
    mica_dtype from = job->c->in[0].dtype;
    total t = joined(job, row);
    double n = job->mean ? (double)job->gone.size : 1;
    if (mica_dtype_is_float(from)) mica_cpu_store(out->dtype, out->data, (size_t)row, t.f / n);
    else if (!mica_dtype_is_float(out->dtype) && !job->mean) mica_cpu_store_bits(out->dtype, out->data, (size_t)row, t.u);
    else mica_cpu_store(out->dtype, out->data, (size_t)row, (from >= MICA_I8 ? (double)t.i : (double)t.u) / n);
}

static void store_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const reduce_job *job = ctx;
    int64_t row = (int64_t)task * MICA_CPU_CHUNK_COSTLY, end = MICA_MIN(row + MICA_CPU_CHUNK_COSTLY, job->kept.size);
    for (; row < end; row++) store(job, row);
}

static reduce_job describe(const mica_call *c) {
    const mica_tensor *x = &c->in[0];
    int kept = c->out.ndim;
    assert(kept <= x->ndim);
    reduce_job job = {.c = c, .isa = &mica_cpu_isa_of(c)->rows};
    job.kept = mica_cpu_view_dims(x, 0, kept);
    job.gone = mica_cpu_view_dims(x, kept, x->ndim);
    job.segments = MICA_MAX((job.gone.size + SEGMENT - 1) / SEGMENT, (int64_t)1);
    return job;
}

static size_t reduce_scratch(const mica_call *c) {
    reduce_job job = describe(c);
    return (size_t)(job.kept.size * job.segments) * sizeof(total);
}

static void reduce(const mica_call *c, const reduction *table, bool mean) {
    reduce_job job = describe(c);
    const mica_cpu_view *kept = &job.kept, *gone = &job.gone;
    assert(kept->size == mica_tensor_size(&c->out));
    if (!kept->size) return;
    job.r = &table[c->in[0].dtype], job.mean = mean, job.totals = (total *)(void *)c->scratch;
    int64_t item = (int64_t)kept->item, width = kept->shape[kept->ndim - 1];
    job.columns = width >= LEAST_COLUMNS && kept->stride[kept->ndim - 1] == item && gone->stride[gone->ndim - 1] != item;
    mica_pool *pool = mica_cpu_pool(c);
    if (job.columns) {
        int64_t runs = (width + MICA_CPU_BLOCK - 1) / MICA_CPU_BLOCK;
        mica_pool_run(pool, (size_t)(kept->size / width * runs * job.segments), reduce_columns, &job);
    } else {
        job.per_task = MICA_MAX(MICA_CPU_CHUNK / MICA_MAX(gone->size, (int64_t)1), (int64_t)1);
        mica_pool_run(pool, mica_chunks(kept->size * job.segments, job.per_task), reduce_rows, &job);
    }
    mica_pool_run(pool, mica_chunks(kept->size, MICA_CPU_CHUNK_COSTLY), store_task, &job);
}

static void run_sum(const mica_call *c) { reduce(c, sums, false); }
static void run_sum_squares(const mica_call *c) { reduce(c, squares, false); }
static void run_mean(const mica_call *c) { reduce(c, sums, true); }
static void run_max(const mica_call *c) { reduce(c, maxima, false); }
static void run_min(const mica_call *c) { reduce(c, minima, false); }

const mica_kernel mica_cpu_reduce_kernels[] = {
    {"sum", run_sum, reduce_scratch}, {"mean", run_mean, reduce_scratch},
    {"sum_squares", run_sum_squares, reduce_scratch},
    {"max", run_max, reduce_scratch}, {"min", run_min, reduce_scratch},
};
const size_t mica_cpu_reduce_kernel_count = MICA_COUNT(mica_cpu_reduce_kernels);
