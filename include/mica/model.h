// SPDX-License-Identifier: Apache-2.0
// Models: load a checkpoint, generate text, score tokens, measure. One model may be shared by threads: each call has
// its own stream, metrics and error. Option structs are plain: NULL means all defaults, 0 in a field means its default.
// What computes is a backend (backend.h): all of this file works with every one, except where it says "native backends".
#ifndef MICA_MODEL_H
#define MICA_MODEL_H

#include "mica/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mica_model mica_model;
typedef struct mica_stream mica_stream;

// ---- what a checkpoint is -----------------------------------------------------------------------------
typedef struct mica_info {
    char architecture[64];      // model_type of the config: "llama", "qwen2", "qwen3", "gemma3_text", …
    int32_t vocab_size, num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim;
    int32_t quant_bits, quant_group; // 0 when dense
    char quant_mode[16];        // "affine", "mxfp4", …; "" when dense
    char dtype[8];              // of activations: "bf16", "f16", "f32"
    int32_t context_length;     // positions the model was made for
    int32_t sliding_window;     // 0 = none
    int64_t parameters;         // number of weights, tied ones once
    int64_t bytes_on_disk;      // of the weight files
    int64_t weight_bytes;       // memory that the loaded weights take
    int64_t adapter_bytes;      // and that of adapters beside them, as of the last mica_model_info
    int64_t kv_bytes_per_token; // memory of one more position in the layers without a window
    int64_t kv_bytes_window;    // most memory that the layers with a window take for one sequence
    bool has_chat_template;
} mica_info;

/** Reads what a model folder or .gguf file holds without loading its weights. */
MICA_API bool mica_info_read(const char *path, mica_info *info, mica_error *err);
/** Bytes of weights and adapters, of the cache of one sequence of `context` positions, and of working memory (which grows somewhat with the threads). */
MICA_API int64_t mica_info_memory(const mica_info *info, int32_t context);

// ---- loading ------------------------------------------------------------------------------------------
typedef struct mica_load_options {
    const char *backend;   // "cpu", "mlx_lm" or one registered (backend.h); default: the first of these that is available here
    const char *device;    // "cpu" (default)
    const char *cpu_level; // "ref", "avx2", "avx512vnni", "avx512", "amx", "neon"; default $MICA_CPU, else the best there is
    int32_t threads;       // default: the CPUs this process may run on
    int32_t context;       // most positions a sequence may have; default: the model's own
    int32_t kv_bits;       // 8: keys and values are cached as 8-bit codes, one scale for each position and head, in half the
                           // memory; default 16: in the activations' own type
    const char *activations; // "exact" (default), or "int8": inputs of layers with packed weights are rounded to 8 bits, group by
                             // group; faster where prompts or batches are long, and less exact (mica_perplexity_of tells how much)
    const char *adapter;   // folder of a LoRA or DoRA adapter (mlx-lm, PEFT or go-mlx) that is added to the weights, unless a request names another
                           // one (adapter.h); default: none
    int64_t memory_budget; // bytes that weights and KV caches may take together; default: no limit. A model that cannot fit, with one
                           // sequence of `context` if that is given, is refused before its weights are read. Under the
                           // budget kept prefixes go first; then a call whose prompt cannot fit fails at once, and one that finds no room
                           // on its way fails there, while others go on
    int64_t prefix_cache;  // bytes of keys and values of earlier prompts that are kept, least recently used first to go, so that later prompts with
                           // the same beginning need not compute it again (answers do not change by it); default 0: an eighth of the
                           // machine's memory, but at most 4 GiB; -1: nothing is kept. Within memory_budget
    const char *python;    // "mlx_lm": the interpreter to run; default $MICA_PYTHON, else an active virtual environment's, else python3
} mica_load_options;

/** path: a model folder (config.json, *.safetensors, tokenizer.json) or a .gguf file. Free with mica_model_free. */
MICA_API mica_model *mica_model_load(const char *path, const mica_load_options *options, mica_error *err);
/** A model with random weights and a named real shape ("gemma3-1b", "qwen3-0.6b", "llama3.2-1b", …), for measuring; it has no
 * tokenizer. bits 0 = dense bf16, else affine with groups of 64. An unknown shape fails, naming the known ones. */
MICA_API mica_model *mica_model_random(const char *shape, int32_t bits, const mica_load_options *options, mica_error *err);
/** Gives back everything that the model holds; may be repeated, from any thread. Later calls on it fail. Calls under way in other threads end
 * safely: streams and batches that are open, and a classification, are cancelled; scoring and measuring end with their result. Memory is given
 * back with the last of these, of streams, batches and sessions when they are freed. */
