// SPDX-License-Identifier: Apache-2.0
// A GGUF vocabulary -> tables and a config of the same form as tokenizer.json's, so that everything behind is shared.
// What GGUF does not say (normaliser, split pattern, decoder) follows from the kind of vocabulary, as transformers 5
// decides it. SentencePiece vocabularies carry no merges: each way to put a token together from two others is one,
// ranked by the token's score; Gemma's scores do not tell its merge order, the order of its tokens does.
#include "text/vocab.h"
#include "base/utf8.h"
#include "text/cache.h"
#include "text/tokenizer.h"
#include <math.h>
#include <stdlib.h>

enum { CONTROL = 3, USER_DEFINED = 4, LONGEST_DERIVED = 1024 };

typedef enum { BYTE_LEVEL, LLAMA, PHI3, GEMMA } vocab_kind;

typedef struct builder {
    const mica_vocab *v;
    vocab_kind kind;
    mica_tables_builder tables;
    mica_buf spelled;
    mica_error *err;
} builder;

static bool is(const char *a, const char *b) { return a && !strcmp(a, b); }

static bool find_kind(builder *b) {
    const mica_vocab *v = b->v;
    const char *arch = v->architecture;
    if (is(v->model, "gpt2")) return b->kind = BYTE_LEVEL, true;
    if (is(v->model, "gemma4")) return b->kind = GEMMA, true;
    if (!is(v->model, "llama"))
        return mica_fail(b->err, MICA_ERR_UNSUPPORTED, "%s: tokenizer.ggml.model \"%s\" is not supported (gpt2 and llama are)", v->what,
                         v->model ? v->model : "(none)");
    bool gemma = is(arch, "gemma") || is(arch, "gemma2") || is(arch, "gemma3");
    b->kind = gemma ? GEMMA : is(arch, "phi3") ? PHI3 : LLAMA;
    return true;
}

// ---- tokens ----------------------------------------------------------------------------------------
static bool in_byte_alphabet(mica_vocab_string s) {
    for (size_t i = 0, len; i < s.size; i += len) {
        uint32_t cp;
        if (!(len = mica_utf8_decode(s.data + i, s.size - i, &cp)) || mica_char_to_byte(cp) < 0) return false;
    }
    return true;
}

/** Gemma's runs of spaces are stored as such, but looked up as ▁. */
static bool only_spaces(mica_vocab_string s) {
    for (size_t i = 0; i < s.size; i++)
        if (s.data[i] != ' ') return false;
    return s.size > 0;
}

/** How the vocabulary must spell a token; borrowed from the file or from b->spelled. */
static mica_vocab_string spelling(builder *b, mica_vocab_string s) {
    char bytes[4];
    b->spelled.len = 0;
    if (b->kind == BYTE_LEVEL && !in_byte_alphabet(s)) {
        for (size_t i = 0; i < s.size; i++) mica_buf_append(&b->spelled, bytes, mica_utf8_encode(mica_byte_to_char((unsigned char)s.data[i]), bytes));
    } else if (b->kind == GEMMA && only_spaces(s)) {
        for (size_t i = 0; i < s.size; i++) mica_buf_puts(&b->spelled, "\u2581");
    } else {
        return s;
    }
    return (mica_vocab_string){b->spelled.data, b->spelled.len};
}

static bool add_tokens(builder *b) {
    for (size_t i = 0; i < b->v->count; i++) {
        mica_vocab_string raw = b->v->token(b->v->ctx, i);
        if (!mica_utf8_valid(raw.data, raw.size)) return mica_fail(b->err, MICA_ERR_FORMAT, "%s: tokenizer.ggml.tokens[%zu] is not UTF-8", b->v->what, i);
        mica_vocab_string s = spelling(b, raw);
        if (b->spelled.failed) return mica_fail_memory(b->err, raw.size, "token");
        if (!mica_tables_add_token(&b->tables, s.data, s.size, (int64_t)i, b->err)) return false;
    }
    return mica_tables_index(&b->tables, b->err);
}

// ---- merges ----------------------------------------------------------------------------------------
static bool add_listed_merges(builder *b) {
    for (size_t i = 0; i < b->v->merge_count; i++) {
        mica_vocab_string s = b->v->merge(b->v->ctx, i);
        const char *space = s.size ? memchr(s.data, ' ', s.size) : NULL;
        size_t left = space ? (size_t)(space - s.data) : 0;
        if (!space || memchr(space + 1, ' ', s.size - left - 1))
            return mica_fail(b->err, MICA_ERR_FORMAT, "%s: tokenizer.ggml.merges[%zu] is not two tokens with a space between", b->v->what, i);
        if (!mica_tables_add_merge(&b->tables, s.data, left, space + 1, s.size - left - 1, 0, b->err)) return false;
    }
    return true;
}

