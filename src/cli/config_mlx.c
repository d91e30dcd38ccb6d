// SPDX-License-Identifier: Apache-2.0
// What mlx-lm's files of training options have and mica's options have not: nested objects (lr_schedule, optimizer_config) whose meaning is that of
// its Python classes, and members that say how mlx-lm itself is run. A value that mica has no way to follow is refused by name, never passed over.
// Source: mlx_lm/lora.py and tuner/utils.py, mlx/optimizers.
#include "cli/config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(mica_cli_optimizer, field)
enum { ADAM = 1, ADAMW = 2, MUON = 4, SGD = 8, ADAFACTOR = 16, FIXED = -1 };
const char *const mica_cli_optimizer_names[MICA_CLI_OPTIMIZERS] = {"adam", "adamw", "muon", "sgd", "adafactor"};

// ---- optimizer_config ------------------------------------------------------------------------------------
// Numbers above `low` (or equal to it, where 0 means the same as nothing said) up to `high`; truth values are 1 and -1. FIXED: mica has this
// value only.
static const struct setting {
    const char *name;
    unsigned of;
    int at;
    double low, high;
    const char *takes;
    bool truth;
} settings[] = {
    {"eps", ADAM | ADAMW, AT(eps), 1e-30, 1, "a number above 0, at most 1", false},
    {"bias_correction", ADAM | ADAMW, AT(bias_correction), -1, 1, "true or false", true},
    {"weight_decay", ADAMW | MUON | SGD | ADAFACTOR, AT(weight_decay), 0, 100, "a number from 0 to 100", false},
    {"momentum", SGD, AT(momentum), 0, 1, "a number from 0 to 1", false},
    {"momentum", MUON, AT(momentum), 1e-9, 1, "a number above 0, at most 1", false},
    {"dampening", SGD, AT(dampening), 0, 1, "a number from 0 to 1", false},
    {"nesterov", SGD, AT(nesterov), -1, 1, "true or false", true},
    {"nesterov", MUON, FIXED, 1, 1, "true only", true},
    {"ns_steps", MUON, FIXED, 5, 5, "5 only", false},
    {"beta_1", ADAFACTOR, AT(beta1), 0, 1, "a number from 0 to 1", false},
    {"relative_step", ADAFACTOR, FIXED, -1, -1, "false only: steps follow the learning rate", true},
    {"scale_parameter", ADAFACTOR, FIXED, 1, 1, "true only", true},
    {"warmup_init", ADAFACTOR, FIXED, -1, -1, "false only", true},
    {"clip_threshold", ADAFACTOR, FIXED, 1, 1, "1 only", false},
    {"decay_rate", ADAFACTOR, FIXED, -0.8, -0.8, "-0.8 only", false},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static bool refuse(mica_cli_config *c, const char *in, const char *name, const char *takes, const mica_cli_value *v) {
    return mica_cli_usage(c->command->name, "%s: %s: \"%s\" takes %s, not %.*s", c->path, in, name, takes, v->size < 60 ? (int)v->size : 60, v->text), false;
}

static bool refuse_name(mica_cli_config *c, const char *in, const char *name, const char *const *names, size_t count) {
    return mica_cli_usage(c->command->name, "%s: %s: there is no \"%s\"; the nearest is \"%s\"", c->path, in, name, mica_cli_nearest(name, names, count)), false;
}

static bool object_or_null(mica_cli_config *c, const char *in, const mica_cli_value *v) {
    if (mica_cli_json_is(v, '{') || mica_cli_json_is(v, 'n')) return true;
    return mica_cli_usage(c->command->name, "%s: \"%s\" takes an object, not %.*s", c->path, in, v->size < 60 ? (int)v->size : 60, v->text), false;
}

/** The numbers of an array; how many, at most `room`; -1 if it is something else. */
static int numbers(mica_cli_config *c, const mica_cli_value *list, double *out, int room) {
    mica_cli_value v;
    int n = 0;
    if (!mica_cli_json_is(list, '[')) return -1;
    for (const char *at = NULL; mica_cli_json_next(list, &at, &c->text, &v); n++)
        if (n == room || !mica_cli_json_number_of(&v, &out[n])) return -1;
    return n;
}

static bool take_betas(mica_cli_config *c, const char *in, mica_cli_optimizer *o, const mica_cli_value *v) {
    double b[2] = {0};
    bool ok = numbers(c, v, b, 2) == 2;
    for (int i = 0; i < 2; i++) ok = ok && b[i] > 0 && b[i] < 1;
    if (!ok) return refuse(c, in, "betas", "two numbers between 0 and 1", v);
    o->beta1 = b[0], o->beta2 = b[1];
    return true;
}

static bool take_value(mica_cli_config *c, const char *in, const struct setting *s, mica_cli_optimizer *o, const mica_cli_value *v) {
    bool yes = mica_cli_json_is(v, 't'), truth = yes || mica_cli_json_is(v, 'f');
    double x = yes ? 1 : -1;
    bool fits = s->truth ? truth : mica_cli_json_number_of(v, &x);
    if (!fits || x < s->low - 1e-12 * fabs(s->low) || x > s->high + 1e-12 * fabs(s->high)) return refuse(c, in, s->name, s->takes, v);
    if (s->at == FIXED) return true;
    if (s->at == (int)AT(weight_decay) && x <= 0) x = -1;
    *(double *)(void *)((char *)o + s->at) = x;
    return true;
}

static bool take_setting(mica_cli_config *c, const char *in, unsigned which, mica_cli_optimizer *o, const mica_cli_value *v) {
    const char *names[SETTINGS + 1], *name = c->key.data;
    size_t count = 0;
    for (int i = 0; i < SETTINGS; i++) {
        const struct setting *s = &settings[i];
        if (!(s->of & which)) continue;
        if (strcmp(s->name, name) == 0) return mica_cli_json_is(v, 'n') || take_value(c, in, s, o, v);
        names[count++] = s->name;
    }
    if (which & (ADAM | ADAMW)) {
        if (strcmp(name, "betas") == 0) return mica_cli_json_is(v, 'n') || take_betas(c, in, o, v);
        names[count++] = "betas";
    }
    return refuse_name(c, in, name, names, count);
}

static bool take_optimizer(mica_cli_config *c, const mica_cli_value *object) {
    char in[60];
    int which = 0;
    mica_cli_value v;
    while (which < MICA_CLI_OPTIMIZERS && strcmp(c->key.data, mica_cli_optimizer_names[which]) != 0) which++;
    if (which == MICA_CLI_OPTIMIZERS) return refuse_name(c, "optimizer_config", c->key.data, mica_cli_optimizer_names, MICA_CLI_OPTIMIZERS);
    snprintf(in, sizeof in, "optimizer_config: %s", mica_cli_optimizer_names[which]);
    if (!object_or_null(c, in, object)) return false;
    for (const char *at = NULL; mica_cli_json_is(object, '{') && mica_cli_json_next(object, &at, &c->key, &v);)
        if (!take_setting(c, in, 1u << which, &c->args->train.optimizers[which], &v)) return false;
    return true;
}

static bool take_optimizers(mica_cli_config *c, const mica_cli_value *object) {
    mica_cli_value v;
    if (!object_or_null(c, "optimizer_config", object)) return false;
    for (const char *at = NULL; mica_cli_json_is(object, '{') && mica_cli_json_next(object, &at, &c->key, &v);)
        if (!take_optimizer(c, &v)) return false;
    return true;
}

void mica_cli_put_optimizer(mica_cli_json *j, const char *name, const mica_cli_optimizer *o) {
    unsigned which = 0;
    for (int i = 0; i < MICA_CLI_OPTIMIZERS; i++)
        if (strcmp(name, mica_cli_optimizer_names[i]) == 0) which = 1u << i;
    mica_cli_json_open(j, "optimizer_config", '{');
    mica_cli_json_open(j, name, '{');
    if (which & (ADAM | ADAMW)) {
        mica_cli_json_open(j, "betas", '[');
        mica_cli_json_double(j, NULL, o->beta1 > 0 ? o->beta1 : 0.9); // the defaults of mica_optimizer_options
        mica_cli_json_double(j, NULL, o->beta2 > 0 ? o->beta2 : 0.999);
        mica_cli_json_close(j, ']');
        if (!(o->eps > 0)) mica_cli_json_double(j, "eps", 1e-8);
    }
    for (int i = 0; i < SETTINGS; i++) {
        const struct setting *s = &settings[i];
        double x = s->at == FIXED ? 0 : *(const double *)(const void *)((const char *)o + s->at);
        if (!(s->of & which) || (x >= 0 && x <= 0)) continue;
        if (s->truth) mica_cli_json_bool(j, s->name, x > 0);
        else mica_cli_json_double(j, s->name, x > 0 ? x : 0);
    }
    mica_cli_json_close(j, '}');
    mica_cli_json_close(j, '}');
}

// ---- lr_schedule -----------------------------------------------------------------------------------------
static const struct rates {
    const char *name, *ours, *takes;
    int least, most; // arguments
    int steps;       // which of them counts steps; the others are rates and factors
} schedules[] = {
    {"cosine_decay", "cosine", "[rate, steps] or [rate, steps, end]", 2, 3, 1},
    {"linear_schedule", "linear", "[rate, end, steps]", 3, 3, 2},
    {"exponential_decay", "exponential", "[rate, factor]", 2, 2, -1},
    {"step_decay", "step", "[rate, factor, steps]", 3, 3, 2},
};
enum { SCHEDULES = sizeof schedules / sizeof *schedules };

static bool is_count(double x) { return x >= 0 && x <= 1e9 && x <= floor(x); }

/** Arguments that the schedule has a meaning for. A rate of 0 is one that only a linear schedule may begin with. */
static bool arguments_fit(const struct rates *s, const double *x, int n) {
    bool factor = strcmp(s->ours, "exponential") == 0 || strcmp(s->ours, "step") == 0, linear = strcmp(s->ours, "linear") == 0;
    if (n < s->least || n > s->most) return false;
    for (int i = 0; i < n; i++) {
        if (i == s->steps && (!is_count(x[i]) || x[i] < 1)) return false;
        if (i != s->steps && !(x[i] >= 0 && x[i] <= (factor && i == 1 ? 1 : 100))) return false;
    }
    return (x[0] > 0 || (linear && x[1] > 0)) && (!factor || x[1] > 0);
}

static bool take_warmup(mica_cli_config *c, const char *name, const mica_cli_value *v, double *x) {
    bool rate = strcmp(name, "warmup_init") == 0;
    if (mica_cli_json_is(v, 'n')) return true;
    if (mica_cli_json_number_of(v, x) && (rate ? *x >= 0 && *x <= 100 : is_count(*x))) return true;
    return refuse(c, "lr_schedule", name, rate ? "a rate" : "a number of steps", v);
}

static bool take_schedule(mica_cli_config *c, const mica_cli_value *object) {
    static const char *const keys[] = {"name", "arguments", "warmup", "warmup_init"}, *names[SCHEDULES];
    mica_cli_value v, arguments = {0};
    const struct rates *s = NULL;
    double warmup = 0;
    if (!object_or_null(c, "lr_schedule", object)) return false;
    if (mica_cli_json_is(object, 'n')) return true;
    for (int i = 0; i < SCHEDULES; i++) names[i] = schedules[i].name;
    for (const char *at = NULL; mica_cli_json_next(object, &at, &c->key, &v);) {
        const char *key = c->key.data;
        bool ok = true;
        if (strcmp(key, "name") == 0) {
            if (!mica_cli_json_string_of(&v, &c->text)) return refuse(c, "lr_schedule", key, "a text", &v);
            for (int i = 0; i < SCHEDULES; i++)
                if (strcmp(c->text.data, names[i]) == 0) s = &schedules[i];
            ok = s || refuse_name(c, "lr_schedule", c->text.data, names, SCHEDULES);
        } else if (strcmp(key, "arguments") == 0) arguments = v;
        else if (strncmp(key, "warmup", 6) == 0 && (!key[6] || strcmp(key + 6, "_init") == 0)) ok = take_warmup(c, key, &v, key[6] ? &c->rates.warmup_init : &warmup);
        else ok = refuse_name(c, "lr_schedule", key, keys, 4);
        if (!ok) return false;
    }
    if (!s || !arguments.text) return mica_cli_usage(c->command->name, "%s: lr_schedule needs a name and arguments", c->path), false;
    if (!arguments_fit(s, c->rates.values, numbers(c, &arguments, c->rates.values, s->most))) return refuse(c, s->name, "arguments", s->takes, &arguments);
    if (c->rates.values[0] <= 0 && warmup > 0) return refuse(c, s->name, "arguments", "a rate above 0 after a warm-up", &arguments);
    c->rates.name = s->ours, c->rates.warmup = (int32_t)warmup;
    return true;
}

void mica_cli_config_mlx_end(mica_cli_config *c) {
    const mica_cli_rates *r = &c->rates;
    mica_cli_train_args *t = &c->args->train;
    if (!r->name) return;
    t->lr = r->values[0], t->schedule = r->name;
    if (strcmp(r->name, "cosine") == 0) t->lr_steps = (int32_t)r->values[1], t->lr_end = r->values[2];
    else if (strcmp(r->name, "linear") == 0) t->lr_end = r->values[1], t->lr_steps = (int32_t)r->values[2];
    else t->lr_decay = r->values[1], t->lr_steps = (int32_t)r->values[2];
    t->warmup = r->warmup, t->warmup_init = r->warmup_init;
    t->hold = r->warmup > 0; // mlx-lm's schedule begins a step after the warm-up has reached its rate
    if (r->values[0] <= 0) t->schedule = "constant", t->lr = r->values[1], t->warmup = t->lr_steps; // a linear schedule that rises from 0 is a warm-up
}

// ---- the rest ------------------------------------------------------------------------------------------------
/** Members that say how mlx-lm is run; `kind` is the value that means nothing here: true, false, null, or any ('*'). */
static const struct other {
    const char *name;
    char kind;
    const char *takes;
} others[] = {
    {"train", 't', "true only: `mica eval` measures without training"}, {"trust-remote-code", 'f', "false only: nothing of a model is run"},
    {"report-to", 'n', "null only: --log and --report show a run"},     {"project-name", '*', ""},
    {"clear-cache-threshold", '*', ""},                                 {"config", 'n', "null only"},
};

bool mica_cli_config_mlx(mica_cli_config *c, const char *name, const mica_cli_value *v, bool *known) {
    *known = true;
    if (strcmp(name, "lr-schedule") == 0) return take_schedule(c, v);
    if (strcmp(name, "optimizer-config") == 0) return take_optimizers(c, v);
    if (strcmp(name, "num-layers") == 0 && v->size == 1 && *v->text == '0') return c->args->train.layers = -1, true; // mlx-lm: all, as -1
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const struct other *o = &others[i];
        if (strcmp(name, o->name) != 0) continue;
        if (o->kind == '*' || mica_cli_json_is(v, o->kind) || mica_cli_json_is(v, 'n')) return true;
        return refuse(c, "mlx-lm's option", name, o->takes, v);
    }
    return *known = false, true;
}
