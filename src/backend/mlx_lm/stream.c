// SPDX-License-Identifier: Apache-2.0
// One answer of the Python process as a pull iterator. The process runs ahead of the reader by a bounded number of tokens, which it is granted as they
// are taken: a reader that stops does not fill the memory. Stop texts are matched here, by the code that native answers use.
#include "backend/mlx_lm/stream.h"
#include "infer/stop.h"
#include "infer/sampler.h"
#include <math.h>
#include <string.h>

enum { AHEAD = 64 }; // tokens that may be under way: hides the pipe's latency, and bounds what is computed in vain

struct mica_mlx_stream {
    mica_mlx *m;
    mica_mlx_request *request;
    mica_arena arena;  // of the last answer
    mica_stop stop;
    mica_buf text;     // of the token being delivered
    int32_t logprobs, vocab;
    mica_logprob *top;
    int32_t *prompt;
    size_t prompt_count;
    int32_t granted;   // tokens asked for that have not come
    bool begun;
    mica_finish finish;
    mica_error error;
    mica_metrics metrics;
    double started;
};

// ---- set-up -------------------------------------------------------------------------------------------------
static bool refuse(mica_error *err, const char *option, const char *why) {
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "option %s: mlx_lm %s", option, why);
}

// What mlx_lm has no counterpart of is refused, not forgotten.
static bool check_options(const mica_generate_options *o, int32_t vocab, mica_error *err) {
    if (!mica_sampler_check(o, err)) return false;
    if (o->order && strcmp(o->order, "top_p,min_p,top_k,temperature") != 0) return refuse(err, "order", "has only \"top_p,min_p,top_k,temperature\"");
    if (o->speculate) return refuse(err, "speculate", "cannot guess ahead");
    for (size_t i = 0; i < o->logit_bias_count; i++)
        if (o->logit_bias[i].id < 0 || o->logit_bias[i].id >= vocab || isnan(o->logit_bias[i].bias))
            return mica_fail(err, MICA_ERR_ARGUMENT, "logit_bias: token %d is outside the vocabulary of %d, or its bias is no number",
                             (int)o->logit_bias[i].id, (int)vocab);
    return true;
}

// The process encodes the prompt and checks it; nothing is computed yet.
static bool announce(mica_mlx_stream *s, const mica_prompt *prompt, const mica_generate_options *o, int64_t together, mica_error *err) {
    mica_buf out = {0};
    bool ok = mica_mlx_write_generate(&out, mica_mlx_id(s->request), prompt, o, together, err) && mica_mlx_say(s->m, s->request, &out, err);
    mica_buf_free(&out);
    const mica_json *answer = ok ? mica_mlx_wait(s->m, s->request, &s->arena, err) : NULL;
    return answer && mica_mlx_read_ids(mica_json_get(answer, "prompt"), &s->prompt, &s->prompt_count, err);
}

static bool set_up(mica_mlx_stream *s, const mica_prompt *prompt, const mica_generate_options *o, int64_t together, mica_error *err) {
    s->vocab = mica_mlx_info(s->m)->vocab_size;
    if (!check_options(o, s->vocab, err) || !mica_stop_init(&s->stop, o->stop, o->stop_count, err)) return false;
    s->logprobs = MICA_MIN(o->logprobs, s->vocab);
    if (s->logprobs > 0 && !(s->top = mica_alloc((size_t)s->logprobs * sizeof *s->top)))
        return mica_fail_memory(err, (size_t)s->logprobs * sizeof *s->top, "log-probabilities");
    if (!(s->request = mica_mlx_begin(s->m, err)) || !announce(s, prompt, o, together, err)) return false;
    s->metrics.load_seconds = mica_mlx_load_seconds(s->m);
    s->metrics.prompt_tokens = (int64_t)s->prompt_count;
    return true;
}

mica_mlx_stream *mica_mlx_stream_new(mica_mlx *m, const mica_prompt *prompt, const mica_generate_options *options, int64_t together,
                                     mica_error *err) {
    mica_generate_options o = options ? *options : (mica_generate_options){0};
    if (!o.max_tokens) o.max_tokens = 256;
    mica_mlx_stream *s = mica_calloc(1, sizeof *s);
    if (!s) return mica_fail_memory(err, sizeof *s, "a stream"), NULL;
    s->m = m;
    if (set_up(s, prompt, &o, together, err)) return s;
    mica_mlx_stream_free(s);
    return NULL;
}

void mica_mlx_stream_free(mica_mlx_stream *s) {
    if (!s) return;
    mica_mlx_end(s->m, s->request);
    mica_stop_free(&s->stop);
    mica_arena_free(&s->arena);
    mica_buf_free(&s->text);
    mica_free(s->top);
    mica_free(s->prompt);
    mica_free(s);
}

// ---- tokens -------------------------------------------------------------------------------------------------
static bool end(mica_mlx_stream *s, mica_finish why) {
    if (!s->finish) s->finish = why;
    return false;
}

static bool failed(mica_mlx_stream *s) { return end(s, s->error.code == MICA_ERR_CANCELLED ? MICA_FINISH_CANCELLED : MICA_FINISH_ERROR); }

