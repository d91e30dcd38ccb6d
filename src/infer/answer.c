// SPDX-License-Identifier: Apache-2.0
// One answer as a pull iterator: prefill in chunks, then a step a token. Text passes through the detokeniser (whole characters only) and the
// stop matcher (possible stop texts held back). No forward is computed beyond the last token that is wanted.
#include "infer/draft.h"
#include "infer/internal.h"
#include "infer/sampler.h"
#include "infer/stop.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

struct mica_answer {
    mica_runner runner;
    mica_sampler sampler;
    mica_stop stop;
    mica_detokenizer *detokenizer;
    mica_generate_options options;
    int32_t *prompt, *ends; // ends: ids that end the answer
    size_t prompt_count, end_count;
    size_t prefilled;       // prompt tokens computed
    int32_t last;           // token chosen last
    mica_draft draft;
    int32_t step_ids[1 + MICA_DRAFT_MOST]; // of the last forward: the last token then, and a guess at those after it
    size_t step_count, step_row; // its tokens, and the one whose logits are in use
    const float *step_logits;    // [step_count, V]
    mica_buf text;          // of the token being delivered
    mica_logprob *top;
    atomic_bool cancelled;
    mica_finish finish;
    mica_error error;
    mica_metrics metrics;
    double started;
};

// ---- set-up -------------------------------------------------------------------------------------------------
static bool copy_ids(const int32_t *ids, size_t count, int32_t **out, mica_error *err) {
    *out = mica_alloc(count * sizeof **out);
    if (!*out) return mica_fail_memory(err, count * sizeof **out, "token ids");
    if (count) memcpy(*out, ids, count * sizeof **out);
    return true;
}

static bool collect_ends(mica_answer *s, const mica_generate_options *o, mica_error *err) {
    const mica_config *c = s->runner.lm->net->config;
    size_t eos = o->ignore_eos ? 0 : c->eos_count + 1;
    s->ends = mica_alloc((eos + o->stop_id_count) * sizeof *s->ends);
    if (!s->ends) return mica_fail_memory(err, eos, "stop ids");
    if (!o->ignore_eos) {
        for (size_t i = 0; i < c->eos_count; i++) s->ends[s->end_count++] = (int32_t)c->eos_ids[i];
        int32_t own = s->runner.lm->tokenizer ? mica_tokenizer_eos(s->runner.lm->tokenizer) : -1;
        if (!c->eos_count && own >= 0) s->ends[s->end_count++] = own;
    }
    for (size_t i = 0; i < o->stop_id_count; i++) s->ends[s->end_count++] = o->stop_ids[i];
    return true;
}

static bool set_up(mica_answer *s, mica_lm *m, const int32_t *ids, size_t count, const mica_generate_options *o, mica_error *err) {
    size_t vocab = (size_t)m->info.vocab_size;
    int64_t most = (int64_t)count + (o->max_tokens > 0 ? o->max_tokens : 256);
    if (!mica_check_ids(m, ids, count, err) || !mica_sampler_init(&s->sampler, o, vocab, err) ||
        !mica_stop_init(&s->stop, o->stop, o->stop_count, err) || !copy_ids(ids, count, &s->prompt, err) ||
        !mica_runner_init(&s->runner, m, most, err) || !collect_ends(s, o, err))
        return false;
    s->prompt_count = count;
    s->options.logprobs = MICA_MIN(o->logprobs, m->info.vocab_size);
    if (o->logprobs > 0 && !(s->top = mica_alloc((size_t)s->options.logprobs * sizeof *s->top)))
        return mica_fail_memory(err, vocab, "log-probabilities");
    if (m->tokenizer && !(s->detokenizer = mica_detokenizer_new(m->tokenizer, NULL, err))) return false;
    size_t room = (size_t)MICA_MIN(most, (int64_t)m->context + 1);
    if (!mica_draft_init(&s->draft, (size_t)o->speculate, room, err)) return false;
    for (size_t i = 0; i < count; i++) mica_draft_push(&s->draft, ids[i]);
    mica_sampler_observe_prompt(&s->sampler, ids, count);
    s->runner.sequence.rope_length = (int64_t)count;
    s->metrics.prompt_tokens = (int64_t)count;
    return true;
}

