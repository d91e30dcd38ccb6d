// SPDX-License-Identifier: Apache-2.0
// Updates of parameters over vectors of f32. Products and sums are rounded one by one, as the graph of the same formula would do it, so that all
// levels agree bit for bit. Included once a level, after its vector vocabulary. No include guard: it is a template.
#include "device/device.h"

typedef struct adam_numbers {
    vf of[MICA_ADAM_NUMBERS];
} adam_numbers;

static inline void adam_vector(const adam_numbers *a, vf *p, vf g, vf *m, vf *v) {
    g = v_mul(g, a->of[MICA_ADAM_SCALE]);
    *m = v_add(v_mul(*m, a->of[MICA_ADAM_BETA1]), v_mul(g, a->of[MICA_ADAM_NEW1]));
    *v = v_add(v_mul(*v, a->of[MICA_ADAM_BETA2]), v_mul(v_mul(g, g), a->of[MICA_ADAM_NEW2]));
    vf root = v_mul(v_sqrt(*v), a->of[MICA_ADAM_ROOT]);
    vf step = v_div(v_mul(*m, a->of[MICA_ADAM_RATE]), v_add(root, a->of[MICA_ADAM_EPS]));
    *p = v_sub(v_mul(*p, a->of[MICA_ADAM_KEEP]), step);
}

static void adam_step(float *p, const float *g, float *m, float *v, const float *numbers, size_t n) {
    adam_numbers a;
    for (int i = 0; i < MICA_ADAM_NUMBERS; i++) a.of[i] = v_set(numbers[i]);
    vf x, y, z, one = v_set(1.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        x = load_f32(p + i), y = load_f32(m + i), z = load_f32(v + i);
        adam_vector(&a, &x, load_f32(g + i), &y, &z);
        store_f32(p + i, x), store_f32(m + i, y), store_f32(v + i, z);
    }
    if (i == n) return;
    x = loadn_f32(p + i, n - i, one), y = loadn_f32(m + i, n - i, one), z = loadn_f32(v + i, n - i, one);
    adam_vector(&a, &x, loadn_f32(g + i, n - i, one), &y, &z);
    storen_f32(p + i, x, n - i), storen_f32(m + i, y, n - i), storen_f32(v + i, z, n - i);
}
