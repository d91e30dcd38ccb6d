// SPDX-License-Identifier: Apache-2.0
// What a run takes, before its first step: the very graphs of a gradient and of the updates are recorded and planned, and their plans say how
// large the workspace is. So whatever changes in kernels and graphs changes the prediction, too.
#include "engine/plan.h"
#include "train/trainer.h"

static bool gradient_size(mica_trainer *t, const mica_text_batch *b, mica_trainer_need *need, mica_error *err) {
    size_t n = t->params.count;
    mica_plan_size size;
    mica_scope_reset(t->scope);
    mica_array **all = mica_calloc(n + 1, sizeof(mica_array *));
    if (!all) return mica_fail_memory(err, n * sizeof *all, "gradients");
    bool ok = mica_trainer_record(t, b, all);
    if (!ok) mica_scope_error(t->scope, err);
    ok = ok && mica_eval_size(t->scope, all, n + 1, &size, err);
    mica_free(all);
    mica_scope_reset(t->scope);
    if (ok) need->workspace = size.workspace, need->gradients = size.results, need->plan = size.plan;
    return ok;
}

bool mica_trainer_size(mica_trainer *t, const mica_text_batch *b, mica_trainer_need *need, mica_error *err) {
    *need = (mica_trainer_need){0};
    if (!gradient_size(t, b, need, err)) return false;
    for (size_t i = 0; i < t->params.count; i++) {
        mica_optimizer_need one;
        if (!mica_optimizer_size(t->optimizer, t->scope, i, *t->params.items[i].place, &one, err)) return false;
        need->states += one.states;
        need->update = MICA_MAX(need->update, one.results);
        need->workspace = MICA_MAX(need->workspace, one.workspace);
    }
    return true;
}

bool mica_trainer_measure_size(mica_trainer *t, const mica_text_batch *b, size_t *workspace, mica_error *err) {
    mica_losses l;
    mica_plan_size size = {0};
    mica_scope_reset(t->scope);
    bool ok = mica_net_loss(t->net, t->scope, b, &(mica_parameters){0}, &l);
    if (!ok) mica_scope_error(t->scope, err);
    ok = ok && mica_eval_size(t->scope, &l.loss, 1, &size, err);
    mica_scope_reset(t->scope);
    *workspace = size.workspace;
    return ok;
}
