// SPDX-License-Identifier: Apache-2.0
// Matrix products: time, GB/s of weights read and GFLOP/s, per level, type and shape, and the share of this machine's limit
// (of reading or of computing, whichever is nearer); or, with --check, the checks of tests/matmul/checks.h. Needs nothing
// but the C library, so that it can be linked statically and carried to another CPU.
//   bench_matmul [--check] [--quick] [--level NAME] [--threads N] [--only TEXT] [--cpu]
// TEXT: part of a printed line's name. --quick: few shapes, short runs. --cpu: one thread, its CPU time instead of the
// clock's, for busy machines.
#include "limits.h"
#include "matmul/checks.h"
#include <time.h>

typedef struct options {
    const char *level, *only;
    size_t threads;
    bool check, cpu, quick;
} options;

typedef struct shape { size_t m, n, k; } shape;

// Weights far larger than the last cache for few rows, of a layer for many.
static const shape shapes[] = {{1, 65536, 2048}, {2, 131072, 2048}, {4, 131072, 2048}, {8, 131072, 2048}, {1, 2048, 2048},
                               {12, 6144, 2048},  {16, 6144, 2048},  {24, 6144, 2048},  {32, 6144, 2048},  {128, 6144, 2048},
                               {9, 6144, 2048}, {512, 6144, 2048}, {512, 1152, 6912}, {512, 256, 1152},  {2048, 2048, 2048}};

// Gradients of weights, gT x: both have the tokens, k, as rows.
static const shape gradients[] = {{1536, 576, 512}, {576, 1536, 512}, {576, 576, 512}, {192, 576, 512}, {3072, 1024, 512}, {49152, 576, 256}};

static bool is_quick(shape s) { return s.m == 1 || s.m == 32 || (s.m == 512 && s.n == 6144); }

// Of the level that is being timed: bytes a second, and operations a second by type.
static double read_limit, peak_limit[BENCH_TYPES];

static void find_limits(const options *o, const mica_cpu_isa *isa) {
    mica_pool *pool = mica_pool_new(o->threads);
    if (!pool) exit(1);
    if (!(read_limit > 0)) read_limit = bench_limit_read(pool);
    for (int type = 0; type < BENCH_TYPES; type++) peak_limit[type] = bench_limit_peak(pool, isa->name, type);
    if (!(peak_limit[BENCH_BF16] > 0)) peak_limit[BENCH_BF16] = peak_limit[BENCH_F32];
    printf("limit of %s: read %.1f GB/s, f32 %.1f GFLOP/s, bf16 %.1f GFLOP/s, int8 %.1f GOP/s\n", isa->name, read_limit * 1e-9,
           peak_limit[BENCH_F32] * 1e-9, peak_limit[BENCH_BF16] * 1e-9, peak_limit[BENCH_INT8] * 1e-9);
    mica_pool_free(pool);
}

// In percent; 0 where no limit is known (ref).
static double share_of_limit(const char *name, double bytes, double flop, double t) {
    double peak = peak_limit[strstr(name, "int8") ? BENCH_INT8 : strstr(name, "f32") ? BENCH_F32 : BENCH_BF16];
    double reading = read_limit > 0 ? bytes / t / read_limit : 0, computing = peak > 0 ? flop / t / peak : 0;
    return 100 * MICA_MAX(reading, computing);
}

