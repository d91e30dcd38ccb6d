// SPDX-License-Identifier: Apache-2.0
// What commands that generate share: options from the arguments, and an answer shown or collected as it comes.
#ifndef MICA_CLI_ANSWER_H
#define MICA_CLI_ANSWER_H

#include "cli/cmd.h"

/** What a generation has given so far. */
typedef struct mica_cli_answer {
    mica_cli_text text;
    int32_t *ids;
    float *logprobs;
    mica_logprob *top; // [count, top_k]; rows of fewer candidates end with id -1
    size_t count, capacity, top_k;
    bool has_logprobs;
} mica_cli_answer;
void mica_cli_answer_free(mica_cli_answer *answer);
/** An answer of which nothing is there yet, whose tokens come with `logprobs` candidates (mica_generate_options). */
mica_cli_answer mica_cli_answer_new(int32_t logprobs);
/** The next token, its text too. */
void mica_cli_answer_keep(mica_cli_answer *answer, const mica_token *token);
/** Its log-probabilities as "logprobs", if it has any: one object a token, with id, logprob and the candidates as [id, logprob] pairs. */
void mica_cli_json_logprobs(mica_cli_json *j, const mica_cli_answer *answer);

/** The options of generation; *biases is to be freed after the last use of *options. False after a complaint. */
bool mica_cli_generate_options(const mica_cli_args *args, const char *command, mica_generate_options *options, mica_logit_bias **biases);
/** Runs the stream to its end: prints the text as it comes (ending with a newline), unless --json is given, and keeps it. Ctrl-C ends it. False if it
 * failed, after a complaint; with --stats the metrics are printed all the same. */
bool mica_cli_answer_run(const mica_cli_args *args, const char *command, mica_stream *stream, mica_cli_answer *answer);
/** The object that --json prints. rendered: the prompt's text, or NULL. */
void mica_cli_answer_json(const mica_stream *stream, const mica_cli_answer *answer, const mica_cli_text *rendered);
#endif
