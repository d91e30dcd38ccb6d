// SPDX-License-Identifier: Apache-2.0
// Training data: token ids and masks against mlx-lm's (tests/oracle/make_data.py), bad files, orders, batches, refused memory.
#include "base/file.h"
#include "base/json.h"
#include "faults_testing.h"
#include "train/data.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"

static mica_tokenizer *tokenizer;
static mica_template *turns;
static char folder[] = "/tmp/mica-train-data-XXXXXX", path[100];

static const char *put_bytes(const char *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}
static const char *put(const char *text) { return put_bytes(text, strlen(text)); }

static mica_dataset *open_data(const char *file, const mica_template *chat, const mica_dataset_options *options) {
    mica_error err = {0};
    mica_dataset *d = mica_dataset_open(file, tokenizer, chat, options, &err);
    if (!d) fail_msg("%s", err.msg);
    return d;
}

static mica_dataset_example get(mica_dataset *d, size_t i) {
    mica_error err = {0};
    mica_dataset_example e;
    if (!mica_dataset_example_get(d, i, &e, &err)) fail_msg("%s", err.msg);
    return e;
}

static mica_dataset_order *new_order(mica_dataset *d, const mica_dataset_order_options *options) {
    mica_error err = {0};
    mica_dataset_order *o = mica_dataset_order_new(d, options, &err);
    if (!o) fail_msg("%s", err.msg);
    return o;
}

static mica_text_batch next(mica_dataset_order *o) {
    mica_error err = {0};
    mica_text_batch b;
    if (!mica_dataset_next(o, &b, &err)) fail_msg("%s", err.msg);
    return b;
}

// ---- against mlx-lm -----------------------------------------------------------------------------------------
static void check_ids(const mica_dataset_example *e, const mica_json *want, const char *where) {
    const mica_json *ids = mica_json_get(want, "ids"), *id = ids->child;
    if (e->n != ids->length) fail_msg("%s: %zu tokens, not %zu", where, e->n, ids->length);
    for (size_t i = 0; i < e->n; i++, id = id->next)
        if (e->ids[i] != id->integer) fail_msg("%s: token %zu is %d, not %d", where, i, e->ids[i], (int)id->integer);
}

static void check_offset(const mica_dataset_example *e, size_t offset, const char *where) {
    size_t targets = 0;
    for (size_t i = 0; i < e->n; i++) {
        if (e->scored[i] != (i && i >= offset)) fail_msg("%s: score of token %zu, prompt of %zu", where, i, offset);
        targets += e->scored[i];
    }
    assert_int_equal(targets, e->targets);
}

// With "error" mlx-lm fails: on an empty text, where there is only EOS here, and on a role that the template refuses.
static void compare_line(mica_dataset *whole, mica_dataset *masked, const mica_json *want, const char *where) {
    size_t i = (size_t)mica_json_get(want, "line")->integer - 1;
    const mica_json *offset = mica_json_get(want, "offset");
    mica_error err = {0};
    mica_dataset_example e;
    bool ok = mica_dataset_example_get(whole, i, &e, &err);
    if (mica_json_get(want, "error")) {
        if (ok) assert_true(e.n == 1 && !e.targets);
        else if (!strstr(err.msg, "train.jsonl:23: ") || !strstr(err.msg, "turns.jinja: line 4: Unknown role: emperor")) fail_msg("%s", err.msg);
        return;
    }
    if (!ok) fail_msg("%s: %s", where, err.msg);
    check_ids(&e, want, where);
    check_offset(&e, 0, where);
    e = get(masked, i);
    if (i < 6) assert_true(e.bad); // texts
    else check_ids(&e, want, where), check_offset(&e, offset->type == MICA_JSON_INT ? (size_t)offset->integer : 0, where);
}

static void compare_template(const mica_json *const *lines, size_t count, const char *name) {
    mica_error err = {0};
    char file[300];
    snprintf(file, sizeof file, GOLDEN "%s", name);
    mica_template *chat = mica_template_load(file, NULL, &err);
    if (!chat) fail_msg("%s", err.msg);
    mica_dataset *whole = open_data(GOLDEN "data/train.jsonl", chat, NULL);
    mica_dataset *masked = open_data(GOLDEN "data/train.jsonl", chat, &(mica_dataset_options){.mask = MICA_MASK_LAST, .skip_bad = true, .unchecked = true});
    for (size_t i = 0; i < count; i++) {
        if (strcmp(mica_json_get(lines[i], "template")->string, name)) continue;
        char where[100];
        snprintf(where, sizeof where, "%s, line %zu", name, i + 1);
        compare_line(whole, masked, lines[i], where);
    }
    mica_dataset_free(whole);
    mica_dataset_free(masked);
    mica_template_free(chat);
}

