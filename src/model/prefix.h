// SPDX-License-Identifier: Apache-2.0
// The pool of kept prefixes: pages of prompts computed before, found again by their tokens, so that calls with a common beginning (and one adapter)
// share them.
// It is a tree: a node is one page of tokens after all those of its parent. Pages in it are full and never written again.
//
// Nothing depends on what is kept: a call gets, bit for bit, the keys and values that it would compute itself. For that, prompts are computed
// in runs that end at multiples of MICA_CHUNK, where a token's result does not depend on where its run began (mica_packed.rows_many). The
// exception is a last chunk of fewer than MICA_MANY tokens, which is computed as it suits so few: it is neither kept nor begun in the middle.
// Answers are not kept either: tokens computed one by one differ in rounding. Sessions (mica/session.h) keep those.
#ifndef MICA_MODEL_PREFIX_H
#define MICA_MODEL_PREFIX_H

#include "model/cache.h"

/** The sequence (of length 0) is to become ids[n]: it starts with the longest prefix that is kept, q->length tells how long. ids must live until
 * the sequence has come to length n; what is computed till then is kept in turn. */
bool mica_prefix_begin(mica_sequence *q, const int32_t *ids, size_t n, mica_error *err);
/** How many tokens of ids[n] such a sequence would start with. */
size_t mica_prefix_find(const mica_sequence *q, const int32_t *ids, size_t n);
/** Nothing computed with the adapter of this number is needed any more. */
void mica_prefix_forget(mica_cache *c, uint64_t adapter);
/** Tokens that the next run over a prompt of n is to have. Sets q->many: the run is to be computed with mica_packed.rows_many. (Whoever computes
 * it otherwise sets q->many to whether the sequence has more than 8 tokens in a forward of MICA_MANY or more: the same.) */
size_t mica_prefix_run(mica_sequence *q, size_t n);

// ---- for the cache, with its lock held ------------------------------------------------------------------------
/** Positions up to q->length + tokens have been computed, and no page of them is released yet. */
void mica_prefix_keep(mica_sequence *q, int64_t tokens);
/** Gives up the page that was used least recently; false if there is none. */
bool mica_prefix_evict(mica_cache *c);
void mica_prefix_clear(mica_cache *c);
/** Whether positions computed for a text of `from` tokens have the rotary frequencies of one of `to`. */
bool mica_prefix_same_rope(const mica_cache *c, int64_t from, int64_t to);
#endif
