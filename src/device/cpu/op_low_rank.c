// SPDX-License-Identifier: Apache-2.0
// Op "low_rank": what adapters add to a product, all rows and all modules of it in one job. Rows are grouped by the set they choose, in chunks of a few;
// first tasks compute z = scale·a·x of a chunk, a run of a's rows each, then others add b·z to runs of outputs, on to the gate and the result. Tasks
// are handed out in order, so those that read z wait for what is under way already: for one row both halves are a microsecond, as is the end of a job.
// No sum is divided among tasks, and a row's result depends on no other.
#include "device/cpu/isa.h"
#include "device/cpu/cpu.h"
#include "device/cpu/product_parts.h"
#include "device/cpu/rows_kernels.h"
#include "device/low_rank.h"
#include <assert.h>
#include <sched.h>
#include <string.h>

enum {
    CHUNK = 8,         // rows of a chunk
    BLOCK = 256,       // outputs at a time: they and their part of b stay in the first-level cache
    PIECE = 16384,     // bytes of matrix that a task reads, while chunks are few
    FEW = 8,           // chunks: from here on each is one task, then another
    FIRST = 3,         // inputs before the sets
    TILE = MICA_LOW_RANK_TILE,
    SPINS = 4096,
};

typedef struct chunk {
    int32_t set;       // -1: none
    uint32_t first, rows; // in `order`
    uint32_t z_task, task; // first of its tasks
    uint32_t z_step, step; // rows of a, outputs of a task
} chunk;

// A set's matrices, ready to be read.
typedef struct matrices {
    size_t rank, rows;          // rows: of a
    mica_dtype a_type, b_type;
    size_t a_bytes, b_bytes;    // of a row of a, of an output's column of b
    const unsigned char *a, *b;
    const float *scales, *magnitudes; // magnitudes: NULL if there are none
} matrices;

typedef struct low_rank {
    const mica_call *c;
    const mica_cpu_rows_isa *isa;
    size_t n, in, outs, modules, count_sets;
    matrices sets[MICA_LOW_RANK_SETS];
    size_t most;       // rows of any set's a
    chunk *chunks;     // [n]
    int32_t *order;    // [n] rows by set
    float *z;          // [n, most]: each chunk [rows of a][rows]
    unsigned char *threads; // each: rows of x [CHUNK, in], sums [CHUNK, BLOCK]
    size_t per_thread, count, z_tasks, tasks;
    _Atomic size_t ready; // of the z tasks
} low_rank;

static matrices set_at(const low_rank *l, size_t i) {
    const mica_low_rank_form *form = &l->c->params->low_rank.forms[i];
    mica_low_rank_layout at = mica_low_rank_lay_out(l->c->params, i, l->in);
    const unsigned char *data = l->c->in[FIRST + i].data;
    matrices s = {.rank = (size_t)form->rank, .a_type = (mica_dtype)form->a, .b_type = mica_low_rank_type_b(form)};
    s.rows = s.rank * l->modules;
    s.a_bytes = l->in * mica_dtype_size(s.a_type), s.b_bytes = s.rank * mica_dtype_size(s.b_type);
    if (!data) return s;
    s.a = data, s.b = data + at.b, s.scales = (const float *)(const void *)(data + at.factors);
    s.magnitudes = form->b >= MICA_LOW_RANK_MAGNITUDES ? s.scales + l->modules : NULL;
    return s;
}

// The layout of scratch memory; its size.
static size_t lay_out(low_rank *l, const mica_call *c) {
    l->c = c, l->isa = &mica_cpu_isa_of(c)->rows;
    l->n = (size_t)c->in[0].shape[0], l->in = (size_t)c->in[0].shape[1], l->outs = (size_t)c->in[1].shape[1];
    l->modules = (size_t)c->params->low_rank.modules, l->count_sets = (size_t)(c->inputs - FIRST);
    for (size_t i = 0; i < l->count_sets; i++) {
        l->sets[i] = set_at(l, i);
        l->most = MICA_MAX(l->most, l->sets[i].rows);
    }
    size_t at_order = mica_whole_lines(l->n * sizeof(chunk)), at_z = at_order + mica_whole_lines(l->n * sizeof(int32_t));
    size_t at_threads = at_z + mica_whole_lines(l->n * l->most * sizeof(float));
    l->per_thread = mica_whole_lines(CHUNK * l->in * sizeof(float)) + CHUNK * BLOCK * sizeof(float);
    l->chunks = (chunk *)(void *)c->scratch;
    if (c->scratch) {
        l->order = (int32_t *)(void *)(c->scratch + at_order), l->z = (float *)(void *)(c->scratch + at_z);
        l->threads = c->scratch + at_threads;
    }
    return at_threads + l->per_thread * mica_pool_threads(mica_cpu_pool(c));
}

