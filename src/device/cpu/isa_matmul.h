// SPDX-License-Identifier: Apache-2.0
// Raw kernels of the matrix products, one table per instruction-set level (rules in isa.h). A product
// y [M,N] = x [M,K] · w [K,N] is computed in f32 or, for bf16 activations on levels that multiply bf16 pairs, in bf16 with
// f32 sums. Two ways, chosen by shape (product.c):
//   * direct: `dot_*` and `tiles_*` take a few rows and read the weights as they are stored, at the speed of memory.
//     Nothing is rounded but sums (tiles_fixed: see there), and a row's result does not depend on the other rows;
//   * panels: a block of w is written as a panel (decoded, converted) and a register-blocked gemm runs over many rows.
#ifndef MICA_DEVICE_CPU_ISA_MATMUL_H
#define MICA_DEVICE_CPU_ISA_MATMUL_H

#include "mica/dtype.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MICA_TILE_OUTPUTS = 16, // outputs of a tile of packed weights: the f32 lanes of a 512-bit vector
    MICA_TILE_CHUNK = 32,   // inputs whose codes lie together, plane by plane
    MICA_DIRECT_ROWS = 8,   // rows that one call of dot_* takes at most
    MICA_PACK_ROWS = 32,    // rows of a packed block
    MICA_FIXED_GROUP = 256, // inputs of a group that fixed_row takes at most
    MICA_SHARED_ROWS = 32,  // rows that one call of tiles_shared takes at most
};

// Geometry of a packed affine-quantised weight [out, in]. It is cut into tiles of 16 outputs × `depth` inputs; tile
// (o, g) lies at (o*per_column + g) * bytes. A tile holds `depth/32` chunks of codes, then the scales [groups][16],
// then the biases [groups][16], both as stored in the checkpoint. A chunk holds the codes of 16 outputs × 32 inputs in
// bit planes of widths p (8 bits: 4+4, 6: 4+2, 5: 4+1, 3: 2+1, 4: 4, 2: 2; lowest bits first). A plane is p vectors of 16
// little-endian dwords, one dword per output; vector v holds inputs 32/p·v …: input i of them sits in the dword's low (i
// even) or high (i odd) half at bit p·(i/2). So the two inputs of a bf16 pair lie 16 bits apart, as vdpbf16ps wants them.
typedef struct mica_cpu_tiles {
    size_t out, in;
    int bits, group;        // group: inputs that share a scale
    mica_dtype scale_dtype; // F32, F16 or BF16
    size_t depth;           // inputs of a tile: the group, but at least a chunk
    size_t groups;          // groups in a tile: 2 where the group is half a chunk, else 1
    size_t per_column;      // tiles along `in`; per_column * depth ≥ in, the rest is zero
    size_t columns;         // tiles along `out`; columns * 16 ≥ out, the rest is zero
    size_t codes;           // bytes of codes in a tile
    size_t scales;          // bytes of the scales of one group
    size_t bytes;           // bytes of a tile
} mica_cpu_tiles;

// A panel to decode, as from_tiles does, and the one after it, which is fetched meanwhile (the same one if it is the last).
typedef struct mica_cpu_ahead {
    const mica_cpu_tiles *t; // NULL: none
    const unsigned char *packed;
    size_t first, k0, k;
    size_t soon_first, soon_k0;
    void *panel;
} mica_cpu_ahead;

// What is to come into the second-level cache while a product is computed: `rows` runs of `bytes` bytes, `step` bytes apart.
typedef struct mica_cpu_fetch {
    const unsigned char *from;
    size_t rows, bytes;
    ptrdiff_t step;
} mica_cpu_fetch;

// c or out [m][n] = (first ? 0 : c) + a [m][k] · the first n columns of a panel. T *a, rows lda elements apart.
typedef struct mica_cpu_gemm {
    size_t m, n, k;
    const void *a;
    ptrdiff_t lda;
    const void *panel;
    float *c; // rows `columns` apart; only read if there is `out`, and that if !first
    bool first;
    mica_dtype type; // of out: F32; of bf16 panels also BF16, rounded
    void *out;       // NULL: the sums go to c
    size_t ldo;      // elements between rows of out
    mica_cpu_fetch next; // a hint; 0 rows: nothing
} mica_cpu_gemm;

