// SPDX-License-Identifier: Apache-2.0
// Activations: unary exp, sigmoid, silu, gelu (erf), gelu_tanh, tanh, and the gated swiglu = silu(gate) * up and
// geglu = gelu_tanh(gate) * up, with their gradients. f32, f16 and bf16 go to the raw kernels; f64 is computed here in double.
#include "device/cpu/rows_kernels.h"
#include "device/cpu/walk.h"
#include <assert.h>
#include <math.h>

static double sigmoid_f64(double x) {
    double e = exp(-fabs(x));
    return x >= 0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}
// As in f32: the limit 0 at -inf.
static double silu_f64(double x) { return x == -(double)INFINITY ? 0.0 : x * sigmoid_f64(x); }
static double gelu_f64(double x) { return x == -(double)INFINITY ? 0.0 : 0.5 * x * erfc(-x * 0.70710678118654752440); }
static double gelu_tanh_f64(double x) {
    return x == -(double)INFINITY ? 0.0 : x * sigmoid_f64(2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x));
}

static double unary_f64(mica_cpu_unary f, double x) {
    switch (f) {
    case MICA_CPU_EXP: return exp(x);
    case MICA_CPU_SIGMOID: return sigmoid_f64(x);
    case MICA_CPU_SILU: return silu_f64(x);
    case MICA_CPU_GELU: return gelu_f64(x);
    case MICA_CPU_GELU_TANH: return gelu_tanh_f64(x);
    default: return tanh(x);
    }
}

typedef struct activation {
    const mica_cpu_rows_isa *isa;
    mica_dtype dtype;
    int f; // mica_cpu_unary or mica_cpu_binary
} activation;

static void unary_row(void *ctx, void *y, const void *const *x, size_t n, size_t row) {
    (void)row;
    const activation *k = ctx;
    if (k->dtype != MICA_F64)
        k->isa->unary[k->f][k->dtype](y, x[0], n);
    else
        for (size_t i = 0; i < n; i++) ((double *)y)[i] = unary_f64((mica_cpu_unary)k->f, ((const double *)x[0])[i]);
}

static void gated_row(void *ctx, void *y, const void *const *x, size_t n, size_t row) {
    (void)row;
    const activation *k = ctx;
    if (k->dtype != MICA_F64) {
        k->isa->binary[k->f][k->dtype](y, x[0], x[1], n);
        return;
    }
    mica_cpu_unary f = k->f == MICA_CPU_SWIGLU ? MICA_CPU_SILU : MICA_CPU_GELU_TANH;
    for (size_t i = 0; i < n; i++)
        ((double *)y)[i] = unary_f64(f, ((const double *)x[0])[i]) * ((const double *)x[1])[i];
}

static void run(const mica_call *c, int inputs, int f, mica_walk_fn *fn) {
    activation k = {.isa = &mica_cpu_isa_of(c)->rows, .dtype = c->in[0].dtype, .f = f};
    assert(mica_dtype_is_float(k.dtype) && c->out.dtype == k.dtype);
    mica_walk_elements(c, inputs, c->scratch, fn, &k);
}

void mica_cpu_exp(const mica_call *c) { run(c, 1, MICA_CPU_EXP, unary_row); }
void mica_cpu_sigmoid(const mica_call *c) { run(c, 1, MICA_CPU_SIGMOID, unary_row); }
void mica_cpu_silu(const mica_call *c) { run(c, 1, MICA_CPU_SILU, unary_row); }
void mica_cpu_gelu(const mica_call *c) { run(c, 1, MICA_CPU_GELU, unary_row); }
void mica_cpu_gelu_tanh(const mica_call *c) { run(c, 1, MICA_CPU_GELU_TANH, unary_row); }
void mica_cpu_tanh(const mica_call *c) { run(c, 1, MICA_CPU_TANH, unary_row); }
void mica_cpu_swiglu(const mica_call *c) { run(c, 2, MICA_CPU_SWIGLU, gated_row); }
void mica_cpu_geglu(const mica_call *c) { run(c, 2, MICA_CPU_GEGLU, gated_row); }

// ---- gated_grad: gate, up and g, all dense, to [2, ...] ----
static double slope_f64(mica_gate gate, double x) {
    bool silu = gate == MICA_GATE_SWIGLU;
    double inner = silu ? x : 2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x), s = sigmoid_f64(inner);
    return s + x * s * (1 - s) * (silu ? 1 : 2.0 * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x));
}

static void gated_grad_f64(mica_gate gate, double *da, double *db, const double *a, const double *b, const double *g, size_t n) {
    for (size_t i = 0; i < n; i++) {
        da[i] = g[i] * b[i] * slope_f64(gate, a[i]);
        db[i] = g[i] * (gate == MICA_GATE_SWIGLU ? silu_f64(a[i]) : gelu_tanh_f64(a[i]));
    }
}

enum { RUN = 4096 }; // elements of a task
static void gated_grad_some(void *ctx, size_t first, size_t end, size_t thread) {
    (void)thread;
    const mica_call *c = ctx;
    mica_gate gate = (mica_gate)c->params->gated.gate;
    size_t count = mica_walk_count(&c->in[0]), size = mica_dtype_size(c->out.dtype);
    for (size_t i = first * RUN; i < MICA_MIN(end * RUN, count); i += RUN) {
        size_t n = MICA_MIN((size_t)RUN, count - i);
        void *da = c->out.data + i * size, *db = c->out.data + (count + i) * size;
        const void *a = c->in[0].data + i * size, *b = c->in[1].data + i * size, *g = c->in[2].data + i * size;
        if (c->out.dtype == MICA_F64) gated_grad_f64(gate, da, db, a, b, g, n);
        else mica_cpu_isa_of(c)->rows.gated_grad[gate - MICA_GATE_SWIGLU][c->out.dtype](da, db, a, b, g, n);
    }
}

void mica_cpu_gated_grad(const mica_call *c) {
    mica_call call = *c;
    assert(c->in[0].contiguous && c->in[1].contiguous && c->in[2].contiguous);
    mica_walk_range(c, (mica_walk_count(&c->in[0]) + RUN - 1) / RUN, 1, gated_grad_some, &call);
}

size_t mica_cpu_unary_scratch(const mica_call *c) { return mica_walk_scratch(c, 1); }
size_t mica_cpu_gated_scratch(const mica_call *c) { return mica_walk_scratch(c, 2); }
