// SPDX-License-Identifier: Apache-2.0
// Help texts and the manual page, both written from the tables of commands and options.
#include "cli/cli.h"
#include "mica/version.h"
#include <string.h>

static const char about[] = "mica runs language models in the MLX / Hugging Face layout, and GGUF files, on CPUs.";
static const char model_note[] =
    "MODEL is a model folder (config.json, *.safetensors, tokenizer.json), a .gguf file, or the name of one in the model\n"
    "cache: $MICA_CACHE/models, else $XDG_CACHE_HOME/mica/models, else ~/.cache/mica/models.";
static const char status_note[] = "Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.";

static const char *bold(FILE *out) { return mica_cli_colour(out) ? "\033[1m" : ""; }
static const char *plain(FILE *out) { return mica_cli_colour(out) ? "\033[0m" : ""; }

void mica_cli_help(FILE *out) {
    fprintf(out, "%s\n\n%sUsage%s\n  mica COMMAND MODEL [options]\n  mica help [COMMAND]\n  mica --version\n\n%sCommands%s\n", about,
            bold(out), plain(out), bold(out), plain(out));
    for (const mica_cli_command *const *c = mica_cli_commands; *c; c++) fprintf(out, "  %-10s %s\n", (*c)->name, (*c)->summary);
    fprintf(out, "\n%s\n%s\n", model_note, status_note);
}

/** "-n, --max-tokens N" */
static void spell(const mica_cli_option *o, char *out, size_t size) {
    char letter[8] = "    ";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    bool maybe = o->kind == MICA_CLI_CHOICE || o->kind == MICA_CLI_MAYBE; // the value may be left out
    snprintf(out, size, "%s--%s%s%s%s%s", letter, o->name, o->value ? " " : "", maybe ? "[" : "", o->value ? o->value : "", maybe ? "]" : "");
}

enum { WIDTH = 28 }; // of the column with the options

static void help_option(const mica_cli_option *o, void *to) {
    char spelled[80];
    spell(o, spelled, sizeof spelled);
    if (strlen(spelled) > WIDTH) fprintf(to, "  %s\n%*s %s\n", spelled, 2 + WIDTH, "", o->help);
    else fprintf(to, "  %-*s %s\n", WIDTH, spelled, o->help);
}

/** Each line of text with a prefix. */
static void put_lines(FILE *out, const char *prefix, const char *text) {
    while (*text) {
        size_t n = strcspn(text, "\n");
        fprintf(out, "%s%.*s\n", prefix, (int)n, text);
        text += n + (text[n] == '\n');
    }
}

void mica_cli_help_command(FILE *out, const mica_cli_command *command) {
    fprintf(out, "mica %s: %s\n\n%sUsage%s\n  mica %s %s [options]\n\n%s\n\n%sOptions%s\n", command->name, command->summary, bold(out),
            plain(out), command->name, command->synopsis, command->description, bold(out), plain(out));
    mica_cli_each_option(command, help_option, out);
    fprintf(out, "\n%sExample%s\n", bold(out), plain(out));
    put_lines(out, "  ", command->example);
}

// ---- manual page -------------------------------------------------------------------------------------------
/** Text for troff: dashes and backslashes kept, no line taken for a request. */
static void troff(FILE *out, const char *text) {
    for (bool line_start = true; *text; text++) {
        if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", out);
        if (*text == '-') fputs("\\-", out);
        else if (*text == '\\') fputs("\\e", out);
        else putc(*text, out);
        line_start = *text == '\n';
    }
}

static void man_option(const mica_cli_option *o, void *to) {
    char spelled[80];
    spell(o, spelled, sizeof spelled);
    fputs(".TP\n.B ", to);
    troff(to, spelled + strspn(spelled, " "));
    putc('\n', to);
    troff(to, o->help);
    putc('\n', to);
}

static void man_command(FILE *out, const mica_cli_command *c) {
    fprintf(out, ".SH %s\n.B mica %s\n", c->name, c->name);
    troff(out, c->synopsis);
    fputs(" [options]\n.PP\n", out);
    troff(out, c->description);
    fputs("\n.PP\nExample:\n.PP\n.nf\n.RS\n", out);
    troff(out, c->example);
    fputs("\n.RE\n.fi\n", out);
    for (const mica_cli_option *o = c->options; o && o->name; o++) man_option(o, out);
}

/** A group of options, and which commands take it (0: all do). */
static void man_group(FILE *out, const char *title, unsigned group, const mica_cli_option *options) {
    fprintf(out, ".SH %s\n", title);
    if (group) fputs("Taken by", out);
    const char *before = " ";
    for (const mica_cli_command *const *c = mica_cli_commands; group && *c; c++)
        if ((*c)->groups & group) fprintf(out, "%s%s", before, (*c)->name), before = ", ";
    if (group) fputs(".\n", out);
    for (const mica_cli_option *o = options; o->name; o++) man_option(o, out);
}

void mica_cli_man_page(FILE *out) {
    fprintf(out, ".TH MICA 1 \"\" \"mica %s\" \"User Commands\"\n.SH NAME\nmica \\- run language models on CPUs\n.SH SYNOPSIS\n", MICA_VERSION);
    fputs(".B mica\nCOMMAND MODEL [options]\n.br\n.B mica help\n[COMMAND]\n.br\n.B mica \\-\\-version\n.SH DESCRIPTION\n", out);
    troff(out, about);
    fputs("\n.PP\n", out);
    troff(out, model_note);
    fputs("\n.PP\nResults go to standard output, everything else to standard error.\n", out);
    for (const mica_cli_command *const *c = mica_cli_commands; *c; c++) man_command(out, *c);
    man_group(out, "OPTIONS OF GENERATION", MICA_CLI_GENERATION, mica_cli_generation_options);
    man_group(out, "OPTIONS OF LOADING", MICA_CLI_LOADING, mica_cli_loading_options);
    man_group(out, "OPTIONS OF EVERY COMMAND", 0, mica_cli_common_options);
    fputs(".SH EXIT STATUS\n", out);
    troff(out, status_note);
    fputs("\nA failure is one line on standard error: \"mica: what: why\".\n.SH ENVIRONMENT\n", out);
    fputs(".TP\n.B MICA_CPU\nref, avx2, avx512vnni, avx512, amx or neon: use the kernels of this level.\n", out);
    fputs(".TP\n.B MICA_CACHE\nFolder of models and compiled tokenizers.\n.TP\n.B MICA_PYTHON\nInterpreter of the backend mlx_lm.\n", out);
    fputs(".TP\n.B NO_COLOR\nIf set, no colours.\n", out);
}
