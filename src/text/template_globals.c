// SPDX-License-Identifier: Apache-2.0
// Global functions of templates: range, dict, namespace, cycler, joiner, and those of transformers: raise_exception, strftime_now.
#include "text/template_filters.h"
#include <string.h>
#include <time.h>

/** A dict from at most one positional argument (a dict or pairs) and keywords. */
static mica_tdict *dict_of(mica_trun *r, const mica_targs *args) {
    mica_tdict *d = mica_t_dict(r);
    size_t given = args->count - args->name_count, count = 0;
    mica_tval *items = NULL, of;
    if (!d) return NULL;
    if (given > 1) return mica_t_fail(r, "dict expected at most 1 argument, got %zu", given), NULL;
    if (given) {
        mica_tview view = {args->items[0].dict, 'i'};
        of = args->items[0];
        if (of.kind == MICA_T_DICT) of = (mica_tval){.kind = MICA_T_VIEW, .view = &view};
        if (!mica_t_items(r, &of, &items, &count)) return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        mica_tval *pair;
        size_t two;
        if (!mica_t_items(r, &items[i], &pair, &two)) return NULL;
        if (two != 2) return mica_t_fail(r, "dictionary update sequence element #%zu has length %zu; 2 is required", i, two), NULL;
        if (!mica_t_put(r, d, pair[0], pair[1])) return NULL;
    }
    for (size_t i = 0; i < args->name_count; i++)
        if (!mica_t_put(r, d, mica_t_string(args->names[i]), args->items[given + i])) return NULL;
    return d;
}

static bool g_dict(mica_trun *r, const mica_targs *args, mica_tval *out) {
    mica_tdict *d = dict_of(r, args);
    return d && (*out = mica_t_of_dict(MICA_T_DICT, d), true);
}

static bool g_namespace(mica_trun *r, const mica_targs *args, mica_tval *out) {
    mica_tdict *d = dict_of(r, args);
    for (size_t i = 0; d && i < d->count; i++) {
        const mica_tval *key = &d->entries[i].key;
        if (key->kind == MICA_T_STRING && key->s->size && key->s->data[0] == '_')
            return mica_t_fail(r, "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '%.*s'. Please rename the attribute.",
                               (int)key->s->size, key->s->data);
    }
    return d && (*out = mica_t_of_dict(MICA_T_NAMESPACE, d), true);
}

static bool g_range(mica_trun *r, const mica_targs *args, mica_tval *out) {
    int64_t v[3] = {0, 0, 1};
    mica_trange *range = mica_t_alloc(r, sizeof *range);
    if (!range) return false;
    if (args->name_count) return mica_t_fail(r, "range() takes no keyword arguments");
    if (!args->count || args->count > 3) return mica_t_fail(r, "range expected at %s %d argument%s, got %zu", args->count ? "most" : "least", args->count ? 3 : 1,
                                                           args->count ? "s" : "", args->count);
    for (size_t i = 0; i < args->count; i++)
        if (!mica_t_int_argument(r, &args->items[i], 0, "range", &v[i])) return false;
    if (args->count == 1) v[1] = v[0], v[0] = 0;
    if (v[2] == 0) return mica_t_fail(r, "range() arg 3 must not be zero");
    // The number of items, as an unsigned number: the distance of two int64_t may not fit one.
    uint64_t distance = v[2] > 0 ? (v[0] < v[1] ? (uint64_t)v[1] - (uint64_t)v[0] : 0) : (v[0] > v[1] ? (uint64_t)v[0] - (uint64_t)v[1] : 0);
    uint64_t step = v[2] > 0 ? (uint64_t)v[2] : 0 - (uint64_t)v[2], count = distance ? (distance - 1) / step + 1 : 0;
    if (count > MICA_T_MOST_RANGE)
        return mica_t_fail(r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MICA_T_MOST_RANGE);
    *range = (mica_trange){v[0], v[1], v[2], (int64_t)count};
    return *out = (mica_tval){.kind = MICA_T_RANGE, .range = range}, true;
}

