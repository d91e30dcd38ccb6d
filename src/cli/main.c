// SPDX-License-Identifier: Apache-2.0
// The command `mica`: `mica COMMAND [arguments]`. This file holds the table of commands and picks one; each command is a
// file cmd_<name>.c with its description, its options and its function.
#include "cli/cli.h"
#include "mica/version.h"
#include <signal.h>
#include <string.h>

const mica_cli_command *const mica_cli_commands[] = {
    &mica_cli_generate, &mica_cli_chat,     &mica_cli_batch,   &mica_cli_classify,   &mica_cli_score,    &mica_cli_perplexity, &mica_cli_tokenize,
    &mica_cli_template, &mica_cli_train,    &mica_cli_convert, &mica_cli_fuse,       &mica_cli_info,     &mica_cli_discover,   &mica_cli_bench,
    &mica_cli_report,   &mica_cli_eval,
    NULL,
};

static const mica_cli_command *find(const char *name) {
    for (const mica_cli_command *const *c = mica_cli_commands; *c; c++)
        if (strcmp((*c)->name, name) == 0) return *c;
    return NULL;
}

static int unknown_command(const char *word) {
    const char *names[32] = {"help"};
    size_t count = 1;
    for (const mica_cli_command *const *c = mica_cli_commands; *c && count < 32; c++) names[count++] = (*c)->name;
    if (word[0] == '-') return mica_cli_usage(NULL, "unknown option %s before the command; the nearest is %s", word,
                                              mica_cli_nearest(word + strspn(word, "-"), (const char *const[]){"--help", "--version"}, 2));
    return mica_cli_usage(NULL, "unknown command \"%s\"; the nearest is \"%s\"", word, mica_cli_nearest(word, names, count));
}

/** `mica help [COMMAND]`; `mica help --man` prints the manual page, for the build. */
static int help(int argc, char **argv) {
    if (argc > 1) return mica_cli_usage(NULL, "help takes one command");
    if (argc == 0) return mica_cli_help(stdout), MICA_EXIT_DONE;
    if (strcmp(argv[0], "--man") == 0) return mica_cli_man_page(stdout), MICA_EXIT_DONE;
    const mica_cli_command *command = find(argv[0]);
    if (!command) return unknown_command(argv[0]);
    mica_cli_help_command(stdout, command);
    return MICA_EXIT_DONE;
}

static int run(const mica_cli_command *command, int argc, char **argv) {
    mica_cli_args args = {.decode_tokens = -1};
    int status = MICA_EXIT_USAGE;
    if (mica_cli_parse(command, argc, argv, &args)) {
        if (args.help) mica_cli_help_command(stdout, command), status = MICA_EXIT_DONE;
        else status = command->run(&args);
    }
    mica_cli_args_free(&args);
    return status;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); // a closed pipe is an error of the write, reported like any other
    mica_cli_watch(NULL);     // Ctrl-C: status 130, whatever the command does
    if (argc < 2) {
        mica_cli_help(stderr);
        return MICA_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0) return puts("mica " MICA_VERSION), mica_cli_finish(MICA_EXIT_DONE);
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return mica_cli_finish(help(argc - 2, argv + 2));
    const mica_cli_command *command = find(word);
    return mica_cli_finish(command ? run(command, argc - 2, argv + 2) : unknown_command(word));
}
