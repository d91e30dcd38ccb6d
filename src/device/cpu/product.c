// SPDX-License-Identifier: Apache-2.0
// Driver of matrix products. plan_product decides from shapes and types alone: compute type, direct or panels,
// tasks, scratch. Then rows of x that a kernel cannot read in place are copied (converted, padded), and the tasks run.
// An output's sums run over k in one fixed order whoever computes it: thread counts do not matter.
// A gated product (packed.gate) has 2F outputs in blocks of 16 gates and 16 ups, and gives act(gate) * up, F wide, from
// the sums in f32.
#include "device/cpu/product.h"
#include "device/cpu/isa.h"
#include "device/cpu/product_parts.h"
#include <assert.h>

enum {
    ROWS_TASK = 512,       // rows of a panel task: decoding the panel is then a few per cent of the product
    ROWS_TASK_SMALL = 128, // where there are few panels: at least
    TASKS_EACH = 3,        // panel tasks that a thread gets at least, where there are so many
    FAR_BYTES = 16 << 20,  // rows of x of a task that are too many for the last cache
    FAR_PANELS = 12,       // then: panels of a task, at most, where threads have one task each
    STORE_ROWS = 32,       // rows whose sums are stored before the next ones': their pages stay at hand
    SPLIT_ROWS = 4,        // rows of a direct product in groups of 16, for which kernels are slower
    COPY_ROWS = 16,        // rows of x that a copying task converts or packs
    FIXED_ROWS = 2,        // or writes in fixed point
    BLOCK = MICA_GATE_BLOCK,
};

static_assert((int)MICA_GATE_BLOCK == (int)MICA_CPU_GATED && (int)MICA_GATE_BLOCK == (int)MICA_TILE_OUTPUTS, "gates and ups are whole tiles");

typedef struct plan {
    const mica_call *call;
    const mica_cpu_rhs *rhs;
    const mica_cpu_matmul_isa *isa;
    const mica_cpu_rows_isa *convert;
    const mica_cpu_panels *panels;
    bool bf16, copy, direct, pack, fixed, shared; // fixed, shared: blocks of rows in fixed point or in pairs take the place of packed ones
    size_t batch, m, n, k;
    size_t unit;       // outputs are cut at multiples of it
    mica_gate gate;
    size_t kp;         // k padded as the kernels want it
    size_t rows, outs; // of a panel task, at most; of a call within a direct task
    size_t cuts;       // of the outputs into panel tasks, at multiples of `quantum`
    size_t quantum;
    size_t tasks;      // of one batch
    ptrdiff_t ldx;     // elements between rows of x, in place or copied
    size_t block_rows, block; // of fixed and shared: rows (the last block may have fewer), bytes
    size_t at_packed, at_sums, at_ranges, at_threads, per_thread, at_panel, at_codes; // byte offsets into scratch; the last two per thread
} plan;

// ---- shapes ----------------------------------------------------------------------------------------
size_t mica_cpu_row_count(const mica_tensor *t, int inner) {
    size_t n = 1;
    for (int d = 0; d < t->ndim - inner; d++) n *= (size_t)t->shape[d];
    return n;
}

ptrdiff_t mica_cpu_row_offset(const mica_tensor *t, int inner, size_t r) {
    ptrdiff_t at = 0;
    for (int d = t->ndim - inner - 1; d >= 0; d--) {
        size_t n = (size_t)t->shape[d];
        at += (ptrdiff_t)(r % n) * (ptrdiff_t)t->stride[d];
        r /= n;
    }
    return at;
}

// Do dimensions [first, ndim-1) step evenly, so that one stride walks all rows?
static bool even_rows(const mica_tensor *t, int first, ptrdiff_t *stride) {
    bool any = false;
    int64_t next = 0;
    *stride = 0;
    for (int d = t->ndim - 2; d >= first; d--) {
        if (t->shape[d] == 1) continue;
        if (any && t->stride[d] != next) return false;
        if (!any) *stride = (ptrdiff_t)t->stride[d];
        any = true;
        next = t->stride[d] * t->shape[d];
    }
    return true;
}

static bool shared_rhs(const mica_call *c, const mica_cpu_rhs *rhs) {
    if (rhs->kind != MICA_CPU_DENSE) return true;
    for (int d = 0; d < c->in[1].ndim - 2; d++)
        if (c->in[1].shape[d] != 1 && c->in[1].stride[d] != 0) return false;
    return true;
}


