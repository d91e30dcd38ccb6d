// SPDX-License-Identifier: Apache-2.0
// Optimisers as graphs over one parameter at a time: memory beyond parameters and state stays that of the largest parameter. What changes from
// step to step (rate, corrections) enters as data, so that every step runs the same plan. An optimiser is a row of the table at the end.
// Sources: Adam (Kingma & Ba 2014, arXiv 1412.6980), AdamW (Loshchilov & Hutter 2017, 1711.05101), Adafactor (Shazeer & Stern 2018, 1804.04235),
// Muon (Jordan 2024).
#include "train/optimizer.h"
#include "engine/rules.h"
#include "mica/ops.h"
#include "mica/random.h"
#include <math.h>
#include <string.h>

enum { MOST_STATES = 3 };

typedef struct slot { // what is kept for a parameter
    mica_array *state[MOST_STATES];
} slot;

typedef struct update { // one update being recorded; arrays are f32
    mica_scope *s;
    const mica_optimizer_options *o;
    double rate, step; // step: 1, 2, …
    mica_array *p, *g, *state[MOST_STATES]; // state: before; functions put what comes after
} update;

typedef struct optimizer_kind {
    const char *name, *states[MOST_STATES];
    double weight_decay;
    mica_array *(*next)(update *u); // the parameter's next value
    bool factored;                  // matrices: state 0 holds sums over columns [.., R], state 1 over rows [.., C]; others have state 0 only
} optimizer_kind;

struct mica_optimizer {
    mica_optimizer_options options;
    const optimizer_kind *kind;
    slot *slots;
    size_t count;
    int64_t step; // done
};

// ---- arithmetic -------------------------------------------------------------------------------------------
// A number that is data.
static mica_array *number(update *u, double value) {
    float v = (float)value;
    return mica_from_data(u->s, &v, 0, NULL, MICA_F32);
}
static mica_array *times(update *u, mica_array *a, double b) { return mica_mul(u->s, a, number(u, b)); }
// decay · before + (1 - decay) · now
static mica_array *average(update *u, mica_array *before, mica_array *now, double decay) {
    return mica_add(u->s, times(u, before, decay), times(u, now, 1 - decay));
}
static mica_array *decayed(update *u, double rate) { return u->o->weight_decay > 0 ? times(u, u->p, 1 - rate * u->o->weight_decay) : u->p; }
static mica_array *with_decay(update *u) {
    return u->o->weight_decay > 0 ? mica_add(u->s, u->g, times(u, u->p, u->o->weight_decay)) : u->g;
}
static mica_array *minus(update *u, mica_array *p, mica_array *step) { return mica_sub(u->s, p, step); }

// ---- optimisers -------------------------------------------------------------------------------------------
static mica_array *sgd(update *u) {
    mica_array *g = with_decay(u);
    if (u->o->momentum <= 0) return minus(u, u->p, times(u, g, u->rate));
    mica_array *v = times(u, u->state[0], u->o->momentum);
    v = mica_add(u->s, v, times(u, g, 1 - u->o->dampening));
    u->state[0] = v;
    mica_array *step = u->o->nesterov ? mica_add(u->s, g, times(u, v, u->o->momentum)) : v;
    return minus(u, u->p, times(u, step, u->rate));
}

static mica_array *adam_step(update *u) {
    double b1 = u->o->beta1, b2 = u->o->beta2, c1 = 1, c2 = 1;
    if (!u->o->no_bias_correction) c1 = 1 - pow(b1, u->step), c2 = 1 - pow(b2, u->step);
    u->state[0] = average(u, u->state[0], u->g, b1);
    u->state[1] = average(u, u->state[1], mica_square(u->s, u->g), b2);
    mica_array *root = times(u, mica_sqrt(u->s, u->state[1]), 1 / sqrt(c2));
    return mica_div(u->s, times(u, u->state[0], u->rate / c1), mica_add(u->s, root, number(u, u->o->eps)));
}
static mica_array *adam(update *u) {
    u->g = with_decay(u);
    return minus(u, u->p, adam_step(u));
}
static mica_array *adamw(update *u) { return minus(u, decayed(u, u->rate), adam_step(u)); }

