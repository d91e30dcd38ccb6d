// SPDX-License-Identifier: Apache-2.0
// Classification: labels have the log-probabilities that scoring prompt and label alone gives, however texts are packed; order, errors,
// progress, calibration.
#include "backend/labels.h"
#include "faults_testing.h"
#include "infer/internal.h"
#include "mica/backend.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN MICA_SOURCE_DIR "/tests/golden/models/"
#define QUANT MICA_SOURCE_DIR "/tests/golden/quant/"
#define TOKENIZERS MICA_SOURCE_DIR "/tests/golden/tokenizers/"
static const char template[] = "Classify this text into one category: fact, fiction.\n\nText: {text}\n\nCategory:";
static const char *const labels[] = {"fact", "fiction", "x", "fact or fiction, who knows"};

static mica_model *load(const char *path, int32_t threads) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.threads = threads, .context = 4096}, &err);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

// Texts of all lengths, some longer than a step.
static char **make_texts(size_t count) {
    char **texts = malloc(count * sizeof *texts);
    for (size_t i = 0; i < count; i++) {
        size_t n = i == 7 ? 1500 : i == 11 ? 600 : 3 + i * 13 % 120;
        texts[i] = malloc(n + 1);
        for (size_t k = 0; k < n; k++) texts[i][k] = " abcdefghijklmnopqrstuvwxyz.,"[(k * k + i * 31 + k / 3) % 29];
        texts[i][n] = 0;
    }
    return texts;
}

static void free_texts(char **texts, size_t count) {
    for (size_t i = 0; i < count; i++) free(texts[i]);
    free(texts);
}

// ---- against scoring one by one -----------------------------------------------------------------------------------
static void fill(const char *text, char *out, size_t size) {
    const char *at = strstr(template, "{text}");
    snprintf(out, size, "%.*s%s%s", (int)(at - template), template, text, at + 6);
}

// Log-probability of a label after a prompt, from the scores of both together.
static double alone(mica_model *m, const char *prompt, const char *label) {
    mica_error err = {0};
    char both[8192];
    mica_ids ids = {0}, all = {0};
    mica_scores scores;
    snprintf(both, sizeof both, "%s %s", prompt, label);
    assert_true(mica_tokenizer_encode(m->lm->tokenizer, prompt, strlen(prompt), NULL, &ids, &err));
    assert_true(mica_tokenizer_encode(m->lm->tokenizer, both, strlen(both), NULL, &all, &err));
    assert_memory_equal(all.data, ids.data, ids.len * sizeof *ids.data);
    if (!mica_score(m, all.data, all.len, 0, &scores, &err)) fail_msg("%s", err.msg);
    double sum = 0;
    for (size_t i = ids.len; i < all.len; i++) sum += (double)scores.logprobs[i];
    mica_scores_free(&scores);
    mica_ids_free(&ids);
    mica_ids_free(&all);
    return sum;
}

static void check_sums(const mica_class *c, size_t count) {
    double sum = 0;
    for (size_t l = 0; l < count; l++) {
        sum += c->probabilities[l];
        assert_true(c->probabilities[l] <= c->probabilities[c->label]);
    }
    assert_true(fabs(sum - 1) < 1e-9);
    assert_string_equal(c->text, labels[c->label]);
}

