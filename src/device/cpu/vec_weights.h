// SPDX-License-Identifier: Apache-2.0
// The weights kernel (isa_rows.h) over vectors, and the pieces of streaming attention that f32 units need.
#ifndef MICA_DEVICE_CPU_VEC_WEIGHTS_H
#define MICA_DEVICE_CPU_VEC_WEIGHTS_H

static float vec_weights(float *s, size_t n, float *max) {
    vf low = v_set(-INFINITY), most = low, sum = v_zero();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) most = v_max(load_f32(s + i), most);
    if (i < n) most = v_max(loadn_f32(s + i, n - i, low), most);
    float greatest = v_greatest(most);
    if (greatest > *max) *max = greatest;
    vf m = v_set(*max == -INFINITY ? 0.0f : *max);
    for (i = 0; i + LANES <= n; i += LANES) {
        vf p = v_exp_weight(v_sub(load_f32(s + i), m));
        sum = v_add(sum, p);
        store_f32(s + i, p);
    }
    if (i < n) {
        vf p = v_exp_weight(v_sub(loadn_f32(s + i, n - i, low), m));
        sum = v_add(sum, p);
        storen_f32(s + i, p, n - i);
    }
    return v_sum(sum);
}

static inline float store_weights_f32(float *s, const vf *p) {
    vf sum = v_zero();
    for (int i = 0; i < MICA_CPU_KEYS / LANES; i++) {
        store_f32(s + i * LANES, p[i]);
        sum = v_add(sum, p[i]);
    }
    return v_sum(sum);
}

static inline void store_row_f32(float *s, const vf *x, size_t n) {
    for (size_t i = 0; i < n; i++) store_f32(s + i * LANES, x[i]);
}
#endif
