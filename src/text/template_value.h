// SPDX-License-Identifier: Apache-2.0
// Values of chat templates: Python's, as far as a sandboxed template can tell. They live in the arena of one render (or of the
// template, for constants) and never change, except a namespace. A string knows which of its bytes stem from the caller's strings
// (marks): every operation that makes a string goes through mica_tbuf, which carries them along.
#ifndef MICA_TEXT_TEMPLATE_VALUE_H
#define MICA_TEXT_TEMPLATE_VALUE_H

#include "base/base.h"
#include "mica/template.h"

typedef struct mica_trun mica_trun;

typedef enum mica_tkind {
    MICA_T_MISSING, // no value: an argument that was not given, the end of a search
    MICA_T_UNDEFINED, MICA_T_NONE, MICA_T_BOOL, MICA_T_INT, MICA_T_FLOAT, MICA_T_STRING, MICA_T_LIST, MICA_T_TUPLE, MICA_T_DICT,
    MICA_T_VIEW, // keys(), values() or items() of a dict
    MICA_T_ITER, // a generator: each item once
    MICA_T_RANGE, MICA_T_NAMESPACE, MICA_T_MACRO, MICA_T_FUNCTION, MICA_T_METHOD, MICA_T_LOOP, MICA_T_CYCLER, MICA_T_JOINER,
} mica_tkind;

/** What a long string was built in: the next one that begins with it may be built on in place, so that a text that grows piece by piece
 * costs its own length. Nothing that a string holds changes by that. */
typedef struct mica_tstore {
    const char *data;
    size_t used, capacity;  // used: SIZE_MAX while it is being built on
    mica_mark *marks;
    size_t mark_capacity;
} mica_tstore;

typedef struct mica_tstr {
    const char *data; // UTF-8
    size_t size, chars;
    const mica_mark *marks; // in order, apart from one another
    size_t mark_count; // the last may reach beyond the end
    mica_tstore *store; // or NULL
    bool safe; // Markup: the `safe` filter made it, and what is joined to it is escaped
} mica_tstr;

typedef struct mica_tval {
    mica_tkind kind;
    union {
        bool b;
        int64_t i; // FUNCTION: which
        double f;
        const mica_tstr *s;
        struct mica_tlist *list;   // LIST, TUPLE, ITER, CYCLER
        struct mica_tdict *dict;   // DICT, NAMESPACE
        struct mica_tview *view;
        struct mica_trange *range;
        struct mica_tundef *undef;
        struct mica_tmacro *macro;
        struct mica_tmethod *method;
        struct mica_tloop *loop;
        struct mica_tjoiner *joiner;
    };
} mica_tval;

typedef struct mica_tlist {
    mica_tval *items;
    size_t count, capacity;
    size_t taken;    // ITER: items already given; CYCLER: position
    bool group;      // TUPLE: one of groupby, with the attributes grouper and list
    const char *what; // ITER: its Python type
    const mica_error *error; // ITER: what its use fails with once the items are used up, or NULL
} mica_tlist;

typedef struct mica_tentry {
    mica_tval key, value;
    uint64_t hash;
} mica_tentry;

typedef struct mica_tdict {
    mica_tentry *entries; // in order of insertion
    size_t count, capacity;
    uint32_t *slots; // index + 1; NULL while the dict is small
    size_t slot_count;
} mica_tdict;

typedef struct mica_tview {
    const mica_tdict *dict;
    char part; // 'k', 'v' or 'i'
} mica_tview;

typedef struct mica_trange {
    int64_t start, stop, step, count;
} mica_trange;

typedef struct mica_tundef {
    const char *hint;  // the whole message, or NULL
    mica_tval object;  // of which it is an attribute or element, or MISSING
    mica_tval name;
} mica_tundef;

typedef struct mica_tjoiner {
    mica_tval separator;
    bool used;
} mica_tjoiner;

