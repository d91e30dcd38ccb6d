// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// LoRA adapters as mlx-lm, PEFT and go-mlx write them, against what those tools compute (tests/oracle/make_adapters.py), and broken ones.
#include "base/file.h"
#include "base/json.h"
#include "faults_testing.h"
#include "io/safetensors.h"
#include "io_testing.h"
#include "mica/model.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/"

// Mean |Δ log p| over all tokens of the vocabulary.
static double error_of(mica_model *m, const mica_safetensors *expected) {
    const mica_stored *ids = mica_safetensors_find(expected, "input_ids"), *want = mica_safetensors_find(expected, "logprobs");
    int64_t T = want->shape[0], V = want->shape[1];
    int32_t own[64];
    mica_scores s;
    mica_error err = {0};
    assert_true(T <= 64);
    memcpy(own, ids->data, (size_t)T * sizeof *own);
    if (!mica_score(m, own, (size_t)T, (int32_t)V, &s, &err)) fail_msg("%s", err.msg);
    double sum = 0;
    for (int64_t i = 0; i < T * V; i++) {
        float w;
        memcpy(&w, (const char *)want->data + (i / V * V + s.top[i].id) * 4, 4);
        sum += fabs((double)s.top[i].logprob - (double)w);
    }
    mica_scores_free(&s);
    return sum / (double)(T * V);
}

static void check(const char *name, const char *level) {
    char adapter[600], file[700];
    mica_error err = {0};
    snprintf(adapter, sizeof adapter, GOLDEN "adapters/%s", name);
    snprintf(file, sizeof file, "%s/expected.safetensors", adapter);
    mica_safetensors *expected = mica_safetensors_open(file, &err);
    if (!expected) fail_msg("%s", err.msg);
    mica_model *m = mica_model_load(base_of(name), &(mica_load_options){.adapter = adapter, .cpu_level = level, .threads = 2}, &err);
    if (!m) fail_msg("%s: %s", name, err.msg);
    double e = error_of(m, expected);
    print_message("  %-16s %-8s mean |d log p| %.2e\n", name, mica_model_cpu_level(m), e);
    if (!(e < 1e-3)) fail_msg("%s: differs from the reference by %g", name, e);
    mica_model_free(m);
    mica_safetensors_free(expected);
}

static void as_the_tools_compute(void **state) {
    (void)state;
    int n = 0;
    DIR *d = opendir(GOLDEN "adapters");
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        check(e->d_name, NULL);
        check(e->d_name, "ref");
        n++;
    }
    closedir(d);
    assert_true(n >= 14);
}

// ---- broken adapters ------------------------------------------------------------------------------------
static char folder[] = "/tmp/mica-adapter-XXXXXX";

