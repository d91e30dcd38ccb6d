// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Kept prefixes: a token's keys and values do not depend on where the run began that computed it; calls with a common beginning share pages,
// sliding windows included, and give what they give alone, bit for bit.
#include "base/file.h"
#include "device/cpu/isa.h"
#include "engine/state.h"
#include "model_testing.h"
#include "model/prefix.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"

// ---- rows among many = rows among others ------------------------------------------------------------------------
// Logits after ids[n], with runs that end at ends[].
static void run(mica_model *m, const int32_t *ids, const size_t *ends, size_t count, bool many, float *out) {
    mica_error err = {0};
    mica_runner r;
    const float *logits = NULL;
    size_t n = ends[count - 1];
    assert_true(mica_runner_init(&r, m->lm, (int64_t)n, &err));
    mica_sequence *q = &r.sequence;
    q->rope_length = (int64_t)n;
    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)q->length, k = ends[i] - at;
        int32_t tokens = (int32_t)k, row = tokens - 1;
        mica_packed batch = {.sequences = &q, .counts = &tokens, .n_sequences = 1, .ids = ids + at, .n = k, .rows = &row, .n_rows = 1, .rows_many = many};
        assert_true(mica_sequence_reserve(q, (int64_t)k, &err));
        mica_scope_reset(r.scope);
        mica_array *a = mica_net_forward(m->lm->net, &m->lm->cache, r.scope, &batch, &err);
        if (!a || !mica_eval(r.scope, &a, 1, &err)) fail_msg("%s", err.msg);
        logits = mica_data(a);
        mica_sequence_advance(q, (int64_t)k);
    }
    memcpy(out, logits, (size_t)m->info.vocab_size * sizeof *out);
    mica_runner_free(&r);
}

static void check_many(const char *path, const mica_load_options *options) {
    enum { N = 171 };
    static const size_t runs[][4] = {{N}, {32, N}, {64, 66, N}, {128, 169, N}, {96, 158, 163, N}};
    static const size_t counts[] = {1, 2, 3, 3, 4};
    mica_model *m = load(path, options);
    size_t V = (size_t)m->info.vocab_size;
    int32_t ids[N];
    make_ids(m, ids, N, 3);
    float *want = malloc(V * sizeof *want), *got = malloc(V * sizeof *got);
    for (size_t i = 0; i < MICA_COUNT(runs); i++) {
        run(m, ids, runs[i], counts[i], true, i ? got : want);
        if (i && memcmp(got, want, V * sizeof *got))
            fail_msg("%s, level %s, kv_bits %d, activations %s: runs of kind %zu give another result", path, options->cpu_level,
                     (int)options->kv_bits, options->activations ? options->activations : "exact", i);
    }
    run(m, ids, runs[0], 1, false, got); // so many are many unasked
    assert_memory_equal(got, want, V * sizeof *got);
    free(want), free(got);
    mica_model_free(m);
}

// Under an emulator, a hundred times slower: the level at hand, and one model of three.
#ifdef __aarch64__
enum { FIRST_LEVEL = 1, MODEL_STEP = 3 };
#else
enum { FIRST_LEVEL = 0, MODEL_STEP = 1 };
#endif

static void each_model(void (*check)(const char *path, const mica_load_options *options)) {
    static const char *const parents[] = {GOLDEN "models", GOLDEN "quant"};
    int count = 0;
    for (size_t p = 0; p < MICA_COUNT(parents); p++) {
        DIR *d = opendir(parents[p]);
        assert_non_null(d);
        for (struct dirent *f; (f = readdir(d));) {
            char *path = mica_strf("%s/%s", parents[p], f->d_name), *config = mica_strf("%s/config.json", path);
            if (f->d_name[0] != '.' && mica_is_file(config) && count++ % MODEL_STEP == 0)
                for (size_t l = FIRST_LEVEL; mica_cpu_isa_at(l); l++) {
                    mica_load_options o = {.cpu_level = mica_cpu_isa_at(l)->name, .threads = 2, .context = 4096};
                    check(path, &o);
                    if (mica_cpu_isa_at(l + 1)) continue;
                    o.kv_bits = 8, check(path, &o);
                    o.kv_bits = 0, o.activations = "int8", check(path, &o);
                }
            mica_free(path);
            mica_free(config);
        }
        closedir(d);
    }
}