static void as_mlx_lm_does(void **state) {
    (void)state;
    static const char *const names[] = {"chat/chat_template.jinja", "data/turns.jinja", "data/thinking.jinja"};
    mica_buf text = {0};
    mica_arena arena = {0};
    mica_error err = {0};
    const mica_json *lines[200];
    size_t count = 0;
    assert_true(mica_file_read(GOLDEN "data/expected.jsonl", 1 << 20, &text, &err));
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n"))
        assert_non_null(lines[count++] = mica_json_parse(&arena, line, strlen(line), "expected", &err));
    assert_int_equal(count, 3 * 24);
    for (size_t i = 0; i < MICA_COUNT(names); i++) compare_template(lines, count, names[i]);
    mica_arena_free(&arena);
    mica_buf_free(&text);
}

// ---- turns of the assistant ---------------------------------------------------------------------------------
// The scored tokens' text; a bar between runs.
static void check_scored(mica_dataset *d, size_t i, const char *want) {
    mica_dataset_example e = get(d, i);
    mica_text text = {0};
    mica_error err = {0};
    for (size_t from = 0, to; from < e.n; from = to) {
        for (to = from + 1; to < e.n && e.scored[to] == e.scored[from]; to++) {}
        if (e.scored[from]) assert_true(mica_tokenizer_decode(tokenizer, e.ids + from, to - from, NULL, &text, &err));
        else if (text.len) assert_true(mica_tokenizer_decode(tokenizer, (int32_t[]){mica_tokenizer_id(tokenizer, "|", 1)}, 1, NULL, &text, &err));
    }
    if (text.len && text.data[text.len - 1] == '|') text.data[--text.len] = 0;
    assert_string_equal(text.data ? text.data : "", want);
    mica_text_free(&text);
}

static void turns_of_the_assistant(void **state) {
    (void)state;
    mica_error err = {0};
    mica_dataset_options o = {.mask = MICA_MASK_ASSISTANT, .skip_bad = true, .unchecked = true};
    mica_dataset *d = open_data(GOLDEN "data/train.jsonl", turns, &o);
    check_scored(d, 7, "on its own</s>\n");
    check_scored(d, 12, "jumps over\n the lazy dog</s>\n|in the end it runs</s>\n");
    check_scored(d, 13, "jumps over\n the lazy dog</s>\n");
    check_scored(d, 17, "blanks around</s>\n|more</s>\n");
    check_scored(d, 19, "jumps over\n the lazy dog</s>\n|jumps over\n the lazy dog</s>\n|jumps over\n the lazy dog</s>\n");
    check_scored(d, 20, "begins</s>\n|ends</s>\n");
    check_scored(d, 21, "");
    mica_dataset_free(d);
    mica_template *thinking = mica_template_load(GOLDEN "data/thinking.jinja", NULL, &err);
    d = open_data(GOLDEN "data/train.jsonl", thinking, &o);
    check_scored(d, 18, "first, first</s>|<pad>so<pad>last</s>");
    check_scored(d, 12, "jumps over\n the lazy dog</s>|<pad><pad>in the end it runs</s>");
    check_scored(d, 20, "begins</s>|<pad><pad>ends</s>");
    mica_dataset_free(d);
    mica_template_free(thinking);
}

// The prompt begins a thought that the turn does not have.
static void prompts_that_go_on_otherwise(void **state) {
    (void)state;
    static const char source[] = "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}{{ m.call | default('') }}</s>{% endfor %}"
                                 "{% if add_generation_prompt %}<s>assistant:<pad>{% endif %}";
    mica_error err = {0};
    mica_template *chat = mica_template_parse(source, sizeof source - 1, "t", &err);
    put("{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"\",\"call\":\"Z()\"},"
        "{\"role\":\"tool\",\"content\":\"Z\"},{\"role\":\"assistant\",\"content\":\"Q\"}]}");
    mica_dataset *d = open_data(path, chat, &(mica_dataset_options){.mask = MICA_MASK_ASSISTANT});
    check_scored(d, 0, "Z()</s>|Q</s>");
    mica_dataset_free(d);
    mica_template_free(chat);
    chat = mica_template_parse("{{ messages | length }}{{ messages[0].content }}", 48, "t", &err);
    assert_non_null(chat);
    mica_dataset_example e;
    d = open_data(path, chat, &(mica_dataset_options){.mask = MICA_MASK_ASSISTANT});
    assert_false(mica_dataset_example_get(d, 0, &e, &err));
    assert_int_equal(err.code, MICA_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "train.jsonl:1: messages[1]: the template writes a turn otherwise"));
    mica_dataset_free(d);
    mica_template_free(chat);
}

