// SPDX-License-Identifier: Apache-2.0
// A training run on the screen: a summary before the first step, a line for each report, and where stderr is a terminal a bar below them that moves
// with every step. With --json the lines are objects.
#include "cli/train_view.h"
#include "cli/lines.h"
#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void mica_cli_train_json(FILE *out, const mica_train_event *e) {
    static const char *const names[] = {"step", "validation", "checkpoint", "done"};
    mica_cli_json j = {.out = out};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "event", names[e->kind]);
    mica_cli_json_int(&j, "step", e->step);
    if (e->kind != MICA_TRAIN_CHECKPOINT) mica_cli_json_double(&j, "loss", e->loss);
    if (e->path) mica_cli_json_string(&j, "path", e->path);
    if (e->kind == MICA_TRAIN_STEP || e->kind == MICA_TRAIN_DONE) mica_cli_json_int(&j, "tokens", e->tokens);
    if (e->kind == MICA_TRAIN_STEP) {
        mica_cli_json_double(&j, "learning_rate", e->learning_rate);
        mica_cli_json_double(&j, "grad_norm", e->grad_norm);
        mica_cli_json_double(&j, "tokens_per_second", e->tokens_per_second);
    }
    if (e->kind != MICA_TRAIN_CHECKPOINT) mica_cli_json_int(&j, "peak_memory_bytes", e->peak_memory_bytes);
    if (e->kind == MICA_TRAIN_DONE) mica_cli_json_double(&j, "seconds", e->seconds);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}

// ---- pieces of lines -----------------------------------------------------------------------------------------
/** "1:02:03" or "2:03". */
static const char *clock_text(double seconds, char *out, size_t size) {
    long s = lround(fmin(fmax(seconds, 0), 3e6));
    if (s >= 3600) snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
    return out;
}

