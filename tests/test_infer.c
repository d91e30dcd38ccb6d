// SPDX-License-Identifier: Apache-2.0
// Running models: equal results however the work is cut, pages shared and released, nothing allocated per token, every failure clean.
#include "faults_testing.h"
#include "infer/internal.h"
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/models/"
static const char *const models[] = {GOLDEN "gemma3-text-f32", GOLDEN "gemma3-text-bf16", GOLDEN "llama-f32", GOLDEN "qwen3-bf16",
                                     MICA_SOURCE_DIR "/tests/golden/quant/llama-4bit-g64"};

static mica_model *load_kv(const char *path, int32_t threads, int32_t context, int32_t kv_bits) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.threads = threads, .context = context, .kv_bits = kv_bits}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static mica_model *load(const char *path, int32_t threads, int32_t context) { return load_kv(path, threads, context, 0); }

static void make_ids(const mica_model *m, int32_t *ids, size_t n) {
    uint32_t x = 12345;
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((x = x * 1664525 + 1013904223) >> 8) % m->info.vocab_size;
}

// Logits after the last of ids[n], computed in pieces of `chunk`, copied to out[V].
static void run(mica_model *m, const int32_t *ids, size_t n, size_t chunk, float *out) {
    mica_error err = {0};
    mica_runner r;
    assert_true(mica_runner_init(&r, m->lm, (int64_t)n, &err));
    r.sequence.rope_length = (int64_t)n;
    const float *logits = NULL;
    for (size_t at = 0, k; at < n; at += k) {
        k = MICA_MIN(chunk, n - at);
        int32_t row = (int32_t)k - 1;
        if (!mica_runner_forward(&r, ids + at, k, &row, at + k == n, &logits, &err)) fail_msg("%s", err.msg);
    }
    memcpy(out, logits, (size_t)m->info.vocab_size * sizeof *out);
    mica_runner_free(&r);
}

static float distance(const float *a, const float *b, size_t n) {
    float most = 0;
    for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(a[i] - b[i]));
    return most;
}

static void threads_and_reruns_are_bit_equal(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        float *first = NULL;
        for (int32_t threads = 1; threads <= 4; threads++) {
            mica_model *m = load(models[k], threads, 0);
            size_t V = (size_t)m->info.vocab_size;
            int32_t ids[45];
            make_ids(m, ids, 45);
            float *out = malloc(V * sizeof *out);
            for (int again = 0; again < 2; again++) {
                run(m, ids, 45, 20, out);
                if (first) assert_memory_equal(out, first, V * sizeof *out);
                else first = memcpy(malloc(V * sizeof *out), out, V * sizeof *out);
            }
            free(out);
            mica_model_free(m);
        }
        free(first);
    }
}

// The bound: f32 1e-4, bf16 a few units of rounding of the logits.
static float tolerance(const mica_model *m) { return m->lm->net->dtype == MICA_F32 ? 1e-4f : 0.35f; }

static void pieces_agree(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        mica_model *m = load(models[k], 2, 0);
        size_t V = (size_t)m->info.vocab_size, n = 60;
        int32_t ids[60];
        make_ids(m, ids, n);
        float *whole = malloc(V * sizeof *whole), *part = malloc(V * sizeof *part);
        run(m, ids, n, n, whole);
        const size_t chunks[] = {1, 7, 32, 33};
        for (size_t c = 0; c < MICA_COUNT(chunks); c++) {
            run(m, ids, n, chunks[c], part);
            float d = distance(whole, part, V);
            print_message("  %s: chunks of %zu: max |dlogit| %.2e\n", strrchr(models[k], '/') + 1, chunks[c], (double)d);
            if (!(d <= tolerance(m))) fail_msg("%s: chunks of %zu differ by %g", models[k], chunks[c], (double)d);
        }
        free(whole);
        free(part);
        mica_model_free(m);
    }
}

static void far_positions_agree(void **state) {
    (void)state;
    for (size_t k = 0; k < 3; k += 2) { // gemma3 (window 8) and llama, f32
        enum { N = 5001 };
        mica_model *m = load(models[k], 2, N + 8);
        size_t V = (size_t)m->info.vocab_size;
        int32_t *ids = malloc(N * sizeof *ids);
        make_ids(m, ids, N);
        float *whole = malloc(V * sizeof *whole), *part = malloc(V * sizeof *part);
        run(m, ids, N, N, whole);
        run(m, ids, N, 333, part);
        float d = distance(whole, part, V);
        print_message("  %s at position 5000: max |dlogit| %.2e\n", strrchr(models[k], '/') + 1, (double)d);
        assert_true(d <= 1e-3f);
        free(ids);
        free(whole);
        free(part);
        mica_model_free(m);
    }
}

