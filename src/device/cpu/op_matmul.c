// SPDX-License-Identifier: Apache-2.0
// Ops "matmul", "quantized_matmul" and "linear_packed": each names its right-hand side; product.c does the rest. f64 exists
// for gradient checks and is a plain loop.
#include "device/cpu/op_matmul.h"
#include "device/cpu/op_thin.h"
#include "device/cpu/product.h"
#include "device/cpu/product_int8.h"
#include <assert.h>

// ---- matmul ----------------------------------------------------------------------------------------
static mica_cpu_rhs dense_rhs(const mica_call *c) {
    const mica_tensor *b = &c->in[1];
    return (mica_cpu_rhs){.kind = MICA_CPU_DENSE, .k = (size_t)b->shape[b->ndim - 2], .n = (size_t)b->shape[b->ndim - 1]};
}

static double f64_at(const mica_tensor *t, ptrdiff_t at) {
    double v;
    memcpy(&v, t->data + at * (ptrdiff_t)sizeof v, sizeof v);
    return v;
}

static void matmul_f64_task(void *ctx, size_t row, size_t thread) {
    const mica_call *c = ctx;
    const mica_tensor *a = &c->in[0], *b = &c->in[1];
    int nd = a->ndim;
    size_t m = (size_t)a->shape[nd - 2], n = (size_t)b->shape[nd - 1], k = (size_t)a->shape[nd - 1];
    ptrdiff_t at_a = mica_cpu_row_offset(a, 1, row), at_b = mica_cpu_row_offset(b, 2, row / m);
    double *out = (double *)(void *)c->out.data + row * n;
    (void)thread;
    for (size_t j = 0; j < n; j++) {
        double sum = 0;
        for (size_t p = 0; p < k; p++)
            sum += f64_at(a, at_a + (ptrdiff_t)p * a->stride[nd - 1]) *
                   f64_at(b, at_b + (ptrdiff_t)p * b->stride[nd - 2] + (ptrdiff_t)j * b->stride[nd - 1]);
        out[j] = sum;
    }
}

static void matmul(const mica_call *c) {
    assert(c->inputs == 2 && c->in[0].ndim >= 2 && c->in[0].ndim == c->in[1].ndim);
    mica_cpu_rhs rhs = dense_rhs(c);
    mica_call call = *c;
    if (c->out.dtype == MICA_F64) mica_pool_run(mica_cpu_pool(c), mica_cpu_row_count(&c->in[0], 1), matmul_f64_task, &call);
    else if (mica_cpu_is_thin(c)) mica_cpu_thin(c);
    else mica_cpu_product(c, &rhs);
}

static size_t matmul_scratch(const mica_call *c) {
    mica_cpu_rhs rhs = dense_rhs(c);
    if (c->out.dtype != MICA_F64 && mica_cpu_is_thin(c)) return mica_cpu_thin_scratch(c);
    return c->out.dtype == MICA_F64 ? 0 : mica_cpu_product_scratch(c, &rhs);
}

// ---- quantized_matmul ------------------------------------------------------------------------------
static mica_cpu_rhs codes_rhs(const mica_call *c) {
    const mica_params *p = c->params;
    const mica_tensor *w = &c->in[1];
    bool has_biases = c->inputs > 3 && c->in[3].data;
    size_t rows = (size_t)w->shape[0], cols = (size_t)w->shape[1] * 32 / (size_t)p->quant.bits;
    assert(w->ndim == 2 && w->contiguous && c->in[2].contiguous);
    mica_cpu_rhs rhs = {.kind = p->quant.transpose ? MICA_CPU_CODES_NK : MICA_CPU_CODES_KN};
    rhs.n = p->quant.transpose ? rows : cols, rhs.k = p->quant.transpose ? cols : rows;
    rhs.codes = (mica_quant_rows){
        .spec = {.mode = (mica_quant_mode)p->quant.mode, .bits = p->quant.bits, .group_size = p->quant.group_size},
        .scale_dtype = c->in[2].dtype, .words = w->data, .scales = c->in[2].data,
        .biases = has_biases ? c->in[3].data : NULL};
    return rhs;
}

static void quantized_matmul(const mica_call *c) {
    mica_cpu_rhs rhs = codes_rhs(c);
    mica_cpu_product(c, &rhs);
}

static size_t quantized_matmul_scratch(const mica_call *c) {
    mica_cpu_rhs rhs = codes_rhs(c);
    return mica_cpu_product_scratch(c, &rhs);
}

// ---- linear_packed ---------------------------------------------------------------------------------
static mica_cpu_rhs packed_rhs(const mica_call *c) {
    size_t out = (size_t)c->params->packed.out, in = (size_t)c->params->packed.in;
    if (c->params->packed.back) return (mica_cpu_rhs){.kind = MICA_CPU_TILES_KN, .n = in, .k = out, .tiles = mica_cpu_tiles_of(c->params)};
    return (mica_cpu_rhs){.kind = MICA_CPU_TILES, .n = out, .k = in, .tiles = mica_cpu_tiles_of(c->params), .gate = (mica_gate)c->params->packed.gate};
}

static void linear_packed(const mica_call *c) {
    mica_cpu_rhs rhs = packed_rhs(c);
    if (c->params->packed.int8) mica_cpu_product_int8(c);
    else mica_cpu_product(c, &rhs);
}

static size_t linear_packed_scratch(const mica_call *c) {
    mica_cpu_rhs rhs = packed_rhs(c);
    return c->params->packed.int8 ? mica_cpu_product_int8_scratch(c) : mica_cpu_product_scratch(c, &rhs);
}

const mica_kernel mica_cpu_matmul_kernels[] = {
    {"matmul", matmul, matmul_scratch},
    {"quantized_matmul", quantized_matmul, quantized_matmul_scratch},
    {"linear_packed", linear_packed, linear_packed_scratch},
};
const size_t mica_cpu_matmul_kernel_count = MICA_COUNT(mica_cpu_matmul_kernels);
