// SPDX-License-Identifier: Apache-2.0
// Attention kernels over vectors for one element type: packing into f32, and decode (vec_decode.h). Template parameters
// as in vec_rows.h. No include guard.

static void NAME(pack_query)(void *packed, const void *q, size_t Dh) {
    float *o = packed;
    const T *a = q;
    for (size_t d = 0; d < mica_cpu_head_pad(Dh); d += LANES)
        store_f32(o + d, d + LANES <= Dh ? LOAD(a + d) : d < Dh ? LOADN(a + d, Dh - d, v_zero()) : v_zero());
}

static void NAME(pack_values)(void *packed, const void *v, ptrdiff_t stride, size_t at, size_t n, size_t Dh) {
    for (size_t j = 0; j < n; j++)
        NAME(pack_query)((float *)packed + (at + j) * mica_cpu_head_pad(Dh), (const T *)v + (ptrdiff_t)j * stride, Dh);
}

// Transposed, LANES keys at a time: key j becomes column at + j.
static void NAME(pack_keys)(void *packed, const void *k, ptrdiff_t stride, size_t at, size_t n, size_t Dh) {
    for (size_t j = 0; j < n; j += LANES) {
        size_t keys = n - j < LANES ? n - j : LANES;
        const T *a = (const T *)k + (ptrdiff_t)j * stride;
        for (size_t d = 0; d < mica_cpu_head_pad(Dh); d += LANES) {
            float *o = (float *)packed + d * MICA_CPU_KEYS + at + j;
            vf x[LANES];
            for (size_t i = 0; i < LANES; i++) {
                const T *row = a + (ptrdiff_t)i * stride + d;
                x[i] = i >= keys || d >= Dh ? v_zero() : d + LANES <= Dh ? LOAD(row) : LOADN(row, Dh - d, v_zero());
            }
            v_transpose(x);
            for (size_t i = 0; i < LANES; i++) {
                if (keys == LANES)
                    store_f32(o + i * MICA_CPU_KEYS, x[i]);
                else
                    storen_f32(o + i * MICA_CPU_KEYS, x[i], keys);
            }
        }
    }
}

#include "device/cpu/vec_decode.h"

static void NAME(fill_attention)(mica_cpu_rows_isa *isa) {
    isa->pack_query[TYPE] = isa->pack_query_codes[TYPE] = NAME(pack_query), isa->pack_size[TYPE] = sizeof(float);
    isa->pack_keys[TYPE] = NAME(pack_keys), isa->pack_values[TYPE] = NAME(pack_values);
    isa->flash[TYPE] = flash_f32, isa->flash_grad[TYPE] = grad_f32;
    isa->scores[TYPE] = NAME(scores), isa->values[TYPE] = NAME(values), isa->weights[TYPE] = vec_weights;
}
