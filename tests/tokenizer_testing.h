// SPDX-License-Identifier: Apache-2.0
// What the tests of the tokenizer share: making one from a short tokenizer.json, and comparing its ids and text.
#ifndef TOKENIZER_TESTING_H
#define TOKENIZER_TESTING_H

#include "base/base.h"
#include "text/tokenizer.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static inline mica_tokenizer *make(const char *json) {
    mica_error err = {0};
    mica_tokenizer *t = mica_tokenizer_from_json(json, strlen(json), "test.json", &err);
    if (!t) fail_msg("%s\n%s", err.msg, json);
    return t;
}

/** "1 2 3" of what the text encodes to; in a buffer of its own. */
static inline const char *encoded(const mica_tokenizer *t, const char *text, size_t n, const mica_encode_options *options) {
    static char line[4096];
    mica_ids ids = {0};
    mica_error err = {0};
    size_t at = 0;
    if (!mica_tokenizer_encode(t, text, n, options, &ids, &err)) fail_msg("%s", err.msg);
    line[0] = 0;
    for (size_t i = 0; i < ids.len && at + 16 < sizeof line; i++) at += (size_t)snprintf(line + at, sizeof line - at, "%s%d", i ? " " : "", ids.data[i]);
    mica_ids_free(&ids);
    return line;
}

static inline void check_encode(const mica_tokenizer *t, const char *text, const char *want) {
    const char *got = encoded(t, text, strlen(text), NULL);
    if (strcmp(got, want)) fail_msg("\"%s\": got %s, want %s", text, got, want);
}

static inline mica_text decoded(const mica_tokenizer *t, const int32_t *ids, size_t n, const mica_decode_options *options) {
    mica_text text = {0};
    mica_error err = {0};
    if (!mica_tokenizer_decode(t, ids, n, options, &text, &err)) fail_msg("%s", err.msg);
    return text;
}

static inline void check_decode(const mica_tokenizer *t, const int32_t *ids, size_t n, const mica_decode_options *options, const char *want, size_t size) {
    mica_text got = decoded(t, ids, n, options);
    if (got.len != size || memcmp(got.data, want, size)) fail_msg("decoded \"%.*s\", want \"%.*s\"", (int)got.len, got.data, (int)size, want);
    mica_text_free(&got);
}

/** All pieces of a stream put together. */
static inline mica_text streamed(const mica_tokenizer *t, const int32_t *ids, size_t n, const mica_decode_options *options) {
    mica_detokenizer *d = mica_detokenizer_new(t, options, NULL);
    mica_buf out = {0};
    const char *piece;
    size_t size;
    assert_non_null(d);
    for (size_t i = 0; i <= n; i++) {
        assert_true(i < n ? mica_detokenizer_push(d, ids[i], &piece, &size, NULL) : mica_detokenizer_finish(d, &piece, &size, NULL));
        assert_int_equal(strlen(piece) <= size, true);
        mica_buf_append(&out, piece, size);
    }
    mica_detokenizer_free(d);
    return (mica_text){out.data, out.len, out.capacity};
}
#endif
