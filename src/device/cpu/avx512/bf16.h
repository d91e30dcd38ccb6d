// SPDX-License-Identifier: Apache-2.0
// bf16 products with AVX512-BF16: fields of mica_cpu_matmul_isa and mica_cpu_panels (isa_matmul.h). The panels serve the AMX
// level too, at its own number of columns.
#ifndef MICA_DEVICE_CPU_AVX512_BF16_H
#define MICA_DEVICE_CPU_AVX512_BF16_H

#include "device/cpu/isa_matmul.h"

/** 48 columns. */
void mica_cpu_avx512_gemm_bf16(size_t m, size_t k, const void *a, ptrdiff_t lda, const void *panel, float *c, bool first, bool again);
void mica_cpu_avx512_gemm_out_bf16(const mica_cpu_gemm *g);
void mica_cpu_avx512_panel_dense_bf16(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k,
                                      size_t columns, void *panel);
void mica_cpu_avx512_panel_tiles_bf16(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t k0, size_t k,
                                      size_t columns, void *panel);
void mica_cpu_avx512_panel_tiles_back_bf16(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t n, size_t k0, size_t k,
                                           size_t columns, void *panel);
void mica_cpu_avx512_dot_bf16(mica_dtype type, const mica_cpu_direct *d);
void mica_cpu_avx512_tiles_bf16(const mica_cpu_tiles *t, const mica_cpu_direct *d);
void mica_cpu_avx512_tiles_shared(const mica_cpu_tiles *t, const mica_cpu_direct *d);
void mica_cpu_avx512_shared_pack(size_t rows, const uint16_t *x, ptrdiff_t ldx, size_t group, size_t first, size_t last, void *block);
size_t mica_cpu_avx512_shared_size(size_t k, size_t group);
#endif