size_t mica_cpu_low_rank_scratch(const mica_call *c) {
    low_rank l = {0};
    return lay_out(&l, c);
}

// ---- grouping ----------------------------------------------------------------------------------------
static int32_t set_of(const low_rank *l, size_t row) {
    int32_t i;
    memcpy(&i, l->c->in[2].data + row * sizeof i, sizeof i);
    return i < 0 || (size_t)i >= l->count_sets || !l->sets[i].rank ? -1 : i;
}

static void group_rows(low_rank *l) {
    size_t done = 0;
    for (int32_t set = -1; set < (int32_t)l->count_sets; set++) {
        size_t start = done;
        for (size_t row = 0; row < l->n; row++)
            if (set_of(l, row) == set) l->order[done++] = (int32_t)row;
        for (; start < done; start += CHUNK)
            l->chunks[l->count++] = (chunk){.set = set, .first = (uint32_t)start, .rows = (uint32_t)MICA_MIN(done - start, (size_t)CHUNK)};
    }
}

// `all` in pieces of about PIECE bytes, equal ones but for whole units.
static uint32_t piece(size_t all, size_t bytes, size_t unit, bool whole) {
    size_t pieces = whole ? 1 : MICA_MAX((all * bytes + PIECE / 2) / PIECE, (size_t)1), each = (all + pieces - 1) / pieces;
    return (uint32_t)((each + unit - 1) / unit * unit);
}

static void cut(low_rank *l) {
    size_t unit = l->c->params->low_rank.gate ? 2 * TILE : TILE;
    bool whole = l->count > FEW;
    for (size_t i = 0; i < l->count; i++) {
        chunk *ch = &l->chunks[i];
        size_t bytes = 2 * sizeof(float), rows_of_a = 0;
        if (ch->set >= 0) {
            const matrices *from = &l->sets[ch->set];
            rows_of_a = from->rows, bytes += from->b_bytes;
            ch->z_step = piece(rows_of_a, from->a_bytes, 2, whole);
        }
        ch->step = piece(l->outs, bytes, unit, whole);
        ch->z_task = (uint32_t)l->z_tasks, ch->task = (uint32_t)l->tasks;
        l->z_tasks += ch->z_step ? (rows_of_a + ch->z_step - 1) / ch->z_step : 0;
        l->tasks += (l->outs + ch->step - 1) / ch->step;
    }
}

// The last chunk whose first task is no later.
static const chunk *chunk_at(const low_rank *l, size_t task, bool z) {
    size_t low = 0, high = l->count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if ((z ? l->chunks[middle].z_task : l->chunks[middle].task) <= task) low = middle;
        else high = middle;
    }
    return &l->chunks[low];
}

