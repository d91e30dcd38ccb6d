// SPDX-License-Identifier: Apache-2.0
// Cases of the ops that language models spend their time in: norms, rotary embedding, attention, cache pages.
#ifndef MICA_TESTS_OPS_FAST_H
#define MICA_TESTS_OPS_FAST_H

#include "ops/testing.h"

// ---- norms ----
// w and b: NULL = absent.
static value norm_oracle(rig *r, const value *x, const value *w, const value *b, double eps, bool center) {
    value y = blank(r, x->dtype, x->ndim, x->shape);
    size_t D = (size_t)x->shape[x->ndim - 1];
    for (size_t row = 0; wants_oracle(r) && D && row < x->size / D; row++) {
        const double *p = x->x + row * D;
        double mean = 0, squares = 0;
        for (size_t i = 0; center && i < D; i++) mean += p[i] / (double)D;
        for (size_t i = 0; i < D; i++) squares += (p[i] - mean) * (p[i] - mean);
        double scale = 1 / sqrt(squares / (double)D + eps);
        for (size_t i = 0; i < D; i++) y.x[row * D + i] = (p[i] - mean) * scale * (w ? w->x[i] : 1) + (b ? b->x[i] : 0);
    }
    return y;
}

static void check_norms(rig *r, bool center) {
    static const shape list[] = {{1, {1}}, {1, {7}}, {2, {0, 5}}, {2, {3, 65}}, {3, {2, 5, 576}}, {2, {2, 5003}}, {2, {700, 32}}};
    EACH_DTYPE(t, FLOATS) EACH_DTYPE(wt, FLOATS) EACH(k, list) for (int given = 0; given < (center ? 4 : 2); given++) {
        value x = randoms(r, t, list[k].ndim, list[k].n, -3, 4);
        const int64_t *D = &list[k].n[x.ndim - 1];
        value w = randoms(r, wt, 1, D, 0.5, 2), b = randoms(r, wt, 1, D, -2, 2);
        mica_array *a = put(r, &x, (layout)((k + t) % LAYOUTS));
        mica_array *g = given & 1 ? put(r, &w, (layout)(wt % REPEATED)) : NULL, *h = given & 2 ? put(r, &b, DENSE) : NULL;
        float eps = 1e-5f;
        value want = norm_oracle(r, &x, g ? &w : NULL, h ? &b : NULL, (double)eps, center);
        expect_near(r, center ? mica_layer_norm(r->s, a, g, h, eps) : mica_rms_norm(r->s, a, g, eps), &want, t == MICA_F64 ? 1e-13 : 2e-5);
    }
    const char *name = center ? "layer_norm" : "rms_norm";
    value x = randoms(r, MICA_F32, 2, (int64_t[]){2, 4}, -3, 4), w = randoms(r, MICA_F32, 1, (int64_t[]){5}, -3, 4);
    mica_array *a = put(r, &x, DENSE), *g = put(r, &w, DENSE);
    expect_refusal(r, center ? mica_layer_norm(r->s, a, g, NULL, 1e-5f) : mica_rms_norm(r->s, a, g, 1e-5f), name);
    x = randoms(r, MICA_I32, 2, (int64_t[]){2, 4}, -3, 4);
    a = put(r, &x, DENSE);
    expect_refusal(r, center ? mica_layer_norm(r->s, a, NULL, NULL, 1e-5f) : mica_rms_norm(r->s, a, NULL, 1e-5f), name);
}
static void case_rms_norm(rig *r) { check_norms(r, false); }
static void case_layer_norm(rig *r) { check_norms(r, true); }

