// SPDX-License-Identifier: Apache-2.0
// Classification by native models: texts become prompts, labels the tokens that follow them; room infer scores both.
#include "backend/model.h"
#include "backend/labels.h"
#include "infer/adapters.h"
#include "infer/classify.h"
#include <math.h>
#include <string.h>

typedef struct classifying {
    mica_lm *lm;
    mica_loaded *adapter;
    const mica_classify_options *o;
    mica_scored *prompts; // [count], and one more for the empty text
    size_t count;
} classifying;

// The prompt with every "{text}" replaced.
static bool fill_in(const char *prompt, const char *text, mica_buf *out) {
    static const char hole[] = "{text}";
    if (!prompt) return mica_buf_puts(out, text);
    for (const char *at; (at = strstr(prompt, hole)); prompt = at + sizeof hole - 1) {
        mica_buf_append(out, prompt, (size_t)(at - prompt));
        mica_buf_puts(out, text);
    }
    return mica_buf_puts(out, prompt);
}

static bool label_ids_of(const classifying *c, const char *text, size_t n, size_t context, const mica_ids *ids, bool whole, mica_scored *p) {
    size_t count = c->o->label_count;
    if (!(p->labels = mica_calloc(count, sizeof *p->labels))) return mica_fail_memory(&p->error, count * sizeof *p->labels, "labels");
    for (size_t l = 0; l < count; l++)
        if (!mica_label_ids(c->lm->tokenizer, text, n, context, ids, whole, c->o->labels[l], &p->labels[l], &p->error)) return false;
    return true;
}

static bool chat_prompt(const classifying *c, const char *content, mica_scored *p) {
    mica_chat chat = {.messages = &(mica_message){.role = "user", .content = content}, .count = 1};
    if (!mica_prompt_ids(c->lm, &(mica_prompt){.chat = &chat}, &p->ids, &p->error)) return false;
    if (!c->o->label_count) return true;
    mica_text text = {0};
    mica_ids tail = {0};
    bool ok = mica_label_tail(c->lm->tokenizer, &p->ids, &text, &tail, &p->error) &&
              label_ids_of(c, text.data ? text.data : "", text.len, text.len, &tail, false, p);
    mica_text_free(&text);
    mica_ids_free(&tail);
    return ok;
}

static bool raw_prompt(const classifying *c, const mica_buf *text, mica_scored *p) {
    size_t context = c->o->label_count ? mica_label_context(text->data, text->len) : text->len;
    if (!mica_prompt_ids(c->lm, &(mica_prompt){.text = text->data, .length = context}, &p->ids, &p->error)) return false;
    return !c->o->label_count || label_ids_of(c, text->data, text->len, context, &p->ids, true, p);
}

static bool prepare(const classifying *c, const char *text, mica_scored *p) {
    mica_buf prompt = {0};
    if (!text) return mica_fail(&p->error, MICA_ERR_ARGUMENT, "the text is NULL");
    bool ok = fill_in(c->o->prompt, text, &prompt) || mica_fail_memory(&p->error, strlen(text), "a prompt");
    ok = ok && (c->o->chat ? chat_prompt(c, prompt.data, p) : raw_prompt(c, &prompt, p));
    mica_buf_free(&prompt);
    return ok;
}

static bool allocate_result(const classifying *c, mica_scored *p, mica_class *item) {
    size_t labels = c->o->label_count, vocab = (size_t)c->lm->info.vocab_size;
    item->logprobs = mica_calloc(labels, sizeof *item->logprobs);
    item->probabilities = mica_calloc(labels, sizeof *item->probabilities);
    if (c->o->logits) item->logits = mica_alloc(vocab * sizeof *item->logits);
    p->logprobs = item->logprobs, p->logits = item->logits;
    bool ok = item->logprobs && item->probabilities && (!c->o->logits || item->logits);
    return ok || mica_fail_memory(&p->error, labels * 16 + vocab * sizeof *item->logits, "a result");
}

