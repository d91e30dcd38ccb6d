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
// A block: eight rows as at level avx512vnni; then for each group and STEP inputs of it a tile, upper bytes of all rows before the lower ones.
static size_t steps_of(size_t group) { return (group + STEP - 1) / STEP; }
static unsigned char *tiles_at(const void *block, size_t k, size_t group) {
    return (unsigned char *)block + mica_cpu_avx512vnni_fixed_size(k, group);
}

size_t mica_cpu_amx_fixed_size(size_t k, size_t group) {
    return mica_cpu_avx512vnni_fixed_size(k, group) + k / group * steps_of(group) * TILE_BYTES;
}

void mica_cpu_amx_fixed_row(const uint16_t *x, size_t k, size_t group, size_t at, void *block) {
    mica_cpu_avx512vnni_fixed_row(x, k, group, at, block);
    const int8_t *from = fixed_row_at((char *)block + at * fixed_row_size(k, group), k, k / group).terms[0];
    unsigned char *to = tiles_at(block, k, group) + at * STEP;
    const __m512i uppers = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), lowers = _mm512_add_epi64(uppers, _mm512_set1_epi64(1));
    for (size_t g = 0; g < k / group; g++)
        for (size_t i = 0; i < group; i += STEP, to += TILE_BYTES) {
            bool whole = group - i >= STEP;
            __m512i a = _mm512_loadu_si512(from), b = whole ? _mm512_loadu_si512(from + 64) : _mm512_setzero_si512();
            _mm512_storeu_si512(to, _mm512_permutex2var_epi64(a, uppers, b));
            _mm512_storeu_si512(to + ROWS * STEP, _mm512_permutex2var_epi64(a, lowers, b));
            from += whole ? 128 : 64;
        }
}

// ---- products ------------------------------------------------------------------------------------------------
typedef struct ring {
    _Alignas(64) unsigned char codes[2][COLUMNS][MOST_STEPS * TILE_BYTES];
    _Alignas(64) int32_t sums[2][COLUMNS][2 * ROWS][16];
    _Alignas(64) float y[COLUMNS][ROWS][16];
} ring;

typedef struct shape { // what is the same for all tiles of a product
    const mica_cpu_tiles *t;
    const mica_cpu_direct *d;
    const unsigned char *x; // tiles
    fixed_row first;
    size_t row_size, column_bytes;
    ring *r;
} shape;

typedef struct stage { // the first tile of the pair whose turn it is, its place along the inputs, and its slot
    const unsigned char *tile;
    size_t slot, group;
} stage;

V16_INLINE void advance(stage *s, const shape *p, const int columns) {
    s->tile += p->t->bytes, s->slot ^= 1;
    if (++s->group < p->t->per_column) return;
    s->group = 0, s->tile += (size_t)(columns - 1) * p->column_bytes;
}

V16_INLINE void decode(const int columns, const size_t chunks, const shape *p, stage *s) {
    const __m512i low = _mm512_set1_epi8(0x0F);
    const size_t ahead = mica_cpu_amx_ahead(AHEAD, (p->t->per_column - s->group) * p->t->bytes, (size_t)(columns - 1) * p->column_bytes);
    for (int j = 0; j < columns; j++) {
        const unsigned char *tile = s->tile + (size_t)j * p->column_bytes;
        unsigned char *to = p->r->codes[s->slot][j];
        _mm_prefetch((const char *)tile + ahead + p->t->codes, _MM_HINT_T0);
        for (size_t v = 0; v < chunks * 4; v++, tile += 64, to += 128) {
            _mm_prefetch((const char *)tile + ahead, _MM_HINT_T0);
            __m512i w = _mm512_loadu_si512(tile);
            _mm512_store_si512(to, _mm512_and_si512(w, low));
            _mm512_store_si512(to + 64, _mm512_and_si512(_mm512_srli_epi16(w, 4), low));
        }
    }
    advance(s, p, columns);
}

// Tiles 0, 1: sums of both columns; 2: rows; 3: codes. Few tiles in use, operands zeroed after their last use: see amx_matmul.c.
V16_INLINE void multiply(const int columns, const size_t steps, const shape *p, stage *s) {
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
    advance(s, p, columns);
}

// As add_units and what follows it in avx512vnni_fixed.c, to the bit; the last group of a column writes its outputs.
V16_INLINE void scale(const int columns, const shape *p, stage *s, float **out) {
    const mica_cpu_tiles *t = p->t;
    const size_t groups = t->per_column;
    const bool first = !s->group, last = s->group + 1 == groups;
    for (int j = 0; j < columns; j++) {
        const unsigned char *tile = s->tile + (size_t)j * p->column_bytes;
        float(*ys)[16] = p->r->y[j], *to = last ? *out + j * MICA_TILE_OUTPUTS : ys[0];
        const int32_t(*sums)[16] = (const int32_t(*)[16])p->r->sums[s->slot][j];
        size_t step = last ? p->d->ldy : 16;
        v16 factor = v16_load_as(t->scale_dtype, tile + t->codes), bias = v16_load_as(t->scale_dtype, tile + t->codes + t->scales);
        for (size_t r = 0; r < p->d->m; r++) {
            const float *units = (const float *)(const void *)((const char *)p->first.units[0] + r * p->row_size) + s->group;
            v16i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(sums[r]), 8), _mm512_load_si512(sums[ROWS + r]));
            v16 y = v16_fma(_mm512_cvtepi32_ps(sum), v16_mul(factor, v16_set1(units[0])), first ? v16_zero() : v16_load(ys[r]));
            y = v16_fma(bias, v16_set1(units[2 * groups]), y);
            if (__builtin_expect(units[groups] != 0, false))
                y = mica_cpu_avx512vnni_fixed_second(t, tile, fixed_row_at((const char *)p->d->x + r * p->row_size, p->d->k, groups), s->group, factor, y);
            v16_store(to + r * step, y);
        }
    }
    if (last) *out += columns * MICA_TILE_OUTPUTS;
    advance(s, p, columns);
}

// Outputs from tile column `first` on, `count` times `columns` columns.
V16_INLINE void run(const int columns, const size_t chunks, const shape *p, size_t first, size_t count) {
    const size_t pairs = count * p->t->per_column;
    stage decoded = {.tile = p->d->w + first * p->column_bytes}, multiplied = decoded, scaled = decoded;
    float *out = p->d->y + first * MICA_TILE_OUTPUTS;
    if (!pairs) return;
    for (size_t i = 0; i < pairs + 2; i++) {
        if (i < pairs) decode(columns, chunks, p, &decoded);
        if (i && i <= pairs) multiply(columns, (chunks + 1) / 2, p, &multiplied);
        if (i >= 2) scale(columns, p, &scaled, &out);
    }
}

V16_INLINE void all_columns(const size_t chunks, const shape *p) {
    size_t columns = p->d->n / MICA_TILE_OUTPUTS;
    run(2, chunks, p, 0, columns / 2);
    run(1, chunks, p, columns / 2 * 2, columns % 2);
}

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
    ring r;
    size_t chunks = t->depth / CHUNK;
    shape p = {.t = t, .d = d, .x = tiles_at(d->x, d->k, t->depth), .first = fixed_row_at(d->x, d->k, t->per_column),
               .row_size = fixed_row_size(d->k, t->depth), .column_bytes = t->per_column * t->bytes, .r = &r};
    shape_tiles(t->depth);
    if (chunks == 2) all_columns(2, &p);
    else all_columns(chunks, &p);
    tile_release();
}
#endif
