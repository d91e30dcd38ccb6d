// SPDX-License-Identifier: Apache-2.0
// Which levels this CPU has, found once: each level's table is the one below it, overwritten. CPUID says what the
// processor knows, XGETBV what the system saves; AMX tiles must moreover be asked for from the kernel. On ARM the kernel
// tells of both.
#include "device/cpu/isa.h"
#include "base/base.h"
#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#include <asm/hwcap.h>
#endif

enum { MOST_LEVELS = 5 };
static mica_cpu_isa levels[MOST_LEVELS];
static size_t level_count, best;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static mica_cpu_isa *add_level(const char *name) {
    mica_cpu_isa *isa = &levels[level_count];
    if (level_count) *isa = levels[level_count - 1];
    isa->name = name;
    level_count++;
    return isa;
}

#if defined(__x86_64__)
static void cpuid(unsigned leaf, unsigned sub, unsigned r[4]) {
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

// GCC 12's __builtin_cpu_supports knows neither avx512bf16 on all vendors nor AMX.
static bool has_bits(unsigned leaf, unsigned sub, int reg, unsigned mask) {
    unsigned r[4];
    cpuid(0, 0, r);
    if (r[0] < leaf) return false;
    cpuid(leaf, sub, r);
    return (r[reg] & mask) == mask;
}

// Intel's vdpbf16ps takes two cycles of one port: 160 GFLOP/s of bf16 on two CPUs where f32 gives 330 (Sapphire Rapids).
static bool is_intel(void) {
    unsigned r[4];
    cpuid(0, 0, r);
    return r[1] == 0x756E6547; // "Genu"
}

// One row reads weights as fast as memory gives them only with fetches of its own: decoding on Sapphire Rapids is 1.4 to 1.6 times as fast with
// them (4 to 16 KiB ahead, first or second level alike). Zen 4 foresees one stream a thread better by itself: 9.2 ms a token of Qwen3-0.6B, with
// fetches of any kind and distance 9.8 to 10.1.
static void fetch_on_intel(void) {
    enum { AHEAD = 8192 };
    for (size_t i = 0; is_intel() && i < level_count; i++) levels[i].matmul.fixed_ahead = AHEAD;
}

static uint64_t saved_state(void) {
    if (!has_bits(1, 0, 2, 1u << 27)) return 0; // OSXSAVE
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool has_amx(uint64_t state) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    if ((state & 0x60000) != 0x60000 || !has_bits(7, 0, 3, 1u << 22 | 1u << 24 | 1u << 25)) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static void find_x86_levels(void) {
    uint64_t state = saved_state();
    bool avx2 = (state & 6) == 6 && has_bits(1, 0, 2, 1u << 12 | 1u << 29) && has_bits(7, 0, 1, 1u << 5);
    // F, DQ, BW, VL; VNNI. VBMI; BF16.
    bool vnni = avx2 && (state & 0xE6) == 0xE6 && has_bits(7, 0, 1, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && has_bits(7, 0, 2, 1u << 11);
    bool avx512 = vnni && has_bits(7, 0, 2, 1u << 1) && has_bits(7, 1, 0, 1u << 5);
    if (avx2) {
        mica_cpu_isa *isa = add_level("avx2");
        mica_cpu_avx2_matmul(&isa->matmul);
        mica_cpu_avx2_int8(&isa->int8);
        mica_cpu_avx2_rows(&isa->rows);
    }
    if (vnni) {
        mica_cpu_isa *isa = add_level("avx512vnni");
        mica_cpu_avx512vnni_matmul(&isa->matmul);
        mica_cpu_avx512vnni_int8(&isa->int8);
        mica_cpu_avx512vnni_rows(&isa->rows);
    }
    best = level_count - 1;
    if (avx512) {
        mica_cpu_isa *isa = add_level("avx512");
        mica_cpu_avx512_matmul(&isa->matmul);
        mica_cpu_avx512_rows(&isa->rows);
    }
    if (!is_intel()) best = level_count - 1;
    if (avx512 && has_amx(state)) {
        mica_cpu_isa *isa = add_level("amx");
        mica_cpu_amx_matmul(&isa->matmul);
        mica_cpu_amx_rows(&isa->rows);
        best = level_count - 1;
    }
    fetch_on_intel();
}
#elif defined(__aarch64__)
static void find_arm_levels(void) {
    if (!(getauxval(AT_HWCAP) & HWCAP_ASIMD)) return;
    mica_cpu_isa *isa = add_level("neon");
    mica_cpu_neon_matmul(&isa->matmul);
    mica_cpu_neon_rows(&isa->rows);
    best = level_count - 1;
}
#endif

static void find_levels(void) {
    mica_cpu_isa *isa = add_level("ref");
    mica_cpu_ref_matmul(&isa->matmul);
    mica_cpu_ref_int8(&isa->int8);
    mica_cpu_ref_rows(&isa->rows);
#if defined(__x86_64__)
    find_x86_levels();
#elif defined(__aarch64__)
    find_arm_levels();
#endif
}

const mica_cpu_isa *mica_cpu_isa_at(size_t i) {
    pthread_once(&once, find_levels);
    return i < level_count ? &levels[i] : NULL;
}

const mica_cpu_isa *mica_cpu_isa_find(const char *level) {
    for (size_t i = 0; mica_cpu_isa_at(i); i++)
        if (!strcmp(levels[i].name, level)) return &levels[i];
    return NULL;
}

const mica_cpu_isa *mica_cpu_isa_best(void) {
    mica_cpu_isa_at(0);
    return &levels[best];
}
