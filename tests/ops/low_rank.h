// SPDX-License-Identifier: Apache-2.0
// Low-rank additions against the formula in double: odd sizes, joined modules, gates, magnitudes, every type, rows that choose among sets of different
// ranks, absent ones and none; and each row alone, bit for bit.
#ifndef MICA_TESTS_OPS_LOW_RANK_H
#define MICA_TESTS_OPS_LOW_RANK_H

#include "device/low_rank.h"
#include "ops/testing.h"

typedef struct low_rank_case {
    int64_t N, in;
    int modules;
    int32_t outs[MICA_LOW_RANK_MODULES], gate;
    size_t sets;
    int16_t ranks[MICA_LOW_RANK_SETS];
} low_rank_case;

static const low_rank_case low_rank_cases[] = {
    {1, 1, 1, {1}, 0, 1, {1}},
    {1, 100, 3, {32, 16, 21}, 0, 1, {8}},
    {1, 576, 1, {700}, 0, 1, {9}},
    {3, 33, 1, {37}, 0, 2, {3, 0}},
    {9, 40, 2, {64, 64}, MICA_GATE_SWIGLU, 4, {1, 17, 4, 5}},
    {8, 65, 2, {16, 16}, MICA_GATE_GEGLU, 1, {2}},
    {21, 7, 3, {16, 304, 5}, 0, 7, {1, 2, 0, 33, 8, 16, 64}},
    {90, 50, 2, {176, 176}, MICA_GATE_SWIGLU, 2, {8, 4}},
    {77, 70, 3, {48, 16, 16}, 0, 3, {8, 0, 11}},
    {5, 30, 2, {16, 3}, 0, 0, {0}},
    {0, 8, 1, {16}, 0, 1, {2}},
};

// A set's bytes, and the same numbers in double where they are wanted in: a [modules·rank, in], b [outs, rank], factors [modules + outs].
typedef struct low_rank_numbers {
    mica_array *bytes;
    double *a, *b, *factors;
} low_rank_numbers;

static double drawn(rig *r, mica_dtype t, unsigned char *to, size_t i, double low, double high) {
    double x = round_to(t, low + uniform(r) * (high - low));
    store(t, to, i, x);
    return x;
}

static low_rank_numbers draw_set(rig *r, const low_rank_case *c, const mica_params *p, size_t set) {
    low_rank_numbers n = {0};
    const mica_low_rank_form *form = &p->low_rank.forms[set];
    if (!form->rank) return n;
    size_t rank = (size_t)form->rank, outs = mica_low_rank_outs(p), modules = (size_t)c->modules, in = (size_t)c->in;
    bool magnitudes = form->b >= MICA_LOW_RANK_MAGNITUDES;
    mica_low_rank_layout at = mica_low_rank_lay_out(p, set, in);
    unsigned char *bytes = take_memory(r, at.bytes);
    n.a = take_memory(r, modules * rank * in * sizeof(double) + 1), n.b = take_memory(r, outs * rank * sizeof(double));
    n.factors = take_memory(r, (modules + outs) * sizeof(double));
    for (size_t i = 0; i < modules * rank * in; i++) n.a[i] = drawn(r, (mica_dtype)form->a, bytes, i, -1, 1);
    for (size_t o = 0; o < outs; o++)
        for (size_t j = 0; j < rank; j++) n.b[o * rank + j] = drawn(r, mica_low_rank_type_b(form), bytes + at.b, (o / 16 * rank + j) * 16 + o % 16, -0.3, 0.3);
    for (size_t i = 0; i < modules + (magnitudes ? outs : 0); i++) n.factors[i] = drawn(r, MICA_F32, bytes + at.factors, i, 0.5, 2);
    for (size_t i = 0; !magnitudes && i < outs; i++) n.factors[modules + i] = 1;
    n.bytes = mica_from_data(r->s, bytes, MICA_SHAPE((int64_t)at.bytes), MICA_U8);
    return n;
}

static size_t module_of(const low_rank_case *c, size_t o) {
    size_t i = 0;
    if (c->gate) return o / MICA_GATE_BLOCK % 2;
    for (size_t end = (size_t)c->outs[0]; o >= end; end += (size_t)c->outs[++i]) {}
    return i;
}

// One row, before its gate.
static void low_rank_row(const low_rank_case *c, const mica_params *p, int32_t choice, const low_rank_numbers *sets, const double *x, double *y) {
    if (choice < 0 || (size_t)choice >= c->sets || !sets[choice].bytes) return;
    const low_rank_numbers *n = &sets[choice];
    size_t rank = (size_t)p->low_rank.forms[choice].rank, outs = mica_low_rank_outs(p), modules = (size_t)c->modules, in = (size_t)c->in;
    for (size_t o = 0; o < outs; o++) {
        size_t module = module_of(c, o);
        for (size_t j = 0; j < rank; j++) {
            double z = 0;
            for (size_t i = 0; i < in; i++) z += n->a[(module * rank + j) * in + i] * x[i];
            y[o] += n->factors[module] * z * n->b[o * rank + j];
        }
        y[o] *= n->factors[modules + o];
    }
}