static mica_array *rms(update *u, mica_array *a) { return mica_sqrt(u->s, mica_mean(u->s, mica_square(u->s, a), NULL, 0, false)); }

// 1 / sqrt of the factored second moment.
static mica_array *factored(update *u, mica_array *square, double beta2) {
    mica_scope *s = u->s;
    u->state[0] = average(u, u->state[0], mica_mean(s, square, (int[]){-1}, 1, false), beta2);
    u->state[1] = average(u, u->state[1], mica_mean(s, square, (int[]){-2}, 1, false), beta2);
    mica_array *rows = mica_rsqrt(s, mica_div(s, u->state[0], mica_mean(s, u->state[0], (int[]){-1}, 1, true)));
    return mica_mul(s, mica_expand_dims(s, rows, -1), mica_expand_dims(s, mica_rsqrt(s, u->state[1]), -2));
}

static mica_array *adafactor(update *u) {
    mica_scope *s = u->s;
    mica_array *square = mica_add(s, mica_square(s, u->g), number(u, 1e-30)), *step;
    double beta2 = 1 - pow(u->step, -0.8);
    mica_array *rate = times(u, mica_maximum(s, number(u, 1e-3), rms(u, u->p)), u->rate);
    if (mica_ndim(u->p) >= 2) step = mica_mul(s, factored(u, square, beta2), u->g);
    else {
        u->state[0] = average(u, u->state[0], square, beta2);
        step = mica_mul(s, mica_rsqrt(s, u->state[0]), u->g);
    }
    step = mica_mul(s, rate, mica_div(s, step, mica_maximum(s, number(u, 1), rms(u, step))));
    if (u->o->beta1 > 0) step = u->state[2] = average(u, u->state[2], step, u->o->beta1);
    mica_array *p = u->o->weight_decay > 0 ? mica_sub(s, u->p, mica_mul(s, u->p, times(u, rate, u->o->weight_decay))) : u->p;
    return minus(u, p, step);
}

// Newton–Schulz iteration towards the nearest orthogonal matrix.
static mica_array *orthogonal(update *u, mica_array *x) {
    mica_scope *s = u->s;
    bool tall = mica_dim(x, 0) > mica_dim(x, 1);
    if (tall) x = mica_transpose(s, x, NULL);
    mica_array *norm = mica_sqrt(s, mica_sum(s, mica_square(s, x), NULL, 0, false));
    x = mica_div(s, x, mica_add(s, norm, number(u, 1e-7)));
    for (int i = 0; i < 5; i++) {
        mica_array *a = mica_matmul(s, x, mica_transpose(s, x, NULL));
        mica_array *b = mica_add(s, times(u, a, -4.7750), times(u, mica_matmul(s, a, a), 2.0315));
        x = mica_add(s, times(u, x, 3.4445), mica_matmul(s, b, x));
    }
    return tall ? mica_transpose(s, x, NULL) : x;
}

static mica_array *muon(update *u) {
    mica_scope *s = u->s;
    double m = u->o->momentum, rate = u->rate;
    mica_array *g = with_decay(u), *v = u->state[0] = average(u, u->state[0], g, m);
    mica_array *step = average(u, v, g, m); // Nesterov's
    int64_t rows = mica_dim(step, 0);
    if (mica_ndim(step) >= 2) {
        int64_t shape[MICA_MAX_DIMS], columns = mica_size(step) / MICA_MAX(rows, (int64_t)1);
        memcpy(shape, mica_shape(step), (size_t)mica_ndim(step) * sizeof *shape);
        step = mica_reshape(s, orthogonal(u, mica_reshape(s, step, MICA_SHAPE(rows, columns))), mica_ndim(u->p), shape);
        rate *= sqrt(fmax(1, (double)mica_dim(u->p, -2) / (double)mica_dim(u->p, -1)));
    }
    return minus(u, u->p, times(u, step, rate));
}

