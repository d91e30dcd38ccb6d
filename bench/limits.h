// SPDX-License-Identifier: Apache-2.0
// The limits of this machine, measured: bytes read from memory a second, and multiply-adds a second at each level and
// type. Every loop keeps its operands in registers and enough sums apart to hide the latency, so a kernel can reach
// these figures but not pass them (beyond the noise of the clock). Header only: every bench program brings its own.
#ifndef MICA_BENCH_LIMITS_H
#define MICA_BENCH_LIMITS_H

#include "base/base.h"
#include "base/thread.h"
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { BENCH_F32, BENCH_BF16, BENCH_INT8, BENCH_TYPES };
static const char *const bench_limit_types[BENCH_TYPES] = {"f32", "bf16", "int8"};

// One loop: `rounds` times some operations; returns how many multiplications and additions that was.
typedef double bench_peak_fn(long rounds);

#if defined(__x86_64__)
// The first touch of every sum is opaque: equal sums would be computed once.
#define BENCH_SUMS 12
#define BENCH_LOOP(target_, vector, zero, step, per_step)                                                              \
    __attribute__((target(target_))) static double bench_peak_##step(long rounds) {                                    \
        vector sum[BENCH_SUMS], x = zero, y = zero;                                                                    \
        __asm__ volatile("" : "+v"(x), "+v"(y));                                                                       \
        for (int i = 0; i < BENCH_SUMS; i++) {                                                                         \
            sum[i] = zero;                                                                                             \
            __asm__ volatile("" : "+v"(sum[i]));                                                                       \
        }                                                                                                              \
        for (long r = 0; r < rounds; r++)                                                                              \
            for (int i = 0; i < BENCH_SUMS; i++) sum[i] = BENCH_STEP_##step(sum[i], x, y);                             \
        for (int i = 0; i < BENCH_SUMS; i++) __asm__ volatile("" : "+v"(sum[i]));                                      \
        return (double)rounds * BENCH_SUMS * (per_step);                                                               \
    }
#define BENCH_STEP_f32_avx2(s, x, y) _mm256_fmadd_ps(x, y, s)
#define BENCH_STEP_int8_avx2(s, x, y) _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), y))
#define BENCH_STEP_f32_avx512(s, x, y) _mm512_fmadd_ps(x, y, s)
#define BENCH_STEP_bf16_avx512(s, x, y) _mm512_dpbf16_ps(s, (__m512bh)(x), (__m512bh)(y))
#define BENCH_STEP_int8_avx512(s, x, y) _mm512_dpbusd_epi32(s, x, y)
BENCH_LOOP("avx2,fma", __m256, _mm256_setzero_ps(), f32_avx2, 16)
BENCH_LOOP("avx2,fma", __m256i, _mm256_setzero_si256(), int8_avx2, 64)
BENCH_LOOP("avx512f", __m512, _mm512_setzero_ps(), f32_avx512, 32)
BENCH_LOOP("avx512f,avx512bf16", __m512, _mm512_setzero_ps(), bf16_avx512, 64)
BENCH_LOOP("avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), int8_avx512, 128)

// Eight tiles of 16 rows of 64 bytes; four of them are sums. Assembly throughout: no compiler flag, no clobbered sums.
#define BENCH_TILES(name, instruction, per_step)                                                                       \
    static double bench_peak_##name(long rounds) {                                                                     \
        unsigned char config[64] = {1};                                                                                \
        for (int i = 0; i < 8; i++) config[16 + 2 * i] = 64, config[48 + i] = 16;                                      \
        __asm__ volatile("ldtilecfg %0\n\ttilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"   \
                         "tilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7"                    \
                         :                                                                                             \
                         : "m"(config));                                                                               \
        for (long r = 0; r < rounds; r++)                                                                              \
            __asm__ volatile(instruction " %%tmm6, %%tmm4, %%tmm0\n\t" instruction " %%tmm7, %%tmm4, %%tmm1\n\t"       \
                             instruction " %%tmm6, %%tmm5, %%tmm2\n\t" instruction " %%tmm7, %%tmm5, %%tmm3" ::);      \
        __asm__ volatile("tilerelease");                                                                               \
        return (double)rounds * 4 * (per_step);                                                                        \
    }
BENCH_TILES(bf16_amx, "tdpbf16ps", 2.0 * 16 * 16 * 32)
BENCH_TILES(int8_amx, "tdpbssd", 2.0 * 16 * 16 * 64)
#elif defined(__aarch64__)
static double bench_peak_f32_neon(long rounds) {
    enum { SUMS = 16 };
    float32x4_t sum[SUMS], x = vdupq_n_f32(0);
    __asm__ volatile("" : "+w"(x));
    for (int i = 0; i < SUMS; i++) {
        sum[i] = vdupq_n_f32(0);
        __asm__ volatile("" : "+w"(sum[i]));
    }
    for (long r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) sum[i] = vfmaq_f32(sum[i], x, x);
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" : "+w"(sum[i]));
    return (double)rounds * SUMS * 8;
}
#endif

