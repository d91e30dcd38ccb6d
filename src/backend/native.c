// SPDX-License-Identifier: Apache-2.0
// The native backend "cpu": loads models that this library computes itself, and joins room infer to the table of functions of a backend.
#include "backend/info.h"
#include "backend/model.h"
#include "backend/template_load.h"
#include "backend/tokenizer_load.h"
#include "base/file.h"
#include "infer/adapters.h"
#include "infer/batch.h"
#include "infer/internal.h"
#include "io/gguf.h"
#include <stdio.h>
#include <string.h>

static mica_lm *new_lm(const mica_load_options *options, mica_error *err) {
    mica_load_options o = options ? *options : (mica_load_options){0};
    if (o.activations && strcmp(o.activations, "exact") != 0 && strcmp(o.activations, "int8") != 0)
        return mica_fail(err, MICA_ERR_ARGUMENT, "activations: there is no \"%.40s\"; there are exact and int8", o.activations), NULL;
    if (o.context < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "context must not be negative, got %d", (int)o.context), NULL;
    if (o.kv_bits && o.kv_bits != 8 && o.kv_bits != 16)
        return mica_fail(err, MICA_ERR_ARGUMENT, "kv_bits must be 8 or 16, got %d", (int)o.kv_bits), NULL;
    mica_lm *m = mica_calloc(1, sizeof *m);
    if (!m) return mica_fail_memory(err, sizeof *m, "a model"), NULL;
    pthread_mutex_init(&m->adapters.lock, NULL);
    m->context = m->asked_context = o.context;
    m->kv_dtype = o.kv_bits == 8 ? MICA_I8 : MICA_DTYPE_COUNT; // the activations' own is known later
    m->device = mica_device_open(o.device, &(mica_device_options){.level = o.cpu_level, .threads = o.threads}, err);
    if (m->device) return m;
    pthread_mutex_destroy(&m->adapters.lock);
    mica_free(m);
    return NULL;
}

static void free_lm(mica_lm *m) {
    if (!m) return;
    mica_tokenizer_free(m->tokenizer);
    mica_template_free(m->chat_template);
    mica_adapters_free(m);
    pthread_mutex_destroy(&m->adapters.lock);
    mica_cache_free(&m->cache);
    mica_net_free(m->net);
    mica_device_close(m->device);
    mica_free(m);
}

static int64_t kept_prefixes(int64_t option) {
    const int64_t most = (int64_t)4 << 30;
    if (option) return MICA_MAX(option, (int64_t)0);
    return MICA_MIN((int64_t)(mica_reserve_most() / 8), most);
}

// Whether m->info says that weights, and a sequence of the context asked for, fit the budget.
static bool fits_budget(const mica_lm *m, const mica_load_options *options, const char *what, mica_error *err) {
    int64_t budget = options ? options->memory_budget : 0, all = mica_info_kept_memory(&m->info, m->asked_context);
    if (budget < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "memory_budget must not be negative, got %lld", (long long)budget);
    if (!budget || all <= budget) return true;
    if (!m->asked_context)
        return mica_fail(err, MICA_ERR_NO_MEMORY, "%s: the weights take %lld bytes, the memory budget is %lld", what,
                         (long long)m->info.weight_bytes, (long long)budget);
    return mica_fail(err, MICA_ERR_NO_MEMORY, "%s: weights and the keys and values of %d tokens take %lld bytes (the weights %lld), the memory budget is %lld",
                     what, (int)m->asked_context, (long long)all, (long long)m->info.weight_bytes, (long long)budget);
}

static bool set_up_cache(mica_lm *m, const mica_load_options *options, mica_error *err) {
    if (!fits_budget(m, options, m->info.architecture, err) || !mica_cache_init(&m->cache, m->device, m->net->config, m->kv_dtype, err)) return false;
    m->cache.prefixes.most = kept_prefixes(options ? options->prefix_cache : 0);
    if (options && options->memory_budget) m->cache.budget = MICA_MAX(options->memory_budget - m->info.weight_bytes, (int64_t)1);
    return true;
}

// What is known with the weights; frees the model if that fails.
static mica_lm *finish(mica_lm *m, const mica_load_options *options, double started, mica_error *err) {
    if (options && options->activations && strcmp(options->activations, "int8") == 0) mica_net_round_activations(m->net);
    m->info.weight_bytes = m->net->weight_bytes;
    snprintf(m->info.dtype, sizeof m->info.dtype, "%s", mica_dtype_name(m->net->dtype));
    if (m->kv_dtype != MICA_I8) m->kv_dtype = m->net->dtype;
    mica_info_set_kv(m->net->config, m->kv_dtype, &m->info);
    if (!m->context) m->context = m->info.context_length;
    bool ok = set_up_cache(m, options, err) && (!options || !options->adapter || mica_adapters_add(m, "", options->adapter, err));
    m->info.adapter_bytes = mica_adapters_bytes(m);
    m->load_seconds = mica_now() - started;
    if (ok) return m;
    free_lm(m);
    return NULL;
}

// A folder without tokenizer.json still computes on token ids.
static bool load_tokenizer(mica_lm *m, const mica_model_files *ck, mica_error *err) {
    const char *path = mica_checkpoint_path(ck);
    if (mica_checkpoint_gguf(ck)) return (m->tokenizer = mica_tokenizer_from_gguf(mica_checkpoint_gguf(ck), err));
    char *file = mica_path_join(path, "tokenizer.json");
    if (!file) return mica_fail_memory(err, strlen(path), "a path");
    bool absent = !mica_is_file(file);
    mica_free(file);
    return absent || (m->tokenizer = mica_tokenizer_load(path, err));
}