static size_t weight_bytes(const plan *p) { // of 16 outputs
    return p->rhs->kind == MICA_CPU_TILES ? p->rhs->tiles.per_column * p->rhs->tiles.bytes
                                          : p->k * 16 * mica_dtype_size(p->call->in[1].dtype);
}

static size_t units_of(const plan *p) { return (p->n + p->unit - 1) / p->unit; }
static mica_cpu_range *ranges_of(const plan *p) { return (mica_cpu_range *)(void *)(p->call->scratch + p->at_ranges); }

// Outputs of tasks as even as they can be, a multiple of the threads. Where rows of x leave the cache before the next panel meets them, a task has
// several panels, which take turns.
static void cut_evenly(plan *p, size_t threads) {
    size_t lanes = p->panels->columns, units, wide = 1;
    p->quantum = p->panels->part;
    units = (p->n + p->quantum - 1) / p->quantum;
    if (p->rows * p->kp * (p->bf16 ? 2 : 4) > FAR_BYTES) wide = MICA_MIN(MICA_MAX(p->n / (lanes * threads), (size_t)1), (size_t)FAR_PANELS);
    p->cuts = MICA_MAX(MICA_MIN(mica_round_up((p->n + lanes * wide - 1) / (lanes * wide), threads), units), (size_t)1);
    p->outs = mica_round_up((units + p->cuts - 1) / p->cuts * p->quantum, lanes); // room for sums
}

static void plan_tasks(plan *p) {
    size_t lanes = p->panels->columns;
    if (p->direct) {
        size_t threads = mica_pool_threads(mica_cpu_pool(p->call));
        p->outs = mica_cpu_block_outputs(weight_bytes(p), p->unit);
        p->tasks = MICA_MIN(threads, p->batch * units_of(p));
        p->rows = p->rhs->kind == MICA_CPU_TILES && !p->fixed && (p->pack || !p->call->rows_alone) ? p->panels->tiles_rows : MICA_DIRECT_ROWS;
        if (p->shared) p->rows = MICA_SHARED_ROWS / p->block_rows * p->block_rows;
        p->at_threads = p->at_ranges + threads * sizeof(mica_cpu_range);
        p->per_thread = p->rows * p->outs * 4;
        return;
    }
    p->outs = lanes;
    while (p->gate && p->outs % p->unit) p->outs += lanes; // whole pairs of gates and ups
    size_t tasks = (p->n + p->outs - 1) / p->outs, threads = mica_pool_threads(mica_cpu_pool(p->call));
    size_t wanted = TASKS_EACH * threads; // sums do not depend on it
    p->rows = ROWS_TASK;
    while (p->rows > ROWS_TASK_SMALL && p->batch * tasks * (ROWS_TASK / p->rows) < wanted) p->rows /= 2;
    p->rows = MICA_MIN(p->m, p->rows);
    size_t spare = tasks / wanted;
    p->outs *= MICA_MIN(MICA_MAX(spare, (size_t)1), MICA_MAX(p->panels->across, (size_t)1));
    p->quantum = p->outs;
    if (p->panels->part && !p->gate) cut_evenly(p, threads);
    else p->cuts = (p->n + p->outs - 1) / p->outs;
    p->tasks = p->rows ? p->cuts * ((p->m + p->rows - 1) / p->rows) : 0;
    size_t panel = MICA_MIN(p->panels->depth, mica_round_up(p->kp, 2)) * lanes;
    bool codes = p->rhs->kind == MICA_CPU_CODES_NK || p->rhs->kind == MICA_CPU_CODES_KN ||
                 (p->rhs->kind == MICA_CPU_TILES_KN && !p->panels->from_tiles_back);
    p->at_panel = mica_whole_lines(p->rows * p->outs * 4);
    p->at_codes = p->at_panel + mica_whole_lines(panel * 4);
    p->per_thread = p->at_codes + (codes ? mica_whole_lines(panel * 4) : 0);
}

static bool is_direct(const plan *p) {
    const mica_tensor *w = &p->call->in[1];
    if (p->call->rows_many && p->m > 1) return false;
    size_t m = p->call->rows_alone ? MICA_MIN(p->m, (size_t)1) : p->m; // rows that are to be as if alone go the way of one
    if (p->rhs->kind == MICA_CPU_TILES)
        return m <= MICA_MIN(p->panels->direct_tiles[p->rhs->tiles.bits], p->rhs->tiles.groups > 1 ? (size_t)SPLIT_ROWS : SIZE_MAX);
    return p->rhs->kind == MICA_CPU_DENSE && m <= p->panels->direct && (w->stride[w->ndim - 2] == 1 || p->k == 1);
}

