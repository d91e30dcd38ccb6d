// SPDX-License-Identifier: Apache-2.0
// Learning rates as functions of the step: a table of names and formulas.
#include "base/base.h"
#include "mica/optimizer.h"
#include <math.h>
#include <string.h>

static double constant(const mica_schedule *s, double step) { return (void)step, s->rate; }
static double linear(const mica_schedule *s, double step) { return s->rate + (s->end - s->rate) * fmin(step / (double)s->steps, 1); }
static double cosine(const mica_schedule *s, double step) {
    const double pi = 3.14159265358979323846;
    return s->end + 0.5 * (1 + cos(pi * fmin(step / (double)s->steps, 1))) * (s->rate - s->end);
}
static double exponential(const mica_schedule *s, double step) { return s->rate * pow(s->decay > 0 ? s->decay : 0.999, step); }
static double stepped(const mica_schedule *s, double step) { return s->rate * pow(s->decay > 0 ? s->decay : 0.5, floor(step / (double)s->steps)); }

static const struct schedule_kind {
    const char *name;
    bool needs_steps;
    double (*at)(const mica_schedule *s, double step);
} kinds[] = {{"constant", false, constant}, {"linear", true, linear}, {"cosine", true, cosine}, {"exponential", false, exponential},
             {"step", true, stepped}};

static const struct schedule_kind *find(const char *name) {
    if (!name) return &kinds[0];
    for (size_t i = 0; i < MICA_COUNT(kinds); i++)
        if (strcmp(name, kinds[i].name) == 0) return &kinds[i];
    return NULL;
}

double mica_schedule_at(const mica_schedule *s, int64_t step) {
    const struct schedule_kind *k = find(s->name);
    if (!k) return (double)NAN;
    if (step < s->warmup) return s->warmup_start + (s->rate - s->warmup_start) * (double)step / (double)s->warmup;
    return k->at(s, (double)MICA_MAX(step - s->warmup - s->hold, (int64_t)0));
}

bool mica_schedule_check(const mica_schedule *s, mica_error *err) {
    const struct schedule_kind *k = find(s->name);
    if (!k)
        return mica_fail(err, MICA_ERR_ARGUMENT, "schedule: there is no \"%.40s\"; there are constant, linear, cosine, exponential and step", s->name);
    if (k->needs_steps && s->steps < 1) return mica_fail(err, MICA_ERR_ARGUMENT, "schedule %s: steps must be at least 1, got %lld", k->name, (long long)s->steps);
    if (s->warmup < 0 || s->hold < 0)
        return mica_fail(err, MICA_ERR_ARGUMENT, "schedule: warmup and hold must not be negative, got %lld and %lld", (long long)s->warmup, (long long)s->hold);
    if (!isfinite(s->rate) || s->rate < 0 || !isfinite(s->end) || s->end < 0 || !isfinite(s->warmup_start) || s->warmup_start < 0)
        return mica_fail(err, MICA_ERR_ARGUMENT, "schedule: learning rates must be finite and not negative");
    return true;
}
