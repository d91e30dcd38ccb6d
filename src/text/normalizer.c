// SPDX-License-Identifier: Apache-2.0
// Normalizers, as Hugging Face tokenizers defines them. Each step reads one buffer and writes the other.
#include "text/normalizer.h"
#include "base/utf8.h"
#include "text/component.h"
#include "text/unicode.h"
#include <string.h>

enum { MAX_GROWTH = 64, MAX_CONTENT = 256 }; // real tokenizers stay far below; a hostile one could fill the memory

// ---- Replace ---------------------------------------------------------------------------------------
typedef struct replace_sink {
    const mica_norm_step *step;
    const char *s;
    size_t last;
    mica_buf *out;
} replace_sink;

static bool on_match(void *ctx, size_t start, size_t end) {
    replace_sink *r = ctx;
    mica_buf_append(r->out, r->s + r->last, start - r->last);
    r->last = end;
    return mica_buf_append(r->out, r->step->content, r->step->content_size);
}

/** One byte is looked for, as in Replace " " -> "▁": words are short, so a plain loop beats memchr. */
static bool replace_byte(const mica_norm_step *step, const char *s, size_t n, mica_buf *out) {
    char c = step->pattern[0];
    size_t hits = 0, size = step->content_size;
    for (size_t i = 0; i < n; i++) hits += s[i] == c;
    if (size > SIZE_MAX / 4 / (hits + 1) || !mica_buf_reserve(out, n + hits * size)) return false;
    char *to = out->data + out->len;
    if (size == 3) {
        for (size_t i = 0; i < n; i++) {
            if (s[i] != c) *to++ = s[i];
            else *to++ = step->content[0], *to++ = step->content[1], *to++ = step->content[2];
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            if (s[i] != c) *to++ = s[i];
            else memcpy(to, step->content, size), to += size;
        }
    }
    *to = 0;
    out->len = (size_t)(to - out->data);
    return true;
}

bool mica_replace_all(const mica_norm_step *step, const char *s, size_t n, mica_buf *out, mica_error *err) {
    if (step->regex) {
        replace_sink r = {step, s, 0, out};
        if (!mica_regex_each(step->regex, s, n, on_match, &r, err))
            return out->failed ? mica_fail_memory(err, n, "text") : false;
        return mica_buf_append(out, s + r.last, n - r.last) || mica_fail_memory(err, n, "text");
    }
    if (step->pattern_size == 1) return replace_byte(step, s, n, out) || mica_fail_memory(err, n, "text");
    size_t last = 0;
    while (step->pattern_size && n - last >= step->pattern_size) {
        const char *at = memmem(s + last, n - last, step->pattern, step->pattern_size);
        if (!at) break;
        mica_buf_append(out, s + last, (size_t)(at - s) - last);
        mica_buf_append(out, step->content, step->content_size);
        last = (size_t)(at - s) + step->pattern_size;
    }
    return mica_buf_append(out, s + last, n - last) || mica_fail_memory(err, n, "text");
}

// ---- the others ------------------------------------------------------------------------------------
static bool put(mica_buf *out, uint32_t cp) {
    char bytes[4];
    return mica_buf_append(out, bytes, mica_utf8_encode(cp, bytes));
}

