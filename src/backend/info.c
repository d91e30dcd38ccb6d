// SPDX-License-Identifier: Apache-2.0
// What a model is and needs, read from its config and files without loading weights.
#include "backend/info.h"
#include "backend/template_load.h"
#include "base/file.h"
#include "base/json.h"
#include "infer/internal.h"
#include "io/gguf.h"
#include <stdio.h>
#include <string.h>

static int64_t kv_bytes(const mica_config *c, bool sliding, mica_dtype dtype) {
    int64_t layers = 0, row = c->head_dim * (int64_t)mica_dtype_size(dtype) + (dtype == MICA_I8 ? (int64_t)sizeof(float) : 0);
    for (int64_t i = 0; i < c->num_layers; i++) layers += mica_layer_group(c, i) == sliding;
    return layers * 2 * c->num_kv_heads * row;
}

static int64_t whole_pages(int64_t positions) { return (positions + MICA_PAGE - 1) / MICA_PAGE * MICA_PAGE; }

// Positions that a layer with a window holds at most: a chunk that is being computed, and what its first token sees.
static int64_t window_positions(int64_t window) { return MICA_CHUNK + whole_pages(window - 1); }

void mica_info_set_kv(const mica_config *c, mica_dtype dtype, mica_info *info) {
    info->kv_bytes_per_token = kv_bytes(c, false, dtype);
    info->kv_bytes_window = c->sliding_window ? kv_bytes(c, true, dtype) * window_positions(c->sliding_window) : 0;
}

// Dynamic scaling is there to go beyond the trained length.
static int32_t context_length(const mica_config *c) {
    double factor = c->rope.type == MICA_ROPE_DYNAMIC ? c->rope.factor : 1;
    return (int32_t)MICA_MIN((double)c->max_position_embeddings * factor, (double)INT32_MAX);
}

void mica_info_from_config(const mica_config *c, mica_info *info) {
    *info = (mica_info){.vocab_size = (int32_t)c->vocab_size, .num_layers = (int32_t)c->num_layers, .hidden_size = (int32_t)c->hidden_size,
                        .intermediate_size = (int32_t)c->intermediate_size, .num_heads = (int32_t)c->num_heads,
                        .num_kv_heads = (int32_t)c->num_kv_heads, .head_dim = (int32_t)c->head_dim,
                        .context_length = context_length(c), .sliding_window = (int32_t)c->sliding_window};
    snprintf(info->architecture, sizeof info->architecture, "%s", c->model_type);
    if (c->quantized) {
        info->quant_bits = c->quant.bits, info->quant_group = c->quant.group_size;
        snprintf(info->quant_mode, sizeof info->quant_mode, "%s", mica_quant_mode_name(c->quant.mode));
    }
    mica_dtype dtype = c->has_dtype ? c->dtype : MICA_BF16;
    snprintf(info->dtype, sizeof info->dtype, "%s", mica_dtype_name(dtype));
    mica_info_set_kv(c, dtype, info);
}

// What a weight in blocks takes more than in the file: its codes are packed, with a scale and a bias for each group.
static int64_t unpacked_more(const mica_model_files *ck, const char *module) {
    mica_weight w;
    if (!mica_checkpoint_has(ck, module) || !mica_checkpoint_view(ck, module, -1, -1, &w, NULL)) return 0;
    int64_t weights = w.out * w.in, more = 0;
    if (w.quantized && w.blocks.read)
        more = weights * w.spec.bits / 8 + weights / w.spec.group_size * 2 * (int64_t)mica_dtype_size(w.scales.dtype) -
               w.out * (int64_t)w.blocks.row_bytes;
    mica_weight_release(&w);
    return more;
}

static int64_t all_unpacked_more(const mica_model_files *ck) {
    static const char *const modules[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                          "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    int64_t more = unpacked_more(ck, "model.embed_tokens") + unpacked_more(ck, "lm_head");
    for (int64_t i = 0; i < mica_checkpoint_config(ck)->num_layers; i++)
        for (size_t k = 0; k < MICA_COUNT(modules); k++) {
            char name[128];
            snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)i, modules[k]);
            more += unpacked_more(ck, name);
        }
    return more;
}

void mica_info_from_checkpoint(const mica_model_files *ck, mica_info *info) {
    mica_info_from_config(mica_checkpoint_config(ck), info);
    mica_checkpoint_stats st = mica_checkpoint_get_stats(ck);
    info->parameters = (int64_t)st.parameters;
    info->bytes_on_disk = info->weight_bytes = (int64_t)st.bytes;
    if (mica_checkpoint_gguf(ck)) info->weight_bytes += all_unpacked_more(ck);
    info->has_chat_template = mica_template_present(ck);
    mica_weight w;
    // The file's own word on quantisation is optional: the first layer's weight tells.
    if (!info->quant_bits && mica_checkpoint_view(ck, "model.layers.0.self_attn.q_proj", -1, -1, &w, NULL)) {
        if (w.quantized) {
            info->quant_bits = w.spec.bits, info->quant_group = w.spec.group_size;
            snprintf(info->quant_mode, sizeof info->quant_mode, "%s", mica_quant_mode_name(w.spec.mode));
        }
        mica_weight_release(&w);
    }
}

bool mica_info_read(const char *path, mica_info *info, mica_error *err) {
    mica_model_files *ck = mica_checkpoint_open(path, err);
    if (!ck) return false;
    mica_info_from_checkpoint(ck, info);
    mica_checkpoint_free(ck);
    return true;
}

// What a piece of a prompt needs while it is computed: the state and its normed copy, the widest intermediate result and its packed copy, and the
// logits of the last position.
static int64_t working_bytes(const mica_info *i, int32_t context) {
    int64_t rows = MICA_MIN(MICA_MAX(context, 1), MICA_CHUNK), size = strcmp(i->dtype, "f32") == 0 ? 4 : 2;
    int64_t wide = MICA_MAX((int64_t)i->intermediate_size, ((int64_t)i->num_heads + 2 * i->num_kv_heads) * i->head_dim);
    return rows * size * 2 * (i->hidden_size + wide) + (int64_t)i->vocab_size * 4;
}

int64_t mica_info_memory(const mica_info *info, int32_t context) { return mica_info_kept_memory(info, context) + working_bytes(info, context); }

int64_t mica_info_kept_memory(const mica_info *info, int32_t context) {
    int64_t most = info->sliding_window ? window_positions(info->sliding_window) : 1, sliding = info->kv_bytes_window / most;
    return info->weight_bytes + info->adapter_bytes + info->kv_bytes_per_token * whole_pages(context) + sliding * MICA_MIN(whole_pages(context), most);
}