mica_answer *mica_answer_new(mica_lm *m, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err) {
    mica_generate_options o = options ? *options : (mica_generate_options){0};
    mica_answer *s = mica_calloc(1, sizeof *s);
    if (!s) return mica_fail_memory(err, sizeof *s, "an answer"), NULL;
    s->options = o;
    if (!s->options.max_tokens) s->options.max_tokens = 256;
    if (set_up(s, m, ids, count, &o, err)) return s;
    mica_answer_free(s);
    return NULL;
}

void mica_answer_free(mica_answer *s) {
    if (!s) return;
    mica_runner_free(&s->runner);
    mica_sampler_free(&s->sampler);
    mica_draft_free(&s->draft);
    mica_stop_free(&s->stop);
    mica_detokenizer_free(s->detokenizer);
    mica_free(s->prompt);
    mica_free(s->ends);
    mica_buf_free(&s->text);
    mica_free(s->top);
    mica_free(s);
}

// ---- steps --------------------------------------------------------------------------------------------------
static bool end(mica_answer *s, mica_finish why) {
    if (!s->finish) s->finish = why;
    return false;
}

// The last token and a guess at the next ones in one forward.
static bool forward(mica_answer *s) {
    if (s->step_count > 1) mica_draft_learn(&s->draft, s->step_count - 1, s->step_row);
    s->step_ids[0] = s->last;
    int64_t wanted = s->options.max_tokens - s->metrics.generated_tokens;
    size_t most = mica_runner_reach(&s->runner, (size_t)MICA_MIN(wanted, (int64_t)MICA_COUNT(s->step_ids)));
    size_t n = 1 + mica_draft_guess(&s->draft, most - 1, s->step_ids + 1);
    double from = mica_now();
    if (!mica_runner_verify(&s->runner, s->step_ids, n, &s->step_logits, &s->error)) return end(s, MICA_FINISH_ERROR);
    mica_draft_time(&s->draft, n, mica_now() - from);
    s->metrics.drafted_tokens += (int64_t)n - 1;
    s->step_count = n, s->step_row = 0;
    return true;
}

// Logits after the last token. Each token is chosen from the full distribution at its place, guess or no guess, with its own random number: so
// answers do not depend on guesses. A guess that equals the choice only means that the logits after it are there already.
static bool decode(mica_answer *s, const float **logits) {
    if (s->runner.sequence.length >= s->runner.lm->context) return end(s, MICA_FINISH_LENGTH);
    if (s->step_row + 1 < s->step_count && s->step_ids[s->step_row + 1] == s->last) {
        s->step_row++;
        s->metrics.accepted_tokens++;
        mica_runner_keep(&s->runner, 1);
    } else if (!forward(s)) return false;
    *logits = s->step_logits + s->step_row * s->sampler.vocab;
    return true;
}

// Logits after the prompt or after the last token; false when cancelled or failed.
static bool step(mica_answer *s, const float **logits) {
    if (s->prefilled == s->prompt_count) return decode(s, logits);
    while (s->prefilled < s->prompt_count) {
        if (atomic_load(&s->cancelled)) return end(s, MICA_FINISH_CANCELLED);
        size_t n = MICA_MIN(s->prompt_count - s->prefilled, (size_t)MICA_CHUNK);
        int32_t row = (int32_t)n - 1;
        bool last = s->prefilled + n == s->prompt_count;
        if (!mica_runner_forward(&s->runner, s->prompt + s->prefilled, n, &row, last, logits, &s->error)) return end(s, MICA_FINISH_ERROR);
        s->prefilled += n;
    }
    return true;
}

// A NaN among the logits means broken weights or overflow: an answer from there would be noise.
static bool check_logits(mica_answer *s, const float *logits) {
    float sum = 0;
    for (size_t i = 0; i < s->sampler.vocab; i++) sum += logits[i] * 0.0f;
    if (!isnan(sum)) return true;
    mica_fail(&s->error, MICA_ERR_FORMAT, "the model's logits are not finite: its weights hold NaN or infinite values");
    return end(s, MICA_FINISH_ERROR);
}

static void report_logprobs(mica_answer *s, const float *logits, mica_token *t) {
    if (!s->options.logprobs) return;
    double total = mica_logsumexp_f32(logits, s->sampler.vocab);
    t->logprob = (float)((double)logits[t->id] - total);
    if (s->options.logprobs < 0) return;
    mica_top_logprobs(logits, s->sampler.vocab, total, (size_t)s->options.logprobs, s->sampler.candidates, s->top);
    t->top = s->top;
    t->top_count = s->options.logprobs;
}

