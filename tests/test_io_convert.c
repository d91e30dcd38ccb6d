// SPDX-License-Identifier: Apache-2.0
// Model folders and conversion: prefixes and quantised triples of the golden folders, shape errors, convert's results
// read back, and everything that must make it fail without leaving anything behind.
#include "base/quant.h"
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "io_folder_testing.h"
#include "mica/convert.h"
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

static mica_model_files *open_ok(const char *path) {
    mica_error err = {0};
    mica_model_files *c = mica_checkpoint_open(path, &err);
    if (!c) fail_msg("%s", err.msg);
    return c;
}

// ---- folders -------------------------------------------------------------------------------------------
static void prefixes(void **state) {
    (void)state;
    static const char *const folders[] = {GOLDEN_DIR "/models/gemma3-nested", GOLDEN_DIR "/models/gemma3-nested-v5",
                                          GOLDEN_DIR "/models/gemma3-text-f32", GOLDEN_DIR "/quant/gemma3-4bit"};
    for (size_t i = 0; i < MICA_COUNT(folders); i++) {
        mica_model_files *c = open_ok(folders[i]);
        const mica_config *k = mica_checkpoint_config(c);
        mica_weight w;
        mica_error err = {0};
        if (!mica_checkpoint_find(c, "model.layers.1.self_attn.q_proj", k->num_heads * k->head_dim, k->hidden_size, &w, &err)) fail_msg("%s", err.msg);
        mica_weight_release(&w);
        assert_true(mica_checkpoint_find(c, "model.layers.1.self_attn.q_norm", 0, k->head_dim, &w, &err));
        assert_false(mica_checkpoint_has(c, "lm_head"));
        mica_checkpoint_free(c);
    }
}

static void mixed_triples(void **state) {
    (void)state;
    static const struct { const char *module; bool quantized; mica_quant_spec spec; } want[] = {
        {"model.embed_tokens", true, {MICA_AFFINE, 8, 128}}, {"model.layers.0.self_attn.q_proj", true, {MICA_AFFINE, 4, 64}},
        {"model.layers.0.self_attn.k_proj", true, {MICA_AFFINE, 5, 64}}, {"model.layers.0.self_attn.v_proj", true, {MICA_AFFINE, 6, 32}},
        {"model.layers.0.self_attn.o_proj", false, {0}}, {"model.layers.0.mlp.gate_proj", true, {MICA_AFFINE, 3, 32}},
        {"model.layers.0.mlp.up_proj", true, {MICA_MXFP4, 4, 32}}, {"model.layers.0.mlp.down_proj", false, {0}}, {"lm_head", true, {MICA_AFFINE, 5, 64}}};
    mica_model_files *c = open_ok(GOLDEN_DIR "/quant/llama-mixed");
    for (size_t i = 0; i < MICA_COUNT(want); i++) {
        mica_weight w;
        mica_error err = {0};
        float row[256];
        int64_t in = strstr(want[i].module, "down_proj") ? 96 : 128;
        if (!mica_checkpoint_find(c, want[i].module, -1, in, &w, &err)) fail_msg("%s", err.msg);
        assert_int_equal(w.quantized, want[i].quantized);
        if (w.quantized) assert_memory_equal(&w.spec, &want[i].spec, sizeof w.spec);
        mica_weight_row(&w, w.out - 1, row);
        for (int64_t k = 0; k < in; k++) assert_true(isfinite(row[k]) && fabsf(row[k]) < 100);
        assert_int_equal(w.has_bias, strstr(want[i].module, "self_attn") != NULL);
        mica_checkpoint_forget(c, &w);
        mica_weight_release(&w);
    }
    mica_checkpoint_stats s = mica_checkpoint_get_stats(c);
    // [288,128] twice, q and o [128,128], k and v [64,128], gate and up [96,128], down [128,96], norms, biases
    assert_int_equal(s.parameters, 2 * 288 * 128 + 2 * 128 * 128 + 2 * 64 * 128 + 3 * 96 * 128 + 3 * 128 + 128 + 64 + 64 + 128);
    mica_checkpoint_free(c);
}

