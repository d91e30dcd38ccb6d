// SPDX-License-Identifier: Apache-2.0
// Loading weights. Dense tensors of the right type are used straight from the mapped file; others are converted once. Quantised ones are
// packed into the layout the device computes fastest with, if it has one, and the file's pages are let go.
#include "model/weights.h"
#include "engine/scope.h"
#include "engine/state.h"
#include "mica/ops.h"
#include <stdio.h>
#include <string.h>

// ---- sources ----------------------------------------------------------------------------------------------
static bool checkpoint_has(void *ctx, const char *module) { return mica_checkpoint_has(ctx, module); }
static bool checkpoint_find(void *ctx, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err) {
    return mica_checkpoint_find(ctx, module, out, in, w, err);
}
static void checkpoint_forget(void *ctx, const mica_weight *w) { mica_checkpoint_forget(ctx, w); }

mica_source mica_checkpoint_source(mica_checkpoint *c) {
    return (mica_source){c, checkpoint_has, checkpoint_find, checkpoint_forget};
}

// ---- tensors as arrays ----------------------------------------------------------------------------------------
// May the stored bytes be used where they are?
static bool in_place(const mica_weight *w, const mica_stored *t) {
    return !w->owned && (uintptr_t)t->data % mica_dtype_size(t->dtype) == 0;
}

static mica_array *leaf(mica_loader *ld, const mica_weight *w, const mica_stored *t) {
    if (in_place(w, t)) return mica_from_borrowed(ld->scope, t->data, t->ndim, t->shape, t->dtype, NULL, NULL);
    return mica_from_data(ld->scope, t->data, t->ndim, t->shape, t->dtype);
}

static bool keep(mica_loader *ld, mica_array *a, const char *name, mica_array **out) {
    *out = mica_keep(ld->scope, mica_name(a, name), ld->err);
    if (*out) ld->bytes += (int64_t)mica_nbytes(*out);
    return *out != NULL;
}

static bool keep_as(mica_loader *ld, const mica_weight *w, const mica_stored *t, mica_dtype dtype, const char *name, mica_array **out) {
    mica_array *a = leaf(ld, w, t);
    if (t->dtype == dtype && in_place(w, t)) ld->mapped += (int64_t)t->bytes;
    return keep(ld, t->dtype == dtype ? a : mica_astype(ld->scope, a, dtype), name, out);
}

// ---- linear layers --------------------------------------------------------------------------------------------------
// False without an error: the device wants the plain triple.
static bool load_packed(mica_loader *ld, const mica_weight *w, const char *name, mica_linear *l) {
    mica_device *d = mica_scope_device(ld->scope);
    l->packed.packed.out = (int32_t)l->out, l->packed.packed.in = (int32_t)l->in;
    l->packed.packed.bits = w->spec.bits, l->packed.packed.group_size = w->spec.group_size;
    l->packed.packed.mode = (int32_t)w->spec.mode, l->packed.packed.scale_dtype = (int32_t)w->scales.dtype;
    size_t size = d->packed_size && w->global_scale == 0 ? d->packed_size(d, &l->packed) : 0;
    if (!size) return false;
    mica_buffer *b = mica_buffer_new(d, size);
    if (!b) return mica_scope_fail(ld->scope, MICA_ERR_NO_MEMORY, name, "out of memory: %zu bytes", size) != NULL;
    d->pack(d, &l->packed, w->weight.data, w->scales.data, w->biases.data, b->data);
    int64_t shape[1] = {(int64_t)size};
    if (!keep(ld, mica_scope_leaf(ld->scope, b, 1, shape, MICA_U8), name, &l->w)) return false;
    l->kind = MICA_LINEAR_PACKED;
    ld->source.forget(ld->source.ctx, w);
    return true;
}

static bool load_triple(mica_loader *ld, const mica_weight *w, const char *name, mica_linear *l) {
    l->kind = MICA_LINEAR_TRIPLE;
    return keep_as(ld, w, &w->weight, MICA_U32, name, &l->w) && keep_as(ld, w, &w->scales, w->scales.dtype, name, &l->scales) &&
           (!w->biases.data || keep_as(ld, w, &w->biases, w->biases.dtype, name, &l->biases));
}

