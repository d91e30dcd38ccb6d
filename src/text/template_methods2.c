// SPDX-License-Identifier: Apache-2.0
// Methods of strings: case, classes of characters, padding.
#include "base/utf8.h"
#include "text/template_filters.h"
#include "text/template_unicode.h"
#include <string.h>

static bool no_arguments(mica_trun *r, const mica_targs *args) {
    return !args->count || mica_t_fail(r, "the method takes no arguments (%zu given)", args->count);
}

static size_t decode(const mica_tstr *s, size_t at, uint32_t *cp) {
    size_t len = mica_utf8_decode(s->data + at, s->size - at, cp);
    if (len) return len;
    *cp = 0xFFFD;
    return 1;
}

// ---- case ----------------------------------------------------------------------------------------------------------
static bool has_case(uint32_t cp) { return mica_py_upper_case(cp) || mica_py_lower_case(cp) || mica_uc_category(cp) == MICA_LT; }

static bool put_case(mica_tbuf *b, const mica_tstr *s, size_t at, uint32_t cp, mica_py_case to) {
    uint32_t out[3];
    size_t n = mica_py_to_case(cp, to, out);
    bool marked = s->mark_count && mica_t_marked(s, at);
    for (size_t i = 0; i < n; i++)
        if (!mica_tbuf_char(b, out[i], marked)) return false;
    return mica_t_work(b->r, 1);
}

/** A sigma ends its word: a letter before it, none behind it. */
static bool final_sigma(const mica_tstr *s, size_t at) {
    uint32_t cp;
    bool before = false;
    for (size_t i = 0; i < at; i += decode(s, i, &cp)) {
        decode(s, i, &cp);
        if (!mica_uc_in(cp, 1u << MICA_MN | 1u << MICA_ME | 1u << MICA_CF | 1u << MICA_LM | 1u << MICA_SK) && cp != '\'' && cp != '.' && cp != ':') before = has_case(cp);
    }
    for (size_t i = at + 2; before && i < s->size; i += decode(s, i, &cp)) {
        decode(s, i, &cp);
        if (has_case(cp)) return false;
        if (!mica_uc_in(cp, 1u << MICA_MN | 1u << MICA_ME | 1u << MICA_CF | 1u << MICA_LM | 1u << MICA_SK) && cp != '\'' && cp != '.' && cp != ':') break;
    }
    return before;
}

static bool put_lower(mica_tbuf *b, const mica_tstr *s, size_t at, uint32_t cp) {
    if (cp == 0x3A3 && mica_t_work(b->r, s->size / 8) && final_sigma(s, at)) return mica_tbuf_char(b, 0x3C2, s->mark_count && mica_t_marked(s, at));
    return put_case(b, s, at, cp, MICA_PY_LOWER);
}

/** how: 'u' upper, 'l' lower, 'f' fold, 's' swap, 'c' capitalize, 't' title. */
static bool recase(mica_trun *r, const mica_tval *v, const mica_targs *args, char how, mica_tval *out) {
    mica_tbuf b = {.r = r, .safe = v->s->safe};
    bool inside = false;
    if (!no_arguments(r, args)) return false;
    for (size_t i = 0, len; i < v->s->size; i += len) {
        uint32_t cp;
        len = decode(v->s, i, &cp);
        bool upper = how == 'u' || (how == 's' && mica_py_lower_case(cp));
        bool title = (how == 'c' && i == 0) || (how == 't' && !inside), lower = how == 'l' || how == 'c' || how == 't' || mica_py_upper_case(cp);
        bool ok = upper ? put_case(&b, v->s, i, cp, MICA_PY_UPPER) : title ? put_case(&b, v->s, i, cp, MICA_PY_TITLE)
                : how == 'f' ? put_case(&b, v->s, i, cp, MICA_PY_FOLD) : lower ? put_lower(&b, v->s, i, cp) : mica_tbuf_part(&b, v->s, i, i + len);
        if (!ok) return false;
        inside = has_case(cp);
    }
    return mica_tbuf_end(&b, out);
}

