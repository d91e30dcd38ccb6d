// SPDX-License-Identifier: Apache-2.0
// MLX's quantised formats as plain scalar code: the reference that the kernels are tested against, the quantiser of
// `convert`, and the unpacker of imports. Everything works on rows: `in` weights along the last dimension, codes in
// mica_quant_words(spec, in) little-endian uint32, scales (and biases) in `in / group_size` elements.
// Pointers may have any alignment (tensors of mapped files often do): elements are read and written with memcpy.
#ifndef MICA_BASE_QUANT_H
#define MICA_BASE_QUANT_H

#include "base/base.h"
#include "mica/dtype.h"
#include "mica/quant.h"

/** uint32 words of one packed row: in * bits / 32. */
static inline size_t mica_quant_words(mica_quant_spec spec, size_t in) { return in * (size_t)spec.bits / 32; }
/** Scales of one row. */
static inline size_t mica_quant_groups(mica_quant_spec spec, size_t in) { return in / (size_t)spec.group_size; }
/** Element type of the scales: U8 for the floating-point modes, `affine` otherwise. */
static inline mica_dtype mica_quant_scale_dtype(mica_quant_spec spec, mica_dtype affine) {
    return spec.mode == MICA_AFFINE ? affine : MICA_U8;
}
/** Can rows of `in` weights be stored so: a whole number of groups, of words and a valid spec. */
bool mica_quant_fits(mica_quant_spec spec, size_t in);

/** Codes of one row to one byte each. words [in*bits/32] -> codes [in]. bits: 1…8. */
void mica_unpack_codes(int bits, const void *words, size_t in, uint8_t *codes);
/** The reverse; codes must be < 2^bits. */
void mica_pack_codes(int bits, const uint8_t *codes, size_t in, void *words);

// One tensor in quantised form, or a run of its rows. biases: NULL unless affine. scale_dtype: F32, F16 or BF16 (affine).
typedef struct mica_quant_rows {
    mica_quant_spec spec;
    mica_dtype scale_dtype;
    const void *words;  // [rows, in*bits/32] u32
    const void *scales; // [rows, in/group_size]
    const void *biases; // [rows, in/group_size], affine only
    float global_scale; // nvfp4 with a tensor scale: weights are multiplied by global_scale/(448*6); 0 = none
} mica_quant_rows;

/** Affine rows that lie in a form of their own, such as GGML's blocks, and are taken apart a run at a time. */
typedef struct mica_quant_blocks mica_quant_blocks;
enum { MICA_QUANT_RUN = 1024 };
struct mica_quant_blocks {
    /** Inputs first … first+n-1 of `row` (first a multiple of MICA_QUANT_RUN, n at most that and whole groups): codes [n],
     * scales and biases [n/group_size] as scale_dtype. False if that type does not hold one of them exactly; all are written
     * all the same. Safe from several threads. */
    bool (*read)(const mica_quant_blocks *b, mica_dtype scale_dtype, size_t row, size_t first, size_t n, uint8_t *codes,
                 void *scales, void *biases);
    const unsigned char *data; // the reader's own from here on: first row
    size_t row_bytes;
    int64_t rows, heads; // heads: see stored_row in gguf_tensors.c
    int type;
};

/** out [count, in] = rows first … first+count-1, in f32: fl(fl(scale*code) + bias). */
void mica_dequantize_rows(const mica_quant_rows *q, size_t in, size_t first, size_t count, float *out);

/** Quantises w [rows, in] exactly as MLX does. words, scales, biases: as above, written densely. Affine scales and
 * biases are cast to scale_dtype after the codes were chosen with the unrounded ones; biases is unused by the other
 * modes. NaN weights get some code, never undefined behaviour. */
void mica_quantize_rows(mica_quant_spec spec, mica_dtype scale_dtype, const float *w, size_t rows, size_t in, void *words,
                        void *scales, void *biases);

// Single values of the small formats (tables for the kernels).
/** e2m1 with sign: code 0…15 -> ±{0, .5, 1, 1.5, 2, 3, 4, 6}. */
float mica_e2m1_to_f32(uint8_t code);
/** Nearest, ties towards zero, saturates at ±6; no negative zero and 0 for NaN. All as MLX does on a CPU. */
uint8_t mica_f32_to_e2m1(float f);
/** OCP e4m3 (no infinities, 0x7F/0xFF NaN, largest 448). */
float mica_e4m3_to_f32(uint8_t code);
/** Nearest even; saturates at ±448. */
uint8_t mica_f32_to_e4m3(float f);
/** 2^(code-127). */
float mica_e8m0_to_f32(uint8_t code);

/** Reads one element of a float tensor (any alignment) as f32; f64 is rounded. */
float mica_load_f32(mica_dtype dtype, const void *data, size_t index);
/** n elements from `first`, to or from f32. dtype: a float type. data of any alignment. */
void mica_load_f32_run(mica_dtype dtype, const void *data, size_t first, size_t n, float *out);
void mica_store_f32_run(mica_dtype dtype, const float *values, size_t n, void *data);
#endif
