// SPDX-License-Identifier: Apache-2.0
// The tree of kept prefixes as a hash table from (parent, kind, tokens) to node, and a list in order of use. Whoever uses a node uses all above it,
// which then count as used a little later: so the least recently used node has no children.
#include "model/prefix.h"
#include "model/pages.h"
#include "model/rope.h"
#include <string.h>

struct mica_prefix {
    mica_prefix *parent, *chain;  // chain: next of its bucket
    mica_prefix *newer, *older;
    uint64_t hash, rope, adapter; // rope: which frequencies its keys have; adapter: the number of the one it was computed with
    int32_t pages[MICA_GROUPS];   // -1: none (the group has no layers, or the page was gone)
    int32_t ids[MICA_PAGE];
};

// ---- rotary frequencies -----------------------------------------------------------------------------------------
// Lengths with equal frequencies have equal marks.
static uint64_t rope_mark(const mica_cache *c, int64_t length) {
    uint64_t mark = (uint64_t)mica_rope_same(c->config, &c->config->rope, length);
    if (c->config->sliding_window) mark = mica_hash_mix(mark, (uint64_t)mica_rope_same(c->config, &c->config->rope_sliding, length));
    return mark;
}

bool mica_prefix_same_rope(const mica_cache *c, int64_t from, int64_t to) { return rope_mark(c, from) == rope_mark(c, to); }

// ---- the table --------------------------------------------------------------------------------------------------
/** What two pages must share besides their tokens. */
typedef struct kind {
    uint64_t rope, adapter;
} kind;

static kind kind_of(const mica_sequence *q, int64_t length) { return (kind){rope_mark(q->cache, length), q->adapter_number}; }

static uint64_t hash_of(const mica_prefix *parent, kind k, const int32_t *ids) {
    return mica_hash(ids, MICA_PAGE * sizeof *ids, mica_hash_mix(mica_hash_mix(parent ? parent->hash : 0, k.rope), k.adapter));
}

static mica_prefix **bucket_of(const mica_prefix_pool *p, uint64_t hash) { return &p->buckets[hash & (p->bucket_count - 1)]; }

static bool is(const mica_prefix *n, uint64_t hash, const mica_prefix *parent, kind k, const int32_t *ids) {
    return n->hash == hash && n->parent == parent && n->rope == k.rope && n->adapter == k.adapter && !memcmp(n->ids, ids, sizeof n->ids);
}

static mica_prefix *find(const mica_prefix_pool *p, const mica_prefix *parent, kind k, const int32_t *ids) {
    uint64_t hash = hash_of(parent, k, ids);
    mica_prefix *n = p->bucket_count ? *bucket_of(p, hash) : NULL;
    while (n && !is(n, hash, parent, k, ids)) n = n->chain;
    return n;
}

static bool grow_table(mica_prefix_pool *p) {
    size_t count = p->bucket_count ? p->bucket_count * 2 : 64;
    mica_prefix **buckets = mica_calloc(count, sizeof(mica_prefix *)), **before = p->buckets;
    if (!buckets) return false;
    p->buckets = buckets, p->bucket_count = count;
    for (mica_prefix *n = p->newest; n; n = n->older) {
        mica_prefix **bucket = bucket_of(p, n->hash);
        n->chain = *bucket, *bucket = n;
    }
    mica_free(before);
    return true;
}

// ---- order of use -------------------------------------------------------------------------------------------------
static void unlink_use(mica_prefix_pool *p, mica_prefix *n) {
    *(n->newer ? &n->newer->older : &p->newest) = n->older;
    *(n->older ? &n->older->newer : &p->oldest) = n->newer;
}

static void link_use(mica_prefix_pool *p, mica_prefix *n) {
    n->newer = NULL, n->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = n;
    p->newest = n;
}

static void touch(mica_prefix_pool *p, mica_prefix *n) {
    for (; n; n = n->parent) unlink_use(p, n), link_use(p, n);
}

