// SPDX-License-Identifier: Apache-2.0
// Methods of strings: finding, splitting, stripping, joining, replacing. Those that change case or ask for classes of characters are in
// template_methods2.c.
#include "base/utf8.h"
#include "text/template_filters.h"
#include "text/template_unicode.h"
#include <string.h>

// ---- arguments -----------------------------------------------------------------------------------------------------
bool mica_t_bind(mica_trun *r, const mica_targs *args, const char *what, const char *names, mica_tval *slots) {
    size_t count = 0, given = args->count - args->name_count;
    for (const char *at = names; *at; count++) {
        size_t n = strcspn(at, " ");
        slots[count] = count < given ? args->items[count] : mica_t_missing();
        for (size_t i = 0; i < args->name_count; i++) {
            if (args->names[i]->size != n || memcmp(args->names[i]->data, at, n)) continue;
            if (count < given) return mica_t_fail(r, "%s() got multiple values for argument '%.*s'", what, (int)n, at);
            slots[count] = args->items[given + i];
        }
        at += n + (at[n] == ' ');
    }
    if (given > count) return mica_t_fail(r, "%s() takes %zu argument%s but %zu were given", what, count, count == 1 ? "" : "s", given);
    for (size_t i = 0; i < args->name_count; i++) {
        bool known = false;
        for (const char *at = names; *at && !known; at += strcspn(at, " ") + (at[strcspn(at, " ")] == ' '))
            known = strcspn(at, " ") == args->names[i]->size && !memcmp(at, args->names[i]->data, args->names[i]->size);
        if (!known) return mica_t_fail(r, "%s() got an unexpected keyword argument '%.*s'", what, (int)args->names[i]->size, args->names[i]->data);
    }
    return true;
}

bool mica_t_int_argument(mica_trun *r, const mica_tval *v, int64_t otherwise, const char *what, int64_t *out) {
    *out = otherwise;
    if (v->kind == MICA_T_MISSING) return true;
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (!mica_t_is_whole(v)) return mica_t_fail(r, "%s: '%s' object cannot be interpreted as an integer", what, mica_t_type(v));
    return *out = mica_t_whole(v), true;
}

static bool string_argument(mica_trun *r, const mica_tval *v, const char *what, const mica_tstr **out) {
    *out = NULL;
    if (v->kind == MICA_T_STRING) return *out = v->s, true;
    if (v->kind == MICA_T_MISSING) return mica_t_fail(r, "%s() takes at least one argument", what);
    return mica_t_fail(r, "%s: must be str, not %s", what, mica_t_type(v));
}

/** No argument by name, and between least and most of them, in slots. */
static bool plain_arguments(mica_trun *r, const mica_targs *args, const char *what, size_t least, size_t most, mica_tval *slots) {
    if (args->name_count) return mica_t_fail(r, "str.%s() takes no keyword arguments", what);
    if (args->count < least || args->count > most)
        return mica_t_fail(r, "%s expected at %s %zu argument%s, got %zu", what, args->count < least ? "least" : "most", args->count < least ? least : most,
                           (args->count < least ? least : most) == 1 ? "" : "s", args->count);
    for (size_t i = 0; i < most; i++) slots[i] = i < args->count ? args->items[i] : mica_t_missing();
    return true;
}

// ---- find and count ------------------------------------------------------------------------------------------------
/** The bytes of s[start:end], with Python's rules for both. False: an empty range that matches nothing (start beyond the end). */
static bool byte_range(mica_trun *r, const mica_tstr *s, const mica_tval *start, const mica_tval *end, size_t *from, size_t *to, bool *valid) {
    int64_t n = (int64_t)s->chars, a = 0, b = n;
    if (start->kind != MICA_T_NONE && !mica_t_int_argument(r, start, 0, "slice", &a)) return false;
    if (end->kind != MICA_T_NONE && !mica_t_int_argument(r, end, n, "slice", &b)) return false;
    if (a < 0) a = MICA_MAX(a + n, (int64_t)0);
    if (b < 0) b = MICA_MAX(b + n, (int64_t)0);
    b = MICA_MIN(b, n);
    *valid = a <= b;
    *from = mica_t_offset(s, (size_t)MICA_MIN(a, n)), *to = *valid ? mica_t_offset(s, (size_t)b) : *from;
    return true;
}

