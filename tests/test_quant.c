// SPDX-License-Identifier: Apache-2.0
// labels: kernels
// MLX's quantised formats against MLX's own output (golden/quant/vectors.safetensors): codes, scales and biases bit
// for bit, dequantised values equal; packing round trips; the small floats exhaustively.
#include "base/half.h"
#include "base/quant.h"
#include "io/safetensors.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static mica_safetensors *vectors;

static int open_vectors(void **state) {
    (void)state;
    mica_error err = {0};
    vectors = mica_safetensors_open(MICA_SOURCE_DIR "/tests/golden/quant/vectors.safetensors", &err);
    if (!vectors) fprintf(stderr, "%s\n", err.msg);
    return vectors ? 0 : -1;
}

static int close_vectors(void **state) {
    (void)state;
    mica_safetensors_free(vectors);
    return 0;
}

static const mica_stored *golden(const char *key, const char *part) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", key, part);
    const mica_stored *t = mica_safetensors_find(vectors, name);
    if (!t) fail_msg("no golden tensor %s", name);
    return t;
}

static size_t differences(const mica_stored *want, const void *got, const char *what) {
    size_t size = mica_dtype_size(want->dtype), bad = 0;
    for (size_t i = 0; i < want->bytes / size; i++) {
        if (!memcmp((const char *)want->data + i * size, (const char *)got + i * size, size)) continue;
        if (++bad <= 4) {
            uint32_t a = 0, b = 0;
            memcpy(&a, (const char *)want->data + i * size, MICA_MIN(size, sizeof a));
            memcpy(&b, (const char *)got + i * size, MICA_MIN(size, sizeof b));
            print_error("%s[%zu]: MLX %x, mica %x\n", what, i, a, b);
        }
    }
    return bad;
}

// MLX's e8m0 scale byte wraps around for groups whose scale lies below 2^-127, so that 1e-40 comes back as 1e37;
// mica clamps it. Such groups are not compared (printed).
static size_t wrapped_groups(mica_quant_spec spec, const float *values, size_t n, bool *wrapped) {
    size_t count = 0;
    for (size_t g = 0; g < n / (size_t)spec.group_size; g++) {
        float most = 0;
        for (int i = 0; i < spec.group_size; i++) most = fmaxf(most, fabsf(values[g * (size_t)spec.group_size + (size_t)i]));
        bool mx = spec.mode == MICA_MXFP4 || spec.mode == MICA_MXFP8;
        wrapped[g] = mx && most > 0 && most / (spec.mode == MICA_MXFP4 ? 6.0f : 448.0f) < 0x1p-127f;
        count += wrapped[g];
    }
    return count;
}

static void check_against_mlx(mica_quant_spec spec, const char *what, const mica_stored *w) {
    size_t n = mica_stored_count(w), in = (size_t)w->shape[w->ndim - 1], rows = n / in;
    float *values = malloc(n * 4), *back = malloc(n * 4);
    mica_load_f32_run(w->dtype, w->data, 0, n, values);
    void *words = malloc(n), *scales = malloc(n), *biases = malloc(n);
    mica_quantize_rows(spec, w->dtype, values, rows, in, words, scales, biases);
    bool wrapped[1024] = {0};
    size_t skipped = wrapped_groups(spec, values, n, wrapped), group = (size_t)spec.group_size;
    if (skipped) print_message("%s: %zu groups not compared: MLX's scale byte wraps below 2^-127\n", what, skipped);
    for (size_t g = 0; skipped && g < n / group; g++) {
        if (!wrapped[g]) continue;
        size_t bytes = group * (size_t)spec.bits / 8;
        memcpy((char *)words + g * bytes, (const char *)golden(what, "q")->data + g * bytes, bytes);
        memcpy((char *)scales + g, (const char *)golden(what, "scales")->data + g, 1);
    }
    size_t bad = differences(golden(what, "q"), words, what);
    bad += differences(golden(what, "scales"), scales, what);
    if (spec.mode == MICA_AFFINE) bad += differences(golden(what, "biases"), biases, what);
    char name[64];
    snprintf(name, sizeof name, "%s.dq", what);
    const mica_stored *dq = mica_safetensors_find(vectors, name);
    if (dq) {
        mica_quant_rows q = {.spec = spec, .scale_dtype = w->dtype, .words = golden(what, "q")->data,
                             .scales = golden(what, "scales")->data};
        if (spec.mode == MICA_AFFINE) q.biases = golden(what, "biases")->data;
        mica_dequantize_rows(&q, in, 0, rows, back);
        for (size_t i = 0; i < n; i++) {
            float want = mica_load_f32(dq->dtype, dq->data, i);
            bad += memcmp(&want, &back[i], 4) != 0 && !(isnan(want) && isnan(back[i])) && !(want == 0 && back[i] == 0);
        }
    }
    free(values), free(back), free(words), free(scales), free(biases);
    if (bad) fail_msg("%s: %zu differences", what, bad);
}

static void affine_equals_mlx(void **state) {
    (void)state;
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    for (size_t d = 0; d < 3; d++)
        for (size_t b = 0; b < 6; b++)
            for (size_t g = 0; g < 3; g++) {
                char key[32];
                snprintf(key, sizeof key, "%s.%d.%d", dtypes[d], bits[b], groups[g]);
                check_against_mlx((mica_quant_spec){MICA_AFFINE, bits[b], groups[g]}, key, golden(dtypes[d], "w"));
            }
    check_against_mlx((mica_quant_spec){MICA_AFFINE, 3, 64}, "odd", golden("odd", "w"));
}

