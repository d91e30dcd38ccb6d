// SPDX-License-Identifier: Apache-2.0
// Gradient rules of views and of ops that move elements about: the gradient takes the way back.
#include "engine/rules.h"
#include <string.h>

#define A node->in[0]
#define NEEDS(i) mica_needs_grad(node, i)

bool mica_vjp_reshape(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_reshape(s, g, A->ndim, A->shape);
    return true;
}

// params.slice.start[i]: the axis of A that became axis i.
bool mica_vjp_transpose(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    int back[MICA_MAX_DIMS];
    for (int i = 0; i < node->ndim; i++) back[node->params.slice.start[i]] = i;
    grads[0] = mica_transpose(s, g, back);
    return true;
}

// The sum over the dimensions that were repeated.
bool mica_vjp_broadcast(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    int axes[MICA_MAX_DIMS], count = 0, extra = node->ndim - A->ndim;
    for (int i = 0; i < node->ndim; i++)
        if (i < extra || A->shape[i - extra] != node->shape[i]) axes[count++] = i;
    mica_array *total = count ? mica_sum(s, g, axes, count, false) : g;
    grads[0] = total ? mica_reshape(s, total, A->ndim, A->shape) : NULL;
    return true;
}

static void slice_of(const mica_array *node, int ndim, int64_t *start, int64_t *stop, int64_t *step) {
    for (int i = 0; i < ndim; i++) {
        start[i] = node->params.slice.start[i];
        step[i] = node->params.slice.step[i];
        if (stop) stop[i] = start[i] + node->in[1]->shape[i] * step[i];
    }
}

bool mica_vjp_slice(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    int64_t start[MICA_MAX_DIMS], step[MICA_MAX_DIMS];
    slice_of(node, A->ndim, start, NULL, step);
    grads[0] = mica_slice_update(s, mica_full_like(s, A, 0), g, start, step);
    return true;
}

// Elements may be seen several times, in any order: the view of their numbers says where each gradient goes.
bool mica_vjp_as_strided(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    int64_t size = mica_node_size(A);
    mica_array *numbers = mica_arange(s, 0, (double)size, 1, MICA_I64);
    mica_array *seen = mica_as_strided(s, numbers, node->ndim, node->shape, node->stride, node->offset - A->offset);
    if (!seen) return false;
    mica_array *total = mica_scatter_add(s, mica_zeros(s, MICA_SHAPE(size), g->dtype), mica_reshape(s, seen, MICA_SHAPE(-1)),
                                         mica_reshape(s, g, MICA_SHAPE(-1)));
    grads[0] = total ? mica_reshape(s, total, A->ndim, A->shape) : NULL;
    return true;
}

bool mica_vjp_slice_update(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    int64_t start[MICA_MAX_DIMS], stop[MICA_MAX_DIMS], step[MICA_MAX_DIMS];
    slice_of(node, A->ndim, start, stop, step);
    if (NEEDS(0)) grads[0] = mica_slice_update(s, g, mica_full_like(s, node->in[1], 0), start, step);
    for (int i = 0; i < A->ndim; i++) // a slice that runs backwards past the front: as Python counts, from the end
        if (stop[i] < 0) stop[i] = -A->shape[i] - 1;
    if (NEEDS(1)) grads[1] = mica_slice(s, g, start, stop, step);
    return true;
}

bool mica_vjp_concatenate(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    int axis = node->params.axis.axis;
    int64_t at = 0;
    for (int i = 0; i < node->n_in; i++) {
        int64_t size = node->in[i]->shape[axis];
        if (NEEDS(i)) grads[i] = mica_slice_axis(s, g, axis, at, at + size);
        at += size;
    }
    return true;
}

bool mica_vjp_tril(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_tril(s, g, node->params.axis.flags);
    return true;
}

bool mica_vjp_triu(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_triu(s, g, node->params.axis.flags);
    return true;
}
