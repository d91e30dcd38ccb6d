// SPDX-License-Identifier: Apache-2.0
// Public sessions: the handle holds a use of the model and the past of a text (infer/past.h).
#include "mica/session.h"
#include "backend/model.h"
#include "infer/past.h"

struct mica_session {
    mica_model *model;
    mica_past *past;
};

// Takes over the past; the model has been retained for it. All of it is given back on failure.
static mica_session *wrap(mica_model *model, mica_past *past, mica_error *err) {
    mica_session *s = past ? mica_alloc(sizeof *s) : NULL;
    if (s) {
        *s = (mica_session){model, past};
        return s;
    }
    if (past) mica_fail_memory(err, sizeof *s, "a session");
    mica_past_free(past);
    mica_model_release(model);
    return NULL;
}

static mica_lm *retain(mica_model *model, mica_error *err) { return mica_native_retain(model, "sessions", err); }

bool mica_session_works(const mica_model *model) { return model->backend->load == mica_backend_cpu.load && !mica_model_is_closed(model); }

mica_session *mica_session_new(mica_model *model, mica_error *err) {
    mica_lm *lm = retain(model, err);
    return lm ? wrap(model, mica_past_new(lm, err), err) : NULL;
}

void mica_session_free(mica_session *s) {
    if (!s) return;
    mica_past_free(s->past);
    mica_model_release(s->model);
    mica_free(s);
}

// An answer that has acquired the past; it is still the caller's on failure.
static mica_answer *answer_on(mica_session *s, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    mica_ids ids = {0};
    mica_answer *a = NULL;
    if (mica_prompt_ids(s->model->lm, prompt, &ids, err)) a = mica_answer_new(s->model->lm, ids.data, ids.len, options, err);
    mica_ids_free(&ids);
    if (a) mica_answer_attach(a, s->past);
    return a;
}

mica_stream *mica_session_start(mica_session *s, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    if (!mica_model_retain(s->model, err)) return NULL;
    bool acquired = mica_past_acquire(s->past, err);
    mica_answer *a = acquired ? answer_on(s, prompt, options, err) : NULL;
    mica_stream *stream = a ? mica_stream_wrap(s->model, a) : NULL;
    if (stream) return stream;
    if (a) mica_answer_free(a), mica_fail_memory(err, sizeof a, "a stream");
    else if (acquired) mica_past_release(s->past);
    mica_model_release(s->model);
    return NULL;
}

const int32_t *mica_session_ids(const mica_session *s, size_t *count) {
    *count = 0;
    if (!mica_past_acquire(s->past, NULL)) return NULL;
    *count = s->past->ids.len;
    mica_past_release(s->past);
    return s->past->ids.data;
}

bool mica_session_truncate(mica_session *s, size_t count, mica_error *err) {
    if (!mica_past_acquire(s->past, err)) return false;
    bool ok = mica_past_truncate(s->past, count, err);
    mica_past_release(s->past);
    return ok;
}

mica_session *mica_session_fork(const mica_session *s, mica_error *err) {
    if (!mica_past_acquire(s->past, err)) return NULL;
    mica_session *to = retain(s->model, err) ? wrap(s->model, mica_past_fork(s->past, err), err) : NULL;
    mica_past_release(s->past);
    return to;
}

bool mica_session_save(const mica_session *s, const char *path, mica_error *err) {
    if (!mica_past_acquire(s->past, err)) return false;
    bool ok = mica_past_save(s->past, path, err);
    mica_past_release(s->past);
    return ok;
}

mica_session *mica_session_load(mica_model *model, const char *path, mica_error *err) {
    mica_lm *lm = retain(model, err);
    return lm ? wrap(model, mica_past_load(lm, path, err), err) : NULL;
}
