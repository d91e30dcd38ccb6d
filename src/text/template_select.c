// SPDX-License-Identifier: Apache-2.0
// Filters that apply others: map, select, reject, selectattr, rejectattr; and the tests. Python's versions are generators; these do their
// work at once and give an iterator over the result, which a template cannot tell apart except by when an error comes.
#include "text/template_select.h"
#include "text/template_filters.h"
#include "text/template_unicode.h"
#include <math.h>
#include <string.h>

// ---- paths ---------------------------------------------------------------------------------------------------------
static bool all_digits(const mica_tstr *s) {
    for (size_t i = 0; i < s->size; i++)
        if (s->data[i] < '0' || s->data[i] > '9') return false;
    return s->size > 0 && s->size < 18;
}

bool mica_t_path(mica_trun *r, const mica_tval *attribute, mica_tpath *path) {
    *path = (mica_tpath){.otherwise = mica_t_missing()};
    if (attribute->kind == MICA_T_MISSING || attribute->kind == MICA_T_NONE) return true;
    bool text = attribute->kind == MICA_T_STRING;
    size_t parts = 1;
    for (size_t i = 0; text && i < attribute->s->size; i++) parts += attribute->s->data[i] == '.';
    if (!(path->parts = mica_t_alloc(r, parts * sizeof *path->parts))) return false;
    path->count = parts;
    if (!text) return path->parts[0] = *attribute, true;
    for (size_t i = 0, from = 0; i < parts; i++) {
        size_t to = from;
        while (to < attribute->s->size && attribute->s->data[to] != '.') to++;
        if (!mica_t_part(r, attribute->s, from, to, &path->parts[i])) return false;
        const mica_tstr *part = path->parts[i].s;
        if (all_digits(part)) {
            int64_t v = 0;
            for (size_t k = 0; k < part->size; k++) v = v * 10 + (part->data[k] - '0');
            path->parts[i] = mica_t_int(v);
        }
        from = to + 1;
    }
    return true;
}

bool mica_t_follow(mica_trun *r, const mica_tpath *path, const mica_tval *item, mica_tval *out) {
    *out = *item;
    for (size_t i = 0; i < path->count; i++) {
        mica_tval of = *out;
        if (!mica_t_item(r, &of, &path->parts[i], out)) return false;
        if (out->kind == MICA_T_UNDEFINED && path->otherwise.kind != MICA_T_MISSING) *out = path->otherwise;
    }
    return true;
}

bool mica_t_fold(mica_trun *r, const mica_tval *v, mica_tval *out) {
    mica_targs none = {0};
    const mica_tfilter *lower = mica_t_filter_named("lower", 5);
    if (v->kind != MICA_T_STRING) return *out = *v, true;
    return lower->call(r, v, &none, out);
}

// ---- map -----------------------------------------------------------------------------------------------------------
static const mica_tval *named(const mica_targs *args, const char *name) {
    for (size_t i = 0; i < args->name_count; i++)
        if (args->names[i]->size == strlen(name) && !memcmp(args->names[i]->data, name, strlen(name))) return &args->items[args->count - args->name_count + i];
    return NULL;
}

/** args without the first n. */
static mica_targs rest(const mica_targs *args, size_t n) { return (mica_targs){args->items + n, args->count - n, args->names, args->name_count}; }

static bool lookup(mica_trun *r, const mica_tval *name, bool test, const mica_tfilter **out) {
    if (name->kind == MICA_T_STRING) *out = test ? mica_t_test_named(name->s->data, name->s->size) : mica_t_filter_named(name->s->data, name->s->size);
    else *out = NULL;
    if (*out) return true;
    mica_tbuf b = {.r = r};
    if (!mica_t_repr(&b, name)) return false;
    return mica_t_fail(r, "No %s named %.*s.", test ? "test" : "filter", (int)MICA_MIN(b.size, (size_t)100), b.data);
}

static bool map_attribute(mica_trun *r, const mica_tval *items, size_t count, const mica_targs *args, mica_tlist *l) {
    const mica_tval *otherwise = named(args, "default");
    mica_tpath path;
    for (size_t i = 0; i < args->name_count; i++)
        if (&args->items[i] != named(args, "attribute") && &args->items[i] != otherwise)
            return mica_t_fail(r, "Unexpected keyword argument '%.*s'", (int)args->names[i]->size, args->names[i]->data);
    if (!mica_t_path(r, named(args, "attribute"), &path)) return false;
    if (otherwise && otherwise->kind != MICA_T_NONE) path.otherwise = *otherwise;
    for (size_t i = 0; i < count; i++) {
        mica_tval v;
        if (!mica_t_follow(r, &path, &items[i], &v) || !mica_t_push(r, l, v)) return false;
    }
    return true;
}