static void write_config(const char *text) {
    char path[100];
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void write_tensors(const char *file, const char *a, int64_t in, int64_t r, const char *b, int64_t r2, int64_t out) {
    char path[100];
    static const float zeros[1 << 16];
    mica_error err = {0};
    int64_t shapes[2][2] = {{in, r}, {r2, out}};
    const char *names[] = {a, b};
    snprintf(path, sizeof path, "%s/%s", folder, file);
    mica_st_writer *w = mica_st_writer_new(path, NULL, &err);
    for (int i = 0; i < 2; i++) assert_true(mica_st_writer_declare(w, names[i], MICA_F32, 2, shapes[i], &err));
    assert_true(mica_st_writer_begin(w, &err));
    for (int i = 0; i < 2; i++) assert_true(mica_st_writer_put(w, zeros, (size_t)(shapes[i][0] * shapes[i][1]) * 4, &err));
    assert_true(mica_st_writer_commit(w, &err));
    mica_st_writer_free(w);
}

static void expect_refused(const char *part) {
    mica_error err = {0};
    mica_model *m = mica_model_load(GOLDEN "models/llama-f32", &(mica_load_options){.adapter = folder}, &err);
    if (m) fail_msg("loaded, although: %s", part);
    if (!strstr(err.msg, part)) fail_msg("\"%s\" does not name %s", err.msg, part);
}

#define Q "model.layers.0.self_attn.q_proj"
static void broken_ones_are_refused(void **state) {
    (void)state;
    mica_info info;
    assert_true(mica_info_read(GOLDEN "models/llama-f32", &info, NULL));
    int64_t D = info.hidden_size, out = info.num_heads * (int64_t)info.head_dim;
    static const char good[] = "{\"fine_tune_type\":\"lora\",\"lora_parameters\":{\"rank\":2,\"scale\":1}}";
    assert_non_null(mkdtemp(folder));
    expect_refused("no adapter here");
    write_config(good);
    write_tensors("adapters.safetensors", Q ".lora_a", D, 2, Q ".lora_b", 2, out);
    mica_error err = {0};
    mica_model *m = mica_model_load(GOLDEN "models/llama-f32", &(mica_load_options){.adapter = folder}, &err);
    if (!m) fail_msg("%s", err.msg);
    mica_model_free(m);
    write_config("{\"fine_tune_type\":\"full\"}");
    expect_refused("fine_tune_type");
    write_config("[1");
    expect_refused("adapter_config.json");
    write_config("{}");
    expect_refused("lora_parameters");
    write_config(good);
    write_tensors("adapters.safetensors", Q ".lora_a", D, 2, Q ".lora_b", 3, out);
    expect_refused("do not fit together");
    write_tensors("adapters.safetensors", Q ".lora_a", D + 1, 2, Q ".lora_b", 2, out);
    expect_refused("self_attn.q_proj");
    write_tensors("adapters.safetensors", Q ".lora_a", D, 2, "model.layers.0.mlp.up_proj.lora_b", 2, out);
    expect_refused("only one of its two");
    write_tensors("adapters.safetensors", "model.layers.99.self_attn.q_proj.lora_a", D, 2, "model.layers.99.self_attn.q_proj.lora_b", 2, out);
    expect_refused("layers.99.self_attn.q_proj");
    write_tensors("adapters.safetensors", Q ".lora_a", D, 2, Q ".strange", 2, out);
    expect_refused(".strange");
    char *tensors = mica_path_join(folder, "adapters.safetensors");
    unlink(tensors);
    mica_free(tensors);
    write_tensors("adapter_model.safetensors", "base_model.model." Q ".lora_A.weight", 2, D, "base_model.model." Q ".lora_B.weight", out, 2);
    write_config("{\"peft_type\":\"LOHA\"}");
    expect_refused("LOHA");
    write_config("{\"peft_type\":\"LORA\",\"modules_to_save\":[\"lm_head\"]}");
    expect_refused("modules_to_save");
    write_config("{\"peft_type\":\"LORA\",\"bias\":\"all\"}");
    expect_refused("biases");
    write_config("{\"peft_type\":\"LORA\",\"lora_alpha\":2}");
    m = mica_model_load(GOLDEN "models/llama-f32", &(mica_load_options){.adapter = folder}, &err);
    if (!m) fail_msg("%s", err.msg);
    mica_model_free(m);
    mica_remove_flat_dir(folder);
}

// ---- allocations that fail ------------------------------------------------------------------------------
static bool load_adapted(mica_error *err) {
    mica_model *m = mica_model_load(GOLDEN "models/qwen2-f32", &(mica_load_options){.threads = 1, .adapter = GOLDEN "adapters/mlx-dora-bias"}, err);
    mica_model_free(m);
    return m != NULL;
}

static void any_allocation_may_fail(void **state) {
    (void)state;
    mica_error err = {0};
    assert_true(load_adapted(&err)); // what is kept from a first time on
    uint64_t live = mica_alloc_get_stats().live, n = 1;
    while (!run_refused(load_adapted, n, live)) n += 1 + n / 20;
    print_message("  %d allocations\n", (int)n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_the_tools_compute),
        cmocka_unit_test(broken_ones_are_refused),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
