// SPDX-License-Identifier: Apache-2.0
// A training run from folders to folders: loads model, data and tokenizer, walks through the data, reports, validates, and writes the adapter and
// a checkpoint every now and then. What a resumed run needs is in the checkpoint, all of it or none.
#include "mica/train.h"
#include "base/file.h"
#include "engine/state.h"
#include "io/adapter_write.h"
#include "io/convert_parts.h"
#include "io/safetensors.h"
#include "mica/ops.h"
#include "mica/template.h"
#include "model/identity.h"
#include "train/memory.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct run {
    mica_train_options o;
    const char *model, *out;
    mica_device *device;
    mica_net *net;
    mica_tokenizer *tokenizer;
    mica_template *chat; // NULL: the model has none
    mica_dataset *train, *valid; // valid may be NULL
    mica_dataset_order *order;
    mica_trainer t;
    mica_train_state state;
    mica_train_summary *sum;
    double started, since;       // since: the last report
    uint64_t heap;               // bytes before it began
    mica_buf settings;
    double loss, weight;         // since then
    int64_t tokens;              // all tokens since then
} run;

// ---- options ----------------------------------------------------------------------------------------------
void mica_train_defaults(mica_train_options *o) {
    if (!o->kind) o->kind = "lora";
    if (!o->rank) o->rank = 8;
    if (!o->layers) o->layers = 16;
    if (!o->iters && !o->epochs) o->iters = 1000;
    if (!o->batch_size && !o->batch_tokens) o->batch_size = 4;
    if (!o->grad_accumulation) o->grad_accumulation = 1;
    if (!o->max_seq) o->max_seq = 2048;
    if (!o->mask_prompt) o->mask_prompt = "none";
    if (!o->too_long) o->too_long = "truncate";
    if (!o->grad_checkpoint) o->grad_checkpoint = o->memory_budget ? "auto" : "off";
    if (!o->dtype) o->dtype = "model";
    if (!o->optimizer.name) o->optimizer.name = "adam";
    if (!o->adapter_format) o->adapter_format = "mlx-lm";
    if (o->schedule.rate == 0) o->schedule.rate = 1e-5;
    if (!o->report_every) o->report_every = 10;
    if (!o->val_every) o->val_every = 200;
    if (!o->val_batches) o->val_batches = 25;
    if (!o->save_every) o->save_every = 100;
    if (o->alpha > 0) o->scale = o->alpha / (o->rslora ? sqrt((double)o->rank) : (double)o->rank);
    if (o->scale == 0) o->scale = 20;
}

static bool at_least_one(const char *name, int64_t value, mica_error *err) {
    return value >= 1 || mica_fail(err, MICA_ERR_ARGUMENT, "%s must be at least 1, got %lld", name, (long long)value);
}

static bool peft(const mica_train_options *o) { return strcmp(o->adapter_format, "peft") == 0; }

static bool check(const mica_train_options *o, mica_error *err) {
    if (strcmp(o->kind, "lora") != 0 && strcmp(o->kind, "dora") != 0 && strcmp(o->kind, "full") != 0)
        return mica_fail(err, MICA_ERR_ARGUMENT, "kind: there is no \"%.40s\"; there are lora, dora and full", o->kind);
    if (strcmp(o->adapter_format, "mlx-lm") != 0 && !peft(o))
        return mica_fail(err, MICA_ERR_ARGUMENT, "adapter_format: there is no \"%.40s\"; there are mlx-lm and peft", o->adapter_format);
    static const char *const modes[] = {"off", "on", "auto"}, *const types[] = {"model", "f32", "bf16"};
    int any;
    if (!mica_train_one_of("grad_checkpoint", o->grad_checkpoint, modes, &any, err) || !mica_train_one_of("dtype", o->dtype, types, &any, err)) return false;
    if (o->memory_budget < 0) return mica_fail(err, MICA_ERR_ARGUMENT, "memory_budget must not be negative");
    if (!(o->dropout >= 0 && o->dropout < 1)) return mica_fail(err, MICA_ERR_ARGUMENT, "dropout must be from 0 to below 1, got %g", o->dropout);
    if (!isfinite(o->scale)) return mica_fail(err, MICA_ERR_ARGUMENT, "scale must be finite");
    if (o->clip < 0 || !isfinite(o->clip)) return mica_fail(err, MICA_ERR_ARGUMENT, "clip must be finite and not negative, got %g", o->clip);
    if (o->iters && o->epochs) return mica_fail(err, MICA_ERR_ARGUMENT, "iters and epochs exclude each other");
    if (o->dropout > 0 && strcmp(o->kind, "full") == 0) return mica_fail(err, MICA_ERR_ARGUMENT, "dropout is of adapters: there are none with kind \"full\"");
    return at_least_one(o->epochs ? "epochs" : "iters", o->epochs ? o->epochs : o->iters, err) && at_least_one(o->batch_tokens ? "batch_tokens" : "batch_size", o->batch_tokens ? o->batch_tokens : o->batch_size, err) &&
           at_least_one("grad_accumulation", o->grad_accumulation, err) && at_least_one("rank", o->rank, err);
}

