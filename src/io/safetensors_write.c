// SPDX-License-Identifier: Apache-2.0
// Writing safetensors as a stream: sizes are known from the declarations, so each shard's header is written first and
// data follows as it comes, never held in memory. All shards stay temporary until the last byte is there; then they
// are renamed, the index last, so that a reader never sees half a model.
#include "io/safetensors.h"
#include "base/file.h"
#include "base/json.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct out_tensor {
    const char *name;
    mica_dtype dtype;
    int ndim;
    int64_t shape[MICA_TENSOR_DIMS];
    uint64_t bytes, parameters;
    size_t shard;
} out_tensor;

struct mica_st_writer {
    mica_arena arena;
    char *path;
    bool single, begun, committed;
    const char *const *metadata;
    uint64_t shard_bytes;
    out_tensor *tensors;
    size_t count, capacity;
    mica_strmap names;
    mica_writer *shards; // finished or being written
    char **shard_paths;
    size_t shard_count, current;
    size_t placed;          // shards already renamed into place
    uint64_t left_in_shard; // data bytes the current shard still misses
};

static const char *const default_metadata[] = {"format", "mlx", NULL};

static const char *const *copy_metadata(mica_arena *a, const char *const *from) {
    size_t n = 0;
    while (from[n]) n++;
    const char **to = mica_arena_alloc(a, (n + 1) * sizeof *to);
    for (size_t i = 0; to && i < n; i++)
        if (!(to[i] = mica_arena_strndup(a, from[i], strlen(from[i])))) return NULL;
    if (to) to[n] = NULL;
    return to;
}

mica_st_writer *mica_st_writer_new(const char *path, const mica_st_options *options, mica_error *err) {
    mica_st_writer *w = mica_calloc(1, sizeof *w);
    if (!w) return mica_fail_memory(err, sizeof *w, "safetensors writer"), NULL;
    size_t n = strlen(path);
    w->single = n > 12 && !strcmp(path + n - 12, ".safetensors");
    w->shard_bytes = options && options->shard_bytes ? options->shard_bytes : (uint64_t)5 << 30;
    w->metadata = copy_metadata(&w->arena, options && options->metadata ? options->metadata : default_metadata);
    w->path = mica_strdup(path);
    if (!w->path || !w->metadata) mica_fail_memory(err, n, "safetensors writer");
    else if (w->single || mica_mkdirs(path, err)) return w;
    mica_st_writer_free(w);
    return NULL;
}

bool mica_st_writer_declare(mica_st_writer *w, const char *name, mica_dtype dtype, int ndim, const int64_t *shape, mica_error *err) {
    size_t n = strlen(name);
    if (w->begun || ndim < 0 || ndim > MICA_TENSOR_DIMS || !n)
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: tensor \"%s\" cannot be declared", w->path, name);
    if (mica_strmap_get(&w->names, name, n, NULL))
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: tensor \"%s\" is declared twice", w->path, name);
    if (!mica_grow(&w->tensors, &w->capacity, w->count + 1, sizeof *w->tensors))
        return mica_fail_memory(err, w->count * sizeof *w->tensors, "tensor table");
    out_tensor *t = &w->tensors[w->count];
    *t = (out_tensor){.name = mica_arena_strndup(&w->arena, name, n), .dtype = dtype, .ndim = ndim, .parameters = 1};
    if (!t->name || !mica_strmap_put(&w->names, t->name, n, w->count)) return mica_fail_memory(err, n, "tensor name");
    for (int i = 0; i < ndim; i++) {
        t->shape[i] = shape[i];
        if (shape[i] < 0 || __builtin_mul_overflow(t->parameters, (uint64_t)shape[i], &t->parameters) || t->parameters >> 56)
            return mica_fail(err, MICA_ERR_ARGUMENT, "%s: tensor \"%s\": impossible shape", w->path, name);
    }
    t->bytes = t->parameters * mica_dtype_size(dtype);
    w->count++;
    return true;
}

// ---- shards ------------------------------------------------------------------------------------------
static void assign_shards(mica_st_writer *w) {
    uint64_t filled = 0;
    for (size_t i = 0; i < w->count; i++) {
        bool full = filled && filled + w->tensors[i].bytes > w->shard_bytes;
        if (full && !w->single) w->shard_count++, filled = 0;
        w->tensors[i].shard = w->shard_count;
        filled += w->tensors[i].bytes;
    }
    w->shard_count++;
}

