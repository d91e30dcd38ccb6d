// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// Attention of the CPU device at every level this CPU has, against softmax(q·k)·v in double: masks, windows, grouped
// heads, odd head sizes, strided views; the paged cache with ragged batches, released pages and long sequences; rows
// that must not depend on their batch or on threads; and how far bf16 may stray.
#include "paged_testing.h"

// ---- sdpa ----
typedef struct sdpa_case {
    int64_t B, H, Hkv, Tq, Tk, Dh;
    bool causal;
    int window, mask; // mask: 0 none, 1 bool [B,H,Tq,Tk], 2 f32 [1,1,Tq,Tk] broadcast, 3 type of q [Tq,Tk]
} sdpa_case;

static double mask_of(const sdpa_case *s, size_t b, size_t h, size_t i, size_t j) {
    size_t hash = i * 31 + j * 17 + (s->mask == 1 ? b * 7 + h * 3 : 0);
    if (s->mask && i == 1) return -(double)INFINITY; // a query that sees nothing
    if (s->mask == 1) return hash % 3 ? 0 : -(double)INFINITY;
    return s->mask ? (hash % 5 ? (double)(hash % 7) / 4 - 1 : -(double)INFINITY) : 0;
}

static array make_mask(const sdpa_case *s, mica_dtype t, layout how) {
    bool full = s->mask == 1;
    mica_dtype type = s->mask == 1 ? MICA_BOOL : s->mask == 2 ? MICA_F32 : t;
    int64_t shape[4] = {full ? s->B : 1, full ? s->H : 1, s->Tq, s->Tk};
    array m = s->mask == 3 ? array_new(type, how, 2, shape + 2) : array_new(type, how, 4, shape);
    for (size_t i = 0; i < m.count; i++) {
        size_t j = i % (size_t)s->Tk, q = i / (size_t)s->Tk % (size_t)s->Tq,
               h = i / (size_t)(s->Tk * s->Tq) % (size_t)shape[1];
        double v = mask_of(s, i / (size_t)(s->Tk * s->Tq * shape[1]), h, q, j);
        array_put(&m, i, s->mask == 1 ? v >= 0 : v);
    }
    if (s->mask == 2) // as the engine broadcasts
        m.t.shape[0] = s->B, m.t.shape[1] = s->H, m.t.stride[0] = m.t.stride[1] = 0, m.t.contiguous = false;
    return m;
}

static void want_sdpa(double *out, const sdpa_case *s, const array *q, const array *k, const array *v, double scale) {
    size_t Dh = (size_t)s->Dh, Tk = (size_t)s->Tk, Tq = (size_t)s->Tq, H = (size_t)s->H;
    double *bias = calloc(Tk + 1, sizeof *bias);
    for (size_t r = 0; r < (size_t)s->B * H * Tq; r++) {
        size_t i = r % Tq, h = r / Tq % H, b = r / Tq / H,
               kv = (b * (size_t)s->Hkv + h / (H / (size_t)s->Hkv)) * Tk * Dh;
        for (int64_t j = 0; j < s->Tk; j++) {
            int64_t position = s->Tk - s->Tq + (int64_t)i;
            bool hidden = (s->causal && j > position) || (s->window && j <= position - s->window);
            bias[j] = hidden ? -(double)INFINITY : mask_of(s, b, h, i, (size_t)j);
        }
        want_row(out + r * Dh, q->values + r * Dh, k->values + kv, v->values + kv, Dh, Tk, Dh, scale, bias);
    }
    free(bias);
}

static void run_sdpa(const mica_cpu_isa *isa, mica_dtype t, const sdpa_case *s, layout how) {
    array q = array_random(t, how, SHAPE(s->B, s->H, s->Tq, s->Dh), 1, 1),
          k = array_random(t, how, SHAPE(s->B, s->Hkv, s->Tk, s->Dh), 2, 1);
    array v = array_random(t, how, SHAPE(s->B, s->Hkv, s->Tk, s->Dh), 3, 1),
          out = array_new(t, CONTIGUOUS, SHAPE(s->B, s->H, s->Tq, s->Dh));
    array mask = make_mask(s, t, how);
    mica_params params = {
        .sdpa = {.scale = (float)(1.5 / sqrt((double)s->Dh + 1e-9)), .causal = s->causal, .window = s->window}};
    kernel_run_all_threads(isa, "sdpa", &params, &out, s->mask ? 4 : 3,
                           (array *[]){&q, &k, &v, s->mask ? &mask : NULL});
    double *want = calloc(out.count + 1, sizeof *want);
    want_sdpa(want, s, &q, &k, &v, (double)params.sdpa.scale);
    values_equal("sdpa", isa->name, t, out.values, want, out.count, attention_scale(t));
    free(want), array_free(&q), array_free(&k), array_free(&v), array_free(&out), array_free(&mask);
}

