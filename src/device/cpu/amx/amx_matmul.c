// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level amx.
#if defined(__x86_64__)
#include "device/cpu/isa.h"

void mica_cpu_amx_matmul(mica_cpu_matmul_isa *isa) { (void)isa; }
#endif
