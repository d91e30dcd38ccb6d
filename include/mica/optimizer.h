// SPDX-License-Identifier: Apache-2.0
// Optimisers and learning rates. An optimiser holds the state of a list of parameters (f32, whatever type the parameters have, or bf16) and updates them
// one by one from their gradients. Formulas are MLX's, which are PyTorch's where both have the same optimiser.
#ifndef MICA_OPTIMIZER_H
#define MICA_OPTIMIZER_H

#include "mica/array.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_optimizer_options {
    const char *name;       // "adamw" (default), "adam", "sgd", "adafactor", "muon"
    double beta1, beta2;    // adam, adamw: default 0.9 and 0.999. adafactor: beta1 > 0 keeps a first moment
    double eps;             // adam, adamw: default 1e-8
    double weight_decay;    // default 0.01 (adamw, muon), else 0; negative: none. Decoupled from the gradient in adamw and adafactor
    double momentum;        // sgd: default 0; muon: default 0.95
    double dampening;       // sgd: default 0
    bool nesterov;          // sgd (muon always is)
    bool no_bias_correction; // adam, adamw: as mlx-lm's default
    bool stochastic;        // bf16 parameters are rounded at random, so that on average no update is lost, however small it is; default: to nearest
    bool bf16_state;        // the state is kept in bf16, rounded at random
    uint64_t seed;          // of the rounding, which is a function of seed, step and parameter
} mica_optimizer_options;

typedef struct mica_optimizer mica_optimizer;

/** For `count` parameters. An unknown name fails, naming the known ones. */
MICA_API mica_optimizer *mica_optimizer_new(const mica_optimizer_options *options, size_t count, mica_error *err);
MICA_API void mica_optimizer_free(mica_optimizer *optimizer);
/** Parameter number `index` (kept) is replaced by its next value, of the same type; gradient: of its shape, any float type, of this scope or
 * kept. The scope is reset. On failure parameter and state are as before. */
MICA_API bool mica_optimizer_update(mica_optimizer *optimizer, mica_scope *scope, size_t index, mica_array **parameter, mica_array *gradient,
                                    double learning_rate, mica_error *err);
/** What such an update takes, in bytes: working memory, new values, and the state that is kept for the parameter. Nothing is computed; the scope
 * is reset. */
typedef struct mica_optimizer_need {
    size_t workspace, results, states;
} mica_optimizer_need;
MICA_API bool mica_optimizer_size(mica_optimizer *optimizer, mica_scope *scope, size_t index, mica_array *parameter, mica_optimizer_need *need,
                                  mica_error *err);
/** All parameters have been updated: counts a step. */
MICA_API void mica_optimizer_advance(mica_optimizer *optimizer);
MICA_API int64_t mica_optimizer_step(const mica_optimizer *optimizer);
/** To save and restore: the arrays of a parameter's state, by name, and their number (before the first update 0). Setting copies nothing: the
 * optimiser takes the kept array over. */
MICA_API size_t mica_optimizer_states(const mica_optimizer *optimizer, size_t index);
MICA_API mica_array *mica_optimizer_state(const mica_optimizer *optimizer, size_t index, size_t state, const char **name);
MICA_API bool mica_optimizer_restore(mica_optimizer *optimizer, size_t index, const char *name, mica_array *value, mica_error *err);
MICA_API void mica_optimizer_set_step(mica_optimizer *optimizer, int64_t step);

typedef struct mica_schedule {
    const char *name; // "constant" (default), "linear", "cosine", "exponential", "step"
    double rate;      // at the beginning, after the warm-up
    double end;       // linear, cosine: rate at the end; default 0
    double decay;     // exponential, step: factor; default 0.999 and 0.5
    int64_t steps;    // linear, cosine: over how many; step: between two decays
    int64_t warmup;   // steps in which the rate rises linearly from warmup_start to `rate`; the rest counts from there
    double warmup_start;
    int64_t hold;     // steps at `rate` between the warm-up and the rest
} mica_schedule;
/** Learning rate of step 0, 1, …; NAN for an unknown name. */
MICA_API double mica_schedule_at(const mica_schedule *schedule, int64_t step);
/** False, and *err says why, if the schedule makes no sense. */
MICA_API bool mica_schedule_check(const mica_schedule *schedule, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
