// SPDX-License-Identifier: Apache-2.0
// Loading sets of LoRA matrices. What a part has to fit, and the lengths that DoRA divides by, come from the checkpoint, which stays mapped: the
// network's own weights may be packed by then. A block's matrices are laid out as the op low_rank reads them, those of joined modules as one.
#include "model/lora_set.h"
#include "engine/state.h"
#include "mica/ops.h"
#include "model/weights.h"
#include <stdio.h>
#include <string.h>

static const char *const modules[MICA_LORA_MODULES] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                       "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

// Modules with one product.
typedef struct group {
    int first, count;
    bool gated;
    int64_t outs[MICA_LOW_RANK_MODULES], in;
    mica_lora lora[MICA_LOW_RANK_MODULES]; // of those that the adapter has
} group;

typedef struct filling {
    mica_loader ld;
    const mica_model_files *ck;
    mica_lora_set *set;
    uint64_t hash; // of all matrices as loaded
} filling;

// ---- modules ----------------------------------------------------------------------------------------------
static void hash_array(uint64_t *hash, const mica_array *a) { *hash = a ? mica_hash(mica_data(a), mica_nbytes(a), *hash) : mica_hash_mix(*hash, 0); }

static void hash_lora(uint64_t *hash, uint64_t place, const mica_lora *lora) {
    if (!lora->a) return;
    *hash = mica_hash(&lora->scale, sizeof lora->scale, mica_hash_mix(mica_hash_mix(*hash, place), lora->input_only));
    hash_array(hash, lora->a);
    hash_array(hash, lora->b);
    hash_array(hash, lora->magnitude);
}

// What the adapter has for a module, if anything. place: its number in the hash.
static bool load_module(filling *f, const char *module, uint64_t place, mica_lora *lora, int64_t *out, int64_t *in) {
    mica_weight w;
    if (!mica_adapter_find(f->ld.adapter, module) || !mica_checkpoint_has(f->ck, module)) return true;
    if (!mica_checkpoint_view(f->ck, module, -1, -1, &w, f->ld.err)) return false;
    mica_linear l = {.out = w.out, .in = w.in};
    bool ok = mica_lora_load(&f->ld, module, &w, &l);
    *lora = l.lora;
    if (ok) hash_lora(&f->hash, place, lora);
    if (out) *out = w.out, *in = w.in;
    mica_weight_release(&w);
    return ok;
}

static bool load_group(filling *f, int64_t layer, group *g) {
    char name[128];
    for (int k = 0; k < g->count; k++) {
        int64_t out = g->outs[k];
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, modules[g->first + k]);
        if (!load_module(f, name, (uint64_t)(3 + layer * MICA_LORA_MODULES + g->first + k), &g->lora[k], &out, &g->in)) return false;
        if (g->lora[k].a && out != g->outs[k]) return mica_fail(f->ld.err, MICA_ERR_FORMAT, "%s has %lld outputs", name, (long long)out);
    }
    return true;
}

// ---- as low_rank reads them ----------------------------------------------------------------------------------
// The type that all have, else f32.
static mica_dtype type_of(const group *g, bool b) {
    mica_dtype type = MICA_F32;
    bool any = false;
    for (int k = 0; k < g->count; k++) {
        if (!g->lora[k].a) continue;
        mica_dtype own = mica_array_dtype(b ? g->lora[k].b : g->lora[k].a);
        if (any && own != type) return MICA_F32;
        type = own, any = true;
    }
    return type;
}

// a [rows, columns] with zeros below up to `most` rows; NULL: nothing but zeros.
static mica_array *padded(mica_scope *s, mica_array *a, int64_t most, int64_t columns, mica_dtype type) {
    if (!a) return mica_zeros(s, MICA_SHAPE(most, columns), type);
    a = mica_astype(s, a, type);
    int64_t missing = most - (a ? mica_dim(a, 0) : 0);
    return missing > 0 ? mica_concatenate(s, (mica_array *[]){a, mica_zeros(s, MICA_SHAPE(missing, columns), type)}, 2, 0) : a;
}

// Written to a set's bytes.
static bool put(filling *f, mica_array *a, unsigned char *to) {
    mica_scope *s = f->ld.scope;
    a = mica_contiguous(s, a);
    bool ok = mica_eval(s, &a, 1, f->ld.err);
    if (ok) memcpy(to, mica_data(a), mica_nbytes(a));
    mica_scope_reset(s);
    return ok;
}

static bool put_a(filling *f, const group *g, const mica_low_rank_form *form, unsigned char *to) {
    mica_scope *s = f->ld.scope;
    mica_array *parts[MICA_LOW_RANK_MODULES];
    for (int k = 0; k < g->count; k++)
        parts[k] = padded(s, g->lora[k].a ? mica_transpose(s, g->lora[k].a, NULL) : NULL, form->rank, g->in, (mica_dtype)form->a);
    return put(f, mica_concatenate(s, parts, (size_t)g->count, 0), to);
}

