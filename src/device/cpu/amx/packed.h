// SPDX-License-Identifier: Apache-2.0
// Direct products of packed weights on AMX: the field tiles_bf16 of mica_cpu_matmul_isa.
#ifndef MICA_DEVICE_CPU_AMX_PACKED_H
#define MICA_DEVICE_CPU_AMX_PACKED_H

#include "device/cpu/isa_matmul.h"

/** Up to 32 rows, packed (mica_cpu_panels.pack), unless t->groups is 2. */
void mica_cpu_amx_tiles_bf16(const mica_cpu_tiles *t, const mica_cpu_direct *d);
#endif
