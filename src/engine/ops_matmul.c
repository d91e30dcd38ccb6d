// SPDX-License-Identifier: Apache-2.0
// Matrix products, dense and quantised: shape rules and public functions. Leading dimensions are broadcast by views; a
// product with one matrix is recorded as a plain two-dimensional one, however many leading dimensions x has.
#include "engine/rules.h"
#include "base/quant.h"
#include <string.h>

// ---- dense ------------------------------------------------------------------------------------------------
bool mica_infer_matmul(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0], *b = node->in[1];
    bool mixed = node->params.matmul.mixed != 0;
    if (a->dtype != b->dtype && !mixed) return mica_op_fail(s, node, "dtypes differ; mica_astype converts");
    if (!mica_dtype_is_float(a->dtype)) return mica_op_fail(s, node, "wants floats");
    if (mixed && (!mica_is_short(a->dtype) || !mica_is_short(b->dtype) || !mica_is_short((mica_dtype)node->params.matmul.dtype) || a->ndim != 2))
        return mica_op_fail(s, node, "mixed types: wants matrices in f32, f16 or bf16");
    if (a->ndim < 2 || a->ndim != b->ndim) return mica_op_fail(s, node, "wants matrices");
    int n = a->ndim;
    if (a->shape[n - 1] != b->shape[n - 2]) return mica_op_fail(s, node, "inner dimensions differ");
    for (int i = 0; i < n - 2; i++)
        if (a->shape[i] != b->shape[i]) return mica_op_fail(s, node, "leading dimensions differ");
    mica_like(node, a);
    if (node->params.matmul.wide && a->dtype != MICA_F64) node->dtype = MICA_F32;
    if (mixed) node->dtype = (mica_dtype)node->params.matmul.dtype;
    node->shape[n - 1] = b->shape[n - 1];
    return true;
}

