// SPDX-License-Identifier: Apache-2.0
// Line editing over libedit. Characters are read here, so that Ctrl-C can end a line that is being typed. The history is kept in the cache
// folder, readable by its owner only.
#include "cli/line.h"
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>
#ifdef MICA_LIBEDIT
#include <histedit.h>
#endif

struct mica_cli_line {
    const char *prompt;
    bool terminal, more; // more: inside a line that goes on
#ifdef MICA_LIBEDIT
    EditLine *edit;
    History *history;
    char *history_file;
#endif
};

// The signal may come to any thread, so it also makes a pipe readable, which whoever waits for input looks at.
static volatile sig_atomic_t interrupted;
static int wake[2] = {-1, -1};
static void on_interrupt(int sig) {
    int saved = errno;
    (void)sig;
    interrupted = 1;
    if (write(wake[1], "", 1) < 0) errno = 0; // full: readable all the same
    errno = saved;
}

// True when there is something to read, or the end; false after Ctrl-C.
static bool wait_for_input(void) {
    struct pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {wake[0], POLLIN, 0}};
    while (!interrupted && poll(p, 2, -1) < 0 && errno == EINTR) {}
    return !interrupted;
}

// While a line is typed, Ctrl-C drops it; before and after, the rest of the command decides.
static struct sigaction catch_interrupts(void) {
    struct sigaction action = {.sa_handler = on_interrupt}, before; // no SA_RESTART: the read is to end
    sigemptyset(&action.sa_mask);
    interrupted = 0;
    for (char c; read(wake[0], &c, 1) > 0;) {}
    sigaction(SIGINT, &action, &before);
    return before;
}

#ifdef MICA_LIBEDIT
static char *prompt_of(EditLine *edit) {
    mica_cli_line *line = NULL;
    el_get(edit, EL_CLIENTDATA, &line);
    return (char *)(uintptr_t)(line->more ? "… " : line->prompt);
}

static int read_character(EditLine *edit, wchar_t *c) {
    (void)edit;
    mbstate_t state = {0};
    for (char byte;;) {
        ssize_t n = wait_for_input() ? read(STDIN_FILENO, &byte, 1) : -1;
        if (n < 0 && errno == EINTR && !interrupted) continue;
        if (n <= 0) return n == 0 ? 0 : -1;
        size_t got = mbrtowc(c, &byte, 1, &state);
        if (got == (size_t)-1) state = (mbstate_t){0}; // not a character of this locale: dropped
        else if (got != (size_t)-2) return 1;
    }
}

static void open_history(mica_cli_line *line) {
    HistEvent event;
    char *models = mica_cli_model_cache();
    line->history = history_init();
    if (!line->history) mica_cli_fail("chat: no memory for a history");
    else {
        history(line->history, &event, H_SETSIZE, 1000);
        history(line->history, &event, H_SETUNIQUE, 1);
        el_set(line->edit, EL_HIST, history, line->history);
    }
    if (models && strlen(models) > 8) { // "<cache>/models/"
        models[strlen(models) - 7] = 0;
        mkdir(models, 0777);
        line->history_file = mica_cli_join(models, "chat-history", "");
        if (line->history) history(line->history, &event, H_LOAD, line->history_file);
    }
    free(models);
}

static void open_editor(mica_cli_line *line) {
    setlocale(LC_CTYPE, "");
    line->edit = el_init("mica", stdin, stdout, stderr);
    if (!line->edit) return;
    el_set(line->edit, EL_CLIENTDATA, line);
    el_set(line->edit, EL_PROMPT, prompt_of);
    el_set(line->edit, EL_EDITOR, "emacs");
    el_set(line->edit, EL_GETCFN, read_character);
    open_history(line);
    el_source(line->edit, NULL); // ~/.editrc
}

static mica_cli_line_status edit_line(mica_cli_line *line, mica_cli_text *text) {
    int n = 0;
    HistEvent event;
    const char *typed = el_gets(line->edit, &n);
    if (interrupted) {
        el_reset(line->edit);
        putchar('\n');
        return MICA_CLI_LINE_STOPPED;
    }
    if (!typed || n <= 0) return putchar('\n'), MICA_CLI_LINE_END;
    if (line->history && n > 1) history(line->history, &event, H_ENTER, typed);
    mica_cli_append(text, typed, (size_t)n - (typed[n - 1] == '\n'));
    return MICA_CLI_LINE_TEXT;
}

static void close_editor(mica_cli_line *line) {
    HistEvent event;
    if (line->history && line->history_file) {
        mode_t before = umask(077);
        history(line->history, &event, H_SAVE, line->history_file);
        umask(before);
    }
    if (line->history) history_end(line->history);
    if (line->edit) el_end(line->edit);
    free(line->history_file);
}
#endif

static mica_cli_line_status plain_line(mica_cli_line *line, mica_cli_text *text) {
    if (line->terminal) fputs(line->more ? "… " : line->prompt, stdout), fflush(stdout);
    mica_cli_text one = {0};
    bool got = (!line->terminal || wait_for_input()) && mica_cli_read_line(&one);
    if (got) mica_cli_append(text, one.data, one.size);
    free(one.data);
    if (interrupted) clearerr(stdin);
    if (interrupted || (!got && line->terminal)) putchar('\n');
    return interrupted ? MICA_CLI_LINE_STOPPED : got ? MICA_CLI_LINE_TEXT : MICA_CLI_LINE_END;
}

mica_cli_line *mica_cli_line_open(const char *prompt) {
    mica_cli_line *line = mica_cli_realloc(NULL, sizeof *line);
    if (wake[0] < 0 && pipe2(wake, O_CLOEXEC | O_NONBLOCK) < 0) wake[0] = wake[1] = -1; // then Ctrl-C waits for the next key
    *line = (mica_cli_line){.prompt = prompt, .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
#ifdef MICA_LIBEDIT
    if (line->terminal) open_editor(line);
#endif
    return line;
}

static mica_cli_line_status read_one(mica_cli_line *line, mica_cli_text *text) {
    struct sigaction before = catch_interrupts();
    mica_cli_line_status status;
#ifdef MICA_LIBEDIT
    if (line->edit) status = edit_line(line, text);
    else
#endif
        status = plain_line(line, text);
    sigaction(SIGINT, &before, NULL);
    return status;
}

mica_cli_line_status mica_cli_line_read(mica_cli_line *line, mica_cli_text *text) {
    text->size = 0;
    for (line->more = false;; line->more = true) {
        mica_cli_line_status status = read_one(line, text);
        if (status == MICA_CLI_LINE_STOPPED || (status == MICA_CLI_LINE_END && !line->more)) return status;
        if (status == MICA_CLI_LINE_END || !text->size || text->data[text->size - 1] != '\\') return MICA_CLI_LINE_TEXT;
        text->data[text->size - 1] = '\n';
    }
}

void mica_cli_line_close(mica_cli_line *line) {
#ifdef MICA_LIBEDIT
    close_editor(line);
#endif
    free(line);
}
