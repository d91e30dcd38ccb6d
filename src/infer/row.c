// SPDX-License-Identifier: Apache-2.0
// One answer, whoever computes it. Text passes through the detokeniser (whole characters only) and the stop matcher (possible stop texts held
// back).
#include "infer/row.h"
#include "infer/adapters.h"
#include <math.h>
#include <string.h>

// ---- set-up -------------------------------------------------------------------------------------------------
static bool copy_ids(const int32_t *ids, size_t count, int32_t **out, mica_error *err) {
    *out = mica_alloc(count * sizeof **out);
    if (!*out) return mica_fail_memory(err, count * sizeof **out, "token ids");
    if (count) memcpy(*out, ids, count * sizeof **out);
    return true;
}

static bool collect_ends(mica_row *s, const mica_generate_options *o, mica_error *err) {
    const mica_config *c = s->lm->net->config;
    size_t eos = o->ignore_eos ? 0 : c->eos_count + 1;
    s->ends = mica_alloc((eos + o->stop_id_count) * sizeof *s->ends);
    if (!s->ends) return mica_fail_memory(err, eos, "stop ids");
    if (!o->ignore_eos) {
        for (size_t i = 0; i < c->eos_count; i++) s->ends[s->end_count++] = (int32_t)c->eos_ids[i];
        int32_t own = s->lm->tokenizer ? mica_tokenizer_eos(s->lm->tokenizer) : -1;
        if (!c->eos_count && own >= 0) s->ends[s->end_count++] = own;
    }
    for (size_t i = 0; i < o->stop_id_count; i++) s->ends[s->end_count++] = o->stop_ids[i];
    return true;
}

static bool set_up(mica_row *s, const int32_t *ids, size_t count, const mica_generate_options *o,
                   const mica_sampler_scratch *shared, mica_error *err) {
    mica_lm *m = s->lm;
    size_t vocab = (size_t)m->info.vocab_size;
    if (!mica_adapters_take(m, o->adapter, &s->adapter, err) || !mica_check_ids(m, ids, count, err) || !mica_sampler_init(&s->sampler, o, vocab, shared, err) ||
        !mica_stop_init(&s->stop, o->stop, o->stop_count, err) || !copy_ids(ids, count, &s->prompt, err) || !collect_ends(s, o, err))
        return false;
    s->prompt_count = count;
    s->options.logprobs = MICA_MIN(o->logprobs, m->info.vocab_size);
    if (o->logprobs > 0 && !(s->top = mica_alloc((size_t)s->options.logprobs * sizeof *s->top)))
        return mica_fail_memory(err, vocab, "log-probabilities");
    if (m->tokenizer && !(s->detokenizer = mica_detokenizer_new(m->tokenizer, NULL, err))) return false;
    mica_sampler_observe_prompt(&s->sampler, ids, count);
    s->metrics.prompt_tokens = (int64_t)count;
    return true;
}

bool mica_row_init(mica_row *s, mica_lm *m, const int32_t *ids, size_t count, const mica_generate_options *options,
                   const mica_sampler_scratch *shared, mica_error *err) {
    mica_generate_options o = options ? *options : (mica_generate_options){0};
    memset(s, 0, sizeof *s);
    s->lm = m;
    s->options = o;
    if (!s->options.max_tokens) s->options.max_tokens = 256;
    if (set_up(s, ids, count, &o, shared, err)) return true;
    mica_row_free(s);
    return false;
}

void mica_row_free(mica_row *s) {
    mica_sampler_free(&s->sampler);
    mica_stop_free(&s->stop);
    mica_detokenizer_free(s->detokenizer);
    mica_free(s->prompt);
    mica_free(s->ends);
    mica_buf_free(&s->text);
    mica_free(s->top);
    if (s->lm) mica_adapters_give(s->lm, s->adapter);
    memset(s, 0, sizeof *s);
}

int64_t mica_row_positions(const mica_row *s) { return (int64_t)s->prompt_count + s->options.max_tokens; }

// ---- tokens -------------------------------------------------------------------------------------------------
bool mica_row_end(mica_row *s, mica_finish why) {
    if (!s->finish) s->finish = why;
    return false;
}

