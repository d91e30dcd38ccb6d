// SPDX-License-Identifier: Apache-2.0
// MLX's quantised formats in plain C: packing, dequantising, and a quantiser that is bit-equal to MLX's (version 0.32).
// Order of operations and intermediate types follow what MLX computes on a CPU; where that looks arbitrary (bf16
// division in the floating-point modes, a zero group's scale byte of 127) the golden vectors fix it.
#include "base/quant.h"
#include "base/half.h"
#include <math.h>
#include <string.h>

// ---- specs -------------------------------------------------------------------------------------------
static const struct { const char *name; mica_quant_spec spec; } modes[MICA_QUANT_MODE_COUNT] = {
    [MICA_AFFINE] = {"affine", {MICA_AFFINE, 4, 64}},
    [MICA_MXFP4] = {"mxfp4", {MICA_MXFP4, 4, 32}},
    [MICA_NVFP4] = {"nvfp4", {MICA_NVFP4, 4, 16}},
    [MICA_MXFP8] = {"mxfp8", {MICA_MXFP8, 8, 32}},
};

const char *mica_quant_mode_name(mica_quant_mode mode) { return modes[mode].name; }
mica_quant_spec mica_quant_default(mica_quant_mode mode) { return modes[mode].spec; }

bool mica_quant_mode_parse(const char *name, mica_quant_mode *mode) {
    for (int i = 0; i < MICA_QUANT_MODE_COUNT; i++)
        if (!strcmp(name, modes[i].name)) return *mode = (mica_quant_mode)i, true;
    return false;
}

bool mica_quant_check(mica_quant_spec spec, mica_error *err) {
    if ((unsigned)spec.mode >= MICA_QUANT_MODE_COUNT) return mica_fail(err, MICA_ERR_ARGUMENT, "unknown quantisation mode %d", (int)spec.mode);
    const char *name = mica_quant_mode_name(spec.mode);
    mica_quant_spec only = mica_quant_default(spec.mode);
    if (spec.mode != MICA_AFFINE) {
        if (spec.bits != only.bits) return mica_fail(err, MICA_ERR_ARGUMENT, "%s quantisation has %d bits, not %d", name, only.bits, spec.bits);
        if (spec.group_size != only.group_size)
            return mica_fail(err, MICA_ERR_ARGUMENT, "%s quantisation has groups of %d, not %d", name, only.group_size, spec.group_size);
        return true;
    }
    if (spec.bits < 2 || spec.bits > 8 || spec.bits == 7)
        return mica_fail(err, MICA_ERR_ARGUMENT, "affine quantisation has 2, 3, 4, 5, 6 or 8 bits, not %d", spec.bits);
    if (spec.group_size != 16 && spec.group_size != 32 && spec.group_size != 64 && spec.group_size != 128)
        return mica_fail(err, MICA_ERR_ARGUMENT, "affine quantisation has groups of 32, 64 or 128, not %d", spec.group_size);
    return true;
}

bool mica_quant_fits(mica_quant_spec spec, size_t in) {
    return mica_quant_check(spec, NULL) && in && in % (size_t)spec.group_size == 0 && in * (size_t)spec.bits % 32 == 0;
}

// ---- packing -----------------------------------------------------------------------------------------
// Eight codes of b bits are b bytes of the bit stream. Between "one code a byte" and "b bits after b bits" lie three
// steps that halve the number of lanes; with b a constant each is two masks and a shift. Hosts are little-endian.
static inline __attribute__((always_inline)) void pack_eights(const uint8_t *codes, size_t in, unsigned char *p, const int b) {
    for (size_t i = 0; i + 8 <= in; i += 8, p += b) {
        uint64_t x;
        memcpy(&x, codes + i, 8);
        x = (x & 0x00FF00FF00FF00FFu) | (x & 0xFF00FF00FF00FF00u) >> (8 - b);
        x = (x & 0x0000FFFF0000FFFFu) | (x & 0xFFFF0000FFFF0000u) >> (16 - 2 * b);
        x = (x & 0x00000000FFFFFFFFu) | (x & 0xFFFFFFFF00000000u) >> (32 - 4 * b);
        memcpy(p, &x, (size_t)b);
    }
}

static inline __attribute__((always_inline)) void unpack_eights(const unsigned char *p, size_t in, uint8_t *codes, const int b) {
    const uint64_t four = ((uint64_t)1 << 4 * b) - 1, two = (((uint64_t)1 << 2 * b) - 1) * 0x0000000100000001u;
    const uint64_t one = (((uint64_t)1 << b) - 1) * 0x0001000100010001u;
    for (size_t i = 0; i + 8 <= in; i += 8, p += b) {
        uint64_t x = 0;
        memcpy(&x, p, (size_t)b);
        x = (x & four) | (x >> 4 * b & four) << 32;
        x = (x & two) | (x >> 2 * b & two) << 16;
        x = (x & one) | (x >> b & one) << 8;
        memcpy(codes + i, &x, 8);
    }
}

