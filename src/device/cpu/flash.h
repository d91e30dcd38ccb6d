// SPDX-License-Identifier: Apache-2.0
// What sdpa and paged_attention share: streaming softmax attention of a few query rows over blocks of MICA_CPU_KEYS
// keys (Dao et al. 2022, "FlashAttention"). The rows of a task are `tokens` consecutive queries times the G query heads
// of one KV head, row = token * G + g, so that a packed block of keys and values serves them all.
#ifndef MICA_DEVICE_CPU_FLASH_H
#define MICA_DEVICE_CPU_FLASH_H

#include "device/cpu/walk.h"

/** Workspace of one thread. */
typedef struct mica_flash_work {
    unsigned char *q, *k, *v; // packed [R], [MICA_CPU_KEYS], [MICA_CPU_KEYS] rows
    float *scores, *bias;     // [R, MICA_CPU_KEYS]
    float *m, *l, *acc;       // [R], [R], [R, Dp]
    int32_t *lo, *hi;         // [R]
    unsigned char *row;       // one unpacked row of Dh elements
} mica_flash_work;

/** Queries a task takes: about 128 rows fill the register blocks and pay for packing the keys, and fit the cache. */
static inline size_t mica_flash_tokens(size_t G) { return G >= 128 ? 1 : MICA_MIN(128 / G, (size_t)64); }

size_t mica_flash_bytes(size_t R, size_t Dh);
mica_flash_work mica_flash_place(unsigned char *scratch, size_t R, size_t Dh);
/** Empties the running maxima, sums and values of R rows. */
void mica_flash_start(const mica_flash_work *w, size_t R, size_t Dh);
/** Adds one packed block; bias: whether w->bias counts. Rows with lo >= hi see nothing. */
void mica_flash_add(const mica_cpu_rows_isa *isa, mica_dtype dtype, const mica_flash_work *w, size_t R, size_t Dh,
                    float scale, bool bias);
/** Row r as Dh elements of dtype; a row that has seen no key gives zeros. */
void mica_flash_finish(const mica_cpu_rows_isa *isa, mica_dtype dtype, const mica_flash_work *w, size_t r, size_t Dh,
                       void *out);
#endif
