// SPDX-License-Identifier: Apache-2.0
// Values of chat templates: making them, and what Python says of them: truth, length, items, equality, order. Everything is
// allocated from the render's arena and counted, so that a hostile template meets a limit instead of exhausting the machine.
#include "text/template_value.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- the render ------------------------------------------------------------------------------------------
MICA_PRINTF(3, 0) static void note(mica_trun *r, mica_code code, const char *fmt, va_list args) {
    if (r->failed) return;
    r->failed = true;
    mica_failv(r->err, code, fmt, args);
    mica_error_prefix(r->err, "%s: line %u", r->name, (unsigned)r->line);
}

bool mica_t_fail(mica_trun *r, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    note(r, MICA_ERR_FORMAT, fmt, args);
    va_end(args);
    return false;
}

bool mica_t_fail_code(mica_trun *r, mica_code code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    note(r, code, fmt, args);
    va_end(args);
    return false;
}

bool mica_t_fail_again(mica_trun *r, const mica_error *error) {
    if (!r->failed && r->err) *r->err = *error;
    r->failed = true;
    return false;
}

bool mica_t_put_off(mica_trun *r, mica_tlist *iterator) {
    if (!r->failed || !r->err || r->err->code != MICA_ERR_FORMAT) return !r->failed;
    mica_error noted = *r->err;
    r->failed = false;
    mica_error *kept = mica_t_alloc(r, sizeof *kept);
    if (!kept) return false;
    *kept = noted;
    iterator->error = kept;
    *r->err = (mica_error){0};
    return true;
}

void *mica_t_alloc(mica_trun *r, size_t size) {
    if (r->failed) return NULL;
    if (size > r->most_memory - r->memory) {
        mica_t_fail_code(r, MICA_ERR_NO_MEMORY, "the template needs more than %zu bytes of memory", r->most_memory);
        return NULL;
    }
    r->memory += size;
    void *p = mica_arena_alloc(&r->arena, size);
    if (!p) mica_t_fail_code(r, MICA_ERR_NO_MEMORY, "out of memory: %zu bytes for a value", size);
    return p;
}

bool mica_t_work(mica_trun *r, size_t n) {
    if (n <= r->most_steps - r->steps) return r->steps += n, !r->failed;
    r->steps = r->most_steps;
    return mica_t_fail_code(r, MICA_ERR_NO_MEMORY, "the template takes more than %llu steps", (unsigned long long)r->most_steps);
}

bool mica_t_enter(mica_trun *r) {
    r->depth++;
    if (r->depth > MICA_T_DEPTH) return mica_t_fail(r, "maximum recursion depth exceeded");
    return !r->failed;
}

// ---- lists and dicts ---------------------------------------------------------------------------------------
/** Room for at least `need` items in an array of the arena. */
static bool grow(mica_trun *r, void *array_ptr, size_t *capacity, size_t count, size_t need, size_t size) {
    if (need <= *capacity) return true;
    size_t wanted = MICA_MAX(need, *capacity * 2), bytes;
    wanted = MICA_MAX(wanted, (size_t)4);
    void *bigger = mica_size_mul(wanted, size, &bytes) ? mica_t_alloc(r, bytes) : NULL;
    if (!bigger) return mica_t_fail(r, "too long a list");
    if (count) memcpy(bigger, *(void **)array_ptr, count * size);
    *(void **)array_ptr = bigger;
    *capacity = wanted;
    return true;
}

mica_tlist *mica_t_list(mica_trun *r, size_t capacity) {
    mica_tlist *l = mica_t_alloc(r, sizeof *l);
    if (!l) return NULL;
    *l = (mica_tlist){.what = "generator"};
    return grow(r, &l->items, &l->capacity, 0, MICA_MAX(capacity, (size_t)1), sizeof *l->items) ? l : NULL;
}

bool mica_t_push(mica_trun *r, mica_tlist *list, mica_tval v) {
    if (!grow(r, &list->items, &list->capacity, list->count, list->count + 1, sizeof *list->items)) return false;
    list->items[list->count++] = v;
    return mica_t_work(r, 1);
}

mica_tdict *mica_t_dict(mica_trun *r) {
    mica_tdict *d = mica_t_alloc(r, sizeof *d);
    if (d) *d = (mica_tdict){0};
    return d;
}

