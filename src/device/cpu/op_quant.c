// SPDX-License-Identifier: Apache-2.0
// Ops that make, undo and look up quantised weights: "quantize_weights", "quantize_scales" and "quantize_biases" (three
// results of one quantiser, which is deterministic, so each op keeps its own), "dequantize", "take_packed"; and the
// packing of weights into tiles.
#include "device/cpu/isa.h"
#include "device/cpu/op_matmul.h"
#include "device/cpu/product.h"
#include "device/cpu/view.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>

// ---- quantize --------------------------------------------------------------------------------------
typedef enum quantize_part { WORDS, SCALES, BIASES } quantize_part;

typedef struct quantize_job {
    const mica_call *call;
    mica_quant_spec spec;
    quantize_part part;
    mica_dtype scale_dtype;
    size_t in, words, scales; // elements and bytes of a row
} quantize_job;

static quantize_job quantize_job_of(const mica_call *c, quantize_part part) {
    const mica_tensor *w = &c->in[0];
    quantize_job j = {.call = c, .part = part, .in = (size_t)w->shape[w->ndim - 1]};
    j.spec = (mica_quant_spec){.mode = (mica_quant_mode)c->params->quant.mode, .bits = c->params->quant.bits,
                               .group_size = c->params->quant.group_size};
    j.scale_dtype = mica_quant_scale_dtype(j.spec, part == WORDS ? MICA_F32 : c->out.dtype);
    j.words = mica_quant_words(j.spec, j.in) * 4;
    j.scales = mica_quant_groups(j.spec, j.in) * mica_dtype_size(j.scale_dtype);
    return j;
}

// A thread's scratch: the row in f32, then room for all three results.
static size_t quantize_thread_bytes(const quantize_job *j) {
    return mica_whole_lines(j->in * 4) + mica_whole_lines(j->words) + 2 * mica_whole_lines(j->scales);
}

static void quantize_task(void *ctx, size_t row, size_t thread) {
    const quantize_job *j = ctx;
    const mica_tensor *w = &j->call->in[0];
    unsigned char *area = j->call->scratch + thread * quantize_thread_bytes(j);
    float *f = (float *)(void *)area;
    unsigned char *result[3] = {area + mica_whole_lines(j->in * 4)};
    result[SCALES] = result[WORDS] + mica_whole_lines(j->words), result[BIASES] = result[SCALES] + mica_whole_lines(j->scales);
    size_t size = mica_dtype_size(w->dtype), bytes = j->part == WORDS ? j->words : j->scales;
    const unsigned char *from = w->data + mica_cpu_row_offset(w, 1, row) * (ptrdiff_t)size;
    for (size_t i = 0; i < j->in; i++)
        f[i] = mica_load_f32(w->dtype, from + (ptrdiff_t)i * (ptrdiff_t)w->stride[w->ndim - 1] * (ptrdiff_t)size, 0);
    result[j->part] = j->call->out.data + row * bytes;
    mica_quantize_rows(j->spec, j->scale_dtype, f, 1, j->in, result[WORDS], result[SCALES], result[BIASES]);
}

static void quantize(const mica_call *c, quantize_part part) {
    quantize_job j = quantize_job_of(c, part);
    if (j.in) mica_pool_run(mica_cpu_pool(c), mica_cpu_row_count(&c->in[0], 1), quantize_task, &j);
}
static void quantize_weights(const mica_call *c) { quantize(c, WORDS); }
static void quantize_scales(const mica_call *c) { quantize(c, SCALES); }
static void quantize_biases(const mica_call *c) { quantize(c, BIASES); }

static size_t quantize_scratch(const mica_call *c) {
    quantize_job j = quantize_job_of(c, BIASES);
    j.scales = mica_quant_groups(j.spec, j.in) * 4; // the widest
    return quantize_thread_bytes(&j) * mica_pool_threads(mica_cpu_pool(c));
}

// ---- dequantize, take_packed -----------------------------------------------------------------------
static void dequantize_task(void *ctx, size_t row, size_t thread) {
    const mica_call *c = ctx;
    size_t in = (size_t)c->out.shape[c->out.ndim - 1], size = mica_dtype_size(c->out.dtype);
    mica_quant_rows q = {.spec = {.mode = (mica_quant_mode)c->params->quant.mode, .bits = c->params->quant.bits,
                                  .group_size = c->params->quant.group_size},
                         .scale_dtype = c->in[1].dtype, .words = c->in[0].data, .scales = c->in[1].data,
                         .biases = c->inputs > 2 ? c->in[2].data : NULL};
    float *f = (float *)(void *)(c->scratch + thread * mica_whole_lines(in * 4));
    mica_cpu_codes_run(&q, in, row, 0, in, f);
    mica_cpu_isa_of(c)->rows.from_f32[c->out.dtype](c->out.data + row * in * size, f, in);
}

static void dequantize(const mica_call *c) {
    mica_call call = *c;
    assert(c->in[0].contiguous && c->in[1].contiguous);
    mica_pool_run(mica_cpu_pool(c), mica_cpu_row_count(&c->out, 1), dequantize_task, &call);
}

