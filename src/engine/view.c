// SPDX-License-Identifier: Apache-2.0
// Views: new layouts over the memory of another array. Their cost is a node; no kernel runs. A reshape that strides cannot
// express first records a contiguous copy.
#include "engine/scope.h"
#include "mica/ops.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(mica_op op) { return mica_op_table[op].name; }

// The array in this scope, or NULL if the scope has failed or fails now.
static mica_array *view_input(mica_scope *s, mica_op op, mica_array *a) {
    if (s->failed) return NULL;
    if (!a) return mica_scope_fail(s, MICA_ERR_ARGUMENT, name_of(op), "input 0 is NULL");
    return mica_scope_import(s, a);
}

static mica_array *view_fail(mica_scope *s, mica_op op, mica_array *a, const char *what, int ndim, const int64_t *shape) {
    char wanted[200] = "";
    size_t used = 0;
    for (int i = 0; i < ndim && used + 24 < sizeof wanted; i++)
        used += (size_t)snprintf(wanted + used, sizeof wanted - used, i ? ",%lld" : "%lld", (long long)shape[i]);
    mica_array probe = {.op = op, .n_in = 1, .in = &a};
    mica_op_fail(s, &probe, "%s [%s]", what, wanted);
    return NULL;
}

// ---- reshape ---------------------------------------------------------------------------------------------
// Fills in the -1; false if the sizes do not agree.
static bool resolve_shape(const mica_array *a, int ndim, const int64_t *wanted, int64_t *shape) {
    int64_t known = 1, size = mica_node_size(a);
    int free_axis = -1;
    if (ndim < 0 || ndim > MICA_MAX_DIMS) return false;
    for (int i = 0; i < ndim; i++) {
        shape[i] = wanted[i];
        if (wanted[i] == -1 && free_axis < 0) free_axis = i;
        else if (wanted[i] < 0 || __builtin_mul_overflow(known, wanted[i], &known)) return false;
    }
    if (free_axis < 0) return known == size;
    if (known == 0 || size % known) return false;
    shape[free_axis] = size / known;
    return true;
}

// Strides that show `a` under another shape, if its layout allows: each run of old dimensions that is dense in itself may be cut anew.
static bool reshape_strides(const mica_array *a, int ndim, const int64_t *shape, int64_t *stride) {
    int old = a->ndim - 1, new = ndim - 1;
    if (mica_node_size(a) == 0) {
        for (int i = ndim - 1, st = 1; i >= 0; i--) stride[i] = st;
        return true;
    }
    while (new >= 0) {
        while (old >= 0 && a->shape[old] == 1) old--;
        int64_t run = 1, want = 1, step = old >= 0 ? a->stride[old] : 1;
        do { // take dimensions of both sides until their products agree
            if (want <= run) {
                stride[new] = step * want;
                want *= shape[new--];
            }
            if (run < want) {
                if (old < 0 || a->stride[old] != step * run) return false;
                run *= a->shape[old--];
                while (old >= 0 && a->shape[old] == 1) old--;
            }
        } while (run != want);
    }
    return true;
}

mica_array *mica_reshape(mica_scope *s, mica_array *a, int ndim, const int64_t *wanted) {
    int64_t shape[MICA_MAX_DIMS], stride[MICA_MAX_DIMS];
    if (!(a = view_input(s, MICA_OP_reshape, a))) return NULL;
    if (!resolve_shape(a, ndim, wanted, shape)) return view_fail(s, MICA_OP_reshape, a, "cannot become", ndim, wanted);
    if (!reshape_strides(a, ndim, shape, stride)) {
        if (!(a = mica_contiguous(s, a))) return NULL;
        reshape_strides(a, ndim, shape, stride);
    }
    return mica_record_view(s, MICA_OP_reshape, a, ndim, shape, stride, a->offset, NULL);
}

