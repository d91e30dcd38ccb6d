// SPDX-License-Identifier: Apache-2.0
// Putting a tokenizer together from its tables and its components, and looking things up in it.
#include "text/tokenizer.h"
#include "base/json.h"
#include "text/cache.h"
#include "text/read_json.h"
#include "text/unicode.h"

static bool check_version(const mica_json *root, const char *what, mica_error *err) {
    const char *version;
    if (!mica_json_string(root, "version", "1.0", &version, what, err)) return false;
    return !strcmp(version, "1.0") || mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: unknown tokenizer version \"%s\"", what, version);
}

static bool read_components(mica_tokenizer *t, const mica_json *root, const char *what, mica_error *err) {
    const mica_json *decoder = mica_json_get(root, "decoder");
    t->has_decoder = decoder && decoder->type != MICA_JSON_NULL;
    return check_version(root, what, err) && mica_normalizer_read(&t->normalizer, mica_json_get(root, "normalizer"), what, err) &&
           mica_pretok_read(&t->pretok, mica_json_get(root, "pre_tokenizer"), what, err) &&
           mica_bpe_read(&t->bpe, &t->tables, mica_json_get(root, "model"), t->pretok.raw_bytes, what, err) &&
           mica_added_read(&t->added, mica_json_get(root, "added_tokens"), &t->tables, &t->normalizer, what, err) &&
           mica_post_read(&t->post, mica_json_get(root, "post_processor"), what, err) &&
           mica_decoder_read(&t->decoder, decoder, what, err);
}

static void find_ends(mica_tokenizer *t) {
    t->bos = t->post.before.len ? t->post.before.data[0] : -1;
    t->eos = t->post.after.len ? t->post.after.data[t->post.after.len - 1] : -1;
    t->id_limit = MICA_MAX(t->tables.entry_count ? t->tables.token_count : 0, t->added.limit);
}

mica_tokenizer *mica_tokenizer_new(mica_tables *tables, const char *what, mica_error *err) {
    mica_tokenizer *t = mica_calloc(1, sizeof *t);
    if (!t) {
        mica_tables_free(tables);
        return mica_fail_memory(err, sizeof *t, "tokenizer"), NULL;
    }
    t->tables = *tables;
    memset(tables, 0, sizeof *tables);
    mica_uc_init();
    mica_arena arena = {0};
    const mica_json *root = mica_json_parse(&arena, t->tables.config, t->tables.config_size, what, err);
    bool ok = root && read_components(t, root, what, err);
    mica_arena_free(&arena);
    if (ok) t->has_lock = pthread_mutex_init(&t->lock, NULL) == 0;
    if (ok && !t->has_lock) ok = mica_fail_memory(err, sizeof t->lock, "lock");
    if (!ok) return mica_tokenizer_free(t), NULL;
    find_ends(t);
    return t;
}

mica_tokenizer *mica_tokenizer_from_json(const char *json, size_t size, const char *what, mica_error *err) {
    mica_tables tables = {0};
    if (!mica_read_tokenizer_json(&tables, json, size, what, err)) return NULL;
    return mica_tokenizer_new(&tables, what, err);
}

/** A whole-file parse, for its message: what the reader of the small part says lacks the right line. */
static void explain(const mica_map *map, const char *path, mica_error *err) {
    mica_arena arena = {0};
    mica_error better = {0};
    if (!mica_json_parse(&arena, (const char *)map->data, map->size, path, &better) && err && better.code == MICA_ERR_FORMAT) *err = better;
    mica_arena_free(&arena);
}

static mica_tokenizer *build(const mica_map *map, const char *path, const mica_cache_key *key, mica_error *err) {
    mica_tables tables = {0};
    if (!mica_read_tokenizer_json(&tables, (const char *)map->data, map->size, path, err)) return NULL;
    mica_tables built = tables;
    mica_tokenizer *t = mica_tokenizer_new(&tables, path, err);
    if (t) mica_cache_save(&built, key);
    else if (err->code == MICA_ERR_FORMAT) explain(map, path, err);
    return t;
}

