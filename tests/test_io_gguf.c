// SPDX-License-Identifier: Apache-2.0
// GGUF: every tensor type against the gguf package, whole small models against transformers' importer, crafted and
// damaged files. The golden files come from oracle/make_io.py and oracle/make_gguf.py.
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "io_folder_testing.h"
#include <fcntl.h>
#include <math.h>

static mica_model_files *open_golden(const char *name) {
    char path[600];
    mica_error err = {0};
    snprintf(path, sizeof path, GOLDEN_DIR "/%s.gguf", name);
    mica_model_files *c = mica_checkpoint_open(path, &err);
    if (!c) fail_msg("%s", err.msg);
    return c;
}

static mica_safetensors *open_expected(const char *name) {
    char path[600];
    mica_error err = {0};
    snprintf(path, sizeof path, GOLDEN_DIR "/%s.safetensors", name);
    mica_safetensors *st = mica_safetensors_open(path, &err);
    if (!st) fail_msg("%s", err.msg);
    return st;
}

static void same_values(const float *got, const void *want, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        float w;
        memcpy(&w, (const char *)want + 4 * i, 4);
        if (got[i] != w) fail_msg("%s[%zu]: %.9g, expected %.9g", name, i, (double)got[i], (double)w);
    }
}

// Compares the rows that `want` holds ("…weight" or "…bias") with the module's.
static void check_tensor(const mica_model_files *c, const mica_stored *want, const char *name) {
    char module[256];
    mica_weight w;
    mica_error err = {0};
    const char *dot = strrchr(name, '.');
    bool bias = !strcmp(dot, ".bias"), vector = want->ndim == 1;
    snprintf(module, sizeof module, "%.*s", (int)(dot - name), name);
    int64_t in = want->shape[want->ndim - 1], rows = vector ? 1 : want->shape[0];
    if (!mica_checkpoint_find(c, module, bias || !vector ? -1 : 0, bias ? -1 : in, &w, &err)) fail_msg("%s", err.msg);
    if (bias) {
        assert_true(w.has_bias && w.bias.dtype == MICA_F32 && w.bias.bytes == want->bytes);
        same_values(w.bias.data, want->data, (size_t)in, name);
    }
    float *row = malloc((size_t)in * 4);
    for (int64_t r = 0; !bias && r < rows; r++) {
        mica_weight_row(&w, r, row);
        same_values(row, (const char *)want->data + r * in * 4, (size_t)in, name);
    }
    free(row);
    mica_weight_release(&w);
}

static size_t check_all(const char *gguf, const char *expected, const char *prefix) {
    mica_model_files *c = open_golden(gguf);
    mica_safetensors *st = open_expected(expected);
    size_t checked = 0, n = strlen(prefix);
    for (size_t i = 0; i < mica_safetensors_count(st); i++) {
        const mica_stored *t = mica_safetensors_at(st, i);
        if (!strncmp(t->name, prefix, n) && strchr(t->name, '.')) check_tensor(c, t, t->name + n), checked++;
    }
    mica_safetensors_free(st);
    mica_checkpoint_free(c);
    return checked;
}

static void every_type(void **state) {
    (void)state;
    assert_int_equal(check_all("io/types", "io/types", ""), 13 * 3 + 3);
    mica_model_files *c = open_golden("io/types");
    mica_weight w;
    mica_error err = {0};
    static const struct { int layer, bits, group; mica_dtype scales; } kinds[] = {
        {3, 4, 32, MICA_F16}, {4, 4, 32, MICA_F16}, {5, 5, 32, MICA_F16}, {6, 5, 32, MICA_F16}, {7, 8, 32, MICA_F16},
        {8, 2, 16, MICA_F32}, {9, 3, 16, MICA_F32}, {10, 4, 32, MICA_F32}, {11, 5, 32, MICA_F32}, {12, 6, 16, MICA_F32}};
    for (size_t i = 0; i < MICA_COUNT(kinds); i++) {
        char module[64];
        snprintf(module, sizeof module, "model.layers.%d.mlp.up_proj", kinds[i].layer);
        assert_true(mica_checkpoint_find(c, module, 2, 256, &w, &err));
        assert_true(w.quantized && w.spec.bits == kinds[i].bits && w.spec.group_size == kinds[i].group && w.scales.dtype == kinds[i].scales);
        mica_weight_release(&w);
    }
    // Scales of 600 fold into biases of -76800, which f16 does not hold.
    assert_true(mica_checkpoint_find(c, "lm_head", 1, 256, &w, &err));
    assert_int_equal(w.scales.dtype, MICA_F32);
    mica_weight_release(&w);
    mica_checkpoint_free(c);
}

