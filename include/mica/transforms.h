// SPDX-License-Identifier: Apache-2.0
// Gradients. They append nodes to the graph that is already recorded: evaluate value and gradients together.
// Where a derivative does not exist: max, min, maximum and minimum share the gradient evenly among equal elements (so does
// clip at its bounds), abs and relu have slope 0 at 0, power takes 0 * log 0 as 0. Integers, bools, indices and
// stop_gradient pass nothing on. Quantised weights are frozen: asking for the gradient of their scales is an error.
#ifndef MICA_TRANSFORMS_H
#define MICA_TRANSFORMS_H

#include "mica/array.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A function of arrays for the transforms below: fills outputs[n_outputs] from inputs[n_inputs]; false stops (the scope has the error). */
typedef bool mica_function(mica_scope *s, void *ctx, mica_array *const *inputs, size_t n_inputs, mica_array **outputs, size_t n_outputs);

/** gradients[i] = Σ_j cotangents[j]ᵀ ∂outputs[j]/∂inputs[i], of inputs[i]'s shape and dtype; zeros where nothing depends on it.
 * inputs: float arrays that the outputs were built from (any nodes of the graph, kept arrays included). A path through another
 * input counts too: of y = f(h(x)), {h, x} give ∂y/∂h and the whole dy/dx. */
MICA_API bool mica_vjp(mica_scope *s, mica_array *const *outputs, mica_array *const *cotangents, size_t n_outputs,
                       mica_array *const *inputs, size_t n_inputs, mica_array **gradients);
/** Gradients of a scalar. */
MICA_API bool mica_grad(mica_scope *s, mica_array *loss, mica_array *const *inputs, size_t n_inputs, mica_array **gradients);
/** Calls f and differentiates its first output (a scalar) by the inputs named in argnums (NULL: the first n_gradients). */
MICA_API bool mica_value_and_grad(mica_scope *s, mica_function *f, void *ctx, mica_array *const *inputs, size_t n_inputs,
                                  mica_array **outputs, size_t n_outputs, const size_t *argnums, size_t n_gradients, mica_array **gradients);
/** Directional derivatives: tangents_out[j] = Σ_i ∂outputs[j]/∂inputs[i] tangents[i]. */
MICA_API bool mica_jvp(mica_scope *s, mica_array *const *outputs, size_t n_outputs, mica_array *const *inputs,
                       mica_array *const *tangents, size_t n_inputs, mica_array **tangents_out);
/** outputs = f(inputs), whose inner values are computed again for the gradient instead of being stored. f is called again then: it must
 * record the same ops, and ctx must live until the gradient is recorded. */
MICA_API bool mica_checkpoint(mica_scope *s, mica_function *f, void *ctx, mica_array *const *inputs, size_t n_inputs,
                              mica_array **outputs, size_t n_outputs);

#ifdef __cplusplus
}
#endif
#endif
