// SPDX-License-Identifier: Apache-2.0
// Public handles of batches: they pass calls on to the backend's own, or to rows that are answered one after another (turns.c).
#include "backend/model.h"
#include "backend/turns.h"
#include <string.h>

struct mica_batch {
    mica_model *model;
    void *impl;        // of the backend, or
    mica_turns *turns; // where it has none
    struct mica_batch *next, **link; // among the open batches of the model
};

static void cancel(mica_batch *b, int64_t row) {
    if (b->turns) mica_turns_cancel(b->turns, row);
    else b->model->backend->batch_cancel(b->impl, row);
}

void mica_batches_cancel(mica_batch *first) {
    for (mica_batch *b = first; b; b = b->next) cancel(b, -1);
}

static void link_batch(mica_batch *b) {
    mica_model *m = b->model;
    pthread_mutex_lock(&m->lock);
    b->link = &m->batches;
    b->next = m->batches;
    if (b->next) b->next->link = &b->next;
    m->batches = b;
    pthread_mutex_unlock(&m->lock);
}

static void unlink_batch(mica_batch *b) {
    pthread_mutex_lock(&b->model->lock);
    *b->link = b->next;
    if (b->next) b->next->link = b->link;
    pthread_mutex_unlock(&b->model->lock);
}

mica_batch *mica_batch_new(mica_model *m, const mica_batch_options *options, mica_error *err) {
    const mica_backend *k = m->backend;
    if (options && options->invariant && !k->batch_new)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "invariant: backend \"%s\" cannot do this", k->name), NULL;
    if (!mica_model_retain(m, err)) return NULL;
    mica_batch *b = mica_calloc(1, sizeof *b);
    if (!b) mica_fail_memory(err, sizeof *b, "a batch");
    else {
        b->model = m;
        if (k->batch_new) b->impl = k->batch_new(m->impl, options, err);
        else b->turns = mica_turns_new(k, m->impl, err);
        if (b->impl || b->turns) return link_batch(b), b;
    }
    mica_free(b);
    mica_model_release(m);
    return NULL;
}

// A batch of a closed model only gives what it has.
static bool is_open(const mica_batch *b, mica_error *err) {
    return !mica_model_is_closed(b->model) || mica_fail(err, MICA_ERR_ARGUMENT, "the model is closed");
}

int64_t mica_batch_add(mica_batch *b, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    if (!is_open(b, err) || !mica_check_adapter(b->model, options ? options->adapter : NULL, err)) return -1;
    int64_t row = b->turns ? mica_turns_add(b->turns, prompt, options, err) : b->model->backend->batch_add(b->impl, prompt, options, err);
    if (row >= 0 && !is_open(b, NULL)) cancel(b, row); // closed meanwhile
    return row;
}

bool mica_batch_next(mica_batch *b, mica_batch_event *e) {
    *e = (mica_batch_event){.row = -1, .token = {.id = -1, .text = ""}};
    return b->turns ? mica_turns_next(b->turns, e) : b->model->backend->batch_next(b->impl, e);
}

void mica_batch_cancel(mica_batch *b, int64_t row) { cancel(b, row); }

bool mica_batch_error(const mica_batch *b, int64_t row, mica_error *err) {
    return b->turns ? mica_turns_error(b->turns, row, err) : b->model->backend->batch_error(b->impl, row, err);
}

mica_metrics mica_batch_metrics(const mica_batch *b, int64_t row) {
    return b->turns ? mica_turns_metrics(b->turns, row) : b->model->backend->batch_metrics(b->impl, row);
}

void mica_batch_free(mica_batch *b) {
    if (!b) return;
    unlink_batch(b);
    if (b->turns) mica_turns_free(b->turns);
    else b->model->backend->batch_free(b->impl);
    mica_model_release(b->model);
    mica_free(b);
}