static bool is_fixed(const plan *p) {
    if (p->rhs->kind != MICA_CPU_TILES || !p->direct || !p->isa->tiles_fixed || (p->m > p->isa->fixed_rows && !p->call->rows_alone)) return false;
    const mica_cpu_tiles *t = &p->rhs->tiles;
    return t->bits == 4 && t->groups == 1 && t->depth <= MICA_FIXED_GROUP;
}

static bool is_shared(const plan *p) {
    return p->rhs->kind == MICA_CPU_TILES && p->direct && p->bf16 && p->isa->tiles_shared && !p->panels->pack && !p->fixed && !p->call->rows_alone &&
           p->rhs->tiles.bits == 4 && p->rhs->tiles.groups == 1 && p->k >= p->isa->shared_inputs;
}

// Rows of a block: as equal as can be, since a block of few takes as long as one of three or four.
static size_t even_block(size_t m) {
    size_t blocks = MICA_MAX((m + MICA_DIRECT_ROWS - 1) / MICA_DIRECT_ROWS, (size_t)1);
    return MICA_MAX((m + blocks - 1) / blocks, (size_t)1);
}

static plan plan_product(const mica_call *c, const mica_cpu_rhs *rhs) {
    const mica_cpu_matmul_isa *isa = &mica_cpu_isa_of(c)->matmul;
    const mica_tensor *x = &c->in[0];
    plan p = {.call = c, .rhs = rhs, .isa = isa, .convert = &mica_cpu_isa_of(c)->rows, .n = rhs->n, .k = rhs->k,
              .unit = rhs->gate ? 2 * MICA_TILE_OUTPUTS : MICA_TILE_OUTPUTS, .gate = rhs->gate};
    bool shared = shared_rhs(c, rhs);
    p.batch = shared ? 1 : mica_cpu_row_count(x, 2);
    p.m = shared ? mica_cpu_row_count(x, 1) : (size_t)x->shape[x->ndim - 2];
    bool exact = rhs->kind == MICA_CPU_DENSE && c->in[1].dtype != x->dtype; // mixed: nothing of either is rounded away
    bool short_x = x->dtype == MICA_BF16 && !exact;
    p.panels = short_x && isa->bf16.columns ? &isa->bf16 : &isa->f32;
    p.direct = is_direct(&p);
    p.fixed = short_x && is_fixed(&p);
    p.bf16 = p.panels == &isa->bf16 || p.fixed;
    p.kp = rhs->kind == MICA_CPU_TILES ? rhs->tiles.per_column * rhs->tiles.depth
           : p.bf16 && !p.direct       ? mica_round_up(p.k, MICA_MAX(p.panels->step, (size_t)2))
                                       : p.k;
    p.shared = is_shared(&p);
    p.pack = p.panels->pack && !p.fixed && (!p.direct || (rhs->kind == MICA_CPU_TILES && rhs->tiles.groups == 1));
    if (p.direct && (p.pack || p.shared)) p.unit = 2 * MICA_TILE_OUTPUTS; // their kernels take tiles in pairs
    bool even = even_rows(x, shared ? 0 : x->ndim - 2, &p.ldx);
    p.copy = !even || (p.kp != p.k && (p.direct || !p.pack)) || (x->stride[x->ndim - 1] != 1 && p.k != 1) ||
             x->dtype != (p.bf16 ? MICA_BF16 : MICA_F32);
    size_t rows = p.batch * p.m;
    if (p.copy) p.ldx = (ptrdiff_t)p.kp;
    p.block_rows = p.shared ? even_block(p.m) : MICA_DIRECT_ROWS;
    if (p.fixed || p.shared) p.block = (p.fixed ? isa->fixed_size : isa->shared_size)(p.kp, (size_t)rhs->tiles.group);
    p.at_packed = p.copy ? mica_whole_lines(rows * p.kp * (p.bf16 ? 2 : 4)) : 0;
    p.at_sums = p.at_packed + (p.pack ? p.batch * mica_round_up(p.m, MICA_PACK_ROWS) * p.kp * 2 : (p.m + p.block_rows - 1) / p.block_rows * p.block);
    size_t sums = p.direct && !p.block && rhs->kind == MICA_CPU_TILES ? rows * (p.kp / (size_t)rhs->tiles.group) : 0;
    p.at_ranges = p.at_threads = p.at_sums + mica_whole_lines(sums * 4);
    plan_tasks(&p);
    return p;
}