static bool map_filter(mica_trun *r, const mica_tval *items, size_t count, const mica_targs *args, mica_tlist *l) {
    const mica_tfilter *f;
    if (args->count == args->name_count) return mica_t_fail(r, "map requires a filter argument");
    if (count && !lookup(r, &args->items[0], false, &f)) return false;
    mica_targs others = rest(args, 1);
    for (size_t i = 0; i < count; i++) {
        mica_tval v;
        if (!f->call(r, &items[i], &others, &v) || !mica_t_push(r, l, v)) return false;
    }
    return true;
}

static bool f_map(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items = NULL;
    size_t count = 0;
    mica_tlist *l = mica_t_list(r, 4);
    if (!l) return false;
    *out = mica_t_of_list(MICA_T_ITER, l);
    if (!mica_t_true(r, v)) return true;
    bool ok = mica_t_enter(r) && mica_t_items(r, v, &items, &count);
    bool attribute = args->count == args->name_count && named(args, "attribute");
    ok = ok && (attribute ? map_attribute(r, items, count, args, l) : map_filter(r, items, count, args, l));
    mica_t_leave(r);
    return ok || mica_t_put_off(r, l);
}

// ---- select and reject -----------------------------------------------------------------------------------------------
static bool passes(mica_trun *r, const mica_tfilter *test, const mica_tval *v, const mica_targs *args, bool *yes) {
    mica_tval result;
    if (!test) return *yes = mica_t_true(r, v), true;
    if (!test->call(r, v, args, &result)) return false;
    return *yes = mica_t_true(r, &result), true;
}

static bool select_into(mica_trun *r, const mica_tval *v, const mica_targs *args, bool wanted, bool by_attribute, mica_tlist *l) {
    mica_tval *items;
    size_t count, used = by_attribute;
    const mica_tfilter *test = NULL;
    mica_tpath path = {.otherwise = mica_t_missing()};
    size_t given = args->count - args->name_count;
    if (by_attribute && !given) return mica_t_fail(r, "Missing parameter for attribute name");
    if (by_attribute && !mica_t_path(r, &args->items[0], &path)) return false;
    if (!mica_t_items(r, v, &items, &count)) return false;
    if (given > used && count && !lookup(r, &args->items[used++], true, &test)) return false;
    mica_targs others = rest(args, MICA_MIN(used, args->count));
    for (size_t i = 0; i < count; i++) {
        mica_tval asked;
        bool yes = false;
        if (!mica_t_follow(r, &path, &items[i], &asked) || !passes(r, test, &asked, &others, &yes)) return false;
        if (yes == wanted && !mica_t_push(r, l, items[i])) return false;
    }
    return true;
}

static bool select_if(mica_trun *r, const mica_tval *v, const mica_targs *args, bool wanted, bool by_attribute, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, 4);
    if (!l) return false;
    *out = mica_t_of_list(MICA_T_ITER, l);
    return !mica_t_true(r, v) || select_into(r, v, args, wanted, by_attribute, l) || mica_t_put_off(r, l);
}

static bool f_select(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return select_if(r, v, args, true, false, out); }
static bool f_reject(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return select_if(r, v, args, false, false, out); }
static bool f_selectattr(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return select_if(r, v, args, true, true, out); }
static bool f_rejectattr(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return select_if(r, v, args, false, true, out); }

const mica_tfilter mica_t_filters_select[] = {{"map", f_map}, {"select", f_select}, {"reject", f_reject}, {"selectattr", f_selectattr},
                                              {"rejectattr", f_rejectattr}, {NULL, NULL}};

// ---- tests -----------------------------------------------------------------------------------------------------------
static bool answer(mica_trun *r, const mica_targs *args, bool yes, mica_tval *out) {
    if (args->count) return mica_t_fail(r, "the test takes 1 positional argument but %zu were given", args->count + 1);
    return *out = mica_t_bool(yes), true;
}

#define TEST(name, condition)                                                                                      \
    static bool name(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return answer(r, args, condition, out); }
TEST(t_defined, v->kind != MICA_T_UNDEFINED)
TEST(t_undefined, v->kind == MICA_T_UNDEFINED)
TEST(t_none, v->kind == MICA_T_NONE)
TEST(t_boolean, v->kind == MICA_T_BOOL)
TEST(t_false, v->kind == MICA_T_BOOL && !v->b)
TEST(t_true, v->kind == MICA_T_BOOL && v->b)
TEST(t_integer, v->kind == MICA_T_INT)
TEST(t_float, v->kind == MICA_T_FLOAT)
TEST(t_number, mica_t_is_number(v))
TEST(t_string, v->kind == MICA_T_STRING)
TEST(t_mapping, v->kind == MICA_T_DICT)
TEST(t_iterable, mica_t_is_iterable(v))
TEST(t_escaped, v->kind == MICA_T_STRING && v->s->safe)
TEST(t_callable, (v->kind >= MICA_T_MACRO && v->kind != MICA_T_CYCLER) || v->kind == MICA_T_UNDEFINED)
// len() and []: what test_sequence asks for.
TEST(t_sequence, v->kind == MICA_T_STRING || v->kind == MICA_T_LIST || v->kind == MICA_T_TUPLE || v->kind == MICA_T_DICT || v->kind == MICA_T_RANGE ||
                     v->kind == MICA_T_UNDEFINED)

