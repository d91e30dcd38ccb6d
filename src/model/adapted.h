// SPDX-License-Identifier: Apache-2.0
// What adapters add to the parts of a forward. Rows of one packed batch may have different adapters: they lie in runs ("spans") of one adapter each. The
// network's own products are computed for all rows at once, and so are the low-rank additions, each row's with the matrices of its own.
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
/** Whether an adapter of the batch has something for the product that begins with this module of the block (MICA_LORA_Q, …). */
bool mica_is_adapted(const mica_forward *f, int module);
/** x [N, in] -> [N, all outs] of the modules first … first+count-1, which l holds one after another; or with a gate, of l with gates and ups in alternate
 * blocks, act(gate x) * up x. */
mica_array *mica_adapted_linear(mica_forward *f, const mica_linear *l, int first, int count, const int64_t *outs, mica_gate gate, mica_array *x);
/** h [N, D]: embeddings of ids [N]. */
mica_array *mica_adapted_embed(mica_forward *f, mica_array *ids, mica_array *h);
/** h [R, D] -> logits f32 [R, V] of the head, before what follows it. */
mica_array *mica_adapted_logits(mica_forward *f, mica_array *h);
#endif
