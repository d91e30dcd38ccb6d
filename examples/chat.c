// SPDX-License-Identifier: Apache-2.0
// A chat in a loop: each line of stdin is a message. The session keeps what was computed, so that each turn computes only what is new.
//     cc chat.c $(pkg-config --cflags --libs mica) && ./a.out FOLDER_OR_GGUF
#include <mica/chat.h>
#include <mica/session.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TURNS = 200, MOST_BYTES = 4096 };

static char *answer(mica_session *session, const mica_message *messages, size_t count) {
    mica_chat chat = {.messages = messages, .count = count};
    mica_error err = {0};
    mica_stream *stream = mica_session_start(session, &(mica_prompt){.chat = &chat}, &(mica_generate_options){.max_tokens = 100}, &err);
    char *text = calloc(1, 1);
    size_t size = 0;
    for (mica_token t; stream && mica_stream_next(stream, &t); size += t.length) {
        fwrite(t.text, 1, t.length, stdout);
        fflush(stdout);
        text = realloc(text, size + t.length + 1);
        memcpy(text + size, t.text, t.length + 1);
    }
    if (!stream || mica_stream_error(stream, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        free(text), text = NULL;
    } else {
        mica_metrics m = mica_stream_metrics(stream);
        printf("\n[%lld tokens of the conversation, %lld of them computed before]\n", (long long)m.prompt_tokens, (long long)m.cached_tokens);
    }
    mica_stream_free(stream);
    return text;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: %s MODEL\n", argv[0]), 2;
    mica_error err = {0};
    mica_model *model = mica_model_load(argv[1], NULL, &err);
    mica_session *session = model ? mica_session_new(model, &err) : NULL;
    if (!session) return fprintf(stderr, "%s\n", err.msg), mica_model_free(model), 1;

    static char lines[MOST_TURNS][MOST_BYTES];
    static mica_message messages[2 * MOST_TURNS];
    bool failed = false;
    for (size_t turn = 0; !failed && turn < MOST_TURNS && fgets(lines[turn], MOST_BYTES, stdin); turn++) {
        lines[turn][strcspn(lines[turn], "\n")] = 0;
        messages[2 * turn] = (mica_message){.role = "user", .content = lines[turn]};
        char *text = answer(session, messages, 2 * turn + 1);
        messages[2 * turn + 1] = (mica_message){.role = "assistant", .content = text};
        failed = text == NULL;
    }
    for (size_t i = 1; i < 2 * MOST_TURNS; i += 2) free((char *)(size_t)messages[i].content);
    mica_session_free(session);
    mica_model_free(model);
    return failed;
}
