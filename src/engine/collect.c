// SPDX-License-Identifier: Apache-2.0
// Collection: the nodes an evaluation needs, children first, as pointer-free items. Only nodes with memory of their own count; a view is
// a layout over its base. Evaluated nodes are leaves. The order is that of a depth-first walk, hence a pure function of the graph.
#include "engine/scope.h"
#include <string.h>

typedef struct mica_visit {
    mica_array *node;
    int next; // input to look at next
} mica_visit;

static bool push(mica_collection *c, size_t *depth, mica_array *node) {
    if (!mica_grow(&c->stack, &c->stack_capacity, *depth + 1, sizeof *c->stack)) return false;
    c->stack[(*depth)++] = (mica_visit){node, 0};
    return true;
}

static void describe_input(mica_plan_input *d, const mica_array *a) {
    *d = (mica_plan_input){.item = a->base->slot, .dtype = (int32_t)a->dtype, .ndim = a->ndim, .contiguous = mica_node_contiguous(a),
                           .offset = a->offset};
    for (int i = 0; i < a->ndim; i++) d->shape[i] = a->shape[i], d->stride[i] = a->stride[i];
}

static bool add_item(mica_collection *c, mica_array *a) {
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

// Walks from one base node; marks on entry, numbers on exit.
static bool walk(mica_scope *s, mica_collection *c, mica_array *root) {
    size_t depth = 0;
    if (root->mark == s->pass) return true;
    root->mark = s->pass;
    if (!push(c, &depth, root)) return false;
    while (depth) {
        mica_visit *v = &c->stack[depth - 1];
        if (v->node->buffer || v->next == v->node->n_in) {
            if (!add_item(c, v->node)) return false;
            depth--;
            continue;
        }
        mica_array *in = v->node->in[v->next++];
        if (!in || in->base->mark == s->pass) continue;
        in->base->mark = s->pass;
        if (!push(c, &depth, in->base)) return false;
    }
    return true;
}

bool mica_collect(mica_scope *s, mica_array *const *arrays, size_t count, mica_collection *c) {
    c->count = c->input_count = 0;
    c->hash = 0;
    s->pass++;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) ok = !arrays[i]->scope || walk(s, c, arrays[i]->base);
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
    mica_free(c->stack);
    mica_free(c->bases);
    mica_free(c->results);
    *c = (mica_collection){0};
}
