// SPDX-License-Identifier: Apache-2.0
// One update: gradients of one or several batches, summed over tokens; their mean, clipped by its global norm, to the optimiser, parameter by
// parameter. Everything is a function of parameters, state and data, so that a run can be repeated bit for bit.
#include "train/trainer.h"
#include "engine/scope.h"
#include "engine/state.h"
#include "mica/ops.h"
#include "mica/transforms.h"
#include "train/optimizer.h"
#include <math.h>
#include <stdio.h>

bool mica_trainer_init(mica_trainer *t, mica_net *net, mica_parameters params, const mica_train_options *o, mica_error *err) {
    *t = (mica_trainer){.net = net, .params = params, .schedule = o->schedule, .clip = o->clip, .dropout = o->dropout, .seed = o->seed,
                        .narrow = o->optimizer.bf16_state && o->grad_accumulation < 2};
    t->scope = mica_scope_new(net->device, err);
    t->optimizer = t->scope ? mica_optimizer_new(&o->optimizer, params.count, err) : NULL;
    t->grads = t->optimizer ? mica_calloc(params.count, sizeof *t->grads) : NULL;
    if (t->optimizer && !t->grads) mica_fail_memory(err, params.count * sizeof *t->grads, "gradients");
    for (size_t i = 0; t->grads && i < params.count; i++) t->reused += (size_t)mica_size(*params.items[i].place) * 4;
    if (o->grad_accumulation > 1) t->reused *= 2;
    if (t->reused) mica_device_cache_more(net->device, t->reused, 0);
    if (t->grads && mica_schedule_check(&t->schedule, err)) return true;
    mica_trainer_free(t);
    return false;
}

static void drop_gradients(mica_trainer *t) {
    for (size_t i = 0; t->grads && i < t->params.count; i++) {
        mica_array_free(t->grads[i]);
        t->grads[i] = NULL;
    }
    t->loss = t->weight = 0;
    t->added = 0;
}

void mica_trainer_free(mica_trainer *t) {
    drop_gradients(t);
    if (t->reused) mica_device_cache_more(t->net->device, 0, t->reused);
    mica_free(t->grads);
    mica_optimizer_free(t->optimizer);
    mica_scope_free(t->scope);
    mica_parameters_free(&t->params);
    *t = (mica_trainer){0};
}

// ---- gradients --------------------------------------------------------------------------------------------
static double weight_of(const mica_text_batch *b) {
    double sum = 0;
    for (size_t i = 0; i < b->n; i++) sum += (double)b->weights[i];
    return sum;
}

// All in one evaluation.
bool mica_trainer_record(mica_trainer *t, const mica_text_batch *b, mica_array **out) {
    mica_scope *s = t->scope;
    size_t n = t->params.count;
    mica_losses l;
    mica_text_batch batch = *b;
    batch.recompute = t->recompute;
    batch.dropout = (float)t->dropout;
    batch.draw = mica_hash_mix(mica_hash_mix(t->seed, (uint64_t)t->step), (uint64_t)t->added); // of no state but the step
    mica_array **at = mica_scope_alloc(s, n * sizeof(mica_array *));
    for (size_t i = 0; at && i < n; i++) at[i] = *t->params.items[i].place;
    if (!at || !mica_net_loss(t->net, s, &batch, &t->params, &l) || !mica_grad(s, l.proxy, at, n, out)) return false;
    for (size_t i = 0; i < n; i++) {
        if (!t->narrow) out[i] = mica_astype(s, out[i], MICA_F32);
        if (t->grads[i]) out[i] = mica_add(s, out[i], t->grads[i]);
    }
    out[n] = l.loss;
    return out[n - 1] != NULL;
}

static bool keep_gradients(mica_trainer *t, mica_array **all, mica_error *err) {
    for (size_t i = 0; i < t->params.count; i++) {
        mica_array *kept = mica_keep(t->scope, all[i], err);
        if (!kept) return false;
        mica_array_free(t->grads[i]);
        t->grads[i] = kept;
    }
    return true;
}

bool mica_trainer_add(mica_trainer *t, const mica_text_batch *b, mica_error *err) {
    size_t n = t->params.count;
    mica_scope_reset(t->scope);
    mica_array **all = mica_calloc(n + 1, sizeof(mica_array *));
    if (!all) return mica_fail_memory(err, n * sizeof *all, "gradients");
    bool ok = mica_trainer_record(t, b, all) && mica_eval(t->scope, all, n + 1, err);
    if (!ok) mica_scope_error(t->scope, err);
    if (ok) t->loss += mica_item(all[n]), t->weight += weight_of(b);
    ok = ok && keep_gradients(t, all, err);
    mica_free(all);
    mica_scope_reset(t->scope);
    if (ok) t->added++;
    else drop_gradients(t);
    return ok;
}

