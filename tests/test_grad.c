// SPDX-License-Identifier: Apache-2.0
// Every op that has a gradient rule against finite differences in f64: first and second derivatives, forward mode, strided
// inputs. The table of ops decides what must be here: an op without a case fails.
#include "base/quant.h"
#include "grad_testing.h"

#define GRAPH(name) static mica_array *name(mica_scope *s, mica_array *const *x)
#define AXES(...) (const int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))

// ---- elementwise ----
#define UNARY(name) GRAPH(g_##name) { return mica_##name(s, x[0]); }
#define BINARY(name) GRAPH(g_##name) { return mica_##name(s, x[0], x[1]); }
MICA_UNARY_OPS(UNARY)
MICA_BINARY_OPS(BINARY)
BINARY(swiglu)
BINARY(geglu)
BINARY(matmul)
BINARY(mse_loss)
GRAPH(g_astype) { return mica_astype(s, mica_astype(s, x[0], MICA_F32), MICA_F64); }
GRAPH(g_contiguous) { return mica_contiguous(s, mica_swap_axes(s, x[0], 0, 1)); }
GRAPH(g_same_twice) { return mica_mul(s, x[0], mica_add(s, x[0], x[0])); }
GRAPH(g_scalars) { return mica_clip(s, mica_mul_scalar(s, mica_add_scalar(s, x[0], 0.25), 3), -1.5, 2); }
GRAPH(g_square_by_power) { return mica_power(s, x[0], mica_scalar(s, 2, MICA_F64)); }
GRAPH(g_where) {
    mica_array *c = mica_greater(s, mica_from_data(s, (double[]){1, -1, 1, 1}, MICA_SHAPE(4), MICA_F64), mica_scalar(s, 0, MICA_F64));
    return mica_where(s, c, x[0], x[1]);
}

// ---- products ----
static mica_array *quantized(mica_scope *s, mica_array *x, bool transpose, mica_quant_spec spec) {
    float w[4 * 64];
    uint64_t seed = 3;
    for (int i = 0; i < 4 * 64; i++) w[i] = (float)(test_random(&seed) - 0.5);
    mica_array *q, *scales, *biases;
    if (!mica_quantize(s, mica_from_data(s, w, MICA_SHAPE(4, 64), MICA_F32), spec, &q, &scales, &biases)) return NULL;
    mica_array *y = mica_quantized_matmul(s, mica_astype(s, x, MICA_F32), q, scales, biases, transpose, spec);
    return mica_astype(s, y, MICA_F64);
}
GRAPH(g_quantized) { return quantized(s, x[0], true, (mica_quant_spec){MICA_AFFINE, 8, 32}); }
GRAPH(g_quantized_plain) { return quantized(s, x[0], false, (mica_quant_spec){MICA_AFFINE, 4, 64}); }
GRAPH(g_quantized_mx) { return quantized(s, x[0], true, (mica_quant_spec){MICA_MXFP4, 4, 32}); }

// A weight [out, 64], out ≤ 32, in the layout of the device.
static mica_array *packed_weight(mica_scope *s, int32_t out, mica_params *p) {
    float w[32 * 64], scales[32 * 2], biases[32 * 2];
    uint32_t codes[32 * 16];
    uint64_t seed = 3;
    for (int i = 0; i < out * 64; i++) w[i] = (float)(test_random(&seed) - 0.5);
    mica_quantize_rows((mica_quant_spec){MICA_AFFINE, 8, 32}, MICA_F32, w, (size_t)out, 64, codes, scales, biases);
    *p = (mica_params){.packed = {.out = out, .in = 64, .bits = 8, .group_size = 32, .scale_dtype = MICA_F32}};
    mica_device *d = mica_scope_device(s);
    size_t size = d->packed_size(d, p);
    void *packed = malloc(size);
    d->pack(d, p, codes, scales, biases, packed);
    mica_array *weight = mica_from_data(s, packed, MICA_SHAPE((int64_t)size), MICA_U8);
    free(packed);
    return weight;
}

