// SPDX-License-Identifier: Apache-2.0
// Elementwise ops: shape rules and public functions. Inputs are broadcast by views before the op is recorded, so the rules
// only compare; kernels see equal shapes with strides of 0.
#include "engine/rules.h"
#include <string.h>

typedef enum kind { FLOATS, NUMBERS, BOOLS, ANYTHING } kind;

static bool check_kind(mica_scope *s, const mica_array *node, const mica_array *a, kind want) {
    mica_dtype d = a->dtype;
    if (want == FLOATS && !mica_dtype_is_float(d)) return mica_op_fail(s, node, "wants floats, not %s; mica_astype converts", mica_dtype_name(d));
    if (want == NUMBERS && d == MICA_BOOL) return mica_op_fail(s, node, "wants numbers, not bool; mica_astype converts");
    if (want == BOOLS && d != MICA_BOOL) return mica_op_fail(s, node, "wants bool, not %s", mica_dtype_name(d));
    return true;
}

// ---- shape rules ------------------------------------------------------------------------------------------
static bool infer_unary(mica_scope *s, mica_array *node, kind want) {
    mica_like(node, node->in[0]);
    return check_kind(s, node, node->in[0], want);
}

static bool infer_binary(mica_scope *s, mica_array *node, kind want, bool compares) {
    const mica_array *a = node->in[0], *b = node->in[1];
    if (a->dtype != b->dtype) return mica_op_fail(s, node, "dtypes differ; mica_astype converts");
    if (!mica_same_shape(a, b)) return mica_op_fail(s, node, "shapes differ");
    mica_like(node, a);
    if (compares) node->dtype = MICA_BOOL;
    return check_kind(s, node, a, want);
}

#define UNARY(name, kind) \
    bool mica_infer_##name(mica_scope *s, mica_array *node) { return infer_unary(s, node, kind); }
#define BINARY(name, kind) \
    bool mica_infer_##name(mica_scope *s, mica_array *node) { return infer_binary(s, node, kind, false); }
#define COMPARE(name, kind) \
    bool mica_infer_##name(mica_scope *s, mica_array *node) { return infer_binary(s, node, kind, true); }

UNARY(neg, NUMBERS)
UNARY(abs, NUMBERS)
UNARY(square, NUMBERS)
UNARY(exp, FLOATS)
UNARY(log, FLOATS)
UNARY(sigmoid, FLOATS)
UNARY(silu, FLOATS)
UNARY(tanh, FLOATS)
UNARY(gelu, FLOATS)
UNARY(gelu_tanh, FLOATS)
UNARY(relu, FLOATS)
UNARY(sqrt, FLOATS)
UNARY(rsqrt, FLOATS)
UNARY(reciprocal, FLOATS)
UNARY(sin, FLOATS)
UNARY(cos, FLOATS)
UNARY(erf, FLOATS)
UNARY(logical_not, BOOLS)
UNARY(contiguous, ANYTHING)
BINARY(add, NUMBERS)
BINARY(sub, NUMBERS)
BINARY(mul, NUMBERS)
BINARY(div, FLOATS)
BINARY(power, FLOATS)
BINARY(maximum, NUMBERS)
BINARY(minimum, NUMBERS)
BINARY(swiglu, FLOATS)
BINARY(geglu, FLOATS)
COMPARE(equal, ANYTHING)
COMPARE(not_equal, ANYTHING)
COMPARE(less, ANYTHING)
COMPARE(less_equal, ANYTHING)
COMPARE(greater, ANYTHING)
COMPARE(greater_equal, ANYTHING)
COMPARE(logical_and, BOOLS)
COMPARE(logical_or, BOOLS)

// The wanted dtype is params.axis.flags.
bool mica_infer_astype(mica_scope *s, mica_array *node) {
    mica_like(node, node->in[0]);
    node->dtype = (mica_dtype)node->params.axis.flags;
    if ((unsigned)node->params.axis.flags >= MICA_DTYPE_COUNT) return mica_op_fail(s, node, "no such dtype: %d", (int)node->params.axis.flags);
    return true;
}

