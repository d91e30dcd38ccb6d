// SPDX-License-Identifier: Apache-2.0
// JSON tree from yajl's event parser. Containers under construction form a stack through `open[]`; each keeps the
// tail of its child list, so appending is O(1). Anything that fails inside a callback is remembered and reported once.
#include "base/json.h"
#include "base/utf8.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

enum { MAX_DEPTH = 128 };

typedef struct builder {
    mica_arena *arena;
    mica_json *open[MAX_DEPTH], *tail[MAX_DEPTH];
    size_t depth;
    mica_json *root;
    const char *key;
    size_t key_length;
    const char *problem; // NULL, or why the document is refused
} builder;

static int refuse(builder *b, const char *why) {
    b->problem = why;
    return 0;
}

static mica_json *add(builder *b, mica_json_type type) {
    mica_json *v = mica_arena_calloc(b->arena, sizeof *v);
    if (!v) return refuse(b, "out of memory"), NULL;
    v->type = type;
    if (!b->depth) return b->root = v;
    mica_json *parent = b->open[b->depth - 1], **tail = &b->tail[b->depth - 1];
    v->key = b->key, v->key_length = b->key_length;
    b->key = NULL, b->key_length = 0;
    if (*tail) (*tail)->next = v;
    else parent->child = v;
    *tail = v;
    parent->length++;
    return v;
}

static int on_null(void *ctx) { return add(ctx, MICA_JSON_NULL) != NULL; }

static int on_boolean(void *ctx, int value) {
    mica_json *v = add(ctx, MICA_JSON_BOOL);
    if (v) v->boolean = value != 0;
    return v != NULL;
}

static int on_number(void *ctx, const char *text, size_t n) {
    builder *b = ctx;
    char digits[64];
    if (n >= sizeof digits) return refuse(b, "number too long");
    memcpy(digits, text, n);
    digits[n] = 0;
    bool integral = !strpbrk(digits, ".eE");
    errno = 0;
    int64_t integer = integral ? strtoll(digits, NULL, 10) : 0;
    bool beyond = integral && errno == ERANGE;
    if (beyond) integral = false;
    mica_json *v = add(b, integral ? MICA_JSON_INT : MICA_JSON_FLOAT);
    if (!v) return 0;
    v->integer = integral ? integer : 0;
    v->beyond = beyond;
    v->number = integral ? (double)integer : strtod(digits, NULL);
    return 1;
}

static const char *copy(builder *b, const unsigned char *s, size_t n) {
    const char *p = mica_arena_strndup(b->arena, (const char *)s, n);
    if (!p) refuse(b, "out of memory");
    return p;
}

static int on_string(void *ctx, const unsigned char *s, size_t n) {
    mica_json *v = add(ctx, MICA_JSON_STRING);
    if (!v) return 0;
    v->length = n;
    return (v->string = copy(ctx, s, n)) != NULL;
}

static int on_key(void *ctx, const unsigned char *s, size_t n) {
    builder *b = ctx;
    b->key_length = n;
    return (b->key = copy(b, s, n)) != NULL;
}

static int open_container(builder *b, mica_json_type type) {
    if (b->depth == MAX_DEPTH) return refuse(b, "nested too deeply");
    mica_json *v = add(b, type);
    if (!v) return 0;
    b->open[b->depth] = v;
    b->tail[b->depth++] = NULL;
    return 1;
}

static int on_start_object(void *ctx) { return open_container(ctx, MICA_JSON_OBJECT); }
static int on_start_array(void *ctx) { return open_container(ctx, MICA_JSON_ARRAY); }
static int on_end(void *ctx) {
    ((builder *)ctx)->depth--;
    return 1;
}

// yajl does not survive a failed allocation, so it gets memory set aside beforehand and never runs out: a handle, a lexer, a small
// stack (our depth limit bounds it) and two buffers that double from 2 KiB up to the longest string. Freeing happens all at once.
typedef struct reserve {
    unsigned char *data;
    size_t size, used;
} reserve;

enum { RESERVE_BASE = 64 * 1024, RESERVE_FACTOR = 10, HEADER = 16 };

static void *reserve_alloc(void *ctx, size_t n) {
    reserve *r = ctx;
    size_t need = HEADER + (n + 15) / 16 * 16;
    if (need > r->size - r->used) return NULL;
    unsigned char *p = r->data + r->used;
    memcpy(p, &n, sizeof n);
    r->used += need;
    return p + HEADER;
}

static void *reserve_realloc(void *ctx, void *p, size_t n) {
    void *q = reserve_alloc(ctx, n);
    size_t before = 0;
    if (p) memcpy(&before, (unsigned char *)p - HEADER, sizeof before);
    if (p && q) memcpy(q, p, MICA_MIN(before, n));
    return q;
}