GRAPH(g_linear_packed) {
    mica_params p;
    mica_array *weight = packed_weight(s, 4, &p);
    return mica_astype(s, mica_linear_packed(s, mica_astype(s, x[0], MICA_F32), weight, &p, MICA_F32), MICA_F64);
}
static mica_array *gated(mica_scope *s, mica_array *x, mica_gate gate) {
    mica_params p;
    mica_array *weight = packed_weight(s, 32, &p);
    return mica_astype(s, mica_linear_gated(s, mica_astype(s, x, MICA_F32), weight, &p, gate), MICA_F64);
}
GRAPH(g_gated_swiglu) { return gated(s, x[0], MICA_GATE_SWIGLU); }
GRAPH(g_gated_geglu) { return gated(s, x[0], MICA_GATE_GEGLU); }

// ---- reductions ----
GRAPH(g_sum_all) { return mica_sum(s, x[0], NULL, 0, false); }
GRAPH(g_sum_first) { return mica_sum(s, x[0], AXES(0), true); }
GRAPH(g_sum_outer) { return mica_sum(s, x[0], AXES(-1, 0), false); }
GRAPH(g_mean) { return mica_mean(s, mica_exp(s, x[0]), AXES(1), false); }
GRAPH(g_mean_all) { return mica_mean(s, x[0], NULL, 0, true); }
GRAPH(g_max) { return mica_max(s, x[0], AXES(1), false); }
GRAPH(g_max_all) { return mica_max(s, mica_square(s, x[0]), NULL, 0, false); }
GRAPH(g_min) { return mica_min(s, x[0], AXES(0, 2), true); }
GRAPH(g_logsumexp) { return mica_logsumexp(s, x[0], -1, true); }
GRAPH(g_logsumexp_first) { return mica_logsumexp(s, x[0], 0, false); }
GRAPH(g_softmax) { return mica_softmax(s, x[0], -1); }
GRAPH(g_softmax_middle) { return mica_softmax(s, x[0], 1); }
GRAPH(g_cumsum) { return mica_cumsum(s, x[0], 1); }
GRAPH(g_sort) { return mica_sort(s, x[0], 1); }
GRAPH(g_topk) { return mica_topk(s, x[0], 2, -1); }

// ---- shape ----
GRAPH(g_reshape) { return mica_reshape(s, x[0], MICA_SHAPE(-1, 2)); }
GRAPH(g_squeeze) { return mica_squeeze(s, mica_expand_dims(s, x[0], 1), 1); }
GRAPH(g_transpose) { return mica_transpose(s, x[0], (int[]){2, 0, 1}); }
GRAPH(g_broadcast) { return mica_broadcast_to(s, x[0], MICA_SHAPE(2, 3, 5, 4)); }
GRAPH(g_slice) { return mica_slice(s, x[0], (int64_t[]){1, -1, 0}, (int64_t[]){2, -9, 4}, (int64_t[]){1, -2, 3}); }
GRAPH(g_split) {
    mica_array *half[2];
    if (!mica_split(s, x[0], 2, -1, half)) return NULL;
    return mica_mul(s, half[0], mica_exp(s, half[1]));
}
GRAPH(g_as_strided) { return mica_as_strided(s, x[0], MICA_SHAPE(4, 5), (int64_t[]){3, 2}, 2); }
GRAPH(g_slice_update) { return mica_slice_update(s, x[0], x[1], (int64_t[]){1, -1}, (int64_t[]){2, -2}); }
GRAPH(g_pad) { return mica_pad(s, x[0], (int64_t[]){1, 0, 2}, (int64_t[]){0, 3, 1}, 0.5); }
GRAPH(g_concatenate) { return mica_concatenate(s, (mica_array *[]){x[0], x[1], x[0]}, 3, 1); }
GRAPH(g_concatenate_many) {
    mica_array *parts[19];
    for (int i = 0; i < 19; i++) parts[i] = x[i % 2];
    return mica_concatenate(s, parts, 19, -1);
}
GRAPH(g_stack) { return mica_stack(s, (mica_array *[]){x[0], x[1]}, 2, -1); }
GRAPH(g_repeat) { return mica_repeat(s, x[0], 3, 1); }
GRAPH(g_tril) { return mica_tril(s, x[0], -1); }
GRAPH(g_triu) { return mica_triu(s, x[0], 1); }

