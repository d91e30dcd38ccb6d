// SPDX-License-Identifier: Apache-2.0
// "pre_tokenizer" of tokenizer.json -> a flat chain of steps. Anything unknown is an error that names it.
#include "base/utf8.h"
#include "text/component.h"
#include "text/pretok.h"
#include "text/unicode.h"
#include <string.h>

static bool read_behavior(const mica_json *v, mica_split_behavior otherwise, mica_split_behavior *out, const char *what, mica_error *err) {
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
    const char *name;
    *out = otherwise;
    if (!mica_json_string(v, "behavior", NULL, &name, what, err)) return false;
    if (!name) return true;
    for (size_t i = 0; i < MICA_COUNT(names); i++)
        if (!strcmp(name, names[i])) return *out = (mica_split_behavior)i, true;
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: pre_tokenizer: unknown behavior \"%s\"", what, name);
}

static bool read_split(mica_pretok_step *s, const mica_json *v, const char *what, mica_error *err) {
    const char *pattern;
    size_t n;
    bool is_regex;
    if (!mica_component_pattern(v, &pattern, &n, &is_regex, what, err)) return false;
    if (!read_behavior(v, MICA_SPLIT_ISOLATED, &s->behavior, what, err)) return false;
    if (!mica_json_bool(v, "invert", false, &s->invert, what, err)) return false;
    if (is_regex) {
        // A scanner matches everywhere, so Isolated is all there is to do, inverted or not.
        if (s->behavior == MICA_SPLIT_ISOLATED) s->scanner = mica_scanner_find(pattern, n);
        return s->scanner || (s->regex = mica_regex_new(pattern, n, what, err));
    }
    s->literal = mica_strndup(pattern, n);
    s->literal_size = n;
    return s->literal || mica_fail_memory(err, n, "pre_tokenizer");
}

static bool read_byte_level(mica_pretok_step *s, const mica_json *v, const char *what, mica_error *err) {
    s->scanner = mica_scan_gpt2;
    return mica_json_bool(v, "add_prefix_space", true, &s->add_prefix_space, what, err) &&
           mica_json_bool(v, "use_regex", true, &s->use_regex, what, err);
}

static bool read_metaspace(mica_pretok_step *s, const mica_json *v, const char *what, mica_error *err) {
    const char *scheme;
    bool prefix;
    s->behavior = MICA_SPLIT_WITH_NEXT;
    if (!mica_component_char(v, "replacement", 0x2581, &s->character, what, err)) return false;
    if (!mica_json_bool(v, "split", true, &s->split, what, err)) return false;
    return mica_json_bool(v, "add_prefix_space", true, &prefix, what, err) &&
           mica_json_string(v, "prepend_scheme", prefix ? "always" : "never", &scheme, what, err) &&
           mica_component_scheme(scheme, &s->scheme, what, err);
}

static bool read_digits(mica_pretok_step *s, const mica_json *v, const char *what, mica_error *err) {
    bool individual;
    if (!mica_json_bool(v, "individual_digits", false, &individual, what, err)) return false;
    s->behavior = individual ? MICA_SPLIT_ISOLATED : MICA_SPLIT_CONTIGUOUS;
    return true;
}

static bool read_length(mica_pretok_step *s, const mica_json *v, const char *what, mica_error *err) {
    int64_t length;
    if (!mica_json_int(v, "length", 5, &length, what, err)) return false;
    if (length < 1) return mica_fail(err, MICA_ERR_FORMAT, "%s: pre_tokenizer: FixedLength needs a length of at least 1", what);
    s->length = (size_t)length;
    return true;
}

static bool read_step(mica_pretok_step *s, const char *type, const mica_json *v, const char *what, mica_error *err) {
    static const struct { const char *name; mica_pretok_type type; } types[] = {
        {"Split", MICA_PRE_SPLIT}, {"ByteLevel", MICA_PRE_BYTE_LEVEL}, {"Metaspace", MICA_PRE_METASPACE},
        {"Digits", MICA_PRE_DIGITS}, {"Punctuation", MICA_PRE_PUNCTUATION}, {"Whitespace", MICA_PRE_WHITESPACE},
        {"WhitespaceSplit", MICA_PRE_WHITESPACE_SPLIT}, {"Delimiter", MICA_PRE_DELIMITER}, {"CharDelimiterSplit", MICA_PRE_DELIMITER},
        {"FixedLength", MICA_PRE_FIXED_LENGTH},
    };
    size_t i = 0;
    while (i < MICA_COUNT(types) && strcmp(type, types[i].name)) i++;
    if (i == MICA_COUNT(types)) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: pre_tokenizer type \"%s\" is not supported", what, type);
    s->type = types[i].type;
    s->behavior = MICA_SPLIT_REMOVED;
    switch (s->type) {
    case MICA_PRE_SPLIT: return read_split(s, v, what, err);
    case MICA_PRE_BYTE_LEVEL: return read_byte_level(s, v, what, err);
    case MICA_PRE_METASPACE: return read_metaspace(s, v, what, err);
    case MICA_PRE_DIGITS: return read_digits(s, v, what, err);
    case MICA_PRE_PUNCTUATION: return read_behavior(v, MICA_SPLIT_ISOLATED, &s->behavior, what, err);
    case MICA_PRE_DELIMITER: return mica_component_char(v, "delimiter", 0, &s->character, what, err);
    case MICA_PRE_FIXED_LENGTH: return read_length(s, v, what, err);
    default: return true;
    }
}

typedef struct pretok_reader {
    mica_pretok *pretok;
    const char *what;
} pretok_reader;

static bool add_step(void *ctx, const char *type, const mica_json *v, mica_error *err) {
    pretok_reader *r = ctx;
    mica_pretok *p = r->pretok;
    if (!mica_grow(&p->steps, &p->capacity, p->count + 1, sizeof *p->steps)) return mica_fail_memory(err, sizeof *p->steps, "pre_tokenizer");
    mica_pretok_step *s = &p->steps[p->count++];
    memset(s, 0, sizeof *s);
    return read_step(s, type, v, r->what, err);
}

bool mica_pretok_read(mica_pretok *p, const mica_json *v, const char *what, mica_error *err) {
    mica_uc_init();
    pretok_reader r = {p, what};
    if (!mica_component_each(v, "pre_tokenizer", "pretokenizers", add_step, &r, what, err)) return false;
    p->raw_bytes = p->count && p->steps[p->count - 1].type == MICA_PRE_BYTE_LEVEL;
    return true;
}

void mica_pretok_free(mica_pretok *p) {
    for (size_t i = 0; i < p->count; i++) {
        mica_regex_free(p->steps[i].regex);
        mica_free(p->steps[i].literal);
    }
    mica_free(p->steps);
    *p = (mica_pretok){0};
}
