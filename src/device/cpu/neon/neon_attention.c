// SPDX-License-Identifier: Apache-2.0
// Attention kernels, level neon: everything packed to f32, register blocks of 6 rows x 2 vectors of 8 lanes (24 registers
// of sums, 4 of keys, 1 or 2 of queries, of 32).
#if defined(__aarch64__)
#include "device/cpu/neon/vec128.h"
#include "device/cpu/isa.h"
#include "device/cpu/vec_math.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { FLASH_ROWS = 6, FLASH_COLUMNS = 2, FLASH_GROUP = 48, FLASH_UNITS = 1, DECODE_ROWS = 4, DECODE_COLUMNS = 2 };
#include "device/cpu/vec_attention_f32.h"

void mica_cpu_neon_attention(mica_cpu_rows_isa *isa) { fill_attention(isa); }
#endif
