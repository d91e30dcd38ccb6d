// SPDX-License-Identifier: Apache-2.0
// Decode attention over vectors: few queries, packed in f32, against rows of the cache as they lie. Template parameters
// T, NAME, LOAD and LOADN as in vec_rows.h. No include guard.

// s[g, j] for `rows` queries and LANES / rows keys (the last ones repeated where there are fewer): LANES sums at once.
static inline __attribute__((always_inline)) void NAME(dots)(float *s, size_t ss, const float *q, const T *k, size_t n,
                                                             size_t Dh, float scale, int rows) {
    const int keys = LANES / rows;
    size_t Dp = mica_cpu_head_pad(Dh), d = 0;
    const T *row[LANES];
    vf sum[LANES];
    for (int j = 0; j < keys; j++) row[j] = k + ((size_t)j < n ? (size_t)j : n - 1) * Dh;
    for (int i = 0; i < LANES; i++) sum[i] = v_zero();
    for (; d + LANES <= Dh; d += LANES)
        for (int j = 0; j < keys; j++) {
            vf x = LOAD(row[j] + d);
            for (int g = 0; g < rows; g++)
                sum[g * keys + j] = v_fma(load_f32(q + (size_t)g * Dp + d), x, sum[g * keys + j]);
        }
    if (d < Dh)
        for (int j = 0; j < keys; j++) {
            vf x = LOADN(row[j] + d, Dh - d, v_zero());
            for (int g = 0; g < rows; g++)
                sum[g * keys + j] = v_fma(load_f32(q + (size_t)g * Dp + d), x, sum[g * keys + j]);
        }
    float out[LANES];
    store_f32(out, v_mul(v_sums(sum), v_set(scale)));
    for (int g = 0; g < rows; g++) {
        if (n >= (size_t)keys)
            memcpy(s + (size_t)g * ss, out + g * keys, (size_t)keys * sizeof(float));
        else
            memcpy(s + (size_t)g * ss, out + g * keys, n * sizeof(float));
    }
}

static void NAME(scores)(float *s, size_t ss, const void *q, const void *k, size_t G, size_t n, size_t Dh,
                         float scale) {
    size_t g = 0, Dp = mica_cpu_head_pad(Dh);
    const float *a = q;
    const T *b = k;
    for (; g + DECODE_ROWS <= G; g += DECODE_ROWS)
        for (size_t j = 0; j < n; j += LANES / DECODE_ROWS)
            NAME(dots)(s + g * ss + j, ss, a + g * Dp, b + j * Dh, n - j, Dh, scale, DECODE_ROWS);
    for (; g + 2 <= G; g += 2)
        for (size_t j = 0; j < n; j += LANES / 2)
            NAME(dots)(s + g * ss + j, ss, a + g * Dp, b + j * Dh, n - j, Dh, scale, 2);
    for (size_t j = 0; g < G && j < n; j += LANES)
        NAME(dots)(s + g * ss + j, ss, a + g * Dp, b + j * Dh, n - j, Dh, scale, 1);
}

// acc[rows, columns * LANES] += p [rows, n] · v [n, …]; `last` of the final vector's lanes exist.
static inline __attribute__((always_inline)) void NAME(mix)(float *acc, size_t lda, const float *p, size_t ps,
                                                            const T *v, size_t n, size_t Dh, size_t last, int rows,
                                                            int columns) {
    vf t[DECODE_ROWS][DECODE_COLUMNS];
    for (int g = 0; g < rows; g++)
        for (int c = 0; c < columns; c++) {
            float *a = acc + (size_t)g * lda + (size_t)c * LANES;
            t[g][c] = c < columns - 1 || last == LANES ? load_f32(a) : loadn_f32(a, last, v_zero());
        }
    for (size_t j = 0; j < n; j++) {
        vf x[DECODE_COLUMNS];
        for (int c = 0; c < columns; c++) {
            const T *b = v + j * Dh + (size_t)c * LANES;
            x[c] = c < columns - 1 || last == LANES ? LOAD(b) : LOADN(b, last, v_zero());
        }
        for (int g = 0; g < rows; g++)
            for (int c = 0; c < columns; c++) t[g][c] = v_fma(v_set(p[(size_t)g * ps + j]), x[c], t[g][c]);
    }
    for (int g = 0; g < rows; g++)
        for (int c = 0; c < columns; c++) {
            float *a = acc + (size_t)g * lda + (size_t)c * LANES;
            if (c < columns - 1 || last == LANES)
                store_f32(a, t[g][c]);
            else
                storen_f32(a, t[g][c], last);
        }
}

static inline __attribute__((always_inline)) void NAME(mix_rows)(float *acc, const float *p, size_t ps, const T *v,
                                                                 size_t n, size_t Dh, int rows) {
    size_t d = 0;
    for (; d + DECODE_COLUMNS * LANES <= Dh; d += DECODE_COLUMNS * LANES)
        NAME(mix)(acc + d, Dh, p, ps, v + d, n, Dh, LANES, rows, DECODE_COLUMNS);
    for (; d + LANES <= Dh; d += LANES) NAME(mix)(acc + d, Dh, p, ps, v + d, n, Dh, LANES, rows, 1);
    if (d < Dh) NAME(mix)(acc + d, Dh, p, ps, v + d, n, Dh, Dh - d, rows, 1);
}

static void NAME(values)(float *acc, const float *p, size_t ps, const void *v, size_t G, size_t n, size_t Dh) {
    size_t g = 0;
    for (; g + DECODE_ROWS <= G; g += DECODE_ROWS) NAME(mix_rows)(acc + g * Dh, p + g * ps, ps, v, n, Dh, DECODE_ROWS);
    for (; g + 2 <= G; g += 2) NAME(mix_rows)(acc + g * Dh, p + g * ps, ps, v, n, Dh, 2);
    if (g < G) NAME(mix_rows)(acc + g * Dh, p + g * ps, ps, v, n, Dh, 1);
}
