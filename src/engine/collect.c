// SPDX-License-Identifier: Apache-2.0
// Collection: the nodes an evaluation needs, children first, as pointer-free items. Only nodes with memory of their own count; a view is
// a layout over its base. Evaluated nodes are leaves. The order is that of the record: what a gradient computes again or uses last is
// computed where it was recorded, close to its use (a walk from the results would compute it far too early and hold it).
#include "engine/scope.h"
#include <string.h>

static void describe_input(mica_plan_input *d, const mica_array *a) {
    *d = (mica_plan_input){.item = a->base->slot, .dtype = (int32_t)a->dtype, .ndim = a->ndim, .contiguous = mica_node_contiguous(a),
                           .offset = a->offset};
    for (int i = 0; i < a->ndim; i++) d->shape[i] = a->shape[i], d->stride[i] = a->stride[i];
}

static bool add_item(mica_collection *c, mica_array *a, const mica_scope *s) {
    int n_in = a->buffer ? 0 : a->n_in;
    if (!mica_grow(&c->items, &c->capacity, c->count + 1, sizeof *c->items) ||
        !mica_grow(&c->nodes, &c->node_capacity, c->count + 1, sizeof *c->nodes) ||
        !mica_grow(&c->inputs, &c->input_capacity, c->input_count + (size_t)n_in, sizeof *c->inputs))
        return false;
    mica_plan_item *item = &c->items[c->count];
    memset(item, 0, sizeof *item);
    a->slot = (int32_t)c->count;
    c->nodes[c->count++] = a;
    item->op = a->buffer ? MICA_OP_leaf : (int32_t)a->op;
    item->dtype = (int32_t)a->dtype;
    item->n_in = n_in;
    item->first_input = (int32_t)c->input_count;
    c->hash = mica_hash_mix(c->hash, (uint64_t)item->op << 8 | (uint64_t)item->dtype);
    if (a->buffer) return true; // a leaf's own layout shows where it is used
    item->rows_alone = s->rows_alone, item->rows_many = s->rows_many;
    item->ndim = a->ndim;
    for (int i = 0; i < a->ndim; i++) item->shape[i] = a->shape[i];
    item->params = a->params;
    c->hash = mica_hash(&item->params, sizeof item->params, c->hash);
    for (int i = 0; i < n_in; i++) {
        mica_plan_input *d = &c->inputs[c->input_count++];
        if (a->in[i]) describe_input(d, a->in[i]);
        else *d = (mica_plan_input){.item = -1};
        c->hash = mica_hash(d, offsetof(mica_plan_input, shape) + (size_t)d->ndim * sizeof d->shape[0], c->hash);
        c->hash = mica_hash(d->stride, (size_t)d->ndim * sizeof d->stride[0], c->hash);
    }
    return true;
}

// Marks a base node; counts those whose inputs are still to be looked at.
static void mark(mica_scope *s, mica_array *base, size_t *pending) {
    if (base->mark == s->pass) return;
    base->mark = s->pass;
    ++*pending;
}

bool mica_collect(mica_scope *s, mica_array *const *arrays, size_t count, mica_collection *c) {
    c->count = c->input_count = 0;
    c->hash = (uint64_t)(s->rows_alone | s->rows_many << 1);
    s->pass++;
    size_t pending = 0, first = 0, end = 0;
    for (size_t i = 0; i < count; i++) {
        if (!arrays[i]->scope) continue; // kept: evaluated already
        mark(s, arrays[i]->base, &pending);
        end = MICA_MAX(end, (size_t)arrays[i]->base->id + 1);
    }
    for (first = end; pending;) {
        const mica_array *a = s->nodes[--first];
        if (a->mark != s->pass) continue;
        pending--;
        for (int i = 0; !a->buffer && i < a->n_in; i++)
            if (a->in[i]) mark(s, a->in[i]->base, &pending);
    }
    bool ok = true;
    for (size_t id = first; ok && id < end; id++)
        if (s->nodes[id]->mark == s->pass) ok = add_item(c, s->nodes[id], s);
    for (size_t i = 0; ok && i < count; i++) {
        if (!arrays[i]->scope) continue;
        mica_plan_item *item = &c->items[arrays[i]->base->slot];
        if (item->op != MICA_OP_leaf) item->root = 1;
        c->hash = mica_hash_mix(c->hash, (uint64_t)arrays[i]->base->slot);
    }
    if (!ok) mica_scope_fail(s, MICA_ERR_NO_MEMORY, "eval", "out of memory");
    return ok;
}

void mica_collection_free(mica_collection *c) {
    mica_free(c->items);
    mica_free(c->nodes);
    mica_free(c->inputs);
    mica_free(c->bases);
    mica_free(c->results);
    *c = (mica_collection){0};
}
