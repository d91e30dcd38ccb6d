// SPDX-License-Identifier: Apache-2.0
// Pages of a cache by number, for the files that keep tables of them. All of it with the cache's lock held.
#ifndef MICA_MODEL_PAGES_H
#define MICA_MODEL_PAGES_H

#include "model/cache.h"

static inline int64_t mica_pages_for(int64_t positions) { return (positions + MICA_PAGE - 1) / MICA_PAGE; }
/** The first page that a token at position `length` of a pool's sequence can see. */
static inline int64_t mica_pages_seen(const mica_page_pool *p, int64_t length) {
    return p->window && length >= p->window ? (length - p->window + 1) / MICA_PAGE : 0;
}
/** A page with one reference; its contents are undefined. */
bool mica_page_take(mica_cache *c, mica_page_pool *p, int32_t *page, mica_error *err);
static inline void mica_page_share(mica_page_pool *p, int32_t page) { p->refs[page]++; }
/** One reference less; nothing for page -1. */
void mica_page_drop(mica_cache *c, mica_page_pool *p, int32_t page);
unsigned char *mica_page_data(const mica_page_pool *p, int32_t page);
#endif
