// SPDX-License-Identifier: Apache-2.0
// Queries and keys of a prompt. What the fused attention keeps to itself is computed beside it by the separate ops: norm, then rotation.
#include "mica/attention.h"
#include "infer/internal.h"
#include "mica/array.h"
#include <string.h>

typedef struct reader {
    mica_runner runner;
    mica_attention *out;
    mica_array **q, **k; // [layers] and one more, for the hidden state
    float *row;          // one layer's, of a chunk
} reader;

static bool allocate(reader *r, const mica_lm *m, size_t count, mica_error *err) {
    const mica_config *c = m->net->config;
    mica_attention *a = r->out;
    *a = (mica_attention){.layers = (int32_t)c->num_layers, .heads = (int32_t)c->num_heads, .kv_heads = (int32_t)c->num_kv_heads,
                          .head_dim = (int32_t)c->head_dim, .count = count, .scale = (float)c->query_scale};
    size_t layers = (size_t)c->num_layers, each = (size_t)(c->num_layers * c->head_dim) * sizeof(float), token = (size_t)(c->num_heads * c->head_dim), q, k;
    if (!mica_size_mul(count, each * (size_t)c->num_heads, &q) || !mica_size_mul(count, each * (size_t)c->num_kv_heads, &k))
        return mica_fail_memory(err, SIZE_MAX, "queries and keys");
    a->q = mica_alloc(q);
    a->k = mica_alloc(k);
    a->window = mica_calloc(layers, sizeof *a->window);
    r->q = mica_calloc(2 * layers + 1, sizeof *r->q);
    r->row = mica_alloc(MICA_CHUNK * token * sizeof *r->row);
    if (!a->q || !a->k || !a->window || !r->q || !r->row) return mica_fail_memory(err, q + k, "queries and keys");
    r->k = r->q + layers;
    for (int64_t i = 0; i < c->num_layers; i++)
        if (mica_layer_group(c, i)) a->window[i] = (int32_t)c->sliding_window;
    return mica_runner_init(&r->runner, (mica_lm *)(uintptr_t)m, (int64_t)count, err);
}

// x [1, heads, n, Dh] to positions at … of to[heads, count, Dh].
static bool copy_heads(reader *r, mica_array *x, size_t n, size_t heads, size_t at, float *to, mica_error *err) {
    size_t dim = (size_t)r->out->head_dim;
    if (!mica_read_f32(x, r->row, n * heads * dim, err)) return false;
    for (size_t h = 0; h < heads; h++) memcpy(to + (h * r->out->count + at) * dim, r->row + h * n * dim, n * dim * sizeof *to);
    return true;
}

static bool read_chunk(reader *r, const int32_t *ids, size_t at, size_t n, mica_error *err) {
    mica_attention *a = r->out;
    mica_sequence *q = &r->runner.sequence;
    size_t layers = (size_t)a->layers, dim = (size_t)a->head_dim, heads = (size_t)a->heads, kv_heads = (size_t)a->kv_heads;
    int32_t count = (int32_t)n;
    if (!mica_sequence_reserve(q, count, err)) return false;
    mica_packed batch = {.sequences = &q, .counts = &count, .n_sequences = 1, .ids = ids + at, .n = n, .q = r->q, .k = r->k};
    mica_scope_reset(r->runner.scope);
    mica_array *out = mica_net_forward(r->runner.lm->net, &r->runner.lm->cache, r->runner.scope, &batch, err);
    r->q[2 * layers] = out;
    if (!out || !mica_eval(r->runner.scope, r->q, 2 * layers + 1, err)) return false;
    mica_sequence_advance(q, count);
    for (size_t l = 0; l < layers; l++)
        if (!copy_heads(r, r->q[l], n, heads, at, a->q + l * heads * a->count * dim, err) ||
            !copy_heads(r, r->k[l], n, kv_heads, at, a->k + l * kv_heads * a->count * dim, err))
            return false;
    return true;
}

static bool read_all(mica_lm *m, const int32_t *ids, size_t count, mica_attention *out, mica_error *err) {
    reader r = {.out = out};
    if (!mica_check_ids(m, ids, count, err)) return false;
    bool ok = allocate(&r, m, count, err);
    if (ok) r.runner.sequence.rope_length = (int64_t)count;
    for (size_t at = 0, n; ok && at < count; at += n) {
        n = MICA_MIN(count - at, (size_t)MICA_CHUNK);
        ok = read_chunk(&r, ids, at, n, err);
    }
    mica_runner_free(&r.runner);
    mica_free(r.q);
    mica_free(r.row);
    if (!ok) mica_attention_free(out);
    return ok;
}

bool mica_attention_read(mica_model *model, const int32_t *ids, size_t count, mica_attention *out, mica_error *err) {
    *out = (mica_attention){0};
    mica_lm *m = mica_native_retain(model, "attention", err);
    if (!m) return false;
    bool ok = read_all(m, ids, count, out, err);
    mica_model_release(model);
    return ok;
}

void mica_attention_free(mica_attention *a) {
    mica_free(a->q);
    mica_free(a->k);
    mica_free(a->window);
    *a = (mica_attention){0};
}
