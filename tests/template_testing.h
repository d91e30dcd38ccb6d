// SPDX-License-Identifier: Apache-2.0
// What the tests of chat templates share: rendering a source with a context, comparing text, marks and errors.
#ifndef TEMPLATE_TESTING_H
#define TEMPLATE_TESTING_H

#include "base/base.h"
#include "mica/template.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { TEMPLATE_NOW = 1700000000 };

typedef struct rendered {
    bool ok;
    mica_text text;
    mica_marks marks;
    mica_error err;
} rendered;

static inline rendered render_with(const mica_template *t, const char *json, size_t size, const mica_template_options *options) {
    rendered out = {0};
    out.ok = mica_template_render(t, json, size, options, &out.text, &out.marks, &out.err);
    if (!out.ok && (!out.err.msg[0] || out.text.len || out.marks.len)) fail_msg("a failure without a message, or with a text: \"%s\"", out.err.msg);
    return out;
}

/** A template given as text, with a context taken as it is. */
static inline rendered render_text(const char *source, const char *json) {
    const mica_template_options options = {.now = TEMPLATE_NOW, .as_given = true};
    rendered out = {0};
    mica_template *t = mica_template_parse(source, strlen(source), "t", &out.err);
    if (t) out = render_with(t, json, strlen(json), &options);
    mica_template_free(t);
    return out;
}

static inline void free_rendered(rendered *r) {
    mica_text_free(&r->text);
    mica_marks_free(&r->marks);
}

static inline void check_text(const char *source, const char *json, const char *want) {
    rendered r = render_text(source, json);
    if (!r.ok) fail_msg("%s\n%s", source, r.err.msg);
    if (r.text.len != strlen(want) || memcmp(r.text.data, want, r.text.len)) fail_msg("%s\ngot  %.*s\nwant %s", source, (int)r.text.len, r.text.data, want);
    free_rendered(&r);
}

static inline void check_error(const char *source, const char *json, const char *want) {
    rendered r = render_text(source, json);
    if (r.ok) fail_msg("%s\ngave %.*s", source, (int)r.text.len, r.text.data);
    if (!strstr(r.err.msg, want)) fail_msg("%s\ngot  %s\nwant %s", source, r.err.msg, want);
    free_rendered(&r);
}
#endif