static int64_t chars_before(const mica_tstr *s, size_t at) {
    int64_t n = 0;
    if (s->chars == s->size) return (int64_t)at;
    for (size_t i = 0; i < at; i++) n += ((unsigned char)s->data[i] & 0xC0) != 0x80;
    return n;
}

static size_t find_last(mica_trun *r, const mica_tstr *s, size_t from, size_t to, const mica_tstr *needle) {
    if (needle->size > to - from) return SIZE_MAX;
    for (size_t at = to - needle->size;; at--) {
        if (!memcmp(s->data + at, needle->data, needle->size)) return at;
        if (at == from || !mica_t_work(r, 1 + needle->size / 32)) return SIZE_MAX;
    }
}

static bool search(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *what, bool last, mica_tval *out) {
    mica_tval slot[3];
    const mica_tstr *needle;
    size_t from, to;
    bool valid;
    if (!plain_arguments(r, args, what, 1, 3, slot) || !string_argument(r, &slot[0], what, &needle) ||
        !byte_range(r, v->s, &slot[1], &slot[2], &from, &to, &valid))
        return false;
    size_t at = !valid ? SIZE_MAX : last ? find_last(r, v->s, from, to, needle) : mica_t_find(r, v->s, from, to, needle);
    *out = mica_t_int(at == SIZE_MAX ? -1 : chars_before(v->s, at));
    return mica_t_work(r, v->s->size / 64);
}

static bool str_find(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return search(r, v, args, "find", false, out); }
static bool str_rfind(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return search(r, v, args, "rfind", true, out); }
static bool str_index(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    return search(r, v, args, "index", false, out) && (out->i >= 0 || mica_t_fail(r, "substring not found"));
}
static bool str_rindex(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    return search(r, v, args, "rindex", true, out) && (out->i >= 0 || mica_t_fail(r, "substring not found"));
}

static bool str_count(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[3];
    const mica_tstr *needle;
    size_t from, to;
    bool valid;
    int64_t n = 0;
    if (!plain_arguments(r, args, "count", 1, 3, slot) || !string_argument(r, &slot[0], "count", &needle) ||
        !byte_range(r, v->s, &slot[1], &slot[2], &from, &to, &valid))
        return false;
    if (!needle->size) return *out = mica_t_int(valid ? chars_before(v->s, to) - chars_before(v->s, from) + 1 : 0), true;
    for (size_t at; valid && (at = mica_t_find(r, v->s, from, to, needle)) != SIZE_MAX; from = at + needle->size) n++;
    return *out = mica_t_int(n), !r->failed;
}

static bool matches_end(const mica_tstr *s, size_t from, size_t to, const mica_tstr *part, bool at_start) {
    return part->size <= to - from && !memcmp(s->data + (at_start ? from : to - part->size), part->data, part->size);
}

static bool starts_or_ends(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *what, bool at_start, mica_tval *out) {
    mica_tval slot[3];
    size_t from, to;
    bool valid, found = false;
    if (!plain_arguments(r, args, what, 1, 3, slot) || !byte_range(r, v->s, &slot[1], &slot[2], &from, &to, &valid)) return false;
    const mica_tval *parts = &slot[0];
    size_t count = 1;
    if (slot[0].kind == MICA_T_TUPLE) parts = slot[0].list->items, count = slot[0].list->count;
    for (size_t i = 0; i < count && !found; i++) {
        if (parts[i].kind != MICA_T_STRING)
            return mica_t_fail(r, "%s first arg must be str or a tuple of str, not %s", what, mica_t_type(&parts[i]));
        found = valid && matches_end(v->s, from, to, parts[i].s, at_start);
    }
    return *out = mica_t_bool(found), true;
}

static bool str_startswith(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return starts_or_ends(r, v, args, "startswith", true, out); }
static bool str_endswith(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return starts_or_ends(r, v, args, "endswith", false, out); }

