// SPDX-License-Identifier: Apache-2.0
// Scopes and recording. Everything a node needs lives in the scope's arena; reset keeps the arena's blocks and the tables,
// so that recording the same graph again allocates nothing.
#include "engine/scope.h"
#include "engine/state.h"
#include <stdio.h>
#include <string.h>

// ---- life -----------------------------------------------------------------------------------------------
mica_scope *mica_scope_new(mica_device *device, mica_error *err) {
    mica_device *d = device ? mica_device_retain(device) : mica_device_default(err);
    if (!d) return NULL;
    mica_scope *s = mica_calloc(1, sizeof *s);
    if (!s) {
        mica_device_close(d);
        mica_fail_memory(err, sizeof *s, "a scope");
        return NULL;
    }
    s->device = d;
    s->generation = 1;
    return s;
}

void mica_scope_reset(mica_scope *s) {
    for (size_t i = 0; i < s->held_count; i++) mica_buffer_release(s->held[i]);
    s->held_count = s->count = s->import_count = 0;
    s->generation++;
    s->failed = false;
    mica_arena_reset(&s->arena);
}

void mica_scope_free(mica_scope *s) {
    if (!s) return;
    mica_scope_reset(s);
    mica_arena_free(&s->arena);
    mica_collection_free(&s->collection);
    mica_free(s->nodes);
    mica_free(s->held);
    mica_free(s->imports);
    mica_device_close(s->device);
    mica_free(s);
}

bool mica_scope_error(const mica_scope *s, mica_error *err) {
    if (s->failed && err) *err = s->error;
    return s->failed;
}

bool mica_scope_failed(const mica_scope *s) { return s->failed; }
mica_device *mica_scope_device(const mica_scope *s) { return s->device; }

// ---- errors -----------------------------------------------------------------------------------------------
mica_array *mica_scope_fail(mica_scope *s, mica_code code, const char *op, const char *fmt, ...) {
    if (s->failed) return NULL;
    s->failed = true;
    va_list args;
    va_start(args, fmt);
    mica_failv(&s->error, code, fmt, args);
    va_end(args);
    mica_error_prefix(&s->error, "%s", op);
    return NULL;
}

static mica_array *fail_memory(mica_scope *s, const char *op) {
    return mica_scope_fail(s, MICA_ERR_NO_MEMORY, op, "out of memory");
}

static void put_shape(mica_buf *b, const mica_array *a) {
    mica_buf_puts(b, mica_dtype_name(a->dtype));
    mica_buf_putc(b, '[');
    for (int i = 0; i < a->ndim; i++) mica_buf_printf(b, i ? ",%lld" : "%lld", (long long)a->shape[i]);
    mica_buf_putc(b, ']');
}

// Its own, or that of the array it is a view of.
static const char *name_of(const mica_array *a) {
    while (!a->name && (mica_op_table[a->op].flags & MICA_FLAG_VIEW)) a = a->in[0];
    return a->name;
}

bool mica_op_fail(mica_scope *s, const mica_array *node, const char *fmt, ...) {
    if (s->failed) return false;
    mica_buf b = {0};
    va_list args;
    va_start(args, fmt);
    char text[300];
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const char *separator = ": ";
    for (int i = 0; i < node->n_in; i++) {
        if (!node->in[i]) continue;
        mica_buf_puts(&b, separator);
        put_shape(&b, node->in[i]);
        const char *name = name_of(node->in[i]);
        if (name) mica_buf_printf(&b, " (%s)", name);
        separator = " x ";
    }
    mica_scope_fail(s, MICA_ERR_ARGUMENT, mica_op_table[node->op].name, "%s%s", text, b.data ? b.data : "");
    mica_buf_free(&b);
    return false;
}

// ---- memory of nodes ------------------------------------------------------------------------------------------
void *mica_scope_alloc(mica_scope *s, size_t size) {
    void *p = s->failed ? NULL : mica_arena_calloc(&s->arena, size);
    if (!p) fail_memory(s, "scope");
    return p;
}

