// SPDX-License-Identifier: Apache-2.0
// Llama (Touvron et al. 2023; Llama 3: Dubey et al. 2024): pre-norm blocks, grouped-query attention, SwiGLU.
//     h = h + attention(norm(h))
//     h = h + mlp(norm(h))
#include "mica/ops.h"
#include "model/net.h"

static bool load_layer(mica_net *net, mica_loader *ld, mica_layer *l) {
    int64_t d = net->config->hidden_size;
    return mica_load_norm(ld, "input_layernorm", d, 0, &l->input_norm) && mica_load_attention(net, ld, l) &&
           mica_load_norm(ld, "post_attention_layernorm", d, 0, &l->post_attention_norm) && mica_load_mlp(net, ld, l);
}

static mica_array *block(mica_forward *f, const mica_layer *l, mica_array *h) {
    mica_array *a = mica_self_attention(f, l, mica_norm(f, h, l->input_norm));
    h = mica_add(f->scope, mica_wanted_rows(f, h), a);
    return mica_add(f->scope, h, mica_mlp(f, l, mica_norm(f, h, l->post_attention_norm)));
}

const mica_arch_ops mica_arch_llama = {.load_layer = load_layer, .block = block};
// Qwen 2 (Yang et al. 2024) is the same graph; its q, k and v projections carry biases, which load with their weights.
const mica_arch_ops mica_arch_qwen2 = {.load_layer = load_layer, .block = block};
