// SPDX-License-Identifier: Apache-2.0
// config.json and generation_config.json of a model folder as one plain struct. Both generations of the format are
// read (rope_parameters / rope_scaling, dtype / torch_dtype, layer_types / sliding_window_pattern, text_config);
// absent fields take the defaults of transformers' config class of that architecture. Every value is checked here,
// so that whoever builds the model may divide by, multiply and allocate from these fields without checks of their own.
#ifndef MICA_IO_CONFIG_H
#define MICA_IO_CONFIG_H

#include "base/base.h"
#include "base/json.h"
#include "mica/dtype.h"
#include "mica/quant.h"

typedef enum mica_arch {
    MICA_ARCH_LLAMA = 0,
    MICA_ARCH_QWEN2,
    MICA_ARCH_QWEN3,
    MICA_ARCH_GEMMA3, // gemma3 and gemma3_text
} mica_arch;

typedef enum mica_act { MICA_ACT_SILU = 0, MICA_ACT_GELU_TANH, MICA_ACT_GELU_ERF, MICA_ACT_RELU } mica_act;

typedef enum mica_rope_type {
    MICA_ROPE_NONE = 0, // "default": inv_freq[i] = theta^(-2i/head_dim)
    MICA_ROPE_LINEAR,   // inv_freq / factor
    MICA_ROPE_DYNAMIC,  // NTK: theta grows with the sequence length beyond max_position_embeddings
    MICA_ROPE_YARN,
    MICA_ROPE_LLAMA3,
    MICA_ROPE_LONGROPE, // inv_freq[i] / (short_factor or long_factor)[i]
} mica_rope_type;

typedef struct mica_rope_config {
    mica_rope_type type;
    double theta;            // base, > 1
    double factor;           // linear, dynamic, yarn, llama3: > 0. longrope: as given or derived. Otherwise 1
    double attention_factor; // multiplies cos and sin; derived as transformers does when absent; 1 when unused
    double low_freq_factor, high_freq_factor; // llama3
    int64_t original_max_position;            // llama3, yarn, longrope; otherwise max_position_embeddings
    double beta_fast, beta_slow;              // yarn: 32 and 1 when absent
    double mscale, mscale_all_dim;            // yarn: 0 when absent (already used in attention_factor)
    bool no_truncate;                         // yarn: "truncate": false
    const float *short_factor, *long_factor;  // longrope: head_dim/2 values each
} mica_rope_config;

typedef struct mica_quant_override {
    const char *module;    // "model.layers.0.mlp.down_proj", as in the file
    bool quantized;        // false: dense whatever else is said
    mica_quant_spec spec;  // if quantized
} mica_quant_override;

// Sampling defaults of generation_config.json; a field counts only where its has_ flag is set.
typedef struct mica_generation_defaults {
    bool has_temperature, has_top_p, has_min_p, has_top_k, has_repetition_penalty, has_do_sample;
    float temperature, top_p, min_p, repetition_penalty;
    int top_k;
    bool do_sample;
} mica_generation_defaults;

typedef struct mica_config {
    mica_arch arch;
    const char *model_type; // as in the file: "gemma3_text", "llama", …
    const char *source;     // path of config.json or of the GGUF file, for messages
    mica_dtype dtype;       // of the dense weights as the file states it; F32 when unstated
    bool has_dtype;

    int64_t vocab_size, hidden_size, intermediate_size;
    int64_t num_layers, num_heads, num_kv_heads, head_dim;
    int64_t max_position_embeddings;
    double rms_norm_eps;
    mica_act hidden_act;
    bool attention_bias;   // on q, k and v (llama, qwen3, gemma3: also o; qwen2: always q, k, v only)
    bool attention_o_bias; // on o
    bool mlp_bias;
    bool tie_word_embeddings; // as stated; a checkpoint without lm_head is tied whatever this says
    double query_scale;       // attention scores are multiplied by it: head_dim^-1/2, or query_pre_attn_scalar^-1/2
    double attn_softcap, final_softcap; // 0 = none
    int64_t sliding_window;   // 0 = no layer has a window. Position q sees k with q - k < sliding_window
    const bool *is_sliding;   // [num_layers] layers of the sliding kind: their window, and rope_sliding
    mica_rope_config rope;         // layers with full attention
    mica_rope_config rope_sliding; // layers with a window (equal to rope except for gemma3)

    int64_t bos_id, pad_id;     // -1 = none
    const int64_t *eos_ids;     // union of config.json and generation_config.json, each id once
    size_t eos_count;
    mica_generation_defaults generation;

    bool quantized;             // a "quantization" section is present
    mica_quant_spec quant;      // its global spec
    const mica_quant_override *overrides;
    size_t override_count;

    const mica_json *json;      // the whole tree (NULL for GGUF), for readers of other fields
    mica_arena arena;           // owns everything above
} mica_config;

/** Reads folder/config.json, and folder/generation_config.json if present. An unknown model_type is
 * MICA_ERR_UNSUPPORTED: `config.json: "model_type": unsupported architecture "gpt2" (…)`. On failure *config is empty. */
bool mica_config_load(mica_config *config, const char *folder, mica_error *err);
/** The same from texts in memory; generation may be NULL. what: names the file in messages. */
bool mica_config_parse(mica_config *config, const char *text, size_t size, const char *generation, size_t generation_size,
                       const char *what, mica_error *err);
void mica_config_free(mica_config *config);
/** How the file says that module is quantised. 1: an override with *spec; 0: an override saying dense; -1: no word on
 * it, so it is quantised iff "<module>.scales" exists, by the global spec (also left in *spec when there is one). */
int mica_config_quant(const mica_config *config, const char *module, mica_quant_spec *spec);
/** For files synthesised elsewhere (GGUF): derives and checks what mica_config_load would. */
bool mica_config_finish(mica_config *config, mica_error *err);
const char *mica_rope_type_name(mica_rope_type type);
#endif
