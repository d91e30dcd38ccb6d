// SPDX-License-Identifier: Apache-2.0
// Pools of pages. A pool is address space for as many pages as the machine could hold; pages become memory when they are taken, the lowest
// first, and blocks in which no page is left are given back to the system but for a few. So a pool never moves, its array's shape never
// changes (plans stay valid), and memory follows what is in use.
#include "engine/scope.h"
#include "engine/state.h"
#include "model/net.h"
#include "model/pages.h"
#include "model/prefix.h"
#include <stdio.h>
#include <string.h>

enum {
    MOST_PAGES = 1 << 20,               // 33 million positions
    FEWEST_PAGES = 64,                  // less address space than for these is a failure
    IDLE_BYTES = 32 << 20,              // memory that a pool keeps for its next pages
    BLOCK = MICA_HUGE_PAGE,
};

// Elements of a row: codes are followed by their scale, four bytes.
static int64_t row_size(const mica_cache *c) { return c->head_dim + (c->dtype == MICA_I8 ? (int64_t)sizeof(float) : 0); }

// ---- set-up -------------------------------------------------------------------------------------------------
static size_t blocks_of(const mica_page_pool *p, int32_t pages) { return ((size_t)pages * p->page_bytes + BLOCK - 1) / BLOCK; }

// As many pages as there is memory for, or fewer where the address space is small.
static bool reserve_space(mica_cache *c, mica_page_pool *p, mica_error *err) {
    size_t most = mica_reserve_most() / p->page_bytes;
    p->most = (int32_t)MICA_MAX(MICA_MIN(most, (size_t)MOST_PAGES), (size_t)FEWEST_PAGES);
    while (!(p->buffer = mica_buffer_reserve(c->device, blocks_of(p, p->most) * BLOCK)) && p->most / 2 >= FEWEST_PAGES) p->most /= 2;
    if (p->buffer) return true;
    return mica_fail(err, MICA_ERR_NO_MEMORY, "out of memory: no address space for %d pages of the KV cache, %zu bytes each", (int)p->most,
                     p->page_bytes);
}

static bool make_array(mica_cache *c, mica_page_pool *p, mica_scope *s, mica_error *err) {
    int64_t shape[6] = {p->most, p->layers, c->kv_heads, 2, MICA_PAGE, row_size(c)};
    mica_array *a = mica_scope_leaf(s, p->buffer, 6, shape, c->dtype);
    if (a) p->array = mica_keep(s, a, err);
    else mica_scope_error(s, err), p->buffer = NULL; // released by then
    return p->array != NULL;
}

static bool init_pool(mica_cache *c, mica_page_pool *p, mica_error *err) {
    if (!p->layers) return true;
    p->page_bytes = (size_t)(p->layers * 2 * c->kv_heads * MICA_PAGE * row_size(c)) * mica_dtype_size(c->dtype);
    mica_scope *s = mica_scope_new(c->device, err);
    bool ok = s && reserve_space(c, p, err) && make_array(c, p, s, err);
    mica_scope_free(s);
    return ok;
}

bool mica_cache_init(mica_cache *c, mica_device *d, const mica_config *config, mica_dtype dtype, mica_error *err) {
    *c = (mica_cache){.device = d, .config = config, .kv_heads = config->num_kv_heads, .head_dim = config->head_dim, .dtype = dtype};
    pthread_mutex_init(&c->lock, NULL);
    c->pool[1].window = config->sliding_window;
    for (int64_t i = 0; i < config->num_layers; i++) c->pool[mica_layer_group(config, i)].layers++;
    for (int g = 0; g < MICA_GROUPS; g++)
        if (!init_pool(c, &c->pool[g], err)) {
            mica_cache_free(c);
            return false;
        }
    return true;
}

static void free_pool(mica_cache *c, mica_page_pool *p) {
    for (size_t i = 0; i < p->block_count; i++)
        if (p->blocks[i].backed) c->device->memory_decommit(c->device, (unsigned char *)p->buffer->data + i * BLOCK, BLOCK);
    mica_array_free(p->array);
    mica_free(p->refs);
    mica_free(p->blocks);
}

