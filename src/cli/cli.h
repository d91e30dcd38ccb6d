// SPDX-License-Identifier: Apache-2.0
// Room `cli`: the command `mica`, on public headers only. One table of commands (main.c), one table of options
// (options.c); every command is a function from parsed arguments to an exit status. Results go to stdout, all else
// to stderr; a failure is one line "mica: <what>: <why>".
#ifndef MICA_CLI_H
#define MICA_CLI_H

#include "mica/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { MICA_CLI_WORDS = 64 }; // most arguments besides options
enum { MICA_EXIT_DONE = 0, MICA_EXIT_FAILED = 1, MICA_EXIT_USAGE = 2, MICA_EXIT_STOPPED = 130 };

// ---- arguments -----------------------------------------------------------------------------------------
typedef struct mica_cli_strings { // of a repeatable option
    const char **items;
    size_t count;
} mica_cli_strings;

typedef struct mica_cli_ints { // of a comma-separated list
    int32_t *items;
    size_t count;
} mica_cli_ints;

enum { MICA_CLI_OPTIMIZERS = 5 };
typedef struct mica_cli_optimizer { // what a file says of one optimiser; 0: nothing
    double beta1, beta2, eps, weight_decay, momentum, dampening; // weight_decay -1: none
    double bias_correction, nesterov; // 1: yes, -1: no
} mica_cli_optimizer;

typedef struct mica_cli_train_args {
    const char *kind, *targets, *grad_checkpoint, *mask_prompt, *too_long, *schedule, *optimizer, *init_adapter, *adapter_format;
    int32_t rank, layers, iters, epochs, batch_size, batch_tokens, grad_accum, max_seq, lr_steps, warmup, hold, report_every, val_every, val_batches, save_every;
    double scale, alpha, dropout, lr, lr_end, lr_decay, warmup_init, weight_decay, momentum, clip;
    bool rslora, no_shuffle, skip_bad, resume, no_bias_correction, test;
    int32_t test_batches;
    mica_cli_optimizer optimizers[MICA_CLI_OPTIMIZERS]; // as in mica_cli_optimizer_names
    // what is seen of it
    const char *log, *report;
    mica_cli_strings sample_prompts;
    int32_t samples, sample_tokens;
} mica_cli_train_args;

// The values of all options of all commands; 0 = not given, except where the table of options states a default.
typedef struct mica_cli_args {
    const char *words[MICA_CLI_WORDS]; // MODEL, PROMPT; SRC, DST; DIR…
    size_t word_count;
    // every command
    bool help, json, quiet;
    const char *config, *model; // a file of options; MODEL, given as one
    mica_cli_strings owned;            // texts that came from it
    int32_t threads;
    const char *device, *backend;
    // generation
    int32_t max_tokens, min_tokens, top_k, logprobs, context, kv_bits, speculate;
    double temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int64_t seed;
    const char *order;
    mica_cli_strings stop, logit_bias;
    mica_cli_ints ids;
    bool ids_given, stats, ignore_eos;
    // score
    int32_t top;
    // loading
    const char *activations, *adapter, *python;
    mica_cli_strings adapters; // DIR or NAME=DIR
    const char *use_adapter;
    int64_t memory_budget;
    // train
    const char *data;
    mica_cli_train_args train;
    // chat
    const char *system, *messages, *tools, *vars;
    bool allow_control;
    // eval
    const char *text_field, *label_field;
    // perplexity
    const char *reference;
    int32_t window;
    // tokenize
    bool jsonl, decode, no_special_tokens, plain, pieces, profile;
    // template
    const char *name;
    int64_t now;
    bool as_given, source;
    // batch and classify
    int32_t rows, csv;
    const char *output, *labels, *prompt;
    bool invariant, chat, calibrate;
    // convert and bench
    int32_t bits, group_size;
    const char *mode, *dtype, *random;
    // fuse
    bool dequantize, no_cost;
    const char *probe;
    mica_cli_ints prefill, depth, batch;
    int32_t decode_tokens, repeat;
} mica_cli_args;