static void sdpa_matches(void **state) {
    (void)state;
    static const sdpa_case cases[] = {
        {1, 1, 1, 1, 1, 32, false, 0, 0},    {2, 2, 2, 5, 5, 64, true, 0, 0},    {1, 4, 2, 70, 70, 80, true, 0, 0},
        {1, 3, 1, 67, 131, 96, true, 20, 0}, {2, 8, 1, 9, 200, 128, true, 0, 1}, {1, 4, 4, 17, 65, 256, false, 0, 2},
        {1, 6, 3, 33, 64, 40, false, 0, 3},  {1, 2, 1, 12, 7, 16, true, 0, 0},   {1, 5, 1, 1, 300, 72, true, 100, 0},
        {1, 7, 7, 130, 130, 10, true, 3, 1}, {1, 2, 2, 20, 0, 32, false, 0, 0},  {1, 2, 2, 0, 20, 32, true, 0, 0},
        {0, 2, 2, 4, 4, 32, true, 0, 0},     {1, 1, 1, 4, 70, 1, false, 9, 2},   {1, 130, 1, 2, 66, 33, true, 0, 3},
        {1, 2, 2, 30, 30, 0, true, 0, 0}};
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16, MICA_F64};
    EACH_LEVEL
    for (size_t t = 0; t < MICA_COUNT(types); t++)
        for (size_t i = 0; i < MICA_COUNT(cases); i++) run_sdpa(isa, types[t], &cases[i], (layout)((i + t) % LAYOUTS));
}

static void sdpa_large_scores(void **state) { // the running maximum moves by hundreds from block to block
    (void)state;
    EACH_LEVEL
    for (int direction = -1; direction <= 1; direction += 2) {
        enum { T = 300, Dh = 32 };
        sdpa_case s = {1, 1, 1, T, T, Dh, true, 0, 0};
        array q = array_new(MICA_F32, CONTIGUOUS, SHAPE(1, 1, T, Dh)),
              k = array_new(MICA_F32, CONTIGUOUS, SHAPE(1, 1, T, Dh));
        array v = array_random(MICA_F32, CONTIGUOUS, SHAPE(1, 1, T, Dh), 3, 1),
              out = array_new(MICA_F32, CONTIGUOUS, SHAPE(1, 1, T, Dh));
        for (size_t i = 0; i < q.count; i++)
            array_put(&q, i, i % Dh ? 0 : 8), array_put(&k, i, i % Dh ? 1 : direction * (double)(i / Dh));
        mica_params params = {.sdpa = {.scale = 1, .causal = 1}};
        kernel_run_all_threads(isa, "sdpa", &params, &out, 3, (array *[]){&q, &k, &v});
        double *want = calloc(out.count, sizeof *want);
        want_sdpa(want, &s, &q, &k, &v, 1);
        values_equal("sdpa", isa->name, MICA_F32, out.values, want, out.count, 2);
        free(want), array_free(&q), array_free(&k), array_free(&v), array_free(&out);
    }
}

