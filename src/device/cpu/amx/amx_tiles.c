// SPDX-License-Identifier: Apache-2.0
// Direct products of packed weights on AMX, up to 32 rows, two tile columns (32 outputs) at a time, so that rows of x meet both.
// A pair of tiles of weights passes three stages: its codes become bf16 pairs (exact, avx512/codes.h) in the first-level cache; AMX
// multiplies them with the rows of x; the sums of the group leave the tile registers and are scaled in f32. Each stage works one
// pair behind the one before, because tile registers are neither loaded from stores that are still on their way, nor stored soon
// after they are multiplied: so nothing waits, and the vector units decode and scale while AMX multiplies. A row's result
// does not depend on the other rows.
#if defined(__x86_64__)
#include "device/cpu/amx/packed.h"
#include "device/cpu/amx/tile.h"
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512/codes.h"
#include <stdbool.h>

enum {
    SLOTS = 2,          // pairs of tiles between two stages; more of them crowd the first-level cache
    COLUMNS = 2,        // tile columns at a time
    MOST_CHUNKS = 4,    // of a tile: groups of 128
    CHUNK_BYTES = 1024, // 16 pairs × 16 outputs in bf16: one AMX tile
    ROWS = 16,          // of an AMX tile
    X_BYTES = 2 * CHUNK_BYTES, // of a chunk's 32 packed rows
    AHEAD = 5120, // bytes of a column, into the second level (32 rows: 2 to 10 % faster than 2560 into the first)
};

typedef struct ring {
    _Alignas(64) unsigned char codes[SLOTS * COLUMNS * 2 * MOST_CHUNKS * CHUNK_BYTES]; // used from the start, without gaps
    _Alignas(64) float sums[SLOTS][COLUMNS][2 * ROWS][16];
    _Alignas(64) float y[COLUMNS][2 * ROWS][16];
} ring;

// What is the same for all tiles of a product. Loops have a copy of their own, which the compiler keeps in registers across assembler.
typedef struct shape {
    mica_cpu_tiles t;
    mica_cpu_direct d;
    size_t column_bytes, tile_codes; // of weights; of a tile decoded
    ring *r;
} shape;

V16_INLINE unsigned char *codes_at(const shape *p, size_t slot, size_t column) {
    return p->r->codes + (slot * COLUMNS + column) * p->tile_codes;
}

V16_INLINE void decode_tile(const int bits, const size_t chunks, const shape *p, const unsigned char *tile, size_t ahead, const tables table, unsigned char *to) {
    _mm_prefetch((const char *)tile + ahead + p->t.codes, _MM_HINT_T1);
    for (size_t c = 0; c < chunks; c++, to += CHUNK_BYTES, tile += (size_t)bits * 64) {
#pragma GCC unroll 8
        for (int l = 0; l < bits; l++) _mm_prefetch((const char *)tile + ahead + l * 64, _MM_HINT_T1);
#pragma GCC unroll 16
        for (int i = 0; i < TILE_PAIRS; i++) {
            _mm512_store_si512(to + i * 64, pair_codes(bits, tile, i, table));
            if (bits == 8) _mm512_store_si512(to + chunks * CHUNK_BYTES + i * 64, pair_upper(tile, i, table));
        }
    }
}

V16_INLINE void decode(const int bits, const int columns, const size_t chunks, const shape *p, amx_stage *s, const tables table) {
    const size_t ahead = mica_cpu_amx_ahead(AHEAD, (p->t.per_column - s->group) * p->t.bytes, (size_t)(columns - 1) * p->column_bytes);
    for (int j = 0; j < columns; j++)
        decode_tile(bits, chunks, p, s->tile + (size_t)j * p->column_bytes, ahead, table, codes_at(p, s->slot, (size_t)j));
    amx_advance(s, &p->t, (size_t)(columns - 1) * p->column_bytes);
}

// Sixteen rows of the pair. Tiles 0, 1: sums of both columns; 2: rows of x; 3: codes. Few tiles in use, operands zeroed after their last
// use: see amx_matmul.c. 8 bits: the upper nibbles follow the lower.
V16_INLINE void multiply_rows(const int bits, const int columns, const size_t chunks, const unsigned char *x, const unsigned char *w,
                              const unsigned char *v, float *left, float *right) {
    TILE_ZERO(0);
    if (columns == 2) TILE_ZERO(1);
    for (size_t c = 0; c < chunks; c++, x += X_BYTES, w += CHUNK_BYTES, v += CHUNK_BYTES) {
        TILE_LOAD(2, x, 64);
        for (size_t at = 0; at < (bits == 8 ? 2 : 1) * chunks * CHUNK_BYTES; at += chunks * CHUNK_BYTES) {
            TILE_LOAD(3, w + at, 64);
            TILE_MULTIPLY(0, 2, 3);
            TILE_ZERO(3);
            if (columns < 2) continue;
            TILE_LOAD(3, v + at, 64);
            TILE_MULTIPLY(1, 2, 3);
            TILE_ZERO(3);
        }
        TILE_ZERO(2);
    }
    TILE_STORE(0, left, 64);
    if (columns == 2) TILE_STORE(1, right, 64);
}