bool mica_scope_hold(mica_scope *s, mica_array *node, mica_buffer *buffer) {
    if (!mica_grow(&s->held, &s->held_capacity, s->held_count + 1, sizeof *s->held)) {
        mica_buffer_release(buffer);
        return false;
    }
    s->held[s->held_count++] = buffer;
    node->buffer = buffer;
    return true;
}

static mica_array *new_node(mica_scope *s, mica_op op, int n_in) {
    const char *name = mica_op_table[op].name;
    if (s->failed) return NULL;
    mica_array *a = mica_arena_calloc(&s->arena, sizeof *a + (size_t)n_in * sizeof(mica_array *));
    if (!a) return fail_memory(s, name);
    a->scope = s;
    a->op = op;
    a->n_in = n_in;
    a->in = (mica_array **)(void *)(a + 1);
    a->base = a;
    return a;
}

// Enters a finished node into the record. The place is made here: importing a node's inputs records leaves before it.
static mica_array *publish(mica_scope *s, mica_array *a) {
    if (!mica_grow(&s->nodes, &s->capacity, s->count + 1, sizeof *s->nodes)) return fail_memory(s, mica_op_table[a->op].name);
    a->id = (uint32_t)s->count;
    s->nodes[s->count++] = a;
    return a;
}

static void row_major(mica_array *a) {
    int64_t stride = 1;
    for (int i = a->ndim - 1; i >= 0; i--) {
        a->stride[i] = stride;
        stride *= MICA_MAX(a->shape[i], (int64_t)1);
    }
}

// Dimensions must be non-negative and the size must fit comfortably in memory arithmetic.
static bool size_is_sane(const mica_array *a) {
    size_t bytes = mica_dtype_size(a->dtype);
    bool empty = false;
    for (int i = 0; i < a->ndim; i++) {
        if (a->shape[i] < 0) return false;
        empty |= a->shape[i] == 0;
        if (a->shape[i] && !mica_size_mul(bytes, (size_t)a->shape[i], &bytes)) return false;
    }
    return empty || bytes <= (size_t)1 << 46;
}

// ---- recording --------------------------------------------------------------------------------------------------
static size_t import_index(const mica_scope *s, const mica_array *key) {
    size_t mask = s->import_capacity - 1, i = (size_t)mica_hash_mix(0, (uintptr_t)key) & mask;
    while (s->imports[i].generation == s->generation && s->imports[i].key != key) i = (i + 1) & mask;
    return i;
}

static bool grow_imports(mica_scope *s) {
    size_t old = s->import_capacity, capacity = old ? old * 2 : 256;
    mica_import_slot *slots = mica_calloc(capacity, sizeof *slots), *before = s->imports;
    if (!slots) return false;
    s->imports = slots;
    s->import_capacity = capacity;
    for (size_t i = 0; i < old; i++)
        if (before[i].generation == s->generation) slots[import_index(s, before[i].key)] = before[i];
    mica_free(before);
    return true;
}

static bool same_layout(const mica_array *a, const mica_array *b) {
    return a->buffer == b->buffer && a->dtype == b->dtype && a->ndim == b->ndim && a->offset == b->offset &&
           !memcmp(a->shape, b->shape, sizeof a->shape) && !memcmp(a->stride, b->stride, sizeof a->stride);
}

mica_array *mica_scope_import(mica_scope *s, mica_array *a) {
    if (a->scope == s) return a;
    if (a->scope) return mica_scope_fail(s, MICA_ERR_ARGUMENT, mica_op_table[a->op].name, "the array belongs to another scope: mica_keep it first");
    if (a->buffer->device != s->device) return mica_scope_fail(s, MICA_ERR_ARGUMENT, "kept array", "it lives on another device");
    if (s->import_count * 2 >= s->import_capacity && !grow_imports(s)) return fail_memory(s, "scope");
    mica_import_slot *slot = &s->imports[import_index(s, a)];
    // The address of a freed kept array may have been reused: the entry must still describe it.
    if (slot->generation == s->generation && same_layout(slot->local, a)) return slot->local;
    mica_array *leaf = new_node(s, MICA_OP_leaf, 0);
    if (!leaf) return NULL;
    leaf->dtype = a->dtype, leaf->ndim = a->ndim, leaf->offset = a->offset, leaf->name = a->name;
    memcpy(leaf->shape, a->shape, sizeof leaf->shape);
    memcpy(leaf->stride, a->stride, sizeof leaf->stride);
    if (!mica_scope_hold(s, leaf, mica_buffer_retain(a->buffer))) return fail_memory(s, "scope");
    if (slot->generation != s->generation) s->import_count++;
    *slot = (mica_import_slot){a, leaf, s->generation};
    return publish(s, leaf);
}