// ---- model ------------------------------------------------------------------------------------------------
static bool full(const run *r) { return strcmp(r->o.kind, "full") == 0; }

static bool all_bf16(const mica_train_options *o) { return strcmp(o->dtype, "bf16") == 0; }

static bool load_net(run *r, mica_error *err) {
    mica_net_options o = {.f32 = strcmp(r->o.dtype, "f32") == 0, .bf16 = all_bf16(&r->o)};
    r->device = mica_device_open("cpu", &(mica_device_options){.threads = r->o.threads}, err);
    r->net = r->device ? mica_train_load_net(r->model, r->o.init_adapter, o, r->device, err) : NULL;
    if (r->net) r->o.max_seq = (int32_t)MICA_MIN((int64_t)r->o.max_seq, MICA_MAX(r->net->config->max_position_embeddings, (int64_t)2));
    if (!r->net || !mica_net_identity(r->net, &r->state.identity, err)) return false;
    mica_checkpoint_rest(r->net->checkpoint); // of weights that were brought to another type the file's own are not needed any more
    return true;
}

static int64_t count_elements(const mica_parameters *p) {
    int64_t n = 0;
    for (size_t i = 0; i < p->count; i++) n += mica_size(*p->items[i].place);
    return n;
}

static bool choose_parameters(run *r, mica_parameters *p, mica_error *err) {
    const mica_train_options *o = &r->o;
    if (full(r)) return mica_parameters_add_weights(r->net, p, err);
    mica_lora_spec spec = {.rank = o->rank, .scale = (float)o->scale, .targets = o->targets, .target_count = o->target_count, .layers = o->layers, .seed = o->seed,
                           .dora = strcmp(o->kind, "dora") == 0, .bf16 = all_bf16(o)};
    return mica_lora_attach(r->net, &spec, err) && mica_parameters_add_adapters(r->net, p, err);
}

// Said before the run, not when its first checkpoint is written.
static bool can_be_written(const run *r, const mica_parameters *p, mica_error *err) {
    if (full(r) || !peft(&r->o) || !r->net->tied) return true;
    for (size_t i = 0; i < p->count; i++)
        if (strncmp(p->items[i].name, "model.embed_tokens.", 19) == 0)
            return mica_fail(err, MICA_ERR_UNSUPPORTED, "adapter_format: PEFT's form cannot say that an adapter of the embedding adapts the head as well, to which this model ties it");
    return true;
}

static bool set_up_trainer(run *r, mica_error *err) {
    mica_parameters p = {0};
    if (!choose_parameters(r, &p, err) || !can_be_written(r, &p, err)) return mica_parameters_free(&p), false;
    r->sum->trained = count_elements(&p);
    r->sum->parameters = (int64_t)mica_checkpoint_get_stats(r->net->checkpoint).parameters;
    mica_train_options o = r->o;
    o.optimizer.stochastic = true, o.optimizer.seed = o.seed, o.optimizer.bf16_state = all_bf16(&o);
    return mica_trainer_init(&r->t, r->net, p, &o, err);
}

