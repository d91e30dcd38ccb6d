// SPDX-License-Identifier: Apache-2.0
// config.json: both generations on the golden folders, every spelling in small texts, absurd values refused by name.
#include "io/config.h"
#include "io_testing.h"
#include <math.h>

static mica_config load(const char *name) {
    char path[600];
    mica_config c;
    mica_error err = {0};
    snprintf(path, sizeof path, GOLDEN_DIR "/%s", name);
    if (!mica_config_load(&c, path, &err)) fail_msg("%s", err.msg);
    return c;
}

static mica_config parse(const char *text, const char *generation) {
    mica_config c;
    mica_error err = {0};
    if (!mica_config_parse(&c, text, strlen(text), generation, generation ? strlen(generation) : 0, "config.json", &err)) fail_msg("%s", err.msg);
    return c;
}

static void both_generations(void **state) {
    (void)state;
    mica_config c = load("models/llama-f32"); // transformers 5
    assert_int_equal(c.arch, MICA_ARCH_LLAMA);
    assert_int_equal(c.vocab_size, 291);
    assert_int_equal(c.num_kv_heads, 2);
    assert_true(c.attention_bias && c.attention_o_bias && c.mlp_bias && !c.tie_word_embeddings);
    assert_int_equal(c.rope.type, MICA_ROPE_LLAMA3);
    assert_true(c.rope.factor == 8 && c.rope.original_max_position == 32 && c.rope.high_freq_factor == 4);
    assert_true(c.has_dtype && c.dtype == MICA_F32);
    assert_true(fabs(c.query_scale - 1 / sqrt(8)) < 1e-15);
    mica_config_free(&c);
    c = load("models/llama-yarn"); // the older spelling
    assert_int_equal(c.rope.type, MICA_ROPE_YARN);
    assert_true(c.rope.original_max_position == 16 && c.rope.factor == 4 && c.head_dim == 8);
    assert_true(fabs(c.rope.attention_factor - (0.1 * log(4) + 1)) < 1e-12);
    mica_config_free(&c);
    c = load("models/llama-yarn-mscale");
    assert_true(fabs(c.rope.attention_factor - (0.1 * log(16) + 1) / (0.07 * log(16) + 1)) < 1e-12);
    assert_true(c.rope.no_truncate && c.rope.beta_fast == 24 && c.rope.beta_slow == 2);
    mica_config_free(&c);
    c = load("models/llama-longrope");
    assert_true(c.rope.long_factor[0] == 4.2153f && c.rope.short_factor[3] == 1.0217f);
    assert_true(fabs(c.rope.attention_factor - sqrt(1 + log(128.0 / 24) / log(24))) < 1e-12);
    mica_config_free(&c);
    c = load("models/qwen2-f32");
    assert_true(c.attention_bias && !c.attention_o_bias && c.sliding_window == 0 && !c.is_sliding[1]);
    assert_int_equal(c.head_dim, 8);
    mica_config_free(&c);
}

static void gemma_forms(void **state) {
    (void)state;
    mica_config c = load("models/gemma3-nested"); // defaults of Gemma3TextConfig, older spelling
    assert_int_equal(c.num_heads, 8);
    assert_int_equal(c.num_kv_heads, 4);
    assert_int_equal(c.head_dim, 256);
    assert_true(c.query_scale == 1.0 / 16 && c.rope.type == MICA_ROPE_LINEAR && c.rope.factor == 8);
    assert_true(c.rope.theta == 1e6 && c.rope_sliding.theta == 1e4 && c.rope_sliding.type == MICA_ROPE_NONE);
    assert_true(c.is_sliding[0] && !c.is_sliding[1] && c.sliding_window == 8);
    assert_true(c.tie_word_embeddings && c.dtype == MICA_BF16);
    assert_int_equal(c.eos_count, 3); // 1, 5 and, from generation_config.json, 7
    mica_config_free(&c);
    c = load("models/gemma3-nested-v5");
    assert_true(c.rope.type == MICA_ROPE_LINEAR && c.rope_sliding.theta == 1e4 && !c.is_sliding[1] && c.is_sliding[2]);
    mica_config_free(&c);
    c = load("models/gemma3-text-f32"); // layer_types wins over a contradicting pattern
    assert_true(c.is_sliding[0] && !c.is_sliding[1] && c.is_sliding[2]);
    assert_int_equal(c.hidden_act, MICA_ACT_GELU_TANH);
    mica_config_free(&c);
    c = parse("{\"model_type\":\"gemma3_text\",\"_sliding_window_pattern\":3,\"sliding_window\":null,\"final_logit_softcapping\":30}", NULL);
    assert_true(c.is_sliding[1] && !c.is_sliding[2] && c.sliding_window == 0 && c.final_softcap == 30);
    assert_true(c.eos_count == 1 && c.eos_ids[0] == 1 && c.bos_id == 2);
    mica_config_free(&c);
}