size_t mica_cpu_product_scratch(const mica_call *c, const mica_cpu_rhs *rhs) {
    plan p = plan_product(c, rhs);
    return p.at_threads + p.per_thread * mica_pool_threads(mica_cpu_pool(c));
}

// ---- rows of x -------------------------------------------------------------------------------------
static const unsigned char *x_at(const plan *p, size_t batch, size_t row) {
    const mica_tensor *x = &p->call->in[0];
    ptrdiff_t size = p->bf16 ? 2 : 4, in_row = (ptrdiff_t)row * p->ldx;
    if (p->copy) return p->call->scratch + ((ptrdiff_t)(batch * p->m) * p->ldx + in_row) * size;
    return x->data + ((p->batch > 1 ? mica_cpu_row_offset(x, 2, batch) : 0) + in_row) * size;
}

static void copy_row(const plan *p, size_t row) {
    const mica_tensor *x = &p->call->in[0];
    size_t size = mica_dtype_size(x->dtype), to_size = p->bf16 ? 2 : 4;
    const unsigned char *from = x->data + mica_cpu_row_offset(x, 1, row) * (ptrdiff_t)size;
    unsigned char *to = p->call->scratch + row * p->kp * to_size;
    ptrdiff_t step = (ptrdiff_t)x->stride[x->ndim - 1] * (ptrdiff_t)size;
    if (step == (ptrdiff_t)size && p->bf16) memcpy(to, from, p->k * 2);
    else if (step == (ptrdiff_t)size) p->convert->to_f32[x->dtype]((float *)(void *)to, from, p->k);
    else
        for (size_t i = 0; i < p->k; i++) {
            const unsigned char *e = from + (ptrdiff_t)i * step;
            if (p->bf16) memcpy(to + 2 * i, e, 2);
            else ((float *)(void *)to)[i] = mica_cpu_load1(x->dtype, e, 0);
        }
    memset(to + p->k * to_size, 0, (p->kp - p->k) * to_size);
}

// Rows of f32 whose elements of one k lie side by side, as of a transposed matrix (all gradients of weights are such products): sixteen at a
// time, which is what packing such a weight is, for a panel as wide as a row is long.
static bool is_turned(const plan *p) {
    const mica_tensor *x = &p->call->in[0];
    return p->copy && !p->bf16 && mica_cpu_is_short(x->dtype) && x->stride[x->ndim - 2] == 1 && x->stride[x->ndim - 1] > 1 && p->kp == p->k &&
           p->k % 16 == 0 && p->m == (size_t)x->shape[x->ndim - 2];
}

static void copy_turned(const plan *p, size_t row, size_t rows) {
    const mica_tensor *x = &p->call->in[0];
    const unsigned char *from = x->data + mica_cpu_row_offset(x, 1, row) * (ptrdiff_t)mica_dtype_size(x->dtype);
    p->panels->from_dense(x->dtype, from, 1, (ptrdiff_t)x->stride[x->ndim - 1], p->k, rows, p->k, p->call->scratch + row * p->k * 4);
}

static unsigned char *block_of(const plan *p, size_t row) { return p->call->scratch + p->at_packed + row / p->block_rows * p->block; }

static void sum_groups(const plan *p, size_t row) {
    size_t group = (size_t)p->rhs->tiles.group, groups = p->kp / group;
    float *sums = (float *)(void *)(p->call->scratch + p->at_sums) + row * groups;
    p->isa->group_sums(p->bf16 ? MICA_BF16 : MICA_F32, x_at(p, 0, row), group, groups, sums);
}

// Packed rows lie in blocks of 32, all blocks of a panel's depth of inputs together: the rows that a panel meets are one stretch, whose
// lines spread over all sets of the second-level cache. Where inputs from k0 on of the block of row `row` begin:
static size_t pack_depth(const plan *p) { return p->direct ? p->kp : MICA_MIN(p->panels->depth, p->kp); }
static unsigned char *packed_at(const plan *p, size_t batch, size_t row, size_t k0) {
    size_t rows = mica_round_up(p->m, MICA_PACK_ROWS), k = MICA_MIN(pack_depth(p), p->kp - k0);
    return p->call->scratch + p->at_packed + (batch * rows * p->kp + k0 * rows + row * k) * 2;
}