static void low_rank_gate(const low_rank_case *c, const double *y, double *out, size_t outs) {
    for (size_t i = 0; i < outs / (c->gate ? 2 : 1); i++) {
        double g = y[i / 16 * 32 + i % 16], u = y[i / 16 * 32 + 16 + i % 16];
        double silu = g / (1 + exp(-g)), gelu = 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
        out[i] = !c->gate ? y[i] : u * (c->gate == MICA_GATE_SWIGLU ? silu : gelu);
    }
}

// Every row of the result once more, by itself.
static void check_rows_alone(rig *r, const low_rank_case *c, const mica_params *p, mica_array *x, mica_array *y, mica_array *choice, mica_array **sets) {
    mica_array *all = mica_low_rank(r->s, x, y, choice, sets, c->sets, p);
    recorded(r, all);
    size_t row = c->N ? mica_nbytes(all) / (size_t)c->N : 0;
    unsigned char *bytes = take_memory(r, mica_nbytes(all) + 1), *one = take_memory(r, row + 1);
    assert_true(mica_read_bytes(all, bytes, mica_nbytes(all), NULL));
    for (int64_t i = 0; i < c->N; i += 1 + c->N / 10) {
        mica_array *in[] = {x, y, choice};
        for (int k = 0; k < 3; k++) in[k] = mica_slice_axis(r->s, in[k], 0, i, i + 1);
        mica_array *alone = mica_low_rank(r->s, in[0], in[1], in[2], sets, c->sets, p);
        recorded(r, alone);
        assert_true(mica_read_bytes(alone, one, row, NULL));
        if (memcmp(one, bytes + (size_t)i * row, row)) fail_msg("level %s: row %d of %d is another alone", mica_device_level(r->device), (int)i, (int)c->N);
    }
}

static void check_low_rank(rig *r, const low_rank_case *c, size_t variant) {
    static const mica_dtype types[] = {MICA_F32, MICA_F16, MICA_BF16};
    mica_params p = {.low_rank = {.modules = c->modules, .gate = c->gate, .dtype = (int32_t)types[(variant + 1) % 3]}};
    memcpy(p.low_rank.outs, c->outs, sizeof c->outs);
    low_rank_numbers sets[MICA_LOW_RANK_SETS];
    mica_array *arrays[MICA_LOW_RANK_SETS];
    for (size_t i = 0; i < c->sets; i++) {
        bool magnitudes = (variant + i) % 4 == 1;
        mica_dtype b = types[(variant + i + variant / 3) % 3];
        p.low_rank.forms[i] = (mica_low_rank_form){c->ranks[i], (int8_t)types[(variant + i) % 3], (int8_t)((int)b + (magnitudes ? MICA_LOW_RANK_MAGNITUDES : 0))};
        sets[i] = draw_set(r, c, &p, i);
        arrays[i] = sets[i].bytes;
    }
    size_t outs = mica_low_rank_outs(&p), width = outs / (c->gate ? 2 : 1);
    value x = randoms(r, types[variant % 3], 2, (int64_t[]){c->N, c->in}, -1, 1), y = randoms(r, MICA_F32, 2, (int64_t[]){c->N, (int64_t)outs}, -2, 2);
    value choice = randoms(r, MICA_I32, 1, &c->N, -1, (double)c->sets + 1), want = blank(r, (mica_dtype)p.low_rank.dtype, 2, (int64_t[]){c->N, (int64_t)width});
    for (int64_t i = 0; i < c->N && c->N < 4; i++) choice.x[i] = 0;
    mica_array *in[] = {put(r, &x, (layout)(variant % REPEATED)), put(r, &y, (layout)((variant + 1) % REPEATED)), put(r, &choice, DENSE)};
    if (variant % 3 == 0) check_rows_alone(r, c, &p, in[0], in[1], in[2], arrays);
    double *row = take_memory(r, (outs + 1) * sizeof *row);
    for (int64_t i = 0; wants_oracle(r) && i < c->N; i++) {
        memcpy(row, y.x + (size_t)i * outs, outs * sizeof *row);
        low_rank_row(c, &p, (int32_t)choice.x[i], sets, x.x + i * c->in, row);
        low_rank_gate(c, row, want.x + (size_t)i * width, outs);
    }
    expect_near(r, mica_low_rank(r->s, in[0], in[1], in[2], arrays, c->sets, &p), &want, 2e-5 * sqrt((double)c->in)); // sums of magnitude 100 in f32
}

static void case_low_rank(rig *r) {
    EACH(i, low_rank_cases) for (size_t variant = 0; variant < 9; variant++) check_low_rank(r, &low_rank_cases[i], variant);
    mica_params p = {.low_rank = {.modules = 1, .outs = {16}, .forms = {{2, MICA_F32, MICA_F32}}}};
    value x = randoms(r, MICA_F32, 2, (int64_t[]){2, 8}, -1, 1), y = randoms(r, MICA_F32, 2, (int64_t[]){2, 16}, -1, 1), none = blank(r, MICA_I32, 1, (int64_t[]){2});
    mica_array *set = mica_zeros(r->s, MICA_SHAPE(100), MICA_U8);
    expect_refusal(r, mica_low_rank(r->s, put_dense(r, &x), put_dense(r, &y), put_dense(r, &none), &set, 1, &p), "low_rank");
}
#endif
