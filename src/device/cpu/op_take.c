// SPDX-License-Identifier: Apache-2.0
// take: gathers rows of a table [V, …] by ids (any integers, any shape) into [ids…, …]. Negative ids count from the end; an
// id outside the table gives a row of NaN for float tables and of zeros for the others, so that a bad id shows in the
// result instead of posing as row 0.
#include "base/half.h"
#include "device/cpu/rows_kernels.h"
#include "device/cpu/view.h"
#include "device/cpu/walk.h"
#include <assert.h>
#include <math.h>
#include <string.h>

typedef struct taking {
    const mica_call *c;
    mica_tensor row;  // one row of the table: the table without its first axis
    size_t n, bytes;  // elements and bytes of a row
    bool dense;       // the row is contiguous
} taking;

static void fill_invalid(unsigned char *y, mica_dtype dtype, size_t n) {
    for (size_t i = 0; i < n; i++) switch (dtype) {
        case MICA_F32: ((float *)(void *)y)[i] = NAN; break;
        case MICA_F64: ((double *)(void *)y)[i] = (double)NAN; break;
        case MICA_F16: ((uint16_t *)(void *)y)[i] = mica_f32_to_f16(NAN); break;
        case MICA_BF16: ((uint16_t *)(void *)y)[i] = mica_f32_to_bf16(NAN); break;
        default: memset(y + i * mica_dtype_size(dtype), 0, mica_dtype_size(dtype)); break;
        }
}

static void copy_row(const taking *k, unsigned char *y, const unsigned char *x) {
    if (k->dense) {
        memcpy(y, x, k->bytes);
        return;
    }
    const mica_tensor *t = &k->row;
    size_t n = (size_t)t->shape[t->ndim - 1], size = mica_dtype_size(t->dtype);
    for (size_t r = 0; r < k->n / n; r++)
        mica_walk_gather(y + r * n * size, x + mica_walk_offset(t, 1, r), (ptrdiff_t)t->stride[t->ndim - 1], n, size);
}

static void take_some(void *ctx, size_t first, size_t end, size_t thread) {
    (void)thread;
    const taking *k = ctx;
    const mica_tensor *table = &k->c->in[0];
    mica_cpu_view ids = mica_cpu_view_of(&k->c->in[1]);
    for (size_t i = first; i < end; i++) {
        int64_t id; // -1: outside
        mica_cpu_read_indices(&ids, k->c->in[1].dtype, (int64_t)i, 1, table->shape[0], &id);
        unsigned char *y = k->c->out.data + i * k->bytes;
        if (id < 0) fill_invalid(y, table->dtype, k->n);
        else copy_row(k, y, table->data + id * table->stride[0] * (int64_t)mica_dtype_size(table->dtype));
    }
}

static bool is_dense(const mica_tensor *t) {
    int64_t expected = 1;
    for (int i = t->ndim - 1; i >= 0; expected *= t->shape[i--])
        if (t->shape[i] != 1 && t->stride[i] != expected) return false;
    return true;
}

void mica_cpu_take(const mica_call *c) {
    enum { TASK_BYTES = 32768 };
    const mica_tensor *table = &c->in[0];
    assert(table->ndim >= 1 && table->dtype == c->out.dtype);
    taking k = {.c = c, .row = {.dtype = table->dtype, .ndim = table->ndim - 1}};
    memcpy(k.row.shape, table->shape + 1, (size_t)k.row.ndim * sizeof k.row.shape[0]);
    memcpy(k.row.stride, table->stride + 1, (size_t)k.row.ndim * sizeof k.row.stride[0]);
    k.n = mica_walk_count(&k.row), k.bytes = k.n * mica_dtype_size(table->dtype), k.dense = is_dense(&k.row);
    if (k.n) mica_walk_range(c, mica_walk_count(&c->in[1]), TASK_BYTES / k.bytes, take_some, &k);
}