// ---- rotary embedding ----
static void case_rope_table(rig *r) {
    static const shape list[] = {{0, {0}}, {1, {5}}, {2, {3, 4}}, {2, {2, 0}}, {1, {700}}};
    EACH(k, list) EACH_LAYOUT(how) {
        value p = blank(r, MICA_I32, list[k].ndim, list[k].n), f = randoms(r, MICA_F32, 1, (int64_t[]){6}, 0, 1);
        for (size_t i = 0; i < p.size; i++) p.x[i] = (double)(i * 7 % 400);
        mica_array *x = put(r, &p, how), *y = put(r, &f, (layout)(how % REPEATED));
        int64_t n[MICA_MAX_DIMS];
        memcpy(n, p.shape, sizeof n);
        n[p.ndim] = 12;
        value want = blank(r, MICA_F32, p.ndim + 1, n);
        for (size_t i = 0; i < want.size; i++) {
            double angle = (double)((float)p.x[i / 12] * (float)f.x[i % 6]); // an f32 product by definition
            want.x[i] = 1.5 * (i % 12 < 6 ? cos(angle) : sin(angle));
        }
        expect_near(r, mica_rope_table(r->s, x, y, 1.5f), &want, 1e-6);
    }
    value p = randoms(r, MICA_F32, 1, (int64_t[]){3}, 0, 1);
    expect_refusal(r, mica_rope_table(r->s, put(r, &p, DENSE), put(r, &p, DENSE), 1), "rope_table");
}

static void check_rope(rig *r, mica_dtype t, layout how, int64_t batches, int64_t dims, bool traditional) {
    int64_t B = 2, T = 3, H = 5, Dh = 8, half = dims / 2;
    value x = randoms(r, t, 4, (int64_t[]){B, T, H, Dh}, -3, 3), table = randoms(r, MICA_F32, 3, (int64_t[]){batches, T, dims}, -1, 1);
    mica_array *a = put(r, &x, how), *b = put(r, &table, (layout)(how % REPEATED));
    value want = blank(r, t, 4, x.shape);
    memcpy(want.x, x.x, x.size * sizeof *x.x);
    for (int64_t row = 0; row < B * T * H; row++)
        for (int64_t i = 0; i < half; i++) {
            int64_t p = row * Dh + (traditional ? 2 * i : i), q = row * Dh + (traditional ? 2 * i + 1 : i + half);
            const double *cs = &table.x[((batches == 1 ? 0 : row / (T * H)) * T + row / H % T) * dims];
            want.x[p] = x.x[p] * cs[i] - x.x[q] * cs[half + i];
            want.x[q] = x.x[p] * cs[half + i] + x.x[q] * cs[i];
        }
    expect_near(r, mica_rope_apply(r->s, a, b, traditional), &want, t == MICA_F64 ? 1e-14 : 2e-6);
}

static void case_rope(rig *r) {
    EACH_DTYPE(t, FLOATS) EACH_LAYOUT(how) for (int traditional = 0; traditional < 2; traditional++) for (int64_t dims = 2; dims <= 8; dims += 2)
        check_rope(r, t, how, 1 + dims / 2 % 2, dims, traditional);
    value x = randoms(r, MICA_F32, 4, (int64_t[]){1, 2, 1, 4}, 0, 1), table = randoms(r, MICA_F32, 3, (int64_t[]){1, 2, 6}, 0, 1);
    expect_refusal(r, mica_rope_apply(r->s, put(r, &x, DENSE), put(r, &table, DENSE), false), "rope");
}

// ---- attention ----
// One query against n keys and values of Dh; sees: NULL = all; bias: NULL = none. A query that sees nothing gives zeros.
static void attend(const double *q, const double *k, const double *v, size_t n, size_t Dh, double scale, const bool *sees,
                   const double *bias, double *y) {
    double most = -(double)INFINITY, sum = 0;
    double *s = calloc(n + 1, sizeof *s);
    for (size_t j = 0; j < n; j++) {
        for (size_t d = 0; d < Dh; d++) s[j] += q[d] * k[j * Dh + d];
        s[j] = s[j] * scale + (bias ? bias[j] : 0);
        if (sees && !sees[j]) s[j] = -(double)INFINITY;
        most = fmax(most, s[j]);
    }
    for (size_t d = 0; d < Dh; d++) y[d] = 0;
    for (size_t j = 0; j < n && isfinite(most); j++) sum += s[j] = exp(s[j] - most);
    for (size_t j = 0; j < n && isfinite(most); j++)
        for (size_t d = 0; d < Dh; d++) y[d] += s[j] / sum * v[j * Dh + d];
    free(s);
}

typedef struct sdpa_case { int64_t B, H, Hkv, Tq, Tk, Dh; } sdpa_case;

