// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level neon: everything in f32 with FMA; bf16 and f16 are widened as they are loaded.
#if defined(__aarch64__)
#include "device/cpu/isa.h"
#include "device/cpu/neon/v16.h"

#define F32_ROWS 6
#define F32_VECTORS 1
#include "device/cpu/f32_products.h"

void mica_cpu_neon_matmul(mica_cpu_matmul_isa *isa) {
    fill_f32(isa);
}
#endif
