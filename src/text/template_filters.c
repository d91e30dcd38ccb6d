// SPDX-License-Identifier: Apache-2.0
// Filters on single values: text, numbers, JSON, default.
#include "text/template_filters.h"
#include "base/utf8.h"
#include "text/template_unicode.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Calls a method of strings on str(v). */
static bool as_method(mica_trun *r, const mica_tval *v, const char *name, const mica_targs *args, mica_tval *out) {
    const mica_tstr *s;
    if (!mica_t_soft(r, v, &s)) return false;
    mica_tval text = mica_t_string(s);
    for (const mica_tmethod_row *table = mica_t_string_methods; table; table = table == mica_t_string_methods ? mica_t_string_methods2 : NULL)
        for (const mica_tmethod_row *row = table; row->name; row++)
            if (!strcmp(row->name, name)) return row->call(r, &text, args, out);
    return mica_t_fail_code(r, MICA_ERR_INTERNAL, "no method %s", name);
}

// ---- text ----------------------------------------------------------------------------------------------------------
static bool f_upper(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return as_method(r, v, "upper", args, out); }
static bool f_lower(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return as_method(r, v, "lower", args, out); }
static bool f_capitalize(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return as_method(r, v, "capitalize", args, out); }

static bool f_trim(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    if (!mica_t_bind(r, args, "trim", "chars", slot)) return false;
    mica_targs one = {slot, slot[0].kind != MICA_T_MISSING, NULL, 0};
    return as_method(r, v, "strip", &one, out);
}

static bool f_center(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    if (!mica_t_bind(r, args, "center", "width", slot)) return false;
    if (slot[0].kind == MICA_T_MISSING) slot[0] = mica_t_int(80);
    mica_targs one = {slot, 1, NULL, 0};
    return as_method(r, v, "center", &one, out);
}

/** Words begin behind - ( { [ < and whitespace: Jinja's title differs from Python's. */
static bool f_title(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    const mica_tstr *s;
    mica_tbuf b = {.r = r};
    bool first = true;
    mica_targs none = {0};
    if (!mica_t_bind(r, args, "title", "", NULL) || !mica_t_soft(r, v, &s)) return false;
    for (size_t i = 0, end; i < s->size; i = end) {
        mica_tval piece;
        uint32_t cp = 0;
        size_t len = mica_utf8_decode(s->data + i, s->size - i, &cp);
        end = i + (len ? len : 1);
        bool border = mica_py_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
        while (!first && !border && end < s->size) { // the rest of the word at once
            if (!(len = mica_utf8_decode(s->data + end, s->size - end, &cp)) || mica_py_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp))) break;
            end += len;
        }
        if (!mica_t_part(r, s, i, end, &piece) || !as_method(r, &piece, first ? "upper" : "lower", &none, &piece) || !mica_tbuf_str(&b, piece.s)) return false;
        first = border;
    }
    return mica_tbuf_end(&b, out);
}

/** A plain string: str(v), Markup or not. */
static bool plain(mica_trun *r, const mica_tval *v, mica_tval *out) {
    mica_tbuf b = {.r = r};
    return mica_t_str(&b, v) && mica_tbuf_end(&b, out);
}

static bool f_replace(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[3], s;
    if (!mica_t_bind(r, args, "do_replace", "old new count", slot)) return false;
    if (slot[1].kind == MICA_T_MISSING) return mica_t_fail(r, "do_replace() missing required positional arguments");
    if (!plain(r, v, &s) || !plain(r, &slot[0], &slot[0]) || !plain(r, &slot[1], &slot[1])) return false;
    mica_targs three = {slot, slot[2].kind == MICA_T_MISSING || slot[2].kind == MICA_T_NONE ? 2 : 3, NULL, 0};
    return as_method(r, &s, "replace", &three, out);
}

static bool f_string(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    const mica_tstr *s;
    if (!mica_t_bind(r, args, "string", "", NULL) || !mica_t_soft(r, v, &s)) return false;
    return *out = mica_t_string(s), true;
}

