// SPDX-License-Identifier: Apache-2.0
// What the files of this room share: the model object, and running a network over sequences.
#ifndef MICA_INFER_INTERNAL_H
#define MICA_INFER_INTERNAL_H

#include "mica/model.h"
#include "mica/tokenizer.h"
#include "model/net.h"

struct mica_model {
    mica_device *device;
    mica_net *net;
    mica_tokenizer *tokenizer; // NULL for random weights
    mica_info info;
    mica_dtype kv_dtype;       // of cache pages
    int32_t context;           // most positions of a sequence
    double load_seconds;
};

/** Everything one sequence needs to be run: its own pages and scope. */
typedef struct mica_runner {
    mica_model *model;
    mica_cache cache;
    mica_sequence sequence;
    mica_scope *scope;
} mica_runner;

/** Room for `positions` is set aside at once. */
bool mica_runner_init(mica_runner *r, mica_model *model, int64_t positions, mica_error *err);
void mica_runner_free(mica_runner *r);
/** Computes ids[n] (n of them at the next positions). rows: as in mica_batch; *logits (host, f32 [n_rows, V], valid until the next call)
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
bool mica_check_ids(const mica_model *m, const int32_t *ids, size_t count, mica_error *err);
/** Tokens of a step whose logits are all wanted: these stay within a few tens of megabytes. */
size_t mica_logits_chunk(size_t vocab);
void mica_memory_metrics(const mica_runner *r, mica_metrics *k);

enum { MICA_CHUNK = 512 }; // tokens of one prefill step: enough to saturate the matrix kernels, small enough to cancel within
#endif
