// SPDX-License-Identifier: Apache-2.0
// GGML's block formats as affine groups: every block type here is exactly scale*code + bias with small integer codes.
#ifndef MICA_IO_GGUF_BLOCKS_H
#define MICA_IO_GGUF_BLOCKS_H

#include "io/gguf.h"

/** The affine form of a block type; false for F32, F16 and BF16, which are dense. */
bool mica_ggml_affine(mica_ggml_type type, mica_quant_spec *spec);
/** n weights (whole blocks) at src with scales and biases as scale_dtype (F32 or F16): false if f16 does not hold one of them exactly;
 * all are written all the same. */
bool mica_ggml_unpack_run(mica_ggml_type type, mica_dtype scale_dtype, const unsigned char *src, size_t n, uint8_t *codes, void *scales,
                          void *biases);
/** Weights and bytes of one block; false for a type that mica does not read. */
bool mica_ggml_block(uint64_t type, unsigned *weights, unsigned *bytes);
/** Bytes of one row. */
size_t mica_ggml_row_bytes(mica_ggml_type type, size_t in);
/** May scales and biases of this type fit f16 exactly? (They do unless a block's scale is huge.) */
bool mica_ggml_half_scales(mica_ggml_type type);
#endif
