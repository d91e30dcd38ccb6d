// SPDX-License-Identifier: Apache-2.0
// Formatting: "%5.2f" % v, "{:>8}".format(v) and the padding that both share. Widths and precisions are bounded by the longest text that
// a render may make.
#include "base/utf8.h"
#include "text/template_filters.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DIGITS = 400 }; // of a number's precision

// ---- padding ------------------------------------------------------------------------------------------------------
static bool fill(mica_tbuf *b, uint32_t cp, int64_t n) {
    char bytes[4];
    mica_tstr one = {.data = bytes, .chars = 1};
    one.size = mica_utf8_encode(cp, bytes);
    return mica_tbuf_fill(b, &one, n);
}

bool mica_t_padded(mica_tbuf *b, const mica_tstr *body, size_t prefix, const mica_tpad *pad) {
    int64_t missing = pad->width - (int64_t)body->chars, before = 0;
    if (missing < 0) missing = 0;
    if (pad->align == '=') return mica_tbuf_part(b, body, 0, prefix) && fill(b, pad->fill, missing) && mica_tbuf_part(b, body, prefix, body->size);
    if (pad->align == '>') before = missing;
    if (pad->align == '^') before = missing / 2;
    return fill(b, pad->fill, before) && mica_tbuf_str(b, body) && fill(b, pad->fill, missing - before);
}