static void rows_among_many_do_not_depend_on_runs(void **state) {
    (void)state;
    each_model(check_many);
}

// ---- calls ------------------------------------------------------------------------------------------------------
enum { TOKENS = 10 };
typedef struct answer {
    int32_t ids[TOKENS];
    float logprobs[TOKENS];
    int64_t cached;
} answer;

static answer ask(mica_model *m, const int32_t *ids, size_t n) {
    mica_error err = {0};
    answer a = {0};
    mica_stream *s = mica_generate_ids(m, ids, n, &(mica_generate_options){.max_tokens = TOKENS, .ignore_eos = true, .logprobs = -1}, &err);
    if (!s) fail_msg("%s", err.msg);
    mica_token t;
    for (int i = 0; i < TOKENS && mica_stream_next(s, &t); i++) a.ids[i] = t.id, a.logprobs[i] = t.logprob;
    if (mica_stream_error(s, &err)) fail_msg("%s", err.msg);
    a.cached = mica_stream_metrics(s).cached_tokens;
    mica_stream_free(s);
    return a;
}

// The prompt's answer is the one of a model that keeps nothing, and so many of its tokens were not computed.
static void check_ask(mica_model *m, mica_model *alone, const int32_t *ids, size_t n, int64_t cached) {
    answer got = ask(m, ids, n), want = ask(alone, ids, n);
    assert_int_equal(want.cached, 0);
    if (got.cached != cached) fail_msg("%d of %zu tokens were kept, not %d", (int)got.cached, n, (int)cached);
    assert_memory_equal(got.ids, want.ids, sizeof got.ids);
    assert_memory_equal(got.logprobs, want.logprobs, sizeof got.logprobs);
}

static const char *const models[] = {GOLDEN "models/gemma3-text-f32", GOLDEN "models/gemma3-text-bf16", GOLDEN "models/llama-f32",
                                     GOLDEN "models/qwen3-bf16", GOLDEN "quant/llama-4bit-g64", GOLDEN "quant/gemma3-4bit"};

static void prompts_share_their_beginnings(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        mica_model *m = load(models[k], &(mica_load_options){.threads = 2, .context = 4096});
        mica_model *alone = load(models[k], &(mica_load_options){.threads = 2, .context = 4096, .prefix_cache = -1});
        int32_t ids[1400], other[1400];
        make_ids(m, ids, 1400, 1);
        make_ids(m, other, 1400, 2);
        check_ask(m, alone, ids, 700, 0);
        check_ask(m, alone, ids, 700, 672);  // pages of 32, and two tokens to compute
        check_ask(m, alone, ids, 1400, 672);
        check_ask(m, alone, ids, 1200, 1184);
        check_ask(m, alone, ids, 520, 512);  // a last chunk of few tokens is computed as a whole
        check_ask(m, alone, ids, 600, 512);  // 88 after the chunk
        check_ask(m, alone, ids, 100, 0);    // all of it is few
        memcpy(other, ids, 300 * sizeof *ids);
        check_ask(m, alone, other, 500, 288);
        check_ask(m, alone, other, 1400, 480);
        mica_model_free(m);
        mica_model_free(alone);
    }
}

// Frequencies that depend on the prompt's length: shared only where they are the same.
static void rotary_scaling_is_respected(void **state) {
    (void)state;
    mica_model *m = load(models[2], &(mica_load_options){.threads = 2, .context = 4096});
    mica_cache *c = &m->lm->cache;
    mica_config config = *m->lm->net->config;
    int32_t ids[900];
    make_ids(m, ids, 900, 1);
    config.rope.type = MICA_ROPE_DYNAMIC, config.rope.factor = 8, config.max_position_embeddings = 600;
    const mica_config *own = m->lm->net->config;
    m->lm->net->config = c->config = &config;
    ask(m, ids, 550);
    assert_int_equal(ask(m, ids, 300).cached, 288);
    assert_int_equal(ask(m, ids, 900).cached, 0); // beyond the trained length
    assert_int_equal(ask(m, ids, 900).cached, 896);
    assert_int_equal(ask(m, ids, 899).cached, 0);
    m->lm->net->config = c->config = own;
    mica_model_free(m);
}