static double seconds(bool cpu) {
    struct timespec t;
    clock_gettime(cpu ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static void measure(const options *o, const char *op, const char *name, mica_call *c, shape s, double bytes, size_t threads, const char *level) {
    enum { MOST = 200 };
    const mica_kernel *k = kernel_named(op);
    double t[MOST], total = 0, enough = o->quick ? 0.05 : 0.5;
    bool cpu = o->cpu;
    int n = 0;
    c->scratch = mica_alloc_aligned(k->scratch(c) + 64, 64);
    for (k->run(c); n < MOST && (n < 3 || total < enough); total += t[n++]) {
        t[n] = seconds(cpu);
        k->run(c);
        t[n] = seconds(cpu) - t[n];
    }
    qsort(t, (size_t)n, sizeof t[0], by_value);
    double flop = 2.0 * (double)(s.m * s.n * s.k);
    printf("%-28s %-7s %zu threads %5zu x %6zu x %4zu  %9.3f ms median, %9.3f best  %6.1f GB/s  %7.1f GFLOP/s  %3.0f %%\n", name, level,
           threads, s.m, s.n, s.k, t[n / 2] * 1e3, t[0] * 1e3, bytes / t[n / 2] * 1e-9, flop / t[n / 2] * 1e-9,
           share_of_limit(name, bytes, flop, t[n / 2]));
    mica_free(c->scratch);
}

// Positive bf16, f16 and f32 below 2 whatever the type: timings must not meet NaN or denormals.
static void *plain_bytes(size_t n) {
    size_t huge = 2u << 20;
    unsigned char *p = mica_alloc_aligned((n + huge) / huge * huge, huge);
    if (!p) return NULL;
    madvise(p, (n + huge) / huge * huge, MADV_HUGEPAGE);
    uint32_t v = 1;
    for (size_t i = 0; i + 4 <= n; i += 4) {
        uint32_t u = 0x30003000u | ((v = v * 1664525u + 1013904223u) & 0x0F7F0F7Fu);
        memcpy(p + i, &u, 4);
    }
    return p;
}

static void bench_one(const options *o, const mica_cpu_isa *isa, mica_pool *pool, int bits, mica_dtype type, bool int8, shape s) {
    char name[64];
    if (bits) snprintf(name, sizeof name, "linear_packed %d-bit %s%s", bits, mica_dtype_name(type), int8 ? " int8" : "");
    else snprintf(name, sizeof name, "matmul %s", mica_dtype_name(type));
    if ((o->only && !strstr(name, o->only)) || (o->quick && !is_quick(s))) return;
    mica_cpu_device d = {.pool = pool, .isa = isa};
    mica_params params = {.packed = {.out = (int32_t)s.n, .in = (int32_t)s.k, .bits = bits, .group_size = 64, .mode = MICA_AFFINE,
                                     .scale_dtype = MICA_BF16, .int8 = int8}};
    size_t size = mica_dtype_size(type), bytes = bits ? mica_cpu_packed_size(&d.device, &params) : s.n * s.k * size;
    void *x = plain_bytes(s.m * s.k * size), *w = plain_bytes(bytes), *out = plain_bytes(s.m * s.n * size);
    mica_call c = {.device = &d.device, .params = &params, .inputs = 2};
    c.in[0] = TENSOR(type, x, (int64_t)s.m, (int64_t)s.k), c.out = TENSOR(type, out, (int64_t)s.m, (int64_t)s.n);
    if (bits) c.in[1] = TENSOR(MICA_U8, w, (int64_t)bytes);
    else {
        c.in[1] = TENSOR(type, w, (int64_t)s.k, (int64_t)s.n);
        c.in[1].stride[0] = 1, c.in[1].stride[1] = (int64_t)s.k, c.in[1].contiguous = false;
    }
    measure(o, bits ? "linear_packed" : "matmul", name, &c, s, (double)bytes, mica_pool_threads(pool), isa->name);
    mica_free(x), mica_free(w), mica_free(out);
}

static void bench_gradient(const options *o, const mica_cpu_isa *isa, mica_pool *pool, shape s) {
    if (o->only && !strstr("gradient f32", o->only)) return;
    mica_cpu_device d = {.pool = pool, .isa = isa};
    mica_params params = {0};
    void *g = plain_bytes(s.m * s.k * 4), *x = plain_bytes(s.n * s.k * 4), *out = plain_bytes(s.m * s.n * 4);
    mica_call c = {.device = &d.device, .params = &params, .inputs = 2};
    c.in[0] = TENSOR(MICA_F32, g, (int64_t)s.m, (int64_t)s.k), c.in[1] = TENSOR(MICA_F32, x, (int64_t)s.k, (int64_t)s.n);
    c.in[0].stride[0] = 1, c.in[0].stride[1] = (int64_t)s.m, c.in[0].contiguous = false;
    c.out = TENSOR(MICA_F32, out, (int64_t)s.m, (int64_t)s.n);
    measure(o, "matmul", "gradient f32", &c, s, (double)(s.n * s.k * 4), mica_pool_threads(pool), isa->name);
    mica_free(g), mica_free(x), mica_free(out);
}

static void bench_level(const options *o, const mica_cpu_isa *isa, size_t threads) {
    static const struct { int bits; mica_dtype type; bool int8; } kinds[] = {{4, MICA_BF16, false}, {4, MICA_F32, false}, {0, MICA_BF16, false}, {0, MICA_F32, false},
                                                                  {0, MICA_F16, false},  {2, MICA_BF16, false}, {3, MICA_BF16, false}, {5, MICA_BF16, false},
                                                                  {6, MICA_BF16, false}, {8, MICA_BF16, false}, {8, MICA_F32, false},
                                                                  {4, MICA_BF16, true}, {6, MICA_BF16, true}, {8, MICA_BF16, true}};
    mica_pool *pool = mica_pool_new(threads);
    for (size_t i = 0; i < MICA_COUNT(kinds); i++)
        for (size_t j = 0; j < MICA_COUNT(shapes); j++) {
            if (!strcmp(isa->name, "ref") && shapes[j].m * shapes[j].n > 1 << 17) continue; // minutes
            bench_one(o, isa, pool, kinds[i].bits, kinds[i].type, kinds[i].int8, shapes[j]);
        }
    for (size_t j = 0; j < MICA_COUNT(gradients) && !o->quick && strcmp(isa->name, "ref"); j++) bench_gradient(o, isa, pool, gradients[j]);
    mica_pool_free(pool);
}

static int check_level(const mica_cpu_isa *isa) {
    int wrong = 0;
    for (size_t j = 0; j < MICA_COUNT(matmul_checks); j++) {
        int n = matmul_checks[j].run(isa);
        printf("level %s: %s: %s\n", isa->name, matmul_checks[j].name, n ? "WRONG" : "ok");
        wrong += n;
    }
    return wrong;
}

int main(int argc, char **argv) {
    options o = {.threads = mica_cpu_count()};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--check")) o.check = true;
        else if (!strcmp(argv[i], "--quick")) o.quick = true;
        else if (!strcmp(argv[i], "--cpu")) o.cpu = true, o.threads = 1;
        else if (i + 1 < argc && !strcmp(argv[i], "--level")) o.level = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--only")) o.only = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--threads")) o.threads = strtoul(argv[++i], NULL, 10);
        else return fprintf(stderr, "bench_matmul: unknown option %s\n", argv[i]), 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    int wrong = 0;
    for (size_t i = 0; mica_cpu_isa_at(i); i++) {
        const mica_cpu_isa *isa = mica_cpu_isa_at(i);
        if (o.level ? strcmp(o.level, isa->name) : o.quick && mica_cpu_isa_at(1) && i == 0) continue;
        if (o.check) wrong += check_level(isa);
        else find_limits(&o, isa), bench_level(&o, isa, o.threads);
    }
    return wrong ? 1 : 0;
}
