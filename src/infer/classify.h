// SPDX-License-Identifier: Apache-2.0
// Scoring what may follow prompts: the next token, and whole sequences of tokens ("labels"), each prompt computed once and what all prompts
// begin with once for all of them.
#ifndef MICA_INFER_CLASSIFY_H
#define MICA_INFER_CLASSIFY_H

#include "infer/internal.h"

/** One prompt. */
typedef struct mica_scored {
    mica_ids ids;
    mica_ids *labels; // [label_count] tokens of each label after this prompt, at least one each; NULL without labels
    float *logits;    // [V] receives the next token's, or NULL
    double *logprobs; // [label_count] receives those of the labels
    int32_t token;    // receives the likeliest next token
    mica_error error; // set before: it is passed over; receives what went wrong with this one
} mica_scored;

typedef struct mica_scoring {
    const mica_lora_set *adapter; // to compute with; NULL: none
    size_t label_count;
    size_t most;  // prompts computed together; 0: as many as fit a step
    bool (*progress)(void *context, size_t done); // the first so many are done; false: the rest gets MICA_ERR_CANCELLED
    void *context;
    mica_metrics metrics; // received
} mica_scoring;

/** False if nothing could be done at all. */
bool mica_score_prompts(mica_lm *lm, mica_scored *prompts, size_t count, mica_scoring *scoring, mica_error *err);
#endif