// ---- indexing ----
#define INTS(shape, ...) mica_from_data(s, (int32_t[]){__VA_ARGS__}, shape, MICA_I32)
#define SHAPE MICA_SHAPE
GRAPH(g_take) { return mica_take(s, x[0], INTS(SHAPE(2, 3), 2, 0, -1, 2, 1, 2), 0); }
GRAPH(g_take_middle) { return mica_take(s, x[0], INTS(SHAPE(2), 1, 0), 1); }
GRAPH(g_take_last) { return mica_take(s, x[0], INTS(SHAPE(3, 1), 1, 0, 1), -1); }
GRAPH(g_take_along) { return mica_take_along_axis(s, x[0], INTS(SHAPE(3, 2), 0, 0, 1, 3, -1, 2), 1); }
GRAPH(g_take_along_first) { return mica_take_along_axis(s, x[0], INTS(SHAPE(2, 1), 2, 0), 0); }
GRAPH(g_put_along) { return mica_put_along_axis(s, x[0], INTS(SHAPE(3, 2), 0, 9, 1, 3, -1, 2), x[1], 1); }
GRAPH(g_put_along_first) { return mica_put_along_axis(s, x[0], INTS(SHAPE(2, 4), 0, 1, 2, 0, 1, 2, 0, 1), x[1], 0); }
GRAPH(g_scatter_add) { return mica_scatter_add(s, x[0], INTS(SHAPE(2, 2), 2, 0, 2, 7), x[1]); }
GRAPH(g_scatter_add_along) {
    mica_array *rows = mica_take_along_axis(s, x[0], INTS(SHAPE(3, 2), 0, 0, 1, 3, 2, 2), 1);
    mica_array *g, *one = mica_full(s, 2, mica_shape(rows), 1, MICA_F64), *y = mica_mul(s, rows, mica_square(s, rows));
    return mica_vjp(s, &y, &one, 1, (mica_array *[]){x[0]}, 1, &g) ? g : NULL; // the op appears in gradients only
}

