// SPDX-License-Identifier: Apache-2.0
// `mica chat`: a conversation through the model's chat template; one answer to MESSAGE, or an interactive chat with commands that start with
// a slash. A session keeps what was computed, so that each turn computes only what is new.
#include "cli/answer.h"
#include "cli/line.h"
#include "mica/adapter.h"
#include "mica/chat.h"
#include "mica/session.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct chat {
    const mica_cli_args *args;
    mica_model *model;
    mica_session *session; // NULL with backends that have none
    mica_generate_options options;
    mica_cli_text history, tools; // JSON array of messages from a file; tools as given
    char *system, *adapter;       // NULL: none; as at the start
    char **turns;                 // user, assistant, user, …
    size_t count, capacity;
} chat;

// ---- the conversation -----------------------------------------------------------------------------------
static void push(chat *c, const char *text, size_t n) {
    if (c->count == c->capacity) c->turns = mica_cli_realloc(c->turns, (c->capacity = 2 * c->capacity + 16) * sizeof *c->turns);
    c->turns[c->count++] = mica_cli_copy(text, n);
}

static void drop_to(chat *c, size_t count) {
    while (c->count > count) free(c->turns[--c->count]);
}

// The whole conversation as messages; to be freed.
static mica_message *messages(const chat *c, mica_chat *out) {
    mica_message *m = mica_cli_realloc(NULL, (c->count + 1) * sizeof *m);
    size_t n = 0;
    if (c->system) m[n++] = (mica_message){.role = "system", .content = c->system};
    for (size_t i = 0; i < c->count; i++) m[n++] = (mica_message){.role = i % 2 ? "assistant" : "user", .content = c->turns[i]};
    *out = (mica_chat){.history = c->history.size ? c->history.data : NULL, .messages = m, .count = n, .tools = c->tools.size ? c->tools.data : NULL,
                       .variables = c->args->vars, .allow_control = c->args->allow_control};
    return m;
}

static mica_stream *start(chat *c, const mica_chat *all, mica_error *err) {
    mica_prompt prompt = {.chat = all};
    return c->session ? mica_session_start(c->session, &prompt, &c->options, err) : mica_start(c->model, &prompt, &c->options, err);
}

static void print_json(const chat *c, const mica_chat *all, const mica_stream *stream, const mica_cli_answer *answer) {
    mica_text rendered = {0};
    mica_error err = {0};
    bool ok = mica_chat_render(c->model, all, &rendered, NULL, &err);
    mica_cli_text text = {.data = rendered.data, .size = rendered.len};
    mica_cli_answer_json(stream, answer, ok ? &text : NULL);
    mica_text_free(&rendered);
}

// The answer to the conversation as it is; it becomes the next turn. False after a complaint.
static bool answer_turn(chat *c) {
    mica_chat all;
    mica_message *list = messages(c, &all);
    mica_error err = {0};
    mica_cli_answer answer = {0};
    mica_stream *stream = start(c, &all, &err);
    bool ok = stream && mica_cli_answer_run(c->args, "chat", stream, &answer);
    if (!stream) mica_cli_fail_error("chat", &err);
    if (ok && c->args->json) print_json(c, &all, stream, &answer);
    if (ok) push(c, answer.text.data, answer.text.size);
    mica_cli_answer_free(&answer);
    mica_stream_free(stream);
    free(list);
    return ok;
}

// ---- commands of the interactive chat -------------------------------------------------------------------
static bool reset(chat *c, const char *rest) {
    (void)rest;
    drop_to(c, 0);
    c->history.size = 0;
    return true;
}

static bool set_system(chat *c, const char *rest) {
    free(c->system);
    c->system = *rest ? mica_cli_copy(rest, strlen(rest)) : NULL;
    return true;
}

static void json_message(mica_cli_json *j, const char *role, const char *content) {
    mica_cli_json_open(j, NULL, '{');
    mica_cli_json_string(j, "role", role);
    mica_cli_json_string(j, "content", content);
    mica_cli_json_close(j, '}');
}

