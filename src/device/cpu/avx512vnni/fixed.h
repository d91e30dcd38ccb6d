// SPDX-License-Identifier: Apache-2.0
// Rows of activations in 16-bit fixed point (avx512vnni_fixed.c), as the avx512vnni and amx levels lay them out.
#ifndef MICA_DEVICE_CPU_AVX512VNNI_FIXED_H
#define MICA_DEVICE_CPU_AVX512VNNI_FIXED_H

#include "device/cpu/avx512vnni/v16.h"
#include "device/cpu/isa_matmul.h"
#include "device/cpu/tiles.h"

// Bytes [2][k][2] of both terms, then f32 [groups] thrice: units of both terms (the second 0 where there is none), and the sum.
// Eight inputs are 16 bytes: upper ones of 0 4 1 5 2 6 3 7, as the nibbles of a dword lie, then lower ones.
typedef struct fixed_row {
    int8_t *terms[2];
    float *units[2], *sums;
} fixed_row;

static inline size_t fixed_row_size(size_t k, size_t group) { return 4 * k + (3 * (k / group) * sizeof(float) + 63) / 64 * 64; }

static inline fixed_row fixed_row_at(const void *p, size_t k, size_t groups) {
    unsigned char *base = (unsigned char *)p;
    fixed_row r = {.terms = {(int8_t *)base, (int8_t *)base + 2 * k}, .units = {(float *)(void *)(base + 4 * k)}};
    r.units[1] = r.units[0] + groups, r.sums = r.units[1] + groups;
    return r;
}

/** Fields of mica_cpu_matmul_isa. */
size_t mica_cpu_avx512vnni_fixed_size(size_t k, size_t group);
void mica_cpu_avx512vnni_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block);
void mica_cpu_avx512vnni_tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d);
/** y and the second term of group g, which is rare. */
v16 mica_cpu_avx512vnni_fixed_second(const mica_cpu_tiles *t, const unsigned char *tile, fixed_row r, size_t g, v16 scale, v16 y);
#endif