// Outputs of all modules [rank, outs] in the order of their product.
static mica_array *in_order(mica_scope *s, const group *g, mica_array **parts, int64_t rank) {
    if (!g->gated) return mica_concatenate(s, parts, (size_t)g->count, 1);
    for (int k = 0; k < 2; k++) parts[k] = mica_reshape(s, parts[k], MICA_SHAPE(rank, -1, 1, MICA_GATE_BLOCK));
    return mica_reshape(s, mica_concatenate(s, parts, 2, 2), MICA_SHAPE(rank, -1));
}

static bool put_b(filling *f, const group *g, const mica_low_rank_form *form, unsigned char *to) {
    mica_scope *s = f->ld.scope;
    mica_array *parts[MICA_LOW_RANK_MODULES];
    mica_dtype type = mica_low_rank_type_b(form);
    for (int k = 0; k < g->count; k++) parts[k] = padded(s, g->lora[k].b, form->rank, g->outs[k], type);
    mica_array *all = in_order(s, g, parts, form->rank);
    int64_t odd = all ? mica_dim(all, 1) % MICA_LOW_RANK_TILE : 0;
    if (odd) all = mica_concatenate(s, (mica_array *[]){all, mica_zeros(s, MICA_SHAPE(form->rank, MICA_LOW_RANK_TILE - odd), type)}, 2, 1);
    return put(f, mica_swap_axes(s, mica_reshape(s, all, MICA_SHAPE(form->rank, -1, MICA_LOW_RANK_TILE)), 0, 1), to);
}

// Scales, and magnitudes if a module has them: 1 for the others.
static bool put_factors(filling *f, const group *g, const mica_low_rank_form *form, unsigned char *to) {
    mica_scope *s = f->ld.scope;
    mica_array *parts[MICA_LOW_RANK_MODULES];
    for (int k = 0; k < g->count; k++) memcpy(to + (size_t)k * sizeof(float), &g->lora[k].scale, sizeof(float));
    if (form->b < MICA_LOW_RANK_MAGNITUDES) return true;
    for (int k = 0; k < g->count; k++) {
        mica_array *m = g->lora[k].magnitude;
        parts[k] = mica_reshape(s, m ? mica_astype(s, m, MICA_F32) : mica_ones(s, MICA_SHAPE(g->outs[k]), MICA_F32), MICA_SHAPE(1, -1));
    }
    return put(f, in_order(s, g, parts, 1), to + (size_t)g->count * sizeof(float));
}

// The form of the group's set. *bytes: how many it takes.
static bool form_of(filling *f, const group *g, mica_low_rank_form *form, mica_low_rank_layout *layout) {
    mica_params p = {.low_rank = {.modules = g->count}};
    int64_t rank = 0;
    *form = (mica_low_rank_form){.a = (int8_t)type_of(g, false), .b = (int8_t)type_of(g, true)};
    for (int k = 0; k < g->count; k++) {
        rank = MICA_MAX(rank, g->lora[k].a ? mica_dim(g->lora[k].a, 1) : 0);
        if (g->lora[k].magnitude) form->b = (int8_t)(type_of(g, true) + MICA_LOW_RANK_MAGNITUDES);
        p.low_rank.outs[k] = (int32_t)g->outs[k];
    }
    if (rank > INT16_MAX) return mica_fail(f->ld.err, MICA_ERR_UNSUPPORTED, "adapter: a rank of %lld", (long long)rank);
    form->rank = (int16_t)rank, p.low_rank.forms[0] = *form;
    *layout = mica_low_rank_lay_out(&p, 0, (size_t)g->in);
    return true;
}

// The group's matrices as one array of bytes.
static bool join_group(filling *f, const group *g, mica_lora_part *part) {
    mica_low_rank_layout at = {0};
    if (!form_of(f, g, &part->form, &at)) return false;
    if (!part->form.rank) return true;
    unsigned char *bytes = mica_calloc(1, at.bytes);
    bool ok = bytes ? put_a(f, g, &part->form, bytes) && put_b(f, g, &part->form, bytes + at.b) && put_factors(f, g, &part->form, bytes + at.factors)
                    : mica_fail_memory(f->ld.err, at.bytes, "an adapter");
    if (ok) part->set = mica_keep(f->ld.scope, mica_from_data(f->ld.scope, bytes, MICA_SHAPE((int64_t)at.bytes), MICA_U8), f->ld.err);
    f->set->bytes += (int64_t)at.bytes;
    mica_free(bytes);
    mica_scope_reset(f->ld.scope);
    return part->set != NULL;
}

