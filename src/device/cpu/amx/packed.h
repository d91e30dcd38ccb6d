// SPDX-License-Identifier: Apache-2.0
// Direct products of packed weights on AMX: fields of mica_cpu_matmul_isa.
#ifndef MICA_DEVICE_CPU_AMX_PACKED_H
#define MICA_DEVICE_CPU_AMX_PACKED_H

#include "device/cpu/isa_matmul.h"

/** Where to prefetch, from the tile at hand on, so that it comes `bytes` later in the order in which columns are read together: `left` bytes
 * of this column are to come, `skip` bytes of others lie between it and its next one. */
static inline size_t mica_cpu_amx_ahead(size_t bytes, size_t left, size_t skip) { return bytes < left ? bytes : bytes + skip; }

#define AMX_USUALLY(condition) __builtin_expect(condition, true)

// What a stage of a direct product knows: the first of the tiles (side by side in a few columns) whose turn it is, its place along the inputs,
// and its slot between two stages.
typedef struct amx_stage {
    const unsigned char *tile;
    size_t slot, group;
} amx_stage;

/** To the next tiles; at the end of a column, past `skip` bytes of the others. */
static inline void amx_advance(amx_stage *s, const mica_cpu_tiles *t, size_t skip) {
    s->tile += t->bytes, s->slot ^= 1;
    if (++s->group < t->per_column) return;
    s->group = 0, s->tile += skip;
}

/** Up to 32 rows, packed (mica_cpu_panels.pack), unless t->groups is 2. */
void mica_cpu_amx_tiles_bf16(const mica_cpu_tiles *t, const mica_cpu_direct *d);
/** Rows in fixed point: the fields of mica_cpu_matmul_isa. */
void mica_cpu_amx_tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d);
void mica_cpu_amx_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block);
size_t mica_cpu_amx_fixed_size(size_t k, size_t group);
#endif
