// SPDX-License-Identifier: Apache-2.0
// Building a plan: one step per computed item, in collection order; every intermediate gets a place in one workspace, and the
// places of dead ones are reused (best fit over a list of free ranges). An elementwise op writes over an input that dies with it.
#include "engine/plan.h"
#include "engine/state.h"
#include <string.h>

enum { ALIGN = 64 };

// ---- workspace -----------------------------------------------------------------------------------------------
typedef struct range {
    size_t offset, size;
} range;

typedef struct packer {
    range *free; // sorted by offset, never adjacent
    size_t count, capacity, end;
} packer;

static size_t round_up(size_t n) { return (MICA_MAX(n, (size_t)1) + ALIGN - 1) / ALIGN * ALIGN; }

static size_t packer_take(packer *p, size_t size) {
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < p->count; i++)
        if (p->free[i].size >= size && (best == SIZE_MAX || p->free[i].size < p->free[best].size)) best = i;
    if (best == SIZE_MAX) { // extend the end, starting in a free range that touches it
        range *last = p->count ? &p->free[p->count - 1] : NULL;
        size_t at = p->end;
        if (last && last->offset + last->size == p->end) at = last->offset, p->count--;
        p->end = at + size;
        return at;
    }
    range *r = &p->free[best];
    size_t at = r->offset;
    r->offset += size, r->size -= size;
    if (!r->size) {
        memmove(r, r + 1, (p->count - best - 1) * sizeof *r);
        p->count--;
    }
    return at;
}

static bool packer_give(packer *p, size_t offset, size_t size) {
    if (!mica_grow(&p->free, &p->capacity, p->count + 1, sizeof *p->free)) return false;
    size_t i = 0;
    while (i < p->count && p->free[i].offset < offset) i++;
    memmove(p->free + i + 1, p->free + i, (p->count - i) * sizeof *p->free);
    p->free[i] = (range){offset, size};
    p->count++;
    if (i + 1 < p->count && p->free[i].offset + p->free[i].size == p->free[i + 1].offset) {
        p->free[i].size += p->free[i + 1].size;
        memmove(p->free + i + 1, p->free + i + 2, (p->count - i - 2) * sizeof *p->free);
        p->count--;
    }
    if (i && p->free[i - 1].offset + p->free[i - 1].size == p->free[i].offset) {
        p->free[i - 1].size += p->free[i].size;
        memmove(p->free + i, p->free + i + 1, (p->count - i - 1) * sizeof *p->free);
        p->count--;
    }
    return true;
}

// ---- placing ---------------------------------------------------------------------------------------------------
typedef struct builder {
    mica_device *device;
    mica_plan *plan;
    mica_place *item_place; // of each item
    int32_t *last_use;      // step (item number) after which its memory is free; INT32_MAX: never
    size_t *item_bytes;     // rounded
    packer packer;
} builder;

size_t mica_plan_item_bytes(const mica_plan_item *item) {
    size_t n = mica_dtype_size((mica_dtype)item->dtype);
    for (int i = 0; i < item->ndim; i++) n *= (size_t)item->shape[i];
    return n;
}

static unsigned flags_of(const mica_plan_item *item) { return mica_op_table[item->op].flags; }

// Memory of an in-place result is its first input's: uses of either count for the storage.
static int32_t storage_of(const mica_plan *p, int32_t i) {
    while (flags_of(&p->items[i]) & MICA_FLAG_IN_PLACE) i = p->inputs[p->items[i].first_input].item;
    return i;
}

static void find_last_uses(builder *b) {
    mica_plan *p = b->plan;
    for (size_t i = 0; i < p->count; i++) b->last_use[i] = (int32_t)i;
    for (size_t i = 0; i < p->count; i++)
        for (int k = 0; k < p->items[i].n_in; k++) {
            int32_t in = p->inputs[p->items[i].first_input + k].item;
            if (in >= 0) b->last_use[storage_of(p, in)] = (int32_t)i;
        }
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i].root) b->last_use[storage_of(p, (int32_t)i)] = INT32_MAX;
}

static bool in_workspace(const builder *b, int32_t i) {
    const mica_plan_item *item = &b->plan->items[i];
    return item->op != MICA_OP_leaf && !item->root && !(flags_of(item) & MICA_FLAG_IN_PLACE) && b->item_place[i].base == 0;
}