static bool make_safe(mica_trun *r, const mica_tstr *s, mica_tval *out) {
    mica_tstr *safe = mica_t_alloc(r, sizeof *safe);
    if (!safe) return false;
    *safe = *s;
    safe->safe = true;
    return *out = mica_t_string(safe), true;
}

static bool f_safe(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    const mica_tstr *s;
    return mica_t_bind(r, args, "safe", "", NULL) && mica_t_soft(r, v, &s) && make_safe(r, s, out);
}

static bool f_escape(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    const mica_tstr *s;
    if (!mica_t_bind(r, args, "escape", "", NULL) || !mica_t_soft(r, v, &s) || !mica_t_escape(r, s, &s)) return false;
    return *out = mica_t_string(s), true;
}

static bool f_forceescape(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval s;
    return plain(r, v, &s) && f_escape(r, &s, args, out);
}

static bool f_format(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    const mica_tstr *s;
    size_t given = args->count - args->name_count;
    mica_tval values;
    if (!mica_t_soft(r, v, &s)) return false;
    if (given && args->name_count) return mica_t_fail(r, "can't handle positional and keyword arguments at the same time");
    if (args->name_count) {
        mica_tdict *d = mica_t_dict(r);
        for (size_t i = 0; d && i < args->name_count; i++)
            if (!mica_t_put(r, d, mica_t_string(args->names[i]), args->items[i])) return false;
        if (!d) return false;
        values = mica_t_of_dict(MICA_T_DICT, d);
    } else {
        mica_tlist *l = mica_t_list(r, given);
        for (size_t i = 0; l && i < given; i++)
            if (!mica_t_push(r, l, args->items[i])) return false;
        if (!l) return false;
        values = mica_t_of_list(MICA_T_TUPLE, l);
    }
    return mica_t_percent(r, s, &values, out);
}

/** What goes before each line: a string, or so many spaces. */
static bool indentation(mica_trun *r, const mica_tval *v, int64_t otherwise, const mica_tstr **out) {
    int64_t width;
    if (v->kind == MICA_T_STRING) return *out = v->s, true;
    mica_tbuf b = {.r = r};
    const mica_tstr space = {.data = " ", .size = 1, .chars = 1};
    return mica_t_int_argument(r, v, otherwise, "indent", &width) && mica_tbuf_fill(&b, &space, width) && (*out = mica_tbuf_take(&b));
}

static bool f_indent(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[3], lines;
    const mica_tstr *in;
    mica_targs none = {0};
    if (!mica_t_bind(r, args, "do_indent", "width first blank", slot) || !indentation(r, &slot[0], 4, &in)) return false;
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (v->kind != MICA_T_STRING) return mica_t_fail(r, "unsupported operand type(s) for +=: '%s' and 'str'", mica_t_type(v));
    bool first = mica_t_true(r, &slot[1]), blank = mica_t_true(r, &slot[2]);
    mica_tbuf all = {.r = r, .safe = v->s->safe}, b = {.r = r, .safe = v->s->safe};
    mica_tval whole;
    if (!mica_tbuf_str(&all, v->s) || !mica_tbuf_puts(&all, "\n") || !mica_tbuf_end(&all, &whole) || !as_method(r, &whole, "splitlines", &none, &lines)) return false;
    for (size_t i = 0; i < lines.list->count; i++) {
        const mica_tstr *line = lines.list->items[i].s;
        bool indented = i ? blank || line->size : first;
        if ((i && !mica_tbuf_puts(&b, "\n")) || (indented && !mica_tbuf_str(&b, in)) || !mica_tbuf_str(&b, line)) return false;
    }
    return mica_tbuf_end(&b, out);
}

