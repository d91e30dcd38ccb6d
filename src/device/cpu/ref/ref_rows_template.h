// SPDX-License-Identifier: Apache-2.0
// Row kernels in plain C for one element type. Included once per type with
//   T          element type,  NAME(f)  name of the instance,
//   GET(v)     T -> float,    PUT(v)   float -> T.
// No include guard: it is a template.

static void NAME(to_f32)(float *y, const void *x, size_t n) {
    const T *a = x;
    for (size_t i = 0; i < n; i++) y[i] = GET(a[i]);
}

static void NAME(from_f32)(void *y, const float *x, size_t n) {
    T *o = y;
    for (size_t i = 0; i < n; i++) o[i] = PUT(x[i]);
}

static void NAME(store_sums)(void *y, size_t ldy, const float *c, size_t ldc, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) NAME(from_f32)((T *)y + r * ldy, c + r * ldc, n);
}

#define GATED(f)                                                                                                       \
    static void NAME(gated_##f)(void *y, size_t ldy, const float *gate, const float *up, size_t ldc, size_t step,      \
                                size_t rows, size_t blocks) {                                                          \
        for (size_t r = 0; r < rows; r++)                                                                              \
            for (size_t b = 0; b < blocks; b++)                                                                        \
                for (size_t i = 0; i < MICA_CPU_GATED; i++)                                                            \
                    ((T *)y)[r * ldy + b * MICA_CPU_GATED + i] =                                                       \
                        PUT(two_##f(gate[r * ldc + b * step + i], up[r * ldc + b * step + i]));                        \
    }
GATED(swiglu)
GATED(geglu)
#undef GATED

#define UNARY(f)                                                                                                       \
    static void NAME(f)(void *y, const void *x, size_t n) {                                                            \
        const T *a = x;                                                                                                \
        T *o = y;                                                                                                      \
        for (size_t i = 0; i < n; i++) o[i] = PUT(one_##f(GET(a[i])));                                                 \
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
        for (size_t i = 0; i < n; i++) o[i] = PUT(two_##f(GET(a[i]), GET(b[i])));                                      \
    }
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
BINARY(swiglu)
BINARY(geglu)
#undef BINARY

#define GATED_GRAD(f)                                                                                                  \
    static void NAME(grad_##f)(void *da, void *db, const void *av, const void *bv, const void *gv, size_t n) {         \
        const T *a = av, *b = bv, *g = gv;                                                                             \
        for (size_t i = 0; i < n; i++) {                                                                               \
            float x = GET(a[i]), c = GET(g[i]);                                                                        \
            ((T *)da)[i] = PUT(c * GET(b[i]) * slope_##f(x));                                                          \
            ((T *)db)[i] = PUT(two_##f(x, c));                                                                         \
        }                                                                                                              \
    }
GATED_GRAD(swiglu)
GATED_GRAD(geglu)
#undef GATED_GRAD

static void NAME(scale)(void *y, const void *x, float s, size_t n) {
    const T *a = x;
    T *o = y;
    for (size_t i = 0; i < n; i++) o[i] = PUT(GET(a[i]) * s);
}

static void NAME(thin_dots)(float *y, const void *x, ptrdiff_t ldx, size_t m, const float *b, size_t r, size_t k) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < r; j++) {
            const T *a = (const T *)x + (ptrdiff_t)i * ldx;
            float sum = 0;
            for (size_t p = 0; p < k; p++) sum += GET(a[p]) * b[j * k + p];
            y[i * r + j] = sum;
        }
}

static void NAME(thin_outer)(void *y, size_t ldy, const float *z, size_t m, const float *b, size_t r, size_t n) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t p = 0; p < r; p++) sum += z[i * r + p] * b[p * n + j];
            ((T *)y)[i * ldy + j] = PUT(sum);
        }
}

static void NAME(thin_sums)(float *y, const float *z, size_t r, const void *x, ptrdiff_t ldx, size_t k, size_t n) {
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t p = 0; p < k; p++) sum += z[p * r + i] * GET(((const T *)x)[(ptrdiff_t)p * ldx + (ptrdiff_t)j]);
            y[i * n + j] = sum;
        }
}

