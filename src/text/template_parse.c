// SPDX-License-Identifier: Apache-2.0
// Statements of templates, and the check that every filter and test exists. As in Jinja, an unknown one inside of an `if` is an error
// only where it is reached; elsewhere the template is refused.
#include "text/template_parse.h"
#include <stdio.h>
#include <string.h>

uint32_t mica_t_symbol(mica_trun *r, struct mica_template *t, const mica_tstr *name) {
    uintptr_t found;
    if (mica_strmap_get(&t->symbols, name->data, name->size, &found)) return (uint32_t)found - 1;
    if (!mica_strmap_put(&t->symbols, name->data, name->size, t->symbol_count + 1))
        return mica_t_fail_code(r, MICA_ERR_NO_MEMORY, "out of memory: %zu bytes for a name", name->size), UINT32_MAX;
    return t->symbol_count++;
}

static bool statements(mica_tparser *p, const char *const *ends, mica_tnode **first);

/** "%}", statements, and the tag that ends them, whose name is left to the caller when there are several. */
static bool body(mica_tparser *p, const char *const *ends, mica_tnode **first) {
    mica_t_skip_op(p, ":");
    if (p->at->kind != MICA_TOK_BLOCK_END) {
        char got[80];
        mica_t_describe(p->at, got, sizeof got);
        return mica_t_syntax(p, "expected token 'end of statement block', got '%s'", got);
    }
    p->at++;
    if (++p->depth > MICA_T_NESTING) return mica_t_syntax(p, "statements are nested too deeply");
    bool ok = statements(p, ends, first);
    p->depth--;
    return ok;
}

static bool simple_body(mica_tparser *p, const char *end, mica_tnode **first) {
    const char *const ends[] = {end, NULL};
    return body(p, ends, first) && mica_t_expect_name(p, end);
}

static mica_tnode *for_parts(mica_tparser *p, mica_tnode *n) {
    static const char *const ends[] = {"endfor", "else", NULL};
    if (!(n->a = mica_t_target(p, "in", false)) || !mica_t_expect_name(p, "in")) return NULL;
    if (!(n->b = mica_t_tuple(p, false, "recursive", false))) return NULL;
    if (mica_t_skip_name(p, "if") && !(n->c = mica_t_expression(p, true))) return NULL;
    n->flag = mica_t_skip_name(p, "recursive");
    if (!body(p, ends, &n->list)) return NULL;
    if (mica_t_skip_name(p, "else")) return simple_body(p, "endfor", &n->d) ? n : NULL;
    return p->at++, n;
}

static mica_tnode *parse_for(mica_tparser *p, mica_tnode *n) {
    p->loops++;
    mica_tnode *done = for_parts(p, n);
    p->loops--;
    return done;
}

static mica_tnode *parse_if(mica_tparser *p, mica_tnode *n) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    for (mica_tnode *at = n;;) {
        if (!(at->a = mica_t_tuple(p, false, NULL, false)) || !body(p, ends, &at->list)) return NULL;
        if (mica_t_skip_name(p, "elif")) {
            if (!(at->d = mica_t_node(p, MICA_N_IF, p->at->line))) return NULL;
            at = at->d;
            at->flag = true; // an elif
        } else if (mica_t_skip_name(p, "else")) {
            return simple_body(p, "endif", &at->d) ? n : NULL;
        } else {
            return p->at++, n;
        }
    }
}

static mica_tnode *parse_set(mica_tparser *p, mica_tnode *n) {
    if (!(n->a = mica_t_target(p, NULL, true))) return NULL;
    if (mica_t_skip_op(p, "=")) return (n->b = mica_t_tuple(p, true, NULL, false)) ? n : NULL;
    n->kind = MICA_N_SET_BLOCK;
    if (mica_t_at_op(p, "|") && !(n->b = mica_t_filters(p, NULL, false))) return NULL;
    return simple_body(p, "endset", &n->list) ? n : NULL;
}

static mica_tnode *name_target(mica_tparser *p) {
    const mica_tstr *name = mica_t_any_name(p);
    mica_tnode *n = name ? mica_t_node(p, MICA_N_NAME, p->at->line) : NULL;
    if (!n || (n->symbol = mica_t_symbol(p->r, p->t, name)) == UINT32_MAX) return NULL;
    n->name = name;
    return n;
}

