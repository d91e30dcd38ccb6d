// SPDX-License-Identifier: Apache-2.0
// Direct products of packed weights on AMX, up to 32 rows. For sixteen outputs, a few tiles at a time: codes become bf16 pairs
// (exact, avx512/codes.h) in a buffer in the first-level cache, AMX multiplies them with the rows of x, and the sums of each group
// leave the tile registers to be scaled in f32. Decoding first and multiplying afterwards keeps tile loads away from
// stores that are still on their way.
#if defined(__x86_64__)
#include "device/cpu/amx/packed.h"
#include "device/cpu/amx/tile.h"
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512/codes.h"
#include <stdbool.h>

enum {
    CHUNKS = 8,         // chunks of a stage: 256 inputs
    CHUNK_BYTES = 1024, // 16 pairs × 16 outputs in bf16: one AMX tile
    ROWS = 16,          // of an AMX tile
    AHEAD = 4096,
};

typedef struct stage {
    _Alignas(64) unsigned char codes[2 * CHUNKS][CHUNK_BYTES]; // 8 bits: low nibbles, then high ones
    _Alignas(64) float sums[CHUNKS][2 * ROWS][16];             // of each group, per row of x
    _Alignas(64) float y[2 * ROWS][16];
} stage;

V16_INLINE void decode(const int bits, const mica_cpu_tiles *t, const unsigned char *tile, size_t tiles, const tables table, stage *s) {
    unsigned char *to = s->codes[0];
    for (size_t i = 0; i < tiles; i++, tile += t->bytes) {
        _mm_prefetch((const char *)tile + AHEAD + t->codes, _MM_HINT_T0);
        for (size_t c = 0; c < t->depth / MICA_TILE_CHUNK; c++, to += CHUNK_BYTES) {
            const unsigned char *chunk = tile + c * (size_t)bits * 64;
#pragma GCC unroll 8
            for (int l = 0; l < bits; l++) _mm_prefetch((const char *)chunk + AHEAD + l * 64, _MM_HINT_T0);
#pragma GCC unroll 16
            for (int p = 0; p < TILE_PAIRS; p++) {
                _mm512_store_si512(to + p * 64, pair_codes(bits, chunk, p, table));
                if (bits == 8) _mm512_store_si512(to + CHUNKS * CHUNK_BYTES + p * 64, pair_upper(chunk, p, table));
            }
        }
    }
}

// Sums of group g, `chunks` chunks long, into s->sums[g]; even and odd groups use tile registers of their own. c0, c1: sums of
// the upper and lower rows; 4, 5: rows of x; 6: codes.
#define GROUP_SUMS(c0, c1)                                                                                             \
    do {                                                                                                               \
        TILE_ZERO(c0);                                                                                            \
        if (lower) TILE_ZERO(c1);                                                                                 \
        for (size_t c = 0; c < chunks; c++) {                                                                          \
            const unsigned char *a = x + (g * chunks + c) * MICA_TILE_CHUNK * 2, *w = s->codes[g * chunks + c];        \
            TILE_LOAD(4, a, x_bytes);                                                                             \
            if (lower) TILE_LOAD(5, a + ROWS * x_bytes, x_bytes);                                                 \
            for (int plane = 0; plane < planes; plane++, w += CHUNKS * CHUNK_BYTES) {                                  \
                TILE_LOAD(6, w, 64);                                                                              \
                TILE_MULTIPLY(c0, 4, 6);                                                                          \
                if (lower) TILE_MULTIPLY(c1, 5, 6);                                                               \
            }                                                                                                          \
        }                                                                                                              \
        TILE_STORE(c0, s->sums[g][0], 64);                                                                        \
        if (lower) TILE_STORE(c1, s->sums[g][ROWS], 64);                                                          \
    } while (0)

