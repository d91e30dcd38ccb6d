// SPDX-License-Identifier: Apache-2.0
// "post_processor" of tokenizer.json -> two lists of ids. ByteLevel changes offsets only and so is nothing here.
#include "text/post.h"
#include "text/bpe.h"
#include "text/component.h"
#include <string.h>

typedef struct post_reader {
    mica_post *post;
    const char *what;
} post_reader;

static bool put(mica_ids *ids, const mica_json *v, const char *what, mica_error *err) {
    if (!v || v->type != MICA_JSON_INT || v->integer < 0 || v->integer > MICA_MAX_TOKEN_ID)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: post_processor: a special token's id must be an integer of 0…%d", what, MICA_MAX_TOKEN_ID);
    if (!mica_ids_reserve(ids, 1)) return mica_fail_memory(err, 4, "post_processor");
    ids->data[ids->len++] = (int32_t)v->integer;
    return true;
}

/** Puts `outer` around what is there: before = outer.before + before, after = after + outer.after. */
static bool wrap(mica_post *p, mica_post *outer, mica_error *err) {
    mica_ids *b = &outer->before, *a = &p->after;
    if (!mica_ids_reserve(b, p->before.len) || !mica_ids_reserve(a, outer->after.len)) return mica_fail_memory(err, 0, "post_processor");
    if (p->before.len) memcpy(b->data + b->len, p->before.data, p->before.len * sizeof *b->data);
    if (outer->after.len) memcpy(a->data + a->len, outer->after.data, outer->after.len * sizeof *a->data);
    b->len += p->before.len, a->len += outer->after.len;
    mica_ids swap = p->before;
    p->before = *b, *b = swap;
    return true;
}

static bool put_special(mica_ids *ids, const mica_json *piece, const mica_json *tokens, const char *what, mica_error *err) {
    const char *name;
    if (!mica_json_string(piece, "id", NULL, &name, what, err)) return false;
    const mica_json *token = name ? mica_json_get(tokens, name) : NULL, *list = mica_json_get(token, "ids");
    if (!list || list->type != MICA_JSON_ARRAY)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: post_processor: \"special_tokens\" lacks \"%s\"", what, name ? name : "?");
    for (const mica_json *v = list->child; v; v = v->next)
        if (!put(ids, v, what, err)) return false;
    return true;
}

static bool read_template(mica_post *out, const mica_json *v, const char *what, mica_error *err) {
    const mica_json *single = mica_json_get(v, "single"), *tokens = mica_json_get(v, "special_tokens");
    bool seen = false;
    if (!single || single->type != MICA_JSON_ARRAY) return mica_fail(err, MICA_ERR_FORMAT, "%s: post_processor: \"single\" must be an array", what);
    for (const mica_json *piece = single->child; piece; piece = piece->next) {
        const mica_json *special = mica_json_get(piece, "SpecialToken"), *sequence = mica_json_get(piece, "Sequence");
        if (special) {
            if (!put_special(seen ? &out->after : &out->before, special, tokens, what, err)) return false;
            continue;
        }
        const mica_json *id = mica_json_get(sequence, "id");
        if (!id || id->type != MICA_JSON_STRING || strcmp(id->string, "A") || seen)
            return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: post_processor: a template of one text needs the sequence A, once", what);
        seen = true;
    }
    return seen || mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: post_processor: a template of one text needs the sequence A, once", what);
}

/** RobertaProcessing and BertProcessing: cls text sep. */
static bool read_cls_sep(mica_post *out, const mica_json *v, const char *what, mica_error *err) {
    return put(&out->before, mica_json_at(mica_json_get(v, "cls"), 1), what, err) &&
           put(&out->after, mica_json_at(mica_json_get(v, "sep"), 1), what, err);
}

static bool add_step(void *ctx, const char *type, const mica_json *v, mica_error *err) {
    post_reader *r = ctx;
    mica_post outer = {0};
    bool ok;
    if (!strcmp(type, "ByteLevel")) return true;
    if (!strcmp(type, "TemplateProcessing")) ok = read_template(&outer, v, r->what, err);
    else if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing")) ok = read_cls_sep(&outer, v, r->what, err);
    else ok = mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: post_processor type \"%s\" is not supported", r->what, type);
    ok = ok && wrap(r->post, &outer, err);
    mica_post_free(&outer);
    return ok;
}

bool mica_post_read(mica_post *p, const mica_json *v, const char *what, mica_error *err) {
    post_reader r = {p, what};
    return mica_component_each(v, "post_processor", "processors", add_step, &r, what, err);
}

void mica_post_free(mica_post *p) {
    mica_ids_free(&p->before);
    mica_ids_free(&p->after);
}
