// SPDX-License-Identifier: Apache-2.0
// Ops that move elements about (views are in view.c): concatenate, slice_update, tril and triu; stack, split, pad and repeat
// are graphs of them.
#include "engine/rules.h"
#include <string.h>

// ---- shape rules ------------------------------------------------------------------------------------------
// Along params.axis.axis.
bool mica_infer_concatenate(mica_scope *s, mica_array *node) {
    int axis = node->params.axis.axis;
    mica_like(node, node->in[0]);
    if (axis < 0 || axis >= node->ndim) return mica_op_fail(s, node, "axis %d is out of range", axis);
    for (int i = 1; i < node->n_in; i++) {
        const mica_array *a = node->in[i];
        if (a->dtype != node->dtype) return mica_op_fail(s, node, "dtypes differ; mica_astype converts");
        bool fits = a->ndim == node->ndim;
        for (int d = 0; fits && d < a->ndim; d++) fits = d == axis || a->shape[d] == node->shape[d];
        if (!fits) return mica_op_fail(s, node, "shapes differ beside axis %d", axis);
        node->shape[axis] += a->shape[axis];
    }
    return true;
}

// Positions start + i * step of params.slice must lie in the array.
bool mica_infer_slice_update(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0], *update = node->in[1];
    if (a->dtype != update->dtype) return mica_op_fail(s, node, "dtypes differ; mica_astype converts");
    if (a->ndim != update->ndim) return mica_op_fail(s, node, "numbers of dimensions differ");
    for (int i = 0; i < a->ndim; i++) {
        int64_t first = node->params.slice.start[i], last = first + (update->shape[i] - 1) * node->params.slice.step[i];
        if (update->shape[i] && (first < 0 || last < 0 || first >= a->shape[i] || last >= a->shape[i]))
            return mica_op_fail(s, node, "the update reaches outside axis %d", i);
    }
    mica_like(node, a);
    return true;
}

static bool infer_triangle(mica_scope *s, mica_array *node) {
    mica_like(node, node->in[0]);
    return node->ndim >= 2 || mica_op_fail(s, node, "wants two dimensions or more");
}
bool mica_infer_tril(mica_scope *s, mica_array *node) { return infer_triangle(s, node); }
bool mica_infer_triu(mica_scope *s, mica_array *node) { return infer_triangle(s, node); }

// ---- public functions -------------------------------------------------------------------------------------
static mica_array *triangle(mica_scope *s, mica_op op, mica_array *a, int k) {
    mica_params p = {0};
    p.axis.flags = k;
    return mica_record(s, op, &a, 1, 0, &p);
}
mica_array *mica_tril(mica_scope *s, mica_array *a, int k) { return triangle(s, MICA_OP_tril, a, k); }
mica_array *mica_triu(mica_scope *s, mica_array *a, int k) { return triangle(s, MICA_OP_triu, a, k); }

mica_array *mica_slice_update(mica_scope *s, mica_array *a, mica_array *update, const int64_t *start, const int64_t *step) {
    mica_array *in[] = {a, update};
    if (!mica_inputs(s, MICA_OP_slice_update, in, 2, 0)) return NULL;
    mica_params p = {0};
    for (int i = 0; i < in[0]->ndim; i++) {
        int64_t size = in[0]->shape[i], from = start[i] < 0 ? start[i] + size : start[i], by = step ? step[i] : 1;
        if (by == 0 || by > INT32_MAX || by < -INT32_MAX || from < 0 || from > size || size > INT32_MAX)
            return mica_inputs_fail(s, MICA_OP_slice_update, in, 2, "start %lld or step %lld of axis %d is invalid", (long long)start[i],
                                    (long long)by, i);
        p.slice.start[i] = (int32_t)from;
        p.slice.step[i] = (int32_t)by;
    }
    return mica_record(s, MICA_OP_slice_update, in, 2, 0, &p);
}

enum { MOST_INPUTS = 8 }; // of one concatenate

