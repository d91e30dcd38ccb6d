// SPDX-License-Identifier: Apache-2.0
// Reading a line of `mica batch`. Members are named as the options of the library are; one that has no meaning is an error, since it is most
// likely misspelt.
#include "cli/batch_line.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static bool MICA_PRINTF(2, 3) wrong(mica_cli_request *r, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, args);
    va_end(args);
    return false;
}

static char *own(mica_cli_request *r, const char *text, size_t size) {
    r->owned = mica_cli_realloc(r->owned, (r->owned_count + 1) * sizeof *r->owned);
    return r->owned[r->owned_count++] = mica_cli_copy(text, size);
}

static char *own_value(mica_cli_request *r, const mica_cli_value *v) { return own(r, v->text, v->size); }

/** A string's text; NULL if v is none. NUL characters inside end it early, so they are refused. */
static char *own_string(mica_cli_request *r, const mica_cli_value *v, size_t *size) {
    mica_cli_text text = {0};
    char *copy = NULL;
    if (mica_cli_json_string_of(v, &text) && !memchr(text.data, 0, text.size)) copy = own(r, text.data, text.size), *size = text.size;
    free(text.data);
    return copy;
}

static size_t count_of(const mica_cli_value *list) {
    mica_cli_value v;
    size_t n = 0;
    for (const char *at = NULL; mica_cli_json_next(list, &at, NULL, &v);) n++;
    return n;
}

// ---- members -------------------------------------------------------------------------------------------------
static bool read_ids(mica_cli_request *r, const char *name, const mica_cli_value *list, int32_t **ids, size_t *count) {
    mica_cli_value v;
    double number;
    *ids = mica_cli_realloc(*ids, count_of(list) * sizeof **ids);
    *count = 0;
    for (const char *at = NULL; mica_cli_json_next(list, &at, NULL, &v);) {
        if (!mica_cli_json_number_of(&v, &number) || number != floor(number) || number < 0 || number > INT32_MAX)
            return wrong(r, "\"%s\" must hold token ids", name);
        (*ids)[(*count)++] = (int32_t)number;
    }
    return true;
}

static bool read_prompt(mica_cli_request *r, const mica_cli_value *v) {
    if (mica_cli_json_is(v, '[')) {
        if (!read_ids(r, "prompt", v, &r->ids, &r->prompt.count)) return false;
        r->prompt.ids = r->ids;
        return true;
    }
    r->prompt.text = own_string(r, v, &r->prompt.length);
    return r->prompt.text || wrong(r, "\"prompt\" must be a string or an array of token ids");
}

static bool read_messages(mica_cli_request *r, const mica_cli_value *list) {
    mica_cli_value v;
    if (!mica_cli_json_is(list, '[')) return wrong(r, "\"messages\" must be an array of objects");
    r->messages = mica_cli_realloc(r->messages, count_of(list) * sizeof *r->messages);
    r->chat.count = 0;
    for (const char *at = NULL; mica_cli_json_next(list, &at, NULL, &v);) {
        if (!mica_cli_json_is(&v, '{')) return wrong(r, "\"messages\" must be an array of objects");
        r->messages[r->chat.count++] = (mica_message){.json = own_value(r, &v)};
    }
    r->chat.messages = r->messages;
    r->prompt.chat = &r->chat;
    return true;
}

static bool read_stop(mica_cli_request *r, const mica_cli_value *v) {
    mica_cli_value one;
    size_t size;
    bool list = mica_cli_json_is(v, '[');
    r->stop = mica_cli_realloc(r->stop, (list ? count_of(v) : 1) * sizeof *r->stop);
    r->options.stop = r->stop, r->options.stop_count = 0;
    if (!list) return (r->stop[r->options.stop_count++] = own_string(r, v, &size)) || wrong(r, "\"stop\" must be a string or an array of them");
    for (const char *at = NULL; mica_cli_json_next(v, &at, NULL, &one);)
        if (!(r->stop[r->options.stop_count++] = own_string(r, &one, &size))) return wrong(r, "\"stop\" must be a string or an array of them");
    return true;
}

typedef struct number_member {
    const char *name;
    size_t offset;
    char kind; // 'i' int32_t, 'f' float, 'u' uint64_t, 'b' bool
} number_member;

#define AT(field) offsetof(mica_generate_options, field)
static const number_member numbers[] = {
    {"max_tokens", AT(max_tokens), 'i'}, {"min_tokens", AT(min_tokens), 'i'}, {"temperature", AT(temperature), 'f'}, {"temp", AT(temperature), 'f'},
    {"top_k", AT(top_k), 'i'}, {"top_p", AT(top_p), 'f'}, {"min_p", AT(min_p), 'f'}, {"repeat_penalty", AT(repeat_penalty), 'f'},
    {"presence_penalty", AT(presence_penalty), 'f'}, {"frequency_penalty", AT(frequency_penalty), 'f'}, {"seed", AT(seed), 'u'},
    {"ignore_eos", AT(ignore_eos), 'b'}, {"logprobs", AT(logprobs), 'i'}};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static bool read_number(mica_cli_request *r, const number_member *m, const mica_cli_value *v) {
    char *to = (char *)&r->options + m->offset;
    double x = 0;
    bool truth = mica_cli_json_is(v, 't');
    if (m->kind == 'b') {
        if (!truth && !mica_cli_json_is(v, 'f')) return wrong(r, "\"%s\" must be true or false", m->name);
        memcpy(to, &truth, sizeof truth);
        return true;
    }
    if (!mica_cli_json_number_of(v, &x)) return wrong(r, "\"%s\" must be a number", m->name);
    if (m->kind != 'f' && x != floor(x)) return wrong(r, "\"%s\" must be a whole number", m->name);
    if (m->kind == 'u' && (x < 0 || x > 9e15)) return wrong(r, "\"%s\" must be between 0 and 9e15", m->name);
    if (fabs(x) > (m->kind == 'i' ? 2e9 : 9e15)) return wrong(r, "\"%s\" is too large", m->name);
    if (m->kind == 'f') memcpy(to, &(float){(float)x}, sizeof(float));
    else if (m->kind == 'i') memcpy(to, &(int32_t){(int32_t)x}, sizeof(int32_t));
    else memcpy(to, &(uint64_t){(uint64_t)x}, sizeof(uint64_t));
    return true;
}

