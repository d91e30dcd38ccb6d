// SPDX-License-Identifier: Apache-2.0
// Text <-> token ids, exactly as Hugging Face `tokenizers` does it for the same tokenizer.json, and as
// `transformers` does it for a GGUF file. A tokenizer is immutable once loaded: any number of threads may
// encode and decode with one at the same time. A detokenizer belongs to one stream.
#ifndef MICA_TOKENIZER_H
#define MICA_TOKENIZER_H

#include "mica/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_tokenizer mica_tokenizer;
typedef struct mica_detokenizer mica_detokenizer;

/** A growing list of token ids. Start it as `{0}`; functions append; release with mica_ids_free. */
typedef struct mica_ids {
    int32_t *data;
    size_t len, capacity;
} mica_ids;

/** A growing text. Start it as `{0}`; functions append; release with mica_text_free. Not empty: data[len] is 0. */
typedef struct mica_text {
    char *data;
    size_t len, capacity;
} mica_text;

/** Bytes [from, to) of a text. */
typedef struct mica_mark {
    size_t from, to;
} mica_mark;

/** A growing list of marks. Start it as `{0}`; release with mica_marks_free. */
typedef struct mica_marks {
    mica_mark *data;
    size_t len, capacity;
} mica_marks;

typedef struct mica_encode_options {
    bool no_special_tokens; // default false: BOS, EOS and the like are added as the tokenizer prescribes
    bool plain;             // default false; true: special (control) tokens spelled out in the text are read as text
} mica_encode_options;

typedef struct mica_decode_options {
    bool skip_special; // default false; true: special tokens leave no text
    bool raw;          // default false: bytes that are no UTF-8 become U+FFFD; true: the exact bytes
} mica_decode_options;

/** Loads a folder that holds tokenizer.json, a tokenizer.json itself, or the tokenizer inside a .gguf file. What takes
 * long to build is kept in mica's cache folder ($MICA_CACHE, $XDG_CACHE_HOME/mica, ~/.cache/mica) if that can be
 * written. Returns NULL on error: IO, FORMAT (malformed), UNSUPPORTED (a component mica does not have, named),
 * NO_MEMORY. The caller frees it with mica_tokenizer_free. */
MICA_API mica_tokenizer *mica_tokenizer_load(const char *path, mica_error *err);
MICA_API void mica_tokenizer_free(mica_tokenizer *tokenizer);

/** Appends the ids of text[0…size) to ids. The text should be UTF-8; each malformed sequence is read as U+FFFD.
 * options: NULL for the defaults. On failure (NO_MEMORY, or FORMAT if a pattern of the file gives up on the text)
 * returns false and ids keeps its former length. */
MICA_API bool mica_tokenizer_encode(const mica_tokenizer *tokenizer, const char *text, size_t size,
                                    const mica_encode_options *options, mica_ids *ids, mica_error *err);
/** The same for a text parts of which are not to be trusted (the messages in a rendered chat): marks are spans of it, in order,
 * that do not overlap. No special (control) token is read where it would touch a marked byte; all else is as if nothing were
 * marked, so that a text without such tokens in its marked parts gives the same ids. ARGUMENT if the marks are not as said. */
MICA_API bool mica_tokenizer_encode_marked(const mica_tokenizer *tokenizer, const char *text, size_t size, const mica_mark *marks,
                                           size_t mark_count, const mica_encode_options *options, mica_ids *ids, mica_error *err);
/** Appends the text of ids[0…count) to text; ids that name no token give none. options: NULL for the defaults.
 * On failure (NO_MEMORY, FORMAT) returns false and text keeps its former length. */
MICA_API bool mica_tokenizer_decode(const mica_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                    const mica_decode_options *options, mica_text *text, mica_error *err);
MICA_API void mica_ids_free(mica_ids *ids);
MICA_API void mica_text_free(mica_text *text);
MICA_API void mica_marks_free(mica_marks *marks);

/** The highest id plus one (a model's embedding may have more rows). */
MICA_API size_t mica_tokenizer_vocab_size(const mica_tokenizer *tokenizer);
/** The token as the vocabulary spells it (byte-level and ▁ forms included); NULL if there is none. Borrowed, not
 * NUL-terminated; *size receives its bytes. */
MICA_API const char *mica_tokenizer_token(const mica_tokenizer *tokenizer, int32_t id, size_t *size);
/** The id of the token spelled token[0…size), or -1. */
MICA_API int32_t mica_tokenizer_id(const mica_tokenizer *tokenizer, const char *token, size_t size);
/** Whether id is a special (control) token. */
MICA_API bool mica_tokenizer_is_special(const mica_tokenizer *tokenizer, int32_t id);
/** The tokenizer's own idea of BOS and EOS (tokenizer_config.json, else what encode puts in front of and behind a
 * text; the metadata of a GGUF file), or -1. A model's config.json may name more than one EOS. */
MICA_API int32_t mica_tokenizer_bos(const mica_tokenizer *tokenizer);
MICA_API int32_t mica_tokenizer_eos(const mica_tokenizer *tokenizer);

/** A streaming decoder: pieces of text as tokens arrive. The pieces, put together, are what mica_tokenizer_decode gives
 * for all the ids; only the bytes of a character that is not complete yet are held back. (One exception: in a run of
 * byte tokens that is not UTF-8 as a whole, decode replaces every byte as Hugging Face does, a stream only the
 * malformed ones, since it has shown the others.) The tokenizer must outlive it. NULL when out of memory. */
MICA_API mica_detokenizer *mica_detokenizer_new(const mica_tokenizer *tokenizer, const mica_decode_options *options,
                                                mica_error *err);
MICA_API void mica_detokenizer_free(mica_detokenizer *detokenizer);
/** Adds a token; *piece (borrowed until the next call, NUL-terminated, never NULL) and *size receive the text that it
 * completes, maybe empty. False when out of memory. */
MICA_API bool mica_detokenizer_push(mica_detokenizer *detokenizer, int32_t id, const char **piece, size_t *size,
                                    mica_error *err);
/** Ends the text: gives what was held back (U+FFFD for an incomplete character) and is ready for a new text. */
MICA_API bool mica_detokenizer_finish(mica_detokenizer *detokenizer, const char **piece, size_t *size, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
