// SPDX-License-Identifier: Apache-2.0
// Files of sessions: a header, token ids, the pages of each layer group as they lie in memory (what a page holds past the text is zero), a
// checksum of all of it. Numbers are little-endian. Everything is checked before anything is used: a file that does not fit this model and its
// own header to the byte is refused.
#include "base/file.h"
#include "infer/adapters.h"
#include "infer/past.h"
#include "model/identity.h"
#include "model/pages.h"
#include "text/cache.h"
#include <assert.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian");

enum { VERSION = 1 };
static const char MAGIC[8] = {'m', 'i', 'c', 'a', 's', 'e', 's', 's'};

typedef struct header {
    char magic[8];
    uint32_t version, header_size;
    uint64_t identity;                  // of the model
    uint32_t kv_dtype, page, groups, reserved;
    uint64_t page_bytes[MICA_GROUPS];
    int64_t length, rope_length, exact; // as in mica_sequence
    uint64_t first[MICA_GROUPS], count[MICA_GROUPS]; // pages [first, count) of each group follow
} header;

static uint64_t seal_of(mica_cache_key key) { return key.hash ^ key.second; }

// ---- writing --------------------------------------------------------------------------------------------------
typedef struct out {
    mica_writer file;
    mica_cache_key key;
    mica_error *err;
} out;

static bool put(out *o, const void *bytes, size_t n) {
    o->key = mica_cache_key_add(o->key, bytes, n);
    return mica_writer_write(&o->file, bytes, n, o->err);
}

static bool fill_header(const mica_past *p, header *h, mica_error *err) {
    const mica_sequence *q = &p->sequence;
    *h = (header){.version = VERSION, .header_size = sizeof *h, .kv_dtype = (uint32_t)q->cache->dtype, .page = MICA_PAGE, .groups = MICA_GROUPS,
                  .length = q->length, .rope_length = q->rope_length, .exact = MICA_MIN(q->exact, q->length)};
    memcpy(h->magic, MAGIC, sizeof MAGIC);
    for (int g = 0; g < MICA_GROUPS; g++) {
        const mica_page_pool *pool = &q->cache->pool[g];
        if (!pool->layers) continue;
        h->page_bytes[g] = pool->page_bytes;
        h->first[g] = (uint64_t)mica_pages_seen(pool, q->length);
        h->count[g] = (uint64_t)mica_pages_for(q->length);
    }
    if (!mica_net_identity(p->lm->net, &h->identity, err)) return false;
    h->identity = mica_identity_with(h->identity, q->length ? p->adapter : 0);
    return true;
}

// Positions of the page past the text are whatever was there before: they become zero.
static void clear_rest(const mica_cache *c, const mica_page_pool *p, int64_t held, unsigned char *page) {
    bool codes = c->dtype == MICA_I8;
    size_t row = (size_t)c->head_dim * mica_dtype_size(c->dtype), used = (size_t)held, rest = (size_t)MICA_PAGE - used;
    size_t half = MICA_PAGE * (row + (codes ? sizeof(float) : 0)), halves = p->page_bytes / half;
    for (size_t i = 0; i < halves; i++, page += half) {
        memset(page + used * row, 0, rest * row);
        if (codes) memset(page + MICA_PAGE * row + used * sizeof(float), 0, rest * sizeof(float));
    }
}

static bool put_pages(out *o, const mica_sequence *q, int g) {
    mica_cache *c = q->cache;
    const mica_page_pool *p = &c->pool[g];
    unsigned char *page = mica_alloc(p->page_bytes);
    bool ok = page || mica_fail_memory(o->err, p->page_bytes, "a page");
    for (size_t i = (size_t)mica_pages_seen(p, q->length); ok && i < (size_t)mica_pages_for(q->length); i++) {
        int64_t held = MICA_MIN(q->length - (int64_t)i * MICA_PAGE, (int64_t)MICA_PAGE);
        c->device->copy_out(c->device, page, mica_page_data(p, q->pages[g][i]), p->page_bytes);
        if (held < MICA_PAGE) clear_rest(c, p, held, page);
        ok = put(o, page, p->page_bytes);
    }
    mica_free(page);
    return ok;
}

