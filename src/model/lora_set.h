// SPDX-License-Identifier: Apache-2.0
// A LoRA adapter that is there beside a network's weights: its small matrices by module, loaded at any time. Weights stay as they are, joined where they
// were joined; a forward adds to each row what the adapter of the row's sequence has (adapted.c). Read-only once it is loaded.
#ifndef MICA_MODEL_LORA_SET_H
#define MICA_MODEL_LORA_SET_H

#include "model/net.h"

/** Linear layers of a block, in the order of mica_layer; after them, the head. */
enum { MICA_LORA_Q, MICA_LORA_K, MICA_LORA_V, MICA_LORA_O, MICA_LORA_GATE, MICA_LORA_UP, MICA_LORA_DOWN, MICA_LORA_MODULES, MICA_LORA_HEAD = MICA_LORA_MODULES };

/** Matrices as mica_low_rank takes them. */
typedef struct mica_lora_part {
    mica_array *set; // NULL: none
    mica_low_rank_form form;
} mica_lora_part;

/** By module; where the network joins several in one product, all of them at the first. */
typedef struct mica_lora_layer {
    mica_lora_part parts[MICA_LORA_MODULES];
} mica_lora_layer;

typedef struct mica_lora_set {
    mica_lora embed;         // for the tokens' own rows
    mica_lora_part head;     // of a tied head: what the adapter has for the embedding
    mica_lora_layer *layers; // [layer_count]
    int64_t layer_count;
    int64_t bytes;     // of the matrices
    uint64_t identity; // of its contents: equal for two loads of the same files
    uint64_t number;   // for whoever has several: keys and values computed with different sets are different; not 0
} mica_lora_set;

/** path: a folder (mlx-lm, PEFT, go-mlx) or a go-mlx file. An adapter made for another model is refused; the error names path and module. May
 * be called while others compute with the net. */
mica_lora_set *mica_lora_set_load(const mica_net *net, const char *path, uint64_t number, mica_error *err);
void mica_lora_set_free(mica_lora_set *set);
#endif
