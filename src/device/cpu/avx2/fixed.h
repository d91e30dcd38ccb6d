// SPDX-License-Identifier: Apache-2.0
// Products in 16-bit fixed point of level avx2: fields of mica_cpu_matmul_isa.
#ifndef MICA_DEVICE_CPU_AVX2_FIXED_H
#define MICA_DEVICE_CPU_AVX2_FIXED_H

#include "device/cpu/isa_matmul.h"

size_t mica_cpu_avx2_fixed_size(size_t k, size_t group);
void mica_cpu_avx2_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block);
void mica_cpu_avx2_tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d);
#endif
