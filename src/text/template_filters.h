// SPDX-License-Identifier: Apache-2.0
// The tables of what templates can call: filters, tests, methods, global functions; and the helpers that these share.
#ifndef MICA_TEXT_TEMPLATE_FILTERS_H
#define MICA_TEXT_TEMPLATE_FILTERS_H

#include "text/template_value.h"

/** args: those in the brackets, without the value that the filter or test is applied to. */
typedef bool mica_tfilter_fn(mica_trun *r, const mica_tval *v, const mica_targs *args, mica_tval *out);

typedef struct mica_tfilter {
    const char *name;
    mica_tfilter_fn *call;
} mica_tfilter;

// Rows, each table ended by a NULL name.
extern const mica_tfilter mica_t_filters_sequence[], mica_t_filters_select[], mica_t_tests[];
/** NULL if there is none. */
const mica_tfilter *mica_t_filter_named(const char *name, size_t size);
const mica_tfilter *mica_t_test_named(const char *name, size_t size);

/** Arguments by position and name into slots, MISSING where not given. names: the parameters, with blanks between. what: the function,
 * for messages. Fails on too many, unknown and doubled ones. */
bool mica_t_bind(mica_trun *r, const mica_targs *args, const char *what, const char *names, mica_tval *slots);
/** A whole number from an argument, with a default if it is missing. */
bool mica_t_int_argument(mica_trun *r, const mica_tval *v, int64_t otherwise, const char *what, int64_t *out);
/** The string v is, or str() of it. */
bool mica_t_soft(mica_trun *r, const mica_tval *v, const mica_tstr **out);

// ---- methods and attributes --------------------------------------------------------------------------------------
typedef struct mica_tmethod_row {
    const char *name;
    bool (*call)(mica_trun *r, const mica_tval *object, const mica_targs *args, mica_tval *out); // NULL: changes its object, not allowed
} mica_tmethod_row;
extern const mica_tmethod_row mica_t_string_methods[], mica_t_string_methods2[];

/** A real attribute of v (method, loop.index, …), not an item: true with *out MISSING if there is none. */
bool mica_t_own_attribute(mica_trun *r, const mica_tval *v, const mica_tstr *name, mica_tval *out);
/** v.name and v[key], as Jinja's sandbox resolves them. */
bool mica_t_attribute(mica_trun *r, const mica_tval *v, const mica_tstr *name, mica_tval *out);
bool mica_t_item(mica_trun *r, const mica_tval *v, const mica_tval *key, mica_tval *out);
bool mica_t_slice(mica_trun *r, const mica_tval *v, const mica_tval bounds[3], mica_tval *out);

// ---- operators ------------------------------------------------------------------------------------------------
bool mica_t_add(mica_trun *r, const mica_tval *a, const mica_tval *b, mica_tval *out);
bool mica_t_binary(mica_trun *r, const char *op, const mica_tval *a, const mica_tval *b, mica_tval *out);
bool mica_t_sign(mica_trun *r, const mica_tval *a, bool minus, mica_tval *out);
/** ==, !=, <, <=, >, >=, in, ni (not in). */
bool mica_t_compare(mica_trun *r, const char *op, const mica_tval *a, const mica_tval *b, bool *out);

// ---- calls ------------------------------------------------------------------------------------------------------
bool mica_t_call(mica_trun *r, const mica_tval *callee, const mica_targs *args, mica_tval *out);
bool mica_t_call_macro(mica_trun *r, const mica_tval *macro, const mica_targs *args, mica_tval *out);
bool mica_t_call_loop(mica_trun *r, const mica_tval *loop, const mica_targs *args, mica_tval *out);
bool mica_t_call_function(mica_trun *r, int64_t which, const mica_targs *args, mica_tval *out);
/** The number of a global function, -1 if there is none of that name. */
int64_t mica_t_function_named(const char *name, size_t size);

typedef struct mica_tloop {
    const struct mica_tnode *node;
    struct mica_tscope *scope; // that the loop stands in
    mica_tval *items;
    size_t count, index; // index: of the item at hand
    int64_t depth0;
    mica_tval changed; // arguments of the last loop.changed, or MISSING
} mica_tloop;

typedef struct mica_tmacro {
    const struct mica_tnode *node;
    struct mica_tscope *scope; // where it was defined
} mica_tmacro;

// ---- text of values ---------------------------------------------------------------------------------------------
bool mica_t_str(mica_tbuf *b, const mica_tval *v);
bool mica_t_repr(mica_tbuf *b, const mica_tval *v);
/** Python's repr of a float. out: at least 32 bytes. */
void mica_t_float_text(double v, char *out, size_t size);
typedef struct mica_tjson_style {
    const char *item, *key; // separators
    const mica_tstr *indent; // one level, or NULL: all on one line
    bool ascii, sorted;
} mica_tjson_style;
bool mica_t_json(mica_tbuf *b, const mica_tval *v, const mica_tjson_style *style);
/** "…" % args, and "…".format(…). */
bool mica_t_percent(mica_trun *r, const mica_tstr *format, const mica_tval *args, mica_tval *out);
bool mica_t_format(mica_trun *r, const mica_tstr *format, const mica_targs *args, const mica_tval *mapping, mica_tval *out);
typedef struct mica_tpad {
    char align, sign; // '<' '>' '^' '='; '+' ' ' '-'
    uint32_t fill;
    int64_t width, precision; // -1: none
    bool alternate, grouped;
    char group, type;
} mica_tpad;
/** body (whose first `prefix` bytes are sign and base) padded. */
bool mica_t_padded(mica_tbuf *b, const mica_tstr *body, size_t prefix, const mica_tpad *pad);

enum { MICA_T_MOST_RANGE = 100000 };
#endif