static bool f_wordcount(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    const mica_tstr *s;
    int64_t n = 0;
    bool inside = false;
    if (!mica_t_bind(r, args, "wordcount", "", NULL) || !mica_t_soft(r, v, &s)) return false;
    for (size_t i = 0, len; i < s->size; i += len ? len : 1) {
        uint32_t cp = 0;
        len = mica_utf8_decode(s->data + i, s->size - i, &cp);
        bool word = cp == '_' || mica_py_alnum(cp);
        n += word && !inside;
        inside = word;
    }
    return *out = mica_t_int(n), mica_t_work(r, s->size / 16);
}

static bool f_truncate(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[4], cut;
    int64_t length, leeway;
    if (!mica_t_bind(r, args, "do_truncate", "length killwords end leeway", slot) || !mica_t_int_argument(r, &slot[0], 255, "truncate", &length)) return false;
    if (slot[3].kind == MICA_T_NONE) slot[3].kind = MICA_T_MISSING;
    if (!mica_t_int_argument(r, &slot[3], 5, "truncate", &leeway)) return false;
    if (slot[2].kind == MICA_T_MISSING && !mica_t_puts(r, "...", &slot[2])) return false;
    size_t n;
    if (v->kind != MICA_T_STRING && mica_t_length(v, &n) && (int64_t)n <= length && leeway >= 0) return *out = *v, true;
    if (v->kind != MICA_T_STRING || slot[2].kind != MICA_T_STRING) return mica_t_fail(r, "truncate works on strings, not on '%s'", mica_t_type(v));
    const mica_tstr *end = slot[2].s;
    if (length < (int64_t)end->chars || leeway < 0) return mica_t_fail(r, "expected length >= %zu, got %lld", end->chars, (long long)length);
    if ((int64_t)v->s->chars <= length || (int64_t)v->s->chars - length <= leeway) return *out = *v, true;
    if (!mica_t_part(r, v->s, 0, mica_t_offset(v->s, (size_t)length - end->chars), &cut)) return false;
    if (!mica_t_true(r, &slot[1])) {
        size_t space = cut.s->size;
        while (space && cut.s->data[space - 1] != ' ') space--;
        if (space && !mica_t_part(r, cut.s, 0, space - 1, &cut)) return false;
    }
    return mica_t_add(r, &cut, &slot[2], out);
}

static bool f_striptags(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    (void)v, (void)args, (void)out;
    return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "the filters pprint, random, striptags, urlize, wordwrap and xmlattr are not supported");
}

static bool quote_url(mica_tbuf *b, const mica_tstr *s, const char *safe) {
    char hex[4];
    for (size_t i = 0; i < s->size; i++) {
        unsigned char c = (unsigned char)s->data[i];
        bool keep = c < 0x80 && ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("_.-~", c)) || (c && strchr(safe, c)));
        hex[0] = '%', hex[1] = "0123456789ABCDEF"[c >> 4], hex[2] = "0123456789ABCDEF"[c & 15];
        bool plus = c == ' ' && !*safe; // in a query
        if (!mica_tbuf_add(b, plus ? "+" : keep ? s->data + i : hex, plus || keep ? 1 : 3, s->mark_count && mica_t_marked(s, i)) || !mica_t_work(b->r, 1)) return false;
    }
    return true;
}

static bool f_urlencode(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval *items, view = *v;
    mica_tbuf b = {.r = r};
    size_t count;
    const mica_tstr *s;
    if (!mica_t_bind(r, args, "urlencode", "", NULL)) return false;
    if (v->kind == MICA_T_STRING || !mica_t_is_iterable(v)) return mica_t_soft(r, v, &s) && quote_url(&b, s, "/") && mica_tbuf_end(&b, out);
    mica_tview items_of = {v->dict, 'i'};
    if (v->kind == MICA_T_DICT) view = (mica_tval){.kind = MICA_T_VIEW, .view = &items_of};
    if (!mica_t_items(r, &view, &items, &count)) return false;
    for (size_t i = 0; i < count; i++) {
        mica_tval *pair;
        size_t two;
        if (!mica_t_items(r, &items[i], &pair, &two)) return false;
        if (two != 2) return mica_t_fail(r, "urlencode wants pairs");
        for (size_t k = 0; k < 2; k++)
            if (((i || k) && !mica_tbuf_puts(&b, k ? "=" : "&")) || !mica_t_soft(r, &pair[k], &s) || !quote_url(&b, s, "")) return false;
    }
    return mica_tbuf_end(&b, out);
}

