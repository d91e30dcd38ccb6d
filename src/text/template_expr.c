// SPDX-License-Identifier: Apache-2.0
// Expressions of templates, by recursive descent with the levels of Jinja's grammar: condition, or, and, not, comparison, + and -, ~,
// * / // %, **, sign; then what follows a primary: . [] () | is.
#include "text/template_filters.h"
#include "text/template_parse.h"
#include <stdio.h>
#include <string.h>

// ---- tokens --------------------------------------------------------------------------------------------------
bool mica_t_syntax(mica_tparser *p, const char *fmt, ...) {
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    p->r->line = p->at->line;
    return mica_t_fail(p->r, "%s", text);
}

mica_tnode *mica_t_node(mica_tparser *p, mica_tnode_kind kind, uint32_t line) {
    mica_tnode *n = mica_t_alloc(p->r, sizeof *n);
    if (n) *n = (mica_tnode){.kind = kind, .line = line};
    return n;
}

bool mica_t_at_op(const mica_tparser *p, const char *op) { return p->at->kind == MICA_TOK_OPERATOR && !strcmp(p->at->op, op); }
bool mica_t_at_name(const mica_tparser *p, const char *name) { return p->at->kind == MICA_TOK_NAME && mica_t_is(&p->at->value, name); }
bool mica_t_skip_op(mica_tparser *p, const char *op) { return mica_t_at_op(p, op) && (p->at++, true); }
bool mica_t_skip_name(mica_tparser *p, const char *name) { return mica_t_at_name(p, name) && (p->at++, true); }

void mica_t_describe(const mica_ttoken *t, char *text, size_t size) {
    static const char *const names[] = {"end of template", "template data / text", "begin of print statement", "end of print statement",
                                        "begin of statement block", "end of statement block", "", "string", "number", ""};
    if (t->kind == MICA_TOK_OPERATOR) snprintf(text, size, "%s", t->op);
    else if (t->kind == MICA_TOK_NAME) snprintf(text, size, "%.*s", (int)MICA_MIN(t->value.s->size, (size_t)60), t->value.s->data);
    else snprintf(text, size, "%s", names[t->kind]);
}

static bool expected(mica_tparser *p, const char *what) {
    char got[80];
    mica_t_describe(p->at, got, sizeof got);
    return mica_t_syntax(p, "expected token '%s', got '%s'", what, got);
}

bool mica_t_expect_op(mica_tparser *p, const char *op) { return mica_t_skip_op(p, op) || expected(p, op); }
bool mica_t_expect_name(mica_tparser *p, const char *name) { return mica_t_skip_name(p, name) || expected(p, name); }

const mica_tstr *mica_t_any_name(mica_tparser *p) {
    if (p->at->kind == MICA_TOK_NAME) return (p->at++)->value.s;
    expected(p, "name");
    return NULL;
}

static bool deeper(mica_tparser *p) { return ++p->depth <= MICA_T_NESTING || mica_t_syntax(p, "expressions are nested too deeply"); }

static bool append(mica_tnode *parent, mica_tnode ***tail, mica_tnode *child) {
    if (!child) return false;
    **tail = child;
    *tail = &child->next;
    parent->count++;
    return true;
}

// ---- arguments ---------------------------------------------------------------------------------------------
static bool one_argument(mica_tparser *p, mica_tnode *n, mica_tnode ***tail, mica_tnode ***named_tail) {
    bool keyword = p->at->kind == MICA_TOK_NAME && p->at[1].kind == MICA_TOK_OPERATOR && !strcmp(p->at[1].op, "=");
    bool star = mica_t_at_op(p, "*"), star2 = mica_t_at_op(p, "**");
    bool fine = star ? !n->star && !n->star2 : star2 || keyword ? !n->star2 : !n->star && !n->star2 && !n->named;
    if (!fine) return mica_t_syntax(p, "invalid syntax for function call expression");
    if (star || star2) {
        p->at++;
        return (*(star ? &n->star : &n->star2) = mica_t_expression(p, true)) != NULL;
    }
    if (!keyword) return append(n, tail, mica_t_expression(p, true));
    mica_tnode *pair = mica_t_node(p, MICA_N_CONST, p->at->line);
    if (!pair) return false;
    pair->name = p->at->value.s;
    p->at += 2;
    **named_tail = pair;
    *named_tail = &pair->next;
    return (pair->a = mica_t_expression(p, true)) != NULL;
}