// ---- numbers ------------------------------------------------------------------------------------------------------
/** Digits of v in a base (2, 8, 10, 16), without sign. */
static const char *magnitude(int64_t v, unsigned base, bool capital, char text[72]) {
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    char *at = text + 71;
    *at = 0;
    do *--at = (capital ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
    while (u /= base);
    return at;
}

/** Thousands put apart in the whole part of a number's digits. */
static bool grouped(mica_tbuf *b, const char *digits, char sign) {
    size_t whole = strspn(digits, "0123456789");
    for (size_t i = 0; i < whole; i++)
        if ((i && (whole - i) % 3 == 0 && !mica_tbuf_add(b, &sign, 1, false)) || !mica_tbuf_add(b, digits + i, 1, false)) return false;
    return mica_tbuf_puts(b, digits + whole);
}

static bool put_number(mica_tbuf *b, const char *digits, bool negative, const char *base, const mica_tpad *pad) {
    mica_tbuf body = {.r = b->r};
    const char *sign = negative ? "-" : pad->sign == '+' ? "+" : pad->sign == ' ' ? " " : "";
    if (!mica_tbuf_puts(&body, sign) || !mica_tbuf_puts(&body, base)) return false;
    size_t prefix = body.size;
    if (!(pad->group ? grouped(&body, digits, pad->group) : mica_tbuf_puts(&body, digits))) return false;
    const mica_tstr *s = mica_tbuf_take(&body);
    return s && mica_t_padded(b, s, prefix, pad);
}

static bool format_int(mica_tbuf *b, int64_t v, const mica_tpad *pad) {
    char text[72];
    unsigned base = pad->type == 'b' ? 2 : pad->type == 'o' ? 8 : pad->type == 'x' || pad->type == 'X' ? 16 : 10;
    const char *mark = !pad->alternate ? "" : base == 2 ? "0b" : base == 8 ? "0o" : pad->type == 'x' ? "0x" : pad->type == 'X' ? "0X" : "";
    return put_number(b, magnitude(v, base, pad->type == 'X', text), v < 0, mark, pad);
}

static bool format_float(mica_tbuf *b, double v, const mica_tpad *pad) {
    char text[MOST_DIGITS * 2], conversion[8] = "%.*";
    int64_t precision = pad->precision < 0 ? 6 : pad->precision;
    if (precision > MOST_DIGITS) return mica_t_fail_code(b->r, MICA_ERR_UNSUPPORTED, "a precision above %d is not supported", MOST_DIGITS);
    char type = pad->type ? pad->type : 'g';
    if (!pad->type && pad->precision < 0) {
        mica_t_float_text(fabs(v), text, sizeof text);
    } else {
        bool percent = type == '%';
        snprintf(conversion, sizeof conversion, "%%%s.*%c", pad->alternate ? "#" : "", percent ? 'f' : type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int n = snprintf(text, sizeof text - 2, conversion, (int)precision, fabs(v) * (percent ? 100 : 1));
#pragma GCC diagnostic pop
        if (n < 0 || n >= (int)sizeof text - 2) return mica_t_fail(b->r, "the number is too long");
        if (percent) memcpy(text + n, "%", 2);
        if (!pad->type && isfinite(v) && !strpbrk(text, ".e")) memcpy(text + n, ".0", 3);
    }
    return put_number(b, text, signbit(v) && !isnan(v), "", pad);
}

// ---- format specifications ----------------------------------------------------------------------------------------
static size_t read_digits(const char *s, size_t n, size_t i, int64_t *v) {
    for (*v = 0; i < n && s[i] >= '0' && s[i] <= '9'; i++)
        if (*v < INT32_MAX) *v = *v * 10 + (s[i] - '0');
    return i;
}

static bool one_of(char c, const char *set) { return c && strchr(set, c); }

/** [[fill]align][sign][#][0][width][,][.precision][type] */
static bool read_spec(mica_trun *r, const char *s, size_t n, mica_tpad *pad) {
    size_t i = 0, len = 0;
    uint32_t cp = 0;
    *pad = (mica_tpad){.fill = ' ', .width = 0, .precision = -1};
    if (n && (len = mica_utf8_decode(s, n, &cp)) && len < n && one_of(s[len], "<>^=")) pad->fill = cp, pad->align = s[len], i = len + 1;
    else if (n && one_of(s[0], "<>^=")) pad->align = s[0], i = 1;
    if (i < n && one_of(s[i], "+- ")) pad->sign = s[i++];
    if (i < n && s[i] == '#') pad->alternate = true, i++;
    if (i < n && s[i] == '0') {
        if (!pad->align) pad->fill = '0', pad->align = '=';
        i++;
    }
    i = read_digits(s, n, i, &pad->width);
    if (i < n && (s[i] == ',' || s[i] == '_')) pad->group = s[i++];
    if (i < n && s[i] == '.') {
        size_t start = ++i;
        if ((i = read_digits(s, n, i, &pad->precision)) == start) return mica_t_fail(r, "Format specifier missing precision");
    }
    if (i < n) pad->type = s[i++];
    return i == n || mica_t_fail(r, "Invalid format specifier");
}

static bool unknown_code(mica_trun *r, const mica_tpad *pad, const mica_tval *v) {
    return mica_t_fail(r, "Unknown format code '%c' for object of type '%s'", pad->type, mica_t_type(v));
}

static bool format_string(mica_tbuf *b, const mica_tval *v, mica_tpad *pad) {
    mica_tval cut = *v;
    if (pad->type && pad->type != 's') return unknown_code(b->r, pad, v);
    if (pad->sign) return mica_t_fail(b->r, "Sign not allowed in string format specifier");
    if (pad->align == '=') {
        if (pad->fill != '0') return mica_t_fail(b->r, "'=' alignment not allowed in string format specifier");
        pad->align = '<';
    }
    if (!pad->align) pad->align = '<';
    if (pad->precision >= 0 && !mica_t_part(b->r, v->s, 0, mica_t_offset(v->s, (size_t)pad->precision), &cut)) return false;
    return mica_t_padded(b, cut.s, 0, pad);
}

/** One value by a format specification such as ">8.3f". */
static bool format_value(mica_tbuf *b, const mica_tval *v, const char *spec, size_t size) {
    mica_tpad pad;
    if (!size) return mica_t_str(b, v);
    if (!read_spec(b->r, spec, size, &pad)) return false;
    if (v->kind == MICA_T_STRING) return format_string(b, v, &pad);
    if (!mica_t_is_number(v)) return mica_t_fail(b->r, "unsupported format string passed to %s.__format__", mica_t_type(v));
    if (!pad.align) pad.align = '>';
    if (v->kind == MICA_T_FLOAT || (pad.type && strchr("eEfFgG%", pad.type))) {
        if (pad.type && !strchr("eEfFgGn%", pad.type)) return unknown_code(b->r, &pad, v);
        return format_float(b, mica_t_number(v), &pad);
    }
    if (pad.precision >= 0) return mica_t_fail(b->r, "Precision not allowed in integer format specifier");
    if (pad.type == 'c') {
        mica_tbuf one = {.r = b->r};
        int64_t cp = mica_t_whole(v);
        if (cp < 0 || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000)) return mica_t_fail(b->r, "%%c arg not in range(0x110000)");
        const mica_tstr *s = mica_tbuf_char(&one, (uint32_t)cp, false) ? mica_tbuf_take(&one) : NULL;
        return s && mica_t_padded(b, s, 0, &pad);
    }
    if (pad.type && !strchr("bdnoxX", pad.type)) return unknown_code(b->r, &pad, v);
    return format_int(b, mica_t_whole(v), &pad);
}

// ---- "…" % values -------------------------------------------------------------------------------------------------
typedef struct percent {
    mica_trun *r;
    const mica_tstr *s;
    size_t at;
    const mica_tval *args; // a tuple's items, or the one value
    size_t count, used;
    const mica_tdict *mapping; // for %(name)s
    bool one; // args is a single value, not a tuple
} percent;

static bool next_argument(percent *p, mica_tval *v) {
    if (p->used == p->count) return mica_t_fail(p->r, "not enough arguments for format string");
    return *v = p->args[p->used++], true;
}

/** "(name)" of a conversion. */
static bool named_argument(percent *p, mica_tval *v) {
    size_t start = ++p->at;
    unsigned depth = 1;
    for (; p->at < p->s->size && depth; p->at++) depth += p->s->data[p->at] == '(' ? 1 : p->s->data[p->at] == ')' ? UINT32_MAX : 0;
    if (depth) return mica_t_fail(p->r, "incomplete format key");
    if (!p->mapping) return mica_t_fail(p->r, "format requires a mapping");
    size_t size = p->at - 1 - start;
    const mica_tval *found = mica_t_get_name(p->mapping, p->s->data + start, size);
    if (!found) return mica_t_fail(p->r, "'%.*s'", (int)MICA_MIN(size, (size_t)200), p->s->data + start);
    return *v = *found, true;
}

/** A width or precision: digits, or * for an argument. */
static bool read_size(percent *p, int64_t *v) {
    mica_tval argument = mica_t_none();
    if (p->at < p->s->size && p->s->data[p->at] == '*') {
        p->at++;
        if (!next_argument(p, &argument)) return false;
        if (!mica_t_is_whole(&argument)) return mica_t_fail(p->r, "* wants int");
        *v = mica_t_whole(&argument);
        return (*v > -INT32_MAX && *v < INT32_MAX) || mica_t_fail(p->r, "width too big");
    }
    p->at = read_digits(p->s->data, p->s->size, p->at, v);
    return true;
}

static bool text_argument(percent *p, mica_tbuf *out, const mica_tval *v, mica_tpad *pad, char type) {
    mica_tbuf b = {.r = p->r, .safe = type == 's' && v->kind == MICA_T_STRING && v->s->safe};
    mica_tval text;
    if (type == 'c') {
        bool whole = mica_t_is_whole(v);
        if (!whole && !(v->kind == MICA_T_STRING && v->s->chars == 1)) return mica_t_fail(p->r, "%%c requires int or char");
        int64_t cp = whole ? mica_t_whole(v) : 0;
        if (whole && (cp < 0 || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))) return mica_t_fail(p->r, "%%c arg not in range(0x110000)");
        if (!(whole ? mica_tbuf_char(&b, (uint32_t)cp, false) : mica_tbuf_str(&b, v->s))) return false;
    } else if (!(type == 's' ? mica_t_str(&b, v) : mica_t_repr(&b, v))) {
        return false;
    }
    if (!mica_tbuf_end(&b, &text)) return false;
    if (out->safe) {
        const mica_tstr *clean;
        if (!mica_t_escape(p->r, text.s, &clean)) return false;
        text = mica_t_string(clean);
    }
    if (pad->precision >= 0 && type != 'c' && !mica_t_part(p->r, text.s, 0, mica_t_offset(text.s, (size_t)pad->precision), &text)) return false;
    if (pad->align == '=') pad->align = '>';
    pad->fill = ' ';
    return mica_t_padded(out, text.s, 0, pad);
}

