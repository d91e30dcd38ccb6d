// SPDX-License-Identifier: Apache-2.0
// Chat templates against transformers (tests/golden/templates, written by tests/oracle/make_templates.py): our own small templates with
// their texts in full, and the real ones by a hash of each text; and the token ids of rendered conversations, in which no message forges
// a control token. The real templates are looked for in $MICA_TEST_TEMPLATES, else in ../shared/data/chat_templates, the real tokenizers in
// $MICA_TEST_TOKENIZERS, else in ../shared/data/tokenizers.
#include "base/file.h"
#include "base/json.h"
#include "template_testing.h"
#include "text/template.h"
#include <stdlib.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/templates"

enum { MOST_CASES = 200 };
static struct {
    char *names[MOST_CASES], *contexts[MOST_CASES];
    size_t count;
} cases;

typedef void line_fn(const mica_json *line);

static size_t each_line(const char *file, line_fn *fn) {
    mica_buf text = {0};
    mica_error err = {0};
    size_t lines = 0;
    char *path = mica_strf(GOLDEN "/%s", file);
    if (!mica_file_read(path, 64 << 20, &text, &err)) fail_msg("%s", err.msg);
    for (char *at = text.data, *end; at && *at; at = end + 1, lines++) {
        mica_arena arena = {0};
        assert_non_null(end = strchr(at, '\n'));
        const mica_json *line = mica_json_parse(&arena, at, (size_t)(end - at), path, &err);
        if (!line) fail_msg("%s", err.msg);
        fn(line);
        mica_arena_free(&arena);
    }
    mica_buf_free(&text);
    mica_free(path);
    return lines;
}

static void keep_case(const mica_json *line) {
    mica_buf context = {0};
    mica_json_writer w = {.out = &context};
    assert_true(cases.count < MOST_CASES);
    mica_json_put_tree(&w, mica_json_get(line, "context"));
    assert_false(context.failed);
    cases.names[cases.count] = mica_strdup(mica_json_get(line, "name")->string);
    cases.contexts[cases.count++] = context.data;
}

/** The template of a file with the variables that the golden files were made with; NULL if there is no such file. */
static mica_template *load(const char *folder, const char *name) {
    static const char *const tokens[][2] = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}, {"unk_token", "<unk>"}};
    char *path = mica_strf("%s/%s", folder, name);
    mica_error err = {0};
    mica_template *t = mica_is_file(path) ? mica_template_load(path, NULL, &err) : NULL;
    if (!t && err.msg[0]) fail_msg("%s", err.msg);
    for (size_t i = 0; t && i < MICA_COUNT(tokens); i++) assert_true(mica_template_set_default(t, tokens[i][0], tokens[i][1], strlen(tokens[i][1]), &err));
    mica_free(path);
    return t;
}

static rendered render_case(const mica_template *t, size_t i) {
    const mica_template_options options = {.now = TEMPLATE_NOW};
    return render_with(t, cases.contexts[i], strlen(cases.contexts[i]), &options);
}

/** A refusal must be one here; what a template raises must be said in the same words, up to the length that the golden file keeps. */
static void check_refusal(const char *name, size_t i, const rendered *r, const char *message, bool raised) {
    if (r->ok) fail_msg("%s, %s: refused by transformers (%s), rendered here", name, cases.names[i], message);
    if (raised && !strstr(r->err.msg, message)) fail_msg("%s, %s: \"%s\" does not say \"%s\"", name, cases.names[i], r->err.msg, message);
}

static size_t find_case(const char *name) {
    size_t i = 0;
    while (i < cases.count && strcmp(cases.names[i], name) != 0) i++;
    assert_true(i < cases.count);
    return i;
}

static mica_template *current;
static char *current_name;

static void own_line(const mica_json *line) {
    const char *name = mica_json_get(line, "template")->string;
    size_t i = find_case(mica_json_get(line, "case")->string);
    const mica_json *text = mica_json_get(line, "text");
    if (!current_name || strcmp(current_name, name) != 0) {
        mica_template_free(current);
        mica_free(current_name);
        current_name = mica_strdup(name);
        assert_non_null(current = load(GOLDEN "/own", name));
    }
    rendered r = render_case(current, i);
    if (!text) check_refusal(name, i, &r, mica_json_get(line, "error")->string, mica_json_get(line, "raised")->boolean);
    else if (!r.ok) fail_msg("%s, %s: %s", name, cases.names[i], r.err.msg);
    else if (r.text.len != text->length || memcmp(r.text.data, text->string, r.text.len))
        fail_msg("%s, %s:\ngot  %.*s\nwant %s", name, cases.names[i], (int)r.text.len, r.text.data, text->string);
    free_rendered(&r);
}

static void own_templates(void **state) {
    (void)state;
    size_t lines = each_line("own.jsonl", own_line);
    print_message("  %zu texts of our own templates\n", lines);
    assert_true(lines > 0);
    mica_template_free(current);
    mica_free(current_name);
}

static size_t compared, refused, missing;

static void real_line(const mica_json *line) {
    const char *name = mica_json_get(line, "template")->string, *folder = getenv("MICA_TEST_TEMPLATES");
    mica_template *t = load(folder ? folder : MICA_SOURCE_DIR "/../shared/data/chat_templates", name);
    if (!t && !folder) t = load(MICA_SOURCE_DIR "/../../shared/data/chat_templates", name); // a work tree beside the main one
    if (!t) {
        if (!missing++) print_message("  skipped: %s and others are not on this machine\n", name);
        return;
    }
    size_t i = 0;
    for (const mica_json *want = mica_json_get(line, "results")->child; want; want = want->next, i++) {
        rendered r = render_case(t, i);
        char hash[20] = "";
        if (r.ok) snprintf(hash, sizeof hash, "%016llx", (unsigned long long)mica_hash(r.text.data, r.text.len, 0));
        if (want->string[0] == '!' || want->string[0] == '?') check_refusal(name, i, &r, want->string + 1, want->string[0] == '!');
        else if (!r.ok) fail_msg("%s, %s: %s", name, cases.names[i], r.err.msg);
        else if (strcmp(hash, want->string) != 0) fail_msg("%s, %s: another text:\n%.*s", name, cases.names[i], (int)r.text.len, r.text.data);
        refused += !r.ok;
        compared++;
        free_rendered(&r);
    }
    assert_int_equal(i, cases.count);
    mica_template_free(t);
}

