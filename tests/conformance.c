// SPDX-License-Identifier: Apache-2.0
// One consumer, several backends: what a program may expect of a model, tried with each backend that is named. On the public headers only; nothing
// but the backend's name changes. Greedy answers of the backends are compared, up to ties: where two tokens are as likely as makes no difference,
// either may come, and what follows is another text.
//   conformance MODEL BACKEND [BACKEND…]
#include "mica/backend.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROMPTS = 4, MOST = 24 };
static const double tie = 0.08; // nats; bfloat16 activations differ by about as much
static const char *const prompts[PROMPTS] = {"Once upon a time", "The capital of France is", "def add(a, b):\n", "1, 2, 3, 4,"};

typedef struct answer {
    int32_t ids[MOST];
    double margin[MOST]; // between the best and the second
    size_t count;
    char text[4096];
    mica_finish finish;
    mica_metrics metrics;
    size_t prompt_count;
    uint64_t prompt_hash;
} answer;

enum { TEXTS = 3, LABELS = 3 };
static const char *const texts[TEXTS] = {"The cat sat on the mat.", "x = y + 1", "What a lovely day, it is so warm!"};
static const char *const labels[LABELS] = {"story", "source code", "weather"};

/** All that one backend answered, for comparing. */
typedef struct answers {
    answer plain[PROMPTS], chat;
    double logprobs[TEXTS][LABELS], probabilities[TEXTS][LABELS];
    int32_t next[TEXTS];
    bool has_chat;
} answers;

static int failures;
static const char *current = "";