static bool load_quantized(mica_loader *ld, const mica_weight *w, const char *name, mica_linear *l) {
    l->spec = w->spec;
    if (w->global_scale != 0)
        return mica_fail(ld->err, MICA_ERR_UNSUPPORTED, "%s: nvfp4 with a global scale is not supported", name);
    if (load_packed(ld, w, name, l)) return true;
    return !mica_scope_error(ld->scope, ld->err) && load_triple(ld, w, name, l);
}

static bool find(mica_loader *ld, const char *module, int64_t out, int64_t in, char *name, size_t size, mica_weight *w) {
    snprintf(name, size, "%s%s", ld->layer, module);
    mica_scope_reset(ld->scope);
    return ld->source.find(ld->source.ctx, name, out, in, w, ld->err);
}

bool mica_load_linear(mica_loader *ld, const char *module, int64_t out, int64_t in, mica_linear *l) {
    char name[128];
    mica_weight w;
    *l = (mica_linear){.out = out, .in = in};
    if (!find(ld, module, out, in, name, sizeof name, &w)) return false;
    bool ok = w.quantized ? load_quantized(ld, &w, name, l) : keep_as(ld, &w, &w.weight, ld->dtype, name, &l->w);
    if (ok && w.has_bias) ok = keep_as(ld, &w, &w.bias, ld->dtype, name, &l->bias);
    mica_scope_reset(ld->scope);
    mica_weight_release(&w);
    return ok;
}

void mica_linear_free(mica_linear *l) {
    mica_array_free(l->w);
    mica_array_free(l->scales);
    mica_array_free(l->biases);
    mica_array_free(l->bias);
    *l = (mica_linear){0};
}

bool mica_load_norm(mica_loader *ld, const char *module, int64_t dim, float add, mica_array **out) {
    char name[128];
    mica_weight w;
    if (!find(ld, module, 0, dim, name, sizeof name, &w)) return false;
    mica_array *a = leaf(ld, &w, &w.weight);
    if (w.weight.dtype != MICA_F32) a = mica_astype(ld->scope, a, MICA_F32);
    if (add != 0) a = mica_add_scalar(ld->scope, a, (double)add);
    bool ok = keep(ld, a, name, out);
    mica_scope_reset(ld->scope);
    mica_weight_release(&w);
    return ok;
}

// ---- use ------------------------------------------------------------------------------------------------------------
mica_array *mica_linear_apply(mica_scope *s, const mica_linear *l, mica_array *x) {
    mica_array *y = NULL;
    switch (l->kind) {
    case MICA_LINEAR_DENSE: y = mica_matmul(s, x, mica_transpose(s, l->w, NULL)); break;
    case MICA_LINEAR_TRIPLE: y = mica_quantized_matmul(s, x, l->w, l->scales, l->biases, true, l->spec); break;
    case MICA_LINEAR_PACKED: y = mica_linear_packed(s, x, l->w, &l->packed, mica_array_dtype(x)); break;
    }
    return l->bias ? mica_add(s, y, l->bias) : y;
}

mica_array *mica_linear_logits(mica_scope *s, const mica_linear *l, mica_array *x) {
    mica_array *y = NULL;
    switch (l->kind) {
    case MICA_LINEAR_DENSE: y = mica_matmul_wide(s, x, mica_transpose(s, l->w, NULL)); break;
    case MICA_LINEAR_TRIPLE: y = mica_quantized_matmul_wide(s, x, l->w, l->scales, l->biases, l->spec); break;
    case MICA_LINEAR_PACKED: y = mica_linear_packed(s, x, l->w, &l->packed, MICA_F32); break;
    }
    return l->bias ? mica_add(s, y, mica_astype(s, l->bias, MICA_F32)) : y;
}

mica_array *mica_embed(mica_scope *s, const mica_linear *t, mica_array *ids, mica_dtype dtype) {
    switch (t->kind) {
    case MICA_LINEAR_DENSE: return mica_take(s, t->w, ids, 0);
    case MICA_LINEAR_PACKED: return mica_take_packed(s, t->w, ids, &t->packed, dtype);
    case MICA_LINEAR_TRIPLE: break;
    }
    mica_array *biases = t->biases ? mica_take(s, t->biases, ids, 0) : NULL;
    return mica_dequantize(s, mica_take(s, t->w, ids, 0), mica_take(s, t->scales, ids, 0), biases, t->spec, dtype);
}
