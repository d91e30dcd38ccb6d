// SPDX-License-Identifier: Apache-2.0
// Reading GGUF. One cursor walks the mapped head of the file and refuses to step past its end; keys, tensor infos and
// the vocabulary's string tables are then indexed once. Tensor data is checked against the file's size, never copied.
// Source: the GGUF specification (little-endian, versions 2 and 3).
#include "io/gguf.h"
#include "base/file.h"
#include "base/half.h"
#include "io/gguf_blocks.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum value_type { T_U8, T_I8, T_U16, T_I16, T_U32, T_I32, T_F32, T_BOOL, T_STRING, T_ARRAY, T_U64, T_I64, T_F64, T_COUNT };
enum { NAME_MAX_BYTES = 65535, ARRAY_DEPTH = 4, ITEMS_MAX = 1 << 24 };

typedef struct entry {
    const char *key;
    enum value_type type, item_type;
    uint64_t count;            // of an array
    const unsigned char *data; // first byte of the value, or of the array's first item
} entry;

struct mica_gguf {
    char *path;
    mica_map map;
    mica_arena arena;
    entry *entries;
    size_t entry_count;
    mica_gguf_tensor *tensors;
    size_t tensor_count;
    mica_strmap keys, names;
    mica_gguf_vocab vocab;
};

// ---- cursor ------------------------------------------------------------------------------------------
typedef struct cursor {
    const unsigned char *p;
    size_t left;
} cursor;

static bool take(cursor *c, size_t n, const unsigned char **out) {
    if (n > c->left) return false;
    *out = c->p;
    c->p += n, c->left -= n;
    return true;
}

static uint64_t little(const unsigned char *p, size_t n) {
    uint64_t v = 0;
    while (n--) v = v << 8 | p[n];
    return v;
}

static bool take_int(cursor *c, size_t n, uint64_t *v) {
    const unsigned char *p;
    if (!take(c, n, &p)) return false;
    *v = little(p, n);
    return true;
}

static bool take_string(cursor *c, mica_gguf_string *s) {
    uint64_t n;
    const unsigned char *p;
    if (!take_int(c, 8, &n) || n > c->left || !take(c, (size_t)n, &p)) return false;
    *s = (mica_gguf_string){(const char *)p, (size_t)n};
    return true;
}

static size_t scalar_size(enum value_type t) {
    static const unsigned char sizes[T_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[t];
}

static bool skip_value(cursor *c, enum value_type type, int depth);

static bool skip_items(cursor *c, enum value_type type, uint64_t count, int depth) {
    size_t size = scalar_size(type), total;
    const unsigned char *p;
    if (size) return count <= SIZE_MAX / 8 && mica_size_mul((size_t)count, size, &total) && take(c, total, &p);
    for (uint64_t i = 0; i < count; i++) // each item takes bytes from the cursor, so a huge count ends soon
        if (!skip_value(c, type, depth)) return false;
    return true;
}

static bool skip_value(cursor *c, enum value_type type, int depth) {
    uint64_t item, count;
    mica_gguf_string s;
    if (type == T_STRING) return take_string(c, &s);
    if (type != T_ARRAY) return skip_items(c, type, 1, depth);
    if (depth == ARRAY_DEPTH || !take_int(c, 4, &item) || item >= T_COUNT || !take_int(c, 8, &count)) return false;
    return skip_items(c, (enum value_type)item, count, depth + 1);
}

// ---- head --------------------------------------------------------------------------------------------
static bool cut_short(const mica_gguf *g, const char *where, mica_error *err) {
    return mica_fail(err, MICA_ERR_FORMAT, "%s: %s: file cut short or corrupt", g->path, where);
}

static bool copy_name(mica_gguf *g, mica_gguf_string s, const char *where, const char **out, mica_error *err) {
    if (!s.size || s.size > NAME_MAX_BYTES || memchr(s.data, 0, s.size)) return cut_short(g, where, err);
    *out = mica_arena_strndup(&g->arena, s.data, s.size);
    return *out || mica_fail_memory(err, s.size, where);
}

static bool read_entry(mica_gguf *g, cursor *c, entry *e, mica_error *err) {
    mica_gguf_string key;
    uint64_t type, item = 0;
    if (!take_string(c, &key)) return cut_short(g, "metadata", err);
    if (!copy_name(g, key, "a metadata key", &e->key, err)) return false;
    if (!take_int(c, 4, &type)) return cut_short(g, e->key, err);
    if (type >= T_COUNT) return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\": unknown value type %" PRIu64, g->path, e->key, type);
    e->type = (enum value_type)type;
    cursor start = *c;
    if (!skip_value(c, e->type, 0)) return cut_short(g, e->key, err);
    if (e->type == T_ARRAY) take_int(&start, 4, &item), take_int(&start, 8, &e->count), e->item_type = (enum value_type)item;
    e->data = start.p;
    if (!mica_strmap_put(&g->keys, e->key, strlen(e->key), (uintptr_t)e)) return mica_fail_memory(err, 0, "metadata keys");
    return true;
}

