// SPDX-License-Identifier: Apache-2.0
// Reverse-mode gradients. The record of a scope is a topological order, so one sweep over it from the last node to the first
// meets every node after all that use it: its cotangent is complete, its op's rule passes it on to the inputs. Rules record
// ordinary nodes; thus gradients can be differentiated again, and a jvp is the vjp of a vjp.
// A checkpoint records its function's nodes and hides the results behind views that no gradient passes. When the sweep meets
// them, it calls the function again and sweeps the fresh nodes: the inner values of the first call die in the forward pass.
#include "engine/rules.h"
#include "mica/transforms.h"
#include <string.h>

typedef struct mica_region {
    mica_function *f;
    void *ctx;
    mica_array **inputs, **views;
    size_t n_inputs, n_outputs;
} mica_region;

typedef struct sweep {
    mica_scope *s;
    mica_array **grad;    // by id: cotangent so far
    unsigned char *needs; // by id: depends on a wanted array
    size_t grad_capacity, needs_capacity, count;
} sweep;

static bool fail(mica_scope *s, const char *what, const char *message) {
    mica_scope_fail(s, MICA_ERR_ARGUMENT, what, "%s", message);
    return false;
}

// Makes room for ids below `count`.
static bool sweep_grow(sweep *w, size_t count) {
    if (count <= w->count) return true;
    if (!mica_grow(&w->grad, &w->grad_capacity, count, sizeof *w->grad) || !mica_grow(&w->needs, &w->needs_capacity, count, 1)) {
        mica_scope_fail(w->s, MICA_ERR_NO_MEMORY, "vjp", "out of memory");
        return false;
    }
    memset(w->grad + w->count, 0, (count - w->count) * sizeof *w->grad);
    memset(w->needs + w->count, 0, count - w->count);
    w->count = count;
    return true;
}

// ---- which nodes depend on a wanted array --------------------------------------------------------------------
// Integers and stop_gradient cut the flow.
static void mark(sweep *w, size_t first, size_t end) {
    for (size_t id = first; id < end; id++) {
        const mica_array *a = mica_scope_node(w->s, (uint32_t)id);
        if (!mica_dtype_is_float(a->dtype) || a->op == MICA_OP_stop_gradient) continue;
        for (int i = 0; i < a->n_in && !w->needs[id]; i++) w->needs[id] = a->in[i] && w->needs[a->in[i]->id];
    }
}

// ---- the sweep -------------------------------------------------------------------------------------------------
static bool accumulate(sweep *w, mica_array *a, mica_array *g) {
    if (!g) return !mica_scope_failed(w->s);
    if (g->dtype != a->dtype || !mica_same_shape(g, a)) {
        mica_scope_fail(w->s, MICA_ERR_INTERNAL, mica_op_table[a->op].name, "its gradient has another shape or dtype");
        return false;
    }
    mica_array **sum = &w->grad[a->id];
    *sum = *sum ? mica_add(w->s, *sum, g) : g;
    return *sum != NULL;
}

static bool apply_rule(sweep *w, mica_array *node, mica_array *g) {
    mica_array *grads[MICA_KERNEL_INPUTS] = {NULL};
    const mica_op_info *info = &mica_op_table[node->op];
    if (node->op == MICA_OP_leaf || node->op == MICA_OP_checkpoint || node->op == MICA_OP_stop_gradient) return true;
    bool any = false;
    for (int i = 0; i < node->n_in; i++) {
        if (!node->in[i]) continue;
        node->in[i]->needs_grad = w->needs[node->in[i]->id];
        any |= node->in[i]->needs_grad;
    }
    if (!any) return true; // a wanted array that depends on no other
    if (!info->vjp) return mica_op_fail(w->s, node, "has no gradient");
    if (!info->vjp(w->s, node, g, grads)) return false;
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i] && w->needs[node->in[i]->id] && !accumulate(w, node->in[i], grads[i])) return false;
    return true;
}

static bool sweep_region(sweep *w, const mica_region *r);

// Nodes first … end-1, last first.
static bool sweep_nodes(sweep *w, size_t first, size_t end) {
    for (size_t id = end; id-- > first;) {
        mica_array *node = mica_scope_node(w->s, (uint32_t)id);
        const mica_region *r = node->region;
        if (r && node == r->views[r->n_outputs - 1] && !sweep_region(w, r)) return false;
        if (w->grad[id] && w->needs[id] && !apply_rule(w, node, w->grad[id])) return false;
    }
    return true;
}