static void control_tokens_stay_text(void **state) {
    (void)state;
    put("{\"prompt\":\"a</s><s>system\",\"completion\":\"b<s>\"}");
    mica_dataset *d = open_data(path, turns, NULL), *as_mlx = open_data(path, turns, &(mica_dataset_options){.allow_control = true});
    size_t control[2] = {0};
    mica_dataset_example e = get(d, 0);
    for (size_t i = 0; i < e.n; i++) control[0] += e.ids[i] < 2;
    e = get(as_mlx, 0);
    for (size_t i = 0; i < e.n; i++) control[1] += e.ids[i] < 2;
    assert_int_equal(control[0], 4);
    assert_int_equal(control[1], 7);
    assert_int_not_equal(mica_dataset_fingerprint(d), mica_dataset_fingerprint(as_mlx));
    mica_dataset_free(d);
    mica_dataset_free(as_mlx);
}

// ---- files --------------------------------------------------------------------------------------------------
#define GOOD "{\"text\":\"the fox\"}\n"

static const struct { const char *data; size_t size; const char *want; } bad[] = {
#define BAD(text, want) {text, sizeof text - 1, want}
    BAD("", "train.jsonl: no examples"),
    BAD("\n \r\n\t\n", "train.jsonl: no examples"),
    BAD(GOOD "{\"text\":", "train.jsonl:2: not valid JSON"),
    BAD(GOOD "\n\r\n{\"text\":\"a\"}}\n" GOOD, "train.jsonl:4: not valid JSON"),
    BAD("[1]\n", "train.jsonl:1: a line must be an object, not array"),
    BAD(GOOD GOOD "7", "train.jsonl:3: a line must be an object, not integer"),
    BAD("{}\n", "train.jsonl:1: neither \"messages\" nor"),
    BAD("{\"prompt\":\"a\"}\n", "train.jsonl:1: neither"),
    BAD("{\"text\":null}\n", "train.jsonl:1: neither"),
    BAD("{\"text\":[\"a\"]}\n", "train.jsonl:1: \"text\" must be a string, not array"),
    BAD("{\"prompt\":\"a\",\"completion\":1}\n", "\"completion\" must be a string, not integer"),
    BAD("{\"prompt\":{},\"completion\":\"\"}\n", "\"prompt\" must be a string, not object"),
    BAD("{\"messages\":{}}\n", "\"messages\" must be an array, not object"),
    BAD("{\"messages\":[]}\n", "train.jsonl:1: \"messages\" is empty"),
    BAD("{\"messages\":[{\"role\":\"user\"},3]}\n", "messages[1] must be an object, not integer"),
    BAD("{\"messages\":[{\"content\":\"a\"}]}\n", "messages[0] has no \"role\""),
    BAD("{\"messages\":[{\"role\":1}]}\n", "\"role\" of messages[0] must be a string, not integer"),
    BAD("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":\"x\"}\n", "\"tools\" must be an array, not string"),
    BAD(GOOD "{\"text\":\"a\0b\"}\n", "train.jsonl:2: not valid JSON"),
    BAD(GOOD "{\"text\":\"\xFF\xFE\"}\n", "train.jsonl:2: not valid JSON"),
    BAD(GOOD "\0\n", "train.jsonl:2: not valid JSON"),
};

