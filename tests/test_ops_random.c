// SPDX-License-Identifier: Apache-2.0
// Robustness of the engine. First, nodes with random inputs: each op's valid inputs, then with a few shapes, dtypes, layouts and
// parameters changed at random. Either the shape rule refuses with a message that names the op, or the node runs. Then
// every allocation of recording, evaluating and differentiating a small network is refused once: a clean error, no leak.
#include "base/base.h"
#include "device/low_rank.h"
#include "grad_testing.h"

static uint64_t state = 1;
static uint32_t below(uint32_t n) { return (uint32_t)(test_random(&state) * n); }

typedef struct spec {
    mica_dtype dtype;
    int ndim;
    int64_t shape[MICA_MAX_DIMS];
} spec;

typedef struct sample {
    int n;
    unsigned optional;
    spec in[MICA_KERNEL_INPUTS];
    mica_params params;
} sample;

#define F32(...) {MICA_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}}
#define I32(...) {MICA_I32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}}
#define U32(...) {MICA_U32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}}
#define BOOLS(...) {MICA_BOOL, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), {__VA_ARGS__}}
#define KEY {MICA_U64, 1, {2}}

static void set_quant(sample *t) {
    static const int bits[] = {2, 3, 4, 5, 6, 8};
    int mode = (int)below(6);
    mode = mode < MICA_QUANT_MODE_COUNT ? mode : MICA_AFFINE;
    mica_quant_spec q = mica_quant_default((mica_quant_mode)mode);
    if (mode == MICA_AFFINE) q.bits = bits[below(6)], q.group_size = 32 << below(3);
    t->params.quant.bits = q.bits, t->params.quant.group_size = q.group_size, t->params.quant.mode = mode;
}

// w [rows, 128] in codes, scales and biases from in[first] on.
static void set_codes(sample *t, int first, int64_t rows) {
    set_quant(t);
    bool affine = t->params.quant.mode == MICA_AFFINE;
    int64_t groups = 128 / t->params.quant.group_size;
    t->in[first] = (spec)U32(rows, 4 * t->params.quant.bits);
    t->in[first + 1] = (spec){affine ? MICA_BF16 : MICA_U8, 2, {rows, groups}};
    t->in[first + 2] = (spec){affine ? MICA_BF16 : MICA_DTYPE_COUNT, 2, {rows, groups}}; // DTYPE_COUNT: absent
    t->optional |= 4u << first;
}

static sample products_sample(mica_op op) {
    sample t = {0};
    if (op == MICA_OP_matmul) return (sample){.n = 2, .in = {F32(2, 5, 7), F32(2, 7, 3)}};
    if (op == MICA_OP_quantized_matmul) {
        t.n = 4;
        set_codes(&t, 1, 6);
        t.params.quant.transpose = (int32_t)below(2);
        t.in[0] = (spec)F32(3, t.params.quant.transpose ? 128 : 6);
    } else if (op == MICA_OP_dequantize) {
        t.n = 3;
        set_codes(&t, 0, 3);
        t.params.packed.dtype = (int32_t)below(4);
    } else if (op == MICA_OP_linear_packed || op == MICA_OP_take_packed) {
        t.n = 2;
        t.params.packed.out = 5, t.params.packed.in = 64, t.params.packed.bits = 4, t.params.packed.group_size = 32;
        t.params.packed.scale_dtype = MICA_BF16, t.params.packed.dtype = (int32_t)below(4);
        spec x = F32(3, 64), packed = {MICA_U8, 1, {0}}, ids = I32(2, 2);
        packed.shape[0] = (int64_t)mica_device_default(NULL)->packed_size(mica_device_default(NULL), &t.params);
        t.in[0] = op == MICA_OP_linear_packed ? x : packed;
        t.in[1] = op == MICA_OP_linear_packed ? packed : ids;
    } else if (op == MICA_OP_low_rank) {
        t = (sample){.n = 5, .optional = ~7u, .in = {F32(5, 8), F32(5, 32), I32(5), {MICA_U8, 1, {0}}, {MICA_U8, 1, {0}}}};
        t.params.low_rank.modules = 2, t.params.low_rank.outs[0] = t.params.low_rank.outs[1] = 16;
        t.params.low_rank.gate = (int32_t)below(3), t.params.low_rank.dtype = (int32_t)below(3);
        for (size_t i = 0; i < 2; i++) {
            t.params.low_rank.forms[i] = (mica_low_rank_form){(int16_t)(1 + below(9)), (int8_t)below(3), (int8_t)(below(3) + 64 * below(2))};
            t.in[3 + i].shape[0] = (int64_t)mica_low_rank_lay_out(&t.params, i, 8).bytes;
        }
    } else {
        t.n = 1;
        set_quant(&t);
        t.in[0] = (spec)F32(3, 128);
    }
    return t;
}