mica_array *mica_record(mica_scope *s, mica_op op, mica_array *const *in, int n, unsigned optional, const mica_params *params) {
    const mica_op_info *info = &mica_op_table[op];
    mica_array *a = new_node(s, op, n);
    for (int i = 0; a && i < n; i++) {
        if (in[i]) a->in[i] = mica_scope_import(s, in[i]);
        else if (!(optional >> i & 1)) mica_scope_fail(s, MICA_ERR_ARGUMENT, info->name, "input %d is NULL", i);
    }
    if (s->failed) return NULL;
    if (params) a->params = *params;
    if (!info->infer(s, a)) {
        mica_op_fail(s, a, "invalid input");
        return NULL;
    }
    if (!size_is_sane(a)) {
        mica_op_fail(s, a, "the result would be too large");
        return NULL;
    }
    row_major(a);
    return publish(s, a);
}

mica_array *mica_record_view(mica_scope *s, mica_op op, mica_array *in, int ndim, const int64_t *shape, const int64_t *stride,
                             int64_t offset, const mica_params *params) {
    mica_array *a = new_node(s, op, 1);
    if (!a) return NULL;
    a->in[0] = in;
    a->base = in->base;
    a->dtype = in->dtype;
    a->ndim = ndim;
    a->offset = offset;
    for (int i = 0; i < ndim; i++) a->shape[i] = shape[i], a->stride[i] = stride[i];
    if (params) a->params = *params;
    return publish(s, a);
}

mica_array *mica_scope_leaf(mica_scope *s, mica_buffer *buffer, int ndim, const int64_t *shape, mica_dtype dtype) {
    mica_array *a = new_node(s, MICA_OP_leaf, 0);
    if (!a || !mica_scope_hold(s, a, buffer)) {
        if (!a) mica_buffer_release(buffer);
        return fail_memory(s, "leaf");
    }
    a->dtype = dtype;
    a->ndim = ndim;
    for (int i = 0; i < ndim; i++) a->shape[i] = shape[i];
    row_major(a);
    return publish(s, a);
}

// ---- small helpers of shape rules ----------------------------------------------------------------------------------
void mica_like(mica_array *node, const mica_array *a) {
    node->dtype = a->dtype;
    node->ndim = a->ndim;
    memcpy(node->shape, a->shape, sizeof node->shape);
}

bool mica_node_contiguous(const mica_array *a) {
    int64_t stride = 1;
    for (int i = a->ndim - 1; i >= 0; i--) {
        if (a->shape[i] == 0) return true;
        if (a->shape[i] != 1 && a->stride[i] != stride) return false;
        stride *= a->shape[i];
    }
    return true;
}

int mica_axis(mica_scope *s, const char *op, const mica_array *a, int axis) {
    int i = axis < 0 ? axis + a->ndim : axis;
    if (i >= 0 && i < a->ndim) return i;
    mica_scope_fail(s, MICA_ERR_ARGUMENT, op, "axis %d is out of range for %d dimensions", axis, a->ndim);
    return -1;
}

mica_array *mica_name(mica_array *a, const char *name) {
    if (!a) return NULL;
    size_t n = strlen(name);
    if (a->scope) a->name = mica_arena_strndup(&a->scope->arena, name, n);
    else {
        mica_free((char *)(uintptr_t)a->name);
        a->name = mica_strndup(name, n);
    }
    return a; // a name lost to lack of memory is only a poorer message
}
