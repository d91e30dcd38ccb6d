// SPDX-License-Identifier: Apache-2.0
// The ops that language models spend their time in: norms, rotary embedding, attention, cache pages; and the losses, which
// are graphs. Shape rules first, then the public functions, which bring MLX's layouts into the ops'.
#include "engine/rules.h"
#include <math.h>
#include <string.h>

// ---- norms ----------------------------------------------------------------------------------------------------
static bool check_norm(mica_scope *s, mica_array *node) {
    const mica_array *x = node->in[0];
    if (!mica_dtype_is_float(x->dtype) || x->ndim < 1) return mica_op_fail(s, node, "x must be floats [..., D]");
    for (int i = 1; i < node->n_in; i++) {
        const mica_array *w = node->in[i];
        if (w && (!mica_dtype_is_float(w->dtype) || w->ndim != 1 || w->shape[0] != x->shape[x->ndim - 1]))
            return mica_op_fail(s, node, "weights must be floats [%lld]", (long long)x->shape[x->ndim - 1]);
    }
    mica_like(node, x);
    return true;
}
bool mica_infer_rms_norm(mica_scope *s, mica_array *node) { return check_norm(s, node); }
bool mica_infer_layer_norm(mica_scope *s, mica_array *node) { return check_norm(s, node); }

mica_array *mica_rms_norm(mica_scope *s, mica_array *x, mica_array *w, float eps) {
    mica_params p = {0};
    p.norm.eps = eps;
    return mica_record(s, MICA_OP_rms_norm, (mica_array *[]){x, w}, 2, 2, &p);
}

mica_array *mica_layer_norm(mica_scope *s, mica_array *x, mica_array *w, mica_array *b, float eps) {
    mica_params p = {0};
    p.norm.eps = eps;
    return mica_record(s, MICA_OP_layer_norm, (mica_array *[]){x, w, b}, 3, 6, &p);
}

// ---- gradients as ops -----------------------------------------------------------------------------------------
bool mica_infer_rms_norm_grad(mica_scope *s, mica_array *node) {
    const mica_array *x = node->in[0], *g = node->in[1], *w = node->in[2];
    if (!mica_dtype_is_float(x->dtype) || x->ndim < 1 || g->dtype != x->dtype || !mica_same_shape(g, x))
        return mica_op_fail(s, node, "x and g must be floats [..., D]");
    if (w && (!mica_dtype_is_float(w->dtype) || w->ndim != 1 || w->shape[0] != x->shape[x->ndim - 1]))
        return mica_op_fail(s, node, "weights must be floats [%lld]", (long long)x->shape[x->ndim - 1]);
    mica_like(node, x);
    return true;
}

mica_array *mica_rms_norm_grad(mica_scope *s, mica_array *x, mica_array *g, mica_array *w, float eps) {
    mica_params p = {0};
    p.norm.eps = eps;
    return mica_record(s, MICA_OP_rms_norm_grad, (mica_array *[]){x, g, w}, 3, 4, &p);
}

bool mica_infer_gated_grad(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0], *b = node->in[1], *g = node->in[2];
    if (!mica_dtype_is_float(a->dtype) || b->dtype != a->dtype || g->dtype != a->dtype || !mica_same_shape(a, b) || !mica_same_shape(a, g) ||
        a->ndim == MICA_MAX_DIMS)
        return mica_op_fail(s, node, "gate, up and g must be floats of one shape and dtype");
    int32_t gate = node->params.gated.gate;
    if (gate != MICA_GATE_SWIGLU && gate != MICA_GATE_GEGLU) return mica_op_fail(s, node, "no gate is number %d", (int)gate);
    node->dtype = a->dtype, node->ndim = a->ndim + 1, node->shape[0] = 2;
    memcpy(node->shape + 1, a->shape, (size_t)a->ndim * sizeof a->shape[0]);
    return true;
}

