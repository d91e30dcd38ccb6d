// SPDX-License-Identifier: Apache-2.0
// Filters on sequences that need no other filter: first, last, join, sort, unique, groups. Sorting is a stable merge, so that its cost
// is bounded whatever the values are.
#include "text/template_filters.h"
#include "text/template_select.h"
#include <string.h>

static bool f_first(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items;
    size_t count;
    if (!mica_t_bind(r, args, "first", "", NULL)) return false;
    if (v->kind == MICA_T_ITER && v->list->taken < v->list->count) return *out = v->list->items[v->list->taken++], true;
    if (!mica_t_items(r, v, &items, &count)) return false;
    return count ? (*out = items[0], true) : mica_t_undefined_hint(r, "No first item, sequence was empty.", out);
}

static bool reversible(mica_trun *r, const mica_tval *v) {
    bool yes = mica_t_is_iterable(v) && v->kind != MICA_T_ITER && v->kind != MICA_T_LOOP;
    return yes || mica_t_fail(r, "'%s' object is not reversible", mica_t_type(v));
}

static bool f_last(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items;
    size_t count;
    if (!mica_t_bind(r, args, "last", "", NULL) || !reversible(r, v) || !mica_t_items(r, v, &items, &count)) return false;
    return count ? (*out = items[count - 1], true) : mica_t_undefined_hint(r, "No last item, sequence was empty.", out);
}

static bool f_join(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2], *items;
    size_t count;
    mica_tbuf b = {.r = r};
    const mica_tstr *sep = NULL;
    mica_tpath path;
    if (!mica_t_bind(r, args, "do_join", "d attribute", slot) || !mica_t_path(r, &slot[1], &path)) return false;
    if (slot[0].kind != MICA_T_MISSING && !mica_t_soft(r, &slot[0], &sep)) return false;
    if (!mica_t_items(r, v, &items, &count)) return false;
    for (size_t i = 0; i < count; i++) {
        mica_tval item;
        if (!mica_t_follow(r, &path, &items[i], &item)) return false;
        if ((i && sep && !mica_tbuf_str(&b, sep)) || !mica_t_str(&b, &item)) return false;
    }
    return mica_tbuf_end(&b, out);
}

static bool f_list(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items;
    size_t count;
    mica_tlist *l;
    if (!mica_t_bind(r, args, "list", "", NULL) || !mica_t_items(r, v, &items, &count) || !(l = mica_t_list(r, count))) return false;
    for (size_t i = 0; i < count; i++)
        if (!mica_t_push(r, l, items[i])) return false;
    return *out = mica_t_of_list(MICA_T_LIST, l), true;
}

static bool f_items(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, 0);
    if (!l || !mica_t_bind(r, args, "items", "", NULL)) return false;
    *out = mica_t_of_list(MICA_T_ITER, l);
    if (v->kind == MICA_T_UNDEFINED) return true;
    if (v->kind != MICA_T_DICT) return mica_t_fail(r, "Can only get item pairs from a mapping."), mica_t_put_off(r, l);
    mica_tview view = {v->dict, 'i'};
    mica_tval of = {.kind = MICA_T_VIEW, .view = &view};
    return mica_t_items(r, &of, &l->items, &l->count) && (l->capacity = l->count, true);
}

// ---- sorting -------------------------------------------------------------------------------------------------------
typedef struct keyed {
    mica_tval key, value;
} keyed;

static bool merge(mica_trun *r, keyed *a, size_t na, const keyed *b, size_t nb, bool reverse, keyed *to) {
    size_t i = 0, k = 0;
    while (i < na || k < nb) {
        bool from_b = i == na, less = false;
        if (i < na && k < nb) { // b first only if it is strictly before a, so that equals keep their order
            if (!mica_t_less(r, reverse ? &a[i].key : &b[k].key, reverse ? &b[k].key : &a[i].key, "<", &less)) return false;
            from_b = less;
        }
        to[i + k] = from_b ? b[k] : a[i];
        if (from_b) k++;
        else i++;
    }
    memcpy(a, to, (na + nb) * sizeof *to);
    return mica_t_work(r, na + nb);
}

