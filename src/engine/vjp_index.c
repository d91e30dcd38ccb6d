// SPDX-License-Identifier: Apache-2.0
// Gradient rules of gather and scatter: each is the other's way back. An index outside its axis reads a constant and writes
// nothing, so nothing flows there. put_along_axis with one index twice: both values get the gradient of the place, though only
// the last was written.
#include "engine/rules.h"

#define A node->in[0]
#define INDICES node->in[1]
#define NEEDS(i) mica_needs_grad(node, i)

bool mica_vjp_take(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_scatter_add(s, mica_full_like(s, A, 0), INDICES, g); // sums are rounded once
    return true;
}

bool mica_vjp_take_along_axis(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = mica_scatter_add_along_axis(s, mica_full_like(s, A, 0), INDICES, g);
    return true;
}

bool mica_vjp_scatter_add(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = g;
    if (!NEEDS(2)) return true;
    int64_t shape[MICA_MAX_DIMS]; // of the indices, with a 1 for each dimension of a row
    int ndim = node->in[2]->ndim;
    for (int i = 0; i < ndim; i++) shape[i] = i < INDICES->ndim ? INDICES->shape[i] : 1;
    mica_array *written = mica_valid_indices(s, INDICES, A->shape[0]);
    written = written ? mica_reshape(s, written, ndim, shape) : NULL;
    grads[2] = mica_where(s, written, mica_take(s, g, INDICES, 0), mica_constant(s, 0, g->dtype));
    return true;
}

// What the values of a scatter along the last axis get.
static mica_array *values_along(mica_scope *s, const mica_array *node, mica_array *g) {
    mica_array *written = mica_valid_indices(s, INDICES, A->shape[A->ndim - 1]);
    return mica_where(s, written, mica_take_along_axis(s, g, INDICES, -1), mica_constant(s, 0, g->dtype));
}

bool mica_vjp_scatter_add_along_axis(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    grads[0] = g;
    if (NEEDS(2)) grads[2] = values_along(s, node, g);
    return true;
}

bool mica_vjp_put_along_axis(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    if (NEEDS(0)) grads[0] = mica_put_along_axis(s, g, INDICES, mica_full_like(s, node->in[2], 0), -1);
    if (NEEDS(2)) grads[2] = values_along(s, node, g);
    return true;
}
