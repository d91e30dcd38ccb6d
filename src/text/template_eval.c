// SPDX-License-Identifier: Apache-2.0
// Expressions: a walk over the tree. Names are looked for in the scopes outwards, then among the variables given, then among the global
// functions; what is nowhere is undefined, which is a value.
#include "text/template_eval.h"
#include <stdio.h>
#include <string.h>

// ---- scopes ----------------------------------------------------------------------------------------------------
mica_tscope *mica_t_scope(mica_trun *r, mica_tscope *parent) {
    mica_tscope *s = mica_t_alloc(r, sizeof *s);
    if (s) *s = (mica_tscope){.parent = parent};
    return s;
}

bool mica_t_define(mica_trun *r, mica_tscope *s, uint32_t symbol, mica_tval v) {
    for (size_t i = 0; i < s->count; i++)
        if (s->vars[i].symbol == symbol) return s->vars[i].value = v, true;
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 4;
        struct mica_tvar *vars = mica_t_alloc(r, capacity * sizeof *vars);
        if (!vars) return false;
        if (s->count) memcpy(vars, s->vars, s->count * sizeof *vars);
        s->vars = vars, s->capacity = capacity;
    }
    s->vars[s->count++] = (struct mica_tvar){symbol, v};
    return true;
}

static bool resolve(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    size_t looked = 0;
    for (const mica_tscope *s = r->scope; s; s = s->parent, looked += 2)
        for (size_t i = 0; i < s->count; i++, looked++)
            if (s->vars[i].symbol == n->symbol && s->vars[i].value.kind != MICA_T_MISSING) return *out = s->vars[i].value, mica_t_work(r, looked / 4);
    const mica_tval *given = mica_t_get_name(r->context, n->name->data, n->name->size);
    if (given) return *out = *given, mica_t_work(r, looked / 4);
    int64_t function = mica_t_function_named(n->name->data, n->name->size);
    if (function >= 0) return *out = (mica_tval){.kind = MICA_T_FUNCTION, .i = function}, true;
    return mica_t_work(r, looked / 4) && mica_t_undefined(r, NULL, mica_t_string(n->name), out);
}

// ---- calls -------------------------------------------------------------------------------------------------------
typedef struct gathered {
    mica_tlist *items;
    const mica_tstr **names;
    size_t name_count, name_capacity;
} gathered;

static bool add_named(mica_trun *r, gathered *g, const mica_tstr *name, mica_tval v) {
    for (size_t i = 0; i < g->name_count; i++)
        if (g->names[i]->size == name->size && !memcmp(g->names[i]->data, name->data, name->size))
            return mica_t_fail(r, "got multiple values for keyword argument '%.*s'", (int)name->size, name->data);
    if (g->name_count == g->name_capacity) {
        size_t capacity = g->name_capacity * 2 + 4;
        const mica_tstr **names = mica_t_alloc(r, capacity * sizeof *names);
        if (!names) return false;
        if (g->name_count) memcpy(names, g->names, g->name_count * sizeof *names);
        g->names = names, g->name_capacity = capacity;
    }
    g->names[g->name_count++] = name;
    return mica_t_push(r, g->items, v);
}

static bool spread(mica_trun *r, const mica_tnode *star, mica_tlist *to) {
    mica_tval all, *items;
    size_t count;
    if (!mica_t_eval(r, star, &all) || !mica_t_items(r, &all, &items, &count)) return false;
    for (size_t i = 0; i < count; i++)
        if (!mica_t_push(r, to, items[i])) return false;
    return true;
}

static bool spread_named(mica_trun *r, const mica_tnode *star2, gathered *g) {
    mica_tval all;
    if (!mica_t_eval(r, star2, &all)) return false;
    if (all.kind != MICA_T_DICT) return mica_t_fail(r, "argument after ** must be a mapping, not %s", mica_t_type(&all));
    for (size_t i = 0; i < all.dict->count; i++) {
        const mica_tentry *e = &all.dict->entries[i];
        if (e->key.kind != MICA_T_STRING) return mica_t_fail(r, "keywords must be strings");
        if (!add_named(r, g, e->key.s, e->value)) return false;
    }
    return true;
}

