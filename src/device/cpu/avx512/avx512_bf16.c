// SPDX-License-Identifier: Apache-2.0
// Dense bf16 with vdpbf16ps: gemm over panels [k/2][columns][2], packing of dense weights into them, and dot products of
// few rows. The instruction multiplies pairs of bf16 exactly and adds both products to an f32 lane.
#if defined(__x86_64__)
#include "device/cpu/avx512/bf16.h"
#include "device/cpu/avx512vnni/v16.h"
#include "device/cpu/ref/ref_matmul.h"
#include <string.h>

// 8 × 3 sums fill 24 of 32 registers: three panel vectors, one broadcast of x, the rest in flight.
enum { ROWS = 8, VECTORS = 3, COLUMNS = 16 * VECTORS };

// ---- gemm ------------------------------------------------------------------------------------------
V16_INLINE __m512bh pair(const uint16_t *x) {
    int v;
    memcpy(&v, x, 4);
    return (__m512bh)_mm512_set1_epi32(v);
}

// Three vectors of sums as 48 values of the result. No sum is subnormal, which vdpbf16ps flushes, so the conversion that flushes them too is exact.
V16_INLINE void store_row(mica_dtype type, unsigned char *out, const __m512 sum[VECTORS]) {
    if (type == MICA_F32) {
#pragma GCC unroll 3
        for (int j = 0; j < VECTORS; j++) _mm512_storeu_ps((float *)(void *)out + 16 * j, sum[j]);
    } else {
        _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(sum[1], sum[0]));
        _mm256_storeu_si256((void *)(out + 64), (__m256i)_mm512_cvtneps_pbh(sum[2]));
    }
}

// The sums start at zero or at c's; they go to c, or out as the result.
typedef struct sums {
    float *c;
    bool first;
    mica_dtype type;
    unsigned char *out;
    ptrdiff_t row; // bytes between rows of out
} sums;

V16_INLINE void gemm_block(const int rows, size_t k, const uint16_t *a, ptrdiff_t lda, const uint16_t *panel, const sums *s, size_t at) {
    float *c = s->c + at * COLUMNS;
    __m512 sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < VECTORS; j++) sum[i][j] = s->first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + i * COLUMNS + 16 * j);
    for (size_t p = 0; p < k; p += 2, panel += 2 * COLUMNS) {
        __m512bh w[VECTORS];
#pragma GCC unroll 3
        for (int j = 0; j < VECTORS; j++) w[j] = (__m512bh)_mm512_loadu_si512(panel + 32 * j);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            __m512bh x = pair(a + i * lda + (ptrdiff_t)p);
#pragma GCC unroll 3
            for (int j = 0; j < VECTORS; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], w[j], x);
        }
    }
    if (s->out) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) store_row(s->type, s->out + ((ptrdiff_t)at + i) * s->row, sum[i]);
        return;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < VECTORS; j++) _mm512_storeu_ps(c + i * COLUMNS + 16 * j, sum[i][j]);
}

static void gemm_rows(size_t m, size_t k, const uint16_t *a, ptrdiff_t lda, const void *panel, const sums *s) {
    size_t i = 0;
    for (; i + ROWS <= m; i += ROWS) gemm_block(ROWS, k, a + (ptrdiff_t)i * lda, lda, panel, s, i);
    if (i + 4 <= m) gemm_block(4, k, a + (ptrdiff_t)i * lda, lda, panel, s, i), i += 4;
    if (i + 2 <= m) gemm_block(2, k, a + (ptrdiff_t)i * lda, lda, panel, s, i), i += 2;
    if (i < m) gemm_block(1, k, a + (ptrdiff_t)i * lda, lda, panel, s, i);
}

void mica_cpu_avx512_gemm_bf16(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first, bool again) {
    (void)again;
    gemm_rows(m, k, x, lda, panel, &(sums){.c = c, .first = first});
}

void mica_cpu_avx512_gemm_out_bf16(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first, mica_dtype type,
                                   void *out, size_t ldo) {
    gemm_rows(m, k, x, lda, panel, &(sums){.c = c, .first = first, .type = type, .out = out, .row = (ptrdiff_t)(ldo * mica_dtype_size(type))});
}