static sample fast_sample(mica_op op) {
    switch (op) {
    case MICA_OP_rms_norm: return (sample){.n = 2, .optional = 2, .in = {F32(2, 3, 5), F32(5)}, .params.norm.eps = 1e-5f};
    case MICA_OP_layer_norm: return (sample){.n = 3, .optional = 6, .in = {F32(2, 5), F32(5), F32(5)}, .params.norm.eps = 1e-5f};
    case MICA_OP_rope_table: return (sample){.n = 2, .in = {I32(2, 3), F32(4)}, .params.rope.scale = 1};
    case MICA_OP_rope: return (sample){.n = 2, .in = {F32(2, 3, 2, 6), F32(1, 3, 4)}};
    case MICA_OP_sdpa: {
        sample t = {.n = 4, .optional = 8, .in = {F32(2, 4, 3, 6), F32(2, 2, 5, 6), F32(2, 2, 5, 6), BOOLS(2, 4, 3, 5)}};
        t.params.sdpa.scale = 0.5f, t.params.sdpa.causal = (int32_t)below(2), t.params.sdpa.window = (int32_t)below(4);
        return t;
    }
    case MICA_OP_kv_append:
        return (sample){.n = 5, .in = {F32(3, 2, 1, 2, 4, 6), F32(5, 1, 6), F32(5, 1, 6), I32(2, 4), I32(2, 3)}};
    case MICA_OP_cache_attention:
        return (sample){.n = 9, .optional = 0x1C0, .in = {F32(5, 2, 6), F32(3, 2, 1, 2, 4, 6), I32(2, 4), I32(2, 3), F32(5, 1, 6), F32(5, 1, 6),
                                                          F32(1, 5, 4), F32(6), F32(6)}};
    case MICA_OP_rms_norm_grad: return (sample){.n = 3, .optional = 4, .in = {F32(2, 3, 5), F32(2, 3, 5), F32(5)}, .params.norm.eps = 1e-5f};
    case MICA_OP_gated_grad:
        return (sample){.n = 3, .in = {F32(3, 5), F32(3, 5), F32(3, 5)}, .params.gated.gate = below(2) ? MICA_GATE_SWIGLU : MICA_GATE_GEGLU};
    case MICA_OP_cross_entropy_grad: return (sample){.n = 4, .in = {F32(3, 7), F32(3), I32(3), F32(3)}, .params.packed.dtype = (int32_t)below(4)};
    case MICA_OP_sum_squares: return (sample){.n = 1, .in = {F32(3, 5, 2)}};
    case MICA_OP_adam_step: return (sample){.n = 5, .in = {F32(3, 5), F32(3, 5), F32(3, 5), F32(3, 5), F32(MICA_ADAM_NUMBERS)}};
    case MICA_OP_segment_attention:
    case MICA_OP_segment_attention_grad: {
        sample t = {.n = op == MICA_OP_segment_attention ? 4 : 5, .in = {F32(7, 4, 6), F32(7, 2, 6), F32(7, 2, 6), I32(3), F32(7, 4, 6)}};
        t.params.segments.scale = 0.5f, t.params.segments.causal = (int32_t)below(2), t.params.segments.window = (int32_t)below(4);
        t.params.segments.longest = (int32_t)below(9);
        return t;
    }
    default: return (sample){.n = 4, .in = {F32(5, 2, 6), F32(3, 2, 1, 2, 4, 6), I32(2, 4), I32(2, 3)}};
    }
}

