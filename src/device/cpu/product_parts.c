// SPDX-License-Identifier: Apache-2.0
// Ranges of outputs that threads take pieces of. Taking one is a compare and swap: whoever comes late helps with what is left.
#include "device/cpu/product_parts.h"
#include "base/base.h"

void mica_cpu_cut_ranges(mica_cpu_range *ranges, size_t count, size_t units) {
    for (size_t i = 0; i < count; i++) {
        atomic_init(&ranges[i].next, units * i / count);
        ranges[i].end = units * (i + 1) / count;
    }
}

bool mica_cpu_take_piece(mica_cpu_range *r, size_t least, size_t most, size_t period, size_t *from, size_t *to) {
    size_t at = atomic_load_explicit(&r->next, memory_order_relaxed), n;
    do {
        if (at >= r->end) return false;
        n = MICA_MIN(MICA_MIN(MICA_MAX((r->end - at) / 4, least), most), r->end - at);
        n = MICA_MIN(n, period - at % period);
    } while (!atomic_compare_exchange_weak_explicit(&r->next, &at, at + n, memory_order_relaxed, memory_order_relaxed));
    *from = at, *to = at + n;
    return true;
}
