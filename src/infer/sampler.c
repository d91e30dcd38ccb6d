// SPDX-License-Identifier: Apache-2.0
// The sampling chain. Filters work on a list of candidates that only shrinks; each filter normalises over what is left, so any order
// is meaningful. Selection uses a heap: a vocabulary of 262 144 is never sorted as a whole.
#include "infer/sampler.h"
#include "base/rng.h"
#include "infer/draft.h"
#include <math.h>
#include <string.h>

enum { TOP_P, MIN_P, TOP_K, TEMPERATURE };
static const char *const stage_names[MICA_SAMPLER_STAGES] = {"top_p", "min_p", "top_k", "temperature"};

// ---- options ----------------------------------------------------------------------------------------------
static bool parse_order(mica_sampler *s, const char *order, mica_error *err) {
    while (*order) {
        size_t n = strcspn(order, ","), stage = 0;
        while (stage < MICA_SAMPLER_STAGES && (strlen(stage_names[stage]) != n || strncmp(order, stage_names[stage], n))) stage++;
        if (stage == MICA_SAMPLER_STAGES)
            return mica_fail(err, MICA_ERR_ARGUMENT, "order: unknown stage \"%.*s\"; known: top_p, min_p, top_k, temperature", (int)n, order);
        for (int i = 0; i < s->stage_count; i++)
            if (s->stages[i] == (int)stage) return mica_fail(err, MICA_ERR_ARGUMENT, "order: %s appears twice", stage_names[stage]);
        s->stages[s->stage_count++] = (int)stage;
        order += n;
        if (*order == ',') order++;
    }
    return true;
}

bool mica_sampler_check(const mica_generate_options *o, mica_error *err) {
    const struct { const char *name; float value, low, high; } ranges[] = {
        {"temperature", o->temperature, 0, 1e6f}, {"top_p", o->top_p, 0, 1}, {"min_p", o->min_p, 0, 1},
        {"repeat_penalty", o->repeat_penalty, 0, 1e6f}, {"presence_penalty", o->presence_penalty, -1e6f, 1e6f},
        {"frequency_penalty", o->frequency_penalty, -1e6f, 1e6f}};
    for (size_t i = 0; i < MICA_COUNT(ranges); i++)
        if (!(ranges[i].value >= ranges[i].low && ranges[i].value <= ranges[i].high))
            return mica_fail(err, MICA_ERR_ARGUMENT, "%s must be between %g and %g, got %g", ranges[i].name, (double)ranges[i].low,
                             (double)ranges[i].high, (double)ranges[i].value);
    if (o->top_k < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "top_k must not be negative, got %d", (int)o->top_k);
    if (o->max_tokens < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "max_tokens must not be negative, got %d", (int)o->max_tokens);
    if (o->min_tokens < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "min_tokens must not be negative, got %d", (int)o->min_tokens);
    if (o->speculate < 0 || o->speculate > MICA_DRAFT_MOST)
        return mica_fail(err, MICA_ERR_ARGUMENT, "speculate must be between 0 and %d, got %d", MICA_DRAFT_MOST, (int)o->speculate);
    if (o->logprobs < -1) return mica_fail(err, MICA_ERR_ARGUMENT, "logprobs must be -1 or more, got %d", (int)o->logprobs);
    return true;
}

bool mica_sampler_scratch_init(mica_sampler_scratch *s, size_t vocab, mica_error *err) {
    s->logits = mica_alloc(vocab * sizeof *s->logits);
    s->candidates = mica_alloc(vocab * sizeof *s->candidates);
    if (s->logits && s->candidates) return true;
    mica_sampler_scratch_free(s);
    return mica_fail_memory(err, vocab * (sizeof *s->logits + sizeof *s->candidates), "the sampler");
}

void mica_sampler_scratch_free(mica_sampler_scratch *s) {
    mica_free(s->logits);
    mica_free(s->candidates);
    *s = (mica_sampler_scratch){0};
}

static bool repeats(const mica_generate_options *o) { return o->repeat_penalty != 0 && o->repeat_penalty != 1; }
static bool penalised(const mica_generate_options *o) { return repeats(o) || o->presence_penalty != 0 || o->frequency_penalty != 0; }

static bool allocate(mica_sampler *s, const mica_sampler_scratch *shared, mica_error *err) {
    if (!shared && !mica_sampler_scratch_init(&s->own, s->vocab, err)) return false;
    s->scratch = shared ? *shared : s->own;
    s->bias = mica_alloc(s->bias_count * sizeof *s->bias);
    if (penalised(&s->options)) {
        s->counts = mica_calloc(s->vocab, sizeof *s->counts);
        s->seen = mica_calloc(s->vocab, 1);
    }
    bool ok = s->bias && (!penalised(&s->options) || (s->counts && s->seen));
    return ok || mica_fail_memory(err, s->vocab * (sizeof *s->counts + 1), "the sampler");
}

