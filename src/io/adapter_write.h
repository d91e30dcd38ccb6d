// SPDX-License-Identifier: Apache-2.0
// Writing LoRA and DoRA adapters, as mlx-lm has them (the default) or as PEFT has them: a file of tensors and adapter_config.json. Both are written
// under temporary names and renamed when they are complete, so that whoever reads the folder, or kills the writer, never sees a torn file.
#ifndef MICA_IO_ADAPTER_WRITE_H
#define MICA_IO_ADAPTER_WRITE_H

#include "io/tensor.h"

typedef enum mica_adapter_form { MICA_ADAPTER_MLX_LM = 0, MICA_ADAPTER_PEFT } mica_adapter_form;

typedef struct mica_adapter_write_options {
    mica_adapter_form form;
    double scale;           // of the product a·b; 0 means none of it is added, and is refused
    double dropout;         // what the adapter was trained with; readers use it only to train on
    int64_t num_layers;     // how many of the last blocks have adapters; default 0: all
    bool nested;            // the text model of a multi-modal one (mica_conversion_nested): tools know its modules under a longer name
    bool input_only;        // the adapter of a tied embedding leaves the head alone (PEFT's way); otherwise it adapts both (mlx-lm's)
    bool tied;              // the head is the embedding
    const char *base_model; // PEFT: name or path of the model; default: not said
    const char *snapshot;   // put before the name of the file of tensors ("0000100_"), as mlx-lm's checkpoints have it; default: nothing.
} mica_adapter_write_options;

/** Writes the tensors into folder, which is made if it is not there; an adapter of the same form in it is replaced. Tensors are named and shaped as
 * mlx-lm has them, which is how mica_parameter names them: "<module>.lora_a" [in, r] and "<module>.lora_b" [r, out] (of an embedding [V, r] and
 * [r, D]), and for DoRA, then with every module, "<module>.m" [out]: the magnitude itself, NOT divided by the length of the weight's rows
 * (mica_lora.magnitude is divided, after loading). One rank for all. Types f32, bf16, f16, kept as they are. Errors name folder and tensor. */
bool mica_adapter_write(const char *folder, const mica_stored *tensors, size_t count, const mica_adapter_write_options *options, mica_error *err);
#endif
