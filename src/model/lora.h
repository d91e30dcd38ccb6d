// SPDX-License-Identifier: Apache-2.0
// Low-rank adapters as part of linear layers and embeddings: y + scale · (x·a)·b, computed beside the layer's own (maybe quantised) weight.
#ifndef MICA_MODEL_LORA_H
#define MICA_MODEL_LORA_H

#include "engine/node.h"
#include "io/adapter.h"

typedef struct mica_lora {
    mica_array *a, *b;     // [in, r], [r, out]; of an embedding [V, r], [r, D]. NULL: no adapter
    mica_array *magnitude; // DoRA: [out], what the outputs are multiplied with; `raw`: before it is divided by the lengths of the adapted rows
    mica_array *bias;      // DoRA: the layer's own, added after that
    float scale;
    bool input_only, raw;
    float dropout;         // training: how many of the values that enter the adapter are dropped, each with this probability; the others grow by as much
    uint64_t draw;         // which ones: a seed, new for every batch; 0: none
} mica_lora;

struct mica_loader;
struct mica_linear;
struct mica_weight;
/** Loads what the loader's adapter, if any, has for a module. w: the module's weight as stored. */
bool mica_lora_load(struct mica_loader *loader, const char *module, struct mica_weight *w, struct mica_linear *l);
void mica_lora_free(mica_lora *lora);
/** y [..., out], the layer's own result for x [..., in], with its adapter's. y itself if there is none. */
mica_array *mica_lora_add(mica_scope *s, const struct mica_linear *l, mica_array *x, mica_array *y);
/** y [..., out], a layer's product with x, as the adapter changes it: y + scale·(x·a)·b, for DoRA times the magnitude (which is not raw). The layer's own
 * bias comes after that. */
mica_array *mica_lora_apply(mica_scope *s, const mica_lora *lora, mica_array *x, mica_array *y);
/** Whether every part of the adapter has found its module; the error names one that has not. */
bool mica_lora_all_used(const mica_adapter *adapter, mica_error *err);
/** DoRA: the lengths of the rows of weight + scale·(a·b)ᵀ, f32 [out]; of the weight itself without an adapter. */
mica_array *mica_lora_lengths(mica_scope *s, const struct mica_linear *l);
/** The same for rows y [N, D] of an embedding, and for the embedding used as the head: y [N, V] for x [N, D]. */
mica_array *mica_lora_add_rows(mica_scope *s, const mica_lora *lora, mica_array *ids, mica_array *y);
mica_array *mica_lora_add_head(mica_scope *s, const mica_lora *lora, mica_array *x, mica_array *y);
#endif
