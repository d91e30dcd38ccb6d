// SPDX-License-Identifier: Apache-2.0
// Adapters of rows. A layer's own product is one for all rows and, where it is joined, for all of its modules; of that, each span takes its rows and each
// module its columns, as views, and what is to be added is added there. The arithmetic is that of one adapter alone: a row's result does not depend on what
// others have.
#include "model/adapted.h"
#include "mica/fast.h"
#include "mica/ops.h"

// ---- spans ----------------------------------------------------------------------------------------------
// Appends rows; neighbours with the same adapter are one span.
static void extend(mica_span *spans, size_t *count, int64_t rows, const mica_lora_set *set) {
    int64_t start = *count ? spans[*count - 1].end : 0;
    if (*count && spans[*count - 1].set == set) spans[*count - 1].end += rows;
    else spans[(*count)++] = (mica_span){start, start + rows, set};
}

bool mica_find_spans(mica_forward *f, const mica_packed *b) {
    bool any = false;
    for (size_t i = 0; i < b->n_sequences; i++) any |= b->sequences[i]->adapter != NULL;
    if (!any) return true;
    mica_span *spans = mica_scope_alloc(f->scope, b->n_sequences * sizeof *spans), *wanted = mica_scope_alloc(f->scope, (b->n_rows + 1) * sizeof *wanted);
    if (!spans || !wanted) return false;
    for (size_t i = 0; i < b->n_sequences; i++) extend(spans, &f->span_count, b->counts[i], b->sequences[i]->adapter);
    for (size_t i = 0; i < b->n_rows; i++) {
        const mica_span *s = spans;
        while (b->rows[i] >= s->end) s++;
        extend(wanted, &f->wanted_count, 1, s->set);
    }
    if (!b->n_rows) extend(wanted, &f->wanted_count, 1, NULL); // one row stands for the evaluation
    f->spans = spans, f->wanted = wanted;
    return true;
}

// Rows from the last layer's attention on are the wanted ones only.
static size_t spans_of(const mica_forward *f, bool wanted, const mica_span **spans) {
    *spans = wanted ? f->wanted : f->spans;
    return wanted ? f->wanted_count : f->span_count;
}

static bool is_wanted_only(const mica_forward *f, int module) { return f->rows && module >= MICA_LORA_O; }

static const mica_lora *part(const mica_forward *f, const mica_span *g, int module) {
    const mica_lora *lora = g->set ? &g->set->layers[f->layer].modules[module] : NULL;
    return lora && lora->a ? lora : NULL;
}

static bool has_any(const mica_forward *f, const mica_span *g, int first, int count) {
    for (int i = 0; i < count; i++)
        if (part(f, g, first + i)) return true;
    return false;
}

bool mica_is_adapted(const mica_forward *f, int first, int count) {
    const mica_span *spans;
    size_t n = spans_of(f, is_wanted_only(f, first), &spans);
    for (size_t g = 0; g < n; g++)
        if (has_any(f, &spans[g], first, count)) return true;
    return false;
}

// ---- rows and columns -------------------------------------------------------------------------------------
static mica_array *cut(mica_scope *s, mica_array *x, int axis, int64_t start, int64_t end) {
    return x && mica_dim(x, axis) == end - start ? x : mica_slice_axis(s, x, axis, start, end);
}

static mica_array *rows(mica_forward *f, mica_array *x, const mica_span *g) { return cut(f->scope, x, 0, g->start, g->end); }

static mica_array *join(mica_forward *f, mica_array **parts, size_t count) { return count == 1 ? parts[0] : mica_concatenate(f->scope, parts, count, 0); }

// y, a product with x, with its bias (or NULL) and what the adapter adds. The magnitude of DoRA is for all but the bias. *wide: x in f32, once a span.
static mica_array *adapt(mica_scope *s, const mica_lora *lora, mica_array *x, mica_array **wide, mica_array *y, mica_array *bias) {
    if (mica_array_dtype(lora->a) != mica_array_dtype(x)) x = *wide ? *wide : (*wide = mica_astype(s, x, MICA_F32));
    if (bias && !lora->magnitude) y = mica_add(s, y, bias);
    y = mica_lora_apply(s, lora, x, y);
    return bias && lora->magnitude ? mica_add(s, y, bias) : y;
}

// ---- linear layers ----------------------------------------------------------------------------------------
// One span's rows of y (all columns of l): parts[i] of each module.
static void adapt_span(mica_forward *f, const mica_linear *l, const mica_span *g, int first, int count, const int64_t *outs, mica_array *x,
                       mica_array *y, mica_array **parts, size_t stride) {
    mica_scope *s = f->scope;
    mica_array *wide = NULL;
    const mica_lora *lora;
    int64_t at = 0;
    for (int i = 0; i < count; at += outs[i++]) {
        mica_array *own = cut(s, y, 1, at, at + outs[i]), *bias = l->bias ? cut(s, l->bias, 0, at, at + outs[i]) : NULL;
        if ((lora = part(f, g, first + i))) own = adapt(s, lora, x, &wide, own, bias);
        else if (bias) own = mica_add(s, own, bias);
        parts[(size_t)i * stride] = own;
    }
}

