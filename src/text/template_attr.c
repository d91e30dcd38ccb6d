// SPDX-License-Identifier: Apache-2.0
// v.name, v[key] and v[a:b:c]. As in Jinja, a dot looks for a Python attribute first and an item second, brackets the other way round;
// what would change a list or a dict, or begins with an underscore, is out of bounds (the sandbox), which shows only when it is used.
#include "text/template_filters.h"
#include "text/template_parse.h"
#include <stdio.h>
#include <string.h>

static bool is_name(const mica_tstr *s, const char *name) { return s->size == strlen(name) && !memcmp(s->data, name, s->size); }

// ---- attributes that are values -----------------------------------------------------------------------------------
static bool loop_attribute(mica_trun *r, const mica_tloop *l, const mica_tstr *name, mica_tval *out) {
    int64_t index = (int64_t)l->index, count = (int64_t)l->count;
    if (is_name(name, "index")) *out = mica_t_int(index + 1);
    else if (is_name(name, "index0")) *out = mica_t_int(index);
    else if (is_name(name, "first")) *out = mica_t_bool(index == 0);
    else if (is_name(name, "last")) *out = mica_t_bool(index + 1 >= count);
    else if (is_name(name, "length")) *out = mica_t_int(count);
    else if (is_name(name, "revindex")) *out = mica_t_int(count - index);
    else if (is_name(name, "revindex0")) *out = mica_t_int(count - index - 1);
    else if (is_name(name, "depth")) *out = mica_t_int(l->depth0 + 1);
    else if (is_name(name, "depth0")) *out = mica_t_int(l->depth0);
    else if (is_name(name, "previtem")) return index ? (*out = l->items[index - 1], true) : mica_t_undefined_hint(r, "there is no previous item", out);
    else if (is_name(name, "nextitem")) return index + 1 < count ? (*out = l->items[index + 1], true) : mica_t_undefined_hint(r, "there is no next item", out);
    return true;
}

static bool macro_attribute(mica_trun *r, const mica_tnode *n, const mica_tstr *name, mica_tval *out) {
    if (is_name(name, "name")) return *out = n->name ? mica_t_string(n->name) : mica_t_none(), true;
    if (is_name(name, "catch_kwargs")) *out = mica_t_bool(n->uses & MICA_N_USES_KWARGS);
    else if (is_name(name, "catch_varargs")) *out = mica_t_bool(n->uses & MICA_N_USES_VARARGS);
    else if (is_name(name, "caller")) *out = mica_t_bool(n->uses & MICA_N_USES_CALLER);
    if (!is_name(name, "arguments")) return true;
    mica_tlist *l = mica_t_list(r, n->count);
    for (const mica_tnode *p = n->a; l && p; p = p->next)
        if (!mica_t_push(r, l, mica_t_string(p->name))) return false;
    return l && (*out = mica_t_of_list(MICA_T_TUPLE, l), true);
}

static bool range_attribute(const mica_trange *range, const mica_tstr *name, mica_tval *out) {
    if (is_name(name, "start")) *out = mica_t_int(range->start);
    else if (is_name(name, "stop")) *out = mica_t_int(range->stop);
    else if (is_name(name, "step")) *out = mica_t_int(range->step);
    return true;
}

static bool number_attribute(const mica_tval *v, const mica_tstr *name, mica_tval *out) {
    if (is_name(name, "real")) *out = v->kind == MICA_T_BOOL ? mica_t_int(v->b) : *v;
    else if (is_name(name, "imag")) *out = v->kind == MICA_T_FLOAT ? mica_t_float(0) : mica_t_int(0);
    else if (is_name(name, "numerator") && v->kind != MICA_T_FLOAT) *out = mica_t_int(mica_t_whole(v));
    else if (is_name(name, "denominator") && v->kind != MICA_T_FLOAT) *out = mica_t_int(1);
    return true;
}

