// SPDX-License-Identifier: Apache-2.0
// Ranges of outputs that threads take pieces of, and the store of a product's sums. Taking one is a compare and swap: whoever comes late helps with what is left.
#include "device/cpu/product_parts.h"

enum { BLOCK_BYTES = 262144, BLOCK_OUTPUTS = 256, PIECE_BYTES = 16384 };

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

size_t mica_cpu_block_outputs(size_t column_bytes, size_t unit) {
    size_t outs = MICA_MIN(BLOCK_BYTES / (column_bytes + 1) * MICA_TILE_OUTPUTS, (size_t)BLOCK_OUTPUTS);
    return MICA_MAX(outs / unit * unit, unit);
}

size_t mica_cpu_least_piece(size_t column_bytes, size_t unit) {
    return MICA_MAX(PIECE_BYTES * MICA_TILE_OUTPUTS / (column_bytes * unit + 1), (size_t)1);
}

void mica_cpu_store_rows(const mica_cpu_rows_isa *isa, mica_gate gate, const mica_tensor *out, size_t width, size_t row, size_t rows, size_t n0,
                         size_t n, const float *y, size_t ldy) {
    enum { BLOCK = MICA_GATE_BLOCK };
    unsigned char *to = mica_cpu_out_at(gate, out, width, row, n0);
    if (!gate) isa->store_sums[out->dtype](to, width, y, ldy, rows, n);
    else isa->store_gated[gate - MICA_GATE_SWIGLU][out->dtype](to, width / 2, y, y + BLOCK, ldy, 2 * BLOCK, rows, n / (2 * BLOCK));
}
