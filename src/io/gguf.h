// SPDX-License-Identifier: Apache-2.0
// GGUF versions 2 and 3: typed key-values, tensor infos, aligned data, all mapped and bounds-checked on opening.
// The getters never fail on a missing key; the vocabulary comes as plain arrays for the text room to use.
#ifndef MICA_IO_GGUF_H
#define MICA_IO_GGUF_H

#include "base/base.h"
#include "io/config.h"

typedef enum mica_ggml_type {
    MICA_GGML_F32 = 0, MICA_GGML_F16 = 1, MICA_GGML_Q4_0 = 2, MICA_GGML_Q4_1 = 3, MICA_GGML_Q5_0 = 6, MICA_GGML_Q5_1 = 7,
    MICA_GGML_Q8_0 = 8, MICA_GGML_Q2_K = 10, MICA_GGML_Q3_K = 11, MICA_GGML_Q4_K = 12, MICA_GGML_Q5_K = 13,
    MICA_GGML_Q6_K = 14, MICA_GGML_BF16 = 30,
} mica_ggml_type;

typedef struct mica_gguf_tensor {
    const char *name;
    mica_ggml_type type;
    int ndim;
    int64_t shape[4];          // outermost first (the file has it the other way round)
    const unsigned char *data;
    size_t bytes;
} mica_gguf_tensor;

typedef struct mica_gguf_string {
    const char *data; // not NUL-terminated, valid as long as the file is open
    size_t size;
} mica_gguf_string;

// The tokenizer as stored. Arrays are NULL when absent; ids are -1 when absent. Owned by the mica_gguf.
typedef struct mica_gguf_vocab {
    const char *model;               // tokenizer.ggml.model: "gpt2" or "llama"; NULL = no tokenizer in the file
    const char *pre;                 // tokenizer.ggml.pre: "qwen2", "smollm", …; NULL if absent
    size_t count;
    const mica_gguf_string *tokens;  // [count]
    const float *scores;             // [count]
    const int32_t *types;            // [count] 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    size_t merge_count;
    const mica_gguf_string *merges;  // "left right"
    mica_gguf_string stored_tokens, stored_merges; // the two lists as the file has them, a length before each string
    int64_t bos_id, eos_id, unk_id, pad_id, eot_id;
    int add_bos, add_eos, add_space_prefix; // 1, 0, or -1 when the file does not say
    const char *chat_template;       // NUL-terminated; NULL if absent
} mica_gguf_vocab;

typedef struct mica_gguf mica_gguf;
mica_gguf *mica_gguf_open(const char *path, mica_error *err);
void mica_gguf_free(mica_gguf *g);
const char *mica_gguf_path(const mica_gguf *g);
size_t mica_gguf_tensor_count(const mica_gguf *g);
const mica_gguf_tensor *mica_gguf_tensor_at(const mica_gguf *g, size_t i);
const mica_gguf_tensor *mica_gguf_find(const mica_gguf *g, const char *name);
/** Drops pages from memory: a tensor's, or the whole file's. */
void mica_gguf_forget(const mica_gguf *g, const mica_gguf_tensor *t);
void mica_gguf_rest(const mica_gguf *g);
/** Scalars: false when the key is absent or of another kind (any integer type fits int; any number fits float). */
bool mica_gguf_int(const mica_gguf *g, const char *key, int64_t *out);
bool mica_gguf_float(const mica_gguf *g, const char *key, double *out);
bool mica_gguf_str(const mica_gguf *g, const char *key, mica_gguf_string *out);
/** Never NULL: .model is NULL when the file has no tokenizer. */
const mica_gguf_vocab *mica_gguf_get_vocab(const mica_gguf *g);
/** "Q4_K", …; "?" for an unknown type. */
const char *mica_ggml_type_name(mica_ggml_type type);
/** Whether there is a file that begins as a GGUF file does. */
bool mica_gguf_is(const char *path);
#endif
