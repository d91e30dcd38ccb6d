// SPDX-License-Identifier: Apache-2.0
// The runner: one sequence with its pages and scope, and a network to run over it.
#include "infer/internal.h"
#include "model/prefix.h"
#include "model/rope.h"

bool mica_check_ids(mica_lm *m, const int32_t *ids, size_t count, mica_error *err) {
    if (!count) return mica_fail(err, MICA_ERR_ARGUMENT, "the prompt is empty: there is no token to start from");
    if (count > (size_t)m->context)
        return mica_fail(err, MICA_ERR_ARGUMENT, "the prompt has %zu tokens, the context %d", count, (int)m->context);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= m->info.vocab_size)
            return mica_fail(err, MICA_ERR_ARGUMENT, "token id %d (number %zu) is outside the vocabulary of %d", (int)ids[i], i,
                             (int)m->info.vocab_size);
    return mica_cache_fits(&m->cache, (int64_t)count, err);
}

bool mica_runner_init(mica_runner *r, mica_lm *m, int64_t positions, mica_error *err) {
    *r = (mica_runner){.lm = m};
    mica_sequence_init(&r->sequence, &m->cache);
    mica_sequence_adapt(&r->sequence, m->adapters.own);
    r->scope = mica_scope_new(m->device, err);
    if (r->scope && mica_cache_reserve(&m->cache, MICA_MIN(positions, (int64_t)m->context), err)) return true;
    mica_runner_free(r);
    return false;
}

void mica_runner_free(mica_runner *r) {
    if (!r->lm) return;
    mica_sequence_free(&r->sequence);
    mica_scope_free(r->scope);
    *r = (mica_runner){0};
}

// `batch` has its ids and rows; what it computes is not counted yet.
static bool compute(mica_runner *r, mica_packed batch, const float **logits, mica_error *err) {
    if (!mica_sequence_reserve(&r->sequence, (int64_t)batch.n, err)) return false;
    mica_sequence *sequence = &r->sequence;
    int32_t count = (int32_t)batch.n;
    batch.sequences = &sequence, batch.counts = &count, batch.n_sequences = 1;
    mica_scope_reset(r->scope);
    mica_array *out = mica_net_forward(r->lm->net, &r->lm->cache, r->scope, &batch, err);
    if (!out || !mica_eval(r->scope, &out, 1, err)) return false;
    if (batch.n_rows) *logits = mica_data(out);
    return true;
}

bool mica_runner_begin(mica_runner *r, const int32_t *ids, size_t n, mica_error *err) { return mica_prefix_begin(&r->sequence, ids, n, err); }

bool mica_runner_prefill(mica_runner *r, const float **logits, mica_error *err) {
    mica_sequence *q = &r->sequence;
    size_t total = q->prompt_count, n = mica_prefix_run(q, total), at = (size_t)q->length;
    mica_packed batch = {.ids = q->prompt + at, .n = n, .rows = &(int32_t){(int32_t)n - 1}, .n_rows = at + n == total, .rows_many = q->many};
    bool ok = compute(r, batch, logits, err);
    if (ok) mica_sequence_advance(q, (int64_t)n);
    return ok;
}

bool mica_runner_forward(mica_runner *r, const int32_t *ids, size_t n, const int32_t *rows, size_t n_rows, const float **logits,
                         mica_error *err) {
    bool ok = compute(r, (mica_packed){.ids = ids, .n = n, .rows = rows, .n_rows = n_rows}, logits, err);
    if (ok) mica_sequence_advance(&r->sequence, (int64_t)n);
    return ok;
}

// Positions past the sequence's length hold what is to be verified. They are taken over one by one, or else written again by the next
// forward: so a window never lets go of a page that a rejected token alone did not need any more.
bool mica_runner_verify(mica_runner *r, const int32_t *ids, size_t n, const float **logits, mica_error *err) {
    mica_packed batch = {.ids = ids, .n = n, .rows = &(int32_t){0}, .n_rows = n, .rows_alone = n > 1};
    bool ok = compute(r, batch, logits, err);
    if (ok) mica_sequence_advance(&r->sequence, 1);
    return ok;
}

void mica_runner_keep(mica_runner *r, size_t n) { mica_sequence_advance(&r->sequence, (int64_t)n); }

size_t mica_runner_reach(const mica_runner *r, size_t most) {
    const mica_config *c = r->lm->net->config;
    int64_t length = r->sequence.length, same = r->lm->context, seen = MICA_MAX(r->sequence.rope_length, length + 1);
    same = MICA_MIN(same, mica_rope_same(c, &c->rope, seen));
    if (c->sliding_window) same = MICA_MIN(same, mica_rope_same(c, &c->rope_sliding, seen));
    return (size_t)MICA_MIN(MICA_MIN((int64_t)most, (int64_t)MICA_ROWS_ALONE), MICA_MAX(same - length, (int64_t)1));
}

void mica_memory_metrics(const mica_lm *lm, mica_metrics *k) {
    mica_memory m = mica_device_memory(lm->device);
    k->load_seconds = lm->load_seconds;
    k->active_memory_bytes = (int64_t)m.active + lm->net->mapped_bytes;
    k->peak_memory_bytes = (int64_t)m.peak + lm->net->mapped_bytes;
}