typedef struct derived {
    float score;
    uint32_t token, left, right; // ids: the whole and its parts
    uint32_t left_chars, right_chars;
} derived;

/** Best score first, then the longer left part, then the longer right part; equals stay in the order of tokens. */
static int by_rank(const void *pa, const void *pb) {
    const derived *a = pa, *b = pb;
    if (a->score > b->score || a->score < b->score) return a->score > b->score ? -1 : 1;
    if (a->left_chars != b->left_chars) return a->left_chars > b->left_chars ? -1 : 1;
    if (a->right_chars != b->right_chars) return a->right_chars > b->right_chars ? -1 : 1;
    return a->token < b->token ? -1 : a->token > b->token;
}

typedef struct derived_list {
    derived *items;
    size_t count, capacity;
} derived_list;

static uint32_t count_chars(const char *s, size_t n) {
    uint32_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars;
}

/** Adds each way to cut token id into two tokens. */
static bool derive(builder *b, const mica_tables *t, uint32_t id, float score, derived_list *list) {
    size_t n;
    const char *s = mica_tables_token(t, id, &n);
    if (!s) return true; // a later token has the same spelling
    if (n > LONGEST_DERIVED) return mica_fail(b->err, MICA_ERR_UNSUPPORTED, "%s: token %u is longer than %d bytes", b->v->what, id, LONGEST_DERIVED);
    uint32_t chars = count_chars(s, n), right_chars = 0;
    for (size_t cut = n - (n > 0); cut; cut--) { // longest left part first, the order they are ranked in
        if (((unsigned char)s[cut] & 0xC0) == 0x80) continue;
        right_chars++;
        int32_t right = mica_tables_find(t, s + cut, n - cut), left = right < 0 ? -1 : mica_tables_find(t, s, cut);
        if (left < 0) continue;
        if (!mica_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items)) return mica_fail_memory(b->err, list->count * sizeof *list->items, "merges");
        list->items[list->count++] = (derived){score, id, (uint32_t)left, (uint32_t)right, chars - right_chars, right_chars};
    }
    return true;
}

static bool derive_all(builder *b, derived_list *list) {
    bool by_position = b->kind == GEMMA && !is(b->v->model, "gemma4");
    mica_tables t = mica_tables_view(&b->tables);
    if (!by_position && !b->v->scores) return mica_fail(b->err, MICA_ERR_FORMAT, "%s: the tokenizer has neither merges nor scores", b->v->what);
    for (size_t i = 0; i < b->v->count; i++) {
        float score = by_position ? -(float)i : b->v->scores[i];
        if (isnan(score)) return mica_fail(b->err, MICA_ERR_FORMAT, "%s: tokenizer.ggml.scores[%zu] is not a number", b->v->what, i);
        if (!derive(b, &t, (uint32_t)i, score, list)) return false;
    }
    return true;
}

static bool is_sorted(const derived_list *list) {
    for (size_t i = 1; i < list->count; i++)
        if (by_rank(&list->items[i - 1], &list->items[i]) > 0) return false;
    return true;
}

static bool add_derived_merges(builder *b) {
    derived_list list = {0};
    bool ok = derive_all(b, &list);
    if (ok && !is_sorted(&list)) qsort(list.items, list.count, sizeof *list.items, by_rank);
    for (size_t i = 0; ok && i < list.count; i++)
        ok = mica_tables_add_merge_ids(&b->tables, list.items[i].left, list.items[i].right, list.items[i].token, b->err);
    mica_free(list.items);
    return ok;
}

// ---- config ----------------------------------------------------------------------------------------
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CASED(contraction) \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" contraction \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" contraction
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define OTHERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES
#define LLAMA3 CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" OTHERS
#define QWEN2 CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" OTHERS
#define QWEN35 CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES
#define TEKKEN CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
#define GPT4O CASED(CONTRACTION "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES

/** The split pattern that tokenizer.ggml.pre stands for; NULL: GPT-2's. */
static const char *split_pattern(const char *pre) {
    static const struct { const char *pattern, *names; } known[] = {
        {LLAMA3, " llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe "},
        {QWEN2, " qwen2 deepseek-r1-qwen kormo f2llmv2 megrez "}, {QWEN35, " qwen35 "}, {TEKKEN, " tekken "},
        {GPT4O, " gpt-4o llama4 kanana2 talkie minimax-m2 "},
    };
    size_t n = pre ? strlen(pre) : 0;
    for (size_t i = 0; n && i < MICA_COUNT(known); i++) {
        const char *at = strstr(known[i].names, pre);
        if (at && at[-1] == ' ' && at[n] == ' ') return known[i].pattern;
    }
    return NULL;
}