static void whole_models(void **state) {
    (void)state;
    assert_true(check_all("gguf/llama", "gguf/llama.gguf", "w.") > 10);
    assert_true(check_all("gguf/gemma3", "gguf/gemma3.gguf", "w.") > 10);
    assert_true(check_all("gguf/qwen2", "gguf/qwen2.gguf", "w.") > 10);
    assert_true(check_all("io/llama-bias", "io/llama-bias", "") > 10);
}

static void configs(void **state) {
    (void)state;
    mica_model_files *c = open_golden("io/llama-bias");
    const mica_config *k = mica_checkpoint_config(c);
    assert_true(k->rope.type == MICA_ROPE_LLAMA3 && k->rope.factor == 8 && k->rope.original_max_position == 8192); // from rope_freqs
    assert_true(k->attention_bias && k->attention_o_bias && k->tie_word_embeddings && k->rope.theta == 20000);
    mica_checkpoint_free(c);
    c = open_golden("gguf/gemma3");
    k = mica_checkpoint_config(c);
    assert_string_equal(k->model_type, "gemma3_text");
    assert_true(k->is_sliding[0] && k->rope_sliding.theta == 1e4 && k->hidden_act == MICA_ACT_GELU_TANH);
    mica_checkpoint_stats s = mica_checkpoint_get_stats(c);
    assert_true(s.files == 1 && s.tensors > 10 && s.bytes > 0 && s.parameters > 0);
    mica_checkpoint_free(c);
}

static void vocabulary(void **state) {
    (void)state;
    mica_model_files *c = open_golden("io/spm");
    const mica_gguf_vocab *v = mica_gguf_get_vocab(mica_checkpoint_gguf(c));
    assert_string_equal(v->model, "llama");
    assert_int_equal(v->count, 274);
    assert_true(v->bos_id == 1 && v->eos_id == 2 && v->unk_id == 0 && v->pad_id == -1);
    assert_true(v->add_bos == 1 && v->add_eos == -1 && v->merge_count == 0 && v->merges == NULL);
    assert_true(v->types[3] == 6 && v->types[273] == 4 && v->scores[260] == -1);
    assert_memory_equal(v->tokens[1].data, "<s>", 3);
    assert_string_equal(v->chat_template, "{{ messages[0]['content'] }}<|im_end|>");
    mica_checkpoint_free(c);
}

static void missing_and_misshapen(void **state) {
    (void)state;
    mica_model_files *c = open_golden("io/llama-bias");
    mica_weight w;
    mica_error err = {0};
    assert_false(mica_checkpoint_has(c, "lm_head"));
    assert_true(mica_checkpoint_has(c, "model.layers.0.mlp.up_proj"));
    assert_false(mica_checkpoint_find(c, "model.layers.7.mlp.up_proj", 32, 64, &w, &err));
    assert_says(&err, "blk.7.ffn_up.weight", "llama-bias.gguf");
    assert_false(mica_checkpoint_find(c, "model.layers.0.mlp.up_proj", 32, 65, &w, &err));
    assert_says(&err, "[32,64]", "[32,65]");
    assert_false(mica_checkpoint_find(c, "model.norm", 1, 64, &w, &err));
    assert_false(mica_checkpoint_find(c, "model.layers.0.mlp.router", -1, -1, &w, &err));
    assert_says(&err, "model.layers.0.mlp.router", "llama-bias.gguf");
    mica_checkpoint_free(c);
}

// ---- crafted files -------------------------------------------------------------------------------------
static mica_buf built;

static void u32(uint32_t v) { mica_buf_append(&built, &v, 4); }
static void u64(uint64_t v) { mica_buf_append(&built, &v, 8); }
static void text(const char *s) { u64(strlen(s)), mica_buf_puts(&built, s); }
static void begin(uint32_t version, uint64_t tensors, uint64_t entries) {
    mica_buf_free(&built);
    mica_buf_puts(&built, "GGUF");
    u32(version), u64(tensors), u64(entries);
}
static void entry_u32(const char *key, uint32_t v) { text(key), u32(4), u32(v); }
static void entry_text(const char *key, const char *v) { text(key), u32(8), text(v); }
static void tensor(const char *name, uint32_t ndim, const uint64_t *dims, uint32_t type, uint64_t offset) {
    text(name), u32(ndim);
    for (uint32_t i = 0; i < ndim; i++) u64(dims[i]);
    u32(type), u64(offset);
}

