// SPDX-License-Identifier: Apache-2.0
// From a line to tokens, as mlx_lm/tuner/datasets.py has it: a text as the tokenizer encodes it with EOS behind it; a conversation through the
// model's template. What is masked is told by rendering beginnings of the conversation: for the last message as mlx-lm does, by the number of
// tokens before it; for all turns of the assistant by where each beginning ends in the whole text.
#include "train/data_internal.h"
#include <string.h>

static bool make_scores(mica_dataset *d, int value, mica_error *err) {
    if (!mica_grow(&d->scored, &d->scored_capacity, d->ids.len + 1, 1)) return mica_fail_memory(err, d->ids.len, "the scores of an example");
    memset(d->scored, value, d->ids.len);
    return true;
}

static bool encode_text(mica_dataset *d, const mica_line *line, mica_error *err) {
    int32_t eos = mica_tokenizer_eos(d->tokenizer);
    mica_ids *ids = &d->ids;
    if (!mica_tokenizer_encode(d->tokenizer, line->text.data, line->text.n, NULL, ids, err)) return false;
    if (eos >= 0 && (!ids->len || ids->data[ids->len - 1] != eos)) {
        if (!mica_grow(&ids->data, &ids->capacity, ids->len + 1, sizeof *ids->data)) return mica_fail_memory(err, ids->len, "the tokens of an example");
        ids->data[ids->len++] = eos;
    }
    return make_scores(d, 1, err);
}

// ---- conversations ------------------------------------------------------------------------------------------
/** The first `count` messages as text, in place of what was there. */
static bool render(mica_dataset *d, const mica_line *line, size_t count, bool prompt, mica_text *text, mica_marks *marks, mica_error *err) {
    mica_json_writer w = {.out = &d->json};
    d->json.len = 0;
    mica_json_begin_object(&w);
    mica_json_key(&w, "messages");
    mica_json_begin_array(&w);
    for (size_t i = 0; i < count; i++) mica_json_put_raw(&w, line->messages[i].data, line->messages[i].n);
    mica_json_end_array(&w);
    if (line->tools.n) mica_json_key(&w, "tools"), mica_json_put_raw(&w, line->tools.data, line->tools.n);
    mica_json_key(&w, "add_generation_prompt");
    mica_json_put_bool(&w, prompt);
    mica_json_key(&w, "enable_thinking"); // mlx-lm says so to every template
    mica_json_put_bool(&w, d->thinking);
    mica_json_end_object(&w);
    bool failed = d->json.failed;
    d->json.failed = false;
    if (failed) return mica_fail_memory(err, d->json.len, "a conversation");
    text->len = 0;
    if (marks) marks->len = 0;
    return mica_template_render(d->chat, d->json.data, d->json.len, NULL, text, marks, err);
}

/** The first n bytes of a text; the words of its messages are marked, and hold no control tokens. */
static bool encode(mica_dataset *d, const mica_text *text, size_t n, mica_ids *ids, mica_error *err) {
    const mica_encode_options o = {.no_special_tokens = true}; // the template has written them
    size_t count = d->options.allow_control ? 0 : d->marks.len;
    while (count && d->marks.data[count - 1].from >= n) count--;
    mica_mark *last = count ? &d->marks.data[count - 1] : NULL, kept = last ? *last : (mica_mark){0, 0};
    if (last) last->to = MICA_MIN(last->to, n);
    ids->len = 0;
    bool ok = mica_tokenizer_encode_marked(d->tokenizer, text->data ? text->data : "", n, d->marks.data, count, &o, ids, err);
    if (last) *last = kept;
    return ok;
}

static bool mask_last(mica_dataset *d, const mica_line *line, mica_error *err) {
    size_t before = line->count - 1;
    d->prefix.len = 0;
    if (before && (!render(d, line, before, line->assistant[before], &d->text, &d->marks, err) || !encode(d, &d->text, d->text.len, &d->prefix, err)))
        return false;
    memset(d->scored, 0, MICA_MIN(d->prefix.len, d->ids.len));
    return true;
}

// ---- all turns of the assistant -----------------------------------------------------------------------------
static bool begins(const mica_text *whole, const mica_text *part) {
    return part->len <= whole->len && (!part->len || !memcmp(whole->data, part->data, part->len));
}

/** What templates keep of a content in any case. */
static mica_slice trimmed(const mica_json *content) {
    static const char blank[] = " \t\n\r\v\f";
    mica_slice s = {0};
    if (!content || content->type != MICA_JSON_STRING) return s;
    s = (mica_slice){content->string, content->length};
    while (s.n && strchr(blank, s.data[0]) && s.data[0]) s.data++, s.n--;
    while (s.n && strchr(blank, s.data[s.n - 1]) && s.data[s.n - 1]) s.n--;
    return s;
}

static const char *find(const mica_text *text, size_t from, mica_slice part) {
    return part.n && from < text->len ? memmem(text->data + from, text->len - from, part.data, part.n) : NULL;
}

