// SPDX-License-Identifier: Apache-2.0
// `mica batch` and `mica classify`: lines in and out, wrong ones among them, work taken up again, slow writers, Ctrl-C.
#include "spawn.h"
#include "base/base.h"
#include "base/json.h"
#include <math.h>

#define MODEL MICA_SOURCE_DIR "/tests/golden/models/llama-f32"
#define ADAPTER MICA_SOURCE_DIR "/tests/golden/adapters/mlx-lora"

static spawned run(const char *input, const char *const *words) { return spawn_run(input, strlen(input), words); }
#define BATCH(input, ...) run(input, (const char *const[]){"batch", MODEL, "--ignore-eos", __VA_ARGS__, NULL})
#define CLASSIFY(input, ...) run(input, (const char *const[]){"classify", MODEL, __VA_ARGS__, NULL})

/** The lines of stdout as JSON, in their order. */
static size_t lines_of(mica_arena *arena, const char *text, const mica_json **out, size_t most) {
    size_t count = 0;
    for (const char *end; (end = strchr(text, '\n')); text = end + 1) {
        mica_error err = {0};
        assert_true(count < most);
        out[count] = mica_json_parse(arena, text, (size_t)(end - text), "stdout", &err);
        if (!out[count++]) fail_msg("%s in %s", err.msg, text);
    }
    assert_string_equal(text, "");
    return count;
}

static const mica_json *with_id(const mica_json *const *lines, size_t count, const char *id) {
    for (size_t i = 0; i < count; i++) {
        const mica_json *v = mica_json_get(lines[i], "id");
        char number[32] = "";
        if (v && v->type == MICA_JSON_INT) snprintf(number, sizeof number, "%d", (int)v->integer);
        if (v && strcmp(v->type == MICA_JSON_STRING ? v->string : number, id) == 0) return lines[i];
    }
    fail_msg("no line has the id %s", id);
    return NULL;
}

// ---- batch ----------------------------------------------------------------------------------------------------------
static void batch_answers_every_line(void **state) {
    (void)state;
    static const char input[] = "{\"id\":\"a\",\"prompt\":\"Hello\",\"max_tokens\":5}\n"
                                "{\"prompt\":[1,2,3],\"max_tokens\":3,\"seed\":1,\"temperature\":0.5,\"top_p\":0.9}\n"
                                "not json\n"
                                "\n"
                                "{\"id\":7,\"promt\":\"x\"}\n"
                                "{\"id\":8,\"prompt\":[99999999]}\n"
                                "{\"id\":9,\"prompt\":\"x\",\"max_tokens\":1.5}\r\n"
                                "{\"id\":10,\"prompt\":\"x\",\"messages\":[]}\n"
                                "{\"id\":\"\\u00e9\\n\",\"prompt\":\"x\",\"stop\":[\"zzz\"],\"stop_ids\":[3],\"max_tokens\":2}";
    mica_arena arena = {0};
    const mica_json *lines[16];
    spawned s = BATCH(input, "-n", "9");
    assert_int_equal(s.status, 0);
    size_t n = lines_of(&arena, s.text[0], lines, 16);
    assert_int_equal(n, 8);
    const mica_json *a = with_id(lines, n, "a"), *two = with_id(lines, n, "2");
    assert_int_equal(mica_json_get(a, "ids")->length, 5);
    assert_int_equal(mica_json_get(two, "ids")->length, 3);
    assert_string_equal(mica_json_get(a, "finish_reason")->string, "length");
    assert_int_equal(mica_json_get(mica_json_get(a, "metrics"), "generated_tokens")->integer, 5);
    assert_true(mica_json_get(with_id(lines, n, "\xC3\xA9\n"), "text") != NULL);
    assert_true(mica_json_get(with_id(lines, n, "3"), "error") != NULL);
    assert_non_null(strstr(mica_json_get(with_id(lines, n, "7"), "error")->string, "\"prompt\""));
    assert_non_null(strstr(mica_json_get(with_id(lines, n, "8"), "error")->string, "99999999"));
    assert_non_null(strstr(mica_json_get(with_id(lines, n, "9"), "error")->string, "max_tokens"));
    assert_non_null(strstr(mica_json_get(with_id(lines, n, "10"), "error")->string, "both"));
    assert_non_null(strstr(s.text[1], "mica: 3 answered, 5 failed"));
    // The same answer as generate gives.
    spawned one = run("", (const char *const[]){"generate", MODEL, "Hello", "-n", "5", "--ignore-eos", "--json", NULL});
    mica_error err = {0};
    const mica_json *v = mica_json_parse(&arena, one.text[0], one.size[0], "stdout", &err);
    assert_string_equal(mica_json_get(v, "text")->string, mica_json_get(a, "text")->string);
    mica_arena_free(&arena);
    spawn_free(&s), spawn_free(&one);
}