// Normalised over the labels: each one's probability, over its share after the empty text where that is known.
static void choose(const double *logprobs, const double *base, size_t count, mica_class *item) {
    double most = -(double)INFINITY, sum = 0;
    for (size_t l = 0; l < count; l++) {
        double x = logprobs[l] - (base ? base[l] : 0);
        if (x > most || item->label < 0) most = x, item->label = (int32_t)l;
    }
    for (size_t l = 0; l < count; l++) sum += item->probabilities[l] = exp(logprobs[l] - (base ? base[l] : 0) - most);
    for (size_t l = 0; l < count; l++) item->probabilities[l] /= sum;
}

static bool name(const classifying *c, const mica_scored *p, mica_class *item) {
    if (item->label >= 0) item->text = mica_strdup(c->o->labels[item->label]);
    else {
        mica_text text = {0};
        if (!mica_tokenizer_decode(c->lm->tokenizer, &p->token, 1, NULL, &text, &item->error)) return false;
        item->text = mica_strndup(text.data ? text.data : "", text.len);
        mica_text_free(&text);
    }
    return item->text || mica_fail_memory(&item->error, 64, "a result");
}

static void finish(const classifying *c, const mica_scored *p, const double *base, mica_class *item) {
    item->prompt_tokens = (int32_t)MICA_MIN(p->ids.len, (size_t)INT32_MAX);
    item->error = p->error;
    if (!p->error.code) {
        item->token = p->token;
        if (c->o->label_count) choose(p->logprobs, base, c->o->label_count, item);
        if (name(c, p, item)) return;
    }
    item->label = item->token = -1;
}

static void free_prompts(classifying *c) {
    for (size_t i = 0; c->prompts && i <= c->count; i++) {
        mica_ids_free(&c->prompts[i].ids);
        for (size_t l = 0; c->prompts[i].labels && l < c->o->label_count; l++) mica_ids_free(&c->prompts[i].labels[l]);
        mica_free(c->prompts[i].labels);
    }
    mica_free(c->prompts);
}

static bool report(void *context, size_t done) {
    const classifying *c = context;
    return !c->o->progress || c->o->progress(c->o->context, done, c->count);
}

// The empty text comes first, so that it is there whenever the rest is given up.
static bool classify(classifying *c, const char *const *texts, mica_classes *out, double *base, mica_error *err) {
    mica_scored *p = c->prompts;
    bool calibrate = c->o->calibrate && c->o->label_count;
    mica_scoring scoring = {.label_count = c->o->label_count, .adapter = mica_loaded_set(c->adapter)};
    if (calibrate) {
        p[c->count].logprobs = base;
        if (!prepare(c, "", &p[c->count]) || !mica_score_prompts(c->lm, &p[c->count], 1, &scoring, err) || p[c->count].error.code) {
            if (p[c->count].error.code && err) *err = p[c->count].error, mica_error_prefix(err, "calibration");
            return false;
        }
    }
    for (size_t i = 0; i < c->count; i++)
        if (prepare(c, texts[i], &p[i])) allocate_result(c, &p[i], &out->items[i]);
    scoring.most = c->o->batch > 0 ? (size_t)c->o->batch : 0;
    scoring.progress = report, scoring.context = c;
    if (!mica_score_prompts(c->lm, p, c->count, &scoring, err)) return false;
    for (size_t i = 0; i < c->count; i++) finish(c, &p[i], calibrate ? base : NULL, &out->items[i]);
    out->metrics = scoring.metrics;
    return true;
}

bool mica_native_classify(mica_lm *lm, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *out,
                          mica_error *err) {
    classifying c = {.lm = lm, .o = options, .count = count};
    if (!lm->tokenizer) return mica_fail(err, MICA_ERR_ARGUMENT, "the model has no tokenizer: texts cannot be read");
    if (!mica_adapters_take(lm, options->adapter, &c.adapter, err)) return false;
    double *base = mica_calloc(options->label_count, sizeof *base);
    c.prompts = mica_calloc(count + 1, sizeof *c.prompts);
    bool ok = base && c.prompts ? classify(&c, texts, out, base, err) : mica_fail_memory(err, count * sizeof *c.prompts, "prompts");
    free_prompts(&c);
    mica_free(base);
    mica_adapters_give(lm, c.adapter);
    return ok;
}