/** Equal keys have equal hashes: 1, 1.0 and true are one key. False: it cannot be a key. */
static bool hash(const mica_tval *v, uint64_t *h, const char **unhashable) {
    switch (v->kind) {
    case MICA_T_NONE: return *h = 0x9E37, true;
    case MICA_T_BOOL:
    case MICA_T_INT: return *h = mica_hash_mix(1, (uint64_t)mica_t_whole(v)), true;
    case MICA_T_FLOAT:
        if (fabs(v->f) < 9e18 && floor(v->f) == v->f) return *h = mica_hash_mix(1, (uint64_t)(int64_t)v->f), true;
        return *h = mica_hash(&v->f, sizeof v->f, 2), true;
    case MICA_T_STRING: return *h = mica_hash(v->s->data, v->s->size, 3), true;
    case MICA_T_TUPLE:
        *h = 4;
        for (size_t i = 0; i < v->list->count; i++) {
            uint64_t part;
            if (v->list->items[i].kind == MICA_T_TUPLE) { // tuples of tuples: by their length; equality decides
                part = v->list->items[i].list->count;
            } else if (!hash(&v->list->items[i], &part, unhashable)) return false;
            *h = mica_hash_mix(*h, part);
        }
        return true;
    case MICA_T_LIST:
    case MICA_T_DICT:
    case MICA_T_VIEW: return *unhashable = mica_t_type(v), false;
    default: return *h = 5, true;
    }
}

static const mica_tentry *find_entry(mica_trun *r, const mica_tdict *d, const mica_tval *key, uint64_t h) {
    bool equal = false;
    if (!d->slots) {
        for (size_t i = 0; i < d->count; i++)
            if (d->entries[i].hash == h && mica_t_equal(r, &d->entries[i].key, key, &equal) && equal) return &d->entries[i];
        return NULL;
    }
    for (size_t i = h & (d->slot_count - 1); d->slots[i]; i = (i + 1) & (d->slot_count - 1)) {
        const mica_tentry *e = &d->entries[d->slots[i] - 1];
        if (e->hash == h && mica_t_equal(r, &e->key, key, &equal) && equal) return e;
    }
    return NULL;
}

static bool index_entries(mica_trun *r, mica_tdict *d) {
    size_t n = d->slot_count ? d->slot_count * 4 : 64;
    uint32_t *slots = mica_t_alloc(r, n * sizeof *slots);
    if (!slots) return false;
    memset(slots, 0, n * sizeof *slots);
    for (size_t e = 0; e < d->count; e++) {
        size_t i = d->entries[e].hash & (n - 1);
        while (slots[i]) i = (i + 1) & (n - 1);
        slots[i] = (uint32_t)e + 1;
    }
    d->slots = slots, d->slot_count = n;
    return true;
}

bool mica_t_put(mica_trun *r, mica_tdict *d, mica_tval key, mica_tval v) {
    uint64_t h;
    const char *unhashable;
    if (!hash(&key, &h, &unhashable)) return mica_t_fail(r, "unhashable type: '%s'", unhashable);
    mica_tentry *found = (mica_tentry *)(uintptr_t)find_entry(r, d, &key, h);
    if (r->failed) return false;
    if (found) return found->value = v, true;
    if (d->count >= UINT32_MAX - 1) return mica_t_fail(r, "too long a dict");
    if (!grow(r, &d->entries, &d->capacity, d->count, d->count + 1, sizeof *d->entries)) return false;
    d->entries[d->count++] = (mica_tentry){key, v, h};
    if (d->count > 8 && d->count * 2 > d->slot_count) return index_entries(r, d);
    if (d->slots) {
        size_t i = h & (d->slot_count - 1);
        while (d->slots[i]) i = (i + 1) & (d->slot_count - 1);
        d->slots[i] = (uint32_t)d->count;
    }
    return mica_t_work(r, 1);
}

const mica_tval *mica_t_get(mica_trun *r, const mica_tdict *d, const mica_tval *key) {
    uint64_t h;
    const char *unhashable;
    if (!hash(key, &h, &unhashable)) return NULL;
    const mica_tentry *e = find_entry(r, d, key, h);
    return e ? &e->value : NULL;
}

const mica_tval *mica_t_get_name(const mica_tdict *d, const char *name, size_t size) {
    uint64_t h = mica_hash(name, size, 3);
    for (size_t i = 0; i < d->count; i++) {
        const mica_tentry *e = &d->entries[i];
        if (e->hash == h && e->key.kind == MICA_T_STRING && e->key.s->size == size && !memcmp(e->key.s->data, name, size)) return &e->value;
    }
    return NULL;
}

