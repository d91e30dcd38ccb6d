// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Fusing: the golden adapters of all tools merged into their models compute what the model computes with the adapter beside it; quantised models stay
// quantised as they were; whatever is wrong fails by name and leaves nothing behind.
#include "faults_testing.h"
#include "io/adapter_write.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "io_folder_testing.h"
#include "mica/convert.h"
#include "mica/model.h"
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

static size_t entries(void) {
    size_t n = 0;
    DIR *d = opendir(folder);
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

static const char *golden(const char *name) {
    static char path[1200];
    snprintf(path, sizeof path, GOLDEN_DIR "/adapters/%s", name);
    return path;
}

static mica_model *load(const char *path, const char *adapter) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.adapter = adapter, .threads = 1}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

/** How far the fused model is from the one with the adapter beside its weights. */
static mica_perplexity difference(const char *fused, const char *base, const char *adapter) {
    int32_t ids[40];
    mica_error err = {0};
    mica_perplexity p;
    for (int32_t i = 0; i < 40; i++) ids[i] = i * 97 % 280;
    mica_model *a = load(fused, NULL), *b = load(base, adapter);
    if (!mica_perplexity_of(a, ids, 40, &(mica_perplexity_options){.reference = b}, &p, &err)) fail_msg("%s", err.msg);
    mica_model_free(a), mica_model_free(b);
    return p;
}

static const char *fuse(const char *base, const char *adapter, const mica_fuse_options *o) {
    static char dst[1000];
    mica_error err = {0};
    snprintf(dst, sizeof dst, "%s/fused", folder);
    mica_remove_flat_dir(dst);
    if (!mica_fuse(base, adapter, dst, o, &err)) fail_msg("%s", err.msg);
    return dst;
}

// ---- dense ----------------------------------------------------------------------------------------------
static void fused_equals_adapted(void **state) {
    (void)state;
    int n = 0;
    DIR *d = opendir(GOLDEN_DIR "/adapters");
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        const char *dst = fuse(base_of(e->d_name), golden(e->d_name), &(mica_fuse_options){.dequantize = true, .convert.threads = 2});
        mica_perplexity p = difference(dst, base_of(e->d_name), golden(e->d_name));
        print_message("  %-16s logits change by %.2e, at most %.2e\n", e->d_name, p.change_mean, p.change_max);
        if (!(p.change_mean < 1e-5 && p.change_max < 1e-3)) fail_msg("%s: fused is not adapted", e->d_name);
        mica_remove_flat_dir(dst);
        n++;
    }
    closedir(d);
    assert_true(n >= 11);
}

static void other_files_come_along(void **state) {
    (void)state;
    const char *dst = fuse(base_of("mlx-lora"), golden("mlx-lora"), NULL);
    assert_true(mica_is_file(path_in(dst, "tokenizer.json")) && mica_is_file(path_in(dst, "tokenizer_config.json")));
    assert_true(mica_is_file(path_in(dst, "generation_config.json")) && mica_is_file(path_in(dst, "config.json")));
    assert_false(mica_is_file(path_in(dst, "expected.safetensors")));
    mica_remove_flat_dir(dst);
}

// ---- adapters of the test's own -------------------------------------------------------------------------
/** An adapter of rank 2 for layers of the given sizes, of values up to `size`. */
static const char *make_adapter(const char *const *modules, const int64_t (*sizes)[2], size_t n, float size) {
    enum { MOST = 8, VALUES = 4096 };
    static float values[VALUES];
    static char path[1000];
    char names[MOST * 2][128];
    mica_stored t[MOST * 2];
    mica_error err = {0};
    assert_true(n <= MOST);
    for (int i = 0; i < VALUES; i++) values[i] = size * (float)((i * 37) % 101 - 50) / 50;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 2; k++) {
            int64_t rows = k ? 2 : sizes[i][0], columns = k ? sizes[i][1] : 2;
            snprintf(names[2 * i + k], 128, "%s.lora_%c", modules[i], k ? 'b' : 'a');
            assert_true(rows * columns <= VALUES);
            t[2 * i + k] = (mica_stored){.name = names[2 * i + k], .dtype = MICA_F32, .ndim = 2, .shape = {rows, columns}, .data = values, .bytes = (size_t)(rows * columns) * 4};
        }
    snprintf(path, sizeof path, "%s/adapter", folder);
    mica_remove_flat_dir(path);
    if (!mica_adapter_write(path, t, 2 * n, &(mica_adapter_write_options){.scale = 1}, &err)) fail_msg("%s", err.msg);
    return path;
}

static void remove_adapter(void) { mica_remove_flat_dir(path_in(folder, "adapter")); }