static bool remove_end(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *what, bool at_start, mica_tval *out) {
    mica_tval slot[1];
    const mica_tstr *part;
    if (!plain_arguments(r, args, what, 1, 1, slot) || !string_argument(r, &slot[0], what, &part)) return false;
    if (!matches_end(v->s, 0, v->s->size, part, at_start)) return *out = *v, true;
    return mica_t_part(r, v->s, at_start ? part->size : 0, v->s->size - (at_start ? 0 : part->size), out);
}

static bool str_removeprefix(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return remove_end(r, v, args, "removeprefix", true, out); }
static bool str_removesuffix(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return remove_end(r, v, args, "removesuffix", false, out); }

// ---- strip ---------------------------------------------------------------------------------------------------------
static bool in_set(const mica_tstr *set, uint32_t cp) {
    char bytes[4];
    return set ? memmem(set->data, set->size, bytes, mica_utf8_encode(cp, bytes)) != NULL : mica_py_space(cp);
}

/** chars: a string of them, None or missing (whitespace). */
static bool strip(mica_trun *r, const mica_tstr *s, const mica_tval *chars, bool left, bool right, mica_tval *out) {
    const mica_tstr *set = NULL;
    size_t from = 0, to = s->size, len;
    uint32_t cp;
    if (chars->kind == MICA_T_STRING) set = chars->s;
    else if (chars->kind == MICA_T_UNDEFINED || (chars->kind != MICA_T_NONE && chars->kind != MICA_T_MISSING))
        return mica_t_fail(r, "strip arg must be None or str");
    while (left && from < to && (len = mica_utf8_decode(s->data + from, to - from, &cp)) && in_set(set, cp)) from += len;
    while (right && to > from) {
        size_t start = to - 1;
        while (start > from && ((unsigned char)s->data[start] & 0xC0) == 0x80) start--;
        if (!mica_utf8_decode(s->data + start, to - start, &cp) || !in_set(set, cp)) break;
        to = start;
    }
    return mica_t_work(r, (from + s->size - to) * (set ? 1 + set->size / 16 : 1) / 8) && mica_t_part(r, s, from, to, out);
}

static bool strip_method(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *what, bool left, bool right, mica_tval *out) {
    mica_tval slot[1];
    return plain_arguments(r, args, what, 0, 1, slot) && strip(r, v->s, &slot[0], left, right, out);
}

static bool str_strip(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return strip_method(r, v, args, "strip", true, true, out); }
static bool str_lstrip(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return strip_method(r, v, args, "lstrip", true, false, out); }
static bool str_rstrip(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return strip_method(r, v, args, "rstrip", false, true, out); }

// ---- split -----------------------------------------------------------------------------------------------------------
static bool push_part(mica_trun *r, mica_tlist *l, const mica_tstr *s, size_t from, size_t to) {
    mica_tval part;
    return mica_t_part(r, s, from, to, &part) && mica_t_push(r, l, part);
}

static size_t skip(const mica_tstr *s, size_t at, bool space) {
    uint32_t cp;
    for (size_t len; at < s->size && (len = mica_utf8_decode(s->data + at, s->size - at, &cp)) && mica_py_space(cp) == space;) at += len;
    return at;
}

static size_t skip_back(const mica_tstr *s, size_t at, bool space) {
    while (at) {
        size_t start = at - 1;
        uint32_t cp;
        while (start && ((unsigned char)s->data[start] & 0xC0) == 0x80) start--;
        if (!mica_utf8_decode(s->data + start, at - start, &cp) || mica_py_space(cp) != space) break;
        at = start;
    }
    return at;
}

static bool split_space(mica_trun *r, const mica_tstr *s, int64_t most, mica_tlist *l) {
    for (size_t at = skip(s, 0, true), end; at < s->size; at = skip(s, end, true)) {
        end = most-- == 0 ? s->size : skip(s, at, false);
        if (!push_part(r, l, s, at, end)) return false;
    }
    return mica_t_work(r, s->size / 16);
}