void mica_adapted_linear(mica_forward *f, const mica_linear *l, int first, int count, const int64_t *outs, mica_array *x, mica_array **y) {
    const mica_span *spans;
    size_t n = spans_of(f, is_wanted_only(f, first), &spans);
    mica_array *all = mica_linear_product(f->scope, l, x), **parts = mica_scope_alloc(f->scope, (size_t)count * n * sizeof(mica_array *));
    for (int i = 0; i < count; i++) y[i] = NULL;
    if (!all || !parts) return;
    for (size_t g = 0; g < n; g++) adapt_span(f, l, &spans[g], first, count, outs, rows(f, x, &spans[g]), rows(f, all, &spans[g]), parts + g, n);
    for (int i = 0; i < count; i++) y[i] = join(f, parts + (size_t)i * n, n);
}

// ---- gate and up --------------------------------------------------------------------------------------------
// Gates (side 0) or ups of y [n, 2F].
static mica_array *side(mica_scope *s, mica_array *y, int which) {
    mica_array *blocks = mica_reshape(s, y, MICA_SHAPE(-1, mica_dim(y, 1) / (2 * MICA_GATE_BLOCK), 2, MICA_GATE_BLOCK));
    return mica_reshape(s, mica_slice_axis(s, blocks, 2, which, which + 1), MICA_SHAPE(-1, mica_dim(y, 1) / 2));
}

static mica_array *adapt_gated(mica_forward *f, const mica_span *g, mica_array *x, mica_array *y) {
    mica_scope *s = f->scope;
    mica_array *two[2], *wide = NULL;
    bool any = has_any(f, g, MICA_LORA_GATE, 2);
    if (any) y = mica_astype(s, y, mica_array_dtype(x)); // what a product of its own would give
    for (int i = 0; i < 2 && y; i++) {
        const mica_lora *lora = part(f, g, MICA_LORA_GATE + i);
        two[i] = side(s, y, i);
        if (lora) two[i] = adapt(s, lora, x, &wide, two[i], NULL);
    }
    return y ? mica_astype(s, mica_activate(f, two[0], two[1]), mica_array_dtype(x)) : NULL;
}

// The activation cannot be part of the product. Rows without an adapter get what that would give them: it works on sums in f32.
mica_array *mica_adapted_gated(mica_forward *f, const mica_linear *l, mica_array *x) {
    const mica_span *spans;
    size_t n = spans_of(f, is_wanted_only(f, MICA_LORA_GATE), &spans);
    bool all = true;
    for (size_t g = 0; g < n; g++) all = all && has_any(f, &spans[g], MICA_LORA_GATE, 2);
    mica_array *y = mica_linear_packed(f->scope, x, l->w, &l->packed, all ? mica_array_dtype(x) : MICA_F32); // [N, 2F]
    mica_array **parts = mica_scope_alloc(f->scope, n * sizeof *parts);
    if (!y || !parts) return NULL;
    for (size_t g = 0; g < n; g++) parts[g] = adapt_gated(f, &spans[g], rows(f, x, &spans[g]), rows(f, y, &spans[g]));
    return join(f, parts, n);
}

// ---- embedding and head -------------------------------------------------------------------------------------
mica_array *mica_adapted_embed(mica_forward *f, mica_array *ids, mica_array *h) {
    bool any = false;
    for (size_t g = 0; g < f->span_count; g++) any |= f->spans[g].set && f->spans[g].set->embed.a;
    mica_array **parts = any && h ? mica_scope_alloc(f->scope, f->span_count * sizeof *parts) : NULL;
    if (!parts) return h;
    for (size_t g = 0; g < f->span_count; g++) {
        const mica_span *span = &f->spans[g];
        parts[g] = rows(f, h, span);
        if (span->set) parts[g] = mica_lora_add_rows(f->scope, &span->set->embed, rows(f, ids, span), parts[g]);
    }
    return join(f, parts, f->span_count);
}

static const mica_lora *head_of(const mica_forward *f, const mica_span *g) {
    const mica_lora *lora = !g->set ? NULL : f->net->tied ? &g->set->embed : &g->set->head;
    return lora && lora->a && !lora->input_only ? lora : NULL;
}

mica_array *mica_adapted_logits(mica_forward *f, mica_array *h) {
    const mica_linear *head = f->net->tied ? &f->net->embed : &f->net->head;
    const mica_span *spans;
    size_t n = spans_of(f, f->rows != NULL, &spans);
    bool any = false;
    for (size_t g = 0; g < n; g++) any |= head_of(f, &spans[g]) != NULL;
    if (!any || !h) return mica_linear_logits(f->scope, head, h);
    mica_scope *s = f->scope;
    mica_array *all = mica_linear_product_wide(s, head, h), **parts = mica_scope_alloc(s, n * sizeof *parts);
    mica_array *bias = head->bias ? mica_astype(s, head->bias, MICA_F32) : NULL;
    for (size_t g = 0; parts && g < n; g++) {
        const mica_lora *lora = head_of(f, &spans[g]);
        mica_array *x = rows(f, h, &spans[g]), *y = rows(f, all, &spans[g]), *wide = NULL;
        if (lora && !f->net->tied) parts[g] = adapt(s, lora, x, &wide, y, bias);
        else {
            if (bias) y = mica_add(s, y, bias);
            parts[g] = lora ? mica_lora_add_head(s, lora, x, y) : y;
        }
    }
    return parts ? join(f, parts, n) : NULL;
}
