// SPDX-License-Identifier: Apache-2.0
// GGML's quantised blocks, taken apart. Small blocks hold 32 weights with an f16 scale (and minimum); K-quants are
// super-blocks of 256 whose 8 or 16 groups have small integer scales times one f16. All products of scale parts are
// exact in f32, so scale*code + bias gives the very values that GGML's own dequantisation gives.
#include "io/gguf_blocks.h"
#include "base/half.h"
#include <string.h>

static float half_at(const unsigned char *p) { return mica_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

// ---- blocks of 32 ------------------------------------------------------------------------------------
static void nibbles_32(const unsigned char *q, uint8_t *codes) {
    for (int i = 0; i < 16; i++) codes[i] = q[i] & 15, codes[i + 16] = q[i] >> 4;
}

static void fifth_bits(const unsigned char *bits, uint8_t *codes) {
    for (int i = 0; i < 32; i++) codes[i] |= (uint8_t)((bits[i / 8] >> (i % 8) & 1) << 4);
}

static void q4_0(const unsigned char *p, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(p), *bias = -8 * *scale;
    if (codes) nibbles_32(p + 2, codes);
}

static void q4_1(const unsigned char *p, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(p), *bias = half_at(p + 2);
    if (codes) nibbles_32(p + 4, codes);
}

static void q5_0(const unsigned char *p, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(p), *bias = -16 * *scale;
    if (codes) nibbles_32(p + 6, codes), fifth_bits(p + 2, codes);
}

static void q5_1(const unsigned char *p, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(p), *bias = half_at(p + 2);
    if (codes) nibbles_32(p + 8, codes), fifth_bits(p + 4, codes);
}

static void q8_0(const unsigned char *p, uint8_t *codes, float *scale, float *bias) {
    *scale = half_at(p), *bias = -128 * *scale;
    for (int i = 0; codes && i < 32; i++) codes[i] = p[2 + i] ^ 0x80; // signed to offset
}

// ---- super-blocks of 256 -----------------------------------------------------------------------------
// Weights come in chunks whose 32 bytes hold, bit pair after bit pair, runs of 32 consecutive weights.
static void crumbs_256(const unsigned char *q, uint8_t *codes) {
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) codes[run * 32 + i] = q[run / 4 * 32 + i] >> (run % 4 * 2) & 3;
}

static void nibbles_256(const unsigned char *q, uint8_t *codes) {
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) codes[run * 32 + i] = q[run / 2 * 32 + i] >> (run % 2 * 4) & 15;
}

// One more bit, at `shift`, from 32 bytes whose bit k belongs to the k-th run.
static void high_bits_256(const unsigned char *bits, int shift, uint8_t *codes) {
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) codes[run * 32 + i] |= (uint8_t)((bits[i] >> run & 1) << shift);
}

static void q2_k(const unsigned char *p, uint8_t *codes, float *scales, float *biases) {
    float d = half_at(p + 80), dmin = half_at(p + 82);
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(p[g] & 15);
        biases[g] = -(dmin * (float)(p[g] >> 4));
    }
    if (codes) crumbs_256(p + 16, codes);
}

// p: 32 bytes of high bits, 64 of low pairs, 12 of 6-bit scales, d. A set high bit means "do not subtract 4".
static void q3_k(const unsigned char *p, uint8_t *codes, float *scales, float *biases) {
    const unsigned char *s = p + 96;
    float d = half_at(p + 108);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> (g / 4 * 2) & 3;
        scales[g] = d * (float)((low | high << 4) - 32);
        biases[g] = -4 * scales[g];
    }
    if (!codes) return;
    crumbs_256(p + 32, codes);
    high_bits_256(p, 2, codes);
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes, the last four of each split between two places.
static void six_bit_pairs(const unsigned char *p, float d, float dmin, float *scales, float *biases) {
    for (int g = 0; g < 8; g++) {
        int s = g < 4 ? p[g] & 63 : (p[g + 4] & 15) | (p[g - 4] >> 6) << 4;
        int m = g < 4 ? p[g + 4] & 63 : p[g + 4] >> 4 | (p[g] >> 6) << 4;
        scales[g] = d * (float)s;
        biases[g] = -(dmin * (float)m);
    }
}