static const optimizer_kind kinds[] = {
    {.name = "adamw", .states = {"m", "v"}, .weight_decay = 0.01, .next = adamw},
    {.name = "adam", .states = {"m", "v"}, .next = adam},
    {.name = "sgd", .states = {"v"}, .next = sgd},
    {.name = "adafactor", .states = {"rows", "columns", "m"}, .next = adafactor, .factored = true},
    {.name = "muon", .states = {"v"}, .weight_decay = 0.01, .next = muon},
};

// ---- objects ----------------------------------------------------------------------------------------------
static const optimizer_kind *find(const char *name, mica_error *err) {
    if (!name) return &kinds[0]; // apart from the loop: GCC 12 gets strcmp(name ? name : "…", …) over a table wrong at -O3
    for (size_t i = 0; i < MICA_COUNT(kinds); i++)
        if (strcmp(name, kinds[i].name) == 0) return &kinds[i];
    mica_fail(err, MICA_ERR_ARGUMENT, "optimizer: there is no \"%.40s\"; there are adamw, adam, sgd, adafactor and muon", name);
    return NULL;
}

static void set_default(double *v, double value) {
    if (*v == 0) *v = value; // not given
}

static bool check(const mica_optimizer_options *o, mica_error *err) {
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        return mica_fail(err, MICA_ERR_ARGUMENT, "optimizer: betas must be in [0, 1), got %g and %g", o->beta1, o->beta2);
    if (!(o->momentum >= 0 && o->momentum < 1)) return mica_fail(err, MICA_ERR_ARGUMENT, "optimizer: momentum must be in [0, 1), got %g", o->momentum);
    if (!(o->eps >= 0 && isfinite(o->eps))) return mica_fail(err, MICA_ERR_ARGUMENT, "optimizer: eps must not be negative, got %g", o->eps);
    if (!isfinite(o->weight_decay)) return mica_fail(err, MICA_ERR_ARGUMENT, "optimizer: weight_decay is not finite");
    return true;
}

mica_optimizer *mica_optimizer_new(const mica_optimizer_options *options, size_t count, mica_error *err) {
    mica_optimizer_options o = options ? *options : (mica_optimizer_options){0};
    const optimizer_kind *kind = find(o.name, err);
    if (!kind || !check(&o, err)) return NULL;
    bool adam_like = kind->next == adam || kind->next == adamw;
    if (adam_like) set_default(&o.beta1, 0.9), set_default(&o.beta2, 0.999), set_default(&o.eps, 1e-8);
    if (kind->next == muon) set_default(&o.momentum, 0.95);
    set_default(&o.weight_decay, kind->weight_decay);
    mica_optimizer *opt = mica_calloc(1, sizeof *opt);
    slot *slots = mica_calloc(count, sizeof *slots);
    if (!opt || !slots) return mica_free(opt), mica_free(slots), mica_fail_memory(err, count * sizeof *slots, "an optimizer"), NULL;
    *opt = (mica_optimizer){.options = o, .kind = kind, .slots = slots, .count = count};
    opt->options.name = kind->name;
    return opt;
}

void mica_optimizer_free(mica_optimizer *o) {
    if (!o) return;
    for (size_t i = 0; i < o->count; i++)
        for (int k = 0; k < MOST_STATES; k++) mica_array_free(o->slots[i].state[k]);
    mica_free(o->slots);
    mica_free(o);
}

// Does a parameter of this shape have this state, and of which shape?
static bool state_shape(const mica_optimizer *o, int k, const mica_array *p, int *ndim, int64_t *shape) {
    const optimizer_kind *kind = o->kind;
    bool matrix = mica_ndim(p) >= 2;
    if (!kind->states[k]) return false;
    if (kind->next == sgd && o->options.momentum <= 0) return false;
    if (kind->factored && k == 1 && !matrix) return false;
    if (kind->factored && k == 2 && o->options.beta1 <= 0) return false;
    *ndim = mica_ndim(p);
    memcpy(shape, mica_shape(p), (size_t)*ndim * sizeof *shape);
    if (kind->factored && matrix && k < 2) {
        if (k == 1) shape[*ndim - 2] = shape[*ndim - 1]; // without its rows; state 0 without its columns
        --*ndim;
    }
    return true;
}

