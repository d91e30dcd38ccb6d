// SPDX-License-Identifier: Apache-2.0
// The ops and the sampler as a caller meets them: recording, planning and running one op through the public API, in f32, at
// the shapes that other array libraries are usually timed at. As CSV:
//   bench_micro [threads] [text]     threads 0 = all; text = only names that contain it
// GFLOP/s counts multiplications and additions of products and attention, GB/s every input and output once.
#include "infer/sampler.h"
#include "mica/array.h"
#include "mica/fast.h"
#include "mica/ops.h"
#include "mica/random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 3, DIMS = 4, MOST_RUNS = 2000, VOCABULARY = 32000 };

typedef mica_array *build_fn(mica_scope *s, mica_array *const *in);
typedef struct op_case {
    const char *name;
    build_fn *build;
    int64_t shape[INPUTS][DIMS]; // of every input; zeros end it
    double flop;
} op_case;

static mica_array *matmul(mica_scope *s, mica_array *const *in) { return mica_matmul(s, in[0], in[1]); }
static mica_array *linear(mica_scope *s, mica_array *const *in) { return mica_matmul(s, in[0], mica_transpose(s, in[1], NULL)); }
static mica_array *softmax(mica_scope *s, mica_array *const *in) { return mica_softmax(s, in[0], -1); }
static mica_array *add(mica_scope *s, mica_array *const *in) { return mica_add(s, in[0], in[1]); }
static mica_array *mul(mica_scope *s, mica_array *const *in) { return mica_mul(s, in[0], in[1]); }
static mica_array *silu(mica_scope *s, mica_array *const *in) { return mica_silu(s, in[0]); }
static mica_array *rms_norm(mica_scope *s, mica_array *const *in) { return mica_rms_norm(s, in[0], in[1], 1e-6f); }
static mica_array *layer_norm(mica_scope *s, mica_array *const *in) { return mica_layer_norm(s, in[0], in[1], in[2], 1e-6f); }
static mica_array *sum(mica_scope *s, mica_array *const *in) { return mica_sum(s, in[0], NULL, 0, false); }
static mica_array *argmax(mica_scope *s, mica_array *const *in) { return mica_argmax(s, in[0], -1, false); }
static mica_array *rope(mica_scope *s, mica_array *const *in) {
    return mica_rope(s, in[0], NULL, NULL, &(mica_rope_options){.dims = 128, .base = 10000});
}
static mica_array *sdpa(mica_scope *s, mica_array *const *in) {
    return mica_sdpa(s, in[0], in[1], in[2], NULL, &(mica_sdpa_options){.scale = 0.088f, .causal = true});
}
static mica_array *embedding(mica_scope *s, mica_array *const *in) {
    int32_t ids[512];
    for (int32_t i = 0; i < 512; i++) ids[i] = i * 7919 % VOCABULARY;
    return mica_take(s, in[0], mica_from_data(s, ids, MICA_SHAPE(512), MICA_I32), 0);
}

#define SQUARE(n) {"matmul " #n "x" #n, matmul, {{n, n}, {n, n}}, 2.0 * n * n * n}
static const op_case ops[] = {
    SQUARE(128), SQUARE(256), SQUARE(512), SQUARE(1024), SQUARE(2048), SQUARE(4096),
    {"matmul 1x2048x32000", matmul, {{1, 2048}, {2048, VOCABULARY}}, 2.0 * 2048 * VOCABULARY},
    {"softmax 1x32000", softmax, {{1, VOCABULARY}}, 0},
    {"softmax 32x512x512", softmax, {{32, 512, 512}}, 0},
    {"add 1M", add, {{1 << 20}, {1 << 20}}, 0},
    {"mul 1M", mul, {{1 << 20}, {1 << 20}}, 0},
    {"silu 1M", silu, {{1 << 20}}, 0},
    {"rms_norm 1x2048", rms_norm, {{1, 2048}, {2048}}, 0},
    {"rms_norm 512x2048", rms_norm, {{512, 2048}, {2048}}, 0},
    {"layer_norm 1x2048", layer_norm, {{1, 2048}, {2048}, {2048}}, 0},
    {"layer_norm 512x2048", layer_norm, {{512, 2048}, {2048}, {2048}}, 0},
    {"rope 1x1x32x128", rope, {{1, 1, 32, 128}}, 0},
    {"rope 1x32x512x128", rope, {{1, 32, 512, 128}}, 0},
    {"sdpa 32 heads, 128 positions", sdpa, {{1, 32, 128, 128}, {1, 32, 128, 128}, {1, 32, 128, 128}}, 2.0 * 32 * 128 * 128 * 129},
    {"sdpa 32 heads, 512 positions", sdpa, {{1, 32, 512, 128}, {1, 32, 512, 128}, {1, 32, 512, 128}}, 2.0 * 32 * 128 * 512 * 513},
    {"linear 1x2048, 2048 out", linear, {{1, 2048}, {2048, 2048}}, 2.0 * 2048 * 2048},
    {"linear 512x2048, 2048 out", linear, {{512, 2048}, {2048, 2048}}, 2.0 * 512 * 2048 * 2048},
    {"embedding 512 of 32000x2048", embedding, {{VOCABULARY, 2048}}, 0},
    {"sum 1M", sum, {{1 << 20}}, 0},
    {"argmax 1x32000", argmax, {{1, VOCABULARY}}, 0},
};

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

