// SPDX-License-Identifier: Apache-2.0
// The training graph: the blocks of net.h with attention over segments in place of the cache, and a loss whose gradient by the hidden states
// is computed where the logits are, some rows at a time. It enters the graph as a constant: of Σ constant(∂loss/∂h) · h the gradient by h is that
// constant, so differentiating this proxy goes on from there.
#include "model/training.h"
#include "engine/rules.h"
#include "engine/scope.h"
#include "mica/fast.h"
#include "mica/ops.h"
#include "mica/transforms.h"
#include "model/rope.h"
#include <math.h>
#include <string.h>

// ---- attention over segments --------------------------------------------------------------------------------
static bool set_segments(mica_forward *f, const mica_text_batch *b) {
    for (size_t i = 0; i < b->segments; i++) f->longest = MICA_MAX(f->longest, (int64_t)b->lengths[i]);
    f->lengths = mica_from_data(f->scope, b->lengths, MICA_SHAPE((int64_t)b->segments), MICA_I32);
    return f->lengths != NULL;
}

// Position of each token in its segment: [1, n].
static mica_array *positions(mica_scope *s, const mica_text_batch *b) {
    int32_t *pos = mica_scope_alloc(s, b->n * sizeof *pos);
    if (!pos) return NULL;
    for (size_t i = 0, t = 0; i < b->segments; i++)
        for (int32_t k = 0; k < b->lengths[i]; k++) pos[t++] = k;
    return mica_from_data(s, pos, MICA_SHAPE(1, (int64_t)b->n), MICA_I32);
}

static mica_array *rope_of(mica_forward *f, const mica_rope_config *rope, mica_array *position) {
    int64_t half = f->net->config->head_dim / 2;
    float *inv_freq = mica_scope_alloc(f->scope, (size_t)half * sizeof *inv_freq);
    if (!inv_freq) return NULL;
    float scale = mica_rope_frequencies(f->net->config, rope, f->longest, inv_freq);
    return mica_rope_table(f->scope, position, mica_from_data(f->scope, inv_freq, MICA_SHAPE(half), MICA_F32), scale);
}

// ---- blocks -------------------------------------------------------------------------------------------------
typedef struct region { // a block that is computed again
    mica_forward f;
    const mica_layer *layer;
    const mica_parameter *params;
    size_t count;
} region;

// The block with its parameters replaced by inputs[1…], where the gradient looks for them.
static bool run_region(mica_scope *s, void *ctx, mica_array *const *inputs, size_t n_inputs, mica_array **outputs, size_t n_outputs) {
    region *r = ctx;
    (void)s, (void)n_inputs, (void)n_outputs;
    mica_layer own = *r->layer;
    for (size_t i = 0; i < r->count; i++) {
        size_t offset = (size_t)((char *)r->params[i].place - (const char *)r->layer);
        *(mica_array **)((char *)&own + offset) = inputs[i + 1];
    }
    mica_forward f = r->f; // the layer at hand: f changes between calls
    outputs[0] = f.net->arch->block(&f, &own, inputs[0]);
    return outputs[0] != NULL;
}

static mica_array *checkpointed(mica_forward *f, const mica_parameters *p, mica_array *h) {
    mica_scope *s = f->scope;
    region *r = mica_scope_alloc(s, sizeof *r);
    size_t first = 0;
    while (first < p->count && p->items[first].layer != f->layer) first++;
    size_t n = 0;
    while (first + n < p->count && p->items[first + n].layer == f->layer) n++;
    mica_array **in = mica_scope_alloc(s, (n + 1) * sizeof(mica_array *)), *out = NULL;
    if (!r || !in || !h) return NULL;
    *r = (region){.f = *f, .layer = &f->net->layers[f->layer], .params = p->items + first, .count = n};
    in[0] = h;
    for (size_t i = 0; i < n; i++) in[i + 1] = *r->params[i].place;
    return mica_checkpoint(s, run_region, r, in, n + 1, &out, 1) ? out : NULL;
}