/** "1,234,567" */
static const char *grouped(int64_t n, char *out, size_t size) {
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)n);
    size_t at = 0;
    for (int i = 0; i < length && at + 2 < size; i++) {
        if (i && (length - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

static double seconds_left(const mica_cli_train_view *v, const mica_train_event *e) {
    double done = (double)(e->step - v->first);
    return done > 0 ? (mica_cli_seconds() - v->started) / done * (double)(e->steps - e->step) : 0;
}

// ---- lines ---------------------------------------------------------------------------------------------------
static void print_start(const mica_cli_train_view *v, const mica_train_event *e) {
    const mica_cli_train_args *t = &v->args->train;
    char trained[32], all[32], memory[32];
    bool full = strcmp(t->kind, "full") == 0;
    printf("%s", t->kind);
    if (!full) printf(", rank %d, scale %g", (int)t->rank, t->scale);
    printf(": %s of %s parameters (%.3g %%) are trained", grouped(e->trained, trained, sizeof trained), grouped(e->parameters, all, sizeof all),
           e->parameters ? 100 * (double)e->trained / (double)e->parameters : 0.0);
    if (e->predicted_memory_bytes) printf(", in %s of memory or less", mica_cli_bytes(e->predicted_memory_bytes, memory, sizeof memory));
    if (e->step) printf("\nresumed at step %lld of %lld\n", (long long)e->step, (long long)e->steps);
    else putchar('\n');
}

static void print_step(const mica_cli_train_view *v, const mica_train_event *e) {
    char memory[32], left[32];
    printf("step %lld/%lld  loss %.4f  rate %.2e  norm %.3f  %.1f tokens/s  %s  %s left\n", (long long)e->step, (long long)e->steps, e->loss,
           e->learning_rate, e->grad_norm, e->tokens_per_second, mica_cli_bytes(e->peak_memory_bytes, memory, sizeof memory),
           clock_text(seconds_left(v, e), left, sizeof left));
}

static void print_event(const mica_cli_train_view *v, const mica_train_event *e) {
    char time[32];
    switch (e->kind) {
    case MICA_TRAIN_START: print_start(v, e); break;
    case MICA_TRAIN_STEP: print_step(v, e); break;
    case MICA_TRAIN_VALIDATION: printf("step %lld/%lld  validation loss %.4f\n", (long long)e->step, (long long)e->steps, e->loss); break;
    case MICA_TRAIN_CHECKPOINT: printf("step %lld/%lld  saved to %s\n", (long long)e->step, (long long)e->steps, e->path); break;
    case MICA_TRAIN_DONE:
        printf("done: %lld steps, %lld tokens scored, %s\n", (long long)e->step, (long long)e->tokens, clock_text(e->seconds, time, sizeof time));
        break;
    case MICA_TRAIN_PROGRESS: break;
    }
    fflush(stdout);
}

// ---- bar -----------------------------------------------------------------------------------------------------
static int columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

static void draw_bar(mica_cli_train_view *v, const mica_train_event *e) {
    enum { WIDEST = 24, LINE = 200 };
    char text[LINE], memory[32], left[32];
    double share = e->steps ? (double)e->step / (double)e->steps : 1;
    int n = snprintf(text, sizeof text, " %3.0f %%  step %lld/%lld  loss %.3f  %.0f tokens/s  %s  %s left", 100 * share, (long long)e->step,
                     (long long)e->steps, e->loss, e->tokens_per_second, mica_cli_bytes(e->peak_memory_bytes, memory, sizeof memory),
                     clock_text(seconds_left(v, e), left, sizeof left));
    int room = columns() - 1, width = room - n < WIDEST ? room - n : WIDEST;
    fputs("\r\033[K", stderr);
    for (int i = 0; i < width; i++) fputs(i < (int)(share * width) ? "█" : "░", stderr);
    fprintf(stderr, "%.*s", room, text);
    fflush(stderr);
    v->drawn = true, v->last = mica_cli_seconds();
}

void mica_cli_train_view_clear(mica_cli_train_view *v) {
    if (v->drawn) fputs("\r\033[K", stderr), fflush(stderr);
    v->drawn = false;
}

void mica_cli_train_view_init(mica_cli_train_view *v, const mica_cli_args *args) {
    *v = (mica_cli_train_view){.args = args, .bar = !args->quiet && isatty(STDERR_FILENO), .started = mica_cli_seconds()};
}

void mica_cli_train_show(mica_cli_train_view *v, const mica_train_event *e) {
    if (e->kind == MICA_TRAIN_START) v->started = mica_cli_seconds(), v->first = e->step;
    if (e->kind == MICA_TRAIN_PROGRESS) {
        if (v->bar && mica_cli_seconds() - v->last >= 0.1) draw_bar(v, e);
        return;
    }
    mica_cli_train_view_clear(v);
    if (!v->args->json) {
        if (!v->args->quiet || e->kind == MICA_TRAIN_DONE) print_event(v, e);
    } else if (e->kind != MICA_TRAIN_START) mica_cli_train_json(stdout, e), fflush(stdout);
}

void mica_cli_train_show_test(mica_cli_train_view *v, int64_t step, const mica_evaluation *e) {
    if (!v->args->json) {
        if (!v->args->quiet) printf("test loss %.4f ± %.4f, perplexity %.3f, %lld examples\n", e->loss, e->loss_error, e->perplexity, (long long)e->examples);
        return;
    }
    mica_cli_json j = {.out = stdout};
    mica_cli_json_open(&j, NULL, '{');
    mica_cli_json_string(&j, "event", "test");
    mica_cli_json_int(&j, "step", step);
    mica_cli_json_double(&j, "loss", e->loss);
    mica_cli_json_double(&j, "loss_standard_error", e->loss_error);
    mica_cli_json_double(&j, "perplexity", e->perplexity);
    mica_cli_json_int(&j, "examples", e->examples);
    mica_cli_json_close(&j, '}');
    mica_cli_json_end(&j);
}
