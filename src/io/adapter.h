// SPDX-License-Identifier: Apache-2.0
// LoRA adapters on disk, in three forms, told apart by their files, keys and shapes: mlx-lm (adapters.safetensors and adapter_config.json;
// lora_a [in, r], lora_b [r, out]), PEFT (adapter_model.safetensors; lora_A [r, in], lora_B [out, r]) and go-mlx (no config; lora_a [r, in],
// lora_b [out, r]).
#ifndef MICA_IO_ADAPTER_H
#define MICA_IO_ADAPTER_H

#include "io/tensor.h"

/** What is added to one module: y + scale · (x·a)·b, and with a magnitude (DoRA) the rows of the whole scaled to it. */
typedef struct mica_adapter_part {
    char module[128]; // "model.layers.3.self_attn.q_proj", "model.embed_tokens"
    const mica_stored *a, *b, *magnitude; // magnitude [out], or NULL
    const mica_stored *base; // the module's own weight, which PEFT writes beside adapters of embeddings; or NULL
    bool transposed;  // a is [r, in], b [out, r]; else [in, r] and [r, out]
    bool input_only;  // an embedding whose use as the head is not adapted (PEFT)
    float scale;
    bool used;        // a layer has taken it
} mica_adapter_part;

typedef struct mica_adapter {
    struct mica_safetensors *tensors; // what the parts point into
    mica_adapter_part *parts;
    size_t count;
} mica_adapter;

/** path: a folder, or a go-mlx file. Tensors are mapped. The error names file and tensor. */
bool mica_adapter_open(mica_adapter *adapter, const char *path, mica_error *err);
void mica_adapter_close(mica_adapter *adapter);
/** The part for a module; NULL if there is none. */
mica_adapter_part *mica_adapter_find(const mica_adapter *adapter, const char *module);

struct mica_weight;
/** Whether the part was made for this weight: sizes, and the weight that it brings along, if it does. The error names the module. */
bool mica_adapter_fits(const mica_adapter_part *part, const struct mica_weight *weight, mica_error *err);

/** Whether its sizes are those of a weight [out, in]. */
bool mica_adapter_sizes_fit(const mica_adapter_part *part, int64_t out, int64_t in, mica_error *err);

/** A part merged into its weight: row o becomes w[o] + scale · left[o] · right, for DoRA scaled to the length magnitude[o]. All in f32. */
typedef struct mica_merge {
    float *left, *right; // [out, r], [r, in]
    float *magnitude;    // [out], or NULL
    int64_t rank, in;
    float scale;
} mica_merge;
/** part NULL: nothing is merged. */
bool mica_merge_init(mica_merge *m, const mica_adapter_part *part, const struct mica_weight *weight, mica_error *err);
/** Merges into rows first … first+rows-1 of the weight: values [rows, in]. */
void mica_merge_rows(const mica_merge *m, size_t first, size_t rows, float *values);
void mica_merge_free(mica_merge *m);
#endif