// As a JSON array of messages.
static bool save(chat *c, const char *path) {
    FILE *f = *path ? fopen(path, "w") : NULL;
    if (!f) return mica_cli_fail("/save %s: %s", path, *path ? strerror(errno) : "give a file"), false;
    mica_cli_json j = {.out = f};
    const char *end = c->history.size ? strrchr(c->history.data, ']') : NULL;
    if (end) fwrite(c->history.data, 1, (size_t)(end - c->history.data), f);
    else mica_cli_json_open(&j, NULL, '[');
    j.comma = end && !strchr("[", end[-1]);
    if (c->system && !end) json_message(&j, "system", c->system);
    for (size_t i = 0; i < c->count; i++) json_message(&j, i % 2 ? "assistant" : "user", c->turns[i]);
    mica_cli_json_close(&j, ']');
    mica_cli_json_end(&j);
    bool ok = !ferror(f);
    ok = fclose(f) == 0 && ok;
    if (!ok) mica_cli_fail("/save %s: %s", path, strerror(errno));
    else mica_cli_note(c->args, "saved to %s", path);
    return ok;
}

// The conversation so far is replaced by the file's, if the template takes that.
static bool load(chat *c, const char *path) {
    mica_cli_text file = {0};
    mica_error err = {0};
    if (!*path) return mica_cli_fail("/load: give a file"), false;
    if (!mica_cli_read_file(path, &file)) return free(file.data), false;
    mica_chat all = {.history = file.data, .variables = c->args->vars, .messages = &(mica_message){.role = "user", .content = ""}, .count = 1};
    if (!mica_session_works(c->model) || mica_chat_render(c->model, &all, NULL, NULL, &err)) {
        reset(c, "");
        set_system(c, "");
        free(c->history.data);
        c->history = file;
        mica_cli_note(c->args, "loaded %s", path);
        return true;
    }
    free(file.data);
    return mica_cli_fail_error(path, &err), false;
}

// The next answers come with another adapter; the conversation stays.
static bool adapter(chat *c, const char *rest) {
    mica_adapter_info list[64];
    size_t n = mica_adapter_list(c->model, list, 64), i = 0;
    while (i < n && i < 64 && strcmp(list[i].name, rest) != 0) i++;
    if (*rest && (i == n || i == 64)) return mica_cli_fail("/adapter: there is no adapter \"%s\"", rest), false;
    free(c->adapter);
    c->options.adapter = c->adapter = mica_cli_copy(rest, strlen(rest));
    return true;
}

static bool help(chat *c, const char *rest);
static const struct { const char *name, *help; bool (*run)(chat *c, const char *rest); } commands[] = {
    {"/system", "/system TEXT  set the system message (nothing: none)", set_system},
    {"/reset", "/reset        forget the conversation", reset},
    {"/adapter", "/adapter NAME answer with this adapter of --adapter NAME=DIR (nothing: with none)", adapter},
    {"/save", "/save FILE    write the conversation as JSON", save},
    {"/load", "/load FILE    go on with a conversation from a file", load},
    {"/help", "/help         this list", help},
    {"/quit", "/quit         end (as Ctrl-D does)", NULL},
};

static bool help(chat *c, const char *rest) {
    (void)c, (void)rest;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) fprintf(stderr, "%s\n", commands[i].help);
    fprintf(stderr, "Ctrl-C stops an answer; a line that ends with \\ goes on with the next\n");
    return true;
}

// True: the chat goes on.
static bool run_command(chat *c, const char *text) {
    size_t n = strcspn(text, " \t\n");
    const char *rest = text + n + strspn(text + n, " \t\n"), *names[sizeof commands / sizeof *commands];
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        names[i] = commands[i].name;
        if (strlen(names[i]) != n || strncmp(names[i], text, n) != 0) continue;
        if (commands[i].run) commands[i].run(c, rest);
        return commands[i].run != NULL;
    }
    char word[40];
    snprintf(word, sizeof word, "%.*s", (int)n, text);
    mica_cli_fail("unknown command %s; the nearest is %s", word, mica_cli_nearest(word, names, sizeof names / sizeof *names));
    return true;
}

