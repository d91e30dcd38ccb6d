// SPDX-License-Identifier: Apache-2.0
// What the files of the training data share: the dataset itself, a line taken apart, and the way from a line to tokens.
#ifndef MICA_TRAIN_DATA_INTERNAL_H
#define MICA_TRAIN_DATA_INTERNAL_H

#include "base/json.h"
#include "train/data.h"

struct mica_dataset {
    char *path;
    int fd; // -1: not open
    const mica_tokenizer *tokenizer;
    const mica_template *chat;
    mica_dataset_options options;
    bool thinking;        // the tokenizer has tokens for thoughts, which mlx-lm tells templates
    uint64_t *starts;     // [count] where lines start in the file
    size_t count, capacity;
    uint64_t fingerprint;
    uint64_t *met;        // bits: examples that the report has counted
    mica_dataset_report report;
    // the example at hand
    size_t current;       // its number + 1; 0: none
    bool bad;
    size_t targets;
    mica_arena arena;
    mica_buf line, json;
    mica_text text, other;
    mica_marks marks;
    mica_ids ids, prefix;
    uint8_t *scored;      // [ids.len]
    size_t scored_capacity;
};

typedef enum mica_line_kind { MICA_LINE_TEXT, MICA_LINE_PAIR, MICA_LINE_CHAT } mica_line_kind;

typedef struct mica_slice {
    const char *data;
    size_t n;
} mica_slice;

/** A line taken apart; lives in the dataset's arena. */
typedef struct mica_line {
    mica_line_kind kind;
    mica_slice text;            // TEXT
    mica_slice tools;           // JSON as written; n 0: none
    size_t count;               // messages, of a pair two
    mica_slice *messages;       // [count] JSON
    const mica_json **contents; // [count] of the messages; NULL where absent
    bool *assistant;            // [count]
} mica_line;

// ---- data_order.c: the example at a place of an order
size_t mica_dataset_order_example(mica_dataset_order *o, const mica_dataset_position *p);

// ---- data_read.c: the file
bool mica_dataset_index(mica_dataset *d, mica_error *err);
/** Fills d->line with the line that starts there. */
bool mica_dataset_read(mica_dataset *d, uint64_t start, mica_error *err);
/** Puts "path:line: " before the message. */
bool mica_dataset_blame(const mica_dataset *d, uint64_t start, mica_error *err);
/** After a failure with a line: whether it may be passed over; then it is counted. */
bool mica_dataset_pass_over(mica_dataset *d, const mica_error *err);

// ---- data_line.c: JSON
bool mica_line_parse(mica_dataset *d, mica_line *line, mica_error *err);

// ---- data_encode.c: tokens
/** Fills d->ids, d->scored and d->targets. */
bool mica_line_encode(mica_dataset *d, const mica_line *line, mica_error *err);
#endif
