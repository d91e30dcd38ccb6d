// SPDX-License-Identifier: Apache-2.0
// Fresh adapters for training, in mlx-lm's form: a [in, r] uniform, b [r, out] zero, so that training starts at the model itself. The numbers
// are a function of seed and module name: which other modules are adapted does not change them.
#include "base/rng.h"
#include "engine/scope.h"
#include "mica/ops.h"
#include "model/training.h"
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct attaching {
    const mica_lora_spec *spec;
    mica_scope *s;
    bool *matched; // [target_count]
    mica_error *err;
} attaching;

static bool wanted(const attaching *w, const char *name) {
    const char *last = strrchr(name, '.') ? strrchr(name, '.') + 1 : name;
    bool any = !w->spec->target_count && last != name;
    for (size_t i = 0; i < w->spec->target_count; i++) {
        const char *pattern = w->spec->targets[i];
        if (fnmatch(pattern, name, 0) != 0 && fnmatch(pattern, last, 0) != 0) continue;
        w->matched[i] = any = true;
    }
    return any;
}

static mica_dtype type_of(const attaching *w) { return w->spec->bf16 ? MICA_BF16 : MICA_F32; }

static mica_array *uniform(attaching *w, const char *name, int64_t rows, int64_t columns) {
    size_t n = (size_t)(rows * columns);
    float *v = mica_alloc(n * sizeof *v), bound = 1 / sqrtf((float)rows);
    if (!v) return mica_fail_memory(w->err, n * sizeof *v, "an adapter"), NULL;
    uint64_t stream = mica_hash(name, strlen(name), w->spec->seed);
    for (size_t i = 0; i < n; i++) v[i] = (2 * mica_uniform_f32(mica_philox_at(stream, i / 4).v[i % 4]) - 1) * bound;
    mica_array *a = mica_keep(w->s, mica_astype(w->s, mica_from_data(w->s, v, MICA_SHAPE(rows, columns), MICA_F32), type_of(w)), w->err);
    mica_free(v);
    mica_scope_reset(w->s);
    return a;
}

static bool attach_magnitude(attaching *w, const char *name, mica_linear *l) {
    if (strcmp(name, "embed_tokens") == 0) return mica_fail(w->err, MICA_ERR_UNSUPPORTED, "DoRA of an embedding is not supported");
    l->lora.magnitude = mica_keep(w->s, mica_astype(w->s, mica_lora_lengths(w->s, l), type_of(w)), w->err);
    l->lora.raw = true;
    l->lora.bias = l->bias, l->bias = NULL; // added behind the magnitude
    mica_scope_reset(w->s);
    return l->lora.magnitude != NULL;
}

static bool attach(attaching *w, const char *name, mica_linear *l, int64_t first, int64_t last) {
    if (!l->w || l->lora.a) return true;
    l->lora.scale = w->spec->scale;
    l->lora.a = uniform(w, name, first, w->spec->rank);
    l->lora.b = l->lora.a ? mica_keep(w->s, mica_zeros(w->s, MICA_SHAPE(w->spec->rank, last), type_of(w)), w->err) : NULL;
    mica_scope_reset(w->s);
    return l->lora.b && (!w->spec->dora || attach_magnitude(w, name, l));
}

// In a block the name to match is the one inside it; the numbers come from the whole one.
static bool attach_block(attaching *w, mica_net *net, int64_t layer) {
    mica_layer *l = &net->layers[layer];
    const char *name;
    mica_linear *linear;
    for (size_t i = 0; (linear = mica_layer_linear(l, i, &name)); i++) {
        char whole[128];
        snprintf(whole, sizeof whole, "model.layers.%lld.%s", (long long)layer, name);
        if (wanted(w, name) && !attach(w, whole, linear, linear->in, linear->out)) return false;
    }
    return true;
}

static bool attach_all(attaching *w, mica_net *net) {
    int64_t n = net->config->num_layers, count = w->spec->layers < 0 ? n : MICA_MIN((int64_t)w->spec->layers, n);
    for (int64_t i = n - count; i < n; i++)
        if (!attach_block(w, net, i)) return false;
    if (wanted(w, "embed_tokens") && !attach(w, "embed_tokens", &net->embed, net->embed.out, net->embed.in)) return false;
    return net->tied || !wanted(w, "lm_head") || attach(w, "lm_head", &net->head, net->head.in, net->head.out);
}

bool mica_lora_attach(mica_net *net, const mica_lora_spec *spec, mica_error *err) {
    if (spec->rank < 1 || spec->rank > 4096) return mica_fail(err, MICA_ERR_ARGUMENT, "rank must be from 1 to 4096, got %d", (int)spec->rank);
    attaching w = {.spec = spec, .s = mica_scope_new(net->device, err), .err = err};
    w.matched = w.s ? mica_calloc(spec->target_count + 1, sizeof *w.matched) : NULL;
    if (w.s && !w.matched) mica_fail_memory(err, spec->target_count, "targets");
    bool ok = w.matched && attach_all(&w, net);
    for (size_t i = 0; ok && i < spec->target_count; i++)
        if (!w.matched[i]) ok = mica_fail(err, MICA_ERR_ARGUMENT, "target \"%s\" matches no linear layer", spec->targets[i]);
    mica_free(w.matched);
    mica_scope_free(w.s);
    return ok;
}
