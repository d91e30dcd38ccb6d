// SPDX-License-Identifier: Apache-2.0
// The text of values: Python's str() and repr(), and json.dumps().
#include "base/utf8.h"
#include "text/template_filters.h"
#include "text/template_parse.h"
#include "text/template_unicode.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** Digits and exponent of the shortest text that reads back as v (finite, not 0): d.ddd × 10^e. */
static int shortest(double v, char digits[20], int *count) {
    char text[40];
    for (int n = 1; n <= 17; n++) {
        snprintf(text, sizeof text, "%.*e", n - 1, v);
        if (strtod(text, NULL) == v) break;
    }
    char *e = strchr(text, 'e');
    *count = 0;
    for (char *c = text; c < e; c++)
        if (*c >= '0' && *c <= '9') digits[(*count)++] = *c;
    while (*count > 1 && digits[*count - 1] == '0') --*count;
    return atoi(e + 1);
}

void mica_t_float_text(double v, char *out, size_t size) {
    char digits[20];
    int count, e;
    const char *sign = signbit(v) ? "-" : "";
    if (isnan(v)) snprintf(out, size, "nan");
    else if (isinf(v)) snprintf(out, size, "%sinf", sign);
    else if (v == 0) snprintf(out, size, "%s0.0", sign);
    else if (e = shortest(fabs(v), digits, &count), e < -4 || e >= 16)
        snprintf(out, size, "%s%c%s%.*se%c%02d", sign, digits[0], count > 1 ? "." : "", count - 1, digits + 1, e < 0 ? '-' : '+', abs(e));
    else if (e < 0) snprintf(out, size, "%s0.%.*s%.*s", sign, -e - 1, "0000", count, digits);
    else if (count <= e + 1) snprintf(out, size, "%s%.*s%.*s.0", sign, count, digits, e + 1 - count, "0000000000000000");
    else snprintf(out, size, "%s%.*s.%.*s", sign, e + 1, digits, count - e - 1, digits + e + 1);
}

// ---- repr -------------------------------------------------------------------------------------------------------------
static bool escaped(mica_tbuf *b, uint32_t cp, char quote, bool marked) {
    char text[16];
    int n = 0;
    if (cp == (uint32_t)quote || cp == '\\') n = snprintf(text, sizeof text, "\\%c", (char)cp);
    else if (cp == '\n' || cp == '\r' || cp == '\t') n = snprintf(text, sizeof text, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
    else if (cp < 0x20 || cp == 0x7F) n = snprintf(text, sizeof text, "\\x%02x", cp);
    else if (mica_py_printable(cp)) return mica_tbuf_char(b, cp, marked);
    else n = snprintf(text, sizeof text, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    return mica_tbuf_add(b, text, (size_t)n, marked);
}

static bool repr_string(mica_tbuf *b, const mica_tstr *s) {
    char quote = memchr(s->data, '\'', s->size) && !memchr(s->data, '"', s->size) ? '"' : '\'';
    if (s->safe && !mica_tbuf_puts(b, "Markup(")) return false;
    if (!mica_tbuf_add(b, &quote, 1, false)) return false;
    for (size_t i = 0, len; i < s->size; i += len) {
        uint32_t cp;
        if (!(len = mica_utf8_decode(s->data + i, s->size - i, &cp))) len = 1, cp = 0xFFFD;
        if (!escaped(b, cp, quote, s->mark_count && mica_t_marked(s, i))) return false;
    }
    return mica_tbuf_add(b, &quote, 1, false) && (!s->safe || mica_tbuf_puts(b, ")"));
}

static bool repr_list(mica_tbuf *b, const mica_tval *items, size_t count, const char *open, const char *close) {
    if (!mica_tbuf_puts(b, open)) return false;
    for (size_t i = 0; i < count; i++)
        if ((i && !mica_tbuf_puts(b, ", ")) || !mica_t_repr(b, &items[i])) return false;
    return mica_tbuf_puts(b, close);
}

static bool repr_dict(mica_tbuf *b, const mica_tdict *d) {
    if (!mica_tbuf_puts(b, "{")) return false;
    for (size_t i = 0; i < d->count; i++)
        if ((i && !mica_tbuf_puts(b, ", ")) || !mica_t_repr(b, &d->entries[i].key) || !mica_tbuf_puts(b, ": ") ||
            !mica_t_repr(b, &d->entries[i].value))
            return false;
    return mica_tbuf_puts(b, "}");
}

static bool repr_view(mica_tbuf *b, const mica_tval *v) {
    mica_tval *items;
    size_t count;
    return mica_t_items(b->r, v, &items, &count) && mica_tbuf_puts(b, mica_t_type(v)) && repr_list(b, items, count, "([", "])");
}

static bool repr_range(mica_tbuf *b, const mica_trange *range) {
    char text[100];
    if (range->step == 1) snprintf(text, sizeof text, "range(%lld, %lld)", (long long)range->start, (long long)range->stop);
    else snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)range->start, (long long)range->stop, (long long)range->step);
    return mica_tbuf_puts(b, text);
}

