// SPDX-License-Identifier: Apache-2.0
// Raw row and attention kernels of one instruction-set level (see isa.h for the rules). Entries that exist once per
// type are arrays indexed by mica_dtype: [MICA_F32], [MICA_F16], [MICA_BF16]. Arithmetic is f32 and every output is
// rounded once. Element i of a row never depends on where the row lies or on what stands beside it, and outputs may
// be the input itself (not a shifted part of it).
#ifndef MICA_DEVICE_CPU_ISA_ROWS_H
#define MICA_DEVICE_CPU_ISA_ROWS_H

#include "mica/dtype.h"
#include <stddef.h>
#include <stdint.h>

/** f32, f16, bf16: the first members of mica_dtype. */
enum { MICA_CPU_FLOATS = 3 };
static inline int mica_cpu_is_short(mica_dtype dtype) { return (int)dtype < MICA_CPU_FLOATS; }

typedef enum mica_cpu_unary {
    MICA_CPU_EXP,
    MICA_CPU_SIGMOID,
    MICA_CPU_SILU,
    MICA_CPU_GELU,      // x * Phi(x), by erf
    MICA_CPU_GELU_TANH, // the tanh approximation
    MICA_CPU_TANH,
    MICA_CPU_UNARIES
} mica_cpu_unary;

typedef enum mica_cpu_binary {
    MICA_CPU_ADD,
    MICA_CPU_SUB,
    MICA_CPU_MUL,
    MICA_CPU_DIV,
    MICA_CPU_SWIGLU, // silu(a) * b
    MICA_CPU_GEGLU,  // gelu_tanh(a) * b
    MICA_CPU_BINARIES
} mica_cpu_binary;

/** y[i] = f(x[i]). */
typedef void mica_cpu_unary_fn(void *y, const void *x, size_t n);
/** y[i] = f(a[i], b[i]). */
typedef void mica_cpu_binary_fn(void *y, const void *a, const void *b, size_t n);
/** y[i] = x[i] * s. */
typedef void mica_cpu_scale_fn(void *y, const void *x, float s, size_t n);

/** Of f(a) * b, for its cotangent g: da[i] = g[i] b[i] f'(a[i]), db[i] = g[i] f(a[i]). */
typedef void mica_cpu_gated_grad_fn(void *da, void *db, const void *a, const void *b, const void *g, size_t n);

enum { MICA_CPU_GATED = 16 }; // gates, or ups, in a block of a gated product
/** y[r*ldy + 16*b + i] = f(gate, up) of element r*ldc + b*step + i of each. */
typedef void mica_cpu_gated_fn(void *y, size_t ldy, const float *gate, const float *up, size_t ldc, size_t step, size_t rows,
                               size_t blocks);

/** Keys in a packed block of attention; a block starts at a multiple of this position. */
enum { MICA_CPU_KEYS = 64 };
/** Head size as packed queries, keys and values store it; the padding is zero. */
static inline size_t mica_cpu_head_pad(size_t Dh) { return (Dh + 31) & ~(size_t)31; }

/** One step of streaming softmax attention: R query rows meet one block of keys. The layout behind q, k and v is the
 * level's own, written by its pack functions; each takes at most 4 * mica_cpu_head_pad(Dh) bytes a row. */
typedef struct mica_cpu_flash {
    size_t R, Dp;           // rows; mica_cpu_head_pad(Dh)
    const void *q, *k, *v;  // packed: R rows, MICA_CPU_KEYS keys, as many values
    const int32_t *lo, *hi; // [R] row r sees keys lo[r] <= j < hi[r] of the block
    const float *bias;      // [R, MICA_CPU_KEYS] added to the scaled scores; NULL = none
    float scale;
    float *scores; // [R, MICA_CPU_KEYS] workspace, 64-byte aligned
    float *m, *l;  // [R] running maximum (start: -inf) and sum of weights (start: 0)
    float *acc;    // [R, Dp] running sum of weighted values (start: 0), 64-byte aligned
} mica_cpu_flash;

/** The gradient of a block of MICA_CPU_KEYS queries of one head by all the keys they see. With weights P = softmax of the scaled scores and
 * W = g vᵀ: dv += Pᵀ g; S = scale * P * (W - rowsum(P * W)); dk += Sᵀ q; dq = S k. q and g are packed twice, as keys (sums along the head) and as
 * values (sums along the queries); keys and values as queries, keys also as the values of consecutive blocks. */
