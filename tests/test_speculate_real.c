// SPDX-License-Identifier: Apache-2.0
// labels: slow
// Speculative decoding on real checkpoints, where they are at hand ($MICA_TEST_MODELS or the cache's models): the same tokens and log-probabilities as
// without it, bit for bit, at every level but the reference.
#include "device/cpu/isa.h"
#include "mica/model.h"
#include "mica/tokenizer.h"
#include "real_testing.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TOKENS = 120 };

static const char *const names[] = {"smollm2-135m.gguf", "smollm2-135m-4bit", "smollm2-135m-8bit", "smollm2-135m-bf16", "gemma3-270m-4bit",
                                    "gemma3-270m-bf16", "qwen2.5-coder-0.5b-4bit"};
static const char *const prompts[] = {
    "Q: Repeat: one two three four five six seven. A: one two three four five six seven. Q: Repeat: one two three four five six seven. A:",
    "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\ndef mul(a, b):\n",
    "Once upon a time, in a village by the sea,",
};

typedef struct answer {
    int32_t ids[TOKENS];
    float logprobs[TOKENS];
    size_t count;
    mica_metrics metrics;
} answer;

static void generate(mica_model *m, const char *prompt, mica_generate_options o, int32_t speculate, answer *a) {
    mica_error err = {0};
    o.speculate = speculate, o.logprobs = -1, o.max_tokens = TOKENS;
    mica_stream *s = mica_generate(m, prompt, strlen(prompt), &o, &err);
    if (!s) fail_msg("%s", err.msg);
    *a = (answer){0};
    for (mica_token t; mica_stream_next(s, &t);)
        if (t.id >= 0) a->logprobs[a->count] = t.logprob, a->ids[a->count++] = t.id;
    if (mica_stream_error(s, &err)) fail_msg("%s", err.msg);
    a->metrics = mica_stream_metrics(s);
    mica_stream_free(s);
}

static void check_model(const char *path, const char *name, const char *level) {
    mica_error err = {0};
    mica_model *m = mica_model_load(path, &(mica_load_options){.cpu_level = level}, &err);
    if (!m) fail_msg("%s", err.msg);
    const mica_generate_options ways[] = {{.ignore_eos = true}, {.temperature = 0.6f, .top_p = 0.9f, .repeat_penalty = 1.05f, .seed = 3}};
    int64_t drafted = 0, right = 0;
    for (size_t i = 0; i < MICA_COUNT(prompts) * MICA_COUNT(ways); i++) {
        answer plain, with;
        generate(m, prompts[i / 2], ways[i % 2], 0, &plain);
        generate(m, prompts[i / 2], ways[i % 2], i % 3 ? 7 : 3, &with);
        if (plain.count != with.count || memcmp(plain.ids, with.ids, sizeof plain.ids) || memcmp(plain.logprobs, with.logprobs, sizeof plain.logprobs))
            fail_msg("%s at level %s: prompt %zu, way %zu: another answer with guesses", name, level, i / 2, i % 2);
        drafted += with.metrics.drafted_tokens, right += with.metrics.accepted_tokens;
    }
    print_message("  %-24s %-7s equal; %lld tokens guessed, %lld right\n", name, level, (long long)drafted, (long long)right);
    mica_model_free(m);
}

static void real_answers_are_equal(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(names); i++) {
        char *path = find_model(names[i]);
        if (!path) print_message("  %-24s skipped: the model is not on this machine\n", names[i]);
        for (size_t l = 1; path && mica_cpu_isa_at(l); l++) check_model(path, names[i], mica_cpu_isa_at(l)->name);
        mica_free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_answers_are_equal)};
    return cmocka_run_group_tests_name("speculate_real", tests, NULL, NULL);
}
