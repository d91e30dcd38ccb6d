// SPDX-License-Identifier: Apache-2.0
// Converting models: a GGUF file or a Hugging Face folder becomes an MLX folder, dense or quantised, that mica and
// mlx-lm load. Quantised weights are bit-equal to what mlx_lm.convert makes of the same source.
#ifndef MICA_CONVERT_H
#define MICA_CONVERT_H

#include "mica/error.h"
#include "mica/quant.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_convert_options {
    // Quantise if any of these three is set; otherwise the result is dense.
    int bits;             // 0 = the mode's default (affine: 4)
    int group_size;       // 0 = the mode's default (affine: 64)
    mica_quant_mode mode; // 0 = affine
    const char *dtype;    // "f32", "f16" or "bf16" (or "float32", …); NULL = as the source; bf16 for GGUF
    int threads;          // 0 = all CPUs
    // Called after each tensor with bytes of source weights done and in total; false cancels. NULL = no calls.
    bool (*progress)(void *ctx, const char *tensor, uint64_t done, uint64_t total);
    void *progress_ctx;
} mica_convert_options;

/** src: a model folder or a .gguf file. dst: a folder that does not exist or is empty. The folder is built under a
 * temporary name beside dst and renamed when complete; a failure leaves nothing. Weights that are not finite, or do not
 * fit the dtype, are errors naming the tensor. options may be NULL. */
MICA_API bool mica_convert(const char *src, const char *dst, const mica_convert_options *options, mica_error *err);

typedef struct mica_fuse_options {
    mica_convert_options convert; // of a model that is quantised already, bits, group_size and mode say to quantise anew and otherwise
    bool dequantize;              // the result is dense; default: as the model (of a GGUF file: dense)
} mica_fuse_options;

/** Merges a LoRA or DoRA adapter (a folder, as mica_load_options.adapter takes it) into a model's weights: W + scale·(a·b)ᵀ, with DoRA its rows scaled to
 * the magnitude, computed in f32 and stored in the model's own type and quantisation; what has no adapter is copied as it is, and so are the
 * files beside the weights. dst and failures as for mica_convert. An embedding that was adapted without the head, to which it is tied, unties them.
 * What quantising again costs tells mica_perplexity_of. */
MICA_API bool mica_fuse(const char *src, const char *adapter, const char *dst, const mica_fuse_options *options, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
