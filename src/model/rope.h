// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies of every scaling that config.json can ask for. Reference: transformers' rope utilities.
#ifndef MICA_MODEL_ROPE_H
#define MICA_MODEL_ROPE_H

#include "io/config.h"

/** Fills inv_freq[head_dim/2] for sequences of `length` positions (only dynamic and longrope depend on it). Returns what cos and sin
 * are multiplied by. */
float mica_rope_frequencies(const mica_config *config, const mica_rope_config *rope, int64_t length, float *inv_freq);
/** The greatest length whose frequencies are those of `length`. */
int64_t mica_rope_same(const mica_config *config, const mica_rope_config *rope, int64_t length);
#endif
