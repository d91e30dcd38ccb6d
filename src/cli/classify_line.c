// SPDX-License-Identifier: Apache-2.0
// Reading a line of `mica classify`. Texts are strings that end with a NUL, so one inside a text is an error rather than its early end.
#include "cli/classify_line.h"
#include <stdlib.h>
#include <string.h>

static bool wrong(mica_cli_text_line *e, const char *why) {
    snprintf(e->why, sizeof e->why, "%s", why);
    return false;
}

static bool set_text(mica_cli_text_line *e, const mica_cli_text *text) {
    free(e->text), e->text = NULL;
    if (memchr(text->data, 0, text->size)) return wrong(e, "a NUL character in the text");
    return (e->text = mica_cli_copy(text->data, text->size));
}

static bool read_members(mica_cli_text_line *e, const mica_cli_value *object, mica_cli_text *key, mica_cli_text *string) {
    mica_cli_value v;
    for (const char *at = NULL; mica_cli_json_next(object, &at, key, &v);) {
        if (strcmp(key->data, "id") == 0) free(e->id), e->id = mica_cli_copy(v.text, v.size);
        if (strcmp(key->data, "text") == 0 && (!mica_cli_json_string_of(&v, string) || !set_text(e, string)))
            return e->why[0] ? false : wrong(e, "\"text\" is not a string");
    }
    return e->text || wrong(e, "there is no string \"text\"");
}

static bool read_json(mica_cli_text_line *e, const char *line, mica_cli_text *key, mica_cli_text *string) {
    mica_cli_value v;
    const char *why;
    if (!mica_cli_json_read(line, &v, &why)) return wrong(e, why);
    if (mica_cli_json_string_of(&v, string)) return set_text(e, string);
    return mica_cli_json_is(&v, '{') ? read_members(e, &v, key, string) : wrong(e, "expected a JSON object with \"text\"");
}

// The n-th field of a line whose fields are separated by commas; a quoted one may hold commas, and doubled quotes.
static bool read_csv(mica_cli_text_line *e, const char *line, int32_t wanted, mica_cli_text *field) {
    const char *s = line;
    for (int32_t n = 1;; n++) {
        bool quoted = *s == '"';
        field->size = 0;
        mica_cli_append(field, "", 0);
        if (quoted)
            for (s++; *s && !(*s == '"' && s[1] != '"'); s++) mica_cli_append(field, s += *s == '"', 1);
        if (quoted && *s++ != '"') return wrong(e, "a quoted field has no end");
        size_t rest = strcspn(s, ",");
        mica_cli_append(field, s, rest);
        s += rest;
        if (n == wanted) return set_text(e, field);
        if (*s++ != ',') return wrong(e, "the line has too few fields");
    }
}

bool mica_cli_text_line_read(mica_cli_text_line *e, const char *line, size_t size, size_t number, mica_cli_text_form form) {
    mica_cli_text key = {0}, string = {0};
    *e = (mica_cli_text_line){.number = number};
    bool ok = strlen(line) == size || wrong(e, "a NUL byte in the line");
    if (ok && form.json) ok = read_json(e, line, &key, &string);
    else if (ok && form.field) ok = read_csv(e, line, form.field, &string);
    else if (ok) e->text = mica_cli_copy(line, size);
    if (!ok) free(e->text), e->text = NULL;
    free(key.data);
    free(string.data);
    return ok;
}

void mica_cli_text_line_clear(mica_cli_text_line *e) {
    free(e->text);
    free(e->id);
    *e = (mica_cli_text_line){0};
}
