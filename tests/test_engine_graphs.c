// SPDX-License-Identifier: Apache-2.0
// Random graphs: everything evaluated at once, with its shared workspace and its overlays, must equal the same graph
// evaluated one node at a time, bit for bit; and again from the cached plan with other data. Prints the seed on failure.
#include "engine/state.h"
#include "base/rng.h"
#include "mica/fast.h"
#include "mica/ops.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { NODES = 48, MOST_ELEMENTS = 3000, ROOTS = 6 };

typedef struct graph {
    mica_scope *s;
    uint64_t seed, counter; // of the structure: equal seeds give equal graphs
    uint64_t data;          // of the leaves' values
    mica_array *nodes[NODES];
    size_t count;
} graph;

static uint32_t below(graph *g, uint32_t n) { return mica_philox_at(g->seed, g->counter++).v[0] % n; }

static mica_array *leaf(graph *g) {
    static const mica_dtype types[] = {MICA_F32, MICA_F32, MICA_F32, MICA_BF16, MICA_F16, MICA_F64, MICA_I32};
    int64_t shape[4];
    int ndim = (int)below(g, 4) + 1;
    size_t size = 1;
    for (int i = 0; i < ndim; i++) shape[i] = below(g, 12) ? 1 + below(g, 7) : 20, size *= (size_t)shape[i];
    double x[160000 / 8];
    for (size_t i = 0; i < size && i < MICA_COUNT(x); i++)
        x[i] = 4 * (double)mica_uniform_f32(mica_philox_at(g->data, (uint64_t)g->count << 32 | i).v[1]) - 2;
    if (size > MOST_ELEMENTS) return NULL;
    return mica_astype(g->s, mica_from_data(g->s, x, ndim, shape, MICA_F64), types[below(g, MICA_COUNT(types))]);
}

static bool is_float(const mica_array *a) { return mica_dtype_is_float(mica_array_dtype(a)); }

static mica_array *any(graph *g) { return g->nodes[below(g, (uint32_t)g->count)]; }
static mica_array *any_float(graph *g) {
    for (int i = 0; i < 8; i++) {
        mica_array *a = any(g);
        if (is_float(a)) return a;
    }
    return mica_astype(g->s, any(g), MICA_F32);
}

static mica_array *unary(graph *g) {
    mica_array *a = any_float(g);
    switch (below(g, 12)) {
    case 0: return mica_neg(g->s, a);
    case 1: return mica_tanh(g->s, a);
    case 2: return mica_sigmoid(g->s, a);
    case 3: return mica_silu(g->s, a);
    case 4: return mica_gelu_tanh(g->s, a);
    case 5: return mica_sin(g->s, a);
    case 6: return mica_abs(g->s, a);
    case 7: return mica_relu(g->s, a);
    case 8: return mica_mul_scalar(g->s, a, 0.5);
    case 9: return mica_erf(g->s, a);
    case 10: return mica_contiguous(g->s, a);
    default: return mica_clip(g->s, a, -1, 1);
    }
}

// b made to broadcast to a: its own shape if that fits, else one element of it.
static mica_array *fitting(graph *g, mica_array *a, mica_array *b) {
    b = mica_astype(g->s, b, mica_array_dtype(a));
    bool fits = mica_ndim(b) <= mica_ndim(a);
    for (int i = 1; fits && i <= mica_ndim(b); i++) fits = mica_dim(b, -i) == 1 || mica_dim(b, -i) == mica_dim(a, -i);
    if (fits) return b;
    b = mica_reshape(g->s, b, MICA_SHAPE(-1));
    int64_t at = below(g, (uint32_t)mica_size(b));
    return mica_slice_axis(g->s, b, 0, at, at + 1);
}

