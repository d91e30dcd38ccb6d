// SPDX-License-Identifier: Apache-2.0
// Sequences: tables of pages. Page numbers are host data; the pages themselves are one device array per group, which the graph writes
// (kv_append) and reads (paged_attention) through tables of page numbers.
#include "model/cache.h"
#include "model/lora_set.h"
#include "model/pages.h"
#include "model/prefix.h"

void mica_sequence_init(mica_sequence *q, mica_cache *c) { *q = (mica_sequence){.cache = c}; }

void mica_sequence_adapt(mica_sequence *q, const mica_lora_set *adapter) {
    q->adapter = adapter;
    q->adapter_number = adapter ? adapter->number : 0;
}

static void drop_pages(mica_sequence *q) {
    for (int g = 0; g < MICA_GROUPS; g++)
        while (q->count[g]) mica_page_drop(q->cache, &q->cache->pool[g], q->pages[g][--q->count[g]]);
}

void mica_sequence_free(mica_sequence *q) {
    mica_cache *c = q->cache;
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    drop_pages(q);
    pthread_mutex_unlock(&c->lock);
    for (int g = 0; g < MICA_GROUPS; g++) mica_free(q->pages[g]);
    *q = (mica_sequence){0};
}

// A page; if there is none, the spare sequences are emptied for it.
static bool take(mica_sequence *q, int g, int32_t *page, mica_error *err) {
    mica_page_pool *p = &q->cache->pool[g];
    if (mica_page_take(q->cache, p, page, err)) return true;
    if (!q->spare || !*q->spare_count) return false;
    while (*q->spare_count) {
        mica_sequence *spare = &q->spare[--*q->spare_count];
        drop_pages(spare);
        for (int k = 0; k < MICA_GROUPS; k++) mica_free(spare->pages[k]);
        *spare = (mica_sequence){0};
    }
    return mica_page_take(q->cache, p, page, err);
}

// The page that holds position `length` is about to be written: if it is shared, it becomes a copy.
static bool unshare_last(mica_sequence *q, int g, mica_error *err) {
    mica_cache *c = q->cache;
    mica_page_pool *p = &c->pool[g];
    size_t i = (size_t)(q->length / MICA_PAGE);
    if (q->length % MICA_PAGE == 0 || i >= q->count[g] || p->refs[q->pages[g][i]] == 1) return true;
    int32_t page;
    if (!take(q, g, &page, err)) return false;
    c->device->copy(c->device, mica_page_data(p, page), mica_page_data(p, q->pages[g][i]), p->page_bytes);
    mica_page_drop(c, p, q->pages[g][i]);
    q->pages[g][i] = page;
    return true;
}

static bool reserve(mica_sequence *q, int g, int64_t tokens, mica_error *err) {
    mica_page_pool *p = &q->cache->pool[g];
    if (!p->layers) return true;
    size_t need = (size_t)mica_pages_for(q->length + tokens);
    if (!mica_grow(&q->pages[g], &q->capacity[g], need, sizeof *q->pages[g]))
        return mica_fail_memory(err, need * sizeof *q->pages[g], "a page table");
    if (!unshare_last(q, g, err)) return false;
    for (; q->count[g] < need; q->count[g]++)
        if (!take(q, g, &q->pages[g][q->count[g]], err)) return false;
    return true;
}

bool mica_sequence_reserve(mica_sequence *q, int64_t tokens, mica_error *err) {
    bool ok = true;
    pthread_mutex_lock(&q->cache->lock);
    for (int g = 0; ok && g < MICA_GROUPS; g++) ok = reserve(q, g, tokens, err);
    pthread_mutex_unlock(&q->cache->lock);
    return ok;
}

static bool place(mica_sequence *q, int g, int64_t length, mica_error *err) {
    mica_page_pool *p = &q->cache->pool[g];
    size_t need = p->layers ? (size_t)mica_pages_for(length) : 0, first = p->layers ? (size_t)mica_pages_seen(p, length) : 0;
    if (!mica_grow(&q->pages[g], &q->capacity[g], need, sizeof *q->pages[g]))
        return mica_fail_memory(err, need * sizeof *q->pages[g], "a page table");
    for (; q->count[g] < need; q->count[g]++) {
        if (q->count[g] < first) q->pages[g][q->count[g]] = -1;
        else if (!take(q, g, &q->pages[g][q->count[g]], err)) return false;
    }
    q->released[g] = first;
    return true;
}

bool mica_sequence_place(mica_sequence *q, int64_t length, mica_error *err) {
    bool ok = true;
    pthread_mutex_lock(&q->cache->lock);
    for (int g = 0; ok && g < MICA_GROUPS; g++) ok = place(q, g, length, err);
    pthread_mutex_unlock(&q->cache->lock);
    if (ok) q->length = length;
    return ok;
}

void mica_sequence_advance(mica_sequence *q, int64_t tokens) {
    mica_cache *c = q->cache;
    if (q->prompt) {
        pthread_mutex_lock(&c->lock);
        mica_prefix_keep(q, tokens);
        pthread_mutex_unlock(&c->lock);
    }
    q->length += tokens;
    if ((size_t)q->length >= q->prompt_count) q->prompt = NULL;
    for (int g = 0; g < MICA_GROUPS; g++) {
        mica_page_pool *p = &c->pool[g];
        size_t first = MICA_MIN((size_t)mica_pages_seen(p, q->length), q->count[g]);
        if (!p->layers || q->released[g] >= first) continue;
        pthread_mutex_lock(&c->lock);
        for (; q->released[g] < first; q->released[g]++) {
            mica_page_drop(c, p, q->pages[g][q->released[g]]);
            q->pages[g][q->released[g]] = -1;
        }
        pthread_mutex_unlock(&c->lock);
    }
}

bool mica_sequence_fork(const mica_sequence *from, mica_sequence *to, mica_error *err) {
    mica_cache *c = from->cache;
    *to = *from;
    to->prompt = NULL, to->spare = NULL, to->spare_count = NULL;
    for (int g = 0; g < MICA_GROUPS; g++) to->pages[g] = NULL, to->capacity[g] = 0, to->count[g] = 0;
    for (int g = 0; g < MICA_GROUPS; g++) {
        if (!mica_grow(&to->pages[g], &to->capacity[g], from->count[g], sizeof *to->pages[g])) {
            mica_sequence_free(to);
            return mica_fail_memory(err, from->count[g] * sizeof *to->pages[g], "a page table");
        }
        pthread_mutex_lock(&c->lock);
        for (size_t i = 0; i < from->count[g]; i++) {
            to->pages[g][i] = from->pages[g][i];
            if (to->pages[g][i] >= 0) mica_page_share(&c->pool[g], to->pages[g][i]);
        }
        pthread_mutex_unlock(&c->lock);
        to->count[g] = from->count[g];
    }
    return true;
}

bool mica_sequence_truncate(mica_sequence *q, int64_t length) {
    mica_cache *c = q->cache;
    if (length > q->length) return false;
    for (int g = 0; g < MICA_GROUPS; g++)
        if (c->pool[g].layers && (size_t)mica_pages_seen(&c->pool[g], length) < q->released[g]) return false;
    pthread_mutex_lock(&c->lock);
    for (int g = 0; g < MICA_GROUPS; g++)
        while (q->count[g] > (size_t)mica_pages_for(length)) mica_page_drop(c, &c->pool[g], q->pages[g][--q->count[g]]);
    pthread_mutex_unlock(&c->lock);
    q->length = length;
    q->exact = MICA_MIN(q->exact, length);
    return true;
}
