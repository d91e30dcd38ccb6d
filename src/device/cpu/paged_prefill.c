// SPDX-License-Identifier: Apache-2.0
// Attention of many tokens over pages (see paged.h): blocks of queries against packed blocks of keys (flash.h).
#include "device/cpu/flash.h"
#include "device/cpu/paged.h"
#include <math.h>
#include <string.h>

// After flash's own memory: a row (paged.h), and a block of codes made floats of the model's type.
static size_t flash_bytes(const mica_paged *k) { return mica_walk_round(mica_flash_bytes(k->tokens * k->G, k->Dh)); }

size_t mica_paged_prefill_bytes(const mica_paged *k) {
    size_t row = mica_walk_round(2 * k->Dh * sizeof(float));
    return flash_bytes(k) + row + (k->codes ? mica_walk_round(MICA_CPU_KEYS * k->Dh * k->size) : 0);
}

// n rows of a half from a slot on, in the model's type: as they lie, or made from codes in `made`.
static const void *rows_of(const mica_paged *k, unsigned char *half, size_t slot, size_t n, float *row,
                           unsigned char *made) {
    if (!k->codes) return half + slot * k->row;
    for (size_t j = 0; j < n; j++) {
        const int8_t *codes = (const int8_t *)(half + (slot + j) * k->row);
        k->isa->from_codes(row, codes, mica_paged_scales(k, half)[slot + j], k->Dh);
        k->isa->from_f32[k->dtype](made + j * k->Dh * k->size, row, k->Dh);
    }
    return made;
}

// Packs keys and values at positions [from, end) of the block that begins at `first` and marks absent pages in the
// bias; returns whether there are any.
static bool pack_block(const mica_paged *k, const mica_paged_part *s, size_t kv, size_t first, size_t from, size_t end,
                       size_t R, const mica_flash_work *w, float *row) {
    bool holes = false;
    size_t bytes = MICA_CPU_KEYS * mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype];
    unsigned char *made = (unsigned char *)row + mica_walk_round(2 * k->Dh * sizeof(float));
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
        const void *keys = rows_of(k, mica_paged_half(k, page, kv, 0), p % k->P, n, row, made);
        k->isa->pack_keys[k->dtype](w->k, keys, (ptrdiff_t)k->Dh, p - first, n, k->Dh);
        const void *values = rows_of(k, mica_paged_half(k, page, kv, 1), p % k->P, n, row, made);
        k->isa->pack_values[k->dtype](w->v, values, (ptrdiff_t)k->Dh, p - first, n, k->Dh);
    }
    return holes;
}

static void pack_query(const mica_paged *k, void *packed, const void *x) { k->isa->pack_query[k->dtype](packed, x, k->Dh); }

void mica_paged_prefill(const mica_paged *k, const mica_paged_part *s, size_t kv, size_t block, unsigned char *scratch) {
    size_t first = block * k->tokens, tokens = MICA_MIN(k->tokens, s->n - first), R = tokens * k->G;
    mica_flash_work w = mica_flash_place(scratch, k->tokens * k->G, k->Dh);
    unsigned char *q = w.q;
    float *row = (float *)(void *)(scratch + flash_bytes(k));
    size_t packed = mica_cpu_head_pad(k->Dh) * k->isa->pack_size[k->dtype];
    for (size_t t = 0; t < tokens; t++)
        q = mica_paged_pack_queries(k, pack_query, packed, s->start + first + t, kv, q, row);
    mica_flash_start(&w, R, k->Dh);
    size_t seen = mica_paged_first_seen(k, mica_paged_position(s, first));
    size_t end = mica_paged_position(s, first + tokens - 1) + 1;
    for (size_t p = seen / MICA_CPU_KEYS * MICA_CPU_KEYS; p < end; p += MICA_CPU_KEYS) {
        size_t n = MICA_MIN(end - p, (size_t)MICA_CPU_KEYS);
        for (size_t t = 0, r = 0; t < tokens; t++) {
            size_t position = mica_paged_position(s, first + t), lo = mica_paged_first_seen(k, position);
            int32_t from = (int32_t)MICA_MIN(lo > p ? lo - p : 0, n), to = (int32_t)MICA_MIN(position + 1 > p ? position + 1 - p : 0, n);
            for (size_t g = 0; g < k->G; g++, r++) w.lo[r] = from, w.hi[r] = to;
        }
        // Positions before the first query's window may be gone from the cache, and nobody looks at them.
        size_t from = MICA_MAX(p, seen);
        bool holes = pack_block(k, s, kv, p, from, p + n, R, &w, row);
        mica_flash_add(k->isa, k->dtype, &w, R, k->Dh, k->scale, holes);
    }
    for (size_t r = 0; r < R; r++) {
        size_t at = (s->start + first + r / k->G) * k->H + kv * k->G + r % k->G;
        mica_flash_finish(k->isa, k->dtype, &w, r, k->Dh, k->out + at * k->Dh * k->size);
    }
}
