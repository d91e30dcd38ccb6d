// SPDX-License-Identifier: Apache-2.0
// Speed of the row and attention kernels: each op at shapes of 1B-parameter models, at every level this CPU has, as
// CSV.
//   bench_rows [--quick] [threads] [op]     threads 0 = all; op = only that one; --quick: short runs
// GB/s counts every input and output byte once (attention: the keys and values of the cache that are seen); GFLOP/s
// counts 4 * Dh per query and key for attention, nothing elsewhere. The best of several runs within about 0.2 s; with
// one thread in processor time, which other programs disturb less than wall time. The last column is the share of this
// machine's limit, of reading or of computing, whichever is nearer; what fits into a cache may exceed that of reading.
#include "base/half.h"
#include "device/cpu/cpu.h"
#include "device/cpu/isa.h"
#include "device/cpu/rows_kernels.h"
#include "limits.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { HUGE_PAGE = 2 << 20 };
static mica_cpu_device device;
static bool quick;
static double read_limit, peak_limit[BENCH_TYPES];

static void find_limits(void) {
    if (!(read_limit > 0)) read_limit = bench_limit_read(device.pool);
    for (int type = 0; type < BENCH_TYPES; type++) peak_limit[type] = bench_limit_peak(device.pool, device.isa->name, type);
    if (!(peak_limit[BENCH_BF16] > 0)) peak_limit[BENCH_BF16] = peak_limit[BENCH_F32];
}

static void print_line(const char *op, mica_dtype type, const char *what, double t, double bytes, double flops) {
    double peak = peak_limit[type == MICA_F32 ? BENCH_F32 : BENCH_BF16];
    double reading = read_limit > 0 ? bytes / t / read_limit : 0, computing = peak > 0 ? flops / t / peak : 0;
    printf("%s,%s,%s,%s,%.2f,%.1f,%.1f,%.0f\n", op, device.isa->name, mica_dtype_name(type), what, t * 1e6, bytes / t * 1e-9, flops / t * 1e-9,
           100 * MICA_MAX(reading, computing));
    fflush(stdout);
}