// A triple whose bits and group the global spec does not tell: the shapes do.
static void inferred_from_shapes(void **state) {
    (void)state;
    mica_error err = {0};
    copy_file_to(GOLDEN_DIR "/quant/llama-3bit-g32/model.safetensors", path_in(folder, "model.safetensors"));
    mica_buf config = {0};
    assert_true(mica_file_read(GOLDEN_DIR "/quant/llama-3bit-g32/config.json", 99999, &config, &err));
    for (char *p; (p = strstr(config.data, "\"bits\": 3"));) p[8] = '4';
    write_file(path_in(folder, "config.json"), config.data, config.len);
    mica_buf_free(&config);
    mica_model_files *c = open_ok(folder);
    mica_weight w;
    if (!mica_checkpoint_find(c, "model.layers.0.mlp.up_proj", 128, 128, &w, &err)) fail_msg("%s", err.msg);
    assert_true(w.spec.bits == 3 && w.spec.group_size == 32);
    assert_false(mica_checkpoint_find(c, "model.layers.0.mlp.up_proj", 128, 96, &w, &err));
    assert_says(&err, "up_proj.weight", "not 24");
    mica_checkpoint_free(c);
    unlink(path_in(folder, "config.json"));
    unlink(path_in(folder, "model.safetensors"));
}

static void clear_errors(void **state) {
    (void)state;
    static const struct { const char *path, *says; } bad[] = {
        {"/no/such/model", "/no/such/model: no such file or folder"}, {GOLDEN_DIR "/models", "no config.json"},
        {GOLDEN_DIR "/models/llama-f32/config.json", "give the model's folder"}, {GOLDEN_DIR "/quant/vectors.safetensors", "give the model's folder"},
        {GOLDEN_DIR "/io/spm.tokens.json", "give the model's folder"}, {MICA_SOURCE_DIR "/LICENSE", "not a GGUF file"}};
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        mica_error err = {0};
        assert_null(mica_checkpoint_open(bad[i].path, &err));
        assert_says(&err, bad[i].path, bad[i].says);
    }
    mica_model_files *c = open_ok(GOLDEN_DIR "/models/llama-f32");
    mica_weight w;
    mica_error err = {0};
    assert_false(mica_checkpoint_find(c, "model.layers.9.mlp.up_proj", 1, 1, &w, &err));
    assert_says(&err, "llama-f32", "no tensor \"model.layers.9.mlp.up_proj.weight\"");
    assert_false(mica_checkpoint_find(c, "model.layers.0.mlp.up_proj", 60, 47, &w, &err));
    assert_says(&err, "[60,48]", "[60,47]");
    assert_false(mica_checkpoint_find(c, "model.norm", 1, 48, &w, &err));
    assert_says(&err, "[48]", "[1,48]");
    mica_checkpoint_free(c);
}

// ---- conversion ----------------------------------------------------------------------------------------
// Every weight of the result is the source's, rounded to the dtype and, where it fits, quantised by mica_quantize_rows.
static void same_weight(const mica_model_files *a, const mica_model_files *b, const char *module, mica_dtype dtype, const mica_quant_spec *spec) {
    mica_weight x, y;
    mica_error err = {0};
    if (!mica_checkpoint_find(a, module, -1, -1, &x, &err) || !mica_checkpoint_find(b, module, -1, x.in, &y, &err)) fail_msg("%s", err.msg);
    bool quantized = spec && x.weight.ndim == 2 && mica_quant_fits(*spec, (size_t)x.in);
    assert_int_equal(y.quantized, quantized);
    assert_int_equal(x.out, y.out);
    size_t in = (size_t)x.in;
    float *want = malloc(in * 4), *got = malloc(in * 4);
    unsigned char *words = malloc(in * 4), *scales = malloc(in * 4), *biases = malloc(in * 4);
    for (int64_t r = 0; r < x.out; r++) {
        mica_weight_row(&x, r, want);
        mica_store_f32_run(dtype, want, in, words);
        mica_load_f32_run(dtype, words, 0, in, want);
        if (quantized) {
            mica_quantize_rows(*spec, dtype, want, 1, in, words, scales, biases);
            mica_quant_rows q = {.spec = *spec, .scale_dtype = dtype, .words = words, .scales = scales, .biases = biases};
            mica_dequantize_rows(&q, in, 0, 1, want);
        }
        mica_weight_row(&y, r, got);
        assert_memory_equal(want, got, in * 4);
    }
    free(want), free(got), free(words), free(scales), free(biases);
    mica_weight_release(&x), mica_weight_release(&y);
}

