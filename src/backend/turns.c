// SPDX-License-Identifier: Apache-2.0
// Rows that wait are copies of what was asked; the one whose turn it is, is a stream of the backend.
#include "backend/turns.h"
#include "backend/waiting_rows.h"

struct mica_turns {
    const mica_backend *backend;
    void *model;
    mica_waiting_rows rows;
    size_t current;      // its stream is the only one
    bool last_delivered; // the stream has ended with a token: its texts are with the caller
};

mica_turns *mica_turns_new(const mica_backend *backend, void *model, mica_error *err) {
    mica_turns *b = mica_calloc(1, sizeof *b);
    if (!b) return mica_fail_memory(err, sizeof *b, "a batch"), NULL;
    b->backend = backend, b->model = model;
    mica_waiting_init(&b->rows);
    return b;
}

void mica_turns_free(mica_turns *b) {
    if (!b) return;
    mica_waiting_free(&b->rows, b->backend->end);
    mica_free(b);
}

int64_t mica_turns_add(mica_turns *b, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    return mica_waiting_add(&b->rows, prompt, options, err);
}

void mica_turns_cancel(mica_turns *b, int64_t row) { mica_waiting_cancel(&b->rows, row, b->backend->cancel); }

// The stream of the current row; a row that was cancelled before, or that cannot start, has none.
static bool start(mica_turns *b, mica_waiting_row *r) {
    void *stream = NULL;
    if (!mica_waiting_is_cancelled(&b->rows, r)) {
        stream = b->backend->start(b->model, &r->request.prompt, &r->request.options, &r->error);
        r->failed = !stream;
    }
    mica_waiting_set_stream(&b->rows, r, stream, b->backend->cancel);
    return stream != NULL;
}

static void end_row(mica_turns *b, mica_waiting_row *r) {
    void *stream = r->stream;
    mica_waiting_set_stream(&b->rows, r, NULL, NULL);
    b->current++;
    b->last_delivered = false;
    if (stream) b->backend->end(stream);
}

static mica_finish take_result(mica_turns *b, mica_waiting_row *r) {
    mica_finish finish = b->backend->finish(r->stream);
    if (!finish) return finish;
    r->metrics = b->backend->metrics(r->stream);
    r->failed = b->backend->error(r->stream, &r->error);
    return finish;
}

bool mica_turns_next(mica_turns *b, mica_batch_event *e) {
    *e = (mica_batch_event){.row = -1, .token = {.id = -1, .text = ""}};
    if (b->last_delivered) end_row(b, b->rows.items[b->current]);
    if (b->current == b->rows.count) return false;
    mica_waiting_row *r = b->rows.items[b->current];
    e->row = (int64_t)b->current;
    if (!r->stream && !start(b, r)) {
        e->finish = r->failed ? MICA_FINISH_ERROR : MICA_FINISH_CANCELLED;
        end_row(b, r);
        return true;
    }
    bool more = b->backend->next(r->stream, &e->token);
    e->finish = take_result(b, r);
    if (more) { // what the token points to lives as long as its stream
        b->last_delivered = e->finish != MICA_FINISH_NONE;
        return true;
    }
    e->token = (mica_token){.id = -1, .text = ""};
    if (!e->finish) e->finish = MICA_FINISH_STOP;
    end_row(b, r);
    return true;
}

bool mica_turns_error(const mica_turns *b, int64_t row, mica_error *err) { return mica_waiting_error(&b->rows, row, err); }
mica_metrics mica_turns_metrics(const mica_turns *b, int64_t row) { return mica_waiting_metrics(&b->rows, row, b->backend->metrics); }
