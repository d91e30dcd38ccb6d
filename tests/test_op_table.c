// SPDX-License-Identifier: Apache-2.0
// Every op of the table through the public functions, against an oracle in double: odd shapes, views of every kind, empty
// arrays, scalars, every type it accepts; what it must refuse; all levels of this CPU; one to four threads bit for bit
// (two counts at all but the best level).
// The tests are made from engine/op.def: an op without a case fails.
#include "ops/backward.h"
#include "ops/elementwise.h"
#include "ops/fast.h"
#include "ops/indexing.h"
#include "ops/low_rank.h"
#include "ops/products.h"
#include "ops/reductions.h"
#include "ops/segments.h"
#include "device/cpu/isa.h"

static void case_products(rig *r) {
    case_matmul(r);
    check_mixed_products(r);
}
static void case_turns(rig *r) {
    case_rope(r);
    check_rope_back(r);
}

typedef void case_fn(rig *r);
static const struct { const char *name; case_fn *run; } cases[] = {
#define CASE(name) {#name, case_##name}
    CASE(neg), CASE(exp), CASE(log), CASE(sigmoid), CASE(silu), CASE(tanh), CASE(gelu), CASE(gelu_tanh), CASE(relu), CASE(sqrt),
    CASE(rsqrt), CASE(reciprocal), CASE(square), CASE(abs), CASE(sin), CASE(cos), CASE(erf), CASE(logical_not), CASE(astype),
    CASE(contiguous), CASE(add), CASE(sub), CASE(mul), CASE(div), CASE(power), CASE(maximum), CASE(minimum), CASE(equal),
    CASE(not_equal), CASE(less), CASE(less_equal), CASE(greater), CASE(greater_equal), CASE(logical_and), CASE(logical_or),
    CASE(where), {"matmul", case_products}, CASE(quantized_matmul), CASE(quantize_weights), CASE(quantize_scales), CASE(quantize_biases),
    CASE(dequantize), CASE(linear_packed), CASE(take_packed), CASE(sum), CASE(mean), CASE(max), CASE(min), CASE(logsumexp),
    CASE(softmax), CASE(argmax), CASE(cumsum), CASE(sort), CASE(argsort), CASE(argpartition), CASE(slice_update),
    CASE(concatenate), CASE(tril), CASE(triu), CASE(take), CASE(take_along_axis), CASE(put_along_axis), CASE(scatter_add),
    CASE(scatter_add_along_axis), CASE(full), CASE(arange), CASE(random_uniform), CASE(random_normal), CASE(random_round), CASE(rms_norm),
    CASE(layer_norm), CASE(swiglu), CASE(geglu), CASE(rope_table), {"rope", case_turns}, CASE(sdpa), CASE(kv_append), CASE(paged_attention),
    CASE(cache_attention), CASE(segment_attention), CASE(segment_attention_grad), CASE(rms_norm_grad), CASE(gated_grad), CASE(cross_entropy_grad),
    CASE(sum_squares), CASE(adam_step), CASE(low_rank),
};

#ifdef __SANITIZE_ADDRESS__ // several times slower: one thread, and four at the best level
enum { SANITIZED = true };
#else
enum { SANITIZED = false };
#endif
enum { MOST_LEVELS = 8, MOST_THREADS = 4 };
static rig rigs[MOST_LEVELS][MOST_THREADS];
static size_t level_count;

static int open_rigs(void **state) {
    (void)state;
    for (; mica_cpu_isa_at(level_count) && level_count < MOST_LEVELS; level_count++)
        for (int t = 0; t < MOST_THREADS; t++) {
            bool best = !mica_cpu_isa_at(level_count + 1);
            if (SANITIZED ? t > 0 && !(best && t == 3) : !best && t % 2) continue;
            rig *r = &rigs[level_count][t];
            mica_error err = {0};
            r->threads = t + 1;
            r->device = mica_device_open("cpu", &(mica_device_options){mica_cpu_isa_at(level_count)->name, t + 1}, &err);
            if (!r->device || !(r->s = mica_scope_new(r->device, &err))) {
                print_error("%s\n", err.msg);
                return 1;
            }
        }
    print_message("levels:");
    for (size_t i = 0; i < level_count; i++) print_message(" %s", mica_cpu_isa_at(i)->name);
    print_message("; 1 to %d threads\n", MOST_THREADS);
    return 0;
}

static int close_rigs(void **state) {
    (void)state;
    for (size_t i = 0; i < level_count; i++)
        for (int t = 0; t < MOST_THREADS; t++) {
            if (!rigs[i][t].s) continue;
            mica_scope_free(rigs[i][t].s);
            mica_device_close(rigs[i][t].device);
            mica_arena_free(&rigs[i][t].arena);
            mica_free(rigs[i][t].log);
        }
    return mica_alloc_get_stats().live == 0 ? 0 : 1; // nothing leaked
}

static void every_level(void **state) {
    const char *op = *state;
    case_fn *run = NULL;
    for (size_t i = 0; i < MICA_COUNT(cases); i++)
        if (!strcmp(cases[i].name, op)) run = cases[i].run;
    if (!run) fail_msg("op %s has no case here", op);
    for (size_t i = 0; i < level_count; i++)
        for (int t = 0; t < MOST_THREADS; t++) {
            rig *r = &rigs[i][t], *one = &rigs[i][0];
            if (!r->s) continue;
            mica_scope_reset(r->s);
            mica_arena_reset(&r->arena);
            r->counter = 0, r->logged = 0;
            run(r);
            assert_int_equal(r->logged, one->logged);
            for (size_t k = 0; k < r->logged; k++)
                if (r->log[k] != one->log[k])
                    fail_msg("%s, level %s: result %zu differs between 1 and %d threads", op, mica_device_level(r->device), k, t + 1);
        }
    assert_true(rigs[0][0].logged > 0);
}

int main(int argc, char **argv) {
    static const struct { const char *name; unsigned flags; } ops[] = {
#define LEAF MICA_FLAG_LEAF
#define VIEW MICA_FLAG_VIEW
#define NONE 0
#define ELEMENTWISE 0
#define IN_PLACE 0
#define MICA_OP(name, flags, gradient) {#name, flags},
#include "engine/op.def"
#undef MICA_OP
    };
    struct CMUnitTest tests[MICA_COUNT(ops)];
    size_t count = 0;
    for (size_t i = 0; i < MICA_COUNT(ops); i++) {
        bool wanted = argc < 2; // test_op_table OP…: only these
        for (int k = 1; k < argc; k++) wanted |= !strcmp(argv[k], ops[i].name);
        if (wanted && !ops[i].flags) tests[count++] = (struct CMUnitTest){ops[i].name, every_level, NULL, NULL, (void *)(uintptr_t)ops[i].name};
    }
    return _cmocka_run_group_tests("ops", tests, count, open_rigs, close_rigs);
}
