// SPDX-License-Identifier: Apache-2.0
// What the drivers of products share: outputs cut into ranges that threads take pieces of, and the store of sums.
#ifndef MICA_DEVICE_CPU_PRODUCT_PARTS_H
#define MICA_DEVICE_CPU_PRODUCT_PARTS_H

#include "device/cpu/isa.h"
#include "device/device.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

// Work that reads weights once is cut into one range of outputs a thread, so that weights are read in long streams (small pieces that
// alternate between two threads cost a fifth of the bandwidth). A thread takes pieces from the front of its own range, smaller ones
// towards the end, and then helps with the others' ranges: all end together, also when a thread is late. Outputs are independent
// of each other, so here the cut may follow the number of threads.
typedef struct mica_cpu_range {
    _Alignas(64) _Atomic size_t next; // in units of outputs
    size_t end;
} mica_cpu_range;

/** All `units` as `count` ranges. */
void mica_cpu_cut_ranges(mica_cpu_range *ranges, size_t count, size_t units);
/** Takes units [*from, *to) from the front of a range: a quarter of what is left, but from `least` to `most`, and not across a
 * multiple of `period`. False if nothing is left. */
bool mica_cpu_take_piece(mica_cpu_range *range, size_t least, size_t most, size_t period, size_t *from, size_t *to);

// Both by the bytes of 16 outputs' weights; outputs are cut at multiples of `unit`.
/** Outputs that all rows pass over at once: their weights stay in the second-level cache. */
size_t mica_cpu_block_outputs(size_t column_bytes, size_t unit);
/** Units of a piece at least: half a microsecond of reading. */
size_t mica_cpu_least_piece(size_t column_bytes, size_t unit);

/** The sums of a few rows, y [rows][ldy], n outputs from output n0 of row `row` on, to the result `out` [..., width], or through its gate
 * [..., width/2]. */
void mica_cpu_store_rows(const mica_cpu_rows_isa *isa, mica_gate gate, const mica_tensor *out, size_t width, size_t row, size_t rows, size_t n0,
                         size_t n, const float *y, size_t ldy);
/** Where output n0 of row `row` goes. */
static inline unsigned char *mica_cpu_out_at(mica_gate gate, const mica_tensor *out, size_t width, size_t row, size_t n0) {
    return out->data + (row * width + n0) / (gate ? 2 : 1) * mica_dtype_size(out->dtype);
}
#endif
