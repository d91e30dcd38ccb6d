// SPDX-License-Identifier: Apache-2.0
// Driver of matrix products. plan_product decides from shapes and types alone: compute type, direct or panels,
// tasks, scratch. Then rows of x that a kernel cannot read in place are copied (converted, padded), and the tasks run.
// A task owns a block of outputs, and the sums of an output run over k in one fixed order: thread counts do not matter.
#include "device/cpu/product.h"
#include "device/cpu/isa.h"
#include <assert.h>

enum {
    ROWS_TASK = 512,       // rows of a panel task: decoding the panel is then a few per cent of the product
    ROWS_TASK_SMALL = 128, // where there are few panels
    FEW_PANELS = 16,
    DIRECT_BYTES = 65536,  // weights of a direct task at least: 2 µs
    BLOCK_BYTES = 262144,  // weights that all rows pass over: stay in the second-level cache
    BLOCK_OUTPUTS = 256,   // outputs of such a block at most
    SPLIT_ROWS = 4,        // rows of a direct product in groups of 16, for which kernels are slower
    COPY_ROWS = 16,        // rows of x that a copying task converts
    LINE = 64,
};

typedef struct plan {
    const mica_call *call;
    const mica_cpu_rhs *rhs;
    const mica_cpu_matmul_isa *isa;
    const mica_cpu_rows_isa *convert;
    const mica_cpu_panels *panels;
    bool bf16, copy, direct;
    size_t batch, m, n, k;
    size_t kp;         // k padded as the kernels want it
    size_t rows, outs; // of a panel task; of a call within a direct task
    size_t tasks;      // of one batch
    ptrdiff_t ldx;     // elements between rows of x, in place or copied
    size_t at_sums, at_threads, per_thread, at_panel, at_codes; // byte offsets into scratch; the last two per thread
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

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static size_t weight_bytes(const plan *p) { // of 16 outputs
    return p->rhs->kind == MICA_CPU_TILES ? p->rhs->tiles.per_column * p->rhs->tiles.bytes
                                          : p->k * 16 * mica_dtype_size(p->call->in[1].dtype);
}

// Direct tasks shrink from a large share to a small one, so that most of the weights are read in long streams (pieces of
// 64 KiB that alternate between two threads cost a fifth of the bandwidth) and the threads still end together. Outputs are
// independent of each other, so here the cut may follow the number of threads. Task t takes outputs [*from, *to).
static size_t direct_cut(const plan *p, size_t t, size_t *from, size_t *to) {
    size_t units = (p->n + 15) / 16, threads = mica_pool_threads(mica_cpu_pool(p->call)), at = 0, i = 0;
    size_t least = p->m > MICA_DIRECT_ROWS ? 1 : MICA_MAX(DIRECT_BYTES / (weight_bytes(p) + 1), 1);
    for (; at < units; i++) {
        size_t step = MICA_MIN(MICA_MAX((units - at) / (2 * threads), least), units - at);
        if (i == t) *from = at * 16, *to = MICA_MIN((at + step) * 16, p->n);
        at += step;
    }
    return i;
}

static void plan_tasks(plan *p) {
    size_t lanes = p->panels->columns, panels = (p->n + lanes - 1) / lanes;
    if (p->direct) {
        size_t from, to;
        p->outs = MICA_MIN(MICA_MAX(BLOCK_BYTES / (weight_bytes(p) + 1), 1) * 16, (size_t)BLOCK_OUTPUTS);
        p->tasks = direct_cut(p, SIZE_MAX, &from, &to);
        p->rows = p->rhs->kind == MICA_CPU_TILES ? p->panels->tiles_rows : MICA_DIRECT_ROWS;
        p->per_thread = p->rows * p->outs * 4;
        return;
    }
    p->outs = lanes;
    p->rows = MICA_MIN(p->m, panels < FEW_PANELS ? (size_t)ROWS_TASK_SMALL : (size_t)ROWS_TASK);
    p->tasks = p->rows ? panels * ((p->m + p->rows - 1) / p->rows) : 0;
    size_t panel = MICA_MIN(p->panels->depth, round_up(p->kp, 2)) * lanes;
    bool codes = p->rhs->kind == MICA_CPU_CODES_NK || p->rhs->kind == MICA_CPU_CODES_KN;
    p->at_panel = round_up(p->rows * lanes * 4, LINE);
    p->at_codes = p->at_panel + round_up(panel * 4, LINE);
    p->per_thread = p->at_codes + (codes ? round_up(panel * 4, LINE) : 0);
}

static bool is_direct(const plan *p) {
    const mica_tensor *w = &p->call->in[1];
    if (p->rhs->kind == MICA_CPU_TILES)
        return p->m <= MICA_MIN(p->panels->direct_tiles[p->rhs->tiles.bits], p->rhs->tiles.groups > 1 ? (size_t)SPLIT_ROWS : SIZE_MAX);
    return p->rhs->kind == MICA_CPU_DENSE && p->m <= p->panels->direct && (w->stride[w->ndim - 2] == 1 || p->k == 1);
}

static plan plan_product(const mica_call *c, const mica_cpu_rhs *rhs) {
    const mica_cpu_matmul_isa *isa = &mica_cpu_isa_of(c)->matmul;
    const mica_tensor *x = &c->in[0];
    plan p = {.call = c, .rhs = rhs, .isa = isa, .convert = &mica_cpu_isa_of(c)->rows, .n = rhs->n, .k = rhs->k};
    bool shared = shared_rhs(c, rhs);
    p.batch = shared ? 1 : mica_cpu_row_count(x, 2);
    p.m = shared ? mica_cpu_row_count(x, 1) : (size_t)x->shape[x->ndim - 2];
    p.bf16 = x->dtype == MICA_BF16 && isa->bf16.columns;
    p.panels = p.bf16 ? &isa->bf16 : &isa->f32;
    p.direct = is_direct(&p);
    p.kp = rhs->kind == MICA_CPU_TILES ? rhs->tiles.per_column * rhs->tiles.depth
           : p.bf16 && !p.direct       ? round_up(p.k, 2)
                                       : p.k;
    bool even = even_rows(x, shared ? 0 : x->ndim - 2, &p.ldx);
    p.copy = !even || p.kp != p.k || (x->stride[x->ndim - 1] != 1 && p.k != 1) ||
             x->dtype != (p.bf16 ? MICA_BF16 : MICA_F32);
    size_t rows = p.batch * p.m;
    if (p.copy) p.ldx = (ptrdiff_t)p.kp;
    p.at_sums = p.copy ? round_up(rows * p.kp * (p.bf16 ? 2 : 4), LINE) : 0;
    size_t sums = p.direct && rhs->kind == MICA_CPU_TILES ? rows * (p.kp / (size_t)rhs->tiles.group) : 0;
    p.at_threads = p.at_sums + round_up(sums * 4, LINE);
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

// Sums of each group, in 16 lanes so that compilers vectorise them.
static void sum_groups(const plan *p, size_t row) {
    size_t group = (size_t)p->rhs->tiles.group, groups = p->kp / group;
    float *sums = (float *)(void *)(p->call->scratch + p->at_sums) + row * groups;
    const void *x = x_at(p, 0, row);
    for (size_t g = 0; g < groups; g++) {
        float lane[16] = {0};
        for (size_t i = g * group; i < (g + 1) * group; i += 16)
            for (size_t l = 0; l < 16; l++)
                lane[l] += p->bf16 ? mica_bf16_to_f32(((const uint16_t *)x)[i + l]) : ((const float *)x)[i + l];
        for (size_t w = 8; w; w /= 2)
            for (size_t l = 0; l < w; l++) lane[l] += lane[l + w];
        sums[g] = lane[0];
    }
}

static void prepare_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    (void)thread;
    for (size_t r = task * COPY_ROWS; r < MICA_MIN((task + 1) * COPY_ROWS, p->batch * p->m); r++) {
        if (p->copy) copy_row(p, r);
        if (p->direct && p->rhs->kind == MICA_CPU_TILES) sum_groups(p, r);
    }
}

static unsigned char *thread_area(const plan *p, size_t thread) {
    return p->call->scratch + p->at_threads + thread * p->per_thread;
}

static void store_rows(const plan *p, size_t batch, size_t row, size_t rows, size_t n0, size_t n, const float *y, size_t ldy) {
    mica_dtype type = p->call->out.dtype;
    size_t size = mica_dtype_size(type);
    unsigned char *to = p->call->out.data + ((batch * p->m + row) * p->n + n0) * size;
    for (size_t i = 0; i < rows; i++) p->convert->from_f32[type](to + i * p->n * size, y + i * ldy, n);
}

// ---- direct: weights as they are stored --------------------------------------------------------------
// Outputs [n0, n0+n) of all rows, a few at a time.
static void direct_block(const plan *p, size_t batch, size_t n0, size_t n, float *y) {
    const mica_tensor *w = &p->call->in[1];
    mica_cpu_direct d = {.n = n, .k = p->kp, .ldx = p->ldx, .y = y, .ldy = p->outs};
    bool tiles = p->rhs->kind == MICA_CPU_TILES;
    if (tiles) {
        d.n = round_up(n, MICA_TILE_OUTPUTS);
        d.w = w->data + n0 / MICA_TILE_OUTPUTS * weight_bytes(p);
        d.lds = p->kp / (size_t)p->rhs->tiles.group;
    } else {
        d.ldw = (ptrdiff_t)w->stride[w->ndim - 1];
        ptrdiff_t at = (p->batch > 1 ? mica_cpu_row_offset(w, 2, batch) : 0) + (ptrdiff_t)n0 * d.ldw;
        d.w = w->data + at * (ptrdiff_t)mica_dtype_size(w->dtype);
    }
    for (size_t i = 0; i < p->m; i += p->rows) {
        d.m = MICA_MIN(p->m - i, p->rows);
        d.x = x_at(p, batch, i);
        d.sums = (const float *)(const void *)(p->call->scratch + p->at_sums) + i * d.lds;
        if (tiles) (p->bf16 ? p->isa->tiles_bf16 : p->isa->tiles_f32)(&p->rhs->tiles, &d);
        else (p->bf16 ? p->isa->dot_bf16 : p->isa->dot_f32)(w->dtype, &d);
        store_rows(p, batch, i, d.m, n0, n, y, p->outs);
    }
}

static void direct_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    size_t from = 0, to = 0;
    direct_cut(p, task % p->tasks, &from, &to);
    for (size_t n = from; n < to; n += p->outs)
        direct_block(p, task / p->tasks, n, MICA_MIN(p->outs, to - n), (float *)(void *)thread_area(p, thread));
}

