// SPDX-License-Identifier: Apache-2.0
// YAML, as mlx-lm's users have it, made into JSON, so that one reader (config.c) says what may stand in it. libyaml's events are written down one by
// one. Plain words mean what they mean to mlx-lm's loader: null, truth values (yes and no among them), decimal numbers, 1e-5; other plain words and all
// in quotes are texts.
#include "cli/config.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#ifdef MICA_YAML
#include <yaml.h>

enum { DEEPEST = 32 };
typedef struct writer {
    mica_cli_text *out;
    const char *why;
    int depth;
    struct {
        bool mapping;
        size_t count; // keys and values written
    } level[DEEPEST];
} writer;

static void put(writer *w, const char *text) { mica_cli_append(w->out, text, strlen(text)); }

static void put_string(writer *w, const char *s, size_t n) {
    put(w, "\"");
    for (size_t i = 0; i < n; i++) {
        char escape[8];
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c == '"' || c == '\\') snprintf(escape, sizeof escape, "\\u%04x", c), put(w, escape);
        else mica_cli_append(w->out, s + i, 1);
    }
    put(w, "\"");
}

static bool is_one_of(const char *s, const char *const *words) {
    for (; *words; words++)
        if (strcmp(s, *words) == 0) return true;
    return false;
}

/** [-+]digits[.digits][e[-+]digits], without a 0 before other digits (which would be octal); true also for .5 and 5. */
static bool is_number(const char *s) {
    s += *s == '-' || *s == '+';
    size_t whole = strspn(s, "0123456789"), part = 0;
    const char *at = s + whole;
    if (*at == '.') at += 1 + (part = strspn(at + 1, "0123456789"));
    if (!whole && !part) return false;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        if (!isdigit((unsigned char)*at)) return false;
        at += strspn(at, "0123456789");
    }
    return !*at && !(whole > 1 && *s == '0' && s[whole] == 0);
}

static void put_plain(writer *w, const char *s, size_t n) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", NULL};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", NULL};
    char number[40];
    if (strlen(s) != n) put_string(w, s, n);
    else if (is_one_of(s, nulls)) put(w, "null");
    else if (is_one_of(s, yes)) put(w, "true");
    else if (is_one_of(s, no)) put(w, "false");
    else if (n < sizeof number && is_number(s) && s[strspn(s, "+-0123456789")] == 0) put(w, s + (*s == '+'));
    else if (n < sizeof number && is_number(s)) snprintf(number, sizeof number, "%.17g", strtod(s, NULL)), put(w, number);
    else put_string(w, s, n);
}

/** What stands between the value before and the one that comes; false if that must not be a key and would be. */
static bool separate(writer *w, bool scalar) {
    if (!w->depth) return true;
    size_t count = w->level[w->depth - 1].count++;
    bool key = w->level[w->depth - 1].mapping && count % 2 == 0;
    if (key && !scalar) return w->why = "a key that is no text", false;
    if (count) put(w, w->level[w->depth - 1].mapping && !key ? ":" : ",");
    return true;
}

static bool begin(writer *w, bool mapping, const void *tag, const void *anchor) {
    if (tag || anchor) return w->why = "tags and anchors are not read", false;
    if (!separate(w, false)) return false;
    if (w->depth == DEEPEST) return w->why = "nested too deeply", false;
    w->level[w->depth].mapping = mapping, w->level[w->depth++].count = 0;
    put(w, mapping ? "{" : "[");
    return true;
}

static bool scalar(writer *w, const yaml_event_t *e) {
    const char *s = (const char *)e->data.scalar.value;
    size_t n = e->data.scalar.length;
    if (e->data.scalar.tag || e->data.scalar.anchor) return w->why = "tags and anchors are not read", false;
    bool key = w->depth && w->level[w->depth - 1].mapping && w->level[w->depth - 1].count % 2 == 0;
    separate(w, true);
    if (key || e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) put_string(w, s, n);
    else put_plain(w, s, n);
    return true;
}

static bool take_event(writer *w, const yaml_event_t *e, int *documents) {
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT: return ++*documents == 1 || (w->why = "more than one document", false);
    case YAML_MAPPING_START_EVENT: return begin(w, true, e->data.mapping_start.tag, e->data.mapping_start.anchor);
    case YAML_SEQUENCE_START_EVENT: return begin(w, false, e->data.sequence_start.tag, e->data.sequence_start.anchor);
    case YAML_MAPPING_END_EVENT: return w->depth--, put(w, "}"), true;
    case YAML_SEQUENCE_END_EVENT: return w->depth--, put(w, "]"), true;
    case YAML_SCALAR_EVENT: return scalar(w, e);
    case YAML_ALIAS_EVENT: return w->why = "aliases are not read", false;
    default: return true;
    }
}

bool mica_cli_yaml_to_json(const char *yaml, size_t n, mica_cli_text *json, char *why, size_t size) {
    yaml_parser_t parser;
    writer w = {.out = json};
    int documents = 0;
    bool ok = true;
    if (!yaml_parser_initialize(&parser)) return snprintf(why, size, "out of memory"), false;
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml, n);
    for (bool more = true; ok && more;) {
        yaml_event_t e;
        size_t line = parser.mark.line + 1;
        if (!yaml_parser_parse(&parser, &e)) {
            snprintf(why, size, "line %zu: %s", parser.problem_mark.line + 1, parser.problem ? parser.problem : "no YAML");
            ok = false;
            break;
        }
        more = e.type != YAML_STREAM_END_EVENT;
        line = e.start_mark.line + 1;
        if (!(ok = take_event(&w, &e, &documents))) snprintf(why, size, "line %zu: %s", line, w.why);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    if (ok && !json->size) put(&w, "null");
    return ok;
}
#else
bool mica_cli_yaml_to_json(const char *yaml, size_t n, mica_cli_text *json, char *why, size_t size) {
    (void)yaml, (void)n, (void)json;
    return snprintf(why, size, "this mica was built without libyaml and reads JSON only"), false;
}
#endif
