// SPDX-License-Identifier: Apache-2.0
// The trainer's checkpoint: a safetensors file with parameters ("param.<name>"), optimiser state ("state.<name>.<kind>") and, as metadata, the
// numbers that say where the run is. It is written under another name and renamed, so a reader sees the old file or the new one.
#include "base/base.h"
#include "engine/scope.h"
#include "io/safetensors.h"
#include "mica/ops.h"
#include "train/trainer.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION "1"
enum { NAME = 200 };

// ---- saving -----------------------------------------------------------------------------------------------
// Calls visit for each array of the checkpoint, always in the same order.
static bool each(const mica_trainer *t, bool (*visit)(mica_st_writer *w, const char *name, mica_array *a, mica_error *err), mica_st_writer *w,
                 mica_error *err) {
    char name[NAME];
    for (size_t i = 0; i < t->params.count; i++) {
        snprintf(name, sizeof name, "param.%s", t->params.items[i].name);
        if (!visit(w, name, *t->params.items[i].place, err)) return false;
        for (size_t k = 0; k < mica_optimizer_states(t->optimizer, i); k++) {
            const char *kind;
            mica_array *a = mica_optimizer_state(t->optimizer, i, k, &kind);
            snprintf(name, sizeof name, "state.%s.%s", t->params.items[i].name, kind);
            if (!visit(w, name, a, err)) return false;
        }
    }
    return true;
}

static bool declare(mica_st_writer *w, const char *name, mica_array *a, mica_error *err) {
    return mica_st_writer_declare(w, name, mica_array_dtype(a), mica_ndim(a), mica_shape(a), err);
}

static bool put(mica_st_writer *w, const char *name, mica_array *a, mica_error *err) {
    (void)name;
    return mica_st_writer_put(w, mica_data(a), mica_nbytes(a), err);
}

bool mica_trainer_save(const mica_trainer *t, const mica_train_state *state, const char *path, mica_error *err) {
    char step[24], epoch[24], index[24], piece[24], tokens[24], identity[24];
    snprintf(step, sizeof step, "%" PRId64, t->step);
    snprintf(epoch, sizeof epoch, "%" PRId64, state->epoch);
    snprintf(index, sizeof index, "%" PRId64, state->index);
    snprintf(piece, sizeof piece, "%" PRId64, state->piece);
    snprintf(tokens, sizeof tokens, "%" PRId64, state->tokens);
    snprintf(identity, sizeof identity, "%016" PRIx64, state->identity);
    const char *const metadata[] = {"mica.training", VERSION, "step", step, "epoch", epoch, "index", index, "piece", piece, "tokens", tokens, "identity", identity,
                                    "settings", state->settings ? state->settings : "", NULL};
    mica_st_writer *w = mica_st_writer_new(path, &(mica_st_options){.metadata = metadata}, err);
    bool ok = w && each(t, declare, w, err) && mica_st_writer_begin(w, err) && each(t, put, w, err) && mica_st_writer_commit(w, err);
    mica_st_writer_free(w);
    return ok;
}

// ---- restoring --------------------------------------------------------------------------------------------
static bool read_number(const mica_safetensors *st, const char *key, int base, uint64_t *out) {
    const char *text = mica_safetensors_metadata(st, key);
    char *end;
    *out = text ? strtoull(text, &end, base) : 0;
    return text && *text && !*end;
}

static bool read_count(const mica_safetensors *st, const char *key, int64_t *out) {
    uint64_t n;
    bool ok = read_number(st, key, 10, &n) && n <= INT64_MAX / 2; // room to count on
    *out = ok ? (int64_t)n : 0;
    return ok;
}

static mica_array *load(const mica_trainer *t, const mica_stored *stored, mica_error *err) {
    mica_scope_reset(t->scope);
    mica_array *a = mica_keep(t->scope, mica_from_data(t->scope, stored->data, stored->ndim, stored->shape, stored->dtype), err);
    mica_scope_reset(t->scope);
    return a;
}

