// SPDX-License-Identifier: Apache-2.0
// The CPU device itself: its memory, its threads, the level of its raw kernels and the table of its op kernels, put
// together from the families.
#include "device/cpu/cpu.h"
#include "device/cpu/isa.h"
#include "device/cpu/op_matmul.h"
#include "device/cpu/rows_kernels.h"
#include <stdlib.h>
#include <string.h>

static void *memory_new(mica_device *d, size_t size) {
    (void)d;
    return mica_alloc_pages(size);
}

static void memory_free(mica_device *d, void *data, size_t size) {
    (void)d;
    mica_free_pages(data, size);
}

static void *memory_reserve(mica_device *d, size_t size) {
    (void)d;
    return mica_reserve_pages(size);
}

static void memory_unreserve(mica_device *d, void *data, size_t size) {
    (void)d;
    mica_unreserve_pages(data, size);
}

static bool memory_commit(mica_device *d, void *data, size_t size) {
    (void)d;
    return mica_commit_pages(data, size);
}

static void memory_decommit(mica_device *d, void *data, size_t size) {
    (void)d;
    mica_decommit_pages(data, size);
}

static void copy(mica_device *d, void *to, const void *from, size_t size) {
    (void)d;
    if (size) memcpy(to, from, size);
}

static void close_device(mica_device *d) {
    mica_cpu_device *cpu = (mica_cpu_device *)(void *)d;
    mica_pool_free(cpu->pool);
    mica_free(cpu);
}

static bool fail_level(const char *level, mica_error *err) {
    char have[100] = "";
    for (size_t i = 0; mica_cpu_isa_at(i); i++) {
        if (i) strncat(have, ", ", sizeof have - strlen(have) - 1);
        strncat(have, mica_cpu_isa_at(i)->name, sizeof have - strlen(have) - 1);
    }
    return mica_fail(err, MICA_ERR_ARGUMENT, "cpu: no level \"%.40s\" here; this CPU has %s", level, have);
}

static const mica_cpu_isa *find_isa(const char *level, mica_error *err) {
    if (!level) level = getenv("MICA_CPU");
    if (!level || !*level) return mica_cpu_isa_best();
    const mica_cpu_isa *isa = mica_cpu_isa_find(level);
    if (!isa) fail_level(level, err);
    return isa;
}

// All families in one table behind the device struct.
static const struct { const mica_kernel *kernels; const size_t *count; } families[] = {
    {mica_cpu_map_kernels, &mica_cpu_map_kernel_count},       {mica_cpu_reduce_kernels, &mica_cpu_reduce_kernel_count},
    {mica_cpu_sort_kernels, &mica_cpu_sort_kernel_count},     {mica_cpu_index_kernels, &mica_cpu_index_kernel_count},
    {mica_cpu_source_kernels, &mica_cpu_source_kernel_count}, {mica_cpu_rows_kernels, &mica_cpu_rows_kernel_count},
    {mica_cpu_matmul_kernels, &mica_cpu_matmul_kernel_count}, {mica_cpu_quant_kernels, &mica_cpu_quant_kernel_count},
};

static size_t kernel_total(void) {
    size_t n = 0;
    for (size_t i = 0; i < MICA_COUNT(families); i++) n += *families[i].count;
    return n;
}

static void fill_kernels(mica_kernel *to) {
    for (size_t i = 0; i < MICA_COUNT(families); i++)
        for (size_t k = 0; k < *families[i].count; k++) *to++ = families[i].kernels[k];
}

mica_device *mica_cpu_open(size_t threads, const char *level, mica_error *err) {
    const mica_cpu_isa *isa = find_isa(level, err);
    if (!isa) return NULL;
    size_t count = kernel_total(), size = sizeof(mica_cpu_device) + count * sizeof(mica_kernel);
    mica_cpu_device *cpu = mica_calloc(1, size);
    mica_pool *pool = cpu ? mica_pool_new(threads) : NULL;
    if (!pool) {
        mica_free(cpu);
        mica_fail_memory(err, size, "the cpu device");
        return NULL;
    }
    mica_kernel *kernels = (mica_kernel *)(void *)(cpu + 1);
    fill_kernels(kernels);
    *cpu = (mica_cpu_device){
        .device = {.name = "cpu", .level = isa->name, .kernels = kernels, .kernel_count = count,
                   .packed_size = mica_cpu_packed_size, .pack_parts = mica_cpu_pack_parts, .pack = mica_cpu_pack,
                   .pack_rows = MICA_TILE_OUTPUTS, .memory_new = memory_new, .memory_free = memory_free,
                   .memory_reserve = memory_reserve, .memory_unreserve = memory_unreserve,
                   .memory_commit = memory_commit, .memory_decommit = memory_decommit, .copy_in = copy,
                   .copy_out = copy, .copy = copy, .close = close_device},
        .pool = pool, .isa = isa};
    return &cpu->device;
}
