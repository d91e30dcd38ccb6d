// SPDX-License-Identifier: Apache-2.0
// Streaming attention of a block (mica_cpu_flash) over vectors. Queries, keys, values and weights are packed in units
// of 32 bits along the summed axis, one f32 or two bf16, so that one small matrix product serves both:
//   q [R][Dp / per]   k [Dp / per][KEYS]   weights [R][KEYS / per]   v [KEYS / per][Dp]     (per = values in a unit)
// Included with
//   FLASH(f), FLASH_PER   name of the instance; values in a unit
//   FLASH_STORE(s, p)     stores KEYS weights p as units at s and returns their sum as stored
//   FLASH_EXP(x)          e^x as exactly as weights are stored
//   FLASH_GROUP           rows that are taken together
//   FLASH(product)        c [rows, vectors * LANES] = c * rescale (or 0) + a [rows, units] · b (vec_product.h);
//                         the number of units is a multiple of FLASH_UNITS, that of vectors is even
// A row's arithmetic does not depend on the other rows: keys it does not see weigh exactly 0. No include guard.

// Scores of row r to weights in place; returns the factor for what the row has summed so far.
static float FLASH(weigh)(const mica_cpu_flash *b, size_t r) {
    enum { VECTORS = MICA_CPU_KEYS / LANES };
    float *s = b->scores + r * MICA_CPU_KEYS;
    vf x[VECTORS], low = v_set(-INFINITY), most = low;
    bool whole = b->lo[r] <= 0 && b->hi[r] >= MICA_CPU_KEYS;
    vf lo = v_set((float)b->lo[r]), hi = v_set((float)b->hi[r]);
    for (int i = 0; i < VECTORS; i++) {
        x[i] = v_mul(load_f32(s + i * LANES), v_set(b->scale));
        if (b->bias) x[i] = v_add(x[i], load_f32(b->bias + r * MICA_CPU_KEYS + (size_t)i * LANES));
        if (!whole) {
            vf j = v_add(v_count(), v_set((float)(i * LANES)));
            x[i] = v_select(v_less(j, lo), low, v_select(v_less(j, hi), x[i], low));
        }
        most = v_max(x[i], most);
    }
    float old = b->m[r], max = v_greatest(most);
    if (!(max > old)) max = old;
    vf m = v_set(max == -INFINITY ? 0.0f : max); // nothing seen: e^(-inf - 0) = 0
    for (int i = 0; i < VECTORS; i++) x[i] = FLASH_EXP(v_sub(x[i], m));
    float sum = FLASH_STORE(s, x), rescale = max == old ? 1.0f : v_lane0(v_exp_weight(v_set(old - max)));
    b->m[r] = max;
    b->l[r] = b->l[r] * rescale + sum;
    return rescale;
}

// Rows [r0, r0 + n): scores, weights, values; only the keys that some row sees.
static void FLASH(group)(const mica_cpu_flash *b, size_t r0, size_t n) {
    float rescale[FLASH_GROUP];
    int32_t lo = MICA_CPU_KEYS, hi = 0;
    for (size_t r = r0; r < r0 + n; r++) {
        if (b->lo[r] >= b->hi[r]) continue;
        lo = b->lo[r] < lo ? b->lo[r] : lo;
        hi = b->hi[r] > hi ? b->hi[r] : hi;
    }
    if (lo >= hi) return;
    enum { STEP = 2 * LANES };
    size_t first = (size_t)lo / STEP * STEP, end = ((size_t)hi + STEP - 1) / STEP * STEP, ldq = b->Dp / FLASH_PER;
    const float *q = b->q, *k = b->k, *v = b->v;
    float *s = b->scores + r0 * MICA_CPU_KEYS;
    FLASH(product)
    (s + first, MICA_CPU_KEYS, q + r0 * ldq, ldq, k + first, MICA_CPU_KEYS, ldq, NULL, n, (end - first) / LANES);
    for (size_t r = 0; r < n; r++) rescale[r] = FLASH(weigh)(b, r0 + r);
    enum { KEYS = FLASH_PER * FLASH_UNITS };
    size_t u = (size_t)lo / KEYS * FLASH_UNITS, units = ((size_t)hi + KEYS - 1) / KEYS * FLASH_UNITS - u;
    FLASH(product)
    (b->acc + r0 * b->Dp, b->Dp, s + u, MICA_CPU_KEYS, v + u * b->Dp, b->Dp, units, rescale, n, b->Dp / LANES);
}

static void FLASH(flash)(const mica_cpu_flash *b) {
    for (size_t r = 0; r < b->R; r += FLASH_GROUP) FLASH(group)(b, r, b->R - r < FLASH_GROUP ? b->R - r : FLASH_GROUP);
}
