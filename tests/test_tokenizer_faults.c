// SPDX-License-Identifier: Apache-2.0
// What goes wrong with tokenizers: malformed files give one clear error, every failing allocation gives an error and
// leaks nothing, a damaged or unwritable cache is rebuilt or done without.
#include "base/file.h"
#include "text/cache.h"
#include "text/read_json.h"
#include "text/vocab.h"
#include "tokenizer_testing.h"
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u0120\":3}"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"

static const struct { const char *json, *message; } malformed[] = {
    {"", "line 1: '{' expected"},
    {"[]", "'{' expected"},
    {"{}", "\"vocab\""},
    {"{" MODEL "} x", "text after the end"},
    {"{" MODEL ",}", "string expected"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "\"merges\""},
    {"{\"model\":{\"merges\":[\"a b\"]}}", "\"vocab\""},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0.5]]}}", "\"Unigram\" is not supported"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "\"WordPiece\" is not supported"},
    {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"merges\":[]}}", "\"WordPiece\" is not supported"},
    {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "two tokens have id 0"},
    {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "outside 0"},
    {"{\"model\":{\"vocab\":{\"a\":16777216},\"merges\":[]}}", "outside 0"},
    {"{\"model\":{\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}}", "integer too large"},
    {"{\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", "integer expected"},
    {"{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "integer expected"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "\"b\" is no token"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "\"aa\" is no token"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "two tokens with a space"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", "two tokens with a space"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "',' expected"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[1]}}", "a merge must be"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"vocab\":{},\"merges\":[]}}", "appears twice"},
    {"{" MODEL "," MODEL "}", "appears twice"},
    {"{\"model\":{\"vocab\":{\"\\ud800\":0},\"merges\":[]}}", "lone surrogate"},
    {"{\"model\":{\"vocab\":{\"\\x\":0},\"merges\":[]}}", "unknown escape"},
    {"{\"model\":{\"vocab\":{\"\xFF\":0},\"merges\":[]}}", "not UTF-8"},
    {"{\"model\":{\"vocab\":{\"a\n\":0},\"merges\":[]}}", "control character"},
    {"{\"model\":{\"vocab\":{\"a", "string does not end"},
    {"{\"version\":\"2.0\"," MODEL "}", "version \"2.0\""},
    {"{\"normalizer\":{\"type\":\"Bert\"}," MODEL "}", "normalizer type \"Bert\""},
    {"{\"normalizer\":{\"type\":\"Precompiled\"}," MODEL "}", "normalizer type \"Precompiled\""},
    {"{\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\"}," MODEL "}", "\"pattern\" must be"},
    {"{\"normalizer\":5," MODEL "}", "normalizer must be an object"},
    {"{\"normalizer\":{}," MODEL "}", "normalizer has no \"type\""},
    {"{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}," MODEL "}", "pre_tokenizer type \"BertPreTokenizer\""},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\"}," MODEL "}", "needs the array"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}," MODEL "}", "regular expression \"(\""},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\bx\"},\"behavior\":\"Isolated\"}," MODEL "}", "word boundary"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[[:alpha:]]\"},\"behavior\":\"Isolated\"}," MODEL "}", "[[:"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Klingon}\"},\"behavior\":\"Isolated\"}," MODEL "}", "regular expression"},
    {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Odd\"}," MODEL "}", "behavior \"Odd\""},
    {"{\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}," MODEL "}", "at least 1"},
    {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}," MODEL "}", "must be one character"},
    {"{\"post_processor\":{\"type\":\"Odd\"}," MODEL "}", "post_processor type \"Odd\""},
    {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]}," MODEL "}", "lacks \"x\""},
    {"{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}," MODEL "}", "needs the sequence A"},
    {"{\"decoder\":{\"type\":\"WordPiece\"}," MODEL "}", "decoder type \"WordPiece\""},
    {"{\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1}," MODEL "}", "not negative"},
    {"{\"added_tokens\":{}," MODEL "}", "must be an array"},
    {"{\"added_tokens\":[5]," MODEL "}", "must hold objects"},
    {"{\"added_tokens\":[{\"id\":1}]," MODEL "}", "\"content\" must be a string"},
    {"{\"model\":{\"byte_fallback\":3," VOCAB ",\"merges\":[]}}", "\"byte_fallback\""},
    {"{\"unclosed\":[1,2}," MODEL "}", "brackets do not pair"},
    {"{\"odd\":nope," MODEL "}", "not valid JSON"},
};

