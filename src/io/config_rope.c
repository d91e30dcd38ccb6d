// SPDX-License-Identifier: Apache-2.0
// Rotary embedding settings in all their spellings. transformers >= 5 writes rope_parameters, flat or (Gemma 3) one
// object per layer type; older files write rope_theta, rope_scaling (with "type" or "rope_type") and
// rope_local_base_freq. Both end in one mica_rope_config per kind of layer. Source: modeling_rope_utils.py.
#include "io/config_internal.h"
#include <math.h>
#include <string.h>

static const char *const type_names[] = {
    [MICA_ROPE_NONE] = "default", [MICA_ROPE_LINEAR] = "linear", [MICA_ROPE_DYNAMIC] = "dynamic",
    [MICA_ROPE_YARN] = "yarn", [MICA_ROPE_LLAMA3] = "llama3", [MICA_ROPE_LONGROPE] = "longrope"};

const char *mica_rope_type_name(mica_rope_type type) { return type_names[type]; }

static double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

double mica_rope_attention_factor(const mica_rope_config *rope) {
    if (rope->type == MICA_ROPE_YARN) {
        if (rope->mscale != 0 && rope->mscale_all_dim != 0)
            return yarn_mscale(rope->factor, rope->mscale) / yarn_mscale(rope->factor, rope->mscale_all_dim);
        return yarn_mscale(rope->factor, 1);
    }
    if (rope->type == MICA_ROPE_LONGROPE && rope->factor > 1)
        return sqrt(1 + log(rope->factor) / log((double)rope->original_max_position));
    return 1;
}

static bool read_type(const mica_config_reader *r, const mica_json *object, mica_rope_type *type) {
    const char *name;
    if (!mica_json_string(object, "type", "default", &name, r->what, r->err) ||
        !mica_json_string(object, "rope_type", name, &name, r->what, r->err))
        return false;
    for (size_t i = 0; i < MICA_COUNT(type_names); i++)
        if (!strcmp(name, type_names[i])) return *type = (mica_rope_type)i, true;
    return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: \"rope_type\": unknown scaling \"%s\"", r->what, name);
}

static const mica_json *non_null(const mica_json *object, const char *key) {
    const mica_json *v = mica_json_get(object, key);
    return v && v->type != MICA_JSON_NULL ? v : NULL;
}

static bool read_factors(const mica_config_reader *r, const mica_json *object, const char *key, const float **out) {
    const mica_json *list = mica_json_get(object, key);
    size_t want = (size_t)r->config->head_dim / 2, i = 0;
    if (!list || list->type != MICA_JSON_ARRAY || list->length != want)
        return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"%s\" must list %zu numbers (head_dim/2)", r->what, key, want);
    float *values = mica_arena_alloc(&r->config->arena, want * sizeof *values);
    if (!values) return mica_fail_memory(r->err, want * sizeof *values, key);
    for (const mica_json *v = list->child; v; v = v->next, i++) {
        bool number = v->type == MICA_JSON_INT || v->type == MICA_JSON_FLOAT;
        if (!number || !(v->number > 1e-6 && v->number < 1e9))
            return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"%s\"[%zu] is no sane factor", r->what, key, i);
        values[i] = (float)v->number;
    }
    *out = values;
    return true;
}

// The context the model was trained for: a field beside the rope object wins over one inside it.
static bool read_original(const mica_config_reader *r, const mica_json *object, mica_rope_config *rope) {
    static const char key[] = "original_max_position_embeddings";
    const mica_json *holder = non_null(r->text, key) ? r->text : object;
    int64_t limit = (int64_t)1 << 40;
    if (!mica_json_int(holder, key, r->config->max_position_embeddings, &rope->original_max_position, r->what, r->err)) return false;
    if (rope->original_max_position >= 2 && rope->original_max_position <= limit) return true;
    return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"%s\" is %lld", r->what, key, (long long)rope->original_max_position);
}

static bool read_factor(const mica_config_reader *r, const mica_json *object, mica_rope_config *rope) {
    bool derived = rope->type == MICA_ROPE_LONGROPE || rope->type == MICA_ROPE_YARN;
    double ratio = (double)r->config->max_position_embeddings / (double)rope->original_max_position;
    if (!derived && !non_null(object, "factor"))
        return mica_fail(r->err, MICA_ERR_FORMAT, "%s: rope scaling \"%s\" without \"factor\"", r->what, type_names[rope->type]);
    return mica_config_number(r, object, "factor", ratio, 1e-3, 1e6, &rope->factor);
}