static mica_array *binary(graph *g) {
    mica_array *a = any(g), *b = below(g, 4) ? any(g) : a;
    if (below(g, 3) == 0 && mica_ndim(a) > 1 && mica_dim(a, -1) == mica_dim(a, -2)) b = mica_swap_axes(g->s, a, -1, -2);
    if (mica_array_dtype(a) == MICA_BOOL) a = mica_astype(g->s, a, MICA_I32);
    b = fitting(g, a, b);
    if (below(g, 2)) {
        mica_array *swap = a;
        a = b, b = swap;
    }
    switch (below(g, is_float(a) ? 9 : 6)) {
    case 0: return mica_add(g->s, a, b);
    case 1: return mica_sub(g->s, a, b);
    case 2: return mica_mul(g->s, a, b);
    case 3: return mica_maximum(g->s, a, b);
    case 4: return mica_where(g->s, mica_less(g->s, a, b), a, b);
    case 5: return mica_greater_equal(g->s, a, b);
    case 6: return mica_swiglu(g->s, a, b);
    case 7: return mica_div(g->s, a, mica_add_scalar(g->s, mica_abs(g->s, b), 1));
    default: return mica_geglu(g->s, a, b);
    }
}

static mica_array *view(graph *g) {
    mica_array *a = any(g);
    int ndim = mica_ndim(a), axis = ndim ? (int)below(g, (uint32_t)ndim) : 0;
    if (!ndim) return mica_expand_dims(g->s, a, 0);
    int64_t start[MICA_MAX_NDIM], stop[MICA_MAX_NDIM], step[MICA_MAX_NDIM], n = mica_dim(a, axis);
    switch (below(g, 7)) {
    case 0: return mica_transpose(g->s, a, NULL);
    case 1: return mica_swap_axes(g->s, a, axis, 0);
    case 2: return mica_reshape(g->s, a, MICA_SHAPE(-1));
    case 3: return mica_reshape(g->s, a, MICA_SHAPE(n, -1));
    case 4: // every other element, perhaps backwards
        for (int i = 0; i < ndim; i++) {
            bool back = below(g, 3) == 0;
            step[i] = (back ? -1 : 1) * (int64_t)(1 + below(g, 2));
            start[i] = back ? mica_dim(a, i) - 1 : 0;
            stop[i] = back ? -mica_dim(a, i) - 1 : mica_dim(a, i);
        }
        return mica_slice(g->s, a, start, stop, step);
    case 5: return n > 1 ? mica_slice_axis(g->s, a, axis, 1, n) : a;
    default:
        if (ndim > 3 || mica_size(a) > MOST_ELEMENTS / 3) return a;
        start[0] = 3;
        for (int i = 0; i < ndim; i++) start[i + 1] = mica_dim(a, i);
        return mica_broadcast_to(g->s, a, ndim + 1, start);
    }
}

static mica_array *along(graph *g) {
    mica_array *a = any_float(g), *b;
    if (!mica_ndim(a)) return mica_exp(g->s, mica_neg(g->s, mica_abs(g->s, a)));
    int axis = (int)below(g, (uint32_t)mica_ndim(a));
    switch (below(g, 12)) {
    case 0: return mica_sum(g->s, a, &axis, 1, below(g, 2));
    case 1: return mica_mean(g->s, a, &axis, 1, true);
    case 2: return mica_max(g->s, a, NULL, 0, false);
    case 3: return mica_softmax(g->s, a, axis);
    case 4: return mica_cumsum(g->s, a, axis);
    case 5: return mica_sort(g->s, a, axis);
    case 6: return mica_argsort(g->s, a, axis);
    case 7: return mica_rms_norm(g->s, a, NULL, 1e-5f);
    case 8: return mica_take(g->s, a, mica_argmax(g->s, a, axis, false), axis);
    case 9: return mica_concatenate(g->s, (mica_array *[]){a, a}, 2, axis);
    case 10:
        b = mica_slice_axis(g->s, a, axis, 0, (mica_dim(a, axis) + 1) / 2);
        return mica_slice_update(g->s, a, mica_neg(g->s, b), (int64_t[MICA_MAX_NDIM]){0}, NULL);
    default: return mica_logsumexp(g->s, a, axis, false);
    }
}

static mica_array *product(graph *g) {
    mica_array *a = any_float(g);
    if (mica_ndim(a) < 2) return mica_matmul(g->s, mica_reshape(g->s, a, MICA_SHAPE(-1)), mica_reshape(g->s, a, MICA_SHAPE(-1)));
    return mica_tanh(g->s, mica_matmul(g->s, a, mica_swap_axes(g->s, mica_sin(g->s, a), -1, -2)));
}

