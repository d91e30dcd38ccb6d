// SPDX-License-Identifier: Apache-2.0
// `mica generate`: completes a raw prompt. The text goes to stdout piece by piece as it becomes final; with --json the
// pieces are collected instead and one object is printed at the end.
#include "cli/answer.h"
#include <stdlib.h>

static int generate_with(const mica_cli_args *args, const mica_cli_text *prompt, const mica_generate_options *o) {
    mica_model *model = mica_cli_load_once(args);
    if (!model) return MICA_EXIT_FAILED;
    mica_error err = {0};
    mica_cli_answer answer = {0};
    mica_stream *stream = args->ids_given ? mica_generate_ids(model, args->ids.items, args->ids.count, o, &err)
                                          : mica_generate(model, prompt->data, prompt->size, o, &err);
    int status = MICA_EXIT_FAILED;
    if (!stream) mica_cli_fail_error("generate", &err);
    else if (mica_cli_answer_run(args, "generate", stream, &answer)) {
        if (args->json) mica_cli_answer_json(stream, &answer, NULL);
        status = mica_cli_stopped() ? MICA_EXIT_STOPPED : MICA_EXIT_DONE;
    }
    mica_cli_answer_free(&answer);
    mica_stream_free(stream);
    mica_model_free(model);
    return status;
}

static int run(const mica_cli_args *args) {
    if (args->ids_given && args->word_count > 1) return mica_cli_usage("generate", "give either PROMPT or --ids");
    mica_generate_options o;
    mica_logit_bias *biases;
    mica_cli_text prompt = {0};
    int status = MICA_EXIT_USAGE;
    if (mica_cli_generate_options(args, "generate", &o, &biases)) {
        bool ready = args->ids_given || mica_cli_prompt(args, "the prompt", &prompt);
        status = ready ? generate_with(args, &prompt, &o) : MICA_EXIT_FAILED;
    }
    free(prompt.data);
    free(biases);
    return status;
}

const mica_cli_command mica_cli_generate = {
    .name = "generate",
    .synopsis = "MODEL [PROMPT]",
    .summary = "complete a raw prompt",
    .description =
        "Completes PROMPT, or stdin if there is none or it is \"-\", and streams the text to stdout. The prompt is raw: it gets the\n"
        "tokenizer's BOS but no chat template. An answer that does not end with a newline gets one. Ctrl-C ends the answer.\n"
        "With --json: {\"prompt_ids\",\"ids\",\"text\",\"finish_reason\",\"metrics\"}.",
    .example = "mica generate smollm2-135m \"The capital of France is\" -n 16 --stats\n"
               "mica generate model.gguf --temp 0.7 --top-p 0.9 --seed 1 < prompt.txt",
    .min_words = 1,
    .max_words = 2,
    .groups = MICA_CLI_GENERATION | MICA_CLI_LOADING | MICA_CLI_COMMON,
    .run = run,
};