mica_array *mica_expand_dims(mica_scope *s, mica_array *a, int axis) {
    int64_t shape[MICA_MAX_DIMS + 1];
    if (!(a = view_input(s, MICA_OP_reshape, a))) return NULL;
    int at = axis < 0 ? axis + a->ndim + 1 : axis;
    if (at < 0 || at > a->ndim || a->ndim == MICA_MAX_DIMS)
        return mica_scope_fail(s, MICA_ERR_ARGUMENT, "expand_dims", "axis %d is out of range for %d dimensions", axis, a->ndim);
    for (int i = 0, j = 0; i <= a->ndim; i++) shape[i] = i == at ? 1 : a->shape[j++];
    return mica_reshape(s, a, a->ndim + 1, shape);
}

mica_array *mica_squeeze(mica_scope *s, mica_array *a, int axis) {
    int64_t shape[MICA_MAX_DIMS];
    if (!(a = view_input(s, MICA_OP_reshape, a))) return NULL;
    int at = mica_axis(s, "squeeze", a, axis);
    if (at < 0) return NULL;
    if (a->shape[at] != 1)
        return mica_scope_fail(s, MICA_ERR_ARGUMENT, "squeeze", "axis %d has size %lld, not 1", axis, (long long)a->shape[at]);
    for (int i = 0, j = 0; i < a->ndim; i++)
        if (i != at) shape[j++] = a->shape[i];
    return mica_reshape(s, a, a->ndim - 1, shape);
}

// ---- transpose ---------------------------------------------------------------------------------------------
mica_array *mica_transpose(mica_scope *s, mica_array *a, const int *axes) {
    if (!(a = view_input(s, MICA_OP_transpose, a))) return NULL;
    int64_t shape[MICA_MAX_DIMS], stride[MICA_MAX_DIMS];
    mica_params p = {0};
    unsigned seen = 0;
    for (int i = 0; i < a->ndim; i++) {
        int from = axes ? mica_axis(s, "transpose", a, axes[i]) : a->ndim - 1 - i;
        if (from < 0) return NULL;
        if (seen >> from & 1) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "transpose", "axis %d appears twice", from);
        seen |= 1u << from;
        shape[i] = a->shape[from];
        stride[i] = a->stride[from];
        p.slice.start[i] = from;
    }
    return mica_record_view(s, MICA_OP_transpose, a, a->ndim, shape, stride, a->offset, &p);
}

mica_array *mica_swap_axes(mica_scope *s, mica_array *a, int first, int second) {
    if (!(a = view_input(s, MICA_OP_transpose, a))) return NULL;
    int i = mica_axis(s, "swap_axes", a, first), j = mica_axis(s, "swap_axes", a, second);
    if (i < 0 || j < 0) return NULL;
    if (i == j) return a;
    int axes[MICA_MAX_DIMS];
    for (int k = 0; k < a->ndim; k++) axes[k] = k == i ? j : k == j ? i : k;
    return mica_transpose(s, a, axes);
}

// ---- broadcast -----------------------------------------------------------------------------------------------
mica_array *mica_broadcast_to(mica_scope *s, mica_array *a, int ndim, const int64_t *shape) {
    int64_t stride[MICA_MAX_DIMS];
    if (!(a = view_input(s, MICA_OP_broadcast, a))) return NULL;
    bool ok = ndim >= a->ndim && ndim <= MICA_MAX_DIMS;
    bool same = ndim == a->ndim;
    for (int i = ndim - 1, j = a->ndim - 1; ok && i >= 0; i--, j--) {
        int64_t have = j >= 0 ? a->shape[j] : 1;
        ok = shape[i] >= 0 && (have == shape[i] || have == 1);
        same = same && have == shape[i];
        stride[i] = j >= 0 && have == shape[i] ? a->stride[j] : 0;
    }
    if (!ok) return view_fail(s, MICA_OP_broadcast, a, "cannot become", MICA_MIN(ndim, (int)MICA_MAX_DIMS), shape);
    if (same) return a;
    return mica_record_view(s, MICA_OP_broadcast, a, ndim, shape, stride, a->offset, NULL);
}