static mica_dtype state_type(const mica_optimizer *o) { return o->options.bf16_state ? MICA_BF16 : MICA_F32; }

// The state as it is, or zeros before the first update. False if a restored one has another shape than it must.
static bool collect(const mica_optimizer *o, const slot *kept, const mica_array *p, update *u, mica_error *err) {
    int64_t shape[MICA_MAX_DIMS];
    int ndim;
    for (int k = 0; k < MOST_STATES; k++) {
        if (!state_shape(o, k, p, &ndim, shape)) continue;
        mica_array *a = kept->state[k] ? kept->state[k] : mica_zeros(u->s, ndim, shape, state_type(o));
        if (a && (mica_array_dtype(a) != state_type(o) || mica_ndim(a) != ndim || memcmp(mica_shape(a), shape, (size_t)ndim * sizeof *shape)))
            return mica_fail(err, MICA_ERR_FORMAT, "optimizer %s: its state \"%s\" has another shape or type than its parameter needs", o->kind->name,
                             o->kind->states[k]);
        u->state[k] = mica_astype(u->s, a, MICA_F32);
    }
    return true;
}

// Of parameter `index`; what: 0 the parameter itself, 1… its states.
static mica_array *rounded(const mica_optimizer *o, mica_scope *s, size_t index, int what, mica_array *a) {
    uint64_t stream = mica_hash_mix((uint64_t)o->step, (uint64_t)index << 2 | (uint64_t)what);
    return mica_random_round(s, mica_random_key(s, o->options.seed, stream), a);
}

// What was computed replaces what was; all or nothing.
static bool take_over(mica_scope *s, slot *to, mica_array *const *state, mica_array **parameter, mica_array *next, mica_error *err) {
    mica_array *all[MOST_STATES + 1], *kept[MOST_STATES + 1] = {0}, **place[MOST_STATES + 1];
    size_t n = 0;
    all[n] = next, place[n++] = parameter;
    for (int k = 0; k < MOST_STATES; k++)
        if (state[k]) all[n] = state[k], place[n++] = &to->state[k];
    bool ok = mica_eval(s, all, n, err);
    for (size_t i = 0; ok && i < n; i++) ok = (kept[i] = mica_keep(s, all[i], err));
    for (size_t i = 0; i < n; i++) {
        mica_array_free(ok ? *place[i] : kept[i]);
        if (ok) *place[i] = kept[i];
    }
    mica_scope_reset(s);
    return ok;
}

static bool fits(const mica_optimizer *o, size_t index, const mica_array *parameter, const mica_array *gradient, mica_error *err) {
    if (index >= o->count) return mica_fail(err, MICA_ERR_ARGUMENT, "optimizer: there are %zu parameters, asked for number %zu", o->count, index);
    int ndim = mica_ndim(parameter);
    return (gradient && mica_ndim(gradient) == ndim && !memcmp(mica_shape(gradient), mica_shape(parameter), (size_t)ndim * sizeof(int64_t))) ||
           mica_fail(err, MICA_ERR_ARGUMENT, "optimizer: the gradient of parameter %zu has another shape than it", index);
}

// Records an update into *u; the parameter's next value, or NULL.
static mica_array *record(const mica_optimizer *o, mica_scope *s, size_t index, mica_array *parameter, mica_array *gradient, double rate, update *u, mica_error *err) {
    if (!fits(o, index, parameter, gradient, err)) return NULL;
    *u = (update){.s = s, .o = &o->options, .rate = rate, .step = (double)(o->step + 1), .p = mica_astype(s, parameter, MICA_F32),
                  .g = mica_astype(s, gradient, MICA_F32)};
    if (!collect(o, &o->slots[index], parameter, u, err)) return NULL;
    mica_array *next = o->kind->next(u);
    mica_dtype type = mica_array_dtype(parameter);
    if (next && type != MICA_F32) next = type == MICA_BF16 && o->options.stochastic ? rounded(o, s, index, 0, next) : mica_astype(s, next, type);
    for (int k = 0; next && o->options.bf16_state && k < MOST_STATES; k++)
        if (u->state[k] && !(u->state[k] = rounded(o, s, index, k + 1, u->state[k]))) next = NULL;
    if (!next) mica_scope_error(s, err);
    return next;
}

