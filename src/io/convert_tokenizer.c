// SPDX-License-Identifier: Apache-2.0
// tokenizer.json from a GGUF vocabulary, in the form that Hugging Face's tokenizers reads. "gpt2" vocabularies become
// byte-level BPE with the split pattern that `pre` names; "llama" ones become SentencePiece-style BPE, whose merges are
// recovered from the vocabulary: every way to cut a token into two tokens, best score first. Ids equal those that
// transformers computes from the GGUF file itself.
#include "io/convert_parts.h"
#include "base/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tok {
    mica_buf text;
    mica_json_writer w;
    mica_arena arena;
    const mica_gguf_vocab *v;
    mica_gguf_string *spelled; // [count] tokens as tokenizer.json spells them
    mica_strmap ids;           // spelled -> id
    bool bytes, gemma;         // byte-level; gemma's flavour of SentencePiece
} tok;

// ---- small JSON helpers --------------------------------------------------------------------------------
static void key_string(tok *t, const char *key, const char *value) {
    mica_json_key(&t->w, key);
    if (value) mica_json_put_cstring(&t->w, value);
    else mica_json_put_null(&t->w);
}

static void key_bool(tok *t, const char *key, bool v) {
    mica_json_key(&t->w, key);
    mica_json_put_bool(&t->w, v);
}

static void begin(tok *t, const char *key, const char *type) {
    if (key) mica_json_key(&t->w, key);
    mica_json_begin_object(&t->w);
    key_string(t, "type", type);
}

static void end(tok *t) { mica_json_end_object(&t->w); }

static void put_token(tok *t, mica_gguf_string s) { mica_json_put_string(&t->w, s.data, s.size); }

static void token_key(tok *t, mica_gguf_string s) {
    put_token(t, s);
    mica_buf_putc(t->w.out, ':');
    t->w.need_comma = false;
}

static void pattern(tok *t, const char *kind, const char *value) {
    mica_json_key(&t->w, "pattern");
    mica_json_begin_object(&t->w);
    key_string(t, kind, value);
    end(t);
}

// ---- spelling of tokens --------------------------------------------------------------------------------
// GPT-2 writes each byte as a printable character; those are the 188 printable ones of Latin-1, and U+0100 upwards.
static bool prints_itself(uint32_t b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xFF && b != 0xAD); }

static bool in_byte_alphabet(uint32_t cp) { return prints_itself(cp) || (cp >= 0x100 && cp < 0x100 + 68); }

static bool is_byte_spelled(mica_gguf_string s) {
    for (size_t i = 0, n; i < s.size; i += n) {
        uint32_t cp;
        if (!(n = mica_utf8_decode(s.data + i, s.size - i, &cp)) || !in_byte_alphabet(cp)) return false;
    }
    return true;
}

static bool respell(tok *t, mica_gguf_string s, mica_gguf_string *out) {
    char *p = mica_arena_alloc(&t->arena, s.size * 2 + 1); // every character of the alphabet has at most two bytes
    size_t n = 0;
    if (!p) return false;
    for (size_t i = 0; i < s.size; i++) {
        uint32_t b = (unsigned char)s.data[i], cp = b;
        if (!prints_itself(b)) {
            cp = 0x100; // the k-th byte that does not print itself
            for (uint32_t k = 0; k < b; k++) cp += !prints_itself(k);
        }
        if (cp >= 0x80) p[n++] = (char)(0xC0 | cp >> 6), p[n++] = (char)(0x80 | (cp & 63));
        else p[n++] = (char)cp;
    }
    *out = (mica_gguf_string){p, n};
    return true;
}

// Gemma's runs of spaces are stored as spaces, but looked up after the normalizer made them ▁.
static bool respell_spaces(tok *t, mica_gguf_string s, mica_gguf_string *out) {
    for (size_t i = 0; i < s.size; i++)
        if (s.data[i] != ' ') return *out = s, true;
    char *p = mica_arena_alloc(&t->arena, s.size * 3 + 1);
    if (!p) return false;
    for (size_t i = 0; i < s.size; i++) memcpy(p + 3 * i, "\xE2\x96\x81", 3);
    *out = (mica_gguf_string){p, 3 * s.size};
    return true;
}

static bool is_utf8(mica_gguf_string s) {
    uint32_t cp;
    for (size_t i = 0, n; i < s.size; i += n)
        if (!(n = mica_utf8_decode(s.data + i, s.size - i, &cp))) return false;
    return true;
}