mica_tokenizer *mica_tokenizer_from_file(const char *path, mica_error *err) {
    mica_map map = {0};
    mica_tables tables = {0};
    mica_error own = {0};
    if (!err) err = &own;
    if (!mica_map_open(&map, path, err)) return NULL;
    mica_cache_key key = mica_cache_key_of(map.data, map.size);
    mica_tokenizer *t = mica_cache_load(&tables, &key) ? mica_tokenizer_new(&tables, path, err) : NULL;
    if (!t) t = build(&map, path, &key, err); // also when a cache turns out to be bad only now
    mica_map_close(&map);
    return t;
}

void mica_tokenizer_set_ends(mica_tokenizer *t, const char *bos, const char *eos) {
    int32_t b = bos ? mica_tokenizer_id(t, bos, strlen(bos)) : -1, e = eos ? mica_tokenizer_id(t, eos, strlen(eos)) : -1;
    if (b >= 0) t->bos = b;
    if (e >= 0) t->eos = e;
}

void mica_encoder_free(mica_encoder *e) {
    if (!e) return;
    mica_pieces_free(&e->pieces);
    mica_bpe_work_free(&e->bpe);
    mica_buf_free(&e->normal[0]);
    mica_buf_free(&e->normal[1]);
    mica_buf_free(&e->clean);
    mica_free(e);
}

void mica_tokenizer_free(mica_tokenizer *t) {
    if (!t) return;
    for (mica_encoder *e = t->idle, *next; e; e = next) next = e->next, mica_encoder_free(e);
    if (t->has_lock) pthread_mutex_destroy(&t->lock);
    mica_normalizer_free(&t->normalizer);
    mica_pretok_free(&t->pretok);
    mica_bpe_free(&t->bpe);
    mica_added_free(&t->added);
    mica_post_free(&t->post);
    mica_decoder_free(&t->decoder);
    mica_tables_free(&t->tables);
    mica_free(t);
}

size_t mica_tokenizer_vocab_size(const mica_tokenizer *t) { return t->id_limit; }
int32_t mica_tokenizer_bos(const mica_tokenizer *t) { return t->bos; }
int32_t mica_tokenizer_eos(const mica_tokenizer *t) { return t->eos; }

const char *mica_tokenizer_token(const mica_tokenizer *t, int32_t id, size_t *n) {
    if (id < 0) return *n = 0, NULL;
    const mica_added_token *a = mica_added_get(&t->added, (uint32_t)id);
    if (a) return *n = a->size, a->content;
    return mica_tables_token(&t->tables, (uint32_t)id, n);
}

int32_t mica_tokenizer_id(const mica_tokenizer *t, const char *token, size_t n) {
    uintptr_t found;
    if (mica_strmap_get(&t->added.by_content, token, n, &found)) return (int32_t)t->added.tokens[found - 1].id;
    return mica_tables_find(&t->tables, token, n);
}

const char *mica_tokenizer_decoded_form(const mica_tokenizer *t, int32_t id, bool *special, size_t *n) {
    *special = false;
    if (id < 0) return *n = 0, NULL;
    const mica_added_token *a = mica_added_get(&t->added, (uint32_t)id);
    if (!a) return mica_tables_token(&t->tables, (uint32_t)id, n);
    *special = a->special && !a->normalized; // the reference asks for the decoded form in its set of special contents
    return *n = a->normalized ? a->normalized_size : a->size, a->normalized ? a->normalized : a->content;
}

bool mica_tokenizer_is_special(const mica_tokenizer *t, int32_t id) {
    const mica_added_token *a = id < 0 ? NULL : mica_added_get(&t->added, (uint32_t)id);
    return a && a->special;
}

void mica_ids_free(mica_ids *ids) {
    mica_free(ids->data);
    *ids = (mica_ids){0};
}

void mica_text_free(mica_text *text) {
    mica_free(text->data);
    *text = (mica_text){0};
}

void mica_marks_free(mica_marks *marks) {
    mica_free(marks->data);
    *marks = (mica_marks){0};
}