static bool plain_attribute(mica_trun *r, const mica_tval *v, const mica_tstr *name, mica_tval *out) {
    const mica_tval *found;
    switch (v->kind) {
    case MICA_T_LOOP: return loop_attribute(r, v->loop, name, out);
    case MICA_T_MACRO: return macro_attribute(r, v->macro->node, name, out);
    case MICA_T_RANGE: return range_attribute(v->range, name, out);
    case MICA_T_INT:
    case MICA_T_BOOL:
    case MICA_T_FLOAT: return number_attribute(v, name, out);
    case MICA_T_NAMESPACE: return (found = mica_t_get_name(v->dict, name->data, name->size)) ? (*out = *found, true) : true;
    case MICA_T_TUPLE:
        if (v->list->group && is_name(name, "grouper")) *out = v->list->items[0];
        if (v->list->group && is_name(name, "list")) *out = v->list->items[1];
        return true;
    case MICA_T_CYCLER:
        if (is_name(name, "current")) *out = v->list->items[v->list->taken];
        return true;
    default: return true;
    }
}

// ---- methods of what is no string -----------------------------------------------------------------------------------
static bool view(mica_trun *r, const mica_tval *v, const mica_targs *args, char part, mica_tval *out) {
    if (args->count) return mica_t_fail(r, "dict.%s() takes no arguments (%zu given)", part == 'k' ? "keys" : part == 'v' ? "values" : "items", args->count);
    mica_tview *w = mica_t_alloc(r, sizeof *w);
    if (!w) return false;
    *w = (mica_tview){v->dict, part};
    *out = (mica_tval){.kind = MICA_T_VIEW, .view = w};
    return true;
}

static bool dict_keys(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return view(r, v, args, 'k', out); }
static bool dict_values(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return view(r, v, args, 'v', out); }
static bool dict_items(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return view(r, v, args, 'i', out); }

static bool dict_get(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    if (args->name_count) return mica_t_fail(r, "dict.get() takes no keyword arguments");
    if (!args->count || args->count > 2) return mica_t_fail(r, "get expected at %s %d argument%s, got %zu", args->count ? "most" : "least", args->count ? 2 : 1,
                                                           args->count ? "s" : "", args->count);
    const mica_tval *key = &args->items[0];
    if (key->kind == MICA_T_LIST || key->kind == MICA_T_DICT) return mica_t_fail(r, "unhashable type: '%s'", mica_t_type(key));
    const mica_tval *found = mica_t_get(r, v->dict, key);
    *out = found ? *found : args->count == 2 ? args->items[1] : mica_t_none();
    return !r->failed;
}

static bool dict_copy(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    (void)args, (void)r; // nothing can change it: it is its own copy
    return *out = *v, true;
}

static bool list_index(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items;
    size_t count;
    bool equal = false;
    if (!args->count || !mica_t_items(r, v, &items, &count)) return mica_t_fail(r, "index expected at least 1 argument, got 0");
    for (size_t i = 0; i < count; i++) {
        if (!mica_t_equal(r, &items[i], &args->items[0], &equal)) return false;
        if (equal) return *out = mica_t_int((int64_t)i), true;
    }
    mica_tbuf b = {.r = r};
    if (!mica_t_repr(&b, &args->items[0])) return false;
    return mica_t_fail(r, "%.*s is not in list", (int)MICA_MIN(b.size, (size_t)200), b.data);
}

static bool list_count(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items;
    size_t count;
    int64_t n = 0;
    bool equal = false;
    if (args->count != 1) return mica_t_fail(r, "count() takes exactly one argument (%zu given)", args->count);
    if (!mica_t_items(r, v, &items, &count)) return false;
    for (size_t i = 0; i < count; i++, n += equal)
        if (!mica_t_equal(r, &items[i], &args->items[0], &equal)) return false;
    return *out = mica_t_int(n), true;
}

static bool loop_cycle(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    if (!args->count) return mica_t_fail(r, "no items for cycling given");
    return *out = args->items[v->loop->index % args->count], true;
}