/** "(…)" into n's list, named, star and star2. */
static bool arguments(mica_tparser *p, mica_tnode *n) {
    mica_tnode **tail = &n->list, **named_tail = &n->named;
    if (!mica_t_expect_op(p, "(")) return false;
    for (bool first = true; !mica_t_at_op(p, ")"); first = false) {
        if (!first && !mica_t_expect_op(p, ",")) return false;
        if (!first && mica_t_at_op(p, ")")) break;
        if (!one_argument(p, n, &tail, &named_tail)) return false;
    }
    return mica_t_expect_op(p, ")");
}

// ---- primaries -----------------------------------------------------------------------------------------------
static mica_tnode *constant(mica_tparser *p, mica_tval v, uint32_t line) {
    mica_tnode *n = mica_t_node(p, MICA_N_CONST, line);
    if (n) n->value = v;
    return n;
}

static mica_tnode *name(mica_tparser *p, bool with_namespace) {
    const mica_ttoken *t = p->at++;
    const mica_tval *v = &t->value;
    if (mica_t_is(v, "true") || mica_t_is(v, "True")) return constant(p, mica_t_bool(true), t->line);
    if (mica_t_is(v, "false") || mica_t_is(v, "False")) return constant(p, mica_t_bool(false), t->line);
    if (mica_t_is(v, "none") || mica_t_is(v, "None")) return constant(p, mica_t_none(), t->line);
    bool attribute = with_namespace && mica_t_at_op(p, ".");
    mica_tnode *n = mica_t_node(p, attribute ? MICA_N_NSREF : MICA_N_NAME, t->line);
    if (!n || (n->symbol = mica_t_symbol(p->r, p->t, v->s)) == UINT32_MAX) return NULL;
    n->name = v->s;
    p->uses |= mica_t_is(v, "caller") ? MICA_N_USES_CALLER : mica_t_is(v, "kwargs") ? MICA_N_USES_KWARGS : mica_t_is(v, "varargs") ? MICA_N_USES_VARARGS : 0;
    if (!attribute) return n;
    p->at++;
    return (n->name = mica_t_any_name(p)) ? n : NULL;
}

static mica_tnode *strings(mica_tparser *p) {
    uint32_t line = p->at->line;
    if (p->at[1].kind != MICA_TOK_STRING) return constant(p, (p->at++)->value, line);
    mica_tbuf b = {.r = p->r};
    mica_tval all;
    while (p->at->kind == MICA_TOK_STRING)
        if (!mica_tbuf_str(&b, (p->at++)->value.s)) return NULL;
    return mica_tbuf_end(&b, &all) ? constant(p, all, line) : NULL;
}

/** "[a, b]"; "{a: b, c: d}" with keys and values by turns. */
static mica_tnode *display(mica_tparser *p, bool dict) {
    const char *end = dict ? "}" : "]";
    mica_tnode *n = mica_t_node(p, dict ? MICA_N_DICT : MICA_N_LIST, (p->at++)->line), **tail = n ? &n->list : NULL;
    for (bool first = true; n && !mica_t_at_op(p, end); first = false) {
        if (!first && !mica_t_expect_op(p, ",")) return NULL;
        if (!first && mica_t_at_op(p, end)) break;
        if (!append(n, &tail, mica_t_expression(p, true))) return NULL;
        if (dict && (!mica_t_expect_op(p, ":") || !append(n, &tail, mica_t_expression(p, true)))) return NULL;
    }
    return n && mica_t_expect_op(p, end) ? n : NULL;
}

static mica_tnode *primary(mica_tparser *p, bool with_namespace) {
    char got[80];
    if (p->at->kind == MICA_TOK_NAME) return name(p, with_namespace);
    if (p->at->kind == MICA_TOK_STRING) return strings(p);
    if (p->at->kind == MICA_TOK_NUMBER) return p->at++, constant(p, p->at[-1].value, p->at[-1].line);
    if (mica_t_at_op(p, "[") || mica_t_at_op(p, "{")) return display(p, mica_t_at_op(p, "{"));
    if (mica_t_skip_op(p, "(")) {
        mica_tnode *n = mica_t_tuple(p, true, NULL, true);
        return n && mica_t_expect_op(p, ")") ? n : NULL;
    }
    mica_t_describe(p->at, got, sizeof got);
    mica_t_syntax(p, "unexpected '%s'", got);
    return NULL;
}

