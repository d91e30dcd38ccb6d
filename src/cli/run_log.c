// SPDX-License-Identifier: Apache-2.0
// The log of a training run, read again. It may be that of a run that is under way or was killed: what is there counts, and a line that was not
// finished is passed over.
#include "cli/json_read.h"
#include "cli/report.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- lines ---------------------------------------------------------------------------------------------------
enum { STRINGS = 9, NUMBERS = 13 };
static const char *const string_names[STRINGS] = {"event", "model", "time", "mica", "prompt", "expected", "text", "path", NULL};
static const char *const number_names[NUMBERS] = {"step",   "loss",  "learning_rate", "grad_norm",  "tokens_per_second",  "peak_memory_bytes",
                                                  "tokens", "steps", "parameters",    "trained_parameters", "sample", "seconds", NULL};
enum { EVENT, MODEL, TIME, MICA, PROMPT, EXPECTED, TEXT };
enum { STEP, LOSS, RATE, NORM, SPEED, MEMORY, TOKENS, STEPS, PARAMETERS, TRAINED, SAMPLE, SECONDS };

typedef struct record { // the members of a line
    char *strings[STRINGS];
    double numbers[NUMBERS]; // NAN: not there
    mica_cli_value config;   // text NULL: not there
} record;

static size_t place_of(const char *name, const char *const *names) {
    size_t i = 0;
    while (names[i] && strcmp(names[i], name) != 0) i++;
    return i;
}

static void free_record(record *r) {
    for (size_t i = 0; i < STRINGS; i++) free(r->strings[i]), r->strings[i] = NULL;
}

static void take_member(record *r, const char *name, const mica_cli_value *v) {
    mica_cli_text text = {0};
    size_t s = place_of(name, string_names), n = place_of(name, number_names);
    if (strcmp(name, "config") == 0 && mica_cli_json_is(v, '{')) r->config = *v;
    if (number_names[n]) mica_cli_json_number_of(v, &r->numbers[n]);
    if (!string_names[s]) return;
    if (mica_cli_json_string_of(v, &text)) free(r->strings[s]), r->strings[s] = text.data;
    else free(text.data);
}

static bool read_record(const char *line, record *r) {
    mica_cli_value object, v;
    mica_cli_text key = {0};
    const char *why;
    *r = (record){0};
    for (size_t i = 0; i < NUMBERS; i++) r->numbers[i] = (double)NAN;
    if (!mica_cli_json_read(line, &object, &why) || !mica_cli_json_is(&object, '{')) return false;
    for (const char *at = NULL; mica_cli_json_next(&object, &at, &key, &v);) take_member(r, key.data, &v);
    free(key.data);
    return r->strings[EVENT] && r->numbers[STEP] >= 0;
}

// ---- events --------------------------------------------------------------------------------------------------
/** Room for one item more; the new one. */
static void *grow(void *items, size_t *count, size_t size) {
    void **list = items;
    size_t n = (*count)++;
    if ((n & (n - 1)) == 0) *list = mica_cli_realloc(*list, (n ? 2 * n : 1) * size);
    return (char *)*list + n * size;
}

static char *taken(char **s) {
    char *own = *s;
    *s = NULL;
    return own;
}

static char *text_of(const mica_cli_value *v) {
    mica_cli_text text = {0};
    if (!mica_cli_json_string_of(v, &text)) text.size = 0, mica_cli_append(&text, v->text, v->size);
    return text.data;
}

static void start(mica_cli_run_log *log, record *r) {
    mica_cli_text key = {0};
    mica_cli_value v;
    mica_cli_run_log_free(log);
    log->model = taken(&r->strings[MODEL]), log->time = taken(&r->strings[TIME]), log->mica = taken(&r->strings[MICA]);
    log->planned = r->numbers[STEPS], log->parameters = r->numbers[PARAMETERS], log->trained = r->numbers[TRAINED];
    for (const char *at = NULL; r->config.text && mica_cli_json_next(&r->config, &at, &key, &v);) {
        mica_cli_report_entry *e = grow(&log->config, &log->config_count, sizeof *e);
        *e = (mica_cli_report_entry){mica_cli_copy(key.data, key.size), text_of(&v)};
    }
    free(key.data);
}

static void take_record(mica_cli_run_log *log, record *r) {
    const char *event = r->strings[EVENT];
    const double *n = r->numbers;
    if (strcmp(event, "start") == 0) start(log, r);
    else if (strcmp(event, "step") == 0) {
        mica_cli_report_step *s = grow(&log->steps, &log->step_count, sizeof *s);
        *s = (mica_cli_report_step){n[STEP], n[LOSS], n[RATE], n[NORM], n[SPEED], n[MEMORY], n[TOKENS]};
    } else if (strcmp(event, "validation") == 0) {
        mica_cli_report_loss *v = grow(&log->validations, &log->validation_count, sizeof *v);
        *v = (mica_cli_report_loss){n[STEP], n[LOSS]};
    } else if (strcmp(event, "sample") == 0 && r->strings[PROMPT] && r->strings[TEXT]) {
        mica_cli_report_sample *s = grow(&log->samples, &log->sample_count, sizeof *s);
        *s = (mica_cli_report_sample){n[STEP], n[SAMPLE], taken(&r->strings[PROMPT]), taken(&r->strings[EXPECTED]), taken(&r->strings[TEXT])};
    } else if (strcmp(event, "done") == 0) log->seconds = n[SECONDS];
}

bool mica_cli_run_log_read(const char *path, mica_cli_run_log *log) {
    mica_cli_text file = {0};
    record r;
    *log = (mica_cli_run_log){.planned = (double)NAN, .seconds = (double)NAN};
    if (!mica_cli_read_file(path, &file)) return free(file.data), false;
    for (char *line = file.data, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (read_record(line, &r)) take_record(log, &r);
        free_record(&r);
    }
    free(file.data);
    return log->model || (mica_cli_fail("%s: no log of `mica train`: it has no line {\"event\":\"start\",…}", path), false);
}

void mica_cli_run_log_free(mica_cli_run_log *log) {
    for (size_t i = 0; i < log->sample_count; i++) free(log->samples[i].prompt), free(log->samples[i].expected), free(log->samples[i].text);
    for (size_t i = 0; i < log->config_count; i++) free(log->config[i].name), free(log->config[i].value);
    free(log->steps), free(log->validations), free(log->samples), free(log->config);
    free(log->model), free(log->time), free(log->mica);
    *log = (mica_cli_run_log){.planned = (double)NAN, .parameters = (double)NAN, .trained = (double)NAN, .seconds = (double)NAN};
}
