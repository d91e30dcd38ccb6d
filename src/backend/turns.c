// SPDX-License-Identifier: Apache-2.0
// Rows that wait are copies of what was asked; the one whose turn it is, is a stream of the backend.
#include "backend/turns.h"
#include "backend/request.h"
#include <pthread.h>
#include <stdint.h>

typedef struct turn {
    mica_arena arena; // of the request, until the row starts
    mica_request request;
    mica_metrics metrics;
    mica_error error;
    bool cancelled, failed;
} turn;

struct mica_turns {
    const mica_backend *backend;
    void *model;
    pthread_mutex_t lock; // of rows and stream, against those who cancel
    turn **rows;
    size_t count, capacity, current;
    void *stream;         // of the current row
    bool last_delivered;  // the stream has ended with a token: its texts are with the caller
};

mica_turns *mica_turns_new(const mica_backend *backend, void *model, mica_error *err) {
    mica_turns *b = mica_calloc(1, sizeof *b);
    if (!b) return mica_fail_memory(err, sizeof *b, "a batch"), NULL;
    b->backend = backend, b->model = model;
    pthread_mutex_init(&b->lock, NULL);
    return b;
}

static void free_turn(turn *t) {
    if (t) mica_arena_free(&t->arena);
    mica_free(t);
}

void mica_turns_free(mica_turns *b) {
    if (!b) return;
    if (b->stream) b->backend->end(b->stream);
    for (size_t i = 0; i < b->count; i++) free_turn(b->rows[i]);
    mica_free(b->rows);
    pthread_mutex_destroy(&b->lock);
    mica_free(b);
}

int64_t mica_turns_add(mica_turns *b, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    turn *t = mica_calloc(1, sizeof *t);
    if (!t) return mica_fail_memory(err, sizeof *t, "a row"), -1;
    bool ok = mica_request_copy(&t->arena, prompt, options, &t->request, err);
    pthread_mutex_lock(&b->lock);
    if (ok && !(ok = mica_grow(&b->rows, &b->capacity, b->count + 1, sizeof *b->rows))) mica_fail_memory(err, sizeof *b->rows, "a row");
    int64_t row = ok ? (int64_t)b->count : -1;
    if (ok) b->rows[b->count++] = t;
    pthread_mutex_unlock(&b->lock);
    if (!ok) free_turn(t);
    return row;
}

void mica_turns_cancel(mica_turns *b, int64_t row) {
    pthread_mutex_lock(&b->lock);
    for (size_t i = row < 0 ? 0 : (size_t)row; i < b->count && (row < 0 || i == (size_t)row); i++) b->rows[i]->cancelled = true;
    if (b->stream && b->rows[b->current]->cancelled) b->backend->cancel(b->stream);
    pthread_mutex_unlock(&b->lock);
}

static bool is_cancelled(mica_turns *b, const turn *t) {
    pthread_mutex_lock(&b->lock);
    bool cancelled = t->cancelled;
    pthread_mutex_unlock(&b->lock);
    return cancelled;
}

// The stream of the current row; a row that was cancelled before, or that cannot start, has none.
static bool start(mica_turns *b, turn *t) {
    void *stream = NULL;
    if (!is_cancelled(b, t)) {
        stream = b->backend->start(b->model, &t->request.prompt, &t->request.options, &t->error);
        t->failed = !stream;
    }
    mica_arena_free(&t->arena);
    pthread_mutex_lock(&b->lock);
    b->stream = stream;
    if (stream && t->cancelled) b->backend->cancel(stream);
    pthread_mutex_unlock(&b->lock);
    return stream != NULL;
}

static void end_row(mica_turns *b) {
    pthread_mutex_lock(&b->lock);
    void *stream = b->stream;
    b->stream = NULL;
    b->current++;
    b->last_delivered = false;
    pthread_mutex_unlock(&b->lock);
    if (stream) b->backend->end(stream);
}

static mica_finish take_result(mica_turns *b, turn *t) {
    mica_finish finish = b->backend->finish(b->stream);
    if (!finish) return finish;
    t->metrics = b->backend->metrics(b->stream);
    t->failed = b->backend->error(b->stream, &t->error);
    return finish;
}

bool mica_turns_next(mica_turns *b, mica_batch_event *e) {
    *e = (mica_batch_event){.row = -1, .token = {.id = -1, .text = ""}};
    if (b->last_delivered) end_row(b);
    if (b->current == b->count) return false;
    turn *t = b->rows[b->current];
    e->row = (int64_t)b->current;
    if (!b->stream && !start(b, t)) {
        e->finish = t->failed ? MICA_FINISH_ERROR : MICA_FINISH_CANCELLED;
        end_row(b);
        return true;
    }
    bool more = b->backend->next(b->stream, &e->token);
    e->finish = take_result(b, t);
    if (more) { // what the token points to lives as long as its stream
        b->last_delivered = e->finish != MICA_FINISH_NONE;
        return true;
    }
    e->token = (mica_token){.id = -1, .text = ""};
    if (!e->finish) e->finish = MICA_FINISH_STOP;
    end_row(b);
    return true;
}

static const turn *find(const mica_turns *b, int64_t row) { return row >= 0 && (size_t)row < b->count ? b->rows[row] : NULL; }

bool mica_turns_error(const mica_turns *b, int64_t row, mica_error *err) {
    const turn *t = find(b, row);
    if (!t || !t->failed) return false;
    if (err) *err = t->error;
    return true;
}

mica_metrics mica_turns_metrics(const mica_turns *b, int64_t row) {
    const turn *t = find(b, row);
    if (!t) return (mica_metrics){0};
    return b->stream && (size_t)row == b->current ? b->backend->metrics(b->stream) : t->metrics;
}
