// SPDX-License-Identifier: Apache-2.0
// Array operations. All record a node in the scope of their inputs and return NULL after an error (see array.h).
// Elementwise ops broadcast as NumPy does and want equal dtypes: nothing is upcast silently, mica_astype says it.
// Axes may be negative. Views (reshape of contiguous data, transpose, slice, broadcast, …) cost nothing.
#ifndef MICA_OPS_H
#define MICA_OPS_H

#include "mica/array.h"
#include "mica/quant.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- elementwise, one input (floats; neg, square, abs also integers) --------------------------------------
#define MICA_UNARY_OPS(X) \
    X(neg) X(exp) X(log) X(sigmoid) X(silu) X(tanh) X(gelu) X(gelu_tanh) X(relu) X(sqrt) X(rsqrt) X(reciprocal) X(square) \
    X(abs) X(sin) X(cos) X(erf)
// ---- elementwise, two inputs of one dtype (numbers; div and power floats) ---------------------------------------
// Integers wrap around. A NaN on either side makes maximum and minimum NaN.
#define MICA_BINARY_OPS(X) X(add) X(sub) X(mul) X(div) X(power) X(maximum) X(minimum)
// ---- comparisons and logic: result bool ----------------------------------------------------------------------
#define MICA_COMPARE_OPS(X) X(equal) X(not_equal) X(less) X(less_equal) X(greater) X(greater_equal) X(logical_and) X(logical_or) // logical: bool

#define MICA_DECLARE_UNARY(name) MICA_API mica_array *mica_##name(mica_scope *s, mica_array *a);
#define MICA_DECLARE_BINARY(name) MICA_API mica_array *mica_##name(mica_scope *s, mica_array *a, mica_array *b);
MICA_UNARY_OPS(MICA_DECLARE_UNARY)
MICA_BINARY_OPS(MICA_DECLARE_BINARY)
MICA_COMPARE_OPS(MICA_DECLARE_BINARY)
MICA_API mica_array *mica_logical_not(mica_scope *s, mica_array *a);
/** With a scalar of a's dtype. */
MICA_API mica_array *mica_add_scalar(mica_scope *s, mica_array *a, double b);
MICA_API mica_array *mica_mul_scalar(mica_scope *s, mica_array *a, double b);
MICA_API mica_array *mica_clip(mica_scope *s, mica_array *a, double low, double high);
/** condition ? a : b, broadcast; condition is bool. */
MICA_API mica_array *mica_where(mica_scope *s, mica_array *condition, mica_array *a, mica_array *b);
MICA_API mica_array *mica_astype(mica_scope *s, mica_array *a, mica_dtype dtype);
/** The array itself, gradient cut. */
MICA_API mica_array *mica_stop_gradient(mica_scope *s, mica_array *a);

// ---- matrix products -------------------------------------------------------------------------------------
/** [..., M, K] x [..., K, N] -> [..., M, N]; leading dimensions broadcast; 1-d inputs as in NumPy. Accumulates in f32 (f64 for f64). */
MICA_API mica_array *mica_matmul(mica_scope *s, mica_array *a, mica_array *b);
/** x times a quantised matrix. w u32: transpose ? [N, K*bits/32] (x Wᵀ) : [K, N*bits/32] (x W); scales, biases as MLX has them (biases
 * NULL for the mx modes). */
MICA_API mica_array *mica_quantized_matmul(mica_scope *s, mica_array *x, mica_array *w, mica_array *scales, mica_array *biases,
                                           bool transpose, mica_quant_spec spec);
/** w [..., K] -> w u32, scales, biases (NULL for mx modes), bit-equal to MLX. biases may be NULL. */
MICA_API bool mica_quantize(mica_scope *s, mica_array *a, mica_quant_spec spec, mica_array **w, mica_array **scales, mica_array **biases);
MICA_API mica_array *mica_dequantize(mica_scope *s, mica_array *w, mica_array *scales, mica_array *biases, mica_quant_spec spec,
                                     mica_dtype dtype);