static char *shard_name(const mica_st_writer *w, size_t i) {
    if (w->shard_count == 1) return mica_strdup("model.safetensors");
    return mica_strf("model-%05zu-of-%05zu.safetensors", i + 1, w->shard_count);
}

static char *shard_path(const mica_st_writer *w, size_t i) {
    if (w->single) return mica_strdup(w->path);
    char *name = shard_name(w, i), *path = name ? mica_path_join(w->path, name) : NULL;
    mica_free(name);
    return path;
}

static void put_tensor_info(mica_json_writer *j, const out_tensor *t, uint64_t from) {
    static const char *const dtypes[MICA_DTYPE_COUNT] = {
        [MICA_F32] = "F32", [MICA_F16] = "F16", [MICA_BF16] = "BF16", [MICA_F64] = "F64", [MICA_BOOL] = "BOOL",
        [MICA_U8] = "U8", [MICA_U16] = "U16", [MICA_U32] = "U32", [MICA_U64] = "U64", [MICA_I8] = "I8",
        [MICA_I16] = "I16", [MICA_I32] = "I32", [MICA_I64] = "I64"};
    mica_json_key(j, t->name);
    mica_json_begin_object(j);
    mica_json_key(j, "dtype");
    mica_json_put_cstring(j, dtypes[t->dtype]);
    mica_json_key(j, "shape");
    mica_json_begin_array(j);
    for (int d = 0; d < t->ndim; d++) mica_json_put_int(j, t->shape[d]);
    mica_json_end_array(j);
    mica_json_key(j, "data_offsets");
    mica_json_begin_array(j);
    mica_json_put_int(j, (int64_t)from);
    mica_json_put_int(j, (int64_t)(from + t->bytes));
    mica_json_end_array(j);
    mica_json_end_object(j);
}

// The header of shard i, padded with spaces so that data starts at a multiple of 8, and the size of its data.
static void build_header(const mica_st_writer *w, size_t i, mica_buf *out, uint64_t *data_bytes) {
    mica_json_writer j = {.out = out};
    mica_json_begin_object(&j);
    mica_json_key(&j, "__metadata__");
    mica_json_begin_object(&j);
    for (const char *const *m = w->metadata; m[0] && m[1]; m += 2) {
        mica_json_key(&j, m[0]);
        mica_json_put_cstring(&j, m[1]);
    }
    mica_json_end_object(&j);
    uint64_t at = 0;
    for (size_t t = 0; t < w->count; t++) {
        if (w->tensors[t].shard != i) continue;
        put_tensor_info(&j, &w->tensors[t], at);
        at += w->tensors[t].bytes;
    }
    mica_json_end_object(&j);
    while (out->len % 8 && !out->failed) mica_buf_putc(out, ' ');
    *data_bytes = at;
}

static bool open_shard(mica_st_writer *w, size_t i, mica_error *err) {
    mica_buf header = {0};
    build_header(w, i, &header, &w->left_in_shard);
    unsigned char length[8];
    for (int b = 0; b < 8; b++) length[b] = (unsigned char)((uint64_t)header.len >> (8 * b));
    bool ok = !header.failed || mica_fail_memory(err, header.len, "safetensors header");
    ok = ok && mica_writer_open(&w->shards[i], w->shard_paths[i], err) && mica_writer_write(&w->shards[i], length, 8, err) &&
         mica_writer_write(&w->shards[i], header.data, header.len, err);
    mica_buf_free(&header);
    return ok;
}

bool mica_st_writer_begin(mica_st_writer *w, mica_error *err) {
    if (w->begun) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: begun twice", w->path);
    w->begun = true;
    assign_shards(w);
    w->shards = mica_calloc(w->shard_count, sizeof *w->shards);
    w->shard_paths = mica_calloc(w->shard_count, sizeof *w->shard_paths);
    bool ok = w->shards && w->shard_paths;
    for (size_t i = 0; ok && i < w->shard_count; i++) ok = (w->shard_paths[i] = shard_path(w, i)) != NULL;
    if (!ok) return mica_fail_memory(err, w->shard_count * sizeof *w->shards, "shard table");
    return open_shard(w, 0, err);
}