static void the_least_recently_used_go_first(void **state) {
    (void)state;
    mica_model *probe = load(models[0], NULL);
    int64_t page = (int64_t)(probe->lm->cache.pool[0].page_bytes + probe->lm->cache.pool[1].page_bytes);
    mica_model_free(probe);
    mica_model *m = load(models[0], &(mica_load_options){.threads = 2, .context = 4096, .prefix_cache = 20 * page});
    int32_t a[320], b[320], c[320];
    make_ids(m, a, 320, 1), make_ids(m, b, 320, 2), make_ids(m, c, 320, 3);
    ask(m, a, 320), ask(m, b, 320); // ten pages each
    assert_int_equal(ask(m, a, 320).cached, 288);
    ask(m, c, 320);                 // in place of b
    assert_int_equal(ask(m, a, 320).cached, 288);
    assert_int_equal(ask(m, c, 320).cached, 288);
    assert_int_equal(ask(m, b, 320).cached, 0);
    assert_true(m->lm->cache.prefixes.bytes <= 20 * page);
    assert_true(mica_cache_bytes(&m->lm->cache) <= 20 * page);
    assert_int_equal(m->lm->cache.prefixes.count, 20);
    mica_model_free(m);
}

// Blocks alive, without those of the plans of the device: a prefix of another length means another plan.
static int64_t live_blocks(const mica_model *m) {
    enum { BLOCKS = 7 }; // of a plan
    int64_t live = (int64_t)mica_alloc_get_stats().live;
    for (size_t i = 0; i < MICA_MOST_PLANS; i++) live -= m->lm->device->state->plans[i] ? BLOCKS : 0;
    return live;
}

// A refused allocation is an error, or only means that something is not kept; answers stay what they are.
static void every_allocation_may_fail(void **state) {
    (void)state;
    mica_model *m = load(models[0], &(mica_load_options){.threads = 1, .context = 4096});
    int32_t ids[200];
    make_ids(m, ids, 200, 1);
    answer want = ask(m, ids, 180);
    mica_prefix_clear(&m->lm->cache);
    mica_device_clear_cache(m->lm->device);
    int64_t live = live_blocks(m);
    uint64_t refused = 1;
    int n = 0;
    for (; refused; n++) {
        mica_alloc_fail_after((uint64_t)n + 1);
        for (int again = 0; again < 2; again++) {
            mica_error err = {0};
            mica_token t;
            mica_stream *s = mica_generate_ids(m, ids, 180, &(mica_generate_options){.max_tokens = TOKENS, .ignore_eos = true}, &err);
            for (int i = 0; s && mica_stream_next(s, &t); i++) assert_int_equal(t.id, want.ids[i]);
            if (s) mica_stream_error(s, &err);
            assert_true(s || err.msg[0]);
            mica_stream_free(s);
        }
        refused = mica_alloc_failures();
        mica_alloc_fail_after(0);
        assert_int_equal(mica_cache_bytes(&m->lm->cache), m->lm->cache.prefixes.bytes);
        mica_prefix_clear(&m->lm->cache);
        mica_device_clear_cache(m->lm->device);
        if (live_blocks(m) > live) fail_msg("allocation %d: %d blocks leaked", n, (int)(live_blocks(m) - live));
    }
    print_message("  %d allocations\n", n);
    mica_model_free(m);
}

static void everything_is_given_back(void **state) {
    (void)state;
    mica_alloc_stats before = mica_alloc_get_stats();
    mica_model *m = load(models[1], &(mica_load_options){.threads = 2, .context = 4096});
    int32_t ids[3000];
    make_ids(m, ids, 3000, 1);
    ask(m, ids, 3000), ask(m, ids, 2000);
    mica_model_free(m);
    assert_int_equal(mica_alloc_get_stats().live, before.live);
    assert_int_equal(mica_alloc_get_stats().bytes, before.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_among_many_do_not_depend_on_runs), cmocka_unit_test(prompts_share_their_beginnings),
        cmocka_unit_test(rotary_scaling_is_respected), cmocka_unit_test(the_least_recently_used_go_first),
        cmocka_unit_test(every_allocation_may_fail), cmocka_unit_test(everything_is_given_back),
    };
    return cmocka_run_group_tests_name("prefix", tests, NULL, NULL);
}