static void pack_rows(const plan *p, size_t batch, size_t row, size_t rows) {
    const unsigned char *x = x_at(p, batch, row);
    size_t lower = row % MICA_PACK_ROWS, depth = pack_depth(p), all = p->copy ? p->kp : p->k;
    for (size_t k0 = 0; k0 < p->kp; k0 += depth) {
        size_t k = MICA_MIN(depth, p->kp - k0);
        p->panels->pack(rows, MICA_MIN(k, all - k0), x + k0 * 2, p->ldx, k, packed_at(p, batch, row - lower, k0) + lower * p->panels->step * 2);
    }
}

// A block of rows is made by two tasks, or by one if the rows are copied first.
static void share_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    size_t parts = p->copy ? 1 : 2, row = task / parts * p->block_rows, part = task % parts, groups = p->kp / (size_t)p->rhs->tiles.group;
    size_t rows = MICA_MIN(p->block_rows, p->m - row);
    (void)thread;
    for (size_t r = row; p->copy && r < row + rows; r++) copy_row(p, r);
    p->isa->shared_pack(rows, (const uint16_t *)(const void *)x_at(p, 0, row), p->ldx, (size_t)p->rhs->tiles.group, groups * part / parts,
                        groups * (part + 1) / parts, block_of(p, row));
}

static size_t prepare_tasks(const plan *p) { // of one batch
    if (p->shared) return (p->m + p->block_rows - 1) / p->block_rows * (p->copy ? 1 : 2);
    size_t rows = p->fixed ? FIXED_ROWS : COPY_ROWS;
    return (p->m + rows - 1) / rows;
}

static void prepare_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    size_t each = prepare_tasks(p), rows = p->fixed ? FIXED_ROWS : COPY_ROWS, batch = task / each, row = task % each * rows;
    size_t end = MICA_MIN(row + rows, p->m);
    bool turned = is_turned(p);
    (void)thread;
    if (turned) copy_turned(p, batch * p->m + row, end - row);
    for (size_t r = batch * p->m + row; r < batch * p->m + end; r++) {
        if (p->copy && !turned) copy_row(p, r);
        if (p->fixed) p->isa->fixed_row((const uint16_t *)(const void *)x_at(p, 0, r), p->kp, (size_t)p->rhs->tiles.group, r % MICA_DIRECT_ROWS, block_of(p, r));
        else if (p->direct && p->rhs->kind == MICA_CPU_TILES) sum_groups(p, r);
    }
    if (p->pack) pack_rows(p, batch, row, end - row);
}

static unsigned char *thread_area(const plan *p, size_t thread) {
    return p->call->scratch + p->at_threads + thread * p->per_thread;
}

// ---- direct: weights as they are stored --------------------------------------------------------------
// Outputs [n0, n0+n) of all rows, a few at a time.
static void direct_block(const plan *p, size_t batch, size_t n0, size_t n, float *y) {
    const mica_tensor *w = &p->call->in[1];
    mica_cpu_direct d = {.n = n, .k = p->kp, .ldx = p->ldx, .y = y, .ldy = p->outs, .rows_alone = p->call->rows_alone, .ahead = p->isa->fixed_ahead};
    bool tiles = p->rhs->kind == MICA_CPU_TILES;
    if (tiles) {
        d.n = mica_round_up(n, MICA_TILE_OUTPUTS);
        d.w = w->data + n0 / MICA_TILE_OUTPUTS * weight_bytes(p);
        d.lds = p->kp / (size_t)p->rhs->tiles.group;
    } else {
        d.ldw = (ptrdiff_t)w->stride[w->ndim - 1];
        ptrdiff_t at = (p->batch > 1 ? mica_cpu_row_offset(w, 2, batch) : 0) + (ptrdiff_t)n0 * d.ldw;
        d.w = w->data + at * (ptrdiff_t)mica_dtype_size(w->dtype);
    }
    for (size_t i = 0; i < p->m; i += p->rows) {
        d.m = MICA_MIN(p->m - i, p->rows);
        d.x = p->block ? block_of(p, i) : p->pack ? packed_at(p, batch, i, 0) : x_at(p, batch, i);
        if (!p->block) d.sums = (const float *)(const void *)(p->call->scratch + p->at_sums) + i * d.lds;
        if (p->shared) d.ldx = (ptrdiff_t)p->block_rows;
        if (tiles) (p->fixed ? p->isa->tiles_fixed : p->shared ? p->isa->tiles_shared : p->bf16 ? p->isa->tiles_bf16 : p->isa->tiles_f32)(&p->rhs->tiles, &d);
        else (p->bf16 ? p->isa->dot_bf16 : p->isa->dot_f32)(w->dtype, &d);
        mica_cpu_store_rows(p->convert, p->gate, &p->call->out, p->n, batch * p->m + i, d.m, n0, n, y, p->outs);
    }
}

