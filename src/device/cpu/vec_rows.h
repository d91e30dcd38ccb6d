// SPDX-License-Identifier: Apache-2.0
// Row kernels over vectors, for one element type. Included once per type, after vec512.h or vec256.h and
// vec_math.h, with
//   T, TYPE          element type; its mica_dtype
//   NAME(f)          name of the instance
//   LOAD, LOADN, STORE, STOREN   memory functions of the type (see vec512.h)
// Every element goes through the same operations whether it sits in a whole vector or in the last part of a row.
// No include guard: it is a template.

static void NAME(to_f32)(float *y, const void *x, size_t n) {
    const T *a = x;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) store_f32(y + i, LOAD(a + i));
    if (i < n) storen_f32(y + i, LOADN(a + i, n - i, v_zero()), n - i);
}

static void NAME(from_f32)(void *y, const float *x, size_t n) {
    T *o = y;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) STORE(o + i, load_f32(x + i));
    if (i < n) STOREN(o + i, loadn_f32(x + i, n - i, v_zero()), n - i);
}

static void NAME(store_sums)(void *y, size_t ldy, const float *c, size_t ldc, size_t rows, size_t n) {
    for (T *o = y; rows-- > 0; o += ldy, c += ldc) NAME(from_f32)(o, c, n);
}