typedef struct mica_cpu_flash_grad {
    size_t Dp, keys;              // mica_cpu_head_pad(Dh); keys at hand
    const void *q, *g;            // [MICA_CPU_KEYS] by pack_keys
    const void *q_rows, *g_rows;  // [MICA_CPU_KEYS] by pack_values
    const void *k, *v;            // [keys] by pack_query
    const void *k_rows;           // [keys, rounded up to a pair] by pack_values
    const int32_t *lo, *hi;       // [MICA_CPU_KEYS] query r sees keys lo[r] <= j < hi[r]; neither falls from a query to the next
    float scale;
    float *p, *w;          // [keys, MICA_CPU_KEYS] each: workspace, 64-byte aligned
    float *turned;         // half of that, from an even number of keys; where pack_size is 4, none
    float *dq;             // [MICA_CPU_KEYS, Dp]
    float *dk, *dv;        // [keys, Dp]
} mica_cpu_flash_grad;

typedef struct mica_cpu_rows_isa {
    // ---- conversion and elementwise rows, contiguous; [type] ----
    void (*to_f32[MICA_CPU_FLOATS])(float *y, const void *x, size_t n);
    void (*from_f32[MICA_CPU_FLOATS])(void *y, const float *x, size_t n);
    /** The sums of a product: y [rows, n] = c [rows, n], rows ldy and ldc elements apart. */
    void (*store_sums[MICA_CPU_FLOATS])(void *y, size_t ldy, const float *c, size_t ldc, size_t rows, size_t n);
    mica_cpu_gated_fn *store_gated[2][MICA_CPU_FLOATS]; // [swiglu, geglu]
    mica_cpu_unary_fn *unary[MICA_CPU_UNARIES][MICA_CPU_FLOATS];
    mica_cpu_binary_fn *binary[MICA_CPU_BINARIES][MICA_CPU_FLOATS];
    mica_cpu_scale_fn *scale[MICA_CPU_FLOATS];
    mica_cpu_gated_grad_fn *gated_grad[2][MICA_CPU_FLOATS]; // [swiglu, geglu]

    // ---- products with a thin side, in f32; r and the rows of z and b lie densely ----
    /** y [m][r] = x [m][k] · b [r][k]ᵀ, rows of x ldx elements apart. A row's result does not depend on m. */
    void (*thin_dots[MICA_CPU_FLOATS])(float *y, const void *x, ptrdiff_t ldx, size_t m, const float *b, size_t r, size_t k);
    /** y [m][n] = z [m][r] · b [r][n], rows of y ldy elements apart. The same. */
    void (*thin_outer[MICA_CPU_FLOATS])(void *y, size_t ldy, const float *z, size_t m, const float *b, size_t r, size_t n);
    /** y [r][n] = z [k][r]ᵀ · x [k][n], rows of x ldx elements apart. */
    void (*thin_sums[MICA_CPU_FLOATS])(float *y, const float *z, size_t r, const void *x, ptrdiff_t ldx, size_t k, size_t n);
    /** c[q*ldc + t*apart*16 + i] += sum over j < rank, in its order, of z[j*rows + q] · b[(t*apart*rank + j)*16 + i]: `tiles` tiles of 16 outputs, each
     * apart-th, of `rows` rows. A row's result depends on no other. */
    void (*low_rank[MICA_CPU_FLOATS])(float *c, size_t ldc, const float *z, size_t rows, const void *b, size_t rank, size_t tiles, size_t apart);

    /** As mica_adam_step (engine/node.h) says, numbers by mica_adam_number; n elements. The same bits at every level. */
    void (*adam_step)(float *p, const float *g, float *m, float *v, const float *numbers, size_t n);

    // ---- one row of D elements ----
    /** y = x / sqrt(mean(x²) + eps) * w; w NULL = 1. */
    void (*rms_norm[MICA_CPU_FLOATS])(void *y, const void *x, const float *w, size_t D, float eps);
    /** Of rms_norm by x: y = r (h - n mean(h n)), h = g w, n = x r, r = 1 / sqrt(mean(x²) + eps); w NULL = 1. */
    void (*rms_norm_grad[MICA_CPU_FLOATS])(void *y, const void *x, const void *g, const float *w, size_t D, float eps);
    /** y = (x - mean) / sqrt(var + eps) * w + b; w NULL = 1, b NULL = 0. */
    void (*layer_norm[MICA_CPU_FLOATS])(void *y, const void *x, const float *w, const float *b, size_t D, float eps);
    /** A row of -inf, or one holding NaN or +inf, becomes NaN. */
    void (*softmax[MICA_CPU_FLOATS])(void *y, const void *x, size_t D);
    /** A row of -inf gives -inf; one holding +inf gives +inf; NaN wins over both. */
    float (*logsumexp[MICA_CPU_FLOATS])(const void *x, size_t D);
    /** y = exp(x - lse) * weight. */
    void (*softmax_error[MICA_CPU_FLOATS])(void *y, const float *x, float lse, float weight, size_t D);
    /** Lowest index of the greatest element; the first NaN, if there is one, counts as the greatest. D > 0. */
    size_t (*argmax[MICA_CPU_FLOATS])(const void *x, size_t D);
    /** One token: H heads of Dh elements, xs elements apart in x and contiguous in y. table: cos [dims/2], sin
     * [dims/2]. The pair (i, i + dims/2), or (2i, 2i + 1) if traditional, is rotated; elements from dims on are copied.
     */
    void (*rope[MICA_CPU_FLOATS])(void *y, const void *x, const float *table, size_t H, ptrdiff_t xs, size_t Dh,
                                  size_t dims, int traditional);

    // ---- attention; [type of q, k and v] ----
    /** One query row of Dh elements into the level's form, mica_cpu_head_pad(Dh) * pack_size[type] bytes. */
    void (*pack_query[MICA_CPU_FLOATS])(void *packed, const void *q, size_t Dh);
    size_t pack_size[MICA_CPU_FLOATS]; // bytes of an element of a packed query, key or value: 2 or 4
    /** n rows of Dh elements, `stride` elements apart, into slots at … at + n - 1 of a zeroed packed block. */
    void (*pack_keys[MICA_CPU_FLOATS])(void *packed, const void *k, ptrdiff_t stride, size_t at, size_t n, size_t Dh);
    void (*pack_values[MICA_CPU_FLOATS])(void *packed, const void *v, ptrdiff_t stride, size_t at, size_t n, size_t Dh);
    void (*flash[MICA_CPU_FLOATS])(const mica_cpu_flash *block);
    void (*flash_grad[MICA_CPU_FLOATS])(const mica_cpu_flash_grad *block);
    /** Few queries against contiguous rows: s[g * ss + j] = scale * q[g]·k[j]; q packed, k [n, Dh]. */
    void (*scores[MICA_CPU_FLOATS])(float *s, size_t ss, const void *q, const void *k, size_t G, size_t n, size_t Dh,
                                    float scale);
    /** acc[g * Dh + d] += sum over j of p[g * ps + j] * v[j * Dh + d]. */
    void (*values[MICA_CPU_FLOATS])(float *acc, const float *p, size_t ps, const void *v, size_t G, size_t n,
                                    size_t Dh);
    /** Raises *max to the greatest of s if that is more, then s = exp(s - *max) in place; returns the sum. *max = -inf
     * afterwards means that all were: zeros, sum 0. A level may round the weights to the type, and sums them rounded.
     */
    float (*weights[MICA_CPU_FLOATS])(float *s, size_t n, float *max);

    // ---- attention over 8-bit codes: a row is scale * codes; [type of q] where queries or weights take part ----
    /** Nearest codes in -127 … 127; returns the scale (NaN if an element is not finite). */
    float (*to_codes)(int8_t *codes, const float *x, size_t n);
    void (*from_codes)(float *y, const int8_t *codes, float scale, size_t n);
    /** One query row into the level's form, 4 * mica_cpu_head_pad(Dh) bytes. */
    void (*pack_query_codes[MICA_CPU_FLOATS])(void *packed, const void *q, size_t Dh);
    /** As scores and values, of the codes alone. A level may round weights to 2^-16 of the greatest of the call. */
    void (*scores_codes[MICA_CPU_FLOATS])(float *s, size_t ss, const void *q, const void *k, size_t G, size_t n, size_t Dh,
                                          float scale);
    void (*values_codes[MICA_CPU_FLOATS])(float *acc, const float *p, size_t ps, const void *v, size_t G, size_t n,
                                          size_t Dh);
} mica_cpu_rows_isa;

#if defined(__x86_64__)
// The attention part of a level, called by its mica_cpu_<level>_rows (isa.h).
void mica_cpu_avx2_attention(mica_cpu_rows_isa *isa);
void mica_cpu_avx512vnni_attention(mica_cpu_rows_isa *isa);
void mica_cpu_avx512_codes(mica_cpu_rows_isa *isa);
void mica_cpu_amx_attention(mica_cpu_rows_isa *isa);
#elif defined(__aarch64__)
void mica_cpu_neon_attention(mica_cpu_rows_isa *isa);
#endif
#endif