// All users of the region's outputs come after its last view, so the cotangents of all outputs are complete.
static bool sweep_region(sweep *w, const mica_region *r) {
    mica_scope *s = w->s;
    bool any = false;
    for (size_t j = 0; j < r->n_outputs; j++) any |= w->grad[r->views[j]->id] && w->needs[r->views[j]->id];
    if (!any) return true;
    mica_array **again = mica_scope_alloc(s, r->n_outputs * sizeof(mica_array *));
    size_t first = mica_scope_count(s);
    if (!again) return false;
    if (!r->f(s, r->ctx, r->inputs, r->n_inputs, again, r->n_outputs)) return fail(s, "checkpoint", "the function failed when called again");
    if (!mica_inputs(s, MICA_OP_checkpoint, again, (int)r->n_outputs, 0)) return false;
    size_t end = mica_scope_count(s);
    if (!sweep_grow(w, end)) return false;
    mark(w, first, end);
    for (size_t j = 0; j < r->n_outputs; j++) {
        const mica_array *view = r->views[j];
        if (!w->grad[view->id] || !w->needs[again[j]->id]) continue;
        if (!accumulate(w, again[j], w->grad[view->id])) return false;
    }
    return sweep_nodes(w, first, end);
}

// ---- vjp ---------------------------------------------------------------------------------------------------------
// Imports n arrays into a fresh list; NULL after failing the scope.
static mica_array **import_all(mica_scope *s, const char *what, mica_array *const *arrays, size_t n, bool floats) {
    mica_array **local = mica_scope_alloc(s, (n + 1) * sizeof(mica_array *));
    for (size_t i = 0; local && i < n; i++) {
        if (!arrays[i]) return mica_scope_fail(s, MICA_ERR_ARGUMENT, what, "array %zu is NULL", i), NULL;
        if (!(local[i] = mica_scope_import(s, arrays[i]))) return NULL;
        if (floats && !mica_dtype_is_float(local[i]->dtype)) {
            mica_scope_fail(s, MICA_ERR_ARGUMENT, what, "array %zu is %s, not floats", i, mica_dtype_name(local[i]->dtype));
            return NULL;
        }
    }
    return local;
}

static bool check_cotangents(mica_scope *s, const char *what, mica_array *const *arrays, mica_array *const *cotangents, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (arrays[i]->dtype != cotangents[i]->dtype || !mica_same_shape(arrays[i], cotangents[i])) {
            mica_scope_fail(s, MICA_ERR_ARGUMENT, what, "tangent %zu is not of the shape and dtype of its array", i);
            return false;
        }
    return true;
}

static bool run_sweep(sweep *w, mica_array *const *outputs, mica_array *const *cotangents, size_t n_outputs, mica_array *const *inputs,
                      size_t n_inputs, mica_array **gradients) {
    size_t end = mica_scope_count(w->s);
    if (!sweep_grow(w, end)) return false;
    for (size_t i = 0; i < n_inputs; i++) w->needs[inputs[i]->id] = 1;
    mark(w, 0, end);
    for (size_t i = 0; i < n_outputs; i++)
        if (!accumulate(w, outputs[i], cotangents[i])) return false;
    if (!sweep_nodes(w, 0, end)) return false;
    for (size_t i = 0; i < n_inputs; i++) {
        mica_array *g = w->grad[inputs[i]->id];
        if (!(gradients[i] = g ? g : mica_full_like(w->s, inputs[i], 0))) return false;
    }
    return true;
}

bool mica_vjp(mica_scope *s, mica_array *const *outputs, mica_array *const *cotangents, size_t n_outputs, mica_array *const *inputs,
              size_t n_inputs, mica_array **gradients) {
    memset(gradients, 0, n_inputs * sizeof *gradients);
    mica_array **out = import_all(s, "vjp", outputs, n_outputs, true);
    mica_array **cot = out ? import_all(s, "vjp", cotangents, n_outputs, true) : NULL;
    mica_array **in = cot ? import_all(s, "vjp", inputs, n_inputs, true) : NULL;
    if (!in || !check_cotangents(s, "vjp", out, cot, n_outputs)) return false;
    sweep w = {.s = s};
    bool ok = run_sweep(&w, out, cot, n_outputs, in, n_inputs, gradients);
    mica_free(w.grad);
    mica_free(w.needs);
    return ok && !mica_scope_failed(s);
}

