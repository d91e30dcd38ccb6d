// SPDX-License-Identifier: Apache-2.0
// Byte pair encoding: a word becomes its characters' (or bytes') tokens, then the pair of lowest rank, leftmost first,
// is merged until none can be.
#ifndef MICA_TEXT_BPE_H
#define MICA_TEXT_BPE_H

#include "base/json.h"
#include "mica/tokenizer.h"
#include "text/tables.h"

enum { MICA_CUT_CHARS = 129 }; // ASCII and ▁

typedef struct mica_bpe {
    const mica_tables *tables;
    bool byte_level;    // words are raw bytes; each stands for GPT-2's character of it
    bool byte_fallback, fuse_unk, ignore_merges;
    bool can_cut;       // words may be cut where no merge can reach across
    bool fallback_all;  // all 256 byte tokens exist
    int32_t unk;        // -1: unknown characters vanish
    bool unk_missing;   // an unk_token is named, but it is no token
    char *unk_name, *prefix, *suffix; // prefix: continuing_subword_prefix, suffix: end_of_word_suffix; NULL: none
    int32_t byte_ids[256];     // byte level: byte -> token, -1: none
    int32_t fallback_ids[256]; // <0xNN>
    int32_t *char_ids;         // [0x10000], character -> token, -1: none (not byte level)
    bool cut[MICA_CUT_CHARS * MICA_CUT_CHARS]; // whether a word may be cut between two characters
} mica_bpe;

/** Working space of one encode call, reused by later ones. */
typedef struct mica_bpe_work {
    uint32_t *symbols, *ranks, *results, *next, *previous;
    size_t symbol_capacity, link_capacity;
    uint64_t *heap;
    size_t heap_capacity, heap_count;
    struct mica_word_slot *cache; // NULL until first used
    mica_buf spelled;
} mica_bpe_work;

/** Reads the small members of "model". byte_level: the pre-tokenizer leaves bytes as they are. */
bool mica_bpe_read(mica_bpe *b, const mica_tables *t, const mica_json *model, bool byte_level, const char *what, mica_error *err);
void mica_bpe_free(mica_bpe *b);
/** Appends the tokens of one word. */
bool mica_bpe_word(const mica_bpe *b, mica_bpe_work *w, const char *word, size_t n, mica_ids *ids, mica_error *err);
void mica_bpe_work_free(mica_bpe_work *w);
bool mica_ids_reserve(mica_ids *ids, size_t extra);
#endif