// x with its leading dimensions in one, times the matrix w.
static mica_array *matmul_rows(mica_scope *s, mica_array *x, mica_array *w) {
    int64_t shape[MICA_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = w->shape[1];
    mica_array *in[] = {mica_as_rows(s, x), w};
    mica_array *y = mica_record(s, MICA_OP_matmul, in, 2, 0, NULL);
    return y ? mica_reshape(s, y, x->ndim, shape) : NULL;
}

static mica_array *matmul_batched(mica_scope *s, mica_array *a, mica_array *b) {
    int ndim = 0;
    int64_t shape[MICA_MAX_DIMS], M = a->shape[a->ndim - 2], K = a->shape[a->ndim - 1];
    int64_t K2 = b->shape[b->ndim - 2], N = b->shape[b->ndim - 1];
    mica_array lead_a = *a, lead_b = *b;
    lead_a.ndim -= 2, lead_b.ndim -= 2;
    if (!mica_broadcast_shape(&ndim, shape, &lead_a) || !mica_broadcast_shape(&ndim, shape, &lead_b))
        return mica_inputs_fail(s, MICA_OP_matmul, (mica_array *[]){a, b}, 2, "leading dimensions do not broadcast");
    shape[ndim] = M, shape[ndim + 1] = K;
    a = mica_broadcast_to(s, a, ndim + 2, shape);
    shape[ndim] = K2, shape[ndim + 1] = N;
    b = mica_broadcast_to(s, b, ndim + 2, shape);
    return mica_record(s, MICA_OP_matmul, (mica_array *[]){a, b}, 2, 0, NULL);
}

mica_array *mica_matmul(mica_scope *s, mica_array *a, mica_array *b) {
    mica_array *in[] = {a, b};
    if (!mica_inputs(s, MICA_OP_matmul, in, 2, 0)) return NULL;
    a = in[0], b = in[1];
    if (!a->ndim || !b->ndim) return mica_inputs_fail(s, MICA_OP_matmul, in, 2, "a scalar is no matrix; mica_mul multiplies");
    int64_t inner = b->ndim == 1 ? b->shape[0] : b->shape[b->ndim - 2];
    if (a->shape[a->ndim - 1] != inner) return mica_inputs_fail(s, MICA_OP_matmul, in, 2, "inner dimensions differ");
    if (a->dtype != b->dtype) return mica_inputs_fail(s, MICA_OP_matmul, in, 2, "dtypes differ; mica_astype converts");
    bool vector_a = a->ndim == 1, vector_b = b->ndim == 1;
    if (vector_a) a = mica_expand_dims(s, a, 0);
    if (vector_b) b = mica_expand_dims(s, b, 1);
    if (!a || !b) return NULL;
    mica_array *y = b->ndim == 2 && a->ndim > 2 ? matmul_rows(s, a, b) : matmul_batched(s, a, b);
    if (vector_b && y) y = mica_squeeze(s, y, -1);
    return vector_a && y ? mica_squeeze(s, y, vector_b ? -1 : -2) : y;
}

// ---- quantised ----------------------------------------------------------------------------------------------
static mica_quant_spec spec_of(const mica_params *p) {
    return (mica_quant_spec){(mica_quant_mode)p->quant.mode, p->quant.bits, p->quant.group_size};
}

static mica_params params_of(mica_quant_spec spec, bool transpose) {
    mica_params p = {0};
    p.quant.bits = spec.bits, p.quant.group_size = spec.group_size;
    p.quant.mode = (int32_t)spec.mode, p.quant.transpose = transpose;
    return p;
}

static bool check_spec(mica_scope *s, const mica_array *node, mica_quant_spec spec) {
    mica_error e = {0};
    return mica_quant_check(spec, &e) || mica_op_fail(s, node, "%s", e.msg);
}

// w u32 [..., words], scales and biases [..., groups] of one matrix. Gives its columns.
static bool check_quantized(mica_scope *s, const mica_array *node, int first, mica_quant_spec spec, int64_t *columns) {
    const mica_array *w = node->in[first], *scales = node->in[first + 1], *biases = node->in[first + 2];
    if (!check_spec(s, node, spec)) return false;
    if (w->dtype != MICA_U32) return mica_op_fail(s, node, "quantised weights must be u32");
    if (w->ndim < 1 || w->ndim != scales->ndim) return mica_op_fail(s, node, "weights and scales must have the same dimensions");
    for (int i = 0; i < w->ndim - 1; i++)
        if (w->shape[i] != scales->shape[i]) return mica_op_fail(s, node, "rows of weights and scales differ");
    *columns = scales->shape[w->ndim - 1] * spec.group_size;
    if (w->shape[w->ndim - 1] * 32 != *columns * spec.bits)
        return mica_op_fail(s, node, "%d bits in groups of %d do not fit these weights and scales", spec.bits, spec.group_size);
    bool affine = spec.mode == MICA_AFFINE;
    if (affine ? !mica_is_short(scales->dtype) : scales->dtype != MICA_U8)
        return mica_op_fail(s, node, affine ? "scales must be f32, f16 or bf16" : "scales must be u8");
    if (affine != (biases != NULL)) return mica_op_fail(s, node, affine ? "biases are missing" : "this mode has no biases");
    if (biases && (biases->dtype != scales->dtype || !mica_same_shape(biases, scales)))
        return mica_op_fail(s, node, "biases must be like scales");
    return true;
}

bool mica_infer_quantized_matmul(mica_scope *s, mica_array *node) {
    const mica_array *x = node->in[0], *w = node->in[1];
    int64_t columns = 0;
    if (!mica_is_short(x->dtype)) return mica_op_fail(s, node, "x must be f32, f16 or bf16, not %s", mica_dtype_name(x->dtype));
    if (!check_quantized(s, node, 1, spec_of(&node->params), &columns)) return false;
    if (w->ndim != 2 || x->ndim < 1) return mica_op_fail(s, node, "wants x [..., K] and a matrix");
    bool transpose = node->params.quant.transpose != 0;
    if (x->shape[x->ndim - 1] != (transpose ? columns : w->shape[0]))
        return mica_op_fail(s, node, "inner dimensions differ (weights are %lld by %lld)", (long long)w->shape[0], (long long)columns);
    mica_like(node, x);
    if (node->params.quant.wide && x->dtype != MICA_F64) node->dtype = MICA_F32;
    node->shape[x->ndim - 1] = transpose ? w->shape[0] : columns;
    return true;
}

// Kernels read codes and scales row by row.
static bool matrix_contiguous(mica_scope *s, mica_op op, mica_array **in) {
    if (!mica_inputs(s, op, in, 3, 4)) return false;
    for (int i = 0; i < 3; i++)
        if (in[i] && !(in[i] = mica_contiguous(s, in[i]))) return false;
    return true;
}

mica_array *mica_quantized_matmul(mica_scope *s, mica_array *x, mica_array *w, mica_array *scales, mica_array *biases, bool transpose,
                                  mica_quant_spec spec) {
    mica_params p = params_of(spec, transpose);
    mica_array *in[] = {x, w, scales, biases};
    if (!mica_inputs(s, MICA_OP_quantized_matmul, in, 4, 8)) return NULL;
    return matrix_contiguous(s, MICA_OP_quantized_matmul, in + 1) ? mica_record(s, MICA_OP_quantized_matmul, in, 4, 8, &p) : NULL;
}

mica_array *mica_matmul_wide(mica_scope *s, mica_array *x, mica_array *w) {
    mica_params p = {.matmul = {.wide = 1}};
    return mica_record(s, MICA_OP_matmul, (mica_array *[]){x, w}, 2, 0, &p);
}

mica_array *mica_matmul_as(mica_scope *s, mica_array *x, mica_array *w, mica_dtype dtype) {
    mica_params p = {.matmul = {.mixed = 1, .dtype = (int32_t)dtype}};
    mica_array *in[] = {x, w};
    if (!mica_inputs(s, MICA_OP_matmul, in, 2, 0)) return NULL;
    if (in[0]->ndim < 1 || in[1]->ndim != 2) return mica_inputs_fail(s, MICA_OP_matmul, in, 2, "wants x [..., K] and a matrix");
    int64_t shape[MICA_MAX_DIMS];
    int ndim = in[0]->ndim;
    memcpy(shape, in[0]->shape, sizeof shape);
    shape[ndim - 1] = in[1]->shape[1];
    in[0] = mica_as_rows(s, in[0]);
    mica_array *y = mica_record(s, MICA_OP_matmul, in, 2, 0, &p);
    return y ? mica_reshape(s, y, ndim, shape) : NULL;
}

mica_array *mica_quantized_matmul_wide(mica_scope *s, mica_array *x, mica_array *w, mica_array *scales, mica_array *biases,
                                       mica_quant_spec spec) {
    mica_params p = params_of(spec, true);
    p.quant.wide = 1;
    return mica_record(s, MICA_OP_quantized_matmul, (mica_array *[]){x, w, scales, biases}, 4, 8, &p);
}

// ---- quantise, dequantise -------------------------------------------------------------------------------------
static bool infer_quantize(mica_scope *s, mica_array *node) {
    const mica_array *a = node->in[0];
    mica_quant_spec spec = spec_of(&node->params);
    if (!check_spec(s, node, spec)) return false;
    if (!mica_is_short(a->dtype)) return mica_op_fail(s, node, "wants f32, f16 or bf16");
    if (a->ndim < 1 || !mica_quant_fits(spec, (size_t)a->shape[a->ndim - 1]))
        return mica_op_fail(s, node, "rows are not a multiple of the group size %d", spec.group_size);
    mica_like(node, a);
    return true;
}

bool mica_infer_quantize_weights(mica_scope *s, mica_array *node) {
    if (!infer_quantize(s, node)) return false;
    node->dtype = MICA_U32;
    node->shape[node->ndim - 1] = node->shape[node->ndim - 1] * node->params.quant.bits / 32;
    return true;
}

bool mica_infer_quantize_scales(mica_scope *s, mica_array *node) {
    if (!infer_quantize(s, node)) return false;
    node->dtype = mica_quant_scale_dtype(spec_of(&node->params), node->dtype);
    node->shape[node->ndim - 1] /= node->params.quant.group_size;
    return true;
}

bool mica_infer_quantize_biases(mica_scope *s, mica_array *node) {
    if (node->params.quant.mode != MICA_AFFINE) return mica_op_fail(s, node, "this mode has no biases");
    return mica_infer_quantize_scales(s, node);
}

bool mica_quantize(mica_scope *s, mica_array *a, mica_quant_spec spec, mica_array **w, mica_array **scales, mica_array **biases) {
    mica_params p = params_of(spec, false);
    *w = mica_record(s, MICA_OP_quantize_weights, &a, 1, 0, &p);
    *scales = mica_record(s, MICA_OP_quantize_scales, &a, 1, 0, &p);
    if (biases) *biases = spec.mode == MICA_AFFINE ? mica_record(s, MICA_OP_quantize_biases, &a, 1, 0, &p) : NULL;
    return *w && *scales && (!biases || *biases || spec.mode != MICA_AFFINE);
}

bool mica_infer_dequantize(mica_scope *s, mica_array *node) {
    int64_t columns = 0;
    mica_dtype dtype = (mica_dtype)node->params.packed.dtype;
    if (!check_quantized(s, node, 0, spec_of(&node->params), &columns)) return false;
    if (!mica_is_short(dtype)) return mica_op_fail(s, node, "makes f32, f16 or bf16");
    mica_like(node, node->in[0]);
    node->dtype = dtype;
    node->shape[node->ndim - 1] = columns;
    return true;
}

mica_array *mica_dequantize(mica_scope *s, mica_array *w, mica_array *scales, mica_array *biases, mica_quant_spec spec, mica_dtype dtype) {
    mica_params p = params_of(spec, false);
    p.packed.dtype = (int32_t)dtype;
    mica_array *in[] = {w, scales, biases};
    return matrix_contiguous(s, MICA_OP_dequantize, in) ? mica_record(s, MICA_OP_dequantize, in, 3, 4, &p) : NULL;
}

// ---- packed by the device -------------------------------------------------------------------------------------
static bool check_packed(mica_scope *s, const mica_array *node, const mica_array *packed) {
    const mica_params *p = &node->params;
    mica_device *d = mica_scope_device(s);
    mica_quant_spec spec = {(mica_quant_mode)p->packed.mode, p->packed.bits, p->packed.group_size};
    if (!check_spec(s, node, spec)) return false;
    if (p->packed.in < 1 || p->packed.out < 1 || !mica_quant_fits(spec, (size_t)p->packed.in))
        return mica_op_fail(s, node, "a weight cannot be [%d,%d]", (int)p->packed.out, (int)p->packed.in);
    size_t size = d->packed_size ? d->packed_size(d, p) : 0;
    return (packed->dtype == MICA_U8 && packed->ndim == 1 && size && packed->shape[0] == (int64_t)size && mica_node_contiguous(packed)) ||
           mica_op_fail(s, node, "the packed weight must be u8[%zu]", size);
}

bool mica_infer_linear_packed(mica_scope *s, mica_array *node) {
    const mica_array *x = node->in[0];
    if (!check_packed(s, node, node->in[1])) return false;
    const mica_params *p = &node->params;
    int32_t from = p->packed.back ? p->packed.out : p->packed.in, to = p->packed.back ? p->packed.in : p->packed.out;
    if (!mica_is_short(x->dtype) || x->ndim < 1 || x->shape[x->ndim - 1] != from)
        return mica_op_fail(s, node, "x must be f32, f16 or bf16 [..., %d]", (int)from);
    mica_like(node, x);
    node->dtype = (mica_dtype)node->params.packed.dtype;
    node->shape[x->ndim - 1] = to;
    if (node->params.packed.gate) {
        if (node->params.packed.out % (2 * MICA_GATE_BLOCK)) return mica_op_fail(s, node, "gates and ups must come in blocks of %d", MICA_GATE_BLOCK);
        node->shape[x->ndim - 1] /= 2;
    }
    return mica_is_short(node->dtype) || mica_op_fail(s, node, "makes f32, f16 or bf16");
}

bool mica_infer_take_packed(mica_scope *s, mica_array *node) {
    const mica_array *ids = node->in[1];
    mica_dtype dtype = (mica_dtype)node->params.packed.dtype;
    if (!check_packed(s, node, node->in[0])) return false;
    if (!mica_is_integer(ids->dtype) || ids->ndim == MICA_MAX_DIMS) return mica_op_fail(s, node, "ids must be integers");
    if (!mica_is_short(dtype)) return mica_op_fail(s, node, "makes f32, f16 or bf16");
    mica_like(node, ids);
    node->dtype = dtype;
    node->shape[node->ndim++] = node->params.packed.in;
    return true;
}

mica_array *mica_linear_packed(mica_scope *s, mica_array *x, mica_array *packed, const mica_params *params, mica_dtype dtype) {
    mica_params p = *params;
    p.packed.dtype = (int32_t)dtype, p.packed.gate = MICA_GATE_NONE, p.packed.back = 0;
    return mica_record(s, MICA_OP_linear_packed, (mica_array *[]){x, packed}, 2, 0, &p);
}

mica_array *mica_linear_packed_back(mica_scope *s, mica_array *g, mica_array *packed, const mica_params *params, mica_dtype dtype) {
    mica_params p = *params;
    p.packed.dtype = (int32_t)dtype, p.packed.gate = MICA_GATE_NONE, p.packed.int8 = 0, p.packed.back = 1;
    return mica_record(s, MICA_OP_linear_packed, (mica_array *[]){g, packed}, 2, 0, &p);
}

mica_array *mica_linear_gated(mica_scope *s, mica_array *x, mica_array *packed, const mica_params *params, mica_gate gate) {
    mica_params p = *params;
    p.packed.dtype = (int32_t)(x ? x->dtype : MICA_F32), p.packed.gate = (int32_t)gate;
    return mica_record(s, MICA_OP_linear_packed, (mica_array *[]){x, packed}, 2, 0, &p);
}

mica_array *mica_take_packed(mica_scope *s, mica_array *packed, mica_array *ids, const mica_params *params, mica_dtype dtype) {
    mica_params p = *params;
    p.packed.dtype = (int32_t)dtype;
    return mica_record(s, MICA_OP_take_packed, (mica_array *[]){packed, ids}, 2, 0, &p);
}
