// SPDX-License-Identifier: Apache-2.0
// The command without a model's weights: arguments, help, errors and their statuses, names of models, tokenize, info.
#include "spawn.h"
#include "base/base.h"
#include "base/file.h"
#include "base/json.h"
#include <errno.h>
#include <pty.h>
#include <sys/stat.h>

#define MODEL MICA_SOURCE_DIR "/tests/golden/models/llama-f32"
static const char *const commands[] = {"generate", "score", "tokenize", "convert", "info", "bench"};

/** stdout as one JSON value and nothing else; the tree lives in the arena. */
static const mica_json *json_of(mica_arena *arena, const spawned *s) {
    assert_done(s);
    mica_error err = {0};
    const mica_json *v = mica_json_parse(arena, s->text[0], s->size[0], "stdout", &err);
    if (!v) fail_msg("%s in: %s", err.msg, s->text[0]);
    return v;
}

static void help_everywhere(void **state) {
    (void)state;
    spawned all = RUN("help"), version = RUN("--version");
    assert_done(&all), assert_done(&version);
    assert_memory_equal(version.text[0], "mica ", 5);
    for (size_t i = 0; i < MICA_COUNT(commands); i++) {
        assert_non_null(strstr(all.text[0], commands[i]));
        spawned by_option = RUN(commands[i], "--help"), by_name = RUN("help", commands[i]);
        assert_done(&by_option), assert_done(&by_name);
        assert_string_equal(by_option.text[0], by_name.text[0]);
        assert_non_null(strstr(by_name.text[0], "Example\n  mica "));
        static const char *const shared[] = {"--json", "--quiet", "--threads N", "--device NAME", "--backend NAME"};
        for (size_t k = 0; k < MICA_COUNT(shared); k++) assert_non_null(strstr(by_name.text[0], shared[k]));
        assert_null(strchr(by_name.text[0], '\033')); // no terminal, no colours
        spawn_free(&by_option), spawn_free(&by_name);
    }
    spawn_free(&all), spawn_free(&version);
}