/** SentencePiece's clean-up: control characters vanish, odd spaces become spaces. */
static bool put_nmt(mica_buf *out, uint32_t cp) {
    bool dropped = (cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F || cp == 0x8F || cp == 0x9F;
    bool space = cp == 9 || cp == 10 || cp == 12 || cp == 13 || cp == 0x1680 || (cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 ||
                 cp == 0x2029 || cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD;
    return dropped || put(out, space ? ' ' : cp);
}

static bool put_char(const mica_norm_step *step, mica_buf *out, uint32_t cp) {
    uint32_t lower[2];
    if (step->type == MICA_NORM_NMT) return put_nmt(out, cp);
    if (step->type == MICA_NORM_STRIP_ACCENTS) return mica_uc(cp) & MICA_UC_MARK || put(out, cp);
    size_t n = mica_uc_lower(cp, lower);
    return put(out, lower[0]) && (n < 2 || put(out, lower[1]));
}

static bool map_chars(const mica_norm_step *step, const char *s, size_t n, mica_buf *out) {
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp;
        if (!(len = mica_utf8_decode(s + i, n - i, &cp)) || !put_char(step, out, cp)) return false;
    }
    return true;
}

static bool put_byte_chars(const char *s, size_t n, mica_buf *out) {
    for (size_t i = 0; i < n; i++)
        if (!put(out, mica_byte_to_char((unsigned char)s[i]))) return false;
    return true;
}

static size_t char_before(const char *s, size_t end, uint32_t *cp) {
    size_t at = end;
    while (at && ((unsigned char)s[--at] & 0xC0) == 0x80) {}
    if (!mica_utf8_decode(s + at, end - at, cp)) *cp = 0;
    return at;
}

static bool strip(const mica_norm_step *step, const char *s, size_t n, mica_buf *out) {
    size_t start = 0, end = n;
    uint32_t cp;
    for (size_t len; step->left && start < n && (len = mica_utf8_decode(s + start, n - start, &cp)) && mica_uc_space(cp);) start += len;
    for (size_t at; step->right && end > start && (at = char_before(s, end, &cp), mica_uc_space(cp));) end = at;
    return mica_buf_append(out, s + start, end - start);
}

static bool run_step(const mica_norm_step *step, const char *s, size_t n, mica_buf *out, mica_error *err) {
    bool ok;
    switch (step->type) {
    case MICA_NORM_REPLACE: return mica_replace_all(step, s, n, out, err);
    case MICA_NORM_FORM: ok = mica_uc_normalize(s, n, (mica_normal_form)step->form, out); break;
    case MICA_NORM_PREPEND: ok = (!n || mica_buf_append(out, step->content, step->content_size)) && mica_buf_append(out, s, n); break;
    case MICA_NORM_STRIP: ok = strip(step, s, n, out); break;
    case MICA_NORM_BYTE_LEVEL: ok = put_byte_chars(s, n, out); break;
    default: ok = map_chars(step, s, n, out); break;
    }
    return ok || mica_fail_memory(err, n, "text");
}

static bool ascii_only(const char *s, size_t n) {
    unsigned char any = 0;
    for (size_t i = 0; i < n; i++) any |= (unsigned char)s[i];
    return any < 0x80;
}

bool mica_normalizer_run(const mica_normalizer *norm, const char *s, size_t n, mica_buf buffers[2], const char **out, size_t *out_size,
                         bool *at_start, mica_error *err) {
    size_t most = n > SIZE_MAX / MAX_GROWTH - 65536 ? SIZE_MAX : (n + 65536) * MAX_GROWTH;
    for (size_t i = 0; i < norm->count; i++) {
        const mica_norm_step *step = &norm->steps[i];
        if (step->type == MICA_NORM_FORM && ascii_only(s, n)) continue;
        mica_buf *to = s == buffers[0].data ? &buffers[1] : &buffers[0];
        to->len = 0;
        // Reserving first gives even an empty result an address.
        bool ok = mica_buf_reserve(to, n) || mica_fail_memory(err, n, "text");
        if (!ok || !run_step(step, s, n, to, err)) return mica_buf_free(to), false;
        if (to->len > most) return mica_fail(err, MICA_ERR_UNSUPPORTED, "tokenizer: normalising makes the text more than %d times as long", MAX_GROWTH);
        if (step->type == MICA_NORM_STRIP && step->left && n && at_start && (!to->len || to->data[0] != s[0])) *at_start = false;
        s = to->data, n = to->len;
    }
    return *out = s, *out_size = n, true;
}

// ---- reading ---------------------------------------------------------------------------------------
static bool keep_string(const mica_json *v, const char *key, char **s, size_t *n, const char *what, mica_error *err) {
    const char *text;
    if (!mica_component_string(v, key, &text, n, what, err)) return false;
    if (*n > MAX_CONTENT) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: \"%s\" is longer than %d bytes", what, key, MAX_CONTENT);
    return (*s = mica_strndup(text, *n)) || mica_fail_memory(err, *n, key);
}

