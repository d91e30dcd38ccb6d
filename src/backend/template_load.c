// SPDX-License-Identifier: Apache-2.0
// Finds the chat templates of a model and the variables that transformers passes to them. A folder has them in chat_template.jinja and
// additional_chat_templates/*.jinja, else in chat_template.json, else in tokenizer_config.json (a text, or a list of name and template); a
// GGUF file in tokenizer.chat_template and tokenizer.chat_template.NAME. The special tokens come from tokenizer_config.json and
// special_tokens_map.json, or from the ids in the GGUF file.
#include "backend/template_load.h"
#include "base/file.h"
#include "base/json.h"
#include "io/gguf.h"
#include "text/template.h"
#include <dirent.h>
#include <stdio.h>
#include <string.h>

enum { MAX_FILE = 64 << 20, MOST_TEMPLATES = 16, NAME_SIZE = 80 };

typedef struct source {
    char name[NAME_SIZE];  // "default", "tool_use", …
    const char *text;
    size_t size;
} source;

typedef struct sources {
    mica_arena arena; // holds texts and parsed files
    source items[MOST_TEMPLATES];
    size_t count;
    const mica_json *config; // tokenizer_config.json, or NULL
    const char *where;       // for messages
} sources;

static void add_source(sources *s, const char *name, size_t name_size, const char *text, size_t size) {
    if (s->count == MOST_TEMPLATES || name_size >= NAME_SIZE) return;
    source *one = &s->items[s->count++];
    *one = (source){.text = text, .size = size};
    memcpy(one->name, name, name_size);
}

// ---- folders -------------------------------------------------------------------------------------------------------
/** The text of a file in the arena; *text NULL if there is no such file. */
static bool read_file(sources *s, const char *dir, const char *name, const char **text, size_t *size, mica_error *err) {
    mica_buf buf = {0};
    char *path = mica_path_join(dir, name);
    bool ok = path || mica_fail_memory(err, strlen(dir), "a path");
    *text = NULL, *size = 0;
    if (ok && mica_is_file(path) && (ok = mica_file_read(path, MAX_FILE, &buf, err))) {
        *size = buf.len;
        if (!(*text = mica_arena_strndup(&s->arena, buf.data ? buf.data : "", buf.len))) ok = mica_fail_memory(err, buf.len, name);
    }
    mica_buf_free(&buf);
    mica_free(path);
    return ok;
}

static bool read_json(sources *s, const char *dir, const char *name, const mica_json **out, mica_error *err) {
    const char *text;
    size_t size;
    *out = NULL;
    if (!read_file(s, dir, name, &text, &size, err)) return false;
    return !text || (*out = mica_json_parse(&s->arena, text, size, name, err)) || mica_error_prefix(err, "%s", dir);
}

/** A template as text, or as a list of {"name", "template"}. */
static void add_json(sources *s, const mica_json *v) {
    if (v && v->type == MICA_JSON_STRING) add_source(s, "default", 7, v->string, v->length);
    for (const mica_json *e = v && v->type == MICA_JSON_ARRAY ? v->child : NULL; e; e = e->next) {
        const mica_json *name = mica_json_get(e, "name"), *text = mica_json_get(e, "template");
        if (name && text && name->type == MICA_JSON_STRING && text->type == MICA_JSON_STRING) add_source(s, name->string, name->length, text->string, text->length);
    }
}

static bool read_additional(sources *s, const char *dir, mica_error *err) {
    char *folder = mica_path_join(dir, "additional_chat_templates");
    DIR *open = folder ? opendir(folder) : NULL;
    bool ok = folder || mica_fail_memory(err, strlen(dir), "a path");
    for (struct dirent *e; ok && open && (e = readdir(open));) {
        size_t n = strlen(e->d_name);
        const char *text;
        size_t size;
        if (n <= 6 || strcmp(e->d_name + n - 6, ".jinja") != 0) continue;
        ok = read_file(s, folder, e->d_name, &text, &size, err);
        if (ok && text) add_source(s, e->d_name, n - 6, text, size);
    }
    if (open) closedir(open);
    mica_free(folder);
    return ok;
}