#define CHECK(condition, ...)                                             \
    do {                                                                  \
        if (!(condition)) {                                               \
            failures++;                                                   \
            fprintf(stderr, "%s: line %d: %s: ", current, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                 \
            fputc('\n', stderr);                                          \
        }                                                                 \
    } while (0)

// ---- pieces -------------------------------------------------------------------------------------------------
static bool is_utf8(const char *text, size_t n) {
    for (const unsigned char *s = (const unsigned char *)text, *last = s + n; s < last;) {
        int more = *s < 0x80 ? 0 : *s >= 0xF0 ? 3 : *s >= 0xE0 ? 2 : *s >= 0xC2 ? 1 : -1;
        if (more < 0) return false;
        for (s++; more > 0; more--, s++)
            if ((*s & 0xC0) != 0x80) return false;
    }
    return true;
}

static void collect(mica_stream *s, answer *a) {
    mica_error err = {0};
    *a = (answer){0};
    const int32_t *prompt = mica_stream_prompt(s, &a->prompt_count);
    for (size_t i = 0; i < a->prompt_count; i++) a->prompt_hash = a->prompt_hash * 1000003 + (uint64_t)prompt[i];
    for (mica_token t; mica_stream_next(s, &t);) {
        CHECK(t.text[t.length] == 0 && is_utf8(t.text, t.length), "a piece is not whole UTF-8");
        if (strlen(a->text) + t.length < sizeof a->text) strcat(a->text, t.text);
        if (t.id < 0 || a->count == MOST) continue;
        a->margin[a->count] = t.top_count > 1 ? (double)(t.top[0].logprob - t.top[1].logprob) : 1;
        a->ids[a->count++] = t.id;
    }
    a->finish = mica_stream_finish(s);
    a->metrics = mica_stream_metrics(s);
    CHECK(a->finish != MICA_FINISH_NONE, "an ended stream has no reason");
    CHECK(!mica_stream_error(s, &err), "%s", err.msg);
    mica_stream_free(s);
}

static bool generate(mica_model *m, const char *prompt, const mica_generate_options *o, answer *a) {
    mica_error err = {0};
    mica_stream *s = mica_generate(m, prompt, strlen(prompt), o, &err);
    CHECK(s, "%s", err.msg);
    if (s) collect(s, a);
    return s != NULL;
}

// ---- what is tried ------------------------------------------------------------------------------------------
static void try_info(mica_model *m, const char *path) {
    const mica_info *i = mica_model_info(m);
    mica_info read = {0};
    mica_error err = {0};
    CHECK(mica_info_read(path, &read, &err), "%s", err.msg);
    CHECK(strcmp(i->architecture, read.architecture) == 0, "%s, not %s", i->architecture, read.architecture);
    CHECK(i->vocab_size == read.vocab_size && i->num_layers == read.num_layers && i->hidden_size == read.hidden_size, "%d %d %d, not %d %d %d",
          (int)i->vocab_size, (int)i->num_layers, (int)i->hidden_size, (int)read.vocab_size, (int)read.num_layers, (int)read.hidden_size);
    CHECK(i->num_heads == read.num_heads && i->num_kv_heads == read.num_kv_heads && i->head_dim == read.head_dim, "heads differ");
    CHECK(i->quant_bits == read.quant_bits && i->quant_group == read.quant_group && strcmp(i->quant_mode, read.quant_mode) == 0,
          "quantisation differs: %d %d %s", (int)i->quant_bits, (int)i->quant_group, i->quant_mode);
    CHECK(i->parameters == read.parameters, "%lld parameters, not %lld", (long long)i->parameters, (long long)read.parameters);
    CHECK(i->context_length == read.context_length && i->bytes_on_disk > 0 && i->weight_bytes > 0, "sizes differ");
    CHECK(i->has_chat_template == read.has_chat_template, "the chat template is only seen by one");
}

static void try_generate(mica_model *m, answer *all) {
    for (int i = 0; i < PROMPTS; i++) {
        answer *a = &all[i];
        if (!generate(m, prompts[i], &(mica_generate_options){.max_tokens = MOST, .logprobs = 2}, a)) continue;
        const mica_metrics *k = &a->metrics;
        CHECK(a->count == MOST ? a->finish == MICA_FINISH_LENGTH : a->finish == MICA_FINISH_STOP, "%zu tokens, %s", a->count,
              mica_finish_name(a->finish));
        CHECK(k->generated_tokens == (int64_t)a->count && k->prompt_tokens == (int64_t)a->prompt_count && a->prompt_count > 0, "%lld, %lld tokens",
              (long long)k->prompt_tokens, (long long)k->generated_tokens);
        CHECK(k->prefill_seconds > 0 && (k->decode_seconds > 0 || a->count < 2) && k->total_seconds >= k->decode_seconds && k->prefill_tokens_per_second > 0 &&
                  (k->decode_tokens_per_second > 0 || a->count < 2) && k->time_to_first_token_seconds > 0,
              "times are missing");
        CHECK(k->peak_memory_bytes > 0, "the memory is missing");
    }
}

static void try_sampling(mica_model *m) {
    answer a, b;
    mica_generate_options o = {.max_tokens = MOST, .temperature = 1, .top_p = 0.95f, .top_k = 50, .min_p = 0.01f, .seed = 7};
    if (!generate(m, prompts[0], &o, &a) || !generate(m, prompts[0], &o, &b)) return;
    CHECK(a.count == b.count && memcmp(a.ids, b.ids, a.count * sizeof *a.ids) == 0, "equal seeds, other texts");
    o.seed = 8;
    if (generate(m, prompts[0], &o, &b)) CHECK(strcmp(a.text, b.text) != 0, "other seeds, equal texts");
    mica_generate_options forced = {.max_tokens = 3, .logit_bias = &(mica_logit_bias){5, 1000}, .logit_bias_count = 1};
    if (generate(m, prompts[0], &forced, &a)) CHECK(a.count == 3 && a.ids[0] == 5 && a.ids[2] == 5, "a bias is ignored");
    forced.logit_bias = NULL, forced.logit_bias_count = 0, forced.max_tokens = MOST, forced.presence_penalty = 1000;
    if (generate(m, prompts[0], &forced, &a))
        for (size_t i = 0; i < a.count; i++)
            for (size_t j = 0; j < i; j++) CHECK(a.ids[i] != a.ids[j], "token %d again, in spite of its penalty", (int)a.ids[i]);
}

// Stops at a text that the answer is known to hold, and at one of its ids.
static void try_stop(mica_model *m, const answer *whole) {
    answer a;
    char stop[3] = {0};
    size_t at = strlen(whole->text) / 2;
    while (at > 1 && ((whole->text[at] & 0x80) || (whole->text[at + 1] & 0x80))) at--;
    memcpy(stop, whole->text + at, 2);
    const char *before = strstr(whole->text, stop);
    const char *const stops[] = {stop};
    if (strlen(stop) == 2 && generate(m, prompts[0], &(mica_generate_options){.max_tokens = MOST, .stop = stops, .stop_count = 1}, &a)) {
        CHECK(a.finish == MICA_FINISH_STOP, "stop text \"%s\" is passed over: %s", stop, a.text);
        CHECK(strlen(a.text) == (size_t)(before - whole->text) && memcmp(a.text, whole->text, strlen(a.text)) == 0, "\"%s\" before \"%s\"", a.text, stop);
    }
    const int32_t *id = &whole->ids[whole->count / 2];
    if (generate(m, prompts[0], &(mica_generate_options){.max_tokens = MOST, .stop_ids = id, .stop_id_count = 1}, &a))
        CHECK(a.finish == MICA_FINISH_STOP && a.count <= whole->count / 2, "stop id %d is passed over", (int)*id);
}

static void try_leaving_early(mica_model *m) {
    mica_error err = {0};
    mica_token t;
    mica_generate_options o = {.max_tokens = 400, .ignore_eos = true};
    mica_stream *s = mica_generate(m, prompts[0], strlen(prompts[0]), &o, &err);
    CHECK(s && mica_stream_next(s, &t), "%s", err.msg);
    mica_stream_free(s); // in the middle
    s = mica_generate(m, prompts[0], strlen(prompts[0]), &o, &err);
    CHECK(s && mica_stream_next(s, &t), "%s", err.msg);
    if (s) mica_stream_cancel(s);
    int more = 0;
    while (s && mica_stream_next(s, &t)) more++;
    CHECK(s && more <= 1 && mica_stream_finish(s) == MICA_FINISH_CANCELLED, "%d tokens after cancelling", more);
    CHECK(s && !mica_stream_error(s, &err), "being cancelled is no error");
    mica_stream_free(s);
}

static void *cancel_soon(void *stream) {
    nanosleep(&(struct timespec){.tv_nsec = 30 * 1000 * 1000}, NULL);
    mica_stream_cancel(stream);
    return NULL;
}

static void try_cancel(mica_model *m) {
    mica_error err = {0};
    mica_stream *s = mica_generate(m, prompts[0], strlen(prompts[0]), &(mica_generate_options){.max_tokens = 400, .ignore_eos = true}, &err);
    pthread_t thread;
    CHECK(s, "%s", err.msg);
    if (!s || pthread_create(&thread, NULL, cancel_soon, s)) return;
    for (mica_token t; mica_stream_next(s, &t);) {}
    CHECK(mica_stream_finish(s) == MICA_FINISH_CANCELLED || mica_stream_finish(s) == MICA_FINISH_LENGTH, "%s", mica_finish_name(mica_stream_finish(s)));
    pthread_join(thread, NULL);
    mica_stream_free(s);
}

static void try_errors(mica_model *m, const char *backend) {
    mica_error err = {0};
    const int32_t out_of_range = mica_model_info(m)->vocab_size;
    CHECK(!mica_generate_ids(m, &out_of_range, 1, NULL, &err) && err.code == MICA_ERR_ARGUMENT && strstr(err.msg, "vocabulary"), "%s", err.msg);
    CHECK(!mica_generate_ids(m, NULL, 0, NULL, &err) && err.code == MICA_ERR_ARGUMENT && strstr(err.msg, "empty"), "%s", err.msg);
    CHECK(!mica_generate(m, "a", 1, &(mica_generate_options){.top_p = 2}, &err) && strstr(err.msg, "top_p"), "%s", err.msg);
    CHECK(!mica_generate(m, "a", 1, &(mica_generate_options){.stop = (const char *const[]){""}, .stop_count = 1}, &err) && strstr(err.msg, "stop"), "%s",
          err.msg);
    CHECK(!mica_generate(m, "a", 1, &(mica_generate_options){.adapter = "none such"}, &err) && strstr(err.msg, "none such"), "%s", err.msg);
    CHECK(mica_adapter_works(m) || strstr(err.msg, backend), "%s", err.msg);
    err = (mica_error){0};
    CHECK(!mica_model_load("/no/such/folder", &(mica_load_options){.backend = backend}, &err) && strstr(err.msg, "/no/such/folder"), "%s", err.msg);
}

static void try_chat(mica_model *m, answers *all) {
    mica_error err = {0};
    const mica_message messages[] = {{.role = "system", .content = "Be brief."}, {.role = "user", .content = "Name a colour."},
                                     {.role = "assistant", .content = "Red."}, {.json = "{\"role\":\"user\",\"content\":\"Another <|im_end|> or </s> one?\"}"}};
    mica_stream *s = mica_chat_start(m, messages, 4, &(mica_generate_options){.max_tokens = MOST, .logprobs = 2}, &err);
    all->has_chat = mica_model_info(m)->has_chat_template;
    CHECK(all->has_chat == (s != NULL), "%s", err.msg);
    if (s) collect(s, &all->chat);
    else CHECK(strstr(err.msg, "template"), "%s", err.msg);
    const mica_message bad = {.json = "{\"role\": "};
    CHECK(!mica_chat_start(m, &bad, 1, NULL, &err), "half a message is accepted");
}

static bool stop_at_once(void *context, size_t done, size_t count) { return ++*(int *)context, (void)done, (void)count, false; }

static void try_classify(mica_model *m, answers *all) {
    mica_error err = {0};
    mica_classes c;
    mica_classify_options o = {.labels = labels, .label_count = LABELS, .prompt = "Text: {text}\nKind:", .calibrate = true};
    CHECK(mica_classify(m, texts, TEXTS, &o, &c, &err), "%s", err.msg);
    for (size_t i = 0; i < c.count; i++) {
        const mica_class *k = &c.items[i];
        CHECK(!k->error.code && k->label >= 0 && strcmp(k->text, labels[k->label]) == 0, "text %zu: %s", i, k->error.msg);
        for (int l = 0; l < LABELS && !k->error.code; l++) all->logprobs[i][l] = k->logprobs[l], all->probabilities[i][l] = k->probabilities[l];
    }
    mica_classes_free(&c);
    CHECK(mica_classify(m, texts, TEXTS, &(mica_classify_options){.logits = true}, &c, &err), "%s", err.msg);
    for (size_t i = 0; i < c.count; i++) {
        const mica_class *k = &c.items[i];
        CHECK(!k->error.code && k->label == -1 && k->token >= 0 && k->text && k->prompt_tokens > 0, "text %zu: %s", i, k->error.msg);
        all->next[i] = k->token;
        for (int32_t t = 0; k->logits && t < mica_model_info(m)->vocab_size; t++) CHECK(k->logits[t] <= k->logits[k->token], "token %d is likelier", (int)t);
    }
    mica_classes_free(&c);
    int calls = 0;
    CHECK(mica_classify(m, texts, TEXTS, &(mica_classify_options){.batch = 1, .progress = stop_at_once, .context = &calls}, &c, &err), "%s", err.msg);
    CHECK(calls == 1 && !c.items[0].error.code && c.items[TEXTS - 1].error.code == MICA_ERR_CANCELLED, "%d calls, %s", calls, c.items[TEXTS - 1].error.msg);
    mica_classes_free(&c);
    const char *const empty = "";
    CHECK(!mica_classify(m, texts, 1, &(mica_classify_options){.labels = &empty, .label_count = 1}, &c, &err) && strstr(err.msg, "label"), "%s", err.msg);
}

// Each row is what its prompt gives alone; a row that cannot be answered does not disturb the others.
static void try_batch(mica_model *m, const answers *all) {
    mica_error err = {0};
    mica_request requests[PROMPTS + 1] = {0};
    mica_result results[PROMPTS + 1] = {0};
    const int32_t outside = mica_model_info(m)->vocab_size;
    for (int i = 0; i < PROMPTS; i++) {
        requests[i].prompt = (mica_prompt){.text = prompts[i], .length = strlen(prompts[i])};
        requests[i].options = (mica_generate_options){.max_tokens = MOST - i};
    }
    requests[PROMPTS].prompt = (mica_prompt){.ids = &outside, .count = 1};
    CHECK(mica_batch_generate(m, requests, PROMPTS + 1, &(mica_batch_options){.rows = 3}, NULL, results, &err), "%s", err.msg);
    for (int i = 0; i < PROMPTS; i++) {
        const mica_result *r = &results[i];
        size_t same = 0;
        while (same < r->count && same < all->plain[i].count && r->ids[same] == all->plain[i].ids[same]) same++;
        bool tied = same < all->plain[i].count && all->plain[i].margin[same] < tie;
        CHECK(r->finish != MICA_FINISH_ERROR && (same == r->count || tied), "row %d: token %zu of %zu differs: %s", i, same, r->count, r->error.msg);
        CHECK(r->metrics.generated_tokens == (int64_t)r->count, "row %d: %lld tokens", i, (long long)r->metrics.generated_tokens);
    }
    CHECK(results[PROMPTS].finish == MICA_FINISH_ERROR && strstr(results[PROMPTS].error.msg, "vocabulary"), "%s", results[PROMPTS].error.msg);
    for (int i = 0; i <= PROMPTS; i++) mica_result_free(&results[i]);
    mica_batch *b = mica_batch_new(m, NULL, &err);
    CHECK(b, "%s", err.msg);
    int64_t rows[2], ended[2] = {MICA_FINISH_NONE, MICA_FINISH_NONE};
    for (int i = 0; b && i < 2; i++)
        rows[i] = mica_batch_add(b, &requests[i].prompt, &(mica_generate_options){.max_tokens = i ? 5 : 400, .ignore_eos = true}, &err);
    if (b) mica_batch_cancel(b, rows[0]);
    for (mica_batch_event e; b && mica_batch_next(b, &e);)
        if (e.finish) ended[e.row == rows[1]] = e.finish;
    CHECK(ended[0] == MICA_FINISH_CANCELLED && ended[1] == MICA_FINISH_LENGTH, "%d, %d", (int)ended[0], (int)ended[1]);
    mica_batch_free(b);
}

static void *run_beside(void *context) {
    answer *a = malloc(sizeof *a);
    if (a && !generate(context, prompts[1], &(mica_generate_options){.max_tokens = MOST}, a)) a->count = 0;
    return a;
}

// Three threads on one model, and a second model at the same time: all say what one alone says.
static void try_together(mica_model *m, mica_model *other, const answer *alone) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, run_beside, i < 3 ? m : other) == 0, "no thread");
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        const answer *a = result;
        CHECK(a && strcmp(a->text, alone->text) == 0, "beside others: \"%s\", alone: \"%s\"", a ? a->text : "", alone->text);
        free(result);
    }
}

