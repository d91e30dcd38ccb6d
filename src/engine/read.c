// SPDX-License-Identifier: Apache-2.0
// Reading arrays: evaluate, bring to the host, walk in logical order whatever the layout, convert.
#include "base/half.h"
#include "engine/scope.h"
#include <math.h>
#include <string.h>

static double load_f64(mica_dtype t, const void *p) {
    union { uint16_t h; float f; double d; uint8_t u8; uint16_t u16; uint32_t u32; uint64_t u64; int8_t i8; int16_t i16; int32_t i32; int64_t i64; } v;
    memcpy(&v, p, mica_dtype_size(t));
    switch (t) {
    case MICA_F32: return (double)v.f;
    case MICA_F16: return (double)mica_f16_to_f32(v.h);
    case MICA_BF16: return (double)mica_bf16_to_f32(v.h);
    case MICA_F64: return v.d;
    case MICA_BOOL: case MICA_U8: return v.u8;
    case MICA_U16: return v.u16;
    case MICA_U32: return v.u32;
    case MICA_U64: return (double)v.u64;
    case MICA_I8: return v.i8;
    case MICA_I16: return v.i16;
    case MICA_I32: return v.i32;
    case MICA_I64: return (double)v.i64;
    default: return (double)NAN;
    }
}

static int64_t load_i64(mica_dtype t, const void *p) {
    if (t == MICA_I64 || t == MICA_U64) {
        int64_t v;
        memcpy(&v, p, sizeof v);
        return v;
    }
    double d = load_f64(t, p);
    return d >= -9.2e18 && d <= 9.2e18 ? (int64_t)d : 0;
}

typedef void visit_fn(void *out, size_t i, mica_dtype dtype, const unsigned char *element);
static void put_f32(void *out, size_t i, mica_dtype t, const unsigned char *e) { ((float *)out)[i] = (float)load_f64(t, e); }
static void put_f64(void *out, size_t i, mica_dtype t, const unsigned char *e) { ((double *)out)[i] = load_f64(t, e); }
static void put_i64(void *out, size_t i, mica_dtype t, const unsigned char *e) { ((int64_t *)out)[i] = load_i64(t, e); }
static void put_raw(void *out, size_t i, mica_dtype t, const unsigned char *e) {
    size_t n = mica_dtype_size(t);
    memcpy((unsigned char *)out + i * n, e, n);
}

static void visit_all(const mica_array *a, const unsigned char *first, visit_fn *visit, void *out) {
    int64_t index[MICA_MAX_DIMS] = {0}, size = mica_node_size(a), element = (int64_t)mica_dtype_size(a->dtype), at = 0;
    for (int64_t i = 0; i < size; i++) {
        visit(out, (size_t)i, a->dtype, first + at * element);
        for (int d = a->ndim - 1; d >= 0; d--) {
            at += a->stride[d];
            if (++index[d] < a->shape[d]) break;
            at -= index[d] * a->stride[d];
            index[d] = 0;
        }
    }
}

// Elements that a (possibly strided, possibly reversed) layout can touch, relative to its offset.
static void extent(const mica_array *a, int64_t *low, int64_t *high) {
    *low = *high = 0;
    for (int i = 0; i < a->ndim; i++) {
        int64_t reach = (a->shape[i] - 1) * a->stride[i];
        *(reach < 0 ? low : high) += reach;
    }
}

static bool read_all(mica_array *a, visit_fn *visit, void *out, size_t count, mica_error *err) {
    if (!a) return mica_fail(err, MICA_ERR_ARGUMENT, "read: the array is NULL");
    if (a->scope && !mica_eval(a->scope, &a, 1, err)) return false;
    if (count != (size_t)mica_node_size(a))
        return mica_fail(err, MICA_ERR_ARGUMENT, "read: room for %zu elements, the array has %lld", count, (long long)mica_node_size(a));
    if (!count) return true;
    const mica_buffer *b = a->base->buffer;
    int64_t element = (int64_t)mica_dtype_size(a->dtype), low, high;
    extent(a, &low, &high);
    size_t bytes = (size_t)((high - low + 1) * element);
    const unsigned char *from = (const unsigned char *)b->data + (a->offset + low) * element;
    if (!strcmp(b->device->name, "cpu")) {
        visit_all(a, from - low * element, visit, out);
        return true;
    }
    unsigned char *host = mica_alloc(bytes);
    if (!host) return mica_fail_memory(err, bytes, "a copy of an array");
    b->device->copy_out(b->device, host, from, bytes);
    visit_all(a, host - low * element, visit, out);
    mica_free(host);
    return true;
}

bool mica_read_f32(mica_array *a, float *out, size_t count, mica_error *err) { return read_all(a, put_f32, out, count, err); }
bool mica_read_f64(mica_array *a, double *out, size_t count, mica_error *err) { return read_all(a, put_f64, out, count, err); }
bool mica_read_i64(mica_array *a, int64_t *out, size_t count, mica_error *err) { return read_all(a, put_i64, out, count, err); }

bool mica_read_bytes(mica_array *a, void *out, size_t bytes, mica_error *err) {
    size_t size = a ? mica_dtype_size(a->dtype) : 1;
    if (bytes % size) return mica_fail(err, MICA_ERR_ARGUMENT, "read: %zu bytes are no whole number of elements", bytes);
    return read_all(a, put_raw, out, bytes / size, err);
}

double mica_item(mica_array *a) {
    double v = (double)NAN;
    mica_read_f64(a, &v, 1, NULL);
    return v;
}

// ---- printing --------------------------------------------------------------------------------------------------
enum { EDGE = 3 }; // longer axes show this many elements at each end

static void print_axis(mica_buf *b, const mica_array *a, const double *values, int axis, size_t at) {
    if (axis == a->ndim) {
        if (a->dtype == MICA_BOOL) mica_buf_puts(b, values[at] != 0 ? "true" : "false");
        else mica_buf_printf(b, "%.6g", values[at]);
        return;
    }
    size_t below = 1;
    for (int i = axis + 1; i < a->ndim; i++) below *= (size_t)a->shape[i];
    mica_buf_putc(b, '[');
    for (int64_t i = 0; i < a->shape[axis]; i++) {
        if (i) mica_buf_puts(b, axis == a->ndim - 1 ? ", " : ",\n");
        if (i == EDGE && a->shape[axis] > 2 * EDGE) {
            mica_buf_puts(b, "..., ");
            i = a->shape[axis] - EDGE;
        }
        print_axis(b, a, values, axis + 1, at + (size_t)i * below);
    }
    mica_buf_putc(b, ']');
}

char *mica_to_string(mica_array *a, mica_error *err) {
    size_t n = (size_t)mica_size(a);
    double *values = mica_alloc(n * sizeof *values);
    mica_buf b = {0};
    bool ok = values ? mica_read_f64(a, values, n, err) : mica_fail_memory(err, n * sizeof *values, "printing");
    if (ok) {
        mica_buf_puts(&b, "array(");
        print_axis(&b, a, values, 0, 0);
        mica_buf_printf(&b, ", %s)", mica_dtype_name(a->dtype));
        if (b.failed) ok = mica_fail_memory(err, b.len, "printing");
    }
    mica_free(values);
    if (!ok) mica_buf_free(&b);
    return b.data;
}

void mica_string_free(char *text) { mica_free(text); }
