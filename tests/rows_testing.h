// SPDX-License-Identifier: Apache-2.0
// For tests of CPU op kernels: a device of any level and thread count, tensors in guarded memory and odd layouts,
// values as doubles, and comparison with an oracle in double by one table of tolerances.
#ifndef MICA_TESTS_ROWS_TESTING_H
#define MICA_TESTS_ROWS_TESTING_H

#include "base/half.h"
#include "base/rng.h"
#include "device/cpu/cpu.h"
#include "device/cpu/isa.h"
#include "device/cpu/rows_kernels.h"
#include <assert.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

// ---- guarded memory: [no access][pages][no access], the data flush with the end or with the start ----
typedef struct guarded {
    unsigned char *base, *data;
    size_t total;
} guarded;

static inline guarded guarded_new(size_t bytes, bool at_start) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    if (!inner) inner = page;
    guarded g = {.total = inner + 2 * page};
    g.base = mmap(NULL, g.total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED || mprotect(g.base + page, inner, PROT_READ | PROT_WRITE)) abort();
    g.data = g.base + page + (at_start ? 0 : inner - bytes);
    return g;
}
static inline void guarded_free(guarded *g) { munmap(g->base, g->total); }

// ---- tensors ----
typedef enum layout {
    CONTIGUOUS,
    PADDED,
    REVERSED,
    LAYOUTS
} layout; // PADDED: gaps between rows; REVERSED: first axis fastest

typedef struct array {
    mica_tensor t;
    guarded memory;
    double *values; // in logical order, rounded to the type
    size_t count;
} array;

static inline double value_get(mica_dtype dtype, const void *p) {
    switch (dtype) {
    case MICA_F32: return (double)*(const float *)p;
    case MICA_F16: return (double)mica_f16_to_f32(*(const uint16_t *)p);
    case MICA_BF16: return (double)mica_bf16_to_f32(*(const uint16_t *)p);
    case MICA_F64: return *(const double *)p;
    case MICA_BOOL:
    case MICA_U8: return *(const uint8_t *)p;
    case MICA_U16: return *(const uint16_t *)p;
    case MICA_U32: return *(const uint32_t *)p;
    case MICA_U64: return (double)*(const uint64_t *)p;
    case MICA_I8: return *(const int8_t *)p;
    case MICA_I16: return *(const int16_t *)p;
    case MICA_I32: return *(const int32_t *)p;
    default: return (double)*(const int64_t *)p;
    }
}

static inline void value_set(mica_dtype dtype, void *p, double v) {
    switch (dtype) {
    case MICA_F32: *(float *)p = (float)v; break;
    case MICA_F16: *(uint16_t *)p = mica_f32_to_f16((float)v); break;
    case MICA_BF16: *(uint16_t *)p = mica_f32_to_bf16((float)v); break;
    case MICA_F64: *(double *)p = v; break;
    case MICA_BOOL: *(uint8_t *)p = v != 0; break;
    case MICA_U8: *(uint8_t *)p = (uint8_t)v; break;
    case MICA_U16: *(uint16_t *)p = (uint16_t)v; break;
    case MICA_U32: *(uint32_t *)p = (uint32_t)v; break;
    case MICA_U64: *(uint64_t *)p = (uint64_t)v; break;
    case MICA_I8: *(int8_t *)p = (int8_t)v; break;
    case MICA_I16: *(int16_t *)p = (int16_t)v; break;
    case MICA_I32: *(int32_t *)p = (int32_t)v; break;
    default: *(int64_t *)p = (int64_t)v; break;
    }
}

static inline size_t array_offset(const array *a, size_t i) {
    size_t at = 0;
    for (int d = a->t.ndim - 1; d >= 0; d--) {
        at += i % (size_t)a->t.shape[d] * (size_t)a->t.stride[d];
        i /= (size_t)a->t.shape[d];
    }
    return at * mica_dtype_size(a->t.dtype);
}

static inline void array_put(array *a, size_t i, double v) {
    void *p = a->t.data + array_offset(a, i);
    value_set(a->t.dtype, p, v);
    a->values[i] = value_get(a->t.dtype, p);
}

/** Memory is filled with 0xFF (NaN) first, so that gaps and padding show if they are read. */
static inline array array_new(mica_dtype dtype, layout how, int ndim, const int64_t *shape) {
    array a = {.t = {.dtype = dtype, .ndim = ndim, .contiguous = how == CONTIGUOUS}, .count = 1};
    size_t extent = 1;
    for (int i = 0; i < ndim; i++) {
        int d = how == REVERSED ? i : ndim - 1 - i;
        a.t.shape[d] = shape[d];
        a.t.stride[d] = (int64_t)extent;
        extent *= (size_t)shape[d] + (how == PADDED && i == 0 ? 3 : 0);
        a.count *= (size_t)shape[d];
    }
    static unsigned parity;
    a.memory = guarded_new((a.count ? extent : 0) * mica_dtype_size(dtype), ++parity % 4 == 0);
    a.t.data = a.memory.data;
    memset(a.t.data, 0xFF, (a.count ? extent : 0) * mica_dtype_size(dtype));
    a.values = calloc(a.count + 1, sizeof *a.values);
    if (how == PADDED && ndim) { // the gap after the last row is not part of the view: put the view's end at the guard
        size_t gap = a.count ? 3 * mica_dtype_size(dtype) : 0;
        if (a.memory.data != a.memory.base + (size_t)sysconf(_SC_PAGESIZE) && a.count) a.t.data += gap;
    }
    return a;
}
static inline void array_free(array *a) {
    guarded_free(&a->memory);
    free(a->values);
}