bool mica_sampler_init(mica_sampler *s, const mica_generate_options *o, size_t vocab, const mica_sampler_scratch *shared, mica_error *err) {
    *s = (mica_sampler){.options = *o, .vocab = vocab, .bias_count = o->logit_bias_count};
    if (!mica_sampler_check(o, err) || !parse_order(s, o->order ? o->order : "top_p,min_p,top_k,temperature", err)) return false;
    for (size_t i = 0; i < o->logit_bias_count; i++)
        if (o->logit_bias[i].id < 0 || (size_t)o->logit_bias[i].id >= vocab || isnan(o->logit_bias[i].bias))
            return mica_fail(err, MICA_ERR_ARGUMENT, "logit_bias: token %d is outside the vocabulary of %zu, or its bias is no number",
                             (int)o->logit_bias[i].id, vocab);
    if (!allocate(s, shared, err)) return mica_sampler_free(s), false;
    if (s->bias_count) memcpy(s->bias, o->logit_bias, s->bias_count * sizeof *s->bias);
    return true;
}

void mica_sampler_free(mica_sampler *s) {
    mica_free(s->bias);
    mica_sampler_scratch_free(&s->own);
    mica_free(s->counts);
    mica_free(s->seen);
    *s = (mica_sampler){0};
}

void mica_sampler_observe_prompt(mica_sampler *s, const int32_t *ids, size_t count) {
    for (size_t i = 0; s->seen && i < count; i++)
        if (ids[i] >= 0 && (size_t)ids[i] < s->vocab) s->seen[ids[i]] = 1;
}

// ---- adjusting logits ---------------------------------------------------------------------------------------
// The logits to choose from: those given, where nothing is asked that changes them.
static const float *adjust(mica_sampler *s, const float *logits, const int32_t *forbidden, size_t n_forbidden) {
    const mica_generate_options *o = &s->options;
    float *own = s->scratch.logits;
    if (!s->bias_count && !s->seen && !n_forbidden) return logits;
    memcpy(own, logits, s->vocab * sizeof *logits);
    for (size_t i = 0; i < s->bias_count; i++) own[s->bias[i].id] += s->bias[i].bias;
    for (size_t i = 0; s->seen && i < s->vocab; i++) {
        float *l = &own[i];
        if (repeats(o) && s->seen[i]) *l = *l > 0 ? *l / o->repeat_penalty : *l * o->repeat_penalty;
        if (s->counts[i]) *l -= o->presence_penalty + o->frequency_penalty * (float)s->counts[i];
    }
    for (size_t i = 0; i < n_forbidden; i++)
        if (forbidden[i] >= 0 && (size_t)forbidden[i] < s->vocab) own[forbidden[i]] = -INFINITY;
    return own;
}

enum { LANES = 16 }; // independent running values, so that a pass over the logits is not one long chain

bool mica_logits_finite(const float *l, size_t n) {
    float lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) lane[k] += l[i + k] * 0.0f;
    for (; i < n; i++) sum += l[i] * 0.0f;
    for (size_t k = 0; k < LANES; k++) sum += lane[k];
    return !isnan(sum);
}

static float largest(const float *l, size_t n) {
    float lane[LANES], most = -INFINITY;
    size_t i = 0;
    for (size_t k = 0; k < LANES; k++) lane[k] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) lane[k] = l[i + k] > lane[k] ? l[i + k] : lane[k];
    for (; i < n; i++) most = l[i] > most ? l[i] : most;
    for (size_t k = 0; k < LANES; k++) most = lane[k] > most ? lane[k] : most;
    return most;
}

int32_t mica_logits_argmax(const float *l, size_t n) {
    float most = largest(l, n);
    for (size_t i = 0; i < n; i++)
        if (l[i] == most) return (int32_t)i;
    return 0;
}

// ---- selection ------------------------------------------------------------------------------------------------
// Order of preference: larger logit, then lower id.
static bool before(mica_candidate a, mica_candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

static void sift_down(mica_candidate *c, size_t n, size_t i) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && before(c[child + 1], c[child])) child++;
        if (!before(c[child], c[i])) return;
        mica_candidate t = c[i];
        c[i] = c[child], c[child] = t;
        i = child;
    }
}

static void heapify(mica_candidate *c, size_t n) {
    for (size_t i = n / 2; i-- > 0;) sift_down(c, n, i);
}

// Moves the best of the heap c[0…n) to its end, c[n-1]; the heap shrinks by one.
static mica_candidate pop(mica_candidate *c, size_t n) {
    mica_candidate best = c[0];
    c[0] = c[n - 1];
    c[n - 1] = best;
    sift_down(c, n - 1, 0);
    return best;
}

double mica_logsumexp_f32(const float *logits, size_t n) {
    float most = largest(logits, n);
    if (!isfinite(most)) return (double)most;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)expf(logits[i] - most);
    return (double)most + log(sum);
}

