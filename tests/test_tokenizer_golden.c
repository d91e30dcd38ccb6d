// SPDX-License-Identifier: Apache-2.0
// labels: threads
// Golden ids from Hugging Face (tests/golden/tokenizers/*.jsonl): encode, without specials, plain, decode, and streaming
// against decode. The small tokenizers lie beside the golden files; the real ones are looked for in
// $MICA_TEST_TOKENIZERS (else ../shared/data/tokenizers), GGUF files in $MICA_TEST_MODELS (else the model cache).
#include "base/file.h"
#include "base/json.h"
#include "base/thread.h"
#include "base/utf8.h"
#include "tokenizer_testing.h"
#include <dirent.h>
#include <stdlib.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/tokenizers"

typedef struct golden {
    const mica_tokenizer *t;
    const char *name;
    size_t lines, characters, out_of_vocabulary;
} golden;

static void read_ids(const mica_json *list, mica_ids *ids) {
    ids->len = 0;
    for (const mica_json *v = list->child; v; v = v->next) {
        assert_true(mica_ids_reserve(ids, 1));
        ids->data[ids->len++] = (int32_t)v->integer;
    }
}

/** transformers adds its class's default tokens to GGUF vocabularies that lack them; mica does not. */
static bool beyond(const golden *g, const mica_ids *ids) {
    for (size_t i = 0; i < ids->len; i++)
        if ((size_t)ids->data[i] >= mica_tokenizer_vocab_size(g->t)) return true;
    return false;
}

static void check_ids(golden *g, const mica_json *line, const char *key, mica_encode_options options) {
    const mica_json *text = mica_json_get(line, "text"), *list = mica_json_get(line, key);
    mica_ids want = {0}, got = {0};
    mica_error err = {0};
    if (!list) return;
    read_ids(list, &want);
    if (beyond(g, &want)) {
        g->out_of_vocabulary++;
    } else {
        if (!mica_tokenizer_encode(g->t, text->string, text->length, &options, &got, &err)) fail_msg("%s: %s", g->name, err.msg);
        bool same = got.len == want.len && (!got.len || !memcmp(got.data, want.data, got.len * sizeof *got.data));
        if (!same) fail_msg("%s: %s of line %zu (\"%.80s\") differ: %zu ids, want %zu", g->name, key, g->lines + 1, text->string, got.len, want.len);
    }
    mica_ids_free(&want);
    mica_ids_free(&got);
}

static void check_text(golden *g, const mica_json *line) {
    const mica_json *want = mica_json_get(line, "decoded");
    mica_ids ids = {0};
    read_ids(mica_json_get(line, "ids"), &ids);
    if (!beyond(g, &ids)) {
        mica_text got = decoded(g->t, ids.data, ids.len, NULL), pieces = streamed(g->t, ids.data, ids.len, NULL);
        if (got.len != want->length || memcmp(got.data, want->string, got.len))
            fail_msg("%s: line %zu decodes to \"%.*s\", want \"%s\"", g->name, g->lines + 1, (int)got.len, got.data, want->string);
        if (pieces.len != got.len || memcmp(pieces.data, got.data, got.len)) fail_msg("%s: line %zu: streaming gives another text", g->name, g->lines + 1);
        mica_text_free(&got);
        mica_text_free(&pieces);
    }
    mica_ids_free(&ids);
}

static void check_file(golden *g) {
    mica_buf text = {0};
    mica_arena arena = {0};
    mica_error err = {0};
    char *path = mica_strf(GOLDEN "/%s.jsonl", g->name);
    if (!mica_file_read(path, 64 << 20, &text, &err)) fail_msg("%s", err.msg);
    for (char *at = text.data, *end; *at; at = end + 1) {
        end = strchr(at, '\n');
        assert_non_null(end);
        const mica_json *line = mica_json_parse(&arena, at, (size_t)(end - at), path, &err);
        if (!line) fail_msg("%s", err.msg);
        check_ids(g, line, "ids", (mica_encode_options){0});
        check_ids(g, line, "ids_no_special", (mica_encode_options){.no_special_tokens = true});
        check_ids(g, line, mica_json_get(line, "ids_plain") ? "ids_plain" : "ids", (mica_encode_options){.plain = true});
        check_text(g, line);
        g->lines++, g->characters += mica_json_get(line, "text")->length;
        mica_arena_reset(&arena);
    }
    mica_arena_free(&arena);
    mica_buf_free(&text);
    mica_free(path);
}

/** First of dir/name/tokenizer.json (or dir/name for GGUF) that exists; the caller frees it. */
static char *find_source(const char *name) {
    const char *tokenizers = getenv("MICA_TEST_TOKENIZERS"), *models = getenv("MICA_TEST_MODELS");
    bool gguf = strstr(name, ".gguf") != NULL;
    char *cache = mica_cache_dir();
    char *paths[] = {gguf ? NULL : mica_strf(GOLDEN "/%s", name), gguf || !tokenizers ? NULL : mica_strf("%s/%s", tokenizers, name),
                     gguf ? NULL : mica_strf(MICA_SOURCE_DIR "/../shared/data/tokenizers/%s", name),
                     gguf && models ? mica_strf("%s/%s", models, name) : NULL, gguf && cache ? mica_strf("%s/models/%s", cache, name) : NULL};
    char *found = NULL;
    for (size_t i = 0; i < MICA_COUNT(paths); i++) {
        if (!found && paths[i] && (gguf ? mica_is_file(paths[i]) : mica_is_dir(paths[i]))) found = paths[i];
        else mica_free(paths[i]);
    }
    mica_free(cache);
    return found;
}

static void check_named(const char *name) {
    mica_error err = {0};
    char *path = find_source(name);
    if (!path) {
        print_message("  %-26s skipped: the tokenizer is not on this machine\n", name);
        return;
    }
    mica_tokenizer *t = mica_tokenizer_load(path, &err);
    if (!t) fail_msg("%s", err.msg);
    golden g = {.t = t, .name = name};
    check_file(&g);
    print_message("  %-26s %5zu lines, %7zu bytes, no difference", name, g.lines, g.characters);
    print_message(g.out_of_vocabulary ? " (%zu skipped: ids beyond the vocabulary)\n" : "\n", g.out_of_vocabulary);
    mica_tokenizer_free(t);
    mica_free(path);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void golden_files(void **state) {
    (void)state;
    char *names[128];
    size_t count = 0;
    DIR *dir = opendir(GOLDEN);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) && count < MICA_COUNT(names);) {
        size_t n = strlen(e->d_name);
        if (n > 6 && !strcmp(e->d_name + n - 6, ".jsonl")) names[count++] = mica_strndup(e->d_name, n - 6);
    }
    closedir(dir);
    qsort(names, count, sizeof *names, by_name);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        check_named(names[i]);
        mica_free(names[i]);
    }
}

// One tokenizer, several threads: the same ids from each.
static void encode_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    golden g = {.t = ctx, .name = "tiny-gemma"};
    if (task % 2) g.lines = 0;
    check_file(&g);
}

static void threads_share(void **state) {
    (void)state;
    mica_error err = {0};
    mica_tokenizer *t = mica_tokenizer_load(GOLDEN "/tiny-gemma", &err);
    if (!t) fail_msg("%s", err.msg);
    mica_pool *pool = mica_pool_new(4);
    assert_non_null(pool);
    mica_pool_run(pool, 16, encode_task, t);
    mica_pool_free(pool);
    mica_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_files), cmocka_unit_test(threads_share)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