static bool spell_tokens(tok *t, const char *path, mica_error *err) {
    t->spelled = mica_arena_alloc(&t->arena, t->v->count * sizeof *t->spelled);
    bool ok = t->spelled != NULL;
    for (size_t i = 0; ok && i < t->v->count; i++) {
        mica_gguf_string s = t->v->tokens[i], *out = &t->spelled[i];
        if (!is_utf8(s)) return mica_fail(err, MICA_ERR_FORMAT, "%s: \"tokenizer.ggml.tokens\"[%zu] is not UTF-8", path, i);
        *out = s;
        if (t->bytes && !is_byte_spelled(s)) ok = respell(t, s, out);
        else if (t->gemma && s.size) ok = respell_spaces(t, s, out);
        ok = ok && mica_strmap_put(&t->ids, out->data, out->size, i);
    }
    return ok || mica_fail_memory(err, t->v->count * sizeof *t->spelled, "vocabulary");
}

// ---- merges --------------------------------------------------------------------------------------------
typedef struct merge {
    float score;
    uint32_t token, left_bytes, left_chars, right_chars;
} merge;

static int merge_order(const void *a, const void *b) {
    const merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left_chars != y->left_chars) return x->left_chars > y->left_chars ? -1 : 1;
    if (x->right_chars != y->right_chars) return x->right_chars > y->right_chars ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static uint32_t char_count(mica_gguf_string s) {
    uint32_t n = 0;
    for (size_t i = 0; i < s.size; i++) n += ((unsigned char)s.data[i] & 0xC0) != 0x80;
    return n;
}

typedef struct merges {
    merge *items;
    size_t count, capacity;
} merges;

static bool add_cuts(tok *t, size_t token, merges *list) {
    mica_gguf_string s = t->spelled[token];
    uint32_t total = char_count(s), left = 0;
    // Gemma's scores do not follow its merge order; the order of the tokens does.
    float score = t->gemma ? -(float)token : t->v->scores[token];
    for (size_t i = 0; i + 1 < s.size; i++) {
        left += ((unsigned char)s.data[i] & 0xC0) != 0x80;
        if (((unsigned char)s.data[i + 1] & 0xC0) == 0x80) continue; // not between characters
        if (!mica_strmap_get(&t->ids, s.data, i + 1, NULL) || !mica_strmap_get(&t->ids, s.data + i + 1, s.size - i - 1, NULL)) continue;
        if (!mica_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items)) return false;
        list->items[list->count++] = (merge){score, (uint32_t)token, (uint32_t)(i + 1), left, total - left};
    }
    return true;
}

static void put_pair(tok *t, const char *s, size_t left, size_t size) {
    mica_json_begin_array(&t->w);
    mica_json_put_string(&t->w, s, left);
    mica_json_put_string(&t->w, s + left, size - left);
    mica_json_end_array(&t->w);
}

static bool put_recovered_merges(tok *t) {
    merges list = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < t->v->count; i++) {
        uintptr_t id;
        bool last = mica_strmap_get(&t->ids, t->spelled[i].data, t->spelled[i].size, &id) && id == i;
        ok = !last || t->spelled[i].size > 4096 || add_cuts(t, i, &list);
    }
    if (ok && list.count) qsort(list.items, list.count, sizeof *list.items, merge_order);
    for (size_t i = 0; ok && i < list.count; i++)
        put_pair(t, t->spelled[list.items[i].token].data, list.items[i].left_bytes, t->spelled[list.items[i].token].size);
    mica_free(list.items);
    return ok;
}

static bool put_merges(tok *t, mica_error *err) {
    bool ok = true;
    mica_json_key(&t->w, "merges");
    mica_json_begin_array(&t->w);
    if (t->v->merge_count || t->bytes) {
        for (size_t i = 0; i < t->v->merge_count; i++) {
            mica_gguf_string m = t->v->merges[i];
            const char *space = m.size ? memchr(m.data, ' ', m.size) : NULL;
            size_t left = space ? (size_t)(space - m.data) : 0;
            if (!space || memchr(space + 1, ' ', m.size - left - 1))
                return mica_fail(err, MICA_ERR_FORMAT, "\"tokenizer.ggml.merges\"[%zu] is not two tokens with a space between", i);
            mica_json_begin_array(&t->w);
            mica_json_put_string(&t->w, m.data, left);
            mica_json_put_string(&t->w, space + 1, m.size - left - 1);
            mica_json_end_array(&t->w);
        }
    } else if (!t->gemma && !t->v->scores) {
        ok = mica_fail(err, MICA_ERR_FORMAT, "the tokenizer has neither merges nor scores");
    } else {
        ok = put_recovered_merges(t) || mica_fail_memory(err, t->v->count * sizeof(merge), "merges");
    }
    mica_json_end_array(&t->w);
    return ok;
}

