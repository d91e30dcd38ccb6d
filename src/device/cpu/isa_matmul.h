// SPDX-License-Identifier: Apache-2.0
// Raw matmul kernels of one instruction-set level (see isa.h for the rules).
#ifndef MICA_DEVICE_CPU_ISA_MATMUL_H
#define MICA_DEVICE_CPU_ISA_MATMUL_H

#include "mica/dtype.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mica_cpu_matmul_isa {
    int unused; // filled as kernels land
} mica_cpu_matmul_isa;
#endif
