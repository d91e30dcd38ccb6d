// SPDX-License-Identifier: Apache-2.0
// Statements. Scopes are Jinja's: for, macro, call, with, filter and set blocks have one of their own, `if` has none; a loop's is
// emptied for each item; a macro sees the scope that it was defined in.
#include "text/template_eval.h"
#include <string.h>

// ---- assignment ------------------------------------------------------------------------------------------------
static bool assign(mica_trun *r, mica_tscope *scope, const mica_tnode *target, const mica_tval *v);

static bool unpack(mica_trun *r, mica_tscope *scope, const mica_tnode *target, const mica_tval *v) {
    mica_tval *items;
    size_t count, i = 0;
    if (!mica_t_is_iterable(v)) return mica_t_fail(r, "cannot unpack non-iterable %s object", mica_t_type(v));
    if (!mica_t_items(r, v, &items, &count)) return false;
    if (count < target->count) return mica_t_fail(r, "not enough values to unpack (expected %zu, got %zu)", target->count, count);
    if (count > target->count) return mica_t_fail(r, "too many values to unpack (expected %zu)", target->count);
    for (const mica_tnode *t = target->list; t; t = t->next)
        if (!assign(r, scope, t, &items[i++])) return false;
    return true;
}

static bool assign_attribute(mica_trun *r, const mica_tnode *target, const mica_tval *v) {
    const mica_tnode name = {.kind = MICA_N_NAME, .symbol = target->symbol, .name = target->name, .line = target->line};
    mica_tval space;
    if (!mica_t_eval(r, &name, &space)) return false;
    if (space.kind != MICA_T_NAMESPACE) return mica_t_fail(r, "cannot assign attribute on non-namespace object");
    if (target->name->size && target->name->data[0] == '_')
        return mica_t_fail(r, "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '%.*s'. Please rename the attribute.",
                           (int)target->name->size, target->name->data);
    return mica_t_put(r, space.dict, mica_t_string(target->name), *v);
}

static bool assign(mica_trun *r, mica_tscope *scope, const mica_tnode *target, const mica_tval *v) {
    if (target->kind == MICA_N_NAME) return mica_t_define(r, scope, target->symbol, *v);
    if (target->kind == MICA_N_NSREF) return assign_attribute(r, target, v);
    bool ok = mica_t_enter(r) && unpack(r, scope, target, v);
    mica_t_leave(r);
    return ok;
}

// ---- capturing what a body puts out ---------------------------------------------------------------------------
/** Runs a body in a scope with its output going to a string. */
static mica_tflow capture(mica_trun *r, mica_tscope *scope, const mica_tnode *body, mica_tval *out) {
    mica_tbuf b = {.r = r}, *outer = r->out;
    mica_tscope *before = r->scope;
    r->out = &b, r->scope = scope;
    mica_tflow flow = scope ? mica_t_exec(r, body) : MICA_T_FAILED;
    r->out = outer, r->scope = before;
    return flow != MICA_T_FAILED && mica_tbuf_end(&b, out) ? flow : MICA_T_FAILED;
}

static mica_tflow in_scope(mica_trun *r, mica_tscope *scope, const mica_tnode *body) {
    mica_tscope *before = r->scope;
    if (!scope) return MICA_T_FAILED;
    r->scope = scope;
    mica_tflow flow = mica_t_exec(r, body);
    r->scope = before;
    return flow;
}

// ---- loops ------------------------------------------------------------------------------------------------------
/** The items that the loop's own `if` lets through. */
static bool filter_items(mica_trun *r, const mica_tnode *n, mica_tscope *scope, mica_tval **items, size_t *count) {
    mica_tlist *kept = mica_t_list(r, 0);
    mica_tscope *before = r->scope, *inner = mica_t_scope(r, scope);
    bool ok = kept && inner;
    for (size_t i = 0; ok && i < *count; i++) {
        mica_tval test;
        inner->count = 0;
        r->scope = inner;
        ok = assign(r, inner, n->a, &(*items)[i]) && mica_t_eval(r, n->c, &test);
        r->scope = before;
        if (ok && mica_t_true(r, &test)) ok = mica_t_push(r, kept, (*items)[i]);
    }
    if (ok) *items = kept->items, *count = kept->count;
    return ok;
}