static void refused(const char *says) {
    mica_error err = {0};
    uint64_t live = mica_alloc_get_stats().live;
    const char *path = path_in(folder, "bad.gguf");
    write_file(path, built.data, built.len);
    mica_gguf *g = mica_gguf_open(path, &err);
    if (g) fail_msg("accepted, expected \"%s\"", says);
    assert_says(&err, "bad.gguf", says);
    assert_int_equal(mica_alloc_get_stats().live, live);
}

static void one_tensor(uint32_t ndim, const uint64_t *dims, uint32_t type, uint64_t offset, const char *says) {
    begin(3, 1, 0);
    tensor("t", ndim, dims, type, offset);
    for (int i = 0; i < 40; i++) u64(0);
    refused(says);
}

static void crafted(void **state) {
    (void)state;
    static const uint64_t small[] = {32, 2, 1, 1, 1}, huge[] = {1ull << 40, 1ull << 40, 1, 1}, none[] = {0, 1, 1, 1}, odd[] = {33, 1, 1, 1};
    begin(1, 0, 0), refused("version 1");
    begin(0x03000000, 0, 0), refused("big-endian");
    mica_buf_free(&built), mica_buf_puts(&built, "GGML1234"), refused("not a GGUF file");
    begin(3, UINT64_MAX, 0), refused("tensor list");
    begin(3, 0, UINT64_MAX), refused("metadata");
    begin(3, 0, 1), u64(UINT64_MAX), mica_buf_append(&built, "0123456789", 10), refused("cut short");
    begin(3, 0, 1), text("k"), u32(99), u64(0), refused("\"k\": unknown value type 99");
    begin(3, 0, 1), text("k"), u32(9), u32(4), u64(UINT64_MAX), u64(0), refused("k: file cut short");
    begin(3, 0, 1), text("k"), u32(9), u32(8), u64(1u << 30), u64(0), refused("k: file cut short");
    begin(3, 0, 1), text("k"), u32(9);
    for (int i = 0; i < 50; i++) u32(9), u64(1);
    refused("k: file cut short"); // arrays of arrays of …
    begin(3, 0, 1), entry_u32("general.alignment", 3), refused("\"general.alignment\" is 3");
    begin(3, 0, 2), entry_text("tokenizer.ggml.model", "gpt2"), entry_text("tokenizer.ggml.tokens", "x"), refused("no list of strings");
    begin(3, 0, 1), entry_u32("tokenizer.ggml.bos_token_id", 5), refused("outside the vocabulary of 0");
    one_tensor(0, small, 0, 0, "0 dimensions");
    one_tensor(5, small, 0, 0, "5 dimensions");
    one_tensor(2, none, 0, 0, "impossible dimension 0");
    one_tensor(2, huge, 0, 0, "impossible dimension");
    one_tensor(2, small, 16, 0, "IQ2_XXS (16) is not supported");
    one_tensor(2, small, 77777, 0, "? (77777) is not supported");
    one_tensor(2, odd, 2, 0, "no multiple of the Q4_0 block");
    one_tensor(2, small, 0, 31, "offset 31 is not aligned");
    one_tensor(2, small, 0, 1ull << 62, "256 bytes at 4611686018427387904");
    one_tensor(2, small, 0, 96, "256 bytes at 96");
    begin(3, 2, 0), tensor("t", 1, small, 0, 0), tensor("t", 1, small, 0, 0), refused("\"t\" appears twice");
    mica_buf_free(&built);
}