bool mica_past_save(const mica_past *p, const char *path, mica_error *err) {
    header h;
    out o = {.err = err};
    if (!fill_header(p, &h, err) || !mica_writer_open(&o.file, path, err)) return false;
    bool ok = put(&o, &h, sizeof h) && put(&o, p->ids.data, p->ids.len * sizeof *p->ids.data);
    for (int g = 0; ok && g < MICA_GROUPS; g++)
        if (h.page_bytes[g]) ok = put_pages(&o, &p->sequence, g);
    uint64_t seal = seal_of(o.key);
    ok = ok && mica_writer_write(&o.file, &seal, sizeof seal, err) && mica_writer_commit(&o.file, err);
    mica_writer_abandon(&o.file);
    return ok;
}

// ---- reading ----------------------------------------------------------------------------------------------------
// The bytes after the header that such a header asks for; false on overflow.
static bool body_size(const header *h, size_t *size) {
    size_t n;
    *size = sizeof(uint64_t);
    if (!mica_size_mul((size_t)h->length, sizeof(int32_t), &n) || __builtin_add_overflow(*size, n, size)) return false;
    for (int g = 0; g < MICA_GROUPS; g++)
        if (!mica_size_mul((size_t)(h->count[g] - h->first[g]), (size_t)h->page_bytes[g], &n) || __builtin_add_overflow(*size, n, size)) return false;
    return true;
}

static bool fits_cache(const mica_cache *c, const header *h) {
    if (h->kv_dtype != (uint32_t)c->dtype || h->page != MICA_PAGE || h->groups != MICA_GROUPS) return false;
    for (int g = 0; g < MICA_GROUPS; g++)
        if (h->page_bytes[g] != (c->pool[g].layers ? c->pool[g].page_bytes : 0)) return false;
    return true;
}

// Lengths and page numbers that a sequence of this cache can have.
static bool sane(const mica_cache *c, const header *h) {
    if (h->length < 0 || h->rope_length < 0 || h->rope_length > INT32_MAX || h->exact < 0 || h->exact > h->length) return false;
    for (int g = 0; g < MICA_GROUPS; g++) {
        const mica_page_pool *p = &c->pool[g];
        uint64_t count = p->layers ? (uint64_t)mica_pages_for(h->length) : 0;
        if (h->count[g] != count || h->first[g] != (p->layers ? (uint64_t)mica_pages_seen(p, h->length) : 0)) return false;
    }
    return true;
}

static bool check_form(const header *h, size_t size, const char *what, mica_error *err) {
    if (size < sizeof *h || memcmp(h->magic, MAGIC, sizeof MAGIC)) return mica_fail(err, MICA_ERR_FORMAT, "%s: not a session file", what);
    if (h->version != VERSION || h->header_size != sizeof *h)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: session file of version %u; this program reads version %d", what, (unsigned)h->version, VERSION);
    return true;
}

// Which adapter the text was computed with: *number and *adapter, 0 without one.
static bool check_identity(mica_lm *lm, const header *h, const char *what, uint64_t *number, uint64_t *adapter, mica_error *err) {
    uint64_t net;
    *number = *adapter = 0;
    if (!mica_net_identity(lm->net, &net, err)) return false;
    if (h->identity == net) return true;
    mica_loaded *l = mica_adapters_find(lm, net, h->identity);
    if (!l) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: a session of another model, or with an adapter that is not loaded", what);
    *number = l->set->number, *adapter = l->set->identity;
    mica_adapters_give(lm, l);
    return true;
}

static bool check(const mica_lm *lm, const header *h, size_t size, const char *what, mica_error *err) {
    size_t body;
    if (!fits_cache(&lm->cache, h))
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: a session with another type of keys and values (kv_bits) than this model was loaded with", what);
    if (h->length > lm->context)
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: %lld tokens, the context is %d", what, (long long)h->length, (int)lm->context);
    if (!sane(&lm->cache, h) || !body_size(h, &body) || size - sizeof *h != body)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: the session file is damaged: %zu bytes do not fit its header", what, size);
    return true;
}

