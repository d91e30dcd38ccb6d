// SPDX-License-Identifier: Apache-2.0
// A node of the lazy graph, and how ops record one. Layout (shape, strides, offset) is known when a node is recorded:
// computed nodes are row-major, views point into the memory of their `base`, leaves carry a buffer.
#ifndef MICA_ENGINE_NODE_H
#define MICA_ENGINE_NODE_H

#include "device/low_rank.h"
#include "mica/array.h"
#include "mica/quant.h"

typedef enum mica_op {
#define MICA_OP(name, flags, gradient) MICA_OP_##name,
#include "engine/op.def"
#undef MICA_OP
    MICA_OP_COUNT
} mica_op;

enum { MICA_FLAG_NONE = 0, MICA_FLAG_ELEMENTWISE = 1, MICA_FLAG_VIEW = 2, MICA_FLAG_IN_PLACE = 4, MICA_FLAG_LEAF = 8 };

struct mica_array {
    mica_scope *scope;  // NULL: kept
    mica_op op;
    mica_dtype dtype;
    int ndim, n_in;
    uint32_t id;        // position in the scope's record
    int64_t shape[MICA_MAX_DIMS];
    int64_t stride[MICA_MAX_DIMS]; // elements
    int64_t offset;     // elements from the first of base's memory
    mica_array **in;    // [n_in]; an optional input may be NULL
    mica_array *base;   // whose memory this reads; itself unless a view or in-place result
    mica_params params;
    mica_buffer *buffer; // of a leaf or an evaluated node (base == itself only)
    uint64_t hash;       // of op, parameters and layout, inputs' layout included; not of data
    const char *name;
    // scratch of the passes
    uint32_t mark;       // plan: the collection that last met this node
    int32_t slot;        // plan: its number in that collection
    bool needs_grad;     // gradient: depends on an array that a gradient is wanted for; set before a rule is called
    struct mica_region *region; // gradient: the checkpoint that this is an output of (grad.c)
};

typedef bool mica_infer_fn(mica_scope *s, mica_array *node);
/** Sets grads[i] (NULL = no gradient) for the inputs i with mica_needs_grad(node, i), from the cotangent g of node. Built from
 * public ops, so that gradients can be differentiated again. */
typedef bool mica_vjp_fn(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads);

typedef struct mica_op_info {
    const char *name;
    unsigned flags;
    mica_infer_fn *infer; // NULL for leaf and views (view.c sets their layout)
    mica_vjp_fn *vjp;     // NULL: no gradient flows
} mica_op_info;
extern const mica_op_info mica_op_table[MICA_OP_COUNT];

/** Records a node: imports the inputs into the scope, calls the op's shape rule (which sets dtype, ndim, shape), makes the result
 * row-major. in[i] may be NULL only where bit i of `optional` is set. params NULL = all zero. NULL if the scope has failed or fails now. */
mica_array *mica_record(mica_scope *s, mica_op op, mica_array *const *in, int n, unsigned optional, const mica_params *params);
/** Records a view of `a` with the given layout (offset counted from a's base memory). */
mica_array *mica_record_view(mica_scope *s, mica_op op, mica_array *a, int ndim, const int64_t *shape, const int64_t *stride,
                             int64_t offset, const mica_params *params);
/** Fails the scope: "<op>: <message>: [2,3] x [4,5] (names)". Returns false. */
bool mica_op_fail(mica_scope *s, const mica_array *node, const char *fmt, ...) MICA_PRINTF(3, 4);
/** Fails the scope before a node exists: "<op>: <message>". Returns NULL. The first failure stays. */
mica_array *mica_scope_fail(mica_scope *s, mica_code code, const char *op, const char *fmt, ...) MICA_PRINTF(4, 5);
bool mica_scope_failed(const mica_scope *s);
/** Dies with the scope (or at its reset). NULL fails the scope. */
void *mica_scope_alloc(mica_scope *s, size_t size);
mica_device *mica_scope_device(const mica_scope *s);

/** Result takes shape and dtype of a (for shape rules). */
void mica_like(mica_array *node, const mica_array *a);
static inline int64_t mica_node_size(const mica_array *a) {
    int64_t n = 1;
    for (int i = 0; i < a->ndim; i++) n *= a->shape[i];
    return n;
}
/** Row-major without gaps (dimensions of size 1 may have any stride). */
bool mica_node_contiguous(const mica_array *a);
/** Axis as 0…ndim-1, or -1 after failing the scope. */
int mica_axis(mica_scope *s, const char *op, const mica_array *a, int axis);
static inline bool mica_needs_grad(const mica_array *node, int i) { return node->in[i] && node->in[i]->needs_grad; }

