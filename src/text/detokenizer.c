// SPDX-License-Identifier: Apache-2.0
// Decoding, one token at a time. A token's form goes through the decoder's token steps; its bytes join those held back;
// whole characters leave. Decoding a list is the same machine run to its end, except that a run of byte tokens is then
// judged as a whole, as the reference does.
#include "base/utf8.h"
#include "text/tokenizer.h"

struct mica_detokenizer {
    const mica_tokenizer *t;
    mica_decode_options options;
    bool whole_runs;   // hold a run of byte tokens until it ends
    bool in_bytes;     // what is held back comes from byte tokens
    size_t seen;       // tokens so far, skipped ones not counted
    size_t strip_left; // characters that the leading Strip may still take
    mica_buf step[2], held, out;
    mica_strings waiting; // chains that do not stream
};

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; // U+FFFD

static void restart(mica_detokenizer *d) {
    const mica_decoder *c = &d->t->decoder;
    d->seen = 0;
    d->in_bytes = false;
    d->held.len = 0;
    d->strip_left = c->streams && c->strip_step != SIZE_MAX ? c->steps[c->strip_step].start : 0;
    d->waiting.text.len = d->waiting.count = 0;
}

/** Appends finished text, less what the leading Strip takes. */
static bool emit(mica_detokenizer *d, const char *s, size_t n) {
    if (d->strip_left && n) {
        char c[4];
        size_t len = mica_utf8_encode(d->t->decoder.steps[d->t->decoder.strip_step].character, c);
        while (d->strip_left && n >= len && !memcmp(s, c, len)) s += len, n -= len, d->strip_left--;
        if (n) d->strip_left = 0;
    }
    return mica_buf_append(&d->out, s, n);
}

/** Ends a run of byte tokens: what is left of it is no character. */
static bool flush_bytes(mica_detokenizer *d) {
    bool ok = true;
    if (d->options.raw || mica_utf8_valid(d->held.data, d->held.len)) ok = emit(d, d->held.data, d->held.len);
    else
        for (size_t i = 0; ok && i < d->held.len; i++) ok = emit(d, REPLACEMENT, 3);
    d->held.len = 0;
    d->in_bytes = false;
    return ok;
}

/** Lets go of the whole characters at the front of a run of byte tokens, and of bytes that can begin none. */
static bool drain_bytes(mica_detokenizer *d) {
    size_t i = 0, len;
    for (uint32_t cp; i < d->held.len; i += len) {
        const char *s = d->held.data + i;
        size_t n = d->held.len - i;
        if ((len = mica_utf8_decode(s, n, &cp))) {
            if (!emit(d, s, len)) return false;
        } else if (mica_utf8_incomplete(s, n) == n) {
            break;
        } else {
            len = 1;
            if (!emit(d, REPLACEMENT, 3)) return false;
        }
    }
    memmove(d->held.data, d->held.data + i, d->held.len - i);
    d->held.len -= i;
    return true;
}

/** Bytes that may be any part of a character (byte-level tokens). */
static bool put_bytes(mica_detokenizer *d, const char *s, size_t n) {
    if (d->options.raw) return emit(d, s, n);
    if (!mica_buf_append(&d->held, s, n)) return false;
    size_t keep = mica_utf8_incomplete(d->held.data, d->held.len), done = d->held.len - keep;
    d->step[1].len = 0;
    if (!mica_put_lossy(d->held.data, done, &d->step[1]) || !emit(d, d->step[1].data, d->step[1].len)) return false;
    memmove(d->held.data, d->held.data + done, keep);
    d->held.len = keep;
    return true;
}

static bool put_byte_token(mica_detokenizer *d, char byte) {
    if (d->options.raw) return emit(d, &byte, 1);
    d->in_bytes = true;
    return mica_buf_putc(&d->held, byte) && (d->whole_runs || drain_bytes(d));
}

static bool put_token(mica_detokenizer *d, const char *s, size_t n, mica_error *err) {
    const mica_decoder *c = &d->t->decoder;
    for (size_t i = 0; i < c->token_steps; i++) {
        mica_buf *to = &d->step[i % 2];
        to->len = 0;
        if (!mica_buf_reserve(to, n)) return false;
        if (!mica_decoder_token_step(&c->steps[i], s, n, d->seen == 0, to, err)) return false;
        s = to->data, n = to->len;
    }
    if (c->byte_level) {
        mica_buf *to = &d->step[c->token_steps % 2];
        to->len = 0;
        return mica_put_byte_level(s, n, to) && put_bytes(d, to->data, to->len);
    }
    int byte = c->byte_fallback ? mica_byte_token(s, n) : -1;
    if (byte >= 0) return put_byte_token(d, (char)byte);
    return (!d->in_bytes || flush_bytes(d)) && emit(d, s, n);
}