static void bad_files_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        mica_error err = {0};
        put_bytes(bad[i].data, bad[i].size);
        if (mica_dataset_open(path, tokenizer, turns, NULL, &err)) fail_msg("no error: %s", bad[i].want);
        if (!strstr(err.msg, bad[i].want)) fail_msg("got \"%s\", want \"%s\"", err.msg, bad[i].want);
        assert_int_equal(err.code, MICA_ERR_FORMAT);
    }
    mica_error err = {0};
    assert_null(mica_dataset_open(folder, tokenizer, turns, NULL, &err));
    assert_int_equal(err.code, MICA_ERR_IO);
    assert_null(mica_dataset_open("/nowhere/train.jsonl", tokenizer, turns, NULL, &err));
    assert_int_equal(err.code, MICA_ERR_IO);
    put("{\"prompt\":\"a\",\"completion\":\"b\"}");
    assert_null(mica_dataset_open(path, tokenizer, NULL, NULL, &err));
    assert_non_null(strstr(err.msg, "train.jsonl:1: the model has no chat template"));
    put(GOOD);
    assert_null(mica_dataset_open(path, tokenizer, turns, &(mica_dataset_options){.mask = MICA_MASK_LAST}, &err));
    assert_non_null(strstr(err.msg, "train.jsonl:1: a text has no prompt"));
    assert_null(mica_dataset_open(path, tokenizer, turns, &(mica_dataset_options){.max_length = 1}, &err));
    assert_int_equal(err.code, MICA_ERR_ARGUMENT);
}

static void bad_lines_may_be_skipped(void **state) {
    (void)state;
    static const char data[] = GOOD "{\n" "{\"messages\":[{\"role\":\"emperor\",\"content\":\"x\"}]}\n" GOOD "[]\n";
    put(data);
    mica_dataset *d = open_data(path, turns, &(mica_dataset_options){.skip_bad = true});
    const mica_dataset_report *r = mica_dataset_get_report(d);
    assert_int_equal(mica_dataset_count(d), 3); // what only the template refuses is found later
    assert_int_equal(r->bad, 2);
    assert_non_null(strstr(r->first_bad, "train.jsonl:2: "));
    for (int twice = 0; twice < 2; twice++) {
        assert_true(get(d, 1).bad);
        assert_int_equal(get(d, 2).targets, get(d, 0).targets);
    }
    assert_int_equal(r->bad, 3);
    assert_int_equal(r->seen, 2);
    mica_dataset_free(d);
    d = open_data(path, turns, &(mica_dataset_options){.skip_bad = true, .unchecked = true});
    assert_int_equal(mica_dataset_count(d), 5);
    mica_dataset_order *o = new_order(d, &(mica_dataset_order_options){.epochs = 1});
    assert_int_equal(next(o).segments, 2);
    assert_int_equal(next(o).n, 0);
    assert_int_equal(mica_dataset_get_report(d)->bad, 3);
    mica_dataset_order_free(o);
    mica_dataset_free(d);
    mica_error err = {0};
    mica_dataset_example e;
    d = open_data(path, turns, &(mica_dataset_options){.unchecked = true});
    assert_false(mica_dataset_example_get(d, 4, &e, &err));
    assert_non_null(strstr(err.msg, "train.jsonl:5: a line must"));
    assert_false(mica_dataset_example_get(d, 2, &e, &err));
    assert_non_null(strstr(err.msg, "train.jsonl:3: "));
    assert_non_null(strstr(err.msg, "turns.jinja: line 4: Unknown role: emperor"));
    assert_false(mica_dataset_example_get(d, 5, &e, &err));
    assert_int_equal(err.code, MICA_ERR_ARGUMENT);
    mica_dataset_free(d);
    put("{\n\n}");
    assert_null(mica_dataset_open(path, tokenizer, turns, &(mica_dataset_options){.skip_bad = true}, &err));
    assert_non_null(strstr(err.msg, "no good examples: 2 bad lines, the first: "));
}

static void ends_of_lines(void **state) {
    (void)state;
    static const char *const same[] = {"{\"text\":\"a\"}\n{\"text\":\"b\"}\n", "{\"text\":\"a\"}\n{\"text\":\"b\"}", "{\"text\":\"a\"}\r\n{\"text\":\"b\"}\r\n",
                                       "\n \n{\"text\":\"a\"}\n\n\r\n  {\"text\":\"b\"}  \n\n", "\xEF\xBB\xBF{\"text\":\"a\"}\n{\"text\":\"b\"}"};
    for (size_t i = 0; i < MICA_COUNT(same); i++) {
        mica_dataset *d = open_data(put(same[i]), NULL, NULL);
        assert_int_equal(mica_dataset_count(d), 2);
        check_scored(d, 0, "</s>");
        mica_dataset_example e = get(d, 1);
        assert_int_equal(e.ids[0], mica_tokenizer_id(tokenizer, "b", 1));
        mica_dataset_free(d);
    }
}