static void try_close(mica_model *m) {
    mica_error err = {0};
    mica_token t;
    mica_stream *s = mica_generate(m, prompts[0], strlen(prompts[0]), &(mica_generate_options){.max_tokens = 400, .ignore_eos = true}, &err);
    CHECK(s && mica_stream_next(s, &t), "%s", err.msg);
    mica_model_close(m);
    mica_model_close(m);
    CHECK(!mica_generate(m, "a", 1, NULL, &err) && strstr(err.msg, "closed"), "%s", err.msg);
    while (s && mica_stream_next(s, &t)) {}
    CHECK(s && mica_stream_finish(s) == MICA_FINISH_CANCELLED, "a stream outlived its model");
    mica_stream_free(s);
    mica_model_free(m);
}

static void run(const char *path, const char *backend, answers *all) {
    mica_error err = {0};
    current = backend;
    mica_model *m = mica_model_load(path, &(mica_load_options){.backend = backend}, &err);
    mica_model *other = m ? mica_model_load(path, &(mica_load_options){.backend = backend}, &err) : NULL;
    CHECK(m && other, "%s", err.msg);
    if (m && other) {
        CHECK(strcmp(mica_model_backend(m), backend) == 0, "it is %s", mica_model_backend(m));
        try_info(m, path);
        try_generate(m, all->plain);
        try_sampling(m);
        try_stop(m, &all->plain[0]);
        try_leaving_early(m);
        try_cancel(m);
        try_errors(m, backend);
        try_chat(m, all);
        try_classify(m, all);
        try_batch(m, all);
        try_together(m, other, &all->plain[1]);
        try_close(m);
    } else mica_model_free(m);
    mica_model_free(other);
}

