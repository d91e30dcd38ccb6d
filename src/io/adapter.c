// SPDX-License-Identifier: Apache-2.0
// Reading adapters: the config tells the scale, the tensors' names the modules. Whatever is in the file and not understood is refused:
// an adapter that is applied in part is a wrong model.
#include "io/adapter.h"
#include "base/file.h"
#include "base/json.h"
#include "io/safetensors.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum form { MLX_LM, PEFT, GO_MLX } form;

// What the config says.
typedef struct settings {
    form form;
    const char *path; // of the config, or of the tensors where there is none
    double scale;     // MLX_LM
    double alpha;     // PEFT, GO_MLX: scale is alpha / r, or alpha / √r
    bool root;
    const mica_json *alpha_pattern; // PEFT: module or its end → alpha
} settings;

// ---- config ---------------------------------------------------------------------------------------------
static bool read_mlx_lm(const mica_json *config, settings *s, mica_error *err) {
    const char *type;
    const mica_json *lora = mica_json_get(config, "lora_parameters");
    if (!mica_json_string(config, "fine_tune_type", "lora", &type, s->path, err)) return false;
    if (strcmp(type, "lora") != 0 && strcmp(type, "dora") != 0)
        return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: fine_tune_type \"%.40s\" is no adapter of kind lora or dora", s->path, type);
    if (!lora || lora->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: no lora_parameters", s->path);
    return mica_json_float(lora, "scale", 20, &s->scale, s->path, err);
}

static bool read_peft(const mica_json *config, settings *s, mica_error *err) {
    static const char *const refused[] = {"modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters"};
    const char *type, *bias;
    bool lora_bias, fan_in_fan_out;
    if (!mica_json_string(config, "peft_type", "LORA", &type, s->path, err) || !mica_json_string(config, "bias", "none", &bias, s->path, err) ||
        !mica_json_float(config, "lora_alpha", 8, &s->alpha, s->path, err) || !mica_json_bool(config, "use_rslora", false, &s->root, s->path, err) ||
        !mica_json_bool(config, "lora_bias", false, &lora_bias, s->path, err) ||
        !mica_json_bool(config, "fan_in_fan_out", false, &fan_in_fan_out, s->path, err))
        return false;
    if (strcmp(type, "LORA") != 0) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: peft_type \"%.40s\" is not LORA", s->path, type);
    if (strcmp(bias, "none") != 0 || lora_bias) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: trained biases are not supported", s->path);
    if (fan_in_fan_out) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: fan_in_fan_out is not supported", s->path);
    for (size_t i = 0; i < MICA_COUNT(refused); i++) {
        const mica_json *v = mica_json_get(config, refused[i]);
        if (v && v->type != MICA_JSON_NULL && v->length) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: %s is not supported", s->path, refused[i]);
    }
    s->alpha_pattern = mica_json_get(config, "alpha_pattern");
    return true;
}

// ---- names ----------------------------------------------------------------------------------------------
typedef enum role { ROLE_NONE, ROLE_A, ROLE_B, ROLE_MAGNITUDE, ROLE_BASE } role;
static const struct { form form; const char *end; role role; bool embedding; } endings[] = {
    {MLX_LM, ".lora_a", ROLE_A, false}, {MLX_LM, ".lora_b", ROLE_B, false}, {MLX_LM, ".m", ROLE_MAGNITUDE, false},
    {GO_MLX, ".lora_a", ROLE_A, false}, {GO_MLX, ".lora_b", ROLE_B, false},
    {PEFT, ".lora_A.weight", ROLE_A, false}, {PEFT, ".lora_B.weight", ROLE_B, false},
    {PEFT, ".lora_embedding_A", ROLE_A, true}, {PEFT, ".lora_embedding_B", ROLE_B, true},
    {PEFT, ".base_layer.weight", ROLE_BASE, false}, {PEFT, ".lora_magnitude_vector", ROLE_MAGNITUDE, false}, {PEFT, ".lora_magnitude_vector.weight", ROLE_MAGNITUDE, false},
};