static bool fill_group(filling *f, int64_t layer, group *g) {
    bool ok = load_group(f, layer, g);
    mica_scope_reset(f->ld.scope);
    ok = ok && join_group(f, g, &f->set->layers[layer].parts[g->first]);
    for (int k = 0; k < g->count; k++) mica_lora_free(&g->lora[k]);
    return ok;
}

static bool fill_layer(filling *f, const mica_net *net, int64_t layer) {
    const mica_layer *l = &net->layers[layer];
    const mica_config *c = net->config;
    int64_t q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim, F = c->intermediate_size;
    const int64_t outs[MICA_LORA_MODULES] = {q, kv, kv, c->hidden_size, F, F, c->hidden_size};
    bool ok = true;
    for (int first = 0, count; ok && first < MICA_LORA_MODULES; first += count) {
        bool gated = first == MICA_LORA_GATE && l->gate_up.w;
        count = first == MICA_LORA_Q && l->qkv.w ? 3 : gated ? 2 : 1;
        group g = {.first = first, .count = count, .gated = gated};
        for (int k = 0; k < count; k++) g.outs[k] = outs[first + k];
        ok = fill_group(f, layer, &g);
    }
    return ok;
}

// ---- in one stretch ------------------------------------------------------------------------------------------
// A step reads all matrices in this order, a little of each product's: as one stretch of large pages they come at the speed of memory.
static mica_array **array_at(const mica_lora_set *set, size_t i) { return &set->layers[i / MICA_LORA_MODULES].parts[i % MICA_LORA_MODULES].set; }
static size_t array_count(const mica_lora_set *set) { return MICA_LORA_MODULES * (size_t)set->layer_count; }
static void release_arena(void *buffer) { mica_buffer_release(buffer); }

static bool move(filling *f, mica_buffer *arena, size_t at, mica_array **array) {
    mica_array *old = *array;
    unsigned char *to = (unsigned char *)arena->data + at;
    memcpy(to, mica_data(old), mica_nbytes(old));
    mica_array *a = mica_from_borrowed(f->ld.scope, to, 1, mica_shape(old), MICA_U8, release_arena, mica_buffer_retain(arena));
    if (!(a = mica_keep(f->ld.scope, a, f->ld.err))) return false;
    mica_array_free(old);
    *array = a;
    mica_scope_reset(f->ld.scope);
    return true;
}

static bool gather(filling *f, const mica_net *net) {
    size_t size = 0, at = 0, count = array_count(f->set);
    for (size_t i = 0; i < count; i++) size += *array_at(f->set, i) ? mica_nbytes(*array_at(f->set, i)) : 0; // whole lines
    mica_buffer *arena = mica_buffer_new(net->device, size);
    bool ok = arena || mica_fail_memory(f->ld.err, size, "an adapter");
    for (size_t i = 0; ok && i < count; i++) {
        mica_array **a = array_at(f->set, i);
        if (!*a) continue;
        ok = move(f, arena, at, a);
        at += mica_nbytes(*a);
    }
    mica_buffer_release(arena);
    return ok;
}

static int64_t bytes_of(const mica_lora *lora) {
    return !lora->a ? 0 : (int64_t)(mica_nbytes(lora->a) + mica_nbytes(lora->b) + (lora->magnitude ? mica_nbytes(lora->magnitude) : 0));
}

static bool fill(mica_lora_set *set, const mica_net *net, const mica_adapter *adapter, mica_error *err) {
    filling f = {.ld = {.adapter = adapter, .dtype = net->dtype, .err = err, .scope = mica_scope_new(net->device, err)}, .ck = net->checkpoint, .set = set,
                 .hash = 0x6c6f7261u};
    bool ok = f.ld.scope && load_module(&f, "model.embed_tokens", 1, &set->embed, NULL, NULL) && load_module(&f, "lm_head", 2, &set->head, NULL, NULL);
    for (int64_t i = 0; ok && i < set->layer_count; i++) ok = fill_layer(&f, net, i);
    ok = ok && mica_lora_all_used(adapter, err) && gather(&f, net);
    set->identity = f.hash, set->bytes += bytes_of(&set->embed) + bytes_of(&set->head);
    mica_checkpoint_rest(net->checkpoint);
    mica_loader_free(&f.ld);
    return ok;
}

// ---- the whole -------------------------------------------------------------------------------------------
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
    if (ok) return set;
    if (err && set) mica_error_prefix(err, "%s", path);
    mica_lora_set_free(set);
    return NULL;
}

void mica_lora_set_free(mica_lora_set *set) {
    if (!set) return;
    mica_lora_free(&set->embed);
    mica_lora_free(&set->head);
    for (size_t i = 0; i < array_count(set); i++) mica_array_free(*array_at(set, i));
    mica_free(set->layers);
    mica_free(set);
}
