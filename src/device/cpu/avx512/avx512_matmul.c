// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level avx512.
#if defined(__x86_64__)
#include "device/cpu/isa.h"

void mica_cpu_avx512_matmul(mica_cpu_matmul_isa *isa) { (void)isa; }
#endif