static void direct_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    float *y = (float *)(void *)thread_area(p, thread);
    size_t units = units_of(p), least = mica_cpu_least_piece(weight_bytes(p), p->unit), from, to;
    for (size_t i = 0; i < p->tasks; i++)
        while (mica_cpu_take_piece(&ranges_of(p)[(task + i) % p->tasks], least, p->outs / p->unit, units, &from, &to)) {
            size_t n0 = from % units * p->unit, end = MICA_MIN(n0 + (to - from) * p->unit, p->n);
            direct_block(p, from / units, n0, end - n0, y);
        }
}

// ---- panels ------------------------------------------------------------------------------------------
// Quantised rows [N,K] or [K,N]: decoded in f32 to `codes`, then packed like dense ones.
static void panel_codes(const plan *p, size_t n0, size_t n, size_t k0, size_t k, float *codes, void *panel) {
    bool nk = p->rhs->kind == MICA_CPU_CODES_NK;
    size_t runs = nk ? n : k, len = nk ? k : n;
    for (size_t i = 0; i < runs; i++)
        mica_cpu_codes_run(&p->rhs->codes, nk ? p->k : p->n, (nk ? n0 : k0) + i, nk ? k0 : n0, len, codes + i * len);
    p->panels->from_dense(MICA_F32, codes, nk ? 1 : (ptrdiff_t)len, nk ? (ptrdiff_t)len : 1, n, k, p->panels->columns, panel);
}

// The same of packed rows [K,N].
static void panel_tiles_back(const plan *p, size_t n0, size_t n, size_t k0, size_t k, float *codes, void *panel) {
    for (size_t i = 0; i < k; i++) mica_cpu_tiles_row(&p->rhs->tiles, p->call->in[1].data, k0 + i, n0, n, codes + i * n);
    p->panels->from_dense(MICA_F32, codes, (ptrdiff_t)n, 1, n, k, p->panels->columns, panel);
}

static void fill_panel(const plan *p, size_t batch, size_t n0, size_t n, size_t k0, size_t k, unsigned char *area) {
    const mica_tensor *w = &p->call->in[1];
    void *panel = area + p->at_panel;
    size_t columns = p->panels->columns, real = MICA_MIN(k, p->k - k0), filled = mica_round_up(real, 2);
    switch (p->rhs->kind) {
    case MICA_CPU_TILES:
        p->panels->from_tiles(&p->rhs->tiles, w->data, n0 / MICA_TILE_OUTPUTS, k0, k, columns, panel);
        return;
    case MICA_CPU_DENSE: {
        ptrdiff_t ldk = (ptrdiff_t)w->stride[w->ndim - 2], ldn = (ptrdiff_t)w->stride[w->ndim - 1];
        ptrdiff_t at = (p->batch > 1 ? mica_cpu_row_offset(w, 2, batch) : 0) + (ptrdiff_t)k0 * ldk + (ptrdiff_t)n0 * ldn;
        p->panels->from_dense(w->dtype, w->data + at * (ptrdiff_t)mica_dtype_size(w->dtype), ldk, ldn, n, real, columns, panel);
        break;
    }
    case MICA_CPU_TILES_KN:
        if (p->panels->from_tiles_back) p->panels->from_tiles_back(&p->rhs->tiles, w->data, n0, n, k0, real, columns, panel);
        else panel_tiles_back(p, n0, n, k0, real, (float *)(void *)(area + p->at_codes), panel);
        break;
    default: panel_codes(p, n0, n, k0, real, (float *)(void *)(area + p->at_codes), panel);
    }
    if (p->panels->step && filled < k) memset((uint16_t *)panel + filled * columns, 0, (k - filled) * columns * 2);
}

// Can the kernel write the result itself?
static bool writes_out(const plan *p, size_t n) {
    mica_dtype type = p->call->out.dtype;
    size_t part = p->panels->part ? p->panels->part : p->panels->columns;
    return p->panels->gemm_out && !p->gate && n % part == 0 && (type == MICA_F32 || (p->bf16 && type == MICA_BF16));
}

