// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level avx2.
#if defined(__x86_64__)
#include "device/cpu/isa.h"

void mica_cpu_avx2_matmul(mica_cpu_matmul_isa *isa) { (void)isa; }
#endif
