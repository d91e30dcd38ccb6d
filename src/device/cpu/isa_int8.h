// SPDX-License-Identifier: Apache-2.0
// Raw kernels of products of packed weights whose activations are rounded to 8 bits (activations=int8), one table per
// level (rules in isa.h). A row of x is rounded once per product: for each group of weights g
//   scale = max|x| / 127,  code = x / scale to the nearest integer,  sum = scale · Σ code
// and then  y = Σ_g  scale_x·scale_w · Σ code_w·code_x  +  bias_w · sum_x.
// which is exactly the product of the weights with the rounded x. (With sums of x itself, more exact as they are, the rounding would
// meet the codes, whose mean is far from zero, rather than the weights: eight times the divergence was measured.)
// The inner sums are integers, thus exact, and all levels apply scales and biases in the same order with fused
// multiply-adds: every level and any number of rows give the same bits. There are no panels: nibbles become bytes so cheaply
// that decoding them anew for every eight rows costs less than storing and loading them.
#ifndef MICA_DEVICE_CPU_ISA_INT8_H
#define MICA_DEVICE_CPU_ISA_INT8_H

#include "device/cpu/isa_matmul.h"

enum { MICA_INT8_ROWS = 8 }; // rows of a block

// Rounded rows, in blocks of eight (the last one lower), whose rows lie side by side: code i of row r of a block of height h
// is at place(i)/4 · 4h + 4r + place(i)%4, and group g's scale and sum are at g·h + r. A block of rows r0 … begins at r0·k and
// r0·groups. place() puts eight inputs into the order 0 4 1 5 2 6 3 7: then the four codes that a dot product of bytes
// takes from x meet those that one mask cuts out of a dword of nibbles (isa_matmul.h tells how tiles store them).
typedef struct mica_cpu_int8_block {
    size_t rows, k, groups; // rows: the height; k padded to whole tiles; groups = k / group
    const int8_t *codes;
    const float *scales, *sums;
} mica_cpu_int8_block;

typedef struct mica_cpu_int8_isa {
    /** Rounds a row of n elements (any alignment), padded with zeros to k, into row 0 of a block of height h at codes, scales
     * and sums. An infinity or NaN in a group makes its scale and sum so. */
    void (*round_row)(mica_dtype type, const void *x, size_t n, size_t k, size_t group, size_t h, int8_t *codes, float *scales, float *sums);
    /** y [rows][n] f32, rows ldy apart, of the n/16 tile columns at w. */
    void (*tiles)(const mica_cpu_tiles *t, const mica_cpu_int8_block *x, const unsigned char *w, size_t n, float *y, size_t ldy);
} mica_cpu_int8_isa;

// Groups with no greater |x| than this have codes of zero: the inverse of a smaller scale would overflow.
#define MICA_INT8_LEAST 1e-35f

/** Where input i is among the codes of a row. */
static inline size_t mica_cpu_int8_place(size_t i) {
    static const unsigned char place[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    return i / 8 * 8 + place[i % 8];
}
#endif
