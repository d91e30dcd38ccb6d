// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level ref.
#include "device/cpu/isa.h"

void mica_cpu_ref_matmul(mica_cpu_matmul_isa *isa) { (void)isa; }
