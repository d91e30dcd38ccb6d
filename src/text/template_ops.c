// SPDX-License-Identifier: Apache-2.0
// Operators of templates as Python has them, for 64-bit integers (what does not fit is an error, never a wrong number).
#include "text/template_filters.h"
#include <math.h>
#include <string.h>

static bool too_large(mica_trun *r) { return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "integers beyond 64 bits are not supported"); }

static bool no_operator(mica_trun *r, const char *op, const mica_tval *a, const mica_tval *b) {
    if (a->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, a);
    if (b->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, b);
    const char *name = strcmp(op, "**") ? op : "** or pow()";
    return mica_t_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", name, mica_t_type(a), mica_t_type(b));
}

// ---- + -------------------------------------------------------------------------------------------------------------
static bool join_lists(mica_trun *r, const mica_tval *a, const mica_tval *b, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, a->list->count + b->list->count);
    if (!l) return false;
    for (size_t i = 0; i < a->list->count; i++)
        if (!mica_t_push(r, l, a->list->items[i])) return false;
    for (size_t i = 0; i < b->list->count; i++)
        if (!mica_t_push(r, l, b->list->items[i])) return false;
    *out = mica_t_of_list(a->kind, l);
    return true;
}

static bool join_strings(mica_trun *r, const mica_tstr *a, const mica_tstr *b, mica_tval *out) {
    mica_tbuf buf = {.r = r, .safe = a->safe || b->safe};
    if (buf.safe && (!mica_t_escape(r, a, &a) || !mica_t_escape(r, b, &b))) return false;
    return mica_tbuf_str(&buf, a) && mica_tbuf_str(&buf, b) && mica_tbuf_end(&buf, out);
}

bool mica_t_add(mica_trun *r, const mica_tval *a, const mica_tval *b, mica_tval *out) {
    int64_t sum;
    if (a->kind == MICA_T_STRING && b->kind == MICA_T_STRING) return join_strings(r, a->s, b->s, out);
    if (mica_t_is_whole(a) && mica_t_is_whole(b)) {
        if (__builtin_add_overflow(mica_t_whole(a), mica_t_whole(b), &sum)) return too_large(r);
        return *out = mica_t_int(sum), true;
    }
    if (mica_t_is_number(a) && mica_t_is_number(b)) return *out = mica_t_float(mica_t_number(a) + mica_t_number(b)), true;
    if (a->kind == b->kind && (a->kind == MICA_T_LIST || a->kind == MICA_T_TUPLE)) return join_lists(r, a, b, out);
    if (b->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, b);
    if (a->kind == MICA_T_STRING && !a->s->safe)
        return mica_t_fail(r, "can only concatenate str (not \"%s\") to str", mica_t_type(b));
    if (a->kind == MICA_T_LIST || a->kind == MICA_T_TUPLE)
        return mica_t_fail(r, "can only concatenate %s (not \"%s\") to %s", mica_t_type(a), mica_t_type(b), mica_t_type(a));
    return no_operator(r, "+", a, b);
}

// ---- * -------------------------------------------------------------------------------------------------------------
static bool repeat(mica_trun *r, const mica_tval *v, int64_t times, mica_tval *out) {
    if (v->kind == MICA_T_STRING) {
        mica_tbuf b = {.r = r, .safe = v->s->safe};
        return mica_tbuf_fill(&b, v->s, times) && mica_tbuf_end(&b, out);
    }
    mica_tlist *l = mica_t_list(r, 0);
    for (int64_t i = 0; l && v->list->count && i < times; i++)
        for (size_t k = 0; k < v->list->count; k++)
            if (!mica_t_push(r, l, v->list->items[k])) return false;
    return l && (*out = mica_t_of_list(v->kind, l), true);
}

static bool can_repeat(const mica_tval *v) { return v->kind == MICA_T_STRING || v->kind == MICA_T_LIST || v->kind == MICA_T_TUPLE; }

static bool multiply(mica_trun *r, const mica_tval *a, const mica_tval *b, mica_tval *out) {
    int64_t product;
    if (mica_t_is_whole(a) && mica_t_is_whole(b)) {
        if (__builtin_mul_overflow(mica_t_whole(a), mica_t_whole(b), &product)) return too_large(r);
        return *out = mica_t_int(product), true;
    }
    if (mica_t_is_number(a) && mica_t_is_number(b)) return *out = mica_t_float(mica_t_number(a) * mica_t_number(b)), true;
    if (can_repeat(a) && mica_t_is_whole(b)) return repeat(r, a, mica_t_whole(b), out);
    if (can_repeat(b) && mica_t_is_whole(a)) return repeat(r, b, mica_t_whole(a), out);
    if (a->kind == MICA_T_UNDEFINED || b->kind == MICA_T_UNDEFINED) return no_operator(r, "*", a, b);
    if (can_repeat(a)) return mica_t_fail(r, "can't multiply sequence by non-int of type '%s'", mica_t_type(b));
    return no_operator(r, "*", a, b);
}