static void unpack_slowly(int bits, const unsigned char *p, size_t in, uint8_t *codes) {
    unsigned window = 0, mask = (1u << bits) - 1;
    int have = 0;
    for (size_t i = 0; i < in; i++) {
        if (have < bits) window |= (unsigned)*p++ << have, have += 8;
        codes[i] = (uint8_t)(window & mask);
        window >>= bits, have -= bits;
    }
}

static void pack_slowly(int bits, const uint8_t *codes, size_t in, unsigned char *p) {
    unsigned window = 0;
    int have = 0;
    for (size_t i = 0; i < in; i++) {
        window |= (unsigned)codes[i] << have, have += bits;
        if (have >= 8) *p++ = (unsigned char)window, window >>= 8, have -= 8;
    }
}

void mica_unpack_codes(int bits, const void *words, size_t in, uint8_t *codes) {
    const unsigned char *p = words;
    size_t whole = in / 8 * 8;
    switch (bits) {
    case 2: unpack_eights(p, whole, codes, 2); break;
    case 3: unpack_eights(p, whole, codes, 3); break;
    case 4: unpack_eights(p, whole, codes, 4); break;
    case 5: unpack_eights(p, whole, codes, 5); break;
    case 6: unpack_eights(p, whole, codes, 6); break;
    case 8: memcpy(codes, p, whole); break;
    default: whole = 0;
    }
    unpack_slowly(bits, p + whole / 8 * (size_t)bits, in - whole, codes + whole);
}

void mica_pack_codes(int bits, const uint8_t *codes, size_t in, void *words) {
    unsigned char *p = words;
    size_t whole = in / 8 * 8;
    switch (bits) {
    case 2: pack_eights(codes, whole, p, 2); break;
    case 3: pack_eights(codes, whole, p, 3); break;
    case 4: pack_eights(codes, whole, p, 4); break;
    case 5: pack_eights(codes, whole, p, 5); break;
    case 6: pack_eights(codes, whole, p, 6); break;
    case 8: memcpy(p, codes, whole); break;
    default: whole = 0;
    }
    pack_slowly(bits, codes + whole, in - whole, p + whole / 8 * (size_t)bits);
}

// ---- small floats ------------------------------------------------------------------------------------
float mica_e2m1_to_f32(uint8_t code) {
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return code & 8 ? -values[code & 7] : values[code & 7];
}

