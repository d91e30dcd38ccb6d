// SPDX-License-Identifier: Apache-2.0
// Packing of quantised weights into tiles, and the plain decoder that embeddings use and tests compare with.
// Packing runs once per weight at load, so it must keep up with reading the file: codes are unpacked sixteen rows at a
// time into bytes [input][output], from which every plane is a few vectorisable shifts; nibbles and bytes, the common
// cases, only change their order within a dword.
#include "device/cpu/tiles.h"
#include <assert.h>

enum { OUTPUTS = MICA_TILE_OUTPUTS, CHUNK = MICA_TILE_CHUNK, VECTOR = 64, MOST_DEPTH = 128 };

mica_cpu_tiles mica_cpu_tiles_of(const mica_params *params) {
    size_t out = (size_t)params->packed.out, in = (size_t)params->packed.in, group = (size_t)params->packed.group_size;
    mica_cpu_tiles t = {.out = out, .in = in, .bits = params->packed.bits, .group = (int)group,
                        .scale_dtype = (mica_dtype)params->packed.scale_dtype};
    t.depth = group < CHUNK ? CHUNK : group;
    t.groups = t.depth / group;
    t.scales = OUTPUTS * (t.scale_dtype == MICA_F32 ? 4 : 2);
    t.per_column = (in + t.depth - 1) / t.depth;
    t.columns = (out + OUTPUTS - 1) / OUTPUTS;
    t.codes = t.depth / CHUNK * (size_t)t.bits * VECTOR;
    t.bytes = t.codes + t.groups * t.scales * 2;
    return t;
}

// ---- packing ---------------------------------------------------------------------------------------
static uint32_t load_u32(const unsigned char *p) {
    uint32_t u;
    memcpy(&u, p, 4);
    return u;
}

// Eight codes in order -> even ones in the low half, odd ones in the high half.
static inline uint32_t split_nibbles(uint32_t w) {
    uint32_t even = w & 0x0F0F0F0Fu, odd = w >> 4 & 0x0F0F0F0Fu;
    even = (even | even >> 4) & 0x00FF00FFu, odd = (odd | odd >> 4) & 0x00FF00FFu;
    return ((even | even >> 8) & 0xFFFFu) | (odd | odd >> 8) << 16;
}

// Codes of one tile from rows that start at `words`, 4 bits.
static void pack_nibbles(const unsigned char *words, size_t row_bytes, size_t rows, size_t dwords, unsigned char *tile) {
    for (size_t o = 0; o < rows; o++)
        for (size_t d = 0; d < dwords; d++) {
            uint32_t u = split_nibbles(load_u32(words + o * row_bytes + 4 * d));
            memcpy(tile + d * VECTOR + 4 * o, &u, 4);
        }
}

// Low nibbles of eight bytes -> one dword, in order.
static inline uint32_t join_nibbles(uint64_t w) {
    w &= 0x0F0F0F0F0F0F0F0Fu;
    w = (w | w >> 4) & 0x00FF00FF00FF00FFu;
    w = (w | w >> 8) & 0x0000FFFF0000FFFFu;
    return (uint32_t)(w | w >> 16);
}

// The same, 8 bits: a plane of low nibbles, then one of high nibbles, in each chunk.
static void pack_bytes(const unsigned char *words, size_t row_bytes, size_t rows, size_t inputs, unsigned char *tile) {
    for (size_t o = 0; o < rows; o++)
        for (size_t i = 0; i < inputs; i += 8) {
            uint64_t w;
            memcpy(&w, words + o * row_bytes + i, 8);
            uint32_t low = split_nibbles(join_nibbles(w)), high = split_nibbles(join_nibbles(w >> 4));
            unsigned char *to = tile + i / CHUNK * 8 * VECTOR + i % CHUNK / 8 * VECTOR + 4 * o;
            memcpy(to, &low, 4), memcpy(to + 4 * VECTOR, &high, 4);
        }
}

// Eight codes of `bits` bits are `bits` bytes.
static void unpack_codes(const unsigned char *bytes, int bits, size_t inputs, size_t o, uint8_t codes[][OUTPUTS]) {
    for (size_t k = 0; k < inputs; k += 8, bytes += bits) {
        uint64_t w = 0;
        memcpy(&w, bytes, (size_t)bits);
        for (size_t i = 0; i < 8; i++) codes[k + i][o] = (uint8_t)(w >> (size_t)bits * i & ((1u << bits) - 1));
    }
}

static void pack_chunk(uint8_t codes[][OUTPUTS], int bits, unsigned char *chunk) {
    int width[2], planes = mica_cpu_tile_planes(bits, width);
    for (int p = 0, low = 0; p < planes; low += width[p++]) {
        int per = 32 / width[p];
        for (int v = 0; v < width[p]; v++, chunk += VECTOR) {
            uint32_t dword[OUTPUTS] = {0};
            for (int i = 0; i < per; i++)
                for (int o = 0; o < OUTPUTS; o++)
                    dword[o] |= ((uint32_t)codes[v * per + i][o] >> low & ((1u << width[p]) - 1))
                                << mica_cpu_tile_shift(width[p], i);
            memcpy(chunk, dword, VECTOR);
        }
    }
}