static mica_tflow run_loop(mica_trun *r, mica_tloop *loop) {
    const mica_tnode *n = loop->node;
    mica_tscope *scope = mica_t_scope(r, loop->scope);
    bool nothing = true; // went through the body to its end
    if (!scope) return MICA_T_FAILED;
    for (loop->index = 0; loop->index < loop->count; loop->index++) {
        scope->count = 0;
        r->line = n->line;
        if (!mica_t_define(r, scope, ((const struct mica_template *)r->template)->loop, (mica_tval){.kind = MICA_T_LOOP, .loop = loop}) ||
            !assign(r, scope, n->a, &loop->items[loop->index]))
            return MICA_T_FAILED;
        mica_tflow flow = in_scope(r, scope, n->list);
        if (flow == MICA_T_FAILED) return flow;
        if (flow == MICA_T_BREAK) break;
        if (flow == MICA_T_NEXT) nothing = false;
    }
    return nothing && n->d ? in_scope(r, mica_t_scope(r, loop->scope), n->d) : MICA_T_NEXT;
}

static mica_tflow loop_over(mica_trun *r, const mica_tnode *n, mica_tscope *scope, const mica_tval *v, int64_t depth0) {
    mica_tloop *loop = mica_t_alloc(r, sizeof *loop);
    if (!loop) return MICA_T_FAILED;
    *loop = (mica_tloop){.node = n, .scope = scope, .depth0 = depth0, .changed = mica_t_missing()};
    if (!mica_t_items(r, v, &loop->items, &loop->count)) return MICA_T_FAILED;
    if (n->c && !filter_items(r, n, scope, &loop->items, &loop->count)) return MICA_T_FAILED;
    return run_loop(r, loop);
}

/** loop(items) of a recursive loop: the body once more, for other items; its text is the value. */
bool mica_t_call_loop(mica_trun *r, const mica_tval *callee, const mica_targs *args, mica_tval *out) {
    const mica_tloop *loop = callee->loop;
    mica_tval items;
    if (!loop->node->flag) return mica_t_fail(r, "The loop must have the 'recursive' marker to be called recursively.");
    if (!mica_t_bind(r, args, "loop", "iterable", &items)) return false;
    if (items.kind == MICA_T_MISSING) return mica_t_fail(r, "LoopContext.__call__() missing 1 required positional argument: 'iterable'");
    mica_tbuf b = {.r = r}, *outer = r->out;
    r->out = &b;
    bool ok = mica_t_enter(r) && loop_over(r, loop->node, loop->scope, &items, loop->depth0 + 1) != MICA_T_FAILED;
    mica_t_leave(r);
    r->out = outer;
    return ok && mica_tbuf_end(&b, out);
}

static mica_tflow exec_for(mica_trun *r, const mica_tnode *n) {
    mica_tval v;
    if (!mica_t_eval(r, n->b, &v)) return MICA_T_FAILED;
    r->line = n->line;
    mica_tflow flow = loop_over(r, n, r->scope, &v, 0);
    return flow;
}

static mica_tflow exec_if(mica_trun *r, const mica_tnode *n) {
    for (;;) {
        mica_tval test;
        if (!mica_t_eval(r, n->a, &test)) return MICA_T_FAILED;
        if (mica_t_true(r, &test)) return mica_t_exec(r, n->list);
        if (!n->d || !(n->d->kind == MICA_N_IF && n->d->flag)) return mica_t_exec(r, n->d);
        n = n->d;
    }
}

// ---- macros -----------------------------------------------------------------------------------------------------
static bool same_name(const mica_tstr *a, const mica_tstr *b) { return a->size == b->size && !memcmp(a->data, b->data, a->size); }

/** The keyword argument of that name, marked as taken in `taken`. */
static const mica_tval *keyword(const mica_targs *args, const mica_tstr *name, bool *taken) {
    size_t first = args->count - args->name_count;
    for (size_t i = 0; i < args->name_count; i++)
        if (!taken[i] && same_name(args->names[i], name)) return taken[i] = true, &args->items[first + i];
    return NULL;
}

static bool bind_parameters(mica_trun *r, const mica_tnode *n, const mica_targs *args, mica_tscope *scope, bool *taken) {
    size_t given = args->count - args->name_count, i = 0;
    for (const mica_tnode *p = n->a; p; p = p->next, i++) {
        const mica_tval *v = i < given ? &args->items[i] : keyword(args, p->name, taken);
        mica_tval missing = mica_t_missing();
        if (!mica_t_define(r, scope, p->symbol, v ? *v : missing)) return false;
    }
    return true;
}