static void compare(const char *path, double tolerance) {
    enum { COUNT = 40, LABELS = MICA_COUNT(labels) };
    mica_error err = {0};
    mica_model *m = load(path, 2);
    char **texts = make_texts(COUNT), prompt[4096];
    double worst = 0;
    for (int32_t batch = 0; batch < 4; batch += 3) {
        mica_classes out;
        mica_classify_options o = {.labels = labels, .label_count = LABELS, .prompt = template, .batch = batch};
        if (!mica_classify(m, (const char *const *)texts, COUNT, &o, &out, &err)) fail_msg("%s", err.msg);
        assert_int_equal(out.count, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            mica_class *c = &out.items[i];
            if (c->error.code) fail_msg("%s", c->error.msg);
            fill(texts[i], prompt, sizeof prompt);
            for (size_t l = 0; l < LABELS; l++) worst = fmax(worst, fabs(c->logprobs[l] - alone(m, prompt, labels[l])));
            check_sums(c, LABELS);
        }
        assert_true(out.metrics.prompt_tokens > 0 && (out.metrics.cached_tokens > out.metrics.prompt_tokens / 4) == !strstr(path, "longrope"));
        mica_classes_free(&out);
    }
    print_message("  %s: log-probabilities within %.1e\n", strrchr(path, '/') + 1, worst);
    assert_true(worst <= tolerance);
    free_texts(texts, COUNT);
    mica_model_free(m);
}

static void labels_have_their_scores(void **state) {
    (void)state;
    compare(GOLDEN "llama-f32", 2e-4);
    compare(GOLDEN "gemma3-text-f32", 2e-4);
    compare(GOLDEN "llama-longrope", 2e-4); // frequencies depend on lengths: nothing is shared but everything holds
    compare(GOLDEN "qwen3-bf16", 0.5);
}

static void next_tokens_and_logits(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load(GOLDEN "llama-f32", 2);
    const char *texts[] = {"Hello there", "One, two,", "Hello thereabouts"};
    mica_classes out;
    assert_true(mica_classify(m, texts, 3, &(mica_classify_options){.logits = true}, &out, &err));
    for (size_t i = 0; i < 3; i++) {
        mica_stream *s = mica_generate(m, texts[i], strlen(texts[i]), &(mica_generate_options){.max_tokens = 1, .ignore_eos = true, .logprobs = -1}, &err);
        mica_token t;
        assert_true(mica_stream_next(s, &t));
        assert_int_equal(out.items[i].token, t.id);
        assert_int_equal(out.items[i].label, -1);
        assert_non_null(out.items[i].text);
        double total = 0;
        for (int32_t k = 0; k < m->info.vocab_size; k++) total += exp((double)out.items[i].logits[k]);
        assert_true(fabs((double)out.items[i].logits[t.id] - log(total) - (double)t.logprob) < 1e-3);
        mica_stream_free(s);
    }
    mica_classes_free(&out);
    mica_model_free(m);
}

static void calibration_divides_by_the_empty_text(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load(GOLDEN "llama-f32", 1);
    const char *texts[] = {"the sky is green", ""};
    mica_classes plain, out;
    mica_classify_options o = {.labels = labels, .label_count = 2, .prompt = template};
    assert_true(mica_classify(m, texts, 2, &o, &plain, &err));
    o.calibrate = true;
    assert_true(mica_classify(m, texts, 2, &o, &out, &err));
    for (size_t l = 0; l < 2; l++) {
        assert_true(fabs(plain.items[0].logprobs[l] - out.items[0].logprobs[l]) < 1e-4);
        assert_true(fabs(out.items[1].probabilities[l] - 0.5) < 1e-4); // the empty text itself
    }
    double want = plain.items[0].logprobs[0] - plain.items[1].logprobs[0] - plain.items[0].logprobs[1] + plain.items[1].logprobs[1];
    assert_true(fabs(log(out.items[0].probabilities[0] / out.items[0].probabilities[1]) - want) < 1e-3);
    mica_classes_free(&plain);
    mica_classes_free(&out);
    o.prompt = NULL; // without a template the empty text is an empty prompt
    assert_false(mica_classify(m, texts, 1, &o, &out, &err));
    assert_non_null(strstr(err.msg, "calibration"));
    mica_model_free(m);
}

// ---- errors and progress --------------------------------------------------------------------------------------------
typedef struct steps {
    size_t calls, last, stop_at;
} steps;

static bool count_steps(void *context, size_t done, size_t count) {
    steps *s = context;
    assert_true(done > s->last && done <= count);
    s->calls++, s->last = done;
    return done < s->stop_at;
}