typedef struct mica_targs { // of a call
    mica_tval *items;
    size_t count;
    const mica_tstr **names; // of the last name_count items: keyword arguments
    size_t name_count;
} mica_targs;

/** What a method needs: its object and the row of a table of methods. */
typedef struct mica_tmethod {
    mica_tval object;
    const char *name;
    bool (*call)(mica_trun *r, const mica_tval *object, const mica_targs *args, mica_tval *out);
} mica_tmethod;

// ---- the render that values belong to ------------------------------------------------------------------
struct mica_trun {
    mica_arena arena;
    mica_error *err;
    const char *name; // of the template, for messages
    uint32_t line;    // that is being evaluated
    unsigned depth;
    uint64_t steps, most_steps;
    size_t memory, most_memory, most_bytes;
    int64_t now;
    bool failed;
    bool constants; // strings are shared by renders: none is built on
    const struct mica_template *template;
    struct mica_tscope *scope;
    struct mica_tbuf *out;
    const mica_tdict *context; // the variables given
    uint32_t last_symbol;
};

enum { MICA_T_DEPTH = 800 }; // of nested evaluation, and of nested values; bounds the C stack at some hundred bytes a level

/** "NAME: line N: …"; false. The first failure is kept. */
bool mica_t_fail(mica_trun *r, const char *fmt, ...) MICA_PRINTF(2, 3);
bool mica_t_fail_code(mica_trun *r, mica_code code, const char *fmt, ...) MICA_PRINTF(3, 4);
/** Fails with an error that was put off. */
bool mica_t_fail_again(mica_trun *r, const mica_error *error);
/** Puts off what an iterator failed with, as Python's generators do, until it is used; the failures of limits stay. */
bool mica_t_put_off(mica_trun *r, mica_tlist *iterator);
/** From the arena; NULL after a failure has been noted. */
void *mica_t_alloc(mica_trun *r, size_t size);
/** Counts n operations; false when there were too many. */
bool mica_t_work(mica_trun *r, size_t n);
bool mica_t_enter(mica_trun *r); // a level deeper; mica_t_leave is due even after false
static inline void mica_t_leave(mica_trun *r) { r->depth--; }

// ---- making values ---------------------------------------------------------------------------------------
static inline mica_tval mica_t_none(void) { return (mica_tval){.kind = MICA_T_NONE, .i = 0}; }
static inline mica_tval mica_t_missing(void) { return (mica_tval){.kind = MICA_T_MISSING, .i = 0}; }
static inline mica_tval mica_t_bool(bool b) { return (mica_tval){.kind = MICA_T_BOOL, .b = b}; }
static inline mica_tval mica_t_int(int64_t i) { return (mica_tval){.kind = MICA_T_INT, .i = i}; }
static inline mica_tval mica_t_float(double f) { return (mica_tval){.kind = MICA_T_FLOAT, .f = f}; }
static inline mica_tval mica_t_string(const mica_tstr *s) { return (mica_tval){.kind = MICA_T_STRING, .s = s}; }
static inline mica_tval mica_t_of_list(mica_tkind kind, mica_tlist *l) { return (mica_tval){.kind = kind, .list = l}; }
static inline mica_tval mica_t_of_dict(mica_tkind kind, mica_tdict *d) { return (mica_tval){.kind = kind, .dict = d}; }

mica_tlist *mica_t_list(mica_trun *r, size_t capacity);
bool mica_t_push(mica_trun *r, mica_tlist *list, mica_tval v);
mica_tdict *mica_t_dict(mica_trun *r);
/** Replaces or appends; fails on an unhashable key. */
bool mica_t_put(mica_trun *r, mica_tdict *d, mica_tval key, mica_tval v);
/** A copy of bytes; marked: all of it stems from the caller. NULL after a failure. */
const mica_tstr *mica_t_text(mica_trun *r, const char *data, size_t size, bool marked);
bool mica_t_puts(mica_trun *r, const char *s, mica_tval *out);
bool mica_t_undefined(mica_trun *r, const mica_tval *object, mica_tval name, mica_tval *out);
bool mica_t_undefined_hint(mica_trun *r, const char *hint, mica_tval *out);
/** Fails as any use of an undefined value does. */
bool mica_t_fail_undefined(mica_trun *r, const mica_tval *v);

