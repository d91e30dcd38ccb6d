// SPDX-License-Identifier: Apache-2.0
// Reductions and ops along one axis. The ops themselves work on trailing dimensions: the public functions bring the wanted
// axes there by views and put the result back the same way.
#include "engine/rules.h"
#include <string.h>

// ---- shape rules ------------------------------------------------------------------------------------------
// Drops the last params.reduce.axes dimensions.
static bool infer_reduce(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0];
    if (a->dtype == MICA_BOOL) return mica_op_fail(s, node, "wants numbers, not bool; mica_astype converts");
    if (node->params.reduce.axes > (uint32_t)a->ndim) return mica_op_fail(s, node, "has fewer dimensions than axes to reduce");
    mica_like(node, a);
    node->ndim -= (int)node->params.reduce.axes;
    return true;
}

// What has no value without elements: an empty run that a non-empty result asks for.
static bool check_filled(mica_scope *s, const mica_array *node, int from) {
    for (int i = from; i < node->in[0]->ndim; i++)
        if (node->in[0]->shape[i] == 0 && mica_node_size(node) > 0) return mica_op_fail(s, node, "of no elements");
    return true;
}

bool mica_infer_sum(mica_scope *s, mica_array *node) { return infer_reduce(s, node); }
bool mica_infer_max(mica_scope *s, mica_array *node) { return infer_reduce(s, node) && check_filled(s, node, node->ndim); }
bool mica_infer_min(mica_scope *s, mica_array *node) { return infer_reduce(s, node) && check_filled(s, node, node->ndim); }

static bool check_floats(mica_scope *s, const mica_array *node) {
    mica_dtype d = node->in[0]->dtype;
    return mica_dtype_is_float(d) || mica_op_fail(s, node, "wants floats, not %s; mica_astype converts", mica_dtype_name(d));
}

bool mica_infer_mean(mica_scope *s, mica_array *node) { return check_floats(s, node) && infer_reduce(s, node); }

static bool check_axis(mica_scope *s, const mica_array *node) {
    if (node->in[0]->dtype == MICA_BOOL) return mica_op_fail(s, node, "wants numbers, not bool; mica_astype converts");
    return node->in[0]->ndim > 0 || mica_op_fail(s, node, "a scalar has no axis");
}

bool mica_infer_logsumexp(mica_scope *s, mica_array *node) {
    if (!check_axis(s, node) || !check_floats(s, node)) return false;
    mica_like(node, node->in[0]);
    node->ndim--;
    return true;
}

bool mica_infer_argmax(mica_scope *s, mica_array *node) {
    if (!check_axis(s, node) || !check_floats(s, node)) return false;
    mica_like(node, node->in[0]);
    node->ndim--;
    node->dtype = MICA_U32;
    return check_filled(s, node, node->ndim);
}

bool mica_infer_softmax(mica_scope *s, mica_array *node) {
    mica_like(node, node->in[0]);
    return check_axis(s, node) && check_floats(s, node);
}

static bool infer_along(mica_scope *s, mica_array *node, bool indices) {
    mica_like(node, node->in[0]);
    if (indices) node->dtype = MICA_U32;
    return check_axis(s, node);
}

bool mica_infer_cumsum(mica_scope *s, mica_array *node) { return infer_along(s, node, false); }
bool mica_infer_sort(mica_scope *s, mica_array *node) { return infer_along(s, node, false); }
bool mica_infer_argsort(mica_scope *s, mica_array *node) { return infer_along(s, node, true); }

// params.axis.flags = k.
bool mica_infer_argpartition(mica_scope *s, mica_array *node) {
    int32_t k = node->params.axis.flags;
    if (!infer_along(s, node, true)) return false;
    if (k < 0 || k > node->shape[node->ndim - 1]) return mica_op_fail(s, node, "k = %d is out of range", (int)k);
    return true;
}

// ---- reductions over several axes ---------------------------------------------------------------------------
// The axes as a bit set; false after failing the scope.
static bool axis_set(mica_scope *s, mica_op op, mica_array *a, const int *axes, int count, unsigned *set) {
    const char *name = mica_op_table[op].name;
    *set = count ? 0 : (1u << a->ndim) - 1;
    for (int i = 0; i < count; i++) {
        int axis = mica_axis(s, name, a, axes[i]);
        if (axis < 0) return false;
        if (*set >> axis & 1) return mica_scope_fail(s, MICA_ERR_ARGUMENT, name, "axis %d appears twice", axis);
        *set |= 1u << axis;
    }
    return true;
}

