// SPDX-License-Identifier: Apache-2.0
// One answer, whoever computes it: what is wanted (prompt, options, ends, all copied) and what has come so far (sampler, text, metrics, reason
// of the end). Whoever runs it brings the logits after the prompt and after each token.
#ifndef MICA_INFER_ROW_H
#define MICA_INFER_ROW_H

#include "infer/internal.h"
#include "infer/sampler.h"
#include "infer/stop.h"
#include <stdatomic.h>

typedef struct mica_row {
    mica_lm *lm;
    mica_loaded *adapter;          // taken for the row; NULL: none
    mica_sampler sampler;
    mica_stop stop;
    mica_detokenizer *detokenizer;
    mica_generate_options options; // its pointers are not valid
    int32_t *prompt, *ends;        // ends: ids that end the answer
    size_t prompt_count, end_count;
    int32_t last;                  // token chosen last
    mica_buf text;                 // of the token being delivered
    mica_logprob *top;
    atomic_bool cancelled;
    mica_finish finish;
    mica_error error;
    mica_metrics metrics;          // its times are for whoever runs the row
} mica_row;

/** Checks and copies everything. shared: as for mica_sampler_init. */
bool mica_row_init(mica_row *r, mica_lm *m, const int32_t *ids, size_t count, const mica_generate_options *options,
                   const mica_sampler_scratch *shared, mica_error *err);
void mica_row_free(mica_row *r);
/** Positions that the row may take at most. */
int64_t mica_row_positions(const mica_row *r);
/** The first reason counts. Always false. */
bool mica_row_end(mica_row *r, mica_finish why);
/** The next token, from logits[V] after the last one; of a row that has ended, with logits NULL, the text held back. False if there is nothing to
 * deliver; the token may be the last: then r->finish says why. */
bool mica_row_next(mica_row *r, const float *logits, mica_token *t);
bool mica_row_error(const mica_row *r, mica_error *err);
/** The row's metrics with speeds and memory; `prefilled`: prompt tokens computed. */
mica_metrics mica_row_metrics(const mica_row *r, int64_t prefilled);
#endif
