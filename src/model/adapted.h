// SPDX-License-Identifier: Apache-2.0
// What adapters add to the parts of a forward. Rows of one packed batch may have different adapters: they lie in runs ("spans") of one adapter each. The
// network's own products are computed for all rows at once; the low-rank ones span by span.
#ifndef MICA_MODEL_ADAPTED_H
#define MICA_MODEL_ADAPTED_H

#include "model/lora_set.h"

/** Rows [start, end) of one adapter; NULL: none. */
struct mica_span {
    int64_t start, end;
    const mica_lora_set *set;
};

/** Finds the spans of a batch; where no row has an adapter there are none. False when out of memory. */
bool mica_find_spans(mica_forward *f, const mica_packed *batch);
/** Whether a row has something for one of the block's modules first … first+count-1 (MICA_LORA_Q, …). */
bool mica_is_adapted(const mica_forward *f, int first, int count);
/** x [N, in] -> y[i] [N, outs[i]] of the modules first … first+count-1, which l holds one after another. */
void mica_adapted_linear(mica_forward *f, const mica_linear *l, int first, int count, const int64_t *outs, mica_array *x, mica_array **y);
/** x [N, D] -> act(gate x) * up x [N, F] of l, which holds both in alternate blocks (mica_gate). */
mica_array *mica_adapted_gated(mica_forward *f, const mica_linear *l, mica_array *x);
/** h [N, D]: embeddings of ids [N]. */
mica_array *mica_adapted_embed(mica_forward *f, mica_array *ids, mica_array *h);
/** h [R, D] -> logits f32 [R, V] of the head, before what follows it. */
mica_array *mica_adapted_logits(mica_forward *f, mica_array *h);
#endif
