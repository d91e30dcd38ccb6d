// SPDX-License-Identifier: Apache-2.0
// The log of a training run. Each line is written at once, so that a run that is killed leaves whole lines but for the last one perhaps; when it
// is resumed, that one and whatever came after the checkpoint is taken out (in a new file that replaces the old), and the run goes on below.
#include "cli/config.h"
#include "cli/train_view.h"
#include "mica/version.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// ---- the configuration -----------------------------------------------------------------------------------------
typedef struct written {
    mica_cli_json *j;
    const mica_cli_args *args;
    size_t offsets[128]; // of options that are there already: others are second names
    size_t count;
} written;

static void put_strings(mica_cli_json *j, const char *name, const mica_cli_strings *list) {
    if (!list->count) return;
    mica_cli_json_open(j, name, '[');
    for (size_t i = 0; i < list->count; i++) mica_cli_json_string(j, NULL, list->items[i]);
    mica_cli_json_close(j, ']');
}

static void put_option(const mica_cli_option *o, void *to) {
    written *w = to;
    const void *at = (const char *)w->args + o->offset;
    static const size_t unwanted[] = {offsetof(mica_cli_args, config), offsetof(mica_cli_args, json), offsetof(mica_cli_args, quiet),
                                      offsetof(mica_cli_args, help), offsetof(mica_cli_args, train.resume)};
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++)
        if (unwanted[i] == o->offset) return;
    for (size_t i = 0; i < w->count; i++)
        if (w->offsets[i] == o->offset) return;
    if (w->count < sizeof w->offsets / sizeof *w->offsets) w->offsets[w->count++] = o->offset;
    switch (o->kind) {
    case MICA_CLI_FLAG: if (*(const bool *)at) mica_cli_json_bool(w->j, o->name, true); break;
    case MICA_CLI_INT: if (*(const int32_t *)at) mica_cli_json_int(w->j, o->name, *(const int32_t *)at); break;
    case MICA_CLI_SIZE:
    case MICA_CLI_LONG: if (*(const int64_t *)at) mica_cli_json_int(w->j, o->name, *(const int64_t *)at); break;
    case MICA_CLI_NUMBER: if (*(const double *)at < 0 || *(const double *)at > 0) mica_cli_json_double(w->j, o->name, *(const double *)at); break;
    case MICA_CLI_STRING:
    case MICA_CLI_CHOICE:
    case MICA_CLI_MAYBE: if (*(const char *const *)at) mica_cli_json_string(w->j, o->name, *(const char *const *)at); break;
    case MICA_CLI_LIST: put_strings(w->j, o->name, at); break;
    case MICA_CLI_INTS: break; // training has none
    }
}

static void put_time(mica_cli_json *j) {
    char text[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc)) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    mica_cli_json_string(j, "time", text);
}

static void put_optimizer(mica_cli_json *j, const mica_cli_train_args *t) {
    const char *name = t->optimizer ? t->optimizer : "adam";
    for (int i = 0; i < MICA_CLI_OPTIMIZERS; i++)
        if (strcmp(name, mica_cli_optimizer_names[i]) == 0) mica_cli_put_optimizer(j, name, &t->optimizers[i]);
}

static bool put_header(mica_cli_train_log *log, const mica_cli_args *args, const mica_train_event *e) {
    mica_cli_json j = mica_cli_train_log_begin(log, "start", e->step);
    written w = {.j = &j, .args = args};
    mica_cli_json_int(&j, "version", 1); // of the log's form
    mica_cli_json_string(&j, "mica", MICA_VERSION);
    put_time(&j);
    mica_cli_json_string(&j, "model", args->words[0]);
    mica_cli_json_int(&j, "steps", e->steps);
    mica_cli_json_int(&j, "parameters", e->parameters);
    mica_cli_json_int(&j, "trained_parameters", e->trained);
    if (e->predicted_memory_bytes) mica_cli_json_int(&j, "predicted_memory_bytes", e->predicted_memory_bytes);
    mica_cli_json_open(&j, "config", '{');
    mica_cli_each_option(&mica_cli_train, put_option, &w);
    put_optimizer(&j, &args->train);
    mica_cli_json_close(&j, '}');
    return mica_cli_train_log_end(log, &j);
}

