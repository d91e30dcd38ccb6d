// SPDX-License-Identifier: Apache-2.0
// For tests with adapters: folders of random ones for any small model.
#ifndef MICA_TESTS_ADAPTER_TESTING_H
#define MICA_TESTS_ADAPTER_TESTING_H

#include "base/half.h"
#include "base/rng.h"
#include "io/adapter_write.h"
#include "io/checkpoint.h"
#include "io_testing.h"

typedef struct adapter_spec {
    uint64_t seed;
    int64_t rank;
    const char *const *modules; // in a block; ended by NULL
    bool embed, dora, bf16;
    double scale;
} adapter_spec;

static const char *const all_modules[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                          "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",    NULL};
static const char *const qv_modules[] = {"self_attn.q_proj", "self_attn.v_proj", NULL};

enum { MOST_TENSORS = 200 };
typedef struct adapter_tensors {
    mica_stored items[MOST_TENSORS];
    char names[MOST_TENSORS][160];
    size_t count;
} adapter_tensors;

static inline void add_tensor(adapter_tensors *t, const adapter_spec *spec, const char *module, const char *end, int ndim, int64_t rows, int64_t columns,
                              double middle) {
    assert_true(t->count < MOST_TENSORS);
    size_t n = (size_t)(rows * columns), size = spec->bf16 ? 2 : 4;
    unsigned char *data = malloc(n * size);
    snprintf(t->names[t->count], sizeof t->names[0], "%s%s", module, end);
    uint64_t stream = mica_hash(t->names[t->count], strlen(t->names[t->count]), spec->seed);
    for (size_t i = 0; i < n; i++) {
        float v = (float)middle + (2 * mica_uniform_f32(mica_philox_at(stream, i / 4).v[i % 4]) - 1) * 0.2f;
        uint16_t half = mica_f32_to_bf16(v);
        if (spec->bf16) memcpy(data + i * 2, &half, 2);
        else memcpy(data + i * 4, &v, 4);
    }
    t->items[t->count] = (mica_stored){.name = t->names[t->count], .dtype = spec->bf16 ? MICA_BF16 : MICA_F32, .ndim = ndim, .shape = {rows, columns},
                                       .data = data, .bytes = n * size};
    if (ndim == 1) t->items[t->count].shape[0] = columns, t->items[t->count].shape[1] = 0;
    t->count++;
}

static inline void add_module(adapter_tensors *t, const mica_model_files *ck, const adapter_spec *spec, const char *module) {
    mica_weight w;
    mica_error err = {0};
    if (!mica_checkpoint_view(ck, module, -1, -1, &w, &err)) fail_msg("%s", err.msg);
    bool embedding = strcmp(module, "model.embed_tokens") == 0;
    add_tensor(t, spec, module, ".lora_a", 2, embedding ? w.out : w.in, spec->rank, 0);
    add_tensor(t, spec, module, ".lora_b", 2, spec->rank, embedding ? w.in : w.out, 0);
    if (spec->dora) add_tensor(t, spec, module, ".m", 1, 1, w.out, 1);
    mica_weight_release(&w);
}

/** Writes an adapter of random numbers for the model; the same for the same spec. */
static inline void make_adapter(const char *model, const char *folder, const adapter_spec *spec) {
    static adapter_tensors t;
    mica_error err = {0};
    mica_model_files *ck = mica_checkpoint_open(model, &err);
    if (!ck) fail_msg("%s", err.msg);
    t.count = 0;
    if (spec->embed) add_module(&t, ck, spec, "model.embed_tokens");
    for (int64_t i = 0; i < mica_checkpoint_config(ck)->num_layers; i++)
        for (const char *const *m = spec->modules; *m; m++) {
            char module[128];
            snprintf(module, sizeof module, "model.layers.%d.%s", (int)i, *m);
            add_module(&t, ck, spec, module);
        }
    mica_checkpoint_free(ck);
    mica_adapter_write_options o = {.scale = spec->scale != 0 ? spec->scale : 2, .tied = true};
    if (!mica_adapter_write(folder, t.items, t.count, &o, &err)) fail_msg("%s", err.msg);
    for (size_t i = 0; i < t.count; i++) free((void *)(uintptr_t)t.items[i].data);
}
#endif
