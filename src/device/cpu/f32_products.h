// SPDX-License-Identifier: Apache-2.0
// Matrix products in f32, written once over v16 (sixteen lanes) and included by each level that defines it, together with
//   F32_ROWS  rows of the register block of gemm;   F32_VECTORS  its columns, in v16.
// Weights may be f32, f16, bf16 or tiles of any bits; they are exact in f32, so only the sums round.
#include "device/cpu/ref/ref_matmul.h"
#include "device/cpu/tiles.h"

enum { F32_COLUMNS = 16 * F32_VECTORS, F32_CHUNK = MICA_TILE_CHUNK, F32_AHEAD = 4096 };

// ---- gemm ------------------------------------------------------------------------------------------
// The sums start at zero or at c's, rows of F32_COLUMNS, and go to `to`, rows ldo elements apart.
V16_INLINE void gemm_block(const int rows, size_t k, const float *a, ptrdiff_t lda, const float *panel, const float *c, bool first, float *to,
                           size_t ldo) {
    v16 sum[F32_ROWS][F32_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < F32_VECTORS; j++) sum[i][j] = first ? v16_zero() : v16_load(c + i * F32_COLUMNS + 16 * j);
    for (size_t p = 0; p < k; p++, panel += F32_COLUMNS) {
        v16 w[F32_VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < F32_VECTORS; j++) w[j] = v16_load(panel + 16 * j);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            v16 x = v16_set1(a[i * lda + (ptrdiff_t)p]);
#pragma GCC unroll 4
            for (int j = 0; j < F32_VECTORS; j++) sum[i][j] = v16_fma(x, w[j], sum[i][j]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < F32_VECTORS; j++) v16_store(to + (size_t)i * ldo + 16 * j, sum[i][j]);
}

static void gemm_out_f32(const mica_cpu_gemm *g) {
    const float *a = g->a;
    float *to = g->out ? g->out : g->c;
    size_t i = 0, k = g->k, ldo = g->out ? g->ldo : F32_COLUMNS;
    for (; i + F32_ROWS <= g->m; i += F32_ROWS)
        gemm_block(F32_ROWS, k, a + (ptrdiff_t)i * g->lda, g->lda, g->panel, g->c + i * F32_COLUMNS, g->first, to + i * ldo, ldo);
    for (; i + 2 <= g->m; i += 2) gemm_block(2, k, a + (ptrdiff_t)i * g->lda, g->lda, g->panel, g->c + i * F32_COLUMNS, g->first, to + i * ldo, ldo);
    if (i < g->m) gemm_block(1, k, a + (ptrdiff_t)i * g->lda, g->lda, g->panel, g->c + i * F32_COLUMNS, g->first, to + i * ldo, ldo);
}

static void gemm_f32(size_t m, size_t k, const void *x, ptrdiff_t lda, const void *panel, float *c, bool first, bool again) {
    (void)again;
    gemm_out_f32(&(mica_cpu_gemm){.m = m, .k = k, .a = x, .lda = lda, .panel = panel, .c = c, .first = first});
}

// ---- sums of groups ------------------------------------------------------------------------------------
static void group_sums(mica_dtype type, const void *x, size_t group, size_t groups, float *sums) {
    ptrdiff_t size = type == MICA_F32 ? 4 : 2;
    const unsigned char *from = x;
    for (size_t g = 0; g < groups; g++) {
        v16 sum = v16_zero();
        for (size_t i = 0; i < group; i += 16, from += 16 * size) sum = v16_add(sum, type == MICA_F32 ? v16_load_as(MICA_F32, from) : v16_load_as(MICA_BF16, from));
        sums[g] = v16_sum(sum);
    }
}

// ---- dense panels ------------------------------------------------------------------------------------
// Sixteen rows [n][k], unit stride along k, to sixteen columns.
V16_INLINE void panel_rows(mica_dtype type, const unsigned char *w, ptrdiff_t ldw, size_t n, size_t k, size_t columns, float *panel) {
    ptrdiff_t size = type == MICA_F32 ? 4 : 2;
    for (size_t p = 0; p < k; p += 16) {
        v16 r[16];
        size_t left = k - p < 16 ? k - p : 16;
#pragma GCC unroll 16
        for (size_t j = 0; j < 16; j++) {
            const unsigned char *from = w + ((ptrdiff_t)j * ldw + (ptrdiff_t)p) * size;
            r[j] = j >= n ? v16_zero() : left == 16 ? v16_load_as(type, from) : v16_load_part(type, from, left);
        }
        v16_transpose(r);
        for (size_t i = 0; i < left; i++) v16_store(panel + (p + i) * columns, r[i]);
    }
}

static void panel_dense_f32(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k, size_t columns,
                            void *panel) {
    ptrdiff_t size = type == MICA_F32 ? 4 : 2;
    float *to = panel;
    const unsigned char *from = w;
    if (ldk != 1 && ldn != 1) {
        mica_cpu_ref_panel_dense_f32(type, w, ldk, ldn, n, k, columns, panel);
        return;
    }
    for (size_t j = 0; j < columns; j += 16) {
        size_t lanes = j >= n ? 0 : n - j < 16 ? n - j : 16;
        if (ldk == 1) panel_rows(type, from + (ptrdiff_t)j * ldn * size, ldn, lanes, k, columns, to + j);
        else
            for (size_t p = 0; p < k; p++) {
                const unsigned char *e = from + ((ptrdiff_t)p * ldk + (ptrdiff_t)j) * size;
                v16_store(to + p * columns + j, lanes == 16 ? v16_load_as(type, e)
                                                : lanes     ? v16_load_part(type, e, lanes)
                                                            : v16_zero());
            }
    }
}

// ---- dense rows, few x ---------------------------------------------------------------------------------
// Every output has one chain of sums over k, sixteen lanes wide: the same for any number of rows.
V16_INLINE void dot_block(mica_dtype type, const int rows, const int outs, const mica_cpu_direct *d, size_t n0) {
    const ptrdiff_t size = type == MICA_F32 ? 4 : 2;
    const float *x = d->x;
    const unsigned char *w = d->w + (ptrdiff_t)n0 * d->ldw * size;
    v16 sum[8][8];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < outs; j++) sum[i][j] = v16_zero();
    for (size_t k = 0; k < d->k; k += 16) {
        size_t left = d->k - k;
        v16 v[8];
#pragma GCC unroll 8
        for (int j = 0; j < outs; j++) {
            const unsigned char *p = w + (j * d->ldw + (ptrdiff_t)k) * size;
            v[j] = left >= 16 ? v16_load_as(type, p) : v16_load_part(type, p, left);
        }
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const float *p = x + i * d->ldx + (ptrdiff_t)k;
            v16 a = left >= 16 ? v16_load(p) : v16_load_part(MICA_F32, p, left);
#pragma GCC unroll 8
            for (int j = 0; j < outs; j++) sum[i][j] = v16_fma(a, v[j], sum[i][j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < outs; j++) d->y[(size_t)i * d->ldy + n0 + (size_t)j] = v16_sum(sum[i][j]);
}

// Four weight rows at a time for one row of x, two for up to four: what the registers hold.
V16_INLINE void dot_type(mica_dtype type, const mica_cpu_direct *d) {
    for (size_t i = 0; i < d->m;) {
        mica_cpu_direct part = *d;
        size_t left = d->m - i, rows = left >= 4 ? 4 : left >= 2 ? 2 : 1, n = 0;
        part.x = (const float *)d->x + (ptrdiff_t)i * d->ldx, part.y = d->y + i * d->ldy;
        if (rows == 4) for (; n + 1 < d->n; n += 2) dot_block(type, 4, 2, &part, n);
        if (rows == 2) for (; n + 1 < d->n; n += 2) dot_block(type, 2, 2, &part, n);
        if (rows == 1) for (; n + 3 < d->n; n += 4) dot_block(type, 1, 4, &part, n);
        for (; n < d->n; n++)
            for (size_t r = 0; r < rows; r++) {
                mica_cpu_direct one = part;
                one.x = (const float *)part.x + (ptrdiff_t)r * d->ldx, one.y = part.y + r * d->ldy;
                dot_block(type, 1, 1, &one, n);
            }
        i += rows;
    }
}

static void dot_f32(mica_dtype type, const mica_cpu_direct *d) {
    if (type == MICA_F32) dot_type(MICA_F32, d);
    else if (type == MICA_BF16) dot_type(MICA_BF16, d);
    else dot_type(MICA_F16, d);
}

// ---- tiles -----------------------------------------------------------------------------------------------
#ifndef V16_TILE_CODES // else the dialect has a way of its own
// Input i of a chunk for all sixteen outputs, as integers in f32.
V16_INLINE v16 tile_codes(const int bits, const unsigned char *chunk, const int i) {
    const int low = bits == 3 ? 2 : bits >= 4 ? 4 : bits, high = bits - low, per = 32 / low;
    v16i q = v16i_field(v16i_load(chunk + i / per * 64), low * (i % per / 2) + 16 * (i & 1), (1 << low) - 1);
    if (high) {
        const int per2 = 32 / high;
        v16i h = v16i_load(chunk + low * 64 + i / per2 * 64);
        q = v16i_join(q, v16i_field(h, high * (i % per2 / 2) + 16 * (i & 1), (1 << high) - 1), low);
    }
    return v16_from_int(q);
}
#endif

V16_INLINE v16 tile_scale(const mica_cpu_tiles *t, const unsigned char *tile, size_t group) {
    return v16_load_as(t->scale_dtype, tile + t->codes + group * t->scales);
}

V16_INLINE void panel_chunk(const int bits, const unsigned char *chunk, const int from, const int to, v16 s, v16 b, size_t columns, float *panel) {
#pragma GCC unroll 32
    for (int i = from; i < to; i++) v16_store(panel + (size_t)i * columns, v16_fma(s, tile_codes(bits, chunk, i), b));
}

V16_INLINE void panel_bits(const int bits, const mica_cpu_tiles *t, const unsigned char *tile, size_t tiles, size_t columns, float *panel) {
    const size_t groups = t->groups;
    for (size_t g = 0; g < tiles; g++, tile += t->bytes)
        for (size_t c = 0; c < t->depth / F32_CHUNK; c++, panel += F32_CHUNK * columns) {
            const unsigned char *chunk = tile + c * (size_t)bits * 64;
            panel_chunk(bits, chunk, 0, 16, tile_scale(t, tile, 0), tile_scale(t, tile, groups), columns, panel);
            panel_chunk(bits, chunk, 16, 32, tile_scale(t, tile, groups - 1), tile_scale(t, tile, 2 * groups - 1), columns, panel);
        }
}

static void panel_tiles_f32(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t k0, size_t k, size_t columns,
                            void *panel) {
    for (size_t j = 0; j < columns / MICA_TILE_OUTPUTS; j++) {
        float *to = (float *)panel + j * MICA_TILE_OUTPUTS;
        if (first + j >= t->columns) {
            for (size_t i = 0; i < k; i++) v16_store(to + i * columns, v16_zero());
            continue;
        }
        const unsigned char *tile = packed + ((first + j) * t->per_column + k0 / t->depth) * t->bytes;
        size_t tiles = k / t->depth;
        switch (t->bits) {
        case 2: panel_bits(2, t, tile, tiles, columns, to); break;
        case 3: panel_bits(3, t, tile, tiles, columns, to); break;
        case 4: panel_bits(4, t, tile, tiles, columns, to); break;
        case 5: panel_bits(5, t, tile, tiles, columns, to); break;
        case 6: panel_bits(6, t, tile, tiles, columns, to); break;
        default: panel_bits(8, t, tile, tiles, columns, to); break;
        }
    }
}

// Half a chunk for `rows` rows. Four products are added among themselves before they join the running sum, so that
// the chain of dependent additions is a quarter as long.
V16_INLINE void tile_half(const int bits, const int rows, const unsigned char *chunk, const int half, const float *x, ptrdiff_t ldx, v16 *sum) {
#pragma GCC unroll 4
    for (int i = 16 * half; i < 16 * half + 16; i += 4) {
        v16 q[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) q[j] = tile_codes(bits, chunk, i + j);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const float *p = x + r * ldx + i;
            v16 four = v16_mul(q[0], v16_set1(p[0]));
#pragma GCC unroll 3
            for (int j = 1; j < 4; j++) four = v16_fma(q[j], v16_set1(p[j]), four);
            sum[r] = v16_add(sum[r], four);
        }
    }
}

// sum of x·q over a group joins y: y += scale * sum + bias * (sum of x).
V16_INLINE void tile_group(const mica_cpu_tiles *t, const int rows, const unsigned char *tile, size_t g, const float *sums, size_t lds,
                           v16 *sum, v16 *y) {
    v16 s = tile_scale(t, tile, g), b = tile_scale(t, tile, t->groups + g);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        y[r] = v16_fma(v16_set1(sums[(size_t)r * lds + g]), b, v16_fma(sum[r], s, y[r]));
        sum[r] = v16_zero();
    }
}