// Splits a tensor's name into module and role; prefixes that wrappers put in front of the model's own names are left out.
static role split_name(const char *name, form f, char *module, size_t size, bool *embedding) {
    size_t n = strlen(name);
    for (size_t i = 0; i < MICA_COUNT(endings); i++) {
        size_t m = strlen(endings[i].end);
        if (endings[i].form != f || n <= m || strcmp(name + n - m, endings[i].end) != 0) continue;
        static const char *const starts[] = {"layers.", "embed_tokens", "lm_head"};
        for (size_t k = 0; k < MICA_COUNT(starts); k++) {
            const char *at = strstr(name, starts[k]);
            if (!at || (at != name && at[-1] != '.')) continue;
            snprintf(module, size, "%s%.*s", k == 2 ? "" : "model.", (int)(n - m - (size_t)(at - name)), at);
            *embedding = endings[i].embedding;
            return endings[i].role;
        }
    }
    return ROLE_NONE;
}

static mica_adapter_part *part_of(mica_adapter *a, size_t *capacity, const char *module, mica_error *err) {
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->parts[i].module, module) == 0) return &a->parts[i];
    if (!mica_grow(&a->parts, capacity, a->count + 1, sizeof *a->parts))
        return mica_fail_memory(err, (a->count + 1) * sizeof *a->parts, "an adapter"), NULL;
    mica_adapter_part *p = &a->parts[a->count++];
    *p = (mica_adapter_part){0};
    snprintf(p->module, sizeof p->module, "%s", module);
    return p;
}

static bool collect(mica_adapter *a, form f, mica_error *err) {
    size_t capacity = 0;
    for (size_t i = 0; i < mica_safetensors_count(a->tensors); i++) {
        const mica_stored *t = mica_safetensors_at(a->tensors, i);
        const char *file = mica_safetensors_file(a->tensors, t);
        char module[sizeof a->parts->module];
        bool embedding = false, magnitude;
        role r = split_name(t->name, f, module, sizeof module, &embedding);
        if (!r) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: tensor \"%.100s\" belongs to no LoRA adapter", file, t->name);
        magnitude = r == ROLE_MAGNITUDE;
        if (t->dtype != MICA_F32 && t->dtype != MICA_BF16 && t->dtype != MICA_F16)
            return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: %.100s has type %s", file, t->name, mica_dtype_name(t->dtype));
        if (t->ndim != (magnitude ? 1 : 2)) return mica_fail(err, MICA_ERR_FORMAT, "%s: %.100s has %d dimensions", file, t->name, t->ndim);
        mica_adapter_part *p = part_of(a, &capacity, module, err);
        if (!p) return false;
        const mica_stored **places[] = {[ROLE_A] = &p->a, [ROLE_B] = &p->b, [ROLE_MAGNITUDE] = &p->magnitude, [ROLE_BASE] = &p->base};
        *places[r] = t;
        p->input_only |= embedding;
    }
    return a->count > 0 || mica_fail(err, MICA_ERR_FORMAT, "the adapter has no tensors");
}

// ---- parts ----------------------------------------------------------------------------------------------
static bool ends_module(const char *module, const char *key) {
    size_t n = strlen(module), m = strlen(key);
    return n >= m && strcmp(module + n - m, key) == 0 && (n == m || module[n - m - 1] == '.');
}

static bool set_scale(const settings *s, mica_adapter_part *p, int64_t rank, mica_error *err) {
    double alpha = s->alpha;
    for (const mica_json *k = s->alpha_pattern ? s->alpha_pattern->child : NULL; k; k = k->next)
        if (ends_module(p->module, k->key) && (k->type == MICA_JSON_INT || k->type == MICA_JSON_FLOAT)) alpha = k->number;
    p->scale = (float)(s->form == MLX_LM ? s->scale : s->root ? alpha / sqrt((double)rank) : alpha / (double)rank);
    return isfinite(p->scale) || mica_fail(err, MICA_ERR_FORMAT, "%s: the scale of %s is not finite", s->path, p->module);
}