// ---- paged cache ----
static const paged_case paged_cases[] = {
    // B  H  Hkv Dh  P  L layer window lengths appended release
    {1, 1, 1, 32, 16, 1, 0, 0, {1}, {1}, false, false},
    {1, 4, 1, 256, 32, 2, 1, 0, {333}, {1}, false, false},
    {4, 4, 2, 64, 16, 3, 2, 0, {1, 17, 300, 128}, {1, 1, 1, 1}, false, false},
    {4, 8, 1, 80, 32, 2, 0, 40, {5, 41, 200, 97}, {5, 1, 150, 8}, true, false},
    {3, 6, 3, 96, 7, 1, 0, 0, {70, 9, 129}, {70, 9, 1}, false, false},
    {5, 2, 2, 128, 64, 2, 1, 33, {64, 65, 300, 2, 150}, {64, 2, 1, 2, 40}, true, false},
    {2, 3, 1, 72, 16, 1, 0, 512, {700, 513}, {30, 1}, true, false},
    {3, 5, 5, 33, 1, 2, 1, 10, {40, 12, 3}, {9, 1, 0}, true, false},
    {1, 16, 2, 64, 32, 1, 0, 0, {5000}, {1}, false, false},
    {2, 7, 1, 128, 64, 1, 0, 0, {5000, 4100}, {3, 1}, false, false},
    {1, 2, 1, 64, 64, 1, 0, 1024, {5000}, {20}, true, false},
    {2, 2, 1, 64, 64, 1, 0, 1500, {5000, 4999}, {1, 8}, true, false},
};

static void check_paged(const mica_cpu_isa *isa, cache *c, size_t number) {
    array out = paged_attention(isa, c);
    double *want = calloc(out.count, sizeof *want);
    want_paged(want, c);
    char what[40];
    snprintf(what, sizeof what, "paged_attention case %zu", number);
    values_equal(what, isa->name, c->t, out.values, want, out.count, attention_scale(c->t));
    free(want), array_free(&out);
}

static void paged_matches(void **state) {
    (void)state;
    each_cache(paged_cases, MICA_COUNT(paged_cases), check_paged);
}

static void append_writes_only_its_slots(void **state) {
    (void)state;
    static const paged_case s = {2, 2, 2, 32, 16, 2, 1, 0, {20, 5}, {3, 5}, false, false};
    cache c = cache_new(&s, MICA_BF16, mica_cpu_isa_at(0));
    array_read(&c.pool);
    size_t written = 0, row = (size_t)(s.Hkv * s.Dh);
    for (size_t i = 0; i < c.pool.count; i++) written += isnan(c.pool.values[i]) ? 0 : 1;
    assert_int_equal(written, 25 * 2 * row);
    for (size_t j = 0; j < 20; j++)
        for (size_t e = 0; e < row; e++) {
            size_t page = (size_t)c.table.values[j / 16], h = e / 32;
            size_t at = ((((page * 2 + 1) * 2 + h) * 2 + 0) * 16 + j % 16) * 32 + e % 32;
            assert_true(c.pool.values[at] == c.k[0].values[j * row + e]);
            assert_true(c.pool.values[at + 16 * 32] == c.v[0].values[j * row + e]);
        }
    cache_free(&c);
}

static void append_converts(void **state) { // an f32 model with a bf16 cache
    (void)state;
    array pool = array_new(MICA_BF16, CONTIGUOUS, SHAPE(2, 1, 1, 2, 4, 8)),
          k = array_random(MICA_F32, REVERSED, SHAPE(1, 1, 8), 1, 1);
    array meta = array_new(MICA_I32, CONTIGUOUS, SHAPE(1, 4)), table = array_new(MICA_I32, CONTIGUOUS, SHAPE(1, 2));
    array_put(&meta, 0, 0), array_put(&meta, 1, 1), array_put(&meta, 2, 6), array_put(&meta, 3, 0);
    array_put(&table, 0, 0), array_put(&table, 1, 1);
    device_use(mica_cpu_isa_best(), 1);
    mica_params params = {.paged = {.layer = 0}};
    kernel_run("kv_append", &params, &pool, 5, (array *[]){&pool, &k, &k, &meta, &table});
    for (size_t d = 0; d < 8; d++)
        assert_true(pool.values[64 + 8 + d] == (double)mica_bf16_to_f32(mica_f32_to_bf16((float)k.values[d])));
    array_free(&pool), array_free(&k), array_free(&meta), array_free(&table);
}

