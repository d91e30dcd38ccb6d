// SPDX-License-Identifier: Apache-2.0
// Public handles of models and streams. They hold what a backend gave and pass calls on to it. What a model holds lives as long as the handle
// is open or somebody uses it: a call under way, a stream, a batch, a session. Each takes its use under the lock that closing takes too.
#include "backend/model.h"
#include "mica/chat.h"
#include <string.h>

struct mica_stream {
    mica_model *model;
    void *impl;
    struct mica_stream *next, **link; // among the open streams of the model
};

// ---- models -------------------------------------------------------------------------------------------------
mica_model *mica_model_wrap(const mica_backend *backend, void *impl, const mica_info *info, mica_error *err) {
    mica_model *m = mica_calloc(1, sizeof *m);
    if (!m) return mica_fail_memory(err, sizeof *m, "a model"), NULL;
    *m = (mica_model){.backend = backend, .impl = impl, .lm = backend->load == mica_backend_cpu.load ? impl : NULL, .info = *info};
    m->users = 1;
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

mica_model *mica_model_load(const char *path, const mica_load_options *options, mica_error *err) {
    const mica_backend *b = mica_backend_find(options ? options->backend : NULL, !(options && options->python), err);
    mica_info info = {0};
    void *impl = b ? b->load(b->context, path, options, &info, err) : NULL;
    mica_model *m = impl ? mica_model_wrap(b, impl, &info, err) : NULL;
    if (impl && !m) b->unload(impl);
    return m;
}

static void destroy(mica_model *m) {
    pthread_mutex_destroy(&m->lock);
    mica_free(m);
}

bool mica_model_retain(mica_model *m, mica_error *err) {
    pthread_mutex_lock(&m->lock);
    bool open = !m->closed;
    m->users += open;
    pthread_mutex_unlock(&m->lock);
    return open || mica_fail(err, MICA_ERR_ARGUMENT, "the model is closed");
}

// Behind the lock the handle may be gone: whoever frees it finds no use any more and destroys it.
void mica_model_release(mica_model *m) {
    pthread_mutex_lock(&m->lock);
    const mica_backend *backend = m->backend;
    void *impl = m->impl;
    bool last = --m->users == 0, freed = m->freed;
    if (last) m->impl = NULL, m->lm = NULL;
    pthread_mutex_unlock(&m->lock);
    if (!last) return;
    backend->unload(impl);
    if (freed) destroy(m);
}

void mica_model_close(mica_model *m) {
    if (!m) return;
    pthread_mutex_lock(&m->lock);
    bool open = !m->closed;
    m->closed = true;
    for (mica_stream *s = m->streams; s; s = s->next) m->backend->cancel(s->impl);
    mica_batches_cancel(m->batches);
    pthread_mutex_unlock(&m->lock);
    if (open) mica_model_release(m); // the handle's own use
}

void mica_model_free(mica_model *m) {
    if (!m) return;
    mica_model_close(m);
    pthread_mutex_lock(&m->lock);
    m->freed = true;
    bool unused = m->users == 0;
    pthread_mutex_unlock(&m->lock);
    if (unused) destroy(m);
}

// Questions that must be possible to a const handle take the lock as well.
static mica_model *lock(const mica_model *m) {
    mica_model *own = (mica_model *)(uintptr_t)m;
    pthread_mutex_lock(&own->lock);
    return own;
}

bool mica_model_is_closed(const mica_model *m) {
    mica_model *own = lock(m);
    bool closed = own->closed;
    pthread_mutex_unlock(&own->lock);
    return closed;
}

const mica_info *mica_model_info(const mica_model *m) {
    mica_model *own = lock(m);
    int64_t bytes = m->backend->adapter_bytes && !m->closed ? m->backend->adapter_bytes(m->impl) : m->info.adapter_bytes;
    if (bytes != m->info.adapter_bytes) own->info.adapter_bytes = bytes; // others may be reading what does not change
    pthread_mutex_unlock(&own->lock);
    return &m->info;
}

const char *mica_model_backend(const mica_model *m) { return m->backend->name; }

const char *mica_model_cpu_level(const mica_model *m) {
    mica_model *own = lock(m);
    const char *level = own->lm && !own->closed ? mica_device_level(own->lm->device) : "";
    pthread_mutex_unlock(&own->lock);
    return level;
}

const mica_tokenizer *mica_model_tokenizer(const mica_model *m) {
    mica_model *own = lock(m);
    const mica_tokenizer *t = own->lm && !own->closed ? own->lm->tokenizer : NULL;
    pthread_mutex_unlock(&own->lock);
    return t;
}

mica_lm *mica_native_retain(mica_model *m, const char *what, mica_error *err) {
    if (!mica_model_retain(m, err)) return mica_error_prefix(err, "%s", what), NULL;
    if (m->lm) return m->lm;
    mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: backend \"%s\" cannot do this", what, m->backend->name);
    mica_model_release(m);
    return NULL;
}