// ---- the two ways to chat -------------------------------------------------------------------------------
static int interact(chat *c) {
    mica_cli_line *line = mica_cli_line_open("> ");
    mica_cli_text text = {0};
    mica_cli_line_status got;
    bool failed = false, terminal = isatty(0);
    if (terminal) mica_cli_stay();
    if (terminal) mica_cli_note(c->args, "%s: /help lists commands", c->args->words[0]);
    while ((got = mica_cli_line_read(line, &text)) != MICA_CLI_LINE_END && !mica_cli_output_lost()) {
        if (got == MICA_CLI_LINE_STOPPED || !text.size) continue;
        if (text.data[0] == '/') {
            if (!run_command(c, text.data)) break;
            continue;
        }
        size_t before = c->count;
        push(c, text.data, text.size);
        if (!answer_turn(c)) drop_to(c, before), failed = true;
        mica_cli_forget_stop();
        if (terminal) putchar('\n');
    }
    free(text.data);
    mica_cli_line_close(line);
    return failed && !terminal ? MICA_EXIT_FAILED : MICA_EXIT_DONE;
}

static int one_answer(chat *c, const mica_cli_text *message) {
    push(c, message->data, message->size);
    if (!answer_turn(c)) return MICA_EXIT_FAILED;
    return mica_cli_stopped() ? MICA_EXIT_STOPPED : MICA_EXIT_DONE;
}

static int chat_with(chat *c, const mica_cli_text *message) {
    mica_error err = {0};
    c->model = mica_cli_load(c->args);
    if (!c->model) return MICA_EXIT_FAILED;
    int status = MICA_EXIT_FAILED;
    c->session = !message && mica_session_works(c->model) ? mica_session_new(c->model, &err) : NULL;
    if (err.code) mica_cli_fail_error("chat", &err);
    else status = message ? one_answer(c, message) : interact(c);
    mica_session_free(c->session);
    mica_model_free(c->model);
    return status;
}

static int run(const mica_cli_args *args) {
    chat c = {.args = args, .system = args->system ? mica_cli_copy(args->system, strlen(args->system)) : NULL};
    bool one = args->word_count > 1;
    mica_logit_bias *biases = NULL;
    mica_cli_text message = {0};
    int status = MICA_EXIT_USAGE;
    if (args->json && !one) mica_cli_usage("chat", "--json gives one answer: give a MESSAGE (\"-\": from stdin)");
    else if (args->ids_given) mica_cli_usage("chat", "--ids is for raw prompts: see mica generate");
    else if (mica_cli_generate_options(args, "chat", &c.options, &biases)) {
        bool ready = (!args->tools || mica_cli_read_file(args->tools, &c.tools)) && (!args->messages || mica_cli_read_file(args->messages, &c.history)) &&
                     (!one || mica_cli_prompt(args, "the message", &message));
        status = ready ? chat_with(&c, one ? &message : NULL) : MICA_EXIT_FAILED;
    }
    drop_to(&c, 0);
    free(c.turns), free(c.system), free(c.adapter), free(c.history.data), free(c.tools.data);
    free(message.data), free(biases);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"system", 0, MICA_CLI_STRING, AT(system), 0, 0, "TEXT", "the system message"},
    {"messages", 0, MICA_CLI_STRING, AT(messages), 0, 0, "FILE", "messages that come before: a JSON array of {\"role\",\"content\",…}"},
    {"tools", 0, MICA_CLI_STRING, AT(tools), 0, 0, "FILE", "tools that the model may call: a JSON array"},
    {"vars", 0, MICA_CLI_STRING, AT(vars), 0, 0, "JSON", "further variables of the template, as in '{\"enable_thinking\":false}'"},
    {"allow-control", 0, MICA_CLI_FLAG, AT(allow_control), 0, 0, NULL, "read control tokens spelled in messages as such"},
    {.name = NULL},
};

const mica_cli_command mica_cli_chat = {
    .name = "chat",
    .synopsis = "MODEL [MESSAGE]",
    .summary = "talk with a model through its chat template",
    .description =
        "With MESSAGE (\"-\": from stdin) prints one answer. Without, an interactive chat: /system, /reset, /adapter, /save, /load, /help, /quit; Ctrl-C\n"
        "stops an answer, not the chat. What messages say cannot forge control tokens, unless --allow-control is given.\n"
        "With --json: {\"rendered\",\"prompt_ids\",\"ids\",\"text\",\"finish_reason\",\"metrics\"}.",
    .example = "mica chat smollm2-135m \"How do plants make food?\"\nmica chat smollm2-135m --system \"You are a pirate.\" --temp 0.7",
    .min_words = 1,
    .max_words = 2,
    .groups = MICA_CLI_GENERATION | MICA_CLI_LOADING | MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
