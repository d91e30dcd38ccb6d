// SPDX-License-Identifier: Apache-2.0
// A few rows in 16-bit fixed point (avx512vnni_fixed.c) against 4-bit weights on AMX: one tile holds the upper bytes of up to eight rows and
// their lower bytes, so that one product of tiles serves 64 inputs of all of them and 16 outputs. Stages as in amx_tiles.c: nibbles
// become bytes in the first-level cache; AMX multiplies; sums are put together and scaled. One or two rows take the kernel of level
// avx512vnni: the same bits, and less work.
#if defined(__x86_64__)
#include "device/cpu/amx/packed.h"
#include "device/cpu/amx/tile.h"
#include "device/cpu/avx512vnni/fixed.h"
#include <stdbool.h>

enum {
    ROWS = MICA_DIRECT_ROWS,
    CHUNK = MICA_TILE_CHUNK,
    STEP = 64,           // inputs of a product of tiles
    TILE_BYTES = 1024,
    COLUMNS = 2,         // tile columns at a time
    MOST_STEPS = MICA_FIXED_GROUP / STEP,
    AHEAD = 2560,        // bytes of a column
    ALONE = 2,           // rows up to which the kernel of level avx512vnni is faster
};

// ---- rows -------------------------------------------------------------------------------------------------
// A block: eight rows as at level avx512vnni; then for each group and STEP inputs of it a tile, upper bytes of all rows before the lower ones;
// then the rows' units, side by side for each group.
typedef struct group_units { float first[ROWS], second[ROWS], sums[ROWS], unused[ROWS]; } group_units;

static size_t steps_of(size_t group) { return (group + STEP - 1) / STEP; }
static unsigned char *tiles_at(const void *block, size_t k, size_t group) {
    return (unsigned char *)block + mica_cpu_avx512vnni_fixed_size(k, group);
}

static group_units *units_at(const void *block, size_t k, size_t group) {
    return (group_units *)(void *)(tiles_at(block, k, group) + k / group * steps_of(group) * TILE_BYTES);
}

size_t mica_cpu_amx_fixed_size(size_t k, size_t group) {
    return mica_cpu_avx512vnni_fixed_size(k, group) + k / group * (steps_of(group) * TILE_BYTES + sizeof(group_units));
}

void mica_cpu_amx_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block) {
    mica_cpu_avx512vnni_fixed_row(x, k, group, at, block);
    const fixed_row row = fixed_row_at((char *)block + at * fixed_row_size(k, group), k, k / group);
    const int8_t *from = row.terms[0];
    group_units *units = units_at(block, k, group);
    unsigned char *to = tiles_at(block, k, group) + at * STEP;
    const __m512i uppers = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), lowers = _mm512_add_epi64(uppers, _mm512_set1_epi64(1));
    for (size_t g = 0; g < k / group; g++) {
        units[g].first[at] = row.units[0][g], units[g].second[at] = row.units[1][g], units[g].sums[at] = row.sums[g];
        for (size_t i = 0; i < group; i += STEP, to += TILE_BYTES) {
            bool whole = group - i >= STEP;
            __m512i a = _mm512_loadu_si512(from), b = whole ? _mm512_loadu_si512(from + 64) : _mm512_setzero_si512();
            _mm512_storeu_si512(to, _mm512_permutex2var_epi64(a, uppers, b));
            _mm512_storeu_si512(to + ROWS * STEP, _mm512_permutex2var_epi64(a, lowers, b));
            from += whole ? 128 : 64;
        }
    }
}

// ---- products ------------------------------------------------------------------------------------------------
typedef struct ring {
    _Alignas(64) unsigned char codes[2][COLUMNS][MOST_STEPS * TILE_BYTES];
    _Alignas(64) int32_t sums[2][COLUMNS][2 * ROWS][16];
} ring;

typedef struct shape { // what is the same for all tiles of a product
    const mica_cpu_tiles *t;
    const mica_cpu_direct *d;
    const unsigned char *x; // tiles
    const group_units *units;
    size_t column_bytes;
    ring *r;
} shape;

