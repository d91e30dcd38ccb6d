// SPDX-License-Identifier: Apache-2.0
// Prompt look-up. As in LZ77 compressors, a hash of the last two tokens leads to a chain of earlier positions; the longest match of a few
// of them wins, the newest among equals. Memory is bounded by the sequence, time by the length of the chain that is followed.
// How long a guess should be: with p the share of such guesses that held so far and t(r) the time of a forward of r rows, n tokens give
// (1 + p + … + p^n) / t(1 + n) tokens per second; the best n is taken, which is 0 when guessing does not pay.
#include "infer/draft.h"
#include <string.h>

enum {
    MOST_SLOTS = 1 << 16,
    CHAIN = 16,      // candidates looked at
    LONG_MATCH = 32, // a match is not followed further
    MEMORY = 16,     // guessed tokens of a class after which older ones count half
    PROBE = 32,      // a guess that does not pay is made all the same once in so many times, to see whether it would now
};

static const float first_held[MICA_DRAFT_CLASSES] = {1, 1, 2, 2, 3}; // against one failure

bool mica_draft_init(mica_draft *d, size_t most, size_t capacity, mica_error *err) {
    *d = (mica_draft){.most = MICA_MIN(most, (size_t)MICA_DRAFT_MOST), .capacity = capacity};
    for (int i = 0; i < MICA_DRAFT_CLASSES; i++) d->held[i] = first_held[i], d->failed[i] = 1;
    if (!d->most) return true;
    for (d->slots = 64; d->slots < MICA_MIN(capacity, (size_t)MOST_SLOTS);) d->slots *= 2;
    d->ids = mica_alloc(capacity * sizeof *d->ids);
    d->previous = mica_alloc(capacity * sizeof *d->previous);
    d->newest = mica_calloc(d->slots, sizeof *d->newest);
    if (d->ids && d->previous && d->newest) return true;
    mica_draft_free(d);
    return mica_fail_memory(err, capacity * sizeof *d->ids, "a draft");
}

void mica_draft_free(mica_draft *d) {
    mica_free(d->ids);
    mica_free(d->previous);
    mica_free(d->newest);
    *d = (mica_draft){0};
}

// ---- look-up ------------------------------------------------------------------------------------------------
static int32_t *slot(const mica_draft *d, size_t position) { // of the two tokens before it
    uint64_t pair = (uint64_t)(uint32_t)d->ids[position - 2] << 32 | (uint32_t)d->ids[position - 1];
    return &d->newest[(pair * UINT64_C(0x9E3779B97F4A7C15) >> 40) & (d->slots - 1)];
}

void mica_draft_push(mica_draft *d, int32_t id) {
    if (!d->most || d->count == d->capacity) return;
    size_t at = d->count++;
    d->ids[at] = id;
    d->previous[at] = 0;
    if (at < 2) return;
    int32_t *head = slot(d, at); // the pair is entered once it is known what follows
    d->previous[at] = *head;
    *head = (int32_t)at;
}

// Tokens before `position` that equal the last ones.
static size_t match_length(const mica_draft *d, size_t position) {
    size_t n = 0;
    while (n < LONG_MATCH && n < position && d->ids[position - 1 - n] == d->ids[d->count - 1 - n]) n++;
    return n;
}

// The position whose past is most like the present; 0: none.
static size_t look_up(const mica_draft *d, size_t *length) {
    size_t best = 0;
    *length = 1; // a single token says too little
    size_t at = (size_t)*slot(d, d->count);
    for (int i = 0; at && i < CHAIN && *length < LONG_MATCH; i++, at = (size_t)d->previous[at]) {
        size_t n = match_length(d, at);
        if (n > *length) *length = n, best = at;
    }
    return best;
}

// ---- how much --------------------------------------------------------------------------------------------------
// In units of a forward of one row. Where it is unknown, each further row adds a quarter (4-bit weights on two Zen 4 cores: 0.22 … 0.3).
static double cost(const mica_draft *d, size_t rows) {
    size_t known = rows;
    while (known > 1 && !(d->seconds[known] > 0)) known--;
    double base = d->seconds[1] > 0 ? d->seconds[known] / d->seconds[1] : 1;
    return base + (double)(rows - (d->seconds[1] > 0 ? known : 1)) / 4;
}

static size_t best_length(const mica_draft *d, int kind, size_t limit) {
    double p = (double)(d->held[kind] / (d->held[kind] + d->failed[kind])), power = 1, tokens = 1, most = 1;
    size_t best = 0;
    for (size_t n = 1; n <= limit; n++) {
        tokens += power *= p;
        if (tokens / cost(d, 1 + n) > most) most = tokens / cost(d, 1 + n), best = n;
    }
    return best;
}

static int class_of(size_t length) { return length < 3 ? 0 : length < 4 ? 1 : length < 8 ? 2 : length < 16 ? 3 : 4; }

size_t mica_draft_guess(mica_draft *d, size_t limit, int32_t *guess) {
    limit = MICA_MIN(limit, d->most);
    size_t length, at = limit && d->count > 2 ? look_up(d, &length) : 0;
    if (!at) return 0;
    d->kind = class_of(length);
    size_t n = best_length(d, d->kind, limit);
    if (!n && ++d->declined[d->kind] < PROBE) return 0;
    d->declined[d->kind] = 0;
    n = MICA_MAX(n, (size_t)1);
    for (size_t i = 0; i < n; i++) guess[i] = at + i < d->count ? d->ids[at + i] : guess[at + i - d->count]; // a loop goes on round
    return n;
}

void mica_draft_learn(mica_draft *d, size_t n, size_t held) {
    float *h = &d->held[d->kind], *f = &d->failed[d->kind];
    *h += (float)held;
    if (held < n) *f += 1;
    if (*h + *f > MEMORY) *h /= 2, *f /= 2;
}

void mica_draft_time(mica_draft *d, size_t rows, double seconds) {
    if (rows >= MICA_COUNT(d->seconds)) return;
    double *s = &d->seconds[rows];
    // Disturbances only ever make a forward slower: a faster one counts at once, a slower one bit by bit.
    if (d->timed[rows]) *s = *s > 0 && seconds > *s ? *s + (seconds - *s) / 8 : seconds;
    d->timed[rows] = true;
}
