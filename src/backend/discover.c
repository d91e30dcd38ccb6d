// SPDX-License-Identifier: Apache-2.0
// Discovery of models: a folder and its sub-folders, one level deep. Only config.json and the header of GGUF files are read.
#include "mica/discover.h"
#include "base/file.h"
#include "base/json.h"
#include "mica/model.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

// Takes over path.
static bool add(mica_discovery *found, char *path, const mica_discovered *model, mica_error *err) {
    mica_discovered *items = path ? mica_realloc(found->items, (found->count + 1) * sizeof *items) : NULL;
    if (!items) return mica_free(path), mica_fail_memory(err, sizeof *items, "the list of models");
    found->items = items;
    items[found->count] = *model;
    items[found->count++].path = path;
    return true;
}

static void read_quant(const mica_json *config, mica_discovered *d) {
    const mica_json *q = mica_json_get(config, "quantization");
    if (!q) q = mica_json_get(config, "quantization_config");
    int64_t bits = 0, group = 0;
    if (!q || !mica_json_int(q, "bits", 0, &bits, "", NULL) || !mica_json_int(q, "group_size", 0, &group, "", NULL)) return;
    if (bits > 0 && bits <= 32 && group >= 0 && group <= INT32_MAX) d->quant_bits = (int32_t)bits, d->quant_group = (int32_t)group;
}

static void read_config(const char *path, mica_discovered *d) {
    mica_buf text = {0};
    mica_arena arena = {0};
    const char *type = NULL;
    const mica_json *config = mica_file_read(path, (size_t)64 << 20, &text, NULL) ? mica_json_parse(&arena, text.data, text.len, path, NULL) : NULL;
    if (config && mica_json_string(config, "model_type", "", &type, path, NULL)) snprintf(d->model_type, sizeof d->model_type, "%s", type);
    read_quant(config, d);
    mica_arena_free(&arena);
    mica_buf_free(&text);
}

static bool add_gguf(mica_discovery *found, char *path, mica_error *err) {
    mica_info info;
    mica_discovered d = {.num_files = 1};
    if (path && mica_info_read(path, &info, NULL)) {
        memcpy(d.model_type, info.architecture, sizeof d.model_type);
        d.quant_bits = info.quant_bits, d.quant_group = info.quant_group;
    }
    return add(found, path, &d, err);
}

// One folder; its sub-folders too where `deeper`.
static bool scan(const char *folder, bool deeper, mica_discovery *found, mica_error *err) {
    DIR *dir = opendir(folder);
    if (!dir) return mica_fail(err, MICA_ERR_IO, "%s: %s", folder, strerror(errno));
    mica_discovered d = {0};
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        char *path = mica_path_join(folder, e->d_name);
        bool file = path && mica_is_file(path);
        d.num_files += file && ends_with(e->d_name, ".safetensors");
        if (file && ends_with(e->d_name, ".gguf")) {
            ok = add_gguf(found, path, err);
            continue;
        }
        // A sub-folder that cannot be read is passed over.
        if (deeper && path && mica_is_dir(path)) ok = scan(path, false, found, err) || (err && err->code == MICA_ERR_IO);
        ok = path ? ok : mica_fail_memory(err, strlen(folder), "a path");
        mica_free(path);
    }
    closedir(dir);
    char *config = ok && d.num_files ? mica_path_join(folder, "config.json") : NULL;
    if (config && mica_is_file(config)) {
        read_config(config, &d);
        ok = add(found, mica_strdup(folder), &d, err);
    }
    mica_free(config);
    return ok;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const mica_discovered *)a)->path, ((const mica_discovered *)b)->path);
}

bool mica_discover(const char *folder, mica_discovery *found, mica_error *err) {
    size_t before = found->count;
    mica_error why = {0};
    if (!scan(folder, true, found, &why)) {
        if (err) *err = why;
        return false;
    }
    if (found->count > before) qsort(found->items + before, found->count - before, sizeof *found->items, by_path);
    return true;
}

void mica_discovery_free(mica_discovery *found) {
    for (size_t i = 0; i < found->count; i++) mica_free(found->items[i].path);
    mica_free(found->items);
    *found = (mica_discovery){0};
}
