// SPDX-License-Identifier: Apache-2.0
// Leaves from the caller's data, kept arrays, and the properties of arrays.
#include "engine/scope.h"
#include "engine/state.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

static bool leaf_bytes(mica_scope *s, int ndim, const int64_t *shape, mica_dtype dtype, size_t *bytes) {
    if (s->failed) return false;
    bool ok = ndim >= 0 && ndim <= MICA_MAX_DIMS && (unsigned)dtype < MICA_DTYPE_COUNT;
    *bytes = ok ? mica_dtype_size(dtype) : 0;
    for (int i = 0; ok && i < ndim; i++) ok = shape[i] >= 0 && mica_size_mul(*bytes, (size_t)shape[i], bytes);
    if (!ok) mica_scope_fail(s, MICA_ERR_ARGUMENT, "leaf", "invalid shape or dtype");
    return ok;
}

mica_array *mica_from_data(mica_scope *s, const void *data, int ndim, const int64_t *shape, mica_dtype dtype) {
    size_t bytes;
    if (!leaf_bytes(s, ndim, shape, dtype, &bytes)) return NULL;
    mica_buffer *b = mica_buffer_new(s->device, bytes);
    if (!b) return mica_scope_fail(s, MICA_ERR_NO_MEMORY, "leaf", "out of memory: %zu bytes", bytes);
    if (bytes) s->device->copy_in(s->device, b->data, data, bytes);
    return mica_scope_leaf(s, b, ndim, shape, dtype);
}

mica_array *mica_from_borrowed(mica_scope *s, const void *data, int ndim, const int64_t *shape, mica_dtype dtype,
                               void (*release)(void *owner), void *owner) {
    size_t bytes;
    mica_buffer *b = NULL;
    if (leaf_bytes(s, ndim, shape, dtype, &bytes)) {
        b = mica_buffer_borrow(s->device, data, bytes, release, owner);
        if (!b) mica_scope_fail(s, MICA_ERR_NO_MEMORY, "leaf", "out of memory");
    }
    if (!b) {
        if (release) release(owner);
        return NULL;
    }
    return mica_scope_leaf(s, b, ndim, shape, dtype);
}

// A kept array that is all alone over memory of its own.
static mica_array *kept_over(mica_device *d, mica_buffer *b, int ndim, const int64_t *shape, mica_dtype dtype) {
    mica_array *a = mica_calloc(1, sizeof *a);
    if (!a) return NULL;
    *a = (mica_array){.op = MICA_OP_leaf, .dtype = dtype, .ndim = ndim, .base = a, .buffer = b};
    for (int64_t i = ndim - 1, stride = 1; i >= 0; i--) {
        a->shape[i] = shape[i], a->stride[i] = stride;
        stride *= MICA_MAX(shape[i], (int64_t)1);
    }
    mica_device_retain(d);
    return a;
}

mica_array *mica_keep_alone(mica_device *d, const mica_array *like, bool zero, mica_error *err) {
    size_t bytes = (size_t)mica_node_size(like) * mica_dtype_size(like->dtype);
    mica_buffer *b = mica_buffer_new(d, bytes);
    mica_array *a = b ? kept_over(d, b, like->ndim, like->shape, like->dtype) : NULL;
    if (!a) {
        mica_buffer_release(b);
        mica_fail_memory(err, bytes, "an array");
        return NULL;
    }
    if (zero) memset(b->data, 0, bytes);
    else if (bytes) d->copy(d, b->data, (const unsigned char *)like->buffer->data + (size_t)like->offset * mica_dtype_size(like->dtype), bytes);
    return a;
}

bool mica_is_alone(const mica_array *a) {
    const mica_buffer *b = a->scope ? NULL : a->buffer;
    return b && !b->owner && !b->release && !b->reserved && atomic_load(&b->refs) == 1 && mica_node_contiguous(a);
}

mica_array *mica_keep(mica_scope *s, mica_array *a, mica_error *err) {
    if (!mica_eval(s, &a, 1, err)) return NULL;
    if (a->scope && a->scope != s) {
        mica_fail(err, MICA_ERR_ARGUMENT, "keep: the array belongs to another scope");
        return NULL;
    }
    mica_array *kept = mica_calloc(1, sizeof *kept);
    char *name = a->name ? mica_strdup(a->name) : NULL;
    if (!kept || (a->name && !name)) {
        mica_free(kept);
        mica_free(name);
        mica_fail_memory(err, sizeof *kept, "a kept array");
        return NULL;
    }
    *kept = *a;
    kept->scope = NULL;
    kept->op = MICA_OP_leaf;
    kept->n_in = 0;
    kept->in = NULL;
    kept->base = kept;
    kept->buffer = mica_buffer_retain(a->base->buffer);
    mica_device_retain(kept->buffer->device); // a kept array may outlive its scope and its caller's handle on the device
    kept->name = name;
    kept->region = NULL;
    kept->needs_grad = false;
    kept->params = (mica_params){0};
    return kept;
}

void mica_array_free(mica_array *a) {
    if (!a || a->scope) return;
    mica_device *d = a->buffer->device;
    mica_buffer_release(a->buffer);
    mica_device_close(d);
    mica_free((void *)(uintptr_t)a->name);
    mica_free(a);
}

int mica_ndim(const mica_array *a) { return a ? a->ndim : 0; }
const int64_t *mica_shape(const mica_array *a) { return a ? a->shape : NULL; }
const int64_t *mica_strides(const mica_array *a) { return a ? a->stride : NULL; }
int64_t mica_size(const mica_array *a) { return a ? mica_node_size(a) : 0; }
size_t mica_nbytes(const mica_array *a) { return a ? (size_t)mica_node_size(a) * mica_dtype_size(a->dtype) : 0; }
mica_dtype mica_array_dtype(const mica_array *a) { return a ? a->dtype : MICA_F32; }
bool mica_is_contiguous(const mica_array *a) { return a && mica_node_contiguous(a); }

int64_t mica_dim(const mica_array *a, int axis) {
    if (!a) return 0;
    int i = axis < 0 ? axis + a->ndim : axis;
    return i >= 0 && i < a->ndim ? a->shape[i] : 0;
}

const void *mica_data(const mica_array *a) {
    if (!a || !a->base->buffer || !mica_node_contiguous(a)) return NULL;
    return (const unsigned char *)a->base->buffer->data + a->offset * (int64_t)mica_dtype_size(a->dtype);
}