// ---- undefined -----------------------------------------------------------------------------------------------
bool mica_t_undefined(mica_trun *r, const mica_tval *object, mica_tval name, mica_tval *out) {
    mica_tundef *u = mica_t_alloc(r, sizeof *u);
    if (!u) return false;
    *u = (mica_tundef){.object = object ? *object : mica_t_missing(), .name = name};
    *out = (mica_tval){.kind = MICA_T_UNDEFINED, .undef = u};
    return true;
}

bool mica_t_undefined_hint(mica_trun *r, const char *hint, mica_tval *out) {
    mica_tundef *u = mica_t_alloc(r, sizeof *u);
    if (!u) return false;
    *u = (mica_tundef){.hint = hint, .object = mica_t_missing(), .name = mica_t_missing()};
    *out = (mica_tval){.kind = MICA_T_UNDEFINED, .undef = u};
    return true;
}

/** How Jinja names the type of an object whose attribute is missing. */
static const char *owner(const mica_tval *v, char *text, size_t size) {
    static const struct { mica_tkind kind; const char *name; } known[] = {
        {MICA_T_NAMESPACE, "TemplateNamespace object"}, {MICA_T_MACRO, "jinja2.runtime.Macro object"},
        {MICA_T_LOOP, "jinja2.runtime.LoopContext object"}, {MICA_T_CYCLER, "jinja2.utils.Cycler object"},
        {MICA_T_JOINER, "jinja2.utils.Joiner object"}, {MICA_T_NONE, "None"}};
    for (size_t i = 0; i < MICA_COUNT(known); i++)
        if (v->kind == known[i].kind) return known[i].name;
    snprintf(text, size, "%s object", mica_t_type(v));
    return text;
}

bool mica_t_fail_undefined(mica_trun *r, const mica_tval *v) {
    const mica_tundef *u = v->undef;
    char text[64];
    if (u->hint) return mica_t_fail(r, "%s", u->hint);
    if (u->name.kind != MICA_T_STRING) {
        if (u->name.kind == MICA_T_INT) return mica_t_fail(r, "%s has no element %lld", owner(&u->object, text, sizeof text), (long long)u->name.i);
        return mica_t_fail(r, "%s has no such element", owner(&u->object, text, sizeof text));
    }
    int n = (int)MICA_MIN(u->name.s->size, (size_t)200);
    if (u->object.kind == MICA_T_MISSING) return mica_t_fail(r, "'%.*s' is undefined", n, u->name.s->data);
    return mica_t_fail(r, "'%s' has no attribute '%.*s'", owner(&u->object, text, sizeof text), n, u->name.s->data);
}

// ---- asking --------------------------------------------------------------------------------------------------
const char *mica_t_type(const mica_tval *v) {
    switch (v->kind) {
    case MICA_T_MISSING: return "missing";
    case MICA_T_UNDEFINED: return "Undefined";
    case MICA_T_NONE: return "NoneType";
    case MICA_T_BOOL: return "bool";
    case MICA_T_INT: return "int";
    case MICA_T_FLOAT: return "float";
    case MICA_T_STRING: return v->s->safe ? "Markup" : "str";
    case MICA_T_LIST: return "list";
    case MICA_T_TUPLE: return v->list->group ? "_GroupTuple" : "tuple";
    case MICA_T_DICT: return "dict";
    case MICA_T_VIEW: return v->view->part == 'k' ? "dict_keys" : v->view->part == 'v' ? "dict_values" : "dict_items";
    case MICA_T_ITER: return v->list->what;
    case MICA_T_RANGE: return "range";
    case MICA_T_NAMESPACE: return "TemplateNamespace";
    case MICA_T_MACRO: return "Macro";
    case MICA_T_FUNCTION: return "function";
    case MICA_T_METHOD: return "builtin_function_or_method";
    case MICA_T_LOOP: return "LoopContext";
    case MICA_T_CYCLER: return "Cycler";
    case MICA_T_JOINER: return "Joiner";
    }
    return "object";
}

double mica_t_number(const mica_tval *v) { return v->kind == MICA_T_FLOAT ? v->f : (double)mica_t_whole(v); }

bool mica_t_is(const mica_tval *v, const char *text) {
    return v->kind == MICA_T_STRING && v->s->size == strlen(text) && !memcmp(v->s->data, text, v->s->size);
}

