// SPDX-License-Identifier: Apache-2.0
// `mica perplexity`: how well a model predicts a text, and what options that approximate cost against the exact model.
#include "cli/cmd.h"
#include "mica/tokenizer.h"
#include <stdlib.h>
#include <string.h>

static void print_json(const mica_perplexity *p, bool compared) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_int(&j, "predicted", (int64_t)p->predicted);
    mica_cli_json_double(&j, "perplexity", p->perplexity);
    mica_cli_json_double(&j, "standard_error", p->standard_error);
    if (compared) {
        mica_cli_json_double(&j, "reference_perplexity", p->reference_perplexity);
        mica_cli_json_double(&j, "kl_mean", p->kl_mean);
        mica_cli_json_double(&j, "kl_max", p->kl_max);
        mica_cli_json_double(&j, "same_top", p->same_top);
        mica_cli_json_double(&j, "logit_change_mean", p->change_mean);
        mica_cli_json_double(&j, "logit_change_max", p->change_max);
    }
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static void print_lines(const mica_perplexity *p, bool compared) {
    printf("predicted    %zu tokens\nperplexity   %.4f ± %.4f\n", p->predicted, p->perplexity, p->standard_error);
    if (!compared) return;
    printf("reference    %.4f (%+.3f %%)\n", p->reference_perplexity, 100 * (p->perplexity / p->reference_perplexity - 1));
    printf("divergence   %.6f nats on average, %.4f at most\nsame top     %.2f %% of tokens\n", p->kl_mean, p->kl_max, 100 * p->same_top);
    printf("logits       change by %.6f on average, %.4f at most\n", p->change_mean, p->change_max);
}

bool mica_cli_measure_text(const mica_cli_args *args, mica_model *model, mica_model *reference, const mica_cli_text *text, mica_perplexity *result) {
    const mica_perplexity_options options = {.reference = reference, .window = args->window};
    const mica_tokenizer *tokenizer = mica_model_tokenizer(model);
    mica_error err = {0};
    mica_ids ids = {0};
    if (!tokenizer) return mica_cli_fail("perplexity: %s has no tokenizer", args->words[0]), false;
    bool ok = mica_tokenizer_encode(tokenizer, text->data, text->size, NULL, &ids, &err) &&
              mica_perplexity_of(model, ids.data, ids.len, &options, result, &err);
    mica_ids_free(&ids);
    if (!ok) mica_cli_fail_error("perplexity", &err);
    return ok;
}

static int measure(const mica_cli_args *args, mica_model *model, mica_model *reference, const mica_cli_text *text) {
    mica_perplexity result;
    if (!mica_cli_measure_text(args, model, reference, text, &result)) return MICA_EXIT_FAILED;
    if (args->json) print_json(&result, reference != NULL);
    else print_lines(&result, reference != NULL);
    return MICA_EXIT_DONE;
}

/** The model to compare with: --reference, or MODEL without the options that approximate; *reference NULL if there is none. */
static bool load_reference(const mica_cli_args *args, mica_model **reference) {
    *reference = NULL;
    if (!args->reference && !mica_cli_approximate(args)) return true;
    *reference = mica_cli_load_exact(args, args->reference ? args->reference : args->words[0]);
    return *reference != NULL;
}

static int run(const mica_cli_args *args) {
    mica_cli_text text = {0};
    bool from_stdin = args->word_count < 2 || strcmp(args->words[1], "-") == 0;
    if (!(from_stdin ? mica_cli_read_stdin(args, "the text", &text) : mica_cli_read_file(args->words[1], &text))) {
        free(text.data);
        return MICA_EXIT_FAILED;
    }
    mica_model *model = mica_cli_load(args), *reference = NULL;
    int status = MICA_EXIT_FAILED;
    if (model && load_reference(args, &reference)) status = measure(args, model, reference, &text);
    mica_model_free(model);
    mica_model_free(reference);
    free(text.data);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"reference", 0, MICA_CLI_STRING, AT(reference), 0, 0, "MODEL", "compare with this model (default: MODEL, computed exactly)"},
    {"window", 0, MICA_CLI_INT, AT(window), 2, 1e9, "N", "cut the text into pieces of N tokens (default 1024)"},
    {"context", 0, MICA_CLI_INT, AT(context), 1, 1e9, "N", "most positions (default: the model's own)"},
    {.name = NULL},
};

const mica_cli_command mica_cli_perplexity = {
    .name = "perplexity",
    .synopsis = "MODEL [FILE]",
    .summary = "how well a model predicts a text",
    .description =
        "Gives the perplexity of the text in FILE (or of stdin), whose pieces of --window tokens are read one by one, each from\n"
        "nothing. With --reference, or with options that approximate (--activations int8, --kv-bits 8), compares with the reference model:\n"
        "its perplexity, the mean Kullback-Leibler divergence from its distributions, and the share of positions where both\n"
        "hold the same token for the likeliest, and the mean and greatest change of a logit. Two models are in memory then.\n"
        "With --json: {\"predicted\",\"perplexity\",\"standard_error\"} and {\"reference_perplexity\",\"kl_mean\",\"kl_max\",\"same_top\",\"logit_change_mean\",\n"
        "\"logit_change_max\"} in it.",
    .example = "mica perplexity smollm2-135m book.txt --activations int8 --kv-bits 8",
    .min_words = 1,
    .max_words = 2,
    .groups = MICA_CLI_LOADING | MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