// ---- all together ---------------------------------------------------------------------------------------------
typedef struct collecting {
    mica_batch *batch;
    mica_result *results;
    size_t *index; // of each row among the results
    mica_buf *texts;
    size_t *capacity; // of each result's ids
    const mica_batch_each *each;
    bool stopped;
} collecting;

static void report(collecting *c, size_t i) {
    if (c->stopped || !c->each || !c->each->done || c->each->done(c->each->context, i, &c->results[i])) return;
    c->stopped = true;
    mica_batch_cancel(c->batch, -1);
}

static void fail_result(mica_result *r, const mica_error *err) {
    r->finish = MICA_FINISH_ERROR;
    r->error = *err;
}

// The token's text and id; a row whose result cannot be held ends.
static void keep(collecting *c, size_t i, const mica_batch_event *e) {
    mica_result *r = &c->results[i];
    bool ok = mica_buf_append(&c->texts[i], e->token.text, e->token.length);
    if (ok && e->token.id >= 0 && (ok = mica_grow(&r->ids, &c->capacity[i], r->count + 1, sizeof *r->ids))) r->ids[r->count++] = e->token.id;
    r->text = c->texts[i].data, r->length = c->texts[i].len;
    if (ok || r->finish) return;
    mica_error err = {0};
    mica_fail_memory(&err, r->length, "an answer");
    fail_result(r, &err);
    mica_batch_cancel(c->batch, e->row);
}

static void finish(collecting *c, size_t i, const mica_batch_event *e) {
    mica_result *r = &c->results[i];
    if (!r->finish) {
        r->finish = e->finish;
        mica_batch_error(c->batch, e->row, &r->error);
    }
    r->metrics = mica_batch_metrics(c->batch, e->row);
    report(c, i);
}

static void add_all(collecting *c, const mica_request *requests, size_t count) {
    size_t rows = 0;
    for (size_t i = 0; i < count && !c->stopped; i++) {
        mica_error err = {0};
        if (mica_batch_add(c->batch, &requests[i].prompt, &requests[i].options, &err) >= 0) c->index[rows++] = i;
        else fail_result(&c->results[i], &err), report(c, i);
    }
}

static bool prepare(collecting *c, size_t count, mica_error *err) {
    c->index = mica_calloc(count, sizeof *c->index);
    c->texts = mica_calloc(count, sizeof *c->texts);
    c->capacity = mica_calloc(count, sizeof *c->capacity);
    bool ok = c->index && c->texts && c->capacity;
    for (size_t i = 0; i < count; i++) {
        c->results[i] = (mica_result){0};
        if (ok && (ok = mica_buf_append(&c->texts[i], "", 0))) c->results[i].text = c->texts[i].data;
    }
    return ok || mica_fail_memory(err, count * (sizeof *c->texts + sizeof *c->index), "a batch");
}

bool mica_batch_generate(mica_model *m, const mica_request *requests, size_t count, const mica_batch_options *options,
                         const mica_batch_each *each, mica_result *results, mica_error *err) {
    collecting c = {.results = results, .each = each};
    bool ok = prepare(&c, count, err) && (c.batch = mica_batch_new(m, options, err));
    if (ok) {
        add_all(&c, requests, count);
        for (mica_batch_event e; mica_batch_next(c.batch, &e);) {
            size_t i = c.index[e.row];
            keep(&c, i, &e);
            if (e.finish) finish(&c, i, &e);
        }
        for (size_t i = 0; i < count; i++) // those that were not even started
            if (!results[i].finish) results[i].finish = MICA_FINISH_CANCELLED;
    }
    mica_batch_free(c.batch);
    mica_free(c.index);
    mica_free(c.capacity);
    mica_free(c.texts);
    for (size_t i = 0; !ok && i < count; i++) mica_result_free(&results[i]);
    return ok;
}

void mica_result_free(mica_result *r) {
    mica_free(r->text);
    mica_free(r->ids);
    *r = (mica_result){0};
}