// Ops that only models use (not public).
/** x [..., in] times a packed weight (bytes u8 [n] from the device's pack) -> [..., out] of dtype. */
mica_array *mica_linear_packed(mica_scope *s, mica_array *x, mica_array *packed, const mica_params *params, mica_dtype dtype);
/** Its way back: g [..., out] times the weight -> [..., in] of dtype. */
mica_array *mica_linear_packed_back(mica_scope *s, mica_array *g, mica_array *packed, const mica_params *params, mica_dtype dtype);
/** As mica_linear_packed for a weight of gates and ups (mica_gate): act(gate) * up [..., out / 2], in x's dtype. */
mica_array *mica_linear_gated(mica_scope *s, mica_array *x, mica_array *packed, const mica_params *params, mica_gate gate);
/** x [M, K] times w [K, N], and x times a quantised w [N, K], with the sums in f32 given out as they are: for logits. */
mica_array *mica_matmul_wide(mica_scope *s, mica_array *x, mica_array *w);
/** x [..., K] times w [K, N] in f32, each of any float type but f64; the result of dtype. */
mica_array *mica_matmul_as(mica_scope *s, mica_array *x, mica_array *w, mica_dtype dtype);
mica_array *mica_quantized_matmul_wide(mica_scope *s, mica_array *x, mica_array *w, mica_array *scales, mica_array *biases,
                                       mica_quant_spec spec);
/** mica_rope_apply, or back: by the negative angles. */
mica_array *mica_rope_turn(mica_scope *s, mica_array *x, mica_array *table, bool traditional, bool back);
/** Gradients in one pass over their inputs; the rules of rms_norm, swiglu and geglu make them. Of rms_norm(x, w, eps) by x, for its cotangent g.
 * w NULL = 1. */
mica_array *mica_rms_norm_grad(mica_scope *s, mica_array *x, mica_array *g, mica_array *w, float eps);
/** Of act(gate) * up by gate and by up, for the cotangent g: [2, ...]. */
mica_array *mica_gated_grad(mica_scope *s, mica_array *gate, mica_array *up, mica_array *g, mica_gate kind);
/** Of weight · cross entropy by logits f32 [R, V], with their logsumexp f32 [R], targets i32 [R] and weights f32 [R]: [R, V] of dtype. Targets
 * must lie in [0, V). Has no derivative. */
mica_array *mica_cross_entropy_grad(mica_scope *s, mica_array *logits, mica_array *lse, mica_array *target, mica_array *weight, mica_dtype dtype);
/** The sum of the squares of all elements, f32: the bits of their sum, without an array of squares. */
mica_array *mica_sum_squares(mica_scope *s, mica_array *a);
/** A step of Adam: p, written, and with it m and v, all f32 and evaluated; g f32 of their shape; numbers f32 [MICA_ADAM_NUMBERS]. With g scaled:
 * m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g²; p = keep p - rate m / (root sqrt(v) + eps), each operation rounded. */
mica_array *mica_adam_step(mica_scope *s, mica_array *p, mica_array *g, mica_array *m, mica_array *v, mica_array *numbers);
/** What low-rank adapters add to a product. y f32 [N, outs] of x [N, in], choice i32 [N]: which of the `count` sets each row takes; any other number: none.
 * A row gives (y + scale·b·a·x) · magnitude of its set, without one y, through the gate if there is one, in params' dtype. sets: u8, of params' forms; NULL
 * where that has no rank. */
mica_array *mica_low_rank(mica_scope *s, mica_array *x, mica_array *y, mica_array *choice, mica_array *const *sets, size_t count, const mica_params *params);
/** Rows of a packed weight, dequantised: ids [...] -> [..., in] of dtype. */
mica_array *mica_take_packed(mica_scope *s, mica_array *packed, mica_array *ids, const mica_params *params, mica_dtype dtype);
/** Attention inside the segments of packed rows: q [N,H,Dh], k and v [N,Hkv,Dh], f32, f16 or bf16, any strides; lengths i32 [S], none more than
 * `longest`, together at most N -> [N,H,Dh]. Only a causal one may have a window > 0. */
mica_array *mica_segment_attention(mica_scope *s, mica_array *q, mica_array *k, mica_array *v, mica_array *lengths, int64_t longest, float scale,
                                   bool causal, int window);
/** The gradients of q, k and v by the gradient g of that result, side by side: [N,H+2Hkv,Dh]. params: of that node. */
mica_array *mica_segment_attention_grad(mica_scope *s, mica_array *q, mica_array *k, mica_array *v, mica_array *lengths, mica_array *g,
                                        const mica_params *params);
/** pool [pages, L, Hkv, 2, P, Dh], k and v [N, Hkv, Dh], meta i32 [B, 4], table i32 [B, max_pages] (meaning: device/cpu/paged.h):
 * the pool, written. */
mica_array *mica_kv_append(mica_scope *s, mica_array *pool, mica_array *k, mica_array *v, mica_array *meta, mica_array *table, int layer);
/** q [N, H, Dh] over the pool that mica_kv_append returned -> [N, H, Dh]. An i8 pool: [pages, L, Hkv, 2, P, Dh + 4]. */
mica_array *mica_paged_attention(mica_scope *s, mica_array *q, mica_array *pool, mica_array *meta, mica_array *table, int layer,
                                 float scale, int window);
/** Both in one, after Q/K norms (f32 [Dh]; NULL = none) and rotation by a table f32 [1, N, dims] (NULL = none). No two of these may
 * write to the same layer of a pool between two evaluations: nothing but the result says that the pool was written. */
typedef struct mica_cache_inputs {
    mica_array *q, *k, *v; // [N, H, Dh], [N, Hkv, Dh] twice, any strides
    mica_array *pool, *meta, *table, *rope, *q_norm, *k_norm;
} mica_cache_inputs;
mica_array *mica_cache_attention(mica_scope *s, const mica_cache_inputs *in, int layer, float scale, int window, float eps);
#endif
