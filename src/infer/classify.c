// SPDX-License-Identifier: Apache-2.0
// Scoring of prompts. The common beginning of all is computed once; each prompt is a fork of it, and each label of more than one token a fork
// of its prompt: forks share pages. Whole prompts fill steps of MICA_CHUNK tokens; their labels follow in steps of their own, all but the last
// token of each, since the first token's probability comes from the prompt's logits.
#include "infer/classify.h"
#include "infer/sampler.h"
#include "model/prefix.h"
#include "model/rope.h"
#include <math.h>
#include <string.h>

enum { LEAST_COMMON = 8 }; // tokens of a common beginning that are worth a step of their own

/** A run of tokens after a sequence: a prompt, or a label but for its last token. */
typedef struct job {
    mica_sequence sequence;
    mica_scored *prompt;
    size_t label; // SIZE_MAX: the prompt itself
    const int32_t *ids;
    size_t count, at; // tokens; those computed
} job;

typedef struct piece {
    job *job;
    size_t n, row; // tokens in this step; first row of its logits
} piece;

typedef struct run {
    mica_lm *lm;
    mica_scoring *scoring;
    mica_scope *scope;
    mica_sequence root;
    size_t common, vocab, most;
    job *prompts, *labels; // [most] each
    size_t prompt_count, label_count;
    piece *pieces;         // [CHUNK] of the step
    mica_sequence **sequences;
    int32_t *counts, *ids, *rows; // [CHUNK]
    mica_packed packed;
    size_t row_room; // rows of logits that a step may have
} run;

// ---- steps ------------------------------------------------------------------------------------------------------
static void begin_step(run *r) {
    r->packed = (mica_packed){.sequences = r->sequences, .counts = r->counts, .ids = r->ids, .rows = r->rows};
}

// As much of a job as fits; a job is cut only where it has the step to itself. False if nothing of it fits.
static bool add_piece(run *r, job *j) {
    mica_packed *p = &r->packed;
    bool label = j->label != SIZE_MAX;
    size_t rest = j->count - j->at, room = MICA_CHUNK - p->n, rows = r->row_room - p->n_rows;
    size_t n = MICA_MIN(rest, label ? MICA_MIN(room, rows) : room);
    if (!n || !rows || (n < rest && p->n)) return false;
    if (!mica_sequence_reserve(&j->sequence, (int64_t)n, &j->prompt->error)) return true; // it is over
    r->pieces[p->n_sequences] = (piece){j, n, p->n_rows};
    r->sequences[p->n_sequences] = &j->sequence;
    r->counts[p->n_sequences++] = (int32_t)n;
    memcpy(r->ids + p->n, j->ids + j->at, n * sizeof *r->ids);
    if (label)
        for (size_t i = 0; i < n; i++) r->rows[p->n_rows++] = (int32_t)(p->n + i);
    else if (n == rest) r->rows[p->n_rows++] = (int32_t)(p->n + n - 1);
    p->n += n;
    return true;
}

static bool compute(run *r, const float **logits, mica_error *err) {
    mica_scope_reset(r->scope);
    mica_array *out = mica_net_forward(r->lm->net, &r->lm->cache, r->scope, &r->packed, err);
    if (!out || !mica_eval(r->scope, &out, 1, err)) return false;
    if (r->packed.n_rows) *logits = mica_data(out);
    return true;
}

static bool total_of(const run *r, const float *logits, double *total, mica_error *err) {
    if (!mica_logits_finite(logits, r->vocab))
        return mica_fail(err, MICA_ERR_FORMAT, "the model's logits are not finite: its weights hold NaN or infinite values");
    *total = mica_logsumexp_f32(logits, r->vocab);
    return true;
}

// A prompt's end: the next token, and the first one of each label.
static void take_prompt(run *r, mica_scored *p, const float *logits) {
    double total = 0;
    if (!total_of(r, logits, &total, &p->error)) return;
    p->token = mica_logits_argmax(logits, r->vocab);
    if (p->logits) memcpy(p->logits, logits, r->vocab * sizeof *logits);
    for (size_t l = 0; l < r->scoring->label_count; l++) p->logprobs[l] = (double)logits[p->labels[l].data[0]] - total;
}

// A piece of a label: each of its tokens tells of the next.
static void take_label(run *r, const piece *p, const float *logits) {
    job *j = p->job;
    const int32_t *next = j->ids + j->at + 1;
    for (size_t i = 0; i < p->n && !j->prompt->error.code; i++, logits += r->vocab) {
        double total = 0;
        if (total_of(r, logits, &total, &j->prompt->error)) j->prompt->logprobs[j->label] += (double)logits[next[i]] - total;
    }
}

// Runs the step; its jobs are further then, or their prompts have failed.
static void end_step(run *r) {
    mica_error err = {0};
    const float *logits = NULL;
    bool ok = !r->packed.n || compute(r, &logits, &err);
    for (size_t i = 0; i < r->packed.n_sequences; i++) {
        piece *p = &r->pieces[i];
        job *j = p->job;
        if (!ok) {
            j->prompt->error = err;
            continue;
        }
        const float *row = logits ? logits + p->row * r->vocab : NULL;
        if (j->label != SIZE_MAX) take_label(r, p, row);
        else if (j->at + p->n == j->count) take_prompt(r, j->prompt, row);
        mica_sequence_advance(&j->sequence, (int64_t)p->n);
        j->at += p->n;
    }
}

