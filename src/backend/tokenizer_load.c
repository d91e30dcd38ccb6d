// SPDX-License-Identifier: Apache-2.0
// mica_tokenizer_load: finds the tokenizer of a model folder, a tokenizer.json or a GGUF file.
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

enum { MAX_CONFIG = 64 << 20 };

/** A token in tokenizer_config.json: its text, or an object with "content". */
static const char *token_text(const mica_json *config, const char *key) {
    const mica_json *v = mica_json_get(config, key);
    if (v && v->type == MICA_JSON_OBJECT) v = mica_json_get(v, "content");
    return v && v->type == MICA_JSON_STRING ? v->string : NULL;
}

/** BOS and EOS as tokenizer_config.json beside the tokenizer names them; a folder may well have none. */
static bool read_ends(mica_tokenizer *t, const char *dir, mica_error *err) {
    mica_arena arena = {0};
    mica_buf text = {0};
    char *path = mica_path_join(dir, "tokenizer_config.json");
    if (!path) return mica_fail_memory(err, strlen(dir), "path");
    bool ok = true;
    if (mica_is_file(path)) {
        const mica_json *config = mica_file_read(path, MAX_CONFIG, &text, err) ? mica_json_parse(&arena, text.data, text.len, path, err) : NULL;
        if (config) mica_tokenizer_set_ends(t, token_text(config, "bos_token"), token_text(config, "eos_token"));
        ok = config != NULL;
    }
    mica_arena_free(&arena);
    mica_buf_free(&text);
    mica_free(path);
    return ok;
}

static mica_tokenizer *load_folder(const char *dir, mica_error *err) {
    char *path = mica_path_join(dir, "tokenizer.json");
    if (!path) return mica_fail_memory(err, strlen(dir), "path"), NULL;
    mica_tokenizer *t = mica_tokenizer_from_file(path, err);
    mica_free(path);
    if (t && !read_ends(t, dir, err)) return mica_tokenizer_free(t), NULL;
    return t;
}

/** A tokenizer.json given by itself; its folder may hold the rest. */
static mica_tokenizer *load_file(const char *path, mica_error *err) {
    mica_tokenizer *t = mica_tokenizer_from_file(path, err);
    const char *slash = strrchr(path, '/');
    char *dir = slash ? mica_strndup(path, (size_t)(slash - path) + (slash == path)) : mica_strdup(".");
    bool ok = t && (dir || mica_fail_memory(err, strlen(path), "path")) && read_ends(t, dir, err);
    mica_free(dir);
    if (!ok) return mica_tokenizer_free(t), NULL;
    return t;
}

mica_tokenizer *mica_tokenizer_load(const char *path, mica_error *err) {
    if (mica_is_dir(path)) return load_folder(path, err);
    return load_file(path, err);
}