void mica_top_logprobs(const float *logits, size_t n, double logsumexp, size_t k, mica_candidate *scratch, mica_logprob *out) {
    for (size_t i = 0; i < n; i++) scratch[i] = (mica_candidate){(int32_t)i, isnan(logits[i]) ? -INFINITY : logits[i]};
    if (k) heapify(scratch, n);
    for (size_t i = 0; i < k; i++) {
        mica_candidate c = pop(scratch, n - i);
        out[i] = (mica_logprob){c.id, (float)((double)c.logit - logsumexp)};
    }
}

// ---- filters: each takes n candidates, keeps the first so many, returns how many ---------------------------------
static float best_logit(const mica_candidate *c, size_t n) {
    float most = -INFINITY;
    for (size_t i = 0; i < n; i++) most = c[i].logit > most ? c[i].logit : most;
    return most;
}

static double candidates_logsumexp(const mica_candidate *c, size_t n) {
    float most = best_logit(c, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)expf(c[i].logit - most);
    return (double)most + log(sum);
}

// Pops until `enough` says stop, and moves what was popped to the front, best first.
static size_t keep_popped(mica_candidate *c, size_t n, size_t popped) {
    for (size_t i = 0; i < popped && i < n - 1 - i; i++) {
        mica_candidate t = c[i];
        c[i] = c[n - 1 - i], c[n - 1 - i] = t;
    }
    return popped;
}

// The candidates near the best come first: where they are enough, a heap need not hold the whole vocabulary. Gives how many there are.
static size_t near_best(mica_candidate *c, size_t n) {
    enum { NEAR = 10 }; // e^-10 of the best's probability
    float bar = best_logit(c, n) - NEAR;
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].logit >= bar) {
            mica_candidate t = c[m];
            c[m++] = c[i], c[i] = t;
        }
    return m;
}

// The smallest set of most likely candidates whose probability reaches p.
static size_t filter_top_p(mica_candidate *c, size_t n, double p) {
    double total = candidates_logsumexp(c, n);
    for (size_t m = near_best(c, n);; m = n) {
        double sum = 0;
        size_t popped = 0;
        heapify(c, m);
        while (popped < m && sum < p) {
            sum += exp((double)c[0].logit - total);
            pop(c, m - popped);
            popped++;
        }
        if (sum >= p || m == n) return keep_popped(c, m, popped);
    }
}

static size_t filter_top_k(mica_candidate *c, size_t n, size_t k) {
    if (k >= n) return n;
    size_t near = near_best(c, n), m = near >= k ? near : n;
    heapify(c, m);
    for (size_t i = 0; i < k; i++) pop(c, m - i);
    return keep_popped(c, m, k);
}

// Those at least min_p times as likely as the most likely.
static size_t filter_min_p(mica_candidate *c, size_t n, float min_p) {
    float bar = best_logit(c, n) + logf(min_p);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].logit >= bar) c[kept++] = c[i];
    return kept;
}

static int32_t draw(mica_sampler *s, size_t n) {
    mica_philox r = mica_philox_at(s->options.seed, s->step++);
    const mica_candidate *c = s->scratch.candidates;
    double total = candidates_logsumexp(c, n), u = mica_uniform_f64(r.v[0], r.v[1]), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += exp((double)c[i].logit - total);
        if (u < sum) return c[i].id;
    }
    return c[0].id; // rounding left a sliver at the end
}

static int32_t sample(mica_sampler *s, const float *logits) {
    const mica_generate_options *o = &s->options;
    mica_candidate *c = s->scratch.candidates;
    size_t n = 0;
    for (size_t i = 0; i < s->vocab; i++)
        if (logits[i] > -INFINITY) c[n++] = (mica_candidate){(int32_t)i, logits[i]};
    if (!n) return mica_logits_argmax(logits, s->vocab);
    for (int i = 0; i < s->stage_count; i++) {
        switch (s->stages[i]) {
        case TOP_P: if (o->top_p > 0 && o->top_p < 1) n = filter_top_p(c, n, (double)o->top_p); break;
        case MIN_P: if (o->min_p > 0) n = filter_min_p(c, n, o->min_p); break;
        case TOP_K: if (o->top_k > 0) n = filter_top_k(c, n, (size_t)o->top_k); break;
        case TEMPERATURE:
            for (size_t k = 0; k < n; k++) c[k].logit /= o->temperature;
            break;
        }
    }
    return draw(s, n);
}

int32_t mica_sampler_next(mica_sampler *s, const float *given, const int32_t *forbidden, size_t n_forbidden) {
    const float *logits = adjust(s, given, forbidden, n_forbidden);
    int32_t id = s->options.temperature > 0 ? sample(s, logits) : mica_logits_argmax(logits, s->vocab);
    if (s->seen) s->seen[id] = 1, s->counts[id]++;
    return id;
}
