// SPDX-License-Identifier: Apache-2.0
// Devices as the engine holds them, and their buffers. Freed buffers go to a list by size class (four classes per power of two) and are
// handed out again, so that a steady state allocates nothing; the lists are bounded by the cache limit.
#include "engine/state.h"
#include "device/cpu/cpu.h"
#include "engine/plan.h"
#include <stdatomic.h>
#include <string.h>

enum { SMALLEST = 64, LARGE = 1 << 20, LARGE_STEP = 1 << 16, DEFAULT_CACHE_LIMIT = 256 << 20 };

// ---- size classes ------------------------------------------------------------------------------------------
// Class c holds SMALLEST << (c/4) times 1, 1.25, 1.5 or 1.75.
static size_t class_size(size_t c) { return ((size_t)SMALLEST << c / 4) / 4 * (4 + c % 4); }

// What is allocated for a request: weights and caches would waste too much at a whole class.
static size_t round_size(size_t size, size_t c) {
    return size <= LARGE ? class_size(c) : (size + LARGE_STEP - 1) / LARGE_STEP * LARGE_STEP;
}

static size_t class_of(size_t size) {
    size_t c = 0;
    if (size > SMALLEST) c = (size_t)(63 - __builtin_clzll((unsigned long long)(size - 1) / SMALLEST)) * 4;
    while (class_size(c) < size) c++;
    return c;
}

// ---- all devices together -----------------------------------------------------------------------------------
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER; // taken before a device's memory_lock
static mica_device *all_devices;
static size_t all_cache_limit = DEFAULT_CACHE_LIMIT;
static _Atomic size_t all_active, all_peak, all_limit;

/** Counts memory of the device that arrays hold from now on, or no longer do; with the device's memory_lock held. */
static void count_memory(mica_device *d, size_t more, size_t less) {
    mica_device_state *st = d->state;
    st->active += more - less;
    st->peak = MICA_MAX(st->peak, st->active);
    size_t now = atomic_fetch_add(&all_active, more - less) + more - less, peak = atomic_load(&all_peak);
    while (now > peak && !atomic_compare_exchange_weak(&all_peak, &peak, now)) {}
}

static void join_devices(mica_device *d) {
    pthread_mutex_lock(&all_lock);
    d->state->cache_limit = all_cache_limit;
    d->state->next = all_devices;
    all_devices = d;
    pthread_mutex_unlock(&all_lock);
}

static void leave_devices(mica_device *d) {
    pthread_mutex_lock(&all_lock);
    mica_device **link = &all_devices;
    while (*link != d) link = &(*link)->state->next;
    *link = d->state->next;
    pthread_mutex_unlock(&all_lock);
}

// ---- buffers -------------------------------------------------------------------------------------------------
static void free_cached(mica_device *d, size_t keep) {
    mica_device_state *st = d->state;
    for (size_t c = MICA_SIZE_CLASSES; c-- > 0;) {
        while (st->free_list[c] && st->cached > keep) {
            mica_buffer *b = st->free_list[c];
            st->free_list[c] = b->next;
            st->cached -= b->size;
            d->memory_free(d, b->data, b->size);
            mica_free(b);
        }
    }
}

static size_t most_cached(const mica_device_state *st) { return st->cache_limit ? st->cache_limit + st->cache_more : 0; }

static bool within_limits(mica_device *d, size_t size) {
    mica_device_state *st = d->state;
    size_t limit = atomic_load(&all_limit);
    if (st->memory_limit && st->active + st->cached + size > st->memory_limit) free_cached(d, 0);
    if (st->memory_limit && st->active + size > st->memory_limit) return false;
    return !limit || atomic_load(&all_active) + size <= limit;
}

static mica_buffer *fresh_buffer(mica_device *d, size_t size) {
    if (!within_limits(d, size)) return NULL;
    mica_buffer *b = mica_alloc(sizeof *b);
    void *data = b ? d->memory_new(d, size) : NULL;
    if (b && !data) { // give back what is only kept for reuse and try once more
        free_cached(d, 0);
        data = d->memory_new(d, size);
    }
    if (!data) {
        mica_free(b);
        return NULL;
    }
    *b = (mica_buffer){.data = data, .size = size, .device = d};
    return b;
}

