// SPDX-License-Identifier: Apache-2.0
// The list of rows that wait (waiting_rows.h). Rows never move, so that one can be run while another thread goes through the list to cancel.
#include "backend/waiting_rows.h"
#include "backend/request.h"

void mica_waiting_init(mica_waiting_rows *w) {
    *w = (mica_waiting_rows){0};
    pthread_mutex_init(&w->lock, NULL);
}

static void free_row(mica_waiting_row *r, void (*end)(void *stream)) {
    if (r->stream) end(r->stream);
    mica_arena_free(&r->arena);
    mica_free(r);
}

void mica_waiting_free(mica_waiting_rows *w, void (*end)(void *stream)) {
    for (size_t i = 0; i < w->count; i++) free_row(w->items[i], end);
    mica_free(w->items);
    pthread_mutex_destroy(&w->lock);
}

int64_t mica_waiting_add(mica_waiting_rows *w, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    mica_waiting_row *r = mica_calloc(1, sizeof *r);
    if (!r) return mica_fail_memory(err, sizeof *r, "a row"), -1;
    bool ok = mica_request_copy(&r->arena, prompt, options, &r->request, err);
    pthread_mutex_lock(&w->lock);
    if (ok && !(ok = mica_grow(&w->items, &w->capacity, w->count + 1, sizeof *w->items))) mica_fail_memory(err, sizeof *w->items, "a row");
    int64_t number = ok ? (int64_t)w->count : -1;
    if (ok) w->items[w->count++] = r;
    pthread_mutex_unlock(&w->lock);
    if (!ok) free_row(r, NULL);
    return number;
}

void mica_waiting_cancel(mica_waiting_rows *w, int64_t number, void (*cancel)(void *stream)) {
    pthread_mutex_lock(&w->lock);
    for (size_t i = number < 0 ? 0 : (size_t)number; i < w->count && (number < 0 || i == (size_t)number); i++) {
        w->items[i]->cancelled = true;
        if (w->items[i]->stream) cancel(w->items[i]->stream);
    }
    pthread_mutex_unlock(&w->lock);
}

bool mica_waiting_is_cancelled(mica_waiting_rows *w, const mica_waiting_row *r) {
    pthread_mutex_lock(&w->lock);
    bool cancelled = r->cancelled;
    pthread_mutex_unlock(&w->lock);
    return cancelled;
}

void mica_waiting_set_stream(mica_waiting_rows *w, mica_waiting_row *r, void *stream, void (*cancel)(void *stream)) {
    mica_arena_free(&r->arena);
    pthread_mutex_lock(&w->lock);
    r->stream = stream;
    if (stream && r->cancelled) cancel(stream);
    pthread_mutex_unlock(&w->lock);
}

/** Row `number`; NULL if there is none. */
static mica_waiting_row *find(const mica_waiting_rows *w, int64_t number) {
    return number >= 0 && (size_t)number < w->count ? w->items[number] : NULL;
}

bool mica_waiting_error(const mica_waiting_rows *w, int64_t number, mica_error *err) {
    const mica_waiting_row *r = find(w, number);
    if (!r || !r->failed) return false;
    if (err) *err = r->error;
    return true;
}

mica_metrics mica_waiting_metrics(const mica_waiting_rows *w, int64_t number, mica_metrics (*metrics)(const void *stream)) {
    const mica_waiting_row *r = find(w, number);
    return !r ? (mica_metrics){0} : r->stream ? metrics(r->stream) : r->metrics;
}
