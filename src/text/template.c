// SPDX-License-Identifier: Apache-2.0
// Chat templates as the public header has them: parsing, the context made from JSON as transformers makes it, rendering.
#include "text/template.h"
#include "base/json.h"
#include "text/template_eval.h"
#include "text/unicode.h"
#include <string.h>

enum { MOST_SOURCE = 16 << 20 };
static const size_t parse_memory = (size_t)1 << 30;

// ---- parsing -------------------------------------------------------------------------------------------------------
/** A run that stands for t's arena while t is built. */
static mica_trun building(mica_template *t, mica_error *err) {
    return (mica_trun){.arena = t->arena, .err = err, .name = t->name, .most_memory = parse_memory, .most_bytes = parse_memory, .most_steps = UINT64_MAX, .constants = true};
}

mica_template *mica_template_parse(const char *source, size_t length, const char *name, mica_error *err) {
    mica_ttokens tokens = {0};
    if (!name) name = "template";
    if (length > MOST_SOURCE) return mica_fail(err, MICA_ERR_FORMAT, "%s: a template of more than %d bytes", name, MOST_SOURCE), NULL;
    mica_template *t = mica_calloc(1, sizeof *t);
    if (!t || !(t->name = mica_strdup(name)) || !(t->source = mica_strndup(source, length)))
        return mica_fail_memory(err, length, "a template"), mica_template_free(t), NULL;
    t->source_size = length;
    mica_uc_init();
    mica_trun r = building(t, err);
    bool ok = mica_t_tokenize(&r, source, length, &tokens) && mica_t_parse(&r, t, &tokens);
    t->arena = r.arena;
    mica_free(tokens.items);
    if (ok) return t;
    mica_template_free(t);
    return NULL;
}

void mica_template_free(mica_template *t) {
    for (mica_template *next; t; t = next) {
        next = t->next;
        mica_strmap_free(&t->symbols);
        mica_arena_free(&t->arena);
        mica_free(t->source);
        mica_free(t->label);
        mica_free(t->name);
        mica_free(t);
    }
}

const char *mica_template_source(const mica_template *t, size_t *size) {
    if (size) *size = t->source_size;
    return t->source;
}

bool mica_template_set_default(mica_template *t, const char *name, const char *value, size_t size, mica_error *err) {
    mica_trun r = building(t, err);
    if (!t->defaults) t->defaults = mica_t_dict(&r);
    const mica_tstr *key = t->defaults ? mica_t_text(&r, name, strlen(name), false) : NULL, *text = key ? mica_t_text(&r, value, size, false) : NULL;
    bool ok = text && mica_t_put(&r, t->defaults, mica_t_string(key), mica_t_string(text));
    t->arena = r.arena;
    return ok;
}

mica_template *mica_template_broken(const mica_error *problem, mica_error *err) {
    mica_template *t = mica_template_parse("", 0, NULL, err);
    if (t) t->problem = *problem;
    return t;
}

bool mica_template_set_label(mica_template *t, const char *label, mica_error *err) {
    return (t->label = mica_strdup(label)) || mica_fail_memory(err, strlen(label), "a name");
}

void mica_template_add(mica_template *t, mica_template *other) {
    other->next = t->next;
    t->next = other;
}

// ---- the context -----------------------------------------------------------------------------------------------------
static bool value_of(mica_trun *r, const mica_json *v, bool marked, mica_tval *out);

static bool list_of(mica_trun *r, const mica_json *v, bool marked, mica_tval *out) {
    mica_tlist *l = mica_t_list(r, v->length);
    mica_tval item;
    if (!l) return false;
    for (const mica_json *c = v->child; c; c = c->next)
        if (!value_of(r, c, marked, &item) || !mica_t_push(r, l, item)) return false;
    return *out = mica_t_of_list(MICA_T_LIST, l), true;
}

static bool dict_of(mica_trun *r, const mica_json *v, bool marked, mica_tval *out) {
    mica_tdict *d = mica_t_dict(r);
    mica_tval item;
    if (!d) return false;
    for (const mica_json *c = v->child; c; c = c->next) {
        const mica_tstr *key = mica_t_text(r, c->key, c->key_length, marked);
        if (!key || !value_of(r, c, marked, &item) || !mica_t_put(r, d, mica_t_string(key), item)) return false;
    }
    return *out = mica_t_of_dict(MICA_T_DICT, d), true;
}