// A sequence alone gives the bits it gives in a batch.
static void check_alone(const mica_cpu_isa *isa, cache *c, size_t number) {
    const paged_case *s = c->s;
    mica_params params = paged_params(s);
    size_t row = (size_t)(s->H * s->Dh);
    array all = paged_attention(isa, c);
    (void)number;
    for (size_t b = 0; b < (size_t)s->B; b++) {
        array meta = array_new(MICA_I32, CONTIGUOUS, SHAPE(1, 4)), table = array_new(MICA_I32, CONTIGUOUS, SHAPE(1, c->max_pages));
        array one = array_new(c->t, CONTIGUOUS, SHAPE(c->N, s->H, s->Dh));
        for (size_t i = 0; i < 4; i++) array_put(&meta, i, c->meta.values[b * 4 + i]);
        for (size_t i = 0; i < table.count; i++) array_put(&table, i, c->table.values[b * table.count + i]);
        device_use(isa, 2);
        kernel_run("paged_attention", &params, &one, 4, (array *[]){&c->q, &c->pool, &meta, &table});
        for (size_t i = 0; i < one.count; i++) {
            bool mine = i / row >= c->start[b] && i / row - c->start[b] < (size_t)s->appended[b];
            assert_true(one.values[i] == (mine ? all.values[i] : 0));
        }
        array_free(&meta), array_free(&table), array_free(&one);
    }
    array_free(&all);
}

static void rows_do_not_depend_on_the_batch(void **state) {
    (void)state;
    static const paged_case s = {4, 6, 2, 80, 16, 1, 0, 50, {300, 7, 150, 90}, {1, 7, 60, 1}, false, false};
    each_cache(&s, 1, check_alone);
}

// Up to eight tokens at once give each the bits that it gives alone, whatever lies in between: window, steps, chunks.
static void check_few(const mica_cpu_isa *isa, cache *c, size_t number) {
    const paged_case *s = c->s;
    mica_params params = paged_params(s);
    array all = paged_attention(isa, c), one = array_new(c->t, CONTIGUOUS, SHAPE(c->N, s->H, s->Dh));
    size_t b = (size_t)s->B - 1, n = (size_t)(s->H * s->Dh); // the last sequence, token by token
    for (int token = 0; token < s->appended[b]; token++) {
        size_t row = c->start[b] + (size_t)token;
        for (size_t k = 0; k < b; k++) array_put(&c->meta, k * 4 + 1, 0);
        array_put(&c->meta, b * 4, (double)row), array_put(&c->meta, b * 4 + 1, 1);
        array_put(&c->meta, b * 4 + 2, s->lengths[b] - s->appended[b] + token + 1);
        device_use(isa, 2);
        kernel_run("paged_attention", &params, &one, 4, (array *[]){&c->q, &c->pool, &c->meta, &c->table});
        for (size_t e = 0; e < n; e++)
            if (one.values[row * n + e] != all.values[row * n + e])
                fail_msg("%s %s case %zu: token %d of %d differs alone", isa->name, mica_dtype_name(c->t), number, token, s->appended[b]);
    }
    array_free(&all), array_free(&one);
}

static void few_tokens_equal_single_ones(void **state) {
    (void)state;
    static const paged_case fews[] = {
        {1, 4, 2, 64, 32, 1, 0, 0, {131}, {8}, false, false},     {1, 4, 2, 32, 32, 1, 0, 0, {1925}, {8}, false, false},
        {1, 4, 1, 256, 32, 2, 1, 512, {1000}, {5}, true, false},  {1, 3, 1, 80, 32, 1, 0, 45, {70}, {7}, false, false},
        {2, 3, 1, 24, 16, 1, 0, 0, {40, 3845}, {3, 4}, false, false}, {1, 2, 2, 40, 7, 1, 0, 33, {300}, {8}, true, false},
        {1, 7, 1, 64, 32, 1, 0, 70, {200}, {8}, true, true},
    };
    each_cache(fews, MICA_COUNT(fews), check_few);
}

// ---- 8-bit codes ----
// What the pool holds for element e = h * Dh + d of position j of sequence b (kv 0 keys, 1 values).
static double coded(const cache *c, int b, size_t j, size_t kv, size_t e) {
    const paged_case *s = c->s;
    size_t P = (size_t)s->P, Dh = (size_t)s->Dh, page = (size_t)c->table.values[(size_t)(b * c->max_pages) + j / P];
    size_t half = ((page * (size_t)s->L + (size_t)s->layer) * (size_t)s->Hkv + e / Dh) * 2 + kv;
    const unsigned char *at = c->pool.t.data + half * P * (Dh + 4);
    float scale;
    memcpy(&scale, at + P * Dh + j % P * 4, 4);
    return (double)scale * (double)(int8_t)at[j % P * Dh + e % Dh];
}

