// SPDX-License-Identifier: Apache-2.0
// Conversations for native models: the messages as JSON, through the model's template to a text, and that to ids. Which parts of the text
// are the caller's words is known from the template engine, so that control tokens spelled there stay text.
#include "backend/chat.h"
#include "base/json.h"
#include "mica/template.h"
#include <stdio.h>
#include <string.h>

// ---- as JSON --------------------------------------------------------------------------------------------
// JSON from the caller is checked and passed on as it is written: numbers keep their spelling.
static bool check_piece(const char *text, const char *what, mica_json_type type, mica_error *err) {
    mica_arena arena = {0};
    const mica_json *v = mica_json_parse(&arena, text, strlen(text), what, err);
    bool ok = v && v->type == type;
    if (v && !ok) mica_fail(err, MICA_ERR_ARGUMENT, "%s: not an %s but %s", what, mica_json_type_name(type), mica_json_type_name(v->type));
    mica_arena_free(&arena);
    return ok;
}

static bool put_message(mica_json_writer *w, const mica_message *m, size_t i, mica_error *err) {
    char what[32];
    snprintf(what, sizeof what, "message %zu", i);
    if (m->json) {
        bool ok = check_piece(m->json, what, MICA_JSON_OBJECT, err);
        if (ok) mica_json_put_raw(w, m->json, strlen(m->json));
        return ok;
    }
    if (!m->role || !m->content) return mica_fail(err, MICA_ERR_ARGUMENT, "%s has no %s", what, m->role ? "content" : "role");
    mica_json_begin_object(w);
    mica_json_key(w, "role");
    mica_json_put_cstring(w, m->role);
    mica_json_key(w, "content");
    mica_json_put_cstring(w, m->content);
    mica_json_end_object(w);
    return true;
}

// The elements of an array, without its brackets.
static bool put_history(mica_json_writer *w, const char *history, mica_error *err) {
    if (!check_piece(history, "history", MICA_JSON_ARRAY, err)) return false;
    const char *from = strchr(history, '[') + 1, *to = strrchr(history, ']');
    while (from < to && strchr(" \t\n\r", *from)) from++;
    if (from < to) mica_json_put_raw(w, from, (size_t)(to - from));
    return true;
}

bool mica_chat_put_messages(mica_json_writer *w, const mica_chat *chat, mica_error *err) {
    mica_json_key(w, "messages");
    mica_json_begin_array(w);
    if (chat->history && !put_history(w, chat->history, err)) return false;
    for (size_t i = 0; i < chat->count; i++)
        if (!put_message(w, &chat->messages[i], i, err)) return false;
    mica_json_end_array(w);
    return true;
}

bool mica_chat_put_member(mica_json_writer *w, const char *key, const char *text, mica_json_type type, mica_error *err) {
    if (!text) return true;
    mica_json_key(w, key);
    if (!check_piece(text, key, type, err)) return false;
    mica_json_put_raw(w, text, strlen(text));
    return true;
}

/** Appends {"messages":[…],"tools":[…],"vars":{…},"add_generation_prompt":b}, what a template is rendered with. */
static bool put_chat(const mica_chat *chat, mica_buf *out, mica_error *err) {
    mica_json_writer w = {.out = out};
    mica_json_begin_object(&w);
    bool ok = mica_chat_put_messages(&w, chat, err) && mica_chat_put_member(&w, "tools", chat->tools, MICA_JSON_ARRAY, err) &&
              mica_chat_put_member(&w, "vars", chat->variables, MICA_JSON_OBJECT, err);
    mica_json_key(&w, "add_generation_prompt");
    mica_json_put_bool(&w, !chat->continued);
    mica_json_end_object(&w);
    return ok && (!out->failed || mica_fail_memory(err, out->len, "a conversation"));
}

// ---- as text --------------------------------------------------------------------------------------------
// The last message's content if it is one text.
static const char *last_content(mica_arena *arena, const mica_buf *json) {
    const mica_json *m = mica_json_get(mica_json_parse(arena, json->data, json->len, "chat", NULL), "messages"), *content = NULL;
    for (m = m ? m->child : NULL; m; m = m->next) content = mica_json_get(m, "content");
    return content && content->type == MICA_JSON_STRING ? content->string : NULL;
}

