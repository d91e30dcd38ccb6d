// SPDX-License-Identifier: Apache-2.0
// Row and attention kernels, level ref: each formula as it is written on paper, in f32, one element after the other.
// The types differ only in how elements are read and written: ref_rows_template.h, once per type.
#include "base/half.h"
#include "device/cpu/codes_rows.h"
#include "device/cpu/isa.h"
#include "device/device.h"
#include <math.h>

static float one_exp(float x) { return expf(x); }
static float one_tanh(float x) { return tanhf(x); }
// exp of a negative number only: neither branch overflows or cancels.
static float one_sigmoid(float x) {
    float e = expf(-fabsf(x));
    return x >= 0 ? 1.0f / (1.0f + e) : e / (1.0f + e);
}
// x = -inf gives 0 (the limit), where PyTorch has NaN.
static float one_silu(float x) { return x == -INFINITY ? 0.0f : x * one_sigmoid(x); }
// erfc, not 1 + erf: the left tail keeps its relative precision.
static float one_gelu(float x) { return x == -INFINITY ? 0.0f : 0.5f * x * erfcf(-x * 0.70710678118654752f); }
// (1 + tanh u) / 2 = sigmoid(2u), which does not cancel in the left tail.
static float one_gelu_tanh(float x) {
    float u = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return x == -INFINITY ? 0.0f : x * one_sigmoid(2.0f * u);
}

// Beyond the clamp slopes are 0 or 1 to the last bit.
static float slope_swiglu(float x) {
    x = x < -104 ? -104 : x > 104 ? 104 : x;
    float s = one_sigmoid(x);
    return s * (1 + x * (1 - s));
}
static float slope_geglu(float x) {
    x = x < -30 ? -30 : x > 30 ? 30 : x;
    float s = one_sigmoid(2 * 0.79788456080286536f * (x + 0.044715f * x * x * x));
    return s + x * s * (1 - s) * 2 * 0.79788456080286536f * (1 + 3 * 0.044715f * x * x);
}

static float two_add(float a, float b) { return a + b; }
static float two_sub(float a, float b) { return a - b; }
static float two_mul(float a, float b) { return a * b; }
static float two_div(float a, float b) { return a / b; }
static float two_swiglu(float a, float b) { return one_silu(a) * b; }
static float two_geglu(float a, float b) { return one_gelu_tanh(a) * b; }

static float weights(float *s, size_t n, float *max) {
    float m = *max, sum = 0;
    for (size_t j = 0; j < n; j++)
        if (!(s[j] <= m)) m = s[j];
    *max = m;
    for (size_t j = 0; j < n; j++) {
        s[j] = m == -INFINITY ? 0.0f : expf(s[j] - m);
        sum += s[j];
    }
    return sum;
}

// Row r of the block: scores, weights relative to the new maximum, older sums scaled down to it.
static void flash_row(const mica_cpu_flash *b, size_t r) {
    const float *q = (const float *)b->q + r * b->Dp;
    float *s = b->scores + r * MICA_CPU_KEYS, *acc = b->acc + r * b->Dp, m = b->m[r];
    for (int32_t j = b->lo[r]; j < b->hi[r]; j++) {
        const float *k = (const float *)b->k + (size_t)j * b->Dp;
        float dot = 0;
        for (size_t d = 0; d < b->Dp; d++) dot += q[d] * k[d];
        s[j] = dot * b->scale + (b->bias ? b->bias[r * MICA_CPU_KEYS + (size_t)j] : 0.0f);
        if (!(s[j] <= m)) m = s[j];
    }
    if (m == -INFINITY) return; // nothing seen so far
    float old = expf(b->m[r] - m);
    b->m[r] = m, b->l[r] *= old;
    for (size_t d = 0; d < b->Dp; d++) acc[d] *= old;
    for (int32_t j = b->lo[r]; j < b->hi[r]; j++) {
        const float *v = (const float *)b->v + (size_t)j * b->Dp;
        float p = expf(s[j] - m);
        b->l[r] += p;
        for (size_t d = 0; d < b->Dp; d++) acc[d] += p * v[d];
    }
}

static void flash(const mica_cpu_flash *b) {
    for (size_t r = 0; r < b->R; r++) flash_row(b, r);
}