static bool read_folder(sources *s, const char *dir, mica_error *err) {
    const char *text;
    size_t size;
    const mica_json *json;
    s->where = dir;
    if (!read_json(s, dir, "tokenizer_config.json", &s->config, err) || !read_file(s, dir, "chat_template.jinja", &text, &size, err)) return false;
    if (text) add_source(s, "default", 7, text, size);
    if (!read_additional(s, dir, err)) return false;
    if (!s->count) {
        if (!read_json(s, dir, "chat_template.json", &json, err)) return false;
        add_json(s, mica_json_get(json, "chat_template"));
    }
    if (!s->count) add_json(s, mica_json_get(s->config, "chat_template"));
    return true;
}

// ---- variables -------------------------------------------------------------------------------------------------------
static bool ends_with_token(const mica_json *m) {
    return m->key_length > 6 && !memcmp(m->key + m->key_length - 6, "_token", 6);
}

/** Members that are tokens: a text, or an object with "content". */
static bool set_tokens(mica_template *t, const mica_json *object, bool any_name, mica_error *err) {
    for (const mica_json *m = object && object->type == MICA_JSON_OBJECT ? object->child : NULL; m; m = m->next) {
        const mica_json *v = m->type == MICA_JSON_OBJECT ? mica_json_get(m, "content") : m;
        if (!v || v->type != MICA_JSON_STRING || (!any_name && !ends_with_token(m))) continue;
        if (!mica_template_set_default(t, m->key, v->string, v->length, err)) return false;
    }
    return true;
}

static bool set_folder_tokens(mica_template *t, sources *s, const char *dir, mica_error *err) {
    const mica_json *map = NULL;
    if (!set_tokens(t, s->config, false, err) || !set_tokens(t, mica_json_get(s->config, "extra_special_tokens"), true, err)) return false;
    if (mica_json_get(s->config, "added_tokens_decoder")) return true; // newer than the map
    return read_json(s, dir, "special_tokens_map.json", &map, err) && set_tokens(t, map, false, err);
}

static bool set_gguf_tokens(mica_template *t, const mica_gguf_vocab *v, mica_error *err) {
    const struct { const char *name; int64_t id; } tokens[] = {{"bos_token", v->bos_id}, {"eos_token", v->eos_id}, {"unk_token", v->unk_id}, {"pad_token", v->pad_id}};
    for (size_t i = 0; i < MICA_COUNT(tokens); i++) {
        if (tokens[i].id < 0 || (uint64_t)tokens[i].id >= v->count || !v->tokens) continue;
        const mica_gguf_string *s = &v->tokens[tokens[i].id];
        if (!mica_template_set_default(t, tokens[i].name, s->data, s->size, err)) return false;
    }
    return true;
}

// ---- GGUF --------------------------------------------------------------------------------------------------------------
static void read_gguf(sources *s, const mica_gguf *g) {
    static const char *const names[] = {"tool_use", "rag"};
    const mica_gguf_vocab *v = mica_gguf_get_vocab(g);
    s->where = mica_gguf_path(g);
    if (v->chat_template) add_source(s, "default", 7, v->chat_template, strlen(v->chat_template));
    for (size_t i = 0; i < MICA_COUNT(names); i++) {
        char key[64];
        mica_gguf_string text;
        snprintf(key, sizeof key, "tokenizer.chat_template.%s", names[i]);
        if (mica_gguf_str(g, key, &text)) add_source(s, names[i], strlen(names[i]), text.data, text.size);
    }
}

// ---- choosing ----------------------------------------------------------------------------------------------------------
static const source *find_source(const sources *s, const char *name) {
    for (size_t i = 0; i < s->count; i++)
        if (!strcmp(s->items[i].name, name)) return &s->items[i];
    return NULL;
}