V16_INLINE void multiply(const int bits, const int columns, const bool lower, const size_t chunks, const shape *p, amx_stage *s) {
    const unsigned char *x = (const unsigned char *)p->d.x + s->group * chunks * X_BYTES;
    const unsigned char *w = codes_at(p, s->slot, 0), *v = codes_at(p, s->slot, 1);
    float(*sums)[2 * ROWS][16] = p->r->sums[s->slot];
    multiply_rows(bits, columns, chunks, x, w, v, sums[0][0], sums[1][0]);
    if (lower) multiply_rows(bits, columns, chunks, x + CHUNK_BYTES, w, v, sums[0][ROWS], sums[1][ROWS]);
    amx_advance(s, &p->t, (size_t)(columns - 1) * p->column_bytes);
}

// to = y (0 if NULL) + scale * sum + bias * (sum of x).
V16_INLINE void scale_rows(size_t rows, const float (*sums)[16], const float (*y)[16], const float *xs, size_t lds, v16 factor, v16 bias, float *to, size_t step) {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
        v16 sum = _mm512_fmadd_ps(v16_load(sums[i]), factor, y ? v16_load(y[i]) : v16_zero());
        v16_store(to + i * step, _mm512_fmadd_ps(v16_set1(xs[i * lds]), bias, sum));
    }
}

// The last group of a column writes its outputs.
V16_INLINE void scale(const int columns, const shape *p, amx_stage *s, float **out) {
    const mica_cpu_direct *d = &p->d;
    const float *xs = d->sums + s->group;
    const bool last = s->group + 1 == p->t.per_column;
    for (size_t j = 0; j < (size_t)columns; j++) {
        const unsigned char *tile = s->tile + j * p->column_bytes;
        const float(*sums)[16] = (const float(*)[16])p->r->sums[s->slot][j], (*y)[16] = (const float(*)[16])p->r->y[j];
        v16 factor = tile_scale(&p->t, tile, 0), bias = tile_scale(&p->t, tile, 1);
        if (last) scale_rows(d->m, sums, s->group ? y : NULL, xs, d->lds, factor, bias, *out + j * MICA_TILE_OUTPUTS, d->ldy);
        else if (!s->group) scale_rows(d->m, sums, NULL, xs, d->lds, factor, bias, p->r->y[j][0], 16);
        else if (d->m == 2 * ROWS) scale_rows(2 * ROWS, sums, y, xs, d->lds, factor, bias, p->r->y[j][0], 16);
        else scale_rows(d->m, sums, y, xs, d->lds, factor, bias, p->r->y[j][0], 16);
    }
    if (last) *out += columns * MICA_TILE_OUTPUTS;
    amx_advance(s, &p->t, (size_t)(columns - 1) * p->column_bytes);
}

// Outputs from tile column `first` on, `count` times `columns` columns.
V16_INLINE void run(const int bits, const int columns, const bool lower, const size_t chunks, const shape *shared, size_t first, size_t count) {
    const shape own = *shared, *p = &own;
    const tables table = tables_of(bits);
    const size_t pairs = count * p->t.per_column;
    amx_stage decoded = {.tile = p->d.w + first * p->column_bytes}, multiplied = decoded, scaled = decoded;
    float *out = p->d.y + first * MICA_TILE_OUTPUTS;
    if (!pairs) return;
    for (size_t i = 0; i < pairs + 2; i++) {
        if (i < pairs) decode(bits, columns, chunks, p, &decoded, table);
        if (i && i <= pairs) multiply(bits, columns, lower, chunks, p, &multiplied);
        if (i >= 2) scale(columns, p, &scaled, &out);
    }
}

V16_INLINE void all_columns(const int bits, const bool lower, const size_t chunks, const shape *p) {
    size_t columns = p->d.n / MICA_TILE_OUTPUTS;
    run(bits, 2, lower, chunks, p, 0, columns / 2);
    run(bits, 1, lower, chunks, p, columns / 2 * 2, columns % 2);
}

// Of more than 16 rows 32 are computed, the last ones from whatever lies there, and not used.
static void shape_tiles(size_t rows) {
    tile_config c = {.palette = 1};
    for (int tile = 0; tile < 3; tile++) tile_shape(&c, tile, rows < ROWS ? rows : ROWS, 64);
    tile_shape(&c, 3, ROWS, 64);
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
    static void tiles_##bits(const shape *p) {                                                                         \
        size_t chunks = p->t.depth / MICA_TILE_CHUNK;                                                                 \
        if (chunks == 2 && p->d.m > ROWS) all_columns(bits, true, 2, p);                                              \
        else if (chunks == 2) all_columns(bits, false, 2, p);                                                          \
        else if (p->d.m > ROWS) all_columns(bits, true, chunks, p);                                                   \
        else all_columns(bits, false, chunks, p);                                                                      \
    }
TILE_BITS(2)
TILE_BITS(3)
TILE_BITS(4)
TILE_BITS(5)
TILE_BITS(6)
TILE_BITS(8)

void mica_cpu_amx_tiles_bf16(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    static void (*const by_bits[9])(const shape *) = {[2] = tiles_2, [3] = tiles_3, [4] = tiles_4, [5] = tiles_5, [6] = tiles_6, [8] = tiles_8};
    if (t->groups > 1) { // two groups in a chunk: tiles would be half empty
        by_avx512(t, d);
        return;
    }
    ring r;
    size_t chunks = t->depth / MICA_TILE_CHUNK;
    shape p = {.t = *t, .d = *d, .column_bytes = t->per_column * t->bytes, .tile_codes = (t->bits == 8 ? 2 : 1) * chunks * CHUNK_BYTES, .r = &r};
    shape_tiles(d->m);
    by_bits[t->bits](&p);
    tile_release();
}
#endif