/** "(a, b=1)": names, with their defaults in b. */
static bool signature(mica_tparser *p, mica_tnode *n) {
    bool defaults = false;
    mica_tnode **tail = &n->a;
    if (!mica_t_expect_op(p, "(")) return false;
    while (!mica_t_at_op(p, ")")) {
        if (n->a && !mica_t_expect_op(p, ",")) return false;
        mica_tnode *parameter = name_target(p);
        if (!parameter) return false;
        if (mica_t_skip_op(p, "=")) {
            defaults = true;
            if (!(parameter->b = mica_t_expression(p, true))) return false;
        } else if (defaults) {
            return mica_t_syntax(p, "non-default argument follows default argument");
        }
        *tail = parameter;
        tail = &parameter->next;
        n->count++;
    }
    return mica_t_expect_op(p, ")");
}

/** Which of caller, kwargs and varargs the body uses, those that are parameters aside. */
static bool macro_body(mica_tparser *p, const char *end, mica_tnode *n) {
    uint8_t outer = p->uses;
    p->uses = 0;
    if (!simple_body(p, end, &n->list)) return false;
    n->uses = p->uses;
    for (mica_tnode *a = n->a; a; a = a->next) {
        uint8_t taken = a->symbol == p->t->caller ? MICA_N_USES_CALLER : a->symbol == p->t->kwargs ? MICA_N_USES_KWARGS
                      : a->symbol == p->t->varargs ? MICA_N_USES_VARARGS : 0;
        if (taken == MICA_N_USES_CALLER && n->uses & taken && !a->b)
            return mica_t_syntax(p, "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a default.");
        n->uses &= (uint8_t)~taken;
    }
    p->uses |= outer | n->uses;
    return true;
}

static mica_tnode *parse_macro(mica_tparser *p, mica_tnode *n) {
    mica_tnode *name = name_target(p);
    if (!name || !signature(p, n)) return NULL;
    n->symbol = name->symbol, n->name = name->name;
    return macro_body(p, "endmacro", n) ? n : NULL;
}

static mica_tnode *parse_call(mica_tparser *p, mica_tnode *n) {
    if (mica_t_at_op(p, "(") && !signature(p, n)) return NULL;
    if (!(n->b = mica_t_expression(p, true))) return NULL;
    if (n->b->kind != MICA_N_CALL) return mica_t_syntax(p, "expected call"), NULL;
    return macro_body(p, "endcall", n) ? n : NULL;
}

/** The `generation` tag of transformers: a call block whose function gives what it is given. */
static mica_tnode *parse_generation(mica_tparser *p, mica_tnode *n) { return macro_body(p, "endgeneration", n) ? n : NULL; }

static mica_tnode *parse_with(mica_tparser *p, mica_tnode *n) {
    mica_tnode **targets = &n->a, **values = &n->b;
    while (p->at->kind != MICA_TOK_BLOCK_END) {
        if (n->a && !mica_t_expect_op(p, ",")) return NULL;
        if (!(*targets = mica_t_target(p, NULL, false)) || !mica_t_expect_op(p, "=")) return NULL;
        if (!(*values = mica_t_expression(p, true))) return NULL;
        targets = &(*targets)->next, values = &(*values)->next;
    }
    return simple_body(p, "endwith", &n->list) ? n : NULL;
}

/** A block is rendered where it stands: nothing can extend a chat template. */
static mica_tnode *parse_block(mica_tparser *p, mica_tnode *n) {
    const mica_tstr *name = mica_t_any_name(p);
    if (!name) return NULL;
    mica_t_skip_name(p, "scoped");
    mica_t_skip_name(p, "required");
    if (!simple_body(p, "endblock", &n->list)) return NULL;
    if (p->at->kind == MICA_TOK_NAME && p->at->value.s->size == name->size && !memcmp(p->at->value.s->data, name->data, name->size)) p->at++;
    return n;
}

static mica_tnode *parse_autoescape(mica_tparser *p, mica_tnode *n) {
    if (!(n->a = mica_t_expression(p, true))) return NULL;
    if (n->a->kind != MICA_N_CONST || n->a->value.kind != MICA_T_BOOL || n->a->value.b)
        return mica_t_fail_code(p->r, MICA_ERR_UNSUPPORTED, "autoescape is not supported in chat templates"), NULL;
    return simple_body(p, "endautoescape", &n->list) ? n : NULL;
}

