// SPDX-License-Identifier: Apache-2.0
// Evaluation: collect, find or build the plan, bind leaves and results, run the steps. One plan runs at a time per device, since all
// share its workspace and its threads. A hit costs a walk over the graph and a comparison; it allocates nothing.
#include "engine/scope.h"
#include "engine/state.h"
#include <stdatomic.h>
#include <string.h>

static mica_plan *find_plan(mica_device_state *st, const mica_collection *c) {
    for (size_t i = 0; i < MICA_MOST_PLANS; i++)
        if (st->plans[i] && st->plan_hash[i] == c->hash && mica_plan_matches(st->plans[i], c)) {
            st->plan_used[i] = ++st->plan_clock;
            st->plans_reused++;
            return st->plans[i];
        }
    return NULL;
}

static void drop_plan(mica_device_state *st, size_t i) {
    if (st->plans[i]) st->plan_bytes -= mica_plan_bytes(st->plans[i]);
    mica_plan_free(st->plans[i]);
    st->plans[i] = NULL;
}

static size_t oldest_plan(const mica_device_state *st) {
    size_t oldest = SIZE_MAX;
    for (size_t i = 0; i < MICA_MOST_PLANS; i++)
        if (st->plans[i] && (oldest == SIZE_MAX || st->plan_used[i] < st->plan_used[oldest])) oldest = i;
    return oldest;
}

// An empty place, else the least recently used.
static size_t plan_place(const mica_device_state *st) {
    for (size_t i = 0; i < MICA_MOST_PLANS; i++)
        if (!st->plans[i]) return i;
    return oldest_plan(st);
}

// Plans of training are large, and every length of batch has its own: those not used for longest go.
static void limit_plans(mica_device_state *st, size_t more) {
    while (st->plan_bytes && st->plan_bytes + more > MICA_MOST_PLAN_BYTES) drop_plan(st, oldest_plan(st));
}

static mica_plan *add_plan(mica_device *d, const mica_collection *c, mica_error *err) {
    mica_device_state *st = d->state;
    mica_plan *p = mica_plan_build(d, c, err);
    if (!p) return NULL;
    limit_plans(st, mica_plan_bytes(p));
    size_t victim = plan_place(st);
    drop_plan(st, victim);
    st->plans[victim] = p;
    st->plan_bytes += mica_plan_bytes(p);
    st->plan_hash[victim] = c->hash;
    st->plan_used[victim] = ++st->plan_clock;
    st->plans_built++;
    return p;
}

static bool fit_workspace(mica_device *d, size_t size, mica_error *err) {
    mica_device_state *st = d->state;
    if (st->workspace && st->workspace->size >= size) return true;
    mica_buffer_discard(st->workspace);
    st->workspace = mica_buffer_new(d, size);
    return st->workspace || mica_fail(err, MICA_ERR_NO_MEMORY, "eval: out of memory: %zu bytes of workspace", size);
}

// Memory by base number: workspace, leaves, results (fresh). On failure the results allocated so far are released.
static bool bind(mica_device *d, const mica_plan *p, mica_collection *c, mica_error *err) {
    size_t bases = 1 + p->leaf_count + p->result_count;
    if (!mica_grow(&c->bases, &c->base_capacity, bases, sizeof *c->bases) ||
        !mica_grow(&c->results, &c->result_capacity, p->result_count, sizeof *c->results))
        return mica_fail_memory(err, bases * sizeof *c->bases, "an evaluation");
    c->bases[0] = d->state->workspace ? d->state->workspace->data : NULL;
    for (size_t i = 0; i < p->leaf_count; i++) c->bases[1 + i] = c->nodes[p->leaf_items[i]]->buffer->data;
    for (size_t i = 0; i < p->result_count; i++) {
        size_t size = mica_plan_item_bytes(&p->items[p->result_items[i]]);
        c->results[i] = mica_buffer_new(d, size);
        if (c->results[i]) c->bases[1 + p->leaf_count + i] = c->results[i]->data;
        else {
            while (i-- > 0) mica_buffer_release(c->results[i]);
            return mica_fail(err, MICA_ERR_NO_MEMORY, "eval: out of memory: %zu bytes for a result", size);
        }
    }
    return true;
}

static void run_measured(const mica_kernel *kernel, const mica_call *call, mica_op_clock *clock) {
    double started = mica_now();
    kernel->run(call);
    clock->seconds += mica_now() - started;
    clock->runs++;
}