static void check_sdpa(rig *r, const sdpa_case *c, mica_dtype t, layout how, bool causal, int window, int mask_kind) {
    value q = randoms(r, t, 4, (int64_t[]){c->B, c->H, c->Tq, c->Dh}, -2, 2), k = randoms(r, t, 4, (int64_t[]){c->B, c->Hkv, c->Tk, c->Dh}, -2, 2);
    value v = randoms(r, t, 4, k.shape, -2, 2), mask = randoms(r, mask_kind == 2 ? t : MICA_BOOL, 3, (int64_t[]){c->H, c->Tq, c->Tk}, -2, 2);
    mica_array *x[] = {put(r, &q, how), put(r, &k, (layout)((how + 1) % LAYOUTS)), put(r, &v, (layout)((how + 2) % LAYOUTS)),
                       mask_kind ? put(r, &mask, DENSE) : NULL};
    value want = blank(r, t, 4, q.shape);
    size_t Tk = (size_t)c->Tk, Dh = (size_t)c->Dh;
    bool *sees = take_memory(r, Tk + 1);
    double *bias = take_memory(r, (Tk + 1) * sizeof *bias), scale = (double)(float)(1 / sqrt((double)c->Dh));
    for (int64_t row = 0; wants_oracle(r) && row < c->B * c->H * c->Tq; row++) {
        int64_t i = row % c->Tq, h = row / c->Tq % c->H, b = row / c->Tq / c->H, position = c->Tk - c->Tq + i;
        for (int64_t j = 0; j < c->Tk; j++) {
            double m = mask_kind ? mask.x[(h * c->Tq + i) * c->Tk + j] : 0;
            sees[j] = (!causal || j <= position) && (!window || j > position - window) && (mask_kind != 1 || m != 0);
            bias[j] = mask_kind == 2 ? m : 0;
        }
        size_t kv = (size_t)(b * c->Hkv + h / (c->H / c->Hkv)) * Tk * Dh;
        attend(q.x + (size_t)row * Dh, k.x + kv, v.x + kv, Tk, Dh, scale, sees, bias, want.x + (size_t)row * Dh);
    }
    mica_sdpa_options o = {.causal = causal, .window = window};
    double slack = t == MICA_F64 ? 1e-13 : t == MICA_F32 ? 1e-5 : t == MICA_F16 ? 3e-3 : 2e-2; // weights may be rounded to the type of v
    expect_near(r, mica_sdpa(r->s, x[0], x[1], x[2], x[3], &o), &want, slack);
}

static void case_sdpa(rig *r) {
    static const sdpa_case list[] = {{1, 1, 1, 1, 1, 1}, {2, 4, 2, 3, 5, 8}, {1, 3, 1, 1, 200, 33}, {1, 2, 2, 70, 130, 64}, {2, 2, 1, 0, 3, 4}, {1, 2, 1, 3, 0, 4}};
    EACH_DTYPE(t, FLOATS) EACH(k, list) for (int kind = 0; kind < 9; kind++) // 3 masks; none, causal, window
        check_sdpa(r, &list[k], t, (layout)((k + (size_t)kind) % LAYOUTS), kind / 3 > 0, kind / 3 == 2 ? 3 : 0, kind % 3);
    value q = randoms(r, MICA_F32, 4, (int64_t[]){1, 3, 2, 4}, -2, 2), k = randoms(r, MICA_F32, 4, (int64_t[]){1, 2, 2, 4}, -2, 2);
    expect_refusal(r, mica_sdpa(r->s, put(r, &q, DENSE), put(r, &k, DENSE), put(r, &k, DENSE), NULL, NULL), "sdpa");
}