static void real_templates(void **state) {
    (void)state;
    size_t lines = each_line("real.jsonl", real_line);
    print_message("  %zu of %zu real templates, %zu renders equal, %zu of them refusals\n", lines - missing, lines, compared, refused);
    if (missing == lines) skip();
}

// ---- ids -----------------------------------------------------------------------------------------------------------
static size_t id_lists, forgeries;

static size_t count_special(const mica_tokenizer *t, const mica_ids *ids) {
    size_t n = 0;
    for (size_t i = 0; i < ids->len; i++) n += mica_tokenizer_is_special(t, ids->data[i]);
    return n;
}

/** Ids of a conversation: as transformers has them, unless control tokens are in its messages; of those, as many as the template wrote. */
static void check_ids(const char *name, const mica_tokenizer *tokenizer, const mica_template *t, size_t i, const char *want, size_t control) {
    const mica_encode_options options = {.no_special_tokens = true};
    rendered r = render_case(t, i);
    mica_ids marked = {0}, all = {0};
    mica_error err = {0};
    char hash[20];
    if (!r.ok) fail_msg("%s, %s: %s", name, cases.names[i], r.err.msg);
    if (!mica_tokenizer_encode_marked(tokenizer, r.text.data, r.text.len, r.marks.data, r.marks.len, &options, &marked, &err) ||
        !mica_tokenizer_encode(tokenizer, r.text.data, r.text.len, &options, &all, &err))
        fail_msg("%s, %s: %s", name, cases.names[i], err.msg);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)mica_hash(all.data, all.len * sizeof *all.data, 0));
    if (strcmp(hash, want) != 0) fail_msg("%s, %s: other ids than transformers'", name, cases.names[i]);
    if (count_special(tokenizer, &marked) != control)
        fail_msg("%s, %s: %zu control tokens, want %zu", name, cases.names[i], count_special(tokenizer, &marked), control);
    bool same = marked.len == all.len && (!all.len || !memcmp(marked.data, all.data, all.len * sizeof *all.data));
    if (same != (count_special(tokenizer, &all) == control)) fail_msg("%s, %s: marks change more than control tokens", name, cases.names[i]);
    id_lists++, forgeries += !same;
    mica_ids_free(&marked);
    mica_ids_free(&all);
    free_rendered(&r);
}

static mica_template *load_any(const char *name) {
    const char *folder = getenv("MICA_TEST_TEMPLATES");
    mica_template *t = load(GOLDEN "/own", name);
    if (!t) t = load(folder ? folder : MICA_SOURCE_DIR "/../shared/data/chat_templates", name);
    return t || folder ? t : load(MICA_SOURCE_DIR "/../../shared/data/chat_templates", name);
}

static mica_tokenizer *load_tokenizer(const char *name) {
    const char *folder = getenv("MICA_TEST_TOKENIZERS");
    char *paths[] = {mica_strf(MICA_SOURCE_DIR "/tests/golden/tokenizers/%s", name), folder ? mica_strf("%s/%s", folder, name) : NULL,
                     mica_strf(MICA_SOURCE_DIR "/../shared/data/tokenizers/%s", name), mica_strf(MICA_SOURCE_DIR "/../../shared/data/tokenizers/%s", name)};
    mica_tokenizer *t = NULL;
    for (size_t i = 0; i < MICA_COUNT(paths); i++) {
        if (!t && paths[i] && mica_is_dir(paths[i])) t = mica_tokenizer_load(paths[i], NULL);
        mica_free(paths[i]);
    }
    return t;
}

static void id_line(const mica_json *line) {
    const char *name = mica_json_get(line, "tokenizer")->string;
    mica_tokenizer *tokenizer = load_tokenizer(name);
    mica_template *t = load_any(mica_json_get(line, "template")->string);
    if (!tokenizer || !t) print_message("  skipped: %s is not on this machine\n", name);
    const mica_json *control = mica_json_get(line, "control")->child;
    size_t i = 0;
    for (const mica_json *want = mica_json_get(line, "ids")->child; want; want = want->next, control = control->next, i++)
        if (tokenizer && t && want->type == MICA_JSON_STRING) check_ids(name, tokenizer, t, i, want->string, (size_t)control->integer);
    mica_template_free(t);
    mica_tokenizer_free(tokenizer);
}

static void ids_of_conversations(void **state) {
    (void)state;
    each_line("ids.jsonl", id_line);
    print_message("  %zu lists of ids equal transformers', %zu with control tokens in messages give none\n", id_lists, forgeries);
    assert_true(id_lists > 300 && forgeries >= 4);
}

static int read_cases(void **state) {
    (void)state;
    return each_line("conversations.jsonl", keep_case) ? 0 : -1;
}

static int free_cases(void **state) {
    (void)state;
    for (size_t i = 0; i < cases.count; i++) {
        mica_free(cases.names[i]);
        mica_free(cases.contexts[i]);
    }
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(own_templates), cmocka_unit_test(real_templates), cmocka_unit_test(ids_of_conversations)};
    return cmocka_run_group_tests(tests, read_cases, free_cases);
}
