// SPDX-License-Identifier: Apache-2.0
// `mica score`: teacher-forced log-probabilities of a text or of given tokens, and the perplexity.
#include "cli/cmd.h"
#include "mica/tokenizer.h"
#include <stdlib.h>
#include <string.h>

static void json_top(mica_cli_json *j, const mica_scores *s) {
    mica_cli_json_open(j, "top", '[');
    for (size_t i = 0; s->top_k > 0 && i < s->count; i++) mica_cli_json_candidates(j, NULL, s->top + i * (size_t)s->top_k, (size_t)s->top_k);
    mica_cli_json_close(j, ']');
}

static void print_json(const mica_cli_ints *ids, const mica_scores *s) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_ints(&j, "ids", ids->items, ids->count);
    mica_cli_json_open(&j, "logprobs", '[');
    for (size_t i = 0; i < s->count; i++) mica_cli_json_float(&j, NULL, s->logprobs[i]); // the first is NAN: null
    mica_cli_json_close(&j, ']');
    json_top(&j, s);
    mica_cli_json_double(&j, "perplexity", s->perplexity);
    mica_cli_json_metrics(&j, &s->metrics);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

/** A line a token: id, log-probability, the --top candidates; then the perplexity. */
static void print_table(const mica_cli_ints *ids, const mica_scores *s) {
    for (size_t i = 0; i < s->count; i++) {
        if (i) printf("%d\t%.6f", ids->items[i], (double)s->logprobs[i]);
        else printf("%d\t-", ids->items[i]);
        for (int32_t k = 0; k < s->top_k; k++) {
            const mica_logprob *t = &s->top[i * (size_t)s->top_k + (size_t)k];
            printf("\t%d:%.6f", t->id, (double)t->logprob);
        }
        putchar('\n');
    }
    printf("perplexity\t%.6f\n", s->perplexity);
}

static int score_ids(const mica_cli_args *args, mica_model *model, const mica_cli_ints *ids) {
    mica_error err = {0};
    mica_scores scores = {0};
    if (!mica_score(model, ids->items, ids->count, args->top, &scores, &err)) return mica_cli_fail_error("score", &err);
    if (args->json) print_json(ids, &scores);
    else print_table(ids, &scores);
    if (args->stats) mica_cli_print_metrics(&scores.metrics);
    mica_scores_free(&scores);
    return MICA_EXIT_DONE;
}

static int score_text(const mica_cli_args *args, mica_model *model, const mica_cli_text *text) {
    mica_error err = {0};
    mica_ids ids = {0};
    const mica_encode_options options = {.no_special_tokens = args->no_special_tokens};
    if (!mica_tokenizer_encode(mica_model_tokenizer(model), text->data, text->size, &options, &ids, &err))
        return mica_cli_fail_error("score", &err);
    int status = score_ids(args, model, &(mica_cli_ints){.items = ids.data, .count = ids.len});
    mica_ids_free(&ids);
    return status;
}

static int run(const mica_cli_args *args) {
    if (args->ids_given && args->word_count > 1) return mica_cli_usage("score", "give either TEXT or --ids");
    mica_cli_text text = {0};
    if (!args->ids_given && !mica_cli_prompt(args, "the text", &text)) return MICA_EXIT_FAILED;
    mica_model *model = mica_cli_load(args);
    int status = MICA_EXIT_FAILED;
    if (model) status = args->ids_given ? score_ids(args, model, &args->ids) : score_text(args, model, &text);
    mica_model_free(model);
    free(text.data);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"top", 0, MICA_CLI_INT, AT(top), 0, 1e9, "K", "the K most likely tokens after each one (default 0)"},
    {"ids", 0, MICA_CLI_INTS, AT(ids), 0, INT32_MAX, "1,2,3", "the text as token ids, used as they are"},
    {"no-special-tokens", 0, MICA_CLI_FLAG, AT(no_special_tokens), 0, 0, NULL, "add no BOS or EOS to the text"},
    {"context", 0, MICA_CLI_INT, AT(context), 1, 1e9, "N", "most positions (default: the model's own)"},
    {"stats", 0, MICA_CLI_FLAG, AT(stats), 0, 0, NULL, "print the metrics on stderr"},
    {.name = NULL},
};

const mica_cli_command mica_cli_score = {
    .name = "score",
    .synopsis = "MODEL [TEXT]",
    .summary = "log-probabilities of a given text",
    .description =
        "Gives for each token of TEXT (or of stdin) the natural logarithm of its probability after those before it, and the\n"
        "perplexity, exp of minus their mean. A line a token: id, log-probability, and with --top the likeliest next ones.\n"
        "With --json: {\"ids\",\"logprobs\":[null,…],\"top\":[[[id,logprob],…],…],\"perplexity\",\"metrics\"}.",
    .example = "mica score smollm2-135m \"The sky is blue.\" --top 3",
    .min_words = 1,
    .max_words = 2,
    .groups = MICA_CLI_LOADING | MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
