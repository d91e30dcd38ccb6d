// SPDX-License-Identifier: Apache-2.0
// Gradient rules of the norms, of the rotary embedding and of attention, written as graphs in f32 (f64 for f64): the forward
// kernels compute so inside, and each gradient is rounded once, at the end.
#include "engine/rules.h"
#include <math.h>

#define NEEDS(i) mica_needs_grad(node, i)

static mica_array *row_mean(mica_scope *s, mica_array *a) { return mica_mean(s, a, (int[]){-1}, 1, true); }
static mica_array *as_type(mica_scope *s, mica_array *a, mica_dtype dtype) { return a ? mica_astype(s, a, dtype) : NULL; }
static mica_dtype wide_of(mica_dtype d) { return d == MICA_F64 ? MICA_F64 : MICA_F32; }

// ---- norms ------------------------------------------------------------------------------------------------
// Sum over all but the last dimension, in the dtype of w.
static mica_array *sum_rows(mica_scope *s, mica_array *a, const mica_array *w) {
    return mica_narrow(s, mica_sum(s, mica_as_rows(s, a), (int[]){0}, 1, false), w);
}

// y = n w + b with n = c / sqrt(mean(c²) + eps), c = x or x - mean(x). With h = ḡ w: c̄ = r (h - n mean(h n)), and a centred
// row gives its mean back. wanted: by x, w and b.
static bool vjp_norm(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads, bool centred, const bool wanted[3]) {
    mica_dtype wide = wide_of(node->dtype);
    mica_array *x = as_type(s, node->in[0], wide), *w = node->in[1];
    mica_array *c = centred ? mica_sub(s, x, row_mean(s, x)) : x;
    mica_array *r = mica_rsqrt(s, mica_add_scalar(s, row_mean(s, mica_square(s, c)), (double)node->params.norm.eps));
    mica_array *n = mica_mul(s, c, r);
    g = as_type(s, g, wide);
    if (wanted[0]) {
        mica_array *h = w ? mica_mul(s, g, as_type(s, w, wide)) : g;
        mica_array *d = mica_sub(s, h, mica_mul(s, n, row_mean(s, mica_mul(s, h, n))));
        if (centred) d = mica_sub(s, d, row_mean(s, h));
        grads[0] = mica_narrow(s, mica_mul(s, r, d), node->in[0]);
    }
    if (wanted[1]) grads[1] = sum_rows(s, mica_mul(s, g, n), w);
    if (wanted[2]) grads[2] = sum_rows(s, g, node->in[2]);
    return true;
}

// By x in one pass over x and g.
bool mica_vjp_rms_norm(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    if (NEEDS(0)) grads[0] = mica_rms_norm_grad(s, node->in[0], g, node->in[1], node->params.norm.eps);
    return !NEEDS(1) || vjp_norm(s, node, g, grads, false, (bool[3]){[1] = true});
}

// The graph that the fused gradient computes: inputs x, g, w.
static mica_array *norm_grad_graph(mica_scope *s, const mica_array *node, mica_array *const *in) {
    mica_params p = {.norm = {.eps = node->params.norm.eps}};
    mica_array *grads[2] = {NULL}, *inputs[] = {in[0], in[2]};
    mica_array norm = {.op = MICA_OP_rms_norm, .dtype = node->dtype, .n_in = 2, .in = inputs, .params = p};
    return vjp_norm(s, &norm, in[1], grads, false, (bool[3]){true}) ? grads[0] : NULL;
}

bool mica_vjp_rms_norm_grad(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return mica_vjp_by_graph(s, node, g, grads, norm_grad_graph);
}

bool mica_vjp_layer_norm(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return vjp_norm(s, node, g, grads, true, (bool[3]){NEEDS(0), NEEDS(1), NEEDS(2)});
}

// ---- rotary embedding: turned back by the same angles ----------------------------------------------------------
bool mica_vjp_rope(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    if (NEEDS(1)) return mica_op_fail(s, node, "the table has no gradient");
    grads[0] = mica_rope_turn(s, g, node->in[1], node->params.rope.traditional != 0, !node->params.rope.back);
    return true;
}

// ---- attention ----------------------------------------------------------------------------------------------------
typedef struct attention {
    int64_t B, H, Hkv, G, Tq, Tk, Dh;
    mica_dtype wide;
    mica_array *q, *k, *v, *g; // wide; the query heads of one key head as rows: q, g [B,Hkv,G*Tq,Dh]
} attention;

static mica_array *group_rows(mica_scope *s, const attention *t, mica_array *a, int64_t last) {
    return a ? mica_reshape(s, a, MICA_SHAPE(t->B, t->Hkv, t->G * t->Tq, last)) : NULL;
}

