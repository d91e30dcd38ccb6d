// SPDX-License-Identifier: Apache-2.0
// Arena, byte buffer and string map: the three containers that the other rooms share.
#include "base/base.h"
#include <stdio.h>
#include <string.h>

// ---- arena -------------------------------------------------------------------------------------------
struct mica_arena_block {
    mica_arena_block *next;
    size_t size;
    _Alignas(16) unsigned char data[];
};

enum { ARENA_BLOCK = 64 * 1024 };

static mica_arena_block *arena_block(size_t size) {
    size_t n = MICA_MAX(size, (size_t)ARENA_BLOCK);
    mica_arena_block *b = n < SIZE_MAX - sizeof *b ? mica_alloc(sizeof *b + n) : NULL;
    if (b) *b = (mica_arena_block){.size = n};
    return b;
}

void *mica_arena_alloc(mica_arena *a, size_t size) {
    if (size > SIZE_MAX / 2) return NULL;
    size = (size + 15) & ~(size_t)15;
    // After a reset the kept blocks are walked again in order; one that is too small is passed over.
    while (a->current && a->used + size > a->current->size && a->current->next) {
        a->current = a->current->next;
        a->used = 0;
    }
    if (!a->current || a->used + size > a->current->size) {
        mica_arena_block *b = arena_block(size);
        if (!b) return NULL;
        if (a->current) a->current->next = b;
        else a->first = b;
        a->current = b;
        a->used = 0;
    }
    void *p = a->current->data + a->used;
    a->used += size;
    return p;
}

void *mica_arena_calloc(mica_arena *a, size_t size) {
    void *p = mica_arena_alloc(a, size);
    return p ? memset(p, 0, size) : NULL;
}

char *mica_arena_strndup(mica_arena *a, const char *s, size_t n) {
    char *p = mica_arena_alloc(a, n + 1);
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

void mica_arena_reset(mica_arena *a) {
    a->current = a->first;
    a->used = 0;
}

void mica_arena_free(mica_arena *a) {
    for (mica_arena_block *b = a->first, *next; b; b = next) {
        next = b->next;
        mica_free(b);
    }
    *a = (mica_arena){0};
}

// ---- byte buffer -------------------------------------------------------------------------------------
bool mica_buf_reserve(mica_buf *b, size_t extra) {
    if (b->failed) return false;
    if (extra > SIZE_MAX - b->len - 1 || !mica_grow(&b->data, &b->capacity, b->len + extra + 1, 1)) b->failed = true;
    return !b->failed;
}

bool mica_buf_append(mica_buf *b, const void *bytes, size_t n) {
    if (!mica_buf_reserve(b, n)) return false;
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
    return true;
}

bool mica_buf_puts(mica_buf *b, const char *s) { return mica_buf_append(b, s, strlen(s)); }
bool mica_buf_putc(mica_buf *b, char c) { return mica_buf_append(b, &c, 1); }

bool mica_buf_printf(mica_buf *b, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    bool ok = n >= 0 && mica_buf_reserve(b, (size_t)n);
    if (ok) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return ok;
}

void mica_buf_free(mica_buf *b) {
    mica_free(b->data);
    *b = (mica_buf){0};
}

// ---- string map --------------------------------------------------------------------------------------
struct mica_strmap_slot {
    const char *key;
    size_t len;
    uint64_t hash;
    uintptr_t value;
};

uint64_t mica_hash(const void *bytes, size_t n, uint64_t seed) {
    const unsigned char *p = bytes;
    uint64_t h = seed ^ 0xCBF29CE484222325u;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        h = mica_hash_mix(h, v);
    }
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001B3u;
    return mica_hash_mix(h, n);
}

static struct mica_strmap_slot *find_slot(const mica_strmap *m, const char *key, size_t len, uint64_t hash) {
    for (size_t i = hash & (m->capacity - 1);; i = (i + 1) & (m->capacity - 1)) {
        struct mica_strmap_slot *s = &m->slots[i];
        if (!s->key || (s->hash == hash && s->len == len && !memcmp(s->key, key, len))) return s;
    }
}

static bool rehash(mica_strmap *m) {
    mica_strmap bigger = {.capacity = m->capacity ? m->capacity * 2 : 16, .count = m->count};
    bigger.slots = mica_calloc(bigger.capacity, sizeof *bigger.slots);
    if (!bigger.slots) return false;
    for (size_t i = 0; i < m->capacity; i++) {
        struct mica_strmap_slot *s = &m->slots[i];
        if (s->key) *find_slot(&bigger, s->key, s->len, s->hash) = *s;
    }
    mica_free(m->slots);
    *m = bigger;
    return true;
}

bool mica_strmap_put(mica_strmap *m, const char *key, size_t key_len, uintptr_t value) {
    if (m->count * 2 >= m->capacity && !rehash(m)) return false;
    uint64_t hash = mica_hash(key, key_len, 0);
    struct mica_strmap_slot *s = find_slot(m, key, key_len, hash);
    if (!s->key) m->count++;
    *s = (struct mica_strmap_slot){key, key_len, hash, value};
    return true;
}

bool mica_strmap_get(const mica_strmap *m, const char *key, size_t key_len, uintptr_t *value) {
    if (!m->count) return false;
    struct mica_strmap_slot *s = find_slot(m, key, key_len, mica_hash(key, key_len, 0));
    if (s->key && value) *value = s->value;
    return s->key != NULL;
}

void mica_strmap_free(mica_strmap *m) {
    mica_free(m->slots);
    *m = (mica_strmap){0};
}
