// SPDX-License-Identifier: Apache-2.0
// Strided tensors read and written in logical order: see view.h.
#include "device/cpu/view.h"
#include <assert.h>
#include <string.h>

mica_cpu_view mica_cpu_view_dims(const mica_tensor *t, int first, int last) {
    mica_cpu_view v = {.data = t->data, .item = mica_dtype_size(t->dtype), .size = 1};
    for (int d = first; d < last; d++) {
        int64_t n = t->shape[d], stride = t->stride[d] * (int64_t)v.item;
        v.size *= n;
        if (n == 1) continue;
        if (v.ndim && v.stride[v.ndim - 1] == stride * n) {
            v.shape[v.ndim - 1] *= n;
            v.stride[v.ndim - 1] = stride;
        } else {
            v.shape[v.ndim] = n;
            v.stride[v.ndim++] = stride;
        }
    }
    if (!v.ndim) v.shape[0] = 1, v.stride[0] = (int64_t)v.item, v.ndim = 1;
    return v;
}

// A position as one coordinate per dimension, and the byte offset of the current line (last coordinate 0).
typedef struct cursor {
    int64_t at[MICA_MAX_DIMS], line;
} cursor;

static cursor cursor_at(const mica_cpu_view *v, int64_t position) {
    cursor c = {.line = 0};
    for (int d = v->ndim - 1; d >= 0; d--) {
        int64_t n = v->shape[d], q = d ? position / n : 0;
        c.at[d] = position - q * n;
        position = q;
        if (d < v->ndim - 1) c.line += c.at[d] * v->stride[d];
    }
    return c;
}

static void next_line(const mica_cpu_view *v, cursor *c) {
    c->at[v->ndim - 1] = 0;
    for (int d = v->ndim - 2; d >= 0; d--) {
        c->line += v->stride[d];
        if (++c->at[d] < v->shape[d]) return;
        c->line -= v->shape[d] * v->stride[d];
        c->at[d] = 0;
    }
}

int64_t mica_cpu_offset(const mica_cpu_view *v, int64_t at) {
    cursor c = cursor_at(v, at);
    return c.line + c.at[v->ndim - 1] * v->stride[v->ndim - 1];
}

void mica_cpu_offsets(const mica_cpu_view *v, int64_t at, size_t n, int64_t *offsets) {
    int last = v->ndim - 1;
    cursor c = cursor_at(v, at);
    for (size_t i = 0; i < n; next_line(v, &c))
        for (; i < n && c.at[last] < v->shape[last]; i++, c.at[last]++)
            offsets[i] = c.line + c.at[last] * v->stride[last];
}

// One line of n elements, from strides fs to ts bytes apart.
#define COPY_LINE(T)                                          \
    for (size_t i = 0; i < n; i++, to += ts, from += fs) {    \
        T value;                                              \
        memcpy(&value, from, sizeof value);                   \
        memcpy(to, &value, sizeof value);                     \
    }

static void copy_line(size_t item, unsigned char *to, int64_t ts, const unsigned char *from, int64_t fs, size_t n) {
    if (ts == fs && ts == (int64_t)item) {
        memcpy(to, from, n * item);
        return;
    }
    switch (item) {
    case 1: COPY_LINE(uint8_t); break;
    case 2: COPY_LINE(uint16_t); break;
    case 4: COPY_LINE(uint32_t); break;
    default: COPY_LINE(uint64_t); break;
    }
}

const void *mica_cpu_read(const mica_cpu_view *v, int64_t shift, int64_t at, size_t n, void *buffer) {
    int last = v->ndim - 1;
    int64_t step = v->stride[last], width = v->shape[last];
    const unsigned char *data = v->data + shift;
    cursor c = cursor_at(v, at);
    if (step == (int64_t)v->item && c.at[last] + (int64_t)n <= width) return data + c.line + c.at[last] * step;
    unsigned char *to = buffer;
    while (n) {
        size_t here = (size_t)(width - c.at[last]);
        if (here > n) here = n;
        copy_line(v->item, to, (int64_t)v->item, data + c.line + c.at[last] * step, step, here);
        to += here * v->item;
        n -= here;
        if (n) next_line(v, &c);
    }
    return buffer;
}

/** The reverse of mica_cpu_read: n contiguous elements to the positions from `at` on. */
static void put(const mica_cpu_view *v, int64_t at, size_t n, const void *from) {
    int last = v->ndim - 1;
    int64_t step = v->stride[last], width = v->shape[last];
    const unsigned char *data = from;
    cursor c = cursor_at(v, at);
    while (n) {
        size_t here = (size_t)(width - c.at[last]);
        if (here > n) here = n;
        copy_line(v->item, v->data + c.line + c.at[last] * step, step, data, (int64_t)v->item, here);
        data += here * v->item;
        n -= here;
        if (n) next_line(v, &c);
    }
}

typedef struct copy_job {
    const mica_cpu_view *to, *from;
} copy_job;

static void copy_task(void *ctx, size_t task, size_t thread) {
    (void)thread;
    const copy_job *job = ctx;
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    int64_t at = (int64_t)task * MICA_CPU_CHUNK, end = MICA_MIN(at + MICA_CPU_CHUNK, job->from->size);
    for (int64_t n; at < end; at += n) {
        n = MICA_MIN(end - at, (int64_t)MICA_CPU_BLOCK);
        put(job->to, at, (size_t)n, mica_cpu_read(job->from, 0, at, (size_t)n, buffer));
    }
}

void mica_cpu_copy(mica_pool *pool, const mica_cpu_view *to, const mica_cpu_view *from) {
    assert(to->size == from->size && to->item == from->item);
    copy_job job = {to, from};
    mica_pool_run(pool, mica_chunks(from->size, MICA_CPU_CHUNK), copy_task, &job);
}

#define READ_INDICES(T) \
    for (size_t i = 0; i < n; i++) out[i] = resolve((int64_t)((const T *)x)[i], axis)

static int64_t resolve(int64_t index, int64_t axis) {
    if (index < 0) index += axis;
    return index < 0 || index >= axis ? -1 : index;
}

void mica_cpu_read_indices(const mica_cpu_view *v, mica_dtype dtype, int64_t at, size_t n, int64_t axis, int64_t *out) {
    _Alignas(64) unsigned char buffer[MICA_CPU_BLOCK_BYTES];
    assert(n <= MICA_CPU_BLOCK);
    const void *x = mica_cpu_read(v, 0, at, n, buffer);
    switch (dtype) {
    case MICA_BOOL:
    case MICA_U8: READ_INDICES(uint8_t); break;
    case MICA_U16: READ_INDICES(uint16_t); break;
    case MICA_U32: READ_INDICES(uint32_t); break;
    case MICA_I8: READ_INDICES(int8_t); break;
    case MICA_I16: READ_INDICES(int16_t); break;
    case MICA_I32: READ_INDICES(int32_t); break;
    case MICA_U64: // the upper half is out of range, not negative
        for (size_t i = 0; i < n; i++) out[i] = resolve((int64_t)MICA_MIN(((const uint64_t *)x)[i], (uint64_t)INT64_MAX), axis);
        break;
    default: READ_INDICES(int64_t); break;
    }
}
