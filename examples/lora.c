// SPDX-License-Identifier: Apache-2.0
// Fine-tuning: trains a LoRA adapter on a folder with train.jsonl (and maybe valid.jsonl), then lets the model go on with a prompt without
// it and with it.
//     cc lora.c $(pkg-config --cflags --libs mica) && ./a.out MODEL DATA OUT "prompt" [STEPS]
#include <mica/model.h>
#include <mica/train.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Called at the start, after every step, validation and checkpoint, and at the end; false would stop the run. */
static bool on_event(void *context, const mica_train_event *e) {
    (void)context;
    if (e->kind == MICA_TRAIN_START) printf("%lld of %lld parameters are trained\n", (long long)e->trained, (long long)e->parameters);
    if (e->kind == MICA_TRAIN_STEP) printf("step %lld: loss %.3f, %.0f tokens/s\n", (long long)e->step, e->loss, e->tokens_per_second);
    if (e->kind == MICA_TRAIN_VALIDATION) printf("step %lld: validation loss %.3f\n", (long long)e->step, e->loss);
    return true;
}

/** adapter: NULL for the model as it is. */
static bool complete(const char *path, const char *adapter, const char *prompt, mica_error *err) {
    mica_model *model = mica_model_load(path, &(mica_load_options){.adapter = adapter}, err);
    mica_stream *stream = model ? mica_generate(model, prompt, strlen(prompt), &(mica_generate_options){.max_tokens = 30}, err) : NULL;
    bool ok = stream != NULL;
    if (ok) printf("\n%s: %s", adapter ? "after" : "before", prompt);
    for (mica_token t; ok && mica_stream_next(stream, &t);) fputs(t.text, stdout);
    if (ok) putchar('\n'), ok = !mica_stream_error(stream, err);
    mica_stream_free(stream);
    mica_model_free(model);
    return ok;
}

int main(int argc, char **argv) {
    if (argc < 5) return fprintf(stderr, "usage: %s MODEL DATA OUT PROMPT [STEPS]\n", argv[0]), 2;
    const char *model = argv[1], *data = argv[2], *out = argv[3], *prompt = argv[4];
    const char *const targets[] = {"q_proj", "v_proj"}; // default: every linear layer of the blocks
    mica_train_options options = {
        .rank = 8, .alpha = 16, .targets = targets, .target_count = 2, .layers = -1,
        .iters = argc > 5 ? atoi(argv[5]) : 100, .batch_size = 2, .report_every = 10, .clip = 1,
        .optimizer = {.name = "adamw"},
        .schedule = {.name = "cosine", .rate = 1e-3, .warmup = 5},
        .report = on_event,
    };
    mica_train_summary summary;
    mica_error err = {0};
    bool ok = mica_train(model, data, out, &options, &summary, &err);
    if (ok) printf("%lld steps in %.1f s; the adapter is in %s\n", (long long)summary.steps, summary.seconds, out);
    ok = ok && complete(model, NULL, prompt, &err) && complete(model, out, prompt, &err);
    if (!ok) fprintf(stderr, "%s\n", err.msg);
    return !ok;
}