static void check_conversion(const char *src, const mica_convert_options *o, mica_dtype dtype, const mica_quant_spec *spec) {
    char dst[1000];
    mica_error err = {0};
    snprintf(dst, sizeof dst, "%s/converted", folder);
    if (!mica_convert(src, dst, o, &err)) fail_msg("%s", err.msg);
    mica_model_files *a = open_ok(src), *b = open_ok(dst);
    const mica_config *p = mica_checkpoint_config(a), *q = mica_checkpoint_config(b);
    assert_true(p->arch == q->arch && p->num_layers == q->num_layers && p->num_kv_heads == q->num_kv_heads && p->head_dim == q->head_dim);
    assert_true(p->rope.type == q->rope.type && p->rope.theta == q->rope.theta && fabs(p->rope.attention_factor - q->rope.attention_factor) < 1e-9);
    assert_true(p->rope_sliding.theta == q->rope_sliding.theta && p->sliding_window == q->sliding_window && p->query_scale == q->query_scale);
    assert_memory_equal(p->is_sliding, q->is_sliding, (size_t)p->num_layers * sizeof(bool));
    assert_int_equal(p->tie_word_embeddings, q->tie_word_embeddings);
    assert_int_equal(p->eos_count, q->eos_count);
    assert_int_equal(q->quantized, spec != NULL);
    same_weight(a, b, "model.embed_tokens", dtype, spec);
    same_weight(a, b, "model.norm", dtype, NULL);
    for (int64_t i = 0; i < p->num_layers; i++) {
        static const char *const parts[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                                            "mlp.up_proj", "mlp.down_proj"};
        for (size_t k = 0; k < MICA_COUNT(parts); k++) {
            char module[96];
            snprintf(module, sizeof module, "model.layers.%d.%s", (int)i, parts[k]);
            same_weight(a, b, module, dtype, spec);
        }
    }
    mica_checkpoint_free(a), mica_checkpoint_free(b);
    mica_remove_flat_dir(dst);
}

static void conversions(void **state) {
    (void)state;
    const mica_quant_spec five = {MICA_AFFINE, 5, 32}, fp4 = {MICA_MXFP4, 4, 32};
    check_conversion(GOLDEN_DIR "/models/llama-f32", NULL, MICA_F32, NULL);
    check_conversion(GOLDEN_DIR "/models/llama-bf16", &(mica_convert_options){.bits = 5, .group_size = 32}, MICA_BF16, &five);
    check_conversion(GOLDEN_DIR "/models/gemma3-text-f32", &(mica_convert_options){.dtype = "f16"}, MICA_F16, NULL);
    check_conversion(GOLDEN_DIR "/models/gemma3-nested-v5", &(mica_convert_options){.dtype = "bf16"}, MICA_BF16, NULL);
    check_conversion(GOLDEN_DIR "/models/gemma3-nested", &(mica_convert_options){.threads = 2}, MICA_BF16, NULL);
    check_conversion(GOLDEN_DIR "/models/qwen3-bf16", &(mica_convert_options){.mode = MICA_MXFP4}, MICA_BF16, &fp4);
    check_conversion(GOLDEN_DIR "/models/llama-yarn-mscale", &(mica_convert_options){.bits = 5, .group_size = 32}, MICA_F32, &five);
    check_conversion(GOLDEN_DIR "/models/llama-longrope", NULL, MICA_F32, NULL);
    check_conversion(GOLDEN_DIR "/gguf/qwen2.gguf", NULL, MICA_BF16, NULL);
    check_conversion(GOLDEN_DIR "/gguf/gemma3.gguf", &(mica_convert_options){.dtype = "float32"}, MICA_F32, NULL);
    check_conversion(GOLDEN_DIR "/io/llama-bias.gguf", &(mica_convert_options){.bits = 5, .group_size = 32, .dtype = "f32"}, MICA_F32, &five);
    check_conversion(GOLDEN_DIR "/quant/llama-4bit-g64", &(mica_convert_options){.dtype = "f32"}, MICA_F32, NULL); // back to dense
}

