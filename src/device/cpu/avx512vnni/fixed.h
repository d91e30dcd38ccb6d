// SPDX-License-Identifier: Apache-2.0
// Products in 16-bit fixed point of level avx512vnni, which level amx builds on.
#ifndef MICA_DEVICE_CPU_AVX512VNNI_FIXED_H
#define MICA_DEVICE_CPU_AVX512VNNI_FIXED_H

#include "device/cpu/avx512vnni/v16.h"
#include "device/cpu/fixed_rows.h"
#include "device/cpu/isa_matmul.h"

/** Fields of mica_cpu_matmul_isa. */
size_t mica_cpu_avx512vnni_fixed_size(size_t k, size_t group);
void mica_cpu_avx512vnni_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block);
void mica_cpu_avx512vnni_tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d);
/** y and the second term of group g, which is rare. */
v16 mica_cpu_avx512vnni_fixed_second(const mica_cpu_tiles *t, const unsigned char *tile, fixed_row r, size_t g, v16 scale, v16 y);
#endif
