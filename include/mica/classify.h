// SPDX-License-Identifier: Apache-2.0
// Classification: one answer a text, from the prompt alone. With labels, each label's exact log-probability (of its whole token
// sequence) after the prompt; without, the likeliest next token.
#ifndef MICA_CLASSIFY_H
#define MICA_CLASSIFY_H

#include "mica/model.h"

#ifdef __cplusplus
extern "C" {
#endif

// A label's tokens are those that encoding prompt and label together adds to the prompt's. A space is put between where the prompt ends with a
// letter, a digit or closing punctuation of ASCII and the label does not begin with white space; spaces at the end of a prompt become the label's.
// What follows a label is not scored: one that is the beginning of another is never less likely than it.
typedef struct mica_classify_options {
    const char *const *labels; // default: none
    size_t label_count;
    const char *prompt;        // "{text}" stands for the text; default: the text itself is the prompt
    bool chat;                 // the prompt is a user's message, put through the chat template
    bool calibrate;            // each label's log-probability is reduced by the one it has after an empty text
    const char *adapter;       // as in mica_generate_options
    bool logits;               // the next token's logits are wanted as well
    int32_t batch;             // texts computed together; default: as many as pay
    bool (*progress)(void *context, size_t done, size_t count); // after each batch; false stops: the rest gets MICA_ERR_CANCELLED
    void *context;
} mica_classify_options;

typedef struct mica_class {
    int32_t label;        // index of the likeliest label; -1 without labels or after an error
    int32_t token;        // likeliest next token; -1 after an error or if the backend does not tell
    char *text;           // the label, or the token's text
    double *logprobs;     // [label_count] natural logarithms, before calibration
    double *probabilities; // [label_count], normalised over the labels
    float *logits;        // [vocab_size], if wanted; backends that cannot give them refuse the option
    int32_t prompt_tokens;
    mica_error error;     // of this text alone
} mica_class;

typedef struct mica_classes {
    mica_class *items; // in the order of the texts
    size_t count;
    mica_metrics metrics; // of the call
} mica_classes;

/** texts[count], UTF-8. False if nothing could be done at all; what is wrong with one text is that item's error. Release with
 * mica_classes_free. */
MICA_API bool mica_classify(mica_model *model, const char *const *texts, size_t count, const mica_classify_options *options,
                            mica_classes *classes, mica_error *err);
MICA_API void mica_classes_free(mica_classes *classes);

#ifdef __cplusplus
}
#endif
#endif
