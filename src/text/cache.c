// SPDX-License-Identifier: Apache-2.0
// Cache file: a header, then six sections, each 64-byte aligned, in native byte order: strings, tokens, vocabulary
// index, merges, joins, config. A checksum covers everything behind it; the bounds of all indices are checked too, so
// that even a file with a right checksum cannot lead outside of the tables.
#include "text/cache.h"
#include <stdio.h>
#include <unistd.h>

enum { SECTIONS = 6, ALIGN = 64, VERSION = 1 };

typedef struct header {
    char magic[8];
    uint32_t version, byte_order;
    uint64_t checksum; // of all bytes from `key` to the end
    mica_cache_key key;
    uint64_t size; // of the file
    uint32_t entry_count, reserved;
    struct { uint64_t offset, size; } section[SECTIONS];
} header;

static const char MAGIC[8] = {'m', 'i', 'c', 'a', 't', 'o', 'k', 0};

/** Four lanes of multiply and mix: several bytes a cycle, so that checking costs less than reading. */
static uint64_t fast_hash(const unsigned char *p, size_t n, uint64_t seed) {
    uint64_t lane[4] = {seed ^ 0x9E3779B97F4A7C15u, seed ^ 0xC2B2AE3D27D4EB4Fu, seed ^ 0x165667B19E3779F9u, seed ^ 0x27D4EB2F165667C5u};
    uint64_t word[4], h = n;
    for (; n >= 32; p += 32, n -= 32) {
        memcpy(word, p, 32);
        for (int i = 0; i < 4; i++) lane[i] = mica_mul_mix(lane[i], word[i]);
    }
    memset(word, 0, sizeof word);
    memcpy(word, p, n);
    for (int i = 0; i < 4; i++) h = mica_mul_mix(h, mica_mul_mix(lane[i], word[i]));
    return h;
}

mica_cache_key mica_cache_key_add(mica_cache_key key, const void *bytes, size_t n) {
    key.hash = fast_hash(bytes ? bytes : "", bytes ? n : 0, key.hash);
    key.second = mica_mul_mix(key.second ^ 0x94D049BB133111EBu, key.hash);
    key.size += n;
    return key;
}

mica_cache_key mica_cache_key_of(const void *bytes, size_t n) { return mica_cache_key_add((mica_cache_key){0}, bytes, n); }

static char *cache_path(const mica_cache_key *key, bool create) {
    char *dir = mica_cache_dir();
    char *folder = dir ? mica_path_join(dir, "tokenizers") : NULL;
    char *path = folder && (!create || mica_mkdirs(folder, NULL))
                     ? mica_strf("%s/%016llx-%llx.v%d", folder, (unsigned long long)key->hash, (unsigned long long)key->size, VERSION) : NULL;
    mica_free(folder);
    mica_free(dir);
    return path;
}

// ---- reading ---------------------------------------------------------------------------------------
static bool power_of_two(size_t n) { return n && !(n & (n - 1)) && n <= UINT32_MAX; }

/** The section's bytes if it lies inside the file and holds whole elements. */
static const void *section(const header *h, const unsigned char *image, int i, size_t element, size_t *count) {
    uint64_t offset = h->section[i].offset, size = h->section[i].size;
    if (offset % ALIGN || offset > h->size || size > h->size - offset || size % element) return NULL;
    *count = (size_t)(size / element);
    return image + offset;
}

static bool tokens_hold(const mica_tables *t) {
    for (uint32_t i = 0; i < t->token_count; i++) {
        const mica_token_entry *e = &t->tokens[i];
        if (e->size1 && (e->offset > t->strings_size || e->size1 - 1 > t->strings_size - e->offset)) return false;
    }
    return true;
}

static bool is_token(const mica_tables *t, uint32_t id) { return id < t->token_count && t->tokens[id].size1; }

static bool vocab_holds(const mica_tables *t) {
    size_t empty = 0;
    for (uint32_t i = 0; i < t->vocab_size; i++) {
        empty += !t->vocab[i].id1;
        if (t->vocab[i].id1 && !is_token(t, t->vocab[i].id1 - 1)) return false;
    }
    return empty > 0; // or a search would not end
}

static bool merges_hold(const mica_tables *t) {
    size_t empty = 0;
    for (uint32_t i = 0; i < t->merge_size; i++) {
        const mica_merge_slot *m = &t->merges[i];
        if (m->left == UINT32_MAX) empty++;
        else if (!is_token(t, m->left) || !is_token(t, m->right) || !is_token(t, m->result) || m->rank == UINT32_MAX) return false;
    }
    return empty > 0;
}

static bool joins_hold(const mica_tables *t) {
    for (uint32_t i = 0; i < t->join_size; i++)
        if (!t->joins[i]) return true;
    return false;
}

