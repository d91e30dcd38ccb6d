// SPDX-License-Identifier: Apache-2.0
// Kinds of quantised weights, as MLX stores them. A quantised matrix [out, in] is three tensors: packed codes
// (uint32 [out, in*bits/32], one little-endian bit stream a row), scales [out, in/group_size] and, for the affine
// mode only, biases of the same shape and type; an affine weight is scale*code + bias.
#ifndef MICA_QUANT_H
#define MICA_QUANT_H

#include "mica/error.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mica_quant_mode {
    MICA_AFFINE = 0, // 2, 3, 4, 5, 6 or 8 bits; groups of 32, 64 or 128 (GGUF import: also 16); float scales and biases
    MICA_MXFP4,      // e2m1 codes, groups of 32, e8m0 scales (one byte)
    MICA_NVFP4,      // e2m1 codes, groups of 16, e4m3 scales (one byte)
    MICA_MXFP8,      // e4m3 codes, groups of 32, e8m0 scales (one byte)
    MICA_QUANT_MODE_COUNT
} mica_quant_mode;

typedef struct mica_quant_spec {
    mica_quant_mode mode;
    int bits;       // of one code
    int group_size; // weights that share a scale; groups lie along the last dimension
} mica_quant_spec;

/** "affine", "mxfp4", "nvfp4", "mxfp8". */
MICA_API const char *mica_quant_mode_name(mica_quant_mode mode);
/** Reads such a name; false if there is no such mode. */
MICA_API bool mica_quant_mode_parse(const char *name, mica_quant_mode *mode);
/** What mlx-lm takes when a mode is given alone: affine 4 bits by 64, mxfp4 4x32, nvfp4 4x16, mxfp8 8x32. */
MICA_API mica_quant_spec mica_quant_default(mica_quant_mode mode);
/** Refuses bits and group sizes that the mode does not have; the message names the value. */
MICA_API bool mica_quant_check(mica_quant_spec spec, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