static double now(void) {
    struct timespec t;
    if (mica_pool_threads(device.pool) > 1) return mica_now();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mica_tensor tensor(mica_dtype dtype, int ndim, const int64_t *shape) {
    mica_tensor t = {.dtype = dtype, .ndim = ndim, .contiguous = true};
    size_t n = 1;
    for (int i = ndim - 1; i >= 0; i--) t.shape[i] = shape[i], t.stride[i] = (int64_t)n, n *= (size_t)shape[i];
    size_t bytes = n * mica_dtype_size(dtype) + 64;
    t.data = mica_alloc_aligned(bytes, bytes < HUGE_PAGE ? 64 : HUGE_PAGE);
    if (!t.data) exit(1);
    if (bytes >= HUGE_PAGE) madvise(t.data, bytes, MADV_HUGEPAGE); // as the device does for its memory
    size_t distinct = MICA_MIN(n, (size_t)1 << 16); // the rest repeats them
    for (size_t i = 0; i < distinct; i++) {
        float v = (float)((i * 2654435761u >> 7) % 2001) / 1000.0f - 1.0f;
        uint16_t h = dtype == MICA_BF16 ? mica_f32_to_bf16(v) : mica_f32_to_f16(v);
        if (dtype == MICA_F32)
            memcpy(t.data + 4 * i, &v, 4);
        else if (mica_dtype_size(dtype) == 2)
            memcpy(t.data + 2 * i, &h, 2);
        else
            memset(t.data + i * mica_dtype_size(dtype), 0, mica_dtype_size(dtype));
    }
    for (size_t i = distinct; i < n; i += distinct)
        memcpy(t.data + i * mica_dtype_size(dtype), t.data, MICA_MIN(distinct, n - i) * mica_dtype_size(dtype));
    return t;
}
#define SHAPE(...)                                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }

static double bytes_of(const mica_tensor *t) {
    double n = (double)mica_dtype_size(t->dtype);
    for (int i = 0; i < t->ndim; i++) n *= (double)t->shape[i];
    return n;
}

// Runs the call until 0.2 s have passed; prints one line. bytes 0 = all tensors once.
static void measure(const char *op, const char *what, mica_call *c, double bytes, double flops) {
    const mica_kernel *k = NULL;
    for (size_t i = 0; i < mica_cpu_rows_kernel_count; i++)
        if (!strcmp(mica_cpu_rows_kernels[i].op, op)) k = &mica_cpu_rows_kernels[i];
    if (!k) exit(1);
    size_t scratch = k->scratch ? k->scratch(c) : 0;
    c->scratch = mica_alloc_aligned(scratch + 64, 64);
    if (!c->scratch) exit(1);
    double best = 1e9, start = mica_now();
    for (int i = 0; i < 3 || mica_now() - start < (quick ? 0.03 : 0.2); i++) {
        double t = now();
        k->run(c);
        best = MICA_MIN(best, now() - t);
    }
    mica_free(c->scratch);
    if (!(bytes > 0)) {
        bytes = bytes_of(&c->out);
        for (int i = 0; i < c->inputs; i++) bytes += bytes_of(&c->in[i]);
    }
    print_line(op, c->in[0].dtype, what, best, bytes, flops);
}

static void release(mica_call *c) {
    for (int i = 0; i < c->inputs; i++)
        if (c->in[i].data != c->out.data) mica_free(c->in[i].data);
    mica_free(c->out.data);
}

static void bench_elementwise(const char *op, mica_dtype t, int inputs, int64_t rows, int64_t n) {
    static const mica_params none;
    mica_call c = {.device = &device.device, .params = &none, .inputs = inputs, .out = tensor(t, SHAPE(rows, n))};
    for (int i = 0; i < inputs; i++) c.in[i] = tensor(t, SHAPE(rows, n));
    char what[64];
    snprintf(what, sizeof what, "%lldx%lld", (long long)rows, (long long)n);
    measure(op, what, &c, 0, 0);
    release(&c);
}

static void bench_norm(mica_dtype t, int64_t rows, int64_t D) {
    mica_params params = {.norm.eps = 1e-6f};
    mica_call c = {.device = &device.device, .params = &params, .inputs = 2, .out = tensor(t, SHAPE(rows, D))};
    c.in[0] = tensor(t, SHAPE(rows, D)), c.in[1] = tensor(MICA_F32, SHAPE(D));
    char what[64];
    snprintf(what, sizeof what, "%lldx%lld", (long long)rows, (long long)D);
    measure("rms_norm", what, &c, 0, 0);
    release(&c);
}

static void bench_last_axis(const char *op, mica_dtype t, int64_t rows, int64_t D) {
    static const mica_params none;
    bool keep = !strcmp(op, "softmax");
    mica_call c = {.device = &device.device, .params = &none, .inputs = 1, .in[0] = tensor(t, SHAPE(rows, D))};
    c.out = keep ? tensor(t, SHAPE(rows, D)) : tensor(strcmp(op, "argmax") ? t : MICA_U32, SHAPE(rows));
    char what[64];
    snprintf(what, sizeof what, "%lldx%lld", (long long)rows, (long long)D);
    measure(op, what, &c, 0, 0);
    release(&c);
}

static void bench_convert(mica_dtype from, mica_dtype to, int64_t n) {
    static const mica_params none;
    mica_call c = {.device = &device.device,
                   .params = &none,
                   .inputs = 1,
                   .in[0] = tensor(from, SHAPE(n)),
                   .out = tensor(to, SHAPE(n))};
    char what[64];
    snprintf(what, sizeof what, "to %s %lld", mica_dtype_name(to), (long long)n);
    measure("astype", what, &c, 0, 0);
    release(&c);
}

static void bench_rope(mica_dtype t, int64_t T, int64_t H, int64_t Dh) {
    mica_params params = {.rope = {.dims = (int32_t)Dh, .scale = 1}};
    mica_call c = {.device = &device.device, .params = &params, .inputs = 2, .out = tensor(t, SHAPE(1, T, H, Dh))};
    c.in[0] = tensor(t, SHAPE(1, T, H, Dh)), c.in[1] = tensor(MICA_F32, SHAPE(1, T, Dh));
    char what[64];
    snprintf(what, sizeof what, "T%lld H%lld Dh%lld", (long long)T, (long long)H, (long long)Dh);
    measure("rope", what, &c, 0, 0);
    release(&c);
}

typedef struct heads {
    const char *model;
    int64_t H, Hkv, Dh;
} heads;
static const heads models[] = {
    {"gemma3-1b", 4, 1, 256}, {"qwen3-0.6b", 16, 8, 128}, {"llama-3.2-1b", 32, 8, 64}, {"smollm2-135m", 9, 3, 64}};

static void bench_sdpa(mica_dtype t, const heads *m, int64_t T) {
    mica_params params = {.sdpa = {.scale = 0.1f, .causal = 1}};
    mica_call c = {
        .device = &device.device, .params = &params, .inputs = 3, .out = tensor(t, SHAPE(1, m->H, T, m->Dh))};
    c.in[0] = tensor(t, SHAPE(1, m->H, T, m->Dh));
    c.in[1] = tensor(t, SHAPE(1, m->Hkv, T, m->Dh)), c.in[2] = tensor(t, SHAPE(1, m->Hkv, T, m->Dh));
    char what[64];
    snprintf(what, sizeof what, "%s T%lld", m->model, (long long)T);
    measure("sdpa", what, &c, 0, 2.0 * (double)(m->H * m->Dh * T * (T + 1)));
    release(&c);
}

// B sequences with n new tokens each, kv positions in the cache, which is larger than the processor's own caches.
static void bench_paged(mica_dtype t, const heads *m, int64_t B, int64_t n, int64_t kv) {
    enum { P = 64 };
    int64_t pages = (kv + P - 1) / P, layers = 1;
    while (layers * B * pages * P * m->Hkv * m->Dh * 4 < 100 << 20) layers++;
    mica_params params = {.paged = {.scale = 0.1f}};
    mica_call c = {
        .device = &device.device, .params = &params, .inputs = 4, .out = tensor(t, SHAPE(B * n, m->H, m->Dh))};
    c.in[0] = tensor(t, SHAPE(B * n, m->H, m->Dh)), c.in[1] = tensor(t, SHAPE(B * pages, layers, m->Hkv, 2, P, m->Dh));
    c.in[2] = tensor(MICA_I32, SHAPE(B, 4)), c.in[3] = tensor(MICA_I32, SHAPE(B, pages));
    int32_t *meta = (int32_t *)(void *)c.in[2].data, *table = (int32_t *)(void *)c.in[3].data;
    for (int64_t b = 0; b < B; b++) {
        meta[4 * b] = (int32_t)(b * n), meta[4 * b + 1] = (int32_t)n, meta[4 * b + 2] = (int32_t)kv,
                 meta[4 * b + 3] = 0;
        for (int64_t p = 0; p < pages; p++) table[b * pages + p] = (int32_t)(b * pages + p);
    }
    char what[64];
    snprintf(what, sizeof what, "%s B%lld n%lld kv%lld", m->model, (long long)B, (long long)n, (long long)kv);
    double pairs = (double)(B * m->H) * ((double)n * (double)kv - (double)n * (double)(n - 1) / 2);
    const mica_kernel *k = NULL;
    for (size_t i = 0; i < mica_cpu_rows_kernel_count; i++)
        if (!strcmp(mica_cpu_rows_kernels[i].op, "paged_attention")) k = &mica_cpu_rows_kernels[i];
    c.scratch = mica_alloc_aligned(k->scratch(&c) + 64, 64);
    if (!c.scratch) exit(1);
    double best = 1e9;
    int runs = 0; // from layer to layer, as a model does: every run finds its keys in memory, not in a cache
    for (double start = mica_now(); runs < 3 || mica_now() - start < (quick ? 0.05 : 0.3); runs++) {
        params.paged.layer = (int32_t)(runs % layers);
        double s = now();
        k->run(&c);
        best = MICA_MIN(best, now() - s);
    }
    double bytes = (double)(B * kv * 2 * m->Hkv * m->Dh) * (double)mica_dtype_size(t);
    print_line("paged_attention", t, what, best, bytes, 4.0 * (double)m->Dh * pairs);
    mica_free(c.scratch), release(&c);
}

static bool wanted(const char *only, const char *op) { return !only || !strcmp(only, op); }

static void bench_rows_of(mica_dtype t, const char *only) {
    static const char *const unary[] = {"exp", "sigmoid", "silu", "gelu", "gelu_tanh", "tanh"};
    for (size_t i = 0; i < MICA_COUNT(unary); i++)
        if (wanted(only, unary[i])) bench_elementwise(unary[i], t, 1, 128, 6912);
    for (int i = 0; i < 2; i++)
        if (wanted(only, i ? "geglu" : "swiglu"))
            bench_elementwise(i ? "geglu" : "swiglu", t, 2, 1, 6912),
                bench_elementwise(i ? "geglu" : "swiglu", t, 2, 512, 6912);
    if (wanted(only, "rms_norm")) bench_norm(t, 1, 1152), bench_norm(t, 512, 1152), bench_norm(t, 8192, 128);
    if (wanted(only, "softmax")) bench_last_axis("softmax", t, 512, 512);
    if (wanted(only, "logsumexp")) bench_last_axis("logsumexp", t, 8, 262144);
    if (wanted(only, "argmax")) bench_last_axis("argmax", t, 1, 262144);
    if (wanted(only, "rope")) bench_rope(t, 1, 32, 64), bench_rope(t, 512, 16, 128);
    if (wanted(only, "astype") && t != MICA_F32)
        bench_convert(t, MICA_F32, 1 << 20), bench_convert(MICA_F32, t, 1 << 20);
}

static void bench_attention_of(mica_dtype t, const char *only) {
    for (size_t m = 0; m < MICA_COUNT(models); m++) {
        if (wanted(only, "sdpa")) bench_sdpa(t, &models[m], 512);
        if (!wanted(only, "paged_attention")) continue;
        bench_paged(t, &models[m], 1, 1, 512);
        bench_paged(t, &models[m], 1, 1, 4096);
        bench_paged(t, &models[m], 8, 1, 1024);
        bench_paged(t, &models[m], 1, 5, 2048);
        bench_paged(t, &models[m], 1, 512, 512);
        bench_paged(t, &models[m], 1, 512, 2048);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--quick")) quick = true, argc--, argv++;
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    const char *only = argc > 2 ? argv[2] : NULL;
    device.pool = mica_pool_new(threads);
    if (!device.pool) return 1;
    printf("op,level,type,shape,microseconds,GB/s,GFLOP/s (%zu threads),%% of limit\n", mica_pool_threads(device.pool));
    for (size_t i = mica_cpu_isa_at(1) ? 1 : 0; mica_cpu_isa_at(i); i++) {
        device.isa = mica_cpu_isa_at(i);
        find_limits();
        static const mica_dtype types[] = {MICA_F32, MICA_BF16};
        for (size_t t = 0; t < 2; t++) bench_rows_of(types[t], only), bench_attention_of(types[t], only);
    }
    mica_pool_free(device.pool);
    return 0;
}
