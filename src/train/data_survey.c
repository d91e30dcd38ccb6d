// SPDX-License-Identifier: Apache-2.0
// A look ahead at the batches of a run, for the largest of them: it decides how much memory the run takes. The first ones are read as the run
// will read them. Of a long file the rest is judged by the lines' bytes, and only the places that look largest are read.
#include "train/data_internal.h"
#include <string.h>
#include <sys/stat.h>

enum { TOKENS = 400000, PLACES = 4 }; // read at first, some tenths of a second; places read of what follows

typedef struct looking {
    mica_dataset *d;
    mica_dataset_order *order;
    mica_dataset_survey *out;
    uint64_t tokens;        // read so far
    uint32_t lengths[64];   // of batches, all different
    mica_error *err;
} looking;

static bool hold(looking *l, const mica_text_batch *b) {
    mica_dataset_survey *s = l->out;
    size_t n = b->n, bytes = n * (2 * sizeof *s->zeros + sizeof *s->weights) + b->segments * sizeof *s->lengths;
    mica_dataset_survey_free(s);
    s->zeros = mica_calloc(n, sizeof *s->zeros), s->weights = mica_alloc(n * sizeof *s->weights), s->lengths = mica_alloc(b->segments * sizeof *s->lengths);
    if (!s->zeros || !s->weights || !s->lengths) return mica_fail_memory(l->err, bytes, "a look at the training data");
    memcpy(s->weights, b->weights, n * sizeof *s->weights);
    memcpy(s->lengths, b->lengths, b->segments * sizeof *s->lengths);
    s->largest = (mica_text_batch){.ids = s->zeros, .targets = s->zeros, .weights = s->weights, .lengths = s->lengths, .n = n, .segments = b->segments};
    return true;
}

static bool look_at(looking *l, const mica_text_batch *b) {
    mica_dataset_survey *s = l->out;
    size_t k = 0;
    while (k < s->shapes && l->lengths[k] != b->n) k++;
    if (k == s->shapes && k < MICA_COUNT(l->lengths)) l->lengths[s->shapes++] = (uint32_t)b->n;
    return b->n <= s->largest.n || hold(l, b);
}

// Batches as they come, up to `most` of them; *rest: how many there are still.
static bool look_at_first(looking *l, uint64_t most, uint64_t *rest) {
    mica_text_batch b;
    for (*rest = most; *rest && l->tokens < TOKENS; --*rest) {
        if (!mica_dataset_next(l->order, &b, l->err)) return false;
        if (!b.n) return *rest = 0, true;
        l->tokens += b.n;
        if (!look_at(l, &b)) return false;
    }
    return true;
}

// ---- the rest of a long file ------------------------------------------------------------------------------------
static uint64_t file_bytes(const mica_dataset *d) {
    struct stat st;
    return fstat(d->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static uint64_t line_bytes(const mica_dataset *d, size_t i, uint64_t whole) {
    uint64_t end = i + 1 < d->count ? d->starts[i + 1] : whole;
    return end > d->starts[i] ? end - d->starts[i] : 0;
}

typedef struct place {
    mica_dataset_position at;
    uint64_t bytes;
} place;

static void note(place best[PLACES], place p) {
    for (size_t k = 0; k < PLACES; k++)
        if (p.bytes > best[k].bytes) {
            place pushed = best[k];
            best[k] = p, p = pushed;
        }
}

// Places of the epoch at hand where batches of `size` lines, none counted with more than `most` bytes, are largest.
static void find_places(looking *l, uint64_t batches, size_t size, uint64_t most, place best[PLACES]) {
    mica_dataset_position at = mica_dataset_order_position(l->order);
    uint64_t whole = file_bytes(l->d), epoch = at.epoch;
    for (; batches && at.epoch == epoch && at.index + size <= l->d->count; batches--) {
        place p = {.at = at};
        for (size_t i = 0; i < size; i++, at.index++)
            p.bytes += MICA_MIN(line_bytes(l->d, mica_dataset_order_example(l->order, &at), whole), most);
        note(best, p);
    }
}

static bool look_at_rest(looking *l, uint64_t batches, size_t size) {
    place best[PLACES] = {{.bytes = 0}};
    const uint64_t per_token = 5; // bytes of JSON, about
    mica_text_batch b;
    find_places(l, batches, size, l->d->options.max_length * per_token, best);
    for (size_t k = 0; k < PLACES; k++) {
        if (!best[k].bytes) continue;
        if (!mica_dataset_order_seek(l->order, best[k].at, l->err) || !mica_dataset_next(l->order, &b, l->err) || !look_at(l, &b)) return false;
    }
    return true;
}

// ---- all of it ---------------------------------------------------------------------------------------------------
static bool look(looking *l, const mica_dataset_order_options *options, mica_dataset_position from, uint64_t batches) {
    uint64_t rest = 0;
    l->order = mica_dataset_order_new(l->d, options, l->err);
    bool ok = l->order && mica_dataset_order_seek(l->order, from, l->err) && look_at_first(l, batches, &rest);
    bool by_lines = options->batch_size && !options->batch_tokens && l->d->options.too_long != MICA_LONG_SPLIT; // a batch is so many lines
    if (ok && rest && by_lines) ok = look_at_rest(l, rest, options->batch_size);
    mica_dataset_order_free(l->order);
    return ok;
}

bool mica_dataset_survey_run(mica_dataset *d, const mica_dataset_order_options *options, mica_dataset_position from, uint64_t batches, mica_dataset_survey *out,
                             mica_error *err) {
    looking l = {.d = d, .out = out, .err = err};
    mica_dataset_report report = d->report; // what is read here does not count as met
    size_t met = (d->count / 64 + 1) * sizeof *d->met;
    uint64_t *before = mica_alloc(met);
    *out = (mica_dataset_survey){0};
    if (!before) return mica_fail_memory(err, met, "a look at the training data");
    memcpy(before, d->met, met);
    bool ok = look(&l, options, from, batches);
    memcpy(d->met, before, met);
    d->report = report;
    d->current = 0;
    mica_free(before);
    if (!ok) mica_dataset_survey_free(out);
    return ok;
}

void mica_dataset_survey_free(mica_dataset_survey *s) {
    mica_free(s->zeros);
    mica_free(s->weights);
    mica_free(s->lengths);
    s->zeros = s->lengths = NULL, s->weights = NULL;
    s->largest = (mica_text_batch){0};
}
