// SPDX-License-Identifier: Apache-2.0
// Attention by segments and its gradient against the formulas in double: odd lengths and head sizes, windows, grouped heads, segments of one row
// and of none, rows of no segment.
#ifndef MICA_TESTS_OPS_SEGMENTS_H
#define MICA_TESTS_OPS_SEGMENTS_H

#include "ops/testing.h"

enum { MOST_SEGMENTS = 5 };
typedef struct segment_case {
    int64_t H, Hkv, Dh, spare; // spare: rows of no segment
    bool causal;
    int window, segments;
    int32_t lengths[MOST_SEGMENTS];
} segment_case;

static const segment_case segment_cases[] = {
    {1, 1, 1, 0, true, 0, 1, {1}},
    {2, 1, 64, 0, true, 0, 4, {1, 65, 1, 100}},
    {6, 2, 80, 2, true, 20, 3, {70, 3, 64}},
    {4, 4, 33, 0, true, 7, 1, {150}},
    {3, 1, 128, 0, true, 64, 2, {129, 63}},
    {2, 2, 256, 5, true, 0, 3, {70, 0, 40}},
    {9, 3, 64, 0, true, 1, 5, {2, 31, 33, 32, 5}},
    {4, 2, 40, 0, false, 0, 3, {67, 1, 20}},
    {1, 1, 8, 3, true, 0, 1, {0}},
};

typedef struct segment_data {
    const segment_case *c;
    int64_t N, longest;
    value q, k, v, g;
    mica_array *in[4], *lengths;
    float scale;
} segment_data;

static segment_data make_segments(rig *r, const segment_case *c, mica_dtype t, layout how) {
    segment_data d = {.c = c, .N = c->spare, .scale = (float)(1.2 / sqrt((double)c->Dh))};
    for (int i = 0; i < c->segments; i++) d.N += c->lengths[i], d.longest = MICA_MAX(d.longest, (int64_t)c->lengths[i]);
    int64_t heads[] = {d.N, c->H, c->Dh}, shared[] = {d.N, c->Hkv, c->Dh};
    d.q = randoms(r, t, 3, heads, -1, 1), d.k = randoms(r, t, 3, shared, -1, 1);
    d.v = randoms(r, t, 3, shared, -1, 1), d.g = randoms(r, t, 3, heads, -1, 1);
    value *all[] = {&d.q, &d.k, &d.v, &d.g};
    for (int i = 0; i < 4; i++) d.in[i] = put(r, all[i], (layout)((how + (layout)i) % LAYOUTS));
    d.lengths = mica_from_data(r->s, c->lengths, MICA_SHAPE(c->segments), MICA_I32);
    return d;
}

// Probabilities of query i of the segment of n rows that begins at `start`.
static void segment_weights(const segment_data *d, int64_t start, int64_t n, int64_t i, int64_t h, double *p) {
    const segment_case *c = d->c;
    const double *q = d->q.x + ((start + i) * c->H + h) * c->Dh;
    double most = -(double)INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        const double *k = d->k.x + ((start + j) * c->Hkv + h / (c->H / c->Hkv)) * c->Dh;
        bool seen = (!c->causal || j <= i) && (!c->window || j > i - c->window);
        p[j] = 0;
        for (int64_t e = 0; e < c->Dh; e++) p[j] += q[e] * k[e] * (double)d->scale;
        if (!seen) p[j] = -(double)INFINITY;
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < n; j++) sum += p[j] = exp(p[j] - most);
    for (int64_t j = 0; j < n; j++) p[j] /= sum;
}

typedef void segment_row_fn(const segment_data *d, int64_t start, int64_t n, int64_t i, int64_t h, const double *p, value *want);

static void segment_rows(rig *r, const segment_data *d, segment_row_fn *row, value *want) {
    double *p = take_memory(r, ((size_t)d->longest + 1) * sizeof *p);
    for (int64_t s = 0, start = 0; s < d->c->segments; start += d->c->lengths[s++])
        for (int64_t i = 0; i < d->c->lengths[s]; i++)
            for (int64_t h = 0; h < d->c->H; h++) {
                segment_weights(d, start, d->c->lengths[s], i, h, p);
                row(d, start, d->c->lengths[s], i, h, p, want);
            }
}

static void segment_forward_row(const segment_data *d, int64_t start, int64_t n, int64_t i, int64_t h, const double *p, value *want) {
    const segment_case *c = d->c;
    for (int64_t j = 0; j < n; j++)
        for (int64_t e = 0; e < c->Dh; e++)
            want->x[((start + i) * c->H + h) * c->Dh + e] += p[j] * d->v.x[((start + j) * c->Hkv + h / (c->H / c->Hkv)) * c->Dh + e];
}