mica_array *mica_gated_grad(mica_scope *s, mica_array *gate, mica_array *up, mica_array *g, mica_gate kind) {
    mica_array *in[] = {gate, up, g};
    if (!mica_inputs(s, MICA_OP_gated_grad, in, 3, 0)) return NULL;
    for (int i = 0; i < 3; i++) in[i] = mica_contiguous(s, in[i]);
    mica_params p = {0};
    p.gated.gate = (int32_t)kind;
    return mica_record(s, MICA_OP_gated_grad, in, 3, 0, &p);
}

bool mica_infer_cross_entropy_grad(mica_scope *s, mica_array *node) {
    const mica_array *x = node->in[0], *lse = node->in[1], *target = node->in[2], *weight = node->in[3];
    mica_dtype dtype = (mica_dtype)node->params.packed.dtype;
    bool rows = lse->ndim == 1 && target->ndim == 1 && weight->ndim == 1 && x->ndim == 2 && lse->shape[0] == x->shape[0] &&
                target->shape[0] == x->shape[0] && weight->shape[0] == x->shape[0];
    if (!rows || x->dtype != MICA_F32 || lse->dtype != MICA_F32 || target->dtype != MICA_I32 || weight->dtype != MICA_F32)
        return mica_op_fail(s, node, "wants logits f32 [R,V], f32 [R], targets i32 [R] and weights f32 [R]");
    if (!mica_is_short(dtype)) return mica_op_fail(s, node, "makes f32, f16 or bf16");
    mica_like(node, x);
    node->dtype = dtype;
    return true;
}

mica_array *mica_cross_entropy_grad(mica_scope *s, mica_array *logits, mica_array *lse, mica_array *target, mica_array *weight, mica_dtype dtype) {
    mica_params p = {0};
    p.packed.dtype = (int32_t)dtype;
    mica_array *in[] = {logits, lse, target, weight};
    if (!mica_inputs(s, MICA_OP_cross_entropy_grad, in, 4, 0)) return NULL;
    in[0] = mica_contiguous(s, in[0]);
    return mica_record(s, MICA_OP_cross_entropy_grad, in, 4, 0, &p);
}

// ---- rotary embedding -------------------------------------------------------------------------------------------
bool mica_infer_rope_table(mica_scope *s, mica_array *node) {
    const mica_array *positions = node->in[0], *freq = node->in[1];
    if (positions->dtype != MICA_I32 || positions->ndim == MICA_MAX_DIMS) return mica_op_fail(s, node, "positions must be i32");
    if (freq->dtype != MICA_F32 || freq->ndim != 1) return mica_op_fail(s, node, "inv_freq must be f32 [dims/2]");
    mica_like(node, positions);
    node->dtype = MICA_F32;
    node->shape[node->ndim++] = 2 * freq->shape[0];
    return true;
}

bool mica_infer_rope(mica_scope *s, mica_array *node) {
    const mica_array *x = node->in[0], *table = node->in[1];
    if (!mica_dtype_is_float(x->dtype) || x->ndim != 4) return mica_op_fail(s, node, "x must be floats [B,T,H,Dh]");
    if (table->dtype != MICA_F32 || table->ndim != 3 || table->shape[1] != x->shape[1] ||
        (table->shape[0] != x->shape[0] && table->shape[0] != 1))
        return mica_op_fail(s, node, "the table must be f32 [B or 1,T,dims]");
    if (table->shape[2] % 2 || table->shape[2] > x->shape[3])
        return mica_op_fail(s, node, "%lld dimensions cannot be rotated", (long long)table->shape[2]);
    mica_like(node, x);
    return true;
}

mica_array *mica_rope_table(mica_scope *s, mica_array *positions, mica_array *inv_freq, float scale) {
    mica_params p = {0};
    p.rope.scale = scale;
    return mica_record(s, MICA_OP_rope_table, (mica_array *[]){positions, inv_freq}, 2, 0, &p);
}

