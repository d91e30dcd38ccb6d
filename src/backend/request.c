// SPDX-License-Identifier: Apache-2.0
// Copies of prompts and options. Every copy that fails leaves `ok` false; it is looked at once, at the end.
#include "backend/request.h"
#include <string.h>

typedef struct copier {
    mica_arena *arena;
    bool ok;
} copier;

static const void *copy(copier *c, const void *from, size_t size) {
    if (!from) return NULL;
    void *to = mica_arena_alloc(c->arena, size ? size : 1);
    if (!to) return c->ok = false, NULL;
    if (size) memcpy(to, from, size);
    return to;
}

static const char *copy_text(copier *c, const char *s) { return copy(c, s, s ? strlen(s) + 1 : 0); }

static const mica_message *copy_messages(copier *c, const mica_message *from, size_t count) {
    mica_message *to = mica_arena_alloc(c->arena, count * sizeof *to + 1);
    if (!to) return c->ok = false, NULL;
    for (size_t i = 0; i < count; i++)
        to[i] = (mica_message){copy_text(c, from[i].role), copy_text(c, from[i].content), copy_text(c, from[i].json)};
    return to;
}

static const mica_chat *copy_chat(copier *c, const mica_chat *from) {
    if (!from) return NULL;
    mica_chat chat = *from;
    chat.messages = copy_messages(c, from->messages, from->count);
    chat.tools = copy_text(c, from->tools);
    chat.variables = copy_text(c, from->variables);
    chat.name = copy_text(c, from->name);
    return copy(c, &chat, sizeof chat);
}

static void copy_options(copier *c, mica_generate_options *o) {
    o->logit_bias = copy(c, o->logit_bias, o->logit_bias_count * sizeof *o->logit_bias);
    o->order = copy_text(c, o->order);
    o->adapter = copy_text(c, o->adapter);
    o->stop_ids = copy(c, o->stop_ids, o->stop_id_count * sizeof *o->stop_ids);
    const char **stop = o->stop_count ? mica_arena_alloc(c->arena, o->stop_count * sizeof *stop) : NULL;
    if (o->stop_count && !stop) c->ok = false;
    for (size_t i = 0; stop && i < o->stop_count; i++) stop[i] = copy_text(c, o->stop[i]);
    o->stop = stop;
}

bool mica_request_copy(mica_arena *arena, const mica_prompt *prompt, const mica_generate_options *options, mica_request *out, mica_error *err) {
    copier c = {arena, true};
    *out = (mica_request){.prompt = *prompt};
    if (options) out->options = *options;
    out->prompt.text = copy(&c, prompt->text, prompt->length);
    out->prompt.ids = copy(&c, prompt->ids, prompt->count * sizeof *prompt->ids);
    out->prompt.chat = copy_chat(&c, prompt->chat);
    copy_options(&c, &out->options);
    return c.ok || mica_fail_memory(err, prompt->length + prompt->count * sizeof *prompt->ids, "a request");
}
