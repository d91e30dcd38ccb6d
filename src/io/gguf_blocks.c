// SPDX-License-Identifier: Apache-2.0
// GGML's quantised blocks, taken apart. Small blocks hold 32 weights with an f16 scale (and minimum); K-quants are
// super-blocks of 256 whose 8 or 16 groups have small integer scales times one f16. All products of scale parts are
// exact in f32, so scale*code + bias gives the very values that GGML's own dequantisation gives.
#include "io/gguf_blocks.h"
#include "base/half.h"
#include <string.h>

static inline uint16_t bits_at(const unsigned char *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline float half_at(const unsigned char *p) { return mica_f16_to_f32(bits_at(p)); }

// ---- blocks of 32 ------------------------------------------------------------------------------------
static inline void nibbles_32(const unsigned char *q, uint8_t *codes) {
    for (int i = 0; i < 16; i++) codes[i] = q[i] & 15;
    for (int i = 0; i < 16; i++) codes[i + 16] = q[i] >> 4;
}

// Eight codes' fifth bits are one byte: spread it over eight bytes, keep byte i's bit i, and bring it to place.
static inline void fifth_bits(const unsigned char *bits, uint8_t *codes) {
    for (int i = 0; i < 4; i++) {
        uint64_t c, b = bits[i] * 0x0101010101010101u & 0x8040201008040201u;
        memcpy(&c, codes + 8 * i, 8);
        c |= (b + 0x7F7F7F7F7F7F7F7Fu) >> 3 & 0x1010101010101010u;
        memcpy(codes + 8 * i, &c, 8);
    }
}

static inline void q4_0(const unsigned char *p, uint8_t *codes) { nibbles_32(p + 2, codes); }
static inline void q4_1(const unsigned char *p, uint8_t *codes) { nibbles_32(p + 4, codes); }
static inline void q5_0(const unsigned char *p, uint8_t *codes) { nibbles_32(p + 6, codes), fifth_bits(p + 2, codes); }
static inline void q5_1(const unsigned char *p, uint8_t *codes) { nibbles_32(p + 8, codes), fifth_bits(p + 4, codes); }
static inline void q8_0(const unsigned char *p, uint8_t *codes) {
    for (int i = 0; i < 32; i++) codes[i] = p[2 + i] ^ 0x80; // signed to offset
}

// The bias is the stored minimum, or -2^up scales for types that store none.
static void small_scales(const unsigned char *p, int up, float *scale, float *bias) {
    *scale = half_at(p), *bias = up ? -(float)(1 << up) * *scale : half_at(p + 2);
}

// -2^up * d; exact unless it overflows. Shifting the exponent does, but for zeros, subnormals and what comes out too large.
static inline bool half_shifted(uint16_t d, int up, uint16_t *out) {
    int exponent = d >> 10 & 31;
    if (exponent && exponent + up < 31) return *out = (uint16_t)((d + (up << 10)) ^ 0x8000), true;
    float f = -(float)(1 << up) * mica_f16_to_f32(d);
    *out = mica_f32_to_f16(f);
    return mica_f16_to_f32(*out) == f;
}

static inline bool half_is_nan(uint16_t h) { return (h & 0x7FFF) > 0x7C00; }

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

static inline void q2_k(const unsigned char *p, uint8_t *codes) { crumbs_256(p + 16, codes); }

static void q2_k_scales(const unsigned char *p, float *scales, float *biases) {
    float d = half_at(p + 80), dmin = half_at(p + 82);
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(p[g] & 15);
        biases[g] = -(dmin * (float)(p[g] >> 4));
    }
}

// p: 32 bytes of high bits, 64 of low pairs, 12 of 6-bit scales, d. A set high bit means "do not subtract 4".
static inline void q3_k(const unsigned char *p, uint8_t *codes) {
    crumbs_256(p + 32, codes);
    high_bits_256(p, 2, codes);
}

static void q3_k_scales(const unsigned char *p, float *scales, float *biases) {
    const unsigned char *s = p + 96;
    float d = half_at(p + 108);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> (g / 4 * 2) & 3;
        scales[g] = d * (float)((low | high << 4) - 32);
        biases[g] = -4 * scales[g];
    }
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

// q4_k and q5_k.
static void paired_scales(const unsigned char *p, float *scales, float *biases) {
    six_bit_pairs(p + 4, half_at(p), half_at(p + 2), scales, biases);
}

static inline void q4_k(const unsigned char *p, uint8_t *codes) { nibbles_256(p + 16, codes); }

static inline void q5_k(const unsigned char *p, uint8_t *codes) {
    nibbles_256(p + 48, codes);
    high_bits_256(p + 16, 4, codes);
}

// p: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, d.
static inline void q6_k(const unsigned char *p, uint8_t *codes) {
    for (int run = 0; run < 8; run++) {
        const unsigned char *low = p + run / 4 * 64 + run % 2 * 32, *high = p + 128 + run / 4 * 32;
        for (int i = 0; i < 32; i++)
            codes[run * 32 + i] = (uint8_t)((low[i] >> (run / 2 % 2 * 4) & 15) | (high[i] >> (run % 4 * 2) & 3) << 4);
    }
}

