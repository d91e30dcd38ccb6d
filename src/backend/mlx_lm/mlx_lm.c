// SPDX-License-Identifier: Apache-2.0
// The backend "mlx_lm": models that a Python process computes with mlx-lm. This file joins it to the table of functions of a backend.
#include "backend/mlx_lm/batch.h"
#include "backend/mlx_lm/classify.h"
#include "backend/mlx_lm/stream.h"
#include <string.h>

static bool available(void *context, mica_error *why) {
    const mica_mlx_limits *limits = context;
    char *python = mica_mlx_python(NULL, why);
    bool ok = python && mica_mlx_probe(python, limits && limits->probe > 0 ? limits->probe : 60, why);
    mica_free(python);
    return ok;
}

static bool refuse(mica_error *err, const char *option, const char *why) {
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "load option %s: mlx_lm %s", option, why);
}

static bool check_options(const mica_load_options *o, mica_error *err) {
    if (o->cpu_level) return refuse(err, "cpu_level", "chooses its kernels itself");
    if (o->threads) return refuse(err, "threads", "chooses its threads itself");
    if (o->kv_bits && o->kv_bits != 16) return refuse(err, "kv_bits", "keeps keys and values in the model's type here");
    if (o->activations && strcmp(o->activations, "exact") != 0) return refuse(err, "activations", "computes exactly only");
    if (o->device && strcmp(o->device, "cpu") != 0 && strcmp(o->device, "gpu") != 0) return refuse(err, "device", "has cpu and gpu");
    if (o->context < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "context must not be negative, got %d", (int)o->context);
    return true;
}

static void *load(void *context, const char *path, const mica_load_options *options, mica_info *info, mica_error *err) {
    mica_load_options o = options ? *options : (mica_load_options){0};
    return check_options(&o, err) ? mica_mlx_open(path, &o, context, info, err) : NULL;
}

static void unload(void *model) { mica_mlx_close(model); }

static void *start(void *model, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    return mica_mlx_stream_new(model, prompt, options, 0, err);
}

static bool next(void *stream, mica_token *token) { return mica_mlx_stream_next(stream, token); }
static void cancel(void *stream) { mica_mlx_stream_cancel(stream); }
static mica_finish finish_of(const void *stream) { return mica_mlx_stream_finish(stream); }
static bool error_of(const void *stream, mica_error *err) { return mica_mlx_stream_error(stream, err); }
static mica_metrics metrics(const void *stream) { return mica_mlx_stream_metrics(stream); }
static const int32_t *prompt_ids(const void *stream, size_t *count) { return mica_mlx_stream_prompt(stream, count); }
static void end(void *stream) { mica_mlx_stream_free(stream); }

static bool classify(void *model, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *out, mica_error *err) {
    return mica_mlx_classify(model, texts, count, options, out, err);
}

static void *batch_new(void *model, const mica_batch_options *options, mica_error *err) { return mica_mlx_batch_new(model, options, err); }
static int64_t batch_add(void *batch, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    return mica_mlx_batch_add(batch, prompt, options, err);
}
static bool batch_next(void *batch, mica_batch_event *event) { return mica_mlx_batch_next(batch, event); }
static void batch_cancel(void *batch, int64_t row) { mica_mlx_batch_cancel(batch, row); }
static bool batch_error(const void *batch, int64_t row, mica_error *err) { return mica_mlx_batch_error(batch, row, err); }
static mica_metrics batch_metrics(const void *batch, int64_t row) { return mica_mlx_batch_metrics(batch, row); }
static void batch_free(void *batch) { mica_mlx_batch_free(batch); }

const mica_backend mica_backend_mlx_lm = {
    .name = "mlx_lm", .available = available, .load = load, .unload = unload, .start = start, .next = next, .cancel = cancel, .finish = finish_of,
    .error = error_of, .metrics = metrics, .end = end, .prompt_ids = prompt_ids,
    .classify = classify, .batch_new = batch_new, .batch_add = batch_add, .batch_next = batch_next, .batch_cancel = batch_cancel,
    .batch_error = batch_error, .batch_metrics = batch_metrics, .batch_free = batch_free,
};