#define GATED(f)                                                                                                       \
    static void NAME(gated_##f)(void *y, size_t ldy, const float *gate, const float *up, size_t ldc, size_t step,     \
                                size_t rows, size_t blocks) {                                                          \
        for (T *o = y; rows-- > 0; o += ldy, gate += ldc, up += ldc)                                                   \
            for (size_t b = 0; b < blocks; b++)                                                                        \
                for (size_t i = 0; i < MICA_CPU_GATED; i += LANES)                                                     \
                    STORE(o + b * MICA_CPU_GATED + i, v_##f(load_f32(gate + b * step + i), load_f32(up + b * step + i))); \
    }
GATED(swiglu)
GATED(geglu)
#undef GATED

#define UNARY(f)                                                                                                       \
    static void NAME(f)(void *y, const void *x, size_t n) {                                                            \
        const T *a = x;                                                                                                \
        T *o = y;                                                                                                      \
        size_t i = 0;                                                                                                  \
        for (; i + LANES <= n; i += LANES) STORE(o + i, v_##f(LOAD(a + i)));                                           \
        if (i < n) STOREN(o + i, v_##f(LOADN(a + i, n - i, v_zero())), n - i);                                         \
    }
UNARY(exp)
UNARY(sigmoid)
UNARY(silu)
UNARY(gelu)
UNARY(gelu_tanh)
UNARY(tanh)
#undef UNARY

#define BINARY(f)                                                                                                      \
    static void NAME(f)(void *y, const void *av, const void *bv, size_t n) {                                           \
        const T *a = av, *b = bv;                                                                                      \
        T *o = y;                                                                                                      \
        size_t i = 0;                                                                                                  \
        for (; i + LANES <= n; i += LANES) STORE(o + i, v_##f(LOAD(a + i), LOAD(b + i)));                              \
        if (i < n) STOREN(o + i, v_##f(LOADN(a + i, n - i, v_zero()), LOADN(b + i, n - i, v_set(1.0f))), n - i);       \
    }
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
BINARY(swiglu)
BINARY(geglu)
#undef BINARY

#define GATED_GRAD(f)                                                                                                  \
    static inline void NAME(grad_one_##f)(vf a, vf b, vf g, vf *da, vf *db) {                                          \
        vf y, slope;                                                                                                   \
        v_both_##f(a, &y, &slope);                                                                                     \
        *da = v_mul(v_mul(g, b), slope), *db = v_mul(y, g);                                                            \
    }                                                                                                                  \
    static void NAME(grad_##f)(void *dav, void *dbv, const void *av, const void *bv, const void *gv, size_t n) {       \
        const T *a = av, *b = bv, *g = gv;                                                                             \
        T *da = dav, *db = dbv;                                                                                        \
        vf u, v, zero = v_zero();                                                                                      \
        size_t i = 0;                                                                                                  \
        for (; i + LANES <= n; i += LANES) {                                                                           \
            NAME(grad_one_##f)(LOAD(a + i), LOAD(b + i), LOAD(g + i), &u, &v);                                         \
            STORE(da + i, u), STORE(db + i, v);                                                                        \
        }                                                                                                              \
        if (i == n) return;                                                                                            \
        NAME(grad_one_##f)(LOADN(a + i, n - i, zero), LOADN(b + i, n - i, zero), LOADN(g + i, n - i, zero), &u, &v);   \
        STOREN(da + i, u, n - i), STOREN(db + i, v, n - i);                                                            \
    }
GATED_GRAD(swiglu)
GATED_GRAD(geglu)
#undef GATED_GRAD

static void NAME(scale)(void *y, const void *x, float s, size_t n) {
    const T *a = x;
    T *o = y;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) STORE(o + i, v_mul(LOAD(a + i), v_set(s)));
    if (i < n) STOREN(o + i, v_mul(LOADN(a + i, n - i, v_zero()), v_set(s)), n - i);
}

// ---- norms: four running sums hide the latency of the additions ----
static float NAME(sum_squares)(const T *a, size_t D, float mean) {
    vf s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero(), m = v_set(mean);
    size_t i = 0;
    for (; i + 4 * LANES <= D; i += 4 * LANES) {
        vf x0 = v_sub(LOAD(a + i), m), x1 = v_sub(LOAD(a + i + LANES), m);
        vf x2 = v_sub(LOAD(a + i + 2 * LANES), m), x3 = v_sub(LOAD(a + i + 3 * LANES), m);
        s0 = v_fma(x0, x0, s0), s1 = v_fma(x1, x1, s1), s2 = v_fma(x2, x2, s2), s3 = v_fma(x3, x3, s3);
    }
    for (; i + LANES <= D; i += LANES) {
        vf x = v_sub(LOAD(a + i), m);
        s0 = v_fma(x, x, s0);
    }
    if (i < D) {
        vf x = v_sub(LOADN(a + i, D - i, m), m);
        s1 = v_fma(x, x, s1);
    }
    return v_sum(v_add(v_add(s0, s1), v_add(s2, s3)));
}

static float NAME(sum)(const T *a, size_t D) {
    vf s0 = v_zero(), s1 = v_zero();
    size_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES) s0 = v_add(s0, LOAD(a + i)), s1 = v_add(s1, LOAD(a + i + LANES));
    for (; i + LANES <= D; i += LANES) s0 = v_add(s0, LOAD(a + i));
    if (i < D) s1 = v_add(s1, LOADN(a + i, D - i, v_zero()));
    return v_sum(v_add(s0, s1));
}

static inline vf NAME(norm_one)(vf x, vf mean, vf r, vf w, vf b) { return v_fma(v_mul(v_sub(x, mean), r), w, b); }

static void NAME(layer_norm)(void *y, const void *x, const float *w, const float *b, size_t D, float eps) {
    const T *a = x;
    T *o = y;
    float mean = NAME(sum)(a, D) / (float)D;
    vf m = v_set(mean), r = v_set(1.0f / sqrtf(NAME(sum_squares)(a, D, mean) / (float)D + eps)), one = v_set(1.0f),
       zero = v_zero();
    size_t i = 0;
    for (; i + LANES <= D; i += LANES)
        STORE(o + i, NAME(norm_one)(LOAD(a + i), m, r, w ? load_f32(w + i) : one, b ? load_f32(b + i) : zero));
    if (i < D)
        STOREN(o + i,
               NAME(norm_one)(LOADN(a + i, D - i, zero), m, r, w ? loadn_f32(w + i, D - i, zero) : one,
                              b ? loadn_f32(b + i, D - i, zero) : zero),
               D - i);
}

static void NAME(rms_norm)(void *y, const void *x, const float *w, size_t D, float eps) {
    const T *a = x;
    T *o = y;
    float s = 1.0f / sqrtf(NAME(sum_squares)(a, D, 0) / (float)D + eps);
    if (!w) {
        NAME(scale)(y, x, s, D);
        return;
    }
    vf r = v_set(s);
    size_t i = 0;
    for (; i + LANES <= D; i += LANES) STORE(o + i, v_mul(v_mul(LOAD(a + i), r), load_f32(w + i)));
    if (i < D) STOREN(o + i, v_mul(v_mul(LOADN(a + i, D - i, v_zero()), r), loadn_f32(w + i, D - i, v_zero())), D - i);
}

// Sum of g w x.
static float NAME(weighted_dot)(const T *a, const T *g, const float *w, size_t D) {
    vf s0 = v_zero(), s1 = v_zero(), one = v_set(1.0f), zero = v_zero();
    size_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES) {
        s0 = v_fma(v_mul(LOAD(g + i), w ? load_f32(w + i) : one), LOAD(a + i), s0);
        s1 = v_fma(v_mul(LOAD(g + i + LANES), w ? load_f32(w + i + LANES) : one), LOAD(a + i + LANES), s1);
    }
    for (; i + LANES <= D; i += LANES) s0 = v_fma(v_mul(LOAD(g + i), w ? load_f32(w + i) : one), LOAD(a + i), s0);
    size_t n = D - i;
    if (n) s1 = v_fma(v_mul(LOADN(g + i, n, zero), w ? loadn_f32(w + i, n, zero) : one), LOADN(a + i, n, zero), s1);
    return v_sum(v_add(s0, s1));
}

static void NAME(rms_norm_grad)(void *y, const void *x, const void *gv, const float *w, size_t D, float eps) {
    const T *a = x, *g = gv;
    T *o = y;
    float scale = 1.0f / sqrtf(NAME(sum_squares)(a, D, 0) / (float)D + eps);
    vf r = v_set(scale), k = v_set(NAME(weighted_dot)(a, g, w, D) / (float)D * scale * scale), one = v_set(1.0f), zero = v_zero();
    size_t i = 0;
    for (; i + LANES <= D; i += LANES)
        STORE(o + i, v_mul(r, v_fnma(LOAD(a + i), k, v_mul(LOAD(g + i), w ? load_f32(w + i) : one))));
    size_t n = D - i;
    if (n) STOREN(o + i, v_mul(r, v_fnma(LOADN(a + i, n, zero), k, v_mul(LOADN(g + i, n, zero), w ? loadn_f32(w + i, n, zero) : one))), n);
}

// ---- softmax and its kin ----
// Greatest element; *nan tells of any NaN (the result is then meaningless).
static float NAME(row_max)(const T *a, size_t D, bool *nan) {
    vf low = v_set(-INFINITY), m0 = low, m1 = low;
    vmask odd = v_is_nan(low);
    size_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES) {
        vf x0 = LOAD(a + i), x1 = LOAD(a + i + LANES);
        m0 = v_max(x0, m0), m1 = v_max(x1, m1);
        odd = v_or(odd, v_or(v_is_nan(x0), v_is_nan(x1)));
    }
    for (; i < D; i += LANES) {
        vf x = D - i >= LANES ? LOAD(a + i) : LOADN(a + i, D - i, low);
        m0 = v_max(x, m0);
        odd = v_or(odd, v_is_nan(x));
    }
    *nan = v_bits(odd) != 0;
    return v_greatest(v_max(m0, m1));
}

static float NAME(exp_sum)(const T *a, size_t D, float max) {
    vf s0 = v_zero(), s1 = v_zero(), m = v_set(max);
    size_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES) {
        s0 = v_add(s0, v_exp(v_sub(LOAD(a + i), m)));
        s1 = v_add(s1, v_exp(v_sub(LOAD(a + i + LANES), m)));
    }
    for (; i < D; i += LANES)
        s0 = v_add(s0, v_exp(v_sub(D - i >= LANES ? LOAD(a + i) : LOADN(a + i, D - i, v_set(-INFINITY)), m)));
    return v_sum(v_add(s0, s1));
}

static void NAME(softmax)(void *y, const void *x, size_t D) {
    const T *a = x;
    T *o = y;
    bool nan;
    float max = NAME(row_max)(a, D, &nan);
    if (nan || !isfinite(max)) max = NAN;
    vf m = v_set(max), s = v_set(1.0f / NAME(exp_sum)(a, D, max));
    size_t i = 0;
    for (; i + LANES <= D; i += LANES) STORE(o + i, v_mul(v_exp(v_sub(LOAD(a + i), m)), s));
    if (i < D) STOREN(o + i, v_mul(v_exp(v_sub(LOADN(a + i, D - i, v_zero()), m)), s), D - i);
}

static void NAME(softmax_error)(void *y, const float *x, float lse, float weight, size_t D) {
    T *o = y;
    vf m = v_set(lse), w = v_set(weight);
    size_t i = 0;
    for (; i + LANES <= D; i += LANES) STORE(o + i, v_mul(v_exp(v_sub(load_f32(x + i), m)), w));
    if (i < D) STOREN(o + i, v_mul(v_exp(v_sub(loadn_f32(x + i, D - i, m), m)), w), D - i);
}

static float NAME(logsumexp)(const void *x, size_t D) {
    bool nan;
    float max = NAME(row_max)(x, D, &nan);
    if (nan) return NAN;
    return isfinite(max) ? max + logf(NAME(exp_sum)(x, D, max)) : max;
}

// First element that equals `max`, or, if nan, first NaN.
static size_t NAME(argmax)(const void *x, size_t D) {
    const T *a = x;
    bool nan;
    vf max = v_set(NAME(row_max)(a, D, &nan));
    for (size_t i = 0; i < D; i += LANES) {
        vf v = D - i >= LANES ? LOAD(a + i) : LOADN(a + i, D - i, v_set(-INFINITY));
        unsigned bits = v_bits(nan ? v_is_nan(v) : v_equal(v, max));
        if (bits) return i + (size_t)__builtin_ctz(bits);
    }
    return 0;
}

// ---- rope ----
static void NAME(rope_halves)(T *o, const T *a, const float *table, size_t half) {
    for (size_t i = 0; i < half; i += LANES) {
        size_t n = half - i;
        bool whole = n >= LANES;
        vf c = whole ? load_f32(table + i) : loadn_f32(table + i, n, v_zero());
        vf s = whole ? load_f32(table + half + i) : loadn_f32(table + half + i, n, v_zero());
        vf u = whole ? LOAD(a + i) : LOADN(a + i, n, v_zero()),
           v = whole ? LOAD(a + half + i) : LOADN(a + half + i, n, v_zero());
        vf p = v_fnma(v, s, v_mul(u, c)), q = v_fma(u, s, v_mul(v, c));
        if (whole)
            STORE(o + i, p), STORE(o + half + i, q);
        else
            STOREN(o + i, p, n), STOREN(o + half + i, q, n);
    }
}

static void NAME(rope_pairs)(T *o, const T *a, const float *table, size_t half) {
    for (size_t i = 0; i < half; i += LANES / 2) {
        size_t n = half - i < LANES / 2 ? half - i : LANES / 2;
        bool whole = n == LANES / 2;
        vf c = v_load_twice(table + i, n), s = v_negate_even(v_load_twice(table + half + i, n));
        vf x = whole ? LOAD(a + 2 * i) : LOADN(a + 2 * i, 2 * n, v_zero());
        x = v_fma(v_swap_pairs(x), s, v_mul(x, c));
        if (whole)
            STORE(o + 2 * i, x);
        else
            STOREN(o + 2 * i, x, 2 * n);
    }
}

static void NAME(rope)(void *y, const void *x, const float *table, size_t H, ptrdiff_t xs, size_t Dh, size_t dims,
                       int traditional) {
    for (size_t h = 0; h < H; h++) {
        const T *a = (const T *)x + (ptrdiff_t)h * xs;
        T *o = (T *)y + h * Dh;
        if (traditional)
            NAME(rope_pairs)(o, a, table, dims / 2);
        else
            NAME(rope_halves)(o, a, table, dims / 2);
        if (dims < Dh && o != a) memcpy(o + dims, a + dims, (Dh - dims) * sizeof(T));
    }
}

// ---- products with a thin side ----
// `rows` rows of x against `outs` rows of b.
static inline __attribute__((always_inline)) void NAME(dots_block)(const int rows, const int outs, float *y, const T *x, ptrdiff_t ldx,
                                                                   const float *b, size_t r, size_t k) {
    vf sum[2][4], w[4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < outs; j++) sum[i][j] = v_zero();
    for (size_t p = 0; p < k; p += LANES) {
        size_t left = k - p;
        for (int j = 0; j < outs; j++) w[j] = left >= LANES ? load_f32(b + (size_t)j * k + p) : loadn_f32(b + (size_t)j * k + p, left, v_zero());
        for (int i = 0; i < rows; i++) {
            const T *a = x + (ptrdiff_t)i * ldx + (ptrdiff_t)p;
            vf v = left >= LANES ? LOAD(a) : LOADN(a, left, v_zero());
            for (int j = 0; j < outs; j++) sum[i][j] = v_fma(v, w[j], sum[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < outs; j++) y[(size_t)i * r + (size_t)j] = v_sum(sum[i][j]);
}

static void NAME(thin_dots)(float *y, const void *xv, ptrdiff_t ldx, size_t m, const float *b, size_t r, size_t k) {
    const T *x = xv;
    for (size_t i = 0; i < m; i += 2) {
        const T *a = x + (ptrdiff_t)i * ldx;
        size_t j = 0;
        for (; i + 1 < m && j + 4 <= r; j += 4) NAME(dots_block)(2, 4, y + i * r + j, a, ldx, b + j * k, r, k);
        for (; i + 1 < m && j < r; j++) NAME(dots_block)(2, 1, y + i * r + j, a, ldx, b + j * k, r, k);
        for (; j + 4 <= r; j += 4) NAME(dots_block)(1, 4, y + i * r + j, a, ldx, b + j * k, r, k);
        for (; j < r; j++) NAME(dots_block)(1, 1, y + i * r + j, a, ldx, b + j * k, r, k);
    }
}

static inline __attribute__((always_inline)) void NAME(outer_block)(const int rows, T *y, size_t ldy, const float *z, const float *b, size_t r,
                                                                    size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        size_t left = n - i;
        vf sum[4];
        for (int q = 0; q < rows; q++) sum[q] = v_zero();
        for (size_t j = 0; j < r; j++) {
            vf v = left >= LANES ? load_f32(b + j * n + i) : loadn_f32(b + j * n + i, left, v_zero());
            for (int q = 0; q < rows; q++) sum[q] = v_fma(v_set(z[(size_t)q * r + j]), v, sum[q]);
        }
        for (int q = 0; q < rows; q++) {
            if (left >= LANES) STORE(y + (size_t)q * ldy + i, sum[q]);
            else STOREN(y + (size_t)q * ldy + i, sum[q], left);
        }
    }
}

static void NAME(thin_outer)(void *y, size_t ldy, const float *z, size_t m, const float *b, size_t r, size_t n) {
    size_t i = 0;
    for (; i + 4 <= m; i += 4) NAME(outer_block)(4, (T *)y + i * ldy, ldy, z + i * r, b, r, n);
    for (; i < m; i++) NAME(outer_block)(1, (T *)y + i * ldy, ldy, z + i * r, b, r, n);
}

static inline __attribute__((always_inline)) void NAME(sums_block)(const int outs, float *y, const float *z, size_t r, const T *x, ptrdiff_t ldx,
                                                                   size_t k, size_t n, size_t left) {
    vf sum[4][2];
    for (int j = 0; j < outs; j++) sum[j][0] = sum[j][1] = v_zero();
    for (size_t p = 0; p < k; p++, x += ldx, z += r) {
        vf u = left >= LANES ? LOAD(x) : LOADN(x, left, v_zero()), v = v_zero();
        if (left >= 2 * LANES) v = LOAD(x + LANES);
        else if (left > LANES) v = LOADN(x + LANES, left - LANES, v_zero());
        for (int j = 0; j < outs; j++) sum[j][0] = v_fma(v_set(z[j]), u, sum[j][0]), sum[j][1] = v_fma(v_set(z[j]), v, sum[j][1]);
    }
    for (int j = 0; j < outs; j++, y += n) {
        if (left >= LANES) store_f32(y, sum[j][0]);
        else storen_f32(y, sum[j][0], left);
        if (left >= 2 * LANES) store_f32(y + LANES, sum[j][1]);
        else if (left > LANES) storen_f32(y + LANES, sum[j][1], left - LANES);
    }
}

static void NAME(thin_sums)(float *y, const float *z, size_t r, const void *xv, ptrdiff_t ldx, size_t k, size_t n) {
    const T *x = xv;
    for (size_t i = 0; i < n; i += 2 * LANES) {
        size_t j = 0;
        for (; j + 4 <= r; j += 4) NAME(sums_block)(4, y + j * n + i, z + j, r, x + i, ldx, k, n, n - i);
        for (; j < r; j++) NAME(sums_block)(1, y + j * n + i, z + j, r, x + i, ldx, k, n, n - i);
    }
}

// ---- low-rank additions: tiles of 16 outputs; several rows share what they read of b ----
static inline __attribute__((always_inline)) void NAME(low_rank_block)(const int rows, float *c, size_t ldc, const float *z, size_t ldz, const T *b,
                                                                       size_t rank) {
    enum { VECTORS = 16 / LANES };
    vf sum[4][VECTORS];
    for (int q = 0; q < rows; q++)
        for (int v = 0; v < VECTORS; v++) sum[q][v] = load_f32(c + (size_t)q * ldc + (size_t)v * LANES);
    for (size_t j = 0; j < rank; j++)
        for (int v = 0; v < VECTORS; v++) {
            vf w = LOAD(b + j * 16 + (size_t)v * LANES);
            for (int q = 0; q < rows; q++) sum[q][v] = v_fma(v_set(z[j * ldz + (size_t)q]), w, sum[q][v]);
        }
    for (int q = 0; q < rows; q++)
        for (int v = 0; v < VECTORS; v++) store_f32(c + (size_t)q * ldc + (size_t)v * LANES, sum[q][v]);
}

static void NAME(low_rank)(float *c, size_t ldc, const float *z, size_t rows, const void *bv, size_t rank, size_t tiles, size_t apart) {
    const T *b = bv;
    for (size_t t = 0; t < tiles; t++, b += apart * rank * 16, c += apart * 16) {
        size_t q = 0;
        for (; q + 4 <= rows; q += 4) NAME(low_rank_block)(4, c + q * ldc, ldc, z + q, rows, b, rank);
        for (; q < rows; q++) NAME(low_rank_block)(1, c + q * ldc, ldc, z + q, rows, b, rank);
    }
}

static void NAME(fill_rows)(mica_cpu_rows_isa *isa) {
    isa->to_f32[TYPE] = NAME(to_f32), isa->from_f32[TYPE] = NAME(from_f32);
    isa->store_sums[TYPE] = NAME(store_sums);
    isa->store_gated[0][TYPE] = NAME(gated_swiglu), isa->store_gated[1][TYPE] = NAME(gated_geglu);
    isa->unary[MICA_CPU_EXP][TYPE] = NAME(exp);
    isa->unary[MICA_CPU_SIGMOID][TYPE] = NAME(sigmoid);
    isa->unary[MICA_CPU_SILU][TYPE] = NAME(silu);
    isa->unary[MICA_CPU_GELU][TYPE] = NAME(gelu);
    isa->unary[MICA_CPU_GELU_TANH][TYPE] = NAME(gelu_tanh);
    isa->unary[MICA_CPU_TANH][TYPE] = NAME(tanh);
    isa->binary[MICA_CPU_ADD][TYPE] = NAME(add);
    isa->binary[MICA_CPU_SUB][TYPE] = NAME(sub);
    isa->binary[MICA_CPU_MUL][TYPE] = NAME(mul);
    isa->binary[MICA_CPU_DIV][TYPE] = NAME(div);
    isa->binary[MICA_CPU_SWIGLU][TYPE] = NAME(swiglu);
    isa->binary[MICA_CPU_GEGLU][TYPE] = NAME(geglu);
    isa->scale[TYPE] = NAME(scale);
    isa->rms_norm[TYPE] = NAME(rms_norm), isa->layer_norm[TYPE] = NAME(layer_norm);
    isa->rms_norm_grad[TYPE] = NAME(rms_norm_grad), isa->softmax_error[TYPE] = NAME(softmax_error);
    isa->gated_grad[0][TYPE] = NAME(grad_swiglu), isa->gated_grad[1][TYPE] = NAME(grad_geglu);
    isa->thin_dots[TYPE] = NAME(thin_dots), isa->thin_outer[TYPE] = NAME(thin_outer), isa->thin_sums[TYPE] = NAME(thin_sums);
    isa->low_rank[TYPE] = NAME(low_rank);
    isa->softmax[TYPE] = NAME(softmax), isa->logsumexp[TYPE] = NAME(logsumexp), isa->argmax[TYPE] = NAME(argmax);
    isa->rope[TYPE] = NAME(rope);
}
