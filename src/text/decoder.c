// SPDX-License-Identifier: Apache-2.0
// Decoder steps, as Hugging Face tokenizers defines them, and their general executor. The detokenizer runs the usual
// chains by itself; see detokenizer.c.
#include "text/decoder.h"
#include "base/utf8.h"
#include "text/component.h"
#include <string.h>

static const char REPLACEMENT[] = "\xEF\xBF\xBD"; // U+FFFD

int mica_byte_token(const char *s, size_t n) {
    int value = 0;
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (i == 3 && c == '+') digit = 0; // Rust's number parser takes a sign
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

bool mica_put_byte_level(const char *s, size_t n, mica_buf *out) {
    size_t before = out->len;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp = 0;
        if (!(len = mica_utf8_decode(s + i, n - i, &cp))) len = 1, cp = 0;
        int byte = mica_char_to_byte(cp);
        if (byte < 0) {
            out->len = before;
            return mica_buf_append(out, s, n);
        }
        if (!mica_buf_putc(out, (char)byte)) return false;
    }
    return true;
}

/** Length of the longest beginning of a character at s (which does not hold a whole one), at least 1. */
static size_t malformed(const char *s, size_t n) {
    unsigned char a = (unsigned char)s[0], b = n > 1 ? (unsigned char)s[1] : 0;
    size_t len = a >= 0xF0 && a <= 0xF4 ? 4 : a >= 0xE0 ? 3 : 2;
    if (a < 0xC2 || a > 0xF4) return 1;
    bool second = (b & 0xC0) == 0x80 && !(a == 0xE0 && b < 0xA0) && !(a == 0xED && b >= 0xA0) && !(a == 0xF0 && b < 0x90) &&
                  !(a == 0xF4 && b >= 0x90);
    if (!second) return 1;
    size_t i = 2;
    while (i < len && i < n && ((unsigned char)s[i] & 0xC0) == 0x80) i++;
    return i;
}

size_t mica_utf8_incomplete(const char *s, size_t n) {
    size_t back = 0;
    while (back < n && back < 3 && ((unsigned char)s[n - back - 1] & 0xC0) == 0x80) back++;
    if (back == n) return 0;
    uint32_t cp;
    const char *lead = s + n - back - 1;
    unsigned char a = (unsigned char)*lead;
    size_t len = a >= 0xF0 ? 4 : a >= 0xE0 ? 3 : a >= 0xC2 ? 2 : 1;
    if (a > 0xF4 || len <= back + 1 || mica_utf8_decode(lead, back + 1, &cp)) return 0;
    return malformed(lead, back + 1) == back + 1 ? back + 1 : 0;
}

bool mica_put_lossy(const char *s, size_t n, mica_buf *out) {
    size_t good = 0;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp;
        if ((len = mica_utf8_decode(s + i, n - i, &cp))) continue;
        len = malformed(s + i, n - i);
        if (!mica_buf_append(out, s + good, i - good) || !mica_buf_append(out, REPLACEMENT, 3)) return false;
        good = i + len;
    }
    return mica_buf_append(out, s + good, n - good);
}

// ---- steps on one token ----------------------------------------------------------------------------
static size_t char_start(const char *s, size_t end) {
    while (end && ((unsigned char)s[--end] & 0xC0) == 0x80) {}
    return end;
}

static bool strip(const mica_dec_step *step, const char *s, size_t n, mica_buf *out) {
    char c[4];
    size_t len = mica_utf8_encode(step->character, c), start = 0, end = n;
    for (size_t i = 0; i < step->start && n - start >= len && !memcmp(s + start, c, len); i++) start += len;
    for (size_t i = 0; i < step->stop && end > start; i++) {
        size_t at = char_start(s, end);
        if (end - at != len || memcmp(s + at, c, len)) break;
        end = at;
    }
    return mica_buf_append(out, s + start, end - start);
}