static bool sort(mica_trun *r, keyed *items, size_t n, bool reverse, keyed *scratch) {
    for (size_t width = 1; width < n; width *= 2)
        for (size_t at = 0; at + width < n; at += 2 * width)
            if (!merge(r, items + at, width, items + at + width, MICA_MIN(width, n - at - width), reverse, scratch)) return false;
    return true;
}

static keyed *make_keyed(mica_trun *r, size_t n) {
    size_t bytes;
    return mica_size_mul(n + 1, 2 * sizeof(keyed), &bytes) ? mica_t_alloc(r, bytes) : NULL;
}

/** One key: with several paths a list of what they lead to. */
static bool sort_key(mica_trun *r, const mica_tpath *paths, size_t count, bool fold, const mica_tval *item, mica_tval *key) {
    mica_tlist *l = mica_t_list(r, count);
    if (!l) return false;
    for (size_t i = 0; i < count; i++) {
        mica_tval part;
        if (!mica_t_follow(r, &paths[i], item, &part) || (fold && !mica_t_fold(r, &part, &part)) || !mica_t_push(r, l, part)) return false;
    }
    return *key = mica_t_of_list(MICA_T_LIST, l), true;
}

/** "a,b.c" cut at its commas. */
static bool several_paths(mica_trun *r, const mica_tval *attribute, mica_tpath **paths, size_t *count) {
    *count = 1;
    const mica_tstr *s = attribute->kind == MICA_T_STRING ? attribute->s : NULL;
    for (size_t i = 0; s && i < s->size; i++) *count += s->data[i] == ',';
    if (!(*paths = mica_t_alloc(r, *count * sizeof **paths))) return false;
    if (!s) return mica_t_path(r, attribute, *paths);
    for (size_t i = 0, from = 0; i < *count; i++) {
        size_t to = from;
        mica_tval part;
        while (to < s->size && s->data[to] != ',') to++;
        if (!mica_t_part(r, s, from, to, &part) || !mica_t_path(r, &part, &(*paths)[i])) return false;
        from = to + 1;
    }
    return true;
}

static bool f_sort(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[3], *items;
    size_t count, path_count;
    mica_tpath *paths;
    if (!mica_t_bind(r, args, "do_sort", "reverse case_sensitive attribute", slot) || !several_paths(r, &slot[2], &paths, &path_count)) return false;
    if (!mica_t_items(r, v, &items, &count)) return false;
    keyed *rows = make_keyed(r, count);
    mica_tlist *l = rows ? mica_t_list(r, count) : NULL;
    for (size_t i = 0; l && i < count; i++) {
        rows[i].value = items[i];
        if (!sort_key(r, paths, path_count, !mica_t_true(r, &slot[1]), &items[i], &rows[i].key)) return false;
    }
    if (!l || !sort(r, rows, count, mica_t_true(r, &slot[0]), rows + count)) return false;
    for (size_t i = 0; i < count; i++)
        if (!mica_t_push(r, l, rows[i].value)) return false;
    return *out = mica_t_of_list(MICA_T_LIST, l), true;
}

static bool f_dictsort(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[3], *items;
    size_t count;
    if (!mica_t_bind(r, args, "do_dictsort", "case_sensitive by reverse", slot)) return false;
    bool by_key = slot[1].kind == MICA_T_MISSING || mica_t_is(&slot[1], "key");
    if (!by_key && !mica_t_is(&slot[1], "value")) return mica_t_fail(r, "You can only sort by either \"key\" or \"value\"");
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (v->kind != MICA_T_DICT) return mica_t_fail(r, "'%s' object has no attribute 'items'", mica_t_type(v));
    mica_tview view = {v->dict, 'i'};
    mica_tval of = {.kind = MICA_T_VIEW, .view = &view};
    if (!mica_t_items(r, &of, &items, &count)) return false;
    keyed *rows = make_keyed(r, count);
    mica_tlist *l = rows ? mica_t_list(r, count) : NULL;
    for (size_t i = 0; l && i < count; i++) {
        rows[i] = (keyed){items[i].list->items[by_key ? 0 : 1], items[i]};
        if (!mica_t_true(r, &slot[0]) && !mica_t_fold(r, &rows[i].key, &rows[i].key)) return false;
    }
    if (!l || !sort(r, rows, count, mica_t_true(r, &slot[2]), rows + count)) return false;
    for (size_t i = 0; i < count; i++)
        if (!mica_t_push(r, l, rows[i].value)) return false;
    return *out = mica_t_of_list(MICA_T_LIST, l), true;
}