static void build(graph *g, mica_scope *s, uint64_t seed, uint64_t data) {
    *g = (graph){.s = s, .seed = seed, .data = data};
    while (g->count < NODES) {
        uint32_t kind = below(g, 16);
        mica_array *a = g->count < 3 || kind == 0 ? leaf(g) : kind < 5 ? unary(g) : kind < 9 ? binary(g) : kind < 12 ? view(g)
                        : kind < 15 ? along(g) : product(g);
        mica_error err = {0};
        if (mica_scope_error(s, &err)) fail_msg("seed %llu, node %zu: %s", (unsigned long long)seed, g->count, err.msg);
        if (a && mica_size(a) && mica_size(a) <= MOST_ELEMENTS && mica_ndim(a) <= 5) g->nodes[g->count++] = a;
    }
}

// The last node and some others.
static size_t choose_roots(graph *g, size_t *roots) {
    size_t count = 1 + below(g, ROOTS - 1);
    for (size_t i = 0; i < count; i++) roots[i] = i ? below(g, NODES) : NODES - 1;
    return count;
}

static void compare(uint64_t seed, size_t node, mica_array *a, mica_array *b) {
    size_t bytes = mica_nbytes(a);
    assert_int_equal(bytes, mica_nbytes(b));
    unsigned char *x = malloc(bytes), *y = malloc(bytes);
    mica_error err = {0};
    if (!mica_read_bytes(a, x, bytes, &err) || !mica_read_bytes(b, y, bytes, &err)) fail_msg("%s", err.msg);
    if (memcmp(x, y, bytes)) fail_msg("seed %llu: node %zu differs", (unsigned long long)seed, node);
    free(x), free(y);
}

// One graph, twice as a whole (the second time with other data, from the cache) and twice node by node.
static void check_graph(mica_scope *whole, mica_scope *apart, uint64_t seed) {
    mica_device_state *state = mica_scope_device(whole)->state;
    uint64_t built = 0;
    for (uint64_t data = 0; data < 2; data++) {
        graph g, h;
        size_t roots[ROOTS];
        mica_array *wanted[ROOTS];
        mica_error err = {0};
        build(&g, whole, seed, data + 1), build(&h, apart, seed, data + 1);
        size_t count = choose_roots(&g, roots);
        for (size_t i = 0; i < count; i++) wanted[i] = g.nodes[roots[i]];
        uint64_t before = state->plans_built;
        if (!mica_eval(whole, wanted, count, &err)) fail_msg("seed %llu: %s", (unsigned long long)seed, err.msg);
        built += state->plans_built - before;
        for (size_t i = 0; i < NODES; i++)
            if (!mica_eval(apart, &h.nodes[i], 1, &err)) fail_msg("seed %llu, node %zu: %s", (unsigned long long)seed, i, err.msg);
        for (size_t i = 0; i < count; i++) compare(seed, roots[i], wanted[i], h.nodes[roots[i]]);
        mica_scope_reset(whole), mica_scope_reset(apart);
    }
    assert_true(built <= 1);
}

static void check_level(const char *level, int threads, uint64_t first, uint64_t count) {
    mica_error err = {0};
    mica_device *d = mica_device_open("cpu", &(mica_device_options){level, threads}, &err), *other = mica_device_open("cpu", &(mica_device_options){level, 1}, &err);
    mica_scope *whole = d ? mica_scope_new(d, &err) : NULL, *apart = other ? mica_scope_new(other, &err) : NULL;
    if (!whole || !apart) fail_msg("%s", err.msg);
    for (uint64_t seed = first; seed < first + count; seed++) check_graph(whole, apart, seed);
    mica_scope_free(whole), mica_scope_free(apart);
    mica_device_close(d), mica_device_close(other);
}

static void whole_graphs_equal_their_nodes(void **state) {
    (void)state;
    uint64_t count = getenv("MICA_GRAPHS") ? strtoull(getenv("MICA_GRAPHS"), NULL, 10) : 300;
    check_level(NULL, 2, 1, count);
    check_level("ref", 3, 1000000, count / 3);
    assert_int_equal(mica_alloc_get_stats().live, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole_graphs_equal_their_nodes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