// ---- JSON ----------------------------------------------------------------------------------------------------------
static bool separators(mica_trun *r, const mica_tval *v, mica_tjson_style *style) {
    mica_tval *items;
    size_t count;
    if (v->kind == MICA_T_MISSING || v->kind == MICA_T_NONE) return true;
    if (!mica_t_items(r, v, &items, &count)) return false;
    if (count != 2 || items[0].kind != MICA_T_STRING || items[1].kind != MICA_T_STRING) return mica_t_fail(r, "separators must be two strings");
    const mica_tstr *item = items[0].s, *key = items[1].s;
    char *text = mica_t_alloc(r, item->size + key->size + 2);
    if (!text) return false;
    memcpy(text, item->data, item->size), text[item->size] = 0;
    memcpy(text + item->size + 1, key->data, key->size), text[item->size + 1 + key->size] = 0;
    style->item = text, style->key = text + item->size + 1;
    return true;
}

static bool f_tojson(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[4];
    mica_tjson_style style = {.item = ", ", .key = ": "};
    mica_tbuf b = {.r = r};
    if (!mica_t_bind(r, args, "tojson", "ensure_ascii indent separators sort_keys", slot)) return false;
    if (slot[1].kind != MICA_T_MISSING && slot[1].kind != MICA_T_NONE) {
        style.item = ",";
        if (!indentation(r, &slot[1], 0, &style.indent)) return false;
    }
    style.ascii = mica_t_true(r, &slot[0]), style.sorted = mica_t_true(r, &slot[3]);
    return separators(r, &slot[2], &style) && mica_t_json(&b, v, &style) && mica_tbuf_end(&b, out);
}

// ---- numbers -------------------------------------------------------------------------------------------------------
/** The text of a number without underscores and outer whitespace, as int() and float() read it; false: it has none. */
static bool number_text(const mica_tstr *s, char *text, size_t size) {
    size_t from = 0, to = s->size, n = 0;
    while (from < to && mica_py_space((unsigned char)s->data[from])) from++;
    while (to > from && mica_py_space((unsigned char)s->data[to - 1])) to--;
    if (from == to || to - from >= size) return false;
    for (size_t i = from; i < to; i++) {
        bool digits = i > from && i + 1 < to && strchr("0123456789abcdefABCDEF", s->data[i - 1]) && strchr("0123456789abcdefABCDEF", s->data[i + 1]);
        if (!s->data[i] || (s->data[i] == '_' && !digits)) return false;
        if (s->data[i] != '_') text[n++] = s->data[i];
    }
    return text[n] = 0, n > 0;
}

static bool read_whole(const mica_tstr *s, int64_t base, int64_t *v, bool *too_large) {
    char text[400], *end;
    if (!number_text(s, text, sizeof text)) return false;
    size_t digits = (size_t)(text[0] == '-' || text[0] == '+');
    if (mica_py_space((unsigned char)text[digits])) return false;
    if (base == 10 || base == 0) { // strtoll would take 010 as octal, and 0b1 not at all
        if (base == 0 && text[digits] == '0' && text[digits + 1]) return false;
        base = 10;
    }
    if (base < 2 || base > 36) return false;
    errno = 0;
    long long value = strtoll(text, &end, (int)base);
    if (*end || end == text + digits) return false;
    *too_large = errno != 0;
    return *v = value, true;
}

static bool read_real(const mica_tstr *s, double *v) {
    char text[400], *end;
    if (!number_text(s, text, sizeof text) || strpbrk(text, "xXpP(")) return false;
    *v = strtod(text, &end);
    return !*end && end != text && !mica_py_space((unsigned char)text[0]);
}

