// SPDX-License-Identifier: Apache-2.0
// Gather and scatter. take and scatter_add work on axis 0, the *_along_axis ops on the last; the public functions move the
// wanted axis there by views. Indices that are out of range are data, so they are no error here: kernels give NaN or 0
// for them and never write.
#include "engine/rules.h"
#include <string.h>

// ---- shape rules ------------------------------------------------------------------------------------------
static bool check_indices(mica_scope *s, const mica_array *node) {
    mica_dtype d = node->in[1]->dtype;
    return mica_is_integer(d) || mica_op_fail(s, node, "indices must be integers, not %s", mica_dtype_name(d));
}

// The shape indices + a[1:] in the dtype of a.
static bool rows_shape(mica_scope *s, mica_array *node, int64_t *shape, int *ndim) {
    const mica_array *a = node->in[0], *indices = node->in[1];
    if (!check_indices(s, node)) return false;
    if (a->ndim < 1) return mica_op_fail(s, node, "a scalar has no rows");
    *ndim = indices->ndim + a->ndim - 1;
    if (*ndim > MICA_MAX_DIMS) return mica_op_fail(s, node, "the result would have %d dimensions", *ndim);
    for (int i = 0; i < *ndim; i++) shape[i] = i < indices->ndim ? indices->shape[i] : a->shape[i - indices->ndim + 1];
    return true;
}

bool mica_infer_take(mica_scope *s, mica_array *node) {
    node->dtype = node->in[0]->dtype;
    return rows_shape(s, node, node->shape, &node->ndim);
}

bool mica_infer_scatter_add(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0], *values = node->in[2];
    mica_array want = {.dtype = a->dtype};
    if (!rows_shape(s, node, want.shape, &want.ndim)) return false;
    if (values->dtype != a->dtype) return mica_op_fail(s, node, "dtypes differ; mica_astype converts");
    if (a->dtype == MICA_BOOL) return mica_op_fail(s, node, "wants numbers, not bool");
    if (!mica_same_shape(values, &want)) return mica_op_fail(s, node, "values must have the shape of indices + a[1:]");
    mica_like(node, a);
    return true;
}

// a and indices differ in the last dimension only.
static bool check_along(mica_scope *s, const mica_array *node) {
    const mica_array *a = node->in[0], *indices = node->in[1];
    if (!check_indices(s, node)) return false;
    bool fits = a->ndim > 0 && a->ndim == indices->ndim;
    for (int i = 0; fits && i < a->ndim - 1; i++) fits = a->shape[i] == indices->shape[i];
    return fits || mica_op_fail(s, node, "indices must have the shape of the array beside the axis");
}

bool mica_infer_take_along_axis(mica_scope *s, mica_array *node) {
    mica_like(node, node->in[1]);
    node->dtype = node->in[0]->dtype;
    return check_along(s, node);
}

static bool infer_along_values(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0], *values = node->in[2];
    if (!check_along(s, node)) return false;
    if (values->dtype != a->dtype) return mica_op_fail(s, node, "dtypes differ; mica_astype converts");
    if (!mica_same_shape(values, node->in[1])) return mica_op_fail(s, node, "values must have the shape of indices");
    mica_like(node, a);
    return true;
}

bool mica_infer_put_along_axis(mica_scope *s, mica_array *node) { return infer_along_values(s, node); }
bool mica_infer_scatter_add_along_axis(mica_scope *s, mica_array *node) {
    if (node->in[0]->dtype == MICA_BOOL) return mica_op_fail(s, node, "wants numbers, not bool");
    return infer_along_values(s, node);
}

// ---- rows ---------------------------------------------------------------------------------------------------
// The indices' dimensions of x [indices…, before…, after…] go behind `axis` others.
static mica_array *rows_to_axis(mica_scope *s, mica_array *x, int indices, int axis) {
    int axes[MICA_MAX_DIMS];
    if (!x || axis == 0 || indices == 0) return x;
    for (int i = 0; i < x->ndim; i++) axes[i] = i < axis ? indices + i : i < axis + indices ? i - axis : i;
    return mica_transpose(s, x, axes);
}