// ---- streams ------------------------------------------------------------------------------------------------
static void link_stream(mica_stream *s) {
    mica_model *m = s->model;
    pthread_mutex_lock(&m->lock);
    s->link = &m->streams;
    s->next = m->streams;
    if (s->next) s->next->link = &s->next;
    m->streams = s;
    if (m->closed) m->backend->cancel(s->impl);
    pthread_mutex_unlock(&m->lock);
}

static void unlink_stream(mica_stream *s) {
    pthread_mutex_lock(&s->model->lock);
    *s->link = s->next;
    if (s->next) s->next->link = s->link;
    pthread_mutex_unlock(&s->model->lock);
}

mica_stream *mica_stream_wrap(mica_model *m, void *impl) {
    mica_stream *s = mica_calloc(1, sizeof *s);
    if (!s) return NULL;
    *s = (mica_stream){.model = m, .impl = impl};
    link_stream(s);
    return s;
}

bool mica_check_adapter(const mica_model *m, const char *adapter, mica_error *err) {
    if (!adapter || m->backend->adapter_load) return true;
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "adapter \"%.60s\": backend \"%s\" cannot switch adapters; give it one when the model is loaded", adapter,
                     m->backend->name);
}

mica_stream *mica_start(mica_model *m, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    if (!mica_check_adapter(m, options ? options->adapter : NULL, err) || !mica_model_retain(m, err)) return NULL;
    void *impl = m->backend->start(m->impl, prompt, options, err);
    mica_stream *s = impl ? mica_stream_wrap(m, impl) : NULL;
    if (s) return s;
    if (impl) m->backend->end(impl), mica_fail_memory(err, sizeof *s, "a stream");
    mica_model_release(m);
    return NULL;
}

mica_stream *mica_generate(mica_model *m, const char *text, size_t length, const mica_generate_options *options, mica_error *err) {
    return mica_start(m, &(mica_prompt){.text = text, .length = length}, options, err);
}

mica_stream *mica_generate_ids(mica_model *m, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err) {
    return mica_start(m, &(mica_prompt){.ids = ids ? ids : &(int32_t){0}, .count = count}, options, err);
}

mica_stream *mica_chat_start(mica_model *m, const mica_message *messages, size_t count, const mica_generate_options *options,
                             mica_error *err) {
    mica_chat chat = {.messages = messages, .count = count};
    return mica_start(m, &(mica_prompt){.chat = &chat}, options, err);
}

const char *mica_finish_name(mica_finish finish) {
    static const char *const names[] = {"", "stop", "length", "cancelled", "error"};
    return names[finish];
}

bool mica_stream_next(mica_stream *s, mica_token *t) {
    *t = (mica_token){.id = -1, .text = ""};
    return s->model->backend->next(s->impl, t);
}

mica_finish mica_stream_each(mica_stream *s, bool (*on_token)(void *context, const mica_token *token), void *context) {
    for (mica_token t; mica_stream_next(s, &t);)
        if (!on_token(context, &t)) mica_stream_cancel(s);
    return mica_stream_finish(s);
}

void mica_stream_cancel(mica_stream *s) { s->model->backend->cancel(s->impl); }
mica_finish mica_stream_finish(const mica_stream *s) { return s->model->backend->finish(s->impl); }
bool mica_stream_error(const mica_stream *s, mica_error *err) { return s->model->backend->error(s->impl, err); }
mica_metrics mica_stream_metrics(const mica_stream *s) { return s->model->backend->metrics(s->impl); }

const int32_t *mica_stream_prompt(const mica_stream *s, size_t *count) {
    *count = 0;
    return s->model->backend->prompt_ids ? s->model->backend->prompt_ids(s->impl, count) : NULL;
}

void mica_stream_free(mica_stream *s) {
    if (!s) return;
    unlink_stream(s);
    s->model->backend->end(s->impl);
    mica_model_release(s->model);
    mica_free(s);
}
