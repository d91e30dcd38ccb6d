// SPDX-License-Identifier: Apache-2.0
// Datasets: opening, the example at hand, the report. One example is held at a time; asking for the same one again costs nothing.
#include "train/data_internal.h"
#include <string.h>
#include <unistd.h>

enum { MAX_LENGTH = 2048 };

// mlx-lm's list, in tokenizer_utils.py.
static bool has_thinking(const mica_tokenizer *t) {
    static const char *const pairs[][2] = {
        {"<think>", "</think>"}, {"<longcat_think>", "</longcat_think>"}, {"<|think:start|>", "<|think:end|>"}, {"<|channel>", "<channel|>"}};
    for (size_t i = 0; i < MICA_COUNT(pairs); i++)
        if (mica_tokenizer_id(t, pairs[i][0], strlen(pairs[i][0])) >= 0 && mica_tokenizer_id(t, pairs[i][1], strlen(pairs[i][1])) >= 0) return true;
    return false;
}

static bool take_options(mica_dataset *d, const mica_dataset_options *options, mica_error *err) {
    if (options) d->options = *options;
    if (!d->options.max_length) d->options.max_length = MAX_LENGTH;
    const mica_dataset_options *o = &d->options;
    if (o->max_length < 2 || o->max_length > INT32_MAX)
        return mica_fail(err, MICA_ERR_ARGUMENT, "training data: max_length must be from 2 to %d, not %zu", INT32_MAX, o->max_length);
    if (o->mask > MICA_MASK_ASSISTANT || o->too_long > MICA_LONG_SKIP) return mica_fail(err, MICA_ERR_ARGUMENT, "training data: unknown option");
    d->fingerprint = mica_hash_mix(o->max_length, (uint64_t)o->mask << 8 | (uint64_t)o->too_long << 4 | (uint64_t)o->allow_control);
    return true;
}

mica_dataset *mica_dataset_open(const char *path, const mica_tokenizer *tokenizer, const mica_template *chat, const mica_dataset_options *options, mica_error *err) {
    mica_dataset *d = mica_calloc(1, sizeof *d);
    if (!d) return mica_fail_memory(err, sizeof *d, path), NULL;
    d->fd = -1, d->tokenizer = tokenizer, d->chat = chat;
    d->thinking = has_thinking(tokenizer);
    bool ok = (d->path = mica_strdup(path)) || mica_fail_memory(err, strlen(path), "a file name");
    ok = ok && take_options(d, options, err) && mica_dataset_index(d, err);
    ok = ok && ((d->met = mica_calloc(d->count / 64 + 1, sizeof *d->met)) || mica_fail_memory(err, d->count / 8, path));
    if (ok) return d->line.len = 0, d;
    mica_dataset_free(d);
    return NULL;
}

void mica_dataset_free(mica_dataset *d) {
    if (!d) return;
    if (d->fd >= 0) close(d->fd);
    mica_arena_free(&d->arena);
    mica_buf_free(&d->line);
    mica_buf_free(&d->json);
    mica_text_free(&d->text);
    mica_text_free(&d->other);
    mica_marks_free(&d->marks);
    mica_ids_free(&d->ids);
    mica_ids_free(&d->prefix);
    mica_free(d->scored);
    mica_free(d->starts);
    mica_free(d->met);
    mica_free(d->path);
    mica_free(d);
}

size_t mica_dataset_count(const mica_dataset *d) { return d->count; }
uint64_t mica_dataset_fingerprint(const mica_dataset *d) { return mica_hash_mix(d->fingerprint, d->count); }
const mica_dataset_report *mica_dataset_get_report(const mica_dataset *d) { return &d->report; }

// ---- examples -----------------------------------------------------------------------------------------------
static bool first_time(mica_dataset *d, size_t i) {
    uint64_t bit = (uint64_t)1 << (i % 64);
    bool first = !(d->met[i / 64] & bit);
    d->met[i / 64] |= bit;
    return first;
}

static void count_example(mica_dataset *d, size_t i) {
    mica_dataset_report *r = &d->report;
    if (!first_time(d, i)) return;
    size_t n = d->ids.len, most = d->options.max_length, targets = d->targets;
    bool cut = n > most && d->options.too_long != MICA_LONG_SPLIT, skipped = cut && d->options.too_long == MICA_LONG_SKIP;
    r->seen++;
    r->tokens += n;
    r->too_long += n > most;
    if (cut) r->lost += skipped ? n : n - most;
    for (size_t k = most; cut && k < n; k++) targets -= d->scored[k];
    r->unscored += !targets && !skipped;
}

// A line that is passed over is an example without tokens.
static bool pass_over(mica_dataset *d, size_t i, const mica_error *why) {
    size_t bad = d->report.bad;
    bool known = d->met[i / 64] >> (i % 64) & 1;
    if (!mica_dataset_pass_over(d, why)) return false;
    if (known) d->report.bad = bad;
    first_time(d, i);
    d->ids.len = d->targets = 0;
    return d->bad = true;
}

static bool load(mica_dataset *d, size_t i, mica_error *err) {
    mica_error why = {0};
    mica_line line;
    mica_arena_reset(&d->arena);
    d->bad = false;
    if (!mica_dataset_read(d, d->starts[i], err)) return false;
    if (mica_line_parse(d, &line, &why) && mica_line_encode(d, &line, &why)) return count_example(d, i), true;
    mica_dataset_blame(d, d->starts[i], &why);
    if (pass_over(d, i, &why)) return true;
    if (err) *err = why;
    return false;
}

bool mica_dataset_example_get(mica_dataset *d, size_t i, mica_dataset_example *out, mica_error *err) {
    *out = (mica_dataset_example){0};
    if (i >= d->count) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: there is no example %zu of %zu", d->path, i, d->count);
    if (d->current != i + 1) {
        d->current = 0;
        if (!load(d, i, err)) return false;
        d->current = i + 1;
    }
    *out = (mica_dataset_example){d->ids.data, d->scored, d->ids.len, d->targets, d->bad};
    return true;
}