// ---- reductions -------------------------------------------------------------------------------------------
/** Over `count` axes (0 = all). */
MICA_API mica_array *mica_sum(mica_scope *s, mica_array *a, const int *axes, int count, bool keepdims);
MICA_API mica_array *mica_mean(mica_scope *s, mica_array *a, const int *axes, int count, bool keepdims);
MICA_API mica_array *mica_max(mica_scope *s, mica_array *a, const int *axes, int count, bool keepdims);
MICA_API mica_array *mica_min(mica_scope *s, mica_array *a, const int *axes, int count, bool keepdims);
MICA_API mica_array *mica_logsumexp(mica_scope *s, mica_array *a, int axis, bool keepdims);
MICA_API mica_array *mica_softmax(mica_scope *s, mica_array *a, int axis);
/** Index of the largest along the axis, u32; the lowest index wins ties; a NaN counts as largest. */
MICA_API mica_array *mica_argmax(mica_scope *s, mica_array *a, int axis, bool keepdims);
MICA_API mica_array *mica_cumsum(mica_scope *s, mica_array *a, int axis);
/** Ascending, stable; NaN last. */
MICA_API mica_array *mica_sort(mica_scope *s, mica_array *a, int axis);
MICA_API mica_array *mica_argsort(mica_scope *s, mica_array *a, int axis);
/** Indices (u32) such that the k smallest come first, in any order. */
MICA_API mica_array *mica_argpartition(mica_scope *s, mica_array *a, int k, int axis);
/** The k largest, largest first. */
MICA_API mica_array *mica_topk(mica_scope *s, mica_array *a, int k, int axis);

// ---- shape ---------------------------------------------------------------------------------------------------
/** One dimension may be -1. */
MICA_API mica_array *mica_reshape(mica_scope *s, mica_array *a, int ndim, const int64_t *shape);
/** axes: a permutation of 0…ndim-1; NULL reverses. */
MICA_API mica_array *mica_transpose(mica_scope *s, mica_array *a, const int *axes);
MICA_API mica_array *mica_swap_axes(mica_scope *s, mica_array *a, int first, int second);
MICA_API mica_array *mica_expand_dims(mica_scope *s, mica_array *a, int axis);
MICA_API mica_array *mica_squeeze(mica_scope *s, mica_array *a, int axis);
MICA_API mica_array *mica_broadcast_to(mica_scope *s, mica_array *a, int ndim, const int64_t *shape);
/** A view on the elements of a contiguous array: strides and offset in elements, checked against its size. */
MICA_API mica_array *mica_as_strided(mica_scope *s, mica_array *a, int ndim, const int64_t *shape, const int64_t *strides, int64_t offset);
MICA_API mica_array *mica_contiguous(mica_scope *s, mica_array *a);
/** a[start:stop:step] per dimension as in Python (negative counts from the end, clamped); steps NULL = 1. */
MICA_API mica_array *mica_slice(mica_scope *s, mica_array *a, const int64_t *start, const int64_t *stop, const int64_t *step);
/** Along one axis only. */
MICA_API mica_array *mica_slice_axis(mica_scope *s, mica_array *a, int axis, int64_t start, int64_t stop);
/** a with a[start:start+shape(update)*step:step] replaced. */
MICA_API mica_array *mica_slice_update(mica_scope *s, mica_array *a, mica_array *update, const int64_t *start, const int64_t *step);
MICA_API mica_array *mica_concatenate(mica_scope *s, mica_array *const *arrays, size_t count, int axis);
MICA_API mica_array *mica_stack(mica_scope *s, mica_array *const *arrays, size_t count, int axis);
/** Equal parts into out[parts]. */
MICA_API bool mica_split(mica_scope *s, mica_array *a, int parts, int axis, mica_array **out);
/** before and after: elements added per dimension. */
MICA_API mica_array *mica_pad(mica_scope *s, mica_array *a, const int64_t *before, const int64_t *after, double value);
/** Each element n times in a row, as numpy.repeat. */
MICA_API mica_array *mica_repeat(mica_scope *s, mica_array *a, int n, int axis);
/** Lower or upper triangle of the last two dimensions; the rest is 0. k: diagonal. */
MICA_API mica_array *mica_tril(mica_scope *s, mica_array *a, int k);
MICA_API mica_array *mica_triu(mica_scope *s, mica_array *a, int k);

// ---- indexing (indices: any integer dtype) ---------------------------------------------------------------------
// Negative indices count from the end. One outside the axis reads as NaN (floats) or 0 and is not written.
/** Slices of a along axis: shape a[:axis] + indices + a[axis+1:]. */
MICA_API mica_array *mica_take(mica_scope *s, mica_array *a, mica_array *indices, int axis);
MICA_API mica_array *mica_take_along_axis(mica_scope *s, mica_array *a, mica_array *indices, int axis);
/** Of repeated indices the last wins. */
MICA_API mica_array *mica_put_along_axis(mica_scope *s, mica_array *a, mica_array *indices, mica_array *values, int axis);
/** a with values added at rows: out[indices[i]] += values[i]; values: indices' shape + a[1:]. Each sum is taken in the order of the
 * indices and rounded once. */
MICA_API mica_array *mica_scatter_add(mica_scope *s, mica_array *a, mica_array *indices, mica_array *values);

#ifdef __cplusplus
}
#endif
#endif
