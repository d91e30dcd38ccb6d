// SPDX-License-Identifier: Apache-2.0
// The one matrix product behind matmul, quantized_matmul and linear_packed: rows of in[0] times a right-hand side that may
// be dense, quantised as in the checkpoint, or packed in tiles. Cuts the work by shape, prepares the rows, and runs
// the raw kernels of the device's level.
#ifndef MICA_DEVICE_CPU_PRODUCT_H
#define MICA_DEVICE_CPU_PRODUCT_H

#include "base/quant.h"
#include "device/cpu/cpu.h"
#include "device/cpu/tiles.h"
#include "base/lines.h"

typedef enum mica_cpu_rhs_kind {
    MICA_CPU_DENSE,    // in[1] [..., K, N], any strides
    MICA_CPU_CODES_NK, // quantised rows [N, K]: x · Wᵀ
    MICA_CPU_CODES_KN, // quantised rows [K, N]: x · W
    MICA_CPU_TILES,    // in[1] packed
    MICA_CPU_TILES_KN, // in[1] packed, x · W
} mica_cpu_rhs_kind;

typedef struct mica_cpu_rhs {
    mica_cpu_rhs_kind kind;
    size_t n, k;
    mica_quant_rows codes; // CODES_*
    mica_cpu_tiles tiles;  // TILES, TILES_KN
    mica_gate gate;        // TILES
} mica_cpu_rhs;

/** c->out [..., M, N] = c->in[0] [..., M, K] · rhs; f32, f16 or bf16; gated: [..., M, N/2]. in[0] is aligned to its elements. */
void mica_cpu_product(const mica_call *c, const mica_cpu_rhs *rhs);
size_t mica_cpu_product_scratch(const mica_call *c, const mica_cpu_rhs *rhs);

/** Run of `n` weights of one quantised row of `in`, from element `first` on, in f32: fl(fl(scale*code) + bias). */
void mica_cpu_codes_run(const mica_quant_rows *q, size_t in, size_t row, size_t first, size_t n, float *to);

/** Offset in elements of row `r`, counting over all dimensions but the last `inner`. */
ptrdiff_t mica_cpu_row_offset(const mica_tensor *t, int inner, size_t r);
/** Product of all dimensions but the last `inner`. */
size_t mica_cpu_row_count(const mica_tensor *t, int inner);
#endif
