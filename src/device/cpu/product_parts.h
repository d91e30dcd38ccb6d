// SPDX-License-Identifier: Apache-2.0
// What the drivers of products share: outputs cut into ranges that threads take pieces of.
#ifndef MICA_DEVICE_CPU_PRODUCT_PARTS_H
#define MICA_DEVICE_CPU_PRODUCT_PARTS_H

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
#endif