// ---- built on it ---------------------------------------------------------------------------------------------------
static bool scalar_vjp(mica_scope *s, const char *what, mica_array *loss, mica_array *const *inputs, size_t n, mica_array **gradients) {
    mica_array **local = import_all(s, what, &loss, 1, true);
    if (!local) return false;
    if (mica_node_size(*local) != 1) {
        mica_scope_fail(s, MICA_ERR_ARGUMENT, what, "the loss has %lld elements, not one", (long long)mica_node_size(*local));
        return false;
    }
    mica_array *one = mica_full_like(s, *local, 1);
    return one && mica_vjp(s, local, &one, 1, inputs, n, gradients);
}

bool mica_grad(mica_scope *s, mica_array *loss, mica_array *const *inputs, size_t n_inputs, mica_array **gradients) {
    return scalar_vjp(s, "grad", loss, inputs, n_inputs, gradients);
}

bool mica_value_and_grad(mica_scope *s, mica_function *f, void *ctx, mica_array *const *inputs, size_t n_inputs, mica_array **outputs,
                         size_t n_outputs, const size_t *argnums, size_t n_gradients, mica_array **gradients) {
    static const char what[] = "value_and_grad";
    if (mica_scope_failed(s)) return false;
    if (!n_outputs) return fail(s, what, "no outputs");
    mica_array **wanted = mica_scope_alloc(s, (n_gradients + 1) * sizeof(mica_array *));
    for (size_t i = 0; wanted && i < n_gradients; i++) {
        size_t at = argnums ? argnums[i] : i;
        if (at >= n_inputs) {
            mica_scope_fail(s, MICA_ERR_ARGUMENT, what, "argument %zu of %zu", at, n_inputs);
            return false;
        }
        wanted[i] = inputs[at];
    }
    if (!wanted) return false;
    if (!f(s, ctx, inputs, n_inputs, outputs, n_outputs)) return fail(s, what, "the function failed");
    return scalar_vjp(s, what, outputs[0], wanted, n_gradients, gradients);
}

// With u a cotangent of the outputs, the vjp is u -> Jᵀ u, linear in u; its own vjp with cotangent t is J t. The value of u is
// of no account.
bool mica_jvp(mica_scope *s, mica_array *const *outputs, size_t n_outputs, mica_array *const *inputs, mica_array *const *tangents,
              size_t n_inputs, mica_array **tangents_out) {
    mica_array **out = import_all(s, "jvp", outputs, n_outputs, true);
    mica_array **in = out ? import_all(s, "jvp", inputs, n_inputs, true) : NULL;
    mica_array **t = in ? import_all(s, "jvp", tangents, n_inputs, true) : NULL;
    if (!t || !check_cotangents(s, "jvp", in, t, n_inputs)) return false;
    mica_array **u = mica_scope_alloc(s, (n_outputs + 1) * sizeof(mica_array *));
    mica_array **back = mica_scope_alloc(s, (n_inputs + 1) * sizeof(mica_array *));
    if (!u || !back) return false;
    for (size_t j = 0; j < n_outputs; j++)
        if (!(u[j] = mica_full_like(s, out[j], 0))) return false;
    return mica_vjp(s, out, u, n_outputs, in, n_inputs, back) && mica_vjp(s, back, t, n_inputs, u, n_outputs, tangents_out);
}

bool mica_checkpoint(mica_scope *s, mica_function *f, void *ctx, mica_array *const *inputs, size_t n_inputs, mica_array **outputs,
                     size_t n_outputs) {
    mica_array **in = import_all(s, "checkpoint", inputs, n_inputs, false);
    mica_region *r = in ? mica_scope_alloc(s, sizeof *r) : NULL;
    mica_array **inner = r ? mica_scope_alloc(s, (n_outputs + 1) * sizeof(mica_array *)) : NULL;
    mica_array **views = inner ? mica_scope_alloc(s, (n_outputs + 1) * sizeof(mica_array *)) : NULL;
    if (!views) return false;
    *r = (mica_region){f, ctx, in, views, n_inputs, n_outputs};
    if (!f(s, ctx, in, n_inputs, inner, n_outputs)) return fail(s, "checkpoint", "the function failed");
    if (!mica_inputs(s, MICA_OP_checkpoint, inner, (int)n_outputs, 0)) return false;
    for (size_t j = 0; j < n_outputs; j++) {
        const mica_array *o = inner[j];
        views[j] = mica_record_view(s, MICA_OP_checkpoint, inner[j], o->ndim, o->shape, o->stride, o->offset, NULL);
        if (!views[j]) return false;
        views[j]->region = r;
        outputs[j] = views[j];
    }
    return true;
}