// ---- data -------------------------------------------------------------------------------------------------
static bool open_data(run *r, const char *folder, const char *name, bool needed, mica_dataset **out, mica_error *err) {
    mica_dataset_options o;
    char *path = mica_path_join(folder, name);
    if (!path) return mica_fail_memory(err, strlen(folder), "a path");
    bool there = mica_is_file(path), ok = mica_train_data_options(r->o.mask_prompt, r->o.too_long, r->o.max_seq, r->o.skip_bad, &o, err);
    if (ok && !there && needed) ok = mica_fail(err, MICA_ERR_IO, "%s: no such file", path);
    if (ok && there) ok = (*out = mica_dataset_open(path, r->tokenizer, r->chat, &o, err)) != NULL;
    mica_free(path);
    return ok;
}

static mica_dataset_order_options order_options(const run *r) {
    const mica_train_options *o = &r->o;
    return (mica_dataset_order_options){.seed = o->seed, .in_file_order = o->no_shuffle, .batch_size = (size_t)o->batch_size, .batch_tokens = (size_t)o->batch_tokens};
}

// How many updates the epochs make: what a batch holds is known once its examples are tokens, so they are all read once before.
static bool count_updates(run *r, mica_error *err) {
    mica_dataset_order_options o = order_options(r);
    o.epochs = (size_t)r->o.epochs;
    mica_dataset_order *order = mica_dataset_order_new(r->train, &o, err);
    mica_text_batch b = {.n = 1};
    int64_t batches = -1;
    bool ok = order != NULL;
    for (; ok && b.n; batches++) ok = mica_dataset_next(order, &b, err);
    mica_dataset_order_free(order);
    int64_t updates = (batches + r->o.grad_accumulation - 1) / r->o.grad_accumulation;
    if (ok && updates > INT32_MAX) ok = mica_fail(err, MICA_ERR_ARGUMENT, "epochs: %d of them are more than %d updates", (int)r->o.epochs, INT32_MAX);
    if (ok) r->o.iters = (int32_t)MICA_MAX(updates, 1);
    return ok;
}

static bool set_up_data(run *r, const char *folder, mica_error *err) {
    if (!open_data(r, folder, "train.jsonl", true, &r->train, err) || !open_data(r, folder, "valid.jsonl", false, &r->valid, err)) return false;
    if (r->o.epochs && !count_updates(r, err)) return false;
    mica_schedule *schedule = &r->o.schedule;
    bool to_the_end = schedule->name && (strcmp(schedule->name, "linear") == 0 || strcmp(schedule->name, "cosine") == 0);
    if (to_the_end && !schedule->steps) schedule->steps = MICA_MAX(r->o.iters - schedule->warmup - schedule->hold, 1);
    mica_dataset_order_options o = order_options(r);
    r->order = mica_dataset_order_new(r->train, &o, err);
    return r->order != NULL;
}

// ---- files ------------------------------------------------------------------------------------------------
static char *state_path(const run *r) { return mica_path_join(r->out, "training-state.safetensors"); }

// What must be the same for a resumed run to go on as this one would have, as words: a checkpoint that differs can say in what.
static bool identify(run *r, mica_error *err) {
    const mica_train_options *o = &r->o;
    const mica_optimizer_options *p = &o->optimizer;
    const mica_schedule *c = &o->schedule;
    mica_buf *b = &r->settings;
    uint64_t names = 0;
    for (size_t i = 0; i < r->t.params.count; i++) names = mica_hash(r->t.params.items[i].name, strlen(r->t.params.items[i].name) + 1, names);
    mica_buf_printf(b, "model=%016" PRIx64 " data=%016" PRIx64 " kind=%s rank=%d scale=%g dropout=%g targets=%016" PRIx64 " layers=%d dtype=%s seed=%" PRIu64,
                    r->state.identity, mica_dataset_fingerprint(r->train), o->kind, (int)o->rank, o->scale, o->dropout, names, (int)o->layers, o->dtype, o->seed);
    mica_buf_printf(b, " batch_size=%d batch_tokens=%d grad_accumulation=%d max_seq=%d mask_prompt=%s no_shuffle=%d clip=%g", (int)o->batch_size,
                    (int)o->batch_tokens, (int)o->grad_accumulation, (int)o->max_seq, o->mask_prompt, o->no_shuffle, o->clip);
    mica_buf_printf(b, " optimizer=%s beta1=%g beta2=%g eps=%g weight_decay=%g momentum=%g dampening=%g nesterov=%d no_bias_correction=%d", p->name, p->beta1,
                    p->beta2, p->eps, p->weight_decay, p->momentum, p->dampening, p->nesterov, p->no_bias_correction);
    mica_buf_printf(b, " schedule=%s rate=%.9g end=%.9g decay=%.9g steps=%" PRId64 " warmup=%" PRId64 " warmup_start=%.9g", c->name ? c->name : "constant", c->rate,
                    c->end, c->decay, c->steps, c->warmup, c->warmup_start);
    if (c->hold) mica_buf_printf(b, " hold=%" PRId64, c->hold); // checkpoints from before there was one stay as they are
    if (b->failed) return mica_fail_memory(err, b->len, "the run's options");
    r->state.identity = mica_hash(b->data, b->len, 0), r->state.settings = b->data;
    return true;
}