V16_INLINE void decode(const int columns, const size_t chunks, const shape *p, amx_stage *s) {
    const __m512i low = _mm512_set1_epi8(0x0F);
    const size_t ahead = mica_cpu_amx_ahead(AHEAD, (p->t->per_column - s->group) * p->t->bytes, (size_t)(columns - 1) * p->column_bytes);
    for (int j = 0; j < columns; j++) {
        const unsigned char *tile = s->tile + (size_t)j * p->column_bytes;
        unsigned char *to = p->r->codes[s->slot][j];
        _mm_prefetch((const char *)tile + ahead + p->t->codes, _MM_HINT_T0);
#pragma GCC unroll 8
        for (size_t v = 0; v < chunks * 4; v++, tile += 64, to += 128) {
            _mm_prefetch((const char *)tile + ahead, _MM_HINT_T0);
            __m512i w = _mm512_loadu_si512(tile);
            _mm512_store_si512(to, _mm512_and_si512(w, low));
            _mm512_store_si512(to + 64, _mm512_and_si512(_mm512_srli_epi16(w, 4), low));
        }
    }
    amx_advance(s, p->t, (size_t)(columns - 1) * p->column_bytes);
}

// Tiles 0, 1: sums of both columns; 2: rows; 3: codes. Few tiles in use, operands zeroed after their last use: see amx_matmul.c.
V16_INLINE void multiply(const int columns, const size_t steps, const shape *p, amx_stage *s) {
    const unsigned char *x = p->x + s->group * steps * TILE_BYTES, *w = p->r->codes[s->slot][0], *v = p->r->codes[s->slot][1];
    TILE_ZERO(0);
    if (columns == 2) TILE_ZERO(1);
    for (size_t i = 0; i < steps; i++, x += TILE_BYTES, w += TILE_BYTES, v += TILE_BYTES) {
        TILE_LOAD(2, x, STEP);
        TILE_LOAD(3, w, 64);
        TILE_MULTIPLY_BYTES(0, 2, 3);
        TILE_ZERO(3);
        if (columns == 2) {
            TILE_LOAD(3, v, 64);
            TILE_MULTIPLY_BYTES(1, 2, 3);
            TILE_ZERO(3);
        }
        TILE_ZERO(2);
    }
    TILE_STORE(0, p->r->sums[s->slot][0], 64);
    if (columns == 2) TILE_STORE(1, p->r->sums[s->slot][1], 64);
    amx_advance(s, p->t, (size_t)(columns - 1) * p->column_bytes);
}

__attribute__((noinline)) static v16 second_term(const shape *p, const unsigned char *tile, size_t row, size_t group, v16 factor, v16 y) {
    const fixed_row r = fixed_row_at((const char *)p->d->x + row * fixed_row_size(p->d->k, p->t->depth), p->d->k, p->t->per_column);
    return mica_cpu_avx512vnni_fixed_second(p->t, tile, r, group, factor, y);
}