static sample index_sample(mica_op op) {
    sample t = {0};
    switch (op) {
    case MICA_OP_slice_update:
        t = (sample){.n = 2, .in = {F32(5, 4), F32(2, 3)}};
        t.params.slice.start[0] = 4, t.params.slice.step[0] = -2 - (int32_t)below(2), t.params.slice.step[1] = 1;
        return t;
    case MICA_OP_concatenate:
        t = (sample){.n = 3, .in = {F32(2, 3), F32(2, 0), F32(2, 4)}};
        t.params.axis.axis = 1;
        return t;
    case MICA_OP_take: return (sample){.n = 2, .in = {F32(4, 3), I32(2, 2)}};
    case MICA_OP_take_along_axis: return (sample){.n = 2, .in = {F32(2, 4), I32(2, 3)}};
    case MICA_OP_scatter_add: return (sample){.n = 3, .in = {F32(4, 3), I32(2), F32(2, 3)}};
    case MICA_OP_put_along_axis:
    case MICA_OP_scatter_add_along_axis: return (sample){.n = 3, .in = {F32(2, 4), I32(2, 3), F32(2, 3)}};
    case MICA_OP_random_round: return (sample){.n = 2, .in = {KEY, F32(3, 5)}};
    case MICA_OP_random_uniform:
    case MICA_OP_random_normal: t.n = 1, t.in[0] = (spec)KEY; // fall through
    default:
        t.params.arange.step = 0.5;
        t.params.words[2] = below(100), t.params.words[3] = below(MICA_DTYPE_COUNT + 1);
        return t;
    }
}

static bool is_any(mica_op op, const mica_op *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (op == list[i]) return true;
    return false;
}
#define IS_ANY(op, ...) is_any(op, (mica_op[]){__VA_ARGS__}, sizeof((mica_op[]){__VA_ARGS__}) / sizeof(mica_op))

static sample valid_sample(mica_op op) {
    if (op >= MICA_OP_matmul && op <= MICA_OP_low_rank) return products_sample(op);
    if (op >= MICA_OP_rms_norm && !IS_ANY(op, MICA_OP_swiglu, MICA_OP_geglu)) return fast_sample(op);
    if (op >= MICA_OP_slice_update && op < MICA_OP_rms_norm && !IS_ANY(op, MICA_OP_tril, MICA_OP_triu)) return index_sample(op);
    sample t = {.n = 1, .in = {F32(2, 3, 4), F32(2, 3, 4), F32(2, 3, 4)}};
    if ((op >= MICA_OP_add && op <= MICA_OP_logical_or) || IS_ANY(op, MICA_OP_swiglu, MICA_OP_geglu)) t.n = 2;
    if (IS_ANY(op, MICA_OP_logical_not, MICA_OP_logical_and, MICA_OP_logical_or)) t.in[0].dtype = t.in[1].dtype = MICA_BOOL;
    if (op == MICA_OP_where) t.n = 3, t.in[0].dtype = MICA_BOOL;
    if (IS_ANY(op, MICA_OP_sum, MICA_OP_mean, MICA_OP_max, MICA_OP_min)) t.params.reduce.axes = below(5);
    else t.params.axis.flags = (int32_t)below(MICA_DTYPE_COUNT + 2) - 1; // dtype, k or diagonal
    return t;
}

