// SPDX-License-Identifier: Apache-2.0
// Gradient rules of attention by segments. That of the op itself is one op, which serves sdpa too where there is no mask: each row of the batch is
// a segment. The rule of that op, wanted for second derivatives only, is the gradient of the same function written as a graph of small ops, all
// pairs of rows at once.
#include "engine/rules.h"
#include "mica/transforms.h"

// Slices of [N,H+2Hkv,Dh]: of q, k and v.
static void split_heads(mica_scope *s, mica_array *all, int64_t H, int64_t Hkv, mica_array *out[3]) {
    const int64_t end[] = {0, H, H + Hkv, H + 2 * Hkv};
    for (int i = 0; i < 3; i++) out[i] = all ? mica_slice_axis(s, all, 1, end[i], end[i + 1]) : NULL;
}

bool mica_vjp_segment_attention(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array **in = node->in;
    mica_array *all = mica_segment_attention_grad(s, in[0], in[1], in[2], in[3], g, &node->params);
    split_heads(s, all, in[0]->shape[1], in[1]->shape[1], grads);
    return all != NULL;
}

// ---- sdpa ----
bool mica_sdpa_is_segments(const mica_array *node) {
    const mica_array *q = node->in[0], *k = node->in[1];
    return !node->in[3] && q->dtype != MICA_F64 && q->shape[2] == k->shape[2] && q->shape[0] * q->shape[2] <= INT32_MAX;
}

// a [B,H,T,Dh] -> [B*T,H,Dh], and back.
static mica_array *to_rows(mica_scope *s, mica_array *a) {
    const int64_t *n = a->shape;
    return mica_reshape(s, mica_swap_axes(s, a, 1, 2), MICA_SHAPE(n[0] * n[2], n[1], n[3]));
}
static mica_array *from_rows(mica_scope *s, mica_array *a, const mica_array *like) {
    const int64_t *n = like->shape;
    a = a ? mica_reshape(s, a, MICA_SHAPE(n[0], n[2], n[1], n[3])) : NULL;
    return a ? mica_swap_axes(s, a, 1, 2) : NULL;
}

bool mica_vjp_sdpa_segments(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    mica_array *const *in = node->in;
    int64_t B = in[0]->shape[0], T = in[0]->shape[2];
    mica_params p = {0};
    p.segments.scale = node->params.sdpa.scale, p.segments.causal = node->params.sdpa.causal, p.segments.window = node->params.sdpa.window;
    p.segments.longest = (int32_t)T;
    mica_array *lengths = mica_full(s, 1, &B, (double)T, MICA_I32), *parts[3];
    mica_array *all = mica_segment_attention_grad(s, to_rows(s, in[0]), to_rows(s, in[1]), to_rows(s, in[2]), lengths, to_rows(s, g), &p);
    split_heads(s, all, in[0]->shape[1], in[1]->shape[1], parts);
    for (int i = 0; i < 3; i++)
        if (!(grads[i] = from_rows(s, parts[i], in[i]))) return false;
    return true;
}

// ---- second derivatives ----
// bool [N,N]: rows of the same segment; rows of none see nothing.
static mica_array *same_segment(mica_scope *s, mica_array *lengths, int64_t N) {
    mica_array *row = mica_expand_dims(s, mica_arange(s, 0, (double)N, 1, MICA_I32), 1);
    mica_array *end = mica_expand_dims(s, mica_cumsum(s, lengths, 0), 0); // [1,S]
    mica_array *number = mica_sum(s, mica_astype(s, mica_less_equal(s, end, row), MICA_I32), (int[]){1}, 1, true); // [N,1]
    if (!number) return NULL;
    mica_array *inside = mica_less(s, number, mica_constant(s, (double)lengths->shape[0], number->dtype));
    return mica_logical_and(s, inside, mica_equal(s, number, mica_transpose(s, number, NULL)));
}

static mica_array *as_heads(mica_scope *s, mica_array *a) { return mica_swap_axes(s, mica_expand_dims(s, a, 0), 1, 2); } // [1,H,N,Dh]

// The same attention as one op with a mask, whose gradient is a graph.
static mica_array *masked(mica_scope *s, mica_array *const *in, const mica_params *p) {
    mica_sdpa_options o = {.scale = p->segments.scale, .causal = p->segments.causal != 0, .window = p->segments.window};
    mica_array *mask = same_segment(s, in[3], in[0]->shape[0]);
    mica_array *y = mask ? mica_sdpa(s, as_heads(s, in[0]), as_heads(s, in[1]), as_heads(s, in[2]), mask, &o) : NULL;
    return mica_squeeze(s, mica_swap_axes(s, y, 1, 2), 0);
}

// The gradients of q, k and v side by side, as the op gives them.
static mica_array *grad_graph(mica_scope *s, const mica_array *node, mica_array *const *in) {
    mica_array *y = masked(s, in, &node->params), *g = in[4], *parts[3];
    return y && mica_vjp(s, &y, &g, 1, in, 3, parts) ? mica_concatenate(s, parts, 3, 1) : NULL;
}

bool mica_vjp_segment_attention_grad(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    return mica_vjp_by_graph(s, node, g, grads, grad_graph);
}
