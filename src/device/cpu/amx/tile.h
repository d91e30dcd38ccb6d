// SPDX-License-Identifier: Apache-2.0
// AMX tiles in assembler of our own: GCC 12's intrinsics tell the compiler too little of the memory that tiles read and
// write, and it drops stores before them. A tile has up to 16 rows of 64 bytes; tile_multiply adds, for row i and column j,
// the products of the bf16 pairs of a's row i with those of column j of b.
#ifndef MICA_DEVICE_CPU_TILE_H
#define MICA_DEVICE_CPU_TILE_H

#include <stddef.h>
#include <stdint.h>

typedef struct tile_config { // as ldtilecfg reads it
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/** Shape of one tile register; rows 0 leaves it unused. */
static inline void tile_shape(tile_config *c, int tile, size_t rows, size_t row_bytes) {
    c->rows[tile] = (uint8_t)rows, c->row_bytes[tile] = (uint16_t)(rows ? row_bytes : 0);
}

static inline void tile_configure(const tile_config *c) { __asm__ volatile("ldtilecfg %0" : : "m"(*c) : "memory"); }
static inline void tile_release(void) { __asm__ volatile("tilerelease" : : : "memory"); }
#define TILE_LOAD(t, p, bytes)                                                                                         \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"((ptrdiff_t)(bytes)) : "memory")
// The same, past the first-level cache where the tile is not there yet: for operands that stream by.
#define TILE_STREAM(t, p, bytes)                                                                                       \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"(p), "r"((ptrdiff_t)(bytes)) : "memory")
#define TILE_STORE(t, p, bytes)                                                                                        \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"((ptrdiff_t)(bytes)) : "memory")
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")
// The same of signed bytes of a and unsigned ones of b, four of them along the inputs, to 32-bit integers.
#define TILE_MULTIPLY_BYTES(c, a, b) __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
#define TILE_MULTIPLY(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")
#endif
