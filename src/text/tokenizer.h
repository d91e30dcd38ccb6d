// SPDX-License-Identifier: Apache-2.0
// The tokenizer's parts put together, and how other rooms make one. The public face is mica/tokenizer.h.
#ifndef MICA_TEXT_TOKENIZER_H
#define MICA_TEXT_TOKENIZER_H

#include "mica/tokenizer.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/post.h"
#include "text/pretok.h"
#include "text/tables.h"
#include <pthread.h>

/** What an encode call works with; idle ones wait in the tokenizer, with warm caches. */
typedef struct mica_encoder {
    struct mica_encoder *next;
    mica_pieces pieces;
    mica_bpe_work bpe;
    mica_buf normal[2], clean;
} mica_encoder;

struct mica_tokenizer {
    mica_tables tables;
    mica_normalizer normalizer;
    mica_pretok pretok;
    mica_bpe bpe;
    mica_added added;
    mica_post post;
    mica_decoder decoder;
    bool has_decoder;
    int32_t bos, eos;
    uint32_t id_limit;
    pthread_mutex_t lock; // guards idle
    bool has_lock;
    mica_encoder *idle;
};

void mica_encoder_free(mica_encoder *e);
/** Takes over the tables (also on failure) and reads the components from their config. what: for messages. */
mica_tokenizer *mica_tokenizer_new(mica_tables *tables, const char *what, mica_error *err);
/** From the text of a tokenizer.json, without a cache. */
mica_tokenizer *mica_tokenizer_from_json(const char *json, size_t size, const char *what, mica_error *err);
/** From a tokenizer.json on disk, through the compiled cache. */
mica_tokenizer *mica_tokenizer_from_file(const char *path, mica_error *err);
/** BOS and EOS by their spelling, as tokenizer_config.json names them; NULL or unknown: unchanged. */
void mica_tokenizer_set_ends(mica_tokenizer *t, const char *bos, const char *eos);

/** The text that a token has for decoding; NULL: no such token. */
const char *mica_tokenizer_decoded_form(const mica_tokenizer *t, int32_t id, bool *special, size_t *n);
#endif
