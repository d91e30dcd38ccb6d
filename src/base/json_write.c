// SPDX-License-Identifier: Apache-2.0
// JSON writer. Strings pass through as UTF-8 with the escapes that JSON requires; invalid bytes become U+FFFD.
#include "base/json.h"
#include "base/utf8.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void separate(mica_json_writer *w) {
    if (w->need_comma) mica_buf_putc(w->out, ',');
    w->need_comma = true;
}

static void open_with(mica_json_writer *w, char c) {
    separate(w);
    mica_buf_putc(w->out, c);
    w->need_comma = false;
}

static void close_with(mica_json_writer *w, char c) {
    mica_buf_putc(w->out, c);
    w->need_comma = true;
}

void mica_json_begin_object(mica_json_writer *w) { open_with(w, '{'); }
void mica_json_end_object(mica_json_writer *w) { close_with(w, '}'); }
void mica_json_begin_array(mica_json_writer *w) { open_with(w, '['); }
void mica_json_end_array(mica_json_writer *w) { close_with(w, ']'); }

static void quote(mica_buf *out, const char *s, size_t n) {
    mica_buf_putc(out, '"');
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp;
        len = mica_utf8_decode(s + i, n - i, &cp);
        if (!len) {
            mica_buf_puts(out, "\xEF\xBF\xBD");
            len = 1;
        } else if (cp == '"' || cp == '\\') {
            mica_buf_putc(out, '\\');
            mica_buf_putc(out, (char)cp);
        } else if (cp == '\n' || cp == '\t' || cp == '\r') {
            mica_buf_puts(out, cp == '\n' ? "\\n" : cp == '\t' ? "\\t" : "\\r");
        } else if (cp < 0x20 || cp == 0x7F) {
            mica_buf_printf(out, "\\u%04x", cp);
        } else {
            mica_buf_append(out, s + i, len);
        }
    }
    mica_buf_putc(out, '"');
}

void mica_json_key(mica_json_writer *w, const char *key) {
    separate(w);
    quote(w->out, key, strlen(key));
    mica_buf_putc(w->out, ':');
    w->need_comma = false;
}

void mica_json_put_string(mica_json_writer *w, const char *s, size_t n) {
    separate(w);
    quote(w->out, s, n);
}

void mica_json_put_cstring(mica_json_writer *w, const char *s) { mica_json_put_string(w, s, strlen(s)); }

void mica_json_put_int(mica_json_writer *w, int64_t v) {
    separate(w);
    mica_buf_printf(w->out, "%lld", (long long)v);
}

void mica_json_put_float(mica_json_writer *w, double v) {
    if (!isfinite(v)) {
        mica_json_put_null(w);
        return;
    }
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    separate(w);
    mica_buf_puts(w->out, text);
    if (!strpbrk(text, ".e")) mica_buf_puts(w->out, ".0");
}

void mica_json_put_bool(mica_json_writer *w, bool v) {
    separate(w);
    mica_buf_puts(w->out, v ? "true" : "false");
}

void mica_json_put_null(mica_json_writer *w) {
    separate(w);
    mica_buf_puts(w->out, "null");
}

static void put_children(mica_json_writer *w, const mica_json *v, bool keyed) {
    for (const mica_json *c = v->child; c; c = c->next) {
        if (keyed) {
            separate(w);
            quote(w->out, c->key, c->key_length);
            mica_buf_putc(w->out, ':');
            w->need_comma = false;
        }
        mica_json_put_tree(w, c);
    }
}

void mica_json_put_raw(mica_json_writer *w, const char *json, size_t n) {
    separate(w);
    size_t from = w->out->len;
    if (!mica_buf_append(w->out, json, n)) return;
    for (char *c = w->out->data + from; c < w->out->data + w->out->len; c++)
        if (*c == '\n' || *c == '\r') *c = ' '; // in strings they are escaped
}

void mica_json_put_tree(mica_json_writer *w, const mica_json *v) {
    switch (v->type) {
    case MICA_JSON_NULL: mica_json_put_null(w); break;
    case MICA_JSON_BOOL: mica_json_put_bool(w, v->boolean); break;
    case MICA_JSON_INT: mica_json_put_int(w, v->integer); break;
    case MICA_JSON_FLOAT: mica_json_put_float(w, v->number); break;
    case MICA_JSON_STRING: mica_json_put_string(w, v->string, v->length); break;
    case MICA_JSON_ARRAY:
        mica_json_begin_array(w);
        put_children(w, v, false);
        mica_json_end_array(w);
        break;
    case MICA_JSON_OBJECT:
        mica_json_begin_object(w);
        put_children(w, v, true);
        mica_json_end_object(w);
        break;
    }
}
