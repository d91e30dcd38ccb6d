// SPDX-License-Identifier: Apache-2.0
// `mica batch`: a prompt a line in, an answer a line out, many computed together. No more lines are read ahead than are waited for, so that
// stdin may be endless; a line that is wrong costs one line of output. With --output the work may be stopped and taken up again.
#include "cli/answer.h"
#include "cli/answered.h"
#include "cli/batch_line.h"
#include "cli/cmd.h"
#include "cli/lines.h"
#include <stdlib.h>
#include <string.h>

enum { ROWS = 32, BATCH_MOST = 10000 }; // rows after which a batch object is replaced by a new one: it remembers every row it had

/** A line that is being answered. */
typedef struct pending {
    char *id;
    mica_cli_answer answer;
} pending;

typedef struct job {
    const mica_cli_args *args;
    mica_model *model;
    mica_generate_options defaults;
    mica_batch *batch;
    pending *rows; // by row number
    size_t row_count, row_capacity, waiting, ahead; // waiting: added and not ended
    mica_cli_lines lines;
    mica_cli_request request;
    mica_cli_answered answered;
    mica_cli_progress progress;
    FILE *out;
    size_t done, failed, skipped;
    int64_t tokens;
    bool stopping;
} job;

// ---- output --------------------------------------------------------------------------------------------------
static void put_error(job *t, const char *id, const char *message) {
    mica_cli_json j = {.out = t->out};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_raw(&j, "id", id);
    mica_cli_json_string(&j, "error", message);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
    fflush(t->out);
    t->failed++;
}

static void put_answer(job *t, const pending *p, mica_finish finish, const mica_metrics *metrics) {
    mica_cli_json j = {.out = t->out};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_raw(&j, "id", p->id);
    mica_cli_json_text(&j, "text", p->answer.text.data, p->answer.text.size);
    mica_cli_json_ints(&j, "ids", p->answer.ids, p->answer.count);
    mica_cli_json_string(&j, "finish_reason", mica_finish_name(finish));
    mica_cli_json_logprobs(&j, &p->answer);
    mica_cli_json_metrics(&j, metrics);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
    fflush(t->out);
    t->done += finish != MICA_FINISH_CANCELLED;
}

static void free_pending(pending *p) {
    free(p->id);
    mica_cli_answer_free(&p->answer);
    *p = (pending){0};
}

// ---- rows ----------------------------------------------------------------------------------------------------
static bool renew_batch(job *t) {
    mica_error err = {0};
    mica_batch_free(t->batch);
    t->row_count = 0;
    t->batch = mica_batch_new(t->model, &(mica_batch_options){.rows = t->args->rows, .invariant = t->args->invariant}, &err);
    if (!t->batch) mica_cli_fail_error("batch", &err);
    return t->batch != NULL;
}

static void add_row(job *t, int64_t row) {
    if (t->row_count == t->row_capacity) t->rows = mica_cli_realloc(t->rows, (t->row_capacity = 2 * t->row_capacity + 64) * sizeof *t->rows);
    (void)row; // rows are numbered as they are added
    pending *p = &t->rows[t->row_count++];
    *p = (pending){.id = strdup(t->request.id), .answer = mica_cli_answer_new(t->request.options.logprobs)};
    t->waiting++;
}

static void take_line(job *t, const char *line, size_t size) {
    mica_error err = {0};
    if (strspn(line, " \t\r") == size) return; // an empty line
    if (!mica_cli_request_read(&t->request, line, size, t->lines.number, &t->defaults)) {
        put_error(t, t->request.id, t->request.why);
        return;
    }
    if (mica_cli_answered_has(&t->answered, t->request.id)) {
        t->skipped++;
        return;
    }
    int64_t row = mica_batch_add(t->batch, &t->request.prompt, &t->request.options, &err);
    if (row >= 0) add_row(t, row);
    else put_error(t, t->request.id, err.msg);
}

/** Reads lines until enough wait; blocks only if there is nothing to compute. */
static void read_lines(job *t) {
    char *line;
    size_t size;
    while (!t->stopping && t->waiting < t->ahead && t->row_count < BATCH_MOST) {
        mica_cli_got got = mica_cli_lines_next(&t->lines, t->waiting == 0, &line, &size);
        if (got != MICA_CLI_LINE) return;
        take_line(t, line, size);
    }
}

static void end_row(job *t, const mica_batch_event *e) {
    pending *p = &t->rows[e->row];
    mica_error err = {0};
    mica_metrics metrics = mica_batch_metrics(t->batch, e->row);
    if (mica_batch_error(t->batch, e->row, &err)) put_error(t, p->id, err.msg);
    else if (e->finish != MICA_FINISH_CANCELLED || p->answer.count) put_answer(t, p, e->finish, &metrics);
    free_pending(p);
    t->waiting--;
}

static void stop(job *t) {
    if (t->stopping || !(mica_cli_stopped() || (t->out == stdout && mica_cli_output_lost()))) return;
    t->stopping = true;
    mica_batch_cancel(t->batch, -1);
}