static bool f_groupby(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[3], *items;
    size_t count;
    mica_tpath path;
    if (!mica_t_bind(r, args, "do_groupby", "attribute default case_sensitive", slot) || !mica_t_path(r, &slot[0], &path)) return false;
    if (slot[0].kind == MICA_T_MISSING) return mica_t_fail(r, "do_groupby() missing 1 required positional argument: 'attribute'");
    if (slot[1].kind != MICA_T_NONE) path.otherwise = slot[1];
    bool fold = !mica_t_true(r, &slot[2]);
    if (!mica_t_items(r, v, &items, &count)) return false;
    keyed *rows = make_keyed(r, count);
    mica_tlist *groups = rows ? mica_t_list(r, 4) : NULL;
    for (size_t i = 0; groups && i < count; i++) {
        rows[i].value = items[i];
        if (!mica_t_follow(r, &path, &items[i], &rows[i].key) || (fold && !mica_t_fold(r, &rows[i].key, &rows[i].key))) return false;
    }
    if (!groups || !sort(r, rows, count, false, rows + count)) return false;
    for (size_t i = 0, end; i < count; i = end) {
        mica_tlist *group = mica_t_list(r, 2), *members = mica_t_list(r, 4);
        bool equal = true;
        mica_tval name;
        if (!group || !members || !mica_t_follow(r, &path, &rows[i].value, &name)) return false;
        for (end = i; end < count && mica_t_equal(r, &rows[i].key, &rows[end].key, &equal) && equal; end++)
            if (!mica_t_push(r, members, rows[end].value)) return false;
        group->group = true;
        if (r->failed || !mica_t_push(r, group, name) || !mica_t_push(r, group, mica_t_of_list(MICA_T_LIST, members)) ||
            !mica_t_push(r, groups, mica_t_of_list(MICA_T_TUPLE, group)))
            return false;
        if (end == i) end++; // a key that is not equal to itself
    }
    return *out = mica_t_of_list(MICA_T_LIST, groups), true;
}

// ---- single ones -----------------------------------------------------------------------------------------------------
static bool f_unique(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2], *items;
    size_t count;
    mica_tpath path;
    if (!mica_t_bind(r, args, "do_unique", "case_sensitive attribute", slot) || !mica_t_path(r, &slot[1], &path) || !mica_t_items(r, v, &items, &count)) return false;
    mica_tdict *seen = mica_t_dict(r);
    mica_tlist *l = seen ? mica_t_list(r, 4) : NULL;
    for (size_t i = 0; l && i < count; i++) {
        mica_tval key;
        size_t before = seen->count;
        if (!mica_t_follow(r, &path, &items[i], &key) || (!mica_t_true(r, &slot[0]) && !mica_t_fold(r, &key, &key))) return false;
        if (!mica_t_put(r, seen, key, mica_t_none())) return false;
        if (seen->count > before && !mica_t_push(r, l, items[i])) return false;
    }
    return l && (*out = mica_t_of_list(MICA_T_ITER, l), true);
}

static bool extreme(mica_trun *r, const mica_tval *v, const mica_targs *args, bool most, mica_tval *out) {
    mica_tval slot[2], *items, best = mica_t_none();
    size_t count;
    mica_tpath path;
    if (!mica_t_bind(r, args, most ? "do_max" : "do_min", "case_sensitive attribute", slot) || !mica_t_path(r, &slot[1], &path) ||
        !mica_t_items(r, v, &items, &count))
        return false;
    if (!count) return mica_t_undefined_hint(r, "No aggregated item, sequence was empty.", out);
    for (size_t i = 0; i < count; i++) {
        mica_tval key;
        bool better = i == 0;
        if (!mica_t_follow(r, &path, &items[i], &key) || (!mica_t_true(r, &slot[0]) && !mica_t_fold(r, &key, &key))) return false;
        if (i && !mica_t_less(r, most ? &best : &key, most ? &key : &best, most ? ">" : "<", &better)) return false;
        if (better) best = key, *out = items[i];
    }
    return true;
}

static bool f_min(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return extreme(r, v, args, false, out); }
static bool f_max(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return extreme(r, v, args, true, out); }