// ---- pipeline ------------------------------------------------------------------------------------------
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define OTHERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix) "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix
#define CASED_OTHERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES

// The split patterns that transformers knows for `pre`; any other name means GPT-2's, which ByteLevel carries.
static const char *split_pattern(const char *pre) {
    static const struct { const char *names, *pattern; } known[] = {
        {" llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe ", WORDS "|\\p{N}{1,3}" OTHERS},
        {" qwen2 deepseek-r1-qwen kormo f2llmv2 megrez ", WORDS "|\\p{N}" OTHERS},
        {" qwen35 ", CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES},
        {" tekken ", CASED("") "|\\p{N}" CASED_OTHERS},
        {" gpt-4o llama4 kanana2 talkie minimax-m2 ", CASED(CONTRACTIONS "?") "|\\p{N}{1,3}" CASED_OTHERS}};
    size_t n = pre ? strlen(pre) : 0;
    for (size_t i = 0; n && i < MICA_COUNT(known); i++) {
        const char *at = strstr(known[i].names, pre);
        if (at && at > known[i].names && at[-1] == ' ' && at[n] == ' ') return known[i].pattern;
    }
    return NULL;
}

static void byte_level(tok *t, const char *key, bool prefix_space, bool use_regex) {
    begin(t, key, "ByteLevel");
    key_bool(t, "add_prefix_space", prefix_space);
    key_bool(t, "trim_offsets", true);
    key_bool(t, "use_regex", use_regex);
    end(t);
}

static void put_byte_pipeline(tok *t, const char *split) {
    key_string(t, "normalizer", NULL);
    if (split) {
        begin(t, "pre_tokenizer", "Sequence");
        mica_json_key(&t->w, "pretokenizers");
        mica_json_begin_array(&t->w);
        begin(t, NULL, "Split");
        pattern(t, "Regex", split);
        key_string(t, "behavior", "Isolated");
        key_bool(t, "invert", false);
        end(t);
        byte_level(t, NULL, false, false);
        mica_json_end_array(&t->w);
        end(t);
    } else {
        byte_level(t, "pre_tokenizer", false, true);
    }
    byte_level(t, "decoder", true, true);
}

static void put_replace(tok *t, const char *key, const char *from, const char *to) {
    begin(t, key, "Replace");
    pattern(t, "String", from);
    key_string(t, "content", to);
    end(t);
}

static void put_sentence_decoder(tok *t, bool strip) {
    begin(t, "decoder", "Sequence");
    mica_json_key(&t->w, "decoders");
    mica_json_begin_array(&t->w);
    put_replace(t, NULL, "\xE2\x96\x81", " ");
    begin(t, NULL, "ByteFallback"), end(t);
    begin(t, NULL, "Fuse"), end(t);
    if (strip) {
        begin(t, NULL, "Strip");
        key_string(t, "content", " ");
        mica_json_key(&t->w, "start"), mica_json_put_int(&t->w, 1);
        mica_json_key(&t->w, "stop"), mica_json_put_int(&t->w, 0);
        end(t);
    }
    mica_json_end_array(&t->w);
    end(t);
}

static void put_sentence_pipeline(tok *t) {
    bool prefix = !t->gemma && t->v->add_space_prefix != 0;
    if (t->gemma) {
        put_replace(t, "normalizer", " ", "\xE2\x96\x81");
        begin(t, "pre_tokenizer", "Split");
        pattern(t, "String", " ");
        key_string(t, "behavior", "MergedWithPrevious");
        key_bool(t, "invert", false);
        end(t);
    } else {
        key_string(t, "normalizer", NULL);
        begin(t, "pre_tokenizer", "Metaspace");
        key_string(t, "replacement", "\xE2\x96\x81");
        key_string(t, "prepend_scheme", prefix ? "first" : "never");
        key_bool(t, "split", false);
        end(t);
    }
    put_sentence_decoder(t, prefix);
}

