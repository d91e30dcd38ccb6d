// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Models against transformers, through the public API: tiny checkpoints of every architecture, scaling and quantisation in tests/golden, scored at every
// CPU level. f32: mean |Δ log p| of the next token ≤ 1e-3. bf16 and quantised: no worse than 1.25 × the error of transformers' own bf16 run.
#include "base/file.h"
#include "device/cpu/isa.h"
#include "io/safetensors.h"
#include "mica/model.h"
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST_MODELS = 64 };

typedef struct expected {
    mica_safetensors *file;
    const mica_stored *ids, *logprobs, *bf16, *greedy;
    int64_t T, V;
} expected;

static void open_expected(const char *folder, expected *e) {
    char path[600];
    mica_error err = {0};
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    e->file = mica_safetensors_open(path, &err);
    if (!e->file) fail_msg("%s", err.msg);
    e->ids = mica_safetensors_find(e->file, "input_ids");
    e->logprobs = mica_safetensors_find(e->file, "logprobs");
    e->bf16 = mica_safetensors_find(e->file, "logprobs_bf16");
    e->greedy = mica_safetensors_find(e->file, "greedy");
    assert_non_null(e->ids);
    assert_non_null(e->logprobs);
    e->T = e->logprobs->shape[0], e->V = e->logprobs->shape[1];
}

static float at(const mica_stored *t, int64_t i) {
    float v;
    memcpy(&v, (const char *)t->data + i * 4, 4);
    return v;
}

static int32_t id_at(const mica_stored *t, int64_t i) {
    int32_t v;
    memcpy(&v, (const char *)t->data + i * 4, 4);
    return v;
}

// Mean |Δ log p| of the next token over the positions that have one.
static double own_error(const mica_scores *s, const expected *e) {
    double sum = 0;
    for (int64_t i = 1; i < e->T; i++) sum += fabs((double)s->logprobs[i] - (double)at(e->logprobs, (i - 1) * e->V + id_at(e->ids, i)));
    return sum / (double)(e->T - 1);
}

static double reference_error(const expected *e) {
    double sum = 0;
    for (int64_t i = 1; i < e->T; i++) {
        int64_t k = (i - 1) * e->V + id_at(e->ids, i);
        sum += fabs((double)at(e->bf16, k) - (double)at(e->logprobs, k));
    }
    return sum / (double)(e->T - 1);
}

// The same over all tokens of the vocabulary, for a steadier ratio on tiny models.
static double full_error(const mica_scores *s, const expected *e) {
    double sum = 0;
    for (int64_t i = 0; i < e->T * e->V; i++)
        sum += fabs((double)s->top[i].logprob - (double)at(e->logprobs, i / e->V * e->V + s->top[i].id));
    return sum / (double)(e->T * e->V);
}

static double reference_full_error(const expected *e) {
    double sum = 0;
    for (int64_t i = 0; i < e->T * e->V; i++) sum += fabs((double)at(e->bf16, i) - (double)at(e->logprobs, i));
    return sum / (double)(e->T * e->V);
}

static void check_scores(const char *folder, const char *name, const char *level, mica_model *m, const expected *e) {
    mica_error err = {0};
    mica_scores s;
    int32_t *ids = malloc((size_t)e->T * sizeof *ids);
    for (int64_t i = 0; i < e->T; i++) ids[i] = id_at(e->ids, i);
    if (!mica_score(m, ids, (size_t)e->T, (int32_t)e->V, &s, &err)) fail_msg("%s: %s", folder, err.msg);
    double error = own_error(&s, e);
    if (!strcmp(mica_model_info(m)->dtype, "f32")) {
        print_message("  %-24s %-7s f32  mean |dlogp| %.2e\n", name, level, error);
        if (!(error <= 1e-3)) fail_msg("%s at level %s: mean |dlogp| %g > 1e-3", folder, level, error);
    } else {
        assert_non_null(e->bf16);
        double mine = full_error(&s, e), theirs = reference_full_error(e);
        print_message("  %-24s %-7s %-4s mean |dlogp| %.2e (next token %.2e), transformers bf16 %.2e (%.2e), ratio %.2f\n", name, level,
                      mica_model_info(m)->dtype, mine, error, theirs, reference_error(e), mine / theirs);
        if (!(mine <= 1.25 * theirs)) fail_msg("%s at level %s: %g > 1.25 x %g", folder, level, mine, theirs);
    }
    mica_scores_free(&s);
    free(ids);
}

// Greedy continuation equals the reference's (f32), up to the first step where our two best are closer than rounding can tell: in bf16,
// ten times the mean error of transformers' own bf16 run.
static void check_greedy(const char *folder, mica_model *m, const expected *e) {
    if (!e->greedy) return;
    mica_error err = {0};
    int64_t n = e->greedy->shape[0];
    int32_t *ids = malloc((size_t)e->T * sizeof *ids);
    for (int64_t i = 0; i < e->T; i++) ids[i] = id_at(e->ids, i);
    double rounding = strcmp(mica_model_info(m)->dtype, "f32") ? 10 * reference_full_error(e) : 1e-3;
    mica_stream *s = mica_generate_ids(m, ids, (size_t)e->T, &(mica_generate_options){.max_tokens = (int32_t)n, .ignore_eos = true, .logprobs = 2}, &err);
    if (!s) fail_msg("%s: %s", folder, err.msg);
    mica_token t;
    int64_t i = 0;
    float margin = INFINITY;
    for (; i < n && mica_stream_next(s, &t); i++) {
        margin = t.top[0].logprob - t.top[1].logprob;
        if (t.id != id_at(e->greedy, i)) break;
    }
    if (mica_stream_error(s, &err)) fail_msg("%s: %s", folder, err.msg);
    if (i < n && (double)margin > rounding)
        fail_msg("%s: greedy token %lld is %d, transformers has %d, margin %g", folder, (long long)i, (int)t.id, (int)id_at(e->greedy, i), (double)margin);
    mica_stream_free(s);
    free(ids);
}

static void check_folder(const char *parent, const char *name) {
    char folder[400];
    snprintf(folder, sizeof folder, "%s/%s", parent, name);
    expected e = {0};
    open_expected(folder, &e);
    for (size_t l = 0; mica_cpu_isa_at(l); l++) {
        const char *level = mica_cpu_isa_at(l)->name;
        mica_error err = {0};
        mica_model *m = mica_model_load(folder, &(mica_load_options){.cpu_level = level, .threads = 2}, &err);
        if (!m) fail_msg("%s: %s", folder, err.msg);
        check_scores(folder, name, level, m, &e);
        check_greedy(folder, m, &e);
        mica_model_free(m);
    }
    mica_safetensors_free(e.file);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void check_all(const char *parent) {
    DIR *d = opendir(parent);
    char *names[MOST_MODELS];
    size_t n = 0;
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s/expected.safetensors", parent, f->d_name);
        if (mica_is_file(path) && n < MOST_MODELS) names[n++] = strdup(f->d_name);
    }
    closedir(d);
    assert_true(n > 0);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        check_folder(parent, names[i]);
        free(names[i]);
    }
}

static void dense_checkpoints(void **state) {
    (void)state;
    check_all(MICA_SOURCE_DIR "/tests/golden/models");
}

static void quantised_checkpoints(void **state) {
    (void)state;
    check_all(MICA_SOURCE_DIR "/tests/golden/quant");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(dense_checkpoints), cmocka_unit_test(quantised_checkpoints)};
    return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
