// SPDX-License-Identifier: Apache-2.0
// Fuzzes the reader of session files. Input: a byte, then the file; with an even byte the model's identity and the checksum are made right
// first, so that what comes after them is reached. A session that is accepted must go on, or fail cleanly, and leave nothing behind.
#include "infer/past.h"
#include "mica/session.h"
#include "model/identity.h"
#include <stdlib.h>
#include <string.h>

enum { IDENTITY_AT = 16 };

static mica_model *model(void) {
    static mica_model *m; // for all inputs
    mica_error err;
    mica_load_options o = {.threads = 1, .context = 256, .prefix_cache = -1};
    if (!m && !(m = mica_model_load(MICA_SOURCE_DIR "/tests/golden/quant/llama-4bit-g64", &o, &err))) abort();
    return m;
}

static void repair(mica_lm *lm, unsigned char *file, size_t size) {
    uint64_t identity;
    if (size < IDENTITY_AT + sizeof identity || !mica_net_identity(lm->net, &identity, NULL)) return;
    memcpy(file + IDENTITY_AT, &identity, sizeof identity);
    mica_past_seal(file, size);
}

// One more token after what the file holds.
static void go_on(mica_lm *lm, mica_past *p) {
    mica_error err;
    mica_ids ids = {0};
    mica_token t;
    if (!mica_grow(&ids.data, &ids.capacity, p->ids.len + 1, sizeof *ids.data)) abort();
    if (p->ids.len) memcpy(ids.data, p->ids.data, p->ids.len * sizeof *ids.data);
    ids.data[p->ids.len] = 1;
    mica_answer *a = mica_answer_new(lm, ids.data, p->ids.len + 1, &(mica_generate_options){.max_tokens = 2}, &err);
    if (a) {
        if (!mica_past_acquire(p, &err)) abort();
        mica_answer_attach(a, p);
        while (mica_answer_next(a, &t)) {}
        mica_answer_free(a);
    }
    mica_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mica_lm *lm = model()->lm;
    mica_error err = {0};
    if (!size) return 0;
    unsigned char *file = malloc(size); // exact, so that a read past its end shows
    memcpy(file, data + 1, size - 1);
    if (data[0] % 2 == 0) repair(lm, file, size - 1);
    mica_past *p = mica_past_parse(lm, file, size - 1, "input", &err);
    if (p) go_on(lm, p);
    else if (err.code == MICA_OK || !err.msg[0]) abort();
    mica_past_free(p);
    free(file);
    if (mica_cache_bytes(&lm->cache) != 0) abort();
    return 0;
}