static mica_tnode *parse_print(mica_tparser *p, mica_tnode *n) {
    mica_tnode **tail = &n->list;
    while (p->at->kind != MICA_TOK_BLOCK_END) {
        if (n->list && !mica_t_expect_op(p, ",")) return NULL;
        if (!(*tail = mica_t_expression(p, true))) return NULL;
        tail = &(*tail)->next;
    }
    return n;
}

/** extends, include, import, from: another template is asked for, and there is none. */
static mica_tnode *parse_loads(mica_tparser *p, mica_tnode *n) {
    while (p->at->kind != MICA_TOK_BLOCK_END && p->at->kind != MICA_TOK_END) p->at++;
    return n;
}

static mica_tnode *parse_nothing(mica_tparser *p, mica_tnode *n) { return p->r->failed ? NULL : n; }

static mica_tnode *parse_filter(mica_tparser *p, mica_tnode *n) {
    return (n->b = mica_t_filters(p, NULL, true)) && simple_body(p, "endfilter", &n->list) ? n : NULL;
}

static const struct {
    const char *name;
    mica_tnode_kind kind;
    mica_tnode *(*parse)(mica_tparser *p, mica_tnode *n);
} tags[] = {
    {"for", MICA_N_FOR, parse_for}, {"if", MICA_N_IF, parse_if}, {"set", MICA_N_SET, parse_set}, {"macro", MICA_N_MACRO, parse_macro},
    {"call", MICA_N_CALL_BLOCK, parse_call}, {"filter", MICA_N_FILTER_BLOCK, parse_filter}, {"with", MICA_N_WITH, parse_with},
    {"generation", MICA_N_CALL_BLOCK, parse_generation}, {"break", MICA_N_BREAK, parse_nothing}, {"continue", MICA_N_CONTINUE, parse_nothing},
    {"print", MICA_N_OUTPUT, parse_print}, {"block", MICA_N_SCOPE, parse_block}, {"autoescape", MICA_N_SCOPE, parse_autoescape},
    {"extends", MICA_N_LOADS, parse_loads}, {"include", MICA_N_LOADS, parse_loads}, {"import", MICA_N_LOADS, parse_loads},
    {"from", MICA_N_LOADS, parse_loads},
};

static mica_tnode *statement(mica_tparser *p, const char *const *ends) {
    uint32_t line = p->at->line;
    if (p->at->kind != MICA_TOK_NAME) return mica_t_syntax(p, "tag name expected"), NULL;
    for (size_t i = 0; i < MICA_COUNT(tags); i++) {
        if (!mica_t_skip_name(p, tags[i].name)) continue;
        mica_tnode *n = mica_t_node(p, tags[i].kind, line);
        return n ? tags[i].parse(p, n) : NULL;
    }
    char got[80];
    mica_t_describe(p->at, got, sizeof got);
    if (ends) mica_t_syntax(p, "Encountered unknown tag '%s'. Jinja was looking for the following tags: '%s'%s%s%s.", got, ends[0],
                            ends[1] ? " or '" : "", ends[1] ? ends[1] : "", ends[1] ? "'" : "");
    else mica_t_syntax(p, "Encountered unknown tag '%s'.", got);
    return NULL;
}

static bool at_one_of(const mica_tparser *p, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (mica_t_at_name(p, *ends)) return true;
    return false;
}

/** Text and {{…}} in a row as one output. */
static mica_tnode *output(mica_tparser *p) {
    mica_tnode *n = mica_t_node(p, MICA_N_OUTPUT, p->at->line), **tail = n ? &n->list : NULL;
    while (n && (p->at->kind == MICA_TOK_DATA || p->at->kind == MICA_TOK_VARIABLE_BEGIN)) {
        bool data = p->at->kind == MICA_TOK_DATA;
        const mica_ttoken *t = p->at++;
        if (data) {
            if ((*tail = mica_t_node(p, MICA_N_CONST, t->line))) (*tail)->value = t->value;
        } else {
            *tail = mica_t_tuple(p, true, NULL, false);
        }
        if (!*tail) return NULL;
        tail = &(*tail)->next;
        if (data || p->at->kind == MICA_TOK_VARIABLE_END) p->at += !data;
        else {
            char got[80];
            mica_t_describe(p->at, got, sizeof got);
            return mica_t_syntax(p, "expected token 'end of print statement', got '%s'", got), NULL;
        }
    }
    return n;
}

