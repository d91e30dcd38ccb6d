// SPDX-License-Identifier: Apache-2.0
// The peak of a run: what is there before the first step, the optimiser's state to come, and the larger of two moments: gradients being
// computed, and parameters being updated. Workspace and results come from the plans of the graphs themselves (trainer_size.c).
#include "train/memory.h"
#include "engine/state.h"
#include <string.h>

// Heap and mapped weights; the workspace that is there by now will give way to the run's.
static int64_t there(const mica_run_memory *m) {
    const mica_net *net = m->trainer->net;
    const mica_buffer *workspace = net->device->state->workspace;
    return (int64_t)(mica_alloc_get_stats().bytes - m->before) + net->mapped_bytes - (workspace ? (int64_t)workspace->size : 0);
}

static size_t plans(const mica_run_memory *m, size_t plan) {
    size_t all = plan * MICA_MAX(m->train->shapes, (size_t)1);
    return MICA_MIN(all, MICA_MAX(plan, (size_t)MICA_MOST_PLAN_BYTES));
}

// States that are there already, of a resumed run.
static size_t states_there(const mica_trainer *t) {
    size_t bytes = 0;
    const char *name;
    for (size_t i = 0; i < t->params.count; i++)
        for (size_t k = 0; k < mica_optimizer_states(t->optimizer, i); k++) bytes += mica_nbytes(mica_optimizer_state(t->optimizer, i, k, &name));
    return bytes;
}

// The peak over the whole run, in bytes, with so many blocks computed again.
static bool predict_with(const mica_run_memory *m, int32_t recompute, int64_t *bytes, mica_error *err) {
    mica_trainer_need need;
    size_t validation = 0;
    m->trainer->recompute = recompute;
    if (!mica_trainer_size(m->trainer, &m->train->largest, &need, err)) return false;
    if (m->valid->largest.n && !mica_trainer_measure_size(m->trainer, &m->valid->largest, &validation, err)) return false;
    size_t gradients = need.gradients * (m->accumulates ? 2 : 1), updating = need.gradients + need.update; // sums so far, and with one batch more
    *bytes = there(m) + (int64_t)(need.states - states_there(m->trainer) + MICA_MAX(need.workspace, validation) + MICA_MAX(gradients, updating) +
                                  plans(m, need.plan));
    return true;
}

// The fewest blocks with which it fits, or all of them: the peak falls with their number. (Not where blocks are so small that other things
// make the peak; then none is tried first.)
static bool fewest(const mica_run_memory *m, int32_t all, int64_t budget, int64_t *bytes, mica_error *err) {
    int32_t low = MICA_MIN(1, all), high = all;
    if (!predict_with(m, 0, bytes, err)) return false;
    if (*bytes <= budget) return true;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (!predict_with(m, middle, bytes, err)) return false;
        if (*bytes <= budget) high = middle;
        else low = middle + 1;
    }
    return predict_with(m, low, bytes, err);
}

bool mica_run_fit(const mica_run_memory *m, const char *mode, int64_t budget, int64_t *predicted, mica_error *err) {
    int32_t all = mica_trained_blocks(m->trainer->net, &m->trainer->params);
    bool given = budget > 0, automatic = strcmp(mode, "auto") == 0, full = strcmp(mode, "on") == 0;
    size_t available = mica_memory_available();
    if (!given) budget = available == SIZE_MAX ? INT64_MAX : there(m) + (int64_t)(available / 10 * 9); // some is left for others
    bool ok = automatic ? fewest(m, all, budget, predicted, err) : predict_with(m, full ? all : 0, predicted, err);
    if (!ok || *predicted <= budget || (!given && !automatic)) return ok;
    const char *more = automatic || full ? "; fewer or shorter examples at a time (batch_size, max_seq) take less" : "; checkpointing of gradients takes less";
    return mica_fail(err, MICA_ERR_NO_MEMORY, "training is predicted to take %lld bytes with %d of %d blocks computed again, %s is %lld%s", (long long)*predicted,
                     (int)m->trainer->recompute, (int)all, given ? "the memory budget" : "what the machine has", (long long)budget, more);
}