static void errors_stay_with_their_text(void **state) {
    (void)state;
    mica_error err = {0};
    mica_model *m = load(GOLDEN "llama-f32", 1);
    char *huge = malloc(9001);
    memset(huge, 'a', 9000), huge[9000] = 0;
    const char *texts[] = {"one", NULL, "two", "", huge, "three"};
    mica_classes out;
    steps s = {0, 0, SIZE_MAX};
    mica_classify_options o = {.labels = labels, .label_count = 2, .progress = count_steps, .context = &s, .batch = 2};
    assert_true(mica_classify(m, texts, 6, &o, &out, &err));
    static const bool bad[] = {false, true, false, true, true, false};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(out.items[i].error.code != MICA_OK, bad[i]);
        assert_int_equal(out.items[i].label < 0, bad[i]);
        if (bad[i]) print_message("  %s\n", out.items[i].error.msg);
    }
    assert_int_equal(s.last, 6);
    mica_classes_free(&out);
    s = (steps){0, 0, 2};
    assert_true(mica_classify(m, texts, 6, &o, &out, &err));
    assert_int_equal(out.items[0].error.code, MICA_OK);
    assert_int_equal(out.items[5].error.code, MICA_ERR_CANCELLED);
    assert_int_equal(s.calls, 1);
    mica_classes_free(&out);
    const char *none[] = {""};
    assert_false(mica_classify(m, texts, 1, &(mica_classify_options){.labels = none, .label_count = 1}, &out, &err));
    assert_non_null(strstr(err.msg, "label 0 is empty"));
    assert_true(mica_classify(m, NULL, 0, NULL, &out, &err));
    mica_classes_free(&out);
    mica_model_close(m);
    assert_false(mica_classify(m, texts, 1, NULL, &out, &err));
    free(huge);
    mica_model_free(m);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    mica_error err = {0};
    char **texts = make_texts(20);
    double first[20][4];
    for (int32_t threads = 1; threads <= 3; threads++) {
        mica_model *m = load(QUANT "gemma3-4bit", threads);
        mica_classes out;
        mica_classify_options o = {.labels = labels, .label_count = 4, .prompt = template};
        assert_true(mica_classify(m, (const char *const *)texts, 20, &o, &out, &err));
        for (size_t i = 0; i < 20; i++) {
            if (threads == 1) memcpy(first[i], out.items[i].logprobs, sizeof first[i]);
            else assert_memory_equal(first[i], out.items[i].logprobs, sizeof first[i]);
        }
        mica_classes_free(&out);
        mica_model_free(m);
    }
    free_texts(texts, 20);
}

static bool classify_three(mica_error *err) {
    mica_model *m = mica_model_load(QUANT "llama-4bit-g64", &(mica_load_options){.threads = 1}, err);
    const char *texts[] = {"one", "and two", "three"};
    mica_classes out;
    mica_classify_options o = {.labels = labels, .label_count = 2, .prompt = "The text is {text} is", .calibrate = true, .logits = true};
    bool ok = m && mica_classify(m, texts, 3, &o, &out, err), all = ok;
    for (size_t i = 0; all && i < out.count; i++)
        if (out.items[i].error.code) *err = out.items[i].error, ok = false;
    if (all) mica_classes_free(&out);
    mica_model_free(m);
    return ok;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    mica_error err = {0};
    if (!classify_three(&err)) fail_msg("%s", err.msg);
    uint64_t live = mica_alloc_get_stats().live;
    bool ok = false;
    for (uint64_t n = 1; !ok; n += n < 100 ? 3 : n < 500 ? 1 : 7) ok = run_refused(classify_three, n, live);
}