V16_INLINE void tile_column(const int bits, const int rows, const mica_cpu_tiles *t, const mica_cpu_direct *d, const unsigned char *tile,
                            float *to) {
    const size_t groups = t->groups;
    const float *x = d->x, *sums = d->sums;
    v16 y[4], sum[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) y[r] = sum[r] = v16_zero();
    for (size_t i = 0; i < t->per_column; i++, tile += t->bytes, sums += groups) {
        __builtin_prefetch(tile + F32_AHEAD + t->codes);
        for (size_t c = 0; c < t->depth / F32_CHUNK; c++, x += F32_CHUNK) {
            const unsigned char *chunk = tile + c * (size_t)bits * 64;
#pragma GCC unroll 8
            for (int l = 0; l < bits; l++) __builtin_prefetch(chunk + F32_AHEAD + l * 64);
            tile_half(bits, rows, chunk, 0, x, d->ldx, sum);
            if (groups == 2) tile_group(t, rows, tile, 0, sums, d->lds, sum, y);
            tile_half(bits, rows, chunk, 1, x, d->ldx, sum);
        }
        tile_group(t, rows, tile, groups - 1, sums, d->lds, sum, y);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) v16_store(to + (size_t)r * d->ldy, y[r]);
}

V16_INLINE void tile_rows(const int bits, const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    for (size_t n = 0; n < d->n; n += MICA_TILE_OUTPUTS) {
        const unsigned char *tile = d->w + n / MICA_TILE_OUTPUTS * t->per_column * t->bytes;
        mica_cpu_direct part = *d;
        for (size_t i = 0; i < d->m;) {
            size_t left = d->m - i;
            part.x = (const float *)d->x + (ptrdiff_t)i * d->ldx, part.sums = d->sums + i * d->lds;
            float *y = d->y + i * d->ldy + n;
            if (left >= 4) tile_column(bits, 4, t, &part, tile, y), i += 4;
            else if (left >= 2) tile_column(bits, 2, t, &part, tile, y), i += 2;
            else tile_column(bits, 1, t, &part, tile, y), i++;
        }
    }
}

static void tiles_f32(const mica_cpu_tiles *t, const mica_cpu_direct *d) {
    switch (t->bits) {
    case 2: tile_rows(2, t, d); break;
    case 3: tile_rows(3, t, d); break;
    case 4: tile_rows(4, t, d); break;
    case 5: tile_rows(5, t, d); break;
    case 6: tile_rows(6, t, d); break;
    default: tile_rows(8, t, d); break;
    }
}

static const mica_cpu_panels f32_panels = {
    .columns = F32_COLUMNS,
    .depth = 768, // 144 KiB at 48 columns, 48 KiB at 16: stays in the second-level cache beside rows of x
    .direct = 4,
    .direct_tiles = {[2] = 16, [3] = 16, [4] = 16, [5] = 16, [6] = 16, [8] = 16},
    .tiles_rows = 8,
    .gemm = gemm_f32,
    .gemm_out = gemm_out_f32,
    .from_dense = panel_dense_f32,
    .from_tiles = panel_tiles_f32,
};

static void fill_f32(mica_cpu_matmul_isa *isa) {
    isa->f32 = f32_panels;
    isa->dot_f32 = dot_f32;
    isa->tiles_f32 = tiles_f32;
    isa->group_sums = group_sums;
}