// What a task computes: some outputs of some rows.
typedef struct piece {
    size_t batch, n0, n, row, rows;
} piece;

static piece piece_of(const plan *p, size_t task) {
    size_t blocks = (p->m + p->rows - 1) / p->rows, units = (p->n + p->quantum - 1) / p->quantum, cut = task % p->cuts;
    piece t = {.batch = task / p->cuts / blocks, .n0 = cut * units / p->cuts * p->quantum, .row = task / p->cuts % blocks * p->rows};
    t.n = MICA_MIN((cut + 1) * units / p->cuts * p->quantum, p->n) - t.n0, t.rows = MICA_MIN(p->rows, p->m - t.row);
    return t;
}

// The weights of a panel, for a hint.
static mica_cpu_fetch panel_lines(const plan *p, const piece *t, size_t j, size_t k0) {
    const mica_tensor *w = &p->call->in[1];
    ptrdiff_t size = (ptrdiff_t)mica_dtype_size(w->dtype), ldk = (ptrdiff_t)w->stride[w->ndim - 2], ldn = (ptrdiff_t)w->stride[w->ndim - 1];
    size_t n = MICA_MIN(p->panels->columns, t->n - j), k = MICA_MIN(p->panels->depth, p->k - MICA_MIN(k0, p->k));
    if (p->rhs->kind != MICA_CPU_DENSE || (ldk != 1 && ldn != 1)) return (mica_cpu_fetch){0};
    ptrdiff_t at = (p->batch > 1 ? mica_cpu_row_offset(w, 2, t->batch) : 0) + (ptrdiff_t)k0 * ldk + (ptrdiff_t)(t->n0 + j) * ldn;
    return (mica_cpu_fetch){.from = w->data + at * size, .rows = ldk == 1 ? n : k, .bytes = (ldk == 1 ? k : n) * (size_t)size,
                            .step = (ldk == 1 ? ldn : ldk) * size};
}

// Of the panel after the one at hand: of this task, or of the task that this thread is likely to get next.
static mica_cpu_fetch next_lines(const plan *p, size_t task, size_t j, size_t k0) {
    piece t = piece_of(p, task);
    size_t next = task + mica_pool_threads(mica_cpu_pool(p->call));
    if (j + p->panels->columns < t.n) return panel_lines(p, &t, j + p->panels->columns, k0);
    if (k0 + p->panels->depth < p->kp) return panel_lines(p, &t, 0, k0 + p->panels->depth);
    if (next >= p->batch * p->tasks) return (mica_cpu_fetch){0};
    t = piece_of(p, next);
    return panel_lines(p, &t, 0, 0);
}

// Sums of a task's rows and outputs, a panel's after another's, in c [panels][rows][columns]; or in the result, if the kernel can write that.
static void run_panels(const plan *p, size_t task, const piece *t, unsigned char *area, float *c) {
    size_t columns = p->panels->columns;
    const mica_tensor *out = &p->call->out;
    bool into = writes_out(p, t->n);
    mica_cpu_gemm g = {.m = t->rows, .panel = area + p->at_panel, .type = out->dtype, .ldo = p->n};
    for (size_t k0 = 0; k0 < p->kp; k0 += p->panels->depth) {
        g.k = MICA_MIN(p->panels->depth, p->kp - k0), g.first = !k0;
        g.a = p->pack ? packed_at(p, t->batch, t->row, k0) : x_at(p, t->batch, t->row) + k0 * (p->bf16 ? 2 : 4);
        g.lda = p->pack ? (ptrdiff_t)g.k : p->ldx;
        for (size_t j = 0; j < t->n; j += columns) {
            g.n = MICA_MIN(columns, t->n - j), g.c = c + j * t->rows;
            fill_panel(p, t->batch, t->n0 + j, g.n, k0, g.k, area);
            if (into && k0 + g.k == p->kp) g.out = mica_cpu_out_at(p->gate, out, p->n, t->batch * p->m + t->row, t->n0 + j);
            if (p->panels->gemm_out) g.next = next_lines(p, task, j, k0), p->panels->gemm_out(&g);
            else p->panels->gemm(g.m, g.k, g.a, g.lda, g.panel, g.c, g.first, j > 0);
        }
    }
}