// Which keys each query sees by causality and window: bool [Tq,Tk].
static mica_array *visible(mica_scope *s, const attention *t, int window) {
    mica_array *at = mica_arange(s, (double)(t->Tk - t->Tq), (double)t->Tk, 1, MICA_I32);
    mica_array *i = mica_expand_dims(s, at, 1), *j = mica_arange(s, 0, (double)t->Tk, 1, MICA_I32);
    mica_array *seen = mica_less_equal(s, j, i);
    return window ? mica_logical_and(s, seen, mica_greater(s, j, mica_add_scalar(s, i, -(double)window))) : seen;
}

// The probabilities again: [B,H,Tq,Tk]; a query that sees nothing has zeros.
static mica_array *probabilities(mica_scope *s, const attention *t, const mica_array *node) {
    mica_array *mask = node->in[3];
    mica_array *scores = mica_mul_scalar(s, mica_matmul(s, t->q, mica_swap_axes(s, t->k, -1, -2)), (double)node->params.sdpa.scale);
    if (!scores) return NULL;
    scores = mica_reshape(s, scores, MICA_SHAPE(t->B, t->H, t->Tq, t->Tk));
    mica_array *never = mica_constant(s, -(double)INFINITY, t->wide);
    if (mask && mask->dtype == MICA_BOOL) scores = mica_where(s, mask, scores, never);
    else if (mask) scores = mica_add(s, scores, mica_astype(s, mask, t->wide));
    if (node->params.sdpa.causal) scores = mica_where(s, visible(s, t, node->params.sdpa.window), scores, never);
    return mica_exp_minus_lse(s, scores, mica_logsumexp(s, scores, -1, false));
}

static bool set_attention(mica_scope *s, const mica_array *node, mica_array *g, attention *t) {
    const mica_array *q = node->in[0], *k = node->in[1];
    *t = (attention){.B = q->shape[0], .H = q->shape[1], .Hkv = k->shape[1], .Tq = q->shape[2], .Tk = k->shape[2], .Dh = q->shape[3],
                     .wide = wide_of(q->dtype)};
    t->G = t->Hkv ? t->H / t->Hkv : 0;
    t->q = group_rows(s, t, as_type(s, node->in[0], t->wide), t->Dh);
    t->k = as_type(s, node->in[1], t->wide);
    t->v = as_type(s, node->in[2], t->wide);
    t->g = group_rows(s, t, as_type(s, g, t->wide), t->Dh);
    return t->g != NULL;
}

// With scores S, probabilities P and P̄ = ḡ vᵀ: v̄ = Pᵀ ḡ, S̄ = P (P̄ - rowsum(P̄ P)), q̄ = scale S̄ k, k̄ = scale S̄ᵀ q. The
// products with P sum over the query heads that share a key head, since those are rows of one matrix.
bool mica_vjp_sdpa(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    attention t;
    if (mica_sdpa_is_segments(node)) return mica_vjp_sdpa_segments(s, node, g, grads);
    if (!set_attention(s, node, g, &t)) return false;
    double scale = (double)node->params.sdpa.scale;
    mica_array *P = group_rows(s, &t, probabilities(s, &t, node), t.Tk);
    if (!P) return false;
    if (NEEDS(2)) grads[2] = mica_narrow(s, mica_matmul(s, mica_swap_axes(s, P, -1, -2), t.g), node->in[2]);
    if (!NEEDS(0) && !NEEDS(1) && !NEEDS(3)) return true;
    mica_array *dP = mica_matmul(s, t.g, mica_swap_axes(s, t.v, -1, -2));
    mica_array *total = mica_sum(s, mica_mul(s, dP, P), (int[]){-1}, 1, true);
    mica_array *dS = mica_mul(s, P, mica_sub(s, dP, total));
    if (!dS) return false;
    if (NEEDS(0)) {
        mica_array *dq = mica_mul_scalar(s, mica_matmul(s, dS, t.k), scale);
        grads[0] = mica_narrow(s, dq ? mica_reshape(s, dq, 4, node->shape) : NULL, node);
    }
    if (NEEDS(1)) {
        mica_array *dk = mica_matmul(s, mica_swap_axes(s, dS, -1, -2), t.q);
        grads[1] = mica_narrow(s, mica_mul_scalar(s, dk, scale), node->in[1]);
    }
    if (NEEDS(3)) grads[3] = mica_narrow(s, mica_reshape(s, dS, MICA_SHAPE(t.B, t.H, t.Tq, t.Tk)), node->in[3]);
    return true;
}