// The checksum is taken piece by piece as it was when the file was written.
static mica_cache_key add_pieces(mica_cache_key key, const header *h, const unsigned char *at) {
    key = mica_cache_key_add(key, at, (size_t)h->length * sizeof(int32_t));
    at += (size_t)h->length * sizeof(int32_t);
    for (int g = 0; g < MICA_GROUPS; g++)
        for (uint64_t i = h->first[g]; i < h->count[g]; i++, at += h->page_bytes[g]) key = mica_cache_key_add(key, at, (size_t)h->page_bytes[g]);
    return key;
}

static uint64_t seal_for(const header *h, const unsigned char *bytes) {
    return seal_of(add_pieces(mica_cache_key_add((mica_cache_key){0}, bytes, sizeof *h), h, bytes + sizeof *h));
}

void mica_past_seal(unsigned char *bytes, size_t size) {
    header h;
    size_t body;
    if (size < sizeof h) return;
    memcpy(&h, bytes, sizeof h);
    for (int g = 0; g < MICA_GROUPS; g++)
        if (h.first[g] > h.count[g] || h.page_bytes[g] > size || (!h.page_bytes[g] && h.count[g] > h.first[g])) return;
    if (h.length < 0 || !body_size(&h, &body) || size - sizeof h != body) return;
    uint64_t seal = seal_for(&h, bytes);
    memcpy(bytes + size - sizeof seal, &seal, sizeof seal);
}

static bool read_ids(mica_past *p, const header *h, const unsigned char *at, const char *what, mica_error *err) {
    size_t n = (size_t)h->length;
    if (!mica_grow(&p->ids.data, &p->ids.capacity, n, sizeof *p->ids.data)) return mica_fail_memory(err, n * sizeof *p->ids.data, "token ids");
    if (n) memcpy(p->ids.data, at, n * sizeof *p->ids.data);
    p->ids.len = n;
    for (size_t i = 0; i < n; i++)
        if (p->ids.data[i] < 0 || p->ids.data[i] >= p->lm->info.vocab_size)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: token id %d (number %zu) is outside the vocabulary of %d", what, (int)p->ids.data[i], i,
                             (int)p->lm->info.vocab_size);
    return true;
}

static bool read_pages(mica_past *p, const header *h, const unsigned char *at, mica_error *err) {
    mica_sequence *q = &p->sequence;
    mica_device *d = p->lm->device;
    if (!mica_sequence_place(q, h->length, err)) return false;
    for (int g = 0; g < MICA_GROUPS; g++)
        for (uint64_t i = h->first[g]; i < h->count[g]; i++, at += h->page_bytes[g])
            d->copy_in(d, mica_page_data(&q->cache->pool[g], q->pages[g][i]), at, (size_t)h->page_bytes[g]);
    q->rope_length = h->rope_length, q->exact = h->exact;
    return true;
}

mica_past *mica_past_parse(mica_lm *lm, const unsigned char *bytes, size_t size, const char *what, mica_error *err) {
    header h = {0};
    uint64_t seal, number, adapter;
    memcpy(&h, bytes, MICA_MIN(size, sizeof h));
    if (!check_form(&h, size, what, err) || !check_identity(lm, &h, what, &number, &adapter, err) || !check(lm, &h, size, what, err)) return NULL;
    memcpy(&seal, bytes + size - sizeof seal, sizeof seal);
    if (seal != seal_for(&h, bytes)) return mica_fail(err, MICA_ERR_FORMAT, "%s: the session file is damaged: its checksum is wrong", what), NULL;
    mica_past *p = mica_past_new(lm, err);
    if (!p) return NULL;
    p->sequence.adapter_number = number, p->adapter = adapter;
    if (read_ids(p, &h, bytes + sizeof h, what, err) && read_pages(p, &h, bytes + sizeof h + (size_t)h.length * sizeof(int32_t), err)) return p;
    mica_past_free(p);
    return NULL;
}

mica_past *mica_past_load(mica_lm *lm, const char *path, mica_error *err) {
    mica_map map;
    if (!mica_map_open(&map, path, err)) return NULL;
    mica_past *p = mica_past_parse(lm, map.data ? map.data : (const unsigned char *)"", map.size, path, err);
    mica_map_close(&map);
    return p;
}
