// SPDX-License-Identifier: Apache-2.0
// `mica generate`: completes a raw prompt. The text goes to stdout piece by piece as it becomes final; with --json the
// pieces are collected instead and one object is printed at the end.
#include "cli/cmd.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// What a generation has given so far; only filled with --json, apart from `last`.
typedef struct answer {
    mica_cli_text text;
    int32_t *ids;
    float *logprobs;
    mica_logprob *top; // [count, top_k]; rows of fewer candidates end with id -1
    size_t count, capacity, top_k;
    char last; // last character printed
} answer;

static void answer_free(answer *a) {
    free(a->text.data);
    free(a->ids);
    free(a->logprobs);
    free(a->top);
}

static void keep_token(answer *a, const mica_token *t) {
    mica_cli_append(&a->text, t->text, t->length);
    if (t->id < 0) return; // text held back, no token
    if (a->count == a->capacity) {
        a->capacity = 2 * a->capacity + 64;
        a->ids = mica_cli_realloc(a->ids, a->capacity * sizeof *a->ids);
        a->logprobs = mica_cli_realloc(a->logprobs, a->capacity * sizeof *a->logprobs);
        a->top = mica_cli_realloc(a->top, a->capacity * a->top_k * sizeof *a->top);
    }
    a->ids[a->count] = t->id;
    a->logprobs[a->count] = t->logprob;
    for (size_t k = 0; k < a->top_k; k++)
        a->top[a->count * a->top_k + k] = k < (size_t)t->top_count ? t->top[k] : (mica_logprob){.id = -1};
    a->count++;
}

static void print_token(answer *a, const mica_token *t) {
    if (!t->length) return;
    fwrite(t->text, 1, t->length, stdout);
    fflush(stdout);
    a->last = t->text[t->length - 1];
}

/** One object a token: its id and log-probability, and the candidates as [id, logprob] pairs. */
static void json_logprobs(mica_cli_json *j, const answer *a) {
    mica_cli_json_open(j, "logprobs", '[');
    for (size_t i = 0; i < a->count; i++) {
        mica_cli_json_open(j, NULL, '{');
        mica_cli_json_int(j, "id", a->ids[i]);
        mica_cli_json_float(j, "logprob", a->logprobs[i]);
        mica_cli_json_open(j, "top", '[');
        for (const mica_logprob *t = a->top + i * a->top_k; t < a->top + (i + 1) * a->top_k && t->id >= 0; t++) {
            mica_cli_json_open(j, NULL, '[');
            mica_cli_json_int(j, NULL, t->id);
            mica_cli_json_float(j, NULL, t->logprob);
            mica_cli_json_close(j, ']');
        }
        mica_cli_json_close(j, ']');
        mica_cli_json_close(j, '}');
    }
    mica_cli_json_close(j, ']');
}

