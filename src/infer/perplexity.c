// SPDX-License-Identifier: Apache-2.0
// Perplexity of a text and, against a reference model, what an approximation costs: the mean Kullback-Leibler divergence of the
// distributions and how often the likeliest tokens are the same. The text is cut into windows that start from nothing.
#include "infer/internal.h"
#include "infer/sampler.h"
#include <math.h>

typedef struct side { // a model that runs over the text
    mica_lm *lm;
    mica_runner runner;
    const float *logits; // of the chunk at hand
    double log_sum;      // of -log p over all predicted tokens
    double square_sum;   // of its square
} side;

typedef struct totals {
    side sides[2]; // the model, the reference
    int count;     // of sides
    int32_t *rows;
    size_t predicted, agreed;
    double kl, kl_max, change, change_max;
} totals;

static size_t greatest(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

// Σ p log(p/q) of the distributions whose logits are p and q.
static double divergence(const float *p, double p_total, const float *q, double q_total, size_t n) {
    double sum = 0;
    float shift = (float)p_total;
    for (size_t i = 0; i < n; i++) {
        float weight = expf(p[i] - shift);
        if (weight > 0) sum += (double)weight * (((double)p[i] - p_total) - ((double)q[i] - q_total));
    }
    return sum > 0 ? sum : 0; // rounding may leave a little below
}

// How far logits are from the reference's.
static void add_change(totals *t, const float *p, const float *q, size_t n) {
    double sum = 0;
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        float d = fabsf(p[i] - q[i]);
        sum += (double)d;
        most = MICA_MAX(most, d);
    }
    t->change += sum / (double)n;
    t->change_max = MICA_MAX(t->change_max, (double)most);
}

// One row of logits; next: the token that follows.
static bool add_row(totals *t, size_t row, int32_t next, mica_error *err) {
    size_t vocab = (size_t)t->sides[0].lm->info.vocab_size;
    const float *logits[2] = {NULL, NULL};
    double total[2] = {0, 0};
    for (int i = 0; i < t->count; i++) {
        logits[i] = t->sides[i].logits + row * vocab;
        total[i] = mica_logsumexp_f32(logits[i], vocab);
        if (isnan(total[i])) return mica_fail(err, MICA_ERR_FORMAT, "the model's logits are not finite: its weights hold NaN or infinite values");
        double loss = total[i] - (double)logits[i][next];
        t->sides[i].log_sum += loss, t->sides[i].square_sum += loss * loss;
    }
    t->predicted++;
    if (t->count < 2) return true;
    double kl = divergence(logits[1], total[1], logits[0], total[0], vocab);
    t->kl += kl;
    t->kl_max = MICA_MAX(t->kl_max, kl);
    add_change(t, logits[0], logits[1], vocab);
    t->agreed += greatest(logits[0], vocab) == greatest(logits[1], vocab);
    return true;
}

static bool run_chunks(totals *t, const int32_t *ids, size_t n, mica_error *err) {
    size_t chunk = mica_logits_chunk((size_t)t->sides[0].lm->info.vocab_size);
    for (size_t at = 0, m; at < n; at += m) {
        m = MICA_MIN(chunk, n - at);
        for (int i = 0; i < t->count; i++)
            if (!mica_runner_forward(&t->sides[i].runner, ids + at, m, t->rows, m, &t->sides[i].logits, err)) return false;
        for (size_t row = 0; row < m && at + row + 1 < n; row++)
            if (!add_row(t, row, ids[at + row + 1], err)) return false;
    }
    return true;
}

static bool run_window(totals *t, const int32_t *ids, size_t n, mica_error *err) {
    bool ok = true;
    for (int i = 0; ok && i < t->count; i++) {
        ok = mica_runner_init(&t->sides[i].runner, t->sides[i].lm, (int64_t)n, err);
        if (ok) t->sides[i].runner.sequence.rope_length = (int64_t)n;
    }
    ok = ok && run_chunks(t, ids, n, err);
    for (int i = 0; i < t->count; i++) mica_runner_free(&t->sides[i].runner);
    return ok;
}

