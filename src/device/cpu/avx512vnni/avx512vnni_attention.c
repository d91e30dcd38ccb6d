// SPDX-License-Identifier: Apache-2.0
// Attention kernels, level avx512vnni: everything packed to f32. Register blocks of 6 rows x 4 vectors: 24 sums, 4 keys,
// 1 query.
#if defined(__x86_64__)
#include "device/cpu/avx512vnni/vec512.h"
#include "device/cpu/isa.h"
#include "device/cpu/vec_math.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { FLASH_ROWS = 6, FLASH_COLUMNS = 4, FLASH_GROUP = 48, FLASH_UNITS = 1, DECODE_ROWS = 4, DECODE_COLUMNS = 4 };
#include "device/cpu/vec_attention_f32.h"

void mica_cpu_avx512vnni_attention(mica_cpu_rows_isa *isa) { fill_attention(isa); }
#endif