bool mica_st_writer_put(mica_st_writer *w, const void *bytes, size_t n, mica_error *err) {
    const unsigned char *p = bytes;
    while (n) {
        while (!w->left_in_shard) {
            if (w->current + 1 >= w->shard_count)
                return mica_fail(err, MICA_ERR_ARGUMENT, "%s: more data than was declared", w->path);
            if (!open_shard(w, ++w->current, err)) return false;
        }
        size_t piece = (size_t)MICA_MIN((uint64_t)n, w->left_in_shard);
        if (!mica_writer_write(&w->shards[w->current], p, piece, err)) return false;
        w->left_in_shard -= piece;
        p += piece, n -= piece;
    }
    return true;
}

// ---- index and commit --------------------------------------------------------------------------------
static int name_order(const void *a, const void *b) {
    return strcmp((*(const out_tensor *const *)a)->name, (*(const out_tensor *const *)b)->name);
}

static const out_tensor **sorted_by_name(const mica_st_writer *w) {
    const out_tensor **sorted = mica_alloc(w->count * sizeof *sorted);
    for (size_t i = 0; sorted && i < w->count; i++) sorted[i] = &w->tensors[i];
    if (sorted) qsort(sorted, w->count, sizeof *sorted, name_order);
    return sorted;
}

static bool put_index(const mica_st_writer *w, mica_buf *out) {
    const out_tensor **sorted = sorted_by_name(w);
    if (!sorted) return false;
    uint64_t total = 0;
    for (size_t i = 0; i < w->count; i++) total += w->tensors[i].bytes;
    mica_buf_printf(out, "{\n    \"metadata\": {\n        \"total_size\": %llu\n    },\n    \"weight_map\": {", (unsigned long long)total);
    for (size_t i = 0; i < w->count; i++) {
        char *file = shard_name(w, sorted[i]->shard);
        mica_json_writer j = {.out = out};
        mica_buf_puts(out, i ? ",\n        " : "\n        ");
        mica_json_put_cstring(&j, sorted[i]->name);
        mica_buf_puts(out, ": ");
        j.need_comma = false;
        if (file) mica_json_put_cstring(&j, file);
        else out->failed = true;
        mica_free(file);
    }
    mica_buf_puts(out, "\n    }\n}\n");
    mica_free(sorted);
    return !out->failed;
}

static bool write_index(const mica_st_writer *w, mica_error *err) {
    mica_buf text = {0};
    char *path = mica_path_join(w->path, "model.safetensors.index.json");
    mica_writer file = {0};
    bool ok = (path && put_index(w, &text)) || mica_fail_memory(err, text.len, "shard index");
    ok = ok && mica_writer_open(&file, path, err);
    if (ok && !mica_writer_write(&file, text.data, text.len, err)) ok = (mica_writer_abandon(&file), false);
    ok = ok && mica_writer_commit(&file, err);
    mica_buf_free(&text);
    mica_free(path);
    return ok;
}

bool mica_st_writer_commit(mica_st_writer *w, mica_error *err) {
    if (!w->begun || w->committed) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: nothing to commit", w->path);
    // Shards whose tensors are all empty have not been opened by any data.
    while (!w->left_in_shard && w->current + 1 < w->shard_count)
        if (!open_shard(w, ++w->current, err)) return false;
    if (w->left_in_shard || w->current + 1 < w->shard_count)
        return mica_fail(err, MICA_ERR_ARGUMENT, "%s: less data than was declared", w->path);
    for (; w->placed < w->shard_count; w->placed++)
        if (!mica_writer_commit(&w->shards[w->placed], err)) return false;
    if (!w->single && !write_index(w, err)) return false;
    return w->committed = true;
}

void mica_st_writer_free(mica_st_writer *w) {
    if (!w) return;
    for (size_t i = 0; w->shards && i < w->shard_count; i++) mica_writer_abandon(&w->shards[i]);
    // A commit that failed half-way must not leave some of the shards behind.
    for (size_t i = 0; !w->committed && i < w->placed; i++) unlink(w->shard_paths[i]);
    for (size_t i = 0; w->shard_paths && i < w->shard_count; i++) mica_free(w->shard_paths[i]);
    mica_free(w->shards);
    mica_free(w->shard_paths);
    mica_free(w->tensors);
    mica_strmap_free(&w->names);
    mica_arena_free(&w->arena);
    mica_free(w->path);
    mica_free(w);
}