// ---- quantised ------------------------------------------------------------------------------------------
static void same_tensor(const mica_safetensors *a, const mica_safetensors *b, const char *name) {
    const mica_stored *x = mica_safetensors_find(a, name), *y = mica_safetensors_find(b, name);
    if (!x && !y) return;
    assert_true(x && y && x->bytes == y->bytes && x->dtype == y->dtype);
    assert_memory_equal(x->data, y->data, x->bytes);
}

static void same_modules(const char *one, const char *other, const char *const *modules, size_t n) {
    static const char *const leaves[] = {"weight", "scales", "biases", "bias"};
    mica_safetensors *a = mica_safetensors_open(one, NULL), *b = mica_safetensors_open(other, NULL);
    assert_true(a && b);
    char name[200];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < MICA_COUNT(leaves); k++) {
            snprintf(name, sizeof name, "%s.%s", modules[i], leaves[k]);
            same_tensor(a, b, name);
        }
    mica_safetensors_free(a), mica_safetensors_free(b);
}

static void stays_quantised(void **state) {
    (void)state;
    static const char *const untouched[] = {"model.layers.0.self_attn.k_proj", "model.layers.1.mlp.up_proj", "model.norm"};
    const char *dst = fuse(base_of("mlx-embedding"), golden("mlx-embedding"), NULL);
    mica_info info;
    assert_true(mica_info_read(dst, &info, NULL));
    assert_true(info.quant_bits == 4 && info.quant_group == 64);
    same_modules(base_of("mlx-embedding"), dst, untouched, MICA_COUNT(untouched));
    mica_perplexity p = difference(dst, base_of("mlx-embedding"), golden("mlx-embedding"));
    assert_true(p.change_mean > 1e-3 && p.change_max > p.change_mean && isfinite(p.change_max));
    double four = p.change_mean;
    dst = fuse(base_of("mlx-embedding"), golden("mlx-embedding"), &(mica_fuse_options){.convert = {.bits = 8, .group_size = 32}});
    assert_true(mica_info_read(dst, &info, NULL));
    assert_true(info.quant_bits == 8 && info.quant_group == 32);
    p = difference(dst, base_of("mlx-embedding"), golden("mlx-embedding"));
    print_message("  logits change by %.4f with 4 bits, by %.4f with 8\n", four, p.change_mean);
    assert_true(p.change_mean < four / 4);
    mica_remove_flat_dir(dst);
}

// Every layer of this model is quantised in its own way: those with an adapter stay so as well.
static void keeps_overrides(void **state) {
    (void)state;
    static const char *const modules[] = {"model.layers.0.self_attn.v_proj", "model.layers.0.mlp.up_proj", "model.layers.0.self_attn.o_proj"};
    static const int64_t sizes[][2] = {{128, 64}, {128, 96}, {128, 128}};
    static const char *const untouched[] = {"model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
                                            "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj", "lm_head", "model.norm"};
    const char *base = GOLDEN_DIR "/quant/llama-mixed", *adapter = make_adapter(modules, sizes, 3, 0.05f), *dst = fuse(base, adapter, NULL);
    same_modules(base, dst, untouched, MICA_COUNT(untouched));
    mica_error err = {0};
    mica_model_files *a = mica_checkpoint_open(base, &err), *b = mica_checkpoint_open(dst, &err);
    assert_true(a && b);
    for (size_t i = 0; i < 3; i++) {
        mica_weight x, y;
        assert_true(mica_checkpoint_find(a, modules[i], -1, 128, &x, &err) && mica_checkpoint_find(b, modules[i], -1, 128, &y, &err));
        assert_int_equal(x.quantized, y.quantized);
        if (x.quantized) assert_memory_equal(&x.spec, &y.spec, sizeof x.spec);
        mica_weight_release(&x), mica_weight_release(&y);
    }
    mica_checkpoint_free(a), mica_checkpoint_free(b);
    mica_perplexity p = difference(dst, base, adapter);
    print_message("  mixed: logits change by %.4f\n", p.change_mean);
    assert_true(p.change_mean < 0.5);
    mica_remove_flat_dir(dst);
    remove_adapter();
}

static void gguf_becomes_a_dense_folder(void **state) {
    (void)state;
    mica_info info;
    const char *base = GOLDEN_DIR "/gguf/llama.gguf", *module = "model.layers.0.self_attn.q_proj";
    assert_true(mica_info_read(base, &info, NULL));
    const int64_t size[1][2] = {{info.hidden_size, (int64_t)info.num_heads * info.head_dim}};
    const char *adapter = make_adapter(&module, size, 1, 0.1f), *dst = fuse(base, adapter, &(mica_fuse_options){.convert.dtype = "f32"});
    assert_true(mica_info_read(dst, &info, NULL));
    assert_int_equal(info.quant_bits, 0);
    mica_perplexity p = difference(dst, base, adapter);
    print_message("  gguf: logits change by %.2e\n", p.change_mean);
    assert_true(p.change_mean < 0.05); // the file itself is computed in bf16
    mica_remove_flat_dir(dst);
    remove_adapter();
}