/** What `mica help` shows on a terminal; skips the test where the system gives none (a chroot without /dev/pts). */
static void help_on_a_terminal(const char *env, char *out, size_t size) {
    int terminal;
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
    if (pid < 0) {
        print_message("skipped: no pseudo-terminal: %s\n", strerror(errno));
        skip();
    }
    if (pid == 0) {
        setenv("TERM", "xterm", 1);
        unsetenv("NO_COLOR");
        if (env) putenv((char *)(uintptr_t)env);
        execl(MICA_BINARY_DIR "/mica", "mica", "help", (char *)NULL);
        _exit(127);
    }
    size_t n = 0;
    for (ssize_t k; n + 1 < size && (k = read(terminal, out + n, size - n - 1)) > 0;) n += (size_t)k;
    out[n] = 0;
    close(terminal);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void colours_only_where_wanted(void **state) {
    (void)state;
    char text[1 << 13];
    help_on_a_terminal(NULL, text, sizeof text);
    assert_non_null(strchr(text, '\033'));
    help_on_a_terminal("NO_COLOR=1", text, sizeof text);
    assert_non_null(strstr(text, "Usage"));
    assert_null(strchr(text, '\033'));
    help_on_a_terminal("TERM=dumb", text, sizeof text);
    assert_null(strchr(text, '\033'));
}

static void no_arguments(void **state) {
    (void)state;
    spawned s = RUN(NULL);
    assert_int_equal(s.status, 2);
    assert_string_equal(s.text[0], "");
    assert_non_null(strstr(s.text[1], "Usage"));
    spawn_free(&s);
}

static void wrong_usage_names_the_nearest(void **state) {
    (void)state;
    assert_failed(RUN("genrate", "x"), 2, "\"generate\"");
    assert_failed(RUN("tokenise", "x"), 2, "\"tokenize\"");
    assert_failed(RUN("help", "scor"), 2, "\"score\"");
    assert_failed(RUN("--versoin"), 2, "--version");
    assert_failed(RUN("generate", "x", "--max-token", "3"), 2, "--max-tokens");
    assert_failed(RUN("generate", "x", "--temperature", "3"), 2, "--temp");
    assert_failed(RUN("score", "x", "--topk=3"), 2, "--top");
    assert_failed(RUN("bench", "x", "-q"), 2, "--");
}

static void wrong_values(void **state) {
    (void)state;
    assert_failed(RUN("generate", "x", "-n"), 2, "-n needs a value");
    assert_failed(RUN("generate", "x", "-n", "0"), 2, "1 or more");
    assert_failed(RUN("generate", "x", "-n5x"), 2, "5x");
    assert_failed(RUN("generate", "x", "--top-p", "1.5"), 2, "from 0 to 1");
    assert_failed(RUN("generate", "x", "--temp", "nan"), 2, "--temp");
    assert_failed(RUN("generate", "x", "--ids", "1,,2"), 2, "--ids");
    assert_failed(RUN("generate", "x", "--ids", "1,2,"), 2, "--ids");
    assert_failed(RUN("generate", "x", "--ids", "99999999999"), 2, "--ids");
    assert_failed(RUN("generate", "x", "--logit-bias", "a=1"), 2, "--logit-bias");
    assert_failed(RUN("generate", "x", "--logprobs", "2"), 2, "--json");
    assert_failed(RUN("generate", "x", "text", "--ids", "1"), 2, "--ids");
    assert_failed(RUN("generate", "x", "--json=1"), 2, "takes no value");
    assert_failed(RUN("generate", "x", "y", "z"), 2, "too many");
    assert_failed(RUN("generate"), 2, "too few");
    assert_failed(RUN("bench"), 2, "--random");
    assert_failed(RUN("tokenize", "x", "y", "--jsonl"), 2, "--jsonl");
}

static void options_in_any_place(void **state) {
    (void)state;
    spawned a = RUN("tokenize", MODEL, "abc", "--json"), b = RUN("tokenize", "--json", MODEL, "--", "abc"),
            dash = RUN("tokenize", "--json", MODEL, "--", "-abc");
    assert_done(&a), assert_done(&b), assert_done(&dash);
    assert_string_equal(a.text[0], b.text[0]);
    assert_string_not_equal(a.text[0], dash.text[0]);
    spawn_free(&a), spawn_free(&b), spawn_free(&dash);
}

static void unknown_models_and_devices(void **state) {
    (void)state;
    assert_failed(RUN("generate", "no-such-model", "x"), 1, "no-such-model");
    assert_failed(RUN("generate", "/no/such/model", "x"), 1, "/no/such/model");
    assert_failed(RUN("info", ""), 1, "empty");
    assert_failed(RUN("info", MICA_SOURCE_DIR "/tests"), 1, "config.json");
    assert_failed(RUN("generate", MODEL, "x", "--device", "gpu"), 1, "gpu");
    assert_failed(RUN("generate", MODEL, "x", "--backend", "metal"), 1, "metal");
    assert_failed(RUN("info", "--device", "tpu"), 1, "tpu");
    assert_failed(RUN("train", MODEL, "--data", "x", "--adapter", "y", "--backend", "mlx_lm"), 2, "--backend mlx_lm");
    assert_failed(RUN("convert", MODEL, "/nowhere/x", "--device", "gpu"), 2, "--device gpu");
}

static void a_message_stays_on_one_line(void **state) {
    (void)state;
    assert_failed(RUN("info", "no\nsuch\tmodel"), 1, "no?such?model");
}

static void models_of_the_cache(void **state) {
    (void)state;
    char root[] = "/tmp/mica-cli-XXXXXX", env[64], link[64];
    assert_non_null(mkdtemp(root));
    snprintf(link, sizeof link, "%s/models", root);
    assert_int_equal(mkdir(link, 0700), 0);
    snprintf(link, sizeof link, "%s/models/tiny", root);
    assert_int_equal(symlink(MODEL, link), 0);
    snprintf(env, sizeof env, "MICA_CACHE=%s", root);
    spawned s = spawn_start((const char *const[]){"info", "tiny", "--json", NULL}, env);
    spawn_finish(&s, "", 0);
    assert_done(&s);
    assert_non_null(strstr(s.text[0], link));
    spawn_free(&s);
    unlink(link);
    *strrchr(link, '/') = 0;
    rmdir(link), rmdir(root);
}

// ---- info ------------------------------------------------------------------------------------------------
static void info_of_a_model(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("info", MODEL, "--json", "--context", "100"), people = RUN("info", MODEL);
    const mica_json *v = json_of(&arena, &s);
    assert_string_equal(mica_json_get(v, "architecture")->string, "llama");
    static const struct { const char *key; int64_t value; } want[] = {
        {"vocab_size", 291}, {"num_layers", 2}, {"hidden_size", 48}, {"intermediate_size", 60}, {"num_heads", 6}, {"num_kv_heads", 2},
        {"head_dim", 8}, {"quant_bits", 0}, {"quant_group", 0}, {"context_length", 512}, {"context", 100}};
    for (size_t i = 0; i < MICA_COUNT(want); i++) assert_int_equal(mica_json_get(v, want[i].key)->integer, want[i].value);
    static const char *const positive[] = {"parameters", "bytes_on_disk", "weight_bytes", "kv_bytes_per_token", "memory_bytes"};
    for (size_t i = 0; i < MICA_COUNT(positive); i++) assert_true(mica_json_get(v, positive[i])->integer > 0);
    assert_int_equal(mica_json_get(v, "has_chat_template")->type, MICA_JSON_BOOL);
    assert_done(&people);
    assert_non_null(strstr(people.text[0], "llama"));
    spawn_free(&s), spawn_free(&people);
    mica_arena_free(&arena);
}

static void info_of_the_machine(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("info", "--json");
    const mica_json *v = json_of(&arena, &s), *device = mica_json_at(mica_json_get(v, "devices"), 0);
    assert_string_equal(mica_json_at(mica_json_get(v, "backends"), 0)->string, "cpu");
    assert_string_equal(mica_json_get(device, "name")->string, "cpu");
    assert_string_equal(mica_json_at(mica_json_get(device, "levels"), 0)->string, "ref");
    spawn_free(&s);
    s = spawn_start((const char *const[]){"info", "--json", NULL}, "MICA_CPU=ref");
    spawn_finish(&s, "", 0);
    device = mica_json_at(mica_json_get(json_of(&arena, &s), "devices"), 0);
    assert_string_equal(mica_json_get(device, "level")->string, "ref");
    spawn_free(&s);
    mica_arena_free(&arena);
}

static void unknown_level(void **state) {
    (void)state;
    spawned s = spawn_start((const char *const[]){"info", NULL}, "MICA_CPU=sse9");
    spawn_finish(&s, "", 0);
    assert_failed(s, 1, "sse9");
}

// ---- tokenize --------------------------------------------------------------------------------------------
static const char odd_text[] = "Caf\xC3\xA9 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB\t\r\n\n  \xE2\x80\xAE\"\\ end";

static void tokenize_and_back(void **state) {
    (void)state;
    spawned ids = RUN_INPUT(odd_text, strlen(odd_text), "tokenize", MODEL, "--no-special-tokens");
    assert_done(&ids);
    spawned text = RUN_INPUT(ids.text[0], ids.size[0], "tokenize", MODEL, "--decode");
    assert_done(&text);
    assert_int_equal(text.size[0], strlen(odd_text) + 1); // and a newline
    assert_memory_equal(text.text[0], odd_text, strlen(odd_text));
    spawned by_argument = RUN("tokenize", MODEL, odd_text, "--no-special-tokens");
    assert_string_equal(by_argument.text[0], ids.text[0]);
    spawn_free(&ids), spawn_free(&text), spawn_free(&by_argument);
}

static void tokenize_shapes(void **state) {
    (void)state;
    mica_arena arena = {0};
    spawned s = RUN("tokenize", MODEL, "ab", "--json", "--no-special-tokens"), pieces = RUN("tokenize", MODEL, "ab", "--pieces");
    const mica_json *v = json_of(&arena, &s), *ids = mica_json_get(v, "ids"), *tokens = mica_json_get(v, "tokens");
    assert_int_equal(ids->type, MICA_JSON_ARRAY);
    assert_true(ids->length > 0);
    assert_int_equal(tokens->length, ids->length);
    assert_int_equal(tokens->child->type, MICA_JSON_STRING);
    assert_done(&pieces);
    assert_non_null(strstr(pieces.text[0], "\t\""));
    char list[100];
    snprintf(list, sizeof list, "[%d, %d]", (int)ids->child->integer, (int)ids->child->integer);
    spawned text = RUN("tokenize", MODEL, list, "--decode", "--json");
    assert_int_equal(mica_json_get(json_of(&arena, &text), "text")->type, MICA_JSON_STRING);
    spawn_free(&s), spawn_free(&pieces), spawn_free(&text);
    mica_arena_free(&arena);
}

/** Lines of JSON strings to lines of ids to the same strings, over a pipe in both directions. */
static void tokenize_lines(void **state) {
    (void)state;
    mica_buf input = {0};
    mica_json_writer w = {.out = &input};
    for (int i = 0; i < 20000; i++) {
        mica_json_put_string(&w, odd_text, (size_t)i % sizeof odd_text < 3 ? 0 : 4); // "" and "Caf"
        mica_buf_putc(&input, '\n');
        w.need_comma = false;
    }
    spawned ids = RUN_INPUT(input.data, input.len, "tokenize", MODEL, "--jsonl", "--no-special-tokens");
    assert_done(&ids);
    spawned text = RUN_INPUT(ids.text[0], ids.size[0], "tokenize", MODEL, "--jsonl", "--decode");
    assert_done(&text);
    assert_true(text.size[0] > 20000 * 3);
    size_t lines = 0;
    for (const char *c = text.text[0]; *c; c++) lines += *c == '\n';
    assert_int_equal(lines, 20000);
    spawn_free(&ids), spawn_free(&text);
    mica_buf_free(&input);
}

static void tokenize_escapes(void **state) {
    (void)state;
    static const char plain[] = "\"\xF0\x9F\x98\x80/\xC3\xA9\"\n", escaped[] = " \"\\ud83d\\ude00\\/\\u00E9\" \n";
    spawned a = RUN_INPUT(plain, strlen(plain), "tokenize", MODEL, "--jsonl"), b = RUN_INPUT(escaped, strlen(escaped), "tokenize", MODEL, "--jsonl");
    assert_done(&a), assert_done(&b);
    assert_string_equal(a.text[0], b.text[0]);
    spawn_free(&a), spawn_free(&b);
}

static void tokenize_bad_lines(void **state) {
    (void)state;
    static const struct { const char *line, *why; bool decode; } bad[] = {
        {"abc\n", "line 1: expected a JSON string", false}, {"\"abc\n", "line 1", false}, {"\"a\" 1\n", "line 1", false},
        {"\"\\x\"\n", "line 1: bad escape", false},         {"\"\\u12\"\n", "line 1", false}, {"{}\n", "line 1", true},
        {"[1,\"a\"]\n", "line 1", true},                    {"[1,2\n", "line 1", true},
    };
    for (size_t i = 0; i < MICA_COUNT(bad); i++)
        assert_failed(RUN_INPUT(bad[i].line, strlen(bad[i].line), "tokenize", MODEL, "--jsonl", bad[i].decode ? "--decode" : NULL), 1, bad[i].why);
    assert_failed(RUN("tokenize", MODEL, "--decode", "1 x"), 1, "token ids");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_everywhere),
        cmocka_unit_test(colours_only_where_wanted),
        cmocka_unit_test(no_arguments),
        cmocka_unit_test(wrong_usage_names_the_nearest),
        cmocka_unit_test(wrong_values),
        cmocka_unit_test(options_in_any_place),
        cmocka_unit_test(unknown_models_and_devices),
        cmocka_unit_test(a_message_stays_on_one_line),
        cmocka_unit_test(models_of_the_cache),
        cmocka_unit_test(info_of_a_model),
        cmocka_unit_test(info_of_the_machine),
        cmocka_unit_test(unknown_level),
        cmocka_unit_test(tokenize_and_back),
        cmocka_unit_test(tokenize_shapes),
        cmocka_unit_test(tokenize_lines),
        cmocka_unit_test(tokenize_escapes),
        cmocka_unit_test(tokenize_bad_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
