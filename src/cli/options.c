// SPDX-License-Identifier: Apache-2.0
// Options by table: each row names an option, its kind, its range, where its value goes and what the help says. The
// parser takes `--name value`, `--name=value`, `-n 5`, `-n5` in any place, and `--` before words that begin with a dash.
// What is wrong is named together with the nearest thing that would be right.
#include "cli/cli.h"
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(mica_cli_args, field)
#define MANY 1e9

const mica_cli_option mica_cli_common_options[] = {
    {"json", 0, MICA_CLI_FLAG, AT(json), 0, 0, NULL, "print one JSON value on stdout and nothing else there"},
    {"quiet", 0, MICA_CLI_FLAG, AT(quiet), 0, 0, NULL, "no remarks and no progress on stderr, only errors"},
    {"threads", 0, MICA_CLI_INT, AT(threads), 1, 4096, "N", "compute with N threads (default: one per CPU of this process)"},
    {"device", 0, MICA_CLI_STRING, AT(device), 0, 0, "NAME", "compute on this device: cpu (default)"},
    {"backend", 0, MICA_CLI_STRING, AT(backend), 0, 0, "NAME", "run models with this backend: cpu (default) or mlx_lm"},
    {"help", 'h', MICA_CLI_FLAG, AT(help), 0, 0, NULL, "print this help"},
    {.name = NULL},
};

const mica_cli_option mica_cli_generation_options[] = {
    {"max-tokens", 'n', MICA_CLI_INT, AT(max_tokens), 1, MANY, "N", "stop after N tokens (default 256)"},
    {"temp", 0, MICA_CLI_NUMBER, AT(temp), 0, 100, "X", "temperature; 0 takes the most likely token each time (default 0)"},
    {"top-k", 0, MICA_CLI_INT, AT(top_k), 0, MANY, "K", "draw from the K most likely tokens only; 0 is off (default 0)"},
    {"top-p", 0, MICA_CLI_NUMBER, AT(top_p), 0, 1, "P", "draw from the most likely tokens that make up P; 0 is off (default 0)"},
    {"min-p", 0, MICA_CLI_NUMBER, AT(min_p), 0, 1, "P", "drop tokens less likely than P times the best; 0 is off (default 0)"},
    {"repeat-penalty", 0, MICA_CLI_NUMBER, AT(repeat_penalty), 0, 100, "X",
     "make tokens of prompt and answer less likely; 0 and 1 are off (default 0)"},
    {"presence-penalty", 0, MICA_CLI_NUMBER, AT(presence_penalty), -100, 100, "X",
     "take X off the logits of tokens already in the answer (default 0)"},
    {"frequency-penalty", 0, MICA_CLI_NUMBER, AT(frequency_penalty), -100, 100, "X",
     "take X off for each time that a token is in the answer (default 0)"},
    {"logit-bias", 0, MICA_CLI_LIST, AT(logit_bias), 0, 0, "ID=X",
     "add X to the logit of token ID; -inf forbids it; may be repeated"},
    {"order", 0, MICA_CLI_STRING, AT(order), 0, 0, "LIST", "order of the sampler (default top_p,min_p,top_k,temperature)"},
    {"seed", 0, MICA_CLI_LONG, AT(seed), 0, 9e15, "N", "seed of the random draw; equal seeds give equal texts (default 0)"},
    {"stop", 0, MICA_CLI_LIST, AT(stop), 0, 0, "TEXT", "end the answer before TEXT; may be repeated"},
    {"ignore-eos", 0, MICA_CLI_FLAG, AT(ignore_eos), 0, 0, NULL, "go on past the model's end of text"},
    {"min-tokens", 0, MICA_CLI_INT, AT(min_tokens), 0, MANY, "N", "no end of text before N tokens (default 0)"},
    {"speculate", 0, MICA_CLI_INT, AT(speculate), 0, 7, "N",
     "guess up to N tokens ahead where the text repeats itself; the answer stays the same (default 0)"},
    {"logprobs", 0, MICA_CLI_INT, AT(logprobs), 1, MANY, "K",
     "with --json: the log-probability of each token and of the K most likely ones"},
    {"ids", 0, MICA_CLI_INTS, AT(ids), 0, INT32_MAX, "1,2,3", "the prompt as token ids, used as they are"},
    {"context", 0, MICA_CLI_INT, AT(context), 1, MANY, "N", "most positions of prompt and answer (default: the model's own)"},
    {"use-adapter", 0, MICA_CLI_STRING, AT(use_adapter), 0, 0, "NAME", "answer with the adapter of that NAME; \"\": without any"},
    {"stats", 0, MICA_CLI_FLAG, AT(stats), 0, 0, NULL, "print the metrics on stderr"},
    {.name = NULL},
};