static bool finish_part(const settings *s, mica_adapter_part *p, mica_error *err) {
    if (!p->a || !p->b) return mica_fail(err, MICA_ERR_FORMAT, "%s: %s has only one of its two matrices", s->path, p->module);
    p->transposed = s->form != MLX_LM;
    int64_t rank = p->transposed ? p->a->shape[0] : p->a->shape[1], other = p->transposed ? p->b->shape[1] : p->b->shape[0];
    char a[64], b[64];
    if (rank < 1 || rank != other)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: %s: matrices of %s and %s do not fit together", s->path, p->module,
                         mica_stored_shape(p->a, a, sizeof a), mica_stored_shape(p->b, b, sizeof b));
    return set_scale(s, p, rank, err);
}

// Without a config: go-mlx's alpha is 16, unless the file's metadata says otherwise.
static void read_go_mlx(const mica_adapter *a, settings *s) {
    const char *alpha = mica_safetensors_metadata(a->tensors, "alpha");
    double v;
    s->alpha = alpha && sscanf(alpha, "%lf", &v) == 1 && v > 0 ? v : 16;
}

static bool open_with(mica_adapter *a, settings *s, const char *tensors, const mica_json *config, mica_error *err) {
    if (s->form != GO_MLX && (!config || config->type != MICA_JSON_OBJECT)) return mica_fail(err, MICA_ERR_FORMAT, "%s: no JSON object", s->path);
    if (s->form == PEFT && !read_peft(config, s, err)) return false;
    if (s->form == MLX_LM && !read_mlx_lm(config, s, err)) return false;
    a->tensors = mica_safetensors_open(tensors, err);
    if (!a->tensors) return false;
    if (s->form == GO_MLX) read_go_mlx(a, s);
    if (!collect(a, s->form, err)) return false;
    for (size_t i = 0; i < a->count; i++)
        if (!finish_part(s, &a->parts[i], err)) return false;
    return true;
}

// Which files there are tells the form.
static bool choose(const char *path, char *file, size_t size, settings *s, mica_error *err) {
    static const struct { const char *file; form form; } known[] = {{"adapter_model.safetensors", PEFT}, {"adapters.safetensors", MLX_LM}};
    if (mica_is_file(path)) return s->form = GO_MLX, snprintf(file, size, "%s", path) < (int)size;
    for (size_t i = 0; i < MICA_COUNT(known); i++) {
        snprintf(file, size, "%s/%s", path, known[i].file);
        s->form = known[i].form;
        if (mica_is_file(file)) return true;
    }
    return mica_fail(err, MICA_ERR_IO, "%s: no adapter here: neither adapters.safetensors nor adapter_model.safetensors", path);
}

bool mica_adapter_open(mica_adapter *a, const char *path, mica_error *err) {
    *a = (mica_adapter){0};
    char file[4096], config_path[4096];
    settings s = {0};
    if (!choose(path, file, sizeof file, &s, err)) return false;
    snprintf(config_path, sizeof config_path, "%s/adapter_config.json", path);
    if (!mica_is_file(config_path) && s.form == MLX_LM) s.form = GO_MLX;
    s.path = s.form == GO_MLX ? file : config_path;
    mica_buf text = {0};
    mica_arena arena = {0};
    const mica_json *config = NULL;
    bool ok = s.form == GO_MLX || (mica_file_read(config_path, (size_t)16 << 20, &text, err) &&
                                   (config = mica_json_parse(&arena, text.data, text.len, config_path, err)));
    ok = ok && open_with(a, &s, file, config, err);
    mica_arena_free(&arena);
    mica_buf_free(&text);
    if (!ok) mica_adapter_close(a);
    return ok;
}

void mica_adapter_close(mica_adapter *a) {
    mica_safetensors_free(a->tensors);
    mica_free(a->parts);
    *a = (mica_adapter){0};
}

mica_adapter_part *mica_adapter_find(const mica_adapter *a, const char *module) {
    for (size_t i = 0; a && i < a->count; i++)
        if (strcmp(a->parts[i].module, module) == 0) return &a->parts[i];
    return NULL;
}