static inline double random_normal(uint64_t seed, uint64_t i) {
    mica_philox p = mica_philox_at(seed, i);
    double u = mica_uniform_f64(p.v[0], p.v[1]) + 1e-300, v = mica_uniform_f64(p.v[2], p.v[3]);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static inline array array_random(mica_dtype dtype, layout how, int ndim, const int64_t *shape, uint64_t seed,
                                 double sigma) {
    array a = array_new(dtype, how, ndim, shape);
    for (size_t i = 0; i < a.count; i++) array_put(&a, i, sigma * random_normal(seed, i));
    return a;
}

static inline void array_read(array *a) {
    for (size_t i = 0; i < a->count; i++) a->values[i] = value_get(a->t.dtype, a->t.data + array_offset(a, i));
}

#define SHAPE(...)                                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }

// ---- devices and calls ----
enum { MOST_THREADS = 4 };
static mica_cpu_device test_device;

static inline void device_use(const mica_cpu_isa *isa, size_t threads) {
    static mica_pool *pools[MOST_THREADS + 1];
    if (!pools[threads]) pools[threads] = mica_pool_new(threads);
    test_device = (mica_cpu_device){.pool = pools[threads], .isa = isa};
}

static inline const mica_kernel *kernel_find(const char *op) {
    for (size_t i = 0; i < mica_cpu_rows_kernel_count; i++)
        if (!strcmp(mica_cpu_rows_kernels[i].op, op)) return &mica_cpu_rows_kernels[i];
    fprintf(stderr, "no kernel %s\n", op);
    abort();
}

/** Runs an op into `out`; in[i] NULL = absent input. */
static inline void kernel_run(const char *op, const mica_params *params, array *out, int inputs, array *const *in) {
    const mica_kernel *k = kernel_find(op);
    static const mica_params none;
    mica_call c = {.device = &test_device.device, .params = params ? params : &none, .inputs = inputs, .out = out->t};
    for (int i = 0; i < inputs; i++)
        if (in[i]) c.in[i] = in[i]->t;
    mica_call blind = c; // scratch functions must not look at data
    for (int i = 0; i < inputs; i++) blind.in[i].data = NULL;
    blind.out.data = NULL;
    size_t bytes = k->scratch ? (k->scratch(&blind) + 63) / 64 * 64 : 0;
    guarded scratch = guarded_new(bytes, false);
    memset(scratch.data, 0xFF, bytes);
    c.scratch = scratch.data;
    k->run(&c);
    guarded_free(&scratch);
    array_read(out);
}

/** Runs the op with 1 to 4 threads; the results must be equal bit for bit. `out` holds that of the last run. */
static inline void kernel_run_all_threads(const mica_cpu_isa *isa, const char *op, const mica_params *params,
                                          array *out, int inputs, array *const *in) {
    size_t bytes = out->count * mica_dtype_size(out->t.dtype);
    unsigned char *first = malloc(bytes + 1);
    for (size_t threads = 1; threads <= MOST_THREADS; threads++) {
        device_use(isa, threads);
        memset(out->t.data, 0xA5, bytes);
        kernel_run(op, params, out, inputs, in);
        if (threads == 1)
            memcpy(first, out->t.data, bytes);
        else if (memcmp(first, out->t.data, bytes)) {
            fprintf(stderr, "%s at level %s: %zu threads differ from 1\n", op, isa->name, threads);
            abort();
        }
    }
    free(first);
}

// ---- comparison ----
// rounding: half a unit in the last place of the output type; sums: what f32 accumulation may add, relative to the
// magnitude of what is summed (`scale` of the comparison).
static const struct {
    double rounding, sums, tiny;
} tolerance[] = {[MICA_F32] = {0x1p-24, 4e-6, 1.2e-38},
                 [MICA_F16] = {0x1p-11, 4e-6, 6e-8},
                 [MICA_BF16] = {0x1p-8, 4e-6, 1.2e-38},
                 [MICA_F64] = {0x1p-53, 1e-14, 1e-300}};

static inline bool value_close(mica_dtype dtype, double got, double want, double scale) {
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
    if (isinf(want) || isinf(got)) {
        double most = dtype == MICA_F16 ? 65519 : dtype == MICA_F64 ? 1e308 : 3.38e38; // rounds to infinity from here
        return got == want || (fabs(want) >= most && got * want > 0);
    }
    return fabs(got - want) <=
           tolerance[dtype].rounding * 1.001 * fabs(want) + tolerance[dtype].sums * scale + tolerance[dtype].tiny;
}

static inline void values_equal(const char *what, const char *level, mica_dtype dtype, const double *got,
                                const double *want, size_t n, double scale) {
    for (size_t i = 0; i < n; i++)
        if (!value_close(dtype, got[i], want[i], scale)) {
            fprintf(stderr, "%s, %s, level %s: element %zu of %zu is %.9g, not %.9g\n", what, mica_dtype_name(dtype),
                    level, i, n, got[i], want[i]);
            fail();
        }
}

/** For each level this CPU has, slowest first; declares `isa`. */
#define EACH_LEVEL                                                                                                     \
    for (size_t level_i = 0; level_i < levels_count(); level_i++)                                                      \
        for (const mica_cpu_isa *isa = mica_cpu_isa_at(level_i); isa; isa = NULL)
static inline size_t levels_count(void) {
    size_t n = 0;
    while (mica_cpu_isa_at(n)) n++;
    return n;
}

static inline int levels_print(void **state) {
    (void)state;
    static const char *const all[] = {"ref", "avx2", "avx512vnni", "avx512", "amx", "neon"};
    for (size_t i = 0; i < MICA_COUNT(all); i++)
        printf("level %-6s %s\n", all[i], mica_cpu_isa_find(all[i]) ? "runs" : "skipped: this CPU or build lacks it");
    return 0;
}
#endif