static bool f_sum(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2], *items, total;
    size_t count;
    mica_tpath path;
    if (!mica_t_bind(r, args, "do_sum", "attribute start", slot) || !mica_t_path(r, &slot[0], &path) || !mica_t_items(r, v, &items, &count)) return false;
    total = slot[1].kind == MICA_T_MISSING ? mica_t_int(0) : slot[1];
    if (total.kind == MICA_T_STRING) return mica_t_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; i < count; i++) {
        mica_tval item, before = total;
        if (!mica_t_follow(r, &path, &items[i], &item) || !mica_t_add(r, &before, &item, &total)) return false;
    }
    return *out = total, true;
}

static bool f_reverse(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items, step[3] = {mica_t_none(), mica_t_none(), mica_t_int(-1)};
    size_t count;
    if (!mica_t_bind(r, args, "reverse", "", NULL)) return false;
    if (v->kind == MICA_T_STRING) return mica_t_slice(r, v, step, out);
    if (!mica_t_is_iterable(v)) return mica_t_fail(r, "argument must be iterable");
    bool lists = v->kind == MICA_T_ITER; // what cannot be reversed becomes a list
    mica_tlist *l = mica_t_items(r, v, &items, &count) ? mica_t_list(r, count) : NULL;
    for (size_t i = count; l && i-- > 0;)
        if (!mica_t_push(r, l, items[i])) return false;
    if (!l) return false;
    l->what = v->kind == MICA_T_LIST ? "list_reverseiterator" : "reversed";
    return *out = mica_t_of_list(lists ? MICA_T_LIST : MICA_T_ITER, l), true;
}

static bool f_batch(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2], *items;
    size_t count;
    int64_t size;
    if (!mica_t_bind(r, args, "do_batch", "linecount fill_with", slot) || !mica_t_int_argument(r, &slot[0], 0, "batch", &size) || !mica_t_items(r, v, &items, &count))
        return false;
    mica_tlist *all = mica_t_list(r, 4), *row = NULL;
    for (size_t i = 0; all && i < count; i++) {
        if (!row || (int64_t)row->count == size) {
            if (!(row = mica_t_list(r, 4)) || !mica_t_push(r, all, mica_t_of_list(MICA_T_LIST, row))) return false;
        }
        if (!mica_t_push(r, row, items[i])) return false;
    }
    bool fill = slot[1].kind != MICA_T_MISSING && slot[1].kind != MICA_T_NONE;
    while (row && fill && (int64_t)row->count < size)
        if (!mica_t_push(r, row, slot[1])) return false;
    return all && (*out = mica_t_of_list(MICA_T_ITER, all), true);
}

static bool f_slice(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2], *items;
    size_t count;
    int64_t slices;
    if (!mica_t_bind(r, args, "do_slice", "slices fill_with", slot) || !mica_t_int_argument(r, &slot[0], 0, "slice", &slices) || !mica_t_items(r, v, &items, &count))
        return false;
    if (slices == 0) return mica_t_fail(r, "integer division or modulo by zero");
    mica_tlist *all = mica_t_list(r, 4);
    bool fill = slot[1].kind != MICA_T_MISSING && slot[1].kind != MICA_T_NONE;
    size_t at = 0;
    for (int64_t i = 0; all && i < slices; i++) {
        int64_t size = (int64_t)count / slices, extra = (int64_t)count % slices;
        mica_tlist *part = mica_t_list(r, 4);
        if (!part || !mica_t_push(r, all, mica_t_of_list(MICA_T_LIST, part))) return false;
        for (int64_t k = 0; k < size + (i < extra); k++)
            if (!mica_t_push(r, part, items[at++])) return false;
        if (fill && i >= extra && !mica_t_push(r, part, slot[1])) return false;
    }
    return all && (*out = mica_t_of_list(MICA_T_ITER, all), true);
}

const mica_tfilter mica_t_filters_sequence[] = {
    {"first", f_first}, {"last", f_last}, {"join", f_join}, {"list", f_list}, {"items", f_items}, {"sort", f_sort}, {"dictsort", f_dictsort},
    {"groupby", f_groupby}, {"unique", f_unique}, {"min", f_min}, {"max", f_max}, {"sum", f_sum}, {"reverse", f_reverse}, {"batch", f_batch},
    {"slice", f_slice}, {NULL, NULL}};
