// SPDX-License-Identifier: Apache-2.0
// rows kernels, level amx.
#if defined(__x86_64__)
#include "device/cpu/isa.h"

void mica_cpu_amx_rows(mica_cpu_rows_isa *isa) { (void)isa; }
#endif
