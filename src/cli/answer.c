// SPDX-License-Identifier: Apache-2.0
// An answer as commands show it: streamed to stdout, or collected for one JSON object at the end.
#include "cli/answer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

void mica_cli_answer_free(mica_cli_answer *a) {
    free(a->text.data);
    free(a->ids);
    free(a->logprobs);
    free(a->top);
}

mica_cli_answer mica_cli_answer_new(int32_t logprobs) {
    mica_cli_answer a = {.top_k = logprobs > 0 ? (size_t)logprobs : 0, .has_logprobs = logprobs != 0};
    mica_cli_append(&a.text, "", 0);
    return a;
}

void mica_cli_answer_keep(mica_cli_answer *a, const mica_token *t) {
    mica_cli_append(&a->text, t->text, t->length);
    if (t->id < 0) return; // text held back, no token
    if (!a->count && a->top_k > (size_t)t->top_count) a->top_k = (size_t)t->top_count; // no more than the vocabulary has
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

static void print_token(const mica_token *t) {
    if (!t->length) return;
    fwrite(t->text, 1, t->length, stdout);
    fflush(stdout);
}

void mica_cli_json_logprobs(mica_cli_json *j, const mica_cli_answer *a) {
    if (!a->has_logprobs) return;
    mica_cli_json_open(j, "logprobs", '[');
    for (size_t i = 0; i < a->count; i++) {
        mica_cli_json_open(j, NULL, '{');
        mica_cli_json_int(j, "id", a->ids[i]);
        mica_cli_json_float(j, "logprob", a->logprobs[i]);
        mica_cli_json_candidates(j, "top", a->top + i * a->top_k, a->top_k);
        mica_cli_json_close(j, '}');
    }
    mica_cli_json_close(j, ']');
}

void mica_cli_answer_json(const mica_stream *stream, const mica_cli_answer *a, const mica_cli_text *rendered) {
    size_t prompt_count;
    mica_metrics metrics = mica_stream_metrics(stream);
    const int32_t *prompt = mica_stream_prompt(stream, &prompt_count);
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    if (rendered) mica_cli_json_text(&j, "rendered", rendered->data, rendered->size);
    mica_cli_json_ints(&j, "prompt_ids", prompt, prompt_count);
    mica_cli_json_ints(&j, "ids", a->ids, a->count);
    mica_cli_json_text(&j, "text", a->text.data, a->text.size);
    mica_cli_json_string(&j, "finish_reason", mica_finish_name(mica_stream_finish(stream)));
    mica_cli_json_logprobs(&j, a);
    mica_cli_json_metrics(&j, &metrics);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

bool mica_cli_answer_run(const mica_cli_args *args, const char *command, mica_stream *stream, mica_cli_answer *a) {
    *a = mica_cli_answer_new(args->logprobs);
    mica_cli_watch(stream);
    for (mica_token t; mica_stream_next(stream, &t);) {
        mica_cli_answer_keep(a, &t);
        if (!args->json) print_token(&t);
        if (mica_cli_output_lost()) mica_stream_cancel(stream); // the reader is gone: stop computing
    }
    mica_cli_watch(NULL);
    mica_error err = {0};
    bool failed = mica_stream_error(stream, &err);
    if (!args->json && a->text.size && a->text.data[a->text.size - 1] != '\n') putchar('\n');
    mica_metrics metrics = mica_stream_metrics(stream);
    if (args->stats) mica_cli_print_metrics(&metrics);
    if (failed) mica_cli_fail_error(command, &err);
    return !failed;
}

// ---- options -----------------------------------------------------------------------------------------------
/** "ID=X" for each --logit-bias into out; false after a complaint. */
static bool read_biases(const char *command, const mica_cli_strings *given, mica_logit_bias *out) {
    for (size_t i = 0; i < given->count; i++) {
        char *end;
        long long id = strtoll(given->items[i], &end, 10);
        bool ok = end != given->items[i] && *end == '=' && id >= 0 && id <= INT32_MAX;
        const char *number = ok ? end + 1 : "";
        float bias = strtof(number, &end);
        if (!ok || end == number || *end || isnan(bias))
            return mica_cli_usage(command, "--logit-bias takes ID=X, such as 42=-5 or 42=-inf, not \"%s\"", given->items[i]), false;
        out[i] = (mica_logit_bias){.id = (int32_t)id, .bias = bias};
    }
    return true;
}

bool mica_cli_generate_options(const mica_cli_args *args, const char *command, mica_generate_options *o, mica_logit_bias **biases) {
    *biases = mica_cli_realloc(NULL, args->logit_bias.count * sizeof **biases);
    *o = (mica_generate_options){
        .max_tokens = args->max_tokens,
        .min_tokens = args->min_tokens,
        .temperature = (float)args->temp,
        .top_k = args->top_k,
        .top_p = (float)args->top_p,
        .min_p = (float)args->min_p,
        .repeat_penalty = (float)args->repeat_penalty,
        .presence_penalty = (float)args->presence_penalty,
        .frequency_penalty = (float)args->frequency_penalty,
        .logit_bias = *biases,
        .logit_bias_count = args->logit_bias.count,
        .seed = (uint64_t)args->seed,
        .order = args->order,
        .stop = args->stop.items,
        .stop_count = args->stop.count,
        .ignore_eos = args->ignore_eos,
        .speculate = args->speculate,
        .adapter = args->use_adapter,
        .logprobs = args->logprobs,
    };
    bool json = args->json || strcmp(command, "batch") == 0; // which writes nothing else
    if (args->logprobs && !json) return mica_cli_usage(command, "--logprobs is a part of --json: give both"), false;
    return read_biases(command, &args->logit_bias, *biases);
}