// ---- added tokens and template ---------------------------------------------------------------------------
// The tokens that transformers' class for this kind of vocabulary makes special by default.
static bool is_default_special(const tok *t, mica_gguf_string s) {
    static const char *const names[3][5] = {{"<|endoftext|>"}, {"<unk>", "<s>", "</s>"}, {"<unk>", "<bos>", "<eos>", "<pad>", "<mask>"}};
    const char *const *list = names[t->bytes ? 0 : t->gemma ? 2 : 1];
    for (int i = 0; i < 5 && list[i]; i++)
        if (s.size == strlen(list[i]) && !memcmp(s.data, list[i], s.size)) return true;
    return false;
}

static void put_added_tokens(tok *t) {
    const mica_gguf_vocab *v = t->v;
    mica_json_key(&t->w, "added_tokens");
    mica_json_begin_array(&t->w);
    for (size_t i = 0; i < v->count; i++) {
        int64_t id = (int64_t)i;
        bool named = id == v->bos_id || id == v->eos_id || id == v->unk_id || id == v->pad_id;
        bool user = v->types && v->types[i] == 4, control = (v->types && v->types[i] == 3) || named || is_default_special(t, v->tokens[i]);
        mica_gguf_string s = v->tokens[i];
        uintptr_t spelled; // only under the very spelling of the file, and only the last of equals
        if ((!control && !user) || !s.size || !mica_strmap_get(&t->ids, s.data, s.size, &spelled) || spelled != i) continue;
        mica_json_begin_object(&t->w);
        mica_json_key(&t->w, "id"), mica_json_put_int(&t->w, id);
        mica_json_key(&t->w, "content"), put_token(t, s);
        key_bool(t, "single_word", false), key_bool(t, "lstrip", false), key_bool(t, "rstrip", false);
        key_bool(t, "normalized", false), key_bool(t, "special", control);
        end(t);
    }
    mica_json_end_array(&t->w);
}

static void template_special(tok *t, int64_t id, int type_id) {
    mica_json_begin_object(&t->w);
    mica_json_key(&t->w, "SpecialToken");
    mica_json_begin_object(&t->w);
    mica_json_key(&t->w, "id"), put_token(t, t->spelled[id]);
    mica_json_key(&t->w, "type_id"), mica_json_put_int(&t->w, type_id);
    end(t), end(t);
}

static void template_text(tok *t, const char *id, int type_id) {
    mica_json_begin_object(&t->w);
    mica_json_key(&t->w, "Sequence");
    mica_json_begin_object(&t->w);
    key_string(t, "id", id);
    mica_json_key(&t->w, "type_id"), mica_json_put_int(&t->w, type_id);
    end(t), end(t);
}

static void template_half(tok *t, const char *id, int type_id, int64_t bos, int64_t eos) {
    if (bos >= 0) template_special(t, bos, type_id);
    template_text(t, id, type_id);
    if (eos >= 0) template_special(t, eos, type_id);
}

static void declare_special(tok *t, int64_t id) {
    token_key(t, t->spelled[id]);
    mica_json_begin_object(&t->w);
    mica_json_key(&t->w, "id"), put_token(t, t->spelled[id]);
    mica_json_key(&t->w, "ids");
    mica_json_begin_array(&t->w), mica_json_put_int(&t->w, id), mica_json_end_array(&t->w);
    mica_json_key(&t->w, "tokens");
    mica_json_begin_array(&t->w), put_token(t, t->spelled[id]), mica_json_end_array(&t->w);
    end(t);
}

static bool adds_bos(const tok *t) {
    return t->v->bos_id >= 0 && (t->v->add_bos == 1 || (t->v->add_bos < 0 && !t->bytes)); // SentencePiece files imply it
}

static void put_template(tok *t) {
    int64_t bos = adds_bos(t) ? t->v->bos_id : -1, eos = t->v->add_eos == 1 ? t->v->eos_id : -1;
    begin(t, "post_processor", "TemplateProcessing");
    mica_json_key(&t->w, "single");
    mica_json_begin_array(&t->w);
    template_half(t, "A", 0, bos, eos);
    mica_json_end_array(&t->w);
    mica_json_key(&t->w, "pair");
    mica_json_begin_array(&t->w);
    template_half(t, "A", 0, bos, eos), template_half(t, "B", 1, bos, eos);
    mica_json_end_array(&t->w);
    mica_json_key(&t->w, "special_tokens");
    mica_json_begin_object(&t->w);
    if (bos >= 0) declare_special(t, bos);
    if (eos >= 0 && eos != bos) declare_special(t, eos);
    end(t), end(t);
}