static void tokenizer_files(void **state) {
    (void)state;
    char dst[1000];
    mica_error err = {0};
    snprintf(dst, sizeof dst, "%s/with-tokenizer", folder);
    assert_true(mica_convert(GOLDEN_DIR "/gguf/gemma3.gguf", dst, NULL, &err));
    mica_buf text = {0};
    mica_arena arena = {0};
    assert_true(mica_file_read(path_in(dst, "tokenizer.json"), 1 << 28, &text, &err));
    const mica_json *root = mica_json_parse(&arena, text.data, text.len, "tokenizer.json", &err), *model = mica_json_get(root, "model");
    mica_model_files *c = open_ok(GOLDEN_DIR "/gguf/gemma3.gguf");
    assert_int_equal(mica_json_get(model, "vocab")->length, mica_gguf_get_vocab(mica_checkpoint_gguf(c))->count);
    assert_true(mica_json_get(model, "merges")->length > 0 && mica_json_get(model, "byte_fallback")->boolean);
    mica_checkpoint_free(c);
    mica_arena_free(&arena);
    mica_buf_free(&text);
    mica_remove_flat_dir(dst);
    assert_true(mica_convert(GOLDEN_DIR "/models/llama-f32", dst, NULL, &err));
    assert_true(mica_is_file(path_in(dst, "tokenizer.json")) && mica_is_file(path_in(dst, "generation_config.json")));
    mica_remove_flat_dir(dst);
}

static void expect_failure(const char *src, const mica_convert_options *o, const char *a, const char *b) {
    char dst[1000];
    mica_error err = {0};
    size_t before = entries_of(folder);
    snprintf(dst, sizeof dst, "%s/failing", folder);
    if (mica_convert(src, dst, o, &err)) fail_msg("converted, expected \"%s\"", a);
    assert_says(&err, a, b);
    assert_int_equal(entries_of(folder), before);
}

// A copy of a dense golden folder whose model.norm.weight starts with `value`.
static const char *poisoned(float value) {
    static char dir[1000];
    mica_error err = {0};
    snprintf(dir, sizeof dir, "%s/poisoned", folder);
    assert_true(mica_mkdirs(dir, &err));
    copy_file_to(GOLDEN_DIR "/models/llama-linear/config.json", path_in(dir, "config.json"));
    mica_safetensors *st = mica_safetensors_open(GOLDEN_DIR "/models/llama-linear/model.safetensors", &err);
    mica_st_writer *w = mica_st_writer_new(path_in(dir, "model.safetensors"), NULL, &err);
    for (size_t i = 0; i < mica_safetensors_count(st); i++) {
        const mica_stored *t = mica_safetensors_at(st, i);
        assert_true(mica_st_writer_declare(w, t->name, t->dtype, t->ndim, t->shape, &err));
    }
    assert_true(mica_st_writer_begin(w, &err));
    for (size_t i = 0; i < mica_safetensors_count(st); i++) {
        const mica_stored *t = mica_safetensors_at(st, i);
        bool norm = !strcmp(t->name, "model.norm.weight");
        if (norm) assert_true(mica_st_writer_put(w, &value, 4, &err));
        assert_true(mica_st_writer_put(w, (const char *)t->data + (norm ? 4 : 0), t->bytes - (norm ? 4 : 0), &err));
    }
    assert_true(mica_st_writer_commit(w, &err));
    mica_st_writer_free(w);
    mica_safetensors_free(st);
    return dir;
}

