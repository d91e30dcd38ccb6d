// SPDX-License-Identifier: Apache-2.0
// Driver of packed products with activations in 8 bits (isa_int8.h): all rows of x are rounded first, once, into blocks of
// eight; then the threads take outputs, a few at a time, and pass the blocks over their weights.
#include "device/cpu/product_int8.h"
#include "device/cpu/isa.h"
#include "device/cpu/product.h"
#include "device/cpu/product_parts.h"
#include <assert.h>


typedef struct plan {
    const mica_call *call;
    const mica_cpu_int8_isa *isa;
    const mica_cpu_rows_isa *convert;
    mica_cpu_tiles tiles;
    size_t m, n, k, groups; // k padded to whole tiles
    mica_gate gate;
    size_t unit;            // outputs are cut at multiples of it
    size_t outs, tasks;     // outs: that all rows pass over at once; tasks: threads at work
    size_t column_bytes;    // weights of 16 outputs
    size_t at_scales, at_sums, at_ranges, at_threads, per_thread; // byte offsets into scratch
} plan;


static size_t units_of(const plan *p) { return (p->n + p->unit - 1) / p->unit; }

static plan plan_product(const mica_call *c) {
    plan p = {.call = c, .isa = &mica_cpu_isa_of(c)->int8, .convert = &mica_cpu_isa_of(c)->rows, .tiles = mica_cpu_tiles_of(c->params)};
    size_t threads = mica_pool_threads(mica_cpu_pool(c));
    p.m = mica_cpu_row_count(&c->in[0], 1);
    p.n = p.tiles.out;
    p.k = p.tiles.per_column * p.tiles.depth;
    p.groups = p.k / (size_t)p.tiles.group;
    p.column_bytes = p.tiles.per_column * p.tiles.bytes;
    p.gate = (mica_gate)c->params->packed.gate;
    p.unit = p.gate ? 2 * MICA_GATE_BLOCK : MICA_TILE_OUTPUTS;
    p.outs = mica_cpu_block_outputs(p.column_bytes, p.unit);
    p.tasks = MICA_MIN(threads, units_of(&p));
    p.at_scales = mica_whole_lines(p.m * p.k);
    p.at_sums = p.at_scales + mica_whole_lines(p.m * p.groups * 4);
    p.at_ranges = p.at_sums + mica_whole_lines(p.m * p.groups * 4);
    p.at_threads = p.at_ranges + threads * sizeof(mica_cpu_range);
    p.per_thread = mica_whole_lines(MICA_MAX(MICA_INT8_ROWS * p.outs, p.tiles.in) * 4); // sums; or a row of x whose elements lie apart
    return p;
}

size_t mica_cpu_product_int8_scratch(const mica_call *c) {
    plan p = plan_product(c);
    return p.at_threads + p.per_thread * mica_pool_threads(mica_cpu_pool(c));
}

static float *thread_area(const plan *p, size_t thread) {
    return (float *)(void *)(p->call->scratch + p->at_threads + thread * p->per_thread);
}

// The block of rows r0 …
static mica_cpu_int8_block block_at(const plan *p, size_t r0) {
    const unsigned char *scratch = p->call->scratch;
    return (mica_cpu_int8_block){.rows = MICA_MIN((size_t)MICA_INT8_ROWS, p->m - r0), .k = p->k, .groups = p->groups,
                                 .codes = (const int8_t *)scratch + r0 * p->k,
                                 .scales = (const float *)(const void *)(scratch + p->at_scales) + r0 * p->groups,
                                 .sums = (const float *)(const void *)(scratch + p->at_sums) + r0 * p->groups};
}

static void round_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    const mica_tensor *x = &p->call->in[0];
    size_t n = p->tiles.in, size = mica_dtype_size(x->dtype), r0 = task * MICA_INT8_ROWS;
    mica_cpu_int8_block b = block_at(p, r0);
    ptrdiff_t step = (ptrdiff_t)x->stride[x->ndim - 1] * (ptrdiff_t)size;
    for (size_t r = 0; r < b.rows; r++) {
        const unsigned char *row = x->data + mica_cpu_row_offset(x, 1, r0 + r) * (ptrdiff_t)size;
        mica_dtype type = x->dtype;
        if (step != (ptrdiff_t)size && n > 1) {
            float *gathered = thread_area(p, thread);
            for (size_t i = 0; i < n; i++) gathered[i] = mica_cpu_load1(type, row + (ptrdiff_t)i * step, 0);
            row = (const unsigned char *)gathered, type = MICA_F32;
        }
        p->isa->round_row(type, row, n, p->k, (size_t)p->tiles.group, b.rows, (int8_t *)b.codes + 4 * r, (float *)b.scales + r,
                          (float *)b.sums + r);
    }
}

// Outputs [n0, n0+n) of all rows.
static void product_block(const plan *p, size_t n0, size_t n, float *y) {
    const unsigned char *w = p->call->in[1].data + n0 / MICA_TILE_OUTPUTS * p->column_bytes;
    for (size_t row = 0; row < p->m; row += MICA_INT8_ROWS) {
        mica_cpu_int8_block x = block_at(p, row);
        p->isa->tiles(&p->tiles, &x, w, mica_round_up(n, MICA_TILE_OUTPUTS), y, p->outs);
        mica_cpu_store_rows(p->convert, p->gate, &p->call->out, p->n, row, x.rows, n0, n, y, p->outs);
    }
}

static void product_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    mica_cpu_range *ranges = (mica_cpu_range *)(void *)(p->call->scratch + p->at_ranges);
    size_t least = mica_cpu_least_piece(p->column_bytes, p->unit), from, to;
    for (size_t i = 0; i < p->tasks; i++)
        while (mica_cpu_take_piece(&ranges[(task + i) % p->tasks], least, p->outs / p->unit, units_of(p), &from, &to))
            product_block(p, from * p->unit, MICA_MIN((to - from) * p->unit, p->n - from * p->unit), thread_area(p, thread));
}

void mica_cpu_product_int8(const mica_call *c) {
    plan p = plan_product(c);
    assert(c->inputs == 2 && c->params->packed.mode == MICA_AFFINE);
    if (!p.m || !p.n) return;
    mica_cpu_cut_ranges((mica_cpu_range *)(void *)(c->scratch + p.at_ranges), p.tasks, units_of(&p));
    mica_pool *pool = mica_cpu_pool(c);
    mica_pool_run(pool, (p.m + MICA_INT8_ROWS - 1) / MICA_INT8_ROWS, round_task, &p);
    mica_pool_run(pool, p.tasks, product_task, &p);
}