// ---- resuming ----------------------------------------------------------------------------------------------------
/** Does this line belong to what the resumed run goes on from? */
static bool stays(const char *line, const mica_train_event *e) {
    mica_cli_value object, v;
    const char *why;
    double step = -1;
    bool ok = mica_cli_json_read(line, &object, &why) && mica_cli_json_member(&object, "step", &v) && mica_cli_json_number_of(&v, &step);
    char *event = ok ? mica_cli_json_string_member(&object, "event") : NULL;
    const char *name = event ? event : "";
    bool again = strcmp(name, "sample") == 0 || strcmp(name, "checkpoint") == 0; // a run resumed at its end makes these anew
    ok = ok && step >= 0 && step <= (double)e->step && strcmp(name, "done") != 0 && !(again && e->step == e->steps && step >= (double)e->step);
    free(event);
    return ok;
}

/** Copies the lines that stay into `to`; how many. */
static size_t copy_lines(char *lines, FILE *to, const mica_train_event *e) {
    size_t kept = 0;
    for (char *line = lines, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (!stays(line, e)) continue;
        fprintf(to, "%s\n", line);
        kept++;
    }
    return kept;
}

static bool cannot_write(const char *path) { return mica_cli_fail("train: %s: cannot write the log: %s", path, strerror(errno)), false; }

/** Cuts the log back to the checkpoint; *begun: there is something left of it. */
static bool cut_back(const char *path, const mica_train_event *e, bool *begun) {
    mica_cli_text old = {0};
    *begun = false;
    if (access(path, F_OK) != 0) return true;
    char *temporary = mica_cli_join(path, ".part", "");
    bool ok = mica_cli_read_file(path, &old);
    FILE *to = ok ? fopen(temporary, "w") : NULL;
    if (ok && !to) ok = cannot_write(temporary);
    if (to) {
        *begun = copy_lines(old.data, to, e) > 0;
        bool failed = ferror(to);
        if (fclose(to) != 0 || failed || rename(temporary, path) != 0) ok = cannot_write(path), unlink(temporary);
    }
    free(old.data), free(temporary);
    return ok;
}

// ---- lines -------------------------------------------------------------------------------------------------------
mica_cli_json mica_cli_train_log_begin(mica_cli_train_log *log, const char *event, int64_t step) {
    mica_cli_json j = {.out = log->file};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "event", event);
    mica_cli_json_int(&j, "step", step);
    return j;
}

static bool written_out(mica_cli_train_log *log) { return (fflush(log->file) == 0 && !ferror(log->file)) || cannot_write(log->path); }

bool mica_cli_train_log_end(mica_cli_train_log *log, mica_cli_json *j) {
    mica_cli_json_close(j, '}');
    mica_cli_json_end(j);
    return written_out(log);
}

bool mica_cli_train_log_event(mica_cli_train_log *log, const mica_train_event *e) {
    if (!log->file || e->kind == MICA_TRAIN_START || e->kind == MICA_TRAIN_PROGRESS) return true;
    mica_cli_train_json(log->file, e);
    return written_out(log);
}

bool mica_cli_train_log_open(mica_cli_train_log *log, const mica_cli_args *args, const mica_train_event *e) {
    bool begun = false;
    log->path = args->train.log;
    if (args->train.resume && !cut_back(log->path, e, &begun)) return false;
    log->file = fopen(log->path, begun ? "a" : "w");
    if (!log->file) return cannot_write(log->path);
    if (!begun) return put_header(log, args, e);
    mica_cli_json j = mica_cli_train_log_begin(log, "resume", e->step);
    put_time(&j);
    return mica_cli_train_log_end(log, &j);
}

bool mica_cli_train_log_close(mica_cli_train_log *log) {
    bool ok = !log->file || fclose(log->file) == 0 || cannot_write(log->path);
    log->file = NULL;
    return ok;
}