// ---- panels ------------------------------------------------------------------------------------------
// Quantised rows [N,K] or [K,N]: decoded in f32 to `codes`, then packed like dense ones.
static void panel_codes(const plan *p, size_t n0, size_t n, size_t k0, size_t k, float *codes, void *panel) {
    bool nk = p->rhs->kind == MICA_CPU_CODES_NK;
    size_t runs = nk ? n : k, len = nk ? k : n;
    for (size_t i = 0; i < runs; i++)
        mica_cpu_codes_run(&p->rhs->codes, nk ? p->k : p->n, (nk ? n0 : k0) + i, nk ? k0 : n0, len, codes + i * len);
    p->panels->from_dense(MICA_F32, codes, nk ? 1 : (ptrdiff_t)len, nk ? (ptrdiff_t)len : 1, n, k, p->outs, panel);
}

static void fill_panel(const plan *p, size_t batch, size_t n0, size_t n, size_t k0, size_t k, unsigned char *area) {
    const mica_tensor *w = &p->call->in[1];
    void *panel = area + p->at_panel;
    switch (p->rhs->kind) {
    case MICA_CPU_TILES:
        p->panels->from_tiles(&p->rhs->tiles, w->data, n0 / MICA_TILE_OUTPUTS, k0, k, p->outs, panel);
        return;
    case MICA_CPU_DENSE: {
        ptrdiff_t ldk = (ptrdiff_t)w->stride[w->ndim - 2], ldn = (ptrdiff_t)w->stride[w->ndim - 1];
        ptrdiff_t at = (p->batch > 1 ? mica_cpu_row_offset(w, 2, batch) : 0) + (ptrdiff_t)k0 * ldk + (ptrdiff_t)n0 * ldn;
        p->panels->from_dense(w->dtype, w->data + at * (ptrdiff_t)mica_dtype_size(w->dtype), ldk, ldn, n,
                              MICA_MIN(k, p->k - k0), p->outs, panel);
        return;
    }
    default: panel_codes(p, n0, n, k0, MICA_MIN(k, p->k - k0), (float *)(void *)(area + p->at_codes), panel);
    }
}

