// SPDX-License-Identifier: Apache-2.0
// `mica chat`: one answer, a chat over a pipe with its commands, and on a terminal, where Ctrl-C stops an answer and not the chat.
#include "spawn.h"
#include "base/base.h"
#include "base/json.h"
#include <pty.h>

#define MODEL MICA_BINARY_DIR "/chat-model"

static void one_answer(void **state) {
    (void)state;
    mica_arena arena = {0};
    mica_error err = {0};
    spawned s = RUN("chat", MODEL, "hello", "--system", "be brief", "--json", "-n", "5", "--ignore-eos"),
            from_stdin = RUN_INPUT("hello", 5, "chat", MODEL, "-", "--system", "be brief", "--json", "-n", "5", "--ignore-eos");
    assert_done(&s), assert_done(&from_stdin);
    const mica_json *v = mica_json_parse(&arena, s.text[0], s.size[0], "stdout", &err), *w = mica_json_parse(&arena, from_stdin.text[0], from_stdin.size[0], "stdout", &err);
    assert_true(v && w);
    assert_string_equal(mica_json_get(v, "rendered")->string, "<s>system:be brief</s><s>user:hello</s><s>assistant:");
    assert_int_equal(mica_json_get(v, "ids")->length, 5);
    assert_string_equal(mica_json_get(v, "finish_reason")->string, "length");
    assert_string_equal(mica_json_get(v, "text")->string, mica_json_get(w, "text")->string);
    spawned text = RUN("chat", MODEL, "hello", "--system", "be brief", "-n", "5", "--ignore-eos");
    assert_done(&text);
    assert_memory_equal(text.text[0], mica_json_get(v, "text")->string, mica_json_get(v, "text")->length);
    spawn_free(&s), spawn_free(&from_stdin), spawn_free(&text);
    mica_arena_free(&arena);
}

static void refused(void **state) {
    (void)state;
    assert_failed(RUN("chat", MODEL, "--json"), 2, "MESSAGE");
    assert_failed(RUN("chat", MODEL, "x", "--ids", "1"), 2, "--ids");
    assert_failed(RUN("chat", MODEL, "x", "--vars", "[1]"), 1, "vars");
    assert_failed(RUN("chat", MODEL, "x", "--tools", "/nowhere/t.json"), 1, "/nowhere/t.json");
    assert_failed(RUN("chat", MICA_SOURCE_DIR "/tests/golden/models/llama-f32", "x"), 1, "no chat template");
}

static void chat_over_a_pipe(void **state) {
    (void)state;
    char path[] = "/tmp/mica-cli-chat-XXXXXX", input[600];
    close(mkstemp(path));
    snprintf(input, sizeof input, "/system be \"brief\"\nhello \\\nthere\n/save %s\n/strange\n/reset\n/load %s\n/save %s\n/load /nowhere/x\n/quit\nnever\n", path, path, path);
    spawned s = RUN_INPUT(input, strlen(input), "chat", MODEL, "-n", "4", "--ignore-eos");
    assert_done(&s);
    assert_non_null(strstr(s.text[1], "unknown command /strange"));
    assert_non_null(strstr(s.text[1], "/nowhere/x"));
    mica_arena arena = {0};
    char saved[2000] = "";
    FILE *f = fopen(path, "r");
    size_t n = fread(saved, 1, sizeof saved - 1, f);
    fclose(f);
    const mica_json *v = mica_json_parse(&arena, saved, n, path, NULL);
    if (!v || v->length != 3) fail_msg("saved: %s", saved);
    assert_string_equal(mica_json_get(mica_json_at(v, 0), "content")->string, "be \"brief\"");
    assert_string_equal(mica_json_get(mica_json_at(v, 1), "content")->string, "hello \nthere");
    assert_string_equal(mica_json_get(mica_json_at(v, 2), "role")->string, "assistant");
    spawned again = RUN("chat", MODEL, "more", "--messages", path, "--json", "-n", "1");
    assert_done(&again);
    v = mica_json_parse(&arena, again.text[0], again.size[0], "stdout", NULL);
    assert_non_null(strstr(mica_json_get(v, "rendered")->string, "<s>user:hello \nthere</s><s>assistant:"));
    spawn_free(&s), spawn_free(&again);
    mica_arena_free(&arena);
    unlink(path);
}

// ---- on a terminal --------------------------------------------------------------------------------------
static char screen[1 << 16];
static size_t shown;

static void wait_for(int fd, const char *what) {
    for (struct pollfd p = {fd, POLLIN, 0}; !strstr(screen, what);) {
        if (poll(&p, 1, SPAWN_SECONDS * 1000) <= 0) fail_msg("waited for \"%s\", got: %s", what, screen);
        ssize_t n = read(fd, screen + shown, sizeof screen - 1 - shown);
        if (n <= 0) fail_msg("ended before \"%s\": %s", what, screen);
        screen[shown += (size_t)n] = 0;
    }
}

static void type(int fd, const char *text) {
    shown = 0, screen[0] = 0;
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void chat_on_a_terminal(void **state) {
    (void)state;
    char cache[] = "/tmp/mica-cli-chat-XXXXXX", history[100];
    assert_non_null(mkdtemp(cache));
    int fd;
    pid_t pid = forkpty(&fd, NULL, NULL, NULL);
    if (pid == 0) {
        setenv("MICA_CACHE", cache, 1);
        setenv("TERM", "xterm", 1);
        execl(MICA_BINARY_DIR "/mica", "mica", "chat", MODEL, "-n", "100000", "--context", "200000", "--ignore-eos", (char *)NULL);
        _exit(127);
    }
    wait_for(fd, "> ");
    type(fd, "hello\r");
    wait_for(fd, "hello\r\n");
    usleep(300000); // into the answer
    type(fd, "\003");
    type(fd, "/help\r"); // the answer may hold anything, a prompt too: this list it does not
    wait_for(fd, "goes on with the next\r\n> ");
    type(fd, "half a line\003");
    wait_for(fd, "\n> ");
    type(fd, "/quit\r");
    int status;
    for (char c[256]; read(fd, c, sizeof c) > 0;) {}
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(fd);
    snprintf(history, sizeof history, "%s/chat-history", cache);
    unlink(history); // there if the command was built with line editing
    assert_int_equal(rmdir(cache), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_answer), cmocka_unit_test(refused), cmocka_unit_test(chat_over_a_pipe), cmocka_unit_test(chat_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