static void spellings(void **state) {
    (void)state;
    mica_config c = parse("{\"model_type\":\"llama\",\"num_attention_heads\":4,\"hidden_size\":64,\"torch_dtype\":\"torch.float16\",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2},"
                          "\"eos_token_id\":[128001,128008],\"hidden_act\":\"gelu\"}", "{\"eos_token_id\":[128008,128009],\"temperature\":0.6,\"top_p\":0.9,\"top_k\":50,\"do_sample\":true}");
    assert_true(c.num_kv_heads == 4 && c.head_dim == 16 && c.dtype == MICA_F16 && c.rope.type == MICA_ROPE_DYNAMIC);
    assert_true(c.rope.theta == 1e4 && c.hidden_act == MICA_ACT_GELU_ERF && !c.tie_word_embeddings);
    assert_int_equal(c.eos_count, 3);
    assert_int_equal(c.eos_ids[2], 128009);
    assert_true(c.generation.has_temperature && c.generation.temperature == 0.6f && c.generation.top_k == 50 && c.generation.do_sample);
    assert_false(c.generation.has_min_p);
    mica_config_free(&c);
    c = parse("{\"model_type\":\"llama\",\"eos_token_id\":null}", "{}");
    assert_int_equal(c.eos_count, 0);
    mica_config_free(&c);
    c = parse("{\"model_type\":\"llama\"}", NULL);
    assert_true(c.eos_count == 1 && c.eos_ids[0] == 2 && c.num_kv_heads == 32 && c.rms_norm_eps == 1e-6);
    mica_config_free(&c);
    c = parse("{\"model_type\":\"qwen3\",\"use_sliding_window\":true,\"max_window_layers\":30,\"sliding_window\":512}", NULL);
    assert_true(!c.is_sliding[29] && c.is_sliding[30] && c.sliding_window == 512 && c.head_dim == 128);
    mica_config_free(&c);
    c = parse("{\"model_type\":\"llama\",\"max_position_embeddings\":131072,\"original_max_position_embeddings\":4096,\"rope_scaling\":"
              "{\"rope_type\":\"yarn\",\"factor\":null,\"attention_factor\":1.5}}", NULL);
    assert_true(c.rope.factor == 32 && c.rope.attention_factor == 1.5 && c.rope.original_max_position == 4096);
    mica_config_free(&c);
}

static void quantisation(void **state) {
    (void)state;
    mica_quant_spec s = {0};
    mica_config c = load("quant/llama-mixed");
    assert_true(c.quantized && c.quant.bits == 5 && c.quant.group_size == 64);
    assert_int_equal(mica_config_quant(&c, "model.layers.0.self_attn.q_proj", &s), 1); // {"bits":4}: affine, its group of 64
    assert_true(s.mode == MICA_AFFINE && s.bits == 4 && s.group_size == 64);
    assert_int_equal(mica_config_quant(&c, "model.layers.0.self_attn.o_proj", &s), 0); // false
    assert_int_equal(mica_config_quant(&c, "model.layers.0.self_attn.k_proj", &s), 1); // true: the globals
    assert_int_equal(s.bits, 5);
    assert_int_equal(mica_config_quant(&c, "model.layers.0.mlp.up_proj", &s), 1);
    assert_true(s.mode == MICA_MXFP4 && s.group_size == 32);
    assert_int_equal(mica_config_quant(&c, "lm_head", &s), -1);
    mica_config_free(&c);
    // An override does not inherit the global mode.
    c = parse("{\"model_type\":\"llama\",\"quantization\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp4\",\"a\":{\"bits\":8}}}", NULL);
    assert_int_equal(mica_config_quant(&c, "a", &s), 1);
    assert_true(s.mode == MICA_AFFINE && s.bits == 8 && s.group_size == 64);
    assert_int_equal(c.quant.mode, MICA_MXFP4);
    mica_config_free(&c);
}