static mica_array *reduce(mica_scope *s, mica_op op, mica_array *a, const int *axes, int count, bool keepdims) {
    unsigned set;
    if (!mica_inputs(s, op, &a, 1, 0) || !axis_set(s, op, a, axes, count, &set)) return NULL;
    int order[MICA_MAX_DIMS], kept = 0, reduced = 0;
    int64_t shape[MICA_MAX_DIMS];
    bool moved = false;
    for (int i = 0; i < a->ndim; i++) {
        if (set >> i & 1) reduced++;
        else moved |= reduced > 0, order[kept++] = i;
        shape[i] = set >> i & 1 ? 1 : a->shape[i];
    }
    for (int i = 0, j = kept; i < a->ndim; i++)
        if (set >> i & 1) order[j++] = i;
    mica_array *x = moved ? mica_transpose(s, a, order) : a;
    mica_params p = {0};
    p.reduce.axes = (uint32_t)reduced;
    x = mica_record(s, op, &x, 1, 0, &p);
    return x && keepdims && reduced ? mica_reshape(s, x, a->ndim, shape) : x;
}

#define PUBLIC_REDUCE(name) \
    mica_array *mica_##name(mica_scope *s, mica_array *a, const int *axes, int count, bool keepdims) { \
        return reduce(s, MICA_OP_##name, a, axes, count, keepdims); \
    }
PUBLIC_REDUCE(sum)
PUBLIC_REDUCE(mean)
PUBLIC_REDUCE(max)
PUBLIC_REDUCE(min)

// ---- along one axis -------------------------------------------------------------------------------------------
// Drops the axis, or leaves it with size 1.
static mica_array *reduce_axis(mica_scope *s, mica_op op, mica_array *a, int axis, bool keepdims) {
    if (!mica_inputs(s, op, &a, 1, 0)) return NULL;
    int at = mica_axis(s, mica_op_table[op].name, a, axis);
    if (at < 0) return NULL;
    a = mica_axis_to_end(s, a, at);
    a = mica_record(s, op, &a, 1, 0, NULL);
    return a && keepdims ? mica_expand_dims(s, a, at) : a;
}

static mica_array *along_axis(mica_scope *s, mica_op op, mica_array *a, int axis, const mica_params *p) {
    if (!mica_inputs(s, op, &a, 1, 0)) return NULL;
    int at = mica_axis(s, mica_op_table[op].name, a, axis);
    if (at < 0) return NULL;
    a = mica_axis_to_end(s, a, at);
    a = mica_record(s, op, &a, 1, 0, p);
    return mica_axis_from_end(s, a, at);
}

mica_array *mica_logsumexp(mica_scope *s, mica_array *a, int axis, bool keepdims) {
    return reduce_axis(s, MICA_OP_logsumexp, a, axis, keepdims);
}
mica_array *mica_argmax(mica_scope *s, mica_array *a, int axis, bool keepdims) {
    return reduce_axis(s, MICA_OP_argmax, a, axis, keepdims);
}
mica_array *mica_softmax(mica_scope *s, mica_array *a, int axis) { return along_axis(s, MICA_OP_softmax, a, axis, NULL); }
mica_array *mica_cumsum(mica_scope *s, mica_array *a, int axis) { return along_axis(s, MICA_OP_cumsum, a, axis, NULL); }
mica_array *mica_sort(mica_scope *s, mica_array *a, int axis) { return along_axis(s, MICA_OP_sort, a, axis, NULL); }
mica_array *mica_argsort(mica_scope *s, mica_array *a, int axis) { return along_axis(s, MICA_OP_argsort, a, axis, NULL); }

mica_array *mica_argpartition(mica_scope *s, mica_array *a, int k, int axis) {
    mica_params p = {0};
    p.axis.flags = k;
    return along_axis(s, MICA_OP_argpartition, a, axis, &p);
}

// The tail of the sorted axis, read backwards.
mica_array *mica_topk(mica_scope *s, mica_array *a, int k, int axis) {
    if (!mica_inputs(s, MICA_OP_sort, &a, 1, 0)) return NULL;
    int at = mica_axis(s, "topk", a, axis);
    if (at < 0) return NULL;
    int64_t n = a->shape[at];
    if (k < 0 || k > n) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "topk", "k = %d of %lld elements", k, (long long)n);
    mica_array *sorted = mica_sort(s, a, at);
    if (!sorted) return NULL;
    int64_t start[MICA_MAX_DIMS] = {0}, stop[MICA_MAX_DIMS], step[MICA_MAX_DIMS];
    for (int i = 0; i < a->ndim; i++) stop[i] = a->shape[i], step[i] = 1;
    start[at] = n - 1, stop[at] = n - 1 - k, step[at] = -1;
    if (stop[at] < 0) stop[at] = -n - 1; // to the front, the first element included
    return mica_slice(s, sorted, start, stop, step);
}