bool mica_t_length(const mica_tval *v, size_t *n) {
    switch (v->kind) {
    case MICA_T_UNDEFINED: return *n = 0, true;
    case MICA_T_STRING: return *n = v->s->chars, true;
    case MICA_T_LIST:
    case MICA_T_TUPLE: return *n = v->list->count, true;
    case MICA_T_DICT: return *n = v->dict->count, true;
    case MICA_T_VIEW: return *n = v->view->dict->count, true;
    case MICA_T_RANGE: return *n = (size_t)v->range->count, true;
    default: return false;
    }
}

bool mica_t_true(mica_trun *r, const mica_tval *v) {
    size_t n;
    (void)r;
    switch (v->kind) {
    case MICA_T_NONE:
    case MICA_T_MISSING: return false;
    case MICA_T_BOOL: return v->b;
    case MICA_T_INT: return v->i != 0;
    case MICA_T_FLOAT: return v->f != 0;
    default: return mica_t_length(v, &n) ? n > 0 : true;
    }
}

static bool characters(mica_trun *r, const mica_tstr *s, mica_tval **items, size_t *count) {
    mica_tlist *l = mica_t_list(r, s->chars);
    mica_tstr plain = *s;
    plain.safe = false; // even those of Markup
    s = &plain;
    if (!l) return false;
    for (size_t i = 0, end; i < s->size; i = end) {
        mica_tval c;
        for (end = i + 1; end < s->size && ((unsigned char)s->data[end] & 0xC0) == 0x80;) end++;
        if (s->size == end - i) { // all of it, which mica_t_part would give as it is
            mica_tstr *only = mica_t_alloc(r, sizeof *only);
            if (!only) return false;
            *only = plain;
            c = mica_t_string(only);
        } else if (!mica_t_part(r, s, i, end, &c)) {
            return false;
        }
        if (!mica_t_push(r, l, c)) return false;
    }
    *items = l->items, *count = l->count;
    return true;
}

static bool pair(mica_trun *r, mica_tval a, mica_tval b, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, 2);
    if (!l || !mica_t_push(r, l, a) || !mica_t_push(r, l, b)) return false;
    *out = mica_t_of_list(MICA_T_TUPLE, l);
    return true;
}

static bool dict_items(mica_trun *r, const mica_tdict *d, char part, mica_tval **items, size_t *count) {
    mica_tlist *l = mica_t_list(r, d->count);
    if (!l) return false;
    for (size_t i = 0; i < d->count; i++) {
        mica_tval v = part == 'k' ? d->entries[i].key : d->entries[i].value;
        if (part == 'i' && !pair(r, d->entries[i].key, d->entries[i].value, &v)) return false;
        if (!mica_t_push(r, l, v)) return false;
    }
    *items = l->items, *count = l->count;
    return true;
}

bool mica_t_is_iterable(const mica_tval *v) {
    switch (v->kind) {
    case MICA_T_UNDEFINED:
    case MICA_T_STRING:
    case MICA_T_LIST:
    case MICA_T_TUPLE:
    case MICA_T_DICT:
    case MICA_T_VIEW:
    case MICA_T_ITER:
    case MICA_T_RANGE:
    case MICA_T_LOOP: return true;
    default: return false;
    }
}

bool mica_t_items(mica_trun *r, const mica_tval *v, mica_tval **items, size_t *count) {
    *items = NULL, *count = 0;
    if (!mica_t_is_iterable(v)) return mica_t_fail(r, "'%s' object is not iterable", mica_t_type(v));
    if (v->kind == MICA_T_STRING) return characters(r, v->s, items, count);
    if (v->kind == MICA_T_DICT) return dict_items(r, v->dict, 'k', items, count);
    if (v->kind == MICA_T_VIEW) return dict_items(r, v->view->dict, v->view->part, items, count);
    if (v->kind == MICA_T_LIST || v->kind == MICA_T_TUPLE) return *items = v->list->items, *count = v->list->count, true;
    if (v->kind == MICA_T_ITER) {
        if (v->list->error) return mica_t_fail_again(r, v->list->error);
        *items = v->list->items + v->list->taken, *count = v->list->count - v->list->taken;
        return v->list->taken = v->list->count, true;
    }
    if (v->kind == MICA_T_LOOP) return mica_t_fail(r, "iterating over loop is not supported");
    if (v->kind == MICA_T_UNDEFINED) return true;
    mica_tlist *l = mica_t_list(r, (size_t)v->range->count);
    if (!l) return false;
    for (int64_t i = 0; i < v->range->count; i++)
        if (!mica_t_push(r, l, mica_t_int(v->range->start + i * v->range->step))) return false;
    *items = l->items, *count = l->count;
    return true;
}