static void NAME(low_rank)(float *c, size_t ldc, const float *z, size_t rows, const void *b, size_t rank, size_t tiles, size_t apart) {
    for (size_t q = 0; q < rows; q++)
        for (size_t t = 0; t < tiles; t++)
            for (size_t i = 0; i < 16; i++)
                for (size_t j = 0; j < rank; j++) c[q * ldc + t * apart * 16 + i] += z[j * rows + q] * GET(((const T *)b)[(t * apart * rank + j) * 16 + i]);
}

static void NAME(rms_norm)(void *y, const void *x, const float *w, size_t D, float eps) {
    const T *a = x;
    T *o = y;
    float sum = 0;
    for (size_t i = 0; i < D; i++) sum += GET(a[i]) * GET(a[i]);
    float r = 1.0f / sqrtf(sum / (float)D + eps);
    for (size_t i = 0; i < D; i++) o[i] = PUT(GET(a[i]) * r * (w ? w[i] : 1.0f));
}

static void NAME(rms_norm_grad)(void *y, const void *x, const void *gv, const float *w, size_t D, float eps) {
    const T *a = x, *g = gv;
    T *o = y;
    float sum = 0, dot = 0;
    for (size_t i = 0; i < D; i++) sum += GET(a[i]) * GET(a[i]), dot += GET(g[i]) * (w ? w[i] : 1.0f) * GET(a[i]);
    float r = 1.0f / sqrtf(sum / (float)D + eps), mean = dot / (float)D * r;
    for (size_t i = 0; i < D; i++) o[i] = PUT(r * (GET(g[i]) * (w ? w[i] : 1.0f) - GET(a[i]) * r * mean));
}

static void NAME(layer_norm)(void *y, const void *x, const float *w, const float *b, size_t D, float eps) {
    const T *a = x;
    T *o = y;
    float sum = 0, squares = 0;
    for (size_t i = 0; i < D; i++) sum += GET(a[i]);
    float mean = sum / (float)D;
    for (size_t i = 0; i < D; i++) squares += (GET(a[i]) - mean) * (GET(a[i]) - mean);
    float r = 1.0f / sqrtf(squares / (float)D + eps);
    for (size_t i = 0; i < D; i++) o[i] = PUT((GET(a[i]) - mean) * r * (w ? w[i] : 1.0f) + (b ? b[i] : 0.0f));
}

// The greatest element; NaN if there is one.
static float NAME(row_max)(const T *a, size_t D) {
    float max = -INFINITY;
    for (size_t i = 0; i < D; i++)
        if (!(GET(a[i]) <= max)) max = GET(a[i]);
    return max;
}

static void NAME(softmax)(void *y, const void *x, size_t D) {
    const T *a = x;
    T *o = y;
    float max = NAME(row_max)(a, D), sum = 0;
    for (size_t i = 0; i < D; i++) sum += expf(GET(a[i]) - max);
    for (size_t i = 0; i < D; i++) o[i] = PUT(expf(GET(a[i]) - max) / sum);
}

static void NAME(softmax_error)(void *y, const float *x, float lse, float weight, size_t D) {
    T *o = y;
    for (size_t i = 0; i < D; i++) o[i] = PUT(expf(x[i] - lse) * weight);
}

static float NAME(logsumexp)(const void *x, size_t D) {
    const T *a = x;
    float max = NAME(row_max)(a, D), sum = 0;
    if (!isfinite(max)) return max;
    for (size_t i = 0; i < D; i++) sum += expf(GET(a[i]) - max);
    return max + logf(sum);
}

static size_t NAME(argmax)(const void *x, size_t D) {
    const T *a = x;
    size_t best = 0;
    for (size_t i = 0; i < D; i++) {
        if (isnan(GET(a[i]))) return i;
        if (GET(a[i]) > GET(a[best])) best = i;
    }
    return best;
}

static void NAME(rope)(void *y, const void *x, const float *table, size_t H, ptrdiff_t xs, size_t Dh, size_t dims,
                       int traditional) {
    size_t half = dims / 2;
    for (size_t h = 0; h < H; h++) {
        const T *a = (const T *)x + (ptrdiff_t)h * xs;
        T *o = (T *)y + h * Dh;
        for (size_t i = 0; i < half; i++) {
            size_t p = traditional ? 2 * i : i, q = traditional ? 2 * i + 1 : i + half;
            float c = table[i], s = table[half + i], u = GET(a[p]), v = GET(a[q]);
            o[p] = PUT(u * c - v * s);
            o[q] = PUT(u * s + v * c);
        }
        for (size_t i = 2 * half; i < Dh; i++) o[i] = a[i];
    }
}