void mica_cache_free(mica_cache *c) {
    if (!c->device) return;
    mica_prefix_clear(c);
    for (int g = 0; g < MICA_GROUPS; g++) free_pool(c, &c->pool[g]);
    pthread_mutex_destroy(&c->lock);
    *c = (mica_cache){0};
}

static int64_t bytes_used(const mica_cache *c) {
    int64_t bytes = 0;
    for (int g = 0; g < MICA_GROUPS; g++) bytes += c->pool[g].used * (int64_t)c->pool[g].page_bytes;
    return bytes;
}

int64_t mica_cache_bytes(mica_cache *c) {
    pthread_mutex_lock(&c->lock);
    int64_t bytes = bytes_used(c);
    pthread_mutex_unlock(&c->lock);
    return bytes;
}

// Layers with a window hold a chunk, and what its first token sees.
static int64_t most_pages(const mica_page_pool *p, int64_t length) {
    int64_t window = mica_pages_for(MICA_CHUNK) + mica_pages_for(p->window - 1), all = mica_pages_for(length);
    return !p->layers ? 0 : p->window ? MICA_MIN(all, window) : all;
}

bool mica_cache_fits(mica_cache *c, int64_t length, mica_error *err) {
    int64_t need = 0;
    for (int g = 0; g < MICA_GROUPS; g++) need += most_pages(&c->pool[g], length) * (int64_t)c->pool[g].page_bytes;
    pthread_mutex_lock(&c->lock);
    int64_t budget = c->budget;
    pthread_mutex_unlock(&c->lock);
    if (!budget || need <= budget) return true;
    return mica_fail(err, MICA_ERR_NO_MEMORY, "out of memory: keys and values of %lld tokens take %lld bytes, the memory budget leaves %lld",
                     (long long)length, (long long)need, (long long)budget);
}

bool mica_cache_set_aside(mica_cache *c, int64_t bytes, const char *what, mica_error *err) {
    pthread_mutex_lock(&c->lock);
    while (c->budget && bytes_used(c) + bytes >= c->budget && mica_prefix_evict(c)) {}
    int64_t left = c->budget - bytes_used(c);
    bool ok = !c->budget || bytes < left;
    if (ok && c->budget) c->budget -= bytes;
    pthread_mutex_unlock(&c->lock);
    return ok || mica_fail(err, MICA_ERR_NO_MEMORY, "out of memory: %s takes %lld bytes, the memory budget leaves %lld", what, (long long)bytes, (long long)left);
}

void mica_cache_give_back(mica_cache *c, int64_t bytes) {
    pthread_mutex_lock(&c->lock);
    if (c->budget) c->budget += bytes;
    pthread_mutex_unlock(&c->lock);
}

// ---- bookkeeping ----------------------------------------------------------------------------------------------
static bool know_pages(mica_page_pool *p, int64_t want, mica_error *err) {
    int32_t pages = (int32_t)MICA_MIN(MICA_MAX(want, (int64_t)p->pages * 2), (int64_t)p->most);
    if (want <= p->pages) return true;
    if (want > p->most)
        return mica_fail(err, MICA_ERR_NO_MEMORY, "the KV cache has address space for %d pages of %zu bytes, and %lld are wanted",
                         (int)p->most, p->page_bytes, (long long)want);
    size_t blocks = blocks_of(p, pages);
    uint32_t *refs = mica_realloc(p->refs, (size_t)pages * sizeof *refs);
    if (refs) p->refs = refs;
    mica_page_block *more = refs ? mica_realloc(p->blocks, blocks * sizeof *more) : NULL;
    if (more) p->blocks = more;
    if (!more) return mica_fail_memory(err, (size_t)pages * sizeof *refs, "the KV cache");
    memset(refs + p->pages, 0, (size_t)(pages - p->pages) * sizeof *refs);
    memset(more + p->block_count, 0, (blocks - p->block_count) * sizeof *more);
    p->pages = pages, p->block_count = blocks;
    return true;
}