typedef bool run_fn(void *ctx);
/** Runs for about 0.1 s, at least three times; the median time. Negative if a run fails. */
static double median_time(run_fn *run, void *ctx) {
    static double times[MOST_RUNS];
    size_t n = 0;
    if (!run(ctx)) return -1;
    for (double start = mica_now(); n < MOST_RUNS && (n < 3 || mica_now() - start < 0.1); n++) {
        double t = mica_now();
        if (!run(ctx)) return -1;
        times[n] = mica_now() - t;
    }
    qsort(times, n, sizeof *times, by_value);
    return times[n / 2];
}

typedef struct op_run {
    mica_scope *scope;
    const op_case *c;
    mica_array *in[INPUTS];
    double bytes;
    mica_error err;
} op_run;

static bool run_op(void *ctx) {
    op_run *r = ctx;
    mica_scope_reset(r->scope);
    mica_array *out = r->c->build(r->scope, r->in);
    if (!out) return mica_scope_error(r->scope, &r->err), false;
    if (!mica_eval(r->scope, &out, 1, &r->err)) return false;
    r->bytes = (double)mica_nbytes(out);
    return true;
}

static bool make_inputs(op_run *r) {
    mica_scope *s = r->scope;
    for (size_t i = 0; i < INPUTS && r->c->shape[i][0]; i++) {
        int ndim = 0;
        while (ndim < DIMS && r->c->shape[i][ndim]) ndim++;
        mica_array *x = mica_random_normal(s, mica_random_key(s, 1, i), ndim, r->c->shape[i], MICA_F32);
        if (!x) return mica_scope_error(s, &r->err), false;
        if (!mica_eval(s, &x, 1, &r->err) || !(r->in[i] = mica_keep(s, x, &r->err))) return false;
        mica_scope_reset(s);
    }
    return true;
}

static bool bench_op(mica_scope *s, const op_case *c) {
    op_run r = {.scope = s, .c = c};
    double t = make_inputs(&r) ? median_time(run_op, &r) : -1;
    for (size_t i = 0; i < INPUTS && r.in[i]; i++) // of the embedding table only the rows that are taken
        r.bytes += c->build == embedding ? r.bytes : (double)mica_nbytes(r.in[i]);
    if (t < 0) fprintf(stderr, "bench_micro: %s: %s\n", c->name, r.err.msg);
    else printf("%s,%.2f,%.1f,%.1f\n", c->name, t * 1e6, r.bytes / t * 1e-9, c->flop / t * 1e-9);
    for (size_t i = 0; i < INPUTS; i++) mica_array_free(r.in[i]);
    return t >= 0;
}

typedef struct sampler_run {
    mica_sampler sampler;
    const float *logits;
} sampler_run;

static bool run_sampler(void *ctx) {
    sampler_run *r = ctx;
    return mica_sampler_next(&r->sampler, r->logits, NULL, 0) >= 0;
}

static const struct { const char *name; mica_generate_options options; } chains[] = {
    {"sample greedy", {.temperature = 0}},
    {"sample temperature", {.temperature = 0.8f}},
    {"sample top_k", {.temperature = 0.8f, .top_k = 40}},
    {"sample penalty, top_p, min_p, top_k, temperature", {.temperature = 0.8f, .top_p = 0.9f, .min_p = 0.05f, .top_k = 40, .repeat_penalty = 1.1f}},
};

static bool bench_samplers(const char *only) {
    static float logits[VOCABULARY];
    for (int i = 0; i < VOCABULARY; i++) logits[i] = 8 * sinf((float)i * 0.7f) * cosf((float)i * 0.013f);
    for (size_t i = 0; i < MICA_COUNT(chains); i++) {
        if (only && !strstr(chains[i].name, only)) continue;
        sampler_run r = {.logits = logits};
        mica_error err = {0};
        if (!mica_sampler_init(&r.sampler, &chains[i].options, VOCABULARY, NULL, &err)) return fprintf(stderr, "bench_micro: %s\n", err.msg), false;
        printf("%s (V = %d),%.2f,,\n", chains[i].name, VOCABULARY, median_time(run_sampler, &r) * 1e6);
        mica_sampler_free(&r.sampler);
    }
    return true;
}

int main(int argc, char **argv) {
    const char *only = argc > 2 ? argv[2] : NULL;
    mica_device_options options = {.threads = argc > 1 ? atoi(argv[1]) : 0};
    mica_error err = {0};
    mica_device *device = mica_device_open("cpu", &options, &err);
    mica_scope *s = device ? mica_scope_new(device, &err) : NULL;
    if (!s) return fprintf(stderr, "bench_micro: %s\n", err.msg), 1;
    bool ok = true;
    printf("op (%s),microseconds,GB/s,GFLOP/s\n", mica_device_level(device));
    for (size_t i = 0; i < MICA_COUNT(ops); i++)
        if (!only || strstr(ops[i].name, only)) ok &= bench_op(s, &ops[i]);
    ok &= bench_samplers(only);
    mica_scope_free(s);
    mica_device_close(device);
    return ok ? 0 : 1;
}