mica_buffer *mica_buffer_new(mica_device *d, size_t size) {
    if (size > (size_t)1 << 46) return NULL;
    mica_device_state *st = d->state;
    size_t c = class_of(size);
    pthread_mutex_lock(&st->memory_lock);
    mica_buffer **link = &st->free_list[c], *b;
    while ((b = *link) && b->size < size) link = &b->next;
    if (b) {
        *link = b->next;
        st->cached -= b->size;
    } else {
        b = fresh_buffer(d, round_size(size, c));
    }
    if (b) {
        atomic_store(&b->refs, 1);
        b->next = NULL;
        count_memory(d, b->size, 0);
    }
    pthread_mutex_unlock(&st->memory_lock);
    return b;
}

mica_buffer *mica_buffer_reserve(mica_device *d, size_t size) {
    mica_buffer *b = mica_alloc(sizeof *b);
    void *data = b ? d->memory_reserve(d, size) : NULL;
    if (!data) {
        mica_free(b);
        return NULL;
    }
    *b = (mica_buffer){.data = data, .size = size, .device = d, .reserved = true};
    atomic_store(&b->refs, 1);
    return b;
}

bool mica_device_take(mica_device *d, size_t size) {
    pthread_mutex_lock(&d->state->memory_lock);
    bool ok = within_limits(d, size);
    if (ok) count_memory(d, size, 0);
    pthread_mutex_unlock(&d->state->memory_lock);
    return ok;
}

void mica_device_give(mica_device *d, size_t size) {
    pthread_mutex_lock(&d->state->memory_lock);
    count_memory(d, 0, size);
    pthread_mutex_unlock(&d->state->memory_lock);
}

mica_buffer *mica_buffer_borrow(mica_device *d, const void *data, size_t size, void (*release)(void *), void *owner) {
    mica_buffer *b = mica_alloc(sizeof *b);
    if (!b) return NULL;
    *b = (mica_buffer){.data = (void *)(uintptr_t)data, .size = size, .device = d, .release = release, .owner = owner};
    atomic_store(&b->refs, 1);
    // Marks borrowed memory without a callback, too: it must never enter the cache.
    if (!release) b->owner = b;
    return b;
}

mica_buffer *mica_buffer_retain(mica_buffer *b) {
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void mica_buffer_release(mica_buffer *b) {
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1) return;
    if (b->owner || b->release) {
        if (b->release) b->release(b->owner);
        mica_free(b);
        return;
    }
    mica_device *d = b->device;
    if (b->reserved) {
        d->memory_unreserve(d, b->data, b->size);
        mica_free(b);
        return;
    }
    mica_device_state *st = d->state;
    pthread_mutex_lock(&st->memory_lock);
    count_memory(d, 0, b->size);
    size_t c = class_of(b->size);
    b->next = st->free_list[c];
    st->free_list[c] = b;
    st->cached += b->size;
    if (st->cached > most_cached(st)) free_cached(d, most_cached(st));
    pthread_mutex_unlock(&st->memory_lock);
}

void mica_buffer_discard(mica_buffer *b) {
    if (!b) return;
    mica_device *d = b->device;
    pthread_mutex_lock(&d->state->memory_lock);
    count_memory(d, 0, b->size);
    pthread_mutex_unlock(&d->state->memory_lock);
    d->memory_free(d, b->data, b->size);
    mica_free(b);
}

// ---- memory controls ---------------------------------------------------------------------------------------------
static mica_memory memory_of(mica_device *d) {
    mica_device_state *st = d->state;
    pthread_mutex_lock(&st->memory_lock);
    mica_memory m = {st->active, st->peak, st->cached};
    pthread_mutex_unlock(&st->memory_lock);
    return m;
}

static void reset_peak(mica_device *d) {
    pthread_mutex_lock(&d->state->memory_lock);
    d->state->peak = d->state->active;
    pthread_mutex_unlock(&d->state->memory_lock);
}

// Keeps what is within both: `most` bytes, and the device's limit.
static void trim_cache(mica_device *d, size_t most) {
    pthread_mutex_lock(&d->state->memory_lock);
    free_cached(d, MICA_MIN(most, most_cached(d->state)));
    pthread_mutex_unlock(&d->state->memory_lock);
}

static size_t set_cache_limit(mica_device *d, size_t bytes) {
    pthread_mutex_lock(&d->state->memory_lock);
    size_t before = d->state->cache_limit;
    d->state->cache_limit = bytes;
    free_cached(d, most_cached(d->state));
    pthread_mutex_unlock(&d->state->memory_lock);
    return before;
}

void mica_device_cache_more(mica_device *d, size_t more, size_t less) {
    pthread_mutex_lock(&d->state->memory_lock);
    d->state->cache_more += more - less;
    free_cached(d, most_cached(d->state));
    pthread_mutex_unlock(&d->state->memory_lock);
}

