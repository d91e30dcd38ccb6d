// SPDX-License-Identifier: Apache-2.0
// Networks with random weights at real shapes, to measure speed where no checkpoint is at hand. Weights are small, so that
// activations stay finite; their values do not matter otherwise.
#include "base/rng.h"
#include "base/half.h"
#include "model/net.h"
#include <math.h>
#include <string.h>

static const struct { const char *name, *config; } shapes[] = {
    {"gemma3-270m", "{\"model_type\":\"gemma3_text\",\"hidden_size\":640,\"num_hidden_layers\":18,\"num_attention_heads\":4,\"num_key_value_heads\":1,"
                    "\"head_dim\":256,\"intermediate_size\":2048,\"vocab_size\":262144,\"sliding_window\":512,\"max_position_embeddings\":32768}"},
    {"gemma3-1b", "{\"model_type\":\"gemma3_text\",\"hidden_size\":1152,\"num_hidden_layers\":26,\"num_attention_heads\":4,\"num_key_value_heads\":1,"
                  "\"head_dim\":256,\"intermediate_size\":6912,\"vocab_size\":262144,\"sliding_window\":512,\"max_position_embeddings\":32768}"},
    {"gemma3-4b", "{\"model_type\":\"gemma3_text\",\"hidden_size\":2560,\"num_hidden_layers\":34,\"num_attention_heads\":8,\"num_key_value_heads\":4,"
                  "\"head_dim\":256,\"intermediate_size\":10240,\"vocab_size\":262208,\"sliding_window\":1024,\"max_position_embeddings\":131072}"},
    {"qwen2.5-0.5b", "{\"model_type\":\"qwen2\",\"hidden_size\":896,\"num_hidden_layers\":24,\"num_attention_heads\":14,\"num_key_value_heads\":2,"
                     "\"intermediate_size\":4864,\"vocab_size\":151936,\"rope_theta\":1000000,\"tie_word_embeddings\":true,\"max_position_embeddings\":32768}"},
    {"qwen3-0.6b", "{\"model_type\":\"qwen3\",\"hidden_size\":1024,\"num_hidden_layers\":28,\"num_attention_heads\":16,\"num_key_value_heads\":8,"
                   "\"head_dim\":128,\"intermediate_size\":3072,\"vocab_size\":151936,\"rope_theta\":1000000,\"tie_word_embeddings\":true,"
                   "\"max_position_embeddings\":40960}"},
    {"qwen3-1.7b", "{\"model_type\":\"qwen3\",\"hidden_size\":2048,\"num_hidden_layers\":28,\"num_attention_heads\":16,\"num_key_value_heads\":8,"
                   "\"head_dim\":128,\"intermediate_size\":6144,\"vocab_size\":151936,\"rope_theta\":1000000,\"tie_word_embeddings\":true,"
                   "\"max_position_embeddings\":40960}"},
    {"smollm2-135m", "{\"model_type\":\"llama\",\"hidden_size\":576,\"num_hidden_layers\":30,\"num_attention_heads\":9,\"num_key_value_heads\":3,"
                     "\"intermediate_size\":1536,\"vocab_size\":49152,\"rope_theta\":100000,\"tie_word_embeddings\":true,\"max_position_embeddings\":8192}"},
    {"llama3.2-1b", "{\"model_type\":\"llama\",\"hidden_size\":2048,\"num_hidden_layers\":16,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
                    "\"head_dim\":64,\"intermediate_size\":8192,\"vocab_size\":128256,\"rope_theta\":500000,\"tie_word_embeddings\":true,"
                    "\"max_position_embeddings\":131072}"},
    {"llama3.1-8b", "{\"model_type\":\"llama\",\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
                    "\"intermediate_size\":14336,\"vocab_size\":128256,\"rope_theta\":500000,\"tie_word_embeddings\":false,"
                    "\"max_position_embeddings\":131072}"},
};

typedef struct random_source {
    const mica_net *net;
    int bits;
    int64_t weights; // viewed so far
    uint64_t state;
} random_source;

enum { GROUP = 64 };

static uint64_t draw(random_source *r) { // xorshift64: only speed matters here
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    return r->state ^= r->state << 17;
}

static bool has(void *ctx, const char *module) {
    random_source *r = ctx;
    return strcmp(module, "lm_head") || !r->net->config->tie_word_embeddings;
}

static void fill_dense(random_source *r, uint16_t *w, size_t n, float scale, float add) {
    for (size_t i = 0; i < n; i++) w[i] = mica_f32_to_bf16(((float)(draw(r) >> 40) * 0x1p-23f - 1) * scale + add);
}