// ---- fast ----
GRAPH(g_rms_norm) { return mica_rms_norm(s, x[0], x[1], 1e-5f); }
GRAPH(g_rms_norm_bare) { return mica_rms_norm(s, x[0], NULL, 0.1f); }
GRAPH(g_rms_norm_grad) { return mica_rms_norm_grad(s, x[0], x[1], x[2], 1e-5f); }
GRAPH(g_rms_norm_grad_bare) { return mica_rms_norm_grad(s, x[0], mica_square(s, x[0]), NULL, 0.1f); }
GRAPH(g_swiglu_grad) { return mica_gated_grad(s, x[0], x[1], x[2], MICA_GATE_SWIGLU); }
GRAPH(g_geglu_grad) { return mica_gated_grad(s, x[0], mica_square(s, x[0]), x[1], MICA_GATE_GEGLU); }
GRAPH(g_rope_back) {
    mica_array *table = mica_from_data(s, (float[]){0.5f, 0.8f, 0.8f, -0.6f}, MICA_SHAPE(1, 1, 4), MICA_F32);
    return mica_rope_turn(s, x[0], table, false, true);
}
GRAPH(g_matmul_as) {
    return mica_astype(s, mica_matmul_as(s, mica_astype(s, x[0], MICA_F32), mica_astype(s, x[1], MICA_F32), MICA_F32), MICA_F64);
}
GRAPH(g_layer_norm) { return mica_layer_norm(s, x[0], x[1], x[2], 1e-5f); }
GRAPH(g_layer_norm_bare) { return mica_layer_norm(s, x[0], NULL, NULL, 1e-5f); }
GRAPH(g_layer_norm_bias) { return mica_layer_norm(s, x[0], NULL, x[1], 1e-5f); }
GRAPH(g_rope) { return mica_rope(s, x[0], INTS(SHAPE(2), 3, 40), NULL, NULL); }
GRAPH(g_rope_partial) { return mica_rope(s, x[0], NULL, NULL, &(mica_rope_options){.dims = 4, .traditional = true, .scale = 0.5f}); }
GRAPH(g_rope_freqs) {
    return mica_rope(s, x[0], NULL, mica_from_data(s, (float[]){1, 2.5f, 7}, MICA_SHAPE(3), MICA_F32), NULL);
}
GRAPH(g_sdpa) { return mica_sdpa(s, x[0], x[1], x[2], NULL, NULL); }
GRAPH(g_sdpa_causal) { return mica_sdpa(s, x[0], x[1], x[2], NULL, &(mica_sdpa_options){.causal = true, .scale = 0.7f}); }
GRAPH(g_sdpa_window) { return mica_sdpa(s, x[0], x[1], x[2], NULL, &(mica_sdpa_options){.causal = true, .window = 2}); }
GRAPH(g_sdpa_additive) { return mica_sdpa(s, x[0], x[1], x[2], x[3], &(mica_sdpa_options){.scale = 0.3f}); }
GRAPH(g_sdpa_bool) { // the second query sees nothing
    mica_array *m = mica_astype(s, INTS(SHAPE(3, 5), 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1), MICA_BOOL);
    return mica_sdpa(s, x[0], x[1], x[2], m, NULL);
}
static mica_array *segments(mica_scope *s, mica_array *const *x, mica_array *k, int window) {
    mica_array *in[] = {x[0], k, x[2]};
    for (int i = 0; i < 3; i++) in[i] = mica_astype(s, in[i], MICA_F32);
    return mica_astype(s, mica_segment_attention(s, in[0], in[1], in[2], INTS(SHAPE(2), 4, 1), 4, 0.4f, true, window), MICA_F64);
}
GRAPH(g_segments) { return segments(s, x, x[1], 0); }
GRAPH(g_segments_window) { return segments(s, x, x[1], 2); }
GRAPH(g_segments_of_one) { return segments(s, (mica_array *[]){x[0], x[0], x[0]}, mica_square(s, x[0]), 0); } // keys made from queries
GRAPH(g_segments_gradient) { // of the gradient, as an op of its own
    mica_array *y = segments(s, x, x[1], 0), *g = y ? mica_full(s, 3, mica_shape(y), 1, MICA_F64) : NULL, *out;
    g = mica_mul(s, g, mica_sin(s, x[0]));
    return g && mica_vjp(s, &y, &g, 1, (mica_array *[]){x[1]}, 1, &out) ? out : NULL;
}
GRAPH(g_cross_entropy) { return mica_cross_entropy(s, x[0], INTS(SHAPE(3), 1, 4, 0)); }
GRAPH(g_masked_cross_entropy) {
    return mica_masked_cross_entropy(s, x[0], INTS(SHAPE(3), 1, 4, 0), mica_astype(s, INTS(SHAPE(3), 1, 0, 1), MICA_F64));
}

#define CASE(op, g, low, high, n, ...) {#op, #g, g_##g, low, high, 0, n, {__VA_ARGS__}}
#define ROUGH(op, g, low, high, n, ...) {#op, #g, g_##g, low, high, 0.01, n, {__VA_ARGS__}}
#define CASE1(name, low, high) CASE(name, name, low, high, 1, {2, {3, 5}})
#define CASE2(name, low, high) \
    CASE(name, name, low, high, 2, {2, {3, 4}}, {2, {3, 4}}), CASE(name, name, low, high, 2, {1, {4}}, {3, {2, 3, 1}})