MICA_API void mica_model_close(mica_model *model);
/** Closes the model and frees the handle itself; NULL is fine. No call may begin on it any more. */
MICA_API void mica_model_free(mica_model *model);
MICA_API const mica_info *mica_model_info(const mica_model *model);
/** Name of the backend that computes. */
MICA_API const char *mica_model_backend(const mica_model *model);
/** Level of the CPU kernels in use; "" for backends that are not native. */
MICA_API const char *mica_model_cpu_level(const mica_model *model);

/** Its tokenizer (tokenizer.h), borrowed until the model is closed and the last stream, batch or session of it is freed; NULL for random
 * weights and for folders without tokenizer.json, which work on ids only, and for backends that are not native. */
MICA_API const struct mica_tokenizer *mica_model_tokenizer(const mica_model *model);

// ---- generating ---------------------------------------------------------------------------------------
typedef struct mica_logit_bias {
    int32_t id;
    float bias; // added to the logit before everything else; -INFINITY forbids the token
} mica_logit_bias;

typedef struct mica_logprob {
    int32_t id;
    float logprob; // natural logarithm, of the model's own distribution (before penalties and filters)
} mica_logprob;

typedef struct mica_generate_options {
    int32_t max_tokens;   // default 256
    int32_t min_tokens;   // end-of-sequence tokens are forbidden before this many; default 0
    float temperature;    // default 0: greedy
    int32_t top_k;        // default 0: off
    float top_p;          // default 0: off (as is 1)
    float min_p;          // default 0: off
    float repeat_penalty; // default 0: off (as is 1); over the unique ids of prompt and answer
    float presence_penalty, frequency_penalty; // default 0; over the answer only, as in the OpenAI API
    const mica_logit_bias *logit_bias;
    size_t logit_bias_count;
    uint64_t seed;        // default 0: a stream like any other; equal seeds give equal texts
    const char *order;    // default "top_p,min_p,top_k,temperature"; a stage left out is off
    const char *const *stop; // texts that end the answer; they are not part of it
    size_t stop_count;
    const int32_t *stop_ids; // tokens that end the answer, besides the model's own
    size_t stop_id_count;
    bool ignore_eos;
    int32_t speculate;    // tokens guessed ahead at most (0 … 7), from what prompt and answer said before, and verified in one step; default 0: off.
                          // Tokens and log-probabilities are the same, bit for bit; texts that repeat themselves come faster
    const char *adapter;  // name of a loaded adapter to answer with (adapter.h); "" = the model without any; default: what it was loaded with
    int32_t logprobs;     // candidates reported with each token; default 0, -1 = only the token's own
} mica_generate_options;

typedef enum mica_finish { MICA_FINISH_NONE = 0, MICA_FINISH_STOP, MICA_FINISH_LENGTH, MICA_FINISH_CANCELLED, MICA_FINISH_ERROR } mica_finish;
/** "stop", "length", "cancelled", "error" or "". */
MICA_API const char *mica_finish_name(mica_finish finish);

typedef struct mica_token {
    int32_t id;
    const char *text; // whole UTF-8 that became final with this token, often "" inside a character or a possible stop text
    size_t length;
    float logprob;              // with options.logprobs, else 0
    const mica_logprob *top;    // most likely first
    int32_t top_count;
} mica_token; // pointers live until the next call on the stream

/** Times in seconds, speeds in tokens per second, memory in bytes. Decoding time excludes the caller's between calls. */
typedef struct mica_metrics {
    double load_seconds;
    int64_t prompt_tokens, cached_tokens, generated_tokens;
    int64_t drafted_tokens, accepted_tokens; // with options.speculate: guessed ahead; those of them that were right
    double prefill_seconds, decode_seconds, total_seconds, time_to_first_token_seconds;
    double prefill_tokens_per_second, decode_tokens_per_second;
    int64_t active_memory_bytes, peak_memory_bytes;
} mica_metrics;

/** What an answer starts from: one of text, ids and chat. */
typedef struct mica_prompt {
    const char *text; // raw, encoded with the tokenizer's own BOS
    size_t length;
    const int32_t *ids; // used as they are
    size_t count;
    const struct mica_chat *chat; // a conversation (chat.h)
} mica_prompt;

