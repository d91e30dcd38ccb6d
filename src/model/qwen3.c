// SPDX-License-Identifier: Apache-2.0
// Qwen 3 (Yang et al. 2025): Llama's block with RMS norms on every query and key head.
//     h = h + attention(norm(h))        with q = norm(q), k = norm(k) per head, before the rotation
//     h = h + mlp(norm(h))
#include "mica/ops.h"
#include "model/net.h"

static bool load_layer(mica_net *net, mica_loader *ld, mica_layer *l) {
    int64_t d = net->config->hidden_size;
    return mica_load_norm(ld, "input_layernorm", d, 0, &l->input_norm) && mica_load_attention(net, ld, l) &&
           mica_load_qk_norms(net, ld, l) &&
           mica_load_norm(ld, "post_attention_layernorm", d, 0, &l->post_attention_norm) && mica_load_mlp(net, ld, l);
}

static mica_array *block(mica_forward *f, const mica_layer *l, mica_array *h) {
    mica_array *a = mica_self_attention(f, l, mica_norm(f, h, l->input_norm));
    h = mica_add(f->scope, mica_wanted_rows(f, h), a);
    return mica_add(f->scope, h, mica_mlp(f, l, mica_norm(f, h, l->post_attention_norm)));
}

const mica_arch_ops mica_arch_qwen3 = {.load_layer = load_layer, .block = block};