// Replaces what was put into the cache by what it holds of it; no element may be off by more than half a code.
static void read_codes(cache *c) {
    size_t row = (size_t)(c->s->Hkv * c->s->Dh), Dh = (size_t)c->s->Dh;
    for (int b = 0; b < c->s->B; b++)
        for (size_t j = 0; j < (size_t)c->s->lengths[b]; j++)
            for (size_t kv = 0; kv < 2 && c->table.values[(size_t)(b * c->max_pages) + j / (size_t)c->s->P] >= 0; kv++)
                for (size_t e = 0; e < row; e++) {
                    double *x = (kv ? c->v : c->k)[b].values + j * row, most = 0, got = coded(c, b, j, kv, e);
                    if (e % Dh == 0)
                        for (size_t d = 0; d < Dh; d++) most = fmax(most, fabs(x[e + d]));
                    static double step;
                    if (e % Dh == 0) step = most / 127;
                    if (!(fabs(got - x[e]) <= step * 0.5001)) fail_msg("code of %g is %g, a step %g", x[e], got, step);
                    x[e] = got;
                }
}

static const paged_case coded_cases[] = {
    {1, 4, 1, 256, 32, 2, 1, 512, {1000}, {1}, true, true},      {4, 4, 2, 64, 16, 3, 2, 0, {1, 17, 300, 128}, {1, 1, 1, 1}, false, true},
    {4, 8, 1, 80, 32, 2, 0, 40, {5, 41, 200, 97}, {5, 1, 150, 8}, true, true}, {3, 6, 3, 96, 7, 1, 0, 0, {70, 9, 129}, {70, 9, 1}, false, true},
    {3, 5, 5, 36, 1, 2, 1, 10, {40, 12, 3}, {9, 1, 0}, true, true}, {1, 16, 2, 64, 32, 1, 0, 0, {2500}, {1}, false, true},
    {2, 7, 1, 128, 64, 1, 0, 0, {2500, 2100}, {3, 1}, false, true}, {1, 3, 1, 20, 32, 1, 0, 0, {300}, {200}, false, true},
};

// The kernels compute what the codes say; and that is near what the values said: at most 1.5 % of their root mean square
// (values and queries of unit variance; half a step of a row is about 1/80 of its standard deviation).
static void check_codes(const mica_cpu_isa *isa, cache *c, size_t number) {
    array out = paged_attention(isa, c);
    double *want = calloc(out.count, sizeof *want), *exact = calloc(out.count, sizeof *exact), error = 0, size = 0;
    want_paged(exact, c);
    read_codes(c);
    want_paged(want, c);
    char what[40];
    snprintf(what, sizeof what, "codes, case %zu", number);
    // Prefill rounds the decoded keys and values to the type of the model: twice its tolerance.
    double scale = c->t == MICA_F32 ? 2 : 3 * tolerance[c->t].rounding / tolerance[c->t].sums;
    values_equal(what, isa->name, c->t, out.values, want, out.count, scale);
    for (size_t e = 0; e < out.count; e++) error += pow(want[e] - exact[e], 2), size += pow(exact[e], 2);
    if (!(error <= size * 0.015 * 0.015)) fail_msg("%s: off by %g of the values", what, sqrt(error / size));
    free(want), free(exact), array_free(&out);
}

static void codes_match(void **state) {
    (void)state;
    each_cache(coded_cases, MICA_COUNT(coded_cases), check_codes);
}

