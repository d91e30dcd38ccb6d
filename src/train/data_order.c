// SPDX-License-Identifier: Apache-2.0
// The order in which examples come, and how they are packed. An epoch's order is a Fisher-Yates shuffle whose draws are a pure function of the
// seed and the epoch, so that a position of three numbers is all there is to save. Batches are filled in that order; nothing is padded.
#include "base/rng.h"
#include "train/data_internal.h"
#include <string.h>

enum { BATCH_SIZE = 4 };

struct mica_dataset_order {
    mica_dataset *d;
    mica_dataset_order_options options;
    mica_dataset_position position;
    uint32_t *order;   // [count] of `shuffled`; NULL: file order
    uint64_t shuffled; // epoch + 1; 0: none yet
    int32_t *ids, *targets, *lengths;
    float *weights;
    size_t ids_capacity, targets_capacity, weights_capacity, lengths_capacity;
};

// ---- the order ----------------------------------------------------------------------------------------------
/** Below n ≤ 2³², from 64 random bits. */
static uint32_t below(mica_philox r, uint64_t n) { return (uint32_t)((r.v[0] * n + (r.v[1] * n >> 32)) >> 32); }

static void shuffle(mica_dataset_order *o, uint64_t epoch) {
    uint64_t key = mica_hash_mix(o->options.seed, epoch);
    for (size_t i = 0; i < o->d->count; i++) o->order[i] = (uint32_t)i;
    for (size_t i = o->d->count; i > 1; i--) {
        uint32_t k = below(mica_philox_at(key, i), i), last = o->order[i - 1];
        o->order[i - 1] = o->order[k], o->order[k] = last;
    }
    o->shuffled = epoch + 1;
}

size_t mica_dataset_order_example(mica_dataset_order *o, const mica_dataset_position *p) {
    if (!o->order) return (size_t)p->index;
    if (o->shuffled != p->epoch + 1) shuffle(o, p->epoch);
    return o->order[p->index];
}

mica_dataset_order *mica_dataset_order_new(mica_dataset *d, const mica_dataset_order_options *options, mica_error *err) {
    mica_dataset_order_options set = options ? *options : (mica_dataset_order_options){0};
    if (!set.batch_size) set.batch_size = set.batch_tokens ? SIZE_MAX : BATCH_SIZE;
    if (set.batch_tokens && set.batch_tokens < d->options.max_length)
        return mica_fail(err, MICA_ERR_ARGUMENT, "training data: batches of %zu tokens do not hold an example of max_length %zu", set.batch_tokens, d->options.max_length), NULL;
    mica_dataset_order *o = mica_calloc(1, sizeof *o);
    if (!o) return mica_fail_memory(err, sizeof *o, "an order of examples"), NULL;
    o->d = d, o->options = set;
    if (!set.in_file_order && !(o->order = mica_alloc(d->count * sizeof *o->order))) {
        mica_fail_memory(err, d->count * sizeof *o->order, "an order of examples");
        mica_dataset_order_free(o);
        return NULL;
    }
    return o;
}

void mica_dataset_order_free(mica_dataset_order *o) {
    if (!o) return;
    mica_free(o->order);
    mica_free(o->ids);
    mica_free(o->targets);
    mica_free(o->weights);
    mica_free(o->lengths);
    mica_free(o);
}

mica_dataset_position mica_dataset_order_position(const mica_dataset_order *o) { return o->position; }

bool mica_dataset_order_seek(mica_dataset_order *o, mica_dataset_position p, mica_error *err) {
    bool end = o->options.epochs && p.epoch == o->options.epochs && !p.index;
    bool ok = p.index < o->d->count && (!p.piece || o->d->options.too_long == MICA_LONG_SPLIT) && (!o->options.epochs || p.epoch < o->options.epochs || end);
    if (!ok)
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: no place %llu of epoch %llu among %zu examples", o->d->path, (unsigned long long)p.index,
                         (unsigned long long)p.epoch, o->d->count);
    o->position = p;
    return true;
}

// ---- batches ------------------------------------------------------------------------------------------------
typedef struct piece {
    size_t from, to; // tokens; the last one is a scored target
} piece;

static size_t piece_count(const mica_dataset_order *o, const mica_dataset_example *e) {
    size_t most = o->d->options.max_length;
    if (e->n < 2 || (e->n > most && o->d->options.too_long == MICA_LONG_SKIP)) return 0;
    return o->d->options.too_long == MICA_LONG_SPLIT ? (e->n - 2) / (most - 1) + 1 : 1;
}

