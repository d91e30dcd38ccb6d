// SPDX-License-Identifier: Apache-2.0
// Attention of many tokens over pages (see paged.h): blocks of queries against packed blocks of keys (flash.h).
#include "device/cpu/flash.h"
#include "device/cpu/paged.h"
#include <math.h>
#include <string.h>

size_t mica_paged_prefill_bytes(const mica_paged *k) { return mica_flash_bytes(k->tokens * k->G, k->Dh); }

// Packs keys and values at positions [from, end) of the block that begins at `first` and marks absent pages in the
// bias; returns whether there are any.
static bool pack_block(const mica_paged *k, const mica_paged_part *s, size_t kv, size_t first, size_t from, size_t end,
                       size_t R, const mica_flash_work *w) {
    bool holes = false;
    size_t bytes = MICA_CPU_KEYS * mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype], row = k->Dh * k->size;
    for (size_t p = from; p < end; p += mica_paged_run(k, p, end)) holes = holes || mica_paged_page(k, s->b, p) < 0;
    if (holes || end - from < MICA_CPU_KEYS) memset(w->k, 0, bytes), memset(w->v, 0, bytes);
    if (holes) memset(w->bias, 0, R * MICA_CPU_KEYS * sizeof(float));
    for (size_t p = from, n; p < end; p += n) {
        n = mica_paged_run(k, p, end);
        int32_t page = mica_paged_page(k, s->b, p);
        if (page < 0) {
            for (size_t r = 0; r < R; r++)
                for (size_t j = 0; j < n; j++) w->bias[r * MICA_CPU_KEYS + p - first + j] = -INFINITY;
            continue;
        }
        const unsigned char *keys = mica_paged_half(k, page, kv, 0) + p % k->P * row;
        const unsigned char *values = mica_paged_half(k, page, kv, 1) + p % k->P * row;
        k->isa->pack_keys[k->dtype](w->k, keys, (ptrdiff_t)k->Dh, p - first, n, k->Dh);
        k->isa->pack_values[k->dtype](w->v, values, (ptrdiff_t)k->Dh, p - first, n, k->Dh);
    }
    return holes;
}

void mica_paged_prefill(const mica_paged *k, const mica_paged_part *s, size_t kv, size_t block, unsigned char *scratch) {
    size_t first = block * k->tokens, tokens = MICA_MIN(k->tokens, s->n - first), R = tokens * k->G;
    mica_flash_work w = mica_flash_place(scratch, k->tokens * k->G, k->Dh);
    unsigned char *q = w.q;
    for (size_t t = 0; t < tokens; t++) q = mica_paged_pack_queries(k, s->start + first + t, kv, q, w.row);
    mica_flash_start(&w, R, k->Dh);
    size_t seen = mica_paged_first_seen(k, mica_paged_position(s, first));
    size_t end = mica_paged_position(s, first + tokens - 1) + 1;
    for (size_t p = seen / MICA_CPU_KEYS * MICA_CPU_KEYS; p < end; p += MICA_CPU_KEYS) {
        size_t n = MICA_MIN(end - p, (size_t)MICA_CPU_KEYS);
        for (size_t r = 0; r < R; r++) {
            size_t position = mica_paged_position(s, first + r / k->G), lo = mica_paged_first_seen(k, position);
            w.lo[r] = (int32_t)MICA_MIN(lo > p ? lo - p : 0, n);
            w.hi[r] = (int32_t)MICA_MIN(position + 1 > p ? position + 1 - p : 0, n);
        }
        // Positions before the first query's window may be gone from the cache, and nobody looks at them.
        size_t from = MICA_MAX(p, seen);
        bool holes = pack_block(k, s, kv, p, from, p + n, R, &w);
        mica_flash_add(k->isa, k->dtype, &w, R, k->Dh, k->scale, holes);
    }
    for (size_t r = 0; r < R; r++) {
        size_t row = (s->start + first + r / k->G) * k->H + kv * k->G + r % k->G;
        mica_flash_finish(k->isa, k->dtype, &w, r, k->Dh, k->out + row * k->Dh * k->size);
    }
}