// ---- tokens of labels -------------------------------------------------------------------------------------------------
static char *text_of(const mica_tokenizer *t, const mica_ids *a, const mica_ids *b) {
    mica_error err = {0};
    mica_text text = {0};
    mica_ids all = {0};
    for (size_t i = 0; i < a->len + b->len; i++) {
        assert_true(mica_grow(&all.data, &all.capacity, all.len + 1, sizeof *all.data));
        all.data[all.len++] = i < a->len ? a->data[i] : b->data[i - a->len];
    }
    assert_true(mica_tokenizer_decode(t, all.data, all.len, NULL, &text, &err));
    mica_ids_free(&all);
    char *copy = strdup(text.data ? text.data : "");
    mica_text_free(&text);
    return copy;
}

// Prompt and label together read as the text they stand for, and are its tokens where the border is one.
static void check_label(const mica_tokenizer *t, const char *which, const char *prompt, const char *label, const char *joined) {
    mica_error err = {0};
    mica_ids ids = {0}, out = {0}, both = {0}, none = {0};
    size_t n = strlen(prompt), context = mica_label_context(prompt, n);
    assert_true(mica_tokenizer_encode(t, prompt, context, NULL, &ids, &err));
    assert_true(mica_tokenizer_encode(t, joined, strlen(joined), NULL, &both, &err));
    if (!mica_label_ids(t, prompt, n, context, &ids, true, label, &out, &err)) fail_msg("%s", err.msg);
    assert_true(out.len > 0);
    char *got = text_of(t, &ids, &out), *want = text_of(t, &both, &none);
    if (strcmp(got, want)) fail_msg("%s: \"%s\" + \"%s\" reads \"%s\", not \"%s\"", which, prompt, label, got, want);
    bool border = both.len > ids.len && !memcmp(both.data, ids.data, ids.len * sizeof *ids.data);
    if (border && (ids.len + out.len != both.len || memcmp(both.data + ids.len, out.data, out.len * sizeof *out.data)))
        fail_msg("%s: \"%s\" + \"%s\" has other tokens than \"%s\"", which, prompt, label, joined);
    free(got);
    free(want);
    mica_ids_free(&ids);
    mica_ids_free(&out);
    mica_ids_free(&both);
}

static void labels_join_prompts(void **state) {
    (void)state;
    static const struct { const char *prompt, *label, *joined; } cases[] = {
        {"Category:", "technical", "Category: technical"}, {"Category: ", "technical", "Category: technical"},
        {"Category:", " creative", "Category: creative"},  {"Answer:\n", "yes", "Answer:\nyes"},
        {"The sky is", "blue", "The sky is blue"},         {"The sky is  ", "very blue", "The sky is  very blue"},
        {"1 + 1 =", "2", "1 + 1 =2"},                      {"Is it (", "yes", "Is it (yes"}};
    DIR *dir = opendir(TOKENIZERS);
    int count = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strstr(e->d_name, ".jsonl") || e->d_name[0] == '.') continue;
        char path[600];
        mica_error err = {0};
        snprintf(path, sizeof path, TOKENIZERS "%s", e->d_name);
        mica_tokenizer *t = mica_tokenizer_load(path, &err);
        if (!t) fail_msg("%s", err.msg);
        mica_ids one = {0};
        assert_true(mica_tokenizer_encode(t, "a", 1, NULL, &one, &err));
        bool closes = mica_tokenizer_is_special(t, one.data[one.len - 1]); // ends every text: nothing can follow a prompt
        if (closes) print_message("  %s is left out: it ends prompts with a control token\n", e->d_name);
        mica_ids_free(&one);
        for (size_t i = 0; !closes && i < MICA_COUNT(cases); i++) check_label(t, e->d_name, cases[i].prompt, cases[i].label, cases[i].joined);
        mica_tokenizer_free(t);
        count++;
    }
    closedir(dir);
    assert_true(count >= 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_join_prompts), cmocka_unit_test(labels_have_their_scores), cmocka_unit_test(next_tokens_and_logits),
        cmocka_unit_test(calibration_divides_by_the_empty_text), cmocka_unit_test(errors_stay_with_their_text),
        cmocka_unit_test(threads_do_not_matter), cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
