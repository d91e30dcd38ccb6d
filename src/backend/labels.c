// SPDX-License-Identifier: Apache-2.0
// A label is what the model would write after the prompt, so its tokens are those that encoding both together gives it. Spaces at the end of a
// prompt would be tokens of their own there, which no model has seen before a word: they are moved to the label (as lm-evaluation-harness
// does).
#include "backend/labels.h"
#include "base/base.h"
#include <string.h>

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

size_t mica_label_context(const char *prompt, size_t n) {
    size_t end = n;
    while (end && prompt[end - 1] == ' ') end--;
    return end ? end : n; // nothing but spaces: they are the prompt
}

static bool wants_space(const char *text, size_t n, const char *label) {
    if (!n || is_space(label[0])) return false;
    char last = text[n - 1];
    return (last >= '0' && last <= '9') || (last >= 'A' && last <= 'Z') || (last >= 'a' && last <= 'z') || (last && strchr(".,:;!?)]}%", last));
}

static bool join(mica_buf *to, const char *text, size_t n, size_t from, const char *label) {
    mica_buf_append(to, text + from, n - from);
    if (wants_space(text, n, label)) mica_buf_putc(to, ' ');
    return mica_buf_puts(to, label);
}

static bool encode(const mica_tokenizer *t, const mica_buf *text, bool special, mica_ids *out, mica_error *err) {
    out->len = 0;
    return mica_tokenizer_encode(t, text->data ? text->data : "", text->len, &(mica_encode_options){.no_special_tokens = !special}, out, err);
}

static bool begins_with(const mica_ids *all, const mica_ids *first) {
    return all->len > first->len && (!first->len || !memcmp(all->data, first->data, first->len * sizeof *all->data));
}

static void drop_first(mica_ids *ids, size_t n) {
    memmove(ids->data, ids->data + n, (ids->len - n) * sizeof *ids->data);
    ids->len -= n;
}

// What the encoding of before + after has beyond that of before, if it begins with it; else the encoding of after.
static bool encode_after(const mica_tokenizer *t, const char *before, const char *after, mica_ids *out, mica_error *err) {
    mica_buf text = {0};
    mica_ids first = {0};
    mica_buf_puts(&text, before);
    bool ok = encode(t, &text, false, &first, err) && (mica_buf_puts(&text, after) || mica_fail_memory(err, strlen(after), "a label")) &&
              encode(t, &text, false, out, err);
    if (ok && begins_with(out, &first)) drop_first(out, first.len);
    else if (ok) {
        out->len = 0;
        ok = mica_tokenizer_encode(t, after, strlen(after), &(mica_encode_options){.no_special_tokens = true}, out, err);
    }
    mica_ids_free(&first);
    mica_buf_free(&text);
    return ok;
}

bool mica_label_ids(const mica_tokenizer *t, const char *text, size_t n, size_t context, const mica_ids *ids, bool whole, const char *label,
                    mica_ids *out, mica_error *err) {
    mica_buf both = {0};
    bool ok = join(&both, text, n, 0, label) || mica_fail_memory(err, n, "a prompt");
    ok = ok && encode(t, &both, whole, out, err);
    if (ok && begins_with(out, ids)) drop_first(out, ids->len);
    else if (ok) { // after a new line, which nothing joins with: at its beginning a text may get a space of its own
        both.len = 0;
        ok = join(&both, text, n, context, label) ? encode_after(t, "\n", both.data, out, err) : mica_fail_memory(err, n, "a label");
    }
    mica_buf_free(&both);
    return ok && (out->len || mica_fail(err, MICA_ERR_ARGUMENT, "label \"%.60s\" has no tokens", label));
}

bool mica_label_tail(const mica_tokenizer *t, const mica_ids *ids, mica_text *text, mica_ids *tail, mica_error *err) {
    size_t at = ids->len;
    while (at && !mica_tokenizer_is_special(t, ids->data[at - 1])) at--;
    if (!mica_tokenizer_decode(t, ids->data + at, ids->len - at, NULL, text, err) ||
        !mica_tokenizer_encode(t, text->data ? text->data : "", text->len, &(mica_encode_options){.no_special_tokens = true}, tail, err))
        return false;
    if (tail->len == ids->len - at && (!tail->len || !memcmp(tail->data, ids->data + at, tail->len * sizeof *tail->data))) return true;
    text->len = tail->len = 0; // labels are encoded alone
    return true;
}