static bool read_entries(mica_gguf *g, cursor *c, uint64_t count, mica_error *err) {
    if (count > c->left / 13) return cut_short(g, "metadata", err); // key length, type and one byte at least
    g->entries = mica_calloc((size_t)count, sizeof *g->entries);
    if (!g->entries) return mica_fail_memory(err, (size_t)count * sizeof *g->entries, "metadata");
    for (; g->entry_count < count; g->entry_count++)
        if (!read_entry(g, c, &g->entries[g->entry_count], err)) return false;
    return true;
}

// ---- tensors -----------------------------------------------------------------------------------------
static const char *const ggml_names[] = {
    [0] = "F32", [1] = "F16", [2] = "Q4_0", [3] = "Q4_1", [6] = "Q5_0", [7] = "Q5_1", [8] = "Q8_0", [9] = "Q8_1",
    [10] = "Q2_K", [11] = "Q3_K", [12] = "Q4_K", [13] = "Q5_K", [14] = "Q6_K", [15] = "Q8_K", [16] = "IQ2_XXS",
    [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S", [22] = "IQ2_S", [23] = "IQ4_XS",
    [24] = "I8", [25] = "I16", [26] = "I32", [27] = "I64", [28] = "F64", [29] = "IQ1_M", [30] = "BF16", [34] = "TQ1_0",
    [35] = "TQ2_0", [39] = "MXFP4"};

const char *mica_ggml_type_name(mica_ggml_type type) {
    size_t i = (size_t)type;
    return i < MICA_COUNT(ggml_names) && ggml_names[i] ? ggml_names[i] : "?";
}

static bool read_dims(mica_gguf *g, cursor *c, mica_gguf_tensor *t, uint64_t ndim, mica_error *err) {
    uint64_t elements = 1, dims[4] = {0};
    for (uint64_t i = 0; i < ndim; i++) {
        if (!take_int(c, 8, &dims[i])) return cut_short(g, t->name, err);
        if (!dims[i] || __builtin_mul_overflow(elements, dims[i], &elements) || elements >> 48)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": impossible dimension %" PRIu64, g->path, t->name, dims[i]);
    }
    t->ndim = (int)ndim;
    for (uint64_t i = 0; i < ndim; i++) t->shape[i] = (int64_t)dims[ndim - 1 - i];
    t->bytes = (size_t)elements; // turned into bytes once the type is known
    return true;
}

static bool read_type(mica_gguf *g, mica_gguf_tensor *t, uint64_t type, mica_error *err) {
    unsigned block, bytes;
    if (!mica_ggml_block(type, &block, &bytes))
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: tensor \"%s\": type %s (%" PRIu64 ") is not supported", g->path, t->name,
                         mica_ggml_type_name((mica_ggml_type)MICA_MIN(type, (uint64_t)1000)), type);
    uint64_t row = (uint64_t)t->shape[t->ndim - 1];
    if (row % block)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": rows of %" PRIu64 " are no multiple of the %s block", g->path, t->name,
                         row, mica_ggml_type_name((mica_ggml_type)type));
    t->type = (mica_ggml_type)type;
    t->bytes = t->bytes / block * bytes;
    return true;
}

