// SPDX-License-Identifier: Apache-2.0
// Fuzzes training data. The first byte chooses mask, length and what may be skipped; the rest is the file. Whatever opens is read example by
// example and batch by batch: scores are 0 or 1 and never the first token's, segments add up and are within limits, a second reading is the same.
#include "base/base.h"
#include "fuzz_file.h"
#include "text/tokenizer.h"
#include "train/data.h"
#include <string.h>

static const char turns[] = "{% for m in messages %}{% if m.role == 'x' %}{{ raise_exception('x') }}{% endif %}<s>{{ m.role }}:{{ m.content | trim }}"
                            "{% if loop.last %}!{% endif %}</s>{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
                            "{% if add_generation_prompt %}<s>assistant:{% endif %}";

// Bytes as tokens, and two control tokens.
static mica_tokenizer *make_tokenizer(void) {
    mica_buf json = {0};
    mica_buf_puts(&json, "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":256,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                         "\"normalized\":false,\"special\":true},{\"id\":257,\"content\":\"</s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                         "\"normalized\":false,\"special\":true}],\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,"
                         "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],\"vocab\":{");
    for (int i = 0; i < 256; i++) mica_buf_printf(&json, "\"<0x%02X>\":%d,", i, i);
    mica_buf_puts(&json, "\"<s>\":256,\"</s>\":257}}}");
    mica_error err = {0};
    mica_tokenizer *t = mica_tokenizer_from_json(json.data, json.len, "bytes", &err);
    if (!t) fprintf(stderr, "%s\n", err.msg), abort();
    mica_buf_free(&json);
    return t;
}

static void check_examples(mica_dataset *d) {
    mica_dataset_example e;
    mica_error err = {0};
    for (size_t i = 0; i < mica_dataset_count(d); i++) {
        if (!mica_dataset_example_get(d, i, &e, &err)) {
            if (!err.msg[0]) abort();
            continue;
        }
        size_t targets = 0;
        for (size_t k = 0; k < e.n; k++) {
            if (e.ids[k] < 0 || e.ids[k] > 257 || e.scored[k] > 1) abort();
            targets += e.scored[k];
        }
        if (targets != e.targets || (e.n && e.scored[0])) abort();
    }
}

static uint64_t read_epoch(mica_dataset *d, size_t most) {
    mica_dataset_order *o = mica_dataset_order_new(d, &(mica_dataset_order_options){.epochs = 2, .batch_tokens = most}, NULL);
    mica_text_batch b;
    mica_error err = {0};
    uint64_t hash = 0;
    if (!o) abort();
    while (mica_dataset_next(o, &b, &err) && b.n) {
        size_t n = 0;
        for (size_t i = 0; i < b.segments; i++) n += (size_t)b.lengths[i];
        if (n != b.n || n > most) abort();
        hash = mica_hash(b.ids, n * 4, mica_hash(b.targets, n * 4, mica_hash(b.weights, n * 4, hash)));
    }
    if (b.n) abort();
    mica_dataset_order_free(o);
    return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mica_tokenizer *tokenizer;
    static mica_template *chat;
    char path[FUZZ_PATH];
    mica_error err = {0};
    if (!tokenizer) tokenizer = make_tokenizer(), chat = mica_template_parse(turns, sizeof turns - 1, "turns", NULL);
    if (!size || !chat) return 0;
    size_t most = data[0] & 32 ? 7 : 40;
    mica_dataset_options o = {.mask = (mica_dataset_mask)(data[0] % 4 % 3), .too_long = (mica_dataset_long)(data[0] / 4 % 4 % 3), .max_length = most,
                              .skip_bad = data[0] & 16, .unchecked = data[0] & 64, .allow_control = data[0] & 128};
    fuzz_file(data + 1, size - 1, path);
    mica_dataset *d = mica_dataset_open(path, tokenizer, chat, &o, &err);
    if (!d && !err.msg[0]) abort();
    if (d) {
        check_examples(d);
        if (read_epoch(d, most) != read_epoch(d, most)) abort();
    }
    mica_dataset_free(d);
    return 0;
}