static double rate(const job *t) {
    double seconds = mica_cli_seconds() - t->progress.started;
    return seconds > 0 ? (double)t->tokens / seconds : 0;
}

static bool answer_lines(job *t) {
    if (!renew_batch(t)) return false;
    for (;;) {
        read_lines(t);
        stop(t);
        mica_batch_event e;
        if (!mica_batch_next(t->batch, &e)) {
            bool end = t->stopping || mica_cli_stopped() || (t->lines.ended && t->lines.at == t->lines.size);
            if (end) return true;
            if (t->row_count >= BATCH_MOST && !renew_batch(t)) return false;
            continue;
        }
        t->tokens += e.token.id >= 0;
        mica_cli_answer_keep(&t->rows[e.row].answer, &e.token);
        if (e.finish) end_row(t, &e);
        mica_cli_progress_show(&t->progress, &t->lines, t->done + t->failed + t->skipped, "answers", rate(t), "tokens/s");
    }
}

// ---- the command ---------------------------------------------------------------------------------------------
static void summarise(job *t) {
    mica_cli_progress_end(&t->progress);
    if (t->args->quiet) return;
    double seconds = mica_cli_seconds() - t->progress.started;
    mica_cli_note(t->args, "%zu answered, %zu failed, %zu skipped; %lld tokens in %.1f s: %.1f tokens/s", t->done, t->failed, t->skipped,
                  (long long)t->tokens, seconds, rate(t));
}

static int run_job(job *t) {
    mica_cli_lines_open(&t->lines);
    mica_cli_watch_flag();
    mica_cli_progress_start(&t->progress, t->args);
    bool ok = answer_lines(t);
    if (ok) summarise(t);
    if (ok && t->lines.failed) ok = !mica_cli_fail("stdin: cannot read");
    for (size_t i = 0; i < t->row_count; i++) free_pending(&t->rows[i]);
    mica_batch_free(t->batch);
    free(t->rows);
    mica_cli_request_clear(&t->request);
    mica_cli_lines_free(&t->lines);
    return !ok ? MICA_EXIT_FAILED : mica_cli_stopped() ? MICA_EXIT_STOPPED : MICA_EXIT_DONE;
}

static int run(const mica_cli_args *args) {
    job t = {.args = args, .out = stdout, .ahead = 2 * (size_t)(args->rows ? args->rows : ROWS)};
    mica_logit_bias *biases = NULL;
    int status = MICA_EXIT_USAGE;
    if (mica_cli_generate_options(args, "batch", &t.defaults, &biases)) {
        status = MICA_EXIT_FAILED;
        bool open = !args->output || (t.out = mica_cli_answered_open(&t.answered, args->output));
        if (open && (t.model = mica_cli_load(args))) status = run_job(&t);
        if (args->output && t.out && fclose(t.out) != 0) status = mica_cli_fail("%s: cannot write", args->output);
    }
    mica_cli_answered_free(&t.answered);
    mica_model_free(t.model);
    free(biases);
    return status;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"rows", 0, MICA_CLI_INT, AT(rows), 1, 512, "N", "compute up to N prompts together (default 32)"},
    {"output", 'o', MICA_CLI_STRING, AT(output), 0, 0, "FILE",
     "append the answers to FILE, and skip lines whose id is answered there already"},
    {"invariant", 0, MICA_CLI_FLAG, AT(invariant), 0, 0, NULL, "each answer is, bit for bit, what it is alone; slower"},
    {.name = NULL},
};

const mica_cli_command mica_cli_batch = {
    .name = "batch",
    .synopsis = "MODEL",
    .summary = "answer many prompts together, JSON lines in and out",
    .description =
        "Each line of stdin is an object: {\"prompt\":TEXT or [ids]} or {\"messages\":[…],\"tools\":[…],\"vars\":{…}}, with \"id\" and options as members:\n"
        "max_tokens, min_tokens, temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed, stop, stop_ids,\n"
        "ignore_eos, logprobs, adapter (a NAME of --adapter, \"\" for none); the command's options are the defaults. Each answer is a line, in the order in which they end:\n"
        "{\"id\",\"text\",\"ids\",\"finish_reason\",\"metrics\"}, with \"logprobs\" if they are asked for; the id is the line's own, else its number. A line that is wrong gives\n"
        "{\"id\",\"error\"}. With --output FILE the work may be stopped and started again: lines whose id has an answer there are skipped;\n"
        "errors and answers that were cut off are tried again. Ctrl-C writes what has come so far.",
    .example = "mica batch smollm2-135m < prompts.jsonl > answers.jsonl\n"
               "mica batch model.gguf --rows 64 --temp 0.7 --output answers.jsonl < prompts.jsonl",
    .min_words = 1,
    .max_words = 1,
    .groups = MICA_CLI_GENERATION | MICA_CLI_LOADING | MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