// ---- cache pages ----
enum { PAGES = 9, LAYERS = 2, HKV = 2, P = 4, DH = 16, SEQUENCES = 2, MOST_PAGES = 4, HEADS = 6 };
typedef struct cache_case { int32_t meta[SEQUENCES][4], table[SEQUENCES][MOST_PAGES]; int64_t N; } cache_case;
static const cache_case caches[] = {
    {{{0, 3, 3, 0}, {3, 1, 9, 0}}, {{2, -1, -1, -1}, {0, 5, 8, -1}}, 4},
    {{{0, 1, 13, 0}, {1, 1, 1, 0}}, {{2, 3, 4, 1}, {0, -1, -1, -1}}, 2},
    {{{0, 12, 16, 0}, {12, 2, 5, 0}}, {{2, 3, 4, 1}, {7, 6, -1, -1}}, 15}, // a row of no sequence
    {{{0, 1, 14, 0}, {1, 0, 3, 0}}, {{-1, -1, 4, 1}, {7, -1, -1, -1}}, 1},  // released pages, an idle sequence
};

static size_t pool_at(int32_t page, int64_t layer, int64_t kv, int64_t h, int64_t slot) {
    return (size_t)((((((int64_t)page * LAYERS + layer) * HKV + h) * 2 + kv) * P + slot) * DH);
}
static mica_array *put_meta(rig *r, const cache_case *c) { return mica_from_data(r->s, c->meta, MICA_SHAPE(SEQUENCES, 4), MICA_I32); }
static mica_array *put_table(rig *r, const cache_case *c) { return mica_from_data(r->s, c->table, MICA_SHAPE(SEQUENCES, MOST_PAGES), MICA_I32); }
static value make_pool(rig *r, mica_dtype t) { return randoms(r, t, 6, (int64_t[]){PAGES, LAYERS, HKV, 2, P, DH}, -1, 1); }

static void append_oracle(const cache_case *c, value *pool, const value *k, const value *v, int64_t layer) {
    for (int b = 0; b < SEQUENCES; b++)
        for (int32_t i = 0; i < c->meta[b][1]; i++) {
            int32_t position = c->meta[b][2] - c->meta[b][1] + i, page = c->table[b][position / P];
            for (int64_t h = 0; page >= 0 && h < HKV; h++)
                for (int64_t d = 0; d < DH; d++) {
                    size_t from = (size_t)(((c->meta[b][0] + i) * HKV + h) * DH + d);
                    pool->x[pool_at(page, layer, 0, h, position % P) + (size_t)d] = k->x[from];
                    pool->x[pool_at(page, layer, 1, h, position % P) + (size_t)d] = v->x[from];
                }
        }
}

static void case_kv_append(rig *r) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    EACH(d, types) EACH(i, caches) for (int layer = 0; layer < LAYERS; layer++) {
        const cache_case *c = &caches[i];
        value pool = make_pool(r, types[d]), k = randoms(r, types[d], 3, (int64_t[]){c->N, HKV, DH}, -1, 1), v = randoms(r, types[d], 3, k.shape, -1, 1);
        mica_array *p = put(r, &pool, DENSE), *x = put(r, &k, (layout)(i % LAYOUTS)), *y = put(r, &v, TRANSPOSED);
        append_oracle(c, &pool, &k, &v, layer);
        mica_array *after = mica_kv_append(r->s, p, x, y, put_meta(r, c), put_table(r, c), layer);
        recorded(r, after);
        assert_true(mica_eval(r->s, &after, 1, NULL));
        assert_ptr_equal(mica_data(after), mica_data(p)); // in place
        expect(r, after, &pool);
    }
    value pool = make_pool(r, MICA_F32), k = randoms(r, MICA_F32, 3, (int64_t[]){4, HKV, DH + 1}, -1, 1);
    mica_array *x = put(r, &k, DENSE);
    expect_refusal(r, mica_kv_append(r->s, put(r, &pool, DENSE), x, x, put_meta(r, caches), put_table(r, caches), 0), "kv_append");
}

// Row `row` of q: token i of sequence b.
static void paged_row(rig *r, const cache_case *c, const value *pool, const value *q, value *want, int b, int32_t i, int64_t layer, double scale, int window) {
    int32_t position = c->meta[b][2] - c->meta[b][1] + i;
    size_t n = (size_t)position + 1, row = (size_t)(c->meta[b][0] + i);
    double *k = take_memory(r, n * DH * sizeof *k), *v = take_memory(r, n * DH * sizeof *v);
    bool *sees = take_memory(r, n);
    for (size_t h = 0; h < HEADS; h++) {
        for (int32_t j = 0; j <= position; j++) {
            int32_t page = c->table[b][j / P];
            sees[j] = page >= 0 && (!window || j > position - window);
            if (page < 0) continue;
            memcpy(k + j * DH, &pool->x[pool_at(page, layer, 0, (int64_t)h / (HEADS / HKV), j % P)], DH * sizeof *k);
            memcpy(v + j * DH, &pool->x[pool_at(page, layer, 1, (int64_t)h / (HEADS / HKV), j % P)], DH * sizeof *v);
        }
        attend(q->x + (row * HEADS + h) * DH, k, v, n, DH, scale, sees, NULL, want->x + (row * HEADS + h) * DH);
    }
}

