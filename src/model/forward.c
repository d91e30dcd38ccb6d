// SPDX-License-Identifier: Apache-2.0
// One forward: embeddings, blocks, final norm and head for the wanted rows only. What changes from step to step (ids, positions, page tables)
// enters as small arrays, so that equal shapes give equal graphs and the plan of the last step serves the next.
#include "engine/scope.h"
#include "mica/fast.h"
#include "mica/ops.h"
#include "model/adapted.h"
#include "model/net.h"
#include "model/rope.h"
#include <math.h>
#include <string.h>
#include "base/half.h"

// Tables grow in powers of two, so that a longer sequence rarely means a new plan.
static int64_t table_width(const mica_packed *b, int group) {
    size_t need = 8;
    for (size_t i = 0; i < b->n_sequences; i++)
        while (need < b->sequences[i]->count[group]) need *= 2;
    return (int64_t)need;
}

static mica_array *page_table(mica_scope *s, const mica_packed *b, int group) {
    int64_t width = table_width(b, group), rows = (int64_t)b->n_sequences;
    int32_t *table = mica_scope_alloc(s, (size_t)(rows * width) * sizeof *table);
    if (!table) return NULL;
    memset(table, 0xff, (size_t)(rows * width) * sizeof *table); // -1: no page
    for (size_t i = 0; i < b->n_sequences; i++)
        if (b->sequences[i]->count[group])
            memcpy(table + (int64_t)i * width, b->sequences[i]->pages[group], b->sequences[i]->count[group] * sizeof *table);
    return mica_from_data(s, table, MICA_SHAPE(rows, width), MICA_I32);
}

static mica_array *sequence_meta(mica_scope *s, const mica_packed *b) {
    int32_t *meta = mica_scope_alloc(s, b->n_sequences * 4 * sizeof *meta), start = 0;
    if (!meta) return NULL;
    for (size_t i = 0; i < b->n_sequences; start += b->counts[i++]) {
        int32_t *row = meta + i * 4;
        row[0] = start, row[1] = b->counts[i], row[2] = (int32_t)b->sequences[i]->length + b->counts[i];
    }
    return mica_from_data(s, meta, MICA_SHAPE((int64_t)b->n_sequences, 4), MICA_I32);
}

static mica_array *positions(mica_scope *s, const mica_packed *b) {
    int32_t *p = mica_scope_alloc(s, b->n * sizeof *p), *at = p;
    if (!p) return NULL;
    for (size_t i = 0; i < b->n_sequences; i++)
        for (int32_t t = 0; t < b->counts[i]; t++) *at++ = (int32_t)b->sequences[i]->length + t;
    return mica_from_data(s, p, MICA_SHAPE(1, (int64_t)b->n), MICA_I32);
}

// Length that a sequence's frequencies are chosen for.
static int64_t rope_length(const mica_packed *b, size_t i) {
    return MICA_MAX(b->sequences[i]->rope_length, b->sequences[i]->length + b->counts[i]);
}

static bool same_frequencies(const mica_config *c, const mica_packed *b, const mica_rope_config *rope) {
    int64_t least = INT64_MAX, most = 0;
    for (size_t i = 0; i < b->n_sequences; i++) {
        least = MICA_MIN(least, rope_length(b, i));
        most = MICA_MAX(most, rope_length(b, i));
    }
    return least >= most || mica_rope_same(c, rope, least) >= most;
}

// Sequences that have frequencies of their own, which few models ask for: their cos | sin as data, by the op's own arithmetic.
static mica_array *rope_table_each(mica_forward *f, const mica_packed *b, const mica_rope_config *rope) {
    int64_t half = f->net->config->head_dim / 2;
    float *inv_freq = mica_scope_alloc(f->scope, (size_t)half * sizeof *inv_freq);
    float *table = mica_scope_alloc(f->scope, b->n * 2 * (size_t)half * sizeof *table), *row = table;
    if (!inv_freq || !table) return NULL;
    for (size_t i = 0; i < b->n_sequences; i++) {
        float scale = mica_rope_frequencies(f->net->config, rope, rope_length(b, i), inv_freq);
        for (int32_t t = 0; t < b->counts[i]; t++, row += 2 * half)
            for (int64_t k = 0; k < half; k++) {
                float angle = (float)(b->sequences[i]->length + t) * inv_freq[k];
                row[k] = cosf(angle) * scale;
                row[half + k] = sinf(angle) * scale;
            }
    }
    return mica_from_data(f->scope, table, MICA_SHAPE(1, (int64_t)b->n, 2 * half), MICA_F32);
}

