// SPDX-License-Identifier: Apache-2.0
// Row kernels, level amx: those of avx512, but for prefill attention in bf16 (amx_attention.c).
#if defined(__x86_64__)
#include "device/cpu/isa.h"

void mica_cpu_amx_rows(mica_cpu_rows_isa *isa) { mica_cpu_amx_attention(isa); }
#endif
