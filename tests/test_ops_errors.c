// SPDX-License-Identifier: Apache-2.0
// Forbidden input of every op: the scope's sticky error names op, shapes and tensors, later ops return NULL, evaluation reports
// it, a reset forgets it. Then nodes with random inputs and parameters: what a shape rule lets pass must run. At last
// every allocation of recording, evaluating and differentiating a small network is refused once.
#include "grad_testing.h"

static mica_scope *s;
static bool covered[MICA_OP_COUNT];

// Inputs of the refusals, made anew for each.
static mica_array *f4, *f23, *f34, *f35, *f234, *f245, *d23, *h23, *b23, *i23, *i3, *u4, *key, *one, *empty, *rows64, *codes, *scales, *biases;

static mica_array *filled(mica_dtype dtype, int ndim, const int64_t *shape) {
    return mica_astype(s, mica_contiguous(s, mica_full(s, ndim, shape, 1, MICA_F32)), dtype);
}

static void begin(void) {
    mica_scope_reset(s);
    f4 = filled(MICA_F32, MICA_SHAPE(4)), f23 = mica_name(filled(MICA_F32, MICA_SHAPE(2, 3)), "first.weight");
    f34 = filled(MICA_F32, MICA_SHAPE(3, 4)), f35 = filled(MICA_F32, MICA_SHAPE(3, 5));
    f234 = filled(MICA_F32, MICA_SHAPE(2, 3, 4)), f245 = mica_name(filled(MICA_F32, MICA_SHAPE(2, 4, 5)), "second.weight");
    d23 = filled(MICA_F64, MICA_SHAPE(2, 3)), h23 = filled(MICA_BF16, MICA_SHAPE(2, 3)), b23 = filled(MICA_BOOL, MICA_SHAPE(2, 3));
    i23 = filled(MICA_I32, MICA_SHAPE(2, 3)), i3 = filled(MICA_I32, MICA_SHAPE(3)), u4 = filled(MICA_U32, MICA_SHAPE(4));
    key = mica_random_key(s, 1, 2), one = mica_scalar(s, 1, MICA_F32), empty = mica_zeros(s, MICA_SHAPE(2, 0), MICA_F32);
    rows64 = filled(MICA_F32, MICA_SHAPE(4, 64));
    codes = filled(MICA_U32, MICA_SHAPE(4, 8)), scales = filled(MICA_F32, MICA_SHAPE(4, 2)), biases = filled(MICA_F32, MICA_SHAPE(4, 2));
    check_scope(s, "inputs");
}

static int op_of(const char *name) {
    for (int op = 0; op < MICA_OP_COUNT; op++)
        if (!strcmp(mica_op_table[op].name, name)) return op;
    fail_msg("no op %s", name);
    return 0;
}

static void refused(const char *op, const char *what, bool got, const char *prefix, const char *text) {
    mica_error e = {0}, again = {0};
    covered[op_of(op)] = true;
    if (got) fail_msg("%s was not refused", what);
    if (!mica_scope_error(s, &e)) fail_msg("%s: NULL without an error", what);
    if (strncmp(e.msg, prefix, strlen(prefix)) || !strstr(e.msg, text)) fail_msg("%s: \"%s\", wanted \"%s…%s\"", what, e.msg, prefix, text);
    assert_int_equal(e.code, MICA_ERR_ARGUMENT);
    assert_null(mica_add(s, f4, f4)); // whatever follows
    assert_null(mica_reshape(s, f4, MICA_SHAPE(2, 2)));
    assert_null(mica_concatenate(s, &f4, 1, 0));
    assert_null(mica_ones(s, MICA_SHAPE(2), MICA_F32));
    assert_false(mica_eval(s, &f4, 1, &again));
    assert_string_equal(again.msg, e.msg);
    mica_scope_reset(s);
    assert_false(mica_scope_error(s, NULL));
    assert_true(mica_item(mica_sum(s, mica_ones(s, MICA_SHAPE(3), MICA_F32), NULL, 0, false)) == 3);
}

#define REFUSE(op, expression, text) (begin(), refused(#op, #expression, (expression) != 0, #op ": ", text))
#define REFUSE_AS(op, name, expression, text) (begin(), refused(#op, #expression, (expression) != 0, name ": ", text))
#define AXES(...) (const int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))
#define AT(...) ((const int64_t[]){__VA_ARGS__})
#define LIST(...) (mica_array *[]){__VA_ARGS__}, sizeof((mica_array *[]){__VA_ARGS__}) / sizeof(mica_array *)