// ---- what follows a primary ----------------------------------------------------------------------------------
static mica_tnode *over(mica_tparser *p, mica_tnode_kind kind, mica_tnode *a) {
    mica_tnode *n = mica_t_node(p, kind, p->at->line);
    if (n) n->a = a;
    return n;
}

static bool slice_ends(const mica_tparser *p) { return mica_t_at_op(p, "]") || mica_t_at_op(p, ","); }

/** An index, or a slice a:b:c with any of the three left out. */
static mica_tnode *subscript(mica_tparser *p) {
    mica_tnode *first = NULL;
    if (!mica_t_at_op(p, ":")) {
        if (!(first = mica_t_expression(p, true)) || !mica_t_at_op(p, ":")) return first;
    }
    mica_tnode *n = over(p, MICA_N_SLICE, first);
    p->at++;
    if (n && !mica_t_at_op(p, ":") && !slice_ends(p) && !(n->b = mica_t_expression(p, true))) return NULL;
    if (n && mica_t_skip_op(p, ":") && !slice_ends(p) && !(n->c = mica_t_expression(p, true))) return NULL;
    return n;
}

static mica_tnode *item(mica_tparser *p, mica_tnode *of) {
    mica_tnode *n = over(p, MICA_N_ITEM, of), *several = n ? mica_t_node(p, MICA_N_TUPLE, n->line) : NULL;
    mica_tnode **tail = several ? &several->list : NULL;
    p->at++;
    while (several && !mica_t_at_op(p, "]")) {
        if (several->count && !mica_t_expect_op(p, ",")) return NULL;
        if (!append(several, &tail, subscript(p))) return NULL;
    }
    if (!several || !mica_t_expect_op(p, "]")) return NULL;
    n->b = several->count == 1 ? several->list : several;
    return n;
}

static mica_tnode *dot(mica_tparser *p, mica_tnode *of) {
    mica_tnode *n = over(p, MICA_N_ATTRIBUTE, of);
    p->at++;
    if (!n) return NULL;
    if (p->at->kind == MICA_TOK_NAME) return n->name = (p->at++)->value.s, n;
    if (p->at->kind != MICA_TOK_NUMBER || p->at->value.kind != MICA_T_INT) return mica_t_syntax(p, "expected name or number"), NULL;
    n->kind = MICA_N_ITEM;
    n->b = constant(p, p->at->value, p->at->line);
    return p->at++, n->b ? n : NULL;
}

static mica_tnode *call(mica_tparser *p, mica_tnode *callee) {
    mica_tnode *n = over(p, MICA_N_CALL, callee);
    return n && arguments(p, n) ? n : NULL;
}

static mica_tnode *postfix(mica_tparser *p, mica_tnode *n) {
    while (n) {
        if (mica_t_at_op(p, ".")) n = dot(p, n);
        else if (mica_t_at_op(p, "[")) n = item(p, n);
        else if (mica_t_at_op(p, "(")) n = call(p, n);
        else break;
    }
    return n;
}

/** "name" or "name.name" of a filter or test. */
static const mica_tstr *dotted(mica_tparser *p) {
    const mica_tstr *first = mica_t_any_name(p);
    while (first && mica_t_skip_op(p, ".")) {
        const mica_tstr *next = mica_t_any_name(p);
        mica_tbuf b = {.r = p->r};
        first = next && mica_tbuf_str(&b, first) && mica_tbuf_puts(&b, ".") && mica_tbuf_str(&b, next) ? mica_tbuf_take(&b) : NULL;
    }
    return first;
}

mica_tnode *mica_t_filters(mica_tparser *p, mica_tnode *node, bool bare) {
    while (bare || mica_t_at_op(p, "|")) {
        if (!bare) p->at++;
        bare = false;
        mica_tnode *n = over(p, MICA_N_FILTER, node);
        if (!n || !(n->name = dotted(p))) return NULL;
        n->entry = mica_t_filter_named(n->name->data, n->name->size);
        if (mica_t_at_op(p, "(") && !arguments(p, n)) return NULL;
        node = n;
    }
    return node;
}

static bool starts_argument(const mica_tparser *p) {
    if (p->at->kind == MICA_TOK_NAME) return !mica_t_at_name(p, "else") && !mica_t_at_name(p, "or") && !mica_t_at_name(p, "and");
    return p->at->kind == MICA_TOK_STRING || p->at->kind == MICA_TOK_NUMBER || mica_t_at_op(p, "[") || mica_t_at_op(p, "{");
}