static void codes_of_odd_rows(void **state) {
    (void)state;
    EACH_LEVEL
    for (size_t n = 1; n < 70; n += 3) {
        float x[70], y[70];
        int8_t codes[70];
        for (size_t i = 0; i < n; i++) x[i] = (float)random_normal(n, i);
        float scale = isa->rows.to_codes(codes, x, n), most = 0;
        isa->rows.from_codes(y, codes, scale, n);
        for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(x[i]));
        for (size_t i = 0; i < n; i++) assert_true(fabsf(x[i] - y[i]) <= scale * 0.5001f && abs(codes[i]) <= 127);
        assert_true(fabsf(scale * 127 - most) <= most * 1e-6f);
        for (size_t i = 0; i < n; i++) x[i] = 0;
        assert_true(isa->rows.to_codes(codes, x, n) == 0 && codes[n - 1] == 0);
        x[n / 2] = 1e-42f;
        assert_true(isa->rows.to_codes(codes, x, n) == 0);
        x[n / 2] = INFINITY;
        assert_true(isnan(isa->rows.to_codes(codes, x, n)));
        x[n / 2] = NAN;
        assert_true(isnan(isa->rows.to_codes(codes, x, n)));
    }
}

// ---- the fused op: the bits of norm, rope, append and attention one after the other, and the same pool ----
/** [N, heads, Dh] becomes [1, N, heads, Dh]; drop_axis: back again. */
static void add_axis(array *x) {
    for (int d = 3; d > 0; d--) x->t.shape[d] = x->t.shape[d - 1], x->t.stride[d] = x->t.stride[d - 1];
    x->t.ndim = 4, x->t.shape[0] = 1, x->t.stride[0] = 0;
}

static void drop_axis(array *x) {
    for (int d = 0; d < 3; d++) x->t.shape[d] = x->t.shape[d + 1], x->t.stride[d] = x->t.stride[d + 1];
    x->t.ndim = 3;
}

/** Queries or keys, normed (unless w is NULL) and turned; to be freed. */
static array norm_and_rope(const array *x, array *w, array *rope) {
    mica_params norm = {.norm = {.eps = 1e-5f}}, none = {0};
    const int64_t *shape = x->t.shape;
    array from = *x, normed = array_new(x->t.dtype, CONTIGUOUS, SHAPE(shape[0], shape[1], shape[2]));
    array turned = array_new(x->t.dtype, CONTIGUOUS, SHAPE(1, shape[0], shape[1], shape[2]));
    if (w) kernel_run("rms_norm", &norm, &normed, 2, (array *[]){&from, w}), from = normed;
    add_axis(&from);
    kernel_run("rope", &none, &turned, 2, (array *[]){&from, rope});
    drop_axis(&turned);
    array_free(&normed);
    return turned;
}

static void check_fused_with(const mica_cpu_isa *isa, cache *c, array *w, array *u) { // NULL: no norms
    const paged_case *s = c->s;
    size_t bytes = c->pool.count * mica_dtype_size(c->pool.t.dtype);
    array k = array_random(c->t, PADDED, SHAPE(c->N, s->Hkv, s->Dh), 31, 1), v = array_random(c->t, REVERSED, SHAPE(c->N, s->Hkv, s->Dh), 32, 1);
    array rope = array_random(MICA_F32, CONTIGUOUS, SHAPE(1, c->N, s->Dh / 2), 33, 1);
    array parts = array_new(c->t, CONTIGUOUS, SHAPE(c->N, s->H, s->Dh)), fused = array_new(c->t, CONTIGUOUS, SHAPE(c->N, s->H, s->Dh));
    mica_params params = paged_params(s);
    params.paged.eps = 1e-5f;
    unsigned char *before = malloc(bytes), *after = malloc(bytes);
    memcpy(before, c->pool.t.data, bytes);
    device_use(isa, 2);
    array q = norm_and_rope(&c->q, w, &rope), turned = norm_and_rope(&k, u, &rope);
    kernel_run("kv_append", &params, &c->pool, 5, (array *[]){&c->pool, &turned, &v, &c->meta, &c->table});
    kernel_run("paged_attention", &params, &parts, 4, (array *[]){&q, &c->pool, &c->meta, &c->table});
    memcpy(after, c->pool.t.data, bytes);
    for (size_t threads = 1; threads <= 3; threads++) {
        memcpy(c->pool.t.data, before, bytes);
        device_use(isa, threads);
        kernel_run("cache_attention", &params, &fused, 9, (array *[]){&c->q, &c->pool, &c->meta, &c->table, &k, &v, &rope, w, u});
        assert_memory_equal(c->pool.t.data, after, bytes);
        assert_memory_equal(fused.t.data, parts.t.data, parts.count * mica_dtype_size(c->t));
    }
    memcpy(c->pool.t.data, before, bytes);
    free(before), free(after), array_free(&k), array_free(&v), array_free(&rope), array_free(&q), array_free(&turned), array_free(&parts), array_free(&fused);
}