static bool value_of(mica_trun *r, const mica_json *v, bool marked, mica_tval *out) {
    const mica_tstr *s;
    switch (v->type) {
    case MICA_JSON_NULL: return *out = mica_t_none(), true;
    case MICA_JSON_BOOL: return *out = mica_t_bool(v->boolean), true;
    case MICA_JSON_INT: return *out = mica_t_int(v->integer), true;
    case MICA_JSON_FLOAT:
        if (v->beyond) return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "integers beyond 64 bits are not supported");
        return *out = mica_t_float(v->number), true;
    case MICA_JSON_STRING:
        if (!(s = mica_t_text(r, v->string, v->length, marked))) return false;
        return *out = mica_t_string(s), true;
    case MICA_JSON_ARRAY: return list_of(r, v, marked, out);
    case MICA_JSON_OBJECT: return dict_of(r, v, marked, out);
    }
    return false;
}

/** Strings of bos_token and the like are the caller's own word; all else may come from anywhere. */
static bool is_trusted(const mica_json *member) {
    static const char end[] = "_token";
    size_t n = sizeof end - 1;
    return member->key_length > n && !memcmp(member->key + member->key_length - n, end, n);
}

static bool add_members(mica_trun *r, mica_tdict *context, const mica_json *object, bool as_given) {
    for (const mica_json *m = object->child; m; m = m->next) {
        mica_tval v;
        const mica_tstr *key = mica_t_text(r, m->key, m->key_length, false);
        if (!as_given && m->type == MICA_JSON_OBJECT && !strcmp(m->key, "vars")) {
            if (!add_members(r, context, m, true)) return false;
        } else if (!key || !value_of(r, m, !is_trusted(m), &v) || !mica_t_put(r, context, mica_t_string(key), v)) {
            return false;
        }
    }
    return true;
}

// ---- as apply_chat_template prepares it ------------------------------------------------------------------------------
/** A role that templates may well put into the name of a control token ('<|' + role + '|>'): not marked if it is a common one. */
static bool trust_role(mica_trun *r, mica_tval *role) {
    static const char *const common[] = {"system", "user", "assistant", "tool", "developer", "function", "model", "ipython", "observation",
                                         "environment", "tool_response", "tool_result", "tools", "human", "bot", "system_prompt", "document"};
    for (size_t i = 0; i < MICA_COUNT(common); i++) {
        if (!mica_t_is(role, common[i])) continue;
        const mica_tstr *s = mica_t_text(r, common[i], strlen(common[i]), false);
        if (s) *role = mica_t_string(s);
        return s != NULL;
    }
    return true;
}

static bool put_text_key(mica_trun *r, mica_tdict *d, const char *key, mica_tval v) {
    const mica_tstr *s = mica_t_text(r, key, strlen(key), false);
    return s && mica_t_put(r, d, mica_t_string(s), v);
}

/** A message without what is none, and with its reasoning under each name that templates look for. */
static bool prepare_message(mica_trun *r, const mica_tdict *from, mica_tval *out) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const mica_tval *reasoning = NULL;
    mica_tdict *to = mica_t_dict(r);
    for (size_t i = 0; i < MICA_COUNT(names) && !reasoning; i++) {
        reasoning = mica_t_get_name(from, names[i], strlen(names[i]));
        if (reasoning && reasoning->kind == MICA_T_NONE) reasoning = NULL;
    }
    if (!to || (reasoning && !put_text_key(r, to, "thinking", *reasoning))) return false;
    for (size_t i = 0; i < from->count; i++) {
        mica_tentry e = from->entries[i];
        if (e.value.kind == MICA_T_NONE) continue;
        if (mica_t_is(&e.key, "role") && !trust_role(r, &e.value)) return false;
        if (!mica_t_put(r, to, e.key, e.value)) return false;
    }
    if (reasoning && !put_text_key(r, to, "reasoning_content", *reasoning)) return false;
    return *out = mica_t_of_dict(MICA_T_DICT, to), true;
}

static bool prepare_messages(mica_trun *r, mica_tdict *context) {
    const mica_tval *messages = mica_t_get_name(context, "messages", 8);
    if (!messages || messages->kind != MICA_T_LIST) return mica_t_fail(r, "the context has no list \"messages\"");
    if (!messages->list->count) return mica_t_fail(r, "Cannot apply chat template to an empty conversation. Provide at least one message.");
    mica_tlist *l = mica_t_list(r, messages->list->count);
    for (size_t i = 0; l && i < messages->list->count; i++) {
        const mica_tval *m = &messages->list->items[i];
        mica_tval prepared;
        if (m->kind != MICA_T_DICT) return mica_t_fail(r, "messages[%zu] is no object", i);
        if (!prepare_message(r, m->dict, &prepared) || !mica_t_push(r, l, prepared)) return false;
    }
    return l && put_text_key(r, context, "messages", mica_t_of_list(MICA_T_LIST, l));
}

