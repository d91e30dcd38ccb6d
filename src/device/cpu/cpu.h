// SPDX-License-Identifier: Apache-2.0
// The CPU device. Kernels come in two layers:
//   * raw kernels (isa.h): pure functions on contiguous rows, one table per instruction-set level, filled with plain C
//     (ref) and overwritten by avx2, avx512vnni, avx512, amx or neon, chosen at run time (MICA_CPU forces a level);
//   * op kernels (op_*.c): take a mica_call, deal with strides, types and threads, and call the raw kernels.
// Work is cut into tasks by shape alone, so results do not depend on the number of threads.
#ifndef MICA_DEVICE_CPU_H
#define MICA_DEVICE_CPU_H

#include "base/thread.h"
#include "device/device.h"

struct mica_cpu_isa;

typedef struct mica_cpu_device {
    mica_device device; // first: a mica_device * of the CPU is one of these
    mica_pool *pool;
    const struct mica_cpu_isa *isa;
} mica_cpu_device;

/** threads 0 = all CPUs of the process; level NULL = $MICA_CPU, else the best this CPU has. Unknown or unavailable
 * levels fail, naming those available. */
mica_device *mica_cpu_open(size_t threads, const char *level, mica_error *err);

// The op kernels, by family; the device's table is all of them in a row.
extern const mica_kernel mica_cpu_map_kernels[], mica_cpu_reduce_kernels[], mica_cpu_sort_kernels[], mica_cpu_index_kernels[],
    mica_cpu_source_kernels[];
extern const size_t mica_cpu_map_kernel_count, mica_cpu_reduce_kernel_count, mica_cpu_sort_kernel_count,
    mica_cpu_index_kernel_count, mica_cpu_source_kernel_count;

static inline mica_pool *mica_cpu_pool(const mica_call *c) { return ((mica_cpu_device *)c->device)->pool; }
static inline const struct mica_cpu_isa *mica_cpu_isa_of(const mica_call *c) { return ((mica_cpu_device *)c->device)->isa; }
#endif