mica_memory mica_device_memory(mica_device *d) {
    if (d) return memory_of(d);
    mica_memory m = {.active = atomic_load(&all_active), .peak = atomic_load(&all_peak)};
    pthread_mutex_lock(&all_lock);
    for (d = all_devices; d; d = d->state->next) m.cache += memory_of(d).cache;
    pthread_mutex_unlock(&all_lock);
    return m;
}

void mica_device_reset_peak(mica_device *d) {
    if (d) reset_peak(d);
    else atomic_store(&all_peak, atomic_load(&all_active));
}

void mica_device_clear_cache(mica_device *d) {
    if (d) {
        trim_cache(d, 0);
        return;
    }
    pthread_mutex_lock(&all_lock);
    for (d = all_devices; d; d = d->state->next) trim_cache(d, 0);
    pthread_mutex_unlock(&all_lock);
}

size_t mica_device_set_cache_limit(mica_device *d, size_t bytes) {
    if (d) return set_cache_limit(d, bytes);
    pthread_mutex_lock(&all_lock);
    size_t before = all_cache_limit;
    all_cache_limit = bytes;
    for (d = all_devices; d; d = d->state->next) set_cache_limit(d, bytes);
    pthread_mutex_unlock(&all_lock);
    return before;
}

size_t mica_device_set_memory_limit(mica_device *d, size_t bytes) {
    if (!d) return atomic_exchange(&all_limit, bytes);
    pthread_mutex_lock(&d->state->memory_lock);
    size_t before = d->state->memory_limit;
    d->state->memory_limit = bytes;
    pthread_mutex_unlock(&d->state->memory_lock);
    return before;
}

// ---- devices -------------------------------------------------------------------------------------------------------
/** Takes over a device that mica_cpu_open & co. made: finds its kernels, sets up its state. */
static bool attach(mica_device *d, mica_error *err) {
    mica_device_state *st = mica_calloc(1, sizeof *st);
    if (!st) return mica_fail_memory(err, sizeof *st, "a device");
    for (size_t k = 0; k < d->kernel_count; k++)
        for (size_t op = 0; op < MICA_OP_COUNT; op++)
            if (!strcmp(mica_op_table[op].name, d->kernels[k].op)) st->kernels[op] = d->kernels[k];
    pthread_mutex_init(&st->memory_lock, NULL);
    pthread_mutex_init(&st->run_lock, NULL);
    atomic_store(&st->refs, 1);
    d->state = st;
    join_devices(d);
    return true;
}

void mica_device_measure(mica_device *d, mica_op_clock *clocks) {
    pthread_mutex_lock(&d->state->run_lock);
    d->state->clocks = clocks;
    pthread_mutex_unlock(&d->state->run_lock);
}

mica_device *mica_device_retain(mica_device *d) {
    atomic_fetch_add(&d->state->refs, 1);
    return d;
}

mica_device *mica_device_open(const char *name, const mica_device_options *options, mica_error *err) {
    mica_device_options o = options ? *options : (mica_device_options){0};
    if (name && strcmp(name, "cpu")) {
        mica_fail(err, MICA_ERR_ARGUMENT, "device \"%s\" is not available; available: cpu", name);
        return NULL;
    }
    if (o.threads < 0) {
        mica_fail(err, MICA_ERR_ARGUMENT, "device: threads must not be negative, got %d", (int)o.threads);
        return NULL;
    }
    mica_device *d = mica_cpu_open((size_t)o.threads, o.level, err);
    if (!d) return NULL;
    if (attach(d, err)) return d;
    d->close(d);
    return NULL;
}

mica_device *mica_device_default(mica_error *err) {
    static mica_device *shared;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!shared) shared = mica_device_open("cpu", NULL, err);
    mica_device *d = shared ? mica_device_retain(shared) : NULL;
    pthread_mutex_unlock(&lock);
    return d;
}

void mica_device_close(mica_device *d) {
    if (!d || atomic_fetch_sub(&d->state->refs, 1) != 1) return;
    mica_device_state *st = d->state;
    leave_devices(d);
    for (size_t i = 0; i < MICA_MOST_PLANS; i++) mica_plan_free(st->plans[i]);
    mica_buffer_release(st->workspace);
    free_cached(d, 0);
    pthread_mutex_destroy(&st->memory_lock);
    pthread_mutex_destroy(&st->run_lock);
    mica_free(st);
    d->state = NULL;
    d->close(d);
}

const char *mica_device_name(const mica_device *d) { return d->name; }
const char *mica_device_level(const mica_device *d) { return d->level; }
