// SPDX-License-Identifier: Apache-2.0
// `mica template`: one message, a conversation from stdin, lines of JSON with bad ones among them, where templates come from.
#include "spawn.h"
#include "base/base.h"
#include "base/file.h"
#include <sys/stat.h>

#define TEMPLATES MICA_SOURCE_DIR "/tests/golden/templates/own"
#define STRICT TEMPLATES "/strict.jinja"

static void check_stdout(spawned s, const char *want) {
    assert_done(&s);
    if (s.size[0] != strlen(want) || memcmp(s.text[0], want, s.size[0])) fail_msg("got  %.*s\nwant %s", (int)s.size[0], s.text[0], want);
    spawn_free(&s);
}

static void one_conversation(void **state) {
    (void)state;
    static const char json[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Q\"}],\"vars\":{\"bos_token\":\"<s>\"}}";
    check_stdout(RUN("template", TEMPLATES "/chatml.jinja", "Hi \"there\""), "<|im_start|>user\nHi \"there\"<|im_end|>\n<|im_start|>assistant\n");
    check_stdout(RUN("template", TEMPLATES "/chatml.jinja", "Hi", "--json"), "{\"text\":\"<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n\"}\n");
    check_stdout(RUN_INPUT(json, strlen(json), "template", STRICT), "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST]\n");
    spawned s = RUN("template", STRICT, "--source");
    assert_done(&s);
    assert_non_null(strstr(s.text[0], "raise_exception('Roles must take turns"));
    spawn_free(&s);
}

static void lines_of_conversations(void **state) {
    (void)state;
    static const char input[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"}],\"vars\":{\"bos_token\":\"\"}}\n"
                                "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}\n"
                                "{\"messages\":[]}\nnonsense\n"
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9\"}],\"bos_token\":\"\"}\n";
    spawned s = RUN_INPUT(input, strlen(input), "template", STRICT, "--jsonl");
    assert_done(&s);
    const char *lines[5] = {s.text[0]};
    for (size_t i = 1; i < 5; i++) assert_non_null(lines[i] = strchr(lines[i - 1], '\n') + 1);
    assert_int_equal(strncmp(lines[0], "\"[INST] a\\nb [/INST]\\n\"\n", 24), 0);
    assert_non_null(strstr(lines[1], "line 10: Roles must take turns, got assistant at 0\"}"));
    assert_int_equal(strncmp(lines[2], "{\"error\":\"", 10), 0);
    assert_int_equal(strncmp(lines[3], "{\"error\":\"", 10), 0);
    assert_string_equal(lines[4], "\"[INST] \xC3\xA9 [/INST]\\n\"\n");
    spawn_free(&s);
}

static void write_text(const char *dir, const char *name, const char *text) {
    char *path = mica_path_join(dir, name);
    FILE *f = fopen(path, "w");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
    mica_free(path);
}

static void models_and_options(void **state) {
    (void)state;
    static const char as_given[] = "{\"messages\":[],\"x\":null}";
    char dir[] = "/tmp/mica-cli-template-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_failed(RUN("template", dir, "Hi"), 1, "no chat template");
    write_text(dir, "tokenizer_config.json", "{\"bos_token\":\"<B>\",\"chat_template\":[{\"name\":\"default\",\"template\":\"{{ bos_token }}{{ messages|length }}{{ tools }}{{ x }}\"},"
               "{\"name\":\"date\",\"template\":\"{{ strftime_now('%Y-%m-%d %H:%M') }}\"}]}");
    check_stdout(RUN("template", dir, "Hi"), "<B>1None");
    check_stdout(RUN("template", dir, "Hi", "--name", "date", "--now", "86400"), "1970-01-02 00:00");
    check_stdout(RUN_INPUT(as_given, strlen(as_given), "template", dir, "--as-given"), "<B>0None");
    assert_failed(RUN("template", dir, "Hi", "--name", "rag"), 1, "\"rag\"");
    assert_failed(RUN("template", dir, "Hi", "--jsonl"), 2, "--jsonl");
    assert_failed(RUN("template", "--jsonl", "--json", dir), 2, "--json");
    write_text(dir, "chat_template.jinja", "a\n{% if %}");
    assert_failed(RUN("template", dir, "Hi"), 1, "line 2: Expected an expression");
    mica_remove_flat_dir(dir);
    assert_failed(RUN("template", dir, "Hi"), 1, "no such model");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_conversation), cmocka_unit_test(lines_of_conversations), cmocka_unit_test(models_and_options)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
