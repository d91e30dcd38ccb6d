// SPDX-License-Identifier: Apache-2.0
// Counted allocation, arenas, buffers. Every heap block of the library passes through here, third-party
// libraries included (they are given these functions), so tests can count calls and make any of them fail.
#include "base/base.h"
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t calls, live, bytes, fail_at, fail_count;

static bool refused(void) {
    uint64_t n = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1;
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (!at || n < at) return false;
    atomic_fetch_add_explicit(&fail_count, 1, memory_order_relaxed);
    return true;
}

static void *counted(void *p) {
    if (!p) return NULL;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&bytes, malloc_usable_size(p), memory_order_relaxed);
    return p;
}

static void uncount(void *p) {
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&bytes, malloc_usable_size(p), memory_order_relaxed);
}

void *mica_alloc(size_t size) { return refused() ? NULL : counted(malloc(size ? size : 1)); }

void *mica_calloc(size_t count, size_t size) {
    return refused() ? NULL : counted(calloc(count ? count : 1, size ? size : 1));
}

void *mica_realloc(void *p, size_t size) {
    if (!p) return mica_alloc(size);
    if (refused()) return NULL;
    size_t before = malloc_usable_size(p);
    void *q = realloc(p, size ? size : 1);
    if (!q) return NULL;
    atomic_fetch_sub_explicit(&bytes, before, memory_order_relaxed);
    atomic_fetch_add_explicit(&bytes, malloc_usable_size(q), memory_order_relaxed);
    return q;
}

void *mica_alloc_aligned(size_t size, size_t align) {
    void *p = NULL;
    if (refused() || posix_memalign(&p, align, size ? size : 1)) return NULL;
    return counted(p);
}

void mica_free(void *p) {
    if (!p) return;
    uncount(p);
    free(p);
}

enum { WHOLE = 1 << 16 }; // whole pages wherever Linux runs: ARM has some of 64 KiB
static size_t whole_pages(size_t size) { return (size + WHOLE - 1) & ~(size_t)(WHOLE - 1); }

// A mapping that starts on a huge page: one page too many is mapped, and what sticks out is given back.
static void *map_pages(size_t size, int flags) {
    size_t want = size + MICA_HUGE_PAGE;
    unsigned char *p = want < size ? MAP_FAILED : mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = -(uintptr_t)p & (MICA_HUGE_PAGE - 1), after = MICA_HUGE_PAGE - before;
    if (before) munmap(p, before);
    if (after) munmap(p + before + size, after);
    madvise(p + before, size, MADV_HUGEPAGE); // where the system has none, small pages do
    return p + before;
}

void *mica_alloc_pages(size_t size) {
    if (size < MICA_HUGE_PAGE) return mica_alloc_aligned(size, 64);
    if (size > SIZE_MAX - WHOLE || refused()) return NULL;
    size = whole_pages(size);
    void *p = map_pages(size, 0);
    if (!p) return NULL;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&bytes, size, memory_order_relaxed);
    return p;
}

void mica_free_pages(void *p, size_t size) {
    if (!p || size < MICA_HUGE_PAGE) {
        mica_free(p);
        return;
    }
    size = whole_pages(size);
    munmap(p, size);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&bytes, size, memory_order_relaxed);
}

// ---- address space --------------------------------------------------------------------------------------
// The system gives memory to a page when it is first touched; so all is mapped at once, and only counted piece by piece.
void *mica_reserve_pages(size_t size) {
    if (size > SIZE_MAX - WHOLE || refused()) return NULL;
    void *p = map_pages(whole_pages(size), MAP_NORESERVE);
    if (p) atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

void mica_unreserve_pages(void *p, size_t size) {
    if (!p) return;
    munmap(p, whole_pages(size));
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

bool mica_commit_pages(void *p, size_t size) {
    (void)p;
    if (refused()) return false;
    atomic_fetch_add_explicit(&bytes, size, memory_order_relaxed);
    return true;
}

void mica_decommit_pages(void *p, size_t size) {
    madvise(p, size, MADV_DONTNEED);
    atomic_fetch_sub_explicit(&bytes, size, memory_order_relaxed);
}

size_t mica_reserve_most(void) {
    struct rlimit limit;
    size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    bool limited = !getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY;
    return limited ? MICA_MIN(memory, (size_t)limit.rlim_cur / 8) : memory;
}

// The number behind `key` in a small text file, times scale; SIZE_MAX if there is none ("max").
static size_t number_in(const char *path, const char *key, size_t scale) {
    char text[4096];
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0, value = SIZE_MAX;
    if (f) fclose(f);
    text[n] = 0;
    const char *at = strstr(text, key);
    unsigned long long v;
    if (at && sscanf(at + strlen(key), "%llu", &v) == 1) value = (size_t)v * scale;
    return value;
}

size_t mica_memory_available(void) {
    size_t system = number_in("/proc/meminfo", "MemAvailable:", 1024);
    size_t most = number_in("/sys/fs/cgroup/memory.max", "", 1), used = number_in("/sys/fs/cgroup/memory.current", "", 1);
    bool limited = most != SIZE_MAX && used != SIZE_MAX;
    return limited ? MICA_MIN(system, most > used ? most - used : 0) : system;
}

char *mica_strndup(const char *s, size_t n) {
    char *p = mica_alloc(n + 1);
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *mica_strdup(const char *s) { return mica_strndup(s, strlen(s)); }

char *mica_strf(const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *p = n < 0 ? NULL : mica_alloc((size_t)n + 1);
    if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

bool mica_size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }

bool mica_grow(void *items_ptr, size_t *capacity, size_t need, size_t size) {
    if (need <= *capacity) return true;
    size_t n = *capacity ? *capacity : 8, total;
    while (n < need)
        if (!mica_size_mul(n, 2, &n)) return false;
    void *items;
    memcpy(&items, items_ptr, sizeof items);
    if (!mica_size_mul(n, size, &total) || !(items = mica_realloc(items, total))) return false;
    memcpy(items_ptr, &items, sizeof items);
    *capacity = n;
    return true;
}

mica_alloc_stats mica_alloc_get_stats(void) {
    return (mica_alloc_stats){atomic_load(&calls), atomic_load(&live), atomic_load(&bytes)};
}

void mica_alloc_fail_after(uint64_t nth) {
    atomic_store(&fail_count, 0);
    atomic_store(&fail_at, nth ? atomic_load(&calls) + nth : 0);
}

uint64_t mica_alloc_failures(void) { return atomic_load(&fail_count); }

double mica_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
