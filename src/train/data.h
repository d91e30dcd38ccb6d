// SPDX-License-Identifier: Apache-2.0
// Training data of mlx-lm: a file of JSON lines, each a conversation {"messages":[…],"tools":[…]}, a pair {"prompt":…,"completion":…} or a
// {"text":…}. Only the lines' places are kept (8 bytes each); lines are read and tokenised when their turn comes, so that a file may be larger
// than memory. Token ids are mlx-lm's. A dataset and its orders belong to one thread at a time.
#ifndef MICA_TRAIN_DATA_H
#define MICA_TRAIN_DATA_H

#include "base/base.h"
#include "mica/template.h"
#include "mica/tokenizer.h"
#include "model/training.h"

typedef enum mica_dataset_mask {
    MICA_MASK_NONE,      // every token but the first is scored
    MICA_MASK_LAST,      // only the completion or the last message (mlx-lm's mask_prompt); refuses {"text"}
    MICA_MASK_ASSISTANT, // every turn of the assistant; refuses {"text"}
} mica_dataset_mask;

typedef enum mica_dataset_long { MICA_LONG_TRUNCATE, MICA_LONG_SPLIT, MICA_LONG_SKIP } mica_dataset_long;

typedef struct mica_dataset_options {
    mica_dataset_mask mask;     // default: none
    mica_dataset_long too_long; // what becomes of an example beyond max_length; default: its beginning is used
    size_t max_length;       // most tokens of an example, or of a piece of it; default 2048, at least 2
    bool skip_bad;           // default false: a bad line is an error; true: it is passed over and counted
    bool unchecked;          // default false: every line's JSON is checked on opening; true: when its turn comes
    bool allow_control;      // default false: control tokens spelled in messages stay text; true: they are read, as mlx-lm does
} mica_dataset_options;

typedef struct mica_dataset mica_dataset;

/** Opens a file of lines. chat: the template of conversations and pairs; NULL: such lines are bad. Tokenizer and template must outlive it.
 * Lines that hold only blanks do not count. NULL on error: ARGUMENT (options), IO, NO_MEMORY, FORMAT ("train.jsonl:17: …", or no examples). */
mica_dataset *mica_dataset_open(const char *path, const mica_tokenizer *tokenizer, const mica_template *chat, const mica_dataset_options *options, mica_error *err);
void mica_dataset_free(mica_dataset *d);
/** Examples in the file. With `skip_bad`, lines whose JSON is bad are not among them unless `unchecked`. */
size_t mica_dataset_count(const mica_dataset *d);
/** A number that differs, in all likelihood, between files and between options: to know the data again when a run is resumed. */
uint64_t mica_dataset_fingerprint(const mica_dataset *d);

typedef struct mica_dataset_example {
    const int32_t *ids;    // [n]
    const uint8_t *scored; // [n] 1: predicting this token is trained; never the first
    size_t n, targets;     // targets: how many are scored
    bool bad;              // a bad line passed over (`skip_bad`): n is 0
} mica_dataset_example;
/** Example i, whole, whatever max_length. What it points to is valid until the next call. */
bool mica_dataset_example_get(mica_dataset *d, size_t i, mica_dataset_example *out, mica_error *err);

/** What has been met so far; each example counts once, however often it is read. */
typedef struct mica_dataset_report {
    size_t bad;           // lines passed over (`skip_bad`)
    size_t seen;          // examples read
    size_t too_long;      // beyond max_length: truncated, split or skipped
    size_t unscored;      // nothing to score, so left out
    uint64_t tokens;      // of the examples read, whole
    uint64_t lost;        // tokens cut off or skipped for max_length
    char first_bad[200];  // the message of the first bad line
} mica_dataset_report;
const mica_dataset_report *mica_dataset_get_report(const mica_dataset *d);

// ---- order and batches --------------------------------------------------------------------------------------
typedef struct mica_dataset_order mica_dataset_order;

typedef struct mica_dataset_order_options {
    uint64_t seed;       // of the shuffles: epoch e of a seed always has the same order
    bool in_file_order;  // default false: every epoch is shuffled
    size_t epochs;       // the order ends after so many; default 0: never
    size_t batch_size;   // most examples (or pieces) of a batch; default 4, or no limit if there is batch_tokens
    size_t batch_tokens; // most tokens of a batch, at least the dataset's max_length; default 0: no limit
} mica_dataset_order_options;

/** Where an order stands: before piece `piece` of the example at place `index` of epoch `epoch`. All zero: the beginning. */
typedef struct mica_dataset_position {
    uint64_t epoch, index, piece;
} mica_dataset_position;

/** The dataset must outlive it. NULL on error: ARGUMENT, NO_MEMORY. */
mica_dataset_order *mica_dataset_order_new(mica_dataset *d, const mica_dataset_order_options *options, mica_error *err);
void mica_dataset_order_free(mica_dataset_order *o);
/** The next batch, packed without padding: an example of T tokens gives a segment of up to T − 1 ids and targets, which ends with its last
 * scored target. weights are 1 or 0. Batches go across the end of an epoch. out->n is 0 at the end of the order; what out points to is
 * valid until the next call. On failure the position is as before. FORMAT: a bad line, or an epoch without anything to score. */
bool mica_dataset_next(mica_dataset_order *o, mica_text_batch *out, mica_error *err);
mica_dataset_position mica_dataset_order_position(const mica_dataset_order *o);
/** ARGUMENT if there is no such place. */
bool mica_dataset_order_seek(mica_dataset_order *o, mica_dataset_position position, mica_error *err);

/** A look ahead at batches. */
typedef struct mica_dataset_survey {
    mica_text_batch largest; // that with most tokens: lengths and weights as they are, ids and targets all zero; n is 0 if there are no batches
    size_t shapes;           // numbers of tokens that batches had, at most 64
    int32_t *zeros, *lengths;
    float *weights;
} mica_dataset_survey;
/** Looks at up to `batches` batches from a position on: at all of them, or in a long file at the first and at those that seem largest. Nothing of
 * it counts in the report. Errors as of mica_dataset_next. */
bool mica_dataset_survey_run(mica_dataset *d, const mica_dataset_order_options *options, mica_dataset_position from, uint64_t batches, mica_dataset_survey *out,
                             mica_error *err);
void mica_dataset_survey_free(mica_dataset_survey *s);
#endif
