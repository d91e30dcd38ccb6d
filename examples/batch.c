// SPDX-License-Identifier: Apache-2.0
// Answers several prompts together and prints each answer as it ends.
//     cc batch.c $(pkg-config --cflags --libs mica) && ./a.out FOLDER_OR_GGUF "First prompt" "Second prompt" …
#include <mica/batch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool print_result(void *context, size_t index, const mica_result *result) {
    char **prompts = context;
    printf("%s|%s\n", prompts[index], result->finish == MICA_FINISH_ERROR ? result->error.msg : result->text);
    return true; // false would end the others
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: %s MODEL PROMPT…\n", argv[0]), 2;
    mica_error err = {0};
    mica_model *model = mica_model_load(argv[1], NULL, &err);
    size_t count = (size_t)argc - 2;
    mica_request *requests = calloc(count, sizeof *requests);
    mica_result *results = calloc(count, sizeof *results);
    bool ok = model && requests && results;
    for (size_t i = 0; ok && i < count; i++) { // each request has its own options
        requests[i].prompt = (mica_prompt){.text = argv[2 + i], .length = strlen(argv[2 + i])};
        requests[i].options = (mica_generate_options){.max_tokens = 20, .temperature = 0.7f, .seed = i};
    }
    ok = ok && mica_batch_generate(model, requests, count, &(mica_batch_options){.rows = 16},
                                   &(mica_batch_each){print_result, argv + 2}, results, &err);
    int64_t tokens = 0;
    for (size_t i = 0; ok && i < count; i++) {
        tokens += results[i].metrics.generated_tokens;
        mica_result_free(&results[i]);
    }
    if (ok) printf("[%zu answers, %lld tokens]\n", count, (long long)tokens);
    else fprintf(stderr, "%s\n", err.msg);
    free(requests);
    free(results);
    mica_model_free(model);
    return !ok;
}
