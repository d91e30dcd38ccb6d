// SPDX-License-Identifier: Apache-2.0
// Packed quantised weights of the CPU device in plain C: geometry, packing, decoding of single rows. The layout is
// described at mica_cpu_tiles in isa_matmul.h and is the same at every level.
#ifndef MICA_DEVICE_CPU_TILES_H
#define MICA_DEVICE_CPU_TILES_H

#include "base/half.h"
#include "device/cpu/isa_matmul.h"
#include "device/device.h"
#include <string.h>

/** Geometry of params->packed. */
mica_cpu_tiles mica_cpu_tiles_of(const mica_params *params);
static inline size_t mica_cpu_tiles_size(const mica_cpu_tiles *t) { return t->columns * t->per_column * t->bytes; }

/** Writes tile columns [first, last) of a part (counted from its own first row). False if blocks hold a scale that the weight's
 * scale_dtype does not. */
bool mica_cpu_tiles_pack(const mica_cpu_tiles *t, const mica_cpu_matmul_isa *isa, const mica_pack_part *part, size_t first, size_t last);
/** Plain C for mica_cpu_matmul_isa. */
void mica_cpu_pack_codes(int bits, const mica_cpu_packing *p);
void mica_cpu_pack_nibbles(const mica_cpu_packing *p);
/** The k inputs from k0 on of output `row`, dequantised: scale*code + bias, each operation rounded to f32. */
void mica_cpu_tiles_row(const mica_cpu_tiles *t, const unsigned char *packed, size_t row, size_t k0, size_t k, float *to);

/** The 32 codes of output o of a chunk. */
void mica_cpu_tiles_codes(const unsigned char *chunk, int bits, size_t o, uint8_t codes[MICA_TILE_CHUNK]);

/** Widths of the planes of a chunk, lowest bits first; returns how many. */
static inline int mica_cpu_tile_planes(int bits, int width[2]) {
    width[0] = bits == 3 ? 2 : bits >= 4 ? 4 : bits;
    width[1] = bits - width[0];
    return width[1] ? 2 : 1;
}

/** One element of a plane's word: input i (< 32/width) of the vector's inputs. */
static inline int mica_cpu_tile_shift(int width, int i) { return width * (i / 2) + 16 * (i & 1); }

/** Element i of float data of any alignment. */
static inline float mica_cpu_load1(mica_dtype type, const void *data, size_t i) {
    uint32_t u = 0;
    size_t size = type == MICA_F32 ? 4 : 2;
    memcpy(&u, (const unsigned char *)data + i * size, size);
    if (type == MICA_F32) return mica_f32_from_bits(u);
    return type == MICA_BF16 ? mica_bf16_to_f32((uint16_t)u) : mica_f16_to_f32((uint16_t)u);
}
#endif
