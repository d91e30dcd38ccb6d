// SPDX-License-Identifier: Apache-2.0
// The file under a dataset: one pass finds where its lines start; a line is read again when it is wanted. Reads, not a mapping: a file that is
// cut short meanwhile is then an error instead of a signal, and its pages do not count as the trainer's memory.
#include "train/data_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, PIECE = 1 << 16 };

static ssize_t read_at(const mica_dataset *d, void *to, size_t n, uint64_t offset, mica_error *err) {
    size_t got = 0;
    while (got < n) {
        ssize_t k = pread(d->fd, (char *)to + got, n - got, (off_t)(offset + got));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return mica_fail_errno(err, "read", d->path), -1;
        if (k == 0) break;
        got += (size_t)k;
    }
    return (ssize_t)got;
}

bool mica_dataset_read(mica_dataset *d, uint64_t start, mica_error *err) {
    d->line.len = 0;
    while (true) {
        if (!mica_buf_reserve(&d->line, PIECE)) return d->line.failed = false, mica_fail_memory(err, d->line.len + PIECE, d->path);
        char *at = d->line.data + d->line.len;
        ssize_t n = read_at(d, at, PIECE, start + d->line.len, err);
        if (n < 0) return false;
        const char *end = memchr(at, '\n', (size_t)n);
        d->line.len += end ? (size_t)(end - at) : (size_t)n;
        d->line.data[d->line.len] = 0;
        if (end || n < PIECE) break;
    }
    return d->line.len || mica_fail(err, MICA_ERR_IO, "%s: changed while it was in use", d->path);
}

// ---- blame --------------------------------------------------------------------------------------------------
// Counted only when it is wanted: an index of numbers would double the memory.
static size_t line_number(const mica_dataset *d, uint64_t start) {
    size_t number = 1;
    char block[8192];
    ssize_t n = 0;
    for (uint64_t at = 0; at < start; at += (uint64_t)n) {
        n = read_at(d, block, (size_t)MICA_MIN((uint64_t)sizeof block, start - at), at, NULL);
        if (n <= 0) break;
        for (ssize_t i = 0; i < n; i++) number += block[i] == '\n';
    }
    return number;
}

bool mica_dataset_blame(const mica_dataset *d, uint64_t start, mica_error *err) {
    return err ? mica_error_prefix(err, "%s:%zu", d->path, line_number(d, start)) : false;
}

bool mica_dataset_pass_over(mica_dataset *d, const mica_error *err) {
    bool of_the_line = err->code == MICA_ERR_FORMAT || err->code == MICA_ERR_UNSUPPORTED || err->code == MICA_ERR_ARGUMENT;
    if (!d->options.skip_bad || !of_the_line) return false;
    if (!d->report.bad++) snprintf(d->report.first_bad, sizeof d->report.first_bad, "%.*s", (int)sizeof d->report.first_bad - 1, err->msg);
    return true;
}

// ---- index --------------------------------------------------------------------------------------------------
typedef struct indexer {
    mica_dataset *d;
    uint64_t start; // of the line at hand
    bool blank;     // so far
} indexer;

static bool check(indexer *x, bool *good, mica_error *err) {
    mica_dataset *d = x->d;
    mica_error why = {0};
    mica_line line;
    mica_arena_reset(&d->arena);
    if (mica_line_parse(d, &line, &why)) return *good = true;
    if (!d->report.bad || !d->options.skip_bad) mica_dataset_blame(d, x->start, &why);
    *good = false;
    if (mica_dataset_pass_over(d, &why)) return true;
    if (err) *err = why;
    return false;
}

static bool end_line(indexer *x, uint64_t next, mica_error *err) {
    mica_dataset *d = x->d;
    bool good = !x->blank;
    if (good && !d->options.unchecked && !check(x, &good, err)) return false;
    if (good) {
        if (d->count == UINT32_MAX) return mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: more than %u lines", d->path, UINT32_MAX);
        if (!mica_grow(&d->starts, &d->capacity, d->count + 1, sizeof *d->starts)) return mica_fail_memory(err, d->count * 8, "an index of lines");
        d->starts[d->count++] = x->start;
    }
    x->start = next, x->blank = true;
    d->line.len = 0;
    return true;
}

static bool is_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') return false;
    return true;
}

static bool index_block(indexer *x, const char *block, size_t n, uint64_t offset, mica_error *err) {
    for (size_t from = 0; from < n;) {
        const char *end = memchr(block + from, '\n', n - from);
        size_t part = end ? (size_t)(end - block) - from : n - from;
        x->blank = x->blank && is_blank(block + from, part);
        if (!x->d->options.unchecked && !mica_buf_append(&x->d->line, block + from, part))
            return x->d->line.failed = false, mica_fail_memory(err, part, x->d->path);
        from += part + 1;
        if (end && !end_line(x, offset + from, err)) return false;
    }
    return true;
}

static bool index_all(mica_dataset *d, char *block, mica_error *err) {
    indexer x = {.d = d, .blank = true};
    ssize_t n;
    for (uint64_t offset = 0; (n = read_at(d, block, BLOCK, offset, err)) > 0; offset += (uint64_t)n) {
        size_t mark = offset == 0 && n >= 3 && !memcmp(block, "\xEF\xBB\xBF", 3) ? 3 : 0; // of byte order: passed over
        if (mark) x.start = mark;
        d->fingerprint = mica_hash(block, (size_t)n, d->fingerprint);
        if (!index_block(&x, block + mark, (size_t)n - mark, offset + mark, err)) return false;
    }
    return n == 0 && end_line(&x, 0, err);
}

static bool open_file(mica_dataset *d, mica_error *err) {
    struct stat st;
    d->fd = open(d->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (d->fd < 0 || fstat(d->fd, &st) != 0) return mica_fail_errno(err, "open", d->path);
    return S_ISREG(st.st_mode) || mica_fail(err, MICA_ERR_IO, "%s: not a regular file", d->path);
}

bool mica_dataset_index(mica_dataset *d, mica_error *err) {
    if (!open_file(d, err)) return false;
    char *block = mica_alloc(BLOCK);
    bool ok = block ? index_all(d, block, err) : mica_fail_memory(err, BLOCK, d->path);
    mica_free(block);
    if (!ok || d->count) return ok;
    if (!d->report.bad) return mica_fail(err, MICA_ERR_FORMAT, "%s: no examples", d->path);
    return mica_fail(err, MICA_ERR_FORMAT, "%s: no good examples: %zu bad lines, the first: %s", d->path, d->report.bad, d->report.first_bad);
}
