// SPDX-License-Identifier: Apache-2.0
// A vocabulary as GGUF files store it, and the tokenizer that transformers makes of one.
#ifndef MICA_TEXT_VOCAB_H
#define MICA_TEXT_VOCAB_H

#include "mica/tokenizer.h"

typedef struct mica_vocab_string {
    const char *data;
    size_t size;
} mica_vocab_string;

typedef struct mica_vocab {
    const char *what;         // file name, for messages
    const char *architecture; // general.architecture; NULL if unknown
    const char *model;        // "gpt2": byte-level BPE; "llama": SentencePiece BPE; "gemma4"
    const char *pre;          // which split pattern; NULL: GPT-2's
    const void *ctx;
    mica_vocab_string (*token)(const void *ctx, size_t i); // i < count
    mica_vocab_string (*merge)(const void *ctx, size_t i); // i < merge_count, "left right"
    size_t count, merge_count;
    mica_vocab_string stored_tokens, stored_merges; // both lists as stored, if they are in one piece: makes a cache key faster
    const float *scores;  // [count] or NULL
    const int32_t *types; // [count] or NULL: 3 control, 4 user-defined
    int64_t bos, eos, unk, pad;             // ids, -1: none
    int add_bos, add_eos, add_space_prefix; // 1, 0, -1: not said
} mica_vocab;

mica_tokenizer *mica_tokenizer_from_vocab(const mica_vocab *v, mica_error *err);
#endif
