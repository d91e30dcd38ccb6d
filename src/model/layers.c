// SPDX-License-Identifier: Apache-2.0
// The parts that blocks of all architectures are built from. Weight names are Hugging Face's.
#include "mica/fast.h"
#include "mica/ops.h"
#include "model/net.h"

bool mica_load_attention(mica_net *net, mica_loader *ld, mica_layer *l) {
    const mica_config *c = net->config;
    int64_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    return mica_load_linear(ld, "self_attn.q_proj", q, c->hidden_size, &l->q) &&
           mica_load_linear(ld, "self_attn.k_proj", kv, c->hidden_size, &l->k) &&
           mica_load_linear(ld, "self_attn.v_proj", kv, c->hidden_size, &l->v) &&
           mica_load_linear(ld, "self_attn.o_proj", c->hidden_size, q, &l->o);
}

bool mica_load_qk_norms(mica_net *net, mica_loader *ld, mica_layer *l) {
    return mica_load_norm(ld, "self_attn.q_norm", net->config->head_dim, net->arch->norm_add, &l->q_norm) &&
           mica_load_norm(ld, "self_attn.k_norm", net->config->head_dim, net->arch->norm_add, &l->k_norm);
}

bool mica_load_mlp(mica_net *net, mica_loader *ld, mica_layer *l) {
    const mica_config *c = net->config;
    return mica_load_linear(ld, "mlp.gate_proj", c->intermediate_size, c->hidden_size, &l->gate) &&
           mica_load_linear(ld, "mlp.up_proj", c->intermediate_size, c->hidden_size, &l->up) &&
           mica_load_linear(ld, "mlp.down_proj", c->hidden_size, c->intermediate_size, &l->down);
}

mica_array *mica_norm(mica_forward *f, mica_array *x, mica_array *w) {
    return mica_rms_norm(f->scope, x, w, (float)f->net->config->rms_norm_eps);
}

// x [N, H*Dh] -> [N, H, Dh]
static mica_array *heads(mica_forward *f, mica_array *x, int64_t n_heads) {
    return mica_reshape(f->scope, x, MICA_SHAPE(-1, n_heads, f->net->config->head_dim));
}

// x [N, H, Dh], turned by its positions.
static mica_array *rotate(mica_forward *f, mica_array *x, int group) {
    mica_array *y = mica_rope_apply(f->scope, mica_expand_dims(f->scope, x, 0), f->rope[group], false);
    return mica_squeeze(f->scope, y, 0);
}

mica_array *mica_self_attention(mica_forward *f, const mica_layer *l, mica_array *x) {
    mica_scope *s = f->scope;
    const mica_config *c = f->net->config;
    int g = mica_layer_group(c, f->layer), index = f->net->index_in_group[f->layer];
    const mica_page_pool *pool = &f->cache->pool[g];
    mica_array *q = heads(f, mica_linear_apply(s, &l->q, x), c->num_heads);    // [N, H, Dh]
    mica_array *k = heads(f, mica_linear_apply(s, &l->k, x), c->num_kv_heads); // [N, Hkv, Dh]
    mica_array *v = heads(f, mica_linear_apply(s, &l->v, x), c->num_kv_heads);
    if (l->q_norm) q = mica_norm(f, q, l->q_norm);
    if (l->k_norm) k = mica_norm(f, k, l->k_norm);
    q = rotate(f, q, g);
    k = rotate(f, k, g);
    mica_array *written = mica_kv_append(s, pool->array, k, v, f->meta, f->table[g], index);
    mica_array *y = mica_paged_attention(s, q, written, f->meta, f->table[g], index, (float)c->query_scale, (int)pool->window);
    y = mica_reshape(s, y, MICA_SHAPE(-1, c->num_heads * c->head_dim));
    return mica_linear_apply(s, &l->o, y);
}

static mica_array *activate(mica_forward *f, mica_array *gate, mica_array *up) {
    mica_scope *s = f->scope;
    switch (f->net->config->hidden_act) {
    case MICA_ACT_SILU: return mica_swiglu(s, gate, up);
    case MICA_ACT_GELU_TANH: return mica_geglu(s, gate, up);
    case MICA_ACT_GELU_ERF: return mica_mul(s, mica_gelu(s, gate), up);
    case MICA_ACT_RELU: return mica_mul(s, mica_relu(s, gate), up);
    }
    return NULL;
}

mica_array *mica_mlp(mica_forward *f, const mica_layer *l, mica_array *x) {
    mica_array *gate = mica_linear_apply(f->scope, &l->gate, x), *up = mica_linear_apply(f->scope, &l->up, x); // [N, F]
    return mica_linear_apply(f->scope, &l->down, activate(f, gate, up));
}