static void panel_task(void *ctx, size_t task, size_t thread) {
    const plan *p = ctx;
    size_t panels = (p->n + p->outs - 1) / p->outs, blocks = (p->m + p->rows - 1) / p->rows;
    size_t n0 = task % panels * p->outs, row = task / panels % blocks * p->rows, batch = task / panels / blocks;
    size_t n = MICA_MIN(p->outs, p->n - n0), rows = MICA_MIN(p->rows, p->m - row), size = p->bf16 ? 2 : 4;
    unsigned char *area = thread_area(p, thread);
    const unsigned char *x = x_at(p, batch, row);
    float *c = (float *)(void *)area;
    for (size_t k0 = 0; k0 < p->kp; k0 += p->panels->depth) {
        size_t k = MICA_MIN(p->panels->depth, p->kp - k0);
        fill_panel(p, batch, n0, n, k0, k, area);
        p->panels->gemm(rows, k, x + k0 * size, p->ldx, area + p->at_panel, c, k0 == 0);
    }
    store_rows(p, batch, row, rows, n0, n, c, p->outs);
}

void mica_cpu_product(const mica_call *c, const mica_cpu_rhs *rhs) {
    plan p = plan_product(c, rhs);
    size_t rows = p.batch * p.m;
    if (!rows || !p.n) return;
    if (!p.k) {
        memset(c->out.data, 0, rows * p.n * mica_dtype_size(c->out.dtype));
        return;
    }
    mica_pool *pool = mica_cpu_pool(c);
    if (p.copy || (p.direct && rhs->kind == MICA_CPU_TILES))
        mica_pool_run(pool, (rows + COPY_ROWS - 1) / COPY_ROWS, prepare_task, &p);
    mica_pool_run(pool, p.batch * p.tasks, p.direct ? direct_task : panel_task, &p);
}
