// SPDX-License-Identifier: Apache-2.0
// Packing of quantised weights into tiles, and the plain decoder that embeddings use and tests compare with.
// Packing runs once per weight at load, so it must keep up with reading the file: a run of inputs is taken from sixteen rows as
// bytes, a code each, eight of which become the bits of a plane's word by a mask and a multiplication. Nibbles as MLX stores
// them only change their order within a dword.
#include "device/cpu/tiles.h"
#include <assert.h>

enum { OUTPUTS = MICA_TILE_OUTPUTS, CHUNK = MICA_TILE_CHUNK, VECTOR = 64 };

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

static unsigned char *chunk_at(const mica_cpu_packing *p, int bits, size_t chunk) {
    return p->tile + chunk / p->per_tile * p->tile_bytes + chunk % p->per_tile * (size_t)bits * VECTOR;
}

void mica_cpu_pack_nibbles(const mica_cpu_packing *p) {
    for (size_t o = 0; o < p->rows; o++)
        for (size_t c = 0; c < p->chunks; c++) {
            unsigned char *to = chunk_at(p, 4, c) + 4 * o;
            for (size_t d = 0; d < 4; d++) {
                uint32_t u = split_nibbles(load_u32(p->from + o * p->row_bytes + 16 * c + 4 * d));
                memcpy(to + d * VECTOR, &u, 4);
            }
        }
}

// Eight codes in bytes -> `width` bits of each, even codes in the low half from bit 0 on, odd ones in the high half. The
// multiplication brings the k-th of four codes that lie 16 bits apart to bit 48 + width*k; nothing else gets that high.
static inline uint32_t split_bytes(uint64_t codes, unsigned width) {
    uint64_t mask = 0x0001000100010001u * ((1u << width) - 1);
    uint64_t place = 1ull << 48 | 1ull << (32 + width) | 1ull << (16 + 2 * width) | 1ull << (3 * width);
    return (uint32_t)((codes & mask) * place >> 48 | ((codes >> 8 & mask) * place >> 32 & 0xFFFF0000u));
}

// The plane of `width` bits from bit `low` on, of one output's codes of a chunk.
static inline unsigned char *pack_plane(const uint64_t codes[4], unsigned low, unsigned width, unsigned char *to) {
    for (unsigned i = 0; i < 4; to += VECTOR) {
        uint32_t dword = 0;
        for (unsigned n = 0; n < 4 / width; n++) dword |= split_bytes(codes[i++] >> low, width) << 4 * width * n % 32;
        memcpy(to, &dword, 4);
    }
    return to;
}

static inline void pack_chunk(const uint8_t *codes, unsigned bits, unsigned char *to) {
    uint64_t c[4];
    int width[2];
    memcpy(c, codes, CHUNK);
    if (mica_cpu_tile_planes((int)bits, width) == 1) pack_plane(c, 0, bits, to);
    else pack_plane(c, (unsigned)width[0], (unsigned)width[1], pack_plane(c, 0, (unsigned)width[0], to));
}

// One output's; constants for `bits` make the difference between shifts and loops here.
static inline void pack_row(const mica_cpu_packing *p, int bits, size_t o) {
    for (size_t c = 0; c < p->chunks; c++) pack_chunk(p->from + o * p->row_bytes + c * CHUNK, (unsigned)bits, chunk_at(p, bits, c) + 4 * o);
}

void mica_cpu_pack_codes(int bits, const mica_cpu_packing *p) {
    for (size_t o = 0; o < p->rows; o++) switch (bits) {
        case 2: pack_row(p, 2, o); break;
        case 3: pack_row(p, 3, o); break;
        case 4: pack_row(p, 4, o); break;
        case 5: pack_row(p, 5, o); break;
        case 6: pack_row(p, 6, o); break;
        case 8: pack_row(p, 8, o); break;
        }
}

// `n` codes of `bits` bits to bytes; n is a multiple of 8, so they are whole bytes.
static void unpack_codes(const unsigned char *from, int bits, size_t n, uint8_t *codes) {
    uint64_t four = (1ull << 4 * bits) - 1, two = ((1ull << 2 * bits) - 1) * 0x0000000100000001u, one = ((1ull << bits) - 1) * 0x0001000100010001u;
    for (size_t i = 0; i < n; i += 8, from += bits) {
        uint64_t w = 0;
        memcpy(&w, from, (size_t)bits);
        w = (w & four) | (w >> 4 * bits & four) << 32;
        w = (w & two) | (w >> 2 * bits & two) << 16;
        w = (w & one) | (w >> bits & one) << 8;
        memcpy(codes + i, &w, 8);
    }
}

// `from`: the tile's first group of the column's first output, rows `row_bytes` apart. Constant sizes make loads of the copies.
static inline unsigned char *copy_scales(const mica_cpu_tiles *t, size_t size, const unsigned char *from, size_t row_bytes, size_t groups,
                                         size_t rows, unsigned char *to) {
    for (size_t g = 0; g < t->groups; g++, to += OUTPUTS * size) {
        if (g >= groups || rows < OUTPUTS) memset(to, 0, OUTPUTS * size);
        for (size_t o = 0; g < groups && o < rows; o++) memcpy(to + o * size, from + o * row_bytes + g * size, size);
    }
    return to;
}

static unsigned char *pack_scales(const mica_cpu_tiles *t, const unsigned char *from, size_t row_bytes, size_t groups, size_t rows,
                                  unsigned char *to) {
    return t->scale_dtype == MICA_F32 ? copy_scales(t, 4, from, row_bytes, groups, rows, to) : copy_scales(t, 2, from, row_bytes, groups, rows, to);
}

