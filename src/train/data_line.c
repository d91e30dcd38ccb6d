// SPDX-License-Identifier: Apache-2.0
// One line taken apart. Its JSON is parsed as a whole; messages and tools are passed on to templates as they are written, so that numbers keep
// their spelling. The kind is told by the keys, in mlx-lm's order: a pair, else a conversation, else a text.
#include "text/json_scan.h"
#include "train/data_internal.h"
#include <stdio.h>
#include <string.h>

static bool lack(size_t bytes, mica_error *err) { return mica_fail_memory(err, bytes, "a line of training data"); }

static bool wrong(const mica_json *v, const char *what, const char *wanted, mica_error *err) {
    return mica_fail(err, MICA_ERR_FORMAT, "%s must be %s, not %s", what, wanted, mica_json_type_name(v->type));
}

/** The JSON of each child of v, which is written at `of`: the tree has them in the order of the text. */
static mica_slice *slices(mica_dataset *d, mica_slice of, const mica_json *v, mica_error *err) {
    mica_slice *out = mica_arena_alloc(&d->arena, v->length * sizeof *out + 1);
    mica_scan s = {of.data, of.data, of.data + of.n, "JSON", err};
    bool object = v->type == MICA_JSON_OBJECT, ok = out || lack(v->length * sizeof *out, err);
    ok = ok && mica_scan_take(&s, object ? '{' : '[');
    for (size_t i = 0; ok && i < v->length; i++) {
        ok = (!i || mica_scan_take(&s, ',')) && (!object || (mica_scan_skip(&s) && mica_scan_take(&s, ':')));
        mica_scan_peek(&s);
        const char *from = s.p;
        ok = ok && mica_scan_skip(&s);
        out[i] = (mica_slice){from, (size_t)(s.p - from)};
    }
    return ok ? out : NULL;
}

static mica_slice slice_of(const mica_json *object, const mica_slice *members, const mica_json *member) {
    size_t i = 0;
    for (const mica_json *m = object->child; m != member; m = m->next) i++;
    return members[i];
}

static const mica_json *present(const mica_json *object, const char *key) {
    const mica_json *v = mica_json_get(object, key);
    return v && v->type != MICA_JSON_NULL ? v : NULL;
}

static bool make_room(mica_dataset *d, mica_line *line, size_t count, mica_error *err) {
    line->count = count;
    line->contents = mica_arena_calloc(&d->arena, count * sizeof *line->contents);
    line->assistant = mica_arena_calloc(&d->arena, count * sizeof *line->assistant);
    return (line->contents && line->assistant) || lack(count, err);
}

// ---- kinds --------------------------------------------------------------------------------------------------
static bool read_messages(mica_dataset *d, mica_line *line, const mica_json *v, mica_slice raw, mica_error *err) {
    if (v->type != MICA_JSON_ARRAY) return wrong(v, "\"messages\"", "an array", err);
    if (!v->length) return mica_fail(err, MICA_ERR_FORMAT, "\"messages\" is empty");
    if (!make_room(d, line, v->length, err) || !(line->messages = slices(d, raw, v, err))) return false;
    size_t i = 0;
    for (const mica_json *m = v->child; m; m = m->next, i++) {
        char what[48];
        snprintf(what, sizeof what, "messages[%zu]", i);
        if (m->type != MICA_JSON_OBJECT) return wrong(m, what, "an object", err);
        const mica_json *role = present(m, "role");
        if (!role) return mica_fail(err, MICA_ERR_FORMAT, "%s has no \"role\"", what);
        snprintf(what, sizeof what, "\"role\" of messages[%zu]", i);
        if (role->type != MICA_JSON_STRING) return wrong(role, what, "a string", err);
        line->assistant[i] = role->length == 9 && !memcmp(role->string, "assistant", 9);
        line->contents[i] = present(m, "content");
    }
    return true;
}

