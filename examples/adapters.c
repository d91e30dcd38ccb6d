// SPDX-License-Identifier: Apache-2.0
// Answers one prompt with a model and with each of several adapters beside it, all in one batch that shares the weights.
//     cc adapters.c $(pkg-config --cflags --libs mica) && ./a.out FOLDER_OR_GGUF "Prompt" ADAPTER_FOLDER…
#include <mica/adapter.h>
#include <mica/batch.h>
#include <stdio.h>
#include <string.h>

enum { MOST = 16 };

int main(int argc, char **argv) {
    if (argc < 4 || argc > 3 + MOST) return fprintf(stderr, "usage: %s MODEL PROMPT ADAPTER… (at most %d)\n", argv[0], MOST), 2;
    mica_error err = {0};
    mica_model *model = mica_model_load(argv[1], NULL, &err);
    size_t count = (size_t)argc - 3;
    char names[MOST][16];
    bool ok = model != NULL;
    for (size_t i = 0; ok && i < count; i++) { // any name will do
        snprintf(names[i], sizeof names[i], "adapter %zu", i + 1);
        ok = mica_adapter_load(model, names[i], argv[3 + i], &err);
    }
    mica_request requests[MOST + 1] = {0};
    mica_result results[MOST + 1] = {0};
    for (size_t i = 0; i <= count; i++) {
        requests[i].prompt = (mica_prompt){.text = argv[2], .length = strlen(argv[2])};
        requests[i].options = (mica_generate_options){.max_tokens = 20, .adapter = i < count ? names[i] : ""}; // "": the model alone
    }
    ok = ok && mica_batch_generate(model, requests, count + 1, NULL, NULL, results, &err);
    for (size_t i = 0; ok && i <= count; i++) {
        printf("[%s]%s\n", i < count ? argv[3 + i] : "none", results[i].finish == MICA_FINISH_ERROR ? results[i].error.msg : results[i].text);
        mica_result_free(&results[i]);
    }
    for (size_t i = 0; ok && i < count; i++) ok = mica_adapter_unload(model, names[i], &err);
    if (!ok) fprintf(stderr, "%s\n", err.msg);
    mica_model_free(model);
    return !ok;
}
