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
    float y[COLUMNS][ROWS][16]; // while second terms are added
} ring;

// What is the same for all tiles of a product. Loops have a copy of their own, which the compiler keeps in registers across assembler.
typedef struct shape {
    mica_cpu_tiles t;
    mica_cpu_direct d;
    const unsigned char *x; // tiles
    const group_units *units;
    size_t column_bytes;
    ring *r;
} shape;

// Where the three stages are, and whether each has something to do in this turn.
typedef struct turn {
    amx_stage decoded, multiplied, scaled;
    bool decodes, multiplies, scales;
    size_t ahead; // from a tile that is decoded to what is fetched then
    float *out;
} turn;

V16_INLINE void decode(const size_t chunks, const shape *p, const turn *now, size_t j) {
    const __m512i low = _mm512_set1_epi8(0x0F);
    const unsigned char *tile = now->decoded.tile + j * p->column_bytes;
    unsigned char *to = p->r->codes[now->decoded.slot][j];
    _mm_prefetch((const char *)tile + now->ahead + p->t.codes, _MM_HINT_T0);
#pragma GCC unroll 8
    for (size_t v = 0; v < chunks * 4; v++, tile += 64, to += 128) {
        _mm_prefetch((const char *)tile + now->ahead, _MM_HINT_T0);
        __m512i w = _mm512_loadu_si512(tile);
        _mm512_store_si512(to, _mm512_and_si512(w, low));
        _mm512_store_si512(to + 64, _mm512_and_si512(_mm512_srli_epi16(w, 4), low));
    }
}

// As add_units in avx512vnni_fixed.c, to the bit.
V16_INLINE void scale(const int rows, const shape *p, const turn *now, size_t j, v16 y[ROWS]) {
    const amx_stage *s = &now->scaled;
    const group_units *u = p->units + s->group;
    const unsigned char *scales = s->tile + j * p->column_bytes + p->t.codes;
    const int32_t(*sums)[16] = (const int32_t(*)[16])p->r->sums[s->slot][j];
    v16 factor = v16_load_as(p->t.scale_dtype, scales), bias = v16_load_as(p->t.scale_dtype, scales + p->t.scales);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        v16i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(sums[r]), 8), _mm512_load_si512(sums[ROWS + r]));
        y[r] = v16_fma(_mm512_cvtepi32_ps(sum), v16_mul(factor, v16_set1(u->first[r])), y[r]);
        y[r] = v16_fma(bias, v16_set1(u->sums[r]), y[r]);
    }
}

__attribute__((noinline)) static void add_seconds(int rows, size_t columns, const shape *p, amx_stage s) {
    const mica_cpu_tiles *t = &p->t;
    for (size_t j = 0; j < columns; j++) {
        const unsigned char *tile = s.tile + j * p->column_bytes;
        v16 factor = v16_load_as(t->scale_dtype, tile + t->codes);
        for (size_t r = 0; r < (size_t)rows; r++) {
            if (p->units[s.group].second[r] == 0) continue;
            const fixed_row row = fixed_row_at((const char *)p->d.x + r * fixed_row_size(p->d.k, t->depth), p->d.k, t->per_column);
            v16_store(p->r->y[j][r], mica_cpu_avx512vnni_fixed_second(t, tile, row, s.group, factor, v16_load(p->r->y[j][r])));
        }
    }
}

// What follows add_units there: second terms, which are rare and go through memory, so that the sums have registers all the time; outputs of a
// column that ends.
V16_INLINE void end_group(const int rows, const size_t columns, const shape *p, const shape *shared, const turn *now, v16 y[COLUMNS][ROWS]) {
    const __m256 seconds = _mm256_loadu_ps(p->units[now->scaled.group].second);
    if (__builtin_expect(_mm256_cmp_ps_mask(seconds, _mm256_setzero_ps(), _CMP_NEQ_UQ) & ((1u << rows) - 1), 0)) {
        for (size_t j = 0; j < columns; j++)
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) v16_store(p->r->y[j][r], y[j][r]);
        add_seconds(rows, columns, shared, now->scaled);
        for (size_t j = 0; j < columns; j++)
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) y[j][r] = v16_load(p->r->y[j][r]);
    }
    if (now->scaled.group + 1 < p->t.per_column) return;
    for (size_t j = 0; j < columns; j++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) v16_store(now->out + j * MICA_TILE_OUTPUTS + (size_t)r * p->d.ldy, y[j][r]), y[j][r] = v16_zero();
}