// *offset: where its data lies after the head; see place_tensors.
static bool read_tensor(mica_gguf *g, cursor *c, mica_gguf_tensor *t, uint64_t *offset, mica_error *err) {
    mica_gguf_string name;
    uint64_t ndim, type;
    if (!take_string(c, &name)) return cut_short(g, "tensor list", err);
    if (!copy_name(g, name, "a tensor name", &t->name, err)) return false;
    if (!take_int(c, 4, &ndim)) return cut_short(g, t->name, err);
    if (!ndim || ndim > 4) return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": %" PRIu64 " dimensions", g->path, t->name, ndim);
    if (!read_dims(g, c, t, ndim, err)) return false;
    if (!take_int(c, 4, &type) || !take_int(c, 8, offset)) return cut_short(g, t->name, err);
    if (!read_type(g, t, type, err)) return false;
    if (mica_strmap_get(&g->names, t->name, strlen(t->name), NULL))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\" appears twice", g->path, t->name);
    if (!mica_strmap_put(&g->names, t->name, strlen(t->name), (uintptr_t)t)) return mica_fail_memory(err, 0, "tensor names");
    return true;
}

static bool place_tensors(mica_gguf *g, const uint64_t *offsets, const cursor *c, mica_error *err) {
    int64_t alignment = 32;
    mica_gguf_int(g, "general.alignment", &alignment);
    if (alignment < 8 || alignment > 1 << 20 || alignment & (alignment - 1))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: \"general.alignment\" is %" PRId64, g->path, alignment);
    size_t head = (size_t)(c->p - g->map.data), start = (head + (size_t)alignment - 1) & ~((size_t)alignment - 1);
    size_t size = start < g->map.size ? g->map.size - start : 0;
    for (size_t i = 0; i < g->tensor_count; i++) {
        mica_gguf_tensor *t = &g->tensors[i];
        if (offsets[i] % (uint64_t)alignment)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": offset %" PRIu64 " is not aligned", g->path, t->name, offsets[i]);
        if (offsets[i] > size || t->bytes > size - offsets[i])
            return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": %zu bytes at %" PRIu64 " of %zu (file cut short?)", g->path,
                             t->name, t->bytes, offsets[i], size);
        t->data = g->map.data + start + offsets[i];
    }
    return true;
}

static bool read_tensors(mica_gguf *g, cursor *c, uint64_t count, mica_error *err) {
    if (count > c->left / 32) return cut_short(g, "tensor list", err); // name length, one dimension, type, offset
    g->tensors = mica_calloc((size_t)count, sizeof *g->tensors);
    uint64_t *offsets = mica_calloc((size_t)count, sizeof *offsets);
    bool ok = (g->tensors && offsets) || mica_fail_memory(err, (size_t)count * sizeof *g->tensors, "tensor list");
    for (; ok && g->tensor_count < count; g->tensor_count++)
        if (!(ok = read_tensor(g, c, &g->tensors[g->tensor_count], &offsets[g->tensor_count], err))) break;
    ok = ok && place_tensors(g, offsets, c, err);
    mica_free(offsets);
    return ok;
}

// ---- getters -----------------------------------------------------------------------------------------
static const entry *find_entry(const mica_gguf *g, const char *key) {
    uintptr_t e;
    return mica_strmap_get(&g->keys, key, strlen(key), &e) ? (const entry *)e : NULL;
}

static bool scalar_int(enum value_type type, const unsigned char *p, int64_t *out) {
    uint64_t v = little(p, scalar_size(type));
    switch (type) {
    case T_U8: case T_U16: case T_U32: *out = (int64_t)v; return true;
    case T_I8: *out = (int8_t)v; return true;
    case T_I16: *out = (int16_t)v; return true;
    case T_I32: *out = (int32_t)v; return true;
    case T_I64: *out = (int64_t)v; return true;
    case T_U64: *out = (int64_t)v; return v <= INT64_MAX;
    default: return false;
    }
}

bool mica_gguf_int(const mica_gguf *g, const char *key, int64_t *out) {
    const entry *e = find_entry(g, key);
    int64_t v;
    if (!e || !scalar_int(e->type, e->data, &v)) return false;
    *out = v;
    return true;
}

bool mica_gguf_float(const mica_gguf *g, const char *key, double *out) {
    const entry *e = find_entry(g, key);
    int64_t i;
    if (!e) return false;
    if (e->type == T_F32) {
        *out = (double)mica_f32_from_bits((uint32_t)little(e->data, 4));
    } else if (e->type == T_F64) {
        uint64_t bits = little(e->data, 8);
        memcpy(out, &bits, 8);
    } else if (scalar_int(e->type, e->data, &i)) {
        *out = (double)i;
    } else {
        return false;
    }
    return true;
}