// A few changes; often none.
static void disturb(sample *t) {
    static const int64_t sizes[] = {0, 1, 2, 3, 4, 5, 33, 64, 128, 260};
    mica_dtype all = (mica_dtype)below(MICA_DTYPE_COUNT), floats = (mica_dtype)below(4);
    for (int i = 0, change = (int)below(4); i < t->n && change; i++) { // other types throughout
        if (change == 1 && t->in[i].dtype == MICA_F32) t->in[i].dtype = floats;
        if (change == 2 && t->in[i].dtype == MICA_F32) t->in[i].dtype = all;
        if (change == 3 && t->in[i].dtype == MICA_I32) t->in[i].dtype = all;
    }
    if (t->n && !below(3)) { // one size everywhere, so that inputs go on fitting
        int64_t from = t->in[below((uint32_t)t->n)].shape[below(3)], to = sizes[below(10)];
        for (int i = 0; i < t->n; i++)
            for (int d = 0; d < t->in[i].ndim; d++)
                if (t->in[i].shape[d] == from) t->in[i].shape[d] = to;
    }
    if (!t->n || below(3)) return;
    spec *x = &t->in[below((uint32_t)t->n)];
    switch (below(4)) {
    case 0: x->dtype = (mica_dtype)below(MICA_DTYPE_COUNT + 1); break;
    case 1: x->ndim = (int)below(MICA_MAX_DIMS + 1); break;
    case 2: x->shape[below(4)] = sizes[below(10)]; break;
    default: t->params.words[below(8)] ^= (uint64_t)1 << below(40); break;
    }
}

// Any layout: as it is, turned about, with gaps, or repeated.
static mica_array *random_array(mica_scope *s, spec x) {
    static const double special[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, 0, -1, 1e9, -1e9, 300};
    int64_t shape[MICA_MAX_DIMS], size = 1;
    int how = (int)below(4);
    if (x.dtype == MICA_DTYPE_COUNT) return NULL;
    for (int d = 0; d < x.ndim; d++) {
        shape[d] = how == 1 ? x.shape[x.ndim - 1 - d] : x.shape[d] + (how == 2);
        if (how == 3 && d == 0 && shape[d]) shape[d] = 1;
        size *= shape[d];
    }
    if (size > 1 << 20) return NULL;
    double *v = malloc(((size_t)size + 1) * sizeof *v);
    for (int64_t i = 0; i < size; i++) v[i] = below(30) ? (double)below(9) - 2 : special[below(8)];
    mica_array *a = mica_from_data(s, v, x.ndim, shape, MICA_F64);
    free(v);
    a = mica_contiguous(s, mica_astype(s, a, x.dtype));
    if (how == 1) a = mica_transpose(s, a, NULL);
    if (how == 2) a = mica_slice(s, a, (int64_t[MICA_MAX_DIMS]){0}, x.shape, NULL);
    if (how == 3) a = mica_broadcast_to(s, a, x.ndim, x.shape);
    mica_error e = {0};
    if (mica_scope_error(s, &e)) fail_msg("input: %s", e.msg);
    return a;
}

// The data of these says where memory is; models alone record them, with data they made themselves.
static bool may_run(mica_op op) { return !IS_ANY(op, MICA_OP_kv_append, MICA_OP_paged_attention, MICA_OP_cache_attention); }

static void random_nodes(void **unused) {
    (void)unused;
    enum { ROUNDS = 400 };
    mica_scope *s = mica_scope_new(NULL, NULL);
    for (mica_op op = 0; op < MICA_OP_COUNT; op++) {
        const mica_op_info *info = &mica_op_table[op];
        int ran = 0;
        for (int round = 0; info->infer && round < ROUNDS; round++) {
            mica_error e = {0};
            sample t = valid_sample(op);
            disturb(&t);
            mica_array *in[MICA_KERNEL_INPUTS];
            mica_scope_reset(s);
            for (int i = 0; i < t.n; i++) in[i] = random_array(s, t.in[i]);
            if (IS_ANY(op, MICA_OP_quantized_matmul, MICA_OP_dequantize, MICA_OP_rope, MICA_OP_gated_grad, MICA_OP_cross_entropy_grad, MICA_OP_adam_step,
                       MICA_OP_low_rank)) // as the public functions do
                for (int i = 0; i < t.n; i++) in[i] = in[i] ? mica_contiguous(s, in[i]) : NULL;
            if (op == MICA_OP_kv_append && in[0] && !mica_eval(s, in, 1, &e)) fail_msg("%s", e.msg); // it writes there
            if (op == MICA_OP_cache_attention && in[1] && !mica_eval(s, in + 1, 1, &e)) fail_msg("%s", e.msg);
            for (int i = 0; op == MICA_OP_adam_step && i < t.n; i++)
                if (in[i] && !mica_eval(s, in + i, 1, &e)) fail_msg("%s", e.msg);
            mica_array *a = mica_record(s, op, in, t.n, t.optional, &t.params);
            if (!a) {
                if (!mica_scope_error(s, &e) || strncmp(e.msg, info->name, strlen(info->name)))
                    fail_msg("%s refused with \"%s\"", info->name, e.msg);
                continue;
            }
            ran++;
            if (may_run(op) && mica_size(a) < 1 << 22 && !mica_eval(s, &a, 1, &e)) fail_msg("%s: %s", info->name, e.msg);
        }
        // Of nine inputs one is nearly always disturbed.
        if (info->infer && ran < ROUNDS / (op == MICA_OP_cache_attention ? 60 : 20)) fail_msg("%s: only %d random nodes were valid", info->name, ran);
    }
    mica_scope_free(s);
}