static void elementwise(void **state) {
    (void)state;
#define UNARY(name) \
    REFUSE(name, mica_##name(s, NULL), "input 0 is NULL"); \
    REFUSE(name, mica_##name(s, b23), "bool[2,3]");
#define BINARY(name) \
    REFUSE(name, mica_##name(s, f23, NULL), "input 1 is NULL"); \
    REFUSE(name, mica_##name(s, f23, f4), "shapes do not broadcast: f32[2,3] (first.weight) x f32[4]"); \
    REFUSE(name, mica_##name(s, f23, d23), "dtypes differ; mica_astype converts: f32[2,3] (first.weight) x f64[2,3]");
    MICA_UNARY_OPS(UNARY)
    MICA_BINARY_OPS(BINARY)
    MICA_COMPARE_OPS(BINARY)
    BINARY(swiglu)
    BINARY(geglu)
    REFUSE(exp, mica_exp(s, i23), "wants floats, not i32");
    REFUSE(div, mica_div(s, i23, i23), "i32[2,3] x i32[2,3]");
    REFUSE(add, mica_add(s, b23, b23), "not bool");
    REFUSE(logical_and, mica_logical_and(s, f23, f23), "wants bool, not f32");
    REFUSE(logical_not, mica_logical_not(s, f23), "wants bool, not f32");
    REFUSE(add, mica_add_scalar(s, NULL, 1), "input 0 is NULL");
    REFUSE(mul, mica_mul_scalar(s, b23, 1), "not bool");
    REFUSE(maximum, mica_clip(s, b23, 0, 1), "not bool");
    REFUSE(astype, mica_astype(s, NULL, MICA_F32), "input 0 is NULL");
    REFUSE(astype, mica_astype(s, f23, (mica_dtype)99), "no such dtype: 99");
    REFUSE(contiguous, mica_contiguous(s, NULL), "input 0 is NULL");
    REFUSE(where, mica_where(s, f23, f23, f23), "the condition must be bool, not f32");
    REFUSE(where, mica_where(s, b23, f23, h23), "dtypes differ");
    REFUSE(where, mica_where(s, b23, f23, f4), "shapes do not broadcast: bool[2,3]");
}

static void products(void **state) {
    (void)state;
    mica_quant_spec spec = {MICA_AFFINE, 4, 32}, odd = {MICA_AFFINE, 7, 32}, wide = {MICA_AFFINE, 4, 128}, mx = {MICA_MXFP4, 4, 32};
    REFUSE(matmul, mica_matmul(s, f23, f245), "inner dimensions differ: f32[2,3] (first.weight) x f32[2,4,5] (second.weight)");
    REFUSE(matmul, mica_matmul(s, f34, mica_transpose(s, f23, NULL)), "inner dimensions differ: f32[3,4] x f32[3,2] (first.weight)");
    REFUSE(matmul, mica_matmul(s, f23, d23), "inner dimensions differ");
    REFUSE(matmul, mica_matmul(s, f34, mica_astype(s, f4, MICA_F16)), "dtypes differ; mica_astype converts: f32[3,4] x f16[4]");
    REFUSE(matmul, mica_matmul(s, i23, i3), "wants floats");
    REFUSE(matmul, mica_matmul(s, one, f23), "a scalar is no matrix");
    REFUSE(matmul, mica_matmul(s, f234, mica_zeros(s, MICA_SHAPE(3, 4, 5), MICA_F32)), "leading dimensions do not broadcast");
    REFUSE(matmul, mica_matmul(s, NULL, f23), "input 0 is NULL");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, f23, codes, scales, biases, true, spec), "inner dimensions differ");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, rows64, codes, scales, biases, true, odd), "7");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, rows64, codes, scales, biases, true, wide), "do not fit");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, rows64, codes, scales, NULL, true, spec), "biases are missing");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, rows64, scales, scales, biases, true, spec), "must be u32");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, rows64, codes, scales, NULL, true, mx), "scales must be u8");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, codes, codes, scales, biases, true, spec), "x must be f32, f16 or bf16");
    REFUSE(quantized_matmul, mica_quantized_matmul(s, NULL, codes, scales, biases, true, spec), "input 0 is NULL");
    mica_array *w, *q, *b;
    REFUSE(quantize_weights, mica_quantize(s, f23, spec, &w, &q, &b), "not a multiple of the group size 32: f32[2,3]");
    REFUSE(quantize_weights, mica_quantize(s, d23, spec, &w, &q, &b), "wants f32, f16 or bf16");
    REFUSE(quantize_weights, mica_quantize(s, rows64, odd, &w, &q, NULL), "7");
    mica_params p = {0};
    p.quant.bits = 4, p.quant.group_size = 32, p.quant.mode = MICA_MXFP4;
    REFUSE(quantize_scales, mica_record(s, MICA_OP_quantize_scales, &f23, 1, 0, &p), "not a multiple");
    REFUSE(quantize_biases, mica_record(s, MICA_OP_quantize_biases, &rows64, 1, 0, &p), "no biases");
    REFUSE(dequantize, mica_dequantize(s, codes, scales, biases, spec, MICA_I32), "makes f32, f16 or bf16");
    REFUSE(dequantize, mica_dequantize(s, codes, mica_mul(s, scales, scales), NULL, spec, MICA_F32), "biases are missing");
    REFUSE(dequantize, mica_dequantize(s, f23, scales, biases, spec, MICA_F32), "must be u32");
    mica_params packed = {0};
    packed.packed.out = 4, packed.packed.in = 64, packed.packed.bits = 4, packed.packed.group_size = 32;
    REFUSE(linear_packed, mica_linear_packed(s, rows64, f4, &packed, MICA_F32), "the packed weight must be u8[");
    REFUSE(linear_packed, mica_linear_packed(s, NULL, f4, &packed, MICA_F32), "input 0 is NULL");
    REFUSE(take_packed, mica_take_packed(s, f4, i3, &packed, MICA_F32), "the packed weight must be u8[");
    mica_params thin = {.low_rank = {.modules = 1, .outs = {4}, .dtype = MICA_BF16, .forms = {{1, MICA_F32, MICA_F32}}}}, split = thin;
    REFUSE(low_rank, mica_low_rank(s, f35, f34, i3, &f4, 1, &thin), "the matrices of set 0 do not fit");
    REFUSE(low_rank, mica_low_rank(s, f35, f34, i3, (mica_array *[]){NULL}, 1, &thin), "the matrices of set 0 do not fit");
    REFUSE(low_rank, mica_low_rank(s, f35, f34, f4, NULL, 0, &thin), "choice must be i32 [N]");
    REFUSE(low_rank, mica_low_rank(s, f35, f35, i3, NULL, 0, &thin), "y f32 [N,4]");
    REFUSE(low_rank, mica_low_rank(s, f35, f34, NULL, NULL, 0, &thin), "input 2 is NULL");
    REFUSE(low_rank, mica_low_rank(s, f35, f34, i3, NULL, MICA_LOW_RANK_SETS + 1, &thin), "sets are too many");
    split.low_rank.modules = 2, split.low_rank.outs[1] = 4;
    REFUSE(low_rank, mica_low_rank(s, f35, f34, i3, NULL, 0, &split), "modules of such sizes are not joined");
}