static bool read_bool(const mica_gguf *g, const char *key, bool *out) {
    const entry *e = find_entry(g, key);
    if (!e || e->type != T_BOOL) return false;
    *out = e->data[0] != 0;
    return true;
}

bool mica_gguf_str(const mica_gguf *g, const char *key, mica_gguf_string *out) {
    const entry *e = find_entry(g, key);
    cursor c;
    if (!e || e->type != T_STRING) return false;
    c = (cursor){e->data, (size_t)(g->map.data + g->map.size - e->data)};
    return take_string(&c, out);
}

// ---- vocabulary --------------------------------------------------------------------------------------
static bool string_array(mica_gguf *g, const char *key, const mica_gguf_string **out, size_t *count, mica_gguf_string *stored, mica_error *err) {
    const entry *e = find_entry(g, key);
    if (!e) return true;
    if (e->type != T_ARRAY || e->item_type != T_STRING || e->count > ITEMS_MAX)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\" is no list of strings", g->path, key);
    mica_gguf_string *list = mica_arena_alloc(&g->arena, (size_t)e->count * sizeof *list);
    if (!list) return mica_fail_memory(err, (size_t)e->count * sizeof *list, key);
    cursor c = {e->data, (size_t)(g->map.data + g->map.size - e->data)};
    for (uint64_t i = 0; i < e->count; i++)
        if (!take_string(&c, &list[i])) return cut_short(g, key, err);
    *stored = (mica_gguf_string){(const char *)e->data, (size_t)(c.p - e->data)};
    *out = list, *count = (size_t)e->count;
    return true;
}

// Scores and token types: one 4-byte value a token; copied, because the file does not align them.
static bool number_array(mica_gguf *g, const char *key, enum value_type type, const void **out, mica_error *err) {
    const entry *e = find_entry(g, key);
    if (!e) return true;
    bool fits = e->type == T_ARRAY && (e->item_type == type || (type == T_I32 && e->item_type == T_U32));
    if (!fits || e->count != g->vocab.count)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\" is no list of %zu numbers", g->path, key, g->vocab.count);
    void *list = mica_arena_alloc(&g->arena, (size_t)e->count * 4);
    if (!list) return mica_fail_memory(err, (size_t)e->count * 4, key);
    memcpy(list, e->data, (size_t)e->count * 4);
    *out = list;
    return true;
}

static bool copy_string(mica_gguf *g, const char *key, const char **out, mica_error *err) {
    mica_gguf_string s;
    if (!mica_gguf_str(g, key, &s)) return true;
    *out = mica_arena_strndup(&g->arena, s.data, s.size);
    return *out || mica_fail_memory(err, s.size, key);
}

static bool read_token_id(mica_gguf *g, const char *key, int64_t *id, mica_error *err) {
    *id = -1;
    if (!mica_gguf_int(g, key, id) || *id == -1) return true;
    if (*id >= 0 && (size_t)*id < g->vocab.count) return true;
    // Files without a pad or eot token are known to say 2^32-1 there.
    if (*id == UINT32_MAX) return *id = -1, true;
    return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\" is %" PRId64 ", outside the vocabulary of %zu", g->path, key, *id, g->vocab.count);
}

static int read_flag(const mica_gguf *g, const char *key) {
    bool v;
    return read_bool(g, key, &v) ? v : -1;
}

