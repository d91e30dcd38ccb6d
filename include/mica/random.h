// SPDX-License-Identifier: Apache-2.0
// Random arrays. A key u64 [2] = {seed, stream} is data, not state: equal keys give equal values, on any number of threads.
#ifndef MICA_RANDOM_H
#define MICA_RANDOM_H

#include "mica/array.h"

#ifdef __cplusplus
extern "C" {
#endif

MICA_API mica_array *mica_random_key(mica_scope *s, uint64_t seed, uint64_t stream);
/** [low, high) */
MICA_API mica_array *mica_random_uniform(mica_scope *s, mica_array *key, double low, double high, int ndim, const int64_t *shape, mica_dtype dtype);
MICA_API mica_array *mica_random_normal(mica_scope *s, mica_array *key, int ndim, const int64_t *shape, mica_dtype dtype);
/** a (f32) in bf16: rounded up or down at random, to the nearer one more often, so that the expectation is a itself. Infinities and what is no
 * number stay. */
MICA_API mica_array *mica_random_round(mica_scope *s, mica_array *key, mica_array *a);
/** true with probability p. */
MICA_API mica_array *mica_random_bernoulli(mica_scope *s, mica_array *key, double p, int ndim, const int64_t *shape);
/** One index (u32) per row of logits [..., V], drawn from softmax(logits). */
MICA_API mica_array *mica_random_categorical(mica_scope *s, mica_array *key, mica_array *logits);

#ifdef __cplusplus
}
#endif
#endif