static bool grant(mica_mlx_stream *s) {
    if (s->granted > AHEAD / 2) return true;
    mica_buf out = {0};
    mica_mlx_write_more(&out, mica_mlx_id(s->request), AHEAD - s->granted);
    bool ok = mica_mlx_say(s->m, s->request, &out, &s->error);
    mica_buf_free(&out);
    s->granted = AHEAD;
    return ok;
}

void mica_mlx_stream_run(mica_mlx_stream *s) {
    if (!grant(s)) failed(s);
}

mica_mlx_request *mica_mlx_stream_request(const mica_mlx_stream *s) { return s->request; }

// The next token or the end; passes over news of progress.
static bool receive(mica_mlx_stream *s, mica_mlx_token *t) {
    for (;;) {
        const mica_json *answer = mica_mlx_wait(s->m, s->request, &s->arena, &s->error);
        if (!answer || !mica_mlx_read_token(answer, t, &s->error)) return failed(s);
        if (t->id >= s->vocab) return mica_fail(&s->error, MICA_ERR_FORMAT, "mlx_lm answer: token %d is none", (int)t->id), failed(s);
        if (t->active) s->metrics.active_memory_bytes = t->active;
        s->metrics.peak_memory_bytes = MICA_MAX(s->metrics.peak_memory_bytes, t->peak);
        *(s->metrics.generated_tokens ? &s->metrics.decode_seconds : &s->metrics.prefill_seconds) += t->seconds;
        if (t->id >= 0 || t->finish) return true;
    }
}

static bool add_text(mica_mlx_stream *s, const char *piece, size_t n, bool flush) {
    const char *out;
    size_t out_n;
    if (mica_stop_push(&s->stop, piece, n, flush, &out, &out_n) && mica_buf_append(&s->text, out, out_n)) return true;
    return mica_fail_memory(&s->error, n, "text"), end(s, MICA_FINISH_ERROR);
}

static bool deliver(mica_mlx_stream *s, mica_token *t) {
    t->text = s->text.data ? s->text.data : "";
    t->length = s->text.len;
    return t->id >= 0 || t->length > 0;
}

// What was held back belongs to the answer even if it was cancelled.
static bool flush(mica_mlx_stream *s, mica_token *t, const char *rest, size_t n) {
    t->id = -1;
    return s->finish != MICA_FINISH_ERROR && add_text(s, rest, n, true) && deliver(s, t);
}

static bool take(mica_mlx_stream *s, const mica_mlx_token *in, mica_token *t) {
    if (in->id < 0) {
        if (!add_text(s, in->text, in->length, false)) return false;
        end(s, s->stop.matched ? MICA_FINISH_STOP : in->finish);
        return flush(s, t, "", 0);
    }
    s->granted--;
    s->metrics.generated_tokens++;
    t->id = in->id;
    if (s->logprobs) t->logprob = in->logprob;
    t->top = s->top;
    t->top_count = s->logprobs > 0 ? mica_mlx_read_top(in->top, s->vocab, s->top, s->logprobs) : 0;
    if (!add_text(s, in->text, in->length, in->finish != MICA_FINISH_NONE)) return false;
    if (s->stop.matched) end(s, MICA_FINISH_STOP);
    else if (in->finish) end(s, in->finish);
    return deliver(s, t);
}

static bool next(mica_mlx_stream *s, mica_token *t) {
    mica_mlx_token in;
    s->text.len = 0;
    if (s->text.data) s->text.data[0] = 0;
    if (s->finish) return false;
    if (!grant(s)) return failed(s);
    if (receive(s, &in)) return take(s, &in, t);
    return flush(s, t, "", 0);
}

bool mica_mlx_stream_next(mica_mlx_stream *s, mica_token *t) {
    double from = mica_now();
    bool first = !s->begun;
    *t = (mica_token){.id = -1, .text = ""};
    s->begun = true;
    bool more = next(s, t);
    if (first) s->metrics.time_to_first_token_seconds = mica_now() - from;
    s->metrics.total_seconds = s->metrics.prefill_seconds + s->metrics.decode_seconds;
    return more;
}

// ---- the rest -----------------------------------------------------------------------------------------------
void mica_mlx_stream_cancel(mica_mlx_stream *s) { mica_mlx_cancel(s->m, s->request); }
mica_finish mica_mlx_stream_finish(const mica_mlx_stream *s) { return s->finish; }

bool mica_mlx_stream_error(const mica_mlx_stream *s, mica_error *err) {
    if (s->finish == MICA_FINISH_ERROR && err) *err = s->error;
    return s->finish == MICA_FINISH_ERROR;
}

mica_metrics mica_mlx_stream_metrics(const mica_mlx_stream *s) {
    mica_metrics k = s->metrics;
    if (k.prefill_seconds > 0) k.prefill_tokens_per_second = (double)k.prompt_tokens / k.prefill_seconds;
    if (k.decode_seconds > 0 && k.generated_tokens > 1) k.decode_tokens_per_second = (double)(k.generated_tokens - 1) / k.decode_seconds;
    return k;
}

const int32_t *mica_mlx_stream_prompt(const mica_mlx_stream *s, size_t *count) {
    *count = s->prompt_count;
    return s->prompt;
}
