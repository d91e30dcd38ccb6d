// SPDX-License-Identifier: Apache-2.0
// Strings of chat templates: a builder that keeps track of the marked bytes, parts, search.
#include "base/utf8.h"
#include "text/template_value.h"
#include <string.h>

static size_t count_chars(const char *s, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

/** The buffer moves: the store is left as it was, and marks of its own are needed. */
static bool leave_store(mica_tbuf *b) {
    mica_tstore *store = b->store;
    b->store = NULL;
    if (!store) return true;
    store->used = b->store_used;
    if (b->marks != store->marks || !b->mark_count) return b->mark_capacity = b->mark_count ? b->mark_capacity : 0, true;
    mica_mark *marks = mica_t_alloc(b->r, b->mark_capacity * sizeof *marks);
    if (!marks) return false;
    memcpy(marks, b->marks, b->mark_count * sizeof *marks);
    b->marks = marks;
    return true;
}

static bool reserve(mica_tbuf *b, size_t n) {
    mica_trun *r = b->r;
    if (n > r->most_bytes || b->size > r->most_bytes - n)
        return mica_t_fail_code(r, MICA_ERR_NO_MEMORY, "a text of more than %zu bytes", r->most_bytes);
    size_t need = b->size + n;
    if (need <= b->capacity) return !r->failed;
    size_t capacity = MICA_MAX(MICA_MAX(need, b->capacity * 2), (size_t)32);
    char *data = mica_t_alloc(r, capacity);
    if (!data) return false;
    if (b->size) memcpy(data, b->data, b->size);
    b->data = data, b->capacity = capacity;
    return leave_store(b);
}

/** Whether the buffer, empty as yet, can go on where s ends. */
static bool build_on(mica_tbuf *b, const mica_tstr *s) {
    mica_tstore *store = s->store;
    if (b->size || !store || b->r->constants || store->data != s->data || store->used != s->size || s->size > b->r->most_bytes) return false;
    *b = (mica_tbuf){.r = b->r, .data = (char *)(uintptr_t)s->data, .size = s->size, .capacity = store->capacity, .chars = s->chars, .marks = store->marks,
                     .mark_count = s->mark_count, .mark_capacity = store->mark_capacity, .store = store, .store_used = s->size, .safe = b->safe};
    store->used = SIZE_MAX;
    mica_mark *last = b->mark_count ? &b->marks[b->mark_count - 1] : NULL;
    if (last && last->to > s->size) last->to = s->size; // an abandoned buffer may have stretched it
    return true;
}

static bool mark(mica_tbuf *b, size_t from, size_t to) {
    if (b->mark_count && b->marks[b->mark_count - 1].to == from) return b->marks[b->mark_count - 1].to = to, true;
    if (b->mark_count == b->mark_capacity) {
        size_t capacity = MICA_MAX((size_t)4, b->mark_capacity * 2);
        mica_mark *marks = mica_t_alloc(b->r, capacity * sizeof *marks);
        if (!marks) return false;
        if (b->mark_count) memcpy(marks, b->marks, b->mark_count * sizeof *marks);
        b->marks = marks, b->mark_capacity = capacity;
    }
    b->marks[b->mark_count++] = (mica_mark){from, to};
    return true;
}

bool mica_tbuf_add(mica_tbuf *b, const char *bytes, size_t n, bool marked) {
    if (!n) return !b->r->failed;
    if (!mica_t_work(b->r, n / 64) || !reserve(b, n) || (marked && !mark(b, b->size, b->size + n))) return false;
    memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->chars += count_chars(bytes, n);
    return true;
}

bool mica_tbuf_puts(mica_tbuf *b, const char *s) { return mica_tbuf_add(b, s, strlen(s), false); }

bool mica_tbuf_part(mica_tbuf *b, const mica_tstr *s, size_t from, size_t to) {
    size_t base = b->size;
    if (from >= to) return !b->r->failed;
    if (from == 0 && to == s->size && build_on(b, s)) return true;
    if (!mica_tbuf_add(b, s->data + from, to - from, false)) return false;
    for (size_t i = 0; i < s->mark_count && s->marks[i].from < to; i++) {
        size_t start = MICA_MAX(s->marks[i].from, from), end = MICA_MIN(s->marks[i].to, to);
        if (start < end && !mark(b, base + start - from, base + end - from)) return false;
    }
    return mica_t_work(b->r, s->mark_count);
}

bool mica_tbuf_str(mica_tbuf *b, const mica_tstr *s) { return mica_tbuf_part(b, s, 0, s->size); }

bool mica_tbuf_char(mica_tbuf *b, uint32_t cp, bool marked) {
    char bytes[4];
    return mica_tbuf_add(b, bytes, mica_utf8_encode(cp, bytes), marked);
}

bool mica_tbuf_fill(mica_tbuf *b, const mica_tstr *s, int64_t times) {
    if (times > 0 && s->size > b->r->most_bytes / (uint64_t)times) return reserve(b, SIZE_MAX / 2);
    if (times > 0 && (!mica_t_work(b->r, s->size ? (size_t)times : 0) || !reserve(b, s->size * (size_t)times))) return false;
    for (int64_t i = 0; s->size && i < times; i++)
        if (!mica_tbuf_str(b, s)) return false;
    return !b->r->failed;
}

enum { WORTH_BUILDING_ON = 256 };

/** The store of what the buffer holds: the one it was built on, or a new one if there is room. */
static mica_tstore *store_of(mica_tbuf *b) {
    mica_tstore *store = b->store;
    if (!store && (b->r->constants || b->size < WORTH_BUILDING_ON || b->capacity == b->size)) return NULL;
    if (!store && !(store = mica_t_alloc(b->r, sizeof *store))) return NULL;
    *store = (mica_tstore){b->data, b->size, b->capacity, b->marks, b->mark_capacity};
    return store;
}

const mica_tstr *mica_tbuf_take(mica_tbuf *b) {
    if (b->r->failed) return NULL;
    mica_tstr *s = mica_t_alloc(b->r, sizeof *s);
    if (!s) return NULL;
    *s = (mica_tstr){.data = b->data ? b->data : "", .size = b->size, .chars = b->chars, .marks = b->marks, .mark_count = b->mark_count,
                     .store = store_of(b), .safe = b->safe};
    return b->r->failed ? NULL : s;
}

bool mica_tbuf_end(mica_tbuf *b, mica_tval *out) {
    const mica_tstr *s = mica_tbuf_take(b);
    if (s) *out = mica_t_string(s);
    return s != NULL;
}

const mica_tstr *mica_t_text(mica_trun *r, const char *data, size_t size, bool marked) {
    mica_tbuf b = {.r = r};
    return mica_tbuf_add(&b, data, size, marked) ? mica_tbuf_take(&b) : NULL;
}

bool mica_t_puts(mica_trun *r, const char *s, mica_tval *out) {
    const mica_tstr *text = mica_t_text(r, s, strlen(s), false);
    if (text) *out = mica_t_string(text);
    return text != NULL;
}

bool mica_t_marked(const mica_tstr *s, size_t i) {
    for (size_t k = 0; k < s->mark_count && s->marks[k].from <= i; k++)
        if (i < s->marks[k].to) return true;
    return false;
}

/** The marks of a part; the common cases need no copy. */
static bool part_marks(mica_trun *r, const mica_tstr *s, size_t from, size_t to, mica_tstr *part) {
    size_t first = 0, count = 0;
    while (first < s->mark_count && s->marks[first].to <= from) first++;
    while (first + count < s->mark_count && s->marks[first + count].from < to) count++;
    if (!mica_t_work(r, 1 + (first + count) / 8)) return false;
    if (!count) return true;
    mica_mark *marks = mica_t_alloc(r, count * sizeof *marks);
    if (!marks) return false;
    for (size_t i = 0; i < count; i++)
        marks[i] = (mica_mark){MICA_MAX(s->marks[first + i].from, from) - from, MICA_MIN(s->marks[first + i].to, to) - from};
    part->marks = marks, part->mark_count = count;
    return true;
}

bool mica_t_part(mica_trun *r, const mica_tstr *s, size_t from, size_t to, mica_tval *out) {
    if (from == 0 && to == s->size) return *out = mica_t_string(s), true;
    to = MICA_MAX(from, to);
    mica_tstr *part = mica_t_alloc(r, sizeof *part);
    if (!part) return false;
    *part = (mica_tstr){.data = s->data + from, .size = to - from, .safe = s->safe};
    part->chars = s->chars == s->size ? part->size : count_chars(part->data, part->size);
    *out = mica_t_string(part);
    return mica_t_work(r, part->chars == part->size ? 0 : part->size / 64) && part_marks(r, s, from, to, part);
}

size_t mica_t_offset(const mica_tstr *s, size_t i) {
    if (i >= s->chars) return s->size;
    if (s->chars == s->size) return i;
    size_t at = 0;
    for (; i; i--)
        for (at++; ((unsigned char)s->data[at] & 0xC0) == 0x80;) at++;
    return at;
}

size_t mica_t_find(mica_trun *r, const mica_tstr *s, size_t from, size_t to, const mica_tstr *needle) {
    if (from > to || needle->size > to - from) return SIZE_MAX;
    if (!needle->size) return from;
    const char *found = memmem(s->data + from, to - from, needle->data, needle->size);
    mica_t_work(r, 1 + (found ? (size_t)(found - s->data) - from : to - from) / 32);
    return found && !r->failed ? (size_t)(found - s->data) : SIZE_MAX;
}

bool mica_t_escape(mica_trun *r, const mica_tstr *s, const mica_tstr **out) {
    if (s->safe) return *out = s, true;
    mica_tbuf b = {.r = r, .safe = true};
    for (size_t i = 0, end; i < s->size; i = end) {
        for (end = i; end < s->size && !memchr("&<>'\"", s->data[end], 5); end++) {}
        if (!mica_tbuf_part(&b, s, i, end)) return false;
        if (end == s->size) break;
        char c = s->data[end];
        const char *name = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '\'' ? "&#39;" : "&#34;";
        if (!mica_tbuf_add(&b, name, strlen(name), mica_t_marked(s, end))) return false;
        end++;
    }
    return (*out = mica_tbuf_take(&b)) != NULL;
}