static void q4_k(const unsigned char *p, uint8_t *codes, float *scales, float *biases) {
    six_bit_pairs(p + 4, half_at(p), half_at(p + 2), scales, biases);
    if (codes) nibbles_256(p + 16, codes);
}

static void q5_k(const unsigned char *p, uint8_t *codes, float *scales, float *biases) {
    six_bit_pairs(p + 4, half_at(p), half_at(p + 2), scales, biases);
    if (!codes) return;
    nibbles_256(p + 48, codes);
    high_bits_256(p + 16, 4, codes);
}

// p: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, d.
static void q6_k(const unsigned char *p, uint8_t *codes, float *scales, float *biases) {
    float d = half_at(p + 208);
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(int8_t)p[192 + g];
        biases[g] = -32 * scales[g];
    }
    for (int run = 0; codes && run < 8; run++) {
        const unsigned char *low = p + run / 4 * 64 + run % 2 * 32, *high = p + 128 + run / 4 * 32;
        for (int i = 0; i < 32; i++)
            codes[run * 32 + i] = (uint8_t)((low[i] >> (run / 2 % 2 * 4) & 15) | (high[i] >> (run % 4 * 2) & 3) << 4);
    }
}

// ---- table -------------------------------------------------------------------------------------------
typedef void unpack_fn(const unsigned char *block, uint8_t *codes, float *scales, float *biases);

static const struct block_type {
    unsigned weights, bytes;
    int bits, group;
    unpack_fn *unpack;
    bool half_scales;
} blocks[] = {
    [MICA_GGML_F32] = {1, 4, 0, 0, NULL, false}, [MICA_GGML_F16] = {1, 2, 0, 0, NULL, false},
    [MICA_GGML_BF16] = {1, 2, 0, 0, NULL, false}, [MICA_GGML_Q4_0] = {32, 18, 4, 32, q4_0, true},
    [MICA_GGML_Q4_1] = {32, 20, 4, 32, q4_1, true}, [MICA_GGML_Q5_0] = {32, 22, 5, 32, q5_0, true},
    [MICA_GGML_Q5_1] = {32, 24, 5, 32, q5_1, true}, [MICA_GGML_Q8_0] = {32, 34, 8, 32, q8_0, true},
    [MICA_GGML_Q2_K] = {256, 84, 2, 16, q2_k, false}, [MICA_GGML_Q3_K] = {256, 110, 3, 16, q3_k, false},
    [MICA_GGML_Q4_K] = {256, 144, 4, 32, q4_k, false}, [MICA_GGML_Q5_K] = {256, 176, 5, 32, q5_k, false},
    [MICA_GGML_Q6_K] = {256, 210, 6, 16, q6_k, false},
};

bool mica_ggml_affine(mica_ggml_type type, mica_quant_spec *spec) {
    const struct block_type *b = &blocks[type];
    if (b->unpack) *spec = (mica_quant_spec){MICA_AFFINE, b->bits, b->group};
    return b->unpack != NULL;
}

bool mica_ggml_block(uint64_t type, unsigned *weights, unsigned *bytes) {
    if (type >= MICA_COUNT(blocks) || !blocks[type].weights) return false;
    *weights = blocks[type].weights, *bytes = blocks[type].bytes;
    return true;
}

bool mica_ggml_half_scales(mica_ggml_type type) { return blocks[type].half_scales; }
size_t mica_ggml_row_bytes(mica_ggml_type type, size_t in) { return in / blocks[type].weights * blocks[type].bytes; }

void mica_ggml_unpack_row(mica_ggml_type type, const unsigned char *src, size_t in, uint8_t *codes, float *scales, float *biases) {
    const struct block_type *b = &blocks[type];
    size_t groups = b->weights / (unsigned)b->group, count = in / b->weights;
    float unused_scales[16], unused_biases[16];
    for (size_t i = 0; i < count; i++)
        b->unpack(src + i * b->bytes, codes ? codes + i * b->weights : NULL, scales ? scales + i * groups : unused_scales,
                  biases ? biases + i * groups : unused_biases);
}
