// SPDX-License-Identifier: Apache-2.0
// The identity of a network: a hash of the numbers of its config, of sizes and of some rows of the first and the last layer (a fine-tuned model
// differs there too).
#include "model/identity.h"
#include "io/checkpoint.h"
#include <stdio.h>
#include <string.h>

static uint64_t add_number(uint64_t h, double x) { return mica_hash(&x, sizeof x, h); }

static uint64_t add_rope(uint64_t h, const mica_rope_config *r) {
    const double numbers[] = {(double)r->type, r->theta, r->factor, r->attention_factor, r->low_freq_factor, r->high_freq_factor,
                              (double)r->original_max_position, r->beta_fast, r->beta_slow};
    return mica_hash(numbers, sizeof numbers, h);
}

static uint64_t add_config(uint64_t h, const mica_config *c) {
    const int64_t numbers[] = {c->arch, c->vocab_size, c->hidden_size, c->intermediate_size, c->num_layers, c->num_heads, c->num_kv_heads,
                               c->head_dim, c->max_position_embeddings, c->hidden_act, c->sliding_window};
    h = mica_hash(numbers, sizeof numbers, h);
    h = add_number(add_number(add_number(h, c->rms_norm_eps), c->query_scale), c->attn_softcap);
    for (int64_t i = 0; c->sliding_window && i < c->num_layers; i++) h = mica_hash_mix(h, c->is_sliding[i]);
    return add_rope(add_rope(h, &c->rope), &c->rope_sliding);
}

// First, middle and last row of a weight, as numbers: the same however it is stored in memory.
static bool add_rows(uint64_t *h, const mica_model_files *ck, const char *module, mica_error *err) {
    mica_weight w;
    if (!mica_checkpoint_has(ck, module)) return true;
    if (!mica_checkpoint_find(ck, module, -1, -1, &w, err)) return false;
    float *row = mica_alloc((size_t)w.in * sizeof *row);
    for (int i = 0; row && i < 3; i++) {
        mica_weight_row(&w, i * (w.out - 1) / 2, row);
        *h = mica_hash(row, (size_t)w.in * sizeof *row, *h);
    }
    bool ok = row || mica_fail_memory(err, (size_t)w.in * sizeof *row, "a row");
    mica_free(row);
    mica_weight_release(&w);
    return ok;
}

static bool add_layer(uint64_t *h, const mica_model_files *ck, int64_t layer, mica_error *err) {
    static const char *const modules[] = {"input_layernorm",  "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                          "self_attn.o_proj", "mlp.gate_proj",    "mlp.down_proj"};
    char name[128];
    for (size_t i = 0; i < MICA_COUNT(modules); i++) {
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, modules[i]);
        if (!add_rows(h, ck, name, err)) return false;
    }
    return true;
}

static bool add_checkpoint(uint64_t *h, const mica_model_files *ck, const mica_config *c, mica_error *err) {
    mica_checkpoint_stats st = mica_checkpoint_get_stats(ck);
    *h = mica_hash_mix(mica_hash_mix(mica_hash_mix(*h, st.bytes), st.parameters), st.tensors);
    return add_layer(h, ck, 0, err) && add_layer(h, ck, c->num_layers - 1, err);
}

bool mica_net_identity(const mica_net *net, uint64_t *identity, mica_error *err) {
    uint64_t h = add_config(0x6d696361u, net->config);
    if (net->checkpoint && !add_checkpoint(&h, net->checkpoint, net->config, err)) return false;
    if (!net->checkpoint) h = mica_hash_mix(h, (uint64_t)net->weight_bytes); // random weights of a shape are always the same
    *identity = h;
    return true;
}
