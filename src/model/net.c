// SPDX-License-Identifier: Apache-2.0
// Loading a network and freeing it. What is computed is in forward.c and in the architectures' files.
#include "model/net.h"
#include "io/gguf.h"
#include <stdio.h>

static const mica_arch_ops *const architectures[] = {
    [MICA_ARCH_LLAMA] = &mica_arch_llama, [MICA_ARCH_QWEN2] = &mica_arch_qwen2,
    [MICA_ARCH_QWEN3] = &mica_arch_qwen3, [MICA_ARCH_GEMMA3] = &mica_arch_gemma3,
};

// Activations have the type of the embedding's stored values: of the dense table, or of the scales of a quantised one. GGUF states no
// type of activations (its scales are f16 or f32 whatever the model was trained in): bf16 unless everything is f32.
static bool choose_dtype(mica_net *net, mica_source *source, mica_error *err) {
    mica_weight w;
    if (!source->view(source->ctx, "model.embed_tokens", net->config->vocab_size, net->config->hidden_size, &w, err)) return false;
    mica_dtype stored = w.quantized && w.spec.mode == MICA_AFFINE ? w.scales.dtype : w.quantized ? MICA_BF16 : w.weight.dtype;
    bool gguf = net->checkpoint && mica_checkpoint_gguf(net->checkpoint);
    net->dtype = gguf && (w.quantized || stored != MICA_F32) ? MICA_BF16 : stored;
    mica_weight_release(&w);
    return net->dtype == MICA_F32 || net->dtype == MICA_BF16 || net->dtype == MICA_F16 ||
           mica_fail(err, MICA_ERR_UNSUPPORTED, "model.embed_tokens.weight: cannot compute in %s", mica_dtype_name(net->dtype));
}

static bool count_groups(mica_net *net, mica_error *err) {
    int counts[MICA_GROUPS] = {0};
    size_t n = (size_t)net->config->num_layers;
    net->layers = mica_calloc(n, sizeof *net->layers);
    net->index_in_group = mica_calloc(n, sizeof *net->index_in_group);
    if (!net->layers || !net->index_in_group) return mica_fail_memory(err, n * sizeof *net->layers, "the layers");
    for (size_t i = 0; i < n; i++) net->index_in_group[i] = counts[mica_layer_group(net->config, (int64_t)i)]++;
    return true;
}

static bool load_all(mica_net *net, mica_loader *ld) {
    const mica_config *c = net->config;
    if (!mica_load_linear(ld, "model.embed_tokens", c->vocab_size, c->hidden_size, &net->embed)) return false;
    net->tied = !ld->source.has(ld->source.ctx, "lm_head");
    if (!net->tied && !mica_load_linear(ld, "lm_head", c->vocab_size, c->hidden_size, &net->head)) return false;
    if (!mica_load_norm(ld, "model.norm", c->hidden_size, net->arch->norm_add, &net->norm)) return false;
    for (int64_t i = 0; i < c->num_layers; i++) {
        snprintf(ld->layer, sizeof ld->layer, "model.layers.%lld.", (long long)i);
        if (!net->arch->load_layer(net, ld, &net->layers[i])) return false;
    }
    return true;
}

bool mica_net_fill(mica_net *net, mica_source source, const mica_net_options *options, mica_error *err) {
    mica_net_options o = options ? *options : (mica_net_options){0};
    const mica_config *c = net->config;
    net->arch = architectures[c->arch];
    if (c->attn_softcap != 0)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: attn_logit_softcapping is not supported", c->source);
    if (!choose_dtype(net, &source, err) || !count_groups(net, err)) return false;
    if (o.f32) net->dtype = MICA_F32;
    if (o.bf16) net->dtype = MICA_BF16;
    mica_loader ld = {.source = source, .adapter = o.adapter, .separate = o.separate || o.adapter, .dtype = net->dtype, .err = err, .scope = mica_scope_new(net->device, err)};
    bool ok = ld.scope && load_all(net, &ld) && mica_lora_all_used(o.adapter, err) && mica_load_finish(&ld);
    net->weight_bytes = ld.bytes;
    net->mapped_bytes = ld.mapped;
    mica_loader_free(&ld);
    return ok;
}

mica_net *mica_net_load(mica_model_files *checkpoint, const mica_net_options *options, mica_device *device, mica_error *err) {
    mica_net *net = mica_calloc(1, sizeof *net);
    if (!net) {
        mica_checkpoint_free(checkpoint);
        mica_fail_memory(err, sizeof *net, "a network");
        return NULL;
    }
    net->checkpoint = checkpoint;
    net->config = mica_checkpoint_config(checkpoint);
    net->device = device;
    if (mica_net_fill(net, mica_checkpoint_source(checkpoint), options, err)) return net;
    if (err) mica_error_prefix(err, "%s", mica_checkpoint_path(checkpoint));
    mica_net_free(net);
    return NULL;
}

// All linear layers of a block, used or not.
#define LINEARS(l) {&(l)->q, &(l)->k, &(l)->v, &(l)->o, &(l)->gate, &(l)->up, &(l)->down, &(l)->qkv, &(l)->gate_up}

void mica_net_round_activations(mica_net *net) {
    for (int64_t i = 0; i < net->config->num_layers; i++) {
        mica_linear *linears[] = LINEARS(&net->layers[i]);
        for (size_t j = 0; j < MICA_COUNT(linears); j++) linears[j]->packed.packed.int8 = linears[j]->kind == MICA_LINEAR_PACKED;
    }
}

static void free_layer(mica_layer *l) {
    mica_linear *linears[] = LINEARS(l);
    mica_array *norms[] = {l->input_norm, l->post_attention_norm, l->pre_mlp_norm, l->post_mlp_norm, l->q_norm, l->k_norm};
    for (size_t i = 0; i < MICA_COUNT(linears); i++) mica_linear_free(linears[i]);
    for (size_t i = 0; i < MICA_COUNT(norms); i++) mica_array_free(norms[i]);
}

void mica_net_free(mica_net *net) {
    if (!net) return;
    for (int64_t i = 0; net->layers && i < net->config->num_layers; i++) free_layer(&net->layers[i]);
    mica_linear_free(&net->embed);
    mica_linear_free(&net->head);
    mica_array_free(net->norm);
    mica_free(net->layers);
    mica_free(net->index_in_group);
    mica_checkpoint_free(net->checkpoint);
    if (net->own_config) mica_config_free(net->own_config);
    mica_free(net->own_config);
    mica_free(net);
}
