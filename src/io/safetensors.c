// SPDX-License-Identifier: Apache-2.0
// Reading safetensors. Each file is mapped; its header is parsed into a tree, every tensor is checked against the
// file's size and the others' ranges, and then all shards' names go into one map. Nothing is copied but the header.
// Source: the format's README (header length u64 LE, JSON, data; offsets relative to the end of the header).
#include "io/safetensors.h"
#include "base/file.h"
#include "base/json.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100 * 1000 * 1000, INDEX_MAX = 100 * 1000 * 1000, TENSORS_MAX = 1 << 24, FILES_MAX = 10000 };

typedef struct shard {
    char *path;
    mica_map map;
    size_t end; // index after its last tensor
} shard;

typedef struct pair { const char *key, *value; } pair;

struct mica_safetensors {
    mica_arena arena; // names and metadata
    shard *shards;
    size_t shard_count, shard_capacity;
    mica_stored *tensors;
    size_t count, capacity;
    pair *pairs;
    size_t pair_count, pair_capacity;
    mica_strmap names; // -> index of tensor
};

// ---- one tensor --------------------------------------------------------------------------------------
static const struct { const char *name; mica_dtype dtype; } dtype_names[] = {
    {"F32", MICA_F32}, {"F16", MICA_F16}, {"BF16", MICA_BF16}, {"F64", MICA_F64}, {"BOOL", MICA_BOOL},
    {"U8", MICA_U8}, {"U16", MICA_U16}, {"U32", MICA_U32}, {"U64", MICA_U64}, {"I8", MICA_I8},
    {"I16", MICA_I16}, {"I32", MICA_I32}, {"I64", MICA_I64},
};

static bool read_dtype(const mica_json *v, mica_stored *t, const char *path, mica_error *err) {
    if (!v || v->type != MICA_JSON_STRING)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": no \"dtype\"", path, t->name);
    for (size_t i = 0; i < MICA_COUNT(dtype_names); i++)
        if (!strcmp(v->string, dtype_names[i].name)) return t->dtype = dtype_names[i].dtype, true;
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: tensor \"%s\": unknown dtype \"%s\"", path, t->name, v->string);
}

static bool read_shape(const mica_json *v, mica_stored *t, const char *path, mica_error *err) {
    if (!v || v->type != MICA_JSON_ARRAY)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": no \"shape\"", path, t->name);
    if (v->length > MICA_TENSOR_DIMS)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: tensor \"%s\": %zu dimensions, at most %d are supported", path,
                         t->name, v->length, MICA_TENSOR_DIMS);
    t->bytes = mica_dtype_size(t->dtype);
    for (const mica_json *d = v->child; d; d = d->next) {
        if (d->type != MICA_JSON_INT || d->integer < 0)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": a dimension is no natural number", path, t->name);
        t->shape[t->ndim++] = d->integer;
        // An empty tensor keeps its other dimensions, but they must not overflow anyone's product either.
        size_t extent = (size_t)(d->integer ? d->integer : 1);
        if (!mica_size_mul(t->bytes, extent, &t->bytes) || t->bytes > INT64_MAX)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": shape too large", path, t->name);
    }
    for (int i = 0; i < t->ndim; i++)
        if (!t->shape[i]) t->bytes = 0;
    return true;
}

static bool read_range(const mica_json *v, mica_stored *t, const shard *s, size_t data_at, mica_error *err) {
    const mica_json *a = mica_json_at(v, 0), *b = mica_json_at(v, 1);
    if (!a || !b || v->length != 2 || a->type != MICA_JSON_INT || b->type != MICA_JSON_INT || a->integer < 0 ||
        b->integer < a->integer)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": bad \"data_offsets\"", s->path, t->name);
    uint64_t size = s->map.size - data_at, from = (uint64_t)a->integer, to = (uint64_t)b->integer;
    if (to > size)
        return mica_fail(err, MICA_ERR_FORMAT,
                         "%s: tensor \"%s\": data ends at byte %" PRIu64 " of %" PRIu64 " (file cut short?)", s->path,
                         t->name, to, size);
    if (to - from != t->bytes) {
        char shape[200];
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": %s %s needs %zu bytes, data_offsets give %" PRIu64, s->path,
                         t->name, mica_dtype_name(t->dtype), mica_stored_shape(t, shape, sizeof shape), t->bytes, to - from);
    }
    t->data = t->bytes ? s->map.data + data_at + from : NULL;
    return true;
}