static void q6_k_scales(const unsigned char *p, float *scales, float *biases) {
    float d = half_at(p + 208);
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(int8_t)p[192 + g];
        biases[g] = -32 * scales[g];
    }
}

// ---- table -------------------------------------------------------------------------------------------
// A function a type that takes many blocks apart, so that the one for a block is inlined.
#define RUN(type, weights, bytes)                                                             \
    static void type##_run(const unsigned char *p, size_t n, uint8_t *codes) {                \
        for (size_t i = 0; i < n; i++) type(p + i * (bytes), codes + i * (weights));          \
    }
RUN(q4_0, 32, 18)
RUN(q4_1, 32, 20)
RUN(q5_0, 32, 22)
RUN(q5_1, 32, 24)
RUN(q8_0, 32, 34)
RUN(q2_k, 256, 84)
RUN(q3_k, 256, 110)
RUN(q4_k, 256, 144)
RUN(q5_k, 256, 176)
RUN(q6_k, 256, 210)

static const struct block_type {
    unsigned weights, bytes;
    int bits, group;
    void (*codes)(const unsigned char *blocks, size_t n, uint8_t *codes);
    void (*scales)(const unsigned char *block, float *scales, float *biases); // NULL: a block of 32, its bias
    int up;                                                                   // is -2^up scales, or stored if that is 0
} blocks[] = {
    [MICA_GGML_F32] = {1, 4, 0, 0, NULL, NULL, 0}, [MICA_GGML_F16] = {1, 2, 0, 0, NULL, NULL, 0},
    [MICA_GGML_BF16] = {1, 2, 0, 0, NULL, NULL, 0}, [MICA_GGML_Q4_0] = {32, 18, 4, 32, q4_0_run, NULL, 3},
    [MICA_GGML_Q4_1] = {32, 20, 4, 32, q4_1_run, NULL, 0}, [MICA_GGML_Q5_0] = {32, 22, 5, 32, q5_0_run, NULL, 4},
    [MICA_GGML_Q5_1] = {32, 24, 5, 32, q5_1_run, NULL, 0}, [MICA_GGML_Q8_0] = {32, 34, 8, 32, q8_0_run, NULL, 7},
    [MICA_GGML_Q2_K] = {256, 84, 2, 16, q2_k_run, q2_k_scales, 0}, [MICA_GGML_Q3_K] = {256, 110, 3, 16, q3_k_run, q3_k_scales, 0},
    [MICA_GGML_Q4_K] = {256, 144, 4, 32, q4_k_run, paired_scales, 0}, [MICA_GGML_Q5_K] = {256, 176, 5, 32, q5_k_run, paired_scales, 0},
    [MICA_GGML_Q6_K] = {256, 210, 6, 16, q6_k_run, q6_k_scales, 0},
};

bool mica_ggml_affine(mica_ggml_type type, mica_quant_spec *spec) {
    const struct block_type *b = &blocks[type];
    if (b->codes) *spec = (mica_quant_spec){MICA_AFFINE, b->bits, b->group};
    return b->codes != NULL;
}

bool mica_ggml_block(uint64_t type, unsigned *weights, unsigned *bytes) {
    if (type >= MICA_COUNT(blocks) || !blocks[type].weights) return false;
    *weights = blocks[type].weights, *bytes = blocks[type].bytes;
    return true;
}

bool mica_ggml_half_scales(mica_ggml_type type) { return !blocks[type].scales; }
size_t mica_ggml_row_bytes(mica_ggml_type type, size_t in) { return in / blocks[type].weights * blocks[type].bytes; }

static bool unpack_halves(const struct block_type *b, const unsigned char *p, size_t n, uint16_t *scales, uint16_t *biases) {
    bool exact = true;
    for (size_t i = 0; i < n; i++, p += b->bytes) {
        scales[i] = bits_at(p);
        if (b->up) exact &= half_shifted(scales[i], b->up, &biases[i]);
        else biases[i] = bits_at(p + 2);
        if (half_is_nan(scales[i]) || half_is_nan(biases[i])) exact = false;
    }
    return exact;
}

enum { AHEAD = 6144 };

bool mica_ggml_unpack_run(mica_ggml_type type, mica_dtype scale_dtype, const unsigned char *src, size_t n, uint8_t *codes, void *scales,
                          void *biases) {
    const struct block_type *b = &blocks[type];
    size_t groups = b->weights / (unsigned)b->group, count = n / b->weights;
    for (size_t i = 0; i < count * b->bytes; i += 64) __builtin_prefetch(src + i + AHEAD); // hardware stops at the page's end
    b->codes(src, count, codes);
    if (scale_dtype == MICA_F16) return unpack_halves(b, src, count, scales, biases);
    float *s = scales, *m = biases;
    for (size_t i = 0; i < count; i++, s += groups, m += groups) {
        if (b->scales) b->scales(src + i * b->bytes, s, m);
        else small_scales(src + i * b->bytes, b->up, s, m);
    }
    return true;
}