static void print_json(const mica_cli_args *args, const mica_stream *stream, const answer *a, const mica_metrics *metrics) {
    size_t prompt_count;
    const int32_t *prompt = mica_stream_prompt(stream, &prompt_count);
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_ints(&j, "prompt_ids", prompt, prompt_count);
    mica_cli_json_ints(&j, "ids", a->ids, a->count);
    mica_cli_json_text(&j, "text", a->text.data, a->text.size);
    mica_cli_json_string(&j, "finish_reason", mica_finish_name(mica_stream_finish(stream)));
    if (args->logprobs) json_logprobs(&j, a);
    mica_cli_json_metrics(&j, metrics);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

/** Runs the stream to its end and reports it. */
static int answer_stream(const mica_cli_args *args, mica_stream *stream) {
    answer a = {.top_k = args->logprobs > 0 ? (size_t)args->logprobs : 0};
    mica_cli_append(&a.text, "", 0);
    for (mica_token t; mica_stream_next(stream, &t);) {
        if (args->json) keep_token(&a, &t);
        else print_token(&a, &t);
        if (mica_cli_output_lost()) mica_stream_cancel(stream); // the reader is gone: stop computing
    }
    mica_metrics metrics = mica_stream_metrics(stream);
    mica_error err = {0};
    bool failed = mica_stream_error(stream, &err);
    if (args->json && !failed) print_json(args, stream, &a, &metrics);
    else if (!args->json && a.last && a.last != '\n') putchar('\n');
    if (args->stats) mica_cli_print_metrics(&metrics);
    answer_free(&a);
    if (failed) return mica_cli_fail_error("generate", &err);
    return mica_cli_stopped() ? MICA_EXIT_STOPPED : MICA_EXIT_DONE;
}

/** "ID=X" for each --logit-bias into out; false after a complaint. */
static bool read_biases(const mica_cli_strings *given, mica_logit_bias *out) {
    for (size_t i = 0; i < given->count; i++) {
        char *end;
        long long id = strtoll(given->items[i], &end, 10);
        bool ok = end != given->items[i] && *end == '=' && id >= 0 && id <= INT32_MAX;
        const char *number = ok ? end + 1 : "";
        float bias = strtof(number, &end);
        if (!ok || end == number || *end || isnan(bias))
            return mica_cli_usage("generate", "--logit-bias takes ID=X, such as 42=-5 or 42=-inf, not \"%s\"", given->items[i]), false;
        out[i] = (mica_logit_bias){.id = (int32_t)id, .bias = bias};
    }
    return true;
}

static mica_stream *start(const mica_cli_args *args, mica_model *model, const mica_cli_text *prompt,
                          const mica_logit_bias *biases, mica_error *err) {
    mica_generate_options o = {
        .max_tokens = args->max_tokens,
        .min_tokens = args->min_tokens,
        .temperature = (float)args->temp,
        .top_k = args->top_k,
        .top_p = (float)args->top_p,
        .min_p = (float)args->min_p,
        .repeat_penalty = (float)args->repeat_penalty,
        .presence_penalty = (float)args->presence_penalty,
        .frequency_penalty = (float)args->frequency_penalty,
        .logit_bias = biases,
        .logit_bias_count = args->logit_bias.count,
        .seed = (uint64_t)args->seed,
        .order = args->order,
        .stop = args->stop.items,
        .stop_count = args->stop.count,
        .ignore_eos = args->ignore_eos,
        .speculate = args->speculate,
        .logprobs = args->logprobs,
    };
    return args->ids_given ? mica_generate_ids(model, args->ids.items, args->ids.count, &o, err)
                           : mica_generate(model, prompt->data, prompt->size, &o, err);
}

static int generate_with(const mica_cli_args *args, const mica_cli_text *prompt, const mica_logit_bias *biases) {
    mica_model *model = mica_cli_load(args);
    if (!model) return MICA_EXIT_FAILED;
    mica_error err = {0};
    mica_stream *stream = start(args, model, prompt, biases, &err);
    int status;
    if (stream) {
        mica_cli_watch(stream);
        status = answer_stream(args, stream);
        mica_cli_watch(NULL);
    } else status = mica_cli_fail_error("generate", &err);
    mica_stream_free(stream);
    mica_model_free(model);
    return status;
}

static int run(const mica_cli_args *args) {
    if (args->ids_given && args->word_count > 1) return mica_cli_usage("generate", "give either PROMPT or --ids");
    if (args->logprobs && !args->json) return mica_cli_usage("generate", "--logprobs is a part of --json: give both");
    mica_logit_bias *biases = mica_cli_realloc(NULL, args->logit_bias.count * sizeof *biases);
    mica_cli_text prompt = {0};
    int status = MICA_EXIT_USAGE;
    if (read_biases(&args->logit_bias, biases)) {
        bool ready = args->ids_given || mica_cli_prompt(args, "the prompt", &prompt);
        status = ready ? generate_with(args, &prompt, biases) : MICA_EXIT_FAILED;
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