// An input whose memory the elementwise item i may write over: dying here, dense, same bytes; -1 if none.
static int32_t overlay(const builder *b, int32_t i) {
    const mica_plan_item *item = &b->plan->items[i];
    if (!(flags_of(item) & MICA_FLAG_ELEMENTWISE)) return -1;
    for (int k = 0; k < item->n_in; k++) {
        const mica_plan_input *in = &b->plan->inputs[item->first_input + k];
        if (in->item < 0 || !in_workspace(b, in->item) || b->last_use[in->item] != i || in->offset || !in->contiguous) continue;
        const mica_plan_item *source = &b->plan->items[in->item];
        if (source->dtype != item->dtype || mica_plan_item_bytes(source) != mica_plan_item_bytes(item) || in->ndim != item->ndim ||
            memcmp(in->shape, item->shape, sizeof in->shape)) continue;
        bool twice = false; // another view of the same memory would be overwritten while it is read
        for (int j = 0; j < item->n_in; j++) {
            const mica_plan_input *other = &b->plan->inputs[item->first_input + j];
            twice |= j != k && other->item == in->item && memcmp(other, in, sizeof *in);
        }
        if (!twice) return in->item;
    }
    return -1;
}

static void place_output(builder *b, int32_t i) {
    const mica_plan_item *item = &b->plan->items[i];
    if (flags_of(item) & MICA_FLAG_IN_PLACE) {
        const mica_plan_input *in = &b->plan->inputs[item->first_input];
        b->item_place[i] = b->item_place[in->item];
        b->item_place[i].offset += (size_t)in->offset * mica_dtype_size((mica_dtype)in->dtype);
        return;
    }
    if (item->root) return; // has a base of its own
    int32_t over = overlay(b, i);
    b->plan->unpacked += b->item_bytes[i];
    if (over >= 0) {
        b->item_place[i] = b->item_place[over];
        b->last_use[over] = -1; // its memory lives on under another name
    } else {
        b->item_place[i] = (mica_place){0, packer_take(&b->packer, b->item_bytes[i])};
    }
}

static bool release_dead(builder *b, int32_t step) {
    const mica_plan_item *item = &b->plan->items[step];
    for (int k = -1; k < item->n_in; k++) {
        int32_t in = k < 0 ? step : b->plan->inputs[item->first_input + k].item;
        if (in < 0) continue;
        in = storage_of(b->plan, in);
        if (b->last_use[in] != step || !in_workspace(b, in)) continue;
        b->last_use[in] = -1;
        if (!packer_give(&b->packer, b->item_place[in].offset, b->item_bytes[in])) return false;
    }
    return true;
}

// ---- steps -------------------------------------------------------------------------------------------------------
void mica_plan_call(mica_device *d, const mica_plan *p, const mica_plan_item *item, mica_call *call) {
    call->device = d;
    call->params = &item->params;
    call->inputs = item->n_in;
    call->rows_alone = item->rows_alone != 0;
    call->rows_many = item->rows_many != 0;
    for (int k = 0; k < item->n_in; k++) {
        const mica_plan_input *in = &p->inputs[item->first_input + k];
        mica_tensor *t = &call->in[k];
        t->data = NULL;
        t->dtype = (mica_dtype)in->dtype;
        t->ndim = in->ndim;
        t->contiguous = in->contiguous != 0;
        memcpy(t->shape, in->shape, sizeof t->shape);
        memcpy(t->stride, in->stride, sizeof t->stride);
    }
    mica_tensor *out = &call->out;
    *out = (mica_tensor){.dtype = (mica_dtype)item->dtype, .ndim = item->ndim, .contiguous = true};
    for (int64_t i = item->ndim - 1, stride = 1; i >= 0; i--) {
        out->shape[i] = item->shape[i];
        out->stride[i] = stride;
        stride *= MICA_MAX(item->shape[i], (int64_t)1);
    }
    call->scratch = NULL;
}

static bool add_step(builder *b, int32_t i, mica_error *err) {
    mica_plan *p = b->plan;
    const mica_plan_item *item = &p->items[i];
    const mica_kernel *kernel = &b->device->state->kernels[item->op];
    if (!kernel->run)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: device %s has no kernel for it", mica_op_table[item->op].name, b->device->name);
    if (mica_plan_item_bytes(item) == 0 && !(flags_of(item) & MICA_FLAG_IN_PLACE)) return true; // nothing to compute
    mica_step *step = &p->steps[p->step_count++];
    *step = (mica_step){.kernel = kernel, .item = i, .out = b->item_place[i], .first_input = (size_t)item->first_input};
    if (kernel->scratch) {
        mica_call call;
        mica_plan_call(b->device, p, item, &call);
        step->scratch_size = kernel->scratch(&call);
    }
    if (!step->scratch_size) return true;
    size_t size = round_up(step->scratch_size);
    step->scratch = (mica_place){0, packer_take(&b->packer, size)};
    return packer_give(&b->packer, step->scratch.offset, size) || mica_fail_memory(err, size, "a plan");
}