static mica_template *compile(const sources *s, const source *one, mica_error *err) {
    char *name = mica_strf("%s (chat template \"%s\")", s->where, one->name);
    if (!name) return mica_fail_memory(err, strlen(s->where), "a name"), NULL;
    mica_template *t = mica_template_parse(one->text, one->size, name, err);
    mica_free(name);
    if (t && !mica_template_set_label(t, one->name, err)) return mica_template_free(t), NULL;
    return t;
}

static bool set_variables(mica_template *t, sources *s, const char *dir, const mica_gguf *g, mica_error *err) {
    return g ? set_gguf_tokens(t, mica_gguf_get_vocab(g), err) : set_folder_tokens(t, s, dir, err);
}

/** name NULL: the default one, with the others behind it. */
static mica_template *choose(sources *s, const char *name, const char *dir, const mica_gguf *g, mica_error *err) {
    const source *first = find_source(s, name ? name : "default");
    if (!s->count) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: the model has no chat template", s->where), NULL;
    if (!first && name) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: there is no chat template \"%.60s\"", s->where, name), NULL;
    if (!first) first = &s->items[0];
    mica_template *t = compile(s, first, err);
    bool ok = t && set_variables(t, s, dir, g, err);
    for (size_t i = 0; ok && !name && i < s->count; i++) {
        mica_template *other = &s->items[i] == first ? NULL : compile(s, &s->items[i], err);
        if (other) mica_template_add(t, other);
        ok = other || &s->items[i] == first;
    }
    if (ok) return t;
    mica_template_free(t);
    return NULL;
}

static mica_template *load_folder(const char *dir, const char *name, mica_error *err) {
    sources s = {0};
    mica_template *t = read_folder(&s, dir, err) ? choose(&s, name, dir, NULL, err) : NULL;
    mica_arena_free(&s.arena);
    return t;
}

static mica_template *load_gguf(const char *path, const char *name, mica_error *err) {
    sources s = {0};
    mica_gguf *g = mica_gguf_open(path, err);
    if (g) read_gguf(&s, g);
    mica_template *t = g ? choose(&s, name, NULL, g, err) : NULL;
    mica_gguf_free(g);
    return t;
}

static mica_template *load_file(const char *path, mica_error *err) {
    mica_buf text = {0};
    mica_template *t = mica_file_read(path, MAX_FILE, &text, err) ? mica_template_parse(text.data ? text.data : "", text.len, path, err) : NULL;
    mica_buf_free(&text);
    return t;
}

mica_template *mica_template_load(const char *path, const char *name, mica_error *err) {
    if (mica_is_dir(path)) return load_folder(path, name, err);
    return mica_gguf_is(path) ? load_gguf(path, name, err) : load_file(path, err);
}

bool mica_template_of_checkpoint(const mica_model_files *ck, mica_template **out, mica_error *err) {
    sources s = {0};
    const char *dir = mica_checkpoint_path(ck);
    const mica_gguf *g = mica_checkpoint_gguf(ck);
    bool ok = true;
    *out = NULL;
    if (g) read_gguf(&s, g);
    else ok = read_folder(&s, dir, err);
    mica_error problem = {0};
    if (ok && s.count && !(*out = choose(&s, NULL, dir, g, &problem))) {
        bool memory = problem.code == MICA_ERR_NO_MEMORY;
        if (memory) mica_fail(err, problem.code, "%s", problem.msg);
        ok = !memory && (*out = mica_template_broken(&problem, err));
    }
    mica_arena_free(&s.arena);
    return ok;
}

bool mica_template_present(const mica_model_files *ck) {
    sources s = {0};
    const mica_gguf *g = mica_checkpoint_gguf(ck);
    if (g) read_gguf(&s, g);
    else read_folder(&s, mica_checkpoint_path(ck), NULL);
    mica_arena_free(&s.arena);
    return s.count > 0;
}
