// SPDX-License-Identifier: Apache-2.0
// Rows that the Python process computes together: each is a stream of its own, marked as one of many, and whichever has something to say is next.
// Rows beyond the number that is computed together wait here, as copies of what was asked.
#include "backend/mlx_lm/batch.h"
#include "backend/mlx_lm/stream.h"
#include "backend/waiting_rows.h"

struct mica_mlx_batch {
    mica_mlx *m;
    int64_t number; // by which the process knows it
    mica_waiting_rows rows;
    size_t started; // rows before this have been begun
    size_t *active, active_count, most, turn; // numbers of those that are computed
    mica_mlx_request **requests;     // of these
    mica_mlx_stream *last;           // ended with its last token, whose texts are with the caller
};

static void cancel_stream(void *stream) { mica_mlx_stream_cancel(stream); }
static void free_stream(void *stream) { mica_mlx_stream_free(stream); }
static mica_metrics metrics_of(const void *stream) { return mica_mlx_stream_metrics(stream); }

mica_mlx_batch *mica_mlx_batch_new(mica_mlx *m, const mica_batch_options *options, mica_error *err) {
    if (options && options->invariant) return mica_fail(err, MICA_ERR_UNSUPPORTED, "option invariant: mlx_lm pads rows to one length"), NULL;
    mica_mlx_batch *b = mica_calloc(1, sizeof *b);
    if (!b) return mica_fail_memory(err, sizeof *b, "a batch"), NULL;
    b->m = m, b->number = mica_mlx_number(m);
    b->most = options && options->rows > 0 ? (size_t)options->rows : 32;
    mica_waiting_init(&b->rows);
    b->active = mica_calloc(b->most, sizeof *b->active);
    b->requests = mica_calloc(b->most, sizeof *b->requests);
    if (b->active && b->requests) return b;
    mica_fail_memory(err, b->most * sizeof *b->active, "a batch");
    mica_mlx_batch_free(b);
    return NULL;
}

void mica_mlx_batch_free(mica_mlx_batch *b) {
    if (!b) return;
    mica_waiting_free(&b->rows, free_stream);
    mica_mlx_stream_free(b->last);
    mica_free(b->active);
    mica_free(b->requests);
    mica_free(b);
}

int64_t mica_mlx_batch_add(mica_mlx_batch *b, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    return mica_waiting_add(&b->rows, prompt, options, err);
}

void mica_mlx_batch_cancel(mica_mlx_batch *b, int64_t number) { mica_waiting_cancel(&b->rows, number, cancel_stream); }

// The next row that waits; false, and *e its end, if it ends at once.
static bool start_row(mica_mlx_batch *b, mica_batch_event *e) {
    size_t number = b->started++;
    mica_waiting_row *r = b->rows.items[number];
    bool cancelled = mica_waiting_is_cancelled(&b->rows, r);
    mica_mlx_stream *s = cancelled ? NULL : mica_mlx_stream_new(b->m, &r->request.prompt, &r->request.options, b->number, &r->error);
    r->failed = !s && !cancelled;
    mica_waiting_set_stream(&b->rows, r, s, cancel_stream);
    if (!s) return *e = (mica_batch_event){(int64_t)number, {.id = -1, .text = ""}, cancelled ? MICA_FINISH_CANCELLED : MICA_FINISH_ERROR}, false;
    mica_mlx_stream_run(s);
    b->requests[b->active_count] = mica_mlx_stream_request(s);
    b->active[b->active_count++] = number;
    return true;
}

static void end_row(mica_mlx_batch *b, size_t place) {
    mica_waiting_row *r = b->rows.items[b->active[place]];
    b->last = r->stream;
    r->metrics = mica_mlx_stream_metrics(b->last);
    r->failed = mica_mlx_stream_error(b->last, &r->error);
    mica_waiting_set_stream(&b->rows, r, NULL, NULL);
    b->active[place] = b->active[--b->active_count];
    b->requests[place] = b->requests[b->active_count];
}

bool mica_mlx_batch_next(mica_mlx_batch *b, mica_batch_event *e) {
    mica_mlx_stream_free(b->last);
    b->last = NULL;
    while (b->active_count < b->most && b->started < b->rows.count)
        if (!start_row(b, e)) return true;
    if (!b->active_count) return false;
    size_t place = b->turn = mica_mlx_wait_any(b->m, b->requests, b->active_count, b->turn + 1);
    mica_mlx_stream *s = b->rows.items[b->active[place]]->stream;
    *e = (mica_batch_event){.row = (int64_t)b->active[place]};
    mica_mlx_stream_next(s, &e->token);
    e->finish = mica_mlx_stream_finish(s);
    if (e->finish) end_row(b, place);
    return true;
}

bool mica_mlx_batch_error(const mica_mlx_batch *b, int64_t number, mica_error *err) { return mica_waiting_error(&b->rows, number, err); }
mica_metrics mica_mlx_batch_metrics(const mica_mlx_batch *b, int64_t number) { return mica_waiting_metrics(&b->rows, number, metrics_of); }
