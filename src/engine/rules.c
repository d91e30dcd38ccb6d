// SPDX-License-Identifier: Apache-2.0
// Checks of arguments and small graph pieces that the files of ops share.
#include "engine/rules.h"
#include "mica/transforms.h"
#include <stdio.h>
#include <string.h>

// ---- checks ---------------------------------------------------------------------------------------------
bool mica_same_shape(const mica_array *a, const mica_array *b) {
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof a->shape[0]);
}

bool mica_inputs(mica_scope *s, mica_op op, mica_array **in, int n, unsigned optional) {
    const char *name = mica_op_table[op].name;
    for (int i = 0; i < n && !mica_scope_failed(s); i++) {
        if (in[i]) in[i] = mica_scope_import(s, in[i]);
        else if (!(optional >> i & 1)) mica_scope_fail(s, MICA_ERR_ARGUMENT, name, "input %d is NULL", i);
    }
    return !mica_scope_failed(s);
}

mica_array *mica_inputs_fail(mica_scope *s, mica_op op, mica_array *const *in, int n, const char *fmt, ...) {
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    mica_array *copy[MICA_KERNEL_INPUTS] = {NULL};
    for (int i = 0; i < n && i < MICA_KERNEL_INPUTS; i++) copy[i] = in[i];
    mica_array probe = {.op = op, .n_in = MICA_MIN(n, (int)MICA_KERNEL_INPUTS), .in = copy};
    mica_op_fail(s, &probe, "%s", text);
    return NULL;
}

bool mica_broadcast_shape(int *ndim, int64_t *shape, const mica_array *a) {
    for (; *ndim < a->ndim; ++*ndim) {
        memmove(shape + 1, shape, (size_t)*ndim * sizeof *shape);
        shape[0] = 1;
    }
    for (int i = *ndim - 1, j = a->ndim - 1; j >= 0; i--, j--) {
        if (shape[i] == 1) shape[i] = a->shape[j];
        else if (a->shape[j] != 1 && a->shape[j] != shape[i]) return false;
    }
    return true;
}

// ---- pieces of graphs -------------------------------------------------------------------------------------
mica_array *mica_constant(mica_scope *s, double value, mica_dtype dtype) { return mica_full(s, 0, NULL, value, dtype); }

mica_array *mica_full_like(mica_scope *s, const mica_array *a, double value) {
    return a ? mica_full(s, a->ndim, a->shape, value, a->dtype) : NULL;
}

mica_array *mica_axis_to_end(mica_scope *s, mica_array *a, int axis) {
    int axes[MICA_MAX_DIMS];
    if (!a || axis == a->ndim - 1) return a;
    for (int i = 0; i < a->ndim; i++) axes[i] = i < axis ? i : i + 1;
    axes[a->ndim - 1] = axis;
    return mica_transpose(s, a, axes);
}

mica_array *mica_axis_from_end(mica_scope *s, mica_array *a, int axis) {
    int axes[MICA_MAX_DIMS];
    if (!a || axis == a->ndim - 1) return a;
    for (int i = 0; i < a->ndim; i++) axes[i] = i < axis ? i : i - 1;
    axes[axis] = a->ndim - 1;
    return mica_transpose(s, a, axes);
}

// ---- pieces of gradients ------------------------------------------------------------------------------------
mica_array *mica_widen(mica_scope *s, mica_array *a) {
    return a && (a->dtype == MICA_F16 || a->dtype == MICA_BF16) ? mica_astype(s, a, MICA_F32) : a;
}

mica_array *mica_narrow(mica_scope *s, mica_array *a, const mica_array *like) {
    return a && a->dtype != like->dtype ? mica_astype(s, a, like->dtype) : a;
}

mica_array *mica_exp_minus_lse(mica_scope *s, mica_array *a, mica_array *lse) {
    if (!a || !lse) return NULL;
    mica_array *empty = mica_equal(s, lse, mica_constant(s, -(double)__builtin_inff(), lse->dtype));
    lse = mica_where(s, empty, mica_constant(s, 0, lse->dtype), lse);
    return mica_exp(s, mica_sub(s, a, mica_expand_dims(s, lse, -1)));
}

// Views stand for the inputs, so that what one input owes to another does not count twice; gradients pass them as often as is wanted.
bool mica_vjp_by_graph(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads, mica_graph_of *graph) {
    mica_array *in[MICA_KERNEL_INPUTS] = {NULL}, *wanted[MICA_KERNEL_INPUTS], *got[MICA_KERNEL_INPUTS];
    bool needed[MICA_KERNEL_INPUTS] = {false};
    size_t n = 0;
    for (int i = 0; i < node->n_in; i++) {
        if (!node->in[i]) continue;
        const mica_array *a = node->in[i];
        if (!(in[i] = mica_record_view(s, MICA_OP_reshape, node->in[i], a->ndim, a->shape, a->stride, a->offset, NULL))) return false;
        needed[i] = mica_needs_grad(node, i);
    }
    mica_array *y = graph(s, node, in);
    for (int i = 0; i < node->n_in; i++)
        if (needed[i]) wanted[n++] = in[i];
    if (!y || !mica_vjp(s, &y, &g, 1, wanted, n, got)) return false;
    for (int i = node->n_in - 1; i >= 0; i--)
        if (needed[i]) grads[i] = got[--n];
    return true;
}

mica_array *mica_spread(mica_scope *s, mica_array *g, const mica_array *a) {
    if (!g) return NULL;
    int64_t shape[MICA_MAX_DIMS];
    for (int i = 0; i < a->ndim; i++) shape[i] = i < g->ndim ? a->shape[i] : 1;
    return mica_broadcast_to(s, mica_reshape(s, g, a->ndim, shape), a->ndim, a->shape);
}

mica_array *mica_as_rows(mica_scope *s, mica_array *a) {
    if (!a) return NULL;
    int64_t last = a->shape[a->ndim - 1], rows = 1;
    for (int i = 0; i < a->ndim - 1; i++) rows *= a->shape[i];
    return mica_reshape(s, a, MICA_SHAPE(rows, last));
}

mica_array *mica_valid_indices(mica_scope *s, mica_array *indices, int64_t size) {
    mica_array *i = mica_astype(s, indices, MICA_I64);
    mica_array *low = mica_greater_equal(s, i, mica_constant(s, indices->dtype >= MICA_I8 ? -(double)size : 0, MICA_I64));
    return mica_logical_and(s, low, mica_less(s, i, mica_constant(s, (double)size, MICA_I64)));
}