mica_array *mica_rope_turn(mica_scope *s, mica_array *x, mica_array *table, bool traditional, bool back) {
    mica_array *in[] = {x, table};
    if (!mica_inputs(s, MICA_OP_rope, in, 2, 0)) return NULL;
    mica_params p = {0};
    p.rope.dims = in[1]->ndim ? (int32_t)in[1]->shape[in[1]->ndim - 1] : 0;
    p.rope.traditional = traditional, p.rope.back = back;
    in[1] = mica_contiguous(s, in[1]);
    return mica_record(s, MICA_OP_rope, in, 2, 0, &p);
}

mica_array *mica_rope_apply(mica_scope *s, mica_array *x, mica_array *table, bool traditional) {
    return mica_rope_turn(s, x, table, traditional, false);
}

// scale / freqs, or scale * base^(-2i/dims): f32 [dims/2].
static mica_array *inverse_frequencies(mica_scope *s, mica_array *freqs, int dims, double base, float scale) {
    if (freqs) return mica_mul_scalar(s, mica_reciprocal(s, freqs), (double)scale);
    float *inverse = mica_scope_alloc(s, ((size_t)dims / 2 + 1) * sizeof *inverse);
    for (int i = 0; inverse && i < dims / 2; i++) inverse[i] = (float)(pow(base, -2.0 * i / dims) * (double)scale);
    return inverse ? mica_from_data(s, inverse, MICA_SHAPE(dims / 2), MICA_F32) : NULL;
}

// offset[b] + t: i32 [B or 1, T].
static mica_array *row_positions(mica_scope *s, mica_array *offset, int64_t T) {
    mica_array *t = mica_reshape(s, mica_arange(s, 0, (double)T, 1, MICA_I32), MICA_SHAPE(1, T));
    if (!offset) return t;
    return mica_add(s, mica_reshape(s, mica_astype(s, offset, MICA_I32), MICA_SHAPE(-1, 1)), t);
}

mica_array *mica_rope(mica_scope *s, mica_array *x, mica_array *offset, mica_array *freqs, const mica_rope_options *options) {
    mica_rope_options o = options ? *options : (mica_rope_options){0};
    mica_array *in[] = {x, offset, freqs};
    if (!mica_inputs(s, MICA_OP_rope, in, 3, 6)) return NULL;
    x = in[0], offset = in[1], freqs = in[2];
    if (!mica_dtype_is_float(x->dtype) || x->ndim != 4) return mica_inputs_fail(s, MICA_OP_rope, in, 3, "x must be floats [B,H,T,Dh]");
    int64_t dims = o.dims ? o.dims : x->shape[3];
    if (dims < 2 || dims % 2 || dims > x->shape[3] || dims > INT32_MAX)
        return mica_inputs_fail(s, MICA_OP_rope, in, 3, "%lld dimensions cannot be rotated", (long long)dims);
    if (freqs && (freqs->dtype != MICA_F32 || freqs->ndim != 1 || freqs->shape[0] != dims / 2))
        return mica_inputs_fail(s, MICA_OP_rope, in, 3, "freqs must be f32 [dims/2]");
    if (offset && (!mica_is_integer(offset->dtype) || offset->ndim > 1 || (mica_node_size(offset) != 1 && offset->shape[0] != x->shape[0])))
        return mica_inputs_fail(s, MICA_OP_rope, in, 3, "offset must be integers [B] or [1]");
    double base = o.base != 0.0f ? (double)o.base : 10000.0;
    mica_array *inverse = inverse_frequencies(s, freqs, (int)dims, base, o.scale != 0.0f ? o.scale : 1.0f);
    mica_array *table = mica_rope_table(s, row_positions(s, offset, x->shape[2]), inverse, 1.0f);
    x = mica_rope_apply(s, mica_swap_axes(s, x, 1, 2), table, o.traditional);
    return x ? mica_swap_axes(s, x, 1, 2) : NULL;
}