const mica_cli_option mica_cli_loading_options[] = {
    {"activations", 0, MICA_CLI_STRING, AT(activations), 0, 0, "KIND",
     "inputs of quantised layers: exact (default), or int8, which is faster and rounds them"},
    {"adapter", 0, MICA_CLI_LIST, AT(adapters), 0, 0, "[NAME=]DIR",
     "add the LoRA adapter in DIR (mlx-lm, PEFT or go-mlx) to the weights, or with NAME only for what chooses it; may be repeated"},
    {"python", 0, MICA_CLI_STRING, AT(python), 0, 0, "PATH", "--backend mlx_lm: the interpreter (default $MICA_PYTHON, else that of the active environment)"},
    {"memory-budget", 0, MICA_CLI_SIZE, AT(memory_budget), 1, 9e15, "SIZE", "most memory that weights and caches may take together (default: no limit)"},
    {"kv-bits", 0, MICA_CLI_INT, AT(kv_bits), 8, 16, "B", "cache keys and values in 8 bits (default 16: as computed)"},
    {.name = NULL},
};

// ---- nearest name ------------------------------------------------------------------------------------------
static size_t min3(size_t a, size_t b, size_t c) { return a < b ? (a < c ? a : c) : (b < c ? b : c); }

/** Edit distance (insert, delete, replace, swap neighbours) of words up to 63 bytes. */
static size_t distance(const char *a, const char *b) {
    enum { N = 64 };
    size_t la = strnlen(a, N - 1), lb = strnlen(b, N - 1), rows[3][N];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= lb; j++) above[j] = before[j] = j;
    for (size_t i = 1; i <= la; i++) {
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < row[j]) row[j] = before[j - 2] + 1;
        }
        size_t *old = before;
        before = above, above = row, row = old;
    }
    return above[lb];
}

/** Distance for suggestions: a word that begins or ends a name counts as near it ("tokens" and "max-tokens"). */
static size_t remoteness(const char *word, const char *name) {
    size_t d = 2 * distance(word, name), n = strlen(word), m = strlen(name);
    bool part = n >= 3 && n < m && (memcmp(name, word, n) == 0 || memcmp(name + m - n, word, n) == 0);
    return part ? (d < 3 ? d : 3) : d;
}

const char *mica_cli_nearest(const char *word, const char *const *names, size_t count) {
    const char *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t d = remoteness(word, names[i]);
        if (d < least) least = d, best = names[i];
    }
    return best;
}

// ---- tables --------------------------------------------------------------------------------------------------
void mica_cli_each_option(const mica_cli_command *command, void (*visit)(const mica_cli_option *option, void *to), void *to) {
    const mica_cli_option *groups[] = {command->options, (command->groups & MICA_CLI_GENERATION) ? mica_cli_generation_options : NULL,
                                       (command->groups & MICA_CLI_LOADING) ? mica_cli_loading_options : NULL,
                                       (command->groups & MICA_CLI_COMMON) ? mica_cli_common_options : NULL};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (const mica_cli_option *o = groups[g]; o && o->name; o++) visit(o, to);
}