static bool is_case(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *method, mica_tval *out) {
    const mica_tstr *s;
    if (!mica_t_soft(r, v, &s)) return false;
    mica_tval text = mica_t_string(s);
    for (const mica_tmethod_row *row = mica_t_string_methods2; row->name; row++)
        if (!strcmp(row->name, method)) return row->call(r, &text, args, out);
    return false;
}

static bool t_lower(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return is_case(r, v, args, "islower", out); }
static bool t_upper(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return is_case(r, v, args, "isupper", out); }

static bool one_argument(mica_trun *r, const mica_targs *args, const char *what) {
    return args->count == 1 || mica_t_fail(r, "the test %s takes 1 argument but %zu were given", what, args->count);
}

static bool remainder_is(mica_trun *r, const mica_tval *v, const mica_tval *by, int64_t wanted, mica_tval *out) {
    mica_tval left, want = mica_t_int(wanted);
    bool equal;
    if (!mica_t_binary(r, "%", v, by, &left) || !mica_t_equal(r, &left, &want, &equal)) return false;
    return *out = mica_t_bool(equal), true;
}

static bool t_divisibleby(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    return one_argument(r, args, "divisibleby") && remainder_is(r, v, &args->items[0], 0, out);
}
static bool t_even(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval two = mica_t_int(2);
    return answer(r, args, true, out) && remainder_is(r, v, &two, 0, out);
}
static bool t_odd(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval two = mica_t_int(2);
    return answer(r, args, true, out) && remainder_is(r, v, &two, 1, out);
}

static bool compared(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *op, mica_tval *out) {
    bool yes;
    if (!one_argument(r, args, op) || !mica_t_compare(r, op, v, &args->items[0], &yes)) return false;
    return *out = mica_t_bool(yes), true;
}

static bool t_eq(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return compared(r, v, args, "==", out); }
static bool t_ne(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return compared(r, v, args, "!=", out); }
static bool t_lt(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return compared(r, v, args, "<", out); }
static bool t_le(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return compared(r, v, args, "<=", out); }
static bool t_gt(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return compared(r, v, args, ">", out); }
static bool t_ge(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return compared(r, v, args, ">=", out); }
static bool t_in(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return compared(r, v, args, "in", out); }

static bool t_sameas(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    if (!one_argument(r, args, "sameas")) return false;
    const mica_tval *o = &args->items[0];
    bool same = v->kind == o->kind;
    if (same && v->kind == MICA_T_FLOAT) same = v->f == o->f;
    else if (same && v->kind == MICA_T_STRING) return compared(r, v, args, "==", out);
    else if (same && v->kind != MICA_T_NONE) same = v->kind == MICA_T_BOOL ? v->b == o->b : v->i == o->i;
    return *out = mica_t_bool(same), true;
}

static bool t_filter(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    return answer(r, args, v->kind == MICA_T_STRING && mica_t_filter_named(v->s->data, v->s->size), out);
}
static bool t_test(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    return answer(r, args, v->kind == MICA_T_STRING && mica_t_test_named(v->s->data, v->s->size), out);
}

const mica_tfilter mica_t_tests[] = {
    {"defined", t_defined}, {"undefined", t_undefined}, {"none", t_none}, {"boolean", t_boolean}, {"false", t_false}, {"true", t_true},
    {"integer", t_integer}, {"float", t_float}, {"number", t_number}, {"string", t_string}, {"mapping", t_mapping}, {"iterable", t_iterable},
    {"escaped", t_escaped}, {"callable", t_callable}, {"sequence", t_sequence}, {"lower", t_lower}, {"upper", t_upper},
    {"divisibleby", t_divisibleby}, {"even", t_even}, {"odd", t_odd}, {"eq", t_eq}, {"==", t_eq}, {"equalto", t_eq}, {"ne", t_ne}, {"!=", t_ne},
    {"lt", t_lt}, {"<", t_lt}, {"lessthan", t_lt}, {"le", t_le}, {"<=", t_le}, {"gt", t_gt}, {">", t_gt}, {"greaterthan", t_gt}, {"ge", t_ge},
    {">=", t_ge}, {"in", t_in}, {"sameas", t_sameas}, {"filter", t_filter}, {"test", t_test}, {NULL, NULL}};
