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
    int64_t layer; // NO_LAYER: the head
    int first, count;
    bool gated, turned; // turned: a tied head, whose matrices are the embedding's, each in the other's place
    int64_t outs[MICA_LOW_RANK_MODULES], in;
    const mica_adapter_part *parts[MICA_LOW_RANK_MODULES]; // NULL: the adapter has nothing for it
    mica_lora lora[MICA_LOW_RANK_MODULES];                 // these, loaded
    mica_lora_part *to;
} group;
enum { NO_LAYER = -1 };

typedef struct filling {
    mica_loader ld;
    const mica_net *net;
    mica_lora_set *set;
    uint64_t hash; // of all matrices as loaded
    // A step reads all matrices in this order, a little of each product's: as one stretch of large pages they come at the speed of memory.
    mica_buffer *arena; // NULL: sizes are only counted
    size_t size, at;    // counted; written
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

// Loads what the adapter has for a module, if anything. place: its number in the hash.
static bool load_module(filling *f, const char *module, uint64_t place, int64_t out, int64_t in, mica_lora *lora) {
    mica_weight w;
    if (!mica_adapter_find(f->ld.adapter, module)) return true;
    if (!mica_checkpoint_view(f->net->checkpoint, module, out, in, &w, f->ld.err)) return false;
    mica_linear l = {.out = out, .in = in};
    bool ok = mica_lora_load(&f->ld, module, &w, &l);
    *lora = l.lora;
    if (ok) hash_lora(&f->hash, place, lora);
    mica_weight_release(&w);
    return ok;
}

enum { NAME = 128 };
static const char *name_of(const group *g, int k, char *name) {
    if (g->turned) return "model.embed_tokens";
    if (g->layer == NO_LAYER) return "lm_head";
    snprintf(name, NAME, "model.layers.%lld.%s", (long long)g->layer, modules[g->first + k]);
    return name;
}

// The adapter's parts for a group, of the right sizes.
static bool find_parts(filling *f, group *g) {
    char name[NAME];
    for (int k = 0; k < g->count; k++) {
        const char *module = name_of(g, k, name);
        const mica_adapter_part *p = mica_adapter_find(f->ld.adapter, module);
        if (!p || !mica_checkpoint_has(f->net->checkpoint, module)) continue;
        if (!mica_adapter_sizes_fit(p, g->outs[k], g->in, f->ld.err)) return false;
        if (!g->turned || !p->input_only) g->parts[k] = p;
    }
    return true;
}

static bool load_group(filling *f, group *g) {
    char name[NAME];
    if (g->turned) return g->lora[0] = f->set->embed, true;
    for (int k = 0; k < g->count; k++) {
        uint64_t place = g->layer == NO_LAYER ? 2 : (uint64_t)(3 + g->layer * MICA_LORA_MODULES + g->first + k);
        if (g->parts[k] && !load_module(f, name_of(g, k, name), place, g->outs[k], g->in, &g->lora[k])) return false;
    }
    return true;
}

static void free_group(group *g) {
    for (int k = 0; k < g->count && !g->turned; k++) mica_lora_free(&g->lora[k]);
}

// ---- as low_rank reads them ----------------------------------------------------------------------------------
// The type that all have, else f32.
static mica_dtype type_of(const group *g, bool b) {
    mica_dtype type = MICA_F32;
    bool any = false;
    for (int k = 0; k < g->count; k++) {
        if (!g->parts[k]) continue;
        mica_dtype own = (b != g->turned ? g->parts[k]->b : g->parts[k]->a)->dtype;
        if (any && own != type) return MICA_F32;
        type = own, any = true;
    }
    return type;
}

// The form of the group's set; its rank is 0 where there is none.
static bool find_form(filling *f, const group *g, mica_low_rank_layout *layout) {
    mica_params p = {.low_rank = {.modules = g->count}};
    mica_low_rank_form form = {.a = (int8_t)type_of(g, false), .b = (int8_t)type_of(g, true)};
    int64_t rank = 0;
    for (int k = 0; k < g->count; k++) {
        const mica_adapter_part *part = g->parts[k];
        p.low_rank.outs[k] = (int32_t)g->outs[k];
        if (!part) continue;
        rank = MICA_MAX(rank, part->a->shape[part->transposed ? 0 : 1]);
        if (part->magnitude) form.b = (int8_t)(type_of(g, true) + MICA_LOW_RANK_MAGNITUDES);
        if (rank > INT16_MAX) return mica_fail(f->ld.err, MICA_ERR_UNSUPPORTED, "adapter: %s: a rank of %lld", part->module, (long long)rank);
    }
    form.rank = (int16_t)rank, p.low_rank.forms[0] = g->to->form = form;
    *layout = mica_low_rank_lay_out(&p, 0, (size_t)g->in);
    return true;
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
    for (int k = 0; k < g->count; k++) {
        const mica_lora *lora = &g->lora[k];
        mica_array *a = !lora->a ? NULL : g->turned ? lora->b : mica_transpose(s, lora->a, NULL);
        parts[k] = padded(s, a, form->rank, g->in, (mica_dtype)form->a);
    }
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
    for (int k = 0; k < g->count; k++) {
        const mica_lora *lora = &g->lora[k];
        mica_array *b = lora->a && g->turned ? mica_transpose(s, lora->a, NULL) : lora->b;
        parts[k] = padded(s, b, form->rank, g->outs[k], type);
    }
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

static void release_arena(void *buffer) { mica_buffer_release(buffer); }

// The group's matrices, written where they stay.
static bool write_group(filling *f, const group *g, const mica_low_rank_layout *at) {
    const mica_low_rank_form *form = &g->to->form;
    unsigned char *to = (unsigned char *)f->arena->data + f->at;
    mica_scope_reset(f->ld.scope);
    if (!put_a(f, g, form, to) || !put_b(f, g, form, to + at->b) || !put_factors(f, g, form, to + at->factors)) return false;
    mica_array *set = mica_from_borrowed(f->ld.scope, to, MICA_SHAPE((int64_t)at->bytes), MICA_U8, release_arena, mica_buffer_retain(f->arena));
    g->to->set = mica_keep(f->ld.scope, set, f->ld.err);
    f->at += at->bytes;
    mica_scope_reset(f->ld.scope);
    return g->to->set != NULL;
}

static bool take_group(filling *f, group *g) {
    mica_low_rank_layout at = {0};
    if (!find_parts(f, g) || !find_form(f, g, &at)) return false;
    if (!g->to->form.rank) return true;
    if (!f->arena) return f->size += at.bytes, true;
    bool ok = load_group(f, g) && write_group(f, g, &at);
    free_group(g);
    return ok;
}

static bool take_head(filling *f) {
    const mica_linear *l = f->net->tied ? &f->net->embed : &f->net->head;
    group g = {.layer = NO_LAYER, .count = 1, .turned = f->net->tied, .outs = {l->out}, .in = l->in, .to = &f->set->head};
    return take_group(f, &g);
}

static bool take_layer(filling *f, int64_t layer) {
    const mica_layer *l = &f->net->layers[layer];
    const mica_config *c = f->net->config;
    int64_t D = c->hidden_size, q = c->num_heads * c->head_dim, kv = c->num_kv_heads * c->head_dim, F = c->intermediate_size;
    const int64_t outs[MICA_LORA_MODULES] = {q, kv, kv, D, F, F, D}, ins[MICA_LORA_MODULES] = {D, D, D, q, D, D, F};
    bool ok = true;
    for (int first = 0, count; ok && first < MICA_LORA_MODULES; first += count) {
        bool gated = first == MICA_LORA_GATE && l->gate_up.w;
        count = first == MICA_LORA_Q && l->qkv.w ? 3 : gated ? 2 : 1;
        group g = {.layer = layer, .first = first, .count = count, .gated = gated, .in = ins[first], .to = &f->set->layers[layer].parts[first]};
        for (int k = 0; k < count; k++) g.outs[k] = outs[first + k];
        ok = take_group(f, &g);
    }
    return ok;
}

static bool take_groups(filling *f) {
    bool ok = take_head(f);
    for (int64_t i = 0; ok && i < f->set->layer_count; i++) ok = take_layer(f, i);
    return ok;
}

static int64_t bytes_of(const mica_lora *lora) { return lora->a ? (int64_t)(mica_nbytes(lora->a) + mica_nbytes(lora->b)) : 0; }

// Sizes first, then the matrices, each straight to its place.
static bool fill(mica_lora_set *set, const mica_net *net, const mica_adapter *adapter, mica_error *err) {
    filling f = {.ld = {.adapter = adapter, .dtype = net->dtype, .err = err, .scope = mica_scope_new(net->device, err)}, .net = net, .set = set,
                 .hash = 0x6c6f7261u};
    bool ok = f.ld.scope && take_groups(&f);
    if (ok) ok = (f.arena = mica_buffer_new(net->device, f.size)) || mica_fail_memory(err, f.size, "an adapter");
    ok = ok && load_module(&f, "model.embed_tokens", 1, net->embed.out, net->embed.in, &set->embed) && take_groups(&f) && mica_lora_all_used(adapter, err);
    mica_buffer_release(f.arena);
    set->identity = f.hash, set->bytes = (int64_t)f.at + bytes_of(&set->embed);
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
    mica_array_free(set->head.set);
    for (int64_t i = 0; i < set->layer_count; i++)
        for (int k = 0; k < MICA_LORA_MODULES; k++) mica_array_free(set->layers[i].parts[k].set);
    mica_free(set->layers);
    mica_free(set);
}