static void check_fused(const mica_cpu_isa *isa, cache *c, size_t number) {
    array w = array_random(MICA_F32, CONTIGUOUS, SHAPE(c->s->Dh), 34, 1), u = array_random(MICA_F32, CONTIGUOUS, SHAPE(c->s->Dh), 35, 1);
    (void)number;
    check_fused_with(isa, c, &w, &u);
    check_fused_with(isa, c, NULL, NULL);
    array_free(&w), array_free(&u);
}

static void fused_equals_parts(void **state) {
    (void)state;
    static const paged_case cases[] = {
        {1, 4, 1, 256, 32, 1, 0, 64, {200}, {1}, false, false},     {3, 4, 2, 64, 16, 2, 1, 0, {40, 17, 300}, {1, 8, 3}, false, false},
        {2, 8, 2, 80, 32, 2, 0, 40, {200, 97}, {150, 8}, false, false}, {1, 6, 3, 36, 7, 1, 0, 0, {1925}, {8}, false, false},
        {2, 4, 2, 64, 32, 1, 0, 0, {140, 33}, {1, 2}, false, true},  {2, 4, 2, 64, 32, 1, 0, 0, {140, 33}, {30, 2}, false, true},
    };
    each_cache(cases, MICA_COUNT(cases), check_fused);
}

// A page missing inside the window hides its positions, and nothing else.
static void absent_pages_are_hidden(void **state) {
    (void)state;
    static const paged_case s = {2, 4, 2, 64, 16, 1, 0, 0, {100, 90}, {1, 30}, false, false};
    EACH_LEVEL {
        cache c = cache_new(&s, MICA_F32, isa);
        array_put(&c.table, 2, -1), array_put(&c.table, (size_t)c.max_pages + 2, -1); // positions 32 … 47
        mica_params params = paged_params(&s);
        array out = array_new(MICA_F32, CONTIGUOUS, SHAPE(c.N, s.H, s.Dh));
        kernel_run_all_threads(isa, "paged_attention", &params, &out, 4, (array *[]){&c.q, &c.pool, &c.meta, &c.table});
        double *want = calloc(out.count, sizeof *want), bias[100] = {0};
        for (size_t j = 32; j < 48; j++) bias[j] = -(double)INFINITY;
        for (int b = 0; b < 2; b++)
            for (size_t i = 0; i < (size_t)s.appended[b]; i++)
                for (size_t h = 0; h < 4; h++) {
                    size_t at = ((c.start[b] + i) * 4 + h) * 64, n = (size_t)(s.lengths[b] - s.appended[b]) + i + 1;
                    want_row(want + at, c.q.values + at, c.k[b].values + h / 2 * 64, c.v[b].values + h / 2 * 64, 128, n,
                             64, 0.125, bias);
                }
        values_equal("paged_attention, holes", isa->name, MICA_F32, out.values, want, out.count, 2);
        free(want), array_free(&out), cache_free(&c);
    }
}

// The two attention ops agree: a cache of one sequence, all of it appended at once, is causal sdpa.
static void paged_equals_sdpa(void **state) {
    (void)state;
    EACH_LEVEL
    for (mica_dtype t = MICA_F32; t <= MICA_BF16; t++)
        for (int window = 0; window < 60; window += 25) {
            enum { T = 150, H = 4, Hkv = 2, Dh = 64 };
            const paged_case s = {1, H, Hkv, Dh, 16, 1, 0, window, {T}, {T}, false, false};
            cache c = cache_new(&s, t, isa);
            mica_params params = paged_params(&s),
                        dense = {.sdpa = {.scale = params.paged.scale, .causal = 1, .window = window}};
            array out = array_new(t, CONTIGUOUS, SHAPE(T + 2, H, Dh)),
                  want = array_new(t, CONTIGUOUS, SHAPE(1, H, T, Dh));
            kernel_run_all_threads(isa, "paged_attention", &params, &out, 4,
                                   (array *[]){&c.q, &c.pool, &c.meta, &c.table});
            array q = c.q, k = c.k[0], v = c.v[0]; // [T, H, Dh] seen as [1, H, T, Dh]
            array *views[] = {&q, &k, &v};
            q.t.data += q.t.stride[0] * (int64_t)mica_dtype_size(t);
            for (size_t i = 0; i < 3; i++) {
                mica_tensor x = views[i]->t;
                views[i]->t = (mica_tensor){.data = x.data,
                                            .dtype = t,
                                            .ndim = 4,
                                            .shape = {1, x.shape[1], T, Dh},
                                            .stride = {0, x.stride[1], x.stride[0], x.stride[2]}};
            }
            kernel_run_all_threads(isa, "sdpa", &dense, &want, 3, views);
            for (size_t i = 0; i < T * H * Dh; i++) {
                size_t token = i / (H * Dh), h = i / Dh % H;
                assert_true(out.values[i + H * Dh] == want.values[(h * T + token) * Dh + i % Dh]);
            }
            array_free(&out), array_free(&want), cache_free(&c);
        }
}