static bool push(mica_detokenizer *d, int32_t id, mica_error *err) {
    bool special, ok;
    size_t n;
    const char *s = mica_tokenizer_decoded_form(d->t, id, &special, &n);
    if (!s || (special && d->options.skip_special)) return true;
    if (!d->t->has_decoder) ok = (!d->seen || emit(d, " ", 1)) && emit(d, s, n);
    else if (d->t->decoder.streams) ok = put_token(d, s, n, err);
    else ok = mica_buf_append(&d->waiting.text, s, n) && mica_strings_end(&d->waiting);
    d->seen++;
    return ok || mica_fail_memory(err, n, "text");
}

static bool finish(mica_detokenizer *d, mica_error *err) {
    bool ok = true;
    if (d->in_bytes) ok = flush_bytes(d);
    d->step[1].len = 0;
    if (ok && d->held.len) ok = mica_put_lossy(d->held.data, d->held.len, &d->step[1]) && emit(d, d->step[1].data, d->step[1].len);
    if (ok && d->t->has_decoder && !d->t->decoder.streams) return mica_decoder_run(&d->t->decoder, &d->waiting, &d->out, err);
    return ok || mica_fail_memory(err, d->held.len, "text");
}

static void release(mica_detokenizer *d) {
    mica_buf_free(&d->step[0]);
    mica_buf_free(&d->step[1]);
    mica_buf_free(&d->held);
    mica_buf_free(&d->out);
    mica_strings_free(&d->waiting);
}

mica_detokenizer *mica_detokenizer_new(const mica_tokenizer *t, const mica_decode_options *options, mica_error *err) {
    mica_detokenizer *d = mica_calloc(1, sizeof *d);
    if (!d) return mica_fail_memory(err, sizeof *d, "detokenizer"), NULL;
    d->t = t;
    if (options) d->options = *options;
    // Enough for any usual piece, so that a stream allocates nothing.
    if (mica_buf_reserve(&d->out, 256) && mica_buf_reserve(&d->held, 16) && mica_buf_reserve(&d->step[0], 256) && mica_buf_reserve(&d->step[1], 256))
        return restart(d), d;
    mica_detokenizer_free(d);
    return mica_fail_memory(err, 800, "detokenizer"), NULL;
}

void mica_detokenizer_free(mica_detokenizer *d) {
    if (!d) return;
    release(d);
    mica_free(d);
}

static void show(mica_detokenizer *d, const char **piece, size_t *size) {
    d->out.data[d->out.len] = 0;
    *piece = d->out.data, *size = d->out.len;
}

bool mica_detokenizer_push(mica_detokenizer *d, int32_t id, const char **piece, size_t *size, mica_error *err) {
    d->out.len = 0;
    if (!push(d, id, err)) return *piece = "", *size = 0, false;
    return show(d, piece, size), true;
}

bool mica_detokenizer_finish(mica_detokenizer *d, const char **piece, size_t *size, mica_error *err) {
    d->out.len = 0;
    if (!finish(d, err)) return *piece = "", *size = 0, false;
    restart(d);
    return show(d, piece, size), true;
}

bool mica_tokenizer_decode(const mica_tokenizer *t, const int32_t *ids, size_t count, const mica_decode_options *options, mica_text *text,
                           mica_error *err) {
    mica_detokenizer d = {.t = t, .whole_runs = true};
    if (options) d.options = *options;
    // The output continues the caller's text.
    d.out = (mica_buf){.data = text->data, .len = text->len, .capacity = text->capacity};
    size_t before = text->len;
    restart(&d);
    bool ok = mica_buf_reserve(&d.out, count * 4) && mica_buf_reserve(&d.held, 16) && mica_buf_reserve(&d.step[0], 64) &&
              mica_buf_reserve(&d.step[1], 64);
    if (!ok) mica_fail_memory(err, count * 4, "text");
    for (size_t i = 0; ok && i < count; i++) ok = push(&d, ids[i], err);
    ok = ok && finish(&d, err);
    if (d.out.data) d.out.data[ok ? d.out.len : before] = 0;
    *text = (mica_text){d.out.data, ok ? d.out.len : before, d.out.capacity};
    d.out = (mica_buf){0};
    release(&d);
    return ok;
}