static void stored_of(const mica_parameter *p, mica_stored *t) {
    const mica_array *a = *p->place;
    *t = (mica_stored){.name = p->name, .dtype = mica_array_dtype(a), .ndim = mica_ndim(a), .data = mica_data(a), .bytes = mica_nbytes(a)};
    memcpy(t->shape, mica_shape(a), (size_t)t->ndim * sizeof *t->shape);
}

// Norms in memory are 1 + w where the model's files have w.
static mica_array *as_filed(const run *r, mica_scope *s, const mica_parameter *p) {
    size_t n = strlen(p->name);
    bool norm = n > 11 && strcmp(p->name + n - 11, "norm.weight") == 0;
    mica_array *a = *p->place;
    if (norm && r->net->arch->norm_add != 0) a = mica_add_scalar(s, a, -(double)r->net->arch->norm_add);
    return mica_astype(s, a, r->net->dtype);
}

static bool write_weights(run *r, mica_error *err) {
    char *path = mica_path_join(r->out, "model.safetensors");
    mica_scope *s = r->t.scope;
    mica_st_writer *w = path ? mica_st_writer_new(path, NULL, err) : NULL;
    bool ok = w != NULL;
    for (size_t i = 0; ok && i < r->t.params.count; i++) {
        const mica_array *a = *r->t.params.items[i].place;
        ok = mica_st_writer_declare(w, r->t.params.items[i].name, r->net->dtype, mica_ndim(a), mica_shape(a), err);
    }
    ok = ok && mica_st_writer_begin(w, err);
    for (size_t i = 0; ok && i < r->t.params.count; i++) {
        mica_scope_reset(s);
        mica_array *a = as_filed(r, s, &r->t.params.items[i]);
        ok = mica_eval(s, &a, 1, err) && mica_st_writer_put(w, mica_data(a), mica_nbytes(a), err);
    }
    mica_scope_reset(s);
    ok = ok && mica_st_writer_commit(w, err);
    mica_st_writer_free(w);
    mica_free(path);
    return ok;
}

static bool write_adapter(run *r, mica_error *err) {
    size_t n = r->t.params.count;
    mica_stored *tensors = mica_alloc(n * sizeof *tensors);
    if (!tensors) return mica_fail_memory(err, n * sizeof *tensors, "the adapter");
    for (size_t i = 0; i < n; i++) stored_of(&r->t.params.items[i], &tensors[i]);
    int64_t layers = r->o.layers < 0 ? r->net->config->num_layers : MICA_MIN((int64_t)r->o.layers, r->net->config->num_layers);
    mica_adapter_write_options o = {.form = peft(&r->o) ? MICA_ADAPTER_PEFT : MICA_ADAPTER_MLX_LM, .scale = r->o.scale, .dropout = r->o.dropout, .num_layers = layers,
                                    .tied = r->net->tied, .base_model = r->model};
    bool ok = mica_adapter_write(r->out, tensors, n, &o, err);
    mica_free(tensors);
    return ok;
}

static bool emit(run *r, const mica_train_event *e) {
    mica_train_event own = *e;
    own.step = r->t.step, own.steps = r->o.iters, own.tokens = r->state.tokens;
    own.seconds = mica_now() - r->started;
    own.peak_memory_bytes = r->sum->peak_memory_bytes = (int64_t)mica_device_memory(r->device).peak + r->net->mapped_bytes;
    if (r->o.report && !r->o.report(r->o.context, &own)) r->sum->stopped = true;
    return !r->sum->stopped;
}