// ---- what cannot be fused -------------------------------------------------------------------------------
static void expect_failure(const char *base, const char *adapter, const mica_fuse_options *o, const char *a, const char *b) {
    char dst[1000];
    mica_error err = {0};
    size_t before = entries();
    snprintf(dst, sizeof dst, "%s/failing", folder);
    if (mica_fuse(base, adapter, dst, o, &err)) fail_msg("fused, expected \"%s\"", a);
    assert_says(&err, a, b);
    assert_int_equal(entries(), before);
}

#define LLAMA GOLDEN_DIR "/models/llama-f32"
static void refusals(void **state) {
    (void)state;
    const char *module = "model.layers.77.self_attn.q_proj";
    const int64_t wrong[1][2] = {{13, 24}};
    expect_failure(LLAMA, "/no/such", NULL, "/no/such", "no adapter here");
    expect_failure("/no/such", golden("mlx-lora"), NULL, "/no/such", "no such file");
    expect_failure(LLAMA, golden("mlx-lora"), &(mica_fuse_options){.dequantize = true, .convert.bits = 4}, "exclude", "quantise");
    expect_failure(LLAMA, golden("mlx-lora"), &(mica_fuse_options){.convert.bits = 7}, "not 7", "bits");
    expect_failure(LLAMA, golden("peft-lora"), NULL, "adapter: model.layers.0", "do not fit"); // another model's
    expect_failure(GOLDEN_DIR "/models/gemma3-text-bf16", golden("mlx-embedding"), NULL, "adapter: model.embed_tokens", "do not fit");
    expect_failure(LLAMA, make_adapter(&module, wrong, 1, 1), NULL, "no layer", module);
    module = "model.layers.1.mlp.up_proj";
    expect_failure(LLAMA, make_adapter(&module, wrong, 1, 1), NULL, module, "[13,2]");
    module = "model.layers.1.input_layernorm";
    expect_failure(LLAMA, make_adapter(&module, wrong, 1, 1), NULL, "no layer", module);
    mica_info info;
    assert_true(mica_info_read(LLAMA, &info, NULL));
    module = "model.layers.1.self_attn.q_proj";
    const int64_t size[1][2] = {{info.hidden_size, (int64_t)info.num_heads * info.head_dim}};
    expect_failure(LLAMA, make_adapter(&module, size, 1, INFINITY), NULL, "model.layers.1.self_attn.q_proj.weight", "not finite");
    remove_adapter();
    mica_error err = {0};
    assert_false(mica_fuse(LLAMA, golden("mlx-lora"), LLAMA, NULL, &err)); // onto itself
    assert_says(&err, "llama-f32", "exists already");
}

static void cancelled(void **state) {
    (void)state;
    int calls = 0;
    expect_failure(LLAMA, golden("mlx-lora"), &(mica_fuse_options){.convert = {.progress = stop_at_second, .progress_ctx = &calls}}, "cancelled", "");
    assert_int_equal(calls, 2);
}

static void disk_full(void **state) {
    (void)state;
    struct rlimit old;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (rlim_t limit = 64; limit < 90000; limit *= 5) {
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = limit, .rlim_max = old.rlim_max});
        mica_error err = {0};
        bool ok = mica_fuse(LLAMA, golden("mlx-lora"), path_in(folder, "full"), NULL, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_false(ok);
        assert_says(&err, "full", "write");
        assert_int_equal(entries(), 0);
    }
}

static bool fuse_once(mica_error *err) {
    char dst[1000];
    const char *name = "peft-embedding"; // which unties the head
    snprintf(dst, sizeof dst, "%s/sweep", folder);
    bool ok = mica_fuse(base_of(name), golden(name), dst, &(mica_fuse_options){.convert.threads = 1}, err);
    assert_int_equal(entries(), ok ? 1 : 0);
    mica_remove_flat_dir(dst);
    return ok;
}

static void allocation_failures(void **state) {
    (void)state;
    mica_error err = {0};
    assert_true(fuse_once(&err));
    uint64_t live = mica_alloc_get_stats().live, n = 1;
    while (!run_refused(fuse_once, n, live)) n += 1 + n / 20;
    print_message("  %d allocations\n", (int)n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_equals_adapted), cmocka_unit_test(other_files_come_along), cmocka_unit_test(stays_quantised),
        cmocka_unit_test(keeps_overrides), cmocka_unit_test(gguf_becomes_a_dense_folder), cmocka_unit_test(refusals),
        cmocka_unit_test(cancelled), cmocka_unit_test(disk_full), cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests_name("fuse", tests, make_folder, drop_folder);
}
