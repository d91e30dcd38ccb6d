// SPDX-License-Identifier: Apache-2.0
// A GGUF file seen as a Hugging Face model: config from its metadata, weights by module name.
#ifndef MICA_IO_GGUF_MODEL_H
#define MICA_IO_GGUF_MODEL_H

#include "io/checkpoint.h"
#include "io/gguf.h"

/** Builds the config of a llama, qwen2, qwen3 or gemma3 file; free with mica_config_free. */
bool mica_gguf_config(const mica_gguf *g, mica_config *config, mica_error *err);
/** "model.layers.3.mlp.up_proj" -> "blk.3.ffn_up"; false if GGUF has no such module (or the name does not fit). */
bool mica_gguf_module_name(mica_arch arch, const char *module, char *name, size_t size);
/** The reverse, for "<name>.weight" or "<name>.bias" of the file; false for tensors that belong to no module. */
bool mica_gguf_hf_name(mica_arch arch, const char *name, char *module, size_t size);
/** The weight of a module with its bias: dense as mapped, or blocks to be read (see mica_checkpoint_view). Rows of llama's q and k
 * are put back in half-split order, gemma's norms have their 1 taken off. No shape checks. */
bool mica_gguf_weight(const mica_gguf *g, const mica_config *config, const char *module, mica_weight *w, mica_error *err);
#endif
