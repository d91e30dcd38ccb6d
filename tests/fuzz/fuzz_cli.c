// SPDX-License-Identifier: Apache-2.0
// Fuzzes what the command reads. The first byte says as what the rest is taken: arguments of a command (one a line), lines of `mica batch` or
// `mica classify` on stdin, the answers of an earlier `mica batch`, a JSON value, a folder for `mica discover`, a file of options (also as YAML) or the
// log of `mica train`.
#include "cli/answered.h"
#include "cli/batch_line.h"
#include "cli/classify_line.h"
#include "cli/config.h"
#include "cli/lines.h"
#include "cli/report.h"
#include "fuzz_file.h"
#include "mica/discover.h"
#include <stdlib.h>
#include <string.h>

// ---- arguments -----------------------------------------------------------------------------------------------
static void parse_arguments(char *text) {
    enum { MOST = 80 };
    char *argv[MOST + 1];
    int argc = 0;
    size_t commands = 0;
    while (mica_cli_commands[commands]) commands++;
    const mica_cli_command *command = mica_cli_commands[(unsigned char)*text % commands];
    if (*text) text++;
    for (char *save, *word = strtok_r(text, "\n", &save); word && argc < MOST; word = strtok_r(NULL, "\n", &save))
        if (!strchr(word, '/')) argv[argc++] = word; // no files but those of this folder
    argv[argc] = NULL;
    mica_cli_args args = {.decode_tokens = -1};
    if (mica_cli_parse(command, argc, argv, &args) && !args.help)
        if (args.word_count < command->min_words || args.word_count > command->max_words) abort();
    mica_cli_args_free(&args);
}

// ---- lines on stdin --------------------------------------------------------------------------------------------
static void batch_line(char *line, size_t size, size_t number) {
    static mica_cli_request r;
    mica_generate_options defaults = {.max_tokens = 5};
    if (mica_cli_request_read(&r, line, size, number, &defaults)) {
        if (!r.id || (r.prompt.text != NULL) + (r.prompt.ids != NULL) + (r.prompt.chat != NULL) != 1) abort();
        if (r.prompt.text && strlen(r.prompt.text) != r.prompt.length) abort();
        for (size_t i = 0; r.prompt.chat && i < r.chat.count; i++)
            if (r.chat.messages[i].json[0] != '{') abort();
        for (size_t i = 0; i < r.prompt.count; i++)
            if (r.prompt.ids && r.prompt.ids[i] < 0) abort();
        for (size_t i = 0; i < r.options.stop_count; i++) fuzz_touch(r.options.stop[i], strlen(r.options.stop[i]));
    } else if (!r.why[0] || !r.id) abort();
    mica_cli_request_clear(&r);
}

static void classify_line(char *line, size_t size, size_t number, mica_cli_text_form form) {
    mica_cli_text_line t;
    if (mica_cli_text_line_read(&t, line, size, number, form) != (t.text != NULL) || (!t.text && !t.why[0])) abort();
    if (t.text) fuzz_touch(t.text, strlen(t.text));
    if (t.id) fuzz_touch(t.id, strlen(t.id));
    mica_cli_text_line_clear(&t);
}

static void read_lines(const uint8_t *data, size_t size, bool batch, mica_cli_text_form form) {
    static int fd = -1;
    mica_cli_lines lines;
    char *line;
    size_t n, total = 0;
    if (fd < 0 && ((fd = memfd_create("stdin", 0)) < 0 || dup2(fd, STDIN_FILENO) < 0)) abort();
    if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size || lseek(STDIN_FILENO, 0, SEEK_SET)) abort();
    mica_cli_lines_open(&lines);
    while (mica_cli_lines_next(&lines, true, &line, &n) == MICA_CLI_LINE) {
        total += n;
        if (line[n]) abort();
        if (batch) batch_line(line, n, lines.number);
        else classify_line(line, n, lines.number, form);
    }
    if (total > size || lines.failed) abort();
    mica_cli_lines_free(&lines);
}

// ---- files -----------------------------------------------------------------------------------------------------
static void read_answers(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    mica_cli_answered a = {0};
    fuzz_file(data, size, path);
    FILE *f = mica_cli_answered_open(&a, path);
    if (!f) return;
    if (fseeko(f, 0, SEEK_END) || ftello(f) > (off_t)size) abort();
    size_t known = 0;
    for (size_t i = 0; i < a.capacity; i++) known += a.slots[i] && mica_cli_answered_has(&a, a.slots[i]);
    if (known != a.count) abort();
    fclose(f);
    mica_cli_answered_free(&a);
}