// Two sequences of different lengths in one batch against each alone.
static void ragged_batch_agrees(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        mica_model *m = load(models[k], 2, 0);
        mica_error err = {0};
        size_t V = (size_t)m->info.vocab_size;
        int32_t ids[64];
        make_ids(m, ids, 64);
        mica_cache cache;
        mica_sequence a, b, *list[] = {&a, &b};
        assert_true(mica_cache_init(&cache, m->lm->device, m->lm->net->config, m->lm->net->dtype, &err));
        mica_sequence_init(&a, &cache);
        mica_sequence_init(&b, &cache);
        mica_scope *s = mica_scope_new(m->lm->device, &err);
        // Step 1: 40 tokens of a with 11 of b; step 2: one of a with 12 of b.
        const int32_t counts[2][2] = {{40, 11}, {1, 12}};
        float *got = malloc(2 * V * sizeof *got), *want = malloc(V * sizeof *want);
        for (int step = 0; step < 2; step++) {
            int32_t packed[64], n = 0, rows[2];
            for (int q = 0; q < 2; q++) {
                assert_true(mica_sequence_reserve(list[q], counts[step][q], &err));
                for (int32_t t = 0; t < counts[step][q]; t++) packed[n++] = ids[(size_t)(list[q]->length + t + q)];
                rows[q] = n - 1;
            }
            mica_packed batch = {.sequences = list, .counts = counts[step], .n_sequences = 2, .ids = packed, .n = (size_t)n, .rows = rows, .n_rows = 2};
            mica_scope_reset(s);
            mica_array *out = mica_net_forward(m->lm->net, &cache, s, &batch, &err);
            if (!out || !mica_read_f32(out, got, 2 * V, &err)) fail_msg("%s", err.msg);
            for (int q = 0; q < 2; q++) mica_sequence_advance(list[q], counts[step][q]);
        }
        for (int q = 0; q < 2; q++) {
            run(m, ids + q, (size_t)list[q]->length, 64, want);
            float d = distance(got + (size_t)q * V, want, V);
            if (!(d <= tolerance(m))) fail_msg("%s: row %d of a batch differs by %g", models[k], q, (double)d);
        }
        mica_scope_free(s);
        mica_sequence_free(&a);
        mica_sequence_free(&b);
        mica_cache_free(&cache);
        free(got);
        free(want);
        mica_model_free(m);
    }
}

static size_t pages_in_use(const mica_cache *c, int g) { return (size_t)c->pool[g].used; }

static void forks_with(int32_t kv_bits) {
    // What prefill and decoding make of the same codes differs by their rounding of them; and a changed code moves a logit.
    const float near = kv_bits == 8 ? 2e-2f : 1e-4f;
    mica_model *m = load_kv(models[0], 2, 0, kv_bits);
    mica_error err = {0};
    size_t V = (size_t)m->info.vocab_size;
    int32_t ids[60], other[60];
    make_ids(m, ids, 60);
    memcpy(other, ids, sizeof ids);
    for (int i = 40; i < 60; i++) other[i] = (ids[i] + 1) % m->info.vocab_size;
    float *want = malloc(V * sizeof *want);
    const float *logits;
    mica_runner r;
    assert_true(mica_runner_init(&r, m->lm, 60, &err));
    assert_true(mica_runner_forward(&r, ids, 40, NULL, 0, NULL, &err));
    size_t before = pages_in_use(r.sequence.cache, 0);
    mica_sequence first, second;
    assert_true(mica_sequence_fork(&r.sequence, &second, &err));
    assert_int_equal(pages_in_use(r.sequence.cache, 0), before); // all shared
    assert_true(mica_runner_forward(&r, ids + 40, 20, &(int32_t){19}, 1, &logits, &err));
    run(m, ids, 60, 60, want);
    assert_true(distance(logits, want, V) <= near);
    first = r.sequence;
    r.sequence = second;
    assert_true(mica_runner_forward(&r, other + 40, 20, &(int32_t){19}, 1, &logits, &err));
    run(m, other, 60, 60, want);
    assert_true(distance(logits, want, V) <= near);
    mica_sequence_free(&r.sequence);
    // Rolled back by one token and computed again: the same.
    r.sequence = first;
    assert_true(mica_sequence_truncate(&r.sequence, 59));
    assert_true(mica_runner_forward(&r, ids + 59, 1, &(int32_t){0}, 1, &logits, &err));
    run(m, ids, 60, 60, want);
    assert_true(distance(logits, want, V) <= near);
    mica_sequence_free(&r.sequence);
    mica_sequence_init(&r.sequence, &m->lm->cache);
    assert_int_equal(pages_in_use(r.sequence.cache, 0), 0);
    assert_int_equal(pages_in_use(r.sequence.cache, 1), 0);
    mica_runner_free(&r);
    free(want);
    mica_model_free(m);
}