mica_array *mica_take(mica_scope *s, mica_array *a, mica_array *indices, int axis) {
    mica_array *in[] = {a, indices};
    if (!mica_inputs(s, MICA_OP_take, in, 2, 0)) return NULL;
    int at = mica_axis(s, "take", in[0], axis);
    if (at < 0) return NULL;
    int axes[MICA_MAX_DIMS];
    for (int i = 0; i < in[0]->ndim; i++) axes[i] = i == 0 ? at : i <= at ? i - 1 : i;
    if (at) in[0] = mica_transpose(s, in[0], axes);
    return rows_to_axis(s, mica_record(s, MICA_OP_take, in, 2, 0, NULL), in[1]->ndim, at);
}

mica_array *mica_scatter_add(mica_scope *s, mica_array *a, mica_array *indices, mica_array *values) {
    return mica_record(s, MICA_OP_scatter_add, (mica_array *[]){a, indices, values}, 3, 0, NULL);
}

// ---- along an axis ------------------------------------------------------------------------------------------------
static bool broadcasts_to(const mica_array *a, int ndim, const int64_t *shape) {
    bool ok = a->ndim <= ndim;
    for (int i = 0; ok && i < a->ndim; i++) ok = a->shape[i] == 1 || a->shape[i] == shape[ndim - a->ndim + i];
    return ok;
}

// Brings the axis of all inputs to the end and broadcasts the other dimensions: of a and indices to each other (only indices
// when values are given: the result has the shape of a), of values to the indices.
static mica_array *along_axis(mica_scope *s, mica_op op, mica_array **in, int n, int axis) {
    const char *name = mica_op_table[op].name;
    if (!mica_inputs(s, op, in, n, 0)) return NULL;
    int at = mica_axis(s, name, in[0], axis), ndim = in[0]->ndim;
    if (at < 0) return NULL;
    if (in[1]->ndim != ndim) return mica_inputs_fail(s, op, in, n, "numbers of dimensions differ");
    int64_t wide[MICA_MAX_DIMS], shape[MICA_MAX_DIMS];
    for (int i = 0; i < ndim; i++) {
        int64_t size = in[0]->shape[i], count = in[1]->shape[i];
        bool fits = i == at || size == count || count == 1 || (n == 2 && size == 1);
        if (!fits) return mica_inputs_fail(s, op, in, n, "shapes do not broadcast beside axis %d", at);
        int64_t common = size == 1 && n == 2 ? count : size;
        wide[i] = i == at ? size : common;
        shape[i] = i == at ? count : common;
    }
    if (n == 3 && !broadcasts_to(in[2], ndim, shape)) return mica_inputs_fail(s, op, in, n, "values do not broadcast to indices");
    in[0] = mica_broadcast_to(s, in[0], ndim, wide);
    for (int i = 1; i < n; i++) in[i] = mica_broadcast_to(s, in[i], ndim, shape);
    for (int i = 0; i < n; i++)
        if (!(in[i] = mica_axis_to_end(s, in[i], at))) return NULL;
    return mica_axis_from_end(s, mica_record(s, op, in, n, 0, NULL), at);
}

mica_array *mica_take_along_axis(mica_scope *s, mica_array *a, mica_array *indices, int axis) {
    return along_axis(s, MICA_OP_take_along_axis, (mica_array *[]){a, indices}, 2, axis);
}

mica_array *mica_put_along_axis(mica_scope *s, mica_array *a, mica_array *indices, mica_array *values, int axis) {
    return along_axis(s, MICA_OP_put_along_axis, (mica_array *[]){a, indices, values}, 3, axis);
}

mica_array *mica_scatter_add_along_axis(mica_scope *s, mica_array *a, mica_array *indices, mica_array *values) {
    return along_axis(s, MICA_OP_scatter_add_along_axis, (mica_array *[]){a, indices, values}, 3, -1);
}