static void reductions(void **state) {
    (void)state;
#define REDUCE(name) \
    REFUSE(name, mica_##name(s, NULL, NULL, 0, false), "input 0 is NULL"); \
    REFUSE(name, mica_##name(s, f23, AXES(2), false), "axis 2 is out of range for 2 dimensions"); \
    REFUSE(name, mica_##name(s, f23, AXES(1, -1), false), "axis 1 appears twice"); \
    REFUSE(name, mica_##name(s, b23, NULL, 0, false), "bool[2,3]");
#define ALONG(name, ...) \
    REFUSE(name, mica_##name(s, NULL, __VA_ARGS__), "input 0 is NULL"); \
    REFUSE(name, mica_##name(s, one, __VA_ARGS__), "axis -1 is out of range for 0 dimensions"); \
    REFUSE(name, mica_##name(s, b23, __VA_ARGS__), "bool[2,3]");
    REDUCE(sum)
    REDUCE(mean)
    REDUCE(max)
    REDUCE(min)
    ALONG(logsumexp, -1, false)
    ALONG(softmax, -1)
    ALONG(argmax, -1, true)
    ALONG(cumsum, -1)
    ALONG(sort, -1)
    ALONG(argsort, -1)
    REFUSE(mean, mica_mean(s, i23, NULL, 0, false), "wants floats, not i32; mica_astype converts: i32[2,3]");
    REFUSE(max, mica_max(s, empty, AXES(1), false), "of no elements: f32[2,0]");
    REFUSE(min, mica_min(s, empty, NULL, 0, false), "of no elements");
    REFUSE(argmax, mica_argmax(s, empty, 1, false), "of no elements");
    REFUSE(softmax, mica_softmax(s, i23, 0), "wants floats, not i32");
    REFUSE(argpartition, mica_argpartition(s, f23, 4, 1), "k = 4 is out of range: f32[2,3]");
    REFUSE(argpartition, mica_argpartition(s, f23, 1, -3), "axis -3 is out of range");
    REFUSE(argpartition, mica_argpartition(s, NULL, 1, 0), "input 0 is NULL");
    REFUSE_AS(sort, "topk", mica_topk(s, f23, 4, 1), "k = 4 of 3 elements");
}

static void views(void **state) {
    (void)state;
    REFUSE(reshape, mica_reshape(s, f23, MICA_SHAPE(4, 2)), "cannot become [4,2]: f32[2,3] (first.weight)");
    REFUSE(reshape, mica_reshape(s, f23, MICA_SHAPE(-1, -1)), "cannot become");
    REFUSE(reshape, mica_reshape(s, f23, 9, AT(2, 3, 1, 1, 1, 1, 1, 1, 1)), "f32[2,3]");
    REFUSE(reshape, mica_reshape(s, empty, MICA_SHAPE(0, -1)), "cannot become");
    REFUSE(reshape, mica_reshape(s, NULL, MICA_SHAPE(2)), "input 0 is NULL");
    REFUSE_AS(reshape, "expand_dims", mica_expand_dims(s, f23, 4), "axis 4 is out of range");
    REFUSE_AS(reshape, "squeeze", mica_squeeze(s, f23, 1), "axis 1 has size 3, not 1");
    REFUSE(transpose, mica_transpose(s, f23, (int[]){0, 0}), "axis 0 appears twice");
    REFUSE(transpose, mica_transpose(s, f23, (int[]){0, 2}), "axis 2 is out of range");
    REFUSE_AS(transpose, "swap_axes", mica_swap_axes(s, f23, 0, 2), "axis 2 is out of range");
    REFUSE(broadcast, mica_broadcast_to(s, f23, MICA_SHAPE(3, 3)), "cannot become [3,3]: f32[2,3] (first.weight)");
    REFUSE(broadcast, mica_broadcast_to(s, f23, MICA_SHAPE(3)), "cannot become [3]");
    REFUSE(broadcast, mica_broadcast_to(s, NULL, MICA_SHAPE(3)), "input 0 is NULL");
    REFUSE_AS(broadcast, "repeat", mica_repeat(s, f23, -1, 0), "-1 times");
    REFUSE_AS(broadcast, "repeat", mica_repeat(s, f23, 2, 2), "axis 2 is out of range");
    REFUSE(slice, mica_slice(s, f23, AT(0, 0), AT(2, 2), AT(1, 0)), "step 0 of axis 1");
    REFUSE(slice, mica_slice_axis(s, f23, 2, 0, 1), "axis 2 is out of range");
    REFUSE_AS(slice, "split", mica_split(s, f23, 2, 1, (mica_array *[2]){0}), "3 elements into 2 equal parts");
    REFUSE(as_strided, mica_as_strided(s, f23, MICA_SHAPE(2, 2), AT(4, 2), 0), "reaches outside the array: [2,2]: f32[2,3]");
    REFUSE(as_strided, mica_as_strided(s, f23, MICA_SHAPE(2), AT(-1), 0), "reaches outside");
    REFUSE(as_strided, mica_as_strided(s, f23, MICA_SHAPE(INT64_MAX), AT(INT64_MAX), 0), "reaches outside");
    REFUSE(stop_gradient, mica_stop_gradient(s, NULL), "input 0 is NULL");
    REFUSE(leaf, mica_from_data(s, "", MICA_SHAPE(-1), MICA_F32), "invalid shape or dtype");
    REFUSE(leaf, mica_from_data(s, "", MICA_SHAPE(1), (mica_dtype)77), "invalid shape or dtype");
    REFUSE(leaf, mica_from_borrowed(s, "", MICA_SHAPE(INT64_MAX, INT64_MAX), MICA_F32, NULL, NULL), "invalid shape or dtype");
}

static void shapes(void **state) {
    (void)state;
    REFUSE(concatenate, mica_concatenate(s, LIST(f23, f34), 0), "shapes differ beside axis 0: f32[2,3] (first.weight) x f32[3,4]");
    REFUSE(concatenate, mica_concatenate(s, LIST(f23, h23), 1), "dtypes differ");
    REFUSE(concatenate, mica_concatenate(s, LIST(f23, f23), 2), "axis 2 is out of range");
    REFUSE(concatenate, mica_concatenate(s, LIST(f23, NULL), 0), "input 1 is NULL");
    REFUSE(concatenate, mica_concatenate(s, NULL, 0, 0), "no arrays");
    REFUSE_AS(concatenate, "stack", mica_stack(s, NULL, 0, 0), "no arrays");
    REFUSE_AS(concatenate, "stack", mica_stack(s, LIST(NULL, f23), 0), "input 0 is NULL");
    REFUSE(concatenate, mica_stack(s, LIST(f23, f34), 0), "shapes differ");
    REFUSE(slice_update, mica_slice_update(s, f23, f34, AT(0, 0), NULL), "the update reaches outside axis 0: f32[2,3] (first.weight) x f32[3,4]");
    REFUSE(slice_update, mica_slice_update(s, f23, f23, AT(0, 1), NULL), "outside axis 1");
    REFUSE(slice_update, mica_slice_update(s, f23, f23, AT(0, 0), AT(-1, 1)), "outside axis 0");
    REFUSE(slice_update, mica_slice_update(s, f23, f23, AT(0, 0), AT(1, 0)), "step 0 of axis 1 is invalid");
    REFUSE(slice_update, mica_slice_update(s, f23, f23, AT(0, 9), NULL), "start 9");
    REFUSE(slice_update, mica_slice_update(s, f23, d23, AT(0, 0), NULL), "dtypes differ");
    REFUSE(slice_update, mica_slice_update(s, f23, f4, AT(0, 0), NULL), "numbers of dimensions differ");
    REFUSE_AS(slice_update, "pad", mica_pad(s, f23, AT(0, -1), AT(0, 0), 0), "axis 1 by -1 and 0");
    REFUSE(tril, mica_tril(s, f4, 0), "wants two dimensions or more: f32[4]");
    REFUSE(triu, mica_triu(s, NULL, 0), "input 0 is NULL");
    REFUSE(triu, mica_triu(s, f4, 0), "wants two dimensions or more: f32[4]");
}

static void indexing(void **state) {
    (void)state;
    REFUSE(take, mica_take(s, f23, f4, 0), "indices must be integers, not f32: f32[2,3] (first.weight) x f32[4]");
    REFUSE(take, mica_take(s, f23, b23, 0), "indices must be integers, not bool");
    REFUSE(take, mica_take(s, f23, u4, 2), "axis 2 is out of range");
    REFUSE(take, mica_take(s, one, u4, 0), "axis 0 is out of range for 0 dimensions");
    REFUSE(take, mica_take(s, f23, mica_reshape(s, u4, 8, AT(1, 1, 1, 1, 1, 1, 1, 4)), 0), "would have 9 dimensions");
    REFUSE(take, mica_take(s, f23, NULL, 0), "input 1 is NULL");
    REFUSE(take_along_axis, mica_take_along_axis(s, f34, i23, 1), "shapes do not broadcast beside axis 1: f32[3,4] x i32[2,3]");
    REFUSE(take_along_axis, mica_take_along_axis(s, f34, i3, 1), "numbers of dimensions differ");
    REFUSE(take_along_axis, mica_take_along_axis(s, f23, f23, 1), "indices must be integers");
    REFUSE(put_along_axis, mica_put_along_axis(s, f23, i23, f34, 1), "values do not broadcast to indices");
    REFUSE(put_along_axis, mica_put_along_axis(s, f23, i23, d23, 1), "dtypes differ");
    REFUSE(put_along_axis, mica_put_along_axis(s, f23, i23, f23, 5), "axis 5 is out of range");
    REFUSE(scatter_add, mica_scatter_add(s, f23, i3, f23), "values must have the shape of indices + a[1:]");
    REFUSE(scatter_add, mica_scatter_add(s, f23, f4, f23), "indices must be integers");
    REFUSE(scatter_add, mica_scatter_add(s, f34, i3, d23), "dtypes differ");
    REFUSE(scatter_add, mica_scatter_add(s, one, i3, i3), "a scalar has no rows");
    REFUSE(scatter_add_along_axis, mica_record(s, MICA_OP_scatter_add_along_axis, (mica_array *[]){b23, i23, b23}, 3, 0, NULL), "not bool");
    REFUSE(scatter_add_along_axis, mica_record(s, MICA_OP_scatter_add_along_axis, (mica_array *[]){f23, i23, f4}, 3, 0, NULL), "values must have the shape of indices");
}

static void sources(void **state) {
    (void)state;
    REFUSE(full, mica_full(s, MICA_SHAPE(2, -1), 0, MICA_F32), "dimension 1 has size -1");
    REFUSE(full, mica_zeros(s, 9, AT(1, 1, 1, 1, 1, 1, 1, 1, 1), MICA_F32), "9 dimensions; at most 8");
    REFUSE(full, mica_scalar(s, 0, (mica_dtype)44), "no such dtype: 44");
    REFUSE(arange, mica_arange(s, 0, 1, 0, MICA_F32), "0 to 1 by 0");
    REFUSE(arange, mica_arange(s, 0, (double)INFINITY, 1, MICA_F32), "0 to inf by 1");
    REFUSE(arange, mica_arange(s, 0, 4, 1, MICA_BOOL), "cannot make this dtype");
    REFUSE(random_uniform, mica_random_uniform(s, f23, 0, 1, MICA_SHAPE(2), MICA_F32), "the key must be u64[2]");
    REFUSE(random_uniform, mica_random_uniform(s, key, 0, 1, MICA_SHAPE(2), MICA_I32), "makes floats, not i32");
    REFUSE(random_uniform, mica_random_uniform(s, key, 0, 1, MICA_SHAPE(-2), MICA_F32), "dimension 0 has invalid size -2");
    REFUSE(random_uniform, mica_random_bernoulli(s, NULL, 0.5, MICA_SHAPE(2)), "input 0 is NULL");
    REFUSE(random_uniform, mica_random_categorical(s, key, i23), "the logits must be floats");
    REFUSE(random_normal, mica_random_normal(s, NULL, MICA_SHAPE(2), MICA_F32), "input 0 is NULL");
    REFUSE(random_normal, mica_random_normal(s, key, MICA_SHAPE(2), MICA_BOOL), "cannot make this dtype");
    REFUSE(random_round, mica_random_round(s, f23, f23), "the key must be u64[2]");
    REFUSE(random_round, mica_random_round(s, key, i23), "rounds f32, not i32");
}

static mica_array *zeros(mica_dtype dtype, int ndim, const int64_t *shape) { return mica_zeros(s, ndim, shape, dtype); }

static void fast(void **state) {
    (void)state;
    mica_sdpa_options window = {.window = 4}, negative = {.causal = true, .window = -1};
    mica_rope_options odd = {.dims = 3}, wide = {.dims = 8};
#define Q zeros(MICA_F32, MICA_SHAPE(2, 4, 3, 6))
#define K zeros(MICA_F32, MICA_SHAPE(2, 2, 5, 6))
    REFUSE(rms_norm, mica_rms_norm(s, f23, f4, 1e-5f), "weights must be floats [3]: f32[2,3] (first.weight) x f32[4]");
    REFUSE(rms_norm, mica_rms_norm(s, i23, NULL, 1e-5f), "x must be floats");
    REFUSE(rms_norm, mica_rms_norm(s, one, NULL, 1e-5f), "x must be floats [..., D]");
    REFUSE(rms_norm, mica_rms_norm(s, NULL, f4, 1e-5f), "input 0 is NULL");
    REFUSE(rms_norm_grad, mica_rms_norm_grad(s, f23, f34, NULL, 1e-5f), "x and g must be floats [..., D]");
    REFUSE(rms_norm_grad, mica_rms_norm_grad(s, f23, f23, f4, 1e-5f), "weights must be floats [3]");
    REFUSE(gated_grad, mica_gated_grad(s, f23, f34, f23, MICA_GATE_SWIGLU), "gate, up and g must be floats of one shape and dtype");
    REFUSE(gated_grad, mica_gated_grad(s, f23, f23, f23, MICA_GATE_NONE), "no gate is number 0");
    REFUSE(cross_entropy_grad, mica_cross_entropy_grad(s, f34, f4, i3, f4, MICA_F32), "wants logits f32 [R,V], f32 [R], targets i32 [R]");
    REFUSE(cross_entropy_grad, mica_cross_entropy_grad(s, f34, zeros(MICA_F32, MICA_SHAPE(3)), i3, zeros(MICA_F32, MICA_SHAPE(3)), MICA_F64), "makes f32");
    REFUSE(layer_norm, mica_layer_norm(s, f34, f4, i3, 1e-5f), "weights must be floats [4]");
    REFUSE(layer_norm, mica_layer_norm(s, NULL, f4, f4, 1e-5f), "input 0 is NULL");
    REFUSE(rope, mica_rope(s, f234, NULL, NULL, NULL), "x must be floats [B,H,T,Dh]: f32[2,3,4]");
    REFUSE(rope, mica_rope(s, Q, NULL, NULL, &odd), "3 dimensions cannot be rotated");
    REFUSE(rope, mica_rope(s, Q, NULL, NULL, &wide), "8 dimensions cannot be rotated");
    REFUSE(rope, mica_rope(s, Q, i3, NULL, NULL), "offset must be integers [B] or [1]");
    REFUSE(rope, mica_rope(s, Q, NULL, f4, NULL), "freqs must be f32 [dims/2]");
    REFUSE(rope, mica_rope_apply(s, Q, zeros(MICA_F32, MICA_SHAPE(1, 9, 6)), false), "the table must be f32 [B or 1,T,dims]");
    REFUSE(rope, mica_rope_apply(s, Q, zeros(MICA_F32, MICA_SHAPE(1, 4, 8)), false), "8 dimensions cannot be rotated");
    REFUSE(rope_table, mica_rope_table(s, f4, f4, 1), "positions must be i32");
    REFUSE(rope_table, mica_rope_table(s, i3, f23, 1), "inv_freq must be f32 [dims/2]");
    REFUSE(sdpa, mica_sdpa(s, Q, K, Q, NULL, NULL), "wants q [B,H,Tq,Dh], k and v [B,Hkv,Tk,Dh]: f32[2,4,3,6] x f32[2,2,5,6]");
    REFUSE(sdpa, mica_sdpa(s, Q, zeros(MICA_F32, MICA_SHAPE(2, 3, 5, 6)), zeros(MICA_F32, MICA_SHAPE(2, 3, 5, 6)), NULL, NULL), "4 heads do not share 3");
    REFUSE(sdpa, mica_sdpa(s, Q, zeros(MICA_F32, MICA_SHAPE(2, 2, 5, 8)), zeros(MICA_F32, MICA_SHAPE(2, 2, 5, 8)), NULL, NULL), "head dimensions differ");
    REFUSE(sdpa, mica_sdpa(s, f23, f23, f23, NULL, NULL), "wants q");
    REFUSE(sdpa, mica_sdpa(s, Q, mica_astype(s, K, MICA_BF16), K, NULL, NULL), "of one dtype");
    REFUSE(sdpa, mica_sdpa(s, Q, K, K, f34, NULL), "the mask does not broadcast to [B,H,Tq,Tk]");
    REFUSE(sdpa, mica_sdpa(s, Q, K, K, zeros(MICA_I32, MICA_SHAPE(3, 5)), NULL), "the mask must be bool or floats");
    REFUSE(sdpa, mica_sdpa(s, Q, K, K, NULL, &window), "a window must be positive and causal");
    REFUSE(sdpa, mica_sdpa(s, Q, K, K, NULL, &negative), "a window must be positive and causal");
    REFUSE(sdpa, mica_sdpa(s, Q, K, NULL, NULL, NULL), "input 2 is NULL");
    REFUSE(logsumexp, mica_cross_entropy(s, f23, f4), "cross entropy wants float logits");
    REFUSE(logsumexp, mica_cross_entropy(s, f23, i3), "cross entropy wants");
    REFUSE(mul, mica_masked_cross_entropy(s, f34, i3, f4), "the mask must be like targets");
    REFUSE(sub, mica_mse_loss(s, f23, f4), "shapes do not broadcast");
}

static void updates(void **state) {
    (void)state;
    float x[12] = {0};
#define LEAF mica_from_data(s, x, MICA_SHAPE(3, 4), MICA_F32)
#define NUMBERS mica_from_data(s, x, MICA_SHAPE(MICA_ADAM_NUMBERS), MICA_F32)
    REFUSE(sum_squares, mica_sum_squares(s, i23), "wants f32, not i32");
    REFUSE(sum_squares, mica_sum_squares(s, NULL), "input 0 is NULL");
    REFUSE(adam_step, mica_adam_step(s, LEAF, f23, LEAF, LEAF, NUMBERS), "must be f32 of one shape, without gaps");
    REFUSE(adam_step, mica_adam_step(s, LEAF, mica_astype(s, LEAF, MICA_BF16), LEAF, LEAF, NUMBERS), "must be f32 of one shape, without gaps");
    REFUSE(adam_step, mica_adam_step(s, LEAF, LEAF, zeros(MICA_F32, MICA_SHAPE(3, 4)), LEAF, NUMBERS), "must be f32 of one shape, without gaps");
    REFUSE(adam_step, mica_adam_step(s, LEAF, LEAF, mica_square(s, LEAF), LEAF, NUMBERS), "parameter and moments must be evaluated");
    REFUSE(adam_step, mica_adam_step(s, LEAF, LEAF, LEAF, LEAF, f4), "the numbers must be f32 [9]");
    REFUSE(adam_step, mica_adam_step(s, NULL, LEAF, LEAF, LEAF, NUMBERS), "input 0 is NULL");
}

static void cache_pages(void **state) {
    (void)state;
#define POOL zeros(MICA_F32, MICA_SHAPE(3, 2, 1, 2, 4, 6))
#define TOKENS zeros(MICA_F32, MICA_SHAPE(5, 1, 6))
#define META zeros(MICA_I32, MICA_SHAPE(2, 4))
#define TABLE zeros(MICA_I32, MICA_SHAPE(2, 3))
    REFUSE(kv_append, mica_kv_append(s, POOL, TOKENS, TOKENS, META, TABLE, 2), "layer 2 is not in the pool");
    REFUSE(kv_append, mica_kv_append(s, f23, TOKENS, TOKENS, META, TABLE, 0), "the pool must be f32, f16 or bf16 [pages,L,Hkv,2,P,Dh]");
    REFUSE(kv_append, mica_kv_append(s, POOL, f234, f234, META, TABLE, 0), "k and v must be f32, f16 or bf16 [N,1,6]");
    REFUSE(kv_append, mica_kv_append(s, POOL, TOKENS, TOKENS, TABLE, TABLE, 0), "meta must be i32 [B,4]");
    REFUSE(kv_append, mica_kv_append(s, POOL, TOKENS, TOKENS, META, i3, 0), "the table must be i32 [B,max_pages]");
    REFUSE(kv_append, mica_kv_append(s, NULL, TOKENS, TOKENS, META, TABLE, 0), "input 0 is NULL");
    REFUSE(paged_attention, mica_paged_attention(s, f234, POOL, META, TABLE, 0, 1, 0), "q must be [N,H,Dh]");
    REFUSE(paged_attention, mica_paged_attention(s, TOKENS, POOL, META, TABLE, -1, 1, 0), "layer -1");
    REFUSE(paged_attention, mica_paged_attention(s, TOKENS, POOL, META, TABLE, 0, 1, -2), "the window is negative");
    REFUSE(kv_append, mica_kv_append(s, zeros(MICA_I8, MICA_SHAPE(3, 2, 1, 2, 3, 9)), TOKENS, TOKENS, META, TABLE, 0), "an i8 pool must be");
#define FUSED(...) mica_cache_attention(s, &(mica_cache_inputs){.q = TOKENS, .pool = POOL, .meta = META, .table = TABLE, __VA_ARGS__}, 0, 1, 0, 0)
    REFUSE(cache_attention, FUSED(.k = TOKENS, .v = TOKENS, .rope = zeros(MICA_F32, MICA_SHAPE(1, 4, 6))), "the table must be f32 [1,N,dims]");
    REFUSE(cache_attention, FUSED(.k = TOKENS, .v = TOKENS, .k_norm = zeros(MICA_F32, MICA_SHAPE(5))), "norms must be f32 [Dh]");
    REFUSE(cache_attention, FUSED(.k = zeros(MICA_F32, MICA_SHAPE(4, 1, 6)), .v = zeros(MICA_F32, MICA_SHAPE(4, 1, 6))), "q, k and v must be of one dtype and N");
    REFUSE(paged_attention, mica_paged_attention(s, TOKENS, NULL, META, TABLE, 0, 1, 0), "input 1 is NULL");
}

static void segments(void **state) {
    (void)state;
    const mica_params p = {.segments = {.scale = 1, .causal = 1, .longest = 5}}, windowed = {.segments = {.scale = 1, .window = 2, .longest = 5}};
#define WIDE zeros(MICA_F64, MICA_SHAPE(5, 1, 6))
#define ATTEND(q, k, v, lengths) mica_segment_attention(s, q, k, v, lengths, 5, 1, true, 0)
#define GRADIENT(g, params) mica_segment_attention_grad(s, TOKENS, TOKENS, TOKENS, i3, g, params)
    REFUSE(segment_attention, ATTEND(WIDE, WIDE, WIDE, i3), "q, k and v must be f32, f16 or bf16");
    REFUSE(segment_attention, ATTEND(TOKENS, f234, f234, i3), "wants q [N,H,Dh], k and v [N,Hkv,Dh]: f32[5,1,6]");
    REFUSE(segment_attention, ATTEND(TOKENS, zeros(MICA_F32, MICA_SHAPE(5, 2, 6)), zeros(MICA_F32, MICA_SHAPE(5, 2, 6)), i3), "1 heads do not share 2");
    REFUSE(segment_attention, ATTEND(TOKENS, TOKENS, TOKENS, f4), "lengths must be i32 [S]");
    REFUSE(segment_attention, mica_segment_attention(s, TOKENS, TOKENS, TOKENS, i3, 5, 1, true, -1), "a window must be positive and causal");
    REFUSE(segment_attention, ATTEND(TOKENS, NULL, TOKENS, i3), "input 1 is NULL");
    REFUSE(segment_attention_grad, GRADIENT(TOKENS, &windowed), "a window must be positive and causal");
    REFUSE(segment_attention_grad, GRADIENT(f234, &p), "the gradient must be like q");
    REFUSE(segment_attention_grad, GRADIENT(NULL, &p), "input 4 is NULL");
}

static bool return_false(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)scope, (void)ctx, (void)in, (void)n_in, (void)out, (void)n_out;
    return false;
}
static bool return_nothing(mica_scope *scope, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)scope, (void)ctx, (void)in, (void)n_in;
    for (size_t i = 0; i < n_out; i++) out[i] = NULL;
    return true;
}

static void transforms(void **state) {
    (void)state;
    mica_array *out[2];
    REFUSE(checkpoint, mica_checkpoint(s, return_false, NULL, &f23, 1, out, 1), "the function failed");
    REFUSE(checkpoint, mica_checkpoint(s, return_nothing, NULL, &f23, 1, out, 1), "input 0 is NULL");
    REFUSE(checkpoint, mica_checkpoint(s, return_nothing, NULL, (mica_array *[]){NULL}, 1, out, 1), "array 0 is NULL");
    REFUSE_AS(checkpoint, "grad", mica_grad(s, f23, &f23, 1, out), "the loss has 6 elements, not one");
    REFUSE_AS(checkpoint, "vjp", mica_grad(s, one, &i23, 1, out), "array 0 is i32, not floats");
    REFUSE_AS(checkpoint, "vjp", mica_vjp(s, &f23, &f4, 1, &f23, 1, out), "tangent 0 is not of the shape");
    REFUSE_AS(checkpoint, "vjp", mica_vjp(s, &f23, &d23, 1, &f23, 1, out), "tangent 0 is not of the shape and dtype");
    REFUSE_AS(checkpoint, "jvp", mica_jvp(s, &f23, 1, &f23, &f4, 1, out), "tangent 0 is not");
    REFUSE_AS(checkpoint, "value_and_grad", mica_value_and_grad(s, return_false, NULL, &f23, 1, out, 1, NULL, 1, out + 1), "the function failed");
    REFUSE_AS(checkpoint, "value_and_grad", mica_value_and_grad(s, return_nothing, NULL, &f23, 1, out, 1, NULL, 2, out + 1), "argument 1 of 1");
    REFUSE_AS(checkpoint, "value_and_grad", mica_value_and_grad(s, return_nothing, NULL, &f23, 1, out, 1, NULL, 1, out + 1), "array 0 is NULL");
    mica_quant_spec spec = {MICA_AFFINE, 4, 32};
    REFUSE(quantized_matmul, mica_grad(s, mica_sum(s, mica_quantized_matmul(s, rows64, codes, scales, biases, true, spec), NULL, 0, false), &scales, 1, out),
           "scales and biases have no gradient");
    REFUSE(dequantize, mica_grad(s, mica_sum(s, mica_dequantize(s, codes, scales, biases, spec, MICA_F32), NULL, 0, false), &biases, 1, out),
           "has no gradient");
}

static void arrays_of_another_scope(void **state) {
    (void)state;
    mica_scope *other = mica_scope_new(mica_scope_device(s), NULL);
    mica_array *foreign = mica_exp(other, mica_ones(other, MICA_SHAPE(2, 3), MICA_F32));
    REFUSE_AS(add, "exp", mica_add(s, f23, foreign), "belongs to another scope");
    REFUSE_AS(reshape, "exp", mica_reshape(s, foreign, MICA_SHAPE(6)), "belongs to another scope");
    assert_false(mica_scope_error(other, NULL));
    mica_scope_free(other);
}

static void every_op_was_refused_something(void **state) {
    (void)state;
    for (int op = 0; op < MICA_OP_COUNT; op++)
        if (!covered[op]) fail_msg("no forbidden input tested for %s", mica_op_table[op].name);
}

static int set_up(void **state) {
    (void)state;
    mica_device *d = mica_device_open("cpu", &(mica_device_options){.threads = 2}, NULL);
    s = mica_scope_new(d, NULL);
    mica_device_close(d);
    return !s;
}

static int tear_down(void **state) {
    (void)state;
    mica_scope_free(s);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise), cmocka_unit_test(products), cmocka_unit_test(reductions), cmocka_unit_test(views),
        cmocka_unit_test(shapes), cmocka_unit_test(indexing), cmocka_unit_test(sources), cmocka_unit_test(fast),
        cmocka_unit_test(updates), cmocka_unit_test(cache_pages), cmocka_unit_test(segments), cmocka_unit_test(transforms),
        cmocka_unit_test(arrays_of_another_scope), cmocka_unit_test(every_op_was_refused_something),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