typedef enum mica_cli_kind {
    MICA_CLI_FLAG,   // bool
    MICA_CLI_INT,    // int32_t
    MICA_CLI_LONG,   // int64_t
    MICA_CLI_NUMBER, // double
    MICA_CLI_STRING, // const char *
    MICA_CLI_LIST,   // mica_cli_strings: the option may be repeated
    MICA_CLI_INTS,   // mica_cli_ints
    MICA_CLI_MAYBE,  // const char *: a string that may be left out, before another option or at the end; then ""
    MICA_CLI_CHOICE, // const char *: one of the words in `value` ("on|off|auto"), or nothing, which stands for "on"
    MICA_CLI_SIZE,   // int64_t: bytes, as in 4000000, 512M, 4G, 1.5GiB
} mica_cli_kind;

typedef struct mica_cli_option {
    const char *name; // without the dashes
    char letter;      // short form, or 0
    mica_cli_kind kind;
    size_t offset;    // in mica_cli_args
    double low, high; // range of a number
    const char *value; // what the help calls the value; NULL for a flag
    const char *help;
} mica_cli_option;

enum { MICA_CLI_COMMON = 1, MICA_CLI_GENERATION = 2, MICA_CLI_LOADING = 4 }; // shared groups of options

typedef struct mica_cli_command {
    const char *name, *synopsis, *summary; // "MODEL [PROMPT]", one line
    const char *description;               // paragraphs for --help and the man page
    const char *example;                   // lines without the prompt
    size_t min_words, max_words;
    unsigned groups;
    const mica_cli_option *options; // its own; ends with name NULL
    int (*run)(const mica_cli_args *args);
} mica_cli_command;

extern const mica_cli_option mica_cli_common_options[], mica_cli_generation_options[], mica_cli_loading_options[];
extern const mica_cli_command mica_cli_generate, mica_cli_score, mica_cli_perplexity, mica_cli_tokenize, mica_cli_convert, mica_cli_info,
    mica_cli_bench, mica_cli_batch, mica_cli_classify, mica_cli_discover, mica_cli_chat, mica_cli_train, mica_cli_template, mica_cli_fuse,
    mica_cli_report, mica_cli_eval;
/** The table of commands, ended by NULL. */
extern const mica_cli_command *const mica_cli_commands[];

/** Reads argv (without program and command) into args. False after a complaint: exit with MICA_EXIT_USAGE. */
bool mica_cli_parse(const mica_cli_command *command, int argc, char **argv, mica_cli_args *args);
void mica_cli_args_free(mica_cli_args *args);
/** The command's options group by group: calls visit for each. */
void mica_cli_each_option(const mica_cli_command *command, void (*visit)(const mica_cli_option *option, void *to), void *to);
/** "1,-2,3" (commas or blanks between) into ints; false if something else is there or out of range. */
bool mica_cli_read_ints(const char *text, int64_t low, int64_t high, mica_cli_ints *ints);
/** Takes over what a JSON file, or a YAML file (.yaml, .yml), says: an object whose members are named as the command's options ("batch-size",
 * "batch_size"), or as mlx-lm's. False after a complaint that names file and member. */
bool mica_cli_config_read(const mica_cli_command *command, const char *path, mica_cli_args *args);
/** The command's option of this name; NULL if there is none, and *nearest a name that is like it. */
const mica_cli_option *mica_cli_option_find(const mica_cli_command *command, const char *name, const char **nearest);
/** Puts a value into args; false if the option does not take it: what it takes is described in `out`. */
bool mica_cli_option_store(const mica_cli_option *option, const char *text, mica_cli_args *args);
void mica_cli_option_describe(const mica_cli_option *option, char *out, size_t size);
/** The name nearest to word by edit distance; NULL if there is none. */
const char *mica_cli_nearest(const char *word, const char *const *names, size_t count);

// ---- help ------------------------------------------------------------------------------------------------
void mica_cli_help(FILE *out);
void mica_cli_help_command(FILE *out, const mica_cli_command *command);
void mica_cli_man_page(FILE *out);

