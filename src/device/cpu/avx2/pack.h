// SPDX-License-Identifier: Apache-2.0
// Packing of weights into tiles, level avx2; called where a level's table is filled.
#ifndef MICA_DEVICE_CPU_AVX2_PACK_H
#define MICA_DEVICE_CPU_AVX2_PACK_H

#include "device/cpu/isa_matmul.h"

void mica_cpu_avx2_pack_codes(int bits, const mica_cpu_packing *p);
void mica_cpu_avx2_pack_nibbles(const mica_cpu_packing *p);
#endif
