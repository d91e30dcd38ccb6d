// SPDX-License-Identifier: Apache-2.0
// What of a network is trained: a walk over its weights under the names that files use.
#include "model/training.h"
#include <stdio.h>
#include <stddef.h>

typedef struct walk {
    mica_parameters *p;
    mica_error *err;
    int layer;
    bool adapters; // their matrices; else the weights themselves
} walk;

static bool add(walk *w, const char *module, const char *kind, mica_array **place) {
    if (!*place) return true;
    mica_parameters *p = w->p;
    if (!mica_grow(&p->items, &p->capacity, p->count + 1, sizeof *p->items))
        return mica_fail_memory(w->err, (p->count + 1) * sizeof *p->items, "the list of parameters");
    mica_parameter *one = &p->items[p->count++];
    *one = (mica_parameter){.place = place, .layer = w->layer};
    if (w->layer < 0) snprintf(one->name, sizeof one->name, "%s%s", module, kind);
    else snprintf(one->name, sizeof one->name, "model.layers.%d.%s%s", w->layer, module, kind);
    return true;
}

static bool add_linear(walk *w, const char *module, mica_linear *l) {
    if (w->adapters)
        return add(w, module, ".lora_a", &l->lora.a) && add(w, module, ".lora_b", &l->lora.b) && add(w, module, ".m", &l->lora.magnitude);
    if (!l->w) return true;
    if (l->kind != MICA_LINEAR_DENSE)
        return mica_fail(w->err, MICA_ERR_UNSUPPORTED, "%s is quantised: only adapters can be trained on it", module);
    return add(w, module, ".weight", &l->w) && add(w, module, ".bias", &l->bias);
}

static bool add_norm(walk *w, const char *module, mica_array **norm) { return w->adapters || add(w, module, ".weight", norm); }

static const struct { const char *name; size_t offset; } linears[] = {
    {"self_attn.q_proj", offsetof(mica_layer, q)}, {"self_attn.k_proj", offsetof(mica_layer, k)}, {"self_attn.v_proj", offsetof(mica_layer, v)},
    {"self_attn.o_proj", offsetof(mica_layer, o)}, {"mlp.gate_proj", offsetof(mica_layer, gate)}, {"mlp.up_proj", offsetof(mica_layer, up)},
    {"mlp.down_proj", offsetof(mica_layer, down)}};

mica_linear *mica_layer_linear(mica_layer *l, size_t i, const char **name) {
    if (i >= MICA_COUNT(linears)) return NULL;
    *name = linears[i].name;
    return (mica_linear *)((char *)l + linears[i].offset);
}

static bool walk_layer(walk *w, mica_layer *l) {
    const char *name;
    for (size_t i = 0; mica_layer_linear(l, i, &name); i++)
        if (!add_linear(w, name, mica_layer_linear(l, i, &name))) return false;
    bool four = l->pre_mlp_norm != NULL; // Gemma's blocks
    return add_norm(w, "input_layernorm", &l->input_norm) && add_norm(w, "post_attention_layernorm", &l->post_attention_norm) &&
           (!four || (add_norm(w, "pre_feedforward_layernorm", &l->pre_mlp_norm) && add_norm(w, "post_feedforward_layernorm", &l->post_mlp_norm))) &&
           add_norm(w, "self_attn.q_norm", &l->q_norm) && add_norm(w, "self_attn.k_norm", &l->k_norm);
}

static bool walk_net(walk *w, mica_net *net) {
    w->layer = -1;
    if (!add_linear(w, "model.embed_tokens", &net->embed) || (!net->tied && !add_linear(w, "lm_head", &net->head)) ||
        !add_norm(w, "model.norm", &net->norm))
        return false;
    for (w->layer = 0; w->layer < net->config->num_layers; w->layer++)
        if (!walk_layer(w, &net->layers[w->layer])) return false;
    return true;
}

bool mica_parameters_add_adapters(mica_net *net, mica_parameters *p, mica_error *err) {
    return walk_net(&(walk){.p = p, .err = err, .adapters = true}, net);
}

bool mica_parameters_add_weights(mica_net *net, mica_parameters *p, mica_error *err) { return walk_net(&(walk){.p = p, .err = err}, net); }

void mica_parameters_free(mica_parameters *p) {
    mica_free(p->items);
    *p = (mica_parameters){0};
}