enum { MOST_OPTIONS = 128 };
typedef struct option_list {
    const mica_cli_option *items[MOST_OPTIONS];
    const char *names[MOST_OPTIONS];
    bool given[MOST_OPTIONS];
    size_t count;
} option_list;

static void collect(const mica_cli_option *option, void *to) {
    option_list *list = to;
    if (list->count == MOST_OPTIONS) return;
    list->items[list->count] = option;
    list->names[list->count++] = option->name;
}

static const mica_cli_option *find_long(const option_list *list, const char *name, size_t n) {
    for (size_t i = 0; i < list->count; i++)
        if (strlen(list->names[i]) == n && memcmp(list->names[i], name, n) == 0) return list->items[i];
    return NULL;
}

static const mica_cli_option *find_letter(const option_list *list, char letter) {
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i]->letter && list->items[i]->letter == letter) return list->items[i];
    return NULL;
}

// ---- values ----------------------------------------------------------------------------------------------------
static bool read_long(const char *text, int64_t *v) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    *v = value;
    return end != text && !*end && errno == 0 && text[strspn(text, " \t\n")];
}

static bool read_number(const char *text, double *v) {
    char *end;
    errno = 0;
    *v = strtod(text, &end);
    return end != text && !*end && isfinite(*v);
}

// Bytes; K, M, G and T are powers of 1024, with or without B or iB behind.
static bool read_size(const char *text, double *v) {
    static const char units[] = "KMGT";
    char *end;
    *v = strtod(text, &end);
    if (end == text || !isfinite(*v) || *v < 0 || !text[strspn(text, " \t\n")]) return false;
    const char *unit = *end ? strchr(units, *end >= 'a' && *end <= 'z' ? *end - 32 : *end) : NULL;
    for (; unit && unit >= units; unit--) *v *= 1024;
    if (unit) end++;
    return !*end || strcmp(end, "B") == 0 || (unit && strcmp(end, "iB") == 0);
}

/** Is the text one of the words in "on|off|auto"? */
static bool among(const char *text, const char *words) {
    size_t n = strlen(text);
    for (const char *w = words;; w++) {
        size_t length = strcspn(w, "|");
        if (length == n && memcmp(w, text, n) == 0) return true;
        if (!*(w += length)) return false;
    }
}

bool mica_cli_read_ints(const char *text, int64_t low, int64_t high, mica_cli_ints *ints) {
    size_t capacity = 0;
    free(ints->items);
    *ints = (mica_cli_ints){0};
    for (const char *s = text + strspn(text, " \t\r\n"); *s;) {
        char *end;
        errno = 0;
        long long v = strtoll(s, &end, 10);
        if (end == s || errno || v < low || v > high) return false;
        if (ints->count == capacity) ints->items = mica_cli_realloc(ints->items, (capacity = 2 * capacity + 16) * sizeof *ints->items);
        ints->items[ints->count++] = (int32_t)v;
        s = end + strspn(end, " \t\r\n");
        if (!*s) break;
        if (*s == ',') s += 1 + strspn(s + 1, " \t\r\n");
        else if (s == end) return false; // neither comma nor blank
        if (!*s) return false;           // a comma at the end
    }
    return true;
}

/** "a whole number from 1 to 10": what an option takes. */
static void describe(const mica_cli_option *o, char *out, size_t size) {
    if (o->kind == MICA_CLI_CHOICE || o->kind == MICA_CLI_SIZE) {
        snprintf(out, size, "%s%s", o->kind == MICA_CLI_SIZE ? "bytes, as in 512M or 4G" : "one of ", o->kind == MICA_CLI_SIZE ? "" : o->value);
        return;
    }
    const char *text = o->kind == MICA_CLI_FLAG ? "true or false" : o->kind == MICA_CLI_LIST ? "texts" : "a text";
    if (o->kind == MICA_CLI_FLAG || o->kind == MICA_CLI_LIST || o->kind == MICA_CLI_STRING || o->kind == MICA_CLI_MAYBE) {
        snprintf(out, size, "%s", text);
        return;
    }
    const char *what = o->kind == MICA_CLI_NUMBER ? "a number" : o->kind == MICA_CLI_INTS ? "whole numbers with commas" : "a whole number";
    if (o->high >= MANY) snprintf(out, size, "%s, %.0f or more", what, o->low);
    else snprintf(out, size, "%s from %g to %g", what, o->low, o->high);
}