static void case_paged_attention(rig *r) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    EACH(d, types) EACH(i, caches) for (int window = 0; window < 8; window += 3) {
        const cache_case *c = &caches[i];
        value pool = make_pool(r, types[d]), q = randoms(r, types[d], 3, (int64_t[]){c->N, HEADS, DH}, -2, 2);
        mica_array *p = put(r, &pool, DENSE), *x = put(r, &q, (layout)(i % LAYOUTS));
        value want = blank(r, types[d], 3, q.shape);
        for (int b = 0; b < SEQUENCES; b++)
            for (int32_t t = 0; t < c->meta[b][1]; t++) paged_row(r, c, &pool, &q, &want, b, t, 1, 0.25, window);
        double slack = d == 0 ? 1e-5 : d == 1 ? 3e-3 : 2e-2;
        expect_near(r, mica_paged_attention(r->s, x, p, put_meta(r, c), put_table(r, c), 1, 0.25f, window), &want, slack);
    }
    value pool = make_pool(r, MICA_F32), q = randoms(r, MICA_F32, 3, (int64_t[]){4, 5, DH}, -2, 2);
    expect_refusal(r, mica_paged_attention(r->s, put(r, &q, DENSE), put(r, &pool, DENSE), put_meta(r, caches), put_table(r, caches), 0, 1, 0), "paged_attention");
}

// Both ops in one, without norms and rotation (test_kernels_attention has those): the pool is written, the rows are the same.
static void case_cache_attention(rig *r) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    EACH(d, types) EACH(i, caches) {
        const cache_case *c = &caches[i];
        value pool = make_pool(r, types[d]), q = randoms(r, types[d], 3, (int64_t[]){c->N, HEADS, DH}, -2, 2);
        value k = randoms(r, types[d], 3, (int64_t[]){c->N, HKV, DH}, -1, 1), v = randoms(r, types[d], 3, k.shape, -1, 1);
        mica_cache_inputs in = {.q = put(r, &q, TRANSPOSED), .k = put(r, &k, DENSE), .v = put(r, &v, TRANSPOSED), .pool = put(r, &pool, DENSE)};
        in.meta = put_meta(r, c), in.table = put_table(r, c);
        append_oracle(c, &pool, &k, &v, 1);
        value want = blank(r, types[d], 3, q.shape);
        for (int b = 0; b < SEQUENCES; b++)
            for (int32_t t = 0; t < c->meta[b][1]; t++) paged_row(r, c, &pool, &q, &want, b, t, 1, 0.25, 3);
        mica_array *out = mica_cache_attention(r->s, &in, 1, 0.25f, 3, 0);
        double *written = take_memory(r, pool.size * sizeof *written);
        assert_true(mica_eval(r->s, &out, 1, NULL) && mica_read_f64(in.pool, written, pool.size, NULL));
        assert_memory_equal(written, pool.x, pool.size * sizeof *written);
        expect_near(r, out, &want, d == 0 ? 1e-5 : d == 1 ? 3e-3 : 2e-2);
    }
    value pool = make_pool(r, MICA_F32), q = randoms(r, MICA_F32, 3, (int64_t[]){4, HKV, DH}, -2, 2);
    mica_array *x = put(r, &q, DENSE);
    mica_cache_inputs in = {.q = x, .k = x, .v = x, .pool = put(r, &pool, DENSE), .meta = put_meta(r, caches), .table = put_table(r, caches), .q_norm = x};
    expect_refusal(r, mica_cache_attention(r->s, &in, 0, 1, 0, 0), "cache_attention");
}
#endif