static bool is_over(const job *j) { return j->prompt->error.code || j->at == j->count; }

// ---- labels -----------------------------------------------------------------------------------------------------
static bool fork_label(run *r, const job *prompt, size_t label) {
    const mica_ids *ids = &prompt->prompt->labels[label];
    job *j = &r->labels[r->label_count];
    if (!mica_sequence_fork(&prompt->sequence, &j->sequence, &prompt->prompt->error)) return false;
    j->prompt = prompt->prompt, j->label = label, j->ids = ids->data, j->count = ids->len - 1, j->at = 0;
    r->label_count++;
    return true;
}

static void run_labels(run *r) {
    for (size_t first = 0; first < r->label_count;) {
        begin_step(r);
        size_t i = first;
        while (i < r->label_count && (is_over(&r->labels[i]) || add_piece(r, &r->labels[i]))) i++;
        end_step(r);
        while (first < r->label_count && is_over(&r->labels[first])) mica_sequence_free(&r->labels[first++].sequence);
    }
    r->label_count = 0;
}

// The labels of prompts that are computed, as many at a time as there is room for.
static void score_labels(run *r) {
    for (size_t i = 0; i < r->prompt_count; i++) {
        job *j = &r->prompts[i];
        for (size_t l = 0; l < r->scoring->label_count && is_over(j) && !j->prompt->error.code; l++) {
            if (j->prompt->labels[l].len < 2) continue;
            if (r->label_count == r->most) run_labels(r);
            fork_label(r, j, l);
        }
    }
    run_labels(r);
}

// ---- prompts ------------------------------------------------------------------------------------------------------
static bool same_frequencies(const mica_lm *m, int64_t from, int64_t to) {
    const mica_config *c = m->net->config;
    return mica_rope_same(c, &c->rope, from) >= to && (!c->sliding_window || mica_rope_same(c, &c->rope_sliding, from) >= to);
}

static size_t longest_label(const mica_scored *p, size_t count) {
    size_t most = 0;
    for (size_t l = 0; l < count; l++) most = MICA_MAX(most, p->labels[l].len);
    return most;
}

// Every prompt must be computable; what is wrong with one is its own error.
static void check_prompts(run *r, mica_scored *prompts, size_t count) {
    for (size_t i = 0; i < count; i++) {
        mica_scored *p = &prompts[i];
        size_t tail = longest_label(p, p->error.code ? 0 : r->scoring->label_count);
        p->token = -1;
        if (p->error.code || !mica_check_ids(r->lm, p->ids.data, p->ids.len, &p->error)) continue;
        if (p->ids.len + tail > (size_t)r->lm->context + 1)
            mica_fail(&p->error, MICA_ERR_ARGUMENT, "prompt and label have %zu tokens, the context %d", p->ids.len + tail, (int)r->lm->context);
    }
}

// Tokens that all prompts begin with; each keeps one of its own, which its logits come from.
static void find_common(run *r, const mica_scored *prompts, size_t count) {
    const mica_scored *first = NULL;
    size_t common = 0, longest = 0, n = 0;
    for (size_t i = 0; i < count; i++) {
        const mica_scored *p = &prompts[i];
        if (p->error.code) continue;
        if (!n++) first = p, common = p->ids.len - 1;
        common = MICA_MIN(common, p->ids.len - 1);
        size_t same = 0;
        while (same < common && p->ids.data[same] == first->ids.data[same]) same++;
        common = same;
        longest = MICA_MAX(longest, p->ids.len + longest_label(p, r->scoring->label_count));
    }
    if (n > 1 && common >= LEAST_COMMON && same_frequencies(r->lm, 1, (int64_t)longest)) r->common = common;
}

static bool compute_common(run *r, const int32_t *ids, mica_error *err) {
    mica_sequence *q = &r->root;
    int32_t n;
    if (!mica_prefix_begin(q, ids, r->common, err)) return false;
    r->scoring->metrics.cached_tokens = q->length;
    while (q->length < (int64_t)r->common) {
        begin_step(r);
        n = (int32_t)mica_prefix_run(q, r->common);
        r->packed = (mica_packed){.sequences = &q, .counts = &n, .n_sequences = 1, .ids = ids + q->length, .n = (size_t)n, .rows_many = q->many};
        if (!mica_sequence_reserve(q, n, err) || !compute(r, NULL, err)) return false;
        mica_sequence_advance(q, n);
    }
    return true;
}

static bool fork_prompt(run *r, mica_scored *p) {
    job *j = &r->prompts[r->prompt_count];
    if (!mica_sequence_fork(&r->root, &j->sequence, &p->error)) return false;
    j->sequence.rope_length = (int64_t)p->ids.len;
    j->prompt = p, j->label = SIZE_MAX, j->ids = p->ids.data, j->count = p->ids.len, j->at = r->common;
    r->prompt_count++;
    return true;
}

