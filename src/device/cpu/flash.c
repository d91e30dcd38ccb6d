// SPDX-License-Identifier: Apache-2.0
// Workspace and bookkeeping of streaming attention (see flash.h); the arithmetic is the level's flash kernel.
#include "device/cpu/flash.h"
#include <math.h>
#include <string.h>

static unsigned char *carve(unsigned char *base, size_t *at, size_t bytes) {
    unsigned char *p = base ? base + *at : NULL;
    *at += mica_walk_round(bytes);
    return p;
}

static size_t place(mica_flash_work *w, unsigned char *base, size_t R, size_t Dh) {
    size_t row = mica_cpu_head_pad(Dh) * sizeof(float), at = 0;
    w->q = carve(base, &at, R * row);
    w->k = carve(base, &at, MICA_CPU_KEYS * row);
    w->v = carve(base, &at, MICA_CPU_KEYS * row);
    w->scores = (float *)(void *)carve(base, &at, R * MICA_CPU_KEYS * sizeof(float));
    w->bias = (float *)(void *)carve(base, &at, R * MICA_CPU_KEYS * sizeof(float));
    w->acc = (float *)(void *)carve(base, &at, R * row);
    w->m = (float *)(void *)carve(base, &at, R * sizeof(float));
    w->l = (float *)(void *)carve(base, &at, R * sizeof(float));
    w->lo = (int32_t *)(void *)carve(base, &at, R * sizeof(int32_t));
    w->hi = (int32_t *)(void *)carve(base, &at, R * sizeof(int32_t));
    w->row = carve(base, &at, Dh * sizeof(float));
    return at;
}

size_t mica_flash_bytes(size_t R, size_t Dh) {
    mica_flash_work w;
    return place(&w, NULL, R, Dh);
}

mica_flash_work mica_flash_place(unsigned char *scratch, size_t R, size_t Dh) {
    mica_flash_work w;
    place(&w, scratch, R, Dh);
    return w;
}

void mica_flash_start(const mica_flash_work *w, size_t R, size_t Dh) {
    for (size_t r = 0; r < R; r++) w->m[r] = -INFINITY, w->l[r] = 0;
    memset(w->acc, 0, R * mica_cpu_head_pad(Dh) * sizeof(float));
}

void mica_flash_add(const mica_cpu_rows_isa *isa, mica_dtype dtype, const mica_flash_work *w, size_t R, size_t Dh,
                    float scale, bool bias) {
    isa->flash[dtype](&(mica_cpu_flash){.R = R,
                                        .Dp = mica_cpu_head_pad(Dh),
                                        .q = w->q,
                                        .k = w->k,
                                        .v = w->v,
                                        .lo = w->lo,
                                        .hi = w->hi,
                                        .bias = bias ? w->bias : NULL,
                                        .scale = scale,
                                        .scores = w->scores,
                                        .m = w->m,
                                        .l = w->l,
                                        .acc = w->acc});
}

void mica_flash_finish(const mica_cpu_rows_isa *isa, mica_dtype dtype, const mica_flash_work *w, size_t r, size_t Dh,
                       void *out) {
    float *acc = w->acc + r * mica_cpu_head_pad(Dh), l = w->l[r];
    isa->scale[MICA_F32](acc, acc, w->m[r] == -INFINITY ? 0.0f : 1.0f / l, Dh);
    isa->from_f32[dtype](out, acc, Dh);
}
