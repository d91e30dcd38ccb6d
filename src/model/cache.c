// SPDX-License-Identifier: Apache-2.0
// Pools and sequences of pages. Page numbers are host data; the pages themselves are one device array per group, which the graph
// writes (kv_append) and reads (paged_attention) through tables of page numbers.
#include "model/cache.h"
#include "engine/scope.h"
#include "engine/state.h"
#include "model/net.h"
#include <string.h>

// Elements of a row: codes are followed by their scale, four bytes.
static int64_t row_size(const mica_cache *c) { return c->head_dim + (c->dtype == MICA_I8 ? (int64_t)sizeof(float) : 0); }

static size_t page_bytes(const mica_cache *c, const mica_page_pool *p) {
    return (size_t)(p->layers * 2 * c->kv_heads * MICA_PAGE * row_size(c)) * mica_dtype_size(c->dtype);
}

bool mica_cache_init(mica_cache *c, mica_device *d, const mica_config *config, mica_dtype dtype, mica_error *err) {
    *c = (mica_cache){.device = d, .kv_heads = config->num_kv_heads, .head_dim = config->head_dim, .dtype = dtype};
    c->pool[1].window = config->sliding_window;
    for (int64_t i = 0; i < config->num_layers; i++) c->pool[mica_layer_group(config, i)].layers++;
    c->scope = mica_scope_new(d, err);
    return c->scope != NULL;
}

void mica_cache_free(mica_cache *c) {
    for (int g = 0; g < MICA_GROUPS; g++) {
        mica_array_free(c->pool[g].array);
        mica_free(c->pool[g].refs);
        mica_free(c->pool[g].free_pages);
    }
    mica_scope_free(c->scope);
    *c = (mica_cache){0};
}

int64_t mica_cache_bytes(const mica_cache *c) {
    int64_t bytes = 0;
    for (int g = 0; g < MICA_GROUPS; g++) bytes += (int64_t)mica_nbytes(c->pool[g].array);
    return bytes;
}

// ---- pools ------------------------------------------------------------------------------------------------
static mica_array *new_pool_array(mica_cache *c, const mica_page_pool *p, int32_t pages, mica_error *err) {
    size_t bytes = page_bytes(c, p) * (size_t)pages;
    mica_buffer *b = mica_buffer_new(c->device, bytes);
    if (!b) {
        mica_fail(err, MICA_ERR_NO_MEMORY, "out of memory: %zu bytes for the KV cache", bytes);
        return NULL;
    }
    if (p->array) c->device->copy(c->device, b->data, mica_data(p->array), mica_nbytes(p->array));
    int64_t shape[6] = {pages, p->layers, c->kv_heads, 2, MICA_PAGE, row_size(c)};
    mica_scope_reset(c->scope);
    mica_array *a = mica_scope_leaf(c->scope, b, 6, shape, c->dtype);
    mica_array *kept = a ? mica_keep(c->scope, a, err) : NULL;
    if (!a) mica_scope_error(c->scope, err);
    mica_scope_reset(c->scope);
    return kept;
}

static bool grow_pool(mica_cache *c, mica_page_pool *p, int32_t pages, mica_error *err) {
    uint32_t *refs = mica_realloc(p->refs, (size_t)pages * sizeof *refs);
    if (refs) p->refs = refs;
    int32_t *stack = mica_realloc(p->free_pages, (size_t)pages * sizeof *stack);
    if (stack) p->free_pages = stack;
    if (!refs || !stack) return mica_fail_memory(err, (size_t)pages * sizeof *refs, "the KV cache");
    mica_array *array = new_pool_array(c, p, pages, err);
    if (!array) return false;
    mica_array_free(p->array);
    p->array = array;
    for (int32_t i = pages; i-- > p->pages;) { // low numbers are used first
        p->refs[i] = 0;
        p->free_pages[p->free_count++] = i;
    }
    p->pages = pages;
    return true;
}

static bool take_page(mica_cache *c, mica_page_pool *p, int32_t *page, mica_error *err) {
    if (!p->free_count && !grow_pool(c, p, p->pages ? p->pages * 2 : 4, err)) return false;
    *page = p->free_pages[--p->free_count];
    p->refs[*page] = 1;
    return true;
}

static void drop_page(mica_page_pool *p, int32_t page) {
    if (page < 0 || --p->refs[page]) return;
    p->free_pages[p->free_count++] = page;
}

static int64_t pages_for(int64_t positions) { return (positions + MICA_PAGE - 1) / MICA_PAGE; }