static void append_string(mica_cli_strings *list, const char *s) {
    list->items = mica_cli_realloc(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = s;
}

static bool store(const mica_cli_option *o, const char *text, mica_cli_args *args) {
    void *at = (char *)args + o->offset;
    int64_t whole = 0;
    double number = 0;
    switch (o->kind) {
    case MICA_CLI_FLAG: return *(bool *)at = true;
    case MICA_CLI_STRING:
    case MICA_CLI_MAYBE: return *(const char **)at = text, true;
    case MICA_CLI_CHOICE: return *(const char **)at = text, among(text, o->value);
    case MICA_CLI_SIZE:
        if (!read_size(text, &number) || number < o->low || number > o->high) return false;
        return *(int64_t *)at = (int64_t)number, true;
    case MICA_CLI_LIST: return append_string(at, text), true;
    case MICA_CLI_INTS:
        if (at == &args->ids) args->ids_given = true;
        return mica_cli_read_ints(text, (int64_t)o->low, (int64_t)o->high, at);
    case MICA_CLI_NUMBER:
        if (!read_number(text, &number) || number < o->low || number > o->high) return false;
        return *(double *)at = number, true;
    case MICA_CLI_INT:
    case MICA_CLI_LONG:
        if (!read_long(text, &whole) || (double)whole < o->low || (double)whole > o->high) return false;
        if (o->kind == MICA_CLI_LONG) *(int64_t *)at = whole;
        else *(int32_t *)at = (int32_t)whole;
        return true;
    }
    return false;
}

// ---- parsing -----------------------------------------------------------------------------------------------------
typedef struct parser {
    const mica_cli_command *command;
    option_list list;
    int argc, at;
    char **argv;
    mica_cli_args *args;
} parser;

/** A list on the command line replaces that of the configuration file. */
static void begin_list(parser *p, const mica_cli_option *o) {
    for (size_t i = 0; i < p->list.count; i++)
        if (p->list.items[i] == o && !p->list.given[i]) {
            p->list.given[i] = true;
            ((mica_cli_strings *)(void *)((char *)p->args + o->offset))->count = 0;
        }
}

// The next word, if it is one of the option's, else "on".
static const char *value_or_on(parser *p, const mica_cli_option *o) {
    if (p->at < p->argc && among(p->argv[p->at], o->value)) return p->argv[p->at++];
    return "on";
}

static bool take_value(parser *p, const mica_cli_option *o, const char *shown, const char *value) {
    if (o->kind == MICA_CLI_LIST) begin_list(p, o);
    if (o->kind == MICA_CLI_MAYBE && !value && (p->at == p->argc || p->argv[p->at][0] == '-')) value = "";
    if (o->kind == MICA_CLI_CHOICE && !value) value = value_or_on(p, o);
    if (o->kind != MICA_CLI_FLAG && !value) {
        if (p->at == p->argc) return mica_cli_usage(p->command->name, "%s needs a value: %s %s", shown, shown, o->value), false;
        value = p->argv[p->at++];
    }
    if (store(o, value, p->args)) return true;
    char wanted[100];
    describe(o, wanted, sizeof wanted);
    return mica_cli_usage(p->command->name, "%s takes %s, not \"%s\"", shown, wanted, value), false;
}

static bool take_long(parser *p, const char *word) {
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t n = equals ? (size_t)(equals - name) : strlen(name);
    const mica_cli_option *o = find_long(&p->list, name, n);
    char shown[80];
    snprintf(shown, sizeof shown, "--%.*s", (int)(n < 70 ? n : 70), name);
    if (!o)
        return mica_cli_usage(p->command->name, "unknown option %s; the nearest is --%s", shown,
                              mica_cli_nearest(shown + 2, p->list.names, p->list.count)), false;
    if (o->kind == MICA_CLI_FLAG && equals) return mica_cli_usage(p->command->name, "%s takes no value", shown), false;
    return take_value(p, o, shown, equals ? equals + 1 : NULL);
}

/** "-n 5", "-n5", "-h", and several flags in one word. */
static bool take_short(parser *p, const char *word) {
    for (const char *c = word + 1; *c; c++) {
        const char shown[] = {'-', *c, 0};
        const mica_cli_option *o = find_letter(&p->list, *c);
        if (!o)
            return mica_cli_usage(p->command->name, "unknown option %s; the nearest is --%s", word,
                                  mica_cli_nearest(word + 1, p->list.names, p->list.count)), false;
        if (o->kind != MICA_CLI_FLAG) return take_value(p, o, shown, c[1] ? c + 1 : NULL);
        take_value(p, o, shown, NULL);
    }
    return true;
}

static bool take_word(parser *p, const char *word) {
    mica_cli_args *args = p->args;
    if (args->word_count == p->command->max_words)
        return mica_cli_usage(p->command->name, "too many arguments: \"%s\" (wanted: %s)", word, p->command->synopsis), false;
    args->words[args->word_count++] = word;
    return true;
}

static bool take_all(parser *p) {
    bool ok = true, words_only = false;
    while (ok && p->at < p->argc) {
        const char *word = p->argv[p->at++];
        if (words_only || word[0] != '-' || !word[1]) ok = take_word(p, word);
        else if (strcmp(word, "--") == 0) words_only = true;
        else ok = word[1] == '-' ? take_long(p, word) : take_short(p, word);
    }
    return ok;
}

/** The configuration file first, then the words once more: they win. */
static bool take_over_config(parser *p, const mica_cli_args *initial) {
    const char *path = p->args->config;
    mica_cli_args_free(p->args);
    *p->args = *initial;
    p->at = 0;
    return mica_cli_config_read(p->command, path, p->args) && take_all(p);
}

bool mica_cli_parse(const mica_cli_command *command, int argc, char **argv, mica_cli_args *args) {
    const mica_cli_args initial = *args;
    parser p = {.command = command, .argc = argc, .argv = argv, .args = args};
    mica_cli_each_option(command, collect, &p.list);
    bool ok = take_all(&p);
    if (ok && args->config && !args->help) ok = take_over_config(&p, &initial);
    if (ok && !args->word_count && args->model) args->words[args->word_count++] = args->model;
    if (!ok || args->help || args->word_count >= command->min_words) return ok;
    mica_cli_usage(command->name, "too few arguments (wanted: %s)", command->synopsis);
    return false;
}

// ---- by name -------------------------------------------------------------------------------------------------------
const mica_cli_option *mica_cli_option_find(const mica_cli_command *command, const char *name, const char **nearest) {
    option_list list = {.count = 0};
    mica_cli_each_option(command, collect, &list);
    const mica_cli_option *o = find_long(&list, name, strlen(name));
    if (!o && nearest) *nearest = mica_cli_nearest(name, list.names, list.count);
    return o;
}

bool mica_cli_option_store(const mica_cli_option *option, const char *text, mica_cli_args *args) { return store(option, text, args); }
void mica_cli_option_describe(const mica_cli_option *option, char *out, size_t size) { describe(option, out, size); }

void mica_cli_args_free(mica_cli_args *args) {
    mica_cli_ints *ints[] = {&args->ids, &args->prefill, &args->depth, &args->batch};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) free(ints[i]->items);
    free(args->stop.items);
    free(args->logit_bias.items);
    free(args->train.sample_prompts.items);
    for (size_t i = 0; i < args->owned.count; i++) free((char *)(uintptr_t)args->owned.items[i]);
    free(args->owned.items);
    free(args->adapters.items);
}