static bool check(mica_lm *m, const mica_lm *reference, const int32_t *ids, size_t count, int32_t window, mica_error *err) {
    if (count < 2) return mica_fail(err, MICA_ERR_ARGUMENT, "the text has %zu tokens: there is nothing to predict", count);
    if (window < 2 || window > m->context || (reference && window > reference->context))
        return mica_fail(err, MICA_ERR_ARGUMENT, "the window must be from 2 to the context of %d, got %d",
                         (int)(reference ? MICA_MIN(m->context, reference->context) : m->context), (int)window);
    if (reference && reference->info.vocab_size != m->info.vocab_size)
        return mica_fail(err, MICA_ERR_ARGUMENT, "the reference has a vocabulary of %d tokens, the model one of %d",
                         (int)reference->info.vocab_size, (int)m->info.vocab_size);
    for (size_t at = 0; at < count; at += (size_t)window)
        if (!mica_check_ids(m, ids + at, MICA_MIN(count - at, (size_t)window), err)) return false;
    return true;
}

// Of exp(mean): the mean's own times the derivative.
static double standard_error(const side *s, double n) {
    double mean = s->log_sum / n, variance = (s->square_sum - n * mean * mean) / (n - 1);
    return n > 1 ? exp(mean) * sqrt(fmax(variance, 0) / n) : (double)NAN;
}

static void report(const totals *t, mica_perplexity *out) {
    double n = (double)t->predicted;
    *out = (mica_perplexity){.predicted = t->predicted, .perplexity = exp(t->sides[0].log_sum / n), .reference_perplexity = (double)NAN,
                             .kl_mean = (double)NAN, .kl_max = (double)NAN, .same_top = (double)NAN, .change_mean = (double)NAN, .change_max = (double)NAN};
    out->standard_error = standard_error(&t->sides[0], n);
    if (t->count < 2) return;
    out->reference_perplexity = exp(t->sides[1].log_sum / n);
    out->kl_mean = t->kl / n, out->kl_max = t->kl_max;
    out->same_top = (double)t->agreed / n;
    out->change_mean = t->change / n, out->change_max = t->change_max;
}

// window 0: the default.
static bool measure(mica_lm *m, mica_lm *reference, const int32_t *ids, size_t count, int32_t window, mica_perplexity *out, mica_error *err) {
    int32_t context = reference ? MICA_MIN(m->context, reference->context) : m->context;
    if (!window) window = MICA_MIN(context, 1024);
    if (!check(m, reference, ids, count, window, err)) return false;
    totals t = {.sides = {{.lm = m}, {.lm = reference}}, .count = reference ? 2 : 1};
    t.rows = mica_alloc(MICA_CHUNK * sizeof *t.rows);
    if (!t.rows) return mica_fail_memory(err, MICA_CHUNK * sizeof *t.rows, "rows");
    for (int32_t i = 0; i < MICA_CHUNK; i++) t.rows[i] = i;
    bool ok = true;
    for (size_t at = 0; ok && at + 1 < count; at += (size_t)window)
        ok = run_window(&t, ids + at, MICA_MIN(count - at, (size_t)window), err);
    mica_free(t.rows);
    if (ok) report(&t, out);
    return ok;
}

bool mica_perplexity_of(mica_model *model, const int32_t *ids, size_t count, const mica_perplexity_options *options, mica_perplexity *out,
                        mica_error *err) {
    mica_perplexity_options o = options ? *options : (mica_perplexity_options){0};
    *out = (mica_perplexity){0};
    mica_lm *m = mica_native_retain(model, "perplexity", err);
    mica_lm *reference = m && o.reference ? mica_native_retain(o.reference, "perplexity", err) : NULL;
    bool ok = m && (reference || !o.reference) && measure(m, reference, ids, count, o.window, out, err);
    if (reference) mica_model_release(o.reference);
    if (m) mica_model_release(model);
    return ok;
}