/** What is left over: into caller, kwargs and varargs if the body uses them, an error otherwise. */
static bool bind_rest(mica_trun *r, const mica_tnode *n, const mica_targs *args, mica_tscope *scope, bool *taken) {
    const struct mica_template *t = r->template;
    size_t given = args->count - args->name_count;
    int name_size = n->name ? (int)n->name->size : 9;
    const char *name = n->name ? n->name->data : "anonymous";
    if (n->uses & MICA_N_USES_CALLER) {
        const mica_tstr caller = {.data = "caller", .size = 6, .chars = 6};
        const mica_tval *v = keyword(args, &caller, taken);
        mica_tval none;
        if (!v && !mica_t_undefined_hint(r, "No caller defined", &none)) return false;
        if (!mica_t_define(r, scope, t->caller, v ? *v : none)) return false;
    }
    mica_tdict *rest = mica_t_dict(r);
    for (size_t i = 0; rest && i < args->name_count; i++)
        if (!taken[i] && !mica_t_put(r, rest, mica_t_string(args->names[i]), args->items[given + i])) return false;
    if (!rest) return false;
    if (n->uses & MICA_N_USES_KWARGS) {
        if (!mica_t_define(r, scope, t->kwargs, mica_t_of_dict(MICA_T_DICT, rest))) return false;
    } else if (rest->count) {
        const mica_tstr *first = rest->entries[0].key.s;
        return mica_t_fail(r, "macro '%.*s' takes no keyword argument '%.*s'", name_size, name, (int)first->size, first->data);
    }
    if (!(n->uses & MICA_N_USES_VARARGS)) {
        if (given > n->count) return mica_t_fail(r, "macro '%.*s' takes not more than %zu argument(s)", name_size, name, n->count);
        return true;
    }
    mica_tlist *more = mica_t_list(r, 0);
    for (size_t i = n->count; more && i < given; i++)
        if (!mica_t_push(r, more, args->items[i])) return false;
    return more && mica_t_define(r, scope, t->varargs, mica_t_of_list(MICA_T_TUPLE, more));
}

/** Defaults are evaluated at the call, from left to right, and may use the parameters before them. */
static bool fill_defaults(mica_trun *r, const mica_tnode *n, mica_tscope *scope) {
    mica_tscope *before = r->scope;
    bool ok = true;
    r->scope = scope;
    for (const mica_tnode *p = n->a; ok && p; p = p->next) {
        mica_tval v = mica_t_missing();
        for (size_t i = 0; i < scope->count; i++)
            if (scope->vars[i].symbol == p->symbol) v = scope->vars[i].value;
        if (v.kind != MICA_T_MISSING) continue;
        if (p->b) {
            ok = mica_t_eval(r, p->b, &v);
        } else {
            mica_tbuf b = {.r = r};
            const mica_tstr *hint = mica_tbuf_puts(&b, "parameter '") && mica_tbuf_str(&b, p->name) && mica_tbuf_add(&b, "' was not provided", 19, false)
                                        ? mica_tbuf_take(&b) : NULL;
            ok = hint && mica_t_undefined_hint(r, hint->data, &v);
        }
        ok = ok && mica_t_define(r, scope, p->symbol, v);
    }
    r->scope = before;
    return ok;
}

bool mica_t_call_macro(mica_trun *r, const mica_tval *callee, const mica_targs *args, mica_tval *out) {
    const mica_tnode *n = callee->macro->node;
    mica_tscope *scope = mica_t_scope(r, callee->macro->scope);
    bool *taken = scope ? mica_t_alloc(r, args->name_count + 1) : NULL;
    if (!taken) return false;
    memset(taken, 0, args->name_count + 1);
    bool ok = mica_t_enter(r) && bind_parameters(r, n, args, scope, taken) && bind_rest(r, n, args, scope, taken) && fill_defaults(r, n, scope) &&
              capture(r, scope, n->list, out) != MICA_T_FAILED;
    mica_t_leave(r);
    return ok;
}

static bool make_macro(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tmacro *m = mica_t_alloc(r, sizeof *m);
    if (!m) return false;
    *m = (mica_tmacro){n, r->scope};
    *out = (mica_tval){.kind = MICA_T_MACRO, .macro = m};
    return true;
}

