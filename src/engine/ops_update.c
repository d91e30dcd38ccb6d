// SPDX-License-Identifier: Apache-2.0
// The size of gradients, and updates of parameters in one pass, into the memory where they and the optimiser's state are. What says how large a step is changes from
// step to step and so is an input.
#include "engine/rules.h"

bool mica_infer_sum_squares(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0];
    if (a->dtype != MICA_F32) return mica_op_fail(s, node, "wants f32, not %s", mica_dtype_name(a->dtype));
    node->dtype = MICA_F32, node->ndim = 0;
    return true;
}

mica_array *mica_sum_squares(mica_scope *s, mica_array *a) { return mica_record(s, MICA_OP_sum_squares, &a, 1, 0, NULL); }

// Memory that lasts, and may be written.
static bool lasts(const mica_array *a) { return a->base->buffer && mica_node_contiguous(a); }

bool mica_infer_adam_step(mica_scope *s, mica_array *node) {
    const mica_array *p = node->in[0], *numbers = node->in[4];
    for (int i = 0; i < 4; i++)
        if (node->in[i]->dtype != MICA_F32 || !mica_same_shape(node->in[i], p) || !mica_node_contiguous(node->in[i]))
            return mica_op_fail(s, node, "parameter, gradient and moments must be f32 of one shape, without gaps");
    if (numbers->dtype != MICA_F32 || numbers->ndim != 1 || numbers->shape[0] != MICA_ADAM_NUMBERS || !mica_node_contiguous(numbers))
        return mica_op_fail(s, node, "the numbers must be f32 [%d]", (int)MICA_ADAM_NUMBERS);
    if (!lasts(p) || !lasts(node->in[2]) || !lasts(node->in[3])) return mica_op_fail(s, node, "parameter and moments must be evaluated");
    mica_like(node, p);
    return true;
}

mica_array *mica_adam_step(mica_scope *s, mica_array *p, mica_array *g, mica_array *m, mica_array *v, mica_array *numbers) {
    mica_array *in[] = {p, g, m, v, numbers};
    if (!mica_inputs(s, MICA_OP_adam_step, in, 5, 0)) return NULL;
    in[1] = mica_contiguous(s, in[1]);
    return mica_record(s, MICA_OP_adam_step, in, 5, 0, NULL);
}