// bf16: the error against exact inputs is hardly more than what rounding q, k, v and the result once costs by itself.
static void bf16_loses_no_precision(void **state) {
    (void)state;
    enum { T = 400, Dh = 128 };
    const sdpa_case s = {1, 2, 1, T, T, Dh, true, 0, 0};
    array q = array_random(MICA_F64, CONTIGUOUS, SHAPE(1, 2, T, Dh), 1, 1),
          k = array_random(MICA_F64, CONTIGUOUS, SHAPE(1, 1, T, Dh), 2, 1);
    array v = array_random(MICA_F64, CONTIGUOUS, SHAPE(1, 1, T, Dh), 3, 1);
    double *exact = calloc(q.count, sizeof *exact), *rounded = calloc(q.count, sizeof *rounded);
    mica_params params = {.sdpa = {.scale = 0.15f, .causal = 1}};
    want_sdpa(exact, &s, &q, &k, &v, (double)params.sdpa.scale);
    array x[3] = {array_random(MICA_BF16, CONTIGUOUS, SHAPE(1, 2, T, Dh), 1, 1),
                  array_random(MICA_BF16, CONTIGUOUS, SHAPE(1, 1, T, Dh), 2, 1),
                  array_random(MICA_BF16, CONTIGUOUS, SHAPE(1, 1, T, Dh), 3, 1)};
    want_sdpa(rounded, &s, &x[0], &x[1], &x[2], (double)params.sdpa.scale);
    double unavoidable = 0;
    for (size_t i = 0; i < q.count; i++)
        unavoidable += pow((double)mica_bf16_to_f32(mica_f32_to_bf16((float)rounded[i])) - exact[i], 2);
    EACH_LEVEL {
        array out = array_new(MICA_BF16, CONTIGUOUS, SHAPE(1, 2, T, Dh));
        kernel_run_all_threads(isa, "sdpa", &params, &out, 3, (array *[]){&x[0], &x[1], &x[2]});
        double error = 0;
        for (size_t i = 0; i < q.count; i++) error += pow(out.values[i] - exact[i], 2);
        printf("  %-6s root mean square error %.3f times that of rounding q, k, v and the result to bf16\n", isa->name,
               sqrt(error / unavoidable));
        assert_true(error <= unavoidable * 1.05 * 1.05);
        array_free(&out);
    }
    free(exact), free(rounded), array_free(&q), array_free(&k), array_free(&v);
    for (size_t i = 0; i < 3; i++) array_free(&x[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sdpa_matches),
        cmocka_unit_test(sdpa_large_scores),
        cmocka_unit_test(paged_matches),
        cmocka_unit_test(append_writes_only_its_slots),
        cmocka_unit_test(append_converts),
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
        cmocka_unit_test(few_tokens_equal_single_ones),
        cmocka_unit_test(codes_match),
        cmocka_unit_test(codes_of_odd_rows),
        cmocka_unit_test(fused_equals_parts),
        cmocka_unit_test(absent_pages_are_hidden),
        cmocka_unit_test(paged_equals_sdpa),
        cmocka_unit_test(bf16_loses_no_precision),
    };
    return cmocka_run_group_tests_name("attention kernels", tests, levels_print, NULL);
}
