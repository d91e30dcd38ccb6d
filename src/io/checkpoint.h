// SPDX-License-Identifier: Apache-2.0
// A model on disk, folder or .gguf, behind one face: its config and its weights by module name in Hugging Face style
// ("model.layers.0.self_attn.q_proj"). Prefixes that multi-modal files put in front are tolerated. Tensors point into
// the mapped file where its layout is usable as it is; GGUF blocks can be read as affine rows or turned into triples.
#ifndef MICA_IO_CHECKPOINT_H
#define MICA_IO_CHECKPOINT_H

#include "base/quant.h"
#include "io/config.h"
#include "io/tensor.h"

typedef struct mica_model_files mica_model_files;

typedef struct mica_weight {
    bool quantized;
    mica_quant_spec spec;   // if quantized
    int64_t out, in;        // logical shape [out, in]; a vector has out = 1
    mica_stored weight;     // dense: [out, in] or [in]. Quantised: codes, U32 [out, in*bits/32]
    mica_stored scales;     // quantised: [out, in/group_size]
    mica_stored biases;     // affine: like scales
    mica_quant_blocks blocks; // with .read: stored in blocks; the three tensors have shapes, but data only after mica_weight_unpack
    float global_scale;     // nvfp4 with "<module>.global_scale": its value (see mica_quant_rows); otherwise 0
    bool has_bias;
    mica_stored bias;       // [out]: the linear layer's bias
    void *owned, *owned_bias; // memory behind the tensors above, when they are not mapped; see mica_weight_release
} mica_weight;

/** Opens a folder or a GGUF file. Reads config and headers, no weights. The errors are those of the parts, plus
 * "<path>: no such file or folder", "<path>: no config.json", "<path>: no *.safetensors". */
mica_model_files *mica_checkpoint_open(const char *path, mica_error *err);
void mica_checkpoint_free(mica_model_files *c);
const mica_config *mica_checkpoint_config(const mica_model_files *c);
const char *mica_checkpoint_path(const mica_model_files *c);

/** Is there a "<module>.weight"? ("lm_head" is absent from tied checkpoints.) */
bool mica_checkpoint_has(const mica_model_files *c, const char *module);
/** Finds "<module>.weight" and what belongs to it. The shape must be [out, in] (unpacked), or [in] when out is 0;
 * -1 accepts any. Errors: missing tensor (named), wrong shape (both shapes), wrong type, a quantised triple that does
 * not fit together. Safe from several threads. */
bool mica_checkpoint_find(const mica_model_files *c, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err);
/** The same, but blocks of a GGUF stay what they are: w->blocks reads them while the checkpoint is open. w->scales.dtype is what their
 * scales most likely need: F16, unless one does not fit. */
bool mica_checkpoint_view(const mica_model_files *c, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err);
/** Turns blocks into a triple in owned memory; true if there is nothing to do. On failure only release is left. */
bool mica_weight_unpack(mica_weight *w, mica_error *err);
/** Frees owned memory, if any; mapped tensors are unaffected. Idempotent. */
void mica_weight_release(mica_weight *w);
/** Drops the mapped pages behind w from memory; call it once the weight was copied elsewhere. */
void mica_checkpoint_forget(const mica_model_files *c, const mica_weight *w);
/** Drops all mapped pages; what is still needed is read again. Safe from several threads. */
void mica_checkpoint_rest(const mica_model_files *c);
/** Row `row` of the weight as f32, dequantised; out [in]. For tests and small uses. */
void mica_weight_row(const mica_weight *w, int64_t row, float *out);

typedef struct mica_checkpoint_stats {
    uint64_t bytes;      // of all weight tensors as stored
    uint64_t parameters; // logical weights: packed codes count as what they stand for; scales and biases do not count
    size_t tensors, files;
} mica_checkpoint_stats;
mica_checkpoint_stats mica_checkpoint_get_stats(const mica_model_files *c);

struct mica_gguf;
/** The file behind it: NULL for a folder. Its vocabulary is in gguf.h. */
const struct mica_gguf *mica_checkpoint_gguf(const mica_model_files *c);
#endif