static bool add_text(mica_answer *s, const char *piece, size_t n, bool flush) {
    const char *out;
    size_t out_n;
    return mica_stop_push(&s->stop, piece, n, flush, &out, &out_n) && mica_buf_append(&s->text, out, out_n);
}

// Text that token `id` (or the end, with flush) makes final goes to s->text.
static bool produce_text(mica_answer *s, int32_t id, bool flush) {
    const char *piece;
    size_t n;
    if (!s->detokenizer) return true;
    bool ok = true;
    if (id >= 0) ok = mica_detokenizer_push(s->detokenizer, id, &piece, &n, &s->error) && add_text(s, piece, n, false);
    if (ok && (flush || s->stop.matched))
        ok = mica_detokenizer_finish(s->detokenizer, &piece, &n, &s->error) && add_text(s, piece, n, true);
    if (!ok && !s->error.code) mica_fail_memory(&s->error, s->text.len, "text");
    return ok || end(s, MICA_FINISH_ERROR);
}

static bool is_end(const mica_answer *s, int32_t id) {
    for (size_t i = 0; i < s->end_count; i++)
        if (s->ends[i] == id) return true;
    return false;
}

static bool deliver(mica_answer *s, mica_token *t) {
    t->text = s->text.data ? s->text.data : "";
    t->length = s->text.len;
    return t->id >= 0 || t->length > 0;
}

static void clear_text(mica_answer *s) {
    s->text.len = 0;
    if (s->text.data) s->text.data[0] = 0;
}

static bool next(mica_answer *s, mica_token *t) {
    const float *logits = NULL;
    clear_text(s);
    if (s->finish) return false;
    if (atomic_load(&s->cancelled)) end(s, MICA_FINISH_CANCELLED);
    else if (step(s, &logits) && check_logits(s, logits)) {
        bool early = s->metrics.generated_tokens < s->options.min_tokens;
        t->id = s->last = mica_sampler_next(&s->sampler, logits, s->ends, early ? s->end_count : 0);
        mica_draft_push(&s->draft, t->id);
        if (is_end(s, t->id)) end(s, MICA_FINISH_STOP);
    }
    if (s->finish) { // what was held back belongs to the answer all the same
        t->id = -1;
        return s->finish != MICA_FINISH_ERROR && produce_text(s, -1, true) && deliver(s, t);
    }
    report_logprobs(s, logits, t);
    bool full = ++s->metrics.generated_tokens >= s->options.max_tokens;
    if (!produce_text(s, t->id, full)) return false;
    if (s->stop.matched) end(s, MICA_FINISH_STOP);
    else if (full) end(s, MICA_FINISH_LENGTH);
    return deliver(s, t);
}

bool mica_answer_next(mica_answer *s, mica_token *t) {
    double from = mica_now();
    bool first = s->prefilled < s->prompt_count;
    if (first) s->started = from;
    *t = (mica_token){.id = -1, .text = ""};
    bool more = next(s, t);
    double seconds = mica_now() - from;
    *(first ? &s->metrics.prefill_seconds : &s->metrics.decode_seconds) += seconds;
    s->metrics.total_seconds += seconds;
    if (first) s->metrics.time_to_first_token_seconds = seconds;
    return more;
}

// ---- the rest -----------------------------------------------------------------------------------------------
void mica_answer_cancel(mica_answer *s) { atomic_store(&s->cancelled, true); }
mica_finish mica_answer_finish(const mica_answer *s) { return s->finish; }

bool mica_answer_error(const mica_answer *s, mica_error *err) {
    if (s->finish == MICA_FINISH_ERROR && err) *err = s->error;
    return s->finish == MICA_FINISH_ERROR;
}

mica_metrics mica_answer_metrics(const mica_answer *s) {
    mica_metrics k = s->metrics;
    if (k.prefill_seconds > 0) k.prefill_tokens_per_second = (double)s->prefilled / k.prefill_seconds;
    if (k.decode_seconds > 0 && k.generated_tokens > 1) k.decode_tokens_per_second = (double)(k.generated_tokens - 1) / k.decode_seconds;
    mica_memory_metrics(&s->runner, &k);
    return k;
}

const int32_t *mica_answer_prompt(const mica_answer *s, size_t *count) {
    *count = s->prompt_count;
    return s->prompt;
}
