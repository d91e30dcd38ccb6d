// SPDX-License-Identifier: Apache-2.0
// Adapters of rows. A layer's own product is one for all rows and, where it is joined, for all of its modules, with sums in f32; the op low_rank adds to
// each row what its adapter has. The arithmetic is that of one adapter alone: a row's result does not depend on what others have.
#include "model/adapted.h"
#include "mica/ops.h"

// ---- spans ----------------------------------------------------------------------------------------------
// Appends rows; neighbours with the same adapter are one span.
static void extend(mica_span *spans, size_t *count, int64_t rows, const mica_lora_set *set) {
    int64_t start = *count ? spans[*count - 1].end : 0;
    if (*count && spans[*count - 1].set == set) spans[*count - 1].end += rows;
    else spans[(*count)++] = (mica_span){start, start + rows, set};
}

// The sets that tokens have, each once, in the order of their first.
static const struct mica_lora_set **distinct(mica_forward *f, const mica_packed *b) {
    const struct mica_lora_set **sets = mica_scope_alloc(f->scope, b->n_sequences * sizeof *sets);
    for (size_t i = 0; sets && i < b->n_sequences; i++) {
        const struct mica_lora_set *set = b->sequences[i]->adapter;
        size_t k = 0;
        while (k < f->set_count && sets[k] != set) k++;
        if (set && k == f->set_count) sets[f->set_count++] = set;
    }
    return sets;
}

// Of each row the number of its set, counted from the first of each call's sets: any number that no set of the call has stands for none.
static mica_array **choices(const mica_forward *f, const mica_span *spans, size_t count) {
    size_t calls = (f->set_count + MICA_LOW_RANK_SETS - 1) / MICA_LOW_RANK_SETS, n = (size_t)spans[count - 1].end;
    mica_array **made = mica_scope_alloc(f->scope, calls * sizeof *made);
    int32_t *choice = mica_scope_alloc(f->scope, n * sizeof *choice);
    for (size_t c = 0; made && choice && c < calls; c++) {
        for (size_t g = 0; g < count; g++) {
            size_t k = 0;
            while (k < f->set_count && f->sets[k] != spans[g].set) k++;
            for (int64_t r = spans[g].start; r < spans[g].end; r++) choice[r] = spans[g].set ? (int32_t)k - (int32_t)(c * MICA_LOW_RANK_SETS) : -1;
        }
        made[c] = mica_from_data(f->scope, choice, MICA_SHAPE((int64_t)n), MICA_I32);
    }
    return choice ? made : NULL;
}

bool mica_find_spans(mica_forward *f, const mica_packed *b) {
    bool any = false;
    for (size_t i = 0; i < b->n_sequences; i++) any |= b->sequences[i]->adapter != NULL;
    if (!any) return true;
    mica_span *spans = mica_scope_alloc(f->scope, b->n_sequences * sizeof *spans), *wanted = mica_scope_alloc(f->scope, (b->n_rows + 1) * sizeof *wanted);
    f->sets = distinct(f, b);
    size_t count = 0;
    if (!spans || !wanted || !f->sets) return false;
    for (size_t i = 0; i < b->n_sequences; i++) extend(spans, &f->span_count, b->counts[i], b->sequences[i]->adapter);
    for (size_t i = 0; i < b->n_rows; i++) {
        const mica_span *s = spans;
        while (b->rows[i] >= s->end) s++;
        extend(wanted, &count, 1, s->set);
    }
    if (!b->n_rows) extend(wanted, &count, 1, NULL); // one row stands for the evaluation
    f->spans = spans;
    f->choice = choices(f, spans, f->span_count);
    f->wanted_choice = choices(f, wanted, count);
    return f->choice && f->wanted_choice;
}

// ---- linear layers ------------------------------------------------------------------------------------------
static const mica_lora_part *part(const mica_forward *f, size_t set, int module) {
    return module == MICA_LORA_HEAD ? &f->sets[set]->head : &f->sets[set]->layers[f->layer].parts[module];
}

bool mica_is_adapted(const mica_forward *f, int module) {
    for (size_t i = 0; i < f->set_count; i++)
        if (part(f, i, module)->set) return true;
    return false;
}

// One call after another adds what its sets have; the sums are rounded to `type`, and gates passed, once, by the last one.
static mica_array *adapted(mica_forward *f, const mica_linear *l, int first, int count, const int64_t *outs, mica_gate gate, mica_dtype type, mica_array *x) {
    mica_array *y = mica_linear_product_wide(f->scope, l, x), **choice = f->rows && first >= MICA_LORA_O ? f->wanted_choice : f->choice;
    for (size_t i = 0; y && i < f->set_count; i += MICA_LOW_RANK_SETS) {
        size_t n = MICA_MIN(f->set_count - i, (size_t)MICA_LOW_RANK_SETS);
        bool last = i + n == f->set_count;
        mica_array *sets[MICA_LOW_RANK_SETS];
        mica_params p = {.low_rank = {.modules = count, .gate = last ? (int32_t)gate : 0, .dtype = last ? (int32_t)type : MICA_F32}};
        for (int k = 0; k < count; k++) p.low_rank.outs[k] = (int32_t)outs[k];
        for (size_t k = 0; k < n; k++) sets[k] = part(f, i + k, first)->set, p.low_rank.forms[k] = part(f, i + k, first)->form;
        y = mica_low_rank(f->scope, x, y, choice[i / MICA_LOW_RANK_SETS], sets, n, &p);
    }
    return l->bias && y ? mica_add(f->scope, y, mica_astype(f->scope, l->bias, type)) : y; // magnitudes are not for the bias
}

mica_array *mica_adapted_linear(mica_forward *f, const mica_linear *l, int first, int count, const int64_t *outs, mica_gate gate, mica_array *x) {
    return x ? adapted(f, l, first, count, outs, gate, mica_array_dtype(x), x) : NULL;
}

mica_array *mica_adapted_logits(mica_forward *f, mica_array *h) {
    const mica_linear *head = f->net->tied ? &f->net->embed : &f->net->head;
    if (!h || !mica_is_adapted(f, MICA_LORA_HEAD)) return mica_linear_logits(f->scope, head, h);
    return adapted(f, head, MICA_LORA_HEAD, 1, &head->out, MICA_GATE_NONE, MICA_F32, h);
}

// ---- embedding -------------------------------------------------------------------------------------
static mica_array *rows(mica_forward *f, mica_array *x, const mica_span *g) {
    return x && mica_dim(x, 0) == g->end - g->start ? x : mica_slice_axis(f->scope, x, 0, g->start, g->end);
}

static mica_array *join(mica_forward *f, mica_array **parts, size_t count) { return count == 1 ? parts[0] : mica_concatenate(f->scope, parts, count, 0); }

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
