// SPDX-License-Identifier: Apache-2.0
// Fuzzes config.json; a NUL byte separates it from generation_config.json. What is accepted must be safe to build from.
#include "io/config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool sane_rope(const mica_rope_config *r, int64_t half) {
    bool ok = isfinite(r->theta) && r->theta > 1 && isfinite(r->factor) && r->factor > 0 && isfinite(r->attention_factor) &&
              r->attention_factor > 0 && r->original_max_position > 0 && r->high_freq_factor > r->low_freq_factor;
    for (int64_t i = 0; ok && r->type == MICA_ROPE_LONGROPE && i < half; i++) ok = r->short_factor[i] > 0 && r->long_factor[i] > 0;
    return ok;
}

static void check(const mica_config *c) {
    bool ok = c->num_layers > 0 && c->num_heads > 0 && c->num_kv_heads > 0 && c->num_heads % c->num_kv_heads == 0 && c->head_dim > 0 &&
              c->head_dim % 2 == 0 && c->vocab_size > 0 && c->hidden_size > 0 && c->intermediate_size > 0 && c->max_position_embeddings > 0 &&
              c->rms_norm_eps >= 0 && c->query_scale > 0 && isfinite(c->query_scale) && c->sliding_window >= 0 &&
              sane_rope(&c->rope, c->head_dim / 2) && sane_rope(&c->rope_sliding, c->head_dim / 2);
    for (int64_t i = 0; ok && i < c->num_layers; i++) ok = c->is_sliding[i] == 0 || c->is_sliding[i] == 1;
    for (size_t i = 0; ok && i < c->eos_count; i++) ok = c->eos_ids[i] >= 0;
    for (size_t i = 0; ok && i < c->override_count; i++) ok = !c->overrides[i].quantized || mica_quant_check(c->overrides[i].spec, NULL);
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mica_config c;
    mica_error err = {0};
    uint64_t live = mica_alloc_get_stats().live;
    const uint8_t *cut = memchr(data, 0, size);
    size_t first = cut ? (size_t)(cut - data) : size;
    if (mica_config_parse(&c, (const char *)data, first, cut ? (const char *)cut + 1 : NULL, cut ? size - first - 1 : 0, "config.json", &err)) {
        check(&c);
        mica_config_free(&c);
    } else if (!err.msg[0] || err.code == MICA_OK) {
        abort();
    }
    if (mica_alloc_get_stats().live != live) abort();
    return 0;
}
