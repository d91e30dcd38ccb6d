// SPDX-License-Identifier: Apache-2.0
// Arrays from nothing: constants and ranges. A constant is one element seen through a broadcast view. The sources' shape and
// dtype are parameters: words[2] elements (one dimension, reshaped by a view), words[3] dtype.
#include "engine/source.h"
#include "engine/rules.h"
#include <math.h>

mica_array *mica_record_source(mica_scope *s, mica_op op, mica_array *key, double start, double step, int ndim, const int64_t *shape,
                               mica_dtype dtype) {
    const char *name = mica_op_table[op].name;
    int64_t size = 1;
    if (ndim < 0 || ndim > MICA_MAX_DIMS) return mica_scope_fail(s, MICA_ERR_ARGUMENT, name, "%d dimensions; at most %d", ndim, MICA_MAX_DIMS);
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(size, shape[i], &size))
            return mica_scope_fail(s, MICA_ERR_ARGUMENT, name, "dimension %d has invalid size %lld", i, (long long)shape[i]);
    mica_params p = {0};
    p.arange.start = start, p.arange.step = step;
    p.words[2] = (uint64_t)size;
    p.words[3] = (uint64_t)dtype;
    mica_array *a = mica_record(s, op, &key, op == MICA_OP_arange ? 0 : 1, 0, &p);
    return !a || ndim == 1 ? a : mica_reshape(s, a, ndim, shape);
}

static bool infer_source(mica_scope *s, mica_array *node, bool floats) {
    const uint64_t *words = node->params.words;
    node->ndim = 1;
    node->shape[0] = (int64_t)words[2];
    node->dtype = (mica_dtype)words[3];
    if (words[3] >= MICA_DTYPE_COUNT || words[3] == MICA_BOOL) return mica_op_fail(s, node, "cannot make this dtype");
    if (floats && !mica_dtype_is_float(node->dtype)) return mica_op_fail(s, node, "makes floats, not %s", mica_dtype_name(node->dtype));
    return true;
}

static bool check_key(mica_scope *s, const mica_array *node) {
    const mica_array *key = node->in[0];
    if (key->dtype == MICA_U64 && key->ndim == 1 && key->shape[0] == 2) return true;
    return mica_op_fail(s, node, "the key must be u64[2]");
}

bool mica_infer_arange(mica_scope *s, mica_array *node) { return infer_source(s, node, false); }
bool mica_infer_random_uniform(mica_scope *s, mica_array *node) { return check_key(s, node) && infer_source(s, node, true); }
bool mica_infer_random_normal(mica_scope *s, mica_array *node) { return check_key(s, node) && infer_source(s, node, true); }

// params.scalar.value; words[3] dtype.
bool mica_infer_full(mica_scope *s, mica_array *node) {
    node->ndim = 0;
    node->dtype = (mica_dtype)node->params.words[3];
    if (node->params.words[3] >= MICA_DTYPE_COUNT) return mica_op_fail(s, node, "no such dtype: %d", (int)node->params.words[3]);
    return true;
}

mica_array *mica_full(mica_scope *s, int ndim, const int64_t *shape, double value, mica_dtype dtype) {
    if (mica_scope_failed(s)) return NULL;
    for (int i = 0; i < ndim && i < MICA_MAX_DIMS; i++)
        if (shape[i] < 0) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "full", "dimension %d has size %lld", i, (long long)shape[i]);
    if (ndim < 0 || ndim > MICA_MAX_DIMS) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "full", "%d dimensions; at most %d", ndim, MICA_MAX_DIMS);
    mica_params p = {0};
    p.scalar.value = value;
    p.words[3] = (uint64_t)dtype;
    mica_array *a = mica_record(s, MICA_OP_full, NULL, 0, 0, &p);
    return !a || ndim == 0 ? a : mica_broadcast_to(s, a, ndim, shape);
}

mica_array *mica_scalar(mica_scope *s, double value, mica_dtype dtype) { return mica_full(s, 0, NULL, value, dtype); }
mica_array *mica_zeros(mica_scope *s, int ndim, const int64_t *shape, mica_dtype dtype) { return mica_full(s, ndim, shape, 0, dtype); }
mica_array *mica_ones(mica_scope *s, int ndim, const int64_t *shape, mica_dtype dtype) { return mica_full(s, ndim, shape, 1, dtype); }

mica_array *mica_arange(mica_scope *s, double start, double stop, double step, mica_dtype dtype) {
    if (mica_scope_failed(s)) return NULL;
    double n = ceil((stop - start) / step);
    if (step == 0 || !isfinite(n) || n > 0x1p46) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "arange", "%g to %g by %g", start, stop, step);
    return mica_record_source(s, MICA_OP_arange, NULL, start, step, MICA_SHAPE(n > 0 ? (int64_t)n : 0), dtype);
}