bool mica_cache_reserve(mica_cache *c, int64_t length, mica_error *err) {
    bool ok = true;
    pthread_mutex_lock(&c->lock);
    for (int g = 0; ok && g < MICA_GROUPS; g++) {
        mica_page_pool *p = &c->pool[g];
        if (p->layers) ok = know_pages(p, MICA_MIN(p->used + mica_pages_for(length) + 1, (int64_t)p->most), err);
    }
    pthread_mutex_unlock(&c->lock);
    return ok;
}

// ---- memory ---------------------------------------------------------------------------------------------------
unsigned char *mica_page_data(const mica_page_pool *p, int32_t page) { return (unsigned char *)p->buffer->data + (size_t)page * p->page_bytes; }

static void leave_block(mica_cache *c, mica_page_pool *p, size_t i) {
    mica_page_block *b = &p->blocks[i];
    if (--b->used) return;
    if ((++p->idle) * BLOCK <= IDLE_BYTES) return;
    c->device->memory_decommit(c->device, (unsigned char *)p->buffer->data + i * BLOCK, BLOCK);
    b->backed = false;
    p->idle--;
}

static bool enter_block(mica_cache *c, mica_page_pool *p, size_t i) {
    mica_page_block *b = &p->blocks[i];
    if (!b->backed && !c->device->memory_commit(c->device, (unsigned char *)p->buffer->data + i * BLOCK, BLOCK)) return false;
    if (b->backed && !b->used) p->idle--;
    b->backed = true;
    b->used++;
    return true;
}

// The blocks that a page lies in get one page more in use.
static bool enter_blocks(mica_cache *c, mica_page_pool *p, int32_t page) {
    size_t first = (size_t)page * p->page_bytes / BLOCK, last = (((size_t)page + 1) * p->page_bytes - 1) / BLOCK;
    for (size_t i = first; i <= last; i++)
        if (!enter_block(c, p, i)) {
            while (i-- > first) leave_block(c, p, i);
            return false;
        }
    return true;
}

static bool no_room(const mica_cache *c, const mica_page_pool *p, mica_error *err) {
    char budget[64] = "";
    if (c->budget) snprintf(budget, sizeof budget, " of %lld that the memory budget leaves", (long long)c->budget);
    return mica_fail(err, MICA_ERR_NO_MEMORY, "out of memory: no %zu bytes for another page of the KV cache, which holds %lld bytes%s",
                     p->page_bytes, (long long)bytes_used(c), budget);
}

static bool within_budget(const mica_cache *c, const mica_page_pool *p) {
    return !c->budget || bytes_used(c) + (int64_t)p->page_bytes <= c->budget;
}

static bool give_memory(mica_cache *c, mica_page_pool *p, int32_t page) {
    if (!mica_device_take(c->device, p->page_bytes)) return false;
    if (enter_blocks(c, p, page)) return true;
    mica_device_give(c->device, p->page_bytes);
    return false;
}

// Kept prefixes make room for what is being computed.
static bool make_room(mica_cache *c, mica_page_pool *p, mica_error *err) {
    while (!within_budget(c, p))
        if (!mica_prefix_evict(c)) return no_room(c, p, err);
    return true;
}

bool mica_page_take(mica_cache *c, mica_page_pool *p, int32_t *page, mica_error *err) {
    if (!make_room(c, p, err)) return false;
    int32_t i = p->first_free;
    while (i < p->pages && p->refs[i]) i++;
    p->first_free = i;
    if (!know_pages(p, (int64_t)i + 1, err)) return false;
    while (!give_memory(c, p, i))
        if (!mica_prefix_evict(c)) return no_room(c, p, err);
    p->refs[i] = 1;
    p->first_free = i + 1;
    p->used++;
    *page = i;
    return true;
}

void mica_page_drop(mica_cache *c, mica_page_pool *p, int32_t page) {
    if (page < 0 || --p->refs[page]) return;
    size_t first = (size_t)page * p->page_bytes / BLOCK, last = (((size_t)page + 1) * p->page_bytes - 1) / BLOCK;
    for (size_t i = first; i <= last; i++) leave_block(c, p, i);
    mica_device_give(c->device, p->page_bytes);
    p->used--;
    p->first_free = MICA_MIN(p->first_free, page);
}