static const char *find_last(const mica_text *text, mica_slice part) {
    const char *found = NULL, *at;
    for (size_t from = 0; (at = find(text, from, part)); from = (size_t)(at - text->data) + 1) found = at;
    return found;
}

static bool no_turn(size_t i, mica_error *err) {
    return mica_fail(err, MICA_ERR_UNSUPPORTED, "messages[%zu]: the template writes a turn otherwise once others follow it, so it cannot be told where the turn is", i);
}

static size_t common(const mica_text *a, const mica_text *b) {
    size_t n = 0, most = MICA_MIN(a->len, b->len);
    while (n < most && a->data[n] == b->data[n]) n++;
    return n;
}

/** Where the i-th message, whose turn comes after `from`, begins in the whole text: behind the prompt for it. Where the prompt begins with what
 * the turn does not (a thought, or none), behind what they share, if all before is the same; otherwise at its content. */
static bool turn_start(mica_dataset *d, const mica_line *line, size_t i, size_t from, size_t *start, mica_error *err) {
    if (i && !render(d, line, i, true, &d->other, NULL, err)) return false;
    size_t shared = i ? common(&d->text, &d->other) : 0;
    bool same = i && shared == d->other.len;
    if (i && !same && !render(d, line, i, false, &d->other, NULL, err)) return false;
    if (i && shared >= from && shared >= d->other.len && begins(&d->text, &d->other)) return *start = shared, true;
    const char *at = find(&d->text, from, trimmed(line->contents[i]));
    if (!at) return no_turn(i, err);
    return *start = (size_t)(at - d->text.data), true;
}

/** Where it ends: behind its content comes what comes there while it is the last message. */
static bool turn_end(mica_dataset *d, const mica_line *line, size_t i, size_t start, size_t *end, mica_error *err) {
    if (i + 1 == line->count) return *end = d->text.len, true;
    if (!render(d, line, i + 1, false, &d->other, NULL, err)) return false;
    if (d->other.len > start && begins(&d->text, &d->other)) return *end = d->other.len, true;
    mica_slice content = trimmed(line->contents[i]);
    const char *there = find_last(&d->other, content), *here = find(&d->text, start, content);
    if (!there || !here) return no_turn(i, err);
    there += content.n, here += content.n;
    const char *there_end = d->other.data + d->other.len, *here_end = d->text.data + d->text.len;
    while (there < there_end && here < here_end && *there == *here) there++, here++;
    return *end = (size_t)(here - d->text.data), true;
}

/** How many tokens lie wholly before a place in the text; *cut: it is in the middle of the next one. */
static bool tokens_before(mica_dataset *d, size_t place, size_t *count, bool *cut, mica_error *err) {
    if (place == d->text.len) return *count = d->ids.len, *cut = false, true;
    if (!encode(d, &d->text, place, &d->prefix, err)) return false;
    size_t n = 0, most = MICA_MIN(d->ids.len, d->prefix.len);
    while (n < most && d->ids.data[n] == d->prefix.data[n]) n++;
    return *count = n, *cut = n < d->prefix.len, true;
}

static bool score_turn(mica_dataset *d, size_t start, size_t end, mica_error *err) {
    size_t from, to;
    bool cut;
    if (!tokens_before(d, start, &from, &cut, err) || !tokens_before(d, end, &to, &cut, err)) return false;
    to = MICA_MIN(to + cut, d->ids.len);
    if (to > from) memset(d->scored + from, 1, to - from);
    return true;
}

static bool mask_others(mica_dataset *d, const mica_line *line, mica_error *err) {
    size_t start = 0, end = 0;
    memset(d->scored, 0, d->ids.len);
    for (size_t i = 0; i < line->count; i++) {
        if (!line->assistant[i]) continue;
        if (!turn_start(d, line, i, end, &start, err) || !turn_end(d, line, i, start, &end, err)) return false;
        if (!score_turn(d, start, end, err)) return false;
    }
    return true;
}

static bool encode_chat(mica_dataset *d, const mica_line *line, mica_error *err) {
    if (!render(d, line, line->count, false, &d->text, &d->marks, err) || !encode(d, &d->text, d->text.len, &d->ids, err)) return false;
    if (!make_scores(d, 1, err)) return false;
    if (d->options.mask == MICA_MASK_LAST) return mask_last(d, line, err);
    return d->options.mask == MICA_MASK_NONE || mask_others(d, line, err);
}

bool mica_line_encode(mica_dataset *d, const mica_line *line, mica_error *err) {
    d->ids.len = 0;
    if (!(line->kind == MICA_LINE_TEXT ? encode_text(d, line, err) : encode_chat(d, line, err))) return false;
    if (d->ids.len) d->scored[0] = 0; // nothing predicts it
    d->targets = 0;
    for (size_t i = 0; i < d->ids.len; i++) d->targets += d->scored[i];
    return true;
}
