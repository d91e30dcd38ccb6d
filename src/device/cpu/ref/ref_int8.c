// SPDX-License-Identifier: Apache-2.0
// Products with activations in 8 bits, level ref: the formulas of isa_int8.h as they stand there, one output at a time.
#include "base/half.h"
#include "device/cpu/isa.h"
#include "device/cpu/tiles.h"
#include <math.h>
#include <string.h>

enum { OUTPUTS = MICA_TILE_OUTPUTS, CHUNK = MICA_TILE_CHUNK };

// Code of input i in a block of height h.
static size_t code_at(size_t i, size_t h) { return mica_cpu_int8_place(i) / 4 * 4 * h + mica_cpu_int8_place(i) % 4; }

static void round_group(const float *x, size_t group, size_t h, int8_t *codes, float *scale, float *sum) {
    float most = 0;
    int32_t total = 0;
    for (size_t i = 0; i < group; i++)
        if (!(fabsf(x[i]) <= most) && !isnan(most)) most = fabsf(x[i]); // a NaN stays
    bool none = most < MICA_INT8_LEAST;
    float inverse = none ? 0 : 127.0f / most;
    for (size_t i = 0; i < group; i++) {
        float v = x[i] * inverse;
        int8_t code = fabsf(v) < 127.5f ? (int8_t)lrintf(v) : 0; // not finite: the scale tells
        codes[code_at(i, h)] = code;
        total += code;
    }
    *scale = none ? 0 : most * (1.0f / 127);
    *sum = *scale * (float)total;
}

static void round_row(mica_dtype type, const void *x, size_t n, size_t k, size_t group, size_t h, int8_t *codes, float *scales, float *sums) {
    for (size_t g = 0; g < k / group; g++) {
        float part[128] = {0};
        for (size_t i = 0; i < group && g * group + i < n; i++) part[i] = mica_cpu_load1(type, x, g * group + i);
        round_group(part, group, h, codes + g * group * h, scales + g * h, sums + g * h);
    }
}

// Output o of row r.
static float dot(const mica_cpu_tiles *t, const mica_cpu_int8_block *x, size_t r, const unsigned char *tile, size_t o) {
    size_t group = (size_t)t->group;
    uint8_t codes[CHUNK];
    float y = 0;
    for (size_t g = 0; g < x->groups; g++) {
        size_t part = g % t->groups;
        if (g && part == 0) tile += t->bytes;
        int32_t sum = 0;
        for (size_t i = part * group; i < (part + 1) * group; i++) {
            if (i % CHUNK == 0 || i == part * group) mica_cpu_tiles_codes(tile + i / CHUNK * (size_t)t->bits * 64, t->bits, o, codes);
            sum += codes[i % CHUNK] * x->codes[code_at(g * group + i - part * group, x->rows) + 4 * r];
        }
        float s = mica_cpu_load1(t->scale_dtype, tile + t->codes, part * OUTPUTS + o);
        float b = mica_cpu_load1(t->scale_dtype, tile + t->codes, (t->groups + part) * OUTPUTS + o);
        y = fmaf((float)sum, s * x->scales[g * x->rows + r], y);
        y = fmaf(b, x->sums[g * x->rows + r], y);
    }
    return y;
}

static void tiles(const mica_cpu_tiles *t, const mica_cpu_int8_block *x, const unsigned char *w, size_t n, float *y, size_t ldy) {
    for (size_t j = 0; j < n; j++)
        for (size_t r = 0; r < x->rows; r++)
            y[r * ldy + j] = dot(t, x, r, w + j / OUTPUTS * t->per_column * t->bytes, j % OUTPUTS);
}

void mica_cpu_ref_int8(mica_cpu_int8_isa *isa) { *isa = (mica_cpu_int8_isa){.round_row = round_row, .tiles = tiles}; }