static bool add_tensor(mica_safetensors *st, const mica_json *v, const shard *s, size_t data_at, mica_error *err) {
    if (st->count == TENSORS_MAX) return mica_fail(err, MICA_ERR_FORMAT, "%s: more than %d tensors", s->path, TENSORS_MAX);
    if (!mica_grow(&st->tensors, &st->capacity, st->count + 1, sizeof *st->tensors))
        return mica_fail_memory(err, st->count * sizeof *st->tensors, "tensor table");
    mica_stored *t = &st->tensors[st->count];
    *t = (mica_stored){.name = mica_arena_strndup(&st->arena, v->key, v->key_length)};
    if (!t->name) return mica_fail_memory(err, v->key_length, "tensor name");
    if (strlen(t->name) != v->key_length || !v->key_length)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": empty name or NUL in it", s->path, t->name);
    if (v->type != MICA_JSON_OBJECT)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\": not an object", s->path, t->name);
    if (!read_dtype(mica_json_get(v, "dtype"), t, s->path, err) || !read_shape(mica_json_get(v, "shape"), t, s->path, err) ||
        !read_range(mica_json_get(v, "data_offsets"), t, s, data_at, err))
        return false;
    uintptr_t other;
    if (mica_strmap_get(&st->names, t->name, v->key_length, &other)) {
        const char *where = mica_safetensors_file(st, &st->tensors[other]);
        return mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\" is also in %s", s->path, t->name, where ? where : "the same file");
    }
    if (!mica_strmap_put(&st->names, t->name, v->key_length, st->count))
        return mica_fail_memory(err, st->count * 32, "tensor names");
    st->count++;
    return true;
}

// ---- one file ----------------------------------------------------------------------------------------
static bool add_metadata(mica_safetensors *st, const mica_json *v, const char *path, mica_error *err) {
    if (v->type == MICA_JSON_NULL) return true; // MLX writes null
    if (v->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: \"__metadata__\" is no object", path);
    for (const mica_json *m = v->child; m; m = m->next) {
        if (m->type != MICA_JSON_STRING)
            return mica_fail(err, MICA_ERR_FORMAT, "%s: \"__metadata__\": \"%s\" is no string", path, m->key);
        if (!mica_grow(&st->pairs, &st->pair_capacity, st->pair_count + 1, sizeof *st->pairs))
            return mica_fail_memory(err, st->pair_count * sizeof *st->pairs, "metadata");
        pair p = {mica_arena_strndup(&st->arena, m->key, m->key_length),
                  mica_arena_strndup(&st->arena, m->string, m->length)};
        if (!p.key || !p.value) return mica_fail_memory(err, m->length, "metadata");
        st->pairs[st->pair_count++] = p;
    }
    return true;
}

static int by_address(const void *a, const void *b) {
    const mica_stored *x = *(const mica_stored *const *)a, *y = *(const mica_stored *const *)b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    return p < q ? -1 : p > q;
}

static bool check_overlaps(const mica_safetensors *st, size_t first, const char *path, mica_error *err) {
    size_t n = st->count - first;
    const mica_stored **sorted = mica_alloc(n * sizeof *sorted);
    if (!sorted) return mica_fail_memory(err, n * sizeof *sorted, "tensor ranges");
    for (size_t i = 0; i < n; i++) sorted[i] = &st->tensors[first + i];
    qsort(sorted, n, sizeof *sorted, by_address);
    bool ok = true;
    uintptr_t end = 0;
    for (size_t i = 0; ok && i < n; i++) {
        if (!sorted[i]->bytes) continue;
        uintptr_t start = (uintptr_t)sorted[i]->data;
        if (start < end)
            ok = mica_fail(err, MICA_ERR_FORMAT, "%s: tensor \"%s\" overlaps the data of another", path, sorted[i]->name);
        end = start + sorted[i]->bytes;
    }
    mica_free(sorted);
    return ok;
}