// ---- asking values -----------------------------------------------------------------------------------------
/** NULL if there is no such key (or it cannot be one). */
const mica_tval *mica_t_get(mica_trun *r, const mica_tdict *d, const mica_tval *key);
const mica_tval *mica_t_get_name(const mica_tdict *d, const char *name, size_t size);
const char *mica_t_type(const mica_tval *v); // as Python names it
bool mica_t_true(mica_trun *r, const mica_tval *v);
/** Items of anything that can be iterated; a generator is used up. They are borrowed. */
bool mica_t_items(mica_trun *r, const mica_tval *v, mica_tval **items, size_t *count);
bool mica_t_is_iterable(const mica_tval *v);
/** len(); false (with no failure noted) if it has none. */
bool mica_t_length(const mica_tval *v, size_t *n);
bool mica_t_equal(mica_trun *r, const mica_tval *a, const mica_tval *b, bool *equal);
/** a < b, or fails as Python does; op is the operator that the message names. */
bool mica_t_less(mica_trun *r, const mica_tval *a, const mica_tval *b, const char *op, bool *less);
static inline bool mica_t_is_number(const mica_tval *v) { return v->kind == MICA_T_INT || v->kind == MICA_T_FLOAT || v->kind == MICA_T_BOOL; }
static inline bool mica_t_is_whole(const mica_tval *v) { return v->kind == MICA_T_INT || v->kind == MICA_T_BOOL; }
static inline int64_t mica_t_whole(const mica_tval *v) { return v->kind == MICA_T_BOOL ? v->b : v->i; }
double mica_t_number(const mica_tval *v);
bool mica_t_is(const mica_tval *v, const char *text); // a string equal to text

// ---- building strings --------------------------------------------------------------------------------------
typedef struct mica_tbuf {
    mica_trun *r;
    char *data;
    size_t size, capacity, chars;
    mica_mark *marks;
    size_t mark_count, mark_capacity;
    mica_tstore *store; // that is being built on, from so many bytes
    size_t store_used;
    bool safe;
} mica_tbuf;
/** Each returns false once anything has failed. */
bool mica_tbuf_add(mica_tbuf *b, const char *bytes, size_t n, bool marked);
bool mica_tbuf_puts(mica_tbuf *b, const char *s);
bool mica_tbuf_part(mica_tbuf *b, const mica_tstr *s, size_t from, size_t to); // bytes
bool mica_tbuf_str(mica_tbuf *b, const mica_tstr *s);
bool mica_tbuf_char(mica_tbuf *b, uint32_t cp, bool marked);
bool mica_tbuf_fill(mica_tbuf *b, const mica_tstr *s, int64_t times);
/** The string built; the buffer is used up. */
bool mica_tbuf_end(mica_tbuf *b, mica_tval *out);
const mica_tstr *mica_tbuf_take(mica_tbuf *b);
/** Whether byte i is marked. */
bool mica_t_marked(const mica_tstr *s, size_t i);
/** Bytes [from, to) as a string of their own (no copy of the bytes). */
bool mica_t_part(mica_trun *r, const mica_tstr *s, size_t from, size_t to, mica_tval *out);
/** Byte offset of character i (0 … chars). */
size_t mica_t_offset(const mica_tstr *s, size_t i);
/** Where needle starts in s[from…to) (bytes), or SIZE_MAX. */
size_t mica_t_find(mica_trun *r, const mica_tstr *s, size_t from, size_t to, const mica_tstr *needle);
/** HTML-escaped, unless it is safe already. */
bool mica_t_escape(mica_trun *r, const mica_tstr *s, const mica_tstr **out);
#endif
