// SPDX-License-Identifier: Apache-2.0
// The runner: one sequence with its pages and scope, and a network to run over it.
#include "infer/internal.h"

bool mica_check_ids(const mica_model *m, const int32_t *ids, size_t count, mica_error *err) {
    if (!count) return mica_fail(err, MICA_ERR_ARGUMENT, "the prompt is empty: there is no token to start from");
    if (count > (size_t)m->context)
        return mica_fail(err, MICA_ERR_ARGUMENT, "the prompt has %zu tokens, the context %d", count, (int)m->context);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= m->info.vocab_size)
            return mica_fail(err, MICA_ERR_ARGUMENT, "token id %d (number %zu) is outside the vocabulary of %d", (int)ids[i], i,
                             (int)m->info.vocab_size);
    return true;
}

bool mica_runner_init(mica_runner *r, mica_model *m, int64_t positions, mica_error *err) {
    *r = (mica_runner){.model = m};
    if (!mica_cache_init(&r->cache, m->device, m->net->config, m->net->dtype, err)) return false;
    mica_sequence_init(&r->sequence, &r->cache);
    r->scope = mica_scope_new(m->device, err);
    if (r->scope && mica_cache_reserve(&r->cache, MICA_MIN(positions, (int64_t)m->context), err)) return true;
    mica_runner_free(r);
    return false;
}

void mica_runner_free(mica_runner *r) {
    if (!r->model) return;
    mica_sequence_free(&r->sequence);
    mica_scope_free(r->scope);
    mica_cache_free(&r->cache);
    *r = (mica_runner){0};
}

bool mica_runner_forward(mica_runner *r, const int32_t *ids, size_t n, const int32_t *rows, size_t n_rows, const float **logits,
                         mica_error *err) {
    if (!mica_sequence_reserve(&r->sequence, (int64_t)n, err)) return false;
    mica_sequence *sequence = &r->sequence;
    int32_t count = (int32_t)n;
    mica_batch batch = {.sequences = &sequence, .counts = &count, .n_sequences = 1, .ids = ids, .n = n, .rows = rows, .n_rows = n_rows};
    mica_scope_reset(r->scope);
    mica_array *out = mica_net_forward(r->model->net, &r->cache, r->scope, &batch, err);
    if (!out || !mica_eval(r->scope, &out, 1, err)) return false;
    mica_sequence_advance(sequence, count);
    if (n_rows) *logits = mica_data(out);
    return true;
}

void mica_memory_metrics(const mica_runner *r, mica_metrics *k) {
    mica_memory m = mica_device_memory(r->model->device);
    k->load_seconds = r->model->load_seconds;
    k->active_memory_bytes = (int64_t)m.active + r->model->net->mapped_bytes;
    k->peak_memory_bytes = (int64_t)m.peak + r->model->net->mapped_bytes;
}