bool mica_cache_reserve(mica_cache *c, int64_t length, mica_error *err) {
    for (int g = 0; g < MICA_GROUPS; g++) {
        mica_page_pool *p = &c->pool[g];
        int64_t need = pages_for(length), used = p->pages - (int64_t)p->free_count;
        if (p->layers && used + need > p->pages && !grow_pool(c, p, (int32_t)(used + need), err)) return false;
    }
    return true;
}

// ---- sequences ----------------------------------------------------------------------------------------------
void mica_sequence_init(mica_sequence *q, mica_cache *c) { *q = (mica_sequence){.cache = c}; }

void mica_sequence_free(mica_sequence *q) {
    for (int g = 0; g < MICA_GROUPS; g++) {
        for (size_t i = 0; i < q->count[g]; i++) drop_page(&q->cache->pool[g], q->pages[g][i]);
        mica_free(q->pages[g]);
    }
    *q = (mica_sequence){0};
}

// The page that holds position `length` is about to be written: if it is shared, it becomes a copy.
static bool unshare_last(mica_sequence *q, int g, mica_error *err) {
    mica_page_pool *p = &q->cache->pool[g];
    size_t i = (size_t)(q->length / MICA_PAGE);
    if (q->length % MICA_PAGE == 0 || i >= q->count[g] || p->refs[q->pages[g][i]] == 1) return true;
    int32_t page;
    if (!take_page(q->cache, p, &page, err)) return false;
    size_t bytes = page_bytes(q->cache, p);
    unsigned char *data = (unsigned char *)(uintptr_t)mica_data(p->array);
    q->cache->device->copy(q->cache->device, data + (size_t)page * bytes, data + (size_t)q->pages[g][i] * bytes, bytes);
    drop_page(p, q->pages[g][i]);
    q->pages[g][i] = page;
    return true;
}

bool mica_sequence_reserve(mica_sequence *q, int64_t tokens, mica_error *err) {
    for (int g = 0; g < MICA_GROUPS; g++) {
        mica_page_pool *p = &q->cache->pool[g];
        if (!p->layers) continue;
        size_t need = (size_t)pages_for(q->length + tokens);
        if (!mica_grow(&q->pages[g], &q->capacity[g], need, sizeof *q->pages[g]))
            return mica_fail_memory(err, need * sizeof *q->pages[g], "a page table");
        if (!unshare_last(q, g, err)) return false;
        for (; q->count[g] < need; q->count[g]++)
            if (!take_page(q->cache, p, &q->pages[g][q->count[g]], err)) return false;
    }
    return true;
}

void mica_sequence_advance(mica_sequence *q, int64_t tokens) {
    q->length += tokens;
    for (int g = 0; g < MICA_GROUPS; g++) {
        mica_page_pool *p = &q->cache->pool[g];
        if (!p->layers || !p->window) continue;
        // The next token, at position `length`, sees length - window + 1 and later.
        int64_t first = MICA_MAX(q->length - p->window + 1, (int64_t)0) / MICA_PAGE;
        for (; q->released[g] < (size_t)first && q->released[g] < q->count[g]; q->released[g]++) {
            drop_page(p, q->pages[g][q->released[g]]);
            q->pages[g][q->released[g]] = -1;
        }
    }
}

bool mica_sequence_fork(const mica_sequence *from, mica_sequence *to, mica_error *err) {
    *to = *from;
    for (int g = 0; g < MICA_GROUPS; g++) to->pages[g] = NULL, to->capacity[g] = 0, to->count[g] = 0;
    for (int g = 0; g < MICA_GROUPS; g++) {
        if (!mica_grow(&to->pages[g], &to->capacity[g], from->count[g], sizeof *to->pages[g])) {
            mica_sequence_free(to);
            return mica_fail_memory(err, from->count[g] * sizeof *to->pages[g], "a page table");
        }
        for (size_t i = 0; i < from->count[g]; i++) {
            to->pages[g][i] = from->pages[g][i];
            if (to->pages[g][i] >= 0) to->cache->pool[g].refs[to->pages[g][i]]++;
        }
        to->count[g] = from->count[g];
    }
    return true;
}

bool mica_sequence_truncate(mica_sequence *q, int64_t length) {
    if (length > q->length) return false;
    for (int g = 0; g < MICA_GROUPS; g++) {
        int64_t first = q->cache->pool[g].window ? MICA_MAX(length - q->cache->pool[g].window + 1, (int64_t)0) / MICA_PAGE : 0;
        if (q->cache->pool[g].layers && (size_t)first < q->released[g]) return false;
    }
    for (int g = 0; g < MICA_GROUPS; g++)
        while (q->count[g] > (size_t)pages_for(length)) drop_page(&q->cache->pool[g], q->pages[g][--q->count[g]]);
    q->length = length;
    return true;
}