// ---- attention: packed rows are f32, head size padded with zeros ----
static void NAME(pack_query)(void *packed, const void *q, size_t Dh) {
    float *o = packed;
    const T *a = q;
    for (size_t d = 0; d < mica_cpu_head_pad(Dh); d++) o[d] = d < Dh ? GET(a[d]) : 0.0f;
}

static void NAME(pack_rows)(void *packed, const void *x, ptrdiff_t stride, size_t at, size_t n, size_t Dh) {
    size_t Dp = mica_cpu_head_pad(Dh);
    for (size_t j = 0; j < n; j++)
        NAME(pack_query)((float *)packed + (at + j) * Dp, (const T *)x + (ptrdiff_t)j * stride, Dh);
}

static void NAME(scores)(float *s, size_t ss, const void *q, const void *k, size_t G, size_t n, size_t Dh,
                         float scale) {
    const T *b = k;
    for (size_t g = 0; g < G; g++) {
        const float *a = (const float *)q + g * mica_cpu_head_pad(Dh);
        for (size_t j = 0; j < n; j++) {
            float dot = 0;
            for (size_t d = 0; d < Dh; d++) dot += a[d] * GET(b[j * Dh + d]);
            s[g * ss + j] = dot * scale;
        }
    }
}

static void NAME(values)(float *acc, const float *p, size_t ps, const void *v, size_t G, size_t n, size_t Dh) {
    const T *b = v;
    for (size_t g = 0; g < G; g++)
        for (size_t j = 0; j < n; j++)
            for (size_t d = 0; d < Dh; d++) acc[g * Dh + d] += p[g * ps + j] * GET(b[j * Dh + d]);
}

static void NAME(fill)(mica_cpu_rows_isa *isa, mica_dtype t) {
    isa->to_f32[t] = NAME(to_f32), isa->from_f32[t] = NAME(from_f32);
    isa->store_sums[t] = NAME(store_sums);
    isa->store_gated[0][t] = NAME(gated_swiglu), isa->store_gated[1][t] = NAME(gated_geglu);
    isa->unary[MICA_CPU_EXP][t] = NAME(exp);
    isa->unary[MICA_CPU_SIGMOID][t] = NAME(sigmoid);
    isa->unary[MICA_CPU_SILU][t] = NAME(silu);
    isa->unary[MICA_CPU_GELU][t] = NAME(gelu);
    isa->unary[MICA_CPU_GELU_TANH][t] = NAME(gelu_tanh);
    isa->unary[MICA_CPU_TANH][t] = NAME(tanh);
    isa->binary[MICA_CPU_ADD][t] = NAME(add);
    isa->binary[MICA_CPU_SUB][t] = NAME(sub);
    isa->binary[MICA_CPU_MUL][t] = NAME(mul);
    isa->binary[MICA_CPU_DIV][t] = NAME(div);
    isa->binary[MICA_CPU_SWIGLU][t] = NAME(swiglu);
    isa->binary[MICA_CPU_GEGLU][t] = NAME(geglu);
    isa->scale[t] = NAME(scale);
    isa->rms_norm[t] = NAME(rms_norm), isa->layer_norm[t] = NAME(layer_norm);
    isa->rms_norm_grad[t] = NAME(rms_norm_grad), isa->softmax_error[t] = NAME(softmax_error);
    isa->gated_grad[0][t] = NAME(grad_swiglu), isa->gated_grad[1][t] = NAME(grad_geglu);
    isa->thin_dots[t] = NAME(thin_dots), isa->thin_outer[t] = NAME(thin_outer), isa->thin_sums[t] = NAME(thin_sums);
    isa->low_rank[t] = NAME(low_rank);
    isa->softmax[t] = NAME(softmax), isa->logsumexp[t] = NAME(logsumexp), isa->argmax[t] = NAME(argmax);
    isa->rope[t] = NAME(rope);
    isa->pack_query[t] = isa->pack_query_codes[t] = NAME(pack_query), isa->pack_size[t] = sizeof(float);
    isa->pack_keys[t] = NAME(pack_rows), isa->pack_values[t] = NAME(pack_rows);
    isa->flash[t] = flash, isa->flash_grad[t] = flash_grad;
    isa->scores[t] = NAME(scores), isa->values[t] = NAME(values), isa->weights[t] = weights;
}

#undef T
#undef NAME
#undef GET
#undef PUT