// ---- dense panels ------------------------------------------------------------------------------------
// Sixteen bf16 rows [n][k], unit stride along k: dwords are pairs already, so this is a transposition of dwords.
static void panel_rows(const uint16_t *w, ptrdiff_t ldw, size_t n, size_t k, size_t columns, uint16_t *panel) {
    for (size_t p = 0; p < k; p += 32) {
        __m512i r[16];
        size_t left = k - p < 32 ? k - p : 32;
        __mmask32 mask = left == 32 ? ~(__mmask32)0 : (1u << left) - 1;
#pragma GCC unroll 16
        for (size_t j = 0; j < 16; j++) {
            const uint16_t *row = w + (ptrdiff_t)j * ldw + (ptrdiff_t)p;
            r[j] = j < n ? _mm512_maskz_loadu_epi16(mask, row) : _mm512_setzero_si512();
            _mm_prefetch((const char *)row + 256, _MM_HINT_T0); // sixteen streams are more than a prefetcher follows
        }
        v16i_transpose(r);
        for (size_t i = 0; i < (left + 1) / 2; i++) _mm512_storeu_si512(panel + (p / 2 + i) * columns * 2, r[i]);
    }
}

// Sixteen columns of [k][n], unit stride along n: two rows interleave.
static void panel_columns(const uint16_t *w, ptrdiff_t ldw, size_t n, size_t k, size_t columns, uint16_t *panel) {
    __mmask16 mask = (__mmask16)((1u << n) - 1);
    for (size_t p = 0; p < k; p += 2, panel += columns * 2) {
        const uint16_t *even = w + (ptrdiff_t)p * ldw;
        __m512i e = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, even)), o = _mm512_setzero_si512();
        if (p + 1 < k) o = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, even + ldw));
        _mm512_storeu_si512(panel, _mm512_or_si512(e, _mm512_slli_epi32(o, 16)));
    }
}

// Words 0…15 of v are even elements, 16…31 odd ones: interleave them.
V16_INLINE __m512i interleave(__m512i v) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                           19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, v);
}

// All 48 columns of a whole panel, line after line of w. The rows that come are fetched ahead: each is elsewhere, which no prefetcher foresees.
static void panel_whole(const uint16_t *w, ptrdiff_t ldw, size_t k, uint16_t *panel) {
    enum { ROWS_AHEAD = 24 };
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2,
                                         33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (size_t p = 0; p < k; p += 2, panel += 2 * COLUMNS) {
        const uint16_t *even = w + (ptrdiff_t)p * ldw, *odd = even + ldw;
        bool both = p + 1 < k;
        for (int i = 0; i < 2; i++) {
            const char *next = (const char *)(even + (ROWS_AHEAD + i) * ldw);
            _mm_prefetch(next, _MM_HINT_T1);
            _mm_prefetch(next + 95, _MM_HINT_T1);
        }
        __m512i e = _mm512_loadu_si512(even), o = both ? _mm512_loadu_si512(odd) : _mm512_setzero_si512();
        __m256i e2 = _mm256_loadu_si256((const void *)(even + 32)), o2 = both ? _mm256_loadu_si256((const void *)(odd + 32)) : _mm256_setzero_si256();
        _mm512_storeu_si512(panel, _mm512_permutex2var_epi16(e, low, o));
        _mm512_storeu_si512(panel + 32, _mm512_permutex2var_epi16(e, high, o));
        _mm512_storeu_si512(panel + 64, _mm512_permutex2var_epi16(_mm512_castsi256_si512(e2), low, _mm512_castsi256_si512(o2)));
    }
}

// Sixteen f32 rows or columns, rounded: decoded weights that were not packed.
static void panel_floats(const float *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k, size_t columns, uint16_t *panel) {
    for (size_t p = 0; p < k; p += 16) {
        v16 r[16];
        size_t left = k - p < 16 ? k - p : 16;
        for (size_t j = 0; j < 16; j++) {
            const float *from = ldk == 1 ? w + (ptrdiff_t)j * ldn + (ptrdiff_t)p : w + (ptrdiff_t)(p + j) * ldk;
            size_t rows = ldk == 1 ? n : left, len = ldk == 1 ? left : n;
            r[j] = j >= rows ? v16_zero() : len == 16 ? v16_load(from) : v16_load_part(MICA_F32, from, len);
        }
        if (ldk == 1) v16_transpose(r);
        for (size_t i = 0; i < left; i += 2)
            _mm512_storeu_si512(panel + (p + i) * columns, interleave((__m512i)_mm512_cvtne2ps_pbh(r[i + 1], r[i])));
    }
}