// ---- attention ----------------------------------------------------------------------------------------------------
bool mica_infer_sdpa(mica_scope *s, mica_array *node) {
    const mica_array *q = node->in[0], *k = node->in[1], *v = node->in[2], *mask = node->in[3];
    if (!mica_dtype_is_float(q->dtype) || k->dtype != q->dtype || v->dtype != q->dtype)
        return mica_op_fail(s, node, "q, k and v must be floats of one dtype");
    if (q->ndim != 4 || k->ndim != 4 || !mica_same_shape(k, v)) return mica_op_fail(s, node, "wants q [B,H,Tq,Dh], k and v [B,Hkv,Tk,Dh]");
    if (q->shape[0] != k->shape[0] || q->shape[3] != k->shape[3]) return mica_op_fail(s, node, "batch or head dimensions differ");
    if (k->shape[1] ? q->shape[1] % k->shape[1] : q->shape[1])
        return mica_op_fail(s, node, "%lld heads do not share %lld key/value heads", (long long)q->shape[1], (long long)k->shape[1]);
    if (node->params.sdpa.window < 0 || (node->params.sdpa.window && !node->params.sdpa.causal))
        return mica_op_fail(s, node, "a window must be positive and causal");
    if (mask && mask->dtype != MICA_BOOL && !mica_dtype_is_float(mask->dtype)) return mica_op_fail(s, node, "the mask must be bool or floats");
    mica_like(node, q);
    mica_array scores = *q;
    scores.shape[3] = k->shape[2];
    return !mask || mica_same_shape(mask, &scores) || mica_op_fail(s, node, "the mask must be [B,H,Tq,Tk]");
}

mica_array *mica_sdpa(mica_scope *s, mica_array *q, mica_array *k, mica_array *v, mica_array *mask, const mica_sdpa_options *options) {
    mica_sdpa_options o = options ? *options : (mica_sdpa_options){0};
    mica_array *in[] = {q, k, v, mask};
    if (!mica_inputs(s, MICA_OP_sdpa, in, 4, 8)) return NULL;
    q = in[0], k = in[1], mask = in[3];
    if (mask && q->ndim == 4 && k->ndim == 4) {
        int64_t shape[4] = {q->shape[0], q->shape[1], q->shape[2], k->shape[2]}, wide[MICA_MAX_DIMS];
        int ndim = 4;
        memcpy(wide, shape, sizeof shape);
        if (!mica_broadcast_shape(&ndim, wide, mask) || ndim != 4 || memcmp(wide, shape, sizeof shape))
            return mica_inputs_fail(s, MICA_OP_sdpa, in, 4, "the mask does not broadcast to [B,H,Tq,Tk]");
        in[3] = mica_broadcast_to(s, mask, 4, shape);
    }
    mica_params p = {0};
    int64_t Dh = q->ndim ? q->shape[q->ndim - 1] : 1;
    p.sdpa.scale = o.scale != 0.0f ? o.scale : (float)(1.0 / sqrt((double)MICA_MAX(Dh, (int64_t)1)));
    p.sdpa.causal = o.causal;
    p.sdpa.window = o.window;
    return mica_record(s, MICA_OP_sdpa, in, 4, 8, &p);
}

// ---- attention by segments ---
// The kernels want a head's elements side by side.
static bool has_whole_heads(const mica_array *a) { return a->ndim < 1 || a->shape[a->ndim - 1] <= 1 || a->stride[a->ndim - 1] == 1; }

