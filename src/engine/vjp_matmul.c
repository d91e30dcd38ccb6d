// SPDX-License-Identifier: Apache-2.0
// Gradient rules of matrix products. Quantised weights are frozen: only x has a gradient, and asking for that of scales or
// biases is an error.
#include "engine/rules.h"

#define A node->in[0]
#define B node->in[1]

// y = a b: ā = ḡ bᵀ, b̄ = aᵀ ḡ.
bool mica_vjp_matmul(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    if (node->params.matmul.mixed) {
        if (mica_needs_grad(node, 0)) grads[0] = mica_matmul_as(s, g, mica_swap_axes(s, B, -1, -2), A->dtype);
        if (mica_needs_grad(node, 1)) grads[1] = mica_matmul_as(s, mica_swap_axes(s, A, -1, -2), g, B->dtype);
        return true;
    }
    if (g->dtype != A->dtype) g = mica_astype(s, g, A->dtype); // a wide product
    if (mica_needs_grad(node, 0)) grads[0] = mica_matmul(s, g, mica_swap_axes(s, B, -1, -2));
    if (!mica_needs_grad(node, 1)) return true;
    bool turned = B->ndim == 2 && B->stride[0] == 1 && B->stride[1] != 1; // as weights [out, in] are: their gradient is to lie so too
    if (turned) grads[1] = mica_swap_axes(s, mica_matmul(s, mica_swap_axes(s, g, -1, -2), A), -1, -2);
    else grads[1] = mica_matmul(s, mica_swap_axes(s, A, -1, -2), g);
    return true;
}

bool mica_vjp_quantized_matmul(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    const mica_params *p = &node->params;
    if (mica_needs_grad(node, 2) || mica_needs_grad(node, 3)) return mica_op_fail(s, node, "scales and biases have no gradient");
    mica_quant_spec spec = {(mica_quant_mode)p->quant.mode, p->quant.bits, p->quant.group_size};
    if (g->dtype != node->in[0]->dtype) g = mica_astype(s, g, node->in[0]->dtype); // a wide product
    grads[0] = mica_quantized_matmul(s, g, node->in[1], node->in[2], node->in[3], !p->quant.transpose, spec);
    return true;
}

// ḡ of act(gate) * up as the gradient of its 2F blocks of gates and ups, which are computed again.
static mica_array *ungate(mica_scope *s, mica_array *node, mica_array *g) {
    int64_t half = node->params.packed.out / 2, rows = mica_node_size(node) / half, block = MICA_GATE_BLOCK;
    mica_array *y = mica_linear_packed(s, A, B, &node->params, A->dtype), *part[2], *grads[2] = {0};
    y = mica_reshape(s, y, MICA_SHAPE(rows, half / block, 2, block));
    for (int i = 0; i < 2; i++) part[i] = mica_contiguous(s, mica_squeeze(s, mica_slice_axis(s, y, 2, i, i + 1), 2));
    mica_array *product = (node->params.packed.gate == MICA_GATE_SWIGLU ? mica_swiglu : mica_geglu)(s, part[0], part[1]);
    if (!product) return NULL;
    part[0]->needs_grad = part[1]->needs_grad = true;
    g = mica_reshape(s, g, MICA_SHAPE(rows, half / block, block));
    if (!mica_op_table[product->op].vjp(s, product, g, grads)) return NULL;
    for (int i = 0; i < 2; i++) grads[i] = mica_expand_dims(s, grads[i], 2);
    g = mica_reshape(s, mica_concatenate(s, grads, 2, 2), MICA_SHAPE(rows, 2 * half));
    int64_t shape[MICA_MAX_DIMS];
    for (int i = 0; i < A->ndim; i++) shape[i] = A->shape[i];
    shape[A->ndim - 1] = 2 * half;
    return mica_reshape(s, g, A->ndim, shape);
}

// ḡ W straight from the packed form, and from there ḡ Wᵀ.
bool mica_vjp_linear_packed(mica_scope *s, mica_array *node, mica_array *g, mica_array **grads) {
    if (node->params.packed.gate) g = ungate(s, node, mica_narrow(s, g, A));
    g = mica_narrow(s, g, A);
    if (node->params.packed.back) grads[0] = mica_linear_packed(s, g, B, &node->params, A->dtype);
    else grads[0] = mica_linear_packed_back(s, g, B, &node->params, A->dtype);
    return true;
}
