// SPDX-License-Identifier: Apache-2.0
// Decoders: the chain of steps that turns tokens back into text.
#ifndef MICA_TEXT_DECODER_H
#define MICA_TEXT_DECODER_H

#include "text/normalizer.h"
#include "text/pretok.h"

typedef enum { MICA_DEC_BYTE_LEVEL, MICA_DEC_METASPACE, MICA_DEC_REPLACE, MICA_DEC_BYTE_FALLBACK, MICA_DEC_FUSE,
               MICA_DEC_STRIP } mica_dec_type;

typedef struct mica_dec_step {
    mica_dec_type type;
    mica_norm_step replace;
    uint32_t character; // Metaspace, Strip
    mica_prepend_scheme scheme;
    size_t start, stop; // Strip: at most so many characters
} mica_dec_step;

typedef struct mica_decoder {
    mica_dec_step *steps;
    size_t count, capacity;
    // How the chain runs as a stream: steps[0…token_steps) rewrite single tokens, then bytes are found, then `strip_step`
    // (or SIZE_MAX) takes characters from the very beginning. Chains of another form wait for all tokens.
    bool streams, byte_level, byte_fallback;
    size_t token_steps, strip_step;
} mica_decoder;

bool mica_decoder_read(mica_decoder *d, const mica_json *v, const char *what, mica_error *err);
void mica_decoder_free(mica_decoder *d);

/** Runs a step that looks at one token alone. first: the token is the first one. Appends to out. */
bool mica_decoder_token_step(const mica_dec_step *step, const char *s, size_t n, bool first, mica_buf *out, mica_error *err);
/** The byte of "<0xNN>", or -1. */
int mica_byte_token(const char *s, size_t n);
/** Appends the bytes that GPT-2's characters stand for; a token with any other character gives itself. */
bool mica_put_byte_level(const char *s, size_t n, mica_buf *out);
/** Appends valid UTF-8: each malformed sequence becomes one U+FFFD, as Rust's from_utf8_lossy cuts them. */
bool mica_put_lossy(const char *s, size_t n, mica_buf *out);
/** Bytes at the end of s that may be the beginning of a character, 0…3. */
size_t mica_utf8_incomplete(const char *s, size_t n);

/** A list of strings: text holds them one after another, ends[i] is where each ends. */
typedef struct mica_strings {
    mica_buf text;
    size_t *ends, count, capacity;
} mica_strings;
bool mica_strings_end(mica_strings *list);
void mica_strings_free(mica_strings *list);
/** Runs a chain of any form over all tokens; appends the text. */
bool mica_decoder_run(const mica_decoder *d, mica_strings *tokens, mica_buf *out, mica_error *err);
#endif
