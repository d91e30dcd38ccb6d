// SPDX-License-Identifier: Apache-2.0
// Direct products of packed weights on AMX, up to 32 rows. A tile of weights passes three stages: its codes become bf16 pairs
// (exact, avx512/codes.h) in the first-level cache; AMX multiplies them with the rows of x; the sums of the group leave the
// tile registers and are scaled in f32. Each stage works LAG tiles behind the one before, because tile registers are neither
// loaded from stores that are still on their way, nor stored soon after they are multiplied: so nothing waits, and the vector
// units decode and scale while AMX multiplies.
#if defined(__x86_64__)
#include "device/cpu/amx/packed.h"
#include "device/cpu/amx/tile.h"
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512/codes.h"
#include <stdbool.h>

enum {
    LAG = 3,            // about the instructions that a core has in flight: 512, of which a tile takes 150 (8 rows) to 300 (32)
    RING = LAG + 1,     // places of the tiles between two stages
    MOST_CHUNKS = 4,    // of a tile: groups of 128
    CHUNK_BYTES = 1024, // 16 pairs × 16 outputs in bf16: one AMX tile
    ROWS = 16,          // of an AMX tile
    AHEAD = 4096,
};

typedef struct ring {
    _Alignas(64) unsigned char codes[RING][2 * MOST_CHUNKS][CHUNK_BYTES]; // 8 bits: the upper nibbles follow the lower
    _Alignas(64) float sums[RING][2 * ROWS][16];
    _Alignas(64) float y[2 * ROWS][16];
} ring;

// What a stage knows: the tile whose turn it is, and its place along the inputs.
typedef struct stage {
    const unsigned char *tile;
    size_t at, group;
} stage;

V16_INLINE void advance(stage *s, const mica_cpu_tiles *t) {
    s->tile += t->bytes, s->at = (s->at + 1) % RING;
    if (++s->group == t->per_column) s->group = 0;
}

V16_INLINE void decode(const int bits, const size_t chunks, const mica_cpu_tiles *t, stage *s, const tables table, ring *r) {
    unsigned char *to = r->codes[s->at][0];
    const unsigned char *chunk = s->tile;
    _mm_prefetch((const char *)s->tile + AHEAD + t->codes, _MM_HINT_T0);
    for (size_t c = 0; c < chunks; c++, to += CHUNK_BYTES, chunk += (size_t)bits * 64) {
#pragma GCC unroll 8
        for (int l = 0; l < bits; l++) _mm_prefetch((const char *)chunk + AHEAD + l * 64, _MM_HINT_T0);
#pragma GCC unroll 16
        for (int p = 0; p < TILE_PAIRS; p++) {
            _mm512_store_si512(to + p * 64, pair_codes(bits, chunk, p, table));
            if (bits == 8) _mm512_store_si512(to + MOST_CHUNKS * CHUNK_BYTES + p * 64, pair_upper(chunk, p, table));
        }
    }
    advance(s, t);
}

// Sums of a group; even and odd groups use tile registers of their own. c0, c1: sums of the upper and lower rows; 4, 5: rows
// of x; 6, 7: codes.
#define GROUP_SUMS(c0, c1)                                                                                             \
    do {                                                                                                               \
        TILE_ZERO(c0);                                                                                                 \
        if (lower) TILE_ZERO(c1);                                                                                      \
        for (size_t c = 0; c < chunks; c++, x += MICA_TILE_CHUNK * 2, w += CHUNK_BYTES) {                              \
            TILE_LOAD(6, w, 64);                                                                                       \
            TILE_LOAD(4, x, x_bytes);                                                                                  \
            TILE_MULTIPLY(c0, 4, 6);                                                                                   \
            if (lower) TILE_LOAD(5, x + ROWS * x_bytes, x_bytes);                                                      \
            if (lower) TILE_MULTIPLY(c1, 5, 6);                                                                        \
            if (!upper) continue;                                                                                      \
            TILE_LOAD(7, w + MOST_CHUNKS * CHUNK_BYTES, 64);                                                           \
            TILE_MULTIPLY(c0, 4, 7);                                                                                   \
            if (lower) TILE_MULTIPLY(c1, 5, 7);                                                                        \
        }                                                                                                              \
        TILE_STORE(c0, r->sums[s->at][0], 64);                                                                         \
        if (lower) TILE_STORE(c1, r->sums[s->at][ROWS], 64);                                                           \
    } while (0)