// `scales` points at the tile's first group of the column's first output.
static unsigned char *pack_scales(const mica_cpu_tiles *t, const unsigned char *scales, size_t groups, size_t rows,
                                  unsigned char *to) {
    size_t size = t->scale_dtype == MICA_F32 ? 4 : 2, row_bytes = t->in / (size_t)t->group * size;
    for (size_t g = 0; g < t->groups; g++, to += OUTPUTS * size) {
        memset(to, 0, OUTPUTS * size);
        for (size_t o = 0; g < groups && o < rows; o++) memcpy(to + o * size, scales + o * row_bytes + g * size, size);
    }
    return to;
}

void mica_cpu_tiles_pack(const mica_cpu_tiles *t, const void *words, const void *scales, const void *biases, size_t first,
                         size_t last, unsigned char *packed) {
    size_t row_bytes = t->in * (size_t)t->bits / 8, scale_size = t->scale_dtype == MICA_F32 ? 4 : 2;
    size_t scale_row = t->in / (size_t)t->group * scale_size;
    uint8_t codes[MOST_DEPTH][OUTPUTS];
    assert(t->depth <= MOST_DEPTH && t->in % (size_t)t->group == 0);
    unsigned char *tile = packed + first * t->per_column * t->bytes;
    for (size_t column = first; column < last; column++) {
        size_t row = column * OUTPUTS, rows = t->out - row < OUTPUTS ? t->out - row : OUTPUTS;
        for (size_t g = 0; g < t->per_column; g++, tile += t->bytes) {
            size_t k = g * t->depth, inputs = t->in - k < t->depth ? t->in - k : t->depth;
            const unsigned char *from = (const unsigned char *)words + row * row_bytes + k * (size_t)t->bits / 8;
            if (rows < OUTPUTS || inputs < t->depth) memset(tile, 0, t->codes), memset(codes, 0, sizeof codes);
            if (t->bits == 4) pack_nibbles(from, row_bytes, rows, inputs / 8, tile);
            else if (t->bits == 8) pack_bytes(from, row_bytes, rows, inputs, tile);
            else {
                for (size_t o = 0; o < rows; o++) unpack_codes(from + o * row_bytes, t->bits, inputs, o, codes);
                for (size_t c = 0; c < t->depth / CHUNK; c++)
                    pack_chunk(codes + c * CHUNK, t->bits, tile + c * (size_t)t->bits * VECTOR);
            }
            size_t at = row * scale_row + k / (size_t)t->group * scale_size, groups = inputs / (size_t)t->group;
            unsigned char *to = pack_scales(t, (const unsigned char *)scales + at, groups, rows, tile + t->codes);
            pack_scales(t, (const unsigned char *)biases + at, groups, rows, to);
        }
    }
}

// ---- decoding --------------------------------------------------------------------------------------
// The 32 codes of output o in a chunk.
static void chunk_codes(const unsigned char *chunk, int bits, size_t o, uint8_t codes[CHUNK]) {
    int width[2], planes = mica_cpu_tile_planes(bits, width);
    memset(codes, 0, CHUNK);
    for (int p = 0, low = 0; p < planes; low += width[p++]) {
        int per = 32 / width[p];
        for (int v = 0; v < width[p]; v++, chunk += VECTOR) {
            uint32_t dword = load_u32(chunk + 4 * o), mask = (1u << width[p]) - 1;
            for (int i = 0; i < per; i++)
                codes[v * per + i] |= (uint8_t)((dword >> mica_cpu_tile_shift(width[p], i) & mask) << low);
        }
    }
}

void mica_cpu_tiles_row(const mica_cpu_tiles *t, const unsigned char *packed, size_t row, size_t k0, size_t k, float *to) {
    const unsigned char *column = packed + row / OUTPUTS * t->per_column * t->bytes;
    size_t o = row % OUTPUTS;
    uint8_t codes[CHUNK];
    for (size_t i = k0; i < k0 + k;) {
        const unsigned char *tile = column + i / t->depth * t->bytes;
        size_t at = i % t->depth, g = at / (size_t)t->group, end = k0 + k - i;
        float s = mica_cpu_load1(t->scale_dtype, tile + t->codes, g * OUTPUTS + o);
        float b = mica_cpu_load1(t->scale_dtype, tile + t->codes, (t->groups + g) * OUTPUTS + o);
        size_t n = (size_t)t->group - at % (size_t)t->group;
        if (n > end) n = end;
        for (size_t j = at; j < at + n; j++, i++) {
            if (j == at || j % CHUNK == 0) chunk_codes(tile + j / CHUNK * (size_t)t->bits * VECTOR, t->bits, o, codes);
            to[i - k0] = s * (float)codes[j % CHUNK] + b;
        }
    }
}