static void segment_gradient_row(const segment_data *d, int64_t start, int64_t n, int64_t i, int64_t h, const double *p, value *want) {
    const segment_case *c = d->c;
    int64_t all = c->H + 2 * c->Hkv, kv = h / (c->H / c->Hkv);
    const double *q = d->q.x + ((start + i) * c->H + h) * c->Dh, *g = d->g.x + ((start + i) * c->H + h) * c->Dh;
    double *w = calloc((size_t)n + 1, sizeof *w), mean = 0, *dq = want->x + ((start + i) * all + h) * c->Dh;
    for (int64_t j = 0; j < n; j++) {
        for (int64_t e = 0; e < c->Dh; e++) w[j] += g[e] * d->v.x[((start + j) * c->Hkv + kv) * c->Dh + e];
        mean += p[j] * w[j];
    }
    for (int64_t j = 0; j < n; j++) {
        double s = p[j] * (w[j] - mean) * (double)d->scale, *dk = want->x + ((start + j) * all + c->H + kv) * c->Dh, *dv = dk + c->Hkv * c->Dh;
        for (int64_t e = 0; e < c->Dh; e++) {
            dq[e] += s * d->k.x[((start + j) * c->Hkv + kv) * c->Dh + e];
            dk[e] += s * q[e];
            dv[e] += p[j] * g[e];
        }
    }
    free(w);
}

// What a level may lose: weights rounded to bf16, sums in f32.
static double segment_slack(const value *want) {
    double most = 0;
    for (size_t i = 0; i < want->size; i++) most = fmax(most, fabs(want->x[i]));
    return most * (want->dtype == MICA_BF16 ? 1e-2 : 3e-6);
}

static mica_array *segment_attention(rig *r, const segment_data *d) {
    return mica_segment_attention(r->s, d->in[0], d->in[1], d->in[2], d->lengths, d->longest, d->scale, d->c->causal, d->c->window);
}

static void refuse_segments(rig *r, bool gradient) {
    const char *name = gradient ? "segment_attention_grad" : "segment_attention";
    const int64_t shapes_of_k[][3] = {{7, 2, 8}, {6, 1, 8}, {7, 1, 9}};
    for (int i = 0; i < 5; i++) {
        mica_dtype t = i == 3 ? MICA_F64 : MICA_F32;
        value q = randoms(r, t, 3, (int64_t[]){7, 3, 8}, -1, 1), k = randoms(r, t, 3, shapes_of_k[i < 3 ? i : 1], -1, 1);
        mica_array *a = put(r, &q, DENSE), *b = put(r, &k, DENSE), *n = mica_from_data(r->s, (int32_t[]){7}, MICA_SHAPE(1), MICA_I32);
        mica_params p = {.segments = {.scale = 1, .causal = 1, .longest = 64}};
        if (i == 4) n = b, b = a;
        mica_array *y = gradient ? mica_segment_attention_grad(r->s, a, b, b, n, a, &p) : mica_segment_attention(r->s, a, b, b, n, 7, 1, true, 0);
        expect_refusal(r, y, name);
    }
}

static void case_segment_attention(rig *r) {
    EACH_DTYPE(t, FLOATS) EACH(i, segment_cases) {
        if (t == MICA_F64) continue;
        segment_data d = make_segments(r, &segment_cases[i], t, (layout)((i + t) % LAYOUTS));
        value want = blank(r, t, 3, d.q.shape);
        if (wants_oracle(r)) segment_rows(r, &d, segment_forward_row, &want);
        expect_near(r, segment_attention(r, &d), &want, segment_slack(&want));
    }
    refuse_segments(r, false);
}

static void case_segment_attention_grad(rig *r) {
    EACH_DTYPE(t, FLOATS) EACH(i, segment_cases) {
        if (t == MICA_F64) continue;
        segment_data d = make_segments(r, &segment_cases[i], t, (layout)((i + t) % LAYOUTS));
        mica_params p = {.segments = {.scale = d.scale, .causal = d.c->causal, .window = d.c->window, .longest = (int32_t)d.longest}};
        value want = blank(r, t, 3, (int64_t[]){d.N, d.c->H + 2 * d.c->Hkv, d.c->Dh});
        if (wants_oracle(r)) segment_rows(r, &d, segment_gradient_row, &want);
        expect_near(r, mica_segment_attention_grad(r->s, d.in[0], d.in[1], d.in[2], d.lengths, d.in[3], &p), &want, segment_slack(&want));
    }
    refuse_segments(r, true);
}
#endif