static mica_tnode *test(mica_tparser *p, mica_tnode *of) {
    mica_tnode *n = over(p, MICA_N_TEST, of);
    p->at++;
    bool negated = mica_t_skip_name(p, "not");
    if (!n || !(n->name = dotted(p))) return NULL;
    n->entry = mica_t_test_named(n->name->data, n->name->size);
    if (mica_t_at_op(p, "(")) {
        if (!arguments(p, n)) return NULL;
    } else if (starts_argument(p)) {
        if (mica_t_at_name(p, "is")) return mica_t_syntax(p, "You cannot chain multiple tests with is"), NULL;
        if (!(n->list = postfix(p, primary(p, false)))) return NULL;
        n->count = 1;
    }
    return negated ? over(p, MICA_N_NOT, n) : n;
}

static mica_tnode *filter_expression(mica_tparser *p, mica_tnode *n) {
    while (n) {
        if (mica_t_at_op(p, "|")) n = mica_t_filters(p, n, false);
        else if (mica_t_at_name(p, "is")) n = test(p, n);
        else if (mica_t_at_op(p, "(")) n = call(p, n);
        else break;
    }
    return n;
}

// ---- operators -----------------------------------------------------------------------------------------------
static mica_tnode *unary(mica_tparser *p, bool with_filter) {
    mica_tnode *n = NULL;
    bool minus = mica_t_at_op(p, "-");
    if (!deeper(p)) return NULL;
    if (minus || mica_t_at_op(p, "+")) {
        n = over(p, minus ? MICA_N_MINUS : MICA_N_PLUS, NULL);
        p->at++;
        if (n && !(n->a = unary(p, false))) n = NULL;
    } else {
        n = primary(p, false);
    }
    n = postfix(p, n);
    p->depth--;
    return with_filter ? filter_expression(p, n) : n;
}

static mica_tnode *binary(mica_tparser *p, mica_tnode *left, mica_tnode *(*operand)(mica_tparser *)) {
    mica_tnode *n = over(p, MICA_N_BINARY, left);
    if (n) memcpy(n->op, p->at->op, sizeof n->op);
    p->at++;
    return n && (n->b = operand(p)) ? n : NULL;
}

static mica_tnode *signed_one(mica_tparser *p) { return unary(p, true); }

static mica_tnode *power(mica_tparser *p) {
    mica_tnode *n = unary(p, true);
    while (n && mica_t_at_op(p, "**")) n = binary(p, n, signed_one);
    return n;
}

static mica_tnode *product(mica_tparser *p) {
    mica_tnode *n = power(p);
    while (n && (mica_t_at_op(p, "*") || mica_t_at_op(p, "/") || mica_t_at_op(p, "//") || mica_t_at_op(p, "%"))) n = binary(p, n, power);
    return n;
}

static mica_tnode *concatenation(mica_tparser *p) {
    mica_tnode *first = product(p);
    if (!first || !mica_t_at_op(p, "~")) return first;
    mica_tnode *n = over(p, MICA_N_CONCAT, NULL), **tail = n ? &n->list : NULL;
    if (!n || !append(n, &tail, first)) return NULL;
    while (mica_t_skip_op(p, "~"))
        if (!append(n, &tail, product(p))) return NULL;
    return n;
}

static mica_tnode *sum(mica_tparser *p) {
    mica_tnode *n = concatenation(p);
    while (n && (mica_t_at_op(p, "+") || mica_t_at_op(p, "-"))) n = binary(p, n, concatenation);
    return n;
}

/** The comparison at hand into op; false if there is none. */
static bool comparison(mica_tparser *p, char op[3]) {
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    for (size_t i = 0; i < MICA_COUNT(ops); i++)
        if (mica_t_skip_op(p, ops[i])) return snprintf(op, 3, "%s", ops[i]) > 0;
    if (mica_t_skip_name(p, "in")) return memcpy(op, "in", 3) != NULL;
    if (!mica_t_at_name(p, "not") || p->at[1].kind != MICA_TOK_NAME || !mica_t_is(&p->at[1].value, "in")) return false;
    p->at += 2;
    return memcpy(op, "ni", 3) != NULL;
}

static mica_tnode *compare(mica_tparser *p) {
    mica_tnode *first = sum(p), *n = NULL, **tail = NULL;
    char op[3];
    while (first && comparison(p, op)) {
        if (!n) {
            if (!(n = over(p, MICA_N_COMPARE, first))) return NULL;
            tail = &n->list;
        }
        mica_tnode *holder = over(p, MICA_N_CONST, NULL); // an operand and the sign before it
        if (!holder || !(holder->a = sum(p))) return NULL;
        memcpy(holder->op, op, sizeof holder->op);
        append(n, &tail, holder);
    }
    return n ? n : first;
}

