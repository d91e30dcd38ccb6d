// SPDX-License-Identifier: Apache-2.0
// Gradient rules of elementwise ops. Each is the textbook derivative, written with public ops so that it can be differentiated
// again; half-precision arrays are widened, so that a gradient is rounded once. Conventions at corners: abs has slope 0 at 0,
// relu too; maximum and minimum share a tie half and half; power takes 0 * log 0 as 0 (all as PyTorch).
#include "engine/rules.h"
#include <math.h>

#define A node->in[0]
#define B node->in[1]
#define NEEDS(i) mica_needs_grad(node, i)

// One input, one output: grads[0] = g * derivative, in A's dtype.
static bool chain(mica_scope *s, mica_array *node, mica_array *g, mica_array *derivative, mica_array **grads) {
    grads[0] = mica_narrow(s, mica_mul(s, mica_widen(s, g), derivative), A);
    return true;
}

static mica_array *scaled(mica_scope *s, mica_array *a, double by) { return mica_mul_scalar(s, a, by); }
static mica_array *plus(mica_scope *s, mica_array *a, double b) { return mica_add_scalar(s, a, b); }
static mica_array *zero_like(mica_scope *s, const mica_array *a) { return a ? mica_constant(s, 0, a->dtype) : NULL; }
static mica_array *one_minus(mica_scope *s, mica_array *a) { return plus(s, mica_neg(s, a), 1); }

// ---- one input --------------------------------------------------------------------------------------------
bool mica_vjp_neg(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    (void)node;
    grads[0] = mica_neg(s, g);
    return true;
}

bool mica_vjp_exp(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_mul(s, g, node);
    return true;
}

bool mica_vjp_log(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_div(s, g, A);
    return true;
}

bool mica_vjp_sigmoid(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *y = mica_widen(s, node);
    return chain(s, node, g, mica_mul(s, y, one_minus(s, y)), grads);
}

bool mica_vjp_tanh(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return chain(s, node, g, one_minus(s, mica_square(s, mica_widen(s, node))), grads);
}

bool mica_vjp_relu(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *zero = zero_like(s, A);
    grads[0] = mica_where(s, mica_greater(s, A, zero), g, zero);
    return true;
}

bool mica_vjp_sqrt(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return chain(s, node, g, scaled(s, mica_reciprocal(s, mica_widen(s, node)), 0.5), grads);
}

bool mica_vjp_rsqrt(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *y = mica_widen(s, node);
    return chain(s, node, g, scaled(s, mica_mul(s, y, mica_square(s, y)), -0.5), grads);
}

bool mica_vjp_reciprocal(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return chain(s, node, g, mica_neg(s, mica_square(s, mica_widen(s, node))), grads);
}

bool mica_vjp_square(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_mul(s, g, scaled(s, A, 2)); // twice an element is exact
    return true;
}

bool mica_vjp_abs(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *zero = zero_like(s, A);
    mica_array *below = mica_where(s, mica_less(s, A, zero), mica_neg(s, g), zero);
    grads[0] = mica_where(s, mica_greater(s, A, zero), g, below);
    return true;
}

bool mica_vjp_sin(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return chain(s, node, g, mica_cos(s, mica_widen(s, A)), grads);
}

bool mica_vjp_cos(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return chain(s, node, g, mica_neg(s, mica_sin(s, mica_widen(s, A))), grads);
}

bool mica_vjp_erf(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *x = mica_widen(s, A);
    return chain(s, node, g, scaled(s, mica_exp(s, mica_neg(s, mica_square(s, x))), 2 / sqrt(M_PI)), grads);
}

// x * sigmoid(x): s (1 + x (1 - s)).
static mica_array *silu_slope(mica_scope *s, mica_array *x) {
    mica_array *y = mica_sigmoid(s, x);
    return mica_mul(s, y, plus(s, mica_mul(s, x, one_minus(s, y)), 1));
}

bool mica_vjp_silu(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return chain(s, node, g, silu_slope(s, mica_widen(s, A)), grads);
}

// x * Phi(x): Phi(x) + x phi(x).
bool mica_vjp_gelu(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *x = mica_widen(s, A);
    mica_array *cumulative = scaled(s, plus(s, mica_erf(s, scaled(s, x, M_SQRT1_2)), 1), 0.5);
    mica_array *density = scaled(s, mica_exp(s, scaled(s, mica_square(s, x), -0.5)), 1 / sqrt(2 * M_PI));
    return chain(s, node, g, mica_add(s, cumulative, mica_mul(s, x, density)), grads);
}

// x/2 (1 + t), t = tanh(u), u = c (x + 0.044715 x³): (1 + t)/2 + x/2 (1 - t²) u'.
static mica_array *gelu_tanh_slope(mica_scope *s, mica_array *x) {
    const double c = sqrt(2 / M_PI), cubic = 0.044715;
    mica_array *square = mica_square(s, x);
    mica_array *t = mica_tanh(s, mica_mul(s, x, plus(s, scaled(s, square, c * cubic), c)));
    mica_array *slope = plus(s, scaled(s, square, 3 * c * cubic), c);
    mica_array *inner = mica_mul(s, scaled(s, x, 0.5), mica_mul(s, one_minus(s, mica_square(s, t)), slope));
    return mica_add(s, scaled(s, plus(s, t, 1), 0.5), inner);
}

