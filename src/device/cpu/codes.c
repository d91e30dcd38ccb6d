// SPDX-License-Identifier: Apache-2.0
// Decoding of quantised rows as checkpoints store them (base/quant.h describes the format): runs that start anywhere,
// for products with weights that were not packed.
#include "device/cpu/product.h"

// Code i of a little-endian bit stream; never reads past the byte that holds its last bit.
static inline unsigned code_at(const unsigned char *bytes, unsigned bits, size_t i) {
    size_t bit = i * bits;
    unsigned shift = (unsigned)(bit & 7), w = bytes[bit / 8];
    if (shift + bits > 8) w |= (unsigned)bytes[bit / 8 + 1] << 8;
    return w >> shift & ((1u << bits) - 1);
}

static void affine_run(const mica_quant_rows *q, const unsigned char *words, size_t group0, size_t first, size_t n, float *to) {
    size_t group = (size_t)q->spec.group_size;
    for (size_t i = first; i < first + n;) {
        size_t g = i / group, end = MICA_MIN((g + 1) * group, first + n);
        float s = mica_cpu_load1(q->scale_dtype, q->scales, group0 + g);
        float b = mica_cpu_load1(q->scale_dtype, q->biases, group0 + g);
        for (; i < end; i++) *to++ = s * (float)code_at(words, (unsigned)q->spec.bits, i) + b;
    }
}

void mica_cpu_codes_run(const mica_quant_rows *q, size_t in, size_t row, size_t first, size_t n, float *to) {
    const unsigned char *words = (const unsigned char *)q->words + row * in * (size_t)q->spec.bits / 8;
    size_t group0 = row * (in / (size_t)q->spec.group_size);
    if (q->spec.mode == MICA_AFFINE) {
        affine_run(q, words, group0, first, n, to);
        return;
    }
    const uint8_t *scales = (const uint8_t *)q->scales + group0;
    for (size_t i = first; i < first + n; i++) {
        uint8_t scale = scales[i / (size_t)q->spec.group_size];
        unsigned code = code_at(words, (unsigned)q->spec.bits, i);
        float s = q->spec.mode == MICA_NVFP4 ? mica_e4m3_to_f32(scale) : mica_e8m0_to_f32(scale);
        float v = q->spec.mode == MICA_MXFP8 ? mica_e4m3_to_f32((uint8_t)code) : mica_e2m1_to_f32((uint8_t)code);
        if (q->global_scale != 0) s *= q->global_scale; // nvfp4
        *to++ = s * v;
    }
}
