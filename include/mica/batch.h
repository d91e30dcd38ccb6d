// SPDX-License-Identifier: Apache-2.0
// Many answers at once: rows of different lengths share each step, and enter and leave at any step. Each has its own prompt,
// options, stops, error and metrics.
#ifndef MICA_BATCH_H
#define MICA_BATCH_H

#include "mica/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_batch mica_batch;

typedef struct mica_batch_options {
    int32_t rows;     // most rows computed together; the others wait; default 32
    bool invariant;   // each row is, bit for bit, what it is alone; slower
} mica_batch_options;

typedef struct mica_batch_event {
    int64_t row;
    mica_token token;   // id -1 where the row has ended without one
    mica_finish finish; // MICA_FINISH_NONE while the row goes on
} mica_batch_event;     // pointers live until the next call on the batch

/** Each step computes a token of every row that answers and, in what is left of it, pieces of the prompts of others; a common beginning of
 * prompts is computed once. Where memory is short the younger rows wait for others to end. options.speculate has no effect in a batch: its rows
 * fill a step already, and from eight of them on a guessed token costs as much as one (bench/NOTES.md). A row's
 * metrics: prefill_seconds and decode_seconds are those of the steps that it took part in, the time to its first token counts from mica_batch_add.
 * Every row's end is remembered until mica_batch_free (some hundred bytes each): who answers without end begins a new batch now and then.
 * A backend without batches answers rows one after another, and tells only then what is wrong with one.
 * Rows are added and taken by one thread at a time; mica_batch_cancel comes from any. */
MICA_API mica_batch *mica_batch_new(mica_model *model, const mica_batch_options *options, mica_error *err);
/** A new row; gives its number (0, 1, …), or -1. What prompt and options point to is copied. */
MICA_API int64_t mica_batch_add(mica_batch *batch, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err);
/** The next token of any row, or the end of one; false when no row is left. */
MICA_API bool mica_batch_next(mica_batch *batch, mica_batch_event *event);
/** Ends one row within a step, or all with row -1. */
MICA_API void mica_batch_cancel(mica_batch *batch, int64_t row);
MICA_API bool mica_batch_error(const mica_batch *batch, int64_t row, mica_error *err);
MICA_API mica_metrics mica_batch_metrics(const mica_batch *batch, int64_t row);
MICA_API void mica_batch_free(mica_batch *batch);

typedef struct mica_request {
    mica_prompt prompt;
    mica_generate_options options;
} mica_request;

typedef struct mica_result {
    char *text; // NUL-terminated; as far as the answer came
    size_t length;
    int32_t *ids;
    size_t count;
    mica_finish finish;
    mica_error error; // where finish is MICA_FINISH_ERROR
    mica_metrics metrics;
} mica_result;

typedef struct mica_batch_each {
    bool (*done)(void *context, size_t index, const mica_result *result); // as each row ends; false cancels all that are not done
    void *context;
} mica_batch_each;

/** All requests together: results[count], in their order, each to be released with mica_result_free. False if nothing could be done at
 * all; what is wrong with one request is that row's error. */
MICA_API bool mica_batch_generate(mica_model *model, const mica_request *requests, size_t count, const mica_batch_options *options,
                                  const mica_batch_each *each, mica_result *results, mica_error *err);
MICA_API void mica_result_free(mica_result *result);

#ifdef __cplusplus
}
#endif
#endif
