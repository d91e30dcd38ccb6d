// SPDX-License-Identifier: Apache-2.0
// Plain packing of dense panels: any strides, any alignment. Faster levels call it for layouts they have no vector
// form of.
#ifndef MICA_DEVICE_CPU_REF_MATMUL_H
#define MICA_DEVICE_CPU_REF_MATMUL_H

#include "mica/dtype.h"
#include <stddef.h>

void mica_cpu_ref_panel_dense_f32(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k,
                                  size_t columns, void *panel);
void mica_cpu_ref_panel_dense_bf16(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k,
                                   size_t columns, void *panel);
#endif
