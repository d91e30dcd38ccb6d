// SPDX-License-Identifier: Apache-2.0
// Fuzzes chat templates: the bytes are a template, or a template, a NUL and the context as JSON. Whatever it does, a render ends within
// small limits, its text is UTF-8 and its marks are in order.
#include "base/utf8.h"
#include "mica/template.h"
#include <stdlib.h>
#include <string.h>

static const char context[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\" Be brief. \"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Gr\\u00fc\\u00dfe <b>\"}]},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5,true,null]}}}]},"
    "{\"role\":\"tool\",\"content\":\"{}\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"i\":7,\"f\":2.5,\"s\":\"Hello, World\",\"l\":[3,1,2],\"d\":{\"b\":2,\"a\":1}}";

static void check(const mica_text *text, const mica_marks *marks) {
    size_t end = 0;
    if (text->len && !mica_utf8_valid(text->data, text->len)) abort();
    for (size_t i = 0; i < marks->len; i++) {
        if (marks->data[i].from >= marks->data[i].to || marks->data[i].to > text->len || (i && marks->data[i].from <= end)) abort();
        end = marks->data[i].to;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *source = (const char *)data, *cut = size ? memchr(source, 0, size) : NULL;
    size_t length = cut ? (size_t)(cut - source) : size;
    mica_error err = {0};
    mica_template *t = mica_template_parse(size ? source : "", length, "fuzz", &err);
    if (!t && !err.msg[0]) abort();
    for (int as_given = 0; t && as_given < 2; as_given++) {
        const mica_template_options options = {.now = 1700000000, .as_given = as_given, .most_bytes = 1 << 20, .most_memory = 16 << 20, .most_steps = 200000};
        mica_text text = {0};
        mica_marks marks = {0};
        mica_error why = {0};
        bool ok = mica_template_render(t, cut ? cut + 1 : context, cut ? size - length - 1 : sizeof context - 1, &options, &text, &marks, &why);
        if (!ok && (!why.msg[0] || text.len || marks.len)) abort();
        check(&text, &marks);
        mica_text_free(&text);
        mica_marks_free(&marks);
    }
    mica_template_free(t);
    return 0;
}