// The tokenizer comes first: what reading it maps is gone again before the weights take their memory.
static mica_lm *load_lm(const char *path, const mica_load_options *options, mica_error *err) {
    double started = mica_now();
    mica_lm *m = new_lm(options, err);
    mica_model_files *ck = m ? mica_checkpoint_open(path, err) : NULL;
    bool ok = ck && load_tokenizer(m, ck, err) && mica_template_of_checkpoint(ck, &m->chat_template, err);
    if (ok) {
        mica_info_from_checkpoint(ck, &m->info);
        if (m->kv_dtype == MICA_I8) mica_info_set_kv(mica_checkpoint_config(ck), MICA_I8, &m->info);
        mica_checkpoint_rest(ck);
        ok = fits_budget(m, options, path, err);
    }
    if (ok) m->net = mica_net_load(ck, NULL, m->device, err);
    else mica_checkpoint_free(ck);
    if (ok && m->net) return finish(m, options, started, err);
    free_lm(m);
    return NULL;
}

static mica_lm *random_lm(const char *shape, int32_t bits, const mica_load_options *options, mica_error *err) {
    double started = mica_now();
    mica_lm *m = new_lm(options, err);
    if (m) m->net = mica_net_random(shape, bits, m->device, err);
    if (m && m->net) {
        mica_info_from_config(m->net->config, &m->info);
        m->info.quant_bits = bits;
        m->info.quant_group = bits ? 64 : 0;
        return finish(m, options, started, err);
    }
    free_lm(m);
    return NULL;
}

// ---- the backend --------------------------------------------------------------------------------------------
static bool available(void *context, mica_error *why) {
    (void)context, (void)why;
    return true;
}

static void *load(void *context, const char *path, const mica_load_options *options, mica_info *info, mica_error *err) {
    (void)context;
    mica_lm *m = load_lm(path, options, err);
    if (m) *info = m->info;
    return m;
}

static void unload(void *model) { free_lm(model); }

static void *start(void *model, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    mica_lm *m = model;
    mica_ids ids = {0};
    mica_answer *a = NULL;
    if (mica_prompt_ids(m, prompt, &ids, err)) a = mica_answer_new(m, ids.data, ids.len, options, err);
    mica_ids_free(&ids);
    return a;
}

static bool next(void *stream, mica_token *token) { return mica_answer_next(stream, token); }
static void cancel(void *stream) { mica_answer_cancel(stream); }
static mica_finish finish_of(const void *stream) { return mica_answer_finish(stream); }
static bool error_of(const void *stream, mica_error *err) { return mica_answer_error(stream, err); }
static mica_metrics metrics(const void *stream) { return mica_answer_metrics(stream); }
static const int32_t *prompt_ids(const void *stream, size_t *count) { return mica_answer_prompt(stream, count); }
static void end(void *stream) { mica_answer_free(stream); }

static bool classify(void *model, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *classes,
                     mica_error *err) {
    return mica_native_classify(model, texts, count, options, classes, err);
}

static bool adapter_load(void *model, const char *name, const char *path, mica_error *err) { return mica_adapters_add(model, name, path, err); }
static bool adapter_unload(void *model, const char *name, mica_error *err) { return mica_adapters_remove(model, name, err); }
static size_t adapter_list(void *model, mica_adapter_info *out, size_t room) { return mica_adapters_list(model, out, room); }
static int64_t adapter_bytes(void *model) { return mica_adapters_bytes(model); }

static void *batch_new(void *model, const mica_batch_options *options, mica_error *err) { return mica_lm_batch_new(model, options, err); }

static int64_t batch_add(void *batch, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err) {
    mica_ids ids = {0};
    int64_t row = -1;
    if (mica_prompt_ids(mica_lm_batch_model(batch), prompt, &ids, err)) row = mica_lm_batch_add(batch, ids.data, ids.len, options, err);
    mica_ids_free(&ids);
    return row;
}

static bool batch_next(void *batch, mica_batch_event *event) { return mica_lm_batch_next(batch, event); }
static void batch_cancel(void *batch, int64_t row) { mica_lm_batch_cancel(batch, row); }
static bool batch_error(const void *batch, int64_t row, mica_error *err) { return mica_lm_batch_error(batch, row, err); }
static mica_metrics batch_metrics(const void *batch, int64_t row) { return mica_lm_batch_metrics(batch, row); }
static void batch_free(void *batch) { mica_lm_batch_free(batch); }

const mica_backend mica_backend_cpu = {
    .name = "cpu", .available = available, .load = load, .unload = unload, .start = start, .next = next, .cancel = cancel, .finish = finish_of,
    .error = error_of, .metrics = metrics, .end = end, .prompt_ids = prompt_ids, .classify = classify, .batch_new = batch_new, .batch_add = batch_add,
    .batch_next = batch_next, .batch_cancel = batch_cancel, .batch_error = batch_error, .batch_metrics = batch_metrics, .batch_free = batch_free,
    .adapter_load = adapter_load, .adapter_unload = adapter_unload, .adapter_list = adapter_list, .adapter_bytes = adapter_bytes,
};

mica_model *mica_model_random(const char *shape, int32_t bits, const mica_load_options *options, mica_error *err) {
    mica_lm *lm = random_lm(shape, bits, options, err);
    mica_model *m = lm ? mica_model_wrap(&mica_backend_cpu, lm, &lm->info, err) : NULL;
    if (lm && !m) free_lm(lm);
    return m;
}