static bool by_graph(mica_optimizer *o, mica_scope *s, size_t index, mica_array **parameter, mica_array *gradient, double rate, mica_error *err) {
    update u;
    mica_array *next = record(o, s, index, *parameter, gradient, rate, &u, err);
    if (!next) return mica_scope_reset(s), false;
    return take_over(s, &o->slots[index], u.state, parameter, next, err);
}

// ---- Adam in place ------------------------------------------------------------------------------------------
// Of f32 parameters and moments: one pass over them, in the memory where they are, with the same bits as the graph.
static bool in_place(const mica_optimizer *o, const mica_array *parameter) {
    const mica_optimizer_options *w = &o->options;
    bool adam_like = o->kind->next == adamw || (o->kind->next == adam && w->weight_decay <= 0);
    return adam_like && !w->bf16_state && mica_array_dtype(parameter) == MICA_F32 && mica_node_contiguous(parameter);
}

static mica_array *adam_numbers(const mica_optimizer *o, mica_scope *s, double scale, double rate) {
    const mica_optimizer_options *w = &o->options;
    double step = (double)(o->step + 1), c1 = 1, c2 = 1;
    if (!w->no_bias_correction) c1 = 1 - pow(w->beta1, step), c2 = 1 - pow(w->beta2, step);
    float n[MICA_ADAM_NUMBERS] = {
        [MICA_ADAM_SCALE] = (float)scale, [MICA_ADAM_BETA1] = (float)w->beta1, [MICA_ADAM_NEW1] = (float)(1 - w->beta1),
        [MICA_ADAM_BETA2] = (float)w->beta2, [MICA_ADAM_NEW2] = (float)(1 - w->beta2), [MICA_ADAM_RATE] = (float)(rate / c1),
        [MICA_ADAM_ROOT] = (float)(1 / sqrt(c2)), [MICA_ADAM_EPS] = (float)w->eps,
        [MICA_ADAM_KEEP] = w->weight_decay > 0 ? (float)(1 - rate * w->weight_decay) : 1};
    return mica_from_data(s, n, MICA_SHAPE(MICA_ADAM_NUMBERS), MICA_F32);
}

// What may be written: the array itself, or *made, a copy of it, or zeros where there is none yet.
static mica_array *own(mica_scope *s, mica_array *a, const mica_array *like, mica_array **made, mica_error *err) {
    if (a && mica_is_alone(a)) return a;
    return *made = mica_keep_alone(mica_scope_device(s), a ? a : like, !a, err);
}

static bool adam_in_place(mica_optimizer *o, mica_scope *s, size_t index, mica_array **parameter, mica_array *gradient, double scale, double rate, mica_error *err) {
    if (!fits(o, index, *parameter, gradient, err)) return false;
    mica_array **place[] = {parameter, &o->slots[index].state[0], &o->slots[index].state[1]}, *made[3] = {0}, *at[3];
    bool ok = true;
    for (int k = 1; k < 3; k++) // a restored one
        if (*place[k] && (mica_array_dtype(*place[k]) != MICA_F32 || !mica_same_shape(*place[k], *parameter)))
            return mica_fail(err, MICA_ERR_FORMAT, "optimizer %s: its state \"%s\" has another shape or type than its parameter needs", o->kind->name,
                             o->kind->states[k - 1]);
    for (int k = 0; ok && k < 3; k++) ok = (at[k] = own(s, *place[k], *parameter, &made[k], err));
    mica_array *next = ok ? mica_adam_step(s, at[0], mica_astype(s, gradient, MICA_F32), at[1], at[2], adam_numbers(o, s, scale, rate)) : NULL;
    if (ok && !next) mica_scope_error(s, err);
    ok = next && mica_eval(s, &next, 1, err);
    mica_scope_reset(s); // lets go of them
    for (int k = 0; k < 3; k++) {
        if (made[k]) mica_array_free(ok ? *place[k] : made[k]);
        if (made[k] && ok) *place[k] = made[k];
    }
    return ok;
}