// Lines across the blocks of reading, and one beyond several.
static void large_files(void **state) {
    (void)state;
    mica_buf text = {0};
    for (int i = 0; i < 30000; i++) mica_buf_printf(&text, "{\"text\":\"number %d of many lines, made a little longer so that there are several blocks\"}\n", i);
    mica_buf_puts(&text, "{\"text\":\"");
    for (int i = 0; i < 300000; i++) mica_buf_puts(&text, "ten bytes ");
    mica_buf_puts(&text, "\"}\n" GOOD);
    mica_dataset *d = open_data(put_bytes(text.data, text.len), NULL, NULL);
    assert_int_equal(mica_dataset_count(d), 30002);
    for (size_t i = 0; i < 30000; i += 777) {
        char want[100];
        snprintf(want, sizeof want, "umber %zu of many lines, made a little longer so that there are several blocks</s>", i);
        check_scored(d, i, want);
    }
    assert_true(get(d, 30000).n > 600000);
    check_scored(d, 30001, " fox</s>"); // "the" is one token
    assert_int_equal(truncate(path, 1000), 0);
    mica_error err = {0};
    mica_dataset_example e;
    assert_false(mica_dataset_example_get(d, 20000, &e, &err));
    assert_int_equal(err.code, MICA_ERR_IO);
    mica_dataset_free(d);
    mica_buf_free(&text);
}

// ---- orders -------------------------------------------------------------------------------------------------
enum { LINES = 23 };

// Line i: i + 2 letters; with EOS i + 3 tokens, so that its segment has i + 2.
static void put_lines(void) {
    mica_buf text = {0};
    for (int i = 0; i < LINES; i++) mica_buf_printf(&text, "{\"text\":\"%.*s\"}\n", i + 2, "QZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZ");
    put_bytes(text.data, text.len);
    mica_buf_free(&text);
}

static void every_epoch_has_all(void **state) {
    (void)state;
    put_lines();
    mica_dataset *d = open_data(path, NULL, NULL);
    mica_dataset_order *o = new_order(d, &(mica_dataset_order_options){.seed = 5, .epochs = 3, .batch_size = 4});
    int32_t seen[3 * LINES];
    size_t count = 0, batches = 0, fixed = 0;
    for (mica_text_batch b; (b = next(o)).n; batches++) {
        if (batches < 17) assert_int_equal(b.segments, 4);
        for (size_t i = 0; i < b.segments; i++) seen[count++] = b.lengths[i] - 2;
    }
    assert_int_equal(count, 3 * LINES);
    for (size_t e = 0; e < 3; e++) {
        uint32_t all = 0;
        for (size_t i = 0; i < LINES; i++) all |= 1u << seen[e * LINES + i], fixed += seen[i] == seen[e * LINES + i];
        assert_int_equal(all, (1u << LINES) - 1);
    }
    assert_true(fixed < LINES + 12); // the first epoch equals itself
    mica_dataset_position p = mica_dataset_order_position(o);
    assert_true(p.epoch == 3 && !p.index && !p.piece);
    assert_int_equal(next(o).n, 0);
    mica_dataset_order_free(o);
    o = new_order(d, &(mica_dataset_order_options){.in_file_order = true, .batch_size = 1});
    for (int i = 0; i < 2 * LINES; i++) assert_int_equal(next(o).lengths[0], i % LINES + 2);
    mica_dataset_order_free(o);
    mica_dataset_free(d);
}

static void same_batch(const mica_text_batch *a, const mica_text_batch *b) {
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->segments, b->segments);
    assert_memory_equal(a->ids, b->ids, a->n * 4);
    assert_memory_equal(a->targets, b->targets, a->n * 4);
    assert_memory_equal(a->weights, b->weights, a->n * 4);
    assert_memory_equal(a->lengths, b->lengths, a->segments * 4);
}

