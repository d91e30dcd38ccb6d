// SPDX-License-Identifier: Apache-2.0
// Reads tokenizer.json in one pass. "model.vocab" and "model.merges", nearly all of the file, go straight into the
// tables; every other member is copied as it stands into a small JSON text, which the component readers parse later.
#include "text/read_json.h"
#include "base/json.h"
#include "text/json_scan.h"

typedef struct reader {
    mica_scan scan;
    mica_tables_builder tables;
    mica_buf left, right;      // decoded strings
    const char *merges;        // where "merges" begins, NULL if there is none
    size_t prefix_size, used_prefix_size; // continuing_subword_prefix; the one that merges were read with
    bool has_vocab, merges_read, has_model;
    bool other_model;          // vocab or merges have a shape that BPE does not have
} reader;

static bool read_vocab(reader *r) {
    mica_scan *s = &r->scan;
    const char *token;
    size_t n;
    int64_t id;
    bool more;
    if (r->has_vocab) return mica_scan_fail(s, "\"vocab\" appears twice");
    r->has_vocab = true;
    if (mica_scan_peek(s) != '{') return r->other_model = true, mica_scan_skip(s);
    s->p++;
    for (bool first = true;; first = false) {
        if (!mica_scan_more(s, first, '}', &more)) return false;
        if (!more) return mica_tables_index(&r->tables, s->err);
        if (!mica_scan_string(s, &r->left, &token, &n) || !mica_scan_take(s, ':') || !mica_scan_int(s, &id)) return false;
        if (!mica_tables_add_token(&r->tables, token, n, id, s->err)) return false;
    }
}

static bool add_merge(reader *r, const char *a, size_t na, const char *b, size_t nb) {
    return mica_tables_add_merge(&r->tables, a, na, b, nb, r->prefix_size, r->scan.err);
}

/** "a b" */
static bool legacy_merge(reader *r) {
    const char *line;
    size_t n;
    if (!mica_scan_string(&r->scan, &r->left, &line, &n)) return false;
    if (n >= 8 && !memcmp(line, "#version", 8)) return true;
    const char *space = n ? memchr(line, ' ', n) : NULL;
    size_t na = space ? (size_t)(space - line) : 0;
    if (!space || memchr(space + 1, ' ', n - na - 1)) return mica_scan_fail(&r->scan, "a merge must be two tokens with a space between");
    return add_merge(r, line, na, space + 1, n - na - 1);
}

/** ["a","b"] */
static bool pair_merge(reader *r) {
    const char *a, *b;
    size_t na, nb;
    mica_scan *s = &r->scan;
    return mica_scan_take(s, '[') && mica_scan_string(s, &r->left, &a, &na) && mica_scan_take(s, ',') &&
           mica_scan_string(s, &r->right, &b, &nb) && mica_scan_take(s, ']') && add_merge(r, a, na, b, nb);
}

static bool read_merges(reader *r) {
    mica_scan *s = &r->scan;
    bool more;
    r->merges_read = true, r->used_prefix_size = r->prefix_size;
    if (mica_scan_peek(s) != '[') return r->other_model = true, mica_scan_skip(s);
    s->p++;
    char kind = mica_scan_peek(s);
    for (bool first = true;; first = false) {
        if (!mica_scan_more(s, first, ']', &more)) return false;
        if (!more) return true;
        if (mica_scan_peek(s) != kind) return mica_scan_fail(s, "merges must all be written the same way");
        if (kind != '"' && kind != '[') return mica_scan_fail(s, "a merge must be a string or a pair of strings");
        if (!(kind == '"' ? legacy_merge(r) : pair_merge(r))) return false;
    }
}

/** Copies a member as it stands. raw_key: with its quotes. */
static bool keep_member(reader *r, const char *raw_key, size_t n, bool first) {
    mica_buf *out = &r->tables.config;
    const char *from = (mica_scan_peek(&r->scan), r->scan.p);
    if (!mica_scan_skip(&r->scan)) return false;
    bool ok = (first || mica_buf_putc(out, ',')) && mica_buf_append(out, raw_key, n) && mica_buf_putc(out, ':') &&
              mica_buf_append(out, from, (size_t)(r->scan.p - from));
    return ok || mica_fail_memory(r->scan.err, out->len, r->scan.what);
}

/** Reads a key and the colon; raw: its spelling with quotes. */
static bool read_key(reader *r, const char **key, size_t *n, const char **raw, size_t *raw_n) {
    mica_scan_peek(&r->scan);
    *raw = r->scan.p;
    if (!mica_scan_string(&r->scan, &r->left, key, n)) return false;
    *raw_n = (size_t)(r->scan.p - *raw);
    return mica_scan_take(&r->scan, ':');
}

static bool is(const char *key, size_t n, const char *name) { return n == strlen(name) && !memcmp(key, name, n); }

/** Notes the length of continuing_subword_prefix, then goes back so that the member is kept as well. */
static bool note_prefix(reader *r) {
    const char *from = r->scan.p, *text;
    if (mica_scan_peek(&r->scan) == '"' && !mica_scan_string(&r->scan, &r->left, &text, &r->prefix_size)) return false;
    r->scan.p = from;
    return true;
}

