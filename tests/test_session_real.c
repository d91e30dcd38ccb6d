// SPDX-License-Identifier: Apache-2.0
// labels: slow
// A chat of some 2000 tokens with real checkpoints, where they are at hand ($MICA_TEST_MODELS or the cache's models), longer than Gemma's window: the second
// turn computes only what is new and gives what a fresh run gives; the session, saved and restored by another process, goes on to the same bits.
#include "mica/chat.h"
#include "mica/session.h"
#include "real_testing.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { TOKENS = 48, LONG = 8000, MOST = 4000 }; // LONG: bytes of the first message

static const char *const names[] = {"gemma3-270m-4bit", "gemma3-270m-bf16", "smollm2-135m-4bit", "qwen2.5-coder-0.5b-4bit"};

static mica_model *load(const char *path) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.prefix_cache = -1, .context = 4096}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

// ---- answers ----------------------------------------------------------------------------------------------
typedef struct answer {
    int32_t ids[TOKENS];
    float logprobs[TOKENS], margins[TOKENS]; // margin: how much likelier it was than the next
    size_t count;
    char text[TOKENS * 32];
    int32_t prompt[MOST];
    size_t prompt_count;
    mica_metrics metrics;
} answer;

static answer ask(mica_model *m, mica_session *session, const mica_prompt *prompt) {
    mica_error err = {0};
    answer a = {0};
    mica_generate_options o = {.max_tokens = TOKENS, .ignore_eos = true, .logprobs = 2};
    mica_stream *s = session ? mica_session_start(session, prompt, &o, &err) : mica_start(m, prompt, &o, &err);
    if (!s) fail_msg("%s", err.msg);
    for (mica_token t; mica_stream_next(s, &t);) {
        if (t.id >= 0) a.ids[a.count] = t.id, a.logprobs[a.count] = t.logprob, a.margins[a.count++] = t.top[0].logprob - t.top[1].logprob;
        strncat(a.text, t.text, sizeof a.text - strlen(a.text) - 1);
    }
    if (mica_stream_error(s, &err)) fail_msg("%s", err.msg);
    a.metrics = mica_stream_metrics(s);
    const int32_t *ids = mica_stream_prompt(s, &a.prompt_count);
    assert_true(a.prompt_count <= MOST);
    memcpy(a.prompt, ids, a.prompt_count * sizeof *ids);
    mica_stream_free(s);
    return a;
}

// A session's tokens were computed in other chunks than a fresh run's: up to rounding. So where two tokens are as good as equally likely the answers may
// part; what follows is another text then.
static size_t same_up_to_ties(const char *name, const answer *a, const answer *b) {
    size_t n = 0;
    while (n < a->count && n < b->count && a->ids[n] == b->ids[n]) {
        if (fabsf(a->logprobs[n] - b->logprobs[n]) > 0.15f) fail_msg("%s: token %zu: %g and %g", name, n, (double)a->logprobs[n], (double)b->logprobs[n]);
        n++;
    }
    if (n < a->count && !(a->margins[n] < 0.15f)) fail_msg("%s: token %zu is another one, by %g", name, n, (double)a->margins[n]);
    return n;
}

// ---- the chat -----------------------------------------------------------------------------------------------
static char *long_message(void) {
    mica_buf file = {0};
    mica_error err = {0};
    if (!mica_file_read(MICA_SOURCE_DIR "/docs/ARCHITECTURE.md", 1 << 20, &file, &err)) fail_msg("%s", err.msg);
    char *text = mica_strf("Summarise this text in one sentence.\n\n%.*s", LONG, file.data);
    mica_buf_free(&file);
    return text;
}

// The messages through the chat template, or as a transcript with models that have none.
static mica_prompt prompt_of(mica_model *m, const mica_chat *chat, char **transcript) {
    *transcript = NULL;
    if (mica_model_info(m)->has_chat_template) return (mica_prompt){.chat = chat};
    *transcript = mica_strdup("");
    for (size_t i = 0; i < chat->count; i++) {
        char *longer = mica_strf("%s%s: %s\n", *transcript, chat->messages[i].role, chat->messages[i].content);
        mica_free(*transcript);
        *transcript = longer;
    }
    char *whole = mica_strf("%sassistant:", *transcript);
    mica_free(*transcript);
    *transcript = whole;
    return (mica_prompt){.text = whole, .length = strlen(whole)};
}

static answer turn(mica_model *m, mica_session *s, const mica_chat *chat) {
    char *transcript;
    mica_prompt prompt = prompt_of(m, chat, &transcript);
    answer a = ask(m, s, &prompt);
    mica_free(transcript);
    return a;
}