// ---- division and powers ----------------------------------------------------------------------------------------
static double float_mod(double a, double b) {
    double m = fmod(a, b);
    if (m != 0 && (b < 0) != (m < 0)) m += b;
    return m == 0 ? copysign(0, b) : m;
}

static double float_floordiv(double a, double b) {
    double div = (a - fmod(a, b)) / b, m = fmod(a, b);
    if (m != 0 && (b < 0) != (m < 0)) div -= 1;
    if (div == 0) return copysign(0, a / b);
    double whole = floor(div);
    return div - whole > 0.5 ? whole + 1 : whole;
}

static bool divide_whole(mica_trun *r, char op, int64_t a, int64_t b, mica_tval *out) {
    if (b == 0) return mica_t_fail(r, op == '/' ? "division by zero" : op == '%' ? "integer modulo by zero" : "integer division or modulo by zero");
    if (op == '/') return *out = mica_t_float((double)a / (double)b), true;
    if (b == -1) { // the one that overflows
        if (op == '%') return *out = mica_t_int(0), true;
        return a == INT64_MIN ? too_large(r) : (*out = mica_t_int(-a), true);
    }
    int64_t q = a / b, m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) q--, m += b;
    *out = mica_t_int(op == '%' ? m : q);
    return true;
}

/** op: '/' true division, 'f' floor division, '%' modulo. */
static bool divide(mica_trun *r, char op, const char *name, const mica_tval *a, const mica_tval *b, mica_tval *out) {
    if (!mica_t_is_number(a) || !mica_t_is_number(b)) return no_operator(r, name, a, b);
    if (mica_t_is_whole(a) && mica_t_is_whole(b)) return divide_whole(r, op, mica_t_whole(a), mica_t_whole(b), out);
    double x = mica_t_number(a), y = mica_t_number(b);
    if (y == 0) return mica_t_fail(r, op == '/' ? "float division by zero" : op == 'f' ? "float floor division by zero" : "float modulo");
    *out = mica_t_float(op == '/' ? x / y : op == 'f' ? float_floordiv(x, y) : float_mod(x, y));
    return true;
}

static bool power(mica_trun *r, const mica_tval *a, const mica_tval *b, mica_tval *out) {
    if (!mica_t_is_number(a) || !mica_t_is_number(b)) return no_operator(r, "**", a, b);
    if (!mica_t_is_whole(a) || !mica_t_is_whole(b) || mica_t_whole(b) < 0) {
        double base = mica_t_number(a), e = mica_t_number(b);
        if (base == 0 && e < 0) return mica_t_fail(r, "0.0 cannot be raised to a negative power");
        if (base < 0 && floor(e) != e) return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "complex numbers are not supported");
        return *out = mica_t_float(pow(base, e)), true;
    }
    int64_t base = mica_t_whole(a), e = mica_t_whole(b), value = 1;
    if (base == 0 || base == 1 || e == 0) return *out = mica_t_int(e == 0 ? 1 : base), true;
    if (base == -1) return *out = mica_t_int(e % 2 ? -1 : 1), true;
    for (; e; e--)
        if (__builtin_mul_overflow(value, base, &value)) return too_large(r);
    return *out = mica_t_int(value), true;
}

static bool subtract(mica_trun *r, const mica_tval *a, const mica_tval *b, mica_tval *out) {
    int64_t difference;
    if (!mica_t_is_number(a) || !mica_t_is_number(b)) return no_operator(r, "-", a, b);
    if (!mica_t_is_whole(a) || !mica_t_is_whole(b)) return *out = mica_t_float(mica_t_number(a) - mica_t_number(b)), true;
    if (__builtin_sub_overflow(mica_t_whole(a), mica_t_whole(b), &difference)) return too_large(r);
    return *out = mica_t_int(difference), true;
}