/** A list of objects, or none. */
static bool prepare_objects(mica_trun *r, mica_tdict *context, const char *name) {
    const mica_tval *v = mica_t_get_name(context, name, strlen(name));
    if (!v) return put_text_key(r, context, name, mica_t_none());
    if (v->kind == MICA_T_NONE) return true;
    if (v->kind != MICA_T_LIST) return mica_t_fail(r, "\"%s\" is no list", name);
    for (size_t i = 0; i < v->list->count; i++)
        if (v->list->items[i].kind != MICA_T_DICT) return mica_t_fail(r, "%s[%zu] is no object", name, i);
    return true;
}

static bool prepare(mica_trun *r, mica_tdict *context) {
    if (!prepare_messages(r, context) || !prepare_objects(r, context, "tools") || !prepare_objects(r, context, "documents")) return false;
    return mica_t_get_name(context, "add_generation_prompt", 21) || put_text_key(r, context, "add_generation_prompt", mica_t_bool(false));
}

static bool make_context(mica_trun *r, const mica_template *t, const mica_json *json, bool as_given) {
    mica_tdict *context = mica_t_dict(r);
    if (!context) return false;
    for (size_t i = 0; t->defaults && i < t->defaults->count; i++)
        if (!mica_t_put(r, context, t->defaults->entries[i].key, t->defaults->entries[i].value)) return false;
    if (!add_members(r, context, json, as_given) || (!as_given && !prepare(r, context))) return false;
    return r->context = context, true;
}

// ---- rendering ---------------------------------------------------------------------------------------------------------
static bool give(const mica_tbuf *b, mica_text *text, mica_marks *marks, mica_error *err) {
    size_t base = text->len;
    if (!mica_grow(&text->data, &text->capacity, base + b->size + 1, 1)) return mica_fail_memory(err, b->size, "a rendered template");
    if (marks && b->mark_count && !mica_grow(&marks->data, &marks->capacity, marks->len + b->mark_count, sizeof *marks->data))
        return mica_fail_memory(err, b->mark_count * sizeof *marks->data, "the marks of a rendered template");
    if (b->size) memcpy(text->data + base, b->data, b->size);
    text->data[text->len = base + b->size] = 0;
    for (size_t i = 0; marks && i < b->mark_count; i++) marks->data[marks->len++] = (mica_mark){base + b->marks[i].from, base + b->marks[i].to};
    return true;
}

static const mica_template *labelled(const mica_template *t, const char *label) {
    while (t && (!t->label || strcmp(t->label, label) != 0)) t = t->next;
    return t;
}

/** Which template of the model: the one named, else "tool_use" for a context with tools, else the first. */
static const mica_template *choose(mica_trun *r, const mica_template *t, const char *name) {
    const mica_tval *tools = mica_t_get_name(r->context, "tools", 5);
    if (!name) name = tools && tools->kind != MICA_T_NONE && t->label && !strcmp(t->label, "default") ? "tool_use" : NULL;
    else if (!labelled(t, name)) return mica_t_fail_code(r, MICA_ERR_UNSUPPORTED, "there is no chat template \"%.60s\"", name), NULL;
    const mica_template *found = name ? labelled(t, name) : NULL;
    return found ? found : t;
}

static bool run(mica_trun *r, const mica_template *t, const mica_json *json, const mica_template_options *o, mica_tbuf *out) {
    if (json->type != MICA_JSON_OBJECT) return mica_t_fail(r, "the context must be an object, not %s", mica_json_type_name(json->type));
    if (!make_context(r, t, json, o->as_given) || !(r->template = choose(r, t, o->name))) return false;
    if (r->template->problem.code) { // says its place itself
        if (r->err) *r->err = r->template->problem;
        return false;
    }
    r->name = r->template->name;
    r->out = out;
    return (r->scope = mica_t_scope(r, NULL)) && mica_t_exec(r, r->template->body) != MICA_T_FAILED;
}

bool mica_template_render(const mica_template *t, const char *json, size_t length, const mica_template_options *options, mica_text *text,
                          mica_marks *marks, mica_error *err) {
    mica_template_options o = options ? *options : (mica_template_options){0};
    mica_trun r = {.err = err, .name = t->name, .now = o.now, .most_bytes = o.most_bytes ? o.most_bytes : (size_t)64 << 20,
                   .most_memory = o.most_memory ? o.most_memory : (size_t)512 << 20, .most_steps = o.most_steps ? o.most_steps : 50000000};
    mica_tbuf out = {.r = &r};
    const mica_json *context = mica_json_parse(&r.arena, json, length, "the context of the template", err);
    bool ok = context && run(&r, t, context, &o, &out) && give(&out, text, marks, err);
    mica_arena_free(&r.arena);
    return ok;
}