// A run of inputs of the outputs of one column, and where its scales are.
typedef struct run {
    size_t rows, inputs;
    const unsigned char *words, *scales, *biases; // first row
    size_t words_row, scales_row;                 // bytes from row to row
} run;

typedef struct buffers {
    uint8_t codes[OUTPUTS][MICA_QUANT_RUN];
    float scales[OUTPUTS][MICA_QUANT_RUN / 16], biases[OUTPUTS][MICA_QUANT_RUN / 16];
} buffers;

static void pack_run(const mica_cpu_tiles *t, const mica_cpu_matmul_isa *isa, const run *r, bool nibbles, const buffers *b, unsigned char *tile) {
    size_t size = t->scale_dtype == MICA_F32 ? 4 : 2, chunks = (r->inputs + CHUNK - 1) / CHUNK, tiles = (r->inputs + t->depth - 1) / t->depth;
    mica_cpu_packing p = {.from = nibbles ? r->words : b->codes[0], .row_bytes = nibbles ? r->words_row : MICA_QUANT_RUN, .rows = r->rows,
                       .chunks = chunks, .per_tile = t->depth / CHUNK, .tile_bytes = t->bytes, .tile = tile};
    for (size_t i = 0; i < tiles && (r->rows < OUTPUTS || r->inputs < tiles * t->depth); i++) memset(tile + i * t->bytes, 0, t->codes);
    if (nibbles) isa->pack_nibbles(&p);
    else isa->pack_codes(t->bits, &p);
    for (size_t k = 0; k < r->inputs; k += t->depth, tile += t->bytes) {
        size_t groups = MICA_MIN(r->inputs - k, t->depth) / (size_t)t->group, at = k / (size_t)t->group * size;
        unsigned char *to = pack_scales(t, r->scales + at, r->scales_row, groups, r->rows, tile + t->codes);
        pack_scales(t, r->biases + at, r->scales_row, groups, r->rows, to);
    }
}

// Codes of rows row … of a part, inputs k … as bytes, up to a whole chunk; scales, if the part is read from blocks.
static bool read_run(const mica_cpu_tiles *t, const mica_pack_part *p, size_t row, size_t k, run *r, buffers *b) {
    bool exact = true;
    size_t rest = (r->inputs + CHUNK - 1) / CHUNK * CHUNK - r->inputs;
    for (size_t o = 0; o < r->rows; o++) {
        if (p->blocks) exact &= p->blocks->read(p->blocks, t->scale_dtype, row + o, k, r->inputs, b->codes[o], b->scales[o], b->biases[o]);
        else if (t->bits == 8) memcpy(b->codes[o], r->words + o * r->words_row, r->inputs);
        else unpack_codes(r->words + o * r->words_row, t->bits, r->inputs, b->codes[o]);
        if (rest) memset(b->codes[o] + r->inputs, 0, rest);
    }
    if (p->blocks) r->scales = (const unsigned char *)b->scales, r->biases = (const unsigned char *)b->biases, r->scales_row = sizeof b->scales[0];
    return exact;
}

bool mica_cpu_tiles_pack(const mica_cpu_tiles *t, const mica_cpu_matmul_isa *isa, const mica_pack_part *p, size_t first, size_t last) {
    size_t size = t->scale_dtype == MICA_F32 ? 4 : 2;
    buffers b;
    bool exact = true;
    run r = {.words_row = t->in * (size_t)t->bits / 8, .scales_row = t->in / (size_t)t->group * size};
    size_t scales_row = r.scales_row;
    assert(MICA_QUANT_RUN % t->depth == 0 && t->in % (size_t)t->group == 0 && p->first % OUTPUTS == 0);
    for (size_t column = first; column < last; column++) {
        size_t row = column * OUTPUTS;
        size_t to = p->first / OUTPUTS + (p->gated ? 2 * column : column);
        unsigned char *tile = (unsigned char *)p->packed + to * t->per_column * t->bytes;
        r.rows = MICA_MIN(p->rows - row, (size_t)OUTPUTS);
        for (size_t k = 0; k < t->in; k += MICA_QUANT_RUN, tile += MICA_QUANT_RUN / t->depth * t->bytes) {
            r.inputs = MICA_MIN(t->in - k, (size_t)MICA_QUANT_RUN);
            if (!p->blocks) {
                size_t at = row * scales_row + k / (size_t)t->group * size;
                r.words = (const unsigned char *)p->words + row * r.words_row + k * (size_t)t->bits / 8;
                r.scales = (const unsigned char *)p->scales + at, r.biases = (const unsigned char *)p->biases + at;
            }
            bool nibbles = !p->blocks && t->bits == 4 && r.inputs % CHUNK == 0;
            if (!nibbles) exact &= read_run(t, p, row, k, &r, &b);
            pack_run(t, isa, &r, nibbles, &b, tile);
        }
    }
    return exact;
}

// ---- decoding --------------------------------------------------------------------------------------
void mica_cpu_tiles_codes(const unsigned char *chunk, int bits, size_t o, uint8_t codes[MICA_TILE_CHUNK]) {
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
            if (j == at || j % CHUNK == 0) mica_cpu_tiles_codes(tile + j / CHUNK * (size_t)t->bits * VECTOR, t->bits, o, codes);
            to[i - k0] = s * (float)codes[j % CHUNK] + b;
        }
    }
}
