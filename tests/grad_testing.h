// SPDX-License-Identifier: Apache-2.0
// Finite differences against the gradients of graphs, in f64. A case is a graph of some leaves; it is checked with its leaves
// as they are, seen through a transposed view, and through a slice that skips and runs backwards.
#ifndef MICA_GRAD_TESTING_H
#define MICA_GRAD_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/scope.h"
#include "mica/fast.h"
#include "mica/ops.h"
#include "mica/random.h"
#include "mica/transforms.h"
#include <math.h>
#include <stdlib.h>

typedef mica_array *graph_fn(mica_scope *s, mica_array *const *x);

enum { MOST_INPUTS = 4, PLAIN = 0, TRANSPOSED, SLICED, VIEWS };

typedef struct grad_case {
    const char *op; // that the graph must contain
    const char *what;
    graph_fn *f;
    double low, high; // values of the leaves
    double step;      // of the differences; 0 = 1e-5
    int n;
    struct {
        int ndim;
        int64_t shape[MICA_MAX_DIMS];
    } in[MOST_INPUTS];
} grad_case;

typedef struct grad_run {
    const grad_case *c;
    mica_scope *s;
    int views, order;
    double *x[MOST_INPUTS]; // data of the leaves
    size_t size[MOST_INPUTS];
    int64_t shape[MOST_INPUTS][MICA_MAX_DIMS];
} grad_run;

static inline double test_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) / 9007199254740992.0;
}

static inline mica_array *random_like(mica_scope *s, const mica_array *a, uint64_t seed) {
    if (!a) return NULL;
    size_t n = (size_t)mica_size(a);
    double *v = malloc((n + 1) * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = 2 * test_random(&seed) - 1;
    mica_array *r = mica_from_data(s, v, mica_ndim(a), mica_shape(a), MICA_F64);
    free(v);
    return r;
}

// Fails the test with the scope's error.
static inline void check_scope(mica_scope *s, const char *what) {
    mica_error e = {0};
    if (mica_scope_error(s, &e)) fail_msg("%s: %s", what, e.msg);
}

static inline double *read_new(mica_array *a, const char *what) {
    mica_error e = {0};
    double *v = malloc(((size_t)mica_size(a) + 1) * sizeof *v);
    if (!a || !mica_read_f64(a, v, (size_t)mica_size(a), &e)) fail_msg("%s: %s", what, e.msg);
    return v;
}

// ---- a run of a case ----
static inline grad_run run_new(const grad_case *c, mica_scope *s, int views, int order) {
    grad_run r = {.c = c, .s = s, .views = views, .order = order};
    uint64_t seed = 11;
    for (int i = 0; i < c->n; i++) {
        int nd = c->in[i].ndim;
        r.size[i] = 1;
        for (int d = 0; d < nd; d++) {
            int64_t size = c->in[i].shape[views == TRANSPOSED ? nd - 1 - d : d];
            r.shape[i][d] = views == SLICED ? 2 * size + 1 : size;
            r.size[i] *= (size_t)r.shape[i][d];
        }
        r.x[i] = malloc((r.size[i] + 1) * sizeof(double));
        for (size_t k = 0; k < r.size[i]; k++) r.x[i][k] = c->low + (c->high - c->low) * test_random(&seed);
    }
    return r;
}

static inline void run_free(grad_run *r) {
    for (int i = 0; i < r->c->n; i++) free(r->x[i]);
}

// Every second element; the last axis backwards.
static inline mica_array *sliced_view(mica_scope *s, mica_array *leaf, const int64_t *shape, int ndim) {
    int64_t start[MICA_MAX_DIMS], stop[MICA_MAX_DIMS], step[MICA_MAX_DIMS];
    for (int d = 0; d < ndim; d++) {
        bool last = d == ndim - 1;
        start[d] = last ? 2 * shape[d] - 1 : 1, step[d] = last ? -2 : 2;
        stop[d] = last ? -2 * shape[d] - 2 : 2 * shape[d] + 1;
    }
    return mica_slice(s, leaf, start, stop, step);
}

// Builds the graph's output; leaves[i] get the leaves.
static inline mica_array *run_output(const grad_run *r, mica_array **leaves) {
    mica_array *x[MOST_INPUTS] = {NULL};
    for (int i = 0; i < r->c->n; i++) {
        int nd = r->c->in[i].ndim;
        leaves[i] = mica_from_data(r->s, r->x[i], nd, r->shape[i], MICA_F64);
        x[i] = leaves[i];
        if (r->views == TRANSPOSED) x[i] = mica_transpose(r->s, leaves[i], NULL);
        if (r->views == SLICED) x[i] = sliced_view(r->s, leaves[i], r->c->in[i].shape, nd);
    }
    return r->c->f(r->s, x);
}

static inline mica_array *weighted(mica_scope *s, mica_array *y, uint64_t seed) {
    return mica_sum(s, mica_mul(s, y, random_like(s, y, seed)), NULL, 0, false);
}

// A scalar: the output weighted (order 1), or the gradients of that weighted (order 2).
static inline mica_array *run_objective(const grad_run *r, mica_array **leaves) {
    mica_array *total = weighted(r->s, run_output(r, leaves), 5), *g[MOST_INPUTS] = {NULL};
    if (r->order == 1 || !total) return total;
    if (!mica_grad(r->s, total, leaves, (size_t)r->c->n, g)) return NULL;
    total = weighted(r->s, g[0], 6);
    for (int i = 1; i < r->c->n; i++) total = mica_add(r->s, total, weighted(r->s, g[i], 6 + (uint64_t)i));
    return total;
}

static inline double run_value(const grad_run *r) {
    mica_array *leaves[MOST_INPUTS];
    mica_scope_reset(r->s);
    double v = mica_item(run_objective(r, leaves));
    check_scope(r->s, r->c->what);
    return v;
}

static inline void check_contains(const grad_run *r) {
    for (uint32_t i = 0; i < mica_scope_count(r->s); i++)
        if (!strcmp(mica_op_table[mica_scope_node(r->s, i)->op].name, r->c->op)) return;
    fail_msg("the case '%s' does not contain %s", r->c->what, r->c->op);
}

static inline void check_near(const grad_run *r, double got, double want, double scale, const char *kind, int input, size_t at) {
    double step = r->c->step != 0 ? r->c->step : 1e-5, tolerance = (r->c->step != 0 ? 1e-4 : 2e-8) * (1 + scale);
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s (%s), views %d, order %d, %s of input %d at %zu: %.12g, differences of %g give %.12g", r->c->what, r->c->op,
                 r->views, r->order, kind, input, at, got, step, want);
}

