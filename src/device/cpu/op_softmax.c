// SPDX-License-Identifier: Apache-2.0
// softmax, logsumexp and argmax along the last axis, and the gradient of cross entropy. The maximum is subtracted first. A row of -inf has no softmax:
// NaN, as in PyTorch (attention has its own rule, op_attention.c). argmax gives u32, the lowest index among equals;
// a NaN counts as the greatest value, so the first NaN of a row wins, as in PyTorch and NumPy.
#include "device/cpu/rows_kernels.h"
#include "device/cpu/walk.h"
#include <assert.h>
#include <math.h>

typedef struct reduction {
    const mica_cpu_rows_isa *isa;
    mica_dtype dtype;
} reduction;

static double max_f64(const double *x, size_t D) {
    double max = -(double)INFINITY;
    for (size_t i = 0; i < D; i++)
        if (!(x[i] <= max)) max = x[i];
    return max;
}

static double exp_sum_f64(const double *x, size_t D, double max) {
    double sum = 0;
    for (size_t i = 0; i < D; i++) sum += exp(x[i] - max);
    return sum;
}

static void softmax_row(void *ctx, void *y, const void *const *xs, size_t D, size_t row) {
    (void)row;
    const reduction *k = ctx;
    if (k->dtype != MICA_F64) {
        k->isa->softmax[k->dtype](y, xs[0], D);
        return;
    }
    const double *x = xs[0];
    double *o = y, max = max_f64(x, D), sum = exp_sum_f64(x, D, max);
    for (size_t i = 0; i < D; i++) o[i] = exp(x[i] - max) / sum;
}

static void logsumexp_row(void *ctx, void *y, const void *const *xs, size_t D, size_t row) {
    (void)row;
    const reduction *k = ctx;
    if (k->dtype != MICA_F64) {
        float v = k->isa->logsumexp[k->dtype](xs[0], D);
        k->isa->from_f32[k->dtype](y, &v, 1);
        return;
    }
    double max = max_f64(xs[0], D);
    *(double *)y = isfinite(max) ? max + log(exp_sum_f64(xs[0], D, max)) : max;
}

static size_t argmax_f64(const double *x, size_t D) {
    size_t best = 0;
    for (size_t i = 0; i < D; i++) {
        if (isnan(x[i])) return i;
        if (x[i] > x[best]) best = i;
    }
    return best;
}

static void argmax_row(void *ctx, void *y, const void *const *x, size_t D, size_t row) {
    (void)row;
    const reduction *k = ctx;
    *(uint32_t *)y = (uint32_t)(k->dtype == MICA_F64 ? argmax_f64(x[0], D) : k->isa->argmax[k->dtype](x[0], D));
}

static void run(const mica_call *c, mica_walk_fn *fn) {
    reduction k = {.isa = &mica_cpu_isa_of(c)->rows, .dtype = c->in[0].dtype};
    assert(mica_dtype_is_float(k.dtype));
    mica_walk_rows(c, 1, c->scratch, fn, &k);
}

void mica_cpu_softmax(const mica_call *c) { run(c, softmax_row); }
void mica_cpu_logsumexp(const mica_call *c) { run(c, logsumexp_row); }

void mica_cpu_argmax(const mica_call *c) {
    assert(c->out.dtype == MICA_U32);
    run(c, argmax_row);
}

// ---- cross_entropy_grad: weight * (softmax - one at the target), a row at a time ----
static float float_at(const mica_tensor *t, size_t i) { return *(const float *)(const void *)(t->data + mica_walk_offset(t, 0, i)); }

static void cross_entropy_rows(void *ctx, size_t first, size_t end, size_t thread) {
    (void)thread;
    const mica_call *c = ctx;
    const mica_cpu_rows_isa *isa = &mica_cpu_isa_of(c)->rows;
    const mica_tensor *x = &c->in[0];
    size_t V = (size_t)x->shape[1], size = mica_dtype_size(c->out.dtype);
    for (size_t r = first; r < end; r++) {
        const float *logits = (const float *)(const void *)(x->data + mica_walk_offset(x, 1, r));
        int32_t target = *(const int32_t *)(const void *)(c->in[2].data + mica_walk_offset(&c->in[2], 0, r));
        float lse = float_at(&c->in[1], r), weight = float_at(&c->in[3], r);
        unsigned char *y = c->out.data + r * V * size;
        isa->softmax_error[c->out.dtype](y, logits, lse, weight, V);
        if (target < 0 || (size_t)target >= V) continue;
        float p = (expf(logits[target] - lse) - 1) * weight;
        isa->from_f32[c->out.dtype](y + (size_t)target * size, &p, 1);
    }
}

void mica_cpu_cross_entropy_grad(const mica_call *c) {
    enum { TASK_ELEMENTS = 16384 };
    mica_call call = *c;
    assert(c->in[0].shape[1] <= 1 || c->in[0].stride[1] == 1);
    if (c->in[0].shape[1]) mica_walk_range(c, (size_t)c->in[0].shape[0], TASK_ELEMENTS / (size_t)c->in[0].shape[1], cross_entropy_rows, &call);
}

size_t mica_cpu_softmax_scratch(const mica_call *c) { return mica_walk_scratch(c, 1); }