static bool restore_parameter(mica_trainer *t, size_t i, const mica_safetensors *st, const char *path, mica_error *err) {
    char name[NAME];
    mica_array **place = t->params.items[i].place;
    snprintf(name, sizeof name, "param.%s", t->params.items[i].name);
    const mica_stored *stored = mica_safetensors_find(st, name);
    if (!stored || stored->dtype != mica_array_dtype(*place) || stored->ndim != mica_ndim(*place) ||
        memcmp(stored->shape, mica_shape(*place), (size_t)stored->ndim * sizeof(int64_t)))
        return mica_fail(err, MICA_ERR_FORMAT, "%s: no %s of the model's shape and type: not this run's checkpoint", path, name);
    mica_array *a = load(t, stored, err);
    if (!a) return false;
    mica_trainer_forget(t, mica_trainer_mapped(*place), false);
    mica_array_free(*place);
    *place = a;
    return true;
}

static bool restore_states(mica_trainer *t, size_t i, const mica_safetensors *st, mica_error *err) {
    char start[NAME];
    int n = snprintf(start, sizeof start, "state.%s.", t->params.items[i].name);
    for (size_t k = 0; k < mica_safetensors_count(st); k++) {
        const mica_stored *stored = mica_safetensors_at(st, k);
        if (strncmp(stored->name, start, (size_t)n) != 0) continue;
        mica_array *a = load(t, stored, err);
        if (!a) return false;
        if (mica_optimizer_restore(t->optimizer, i, stored->name + n, a, err)) continue;
        mica_array_free(a);
        return false;
    }
    return true;
}

// The first word in which the settings of two runs differ, "rank=8" for one and "rank=4" for the other.
static bool other_settings(const char *path, const char *theirs, const char *ours, mica_error *err) {
    while (theirs && ours && *theirs && *ours) {
        size_t n = strcspn(theirs, " "), m = strcspn(ours, " "), name = strcspn(ours, "=");
        if (n != m || memcmp(theirs, ours, n) != 0) {
            bool plain = name < m && name < n && memcmp(theirs, ours, name) == 0;
            bool number = plain && n - name > 16; // the model's or the data's
            if (number) return mica_fail(err, MICA_ERR_ARGUMENT, "%s: the checkpoint of a run with other %.*s", path, (int)name, ours);
            if (plain)
                return mica_fail(err, MICA_ERR_ARGUMENT, "%s: the checkpoint of a run with %.*s, not with %.*s", path, (int)n, theirs, (int)m, ours);
            break;
        }
        theirs += n + (theirs[n] == ' '), ours += m + (ours[m] == ' ');
    }
    return mica_fail(err, MICA_ERR_ARGUMENT, "%s: the checkpoint of a run with another model, data or options", path);
}

bool mica_trainer_restore(mica_trainer *t, mica_train_state *state, const char *path, mica_error *err) {
    mica_safetensors *st = mica_safetensors_open(path, err);
    mica_train_state read = {0};
    int64_t step = 0;
    const char *version = st ? mica_safetensors_metadata(st, "mica.training") : NULL;
    bool ok = st != NULL;
    if (ok && (!version || strcmp(version, VERSION) != 0)) ok = mica_fail(err, MICA_ERR_FORMAT, "%s: not a training checkpoint of version " VERSION, path);
    if (ok && !(read_count(st, "step", &step) && read_count(st, "epoch", &read.epoch) && read_count(st, "index", &read.index) &&
                read_count(st, "piece", &read.piece) && read_count(st, "tokens", &read.tokens) && read_number(st, "identity", 16, &read.identity)))
        ok = mica_fail(err, MICA_ERR_FORMAT, "%s: its numbers are damaged", path);
    if (ok && read.identity != state->identity)
        ok = other_settings(path, mica_safetensors_metadata(st, "settings"), state->settings, err);
    for (size_t i = 0; ok && i < t->params.count; i++) {
        ok = restore_parameter(t, i, st, path, err) && restore_states(t, i, st, err);
        if (i % 16 == 15) mica_safetensors_rest(st); // copied
    }
    if (ok) {
        mica_trainer_forget(t, 0, true);
        t->step = t->saved = step;
        mica_optimizer_set_step(t->optimizer, step);
        read.settings = state->settings;
        *state = read;
    }
    mica_safetensors_free(st);
    return ok;
}