static bool str_upper(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return recase(r, v, args, 'u', out); }
static bool str_lower(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return recase(r, v, args, 'l', out); }
static bool str_casefold(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return recase(r, v, args, 'f', out); }
static bool str_swapcase(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return recase(r, v, args, 's', out); }
static bool str_capitalize(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return recase(r, v, args, 'c', out); }
static bool str_title(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return recase(r, v, args, 't', out); }

// ---- classes -------------------------------------------------------------------------------------------------------
static bool all_in(mica_trun *r, const mica_tval *v, const mica_targs *args, bool (*in)(uint32_t), bool of_empty, mica_tval *out) {
    bool all = v->s->size || of_empty;
    if (!no_arguments(r, args)) return false;
    for (size_t i = 0, len; all && i < v->s->size; i += len) {
        uint32_t cp;
        len = decode(v->s, i, &cp);
        all = in(cp);
    }
    return *out = mica_t_bool(all), mica_t_work(r, v->s->size / 16);
}

static bool is_alpha(uint32_t cp) { return mica_py_alpha(cp); }
static bool is_space(uint32_t cp) { return mica_py_space(cp); }
static bool is_decimal(uint32_t cp) { return mica_py_decimal(cp); }
static bool is_numeric(uint32_t cp) { return mica_py_numeric(cp); }
static bool is_alnum(uint32_t cp) { return mica_py_alnum(cp); }
static bool is_ascii(uint32_t cp) { return cp < 0x80; }
static bool is_name(uint32_t cp) { return cp == '_' || mica_py_alnum(cp) || mica_py_mark(cp); }

#define CLASS(method, in, of_empty)                                                                                                         \
    static bool method(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return all_in(r, v, args, in, of_empty, out); }
CLASS(str_isalpha, is_alpha, false)
CLASS(str_isspace, is_space, false)
CLASS(str_isdecimal, is_decimal, false)
CLASS(str_isdigit, mica_py_digit, false)
CLASS(str_isnumeric, is_numeric, false)
CLASS(str_isalnum, is_alnum, false)
CLASS(str_isascii, is_ascii, true)
CLASS(str_isprintable, mica_py_printable, true)

static bool str_isidentifier(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    uint32_t first = 0;
    if (!all_in(r, v, args, is_name, false, out)) return false;
    if (out->b && decode(v->s, 0, &first)) *out = mica_t_bool(first == '_' || mica_py_alpha(first));
    return true;
}

/** Every cased character is what `wanted` says, and there is one. */
static bool all_cased(mica_trun *r, const mica_tval *v, const mica_targs *args, bool (*wanted)(uint32_t), mica_tval *out) {
    bool any = false, all = true;
    if (!no_arguments(r, args)) return false;
    for (size_t i = 0, len; all && i < v->s->size; i += len) {
        uint32_t cp;
        len = decode(v->s, i, &cp);
        any |= has_case(cp);
        all = !has_case(cp) || wanted(cp);
    }
    return *out = mica_t_bool(all && any), mica_t_work(r, v->s->size / 16);
}

static bool str_islower(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return all_cased(r, v, args, mica_py_lower_case, out); }
static bool str_isupper(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return all_cased(r, v, args, mica_py_upper_case, out); }

static bool str_istitle(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    bool any = false, all = true, inside = false;
    if (!no_arguments(r, args)) return false;
    for (size_t i = 0, len; all && i < v->s->size; i += len) {
        uint32_t cp;
        len = decode(v->s, i, &cp);
        bool lower = mica_py_lower_case(cp), upper = has_case(cp) && !lower;
        all = (!upper || !inside) && (!lower || inside);
        inside = lower || upper;
        any |= inside;
    }
    return *out = mica_t_bool(all && any), mica_t_work(r, v->s->size / 16);
}

