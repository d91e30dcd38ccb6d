// SPDX-License-Identifier: Apache-2.0
// A network: config, weights, and the graph of one forward over packed tokens of several sequences. An architecture is one short file
// that says how a block is loaded and computed; everything shared lives in layers.c.
// Shapes: N packed tokens, D hidden, H heads, Hkv KV heads, Dh head dim, F feed-forward, V vocabulary.
#ifndef MICA_MODEL_NET_H
#define MICA_MODEL_NET_H

#include "model/cache.h"
#include "model/weights.h"

/** Weights of one block; an architecture uses what it has. */
typedef struct mica_layer {
    mica_linear q, k, v, o;     // [H*Dh, D], [Hkv*Dh, D] twice, [D, H*Dh]
    mica_linear gate, up, down; // [F, D] twice, [D, F]
    mica_linear qkv, gate_up;   // q, k and v joined, gate and up in alternate blocks: where w is set, used instead of those
    mica_array *input_norm, *post_attention_norm, *pre_mlp_norm, *post_mlp_norm; // f32 [D]
    mica_array *q_norm, *k_norm; // f32 [Dh]
} mica_layer;

typedef struct mica_net mica_net;
typedef struct mica_span mica_span; // rows with one adapter (adapted.h)

/** What a forward's nodes need; lives while the graph is recorded. */
typedef struct mica_forward {
    mica_net *net;
    mica_scope *scope;
    mica_cache *cache;
    mica_array *rope[MICA_GROUPS];  // cos | sin, f32 [1, N, Dh]
    mica_array *meta;               // i32 [B, 4]
    mica_array *table[MICA_GROUPS]; // i32 [B, pages]
    mica_array **q, **k;            // of mica_packed
    mica_array *rows;               // i32 [R], rows wanted: set in the last layer where they are fewer than N, else NULL
    const mica_span *spans;         // adapters of the tokens; none: nobody has one
    size_t span_count;
    const struct mica_lora_set **sets; // each adapter of the batch once
    size_t set_count;
    mica_array **choice, **wanted_choice; // i32 [N], [R]: the rows' adapters for each call of mica_low_rank
    int layer;
    bool training;                  // no cache: attention over the tokens at hand
    mica_array *lengths;            // training: i32 [S], tokens of each segment
    int64_t longest;                // of them
} mica_forward;

typedef struct mica_arch_ops {
    bool (*load_layer)(mica_net *net, mica_loader *ld, mica_layer *l);
    mica_array *(*block)(mica_forward *f, const mica_layer *l, mica_array *h); // h [N, D] -> [N or R, D]
    float norm_add;   // 1 where the stored norm weight w means 1 + w
    bool scale_embed; // embeddings are multiplied by sqrt(D), rounded to their dtype
} mica_arch_ops;
extern const mica_arch_ops mica_arch_llama, mica_arch_qwen2, mica_arch_qwen3, mica_arch_gemma3;

struct mica_net {
    mica_model_files *checkpoint; // its mappings back the weights; NULL for random ones
    mica_config *own_config;     // of a random net
    const mica_config *config;
    const mica_arch_ops *arch;
    mica_device *device;
    mica_dtype dtype;            // of activations
    mica_linear embed, head;     // [V, D]; head is unused when tied
    bool tied;
    mica_array *norm;            // f32 [D]
    mica_layer *layers;
    int *index_in_group;         // [num_layers]: position of the layer among those of its cache group
    int64_t weight_bytes, mapped_bytes; // all weights; those used straight from the mapped file
};

typedef struct mica_net_options {
    const mica_adapter *adapter; // to be trained further, with `separate`; it may be closed afterwards (to compute with adapters: lora_set.h)
    bool separate;               // no weights are joined: each module is there by itself, to be trained
    bool f32;                    // activations and dense weights in f32, whatever the model's own type
    bool bf16;                   // or in bf16
} mica_net_options;
/** The net takes over the checkpoint, also on failure. options: NULL: none. */
mica_net *mica_net_load(mica_model_files *checkpoint, const mica_net_options *options, mica_device *device, mica_error *err);
/** Random weights of a named shape ("gemma3-1b", …); bits 0: dense bf16. */
mica_net *mica_net_random(const char *shape, int bits, mica_device *device, mica_error *err);
/** Shared by the two above: loads everything from a source. */
bool mica_net_fill(mica_net *net, mica_source source, const mica_net_options *options, mica_error *err);
void mica_net_free(mica_net *net);
/** From here on the blocks' packed layers round their inputs to 8 bits; the head stays exact. Before anything is run. */
void mica_net_round_activations(mica_net *net);
/** Records one forward: the wanted rows' logits f32 [n_rows, V], or with n_rows 0 a hidden state, to be evaluated all the same. The tokens'
 * keys and values enter the cache at evaluation; call mica_sequence_advance then. NULL on failure. */
mica_array *mica_net_forward(mica_net *net, mica_cache *cache, mica_scope *s, const mica_packed *batch, mica_error *err);
/** Parts of a forward: ids [N] -> [N, D]; the normed state of the wanted rows [R, D] -> logits f32 [R, V]. */
mica_array *mica_net_embed(const mica_net *net, mica_scope *s, mica_array *ids);
mica_array *mica_net_logits(const mica_net *net, mica_scope *s, mica_array *h);
/** The same logits, but not capped, rounded to h's type: what a gradient in that type goes back through. */
mica_array *mica_net_rounded_logits(const mica_net *net, mica_scope *s, mica_array *h);
/** Group of a layer: 0 unbounded, 1 sliding window. */
static inline int mica_layer_group(const mica_config *c, int64_t layer) { return c->sliding_window && c->is_sliding[layer] ? 1 : 0; }

// ---- shared parts of blocks (layers.c) -------------------------------------------------------------------
bool mica_load_attention(mica_net *net, mica_loader *ld, mica_layer *l);
bool mica_load_qk_norms(mica_net *net, mica_loader *ld, mica_layer *l);
bool mica_load_mlp(mica_net *net, mica_loader *ld, mica_layer *l);
mica_array *mica_norm(mica_forward *f, mica_array *x, mica_array *w);
/** Of x [N, D] the rows that are still needed: keys and values are for all tokens, what follows in the last layer only for some. */
mica_array *mica_wanted_rows(mica_forward *f, mica_array *x);
/** x [N, D] -> [N, D], or only the wanted rows: projections, Q/K norms if loaded, rotation, cache, attention, output projection. */
mica_array *mica_self_attention(mica_forward *f, const mica_layer *l, mica_array *x);
/** act(gate) * up */
mica_array *mica_activate(mica_forward *f, mica_array *gate, mica_array *up);
/** down(act(gate x) * up x) */
mica_array *mica_mlp(mica_forward *f, const mica_layer *l, mica_array *x);
#endif
