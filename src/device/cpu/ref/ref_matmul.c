// SPDX-License-Identifier: Apache-2.0
// matmul kernels, level ref: plain loops, f32 operands, sums in f64 over one panel. The faster levels fall back on the
// packing of panels here for layouts they have no vector form of.
#include "device/cpu/ref/ref_matmul.h"
#include "base/half.h"
#include "device/cpu/isa.h"
#include "device/cpu/tiles.h"

enum { COLUMNS = 16, DEPTH = 256 };

static void gemm_f32(size_t m, size_t k, const void *a, ptrdiff_t lda, const void *panel, float *c, bool first, bool again) {
    (void)again;
    for (size_t i = 0; i < m; i++, c += COLUMNS) {
        const float *x = (const float *)a + (ptrdiff_t)i * lda, *w = panel;
        double sum[COLUMNS] = {0};
        for (size_t p = 0; p < k; p++, w += COLUMNS)
            for (size_t j = 0; j < COLUMNS; j++) sum[j] += (double)x[p] * (double)w[j];
        for (size_t j = 0; j < COLUMNS; j++) c[j] = (float)((first ? 0 : (double)c[j]) + sum[j]);
    }
}

void mica_cpu_ref_panel_dense_f32(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k,
                                  size_t columns, void *panel) {
    ptrdiff_t size = type == MICA_F32 ? 4 : 2;
    float *to = panel;
    for (size_t i = 0; i < k; i++, to += columns)
        for (size_t j = 0; j < columns; j++) {
            const unsigned char *from = (const unsigned char *)w + ((ptrdiff_t)i * ldk + (ptrdiff_t)j * ldn) * size;
            to[j] = j < n ? mica_cpu_load1(type, from, 0) : 0;
        }
}

void mica_cpu_ref_panel_dense_bf16(mica_dtype type, const void *w, ptrdiff_t ldk, ptrdiff_t ldn, size_t n, size_t k,
                                   size_t columns, void *panel) {
    ptrdiff_t size = type == MICA_F32 ? 4 : 2;
    uint16_t *to = panel;
    for (size_t i = 0; i < k + (k & 1); i++)
        for (size_t j = 0; j < columns; j++) {
            const unsigned char *from = (const unsigned char *)w + ((ptrdiff_t)i * ldk + (ptrdiff_t)j * ldn) * size;
            float f = i < k && j < n ? mica_cpu_load1(type, from, 0) : 0;
            to[(i / 2 * columns + j) * 2 + (i & 1)] = mica_f32_to_bf16(f);
        }
}

static void panel_tiles_f32(const mica_cpu_tiles *t, const unsigned char *packed, size_t first, size_t k0, size_t k,
                            size_t columns, void *panel) {
    float *to = panel, row[DEPTH];
    for (size_t j = 0; j < columns; j++) {
        size_t column = first + j / MICA_TILE_OUTPUTS;
        if (column < t->columns) mica_cpu_tiles_row(t, packed, first * MICA_TILE_OUTPUTS + j, k0, k, row);
        for (size_t i = 0; i < k; i++) to[i * columns + j] = column < t->columns ? row[i] : 0;
    }
}

static void group_sums(mica_dtype type, const void *x, size_t group, size_t groups, float *sums) {
    for (size_t g = 0; g < groups; g++) {
        double sum = 0;
        for (size_t i = g * group; i < (g + 1) * group; i++) sum += (double)mica_cpu_load1(type, x, i);
        sums[g] = (float)sum;
    }
}

void mica_cpu_ref_matmul(mica_cpu_matmul_isa *isa) {
    *isa = (mica_cpu_matmul_isa){
        .group_sums = group_sums,
        .f32 = {.columns = COLUMNS, .depth = DEPTH, .gemm = gemm_f32, .from_dense = mica_cpu_ref_panel_dense_f32,
                .from_tiles = panel_tiles_f32},
        .pack_codes = mica_cpu_pack_codes,
        .pack_nibbles = mica_cpu_pack_nibbles,
    };
}