static bool whole_of_real(mica_trun *r, double v, const mica_tval *otherwise, mica_tval *out) {
    if (!isfinite(v)) return *out = *otherwise, true;
    if (!(fabs(v) < 9.2e18)) return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "integers beyond 64 bits are not supported");
    return *out = mica_t_int((int64_t)v), true;
}

static bool f_int(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2];
    int64_t base, whole;
    double real;
    bool too_large = false;
    if (!mica_t_bind(r, args, "do_int", "default base", slot) || !mica_t_int_argument(r, &slot[1], 10, "int", &base)) return false;
    if (slot[0].kind == MICA_T_MISSING) slot[0] = mica_t_int(0);
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (mica_t_is_whole(v)) return *out = mica_t_int(mica_t_whole(v)), true;
    if (v->kind == MICA_T_FLOAT) return whole_of_real(r, v->f, &slot[0], out);
    if (v->kind != MICA_T_STRING) return *out = slot[0], true;
    if (read_whole(v->s, base, &whole, &too_large)) {
        if (too_large) return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "integers beyond 64 bits are not supported");
        return *out = mica_t_int(whole), true;
    }
    return read_real(v->s, &real) ? whole_of_real(r, real, &slot[0], out) : (*out = slot[0], true);
}

static bool f_float(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    double real;
    if (!mica_t_bind(r, args, "do_float", "default", slot)) return false;
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (mica_t_is_number(v)) return *out = mica_t_float(mica_t_number(v)), true;
    if (v->kind == MICA_T_STRING && read_real(v->s, &real)) return *out = mica_t_float(real), true;
    return *out = slot[0].kind == MICA_T_MISSING ? mica_t_float(0) : slot[0], true;
}

static bool f_abs(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    if (!mica_t_bind(r, args, "abs", "", NULL)) return false;
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    if (!mica_t_is_number(v)) return mica_t_fail(r, "bad operand type for abs(): '%s'", mica_t_type(v));
    if (v->kind == MICA_T_FLOAT) return *out = mica_t_float(fabs(v->f)), true;
    return mica_t_whole(v) < 0 ? mica_t_sign(r, v, true, out) : (*out = mica_t_int(mica_t_whole(v)), true);
}

/** Round half to even on the decimal digits of v, as Python's round does. */
static double round_to(double v, int64_t digits) {
    char text[500];
    if (!isfinite(v) || digits > 300) return v;
    if (digits < -300) return copysign(0, v);
    if (digits >= 0) return snprintf(text, sizeof text, "%.*f", (int)digits, v) < (int)sizeof text ? strtod(text, NULL) : v;
    double unit = pow(10, (double)-digits);
    return nearbyint(v / unit) * unit;
}

static bool f_round(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2];
    int64_t digits;
    if (!mica_t_bind(r, args, "do_round", "precision method", slot) || !mica_t_int_argument(r, &slot[0], 0, "round", &digits)) return false;
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, v);
    bool common = slot[1].kind == MICA_T_MISSING || mica_t_is(&slot[1], "common"), up = mica_t_is(&slot[1], "ceil");
    if (!common && !up && !mica_t_is(&slot[1], "floor")) return mica_t_fail(r, "method must be common, ceil or floor");
    if (!mica_t_is_number(v)) return mica_t_fail(r, "type %s doesn't define __round__ method", mica_t_type(v));
    if (common && mica_t_is_whole(v) && digits >= 0) return *out = mica_t_int(mica_t_whole(v)), true;
    if (common && mica_t_is_whole(v)) return *out = mica_t_int((int64_t)round_to((double)mica_t_whole(v), digits)), true;
    double unit = pow(10, (double)digits), scaled = mica_t_number(v) * unit;
    *out = mica_t_float(common ? round_to(v->f, digits) : (up ? ceil(scaled) : floor(scaled)) / unit);
    return true;
}

