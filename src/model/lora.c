// SPDX-License-Identifier: Apache-2.0
// Adapters of linear layers. The two products run in the adapter's own type, or in f32 where it is not that of the activations, as mlx-lm
// has it; their result is rounded to the activations' type before it is added.
#include "model/lora.h"
#include "mica/ops.h"
#include "mica/random.h"
#include "model/weights.h"

// ---- loading ------------------------------------------------------------------------------------------
static bool keep_matrix(mica_loader *ld, const mica_stored *t, bool transposed, mica_array **out) {
    mica_scope_reset(ld->scope);
    mica_array *a = mica_from_data(ld->scope, t->data, t->ndim, t->shape, t->dtype);
    if (transposed) a = mica_contiguous(ld->scope, mica_transpose(ld->scope, a, NULL));
    *out = mica_keep(ld->scope, mica_name(a, t->name), ld->err);
    mica_scope_reset(ld->scope);
    if (*out) ld->bytes += (int64_t)mica_nbytes(*out);
    return *out != NULL;
}

// DoRA: magnitude over the length of the rows [at, at+n) of weight + scale·(a·b)ᵀ, into factors[n].
static bool row_factors(mica_loader *ld, const mica_adapter_part *p, const mica_lora *lora, const float *rows, int64_t at, int64_t n, int64_t in,
                        float *factors) {
    mica_scope *s = ld->scope;
    mica_scope_reset(s);
    mica_array *w = mica_from_data(s, rows, MICA_SHAPE(n, in), MICA_F32);
    mica_array *a = mica_astype(s, lora->a, MICA_F32), *b = mica_astype(s, mica_slice_axis(s, lora->b, 1, at, at + n), MICA_F32);
    mica_array *delta = mica_matmul(s, mica_transpose(s, b, NULL), mica_transpose(s, a, NULL)); // [n, in]
    mica_array *whole = mica_add(s, w, mica_mul_scalar(s, delta, (double)p->scale));
    mica_array *length = mica_sqrt(s, mica_sum(s, mica_square(s, whole), (int[]){1}, 1, false));
    mica_array *m = mica_astype(s, mica_from_data(s, p->magnitude->data, p->magnitude->ndim, p->magnitude->shape, p->magnitude->dtype), MICA_F32);
    return mica_read_f32(mica_div(s, mica_slice_axis(s, m, 0, at, at + n), length), factors, (size_t)n, ld->err);
}

// To be trained, the magnitude is kept as it is: lengths change with the adapter.
static bool keep_raw(mica_loader *ld, const mica_adapter_part *p, mica_linear *l) {
    mica_scope_reset(ld->scope);
    const mica_stored *t = p->magnitude;
    mica_array *m = mica_astype(ld->scope, mica_from_data(ld->scope, t->data, t->ndim, t->shape, t->dtype), MICA_F32);
    l->lora.magnitude = mica_keep(ld->scope, m, ld->err);
    l->lora.raw = true;
    l->lora.bias = l->bias, l->bias = NULL;
    mica_scope_reset(ld->scope);
    return l->lora.magnitude != NULL;
}

static bool load_magnitude(mica_loader *ld, const mica_adapter_part *p, mica_weight *w, mica_linear *l) {
    if (ld->separate) return keep_raw(ld, p, l);
    enum { ROWS = 128 };
    float *rows = mica_alloc((size_t)(ROWS * l->in) * sizeof *rows), *factors = mica_alloc((size_t)l->out * sizeof *factors);
    bool ok = rows && factors ? mica_weight_unpack(w, ld->err) : mica_fail_memory(ld->err, (size_t)l->in, "an adapter");
    for (int64_t at = 0, n; ok && at < l->out; at += n) {
        n = MICA_MIN(l->out - at, (int64_t)ROWS);
        for (int64_t i = 0; i < n; i++) mica_weight_row(w, at + i, rows + i * l->in);
        ok = row_factors(ld, p, &l->lora, rows, at, n, l->in, factors + at);
    }
    if (ok) {
        mica_scope_reset(ld->scope);
        mica_array *m = mica_astype(ld->scope, mica_from_data(ld->scope, factors, MICA_SHAPE(l->out), MICA_F32), ld->dtype);
        ok = (l->lora.magnitude = mica_keep(ld->scope, m, ld->err));
        l->lora.bias = l->bias, l->bias = NULL;
    }
    mica_scope_reset(ld->scope);
    mica_free(rows);
    mica_free(factors);
    return ok;
}

bool mica_lora_load(mica_loader *ld, const char *module, mica_weight *w, mica_linear *l) {
    mica_adapter_part *p = mica_adapter_find(ld->adapter, module);
    if (!p) return true;
    p->used = true;
    l->lora = (mica_lora){.scale = p->scale, .input_only = p->input_only};
    return mica_adapter_fits(p, w, ld->err) && keep_matrix(ld, p->a, p->transposed, &l->lora.a) && keep_matrix(ld, p->b, p->transposed, &l->lora.b) &&
           (!p->magnitude || load_magnitude(ld, p, w, l));
}

bool mica_lora_all_used(const mica_adapter *a, mica_error *err) {
    for (size_t i = 0; a && i < a->count; i++)
        if (!a->parts[i].used) return mica_fail(err, MICA_ERR_FORMAT, "adapter: the model has no layer %s", a->parts[i].module);
    return true;
}