static bool loop_changed(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, args->count);
    bool equal = false;
    for (size_t i = 0; l && i < args->count; i++)
        if (!mica_t_push(r, l, args->items[i])) return false;
    if (!l) return false;
    mica_tval now = mica_t_of_list(MICA_T_TUPLE, l);
    if (v->loop->changed.kind != MICA_T_MISSING && !mica_t_equal(r, &v->loop->changed, &now, &equal)) return false;
    if (!equal) v->loop->changed = now;
    return *out = mica_t_bool(!equal), true;
}

static bool cycler_next(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    (void)r, (void)args;
    *out = v->list->items[v->list->taken];
    v->list->taken = (v->list->taken + 1) % v->list->count;
    return true;
}

static bool cycler_reset(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    (void)r, (void)args;
    v->list->taken = 0;
    return *out = mica_t_none(), true;
}

static bool float_is_integer(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    (void)r, (void)args;
    return *out = mica_t_bool(v->f < 9e15 && v->f > -9e15 ? (double)(int64_t)v->f == v->f : v->f - v->f == 0), true;
}

static bool int_bit_length(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    (void)r, (void)args;
    int64_t i = mica_t_whole(v), n = 0;
    for (uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i; u; u >>= 1) n++;
    return *out = mica_t_int(n), true;
}

static bool dict_fromkeys(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slots[2], *items;
    size_t count;
    (void)v;
    if (!mica_t_bind(r, args, "fromkeys", "iterable value", slots)) return false;
    mica_tdict *d = mica_t_dict(r);
    if (!d || !mica_t_items(r, &slots[0], &items, &count)) return false;
    for (size_t i = 0; i < count; i++)
        if (!mica_t_put(r, d, items[i], slots[1].kind == MICA_T_MISSING ? mica_t_none() : slots[1])) return false;
    return *out = mica_t_of_dict(MICA_T_DICT, d), true;
}

static const mica_tmethod_row dict_methods[] = {
    {"get", dict_get}, {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values}, {"copy", dict_copy}, {"fromkeys", dict_fromkeys},
    {"clear", NULL}, {"pop", NULL}, {"popitem", NULL}, {"setdefault", NULL}, {"update", NULL}, {NULL, NULL}};
static const mica_tmethod_row list_methods[] = {
    {"index", list_index}, {"count", list_count}, {"copy", dict_copy}, {"append", NULL}, {"clear", NULL}, {"pop", NULL}, {"reverse", NULL},
    {"insert", NULL}, {"sort", NULL}, {"extend", NULL}, {"remove", NULL}, {NULL, NULL}};