// ---- files -----------------------------------------------------------------------------------------------
static bool put_model(tok *t, mica_error *err) {
    begin(t, "model", "BPE");
    key_string(t, "dropout", NULL);
    key_string(t, "unk_token", t->gemma && mica_strmap_get(&t->ids, "<unk>", 5, NULL) ? "<unk>" : NULL);
    key_string(t, "continuing_subword_prefix", t->bytes ? "" : NULL);
    key_string(t, "end_of_word_suffix", t->bytes ? "" : NULL);
    key_bool(t, "fuse_unk", !t->bytes), key_bool(t, "byte_fallback", !t->bytes), key_bool(t, "ignore_merges", false);
    mica_json_key(&t->w, "vocab");
    mica_json_begin_object(&t->w);
    for (size_t i = 0; i < t->v->count; i++) {
        token_key(t, t->spelled[i]);
        mica_json_put_int(&t->w, (int64_t)i);
    }
    end(t);
    bool ok = put_merges(t, err);
    end(t);
    return ok;
}

static bool put_tokenizer(tok *t, mica_error *err) {
    mica_json_begin_object(&t->w);
    key_string(t, "version", "1.0"), key_string(t, "truncation", NULL), key_string(t, "padding", NULL);
    put_added_tokens(t);
    if (t->bytes) put_byte_pipeline(t, split_pattern(t->v->pre));
    else put_sentence_pipeline(t);
    put_template(t);
    if (!put_model(t, err)) return false;
    mica_json_end_object(&t->w);
    return true;
}

static void put_special_token(tok *t, const char *key, int64_t id) {
    if (id < 0) return;
    mica_json_key(&t->w, key);
    put_token(t, t->spelled[id]);
}

static void put_tokenizer_config(tok *t, const mica_config *c) {
    mica_json_begin_object(&t->w);
    key_string(t, "tokenizer_class", "PreTrainedTokenizerFast");
    key_bool(t, "add_bos_token", adds_bos(t)), key_bool(t, "add_eos_token", t->v->add_eos == 1);
    put_special_token(t, "bos_token", t->v->bos_id), put_special_token(t, "eos_token", t->v->eos_id);
    put_special_token(t, "unk_token", t->v->unk_id), put_special_token(t, "pad_token", t->v->pad_id);
    key_bool(t, "clean_up_tokenization_spaces", false);
    mica_json_key(&t->w, "model_max_length"), mica_json_put_int(&t->w, c->max_position_embeddings);
    if (t->v->chat_template) key_string(t, "chat_template", t->v->chat_template);
    mica_json_end_object(&t->w);
}

static bool flush(tok *t, const char *folder, const char *name, mica_error *err) {
    bool ok = !t->text.failed ? mica_convert_write(folder, name, t->text.data, t->text.len, err) : mica_fail_memory(err, t->text.len, name);
    mica_buf_free(&t->text);
    t->w = (mica_json_writer){.out = &t->text};
    return ok;
}

static bool write_files(tok *t, const mica_gguf *g, const mica_config *c, const char *folder, mica_error *err) {
    const char *template = t->v->chat_template;
    if (!spell_tokens(t, mica_gguf_path(g), err) || !put_tokenizer(t, err) || !flush(t, folder, "tokenizer.json", err)) return false;
    put_tokenizer_config(t, c);
    if (!flush(t, folder, "tokenizer_config.json", err)) return false;
    return !template || mica_convert_write(folder, "chat_template.jinja", template, strlen(template), err);
}

bool mica_convert_gguf_tokenizer(const mica_gguf *g, const mica_config *c, const char *folder, mica_error *err) {
    const mica_gguf_vocab *v = mica_gguf_get_vocab(g);
    if (!v->model || !v->count) return true; // a bare model: nothing to write
    tok t = {.v = v, .bytes = !strcmp(v->model, "gpt2"), .gemma = c->arch == MICA_ARCH_GEMMA3};
    t.w.out = &t.text;
    bool ok = t.bytes || !strcmp(v->model, "llama") ||
              mica_fail(err, MICA_ERR_UNSUPPORTED, "%s: \"tokenizer.ggml.model\": unknown tokenizer \"%s\"", mica_gguf_path(g), v->model);
    ok = ok && write_files(&t, g, c, folder, err);
    mica_buf_free(&t.text);
    mica_strmap_free(&t.ids);
    mica_arena_free(&t.arena);
    return ok;
}
