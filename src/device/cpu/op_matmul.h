// SPDX-License-Identifier: Apache-2.0
// Op kernels of matrix products and quantisation, and the device hooks for packed weights; device.c puts them
// into the CPU device.
#ifndef MICA_DEVICE_CPU_OP_MATMUL_H
#define MICA_DEVICE_CPU_OP_MATMUL_H

#include "device/device.h"

extern const mica_kernel mica_cpu_matmul_kernels[]; // matmul, quantized_matmul, linear_packed
extern const size_t mica_cpu_matmul_kernel_count;
extern const mica_kernel mica_cpu_quant_kernels[]; // quantize_*, dequantize, take_packed
extern const size_t mica_cpu_quant_kernel_count;

/** Hooks of mica_device: see device.h. 0 for modes that have no packed form (all but affine). */
size_t mica_cpu_packed_size(mica_device *d, const mica_params *params);
void mica_cpu_pack_parts(mica_device *d, mica_pack_part *parts, size_t count);
void mica_cpu_pack(mica_device *d, const mica_params *params, const void *w, const void *scales, const void *biases,
                   void *packed);
#endif