bool mica_infer_segment_attention(mica_scope *s, mica_array *node) {
    const mica_array *q = node->in[0], *k = node->in[1], *v = node->in[2], *lengths = node->in[3];
    if (!mica_is_short(q->dtype) || k->dtype != q->dtype || v->dtype != q->dtype)
        return mica_op_fail(s, node, "q, k and v must be f32, f16 or bf16, all the same");
    if (q->ndim != 3 || k->ndim != 3 || !mica_same_shape(k, v) || q->shape[0] != k->shape[0] || q->shape[2] != k->shape[2])
        return mica_op_fail(s, node, "wants q [N,H,Dh], k and v [N,Hkv,Dh]");
    if (k->shape[1] ? q->shape[1] % k->shape[1] : q->shape[1])
        return mica_op_fail(s, node, "%lld heads do not share %lld key/value heads", (long long)q->shape[1], (long long)k->shape[1]);
    if (!has_whole_heads(q) || !has_whole_heads(k) || !has_whole_heads(v)) return mica_op_fail(s, node, "the elements of a head must be neighbours");
    if (lengths->dtype != MICA_I32 || lengths->ndim != 1) return mica_op_fail(s, node, "lengths must be i32 [S]");
    if (node->params.segments.longest < 0) return mica_op_fail(s, node, "the longest segment is negative");
    if (node->params.segments.window < 0 || (node->params.segments.window && !node->params.segments.causal))
        return mica_op_fail(s, node, "a window must be positive and causal");
    mica_like(node, q);
    return true;
}

bool mica_infer_segment_attention_grad(mica_scope *s, mica_array *node) {
    const mica_array *q = node->in[0], *g = node->in[4];
    if (!mica_infer_segment_attention(s, node)) return false;
    if (g->dtype != q->dtype || !mica_same_shape(g, q) || !has_whole_heads(g)) return mica_op_fail(s, node, "the gradient must be like q");
    node->shape[1] += 2 * node->in[1]->shape[1];
    return true;
}

static mica_array *whole_heads(mica_scope *s, mica_array *a) { return has_whole_heads(a) ? a : mica_contiguous(s, a); }

mica_array *mica_segment_attention(mica_scope *s, mica_array *q, mica_array *k, mica_array *v, mica_array *lengths, int64_t longest, float scale,
                                   bool causal, int window) {
    mica_array *in[] = {q, k, v, lengths};
    if (!mica_inputs(s, MICA_OP_segment_attention, in, 4, 0)) return NULL;
    mica_params p = {0};
    p.segments.scale = scale, p.segments.causal = causal, p.segments.window = window, p.segments.longest = 64;
    while (p.segments.longest < longest && p.segments.longest < 1 << 30) p.segments.longest *= 2; // few values: each has plans of its own
    for (int i = 0; i < 3; i++) in[i] = whole_heads(s, in[i]);
    return mica_record(s, MICA_OP_segment_attention, in, 4, 0, &p);
}

mica_array *mica_segment_attention_grad(mica_scope *s, mica_array *q, mica_array *k, mica_array *v, mica_array *lengths, mica_array *g,
                                        const mica_params *params) {
    mica_array *in[] = {q, k, v, lengths, g};
    if (!mica_inputs(s, MICA_OP_segment_attention_grad, in, 5, 0)) return NULL;
    for (int i = 0; i < 5; i++) in[i] = whole_heads(s, in[i]);
    return mica_record(s, MICA_OP_segment_attention_grad, in, 5, 0, params);
}

// ---- cache pages ------------------------------------------------------------------------------------------------------
static int64_t head_size(const mica_array *pool) { return pool->shape[5] - (pool->dtype == MICA_I8 ? 4 : 0); }

// The pool, meta and table inputs of the cache ops.
static bool check_pages(mica_scope *s, const mica_array *node, const mica_array *pool, const mica_array *meta, const mica_array *table) {
    bool codes = pool->dtype == MICA_I8;
    if ((!codes && !mica_is_short(pool->dtype)) || pool->ndim != 6 || pool->shape[3] != 2 || pool->shape[4] < 1)
        return mica_op_fail(s, node, "the pool must be f32, f16 or bf16 [pages,L,Hkv,2,P,Dh]");
    if (codes && (head_size(pool) < 0 || pool->shape[4] * head_size(pool) % 4))
        return mica_op_fail(s, node, "an i8 pool must be [pages,L,Hkv,2,P,Dh+4], P*Dh a multiple of 4");
    if (node->params.paged.layer < 0 || node->params.paged.layer >= pool->shape[1])
        return mica_op_fail(s, node, "layer %d is not in the pool", (int)node->params.paged.layer);
    if (meta->dtype != MICA_I32 || meta->ndim != 2 || meta->shape[1] != 4) return mica_op_fail(s, node, "meta must be i32 [B,4]");
    if (table->dtype != MICA_I32 || table->ndim != 2 || table->shape[0] != meta->shape[0])
        return mica_op_fail(s, node, "the table must be i32 [B,max_pages]");
    return true;
}

