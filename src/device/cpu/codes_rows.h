// SPDX-License-Identifier: Apache-2.0
// Rows of 8-bit codes, symmetric with one scale a row: x = scale * code, |code| <= 127. Plain C in a shape that
// compilers turn into vectors with the flags of the file that includes it; every level gives the same codes.
#ifndef MICA_DEVICE_CPU_CODES_ROWS_H
#define MICA_DEVICE_CPU_CODES_ROWS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Greatest magnitude as bits: non-negative floats are in the order of their bits, and infinities and NaN come last.
static uint32_t codes_greatest(const float *x, size_t n) {
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7FFFFFFF;
        most = bits > most ? bits : most;
    }
    return most;
}

// Adding 1.5 * 2^23 rounds to a whole number, whose low byte is the code. A row that is not finite gets the scale NaN.
static float row_to_codes(int8_t *codes, const float *x, size_t n) {
    uint32_t most = codes_greatest(x, n);
    float greatest, scale, inverse;
    memcpy(&greatest, &most, sizeof greatest);
    scale = greatest / 127.0f, inverse = 127.0f / greatest;
    if (most >= 0x7F800000 || scale < 0x1p-120f) { // 127 / greatest might be infinite: such a row counts as zeros
        memset(codes, 0, n);
        return most >= 0x7F800000 ? NAN : 0.0f;
    }
    for (size_t i = 0; i < n; i++) {
        float y = x[i] * inverse + 12582912.0f;
        uint32_t bits;
        memcpy(&bits, &y, sizeof bits);
        codes[i] = (int8_t)(uint8_t)bits;
    }
    return scale;
}

static void row_from_codes(float *y, const int8_t *codes, float scale, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = (float)codes[i] * scale;
}
#endif
