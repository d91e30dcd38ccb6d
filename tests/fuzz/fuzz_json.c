// SPDX-License-Identifier: Apache-2.0
// Fuzzes the JSON parser; whatever parses is written and parsed again, which must give the same text.
#include "base/json.h"
#include <stdlib.h>
#include <string.h>

static void write_tree(const mica_json *v, mica_buf *out) {
    mica_json_writer w = {.out = out};
    mica_json_put_tree(&w, v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mica_arena arena = {0};
    mica_buf first = {0}, second = {0};
    mica_error err = {0};
    const mica_json *v = mica_json_parse(&arena, (const char *)data, size, "fuzz", &err);
    if (v) {
        write_tree(v, &first);
        const mica_json *again = mica_json_parse(&arena, first.data, first.len, "again", &err);
        if (!again) abort();
        write_tree(again, &second);
        if (first.len != second.len || memcmp(first.data, second.data, first.len)) abort();
    } else if (!err.msg[0]) abort();
    mica_buf_free(&first);
    mica_buf_free(&second);
    mica_arena_free(&arena);
    return 0;
}