void mica_cpu_avx512_panel_dense_bf16(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k,
                                      size_t columns, void *panel) {
    if ((ldk != 1 && ldn != 1) || type == MICA_F16) {
        mica_cpu_ref_panel_dense_bf16(type, w, ldk, ldn, n, k, columns, panel);
        return;
    }
    if (type == MICA_BF16 && ldk != 1 && n == COLUMNS && columns == COLUMNS) {
        panel_whole(w, ldk, k, panel);
        return;
    }
    for (size_t j = 0; j < columns; j += 16) {
        size_t lanes = j >= n ? 0 : n - j < 16 ? n - j : 16;
        uint16_t *to = (uint16_t *)panel + 2 * j;
        ptrdiff_t at = (ptrdiff_t)j * ldn;
        if (type == MICA_F32) panel_floats((const float *)w + at, ldk, ldn, lanes, k, columns, to);
        else if (ldk == 1) panel_rows((const uint16_t *)w + at, ldn, lanes, k, columns, to);
        else panel_columns((const uint16_t *)w + at, ldk, lanes, k, columns, to);
    }
}

// ---- dense rows, few x ---------------------------------------------------------------------------------
// Every output has one chain of sums over k, sixteen lanes wide: the same for any number of rows. Fetching 16 KiB ahead, into the
// second-level cache, reads at the memory's speed on Zen 4; 1 KiB ahead, into the first, at 0.8 of it.
enum { AHEAD = 16384 };
V16_INLINE void dot_step(const int rows, const int outs, const uint16_t *x, ptrdiff_t ldx, const uint16_t *w, ptrdiff_t ldw,
                         const __mmask32 mask, __m512 sum[8][8]) {
    __m512bh v[8];
#pragma GCC unroll 8
    for (int j = 0; j < outs; j++) {
        v[j] = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + j * ldw);
        _mm_prefetch((const char *)(w + j * ldw) + AHEAD, _MM_HINT_T1);
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        __m512bh a = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + i * ldx);
#pragma GCC unroll 8
        for (int j = 0; j < outs; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], v[j], a);
    }
}

V16_INLINE void dot_block(const int rows, const int outs, const mica_cpu_direct *d, size_t n0) {
    const uint16_t *x = d->x, *w = (const uint16_t *)(const void *)d->w + (ptrdiff_t)n0 * d->ldw;
    const ptrdiff_t ldx = d->ldx, ldw = d->ldw;
    __m512 sum[8][8];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < outs; j++) sum[i][j] = _mm512_setzero_ps();
    size_t k = 0;
    for (; k + 32 <= d->k; k += 32, x += 32, w += 32) dot_step(rows, outs, x, ldx, w, ldw, ~(__mmask32)0, sum);
    if (k < d->k) dot_step(rows, outs, x, ldx, w, ldw, (1u << (d->k - k)) - 1, sum);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < outs; j++) d->y[(size_t)i * d->ldy + n0 + (size_t)j] = _mm512_reduce_add_ps(sum[i][j]);
}

#define DOT_ROWS(rows, outs)                                                                                           \
    static void dot_##rows(const mica_cpu_direct *d) {                                                                 \
        size_t n = 0;                                                                                                  \
        for (; n + (outs) <= d->n; n += (outs)) dot_block(rows, outs, d, n);                                           \
        for (; n < d->n; n++) dot_block(rows, 1, d, n);                                                                \
    }
DOT_ROWS(1, 4)
DOT_ROWS(2, 8)
DOT_ROWS(3, 4)
DOT_ROWS(4, 4)
DOT_ROWS(5, 4)
DOT_ROWS(6, 4)
DOT_ROWS(7, 2)
DOT_ROWS(8, 2)

void mica_cpu_avx512_dot_bf16(mica_dtype type, const mica_cpu_direct *d) {
    static void (*const by_rows[])(const mica_cpu_direct *) = {dot_1, dot_2, dot_3, dot_4, dot_5, dot_6, dot_7, dot_8};
    (void)type;
    by_rows[d->m - 1](d);
}
#endif