static void read_config(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    mica_cli_args args = {.decode_tokens = -1};
    fuzz_file(data, size, path);
    if (mica_cli_config_read(&mica_cli_train, path, &args) && args.train.targets) fuzz_touch(args.train.targets, strlen(args.train.targets));
    mica_cli_args_free(&args);
}

static void read_log(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    mica_cli_run_log log;
    fuzz_file(data, size, path);
    if (mica_cli_run_log_read(path, &log) && !log.model) abort();
    for (size_t i = 0; i < log.config_count; i++) fuzz_touch(log.config[i].value, strlen(log.config[i].value));
    for (size_t i = 0; i < log.sample_count; i++) fuzz_touch(log.samples[i].text, strlen(log.samples[i].text));
    mica_cli_run_log_free(&log);
}

static void put(const char *folder, const char *name, const uint8_t *data, size_t size) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || (size && fwrite(data, 1, size, f) != size) || fclose(f)) abort();
}

// A model's folder with this config.json, and a file that calls itself GGUF.
static void discover(const uint8_t *data, size_t size) {
    char folder[] = "/dev/shm/mica-fuzz-cli-XXXXXX", path[200];
    static const char *const names[] = {"config.json", "model.safetensors", "m.gguf"};
    mica_discovery found = {0};
    mica_error err = {0};
    if (!mkdtemp(folder)) abort();
    put(folder, names[0], data, size), put(folder, names[1], data, 0), put(folder, names[2], data, size);
    if (!mica_discover(folder, &found, &err)) abort();
    for (size_t i = 0; i < found.count; i++) {
        if (memchr(found.items[i].model_type, 0, sizeof found.items[i].model_type) == NULL || found.items[i].num_files < 1) abort();
        fuzz_touch(found.items[i].path, strlen(found.items[i].path));
    }
    mica_discovery_free(&found);
    for (size_t i = 0; i < 3; i++) snprintf(path, sizeof path, "%s/%s", folder, names[i]), unlink(path);
    rmdir(folder);
}

static void walk(const mica_cli_value *v, int depth) {
    mica_cli_text key = {0}, string = {0};
    mica_cli_value child;
    double number;
    size_t end = 0;
    if (mica_cli_json_is(v, '"') && !mica_cli_json_string_of(v, &string)) abort();
    mica_cli_json_number_of(v, &number);
    bool list = mica_cli_json_is(v, '[') || mica_cli_json_is(v, '{');
    for (const char *at = NULL; list && mica_cli_json_next(v, &at, &key, &child);) {
        size_t from = (size_t)(child.text - v->text);
        if (from < end || from + child.size >= v->size || depth > 100) abort();
        end = from + child.size;
        walk(&child, depth + 1);
    }
    free(key.data);
    free(string.data);
}

static void read_json(char *text) {
    mica_cli_value v;
    mica_cli_ints ints = {0};
    mica_cli_text string = {0};
    const char *why = NULL;
    if (mica_cli_json_read(text, &v, &why)) walk(&v, 0);
    else if (!why) abort();
    if (!mica_cli_read_json_string(text, &string, &why) && !why) abort();
    mica_cli_read_ints(text, -5, INT32_MAX, &ints);
    free(ints.items);
    free(string.data);
}

/** What is made of YAML must be JSON: anything but too deep for its reader. */
static void read_yaml(const char *text, size_t size) {
    mica_cli_text json = {0};
    mica_cli_value v;
    char said[160] = "";
    const char *why = NULL;
    if (mica_cli_yaml_to_json(text, size, &json, said, sizeof said)) {
        if (strlen(json.data) != json.size || !mica_cli_json_read(json.data, &v, &why)) abort();
    } else if (!said[0]) abort();
    free(json.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    const uint8_t what = data[0];
    char *text = malloc(size);
    memcpy(text, data + 1, --size);
    text[size++] = 0;
    switch (what) {
    case 'a': parse_arguments(text); break;
    case 'b': read_lines(data + 1, size - 1, true, (mica_cli_text_form){0}); break;
    case 'l': read_lines(data + 1, size - 1, false, (mica_cli_text_form){0}); break;
    case 'j': read_lines(data + 1, size - 1, false, (mica_cli_text_form){.json = true}); break;
    case 'c': read_lines(data + 1, size - 1, false, (mica_cli_text_form){.field = 2}); break;
    case 'r': read_answers(data + 1, size - 1); break;
    case 'o': read_config(data + 1, size - 1); break;
    case 'y': read_yaml(text, size - 1); break;
    case 't': read_log(data + 1, size - 1); break;
    case 'd': discover(data + 1, size - 1); break;
    default: read_json(text);
    }
    free(text);
    return 0;
}