static void refusals(void **state) {
    (void)state;
    const char *good = GOLDEN_DIR "/models/llama-linear";
    expect_failure(good, &(mica_convert_options){.bits = 7}, "not 7", "bits");
    expect_failure(good, &(mica_convert_options){.bits = 4, .group_size = 16}, "not 16", "groups");
    expect_failure(good, &(mica_convert_options){.mode = MICA_MXFP8, .bits = 4}, "mxfp8", "not 4");
    expect_failure(good, &(mica_convert_options){.dtype = "int8"}, "\"int8\"", "f32");
    expect_failure("/no/such", NULL, "/no/such", "no such file");
    const char *bad = poisoned(NAN);
    expect_failure(bad, NULL, "model.norm.weight", "not finite");
    bad = poisoned(1e30f);
    expect_failure(bad, &(mica_convert_options){.dtype = "f16"}, "model.norm.weight", "not finite in f16");
    mica_remove_flat_dir(bad);
    mica_error err = {0};
    assert_false(mica_convert(good, GOLDEN_DIR "/models", NULL, &err));
    assert_says(&err, "exists already", "not empty");
    assert_false(mica_convert(good, MICA_SOURCE_DIR "/LICENSE", NULL, &err));
    assert_says(&err, "LICENSE", "exists already");
}

static void cancelled(void **state) {
    (void)state;
    int calls = 0;
    expect_failure(GOLDEN_DIR "/models/llama-linear", &(mica_convert_options){.progress = stop_at_second, .progress_ctx = &calls}, "cancelled", "");
    assert_int_equal(calls, 2);
}

static void disk_full(void **state) {
    (void)state;
    struct rlimit old, tight;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (rlim_t limit = 64; limit < 90000; limit *= 5) {
        tight = (struct rlimit){.rlim_cur = limit, .rlim_max = old.rlim_max};
        setrlimit(RLIMIT_FSIZE, &tight);
        mica_error err = {0};
        bool ok = mica_convert(GOLDEN_DIR "/models/llama-linear", path_in(folder, "full"), NULL, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        if (ok) mica_remove_flat_dir(path_in(folder, "full"));
        else assert_says(&err, "full", "write");
        assert_int_equal(entries_of(folder), 0);
    }
}

static bool convert_once(void *ctx, mica_error *err) {
    char dst[1000];
    snprintf(dst, sizeof dst, "%s/sweep", folder);
    bool ok = mica_convert(ctx, dst, &(mica_convert_options){.bits = 4, .group_size = 32, .threads = 1}, err);
    assert_int_equal(entries_of(folder), ok ? 1 : 0);
    mica_remove_flat_dir(dst);
    return ok;
}

static void allocation_failures(void **state) {
    (void)state;
    char qwen[] = GOLDEN_DIR "/models/qwen2-f32", gemma[] = GOLDEN_DIR "/gguf/gemma3.gguf";
    sweep_allocations(convert_once, qwen);
    sweep_allocations(convert_once, gemma); // with its tokenizer
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes), cmocka_unit_test(mixed_triples), cmocka_unit_test(inferred_from_shapes), cmocka_unit_test(clear_errors),
        cmocka_unit_test(conversions), cmocka_unit_test(tokenizer_files), cmocka_unit_test(refusals), cmocka_unit_test(cancelled),
        cmocka_unit_test(disk_full), cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests_name("io_convert", tests, make_folder, drop_folder);
}
