// SPDX-License-Identifier: Apache-2.0
// Rows that the Python process computes together: each is a stream of its own, marked as one of many, and whichever has something to say is next.
// Rows beyond the number that is computed together wait here, as copies of what was asked.
#include "backend/mlx_lm/batch.h"
#include "backend/mlx_lm/stream.h"
#include "backend/request.h"
#include <pthread.h>

typedef struct row {
    mica_arena arena; // of the request, until the row starts
    mica_request request;
    mica_mlx_stream *stream; // while it is computed
    mica_metrics metrics;
    mica_error error;
    bool cancelled;
} row;

struct mica_mlx_batch {
    mica_mlx *m;
    int64_t number; // by which the process knows it
    pthread_mutex_t lock; // of rows and their streams, against those who cancel
    row **rows;
    size_t count, capacity, started; // rows[0…started) have been begun
    size_t *active, active_count, most, turn; // numbers of those that are computed
    mica_mlx_request **requests;     // of these
    mica_mlx_stream *last;           // ended with its last token, whose texts are with the caller
};

mica_mlx_batch *mica_mlx_batch_new(mica_mlx *m, const mica_batch_options *options, mica_error *err) {
    if (options && options->invariant) return mica_fail(err, MICA_ERR_UNSUPPORTED, "option invariant: mlx_lm pads rows to one length"), NULL;
    mica_mlx_batch *b = mica_calloc(1, sizeof *b);
    if (!b) return mica_fail_memory(err, sizeof *b, "a batch"), NULL;
    b->m = m, b->number = mica_mlx_number(m);
    b->most = options && options->rows > 0 ? (size_t)options->rows : 32;
    pthread_mutex_init(&b->lock, NULL);
    b->active = mica_calloc(b->most, sizeof *b->active);
    b->requests = mica_calloc(b->most, sizeof *b->requests);
    if (b->active && b->requests) return b;
    mica_fail_memory(err, b->most * sizeof *b->active, "a batch");
    mica_mlx_batch_free(b);
    return NULL;
}

static void free_row(row *r) {
    mica_mlx_stream_free(r->stream);
    mica_arena_free(&r->arena);
    mica_free(r);
}

void mica_mlx_batch_free(mica_mlx_batch *b) {
    if (!b) return;
    for (size_t i = 0; i < b->count; i++) free_row(b->rows[i]);
    mica_mlx_stream_free(b->last);
    mica_free(b->rows);
    mica_free(b->active);
    mica_free(b->requests);
    pthread_mutex_destroy(&b->lock);
    mica_free(b);
}

int64_t mica_mlx_batch_add(mica_mlx_batch *b, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    row *r = mica_calloc(1, sizeof *r);
    if (!r) return mica_fail_memory(err, sizeof *r, "a row"), -1;
    bool ok = mica_request_copy(&r->arena, prompt, options, &r->request, err);
    pthread_mutex_lock(&b->lock);
    if (ok && !(ok = mica_grow(&b->rows, &b->capacity, b->count + 1, sizeof *b->rows))) mica_fail_memory(err, sizeof *b->rows, "a row");
    int64_t number = ok ? (int64_t)b->count : -1;
    if (ok) b->rows[b->count++] = r;
    pthread_mutex_unlock(&b->lock);
    if (!ok) free_row(r);
    return number;
}

void mica_mlx_batch_cancel(mica_mlx_batch *b, int64_t number) {
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < b->count; i++)
        if (number < 0 || (size_t)number == i) {
            b->rows[i]->cancelled = true;
            if (b->rows[i]->stream) mica_mlx_stream_cancel(b->rows[i]->stream);
        }
    pthread_mutex_unlock(&b->lock);
}

// The next row that waits; false, and *e its end, if it ends at once.
static bool start_row(mica_mlx_batch *b, mica_batch_event *e) {
    size_t number = b->started++;
    pthread_mutex_lock(&b->lock);
    row *r = b->rows[number];
    bool cancelled = r->cancelled;
    pthread_mutex_unlock(&b->lock);
    mica_mlx_stream *s = cancelled ? NULL : mica_mlx_stream_new(b->m, &r->request.prompt, &r->request.options, b->number, &r->error);
    mica_arena_free(&r->arena);
    if (!s) return *e = (mica_batch_event){(int64_t)number, {.id = -1, .text = ""}, cancelled ? MICA_FINISH_CANCELLED : MICA_FINISH_ERROR}, false;
    pthread_mutex_lock(&b->lock);
    r->stream = s;
    if (r->cancelled) mica_mlx_stream_cancel(s);
    pthread_mutex_unlock(&b->lock);
    mica_mlx_stream_run(s);
    b->requests[b->active_count] = mica_mlx_stream_request(s);
    b->active[b->active_count++] = number;
    return true;
}

static void end_row(mica_mlx_batch *b, size_t place) {
    row *r = b->rows[b->active[place]];
    r->metrics = mica_mlx_stream_metrics(r->stream);
    mica_mlx_stream_error(r->stream, &r->error);
    pthread_mutex_lock(&b->lock);
    b->last = r->stream;
    r->stream = NULL;
    pthread_mutex_unlock(&b->lock);
    b->active[place] = b->active[--b->active_count];
    b->requests[place] = b->requests[b->active_count];
}

bool mica_mlx_batch_next(mica_mlx_batch *b, mica_batch_event *e) {
    mica_mlx_stream_free(b->last);
    b->last = NULL;
    while (b->active_count < b->most && b->started < b->count)
        if (!start_row(b, e)) return true;
    if (!b->active_count) return false;
    size_t place = b->turn = mica_mlx_wait_any(b->m, b->requests, b->active_count, b->turn + 1);
    mica_mlx_stream *s = b->rows[b->active[place]]->stream;
    *e = (mica_batch_event){.row = (int64_t)b->active[place]};
    mica_mlx_stream_next(s, &e->token);
    e->finish = mica_mlx_stream_finish(s);
    if (e->finish) end_row(b, place);
    return true;
}

static const row *find(const mica_mlx_batch *b, int64_t number) { return number >= 0 && (size_t)number < b->count ? b->rows[number] : NULL; }

bool mica_mlx_batch_error(const mica_mlx_batch *b, int64_t number, mica_error *err) {
    const row *r = find(b, number);
    if (r && r->error.code && err) *err = r->error;
    return r && r->error.code;
}

mica_metrics mica_mlx_batch_metrics(const mica_mlx_batch *b, int64_t number) {
    const row *r = find(b, number);
    return !r ? (mica_metrics){0} : r->stream ? mica_mlx_stream_metrics(r->stream) : r->metrics;
}
