// SPDX-License-Identifier: Apache-2.0
// Timing of prefill and decode on random ids, one or several sequences at any depth.
#include "base/rng.h"
#include "engine/state.h"
#include "infer/internal.h"
#include "mica/array.h"
#include <string.h>

typedef struct bench {
    mica_lm *lm;
    mica_cache cache;
    mica_scope *scope;
    mica_sequence *sequences, **list;
    int32_t *ids, *counts, *rows;
    int32_t n; // sequences
} bench;

// `tokens` more for every sequence; logits of each sequence's last token if wanted.
static bool forward(bench *b, int32_t tokens, bool logits, mica_error *err) {
    size_t n = 0;
    for (int32_t i = 0; i < b->n; i++) {
        if (!mica_sequence_reserve(&b->sequences[i], tokens, err)) return false;
        b->counts[i] = tokens;
        for (int32_t t = 0; t < tokens; t++, n++) b->ids[n] = (int32_t)(mica_philox_at(7, n).v[0] % (uint32_t)b->lm->info.vocab_size);
        b->rows[i] = (int32_t)n - 1;
    }
    mica_packed batch = {.sequences = b->list, .counts = b->counts, .n_sequences = (size_t)b->n, .ids = b->ids, .n = n, .rows = b->rows,
                        .n_rows = logits ? (size_t)b->n : 0};
    mica_scope_reset(b->scope);
    mica_array *out = mica_net_forward(b->lm->net, &b->cache, b->scope, &batch, err);
    if (!out || !mica_eval(b->scope, &out, 1, err)) return false;
    for (int32_t i = 0; i < b->n; i++) mica_sequence_advance(&b->sequences[i], tokens);
    return true;
}

static bool prefill(bench *b, int32_t tokens, mica_error *err) {
    int32_t chunk = MICA_MAX(MICA_CHUNK / b->n, 1);
    for (int32_t done = 0, n; done < tokens; done += n) {
        n = MICA_MIN(chunk, tokens - done);
        if (!forward(b, n, done + n == tokens, err)) return false;
    }
    return true;
}

static bool set_up(bench *b, mica_lm *m, const mica_bench_case *c, int32_t batch, mica_error *err) {
    size_t n = (size_t)batch;
    *b = (bench){.lm = m, .n = batch};
    if (!mica_cache_init(&b->cache, m->device, m->net->config, m->kv_dtype, err)) return false;
    b->scope = mica_scope_new(m->device, err);
    b->sequences = mica_calloc(n, sizeof *b->sequences);
    b->list = mica_calloc(n, sizeof *b->list);
    b->ids = mica_calloc(MICA_MAX(n, (size_t)MICA_CHUNK), sizeof *b->ids);
    b->counts = mica_calloc(n, sizeof *b->counts);
    b->rows = mica_calloc(n, sizeof *b->rows);
    if (!b->scope) return false;
    if (!b->sequences || !b->list || !b->ids || !b->counts || !b->rows) return mica_fail_memory(err, n, "a benchmark");
    for (size_t i = 0; i < n; i++) {
        mica_sequence_init(b->list[i] = &b->sequences[i], &b->cache);
        mica_sequence_adapt(b->list[i], m->adapters.own);
    }
    return mica_cache_reserve(&b->cache, (int64_t)batch * (c->depth + c->tokens + MICA_PAGE + 1), err);
}

static void tear_down(bench *b) {
    for (int32_t i = 0; b->list && b->sequences && i < b->n; i++)
        if (b->list[i]) mica_sequence_free(b->list[i]);
    mica_scope_free(b->scope);
    mica_cache_free(&b->cache);
    mica_free(b->sequences);
    mica_free(b->list);
    mica_free(b->ids);
    mica_free(b->counts);
    mica_free(b->rows);
}

// The case's list of ops, longest first.
static void list_ops(const mica_op_clock *clocks, const mica_bench_case *c) {
    for (size_t i = 0; i < c->most_ops; i++) c->ops[i] = (mica_op_time){.op = NULL};
    for (size_t op = 0; op < MICA_OP_COUNT; op++) {
        mica_op_time t = {.op = mica_op_table[op].name, .runs = (int64_t)clocks[op].runs, .seconds = clocks[op].seconds};
        for (size_t i = 0; t.runs && i < c->most_ops; i++) { // sinks to its place; the last one falls off
            if (c->ops[i].op && c->ops[i].seconds >= t.seconds) continue;
            mica_op_time other = c->ops[i];
            c->ops[i] = t, t = other;
            if (!t.op) break;
        }
    }
}

// The part that counts.
static bool run_case(bench *b, const mica_bench_case *c, double *seconds, mica_error *err) {
    mica_op_clock clocks[MICA_OP_COUNT] = {{0}};
    bool ok = true;
    if (c->ops) mica_device_measure(b->lm->device, clocks);
    double started = mica_now();
    if (!c->decode) ok = prefill(b, c->tokens, err);
    for (int32_t i = 0; ok && c->decode && i < c->tokens; i++) ok = forward(b, 1, true, err);
    *seconds = mica_now() - started;
    if (c->ops) mica_device_measure(b->lm->device, NULL), list_ops(clocks, c);
    return ok;
}

static bool measure(mica_lm *m, const mica_bench_case *c, mica_bench_times *times, mica_error *err) {
    int32_t batch = c->batch ? c->batch : 1;
    if (c->tokens < 1 || batch < 1 || c->depth < 0 || (int64_t)c->tokens + c->depth > m->context)
        return mica_fail(err, MICA_ERR_ARGUMENT, "bench: %d tokens at depth %d in batches of %d do not fit a context of %d", (int)c->tokens,
                         (int)c->depth, (int)batch, (int)m->context);
    bench b;
    bool ok = set_up(&b, m, c, batch, err);
    double started = mica_now();
    if (ok && c->depth) ok = prefill(&b, c->depth, err);
    times->depth_seconds = mica_now() - started;
    // A first step outside the clock: plans are built once per shape, and decoding needs a token to start from.
    if (ok && c->decode) ok = forward(&b, 1, true, err);
    ok = ok && run_case(&b, c, &times->seconds, err);
    tear_down(&b);
    return ok;
}

bool mica_bench(mica_model *model, const mica_bench_case *c, mica_bench_times *times, mica_error *err) {
    *times = (mica_bench_times){0};
    mica_lm *m = mica_native_retain(model, "measuring", err);
    if (!m) return false;
    bool ok = measure(m, c, times, err);
    mica_model_release(model);
    return ok;
}
