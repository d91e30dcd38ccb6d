// SPDX-License-Identifier: Apache-2.0
// Room `base`: what libc lacks. This header holds errors, counted allocation, arenas and byte buffers;
// files, JSON, threads, numbers and random streams have headers of their own beside it.
#ifndef MICA_BASE_H
#define MICA_BASE_H

#include "mica/error.h"
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- errors ----------------------------------------------------------------------------------------
/** Fills *err (if not NULL) and returns false, so that `return mica_fail(...)` reads well. */
bool mica_fail(mica_error *err, mica_code code, const char *fmt, ...) MICA_PRINTF(3, 4);
bool mica_failv(mica_error *err, mica_code code, const char *fmt, va_list args) MICA_PRINTF(3, 0);
/** "out of memory: <bytes> bytes for <what>". */
bool mica_fail_memory(mica_error *err, size_t bytes, const char *what);
/** "<path>: cannot <verb>: <strerror(errno)>". */
bool mica_fail_errno(mica_error *err, const char *verb, const char *path);
/** Puts "prefix: " before the message; returns false. */
bool mica_error_prefix(mica_error *err, const char *fmt, ...) MICA_PRINTF(2, 3);

// ---- allocation --------------------------------------------------------------------------------------
/** As malloc & co., but counted and breakable for tests. size 0 gives a valid pointer. */
void *mica_alloc(size_t size);
void *mica_calloc(size_t count, size_t size);
void *mica_realloc(void *p, size_t size);
/** align: a power of two; release with mica_free. */
void *mica_alloc_aligned(size_t size, size_t align);
void mica_free(void *p);
/** 64-byte aligned memory of a size that may be large: from 2 MiB on it lies in huge pages where the system has them, and goes
 * back to the system when it is freed. Contents undefined. Counted like the others; the size must be given again. */
void *mica_alloc_pages(size_t size);
void mica_free_pages(void *p, size_t size);
/** Address space without memory, 2 MiB aligned; NULL if there is not so much. Its parts become memory, zeroed, by mica_commit_pages, which may be
 * refused, and cease to be by mica_decommit_pages: offsets and sizes are whole multiples of MICA_HUGE_PAGE. Only memory is counted. */
enum { MICA_HUGE_PAGE = 2 << 20 };
void *mica_reserve_pages(size_t size);
void mica_unreserve_pages(void *p, size_t size);
bool mica_commit_pages(void *p, size_t size);
void mica_decommit_pages(void *p, size_t size);
/** Bytes of address space that are worth reserving: no more than the machine has memory, and little of what a limit allows. */
size_t mica_reserve_most(void);
/** Bytes that this process can still take without swapping, as far as system and control group say; SIZE_MAX: not known. */
size_t mica_memory_available(void);
char *mica_strdup(const char *s);
char *mica_strndup(const char *s, size_t n);
/** printf into a new string; NULL when out of memory. */
char *mica_strf(const char *fmt, ...) MICA_PRINTF(1, 2);
/** Grows *items to hold at least `need` elements of `size` bytes (doubling); false when out of memory. */
bool mica_grow(void *items_ptr, size_t *capacity, size_t need, size_t size);
/** a*b, or false on overflow. */
bool mica_size_mul(size_t a, size_t b, size_t *out);

typedef struct mica_alloc_stats {
    uint64_t calls;  // allocations since start (malloc, calloc, realloc, aligned)
    uint64_t live;   // blocks not yet freed
    uint64_t bytes;  // bytes in those blocks
} mica_alloc_stats;
mica_alloc_stats mica_alloc_get_stats(void);
/** Tests: the nth allocation from now (1 = next) and every later one fail; 0 switches it off. */
void mica_alloc_fail_after(uint64_t nth);
/** Tests: how many allocations were refused since the last call of mica_alloc_fail_after. */
uint64_t mica_alloc_failures(void);

// ---- arena -------------------------------------------------------------------------------------------
// Bump allocation in blocks; everything dies together. Reset keeps the blocks for reuse.
typedef struct mica_arena_block mica_arena_block;
typedef struct mica_arena {
    mica_arena_block *first, *current;
    size_t used; // bytes used in `current`
} mica_arena;
/** 16-byte aligned, uninitialised; NULL when out of memory. A zeroed mica_arena is ready for use. */
void *mica_arena_alloc(mica_arena *a, size_t size);
void *mica_arena_calloc(mica_arena *a, size_t size);
char *mica_arena_strndup(mica_arena *a, const char *s, size_t n);
void mica_arena_reset(mica_arena *a);
void mica_arena_free(mica_arena *a);

// ---- byte buffer -------------------------------------------------------------------------------------
// A failed append sets `failed` and later appends do nothing: check once at the end. data is always
// NUL-terminated once something was appended (len excludes it).
typedef struct mica_buf {
    char *data;
    size_t len, capacity;
    bool failed;
} mica_buf;
bool mica_buf_append(mica_buf *b, const void *bytes, size_t n);
bool mica_buf_puts(mica_buf *b, const char *s);
bool mica_buf_putc(mica_buf *b, char c);
bool mica_buf_printf(mica_buf *b, const char *fmt, ...) MICA_PRINTF(2, 3);
bool mica_buf_reserve(mica_buf *b, size_t extra);
void mica_buf_free(mica_buf *b);

// ---- string map --------------------------------------------------------------------------------------
// Open addressing, string -> pointer-sized value; keys are borrowed and must outlive the map.
typedef struct mica_strmap {
    struct mica_strmap_slot *slots;
    size_t capacity, count;
} mica_strmap;
bool mica_strmap_put(mica_strmap *m, const char *key, size_t key_len, uintptr_t value);
bool mica_strmap_get(const mica_strmap *m, const char *key, size_t key_len, uintptr_t *value);
void mica_strmap_free(mica_strmap *m);

/** 64-bit hash of bytes (FNV-1a folded through a finaliser); not for untrusted adversaries. */
uint64_t mica_hash(const void *bytes, size_t n, uint64_t seed);
static inline uint64_t mica_hash_mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

/** Seconds on a monotonic clock. */
double mica_now(void);

#define MICA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MICA_MAX(a, b) ((a) > (b) ? (a) : (b))
#define MICA_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#endif