static void float_modes_equal_mlx(void **state) {
    (void)state;
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    for (size_t d = 0; d < 3; d++)
        for (int m = MICA_MXFP4; m < MICA_QUANT_MODE_COUNT; m++) {
            char key[32];
            snprintf(key, sizeof key, "%s.%s", dtypes[d], mica_quant_mode_name((mica_quant_mode)m));
            check_against_mlx(mica_quant_default((mica_quant_mode)m), key, golden(dtypes[d], "w"));
        }
}

// The vector that the format's description gives, quantised by hand.
static void described_vector(void **state) {
    (void)state;
    float w[64];
    for (int i = 0; i < 64; i++) w[i] = (float)(37 * i % 64 - 31) / 16;
    uint32_t words[8];
    float scale, bias;
    mica_quantize_rows((mica_quant_spec){MICA_AFFINE, 4, 64}, MICA_F32, w, 1, 64, words, &scale, &bias);
    const uint32_t want[8] = {0xf82b4d6f, 0x5e81a3c6, 0xb4e7092c, 0x1a4d6f82, 0x70a3c5e8, 0xd6f92b4e, 0x3c6f81a4, 0x92c5e70a};
    assert_memory_equal(words, want, sizeof want);
    assert_true(scale == -0.25f && bias == 2.0f);
    mica_quantize_rows((mica_quant_spec){MICA_AFFINE, 3, 64}, MICA_F32, w, 1, 64, words, &scale, &bias);
    assert_int_equal(words[0], 0xb3f0d5df);
    assert_int_equal(words[1], 0xb14e5e0a);
    assert_true(scale == -0.5f);
}

static void packing_round_trips(void **state) {
    (void)state;
    uint8_t codes[160], back[160];
    unsigned char words[160];
    for (int bits = 1; bits <= 8; bits++) {
        for (size_t i = 0; i < 160; i++) codes[i] = (uint8_t)((i * 151 + i * i * 31) & ((1u << bits) - 1));
        mica_pack_codes(bits, codes, 160, words);
        for (size_t i = 0; i < 160; i++) { // element i occupies bits [i*b, (i+1)*b)
            unsigned v = 0;
            for (int k = 0; k < bits; k++) {
                size_t at = i * (size_t)bits + (size_t)k;
                v |= (unsigned)(words[at / 8] >> (at % 8) & 1) << k;
            }
            assert_int_equal(v, codes[i]);
        }
        mica_unpack_codes(bits, words, 160, back);
        assert_memory_equal(codes, back, 160);
    }
}

static void small_floats(void **state) {
    (void)state;
    for (int c = 0; c < 256; c++) {
        float f = mica_e4m3_to_f32((uint8_t)c);
        if (!isnan(f)) assert_int_equal(mica_f32_to_e4m3(f), c);
        if (c < 16 && c != 8) assert_int_equal(mica_f32_to_e2m1(mica_e2m1_to_f32((uint8_t)c)), c);
        if ((c & 0x7F) < 0x7E) { // the midpoint goes to the even code
            float mid = (f + mica_e4m3_to_f32((uint8_t)(c + 1))) / 2;
            assert_int_equal(mica_f32_to_e4m3(mid), c & 1 ? c + 1 : c);
        }
    }
    assert_true(mica_e4m3_to_f32(0x7E) == 448.0f && mica_e4m3_to_f32(1) == 0x1p-9f);
    assert_int_equal(mica_f32_to_e4m3(1e9f), 0x7E);
    assert_true(mica_e8m0_to_f32(127) == 1.0f && mica_e8m0_to_f32(0) == 0x1p-127f);
}

static void specs(void **state) {
    (void)state;
    mica_error err = {0};
    assert_true(mica_quant_check((mica_quant_spec){MICA_AFFINE, 3, 32}, &err));
    assert_false(mica_quant_check((mica_quant_spec){MICA_AFFINE, 7, 32}, &err));
    assert_non_null(strstr(err.msg, "not 7"));
    assert_false(mica_quant_check((mica_quant_spec){MICA_AFFINE, 4, 48}, &err));
    assert_false(mica_quant_check((mica_quant_spec){MICA_NVFP4, 4, 32}, &err));
    assert_false(mica_quant_fits((mica_quant_spec){MICA_AFFINE, 4, 64}, 96));
    assert_false(mica_quant_fits((mica_quant_spec){MICA_AFFINE, 3, 16}, 16));
    assert_true(mica_quant_fits((mica_quant_spec){MICA_AFFINE, 3, 16}, 32));
    mica_quant_mode mode;
    assert_true(mica_quant_mode_parse("nvfp4", &mode) && mode == MICA_NVFP4);
    assert_false(mica_quant_mode_parse("gptq", &mode));
}

// NaN and infinite weights: some defined answer, no undefined behaviour (the sanitizers watch).
static void not_finite(void **state) {
    (void)state;
    float w[64];
    uint32_t words[16];
    float scales[4], biases[4];
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t b = 0; b < 3; b++)
        for (int m = 0; m < MICA_QUANT_MODE_COUNT; m++) {
            for (int i = 0; i < 64; i++) w[i] = i % 3 ? (float)i : bad[b];
            mica_quantize_rows(mica_quant_default((mica_quant_mode)m), MICA_F32, w, 1, 64, words, scales, biases);
            for (int i = 0; i < 64; i++) w[i] = bad[b];
            mica_quantize_rows(mica_quant_default((mica_quant_mode)m), MICA_F32, w, 1, 64, words, scales, biases);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(affine_equals_mlx), cmocka_unit_test(float_modes_equal_mlx), cmocka_unit_test(described_vector),
        cmocka_unit_test(packing_round_trips), cmocka_unit_test(small_floats), cmocka_unit_test(specs), cmocka_unit_test(not_finite),
    };
    return cmocka_run_group_tests_name("quant", tests, open_vectors, close_vectors);
}