// ---- pages of nodes ---------------------------------------------------------------------------------------------
static int64_t node_bytes(const mica_cache *c, const mica_prefix *n) {
    int64_t bytes = 0;
    for (int g = 0; g < MICA_GROUPS; g++)
        if (n->pages[g] >= 0) bytes += (int64_t)c->pool[g].page_bytes;
    return bytes;
}

static void drop(mica_cache *c, mica_prefix *n) {
    mica_prefix_pool *p = &c->prefixes;
    p->bytes -= node_bytes(c, n);
    for (int g = 0; g < MICA_GROUPS; g++) mica_page_drop(c, &c->pool[g], n->pages[g]);
    mica_prefix **link = bucket_of(p, n->hash);
    while (*link != n) link = &(*link)->chain;
    *link = n->chain;
    unlink_use(p, n);
    p->count--;
    mica_free(n);
}

bool mica_prefix_evict(mica_cache *c) {
    mica_prefix *n = c->prefixes.oldest;
    if (n) drop(c, n);
    return n != NULL;
}

// Children are older than their parent, so they go first.
void mica_prefix_forget(mica_cache *c, uint64_t adapter) {
    pthread_mutex_lock(&c->lock);
    for (mica_prefix *n = c->prefixes.oldest, *newer; n; n = newer) {
        newer = n->newer;
        if (n->adapter == adapter) drop(c, n);
    }
    pthread_mutex_unlock(&c->lock);
}

void mica_prefix_clear(mica_cache *c) {
    while (mica_prefix_evict(c)) {}
    mica_free(c->prefixes.buckets);
    c->prefixes.buckets = NULL, c->prefixes.bucket_count = 0;
}

static mica_prefix *add(mica_cache *c, mica_prefix *parent, kind k, const int32_t *ids) {
    mica_prefix_pool *p = &c->prefixes;
    if (p->count >= p->bucket_count && !grow_table(p)) return NULL;
    mica_prefix *n = mica_alloc(sizeof *n);
    if (!n) return NULL;
    *n = (mica_prefix){.parent = parent, .hash = hash_of(parent, k, ids), .rope = k.rope, .adapter = k.adapter, .pages = {-1, -1}};
    memcpy(n->ids, ids, sizeof n->ids);
    mica_prefix **bucket = bucket_of(p, n->hash);
    n->chain = *bucket, *bucket = n;
    link_use(p, n);
    p->count++;
    return n;
}

// Node and sequence share page i: the node's own where it has one.
static void share(mica_sequence *q, mica_prefix *n, size_t i) {
    mica_cache *c = q->cache;
    c->prefixes.bytes -= node_bytes(c, n);
    for (int g = 0; g < MICA_GROUPS; g++) {
        mica_page_pool *p = &c->pool[g];
        int32_t *own = i < q->count[g] ? &q->pages[g][i] : NULL;
        if (!own || *own < 0 || *own == n->pages[g]) continue;
        if (n->pages[g] < 0) n->pages[g] = *own;
        else mica_page_drop(c, p, *own), *own = n->pages[g];
        mica_page_share(p, *own);
    }
    c->prefixes.bytes += node_bytes(c, n);
}

// ---- keeping ------------------------------------------------------------------------------------------------------
void mica_prefix_keep(mica_sequence *q, int64_t tokens) {
    mica_cache *c = q->cache;
    mica_prefix_pool *p = &c->prefixes;
    int64_t end = MICA_MIN(q->length + tokens, (int64_t)q->prompt_count);
    if (!q->many || q->exact != q->length) return;
    q->exact = end;
    if (!p->most) return;
    kind k = kind_of(q, q->rope_length);
    mica_prefix *n = NULL;
    for (size_t i = 0; i < (size_t)(end / MICA_PAGE); i++) {
        const int32_t *ids = q->prompt + i * MICA_PAGE;
        mica_prefix *next = find(p, n, k, ids);
        if (!next && !(next = add(c, n, k, ids))) break; // out of memory: it need not be kept
        n = next;
        share(q, n, i);
    }
    touch(p, n);
    while (p->bytes > p->most && mica_prefix_evict(c)) {}
}