static bool g_cycler(mica_trun *r, const mica_targs *args, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, args->count);
    if (!args->count) return mica_t_fail(r, "at least one item has to be provided");
    for (size_t i = 0; l && i < args->count; i++)
        if (!mica_t_push(r, l, args->items[i])) return false;
    return l && (*out = mica_t_of_list(MICA_T_CYCLER, l), true);
}

static bool g_joiner(mica_trun *r, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    mica_tjoiner *j = mica_t_alloc(r, sizeof *j);
    if (!j || !mica_t_bind(r, args, "Joiner", "sep", slot)) return false;
    if (slot[0].kind == MICA_T_MISSING && !mica_t_puts(r, ", ", &slot[0])) return false;
    *j = (mica_tjoiner){.separator = slot[0]};
    return *out = (mica_tval){.kind = MICA_T_JOINER, .joiner = j}, true;
}

static bool g_raise_exception(mica_trun *r, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    mica_tbuf b = {.r = r};
    (void)out;
    if (!mica_t_bind(r, args, "raise_exception", "message", slot)) return false;
    if (slot[0].kind == MICA_T_MISSING) return mica_t_fail(r, "raise_exception() missing 1 required positional argument: 'message'");
    if (!mica_t_str(&b, &slot[0])) return false;
    return mica_t_fail(r, "%.*s", (int)MICA_MIN(b.size, (size_t)480), b.size ? b.data : "");
}

/** strftime in UTC or local time. */
static bool date_text(mica_trun *r, const mica_tstr *format, mica_tval *out) {
    struct tm tm;
    time_t now = r->now ? (time_t)r->now : time(NULL);
    char one[8], text[256];
    mica_tbuf b = {.r = r};
    if (!(r->now ? gmtime_r(&now, &tm) : localtime_r(&now, &tm))) return mica_t_fail(r, "the date is out of range");
    for (size_t i = 0, end; i < format->size; i = end) {
        for (end = i; end < format->size && format->data[end] != '%'; end++) {}
        if (end > i) {
            if (!mica_tbuf_part(&b, format, i, end)) return false;
            continue;
        }
        // One conversion at a time: the C library's, which Python uses too.
        size_t n = 1;
        while (n < 4 && i + n < format->size && strchr("-_0^#EO", format->data[i + n])) n++;
        end = MICA_MIN(i + n + 1, format->size);
        memcpy(one, format->data + i, end - i);
        one[end - i] = 0;
        if (one[1] == 'f' && !one[2]) {
            if (!mica_tbuf_puts(&b, "000000")) return false;
            continue;
        }
        if ((one[1] == 'z' || one[1] == 'Z') && !one[2]) continue; // a time without a zone has no name for it
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        size_t size = strftime(text, sizeof text, one, &tm);
#pragma GCC diagnostic pop
        if (!mica_tbuf_add(&b, text, size, false)) return false;
    }
    return mica_tbuf_end(&b, out);
}

static bool g_strftime_now(mica_trun *r, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    if (!mica_t_bind(r, args, "strftime_now", "format", slot)) return false;
    if (slot[0].kind != MICA_T_STRING) return mica_t_fail(r, "strftime() argument 1 must be str, not %s", mica_t_type(&slot[0]));
    return date_text(r, slot[0].s, out);
}

static bool g_lipsum(mica_trun *r, const mica_targs *args, mica_tval *out) {
    (void)args, (void)out;
    return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "lipsum is not supported");
}

static const struct {
    const char *name;
    bool (*call)(mica_trun *r, const mica_targs *args, mica_tval *out);
} functions[] = {{"range", g_range}, {"dict", g_dict}, {"namespace", g_namespace}, {"cycler", g_cycler}, {"joiner", g_joiner},
                 {"raise_exception", g_raise_exception}, {"strftime_now", g_strftime_now}, {"lipsum", g_lipsum}};

int64_t mica_t_function_named(const char *name, size_t size) {
    for (size_t i = 0; i < MICA_COUNT(functions); i++)
        if (strlen(functions[i].name) == size && !memcmp(functions[i].name, name, size)) return (int64_t)i;
    return -1;
}

bool mica_t_call_function(mica_trun *r, int64_t which, const mica_targs *args, mica_tval *out) { return functions[which].call(r, args, out); }