static bool save(run *r, mica_error *err) {
    mica_dataset_position p = mica_dataset_order_position(r->order);
    r->state.epoch = (int64_t)p.epoch, r->state.index = (int64_t)p.index, r->state.piece = (int64_t)p.piece;
    char *path = state_path(r);
    bool ok = path ? mica_trainer_finite(&r->t, err) : mica_fail_memory(err, strlen(r->out), "a path");
    ok = ok && mica_trainer_save(&r->t, &r->state, path, err) && (full(r) ? write_weights : write_adapter)(r, err);
    mica_free(path);
    if (ok) r->t.saved = r->t.step;
    if (ok) emit(r, &(mica_train_event){.kind = MICA_TRAIN_CHECKPOINT, .path = r->out});
    return ok;
}

static bool resume(run *r, mica_error *err) {
    char *path = state_path(r);
    bool ok = path ? mica_trainer_restore(&r->t, &r->state, path, err) : mica_fail_memory(err, strlen(r->out), "a path");
    mica_dataset_position p = {(uint64_t)r->state.epoch, (uint64_t)r->state.index, (uint64_t)r->state.piece};
    ok = ok && mica_dataset_order_seek(r->order, p, err);
    mica_free(path);
    return ok;
}

// ---- memory -----------------------------------------------------------------------------------------------
static bool predict_memory(run *r, mica_error *err) {
    mica_dataset_survey train = {0}, valid = {0};
    mica_dataset_order_options o = order_options(r);
    mica_dataset_order_options v = {.in_file_order = true, .epochs = 1, .batch_size = o.batch_size, .batch_tokens = o.batch_tokens};
    uint64_t batches = (uint64_t)MICA_MAX((r->o.iters - r->t.step) * r->o.grad_accumulation, (int64_t)1);
    mica_run_memory m = {.trainer = &r->t, .train = &train, .valid = &valid, .accumulates = r->o.grad_accumulation > 1, .before = r->heap};
    bool validates = r->valid && r->o.val_every > 0, ok = mica_dataset_survey_run(r->train, &o, mica_dataset_order_position(r->order), batches, &train, err);
    if (ok && validates) {
        uint64_t most = r->o.val_batches < 0 ? UINT64_MAX : (uint64_t)r->o.val_batches;
        ok = mica_dataset_survey_run(r->valid, &v, (mica_dataset_position){0, 0, 0}, most, &valid, err);
    }
    ok = ok && mica_run_fit(&m, r->o.grad_checkpoint, r->o.memory_budget, &r->sum->predicted_memory_bytes, err);
    r->sum->trained_blocks = mica_trained_blocks(r->net, &r->t.params), r->sum->recomputed_blocks = r->t.recompute;
    mica_dataset_survey_free(&train);
    mica_dataset_survey_free(&valid);
    return ok;
}

// ---- the loop ---------------------------------------------------------------------------------------------
static bool due(int32_t every, int64_t step) { return every > 0 && step % every == 0; }

static bool validate(run *r, mica_error *err) {
    double loss = 0, weight = 0;
    bool ok = true;
    mica_dataset_order_options o = {.in_file_order = true, .epochs = 1, .batch_size = (size_t)r->o.batch_size, .batch_tokens = (size_t)r->o.batch_tokens};
    mica_dataset_order *order = mica_dataset_order_new(r->valid, &o, err);
    if (!order) return false;
    for (int32_t i = 0; ok && (r->o.val_batches < 0 || i < r->o.val_batches); i++) {
        mica_text_batch b;
        ok = mica_dataset_next(order, &b, err);
        if (ok && !b.n) break;
        ok = ok && mica_trainer_measure(&r->t, &b, &loss, &weight, err);
    }
    mica_dataset_order_free(order);
    if (!ok) return false;
    r->sum->validation_loss = loss / weight;
    emit(r, &(mica_train_event){.kind = MICA_TRAIN_VALIDATION, .loss = loss / weight});
    return true;
}