static bool enters_blocks(const mica_net *net, const mica_parameter *p) {
    return p->place == &net->embed.w || p->place == &net->embed.lora.a || p->place == &net->embed.lora.b;
}

int32_t mica_trained_blocks(const mica_net *net, const mica_parameters *p) {
    int32_t all = (int32_t)net->config->num_layers, first = all;
    for (size_t i = 0; i < p->count; i++) {
        if (p->items[i].layer >= 0) first = MICA_MIN(first, (int32_t)p->items[i].layer);
        else if (enters_blocks(net, &p->items[i])) first = 0;
    }
    return all - first;
}

static mica_array *hidden(mica_forward *f, const mica_text_batch *b, const mica_parameters *p) {
    mica_scope *s = f->scope;
    mica_array *ids = mica_from_data(s, b->ids, MICA_SHAPE((int64_t)b->n), MICA_I32);
    mica_array *h = mica_net_embed(f->net, s, ids);
    int32_t first = (int32_t)f->net->config->num_layers - mica_trained_blocks(f->net, p);
    for (f->layer = 0; f->layer < f->net->config->num_layers; f->layer++) {
        bool again = f->layer >= first && f->layer - first < b->recompute;
        h = again ? checkpointed(f, p, h) : f->net->arch->block(f, &f->net->layers[f->layer], h);
    }
    return mica_norm(f, h, f->net->norm); // [n, D]
}

// ---- loss ---------------------------------------------------------------------------------------------------
typedef struct chunk_losses {
    mica_array *loss, *proxy;
} chunk_losses;

static mica_array *add_to(mica_scope *s, mica_array *sum, mica_array *x) { return sum ? mica_add(s, sum, x) : x; }
static mica_array *dot(mica_scope *s, mica_array *a, mica_array *b) {
    return mica_sum(s, mica_mul(s, mica_astype(s, mica_stop_gradient(s, a), MICA_F32), mica_astype(s, b, MICA_F32)), NULL, 0, false);
}

// Parameters that the head is made of, if they are trained.
static size_t head_parameters(const mica_net *net, const mica_parameters *p, mica_array **out) {
    const mica_linear *head = net->tied ? &net->embed : &net->head;
    mica_array *const wanted[] = {head->w, head->bias, head->lora.a, head->lora.b};
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        for (size_t k = 0; k < MICA_COUNT(wanted); k++)
            if (wanted[k] && *p->items[i].place == wanted[k]) out[n++] = wanted[k];
    return n;
}

// Rows [from, to) of h, all of which are scored.
static bool chunk_loss(mica_net *net, mica_scope *s, const mica_parameters *p, mica_array *h, mica_array *target, mica_array *weight, int64_t from,
                       int64_t to, mica_losses *out) {
    mica_array *rows = mica_slice_axis(s, h, 0, from, to), *in[5], *grads[5];
    in[0] = mica_contiguous(s, mica_stop_gradient(s, rows));
    size_t n = 1 + head_parameters(net, p, in + 1);
    target = mica_slice_axis(s, target, 0, from, to), weight = mica_slice_axis(s, weight, 0, from, to); // [R]
    mica_array *logits = mica_net_logits(net, s, in[0]), *lse = mica_logsumexp(s, logits, 1, false);
    mica_array *chosen = mica_take_along_axis(s, logits, mica_expand_dims(s, target, 1), 1);
    mica_array *lost = mica_sub(s, lse, mica_squeeze(s, chosen, 1));
    // The gradient, as large as the logits, comes in the type that it is multiplied in; the rounded logits themselves are never computed.
    bool capped = net->config->final_softcap != 0;
    mica_array *through = capped ? logits : mica_net_rounded_logits(net, s, in[0]);
    if (!through) return false;
    mica_array *cotangent = mica_cross_entropy_grad(s, logits, lse, target, weight, through->dtype);
    if (!cotangent || !mica_vjp(s, &through, &cotangent, 1, in, n, grads)) return false;
    out->loss = add_to(s, out->loss, mica_sum(s, mica_mul(s, lost, weight), NULL, 0, false));
    out->proxy = add_to(s, out->proxy, dot(s, grads[0], rows));
    for (size_t i = 1; i < n; i++) out->proxy = add_to(s, out->proxy, dot(s, grads[i], in[i]));
    return out->proxy != NULL;
}

