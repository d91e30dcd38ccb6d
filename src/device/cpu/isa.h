// SPDX-License-Identifier: Apache-2.0
// Raw CPU kernels: one table per instruction-set level. ref.c fills every entry; a faster level copies the table of
// the level below and overwrites what it has. All pointers are to contiguous data; bf16/f16 are uint16_t bits; sums are
// f32 (or wider) accumulations in an order that depends on sizes only. No entry allocates or starts threads.
#ifndef MICA_DEVICE_CPU_ISA_H
#define MICA_DEVICE_CPU_ISA_H

#include "mica/dtype.h"
#include <stddef.h>
#include <stdint.h>

// Matrix products; see isa_matmul.h, isa_int8.h.   Rows and attention; see isa_rows.h.
#include "device/cpu/isa_int8.h"
#include "device/cpu/isa_matmul.h"
#include "device/cpu/isa_rows.h"

typedef struct mica_cpu_isa {
    const char *name; // "ref", "avx2", "avx512vnni", "avx512", "amx", "neon"
    mica_cpu_matmul_isa matmul;
    mica_cpu_int8_isa int8;
    mica_cpu_rows_isa rows;
} mica_cpu_isa;

/** Level by name; NULL where the build or this CPU lacks it. */
const mica_cpu_isa *mica_cpu_isa_find(const char *level);
/** Best level of this CPU. */
const mica_cpu_isa *mica_cpu_isa_best(void);
/** The i-th level this CPU has, slowest first ("ref" = 0); NULL past the end. For tests that run every level. */
const mica_cpu_isa *mica_cpu_isa_at(size_t i);

// Each level overwrites what it has; defined in <level>/*.c.
void mica_cpu_ref_matmul(mica_cpu_matmul_isa *isa);
void mica_cpu_ref_int8(mica_cpu_int8_isa *isa);
void mica_cpu_ref_rows(mica_cpu_rows_isa *isa);
#if defined(__x86_64__)
void mica_cpu_avx2_matmul(mica_cpu_matmul_isa *isa);
void mica_cpu_avx2_fixed(mica_cpu_matmul_isa *isa); // rows in fixed point, for mica_cpu_avx2_matmul
void mica_cpu_avx2_int8(mica_cpu_int8_isa *isa);
void mica_cpu_avx2_rows(mica_cpu_rows_isa *isa);
void mica_cpu_avx512vnni_matmul(mica_cpu_matmul_isa *isa);
void mica_cpu_avx512vnni_int8(mica_cpu_int8_isa *isa);
void mica_cpu_avx512vnni_rows(mica_cpu_rows_isa *isa);
void mica_cpu_avx512_matmul(mica_cpu_matmul_isa *isa);
void mica_cpu_avx512_rows(mica_cpu_rows_isa *isa);
void mica_cpu_amx_matmul(mica_cpu_matmul_isa *isa);
void mica_cpu_amx_rows(mica_cpu_rows_isa *isa);
#elif defined(__aarch64__)
void mica_cpu_neon_matmul(mica_cpu_matmul_isa *isa);
void mica_cpu_neon_rows(mica_cpu_rows_isa *isa);
#endif
#endif
