// SPDX-License-Identifier: Apache-2.0
// segment_attention: softmax(scale * q·kᵀ)·v inside the segments of a packed batch (segments.h), streamed over blocks of keys (flash.h). A task
// is a block of queries of a segment, with all the heads that share a KV head.
#include "device/cpu/flash.h"
#include "device/cpu/rows_kernels.h"
#include "device/cpu/segments.h"
#include <assert.h>
#include <string.h>

mica_segments mica_segments_of(const mica_call *c, size_t tokens) {
    const mica_tensor *q = &c->in[0], *key = &c->in[1];
    mica_segments k = {.c = c, .isa = &mica_cpu_isa_of(c)->rows, .q = q, .k = key, .v = &c->in[2], .dtype = q->dtype,
                       .N = (size_t)q->shape[0], .H = (size_t)q->shape[1], .Hkv = (size_t)key->shape[1], .Dh = (size_t)q->shape[2],
                       .S = (size_t)c->in[3].shape[0], .size = mica_dtype_size(q->dtype), .tokens = tokens,
                       .window = (size_t)c->params->segments.window, .causal = c->params->segments.causal != 0,
                       .scale = c->params->segments.scale};
    assert(mica_cpu_is_short(q->dtype) && key->dtype == q->dtype && (k.Dh <= 1 || (q->stride[2] == 1 && key->stride[2] == 1)));
    k.G = k.Hkv ? k.H / k.Hkv : 0;
    k.Dp = mica_cpu_head_pad(k.Dh);
    k.longest = MICA_MIN((size_t)c->params->segments.longest, k.N);
    if (!k.tokens) k.tokens = MICA_MAX(MICA_MIN(mica_flash_tokens(MICA_MAX(k.G, (size_t)1)), k.longest), (size_t)1);
    return k;
}

size_t mica_segments_read(mica_segments *k, unsigned char *memory) {
    const mica_tensor *t = &k->c->in[3];
    mica_segment at = {0};
    k->segments = (mica_segment *)(void *)memory;
    for (size_t i = 0; i < k->S; i++) {
        int32_t length = ((const int32_t *)(const void *)t->data)[(int64_t)i * t->stride[0]];
        at.length = length < 0 ? 0 : MICA_MIN(MICA_MIN((size_t)length, k->longest), k->N - at.start);
        k->segments[i] = at;
        at.start += at.length;
        at.packed += (at.length + 1) & ~(size_t)1;
        at.first_task += (at.length + k->tokens - 1) / k->tokens * k->Hkv;
    }
    at.length = 0;
    k->segments[k->S] = at;
    return at.first_task;
}

mica_segment_block mica_segments_block(const mica_segments *k, size_t task) {
    size_t low = 0, high = k->S - 1; // the last segment whose first task is not after it
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (k->segments[middle].first_task <= task) low = middle;
        else high = middle - 1;
    }
    const mica_segment *s = &k->segments[low];
    task -= s->first_task;
    mica_segment_block b = {.segment = s, .kv = task % k->Hkv, .first = task / k->Hkv * k->tokens};
    b.n = MICA_MIN(k->tokens, s->length - b.first);
    return b;
}

// ---- forward ----
// Keys or values of a block that begins at key j.
static void pack_block(const mica_segments *k, const mica_segment_block *b, const mica_tensor *x, bool keys, unsigned char *packed, size_t j, size_t n) {
    const void *rows = mica_segments_row(k, x, b->segment->start + j, b->kv);
    if (n < MICA_CPU_KEYS) memset(packed, 0, MICA_CPU_KEYS * k->Dp * k->isa->pack_size[k->dtype]);
    (keys ? k->isa->pack_keys : k->isa->pack_values)[k->dtype](packed, rows, (ptrdiff_t)x->stride[0], 0, n, k->Dh);
}

static void pack_queries(const mica_segments *k, const mica_segment_block *b, unsigned char *packed) {
    size_t step = k->Dp * k->isa->pack_size[k->dtype];
    for (size_t r = 0; r < b->n * k->G; r++, packed += step)
        k->isa->pack_query[k->dtype](packed, mica_segments_row(k, k->q, b->segment->start + b->first + r / k->G, b->kv * k->G + r % k->G), k->Dh);
}

// What each row sees of keys [j, j + n).
static void set_seen(const mica_segments *k, const mica_segment_block *b, const mica_flash_work *w, size_t j, size_t n) {
    for (size_t t = 0, r = 0; t < b->n; t++) {
        size_t first, end;
        mica_segments_seen(k, b->segment, b->first + t, &first, &end);
        int32_t lo = (int32_t)MICA_MIN(first > j ? first - j : 0, n), hi = (int32_t)MICA_MIN(end > j ? end - j : 0, n);
        for (size_t g = 0; g < k->G; g++, r++) w->lo[r] = lo, w->hi[r] = hi;
    }
}

static void attend(void *ctx, size_t task, size_t thread) {
    const mica_segments *k = ctx;
    mica_segment_block b = mica_segments_block(k, task);
    size_t R = b.n * k->G, first, end, unused;
    unsigned char *scratch = k->c->scratch + mica_segments_bytes(k);
    mica_flash_work w = mica_flash_place(scratch + thread * mica_walk_round(mica_flash_bytes(k->tokens * k->G, k->Dh)), k->tokens * k->G, k->Dh);
    pack_queries(k, &b, w.q);
    mica_flash_start(&w, R, k->Dh);
    mica_segments_seen(k, b.segment, b.first, &first, &unused);
    mica_segments_seen(k, b.segment, b.first + b.n - 1, &unused, &end);
    for (size_t j = first / MICA_CPU_KEYS * MICA_CPU_KEYS; j < end; j += MICA_CPU_KEYS) {
        size_t n = MICA_MIN(b.segment->length - j, (size_t)MICA_CPU_KEYS);
        set_seen(k, &b, &w, j, n);
        pack_block(k, &b, k->k, true, w.k, j, n);
        pack_block(k, &b, k->v, false, w.v, j, n);
        mica_flash_add(k->isa, k->dtype, &w, R, k->Dh, k->scale, false);
    }
    for (size_t r = 0; r < R; r++) {
        size_t row = (b.segment->start + b.first + r / k->G) * k->H + b.kv * k->G + r % k->G;
        mica_flash_finish(k->isa, k->dtype, &w, r, k->Dh, k->c->out.data + row * k->Dh * k->size);
    }
}

void mica_cpu_segment_attention(const mica_call *c) {
    mica_segments k = mica_segments_of(c, 0);
    if (!k.N || !k.H || !k.Dh) return;
    size_t tasks = mica_segments_read(&k, c->scratch), used = k.segments[k.S].start, row = k.H * k.Dh * k.size;
    memset(c->out.data + used * row, 0, (k.N - used) * row);
    mica_pool_run(mica_cpu_pool(c), tasks, attend, &k);
}

size_t mica_cpu_segment_attention_scratch(const mica_call *c) {
    mica_segments k = mica_segments_of(c, 0);
    return mica_segments_bytes(&k) + mica_pool_threads(mica_cpu_pool(c)) * mica_walk_round(mica_flash_bytes(k.tokens * k.G, k.Dh));
}
