// SPDX-License-Identifier: Apache-2.0
// Loads a model and streams a completion: the whole text API of mica.
//     cc generate.c $(pkg-config --cflags --libs mica) && ./a.out FOLDER_OR_GGUF "Once upon a time"
#include <mica/model.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: %s MODEL PROMPT\n", argv[0]), 2;
    mica_error err = {0};
    mica_model *model = mica_model_load(argv[1], NULL, &err);
    mica_generate_options options = {.max_tokens = 40, .temperature = 0.8f, .top_p = 0.95f, .seed = 1};
    mica_stream *stream = model ? mica_generate(model, argv[2], strlen(argv[2]), &options, &err) : NULL;
    if (!stream) return fprintf(stderr, "%s\n", err.msg), mica_model_free(model), 1;

    for (mica_token token; mica_stream_next(stream, &token);) { // every piece of text is whole UTF-8
        fwrite(token.text, 1, token.length, stdout);
        fflush(stdout);
    }
    bool failed = mica_stream_error(stream, &err);
    if (failed) fprintf(stderr, "%s\n", err.msg);
    mica_metrics m = mica_stream_metrics(stream);
    printf("\n[%s; %lld tokens at %.1f a second]\n", mica_finish_name(mica_stream_finish(stream)), (long long)m.generated_tokens,
           m.decode_tokens_per_second);
    mica_stream_free(stream);
    mica_model_free(model);
    return failed;
}
