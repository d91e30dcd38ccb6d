// SPDX-License-Identifier: Apache-2.0
// Teacher-forced scoring: the ids are computed in chunks whose logits stay within a few tens of megabytes.
#include "infer/internal.h"
#include "infer/sampler.h"
#include <math.h>
#include <string.h>

size_t mica_logits_chunk(size_t vocab) {
    const size_t most = (size_t)64 << 20; // bytes of logits
    size_t n = most / (vocab * sizeof(float));
    return MICA_MIN(MICA_MAX(n, (size_t)16), (size_t)MICA_CHUNK);
}

static bool allocate(mica_scores *out, size_t count, size_t top_k) {
    *out = (mica_scores){.count = count, .top_k = (int32_t)top_k, .perplexity = (double)NAN};
    size_t cells;
    if (!mica_size_mul(count, top_k, &cells) || cells > SIZE_MAX / sizeof *out->top) return false;
    out->logprobs = mica_alloc(count * sizeof *out->logprobs);
    out->top = mica_alloc(cells * sizeof *out->top);
    return out->logprobs && out->top;
}

static bool score_all(mica_runner *r, const int32_t *ids, mica_scores *out, mica_candidate *scratch, int32_t *rows, mica_error *err) {
    size_t vocab = (size_t)r->lm->info.vocab_size, chunk = mica_logits_chunk(vocab), top_k = (size_t)out->top_k;
    double sum = 0;
    for (size_t i = 0; i < chunk; i++) rows[i] = (int32_t)i;
    out->logprobs[0] = NAN;
    for (size_t at = 0, n; at < out->count; at += n) {
        const float *logits;
        n = MICA_MIN(chunk, out->count - at);
        if (!mica_runner_forward(r, ids + at, n, rows, n, &logits, err)) return false;
        for (size_t i = 0; i < n; i++, logits += vocab) {
            double total = mica_logsumexp_f32(logits, vocab);
            if (isnan(total)) return mica_fail(err, MICA_ERR_FORMAT, "the model's logits are not finite: its weights hold NaN or infinite values");
            mica_top_logprobs(logits, vocab, total, top_k, scratch, out->top + (at + i) * top_k);
            if (at + i + 1 == out->count) break;
            out->logprobs[at + i + 1] = (float)((double)logits[ids[at + i + 1]] - total);
            sum += (double)out->logprobs[at + i + 1];
        }
    }
    if (out->count > 1) out->perplexity = exp(-sum / (double)(out->count - 1));
    return true;
}

static bool score(mica_lm *m, const int32_t *ids, size_t count, int32_t top_k, mica_scores *out, mica_error *err) {
    if (!mica_check_ids(m, ids, count, err)) return false;
    if (top_k < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "top must not be negative, got %d", (int)top_k);
    size_t vocab = (size_t)m->info.vocab_size, k = MICA_MIN((size_t)top_k, vocab);
    double started = mica_now();
    mica_runner r = {0};
    mica_candidate *scratch = mica_alloc(vocab * sizeof *scratch);
    int32_t *rows = mica_alloc((size_t)MICA_CHUNK * sizeof *rows);
    bool ok = scratch && rows && allocate(out, count, k);
    if (!ok) mica_fail_memory(err, count * k * sizeof *out->top, "scores");
    ok = ok && mica_runner_init(&r, m, (int64_t)count, err);
    if (ok) {
        r.sequence.rope_length = (int64_t)count;
        ok = score_all(&r, ids, out, scratch, rows, err);
        double seconds = mica_now() - started;
        out->metrics = (mica_metrics){.prompt_tokens = (int64_t)count, .prefill_seconds = seconds, .total_seconds = seconds,
                                      .prefill_tokens_per_second = (double)count / seconds};
        mica_memory_metrics(m, &out->metrics);
    }
    mica_runner_free(&r);
    mica_free(scratch);
    mica_free(rows);
    if (!ok) mica_scores_free(out);
    return ok;
}

bool mica_score(mica_model *model, const int32_t *ids, size_t count, int32_t top_k, mica_scores *out, mica_error *err) {
    *out = (mica_scores){0};
    mica_lm *m = mica_native_retain(model, "scoring", err);
    if (!m) return false;
    bool ok = score(m, ids, count, top_k, out, err);
    mica_model_release(model);
    return ok;
}

void mica_scores_free(mica_scores *s) {
    mica_free(s->logprobs);
    mica_free(s->top);
    *s = (mica_scores){0};
}
