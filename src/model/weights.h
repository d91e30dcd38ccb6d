// SPDX-License-Identifier: Apache-2.0
// Weights as arrays: linear layers (dense, quantised triple, or packed for the device), embeddings, norms. Loaded once, kept, read-only.
#ifndef MICA_MODEL_WEIGHTS_H
#define MICA_MODEL_WEIGHTS_H

#include "engine/node.h"
#include "io/checkpoint.h"

typedef enum mica_linear_kind { MICA_LINEAR_DENSE = 0, MICA_LINEAR_TRIPLE, MICA_LINEAR_PACKED } mica_linear_kind;

typedef struct mica_linear {
    mica_linear_kind kind;
    int64_t out, in;
    mica_array *w;               // dense [out, in]; triple: codes u32 [out, in*bits/32]; packed: bytes u8 [n]
    mica_array *scales, *biases; // triple
    mica_array *bias;            // [out] or NULL
    mica_quant_spec spec;
    mica_params packed;
} mica_linear;

/** Where weights come from: a checkpoint, or numbers drawn at random (for measuring). */
typedef struct mica_source {
    void *ctx;
    bool (*has)(void *ctx, const char *module);
    bool (*find)(void *ctx, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err);
    void (*forget)(void *ctx, const mica_weight *w); // w was copied
} mica_source;
mica_source mica_checkpoint_source(mica_checkpoint *c);

typedef struct mica_loader {
    mica_source source;
    mica_scope *scope;
    mica_dtype dtype;    // of activations: dense weights are brought to it
    mica_error *err;
    char layer[48];      // prefix of module names: "model.layers.3."
    int64_t bytes, mapped; // loaded so far; of these, used in place
} mica_loader;

/** Each false: *loader->err names the tensor. Fields loaded before a failure are still to be freed. */
bool mica_load_linear(mica_loader *loader, const char *module, int64_t out, int64_t in, mica_linear *l);
/** w + add, f32 [dim]. */
bool mica_load_norm(mica_loader *loader, const char *module, int64_t dim, float add, mica_array **w);
void mica_linear_free(mica_linear *l);

/** x [..., in] -> [..., out]. */
mica_array *mica_linear_apply(mica_scope *s, const mica_linear *l, mica_array *x);
/** x [M, D] -> [M, V] in f32, the sums not rounded to x's type. */
mica_array *mica_linear_logits(mica_scope *s, const mica_linear *l, mica_array *x);
/** Rows of the table: ids [N] -> [N, in] of dtype. */
mica_array *mica_embed(mica_scope *s, const mica_linear *table, mica_array *ids, mica_dtype dtype);
#endif
