// SPDX-License-Identifier: Apache-2.0
// Registers a backend of its own, one that says the prompt again word by word, and uses it like any other.
//     cc custom_backend.c $(pkg-config --cflags --libs mica) && ./a.out "Say this again"
#include <mica/backend.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct echo {
    char *text;
    size_t length, at, piece;
    int32_t words, most;
    atomic_bool cancelled; // the one thing that another thread may touch
    mica_finish finish;
} echo;

static bool available(void *context, mica_error *why) { return (void)context, (void)why, true; }

static void *load(void *context, const char *path, const mica_load_options *options, mica_info *info, mica_error *err) {
    (void)path, (void)options, (void)err;
    snprintf(info->architecture, sizeof info->architecture, "echo");
    return context; // whatever the calls below need of the model
}

static void unload(void *model) { (void)model; }

static void *start(void *model, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    (void)model;
    echo *e = prompt->text ? calloc(1, sizeof *e) : NULL;
    if (e && (e->text = malloc(prompt->length + 1))) { // what a prompt points to is copied
        e->length = prompt->length;
        memcpy(e->text, prompt->text, e->length);
        e->text[e->length] = 0;
        e->most = options && options->max_tokens ? options->max_tokens : 256;
        return e;
    }
    free(e);
    if (err) *err = (mica_error){.code = MICA_ERR_ARGUMENT, .msg = "echo: there is no text to say again"};
    return NULL;
}

static bool next(void *stream, mica_token *token) {
    echo *e = stream;
    e->at += e->piece;
    if (atomic_load(&e->cancelled)) e->finish = MICA_FINISH_CANCELLED;
    else if (e->at == e->length) e->finish = MICA_FINISH_STOP;
    else if (e->words == e->most) e->finish = MICA_FINISH_LENGTH;
    if (e->finish) return false;
    e->piece = strcspn(e->text + e->at, " ");
    e->piece += strspn(e->text + e->at + e->piece, " ");
    *token = (mica_token){.id = e->words++, .text = e->text + e->at, .length = e->piece};
    return true;
}

static void cancel(void *stream) { atomic_store(&((echo *)stream)->cancelled, true); }
static mica_finish finish(const void *stream) { return ((const echo *)stream)->finish; }
static bool error(const void *stream, mica_error *err) { return (void)stream, (void)err, false; }
static mica_metrics metrics(const void *stream) { return (mica_metrics){.generated_tokens = ((const echo *)stream)->words}; }
static void end(void *stream) { free(((echo *)stream)->text), free(stream); }

int main(int argc, char **argv) {
    const mica_backend backend = {.name = "echo", .available = available, .load = load, .unload = unload, .start = start, .next = next,
                                  .cancel = cancel, .finish = finish, .error = error, .metrics = metrics, .end = end, .context = &(int){0}};
    const char *prompt = argc > 1 ? argv[1] : "";
    mica_error err = {0};
    mica_model *model = mica_backend_register(&backend, &err) ? mica_model_load("", &(mica_load_options){.backend = "echo"}, &err) : NULL;
    mica_stream *stream = model ? mica_generate(model, prompt, strlen(prompt), NULL, &err) : NULL;
    for (mica_token t; stream && mica_stream_next(stream, &t);) printf("%.*s|", (int)t.length, t.text);
    if (stream) printf("\n[%s, by %s]\n", mica_finish_name(mica_stream_finish(stream)), mica_model_backend(model));
    else fprintf(stderr, "%s\n", err.msg);
    mica_stream_free(stream);
    mica_model_free(model);
    return !stream;
}