// ---- refused allocations --------------------------------------------------------------------------------------
static bool block(mica_scope *s, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)ctx, (void)n_in, (void)n_out;
    mica_array *h = mica_rms_norm(s, in[0], in[1], 1e-5f);
    mica_array *parts[9];
    for (int i = 0; i < 9; i++) parts[i] = h;
    h = mica_mean(s, mica_stack(s, parts, 9, 0), (int[]){0}, 1, false);
    out[0] = mica_add(s, in[0], mica_swiglu(s, mica_matmul(s, h, in[2]), h));
    return out[0] != NULL;
}

// Everything once: true if nothing failed; a failure must have a message.
static bool whole_network(void) {
    mica_error e = {0};
    mica_device *d = mica_device_open("cpu", &(mica_device_options){.threads = 1, .level = "ref"}, &e);
    mica_scope *s = d ? mica_scope_new(d, &e) : NULL;
    mica_array *kept = NULL, *g[3];
    bool ok = s != NULL;
    for (int step = 0; ok && step < 2; step++) {
        mica_array *key = mica_random_key(s, 1, (uint64_t)step);
        mica_array *x = mica_random_normal(s, key, MICA_SHAPE(3, 8), MICA_F32), *out = NULL, *loss = NULL;
        mica_array *in[] = {x, mica_name(mica_ones(s, MICA_SHAPE(8), MICA_F32), "norm"), mica_random_uniform(s, key, -1, 1, MICA_SHAPE(8, 8), MICA_F32)};
        if (kept) in[2] = kept;
        ok = mica_checkpoint(s, block, NULL, in, 3, &out, 1);
        loss = ok ? mica_cross_entropy(s, out, mica_argmax(s, x, -1, false)) : NULL;
        ok = ok && mica_grad(s, loss, in, 3, g) && mica_eval(s, (mica_array *[]){loss, g[0], g[1], g[2]}, 4, &e);
        if (ok && !kept) ok = (kept = mica_keep(s, mica_name(g[2], "kept"), &e)) != NULL;
        char *text = ok ? mica_to_string(g[1], &e) : NULL;
        ok = ok && text;
        mica_string_free(text);
        if (!ok && !e.msg[0]) assert_true(mica_scope_error(s, &e));
        if (s) mica_scope_reset(s);
    }
    if (!ok) assert_true(e.msg[0] && e.code == MICA_ERR_NO_MEMORY);
    mica_array_free(kept);
    mica_scope_free(s);
    mica_device_close(d);
    return ok;
}

static void every_allocation_refused(void **unused) {
    (void)unused;
    assert_true(whole_network());
    uint64_t live = mica_alloc_get_stats().live;
    uint64_t nth = 1;
    for (bool ok = false; !ok; nth++) {
        mica_alloc_fail_after(nth);
        ok = whole_network();
        bool refused = mica_alloc_failures() > 0;
        mica_alloc_fail_after(0);
        if (mica_alloc_get_stats().live != live) fail_msg("refusing allocation %d leaks", (int)nth);
        if (ok && refused) ok = false; // a refusal that did no harm (a name, a cache entry): go on
    }
    assert_true(nth > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_nodes), cmocka_unit_test(every_allocation_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