// Memory that lasts, which an op may write into: of a leaf or an evaluated array, as it is or as other appends left it.
static bool lasts(const mica_array *pool) {
    while (!pool->base->buffer && pool->op == MICA_OP_kv_append) pool = pool->in[0];
    return pool->base->buffer && mica_node_contiguous(pool);
}

static bool check_append(mica_scope *s, const mica_array *node, const mica_array *pool, const mica_array *k, const mica_array *v) {
    bool fits = mica_is_short(k->dtype) && k->dtype == v->dtype && k->ndim == 3 && mica_same_shape(k, v) && k->shape[1] == pool->shape[2] &&
                k->shape[2] == head_size(pool);
    if (!fits) return mica_op_fail(s, node, "k and v must be f32, f16 or bf16 [N,%lld,%lld]", (long long)pool->shape[2], (long long)head_size(pool));
    return lasts(pool) || mica_op_fail(s, node, "the pool must be evaluated and contiguous");
}

bool mica_infer_kv_append(mica_scope *s, mica_array *node) {
    const mica_array *pool = node->in[0];
    if (!check_pages(s, node, pool, node->in[3], node->in[4])) return false;
    mica_like(node, pool);
    return check_append(s, node, pool, node->in[1], node->in[2]);
}

bool mica_infer_paged_attention(mica_scope *s, mica_array *node) {
    const mica_array *q = node->in[0], *pool = node->in[1];
    if (!check_pages(s, node, pool, node->in[2], node->in[3])) return false;
    bool typed = pool->dtype == MICA_I8 ? mica_is_short(q->dtype) : q->dtype == pool->dtype;
    if (!typed || q->ndim != 3 || q->shape[2] != head_size(pool) || pool->shape[2] < 1 || q->shape[1] % pool->shape[2])
        return mica_op_fail(s, node, "q must be [N,H,Dh] in the pool's dtype, H a multiple of Hkv");
    if (node->params.paged.window < 0) return mica_op_fail(s, node, "the window is negative");
    mica_like(node, q);
    return true;
}

mica_array *mica_kv_append(mica_scope *s, mica_array *pool, mica_array *k, mica_array *v, mica_array *meta, mica_array *table, int layer) {
    mica_array *in[] = {pool, k, v, meta, table};
    if (!mica_inputs(s, MICA_OP_kv_append, in, 5, 0)) return NULL;
    mica_params p = {0};
    p.paged.layer = layer;
    in[3] = mica_contiguous(s, in[3]);
    return mica_record(s, MICA_OP_kv_append, in, 5, 0, &p);
}

mica_array *mica_paged_attention(mica_scope *s, mica_array *q, mica_array *pool, mica_array *meta, mica_array *table, int layer, float scale,
                                 int window) {
    mica_array *in[] = {q, pool, meta, table};
    if (!mica_inputs(s, MICA_OP_paged_attention, in, 4, 0)) return NULL;
    mica_params p = {0};
    p.paged.scale = scale, p.paged.layer = layer, p.paged.window = window;
    in[2] = mica_contiguous(s, in[2]);
    return mica_record(s, MICA_OP_paged_attention, in, 4, 0, &p);
}

static bool is_norm(const mica_array *w, int64_t Dh) {
    return !w || (w->dtype == MICA_F32 && w->ndim == 1 && w->shape[0] == Dh && mica_node_contiguous(w));
}