static bool place_all(builder *b, mica_error *err) {
    mica_plan *p = b->plan;
    int32_t leaf = 1, result = 1 + (int32_t)p->leaf_count;
    for (size_t i = 0; i < p->count; i++) { // bases first: leaves in order, then results in order
        if (p->items[i].op == MICA_OP_leaf) p->leaf_items[leaf - 1] = (int32_t)i, b->item_place[i].base = leaf++;
        else if (p->items[i].root && !(flags_of(&p->items[i]) & MICA_FLAG_IN_PLACE)) {
            p->result_items[result - 1 - (int32_t)p->leaf_count] = (int32_t)i;
            b->item_place[i].base = result++;
        }
        b->item_bytes[i] = round_up(p->items[i].op == MICA_OP_leaf ? 0 : mica_plan_item_bytes(&p->items[i]));
    }
    find_last_uses(b);
    for (size_t i = 0; i < p->count; i++) {
        if (p->items[i].op == MICA_OP_leaf) continue;
        place_output(b, (int32_t)i);
        if (!add_step(b, (int32_t)i, err)) return false;
        if (!release_dead(b, (int32_t)i)) return mica_fail_memory(err, p->count, "a plan");
    }
    for (size_t k = 0; k < p->input_count; k++) {
        const mica_plan_input *in = &p->inputs[k];
        if (in->item < 0) continue;
        p->places[k] = b->item_place[in->item];
        p->places[k].offset += (size_t)in->offset * mica_dtype_size((mica_dtype)in->dtype);
    }
    p->workspace = b->packer.end;
    return true;
}

static void *copy_of(const void *from, size_t bytes) {
    void *p = mica_alloc(bytes);
    if (p && bytes) memcpy(p, from, bytes);
    return p;
}

static bool allocate(builder *b, const mica_collection *c) {
    mica_plan *p = b->plan;
    p->count = c->count;
    p->input_count = c->input_count;
    for (size_t i = 0; i < c->count; i++) {
        if (c->items[i].op == MICA_OP_leaf) p->leaf_count++;
        else if (c->items[i].root && !(flags_of(&c->items[i]) & MICA_FLAG_IN_PLACE)) p->result_count++;
    }
    p->items = copy_of(c->items, c->count * sizeof *c->items);
    p->inputs = copy_of(c->inputs, c->input_count * sizeof *c->inputs);
    p->places = mica_calloc(c->input_count, sizeof *p->places);
    p->steps = mica_calloc(c->count, sizeof *p->steps);
    p->leaf_items = mica_calloc(p->leaf_count, sizeof *p->leaf_items);
    p->result_items = mica_calloc(p->result_count, sizeof *p->result_items);
    b->item_place = mica_calloc(c->count, sizeof *b->item_place);
    b->last_use = mica_calloc(c->count, sizeof *b->last_use);
    b->item_bytes = mica_calloc(c->count, sizeof *b->item_bytes);
    return p->items && p->inputs && p->places && p->steps && p->leaf_items && p->result_items && b->item_place && b->last_use &&
           b->item_bytes;
}

mica_plan *mica_plan_build(mica_device *d, const mica_collection *c, mica_error *err) {
    builder b = {.device = d, .plan = mica_calloc(1, sizeof(mica_plan))};
    bool ok = b.plan && allocate(&b, c);
    if (!ok) mica_fail_memory(err, c->count * sizeof(mica_plan_item), "a plan");
    ok = ok && place_all(&b, err);
    mica_free(b.item_place);
    mica_free(b.last_use);
    mica_free(b.item_bytes);
    mica_free(b.packer.free);
    if (ok) return b.plan;
    mica_plan_free(b.plan);
    return NULL;
}

size_t mica_plan_bytes(const mica_plan *p) {
    return sizeof *p + p->count * (sizeof *p->items + sizeof *p->steps) + p->input_count * (sizeof *p->inputs + sizeof *p->places) +
           (p->leaf_count + p->result_count) * sizeof *p->leaf_items;
}

bool mica_plan_matches(const mica_plan *p, const mica_collection *c) {
    return p->count == c->count && p->input_count == c->input_count && !memcmp(p->items, c->items, c->count * sizeof *c->items) &&
           (!c->input_count || !memcmp(p->inputs, c->inputs, c->input_count * sizeof *c->inputs));
}

void mica_plan_free(mica_plan *p) {
    if (!p) return;
    mica_free(p->items);
    mica_free(p->inputs);
    mica_free(p->places);
    mica_free(p->steps);
    mica_free(p->leaf_items);
    mica_free(p->result_items);
    mica_free(p);
}
