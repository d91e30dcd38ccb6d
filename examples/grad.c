// SPDX-License-Identifier: Apache-2.0
// Gradients: fits y = w x + b to points of a line by gradient descent. mica_value_and_grad appends the gradient's nodes
// to the graph of the loss; one mica_eval computes loss and gradients together.
//     cc grad.c $(pkg-config --cflags --libs mica) -lm && ./a.out
#include <mica/array.h>
#include <mica/ops.h>
#include <mica/transforms.h>
#include <math.h>
#include <stdio.h>

enum { POINTS = 32, STEPS = 300 };

/** outputs[0] = mean((w x + b - y)^2) of inputs w, b, x, y. */
static bool loss(mica_scope *s, void *ctx, mica_array *const *in, size_t n_in, mica_array **out, size_t n_out) {
    (void)ctx, (void)n_in, (void)n_out;
    mica_array *prediction = mica_add(s, mica_mul(s, in[0], in[2]), in[1]); /* [POINTS] */
    mica_array *error = mica_sub(s, prediction, in[3]);
    out[0] = mica_mean(s, mica_square(s, error), NULL, 0, false); /* scalar */
    return out[0] != NULL;
}

int main(void) {
    float x[POINTS], y[POINTS];
    for (int i = 0; i < POINTS; i++) x[i] = (float)i / POINTS, y[i] = 3 * x[i] - 1;

    mica_error err = {0};
    mica_scope *s = mica_scope_new(NULL, &err);
    double w = 0, b = 0, value = 0;
    for (int step = 0; s && step < STEPS; step++) {
        mica_scope_reset(s); // the graph of the step before is gone; its memory and plan are used again
        mica_array *in[] = {mica_scalar(s, w, MICA_F32), mica_scalar(s, b, MICA_F32), mica_from_data(s, x, MICA_SHAPE(POINTS), MICA_F32),
                            mica_from_data(s, y, MICA_SHAPE(POINTS), MICA_F32)};
        mica_array *results[3]; // loss, d loss / d w, d loss / d b
        if (!mica_value_and_grad(s, loss, NULL, in, 4, &results[0], 1, NULL, 2, &results[1])) break;
        if (!mica_eval(s, results, 3, &err)) break;
        value = mica_item(results[0]);
        w -= 0.5 * mica_item(results[1]);
        b -= 0.5 * mica_item(results[2]);
        if (step % 100 == 0) printf("step %3d: loss %.6f\n", step, value);
    }
    bool failed = !s || mica_scope_error(s, &err);
    if (failed) fprintf(stderr, "%s\n", err.msg);
    else printf("y = %.3f x %+.3f (wanted 3 x - 1), loss %.2g\n", w, b, value);
    mica_scope_free(s);
    return failed || fabs(w - 3) > 0.01 || fabs(b + 1) > 0.01;
}
