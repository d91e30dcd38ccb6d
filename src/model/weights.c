// SPDX-License-Identifier: Apache-2.0
// Loading weights. Dense tensors of the right type are used straight from the mapped file; others are converted once. Quantised ones are
// packed into the layout the device computes fastest with, if it has one: all of a network's at once, into one arena of huge pages, by all
// threads, straight from the file's own form, whose pages are let go meanwhile.
#include "model/weights.h"
#include "base/lines.h"
#include "engine/scope.h"
#include "engine/state.h"
#include "mica/ops.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

// ---- sources ----------------------------------------------------------------------------------------------
static bool checkpoint_has(void *ctx, const char *module) { return mica_checkpoint_has(ctx, module); }
static bool checkpoint_view(void *ctx, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err) {
    return mica_checkpoint_view(ctx, module, out, in, w, err);
}
static void checkpoint_rest(void *ctx) { mica_checkpoint_rest(ctx); }

mica_source mica_checkpoint_source(mica_model_files *c) {
    return (mica_source){c, checkpoint_has, checkpoint_view, checkpoint_rest};
}

// ---- tensors as arrays ----------------------------------------------------------------------------------------
// May the stored bytes be used where they are? Small tensors are copied: touching one maps much of the file around it.
static bool in_place(const mica_weight *w, const mica_stored *t) {
    enum { SMALL = 1 << 16 };
    return !w->owned && t->bytes >= SMALL && (uintptr_t)t->data % mica_dtype_size(t->dtype) == 0;
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

// ---- packed weights -------------------------------------------------------------------------------------------------
// 0: the device wants the plain triple.
static size_t packed_size(const mica_loader *ld, const mica_weight *w, mica_linear *l) {
    mica_device *d = mica_scope_device(ld->scope);
    l->packed.packed.out = (int32_t)l->out, l->packed.packed.in = (int32_t)l->in;
    l->packed.packed.bits = w->spec.bits, l->packed.packed.group_size = w->spec.group_size;
    l->packed.packed.mode = (int32_t)w->spec.mode, l->packed.packed.scale_dtype = (int32_t)w->scales.dtype;
    return w->quantized && w->global_scale == 0 && d->packed_size ? d->packed_size(d, &l->packed) : 0;
}

static void full_name(const mica_loader *ld, const char *module, char *name, size_t size) { snprintf(name, size, "%s%s", ld->layer, module); }

// Notes a part of l, whose weight starts at `offset` in the arena; takes w over.
static bool note(mica_loader *ld, mica_weight *w, const char *module, size_t first, bool gated, size_t offset, mica_linear *l) {
    if (!mica_grow(&ld->unpacked, &ld->capacity, ld->count + 1, sizeof *ld->unpacked)) {
        mica_weight_release(w);
        return mica_fail_memory(ld->err, (ld->count + 1) * sizeof *ld->unpacked, "the list of weights");
    }
    mica_unpacked *u = &ld->unpacked[ld->count++];
    *u = (mica_unpacked){.linear = l, .weight = *w, .offset = offset, .first = first, .gated = gated};
    full_name(ld, module, u->name, sizeof u->name);
    l->kind = MICA_LINEAR_PACKED, l->spec = w->spec;
    return true;
}

// The file's pages go all at once, every few megabytes: dropping each part's own costs more than reading it.
static void count_packed(void *ctx, size_t bytes) {
    enum { STEP = 4 << 20 };
    mica_loader *ld = ctx;
    size_t before = atomic_fetch_add(&ld->packed, bytes);
    if (before / STEP != (before + bytes) / STEP) ld->source.rest(ld->source.ctx);
}

// Packs `count` noted parts; their weights are in `base` at their offsets. False: a scale did not fit its type.
static void pack(mica_loader *ld, mica_unpacked *u, size_t count, mica_pack_part *parts, unsigned char *base) {
    for (size_t i = 0; i < count; i++, u++) {
        const mica_weight *w = &u->weight;
        parts[i] = (mica_pack_part){.params = &u->linear->packed, .packed = base + u->offset, .first = u->first, .gated = u->gated,
                                    .rows = (size_t)w->out, .words = w->weight.data, .scales = w->scales.data, .biases = w->biases.data,
                                    .blocks = w->blocks.read ? &w->blocks : NULL, .done = count_packed, .ctx = ld};
    }
    mica_device *d = mica_scope_device(ld->scope);
    d->pack_parts(d, parts, count);
}

static void release_arena(void *buffer) { mica_buffer_release(buffer); }

// The linear's array: a run of the arena, which lives as long as any of them.
static bool keep_packed(mica_loader *ld, const mica_unpacked *u, mica_buffer *arena, size_t offset) {
    mica_device *d = mica_scope_device(ld->scope);
    int64_t shape[1] = {(int64_t)d->packed_size(d, &u->linear->packed)};
    mica_scope_reset(ld->scope);
    mica_array *a = mica_from_borrowed(ld->scope, (unsigned char *)arena->data + offset, 1, shape, MICA_U8, release_arena, mica_buffer_retain(arena));
    return keep(ld, a, u->name, &u->linear->w);
}

static mica_buffer *new_arena(mica_loader *ld, size_t size) {
    mica_buffer *b = mica_buffer_new(mica_scope_device(ld->scope), size);
    if (!b) mica_fail_memory(ld->err, size, "the weights");
    return b;
}

// Blocks whose scales turned out too wide for f16 are packed again, with f32 ones, outside the arena.
static bool pack_wide(mica_loader *ld, mica_unpacked *u, size_t count, mica_pack_part *parts) {
    mica_device *d = mica_scope_device(ld->scope);
    u->linear->packed.packed.scale_dtype = MICA_F32;
    mica_buffer *own = new_arena(ld, d->packed_size(d, &u->linear->packed));
    if (!own) return false;
    for (size_t i = 0; i < count; i++) u[i].offset = 0;
    pack(ld, u, count, parts, own->data);
    bool ok = keep_packed(ld, u, own, 0);
    mica_buffer_release(own);
    return ok;
}

static bool keep_all(mica_loader *ld, mica_pack_part *parts, mica_buffer *arena) {
    bool ok = true;
    for (size_t i = 0, n; ok && i < ld->count; i += n) {
        mica_unpacked *u = &ld->unpacked[i];
        bool inexact = false;
        for (n = 0; i + n < ld->count && u[n].linear == u->linear; n++) inexact |= parts[i + n].inexact;
        ok = inexact ? pack_wide(ld, u, n, parts + i) : keep_packed(ld, u, arena, u->offset);
    }
    return ok;
}

bool mica_load_finish(mica_loader *ld) {
    if (!ld->count) return true;
    mica_pack_part *parts = mica_calloc(ld->count, sizeof *parts);
    if (!parts) return mica_fail_memory(ld->err, ld->count * sizeof *parts, "the list of weights");
    mica_buffer *arena = new_arena(ld, ld->arena);
    if (arena) pack(ld, ld->unpacked, ld->count, parts, arena->data);
    bool ok = arena && keep_all(ld, parts, arena);
    ld->source.rest(ld->source.ctx);
    mica_buffer_release(arena);
    mica_free(parts);
    return ok;
}

void mica_loader_free(mica_loader *ld) {
    for (size_t i = 0; i < ld->count; i++) mica_weight_release(&ld->unpacked[i].weight);
    mica_free(ld->unpacked);
    mica_scope_free(ld->scope);
    *ld = (mica_loader){0};
}

// ---- linear layers --------------------------------------------------------------------------------------------------
static bool load_triple(mica_loader *ld, mica_weight *w, const char *name, mica_linear *l) {
    l->kind = MICA_LINEAR_TRIPLE, l->spec = w->spec;
    if (w->global_scale != 0)
        return mica_fail(ld->err, MICA_ERR_UNSUPPORTED, "%s: nvfp4 with a global scale is not supported", name);
    return mica_weight_unpack(w, ld->err) && keep_as(ld, w, &w->weight, MICA_U32, name, &l->w) &&
           keep_as(ld, w, &w->scales, w->scales.dtype, name, &l->scales) &&
           (!w->biases.data || keep_as(ld, w, &w->biases, w->biases.dtype, name, &l->biases));
}

static bool view(mica_loader *ld, const char *module, int64_t out, int64_t in, mica_weight *w) {
    char name[128];
    full_name(ld, module, name, sizeof name);
    mica_scope_reset(ld->scope);
    return ld->source.view(ld->source.ctx, name, out, in, w, ld->err);
}

bool mica_load_linear(mica_loader *ld, const char *module, int64_t out, int64_t in, mica_linear *l) {
    char name[128];
    mica_weight w;
    *l = (mica_linear){.out = out, .in = in};
    if (!view(ld, module, out, in, &w)) return false;
    full_name(ld, module, name, sizeof name);
    bool ok = !w.has_bias || keep_as(ld, &w, &w.bias, ld->dtype, name, &l->bias);
    mica_scope_reset(ld->scope);
    ok = ok && mica_lora_load(ld, name, &w, l);
    size_t size = ok ? packed_size(ld, &w, l) : 0;
    if (size) {
        ok = note(ld, &w, module, 0, false, ld->arena, l);
        ld->arena += mica_whole_lines(size);
        return ok;
    }
    if (ok) ok = w.quantized ? load_triple(ld, &w, name, l) : keep_as(ld, &w, &w.weight, ld->dtype, name, &l->w);
    mica_scope_reset(ld->scope);
    mica_weight_release(&w);
    return ok;
}

// Can they be one packed weight: the same kind of codes and scales, outputs that start where the device can start one, biases for all
// (gated: for none).
static bool can_join(const mica_loader *ld, const mica_weight *w, size_t count, bool gated, mica_linear *l) {
    size_t unit = mica_scope_device(ld->scope)->pack_rows;
    bool same = packed_size(ld, &w[0], l) > 0;
    if (gated) same = same && count == 2 && unit == MICA_GATE_BLOCK && w[0].out == w[1].out && w[0].out % MICA_GATE_BLOCK == 0 && !w[0].has_bias;
    for (size_t i = 1; same && i < count; i++)
        same = w[i].quantized && w[i].spec.mode == w[0].spec.mode && w[i].spec.bits == w[0].spec.bits && w[i].has_bias == w[0].has_bias &&
               w[i].spec.group_size == w[0].spec.group_size && w[i].scales.dtype == w[0].scales.dtype && w[i].global_scale == 0 &&
               (size_t)w[i - 1].out % unit == 0;
    return same;
}

enum { MOST_JOINED = 4 };

static bool join_biases(mica_loader *ld, const mica_weight *w, size_t count, const char *module, mica_linear *l) {
    char name[128];
    mica_array *bias[MOST_JOINED];
    full_name(ld, module, name, sizeof name);
    for (size_t i = 0; i < count; i++) {
        bias[i] = leaf(ld, &w[i], &w[i].bias);
        if (w[i].bias.dtype != ld->dtype) bias[i] = mica_astype(ld->scope, bias[i], ld->dtype);
    }
    bool ok = keep(ld, mica_concatenate(ld->scope, bias, count, 0), name, &l->bias);
    mica_scope_reset(ld->scope);
    return ok;
}

static bool note_joined(mica_loader *ld, const mica_module *modules, mica_weight *w, size_t count, bool gated, mica_linear *l) {
    if (w[0].has_bias && !join_biases(ld, w, count, modules[0].name, l)) return false;
    size_t offset = ld->arena, first = 0;
    ld->arena += mica_whole_lines(packed_size(ld, &w[0], l));
    for (size_t i = 0; i < count; first += gated ? MICA_GATE_BLOCK : (size_t)modules[i].out, i++) {
        mica_weight part = w[i];
        w[i] = (mica_weight){0};
        if (!note(ld, &part, modules[i].name, first, gated, offset, l)) return false;
    }
    return true;
}

bool mica_load_joined(mica_loader *ld, const mica_module *modules, size_t count, int64_t in, bool gated, mica_linear *l, bool *joined) {
    mica_weight w[MOST_JOINED] = {0};
    *l = (mica_linear){.in = in};
    *joined = false;
    bool ok = count > 0 && count <= MOST_JOINED;
    if (ld->separate) return true;
    for (size_t i = 0; ok && i < count; i++) {
        ok = view(ld, modules[i].name, modules[i].out, in, &w[i]);
        l->out += modules[i].out;
    }
    if (ok && can_join(ld, w, count, gated, l)) {
        *joined = true;
        ok = note_joined(ld, modules, w, count, gated, l);
    }
    for (size_t i = 0; i < count && i < MOST_JOINED; i++) mica_weight_release(&w[i]);
    return ok;
}

void mica_linear_free(mica_linear *l) {
    mica_array_free(l->w);
    mica_array_free(l->scales);
    mica_array_free(l->biases);
    mica_array_free(l->bias);
    mica_lora_free(&l->lora);
    *l = (mica_linear){0};
}

bool mica_load_norm(mica_loader *ld, const char *module, int64_t dim, float add, mica_array **out) {
    char name[128];
    mica_weight w;
    if (!view(ld, module, 0, dim, &w)) return false;
    full_name(ld, module, name, sizeof name);
    mica_array *a = leaf(ld, &w, &w.weight);
    if (w.weight.dtype != MICA_F32) a = mica_astype(ld->scope, a, MICA_F32);
    if (add != 0) a = mica_add_scalar(ld->scope, a, (double)add);
    bool ok = keep(ld, a, name, out);
    mica_scope_reset(ld->scope);
    mica_weight_release(&w);
    return ok;
}

// ---- use ------------------------------------------------------------------------------------------------------------
mica_array *mica_linear_weight(mica_scope *s, const mica_linear *l) {
    switch (l->kind) {
    case MICA_LINEAR_DENSE: return mica_astype(s, l->w, MICA_F32);
    case MICA_LINEAR_TRIPLE: return mica_dequantize(s, l->w, l->scales, l->biases, l->spec, MICA_F32);
    case MICA_LINEAR_PACKED: break;
    }
    return mica_take_packed(s, l->w, mica_arange(s, 0, (double)l->out, 1, MICA_I32), &l->packed, MICA_F32);
}

mica_array *mica_linear_product(mica_scope *s, const mica_linear *l, mica_array *x) {
    switch (l->kind) {
    case MICA_LINEAR_DENSE: return mica_matmul(s, x, mica_transpose(s, l->w, NULL));
    case MICA_LINEAR_TRIPLE: return mica_quantized_matmul(s, x, l->w, l->scales, l->biases, true, l->spec);
    case MICA_LINEAR_PACKED: break;
    }
    return mica_linear_packed(s, x, l->w, &l->packed, mica_array_dtype(x));
}

mica_array *mica_linear_apply(mica_scope *s, const mica_linear *l, mica_array *x) {
    mica_array *y = mica_linear_product(s, l, x);
    if (l->bias) y = mica_add(s, y, l->bias);
    return mica_lora_add(s, l, x, y);
}

mica_array *mica_linear_apply_gated(mica_scope *s, const mica_linear *l, mica_array *x, mica_gate gate) {
    return mica_linear_gated(s, x, l->w, &l->packed, gate);
}

mica_array *mica_linear_product_wide(mica_scope *s, const mica_linear *l, mica_array *x) {
    switch (l->kind) {
    case MICA_LINEAR_DENSE: return mica_matmul_wide(s, x, mica_transpose(s, l->w, NULL));
    case MICA_LINEAR_TRIPLE: return mica_quantized_matmul_wide(s, x, l->w, l->scales, l->biases, l->spec);
    case MICA_LINEAR_PACKED: break;
    }
    return mica_linear_packed(s, x, l->w, &l->packed, MICA_F32);
}

mica_array *mica_linear_logits(mica_scope *s, const mica_linear *l, mica_array *x) {
    mica_array *y = mica_linear_product_wide(s, l, x);
    return l->bias ? mica_add(s, y, mica_astype(s, l->bias, MICA_F32)) : y;
}

static mica_array *embedded(mica_scope *s, const mica_linear *t, mica_array *ids, mica_dtype dtype) {
    switch (t->kind) {
    case MICA_LINEAR_DENSE: return mica_take(s, t->w, ids, 0);
    case MICA_LINEAR_PACKED: return mica_take_packed(s, t->w, ids, &t->packed, dtype);
    case MICA_LINEAR_TRIPLE: break;
    }
    mica_array *biases = t->biases ? mica_take(s, t->biases, ids, 0) : NULL;
    return mica_dequantize(s, mica_take(s, t->w, ids, 0), mica_take(s, t->scales, ids, 0), biases, t->spec, dtype);
}

mica_array *mica_embed(mica_scope *s, const mica_linear *t, mica_array *ids, mica_dtype dtype) {
    return mica_lora_add_rows(s, &t->lora, ids, embedded(s, t, ids, dtype));
}