static mica_stored stored(mica_dtype dtype, int64_t rows, int64_t columns, void *data) {
    mica_stored t = {.name = "random", .dtype = dtype, .ndim = rows ? 2 : 1, .data = data};
    if (rows) t.shape[0] = rows, t.shape[1] = columns;
    else t.shape[0] = columns;
    t.bytes = mica_stored_count(&t) * mica_dtype_size(dtype);
    return t;
}

static void set_halves(uint16_t *to, size_t n, float value) {
    for (size_t i = 0; i < n; i++) to[i] = mica_f32_to_bf16(value);
}

// Codes are uniform in 0…2^bits-1: centre them, and give weights a spread of about 1/sqrt(in).
static bool read_random(const mica_quant_blocks *b, mica_dtype scale_dtype, size_t row, size_t first, size_t n, uint8_t *codes, void *scales,
                        void *biases) {
    (void)scale_dtype; // bf16, as find says
    random_source r = {.state = mica_hash_mix((uint64_t)b->heads << 40 ^ row, first) | 1};
    uint64_t mask = 0x0101010101010101u * ((1u << b->type) - 1);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t eight = draw(&r) & mask;
        memcpy(codes + i, &eight, 8);
    }
    float top = (float)((1 << b->type) - 1), scale = 3.4f / (sqrtf((float)b->row_bytes) * top);
    set_halves(scales, n / GROUP, scale);
    set_halves(biases, n / GROUP, -scale * top / 2);
    return true;
}

static void view_quantized(random_source *r, int64_t out, int64_t in, mica_weight *w) {
    w->quantized = true;
    w->spec = (mica_quant_spec){MICA_AFFINE, r->bits, GROUP};
    w->weight = stored(MICA_U32, out, in * r->bits / 32, NULL);
    w->scales = w->biases = stored(MICA_BF16, out, in / GROUP, NULL);
    w->blocks = (mica_quant_blocks){.read = read_random, .row_bytes = (size_t)in, .rows = out, .heads = r->weights++, .type = r->bits};
}

static bool view(void *ctx, const char *module, int64_t out, int64_t in, mica_weight *w, mica_error *err) {
    random_source *r = ctx;
    bool vector = out == 0;
    size_t count = (size_t)(MICA_MAX(out, (int64_t)1) * in);
    *w = (mica_weight){.out = MICA_MAX(out, (int64_t)1), .in = in};
    if (r->bits && !vector) return view_quantized(r, out, in, w), true;
    if (!(w->owned = mica_alloc(count * 2))) return mica_fail_memory(err, count * 2, module);
    float add = vector && r->net->arch->norm_add == 0 ? 1 : 0;
    fill_dense(r, w->owned, count, vector ? 0.05f : 1.7f / sqrtf((float)in), add);
    w->weight = stored(MICA_BF16, out, in, w->owned);
    return true;
}

static void rest(void *ctx) { (void)ctx; }

static const char *find_shape(const char *shape, mica_error *err) {
    mica_buf known = {0};
    for (size_t i = 0; i < MICA_COUNT(shapes); i++) {
        if (!strcmp(shapes[i].name, shape)) return mica_buf_free(&known), shapes[i].config;
        mica_buf_printf(&known, i ? ", %s" : "%s", shapes[i].name);
    }
    mica_fail(err, MICA_ERR_ARGUMENT, "unknown shape \"%s\"; known: %s", shape, known.data ? known.data : "");
    mica_buf_free(&known);
    return NULL;
}

mica_net *mica_net_random(const char *shape, int bits, mica_device *device, mica_error *err) {
    const char *text = find_shape(shape, err);
    if (!text || (bits && !mica_quant_check((mica_quant_spec){MICA_AFFINE, bits, 64}, err))) return NULL;
    mica_net *net = mica_calloc(1, sizeof *net);
    if (net) net->own_config = mica_calloc(1, sizeof *net->own_config);
    if (!net || !net->own_config) mica_fail_memory(err, sizeof *net, "a network");
    else if (mica_config_parse(net->own_config, text, strlen(text), NULL, 0, shape, err)) {
        net->config = net->own_config;
        net->device = device;
        random_source r = {.net = net, .bits = bits, .state = 88172645463325252u};
        if (mica_net_fill(net, (mica_source){&r, has, view, rest}, NULL, err)) return net;
    }
    mica_net_free(net);
    return NULL;
}