// As add_units and what follows it in avx512vnni_fixed.c, to the bit; the last group of a column writes its outputs.
V16_INLINE void scale(const int rows, const int columns, const shape *p, amx_stage *s, float **out, v16 y[COLUMNS][ROWS]) {
    const mica_cpu_tiles *t = p->t;
    const group_units *u = p->units + s->group;
    const bool seconds = _mm256_cmp_ps_mask(_mm256_loadu_ps(u->second), _mm256_setzero_ps(), _CMP_NEQ_UQ) & ((1u << rows) - 1);
    for (int j = 0; j < columns; j++) {
        const unsigned char *tile = s->tile + (size_t)j * p->column_bytes;
        const int32_t(*sums)[16] = (const int32_t(*)[16])p->r->sums[s->slot][j];
        v16 factor = v16_load_as(t->scale_dtype, tile + t->codes), bias = v16_load_as(t->scale_dtype, tile + t->codes + t->scales);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            v16i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(sums[r]), 8), _mm512_load_si512(sums[ROWS + r]));
            y[j][r] = v16_fma(_mm512_cvtepi32_ps(sum), v16_mul(factor, v16_set1(u->first[r])), y[j][r]);
            y[j][r] = v16_fma(bias, v16_set1(u->sums[r]), y[j][r]);
        }
        if (__builtin_expect(!seconds, true)) continue;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            if (u->second[r] != 0) y[j][r] = second_term(p, tile, (size_t)r, s->group, factor, y[j][r]);
    }
    if (s->group + 1 == t->per_column) {
        for (int j = 0; j < columns; j++, *out += MICA_TILE_OUTPUTS)
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) v16_store(*out + (size_t)r * p->d->ldy, y[j][r]), y[j][r] = v16_zero();
    }
    amx_advance(s, p->t, (size_t)(columns - 1) * p->column_bytes);
}

// Outputs from tile column `first` on, `count` times `columns` columns. Their sums stay in registers.
V16_INLINE void run(const int rows, const int columns, const size_t chunks, const shape *p, size_t first, size_t count) {
    const size_t pairs = count * p->t->per_column;
    amx_stage decoded = {.tile = p->d->w + first * p->column_bytes}, multiplied = decoded, scaled = decoded;
    float *out = p->d->y + first * MICA_TILE_OUTPUTS;
    v16 y[COLUMNS][ROWS];
    for (int j = 0; j < columns; j++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) y[j][r] = v16_zero();
    if (!pairs) return;
    for (size_t i = 0; i < pairs + 2; i++) {
        if (i < pairs) decode(columns, chunks, p, &decoded);
        if (i && i <= pairs) multiply(columns, (chunks + 1) / 2, p, &multiplied);
        if (i >= 2) scale(rows, columns, p, &scaled, &out, y);
    }
}

V16_INLINE void all_columns(const int rows, const size_t chunks, const shape *p) {
    size_t columns = p->d->n / MICA_TILE_OUTPUTS;
    run(rows, 2, chunks, p, 0, columns / 2);
    run(rows, 1, chunks, p, columns / 2 * 2, columns % 2);
}

// Groups of 64, the usual size, have bodies of their own.
#define TILE_ROWS(rows)                                                                                                \
    static void rows_##rows(const shape *p) {                                                                          \
        size_t chunks = p->t->depth / CHUNK;                                                                           \
        if (chunks == 2) all_columns(rows, 2, p);                                                                      \
        else all_columns(rows, chunks, p);                                                                             \
    }
TILE_ROWS(3)
TILE_ROWS(4)
TILE_ROWS(5)
TILE_ROWS(6)
TILE_ROWS(7)
TILE_ROWS(8)

// Groups of 32 fill half of a tile's width.
static void shape_tiles(size_t group) {
    tile_config c = {.palette = 1};
    size_t inputs = group < STEP ? group : STEP;
    tile_shape(&c, 0, 2 * ROWS, 64);
    tile_shape(&c, 1, 2 * ROWS, 64);
    tile_shape(&c, 2, 2 * ROWS, inputs);
    tile_shape(&c, 3, inputs / 4, 64);
    tile_configure(&c);
}

void mica_cpu_amx_tiles_fixed(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    if (d->m <= ALONE) {
        mica_cpu_avx512vnni_tiles_fixed(t, d);
        return;
    }
    static void (*const by_rows[])(const shape *) = {[3] = rows_3, [4] = rows_4, [5] = rows_5, [6] = rows_6, [7] = rows_7, [8] = rows_8};
    ring r;
    shape p = {.t = t, .d = d, .x = tiles_at(d->x, d->k, t->depth), .units = units_at(d->x, d->k, t->depth), .column_bytes = t->per_column * t->bytes,
               .r = &r};
    shape_tiles(t->depth);
    by_rows[d->m](&p);
    tile_release();
}
#endif