/** Objects whose text in Python holds an address: the text without it. */
static bool repr_object(mica_tbuf *b, const mica_tval *v) {
    char text[200];
    if (v->kind == MICA_T_MACRO) {
        const mica_tstr *name = v->macro->node->name;
        snprintf(text, sizeof text, name ? "<Macro '%.*s'>" : "<Macro anonymous>", name ? (int)MICA_MIN(name->size, (size_t)150) : 0, name ? name->data : "");
    } else if (v->kind == MICA_T_LOOP) {
        snprintf(text, sizeof text, "<LoopContext %zu/%zu>", v->loop->index + 1, v->loop->count);
    } else if (v->kind == MICA_T_METHOD) {
        snprintf(text, sizeof text, "<built-in method %s of %s object>", v->method->name, mica_t_type(&v->method->object));
    } else {
        snprintf(text, sizeof text, "<%s object>", mica_t_type(v));
    }
    return mica_tbuf_puts(b, text);
}

static bool repr_one(mica_tbuf *b, const mica_tval *v) {
    char text[40];
    switch (v->kind) {
    case MICA_T_UNDEFINED: return mica_tbuf_puts(b, "Undefined");
    case MICA_T_NONE: return mica_tbuf_puts(b, "None");
    case MICA_T_BOOL: return mica_tbuf_puts(b, v->b ? "True" : "False");
    case MICA_T_INT: return snprintf(text, sizeof text, "%lld", (long long)v->i) > 0 && mica_tbuf_puts(b, text);
    case MICA_T_FLOAT: return mica_t_float_text(v->f, text, sizeof text), mica_tbuf_puts(b, text);
    case MICA_T_STRING: return repr_string(b, v->s);
    case MICA_T_LIST: return repr_list(b, v->list->items, v->list->count, "[", "]");
    case MICA_T_TUPLE: return repr_list(b, v->list->items, v->list->count, "(", v->list->count == 1 ? ",)" : ")");
    case MICA_T_DICT: return repr_dict(b, v->dict);
    case MICA_T_VIEW: return repr_view(b, v);
    case MICA_T_RANGE: return repr_range(b, v->range);
    case MICA_T_NAMESPACE: return mica_tbuf_puts(b, "<Namespace ") && repr_dict(b, v->dict) && mica_tbuf_puts(b, ">");
    default: return repr_object(b, v);
    }
}

bool mica_t_repr(mica_tbuf *b, const mica_tval *v) {
    bool ok = mica_t_enter(b->r) && mica_t_work(b->r, 1) && repr_one(b, v);
    mica_t_leave(b->r);
    return ok;
}

bool mica_t_str(mica_tbuf *b, const mica_tval *v) {
    if (v->kind == MICA_T_STRING) return mica_tbuf_str(b, v->s);
    return v->kind == MICA_T_UNDEFINED ? !b->r->failed : mica_t_repr(b, v);
}

bool mica_t_soft(mica_trun *r, const mica_tval *v, const mica_tstr **out) {
    if (v->kind == MICA_T_STRING) return *out = v->s, true;
    mica_tbuf b = {.r = r};
    return mica_t_str(&b, v) && (*out = mica_tbuf_take(&b));
}

// ---- JSON ------------------------------------------------------------------------------------------------------------
static bool json_char(mica_tbuf *b, uint32_t cp, bool ascii, bool marked) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char text[16];
    const char *known = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;
    if (known) snprintf(text, sizeof text, "\\%c", to[known - from]);
    else if (cp < 0x20 || (ascii && cp > 0x7E && cp < 0x10000)) snprintf(text, sizeof text, "\\u%04x", cp);
    else if (ascii && cp > 0x7E) snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10), 0xDC00 + ((cp - 0x10000) & 0x3FF));
    else return mica_tbuf_char(b, cp, marked);
    return mica_tbuf_add(b, text, strlen(text), marked);
}

static bool json_string(mica_tbuf *b, const mica_tstr *s, bool ascii) {
    if (!mica_tbuf_puts(b, "\"")) return false;
    for (size_t i = 0, len; i < s->size; i += len) {
        size_t run = i;
        while (run < s->size && (unsigned char)s->data[run] >= 0x20 && (!ascii || (unsigned char)s->data[run] < 0x7F) && s->data[run] != '"' && s->data[run] != '\\') run++;
        if (!mica_tbuf_part(b, s, i, run)) return false;
        len = run - i;
        if (run == s->size) break;
        uint32_t cp;
        size_t n = mica_utf8_decode(s->data + run, s->size - run, &cp);
        if (!n) n = 1, cp = 0xFFFD;
        if (cp == 0x7F ? !mica_tbuf_part(b, s, run, run + 1) : !json_char(b, cp, ascii, s->mark_count && mica_t_marked(s, run))) return false;
        len += n;
    }
    return mica_tbuf_puts(b, "\"");
}

