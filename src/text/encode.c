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
    const char *text;         // the whole of it, which the marks refer to
    mica_added_limits limits; // marks of the whole text
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

/** Runs `between` on the text between the added tokens of a trie. limits: with marks of s. */
static bool split_added(const encoding *c, const mica_trie *trie, const mica_added_limits *limits, const char *s, size_t n, bool at_start, part_fn *between) {
    size_t from = 0, taken = 0, start, end;
    if (!trie->count) return !n || between(c, s, n, at_start);
    for (const mica_added_token *token; (token = mica_added_next(&c->t->added, trie, s, n, limits, taken, &from, &start, &end));) {
        if (taken < start && !between(c, s + taken, start - taken, at_start && taken == 0)) return false;
        if (start < end && !put_token(c, token)) return false; // spaces that an earlier token took leave nothing of it
        taken = end;
    }
    return taken >= n || between(c, s + taken, n - taken, at_start && taken == 0);
}

/** How long s[0…n) is once normalised: where byte n of a part lies in its normal form. */
static bool normal_size(const encoding *c, const char *s, size_t n, bool at_start, size_t *size) {
    mica_buf buffers[2] = {{0}, {0}};
    const char *normal;
    bool ok = mica_normalizer_run(&c->t->normalizer, s, n, buffers, &normal, size, &at_start, c->err);
    mica_buf_free(&buffers[0]);
    mica_buf_free(&buffers[1]);
    return ok;
}

/** The marks of s[0…n), which lies in the text at `base`, as places in its normal form. */
static bool marks_of_part(const encoding *c, const char *s, size_t n, bool at_start, bool changed, mica_marks *out) {
    size_t base = (size_t)(s - c->text);
    for (size_t i = 0; i < c->limits.mark_count; i++) {
        mica_mark m = c->limits.marks[i];
        if (m.to <= base || m.from >= base + n) continue;
        m = (mica_mark){m.from > base ? m.from - base : 0, MICA_MIN(m.to - base, n)};
        if (changed && m.from && !normal_size(c, s, m.from, at_start, &m.from)) return false;
        if (changed && !normal_size(c, s, m.to, at_start, &m.to)) return false;
        if (!mica_grow(&out->data, &out->capacity, out->len + 1, sizeof *out->data)) return mica_fail_memory(c->err, sizeof *out->data, "marks");
        out->data[out->len++] = m;
    }
    return true;
}

static bool encode_raw_part(const encoding *c, const char *s, size_t n, bool at_start) {
    const char *normal;
    size_t size;
    bool started = at_start;
    mica_marks marks = {0};
    if (!mica_normalizer_run(&c->t->normalizer, s, n, c->e->normal, &normal, &size, &at_start, c->err)) return false;
    bool ok = true;
    if (c->t->added.special_normalized && c->limits.mark_count)
        ok = marks_of_part(c, s, n, started, size != n || memcmp(s, normal, n) != 0, &marks);
    mica_added_limits limits = {c->limits.plain, marks.data, marks.len};
    ok = ok && split_added(c, &c->t->added.normalized, &limits, normal, size, at_start, encode_words);
    mica_marks_free(&marks);
    return ok;
}

static bool put_ids(const encoding *c, const mica_ids *ids) {
    if (!mica_ids_reserve(c->ids, ids->len)) return mica_fail_memory(c->err, ids->len * 4, "ids");
    for (size_t i = 0; i < ids->len; i++) c->ids->data[c->ids->len++] = ids->data[i];
    return true;
}

/** The text with U+FFFD for what is malformed, and the marks where they lie then. */
static bool clean(encoding *c, const char *s, size_t n, mica_marks *marks) {
    mica_buf *to = &c->e->clean;
    size_t at = 0;
    to->len = 0;
    for (size_t i = 0; i < c->limits.mark_count; i++) {
        mica_mark m = c->limits.marks[i];
        if (!mica_put_lossy(s + at, m.from - at, to)) break;
        size_t from = to->len;
        if (!mica_put_lossy(s + m.from, m.to - m.from, to) || !mica_grow(&marks->data, &marks->capacity, marks->len + 1, sizeof *marks->data)) break;
        marks->data[marks->len++] = (mica_mark){from, to->len};
        at = m.to;
    }
    if (marks->len < c->limits.mark_count || !mica_put_lossy(s + at, n - at, to)) return mica_fail_memory(c->err, n, "text");
    c->limits.marks = marks->data;
    return true;
}

static bool encode_text(encoding *c, const char *s, size_t n, bool specials) {
    mica_marks marks = {0};
    bool ok = true;
    if (!mica_utf8_valid(s, n)) {
        ok = clean(c, s, n, &marks);
        s = c->e->clean.data, n = c->e->clean.len;
    }
    c->text = s;
    ok = ok && (!specials || put_ids(c, &c->t->post.before)) && split_added(c, &c->t->added.raw, &c->limits, s, n, true, encode_raw_part) &&
         (!specials || put_ids(c, &c->t->post.after));
    mica_marks_free(&marks);
    return ok;
}

static bool marks_are_sound(const mica_mark *marks, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++)
        if (marks[i].from > marks[i].to || marks[i].to > size || (i && marks[i].from < marks[i - 1].to)) return false;
    return true;
}

bool mica_tokenizer_encode_marked(const mica_tokenizer *tokenizer, const char *text, size_t size, const mica_mark *marks, size_t mark_count,
                                  const mica_encode_options *options, mica_ids *ids, mica_error *err) {
    mica_tokenizer *t = (mica_tokenizer *)(uintptr_t)tokenizer; // for its list of idle encoders only
    mica_encode_options none = {0};
    if (!options) options = &none;
    if (!marks_are_sound(marks, mark_count, size)) return mica_fail(err, MICA_ERR_ARGUMENT, "the marks of a text must be in order, apart and inside of it");
    size_t before = ids->len;
    mica_encoder *e = take_encoder(t);
    if (!e) return mica_fail_memory(err, sizeof *e, "encoder");
    encoding c = {.t = t, .e = e, .ids = ids, .err = err, .limits = {options->plain, marks, mark_count}};
    if (encode_text(&c, text, size, !options->no_special_tokens)) return give_back(t, e), true;
    mica_encoder_free(e);
    ids->len = before;
    return false;
}

bool mica_tokenizer_encode(const mica_tokenizer *tokenizer, const char *text, size_t size, const mica_encode_options *options, mica_ids *ids,
                           mica_error *err) {
    return mica_tokenizer_encode_marked(tokenizer, text, size, NULL, 0, options, ids, err);
}