static void run_step(mica_device *d, const mica_plan *p, const mica_step *step, unsigned char *const *bases) {
    const mica_plan_item *item = &p->items[step->item];
    mica_call call;
    mica_plan_call(d, p, item, &call);
    for (int k = 0; k < item->n_in; k++) {
        const mica_place *place = &p->places[step->first_input + (size_t)k];
        if (p->inputs[step->first_input + (size_t)k].item >= 0) call.in[k].data = bases[place->base] + place->offset;
    }
    call.out.data = bases[step->out.base] + step->out.offset;
    if (step->scratch_size) call.scratch = bases[0] + step->scratch.offset;
    if (d->state->clocks) run_measured(step->kernel, &call, &d->state->clocks[item->op]);
    else step->kernel->run(&call);
}

// Whatever is still to be held after the run has its place before it: what an op wrote in place cannot be taken back.
static bool reserve(mica_scope *s, const mica_plan *p) {
    size_t more = p->result_count;
    for (size_t i = 0; i < p->count; i++) more += p->items[i].root && (mica_op_table[p->items[i].op].flags & MICA_FLAG_IN_PLACE);
    return mica_grow(&s->held, &s->held_capacity, s->held_count + more, sizeof *s->held);
}

// The nodes of the results become evaluated; an in-place result shares the memory of what it wrote into.
static void hand_over(mica_scope *s, const mica_plan *p, mica_collection *c) {
    for (size_t i = 0; i < p->result_count; i++) mica_scope_hold(s, c->nodes[p->result_items[i]], c->results[i]);
    for (size_t i = 0; i < p->count; i++) {
        if (!p->items[i].root || !(mica_op_table[p->items[i].op].flags & MICA_FLAG_IN_PLACE)) continue;
        mica_array *from = c->nodes[i];
        while (!from->buffer) from = from->in[0]->base;
        mica_scope_hold(s, c->nodes[i], mica_buffer_retain(from->buffer));
    }
}

static bool run_plan(mica_scope *s, mica_collection *c, mica_error *err) {
    mica_device *d = s->device;
    mica_plan *p = find_plan(d->state, c);
    if (!p && !(p = add_plan(d, c, err))) return false;
    if (!fit_workspace(d, p->workspace, err)) return false;
    if (!reserve(s, p)) return mica_fail_memory(err, p->count, "an evaluation");
    if (!bind(d, p, c, err)) return false;
    for (size_t i = 0; i < p->step_count; i++) run_step(d, p, &p->steps[i], c->bases);
    hand_over(s, p, c);
    return true;
}

// What is to be computed, collected. *todo false: nothing is.
static bool collect(mica_scope *s, mica_array *const *arrays, size_t count, bool *todo, mica_error *err) {
    *todo = false;
    if (mica_scope_error(s, err)) return false;
    for (size_t i = 0; i < count; i++) {
        if (!arrays[i]) return mica_fail(err, MICA_ERR_ARGUMENT, "eval: array %zu is NULL", i);
        if (!arrays[i]->scope) continue; // kept: evaluated already
        if (arrays[i]->scope != s) return mica_fail(err, MICA_ERR_ARGUMENT, "eval: array %zu belongs to another scope", i);
        *todo |= !arrays[i]->base->buffer;
    }
    if (!*todo || mica_collect(s, arrays, count, &s->collection)) return true;
    mica_scope_error(s, err);
    s->failed = false; // an evaluation that could not start leaves the graph usable
    return false;
}

bool mica_eval_size(mica_scope *s, mica_array *const *arrays, size_t count, mica_plan_size *size, mica_error *err) {
    bool todo;
    *size = (mica_plan_size){0};
    if (!collect(s, arrays, count, &todo, err)) return false;
    mica_plan *p = todo ? mica_plan_build(s->device, &s->collection, err) : NULL;
    if (!p) return !todo;
    size->workspace = p->workspace, size->plan = mica_plan_bytes(p);
    for (size_t i = 0; i < p->result_count; i++) size->results += mica_plan_item_bytes(&p->items[p->result_items[i]]);
    mica_plan_free(p);
    return true;
}

bool mica_eval(mica_scope *s, mica_array *const *arrays, size_t count, mica_error *err) {
    bool todo;
    if (!collect(s, arrays, count, &todo, err)) return false;
    if (!todo) return true;
    pthread_mutex_lock(&s->device->state->run_lock);
    bool ok = run_plan(s, &s->collection, err);
    pthread_mutex_unlock(&s->device->state->run_lock);
    return ok;
}

bool mica_async_eval(mica_scope *s, mica_array *const *arrays, size_t count, mica_error *err) { return mica_eval(s, arrays, count, err); }