static bool metaspace(const mica_dec_step *step, const char *s, size_t n, bool first, mica_buf *out) {
    bool vanish = first && step->scheme != MICA_PREPEND_NEVER;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp = 0;
        if (!(len = mica_utf8_decode(s + i, n - i, &cp))) len = 1, cp = 0;
        bool mark = cp == step->character;
        if (mark && vanish) continue;
        if (!mica_buf_append(out, mark ? " " : s + i, mark ? 1 : len)) return false;
    }
    return true;
}

bool mica_decoder_token_step(const mica_dec_step *step, const char *s, size_t n, bool first, mica_buf *out, mica_error *err) {
    if (step->type == MICA_DEC_REPLACE) return mica_replace_all(&step->replace, s, n, out, err);
    bool ok = step->type == MICA_DEC_STRIP ? strip(step, s, n, out) : metaspace(step, s, n, first, out);
    return ok || mica_fail_memory(err, n, "text");
}

// ---- any chain -------------------------------------------------------------------------------------
bool mica_strings_end(mica_strings *list) {
    if (list->text.failed || !mica_grow(&list->ends, &list->capacity, list->count + 1, sizeof *list->ends)) return false;
    list->ends[list->count++] = list->text.len;
    return true;
}

void mica_strings_free(mica_strings *list) {
    mica_buf_free(&list->text);
    mica_free(list->ends);
    *list = (mica_strings){0};
}

static bool put_bytes_run(const char *s, size_t n, mica_strings *to) {
    if (!n) return true;
    if (mica_utf8_valid(s, n)) return mica_buf_append(&to->text, s, n) && mica_strings_end(to);
    for (size_t i = 0; i < n; i++)
        if (!mica_buf_append(&to->text, REPLACEMENT, 3) || !mica_strings_end(to)) return false;
    return true;
}

static bool byte_fallback(const mica_strings *from, mica_strings *to) {
    mica_buf bytes = {0};
    bool ok = true;
    for (size_t i = 0, start = 0; ok && i < from->count; start = from->ends[i++]) {
        const char *s = from->text.data + start;
        size_t n = from->ends[i] - start;
        int byte = mica_byte_token(s, n);
        if (byte >= 0) {
            ok = mica_buf_putc(&bytes, (char)byte);
            continue;
        }
        ok = put_bytes_run(bytes.data, bytes.len, to) && mica_buf_append(&to->text, s, n) && mica_strings_end(to);
        bytes.len = 0;
    }
    ok = ok && put_bytes_run(bytes.data, bytes.len, to);
    mica_buf_free(&bytes);
    return ok;
}

static bool byte_level(const mica_strings *from, mica_strings *to) {
    mica_buf bytes = {0};
    bool ok = true;
    for (size_t i = 0, start = 0; ok && i < from->count; start = from->ends[i++])
        ok = mica_put_byte_level(from->text.data + start, from->ends[i] - start, &bytes);
    ok = ok && mica_put_lossy(bytes.data, bytes.len, &to->text) && mica_strings_end(to);
    mica_buf_free(&bytes);
    return ok;
}

static bool run_step(const mica_dec_step *step, const mica_strings *from, mica_strings *to, mica_error *err) {
    bool ok;
    switch (step->type) {
    case MICA_DEC_BYTE_FALLBACK: ok = byte_fallback(from, to); break;
    case MICA_DEC_BYTE_LEVEL: ok = byte_level(from, to); break;
    case MICA_DEC_FUSE: ok = mica_buf_append(&to->text, from->text.data, from->text.len) && mica_strings_end(to); break;
    default:
        ok = true;
        for (size_t i = 0, start = 0; ok && i < from->count; start = from->ends[i++]) {
            if (!mica_decoder_token_step(step, from->text.data + start, from->ends[i] - start, i == 0, &to->text, err)) return false;
            ok = mica_strings_end(to);
        }
    }
    return ok || mica_fail_memory(err, from->text.len, "text");
}

bool mica_decoder_run(const mica_decoder *d, mica_strings *tokens, mica_buf *out, mica_error *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < d->count; i++) {
        mica_strings next = {0};
        ok = run_step(&d->steps[i], tokens, &next, err);
        mica_strings_free(tokens);
        *tokens = next;
    }
    return ok && (mica_buf_append(out, tokens->text.data, tokens->text.len) || mica_fail_memory(err, tokens->text.len, "text"));
}