static bool model_member(reader *r, bool *first) {
    const char *key, *raw;
    size_t n, raw_n;
    if (!read_key(r, &key, &n, &raw, &raw_n)) return false;
    if (is(key, n, "vocab")) return read_vocab(r);
    if (is(key, n, "merges")) {
        if (r->merges) return mica_scan_fail(&r->scan, "\"merges\" appears twice");
        r->merges = (mica_scan_peek(&r->scan), r->scan.p);
        if (!r->has_vocab || r->other_model) return mica_scan_skip(&r->scan);
        if (read_merges(r) || r->scan.err->code == MICA_ERR_NO_MEMORY) return r->scan.err->code != MICA_ERR_NO_MEMORY;
        r->scan.p = r->merges, r->merges_read = false; // perhaps for want of the prefix; late_merges tries again
        return mica_scan_skip(&r->scan);
    }
    if (is(key, n, "continuing_subword_prefix") && !note_prefix(r)) return false;
    if (!keep_member(r, raw, raw_n, *first)) return false;
    *first = false;
    return true;
}

/** Merges that came before the vocabulary or the prefix are read (again) now. */
static bool late_merges(reader *r) {
    if (!r->merges || !r->has_vocab || r->other_model || (r->merges_read && r->used_prefix_size == r->prefix_size)) return true;
    const char *back = r->scan.p;
    if (r->tables.merge_size) memset(r->tables.merges, 0xFF, r->tables.merge_size * sizeof *r->tables.merges);
    r->scan.err->code = MICA_OK;
    r->tables.merge_count = r->tables.rank = 0;
    r->scan.p = r->merges;
    if (!read_merges(r)) return false;
    r->scan.p = back;
    return true;
}

static bool read_model(reader *r) {
    bool more, first_kept = true;
    if (r->has_model) return mica_scan_fail(&r->scan, "\"model\" appears twice");
    r->has_model = true;
    if (!mica_scan_take(&r->scan, '{') || !mica_buf_putc(&r->tables.config, '{')) return false;
    for (bool first = true;; first = false) {
        if (!mica_scan_more(&r->scan, first, '}', &more)) return false;
        if (!more) break;
        if (!model_member(r, &first_kept)) return false;
    }
    return mica_buf_putc(&r->tables.config, '}') && late_merges(r);
}

static bool read_document(reader *r) {
    mica_buf *out = &r->tables.config;
    const char *key, *raw;
    size_t n, raw_n;
    bool more;
    if (!mica_scan_take(&r->scan, '{') || !mica_buf_putc(out, '{')) return false;
    for (bool first = true;; first = false) {
        if (!mica_scan_more(&r->scan, first, '}', &more)) return false;
        if (!more) break;
        if (!read_key(r, &key, &n, &raw, &raw_n)) return false;
        if (!is(key, n, "model")) {
            if (!keep_member(r, raw, raw_n, first)) return false;
        } else if ((!first && !mica_buf_putc(out, ',')) || !mica_buf_puts(out, "\"model\":") || !read_model(r)) {
            return false;
        }
    }
    if (!mica_buf_putc(out, '}')) return false;
    return mica_scan_peek(&r->scan) == 0 || mica_scan_fail(&r->scan, "text after the end of the JSON value");
}

/** What is no BPE model is refused by its type, which may stand anywhere in the file. */
static bool refuse_other_model(reader *r, mica_error *err) {
    mica_arena arena = {0};
    const char *type = NULL;
    const mica_json *root = mica_json_parse(&arena, r->tables.config.data, r->tables.config.len, r->scan.what, err);
    bool ok = root && mica_json_string(mica_json_get(root, "model"), "type", NULL, &type, r->scan.what, err);
    if (ok && type && strcmp(type, "BPE"))
        mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: model type \"%s\" is not supported (BPE is)", r->scan.what, type);
    else if (ok)
        mica_fail(err, MICA_ERR_FORMAT, "%s: \"model\" needs \"vocab\" (an object) and \"merges\" (an array)", r->scan.what);
    mica_arena_free(&arena);
    return false;
}

bool mica_read_tokenizer_json(mica_tables *t, const char *json, size_t size, const char *what, mica_error *err) {
    mica_error own = {0};
    reader r = {.scan = {json, json, json + size, what, err ? err : &own}, .tables.what = what};
    r.scan.err->code = MICA_OK;
    bool ok = read_document(&r);
    if (ok && (r.other_model || !r.has_vocab || !r.merges)) ok = refuse_other_model(&r, r.scan.err);
    ok = ok && mica_tables_finish(&r.tables, t, r.scan.err);
    if (!ok && r.scan.err->code == MICA_OK) mica_fail_memory(r.scan.err, size, what);
    mica_tables_builder_free(&r.tables);
    mica_buf_free(&r.left);
    mica_buf_free(&r.right);
    return ok;
}