/** Starts an answer. Nothing is computed before the first mica_stream_next. What prompt and options point to is copied. */
MICA_API mica_stream *mica_start(mica_model *model, const mica_prompt *prompt, const mica_generate_options *options, mica_error *err);
/** Starts completing a raw prompt (with the tokenizer's own BOS). Nothing is computed before the first mica_stream_next. */
MICA_API mica_stream *mica_generate(mica_model *model, const char *prompt, size_t length, const mica_generate_options *options, mica_error *err);
/** The same from token ids, used as they are. */
MICA_API mica_stream *mica_generate_ids(mica_model *model, const int32_t *ids, size_t count, const mica_generate_options *options, mica_error *err);
/** Next token; false at the end: then ask for the reason, and for the error if it is MICA_FINISH_ERROR. The last token of an
 * answer may carry text held back before; an end-of-sequence token is not delivered. Text held back at the end comes with a
 * final token of id -1. */
MICA_API bool mica_stream_next(mica_stream *stream, mica_token *token);
/** Calls on_token for each token until the end, or until it returns false, which cancels. Gives the reason of the end. */
MICA_API mica_finish mica_stream_each(mica_stream *stream, bool (*on_token)(void *context, const mica_token *token), void *context);
/** From any thread: the stream ends within one step with MICA_FINISH_CANCELLED. */
MICA_API void mica_stream_cancel(mica_stream *stream);
MICA_API mica_finish mica_stream_finish(const mica_stream *stream);
/** True, and *err filled, if the stream failed. */
MICA_API bool mica_stream_error(const mica_stream *stream, mica_error *err);
MICA_API mica_metrics mica_stream_metrics(const mica_stream *stream);
/** The prompt's ids; valid until the stream is freed. NULL and 0 if the backend does not tell. */
MICA_API const int32_t *mica_stream_prompt(const mica_stream *stream, size_t *count);
MICA_API void mica_stream_free(mica_stream *stream);

// ---- scoring (native backends) ------------------------------------------------------------------------
typedef struct mica_scores {
    size_t count;
    float *logprobs;   // [count]: of ids[i] given those before it; logprobs[0] is NAN
    int32_t top_k;
    mica_logprob *top; // [count, top_k]: the distribution after ids[i]
    double perplexity; // exp of minus the mean of logprobs[1…]; NAN when count < 2
    mica_metrics metrics;
} mica_scores;

/** Teacher-forced log-probabilities (f32 log-softmax). top_k up to the vocabulary's size. Release with mica_scores_free. */
MICA_API bool mica_score(mica_model *model, const int32_t *ids, size_t count, int32_t top_k, mica_scores *scores, mica_error *err);
MICA_API void mica_scores_free(mica_scores *scores);

typedef struct mica_perplexity_options {
    mica_model *reference; // to compare with; same vocabulary; default NULL: none
    int32_t window;        // the text is cut into pieces of so many tokens, each read from nothing; default 1024, at most the context
} mica_perplexity_options;

typedef struct mica_perplexity {
    size_t predicted;  // tokens: all but the first of each window
    double perplexity; // exp of the mean of -log p
    double standard_error; // of that, as if the tokens were independent; NAN for a single one
    // Against the reference (NAN without one):
    double reference_perplexity;
    double kl_mean, kl_max; // Kullback-Leibler divergence of the model's distribution from the reference's, in nats
    double same_top;        // share of positions where both hold the same token for the likeliest
    double change_mean, change_max; // |difference| of a logit
} mica_perplexity;

/** How well the model predicts ids, and how far it is from a reference. */
MICA_API bool mica_perplexity_of(mica_model *model, const int32_t *ids, size_t count, const mica_perplexity_options *options,
                                 mica_perplexity *out, mica_error *err);

// ---- measuring (native backends) ----------------------------------------------------------------------
/** Where time went: all runs of one op together. */
typedef struct mica_op_time {
    const char *op;
    int64_t runs;
    double seconds;
} mica_op_time;

typedef struct mica_bench_case {
    bool decode;    // false: one prefill of `tokens`; true: `tokens` decoding steps
    int32_t tokens; // per sequence
    int32_t batch;  // sequences; default 1
    int32_t depth;  // positions already in the cache; default 0
    mica_op_time *ops; // NULL, or room for `most_ops`: gets the ops that took longest, in order; op NULL past the last
    size_t most_ops;
} mica_bench_case;
typedef struct mica_bench_times {
    double seconds;       // of the case itself
    double depth_seconds; // of filling the cache up to its depth before: a prefill of `depth` tokens per sequence
} mica_bench_times;
/** Runs the case once on random ids and gives its wall times. */
MICA_API bool mica_bench(mica_model *model, const mica_bench_case *bench, mica_bench_times *times, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
