// SPDX-License-Identifier: Apache-2.0
// Measuring a model on training data: what its training would call the validation loss, with an error. The error is that of a ratio of sums over
// examples (sum of losses by number of tokens): tokens of one example are not independent, examples are.
#include "base/file.h"
#include "engine/scope.h"
#include "train/trainer.h"
#include <math.h>
#include <string.h>

// ---- what runs and measurements start with --------------------------------------------------------------------------------------
bool mica_train_one_of(const char *option, const char *name, const char *const names[3], int *value, mica_error *err) {
    for (*value = 0; *value < 3; ++*value)
        if (strcmp(name, names[*value]) == 0) return true;
    return mica_fail(err, MICA_ERR_ARGUMENT, "%s: there is no \"%.40s\"; there are %s, %s and %s", option, name, names[0], names[1], names[2]);
}

bool mica_train_data_options(const char *mask_prompt, const char *too_long, int32_t max_seq, bool skip_bad, mica_dataset_options *out, mica_error *err) {
    static const char *const masks[] = {"none", "last", "assistant"}, *const lengths[] = {"truncate", "split", "skip"};
    int mask = 0, length = 0;
    if (mask_prompt && !mica_train_one_of("mask_prompt", mask_prompt, masks, &mask, err)) return false;
    if (too_long && !mica_train_one_of("too_long", too_long, lengths, &length, err)) return false;
    *out = (mica_dataset_options){.max_length = max_seq ? (size_t)MICA_MAX(max_seq, 2) : 0, .skip_bad = skip_bad, .mask = (mica_dataset_mask)mask,
                                  .too_long = (mica_dataset_long)length};
    return true;
}

bool mica_train_load_text(const char *model, mica_tokenizer **tokenizer, mica_template **chat, mica_error *err) {
    mica_error none = {0};
    if (!(*tokenizer = mica_tokenizer_load(model, err))) return false;
    *chat = mica_template_load(model, NULL, &none);
    if (*chat || none.code == MICA_ERR_UNSUPPORTED) return true;
    if (err) *err = none;
    return false;
}

mica_net *mica_train_load_net(const char *model, const char *adapter_path, mica_net_options options, mica_device *device, mica_error *err) {
    mica_adapter adapter = {0};
    options.separate = true;
    if (adapter_path && !mica_adapter_open(&adapter, adapter_path, err)) return NULL;
    if (adapter_path) options.adapter = &adapter;
    mica_model_files *files = mica_checkpoint_open(model, err);
    mica_net *net = files ? mica_net_load(files, &options, device, err) : NULL;
    if (adapter_path) mica_adapter_close(&adapter);
    return net;
}

// ---- sums ---------------------------------------------------------------------------------------------------
typedef struct sums {
    double loss, weight, loss2, weight2, both; // of examples' losses and weights, their squares and products
    int64_t examples, tokens;
} sums;

static void add(sums *s, double loss, double weight, size_t tokens) {
    s->loss += loss, s->weight += weight;
    s->loss2 += loss * loss, s->weight2 += weight * weight, s->both += loss * weight;
    s->examples++, s->tokens += (int64_t)tokens;
}

// Of L/W: √(n/(n-1) Σ(lᵢ - (L/W) wᵢ)²) / W.
static double error_of(const sums *s) {
    double n = (double)s->examples, mean = s->loss / s->weight;
    double rest = s->loss2 - 2 * mean * s->both + mean * mean * s->weight2;
    return n > 1 ? sqrt(fmax(rest, 0) * n / (n - 1)) / s->weight : (double)NAN;
}

static void report(const sums *s, double seconds, const mica_dataset *d, mica_evaluation *out) {
    const mica_dataset_report *read = mica_dataset_get_report(d);
    *out = (mica_evaluation){.loss = s->loss / s->weight, .loss_error = error_of(s), .examples = s->examples, .scored = (int64_t)s->weight,
                             .tokens = s->tokens, .seconds = seconds, .bad_lines = (int64_t)read->bad, .long_examples = (int64_t)read->too_long,
                             .unscored_examples = (int64_t)read->unscored};
    out->perplexity = exp(out->loss);
    out->perplexity_error = out->perplexity * out->loss_error;
}

// ---- the run ------------------------------------------------------------------------------------------------
typedef struct job {
    const mica_evaluate_options *o;
    mica_device *device;
    mica_net *net;
    mica_tokenizer *tokenizer;
    mica_template *chat;
    mica_dataset *data;
    mica_dataset_order *order;
    mica_trainer t; // without parameters
} job;

static bool load_net(job *j, const char *model, mica_error *err) {
    j->device = mica_device_open("cpu", &(mica_device_options){.threads = j->o->threads}, err);
    j->net = j->device ? mica_train_load_net(model, j->o->adapter, (mica_net_options){.f32 = j->o->f32}, j->device, err) : NULL;
    if (!j->net) return false;
    j->t = (mica_trainer){.net = j->net, .scope = mica_scope_new(j->device, err)};
    return j->t.scope != NULL;
}

static bool open_data(job *j, const char *model, const char *file, mica_error *err) {
    const mica_evaluate_options *e = j->o;
    mica_dataset_options o;
    if (!mica_train_data_options(e->mask_prompt, e->too_long, e->max_seq, e->skip_bad, &o, err)) return false;
    if (!mica_train_load_text(model, &j->tokenizer, &j->chat, err)) return false;
    j->data = mica_dataset_open(file, j->tokenizer, j->chat, &o, err);
    j->order = j->data ? mica_dataset_order_new(j->data, &(mica_dataset_order_options){.in_file_order = true, .epochs = 1, .batch_size = 1}, err) : NULL;
    return j->order != NULL;
}

static bool measure(job *j, sums *s, mica_error *err) {
    size_t all = mica_dataset_count(j->data);
    for (;;) {
        mica_text_batch b;
        double loss = 0, weight = 0;
        if (!mica_dataset_next(j->order, &b, err)) return false;
        if (!b.n) return true;
        if (!mica_trainer_measure(&j->t, &b, &loss, &weight, err)) return false;
        add(s, loss, weight, b.n);
        if (j->o->examples > 0 && s->examples >= j->o->examples) return true;
        if (!j->o->progress || j->o->progress(j->o->context, (int64_t)mica_dataset_order_position(j->order).index, (int64_t)all)) continue;
        return mica_fail(err, MICA_ERR_CANCELLED, "stopped after %lld examples", (long long)s->examples);
    }
}

bool mica_evaluate(const char *model, const char *file, const mica_evaluate_options *options, mica_evaluation *out, mica_error *err) {
    static const mica_evaluate_options none;
    job j = {.o = options ? options : &none};
    sums s = {0};
    *out = (mica_evaluation){.loss = (double)NAN};
    bool ok = open_data(&j, model, file, err) && load_net(&j, model, err);
    double started = mica_now();
    ok = ok && measure(&j, &s, err);
    if (ok && s.weight <= 0) ok = mica_fail(err, MICA_ERR_FORMAT, "%s: nothing in it is scored", file);
    if (ok && !isfinite(s.loss)) ok = mica_fail(err, MICA_ERR_FORMAT, "%s: the loss is not finite", file);
    if (ok) report(&s, mica_now() - started, j.data, out);
    mica_scope_free(j.t.scope);
    mica_dataset_order_free(j.order);
    mica_dataset_free(j.data);
    mica_template_free(j.chat);
    mica_tokenizer_free(j.tokenizer);
    mica_net_free(j.net);
    mica_device_close(j.device);
    return ok;
}