/** Pieces share a token: the last target of one is the first input of the next, so that each token is a target once. */
static piece cut(const mica_dataset_order *o, const mica_dataset_example *e, uint64_t k) {
    size_t most = o->d->options.max_length;
    piece p = {(size_t)k * (most - 1), 0};
    p.to = MICA_MIN(e->n, p.from + most);
    while (p.to > p.from + 1 && !e->scored[p.to - 1]) p.to--; // what comes after the last target changes nothing
    return p;
}

static bool reserve(mica_dataset_order *o, size_t n, size_t segments, mica_error *err) {
    bool ok = mica_grow(&o->ids, &o->ids_capacity, n, sizeof *o->ids) && mica_grow(&o->targets, &o->targets_capacity, n, sizeof *o->targets) &&
              mica_grow(&o->weights, &o->weights_capacity, n, sizeof *o->weights) &&
              mica_grow(&o->lengths, &o->lengths_capacity, segments, sizeof *o->lengths);
    return ok || mica_fail_memory(err, n * 12, "a batch of training data");
}

static bool add(mica_dataset_order *o, const mica_dataset_example *e, piece p, mica_text_batch *b, mica_error *err) {
    size_t n = p.to - p.from - 1;
    if (!reserve(o, b->n + n, b->segments + 1, err)) return false;
    memcpy(o->ids + b->n, e->ids + p.from, n * sizeof *o->ids);
    memcpy(o->targets + b->n, e->ids + p.from + 1, n * sizeof *o->targets);
    for (size_t i = 0; i < n; i++) o->weights[b->n + i] = e->scored[p.from + 1 + i] ? 1.0f : 0.0f;
    o->lengths[b->segments++] = (int32_t)n;
    b->n += n;
    return true;
}

static bool fits(const mica_dataset_order *o, const mica_text_batch *b, piece p) {
    size_t most = o->options.batch_tokens;
    return !b->n || !most || b->n + (p.to - p.from - 1) <= most;
}

static void step_over(const mica_dataset_order *o, mica_dataset_position *p) {
    p->index++, p->piece = 0;
    if (p->index == o->d->count) p->epoch++, p->index = 0;
}

/** Adds pieces of the example at *p, and moves *p behind them. *full: the batch ends here. */
static bool add_example(mica_dataset_order *o, mica_dataset_position *p, mica_text_batch *b, bool *full, mica_error *err) {
    mica_dataset_example e;
    if (!mica_dataset_example_get(o->d, mica_dataset_order_example(o, p), &e, err)) return false;
    for (size_t count = piece_count(o, &e); p->piece < count; p->piece++) {
        piece at = cut(o, &e, p->piece);
        if (at.to - at.from < 2) continue; // nothing scored
        *full = b->segments == o->options.batch_size || !fits(o, b, at);
        if (*full) return true;
        if (!add(o, &e, at, b, err)) return false;
    }
    step_over(o, p);
    *full = b->segments == o->options.batch_size;
    return true;
}

static bool nothing_scored(const mica_dataset_order *o, mica_error *err) {
    const mica_dataset_report *r = &o->d->report;
    mica_fail(err, MICA_ERR_FORMAT, "%s: none of %zu examples has anything to score: %zu masked wholly or empty, %zu beyond %zu tokens, %zu bad lines%s%s",
              o->d->path, o->d->count, r->unscored, r->too_long, o->d->options.max_length, r->bad, r->bad ? ", the first: " : "", r->first_bad);
    return false;
}

bool mica_dataset_next(mica_dataset_order *o, mica_text_batch *out, mica_error *err) {
    mica_dataset_position p = o->position;
    mica_text_batch b = {0};
    size_t idle = 0; // examples in a row that gave nothing
    *out = b;
    for (bool full = false; !full && (!o->options.epochs || p.epoch < o->options.epochs);) {
        size_t before = b.n;
        if (!add_example(o, &p, &b, &full, err)) return false;
        idle = b.n == before ? idle + 1 : 0;
        if (!b.n && idle >= o->d->count) return nothing_scored(o, err);
    }
    b.ids = o->ids, b.targets = o->targets, b.weights = o->weights, b.lengths = o->lengths;
    *out = b;
    o->position = p;
    return true;
}