static mica_tnode *negation(mica_tparser *p) {
    if (!mica_t_at_name(p, "not")) return compare(p);
    mica_tnode *n = over(p, MICA_N_NOT, NULL);
    p->at++;
    if (!n || !deeper(p)) return NULL;
    n->a = negation(p);
    p->depth--;
    return n->a ? n : NULL;
}

static mica_tnode *conjunction(mica_tparser *p) {
    mica_tnode *left = negation(p);
    while (left && mica_t_at_name(p, "and")) {
        mica_tnode *n = over(p, MICA_N_AND, left);
        p->at++;
        left = n && (n->b = negation(p)) ? n : NULL;
    }
    return left;
}

static mica_tnode *disjunction(mica_tparser *p) {
    mica_tnode *left = conjunction(p);
    while (left && mica_t_at_name(p, "or")) {
        mica_tnode *n = over(p, MICA_N_OR, left);
        p->at++;
        left = n && (n->b = conjunction(p)) ? n : NULL;
    }
    return left;
}

mica_tnode *mica_t_expression(mica_tparser *p, bool with_condition) {
    if (!deeper(p)) return NULL;
    mica_tnode *then = disjunction(p);
    while (then && with_condition && mica_t_at_name(p, "if")) {
        mica_tnode *n = over(p, MICA_N_CONDITION, NULL);
        p->at++;
        if (!n || !(n->a = disjunction(p))) return NULL;
        if (mica_t_skip_name(p, "else") && !(n->c = mica_t_expression(p, true))) return NULL;
        n->b = then;
        then = n;
    }
    p->depth--;
    return then;
}

static bool tuple_ends(const mica_tparser *p, const char *until) {
    return p->at->kind == MICA_TOK_VARIABLE_END || p->at->kind == MICA_TOK_BLOCK_END || mica_t_at_op(p, ")") || (until && mica_t_at_name(p, until));
}

/** Parts with commas: a tuple; without: the one part. part is what to parse, simple: targets only. */
static mica_tnode *tuple_of(mica_tparser *p, bool simple, bool with_condition, const char *until, bool in_parentheses, bool with_namespace) {
    mica_tnode *n = mica_t_node(p, MICA_N_TUPLE, p->at->line), **tail = n ? &n->list : NULL;
    bool comma = false;
    while (n && !tuple_ends(p, until)) {
        if (!append(n, &tail, simple ? primary(p, with_namespace) : mica_t_expression(p, with_condition))) return NULL;
        if (!mica_t_skip_op(p, ",")) break;
        comma = true;
    }
    if (!n || comma || (!n->count && in_parentheses)) return n;
    if (n->count) return n->list;
    char got[80];
    mica_t_describe(p->at, got, sizeof got);
    mica_t_syntax(p, "Expected an expression, got '%s'", got);
    return NULL;
}

mica_tnode *mica_t_tuple(mica_tparser *p, bool with_condition, const char *until, bool in_parentheses) {
    return tuple_of(p, false, with_condition, until, in_parentheses, false);
}

static bool can_assign(const mica_tnode *n) {
    if (n->kind == MICA_N_NAME || n->kind == MICA_N_NSREF) return true;
    if (n->kind != MICA_N_TUPLE) return false;
    for (const mica_tnode *c = n->list; c; c = c->next)
        if (!can_assign(c)) return false;
    return true;
}

static bool assigns_loop(const mica_tparser *p, const mica_tnode *n) {
    if (n->kind == MICA_N_NAME) return n->symbol == p->t->loop;
    for (const mica_tnode *c = n->kind == MICA_N_TUPLE ? n->list : NULL; c; c = c->next)
        if (assigns_loop(p, c)) return true;
    return false;
}

mica_tnode *mica_t_target(mica_tparser *p, const char *until, bool with_namespace) {
    uint8_t uses = p->uses;
    mica_tnode *n = tuple_of(p, true, true, until, false, with_namespace);
    p->uses = uses; // storing is no use
    if (n && p->loops && assigns_loop(p, n)) return mica_t_syntax(p, "Can't assign to special loop variable in for-loop target"), NULL;
    if (n && !can_assign(n)) return mica_t_syntax(p, "can't assign to this expression"), NULL;
    return n;
}