static const mica_tmethod_row tuple_methods[] = {{"index", list_index}, {"count", list_count}, {NULL, NULL}};
static const mica_tmethod_row loop_methods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}, {NULL, NULL}};
static const mica_tmethod_row cycler_methods[] = {{"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};
static const mica_tmethod_row float_methods[] = {{"is_integer", float_is_integer}, {NULL, NULL}};
static const mica_tmethod_row int_methods[] = {{"bit_length", int_bit_length}, {"conjugate", dict_copy}, {NULL, NULL}};

static const mica_tmethod_row *methods_of(const mica_tval *v) {
    switch (v->kind) {
    case MICA_T_STRING: return mica_t_string_methods;
    case MICA_T_DICT: return dict_methods;
    case MICA_T_LIST: return list_methods;
    case MICA_T_TUPLE:
    case MICA_T_RANGE: return tuple_methods;
    case MICA_T_LOOP: return loop_methods;
    case MICA_T_CYCLER: return cycler_methods;
    case MICA_T_FLOAT: return float_methods;
    case MICA_T_INT:
    case MICA_T_BOOL: return int_methods;
    default: return NULL;
    }
}

/** An undefined value that says, once it is used, why. */
static bool unsafe(mica_trun *r, const mica_tval *v, const mica_tstr *name, mica_tval *out) {
    char text[200];
    snprintf(text, sizeof text, "access to attribute '%.*s' of '%s' object is unsafe.", (int)MICA_MIN(name->size, (size_t)100), name->data, mica_t_type(v));
    const mica_tstr *hint = mica_t_text(r, text, strlen(text) + 1, false);
    return hint && mica_t_undefined_hint(r, hint->data, out);
}

static const mica_tmethod_row *find_method(const mica_tmethod_row *row, const mica_tstr *name) {
    for (; row && row->name; row++)
        if (is_name(name, row->name)) return row;
    return NULL;
}

bool mica_t_own_attribute(mica_trun *r, const mica_tval *v, const mica_tstr *name, mica_tval *out) {
    *out = mica_t_missing();
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    const mica_tmethod_row *row = find_method(methods_of(v), name);
    if (!row && v->kind == MICA_T_STRING) row = find_method(mica_t_string_methods2, name);
    if (!row) return plain_attribute(r, v, name, out);
    if (!row->call) return unsafe(r, v, name, out);
    mica_tmethod *m = mica_t_alloc(r, sizeof *m);
    if (!m) return false;
    *m = (mica_tmethod){*v, row->name, row->call};
    *out = (mica_tval){.kind = MICA_T_METHOD, .method = m};
    return true;
}

bool mica_t_attribute(mica_trun *r, const mica_tval *v, const mica_tstr *name, mica_tval *out) {
    if (!mica_t_own_attribute(r, v, name, out) || out->kind != MICA_T_MISSING) return !r->failed;
    if (v->kind == MICA_T_DICT) {
        const mica_tval *found = mica_t_get_name(v->dict, name->data, name->size);
        if (found) return *out = *found, mica_t_work(r, v->dict->count / 8);
    }
    return mica_t_undefined(r, v, mica_t_string(name), out);
}

// ---- items ------------------------------------------------------------------------------------------------------------
/** v[index] of a sequence: true with *out MISSING if it is out of range or v is none. */
static bool at_index(mica_trun *r, const mica_tval *v, int64_t index, mica_tval *out) {
    size_t length = 0;
    bool sequence = v->kind == MICA_T_STRING || v->kind == MICA_T_LIST || v->kind == MICA_T_TUPLE || v->kind == MICA_T_RANGE;
    if (!sequence || !mica_t_length(v, &length)) return true;
    int64_t n = (int64_t)length;
    if (index < 0) index += n;
    if (index < 0 || index >= n) return true;
    if (v->kind == MICA_T_RANGE) return *out = mica_t_int(v->range->start + index * v->range->step), true;
    if (v->kind != MICA_T_STRING) return *out = v->list->items[index], true;
    size_t from = mica_t_offset(v->s, (size_t)index), to = from + 1;
    while (to < v->s->size && ((unsigned char)v->s->data[to] & 0xC0) == 0x80) to++;
    return mica_t_work(r, v->s->chars == v->s->size ? 0 : from / 32) && mica_t_part(r, v->s, from, to, out);
}

bool mica_t_item(mica_trun *r, const mica_tval *v, const mica_tval *key, mica_tval *out) {
    *out = mica_t_missing();
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (v->kind == MICA_T_DICT) {
        const mica_tval *found = mica_t_get(r, v->dict, key);
        if (r->failed) return false;
        if (found) return *out = *found, true;
    } else if (mica_t_is_whole(key) && !at_index(r, v, mica_t_whole(key), out)) {
        return false;
    }
    if (out->kind != MICA_T_MISSING) return true;
    if (key->kind == MICA_T_STRING && (!mica_t_own_attribute(r, v, key->s, out) || out->kind != MICA_T_MISSING)) return !r->failed;
    return mica_t_undefined(r, v, *key, out);
}

// ---- slices -----------------------------------------------------------------------------------------------------------
/** A bound clamped as Python does; step: its sign matters. */
static int64_t clamp(int64_t v, int64_t n, int64_t step) {
    if (v < 0 && (v += n) < 0) return step < 0 ? -1 : 0;
    if (v >= n) return step < 0 ? n - 1 : n;
    return v;
}

static bool slice_string(mica_trun *r, const mica_tstr *s, int64_t start, int64_t stop, int64_t step, mica_tval *out) {
    if (step == 1) return mica_t_part(r, s, mica_t_offset(s, (size_t)start), mica_t_offset(s, (size_t)MICA_MAX(start, stop)), out);
    mica_tbuf b = {.r = r, .safe = s->safe};
    mica_tval all = mica_t_string(s), *items;
    size_t count;
    if (!mica_t_items(r, &all, &items, &count)) return false;
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
        if (!mica_t_work(r, 1) || !mica_tbuf_str(&b, items[i].s)) return false;
        if (step > 0 ? stop - i <= step : i - stop <= -step) break; // i + step could overflow
    }
    return mica_tbuf_end(&b, out);
}

static bool slice_list(mica_trun *r, const mica_tval *v, int64_t start, int64_t stop, int64_t step, mica_tval *out) {
    mica_tval *items;
    size_t count;
    mica_tlist *l = mica_t_list(r, 0);
    if (!l || !mica_t_items(r, v, &items, &count)) return false;
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
        if (!mica_t_push(r, l, items[i])) return false;
        if (step > 0 ? stop - i <= step : i - stop <= -step) break;
    }
    return *out = mica_t_of_list(v->kind == MICA_T_TUPLE ? MICA_T_TUPLE : MICA_T_LIST, l), true;
}