// ---- comparing ----------------------------------------------------------------------------------------------
static void compare(const char *what, const answer *a, const answer *b) {
    size_t same = 0;
    while (same < a->count && same < b->count && a->ids[same] == b->ids[same]) same++;
    bool equal = same == a->count && same == b->count, tied = same < a->count && a->margin[same] < tie;
    CHECK(equal || tied, "%s: token %zu differs, no tie (%g): \"%s\" | \"%s\"", what, same, same < a->count ? a->margin[same] : 0.0, a->text, b->text);
    if (equal) CHECK(strcmp(a->text, b->text) == 0, "%s: equal tokens, other texts: \"%s\" | \"%s\"", what, a->text, b->text);
    CHECK(a->prompt_count == b->prompt_count && a->prompt_hash == b->prompt_hash, "the prompts differ: %s: %zu and %zu tokens of prompt", what, a->prompt_count, b->prompt_count);
    printf("%s: \"%.20s\": %zu of %zu tokens equal%s\n", current, what, same, a->count, equal ? "" : tied ? ", then a tie" : "");
}

static void compare_all(const char *backend, const answers *a, const answers *b) {
    double most = 0;
    current = backend;
    for (int i = 0; i < PROMPTS; i++) compare(prompts[i], &a->plain[i], &b->plain[i]);
    CHECK(a->has_chat == b->has_chat, "only one can chat");
    if (a->has_chat) compare("chat", &a->chat, &b->chat);
    for (int i = 0; i < TEXTS; i++) {
        for (int l = 0; l < LABELS; l++) most = fmax(most, fabs(a->logprobs[i][l] - b->logprobs[i][l]));
        CHECK(a->next[i] == b->next[i], "text %d: next token %d, not %d", i, (int)b->next[i], (int)a->next[i]);
    }
    CHECK(most < 4 * tie, "log-probabilities of labels differ by %g", most);
    printf("%s: log-probabilities of labels differ by at most %.2g\n", backend, most);
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: conformance MODEL BACKEND…\n"), 2;
    static answers first, next;
    run(argv[1], argv[2], &first);
    for (int i = 3; i < argc; i++) {
        run(argv[1], argv[i], &next);
        compare_all(argv[i], &first, &next);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