// At every place, a fresh order put there goes on as the first one does.
static void positions_restore(void **state) {
    (void)state;
    put_lines();
    mica_dataset_options choices[] = {{0}, {.max_length = 6, .too_long = MICA_LONG_SPLIT}, {.max_length = 9, .too_long = MICA_LONG_SKIP}};
    mica_error err = {0};
    for (size_t c = 0; c < MICA_COUNT(choices); c++) {
        mica_dataset *d = open_data(path, NULL, &choices[c]), *other = open_data(path, NULL, &choices[c]);
        assert_int_equal(mica_dataset_fingerprint(d), mica_dataset_fingerprint(other));
        mica_dataset_order_options options = {.seed = 9, .batch_size = 3, .batch_tokens = c == 1 ? 14 : 0};
        mica_dataset_order *o = new_order(d, &options);
        for (int i = 0; i < 40; i++) {
            mica_dataset_order *fresh = new_order(other, &options);
            assert_true(mica_dataset_order_seek(fresh, mica_dataset_order_position(o), &err));
            mica_text_batch a = next(o), b = next(fresh);
            same_batch(&a, &b);
            mica_dataset_order_free(fresh);
        }
        assert_false(mica_dataset_order_seek(o, (mica_dataset_position){.index = LINES}, &err));
        assert_int_equal(err.code, MICA_ERR_ARGUMENT);
        mica_dataset_order_free(o);
        mica_dataset_free(d);
        mica_dataset_free(other);
    }
}

// ---- batches ------------------------------------------------------------------------------------------------
static void too_long_ones(void **state) {
    (void)state;
    put_lines(); // tokens: 3 to 25
    static const struct { mica_dataset_long choice; size_t segments, ids, too_long; uint64_t lost; } want[] = {
        {MICA_LONG_TRUNCATE, 23, 2 + 3 + 4 + 5 + 6 + 7 + 8 + 16 * 9, 15, 120}, {MICA_LONG_SPLIT, 0, 299, 15, 0}, {MICA_LONG_SKIP, 8, 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9, 15, 270}};
    for (size_t c = 0; c < MICA_COUNT(want); c++) {
        mica_dataset *d = open_data(path, NULL, &(mica_dataset_options){.max_length = 10, .too_long = want[c].choice});
        mica_dataset_order *o = new_order(d, &(mica_dataset_order_options){.epochs = 1, .batch_size = 1000});
        mica_text_batch b = next(o);
        const mica_dataset_report *r = mica_dataset_get_report(d);
        if (want[c].segments) assert_int_equal(b.segments, want[c].segments);
        assert_int_equal(b.n, want[c].ids);
        assert_true(r->too_long == want[c].too_long && r->lost == want[c].lost && r->seen == LINES && r->tokens == 322 && !r->unscored);
        for (size_t i = 0; i < b.segments; i++) assert_in_range(b.lengths[i], 1, 9);
        mica_dataset_order_free(o);
        mica_dataset_free(d);
    }
}

// Budgets are kept, and each token but the first of a line is a target once, behind the token before it.
static void packed_without_padding(void **state) {
    (void)state;
    put_lines();
    mica_dataset *d = open_data(path, NULL, &(mica_dataset_options){.max_length = 7, .too_long = MICA_LONG_SPLIT});
    mica_dataset_order *o = new_order(d, &(mica_dataset_order_options){.epochs = 1, .batch_tokens = 20, .in_file_order = true});
    mica_buf targets = {0}, all = {0};
    for (mica_text_batch b; (b = next(o)).n;) {
        assert_in_range(b.n, 1, 20);
        size_t n = 0;
        for (size_t i = 0; i < b.segments; i++) n += (size_t)b.lengths[i];
        assert_int_equal(n, b.n);
        mica_buf_append(&targets, b.targets, b.n * 4);
        for (size_t i = 0; i < b.n; i++) assert_true(b.weights[i] == 1);
    }
    for (size_t i = 0; i < LINES; i++) {
        mica_dataset_example e = get(d, i);
        mica_buf_append(&all, e.ids + 1, (e.n - 1) * 4);
    }
    assert_int_equal(targets.len, all.len);
    assert_memory_equal(targets.data, all.data, all.len);
    mica_buf_free(&targets);
    mica_buf_free(&all);
    mica_dataset_order_free(o);
    mica_error err = {0};
    assert_null(mica_dataset_order_new(d, &(mica_dataset_order_options){.batch_tokens = 6}, &err));
    assert_int_equal(err.code, MICA_ERR_ARGUMENT);
    mica_dataset_free(d);
}

#define PAIR(prompt, completion) "{\"prompt\":\"" prompt "\",\"completion\":\"" completion "\"}\n"

