// SPDX-License-Identifier: Apache-2.0
// `mica template`: renders a chat template; one conversation, or with --jsonl one a line, streamed.
#include "cli/cli.h"
#include "mica/template.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct job {
    mica_template *template;
    mica_template_options options;
    mica_text text; // of the line before, used again
} job;

static bool render(job *t, const char *json, size_t size, mica_error *err) {
    t->text.len = 0;
    return mica_template_render(t->template, json, size, &t->options, &t->text, NULL, err);
}

static void print_text(const job *t, const mica_cli_args *args) {
    mica_cli_json j = {.out = stdout};
    if (!args->json && !args->jsonl) {
        if (t->text.len) fwrite(t->text.data, 1, t->text.len, stdout);
        return;
    }
    if (args->json) mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_text(&j, args->json ? "text" : NULL, t->text.data, t->text.len);
    if (args->json) mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static void print_error(const char *message) {
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "error", message);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

static int lines(job *t, const mica_cli_args *args) {
    mica_cli_text line = {0};
    struct stat st;
    bool from_file = fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode); // else someone may wait for each answer
    int status = MICA_EXIT_DONE;
    if (from_file) mica_cli_watch_flag();
    while (status == MICA_EXIT_DONE && !mica_cli_output_lost() && mica_cli_read_line(&line)) {
        mica_error err = {0};
        if (mica_cli_stopped()) status = MICA_EXIT_STOPPED;
        else if (render(t, line.data, line.size, &err)) print_text(t, args);
        else print_error(err.msg);
        if (!from_file) fflush(stdout);
    }
    if (ferror(stdin)) status = mica_cli_fail("stdin: cannot read");
    free(line.data);
    return status;
}

/** A conversation of one message of the user. */
static bool ask(const char *message, mica_cli_text *json) {
    char *data = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&data, &size);
    if (!out) return mica_cli_fail("template: out of memory"), false;
    mica_cli_json j = {.out = out};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_open(&j, "messages", '[');
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "role", "user");
    mica_cli_json_string(&j, "content", message);
    mica_cli_json_close(&j, '}');
    mica_cli_json_close(&j, ']');
    mica_cli_json_bool(&j, "add_generation_prompt", true);
    mica_cli_json_close(&j, '}');
    bool ok = fclose(out) == 0;
    if (ok) mica_cli_append(json, data, size);
    free(data);
    return ok || (mica_cli_fail("template: out of memory"), false);
}

static int one(job *t, const mica_cli_args *args) {
    mica_cli_text input = {0};
    mica_error err = {0};
    bool given = args->word_count > 1;
    int status = MICA_EXIT_DONE;
    if (given ? !ask(args->words[1], &input) : !mica_cli_read_stdin(args, "the conversation", &input)) status = MICA_EXIT_FAILED;
    else if (!render(t, input.data, input.size, &err)) status = mica_cli_fail_error("template", &err);
    else print_text(t, args);
    free(input.data);
    return status;
}

static int source(const job *t) {
    size_t size;
    const char *text = mica_template_source(t->template, &size);
    fwrite(text, 1, size, stdout);
    return MICA_EXIT_DONE;
}

static int run(const mica_cli_args *args) {
    if (args->jsonl && args->word_count > 1) return mica_cli_usage("template", "--jsonl reads stdin: give no MESSAGE");
    if (args->jsonl && args->json) return mica_cli_usage("template", "--json and --jsonl exclude each other");
    char *path = mica_cli_model_path(args->words[0]);
    if (!path) return MICA_EXIT_FAILED;
    mica_error err = {0};
    job t = {.template = mica_template_load(path, args->name, &err), .options = {.now = args->now, .as_given = args->as_given}};
    int status;
    if (!t.template) status = mica_cli_fail_error(path, &err);
    else status = args->source ? source(&t) : args->jsonl ? lines(&t, args) : one(&t, args);
    mica_text_free(&t.text);
    mica_template_free(t.template);
    free(path);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"jsonl", 0, MICA_CLI_FLAG, AT(jsonl), 0, 0, NULL, "each line of stdin is a conversation, each line of stdout a JSON string or {\"error\"}"},
    {"name", 0, MICA_CLI_STRING, AT(name), 0, 0, "NAME", "which of the model's templates (default: default, or tool_use with tools)"},
    {"now", 0, MICA_CLI_LONG, AT(now), 0, 9e15, "SECONDS", "the time that dates are taken from, since 1970, in UTC (default: the clock)"},
    {"as-given", 0, MICA_CLI_FLAG, AT(as_given), 0, 0, NULL, "pass the variables on as they are, without what transformers does to messages first"},
    {"source", 0, MICA_CLI_FLAG, AT(source), 0, 0, NULL, "print the template itself"},
    {.name = NULL},
};

const mica_cli_command mica_cli_template = {
    .name = "template",
    .synopsis = "MODEL|FILE.jinja [MESSAGE]",
    .summary = "render a chat template",
    .description =
        "Prints what the chat template of MODEL makes of a conversation: one message of the user, or from stdin\n"
        "{\"messages\":[…],\"tools\":[…],\"add_generation_prompt\":true,\"vars\":{…}}. With --json: {\"text\"}.",
    .example = "mica template smollm2-135m \"Hello\"\n"
               "mica template chat_template.jinja --jsonl < conversations.jsonl\n"
               "mica template smollm2-135m --source",
    .min_words = 1,
    .max_words = 2,
    .groups = MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
