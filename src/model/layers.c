// SPDX-License-Identifier: Apache-2.0
// The parts that blocks of all architectures are built from. Weight names are Hugging Face's.
#include "mica/fast.h"
#include "mica/ops.h"
#include "model/adapted.h"
#include "model/net.h"

// Projections of one input, joined into one product where their weights allow it.
static bool load_together(mica_loader *ld, const mica_module *modules, size_t count, int64_t in, bool gated, mica_linear *joined, mica_linear **each) {
    bool done;
    if (!mica_load_joined(ld, modules, count, in, gated, joined, &done)) return false;
    for (size_t i = 0; !done && i < count; i++)
        if (!mica_load_linear(ld, modules[i].name, modules[i].out, in, each[i])) return false;
    return true;
}

bool mica_load_attention(mica_net *net, mica_loader *ld, mica_layer *l) {
    const mica_config *c = net->config;
    int64_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    mica_module modules[] = {{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}};
    return load_together(ld, modules, 3, c->hidden_size, false, &l->qkv, (mica_linear *[]){&l->q, &l->k, &l->v}) &&
           mica_load_linear(ld, "self_attn.o_proj", c->hidden_size, q, &l->o);
}

bool mica_load_qk_norms(mica_net *net, mica_loader *ld, mica_layer *l) {
    return mica_load_norm(ld, "self_attn.q_norm", net->config->head_dim, net->arch->norm_add, &l->q_norm) &&
           mica_load_norm(ld, "self_attn.k_norm", net->config->head_dim, net->arch->norm_add, &l->k_norm);
}

// The activation as part of the product, where a product can have it.
static mica_gate gate_of(const mica_config *c) {
    switch (c->hidden_act) {
    case MICA_ACT_SILU: return MICA_GATE_SWIGLU;
    case MICA_ACT_GELU_TANH: return MICA_GATE_GEGLU;
    default: return MICA_GATE_NONE;
    }
}

bool mica_load_mlp(mica_net *net, mica_loader *ld, mica_layer *l) {
    const mica_config *c = net->config;
    mica_module modules[] = {{"mlp.gate_proj", c->intermediate_size}, {"mlp.up_proj", c->intermediate_size}};
    mica_linear *each[] = {&l->gate, &l->up};
    bool ok = true;
    if (gate_of(c)) ok = load_together(ld, modules, 2, c->hidden_size, true, &l->gate_up, each);
    else for (int i = 0; ok && i < 2; i++) ok = mica_load_linear(ld, modules[i].name, modules[i].out, c->hidden_size, each[i]);
    return ok && mica_load_linear(ld, "mlp.down_proj", c->hidden_size, c->intermediate_size, &l->down);
}

mica_array *mica_norm(mica_forward *f, mica_array *x, mica_array *w) {
    return mica_rms_norm(f->scope, x, w, (float)f->net->config->rms_norm_eps);
}

// x [N, in] -> [N, out], with what the rows' adapters have for the module.
static mica_array *apply(mica_forward *f, const mica_linear *l, int module, mica_array *x) {
    if (!mica_is_adapted(f, module)) return mica_linear_apply(f->scope, l, x);
    return mica_adapted_linear(f, l, module, 1, &l->out, MICA_GATE_NONE, x);
}

// x [N, H*Dh] -> [N, H, Dh]
static mica_array *heads(mica_forward *f, mica_array *x, int64_t n_heads) {
    return mica_reshape(f->scope, x, MICA_SHAPE(-1, n_heads, f->net->config->head_dim));
}

// q, k and v side by side [N, (H+2Hkv)*Dh]
static mica_array *apply_qkv(mica_forward *f, const mica_layer *l, mica_array *x) {
    const mica_config *c = f->net->config;
    int64_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim;
    if (!mica_is_adapted(f, MICA_LORA_Q)) return mica_linear_apply(f->scope, &l->qkv, x);
    return mica_adapted_linear(f, &l->qkv, MICA_LORA_Q, 3, (const int64_t[]){q, kv, kv}, MICA_GATE_NONE, x);
}

static void project(mica_forward *f, const mica_layer *l, mica_array *x, mica_array **q, mica_array **k, mica_array **v) {
    mica_scope *s = f->scope;
    int64_t H = f->net->config->num_heads, Hkv = f->net->config->num_kv_heads;
    if (l->qkv.w) {
        mica_array *all = heads(f, apply_qkv(f, l, x), H + 2 * Hkv);
        *q = mica_slice_axis(s, all, 1, 0, H);
        *k = mica_slice_axis(s, all, 1, H, H + Hkv);
        *v = mica_slice_axis(s, all, 1, H + Hkv, H + 2 * Hkv);
    } else {
        *q = heads(f, apply(f, &l->q, MICA_LORA_Q, x), H);
        *k = heads(f, apply(f, &l->k, MICA_LORA_K, x), Hkv);
        *v = heads(f, apply(f, &l->v, MICA_LORA_V, x), Hkv);
    }
}

