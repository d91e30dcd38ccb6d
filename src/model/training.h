// SPDX-License-Identifier: Apache-2.0
// The graph of a network for training: no cache, packed segments that do not see one another, gradients for whatever is to be trained.
// Shapes as in net.h.
#ifndef MICA_MODEL_TRAINING_H
#define MICA_MODEL_TRAINING_H

#include "model/net.h"

/** A weight that is trained; *place is replaced by the trainer between steps. */
typedef struct mica_parameter {
    char name[128];     // "model.layers.3.self_attn.q_proj.lora_a", as files name it
    mica_array **place; // in the net
    int layer;          // -1: not in a block
} mica_parameter;

typedef struct mica_parameters {
    mica_parameter *items;
    size_t count, capacity;
} mica_parameters;
/** Appends the matrices of all adapters in the net. */
bool mica_parameters_add_adapters(mica_net *net, mica_parameters *p, mica_error *err);
/** Appends all dense weights, biases and norms. A quantised weight fails, named. */
bool mica_parameters_add_weights(mica_net *net, mica_parameters *p, mica_error *err);
void mica_parameters_free(mica_parameters *p);
/** The i-th linear layer of a block and its name in it ("self_attn.q_proj"); NULL past the last. */
mica_linear *mica_layer_linear(mica_layer *l, size_t i, const char **name);

/** Fresh adapters. */
typedef struct mica_lora_spec {
    int32_t rank;
    float scale;
    const char *const *targets; // names in a block, whole or their last part, with * and ?; "embed_tokens", "lm_head"; none: every linear layer of the blocks
    size_t target_count;
    int32_t layers;  // the last so many blocks; -1: all
    uint64_t seed;   // a uniform in ±1/√in; b zero
    bool dora;       // with magnitudes, which are the lengths of the weight's rows at first
    bool bf16;       // all of it in bf16; default: f32
} mica_lora_spec;
/** Puts them into a net that was loaded with `separate`; adapters that are there already stay. A target that nothing matches fails, named. */
bool mica_lora_attach(mica_net *net, const mica_lora_spec *spec, mica_error *err);

/** Packed text: segment after segment, each of which sees itself only. */
typedef struct mica_text_batch {
    const int32_t *ids;     // [n]
    const int32_t *targets; // [n] the token wanted after each
    const float *weights;   // [n] how much each target counts; 0: not scored
    const int32_t *lengths; // [segments], together n
    size_t n, segments;
    int32_t recompute;      // of so many blocks inner values are computed again for the gradient instead of being kept: of the first ones
                            // that are in its way, whose turn comes when most other memory is free again. mica_trained_blocks or more: all
    float dropout;          // of what enters adapters; 0: none
    uint64_t draw;          // what is dropped, with a new one for every batch
} mica_text_batch;

typedef struct mica_losses {
    mica_array *loss;  // f32 scalar: the weighted sum of -log p of the targets
    mica_array *proxy; // scalar of another value and the same gradient by the parameters: what to differentiate
} mica_losses;
/** How many blocks a gradient by these parameters goes through: the last ones. */
int32_t mica_trained_blocks(const mica_net *net, const mica_parameters *p);
/** Records the loss of a batch. Logits are never there for more than some rows at once, and their gradient is computed with them. */
bool mica_net_loss(mica_net *net, mica_scope *s, const mica_text_batch *batch, const mica_parameters *p, mica_losses *out);
#endif