// ---- taking -------------------------------------------------------------------------------------------------------
// The most positions that a prompt of n may take over: at least two tokens are left, since one alone is computed in another way.
static size_t most_taken(size_t n) {
    size_t last = n ? (n - 1) / MICA_CHUNK * MICA_CHUNK : 0, most = n > 2 ? (n - 2) / MICA_PAGE : 0;
    return n - last < MICA_MANY ? last / MICA_PAGE : most;
}

// The deepest node at which a sequence can go on: every page that the next token sees must be there. *depth: its pages.
static mica_prefix *deepest(const mica_sequence *q, const int32_t *ids, size_t n, size_t *depth) {
    const mica_cache *c = q->cache;
    kind k = kind_of(q, (int64_t)n);
    size_t most = most_taken(n), holes = 0; // holes: pages up to the last one without its window's part
    mica_prefix *best = NULL, *at = NULL;
    *depth = 0;
    for (size_t i = 0; i < most && (at = find(&c->prefixes, at, k, ids + i * MICA_PAGE)); i++) {
        if (c->pool[1].layers && at->pages[1] < 0) holes = i + 1;
        if (holes <= (size_t)mica_pages_seen(&c->pool[1], (int64_t)(i + 1) * MICA_PAGE)) best = at, *depth = i + 1;
    }
    return best;
}

static bool take(mica_sequence *q, mica_prefix *n, size_t depth, mica_error *err) {
    mica_cache *c = q->cache;
    for (int g = 0; g < MICA_GROUPS; g++)
        if (c->pool[g].layers && !mica_grow(&q->pages[g], &q->capacity[g], depth, sizeof *q->pages[g]))
            return mica_fail_memory(err, depth * sizeof *q->pages[g], "a page table");
    touch(&c->prefixes, n);
    q->length = q->exact = (int64_t)(depth * MICA_PAGE);
    for (int g = 0; g < MICA_GROUPS; g++) {
        if (!c->pool[g].layers) continue;
        q->count[g] = depth;
        q->released[g] = (size_t)mica_pages_seen(&c->pool[g], q->length);
    }
    for (size_t i = depth; i-- > 0; n = n->parent)
        for (int g = 0; g < MICA_GROUPS; g++) {
            if (!c->pool[g].layers) continue;
            q->pages[g][i] = i < q->released[g] ? -1 : n->pages[g];
            if (q->pages[g][i] >= 0) mica_page_share(&c->pool[g], q->pages[g][i]);
        }
    return true;
}

bool mica_prefix_begin(mica_sequence *q, const int32_t *ids, size_t n, mica_error *err) {
    size_t depth;
    q->prompt = ids, q->prompt_count = n;
    q->rope_length = (int64_t)n;
    pthread_mutex_lock(&q->cache->lock);
    mica_prefix *found = q->length ? NULL : deepest(q, ids, n, &depth);
    bool ok = !found || take(q, found, depth, err);
    pthread_mutex_unlock(&q->cache->lock);
    return ok;
}

size_t mica_prefix_find(const mica_sequence *q, const int32_t *ids, size_t n) {
    size_t depth;
    pthread_mutex_lock(&q->cache->lock);
    deepest(q, ids, n, &depth);
    pthread_mutex_unlock(&q->cache->lock);
    return depth * MICA_PAGE;
}

size_t mica_prefix_run(mica_sequence *q, size_t n) {
    size_t at = (size_t)q->length, chunk = at / MICA_CHUNK * MICA_CHUNK, end = MICA_MIN(n, chunk + MICA_CHUNK);
    q->many = q->exact == q->length && end - chunk >= MICA_MANY && end - at > 1;
    return q->many ? end - at : MICA_MIN(n - at, (size_t)MICA_CHUNK);
}
