// SPDX-License-Identifier: Apache-2.0
// rms_norm and layer_norm along the last axis, and the gradient of the former by x: y = (x - mean?) / sqrt(mean of squares + eps) * w + b, statistics in
// f32 (f64 for f64), one rounding at the end. Weights may have another float type than x; they are converted once a
// call.
#include "base/half.h"
#include "device/cpu/rows_kernels.h"
#include "device/cpu/walk.h"
#include <math.h>

typedef struct norm {
    const mica_cpu_rows_isa *isa;
    mica_dtype dtype;
    const void *w, *b; // [D] f32, or f64 if x is f64; NULL = absent
    float eps;
    bool center;
} norm;

static bool present(const mica_call *c, int input) { return input < c->inputs && c->in[input].data; }

static double read_float(const mica_tensor *t, size_t i) {
    const unsigned char *p = t->data + (ptrdiff_t)i * t->stride[0] * (ptrdiff_t)mica_dtype_size(t->dtype);
    switch (t->dtype) {
    case MICA_F64: return *(const double *)(const void *)p;
    case MICA_F16: return (double)mica_f16_to_f32(*(const uint16_t *)(const void *)p);
    case MICA_BF16: return (double)mica_bf16_to_f32(*(const uint16_t *)(const void *)p);
    default: return (double)*(const float *)(const void *)p;
    }
}

// The weights of `input` as x wants them: in place if they already are, else converted to `to`.
static const void *weights(const mica_call *c, int input, unsigned char *to) {
    if (!present(c, input)) return NULL;
    const mica_tensor *t = &c->in[input];
    bool wide = c->out.dtype == MICA_F64, unit = t->shape[0] <= 1 || t->stride[0] == 1;
    size_t D = (size_t)t->shape[0];
    if (unit && t->dtype == (wide ? MICA_F64 : MICA_F32)) return t->data;
    if (unit && !wide && t->dtype != MICA_F64)
        mica_cpu_isa_of(c)->rows.to_f32[t->dtype]((float *)(void *)to, t->data, D);
    else
        for (size_t i = 0; i < D; i++) {
            if (wide)
                ((double *)(void *)to)[i] = read_float(t, i);
            else
                ((float *)(void *)to)[i] = (float)read_float(t, i);
        }
    return to;
}

static void norm_f64(const norm *k, double *y, const double *x, size_t D) {
    const double *w = k->w, *b = k->b;
    double mean = 0, squares = 0;
    for (size_t i = 0; k->center && i < D; i++) mean += x[i] / (double)D;
    for (size_t i = 0; i < D; i++) squares += (x[i] - mean) * (x[i] - mean);
    double r = 1.0 / sqrt(squares / (double)D + (double)k->eps);
    for (size_t i = 0; i < D; i++) y[i] = (x[i] - mean) * r * (w ? w[i] : 1.0) + (b ? b[i] : 0.0);
}

static void norm_row(void *ctx, void *y, const void *const *x, size_t D, size_t row) {
    (void)row;
    const norm *k = ctx;
    if (k->dtype == MICA_F64)
        norm_f64(k, y, x[0], D);
    else if (k->center)
        k->isa->layer_norm[k->dtype](y, x[0], k->w, k->b, D, k->eps);
    else
        k->isa->rms_norm[k->dtype](y, x[0], k->w, D, k->eps);
}

static size_t weights_bytes(const mica_call *c) {
    const mica_tensor *x = &c->in[0];
    size_t D = x->ndim ? (size_t)x->shape[x->ndim - 1] : 1;
    return mica_walk_round(D * (x->dtype == MICA_F64 ? sizeof(double) : sizeof(float)));
}

static void run_norm(const mica_call *c, bool center) {
    size_t bytes = weights_bytes(c);
    norm k = {.isa = &mica_cpu_isa_of(c)->rows, .dtype = c->in[0].dtype, .eps = c->params->norm.eps, .center = center};
    k.w = weights(c, 1, c->scratch);
    if (center) k.b = weights(c, 2, c->scratch + bytes);
    mica_walk_rows(c, 1, c->scratch + 2 * bytes, norm_row, &k);
}

// ---- rms_norm_grad: x, g, w ----
static void norm_grad_f64(const norm *k, double *y, const double *x, const double *g, size_t D) {
    const double *w = k->w;
    double squares = 0, dot = 0;
    for (size_t i = 0; i < D; i++) squares += x[i] * x[i], dot += g[i] * (w ? w[i] : 1.0) * x[i];
    double r = 1.0 / sqrt(squares / (double)D + (double)k->eps), mean = dot / (double)D * r;
    for (size_t i = 0; i < D; i++) y[i] = r * (g[i] * (w ? w[i] : 1.0) - x[i] * r * mean);
}

static void norm_grad_row(void *ctx, void *y, const void *const *x, size_t D, size_t row) {
    (void)row;
    const norm *k = ctx;
    if (k->dtype == MICA_F64) norm_grad_f64(k, y, x[0], x[1], D);
    else k->isa->rms_norm_grad[k->dtype](y, x[0], x[1], k->w, D, k->eps);
}

void mica_cpu_rms_norm_grad(const mica_call *c) {
    norm k = {.isa = &mica_cpu_isa_of(c)->rows, .dtype = c->in[0].dtype, .eps = c->params->norm.eps};
    k.w = weights(c, 2, c->scratch);
    mica_walk_rows(c, 2, c->scratch + weights_bytes(c), norm_grad_row, &k);
}

size_t mica_cpu_norm_grad_scratch(const mica_call *c) { return weights_bytes(c) + mica_walk_scratch(c, 2); }

void mica_cpu_rms_norm(const mica_call *c) { run_norm(c, false); }
void mica_cpu_layer_norm(const mica_call *c) { run_norm(c, true); }
size_t mica_cpu_norm_scratch(const mica_call *c) { return 2 * weights_bytes(c) + mica_walk_scratch(c, 1); }