// ---- slices ----------------------------------------------------------------------------------------------------
// Python's rule for one dimension: clamps start and stop, gives the count.
static int64_t slice_count(int64_t size, int64_t *start, int64_t stop, int64_t step) {
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? size - 1 : size;
    if (*start < 0) *start += size;
    if (stop < 0 && !(step < 0 && stop < -size)) stop += size;
    *start = MICA_MIN(MICA_MAX(*start, low), high);
    stop = MICA_MIN(MICA_MAX(stop, low), high);
    if (step > 0) return stop > *start ? (stop - *start + step - 1) / step : 0;
    return *start > stop ? (*start - stop - step - 1) / -step : 0;
}

mica_array *mica_slice(mica_scope *s, mica_array *a, const int64_t *start, const int64_t *stop, const int64_t *step) {
    if (!(a = view_input(s, MICA_OP_slice, a))) return NULL;
    int64_t shape[MICA_MAX_DIMS], stride[MICA_MAX_DIMS], offset = a->offset;
    mica_params p = {0};
    for (int i = 0; i < a->ndim; i++) {
        int64_t from = start[i], by = step ? step[i] : 1;
        if (by == 0 || by > INT32_MAX || by < -INT32_MAX || a->shape[i] > INT32_MAX)
            return mica_scope_fail(s, MICA_ERR_ARGUMENT, "slice", "step %lld of axis %d is invalid", (long long)by, i);
        shape[i] = slice_count(a->shape[i], &from, stop[i], by);
        stride[i] = a->stride[i] * by;
        if (shape[i]) offset += from * a->stride[i];
        else from = 0;
        p.slice.start[i] = (int32_t)from;
        p.slice.step[i] = (int32_t)by;
    }
    return mica_record_view(s, MICA_OP_slice, a, a->ndim, shape, stride, offset, &p);
}

mica_array *mica_slice_axis(mica_scope *s, mica_array *a, int axis, int64_t start, int64_t stop) {
    if (!(a = view_input(s, MICA_OP_slice, a))) return NULL;
    int at = mica_axis(s, "slice", a, axis);
    if (at < 0) return NULL;
    int64_t from[MICA_MAX_DIMS] = {0}, to[MICA_MAX_DIMS];
    memcpy(to, a->shape, sizeof to);
    from[at] = start;
    to[at] = stop;
    return mica_slice(s, a, from, to, NULL);
}

mica_array *mica_as_strided(mica_scope *s, mica_array *a, int ndim, const int64_t *shape, const int64_t *strides, int64_t offset) {
    if (!(a = view_input(s, MICA_OP_as_strided, a))) return NULL;
    if (!mica_node_contiguous(a) && !(a = mica_contiguous(s, a))) return NULL;
    int64_t low = offset, high = offset;
    bool ok = ndim >= 0 && ndim <= MICA_MAX_DIMS, empty = false;
    for (int i = 0; ok && i < ndim; i++) {
        int64_t reach;
        ok = shape[i] >= 0 && !__builtin_mul_overflow(shape[i] - 1, strides[i], &reach) && llabs(reach) < INT64_MAX / 16;
        if (!ok) break;
        empty |= shape[i] == 0;
        *(reach < 0 ? &low : &high) += reach;
    }
    if (!ok || (!empty && (low < 0 || high >= mica_node_size(a))))
        return view_fail(s, MICA_OP_as_strided, a, "reaches outside the array:", MICA_MIN(MICA_MAX(ndim, 0), (int)MICA_MAX_DIMS), shape);
    return mica_record_view(s, MICA_OP_as_strided, a, ndim, shape, strides, a->offset + (empty ? 0 : offset), NULL);
}

mica_array *mica_stop_gradient(mica_scope *s, mica_array *a) {
    if (!(a = view_input(s, MICA_OP_stop_gradient, a))) return NULL;
    return mica_record_view(s, MICA_OP_stop_gradient, a, a->ndim, a->shape, a->stride, a->offset, NULL);
}