// Only scored rows go to the head.
static bool scored_rows(mica_scope *s, const mica_text_batch *b, int64_t *count, mica_array **rows, mica_array **target, mica_array **weight) {
    int32_t *row = mica_scope_alloc(s, b->n * sizeof *row), *to = mica_scope_alloc(s, b->n * sizeof *to);
    float *w = mica_scope_alloc(s, b->n * sizeof *w);
    if (!row || !to || !w) return false;
    int64_t n = 0;
    for (size_t i = 0; i < b->n; i++)
        if (b->weights[i] != 0) row[n] = (int32_t)i, to[n] = b->targets[i], w[n++] = b->weights[i];
    *count = n;
    *rows = mica_from_data(s, row, MICA_SHAPE(n), MICA_I32);
    *target = mica_from_data(s, to, MICA_SHAPE(n), MICA_I32);
    *weight = mica_from_data(s, w, MICA_SHAPE(n), MICA_F32);
    return *rows && *target && *weight;
}

// Chunks of equal length, but for the last one. Each reads the whole head twice and brings it into the layout of products: below some 256 rows
// that is not small beside the products.
static int64_t chunk_rows(const mica_net *net, int64_t n) {
    const int64_t most = (int64_t)128 << 20, block = 8; // bytes of logits; rows of a kernel
    int64_t rows = MICA_MIN(MICA_MAX(most / (net->config->vocab_size * 4), (int64_t)256), (int64_t)512), chunks = (n + rows - 1) / rows;
    return chunks ? ((n + chunks - 1) / chunks + block - 1) / block * block : block;
}

// Each adapter draws for itself; `again` differs where one is used several times for a batch.
static void set_draw(mica_linear *l, const mica_text_batch *b, uint64_t number, uint64_t again) {
    l->lora.dropout = b->dropout;
    l->lora.draw = b->dropout > 0 ? mica_hash_mix(mica_hash_mix(b->draw, number), again) | 1 : 0;
}

static void set_draws(mica_net *net, const mica_text_batch *b) {
    const char *name;
    mica_linear *l;
    set_draw(&net->embed, b, 0, 0), set_draw(&net->head, b, 1, 0);
    for (int64_t layer = 0; layer < net->config->num_layers; layer++)
        for (size_t i = 0; (l = mica_layer_linear(&net->layers[layer], i, &name)); i++) set_draw(l, b, (uint64_t)layer << 8 | (i + 2), 0);
}

bool mica_net_loss(mica_net *net, mica_scope *s, const mica_text_batch *b, const mica_parameters *p, mica_losses *out) {
    mica_forward f = {.net = net, .scope = s, .training = true};
    mica_array *position = positions(s, b), *rows, *target, *weight;
    int64_t n, step;
    *out = (mica_losses){0};
    set_draws(net, b);
    if (!position || !set_segments(&f, b) || !scored_rows(s, b, &n, &rows, &target, &weight)) return false;
    for (int g = 0; g < MICA_GROUPS; g++)
        if (!g || net->config->sliding_window) f.rope[g] = rope_of(&f, g ? &net->config->rope_sliding : &net->config->rope, position);
    mica_array *h = hidden(&f, b, p);
    if (n < (int64_t)b->n) h = mica_take(s, h, rows, 0);
    step = chunk_rows(net, n);
    for (int64_t from = 0; from < n; from += step) {
        set_draw(net->tied ? &net->embed : &net->head, b, 1, (uint64_t)from + 1);
        if (!chunk_loss(net, s, p, h, target, weight, from, MICA_MIN(from + step, n), out)) return false;
    }
    if (!n) out->loss = out->proxy = mica_zeros(s, 0, NULL, MICA_F32);
    return out->loss && out->proxy;
}
