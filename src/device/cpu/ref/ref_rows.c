// SPDX-License-Identifier: Apache-2.0
// rows kernels, level ref.
#include "device/cpu/isa.h"

void mica_cpu_ref_rows(mica_cpu_rows_isa *isa) { (void)isa; }