// All of a piece is asked for at once: the system's own prefetching takes longer to begin than these pieces to be read.
static void fetch(const unsigned char *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

// ---- z = scale·a·x -------------------------------------------------------------------------------------
static void compute_z(const low_rank *l, size_t task, float *rows) {
    const chunk *ch = chunk_at(l, task, true);
    const matrices *s = &l->sets[ch->set];
    const mica_tensor *x = &l->c->in[0];
    size_t first = (task - ch->z_task) * ch->z_step, end = MICA_MIN(first + ch->z_step, s->rows);
    if (l->count <= FEW) fetch(s->a + first * s->a_bytes, (end - first) * s->a_bytes);
    for (size_t q = 0; q < ch->rows; q++)
        l->isa->to_f32[x->dtype](rows + q * l->in, x->data + (size_t)l->order[ch->first + q] * l->in * mica_dtype_size(x->dtype), l->in);
    float *z = l->z + ch->first * l->most;
    l->isa->thin_dots[s->a_type](z + first * ch->rows, s->a + first * s->a_bytes, (ptrdiff_t)l->in, end - first, rows, ch->rows, l->in);
    for (size_t i = first; i < end; i++)
        for (size_t q = 0; q < ch->rows; q++) z[i * ch->rows + q] *= s->scales[i / s->rank];
}

// ---- y + b·z ---------------------------------------------------------------------------------------------
// Module i's part of outputs [from, to), whose sums are c.
static void add_module(const low_rank *l, const chunk *ch, size_t i, size_t from, size_t to, size_t apart, float *c) {
    const matrices *s = &l->sets[ch->set];
    size_t tiles = (to - from + apart * TILE - 1) / (apart * TILE);
    const float *z = l->z + ch->first * l->most + i * s->rank * ch->rows;
    l->isa->low_rank[s->b_type](c, BLOCK, z, ch->rows, s->b + from * s->b_bytes, s->rank, tiles, apart);
}

static void add_sets(const low_rank *l, const chunk *ch, size_t from, size_t to, float *c) {
    const int32_t *outs = l->c->params->low_rank.outs;
    if (l->c->params->low_rank.gate)
        for (size_t i = 0; i < 2; i++) add_module(l, ch, i, from + i * TILE, to + i * TILE, 2, c + i * TILE);
    else
        for (size_t i = 0, start = 0; i < l->modules; start += (size_t)outs[i++]) {
            size_t low = MICA_MAX(from, start), high = MICA_MIN(to, start + (size_t)outs[i]);
            if (low < high) add_module(l, ch, i, low, high, 1, c + (low - from));
        }
}

static void multiply(const low_rank *l, const chunk *ch, size_t from, size_t n, float *c) {
    const float *magnitudes = l->sets[ch->set].magnitudes;
    for (size_t q = 0; magnitudes && q < ch->rows; q++) l->isa->binary[MICA_CPU_MUL][MICA_F32](c + q * BLOCK, c + q * BLOCK, magnitudes + from, n);
}

// Outputs [from, to), at most BLOCK, of a chunk.
static void compute_block(const low_rank *l, const chunk *ch, size_t from, size_t to, float *c) {
    const float *y = (const float *)(const void *)l->c->in[1].data;
    for (size_t q = 0; q < ch->rows; q++) memcpy(c + q * BLOCK, y + (size_t)l->order[ch->first + q] * l->outs + from, (to - from) * sizeof *c);
    if (ch->set >= 0) add_sets(l, ch, from, to, c), multiply(l, ch, from, to - from, c);
    for (size_t q = 0; q < ch->rows; q++)
        mica_cpu_store_rows(l->isa, (mica_gate)l->c->params->low_rank.gate, &l->c->out, l->outs, (size_t)l->order[ch->first + q], 1, from, to - from,
                            c + q * BLOCK, BLOCK);
}

static void wait_for_z(low_rank *l) {
    for (unsigned i = 0; atomic_load_explicit(&l->ready, memory_order_acquire) < l->z_tasks; i++)
        if (i >= SPINS) sched_yield();
}

static void some(void *ctx, size_t task, size_t thread) {
    low_rank *l = ctx;
    float *rows = (float *)(void *)(l->threads + thread * l->per_thread), *c = rows + (l->per_thread / sizeof(float) - CHUNK * BLOCK);
    if (task < l->z_tasks) {
        compute_z(l, task, rows);
        atomic_fetch_add_explicit(&l->ready, 1, memory_order_release);
        return;
    }
    task -= l->z_tasks;
    const chunk *ch = chunk_at(l, task, false);
    size_t from = (task - ch->task) * ch->step, end = MICA_MIN(from + ch->step, l->outs);
    if (ch->set >= 0) {
        const matrices *s = &l->sets[ch->set];
        if (l->count <= FEW) fetch(s->b + from * s->b_bytes, (mica_round_up(end, TILE) - from) * s->b_bytes);
        wait_for_z(l);
    }
    for (; from < end; from += BLOCK) compute_block(l, ch, from, MICA_MIN(from + BLOCK, end), c);
}

void mica_cpu_low_rank(const mica_call *c) {
    low_rank l = {0};
    lay_out(&l, c);
    assert(c->inputs >= FIRST && c->in[0].contiguous && c->in[1].contiguous);
    group_rows(&l);
    cut(&l);
    mica_pool_run(mica_cpu_pool(c), l.z_tasks + l.tasks, some, &l);
}