// Behind the last target nothing is computed; a prompt beyond max_length leaves nothing.
static void masked_batches(void **state) {
    (void)state;
    mica_error err = {0};
    mica_text_batch b;
    put("{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"Z\"},{\"role\":\"user\",\"content\":\"more\"}]}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"}]}\n");
    mica_dataset *d = open_data(path, turns, &(mica_dataset_options){.mask = MICA_MASK_ASSISTANT});
    mica_dataset_order *o = new_order(d, &(mica_dataset_order_options){.epochs = 1});
    b = next(o);
    assert_int_equal(b.segments, 1);
    assert_int_equal(mica_dataset_get_report(d)->unscored, 1);
    float sum = 0;
    for (size_t i = 0; i < b.n; i++) sum += b.weights[i];
    assert_true(sum == 3 && b.weights[b.n - 1] == 1 && b.weights[b.n - 3] == 1 && b.weights[0] == 0); // Z </s> \n
    assert_int_equal(b.targets[b.n - 3], mica_tokenizer_id(tokenizer, "Z", 1));
    mica_dataset_order_free(o);
    mica_dataset_free(d);
    put(PAIR("much longer than the context", "a") PAIR("also longer than the context", "b"));
    d = open_data(path, turns, &(mica_dataset_options){.mask = MICA_MASK_LAST, .max_length = 10});
    o = new_order(d, NULL);
    assert_false(mica_dataset_next(o, &b, &err));
    assert_int_equal(err.code, MICA_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "train.jsonl: none of 2 examples has anything to score: 2 masked wholly"));
    mica_dataset_position p = mica_dataset_order_position(o);
    assert_true(!p.epoch && !p.index && !b.n);
    mica_dataset_order_free(o);
    mica_dataset_free(d);
}

// ---- refused memory -----------------------------------------------------------------------------------------
// The tokenizer is one of its own: it keeps memory for the next call, and drops it when it runs out.
static bool whole_way(mica_error *err) {
    mica_text_batch b;
    mica_dataset_order *o = NULL;
    mica_tokenizer *t = mica_tokenizer_load(GOLDEN "models/llama-f32", err);
    mica_dataset *d = t ? mica_dataset_open(path, t, turns, &(mica_dataset_options){.mask = MICA_MASK_ASSISTANT}, err) : NULL;
    bool ok = d && (o = mica_dataset_order_new(d, &(mica_dataset_order_options){.seed = 1}, err)) && mica_dataset_next(o, &b, err) && mica_dataset_next(o, &b, err);
    mica_dataset_order_free(o);
    mica_dataset_free(d);
    mica_tokenizer_free(t);
    return ok;
}

static void refused_memory(void **state) {
    (void)state;
    put("{\"messages\":[{\"role\":\"user\",\"content\":\"the fox\"},{\"role\":\"assistant\",\"content\":\"runs\"}],\"tools\":[{\"name\":\"x\"}]}\n" PAIR("a", "b"));
    mica_error err = {0};
    uint64_t live = mica_alloc_get_stats().live, calls = mica_alloc_get_stats().calls;
    assert_true(whole_way(&err));
    calls = mica_alloc_get_stats().calls - calls;
    for (uint64_t n = 1; n <= calls; n++) run_refused(whole_way, n, live);
}

// ---- main ---------------------------------------------------------------------------------------------------
static int set_up(void **state) {
    (void)state;
    mica_error err = {0};
    tokenizer = mica_tokenizer_load(GOLDEN "models/llama-f32", &err);
    turns = mica_template_load(GOLDEN "data/turns.jinja", NULL, &err);
    if (!tokenizer || !turns || !mkdtemp(folder)) return fprintf(stderr, "%s\n", err.msg), 1;
    snprintf(path, sizeof path, "%s/train.jsonl", folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    mica_remove_flat_dir(folder);
    mica_template_free(turns);
    mica_tokenizer_free(tokenizer);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_mlx_lm_does), cmocka_unit_test(turns_of_the_assistant), cmocka_unit_test(prompts_that_go_on_otherwise),
        cmocka_unit_test(control_tokens_stay_text),
        cmocka_unit_test(bad_files_are_refused), cmocka_unit_test(bad_lines_may_be_skipped), cmocka_unit_test(ends_of_lines),
        cmocka_unit_test(large_files), cmocka_unit_test(every_epoch_has_all), cmocka_unit_test(positions_restore),
        cmocka_unit_test(too_long_ones), cmocka_unit_test(packed_without_padding), cmocka_unit_test(masked_batches), cmocka_unit_test(refused_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
