// SPDX-License-Identifier: Apache-2.0
// One answer as a pull iterator: prefill in chunks, then a step a token, or one for several that were guessed. No forward is computed beyond
// the last token that is wanted.
#include "infer/adapters.h"
#include "infer/draft.h"
#include "infer/past.h"
#include "infer/row.h"

struct mica_answer {
    mica_row row;
    mica_runner runner;
    mica_past *past;             // of a session, or NULL
    size_t prefilled;            // prompt tokens computed
    mica_draft draft;
    int32_t step_ids[1 + MICA_DRAFT_MOST]; // of the last forward: the last token then, and a guess at those after it
    size_t step_count, step_row; // its tokens, and the one whose logits are in use
    const float *step_logits;    // [step_count, V]
};

static bool set_up(mica_answer *s, mica_lm *m, const int32_t *ids, size_t count, const mica_generate_options *o, mica_error *err) {
    if (!mica_row_init(&s->row, m, ids, count, o, NULL, err)) return false;
    int64_t most = mica_row_positions(&s->row);
    if (!mica_runner_init(&s->runner, m, most, err)) return false;
    mica_sequence_adapt(&s->runner.sequence, mica_loaded_set(s->row.adapter));
    size_t room = (size_t)MICA_MIN(most, (int64_t)m->context + 1);
    if (!mica_draft_init(&s->draft, (size_t)s->row.options.speculate, room, err)) return false;
    for (size_t i = 0; i < count; i++) mica_draft_push(&s->draft, ids[i]);
    return true;
}

mica_answer *mica_answer_new(mica_lm *m, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err) {
    mica_answer *s = mica_calloc(1, sizeof *s);
    if (!s) return mica_fail_memory(err, sizeof *s, "an answer"), NULL;
    if (set_up(s, m, ids, count, options, err)) return s;
    mica_answer_free(s);
    return NULL;
}

void mica_answer_attach(mica_answer *s, mica_past *past) { s->past = past; }

void mica_answer_free(mica_answer *s) {
    if (!s) return;
    if (s->past) mica_past_return(s->past, &s->runner.sequence), mica_past_release(s->past);
    mica_runner_free(&s->runner);
    mica_row_free(&s->row);
    mica_draft_free(&s->draft);
    mica_free(s);
}

// ---- steps --------------------------------------------------------------------------------------------------
// The last token and a guess at the next ones in one forward.
static bool forward(mica_answer *s) {
    if (s->step_count > 1) mica_draft_learn(&s->draft, s->step_count - 1, s->step_row);
    s->step_ids[0] = s->row.last;
    int64_t wanted = s->row.options.max_tokens - s->row.metrics.generated_tokens;
    size_t most = mica_runner_reach(&s->runner, (size_t)MICA_MIN(wanted, (int64_t)MICA_COUNT(s->step_ids)));
    size_t n = 1 + mica_draft_guess(&s->draft, most - 1, s->step_ids + 1);
    double from = mica_now();
    if (!mica_runner_verify(&s->runner, s->step_ids, n, &s->step_logits, &s->row.error)) return mica_row_end(&s->row, MICA_FINISH_ERROR);
    mica_draft_time(&s->draft, n, mica_now() - from);
    s->row.metrics.drafted_tokens += (int64_t)n - 1;
    s->step_count = n, s->step_row = 0;
    return true;
}

// Logits after the last token. Each token is chosen from the full distribution at its place, guess or no guess, with its own random number: so
// answers do not depend on guesses. A guess that equals the choice only means that the logits after it are there already.
static bool decode(mica_answer *s, const float **logits) {
    if (s->runner.sequence.length >= s->runner.lm->context) return mica_row_end(&s->row, MICA_FINISH_LENGTH);
    if (s->step_row + 1 < s->step_count && s->step_ids[s->step_row + 1] == s->row.last) {
        s->step_row++;
        s->row.metrics.accepted_tokens++;
        mica_runner_keep(&s->runner, 1);
    } else if (!forward(s)) return false;
    *logits = s->step_logits + s->step_row * s->row.sampler.vocab;
    return true;
}

// What is kept of the prompt's beginning needs no computing.
static bool begin(mica_answer *s) {
    const int32_t *ids = s->row.prompt;
    size_t n = s->row.prompt_count, more = (size_t)s->row.options.max_tokens;
    bool ok = s->past ? mica_past_lend(s->past, &s->runner.sequence, ids, n, more, &s->row.error)
                      : mica_runner_begin(&s->runner, ids, n, &s->row.error);
    if (!ok) return mica_row_end(&s->row, MICA_FINISH_ERROR);
    s->row.metrics.cached_tokens = s->runner.sequence.length;
    return true;
}

// Logits after the prompt or after the last token; false when cancelled or failed.
static bool step(mica_answer *s, const float **logits) {
    if (s->prefilled == s->row.prompt_count) return decode(s, logits);
    if (!s->prefilled && !begin(s)) return false;
    while (s->prefilled < s->row.prompt_count) {
        if (atomic_load(&s->row.cancelled)) return mica_row_end(&s->row, MICA_FINISH_CANCELLED);
        if (!mica_runner_prefill(&s->runner, logits, &s->row.error)) return mica_row_end(&s->row, MICA_FINISH_ERROR);
        s->prefilled = (size_t)s->runner.sequence.length;
    }
    if (s->past && !mica_past_mark(s->past, &s->runner.sequence, &s->row.error)) return mica_row_end(&s->row, MICA_FINISH_ERROR);
    return true;
}

static bool next(mica_answer *s, mica_token *t) {
    const float *logits = NULL;
    if (s->row.finish) return false;
    if (atomic_load(&s->row.cancelled)) mica_row_end(&s->row, MICA_FINISH_CANCELLED);
    else step(s, &logits);
    bool more = mica_row_next(&s->row, logits, t);
    if (t->id >= 0) mica_draft_push(&s->draft, t->id);
    if (t->id >= 0 && s->past) mica_past_push(s->past, t->id);
    return more;
}

bool mica_answer_next(mica_answer *s, mica_token *t) {
    double from = mica_now();
    mica_metrics *k = &s->row.metrics;
    bool first = s->prefilled < s->row.prompt_count;
    *t = (mica_token){.id = -1, .text = ""};
    bool more = next(s, t);
    double seconds = mica_now() - from;
    *(first ? &k->prefill_seconds : &k->decode_seconds) += seconds;
    k->total_seconds += seconds;
    if (first) k->time_to_first_token_seconds = seconds;
    return more;
}

// ---- the rest -----------------------------------------------------------------------------------------------
void mica_answer_cancel(mica_answer *s) { atomic_store(&s->row.cancelled, true); }
mica_finish mica_answer_finish(const mica_answer *s) { return s->row.finish; }
bool mica_answer_error(const mica_answer *s, mica_error *err) { return mica_row_error(&s->row, err); }
mica_metrics mica_answer_metrics(const mica_answer *s) { return mica_row_metrics(&s->row, (int64_t)s->prefilled - s->row.metrics.cached_tokens); }

const int32_t *mica_answer_prompt(const mica_answer *s, size_t *count) {
    *count = s->row.prompt_count;
    return s->row.prompt;
}
