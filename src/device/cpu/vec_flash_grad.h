// SPDX-License-Identifier: Apache-2.0
// The gradient of a block of queries (mica_cpu_flash_grad) over vectors. Scores are kept with keys as rows and queries as lanes: maxima and sums
// over keys then need nothing across lanes, weights as they are stored are what dv and dk multiply, and dq reads the same in columns. Keys are
// taken GRAD_KEYS at a time; of the queries' columns only those, in pairs of vectors, of which some sees some of these keys.
// Included after vec_flash.h, with its parameters and
//   FLASH_STORE_ROW(s, x, n)         stores n vectors as units at s
//   FLASH_STORE_TURNED(s, x, y, n)   if a unit is a pair: stores pairs of a lane of x and one of y. No include guard.

#ifndef MICA_DEVICE_CPU_FLASH_GRAD_STATE
#define MICA_DEVICE_CPU_FLASH_GRAD_STATE
enum { GRAD_KEYS = 32, GRAD_STEP = 2 * LANES, GRAD_STEPS = MICA_CPU_KEYS / GRAD_STEP, GRAD_VECTORS = MICA_CPU_KEYS / LANES };

typedef struct grad_state {
    float lo[MICA_CPU_KEYS], hi[MICA_CPU_KEYS], one[GRAD_KEYS];
    size_t first[GRAD_STEPS], end[GRAD_STEPS]; // keys that a step of queries sees
    vf most[GRAD_VECTORS], sum[GRAD_VECTORS], dot[GRAD_VECTORS];
} grad_state;

static void grad_start(grad_state *t, const mica_cpu_flash_grad *b) {
    for (int i = 0; i < GRAD_KEYS; i++) t->one[i] = 1;
    for (int i = 0; i < MICA_CPU_KEYS; i++) t->lo[i] = (float)b->lo[i], t->hi[i] = (float)b->hi[i];
    for (int v = 0; v < GRAD_VECTORS; v++) t->most[v] = v_set(-INFINITY), t->sum[v] = t->dot[v] = v_zero();
    for (int g = 0; g < GRAD_STEPS; g++) {
        t->first[g] = b->keys, t->end[g] = 0;
        for (int i = g * GRAD_STEP; i < (g + 1) * GRAD_STEP; i++) {
            if (b->lo[i] >= b->hi[i]) continue;
            t->first[g] = (size_t)b->lo[i] < t->first[g] ? (size_t)b->lo[i] : t->first[g];
            t->end[g] = (size_t)b->hi[i] > t->end[g] ? (size_t)b->hi[i] : t->end[g];
        }
    }
}

// Vectors [*c, *e) of queries for keys [j, j + n); false: none.
static bool grad_columns(const grad_state *t, size_t j, size_t n, size_t *c, size_t *e) {
    *c = GRAD_VECTORS, *e = 0;
    for (size_t g = 0; g < GRAD_STEPS; g++) {
        if (t->first[g] >= j + n || t->end[g] <= j) continue;
        *c = *c < 2 * g ? *c : 2 * g;
        *e = 2 * g + 2;
    }
    return *c < *e;
}
#endif

#define PRODUCT(f) FLASH(turned_##f)
#define PRODUCT_A(a, lda, i, u) ((a) + (size_t)(u) * (lda) + (size_t)(i))
#include "device/cpu/vec_product.h"

// Scaled scores of keys [j, j + n), -inf where unseen, and their maxima.
static void FLASH(grad_scores)(const mica_cpu_flash_grad *b, grad_state *t, size_t j, size_t n) {
    size_t c, e, units = b->Dp / FLASH_PER;
    if (!grad_columns(t, j, n, &c, &e)) return;
    float *s = b->p + j * MICA_CPU_KEYS;
    FLASH(product)
    (s + c * LANES, MICA_CPU_KEYS, (const float *)b->k + j * units, units, (const float *)b->q + c * LANES, MICA_CPU_KEYS, units, NULL, n, e - c);
    vf low = v_set(-INFINITY), scale = v_set(b->scale);
    for (size_t v = c; v < e; v++) {
        vf lo = load_f32(t->lo + v * LANES), hi = load_f32(t->hi + v * LANES), most = t->most[v];
        for (size_t i = 0; i < n; i++) {
            float *at = s + i * MICA_CPU_KEYS + v * LANES;
            vf x = v_mul(load_f32(at), scale), key = v_set((float)(j + i));
            x = v_select(v_less(key, lo), low, v_select(v_less(key, hi), x, low));
            most = v_max(x, most);
            store_f32(at, x);
        }
        t->most[v] = most;
    }
}

