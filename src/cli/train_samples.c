// SPDX-License-Identifier: Apache-2.0
// Answers of a model before and after its training, to the same prompts: those given, or the first examples of the validation data without what
// they want to be answered. Greedy, so that the difference is the training's.
#include "cli/json_read.h"
#include "cli/train_view.h"
#include "mica/chat.h"
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 3, TOKENS = 100, BEGINNING = 48 }; // of a {"text"} example the first so many bytes and the rest of the word are the prompt

// ---- prompts from data -----------------------------------------------------------------------------------------
/** {"role":"user","content":…} */
static char *user_message(const mica_cli_value *content) {
    static const char start[] = "{\"role\":\"user\",\"content\":";
    mica_cli_text text = {0};
    mica_cli_append(&text, start, sizeof start - 1);
    mica_cli_append(&text, content->text, content->size);
    mica_cli_append(&text, "}", 1);
    return text.data;
}

static bool from_pair(const mica_cli_value *object, mica_cli_sample *s) {
    mica_cli_value prompt;
    if (!mica_cli_json_member(object, "prompt", &prompt) || !(s->prompt = mica_cli_json_string_member(object, "prompt"))) return false;
    s->expected = mica_cli_json_string_member(object, "completion");
    s->last = user_message(&prompt);
    return true;
}

static bool is_answer(const mica_cli_value *message) {
    char *role = mica_cli_json_string_member(message, "role");
    bool answer = role && strcmp(role, "assistant") == 0;
    free(role);
    return answer;
}

/** The conversation up to what its last message answers. */
static bool from_messages(const mica_cli_value *list, mica_cli_sample *s) {
    mica_cli_text key = {0};
    mica_cli_value v, before = {NULL, 0}, last = {NULL, 0};
    for (const char *at = NULL; mica_cli_json_next(list, &at, &key, &v);) before = last, last = v;
    free(key.data);
    if (last.text && mica_cli_json_is(&last, '{') && is_answer(&last)) s->expected = mica_cli_json_string_member(&last, "content"), last = before;
    if (!last.text || !mica_cli_json_is(&last, '{') || !(s->prompt = mica_cli_json_string_member(&last, "content"))) return false;
    s->last = mica_cli_copy(last.text, last.size);
    size_t n = (size_t)(last.text - list->text); // "[…," before it
    while (n && strchr(", \t\r\n", list->text[n - 1])) n--;
    if (n <= 1) return true;
    s->history = mica_cli_copy(list->text, n + 1);
    s->history[n] = ']';
    return true;
}

static bool from_text(const mica_cli_value *object, mica_cli_sample *s) {
    char *text = mica_cli_json_string_member(object, "text");
    if (!text) return false;
    size_t n = strlen(text), cut = n > BEGINNING ? BEGINNING : n / 3;
    while (cut < n && !strchr(" \n\t", text[cut])) cut++;
    if (cut == n) for (cut = n / 2; cut && ((unsigned char)text[cut] & 0xC0) == 0x80;) cut--;
    s->prompt = mica_cli_copy(text, cut), s->expected = mica_cli_copy(text + cut, n - cut);
    free(text);
    return true;
}

static void free_sample(mica_cli_sample *s) {
    free(s->prompt), free(s->expected), free(s->history), free(s->last);
    *s = (mica_cli_sample){0};
}

/** What a line of data wants to be answered. */
static bool from_line(const char *line, mica_cli_sample *s) {
    mica_cli_value object, list;
    const char *why;
    *s = (mica_cli_sample){0};
    if (!mica_cli_json_read(line, &object, &why) || !mica_cli_json_is(&object, '{')) return false;
    bool ok = mica_cli_json_member(&object, "messages", &list) && mica_cli_json_is(&list, '[') ? from_messages(&list, s) : from_pair(&object, s) || from_text(&object, s);
    if (!s->expected) s->expected = mica_cli_copy("", 0);
    if (!ok || !*s->prompt) free_sample(s), ok = false;
    return ok;
}

static void append(mica_cli_samples *samples, mica_cli_sample s) {
    samples->items = mica_cli_realloc(samples->items, (samples->count + 1) * sizeof s);
    samples->items[samples->count++] = s;
}

