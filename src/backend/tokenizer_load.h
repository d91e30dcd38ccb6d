// SPDX-License-Identifier: Apache-2.0
// The tokenizer of a GGUF file that is open already.
#ifndef MICA_BACKEND_TOKENIZER_LOAD_H
#define MICA_BACKEND_TOKENIZER_LOAD_H

#include "io/gguf.h"
#include "mica/tokenizer.h"

/** The tokenizer does not refer to the file afterwards. */
mica_tokenizer *mica_tokenizer_from_gguf(const mica_gguf *g, mica_error *err);
#endif