static bool put_message(mica_dataset *d, const char *role, const mica_json *content, mica_slice *out, mica_error *err) {
    mica_json_writer w = {.out = &d->json};
    d->json.len = 0;
    mica_json_begin_object(&w);
    mica_json_key(&w, "role");
    mica_json_put_cstring(&w, role);
    mica_json_key(&w, "content");
    mica_json_put_string(&w, content->string, content->length);
    mica_json_end_object(&w);
    bool ok = !d->json.failed && (out->data = mica_arena_strndup(&d->arena, d->json.data, d->json.len));
    d->json.failed = false;
    out->n = d->json.len;
    return ok || lack(content->length, err);
}

// The two messages that mlx-lm makes of it.
static bool read_pair(mica_dataset *d, mica_line *line, const mica_json *prompt, const mica_json *completion, mica_error *err) {
    if (prompt->type != MICA_JSON_STRING) return wrong(prompt, "\"prompt\"", "a string", err);
    if (completion->type != MICA_JSON_STRING) return wrong(completion, "\"completion\"", "a string", err);
    if (!make_room(d, line, 2, err)) return false;
    line->messages = mica_arena_alloc(&d->arena, 2 * sizeof *line->messages);
    line->contents[0] = prompt, line->contents[1] = completion;
    line->assistant[1] = true;
    if (!line->messages) return lack(2 * sizeof *line->messages, err);
    return put_message(d, "user", prompt, &line->messages[0], err) && put_message(d, "assistant", completion, &line->messages[1], err);
}

static bool read_text(mica_dataset *d, mica_line *line, const mica_json *text, mica_error *err) {
    if (text->type != MICA_JSON_STRING) return wrong(text, "\"text\"", "a string", err);
    if (d->options.mask) return mica_fail(err, MICA_ERR_ARGUMENT, "a text has no prompt that could be masked");
    line->text = (mica_slice){text->string, text->length};
    return true;
}

static bool read_members(mica_dataset *d, mica_line *line, const mica_json *root, mica_error *err) {
    const mica_json *prompt = present(root, "prompt"), *completion = present(root, "completion");
    const mica_json *messages = present(root, "messages"), *text = present(root, "text"), *tools = present(root, "tools");
    bool pair = prompt && completion;
    line->kind = pair ? MICA_LINE_PAIR : messages ? MICA_LINE_CHAT : MICA_LINE_TEXT;
    if (line->kind == MICA_LINE_TEXT && text) return read_text(d, line, text, err);
    if (line->kind == MICA_LINE_TEXT) return mica_fail(err, MICA_ERR_FORMAT, "neither \"messages\" nor \"prompt\" and \"completion\" nor \"text\"");
    if (!d->chat) return mica_fail(err, MICA_ERR_UNSUPPORTED, "the model has no chat template, which a conversation needs");
    if (tools && tools->type != MICA_JSON_ARRAY) return wrong(tools, "\"tools\"", "an array", err);
    const mica_slice *members = slices(d, (mica_slice){d->line.data, d->line.len}, root, err);
    if (!members) return false;
    if (tools) line->tools = slice_of(root, members, tools);
    return pair ? read_pair(d, line, prompt, completion, err) : read_messages(d, line, messages, slice_of(root, members, messages), err);
}

// A line's number is its place in the file; that it is line 1 of what was parsed helps nobody.
static void drop_inner_line(mica_error *err) {
    static const char inner[] = "JSON: line 1: ";
    size_t n = sizeof inner - 1;
    if (err && !strncmp(err->msg, inner, n)) memmove(err->msg, err->msg + n, strlen(err->msg) - n + 1);
}

bool mica_line_parse(mica_dataset *d, mica_line *line, mica_error *err) {
    *line = (mica_line){0};
    const mica_json *root = mica_json_parse(&d->arena, d->line.data, d->line.len, "JSON", err);
    bool ok = root && (root->type == MICA_JSON_OBJECT ? read_members(d, line, root, err) : wrong(root, "a line", "an object", err));
    if (!ok) drop_inner_line(err);
    return ok;
}