// A node takes MOST_INPUTS arrays; longer lists are joined group by group, then the groups.
static mica_array *join(mica_scope *s, mica_array *const *arrays, size_t count, const mica_params *p) {
    if (count <= MOST_INPUTS) return mica_record(s, MICA_OP_concatenate, arrays, (int)count, 0, p);
    size_t groups = (count + MOST_INPUTS - 1) / MOST_INPUTS;
    mica_array **joined = mica_scope_alloc(s, groups * sizeof(mica_array *));
    for (size_t i = 0; joined && i < groups; i++) {
        size_t first = i * MOST_INPUTS;
        joined[i] = join(s, arrays + first, MICA_MIN(count - first, (size_t)MOST_INPUTS), p);
        if (!joined[i]) return NULL;
    }
    return joined ? join(s, joined, groups, p) : NULL;
}

mica_array *mica_concatenate(mica_scope *s, mica_array *const *arrays, size_t count, int axis) {
    if (mica_scope_failed(s)) return NULL;
    if (!count) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "concatenate", "no arrays");
    mica_array *first = arrays[0];
    if (!mica_inputs(s, MICA_OP_concatenate, &first, 1, 0)) return NULL;
    int at = mica_axis(s, "concatenate", first, axis);
    if (at < 0) return NULL;
    if (count == 1) return first;
    mica_params p = {0};
    p.axis.axis = at;
    return join(s, arrays, count, &p);
}

mica_array *mica_stack(mica_scope *s, mica_array *const *arrays, size_t count, int axis) {
    if (mica_scope_failed(s)) return NULL;
    if (!count) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "stack", "no arrays");
    if (!arrays[0]) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "stack", "input 0 is NULL");
    int at = axis < 0 ? axis + arrays[0]->ndim + 1 : axis;
    mica_array **raised = mica_scope_alloc(s, count * sizeof(mica_array *));
    for (size_t i = 0; raised && i < count; i++)
        if (!(raised[i] = mica_expand_dims(s, arrays[i], at))) return NULL;
    return raised ? mica_concatenate(s, raised, count, at) : NULL;
}

bool mica_split(mica_scope *s, mica_array *a, int parts, int axis, mica_array **out) {
    if (!mica_inputs(s, MICA_OP_slice, &a, 1, 0)) return false;
    int at = mica_axis(s, "split", a, axis);
    if (at < 0) return false;
    if (parts < 1 || a->shape[at] % parts)
        return mica_scope_fail(s, MICA_ERR_ARGUMENT, "split", "%lld elements into %d equal parts", (long long)a->shape[at], parts);
    int64_t size = a->shape[at] / parts;
    for (int i = 0; i < parts; i++)
        if (!(out[i] = mica_slice_axis(s, a, at, i * size, (i + 1) * size))) return false;
    return true;
}

mica_array *mica_pad(mica_scope *s, mica_array *a, const int64_t *before, const int64_t *after, double value) {
    if (!mica_inputs(s, MICA_OP_slice_update, &a, 1, 0)) return NULL;
    int64_t shape[MICA_MAX_DIMS];
    for (int i = 0; i < a->ndim; i++) {
        if (before[i] < 0 || after[i] < 0 || before[i] > INT32_MAX || after[i] > INT32_MAX)
            return mica_scope_fail(s, MICA_ERR_ARGUMENT, "pad", "axis %d by %lld and %lld", i, (long long)before[i], (long long)after[i]);
        shape[i] = before[i] + a->shape[i] + after[i];
    }
    return mica_slice_update(s, mica_full(s, a->ndim, shape, value, a->dtype), a, before, NULL);
}

mica_array *mica_repeat(mica_scope *s, mica_array *a, int n, int axis) {
    if (!mica_inputs(s, MICA_OP_broadcast, &a, 1, 0)) return NULL;
    int at = mica_axis(s, "repeat", a, axis);
    if (at < 0) return NULL;
    if (n < 0 || a->ndim == MICA_MAX_DIMS) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "repeat", "%d times, %d dimensions", n, a->ndim);
    int64_t wide[MICA_MAX_DIMS], shape[MICA_MAX_DIMS];
    for (int i = 0; i < a->ndim; i++) wide[i + (i > at)] = a->shape[i], shape[i] = a->shape[i];
    wide[at + 1] = n;
    if (__builtin_mul_overflow(shape[at], (int64_t)n, &shape[at])) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "repeat", "%d times", n);
    mica_array *x = mica_expand_dims(s, a, at + 1);
    return mica_reshape(s, mica_broadcast_to(s, x, a->ndim + 1, wide), a->ndim, shape);
}