bool mica_infer_cache_attention(mica_scope *s, mica_array *node) {
    const mica_array *q = node->in[0], *k = node->in[4], *rope = node->in[6];
    if (!mica_infer_paged_attention(s, node)) return false;
    if (k->dtype != q->dtype || k->ndim < 1 || k->shape[0] != q->shape[0]) return mica_op_fail(s, node, "q, k and v must be of one dtype and N");
    if (rope && (rope->dtype != MICA_F32 || rope->ndim != 3 || rope->shape[0] != 1 || rope->shape[1] != q->shape[0] || rope->shape[2] % 2 ||
                 rope->shape[2] > q->shape[2]))
        return mica_op_fail(s, node, "the table must be f32 [1,N,dims]");
    if (!is_norm(node->in[7], q->shape[2]) || !is_norm(node->in[8], q->shape[2])) return mica_op_fail(s, node, "norms must be f32 [Dh]");
    return check_append(s, node, node->in[1], k, node->in[5]);
}

mica_array *mica_cache_attention(mica_scope *s, const mica_cache_inputs *x, int layer, float scale, int window, float eps) {
    mica_array *in[] = {x->q, x->pool, x->meta, x->table, x->k, x->v, x->rope, x->q_norm, x->k_norm};
    if (!mica_inputs(s, MICA_OP_cache_attention, in, 9, 0x1C0)) return NULL;
    mica_params p = {0};
    p.paged.scale = scale, p.paged.layer = layer, p.paged.window = window, p.paged.eps = eps;
    in[2] = mica_contiguous(s, in[2]);
    if (in[6]) in[6] = mica_contiguous(s, in[6]);
    return mica_record(s, MICA_OP_cache_attention, in, 9, 0x1C0, &p);
}

// ---- losses -------------------------------------------------------------------------------------------------------------
// -log softmax(logits)[target] of each row, in f32 or wider.
static mica_array *row_losses(mica_scope *s, mica_array *logits, mica_array *targets) {
    mica_array *in[] = {logits, targets};
    if (!mica_inputs(s, MICA_OP_logsumexp, in, 2, 0)) return NULL;
    mica_array rows = *in[0];
    rows.ndim--;
    if (!mica_dtype_is_float(in[0]->dtype) || rows.ndim < 0 || !mica_is_integer(in[1]->dtype) || !mica_same_shape(&rows, in[1]))
        return mica_inputs_fail(s, MICA_OP_logsumexp, in, 2, "cross entropy wants float logits [..., V] and integer targets [...]");
    logits = mica_widen(s, in[0]);
    mica_array *chosen = mica_squeeze(s, mica_take_along_axis(s, logits, mica_expand_dims(s, in[1], -1), -1), -1);
    return mica_sub(s, mica_logsumexp(s, logits, -1, false), chosen);
}

mica_array *mica_cross_entropy(mica_scope *s, mica_array *logits, mica_array *targets) {
    return mica_mean(s, row_losses(s, logits, targets), NULL, 0, false);
}

mica_array *mica_masked_cross_entropy(mica_scope *s, mica_array *logits, mica_array *targets, mica_array *mask) {
    mica_array *losses = row_losses(s, logits, targets);
    if (!losses || !mica_inputs(s, MICA_OP_mul, &mask, 1, 0)) return NULL;
    if (!mica_same_shape(mask, losses)) return mica_inputs_fail(s, MICA_OP_mul, (mica_array *[]){losses, mask}, 2, "the mask must be like targets");
    mask = mica_astype(s, mask, losses->dtype);
    mica_array *total = mica_sum(s, mica_mul(s, losses, mask), NULL, 0, false);
    return mica_div(s, total, mica_sum(s, mask, NULL, 0, false));
}

mica_array *mica_mse_loss(mica_scope *s, mica_array *prediction, mica_array *target) {
    return mica_mean(s, mica_square(s, mica_sub(s, prediction, target)), NULL, 0, false);
}