static bool one_step(run *r, mica_error *err) {
    mica_update done;
    for (int32_t i = 0; i < r->o.grad_accumulation; i++) {
        mica_text_batch b;
        if (!mica_dataset_next(r->order, &b, err)) return false;
        r->tokens += (int64_t)b.n;
        if (!mica_trainer_add(&r->t, &b, err)) return false;
    }
    if (!mica_trainer_update(&r->t, &done, err)) return false;
    r->loss += done.loss, r->weight += done.weight;
    r->state.tokens += (int64_t)done.weight;
    emit(r, &(mica_train_event){.kind = MICA_TRAIN_PROGRESS, .loss = done.loss / done.weight, .learning_rate = done.learning_rate,
                                .grad_norm = done.grad_norm, .tokens_per_second = (double)r->tokens / (mica_now() - r->since)});
    if (!due(r->o.report_every, r->t.step) && r->t.step != r->o.iters) return true;
    double now = mica_now();
    r->sum->loss = r->loss / r->weight;
    emit(r, &(mica_train_event){.kind = MICA_TRAIN_STEP, .loss = r->sum->loss, .learning_rate = done.learning_rate, .grad_norm = done.grad_norm,
                                .tokens_per_second = (double)r->tokens / (now - r->since)});
    r->since = mica_now(), r->loss = r->weight = 0, r->tokens = 0;
    return true;
}

static bool loop(run *r, mica_error *err) {
    bool ok = true;
    if (r->sum->stopped) return true;
    if (r->valid && r->o.val_every > 0 && r->t.step == 0) ok = validate(r, err);
    if (ok && r->t.step >= r->o.iters) ok = save(r, err); // it may have ended between its checkpoint and what follows from that
    r->since = mica_now();
    while (ok && r->t.step < r->o.iters && !r->sum->stopped) {
        ok = one_step(r, err);
        bool last = ok && (r->t.step == r->o.iters || r->sum->stopped);
        double before = mica_now();
        if (ok && r->valid && r->o.val_every > 0 && (due(r->o.val_every, r->t.step) || last)) ok = validate(r, err);
        if (ok && (due(r->o.save_every, r->t.step) || last)) ok = save(r, err);
        r->since += mica_now() - before;
    }
    return ok;
}

static bool train(run *r, const char *data, mica_error *err) {
    if (!check(&r->o, err) || !mica_train_load_text(r->model, &r->tokenizer, &r->chat, err) || !load_net(r, err) || !set_up_data(r, data, err) || !set_up_trainer(r, err))
        return false;
    if (!identify(r, err) || !mica_mkdirs(r->out, err) || (r->o.resume && !resume(r, err)) || !predict_memory(r, err)) return false;
    if (full(r) && !mica_convert_beside(r->net->checkpoint, r->net->dtype, r->out, err)) return false;
    const mica_train_summary *sum = r->sum;
    emit(r, &(mica_train_event){.kind = MICA_TRAIN_START, .parameters = sum->parameters, .trained = sum->trained,
                                .predicted_memory_bytes = sum->predicted_memory_bytes, .trained_blocks = sum->trained_blocks,
                                .recomputed_blocks = sum->recomputed_blocks});
    if (!loop(r, err)) return false;
    r->sum->steps = r->t.step, r->sum->tokens = r->state.tokens, r->sum->seconds = mica_now() - r->started;
    const mica_dataset_report *read = mica_dataset_get_report(r->train);
    r->sum->bad_lines = (int64_t)read->bad, r->sum->long_examples = (int64_t)read->too_long, r->sum->unscored_examples = (int64_t)read->unscored;
    emit(r, &(mica_train_event){.kind = MICA_TRAIN_DONE, .loss = r->sum->loss});
    return true;
}

bool mica_train(const char *model, const char *data, const char *out, const mica_train_options *options, mica_train_summary *summary, mica_error *err) {
    mica_train_summary own;
    run r = {.o = options ? *options : (mica_train_options){0}, .model = model, .out = out, .sum = summary ? summary : &own, .started = mica_now(),
             .heap = mica_alloc_get_stats().bytes};
    *r.sum = (mica_train_summary){.loss = (double)NAN, .validation_loss = (double)NAN};
    mica_train_defaults(&r.o);
    bool ok = train(&r, data, err);
    mica_trainer_free(&r.t);
    mica_dataset_order_free(r.order);
    mica_dataset_free(r.train);
    mica_dataset_free(r.valid);
    mica_template_free(r.chat);
    mica_tokenizer_free(r.tokenizer);
    mica_net_free(r.net);
    mica_device_close(r.device);
    mica_buf_free(&r.settings);
    return ok;
}