// ---- equality and order ----------------------------------------------------------------------------------------
static bool equal_lists(mica_trun *r, const mica_tlist *a, const mica_tlist *b, bool *equal) {
    *equal = a->count == b->count;
    for (size_t i = 0; *equal && i < a->count; i++)
        if (!mica_t_equal(r, &a->items[i], &b->items[i], equal)) return false;
    return true;
}

static bool equal_dicts(mica_trun *r, const mica_tdict *a, const mica_tdict *b, bool *equal) {
    *equal = a->count == b->count;
    for (size_t i = 0; *equal && i < a->count; i++) {
        const mica_tval *other = mica_t_get(r, b, &a->entries[i].key);
        if (!other) *equal = false;
        else if (!mica_t_equal(r, &a->entries[i].value, other, equal)) return false;
    }
    return !r->failed;
}

static bool equal_numbers(const mica_tval *a, const mica_tval *b) {
    if (a->kind != MICA_T_FLOAT && b->kind != MICA_T_FLOAT) return mica_t_whole(a) == mica_t_whole(b);
    return mica_t_number(a) == mica_t_number(b);
}

static bool equal_same_kind(mica_trun *r, const mica_tval *a, const mica_tval *b, bool *equal) {
    switch (a->kind) {
    case MICA_T_NONE:
    case MICA_T_UNDEFINED: return *equal = true;
    case MICA_T_STRING:
        *equal = a->s->size == b->s->size && (a->s == b->s || !memcmp(a->s->data, b->s->data, a->s->size));
        return mica_t_work(r, a->s->size / 64);
    case MICA_T_LIST:
    case MICA_T_TUPLE: return equal_lists(r, a->list, b->list, equal);
    case MICA_T_DICT: return equal_dicts(r, a->dict, b->dict, equal);
    case MICA_T_RANGE:
        *equal = a->range->count == b->range->count && (!a->range->count || (a->range->start == b->range->start &&
                 (a->range->count == 1 || a->range->step == b->range->step)));
        return true;
    case MICA_T_FUNCTION: return *equal = a->i == b->i, true;
    default: return *equal = a->list == b->list, true; // the same object
    }
}

bool mica_t_equal(mica_trun *r, const mica_tval *a, const mica_tval *b, bool *equal) {
    *equal = false;
    if (mica_t_is_number(a) && mica_t_is_number(b)) return *equal = equal_numbers(a, b), true;
    if (a->kind != b->kind) return true;
    bool ok = mica_t_enter(r) && mica_t_work(r, 1) && equal_same_kind(r, a, b, equal);
    mica_t_leave(r);
    return ok;
}

static bool less_lists(mica_trun *r, const mica_tlist *a, const mica_tlist *b, const char *op, bool *less) {
    size_t n = MICA_MIN(a->count, b->count);
    for (size_t i = 0; i < n; i++) {
        bool equal;
        if (!mica_t_equal(r, &a->items[i], &b->items[i], &equal)) return false;
        if (!equal) return mica_t_less(r, &a->items[i], &b->items[i], op, less);
    }
    *less = a->count < b->count;
    return true;
}

bool mica_t_less(mica_trun *r, const mica_tval *a, const mica_tval *b, const char *op, bool *less) {
    *less = false;
    if (a->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, a);
    if (b->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, b);
    if (mica_t_is_number(a) && mica_t_is_number(b)) {
        if (a->kind != MICA_T_FLOAT && b->kind != MICA_T_FLOAT) *less = mica_t_whole(a) < mica_t_whole(b);
        else *less = mica_t_number(a) < mica_t_number(b);
        return true;
    }
    if (a->kind == MICA_T_STRING && b->kind == MICA_T_STRING) { // the order of UTF-8 is that of the code points
        int order = memcmp(a->s->data, b->s->data, MICA_MIN(a->s->size, b->s->size));
        *less = order < 0 || (order == 0 && a->s->size < b->s->size);
        return mica_t_work(r, 1 + MICA_MIN(a->s->size, b->s->size) / 64);
    }
    if (a->kind == b->kind && (a->kind == MICA_T_LIST || a->kind == MICA_T_TUPLE)) {
        bool ok = mica_t_enter(r) && mica_t_work(r, 1) && less_lists(r, a->list, b->list, op, less);
        mica_t_leave(r);
        return ok;
    }
    return mica_t_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, mica_t_type(a), mica_t_type(b));
}
