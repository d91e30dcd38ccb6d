// SPDX-License-Identifier: Apache-2.0
// The public side of classification: checks, the list of results, and the end when the model is closed meanwhile.
#include "backend/model.h"

typedef struct watch {
    mica_model *model;
    const mica_classify_options *options;
} watch;

static bool go_on(void *context, size_t done, size_t count) {
    const watch *w = context;
    return (!w->options->progress || w->options->progress(w->options->context, done, count)) && !mica_model_is_closed(w->model);
}

static bool check(const mica_model *m, const mica_classify_options *o, mica_error *err) {
    if (!m->backend->classify) return mica_fail(err, MICA_ERR_UNSUPPORTED, "classify: backend \"%s\" cannot do this", m->backend->name);
    if (!mica_check_adapter(m, o->adapter, err)) return false;
    if (o->batch < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "batch must not be negative, got %d", (int)o->batch);
    if (o->calibrate && !o->label_count) return mica_fail(err, MICA_ERR_ARGUMENT, "calibrate: there are no labels");
    for (size_t l = 0; l < o->label_count; l++)
        if (!o->labels[l] || !o->labels[l][0]) return mica_fail(err, MICA_ERR_ARGUMENT, "label %zu is empty", l);
    return true;
}

bool mica_classify(mica_model *m, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *out,
                   mica_error *err) {
    mica_classify_options o = options ? *options : (mica_classify_options){0};
    watch w = {m, &o};
    mica_classify_options watched = o;
    watched.progress = go_on, watched.context = &w;
    *out = (mica_classes){0};
    if (!check(m, &o, err) || !mica_model_retain(m, err)) return false;
    out->items = mica_calloc(count, sizeof *out->items);
    bool ok = out->items || mica_fail_memory(err, count * sizeof *out->items, "classes");
    for (size_t i = 0; ok && i < count; i++) out->items[i].label = out->items[i].token = -1;
    if (ok) out->count = count;
    ok = ok && m->backend->classify(m->impl, texts, count, &watched, out, err);
    mica_model_release(m);
    if (!ok) mica_classes_free(out);
    return ok;
}

void mica_classes_free(mica_classes *c) {
    for (size_t i = 0; i < c->count; i++) {
        mica_free(c->items[i].text);
        mica_free(c->items[i].logprobs);
        mica_free(c->items[i].probabilities);
        mica_free(c->items[i].logits);
    }
    mica_free(c->items);
    *c = (mica_classes){0};
}