// Panels and gemm of one compute type T (float or bf16 bits). A panel of k inputs × `columns` outputs is
// [k][columns] f32, or [k/2][columns][2] bf16 (k even). Columns past n are zero.
typedef struct mica_cpu_panels {
    size_t columns; // outputs of a panel; 0: the level does not compute in this type
    size_t depth;   // inputs of a panel at most: what keeps it in the second-level cache
    size_t step;    // inputs of a panel are a multiple of it; 0: of 2 in bf16, of 1 in f32
    size_t across;  // panels of a task at most, which take turns at each block of inputs; 0: 1
    size_t direct;  // dense products of up to so many rows go through dot_*; 0: none does
    size_t direct_tiles[9]; // the same for tiles_*, by bits
    size_t tiles_rows;      // rows that one call of tiles_* takes at most
    /** c [m][columns] = (first ? 0 : c) + a [m][k] · panel. T *a, rows lda elements apart; or, if there is `pack`, packed, blocks of 32 rows
     * 32*lda elements apart. `again`: the same a was multiplied just before, with another panel. */
    void (*gemm)(size_t m, size_t k, const void *a, ptrdiff_t lda, const void *panel, float *c, bool first, bool again);
    /** NULL, or as gemm, and can write the result: n is a multiple of `part` if there is `out`. */
    void (*gemm_out)(const mica_cpu_gemm *g);
    size_t part; // 0: `columns`
    /** NULL, or gemm and from_tiles at once: the next panel is decoded between the products. */
    void (*gemm_ahead)(size_t m, size_t k, const void *a, ptrdiff_t lda, const void *panel, float *c, bool first, bool again,
                       const mica_cpu_ahead *next);
    /** NULL, or writes bf16 rows [rows ≤ 16][k] as half of a packed block [kp/32][2 halves][16][32], zeros from k to kp: for gemm, and for
     * tiles_* where t->groups is 1. */
    void (*pack)(size_t rows, size_t k, const void *x, ptrdiff_t ldx, size_t kp, void *packed);
    /** Panel of w[i*ldk + j*ldn], i < k, j < n; an odd k is padded with a zero in bf16. w of any alignment. */
    void (*from_dense)(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k, size_t columns,
                       void *panel);
    /** Panel of tile columns first … (as many as fit), inputs k0 … k0+k; k0 and k are multiples of t->depth. */
    void (*from_tiles)(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t k0, size_t k,
                       size_t columns, void *panel);
    /** NULL, or panel of the transpose: its columns are inputs first … first+n (multiples of 16) of the weight, its rows outputs k0 … k0+k (k0 a
     * multiple of 16; an odd k is padded with a zero). */
    void (*from_tiles_back)(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t n, size_t k0, size_t k, size_t columns,
                            void *panel);
} mica_cpu_panels;

// Operands of a direct product: y [m][16·tiles or n] f32, rows ldy apart.
typedef struct mica_cpu_direct {
    size_t m, n, k;
    const void *x; // T [m][k], rows ldx elements apart; or packed (mica_cpu_panels.pack)
    ptrdiff_t ldx;
    const float *sums; // tiles: sum of x over each group [m][groups], rows lds apart
    size_t lds;
    const unsigned char *w; // dense rows [n][k] of any alignment, ldw elements apart; or tile columns, one after another
    ptrdiff_t ldw;
    float *y;
    size_t ldy;
    bool rows_alone; // each row as if m were 1 (m is MICA_DIRECT_ROWS at most)
    size_t ahead;    // tiles_fixed: bytes of w to fetch ahead, or 0
} mica_cpu_direct;

typedef struct mica_cpu_packing {
    const unsigned char *from; // first row
    size_t row_bytes, rows, chunks, per_tile, tile_bytes;
    unsigned char *tile;
} mica_cpu_packing;

typedef struct mica_cpu_matmul_isa {
    mica_cpu_panels f32, bf16;
    /** sums[g] = sum of x[g*group … (g+1)*group), group a multiple of 16; x in F32 or BF16. */
    void (*group_sums)(mica_dtype type, const void *x, size_t group, size_t groups, float *sums);
    void (*dot_f32)(mica_dtype type, const mica_cpu_direct *d); // w in F32, F16 or BF16
    void (*dot_bf16)(mica_dtype type, const mica_cpu_direct *d); // w in BF16
    /** x padded with zeros to per_column*depth inputs; n counts outputs, a multiple of 16. */
    void (*tiles_f32)(const mica_cpu_tiles *t, const mica_cpu_direct *d);
    void (*tiles_bf16)(const mica_cpu_tiles *t, const mica_cpu_direct *d);
    /** NULL, or rows of bf16, MICA_DIRECT_ROWS at most, against 4-bit weights, groups of 32 to MICA_FIXED_GROUP: x is a block of rows that
     * fixed_row wrote, fixed_size bytes, sums among them. They are x to 2^-14 of the sum of a group's magnitudes at worst. */
    void (*tiles_fixed)(const mica_cpu_tiles *t, const mica_cpu_direct *d);
    void (*fixed_row)(const uint16_t *x, size_t k, size_t group, size_t at, void *block); // as row `at`
    size_t (*fixed_size)(size_t k, size_t group);
    size_t fixed_rows;  // products of so many rows go this way; of more, those whose rows are to be as if alone
    size_t fixed_ahead; // bytes of weights it fetches ahead; 0 where the processor foresees them better by itself
    /** NULL, or tiles_bf16 for rows that do not ask to be as if alone, MICA_SHARED_ROWS at most, against 4-bit weights with t->groups 1: x is blocks
     * of ldx rows (MICA_DIRECT_ROWS at most) that shared_pack wrote, shared_size bytes each, sums among them. */
    void (*tiles_shared)(const mica_cpu_tiles *t, const mica_cpu_direct *d);
    void (*shared_pack)(size_t rows, const uint16_t *x, ptrdiff_t ldx, size_t group, size_t first, size_t last, void *block); // groups
    size_t (*shared_size)(size_t k, size_t group);
    size_t shared_inputs; // products of so many inputs and more go this way
    /** Writes planes from codes that are a byte each, or from MLX's 4-bit words: `rows` (at most 16) outputs, `row_bytes` apart, `chunks`
     * whole chunks of each, of which `per_tile` are in a tile. */
    void (*pack_codes)(int bits, const mica_cpu_packing *p);
    void (*pack_nibbles)(const mica_cpu_packing *p);
} mica_cpu_matmul_isa;
#endif