// The same for packed tiles where the next panel, or the same one's next inputs, can be decoded between products.
static void run_panels_ahead(const plan *p, size_t n0, size_t n, size_t row, size_t rows, unsigned char *area, float *c) {
    size_t columns = p->panels->columns, depth = MICA_MIN(p->panels->depth, p->kp), across = (n + columns - 1) / columns;
    size_t all = across * ((p->kp + depth - 1) / depth);
    mica_cpu_ahead next = {.t = &p->rhs->tiles, .packed = p->call->in[1].data, .first = n0 / MICA_TILE_OUTPUTS, .k = depth,
                           .panel = area + p->at_panel};
    p->panels->from_tiles(next.t, next.packed, next.first, 0, next.k, columns, next.panel);
    for (size_t i = 0; i < all; i++) {
        mica_cpu_ahead now = next;
        size_t j = i % across, soon = MICA_MIN(i + 2, all - 1);
        next.k0 = (i + 1) / across * depth, next.k = MICA_MIN(depth, p->kp - next.k0);
        next.first = (n0 + (i + 1) % across * columns) / MICA_TILE_OUTPUTS;
        next.soon_k0 = soon / across * depth, next.soon_first = (n0 + soon % across * columns) / MICA_TILE_OUTPUTS;
        next.panel = area + p->at_panel + (i + 1) % 2 * depth * columns * 2; // two panels of bf16 have the room of one of f32
        if (i + 1 == all) next.t = NULL;
        p->panels->gemm_ahead(rows, now.k, packed_at(p, 0, row, now.k0), (ptrdiff_t)now.k, now.panel, c + j * columns * rows, !now.k0, j > 0, &next);
    }
}

// The sums of several panels, each c [rows][columns], from row `row` of the result on; a gate and its up may be in two of them.
static void store_panels(const plan *p, size_t row, size_t rows, size_t n0, size_t n, const float *c) {
    const mica_tensor *out = &p->call->out;
    size_t columns = p->panels->columns, apart = columns * rows;
    for (size_t r = 0, some; r < rows; r += some, c += some * columns) {
        some = MICA_MIN(rows - r, (size_t)STORE_ROWS);
        for (size_t j = 0; !p->gate && j < n; j += columns)
            mica_cpu_store_rows(p->convert, p->gate, out, p->n, row + r, some, n0 + j, MICA_MIN(columns, n - j), c + j * rows, columns);
        for (size_t j = 0; p->gate && j < n; j += 2 * BLOCK) {
            const float *gate = c + j / columns * apart + j % columns, *up = c + (j + BLOCK) / columns * apart + (j + BLOCK) % columns;
            unsigned char *to = mica_cpu_out_at(p->gate, out, p->n, row + r, n0 + j);
            p->convert->store_gated[p->gate - MICA_GATE_SWIGLU][out->dtype](to, p->n / 2, gate, up, columns, 0, some, 1);
        }
    }
}

static void panel_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    piece t = piece_of(p, task);
    unsigned char *area = thread_area(p, thread);
    float *c = (float *)(void *)area;
    bool ahead = p->panels->gemm_ahead && p->rhs->kind == MICA_CPU_TILES;
    if (ahead) run_panels_ahead(p, t.n0, t.n, t.row, t.rows, area, c);
    else run_panels(p, task, &t, area, c);
    if (ahead || !writes_out(p, t.n)) store_panels(p, t.batch * p->m + t.row, t.rows, t.n0, t.n, c);
}

void mica_cpu_product(const mica_call *c, const mica_cpu_rhs *rhs) {
    plan p = plan_product(c, rhs);
    size_t rows = p.batch * p.m;
    if (!rows || !p.n) return;
    if (!p.k) {
        memset(c->out.data, 0, rows * p.n * mica_dtype_size(c->out.dtype));
        return;
    }
    if (p.direct) mica_cpu_cut_ranges(ranges_of(&p), p.tasks, p.batch * units_of(&p));
    mica_pool *pool = mica_cpu_pool(c);
    if (p.shared) mica_pool_run(pool, prepare_tasks(&p), share_task, &p);
    else if (p.copy || p.pack || (p.direct && rhs->kind == MICA_CPU_TILES))
        mica_pool_run(pool, p.batch * prepare_tasks(&p), prepare_task, &p);
    mica_pool_run(pool, p.direct ? p.tasks : p.batch * p.tasks, p.direct ? direct_task : panel_task, &p);
}
