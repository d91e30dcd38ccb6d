// SPDX-License-Identifier: Apache-2.0
// What the files of this room share: the model objects, and running a network over sequences.
#ifndef MICA_INFER_INTERNAL_H
#define MICA_INFER_INTERNAL_H

#include "mica/model.h"
#include "mica/tokenizer.h"
#include "model/lora_set.h"
#include "model/net.h"
#include <pthread.h>

typedef struct mica_loaded mica_loaded; // an adapter under a name (adapters.h)

/** A model that this library computes itself. */
typedef struct mica_lm {
    mica_device *device;
    mica_net *net;
    mica_tokenizer *tokenizer; // NULL for random weights
    struct mica_template *chat_template; // NULL: the model has none
    mica_info info;
    mica_dtype kv_dtype;       // of cache pages
    int32_t context, asked_context; // most positions of a sequence; those that the caller asked for, 0 = the model's own
    mica_cache cache;          // of all its sequences
    struct {
        pthread_mutex_t lock;  // of the list
        mica_loaded *first;
        const mica_lora_set *own; // of what asks for none by name: the one that the model was loaded with, or NULL
        uint64_t numbers;      // given so far
    } adapters;
    double load_seconds;
} mica_lm;

/** The public handle: a backend's model until it is closed and its last use has ended. Every public call holds a use while it runs. */
struct mica_model {
    const struct mica_backend *backend;
    void *impl;        // what the backend loaded; this and lm are read by those who hold a use
    mica_lm *lm;       // impl of a native backend, else NULL
    mica_info info;
    pthread_mutex_t lock; // of what follows
    struct mica_stream *streams; // open ones
    struct mica_batch *batches;
    int users;         // of impl: the handle until it is closed, calls under way, streams, batches and sessions
    bool closed, freed;
};

/** One use of what the handle holds more, so that closing it does not take that away; fails when it is closed. Undo with mica_model_release. */
bool mica_model_retain(mica_model *m, mica_error *err);
void mica_model_release(mica_model *m);
/** The same for the native model behind a handle; NULL, without a use and with an error about `what` ("scoring"), if it is closed or another
 * backend's. */
mica_lm *mica_native_retain(mica_model *model, const char *what, mica_error *err);

/** Everything one sequence needs to be run: its table of pages and a scope. */
typedef struct mica_runner {
    mica_lm *lm;
    mica_sequence sequence;
    mica_scope *scope;
} mica_runner;

/** No bookkeeping grows up to `positions`. It computes with the model's own adapter, unless mica_sequence_adapt says otherwise. */
bool mica_runner_init(mica_runner *r, mica_lm *lm, int64_t positions, mica_error *err);
void mica_runner_free(mica_runner *r);
/** The sequence is to become the prompt ids[n], borrowed until it is computed; r->sequence.length tells how many of them are there already. */
bool mica_runner_begin(mica_runner *r, const int32_t *ids, size_t n, mica_error *err);
/** Computes the next run of the prompt; *logits of its last token with the last run. */
bool mica_runner_prefill(mica_runner *r, const float **logits, mica_error *err);
/** Computes ids[n] (n of them at the next positions). rows: as in mica_packed; *logits (host, f32 [n_rows, V], valid until the next call)
 * or NULL when no row is wanted. */
bool mica_runner_forward(mica_runner *r, const int32_t *ids, size_t n, const int32_t *rows, size_t n_rows, const float **logits,
                         mica_error *err);
/** The same for ids[n] of which the first only is certain (n at most what mica_runner_reach says): logits [n, V] after each of them, bit for bit
 * those of n forwards of one. Only the first counts as computed; keep (0 … n-1) of the others by mica_runner_keep, the rest is undone. */
bool mica_runner_verify(mica_runner *r, const int32_t *ids, size_t n, const float **logits, mica_error *err);
void mica_runner_keep(mica_runner *r, size_t n);
/** How many ids one verification may have: rows alone, the context and the rotary frequencies may end sooner than `most`. */
size_t mica_runner_reach(const mica_runner *r, size_t most);
/** Ids must lie in the vocabulary and fit the context. */
bool mica_check_ids(mica_lm *m, const int32_t *ids, size_t count, mica_error *err);
/** Tokens of a step whose logits are all wanted: these stay within a few tens of megabytes. */
size_t mica_logits_chunk(size_t vocab);
void mica_memory_metrics(const mica_lm *lm, mica_metrics *k);

// ---- one answer (answer.c): what a native backend's stream is; functions as in mica/model.h ----------------
typedef struct mica_answer mica_answer;
mica_answer *mica_answer_new(mica_lm *lm, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err);
bool mica_answer_next(mica_answer *a, mica_token *token);
void mica_answer_cancel(mica_answer *a);
mica_finish mica_answer_finish(const mica_answer *a);
bool mica_answer_error(const mica_answer *a, mica_error *err);
mica_metrics mica_answer_metrics(const mica_answer *a);
const int32_t *mica_answer_prompt(const mica_answer *a, size_t *count);
void mica_answer_free(mica_answer *a);
/** Before the first token: the answer goes on from what a session keeps, and leaves there what it computes (past.h). It has been acquired for the
 * answer, which releases it in the end. */
typedef struct mica_past mica_past;
void mica_answer_attach(mica_answer *a, mica_past *past);
#endif