V16_INLINE void multiply(const bool lower, const bool upper, const size_t chunks, const mica_cpu_tiles *t, const mica_cpu_direct *d,
                         stage *s, ring *r) {
    const unsigned char *x = (const unsigned char *)d->x + s->group * t->depth * 2, *w = r->codes[s->at][0];
    const ptrdiff_t x_bytes = d->ldx * 2;
    if (s->at % 2) GROUP_SUMS(2, 3);
    else GROUP_SUMS(0, 1);
    advance(s, t);
}

// y += scale * sum + bias * (sum of x); the last group of a column writes its outputs.
V16_INLINE void scale(const mica_cpu_tiles *t, const mica_cpu_direct *d, stage *s, ring *r, float **out) {
    v16 factor = tile_scale(t, s->tile, 0), bias = tile_scale(t, s->tile, 1);
    const float *sums = d->sums + s->group;
    const bool first = !s->group, last = s->group + 1 == t->per_column;
    for (size_t i = 0; i < d->m; i++) {
        v16 y = _mm512_fmadd_ps(v16_load(r->sums[s->at][i]), factor, first ? v16_zero() : v16_load(r->y[i]));
        y = _mm512_fmadd_ps(v16_set1(sums[i * d->lds]), bias, y);
        v16_store(last ? *out + i * d->ldy : r->y[i], y);
    }
    if (last) *out += MICA_TILE_OUTPUTS;
    advance(s, t);
}

V16_INLINE void columns(const int bits, const bool lower, const size_t chunks, const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    const tables table = tables_of(bits);
    const size_t tiles = d->n / MICA_TILE_OUTPUTS * t->per_column;
    stage decoded = {.tile = d->w}, multiplied = decoded, scaled = decoded;
    float *out = d->y;
    ring r;
    for (size_t i = 0; i < tiles + 2 * LAG; i++) {
        if (i < tiles) decode(bits, chunks, t, &decoded, table, &r);
        if (i >= LAG && i < tiles + LAG) multiply(lower, bits == 8, chunks, t, d, &multiplied, &r);
        if (i >= 2 * LAG) scale(t, d, &scaled, &r, &out);
    }
}

static void shape_tiles(size_t rows) {
    tile_config c = {.palette = 1};
    size_t upper = rows < ROWS ? rows : ROWS, lower = rows - upper;
    for (int tile = 0; tile < 4; tile++) tile_shape(&c, tile, tile % 2 ? lower : upper, 64);
    tile_shape(&c, 4, upper, 64);
    tile_shape(&c, 5, lower, 64);
    tile_shape(&c, 6, ROWS, 64);
    tile_shape(&c, 7, ROWS, 64);
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

// Groups of 64, the usual size, have bodies of their own.
#define TILE_BITS(bits)                                                                                                \
    static void tiles_##bits(const mica_cpu_tiles *t, const mica_cpu_direct *d) {                                      \
        size_t chunks = t->depth / MICA_TILE_CHUNK;                                                                    \
        if (chunks == 2 && d->m > ROWS) columns(bits, true, 2, t, d);                                                  \
        else if (chunks == 2) columns(bits, false, 2, t, d);                                                           \
        else if (d->m > ROWS) columns(bits, true, chunks, t, d);                                                       \
        else columns(bits, false, chunks, t, d);                                                                       \
    }
TILE_BITS(2)
TILE_BITS(3)
TILE_BITS(4)
TILE_BITS(5)
TILE_BITS(6)
TILE_BITS(8)

void mica_cpu_amx_tiles_bf16(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    static void (*const run[9])(const mica_cpu_tiles *, const mica_cpu_direct *) = {
        [2] = tiles_2, [3] = tiles_3, [4] = tiles_4, [5] = tiles_5, [6] = tiles_6, [8] = tiles_8};
    // A single row: 5.4 ms against 8.2. Two groups in a chunk: tiles would be half empty.
    if (d->m == 1 || d->rows_alone || t->groups > 1) {
        by_avx512(t, d);
        return;
    }
    shape_tiles(d->m);
    run[t->bits](t, d);
    tile_release();
}
#endif
