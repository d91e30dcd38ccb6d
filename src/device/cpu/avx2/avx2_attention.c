// SPDX-License-Identifier: Apache-2.0
// Attention kernels, level avx2: everything packed to f32, register blocks of 6 rows x 2 vectors (12 sums, 2 keys, 1
// query).
#if defined(__x86_64__)
#include "device/cpu/avx2/vec256.h"
#include "device/cpu/isa.h"
#include "device/cpu/vec_math.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { FLASH_ROWS = 6, FLASH_COLUMNS = 2, FLASH_GROUP = 48, FLASH_UNITS = 1, DECODE_ROWS = 4, DECODE_COLUMNS = 2 };
#include "device/cpu/vec_attention_f32.h"

void mica_cpu_avx2_attention(mica_cpu_rows_isa *isa) { fill_attention(isa); }
#endif