static bench_peak_fn *bench_peak_of(const char *level, int type) {
#if defined(__x86_64__)
    if (!strcmp(level, "avx2")) return type == BENCH_F32 ? bench_peak_f32_avx2 : type == BENCH_INT8 ? bench_peak_int8_avx2 : NULL;
    if (!strcmp(level, "avx512vnni") || !strcmp(level, "avx512"))
        return type == BENCH_F32 ? bench_peak_f32_avx512 : type == BENCH_INT8 ? bench_peak_int8_avx512 : level[6] ? NULL : bench_peak_bf16_avx512;
    if (!strcmp(level, "amx")) return type == BENCH_BF16 ? bench_peak_bf16_amx : type == BENCH_INT8 ? bench_peak_int8_amx : bench_peak_f32_avx512;
#elif defined(__aarch64__)
    if (!strcmp(level, "neon") && type == BENCH_F32) return bench_peak_f32_neon;
#endif
    (void)level, (void)type;
    return NULL;
}

typedef struct bench_peak_job {
    bench_peak_fn *fn;
    long rounds;
    double done;
} bench_peak_job;

static void bench_peak_task(void *ctx, size_t task, size_t thread) {
    bench_peak_job *j = ctx;
    double n = j->fn(j->rounds);
    (void)thread;
    if (task == 0) j->done = n; // the same for all
}

/** Multiplications and additions a second of all threads of the pool, best of five short runs; 0: none at this level. */
static double bench_limit_peak(mica_pool *pool, const char *level, int type) {
    bench_peak_job j = {.fn = bench_peak_of(level, type), .rounds = 200000};
    double best = 0;
    size_t threads = mica_pool_threads(pool);
    for (int i = 0; j.fn && i < 6; i++) { // the first run is short: it wakes the threads and finds the length of the others
        double t = mica_now();
        mica_pool_run(pool, threads, bench_peak_task, &j);
        t = mica_now() - t;
        if (i) best = MICA_MAX(best, j.done * (double)threads / t);
        else j.rounds = (long)((double)j.rounds * 0.04 / t) + 1;
    }
    return best;
}

typedef struct bench_read_job {
    const unsigned char *data;
    size_t bytes, tasks;
    uint64_t sums[64];
} bench_read_job;

typedef uint64_t bench_vector __attribute__((vector_size(32)));
#if defined(__x86_64__)
__attribute__((target("avx2")))
#endif
static uint64_t bench_read_bytes(const unsigned char *data, size_t bytes) {
    bench_vector sum[4] = {{0}};
    const bench_vector *v = (const void *)data;
    for (size_t i = 0; i + 8 <= bytes / sizeof *v; i += 8) {
        __builtin_prefetch(data + i * sizeof *v + 4096);
        __builtin_prefetch(data + i * sizeof *v + 4096 + 64);
        __builtin_prefetch(data + i * sizeof *v + 4096 + 128);
        __builtin_prefetch(data + i * sizeof *v + 4096 + 192);
        for (size_t k = 0; k < 4; k++) sum[k] += v[i + k] ^ v[i + 4 + k];
    }
    sum[0] += sum[1] + sum[2] + sum[3];
    return sum[0][0] + sum[0][1] + sum[0][2] + sum[0][3];
}

static void bench_read_task(void *ctx, size_t task, size_t thread) {
    bench_read_job *j = ctx;
    size_t part = j->bytes / j->tasks / 256 * 256;
    j->sums[thread % 64] += bench_read_bytes(j->data + task * part, part);
}

/** Bytes a second that all threads of the pool read from 512 MiB in huge pages: the best of eight passes; 0: no memory. */
static double bench_limit_read(mica_pool *pool) {
    size_t bytes = (size_t)512 << 20, huge = (size_t)2 << 20;
    unsigned char *data = mica_alloc_aligned(bytes, huge);
    if (!data) return 0;
    madvise(data, bytes, MADV_HUGEPAGE);
    memset(data, 1, bytes);
    bench_read_job j = {.data = data, .bytes = bytes, .tasks = mica_pool_threads(pool) * 16};
    double best = 0;
    for (int i = 0; i < 8; i++) {
        double t = mica_now();
        mica_pool_run(pool, j.tasks, bench_read_task, &j);
        best = MICA_MAX(best, (double)bytes / (mica_now() - t));
    }
    mica_free(data);
    return best;
}
#endif
