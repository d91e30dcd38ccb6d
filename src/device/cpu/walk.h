// SPDX-License-Identifier: Apache-2.0
// Walks the rows of a call's tensors: op kernels that work along the last axis write one function for one
// contiguous row; strides, odd layouts, tasks and threads are dealt with here. Rows are cut into tasks by their number
// and length alone.
#ifndef MICA_DEVICE_CPU_WALK_H
#define MICA_DEVICE_CPU_WALK_H

#include "device/cpu/cpu.h"
#include "device/cpu/isa.h"

enum { MICA_WALK_INPUTS = 3, MICA_WALK_ALIGN = 64 };

/** y: the row of the output; x: a row of n elements of each walked input; row: its number. */
typedef void mica_walk_fn(void *ctx, void *y, const void *const *x, size_t n, size_t row);

/** Calls fn for every row along the last axis of in[0 … inputs-1], which have one shape. The output must hold rows × k
 * elements for some k, one if the rows are empty. Needs mica_walk_scratch bytes at `scratch`. */
void mica_walk_rows(const mica_call *c, int inputs, unsigned char *scratch, mica_walk_fn *fn, void *ctx);
/** The same where y has the inputs' shape and elements do not depend on each other: rows may be any runs of elements.
 */
void mica_walk_elements(const mica_call *c, int inputs, unsigned char *scratch, mica_walk_fn *fn, void *ctx);
/** Scratch bytes for walking in[0 … inputs-1]: none unless a last axis has gaps. */
size_t mica_walk_scratch(const mica_call *c, int inputs);

/** Runs fn(ctx, first, end, thread) over [0, count) in tasks of at least `grain` items. */
typedef void mica_range_fn(void *ctx, size_t first, size_t end, size_t thread);
void mica_walk_range(const mica_call *c, size_t count, size_t grain, mica_range_fn *fn, void *ctx);

size_t mica_walk_count(const mica_tensor *t);
/** Bytes from the first element to element (index of the first ndim - inner dims in row-major order, 0, …). */
ptrdiff_t mica_walk_offset(const mica_tensor *t, int inner, size_t row);
/** Copies n elements, `stride` elements apart, to contiguous memory. */
void mica_walk_gather(void *to, const void *from, ptrdiff_t stride, size_t n, size_t size);

static inline size_t mica_walk_round(size_t bytes) {
    return (bytes + MICA_WALK_ALIGN - 1) & ~(size_t)(MICA_WALK_ALIGN - 1);
}
#endif