static void malformed_files(void **state) {
    (void)state;
    for (size_t i = 0; i < MICA_COUNT(malformed); i++) {
        mica_error err = {0};
        uint64_t live = mica_alloc_get_stats().live;
        mica_tokenizer *t = mica_tokenizer_from_json(malformed[i].json, strlen(malformed[i].json), "x.json", &err);
        if (t) fail_msg("accepted: %s", malformed[i].json);
        if (!strstr(err.msg, malformed[i].message) || !strstr(err.msg, "x.json"))
            fail_msg("\"%s\" does not say x.json and \"%s\": %s", err.msg, malformed[i].message, malformed[i].json);
        assert_int_equal(mica_alloc_get_stats().live, live);
    }
}

/** Every beginning of a good file fails cleanly. */
static void truncated_files(void **state) {
    (void)state;
    const char *json = "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],\"normalizer\":{\"type\":\"NFC\"}," MODEL "}";
    for (size_t n = 0; n < strlen(json); n++) {
        mica_error err = {0};
        char *copy = mica_strndup(json, n);
        assert_null(mica_tokenizer_from_json(copy, n, "x.json", &err));
        assert_true(err.code != MICA_OK && err.msg[0]);
        mica_free(copy);
    }
}

// Uses every part that allocates: patterns, normal forms, added tokens, a long word, fallback, a decoder of each kind.
static const char ALL_PARTS[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true},{\"id\":0,\"content\":\"\u00C9t\",\"normalized\":true}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"``\"},\"content\":\"a\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"z+\"},\"content\":\"b\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\d+\"},\"behavior\":\"Isolated\"},{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"prepend_scheme\":\"first\",\"split\":true}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"s\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"s\":{\"ids\":[1]}}},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
    "\"model\":{\"unk_token\":\"a\",\"byte_fallback\":true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\u2581\":3,\"<0xC3>\":4,\"<0xA9>\":5,\"aa\":6},\"merges\":[\"a b\",[\"a\",\"a\"]]}}";

static bool load_and_use(mica_error *err) {
    static const char text[] = "<s> e\u0301 ab 12 \u00C9t zz ``aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \xFF x";
    mica_buf json = {0};
    for (const char *p = ALL_PARTS; *p; p++) // "a b" and ["a","a"] may not stand together
        mica_buf_putc(&json, *p);
    char *pair = json.data ? strstr(json.data, "[\"a\",\"a\"]") : NULL;
    if (pair) memcpy(pair, "    \"a a\"", 9);
    mica_ids ids = {0};
    mica_text out = {0};
    mica_tokenizer *t = json.failed ? NULL : mica_tokenizer_from_json(json.data, json.len, "x.json", err);
    bool ok = json.failed ? mica_fail_memory(err, 1, "json") : t != NULL;
    ok = ok && mica_tokenizer_encode(t, text, sizeof text - 1, NULL, &ids, err) && mica_tokenizer_decode(t, ids.data, ids.len, NULL, &out, err);
    mica_detokenizer *d = ok ? mica_detokenizer_new(t, NULL, err) : NULL;
    const char *piece;
    size_t n;
    ok = ok && d;
    for (size_t i = 0; ok && i < ids.len; i++) ok = mica_detokenizer_push(d, ids.data[i], &piece, &n, err);
    ok = ok && mica_detokenizer_finish(d, &piece, &n, err);
    mica_detokenizer_free(d);
    mica_ids_free(&ids);
    mica_text_free(&out);
    mica_tokenizer_free(t);
    mica_buf_free(&json);
    return ok;
}

static void failing_allocations(void **state) {
    (void)state;
    mica_error err = {0};
    assert_true(load_and_use(&err));
    uint64_t live = mica_alloc_get_stats().live, nth = 1;
    for (;; nth++) {
        err = (mica_error){0};
        mica_alloc_fail_after(nth);
        bool ok = load_and_use(&err);
        bool refused = mica_alloc_failures() > 0;
        mica_alloc_fail_after(0);
        assert_int_equal(mica_alloc_get_stats().live, live);
        if (!refused) break;
        if (ok) fail_msg("allocation %zu failed, but nothing was reported", (size_t)nth);
        if (err.code != MICA_ERR_NO_MEMORY) fail_msg("allocation %zu: code %d: %s", (size_t)nth, (int)err.code, err.msg);
    }
    print_message("  %zu allocations, each failed once\n", (size_t)nth - 1);
    assert_true(nth > 40);
}

/** A tokenizer outlives a failed encode, and ids keep what they had. */
static void encode_fails_alone(void **state) {
    (void)state;
    mica_tokenizer *t = make("{" MODEL "}");
    mica_ids ids = {0};
    mica_error err = {0};
    assert_true(mica_tokenizer_encode(t, "ab", 2, NULL, &ids, NULL));
    for (uint64_t nth = 1; nth < 6; nth++) {
        mica_alloc_fail_after(nth);
        char text[2000];
        memset(text, 'a', sizeof text);
        bool ok = mica_tokenizer_encode(t, text, sizeof text, NULL, &ids, &err);
        mica_alloc_fail_after(0);
        if (!ok) assert_int_equal(ids.len, 1);
        ids.len = 1;
    }
    assert_int_equal(ids.data[0], 2);
    mica_ids_free(&ids);
    mica_tokenizer_free(t);
}

// ---- cache -----------------------------------------------------------------------------------------
typedef struct image {
    unsigned char *bytes;
    size_t size;
    mica_cache_key key;
} image;

static image make_image(void) {
    mica_tables t = {0};
    mica_error err = {0};
    image i = {.key = mica_cache_key_of("x", 1)};
    assert_true(mica_read_tokenizer_json(&t, "{" MODEL "}", strlen("{" MODEL "}"), "x.json", &err));
    i.bytes = mica_cache_image(&t, &i.key, &i.size);
    assert_non_null(i.bytes);
    mica_tables_free(&t);
    return i;
}

static void damaged_cache_is_refused(void **state) {
    (void)state;
    image i = make_image();
    mica_tables t;
    assert_true(mica_cache_open(&t, i.bytes, i.size, &i.key));
    mica_cache_key other = mica_cache_key_of("y", 1);
    assert_false(mica_cache_open(&t, i.bytes, i.size, &other));
    for (size_t n = 0; n < i.size; n += n < 300 ? 1 : 97) assert_false(mica_cache_open(&t, i.bytes, n, &i.key));
    for (size_t at = 0; at < i.size; at += at < 400 ? 1 : 13) {
        i.bytes[at] ^= 0x10;
        if (mica_cache_open(&t, i.bytes, i.size, &i.key)) fail_msg("a changed byte %zu of %zu goes unnoticed", at, i.size);
        i.bytes[at] ^= 0x10;
    }
    mica_free(i.bytes);
}

/** With a right checksum, wrong contents may give wrong ids but must stay inside the tables (sanitizers would tell). */
static void sealed_cache_is_bounded(void **state) {
    (void)state;
    image i = make_image();
    for (size_t at = 0; at < i.size; at += at < 400 ? 1 : 5) {
        unsigned char old = i.bytes[at];
        i.bytes[at] = (unsigned char)(at % 3 ? 0xFF : old + 1);
        mica_cache_seal(i.bytes, i.size);
        mica_tables t, copy;
        if (mica_cache_open(&t, i.bytes, i.size, &i.key)) {
            size_t n;
            mica_cache_key key = i.key;
            unsigned char *again = mica_cache_image(&t, &key, &n); // reads every section
            copy = t;
            for (uint32_t id = 0; id < MICA_MIN(copy.token_count, 1000u); id++) {
                size_t size;
                const char *s = mica_tables_token(&copy, id, &size);
                if (s) mica_tables_find(&copy, s, size);
            }
            mica_free(again);
        }
        i.bytes[at] = old;
    }
    mica_free(i.bytes);
}

/** A vocabulary large enough to be cached: all pairs and triples of some letters. */
static void write_large(const char *path) {
    mica_buf json = {0}, merges = {0};
    mica_error err = {0};
    int id = 0;
    mica_buf_puts(&json, "{\"model\":{\"vocab\":{");
    for (char a = 'A'; a <= 'z'; a++)
        if (a < '[' || a > '`') mica_buf_printf(&json, "%s\"%c\":%d", id ? "," : "", a, id), id++;
    for (int i = 0; i < 52 * 52 * 20; i++) {
        static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        char s[] = {letters[i % 52], letters[i / 52 % 52], letters[(i / 52 / 52 + 26) % 52]};
        int n = i < 52 * 52 ? 2 : 3;
        mica_buf_printf(&json, ",\"%.*s\":%d", n, s, id++);
        mica_buf_printf(&merges, "%s\"%.*s %c\"", merges.len ? "," : "", n - 1, s, s[n - 1]);
    }
    mica_buf_printf(&json, "},\"merges\":[%s]}}", merges.data);
    mica_writer w;
    assert_true(mica_writer_open(&w, path, &err) && mica_writer_write(&w, json.data, json.len, &err) && mica_writer_commit(&w, &err));
    mica_buf_free(&json);
    mica_buf_free(&merges);
}

static char *cache_file(const char *path) {
    mica_map map;
    assert_true(mica_map_open(&map, path, NULL));
    mica_cache_key key = mica_cache_key_of(map.data, map.size);
    mica_map_close(&map);
    char *dir = mica_cache_dir(), *file = mica_strf("%s/tokenizers/%016llx-%llx.v1", dir, (unsigned long long)key.hash, (unsigned long long)key.size);
    mica_free(dir);
    return file;
}

static void check_load(const char *path, bool cached) {
    mica_error err = {0};
    mica_tokenizer *t = mica_tokenizer_from_file(path, &err);
    if (!t) fail_msg("%s", err.msg);
    assert_int_equal(t->tables.map.data != NULL, cached);
    check_encode(t, "ABb", "2808");
    mica_tokenizer_free(t);
}

static void cache_round_trip(void **state) {
    (void)state;
    char dir[] = "/tmp/mica-tokenizer-XXXXXX";
    assert_non_null(mkdtemp(dir));
    setenv("MICA_CACHE", dir, 1);
    char *path = mica_strf("%s/tokenizer.json", dir), *sub = mica_strf("%s/tokenizers", dir);
    write_large(path);
    char *file = cache_file(path);
    check_load(path, false);
    assert_true(mica_is_file(file));
    check_load(path, true);
    FILE *f = fopen(file, "r+b"); // one byte in the middle
    assert_non_null(f);
    assert_int_equal(fseek(f, 5000, SEEK_SET), 0);
    fputc('!', f);
    fclose(f);
    check_load(path, false);
    check_load(path, true); // rebuilt
    assert_int_equal(truncate(file, 100), 0);
    check_load(path, false);
    mica_remove_flat_dir(sub);
    f = fopen(sub, "wb"); // a file where the folder should be: no cache, no error
    assert_non_null(f);
    fclose(f);
    check_load(path, false);
    check_load(path, false);
    unlink(sub);
    unsetenv("MICA_CACHE");
    mica_remove_flat_dir(dir);
    mica_free(file);
    mica_free(sub);
    mica_free(path);
}

// ---- GGUF vocabularies -----------------------------------------------------------------------------
typedef struct word_list {
    const char *const *tokens, *const *merges;
} word_list;

static mica_vocab_string nth_token(const void *ctx, size_t i) {
    const char *s = ((const word_list *)ctx)->tokens[i];
    return (mica_vocab_string){s, strlen(s)};
}

static mica_vocab_string nth_merge(const void *ctx, size_t i) {
    const char *s = ((const word_list *)ctx)->merges[i];
    return (mica_vocab_string){s, strlen(s)};
}

static void gguf_vocabularies(void **state) {
    (void)state;
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a", "ab", "zz", "<tool>", "  "};
    const float scores[] = {0, 0, 0, -9, -9, -9, -2, -1, -3, 0, 0}, no_numbers[11] = {0, NAN};
    const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 1, 1, 4, 1};
    word_list words = {tokens, (const char *const[]){"nospace"}};
    mica_vocab v = {.what = "x.gguf", .model = "llama", .ctx = &words, .token = nth_token, .merge = nth_merge, .count = 11, .scores = scores,
                    .types = types, .bos = 1, .eos = 2, .unk = 0, .pad = -1, .add_bos = -1, .add_eos = -1, .add_space_prefix = -1};
    mica_error err = {0};
    mica_tokenizer *t = mica_tokenizer_from_vocab(&v, &err);
    if (!t) fail_msg("%s", err.msg);
    check_encode(t, "ab", "1 3 7"); // a b first: score -1
    check_encode(t, "ab<tool>a", "1 3 7 9 4");
    assert_int_equal(mica_tokenizer_eos(t), 2);
    mica_tokenizer_free(t);
    v.architecture = "gemma3"; // the order of tokens ranks: \u2581 a first; runs of spaces are \u2581s
    assert_non_null(t = mica_tokenizer_from_vocab(&v, &err));
    check_encode(t, " ab", "1 6 5");
    check_encode(t, "  b", "1 10 5");
    mica_tokenizer_free(t);
    v.architecture = NULL, v.scores = no_numbers;
    assert_null(mica_tokenizer_from_vocab(&v, &err));
    assert_non_null(strstr(err.msg, "scores[1]"));
    v.scores = NULL;
    assert_null(mica_tokenizer_from_vocab(&v, &err));
    assert_non_null(strstr(err.msg, "neither merges nor scores"));
    v.merge_count = 1;
    assert_null(mica_tokenizer_from_vocab(&v, &err));
    assert_non_null(strstr(err.msg, "merges[0]"));
    v.model = "wpm";
    assert_null(mica_tokenizer_from_vocab(&v, &err));
    assert_non_null(strstr(err.msg, "\"wpm\""));
}

int main(void) {
    setenv("MICA_CACHE", "/dev/null/cache", 1); // nothing can be created there
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_files), cmocka_unit_test(truncated_files), cmocka_unit_test(failing_allocations), cmocka_unit_test(encode_fails_alone),
        cmocka_unit_test(damaged_cache_is_refused), cmocka_unit_test(sealed_cache_is_bounded), cmocka_unit_test(cache_round_trip), cmocka_unit_test(gguf_vocabularies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
