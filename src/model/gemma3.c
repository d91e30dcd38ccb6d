// SPDX-License-Identifier: Apache-2.0
// Gemma 3 (Gemma Team 2025): norms before and after both halves of a block, norms on queries and keys, GeGLU, most layers with a sliding
// window and their own rotary base, embeddings times sqrt(D). A stored norm weight w means 1 + w.
//     h = h + norm(attention(norm(h)))
//     h = h + norm(mlp(norm(h)))
#include "mica/ops.h"
#include "model/net.h"

static bool load_layer(mica_net *net, mica_loader *ld, mica_layer *l) {
    int64_t d = net->config->hidden_size;
    return mica_load_norm(ld, "input_layernorm", d, 1, &l->input_norm) && mica_load_attention(net, ld, l) &&
           mica_load_qk_norms(net, ld, l) &&
           mica_load_norm(ld, "post_attention_layernorm", d, 1, &l->post_attention_norm) &&
           mica_load_norm(ld, "pre_feedforward_layernorm", d, 1, &l->pre_mlp_norm) && mica_load_mlp(net, ld, l) &&
           mica_load_norm(ld, "post_feedforward_layernorm", d, 1, &l->post_mlp_norm);
}

static mica_array *block(mica_forward *f, const mica_layer *l, mica_array *h) {
    mica_array *a = mica_self_attention(f, l, mica_norm(f, h, l->input_norm));
    h = mica_add(f->scope, mica_wanted_rows(f, h), mica_norm(f, a, l->post_attention_norm));
    mica_array *m = mica_mlp(f, l, mica_norm(f, h, l->pre_mlp_norm));
    return mica_add(f->scope, h, mica_norm(f, m, l->post_mlp_norm));
}

const mica_arch_ops mica_arch_gemma3 = {.load_layer = load_layer, .block = block, .norm_add = 1, .scale_embed = true};