static inline void check_gradient(const grad_case *c, mica_scope *s, int views, int order) {
    grad_run r = run_new(c, s, views, order);
    mica_array *leaves[MOST_INPUTS], *g[MOST_INPUTS];
    double *got[MOST_INPUTS], step = c->step != 0 ? c->step : 1e-5;
    mica_scope_reset(s);
    mica_array *total = run_objective(&r, leaves);
    if (!total || !mica_grad(s, total, leaves, (size_t)c->n, g)) check_scope(s, c->what);
    check_contains(&r);
    for (int i = 0; i < c->n; i++) got[i] = read_new(g[i], c->what);
    for (int i = 0; i < c->n; i++) {
        double scale = 0;
        for (size_t k = 0; k < r.size[i]; k++) scale = fmax(scale, fabs(got[i][k]));
        for (size_t k = 0; k < r.size[i]; k++) {
            double x = r.x[i][k];
            r.x[i][k] = x + step;
            double up = run_value(&r);
            r.x[i][k] = x - step;
            double down = run_value(&r);
            r.x[i][k] = x;
            check_near(&r, got[i][k], (up - down) / (2 * step), scale, "gradient", i, k);
        }
        free(got[i]);
    }
    run_free(&r);
}

// The output at x + step * tangents.
static inline double *shifted_output(grad_run *r, double step, size_t *n) {
    mica_array *leaves[MOST_INPUTS];
    double *x[MOST_INPUTS];
    for (int i = 0; i < r->c->n; i++) {
        uint64_t seed = 21 + (uint64_t)i;
        x[i] = r->x[i];
        r->x[i] = malloc((r->size[i] + 1) * sizeof(double));
        for (size_t k = 0; k < r->size[i]; k++) r->x[i][k] = x[i][k] + step * (2 * test_random(&seed) - 1);
    }
    mica_scope_reset(r->s);
    mica_array *y = run_output(r, leaves);
    *n = (size_t)mica_size(y);
    double *v = read_new(y, r->c->what);
    for (int i = 0; i < r->c->n; i++) {
        free(r->x[i]);
        r->x[i] = x[i];
    }
    return v;
}

static inline void check_jvp(const grad_case *c, mica_scope *s) {
    grad_run r = run_new(c, s, PLAIN, 1);
    mica_array *leaves[MOST_INPUTS], *tangents[MOST_INPUTS], *out;
    double step = c->step != 0 ? c->step : 1e-5;
    size_t n;
    mica_scope_reset(s);
    mica_array *y = run_output(&r, leaves);
    for (int i = 0; i < c->n; i++) tangents[i] = random_like(s, leaves[i], 21 + (uint64_t)i);
    if (!mica_jvp(s, &y, 1, leaves, tangents, (size_t)c->n, &out)) check_scope(s, c->what);
    double *got = read_new(out, c->what), scale = 0;
    double *up = shifted_output(&r, step, &n), *down = shifted_output(&r, -step, &n);
    for (size_t k = 0; k < n; k++) scale = fmax(scale, fabs(got[k]));
    for (size_t k = 0; k < n; k++) check_near(&r, got[k], (up[k] - down[k]) / (2 * step), scale, "jvp", 0, k);
    free(got);
    free(up);
    free(down);
    run_free(&r);
}
#endif