// ---- saying things -----------------------------------------------------------------------------------------
/** "mica: <message>" on stderr, one line. Returns MICA_EXIT_FAILED. */
int mica_cli_fail(const char *fmt, ...) MICA_PRINTF(1, 2);
/** The same for an error of the library about `what`, which is left out if the message starts with it. */
int mica_cli_fail_error(const char *what, const mica_error *err);
/** "mica: <command>: <message>; see mica help <command>". Returns MICA_EXIT_USAGE. */
int mica_cli_usage(const char *command, const char *fmt, ...) MICA_PRINTF(2, 3);
/** A remark on stderr, unless --quiet. */
void mica_cli_note(const mica_cli_args *args, const char *fmt, ...) MICA_PRINTF(2, 3);
/** Colours on this stream: a terminal, and no NO_COLOR. */
bool mica_cli_colour(FILE *stream);
/** Flushes stdout; a failure (disk full, closed pipe) is reported and turns status 0 into 1. */
int mica_cli_finish(int status);
/** True once stdout cannot be written any more. */
bool mica_cli_output_lost(void);

// ---- memory, input -----------------------------------------------------------------------------------------
/** As realloc, but ends the program with the usual line when there is no memory. */
void *mica_cli_realloc(void *p, size_t size);

typedef struct mica_cli_text {
    char *data; // NUL-terminated after data[size]
    size_t size, capacity;
} mica_cli_text;
void mica_cli_append(mica_cli_text *text, const char *bytes, size_t n);
/** An allocated copy of n bytes, NUL-terminated. */
char *mica_cli_copy(const char *text, size_t n);
/** a, b and c in one, allocated. */
char *mica_cli_join(const char *a, const char *b, const char *c);
/** All of stdin; false after a complaint. */
bool mica_cli_read_stdin(const mica_cli_args *args, const char *what, mica_cli_text *text);
/** All of a file; false after a complaint. */
bool mica_cli_read_file(const char *path, mica_cli_text *text);
/** One line of stdin without its end; false at the end of the input. */
bool mica_cli_read_line(mica_cli_text *line);
/** One JSON string, nothing else, unescaped into text; otherwise false and *why says what is wrong. */
bool mica_cli_read_json_string(const char *line, mica_cli_text *text, const char **why);

/** Path of MODEL: itself if there is such a file or folder, else the model of that name in the cache. The result is
 * allocated; NULL after a complaint. */
char *mica_cli_model_path(const char *name);
/** "<cache>/models/", allocated; NULL when no cache folder is known. */
char *mica_cli_model_cache(void);

// ---- JSON output ---------------------------------------------------------------------------------------------
// Values written one after another inside an array or object get their commas from the writer.
typedef struct mica_cli_json {
    FILE *out;
    bool comma;
} mica_cli_json;
void mica_cli_json_open(mica_cli_json *j, const char *key, char bracket); // '[' or '{'; key NULL outside objects
void mica_cli_json_close(mica_cli_json *j, char bracket);
void mica_cli_json_text(mica_cli_json *j, const char *key, const char *s, size_t n);
void mica_cli_json_string(mica_cli_json *j, const char *key, const char *s);
void mica_cli_json_int(mica_cli_json *j, const char *key, int64_t v);
void mica_cli_json_float(mica_cli_json *j, const char *key, float v); // shortest that reads back; null if not finite
void mica_cli_json_double(mica_cli_json *j, const char *key, double v);
void mica_cli_json_bool(mica_cli_json *j, const char *key, bool v);
void mica_cli_json_null(mica_cli_json *j, const char *key);
/** A value that is JSON already. */
void mica_cli_json_raw(mica_cli_json *j, const char *key, const char *json);
void mica_cli_json_ints(mica_cli_json *j, const char *key, const int32_t *v, size_t n);
/** Ends the value with a newline. */
void mica_cli_json_end(mica_cli_json *j);

// ---- Ctrl-C --------------------------------------------------------------------------------------------------
struct mica_stream;
/** From here on Ctrl-C cancels this stream; NULL: it ends the program with status 130 at once. */
void mica_cli_watch(struct mica_stream *stream);
/** From here on Ctrl-C is only noted, for work that asks mica_cli_stopped now and then; mica_cli_watch(NULL) ends this. */
void mica_cli_watch_flag(void);
/** Whether Ctrl-C was pressed. */
bool mica_cli_stopped(void);
/** From here on Ctrl-C stops what is watched, and never the program. */
void mica_cli_stay(void);
/** It was, and has been dealt with: what follows starts afresh. */
void mica_cli_forget_stop(void);
#endif