/** Up to a tag named in ends (which is then at hand), or to the end of the template if that is NULL. */
static bool statements(mica_tparser *p, const char *const *ends, mica_tnode **first) {
    mica_tnode **tail = first;
    while (p->at->kind != MICA_TOK_END) {
        mica_tnode *n;
        if (p->at->kind == MICA_TOK_BLOCK_BEGIN) {
            p->at++;
            if (at_one_of(p, ends)) return true;
            if (!(n = statement(p, ends))) return false;
            if (p->at->kind != MICA_TOK_BLOCK_END) {
                char got[80];
                mica_t_describe(p->at, got, sizeof got);
                return mica_t_syntax(p, "expected token 'end of statement block', got '%s'", got);
            }
            p->at++;
        } else if (!(n = output(p))) {
            return false;
        }
        *tail = n;
        while (*tail) tail = &(*tail)->next;
    }
    if (!ends) return true;
    return mica_t_syntax(p, "Unexpected end of template. Jinja was looking for the following tags: '%s'.", ends[0]);
}

// ---- checking -------------------------------------------------------------------------------------------------
static bool check_all(mica_trun *r, const mica_tnode *n, bool soft, bool in_loop);

static bool check_here(mica_trun *r, const mica_tnode *n, bool soft, bool in_loop) {
    r->line = n->line;
    if ((n->kind == MICA_N_FILTER || n->kind == MICA_N_TEST) && !n->entry && !soft)
        return mica_t_fail(r, "No %s named '%.*s'.", n->kind == MICA_N_FILTER ? "filter" : "test", (int)n->name->size, n->name->data);
    if (n->kind == MICA_N_BREAK && !in_loop) return mica_t_fail(r, "'break' outside loop");
    return (n->kind != MICA_N_CONTINUE || in_loop) || mica_t_fail(r, "'continue' not properly in loop");
}

/** n and what lies below it. Chains to the left and of elifs may be long, and are walked without recursion. */
static bool check(mica_trun *r, const mica_tnode *n, bool soft, bool in_loop) {
    for (const mica_tnode *then; n; n = then) {
        if (!check_here(r, n, soft, in_loop)) return false;
        bool branch = n->kind == MICA_N_IF, many = n->kind == MICA_N_MACRO || n->kind == MICA_N_CALL_BLOCK || n->kind == MICA_N_WITH;
        bool fresh = many || n->kind == MICA_N_FOR || n->kind == MICA_N_FILTER_BLOCK || n->kind == MICA_N_SET_BLOCK || n->kind == MICA_N_SCOPE;
        bool loop = n->kind == MICA_N_FOR || (in_loop && n->kind != MICA_N_MACRO && n->kind != MICA_N_CALL_BLOCK);
        soft |= branch || n->kind == MICA_N_CONDITION;
        if (!check_all(r, n->list, soft && !fresh, loop) || !check_all(r, n->named, soft, in_loop) || !check_all(r, n->b, soft, in_loop) ||
            !check(r, n->c, soft, in_loop) || !check(r, n->star, soft, in_loop) || !check(r, n->star2, soft, in_loop))
            return false;
        then = n->a;
        if (branch && n->d && n->d->flag && n->d->kind == MICA_N_IF) { // an elif
            if (!check(r, n->a, soft, in_loop)) return false;
            then = n->d;
        } else if (!check_all(r, n->d, soft && !fresh, in_loop)) {
            return false;
        }
        if (many) return check_all(r, n->a, soft, in_loop);
    }
    return true;
}

static bool check_all(mica_trun *r, const mica_tnode *n, bool soft, bool in_loop) {
    for (; n; n = n->next)
        if (!check(r, n, soft, in_loop)) return false;
    return true;
}

bool mica_t_parse(mica_trun *r, struct mica_template *t, const mica_ttokens *tokens) {
    static const char *const special[] = {"loop", "caller", "kwargs", "varargs"};
    uint32_t *numbers[] = {&t->loop, &t->caller, &t->kwargs, &t->varargs};
    mica_tparser p = {.r = r, .t = t, .at = tokens->items};
    for (size_t i = 0; i < MICA_COUNT(special); i++) {
        const mica_tstr *name = mica_t_text(r, special[i], strlen(special[i]), false);
        if (!name || (*numbers[i] = mica_t_symbol(r, t, name)) == UINT32_MAX) return false;
    }
    return statements(&p, NULL, &t->body) && check_all(r, t->body, false, false);
}