// Weights not yet divided by their sum, g vᵀ, and the sums of both.
static void FLASH(grad_weights)(const mica_cpu_flash_grad *b, grad_state *t, size_t j, size_t n) {
    size_t c, e, units = b->Dp / FLASH_PER;
    if (!grad_columns(t, j, n, &c, &e)) return;
    float *p = b->p + j * MICA_CPU_KEYS, *w = b->w + j * MICA_CPU_KEYS;
    FLASH(product)
    (w + c * LANES, MICA_CPU_KEYS, (const float *)b->v + j * units, units, (const float *)b->g + c * LANES, MICA_CPU_KEYS, units, NULL, n, e - c);
    for (size_t v = c; v < e; v++) {
        vf most = t->most[v], sum = t->sum[v], dot = t->dot[v];
        for (size_t i = 0; i < n; i++) {
            float *at = p + i * MICA_CPU_KEYS + v * LANES;
            vf x = v_exp_weight(v_sub(load_f32(at), most));
            sum = v_add(sum, x);
            dot = v_fma(x, load_f32(w + i * MICA_CPU_KEYS + v * LANES), dot);
            store_f32(at, x);
        }
        t->sum[v] = sum, t->dot[v] = dot;
    }
}

// Weights and gradients of scores as units, in place; returns the row of the latter in `s`.
static void FLASH(grad_row)(const mica_cpu_flash_grad *b, const grad_state *t, size_t j, size_t c, size_t e, vf *s) {
    float *p = b->p + j * MICA_CPU_KEYS, *w = b->w + j * MICA_CPU_KEYS;
    vf x[GRAD_VECTORS], scale = v_set(b->scale);
    for (size_t v = c; v < e; v++) {
        x[v - c] = v_mul(load_f32(p + v * LANES), t->sum[v]);
        s[v - c] = v_mul(v_mul(x[v - c], scale), v_sub(load_f32(w + v * LANES), t->dot[v]));
    }
    FLASH_STORE_ROW(p + c * LANES / FLASH_PER, x, e - c);
    FLASH_STORE_ROW(w + c * LANES / FLASH_PER, s, e - c);
}

static void FLASH(grad_keys)(const mica_cpu_flash_grad *b, const grad_state *t, size_t j, size_t n) {
    size_t c, e;
    if (!grad_columns(t, j, n, &c, &e)) return;
    for (size_t i = 0; i < n; i += FLASH_PER) {
        vf s[FLASH_PER][GRAD_VECTORS];
        for (size_t k = 0; k < FLASH_PER && i + k < n; k++) FLASH(grad_row)(b, t, j + i + k, c, e, s[k]);
#if FLASH_PER == 2
        for (size_t v = c; v < e && i + 1 == n; v++) s[1][v - c] = v_zero();
        FLASH_STORE_TURNED(b->turned + (j + i) / 2 * MICA_CPU_KEYS + c * LANES, s[0], s[1], e - c);
#endif
    }
    size_t u = c * LANES / FLASH_PER, units = (e - c) * LANES / FLASH_PER, at = j * MICA_CPU_KEYS + u, Dp = b->Dp;
    const float *g = (const float *)b->g_rows + u * Dp, *q = (const float *)b->q_rows + u * Dp;
    FLASH(product)(b->dv + j * Dp, Dp, b->p + at, MICA_CPU_KEYS, g, Dp, units, t->one, n, Dp / LANES);
    FLASH(product)(b->dk + j * Dp, Dp, b->w + at, MICA_CPU_KEYS, q, Dp, units, t->one, n, Dp / LANES);
}

static void FLASH(grad_queries)(const mica_cpu_flash_grad *b, const grad_state *t, size_t g) {
    size_t first = t->first[g] / GRAD_KEYS * GRAD_KEYS, end = (t->end[g] + GRAD_KEYS - 1) / GRAD_KEYS * GRAD_KEYS, row = g * GRAD_STEP;
    end = end < b->keys ? end : b->keys;
    size_t u = first / FLASH_PER, units = first < end ? (end + FLASH_PER - 1) / FLASH_PER - u : 0;
    const float *s = (FLASH_PER == 2 ? b->turned : b->w) + u * MICA_CPU_KEYS + row, *k = (const float *)b->k_rows + u * b->Dp;
    FLASH(turned_product)(b->dq + row * b->Dp, b->Dp, s, MICA_CPU_KEYS, k, b->Dp, units, NULL, GRAD_STEP, b->Dp / LANES);
}

static void FLASH(grad)(const mica_cpu_flash_grad *b) {
    grad_state t;
    grad_start(&t, b);
#define EACH_GROUP(f) for (size_t j = 0; j < b->keys; j += GRAD_KEYS) FLASH(f)(b, &t, j, b->keys - j < GRAD_KEYS ? b->keys - j : GRAD_KEYS)
    EACH_GROUP(grad_scores);
    for (int v = 0; v < GRAD_VECTORS; v++) // a query that sees nothing: e^(-inf - 0) = 0
        t.most[v] = v_select(v_equal(t.most[v], v_set(-INFINITY)), v_zero(), t.most[v]);
    EACH_GROUP(grad_weights);
    for (int v = 0; v < GRAD_VECTORS; v++) {
        vmask none = v_equal(t.sum[v], v_zero());
        t.sum[v] = v_select(none, v_zero(), v_div(v_set(1), t.sum[v]));
        t.dot[v] = v_mul(t.dot[v], t.sum[v]);
    }
    EACH_GROUP(grad_keys);
#undef EACH_GROUP
    for (size_t g = 0; g < GRAD_STEPS; g++) FLASH(grad_queries)(b, &t, g);
}
