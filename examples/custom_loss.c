// SPDX-License-Identifier: Apache-2.0
// A loss of one's own, on the public arrays: a small network learns y = sin(3x) from points of which one in eight is far off. The usual squared
// error follows those; the pseudo-Huber loss, √(1 + e²) - 1 for an error e, hardly does. Its gradient needs no code: it is built from ops.
//     cc custom_loss.c $(pkg-config --cflags --libs mica) -lm && ./a.out
#include <mica/array.h>
#include <mica/ops.h>
#include <mica/optimizer.h>
#include <mica/transforms.h>
#include <math.h>
#include <stdio.h>

enum { POINTS = 64, HIDDEN = 24, STEPS = 1500, PARAMETERS = 4 };

/** tanh(x a + b) c + d of x [POINTS, 1]; p: a [1, HIDDEN], b [HIDDEN], c [HIDDEN, 1], d [1]. */
static mica_array *network(mica_scope *s, mica_array *const *p, mica_array *x) {
    mica_array *h = mica_tanh(s, mica_add(s, mica_matmul(s, x, p[0]), p[1]));
    return mica_add(s, mica_matmul(s, h, p[2]), p[3]); /* [POINTS, 1] */
}

/** inputs: the parameters, x, y. ctx: whether the loss is the robust one. */
static bool loss(mica_scope *s, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)n_in, (void)n_out;
    mica_array *square = mica_square(s, mica_sub(s, network(s, in, in[PARAMETERS]), in[PARAMETERS + 1]));
    if (*(const bool *)ctx) square = mica_add_scalar(s, mica_sqrt(s, mica_add_scalar(s, square, 1)), -1);
    out[0] = mica_mean(s, square, NULL, 0, false); /* scalar */
    return out[0] != NULL;
}

/** Kept arrays of small numbers that look random. */
static bool start(mica_scope *s, mica_array **p, mica_error *err) {
    const int64_t shapes[PARAMETERS][2] = {{1, HIDDEN}, {1, HIDDEN}, {HIDDEN, 1}, {1, 1}};
    for (int i = 0; i < PARAMETERS; i++) {
        float values[HIDDEN];
        for (int k = 0; k < HIDDEN; k++) values[k] = (float)sin(12.9898 * (k + 1) + 78.233 * i) * (i == 0 ? 3.0f : 0.5f);
        if (!(p[i] = mica_keep(s, mica_from_data(s, values, 2, shapes[i], MICA_F32), err))) return false;
    }
    return true;
}

/** Trains on x, y and gives the largest error against the true curve; negative if something failed. */
static double fit(bool robust, const float *x, const float *y, mica_error *err) {
    mica_scope *s = mica_scope_new(NULL, err);
    mica_optimizer *optimizer = s ? mica_optimizer_new(&(mica_optimizer_options){.name = "adam"}, PARAMETERS, err) : NULL;
    mica_array *p[PARAMETERS] = {0}, *result[1 + PARAMETERS]; // the loss, its gradients
    bool ok = optimizer && start(s, p, err);
    for (int step = 0; ok && step < STEPS; step++) {
        mica_scope_reset(s);
        mica_array *in[] = {p[0], p[1], p[2], p[3], mica_from_data(s, x, MICA_SHAPE(POINTS, 1), MICA_F32), mica_from_data(s, y, MICA_SHAPE(POINTS, 1), MICA_F32)};
        ok = mica_value_and_grad(s, loss, &robust, in, 6, result, 1, NULL, PARAMETERS, result + 1) && mica_eval(s, result, 1 + PARAMETERS, err);
        for (int i = 0; ok && i < PARAMETERS; i++) ok = (result[1 + i] = mica_keep(s, result[1 + i], err)) != NULL; // an update resets the scope
        for (int i = 0; ok && i < PARAMETERS; i++) {
            ok = mica_optimizer_update(optimizer, s, (size_t)i, &p[i], result[1 + i], 0.01, err);
            mica_array_free(result[1 + i]);
        }
        if (ok) mica_optimizer_advance(optimizer);
    }
    float got[POINTS];
    double most = -1;
    if (ok && mica_read_f32(network(s, p, mica_from_data(s, x, MICA_SHAPE(POINTS, 1), MICA_F32)), got, POINTS, err))
        for (int i = 0; i < POINTS; i++) most = fmax(most, fabs((double)got[i] - sin(3 * (double)x[i])));
    for (int i = 0; i < PARAMETERS; i++) mica_array_free(p[i]);
    mica_optimizer_free(optimizer);
    mica_scope_free(s);
    return most;
}

int main(void) {
    float x[POINTS], y[POINTS];
    for (int i = 0; i < POINTS; i++) x[i] = (float)(2.0 * i / (POINTS - 1) - 1), y[i] = (float)sin(3 * (double)x[i]) + (i % 8 == 3 ? 4.0f : 0);
    mica_error err = {0};
    double squared = fit(false, x, y, &err), robust = squared < 0 ? -1 : fit(true, x, y, &err);
    if (robust < 0) return fprintf(stderr, "%s\n", err.msg), 1;
    printf("largest error: %.3f with the squared loss, %.3f with the robust one\n", squared, robust);
    return robust > squared / 2;
}
