// SPDX-License-Identifier: Apache-2.0
// Guesses at the next tokens for speculative decoding (Leviathan et al. 2023, arXiv 2211.17192) by prompt look-up (Saxena 2023): the longest
// recent match of the last tokens in prompt and answer is taken to go on as it did before. Whoever verifies a guess reports what held and what
// forwards cost, and the length of the next guess follows from both: where guesses fail or rows are dear, they stop.
#ifndef MICA_INFER_DRAFT_H
#define MICA_INFER_DRAFT_H

#include "base/base.h"

enum {
    MICA_DRAFT_MOST = 7,    // tokens of a guess: a forward of 8 rows, which attention and products compute as if they were alone
    MICA_DRAFT_CLASSES = 5, // lengths of the match: 2, 3, 4…7, 8…15, 16 and more
};

typedef struct mica_draft {
    int32_t *ids;      // [capacity] prompt and answer
    int32_t *newest;   // [slots] position after the last pair of tokens with this hash; 0: none
    int32_t *previous; // [capacity] the position before that with the same hash; 0: none
    size_t count, capacity, slots;
    size_t most;       // tokens of a guess at most; 0: off, and nothing is allocated
    float held[MICA_DRAFT_CLASSES], failed[MICA_DRAFT_CLASSES]; // guessed tokens, older ones counting less
    uint32_t declined[MICA_DRAFT_CLASSES];                      // guesses not made since the last one
    int kind;                                                   // class of the last guess
    double seconds[MICA_DRAFT_MOST + 2];                        // of a forward by rows; 0: unknown
    bool timed[MICA_DRAFT_MOST + 2];                            // a first forward, which also builds a plan, is behind us
} mica_draft;

/** `capacity` tokens will be pushed at most (more are forgotten). most 0 makes an idle draft. */
bool mica_draft_init(mica_draft *d, size_t most, size_t capacity, mica_error *err);
void mica_draft_free(mica_draft *d);
/** The next token of prompt or answer. */
void mica_draft_push(mica_draft *d, int32_t id);
/** A guess of up to `limit` tokens at what follows; 0 = none worth its cost. */
size_t mica_draft_guess(mica_draft *d, size_t limit, int32_t *guess);
/** Of the last guess's n tokens the first `held` turned out right. */
void mica_draft_learn(mica_draft *d, size_t n, size_t held);
/** A forward of `rows` tokens took so long. */
void mica_draft_time(mica_draft *d, size_t rows, double seconds);
#endif