static bool read_scaling(const mica_config_reader *r, const mica_json *object, mica_rope_config *rope) {
    if (rope->type == MICA_ROPE_NONE) return true;
    bool trained = rope->type == MICA_ROPE_YARN || rope->type == MICA_ROPE_LLAMA3 || rope->type == MICA_ROPE_LONGROPE;
    if ((trained && !read_original(r, object, rope)) || !read_factor(r, object, rope)) return false;
    bool ok = true, truncate = true;
    if (rope->type == MICA_ROPE_LLAMA3) {
        ok = mica_config_number(r, object, "low_freq_factor", 1, 1e-3, 1e6, &rope->low_freq_factor) &&
             mica_config_number(r, object, "high_freq_factor", 4, 1e-3, 1e6, &rope->high_freq_factor);
        if (ok && !(rope->high_freq_factor > rope->low_freq_factor))
            ok = mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"high_freq_factor\" is not above \"low_freq_factor\"", r->what);
    } else if (rope->type == MICA_ROPE_YARN) {
        ok = mica_config_number(r, object, "beta_fast", 32, 0, 1e6, &rope->beta_fast) &&
             mica_config_number(r, object, "beta_slow", 1, 0, 1e6, &rope->beta_slow) &&
             mica_config_number(r, object, "mscale", 0, 0, 1e3, &rope->mscale) &&
             mica_config_number(r, object, "mscale_all_dim", 0, 0, 1e3, &rope->mscale_all_dim) &&
             mica_json_bool(object, "truncate", true, &truncate, r->what, r->err);
        if (rope->beta_fast == 0) rope->beta_fast = 32; // 0 means unset to transformers
        if (rope->beta_slow == 0) rope->beta_slow = 1;
        rope->no_truncate = !truncate;
    } else if (rope->type == MICA_ROPE_LONGROPE) {
        ok = read_factors(r, object, "short_factor", &rope->short_factor) && read_factors(r, object, "long_factor", &rope->long_factor);
    }
    if (!ok || (rope->type != MICA_ROPE_YARN && rope->type != MICA_ROPE_LONGROPE)) return ok;
    return mica_config_number(r, object, "attention_factor", mica_rope_attention_factor(rope), 1e-3, 1e3, &rope->attention_factor);
}

// object: the rope settings of one kind of layer, may be NULL. theta: what holds when it has no rope_theta.
static bool read_rope(const mica_config_reader *r, const mica_json *object, double theta, mica_rope_config *rope) {
    double partial;
    *rope = (mica_rope_config){.factor = 1, .attention_factor = 1, .low_freq_factor = 1, .high_freq_factor = 4, .beta_fast = 32,
                               .beta_slow = 1, .original_max_position = r->config->max_position_embeddings};
    if (object && object->type != MICA_JSON_OBJECT)
        return mica_fail(r->err, MICA_ERR_FORMAT, "%s: rope settings are no object", r->what);
    if (!read_type(r, object, &rope->type) || !mica_config_number(r, object, "rope_theta", theta, 1.0001, 1e12, &rope->theta) ||
        !mica_config_number(r, object, "partial_rotary_factor", 1, 0, 1, &partial))
        return false;
    if (partial != 1) return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: \"partial_rotary_factor\" %g is not supported", r->what, partial);
    return read_scaling(r, object, rope);
}

bool mica_config_rope(const mica_config_reader *r) {
    mica_config *c = r->config;
    bool gemma = c->arch == MICA_ARCH_GEMMA3;
    const mica_json *scaling = non_null(r->text, "rope_scaling"), *parameters = non_null(r->text, "rope_parameters");
    if (scaling && scaling->type == MICA_JSON_OBJECT && !scaling->length) scaling = NULL;
    const mica_json *full = scaling ? scaling : parameters, *sliding = NULL;
    // Nested per kind of layer; a rope_scaling beside it belongs to full attention.
    const mica_json *nested_full = non_null(parameters, "full_attention"), *nested_sliding = non_null(parameters, "sliding_attention");
    if (nested_full || nested_sliding) {
        if (!scaling) full = nested_full;
        sliding = nested_sliding;
    }
    double theta, local, given;
    if (!mica_config_number(r, r->text, "rope_theta", gemma ? 1e6 : 1e4, 1.0001, 1e12, &theta) ||
        !mica_config_number(r, r->text, "rope_local_base_freq", 1e4, 1.0001, 1e12, &local) ||
        !mica_config_number(r, nested_full, "rope_theta", theta, 1.0001, 1e12, &given) || !read_rope(r, full, given, &c->rope))
        return false;
    if (gemma) return read_rope(r, sliding, local, &c->rope_sliding);
    if (sliding) return read_rope(r, sliding, theta, &c->rope_sliding);
    c->rope_sliding = c->rope;
    return true;
}
