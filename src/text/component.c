// SPDX-License-Identifier: Apache-2.0
// Shared pieces of the component readers: walking Sequences, patterns, single characters.
#include "text/component.h"
#include "base/utf8.h"
#include <string.h>

static bool each(const mica_json *v, const char *kind, const char *list, mica_component_fn *fn, void *ctx, const char *what,
                 mica_error *err, int depth) {
    const char *type;
    if (!v || v->type == MICA_JSON_NULL) return true;
    if (v->type != MICA_JSON_OBJECT)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: %s must be an object, not %s", what, kind, mica_json_type_name(v->type));
    if (!mica_json_string(v, "type", NULL, &type, what, err)) return false;
    if (!type) return mica_fail(err, MICA_ERR_FORMAT, "%s: %s has no \"type\"", what, kind);
    if (strcmp(type, "Sequence")) return fn(ctx, type, v, err);
    if (depth > 16) return mica_fail(err, MICA_ERR_FORMAT, "%s: %s: Sequence nested too deeply", what, kind);
    const mica_json *members = mica_json_get(v, list);
    if (!members || members->type != MICA_JSON_ARRAY)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: %s: a Sequence needs the array \"%s\"", what, kind, list);
    for (const mica_json *m = members->child; m; m = m->next) {
        if (m->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: %s: a Sequence holds objects only", what, kind);
        if (!each(m, kind, list, fn, ctx, what, err, depth + 1)) return false;
    }
    return true;
}

bool mica_component_each(const mica_json *v, const char *kind, const char *list, mica_component_fn *fn, void *ctx, const char *what,
                         mica_error *err) {
    return each(v, kind, list, fn, ctx, what, err, 0);
}

bool mica_component_pattern(const mica_json *v, const char **pattern, size_t *n, bool *is_regex, const char *what, mica_error *err) {
    const mica_json *p = mica_json_get(v, "pattern"), *string = mica_json_get(p, "String"), *regex = mica_json_get(p, "Regex");
    const mica_json *found = string ? string : regex;
    if (!found || found->type != MICA_JSON_STRING)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: \"pattern\" must be {\"String\": …} or {\"Regex\": …}", what);
    return *pattern = found->string, *n = found->length, *is_regex = !string, true;
}

bool mica_component_char(const mica_json *v, const char *key, uint32_t otherwise, uint32_t *cp, const char *what, mica_error *err) {
    const mica_json *m = mica_json_get(v, key);
    if (!m && otherwise) return *cp = otherwise, true;
    if (m && m->type == MICA_JSON_STRING && m->length && mica_utf8_decode(m->string, m->length, cp) == m->length) return true;
    return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\" must be one character", what, key);
}

bool mica_component_string(const mica_json *v, const char *key, const char **s, size_t *n, const char *what, mica_error *err) {
    const mica_json *m = mica_json_get(v, key);
    if (!m || m->type != MICA_JSON_STRING) return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\" must be a string", what, key);
    return *s = m->string, *n = m->length, true;
}

bool mica_component_scheme(const char *name, mica_prepend_scheme *scheme, const char *what, mica_error *err) {
    static const char *const names[] = {"always", "first", "never"};
    for (size_t i = 0; i < MICA_COUNT(names); i++)
        if (!strcmp(name, names[i])) return *scheme = (mica_prepend_scheme)i, true;
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: unknown prepend_scheme \"%s\"", what, name);
}