bool mica_t_eval_arguments(mica_trun *r, const mica_tnode *n, const mica_tval *extra, mica_targs *out) {
    gathered g = {.items = mica_t_list(r, n->count + 1)};
    mica_tval v;
    if (!g.items) return false;
    for (const mica_tnode *a = n->list; a; a = a->next)
        if (!mica_t_eval(r, a, &v) || !mica_t_push(r, g.items, v)) return false;
    if (n->star && !spread(r, n->star, g.items)) return false;
    for (const mica_tnode *a = n->named; a; a = a->next)
        if (!mica_t_eval(r, a->a, &v) || !add_named(r, &g, a->name, v)) return false;
    if (n->star2 && !spread_named(r, n->star2, &g)) return false;
    if (extra) {
        const mica_tstr *name = mica_t_text(r, "caller", 6, false);
        if (!name || !add_named(r, &g, name, *extra)) return false;
    }
    *out = (mica_targs){g.items->items, g.items->count, g.names, g.name_count};
    return true;
}

bool mica_t_call(mica_trun *r, const mica_tval *callee, const mica_targs *args, mica_tval *out) {
    mica_trun *run = r;
    switch (callee->kind) {
    case MICA_T_UNDEFINED: return mica_t_fail_undefined(run, callee);
    case MICA_T_MACRO: return mica_t_call_macro(run, callee, args, out);
    case MICA_T_FUNCTION: return mica_t_call_function(run, callee->i, args, out);
    case MICA_T_METHOD: return callee->method->call(run, &callee->method->object, args, out);
    case MICA_T_LOOP: return mica_t_call_loop(run, callee, args, out);
    case MICA_T_JOINER:
        if (args->count) return mica_t_fail(r, "Joiner.__call__() takes 1 positional argument but %zu were given", args->count + 1);
        if (callee->joiner->used) return *out = callee->joiner->separator, true;
        return callee->joiner->used = true, mica_t_puts(r, "", out);
    default: return mica_t_fail(r, "'%s' object is not callable", mica_t_type(callee));
    }
}

static bool eval_call(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval callee;
    mica_targs args;
    if (!mica_t_eval(r, n->a, &callee) || !mica_t_eval_arguments(r, n, NULL, &args)) return false;
    r->line = n->line;
    return mica_t_work(r, 1 + args.count) && mica_t_call(r, &callee, &args, out);
}

/** A filter or test, applied to v. */
static bool apply(mica_trun *r, const mica_tnode *n, const mica_tval *v, mica_tval *out) {
    mica_targs args;
    const mica_tfilter *f = n->entry;
    if (!mica_t_eval_arguments(r, n, NULL, &args)) return false;
    r->line = n->line;
    if (f) return mica_t_work(r, 1) && f->call(r, v, &args, out);
    return mica_t_fail(r, "No %s named '%.*s' found.", n->kind == MICA_N_FILTER ? "filter" : "test", (int)n->name->size, n->name->data);
}

bool mica_t_eval_filters(mica_trun *r, const mica_tnode *n, mica_tval v, mica_tval *out) {
    bool ok = mica_t_enter(r);
    if (ok && n->a) ok = mica_t_eval_filters(r, n->a, v, &v);
    ok = ok && apply(r, n, &v, out);
    mica_t_leave(r);
    return ok;
}

static bool eval_applied(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval v;
    return mica_t_eval(r, n->a, &v) && apply(r, n, &v, out);
}

// ---- displays -----------------------------------------------------------------------------------------------------
static bool eval_list(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, n->count);
    mica_tval v;
    if (!l) return false;
    for (const mica_tnode *c = n->list; c; c = c->next)
        if (!mica_t_eval(r, c, &v) || !mica_t_push(r, l, v)) return false;
    *out = mica_t_of_list(n->kind == MICA_N_LIST ? MICA_T_LIST : MICA_T_TUPLE, l);
    return true;
}

static bool eval_dict(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tdict *d = mica_t_dict(r);
    mica_tval key, v;
    if (!d) return false;
    for (const mica_tnode *c = n->list; c; c = c->next->next)
        if (!mica_t_eval(r, c, &key) || !mica_t_eval(r, c->next, &v) || !mica_t_put(r, d, key, v)) return false;
    *out = mica_t_of_dict(MICA_T_DICT, d);
    return true;
}

static bool eval_concat(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tbuf b = {.r = r};
    mica_tval v;
    for (const mica_tnode *c = n->list; c; c = c->next)
        if (!mica_t_eval(r, c, &v) || !mica_t_str(&b, &v)) return false;
    return mica_tbuf_end(&b, out);
}

