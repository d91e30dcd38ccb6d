// SPDX-License-Identifier: Apache-2.0
// Module names: GGUF's short ones and Hugging Face's. One table, read in both directions.
#include "io/gguf_model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum arch_bit { ALL = 15, GEMMA = 1 << MICA_ARCH_GEMMA3, OTHERS = ALL & ~GEMMA };

static const struct { const char *hf, *gguf; int archs; } per_layer[] = {
    {"self_attn.q_proj", "attn_q", ALL}, {"self_attn.k_proj", "attn_k", ALL}, {"self_attn.v_proj", "attn_v", ALL},
    {"self_attn.o_proj", "attn_output", ALL}, {"self_attn.q_norm", "attn_q_norm", ALL}, {"self_attn.k_norm", "attn_k_norm", ALL},
    {"mlp.gate_proj", "ffn_gate", ALL}, {"mlp.up_proj", "ffn_up", ALL}, {"mlp.down_proj", "ffn_down", ALL},
    {"input_layernorm", "attn_norm", ALL}, {"post_attention_layernorm", "ffn_norm", OTHERS},
    {"post_attention_layernorm", "post_attention_norm", GEMMA}, {"pre_feedforward_layernorm", "ffn_norm", GEMMA},
    {"post_feedforward_layernorm", "post_ffw_norm", GEMMA},
};

static const struct { const char *hf, *gguf; } global[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};

// Splits "model.layers.12.rest" (given "model.layers.") into 12 and "rest".
static const char *layer_rest(const char *name, const char *prefix, long *layer) {
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) || name[n] < '0' || name[n] > '9') return NULL;
    char *end;
    *layer = strtol(name + n, &end, 10);
    return *end == '.' && *layer < 100000 ? end + 1 : NULL;
}

static bool printed(int n, size_t size) { return n > 0 && (size_t)n < size; }

bool mica_gguf_module_name(mica_arch arch, const char *module, char *name, size_t size) {
    long layer;
    const char *rest = layer_rest(module, "model.layers.", &layer);
    for (size_t i = 0; rest && i < MICA_COUNT(per_layer); i++)
        if (per_layer[i].archs >> arch & 1 && !strcmp(rest, per_layer[i].hf))
            return printed(snprintf(name, size, "blk.%ld.%s", layer, per_layer[i].gguf), size);
    for (size_t i = 0; !rest && i < MICA_COUNT(global); i++)
        if (!strcmp(module, global[i].hf)) return printed(snprintf(name, size, "%s", global[i].gguf), size);
    return false;
}

bool mica_gguf_hf_name(mica_arch arch, const char *name, char *module, size_t size) {
    long layer;
    const char *dot = strrchr(name, '.'), *rest = layer_rest(name, "blk.", &layer);
    if (!dot || (strcmp(dot, ".weight") && strcmp(dot, ".bias"))) return false;
    for (size_t i = 0; rest && i < MICA_COUNT(per_layer); i++) {
        size_t n = strlen(per_layer[i].gguf);
        if (per_layer[i].archs >> arch & 1 && rest + n == dot && !strncmp(rest, per_layer[i].gguf, n))
            return printed(snprintf(module, size, "model.layers.%ld.%s", layer, per_layer[i].hf), size);
    }
    for (size_t i = 0; !rest && i < MICA_COUNT(global); i++) {
        size_t n = strlen(global[i].gguf);
        if (name + n == dot && !strncmp(name, global[i].gguf, n)) return printed(snprintf(module, size, "%s", global[i].hf), size);
    }
    return false;
}