static bool split_at(mica_trun *r, const mica_tstr *s, const mica_tstr *sep, int64_t most, mica_tlist *l) {
    size_t from = 0, at;
    for (; most != 0 && (at = mica_t_find(r, s, from, s->size, sep)) != SIZE_MAX; from = at + sep->size, most--)
        if (!push_part(r, l, s, from, at)) return false;
    return push_part(r, l, s, from, s->size);
}

/** As split_at and split_space from the right; the parts come out backwards. */
static bool split_back(mica_trun *r, const mica_tstr *s, const mica_tstr *sep, int64_t most, mica_tlist *l) {
    size_t to = s->size, at;
    if (!sep) {
        for (to = skip_back(s, to, true); to; to = skip_back(s, at, true)) {
            at = most-- == 0 ? 0 : skip_back(s, to, false);
            if (!push_part(r, l, s, at, to)) return false;
        }
        return mica_t_work(r, s->size / 16);
    }
    for (; most != 0 && (at = find_last(r, s, 0, to, sep)) != SIZE_MAX; to = at, most--)
        if (!push_part(r, l, s, at + sep->size, to)) return false;
    return push_part(r, l, s, 0, to);
}

static bool split(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *what, bool back, mica_tval *out) {
    mica_tval slot[2];
    const mica_tstr *sep = NULL;
    int64_t most;
    mica_tlist *l = mica_t_list(r, 4);
    if (!l || !mica_t_bind(r, args, what, "sep maxsplit", slot) || !mica_t_int_argument(r, &slot[1], -1, what, &most)) return false;
    if (slot[0].kind != MICA_T_MISSING && slot[0].kind != MICA_T_NONE && !string_argument(r, &slot[0], what, &sep)) return false;
    if (sep && !sep->size) return mica_t_fail(r, "empty separator");
    if (most < 0) most = INT64_MAX;
    if (!(back ? split_back(r, v->s, sep, most, l) : sep ? split_at(r, v->s, sep, most, l) : split_space(r, v->s, most, l))) return false;
    for (size_t i = 0; back && i < l->count / 2; i++) {
        mica_tval other = l->items[i];
        l->items[i] = l->items[l->count - 1 - i], l->items[l->count - 1 - i] = other;
    }
    return *out = mica_t_of_list(MICA_T_LIST, l), !r->failed;
}

static bool str_split(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return split(r, v, args, "split", false, out); }
static bool str_rsplit(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return split(r, v, args, "rsplit", true, out); }

/** The length of the line end at a place, 0: none. */
static size_t line_end(const mica_tstr *s, size_t at) {
    uint32_t cp = 0;
    size_t len = mica_utf8_decode(s->data + at, s->size - at, &cp);
    if (cp == '\r' && at + 1 < s->size && s->data[at + 1] == '\n') return 2;
    bool is = (cp >= '\n' && cp <= '\r') || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
    return is ? len : 0;
}

static bool str_splitlines(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    mica_tlist *l = mica_t_list(r, 4);
    const mica_tstr *s = v->s;
    if (!l || !mica_t_bind(r, args, "splitlines", "keepends", slot)) return false;
    bool keep = mica_t_true(r, &slot[0]);
    for (size_t from = 0; from < s->size;) {
        size_t end = from, n = 0;
        while (end < s->size && !(n = line_end(s, end))) end++;
        if (!push_part(r, l, s, from, keep ? end + n : end)) return false;
        from = end + n;
    }
    return *out = mica_t_of_list(MICA_T_LIST, l), mica_t_work(r, s->size / 16);
}

static bool partition(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *what, bool last, mica_tval *out) {
    mica_tval slot[1];
    const mica_tstr *sep, *s = v->s;
    mica_tlist *l = mica_t_list(r, 3);
    if (!l || !plain_arguments(r, args, what, 1, 1, slot) || !string_argument(r, &slot[0], what, &sep)) return false;
    if (!sep->size) return mica_t_fail(r, "empty separator");
    size_t at = last ? find_last(r, s, 0, s->size, sep) : mica_t_find(r, s, 0, s->size, sep);
    size_t from = at == SIZE_MAX ? (last ? 0 : s->size) : at, to = at == SIZE_MAX ? from : at + sep->size;
    *out = mica_t_of_list(MICA_T_TUPLE, l);
    return push_part(r, l, s, 0, from) && push_part(r, l, s, from, to) && push_part(r, l, s, to, s->size);
}

