// SPDX-License-Identifier: Apache-2.0
// Fuzzes the GGUF reader and what is built on it: vocabulary, config, conversion of every tensor to a weight.
#include "io/checkpoint.h"
#include "io/gguf_model.h"
#include "fuzz_file.h"

static void use_vocabulary(const mica_gguf_vocab *v) {
    for (size_t i = 0; i < v->count; i++) fuzz_touch(v->tokens[i].data, v->tokens[i].size);
    for (size_t i = 0; i < v->merge_count; i++) fuzz_touch(v->merges[i].data, v->merges[i].size);
    if (v->scores) fuzz_touch(v->scores, v->count * 4);
    if (v->types) fuzz_touch(v->types, v->count * 4);
}

static void use_weights(const mica_gguf *g, const mica_config *c) {
    for (size_t i = 0; i < mica_gguf_tensor_count(g); i++) {
        char module[128];
        mica_weight w;
        mica_error err = {0};
        const mica_gguf_tensor *t = mica_gguf_tensor_at(g, i);
        fuzz_touch(t->data, t->bytes);
        if (!mica_gguf_hf_name(c->arch, t->name, module, sizeof module)) continue;
        if (!mica_gguf_weight(g, c, module, &w, &err)) {
            if (!err.msg[0]) abort();
            continue;
        }
        if (!mica_weight_unpack(&w, &err)) abort();
        fuzz_touch(w.weight.data, w.weight.bytes);
        fuzz_touch(w.scales.data, w.scales.bytes);
        fuzz_touch(w.bias.data, w.bias.bytes);
        mica_weight_release(&w);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    mica_error err = {0};
    mica_config c;
    uint64_t live = mica_alloc_get_stats().live;
    fuzz_file(data, size, path);
    mica_gguf *g = mica_gguf_open(path, &err);
    if (!g && (err.code == MICA_OK || !err.msg[0])) abort();
    if (g) use_vocabulary(mica_gguf_get_vocab(g));
    if (g && mica_gguf_config(g, &c, &err)) {
        if (c.num_heads % c.num_kv_heads || c.head_dim % 2 || !(c.rope.theta > 1)) abort();
        use_weights(g, &c);
        mica_config_free(&c);
    }
    mica_gguf_free(g);
    if (mica_alloc_get_stats().live != live) abort();
    return 0;
}
