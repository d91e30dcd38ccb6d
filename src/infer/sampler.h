// SPDX-License-Identifier: Apache-2.0
// From logits to a token: bias, penalties, then a chain of filters in a configurable order (mlx-lm's by default), then a draw. Greedy at
// temperature 0. One sampler belongs to one stream.
#ifndef MICA_INFER_SAMPLER_H
#define MICA_INFER_SAMPLER_H

#include "base/base.h"
#include "mica/model.h"

enum { MICA_SAMPLER_STAGES = 4 };

typedef struct mica_candidate {
    int32_t id;
    float logit;
} mica_candidate;

/** Working memory of a choice: several samplers that are used one at a time may share one. */
typedef struct mica_sampler_scratch {
    float *logits;              // [V] adjusted copy
    mica_candidate *candidates; // [V]
} mica_sampler_scratch;

typedef struct mica_sampler {
    mica_generate_options options; // pointers inside are not used after mica_sampler_init
    mica_logit_bias *bias;
    size_t bias_count;
    int stages[MICA_SAMPLER_STAGES], stage_count;
    size_t vocab;
    mica_sampler_scratch own, scratch; // own: empty where the scratch is shared
    uint32_t *counts;    // [V] occurrences in the answer; NULL: no penalty asks for them
    unsigned char *seen; // [V] in the prompt or the answer; likewise
    uint64_t step;
} mica_sampler;

bool mica_sampler_scratch_init(mica_sampler_scratch *s, size_t vocab, mica_error *err);
void mica_sampler_scratch_free(mica_sampler_scratch *s);
/** Checks the options; an error names the option. shared: NULL, or the scratch to be used, which must live longer. */
bool mica_sampler_init(mica_sampler *s, const mica_generate_options *options, size_t vocab, const mica_sampler_scratch *shared,
                       mica_error *err);
/** Checks what of the options does not depend on the model; an error names the option. */
bool mica_sampler_check(const mica_generate_options *options, mica_error *err);
void mica_sampler_free(mica_sampler *s);
/** The prompt counts for the repeat penalty. Ids outside the vocabulary are ignored. */
void mica_sampler_observe_prompt(mica_sampler *s, const int32_t *ids, size_t count);
/** Chooses from logits[V]; forbidden[n_forbidden] are out of the question (end-of-sequence before min_tokens). Counts the choice as answered. */
int32_t mica_sampler_next(mica_sampler *s, const float *logits, const int32_t *forbidden, size_t n_forbidden);
/** Whether no logit is NaN or infinite. */
bool mica_logits_finite(const float *logits, size_t n);
/** The first of the largest; a NaN is none. */
int32_t mica_logits_argmax(const float *logits, size_t n);
/** log Σ exp(logits), in double. */
double mica_logsumexp_f32(const float *logits, size_t n);
/** The k largest logits as log-probabilities, largest first, lower ids first among equals. scratch: [n] candidates. */
void mica_top_logprobs(const float *logits, size_t n, double logsumexp, size_t k, mica_candidate *scratch, mica_logprob *out);
#endif