static bool str_partition(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return partition(r, v, args, "partition", false, out); }
static bool str_rpartition(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return partition(r, v, args, "rpartition", true, out); }

// ---- join, replace, format --------------------------------------------------------------------------------------------
static bool str_join(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1], *items;
    size_t count;
    mica_tbuf b = {.r = r, .safe = v->s->safe};
    if (!plain_arguments(r, args, "join", 1, 1, slot)) return false;
    if (!mica_t_is_iterable(&slot[0])) return mica_t_fail(r, "can only join an iterable");
    if (!mica_t_items(r, &slot[0], &items, &count)) return false;
    for (size_t i = 0; i < count; i++) {
        if (items[i].kind != MICA_T_STRING && !b.safe)
            return mica_t_fail(r, "sequence item %zu: expected str instance, %s found", i, mica_t_type(&items[i]));
        const mica_tstr *s;
        if (!mica_t_soft(r, &items[i], &s) || (b.safe && !mica_t_escape(r, s, &s))) return false;
        if ((i && !mica_tbuf_str(&b, v->s)) || !mica_tbuf_str(&b, s)) return false;
    }
    return mica_tbuf_end(&b, out);
}

static bool replace(mica_trun *r, const mica_tstr *s, const mica_tstr *from, const mica_tstr *to, int64_t most, mica_tval *out) {
    mica_tbuf b = {.r = r, .safe = s->safe};
    size_t at = 0, found;
    if (!from->size) { // between all characters
        for (; at <= s->size && most != 0; most--) {
            size_t end = at + 1;
            while (end < s->size && ((unsigned char)s->data[end] & 0xC0) == 0x80) end++;
            if (!mica_tbuf_str(&b, to) || !mica_t_work(r, 1)) return false;
            if (at == s->size) return mica_tbuf_end(&b, out);
            if (!mica_tbuf_part(&b, s, at, MICA_MIN(end, s->size))) return false;
            at = end;
        }
        return mica_tbuf_part(&b, s, at, s->size) && mica_tbuf_end(&b, out);
    }
    for (; most != 0 && (found = mica_t_find(r, s, at, s->size, from)) != SIZE_MAX; at = found + from->size, most--)
        if (!mica_tbuf_part(&b, s, at, found) || !mica_tbuf_str(&b, to)) return false;
    return mica_tbuf_part(&b, s, at, s->size) && mica_tbuf_end(&b, out);
}

static bool str_replace(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[3];
    const mica_tstr *from, *to;
    int64_t most;
    if (!plain_arguments(r, args, "replace", 2, 3, slot) || !string_argument(r, &slot[0], "replace", &from) ||
        !string_argument(r, &slot[1], "replace", &to) || !mica_t_int_argument(r, &slot[2], -1, "replace", &most))
        return false;
    if (v->s->safe && !mica_t_escape(r, to, &to)) return false;
    return replace(r, v->s, from, to, most, out);
}

static bool str_format(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return mica_t_format(r, v->s, args, NULL, out); }

static bool str_format_map(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_targs none = {0};
    if (args->count != 1) return mica_t_fail(r, "format_map() takes exactly one argument (%zu given)", args->count);
    return mica_t_format(r, v->s, &none, &args->items[0], out);
}

const mica_tmethod_row mica_t_string_methods[] = {
    {"strip", str_strip}, {"lstrip", str_lstrip}, {"rstrip", str_rstrip}, {"split", str_split}, {"rsplit", str_rsplit},
    {"splitlines", str_splitlines}, {"partition", str_partition}, {"rpartition", str_rpartition}, {"startswith", str_startswith},
    {"endswith", str_endswith}, {"removeprefix", str_removeprefix}, {"removesuffix", str_removesuffix}, {"find", str_find}, {"rfind", str_rfind},
    {"index", str_index}, {"rindex", str_rindex}, {"count", str_count}, {"join", str_join}, {"replace", str_replace}, {"format", str_format},
    {"format_map", str_format_map}, {NULL, NULL}};
