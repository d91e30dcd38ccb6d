// SPDX-License-Identifier: Apache-2.0
// Strided tensors read and written in logical order. A view is a run of a tensor's dimensions with neighbours merged
// where memory allows it; reading gives contiguous blocks, without a copy where the elements already lie so. With it
// every kernel can be a plain loop over contiguous memory.
#ifndef MICA_DEVICE_CPU_VIEW_H
#define MICA_DEVICE_CPU_VIEW_H

#include "base/thread.h"
#include "device/device.h"

enum {
    MICA_CPU_BLOCK = 512,        // elements read at a time: a few blocks fit the first-level cache
    MICA_CPU_BLOCK_BYTES = MICA_CPU_BLOCK * 8,
    MICA_CPU_CHUNK = 32768,      // elements of a task of cheap work: some 10 µs, well above the cost of handing it out
    MICA_CPU_CHUNK_COSTLY = 4096 // of work around 10 ns an element
};

typedef struct mica_cpu_view {
    unsigned char *data;
    size_t item; // bytes of an element
    int ndim;    // after merging; at least 1
    int64_t shape[MICA_MAX_DIMS], stride[MICA_MAX_DIMS]; // stride in bytes
    int64_t size; // elements
} mica_cpu_view;

/** Dimensions first … last-1 of t, at index 0 of the others. */
mica_cpu_view mica_cpu_view_dims(const mica_tensor *t, int first, int last);
static inline mica_cpu_view mica_cpu_view_of(const mica_tensor *t) { return mica_cpu_view_dims(t, 0, t->ndim); }
/** Byte offset of the element at a logical position. */
int64_t mica_cpu_offset(const mica_cpu_view *v, int64_t at);
/** Byte offsets of n elements from a logical position on. */
void mica_cpu_offsets(const mica_cpu_view *v, int64_t at, size_t n, int64_t *offsets);
/** n elements from `at` on, contiguous: in place if they lie so, else copied to buffer. `shift` bytes are added to the
 * view's address (for a view of one row of many). */
const void *mica_cpu_read(const mica_cpu_view *v, int64_t shift, int64_t at, size_t n, void *buffer);
/** to = from, element by element in logical order; equal sizes and element sizes; disjoint memory. */
void mica_cpu_copy(mica_pool *pool, const mica_cpu_view *to, const mica_cpu_view *from);

/** n indices from `at` on as 0 … axis-1; negative ones of signed types count from the end; -1 = out of range. */
void mica_cpu_read_indices(const mica_cpu_view *v, mica_dtype dtype, int64_t at, size_t n, int64_t axis, int64_t *out);

static inline int64_t mica_tensor_size(const mica_tensor *t) {
    int64_t n = 1;
    for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
    return n;
}
static inline size_t mica_chunks(int64_t size, int64_t chunk) { return (size_t)((size + chunk - 1) / chunk); }
#endif