#define SEGMENTS {3, {6, 4, 3}}, {3, {6, 2, 3}}, {3, {6, 2, 3}}
#define QKV {4, {2, 4, 3, 6}}, {4, {2, 2, 5, 6}}, {4, {2, 2, 5, 6}}

static const grad_case cases[] = {
    CASE1(neg, -2, 2), CASE1(exp, -2, 2), CASE1(log, 0.3, 3), CASE1(sigmoid, -4, 4), CASE1(silu, -4, 4), CASE1(tanh, -2, 2),
    CASE1(gelu, -3, 3), CASE1(gelu_tanh, -3, 3), CASE1(relu, -2, 2), CASE1(sqrt, 0.3, 3), CASE1(rsqrt, 0.3, 3),
    CASE1(reciprocal, 0.4, 3), CASE1(square, -2, 2), CASE1(abs, -2, 2), CASE1(sin, -4, 4), CASE1(cos, -4, 4), CASE1(erf, -2, 2),
    CASE(exp, exp, -1, 1, 1, {0, {0}}), ROUGH(astype, astype, -2, 2, 1, {2, {3, 5}}),
    CASE(contiguous, contiguous, -2, 2, 1, {3, {2, 3, 4}}),
    CASE2(add, -2, 2), CASE2(sub, -2, 2), CASE2(mul, -2, 2), CASE2(div, 0.5, 2), CASE2(power, 0.4, 2), CASE2(maximum, -2, 2),
    CASE2(minimum, -2, 2), CASE2(swiglu, -2, 2), CASE2(geglu, -2, 2), CASE(mul, same_twice, -2, 2, 1, {1, {5}}),
    CASE(maximum, scalars, -2, 2, 1, {2, {3, 5}}), CASE(power, square_by_power, -2, 2, 1, {1, {6}}),
    CASE(where, where, -2, 2, 2, {2, {3, 4}}, {2, {3, 1}}), CASE(mul, mse_loss, -2, 2, 2, {2, {3, 4}}, {2, {3, 4}}),
    CASE(matmul, matmul, -1, 1, 2, {2, {3, 4}}, {2, {4, 2}}), CASE(matmul, matmul, -1, 1, 2, {3, {2, 3, 4}}, {2, {4, 5}}),
    CASE(matmul, matmul, -1, 1, 2, {4, {2, 1, 3, 4}}, {3, {3, 4, 2}}), CASE(matmul, matmul, -1, 1, 2, {1, {4}}, {2, {4, 3}}),
    CASE(matmul, matmul, -1, 1, 2, {2, {3, 4}}, {1, {4}}), CASE(matmul, matmul, -1, 1, 2, {1, {4}}, {1, {4}}),
    CASE(matmul, matmul, -1, 1, 2, {2, {1, 4}}, {3, {3, 4, 2}}),
    ROUGH(quantized_matmul, quantized, -1, 1, 1, {3, {2, 1, 64}}), ROUGH(quantized_matmul, quantized_plain, -1, 1, 1, {2, {3, 4}}),
    ROUGH(quantized_matmul, quantized_mx, -1, 1, 1, {2, {1, 64}}), ROUGH(linear_packed, linear_packed, -1, 1, 1, {3, {2, 1, 64}}),
    ROUGH(linear_packed, gated_swiglu, -1, 1, 1, {3, {2, 1, 64}}), ROUGH(linear_packed, gated_geglu, -1, 1, 1, {2, {3, 64}}),
    CASE(sum, sum_all, -2, 2, 1, {3, {2, 3, 4}}), CASE(sum, sum_first, -2, 2, 1, {3, {2, 3, 4}}),
    CASE(sum, sum_outer, -2, 2, 1, {3, {2, 3, 4}}), CASE(sum, sum_all, -2, 2, 1, {0, {0}}),
    CASE(mean, mean, -2, 2, 1, {3, {2, 3, 4}}), CASE(mean, mean_all, -2, 2, 1, {2, {3, 5}}),
    CASE(max, max, -2, 2, 1, {3, {2, 3, 4}}), CASE(max, max_all, -2, 2, 1, {2, {3, 4}}), CASE(min, min, -2, 2, 1, {3, {2, 3, 4}}),
    CASE(logsumexp, logsumexp, -3, 3, 1, {2, {3, 5}}), CASE(logsumexp, logsumexp_first, -3, 3, 1, {3, {2, 3, 2}}),
    CASE(softmax, softmax, -3, 3, 1, {2, {3, 5}}), CASE(softmax, softmax_middle, -3, 3, 1, {3, {2, 3, 2}}),
    CASE(cumsum, cumsum, -2, 2, 1, {3, {2, 4, 2}}), CASE(sort, sort, -2, 2, 1, {3, {2, 5, 2}}), CASE(sort, topk, -2, 2, 1, {2, {3, 5}}),
    CASE(reshape, reshape, -2, 2, 1, {2, {3, 4}}), CASE(reshape, squeeze, -2, 2, 1, {2, {3, 4}}),
    CASE(transpose, transpose, -2, 2, 1, {3, {2, 3, 4}}), CASE(broadcast, broadcast, -2, 2, 1, {3, {3, 1, 4}}),
    CASE(slice, slice, -2, 2, 1, {3, {2, 5, 4}}), CASE(slice, split, -2, 2, 1, {2, {3, 4}}),
    CASE(as_strided, as_strided, -2, 2, 1, {2, {4, 5}}),
    CASE(slice_update, slice_update, -2, 2, 2, {2, {5, 4}}, {2, {2, 2}}), CASE(slice_update, pad, -2, 2, 1, {3, {2, 1, 3}}),
    CASE(concatenate, concatenate, -2, 2, 2, {2, {2, 3}}, {2, {2, 2}}),
    CASE(concatenate, concatenate_many, -2, 2, 2, {2, {2, 3}}, {2, {2, 1}}), CASE(concatenate, stack, -2, 2, 2, {2, {2, 3}}, {2, {2, 3}}),
    CASE(broadcast, repeat, -2, 2, 1, {3, {2, 3, 2}}), CASE(tril, tril, -2, 2, 1, {3, {2, 3, 4}}), CASE(triu, triu, -2, 2, 1, {2, {4, 3}}),
    CASE(take, take, -2, 2, 1, {2, {3, 2}}), CASE(take, take_middle, -2, 2, 1, {3, {2, 3, 2}}), CASE(take, take_last, -2, 2, 1, {2, {3, 2}}),
    CASE(take_along_axis, take_along, -2, 2, 1, {2, {3, 4}}), CASE(take_along_axis, take_along_first, -2, 2, 1, {2, {3, 4}}),
    CASE(put_along_axis, put_along, -2, 2, 2, {2, {3, 4}}, {2, {3, 2}}),
    CASE(put_along_axis, put_along_first, -2, 2, 2, {2, {3, 4}}, {2, {1, 4}}),
    CASE(scatter_add, scatter_add, -2, 2, 2, {2, {3, 4}}, {3, {2, 2, 4}}),
    CASE(scatter_add_along_axis, scatter_add_along, -2, 2, 1, {2, {3, 4}}),
    CASE(rms_norm, rms_norm, -2, 2, 2, {3, {2, 2, 5}}, {1, {5}}), CASE(rms_norm, rms_norm_bare, -2, 2, 1, {2, {3, 5}}),
    CASE(rms_norm_grad, rms_norm_grad, -2, 2, 3, {3, {2, 2, 5}}, {3, {2, 2, 5}}, {1, {5}}), CASE(rms_norm_grad, rms_norm_grad_bare, -2, 2, 1, {2, {3, 5}}),
    CASE(gated_grad, swiglu_grad, -2, 2, 3, {2, {3, 4}}, {2, {3, 4}}, {2, {3, 4}}), CASE(gated_grad, geglu_grad, -2, 2, 2, {2, {3, 4}}, {2, {3, 4}}),
    CASE(rope, rope_back, -2, 2, 1, {4, {2, 1, 3, 6}}), ROUGH(matmul, matmul_as, -1, 1, 2, {2, {3, 4}}, {2, {4, 2}}),
    CASE(layer_norm, layer_norm, -2, 2, 3, {3, {2, 2, 5}}, {1, {5}}, {1, {5}}), CASE(layer_norm, layer_norm_bare, -2, 2, 1, {2, {3, 5}}),
    CASE(layer_norm, layer_norm_bias, -2, 2, 2, {2, {3, 5}}, {1, {5}}),
    CASE(rope, rope, -2, 2, 1, {4, {2, 1, 3, 6}}), CASE(rope, rope_partial, -2, 2, 1, {4, {1, 2, 3, 6}}),
    CASE(rope, rope_freqs, -2, 2, 1, {4, {1, 2, 3, 6}}),
    CASE(sdpa, sdpa, -1, 1, 3, QKV), CASE(sdpa, sdpa_causal, -1, 1, 3, QKV), CASE(sdpa, sdpa_window, -1, 1, 3, QKV),
    CASE(sdpa, sdpa_bool, -1, 1, 3, QKV), CASE(sdpa, sdpa_additive, -1, 1, 4, QKV, {3, {4, 1, 5}}),
    CASE(sdpa, sdpa_causal, -1, 1, 3, {4, {1, 2, 4, 4}}, {4, {1, 2, 2, 4}}, {4, {1, 2, 2, 4}}), // two queries before all keys
    ROUGH(segment_attention, segments, -1, 1, 3, SEGMENTS), ROUGH(segment_attention, segments_window, -1, 1, 3, SEGMENTS),
    ROUGH(segment_attention, segments_of_one, -1, 1, 1, {3, {6, 2, 3}}), ROUGH(segment_attention_grad, segments_gradient, -1, 1, 3, SEGMENTS),
    CASE(logsumexp, cross_entropy, -3, 3, 1, {2, {3, 5}}), CASE(logsumexp, masked_cross_entropy, -3, 3, 1, {2, {3, 5}}),
};