bool mica_t_binary(mica_trun *r, const char *op, const mica_tval *a, const mica_tval *b, mica_tval *out) {
    if (op[0] == '+') return mica_t_add(r, a, b, out);
    if (op[0] == '-') return subtract(r, a, b, out);
    if (op[0] == '*') return op[1] ? power(r, a, b, out) : multiply(r, a, b, out);
    if (op[0] == '/') return divide(r, op[1] ? 'f' : '/', op, a, b, out);
    if (a->kind == MICA_T_STRING) return mica_t_percent(r, a->s, b, out);
    return divide(r, '%', "%", a, b, out);
}

bool mica_t_sign(mica_trun *r, const mica_tval *a, bool minus, mica_tval *out) {
    if (a->kind == MICA_T_UNDEFINED) return mica_t_fail_undefined(r, a);
    if (!mica_t_is_number(a)) return mica_t_fail(r, "bad operand type for unary %c: '%s'", minus ? '-' : '+', mica_t_type(a));
    if (a->kind == MICA_T_FLOAT) return *out = mica_t_float(minus ? -a->f : a->f), true;
    int64_t v = mica_t_whole(a);
    if (minus && v == INT64_MIN) return too_large(r);
    return *out = mica_t_int(minus ? -v : v), true;
}

// ---- comparison ----------------------------------------------------------------------------------------------------
static bool contains_item(mica_trun *r, const mica_tval *all, const mica_tval *v, bool *out) {
    mica_tval *items;
    size_t count;
    *out = false;
    if (all->kind == MICA_T_ITER) { // used up as far as the one that is found
        mica_tlist *l = all->list;
        while (!*out && l->taken < l->count)
            if (!mica_t_equal(r, &l->items[l->taken++], v, out)) return false;
        return *out || !l->error || mica_t_fail_again(r, l->error);
    }
    if (!mica_t_items(r, all, &items, &count)) return false;
    for (size_t i = 0; !*out && i < count; i++)
        if (!mica_t_equal(r, &items[i], v, out)) return false;
    return true;
}

static bool contains(mica_trun *r, const mica_tval *all, const mica_tval *v, bool *out) {
    if (all->kind == MICA_T_STRING) {
        if (v->kind != MICA_T_STRING) return mica_t_fail(r, "'in <string>' requires string as left operand, not %s", mica_t_type(v));
        *out = mica_t_find(r, all->s, 0, all->s->size, v->s) != SIZE_MAX;
        return !r->failed;
    }
    if (all->kind == MICA_T_DICT) {
        if (v->kind == MICA_T_LIST || v->kind == MICA_T_DICT || v->kind == MICA_T_VIEW) return mica_t_fail(r, "unhashable type: '%s'", mica_t_type(v));
        *out = mica_t_get(r, all->dict, v) != NULL;
        return !r->failed;
    }
    if (!mica_t_is_iterable(all)) return mica_t_fail(r, "argument of type '%s' is not iterable", mica_t_type(all));
    return contains_item(r, all, v, out);
}

bool mica_t_compare(mica_trun *r, const char *op, const mica_tval *a, const mica_tval *b, bool *out) {
    bool equal;
    if (!strcmp(op, "in")) return contains(r, b, a, out);
    if (!strcmp(op, "ni")) return contains(r, b, a, out) && (*out = !*out, true);
    if (!strcmp(op, "==")) return mica_t_equal(r, a, b, out);
    if (!strcmp(op, "!=")) return mica_t_equal(r, a, b, out) && (*out = !*out, true);
    if (!strcmp(op, "<")) return mica_t_less(r, a, b, op, out);
    if (!strcmp(op, ">")) {
        if (a->kind == MICA_T_UNDEFINED || mica_t_is_number(a) || a->kind == b->kind) return mica_t_is_number(a) != mica_t_is_number(b)
            ? mica_t_less(r, a, b, op, out) : mica_t_less(r, b, a, op, out);
        return mica_t_less(r, a, b, op, out); // fails, and names the types in this order
    }
    if (mica_t_is_number(a) && mica_t_is_number(b)) { // not the negation of the opposite: there is NaN
        if (mica_t_is_whole(a) && mica_t_is_whole(b)) *out = op[0] == '<' ? mica_t_whole(a) <= mica_t_whole(b) : mica_t_whole(a) >= mica_t_whole(b);
        else *out = op[0] == '<' ? mica_t_number(a) <= mica_t_number(b) : mica_t_number(a) >= mica_t_number(b);
        return true;
    }
    if (!mica_t_less(r, a, b, op, out)) return false;
    if (!mica_t_equal(r, a, b, &equal)) return false;
    *out = equal || *out == (op[0] == '<');
    return true;
}
