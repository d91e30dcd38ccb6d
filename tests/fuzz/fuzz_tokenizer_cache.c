// SPDX-License-Identifier: Apache-2.0
// Fuzzes the compiled tokenizer cache: the input becomes a file with a right key and checksum, so that everything behind
// those is reached; whatever is accepted must load or fail, and encode, without leaving the tables.
#include "text/cache.h"
#include "text/tokenizer.h"
#include <stdlib.h>

/** The header's bytes from its key on are the input's, but the key and the size, which open() would refuse. */
static void repair(unsigned char *image, size_t n, const mica_cache_key *key) {
    mica_tables none = {0};
    size_t size;
    unsigned char *model = mica_cache_image(&none, key, &size);
    if (!model) return;
    // magic, version, byte order, checksum, key, size: see cache.c
    size_t fixed = 8 + 4 + 4 + 8 + sizeof *key + 8;
    memcpy(image, model, fixed);
    uint64_t file_size = n;
    memcpy(image + fixed - 8, &file_size, 8);
    mica_free(model);
    mica_cache_seal(image, n);
}

static void use(const mica_tables *t) {
    mica_tables copy = *t;
    mica_error err = {0};
    mica_ids ids = {0};
    mica_text text = {0};
    copy.borrowed = true;
    mica_tokenizer *made = mica_tokenizer_new(&copy, "fuzz", &err);
    if (made && mica_tokenizer_encode(made, "ab a\xC3\xA9 <s> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 62, NULL, &ids, &err))
        mica_tokenizer_decode(made, ids.data, ids.len, NULL, &text, &err);
    if (!made && !err.msg[0]) abort();
    mica_ids_free(&ids);
    mica_text_free(&text);
    mica_tokenizer_free(made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mica_cache_key key = mica_cache_key_of("fuzz", 4);
    mica_tables t;
    if (size < 200) return 0;
    unsigned char *image = mica_alloc_aligned(size, 64);
    if (!image) return 0;
    memcpy(image, data, size);
    repair(image, size, &key);
    if (mica_cache_open(&t, image, size, &key)) use(&t);
    mica_free(image);
    return 0;
}
