// SPDX-License-Identifier: Apache-2.0
// Rows of batches that are streams of their own while their turn is (turns.c, mlx_lm/batch.c): copies of what was asked, and what came of it. Rows are added and
// run by one thread; others may cancel.
#ifndef MICA_BACKEND_WAITING_ROWS_H
#define MICA_BACKEND_WAITING_ROWS_H

#include "base/base.h"
#include "mica/batch.h"
#include <pthread.h>

typedef struct mica_waiting_row {
    mica_arena arena; // of the request, until the row starts
    mica_request request;
    void *stream;     // while it runs
    mica_metrics metrics;
    mica_error error;
    bool cancelled, failed;
} mica_waiting_row;

typedef struct mica_waiting_rows {
    pthread_mutex_t lock; // of the list and its rows' streams, against those who cancel
    mica_waiting_row **items;
    size_t count, capacity;
} mica_waiting_rows;

void mica_waiting_init(mica_waiting_rows *rows);
/** end: frees a stream that is still there. */
void mica_waiting_free(mica_waiting_rows *rows, void (*end)(void *stream));
/** A new row; its number, or -1. */
int64_t mica_waiting_add(mica_waiting_rows *rows, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err);
/** Row `number`, or all with -1, is cancelled; its stream, if it has one, by `cancel`. */
void mica_waiting_cancel(mica_waiting_rows *rows, int64_t number, void (*cancel)(void *stream));
bool mica_waiting_is_cancelled(mica_waiting_rows *rows, const mica_waiting_row *row);
/** The row's stream from here on, cancelled if the row was meanwhile; NULL: it has none (more). What is asked is not needed any more. */
void mica_waiting_set_stream(mica_waiting_rows *rows, mica_waiting_row *row, void *stream, void (*cancel)(void *stream));
bool mica_waiting_error(const mica_waiting_rows *rows, int64_t number, mica_error *err);
/** metrics: of a stream that runs. */
mica_metrics mica_waiting_metrics(const mica_waiting_rows *rows, int64_t number, mica_metrics (*metrics)(const void *stream));
#endif
