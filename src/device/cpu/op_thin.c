// SPDX-License-Identifier: Apache-2.0
// Products with a side of at most sixteen, as low-rank adapters make them: [M,K]·[K,N] with operands of different types, sums in f32. Three
// shapes, in which the large operand is read where it lies, once:
//   dots   N is the thin side: rows of a against the columns of b;
//   outer  K is: each row of the result is a sum of a few rows of b;
//   sums   K is long and M or N thin: the rows of the large operand are summed up, weighted.
// Tasks are runs of rows, in `sums` of columns; no sum is divided among tasks.
#include "device/cpu/op_thin.h"
#include "device/cpu/product.h"
#include "device/cpu/walk.h"
#include <string.h>

enum { THIN = 16, ROWS = 32, COLUMNS = 64 };
typedef enum kind { NONE, DOTS, OUTER, SUMS_OF_B, SUMS_OF_A } kind;

typedef struct thin {
    const mica_call *c;
    kind kind;
    size_t m, n, k;
    float *small; // the thin operand in f32: dots [N][K], outer [K][N], sums [K][thin]
    float *area;  // per thread
    size_t per_thread;
} thin;

static bool unit(const mica_tensor *t, int d) { return t->shape[d] <= 1 || t->stride[d] == 1; }

static kind kind_of(const mica_tensor *a, const mica_tensor *b) {
    int64_t m = a->shape[0], k = a->shape[1], n = b->shape[1];
    if (m < 1 || n < 1 || k < 1) return NONE;
    if (k <= THIN) return OUTER;
    if (n <= THIN && unit(a, 1)) return DOTS;
    if (m <= THIN && unit(b, 1)) return SUMS_OF_B;
    return n <= THIN && unit(a, 0) ? SUMS_OF_A : NONE;
}

bool mica_cpu_is_thin(const mica_call *c) {
    const mica_tensor *a = &c->in[0], *b = &c->in[1];
    return c->params->matmul.mixed && a->ndim == 2 && kind_of(a, b) != NONE;
}

static size_t whole_lines(size_t floats) { return mica_whole_lines(floats * sizeof(float)) / sizeof(float); }

// Floats: of the copy of the thin operand, then of each thread.
static thin thin_of(const mica_call *c, size_t *copied) {
    const mica_tensor *a = &c->in[0], *b = &c->in[1];
    thin t = {.c = c, .kind = kind_of(a, b), .m = (size_t)a->shape[0], .n = (size_t)b->shape[1], .k = (size_t)a->shape[1]};
    *copied = whole_lines(t.kind == SUMS_OF_B ? t.m * t.k : t.n * t.k);
    t.per_thread = whole_lines(t.kind == DOTS ? ROWS * t.n : t.kind == OUTER ? ROWS * t.k : THIN * COLUMNS + COLUMNS * THIN);
    t.small = (float *)(void *)c->scratch, t.area = t.small ? t.small + *copied : NULL;
    return t;
}

size_t mica_cpu_thin_scratch(const mica_call *c) {
    size_t copied;
    thin t = thin_of(c, &copied);
    return (copied + t.per_thread * mica_pool_threads(mica_cpu_pool(c))) * sizeof(float);
}

static const unsigned char *at(const mica_tensor *t, size_t i, size_t j) {
    return t->data + ((ptrdiff_t)i * (ptrdiff_t)t->stride[0] + (ptrdiff_t)j * (ptrdiff_t)t->stride[1]) * (ptrdiff_t)mica_dtype_size(t->dtype);
}

// to [rows][columns] = t from row `row` on, or its transpose.
static void copy(const mica_cpu_rows_isa *isa, const mica_tensor *t, size_t row, size_t rows, size_t columns, bool transposed, float *to) {
    if (!transposed && unit(t, 1))
        for (size_t i = 0; i < rows; i++) isa->to_f32[t->dtype](to + i * columns, at(t, row + i, 0), columns);
    else
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < columns; j++)
                to[i * columns + j] = mica_cpu_load1(t->dtype, transposed ? at(t, row + j, i) : at(t, row + i, j), 0);
}

static unsigned char *out_at(const thin *t, size_t i, size_t j) {
    const mica_tensor *out = &t->c->out;
    return out->data + (i * t->n + j) * mica_dtype_size(out->dtype);
}

static void dots(const thin *t, const mica_cpu_rows_isa *isa, size_t row, size_t rows, float *area) {
    const mica_tensor *a = &t->c->in[0];
    isa->thin_dots[a->dtype](area, at(a, row, 0), (ptrdiff_t)a->stride[0], rows, t->small, t->n, t->k);
    isa->from_f32[t->c->out.dtype](out_at(t, row, 0), area, rows * t->n);
}

static void outer(const thin *t, const mica_cpu_rows_isa *isa, size_t row, size_t rows, float *area) {
    copy(isa, &t->c->in[0], row, rows, t->k, false, area);
    isa->thin_outer[t->c->out.dtype](out_at(t, row, 0), t->n, area, rows, t->small, t->k, t->n);
}

// Columns from `first` on of the large operand.
static void sums(const thin *t, const mica_cpu_rows_isa *isa, size_t first, size_t columns, float *area) {
    bool of_b = t->kind == SUMS_OF_B;
    const mica_tensor *large = &t->c->in[of_b];
    size_t r = of_b ? t->m : t->n;
    const void *x = of_b ? at(large, 0, first) : at(large, first, 0);
    isa->thin_sums[large->dtype](area, t->small, r, x, (ptrdiff_t)large->stride[of_b ? 0 : 1], t->k, columns);
    float *turned = area + THIN * COLUMNS;
    for (size_t j = 0; of_b && j < r; j++) isa->from_f32[t->c->out.dtype](out_at(t, j, first), area + j * columns, columns);
    if (of_b) return;
    for (size_t i = 0; i < columns; i++)
        for (size_t j = 0; j < r; j++) turned[i * r + j] = area[j * columns + i];
    isa->from_f32[t->c->out.dtype](out_at(t, first, 0), turned, columns * r);
}

static void some(void *ctx, size_t task, size_t thread) {
    const thin *t = ctx;
    const mica_cpu_rows_isa *isa = &mica_cpu_isa_of(t->c)->rows;
    bool by_rows = t->kind == DOTS || t->kind == OUTER;
    size_t step = by_rows ? ROWS : COLUMNS, all = t->kind == SUMS_OF_B ? t->n : t->m, first = task * step, n = MICA_MIN(step, all - first);
    float *area = t->area + thread * t->per_thread;
    if (t->kind == DOTS) dots(t, isa, first, n, area);
    else if (t->kind == OUTER) outer(t, isa, first, n, area);
    else sums(t, isa, first, n, area);
}

void mica_cpu_thin(const mica_call *c) {
    size_t copied;
    thin t = thin_of(c, &copied);
    const mica_tensor *a = &c->in[0], *b = &c->in[1];
    const mica_cpu_rows_isa *isa = &mica_cpu_isa_of(c)->rows;
    if (t.kind == DOTS) copy(isa, b, 0, t.n, t.k, true, t.small);
    else if (t.kind == SUMS_OF_B) copy(isa, a, 0, t.k, t.m, true, t.small);
    else copy(isa, b, 0, t.k, t.n, false, t.small);
    size_t step = t.kind == DOTS || t.kind == OUTER ? ROWS : COLUMNS, all = t.kind == SUMS_OF_B ? t.n : t.m;
    mica_pool_run(mica_cpu_pool(c), (all + step - 1) / step, some, &t);
}