// ---- tests ----
static mica_scope *scope;

static int set_up(void **state) {
    (void)state;
    mica_device *d = mica_device_open("cpu", &(mica_device_options){.threads = 1}, NULL);
    scope = mica_scope_new(d, NULL);
    mica_device_close(d);
    return !scope;
}

static int tear_down(void **state) {
    (void)state;
    mica_scope_free(scope);
    return 0;
}

static void every_rule_has_a_case(void **state) {
    (void)state;
    for (int op = 0; op < MICA_OP_COUNT; op++) {
        bool found = !mica_op_table[op].vjp;
        for (size_t i = 0; i < MICA_COUNT(cases); i++) found |= !strcmp(cases[i].op, mica_op_table[op].name);
        if (!found) fail_msg("no gradient test for %s", mica_op_table[op].name);
    }
}

static void first_derivatives(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(cases); i++) check_gradient(&cases[i], scope, PLAIN, 1);
}

static void first_derivatives_of_transposed(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(cases); i++) check_gradient(&cases[i], scope, TRANSPOSED, 1);
}

// The large cases would take long: a slice has eight or sixteen times the elements.
static void first_derivatives_of_sliced(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(cases); i++)
        if (strcmp(cases[i].op, "sdpa") && cases[i].step == 0) check_gradient(&cases[i], scope, SLICED, 1);
}

static void second_derivatives(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(cases); i++) check_gradient(&cases[i], scope, PLAIN, 2);
}

static void forward_mode(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(cases); i++) check_jvp(&cases[i], scope);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_has_a_case),
        cmocka_unit_test(first_derivatives),
        cmocka_unit_test(first_derivatives_of_transposed),
        cmocka_unit_test(first_derivatives_of_sliced),
        cmocka_unit_test(second_derivatives),
        cmocka_unit_test(forward_mode),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