static bool read_header(mica_safetensors *st, const shard *s, mica_arena *scratch, mica_error *err) {
    if (s->map.size < 8) return mica_fail(err, MICA_ERR_FORMAT, "%s: %zu bytes are no safetensors file", s->path, s->map.size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | s->map.data[i];
    if (n > HEADER_MAX) return mica_fail(err, MICA_ERR_FORMAT, "%s: header of %" PRIu64 " bytes is over 100 MB", s->path, n);
    if (n > s->map.size - 8)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: header of %" PRIu64 " bytes in a file of %zu (cut short?)", s->path, n, s->map.size);
    const mica_json *root = mica_json_parse(scratch, (const char *)s->map.data + 8, (size_t)n, s->path, err);
    if (!root) return false;
    if (root->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: header is no JSON object", s->path);
    size_t first = st->count;
    for (const mica_json *v = root->child; v; v = v->next) {
        bool meta = v->key_length == 12 && !memcmp(v->key, "__metadata__", 12);
        if (!(meta ? add_metadata(st, v, s->path, err) : add_tensor(st, v, s, 8 + (size_t)n, err))) return false;
    }
    return check_overlaps(st, first, s->path, err);
}

// Takes path over, also on failure.
static bool add_file(mica_safetensors *st, char *path, mica_error *err) {
    if (!path) return mica_fail_memory(err, 0, "a file name");
    if (st->shard_count == FILES_MAX || !mica_grow(&st->shards, &st->shard_capacity, st->shard_count + 1, sizeof *st->shards)) {
        mica_fail_memory(err, st->shard_count * sizeof *st->shards, "file table");
        mica_free(path);
        return false;
    }
    shard *s = &st->shards[st->shard_count++];
    *s = (shard){.path = path, .end = SIZE_MAX};
    if (!mica_map_open(&s->map, path, err)) return false;
    mica_arena scratch = {0};
    bool ok = read_header(st, s, &scratch, err);
    mica_arena_free(&scratch);
    s->end = st->count;
    return ok;
}

// ---- a folder ----------------------------------------------------------------------------------------
typedef struct names {
    mica_arena arena;
    mica_strmap seen; // an index repeats its files for every tensor
    const char **items;
    size_t count, capacity;
} names;

static bool names_add(names *list, const char *name, mica_error *err) {
    if (mica_strmap_get(&list->seen, name, strlen(name), NULL)) return true;
    char *copy = mica_arena_strndup(&list->arena, name, strlen(name));
    if (!copy || !mica_strmap_put(&list->seen, copy, strlen(copy), 1) ||
        !mica_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items))
        return mica_fail_memory(err, strlen(name), "file names");
    list->items[list->count++] = copy;
    return true;
}

static void names_free(names *list) {
    mica_strmap_free(&list->seen);
    mica_arena_free(&list->arena);
    mica_free(list->items);
}

static bool names_from_index(names *list, const char *path, mica_arena *scratch, mica_buf *text, mica_error *err) {
    if (!mica_file_read(path, INDEX_MAX, text, err)) return false;
    const mica_json *root = mica_json_parse(scratch, text->data ? text->data : "", text->len, path, err);
    if (!root) return false;
    const mica_json *map = mica_json_get(root, "weight_map");
    if (!map || map->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: no \"weight_map\"", path);
    for (const mica_json *v = map->child; v; v = v->next) {
        if (v->type != MICA_JSON_STRING || !v->length || strlen(v->string) != v->length || strchr(v->string, '/'))
            return mica_fail(err, MICA_ERR_FORMAT, "%s: \"weight_map\": \"%s\" names no file of this folder", path, v->key);
        if (list->count >= FILES_MAX) return mica_fail(err, MICA_ERR_FORMAT, "%s: more than %d shards", path, FILES_MAX);
        if (!names_add(list, v->string, err)) return false;
    }
    return list->count || mica_fail(err, MICA_ERR_FORMAT, "%s: \"weight_map\" is empty", path);
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool names_from_listing(names *list, const char *folder, bool only_model, mica_error *err) {
    DIR *d = opendir(folder);
    if (!d) return mica_fail_errno(err, "open folder", folder);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        const char *name = e->d_name;
        if (!ends_with(name, ".safetensors") || name[0] == '.') continue;
        if (only_model ? strncmp(name, "model", 5) != 0 : strstr(name, "adapter") != NULL) continue;
        ok = names_add(list, name, err);
    }
    closedir(d);
    if (ok && list->count) qsort(list->items, list->count, sizeof *list->items, by_name);
    return ok;
}

static bool list_shards(names *list, const char *folder, mica_error *err) {
    char *index = mica_path_join(folder, "model.safetensors.index.json");
    if (!index) return mica_fail_memory(err, strlen(folder), "a file name");
    bool ok;
    if (mica_is_file(index)) {
        mica_arena scratch = {0};
        mica_buf text = {0};
        ok = names_from_index(list, index, &scratch, &text, err);
        mica_buf_free(&text);
        mica_arena_free(&scratch);
    } else {
        ok = names_from_listing(list, folder, true, err) && (list->count || names_from_listing(list, folder, false, err));
        if (ok && !list->count) ok = mica_fail(err, MICA_ERR_FORMAT, "%s: no *.safetensors", folder);
    }
    mica_free(index);
    return ok;
}

static bool open_folder(mica_safetensors *st, const char *folder, mica_error *err) {
    names list = {0};
    bool ok = list_shards(&list, folder, err);
    for (size_t i = 0; ok && i < list.count; i++) {
        char *path = mica_path_join(folder, list.items[i]);
        if (path && !mica_is_file(path)) {
            ok = mica_fail(err, MICA_ERR_IO, "%s: missing shard %s", folder, list.items[i]);
            mica_free(path);
        } else {
            ok = add_file(st, path, err);
        }
    }
    names_free(&list);
    return ok;
}

// ---- public ------------------------------------------------------------------------------------------
mica_safetensors *mica_safetensors_open(const char *path, mica_error *err) {
    mica_safetensors *st = mica_calloc(1, sizeof *st);
    if (!st) return mica_fail_memory(err, sizeof *st, "safetensors"), NULL;
    if (mica_is_dir(path) ? open_folder(st, path, err) : add_file(st, mica_strdup(path), err)) return st;
    mica_safetensors_free(st);
    return NULL;
}

void mica_safetensors_free(mica_safetensors *st) {
    if (!st) return;
    for (size_t i = 0; i < st->shard_count; i++) {
        mica_map_close(&st->shards[i].map);
        mica_free(st->shards[i].path);
    }
    mica_free(st->shards);
    mica_free(st->tensors);
    mica_free(st->pairs);
    mica_strmap_free(&st->names);
    mica_arena_free(&st->arena);
    mica_free(st);
}

size_t mica_safetensors_count(const mica_safetensors *st) { return st->count; }
size_t mica_safetensors_files(const mica_safetensors *st) { return st->shard_count; }

const mica_stored *mica_safetensors_at(const mica_safetensors *st, size_t i) {
    return i < st->count ? &st->tensors[i] : NULL;
}

const mica_stored *mica_safetensors_find(const mica_safetensors *st, const char *name) {
    uintptr_t i;
    return mica_strmap_get(&st->names, name, strlen(name), &i) ? &st->tensors[i] : NULL;
}

static const shard *shard_of(const mica_safetensors *st, const mica_stored *t) {
    size_t at = (size_t)(t - st->tensors);
    for (size_t i = 0; i < st->shard_count; i++)
        if (at < st->shards[i].end) return &st->shards[i];
    return NULL;
}

const char *mica_safetensors_file(const mica_safetensors *st, const mica_stored *t) {
    const shard *s = shard_of(st, t);
    return s ? s->path : NULL;
}

const char *mica_safetensors_metadata(const mica_safetensors *st, const char *key) {
    for (size_t i = 0; i < st->pair_count; i++)
        if (!strcmp(st->pairs[i].key, key)) return st->pairs[i].value;
    return NULL;
}

void mica_safetensors_forget(const mica_safetensors *st, const mica_stored *t) {
    const shard *s = shard_of(st, t);
    if (s && t->bytes) mica_map_forget(&s->map, (size_t)((const unsigned char *)t->data - s->map.data), t->bytes);
}

void mica_safetensors_rest(const mica_safetensors *st) {
    for (size_t i = 0; i < st->shard_count; i++) mica_map_forget(&st->shards[i].map, 0, st->shards[i].map.size);
}
