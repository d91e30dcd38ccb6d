// SPDX-License-Identifier: Apache-2.0
// Gradient rules of reductions and of ops along one axis. max and min share the gradient evenly among equal elements, as
// PyTorch's amax does.
#include "engine/rules.h"

#define A node->in[0]

bool mica_vjp_sum(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_spread(s, g, A);
    return true;
}

bool mica_vjp_mean(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    int64_t count = 1;
    for (int i = node->ndim; i < A->ndim; i++) count *= A->shape[i];
    grads[0] = mica_spread(s, mica_mul_scalar(s, g, 1.0 / (double)MICA_MAX(count, (int64_t)1)), A);
    return true;
}

static bool vjp_extreme(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *wide = mica_widen(s, g), *hit = mica_equal(s, A, mica_spread(s, node, A));
    if (!wide || !hit) return false;
    mica_array *weight = mica_astype(s, hit, wide->dtype);
    int axes[MICA_MAX_DIMS], count = 0;
    for (int i = node->ndim; i < A->ndim; i++) axes[count++] = i;
    mica_array *ties = count ? mica_sum(s, weight, axes, count, false) : weight;
    grads[0] = mica_narrow(s, mica_mul(s, weight, mica_spread(s, mica_div(s, wide, ties), A)), A);
    return true;
}

bool mica_vjp_max(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) { return vjp_extreme(s, node, g, grads); }
bool mica_vjp_min(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) { return vjp_extreme(s, node, g, grads); }

// g * softmax(a). For half precision the sum is taken again: the rounded result would be too coarse an exponent.
bool mica_vjp_logsumexp(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *a = mica_widen(s, A);
    if (!a) return false;
    mica_array *lse = a == A ? node : mica_logsumexp(s, a, -1, false);
    mica_array *share = mica_exp_minus_lse(s, a, lse);
    grads[0] = mica_narrow(s, mica_mul(s, mica_expand_dims(s, mica_widen(s, g), -1), share), A);
    return true;
}

// y (g - sum(g y)).
bool mica_vjp_softmax(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *y = mica_widen(s, node), *wide = mica_widen(s, g);
    mica_array *total = mica_sum(s, mica_mul(s, wide, y), (int[]){-1}, 1, true);
    grads[0] = mica_narrow(s, mica_mul(s, y, mica_sub(s, wide, total)), A);
    return true;
}

// The last axis read backwards.
static mica_array *reversed(mica_scope *s, mica_array *a) {
    if (!a) return NULL;
    int64_t start[MICA_MAX_DIMS] = {0}, stop[MICA_MAX_DIMS], step[MICA_MAX_DIMS];
    int last = a->ndim - 1;
    for (int i = 0; i <= last; i++) stop[i] = a->shape[i], step[i] = 1;
    start[last] = -1, stop[last] = -a->shape[last] - 1, step[last] = -1;
    return mica_slice(s, a, start, stop, step);
}

bool mica_vjp_cumsum(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    (void)node;
    grads[0] = reversed(s, mica_cumsum(s, reversed(s, g), -1));
    return true;
}

// Each gradient goes back to where its element came from.
bool mica_vjp_sort(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_put_along_axis(s, mica_full_like(s, A, 0), mica_argsort(s, A, -1), g, -1);
    return true;
}
