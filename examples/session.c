// SPDX-License-Identifier: Apache-2.0
// A text is computed once and kept in a file; questions about it start from there, each on a fork, in this run and in later ones.
//     cc session.c $(pkg-config --cflags --libs mica) && ./a.out FOLDER_OR_GGUF KEPT_FILE TEXT QUESTION…
#include <mica/session.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What a session says to text and question.
static bool ask(mica_session *session, const char *text, const char *question, int max_tokens, mica_error *err) {
    size_t size = strlen(text) + strlen(question) + 1;
    char *prompt = malloc(size);
    snprintf(prompt, size, "%s%s", text, question);
    mica_stream *stream = mica_session_start(session, &(mica_prompt){.text = prompt, .length = size - 1},
                                             &(mica_generate_options){.max_tokens = max_tokens}, err);
    for (mica_token t; stream && mica_stream_next(stream, &t);) fwrite(t.text, 1, t.length, stdout);
    bool ok = stream && !mica_stream_error(stream, err);
    if (ok) {
        mica_metrics m = mica_stream_metrics(stream);
        printf("\n[%lld tokens, %lld of them kept]\n", (long long)m.prompt_tokens, (long long)m.cached_tokens);
    }
    mica_stream_free(stream);
    free(prompt);
    return ok;
}

// The session of the text: from the file, or computed and put there.
static mica_session *session_of(mica_model *model, const char *file, const char *text, mica_error *err) {
    mica_session *session = mica_session_load(model, file, err);
    if (session) return session;
    fprintf(stderr, "%s\n", err->msg); // no such file yet, or another model's
    session = mica_session_new(model, err);
    if (session && ask(session, text, "", 1, err) && mica_session_save(session, file, err)) return session;
    mica_session_free(session);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 5) return fprintf(stderr, "usage: %s MODEL FILE TEXT QUESTION…\n", argv[0]), 2;
    mica_error err = {0};
    mica_model *model = mica_model_load(argv[1], NULL, &err);
    mica_session *session = model ? session_of(model, argv[2], argv[3], &err) : NULL;
    bool ok = session != NULL;
    for (int i = 4; ok && i < argc; i++) {
        mica_session *fork = mica_session_fork(session, &err);
        ok = fork && ask(fork, argv[3], argv[i], 20, &err);
        mica_session_free(fork);
    }
    if (!ok) fprintf(stderr, "%s\n", err.msg);
    mica_session_free(session);
    mica_model_free(model);
    return !ok;
}