V16_INLINE void multiply(const bool lower, const int planes, size_t groups, size_t chunks, const unsigned char *x, ptrdiff_t x_bytes,
                         stage *s) {
    for (size_t g = 0; g < groups; g++) {
        GROUP_SUMS(0, 1);
        if (++g == groups) break;
        GROUP_SUMS(2, 3);
    }
}

// y += scale * sum + bias * (sum of x), group by group.
V16_INLINE void scale(const mica_cpu_tiles *t, const unsigned char *tile, size_t groups, size_t rows, const float *sums, size_t lds, stage *s) {
    for (size_t g = 0; g < groups; g++, tile += t->bytes) {
        v16 factor = tile_scale(t, tile, 0), bias = tile_scale(t, tile, 1);
        for (size_t r = 0; r < rows; r++) {
            v16 y = _mm512_fmadd_ps(v16_load(s->sums[g][r]), factor, v16_load(s->y[r]));
            v16_store(s->y[r], _mm512_fmadd_ps(v16_set1(sums[r * lds + g]), bias, y));
        }
    }
}

V16_INLINE void columns(const int bits, const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    const tables table = tables_of(bits);
    const size_t chunks = t->depth / MICA_TILE_CHUNK, step = CHUNKS / chunks;
    const ptrdiff_t x_bytes = d->ldx * 2;
    stage s;
    for (size_t n = 0; n < d->n; n += MICA_TILE_OUTPUTS) {
        const unsigned char *tile = d->w + n / MICA_TILE_OUTPUTS * t->per_column * t->bytes;
        for (size_t r = 0; r < d->m; r++) v16_store(s.y[r], v16_zero());
        for (size_t g = 0; g < t->per_column; g += step, tile += step * t->bytes) {
            size_t groups = t->per_column - g < step ? t->per_column - g : step;
            const unsigned char *x = (const unsigned char *)d->x + g * t->depth * 2;
            decode(bits, t, tile, groups, table, &s);
            if (d->m > ROWS) multiply(true, 1 + (bits == 8), groups, chunks, x, x_bytes, &s);
            else multiply(false, 1 + (bits == 8), groups, chunks, x, x_bytes, &s);
            scale(t, tile, groups, d->m, d->sums + g, d->lds, &s);
        }
        for (size_t r = 0; r < d->m; r++) v16_store(d->y + r * d->ldy + n, v16_load(s.y[r]));
    }
}

static void shape_tiles(size_t rows) {
    tile_config c = {.palette = 1};
    size_t upper = rows < ROWS ? rows : ROWS, lower = rows - upper;
    for (int tile = 0; tile < 4; tile++) tile_shape(&c, tile, tile % 2 ? lower : upper, 64);
    tile_shape(&c, 4, upper, 64);
    tile_shape(&c, 5, lower, 64);
    tile_shape(&c, 6, ROWS, 64);
    tile_configure(&c);
}

// The avx512 level's kernel, eight rows at a time.
static void by_avx512(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    for (size_t i = 0; i < d->m; i += MICA_DIRECT_ROWS) {
        mica_cpu_direct part = *d;
        part.m = d->m - i < MICA_DIRECT_ROWS ? d->m - i : MICA_DIRECT_ROWS;
        part.x = (const uint16_t *)d->x + (ptrdiff_t)i * d->ldx, part.sums = d->sums + i * d->lds, part.y = d->y + i * d->ldy;
        mica_cpu_avx512_tiles_bf16(t, &part);
    }
}

void mica_cpu_amx_tiles_bf16(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    // A single row: 5.4 ms against 8.2. Two groups in a chunk: tiles would be half empty.
    if (d->m == 1 || d->rows_alone || t->groups > 1) {
        by_avx512(t, d);
        return;
    }
    shape_tiles(d->m);
    switch (t->bits) {
    case 2: columns(2, t, d); break;
    case 3: columns(3, t, d); break;
    case 4: columns(4, t, d); break;
    case 5: columns(5, t, d); break;
    case 6: columns(6, t, d); break;
    default: columns(8, t, d); break;
    }
    tile_release();
}
#endif
