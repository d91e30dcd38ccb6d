// SPDX-License-Identifier: Apache-2.0
// Products of mixed types with a thin side (op_thin.c): a way of the op "matmul".
#ifndef MICA_DEVICE_CPU_OP_THIN_H
#define MICA_DEVICE_CPU_OP_THIN_H

#include "device/cpu/cpu.h"
#include <stdbool.h>

/** Is this matmul one of them? By shapes, strides and types. */
bool mica_cpu_is_thin(const mica_call *c);
void mica_cpu_thin(const mica_call *c);
size_t mica_cpu_thin_scratch(const mica_call *c);
#endif
