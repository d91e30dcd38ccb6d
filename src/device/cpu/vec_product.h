// SPDX-License-Identifier: Apache-2.0
// The matrix product inside streaming attention (vec_flash.h) over vectors, in register blocks of FLASH_ROWS rows and
// FLASH_COLUMNS vectors, enums of the including file. Template parameters:
//   FLASH(f)             name of the instance
//   FLASH_ADD(c, a, b)   c + a * b over the values of the units a and b
//   PRODUCT(f)           names of the functions; if not given, FLASH(f)
//   PRODUCT_A(a, lda, i, u)  where unit u of row i of a is; if not given, rows are lda units apart
// Row i of c comes out the same whatever block it falls into. No include guard: it is a template.

#ifndef MICA_DEVICE_CPU_FLASH_UNIT
#define MICA_DEVICE_CPU_FLASH_UNIT
typedef float flash_unit __attribute__((may_alias)); // 32 bits: an f32 or two bf16
#endif
#ifndef PRODUCT
#define PRODUCT(f) FLASH(f)
#define PRODUCT_A(a, lda, i, u) ((a) + (size_t)(i) * (lda) + (u))
#endif

// c [rows, columns * LANES] = c * rescale (or 0) + a [rows, units] · b [units, …]; rows and columns are constants.
static inline __attribute__((always_inline)) void PRODUCT(tile)(float *c, size_t ldc, const float *a, size_t lda,
                                                              const float *b, size_t ldb, size_t units,
                                                              const float *rescale, int rows, int columns) {
    vf t[FLASH_ROWS][FLASH_COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            t[i][j] = rescale ? v_mul(load_f32(c + (size_t)i * ldc + (size_t)j * LANES), v_set(rescale[i])) : v_zero();
    for (size_t u = 0; u < units; u++) {
        vf y[FLASH_COLUMNS];
        for (int j = 0; j < columns; j++) y[j] = load_f32(b + u * ldb + (size_t)j * LANES);
        for (int i = 0; i < rows; i++) {
            vf x = v_set(*(const flash_unit *)PRODUCT_A(a, lda, i, u));
            for (int j = 0; j < columns; j++) t[i][j] = FLASH_ADD(t[i][j], x, y[j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) store_f32(c + (size_t)i * ldc + (size_t)j * LANES, t[i][j]);
}

static inline __attribute__((always_inline)) void PRODUCT(strip)(float *c, size_t ldc, const float *a, size_t lda,
                                                               const float *b, size_t ldb, size_t units,
                                                               const float *rescale, size_t rows, int columns) {
    size_t r = 0;
    for (; r + FLASH_ROWS <= rows; r += FLASH_ROWS)
        PRODUCT(tile)
        (c + r * ldc, ldc, PRODUCT_A(a, lda, r, 0), lda, b, ldb, units, rescale ? rescale + r : NULL, FLASH_ROWS, columns);
    for (; r + 2 <= rows; r += 2)
        PRODUCT(tile)(c + r * ldc, ldc, PRODUCT_A(a, lda, r, 0), lda, b, ldb, units, rescale ? rescale + r : NULL, 2, columns);
    if (r < rows)
        PRODUCT(tile)(c + r * ldc, ldc, PRODUCT_A(a, lda, r, 0), lda, b, ldb, units, rescale ? rescale + r : NULL, 1, columns);
}

// As tile, for any number of rows and an even number of vectors.
static void PRODUCT(product)(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t units,
                           const float *rescale, size_t rows, size_t vectors) {
    size_t v = 0;
    for (; v + FLASH_COLUMNS <= vectors; v += FLASH_COLUMNS)
        PRODUCT(strip)(c + v * LANES, ldc, a, lda, b + v * LANES, ldb, units, rescale, rows, FLASH_COLUMNS);
    for (; v < vectors; v += 2) PRODUCT(strip)(c + v * LANES, ldc, a, lda, b + v * LANES, ldb, units, rescale, rows, 2);
}
#undef PRODUCT
#undef PRODUCT_A
