// SPDX-License-Identifier: Apache-2.0
// The op of adapters at run time: y + scale·B·A·x row by row, each row by the matrices that it chooses (Hu et al. 2021, 2106.09685; magnitudes: Liu et
// al. 2024, 2402.09353). Inputs are x, y, choice, then the sets, each one run of bytes: they are recorded anew with every token. Which row takes which set
// is data, so that a plan serves rows that come and go.
#include "engine/rules.h"

enum { FIRST = 3, MOST = FIRST + MICA_LOW_RANK_SETS };
_Static_assert((int)MOST <= (int)MICA_KERNEL_INPUTS, "all sets are inputs of one kernel");

static bool is_short(int dtype) { return dtype == MICA_F32 || dtype == MICA_F16 || dtype == MICA_BF16; }

// Can these modules be joined so?
static bool are_modules(const mica_params *p) {
    int64_t n = 0;
    int32_t count = p->low_rank.modules, gate = p->low_rank.gate;
    const int32_t *outs = p->low_rank.outs;
    if (count < 1 || count > MICA_LOW_RANK_MODULES || gate < MICA_GATE_NONE || gate > MICA_GATE_GEGLU) return false;
    for (int32_t i = 0; i < count; n += outs[i++])
        if (outs[i] < 1 || n % MICA_LOW_RANK_TILE) return false;
    return n <= INT32_MAX && (!gate || (count == 2 && outs[0] == outs[1] && n % (2 * MICA_GATE_BLOCK) == 0));
}

static bool is_set(const mica_array *node, int i, int64_t in) {
    const mica_array *set = node->in[FIRST + i];
    const mica_low_rank_form *form = &node->params.low_rank.forms[i];
    if (!form->rank || !set) return !form->rank && !set;
    if (form->rank < 0 || form->b < 0 || !is_short(form->a) || !is_short(form->b % MICA_LOW_RANK_MAGNITUDES)) return false;
    return set->dtype == MICA_U8 && set->ndim == 1 && set->shape[0] == (int64_t)mica_low_rank_lay_out(&node->params, (size_t)i, (size_t)in).bytes;
}

bool mica_infer_low_rank(mica_scope *s, mica_array *node) {
    const mica_array *x = node->in[0], *y = node->in[1], *choice = node->in[2];
    const mica_params *p = &node->params;
    if (!are_modules(p) || !is_short(p->low_rank.dtype)) return mica_op_fail(s, node, "modules of such sizes are not joined");
    int64_t outs = (int64_t)mica_low_rank_outs(p);
    if (!is_short((int)x->dtype) || x->ndim != 2 || y->dtype != MICA_F32 || y->ndim != 2 || y->shape[0] != x->shape[0] || y->shape[1] != outs)
        return mica_op_fail(s, node, "x must be f32, f16 or bf16 [N,in], y f32 [N,%lld]", (long long)outs);
    if (choice->dtype != MICA_I32 || choice->ndim != 1 || choice->shape[0] != x->shape[0]) return mica_op_fail(s, node, "choice must be i32 [N]");
    for (int i = 0; i < node->n_in - FIRST; i++)
        if (!is_set(node, i, x->shape[1])) return mica_op_fail(s, node, "the matrices of set %d do not fit", i);
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i] && !mica_node_contiguous(node->in[i])) return mica_op_fail(s, node, "input %d has gaps", i);
    mica_like(node, y);
    node->dtype = (mica_dtype)p->low_rank.dtype;
    if (p->low_rank.gate) node->shape[1] /= 2;
    return true;
}

mica_array *mica_low_rank(mica_scope *s, mica_array *x, mica_array *y, mica_array *choice, mica_array *const *sets, size_t count, const mica_params *params) {
    mica_array *in[MOST] = {x, y, choice};
    const unsigned optional = ~0u << FIRST;
    if (count > MICA_LOW_RANK_SETS) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "low_rank", "%zu sets are too many", count);
    for (size_t i = 0; i < count; i++) in[FIRST + i] = sets[i];
    int n = FIRST + (int)count;
    if (!mica_inputs(s, MICA_OP_low_rank, in, n, optional)) return NULL;
    for (int i = 0; i < n; i++)
        if (in[i] && !(in[i] = mica_contiguous(s, in[i]))) return NULL;
    return mica_record(s, MICA_OP_low_rank, in, n, optional, params);
}