static const char *const others[] = {"id", "prompt", "messages", "tools", "vars", "stop", "stop_ids", "adapter"};
enum { OTHERS = sizeof others / sizeof *others };

static bool unknown(mica_cli_request *r, const char *name) {
    const char *names[OTHERS + NUMBERS];
    for (size_t i = 0; i < OTHERS; i++) names[i] = others[i];
    for (size_t i = 0; i < NUMBERS; i++) names[OTHERS + i] = numbers[i].name;
    return wrong(r, "unknown member \"%.40s\"; the nearest is \"%s\"", name, mica_cli_nearest(name, names, OTHERS + NUMBERS));
}

static bool read_member(mica_cli_request *r, const char *name, const mica_cli_value *v) {
    if (strcmp(name, "id") == 0 || mica_cli_json_is(v, 'n')) return true; // null: as if it were not there
    if (strcmp(name, "prompt") == 0) return read_prompt(r, v);
    if (strcmp(name, "messages") == 0) return read_messages(r, v);
    if (strcmp(name, "tools") == 0) return r->chat.tools = own_value(r, v), true;
    if (strcmp(name, "vars") == 0) return r->chat.variables = own_value(r, v), true;
    if (strcmp(name, "stop") == 0) return read_stop(r, v);
    if (strcmp(name, "adapter") == 0) return (r->options.adapter = own_string(r, v, &(size_t){0})) || wrong(r, "\"adapter\" must be a string");
    if (strcmp(name, "stop_ids") == 0) {
        r->options.stop_id_count = 0;
        if (!mica_cli_json_is(v, '[') || !read_ids(r, name, v, &r->stop_ids, &r->options.stop_id_count))
            return wrong(r, "\"stop_ids\" must be an array of token ids");
        r->options.stop_ids = r->stop_ids;
        return true;
    }
    for (size_t i = 0; i < NUMBERS; i++)
        if (strcmp(name, numbers[i].name) == 0) return read_number(r, &numbers[i], v);
    return unknown(r, name);
}

// ---- the line --------------------------------------------------------------------------------------------------
void mica_cli_request_clear(mica_cli_request *r) {
    for (size_t i = 0; i < r->owned_count; i++) free(r->owned[i]);
    free(r->owned);
    free(r->messages);
    free(r->ids);
    free(r->stop_ids);
    free(r->stop);
    *r = (mica_cli_request){0};
}

static bool find_id(mica_cli_request *r, const mica_cli_value *object, mica_cli_text *key) {
    mica_cli_value v;
    for (const char *at = NULL; mica_cli_json_next(object, &at, key, &v);) {
        if (strcmp(key->data, "id") != 0 || mica_cli_json_is(&v, 'n')) continue;
        if (!mica_cli_json_is(&v, '"') && !mica_cli_json_is(&v, '0')) return wrong(r, "\"id\" must be a string or a number");
        r->id = own_value(r, &v);
    }
    return true;
}

static bool read_object(mica_cli_request *r, const mica_cli_value *object, mica_cli_text *key) {
    mica_cli_value v;
    if (!find_id(r, object, key)) return false;
    for (const char *at = NULL; mica_cli_json_next(object, &at, key, &v);)
        if (!read_member(r, key->data, &v)) return false;
    int prompts = (r->prompt.text != NULL) + (r->prompt.ids != NULL) + (r->prompt.chat != NULL);
    if (prompts != 1) return wrong(r, prompts ? "there are both \"prompt\" and \"messages\"" : "there is no \"prompt\" and no \"messages\"");
    if (!r->prompt.chat && (r->chat.tools || r->chat.variables)) return wrong(r, "\"tools\" and \"vars\" belong to \"messages\"");
    return true;
}

bool mica_cli_request_read(mica_cli_request *r, const char *line, size_t size, size_t number, const mica_generate_options *defaults) {
    char id[32];
    const char *why = NULL;
    mica_cli_value object;
    mica_cli_text key = {0};
    mica_cli_request_clear(r);
    snprintf(id, sizeof id, "%zu", number);
    r->id = own(r, id, strlen(id));
    r->options = *defaults;
    bool ok = strlen(line) == size || wrong(r, "a NUL byte in the line");
    ok = ok && (mica_cli_json_read(line, &object, &why) || wrong(r, "%s", why));
    ok = ok && (mica_cli_json_is(&object, '{') || wrong(r, "expected a JSON object"));
    ok = ok && read_object(r, &object, &key);
    free(key.data);
    return ok;
}