static bool eval_slice(mica_trun *r, const mica_tnode *n, const mica_tval *of, mica_tval *out) {
    mica_tval bounds[3] = {mica_t_none(), mica_t_none(), mica_t_none()};
    const mica_tnode *parts[3] = {n->a, n->b, n->c};
    for (int i = 0; i < 3; i++)
        if (parts[i] && !mica_t_eval(r, parts[i], &bounds[i])) return false;
    r->line = n->line;
    return mica_t_slice(r, of, bounds, out);
}

static bool eval_item(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval of, key;
    if (!mica_t_eval(r, n->a, &of)) return false;
    if (n->b->kind == MICA_N_SLICE) return eval_slice(r, n->b, &of, out);
    if (!mica_t_eval(r, n->b, &key)) return false;
    r->line = n->line;
    return mica_t_item(r, &of, &key, out);
}

static bool eval_attribute(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval of;
    if (!mica_t_eval(r, n->a, &of)) return false;
    r->line = n->line;
    return mica_t_attribute(r, &of, n->name, out);
}

// ---- operators -------------------------------------------------------------------------------------------------------
static bool eval_compare(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval left, right;
    bool yes = true;
    if (!mica_t_eval(r, n->a, &left)) return false;
    for (const mica_tnode *c = n->list; c && yes; c = c->next, left = right) {
        if (!mica_t_eval(r, c->a, &right)) return false;
        r->line = n->line;
        if (!mica_t_compare(r, c->op, &left, &right, &yes)) return false;
    }
    *out = mica_t_bool(yes);
    return true;
}

static bool eval_binary(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval a, b;
    if (!mica_t_eval(r, n->a, &a) || !mica_t_eval(r, n->b, &b)) return false;
    r->line = n->line;
    return mica_t_binary(r, n->op, &a, &b, out);
}

static bool eval_logic(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    if (!mica_t_eval(r, n->a, out)) return false;
    if (mica_t_true(r, out) == (n->kind == MICA_N_OR)) return true;
    return mica_t_eval(r, n->b, out);
}

static bool eval_condition(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval test;
    char text[120];
    if (!mica_t_eval(r, n->a, &test)) return false;
    if (mica_t_true(r, &test)) return mica_t_eval(r, n->b, out);
    if (n->c) return mica_t_eval(r, n->c, out);
    snprintf(text, sizeof text, "the inline if-expression on line %u evaluated to false and no else section was defined.", (unsigned)n->line);
    const mica_tstr *hint = mica_t_text(r, text, strlen(text) + 1, false);
    return hint && mica_t_undefined_hint(r, hint->data, out);
}

static bool eval_one(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    mica_tval v;
    switch (n->kind) {
    case MICA_N_CONST: return *out = n->value, true;
    case MICA_N_NAME: return resolve(r, n, out);
    case MICA_N_TUPLE:
    case MICA_N_LIST: return eval_list(r, n, out);
    case MICA_N_DICT: return eval_dict(r, n, out);
    case MICA_N_ATTRIBUTE: return eval_attribute(r, n, out);
    case MICA_N_ITEM: return eval_item(r, n, out);
    case MICA_N_CALL: return eval_call(r, n, out);
    case MICA_N_FILTER:
    case MICA_N_TEST: return eval_applied(r, n, out);
    case MICA_N_NOT: return mica_t_eval(r, n->a, &v) && (*out = mica_t_bool(!mica_t_true(r, &v)), true);
    case MICA_N_MINUS:
    case MICA_N_PLUS: return mica_t_eval(r, n->a, &v) && mica_t_sign(r, &v, n->kind == MICA_N_MINUS, out);
    case MICA_N_AND:
    case MICA_N_OR: return eval_logic(r, n, out);
    case MICA_N_CONDITION: return eval_condition(r, n, out);
    case MICA_N_COMPARE: return eval_compare(r, n, out);
    case MICA_N_BINARY: return eval_binary(r, n, out);
    case MICA_N_CONCAT: return eval_concat(r, n, out);
    case MICA_N_SLICE: return mica_t_fail(r, "a slice among several subscripts is not supported");
    default: return mica_t_fail(r, "this cannot be evaluated");
    }
}

bool mica_t_eval(mica_trun *r, const mica_tnode *n, mica_tval *out) {
    r->line = n->line;
    bool ok = mica_t_enter(r) && mica_t_work(r, 1) && eval_one(r, n, out);
    mica_t_leave(r);
    return ok;
}