bool mica_vjp_gelu_tanh(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return chain(s, node, g, gelu_tanh_slope(s, mica_widen(s, A)), grads);
}

bool mica_vjp_astype(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_narrow(s, g, A);
    return true;
}

bool mica_vjp_contiguous(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    (void)s, (void)node;
    grads[0] = g;
    return true;
}

// ---- two and three inputs -----------------------------------------------------------------------------------
bool mica_vjp_add(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    (void)s, (void)node;
    grads[0] = grads[1] = g;
    return true;
}

bool mica_vjp_sub(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = g;
    if (NEEDS(1)) grads[1] = mica_neg(s, g);
    return true;
}

bool mica_vjp_mul(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    if (NEEDS(0)) grads[0] = mica_mul(s, g, B);
    if (NEEDS(1)) grads[1] = mica_mul(s, g, A);
    return true;
}

bool mica_vjp_div(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    if (NEEDS(0)) grads[0] = mica_div(s, g, B);
    if (NEEDS(1)) {
        mica_array *b = mica_widen(s, B);
        mica_array *quotient = mica_div(s, mica_mul(s, mica_widen(s, g), mica_widen(s, A)), mica_square(s, b));
        grads[1] = mica_narrow(s, mica_neg(s, quotient), B);
    }
    return true;
}

// a^b: b a^(b-1) and a^b log a. An exponent of 0 is replaced before 1 is taken off, and a base of 0 before the logarithm: the
// factor beside them is 0, and 0 * inf must not appear, nor in second derivatives.
bool mica_vjp_power(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *a = mica_widen(s, A), *b = mica_widen(s, B), *wide = mica_widen(s, g), *zero = zero_like(s, a);
    mica_array *one = a ? mica_constant(s, 1, a->dtype) : NULL;
    if (NEEDS(0)) {
        mica_array *exponent = plus(s, mica_where(s, mica_equal(s, b, zero), one, b), -1);
        grads[0] = mica_narrow(s, mica_mul(s, wide, mica_mul(s, b, mica_power(s, a, exponent))), A);
    }
    if (NEEDS(1)) {
        mica_array *logarithm = mica_log(s, mica_where(s, mica_equal(s, a, zero), one, a));
        grads[1] = mica_narrow(s, mica_mul(s, wide, mica_mul(s, mica_power(s, a, b), logarithm)), B);
    }
    return true;
}

// The chosen input takes the gradient; equal ones half each.
static bool vjp_extremum(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads, bool greater) {
    mica_array *half = mica_where(s, mica_equal(s, A, B), scaled(s, g, 0.5), zero_like(s, g));
    mica_array *first = greater ? mica_greater(s, A, B) : mica_less(s, A, B);
    mica_array *second = greater ? mica_less(s, A, B) : mica_greater(s, A, B);
    if (NEEDS(0)) grads[0] = mica_where(s, first, g, half);
    if (NEEDS(1)) grads[1] = mica_where(s, second, g, half);
    return true;
}

bool mica_vjp_maximum(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return vjp_extremum(s, node, g, grads, true);
}

bool mica_vjp_minimum(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return vjp_extremum(s, node, g, grads, false);
}

bool mica_vjp_where(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *zero = zero_like(s, g);
    if (NEEDS(1)) grads[1] = mica_where(s, node->in[0], g, zero);
    if (NEEDS(2)) grads[2] = mica_where(s, node->in[0], zero, g);
    return true;
}

// ---- gated activations: f(gate) * up ---------------------------------------------------------------------------
// One pass gives both.
static bool vjp_both(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads, mica_gate kind) {
    mica_array *both = mica_gated_grad(s, A, B, g, kind);
    for (int i = 0; i < 2; i++)
        if (NEEDS(i)) grads[i] = mica_squeeze(s, mica_slice_axis(s, both, 0, i, i + 1), 0);
    return true;
}

bool mica_vjp_swiglu(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) { return vjp_both(s, node, g, grads, MICA_GATE_SWIGLU); }
bool mica_vjp_geglu(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) { return vjp_both(s, node, g, grads, MICA_GATE_GEGLU); }

// The graph of that pass: inputs gate, up and g.
static mica_array *gated_grad_graph(mica_scope *s, const mica_array *node, mica_array *const *in) {
    bool silu = node->params.gated.gate == MICA_GATE_SWIGLU;
    mica_array *gate = mica_widen(s, in[0]), *up = mica_widen(s, in[1]), *wide = mica_widen(s, in[2]);
    mica_array *slope = silu ? silu_slope(s, gate) : gelu_tanh_slope(s, gate);
    mica_array *both[] = {mica_narrow(s, mica_mul(s, mica_mul(s, wide, up), slope), in[0]),
                          mica_narrow(s, mica_mul(s, wide, silu ? mica_silu(s, gate) : mica_gelu_tanh(s, gate)), in[1])};
    return both[0] && both[1] ? mica_stack(s, both, 2, 0) : NULL;
}

bool mica_vjp_gated_grad(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return mica_vjp_by_graph(s, node, g, grads, gated_grad_graph);
}
