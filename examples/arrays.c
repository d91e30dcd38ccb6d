// SPDX-License-Identifier: Apache-2.0
// Arrays in a nutshell: ops record a graph in a scope, mica_eval runs it, views cost nothing, the first error sticks.
//     cc arrays.c $(pkg-config --cflags --libs mica) && ./a.out
#include <mica/array.h>
#include <mica/ops.h>
#include <stdio.h>

static void show(const char *what, mica_array *a) {
    mica_error err = {0};
    char *text = mica_to_string(a, &err);
    printf("%s = %s\n", what, text ? text : err.msg);
    mica_string_free(text);
}

int main(void) {
    mica_error err = {0};
    mica_scope *s = mica_scope_new(NULL, &err); // NULL: the CPU
    if (!s) return fprintf(stderr, "%s\n", err.msg), 1;

    // Softmax attention of 2 queries on 3 keys, written out.
    mica_array *q = mica_from_data(s, (float[]){1, 0, 0, 1}, MICA_SHAPE(2, 2), MICA_F32);        /* [T=2, Dh=2] */
    mica_array *k = mica_from_data(s, (float[]){1, 0, 0, 1, 1, 1}, MICA_SHAPE(3, 2), MICA_F32);  /* [3, Dh] */
    mica_array *v = mica_reshape(s, mica_arange(s, 0, 6, 1, MICA_F32), MICA_SHAPE(3, 2));        /* [3, Dh] */
    mica_array *weights = mica_softmax(s, mica_matmul(s, q, mica_transpose(s, k, NULL)), -1);    /* [T, 3] */
    mica_array *out = mica_matmul(s, weights, v);                                                /* [T, Dh] */

    // Nothing has been computed yet; one call computes both results and shares what they share.
    if (!mica_eval(s, (mica_array *[]){weights, out}, 2, &err)) return fprintf(stderr, "%s\n", err.msg), 1;
    show("weights", weights);
    show("out", out);
    show("out, transposed view", mica_transpose(s, out, NULL));

    // A wrong shape does not crash: it is remembered with its culprit, and everything after it is NULL.
    mica_array *wrong = mica_add(s, out, mica_zeros(s, MICA_SHAPE(7), MICA_F32));
    mica_scope_error(s, &err);
    printf("%s; the sum is %s\n", err.msg, wrong ? "an array" : "NULL");

    mica_scope_free(s); // and with it every array above
    return wrong != NULL;
}
