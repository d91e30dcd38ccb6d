// SPDX-License-Identifier: Apache-2.0
// How rows of activations in 16-bit fixed point lie (fixed_products.h writes them).
#ifndef MICA_DEVICE_CPU_FIXED_ROWS_H
#define MICA_DEVICE_CPU_FIXED_ROWS_H

#include "base/lines.h"
#include <stddef.h>
#include <stdint.h>

// Bytes [2][k][2] of both terms, then f32 [groups] thrice: units of both terms (the second 0 where there is none), and the sum.
// Eight inputs are 16 bytes: upper ones of 0 4 1 5 2 6 3 7, as the nibbles of a dword lie, then lower ones.
typedef struct fixed_row {
    int8_t *terms[2];
    float *units[2], *sums;
} fixed_row;

static inline size_t fixed_row_size(size_t k, size_t group) { return 4 * k + mica_whole_lines(3 * (k / group) * sizeof(float)); }

static inline fixed_row fixed_row_at(const void *p, size_t k, size_t groups) {
    unsigned char *base = (unsigned char *)p;
    fixed_row r = {.terms = {(int8_t *)base, (int8_t *)base + 2 * k}, .units = {(float *)(void *)(base + 4 * k)}};
    r.units[1] = r.units[0] + groups, r.sums = r.units[1] + groups;
    return r;
}
#endif
