// SPDX-License-Identifier: Apache-2.0
// Loading sets of LoRA matrices. What a part has to fit, and the lengths that DoRA divides by, come from the checkpoint, which stays mapped: the
// network's own weights may be packed by then.
#include "model/lora_set.h"
#include "model/weights.h"
#include <stdio.h>

static const char *const modules[MICA_LORA_MODULES] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                       "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

// What the adapter has for a module, if anything.
static bool load_module(mica_loader *ld, const mica_model_files *ck, const char *module, mica_lora *lora) {
    mica_weight w;
    if (!mica_adapter_find(ld->adapter, module) || !mica_checkpoint_has(ck, module)) return true;
    if (!mica_checkpoint_view(ck, module, -1, -1, &w, ld->err)) return false;
    mica_linear l = {.out = w.out, .in = w.in};
    bool ok = mica_lora_load(ld, module, &w, &l);
    *lora = l.lora;
    mica_weight_release(&w);
    return ok;
}

static bool load_layers(mica_loader *ld, const mica_model_files *ck, mica_lora_set *set) {
    char name[128];
    for (int64_t i = 0; i < set->layer_count; i++)
        for (int k = 0; k < MICA_LORA_MODULES; k++) {
            snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)i, modules[k]);
            if (!load_module(ld, ck, name, &set->layers[i].modules[k])) return false;
        }
    return true;
}

static bool fill(mica_lora_set *set, const mica_net *net, const mica_adapter *adapter, mica_error *err) {
    const mica_model_files *ck = net->checkpoint;
    mica_loader ld = {.adapter = adapter, .dtype = net->dtype, .err = err, .scope = mica_scope_new(net->device, err)};
    bool ok = ld.scope && load_module(&ld, ck, "model.embed_tokens", &set->embed) && load_module(&ld, ck, "lm_head", &set->head) &&
              load_layers(&ld, ck, set) && mica_lora_all_used(adapter, err);
    mica_checkpoint_rest(ck);
    mica_loader_free(&ld);
    return ok;
}

// ---- the whole -------------------------------------------------------------------------------------------
typedef struct sum {
    uint64_t hash;
    int64_t bytes;
} sum;

static void add_array(sum *t, const mica_array *a) {
    t->hash = a ? mica_hash(mica_data(a), mica_nbytes(a), t->hash) : mica_hash_mix(t->hash, 0);
    t->bytes += a ? (int64_t)mica_nbytes(a) : 0;
}

static void add_lora(sum *t, uint64_t place, const mica_lora *lora) {
    if (!lora->a) return;
    t->hash = mica_hash(&lora->scale, sizeof lora->scale, mica_hash_mix(mica_hash_mix(t->hash, place), lora->input_only));
    add_array(t, lora->a);
    add_array(t, lora->b);
    add_array(t, lora->magnitude);
}

static void add_up(mica_lora_set *set) {
    sum t = {.hash = 0x6c6f7261u};
    add_lora(&t, 1, &set->embed);
    add_lora(&t, 2, &set->head);
    for (int64_t i = 0; i < set->layer_count; i++)
        for (int k = 0; k < MICA_LORA_MODULES; k++) add_lora(&t, (uint64_t)(3 + i * MICA_LORA_MODULES + k), &set->layers[i].modules[k]);
    set->identity = t.hash, set->bytes = t.bytes;
}

static mica_lora_set *new_set(const mica_net *net, uint64_t number, mica_error *err) {
    size_t layers = (size_t)net->config->num_layers;
    mica_lora_set *set = mica_calloc(1, sizeof *set);
    if (set) set->layers = mica_calloc(layers, sizeof *set->layers);
    if (!set || !set->layers) {
        mica_fail_memory(err, layers * sizeof *set->layers, "an adapter");
        mica_free(set);
        return NULL;
    }
    set->layer_count = net->config->num_layers, set->number = number;
    return set;
}

mica_lora_set *mica_lora_set_load(const mica_net *net, const char *path, uint64_t number, mica_error *err) {
    mica_adapter adapter;
    if (!net->checkpoint) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: a model with random weights takes no adapters", path), NULL;
    if (!mica_adapter_open(&adapter, path, err)) return NULL;
    mica_lora_set *set = new_set(net, number, err);
    bool ok = set && fill(set, net, &adapter, err);
    mica_adapter_close(&adapter);
    if (ok) return add_up(set), set;
    if (err && set) mica_error_prefix(err, "%s", path);
    mica_lora_set_free(set);
    return NULL;
}

void mica_lora_set_free(mica_lora_set *set) {
    if (!set) return;
    mica_lora_free(&set->embed);
    mica_lora_free(&set->head);
    for (int64_t i = 0; i < set->layer_count; i++)
        for (int k = 0; k < MICA_LORA_MODULES; k++) mica_lora_free(&set->layers[i].modules[k]);
    mica_free(set->layers);
    mica_free(set);
}
