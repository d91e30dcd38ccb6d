// SPDX-License-Identifier: Apache-2.0
// What the files of ops share: the prototypes of all shape and gradient rules (made from the op table), checks of
// arguments, and small graph pieces that several gradient rules are built from.
#ifndef MICA_ENGINE_RULES_H
#define MICA_ENGINE_RULES_H

#include "engine/scope.h"
#include "mica/fast.h"
#include "mica/ops.h"

#define MICA_OP(name, flags, gradient) \
    bool mica_infer_##name(mica_scope *s, mica_array *node); \
    bool mica_vjp_##name(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads);
#include "engine/op.def"
#undef MICA_OP

// ---- checks ---------------------------------------------------------------------------------------------
static inline bool mica_is_integer(mica_dtype d) { return d >= MICA_U8; }
bool mica_same_shape(const mica_array *a, const mica_array *b);

/** Imports the inputs of a public function in place. False if the scope has failed or fails now: one is NULL that may
 * not be (bit i of `optional`), or belongs to another scope. */
bool mica_inputs(mica_scope *s, mica_op op, mica_array **in, int n, unsigned optional);
/** Fails with the shapes of arrays that have not become a node: "<op>: <message>: [2,3] x [4,5]". Returns NULL. */
mica_array *mica_inputs_fail(mica_scope *s, mica_op op, mica_array *const *in, int n, const char *fmt, ...) MICA_PRINTF(5, 6);
/** Widens shape[*ndim] so that `a` broadcasts to it; false if they do not agree. */
bool mica_broadcast_shape(int *ndim, int64_t *shape, const mica_array *a);

// ---- pieces of graphs -------------------------------------------------------------------------------------
/** 0-d constant of a dtype. */
mica_array *mica_constant(mica_scope *s, double value, mica_dtype dtype);
/** `value` in the shape and dtype of a (a broadcast view, no memory). */
mica_array *mica_full_like(mica_scope *s, const mica_array *a, double value);
/** a with `axis` (0…ndim-1) moved to the end, the others in order; and back. */
mica_array *mica_axis_to_end(mica_scope *s, mica_array *a, int axis);
mica_array *mica_axis_from_end(mica_scope *s, mica_array *a, int axis);
/** a [..., D] with rows indices added: out[..., indices[..., i]] += values[..., i], last axis. */
mica_array *mica_scatter_add_along_axis(mica_scope *s, mica_array *a, mica_array *indices, mica_array *values);

// ---- pieces of gradients ------------------------------------------------------------------------------------
/** f16 and bf16 as f32, others as they are: gradients round once, at the end. */
mica_array *mica_widen(mica_scope *s, mica_array *a);
/** A type of activations and of what quantised weights meet; f64 exists for plain arithmetic. */
static inline bool mica_is_short(mica_dtype d) { return mica_dtype_is_float(d) && d != MICA_F64; }
/** a in the dtype of `like`. */
mica_array *mica_narrow(mica_scope *s, mica_array *a, const mica_array *like);
/** The gradient of a fused op, taken through the graph that it computes: `graph` records that from stand-ins for the node's inputs. */
typedef mica_array *mica_graph_of(mica_scope *s, const mica_array *node, mica_array *const *in);
bool mica_vjp_by_graph(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads, mica_graph_of *graph);
/** exp(a - lse) with lse one dimension short; rows of -inf give 0, not NaN. */
mica_array *mica_exp_minus_lse(mica_scope *s, mica_array *a, mica_array *lse);
/** Whether a node of sdpa is attention by segments of its batch, without a mask, and the gradients of q, k and v then (vjp_segments.c). */
bool mica_sdpa_is_segments(const mica_array *node);
bool mica_vjp_sdpa_segments(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads);
/** g, whose trailing dimensions were reduced away, repeated to the shape of a. */
mica_array *mica_spread(mica_scope *s, mica_array *g, const mica_array *a);
/** Dimensions as one run of [rows, last]. */
mica_array *mica_as_rows(mica_scope *s, mica_array *a);
/** bool like indices: which lie in an axis of `size` (negative ones of signed types count from the end). */
mica_array *mica_valid_indices(mica_scope *s, mica_array *indices, int64_t size);
#endif