static bool exec_call(mica_trun *r, const mica_tnode *n) {
    mica_tval caller, callee, text;
    mica_targs args = {0};
    if (!make_macro(r, n, &caller)) return false;
    if (!n->b) return mica_t_call_macro(r, &caller, &args, &text) && mica_t_str(r->out, &text); // generation
    if (!mica_t_eval(r, n->b->a, &callee) || !mica_t_eval_arguments(r, n->b, &caller, &args)) return false;
    r->line = n->line;
    return mica_t_call(r, &callee, &args, &text) && mica_t_str(r->out, &text);
}

// ---- the rest ----------------------------------------------------------------------------------------------------
static bool exec_output(mica_trun *r, const mica_tnode *n) {
    mica_tval v;
    for (const mica_tnode *c = n->list; c; c = c->next)
        if (!mica_t_eval(r, c, &v) || !mica_t_str(r->out, &v)) return false;
    return true;
}

static bool exec_set(mica_trun *r, const mica_tnode *n) {
    mica_tval v;
    if (!mica_t_eval(r, n->b, &v)) return false;
    r->line = n->line;
    return assign(r, r->scope, n->a, &v);
}

static mica_tflow exec_captured(mica_trun *r, const mica_tnode *n) {
    mica_tval text;
    mica_tflow flow = capture(r, mica_t_scope(r, r->scope), n->list, &text);
    if (flow != MICA_T_NEXT) return flow;
    if (n->b && !mica_t_eval_filters(r, n->b, text, &text)) return MICA_T_FAILED;
    if (n->kind == MICA_N_FILTER_BLOCK && text.kind != MICA_T_STRING)
        return mica_t_fail(r, "sequence item 0: expected str instance, %s found", mica_t_type(&text)), MICA_T_FAILED;
    bool ok = n->kind == MICA_N_SET_BLOCK ? assign(r, r->scope, n->a, &text) : mica_t_str(r->out, &text);
    return ok ? MICA_T_NEXT : MICA_T_FAILED;
}

static mica_tflow exec_with(mica_trun *r, const mica_tnode *n) {
    mica_tscope *scope = mica_t_scope(r, r->scope);
    const mica_tnode *value = n->b;
    for (const mica_tnode *target = n->a; scope && target; target = target->next, value = value->next) {
        mica_tval v;
        if (!mica_t_eval(r, value, &v) || !assign(r, scope, target, &v)) return MICA_T_FAILED;
    }
    return in_scope(r, scope, n->list);
}

static mica_tflow exec_one(mica_trun *r, const mica_tnode *n) {
    mica_tval v;
    bool ok = false;
    switch (n->kind) {
    case MICA_N_OUTPUT: ok = exec_output(r, n); break;
    case MICA_N_FOR: return exec_for(r, n);
    case MICA_N_IF: return exec_if(r, n);
    case MICA_N_SET: ok = exec_set(r, n); break;
    case MICA_N_SET_BLOCK:
    case MICA_N_FILTER_BLOCK: return exec_captured(r, n);
    case MICA_N_MACRO: ok = make_macro(r, n, &v) && mica_t_define(r, r->scope, n->symbol, v); break;
    case MICA_N_CALL_BLOCK: ok = exec_call(r, n); break;
    case MICA_N_WITH: return exec_with(r, n);
    case MICA_N_SCOPE: return in_scope(r, mica_t_scope(r, r->scope), n->list);
    case MICA_N_BREAK: return MICA_T_BREAK;
    case MICA_N_CONTINUE: return MICA_T_CONTINUE;
    case MICA_N_LOADS: ok = mica_t_fail(r, "no loader for this environment specified"); break;
    default: ok = mica_t_fail(r, "this is no statement"); break;
    }
    return ok ? MICA_T_NEXT : MICA_T_FAILED;
}

mica_tflow mica_t_exec(mica_trun *r, const mica_tnode *statements) {
    mica_tflow flow = MICA_T_NEXT;
    if (!mica_t_enter(r)) flow = MICA_T_FAILED;
    for (const mica_tnode *n = statements; n && flow == MICA_T_NEXT; n = n->next) {
        r->line = n->line;
        flow = mica_t_work(r, 1) ? exec_one(r, n) : MICA_T_FAILED;
    }
    mica_t_leave(r);
    return flow;
}