// Tiles 0, 1: sums of both columns; 2: rows; 3: codes. Few tiles in use, operands zeroed after their last use: see amx_matmul.c.
V16_INLINE void take_turn(const int rows, const size_t columns, const size_t chunks, const shape *p, const shape *shared, const turn *now, v16 y[COLUMNS][ROWS]) {
    const size_t steps = (chunks + 1) / 2, slot = now->multiplied.slot;
    const unsigned char *x = p->x + now->multiplied.group * steps * TILE_BYTES;
    if (AMX_USUALLY(now->multiplies)) {
        TILE_ZERO(0);
        TILE_ZERO(1);
    }
    for (size_t i = 0; i < steps; i++) {
        if (AMX_USUALLY(now->multiplies)) TILE_LOAD(2, x + i * TILE_BYTES, STEP);
#pragma GCC unroll 2
        for (size_t j = 0; j < columns; j++) {
            if (AMX_USUALLY(now->multiplies)) {
                TILE_LOAD(3, p->r->codes[slot][j] + i * TILE_BYTES, 64);
                if (j) TILE_MULTIPLY_BYTES(1, 2, 3);
                else TILE_MULTIPLY_BYTES(0, 2, 3);
                TILE_ZERO(3);
            }
            if (i) continue;
            if (AMX_USUALLY(now->decodes)) decode(chunks, p, now, j);
            if (AMX_USUALLY(now->scales)) scale(rows, p, now, j, y[j]);
        }
        if (AMX_USUALLY(now->multiplies)) TILE_ZERO(2);
    }
    if (AMX_USUALLY(now->scales)) end_group(rows, columns, p, shared, now, y);
    if (!AMX_USUALLY(now->multiplies)) return;
    TILE_STORE(0, p->r->sums[slot][0], 64);
    if (columns == 2) TILE_STORE(1, p->r->sums[slot][1], 64);
}

// Outputs from tile column `first` on, `count` times `columns` columns. Their sums stay in registers.
V16_INLINE void run(const int rows, const size_t columns, const size_t chunks, const shape *shared, size_t first, size_t count) {
    const shape own = *shared, *p = &own;
    const size_t pairs = count * p->t.per_column, skip = (columns - 1) * p->column_bytes;
    const amx_stage start = {.tile = p->d.w + first * p->column_bytes};
    turn now = {start, start, start, .out = p->d.y + first * MICA_TILE_OUTPUTS};
    v16 y[COLUMNS][ROWS];
    for (size_t j = 0; j < columns; j++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) y[j][r] = v16_zero();
    if (!pairs) return;
    for (size_t i = 0; i < pairs + 2; i++) {
        now.decodes = i < pairs, now.multiplies = i && i <= pairs, now.scales = i >= 2;
        now.ahead = mica_cpu_amx_ahead(AHEAD, (p->t.per_column - now.decoded.group) * p->t.bytes, skip);
        take_turn(rows, columns, chunks, p, shared, &now, y);
        if (now.scales && now.scaled.group + 1 == p->t.per_column) now.out += columns * MICA_TILE_OUTPUTS;
        if (now.decodes) amx_advance(&now.decoded, &p->t, skip);
        if (now.multiplies) amx_advance(&now.multiplied, &p->t, skip);
        if (now.scales) amx_advance(&now.scaled, &p->t, skip);
    }
}

V16_INLINE void all_columns(const int rows, const size_t chunks, const shape *p) {
    size_t columns = p->d.n / MICA_TILE_OUTPUTS;
    run(rows, 2, chunks, p, 0, columns / 2);
    run(rows, 1, chunks, p, columns / 2 * 2, columns % 2);
}

// Groups of 64, the usual size, have bodies of their own.
#define TILE_ROWS(rows)                                                                                                \
    static void rows_##rows(const shape *p) {                                                                          \
        size_t chunks = p->t.depth / CHUNK;                                                                           \
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
    shape p = {.t = *t, .d = *d, .x = tiles_at(d->x, d->k, t->depth), .units = units_at(d->x, d->k, t->depth), .column_bytes = t->per_column * t->bytes,
               .r = &r};
    shape_tiles(t->depth);
    by_rows[d->m](&p);
    tile_release();
}
#endif