void mica_lora_free(mica_lora *lora) {
    mica_array_free(lora->a);
    mica_array_free(lora->b);
    mica_array_free(lora->magnitude);
    mica_array_free(lora->bias);
    *lora = (mica_lora){0};
}

// ---- use ------------------------------------------------------------------------------------------------
// x · m in their type if it is the same, else in f32.
static mica_array *times(mica_scope *s, mica_array *x, mica_array *m) {
    bool same = x && m && mica_array_dtype(x) == mica_array_dtype(m) && mica_array_dtype(m) != MICA_F32;
    return same ? mica_matmul(s, x, m) : mica_matmul_as(s, x, m, MICA_F32);
}

static mica_array *add_rounded(mica_scope *s, const mica_lora *lora, mica_array *z, mica_array *y) {
    return mica_add(s, y, mica_astype(s, mica_mul_scalar(s, z, (double)lora->scale), mica_array_dtype(y)));
}

// y + scale · z · m, the product rounded to y's type before it is added. In f32 the scale goes to z, which is smaller.
static mica_array *add_scaled(mica_scope *s, const mica_lora *lora, mica_array *z, mica_array *m, mica_array *y) {
    mica_dtype type = mica_array_dtype(y);
    if (z && mica_array_dtype(z) == MICA_F32) return mica_add(s, y, mica_matmul_as(s, mica_mul_scalar(s, z, (double)lora->scale), m, type));
    return add_rounded(s, lora, times(s, z, m), y);
}

// Which values go is a function of the draw and their place alone: the same when they are computed again, for any number of threads.
static bool drops(const mica_lora *lora) { return lora->draw && lora->dropout > 0; }
static mica_array *dropped(mica_scope *s, const mica_lora *lora, uint64_t stream, mica_array *x, const mica_array *other) {
    if (!drops(lora) || !x) return x;
    if (mica_array_dtype(x) != mica_array_dtype(other)) x = mica_astype(s, x, MICA_F32); // what it meets there
    double stay = 1 - (double)lora->dropout;
    mica_array *kept = mica_random_bernoulli(s, mica_random_key(s, lora->draw, stream), stay, mica_ndim(x), mica_shape(x));
    return mica_where(s, kept, mica_mul_scalar(s, x, 1 / stay), mica_zeros(s, 0, NULL, mica_array_dtype(x)));
}

mica_array *mica_lora_lengths(mica_scope *s, const mica_linear *l) {
    mica_array *w = mica_linear_weight(s, l);
    if (l->lora.a) {
        mica_array *a = mica_astype(s, l->lora.a, MICA_F32), *b = mica_astype(s, l->lora.b, MICA_F32);
        mica_array *delta = mica_matmul(s, mica_transpose(s, b, NULL), mica_transpose(s, a, NULL)); // [out, in]
        w = mica_add(s, w, mica_mul_scalar(s, delta, (double)l->lora.scale));
    }
    return mica_sqrt(s, mica_sum(s, mica_square(s, w), (int[]){1}, 1, false));
}

static mica_array *times_factor(mica_scope *s, mica_array *y, mica_array *factor) {
    return y && factor ? mica_mul(s, y, mica_astype(s, factor, mica_array_dtype(y))) : y;
}

mica_array *mica_lora_apply(mica_scope *s, const mica_lora *lora, mica_array *x, mica_array *y) {
    if (!x || !y) return NULL;
    y = add_scaled(s, lora, times(s, dropped(s, lora, 0, x, lora->a), lora->a), lora->b, y);
    return lora->raw ? y : times_factor(s, y, lora->magnitude);
}

mica_array *mica_lora_add(mica_scope *s, const mica_linear *l, mica_array *x, mica_array *y) {
    const mica_lora *lora = &l->lora;
    if (!lora->a || !x || !y) return y;
    y = mica_lora_apply(s, lora, x, y);
    if (lora->raw) // the lengths' gradient does not count (Liu et al. 2024, 2402.09353)
        y = times_factor(s, y, mica_div(s, mica_astype(s, lora->magnitude, MICA_F32), mica_stop_gradient(s, mica_lora_lengths(s, l))));
    return lora->bias ? mica_add(s, y, mica_astype(s, lora->bias, mica_array_dtype(y))) : y;
}

mica_array *mica_lora_add_rows(mica_scope *s, const mica_lora *lora, mica_array *ids, mica_array *y) {
    if (!lora->a || !y) return y;
    mica_array *rows = mica_take(s, lora->a, ids, 0);
    if (!drops(lora)) return add_scaled(s, lora, rows, lora->b, y);
    return add_rounded(s, lora, dropped(s, lora, 0, mica_matmul(s, rows, lora->b), lora->b), y); // as mlx-lm
}

mica_array *mica_lora_add_head(mica_scope *s, const mica_lora *lora, mica_array *x, mica_array *y) {
    if (!lora->a || lora->input_only || !x || !y) return y;
    x = dropped(s, lora, 1, x, lora->b);
    return add_scaled(s, lora, times(s, x, mica_transpose(s, lora->b, NULL)), mica_transpose(s, lora->a, NULL), y);
}
