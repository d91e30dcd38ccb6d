// SPDX-License-Identifier: Apache-2.0
// `mica bench`: speed of prefill and decoding of a model, or of random weights in a named shape. Before each case a short
// run warms up; then the case is run --repeat times, and the median counts.
#include "cli/cmd.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_REPEATS = 1000, WARM_PREFILL = 512, WARM_DECODE = 4, MOST_OPS = 24 };

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v, size_t n) {
    double sorted[MOST_REPEATS];
    memcpy(sorted, v, n * sizeof *v);
    qsort(sorted, n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

typedef struct runs {
    double seconds[MOST_REPEATS], depth_seconds[MOST_REPEATS];
    size_t n;
} runs;

static void put_times(mica_cli_json *j, const char *name, const double *seconds, size_t n) {
    mica_cli_json_open(j, name, '[');
    for (size_t i = 0; i < n; i++) mica_cli_json_double(j, NULL, seconds[i]);
    mica_cli_json_close(j, ']');
}

// Ops of the last run that took a thousandth of it or more.
static void print_ops(const mica_bench_case *c) {
    double all = 0;
    for (size_t i = 0; i < c->most_ops; i++) all += c->ops[i].seconds;
    for (size_t i = 0; i < c->most_ops && c->ops[i].op && c->ops[i].seconds >= all / 1000; i++)
        printf("  %-24s %8lld runs  %9.4f s  %5.1f %%\n", c->ops[i].op, (long long)c->ops[i].runs, c->ops[i].seconds,
               100 * c->ops[i].seconds / all);
}

static void put_ops(mica_cli_json *j, const mica_bench_case *c) {
    mica_cli_json_open(j, "ops", '[');
    for (size_t i = 0; i < c->most_ops && c->ops[i].op; i++) {
        mica_cli_json_open(j, NULL, '{');
        mica_cli_json_string(j, "op", c->ops[i].op);
        mica_cli_json_int(j, "runs", c->ops[i].runs);
        mica_cli_json_double(j, "seconds", c->ops[i].seconds);
        mica_cli_json_close(j, '}');
    }
    mica_cli_json_close(j, ']');
}

static void report(const mica_cli_args *args, mica_cli_json *j, const mica_bench_case *c, const runs *r) {
    const char *test = c->decode ? "decode" : "prefill";
    double middle = median(r->seconds, r->n), speed = (double)c->tokens * c->batch / middle;
    if (!args->json) {
        printf("%-8s %6d tokens, batch %3d, depth %6d  %9.4f s  %9.1f tokens/s\n", test, c->tokens, c->batch, c->depth, middle, speed);
        if (c->ops) print_ops(c);
        fflush(stdout);
        return;
    }
    mica_cli_json_open(j, NULL, '{');
    mica_cli_json_string(j, "test", test);
    mica_cli_json_int(j, "tokens", c->tokens);
    mica_cli_json_int(j, "batch", c->batch);
    mica_cli_json_int(j, "depth", c->depth);
    put_times(j, "seconds", r->seconds, r->n);
    if (c->depth) put_times(j, "depth_seconds", r->depth_seconds, r->n);
    mica_cli_json_double(j, "tokens_per_second", speed);
    if (c->ops) put_ops(j, c);
    mica_cli_json_close(j, '}');
}

/** A short case of the same kind: faults pages in, starts the threads and builds plans. */
static bool warm_up(mica_model *model, mica_bench_case c, mica_error *err) {
    mica_bench_times times;
    int32_t most = c.decode ? WARM_DECODE : WARM_PREFILL / c.batch + 1;
    c.depth = 0;
    if (c.tokens > most) c.tokens = most;
    return mica_bench(model, &c, &times, err);
}

static bool run_case(const mica_cli_args *args, mica_cli_json *j, mica_model *model, mica_bench_case c) {
    runs r = {.n = args->repeat ? (size_t)args->repeat : 3};
    mica_op_time ops[MOST_OPS];
    mica_error err = {0};
    if (args->profile) c.ops = ops, c.most_ops = MOST_OPS;
    bool ok = warm_up(model, c, &err);
    for (size_t i = 0; ok && i < r.n; i++) {
        mica_bench_times times;
        ok = mica_bench(model, &c, &times, &err);
        r.seconds[i] = times.seconds, r.depth_seconds[i] = times.depth_seconds;
    }
    if (ok) report(args, j, &c, &r);
    else mica_cli_fail_error("bench", &err);
    return ok;
}

/** Every prefill length and the decode length, at every batch and depth. */
static bool run_cases(const mica_cli_args *args, mica_cli_json *j, mica_model *model) {
    int32_t usual_length = 512, one = 1, zero = 0;
    mica_cli_ints prefill = args->prefill.count ? args->prefill : (mica_cli_ints){&usual_length, 1};
    mica_cli_ints batch = args->batch.count ? args->batch : (mica_cli_ints){&one, 1};
    mica_cli_ints depth = args->depth.count ? args->depth : (mica_cli_ints){&zero, 1};
    mica_bench_case c = {0};
    for (size_t b = 0; b < batch.count; b++)
        for (size_t d = 0; d < depth.count; d++) {
            c.batch = batch.items[b], c.depth = depth.items[d], c.decode = false;
            for (size_t p = 0; p < prefill.count; p++)
                if ((c.tokens = prefill.items[p]) > 0 && !run_case(args, j, model, c)) return false;
            c.decode = true, c.tokens = args->decode_tokens < 0 ? 64 : args->decode_tokens;
            if (c.tokens > 0 && !run_case(args, j, model, c)) return false;
        }
    return true;
}

static int run(const mica_cli_args *args) {
    if (!args->random == !args->word_count) return mica_cli_usage("bench", "give either MODEL or --random SHAPE");
    if (args->bits && !args->random) return mica_cli_usage("bench", "--bits goes with --random");
    mica_model *model = mica_cli_load(args);
    if (!model) return MICA_EXIT_FAILED;
    mica_cli_json j = {.out = stdout};
    if (args->json) mica_cli_json_open(&j, NULL, '[');
    bool ok = run_cases(args, &j, model);
    if (args->json) mica_cli_json_close(&j, ']'), mica_cli_json_end(&j);
    mica_model_free(model);
    return ok ? MICA_EXIT_DONE : MICA_EXIT_FAILED;
}

#define AT(field) offsetof(mica_cli_args, field)
static const mica_cli_option options[] = {
    {"prefill", 0, MICA_CLI_INTS, AT(prefill), 0, 1e9, "N,…", "lengths of prompts to time; 0: none (default 512)"},
    {"decode", 0, MICA_CLI_INT, AT(decode_tokens), 0, 1e9, "N", "number of tokens to decode; 0: none (default 64)"},
    {"depth", 0, MICA_CLI_INTS, AT(depth), 0, 1e9, "N,…", "positions already in the cache (default 0)"},
    {"batch", 0, MICA_CLI_INTS, AT(batch), 1, 1e6, "N,…", "sequences at a time (default 1)"},
    {"repeat", 0, MICA_CLI_INT, AT(repeat), 1, MOST_REPEATS, "N", "timed runs of each case (default 3)"},
    {"random", 0, MICA_CLI_STRING, AT(random), 0, 0, "SHAPE", "random weights of this shape instead of MODEL, such as gemma3-1b"},
    {"bits", 0, MICA_CLI_INT, AT(bits), 0, 8, "B", "with --random: affine weights of B bits; 0: dense bf16 (default)"},
    {"context", 0, MICA_CLI_INT, AT(context), 1, 1e9, "N", "most positions (default: the model's own)"},
    {"profile", 0, MICA_CLI_FLAG, AT(profile), 0, 0, NULL, "list the time of each op in the last run"},
    {.name = NULL},
};

const mica_cli_command mica_cli_bench = {
    .name = "bench",
    .synopsis = "[MODEL]",
    .summary = "time prefill and decoding",
    .description =
        "Times the prompt (prefill) and token by token (decode) on random ids, after a short run to warm up; the median is reported.\n"
        "With --json: [{\"test\":\"prefill\",\"tokens\",\"batch\",\"depth\",\"seconds\":[…],\"tokens_per_second\"},…]; at a depth also\n"
        "\"depth_seconds\":[…], the time that filling the cache took before; with --profile also\n"
        "\"ops\":[{\"op\",\"runs\",\"seconds\"},…], the longest first.",
    .example = "mica bench smollm2-135m --prefill 128,512 --decode 64\nmica bench --random gemma3-1b --bits 4 --repeat 5",
    .min_words = 0,
    .max_words = 1,
    .groups = MICA_CLI_LOADING | MICA_CLI_COMMON,
    .options = options,
    .run = run,
};