static void refusals(void **state) {
    (void)state;
#define L "{\"model_type\":\"llama\","
#define G "{\"model_type\":\"gemma3_text\","
    static const struct { const char *text, *says; } bad[] = {
        {"", "line 1"}, {"[]", "not a JSON object"}, {"{}", "no \"model_type\""}, {"{\"model_type\":7}", "\"model_type\" must be a string"},
        {"{\"model_type\":\"gpt2\"}", "unsupported architecture \"gpt2\""},
        {L "\"num_attention_heads\":0}", "\"num_attention_heads\" is 0"}, {L "\"num_attention_heads\":-4}", "\"num_attention_heads\" is -4"},
        {L "\"num_key_value_heads\":0}", "\"num_key_value_heads\" is 0"}, {L "\"num_key_value_heads\":5}", "no multiple of \"num_key_value_heads\" 5"},
        {L "\"hidden_size\":99999999999}", "\"hidden_size\" is 99999999999"}, {L "\"hidden_size\":4.5}", "\"hidden_size\" must be an integer"},
        {L "\"hidden_size\":\"big\"}", "\"hidden_size\" must be an integer"}, {L "\"hidden_size\":100}", "\"hidden_size\" 100 is no multiple"},
        {L "\"vocab_size\":0}", "\"vocab_size\" is 0"}, {L "\"num_hidden_layers\":1000000}", "\"num_hidden_layers\" is 1000000"},
        {L "\"head_dim\":7}", "\"head_dim\" 7 is odd"}, {L "\"head_dim\":0}", "\"head_dim\" is 0"}, {L "\"rms_norm_eps\":-1}", "\"rms_norm_eps\" is -1"},
        {L "\"rms_norm_eps\":NaN}", "line 1"}, {L "\"rms_norm_eps\":1e999}", "\"rms_norm_eps\""}, {L "\"rope_theta\":0}", "\"rope_theta\" is 0"},
        {L "\"rope_theta\":-1e4}", "\"rope_theta\" is -10000"}, {L "\"max_position_embeddings\":0}", "\"max_position_embeddings\" is 0"},
        {L "\"hidden_act\":\"mish\"}", "unknown activation \"mish\""}, {L "\"rope_scaling\":{\"type\":\"mrope\"}}", "unknown scaling \"mrope\""},
        {L "\"rope_scaling\":{\"type\":\"linear\"}}", "without \"factor\""}, {L "\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", "\"factor\" is 0"},
        {L "\"rope_scaling\":[1]}", "no object"}, {L "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]}}", "\"short_factor\" must list 64"},
        {L "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}}", "\"high_freq_factor\""},
        {L "\"rope_parameters\":{\"rope_theta\":1e4,\"partial_rotary_factor\":0.5}}", "\"partial_rotary_factor\" 0.5"},
        {L "\"eos_token_id\":\"</s>\"}", "\"eos_token_id\""}, {L "\"eos_token_id\":[-1]}", "\"eos_token_id\""},
        {L "\"quantization\":{\"bits\":7}}", "7"}, {L "\"quantization\":{\"mode\":\"gptq\"}}", "unknown mode \"gptq\""},
        {L "\"quantization\":{\"bits\":4,\"m\":{\"group_size\":48}}}", "m: "}, {L "\"quantization\":5}", "\"quantization\" is no object"},
        {L "\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4}}", "method \"awq\""},
        {G "\"layer_types\":[\"full_attention\"]}", "\"layer_types\" must list 26"}, {G "\"sliding_window\":0}", "\"sliding_window\" is 0"},
        {G "\"sliding_window_pattern\":0}", "\"sliding_window_pattern\" is 0"}, {G "\"query_pre_attn_scalar\":0}", "\"query_pre_attn_scalar\" is 0"},
        {G "\"use_bidirectional_attention\":true}", "\"use_bidirectional_attention\""},
        {G "\"num_hidden_layers\":1,\"layer_types\":[\"mamba\"]}", "unknown type \"mamba\""}};
#undef L
#undef G
    for (size_t i = 0; i < MICA_COUNT(bad); i++) {
        mica_config c;
        mica_error err = {0};
        uint64_t live = mica_alloc_get_stats().live;
        if (mica_config_parse(&c, bad[i].text, strlen(bad[i].text), NULL, 0, "config.json", &err)) fail_msg("accepted: %s", bad[i].text);
        assert_says(&err, "config.json", bad[i].says);
        assert_int_equal(mica_alloc_get_stats().live, live);
    }
    static const struct { const char *text, *says; } bad_generation[] = {
        {"{", "line 1"}, {"[]", "not a JSON object"}, {"{\"temperature\":-1}", "\"temperature\" is -1"}, {"{\"top_p\":2}", "\"top_p\" is 2"},
        {"{\"top_k\":-5}", "\"top_k\" is -5"}, {"{\"top_k\":\"a\"}", "\"top_k\" must be an integer"}, {"{\"eos_token_id\":1.5}", "\"eos_token_id\""}};
    for (size_t i = 0; i < MICA_COUNT(bad_generation); i++) {
        mica_config c;
        mica_error err = {0};
        const char *text = "{\"model_type\":\"llama\"}", *more = bad_generation[i].text;
        assert_false(mica_config_parse(&c, text, strlen(text), more, strlen(more), "config.json", &err));
        assert_says(&err, "generation_config.json", bad_generation[i].says);
    }
    mica_config c;
    mica_error err = {0};
    assert_false(mica_config_load(&c, GOLDEN_DIR "/models", &err));
    assert_says(&err, "models", "no config.json");
}

static bool load_one(void *ctx, mica_error *err) {
    mica_config c;
    bool ok = mica_config_load(&c, ctx, err);
    mica_config_free(&c);
    return ok;
}

static void allocation_failures(void **state) {
    (void)state;
    char nested[] = GOLDEN_DIR "/models/gemma3-nested-v5", mixed[] = GOLDEN_DIR "/quant/llama-mixed";
    sweep_allocations(load_one, nested);
    sweep_allocations(load_one, mixed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_generations), cmocka_unit_test(gemma_forms), cmocka_unit_test(spellings), cmocka_unit_test(quantisation),
        cmocka_unit_test(refusals), cmocka_unit_test(allocation_failures),
    };
    return cmocka_run_group_tests_name("io_config", tests, NULL, NULL);
}