// A NaN among the logits means broken weights or overflow: an answer from there would be noise.
static bool check_logits(mica_row *s, const float *logits) {
    if (mica_logits_finite(logits, s->sampler.vocab)) return true;
    mica_fail(&s->error, MICA_ERR_FORMAT, "the model's logits are not finite: its weights hold NaN or infinite values");
    return mica_row_end(s, MICA_FINISH_ERROR);
}

static void report_logprobs(mica_row *s, const float *logits, mica_token *t) {
    if (!s->options.logprobs) return;
    double total = mica_logsumexp_f32(logits, s->sampler.vocab);
    t->logprob = (float)((double)logits[t->id] - total);
    if (s->options.logprobs < 0) return;
    mica_top_logprobs(logits, s->sampler.vocab, total, (size_t)s->options.logprobs, s->sampler.scratch.candidates, s->top);
    t->top = s->top;
    t->top_count = s->options.logprobs;
}

static bool add_text(mica_row *s, const char *piece, size_t n, bool flush) {
    const char *out;
    size_t out_n;
    return mica_stop_push(&s->stop, piece, n, flush, &out, &out_n) && mica_buf_append(&s->text, out, out_n);
}

// Text that token `id` (or the end, with flush) makes final goes to s->text.
static bool produce_text(mica_row *s, int32_t id, bool flush) {
    const char *piece;
    size_t n;
    if (!s->detokenizer) return true;
    bool ok = true;
    if (id >= 0) ok = mica_detokenizer_push(s->detokenizer, id, &piece, &n, &s->error) && add_text(s, piece, n, false);
    if (ok && (flush || s->stop.matched))
        ok = mica_detokenizer_finish(s->detokenizer, &piece, &n, &s->error) && add_text(s, piece, n, true);
    if (!ok && !s->error.code) mica_fail_memory(&s->error, s->text.len, "text");
    return ok || mica_row_end(s, MICA_FINISH_ERROR);
}

static bool is_end(const mica_row *s, int32_t id) {
    for (size_t i = 0; i < s->end_count; i++)
        if (s->ends[i] == id) return true;
    return false;
}

static bool deliver(mica_row *s, mica_token *t) {
    t->text = s->text.data ? s->text.data : "";
    t->length = s->text.len;
    return t->id >= 0 || t->length > 0;
}

static void clear_text(mica_row *s) {
    s->text.len = 0;
    if (s->text.data) s->text.data[0] = 0;
}

bool mica_row_next(mica_row *s, const float *logits, mica_token *t) {
    clear_text(s);
    if (!s->finish && check_logits(s, logits)) {
        bool early = s->metrics.generated_tokens < s->options.min_tokens;
        t->id = s->last = mica_sampler_next(&s->sampler, logits, s->ends, early ? s->end_count : 0);
        if (is_end(s, t->id)) mica_row_end(s, MICA_FINISH_STOP);
    }
    if (s->finish) { // what was held back belongs to the answer all the same
        t->id = -1;
        return s->finish != MICA_FINISH_ERROR && produce_text(s, -1, true) && deliver(s, t);
    }
    report_logprobs(s, logits, t);
    bool full = ++s->metrics.generated_tokens >= s->options.max_tokens;
    if (!produce_text(s, t->id, full)) return false;
    if (s->stop.matched) mica_row_end(s, MICA_FINISH_STOP);
    else if (full) mica_row_end(s, MICA_FINISH_LENGTH);
    return deliver(s, t);
}

// ---- the rest -----------------------------------------------------------------------------------------------
bool mica_row_error(const mica_row *s, mica_error *err) {
    if (s->finish == MICA_FINISH_ERROR && err) *err = s->error;
    return s->finish == MICA_FINISH_ERROR;
}

mica_metrics mica_row_metrics(const mica_row *s, int64_t prefilled) {
    mica_metrics k = s->metrics;
    if (k.prefill_seconds > 0) k.prefill_tokens_per_second = (double)prefilled / k.prefill_seconds;
    if (k.decode_seconds > 0 && k.generated_tokens > 1) k.decode_tokens_per_second = (double)(k.generated_tokens - 1) / k.decode_seconds;
    mica_memory_metrics(s->lm, &k);
    return k;
}