static const char *find_last(const char *text, const char *part, size_t n) {
    const char *found = NULL;
    for (const char *at = text; n && (at = strstr(at, part)); at++) found = at;
    return found;
}

// An answer that is to be continued ends where its message ends: what the template puts behind that is cut off. As in transformers, blanks
// around the message count only if the template keeps them.
static bool cut_behind_last(const mica_buf *json, mica_text *text, size_t from, mica_marks *marks, mica_error *err) {
    mica_arena arena = {0};
    static const char blank[] = " \t\n\r\v\f";
    const char *content = last_content(&arena, json);
    size_t lead = content ? strspn(content, blank) : 0, n = content ? strlen(content) - lead : 0, trimmed = n;
    while (trimmed && strchr(blank, content[lead + trimmed - 1])) trimmed--;
    char *part = content ? mica_strndup(content + lead, trimmed) : NULL;
    const char *at = part ? find_last(text->data + from, part, trimmed) : NULL;
    bool ok = at != NULL;
    if (ok) {
        size_t end = (size_t)(at - text->data);
        end += strncmp(at, content + lead, n) == 0 ? n : trimmed;
        text->len = end, text->data[end] = 0;
        while (marks->len && marks->data[marks->len - 1].from >= end) marks->len--;
        if (marks->len) marks->data[marks->len - 1].to = MICA_MIN(marks->data[marks->len - 1].to, end);
    }
    mica_free(part);
    mica_arena_free(&arena);
    return ok || mica_fail(err, MICA_ERR_ARGUMENT, "chat: the answer to continue does not appear in the rendered conversation");
}

static const mica_template *template_of(const mica_lm *lm, mica_error *err) {
    const char *path = lm->net->checkpoint ? mica_checkpoint_path(lm->net->checkpoint) : "chat";
    if (!lm->chat_template) mica_fail(err, MICA_ERR_ARGUMENT, "%s: the model has no chat template", path);
    return lm->chat_template;
}

static bool render(const mica_lm *lm, const mica_chat *chat, mica_text *text, mica_marks *marks, mica_error *err) {
    if (!lm->tokenizer) return mica_fail(err, MICA_ERR_ARGUMENT, "chat: the model has no tokenizer");
    mica_buf json = {0};
    size_t from = text->len;
    bool ok = put_chat(chat, &json, err);
    const mica_template *t = ok ? template_of(lm, err) : NULL;
    ok = t && mica_template_render(t, json.data, json.len, &(mica_template_options){.name = chat->name}, text, marks, err) &&
         (!chat->continued || cut_behind_last(&json, text, from, marks, err));
    mica_buf_free(&json);
    return ok;
}

// Spans of the text as spans of what was appended to it.
static bool encode(const mica_lm *lm, const mica_text *text, size_t from, mica_marks *marks, bool allow_control, mica_ids *ids, mica_error *err) {
    mica_encode_options o = {.no_special_tokens = true}; // the template has written them
    for (size_t i = 0; i < marks->len; i++) marks->data[i].from -= from, marks->data[i].to -= from;
    return mica_tokenizer_encode_marked(lm->tokenizer, text->data + from, text->len - from, marks->data, allow_control ? 0 : marks->len, &o, ids, err);
}

bool mica_chat_encode(const mica_lm *lm, const mica_chat *chat, mica_text *text, mica_ids *ids, mica_error *err) {
    mica_text own = {0};
    mica_marks marks = {0};
    mica_text *t = text ? text : &own;
    size_t from = t->len;
    bool ok = render(lm, chat, t, &marks, err) && (!ids || encode(lm, t, from, &marks, chat->allow_control, ids, err));
    if (!ok && t->data) t->data[t->len = from] = 0;
    mica_marks_free(&marks);
    mica_text_free(&own);
    return ok;
}

bool mica_chat_render(mica_model *model, const mica_chat *chat, mica_text *text, mica_ids *ids, mica_error *err) {
    const mica_lm *lm = mica_native_retain(model, "rendering a conversation", err);
    if (!lm) return false;
    bool ok = mica_chat_encode(lm, chat, text, ids, err);
    mica_model_release(model);
    return ok;
}
