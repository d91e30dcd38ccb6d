// SPDX-License-Identifier: Apache-2.0
// The product behind linear_packed where params.packed.int8 is set: x is rounded to 8 bits, group by group (isa_int8.h).
#ifndef MICA_DEVICE_CPU_PRODUCT_INT8_H
#define MICA_DEVICE_CPU_PRODUCT_INT8_H

#include "device/device.h"

/** As mica_cpu_product of packed weights. */
void mica_cpu_product_int8(const mica_call *c);
size_t mica_cpu_product_int8_scratch(const mica_call *c);
#endif