static bool read_vocab(mica_gguf *g, mica_error *err) {
    mica_gguf_vocab *v = &g->vocab;
    const void *scores = NULL, *types = NULL;
    if (!copy_string(g, "tokenizer.ggml.model", &v->model, err) || !copy_string(g, "tokenizer.ggml.pre", &v->pre, err) ||
        !copy_string(g, "tokenizer.chat_template", &v->chat_template, err) ||
        !string_array(g, "tokenizer.ggml.tokens", &v->tokens, &v->count, &v->stored_tokens, err) ||
        !string_array(g, "tokenizer.ggml.merges", &v->merges, &v->merge_count, &v->stored_merges, err) ||
        !number_array(g, "tokenizer.ggml.scores", T_F32, &scores, err) ||
        !number_array(g, "tokenizer.ggml.token_type", T_I32, &types, err) ||
        !read_token_id(g, "tokenizer.ggml.bos_token_id", &v->bos_id, err) ||
        !read_token_id(g, "tokenizer.ggml.eos_token_id", &v->eos_id, err) ||
        !read_token_id(g, "tokenizer.ggml.unknown_token_id", &v->unk_id, err) ||
        !read_token_id(g, "tokenizer.ggml.padding_token_id", &v->pad_id, err) ||
        !read_token_id(g, "tokenizer.ggml.eot_token_id", &v->eot_id, err))
        return false;
    v->scores = scores, v->types = types;
    v->add_bos = read_flag(g, "tokenizer.ggml.add_bos_token");
    v->add_eos = read_flag(g, "tokenizer.ggml.add_eos_token");
    v->add_space_prefix = read_flag(g, "tokenizer.ggml.add_space_prefix");
    for (size_t i = 0; v->scores && i < v->count; i++)
        if (isnan(v->scores[i])) return mica_fail(err, MICA_ERR_FORMAT, "%s: \"tokenizer.ggml.scores\"[%zu] is NaN", g->path, i);
    return true;
}

// ---- public ------------------------------------------------------------------------------------------
static bool read_file(mica_gguf *g, mica_error *err) {
    cursor c = {g->map.data, g->map.size};
    const unsigned char *magic;
    uint64_t version, tensors, entries;
    if (!take(&c, 4, &magic) || memcmp(magic, "GGUF", 4)) return mica_fail(err, MICA_ERR_FORMAT, "%s: not a GGUF file", g->path);
    if (!take_int(&c, 4, &version)) return cut_short(g, "header", err);
    if (version != 2 && version != 3)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: GGUF version %" PRIu64 " is not supported (2 and 3 are)%s", g->path, version,
                         version && !(version & 0xFFFF) ? "; the file is big-endian" : "");
    if (!take_int(&c, 8, &tensors) || !take_int(&c, 8, &entries)) return cut_short(g, "header", err);
    return read_entries(g, &c, entries, err) && read_tensors(g, &c, tensors, err) && read_vocab(g, err);
}

bool mica_gguf_is(const char *path) {
    char magic[4] = {0};
    FILE *f = fopen(path, "rb");
    bool read = f && fread(magic, 1, 4, f) == 4;
    if (f) fclose(f);
    return read && !memcmp(magic, "GGUF", 4);
}

mica_gguf *mica_gguf_open(const char *path, mica_error *err) {
    mica_gguf *g = mica_calloc(1, sizeof *g);
    if (!g || !(g->path = mica_strdup(path))) mica_fail_memory(err, sizeof *g, "GGUF file");
    else if (mica_map_open(&g->map, path, err) && read_file(g, err)) return g;
    mica_gguf_free(g);
    return NULL;
}

void mica_gguf_free(mica_gguf *g) {
    if (!g) return;
    mica_map_close(&g->map);
    mica_strmap_free(&g->keys);
    mica_strmap_free(&g->names);
    mica_arena_free(&g->arena);
    mica_free(g->entries);
    mica_free(g->tensors);
    mica_free(g->path);
    mica_free(g);
}

const char *mica_gguf_path(const mica_gguf *g) { return g->path; }
size_t mica_gguf_tensor_count(const mica_gguf *g) { return g->tensor_count; }
const mica_gguf_tensor *mica_gguf_tensor_at(const mica_gguf *g, size_t i) { return i < g->tensor_count ? &g->tensors[i] : NULL; }
const mica_gguf_vocab *mica_gguf_get_vocab(const mica_gguf *g) { return &g->vocab; }

const mica_gguf_tensor *mica_gguf_find(const mica_gguf *g, const char *name) {
    uintptr_t t;
    return mica_strmap_get(&g->names, name, strlen(name), &t) ? (const mica_gguf_tensor *)t : NULL;
}

void mica_gguf_forget(const mica_gguf *g, const mica_gguf_tensor *t) {
    mica_map_forget(&g->map, (size_t)(t->data - g->map.data), t->bytes);
}

void mica_gguf_rest(const mica_gguf *g) { mica_map_forget(&g->map, 0, g->map.size); }