/** The first `most` examples of a file; false if it cannot be read. */
static bool from_file(const char *folder, const char *name, size_t most, mica_cli_samples *samples) {
    char *path = mica_cli_join(folder, "/", name), *line = NULL;
    size_t capacity = 0;
    FILE *f = fopen(path, "r");
    mica_cli_sample s;
    while (f && samples->count < most && getline(&line, &capacity, f) >= 0)
        if (from_line(line, &s)) append(samples, s);
    if (f) fclose(f);
    free(path), free(line);
    return f != NULL;
}

/** A prompt that was given becomes what the data's are: text to go on with, or a message. */
static mica_cli_sample given(const char *prompt, bool raw) {
    mica_cli_sample s = {.prompt = mica_cli_copy(prompt, strlen(prompt)), .expected = mica_cli_copy("", 0)};
    if (raw) return s;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) return s;
    mica_cli_json j = {.out = out};
    mica_cli_json_string(&j, NULL, prompt);
    fclose(out);
    s.last = user_message(&(mica_cli_value){text, strlen(text)});
    free(text);
    return s;
}

void mica_cli_samples_read(const mica_cli_args *args, mica_cli_samples *samples) {
    const mica_cli_train_args *t = &args->train;
    size_t most = t->samples < 0 ? 0 : t->samples ? (size_t)t->samples : SAMPLES;
    *samples = (mica_cli_samples){0};
    if (!most) return;
    if (!from_file(args->data, "valid.jsonl", most, samples)) from_file(args->data, "train.jsonl", most, samples);
    if (!t->sample_prompts.count) return;
    bool raw = samples->count && !samples->items[0].last;
    mica_cli_samples_free(samples);
    for (size_t i = 0; i < t->sample_prompts.count; i++) append(samples, given(t->sample_prompts.items[i], raw));
}

void mica_cli_samples_free(mica_cli_samples *samples) {
    for (size_t i = 0; i < samples->count; i++) free_sample(&samples->items[i]);
    free(samples->items);
    *samples = (mica_cli_samples){0};
}

// ---- answers ---------------------------------------------------------------------------------------------------
static bool answer(mica_model *model, const mica_cli_sample *s, int32_t tokens, mica_cli_text *text, mica_error *err) {
    mica_message last = {.json = s->last};
    mica_chat chat = {.history = s->history, .messages = &last, .count = 1};
    mica_prompt prompt = {.text = s->prompt, .length = strlen(s->prompt)};
    mica_generate_options options = {.max_tokens = tokens};
    if (s->last) prompt = (mica_prompt){.chat = &chat};
    mica_stream *stream = mica_start(model, &prompt, &options, err);
    if (!stream) return false;
    text->size = 0;
    mica_cli_append(text, "", 0);
    for (mica_token t; !mica_cli_stopped() && mica_stream_next(stream, &t);) mica_cli_append(text, t.text, t.length);
    bool failed = mica_stream_error(stream, err);
    mica_stream_free(stream);
    return !failed;
}

static void put_sample(mica_cli_train_log *log, int64_t step, size_t i, const mica_cli_sample *s, const mica_cli_text *text) {
    mica_cli_json j = mica_cli_train_log_begin(log, "sample", step);
    mica_cli_json_int(&j, "sample", (int64_t)i);
    mica_cli_json_string(&j, "prompt", s->prompt);
    mica_cli_json_string(&j, "expected", s->expected);
    mica_cli_json_text(&j, "text", text->data, text->size);
    mica_cli_train_log_end(log, &j);
}

void mica_cli_samples_run(const mica_cli_args *args, const mica_cli_samples *samples, const char *model, const char *adapter, int64_t step,
                          mica_cli_train_log *log) {
    mica_error err = {0};
    mica_cli_text text = {0};
    if (!samples->count || !log->file || mica_cli_stopped()) return;
    const mica_load_options options = {.adapter = adapter, .threads = args->threads, .prefix_cache = -1};
    mica_model *m = mica_model_load(model, &options, &err);
    int32_t tokens = args->train.sample_tokens ? args->train.sample_tokens : TOKENS;
    bool ok = m != NULL;
    for (size_t i = 0; ok && i < samples->count && !mica_cli_stopped(); i++) {
        ok = answer(m, &samples->items[i], tokens, &text, &err);
        if (ok && !mica_cli_stopped()) put_sample(log, step, i, &samples->items[i], &text);
    }
    if (!ok) mica_cli_note(args, "samples: %s", err.msg);
    mica_model_free(m);
    free(text.data);
}
