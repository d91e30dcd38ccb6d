// SPDX-License-Identifier: Apache-2.0
// What the tests and benches of matrix products share: guarded buffers, random tensors, a device without the engine,
// and an oracle in double. No cmocka here, so that a static program can use it too.
#ifndef MICA_TESTS_MATMUL_FIXTURE_H
#define MICA_TESTS_MATMUL_FIXTURE_H

#include "base/half.h"
#include "base/quant.h"
#include "base/rng.h"
#include "device/cpu/cpu.h"
#include "device/cpu/isa.h"
#include "device/cpu/op_matmul.h"
#include "device/cpu/tiles.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// ---- guarded buffers: data ends (or starts) at an unmapped page ----------------------------------------
typedef struct guarded {
    unsigned char *base; // first usable byte
    size_t size;
} guarded;

enum { PAGE = 1 << 16 }; // a multiple of every page that Linux has

static inline guarded guarded_new(size_t size) {
    size = (size + PAGE - 1) / PAGE * PAGE;
    unsigned char *p = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + PAGE, size, PROT_READ | PROT_WRITE)) abort();
    return (guarded){p + PAGE, size};
}
static inline void guarded_free(guarded *g) { munmap(g->base - PAGE, g->size + 2 * PAGE); }
/** `bytes` bytes at either end. */
static inline unsigned char *guarded_place(const guarded *g, size_t bytes, bool at_end) {
    if (bytes > g->size) abort();
    return at_end ? g->base + g->size - bytes : g->base;
}

// ---- random values -------------------------------------------------------------------------------------
typedef struct stream { uint64_t seed, at; } stream;
static inline uint32_t next_bits(stream *s) { return mica_philox_at(s->seed, s->at++).v[0]; }
static inline size_t next_below(stream *s, size_t n) { return next_bits(s) % n; }
static inline float next_float(stream *s) { return mica_uniform_f32(next_bits(s)) * 2 - 1; }

static inline void put(mica_dtype type, void *data, size_t i, double v) {
    if (type == MICA_F64) memcpy((double *)data + i, &v, 8);
    else {
        float f = (float)v;
        mica_store_f32_run(type, &f, 1, (unsigned char *)data + i * mica_dtype_size(type));
    }
}
static inline double get(mica_dtype type, const void *data, size_t i) {
    double v;
    if (type != MICA_F64) return (double)mica_load_f32(type, data, i);
    memcpy(&v, (const unsigned char *)data + 8 * i, 8);
    return v;
}
static inline void fill_random(stream *s, mica_dtype type, void *data, size_t n) {
    for (size_t i = 0; i < n; i++) put(type, data, i, (double)next_float(s));
}

// ---- tensors and calls ---------------------------------------------------------------------------------
static inline mica_tensor tensor_of(mica_dtype type, void *data, int ndim, const int64_t *shape) {
    mica_tensor t = {.data = data, .dtype = type, .ndim = ndim, .contiguous = true};
    int64_t stride = 1;
    for (int d = ndim - 1; d >= 0; d--) t.shape[d] = shape[d], t.stride[d] = stride, stride *= shape[d];
    return t;
}
#define TENSOR(type, data, ...)                                                                                        \
    tensor_of(type, data, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static inline const mica_kernel *kernel_named(const char *op) {
    for (size_t i = 0; i < mica_cpu_matmul_kernel_count; i++)
        if (!strcmp(mica_cpu_matmul_kernels[i].op, op)) return &mica_cpu_matmul_kernels[i];
    for (size_t i = 0; i < mica_cpu_quant_kernel_count; i++)
        if (!strcmp(mica_cpu_quant_kernels[i].op, op)) return &mica_cpu_quant_kernels[i];
    abort();
}

/** Runs an op with scratch of exactly the size it asks for. */
static inline void run_call(const char *op, mica_call *c, const guarded *scratch) {
    const mica_kernel *k = kernel_named(op);
    size_t bytes = k->scratch ? (k->scratch(c) + 63) / 64 * 64 : 0;
    c->scratch = guarded_place(scratch, bytes, true);
    memset(c->scratch, 0xFF, bytes); // NaN everywhere
    k->run(c);
}

// ---- a quantised weight --------------------------------------------------------------------------------
typedef struct weight {
    mica_quant_spec spec;
    mica_dtype scale_dtype;
    size_t rows, in;
    unsigned char *words, *scales, *biases;
    double *value; // [rows][in], exact
    double *size;  // |scale*code| + |bias|: what rounding errors are relative to
} weight;

static inline size_t weight_words(const weight *w) { return w->rows * mica_quant_words(w->spec, w->in) * 4; }
static inline size_t weight_scales(const weight *w) {
    return w->rows * mica_quant_groups(w->spec, w->in) * mica_dtype_size(mica_quant_scale_dtype(w->spec, w->scale_dtype));
}

static inline unsigned weight_code(const weight *w, size_t row, size_t i) {
    size_t bits = (size_t)w->spec.bits, bit = row * w->in * bits + i * bits;
    unsigned code = 0;
    for (size_t b = 0; b < bits; b++, bit++) code |= (unsigned)(w->words[bit / 8] >> (bit % 8) & 1) << b;
    return code;
}

/** Fills words, scales and biases (already placed) at random and works out the values. */
static inline void weight_fill(weight *w, stream *s) {
    size_t groups = mica_quant_groups(w->spec, w->in), levels = (size_t)1 << w->spec.bits;
    for (size_t i = 0; i < weight_words(w); i++) w->words[i] = (unsigned char)next_bits(s);
    for (size_t i = 0; w->spec.mode == MICA_MXFP8 && i < weight_words(w); i++)
        if ((w->words[i] & 0x7F) == 0x7F) w->words[i] = 0; // NaN in e4m3
    bool affine = w->spec.mode == MICA_AFFINE;
    for (size_t i = 0; i < w->rows * groups; i++) {
        double scale = (double)next_float(s) * 2 / (double)levels;
        if (affine) put(w->scale_dtype, w->scales, i, scale), put(w->scale_dtype, w->biases, i, (double)next_float(s));
        else w->scales[i] = (unsigned char)(w->spec.mode == MICA_NVFP4 ? next_below(s, 0x60) : 120 + next_below(s, 8));
    }
    for (size_t r = 0; r < w->rows; r++)
        for (size_t i = 0; i < w->in; i++) {
            unsigned q = weight_code(w, r, i);
            size_t g = r * groups + i / (size_t)w->spec.group_size, at = r * w->in + i;
            double scale = affine ? get(w->scale_dtype, w->scales, g)
                           : w->spec.mode == MICA_NVFP4 ? (double)mica_e4m3_to_f32(w->scales[g])
                                                        : (double)mica_e8m0_to_f32(w->scales[g]);
            double code = affine ? (double)q
                          : (double)(w->spec.mode == MICA_MXFP8 ? mica_e4m3_to_f32((uint8_t)q) : mica_e2m1_to_f32((uint8_t)q));
            double bias = affine ? get(w->scale_dtype, w->biases, g) : 0;
            w->value[at] = scale * code + bias;
            w->size[at] = fabs(scale * code) + fabs(bias);
        }
}
#endif
