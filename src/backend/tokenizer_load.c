// SPDX-License-Identifier: Apache-2.0
// mica_tokenizer_load: finds the tokenizer of a model folder, a tokenizer.json or a GGUF file.
#include "backend/tokenizer_load.h"
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

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

static mica_vocab_string gguf_token(const void *ctx, size_t i) {
    const mica_gguf_string *s = &((const mica_gguf_vocab *)ctx)->tokens[i];
    return (mica_vocab_string){s->data, s->size};
}

static mica_vocab_string gguf_merge(const void *ctx, size_t i) {
    const mica_gguf_string *s = &((const mica_gguf_vocab *)ctx)->merges[i];
    return (mica_vocab_string){s->data, s->size};
}

mica_tokenizer *mica_tokenizer_from_gguf(const mica_gguf *g, mica_error *err) {
    const mica_gguf_vocab *v = mica_gguf_get_vocab(g);
    char architecture[64] = "";
    mica_gguf_string s;
    if (!v->model || !v->tokens) return mica_fail(err, MICA_ERR_FORMAT, "%s: the file has no tokenizer", mica_gguf_path(g)), NULL;
    if (mica_gguf_str(g, "general.architecture", &s) && s.size < sizeof architecture) memcpy(architecture, s.data, s.size);
    mica_vocab vocab = {
        .what = mica_gguf_path(g), .architecture = architecture, .model = v->model, .pre = v->pre, .ctx = v, .token = gguf_token,
        .merge = gguf_merge, .stored_tokens = {v->stored_tokens.data, v->stored_tokens.size},
        .stored_merges = {v->stored_merges.data, v->stored_merges.size}, .count = v->count, .merge_count = v->merges ? v->merge_count : 0, .scores = v->scores, .types = v->types,
        .bos = v->bos_id, .eos = v->eos_id, .unk = v->unk_id, .pad = v->pad_id, .add_bos = v->add_bos, .add_eos = v->add_eos,
        .add_space_prefix = v->add_space_prefix};
    return mica_tokenizer_from_vocab(&vocab, err);
}

static mica_tokenizer *load_gguf(const char *path, mica_error *err) {
    mica_gguf *g = mica_gguf_open(path, err);
    mica_tokenizer *t = g ? mica_tokenizer_from_gguf(g, err) : NULL;
    mica_gguf_free(g);
    return t;
}

mica_tokenizer *mica_tokenizer_load(const char *path, mica_error *err) {
    if (mica_is_dir(path)) return load_folder(path, err);
    const char *dot = strrchr(path, '.');
    if ((dot && !strcmp(dot, ".gguf")) || mica_gguf_is(path)) return load_gguf(path, err);
    return load_file(path, err);
}