bool mica_infer_where(mica_scope *s, mica_array *node) {
    const mica_array *condition = node->in[0], *a = node->in[1], *b = node->in[2];
    if (condition->dtype != MICA_BOOL) return mica_op_fail(s, node, "the condition must be bool, not %s", mica_dtype_name(condition->dtype));
    if (a->dtype != b->dtype) return mica_op_fail(s, node, "dtypes differ; mica_astype converts");
    if (!mica_same_shape(a, b) || !mica_same_shape(a, condition)) return mica_op_fail(s, node, "shapes differ");
    mica_like(node, a);
    return true;
}

// ---- public functions -------------------------------------------------------------------------------------
static mica_array *unary(mica_scope *s, mica_op op, mica_array *a) { return mica_record(s, op, &a, 1, 0, NULL); }

// Broadcasts n inputs to their common shape and records the op.
static mica_array *broadcast_record(mica_scope *s, mica_op op, mica_array **in, int n) {
    int ndim = 0;
    int64_t shape[MICA_MAX_DIMS];
    if (!mica_inputs(s, op, in, n, 0)) return NULL;
    for (int i = 0; i < n; i++)
        if (!mica_broadcast_shape(&ndim, shape, in[i])) return mica_inputs_fail(s, op, in, n, "shapes do not broadcast");
    mica_array *wide[3];
    for (int i = 0; i < n; i++)
        if (!(wide[i] = mica_broadcast_to(s, in[i], ndim, shape))) return NULL;
    return mica_record(s, op, wide, n, 0, NULL);
}

static mica_array *binary(mica_scope *s, mica_op op, mica_array *a, mica_array *b) {
    return broadcast_record(s, op, (mica_array *[]){a, b}, 2);
}

#define PUBLIC_UNARY(name) \
    mica_array *mica_##name(mica_scope *s, mica_array *a) { return unary(s, MICA_OP_##name, a); }
#define PUBLIC_BINARY(name) \
    mica_array *mica_##name(mica_scope *s, mica_array *a, mica_array *b) { return binary(s, MICA_OP_##name, a, b); }
MICA_UNARY_OPS(PUBLIC_UNARY)
PUBLIC_UNARY(logical_not)
MICA_BINARY_OPS(PUBLIC_BINARY)
MICA_COMPARE_OPS(PUBLIC_BINARY)
PUBLIC_BINARY(swiglu)
PUBLIC_BINARY(geglu)

mica_array *mica_add_scalar(mica_scope *s, mica_array *a, double b) {
    if (!mica_inputs(s, MICA_OP_add, &a, 1, 0)) return NULL;
    return mica_add(s, a, mica_constant(s, b, a->dtype));
}

mica_array *mica_mul_scalar(mica_scope *s, mica_array *a, double b) {
    if (!mica_inputs(s, MICA_OP_mul, &a, 1, 0)) return NULL;
    return mica_mul(s, a, mica_constant(s, b, a->dtype));
}

mica_array *mica_clip(mica_scope *s, mica_array *a, double low, double high) {
    if (!mica_inputs(s, MICA_OP_maximum, &a, 1, 0)) return NULL;
    a = mica_maximum(s, a, mica_constant(s, low, a->dtype));
    return a ? mica_minimum(s, a, mica_constant(s, high, a->dtype)) : NULL;
}

mica_array *mica_where(mica_scope *s, mica_array *condition, mica_array *a, mica_array *b) {
    return broadcast_record(s, MICA_OP_where, (mica_array *[]){condition, a, b}, 3);
}

mica_array *mica_astype(mica_scope *s, mica_array *a, mica_dtype dtype) {
    if (!mica_inputs(s, MICA_OP_astype, &a, 1, 0)) return NULL;
    if (a->dtype == dtype) return a;
    mica_params p = {0};
    p.axis.flags = (int32_t)dtype;
    return mica_record(s, MICA_OP_astype, &a, 1, 0, &p);
}

mica_array *mica_contiguous(mica_scope *s, mica_array *a) {
    if (!mica_inputs(s, MICA_OP_contiguous, &a, 1, 0)) return NULL;
    return mica_node_contiguous(a) ? a : unary(s, MICA_OP_contiguous, a);
}
