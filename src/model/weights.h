// SPDX-License-Identifier: Apache-2.0
// Weights as arrays: linear layers (dense, quantised triple, or packed for the device), embeddings, norms. Loaded once, kept, read-only.
#ifndef MICA_MODEL_WEIGHTS_H
#define MICA_MODEL_WEIGHTS_H

#include "engine/node.h"
#include "io/checkpoint.h"
#include "model/lora.h"

typedef enum mica_linear_kind { MICA_LINEAR_DENSE = 0, MICA_LINEAR_TRIPLE, MICA_LINEAR_PACKED } mica_linear_kind;

typedef struct mica_linear {
    mica_linear_kind kind;
    int64_t out, in;
    mica_array *w;               // dense [out, in]; triple: codes u32 [out, in*bits/32]; packed: bytes u8 [n]
    mica_array *scales, *biases; // triple
    mica_array *bias;            // [out] or NULL
    mica_quant_spec spec;
    mica_params packed;
    mica_lora lora;
} mica_linear;

/** Where weights come from: a checkpoint, or numbers drawn at random (for measuring). */
typedef struct mica_source {
    void *ctx;
    bool (*has)(void *ctx, const char *module);
    /** As mica_checkpoint_view: what blocks read must live as long as the source. */
    bool (*view)(void *ctx, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err);
    void (*rest)(void *ctx); // what was read so far has been copied: drop it from memory; called from any thread
} mica_source;
mica_source mica_checkpoint_source(mica_model_files *c);

/** A part of a weight that is still to be packed. */
typedef struct mica_unpacked {
    mica_linear *linear;
    mica_weight weight;
    size_t offset, first; // where the linear's weight starts in the arena; the part's first output
    bool gated;           // mica_pack_part's
    char name[128];
} mica_unpacked;

// Quantised weights that the device packs are only noted while a network is loaded; mica_load_finish packs all of them at once, into one
// arena, with all threads.
typedef struct mica_loader {
    mica_source source;
    const mica_adapter *adapter; // or NULL: parts of it that modules take as they are loaded
    bool separate;       // nothing is joined
    mica_scope *scope;
    mica_dtype dtype;    // of activations: dense weights are brought to it
    mica_error *err;
    char layer[48];      // prefix of module names: "model.layers.3."
    int64_t bytes, mapped; // loaded so far; of these, used in place
    mica_unpacked *unpacked;
    size_t count, capacity, arena; // of unpacked; bytes that they will take
    _Atomic size_t packed;         // bytes, so far
} mica_loader;

typedef struct mica_module {
    const char *name;
    int64_t out;
} mica_module;

/** Each false: *loader->err names the tensor. Fields loaded before a failure are still to be freed; *l must stay where it is until
 * mica_load_finish. */
bool mica_load_linear(mica_loader *loader, const char *module, int64_t out, int64_t in, mica_linear *l);
/** Several modules of one input as one linear layer whose outputs follow one another or, gated, two modules, gates and ups, in alternate
 * blocks (mica_gate). Only packed weights of one kind can be joined, and none where the loader has `separate`: if
 * these are others, *joined is false, nothing is loaded, and they are to be loaded one by one. */
bool mica_load_joined(mica_loader *loader, const mica_module *modules, size_t count, int64_t in, bool gated, mica_linear *l, bool *joined);
/** Packs what is noted. */
bool mica_load_finish(mica_loader *loader);
void mica_loader_free(mica_loader *loader);
/** w + add, f32 [dim]. */
bool mica_load_norm(mica_loader *loader, const char *module, int64_t dim, float add, mica_array **w);
void mica_linear_free(mica_linear *l);

/** The layer's own weight, f32 [out, in]. */
mica_array *mica_linear_weight(mica_scope *s, const mica_linear *l);
/** x [..., in] -> [..., out]. */
mica_array *mica_linear_apply(mica_scope *s, const mica_linear *l, mica_array *x);
/** The same without bias and adapter; and with sums in f32, not rounded to x's type. */
mica_array *mica_linear_product(mica_scope *s, const mica_linear *l, mica_array *x);
mica_array *mica_linear_product_wide(mica_scope *s, const mica_linear *l, mica_array *x);
/** act(gate) * up [..., out / 2] of layers joined as gated. */
mica_array *mica_linear_apply_gated(mica_scope *s, const mica_linear *l, mica_array *x, mica_gate gate);
/** x [M, D] -> [M, V] in f32, the sums not rounded to x's type. */
mica_array *mica_linear_logits(mica_scope *s, const mica_linear *l, mica_array *x);
/** Rows of the table: ids [N] -> [N, in] of dtype. */
mica_array *mica_embed(mica_scope *s, const mica_linear *table, mica_array *ids, mica_dtype dtype);
#endif
