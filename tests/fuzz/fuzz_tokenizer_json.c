// SPDX-License-Identifier: Apache-2.0
// Fuzzes tokenizer.json: what loads must encode and decode a text without trouble, and stream the raw bytes it decodes.
#include "text/tokenizer.h"
#include <stdlib.h>

static const char TEXT[] = "Hello  w\u00F6rld's <s> 123\n\n \u4E2D\u6587 \U0001F600e\u0301 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \xFF";

static void use(const mica_tokenizer *t, const char *text, size_t n) {
    mica_ids ids = {0};
    mica_text whole = {0};
    mica_error err = {0};
    mica_decode_options raw = {.raw = true};
    bool ok = mica_tokenizer_encode(t, text, n, &(mica_encode_options){.plain = n % 2}, &ids, &err);
    ok = ok && mica_tokenizer_decode(t, ids.data, ids.len, &raw, &whole, &err);
    mica_detokenizer *d = ok ? mica_detokenizer_new(t, &raw, &err) : NULL;
    size_t at = 0, size;
    const char *piece;
    for (size_t i = 0; d && i <= ids.len; i++) {
        bool pushed = i < ids.len ? mica_detokenizer_push(d, ids.data[i], &piece, &size, &err) : mica_detokenizer_finish(d, &piece, &size, &err);
        if (!pushed) break;
        if (size > whole.len - at || (size && memcmp(whole.data + at, piece, size))) abort();
        at += size;
    }
    if (!ok && !err.msg[0]) abort();
    mica_detokenizer_free(d);
    mica_ids_free(&ids);
    mica_text_free(&whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mica_error err = {0};
    mica_tokenizer *t = mica_tokenizer_from_json((const char *)data, size, "fuzz", &err);
    if (!t && !err.msg[0]) abort();
    if (!t) return 0;
    use(t, TEXT, sizeof TEXT - 1);
    use(t, (const char *)data, size < 300 ? size : 300);
    mica_tokenizer_free(t);
    return 0;
}