// Metadata that reads well but describes no model.
static void no_model(void **state) {
    (void)state;
    static const struct { const char *key, *text; uint32_t value; const char *says; } cases[] = {
        {"general.architecture", "mamba", 0, "unsupported architecture \"mamba\""}, {"llama.block_count", NULL, 0, "\"llama.block_count\" is 0"},
        {"llama.attention.head_count", NULL, 0, "\"llama.attention.head_count\" is 0"}, {"llama.attention.head_count_kv", NULL, 3, "no multiple"},
        {"llama.embedding_length", NULL, 0xFFFFFFFF, "\"llama.embedding_length\""}, {"llama.expert_count", NULL, 8, "mixture of experts"},
        {"llama.rope.dimension_count", NULL, 8, "partial rotary"}, {"llama.rope.scaling.type", "ntk", 0, "unknown scaling \"ntk\""}};
    static const uint64_t dims[] = {32, 4};
    for (size_t i = 0; i < MICA_COUNT(cases); i++) {
        static const char *const keys[] = {"llama.block_count", "llama.attention.head_count", "llama.attention.head_count_kv",
                                           "llama.embedding_length", "llama.feed_forward_length", "llama.expert_count", "llama.rope.dimension_count"};
        static const uint32_t values[] = {1, 2, 2, 32, 32, 0, 16};
        begin(3, 1, 2 + MICA_COUNT(keys));
        bool arch = !strcmp(cases[i].key, "general.architecture"), scaling = cases[i].text && !arch;
        entry_text("general.architecture", arch ? cases[i].text : "llama");
        entry_text("llama.rope.scaling.type", scaling ? cases[i].text : "none");
        for (size_t k = 0; k < MICA_COUNT(keys); k++) entry_u32(keys[k], strcmp(keys[k], cases[i].key) ? values[k] : cases[i].value);
        tensor("token_embd.weight", 2, dims, 0, 0);
        while (built.len % 32) mica_buf_putc(&built, 0);
        for (int k = 0; k < 64; k++) u64(0);
        mica_error err = {0};
        write_file(path_in(folder, "odd.gguf"), built.data, built.len);
        assert_null(mica_checkpoint_open(path_in(folder, "odd.gguf"), &err));
        assert_says(&err, "odd.gguf", cases[i].says);
    }
    mica_buf_free(&built);
}

// ---- damage --------------------------------------------------------------------------------------------
static void use_everything(const char *path) {
    mica_error err = {0};
    mica_model_files *c = mica_checkpoint_open(path, &err);
    if (!c) {
        assert_true(err.code != MICA_OK && err.msg[0]);
        return;
    }
    static const char *const modules[] = {"model.embed_tokens", "model.norm", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
                                          "model.layers.0.mlp.up_proj", "model.layers.0.input_layernorm"};
    for (size_t i = 0; i < MICA_COUNT(modules); i++) {
        mica_weight w;
        float row[4096];
        if (!mica_checkpoint_find(c, modules[i], -1, -1, &w, &err)) continue;
        if (w.in <= 4096) mica_weight_row(&w, w.out - 1, row);
        mica_weight_release(&w);
    }
    mica_checkpoint_free(c);
}

static void truncated_and_flipped(void **state) {
    (void)state;
    const char *path = path_in(folder, "damaged.gguf");
    copy_file_to(GOLDEN_DIR "/io/llama-bias.gguf", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    enum { HEAD = 1600 }; // metadata and tensor list
    for (off_t at = 0; at < HEAD; at++) {
        unsigned char byte, changed;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        for (int bit = 0; bit < 8; bit++) {
            changed = (unsigned char)(byte ^ 1 << bit);
            assert_int_equal(pwrite(fd, &changed, 1, at), 1);
            use_everything(path);
        }
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    for (off_t size = st.st_size - 1; size >= 0; size -= size > 3000 ? 97 : 1) {
        mica_error err = {0};
        assert_int_equal(ftruncate(fd, size), 0);
        mica_model_files *c = mica_checkpoint_open(path, &err);
        if (c) fail_msg("%d bytes of %d accepted", (int)size, (int)st.st_size);
    }
    close(fd);
}

static bool load_all(void *ctx, mica_error *err) {
    mica_model_files *c = mica_checkpoint_open(ctx, err);
    static const char *const modules[] = {"model.embed_tokens", "model.norm", "model.layers.0.self_attn.q_proj"};
    bool ok = c != NULL;
    for (size_t i = 0; ok && i < MICA_COUNT(modules); i++) {
        mica_weight w;
        ok = mica_checkpoint_find(c, modules[i], -1, -1, &w, err);
        if (ok) mica_checkpoint_forget(c, &w), mica_weight_release(&w);
    }
    mica_checkpoint_free(c);
    return ok;
}

static void allocation_failures(void **state) {
    (void)state;
    char llama[] = GOLDEN_DIR "/io/llama-bias.gguf", gemma[] = GOLDEN_DIR "/gguf/gemma3.gguf";
    sweep_allocations(load_all, llama);
    sweep_allocations(load_all, gemma);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type), cmocka_unit_test(whole_models), cmocka_unit_test(configs), cmocka_unit_test(vocabulary),
        cmocka_unit_test(missing_and_misshapen), cmocka_unit_test(crafted), cmocka_unit_test(no_model),
        cmocka_unit_test(truncated_and_flipped), cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests_name("io_gguf", tests, make_folder, drop_folder);
}