static bool json_float(mica_tbuf *b, double v) {
    char text[40];
    mica_t_float_text(v, text, sizeof text);
    return mica_tbuf_puts(b, isnan(v) ? "NaN" : isinf(v) ? (v > 0 ? "Infinity" : "-Infinity") : text);
}

static bool new_line(mica_tbuf *b, const mica_tjson_style *style, unsigned level) {
    if (!style->indent) return true;
    return mica_tbuf_puts(b, "\n") && mica_tbuf_fill(b, style->indent, level);
}

static bool json_value(mica_tbuf *b, const mica_tval *v, const mica_tjson_style *style, unsigned level);

static bool json_list(mica_tbuf *b, const mica_tlist *l, const mica_tjson_style *style, unsigned level) {
    if (!l->count) return mica_tbuf_puts(b, "[]");
    if (!mica_tbuf_puts(b, "[")) return false;
    for (size_t i = 0; i < l->count; i++)
        if ((i && !mica_tbuf_puts(b, style->item)) || !new_line(b, style, level + 1) || !json_value(b, &l->items[i], style, level + 1)) return false;
    return new_line(b, style, level) && mica_tbuf_puts(b, "]");
}

static bool json_key(mica_tbuf *b, const mica_tval *key, const mica_tjson_style *style) {
    if (key->kind == MICA_T_STRING) return json_string(b, key->s, style->ascii);
    if (key->kind != MICA_T_NONE && !mica_t_is_number(key))
        return mica_t_fail(b->r, "keys must be str, int, float, bool or None, not %s", mica_t_type(key));
    return mica_tbuf_puts(b, "\"") && json_value(b, key, style, 0) && mica_tbuf_puts(b, "\"");
}

/** The entries by key, for sort_keys. */
static mica_tentry *sorted_entries(mica_trun *r, const mica_tdict *d) {
    mica_tentry *e = mica_t_alloc(r, d->count * sizeof *e + 1);
    for (size_t i = 0; e && i < d->count; i++) {
        size_t at = i;
        bool less = true;
        for (; at && mica_t_less(r, &d->entries[i].key, &e[at - 1].key, "<", &less) && less && mica_t_work(r, 1); at--) e[at] = e[at - 1];
        if (r->failed) return NULL;
        e[at] = d->entries[i];
    }
    return e;
}

static bool json_dict(mica_tbuf *b, const mica_tdict *d, const mica_tjson_style *style, unsigned level) {
    if (!d->count) return mica_tbuf_puts(b, "{}");
    const mica_tentry *e = style->sorted ? sorted_entries(b->r, d) : d->entries;
    if (!e || !mica_tbuf_puts(b, "{")) return false;
    for (size_t i = 0; i < d->count; i++)
        if ((i && !mica_tbuf_puts(b, style->item)) || !new_line(b, style, level + 1) || !json_key(b, &e[i].key, style) ||
            !mica_tbuf_puts(b, style->key) || !json_value(b, &e[i].value, style, level + 1))
            return false;
    return new_line(b, style, level) && mica_tbuf_puts(b, "}");
}

static bool json_one(mica_tbuf *b, const mica_tval *v, const mica_tjson_style *style, unsigned level) {
    switch (v->kind) {
    case MICA_T_NONE: return mica_tbuf_puts(b, "null");
    case MICA_T_BOOL: return mica_tbuf_puts(b, v->b ? "true" : "false");
    case MICA_T_INT: return mica_t_repr(b, v);
    case MICA_T_FLOAT: return json_float(b, v->f);
    case MICA_T_STRING: return json_string(b, v->s, style->ascii);
    case MICA_T_LIST:
    case MICA_T_TUPLE: return json_list(b, v->list, style, level);
    case MICA_T_DICT: return json_dict(b, v->dict, style, level);
    default: return mica_t_fail(b->r, "Object of type %s is not JSON serializable", mica_t_type(v));
    }
}

static bool json_value(mica_tbuf *b, const mica_tval *v, const mica_tjson_style *style, unsigned level) {
    bool ok = mica_t_enter(b->r) && mica_t_work(b->r, 1) && json_one(b, v, style, level);
    mica_t_leave(b->r);
    return ok;
}

bool mica_t_json(mica_tbuf *b, const mica_tval *v, const mica_tjson_style *style) { return json_value(b, v, style, 0); }
