// SPDX-License-Identifier: Apache-2.0
// The parts of config.json that are not about shapes: end-of-text ids, sampling defaults, and which modules are
// quantised how. Overrides do not inherit the global quantisation: a missing mode is affine and missing fields are
// that mode's defaults, as mlx-lm reads them.
#include "io/config_internal.h"
#include <string.h>

// ---- eos ---------------------------------------------------------------------------------------------
static bool add_eos(mica_config *c, int64_t *ids, const mica_json *v, const char *what, mica_error *err) {
    if (v->type != MICA_JSON_INT || v->integer < 0 || v->integer >= 1 << 24)
        return mica_fail(err, MICA_ERR_FORMAT, "%s: \"eos_token_id\" must be a token id or a list of them", what);
    for (size_t i = 0; i < c->eos_count; i++)
        if (ids[i] == v->integer) return true;
    ids[c->eos_count++] = v->integer;
    return true;
}

bool mica_config_eos(mica_config *c, const mica_json *object, const char *what, bool *found, mica_error *err) {
    const mica_json *v = mica_json_get(object, "eos_token_id");
    *found = v != NULL;
    if (!v || v->type == MICA_JSON_NULL) return true;
    size_t more = v->type == MICA_JSON_ARRAY ? v->length : 1;
    int64_t *ids = more <= 4096 ? mica_arena_alloc(&c->arena, (c->eos_count + more) * sizeof *ids) : NULL;
    if (!ids) return more > 4096 ? mica_fail(err, MICA_ERR_FORMAT, "%s: \"eos_token_id\" lists %zu ids", what, more)
                                 : mica_fail_memory(err, more * sizeof *ids, "eos ids");
    for (size_t i = 0; i < c->eos_count; i++) ids[i] = c->eos_ids[i];
    c->eos_ids = ids;
    if (v->type != MICA_JSON_ARRAY) return add_eos(c, ids, v, what, err);
    for (const mica_json *e = v->child; e; e = e->next)
        if (!add_eos(c, ids, e, what, err)) return false;
    return true;
}

// ---- generation defaults -----------------------------------------------------------------------------
static bool read_sampling(const mica_json *root, const char *key, double low, double high, bool *has, float *out,
                          const char *what, mica_error *err) {
    double v;
    const mica_json *member = mica_json_get(root, key);
    *has = member && member->type != MICA_JSON_NULL;
    if (!mica_json_float(root, key, 0, &v, what, err)) return false;
    *out = (float)v;
    if (!*has || (v >= low && v <= high)) return true;
    return mica_fail(err, MICA_ERR_FORMAT, "%s: \"%s\" is %g, outside %g … %g", what, key, v, low, high);
}

bool mica_config_generation(mica_config *c, const mica_json *root, const char *what, mica_error *err) {
    mica_generation_defaults *g = &c->generation;
    if (root->type != MICA_JSON_OBJECT) return mica_fail(err, MICA_ERR_FORMAT, "%s: not a JSON object", what);
    const mica_json *sample = mica_json_get(root, "do_sample"), *top_k = mica_json_get(root, "top_k");
    int64_t k = 0;
    g->has_do_sample = sample && sample->type == MICA_JSON_BOOL;
    g->has_top_k = top_k && top_k->type != MICA_JSON_NULL;
    if (!mica_json_bool(root, "do_sample", false, &g->do_sample, what, err) || !mica_json_int(root, "top_k", 0, &k, what, err) ||
        !read_sampling(root, "temperature", 0, 1000, &g->has_temperature, &g->temperature, what, err) ||
        !read_sampling(root, "top_p", 0, 1, &g->has_top_p, &g->top_p, what, err) ||
        !read_sampling(root, "min_p", 0, 1, &g->has_min_p, &g->min_p, what, err) ||
        !read_sampling(root, "repetition_penalty", 1e-3, 1e3, &g->has_repetition_penalty, &g->repetition_penalty, what, err))
        return false;
    if (k < 0 || k > 1 << 24) return mica_fail(err, MICA_ERR_FORMAT, "%s: \"top_k\" is %lld", what, (long long)k);
    g->top_k = (int)k;
    return true;
}

// ---- quantisation ------------------------------------------------------------------------------------
static bool read_spec(const mica_config_reader *r, const mica_json *object, const char *where, mica_quant_spec *spec) {
    const char *name;
    mica_quant_mode mode;
    int64_t bits, group;
    if (!mica_json_string(object, "mode", "affine", &name, r->what, r->err)) return false;
    if (!mica_quant_mode_parse(name, &mode))
        return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: %s: unknown mode \"%s\"", r->what, where, name);
    *spec = mica_quant_default(mode);
    if (!mica_json_int(object, "bits", spec->bits, &bits, r->what, r->err) ||
        !mica_json_int(object, "group_size", spec->group_size, &group, r->what, r->err))
        return false;
    spec->bits = (int)MICA_MAX(0, MICA_MIN(bits, 1 << 20)), spec->group_size = (int)MICA_MAX(0, MICA_MIN(group, 1 << 20));
    return mica_quant_check(*spec, r->err) || mica_error_prefix(r->err, "%s: %s", r->what, where);
}

static bool is_override(const mica_json *v) { return v->type == MICA_JSON_OBJECT || v->type == MICA_JSON_BOOL; }

static bool read_overrides(const mica_config_reader *r, const mica_json *section) {
    mica_config *c = r->config;
    size_t n = 0;
    for (const mica_json *v = section->child; v; v = v->next) n += is_override(v);
    mica_quant_override *list = mica_arena_calloc(&c->arena, n * sizeof *list);
    if (!list) return mica_fail_memory(r->err, n * sizeof *list, "quantization overrides");
    c->overrides = list;
    for (const mica_json *v = section->child; v; v = v->next) {
        if (!is_override(v)) continue;
        mica_quant_override *o = &list[c->override_count++];
        *o = (mica_quant_override){v->key, v->type == MICA_JSON_OBJECT || v->boolean, c->quant};
        if (v->type == MICA_JSON_OBJECT && !read_spec(r, v, v->key, &o->spec)) return false;
    }
    return true;
}

bool mica_config_quantization(const mica_config_reader *r) {
    const mica_json *section = mica_json_get(r->root, "quantization"), *other = mica_json_get(r->root, "quantization_config");
    if (!other || other->type == MICA_JSON_NULL) other = mica_json_get(r->text, "quantization_config");
    if (!section || section->type == MICA_JSON_NULL) section = other;
    if (!section || section->type == MICA_JSON_NULL) return true;
    if (section->type != MICA_JSON_OBJECT) return mica_fail(r->err, MICA_ERR_FORMAT, "%s: \"quantization\" is no object", r->what);
    const mica_json *method = mica_json_get(section, "quant_method");
    if (method && method->type == MICA_JSON_STRING)
        return mica_fail(r->err, MICA_ERR_UNSUPPORTED, "%s: \"quantization_config\": method \"%s\" is not supported (MLX's formats are)",
                         r->what, method->string);
    r->config->quantized = true;
    return read_spec(r, section, "quantization", &r->config->quant) && read_overrides(r, section);
}

int mica_config_quant(const mica_config *c, const char *module, mica_quant_spec *spec) {
    if (c->quantized) *spec = c->quant;
    for (size_t i = 0; i < c->override_count; i++) {
        if (strcmp(c->overrides[i].module, module)) continue;
        if (c->overrides[i].quantized) *spec = c->overrides[i].spec;
        return c->overrides[i].quantized;
    }
    return -1;
}
