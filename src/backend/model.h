// SPDX-License-Identifier: Apache-2.0
// What the files of this room share: handles of models, the built-in backends, prompts as ids.
#ifndef MICA_BACKEND_MODEL_H
#define MICA_BACKEND_MODEL_H

#include "infer/internal.h"
#include "mica/backend.h"

extern const mica_backend mica_backend_cpu;

/** As mica_backend_get; probe false: one that is named need not be available (it is asked to load with an interpreter of the caller's). */
const mica_backend *mica_backend_find(const char *name, bool probe, mica_error *err);
/** A handle for what the backend has loaded; NULL when out of memory (then impl is still the caller's). */
mica_model *mica_model_wrap(const mica_backend *backend, void *impl, const mica_info *info, mica_error *err);
/** Whether the handle is closed, for calls that are under way. */
bool mica_model_is_closed(const mica_model *m);
/** Whether requests to the model's backend can name an adapter; NULL names none. */
bool mica_check_adapter(const mica_model *m, const char *adapter, mica_error *err);
/** A stream for what a backend's start gave, for a model that was retained for it; NULL when out of memory (then both are still the caller's). */
mica_stream *mica_stream_wrap(mica_model *m, void *impl);
/** Cancels all rows of a list of batches; the model's lock is held. */
void mica_batches_cancel(mica_batch *first);
/** As mica_backend.classify. */
bool mica_native_classify(mica_lm *lm, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *out,
                          mica_error *err);
/** Appends the token ids of a prompt. */
bool mica_prompt_ids(const mica_lm *lm, const mica_prompt *prompt, mica_ids *ids, mica_error *err);
#endif
