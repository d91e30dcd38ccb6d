// SPDX-License-Identifier: Apache-2.0
// Backends: what computes behind a model. "cpu" (this library) and "mlx_lm" (a Python process) are built in; a program may register its own.
#ifndef MICA_BACKEND_H
#define MICA_BACKEND_H

#include "mica/adapter.h"
#include "mica/batch.h"
#include "mica/chat.h"
#include "mica/classify.h"
#include "mica/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Functions of a backend. `model` is what load gave, `stream` what start gave; all but the optional ones must be there. Calls on one model
 * may come from several threads; calls on one stream come one at a time, apart from cancel. */
typedef struct mica_backend {
    const char *name;
    void *context; // given to available and load
    /** Really probes whether it can run here; if not, *why says what is missing. */
    bool (*available)(void *context, mica_error *why);
    /** Loads a model and fills *info. NULL on failure. */
    void *(*load)(void *context, const char *path, const mica_load_options *options, mica_info *info, mica_error *err);
    /** Called once, when no stream is left. */
    void (*unload)(void *model);
    void *(*start)(void *model, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err);
    bool (*next)(void *stream, mica_token *token);
    void (*cancel)(void *stream); // from any thread
    mica_finish (*finish)(const void *stream);
    bool (*error)(const void *stream, mica_error *err);
    mica_metrics (*metrics)(const void *stream);
    void (*end)(void *stream); // frees it, also before its end
    // Optional, may be NULL:
    const int32_t *(*prompt_ids)(const void *stream, size_t *count);
    /** items[count] are zero, with label and token -1; default: refused. */
    bool (*classify)(void *model, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *classes,
                     mica_error *err);
    /** Rows together, as in batch.h; default: one after another through start. */
    void *(*batch_new)(void *model, const mica_batch_options *options, mica_error *err);
    int64_t (*batch_add)(void *batch, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err);
    bool (*batch_next)(void *batch, mica_batch_event *event);
    void (*batch_cancel)(void *batch, int64_t row); // from any thread
    bool (*batch_error)(const void *batch, int64_t row, mica_error *err);
    mica_metrics (*batch_metrics)(const void *batch, int64_t row);
    void (*batch_free)(void *batch);
    /** As in adapter.h, all four or none; default: adapters cannot be switched, and requests that name one are refused. bytes: what all take together. */
    bool (*adapter_load)(void *model, const char *name, const char *path, mica_error *err);
    bool (*adapter_unload)(void *model, const char *name, mica_error *err);
    size_t (*adapter_list)(void *model, mica_adapter_info *adapters, size_t room);
    int64_t (*adapter_bytes)(void *model);
} mica_backend;

/** Adds a backend, or replaces the one of that name; the struct is copied, name and context are borrowed. */
MICA_API bool mica_backend_register(const mica_backend *backend, mica_error *err);
/** The backend of that name; NULL or "": the default, the first available of cpu, mlx_lm and then the registered ones in their order. Fails
 * with one of: no backends registered; backend "x" not registered; backend "x" not available on this hardware (and why). */
MICA_API const mica_backend *mica_backend_get(const char *name, mica_error *err);
/** Names in order into names[room]; gives how many there are. */
MICA_API size_t mica_backend_list(const char **names, size_t room);

#ifdef __cplusplus
}
#endif
#endif