static void forks_share_and_copy_on_write(void **state) {
    (void)state;
    forks_with(16);
    forks_with(8);
}

// 8-bit pages: nearly the logits of exact ones, in about half the memory; other widths are refused.
static void codes_in_the_cache(void **state) {
    (void)state;
    mica_error err = {0};
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        mica_model *m = load(models[k], 2, 0), *m8 = load_kv(models[k], 2, 0, 8);
        size_t V = (size_t)m->info.vocab_size;
        int32_t ids[45];
        make_ids(m, ids, 45);
        float *a = malloc(V * sizeof *a), *b = malloc(V * sizeof *b), most = 0;
        run(m, ids, 45, 45, a);
        for (size_t chunk = 1; chunk <= 45; chunk += 22) {
            run(m8, ids, 45, chunk, b);
            for (size_t i = 0; i < V; i++) most = fmaxf(most, fabsf(a[i]));
            print_message("  %s, pieces of %zu: logits differ by %g of %g\n", strrchr(models[k], '/') + 1, chunk, (double)distance(a, b, V), (double)most);
            assert_true(distance(a, b, V) <= most * 0.05f);
        }
        assert_true(m8->info.kv_bytes_per_token < m->info.kv_bytes_per_token);
        free(a), free(b), mica_model_free(m), mica_model_free(m8);
    }
    assert_null(mica_model_load(models[0], &(mica_load_options){.kv_bits = 4}, &err));
    assert_string_equal(err.msg, "kv_bits must be 8 or 16, got 4");
}

static void windows_release_pages(void **state) {
    (void)state;
    mica_model *m = load(models[0], 2, 4096);
    mica_error err = {0};
    mica_runner r;
    int32_t ids[1000];
    make_ids(m, ids, 1000);
    assert_true(mica_runner_init(&r, m->lm, 64, &err));
    for (int i = 0; i < 1000; i++) {
        assert_true(mica_runner_forward(&r, &ids[i], 1, NULL, 0, NULL, &err));
        assert_true(pages_in_use(r.sequence.cache, 1) <= 2); // window 8, pages of 32
    }
    assert_int_equal(pages_in_use(r.sequence.cache, 0), (1000 + MICA_PAGE - 1) / MICA_PAGE);
    assert_false(mica_sequence_truncate(&r.sequence, 100)); // the window before 100 is gone
    mica_runner_free(&r);
    mica_model_free(m);
}

static void steady_decode_allocates_nothing(void **state) {
    (void)state;
    for (size_t k = 0; k < MICA_COUNT(models); k++) {
        mica_model *m = load(models[k], 2, 4096);
        mica_error err = {0};
        int32_t ids[20];
        make_ids(m, ids, 20);
        mica_stream *s = mica_generate_ids(m, ids, 20, &(mica_generate_options){.max_tokens = 2000, .ignore_eos = true, .temperature = 1, .top_p = 0.9f}, &err);
        mica_token t;
        for (int i = 0; i < 20; i++) assert_true(mica_stream_next(s, &t));
        uint64_t calls = mica_alloc_get_stats().calls;
        for (int i = 0; i < 200; i++) assert_true(mica_stream_next(s, &t));
        uint64_t after = mica_alloc_get_stats().calls;
        if (after != calls) fail_msg("%s: %d allocations in 200 tokens", models[k], (int)(after - calls));
        // Over a long answer only page tables and their plans grow: a logarithmic number of times.
        size_t bytes = 0;
        for (int i = 0; i < 1700; i++) {
            assert_true(mica_stream_next(s, &t));
            if (i == 200) bytes = mica_alloc_get_stats().bytes;
        }
        assert_true(mica_alloc_get_stats().bytes < bytes + (1u << 20));
        mica_stream_free(s);
        mica_model_free(m);
    }
}