static void batch_takes_up_work_again(void **state) {
    (void)state;
    char path[] = "/tmp/mica-batch-XXXXXX";
    int fd = mkstemp(path);
    // One answer, one error, one cut-off answer, and the rest of a line.
    static const char before[] = "{\"id\":1,\"text\":\"old\",\"finish_reason\":\"stop\"}\n{\"id\":2,\"error\":\"no\"}\n"
                                 "{\"id\":\"c\",\"text\":\"o\",\"finish_reason\":\"cancelled\"}\n{\"id\":4,\"te";
    assert_int_equal(write(fd, before, sizeof before - 1), sizeof before - 1);
    static const char input[] = "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n{\"id\":\"c\",\"prompt\":\"c\"}\n{\"id\":4,\"prompt\":\"d\"}\n";
    for (int again = 0; again < 2; again++) {
        spawned s = BATCH(input, "-n", "2", "--output", path, "--rows", "2");
        assert_int_equal(s.status, 0);
        assert_string_equal(s.text[0], "");
        assert_non_null(strstr(s.text[1], again ? "0 answered, 0 failed, 4 skipped" : "3 answered, 0 failed, 1 skipped"));
        spawn_free(&s);
    }
    char text[8192] = "";
    mica_arena arena = {0};
    const mica_json *lines[16];
    assert_true(pread(fd, text, sizeof text - 1, 0) > 0);
    assert_int_equal(lines_of(&arena, text, lines, 16), 6);
    assert_string_equal(mica_json_get(lines[0], "text")->string, "old");
    mica_arena_free(&arena);
    close(fd), unlink(path);
    spawned bad = BATCH(input, "--output", "/nowhere/at/all");
    assert_failed(bad, 1, "/nowhere/at/all");
}

// What a slow writer has sent is answered before it sends more; Ctrl-C writes what has come so far.
static void batch_does_not_wait_for_stdin(void **state) {
    (void)state;
    spawned s = spawn_start((const char *const[]){"batch", MODEL, "--ignore-eos", "--context", "1000000", NULL}, NULL);
    static const char first[] = "{\"id\":1,\"prompt\":\"a\",\"max_tokens\":3}\n", second[] = "{\"id\":2,\"prompt\":\"a\",\"max_tokens\":1000000}\n";
    assert_int_equal(write(s.in, first, sizeof first - 1), sizeof first - 1);
    spawn_await(&s, 20);
    assert_non_null(strstr(s.text[0], "\"id\":1"));
    assert_int_equal(write(s.in, second, sizeof second - 1), sizeof second - 1);
    usleep(300000);
    kill(s.pid, SIGINT);
    spawn_finish(&s, "", 0);
    assert_int_equal(s.status, 130);
    assert_non_null(strstr(s.text[0], "\"finish_reason\":\"cancelled\""));
    spawn_free(&s);
    s = spawn_start((const char *const[]){"batch", MODEL, NULL}, NULL); // nothing was sent at all
    usleep(300000);
    kill(s.pid, SIGINT);
    spawn_finish(&s, "", 0);
    assert_int_equal(s.status, 130);
    spawn_free(&s);
}

static void batch_many_rows(void **state) {
    (void)state;
    mica_arena arena = {0};
    mica_buf input = {0};
    static const mica_json *lines[600];
    for (int i = 0; i < 600; i++) mica_buf_printf(&input, "{\"prompt\":[%d,%d],\"max_tokens\":%d}\n", i % 200, i % 7, 1 + i % 5);
    spawned s = BATCH(input.data, "--quiet");
    assert_int_equal(lines_of(&arena, s.text[0], lines, 600), 600);
    assert_string_equal(s.text[1], "");
    char id[16];
    for (int i = 0; i < 600; i++) {
        snprintf(id, sizeof id, "%d", i + 1);
        assert_int_equal(mica_json_get(with_id(lines, 600, id), "ids")->length, 1 + i % 5);
    }
    spawn_free(&s);
    mica_buf_free(&input);
    mica_arena_free(&arena);
}