static bool header_holds(const header *h, const unsigned char *image, size_t n, const mica_cache_key *key) {
    if (memcmp(h->magic, MAGIC, sizeof MAGIC) || h->version != VERSION || h->byte_order != 0x01020304 || h->size != n) return false;
    if (memcmp(&h->key, key, sizeof *key)) return false;
    size_t from = offsetof(header, key);
    return fast_hash(image + from, n - from, 0) == h->checksum;
}

bool mica_cache_open(mica_tables *t, const unsigned char *image, size_t n, const mica_cache_key *key) {
    header h;
    size_t count[SECTIONS];
    const void *at[SECTIONS];
    static const size_t element[SECTIONS] = {1, sizeof(mica_token_entry), sizeof(mica_vocab_slot), sizeof(mica_merge_slot), sizeof(uint64_t), 1};
    if (n < sizeof h) return false;
    memcpy(&h, image, sizeof h);
    if (!header_holds(&h, image, n, key)) return false;
    for (int i = 0; i < SECTIONS; i++)
        if (!(at[i] = section(&h, image, i, element[i], &count[i]))) return false;
    if (count[1] > (size_t)MICA_MAX_TOKEN_ID + 1 || !power_of_two(count[2]) || !power_of_two(count[3]) || !power_of_two(count[4])) return false;
    *t = (mica_tables){.strings = at[0], .tokens = at[1], .vocab = at[2], .merges = at[3], .joins = at[4], .config = at[5],
                       .strings_size = count[0], .token_count = (uint32_t)count[1], .vocab_size = (uint32_t)count[2],
                       .merge_size = (uint32_t)count[3], .join_size = (uint32_t)count[4], .config_size = count[5],
                       .entry_count = h.entry_count};
    return h.entry_count <= t->token_count && tokens_hold(t) && vocab_holds(t) && merges_hold(t) && joins_hold(t);
}

bool mica_cache_load(mica_tables *t, const mica_cache_key *key) {
    mica_map map = {0};
    char *path = cache_path(key, false);
    bool mapped = path && mica_map_open(&map, path, NULL);
    mica_free(path);
    if (!mapped) return false;
    if (map.data && mica_cache_open(t, map.data, map.size, key)) {
        mica_map_forget(&map, 0, map.size); // checking has touched all of it; texts need little
        return t->map = map, true;
    }
    mica_map_close(&map);
    memset(t, 0, sizeof *t);
    return false;
}

// ---- writing ---------------------------------------------------------------------------------------
static uint64_t aligned(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

void mica_cache_seal(unsigned char *image, size_t n) {
    size_t from = offsetof(header, key);
    uint64_t checksum = fast_hash(image + from, n - from, 0);
    memcpy(image + offsetof(header, checksum), &checksum, sizeof checksum);
}

/** The whole file in memory: 25 MB for the largest vocabulary known. */
unsigned char *mica_cache_image(const mica_tables *t, const mica_cache_key *key, size_t *size) {
    const void *data[SECTIONS] = {t->strings, t->tokens, t->vocab, t->merges, t->joins, t->config};
    const uint64_t sizes[SECTIONS] = {t->strings_size, t->token_count * sizeof *t->tokens, t->vocab_size * sizeof *t->vocab,
                                      t->merge_size * sizeof *t->merges, t->join_size * sizeof *t->joins, t->config_size};
    header h = {.version = VERSION, .byte_order = 0x01020304, .key = *key, .entry_count = t->entry_count};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    uint64_t at = aligned(sizeof h);
    for (int i = 0; i < SECTIONS; i++) {
        h.section[i].offset = at, h.section[i].size = sizes[i];
        at = aligned(at + sizes[i]);
    }
    h.size = at;
    unsigned char *image = mica_calloc(1, (size_t)at);
    if (!image) return NULL;
    for (int i = 0; i < SECTIONS; i++)
        if (sizes[i]) memcpy(image + h.section[i].offset, data[i], (size_t)sizes[i]);
    memcpy(image, &h, sizeof h);
    mica_cache_seal(image, (size_t)at);
    return *size = (size_t)at, image;
}

void mica_cache_save(const mica_tables *t, const mica_cache_key *key) {
    enum { WORTH_IT = 1 << 20 }; // below, building takes a few milliseconds
    size_t size = 0;
    mica_writer w = {0};
    if (t->strings_size + t->merge_size * sizeof *t->merges < WORTH_IT) return;
    char *path = cache_path(key, true);
    unsigned char *image = path ? mica_cache_image(t, key, &size) : NULL;
    if (image && mica_writer_open(&w, path, NULL)) {
        if (!mica_writer_write(&w, image, size, NULL)) mica_writer_abandon(&w);
        else mica_writer_commit(&w, NULL);
    }
    mica_free(image);
    mica_free(path);
}
