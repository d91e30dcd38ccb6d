// SPDX-License-Identifier: Apache-2.0
// Random arrays. The two sources are uniform and normal; the others are graphs of them. A key is data, so a step that draws
// anew each time keeps its plan.
#include "engine/rules.h"
#include "engine/source.h"
#include "mica/random.h"

mica_array *mica_random_key(mica_scope *s, uint64_t seed, uint64_t stream) {
    return mica_from_data(s, (uint64_t[]){seed, stream}, MICA_SHAPE(2), MICA_U64);
}

mica_array *mica_random_uniform(mica_scope *s, mica_array *key, double low, double high, int ndim, const int64_t *shape, mica_dtype dtype) {
    return mica_record_source(s, MICA_OP_random_uniform, key, low, high - low, ndim, shape, dtype);
}

mica_array *mica_random_normal(mica_scope *s, mica_array *key, int ndim, const int64_t *shape, mica_dtype dtype) {
    return mica_record_source(s, MICA_OP_random_normal, key, 0, 1, ndim, shape, dtype);
}

bool mica_infer_random_round(mica_scope *s, mica_array *node) {
    const mica_array *key = node->in[0], *a = node->in[1];
    if (key->dtype != MICA_U64 || key->ndim != 1 || key->shape[0] != 2) return mica_op_fail(s, node, "the key must be u64[2]");
    if (a->dtype != MICA_F32) return mica_op_fail(s, node, "rounds f32, not %s", mica_dtype_name(a->dtype));
    mica_like(node, a);
    node->dtype = MICA_BF16;
    return true;
}

mica_array *mica_random_round(mica_scope *s, mica_array *key, mica_array *a) {
    return mica_record(s, MICA_OP_random_round, (mica_array *[]){key, a}, 2, 0, NULL);
}

mica_array *mica_random_bernoulli(mica_scope *s, mica_array *key, double p, int ndim, const int64_t *shape) {
    mica_array *u = mica_random_uniform(s, key, 0, 1, ndim, shape, MICA_F32);
    return mica_less(s, u, mica_constant(s, p, MICA_F32));
}

// The Gumbel trick: argmax(logits - log(-log(u))) is distributed as softmax(logits). u = 0 gives -inf: never chosen.
mica_array *mica_random_categorical(mica_scope *s, mica_array *key, mica_array *logits) {
    mica_array *in[] = {key, logits};
    if (!mica_inputs(s, MICA_OP_random_uniform, in, 2, 0)) return NULL;
    if (!mica_dtype_is_float(in[1]->dtype) || in[1]->ndim == 0)
        return mica_inputs_fail(s, MICA_OP_random_uniform, in, 2, "the logits must be floats [..., V]");
    logits = mica_astype(s, in[1], MICA_F32);
    if (!logits) return NULL;
    mica_array *u = mica_random_uniform(s, key, 0, 1, logits->ndim, logits->shape, MICA_F32);
    mica_array *exponential = mica_neg(s, mica_log(s, u));
    return mica_argmax(s, mica_sub(s, logits, mica_log(s, exponential)), -1, false);
}