static bool f_filesizeformat(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    static const char *const names[2][8] = {{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}, {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    mica_tval slot[1], number;
    mica_tval nothing = mica_t_none();
    mica_targs otherwise = {&nothing, 1, NULL, 0};
    char text[64];
    if (!mica_t_bind(r, args, "do_filesizeformat", "binary", slot) || !f_float(r, v, &otherwise, &number)) return false;
    if (number.kind != MICA_T_FLOAT) return mica_t_fail(r, "could not convert '%s' to float", mica_t_type(v));
    bool binary = mica_t_true(r, &slot[0]);
    double bytes = number.f, base = binary ? 1024 : 1000, unit = base;
    if (bytes == 1) return mica_t_puts(r, "1 Byte", out);
    if (bytes < base) return snprintf(text, sizeof text, "%lld Bytes", (long long)bytes) > 0 && mica_t_puts(r, text, out);
    size_t i = 0;
    for (unit = base * base; i < 7 && bytes >= unit; i++) unit *= base;
    snprintf(text, sizeof text, "%.1f %s", base * bytes / unit, names[binary][i]);
    return mica_t_puts(r, text, out);
}

// ---- the rest ------------------------------------------------------------------------------------------------------
static bool f_default(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[2];
    if (!mica_t_bind(r, args, "do_default", "default_value boolean", slot)) return false;
    bool use = v->kind == MICA_T_UNDEFINED || (mica_t_true(r, &slot[1]) && !mica_t_true(r, v));
    if (use && slot[0].kind == MICA_T_MISSING) return mica_t_puts(r, "", out);
    return *out = use ? slot[0] : *v, true;
}

static bool f_length(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    size_t n;
    if (!mica_t_bind(r, args, "len", "", NULL)) return false;
    if (v->kind == MICA_T_LOOP) return *out = mica_t_int((int64_t)v->loop->count), true;
    if (!mica_t_length(v, &n)) return mica_t_fail(r, "object of type '%s' has no len()", mica_t_type(v));
    return *out = mica_t_int((int64_t)n), true;
}

static bool f_attr(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    if (!mica_t_bind(r, args, "do_attr", "name", slot)) return false;
    if (slot[0].kind != MICA_T_STRING) return mica_t_fail(r, "attribute name must be string, not '%s'", mica_t_type(&slot[0]));
    if (!mica_t_own_attribute(r, v, slot[0].s, out)) return false;
    return out->kind != MICA_T_MISSING || mica_t_undefined(r, v, slot[0], out);
}

static const mica_tfilter text_filters[] = {
    {"upper", f_upper}, {"lower", f_lower}, {"capitalize", f_capitalize}, {"title", f_title}, {"trim", f_trim}, {"center", f_center},
    {"replace", f_replace}, {"string", f_string}, {"safe", f_safe}, {"escape", f_escape}, {"e", f_escape}, {"forceescape", f_forceescape},
    {"format", f_format}, {"indent", f_indent}, {"wordcount", f_wordcount}, {"truncate", f_truncate}, {"urlencode", f_urlencode},
    {"tojson", f_tojson}, {"int", f_int}, {"float", f_float}, {"abs", f_abs}, {"round", f_round}, {"filesizeformat", f_filesizeformat},
    {"default", f_default}, {"d", f_default}, {"length", f_length}, {"count", f_length}, {"attr", f_attr}, {"striptags", f_striptags},
    {"pprint", f_striptags}, {"random", f_striptags}, {"urlize", f_striptags}, {"wordwrap", f_striptags}, {"xmlattr", f_striptags}, {NULL, NULL}};

static const mica_tfilter *find(const mica_tfilter *row, const char *name, size_t size) {
    for (; row->name; row++)
        if (strlen(row->name) == size && !memcmp(row->name, name, size)) return row;
    return NULL;
}

const mica_tfilter *mica_t_filter_named(const char *name, size_t size) {
    const mica_tfilter *f = find(text_filters, name, size);
    if (!f) f = find(mica_t_filters_sequence, name, size);
    return f ? f : find(mica_t_filters_select, name, size);
}

const mica_tfilter *mica_t_test_named(const char *name, size_t size) { return find(mica_t_tests, name, size); }