static void take_task(void *ctx, size_t i, size_t thread) {
    const mica_call *c = ctx;
    mica_cpu_tiles t = mica_cpu_tiles_of(c->params);
    mica_cpu_view ids = mica_cpu_view_of(&c->in[1]);
    int64_t row; // -1: outside, as take does
    mica_cpu_read_indices(&ids, c->in[1].dtype, (int64_t)i, 1, (int64_t)t.out, &row);
    float *f = (float *)(void *)(c->scratch + thread * mica_whole_lines(t.in * 4));
    if (row >= 0) mica_cpu_tiles_row(&t, c->in[0].data, (size_t)row, 0, t.in, f);
    for (size_t k = 0; row < 0 && k < t.in; k++) f[k] = NAN;
    mica_cpu_isa_of(c)->rows.from_f32[c->out.dtype](c->out.data + i * t.in * mica_dtype_size(c->out.dtype), f, t.in);
}

static void take_packed(const mica_call *c) {
    mica_call call = *c;
    mica_pool_run(mica_cpu_pool(c), mica_cpu_row_count(&c->in[1], 0), take_task, &call);
}

// One f32 row a thread.
static size_t row_scratch(const mica_call *c) {
    return mica_whole_lines((size_t)c->out.shape[c->out.ndim - 1] * 4) * mica_pool_threads(mica_cpu_pool(c));
}

// ---- packed weights --------------------------------------------------------------------------------
// Tasks are runs of tile columns of about this many bytes. Each thread starts in a region of its own and works through it in
// order: two threads that touch the same fresh huge page would both clear one.
enum { PACK_BYTES = 256 << 10 };

typedef struct pack_job {
    mica_pack_part *parts;
    size_t count, tasks, regions;
    const mica_cpu_matmul_isa *isa;
} pack_job;

static size_t part_columns(const mica_pack_part *p) { return (p->rows + MICA_TILE_OUTPUTS - 1) / MICA_TILE_OUTPUTS; }

// Fills in task and step of each part; returns the number of tasks.
static size_t cut_parts(mica_pack_part *parts, size_t count) {
    size_t tasks = 0;
    for (size_t i = 0; i < count; i++) {
        mica_cpu_tiles t = mica_cpu_tiles_of(parts[i].params);
        parts[i].task = tasks;
        parts[i].step = MICA_MAX(PACK_BYTES / (t.per_column * t.bytes), (size_t)1);
        tasks += (part_columns(&parts[i]) + parts[i].step - 1) / parts[i].step;
    }
    return tasks;
}

static mica_pack_part *part_of_task(const pack_job *j, size_t task) {
    size_t low = 0, high = j->count; // the last part that starts at or before it
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (j->parts[middle].task <= task) low = middle;
        else high = middle;
    }
    return &j->parts[low];
}

static void pack_task(void *ctx, size_t i, size_t thread) {
    const pack_job *j = ctx;
    (void)thread;
    size_t each = (j->tasks + j->regions - 1) / j->regions, task = i % j->regions * each + i / j->regions;
    if (task >= j->tasks) return;
    mica_pack_part *p = part_of_task(j, task);
    mica_cpu_tiles t = mica_cpu_tiles_of(p->params);
    size_t first = (task - p->task) * p->step, last = MICA_MIN(first + p->step, part_columns(p));
    if (!mica_cpu_tiles_pack(&t, j->isa, p, first, last)) atomic_store_explicit(&p->inexact, true, memory_order_relaxed);
    if (p->done) p->done(p->ctx, (last - first) * t.per_column * t.bytes);
}

size_t mica_cpu_packed_size(mica_device *d, const mica_params *params) {
    (void)d;
    int bits = params->packed.bits, group = params->packed.group_size;
    bool known_bits = bits >= 2 && bits <= 8 && bits != 7, known_group = group == 16 || group == 32 || group == 64 || group == 128;
    if (params->packed.mode != MICA_AFFINE || !known_bits || !known_group || params->packed.in % group) return 0;
    mica_cpu_tiles t = mica_cpu_tiles_of(params);
    return mica_cpu_tiles_size(&t);
}

void mica_cpu_pack_parts(mica_device *d, mica_pack_part *parts, size_t count) {
    mica_pool *pool = ((mica_cpu_device *)d)->pool;
    pack_job j = {parts, count, cut_parts(parts, count), mica_pool_threads(pool), &((mica_cpu_device *)d)->isa->matmul};
    mica_pool_run(pool, (j.tasks + j.regions - 1) / j.regions * j.regions, pack_task, &j);
}

void mica_cpu_pack(mica_device *d, const mica_params *params, const void *w, const void *scales, const void *biases,
                   void *packed) {
    mica_pack_part part = {.params = params, .packed = packed, .rows = (size_t)params->packed.out, .words = w, .scales = scales,
                           .biases = biases};
    mica_cpu_pack_parts(d, &part, 1);
}

const mica_kernel mica_cpu_quant_kernels[] = {
    {"quantize_weights", quantize_weights, quantize_scratch},
    {"quantize_scales", quantize_scales, quantize_scratch},
    {"quantize_biases", quantize_biases, quantize_scratch},
    {"dequantize", dequantize, row_scratch},
    {"take_packed", take_packed, row_scratch},
};
const size_t mica_cpu_quant_kernel_count = MICA_COUNT(mica_cpu_quant_kernels);
