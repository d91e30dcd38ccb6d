// SPDX-License-Identifier: Apache-2.0
// Tokens of a label after a prompt.
#ifndef MICA_BACKEND_LABELS_H
#define MICA_BACKEND_LABELS_H

#include "mica/tokenizer.h"

/** Bytes of a raw prompt without the spaces at its end, which belong to what follows them. */
size_t mica_label_context(const char *prompt, size_t n);
/** Tokens of `label` after a prompt that ends with text[0…n), of which text[0…context) is encoded as ids[count]: those by which encoding text and
 * label together goes beyond ids. Where it does not begin with ids, because letters join across the border, the label's own encoding (as it is after a new line). A space
 * is put between where the prompt ends with a letter, a digit or closing punctuation of ASCII and the label does not begin with white space.
 * whole: the ids are all of the prompt (with BOS and the like), not only its end. */
bool mica_label_ids(const mica_tokenizer *t, const char *text, size_t n, size_t context, const mica_ids *ids, bool whole, const char *label,
                    mica_ids *out, mica_error *err);
/** The text after the last control token of a rendered conversation, and its ids; both empty where they are not each other's encoding. False
 * when out of memory. */
bool mica_label_tail(const mica_tokenizer *t, const mica_ids *ids, mica_text *text, mica_ids *tail, mica_error *err);
#endif
