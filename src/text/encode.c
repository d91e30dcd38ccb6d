// SPDX-License-Identifier: Apache-2.0
// Encoding: cut out added tokens, normalise what lies between, cut out those that match after normalising, cut the
// rest into words, merge each. What the call works with comes from a list of idle encoders, so that word caches stay
// warm; after a failure it is thrown away, since a buffer that could not grow stays failed.
#include "base/utf8.h"
#include "text/tokenizer.h"

static mica_encoder *take_encoder(mica_tokenizer *t) {
    pthread_mutex_lock(&t->lock);
    mica_encoder *e = t->idle;
    if (e) t->idle = e->next;
    pthread_mutex_unlock(&t->lock);
    return e ? e : mica_calloc(1, sizeof *e);
}

static void give_back(mica_tokenizer *t, mica_encoder *e) {
    pthread_mutex_lock(&t->lock);
    e->next = t->idle;
    t->idle = e;
    pthread_mutex_unlock(&t->lock);
}

typedef struct encoding {
    const mica_tokenizer *t;
    mica_encoder *e;
    mica_ids *ids;
    mica_error *err;
    bool plain;
} encoding;

static bool put_token(const encoding *c, const mica_added_token *token) {
    if (!mica_ids_reserve(c->ids, 1)) return mica_fail_memory(c->err, 4, "ids");
    c->ids->data[c->ids->len++] = (int32_t)token->id;
    return true;
}

/** Text without added tokens. */
static bool encode_words(const encoding *c, const char *s, size_t n, bool at_start) {
    mica_pieces *w = &c->e->pieces;
    if (!c->t->pretok.count) return mica_bpe_word(&c->t->bpe, &c->e->bpe, s, n, c->ids, c->err);
    if (!mica_pretok_run(&c->t->pretok, s, n, at_start, w, c->err)) return false;
    for (size_t i = 0; i < w->count; i++)
        if (!mica_bpe_word(&c->t->bpe, &c->e->bpe, w->base + w->items[i].start, w->items[i].end - w->items[i].start, c->ids, c->err)) return false;
    return true;
}

typedef bool part_fn(const encoding *c, const char *s, size_t n, bool at_start);

/** Runs `between` on the text between the added tokens of a trie. */
static bool split_added(const encoding *c, const mica_trie *trie, const char *s, size_t n, bool at_start, part_fn *between) {
    size_t from = 0, taken = 0, start, end;
    if (!trie->count) return !n || between(c, s, n, at_start);
    for (const mica_added_token *token; (token = mica_added_next(&c->t->added, trie, s, n, c->plain, taken, &from, &start, &end));) {
        if (taken < start && !between(c, s + taken, start - taken, at_start && taken == 0)) return false;
        if (start < end && !put_token(c, token)) return false; // spaces that an earlier token took leave nothing of it
        taken = end;
    }
    return taken >= n || between(c, s + taken, n - taken, at_start && taken == 0);
}

static bool encode_raw_part(const encoding *c, const char *s, size_t n, bool at_start) {
    const char *normal;
    size_t size;
    if (!mica_normalizer_run(&c->t->normalizer, s, n, c->e->normal, &normal, &size, &at_start, c->err)) return false;
    return split_added(c, &c->t->added.normalized, normal, size, at_start, encode_words);
}

static bool put_ids(const encoding *c, const mica_ids *ids) {
    if (!mica_ids_reserve(c->ids, ids->len)) return mica_fail_memory(c->err, ids->len * 4, "ids");
    for (size_t i = 0; i < ids->len; i++) c->ids->data[c->ids->len++] = ids->data[i];
    return true;
}

static bool encode_text(const encoding *c, const char *s, size_t n, bool specials) {
    if (!mica_utf8_valid(s, n)) {
        c->e->clean.len = 0;
        if (!mica_put_lossy(s, n, &c->e->clean)) return mica_fail_memory(c->err, n, "text");
        s = c->e->clean.data, n = c->e->clean.len;
    }
    if (specials && !put_ids(c, &c->t->post.before)) return false;
    if (!split_added(c, &c->t->added.raw, s, n, true, encode_raw_part)) return false;
    return !specials || put_ids(c, &c->t->post.after);
}

bool mica_tokenizer_encode(const mica_tokenizer *tokenizer, const char *text, size_t size, const mica_encode_options *options, mica_ids *ids,
                           mica_error *err) {
    mica_tokenizer *t = (mica_tokenizer *)(uintptr_t)tokenizer; // for its list of idle encoders only
    mica_encode_options none = {0};
    if (!options) options = &none;
    size_t before = ids->len;
    mica_encoder *e = take_encoder(t);
    if (!e) return mica_fail_memory(err, sizeof *e, "encoder");
    encoding c = {t, e, ids, err, options->plain};
    if (encode_text(&c, text, size, !options->no_special_tokens)) return give_back(t, e), true;
    mica_encoder_free(e);
    ids->len = before;
    return false;
}