// ---- reading ---------------------------------------------------------------------------------------
static bool read_strip(mica_dec_step *s, const mica_json *v, const char *what, mica_error *err) {
    int64_t start, stop;
    if (!mica_component_char(v, "content", 0, &s->character, what, err)) return false;
    if (!mica_json_int(v, "start", 0, &start, what, err) || !mica_json_int(v, "stop", 0, &stop, what, err)) return false;
    if (start < 0 || stop < 0) return mica_fail(err, MICA_ERR_FORMAT, "%s: decoder: Strip needs counts that are not negative", what);
    return s->start = (size_t)start, s->stop = (size_t)stop, true;
}

static bool read_metaspace(mica_dec_step *s, const mica_json *v, const char *what, mica_error *err) {
    const char *scheme;
    bool prefix;
    return mica_component_char(v, "replacement", 0x2581, &s->character, what, err) &&
           mica_json_bool(v, "add_prefix_space", true, &prefix, what, err) &&
           mica_json_string(v, "prepend_scheme", prefix ? "always" : "never", &scheme, what, err) &&
           mica_component_scheme(scheme, &s->scheme, what, err);
}

typedef struct dec_reader {
    mica_decoder *decoder;
    const char *what;
} dec_reader;

static bool add_step(void *ctx, const char *type, const mica_json *v, mica_error *err) {
    static const char *const names[] = {"ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"};
    dec_reader *r = ctx;
    mica_decoder *d = r->decoder;
    size_t i = 0;
    while (i < MICA_COUNT(names) && strcmp(type, names[i])) i++;
    if (i == MICA_COUNT(names)) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: decoder type \"%s\" is not supported", r->what, type);
    if (!mica_grow(&d->steps, &d->capacity, d->count + 1, sizeof *d->steps)) return mica_fail_memory(err, sizeof *d->steps, "decoder");
    mica_dec_step *s = &d->steps[d->count++];
    memset(s, 0, sizeof *s);
    s->type = (mica_dec_type)i;
    if (s->type == MICA_DEC_REPLACE) return mica_replace_read(&s->replace, v, r->what, err);
    if (s->type == MICA_DEC_STRIP) return read_strip(s, v, r->what, err);
    return s->type != MICA_DEC_METASPACE || read_metaspace(s, v, r->what, err);
}

/** Sees whether the chain is token steps, bytes, Fuse, a leading Strip, each of them optional. */
static void find_stream_form(mica_decoder *d) {
    size_t i = 0;
    d->strip_step = SIZE_MAX;
    while (i < d->count && (d->steps[i].type == MICA_DEC_REPLACE || d->steps[i].type == MICA_DEC_METASPACE || d->steps[i].type == MICA_DEC_STRIP)) i++;
    d->token_steps = i;
    bool fused = false;
    if (i < d->count && d->steps[i].type == MICA_DEC_BYTE_LEVEL) d->byte_level = fused = true, i++;
    else if (i < d->count && d->steps[i].type == MICA_DEC_BYTE_FALLBACK) d->byte_fallback = true, i++;
    while (i < d->count && d->steps[i].type == MICA_DEC_FUSE) fused = true, i++;
    if (fused && i < d->count && d->steps[i].type == MICA_DEC_STRIP && !d->steps[i].stop) d->strip_step = i++;
    d->streams = i == d->count;
}

bool mica_decoder_read(mica_decoder *d, const mica_json *v, const char *what, mica_error *err) {
    dec_reader r = {d, what};
    if (!mica_component_each(v, "decoder", "decoders", add_step, &r, what, err)) return false;
    find_stream_form(d);
    return true;
}

void mica_decoder_free(mica_decoder *d) {
    for (size_t i = 0; i < d->count; i++) mica_norm_step_free(&d->steps[i].replace);
    mica_free(d->steps);
    *d = (mica_decoder){0};
}