// One step over prompts, from the first one that is not done; gives how many of them are.
static size_t step(run *r, mica_scored *prompts, size_t count, size_t done) {
    size_t next = done + r->prompt_count; // one that is under way is the first of the rest
    begin_step(r);
    if (r->prompt_count) add_piece(r, &r->prompts[0]);
    while (next < count && r->prompt_count < r->most && r->packed.n < MICA_CHUNK) {
        if (!prompts[next].error.code && fork_prompt(r, &prompts[next]) && !add_piece(r, &r->prompts[r->prompt_count - 1])) {
            mica_sequence_free(&r->prompts[--r->prompt_count].sequence);
            break;
        }
        if (prompts[next].error.code && r->prompt_count && r->prompts[r->prompt_count - 1].prompt == &prompts[next])
            mica_sequence_free(&r->prompts[--r->prompt_count].sequence);
        next++;
    }
    end_step(r);
    score_labels(r);
    bool under_way = r->prompt_count == 1 && !is_over(&r->prompts[0]);
    if (under_way) return next - 1;
    for (size_t i = 0; i < r->prompt_count; i++) mica_sequence_free(&r->prompts[i].sequence);
    r->prompt_count = 0;
    return next;
}

static void cancel_rest(mica_scored *prompts, size_t count, size_t done) {
    for (size_t i = done; i < count; i++)
        if (!prompts[i].error.code) mica_fail(&prompts[i].error, MICA_ERR_CANCELLED, "cancelled"), prompts[i].token = -1;
}

static void score_all(run *r, mica_scored *prompts, size_t count) {
    for (size_t done = 0; done < count;) {
        size_t before = done;
        done = step(r, prompts, count, done);
        if (done > before && r->scoring->progress && !r->scoring->progress(r->scoring->context, done)) {
            cancel_rest(prompts, count, done);
            break;
        }
    }
    for (size_t i = 0; i < r->prompt_count; i++) mica_sequence_free(&r->prompts[i].sequence);
}

// ---- all together -------------------------------------------------------------------------------------------------
static bool allocate(run *r, mica_error *err) {
    r->prompts = mica_calloc(r->most, sizeof *r->prompts);
    r->labels = mica_calloc(r->most, sizeof *r->labels);
    r->pieces = mica_alloc(MICA_CHUNK * sizeof *r->pieces);
    r->sequences = mica_alloc(MICA_CHUNK * sizeof *r->sequences);
    r->counts = mica_alloc(3 * MICA_CHUNK * sizeof *r->counts);
    if (!r->prompts || !r->labels || !r->pieces || !r->sequences || !r->counts) return mica_fail_memory(err, r->most * sizeof(job), "scores");
    r->ids = r->counts + MICA_CHUNK, r->rows = r->ids + MICA_CHUNK;
    r->scope = mica_scope_new(r->lm->device, err);
    return r->scope != NULL;
}

static void release(run *r) {
    mica_sequence_free(&r->root);
    mica_scope_free(r->scope);
    mica_free(r->prompts);
    mica_free(r->labels);
    mica_free(r->pieces);
    mica_free(r->sequences);
    mica_free(r->counts);
}

static void measure(run *r, const mica_scored *prompts, size_t count, double seconds) {
    mica_metrics *k = &r->scoring->metrics;
    size_t done = 0;
    for (size_t i = 0; i < count; i++)
        if (!prompts[i].error.code) k->prompt_tokens += (int64_t)prompts[i].ids.len, done++;
    if (done) k->cached_tokens += (int64_t)((done - 1) * r->common);
    k->prefill_seconds = k->total_seconds = seconds;
    if (seconds > 0) k->prefill_tokens_per_second = (double)MICA_MAX(k->prompt_tokens - k->cached_tokens, (int64_t)0) / seconds;
    mica_memory_metrics(r->lm, k);
}

bool mica_score_prompts(mica_lm *m, mica_scored *prompts, size_t count, mica_scoring *scoring, mica_error *err) {
    double started = mica_now();
    run r = {.lm = m, .scoring = scoring, .vocab = (size_t)m->info.vocab_size};
    scoring->metrics = (mica_metrics){0};
    r.row_room = mica_logits_chunk(r.vocab);
    r.most = MICA_MIN(scoring->most ? scoring->most : (size_t)MICA_CHUNK, r.row_room);
    mica_sequence_init(&r.root, &m->cache);
    mica_sequence_adapt(&r.root, scoring->adapter);
    bool ok = allocate(&r, err);
    if (ok) {
        check_prompts(&r, prompts, count);
        find_common(&r, prompts, count);
        size_t first = 0;
        while (first < count && prompts[first].error.code) first++;
        ok = !r.common || compute_common(&r, prompts[first].ids.data, err);
    }
    if (ok) {
        score_all(&r, prompts, count);
        measure(&r, prompts, count, mica_now() - started);
    }
    release(&r);
    return ok;
}