static bool slice_range(mica_trun *r, const mica_trange *of, int64_t start, int64_t stop, int64_t step, mica_tval *out) {
    mica_trange *range = mica_t_alloc(r, sizeof *range);
    int64_t distance = step > 0 ? stop - start : start - stop, by, from, to;
    if (!range) return false;
    if (__builtin_mul_overflow(of->step, step, &by) || __builtin_mul_overflow(of->step, start, &from) || __builtin_add_overflow(of->start, from, &from) ||
        __builtin_mul_overflow(of->step, stop, &to) || __builtin_add_overflow(of->start, to, &to))
        return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "integers beyond 64 bits are not supported");
    *range = (mica_trange){from, to, by, distance > 0 ? (distance - 1) / (step > 0 ? step : -step) + 1 : 0};
    return *out = (mica_tval){.kind = MICA_T_RANGE, .range = range}, true;
}

bool mica_t_slice(mica_trun *r, const mica_tval *v, const mica_tval bounds[3], mica_tval *out) {
    size_t length;
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (v->kind == MICA_T_DICT) return mica_t_fail(r, "unhashable type: 'slice'");
    bool sequence = v->kind == MICA_T_STRING || v->kind == MICA_T_LIST || v->kind == MICA_T_TUPLE || v->kind == MICA_T_RANGE;
    if (!sequence || !mica_t_length(v, &length)) return mica_t_fail(r, "'%s' object is not subscriptable", mica_t_type(v));
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != MICA_T_NONE && !mica_t_is_whole(&bounds[i]))
            return mica_t_fail(r, "slice indices must be integers or None or have an __index__ method");
    int64_t n = (int64_t)length, step = bounds[2].kind == MICA_T_NONE ? 1 : mica_t_whole(&bounds[2]);
    if (step == 0) return mica_t_fail(r, "slice step cannot be zero");
    if (step == INT64_MIN) step++;
    int64_t start = bounds[0].kind == MICA_T_NONE ? (step < 0 ? n - 1 : 0) : clamp(mica_t_whole(&bounds[0]), n, step);
    int64_t stop = bounds[1].kind == MICA_T_NONE ? (step < 0 ? -1 : n) : clamp(mica_t_whole(&bounds[1]), n, step);
    if (v->kind == MICA_T_STRING) return slice_string(r, v->s, start, stop, step, out);
    if (v->kind == MICA_T_RANGE) return slice_range(r, v->range, start, stop, step, out);
    return slice_list(r, v, start, stop, step, out);
}