bool mica_optimizer_scaled(mica_optimizer *o, mica_scope *s, size_t index, mica_array **parameter, mica_array *gradient, double scale, double rate, mica_error *err) {
    if (index < o->count && in_place(o, *parameter)) {
        bool ok = adam_in_place(o, s, index, parameter, gradient, scale, rate, err);
        if (!ok) mica_scope_reset(s);
        return ok;
    }
    if (scale != 1) {
        float f = (float)scale;
        gradient = mica_mul(s, mica_astype(s, gradient, MICA_F32), mica_from_data(s, &f, 0, NULL, MICA_F32));
    }
    return by_graph(o, s, index, parameter, gradient, rate, err);
}

bool mica_optimizer_update(mica_optimizer *o, mica_scope *s, size_t index, mica_array **parameter, mica_array *gradient, double rate, mica_error *err) {
    return mica_optimizer_scaled(o, s, index, parameter, gradient, 1, rate, err);
}

bool mica_optimizer_size(mica_optimizer *o, mica_scope *s, size_t index, mica_array *parameter, mica_optimizer_need *need, mica_error *err) {
    update u;
    mica_plan_size size;
    *need = (mica_optimizer_need){0};
    if (in_place(o, parameter)) { // beside the moments, a copy of what is not its own
        *need = (mica_optimizer_need){.results = mica_is_alone(parameter) ? 0 : mica_nbytes(parameter), .states = 2 * mica_nbytes(parameter)};
        return true;
    }
    mica_array *zero = mica_zeros(s, mica_ndim(parameter), mica_shape(parameter), MICA_F32), *all[MOST_STATES + 1];
    mica_array *gradient = mica_mul(s, mica_contiguous(s, zero), mica_zeros(s, 0, NULL, MICA_F32)); // where it is one array in truth
    size_t n = 1;
    all[0] = record(o, s, index, parameter, gradient, 0, &u, err);
    for (int k = 0; k < MOST_STATES; k++)
        if (all[0] && u.state[k]) all[n++] = u.state[k], need->states += mica_nbytes(u.state[k]);
    bool ok = all[0] && mica_eval_size(s, all, n, &size, err);
    if (ok) need->workspace = size.workspace, need->results = size.results;
    mica_scope_reset(s);
    return ok;
}

void mica_optimizer_advance(mica_optimizer *o) { o->step++; }
int64_t mica_optimizer_step(const mica_optimizer *o) { return o->step; }
void mica_optimizer_set_step(mica_optimizer *o, int64_t step) { o->step = step; }

// ---- saving and restoring -----------------------------------------------------------------------------------
size_t mica_optimizer_states(const mica_optimizer *o, size_t index) {
    size_t n = 0;
    for (int k = 0; k < MOST_STATES; k++) n += o->slots[index].state[k] != NULL;
    return n;
}

mica_array *mica_optimizer_state(const mica_optimizer *o, size_t index, size_t state, const char **name) {
    for (int k = 0; k < MOST_STATES; k++)
        if (o->slots[index].state[k] && state-- == 0) return *name = o->kind->states[k], o->slots[index].state[k];
    return NULL;
}

bool mica_optimizer_restore(mica_optimizer *o, size_t index, const char *name, mica_array *value, mica_error *err) {
    for (int k = 0; k < MOST_STATES && index < o->count; k++) {
        if (!o->kind->states[k] || strcmp(o->kind->states[k], name) != 0) continue;
        mica_array_free(o->slots[index].state[k]);
        o->slots[index].state[k] = value;
        return true;
    }
    return mica_fail(err, MICA_ERR_ARGUMENT, "optimizer %s: no state \"%.40s\" of parameter %zu", o->kind->name, name, index);
}
