// SPDX-License-Identifier: Apache-2.0
// Fine-tuning: LoRA on dense or quantised weights, or all weights of a dense model, from the data folders that mlx-lm takes. A run that was
// stopped or killed at any moment and is resumed gives the same bits as one that never stopped.
#ifndef MICA_TRAIN_H
#define MICA_TRAIN_H

#include "mica/error.h"
#include "mica/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mica_train_kind {
    MICA_TRAIN_STEP,       // every report_every steps and after the last
    MICA_TRAIN_VALIDATION,
    MICA_TRAIN_CHECKPOINT,
    MICA_TRAIN_DONE,
    MICA_TRAIN_START,      // everything is loaded, nothing has changed yet; `step` is where a resumed run goes on
    MICA_TRAIN_PROGRESS,   // every step, before its other events: loss, learning_rate and grad_norm are its own
} mica_train_kind;

/** What a run reports. */
typedef struct mica_train_event {
    mica_train_kind kind;
    int64_t step, steps;          // done; in all
    double loss;                  // STEP: mean over the scored tokens of the steps since the last report, each before its update; VALIDATION: mean
    int64_t tokens;               // scored so far
    double learning_rate, grad_norm; // of the last step; the norm before clipping
    double tokens_per_second;     // all tokens of the steps since the last report
    double seconds;               // since the run began
    int64_t peak_memory_bytes;
    const char *path;             // CHECKPOINT: the folder
    int64_t parameters, trained;  // START: of the model; those that change
    int64_t predicted_memory_bytes; // START: what the run will take at most, with the largest batch that it is going to meet
    int32_t trained_blocks, recomputed_blocks; // START: blocks that a gradient goes through; those of them that are computed again
} mica_train_event;

typedef struct mica_train_options {
    const char *kind;             // "lora" (default), "dora" or "full"
    int32_t rank;                 // default 8
    double scale;                 // of the adapter's product; default 20, as mlx-lm
    double alpha;                 // instead: scale is alpha / rank, or with rslora alpha / √rank
    bool rslora;
    const char *const *targets;   // linear layers to adapt, by their names in a block ("self_attn.q_proj", "q_proj", "*_proj"), "embed_tokens", "lm_head";
    size_t target_count;          // default: all linear layers of the blocks
    int32_t layers;               // the last so many blocks; default 16; -1: all
    int32_t iters;                // updates; default 1000
    int32_t epochs;               // instead of iters: as many updates as it takes to see each example so many times
    int32_t batch_size;           // examples of one forward; default 4
    int32_t grad_accumulation;    // forwards of one update, their gradients weighted by scored tokens; default 1
    int32_t max_seq;              // most tokens of an example; default 2048; never more than the model's context
    const char *too_long;         // what becomes of longer ones: "truncate" (default), "split" into pieces, "skip"
    int32_t batch_tokens;         // instead of batch_size: as many examples as fit into so many tokens, packed without padding; at least max_seq
    const char *mask_prompt;      // "none" (default): all tokens are scored; "last": the completion or last answer; "assistant": all answers
    const char *grad_checkpoint;  // "off" (default), "on": inner values of blocks are computed again instead of being kept: less memory, more time, the same
                                  // results; "auto" (default with a budget): in as few blocks as the memory budget asks for
    int64_t memory_budget;        // most bytes: a run that is predicted to take more is refused; default: no limit, for "auto" what the machine has available
    double dropout;               // of what goes into adapters, while training: from 0 (default) to below 1
    bool no_shuffle;              // examples in file order
    bool skip_bad;                // lines that cannot be used are left out
    mica_optimizer_options optimizer; // default "adam", as mlx-lm (with bias correction)
    mica_schedule schedule;       // default constant 1e-5; linear and cosine over all steps after the warm-up, unless `steps` is given
    double clip;                  // most global norm of the gradients; default 0: no limit
    int32_t report_every, val_every, val_batches, save_every; // default 10, 200, 25, 100; -1: never (val_batches: all)
    uint64_t seed;
    const char *dtype;            // "model" (default): compute in the model's type, adapters and optimiser state in f32; "f32": everything in f32;
                                  // "bf16": adapters and optimiser state in bf16, too, by stochastic rounding. Weights that are trained
                                  // themselves ("full") have the model's type, rounded stochastically where that is bf16
    int32_t threads;
    bool resume;                  // go on from the checkpoint in the adapter's folder
    const char *adapter_format;   // "mlx-lm" (default) or "peft"
    const char *init_adapter;     // start from this adapter's weights; optimiser and data start afresh
    bool (*report)(void *context, const mica_train_event *event); // false stops the run, after a checkpoint
    void *context;
} mica_train_options;

/** Puts its default wherever a field of the run itself is 0 or NULL; those of optimizer and schedule stay, but for their names and rate. */
MICA_API void mica_train_defaults(mica_train_options *options);

typedef struct mica_train_summary {
    int64_t steps, tokens;        // done, by this run and those it resumed
    int64_t parameters, trained;  // of the model; those that change
    int64_t bad_lines, long_examples, unscored_examples; // of the training data, as far as it was read: left out, cut or split or left out, left out
    double loss, validation_loss; // last ones; NAN if there was none
    double seconds;
    int64_t predicted_memory_bytes, peak_memory_bytes;
    int32_t trained_blocks, recomputed_blocks; // blocks that a gradient goes through; those of them that are computed again
    bool stopped;                 // by the report callback
} mica_train_summary;

/** Trains: model: folder or .gguf file; data: folder with train.jsonl and maybe valid.jsonl; out: folder for the adapter (adapters.safetensors or
 * adapter_model.safetensors, adapter_config.json) or, with "full", for a whole model
 * (model.safetensors, config.json, the tokenizer's files), and for the checkpoint to resume from. Errors
 * name file, line, step. A loss or a parameter that is not finite stops the run and leaves the last checkpoint. */
MICA_API bool mica_train(const char *model, const char *data, const char *out, const mica_train_options *options, mica_train_summary *summary,
                         mica_error *err);

// ---- measuring ----------------------------------------------------------------------------------------------
typedef struct mica_evaluate_options {
    const char *adapter;           // added to the weights; default: none
    const char *mask_prompt, *too_long; // as in mica_train_options
    int32_t max_seq;               // default 2048
    bool skip_bad, f32;
    int64_t examples;              // most, from the beginning; default: all
    int32_t threads;
    bool (*progress)(void *context, int64_t done, int64_t examples); // after each example; false stops, with MICA_ERR_CANCELLED
    void *context;
} mica_evaluate_options;

typedef struct mica_evaluation {
    double loss, loss_error;             // mean -log p of the scored tokens; its standard error, from how examples differ (NAN for a single one)
    double perplexity, perplexity_error; // exp of that
    int64_t examples, scored, tokens;    // measured; tokens scored, and all of them
    double seconds;                      // without loading
    int64_t bad_lines, long_examples, unscored_examples; // as in mica_train_summary
} mica_evaluation;

/** Measures a model on one file of training data, as the validation of a training run does. */
MICA_API bool mica_evaluate(const char *model, const char *file, const mica_evaluate_options *options, mica_evaluation *out, mica_error *err);

#ifdef __cplusplus
}
#endif
#endif
