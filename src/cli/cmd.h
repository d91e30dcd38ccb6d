// SPDX-License-Identifier: Apache-2.0
// What the commands share: loading a model from the arguments, the prompt's source, metrics.
#ifndef MICA_CLI_CMD_H
#define MICA_CLI_CMD_H

#include "cli/cli.h"
#include "mica/model.h"

/** The model of args->words[0] (or of --random), NULL after a complaint. */
mica_model *mica_cli_load(const mica_cli_args *args);
/** The same for a single call: no prompt is kept for later ones. */
mica_model *mica_cli_load_once(const mica_cli_args *args);
/** The model `name`, without the options that approximate. */
mica_model *mica_cli_load_exact(const mica_cli_args *args, const char *name);
/** Is any option on that makes results less exact than the model's own? */
bool mica_cli_approximate(const mica_cli_args *args);
/** Whether the work can be done where --backend and --device ask for it, of work that the library itself does on the CPU; false after a complaint. */
bool mica_cli_here(const mica_cli_args *args, const char *command);
/** The --adapter without a NAME, or NULL. */
const char *mica_cli_own_adapter(const mica_cli_args *args);
/** The text given as an argument, or stdin if there is none or it is "-"; false after a complaint. */
bool mica_cli_prompt(const mica_cli_args *args, const char *what, mica_cli_text *text);
/** How well the model (and a reference, or NULL) predicts a text, in windows of --window; false after a complaint. */
bool mica_cli_measure_text(const mica_cli_args *args, mica_model *model, mica_model *reference, const mica_cli_text *text, mica_perplexity *result);
/** "a,b,c" cut apart: *names holds the pieces and is to be freed. How many; 0 after a complaint. */
size_t mica_cli_labels(const char *command, const char *list, size_t most, const char **labels, char **names);
/** What is left out of training data, in remarks; nothing for a count of 0. */
void mica_cli_note_unused(const mica_cli_args *args, int64_t bad_lines, int64_t long_examples, int64_t unscored_examples);
/** Members of the object "metrics". */
void mica_cli_json_metrics(mica_cli_json *j, const mica_metrics *m);
/** Candidates as an array of [id, logprob] pairs; of top[n] those before an id of -1. */
void mica_cli_json_candidates(mica_cli_json *j, const char *key, const mica_logprob *top, size_t n);
/** Metrics for people, on stderr. */
void mica_cli_print_metrics(const mica_metrics *m);
/** "3.2 GB" in a buffer of at least 32 bytes; returns it. */
const char *mica_cli_bytes(int64_t bytes, char *out, size_t size);
#endif