uint8_t mica_f32_to_e2m1(float f) {
    static const float midpoints[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
    float a = fabsf(f);
    uint8_t code = 0;
    for (int i = 0; i < 7; i++) code = (uint8_t)(code + (a > midpoints[i]));
    return code && f < 0 ? code | 8 : code;
}

float mica_e4m3_to_f32(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if ((code & 0x7F) == 0x7F) return mica_f32_from_bits(0x7FC00000u);
    float f = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return code & 0x80 ? -f : f;
}

uint8_t mica_f32_to_e4m3(float f) {
    uint8_t sign = signbit(f) ? 0x80 : 0;
    float a = fabsf(f);
    if (!(a < 464.0f)) return sign | 0x7E; // saturates; NaN too, as MLX
    if (a < 0x1p-6f) return sign | (uint8_t)rintf(a * 0x1p9f); // subnormals count in 2^-9; 8 of them are the first normal
    uint32_t u = mica_f32_bits(a);
    u += 0x7FFFFu + (u >> 20 & 1); // nearest even at 3 mantissa bits
    u = (u >> 20) - (120u << 3);
    return sign | (uint8_t)MICA_MIN(u, 0x7Eu);
}

float mica_e8m0_to_f32(uint8_t code) { return code ? mica_f32_from_bits((uint32_t)code << 23) : 0x1p-127f; }

// ---- element access ----------------------------------------------------------------------------------
static uint16_t load_u16(const void *p, size_t i) {
    uint16_t v;
    memcpy(&v, (const unsigned char *)p + 2 * i, 2);
    return v;
}

float mica_load_f32(mica_dtype dtype, const void *data, size_t i) {
    float f;
    double d;
    switch (dtype) {
    case MICA_F32: return memcpy(&f, (const unsigned char *)data + 4 * i, 4), f;
    case MICA_F64: return memcpy(&d, (const unsigned char *)data + 8 * i, 8), (float)d;
    case MICA_F16: return mica_f16_to_f32(load_u16(data, i));
    default: return mica_bf16_to_f32(load_u16(data, i));
    }
}

void mica_load_f32_run(mica_dtype dtype, const void *data, size_t first, size_t n, float *out) {
    const unsigned char *p = (const unsigned char *)data + first * mica_dtype_size(dtype);
    if (dtype == MICA_F32) memcpy(out, p, 4 * n);
    else if (dtype == MICA_BF16) for (size_t i = 0; i < n; i++) out[i] = mica_bf16_to_f32(load_u16(p, i));
    else for (size_t i = 0; i < n; i++) out[i] = mica_load_f32(dtype, p, i);
}

static void store_f32(mica_dtype dtype, float f, void *data, size_t i) {
    uint16_t h;
    double d;
    switch (dtype) {
    case MICA_F32: memcpy((unsigned char *)data + 4 * i, &f, 4); break;
    case MICA_F64: d = (double)f, memcpy((unsigned char *)data + 8 * i, &d, 8); break;
    case MICA_F16: h = mica_f32_to_f16(f), memcpy((unsigned char *)data + 2 * i, &h, 2); break;
    default: h = mica_f32_to_bf16(f), memcpy((unsigned char *)data + 2 * i, &h, 2); break;
    }
}

void mica_store_f32_run(mica_dtype dtype, const float *values, size_t n, void *data) {
    if (dtype == MICA_F32) memcpy(data, values, 4 * n);
    else for (size_t i = 0; i < n; i++) store_f32(dtype, values[i], data, i);
}

// ---- dequantise --------------------------------------------------------------------------------------
enum { RUN = 256 }; // codes unpacked at a time: a multiple of every group size and of 32

static void dequantize_group(const mica_quant_rows *q, size_t group, const uint8_t *codes, float *out) {
    size_t n = (size_t)q->spec.group_size;
    uint8_t byte = ((const uint8_t *)q->scales)[q->spec.mode == MICA_AFFINE ? 0 : group];
    float scale, bias;
    switch (q->spec.mode) {
    case MICA_AFFINE:
        scale = mica_load_f32(q->scale_dtype, q->scales, group), bias = mica_load_f32(q->scale_dtype, q->biases, group);
        for (size_t i = 0; i < n; i++) out[i] = scale * (float)codes[i] + bias;
        break;
    case MICA_MXFP8:
        scale = mica_e8m0_to_f32(byte);
        for (size_t i = 0; i < n; i++) out[i] = scale * mica_e4m3_to_f32(codes[i]);
        break;
    default:
        // With a tensor scale the block scales were stretched to use all of e4m3: MLX undoes 448 * 6 here.
        scale = q->spec.mode == MICA_MXFP4 ? mica_e8m0_to_f32(byte) : mica_e4m3_to_f32(byte);
        if (q->spec.mode == MICA_NVFP4 && q->global_scale != 0) scale *= q->global_scale / (448.0f * 6.0f);
        for (size_t i = 0; i < n; i++) out[i] = scale * mica_e2m1_to_f32(codes[i]);
    }
}

void mica_dequantize_rows(const mica_quant_rows *q, size_t in, size_t first, size_t count, float *out) {
    size_t size = (size_t)q->spec.group_size, groups = in / size, row_bytes = mica_quant_words(q->spec, in) * 4;
    uint8_t codes[RUN];
    for (size_t r = first; r < first + count; r++, out += in) {
        const unsigned char *row = (const unsigned char *)q->words + r * row_bytes;
        for (size_t at = 0; at < in; at += RUN) {
            size_t n = MICA_MIN((size_t)RUN, in - at);
            mica_unpack_codes(q->spec.bits, row + at * (size_t)q->spec.bits / 8, n, codes);
            for (size_t i = 0; i < n; i += size) dequantize_group(q, r * groups + (at + i) / size, codes + i, out + at + i);
        }
    }
}

// ---- quantise ----------------------------------------------------------------------------------------
static uint8_t nearest_code(float w, float scale, float bias, float top) {
    float q = rintf((w - bias) / scale);
    if (!(q > 0)) return 0; // NaN too
    return (uint8_t)(q < top ? q : top);
}

static void quantize_affine(mica_quant_spec spec, const float *w, float *scale_out, float *bias_out, uint8_t *codes) {
    float low = INFINITY, high = -INFINITY, top = (float)((1 << spec.bits) - 1);
    for (int i = 0; i < spec.group_size; i++) {
        high = w[i] > high ? w[i] : high;
        low = w[i] < low ? w[i] : low;
    }
    // The end farther from zero becomes the bias, so that zero is close to a code.
    bool from_low = fabsf(low) > fabsf(high);
    float scale = (high - low) / top, edge = from_low ? low : high, bias = 0;
    if (!(scale > 1e-7f)) scale = 1e-7f;
    if (!from_low) scale = -scale;
    float q0 = rintf(edge / scale);
    if (q0 != 0) scale = edge / q0, bias = edge;
    for (int i = 0; i < spec.group_size; i++) codes[i] = nearest_code(w[i], scale, bias, top);
    *scale_out = scale, *bias_out = bias;
}

// Rounds to the type of the weights: MLX computes the floating-point modes in that type.
static float round_to(mica_dtype dtype, float f) {
    if (dtype == MICA_BF16) return mica_bf16_to_f32(mica_f32_to_bf16(f));
    return dtype == MICA_F16 ? mica_f16_to_f32(mica_f32_to_f16(f)) : f;
}

// MLX takes the table entry of least distance, the first of equals. Within ±6 that is mica_f32_to_e2m1; far outside,
// where distances in the weights' type become equal by rounding, it is an earlier entry.
static uint8_t nearest_e2m1(mica_dtype dtype, float f) {
    if (fabsf(f) <= 6.0f) return mica_f32_to_e2m1(f);
    uint8_t best = 0;
    float least = fabsf(f);
    for (uint8_t code = 1; code < 16; code++) {
        float distance = fabsf(round_to(dtype, mica_e2m1_to_f32(code) - f));
        if (distance < least) least = distance, best = code;
    }
    return best;
}

static float largest(const float *w, int n) {
    float most = 0;
    for (int i = 0; i < n; i++) most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    return most;
}

// Smallest power of two that is >= x, as its biased exponent; 127 for zero.
static uint8_t power_of_two_above(float x) {
    if (x == 0) return 127;
    int exponent;
    float mantissa = frexpf(x, &exponent); // x = mantissa * 2^exponent, mantissa in [1/2, 1)
    int n = mantissa == 0.5f ? exponent - 1 : exponent;
    return (uint8_t)(MICA_MAX(-127, MICA_MIN(127, n)) + 127);
}

static uint8_t quantize_mx(mica_quant_spec spec, mica_dtype dtype, const float *w, uint8_t *codes) {
    float most = spec.mode == MICA_MXFP4 ? 6.0f : 448.0f;
    uint8_t scale = power_of_two_above(round_to(dtype, largest(w, spec.group_size) / most));
    float s = mica_e8m0_to_f32(scale);
    for (int i = 0; i < spec.group_size; i++)
        codes[i] = spec.mode == MICA_MXFP4 ? nearest_e2m1(dtype, w[i] / s) : mica_f32_to_e4m3(w[i] / s);
    return scale;
}

static uint8_t quantize_nv(mica_quant_spec spec, mica_dtype dtype, const float *w, uint8_t *codes) {
    uint8_t scale = mica_f32_to_e4m3(round_to(dtype, largest(w, spec.group_size) / 6.0f));
    float s = mica_e4m3_to_f32(scale);
    for (int i = 0; i < spec.group_size; i++) codes[i] = s == 0 ? 0 : nearest_e2m1(dtype, round_to(dtype, w[i] / s));
    return scale;
}

static void quantize_row(mica_quant_spec spec, mica_dtype dtype, const float *w, size_t in, size_t first_group, unsigned char *words,
                         void *scales, void *biases) {
    uint8_t codes[RUN];
    size_t size = (size_t)spec.group_size;
    for (size_t at = 0; at < in; at += RUN) {
        size_t n = MICA_MIN((size_t)RUN, in - at);
        for (size_t i = 0; i < n; i += size) {
            size_t group = first_group + (at + i) / size;
            if (spec.mode == MICA_AFFINE) {
                float scale, bias;
                quantize_affine(spec, w + at + i, &scale, &bias, codes + i);
                store_f32(dtype, scale, scales, group);
                store_f32(dtype, bias, biases, group);
            } else if (spec.mode == MICA_NVFP4) {
                ((uint8_t *)scales)[group] = quantize_nv(spec, dtype, w + at + i, codes + i);
            } else {
                ((uint8_t *)scales)[group] = quantize_mx(spec, dtype, w + at + i, codes + i);
            }
        }
        mica_pack_codes(spec.bits, codes, n, words + at * (size_t)spec.bits / 8);
    }
}

void mica_quantize_rows(mica_quant_spec spec, mica_dtype dtype, const float *w, size_t rows, size_t in, void *words, void *scales,
                        void *biases) {
    size_t groups = mica_quant_groups(spec, in), row_bytes = mica_quant_words(spec, in) * 4;
    for (size_t r = 0; r < rows; r++)
        quantize_row(spec, dtype, w + r * in, in, r * groups, (unsigned char *)words + r * row_bytes, scales, biases);
}