mica_array *mica_wanted_rows(mica_forward *f, mica_array *x) { return f->rows ? mica_take(f->scope, x, f->rows, 0) : x; }

// x [N, H, Dh] as attention wants it, normed and rotated.
static mica_array *rotated(mica_forward *f, mica_array *x, mica_array *norm) {
    mica_scope *s = f->scope;
    x = mica_expand_dims(s, norm ? mica_norm(f, x, norm) : x, 0);
    return mica_squeeze(s, mica_rope_apply(s, x, f->rope[mica_layer_group(f->net->config, f->layer)], false), 0);
}

// Attention without a cache: every token sees those before it in its segment, as far as the window lets it.
static mica_array *plain_attention(mica_forward *f, const mica_layer *l, mica_array *q, mica_array *k, mica_array *v) {
    const mica_config *c = f->net->config;
    int window = mica_layer_group(c, f->layer) ? (int)c->sliding_window : 0;
    q = rotated(f, q, l->q_norm), k = rotated(f, k, l->k_norm);
    return mica_segment_attention(f->scope, q, k, v, f->lengths, f->longest, (float)c->query_scale, true, window); // [N, H, Dh]
}

static mica_array *as_heads(mica_forward *f, mica_array *x, mica_array *norm) { // [1, H, N, Dh]
    return mica_expand_dims(f->scope, mica_swap_axes(f->scope, rotated(f, x, norm), 0, 1), 0);
}

static mica_array *cached_attention(mica_forward *f, const mica_layer *l, mica_array *q, mica_array *k, mica_array *v) {
    const mica_config *c = f->net->config;
    int g = mica_layer_group(c, f->layer), index = f->net->index_in_group[f->layer];
    const mica_page_pool *pool = &f->cache->pool[g];
    mica_cache_inputs in = {.q = q, .k = k, .v = v, .pool = pool->array, .meta = f->meta, .table = f->table[g], .rope = f->rope[g],
                            .q_norm = l->q_norm, .k_norm = l->k_norm};
    return mica_cache_attention(f->scope, &in, index, (float)c->query_scale, (int)pool->window, (float)c->rms_norm_eps);
}

mica_array *mica_self_attention(mica_forward *f, const mica_layer *l, mica_array *x) {
    mica_array *q, *k, *v; // [N, H, Dh], [N, Hkv, Dh] twice
    project(f, l, x, &q, &k, &v);
    if (f->q) {
        f->q[f->layer] = as_heads(f, q, l->q_norm);
        f->k[f->layer] = as_heads(f, k, l->k_norm);
    }
    mica_array *y = (f->training ? plain_attention : cached_attention)(f, l, q, k, v);
    y = mica_reshape(f->scope, y, MICA_SHAPE(-1, f->net->config->num_heads * f->net->config->head_dim));
    return apply(f, &l->o, MICA_LORA_O, mica_wanted_rows(f, y));
}

mica_array *mica_activate(mica_forward *f, mica_array *gate, mica_array *up) {
    mica_scope *s = f->scope;
    switch (f->net->config->hidden_act) {
    case MICA_ACT_SILU: return mica_swiglu(s, gate, up);
    case MICA_ACT_GELU_TANH: return mica_geglu(s, gate, up);
    case MICA_ACT_GELU_ERF: return mica_mul(s, mica_gelu(s, gate), up);
    case MICA_ACT_RELU: return mica_mul(s, mica_relu(s, gate), up);
    }
    return NULL;
}

static mica_array *gated(mica_forward *f, const mica_layer *l, mica_array *x) {
    if (!l->gate_up.w) return mica_activate(f, apply(f, &l->gate, MICA_LORA_GATE, x), apply(f, &l->up, MICA_LORA_UP, x)); // [N, F]
    mica_gate gate = gate_of(f->net->config);
    const int64_t outs[] = {l->gate_up.out / 2, l->gate_up.out / 2};
    if (mica_is_adapted(f, MICA_LORA_GATE)) return mica_adapted_linear(f, &l->gate_up, MICA_LORA_GATE, 2, outs, gate, x);
    return mica_linear_apply_gated(f->scope, &l->gate_up, x, gate);
}

mica_array *mica_mlp(mica_forward *f, const mica_layer *l, mica_array *x) { return apply(f, &l->down, MICA_LORA_DOWN, gated(f, l, x)); }