// The tokens that a session holds of the second turn's prompt: the first prompt and its answer, as far as its text is read as the tokens that it was.
static size_t expected(const answer *first, const answer *second) {
    size_t n = 0, held = first->prompt_count + first->count - 1; // the last token was not needed
    while (n < held && n < second->prompt_count &&
           second->prompt[n] == (n < first->prompt_count ? first->prompt[n] : first->ids[n - first->prompt_count])) n++;
    return n;
}

// The next turn in tokens, so that another process asks the same: what is held and one more question.
static answer go_on(mica_model *m, mica_session *s) {
    mica_error err = {0};
    mica_ids ids = {0};
    size_t n;
    const int32_t *held = mica_session_ids(s, &n);
    static const char more[] = "\nAnd what is the most important of all that?\n";
    int32_t *copy = malloc(n * sizeof *copy);
    memcpy(copy, held, n * sizeof *copy);
    if (!mica_tokenizer_encode(mica_model_tokenizer(m), more, sizeof more - 1, &(mica_encode_options){.no_special_tokens = true}, &ids, &err)) fail_msg("%s", err.msg);
    copy = realloc(copy, (n + ids.len) * sizeof *copy);
    memcpy(copy + n, ids.data, ids.len * sizeof *copy);
    answer a = ask(m, s, &(mica_prompt){.ids = copy, .count = n + ids.len});
    assert_int_equal(a.metrics.cached_tokens, n);
    mica_ids_free(&ids);
    free(copy);
    return a;
}

static void print_bits(FILE *f, const answer *a) {
    for (size_t i = 0; i < a->count; i++) fprintf(f, "%d %a\n", (int)a->ids[i], (double)a->logprobs[i]);
}

static int restore_and_print(const char *model, const char *file) {
    mica_error err = {0};
    mica_model *m = load(model);
    mica_session *s = mica_session_load(m, file, &err);
    if (!s) return fprintf(stderr, "%s\n", err.msg), 1;
    answer a = go_on(m, s);
    print_bits(stdout, &a);
    mica_session_free(s);
    mica_model_free(m);
    return 0;
}

static void check_restored(const char *path, mica_model *m, mica_session *s) {
    char self[500] = "", got[8000] = "", want[8000] = "";
    char *file = mica_strf("%s/session-real-%d", MICA_BINARY_DIR, (int)getpid());
    mica_error err = {0};
    if (!mica_session_save(s, file, &err)) fail_msg("%s", err.msg);
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    char *command = mica_strf("'%s' restore '%s' '%s'", self, path, file);
    FILE *child = popen(command, "r");
    assert_non_null(child);
    got[fread(got, 1, sizeof got - 1, child)] = 0;
    assert_int_equal(pclose(child), 0);
    answer a = go_on(m, s);
    FILE *f = fmemopen(want, sizeof want, "w");
    print_bits(f, &a);
    fclose(f);
    assert_string_equal(got, want);
    unlink(file);
    mica_free(command), mica_free(file);
}

static void check_model(const char *path, const char *name) {
    mica_error err = {0};
    mica_model *m = load(path);
    mica_session *s = mica_session_new(m, &err);
    char *text = long_message();
    mica_message messages[] = {{.role = "user", .content = text}, {.role = "assistant"}, {.role = "user", .content = "Now in five words."}};
    mica_chat first = {.messages = messages, .count = 1}, second = {.messages = messages, .count = 3};
    answer a = turn(m, s, &first);
    messages[1].content = a.text;
    answer b = turn(m, s, &second), fresh = turn(m, NULL, &second);
    size_t cached = (size_t)b.metrics.cached_tokens, total = b.prompt_count, held = expected(&a, &b);
    // Where the text is not read as the tokens that it was, a model with windows goes back to the end of the first prompt.
    if (cached != held && cached != a.prompt_count) fail_msg("%s: %zu tokens were there, not %zu", name, cached, held);
    assert_int_equal(fresh.metrics.cached_tokens, 0);
    assert_true(total > 1500 && total - cached < 100);
    size_t same = same_up_to_ties(name, &b, &fresh);
    check_restored(path, m, s);
    print_message("  %-24s second turn: %zu tokens, %zu computed; first token after %.3f s, fresh %.3f s; %zu of %d tokens equal\n", name, total,
                  total - cached, b.metrics.time_to_first_token_seconds, fresh.metrics.time_to_first_token_seconds, same, TOKENS);
    mica_free(text);
    mica_session_free(s);
    mica_model_free(m);
}

static void a_long_chat_goes_on(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(names); i++) {
        char *path = find_model(names[i]);
        if (path) check_model(path, names[i]);
        else print_message("  %-24s skipped: the model is not on this machine\n", names[i]);
        mica_free(path);
    }
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "restore") == 0) return restore_and_print(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_long_chat_goes_on)};
    return cmocka_run_group_tests_name("session_real", tests, NULL, NULL);
}