static bool number_argument(percent *p, mica_tbuf *out, const mica_tval *v, mica_tpad *pad, char type) {
    bool real = strchr("eEfFgG", type) != NULL;
    if (v->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(p->r, v);
    if (!mica_t_is_number(v)) {
        if (real) return mica_t_fail(p->r, "must be real number, not %s", mica_t_type(v));
        return mica_t_fail(p->r, "%%%c format: a%s is required, not %s", type, strchr("oxX", type) ? "n integer" : " real number", mica_t_type(v));
    }
    if (strchr("oxX", type) && v->kind == MICA_T_FLOAT) return mica_t_fail(p->r, "%%%c format: an integer is required, not float", type);
    pad->type = type == 'i' || type == 'u' ? 'd' : type;
    if (real) return format_float(out, mica_t_number(v), pad);
    if (v->kind == MICA_T_FLOAT && !(fabs(v->f) < 9.2e18)) return mica_t_fail_code(p->r, MICA_ERR_UNSUPPORTED, "integers beyond 64 bits are not supported");
    return format_int(out, v->kind == MICA_T_FLOAT ? (int64_t)v->f : mica_t_whole(v), pad);
}

/** One conversion, at the character behind its %. */
static bool conversion(percent *p, mica_tbuf *out) {
    mica_tpad pad = {.align = '>', .fill = ' ', .precision = -1};
    mica_tval v = mica_t_missing();
    const char *s = p->s->data;
    size_t n = p->s->size, start = p->at;
    if (p->at < n && s[p->at] == '(' && !named_argument(p, &v)) return false;
    for (; p->at < n && strchr("-+ #0", s[p->at]) && s[p->at]; p->at++) {
        if (s[p->at] == '-') pad.align = '<';
        else if (s[p->at] == '0' && pad.align == '>') pad.align = '=', pad.fill = '0';
        else if (s[p->at] == '#') pad.alternate = true;
        else if (s[p->at] == '+' || (s[p->at] == ' ' && !pad.sign)) pad.sign = s[p->at];
    }
    if (pad.align == '<') pad.fill = ' ';
    if (!read_size(p, &pad.width)) return false;
    if (pad.width < 0) pad.width = -pad.width, pad.align = '<', pad.fill = ' ';
    if (p->at < n && s[p->at] == '.') {
        p->at++;
        if (!read_size(p, &pad.precision)) return false;
        pad.precision = MICA_MAX(pad.precision, (int64_t)0);
    }
    while (p->at < n && (s[p->at] == 'l' || s[p->at] == 'h' || s[p->at] == 'L')) p->at++;
    if (p->at >= n) return mica_t_fail(p->r, "incomplete format");
    char type = s[p->at++];
    if (type == '%' && p->at == start + 1) return mica_tbuf_puts(out, "%");
    if (!type || !strchr("srcadiouxXeEfFgG%", type))
        return mica_t_fail(p->r, "unsupported format character '%c' (0x%x) at index %zu", type, (unsigned char)type, p->at - 1);
    if (v.kind == MICA_T_MISSING && !next_argument(p, &v)) return false;
    if (type == '%') return mica_tbuf_puts(out, "%");
    return strchr("srac", type) ? text_argument(p, out, &v, &pad, type) : number_argument(p, out, &v, &pad, type);
}

bool mica_t_percent(mica_trun *r, const mica_tstr *format, const mica_tval *args, mica_tval *out) {
    bool tuple = args->kind == MICA_T_TUPLE;
    percent p = {.r = r, .s = format, .args = tuple ? args->list->items : args, .count = tuple ? args->list->count : 1, .one = !tuple,
                 .mapping = args->kind == MICA_T_DICT ? args->dict : NULL};
    mica_tbuf b = {.r = r, .safe = format->safe};
    while (p.at < format->size) {
        size_t start = p.at;
        while (p.at < format->size && format->data[p.at] != '%') p.at++;
        if (!mica_tbuf_part(&b, format, start, p.at)) return false;
        if (p.at == format->size) break;
        p.at++;
        if (!conversion(&p, &b)) return false;
    }
    bool mapping = args->kind == MICA_T_DICT || args->kind == MICA_T_LIST || args->kind == MICA_T_UNDEFINED; // what has [] may be left over
    if (p.used < p.count && !(p.one && mapping)) return mica_t_fail(r, "not all arguments converted during string formatting");
    return mica_tbuf_end(&b, out);
}

// ---- "…".format(…) -------------------------------------------------------------------------------------------------
typedef struct format {
    mica_trun *r;
    const mica_targs *args;
    const mica_tval *mapping; // format_map
    size_t next;              // of {}
    bool automatic, numbered;
} format;

static bool by_name(format *f, const char *name, size_t size, mica_tval *out) {
    if (f->mapping) {
        const mica_tval *found = f->mapping->kind == MICA_T_DICT ? mica_t_get_name(f->mapping->dict, name, size) : NULL;
        if (found) return *out = *found, true;
    }
    size_t given = f->args->count - f->args->name_count;
    for (size_t i = 0; i < f->args->name_count; i++)
        if (f->args->names[i]->size == size && !memcmp(f->args->names[i]->data, name, size)) return *out = f->args->items[given + i], true;
    return mica_t_fail(f->r, "'%.*s'", (int)MICA_MIN(size, (size_t)200), name);
}

static bool first_value(format *f, const char *s, size_t n, mica_tval *out) {
    int64_t index;
    if (n && read_digits(s, n, 0, &index) < n) return by_name(f, s, n, out);
    if (n ? f->automatic : f->numbered)
        return mica_t_fail(f->r, n ? "cannot switch from automatic field numbering to manual field specification"
                                   : "cannot switch from manual field specification to automatic field numbering");
    if (n) f->numbered = true;
    else f->automatic = true, index = (int64_t)f->next++;
    size_t given = f->args->count - f->args->name_count;
    if ((uint64_t)index >= given) return mica_t_fail(f->r, "Replacement index %lld out of range for positional args tuple", (long long)index);
    return *out = f->args->items[index], true;
}

/** name.attribute[key]… */
static bool field(format *f, const char *s, size_t n, mica_tval *out) {
    size_t i = 0;
    while (i < n && s[i] != '.' && s[i] != '[') i++;
    if (!first_value(f, s, i, out)) return false;
    while (i < n) {
        bool dot = s[i] == '.';
        size_t start = ++i;
        while (i < n && (dot ? s[i] != '.' && s[i] != '[' : s[i] != ']')) i++;
        if (i == start) return mica_t_fail(f->r, "Empty attribute in format string");
        const mica_tstr *name = mica_t_text(f->r, s + start, i - start, false);
        if (!name) return false;
        int64_t index;
        mica_tval key = mica_t_string(name), of = *out;
        if (!dot && read_digits(s, i, start, &index) == i) key = mica_t_int(index);
        if (!(dot ? mica_t_attribute(f->r, &of, name, out) : mica_t_item(f->r, &of, &key, out))) return false;
        if (!dot && (i++ == n || (i < n && s[i] != '.' && s[i] != '[')))
            return mica_t_fail(f->r, "Only '.' or '[' may follow ']' in format field specifier");
    }
    return true;
}

static bool expand(format *f, const mica_tstr *s, size_t from, size_t to, unsigned depth, mica_tbuf *out);

/** What stands between the braces: field[!conversion][:specification]. */
static bool replacement(format *f, const mica_tstr *s, size_t from, size_t to, unsigned depth, mica_tbuf *out) {
    size_t i = from, brackets = 0;
    mica_tval v;
    for (; i < to && (brackets || (s->data[i] != ':' && s->data[i] != '!')); i++) brackets = s->data[i] == '[' ? 1 : s->data[i] == ']' ? 0 : brackets;
    if (!field(f, s->data + from, i - from, &v)) return false;
    if (i < to && s->data[i] == '!') {
        char kind = i + 1 < to ? s->data[i + 1] : 0;
        mica_tbuf b = {.r = f->r};
        if (!kind || !strchr("sra", kind) || (i + 2 < to && s->data[i + 2] != ':')) return mica_t_fail(f->r, "Unknown conversion specifier");
        if (!(kind == 's' ? mica_t_str(&b, &v) : mica_t_repr(&b, &v)) || !mica_tbuf_end(&b, &v)) return false;
        i += 2;
    }
    mica_tbuf spec = {.r = f->r};
    if (i < to && !expand(f, s, i + 1, to, depth + 1, &spec)) return false;
    if (out->safe && v.kind == MICA_T_STRING) {
        const mica_tstr *clean;
        if (!mica_t_escape(f->r, v.s, &clean)) return false;
        v = mica_t_string(clean);
    }
    return format_value(out, &v, spec.data, spec.size);
}

static bool expand(format *f, const mica_tstr *s, size_t from, size_t to, unsigned depth, mica_tbuf *out) {
    if (depth > 2) return mica_t_fail(f->r, "Max string recursion exceeded");
    for (size_t i = from; i < to;) {
        size_t start = i;
        while (i < to && s->data[i] != '{' && s->data[i] != '}') i++;
        if (!mica_tbuf_part(out, s, start, i) || i == to) break;
        char brace = s->data[i++];
        if (i < to && s->data[i] == brace) {
            if (!mica_tbuf_part(out, s, i, i + 1)) return false;
            i++;
            continue;
        }
        if (brace == '}') return mica_t_fail(f->r, "Single '}' encountered in format string");
        size_t end = i, open = 1;
        for (; end < to && open; end++) open += s->data[end] == '{' ? 1 : s->data[end] == '}' ? SIZE_MAX : 0;
        if (open) return mica_t_fail(f->r, i == to ? "Single '{' encountered in format string" : "expected '}' before end of string");
        if (!replacement(f, s, i, end - 1, depth, out)) return false;
        i = end;
    }
    return !f->r->failed;
}

bool mica_t_format(mica_trun *r, const mica_tstr *s, const mica_targs *args, const mica_tval *mapping, mica_tval *out) {
    format f = {.r = r, .args = args, .mapping = mapping};
    mica_tbuf b = {.r = r, .safe = s->safe};
    return expand(&f, s, 0, s->size, 1, &b) && mica_tbuf_end(&b, out);
}