static void streams_end_as_told(void **state) {
    (void)state;
    mica_model *m = load(models[2], 2, 64);
    mica_error err = {0};
    mica_token t;
    int32_t ids[10];
    make_ids(m, ids, 10);
    mica_stream *s = mica_generate_ids(m, ids, 10, &(mica_generate_options){.max_tokens = 3, .ignore_eos = true}, &err);
    int32_t answer[3];
    for (int i = 0; i < 3; i++) assert_true(mica_stream_next(s, &t)), answer[i] = t.id;
    assert_false(mica_stream_next(s, &t));
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_LENGTH);
    assert_int_equal(mica_stream_metrics(s).generated_tokens, 3);
    mica_stream_free(s);
    // A stop id ends it before that token; min_tokens forbids it at first.
    s = mica_generate_ids(m, ids, 10, &(mica_generate_options){.max_tokens = 3, .ignore_eos = true, .stop_ids = &answer[0], .stop_id_count = 1}, &err);
    while (mica_stream_next(s, &t)) assert_true(t.id != answer[0]);
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_STOP);
    assert_int_equal(mica_stream_metrics(s).generated_tokens, 0);
    mica_stream_free(s);
    s = mica_generate_ids(m, ids, 10, &(mica_generate_options){.max_tokens = 5, .min_tokens = 2, .stop_ids = &answer[0], .stop_id_count = 1}, &err);
    assert_true(mica_stream_next(s, &t) && t.id >= 0 && t.id != answer[0]);
    mica_stream_cancel(s);
    while (mica_stream_next(s, &t)) assert_int_equal(t.id, -1);
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_CANCELLED);
    mica_stream_free(s);
    // The context is a wall, not a crash.
    s = mica_generate_ids(m, ids, 10, &(mica_generate_options){.max_tokens = 500, .ignore_eos = true}, &err);
    int n = 0;
    while (mica_stream_next(s, &t)) n += t.id >= 0;
    assert_int_equal(n, 64 - 10 + 1);
    assert_int_equal(mica_stream_finish(s), MICA_FINISH_LENGTH);
    mica_stream_free(s);
    mica_model_free(m);
}

static void bad_prompts_are_refused(void **state) {
    (void)state;
    mica_model *m = load(models[2], 2, 16);
    mica_error err = {0};
    int32_t ids[17] = {0};
    assert_null(mica_generate_ids(m, ids, 0, NULL, &err));
    assert_non_null(strstr(err.msg, "empty"));
    assert_null(mica_generate_ids(m, ids, 17, NULL, &err));
    assert_non_null(strstr(err.msg, "17 tokens, the context 16"));
    ids[3] = m->info.vocab_size;
    assert_null(mica_generate_ids(m, ids, 5, NULL, &err));
    assert_non_null(strstr(err.msg, "number 3"));
    mica_scores scores;
    assert_false(mica_score(m, ids, 5, 0, &scores, &err));
    assert_null(mica_generate_ids(m, ids, 1, &(mica_generate_options){.top_p = 7}, &err));
    assert_non_null(strstr(err.msg, "top_p"));
    mica_model_free(m);
}

static bool load_and_generate(mica_error *err) {
    mica_model *m = mica_model_load(models[4], &(mica_load_options){.threads = 1}, err);
    if (!m) return false;
    mica_stream *s = mica_generate_ids(m, (int32_t[]){1, 2, 3}, 3, &(mica_generate_options){.max_tokens = 3, .ignore_eos = true, .logprobs = 2}, err);
    mica_token t;
    while (s && mica_stream_next(s, &t)) {}
    bool ok = s && !mica_stream_error(s, err);
    mica_stream_free(s);
    mica_model_free(m);
    return ok;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    mica_error err = {0};
    assert_true(load_and_generate(&err)); // caches that live as long as the process are made here
    uint64_t live = mica_alloc_get_stats().live;
    bool ok = false;
    uint64_t n = 1;
    for (; !ok; n += n < 300 ? 1 : 7) ok = run_refused(load_and_generate, n, live);
    print_message("  %d allocations\n", (int)n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_reruns_are_bit_equal), cmocka_unit_test(pieces_agree), cmocka_unit_test(far_positions_agree),
        cmocka_unit_test(ragged_batch_agrees), cmocka_unit_test(forks_share_and_copy_on_write), cmocka_unit_test(windows_release_pages), cmocka_unit_test(codes_in_the_cache),
        cmocka_unit_test(steady_decode_allocates_nothing), cmocka_unit_test(streams_end_as_told), cmocka_unit_test(bad_prompts_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("infer", tests, NULL, NULL);
}