// ---- padding -------------------------------------------------------------------------------------------------------
static bool justify(mica_trun *r, const mica_tval *v, const mica_targs *args, const char *what, char align, mica_tval *out) {
    mica_tpad pad = {.fill = ' ', .align = align};
    mica_tbuf b = {.r = r, .safe = v->s->safe};
    if (!args->count || args->count > 2 || args->name_count) return mica_t_fail(r, "%s expected 1 or 2 arguments, got %zu", what, args->count);
    if (!mica_t_int_argument(r, &args->items[0], 0, what, &pad.width)) return false;
    if (args->count == 2) {
        const mica_tval *fill = &args->items[1];
        if (fill->kind != MICA_T_STRING || fill->s->chars != 1) return mica_t_fail(r, "The fill character must be exactly one character long");
        decode(fill->s, 0, &pad.fill);
    }
    if (align == '^' && pad.width > (int64_t)v->s->chars) { // Python puts the odd one on the left if the width is odd
        int64_t missing = pad.width - (int64_t)v->s->chars, left = missing / 2 + (missing & pad.width & 1);
        mica_tpad before = pad;
        before.align = '>', before.width = (int64_t)v->s->chars + left;
        mica_tbuf half = {.r = r, .safe = v->s->safe};
        const mica_tstr *s = mica_t_padded(&half, v->s, 0, &before) ? mica_tbuf_take(&half) : NULL;
        pad.align = '<';
        return s && mica_t_padded(&b, s, 0, &pad) && mica_tbuf_end(&b, out);
    }
    return mica_t_padded(&b, v->s, 0, &pad) && mica_tbuf_end(&b, out);
}

static bool str_ljust(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return justify(r, v, args, "ljust", '<', out); }
static bool str_rjust(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return justify(r, v, args, "rjust", '>', out); }
static bool str_center(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) { return justify(r, v, args, "center", '^', out); }

static bool str_zfill(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tpad pad = {.fill = '0', .align = '='};
    mica_tbuf b = {.r = r, .safe = v->s->safe};
    if (args->count != 1 || args->name_count) return mica_t_fail(r, "str.zfill() takes exactly one argument (%zu given)", args->count);
    if (!mica_t_int_argument(r, &args->items[0], 0, "zfill", &pad.width)) return false;
    size_t sign = v->s->size && (v->s->data[0] == '+' || v->s->data[0] == '-');
    return mica_t_padded(&b, v->s, sign, &pad) && mica_tbuf_end(&b, out);
}

static bool str_expandtabs(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    mica_tval slot[1];
    mica_tbuf b = {.r = r, .safe = v->s->safe};
    int64_t size, column = 0;
    if (!mica_t_bind(r, args, "expandtabs", "tabsize", slot) || !mica_t_int_argument(r, &slot[0], 8, "expandtabs", &size)) return false;
    const mica_tstr space = {.data = " ", .size = 1, .chars = 1};
    for (size_t i = 0, len; i < v->s->size; i += len) {
        uint32_t cp;
        len = decode(v->s, i, &cp);
        int64_t n = cp == '\t' && size > 0 ? size - column % size : 0;
        if (cp == '\t' ? !mica_tbuf_fill(&b, &space, n) : !mica_tbuf_part(&b, v->s, i, i + len)) return false;
        column = cp == '\n' || cp == '\r' ? 0 : column + (cp == '\t' ? n : 1);
    }
    return mica_tbuf_end(&b, out);
}

static bool unsupported(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out) {
    (void)v, (void)args, (void)out;
    return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "str.encode, str.maketrans and str.translate are not supported");
}

const mica_tmethod_row mica_t_string_methods2[] = {
    {"upper", str_upper}, {"lower", str_lower}, {"title", str_title}, {"capitalize", str_capitalize}, {"casefold", str_casefold},
    {"swapcase", str_swapcase}, {"isalpha", str_isalpha}, {"isspace", str_isspace}, {"isdecimal", str_isdecimal}, {"isdigit", str_isdigit},
    {"isnumeric", str_isnumeric}, {"isalnum", str_isalnum}, {"isascii", str_isascii}, {"isprintable", str_isprintable},
    {"isidentifier", str_isidentifier}, {"islower", str_islower}, {"isupper", str_isupper}, {"istitle", str_istitle}, {"ljust", str_ljust},
    {"rjust", str_rjust}, {"center", str_center}, {"zfill", str_zfill}, {"expandtabs", str_expandtabs}, {"encode", unsupported},
    {"maketrans", unsupported}, {"translate", unsupported}, {NULL, NULL}};