static mica_array *rope_table(mica_forward *f, const mica_packed *b, const mica_rope_config *rope, mica_array *pos) {
    int64_t half = f->net->config->head_dim / 2, length = 0;
    if (!same_frequencies(f->net->config, b, rope)) return rope_table_each(f, b, rope);
    for (size_t i = 0; i < b->n_sequences; i++) length = MICA_MAX(length, rope_length(b, i));
    float *inv_freq = mica_scope_alloc(f->scope, (size_t)half * sizeof *inv_freq);
    if (!inv_freq) return NULL;
    float scale = mica_rope_frequencies(f->net->config, rope, length, inv_freq);
    return mica_rope_table(f->scope, pos, mica_from_data(f->scope, inv_freq, MICA_SHAPE(half), MICA_F32), scale);
}

// sqrt(D) as a value of the activations' type, like the reference's scaled embedding.
static double embed_scale(const mica_net *net) {
    float scale = sqrtf((float)net->config->hidden_size);
    if (net->dtype == MICA_BF16) scale = mica_bf16_to_f32(mica_f32_to_bf16(scale));
    if (net->dtype == MICA_F16) scale = mica_f16_to_f32(mica_f32_to_f16(scale));
    return (double)scale;
}

static mica_array *scaled(const mica_net *net, mica_scope *s, mica_array *h) {
    return net->arch->scale_embed ? mica_mul_scalar(s, h, embed_scale(net)) : h;
}

mica_array *mica_net_embed(const mica_net *net, mica_scope *s, mica_array *ids) { return scaled(net, s, mica_embed(s, &net->embed, ids, net->dtype)); }

// The rows that the last layer needs after its attention; NULL: all. Where no logits are wanted, one stands for the evaluation.
static mica_array *last_rows(mica_scope *s, const mica_packed *b) {
    int32_t last = (int32_t)b->n - 1;
    if (b->n_rows == b->n || b->n == 1) return NULL;
    if (!b->n_rows) return mica_from_data(s, &last, MICA_SHAPE(1), MICA_I32);
    return mica_from_data(s, b->rows, MICA_SHAPE((int64_t)b->n_rows), MICA_I32);
}

static mica_array *capped(const mica_net *net, mica_scope *s, mica_array *logits) {
    double cap = net->config->final_softcap;
    return cap != 0 ? mica_mul_scalar(s, mica_tanh(s, mica_mul_scalar(s, logits, 1 / cap)), cap) : logits;
}

mica_array *mica_net_logits(const mica_net *net, mica_scope *s, mica_array *h) {
    mica_array *logits = mica_linear_logits(s, net->tied ? &net->embed : &net->head, h); // [n_rows, V]
    return capped(net, s, net->tied ? mica_lora_add_head(s, &net->embed.lora, h, logits) : mica_lora_add(s, &net->head, h, logits));
}

mica_array *mica_net_rounded_logits(const mica_net *net, mica_scope *s, mica_array *h) {
    if (!net->tied) return mica_linear_apply(s, &net->head, h);
    mica_linear table = net->embed;
    table.lora = (mica_lora){0}; // is in another form there
    return mica_lora_add_head(s, &net->embed.lora, h, mica_linear_apply(s, &table, h));
}

mica_array *mica_net_forward(mica_net *net, mica_cache *cache, mica_scope *s, const mica_packed *b, mica_error *err) {
    mica_forward f = {.net = net, .scope = s, .cache = cache, .q = b->q, .k = b->k};
    const mica_config *c = net->config;
    s->rows_alone = b->rows_alone, s->rows_many = b->rows_many;
    mica_array *pos = positions(s, b);
    f.meta = sequence_meta(s, b);
    for (int g = 0; g < MICA_GROUPS; g++) {
        if (!cache->pool[g].layers) continue;
        f.table[g] = page_table(s, b, g);
        f.rope[g] = rope_table(&f, b, g ? &c->rope_sliding : &c->rope, pos);
    }
    if (!mica_find_spans(&f, b)) return mica_scope_error(s, err), NULL;
    mica_array *ids = mica_from_data(s, b->ids, MICA_SHAPE((int64_t)b->n), MICA_I32);
    mica_array *h = scaled(net, s, mica_adapted_embed(&f, ids, mica_embed(s, &net->embed, ids, net->dtype))); // [N, D]
    for (f.layer = 0; f.layer < c->num_layers; f.layer++) {
        if (f.layer == c->num_layers - 1) f.rows = last_rows(s, b);
        h = net->arch->block(&f, &net->layers[f.layer], h);
    }
    if (b->n_rows) h = capped(net, s, mica_adapted_logits(&f, mica_norm(&f, h, net->norm)));
    mica_scope_error(s, err);
    return h;
}