bool mica_replace_read(mica_norm_step *step, const mica_json *v, const char *what, mica_error *err) {
    const char *pattern;
    size_t n;
    bool is_regex;
    step->type = MICA_NORM_REPLACE;
    if (!mica_component_pattern(v, &pattern, &n, &is_regex, what, err)) return false;
    if (!keep_string(v, "content", &step->content, &step->content_size, what, err)) return false;
    if (is_regex || !n) return (step->regex = mica_regex_new(pattern, n, what, err)) != NULL; // an empty string matches everywhere
    step->pattern_size = n;
    return (step->pattern = mica_strndup(pattern, n)) || mica_fail_memory(err, n, "pattern");
}

static bool read_step(mica_norm_step *s, const char *type, const mica_json *v, const char *what, mica_error *err) {
    static const struct { const char *name; mica_norm_type type; int form; } types[] = {
        {"NFC", MICA_NORM_FORM, MICA_NFC}, {"NFD", MICA_NORM_FORM, MICA_NFD}, {"NFKC", MICA_NORM_FORM, MICA_NFKC},
        {"NFKD", MICA_NORM_FORM, MICA_NFKD}, {"Replace", MICA_NORM_REPLACE, 0}, {"Prepend", MICA_NORM_PREPEND, 0},
        {"Lowercase", MICA_NORM_LOWERCASE, 0}, {"Strip", MICA_NORM_STRIP, 0}, {"StripAccents", MICA_NORM_STRIP_ACCENTS, 0},
        {"ByteLevel", MICA_NORM_BYTE_LEVEL, 0}, {"Nmt", MICA_NORM_NMT, 0},
    };
    size_t i = 0;
    while (i < MICA_COUNT(types) && strcmp(type, types[i].name)) i++;
    if (i == MICA_COUNT(types)) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: normalizer type \"%s\" is not supported", what, type);
    s->type = types[i].type, s->form = types[i].form;
    if (s->type == MICA_NORM_REPLACE) return mica_replace_read(s, v, what, err);
    if (s->type == MICA_NORM_PREPEND) return keep_string(v, "prepend", &s->content, &s->content_size, what, err);
    if (s->type != MICA_NORM_STRIP) return true;
    return mica_json_bool(v, "strip_left", true, &s->left, what, err) && mica_json_bool(v, "strip_right", true, &s->right, what, err);
}

typedef struct norm_reader {
    mica_normalizer *normalizer;
    const char *what;
} norm_reader;

static bool add_step(void *ctx, const char *type, const mica_json *v, mica_error *err) {
    norm_reader *r = ctx;
    mica_normalizer *n = r->normalizer;
    if (!mica_grow(&n->steps, &n->capacity, n->count + 1, sizeof *n->steps)) return mica_fail_memory(err, sizeof *n->steps, "normalizer");
    mica_norm_step *s = &n->steps[n->count++];
    memset(s, 0, sizeof *s);
    return read_step(s, type, v, r->what, err);
}

bool mica_normalizer_read(mica_normalizer *n, const mica_json *v, const char *what, mica_error *err) {
    mica_uc_init();
    norm_reader r = {n, what};
    return mica_component_each(v, "normalizer", "normalizers", add_step, &r, what, err);
}

void mica_norm_step_free(mica_norm_step *s) {
    mica_regex_free(s->regex);
    mica_free(s->pattern);
    mica_free(s->content);
}

void mica_normalizer_free(mica_normalizer *n) {
    for (size_t i = 0; i < n->count; i++) mica_norm_step_free(&n->steps[i]);
    mica_free(n->steps);
    *n = (mica_normalizer){0};
}