// Query r against the keys it sees: p and w are rows of workspace.
static void flash_grad_row(const mica_cpu_flash_grad *b, size_t r, float *p, float *w) {
    const float *q = (const float *)b->q + r * b->Dp, *g = (const float *)b->g + r * b->Dp, *k = b->k, *v = b->v;
    float max = -INFINITY, sum = 0, dot = 0, *dq = b->dq + r * b->Dp;
    for (size_t d = 0; d < b->Dp; d++) dq[d] = 0;
    for (int32_t j = b->lo[r]; j < b->hi[r]; j++) {
        p[j] = w[j] = 0;
        for (size_t d = 0; d < b->Dp; d++) p[j] += q[d] * k[(size_t)j * b->Dp + d];
        for (size_t d = 0; d < b->Dp; d++) w[j] += g[d] * v[(size_t)j * b->Dp + d];
        p[j] *= b->scale;
        if (!(p[j] <= max)) max = p[j];
    }
    for (int32_t j = b->lo[r]; j < b->hi[r]; j++) sum += p[j] = expf(p[j] - max);
    for (int32_t j = b->lo[r]; j < b->hi[r]; j++) dot += (p[j] /= sum) * w[j];
    for (int32_t j = b->lo[r]; j < b->hi[r]; j++) {
        float s = b->scale * p[j] * (w[j] - dot);
        size_t at = (size_t)j * b->Dp;
        for (size_t d = 0; d < b->Dp; d++) b->dv[at + d] += p[j] * g[d], b->dk[at + d] += s * q[d], dq[d] += s * k[at + d];
    }
}

static void flash_grad(const mica_cpu_flash_grad *b) {
    for (size_t r = 0; r < MICA_CPU_KEYS; r++) flash_grad_row(b, r, b->p, b->w);
}

static void adam_step(float *p, const float *g, float *m, float *v, const float *a, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float d = g[i] * a[MICA_ADAM_SCALE];
        m[i] = m[i] * a[MICA_ADAM_BETA1] + d * a[MICA_ADAM_NEW1];
        v[i] = v[i] * a[MICA_ADAM_BETA2] + d * d * a[MICA_ADAM_NEW2];
        float root = sqrtf(v[i]) * a[MICA_ADAM_ROOT];
        p[i] = p[i] * a[MICA_ADAM_KEEP] - m[i] * a[MICA_ADAM_RATE] / (root + a[MICA_ADAM_EPS]);
    }
}

#define T float
#define NAME(f) f##_f32
#define GET(v) (v)
#define PUT(v) (v)
#include "device/cpu/ref/ref_rows_template.h"

#define T uint16_t
#define NAME(f) f##_f16
#define GET(v) mica_f16_to_f32(v)
#define PUT(v) mica_f32_to_f16(v)
#include "device/cpu/ref/ref_rows_template.h"

#define T uint16_t
#define NAME(f) f##_bf16
#define GET(v) mica_bf16_to_f32(v)
#define PUT(v) mica_f32_to_bf16(v)
#include "device/cpu/ref/ref_rows_template.h"

static void scores_codes(float *s, size_t ss, const void *q, const void *k, size_t G, size_t n, size_t Dh, float scale) {
    const int8_t *b = k;
    for (size_t g = 0; g < G; g++) {
        const float *a = (const float *)q + g * mica_cpu_head_pad(Dh);
        for (size_t j = 0; j < n; j++) {
            float dot = 0;
            for (size_t d = 0; d < Dh; d++) dot += a[d] * (float)b[j * Dh + d];
            s[g * ss + j] = dot * scale;
        }
    }
}

static void values_codes(float *acc, const float *p, size_t ps, const void *v, size_t G, size_t n, size_t Dh) {
    const int8_t *b = v;
    for (size_t g = 0; g < G; g++)
        for (size_t j = 0; j < n; j++)
            for (size_t d = 0; d < Dh; d++) acc[g * Dh + d] += p[g * ps + j] * (float)b[j * Dh + d];
}

void mica_cpu_ref_rows(mica_cpu_rows_isa *isa) {
    isa->adam_step = adam_step;
    isa->to_codes = row_to_codes, isa->from_codes = row_from_codes;
    for (int t = 0; t < MICA_CPU_FLOATS; t++) isa->scores_codes[t] = scores_codes, isa->values_codes[t] = values_codes;
    fill_f32(isa, MICA_F32);
    fill_f16(isa, MICA_F16);
    fill_bf16(isa, MICA_BF16);
}