// Log-probabilities and adapters as generate has them.
static void rows_are_as_generate_has_them(void **state) {
    (void)state;
    static const struct { const char *line; const char *const words[14]; } cases[] = {
        {"{\"prompt\":\"Hello\",\"max_tokens\":4,\"logprobs\":2}", {"generate", MODEL, "Hello", "--ignore-eos", "-n", "4", "--json", "--logprobs", "2"}},
        {"{\"prompt\":\"Hello\",\"max_tokens\":4,\"logprobs\":1,\"adapter\":\"mine\"}",
         {"generate", MODEL, "Hello", "--ignore-eos", "-n", "4", "--json", "--logprobs", "1", "--adapter", ADAPTER}},
        {"{\"prompt\":\"Hello\",\"max_tokens\":4}",
         {"generate", MODEL, "Hello", "--ignore-eos", "-n", "4", "--json", "--logprobs", "3", "--adapter", "x=" ADAPTER, "--use-adapter", "x"}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spawned many = BATCH(cases[i].line, "--logprobs", "3", "--adapter", "mine=" ADAPTER, "--use-adapter", i == 2 ? "mine" : "");
        spawned one = run("", cases[i].words);
        assert_int_equal(many.status, 0);
        assert_int_equal(one.status, 0);
        const char *a = strstr(many.text[0], "\"logprobs\""), *b = strstr(one.text[0], "\"logprobs\"");
        assert_true(a && b);
        size_t n = (size_t)(strstr(b, "\"metrics\"") - b);
        assert_true(n > 60 && strncmp(a, b, n) == 0);
        spawn_free(&many);
        spawn_free(&one);
    }
    spawned s = BATCH("{\"prompt\":\"x\",\"adapter\":\"other\"}", "--quiet");
    assert_non_null(strstr(s.text[0], "there is no adapter"));
    spawn_free(&s);
}

// ---- classify -------------------------------------------------------------------------------------------------------
#define PROMPT "--prompt", "Is this text a fact or fiction? Text: {text} Answer:"

static void classify_lines(void **state) {
    (void)state;
    spawned s = CLASSIFY("one\n\nthree", "--labels", "fact,fiction", PROMPT);
    assert_int_equal(s.status, 0);
    size_t lines = 0;
    for (const char *c = s.text[0]; *c; c++) lines += *c == '\n';
    assert_int_equal(lines, 3);
    assert_int_equal(strncmp(s.text[0], "fact", 4) && strncmp(s.text[0], "fiction", 7), 0);
    assert_non_null(strstr(s.text[1], "fiction"));
    assert_non_null(strstr(s.text[1], "3 texts"));
    spawn_free(&s);
    s = CLASSIFY("a\n", "--json", "--quiet");
    assert_non_null(strstr(s.text[0], "{\"token\":"));
    spawn_free(&s);
    s = CLASSIFY("1,\"quoted, \"\"text\"\"\",x\nshort\n\"open\n", "--csv", "2", "--labels", "a,b", "--json", PROMPT);
    assert_non_null(strstr(s.text[0], "{\"line\":2,\"error\":\"the line has too few fields\"}\n{\"line\":3,\"error\":\"a quoted"));
    spawn_free(&s);
}

static void classify_jsonl(void **state) {
    (void)state;
    mica_arena arena = {0};
    const mica_json *lines[8];
    spawned s = CLASSIFY("{\"id\":\"x\",\"text\":\"a\"}\n{\"text\":5}\n\nnope\n\"str\"\n{\"text\":\"cut\\u0000here\"}\n", "--labels", "fact,fiction", "--jsonl", "--calibrate",
                         PROMPT);
    assert_int_equal(s.status, 0);
    assert_int_equal(lines_of(&arena, s.text[0], lines, 8), 5);
    const mica_json *p = mica_json_get(lines[0], "probabilities");
    assert_string_equal(mica_json_get(lines[0], "id")->string, "x");
    assert_true(fabs(mica_json_get(p, "fact")->number + mica_json_get(p, "fiction")->number - 1) < 1e-9);
    assert_true(mica_json_get(mica_json_get(lines[0], "logprobs"), "fact")->number < 0);
    assert_int_equal(mica_json_get(lines[1], "line")->integer, 2);
    assert_non_null(mica_json_get(lines[2], "error"));
    assert_non_null(mica_json_get(lines[3], "label"));
    assert_non_null(strstr(mica_json_get(lines[4], "error")->string, "NUL"));
    mica_arena_free(&arena);
    spawn_free(&s);
}

static void classify_refuses(void **state) {
    (void)state;
    assert_failed(CLASSIFY("", "--labels", "a,,b"), 2, "a label is empty");
    assert_failed(CLASSIFY("", "--calibrate"), 2, "--labels");
    assert_failed(CLASSIFY("", "--prompt", "no place"), 2, "{text}");
    assert_failed(CLASSIFY("", "--jsonl", "--csv", "1"), 2, "--csv");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_answers_every_line),
        cmocka_unit_test(rows_are_as_generate_has_them), cmocka_unit_test(batch_takes_up_work_again), cmocka_unit_test(batch_does_not_wait_for_stdin),
        cmocka_unit_test(batch_many_rows), cmocka_unit_test(classify_lines), cmocka_unit_test(classify_jsonl), cmocka_unit_test(classify_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