static void reserve_free(void *ctx, void *p) { (void)ctx, (void)p; }

static size_t line_of(const char *text, size_t offset) {
    size_t line = 1;
    for (size_t i = 0; i < offset; i++) line += text[i] == '\n';
    return line;
}

const mica_json *mica_json_parse(mica_arena *arena, const char *text, size_t size, const char *what, mica_error *err) {
    static const yajl_callbacks callbacks = {on_null, on_boolean, NULL, NULL, on_number, on_string, on_start_object,
                                             on_key, on_end, on_start_array, on_end};
    reserve memory = {0};
    if (!mica_size_mul(size, RESERVE_FACTOR, &memory.size) || memory.size > SIZE_MAX - RESERVE_BASE ||
        !(memory.data = mica_alloc(memory.size += RESERVE_BASE)))
        return mica_fail_memory(err, size, what), NULL;
    yajl_alloc_funcs functions = {reserve_alloc, reserve_realloc, reserve_free, &memory};
    builder b = {.arena = arena};
    yajl_handle h = yajl_alloc(&callbacks, &functions, &b);
    yajl_status status = yajl_parse(h, (const unsigned char *)text, size);
    size_t at = MICA_MIN(yajl_get_bytes_consumed(h), size);
    if (status == yajl_status_ok) status = yajl_complete_parse(h);
    yajl_free(h);
    mica_free(memory.data);
    if (status == yajl_status_ok && b.root) return b.root;
    if (b.problem && !strcmp(b.problem, "out of memory")) return mica_fail_memory(err, size, what), NULL;
    mica_fail(err, MICA_ERR_FORMAT, "%s: line %zu: %s", what, line_of(text, at), b.problem ? b.problem : "not valid JSON");
    return NULL;
}

const mica_json *mica_json_get(const mica_json *v, const char *key) {
    const mica_json *found = NULL;
    if (!v || v->type != MICA_JSON_OBJECT) return NULL;
    size_t n = strlen(key);
    for (const mica_json *m = v->child; m; m = m->next)
        if (m->key_length == n && !memcmp(m->key, key, n)) found = m; // the last one wins
    return found;
}

const mica_json *mica_json_at(const mica_json *v, size_t i) {
    if (!v || v->type != MICA_JSON_ARRAY) return NULL;
    const mica_json *e = v->child;
    for (; e && i; i--) e = e->next;
    return e;
}

const char *mica_json_type_name(mica_json_type type) {
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    return names[type];
}

static const mica_json *member(const mica_json *object, const char *key) {
    const mica_json *v = mica_json_get(object, key);
    return v && v->type != MICA_JSON_NULL ? v : NULL;
}

static bool wrong_type(const mica_json *v, const char *key, const char *wanted, const char *what, mica_error *err) {
    return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\" must be %s, not %s", what, key, wanted, mica_json_type_name(v->type));
}

bool mica_json_int(const mica_json *object, const char *key, int64_t otherwise, int64_t *out, const char *what, mica_error *err) {
    const mica_json *v = member(object, key);
    *out = otherwise;
    if (!v) return true;
    bool whole = v->type == MICA_JSON_FLOAT && fabs(v->number) < 9e15 && floor(v->number) == v->number;
    if (v->type != MICA_JSON_INT && !whole) return wrong_type(v, key, "an integer", what, err);
    *out = whole ? (int64_t)v->number : v->integer;
    return true;
}

bool mica_json_float(const mica_json *object, const char *key, double otherwise, double *out, const char *what, mica_error *err) {
    const mica_json *v = member(object, key);
    *out = otherwise;
    if (!v) return true;
    if (v->type != MICA_JSON_INT && v->type != MICA_JSON_FLOAT) return wrong_type(v, key, "a number", what, err);
    *out = v->number;
    return true;
}

bool mica_json_bool(const mica_json *object, const char *key, bool otherwise, bool *out, const char *what, mica_error *err) {
    const mica_json *v = member(object, key);
    *out = otherwise;
    if (!v) return true;
    if (v->type != MICA_JSON_BOOL) return wrong_type(v, key, "true or false", what, err);
    *out = v->boolean;
    return true;
}

bool mica_json_string(const mica_json *object, const char *key, const char *otherwise, const char **out, const char *what, mica_error *err) {
    const mica_json *v = member(object, key);
    *out = otherwise;
    if (!v) return true;
    if (v->type != MICA_JSON_STRING) return wrong_type(v, key, "a string", what, err);
    *out = v->string;
    return true;
}