static void put_byte_level(mica_buf *out, const char *pre) {
    const char *pattern = split_pattern(pre);
    mica_json_writer w = {.out = out};
    if (pattern) {
        mica_buf_puts(out, "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":");
        mica_json_put_cstring(&w, pattern);
        mica_buf_puts(out, "}},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}");
    } else {
        mica_buf_puts(out, "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}");
    }
    mica_buf_puts(out, ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\"}");
}

#define SPACE_MARK "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}"
#define SPM_DECODER "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}"
#define STRIP_ONE ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"

static void put_sentence_piece(mica_buf *out, vocab_kind kind, bool prefix) {
    if (kind == GEMMA) mica_buf_puts(out, "\"normalizer\":" SPACE_MARK);
    else if (kind == PHI3) mica_buf_puts(out, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"}," SPACE_MARK "]}");
    else mica_buf_printf(out, "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"prepend_scheme\":\"%s\",\"split\":false}", prefix ? "first" : "never");
    mica_buf_puts(out, ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[" SPM_DECODER);
    if (kind == PHI3 || (kind == LLAMA && prefix)) mica_buf_puts(out, STRIP_ONE);
    mica_buf_puts(out, "]},\"model\":{\"type\":\"BPE\",\"fuse_unk\":true,\"byte_fallback\":true");
    mica_buf_puts(out, kind == GEMMA ? ",\"unk_token\":\"<unk>\"}" : "}");
}

static void put_added(mica_buf *out, mica_vocab_string s, bool special, bool *first) {
    mica_json_writer w = {.out = out};
    mica_buf_printf(out, "%s{\"normalized\":false,\"special\":%s,\"content\":", *first ? "" : ",", special ? "true" : "false");
    mica_json_put_string(&w, s.data, s.size);
    mica_buf_putc(out, '}');
    *first = false;
}

/** A token that is there under this very spelling. */
static bool has_token(const builder *b, mica_vocab_string s) {
    mica_tables t = mica_tables_view(&b->tables);
    return s.size && mica_tables_find(&t, s.data, s.size) >= 0;
}

/** Control and user-defined tokens, the named ones, and those that transformers' class for this kind names by default. A
 * default that the vocabulary lacks is left out: it would get an id that the model has no row for. */
static void put_added_tokens(builder *b, mica_buf *out) {
    static const char *const defaults[][6] = {
        [BYTE_LEVEL] = {"<|endoftext|>"}, [LLAMA] = {"<unk>", "<s>", "</s>"}, [PHI3] = {"<unk>", "<s>", "</s>"},
        [GEMMA] = {"<unk>", "<bos>", "<eos>", "<pad>", "<mask>"},
    };
    const mica_vocab *v = b->v;
    const int64_t named[] = {v->bos, v->eos, v->unk, v->pad};
    bool first = true;
    mica_buf_puts(out, ",\"added_tokens\":[");
    for (size_t i = 0; i < MICA_COUNT(defaults[0]) && defaults[b->kind][i]; i++) {
        mica_vocab_string s = {defaults[b->kind][i], strlen(defaults[b->kind][i])};
        if (has_token(b, s)) put_added(out, s, true, &first);
    }
    for (size_t i = 0; i < MICA_COUNT(named); i++) {
        if (named[i] < 0 || (uint64_t)named[i] >= v->count) continue;
        mica_vocab_string s = v->token(v->ctx, (size_t)named[i]);
        if (has_token(b, s)) put_added(out, s, true, &first);
    }
    for (size_t i = 0; v->types && i < v->count; i++) {
        if (v->types[i] != CONTROL && v->types[i] != USER_DEFINED) continue;
        mica_vocab_string s = v->token(v->ctx, i);
        if (has_token(b, s)) put_added(out, s, v->types[i] == CONTROL, &first);
    }
    mica_buf_putc(out, ']');
}

static void put_end(mica_buf *pieces, mica_buf *tokens, const char *name, int64_t id) {
    mica_buf_printf(pieces, "{\"SpecialToken\":{\"id\":\"%s\"}}", name);
    mica_buf_printf(tokens, "%s\"%s\":{\"ids\":[%lld]}", tokens->len ? "," : "", name, (long long)id);
}

static void put_template(const mica_vocab *v, bool sentence_piece, mica_buf *out) {
    mica_buf pieces = {0}, tokens = {0};
    bool bos = (v->add_bos > 0 || (v->add_bos < 0 && sentence_piece && !is(v->model, "gemma4"))) && v->bos >= 0;
    if (is(v->model, "gemma4")) bos = false;
    if (bos) put_end(&pieces, &tokens, "bos", v->bos), mica_buf_putc(&pieces, ',');
    mica_buf_puts(&pieces, "{\"Sequence\":{\"id\":\"A\"}}");
    if (v->add_eos > 0 && v->eos >= 0) mica_buf_putc(&pieces, ','), put_end(&pieces, &tokens, "eos", v->eos);
    mica_buf_printf(out, ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[%s],\"special_tokens\":{%s}}", pieces.data ? pieces.data : "",
                    tokens.data ? tokens.data : "");
    out->failed |= pieces.failed || tokens.failed;
    mica_buf_free(&pieces);
    mica_buf_free(&tokens);
}

static bool put_config(builder *b) {
    mica_buf *out = &b->tables.config;
    mica_buf_putc(out, '{');
    if (b->kind == BYTE_LEVEL) put_byte_level(out, b->v->pre);
    else put_sentence_piece(out, b->kind, b->v->add_space_prefix != 0);
    put_added_tokens(b, out);
    put_template(b->v, b->kind != BYTE_LEVEL, out);
    return mica_buf_putc(out, '}') || mica_fail_memory(b->err, out->len, "tokenizer");
}

// ---- cache key -------------------------------------------------------------------------------------
static mica_cache_key add_string(mica_cache_key key, mica_vocab_string s) {
    key = mica_cache_key_add(key, &s.size, sizeof s.size);
    return mica_cache_key_add(key, s.data, s.size);
}

static mica_cache_key add_name(mica_cache_key key, const char *s) {
    return add_string(key, (mica_vocab_string){s ? s : "\xFF", s ? strlen(s) : 1});
}

/** Everything that the result depends on. */
static mica_cache_key key_of(const mica_vocab *v) {
    static const char what[] = "gguf vocabulary 2";
    const int64_t numbers[] = {(int64_t)v->count, (int64_t)v->merge_count, v->scores != NULL, v->types != NULL, v->bos, v->eos, v->unk, v->pad,
                               v->add_bos, v->add_eos, v->add_space_prefix};
    mica_cache_key key = mica_cache_key_of(what, sizeof what);
    key = mica_cache_key_add(key, numbers, sizeof numbers);
    key = add_name(add_name(add_name(key, v->architecture), v->model), v->pre);
    key = add_string(add_string(key, v->stored_tokens), v->stored_merges);
    for (size_t i = 0; i < v->count && !v->stored_tokens.size; i++) key = add_string(key, v->token(v->ctx, i));
    for (size_t i = 0; i < v->merge_count && !v->stored_merges.size; i++) key = add_string(key, v->merge(v->ctx, i));
    if (v->scores) key = mica_cache_key_add(key, v->scores, v->count * sizeof *v->scores);
    if (v->types) key = mica_cache_key_add(key, v->types, v->count * sizeof *v->types);
    return key;
}

static mica_tokenizer *build(const mica_vocab *v, const mica_cache_key *key, mica_error *err) {
    builder b = {.v = v, .err = err, .tables.what = v->what};
    mica_tables tables = {0};
    bool ok = find_kind(&b) && add_tokens(&b) && (v->merge_count || b.kind == BYTE_LEVEL ? add_listed_merges(&b) : add_derived_merges(&b)) &&
              put_config(&b) && mica_tables_finish(&b.tables, &tables, err);
    mica_tables_builder_free(&b.tables);
    mica_buf_free(&b.spelled);
    if (!ok) return NULL;
    mica_tables built = tables;
    mica_tokenizer *t = mica_tokenizer_new(&tables, v->what, err);
    if (t) mica_cache_save(&built, key);
    return t;
}

mica_tokenizer *mica_tokenizer_from_vocab(const mica_vocab *v, mica_error *err) {
    mica_tables tables = {0};
    mica_cache_key key = key_of(v);
    mica_tokenizer *t = mica_cache_load(&tables, &key) ? mica_tokenizer_new(&tables, v->what, err) : NULL;
    if (!t) t = build(v, &key, err);
    if (!t) return NULL;
    if (v->bos >= 0 && (uint64_t)v->bos < v->count) t->bos = (int32_t)v->bos;
    if (v->eos >= 0 && (uint64_t)v->eos < v->count) t->eos = (int32_t)v->eos;
    return t;
}