// ---- updates ----------------------------------------------------------------------------------------------
static bool square_sum(mica_trainer *t, mica_array *a, float *sum, mica_error *err) {
    mica_scope *s = t->scope;
    mica_scope_reset(s);
    bool ok = mica_read_f32(mica_sum_squares(s, mica_astype(s, a, MICA_F32)), sum, 1, err);
    mica_scope_reset(s);
    return ok;
}

// Of the summed gradients; in order, so that it does not depend on threads.
static bool norm_of(mica_trainer *t, double *norm, mica_error *err) {
    double sum = 0;
    for (size_t i = 0; i < t->params.count; i++) {
        float square;
        if (!square_sum(t, t->grads[i], &square, err)) return false;
        sum += (double)square;
    }
    *norm = sqrt(sum);
    return true;
}

// Weights that were used straight from the mapped file are read no more once they have changed: their pages may go.
void mica_trainer_forget(mica_trainer *t, int64_t bytes, bool all) {
    enum { STEP = 32 << 20 };
    t->net->mapped_bytes -= bytes, t->stale += bytes;
    if (t->stale < (all ? 1 : STEP)) return;
    if (t->net->checkpoint) mica_checkpoint_rest(t->net->checkpoint);
    t->stale = 0;
}

int64_t mica_trainer_mapped(const mica_array *weight) { return weight->base->buffer->owner ? (int64_t)mica_nbytes(weight) : 0; }

static bool update_all(mica_trainer *t, double factor, double rate, mica_error *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < t->params.count; i++) {
        mica_array **place = t->params.items[i].place;
        int64_t mapped = mica_trainer_mapped(*place);
        ok = mica_optimizer_scaled(t->optimizer, t->scope, i, place, t->grads[i], factor, rate, err);
        if (!ok) break;
        mica_trainer_forget(t, mapped, false);
        mica_array_free(t->grads[i]);
        t->grads[i] = NULL;
    }
    mica_trainer_forget(t, 0, true);
    return ok;
}

// What is left to go on from.
static const char *last_good(const mica_trainer *t, char *text, size_t size) {
    if (t->saved) snprintf(text, size, "; the checkpoint of step %lld stays", (long long)t->saved);
    else snprintf(text, size, "; there is no checkpoint yet");
    return text;
}

bool mica_trainer_finite(mica_trainer *t, mica_error *err) {
    char good[80];
    bool ok = true;
    for (size_t i = 0; ok && i < t->params.count; i++) {
        float square;
        ok = square_sum(t, *t->params.items[i].place, &square, err);
        if (ok && !isfinite(square))
            ok = mica_fail(err, MICA_ERR_ARGUMENT, "step %lld: the run has diverged: %s is no longer finite%s", (long long)t->step, t->params.items[i].name,
                           last_good(t, good, sizeof good));
    }
    return ok;
}

bool mica_trainer_update(mica_trainer *t, mica_update *done, mica_error *err) {
    char good[80];
    double norm = 0, rate = mica_schedule_at(&t->schedule, t->step);
    *done = (mica_update){.loss = t->loss, .weight = t->weight, .learning_rate = rate};
    if (t->weight <= 0) return drop_gradients(t), mica_fail(err, MICA_ERR_ARGUMENT, "step %lld: no token of its examples is scored", (long long)t->step + 1);
    bool ok = norm_of(t, &norm, err);
    done->grad_norm = norm / t->weight;
    if (ok && !isfinite(t->loss + norm))
        ok = mica_fail(err, MICA_ERR_ARGUMENT, "step %lld: the loss is %g and the norm of its gradient %g: the run has diverged (a lower learning rate may help)%s",
                       (long long)t->step + 1, t->loss / t->weight, done->grad_norm, last_good(t, good, sizeof good));
    double factor = 1 / t->weight;
    if (t->clip > 0 && done->grad_norm > t->clip) factor *= t->clip / done->grad_norm;
    ok = ok && update_all(t, factor, rate, err);
    drop_gradients(t);
    if (ok) mica_optimizer_advance(t->optimizer), t->step++;
    return ok;
}

bool mica_trainer_measure(mica_trainer *t, const mica_text_batch *b, double *loss, double *weight, mica_error *err) {
    mica_losses l;
    mica_scope_reset(t->scope);
    bool ok = mica_net_loss(t->net, t->scope, b, &(mica_parameters){0}, &l) && mica_eval(t->scope, &l.loss, 1, err);
    if (!ok) mica_scope_error(t->scope, err);
    if (ok) *loss += mica_item(l.loss), *weight += weight_of(b);
    mica_scope_reset(t->scope);
    return ok;
}
