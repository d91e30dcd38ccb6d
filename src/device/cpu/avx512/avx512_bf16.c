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
// Fetching for the next panel: blocks of rows that do, inputs between two fetches, lines of one.
enum { FETCH_BLOCKS = 32, STRETCH = 32, FETCH_MOST = 8 };

// ---- gemm ------------------------------------------------------------------------------------------
V16_INLINE __m512bh pair(const uint16_t *x) {
    int v;
    memcpy(&v, x, 4);
    return (__m512bh)_mm512_set1_epi32(v);
}

// Vectors of sums as values of the result. No sum is subnormal, which vdpbf16ps flushes, so the conversion that flushes them too is exact.
V16_INLINE void store_row(const int vectors, mica_dtype type, unsigned char *out, const __m512 sum[VECTORS]) {
    if (type == MICA_F32) {
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++) _mm512_storeu_ps((float *)(void *)out + 16 * j, sum[j]);
        return;
    }
    if (vectors > 1) _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(sum[1], sum[0]));
    if (vectors != 2) _mm256_storeu_si256((void *)(out + 32 * (vectors - 1)), (__m256i)_mm512_cvtneps_pbh(sum[vectors - 1]));
}

// Goes through the lines of mica_cpu_fetch, `each` of them every STRETCH inputs.
typedef struct fetching {
    const unsigned char *line, *end, *row; // of the run at hand
    size_t rows, bytes, each;
    ptrdiff_t step;
} fetching;

V16_INLINE void fetch_row(fetching *f) {
    f->line = f->row - ((uintptr_t)f->row & 63), f->end = f->row + f->bytes;
    f->row += f->step;
}

V16_INLINE void fetch_some(fetching *f) {
    for (size_t i = 0; i < f->each && f->rows; i++) {
        _mm_prefetch((const char *)f->line, _MM_HINT_T1);
        f->line += 64;
        if (f->line < f->end) continue;
        if (--f->rows) fetch_row(f);
    }
}

// The last blocks of rows fetch, so that what comes does not leave the cache again before it is used.
static fetching fetch_from(const mica_cpu_gemm *g, size_t *first) {
    fetching f = {.row = g->next.from, .rows = g->next.rows, .bytes = g->next.bytes, .step = g->next.step};
    size_t blocks = g->m / ROWS, part = blocks < FETCH_BLOCKS ? blocks : FETCH_BLOCKS, stretches = part * ((g->k + STRETCH - 1) / STRETCH);
    *first = blocks - part;
    if (!f.rows || !stretches) return (fetching){0};
    fetch_row(&f);
    f.each = (f.rows * (f.bytes / 64 + 1) + stretches - 1) / stretches;
    f.each = f.each < FETCH_MOST ? f.each : FETCH_MOST;
    return f;
}

// The sums start at zero or at c's; they go to c, or out as the result.
V16_INLINE void gemm_block(const int rows, const int vectors, const mica_cpu_gemm *g, size_t at, fetching *f) {
    const uint16_t *a = (const uint16_t *)g->a + (ptrdiff_t)at * g->lda, *panel = g->panel;
    const ptrdiff_t lda = g->lda;
    float *c = g->c + at * COLUMNS;
    __m512 sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++) sum[i][j] = g->first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + i * COLUMNS + 16 * j);
    for (size_t p = 0, k = g->k; p < k;) {
        size_t end = k - p < STRETCH ? k : p + STRETCH;
        if (f) fetch_some(f);
        for (; p < end; p += 2, panel += 2 * COLUMNS) {
            __m512bh w[VECTORS];
#pragma GCC unroll 3
            for (int j = 0; j < vectors; j++) w[j] = (__m512bh)_mm512_loadu_si512(panel + 32 * j);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                __m512bh x = pair(a + i * lda + (ptrdiff_t)p);
#pragma GCC unroll 3
                for (int j = 0; j < vectors; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], w[j], x);
            }
        }
    }
    if (g->out) {
        size_t row = g->ldo * mica_dtype_size(g->type);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) store_row(vectors, g->type, (unsigned char *)g->out + (at + (size_t)i) * row, sum[i]);
        return;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++) _mm512_storeu_ps(c + i * COLUMNS + 16 * j, sum[i][j]);
}

V16_INLINE void gemm_rows(const int vectors, const mica_cpu_gemm *g) {
    size_t i = 0, m = g->m, first;
    fetching f = fetch_from(g, &first);
    for (; i + ROWS <= m && i < first * ROWS; i += ROWS) gemm_block(ROWS, vectors, g, i, NULL);
    for (; i + ROWS <= m; i += ROWS) gemm_block(ROWS, vectors, g, i, &f);
    if (i + 4 <= m) gemm_block(4, vectors, g, i, NULL), i += 4;
    if (i + 2 <= m) gemm_block(2, vectors, g, i, NULL), i += 2;
    if (i < m) gemm_block(1, vectors, g, i, NULL);
}

static void gemm_whole(const mica_cpu_gemm *g) { gemm_rows(VECTORS, g); }
static void gemm_two(const mica_cpu_gemm *g) { gemm_rows(2, g); }
static void gemm_one(const mica_cpu_gemm *g) { gemm_rows(1, g); }

void mica_cpu_avx512_gemm_out_bf16(const mica_cpu_gemm *g) { (g->n > 32 ? gemm_whole : g->n > 16 ? gemm_two : gemm_one)(g); }

void mica_cpu_avx512_gemm_bf16(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first, bool again) {
    (void)again;
    gemm_whole(&(mica_cpu_gemm){.m = m, .n = COLUMNS, .k = k, .a = x, .lda = lda, .panel = panel, .c = c, .first = first});
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
