// SPDX-License-Identifier: Apache-2.0
// Elementwise op kernels: a function of contiguous elements, applied to tensors of any layout by many threads.
// Blocks of strided inputs are gathered first; f16 and bf16 may be widened to f32 around the function, rounding once.
#ifndef MICA_DEVICE_CPU_MAP_H
#define MICA_DEVICE_CPU_MAP_H

#include "device/cpu/cpu.h"
#include "device/cpu/isa.h"
#include "device/cpu/view.h"

typedef void mica_cpu_ternary_fn(void *y, const void *a, const void *b, const void *c, size_t n);

/** What to apply: exactly one function is set. y may be the memory of an input, never a shifted part of it. */
typedef struct mica_cpu_map {
    mica_cpu_unary_fn *unary;
    mica_cpu_binary_fn *binary;
    mica_cpu_ternary_fn *ternary;
    bool widen;  // the function computes in f32 where a tensor is f16 or bf16
    bool costly; // about 10 ns an element or more: cut smaller tasks
} mica_cpu_map;
/** out = f(in[0], …), all inputs of the output's shape. */
void mica_cpu_map_run(const mica_call *c, const mica_cpu_map *map);

static inline bool mica_cpu_is_half(mica_dtype t) { return t == MICA_F16 || t == MICA_BF16; }
#endif
