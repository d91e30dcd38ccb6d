// SPDX-License-Identifier: Apache-2.0
// Classification by the Python process: it scores, one text after another; choosing among the labels is done here.
#include "backend/mlx_lm/classify.h"
#include "backend/mlx_lm/protocol.h"
#include <math.h>
#include <string.h>

typedef struct classifying {
    mica_mlx *m;
    mica_mlx_request *request;
    const mica_classify_options *o;
    mica_classes *out;
    size_t done;
    bool stopped; // by the caller
} classifying;

static bool take_probabilities(const classifying *c, const mica_json *answer, mica_class *item) {
    size_t count = c->o->label_count;
    double *base = mica_calloc(count, sizeof *base), most = -(double)INFINITY, sum = 0;
    item->logprobs = mica_calloc(count, sizeof *item->logprobs);
    item->probabilities = mica_calloc(count, sizeof *item->probabilities);
    bool ok = base && item->logprobs && item->probabilities;
    if (!ok) mica_fail_memory(&item->error, count * sizeof *base, "a result");
    const mica_json *calibration = mica_json_get(answer, "calibration");
    ok = ok && mica_mlx_read_numbers(mica_json_get(answer, "logprobs"), item->logprobs, count, &item->error) &&
         (!calibration || mica_mlx_read_numbers(calibration, base, count, &item->error));
    for (size_t l = 0; ok && l < count; l++)
        if (item->logprobs[l] - base[l] > most || item->label < 0) most = item->logprobs[l] - base[l], item->label = (int32_t)l;
    for (size_t l = 0; ok && l < count; l++) sum += item->probabilities[l] = exp(item->logprobs[l] - base[l] - most);
    for (size_t l = 0; ok && l < count; l++) item->probabilities[l] /= sum;
    mica_free(base);
    return ok;
}

static bool take_logits(const classifying *c, const mica_json *answer, mica_class *item) {
    size_t vocab = (size_t)mica_mlx_info(c->m)->vocab_size;
    double *wide = mica_alloc(vocab * sizeof *wide);
    item->logits = mica_alloc(vocab * sizeof *item->logits);
    bool ok = (wide && item->logits) || mica_fail_memory(&item->error, vocab * sizeof *wide, "logits");
    ok = ok && mica_mlx_read_numbers(mica_json_get(answer, "logits"), wide, vocab, &item->error);
    for (size_t i = 0; ok && i < vocab; i++) item->logits[i] = (float)wide[i];
    mica_free(wide);
    return ok;
}

static void take_item(classifying *c, const mica_json *answer, mica_class *item) {
    mica_mlx_token t;
    int64_t prompt = 0;
    bool ok = !mica_mlx_read_problem(answer, &item->error) && mica_mlx_read_token(answer, &t, &item->error) &&
              mica_json_int(answer, "prompt_tokens", 0, &prompt, "mlx_lm answer", &item->error);
    item->prompt_tokens = (int32_t)MICA_MAX(MICA_MIN(prompt, (int64_t)INT32_MAX), (int64_t)0);
    ok = ok && (!c->o->label_count || take_probabilities(c, answer, item)) && (!c->o->logits || take_logits(c, answer, item));
    if (ok) {
        item->token = t.id;
        const char *text = item->label >= 0 ? c->o->labels[item->label] : t.text;
        item->text = item->label >= 0 ? mica_strdup(text) : mica_strndup(t.text, t.length);
        ok = item->text || mica_fail_memory(&item->error, strlen(text), "a result");
        c->out->metrics.prompt_tokens += item->prompt_tokens;
        c->out->metrics.prefill_seconds += t.seconds;
    }
    if (!ok) item->label = item->token = -1;
}

// Another item; false at the end, or with *err.
static bool step(classifying *c, mica_arena *arena, mica_error *err) {
    const mica_json *answer = mica_mlx_wait(c->m, c->request, arena, err);
    int64_t index;
    mica_mlx_token end;
    if (!answer || !mica_json_int(answer, "index", -1, &index, "mlx_lm answer", err)) return false;
    if (index < 0) {
        if (!mica_mlx_read_token(answer, &end, err)) return false;
        c->out->metrics.active_memory_bytes = end.active, c->out->metrics.peak_memory_bytes = end.peak;
        return !end.finish; // or it said how many texts it has
    }
    if ((size_t)index != c->done || c->done == c->out->count) return mica_fail(err, MICA_ERR_FORMAT, "mlx_lm answer: text %lld is not next", (long long)index);
    take_item(c, answer, &c->out->items[c->done++]);
    size_t batch = c->o->batch > 0 ? (size_t)c->o->batch : 1;
    if (!c->o->progress || (c->done % batch && c->done < c->out->count)) return true;
    c->stopped = !c->o->progress(c->o->context, c->done, c->out->count);
    return !c->stopped;
}

static bool ask(classifying *c, const char *const *texts, mica_error *err) {
    mica_buf out = {0};
    mica_arena arena = {0};
    mica_error why = {0};
    double started = mica_now();
    bool ok = mica_mlx_write_classify(&out, mica_mlx_id(c->request), texts, c->out->count, c->o) || mica_fail_memory(err, out.len, "a request");
    ok = ok && mica_mlx_say(c->m, c->request, &out, err);
    while (ok && step(c, &arena, &why)) {}
    mica_buf_free(&out);
    mica_arena_free(&arena);
    if (ok && why.code && !c->done) return err ? *err = why, false : false;
    if (c->stopped) mica_fail(&why, MICA_ERR_CANCELLED, "cancelled");
    if (!why.code) mica_fail(&why, MICA_ERR_FORMAT, "mlx_lm answer: there is none about this text");
    for (size_t i = c->done; ok && i < c->out->count; i++) c->out->items[i].error = why; // what has come is kept
    mica_metrics *k = &c->out->metrics;
    k->total_seconds = mica_now() - started;
    if (k->prefill_seconds > 0) k->prefill_tokens_per_second = (double)k->prompt_tokens / k->prefill_seconds;
    return ok;
}

bool mica_mlx_classify(mica_mlx *m, const char *const *texts, size_t count, const mica_classify_options *options, mica_classes *out, mica_error *err) {
    for (size_t i = 0; i < count; i++)
        if (!texts[i]) return mica_fail(err, MICA_ERR_ARGUMENT, "text %zu is NULL", i);
    classifying c = {.m = m, .o = options, .out = out, .request = mica_mlx_begin(m, err)};
    bool ok = c.request && ask(&c, texts, err);
    mica_mlx_end(m, c.request);
    return ok;
}
